"""Loads and stores at linear addresses, through the TLB. Mechanism subset.

`read` and `write` return 0, or 1 with a fault raised; a value comes in State[VALUE]. They handle everything: misses,
MMIO, ROM,
accesses that cross a page, pages that hold translated code or must be saved before they change, data breakpoints,
alignment checks. Generated code repeats only the hit on plain RAM.
"""

from __future__ import annotations

from pyemu.cpu import debug, hooks, mode, paging, physical, tlb
from pyemu.cpu.faults import AC, GP, SS, raise_fault
from pyemu.cpu.primitives import before_write, mmio_read, mmio_write, page_flags
from pyemu.cpu.state import EFER, FAULT_VECTOR, HOOK_WATCH_COUNT, M64, MMU, NO_FAULT, NO_PAGE, RAM_BASE, VALUE, State

READ, WRITE, EXEC, STACK, SYSTEM = 0, paging.WRITE, paging.EXEC, paging.STACK, paging.SYSTEM
ANY_ALIGNMENT = 16  # an access bit: part of something whose alignment has been checked, or need not be


def lookup(s: State, linear: int, access: int, mmu: int) -> int:
    """Make sure that the TLB entry grants the access: 0, or 1 with the fault raised."""
    e = tlb.entry(linear, mmu)
    tag = s[e + (access & WRITE)]
    if tag & tlb.PAGE == linear & tlb.PAGE and tag != tlb.INVALID:
        return 0
    return paging.fill(s, linear, access, mmu)


def check_alignment(s: State, linear: int, size: int, access: int) -> int:
    """#AC(0) for misaligned data at MMU index USER_ALIGNED. It comes before page faults, as on Zen 4; an address that
    isn't canonical is worse."""
    if linear & (size - 1) == 0 or access & ANY_ALIGNMENT:
        return 0
    if s[EFER] & paging.EFER_LMA and not (
        mode.is_canonical(s, linear) and mode.is_canonical(s, (linear + size - 1) & M64)
    ):
        return 0
    return raise_fault(s, AC, 0)


def read_slow(s: State, linear: int, size: int, access: int) -> int:
    """A read that missed the fast path."""
    mmu = paging.mmu_index(s, access)
    if mmu == tlb.USER_ALIGNED and check_alignment(s, linear, size, access):
        return 1
    first = 0x1000 - (linear & 0xFFF)
    if first < size:
        return read_split(s, linear, size, access, first)
    if lookup(s, linear, access, mmu):
        return 1
    e = tlb.entry(linear, mmu)
    address = (linear + s[e + tlb.ADDEND] - s[RAM_BASE]) & M64
    if size == 16:
        if read_slow(s, linear + 8, 8, access):
            return 1
        s[VALUE + 1] = s[VALUE]
        return read_slow(s, linear, 8, access)
    tag = s[e + (access & WRITE)]
    if tag & tlb.WATCH_FLAG:
        debug.accessed(s, linear, size, 0)
    if tag & tlb.MMIO_FLAG:
        s[VALUE] = mmio_read(s, address, size)
    else:
        s[VALUE] = physical.ram_read(s, address, size)
    if tag & tlb.WATCH_FLAG and s[HOOK_WATCH_COUNT]:
        hooks.accessed(s, linear, address, size, 0, s[VALUE])
    return 0


def both_pages(s: State, linear: int, second: int, access: int, mmu: int) -> int:
    """lookup() of two pages; that an address isn't canonical comes before what paging says of the other."""
    if mode.is_canonical(s, linear) and not mode.is_canonical(s, second):
        if s[EFER] & paging.EFER_LMA:
            return raise_fault(s, SS if access & STACK else GP, 0)
    if lookup(s, linear, access, mmu):
        return 1
    return lookup(s, second, access, mmu)


def read_split(s: State, linear: int, size: int, access: int, first: int) -> int:
    """A read across a page boundary: `first` bytes lie in the first page. Both pages are checked before a byte is
    read."""
    mmu = paging.mmu_index(s, access)
    if both_pages(s, linear, (linear + first) & M64, access, mmu):
        return 1
    if size == 16:
        if read_slow(s, (linear + 8) & M64, 8, access):
            return 1
        s[VALUE + 1] = s[VALUE]
        return read_slow(s, linear, 8, access)
    value = 0
    for n in range(size):
        if read_slow(s, (linear + n) & M64, 1, access):
            return 1
        value = value | s[VALUE] << (8 * n)
    s[VALUE] = value
    return 0


def read(s: State, linear: int, size: int, access: int) -> int:
    """Load 1, 2, 4, 8 or 16 bytes into State[VALUE] (and VALUE + 1)."""
    if access & SYSTEM == 0 and size <= 8:
        e = tlb.entry(linear, s[MMU])
        if s[e + (access & WRITE)] == ((linear + size - 1) & tlb.PAGE):
            s[VALUE] = physical.ram_read(s, (linear + s[e + tlb.ADDEND] - s[RAM_BASE]) & M64, size)
            return 0
    return read_slow(s, linear, size, access)


def write_slow(s: State, linear: int, size: int, value: int, access: int) -> int:
    """A write that missed the fast path."""
    mmu = paging.mmu_index(s, access)
    if mmu == tlb.USER_ALIGNED and check_alignment(s, linear, size, access):
        return 1
    access = access | WRITE
    first = 0x1000 - (linear & 0xFFF)
    if first < size:
        return write_split(s, linear, size, value, access, first)
    if lookup(s, linear, access, mmu):
        return 1
    e = tlb.entry(linear, mmu)
    address = (linear + s[e + tlb.ADDEND] - s[RAM_BASE]) & M64
    tag = s[e + tlb.WRITE_TAG]
    if tag & tlb.WATCH_FLAG:
        debug.accessed(s, linear, size, 1)
        if s[HOOK_WATCH_COUNT]:
            hooks.accessed(s, linear, address, size, 1, value)
    if tag & tlb.MMIO_FLAG:
        return mmio_write(s, address, size, value)
    if tag & tlb.CODE_FLAG:
        if physical.kind(s, address) == physical.ROM:
            return 0
        before_write(s, address, size)
        if page_flags(s, address) == 0:  # all is done that a first write has to do
            s[e + tlb.WRITE_TAG] = tag & ~tlb.CODE_FLAG
    return physical.ram_write(s, address, size, value)


def write_split(s: State, linear: int, size: int, value: int, access: int, first: int) -> int:
    """A write across a page boundary; both pages are checked before a byte is written."""
    mmu = paging.mmu_index(s, access)
    if both_pages(s, linear, (linear + first) & M64, access, mmu):
        return 1
    for n in range(size):
        if write_slow(s, (linear + n) & M64, 1, (value >> (8 * n)) & 0xFF, access):
            return 1
    return 0


def write(s: State, linear: int, size: int, value: int, access: int) -> int:
    """Store 1, 2, 4 or 8 bytes."""
    if access & SYSTEM == 0:
        e = tlb.entry(linear, s[MMU])
        if s[e + tlb.WRITE_TAG] == ((linear + size - 1) & tlb.PAGE):
            return physical.ram_write(s, (linear + s[e + tlb.ADDEND] - s[RAM_BASE]) & M64, size, value)
    return write_slow(s, linear, size, value, access)


def write128(s: State, linear: int, low: int, high: int) -> int:
    """Store 16 bytes, all or nothing."""
    if probe_aligned(s, linear, 16, 16, WRITE):
        return 1
    write(s, linear, 8, low, WRITE)
    return write(s, (linear + 8) & M64, 8, high, WRITE)


def probe(s: State, linear: int, size: int, access: int) -> int:
    """0 if `size` bytes (at most a page) may be accessed, else 1 with the fault raised."""
    mmu = paging.mmu_index(s, access)
    last = (linear + size - 1) & M64
    if (last ^ linear) & tlb.PAGE:
        return both_pages(s, linear, last & tlb.PAGE, access, mmu)
    return lookup(s, linear, access, mmu)


def probe_area(s: State, linear: int, size: int, access: int) -> int:
    """probe() for the large areas of FXSAVE and its like: they touch the last byte first, as Zen 4 does."""
    if lookup(s, (linear + size - 1) & M64, access, paging.mmu_index(s, access)):
        return 1
    return probe(s, linear, size, access)


def probe_aligned(s: State, linear: int, size: int, alignment: int, access: int) -> int:
    """probe() for something whose parts may lie anywhere, as long as its start is aligned (where that is checked)."""
    if s[MMU] == tlb.USER_ALIGNED and check_alignment(s, linear, alignment, access):
        return 1
    return probe(s, linear, size, access)


def ram_page(s: State, linear: int, access: int) -> int:
    """Physical address behind `linear` if it is RAM or ROM (RAM only, for a write) that may be accessed without a look
    at each address, else NO_PAGE: then either a fault is raised (FAULT_VECTOR) or the access must go through read() and
    write()."""
    mmu = paging.mmu_index(s, access)
    if lookup(s, linear, access, mmu):
        return NO_PAGE
    e = tlb.entry(linear, mmu)
    tag = s[e + (access & WRITE)]
    address = (linear + s[e + tlb.ADDEND] - s[RAM_BASE]) & M64
    if tag & (tlb.MMIO_FLAG | tlb.WATCH_FLAG | tlb.ALIGN_FLAG):
        return NO_PAGE
    if access & WRITE and physical.kind(s, address) != physical.RAM:
        return NO_PAGE
    return address


def fault_pending(s: State) -> int:
    """1 if a fault has been raised."""
    return int(s[FAULT_VECTOR] != NO_FAULT)
