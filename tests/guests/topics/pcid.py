"""PCIDs and INVPCID (SDM 3, 4.10), as far as a program can rely on them: what must be gone after each way to invalidate.
A translation that is merely allowed to stay is not checked.
"""

from __future__ import annotations

from tests.guests.topics.paging import FLUSH, GOOD, PT_T, TARGET, VA, put
from tests.guests.topics.program import GP, PF, PML4, SCRATCH, UD, Program

PCIDE = 1 << 17
DESCRIPTOR = SCRATCH + 0x4000


def invpcid(kind: int, pcid: int = 0, linear: int = 0, label: str = "") -> str:
    """INVPCID rax, [rbx]."""
    return (
        f"mov ebx, {DESCRIPTOR}\nmov rax, {pcid:#x}\nmov [rbx], rax\nmov rax, {linear:#x}\nmov [rbx + 8], rax\nmov rax, {kind}\n"
        f"{label}.byte 0x66, 0x0f, 0x38, 0x82, 0x03\n"
    )


def cr3(value: int) -> str:
    """MOV to CR3."""
    return f"mov rax, {value:#x}\nmov cr3, rax\n"


TOUCH = f"mov rdi, {VA:#x}\nmov bl, [rdi + 32]\n"
NO_FLUSH = 1 << 63


def program() -> Program:
    p = Program("pcid", 64)
    p.asm(f"mov edi, {SCRATCH}\nmov ecx, 0xc00\nxor eax, eax\nrep stosd es:[rdi], eax\n" + GOOD + FLUSH)
    p.check(
        "cpuid",
        "mov eax, 1\ncpuid\nmov ebp, ecx\nmov eax, 7\nxor ecx, ecx\ncpuid",
        bp=(PCIDE, PCIDE),
        bx=(1 << 10, 1 << 10),
    )
    p.check(
        "cr3_low_12_bits", cr3(PML4 | 5) + "mov rbx, cr3\n" + cr3(PML4), bx=PML4 | 5
    )  # ignored but for bits 3 and 4, and kept
    p.check(
        "enable_with_pcid",
        cr3(PML4 | 5) + "mov rax, cr4\nbts rax, 17\nenable_1: mov cr4, rax",
        vector=GP,
        error=0,
        ip="enable_1",
    )
    p.asm(cr3(PML4))
    p.check("enable", "mov rax, cr4\nbts rax, 17\nmov cr4, rax\nmov rbx, cr4", bx=(PCIDE, PCIDE))
    p.check("pcid_reads_back", cr3(PML4 | 0x123) + "mov rbx, cr3\n" + cr3(PML4), bx=PML4 | 0x123)
    p.check(
        "bit_63_reads_0",
        cr3(PML4 | 0x123) + cr3(NO_FLUSH | PML4 | 0x123) + "mov rbx, cr3\n" + cr3(PML4),
        bx=PML4 | 0x123,
    )
    p.check("cr3_bit_62", f"mov rax, {1 << 62 | PML4:#x}\ncr3_62: mov cr3, rax", vector=GP, error=0, ip="cr3_62")
    # ---- what must be gone
    gone = {"vector": PF, "error": 0, "cr2": VA + 32}
    for name, how in (
        ("mov_cr3", cr3(PML4)), ("invlpg", f"mov rdi, {VA:#x}\ninvlpg [rdi]\n"), ("invpcid_address", invpcid(0, 0, VA)), ("invpcid_context", invpcid(1, 0)),
        ("invpcid_all_global", invpcid(2)), ("invpcid_all", invpcid(3)), ("other_context_and_back", cr3(PML4 | 1) + cr3(PML4)),
    ):  # fmt: skip
        p.asm(GOOD + FLUSH)
        p.check(name, TOUCH + put(PT_T, 0) + how + TOUCH, **gone)
    # a new context never saw the old translation
    p.asm(GOOD + FLUSH)
    p.check("new_context", TOUCH + put(PT_T, 0) + cr3(PML4 | 2) + TOUCH, **gone)
    p.asm(cr3(PML4))
    p.asm(GOOD + FLUSH + cr3(PML4 | 3) + TOUCH + put(PT_T, 0) + cr3(PML4))
    p.check("invpcid_other_context", invpcid(1, 3) + cr3(NO_FLUSH | PML4 | 3) + TOUCH, **gone)
    p.asm(cr3(PML4) + GOOD + FLUSH + cr3(PML4 | 3) + TOUCH + put(PT_T, 0) + cr3(PML4))
    p.check("invpcid_other_address", invpcid(0, 3, VA) + cr3(NO_FLUSH | PML4 | 3) + TOUCH, **gone)
    p.asm(cr3(PML4) + "mov rax, cr4\nor eax, 0x80\nmov cr4, rax\n" + GOOD + put(PT_T, TARGET + 0x107) + FLUSH)
    p.check("invpcid_all_drops_global", TOUCH + put(PT_T, 0) + invpcid(2) + TOUCH, **gone)
    p.asm(GOOD + FLUSH)
    p.check("disable_drops", TOUCH + put(PT_T, 0) + "mov rax, cr4\nbtr rax, 17\nmov cr4, rax\n" + TOUCH, **gone)
    p.asm(GOOD + FLUSH + "mov rax, cr4\nbts rax, 17\nmov cr4, rax\n")
    # ---- INVPCID's faults (SDM 2)
    p.check("type_4", invpcid(4, 0, 0, "inv_1: "), vector=GP, error=0, ip="inv_1")
    p.check("type_high", invpcid(1 << 32, 0, 0, "inv_2: "), vector=GP, error=0, ip="inv_2")
    p.check("descriptor_reserved", invpcid(1, 0x1000, 0, "inv_3: "), vector=GP, error=0, ip="inv_3")
    p.check("descriptor_reserved_63", invpcid(0, 1 << 63, 0, "inv_4: "), vector=GP, error=0, ip="inv_4")
    p.check("noncanonical", invpcid(0, 0, 1 << 62, "inv_5: "), vector=GP, error=0, ip="inv_5")
    p.check("noncanonical_unused", invpcid(1, 0, 1 << 47))
    p.check(
        "descriptor_fault",
        "mov rbx, 0x4000000000\nmov eax, 2\ninv_6: .byte 0x66, 0x0f, 0x38, 0x82, 0x03",
        vector=PF,
        error=0,
        cr2=0x4000000000,
        ip="inv_6",
    )
    p.check("register", "inv_7: .byte 0x66, 0x0f, 0x38, 0x82, 0xc3", vector=UD, ip="inv_7")
    p.user("cpl3", invpcid(2, 0, 0, "inv_8: "), vector=GP, error=0, ip="inv_8")
    p.asm("mov rax, cr4\nbtr rax, 17\nmov cr4, rax\n")
    p.check("without_pcid_0", invpcid(1, 0))
    p.check("without_pcid_1", invpcid(1, 1, 0, "inv_9: "), vector=GP, error=0, ip="inv_9")
    return p
