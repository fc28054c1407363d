"""Blocks: runs of decoded instructions, found by physical address and mode, dropped when their bytes change.

Native mechanism code; memory is the arena that layout.py describes. A block is keyed by physical address, RIP, CS base
and mode word, ends at a control transfer, at the page's end, or at MAX_INSTRUCTIONS. Its last instruction may reach
into the next
page. Not here: running blocks (loop.py), translating them (translator.py).
"""

from __future__ import annotations

from array import array

from pyemu.cpu import hooks, paging, tlb
from pyemu.cpu import mode as md
from pyemu.cpu.decode import record as rc
from pyemu.cpu.decode.decoder import decode
from pyemu.cpu.ops import build_table
from pyemu.cpu.primitives import HAS_CODE, TRACKED, UNSAVED, call_service, service
from pyemu.cpu.state import (
    CR3,
    CS,
    FAULT_VECTOR,
    FETCH_PHYS,
    FETCH_PHYS2,
    HOOK_COUNT,
    M64,
    MODE,
    NO_FAULT,
    NO_PAGE,
    PAGE_FLAGS,
    RAM_BASE,
    RECORD,
    RIP,
    SAVED_COUNT,
    SAVED_NUMBERS,
    SAVED_PAGES,
    SEG_BASE,
    WALK_PHYS,
    State,
)
from pyemu.jit import layout as ly
from pyemu.jit import translator
from pyemu.jit.native import copy_bytes, peek8, peek64, poke8, poke64

FORMS = build_table().forms
ENDS_BLOCK = array("B", [f.row.ends_block for f in FORMS])


def hash_of(phys: int, rip: int) -> int:
    """Index in the hash table."""
    x = phys ^ (phys >> 15) ^ (rip >> 30)
    return (x ^ (x >> 7)) & (ly.HASH_SIZE - 1)


def page_words(s: State, phys: int) -> int:
    """Host address of a physical page's words."""
    return s[ly.PAGES] + (phys >> 12) * (8 * ly.PAGE_WORDS)


def find(s: State, phys: int, rip: int) -> int:
    """The live block for the present mode at a physical address, or 0."""
    block = peek64(s[ly.HASH] + 8 * hash_of(phys, rip))
    mode = s[MODE]
    while block != 0:
        if peek64(block + 8 * ly.B_RIP) == rip and peek64(block + 8 * ly.B_PHYS) == phys:
            if peek64(block + 8 * ly.B_MODE) == mode:
                if mode & md.CODE64 or peek64(block + 8 * ly.B_CS_BASE) == s[SEG_BASE + CS]:
                    if peek64(block + 8 * ly.B_PAGE2) == NO_PAGE or second_page_same(s, block, rip):
                        return block
        block = peek64(block + 8 * ly.B_HASH_NEXT)
    return 0


def second_page_same(s: State, block: int, rip: int) -> int:
    """For a block that reaches into the next page: is that page still where it was?"""
    linear = (linear_rip(s, rip) | 0xFFF) + 1
    if s[MODE] & md.CODE64 == 0:
        linear = linear & 0xFFFFFFFF
    if paging.fetch_page(s, linear & M64):
        s[FAULT_VECTOR] = NO_FAULT  # decoding again finds out whether that byte is needed
        return 0
    return int(s[WALK_PHYS] == peek64(block + 8 * ly.B_PAGE2))


def linear_rip(s: State, rip: int) -> int:
    """Linear address of an instruction pointer."""
    if s[MODE] & md.CODE64:
        return rip
    return (rip + s[SEG_BASE + CS]) & 0xFFFFFFFF


def lookup(s: State) -> int:
    """The block at RIP, decoded if need be; 0 with a fault raised if it cannot be fetched."""
    rip = s[RIP]
    linear = linear_rip(s, rip)
    if paging.fetch_page(s, linear):
        return 0
    phys = s[WALK_PHYS] + (linear & 0xFFF)
    block = find(s, phys, rip)
    if block != 0:
        return block
    return build(s, phys, rip, linear)


def flush(s: State) -> int:
    """Forget every block: the arena starts again."""
    for i in range(ly.HASH_SIZE):
        poke64(s[ly.HASH] + 8 * i, 0)
    for page in range(s[ly.PAGE_COUNT]):
        flags = peek8(s[PAGE_FLAGS] + page)
        if flags & HAS_CODE:
            poke8(s[PAGE_FLAGS] + page, flags & ~HAS_CODE)
            poke64(s[ly.PAGES] + page * (8 * ly.PAGE_WORDS) + 8 * ly.P_BLOCKS, 0)
            poke64(s[ly.PAGES] + page * (8 * ly.PAGE_WORDS) + 8 * ly.P_GRANULES, 0)
    s[ly.ARENA_NEXT] = s[ly.ARENA]
    s[ly.CODE_NEXT] = s[ly.CODE]
    s[ly.COLD_NEXT] = s[ly.CODE_END]
    forget_jumps(s, 1)
    s[ly.EXIT_SLOT] = 0
    s[ly.KILLED] = 1
    s[ly.STAT_FLUSHES] += 1
    return 0


def build(s: State, phys: int, rip: int, linear: int) -> int:
    """Decode a block at a physical address; 0 with a fault raised if even its first instruction cannot be."""
    if s[ly.ARENA_NEXT] + ly.B_SIZE + ly.MAX_INSTRUCTIONS * ly.RECORD_SIZE > s[ly.ARENA_END]:
        flush(s)
    block = s[ly.ARENA_NEXT]
    record = block + ly.B_SIZE
    mode64 = s[MODE] & md.CODE64
    default32 = (s[MODE] & md.CODE32) >> 1
    limit = 1 if s[MODE] & md.TRAP else ly.MAX_INSTRUCTIONS
    at = rip
    offset = 0  # bytes from the start of the block
    left = 0x1000 - (linear & 0xFFF)
    count = 0
    s[FETCH_PHYS2] = NO_PAGE
    while count < limit and offset < left:
        s[FETCH_PHYS] = phys + offset
        here = (linear + offset) & M64
        if mode64 == 0:
            here = here & 0xFFFFFFFF
        if count and s[HOOK_COUNT] and hooks.cuts(s, here):
            break
        if decode(s, at, here, mode64, default32):
            if count == 0:
                return 0
            s[FAULT_VECTOR] = NO_FAULT  # raised again when control gets there
            break
        packed = s[RECORD + rc.PACKED]
        form = packed & 0xFFFF
        length = (packed >> rc.LENGTH) & 0xFF
        poke64(record, peek64(s[ly.HANDLERS] + 8 * form))
        for word in range(1, rc.WORDS):
            poke64(record + 8 * word, s[RECORD + word])
        poke8(record + 8 * rc.PACKED + rc.INDEX // 8, count)
        record = record + ly.RECORD_SIZE
        count = count + 1
        offset = offset + length
        at = (at + length) & M64
        if ENDS_BLOCK[form]:
            break
    poke64(block + 8 * ly.B_RIP, rip)
    poke64(block + 8 * ly.B_PHYS, phys)
    poke64(block + 8 * ly.B_MODE, s[MODE])
    poke64(block + 8 * ly.B_CS_BASE, s[SEG_BASE + CS])
    poke64(block + 8 * ly.B_COUNT, count)
    poke64(block + 8 * ly.B_CODE, 0)
    poke64(block + 8 * ly.B_BYTES, offset)
    poke64(block + 8 * ly.B_PAGE2, NO_PAGE)
    poke64(block + 8 * ly.B_INCOMING, 0)
    poke64(block + 8 * ly.B_HOOKED, 0)
    if s[HOOK_COUNT]:
        poke64(block + 8 * ly.B_HOOKED, hooks.flags(s, linear))
    poke64(block + 8 * ly.B_COVERED, 0)
    for k in range(count):
        poke8(block + ly.B_SIZE + k * ly.RECORD_SIZE + 8 * rc.PACKED + ly.COUNT_SHIFT // 8, count)
    s[ly.ARENA_NEXT] = record
    s[ly.STAT_BLOCKS] += 1
    s[ly.STAT_INSTRUCTIONS] += count
    if phys >> 63:
        poke64(block + 8 * ly.B_RIP, ly.DEAD)  # code in device memory: never found again
        return block
    head = s[ly.HASH] + 8 * hash_of(phys, rip)
    poke64(block + 8 * ly.B_HASH_NEXT, peek64(head))
    poke64(head, block)
    enter_page(s, block, ly.B_PAGE_NEXT, phys, offset if offset < left else left)
    if offset > left and s[FETCH_PHYS2] >> 63:
        kill(s, block)  # reaches into device memory: run once, decoded again each time
    elif offset > left:
        poke64(block + 8 * ly.B_PAGE2, s[FETCH_PHYS2])
        enter_page(s, block, ly.B_PAGE2_NEXT, s[FETCH_PHYS2], offset - left)
    return block


def cover(s: State, block: int) -> int:
    """Record a block that is about to be executed from its start, if that's the first time."""
    at = s[ly.COVERAGE_NEXT]
    if peek64(block + 8 * ly.B_COVERED) or at + ly.COVERAGE_ENTRY > s[ly.COVERAGE_END]:
        return 0  # (nobody has emptied the buffer: the caller has failed, and is about to say so)
    poke64(block + 8 * ly.B_COVERED, 1)
    poke64(at, linear_rip(s, s[RIP]))
    poke64(at + 8, peek64(block + 8 * ly.B_BYTES))
    poke64(at + 16, s[CR3])
    s[ly.COVERAGE_NEXT] = at + ly.COVERAGE_ENTRY
    if at + 2 * ly.COVERAGE_ENTRY > s[ly.COVERAGE_END]:
        call_service(s, COVERAGE_FULL, 0, 0)
    return 0


def _coverage_full(s: State, _a: int, _b: int) -> int:
    s.debugger.coverage_full()
    return 0


COVERAGE_FULL = service(_coverage_full)


def enter_page(s: State, block: int, link: int, phys: int, length: int) -> int:
    """List a block on a page and mark the bytes that it came from. Links carry which of the block's two they are in
    bit 0."""
    words = page_words(s, phys)
    page = phys >> 12
    flags = peek8(s[PAGE_FLAGS] + page)
    if flags & HAS_CODE == 0:
        poke8(s[PAGE_FLAGS] + page, flags | HAS_CODE)
        tlb.protect_code_page(s, page << 12)
    poke64(block + 8 * link, peek64(words + 8 * ly.P_BLOCKS))
    poke64(words + 8 * ly.P_BLOCKS, block | int(link == ly.B_PAGE2_NEXT))
    poke64(words + 8 * ly.P_GRANULES, peek64(words + 8 * ly.P_GRANULES) | granules(phys, length))
    return 0


def granules(phys: int, length: int) -> int:
    """Mask of the 64-byte granules of a page that `length` (at least 1) bytes touch."""
    first = (phys >> 6) & 63
    last = ((phys & 0xFFF) + length - 1) >> 6
    if last > 63:
        last = 63
    return ((M64 >> (63 - last)) >> first) << first


def first_write(s: State, page: int, flags: int) -> int:
    """What is tracked about a page that is about to change for the first time (the twin of primitives.before_write)."""
    if flags & UNSAVED:
        count = s[SAVED_COUNT]
        poke64(s[SAVED_NUMBERS] + 8 * count, page)
        copy_bytes(s[SAVED_PAGES] + 4096 * count, s[RAM_BASE] + (page << 12), 4096)
        s[SAVED_COUNT] = count + 1
    poke8(s[PAGE_FLAGS] + page, flags & ~TRACKED)
    return 0


def written(s: State, phys: int, length: int) -> int:
    """A store is about to change bytes of a page: drop the blocks that came from them."""
    page = phys >> 12
    if page >= s[ly.PAGE_COUNT]:
        return 0
    flags = peek8(s[PAGE_FLAGS] + page)
    if flags & TRACKED:
        first_write(s, page, flags)
    if flags & HAS_CODE == 0:
        return 0
    words = page_words(s, phys)
    mask = granules(phys, length)
    if peek64(words + 8 * ly.P_GRANULES) & mask == 0:
        return 0
    kept = 0
    left = 0
    link = peek64(words + 8 * ly.P_BLOCKS)
    poke64(words + 8 * ly.P_BLOCKS, 0)
    while link != 0:
        block = link & ~1
        field = ly.B_PAGE2_NEXT if link & 1 else ly.B_PAGE_NEXT
        following = peek64(block + 8 * field)
        if peek64(block + 8 * ly.B_RIP) != ly.DEAD:
            mine = block_granules(block, link & 1)
            if mine & mask:
                kill(s, block)
            else:
                kept = kept | mine
                poke64(block + 8 * field, left)
                left = link
        link = following
    poke64(words + 8 * ly.P_BLOCKS, left)
    poke64(words + 8 * ly.P_GRANULES, kept)
    if left == 0:
        poke8(s[PAGE_FLAGS] + page, 0)  # tracked it is no longer
    return 0


def block_granules(block: int, second: int) -> int:
    """The granules of a block in its first or second page."""
    phys = peek64(block + 8 * ly.B_PHYS)
    length = peek64(block + 8 * ly.B_BYTES)
    left = 0x1000 - (phys & 0xFFF)
    if second:
        return granules(0, length - left)
    return granules(phys, length if length < left else left)


def kill(s: State, block: int) -> int:
    """Make a block unreachable: nobody finds it, and code that jumps to it directly goes back to the loop."""
    rip = peek64(block + ly.B_SIZE + 8 * rc.R_RIP)
    entry = jump_entry(s, rip)
    if peek64(entry) != ly.JUMP_EMPTY and peek64(entry + 8) == peek64(block + 8 * ly.B_CODE):
        poke64(entry, ly.JUMP_DEAD)
    poke64(block + 8 * ly.B_RIP, ly.DEAD)
    s[ly.KILLED] = 1
    s[ly.EXIT_SLOT] = 0
    s[ly.STAT_INVALIDATED] += 1
    unlink_hash(s, block)
    slot = peek64(block + 8 * ly.B_INCOMING)
    while slot != 0:
        translator.aim(s, slot, peek64(slot + 8 * ly.S_UNLINKED))
        slot = peek64(slot + 8 * ly.S_NEXT)
    poke64(block + 8 * ly.B_INCOMING, 0)
    return 0


def link(s: State, block: int) -> int:
    """Let the chain slot that control came through jump to a block directly from now on."""
    slot = s[ly.EXIT_SLOT]
    origin = peek64(slot + 8 * ly.S_BLOCK)
    if peek64(slot + 8 * ly.S_RIP) != peek64(block + 8 * ly.B_RIP):
        return 0
    if (peek64(origin + 8 * ly.B_PHYS) ^ peek64(block + 8 * ly.B_PHYS)) >> 12 != 0:
        return 0
    if peek64(origin + 8 * ly.B_MODE) != peek64(block + 8 * ly.B_MODE):
        return 0
    if peek64(slot + 8 * ly.S_TARGET) != peek64(slot + 8 * ly.S_UNLINKED):
        return 0
    if s[MODE] & md.BREAKPOINTS:
        return 0  # the loop looks at each
    if peek64(block + 8 * ly.B_PAGE2) != NO_PAGE:
        if translator.room(s):  # its second page may be mapped elsewhere by then: always through the jump cache
            translator.aim(s, slot, translator.goto_stub(s, peek64(block + 8 * ly.B_RIP)))
        return 0
    translator.aim(s, slot, peek64(block + 8 * ly.B_CODE))
    poke64(slot + 8 * ly.S_NEXT, peek64(block + 8 * ly.B_INCOMING))
    poke64(block + 8 * ly.B_INCOMING, slot)
    s[ly.STAT_CHAINS] += 1
    return 0


# ---- jump cache ------------------------------------------------------------------------------------------------
def jump_entry(s: State, rip: int) -> int:
    """Host address of the jump cache entry of an address."""
    index = (rip ^ (rip >> ly.JUMP_CACHE_BITS)) & (ly.JUMP_CACHE_SIZE - 1)
    return s[ly.JUMP_CACHE] + 16 * (index | tlb.high(s, rip) << ly.JUMP_CACHE_BITS)


def jump_log(s: State, half: int) -> int:
    """Host address of the list of the entries of a half that are not empty: emptying it costs what it holds."""
    return s[ly.JUMP_CACHE] + ly.JUMP_LOG + half * (8 * ly.JUMP_CACHE_SIZE)


def enter_jump(s: State, block: int) -> int:
    """Let indirect jumps find a block without the loop, in modes with stencils. Both pages of one that spans two are
    where they are until the jump cache forgets that half of the address space."""
    rip = peek64(block + 8 * ly.B_RIP)
    last = (rip + peek64(block + 8 * ly.B_BYTES) - 1) & M64
    half = tlb.high(s, rip)
    inline = translator.jumps_inline(s, rip) and translator.jumps_inline(s, last) and tlb.high(s, last) == half
    if s[MODE] & (md.CODE64 | md.FLAT) and s[MODE] & md.BREAKPOINTS == 0 and inline:
        entry = jump_entry(s, rip)
        if peek64(entry) == ly.JUMP_EMPTY:
            poke64(jump_log(s, half) + 8 * s[ly.JUMP_LOG_COUNT + half], entry)
            s[ly.JUMP_LOG_COUNT + half] += 1
        poke64(entry, rip ^ ((s[MODE] << ly.JUMP_CACHE_MODE_SHIFT) & M64))
        poke64(entry + 8, peek64(block + 8 * ly.B_CODE))
    return 0


def forget_jumps(s: State, kernel_too: int) -> int:
    """Linear addresses may lead elsewhere now: empty the jump cache, of user addresses or of all."""
    for half in range(1 + int(kernel_too != 0)):
        log = jump_log(s, half)
        for k in range(s[ly.JUMP_LOG_COUNT + half]):
            poke64(peek64(log + 8 * k), ly.JUMP_EMPTY)
        s[ly.JUMP_LOG_COUNT + half] = 0
    return 0


def drop_linear(s: State, linear: int, length: int) -> int:
    """Drop the blocks, in whatever address space, that have instructions in a range of linear addresses: what is hooked
    there has changed."""
    for n in range(ly.HASH_SIZE):
        block = peek64(s[ly.HASH] + 8 * n)
        while block != 0:
            following = peek64(block + 8 * ly.B_HASH_NEXT)
            start = peek64(block + 8 * ly.B_RIP)
            if peek64(block + 8 * ly.B_MODE) & md.CODE64 == 0:
                start = (start + peek64(block + 8 * ly.B_CS_BASE)) & 0xFFFFFFFF
            if (linear - start) & M64 < peek64(block + 8 * ly.B_BYTES) or (start - linear) & M64 < length:
                kill(s, block)
            block = following
    return 0


def unlink_hash(s: State, block: int) -> int:
    """Take a block out of its hash chain."""
    phys = peek64(block + 8 * ly.B_PHYS)
    first = peek64(block + ly.B_SIZE + 8 * rc.R_RIP)  # its RIP: the first record still knows
    where = s[ly.HASH] + 8 * hash_of(phys, first)
    while peek64(where) != 0:
        if peek64(where) == block:
            poke64(where, peek64(block + 8 * ly.B_HASH_NEXT))
            return 0
        where = peek64(where) + 8 * ly.B_HASH_NEXT
    return 0
