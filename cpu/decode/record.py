"""A decoded instruction: eight 64-bit words, the same for the reference interpreter and native code.

    word 0  handler address (native code only)      word 4  packed, see below
    word 1  RIP of the instruction                  word 5  byte offsets in State: reg, rm, op, vvvv (16 bits each)
    word 2  imm, sign-extended to 64 bits           word 6  byte offsets: base, index, segment base; scale (0-3)
    word 3  disp, sign-extended                     word 7  imm2 (ENTER, far selector, EXTRQ)

Word 4: form (bits 0-15), length in bytes (16-23), index in its block (24-31), address size in bytes (40-47), flags
(48-55), segment number (56-63). A register operand is a byte offset, so AH is just RAX's offset plus 1. An absent base
or index, and the segment base of a flat segment, point at State[ZERO]. RIP-relative operands have base ZERO and disp =
next RIP + disp. x87 instructions have FOP, the last 11 bits of their opcode, for an immediate. For segment, control
and debug register operands the offset field holds the register's number instead.
"""

from __future__ import annotations

HANDLER, R_RIP, IMM, DISP, PACKED, REGS, ADDRESS, IMM2 = range(8)
WORDS = 8

# fields of PACKED: shift (width 16 for FORM, 8 for the others)
FORM, LENGTH, INDEX, ADDRESS_SIZE, RFLAGS_SHIFT, SEGMENT = 0, 16, 24, 40, 48, 56
# fields of REGS and ADDRESS: shift, 16 bits wide
REG, RM, OP = 0, 16, 32
VVVV = 48  # VEX.vvvv
MASK = OP  # EVEX: the mask register, or State[ONES]
IS4 = OP  # VEX: the register in the immediate's upper half
BASE, INDEX_REG, SEGMENT_BASE, SCALE = 0, 16, 32, 48

# record flags (within their byte)
LOCKED = 1  # LOCK prefix
REPEAT = 2  # REP/REPE, F3
REPEAT_NE = 4  # REPNE, F2
LEGACY = 8  # not 64-bit mode: segment limits and types apply, linear addresses have 32 bits
REX_W = 16
ZEROING = 32  # EVEX.z
ROUNDING_SHIFT = 6  # bits 6-7: embedded rounding
