"""VRCP14 and VRSQRT14, approximations to 2**-14 whose last bits the architecture leaves to the implementation.

These are the exact values rounded to 16 bits of fraction; AMD's and Intel's processors have tables whose last bit or
two differ from that, and from each other. Denormal operands count unless DAZ is set, denormal results unless FTZ is;
there are no exceptions (SDM vol. 2, VRCP14PS and VRSQRT14PS).
"""

from math import isqrt

from pyemu.cpu.softfloat_core import (
    INFINITY,
    QNAN,
    ZERO,
    FloatContext,
    Format,
    pack_infinity,
    pack_nan,
    pack_zero,
    round_pack,
    round_shift,
    unpack,
)

BITS = 17  # of the significand, the leading one among them


def _pack(fmt: Format, sign: int, exponent: int, significand: int, mxcsr: int) -> int:
    """significand * 2**exponent to BITS bits."""
    drop = significand.bit_length() - BITS
    context = FloatContext(ftz=FloatContext.from_mxcsr(mxcsr).ftz)
    return round_pack(fmt, sign, exponent + drop, round_shift(significand, drop, sign, context.rounding), context)


def reciprocal(fmt: Format, bits: int, mxcsr: int) -> int:
    """1 / x."""
    x = unpack(fmt, bits, daz=FloatContext.from_mxcsr(mxcsr).daz)
    if x.kind >= QNAN:
        return pack_nan(fmt, x)
    if x.kind == ZERO:
        return pack_infinity(fmt, x.sign)
    if x.kind == INFINITY:
        return pack_zero(fmt, x.sign)
    shift = x.significand.bit_length() + BITS + 3
    return _pack(fmt, x.sign, -shift - x.exponent, (1 << shift) // x.significand, mxcsr)


def reciprocal_square_root(fmt: Format, bits: int, mxcsr: int) -> int:
    """1 / sqrt(x)."""
    x = unpack(fmt, bits, daz=FloatContext.from_mxcsr(mxcsr).daz)
    if x.kind >= QNAN:
        return pack_nan(fmt, x)
    if x.kind == ZERO:
        return pack_infinity(fmt, x.sign)
    if x.sign:
        return fmt.default_nan
    if x.kind == INFINITY:
        return pack_zero(fmt, 0)
    significand, exponent = (x.significand << 1, x.exponent - 1) if x.exponent & 1 else (x.significand, x.exponent)
    half = (significand.bit_length() + 2 * BITS + 7) // 2
    return _pack(fmt, 0, -half - exponent // 2, isqrt((1 << 2 * half) // significand), mxcsr)
