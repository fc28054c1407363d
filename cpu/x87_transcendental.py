"""The x87's transcendental instructions, correctly rounded (hardware is only good to one unit in the last place).

Precision control doesn't apply to them. Every result that isn't exact is computed by `softfloat_series` to more than
200 bits, marked inexact with a sticky bit and rounded once.
"""

from typing import NamedTuple

from pyemu.cpu import softfloat_series as series
from pyemu.cpu.softfloat_core import (
    INFINITY,
    PE,
    QNAN,
    UE,
    X80,
    ZE,
    ZERO,
    FloatContext,
    Number,
    invalid,
    note_denormals,
    pack_infinity,
    pack_zero,
    propagate_nan,
    round_pack,
    unpack,
)
from pyemu.cpu.softfloat_series import FRACTION_BITS, ONE

ONE_X80 = 0x3FFF8000000000000000
# Trigonometric operands from here on set C2 and are left alone (SDM vol. 1, 8.3.8).
_TRIG_LIMIT_EXPONENT = 63
# Below this exponent the series' second term can't reach the 64 bits of a result.
_LINEAR_EXPONENT = -100
# pi * 2**64, cut to 66 bits: arguments are reduced by this pi, as processors do (SDM vol. 1, 8.3.8).
_PI_66 = 0x3243F6A8885A308D3


class Trigonometric(NamedTuple):
    """`bits` replaces ST0, then FSINCOS and FPTAN push `pushed`. If not complete, C2 is set and nothing changes."""

    bits: int
    complete: bool
    pushed: int = 0


def _round_fixed(sign: int, value: int, ctx: FloatContext, exponent: int = -FRACTION_BITS) -> int:
    """Round an irrational value given as fixed point (or as a longer integer with its own exponent)."""
    if value < 0:
        sign, value = sign ^ 1, -value
    return round_pack(X80, sign, exponent - 1, value << 1 | 1, ctx)


def _fixed(x: Number) -> int:
    """|x| in fixed point, truncated."""
    shift = x.exponent + FRACTION_BITS
    return x.significand << shift if shift >= 0 else x.significand >> -shift


def _top(x: Number) -> int:
    """floor(log2 |x|)"""
    return x.exponent + x.significand.bit_length() - 1


# --- sine, cosine, tangent ---


class _Angle(NamedTuple):
    """|x| = quadrant * pi/2 + significand * 2**exponent exactly, where the second term is from -pi/4 to pi/4."""

    quadrant: int
    significand: int
    exponent: int


def _reduce(x: Number) -> _Angle:
    if _top(x) < -1:
        return _Angle(0, x.significand, x.exponent)
    exponent = min(x.exponent, -65)  # pi/2 is _PI_66 * 2**-65
    value = x.significand << (x.exponent - exponent)
    half_pi = _PI_66 << (-65 - exponent)
    quadrant = (2 * value + half_pi) // (2 * half_pi)
    return _Angle(quadrant & 3, value - quadrant * half_pi, exponent)


def _sine_cosine(angle: _Angle) -> tuple[tuple[int, int], tuple[int, int]]:
    """Sine and cosine of the angle, each as (signed significand, exponent)."""
    shift = 2 * angle.exponent + FRACTION_BITS
    square = angle.significand * angle.significand
    square = square << shift if shift >= 0 else square >> -shift
    # One less than the truncated series: the sine is strictly below the argument even when its square vanishes.
    sine = (angle.significand * (series.sine_ratio(square) - 1), angle.exponent - FRACTION_BITS)
    cosine = (series.cosine(square) - 1, -FRACTION_BITS)
    for _ in range(angle.quadrant):
        sine, cosine = cosine, (-sine[0], sine[1])
    return sine, cosine


def _trig_operand(a: int, ctx: FloatContext) -> tuple[Number, Trigonometric | None]:
    """Unpack, and deal with everything that isn't a nonzero number in range, except zero."""
    ctx.rounded_up = False
    x = unpack(X80, a)
    if x.kind >= QNAN:
        nan = propagate_nan(X80, ctx, x)
        return x, Trigonometric(nan, True, nan)
    if x.kind == INFINITY:
        nan = invalid(X80, ctx)
        return x, Trigonometric(nan, True, nan)
    if x.kind != ZERO and _top(x) >= _TRIG_LIMIT_EXPONENT:
        return x, Trigonometric(a, False)
    note_denormals(ctx, x)
    return x, None


def fsin(a: int, ctx: FloatContext) -> Trigonometric:
    x, special = _trig_operand(a, ctx)
    if special:
        return special
    if x.kind == ZERO:
        return Trigonometric(a, True)
    (sine, exponent), _ = _sine_cosine(_reduce(x))
    return Trigonometric(_round_fixed(x.sign, sine, ctx, exponent), True)


def fcos(a: int, ctx: FloatContext) -> Trigonometric:
    x, special = _trig_operand(a, ctx)
    if special:
        return special
    if x.kind == ZERO:
        return Trigonometric(ONE_X80, True)
    _, (cosine, exponent) = _sine_cosine(_reduce(x))
    return Trigonometric(_round_fixed(0, cosine, ctx, exponent), True)


def fsincos(a: int, ctx: FloatContext) -> Trigonometric:
    """The sine replaces ST0, the cosine is pushed."""
    x, special = _trig_operand(a, ctx)
    if special:
        return special
    if x.kind == ZERO:
        return Trigonometric(a, True, ONE_X80)
    (sine, sine_exponent), (cosine, cosine_exponent) = _sine_cosine(_reduce(x))
    bits = _round_fixed(x.sign, sine, ctx, sine_exponent)
    return Trigonometric(bits, True, _round_fixed(0, cosine, ctx, cosine_exponent))


def fptan(a: int, ctx: FloatContext) -> Trigonometric:
    """The tangent replaces ST0, and 1.0 is pushed (the default NaN after an invalid operand)."""
    x, special = _trig_operand(a, ctx)
    if special:
        return special
    if x.kind == ZERO:
        return Trigonometric(a, True, ONE_X80)
    (sine, sine_exponent), (cosine, cosine_exponent) = _sine_cosine(_reduce(x))
    sign = x.sign ^ (sine < 0) ^ (cosine < 0)
    shift = max(0, FRACTION_BITS + abs(cosine).bit_length() - abs(sine).bit_length())
    quotient = (abs(sine) << shift) // abs(cosine)
    return Trigonometric(_round_fixed(sign, quotient, ctx, sine_exponent - cosine_exponent - shift), True, ONE_X80)


# --- arctangent
# ------------------------------------------------------------------------------------------------------------------


def fpatan(x_bits: int, y_bits: int, ctx: FloatContext) -> int:
    """The angle of the point (x, y) = (ST0, ST1), from -pi to pi."""
    ctx.rounded_up = False
    x, y = unpack(X80, x_bits), unpack(X80, y_bits)
    if x.kind >= QNAN or y.kind >= QNAN:
        return propagate_nan(X80, ctx, x, y)
    note_denormals(ctx, x, y)
    pi = series.pi()
    if y.kind == ZERO or (x.kind == INFINITY and y.kind != INFINITY):
        return _round_fixed(y.sign, pi, ctx) if x.sign else pack_zero(X80, y.sign)
    if x.kind == INFINITY:
        return _round_fixed(y.sign, 3 * pi if x.sign else pi, ctx, -FRACTION_BITS - 2)
    if y.kind == INFINITY or x.kind == ZERO:
        return _round_fixed(y.sign, pi, ctx, -FRACTION_BITS - 1)
    swapped = _compare_magnitude(x, y) < 0
    small, large = (x, y) if swapped else (y, x)
    shift = FRACTION_BITS + max(0, large.significand.bit_length() - small.significand.bit_length())
    ratio = (small.significand << shift) // large.significand
    exponent = small.exponent - large.exponent - shift
    if exponent + ratio.bit_length() < _LINEAR_EXPONENT and not swapped and not x.sign:
        # arctan(q) is q less a cube that only a directed rounding notices.
        return _round_fixed(y.sign, (ratio << 64) - 1, ctx, exponent - 64)
    fixed = exponent + FRACTION_BITS
    angle = series.arctangent(ratio << fixed if fixed >= 0 else ratio >> -fixed)
    if swapped:
        angle = (pi >> 1) - angle
    return _round_fixed(y.sign, pi - angle if x.sign else angle, ctx)


def _compare_magnitude(x: Number, y: Number) -> int:
    """Negative if |x| < |y|."""
    if _top(x) != _top(y):
        return _top(x) - _top(y)
    exponent = min(x.exponent, y.exponent)
    return (x.significand << (x.exponent - exponent)) - (y.significand << (y.exponent - exponent))


# --- exponential and logarithms ---


def f2xm1(a: int, ctx: FloatContext) -> int:
    """2**a - 1 for -1 <= a <= 1. Outside, where the architecture leaves the result undefined, the operand stays, as
    inexact.
    """
    ctx.rounded_up = False
    x = unpack(X80, a)
    if x.kind >= QNAN:
        return propagate_nan(X80, ctx, x)
    if x.kind == INFINITY:
        return ONE_X80 | X80.sign_bit if x.sign else a
    if x.kind == ZERO:
        return a
    note_denormals(ctx, x)
    if _top(x) >= 0:
        if a == ONE_X80 | X80.sign_bit:
            ctx.flags |= PE
            return 0xBFFE8000000000000000  # -1/2
        ctx.flags |= PE
        return a
    t = series.multiply(_fixed(x), series.ln2())
    ratio = series.exponential_ratio(-t if x.sign else t)
    scale = series.multiply(ratio, series.ln2())
    return _round_fixed(x.sign, x.significand * scale, ctx, x.exponent - FRACTION_BITS)


def _log2(significand: int, exponent: int) -> tuple[int, bool]:
    """log2(significand * 2**exponent) in fixed point, and whether it is exact."""
    length = significand.bit_length()
    one = 1 << (length - 1)
    if significand == one:
        return (exponent + length - 1) << FRACTION_BITS, True
    # Bring the argument between 1/sqrt(2) and sqrt(2): then nothing cancels, and near 1 all relative precision is kept.
    if significand * significand > one * one * 2:
        one <<= 1
    whole = exponent + one.bit_length() - 1
    fraction = series.divide(series.logarithm_of_ratio(significand, one), series.ln2())
    return (whole << FRACTION_BITS) + fraction, False


def _times_logarithm(y: Number, sign: int, magnitude: int, exponent: int, exact: bool, ctx: FloatContext) -> int:
    product = y.significand * magnitude
    if exact:  # processors don't notice this and always report an inexact result
        result = round_pack(X80, y.sign ^ sign, y.exponent + exponent, product, ctx)
        ctx.flags |= PE if result >> 64 & 0x7FFF else PE | UE
        return result
    return _round_fixed(y.sign ^ sign, product, ctx, y.exponent + exponent)


def fyl2x(x_bits: int, y_bits: int, ctx: FloatContext) -> int:
    """y * log2(x), with x = ST0 and y = ST1 (SDM vol. 2, table 3-49)."""
    ctx.rounded_up = False
    x, y = unpack(X80, x_bits), unpack(X80, y_bits)
    if x.kind >= QNAN or y.kind >= QNAN:
        return propagate_nan(X80, ctx, x, y)
    if x.kind == ZERO:
        if y.kind == ZERO:
            return invalid(X80, ctx)
        if y.kind != INFINITY:
            ctx.flags |= ZE
        return pack_infinity(X80, y.sign ^ 1)
    if x.sign:
        return invalid(X80, ctx)
    if x.kind == INFINITY:
        if y.kind == ZERO:
            return invalid(X80, ctx)
        note_denormals(ctx, y)
        return pack_infinity(X80, y.sign)
    logarithm, exact = _log2(x.significand, x.exponent)
    if not logarithm:
        if y.kind == INFINITY:
            return invalid(X80, ctx)
        note_denormals(ctx, y)
        return pack_zero(X80, y.sign)
    note_denormals(ctx, x, y)
    sign = int(logarithm < 0)
    if y.kind == INFINITY:
        return pack_infinity(X80, y.sign ^ sign)
    if y.kind == ZERO:
        return pack_zero(X80, y.sign ^ sign)
    return _times_logarithm(y, sign, abs(logarithm), -FRACTION_BITS, exact, ctx)


def fyl2xp1(x_bits: int, y_bits: int, ctx: FloatContext) -> int:
    """y * log2(x + 1), with x = ST0 and y = ST1, precise for small x (SDM vol. 2, table 3-50)."""
    ctx.rounded_up = False
    x, y = unpack(X80, x_bits), unpack(X80, y_bits)
    if x.kind >= QNAN or y.kind >= QNAN:
        return propagate_nan(X80, ctx, x, y)
    if (x.kind == INFINITY and (x.sign or y.kind == ZERO)) or (x.kind == ZERO and y.kind == INFINITY):
        return invalid(X80, ctx)
    note_denormals(ctx, x, y)
    sign = x.sign
    if x.kind == INFINITY or y.kind == INFINITY:
        return pack_infinity(X80, y.sign ^ sign)
    if x.kind == ZERO or y.kind == ZERO:
        return pack_zero(X80, y.sign ^ sign)
    if sign and _top(x) >= 0:  # x <= -1 is far outside the architecture's domain: ST0 is what processors leave
        ctx.flags |= PE
        return x_bits
    if _top(x) < _LINEAR_EXPONENT:
        scale = series.divide(ONE, series.ln2())
        return _times_logarithm(y, sign, x.significand * scale, x.exponent - FRACTION_BITS, False, ctx)
    exponent = min(x.exponent, 0)
    total = (1 << -exponent) + (-1 if sign else 1) * (x.significand << (x.exponent - exponent))
    logarithm, exact = _log2(total, exponent)
    return _times_logarithm(y, sign, abs(logarithm), -FRACTION_BITS, exact, ctx)
