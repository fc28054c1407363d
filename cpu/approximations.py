"""RCPSS and RSQRTSS (mechanism): of one single-precision number, to 12 bits, as Zen 4 has them.

reciprocal(s, bits) -> VALUE    reciprocal_root(s, bits) -> VALUE

There are no exceptions, and MXCSR has no influence: denormals are always zeros (SDM 2, RCPPS and RSQRTPS).
"""

from __future__ import annotations

from pyemu.cpu.approximation_tables import INDEX_SHIFT, RECIPROCAL, ROOT
from pyemu.cpu.state import VALUE, State

SIGN, INFINITY, FRACTION, QUIET_BIT = 1 << 31, 0xFF << 23, (1 << 23) - 1, 1 << 22
FRACTION_BITS = 23
BIAS = 127
INDEFINITE = SIGN | INFINITY | QUIET_BIT
ROWS = 1 << 12


def reciprocal(s: State, bits: int) -> int:
    """1 / x."""
    sign = bits & SIGN
    exponent = bits & INFINITY
    fraction = bits & FRACTION
    s[VALUE] = sign
    if exponent == INFINITY:
        if fraction:
            s[VALUE] = bits | QUIET_BIT
    elif exponent == 0:
        s[VALUE] = sign | INFINITY
    elif exponent >> FRACTION_BITS < 2 * BIAS - 1:  # what would be denormal is zero
        field = 2 * BIAS - 1 - (exponent >> FRACTION_BITS)
        s[VALUE] = sign | field << FRACTION_BITS | RECIPROCAL[fraction >> INDEX_SHIFT]
    return 0


def reciprocal_root(s: State, bits: int) -> int:
    """1 / sqrt(x)."""
    exponent = bits & INFINITY
    fraction = bits & FRACTION
    s[VALUE] = 0
    if exponent == INFINITY and fraction:
        s[VALUE] = bits | QUIET_BIT
    elif exponent == 0:
        s[VALUE] = bits & SIGN | INFINITY
    elif bits & SIGN:
        s[VALUE] = INDEFINITE
    elif exponent != INFINITY:
        field = exponent >> FRACTION_BITS
        row = ROWS * (field & 1) + (fraction >> INDEX_SHIFT)
        s[VALUE] = (3 * BIAS - 1 - field) >> 1 << FRACTION_BITS | ROOT[row]
    return 0
