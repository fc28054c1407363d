"""XSAVES, XRSTORS and IA32_XSS (SDM 1, 13.11 and 13.12): who may use them, headers, what is saved and restored."""

from __future__ import annotations

from tests.guests.topics.program import GP, NM, UD, Program
from tests.guests.topics.xsave import AREA, HEADER, OSXSAVE, SET_XMM, clear, header, xsetbv

IA32_XSS = 0xDA0
COMPACTED = 1 << 63
YMM3 = AREA + 576 + 48  # the upper half, in an area that has no other component behind SSE
XMM3 = AREA + 160 + 48


def _area(number: int, mask: int, label: str, at: int) -> str:
    return f"mov eax, {mask}\nxor edx, edx\nmov esi, {at}\n{label}.byte 0x48, 0x0f, 0xc7, {number << 3 | 6:#x}\n"


def xsaves(mask: int, label: str = "", at: int = AREA) -> str:
    """XSAVES64 [AREA]."""
    return _area(5, mask, label, at)


def xrstors(mask: int, label: str = "", at: int = AREA) -> str:
    """XRSTORS64 [AREA]."""
    return _area(3, mask, label, at)


def load(*registers: tuple[str, int]) -> str:
    """Registers from memory."""
    return "".join(f"mov {name}, {at}\nmov {name}, [{name}]\n" for name, at in registers)


def program() -> Program:
    p = Program("xsaves", 64, needs="xsaves")
    for n, code in enumerate((xsaves, xrstors)):
        p.check(f"off_{n}", code(3, f"off_{n}: "), vector=UD, ip=f"off_{n}")
    p.asm(f"mov rax, cr4\nor eax, {OSXSAVE}\nmov cr4, rax\n" + xsetbv(7))
    p.check("cpuid", "mov eax, 13\nmov ecx, 1\ncpuid", ax=(8, 8), bx=576 + 256)
    read = f"mov ecx, {IA32_XSS:#x}\nrdmsr\n"
    p.check("xss", "mov rax, -1\nmov rdx, -1\n" + read, ax=0, dx=0)
    write = f"mov ecx, {IA32_XSS:#x}\nxor eax, eax\nmov edx, {{}}\n{{}}wrmsr\n"
    p.check("xss_0", write.format(0, ""))
    p.check("xss_bit63", write.format("0x80000000", "xss_1: "), vector=GP, error=0, ip="xss_1")
    p.check(
        "xss_user_state",
        f"mov ecx, {IA32_XSS:#x}\nmov eax, 2\nxor edx, edx\nxss_2: wrmsr",
        vector=GP,
        error=0,
        ip="xss_2",
    )
    for name, code in (("xsaves", xsaves), ("xrstors", xrstors)):
        p.user(f"{name}_cpl3", code(3, f"{name}_3: "), vector=GP, error=0, ip=f"{name}_3")
        p.check(f"{name}_misaligned", code(3, f"{name}_4: ", AREA + 32), vector=GP, error=0, ip=f"{name}_4")
        p.check(
            f"{name}_ts", "mov rax, cr0\nor eax, 8\nmov cr0, rax\n" + code(3, f"{name}_5: "), vector=NM, ip=f"{name}_5"
        )
        p.check(f"{name}_ts_off", "clts")
    p.check("register", "reg_1: .byte 0x0f, 0xc7, 0xe8", vector=UD, ip="reg_1")
    p.check("register_xrstors", "reg_2: .byte 0x0f, 0xc7, 0xd8", vector=UD, ip="reg_2")
    p.check("lock", f"mov esi, {AREA}\nlock_1: .byte 0xf0, 0x0f, 0xc7, 0x2e", vector=UD, ip="lock_1")
    # ---- what is saved
    value = 0x1122334455667788
    set_state = "fninit\nvzeroall\n" + SET_XMM.format(f"{value:#x}")
    header_words = (("rbx", HEADER), ("rdx", HEADER + 8))
    p.check(
        "saves_what_is_in_use",
        set_state + clear(0xFF) + xsaves(7) + load(*header_words),
        bx=(2, 6), dx=COMPACTED | 7,
    )  # fmt: skip
    p.check("saves_sse", load(("rbx", XMM3)), bx=value)
    upper = "vinsertf128 ymm3, ymm3, xmm3, 1\n"
    p.check(
        "saves_avx_compacted",
        set_state + upper + clear() + xsaves(4) + load(*header_words, ("rsi", YMM3)) + "mov rax, rsi",
        ax=value, bx=4, dx=COMPACTED | 4,
    )  # fmt: skip
    p.check(
        "restores_avx",
        "vzeroall\n" + xrstors(4) + "vextractf128 xmm2, ymm3, 1\nmovq rbx, xmm2\nmovq rdx, xmm3",
        bx=value,
        dx=0,
    )
    p.check("initial_avx", header(0, 0) + xrstors(4) + "vextractf128 xmm2, ymm3, 1\nmovq rbx, xmm2", bx=0)
    p.check("header_is_written", clear(0xFF) + xsaves(2) + load(("rbx", HEADER + 8)), bx=COMPACTED | 2)
    # ---- what is refused
    for name, changes in (
        ("standard", ((0, 3), (8, 0))),
        ("empty_standard", ()),
        ("xcomp_bv", ((8, COMPACTED | 1 << 3),)),
        ("xcomp_bv_62", ((8, COMPACTED | 1 << 62),)),
        ("beyond_xcomp_bv", ((0, 3), (8, COMPACTED | 1))),
        ("reserved", ((8, COMPACTED), (16, 1))),
        ("reserved_end", ((8, COMPACTED), (56, 1))),
    ):
        text = clear() + "".join(header(at, wrong) for at, wrong in changes) + xrstors(7, f"bad_{name}: ")
        p.check(f"header_{name}", text, vector=GP, error=0, ip=f"bad_{name}")
    mxcsr = f"mov ecx, {AREA + 24}\nmov dword ptr [rcx], {{}}\n"
    good = clear() + header(8, COMPACTED | 3)
    p.check(
        "mxcsr_reserved",
        good + header(0, 2) + mxcsr.format("0x10000") + xrstors(3, "mxcsr_1: "),
        vector=GP,
        error=0,
        ip="mxcsr_1",
    )
    show = "stmxcsr [0x231000]\nmov ecx, 0x231000\nmov ebx, [rcx]"
    p.check("mxcsr", good + header(0, 2) + mxcsr.format("0x1f00") + xrstors(2) + show, bx=0x1F00)
    p.check("mxcsr_initial", good + mxcsr.format("0x1f00") + xrstors(2) + show, bx=0x1F80)
    return p
