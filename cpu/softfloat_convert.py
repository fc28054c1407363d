"""Conversions of the softfloat: between formats, to and from integers, and rounding to an integral value.

Arithmetic lives in `softfloat`, packed decimal in `x87_arith`.
"""

from pyemu.cpu.softfloat_core import (
    IE,
    INFINITY,
    PE,
    QNAN,
    TOWARD_ZERO,
    ZERO,
    FloatContext,
    Format,
    note_denormals,
    pack_infinity,
    pack_zero,
    propagate_nan,
    round_pack,
    round_shift,
    unpack,
)


def convert(source: Format, target: Format, bits: int, ctx: FloatContext, denormal_exception: bool = True) -> int:
    """Convert between formats (CVTSD2SS, CVTSS2SD, FLD m32/m64, FST m32/m64).

    The x87 stores don't report a denormal source: they pass ``denormal_exception=False``.
    """
    ctx.rounded_up = False
    x = unpack(source, bits, ctx.daz)
    if x.kind >= QNAN:
        return propagate_nan(target, ctx, x)
    if denormal_exception:
        note_denormals(ctx, x)
    if x.kind == INFINITY:
        return pack_infinity(target, x.sign)
    if x.kind == ZERO:
        return pack_zero(target, x.sign)
    return round_pack(target, x.sign, x.exponent, x.significand, ctx)


def to_int(fmt: Format, bits: int, width: int, ctx: FloatContext, truncate: bool = False, signed: bool = True) -> int:
    """Convert to a `width`-bit integer, returned as an unsigned bit pattern; what doesn't fit becomes the integer
    indefinite.

    No denormal exception (CVTSD2SI, FIST). The unsigned forms are those of AVX-512, whose indefinite is all ones.
    """
    ctx.rounded_up = False
    x = unpack(fmt, bits, ctx.daz)
    indefinite = 1 << (width - 1) if signed else (1 << width) - 1
    if x.kind >= INFINITY:
        ctx.flags |= IE
        return indefinite
    if x.kind == ZERO:
        return 0
    if x.exponent > width:  # the significand is at least 1: it can't fit, and the shift would be huge
        ctx.flags |= IE
        return indefinite
    magnitude = round_shift(x.significand, -x.exponent, x.sign, TOWARD_ZERO if truncate else ctx.rounding)
    value = -magnitude if x.sign else magnitude
    low, high = (-(1 << (width - 1)), (1 << (width - 1)) - 1) if signed else (0, (1 << width) - 1)
    if not low <= value <= high:
        ctx.flags |= IE
        return indefinite
    if x.exponent < 0 and magnitude << -x.exponent != x.significand:
        ctx.flags |= PE
        ctx.rounded_up = magnitude << -x.exponent > x.significand
    return value & ((1 << width) - 1)


def from_int(fmt: Format, value: int, ctx: FloatContext) -> int:
    """Convert a Python integer (signed or unsigned, as the instruction reads it); zero becomes +0."""
    ctx.rounded_up = False
    if not value:
        return 0
    return round_pack(fmt, int(value < 0), 0, abs(value), ctx)


def round_to_int(
    fmt: Format, bits: int, ctx: FloatContext, rounding: int | None = None, suppress_inexact: bool = False
) -> int:
    """Round to an integral value in the same format (FRNDINT; ROUNDSD gives `rounding` and `suppress_inexact` from its
    immediate).

    A denormal operand is reported by FRNDINT only.
    """
    ctx.rounded_up = False
    mode = ctx.rounding if rounding is None else rounding
    x = unpack(fmt, bits, ctx.daz)
    if x.kind >= QNAN:
        return propagate_nan(fmt, ctx, x)
    if x.kind == ZERO:
        return pack_zero(fmt, x.sign)
    if fmt.explicit:
        note_denormals(ctx, x)
    if x.kind == INFINITY or x.exponent >= 0:
        return bits
    magnitude = round_shift(x.significand, -x.exponent, x.sign, mode)
    if magnitude << -x.exponent != x.significand:
        if not suppress_inexact:
            ctx.flags |= PE
        rounded_up = magnitude << -x.exponent > x.significand
    else:
        rounded_up = False
    result = round_pack(fmt, x.sign, 0, magnitude, ctx) if magnitude else pack_zero(fmt, x.sign)
    ctx.rounded_up = rounded_up
    return result


def round_sd_imm(fmt: Format, bits: int, immediate: int, ctx: FloatContext) -> int:
    """ROUNDSS/ROUNDSD: immediate bits 1:0 rounding, bit 2 use MXCSR's instead, bit 3 no precision exception."""
    return round_to_int(fmt, bits, ctx, None if immediate & 4 else immediate & 3, bool(immediate & 8))


def half_to_single(single: Format, half: Format, bits: int, ctx: FloatContext) -> int:
    """VCVTPH2PS: exact, ignores DAZ and reports no denormal operand (SDM vol. 2, VCVTPH2PS)."""
    x = unpack(half, bits)
    if x.kind >= QNAN:
        return propagate_nan(single, ctx, x)
    if x.kind == INFINITY:
        return pack_infinity(single, x.sign)
    if x.kind == ZERO:
        return pack_zero(single, x.sign)
    return round_pack(single, x.sign, x.exponent, x.significand, ctx)


def single_to_half(single: Format, half: Format, bits: int, immediate: int, ctx: FloatContext) -> int:
    """VCVTPS2PH: immediate bits 1:0 rounding, bit 2 use MXCSR's instead; ignores FTZ but not DAZ (SDM vol. 2,
    VCVTPS2PH).
    """
    local = FloatContext(
        rounding=ctx.rounding if immediate & 4 else immediate & 3, daz=ctx.daz, masks=ctx.masks, flags=ctx.flags
    )
    result = convert(single, half, bits, local)
    ctx.flags = local.flags
    return result
