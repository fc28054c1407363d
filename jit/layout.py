"""Words of State[JIT..] and the layout of blocks: what the native back ends share among themselves.

Sizes are in bytes, word offsets in 64-bit words; host addresses are plain numbers.
"""

from __future__ import annotations

from pyemu.cpu.mode import MODE_BITS
from pyemu.cpu.state import JIT, STATS

# ---- State words ---------------------------------------------------------------------------------------------
ARENA = JIT + 0  # host address of the block arena
ARENA_END = JIT + 1
ARENA_NEXT = JIT + 2  # next free byte
HASH = JIT + 3  # host address of the block hash table: HASH_SIZE block addresses
PAGES = JIT + 4  # host address of PAGE_WORDS words for each physical page
PAGE_COUNT = JIT + 5  # physical pages that PAGES covers
HANDLERS = JIT + 6  # host address of the table of handler addresses, by form
KILLED = JIT + 7  # nonzero: code was invalidated since it was last cleared
CURRENT_RECORD = JIT + 8  # record being executed, for the machine's questions
CODE = JIT + 9  # translated code: host address (executable view)
CODE_WRITE = JIT + 10  # the same memory, writable view
CODE_END = JIT + 11
CODE_NEXT = JIT + 12
STENCILS = JIT + 13  # host address of the stencil tables
ENTER = JIT + 14  # host address of the entry thunk
USE_CODE = JIT + 15  # 1: translate (jit), 0: interpret
EXIT_SLOT = JIT + 16  # chaining: address of the slot that the last block left through, or 0
THUNK_EXEC = JIT + 17
JUMP_CACHE = JIT + 19  # host address of the jump cache
THUNK_LEAVE = JIT + 20
THUNK_UNLINKED = JIT + 21
THUNK_PROCEED = JIT + 24
JUMP_LOG_COUNT = JIT + 25  # 2 words: how long those lists are
COVERAGE_NEXT = JIT + 27  # where the next block's coverage entry goes; 0: none is recorded
COVERAGE_END = JIT + 28
EDGE_MAP = JIT + 29  # host address of the map of edges, EDGE_MAP_SIZE counters; 0: translated code counts none
EDGE_LAST = JIT + 30  # the block executed last, as its number halved
HOLE_VALUES = JIT + 32  # values of the holes of the instruction being translated, by hole number (stencils.HOLES)
FORMS = JIT + 23  # host address of the form table (stencil_table.py)
COLD_NEXT = JIT + 22  # stubs grow down from the end of the code cache; this is the lowest

# ---- what a handler returns ------------------------------------------------------------------------------------
NEXT, FAULT, JUMPED = 0, 1, 2  # the next instruction follows; it is not done, the fault is raised; RIP is set

HASH_BITS = 16
HASH_SIZE = 1 << HASH_BITS

# ---- a block: header words, then the records of its instructions ----------------------------------------------
(
    B_RIP, B_PHYS, B_MODE, B_CS_BASE, B_COUNT, B_HASH_NEXT, B_CODE, B_PAGE_NEXT, B_PAGE2, B_PAGE2_NEXT, B_BYTES,
    B_INCOMING, B_HOOKED, B_BODY, B_COVERED,
) = range(15)  # fmt: skip
B_WORDS = 15
B_SIZE = 8 * B_WORDS
DEAD = 0xFFFFFFFFFFFFFFFF  # B_RIP of an invalidated block
RECORD_SIZE = 64
MAX_INSTRUCTIONS = 64

# B_CODE is where others jump to, B_BODY what the loop calls: they differ in hooked blocks, which only the loop enters.

# ---- coverage: entries of RIP, bytes and CR3 for each block decoded ---------------------------------------------
COVERAGE_ENTRY = 24
EDGE_MAP_SIZE = 1 << 16

# ---- a physical page: list of blocks, granule mask ---------------------------------------------------------------
P_BLOCKS, P_GRANULES = 0, 1
PAGE_WORDS = 2

# ---- statistics --------------------------------------------------------------------------------------------------
(
    STAT_BLOCKS, STAT_INSTRUCTIONS, STAT_TRANSLATE_TICKS, STAT_CODE_BYTES, STAT_INVALIDATED, STAT_FLUSHES,
    STAT_HANDLER_CALLS, STAT_LOOKUPS, STAT_FAULTS, STAT_CHAINS,
) = range(STATS, STATS + 10)  # fmt: skip

# ---- jump cache: two halves (user, kernel addresses) of {tag, code} --------------------------------------------------
# The tag is RIP with the mode word folded over its upper bits, so one compare checks both. Of a canonical address those
# from bit 47 on are all alike, and no two modes are each other's complement. Bit 46 meets the mode's lowest, by which
# 64-bit mode differs from flat 32-bit mode, whose addresses have no such bit.
JUMP_CACHE_BITS = 13
JUMP_CACHE_SIZE = 1 << JUMP_CACHE_BITS
JUMP_CACHE_MODE_SHIFT = 64 - MODE_BITS
JUMP_EMPTY = 0xFFFFFFFFFFFFFFFF  # no canonical address with a mode gives these two tags: nothing was here since the
JUMP_DEAD = 0xFFFFFFFFFFFFFFFE  # half was emptied; or there was, and its block is dead
JUMP_LOG = 2 * JUMP_CACHE_SIZE * 16  # offset of two lists, of the addresses of the entries that are not empty
JUMP_CACHE_BYTES = JUMP_LOG + 2 * JUMP_CACHE_SIZE * 8

# ---- a chain slot: where a block's exit goes -------------------------------------------------------------------------
# Its sites are where jumps with 32-bit displacements to the target are, in the executable view; 0 for none.
S_TARGET, S_UNLINKED, S_NEXT, S_RIP, S_BLOCK, S_SITE = range(6)
SITES = 2  # words from S_SITE on
S_WORDS = S_SITE + SITES

COUNT_SHIFT = 32  # in a record's PACKED word: instructions of its block (8 bits)
