"""The baseline translator: turns a decoded block into host code by copying stencils and filling their holes.

Native mechanism code. Hot code grows up from the start of the code cache, cold stubs (slow exits, unlinked chain
slots) grow down
from its end, so that a stub's address is known when the code that may jump to it is written. Not here: the
stencils (stencils.py), finding and invalidating blocks (blocks.py).
"""

from __future__ import annotations

from pyemu.cpu import mode as md
from pyemu.cpu.decode import record as rc
from pyemu.cpu.state import M64, MMU, MODE, TLB, TLB_ENTRIES, TLB_ENTRY_WORDS, ZERO, State
from pyemu.jit import layout as ly
from pyemu.jit.elf import R_32, R_32S, R_64
from pyemu.jit.native import copy_bytes, host_tsc, peek16, peek32, peek64, poke32, poke64
from pyemu.jit.stencil_table import (
    ADDRESS_ONLY,
    CHAIN,
    COUNT_EDGE,
    E_BASE,
    E_BASE_INDEX,
    E_CONSTANT,
    E_INDEX,
    E_SEGMENT,
    ENDS,
    EXECUTE,
    FORM_ENTRY,
    GOTO,
    H_BASE,
    H_CONSTANTS,
    H_CONT,
    H_COUNT,
    H_DISP,
    H_DISP64,
    H_EXEC,
    H_IMM,
    H_IMM32,
    H_IMM64,
    H_INDEX,
    H_LEAVE,
    H_NEXT,
    H_OP,
    H_PROCEED,
    H_RECORD,
    H_REG,
    H_RESUME,
    H_RIP,
    H_RM,
    H_SCALE,
    H_SEGMENT,
    H_SLOT,
    H_SLOT_NEXT,
    H_SLOW,
    H_TLB,
    H_UNLINKED,
    H_VVVV,
    JUMP,
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
        value = s[ly.HOLE_VALUES + peek16(relocation + 6)] + peek64(relocation + 8)
        if kind == R_32S or kind == R_32:
            poke32(write + offset, value)
        elif kind == R_64:
            poke64(write + offset, value)
        else:
            poke32(write + offset, value - (at + offset))
        relocation = relocation + RELOCATION_SIZE
    return at + length


def cold(s: State, stencil: int) -> int:
    """Paste a stencil in the cold area; returns its address."""
    at = (s[ly.COLD_NEXT] - stencil_length(s, stencil)) & M64
    s[ly.COLD_NEXT] = at
    paste(s, stencil, at)
    return at


def dead_flags(s: State, block: int, count: int) -> int:
    """Mask of the instructions whose flag writes nobody can see. Whatever may leave the block sees them."""
    live = 1
    dead = 0
    for k in range(count - 1, -1, -1):
        record = block + ly.B_SIZE + k * ly.RECORD_SIZE
        form = peek64(record + 8 * rc.PACKED) & 0xFFFF
        info = peek32(s[ly.FORMS] + form * FORM_ENTRY + 4)
        if info & WRITES_FLAGS:
            if live == 0:
                dead = dead | 1 << k
            live = 0
        if info & (READS_FLAGS | MAY_EXIT):
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
    hole(s, H_SCALE, (address >> rc.SCALE) & 0xFFFF)
    hole(s, H_DISP, peek64(record + 8 * rc.DISP))
    hole(s, H_DISP64, peek64(record + 8 * rc.DISP))
    hole(s, H_IMM, immediate)
    hole(s, H_IMM32, immediate & 0xFFFFFFFF)
    hole(s, H_IMM64, immediate)
    hole(s, H_RIP, rip)
    hole(s, H_NEXT, (rip + ((peek64(record + 8 * rc.PACKED) >> rc.LENGTH) & 0xFF)) & M64)
    hole(s, H_RECORD, record)
    return 0


def address(s: State, record: int, info: int, at: int) -> int:
    """Paste what computes the effective address into tmp."""
    fields = peek64(record + 8 * rc.ADDRESS)
    base = (fields >> rc.BASE) & 0xFFFF
    index = (fields >> rc.INDEX_REG) & 0xFFFF
    segment = (fields >> rc.SEGMENT_BASE) & 0xFFFF
    if base != ABSENT:
        at = paste(s, E_BASE if index == ABSENT else E_BASE_INDEX, at)
    elif index != ABSENT:
        at = paste(s, E_INDEX, at)
    else:
        at = paste(s, E_CONSTANT, at)
    if segment != ABSENT and info & ADDRESS_ONLY == 0:
        at = paste(s, E_SEGMENT, at)
    return at


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
    stub = cold(s, GOTO)
    hole(s, H_NEXT, following)
    return stub


def jumps_inline(rip: int) -> int:
    """1 for an address that is canonical for 48 bits. Code elsewhere, which 5-level paging allows, is left to the loop:
    it has no room for the mode in a tag of the jump cache."""
    return int(((rip >> 47) + 1) & 0x1FFFF < 2)


def instruction(s: State, block: int, record: int, dead: int, at: int) -> int:
    """Paste one instruction; returns the address behind it."""
    packed = peek64(record + 8 * rc.PACKED)
    entry = s[ly.FORMS] + (packed & 0xFFFF) * FORM_ENTRY
    info = peek32(entry + 4)
    stencil = peek16(entry + 2) if dead else peek16(entry)
    if stencil == 0 or (packed >> rc.ADDRESS_SIZE) & 0xFF != 8 or s[MODE] & md.CODE64 == 0:
        return execute(s, at)
    if info & RELATIVE:
        following = s[ly.HOLE_VALUES + H_NEXT]
        target = (following + peek64(record + 8 * rc.IMM)) & M64
        if jumps_inline(target) == 0 or jumps_inline(following) == 0:
            return execute(s, at)
        taken = make_slot(s, block, target)
        if info & JUMP == 0:
            hole(s, H_SLOT_NEXT, make_slot(s, block, following))
        hole(s, H_SLOT, taken)
    if info & MEMORY:
        at = address(s, record, info, at)
    if info & MAY_EXIT:
        hole(s, H_RESUME, at + stencil_length(s, stencil))
        hole(s, H_SLOW, cold(s, EXECUTE))
    return paste(s, stencil, at)


def finish(s: State, block: int, record: int, at: int) -> int:
    """Paste what follows the last instruction."""
    packed = peek64(record + 8 * rc.PACKED)
    entry = s[ly.FORMS] + (packed & 0xFFFF) * FORM_ENTRY
    info = peek32(entry + 4)
    following = s[ly.HOLE_VALUES + H_NEXT]
    if info & ENDS:
        return paste(s, PROCEED, at)
    if s[MODE] & md.CODE64 == 0 or jumps_inline(following) == 0:
        return paste(s, STOP, at)
    if (following ^ peek64(block + 8 * ly.B_RIP)) >> 12 == 0:
        hole(s, H_SLOT, make_slot(s, block, following))
        return paste(s, CHAIN, at)
    return paste(s, GOTO, at)


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
    hole(s, H_TLB, 8 * (TLB + s[MMU] * TLB_ENTRIES * TLB_ENTRY_WORDS))
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
