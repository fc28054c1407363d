"""ENTER, and the flags that POPF may change (mechanism).

    enter(s, size, frame, level)    size of the operands in bytes, frame in bytes, level already taken modulo 32
    popf(s, image, size)            the popped flags; the caller has checked IOPL in virtual-8086 mode
"""

from __future__ import annotations

from pyemu.cpu import flags as fl
from pyemu.cpu import memory, mode, segments
from pyemu.cpu.state import CPL, FLAGS, GPR, M64, RBP, RSP, STACK_MASK, VALUE, State

# What POPF changes at any privilege; IOPL needs CPL 0 and IF needs CPL <= IOPL (SDM 2, POPF).
POPF_ALWAYS = fl.ARITHMETIC | fl.TF | fl.DF | fl.NT | fl.RF | fl.AC | fl.ID


def popf(s: State, image: int, size: int) -> int:
    """Load the flags that the present privilege may change. RF is cleared; VM, VIF and VIP stay."""
    mask = POPF_ALWAYS
    if s[CPL] == 0:
        mask = mask | fl.IOPL
    if s[CPL] <= (s[FLAGS] >> 12) & 3:
        mask = mask | fl.IF
    if size == 2:
        mask = mask & 0xFFFF
    fl.set_eflags(s, image & ~fl.RF & M64, mask)
    return mode.update(s)


def enter(s: State, size: int, frame: int, level: int) -> int:
    """Push rBP, copy `level - 1` outer frame pointers, push the new one, set rBP to it and reserve `frame` bytes."""
    mask = s[STACK_MASK]
    base = s[GPR + RBP]
    pushed = size
    if segments.stack_write(s, (0 - size) & M64, size, base):
        return 1
    pointer = (s[GPR + RSP] - size) & M64
    for n in range(1, level):
        if segments.linear(s, segments.SS, (base - size * n) & mask, size, memory.READ):
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
    width = mask if size == 8 else (1 << (8 * size)) - 1
    s[GPR + RBP] = pointer & mask if size > 2 else (base & ~width & M64) | (pointer & width)
    return 0
