"""The software TLB: one direct-mapped table for each MMU index, the same in every back end.

An entry is four words: read tag, write tag, exec tag, addend. A tag is the page's linear address, with flag bits in
its low
12 that make it differ from any page address where the inline check must not succeed; INVALID grants nothing. Host
address =
linear + addend (RAM, ROM); for MMIO the same formula minus RAM_BASE gives the physical address. Mechanism subset.

MMU indices: 0 supervisor that SMAP keeps off user pages, 1 user, 2 supervisor that may touch them, 3 user whose data
must be aligned: no tag there lets the inline check succeed. A page with a data breakpoint has flagged tags, too.
"""

from __future__ import annotations

from pyemu.cpu import physical
from pyemu.cpu.primitives import mappings_changed, page_flags
from pyemu.cpu.state import (
    ALIGNED_CLEAN,
    HIGH_HALF,
    HOOK_WATCH_COUNT,
    HOOK_WATCHES,
    LARGE_HIGH,
    LARGE_LOW,
    LOCAL_HIGH_CODE,
    M64,
    MMU_COUNT,
    RAM_BASE,
    TLB,
    TLB_ENTRIES,
    TLB_ENTRY_WORDS,
    TLB_LOG,
    TLB_LOG_COUNT,
    TLB_LOG_SIZE,
    WATCH_DATA,
    WATCH_PAGES,
    State,
)

SUPERVISOR_SMAP, USER, SUPERVISOR, USER_ALIGNED = 0, 1, 2, 3  # odd ones are user
INVALID = M64
MMIO_FLAG = 2  # not RAM: every access goes through the machine
CODE_FLAG = 4  # on a write tag: the page has a flag (physical.py), such as translated code from it, or is ROM
WATCH_FLAG = 8  # on read and write tags: a data breakpoint, or memory that the debugger watches, lies in the page
ALIGN_FLAG = 16  # on read and write tags of USER_ALIGNED: misaligned accesses raise #AC
PAGE = 0xFFFFFFFFFFFFF000
PHYSICAL = 4  # kind bit of watched memory: its address is a physical one (hooks.py)

READ_TAG, WRITE_TAG, EXEC_TAG, ADDEND = 0, 1, 2, 3
ALIGNED = TLB + USER_ALIGNED * TLB_ENTRIES * TLB_ENTRY_WORDS  # the table that flush_all() mostly finds empty
TLB_END = TLB + MMU_COUNT * TLB_ENTRIES * TLB_ENTRY_WORDS

# rights of a walk (State[WALK_RIGHTS])
R_WRITE = 1  # the page tables allow writes
R_USER = 2  # user page
R_NX = 4  # not executable
R_GLOBAL = 8
R_DIRTY = 16  # D is set, so a write need not walk again
R_LARGE = 32
R_KEY_NO_ACCESS, R_KEY_NO_WRITE = 64, 128  # the page's protection key forbids data accesses, writes


def entry(linear: int, mmu: int) -> int:
    """Word index of the entry that serves a linear address."""
    return TLB + mmu * (TLB_ENTRIES * TLB_ENTRY_WORDS) + ((linear >> 12) & (TLB_ENTRIES - 1)) * TLB_ENTRY_WORDS


def high(s: State, linear: int) -> int:
    """1 for an address in the half that is usually a kernel's."""
    return int(linear >= s[HIGH_HALF])


def clear_entry(s: State, e: int) -> int:
    """Make one entry grant nothing."""
    s[e + READ_TAG] = INVALID
    s[e + WRITE_TAG] = INVALID
    s[e + EXEC_TAG] = INVALID
    return 0


def flush_all(s: State) -> int:
    """Drop every entry, global ones too."""
    for e in range(TLB, ALIGNED, TLB_ENTRY_WORDS):
        clear_entry(s, e)
    if s[ALIGNED_CLEAN] == 0:
        for e in range(ALIGNED, TLB_END, TLB_ENTRY_WORDS):
            clear_entry(s, e)
        s[ALIGNED_CLEAN] = 1
    s[TLB_LOG_COUNT] = 0
    s[LARGE_LOW] = 0
    s[LARGE_HIGH] = 0
    s[LOCAL_HIGH_CODE] = 0
    mappings_changed(s, 1)
    return 0


def flush(s: State) -> int:
    """Drop the non-global entries (MOV to CR3)."""
    if s[TLB_LOG_COUNT] > TLB_LOG_SIZE:
        return flush_all(s)
    for i in range(s[TLB_LOG_COUNT]):
        clear_entry(s, s[TLB_LOG + i])
    s[TLB_LOG_COUNT] = 0
    mappings_changed(s, s[LOCAL_HIGH_CODE])
    s[LOCAL_HIGH_CODE] = 0
    return 0


def flush_page(s: State, linear: int) -> int:
    """INVLPG: drop a page's entries; all of them where large pages have been seen on that side of the address space."""
    if s[LARGE_HIGH if high(s, linear) else LARGE_LOW]:
        return flush_all(s)
    for mmu in range(MMU_COUNT):
        clear_entry(s, entry(linear, mmu))
    mappings_changed(s, high(s, linear))
    return 0


# ---- watched pages ----------------------------------------------------------------------------------------------
def is_watched(s: State, page: int, frame: int) -> int:
    """1 if an enabled data breakpoint, or memory that the debugger watches, lies in a linear page; `frame` is the
    physical one."""
    for n in range(4):
        if (s[WATCH_DATA] >> n) & 1 and s[WATCH_PAGES + n] == page:
            return 1
    for at in range(HOOK_WATCHES, HOOK_WATCHES + 4 * s[HOOK_WATCH_COUNT], 4):
        where = frame if s[at + 2] & PHYSICAL else page
        if (s[at] - where) & M64 < 0x1000 or (where - s[at]) & M64 < s[at + 1]:
            return 1
    return 0


def mark_all(s: State) -> int:
    """Bring WATCH_FLAG of all tags up to date: what the debugger watches has changed."""
    for e in range(TLB, TLB_END, TLB_ENTRY_WORDS):
        for tag in range(e + READ_TAG, e + WRITE_TAG + 1):
            if s[tag] != INVALID:
                page = s[tag] & PAGE
                s[tag] = s[tag] & ~WATCH_FLAG & M64
                if is_watched(s, page, (page + s[e + ADDEND] - s[RAM_BASE]) & M64):
                    s[tag] = s[tag] | WATCH_FLAG
    return 0


def mark_page(s: State, page: int, flag: int) -> int:
    """Set WATCH_FLAG (or clear it: 0) on the tags that a linear page has."""
    for mmu in range(MMU_COUNT):
        e = entry(page, mmu)
        for tag in range(e + READ_TAG, e + WRITE_TAG + 1):
            if s[tag] != INVALID and s[tag] & PAGE == page:
                s[tag] = (s[tag] & ~WATCH_FLAG & M64) | flag
    return 0


# ---- entries ------------------------------------------------------------------------------------------------------
def fill(s: State, linear: int, mmu: int, page: int, rights: int, user_ok: int, write_ok: int, exec_ok: int) -> int:
    """Write the entry for a walked page; returns its word index."""
    e = entry(linear, mmu)
    tag = linear & PAGE
    where = physical.kind(s, page)
    if where == physical.MMIO:
        tag = tag | MMIO_FLAG
    s[e + EXEC_TAG] = tag if exec_ok else INVALID
    if s[WATCH_DATA] | s[HOOK_WATCH_COUNT] and is_watched(s, linear & PAGE, page):
        tag = tag | WATCH_FLAG
    if mmu == USER_ALIGNED:
        tag = tag | ALIGN_FLAG
        s[ALIGNED_CLEAN] = 0
    s[e + READ_TAG] = tag if user_ok else INVALID
    if write_ok and rights & R_DIRTY:
        if where == physical.ROM:
            tag = tag | CODE_FLAG
        elif where == physical.SHADOW:
            tag = tag | MMIO_FLAG
        elif where == physical.RAM and page_flags(s, page):
            tag = tag | CODE_FLAG
        s[e + WRITE_TAG] = tag
    else:
        s[e + WRITE_TAG] = INVALID
    s[e + ADDEND] = (s[RAM_BASE] + page - (linear & PAGE)) & M64
    if not rights & R_GLOBAL:
        n = s[TLB_LOG_COUNT]
        if n < TLB_LOG_SIZE:
            s[TLB_LOG + n] = e
        s[TLB_LOG_COUNT] = n + 1
        if exec_ok and high(s, linear):
            s[LOCAL_HIGH_CODE] = 1
    if rights & R_LARGE:
        s[LARGE_HIGH if high(s, linear) else LARGE_LOW] = 1
    return e


def protect_code_page(s: State, page: int) -> int:
    """Make writes to a physical page take the slow path, in entries that exist already: it now holds translated
    code."""
    host = (s[RAM_BASE] + page) & M64
    for e in range(TLB, TLB_END, TLB_ENTRY_WORDS):
        tag = s[e + WRITE_TAG]
        if tag != INVALID and ((tag & PAGE) + s[e + ADDEND]) & M64 == host:
            s[e + WRITE_TAG] = tag | CODE_FLAG
    return 0
