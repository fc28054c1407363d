"""5-level paging (SDM 3, 4.5): how it is entered and left, 57-bit addresses, rights and faults of the fifth level."""

from __future__ import annotations

from tests.guests.topics.program import CODE0, CODE32, GP, NONE, PF, PML4, SCRATCH, SS, Program, far

PML5, PML4_HIGH, PDPT_HIGH, PD_HIGH = SCRATCH, SCRATCH + 0x1000, SCRATCH + 0x2000, SCRATCH + 0x3000
TARGET = 0x800000  # where 2^48 leads to: 2 MiB of memory, whose last page has code
HIGH = 1 << 48  # an address that needs the fifth level
LAST = 0x00FF_FFFF_FFE0_0000  # the last large page of the lower half
KERNEL = 0xFF00_0000_0000_0000
LA57, LME = 1 << 12, 1 << 8
NX = 1 << 63
FS_BASE, LSTAR = 0xC0000100, 0xC0000082


def _entry(address: int, value: int) -> str:
    return f"mov rax, {value:#x}\nmov [{address:#x}], rax\n"


def _enter() -> str:
    """From 4-level to 5-level paging: through 32-bit code with paging off."""
    return f"""
        mov rax, cr3
        {far_to_32("leave_long")}
    .code32
    leave_long:
        mov eax, cr0
        and eax, 0x7fffffff
        mov cr0, eax
        mov eax, cr4
        or eax, {LA57:#x}
        mov cr4, eax
        mov eax, {PML5:#x}
        mov cr3, eax
        mov eax, cr0
        or eax, 0x80000000
        mov cr0, eax
        {far(0xEA, "five_levels_on", CODE0)}
    .code64
    five_levels_on:
    """


def far_to_32(label: str) -> str:
    """A far return to 32-bit code."""
    return f"push {CODE32}\nmov eax, {label}\npush rax\n.byte 0x48, 0xcb\n"


def _wrmsr(index: int, value: int) -> str:
    return f"mov ecx, {index:#x}\nmov eax, {value & 0xFFFFFFFF:#x}\nmov edx, {value >> 32:#x}\nwrmsr\n"


def program() -> Program:
    p = Program("five_levels", needs="la57")
    set_la57 = f"mov rax, cr4\nxor eax, {LA57:#x}\nmov cr4, rax\n"
    load = "mov rbx, {:#x}\nmov al, [rbx]\n"
    write = "mov rbx, {:#x}\nmov byte ptr [rbx], 1\n"
    for table in (PML5, PML4_HIGH, PDPT_HIGH, PD_HIGH):
        p.asm(f"lea rdi, [{table:#x}]\nxor eax, eax\nmov ecx, 1024\nrep stosd es:[rdi], eax\n")
    p.asm(_entry(PML5, PML4 | 7) + _entry(PML5 + 8, PML4_HIGH | 7) + _entry(PML5 + 8 * 255, PML4_HIGH | 7))
    for index in (0, 511):
        p.asm(_entry(PML4_HIGH + 8 * index, PDPT_HIGH | 7) + _entry(PDPT_HIGH + 8 * index, PD_HIGH | 7))
        p.asm(_entry(PD_HIGH + 8 * index, TARGET | 0x87))
    # code that returns, at the start of the page
    p.asm(f"mov byte ptr [{TARGET:#x}], 0xc3\nmov dword ptr [{TARGET + 0x100:#x}], 0x12345678\n")

    # ---- 4-level paging on a processor that could more
    p.check("set_in_long_mode", set_la57, vector=GP, error=0)
    p.check("four_levels_high_address", load.format(HIGH), vector=GP, error=0)
    p.check("four_levels_high_jump", f"mov rax, {HIGH:#x}\njmp rax\n", vector=GP, error=0)
    p.check("four_levels_base_57_bits", _wrmsr(FS_BASE, LAST) + _wrmsr(FS_BASE, 0))
    p.check("four_levels_base_beyond", _wrmsr(FS_BASE, 1 << 56), vector=GP, error=0)

    # ---- 5-level paging
    p.asm(_enter())
    p.check("cr4", "mov rax, cr4\n", ax=(LA57, LA57))
    p.check("cleared_in_long_mode", set_la57, vector=GP, error=0)
    p.check("low_address", load.format(TARGET), vector=NONE)
    p.check("high_address", f"mov rbx, {HIGH + 0x100:#x}\nmov eax, [rbx]\n", ax=0x12345678)
    p.check("last_address", f"mov rbx, {LAST + 0x100:#x}\nmov eax, [rbx]\n", ax=0x12345678)
    p.check("high_write", f"mov rbx, {HIGH + 0x108:#x}\nmov dword ptr [rbx], 77\nmov eax, [{TARGET + 0x108:#x}]\n", ax=77)
    p.check("high_call", f"mov rax, {HIGH:#x}\ncall rax\nmov ebx, 5\n", bx=5)
    p.check("high_call_repeated", f"mov ecx, 100\nmov rax, {HIGH:#x}\nagain: call rax\ndec ecx\njnz again\n", cx=(0, 0xFFFF))
    p.check("not_canonical", load.format(1 << 56), vector=GP, error=0)
    p.check("not_canonical_sign", load.format(0xFE00 << 48), vector=GP, error=0)
    p.check("not_canonical_stack", f"mov rbp, {1 << 56:#x}\nmov al, [rbp]\n", vector=SS, error=0)
    p.check("not_canonical_jump", f"mov rax, {1 << 56:#x}\njmp rax\n", vector=GP, error=0)
    p.check("not_canonical_iret", f"push 0x10\npush 0x1000\npush 2\npush 8\nmov rax, {1 << 56:#x}\npush rax\niretq\n",
            vector=GP, error=0)  # fmt: skip
    p.check("across_the_end", f"mov rbx, {(1 << 56) - 4:#x}\nmov rax, [rbx]\n", vector=GP, error=0)
    p.check("absent", load.format(5 << 48), vector=PF, error=0, cr2=5 << 48)
    p.check("absent_kernel_half", load.format(KERNEL), vector=PF, error=0, cr2=KERNEL)
    p.check("absent_jump", f"mov rax, {5 << 48:#x}\njmp rax\n", vector=PF, error=0, cr2=5 << 48)
    p.check("base", _wrmsr(FS_BASE, LAST) + "mov eax, fs:[0x100]\n", ax=0x12345678)
    p.asm(_wrmsr(FS_BASE, 0))
    p.check("entry_point", _wrmsr(LSTAR, KERNEL) + _wrmsr(LSTAR, 0))

    # ---- the fifth level's entry: its bits come first in the walk
    flush = "mov rax, cr3\nmov cr3, rax\n"

    def with_entry(value: int) -> None:
        p.asm(_entry(PML5 + 8, value) + flush)

    with_entry(PML4_HIGH | 5)
    p.check("read_only", load.format(HIGH))
    p.check("read_only_write", write.format(HIGH), vector=PF, error=3, cr2=HIGH)
    with_entry(PML4_HIGH | 3)
    p.check("supervisor", load.format(HIGH))
    p.user("supervisor_user", load.format(HIGH), vector=PF, error=5, cr2=HIGH)
    with_entry(PML4_HIGH | 7)
    p.user("user", load.format(HIGH))
    with_entry(PML4_HIGH | 0x87)
    p.check("page_size_is_reserved", load.format(HIGH), vector=PF, error=9, cr2=HIGH)
    with_entry(PML4_HIGH | 7 | 1 << 51)
    p.check("reserved_address_bit", load.format(HIGH), vector=PF, error=9, cr2=HIGH)
    with_entry(PML4_HIGH | 7 | NX)
    p.check("reserved_nx", load.format(HIGH), vector=PF, error=9, cr2=HIGH)
    p.asm("mov ecx, 0xc0000080\nrdmsr\nor eax, 0x800\nwrmsr\n" + flush)
    p.check("no_execute", load.format(HIGH))
    p.check("no_execute_jump", f"mov rax, {HIGH:#x}\njmp rax\n", vector=PF, error=0x11, cr2=HIGH)
    with_entry(PML4_HIGH | 7)
    p.check("accessed", load.format(HIGH) + f"mov eax, [{PML5 + 8:#x}]\n", ax=(0x20, 0x20))
    return p
