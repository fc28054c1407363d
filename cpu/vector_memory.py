"""Loads and stores of vectors, whole or element by element under a mask; gathers and scatters. Mechanism subset.

    read(s, linear, size, access)            16, 32 or 64 bytes into State[VECTOR]
    write(s, linear, size, access)           from State[VECTOR], all or nothing
    indexed(...)                             gathers and scatters, under an opmask or under signs
    load(s, at, element, mask, size, access)       `element` bytes for each bit of the mask; the others are 0 in
                                             State[VECTOR]. `size` is that of all if there is no mask, else 0
    store(s, at, element, mask, size, access)      likewise; all or nothing
    compress(s, element, mask)               the elements of State[VECTOR] whose bit is set become the first ones
    expand(s, count, element, mask)          the first elements of `count` get where a bit is set

They return 0, or 1 with a fault raised. Elements that the mask leaves out can't fault; what they hold in State[VECTOR]
after compress and expand means nothing.
"""

from __future__ import annotations

from pyemu.cpu import debug, memory, segments
from pyemu.cpu.faults import GP, raise_fault
from pyemu.cpu.faults import SS as STACK_FAULT
from pyemu.cpu.state import M64, PENDING_DEBUG, SS, STEPPING, VALUE, VECTOR, State

WRITE = memory.WRITE
WHOLE = 16  # alignment of an operand without a mask, where that is checked; of a smaller one, its size
# Bits of `access` beside those of memory.py: outside 64-bit mode addresses are offsets, in this segment.
LEGACY, SEGMENT_AT, PLAIN = 1 << 16, 8, 0xFF


def put(s: State, at: int, size: int, value: int) -> int:
    """Put `size` (1, 2, 4 or 8) bytes at byte `at` of the scratch vector, which holds zeros there."""
    s[VECTOR + (at >> 3)] = s[VECTOR + (at >> 3)] | (value << (8 * (at & 7))) & M64
    return 0


def take(s: State, at: int, size: int) -> int:
    """`size` bytes at byte `at` of the scratch vector."""
    value = s[VECTOR + (at >> 3)] >> (8 * (at & 7))
    return value if size == 8 else value & ((1 << (8 * size)) - 1)


def clear(s: State) -> int:
    """Zeros in the scratch vector."""
    for n in range(8):
        s[VECTOR + n] = 0
    return 0


def read(s: State, linear: int, size: int, access: int) -> int:
    """Load a whole vector; a fault is that of its first byte that can't be read."""
    if memory.probe_aligned(s, linear, size, WHOLE, access):
        return 1
    for n in range(size >> 3):
        if memory.read(s, (linear + 8 * n) & M64, 8, access | memory.ANY_ALIGNMENT):
            return 1
        s[VECTOR + n] = s[VALUE]
    return 0


def write(s: State, linear: int, size: int, access: int) -> int:
    """Store a whole vector."""
    if memory.probe_aligned(s, linear, size, WHOLE, access | WRITE):
        return 1
    for n in range(size >> 3):
        memory.write(s, (linear + 8 * n) & M64, 8, s[VECTOR + n], access | WRITE | memory.ANY_ALIGNMENT)
    return 0


def first_bytes(linear: int, mask: int, element: int) -> int:
    """The size of the selected elements together if they are the lowest ones, and in one page; 0 if they aren't."""
    if mask & (mask + 1) & M64:
        return 0
    size = 0
    while mask != 0:
        size = size + element
        mask = mask >> 1
    return size if (linear & 0xFFF) + size <= 0x1000 else 0


def load_first(s: State, linear: int, size: int, element: int, alignment: int, access: int) -> int:
    """Load the lowest elements, in quadwords as far as that goes."""
    if memory.probe_aligned(s, linear, size, alignment, access):
        return 1
    access = access | memory.ANY_ALIGNMENT
    at = 0
    while at < size:
        step = 8 if size - at >= 8 else element
        if memory.read(s, (linear + at) & M64, step, access):
            return 1
        put(s, at, step, s[VALUE])
        at = at + step
    return 0


def store_first(s: State, linear: int, size: int, element: int, alignment: int, access: int) -> int:
    """Store the lowest elements likewise."""
    access = access | WRITE
    if memory.probe_aligned(s, linear, size, alignment, access):
        return 1
    access = access | memory.ANY_ALIGNMENT
    at = 0
    while at < size:
        step = 8 if size - at >= 8 else element
        memory.write(s, (linear + at) & M64, step, take(s, at, step), access)
        at = at + step
    return 0


def alignment_of(element: int, size: int) -> int:
    """What is checked where alignment is: that of elements under a mask, of all of them (`size`) without."""
    if size == 0:
        return element
    return size if size < WHOLE else WHOLE


def element_linear(s: State, at: int, size: int, access: int) -> int:
    """VALUE = the linear address of an element, or 1 with what its segment has against it."""
    if access & LEGACY:
        segment = (access >> SEGMENT_AT) & 7
        if at >> 32:  # behind the end of what a segment can be, not at its start
            return raise_fault(s, STACK_FAULT if segment == SS else GP, 0)
        return segments.linear(s, segment, at, size, access & WRITE)
    s[VALUE] = at & M64
    return 0


def load(s: State, at: int, element: int, mask: int, size: int, access: int) -> int:
    """Load the elements whose bit is set."""
    clear(s)
    alignment = alignment_of(element, size)
    if size == 0 and access & LEGACY == 0:
        size = first_bytes(at, mask, element)
    if size != 0:
        if element_linear(s, at, size, access):
            return 1
        return load_first(s, s[VALUE], size, element, alignment, access & PLAIN)
    to = 0
    while mask != 0:
        if mask & 1:
            if element_linear(s, at + to, element, access) or memory.read(s, s[VALUE], element, access & PLAIN):
                return 1
            put(s, to, element, s[VALUE])
        to = to + element
        mask = mask >> 1
    return 0


def probe_elements(s: State, at: int, element: int, mask: int, size: int, access: int) -> int:
    """Check that store() may store."""
    access = access | WRITE
    if size != 0:
        if element_linear(s, at, size, access):
            return 1
        return memory.probe_aligned(s, s[VALUE], size, alignment_of(element, size), access & PLAIN)
    while mask != 0:
        if mask & 1:
            if element_linear(s, at, element, access):
                return 1
            if memory.probe_aligned(s, s[VALUE], element, element, access & PLAIN):
                return 1
        at = at + element
        mask = mask >> 1
    return 0


def store(s: State, at: int, element: int, mask: int, size: int, access: int) -> int:
    """Store the elements whose bit is set: first all are checked."""
    access = access | WRITE
    alignment = alignment_of(element, size)
    if size == 0 and access & LEGACY == 0:
        size = first_bytes(at, mask, element)
    if size != 0:
        if element_linear(s, at, size, access):
            return 1
        return store_first(s, s[VALUE], size, element, alignment, access & PLAIN)
    if probe_elements(s, at, element, mask, 0, access):
        return 1
    done = 0
    while mask != 0:
        if mask & 1:
            element_linear(s, at + done, element, access)
            memory.write(s, s[VALUE], element, take(s, done, element), access & PLAIN)
        done = done + element
        mask = mask >> 1
    return 0


def replace(s: State, at: int, size: int, value: int) -> int:
    """Replace `size` bytes at byte `at` of the scratch vector."""
    ones = M64 if size == 8 else ((1 << (8 * size)) - 1) << (8 * (at & 7))
    s[VECTOR + (at >> 3)] = s[VECTOR + (at >> 3)] & ~ones | value << (8 * (at & 7))
    return 0


def compress(s: State, element: int, mask: int) -> int:
    """VPCOMPRESS: elements move down, over those that have moved already."""
    at = 0
    to = 0
    while mask != 0:
        if mask & 1:
            replace(s, to, element, take(s, at, element))
            to = to + element
        at = at + element
        mask = mask >> 1
    return 0


def expand(s: State, count: int, element: int, mask: int) -> int:
    """VPEXPAND: elements move up, the last one first."""
    at = 0
    for n in range(count):
        at = at + element * ((mask >> n) & 1)
    for n in range(count - 1, -1, -1):
        if (mask >> n) & 1:
            at = at - element
            replace(s, n * element, element, take(s, at, element))
    return 0


# ---- gathers and scatters (SDM 2, VPGATHERDD and VPSCATTERDD) ------------------------------------------------------
# `how`: what the form says and where the address is.
HOW_ELEMENT, HOW_INDEX, HOW_COUNT = 0, 8, 16  # bytes of an element and of an index, number of elements (8 bits each)
HOW_SCALE, HOW_ADDRESS, HOW_SEGMENT = 24, 32, 40  # the shift, address size in bytes, segment number
HOW_LEGACY, HOW_STORE, HOW_SIGNS = 1 << 48, 1 << 49, 1 << 50  # segments are checked; a scatter; AVX2's mask of signs
HOW_VECTOR = 56  # bytes of the vector, if the first element that arrives clears what is above, as on Zen 4


def register_part(s: State, offset: int, size: int) -> int:
    """`size` (4 or 8) bytes of State at a byte offset that is a multiple of it."""
    value = s[offset >> 3] >> (8 * (offset & 7))
    return value if size == 8 else value & 0xFFFFFFFF


def set_register_part(s: State, offset: int, size: int, value: int) -> int:
    """The reverse."""
    if size == 8:
        s[offset >> 3] = value
    else:
        shift = 8 * (offset & 7)
        s[offset >> 3] = s[offset >> 3] & ~(0xFFFFFFFF << shift) | (value & 0xFFFFFFFF) << shift
    return 0


def element_address(s: State, origin: int, index: int, n: int, how: int, base: int) -> int:
    """VALUE = the linear address of element n; nonzero with a fault raised."""
    size = (how >> HOW_INDEX) & 0xFF
    number = register_part(s, index + n * size, size)
    if size == 4:
        number = ((number ^ 0x80000000) - 0x80000000) & M64
    offset = (origin + (number << ((how >> HOW_SCALE) & 3))) & M64
    if (how >> HOW_ADDRESS) & 0xFF == 4:
        offset = offset & 0xFFFFFFFF
    if how & HOW_LEGACY:
        access = memory.WRITE if how & HOW_STORE else memory.READ
        return segments.linear(s, (how >> HOW_SEGMENT) & 0xFF, offset, (how >> HOW_ELEMENT) & 0xFF, access)
    s[VALUE] = (offset + base) & M64
    return 0


def transfer(s: State, linear: int, register: int, how: int, access: int) -> int:
    """One element from memory into the register, or back."""
    size = (how >> HOW_ELEMENT) & 0xFF
    if how & HOW_STORE:
        return memory.write(s, linear, size, register_part(s, register, size), access | WRITE)
    if memory.read(s, linear, size, access):
        return 1
    return set_register_part(s, register, size, s[VALUE])


def selected(s: State, mask: int, n: int, how: int) -> int:
    """Is element n to be transferred: by its bit in an opmask, or its sign in a vector?"""
    if how & HOW_SIGNS == 0:
        return s[mask >> 3] >> n & 1
    size = (how >> HOW_ELEMENT) & 0xFF
    return register_part(s, mask + n * size, size) >> (8 * size - 1)


def done(s: State, mask: int, n: int, how: int) -> int:
    """Note in the mask that element n needs nothing more."""
    if how & HOW_SIGNS == 0:
        s[mask >> 3] = s[mask >> 3] & ~(1 << n)
        return 0
    size = (how >> HOW_ELEMENT) & 0xFF
    return set_register_part(s, mask + n * size, size, 0)


def interrupted(s: State, moved: int) -> int:
    """An element has faulted: 1. If others were transferred before, their traps are delivered in place of the fault,
    which comes when the instruction goes on (SDM 2, VPGATHERDD); without RF, as on Zen 4."""
    if moved and s[STEPPING] | s[PENDING_DEBUG]:
        debug.completed(s, 0)
    return 1


def indexed(s: State, register: int, index: int, mask: int, origin: int, base: int, how: int, access: int) -> int:
    """A gather or scatter under a mask. What is done before a fault stays, and the mask says what.
    Elements may lie anywhere even where alignment is checked, as on Zen 4."""
    access = access | memory.ANY_ALIGNMENT
    size = (how >> HOW_ELEMENT) & 0xFF
    moved = 0
    for n in range((how >> HOW_COUNT) & 0xFF):
        if selected(s, mask, n, how):
            if element_address(s, origin, index, n, how, base):
                return interrupted(s, moved)
            if transfer(s, s[VALUE], register + n * size, how, access):
                return interrupted(s, moved)
            moved = 1
            if how >> HOW_VECTOR:
                clear_above(s, register, how >> HOW_VECTOR)
        done(s, mask, n, how)
    if how & HOW_SIGNS:
        return clear_above(s, mask, 0)
    s[mask >> 3] = 0
    return 0


def clear_above(s: State, register: int, size: int) -> int:
    """Zero a vector register from byte `size` (a multiple of 8) on."""
    for n in range(size >> 3, 8):
        s[(register >> 3) + n] = 0
    return 0
