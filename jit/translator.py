"""The baseline translator: turns a decoded block into host code by copying stencils and filling their holes.

Native mechanism code. Hot code grows up from the start of the code cache, cold stubs (slow exits, unlinked chain slots)
grow down from its end, so that a stub's address is known when the code that may jump to it is written. Not here: the
stencils (stencils.py), finding and invalidating blocks (blocks.py).
"""

from __future__ import annotations

from pyemu.cpu import mode as md
from pyemu.cpu.decode import record as rc
from pyemu.cpu.state import CS, FS, M64, MMU, MODE, ONES, TLB, TLB_ENTRIES, TLB_ENTRY_WORDS, ZERO, State
from pyemu.cpu.tlb import ADDEND, READ_TAG, WRITE_TAG
from pyemu.jit import layout as ly
from pyemu.jit.elf import R_32, R_32S, R_64
from pyemu.jit.native import copy_bytes, host_tsc, peek16, peek32, peek64, poke32, poke64
from pyemu.jit.stencil_table import (
    ADDRESS_ONLY,
    ADDRESS_SIZED,
    CHAIN,
    COUNT_EDGE,
    COUNTED,
    COUNTED64,
    DIRECT,
    E32,
    E_BASE,
    E_BASE_INDEX,
    E_CONSTANT,
    E_INDEX,
    E_SEGMENT,
    ENDS,
    EXECUTE,
    F_EXTENT,
    F_FACTS,
    F_FLAT,
    FORM_ENTRY,
    GOTO,
    GOTO32,
    H_BASE,
    H_CONSTANTS,
    H_CONT,
    H_COUNT,
    H_DISP,
    H_DISP64,
    H_EXEC,
    H_EXTENT,
    H_FOLLOWING,
    H_IMM,
    H_IMM32,
    H_IMM64,
    H_INDEX,
    H_KEPT,
    H_LEAVE,
    H_NEXT,
    H_OP,
    H_PROCEED,
    H_RECORD,
    H_REG,
    H_RESUME,
    H_RIP,
    H_RM,
    H_SEGMENT,
    H_SLOT,
    H_SLOT_NEXT,
    H_SLOW,
    H_TAKEN,
    H_TLB,
    H_TLB_ADDEND,
    H_TLB_WRITE,
    H_UNLINKED,
    H_VVVV,
    JUMP,
    KEEPS_FLAGS,
    MASKABLE,
    MAY_EXIT,
    MEMORY,
    PROCEED,
    PROLOGUE,
    READS_FLAGS,
    RELATIVE,
    RELOCATION_SIZE,
    STENCIL_SIZE,
    STOP,
    UNLINKED,
    WRITES_FLAGS,
)

MARGIN = 64 << 10  # a block's code and stubs are smaller than this
ABSENT = 8 * ZERO
M32 = 0xFFFFFFFF


def hole(s: State, number: int, value: int) -> int:
    """Set the value of a hole for what is pasted next."""
    s[ly.HOLE_VALUES + number] = value
    return 0


def stencil_length(s: State, stencil: int) -> int:
    """Bytes of a stencil's code."""
    return peek32(s[ly.STENCILS] + stencil * STENCIL_SIZE + 4)


def paste(s: State, stencil: int, at: int) -> int:
    """Copy a stencil to host address `at` (executable view) and fill its holes; returns the address behind it."""
    entry = s[ly.STENCILS] + stencil * STENCIL_SIZE
    length = peek32(entry + 4)
    write = at - s[ly.CODE] + s[ly.CODE_WRITE]
    copy_bytes(write, s[ly.STENCILS] + peek32(entry), length)
    relocation = s[ly.STENCILS] + peek32(entry + 8)
    s[ly.HOLE_VALUES + H_CONT] = at + length
    for _ in range(peek32(entry + 12)):
        offset = peek32(relocation)
        kind = peek16(relocation + 4)
        number = peek16(relocation + 6)
        value = s[ly.HOLE_VALUES + number] + peek64(relocation + 8)
        if number >= H_TAKEN:
            note_site(s, number, at + offset)
        if kind == R_32S or kind == R_32:
            poke32(write + offset, value)
        elif kind == R_64:
            poke64(write + offset, value)
        else:
            poke32(write + offset, value - (at + offset))
        relocation = relocation + RELOCATION_SIZE
    return at + length


def note_site(s: State, number: int, site: int) -> int:
    """A chain slot's jump is here."""
    slot = s[ly.HOLE_VALUES + (H_SLOT if number == H_TAKEN else H_SLOT_NEXT)]
    at = slot + 8 * ly.S_SITE
    while peek64(at) != 0:
        at = at + 8
    return poke64(at, site)


def aim(s: State, slot: int, target: int) -> int:
    """Let a chain slot's jumps lead to a host address from now on."""
    poke64(slot + 8 * ly.S_TARGET, target)
    for k in range(ly.SITES):
        site = peek64(slot + 8 * (ly.S_SITE + k))
        if site != 0:
            poke32(site - s[ly.CODE] + s[ly.CODE_WRITE], target - (site + 4))
    return 0


def cold(s: State, stencil: int) -> int:
    """Paste a stencil in the cold area; returns its address."""
    at = (s[ly.COLD_NEXT] - stencil_length(s, stencil)) & M64
    s[ly.COLD_NEXT] = at
    paste(s, stencil, at)
    return at


def form_entry(s: State, packed: int) -> int:
    """Host address of the entry of a record's form."""
    return s[ly.FORMS] + (packed & 0xFFFF) * FORM_ENTRY


def counts_none(record: int, info: int) -> int:
    """1 for a shift or rotate by an immediate count of 0."""
    mask = 63 if info & COUNTED64 else 31
    return int(info & (COUNTED | COUNTED64) != 0 and peek64(record + 8 * rc.IMM) & mask == 0)


def dead_flags(s: State, block: int, count: int) -> int:
    """Mask of the instructions whose flag writes nobody can see. Whatever may leave the block sees them. What an
    instruction keeps of them it doesn't read, if nobody sees what it writes."""
    live = 1
    dead = 0
    for k in range(count - 1, -1, -1):
        record = block + ly.B_SIZE + k * ly.RECORD_SIZE
        info = peek32(form_entry(s, peek64(record + 8 * rc.PACKED)) + F_FACTS)
        if info & (WRITES_FLAGS | KEEPS_FLAGS) and live == 0:
            dead = dead | 1 << k
        if info & WRITES_FLAGS:
            live = 0
        if info & (READS_FLAGS | MAY_EXIT) or counts_none(record, info):
            live = 1
    return dead


def set_holes(s: State, record: int) -> int:
    """Holes that the record itself fills."""
    registers = peek64(record + 8 * rc.REGS)
    address = peek64(record + 8 * rc.ADDRESS)
    immediate = peek64(record + 8 * rc.IMM)
    rip = peek64(record + 8 * rc.R_RIP)
    hole(s, H_REG, (registers >> rc.REG) & 0xFFFF)
    hole(s, H_RM, (registers >> rc.RM) & 0xFFFF)
    hole(s, H_OP, (registers >> rc.OP) & 0xFFFF)
    hole(s, H_VVVV, (registers >> rc.VVVV) & 0xFFFF)
    hole(s, H_BASE, (address >> rc.BASE) & 0xFFFF)
    hole(s, H_INDEX, (address >> rc.INDEX_REG) & 0xFFFF)
    hole(s, H_SEGMENT, (address >> rc.SEGMENT_BASE) & 0xFFFF)
    hole(s, H_DISP, peek64(record + 8 * rc.DISP))
    hole(s, H_DISP64, peek64(record + 8 * rc.DISP))
    hole(s, H_IMM, immediate)
    hole(s, H_IMM32, immediate & 0xFFFFFFFF)
    hole(s, H_IMM64, immediate)
    hole(s, H_RIP, rip)
    hole(s, H_NEXT, (rip + ((peek64(record + 8 * rc.PACKED) >> rc.LENGTH) & 0xFF)) & M64)
    hole(s, H_RECORD, record)
    hole(s, H_KEPT, 0 if peek64(record + 8 * rc.PACKED) & (rc.ZEROING << rc.RFLAGS_SHIFT) else M64)
    return 0


def address_stencil(s: State, record: int, info: int) -> int:
    """The stencil that computes an operand's offset in its segment; its holes are set."""
    narrow = E32 if address_size(record) == 4 else 0
    if info & DIRECT:
        hole(s, H_DISP, peek64(record + 8 * rc.IMM))
        hole(s, H_DISP64, peek64(record + 8 * rc.IMM))
        return E_CONSTANT + narrow
    fields = peek64(record + 8 * rc.ADDRESS)
    index = (fields >> rc.INDEX_REG) & 0xFFFF
    scale = (fields >> rc.SCALE) & 3
    if (fields >> rc.BASE) & 0xFFFF != ABSENT:
        return (E_BASE if index == ABSENT else E_BASE_INDEX + scale) + narrow
    return (E_CONSTANT if index == ABSENT else E_INDEX + scale) + narrow


def segment_stencil(s: State, record: int, info: int) -> int:
    """The stencil that adds the base of an operand's segment; 0 if that is known to be 0."""
    if info & ADDRESS_ONLY or (peek64(record + 8 * rc.ADDRESS) >> rc.SEGMENT_BASE) & 0xFFFF == ABSENT:
        return 0
    if s[MODE] & md.CODE64:
        return E_SEGMENT
    return E_SEGMENT + E32 if segment_number(record) >= FS and info & MAY_EXIT else 0


def execute(s: State, at: int) -> int:
    """Paste a call of the instruction's handler."""
    hole(s, H_RESUME, at + stencil_length(s, EXECUTE))
    return paste(s, EXECUTE, at)


def make_slot(s: State, block: int, target: int) -> int:
    """A chain slot for a jump to RIP `target`; within the page it can be linked, others go through the jump cache."""
    slot = s[ly.ARENA_NEXT]
    s[ly.ARENA_NEXT] = slot + 8 * ly.S_WORDS
    poke64(slot + 8 * ly.S_NEXT, 0)
    poke64(slot + 8 * ly.S_RIP, target)
    poke64(slot + 8 * ly.S_BLOCK, block)
    for k in range(ly.SITES):
        poke64(slot + 8 * (ly.S_SITE + k), 0)
    hole(s, H_SLOT, slot)
    same_page = (target ^ peek64(block + 8 * ly.B_RIP)) >> 12 == 0
    stub = cold(s, UNLINKED) if same_page else goto_stub(s, target)
    poke64(slot + 8 * ly.S_TARGET, stub)
    poke64(slot + 8 * ly.S_UNLINKED, stub)
    return slot


def goto_stub(s: State, target: int) -> int:
    """A stub that jumps to RIP `target` through the jump cache."""
    following = s[ly.HOLE_VALUES + H_NEXT]
    hole(s, H_NEXT, target)
    stub = cold(s, GOTO if s[MODE] & md.CODE64 else GOTO32)
    hole(s, H_NEXT, following)
    return stub


def jumps_inline(s: State, rip: int) -> int:
    """1 for an address that is canonical for 48 bits, or has 32 in flat 32-bit mode. Code elsewhere, which 5-level
    paging allows, is left to the loop: it has no room for the mode in a tag of the jump cache."""
    if s[MODE] & md.CODE64:
        return int(((rip >> 47) + 1) & 0x1FFFF < 2)
    return int(rip <= M32)


def address_size(record: int) -> int:
    """Bytes of an instruction's addresses."""
    return (peek64(record + 8 * rc.PACKED) >> rc.ADDRESS_SIZE) & 0xFF


def segment_number(record: int) -> int:
    """The segment of an instruction's memory operand."""
    return (peek64(record + 8 * rc.PACKED) >> rc.SEGMENT) & 0xFF


def stencil_of(s: State, record: int, dead: int) -> int:
    """The stencil of an instruction in the present mode, or 0 if it runs by its handler."""
    entry = form_entry(s, peek64(record + 8 * rc.PACKED))
    info = peek32(entry + F_FACTS)
    size = address_size(record)
    segment = segment_number(record)
    native_size = 8
    if s[MODE] & md.CODE64 == 0:
        if s[MODE] & md.FLAT == 0 or (info & (MEMORY | ADDRESS_SIZED) and segment == CS):
            return 0
        native_size = 4
        entry = entry + F_FLAT
    if size != native_size and (info & ADDRESS_SIZED or (info & MEMORY and size != 4)):
        return 0
    if info & ADDRESS_SIZED and segment >= FS and (info & MEMORY == 0 or native_size == 4):
        return 0  # it reaches beyond what the address stencil has checked, or there is none
    if counts_none(record, info):
        return 0
    if info & MASKABLE:
        dead = int((peek64(record + 8 * rc.REGS) >> rc.MASK) & 0xFFFF == 8 * ONES)
    return peek16(entry + 2) if dead else peek16(entry)


def instruction(s: State, block: int, record: int, dead: int, at: int) -> int:
    """Paste one instruction; returns the address behind it."""
    entry = form_entry(s, peek64(record + 8 * rc.PACKED))
    info = peek32(entry + F_FACTS)
    stencil = stencil_of(s, record, dead)
    if stencil == 0:
        return execute(s, at)
    if info & RELATIVE:
        following = s[ly.HOLE_VALUES + H_NEXT]
        target = (following + peek64(record + 8 * rc.IMM)) & (M64 if s[MODE] & md.CODE64 else M32)
        if jumps_inline(s, target) == 0 or jumps_inline(s, following) == 0:
            return execute(s, at)
        taken = make_slot(s, block, target)
        if info & JUMP == 0:
            not_taken = make_slot(s, block, following)
            hole(s, H_SLOT_NEXT, not_taken)
            hole(s, H_FOLLOWING, peek64(not_taken + 8 * ly.S_TARGET))
        hole(s, H_SLOT, taken)
        hole(s, H_TAKEN, peek64(taken + 8 * ly.S_TARGET))
    offset = address_stencil(s, record, info) if info & MEMORY else 0
    segment = segment_stencil(s, record, info) if info & MEMORY else 0
    if info & MAY_EXIT:
        length = stencil_length(s, offset) + stencil_length(s, segment) + stencil_length(s, stencil)
        hole(s, H_RESUME, at + length)
        hole(s, H_SLOW, cold(s, EXECUTE))
    if offset:
        at = paste(s, offset, at)
    if segment:
        hole(s, H_EXTENT, peek32(entry + F_EXTENT))
        at = paste(s, segment, at)
    return paste(s, stencil, at)


def finish(s: State, block: int, record: int, at: int) -> int:
    """Paste what follows the last instruction."""
    info = peek32(form_entry(s, peek64(record + 8 * rc.PACKED)) + F_FACTS)
    following = s[ly.HOLE_VALUES + H_NEXT]
    if info & ENDS:
        return paste(s, PROCEED, at)
    if s[MODE] & (md.CODE64 | md.FLAT) == 0 or jumps_inline(s, following) == 0:
        return paste(s, STOP, at)
    if (following ^ peek64(block + 8 * ly.B_RIP)) >> 12 == 0:
        slot = make_slot(s, block, following)
        hole(s, H_TAKEN, peek64(slot + 8 * ly.S_TARGET))
        return paste(s, CHAIN, at)
    return paste(s, GOTO if s[MODE] & md.CODE64 else GOTO32, at)


def edge_number(rip: int) -> int:
    """A block's number, of which an edge of the map has two: AFL's way, for which no two blocks have to differ."""
    x = rip ^ (rip >> 32)
    return (x * 0x9E3779B1 >> 12) & (ly.EDGE_MAP_SIZE - 1)


def translate(s: State, block: int) -> int:
    """Translate a block; returns its host code."""
    ticks = host_tsc()
    count = peek64(block + 8 * ly.B_COUNT)
    start = (s[ly.CODE_NEXT] + 15) & ~15
    hole(s, H_EXEC, s[ly.THUNK_EXEC])
    hole(s, H_LEAVE, s[ly.THUNK_LEAVE])
    hole(s, H_UNLINKED, s[ly.THUNK_UNLINKED])
    hole(s, H_PROCEED, s[ly.THUNK_PROCEED])
    hole(s, H_CONSTANTS, s[ly.STENCILS])
    table = TLB + s[MMU] * TLB_ENTRIES * TLB_ENTRY_WORDS
    hole(s, H_TLB, 8 * (table + READ_TAG))
    hole(s, H_TLB_WRITE, 8 * (table + WRITE_TAG))
    hole(s, H_TLB_ADDEND, 8 * (table + ADDEND))
    hole(s, H_COUNT, count)
    hole(s, H_NEXT, peek64(block + 8 * ly.B_RIP))
    stop = cold(s, STOP)
    hole(s, H_SLOW, stop)
    at = paste(s, PROLOGUE, start)
    if s[ly.EDGE_MAP]:
        number = edge_number(peek64(block + 8 * ly.B_RIP))
        hole(s, H_SLOT, number)
        hole(s, H_SLOT_NEXT, number >> 1)
        at = paste(s, COUNT_EDGE, at)
    dead = dead_flags(s, block, count)
    record = block + ly.B_SIZE
    for k in range(count):
        set_holes(s, record)
        at = instruction(s, block, record, (dead >> k) & 1, at)
        record = record + ly.RECORD_SIZE
    last = record - ly.RECORD_SIZE
    at = finish(s, block, last, at)
    s[ly.CODE_NEXT] = at
    poke64(block + 8 * ly.B_CODE, stop if peek64(block + 8 * ly.B_HOOKED) else start)
    poke64(block + 8 * ly.B_BODY, start)
    s[ly.STAT_CODE_BYTES] += at - start
    s[ly.STAT_TRANSLATE_TICKS] += (host_tsc() - ticks) & M64
    return start


def room(s: State) -> int:
    """Is there room to translate another block?"""
    return int(s[ly.CODE_NEXT] + MARGIN < s[ly.COLD_NEXT] and s[ly.ARENA_NEXT] + MARGIN < s[ly.ARENA_END])
