"""4-level paging (SDM 3, 4.5 to 4.8): the cross product of the bits of a page's entry, those of the entry above it, the
processor's modes and the kinds of access, for pages of 4 KiB, 2 MiB and 1 GiB.

What each of the combinations must give is computed here, from the rules of 4.6 (rights), 4.7 (error codes) and 4.8
(accessed and dirty flags), and the guest compares: r0 of a check is the number of combinations that differ, r1 the first
of them (numbered as in `combination`), r2 what it gave (0xff for no fault; 0x100 and up: the flags differ), r3 how many
there were. Then single checks: reserved bits, non-canonical addresses, accesses across pages, implicit accesses.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from tests.guests.topics.program import DONE, FIRST_FREE, GP, PF, SCRATCH, SS, Program, descriptor

VA = 0x80_00A0_0000
TARGET = 0xA00000
USER_CODE = 0x600000
PDPT_T, PD_T, PT_T = SCRATCH, SCRATCH + 0x1000, SCRATCH + 0x2000
P, W, U, NX, RSVD = 1, 2, 4, 8, 16  # bits of the number of an entry
WP, NXE, SMEP, SMAP, AC = 1, 2, 4, 8, 16  # and of the processor's modes
ACCESSES = ("user_read", "user_write", "user_fetch", "read", "write", "fetch")
E_P, E_W, E_U, E_R, E_I = 1, 2, 4, 8, 16
ALL = tuple(range(32))
SOME = (P | W | U, W | U, P | U, P | W, P | W | U | NX, P | W | U | RSVD)
LEVELS = {"4k": ALL, "2m": SOME, "1g": SOME}
NO_FAULT = 0xFF


def outcome(modes: int, parent: int, leaf: int, access: int) -> int:
    """The error code of the page fault, or NO_FAULT (SDM 3, 4.6 and 4.7)."""
    user, kind = access < 3, access % 3
    fetch, write = kind == 2, kind == 1
    error = (E_U if user else 0) | (E_W if write else 0) | (E_I if fetch and modes & (NXE | SMEP) else 0)
    for entry in (parent, leaf):
        if not entry & P:
            return error
        if entry & RSVD or (entry & NX and not modes & NXE):
            return error | E_P | E_R
    writable, for_user, no_execute = parent & leaf & W, parent & leaf & U, (parent | leaf) & NX
    if fetch:
        allowed = not no_execute and (for_user if user else not (for_user and modes & SMEP))
    elif user:
        allowed = for_user and (not write or writable)
    else:
        allowed = not (write and not writable and modes & WP)
        if for_user and modes & SMAP and not modes & AC:
            allowed = False
    return NO_FAULT if allowed else error | E_P


def combination(level: str, number: int) -> tuple[int, int, int, str]:
    """Modes, parent, leaf and access of a combination, for whoever reads a failure."""
    rest, access = divmod(number, 6)
    rest, leaf = divmod(rest, 32)
    modes, parent = divmod(rest, len(LEVELS[level]))
    return modes, LEVELS[level][parent], leaf, ACCESSES[access]


def outcomes(modes: Iterable[int], parents: Iterable[int], leaves: Iterable[int]) -> bytes:
    """The table that the guest compares with."""
    combinations = itertools.product(modes, parents, leaves, range(len(ACCESSES)))
    return bytes(outcome(*combination) for combination in combinations)


def verify_cross(p: Program, name: str, failures: str, register: str, count: int) -> None:
    """A check for each kind of access, of what the guest has left at `failures`."""
    for n, access in enumerate(ACCESSES):
        for k in range(4):
            p.asm(f"mov eax, [{failures} + {16 * n + 4 * k}]\nmov [got_r{k}], {register}\n")
        p.verify(f"{name}_{access}", r0=0, r1=0, r2=0, r3=count)


CROSS = f"""
cross:                                      # leaf entry at r8, its base r9; parent at r10, its base r11; parents at r12,
    mov dword ptr [cross_number], 0         # how many r13; outcomes at r14
    xor eax, eax
    lea rdi, [cross_failures]
    mov ecx, 24
    rep stosd es:[rdi], eax
    mov dword ptr [cross_modes], 0
cross_mode:
    mov eax, [cross_modes]
    mov rcx, cr0                            # WP
    and ecx, 0xfffeffff
    mov edx, eax
    and edx, 1
    shl edx, 16
    or ecx, edx
    mov cr0, rcx
    mov rcx, cr4                            # SMEP, SMAP: bits 20 and 21
    and ecx, 0xffcfffff
    mov edx, eax
    and edx, 12
    shl edx, 18
    or ecx, edx
    mov cr4, rcx
    mov ecx, 0xc0000080
    rdmsr
    and eax, 0xfffff7ff
    mov ebx, [cross_modes]
    and ebx, 2
    shl ebx, 10
    or eax, ebx
    wrmsr
    mov rax, cr3
    mov cr3, rax
    mov dword ptr [cross_parent], 0
cross_parents:
    mov eax, [cross_parent]
    movzx eax, byte ptr [r12 + rax]
    call make_entry
    or rdx, r11
    mov [cross_parent_entry], rdx
    mov dword ptr [cross_leaf], 0
cross_leaves:
    mov dword ptr [cross_access], 0
cross_accesses:
    mov rdx, [cross_parent_entry]
    mov [r10], rdx
    mov eax, [cross_leaf]
    call make_entry
    or rdx, r9
    mov [cross_leaf_entry], rdx
    mov [r8], rdx
    mov rdi, {VA:#x}
    invlpg [rdi]
    mov rax, cross_done
    call begin
    mov eax, [cross_access]
    mov eax, [cross_routines + rax * 4]
    test dword ptr [cross_modes], {AC}
    jz cross_go
    push 0x40002
    popfq
cross_go:
    jmp rax
cross_read:
    mov bl, [rdi + 32]
    jmp cross_fine
cross_write:
    mov byte ptr [rdi + 32], 0
    jmp cross_fine
cross_fetch:
    call rdi
cross_fine:
    push 2
    popfq
cross_done:
    mov dword ptr [resume], 0
    mov ebx, {NO_FAULT}
    mov eax, [got_vector]
    cmp eax, {PF}
    jne cross_no_fault
    mov rbx, [got_error]
    mov rax, [got_cr2]                      # the address must be right, too
    xor rax, rdi
    and rax, 0xfffffffffffff000
    test rax, rax
    jz cross_no_fault
    or ebx, 0x1000
cross_no_fault:
    mov rdx, [r8]                           # accessed and dirty flags of the leaf
    xor rdx, [cross_leaf_entry]
    mov eax, 0
    cmp ebx, {NO_FAULT}
    jne cross_flags
    mov eax, 0x20
    mov ecx, [cross_access]
    cmp ecx, 1
    je cross_dirty
    cmp ecx, 4
    jne cross_flags
cross_dirty:
    mov eax, 0x60
cross_flags:
    cmp edx, eax
    je cross_compare
    or ebx, 0x100
cross_compare:
    mov eax, [cross_number]
    movzx ecx, byte ptr [r14 + rax]
    cmp ecx, ebx
    je cross_next
    mov esi, [cross_access]
    shl esi, 4
    cmp dword ptr [cross_failures + rsi], 0
    jne cross_again
    mov [cross_failures + rsi + 4], eax
    mov [cross_failures + rsi + 8], ebx
cross_again:
    inc dword ptr [cross_failures + rsi]
cross_next:
    mov esi, [cross_access]
    shl esi, 4
    inc dword ptr [cross_failures + rsi + 12]
    inc dword ptr [cross_number]
    inc dword ptr [cross_access]
    cmp dword ptr [cross_access], 6
    jne cross_accesses
    inc dword ptr [cross_leaf]
    cmp dword ptr [cross_leaf], 32
    jne cross_leaves
    inc dword ptr [cross_parent]
    cmp [cross_parent], r13d
    jne cross_parents
    inc dword ptr [cross_modes]
    cmp dword ptr [cross_modes], 32
    jne cross_mode
    mov rax, cr4
    and eax, 0xffcfffff
    mov cr4, rax
    ret

make_entry:                                 # rdx: the entry of number eax
    mov edx, eax
    and edx, 8
    shl edx, 28
    mov ecx, eax
    and ecx, 16
    shl ecx, 15
    or edx, ecx
    shl rdx, 32
    and eax, 7
    or rdx, rax
    ret

cross_user:                                 # iretq to the user's routine at rax
    push {0x23}
    push 0x602000
    pushfq
    push {0x1B}
    push rax
    iretq
cross_user_read:
    mov eax, {USER_CODE}
    jmp cross_user
cross_user_write:
    mov eax, {USER_CODE + 16}
    jmp cross_user
cross_user_fetch:
    mov eax, {USER_CODE + 32}
    jmp cross_user
.align 8
cross_routines: .long cross_user_read, cross_user_write, cross_user_fetch, cross_read, cross_write, cross_fetch
cross_number: .long 0
cross_modes: .long 0
cross_parent: .long 0
cross_leaf: .long 0
cross_access: .long 0, 0
cross_parent_entry: .quad 0
cross_leaf_entry: .quad 0
cross_failures: .fill 24, 4, 0
"""


def program() -> Program:
    p = Program("paging", 64)
    p.data(CROSS)
    # The kernel's pages are the supervisor's; the user's code at 6 MiB ends with INT 0x30.
    p.asm(
        f"""
        and dword ptr [PD], 0xfffffffb
        and dword ptr [PD + 8], 0xfffffffb
        mov rax, cr3
        mov cr3, rax
        mov dword ptr [{USER_CODE}], 0xcd205f8a          # mov bl, [rdi + 32]; int 0x30
        mov dword ptr [{USER_CODE + 4}], 0x30
        mov dword ptr [{USER_CODE + 16}], 0x002047c6     # mov byte ptr [rdi + 32], 0
        mov dword ptr [{USER_CODE + 20}], 0x30cd
        mov dword ptr [{USER_CODE + 32}], 0x10c78348     # add rdi, 16; jmp rdi
        mov dword ptr [{USER_CODE + 36}], 0xe7ff
        mov dword ptr [{TARGET}], 0xc3                   # ret
        mov dword ptr [{TARGET + 16}], 0x30cd
        mov edi, {SCRATCH}
        mov ecx, 0xc00
        xor eax, eax
        rep stosd es:[rdi], eax
        """
    )
    for level, parents in LEVELS.items():
        table, numbers = p.blob(outcomes(ALL, parents, ALL)), p.blob(bytes(parents))
        entries = {
            "4k": (PT_T, TARGET, PD_T + 40, PT_T), "2m": (PD_T + 40, TARGET | 0x80, PDPT_T, PD_T),
            "1g": (PDPT_T, 0x80, "PML4 + 8", PDPT_T),
        }[level]  # fmt: skip
        p.asm(
            f"mov dword ptr [PML4 + 8], {PDPT_T + 7}\nmov dword ptr [{PDPT_T}], {PD_T + 7}\nmov dword ptr [PML4 + 12], 0\n"
            f"mov dword ptr [{PDPT_T + 4}], 0\n"
        )
        for register, value in zip(
            ("r8", "r9", "r10", "r11", "r12", "r13", "r14"), (*entries, numbers, len(parents), table), strict=True
        ):
            p.asm(f"mov {register}, {value}\n")
        p.asm("call cross\n")
        verify_cross(p, level, "cross_failures", "rax", 32 * 32 * len(parents))
    single(p)
    return p


def put(where: int | str, value: int) -> str:
    """Code that stores a quadword."""
    return f"mov rax, {value:#x}\nmov rbx, {where}\nmov [rbx], rax\n"


FLUSH = f"mov rdi, {VA:#x}\ninvlpg [rdi]\nmov rax, cr3\nmov cr3, rax\n"
GOOD = put("PML4 + 8", PDPT_T + 7) + put(PDPT_T, PD_T + 7) + put(PD_T + 40, PT_T + 7) + put(PT_T, TARGET + 7)


def single(p: Program) -> None:
    """Checks of one thing each."""
    for name, where, value in (
        ("pml4_ps", "PML4 + 8", PDPT_T + 0x87), ("2m_bit13", PD_T + 40, TARGET + 0x2087), ("2m_bit20", PD_T + 40, TARGET + 0x100087),
        ("1g_bit13", PDPT_T, 0x2087), ("1g_bit29", PDPT_T, 0x20000087), ("pte_bit51", PT_T, 1 << 51 | TARGET + 7),
        ("pml4_bit51", "PML4 + 8", 1 << 51 | PDPT_T + 7), ("pdpte_bit51", PDPT_T, 1 << 51 | PD_T + 7),
    ):  # fmt: skip
        p.asm(GOOD + put(where, value) + FLUSH)
        p.check(
            f"reserved_{name}",
            f"rsvd_{name}: mov bl, [rdi + 32]",
            vector=PF,
            error=E_P | E_R,
            cr2=VA + 32,
            ip=f"rsvd_{name}",
        )
    p.asm(GOOD + put(PD_T + 40, TARGET + 0x1087) + FLUSH)
    p.check("2m_pat", "mov bl, [rdi + 32]")
    p.asm(GOOD + put(PT_T, 0x7FF0000000000000 | TARGET + 0xE07) + FLUSH)  # bits 62 to 52 and 11 to 9 are ignored
    p.check("ignored_bits", "mov bl, [rdi + 32]")
    p.asm(GOOD + FLUSH)
    # ---- non-canonical addresses (SDM 3, 6.15, #SS and #GP)
    high = 0x800000001000
    for name, vector, label, code in (
        ("read", GP, "nc_1", "nc_1: mov bl, [rax]"),
        ("write", GP, "nc_2", "nc_2: mov [rax], bl"),
        ("rbp", SS, "nc_3", "mov rbp, rax\nnc_3: mov bl, [rbp]"),
        ("rsp", SS, "nc_4", "mov rsp, rax\nnc_4: mov rbx, [rsp]"),
        ("push", SS, "nc_5", "mov rsp, rax\nnc_5: push rbx"),
        ("pop", SS, "nc_6", "mov rsp, rax\nnc_6: pop rbx"),
        ("ds_rbp", SS, "nc_7", "mov rbp, rax\nnc_7: .byte 0x3e, 0x8a, 0x5d, 0x00"),  # the prefix DS is ignored
        ("across", GP, "nc_8", "sub rax, 0x1004\nnc_8: mov rbx, [rax]"),
        ("fs_rbp", GP, "nc_9", "mov rbp, rax\nnc_9: .byte 0x64, 0x8a, 0x5d, 0x00"),
        ("jump", GP, "nc_10", "nc_10: jmp rax"),
        ("call", GP, "nc_11", "nc_11: call rax"),
        ("ret", GP, "nc_12", "push rax\nnc_12: ret"),
        ("leave", SS, "nc_13", "mov rbp, rax\nnc_13: leave"),
        ("enter", SS, "nc_14", "mov rsp, rax\nnc_14: enter 8, 0"),
        ("lgdt", GP, "nc_15", "nc_15: lgdt [rax]"),
        ("movs", GP, "nc_16", "mov rsi, rax\nmov rdi, rsp\nnc_16: movsb es:[rdi], ds:[rsi]"),
    ):
        p.check(f"noncanonical_{name}", f"mov rax, {high:#x}\n{code}", vector=vector, error=0, ip=label)
    p.check("noncanonical_invlpg", f"mov rax, {high:#x}\ninvlpg [rax]")
    p.check("noncanonical_lea", f"mov rax, {high:#x}\nlea rbx, [rax + 1]", bx=high + 1)
    p.check("noncanonical_nop", f"mov rax, {high:#x}\n.byte 0x0f, 0x1f, 0x00")
    # ---- across two pages: the second one is at fault, the first unchanged
    end = VA + 0x1000
    p.asm(GOOD + put(PT_T + 8, 0) + put(TARGET + 0xFF8, 0x1111111111111111) + FLUSH)
    p.check(
        "across_read", f"mov rdi, {end - 4:#x}\nacross_1: mov rbx, [rdi]", vector=PF, error=0, cr2=end, ip="across_1"
    )
    p.check(
        "across_write",
        f"mov rdi, {end - 4:#x}\nmov rax, -1\nacross_2: mov [rdi], rax",
        vector=PF,
        error=E_W,
        cr2=end,
        ip="across_2",
    )
    p.check(
        "across_add", f"mov rdi, {end - 4:#x}\nacross_3: add [rdi], rax", vector=PF, error=E_W, cr2=end, ip="across_3"
    )
    p.check("across_unchanged", f"mov eax, {TARGET + 0xFF8}\nmov rbx, [rax]", bx=0x1111111111111111)
    p.check(
        "across_fetch",
        f"mov rdi, {end - 1:#x}\nmov byte ptr [rdi], 0x0f\njmp rdi",
        vector=PF,
        error=E_I,
        cr2=end,
        ip=end - 1,
    )
    p.check(
        "across_rep", f"mov rdi, {end - 16:#x}\nmov ecx, 4\nacross_4: rep stosq es:[rdi], rax", vector=PF, error=E_W, cr2=end,
        ip="across_4", di=end, cx=2,
    )  # fmt: skip
    p.asm(put(PT_T, 0) + put(PT_T + 8, TARGET + 7) + FLUSH)
    p.check(
        "across_first",
        f"mov rdi, {end - 4:#x}\nacross_5: mov rbx, [rdi]",
        vector=PF,
        error=0,
        cr2=end - 4,
        ip="across_5",
    )
    # ---- what reads and writes is a write, also where it happens not to write (SDM 3, 4.7)
    p.asm("mov rax, cr0\nor eax, 0x10000\nmov cr0, rax\n" + GOOD + put(PT_T, TARGET + 1) + FLUSH)
    for name, before, code in (
        ("add", "", "add dword ptr [rdi + 32], 0"), ("xchg", "", "xchg [rdi + 32], eax"),
        ("lock_or", "", "lock or dword ptr [rdi + 32], 0"), ("cmpxchg", "mov eax, 0x12345", "cmpxchg [rdi + 32], ecx"),
        ("btc", "", "btc dword ptr [rdi + 32], 3"), ("rcl", "", "rcl dword ptr [rdi + 32], 1"),
        ("cmpxchg8b", "mov eax, 0x12345", "cmpxchg8b [rdi + 32]"), ("not", "", "not dword ptr [rdi + 32]"),
        ("sgdt", "", "sgdt [rdi + 32]"), ("fnstcw", "", "fnstcw [rdi + 32]"), ("setc", "", "setb byte ptr [rdi + 32]"),
    ):  # fmt: skip
        p.check(
            f"write_by_{name}",
            f"mov rdi, {VA:#x}\n{before}\nwrite_by_{name}: {code}",
            vector=PF,
            error=E_P | E_W,
            cr2=VA + 32,
            ip=f"write_by_{name}",
        )
    p.check("read_by_cmp", f"mov rdi, {VA:#x}\ncmp dword ptr [rdi + 32], 0")
    p.check("read_by_bt", f"mov rdi, {VA:#x}\nbt dword ptr [rdi + 32], 0")
    # ---- translations that are kept: what INVLPG and CR3 drop, and that no fault comes from a stale one (SDM 3, 4.10.4)
    touch = f"mov rdi, {VA:#x}\nmov bl, [rdi + 32]\n"
    p.asm(GOOD + FLUSH + touch + put(PT_T, 0) + f"mov rdi, {VA:#x}\ninvlpg [rdi]\n")
    p.check("invlpg", touch, vector=PF, error=0, cr2=VA + 32)
    p.asm(put(PT_T, TARGET + 7))
    p.check("present_without_invlpg", touch)
    p.asm(put(PT_T, 0) + "mov rax, cr3\nmov cr3, rax\n")
    p.check("mov_cr3", touch, vector=PF, error=0, cr2=VA + 32)
    p.asm(put(PT_T, TARGET + 5) + FLUSH + touch + put(PT_T, TARGET + 7))
    p.check("more_rights_without_invlpg", f"mov rdi, {VA:#x}\nmov byte ptr [rdi + 32], 1")
    p.asm("mov rax, cr4\nor eax, 0x80\nmov cr4, rax\n" + put(PT_T, TARGET + 0x107) + FLUSH + touch + put(PT_T, 0))
    p.asm(f"mov rdi, {VA:#x}\ninvlpg [rdi]\n")
    p.check("invlpg_global", touch, vector=PF, error=0, cr2=VA + 32)
    p.asm(
        put(PT_T, TARGET + 0x107) + FLUSH + touch + put(PT_T, 0) + "mov rax, cr4\nand eax, 0xffffff7f\nmov cr4, rax\n"
    )
    p.check("clearing_pge_drops_global", touch, vector=PF, error=0, cr2=VA + 32)
    p.asm(
        put(PT_T, TARGET + 7)
        + FLUSH
        + f"mov rdi, {VA:#x}\nmov byte ptr [rdi + 32], 1\n"
        + put(PT_T, TARGET + 7)
        + FLUSH
        + touch
    )
    p.check("dirty_again", f"mov rdi, {VA:#x}\nmov byte ptr [rdi + 32], 1\nmov eax, [{PT_T}]\nand eax, 0x60", ax=0x60)
    # ---- implicit accesses to descriptors are the supervisor's, whatever CPL is (SDM 3, 4.6); SMAP forbids them user pages
    ldt = VA + 0x100
    low, high_half = descriptor(ldt & 0xFFFFFFFF, 0xFF, 0x82), ldt >> 32
    p.set_descriptor(FIRST_FREE, low)
    p.set_descriptor(FIRST_FREE + 8, high_half)
    p.asm(
        GOOD + FLUSH + f"mov rdi, {ldt:#x}\nmov rax, [gdt + 0x20]\nmov [rdi + 8], rax\nmov eax, {FIRST_FREE}\nlldt ax\n"
    )
    p.asm(f"mov dword ptr [{USER_CODE + 64}], 0x0fb8\nmov dword ptr [{USER_CODE + 68}], 0x30cdd88e\n")
    p.asm(f"mov byte ptr [{USER_CODE + 68}], 0\nmov dword ptr [{USER_CODE + 69}], 0x30cdd88e\n")
    load = f"mov eax, {USER_CODE + 64}\njmp cross_user\n"  # mov eax, 0xf; mov ds, eax
    for name, entry, smap, vector, error in (
        ("supervisor", TARGET + 3, False, DONE, 0), ("user", TARGET + 7, False, DONE, 0), ("absent", 0, False, PF, 0),
        ("smap_supervisor", TARGET + 3, True, DONE, 0), ("smap_user", TARGET + 7, True, PF, E_P),
    ):  # fmt: skip
        p.asm(
            put(PT_T, entry)
            + FLUSH
            + f"mov rax, cr4\n{'or eax, 0x200000' if smap else 'and eax, 0xffdfffff'}\nmov cr4, rax\n"
        )
        more = {"cr2": ldt + 8, "ip": USER_CODE + 69} if vector == PF else {"ds": 0xF}
        p.attempt("push 0x40002\npopfq\n" + load)
        p.verify(f"implicit_{name}", vector=vector, error=error, **more)
    p.asm("mov rax, cr4\nand eax, 0xffdfffff\nmov cr4, rax\n")
