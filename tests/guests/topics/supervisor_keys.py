"""Protection keys for supervisor pages (SDM 3, 4.6.2): IA32_PKRS, what each key forbids to whom, error codes."""

from __future__ import annotations

from itertools import product

from tests.guests.topics.program import DONE, GP, NONE, PF, SCRATCH, Program

VA = 0x80_00A0_0000  # page n has key n % 16; from page 16 on they are read-only, from 32 on the user's
PDPT_T, PD_T, PT_T = SCRATCH, SCRATCH + 0x1000, SCRATCH + 0x2000
TARGET = 0xA00000
IA32_PKRS = 0x6E1
PKE, PKS, WP = 1 << 22, 1 << 24, 1 << 16
E_P, E_W, E_U, E_PK = 1, 2, 4, 32
P, W, U, KEY = 1, 2, 4, 1 << 59
PAGES = {"supervisor": P | W, "readonly": P, "user": P | W | U}
KEYED = 5  # the key that the cross product uses


def _pkrs(value: int, high: int = 0) -> str:
    return f"mov ecx, {IA32_PKRS:#x}\nmov edx, {high:#x}\nmov eax, {value:#x}\nwrmsr\n"


def outcome(page: str, denied: int, user: bool, write: bool, wp: bool) -> int:
    """The error code, or NONE."""
    error = E_P | (E_U if user else 0) | (E_W if write else 0)
    bits = PAGES[page]
    allowed = bool(bits & U) or not user
    if write and not bits & W and (user or wp):
        allowed = False
    key = not bits & U and (bool(denied & 1) or bool(denied & 2) and write and (user or wp))
    return NONE if allowed and not key else error | (E_PK if key else 0)


def program() -> Program:
    p = Program("supervisor_keys", needs="pks")
    pml4_entry = f"mov rax, cr3\nmov qword ptr [rax + 8], {PDPT_T | 7:#x}\n"
    for table in (PDPT_T, PD_T, PT_T):
        p.asm(f"lea rdi, [{table:#x}]\nxor eax, eax\nmov ecx, 1024\nrep stosd es:[rdi], eax\n")
    p.asm(f"{pml4_entry}mov dword ptr [{PDPT_T:#x}], {PD_T | 7:#x}\nmov dword ptr [{PD_T + 8 * 5:#x}], {PT_T | 7:#x}\n")
    for group, bits in enumerate(PAGES.values()):
        for key in range(16):
            n = 16 * group + key
            entry = (TARGET + 0x1000 * n) | bits | KEY * key
            p.asm(f"mov rax, {entry:#x}\nmov [{PT_T + 8 * n:#x}], rax\n")
    page = VA + 0x1000 * KEYED
    read = f"mov ecx, {IA32_PKRS:#x}\nrdmsr\n"
    p.check("initial", "mov rax, -1\nmov rdx, -1\n" + read, ax=0, dx=0)
    p.check("read_back", _pkrs(0x12345678) + "mov rax, -1\nmov rdx, -1\n" + read, ax=0x12345678, dx=0)
    p.check("reserved", f"mov ecx, {IA32_PKRS:#x}\nmov edx, 1\nreserved_at: wrmsr\n", vector=GP, error=0, ip="reserved_at")
    p.check("off_keys_are_ignored", _pkrs(0xFFFFFFFC) + f"mov rbx, {page:#x}\nmov al, [rbx]\n")
    p.asm(_pkrs(0) + f"mov rax, cr4\nor eax, {PKS:#x}\nmov cr4, rax\n")
    for kind, denied, user, write, wp in product(PAGES, range(4), (True, False), (True, False), (True, False)):
        if user and denied and not PAGES[kind] & U:
            continue  # refused anyway, and no judge knows whether the error code names the key, too
        address = page + 0x10000 * list(PAGES).index(kind) + 0x10
        p.asm(f"mov rax, cr0\n{'or' if wp else 'and'} eax, {WP if wp else ~WP & 0xFFFFFFFF:#x}\nmov cr0, rax\n")
        p.asm(_pkrs(denied << 2 * KEYED))
        body = f"mov rbx, {address:#x}\n" + ("mov byte ptr [rbx], 1\n" if write else "mov al, [rbx]\n")
        error = outcome(kind, denied, user, write, wp)
        name = f"{kind}_{'write' if write else 'read'}{'_user' if user else ''}_key{denied}{'_wp' if wp else ''}"
        add = p.user if user else p.check
        if error == NONE:
            add(name, body, vector=DONE if user else NONE)
        else:
            add(name, body, vector=PF, error=error, cr2=address)
    p.asm(_pkrs(0xFFFFFFFF & ~3))
    for key in range(16):
        address = VA + 0x1000 * key
        expected = {"vector": NONE} if key == 0 else {"vector": PF, "error": E_P | E_PK, "cr2": address}
        p.check(f"key_{key}", f"mov rbx, {address:#x}\nmov al, [rbx]\n", **expected)
    p.check("code_is_not_bound", f"mov byte ptr [{TARGET + 0x5000:#x}], 0xc3\nmov rax, {page:#x}\ncall rax\n")
    p.check("takes_effect_at_once", _pkrs(0) + f"mov rbx, {page:#x}\nmov al, [rbx]\n" + _pkrs(3 << 10)
            + "mov al, [rbx]\n", vector=PF, error=E_P | E_PK, cr2=page)  # fmt: skip
    p.check("and_back", _pkrs(0) + f"mov rbx, {page:#x}\nmov al, [rbx]\n")
    p.asm(_pkrs(3 << 10))
    p.asm(f"mov rax, cr4\nand eax, {~PKS & 0xFFFFFFFF:#x}\nor eax, {PKE:#x}\nmov cr4, rax\n")
    p.check("off_again", f"mov rbx, {page:#x}\nmov al, [rbx]\n")
    return p
