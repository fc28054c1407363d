"""Address translation: the page walk of every paging mode, its checks, and TLB fills (SDM 3, chapter 4).

Mechanism subset. A walk sets accessed and dirty bits as the processor does, and ends in State[WALK_PHYS] and
State[WALK_RIGHTS], or in a raised page fault. Not here: the table itself (tlb.py), loads and stores (memory.py).
"""

from __future__ import annotations

from pyemu.cpu import mode, physical, tlb
from pyemu.cpu.faults import GP, SS, raise_fault, raise_page_fault
from pyemu.cpu.state import (
    CPL,
    CR0,
    CR3,
    CR4,
    EFER,
    M64,
    MMU,
    PDPTE,
    PKRS,
    PKRU,
    RAM_BASE,
    TLB_MISSES,
    WALK_PHYS,
    WALK_RIGHTS,
    State,
)

# access bits
WRITE = 1
EXEC = 2
STACK = 4  # #SS rather than #GP for a non-canonical address
SYSTEM = 8  # implicit supervisor access, whatever CPL is

CR0_WP, CR0_PG = 1 << 16, 1 << 31
CR4_PSE, CR4_PAE, CR4_SMEP, CR4_SMAP = 1 << 4, 1 << 5, 1 << 20, 1 << 21
EFER_LMA, EFER_NXE = 1 << 10, 1 << 11
P, RW, US, A, D, PS, G = 1, 2, 4, 32, 64, 128, 256
NX = 1 << 63
KEY_SHIFT = 59  # bits 62-59: the protection key
ADDRESS_MASK = physical.PHYSICAL_MASK & ~0xFFF
RESERVED_HIGH = ((1 << 52) - 1) & ~physical.PHYSICAL_MASK  # address bits above the physical width

FETCH_MMIO = 1 << 63

# page-fault error code (SDM 3, 4.7)
E_P, E_W, E_U, E_RSVD, E_I, E_PK = 1, 2, 4, 8, 16, 32


def error_code(s: State, access: int, mmu: int) -> int:
    """The bits of a page fault's error code that the access gives."""
    error = E_W if access & WRITE else 0
    if mmu & tlb.USER:
        error = error | E_U
    if access & EXEC and s[CR4] & CR4_SMEP:
        error = error | E_I
    if access & EXEC and s[EFER] & EFER_NXE and s[CR4] & CR4_PAE:
        error = error | E_I
    return error


def entry_address(s: State, linear: int, level: int, table: int) -> int:
    """Physical address of the entry for `linear` at a level (1 = page table) with 8-byte entries."""
    return table + ((linear >> (9 * level)) & 0xFF8)


def walk_long(s: State, linear: int, access: int, mmu: int, level: int, top: int) -> int:
    """PAE (from the page directory), 4-level and 5-level walks: `level` levels from table `top`."""
    table = top
    first = level
    unmarked = 0
    rights = tlb.R_WRITE | tlb.R_USER
    reserved = RESERVED_HIGH if s[EFER] & EFER_NXE else RESERVED_HIGH | NX
    if not s[EFER] & EFER_LMA:
        reserved = reserved | 0x7FF0000000000000
    while True:
        where = entry_address(s, linear, level, table)
        e = physical.read(s, where, 8)
        if not e & P:
            return raise_page_fault(s, linear, error_code(s, access, mmu))
        if e & reserved:
            return raise_page_fault(s, linear, error_code(s, access, mmu) | E_P | E_RSVD)
        if not e & RW:
            rights = rights & ~tlb.R_WRITE
        if not e & US:
            rights = rights & ~tlb.R_USER
        if e & NX:
            rights = rights | tlb.R_NX
        if level == 1 or (e & PS and level < 4):
            if level > 1 and e & ((1 << (3 + 9 * level)) - 1) & 0xFFFFFFFFFFFFE000:
                return raise_page_fault(s, linear, error_code(s, access, mmu) | E_P | E_RSVD)
            if finish(s, linear, access, mmu, where, e, 8, level, rights):
                return 1
            if unmarked:
                mark_tables(s, linear, first, level, top)
            return 0
        if e & PS:
            return raise_page_fault(s, linear, error_code(s, access, mmu) | E_P | E_RSVD)
        unmarked = unmarked | (~e & A)
        table = e & ADDRESS_MASK
        level = level - 1


def mark_tables(s: State, linear: int, level: int, leaf: int, table: int) -> None:
    """Set A in the entries from `level` down to the one that leads to the leaf. Only a walk that has found its page
    does it: the flag says that an entry has been used for a translation (SDM 3, 4.8), and 386 software counts on a
    page fault not setting it."""
    while level > leaf:
        where = entry_address(s, linear, level, table)
        e = physical.read(s, where, 8)
        if not e & A:
            physical.write(s, where, 8, e | A)
        table = e & ADDRESS_MASK
        level = level - 1


def page_mask(size: int, level: int) -> int:
    """Bytes in a page of a level, minus one."""
    if level == 1:
        return 0xFFF
    if size == 4:
        return 0x3FFFFF
    return (1 << (3 + 9 * level)) - 1


def key_rights(s: State, e: int, rights: int) -> int:
    """What PKRU forbids of a user page by the key in its entry, and IA32_PKRS of a supervisor's, as rights (SDM 3,
    4.6.2)."""
    keys = 0
    if rights & tlb.R_USER:
        if s[CR4] & mode.CR4_PKE:
            keys = s[PKRU]
    elif s[CR4] & mode.CR4_PKS:
        keys = s[PKRS]
    denied = keys >> (2 * ((e >> KEY_SHIFT) & 15))
    return (tlb.R_KEY_NO_ACCESS if denied & 1 else 0) | (tlb.R_KEY_NO_WRITE if denied & 2 else 0)


def key_forbids_write(s: State, rights: int, access: int, mmu: int) -> int:
    """1 for a write that the protection key is against; a supervisor is bound by it with CR0.WP only."""
    if access & WRITE and rights & tlb.R_KEY_NO_WRITE:
        return int(mmu & tlb.USER != 0 or s[CR0] & CR0_WP != 0)
    return 0


def allowed(s: State, rights: int, access: int, mmu: int) -> int:
    """1 if the rights of a page allow the access at an MMU index (SDM 3, 4.6.1)."""
    user = rights & tlb.R_USER
    if access & EXEC:
        if rights & tlb.R_NX:
            return 0
        if mmu & tlb.USER:
            return int(user != 0)
        return int(not (user and s[CR4] & CR4_SMEP))
    if rights & tlb.R_KEY_NO_ACCESS:
        return 0
    if key_forbids_write(s, rights, access, mmu):
        return 0
    if mmu & tlb.USER:
        if not user:
            return 0
        return int(not access & WRITE or rights & tlb.R_WRITE != 0)
    if user and mmu == tlb.SUPERVISOR_SMAP:
        return 0
    return int(not access & WRITE or rights & tlb.R_WRITE != 0 or not s[CR0] & CR0_WP)


def finish(s: State, linear: int, access: int, mmu: int, where: int, e: int, size: int, level: int, rights: int) -> int:
    """The leaf entry is found: check rights, set A and D, and report the 4 KiB page."""
    if s[CR4] & mode.CR4_KEYS and s[EFER] & EFER_LMA:
        rights = rights | key_rights(s, e, rights)
    if not allowed(s, rights, access, mmu):
        error = error_code(s, access, mmu) | E_P
        if access & EXEC == 0:
            if rights & tlb.R_KEY_NO_ACCESS or key_forbids_write(s, rights, access, mmu):
                error = error | E_PK
        return raise_page_fault(s, linear, error)
    new = e | A
    if access & WRITE:
        new = new | D
    if new != e:
        physical.write(s, where, size, new)
    if new & D:
        rights = rights | tlb.R_DIRTY
    if e & G and s[CR4] & 0x80:
        rights = rights | tlb.R_GLOBAL
    mask = page_mask(size, level)
    base = e & ADDRESS_MASK
    if level > 1:
        rights = rights | tlb.R_LARGE
        if size == 4:  # PSE-36: bits 20-13 are address bits 39-32
            base = (e & 0xFFC00000) | ((e >> 13) & 0xFF) << 32
    s[WALK_PHYS] = (base & ~mask) | (linear & mask & ~0xFFF)
    s[WALK_RIGHTS] = rights
    return 0


def walk_32(s: State, linear: int, access: int, mmu: int) -> int:
    """32-bit paging, two levels of 4-byte entries."""
    where = (s[CR3] & 0xFFFFF000) + ((linear >> 20) & 0xFFC)
    e = physical.read(s, where, 4)
    if not e & P:
        return raise_page_fault(s, linear, error_code(s, access, mmu))
    rights = (tlb.R_WRITE if e & RW else 0) | (tlb.R_USER if e & US else 0)
    if e & PS and s[CR4] & CR4_PSE:
        if e & 0x200000:
            return raise_page_fault(s, linear, error_code(s, access, mmu) | E_P | E_RSVD)
        return finish(s, linear, access, mmu, where, e, 4, 2, rights)
    directory = where
    where = (e & 0xFFFFF000) + ((linear >> 10) & 0xFFC)
    e = physical.read(s, where, 4)
    if not e & P:
        return raise_page_fault(s, linear, error_code(s, access, mmu))
    if not e & RW:
        rights = rights & ~tlb.R_WRITE
    if not e & US:
        rights = rights & ~tlb.R_USER
    if finish(s, linear, access, mmu, where, e, 4, 1, rights):
        return 1
    e = physical.read(s, directory, 4)  # again: it may be the page table too, and its entry the leaf
    if not e & A:
        physical.write(s, directory, 4, e | A)
    return 0


def walk(s: State, linear: int, access: int, mmu: int) -> int:
    """Translate; 0 with WALK_PHYS and WALK_RIGHTS set, or 1 with the fault raised."""
    if not s[CR0] & CR0_PG:
        s[WALK_PHYS] = linear & 0xFFFFF000
        s[WALK_RIGHTS] = tlb.R_WRITE | tlb.R_USER | tlb.R_DIRTY | tlb.R_GLOBAL
        return 0
    if s[EFER] & EFER_LMA:
        if not mode.is_canonical(s, linear):
            return raise_fault(s, SS if access & STACK else GP, 0)
        return walk_long(s, linear, access, mmu, 5 if s[CR4] & mode.CR4_LA57 else 4, s[CR3] & ADDRESS_MASK)
    if s[CR4] & CR4_PAE:
        pdpte = s[PDPTE + ((linear >> 30) & 3)]
        if not pdpte & P:
            return raise_page_fault(s, linear, error_code(s, access, mmu))
        return walk_long(s, linear, access, mmu, 2, pdpte & ADDRESS_MASK)
    return walk_32(s, linear, access, mmu)


def mmu_index(s: State, access: int) -> int:
    """The MMU index that an access uses."""
    if access & SYSTEM:
        return tlb.SUPERVISOR_SMAP if s[CR4] & CR4_SMAP else tlb.SUPERVISOR
    if access & EXEC:
        return tlb.USER if s[CPL] == 3 else tlb.SUPERVISOR
    return s[MMU]


def fill(s: State, linear: int, access: int, mmu: int) -> int:
    """Walk and enter the page into the TLB; 0, or 1 with the fault raised."""
    s[TLB_MISSES] = s[TLB_MISSES] + 1
    if walk(s, linear, access, mmu):
        return 1
    rights = s[WALK_RIGHTS]
    paging = s[CR0] & CR0_PG
    write_ok = allowed(s, rights, WRITE, mmu) or not paging
    read_ok = allowed(s, rights, 0, mmu) or not paging
    exec_ok = allowed(s, rights, EXEC, mmu) or not paging
    tlb.fill(s, linear, mmu, s[WALK_PHYS], rights, read_ok, write_ok, exec_ok)
    return 0


def fetch_page(s: State, linear: int) -> int:
    """Translate for an instruction fetch: 0 with the physical page in WALK_PHYS (plus FETCH_MMIO if it is not RAM or
    ROM), or 1 with the fault raised."""
    mmu = tlb.USER if s[CPL] == 3 else tlb.SUPERVISOR
    e = tlb.entry(linear, mmu)
    if s[e + tlb.EXEC_TAG] | tlb.MMIO_FLAG != (linear & tlb.PAGE) | tlb.MMIO_FLAG:
        if fill(s, linear, EXEC, mmu):
            return 1
    s[WALK_PHYS] = ((linear & tlb.PAGE) + s[e + tlb.ADDEND] - s[RAM_BASE]) & M64
    if s[e + tlb.EXEC_TAG] & tlb.MMIO_FLAG:
        s[WALK_PHYS] = s[WALK_PHYS] | FETCH_MMIO
    return 0
