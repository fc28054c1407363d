"""Protection keys for supervisor pages (SDM 3, 4.6.2): IA32_PKRS, what each key forbids to whom, error codes."""

from __future__ import annotations

from tests.guests.topics.key_pages import PAGE, PKE, PKS, KeyPages, P, U, W
from tests.guests.topics.program import GP, Program

IA32_PKRS = 0x6E1


def _pkrs(value: int) -> str:
    return f"mov ecx, {IA32_PKRS:#x}\nmov edx, 0x0\nmov eax, {value:#x}\nwrmsr\n"


PAGES = KeyPages({"supervisor": P | W, "readonly": P, "user": P | W | U}, 0, _pkrs)


def program() -> Program:
    p = Program("supervisor_keys", needs="pks")
    PAGES.map(p)
    read = f"mov ecx, {IA32_PKRS:#x}\nrdmsr\n"
    p.check("initial", "mov rax, -1\nmov rdx, -1\n" + read, ax=0, dx=0)
    p.check("read_back", _pkrs(0x12345678) + "mov rax, -1\nmov rdx, -1\n" + read, ax=0x12345678, dx=0)
    p.check("reserved", f"mov ecx, {IA32_PKRS:#x}\nmov edx, 1\nreserved_at: wrmsr\n", vector=GP, error=0, ip="reserved_at")
    p.check("off_keys_are_ignored", _pkrs(0xFFFFFFFC) + f"mov rbx, {PAGE:#x}\nmov al, [rbx]\n")
    p.asm(_pkrs(0) + f"mov rax, cr4\nor eax, {PKS:#x}\nmov cr4, rax\n")
    PAGES.check_accesses(p)
    PAGES.check_keys(p)
    p.asm(_pkrs(3 << 10))
    p.asm(f"mov rax, cr4\nand eax, {~PKS & 0xFFFFFFFF:#x}\nor eax, {PKE:#x}\nmov cr4, rax\n")
    p.check("off_again", f"mov rbx, {PAGE:#x}\nmov al, [rbx]\n")
    return p
