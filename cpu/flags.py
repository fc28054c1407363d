"""The arithmetic flags, which are lazy: two words say all six, without an operation code.

CC_DST ("result"): ZF is result == 0; SF starts as its top bit; PF starts as even parity of its low byte. Results
narrower
than 64 bits are sign-extended. CC_SRC ("carry word"): CF and AF at their places in RFLAGS (SDM 1, 3.4.3), OF at
CARRY_OF, which is where LAHF and SETO leave them; its bits at the places of PF and SF invert them, so that any
combination of flags can be written down: result 0 or 1, the rest in the word.
A writer stores two values, a reader needs one or two operations, and nobody has to know who wrote last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyemu.cpu.state import CC_DST, CC_SRC, FLAGS, ICOUNT, RF_COUNT, State

if TYPE_CHECKING:
    from pyemu.cpu.instruction import Instruction
    from pyemu.cpu.values import Value

CF, PF, AF, ZF, SF, OF = 1 << 0, 1 << 2, 1 << 4, 1 << 6, 1 << 7, 1 << 11
CARRY_OF = 1 << 8  # in the carry word
OF_SHIFT = 3  # from there to OF
TF, IF, DF, IOPL, NT, RF, VM, AC, VIF, VIP, ID = (
    1 << 8, 1 << 9, 1 << 10, 3 << 12, 1 << 14, 1 << 16, 1 << 17, 1 << 18, 1 << 19, 1 << 20, 1 << 21,
)  # fmt: skip
ARITHMETIC = CF | PF | AF | ZF | SF | OF


# ---- mechanism: both in Python and native -------------------------------------------------------------
def parity_even(value: int) -> int:
    """1 if the low byte has an even number of one bits."""
    x = value ^ (value >> 4)
    return (0x9669 >> (x & 15)) & 1


def eflags(s: State) -> int:
    """RFLAGS, all of it. RF counts only for the instruction that it was set for."""
    result = s[CC_DST]
    word = s[CC_SRC] & (CF | PF | AF | SF)
    word = word | (s[CC_SRC] & CARRY_OF) << OF_SHIFT
    word = word ^ (parity_even(result) << 2) ^ ((result >> 63) << 7)
    if result == 0:
        word = word | ZF
    if s[RF_COUNT] != s[ICOUNT]:
        return (s[FLAGS] & ~(ARITHMETIC | RF)) | word | 2
    return (s[FLAGS] & ~ARITHMETIC) | word | 2


def set_arithmetic(s: State, value: int) -> int:
    """Set the six arithmetic flags from an RFLAGS image."""
    word = (value & (CF | PF | AF | SF)) | (value & OF) >> OF_SHIFT
    if value & ZF:
        s[CC_DST] = 0  # even parity, sign 0
        s[CC_SRC] = word ^ PF
    else:
        s[CC_DST] = 1  # odd parity, sign 0
        s[CC_SRC] = word
    return 0


def set_eflags(s: State, value: int, mask: int) -> int:
    """Replace the bits of RFLAGS selected by `mask`."""
    new = (eflags(s) & ~mask) | (value & mask)
    set_arithmetic(s, new)
    s[FLAGS] = (new & ~ARITHMETIC) | 2
    return 0


# ---- for semantics: in terms of values -------------------------------------------------------------------
def place(bit: Value, mask: int) -> Value:
    """A width-1 value at the position of a flag, as 64 bits."""
    return bit.zext(64) << (mask.bit_length() - 1)


def parity(i: Instruction) -> Value:
    """PF as width 1."""
    x = i.state(CC_DST).trunc(8)
    return ~(x.ctpop().trunc(1)) ^ i.state(CC_SRC).bit(2)


def sign(i: Instruction) -> Value:
    """SF."""
    return i.state(CC_DST).sign() ^ i.state(CC_SRC).bit(7)


def condition(i: Instruction, code: int) -> Value:
    """The condition of Jcc/SETcc/CMOVcc number `code` (SDM 1, appendix B), as width 1."""
    match code >> 1:
        case 0:
            value = i.of()
        case 1:
            value = i.cf()
        case 2:
            value = i.zf()
        case 3:
            value = i.cf() | i.zf()
        case 4:
            value = i.sf()
        case 5:
            value = i.pf()
        case 6:
            value = i.sf() ^ i.of()
        case _:
            value = (i.sf() ^ i.of()) | i.zf()
    return ~value if code & 1 else value


def image(i: Instruction) -> Value:
    """RFLAGS as 64 bits, all of it."""
    result, word = i.state(CC_DST), i.state(CC_SRC)
    word = (word & (CF | AF)) | ((word & CARRY_OF) << OF_SHIFT)
    word = word | place(parity(i), PF) | place(result.eq(0), ZF) | place(sign(i), SF)
    return word | (i.state(FLAGS) & ~ARITHMETIC) | 2
