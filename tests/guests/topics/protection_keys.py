"""Protection keys for user pages (SDM 3, 4.6.2): RDPKRU and WRPKRU, what each key forbids to whom, error codes."""

from __future__ import annotations

from itertools import product

from tests.guests.topics.program import DONE, GP, NONE, PF, SCRATCH, UD, Program

VA = 0x80_00A0_0000  # page n has key n % 16; from page 16 on they are read-only, from 32 on the supervisor's
PDPT_T, PD_T, PT_T = SCRATCH, SCRATCH + 0x1000, SCRATCH + 0x2000
TARGET = 0xA00000
PKE, WP = 1 << 22, 1 << 16
E_P, E_W, E_U, E_PK = 1, 2, 4, 32
P, W, U, KEY = 1, 2, 4, 1 << 59
PAGES = {"user": P | W | U, "readonly": P | U, "supervisor": P | W}
RDPKRU, WRPKRU = ".byte 0x0f, 0x01, 0xee\n", ".byte 0x0f, 0x01, 0xef\n"
KEYED = 5  # the key that the cross product uses


def _pkru(value: int) -> str:
    return f"xor ecx, ecx\nxor edx, edx\nmov eax, {value:#x}\n{WRPKRU}"


def outcome(page: str, denied: int, user: bool, write: bool, wp: bool) -> int:
    """The error code, or NONE."""
    error = E_P | (E_U if user else 0) | (E_W if write else 0)
    bits = PAGES[page]
    allowed = bool(bits & U) or not user
    if write and not bits & W and (user or wp):
        allowed = False
    key = bool(bits & U) and (bool(denied & 1) or bool(denied & 2) and write and (user or wp))
    return NONE if allowed and not key else error | (E_PK if key else 0)


def program() -> Program:
    p = Program("protection_keys", needs="pku")
    pml4_entry = f"mov rax, cr3\nmov qword ptr [rax + 8], {PDPT_T | 7:#x}\n"
    for table in (PDPT_T, PD_T, PT_T):
        p.asm(f"lea rdi, [{table:#x}]\nxor eax, eax\nmov ecx, 1024\nrep stosd es:[rdi], eax\n")
    p.asm(f"{pml4_entry}mov dword ptr [{PDPT_T:#x}], {PD_T | 7:#x}\nmov dword ptr [{PD_T + 8 * 5:#x}], {PT_T | 7:#x}\n")
    for kind, (_, bits) in enumerate(PAGES.items()):
        for key in range(16):
            n = 16 * kind + key
            entry = (TARGET + 0x1000 * n) | bits | KEY * key
            p.asm(f"mov rax, {entry:#x}\nmov [{PT_T + 8 * n:#x}], rax\n")
    p.check("off_rdpkru", RDPKRU, vector=UD)
    p.check("off_wrpkru", _pkru(0), vector=UD)
    p.check("off_keys_are_ignored", f"mov rbx, {VA + 0x5000:#x}\nmov al, [rbx]\n")
    p.asm(f"mov rax, cr4\nor eax, {PKE:#x}\nmov cr4, rax\n")
    p.check("initial", f"mov rdx, -1\nxor ecx, ecx\n{RDPKRU}", ax=0, dx=0)
    p.check("read_back", _pkru(0x12345678) + f"mov rax, -1\nmov rdx, -1\n{RDPKRU}", ax=0x12345678, dx=0)
    p.user("read_back_user", _pkru(0x44) + f"mov rax, -1\n{RDPKRU}", ax=0x44)
    p.check("rdpkru_ecx", f"mov ecx, 1\n{RDPKRU}", vector=GP, error=0)
    p.check("wrpkru_ecx", f"mov ecx, 1\nxor edx, edx\n{WRPKRU}", vector=GP, error=0)
    p.check("wrpkru_edx", f"xor ecx, ecx\nmov edx, 1\n{WRPKRU}", vector=GP, error=0)
    p.check("upper_halves_are_ignored", f"mov rcx, {1 << 32:#x}\nmov rdx, rcx\nmov rax, rcx\n{WRPKRU}")
    p.check("with_66_prefix", f"xor ecx, ecx\n.byte 0x66\n{RDPKRU}", vector=UD)
    for page, denied, user, write, wp in product(PAGES, range(4), (True, False), (True, False), (True, False)):
        number = 16 * list(PAGES).index(page) + KEYED
        address = VA + 0x1000 * number + 0x10
        p.asm(f"mov rax, cr0\n{'or' if wp else 'and'} eax, {WP if wp else ~WP & 0xFFFFFFFF:#x}\nmov cr0, rax\n")
        p.asm(_pkru(denied << 2 * KEYED))
        body = f"mov rbx, {address:#x}\n" + ("mov byte ptr [rbx], 1\n" if write else "mov al, [rbx]\n")
        error = outcome(page, denied, user, write, wp)
        name = f"{page}_{'write' if write else 'read'}{'_user' if user else ''}_key{denied}{'_wp' if wp else ''}"
        add = p.user if user else p.check
        if error == NONE:
            add(name, body, vector=DONE if user else NONE)
        else:
            add(name, body, vector=PF, error=error, cr2=address)
    p.asm(_pkru(0xFFFFFFFF & ~3))
    for key in range(16):
        address = VA + 0x1000 * key
        expected = {"vector": NONE} if key == 0 else {"vector": PF, "error": E_P | E_PK, "cr2": address}
        p.check(f"key_{key}", f"mov rbx, {address:#x}\nmov al, [rbx]\n", **expected)
    p.check("code_is_not_bound", f"mov byte ptr [{TARGET + 0x5000:#x}], 0xc3\nmov rax, {VA + 0x5000:#x}\ncall rax\n")
    p.check("takes_effect_at_once", _pkru(0) + f"mov rbx, {VA + 0x5000:#x}\nmov al, [rbx]\n"
            + _pkru(3 << 10) + "mov al, [rbx]\n", vector=PF, error=E_P | E_PK, cr2=VA + 0x5000)  # fmt: skip
    p.check("and_back", _pkru(0) + f"mov rbx, {VA + 0x5000:#x}\nmov al, [rbx]\n")
    p.check("cpuid_ospke", "mov eax, 7\nxor ecx, ecx\ncpuid\n", cx=(0x18, 0x18))
    area, save, restore = SCRATCH + 0x10000, ".byte 0x0f, 0xae, 0x23\n", ".byte 0x0f, 0xae, 0x2b\n"
    mask = f"mov rbx, {area:#x}\nmov eax, 0x200\nxor edx, edx\n"
    clear = f"lea rdi, [{area:#x}]\nxor eax, eax\nmov ecx, 1024\nrep stosd es:[rdi], eax\n"
    p.asm("mov rax, cr4\nor eax, 0x40000\nmov cr4, rax\nxor ecx, ecx\nxor edx, edx\nmov eax, 0x203\n.byte 0x0f, 0x01, 0xd1\n")
    p.asm(clear)
    p.check("xsave", _pkru(3 << 10) + mask + save + f"mov eax, [{area + 2688:#x}]\nmov ecx, [{area + 512:#x}]\n",
            ax=3 << 10, cx=(0x200, 0x200))  # fmt: skip
    p.check("xrstor", _pkru(0) + mask + restore + f"xor ecx, ecx\n{RDPKRU}", ax=3 << 10)
    p.check("xrstor_takes_effect", _pkru(0) + f"mov rsi, {VA + 0x5000:#x}\nmov al, [rsi]\n" + mask + restore
            + "mov al, [rsi]\n", vector=PF, error=E_P | E_PK, cr2=VA + 0x5000)  # fmt: skip
    p.asm(clear)
    p.check("xrstor_initial", _pkru(0x50) + mask + restore + f"xor ecx, ecx\n{RDPKRU}", ax=0)
    p.asm(_pkru(0xFFFFFFFC) + f"mov rax, cr4\nand eax, {~PKE & 0xFFFFFFFF:#x}\nmov cr4, rax\n")
    p.check("off_again", f"mov rbx, {VA + 0x5000:#x}\nmov al, [rbx]\n")
    return p
