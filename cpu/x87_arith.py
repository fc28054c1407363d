"""The x87's own operations: remainders, scaling, splitting, packed decimal.

Operands are 80-bit patterns. Instructions that deliver more than one thing return a small named tuple. Plain arithmetic
lives in `softfloat` (with format X80); the transcendental functions are left to the host (x87_compute.py).
"""

from typing import NamedTuple

from pyemu.cpu.softfloat_core import (
    IE,
    INFINITY,
    NEAREST,
    PE,
    QNAN,
    TOWARD_ZERO,
    X80,
    ZE,
    ZERO,
    FloatContext,
    invalid,
    note_denormals,
    pack_infinity,
    pack_zero,
    propagate_nan,
    round_pack,
    round_shift,
    unpack,
)

BCD_INDEFINITE = 0xFFFFC000000000000000
_BCD_LIMIT = 10**18

# FPREM reduces completely when the exponents differ by less than this (SDM vol. 2, FPREM).
_COMPLETE_REDUCTION = 64


class Remainder(NamedTuple):
    """`quotient` holds its three low bits, which go to C0 (bit 2), C3 (bit 1) and C1 (bit 0); incomplete means C2 set,
    the others clear.
    """

    bits: int
    quotient: int
    complete: bool


class Extracted(NamedTuple):
    """FXTRACT: the unbiased exponent (which replaces ST0) and the significand (which is pushed)."""

    exponent: int
    significand: int


def fprem(a: int, b: int, ctx: FloatContext) -> Remainder:
    """ST0 = remainder of a / b with the quotient truncated."""
    return _remainder(a, b, ctx, TOWARD_ZERO)


def fprem1(a: int, b: int, ctx: FloatContext) -> Remainder:
    """The IEEE remainder: the quotient is rounded to nearest, ties to even."""
    return _remainder(a, b, ctx, NEAREST)


def _remainder(a: int, b: int, ctx: FloatContext, rounding: int) -> Remainder:
    ctx.rounded_up = False
    x, y = unpack(X80, a), unpack(X80, b)
    if x.kind >= QNAN or y.kind >= QNAN:
        return Remainder(propagate_nan(X80, ctx, x, y), 0, True)
    if x.kind == INFINITY or y.kind == ZERO:
        return Remainder(invalid(X80, ctx), 0, True)
    note_denormals(ctx, x, y)
    if x.kind == ZERO:
        return Remainder(pack_zero(X80, x.sign), 0, True)
    if y.kind == INFINITY:
        return Remainder(round_pack(X80, x.sign, x.exponent, x.significand, ctx), 0, True)
    distance = x.exponent + x.significand.bit_length() - y.exponent - y.significand.bit_length()
    complete = distance < _COMPLETE_REDUCTION
    if complete:
        unit = min(x.exponent, y.exponent) if distance > -2 else y.exponent
        if distance <= -2:  # |a| < |b| / 2: the quotient is 0 in either mode
            return Remainder(round_pack(X80, x.sign, x.exponent, x.significand, ctx), 0, True)
        divisor = y.significand << (y.exponent - unit)
        quotient, rest = divmod(x.significand << (x.exponent - unit), divisor)
        sign = x.sign
        if rounding == NEAREST and (2 * rest > divisor or (2 * rest == divisor and quotient & 1)):
            quotient += 1
            rest = divisor - rest
            sign ^= 1
    else:
        # Take off a multiple of b * 2**(distance - n) with n from 32 to 63, so that the next round starts at a lower
        # exponent.
        step = distance - (32 + distance % 32)
        unit = min(x.exponent, y.exponent + step)
        rest = (x.significand << (x.exponent - unit)) % (y.significand << (y.exponent + step - unit))
        sign, quotient = x.sign, 0
    if not rest:
        return Remainder(pack_zero(X80, x.sign), quotient & 7, complete)
    return Remainder(round_pack(X80, sign, unit, rest, ctx), quotient & 7, complete)


def fscale(a: int, b: int, ctx: FloatContext) -> int:
    """a * 2**trunc(b)."""
    ctx.rounded_up = False
    x, y = unpack(X80, a), unpack(X80, b)
    if x.kind >= QNAN or y.kind >= QNAN:
        return propagate_nan(X80, ctx, x, y)
    if y.kind == INFINITY:
        if (x.kind == ZERO and not y.sign) or (x.kind == INFINITY and y.sign):
            return invalid(X80, ctx)
        note_denormals(ctx, x)
        return pack_zero(X80, x.sign) if y.sign else pack_infinity(X80, x.sign)
    note_denormals(ctx, x, y)
    if x.kind == INFINITY:
        return pack_infinity(X80, x.sign)
    if x.kind == ZERO:
        return pack_zero(X80, x.sign)
    if y.kind == ZERO:
        scale = 0
    elif y.exponent > 0:
        scale = 1 << 64  # beyond any exponent, and nothing is shifted by it
    else:
        scale = round_shift(y.significand, -y.exponent, 0, TOWARD_ZERO)
    scale = min(scale, 1 << 17)
    return round_pack(X80, x.sign, x.exponent + (-scale if y.sign else scale), x.significand, ctx)


def fxtract(a: int, ctx: FloatContext) -> Extracted:
    """Split a into exponent and significand (1 <= |significand| < 2)."""
    ctx.rounded_up = False
    x = unpack(X80, a)
    if x.kind >= QNAN:
        nan = propagate_nan(X80, ctx, x)
        return Extracted(nan, nan)
    if x.kind == INFINITY:
        return Extracted(pack_infinity(X80, 0), pack_infinity(X80, x.sign))
    if x.kind == ZERO:
        ctx.flags |= ZE
        return Extracted(pack_infinity(X80, 1), pack_zero(X80, x.sign))
    note_denormals(ctx, x)
    length = x.significand.bit_length()
    exponent = x.exponent + length - 1
    significand = round_pack(X80, x.sign, 1 - length, x.significand, ctx)
    return Extracted(round_pack(X80, int(exponent < 0), 0, abs(exponent), ctx) if exponent else 0, significand)


def fbld(packed: int) -> int:
    """Packed decimal (80 bits: 18 digits and a sign) to extended precision, always exact. Digits above 9 count as what
    they are.
    """
    magnitude = 0
    for position in range(17, -1, -1):
        magnitude = magnitude * 10 + (packed >> 4 * position & 15)
    sign = packed >> 79 & 1
    if not magnitude:
        return pack_zero(X80, sign)
    return round_pack(X80, sign, 0, magnitude, FloatContext())


def fbstp(a: int, ctx: FloatContext) -> int:
    """Extended precision to packed decimal; what doesn't fit in 18 digits becomes the packed-decimal indefinite."""
    ctx.rounded_up = False
    x = unpack(X80, a)
    if x.kind >= INFINITY or x.exponent > 0:
        ctx.flags |= IE
        return BCD_INDEFINITE
    magnitude = 0
    if x.kind != ZERO:
        magnitude = round_shift(x.significand, -x.exponent, x.sign, ctx.rounding)
        if magnitude >= _BCD_LIMIT:
            ctx.flags |= IE
            return BCD_INDEFINITE
        if magnitude << -x.exponent != x.significand:
            ctx.flags |= PE
            ctx.rounded_up = magnitude << -x.exponent > x.significand
    packed = x.sign << 79
    for position in range(18):
        magnitude, digit = divmod(magnitude, 10)
        packed |= digit << 4 * position
    return packed
