"""ENTER (mechanism)."""

from __future__ import annotations

from pyemu.cpu import memory, segments
from pyemu.cpu.state import GPR, M64, RBP, RSP, SS, STACK_MASK, VALUE, State


def enter(s: State, size: int, frame: int, level: int) -> int:
    """Push rBP, copy `level - 1` outer frame pointers, push the new one, set rBP to it and reserve `frame` bytes.
    `size` is that of the operands in bytes, `level` already modulo 32."""
    mask = s[STACK_MASK]
    base = s[GPR + RBP]
    pushed = size
    if segments.stack_write(s, (0 - size) & M64, size, base):
        return 1
    pointer = (s[GPR + RSP] & ~mask & M64) | ((s[GPR + RSP] - size) & mask)  # with the upper half of ESP, as Zen 4
    for n in range(1, level):
        if segments.linear(s, SS, (base - size * n) & mask, size, memory.READ):
            return 1
        if memory.read(s, s[VALUE], size, memory.STACK):
            return 1
        pushed = pushed + size
        if segments.stack_write(s, (0 - pushed) & M64, size, s[VALUE]):
            return 1
    if level:
        pushed = pushed + size
        if segments.stack_write(s, (0 - pushed) & M64, size, pointer):
            return 1
    if segments.stack_probe(s, (0 - pushed - frame) & M64, size):
        return 1
    segments.move_stack(s, (0 - pushed - frame) & M64)
    s[GPR + RBP] = pointer if size > 2 else (base & ~0xFFFF & M64) | (pointer & 0xFFFF)
    return 0
