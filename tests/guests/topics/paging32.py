"""32-bit and PAE paging (SDM 3, 4.3 and 4.4): the cross product of paging.py in these formats, PDPTEs, PSE.

r0 of a cross-product check is the number of combinations that differ, r1 the first of them, r2 what it gave (0xff: no
fault; 0x100 and up: accessed or dirty flags differ), r3 how many there were.
"""

from __future__ import annotations

from tests.guests.topics.paging import AC, ALL, NO_FAULT, NX, RSVD, P, U, W, outcomes, verify_cross
from tests.guests.topics.program import CODE3, DATA3, GP, PF, SCRATCH, Program

VA, TARGET, USER_CODE, USER_STACK = 0x40A00000, 0xA00000, 0x600000, 0x602000
PD, PT = SCRATCH + 0x10000, SCRATCH + 0x11000
PDPT, PD0, PD1, PT1 = SCRATCH + 0x20000, SCRATCH + 0x21000, SCRATCH + 0x22000, SCRATCH + 0x23000
LEGACY = tuple(range(8))
LEGACY_MODES = tuple(m for m in ALL if not m & 2)  # without NXE
SOME = (P | W | U, W | U, P | U, P | W, P | W | U | NX, P | W | U | RSVD)
FREE = (P | W | U,)

CROSS = f"""
cross:
    mov dword ptr [x_number], 0
    xor eax, eax
    mov edi, x_failures
    mov ecx, 24
    rep stosd es:[edi], eax
    mov dword ptr [x_mode], 0
x_modes:
    mov eax, [x_mode]
    test eax, [x_without]
    jnz x_mode_next
    mov ecx, cr0
    and ecx, 0xfffeffff
    mov edx, eax
    and edx, 1
    shl edx, 16
    or ecx, edx
    mov cr0, ecx
    mov ecx, cr4
    and ecx, 0xffcfffff
    mov edx, eax
    and edx, 12
    shl edx, 18
    or ecx, edx
    mov cr4, ecx
    mov ecx, 0xc0000080
    rdmsr
    and eax, 0xfffff7ff
    mov ebx, [x_mode]
    and ebx, 2
    shl ebx, 10
    or eax, ebx
    wrmsr
    mov eax, cr3
    mov cr3, eax
    mov dword ptr [x_parent], 0
x_parents:
    mov dword ptr [x_leaf], 0
x_leaves:
    mov dword ptr [x_access], 0
x_accesses:
    mov eax, [x_parent]
    add eax, [x_parent_list]
    movzx eax, byte ptr [eax]
    mov ebx, [x_parent_at]
    mov esi, [x_parent_base]
    call write_entry
    mov eax, [x_leaf]
    mov ebx, [x_leaf_at]
    mov esi, [x_leaf_base]
    call write_entry
    mov [x_entry], edx
    mov edi, {VA:#x}
    invlpg [edi]
    mov eax, x_done
    call begin
    mov eax, [x_access]
    mov eax, [x_routines + eax * 4]
    test dword ptr [x_mode], {AC}
    jz x_go
    push 0x40002
    popfd
x_go:
    jmp eax
x_read:
    mov bl, [edi + 32]
    jmp x_fine
x_write:
    mov byte ptr [edi + 32], 0
    jmp x_fine
x_fetch:
    call edi
x_fine:
    push 2
    popfd
x_done:
    mov dword ptr [resume], 0
    mov ebx, {NO_FAULT}
    cmp dword ptr [got_vector], {PF}
    jne x_no_fault
    mov ebx, [got_error]
    mov eax, [got_cr2]
    and eax, 0xfffff000
    cmp eax, {VA:#x}
    je x_no_fault
    or ebx, 0x1000
x_no_fault:
    mov edx, [x_leaf_at]
    mov edx, [edx]
    xor edx, [x_entry]
    xor eax, eax
    cmp ebx, {NO_FAULT}
    jne x_flags
    mov eax, 0x20
    cmp dword ptr [x_access], 1
    je x_dirty
    cmp dword ptr [x_access], 4
    jne x_flags
x_dirty:
    mov eax, 0x60
x_flags:
    cmp edx, eax
    je x_compare
    or ebx, 0x100
x_compare:
    mov eax, [x_number]
    mov ecx, [x_table]
    movzx ecx, byte ptr [ecx + eax]
    mov esi, [x_access]
    shl esi, 4
    cmp ecx, ebx
    je x_next
    cmp dword ptr [x_failures + esi], 0
    jne x_again
    mov [x_failures + esi + 4], eax
    mov [x_failures + esi + 8], ebx
x_again:
    inc dword ptr [x_failures + esi]
x_next:
    inc dword ptr [x_failures + esi + 12]
    inc dword ptr [x_number]
    inc dword ptr [x_access]
    cmp dword ptr [x_access], 6
    jne x_accesses
    inc dword ptr [x_leaf]
    mov eax, [x_leaf_count]
    cmp [x_leaf], eax
    jne x_leaves
    inc dword ptr [x_parent]
    mov eax, [x_parent_count]
    cmp [x_parent], eax
    jne x_parents
x_mode_next:
    inc dword ptr [x_mode]
    cmp dword ptr [x_mode], 32
    jne x_modes
    mov eax, cr4
    and eax, 0xffcfffff
    mov cr4, eax
    ret

write_entry:                                # entry number eax with base esi at ebx; edx: its low half
    mov ecx, eax
    and ecx, 8
    shl ecx, 28
    mov edx, eax
    and edx, 16
    shl edx, 15
    or ecx, edx
    mov edx, eax
    and edx, 7
    or edx, esi
    mov [ebx], edx
    cmp dword ptr [x_wide], 0
    je write_low
    mov [ebx + 4], ecx
write_low:
    ret

x_user:
    mov ecx, {DATA3}
    mov ds, ecx
    mov es, ecx
    push {DATA3}
    push {USER_STACK}
    pushfd
    push {CODE3}
    push eax
    iretd
x_user_read:
    mov eax, {USER_CODE}
    jmp x_user
x_user_write:
    mov eax, {USER_CODE + 16}
    jmp x_user
x_user_fetch:
    mov eax, {VA + 16}
    jmp x_user
.align 8
x_routines: .long x_user_read, x_user_write, x_user_fetch, x_read, x_write, x_fetch
x_number: .long 0
x_mode: .long 0
x_without: .long 0
x_parent: .long 0
x_parent_list: .long 0
x_parent_count: .long 0
x_parent_at: .long 0
x_parent_base: .long 0
x_leaf: .long 0
x_leaf_count: .long 0
x_leaf_at: .long 0
x_leaf_base: .long 0
x_access: .long 0
x_entry: .long 0
x_table: .long 0
x_wide: .long 0
x_nowhere: .long 0, 0
x_failures: .fill 24, 4, 0
"""


def put(where: int, value: int) -> str:
    """Code that stores a doubleword."""
    return f"mov dword ptr [{where}], {value & 0xFFFFFFFF:#x}\n"


FLUSH = f"mov edi, {VA:#x}\ninvlpg [edi]\nmov eax, cr3\nmov cr3, eax\n"


def cross(
    p: Program,
    name: str,
    modes: tuple[int, ...],
    parents: tuple[int, ...],
    leaves: tuple[int, ...],
    places: tuple[int | str, int, int | str, int],
    wide: int,
) -> None:
    """All combinations; `places` is where the leaf is, its base, where its parent is, its base."""
    table = p.blob(outcomes(modes, parents, leaves))
    numbers = p.blob(bytes(parents).ljust(16, b"\0"))
    without = 2 if modes is LEGACY_MODES else 0
    for variable, value in (
        ("leaf_at", places[0]), ("leaf_base", places[1]), ("parent_at", places[2]), ("parent_base", places[3]), ("parent_list", numbers),
        ("parent_count", len(parents)), ("leaf_count", len(leaves)), ("table", table), ("wide", wide), ("without", without),
    ):  # fmt: skip
        p.asm(f"mov eax, {value}\nmov [x_{variable}], eax\n")
    p.asm("call cross\n")
    verify_cross(p, name, "x_failures", "eax", len(modes) * len(parents) * len(leaves))


def program() -> Program:
    p = Program("paging32", 32)
    p.data(CROSS)
    nowhere = "x_nowhere"
    p.asm(
        f"mov edi, {SCRATCH}\nmov ecx, 0xc000\nxor eax, eax\nrep stosd es:[edi], eax\n"
        + put(USER_CODE, 0xCD205F8A) + put(USER_CODE + 4, 0x30) + put(USER_CODE + 16, 0x002047C6) + put(USER_CODE + 20, 0x30CD)
        + put(TARGET, 0xC3) + put(TARGET + 16, 0x30CD)
    )  # fmt: skip
    # ---- 32-bit paging: the first 12 MiB in pages of 4 MiB
    p.asm(
        put(PD, 0x83)
        + put(PD + 4, 0x400087)
        + put(PD + 8, 0x800087)
        + f"mov eax, {PD}\nmov cr3, eax\nmov eax, cr4\nor eax, 0x10\nmov cr4, eax\nmov eax, cr0\nor eax, 0x80000000\nmov cr0, eax\n"
    )
    pde, pte = PD + (VA >> 22) * 4, PT + (VA >> 12 & 0x3FF) * 4
    cross(p, "legacy_4k", LEGACY_MODES, LEGACY, LEGACY, (pte, TARGET, pde, PT), 0)
    cross(p, "legacy_4m", LEGACY_MODES, FREE, LEGACY, (pde, 0x800080, nowhere, 0), 0)
    touch = f"mov edi, {VA:#x}\n{{}}: mov bl, [edi + 32]"
    p.asm(put(pte, TARGET + 7) + put(pde, 0x800087 | 1 << 21) + FLUSH)
    p.check("legacy_4m_reserved", touch.format("l4m"), vector=PF, error=9, cr2=VA + 32, ip="l4m")
    p.asm(put(pde, 0x800087 | 1 << 13) + FLUSH)  # PSE-36: above 4 GiB there is nothing
    p.check("pse36", f"mov edi, {VA:#x}\nmov ebx, [edi + 32]", bx=0xFFFFFFFF)
    p.asm(put(pde, PT + 7) + put(pte, TARGET + 7) + FLUSH)
    p.check(
        "global_without_pge",
        f"mov edi, {VA:#x}\nmov bl, [edi + 32]\n" + put(pte, 0) + "mov eax, cr3\nmov cr3, eax\n" + touch.format("gwp"),
        vector=PF,
        error=0,
        ip="gwp",
    )
    # ---- PAE: 16 MiB in pages of 2 MiB
    p.asm("mov eax, cr0\nand eax, 0x7fffffff\nmov cr0, eax\n" + put(PDPT, PD0 + 1) + put(PDPT + 8, PD1 + 1))
    for n in range(8):
        p.asm(put(PD0 + 8 * n, n << 21 | (0x83 if n < 2 else 0x87)))
    p.asm(
        f"mov eax, {PDPT}\nmov cr3, eax\nmov eax, cr4\nor eax, 0x20\nmov cr4, eax\nmov eax, cr0\nor eax, 0x80000000\nmov cr0, eax\n"
    )
    pde, pte = PD1 + 5 * 8, PT1
    cross(p, "pae_4k", ALL, SOME, ALL, (pte, TARGET, pde, PT1), 1)
    cross(p, "pae_2m", ALL, FREE, ALL, (pde, TARGET | 0x80, nowhere, 0), 1)
    p.asm(put(pde, PT1 + 7) + put(pde + 4, 0) + put(pte, TARGET + 7) + put(pte + 4, 0) + FLUSH)
    p.check("pdpte_cached", put(PDPT + 8, 0) + f"mov edi, {VA:#x}\ninvlpg [edi]\nmov bl, [edi + 32]")
    p.check(
        "pdpte_reloaded",
        "mov eax, cr3\nmov cr3, eax\n" + touch.format("pdr"),
        vector=PF,
        error=0,
        cr2=VA + 32,
        ip="pdr",
    )
    for name, low, high in (
        ("bit1", 2, 0),
        ("bit2", 4, 0),
        ("bit5", 0x20, 0),
        ("bit8", 0x100, 0),
        ("bit63", 0, 0x80000000),
        ("bit51", 0, 0x80000),
    ):
        p.check(
            f"pdpte_{name}",
            put(PDPT + 8, PD1 + 1 | low) + put(PDPT + 12, high) + f"mov eax, cr3\npd_{name}: mov cr3, eax",
            vector=GP,
            error=0,
            ip=f"pd_{name}",
        )
        p.asm(put(PDPT + 8, PD1 + 1) + put(PDPT + 12, 0))
    p.check(
        "pdpte_absent_reserved",
        put(PDPT + 8, 0x1E6) + "mov eax, cr3\nmov cr3, eax\n" + touch.format("par"),
        vector=PF,
        error=0,
        ip="par",
    )
    p.asm(put(PDPT + 8, PD1 + 1) + "mov eax, cr3\nmov cr3, eax\n")
    p.asm(put(pte + 4, 1 << (59 - 32)) + FLUSH)
    p.check("pae_high_reserved", touch.format("phr"), vector=PF, error=9, ip="phr")  # bits 62 to 52 are reserved in PAE
    p.asm("mov eax, cr0\nand eax, 0x7fffffff\nmov cr0, eax\nmov eax, cr4\nand eax, 0xffffffcf\nmov cr4, eax\n")
    return p
