"""String instructions, with and without REP: MOVS STOS LODS CMPS SCAS INS OUTS.

    movs(s, packed, size)   stos   lods   cmps   scas   ins   outs        all alike

`packed` is the record's word PACKED (flags REPEAT and REPEAT_NE, address size, segment), `size` the element's bytes: 1,
2, 4 or 8. Returns nonzero after a fault. State[VALUE] is then 1 if the instruction has to be continued (ICOUNT_LIMIT
reached, EXIT_REQUEST seen, single-stepped or a data breakpoint hit: RIP must stay on it) and 0 when it is done.
Registers, flags and memory are those after the last complete iteration, also after a fault. INS and OUTS: the caller
has checked the I/O permission of DX before.

Counting: one iteration is one instruction. The caller accounts for one, these functions add the others to ICOUNT (a
faulting iteration counts nothing, and its caller counts nothing for it either).
"""

from __future__ import annotations

from pyemu.cpu import debug, memory, mode, physical, ports, segments, tlb
from pyemu.cpu.decode import record as rc
from pyemu.cpu.flags import AF, CARRY_OF, CF, DF
from pyemu.cpu.primitives import ram_copy, ram_fill
from pyemu.cpu.state import (
    CC_DST,
    CC_SRC,
    ES,
    EXIT_REQUEST,
    FAULT_VECTOR,
    FLAGS,
    GPR,
    ICOUNT,
    ICOUNT_LIMIT,
    M64,
    MMU,
    MODE,
    NO_FAULT,
    NO_PAGE,
    PENDING_DEBUG,
    RAM_BASE,
    RAX,
    RCX,
    RDI,
    RDX,
    RSI,
    VALUE,
    State,
)

MOVS, STOS, LODS, CMPS, SCAS, INS, OUTS = 0, 1, 2, 3, 4, 5, 6
MOST = 1 << 32  # more iterations than this are never done at a time
REPEATED = (rc.REPEAT | rc.REPEAT_NE) << rc.RFLAGS_SHIFT


def address_mask(packed: int) -> int:
    """The bits of RSI, RDI and RCX that the address size uses."""
    size = (packed >> rc.ADDRESS_SIZE) & 0xFF
    if size == 8:
        return M64
    return (1 << (8 * size)) - 1


def value_mask(size: int) -> int:
    """The bits of an element."""
    return M64 >> (64 - 8 * size)


def advance(s: State, register: int, amount: int, mask: int) -> int:
    """Add to RSI, RDI or RCX at the address size: 32 bits zero-extend, 16 bits leave the rest alone."""
    new = (s[GPR + register] + amount) & mask
    if mask == 0xFFFF:
        new = new | (s[GPR + register] & ~mask)
    s[GPR + register] = new
    return 0


def source(s: State, packed: int, size: int, mask: int) -> int:
    """Linear address of the source element, in VALUE; 1 after a fault."""
    return segments.linear(s, (packed >> rc.SEGMENT) & 0xFF, s[GPR + RSI] & mask, size, memory.READ)


def destination(s: State, size: int, access: int, mask: int) -> int:
    """Linear address of the destination element, in VALUE; 1 after a fault. It is in ES always."""
    return segments.linear(s, ES, s[GPR + RDI] & mask, size, access)


def load_source(s: State, packed: int, size: int, mask: int) -> int:
    """Read the source element into VALUE."""
    if source(s, packed, size, mask):
        return 1
    return memory.read(s, s[VALUE], size, memory.READ)


def compare(s: State, a: int, b: int, size: int) -> int:
    """The flags of a - b."""
    result = (a - b) & value_mask(size)
    sign = 1 << (8 * size - 1)
    word = (a ^ b ^ result) & AF
    if a < b:
        word = word | CF
    if (a ^ b) & (a ^ result) & sign:
        word = word | CARRY_OF
    s[CC_DST] = ((result ^ sign) - sign) & M64
    s[CC_SRC] = word
    return 0


def store_destination(s: State, size: int, value: int, mask: int) -> int:
    """Write the destination element."""
    if destination(s, size, memory.WRITE, mask):
        return 1
    return memory.write(s, s[VALUE], size, value, memory.WRITE)


def load_destination(s: State, size: int, mask: int) -> int:
    """Read the destination element, for the comparing instructions, into VALUE."""
    if destination(s, size, memory.READ, mask):
        return 1
    return memory.read(s, s[VALUE], size, memory.READ)


def element(s: State, kind: int, packed: int, size: int, mask: int) -> int:
    """One iteration without the counting: 0, or 1 with a fault raised and nothing changed."""
    amount = size
    if s[FLAGS] & DF:
        amount = (0 - size) & M64
    value = s[GPR + RAX] & value_mask(size)
    second = 0
    if kind == CMPS:  # ES:DI is read first, as on Zen 4: a fault there is the one that is seen
        if load_destination(s, size, mask):
            return 1
        second = s[VALUE]
    if kind == MOVS or kind == LODS or kind == CMPS or kind == OUTS:
        if load_source(s, packed, size, mask):
            return 1
        value = s[VALUE]
    if kind == INS:
        if destination(s, size, memory.WRITE, mask):
            return 1
        if memory.probe(s, s[VALUE], size, memory.WRITE):
            return 1
        value = ports.read(s, s[GPR + RDX] & 0xFFFF, size)
    if kind == MOVS or kind == STOS or kind == INS:
        if store_destination(s, size, value, mask):
            return 1
    elif kind == CMPS:
        compare(s, value, second, size)
    elif kind == SCAS:
        if load_destination(s, size, mask):
            return 1
        compare(s, value, s[VALUE], size)
    elif kind == OUTS:
        ports.write(s, s[GPR + RDX] & 0xFFFF, size, value)
    elif size == 4:
        s[GPR + RAX] = value
    else:
        s[GPR + RAX] = (s[GPR + RAX] & ~value_mask(size)) | value
    if kind != STOS and kind != SCAS and kind != INS:
        advance(s, RSI, amount, mask)
    if kind != LODS and kind != OUTS:
        advance(s, RDI, amount, mask)
    return 0


# ---- bulk: many iterations of REP MOVS and REP STOS at once -----------------------------------------------------
def within_page(linear: int, size: int, count: int) -> int:
    """How many of `count` elements lie entirely in the page of `linear`."""
    fit = (0x1000 - (linear & 0xFFF)) // size
    return count if count < fit else fit


def before_wrap(offset: int, size: int, count: int, mask: int) -> int:
    """How many of `count` elements lie before the end of the address space of the address size."""
    fit = (mask - offset) // size  # one too careful, so that it can't overflow
    return count if count < fit else fit


def page_of(s: State, linear: int, access: int) -> int:
    """Physical address of plain memory that may be accessed up to the page's end, or NO_PAGE. A fault is forgotten:
    the element by element path will meet it again, at the right place."""
    e = tlb.entry(linear, s[MMU])
    if s[e + access] == linear & tlb.PAGE:  # what generated code checks: no flags, so neither MMIO nor translated code
        plain: int = (linear + s[e + tlb.ADDEND] - s[RAM_BASE]) & M64
        return plain
    address = memory.ram_page(s, linear, access)
    s[FAULT_VECTOR] = NO_FAULT
    return address


def in_segment(s: State, segment: int, offset: int, length: int, access: int) -> int:
    """1 if all of a range lies within its segment; in 64-bit mode there is nothing to check."""
    if s[MODE] & mode.CODE64:
        return 1
    if segments.linear(s, segment, offset, length, access):
        s[FAULT_VECTOR] = NO_FAULT  # somewhere in the range, not necessarily at its start
        return 0
    return 1


def bulk_stos(s: State, size: int, count: int, mask: int) -> int:
    """Store up to `count` elements; returns how many."""
    offset = s[GPR + RDI] & mask
    if destination(s, size, memory.WRITE, mask):
        s[FAULT_VECTOR] = NO_FAULT
        return 0
    linear = s[VALUE]
    count = before_wrap(offset, size, within_page(linear, size, count), mask)
    if count < 2 or not in_segment(s, ES, offset, size * count, memory.WRITE):
        return 0
    where = page_of(s, linear, memory.WRITE)
    if where == NO_PAGE:
        return 0
    length = size * count
    physical.writable(s, where, length)
    value = s[GPR + RAX] & value_mask(size)
    byte = value & 0xFF
    if value == byte * 0x0101010101010101 & value_mask(size):
        ram_fill(s, where, byte, length)
    else:
        for n in range(count):
            physical.ram_write(s, where + n * size, size, value)
    advance(s, RDI, length, mask)
    return count


def bulk_movs(s: State, packed: int, size: int, count: int, mask: int) -> int:
    """Copy up to `count` elements; returns how many."""
    from_offset = s[GPR + RSI] & mask
    to_offset = s[GPR + RDI] & mask
    if source(s, packed, size, mask):
        s[FAULT_VECTOR] = NO_FAULT
        return 0
    from_linear = s[VALUE]
    count = before_wrap(from_offset, size, within_page(from_linear, size, count), mask)
    if destination(s, size, memory.WRITE, mask):
        s[FAULT_VECTOR] = NO_FAULT
        return 0
    to_linear = s[VALUE]
    count = before_wrap(to_offset, size, within_page(to_linear, size, count), mask)
    if count < 2:
        return 0
    if not in_segment(s, (packed >> rc.SEGMENT) & 0xFF, from_offset, size * count, memory.READ):
        return 0
    if not in_segment(s, ES, to_offset, size * count, memory.WRITE):
        return 0
    origin = page_of(s, from_linear, memory.READ)
    if origin == NO_PAGE:
        return 0
    where = page_of(s, to_linear, memory.WRITE)
    if where == NO_PAGE:
        return 0
    distance = where - origin if where > origin else origin - where
    if distance == 0:
        return 0
    if distance < size * count:  # they overlap: as many as do not
        count = distance // size
        if count < 2:
            return 0
    physical.writable(s, where, size * count)
    ram_copy(s, where, origin, size * count)
    advance(s, RSI, size * count, mask)
    advance(s, RDI, size * count, mask)
    return count


def iterations(s: State, kind: int, packed: int, size: int, count: int, mask: int) -> int:
    """Up to `count` iterations: how many were made; 0 after a fault. MOVS and STOS of plain memory go in bulk."""
    made = 0
    if count > 1 and not s[FLAGS] & DF:
        if kind == MOVS:
            made = bulk_movs(s, packed, size, count, mask)
        elif kind == STOS:
            made = bulk_stos(s, size, count, mask)
    if made == 0:
        if element(s, kind, packed, size, mask):
            return 0
        made = 1
    return made


def account(s: State, extra: int) -> int:
    """Count instructions that the caller doesn't know of."""
    s[ICOUNT] = s[ICOUNT] + extra
    return 0


def repeat(s: State, kind: int, packed: int, size: int, mask: int) -> int:
    """The instruction with a REP prefix."""
    allowed = (s[ICOUNT_LIMIT] - s[ICOUNT]) & M64
    if allowed > MOST:
        allowed = MOST
    if s[MODE] & mode.TRAP:
        allowed = 1  # #DB comes after each iteration
    done = 0
    while s[GPR + RCX] & mask:
        left = s[GPR + RCX] & mask
        if left > allowed - done:
            left = allowed - done
        made = iterations(s, kind, packed, size, left, mask)
        if made == 0:
            account(s, done)
            return 1
        done = done + made
        advance(s, RCX, (0 - made) & M64, mask)
        if kind == CMPS or kind == SCAS:
            equal = 1 if s[CC_DST] == 0 else 0
            if equal != (packed >> rc.RFLAGS_SHIFT & rc.REPEAT) // rc.REPEAT:
                break
        if (done >= allowed or s[EXIT_REQUEST] or s[PENDING_DEBUG]) and s[GPR + RCX] & mask:
            account(s, done - 1)
            if s[PENDING_DEBUG] == 0 and s[MODE] & mode.TRAP == 0:
                debug.set_resume(s, s[ICOUNT] + 1)  # for an interrupt (SDM 3, 18.3.1.1); a trap finds none on Zen 4
            s[VALUE] = 1
            return 0
    if done > 1:
        account(s, done - 1)
    s[VALUE] = 0
    return 0


def execute(s: State, kind: int, packed: int, size: int) -> int:
    """Any of them."""
    mask = address_mask(packed)
    if packed & REPEATED:
        return repeat(s, kind, packed, size, mask)
    if element(s, kind, packed, size, mask):
        return 1
    s[VALUE] = 0
    return 0


# ---- what the rows call --------------------------------------------------------------------------------------------
def movs(s: State, packed: int, size: int) -> int:
    """[ES:RDI] = [RSI]."""
    return execute(s, MOVS, packed, size)


def stos(s: State, packed: int, size: int) -> int:
    """[ES:RDI] = RAX."""
    return execute(s, STOS, packed, size)


def lods(s: State, packed: int, size: int) -> int:
    """RAX = [RSI]."""
    return execute(s, LODS, packed, size)


def cmps(s: State, packed: int, size: int) -> int:
    """Flags of [RSI] - [ES:RDI]."""
    return execute(s, CMPS, packed, size)


def scas(s: State, packed: int, size: int) -> int:
    """Flags of RAX - [ES:RDI]."""
    return execute(s, SCAS, packed, size)


def ins(s: State, packed: int, size: int) -> int:
    """[ES:RDI] = port DX."""
    return execute(s, INS, packed, size)


def outs(s: State, packed: int, size: int) -> int:
    """Port DX = [RSI]."""
    return execute(s, OUTS, packed, size)
