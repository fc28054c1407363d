"""Loads and stores of vectors, whole or element by element under a mask; gathers and scatters. Mechanism subset.

    read(s, linear, size, access)            16, 32 or 64 bytes into State[VECTOR]
    write(s, linear, size, access)           from State[VECTOR], all or nothing
    load(s, linear, element, mask, access)   `element` bytes for each bit of the mask; the others are 0 in State[VECTOR]
    store(s, linear, element, mask, access)  all or nothing

They return 0, or 1 with a fault raised. Elements that the mask leaves out can't fault.
"""

from __future__ import annotations

from pyemu.cpu import memory
from pyemu.cpu.state import M64, VALUE, VECTOR, State

WRITE = memory.WRITE


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
    if memory.probe(s, linear, size, access):
        return 1
    for n in range(size >> 3):
        if memory.read(s, (linear + 8 * n) & M64, 8, access):
            return 1
        s[VECTOR + n] = s[VALUE]
    return 0


def write(s: State, linear: int, size: int, access: int) -> int:
    """Store a whole vector."""
    if memory.probe(s, linear, size, access | WRITE):
        return 1
    for n in range(size >> 3):
        memory.write(s, (linear + 8 * n) & M64, 8, s[VECTOR + n], access | WRITE)
    return 0


def load(s: State, linear: int, element: int, mask: int, access: int) -> int:
    """Load the elements whose bit is set."""
    clear(s)
    at = 0
    while mask != 0:
        if mask & 1:
            if memory.read(s, (linear + at) & M64, element, access):
                return 1
            put(s, at, element, s[VALUE])
        at = at + element
        mask = mask >> 1
    return 0


def store(s: State, linear: int, element: int, mask: int, access: int) -> int:
    """Store the elements whose bit is set: first all are checked."""
    at = 0
    rest = mask
    while rest != 0:
        if rest & 1:
            if memory.probe(s, (linear + at) & M64, element, access | WRITE):
                return 1
        at = at + element
        rest = rest >> 1
    at = 0
    while mask != 0:
        if mask & 1:
            memory.write(s, (linear + at) & M64, element, take(s, at, element), access | WRITE)
        at = at + element
        mask = mask >> 1
    return 0
