"""VRCP14 and VRSQRT14 of one number (mechanism), as Zen 4 has them.

RECIPROCAL_14[width], RECIPROCAL_ROOT_14[width]    functions (s, bits) -> VALUE, of 32 or 64 bits

The architecture allows a relative error of 2**-14 and leaves the rest open. AMD's Zen 4 interpolates between 64 points:
of the operand's fraction the first bits choose a row, the next 10 are multiplied with the row's slope, and 16 bits of
the difference to the row's base are the result's fraction. The rows were found by solving for them with the results for
all operands; they give each of those. Powers of two are exact. Denormal operands count unless DAZ is set, denormal
results unless FTZ is, underflow masked or not; there are no exceptions (SDM 2, VRCP14PS and VRSQRT14PS).
"""

from __future__ import annotations

from array import array

from pyemu.cpu.state import MXCSR, VALUE, State

# A row: five digits of the base (in units of 2**-18 of the fraction), three of the slope.
_RECIPROCAL = (
    "3fff23f1 3e06c3d1 3c1e43b5 3a440399 3877637d 36b8e365 3506634b 3360c335 31c6431d 30378309 2eb302f3 "
    "2d3942df 2bc982cd 2a6362bb 290622a9 27b18297 2665e287 25222277 23e6c269 22b26259 2185a24b 205fe23d "
    "1f414231 1e28a223 1d16c217 1c0b020b 1b05a201 1a0541f5 190ae1eb 1815a1df 1725c1d5 163ae1cb 155541c3 "
    "1473e1b9 139781b1 12bf01a7 11eb419f 111ba197 1050018f 0f886187 0ec50181 0e04a179 0d482171 0c8f616b "
    "0bda2165 0b27a15d 0a78c157 09cd0151 0924614b 087ea145 07dbc13f 073c413b 069ec135 0604212f 056c812b "
    "04d6e125 04444121 03b3e11d 0325a117 029a6113 0211210f 0189e10b 0104a107 00816103"
)
# Of the root, for even exponents and for odd ones.
_ROOT_EVEN = (
    "3ffe93e9 3e0a13bb 3c2c5393 3a63236d 38ace349 37087327 3574d307 33f112eb 327ba2cf 311412b5 2fb9729d "
    "2e6b4287 2d282271 2befa25b 2ac1f249 299db237 28827225 27703215 2665f205 256381f5 2468d1e7 237531d9 "
    "228881cd 21a231c1 20c1f1b5 1fe7b1a9 1f13619f 1e43e193 1d79f189 1cb56181 1bf4f177 1b39a16f"
)
_ROOT_ODD = (
    "1a8152c3 191f92a3 17cdc287 168a426b 1554c253 142b723b 130e1225 11fb920f 10f3d1fd 0ff5b1eb 0f0051d9 "
    "0e13d1c9 0d2f51b9 0c52a1ab 0b7d119d 0aaeb191 09e67185 09243179 0867f16d 07b19163 07003159 0653e14f "
    "05ac4145 0509813d 046b2135 03d0d12d 033a7125 02a7e11d 02195117 018dd10f 01060109 00816103"
)


def _numbers(text: str, first: int, end: int, unit: int) -> array[int]:
    return array("I", [int(row[first:end], 16) * unit for row in text.split()])


_UNIT = 128  # of a base, in units of a slope
RECIPROCAL_BASE, RECIPROCAL_SLOPE = _numbers(_RECIPROCAL, 0, 5, _UNIT), _numbers(_RECIPROCAL, 5, 8, 1)
ROOT_BASE = _numbers(f"{_ROOT_EVEN} {_ROOT_ODD}", 0, 5, _UNIT)
ROOT_SLOPE = _numbers(f"{_ROOT_EVEN} {_ROOT_ODD}", 5, 8, 1)
DROPPED = 9  # bits of a difference that the result has no room for
RESULT, STEP = 16, 10  # bits of the result's fraction, and of the operand's that are interpolated
DAZ, FTZ = 1 << 6, 1 << 15  # of MXCSR


def special(s: State, bits: int, sign: int, infinity: int, root: int) -> int:
    """VALUE = the result for zeros, infinities, NaNs and roots of negative numbers; 0 for other operands."""
    magnitude = bits ^ sign
    least = infinity & ~(infinity << 1)  # normal number
    quiet = least >> 1
    if magnitude > infinity:
        s[VALUE] = bits | quiet
    elif magnitude == 0 or (magnitude < least and s[MXCSR] & DAZ):
        s[VALUE] = sign | infinity
    elif sign and root:
        s[VALUE] = sign | infinity | quiet
    elif magnitude == infinity:
        s[VALUE] = sign
    else:
        return 0
    return 1


def pack(s: State, sign: int, exponent: int, fraction: int, bits: int, top: int) -> int:
    """VALUE = 1.fraction (`bits` of them) with a biased exponent, 0 or less (modulo 2**64) for denormals, or infinity
    from `top` on."""
    if exponent >> 63 or exponent == 0:
        shift = 1 - exponent
        s[VALUE] = sign if s[MXCSR] & FTZ else sign | ((1 << bits | fraction) >> shift)
    elif exponent >= top:
        s[VALUE] = sign | top << bits
    else:
        s[VALUE] = sign | exponent << bits | fraction
    return 0


def take_apart(s: State, bits: int, size: int, top: int) -> int:
    """VALUE = the biased exponent plus `size`, VALUE + 1 = the fraction, `size` bits; those of a denormal as if the
    exponent had no lower limit."""
    exponent = (bits >> size) & top
    fraction = bits & ((1 << size) - 1)
    if exponent == 0:
        moved = 1
        while ((fraction << moved) >> size) == 0:
            moved = moved + 1
        exponent = 1 - moved
        fraction = (fraction << moved) & ((1 << size) - 1)
    s[VALUE] = exponent + size
    s[VALUE + 1] = fraction
    return 0


def reciprocal(s: State, bits: int, width: int, size: int) -> int:
    """VALUE = 1 / x, for a format of `width` bits with `size` of them for the fraction."""
    sign = bits & 1 << (width - 1)
    top = (1 << (width - 1 - size)) - 1
    if special(s, bits, sign, top << size, 0):
        return 0
    take_apart(s, bits, size, top)
    exponent = s[VALUE] - size
    fraction = s[VALUE + 1]
    exponent = top - 1 - exponent
    if fraction == 0:
        return pack(s, sign, exponent, 0, size, top)
    index = fraction >> (size - RESULT)
    row = index >> STEP
    found = (RECIPROCAL_BASE[row] - RECIPROCAL_SLOPE[row] * (index & ((1 << STEP) - 1))) >> DROPPED
    return pack(s, sign, exponent - 1, found << (size - RESULT), size, top)


def reciprocal_root(s: State, bits: int, width: int, size: int) -> int:
    """VALUE = 1 / sqrt(x)."""
    sign = bits & 1 << (width - 1)
    top = (1 << (width - 1 - size)) - 1
    if special(s, bits, sign, top << size, 1):
        return 0
    take_apart(s, bits, size, top)
    exponent = s[VALUE] - size
    fraction = s[VALUE + 1]
    bias = top >> 1
    odd = (exponent - bias) & 1
    half = (3 * bias - exponent) >> 1  # as the root's exponent: bias - (exponent - bias) / 2, rounded down
    if fraction == 0 and odd == 0:
        return pack(s, 0, half, 0, size, top)
    index = fraction >> (size - RESULT + 1)
    row = 32 * odd + (index >> STEP)
    found = (ROOT_BASE[row] - ROOT_SLOPE[row] * (index & ((1 << STEP) - 1))) >> DROPPED
    return pack(s, 0, half - 1 + odd, found << (size - RESULT), size, top)


def reciprocal_single(s: State, bits: int) -> int:
    """VRCP14SS."""
    return reciprocal(s, bits, 32, 23)


def reciprocal_double(s: State, bits: int) -> int:
    """VRCP14SD."""
    return reciprocal(s, bits, 64, 52)


def root_single(s: State, bits: int) -> int:
    """VRSQRT14SS."""
    return reciprocal_root(s, bits, 32, 23)


def root_double(s: State, bits: int) -> int:
    """VRSQRT14SD."""
    return reciprocal_root(s, bits, 64, 52)


RECIPROCAL_14 = {32: reciprocal_single, 64: reciprocal_double}
RECIPROCAL_ROOT_14 = {32: root_single, 64: root_double}
