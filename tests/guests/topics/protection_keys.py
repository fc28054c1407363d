"""Protection keys for user pages (SDM 3, 4.6.2): RDPKRU and WRPKRU, what each key forbids to whom, error codes."""

from __future__ import annotations

from tests.guests.topics.key_pages import E_P, E_PK, PAGE, PKE, KeyPages, P, U, W
from tests.guests.topics.program import GP, PF, SCRATCH, UD, Program

RDPKRU, WRPKRU = ".byte 0x0f, 0x01, 0xee\n", ".byte 0x0f, 0x01, 0xef\n"


def _pkru(value: int) -> str:
    return f"xor ecx, ecx\nxor edx, edx\nmov eax, {value:#x}\n{WRPKRU}"


PAGES = KeyPages({"user": P | W | U, "readonly": P | U, "supervisor": P | W}, U, _pkru)


def program() -> Program:
    p = Program("protection_keys", needs="pku")
    PAGES.map(p)
    p.check("off_rdpkru", RDPKRU, vector=UD)
    p.check("off_wrpkru", _pkru(0), vector=UD)
    p.check("off_keys_are_ignored", f"mov rbx, {PAGE:#x}\nmov al, [rbx]\n")
    p.asm(f"mov rax, cr4\nor eax, {PKE:#x}\nmov cr4, rax\n")
    p.check("initial", f"mov rdx, -1\nxor ecx, ecx\n{RDPKRU}", ax=0, dx=0)
    p.check("read_back", _pkru(0x12345678) + f"mov rax, -1\nmov rdx, -1\n{RDPKRU}", ax=0x12345678, dx=0)
    p.user("read_back_user", _pkru(0x44) + f"mov rax, -1\n{RDPKRU}", ax=0x44)
    p.check("rdpkru_ecx", f"mov ecx, 1\n{RDPKRU}", vector=GP, error=0)
    p.check("wrpkru_ecx", f"mov ecx, 1\nxor edx, edx\n{WRPKRU}", vector=GP, error=0)
    p.check("wrpkru_edx", f"xor ecx, ecx\nmov edx, 1\n{WRPKRU}", vector=GP, error=0)
    p.check("upper_halves_are_ignored", f"mov rcx, {1 << 32:#x}\nmov rdx, rcx\nmov rax, rcx\n{WRPKRU}")
    p.check("with_66_prefix", f"xor ecx, ecx\n.byte 0x66\n{RDPKRU}", vector=UD)
    PAGES.check_accesses(p)
    PAGES.check_keys(p)
    p.check("cpuid_ospke", "mov eax, 7\nxor ecx, ecx\ncpuid\n", cx=(0x18, 0x18))
    area, save, restore = SCRATCH + 0x10000, ".byte 0x0f, 0xae, 0x23\n", ".byte 0x0f, 0xae, 0x2b\n"
    mask = f"mov rbx, {area:#x}\nmov eax, 0x200\nxor edx, edx\n"
    clear = f"lea rdi, [{area:#x}]\nxor eax, eax\nmov ecx, 1024\nrep stosd es:[rdi], eax\n"
    p.asm("mov rax, cr4\nor eax, 0x40000\nmov cr4, rax\nxor ecx, ecx\nxor edx, edx\nmov eax, 0x203\n.byte 0x0f, 0x01, 0xd1\n")
    p.asm(clear)
    p.check("xsave", _pkru(3 << 10) + mask + save + f"mov eax, [{area + 2688:#x}]\nmov ecx, [{area + 512:#x}]\n",
            ax=3 << 10, cx=(0x200, 0x200))  # fmt: skip
    p.check("xrstor", _pkru(0) + mask + restore + f"xor ecx, ecx\n{RDPKRU}", ax=3 << 10)
    p.check("xrstor_takes_effect", _pkru(0) + f"mov rsi, {PAGE:#x}\nmov al, [rsi]\n" + mask + restore
            + "mov al, [rsi]\n", vector=PF, error=E_P | E_PK, cr2=PAGE)  # fmt: skip
    p.asm(clear)
    p.check("xrstor_initial", _pkru(0x50) + mask + restore + f"xor ecx, ecx\n{RDPKRU}", ax=0)
    p.asm(_pkru(0xFFFFFFFC) + f"mov rax, cr4\nand eax, {~PKE & 0xFFFFFFFF:#x}\nmov cr4, rax\n")
    p.check("off_again", f"mov rbx, {PAGE:#x}\nmov al, [rbx]\n")
    return p
