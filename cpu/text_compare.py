"""SSE4.2's string comparison (SDM 2, 4.1, "Imm8 control byte operation") and CRC32C (mechanism).

compare(s, a_low, a_high, b_low, b_high, length_a, length_b, control)
    VALUE = IntRes2; VALUE + 1 = bit 0: the first operand ends early, bit 1: the second does
implicit_length(low, high, control), explicit_length(value, control)      valid elements
crc32c(s, crc, value, size) -> VALUE
"""

from __future__ import annotations

from array import array

from pyemu.cpu.primitives import sext
from pyemu.cpu.state import M64, VALUE, State

# The control byte.
WORDS, SIGNED = 1, 2
EQUAL_ANY, RANGES, EQUAL_EACH, EQUAL_ORDERED = 0, 1, 2, 3  # bits 3-2
NEGATE, NEGATE_VALID = 1, 3  # bits 5-4; other values leave the result

SIGN = 1 << 63


def element_count(control: int) -> int:
    """Elements in a register."""
    return 8 if control & WORDS else 16


def element(low: int, high: int, n: int, control: int) -> int:
    """Element n; signed ones are moved to unsigned numbers of the same order."""
    bits = 16 if control & WORDS else 8
    at = n * bits
    x = high if at >= 64 else low
    x = (x >> (at & 63)) & ((1 << bits) - 1)
    if control & SIGNED:
        return (sext(x, 16) if control & WORDS else sext(x, 8)) ^ SIGN
    return x


def implicit_length(low: int, high: int, control: int) -> int:
    """Elements before the first that is 0."""
    count = element_count(control)
    unsigned = control & WORDS
    for n in range(count):
        if element(low, high, n, unsigned) == 0:
            return n
    return count


def explicit_length(value: int, control: int) -> int:
    """The absolute value of a signed number, at most the number of elements."""
    length = (0 - value) & M64 if value & SIGN else value
    count = element_count(control)
    return length if length < count else count


def matches_any(x: int, low: int, high: int, length: int, control: int) -> int:
    """1 if x is one of the elements."""
    for n in range(length):
        if element(low, high, n, control) == x:
            return 1
    return 0


def matches_range(x: int, low: int, high: int, length: int, control: int) -> int:
    """1 if x lies in one of the ranges that pairs of elements give; a last element without partner is none."""
    for n in range(1, length, 2):
        if element(low, high, n - 1, control) <= x and x <= element(low, high, n, control):
            return 1
    return 0


def result_bit(
    n: int, a_low: int, a_high: int, b_low: int, b_high: int, length_a: int, length_b: int, control: int
) -> int:
    """Bit n of IntRes1."""
    kind = (control >> 2) & 3
    if kind == EQUAL_EACH:
        if n >= length_a or n >= length_b:
            return 1 if n >= length_a and n >= length_b else 0
        return 1 if element(a_low, a_high, n, control) == element(b_low, b_high, n, control) else 0
    if kind == EQUAL_ORDERED:
        for k in range(length_a):
            if n + k >= element_count(control):
                return 1
            if n + k >= length_b:
                return 0
            if element(a_low, a_high, k, control) != element(b_low, b_high, n + k, control):
                return 0
        return 1
    if n >= length_b:
        return 0
    x = element(b_low, b_high, n, control)
    if kind == RANGES:
        return matches_range(x, a_low, a_high, length_a, control)
    return matches_any(x, a_low, a_high, length_a, control)


def compare(
    s: State, a_low: int, a_high: int, b_low: int, b_high: int, length_a: int, length_b: int, control: int
) -> int:
    """IntRes2 and which operands end early, into VALUE."""
    count = element_count(control)
    result = 0
    for n in range(count):
        result = result | result_bit(n, a_low, a_high, b_low, b_high, length_a, length_b, control) << n
    polarity = (control >> 4) & 3
    if polarity == NEGATE:
        result = result ^ ((1 << count) - 1)
    elif polarity == NEGATE_VALID:
        result = result ^ ((1 << length_b) - 1)
    s[VALUE] = result
    s[VALUE + 1] = (1 if length_a < count else 0) | (2 if length_b < count else 0)
    return 0


def compare_implicit(s: State, a_low: int, a_high: int, b_low: int, b_high: int, control: int) -> int:
    """PCMPISTRI and PCMPISTRM: strings end at a 0."""
    length_a = implicit_length(a_low, a_high, control)
    length_b = implicit_length(b_low, b_high, control)
    return compare(s, a_low, a_high, b_low, b_high, length_a, length_b, control)


def compare_explicit(
    s: State, a_low: int, a_high: int, b_low: int, b_high: int, rax: int, rdx: int, control: int
) -> int:
    """PCMPESTRI and PCMPESTRM: lengths are in the sign-extended rAX and rDX."""
    length_a = explicit_length(rax, control)
    length_b = explicit_length(rdx, control)
    return compare(s, a_low, a_high, b_low, b_high, length_a, length_b, control)


# ---- CRC32 ---------------------------------------------------------------------------------------------------
CRC32C_POLYNOMIAL = 0x82F63B78  # 11EDC6F41 without its top bit, reflected


def _crc_table() -> array[int]:
    """What each byte does to the remainder."""
    table = array("Q", [0]) * 256
    for n in range(256):
        remainder = n
        for _ in range(8):
            remainder = remainder >> 1 ^ (CRC32C_POLYNOMIAL if remainder & 1 else 0)
        table[n] = remainder
    return table


CRC_TABLE = _crc_table()


def crc32c(s: State, crc: int, value: int, size: int) -> int:
    """Accumulate `size` bytes of `value`, lowest first, into VALUE."""
    crc = crc & 0xFFFFFFFF
    for n in range(size):
        crc = CRC_TABLE[(crc ^ (value >> (8 * n))) & 0xFF] ^ (crc >> 8)
    s[VALUE] = crc
    return 0
