"""Exact IEEE-754 arithmetic and comparison on raw bit patterns, x86 flavour: the floating point of the reference
interpreter.

Every function takes a `Format`, bit patterns and a `FloatContext`, returns a bit pattern and adds to ``ctx.flags``.
Responses are the masked ones; the caller compares ``ctx.flags`` with its masks (see `reported_flags`) and delivers an
unmasked exception itself. Conversions live in `softfloat_convert`, the x87's own operations in `x87_arith`.
"""

from math import isqrt

from pyemu.cpu.softfloat_core import (
    ALL_EXCEPTIONS,
    DE,
    DOWN,
    F16,
    F32,
    F64,
    IE,
    INFINITY,
    NEAREST,
    NORMAL,
    OE,
    PE,
    QNAN,
    SNAN,
    TOWARD_ZERO,
    UE,
    UP,
    X80,
    ZE,
    ZERO,
    FloatContext,
    Format,
    Number,
    invalid,
    note_denormals,
    pack_infinity,
    pack_zero,
    propagate_nan,
    reported_flags,
    round_pack,
    unpack,
)

__all__ = [
    "ALL_EXCEPTIONS", "DE", "DOWN", "EQUAL", "F16", "F32", "F64", "GREATER", "IE", "LESS", "NEAREST", "OE", "PE",
    "TOWARD_ZERO", "UE", "UNORDERED", "UP", "X80", "ZE", "FloatContext", "Format", "add", "compare",
    "compare_predicate", "div", "div_reversed", "fma", "maximum", "minimum", "mul", "reported_flags", "sqrt", "sub",
    "sub_reversed",
]  # fmt: skip

# Results of `compare`, one bit each, so that a predicate is a set of them.
LESS = 1
EQUAL = 2
GREATER = 4
UNORDERED = 8

# A gap between two addends beyond which the smaller one only matters as a sticky bit: more than the 106 bits of an
# exact binary64 product or the 64 of extended, plus guard bits.
_STICKY_GAP = 256

# CMPPS/VCMPPS predicates 0-15 as sets of outcomes; 16-31 are the same with the other signaling behaviour (SDM vol. 2,
# table 3-1).
_PREDICATES = (
    EQUAL, LESS, LESS | EQUAL, UNORDERED,
    LESS | GREATER | UNORDERED, EQUAL | GREATER | UNORDERED, GREATER | UNORDERED, LESS | EQUAL | GREATER,
    EQUAL | UNORDERED, LESS | UNORDERED, LESS | EQUAL | UNORDERED, 0,
    LESS | GREATER, EQUAL | GREATER, GREATER, LESS | EQUAL | GREATER | UNORDERED,
)  # fmt: skip
_SIGNALING_PREDICATES = 0b0110_0110_0110_0110  # LT, LE and their relatives


def _operands(fmt: Format, a: int, b: int, ctx: FloatContext, fmt_b: Format | None) -> tuple[Number, Number]:
    ctx.rounded_up = False
    return unpack(fmt, a, ctx.daz), unpack(fmt_b or fmt, b, ctx.daz)


def _precision(fmt: Format, ctx: FloatContext) -> int:
    return ctx.precision if fmt.explicit else 0


def add_exact(x: Number, y: Number) -> tuple[int, int, int]:
    """The sum of two finite nonzero numbers as (sign, exponent, significand); sticky if they are far apart."""
    top_x = x.exponent + x.significand.bit_length()
    top_y = y.exponent + y.significand.bit_length()
    if top_x < top_y:
        x, y, top_x, top_y = y, x, top_y, top_x
    if top_x - top_y > _STICKY_GAP:
        shift = max(0, _STICKY_GAP - x.significand.bit_length())
        significand = x.significand << shift
        return x.sign, x.exponent - shift, significand + (1 if x.sign == y.sign else -1)
    exponent = min(x.exponent, y.exponent)
    left = x.significand << (x.exponent - exponent)
    right = y.significand << (y.exponent - exponent)
    total = (-left if x.sign else left) + (-right if y.sign else right)
    return (1, exponent, -total) if total < 0 else (0, exponent, total)


def add(fmt: Format, a: int, b: int, ctx: FloatContext, fmt_b: Format | None = None) -> int:
    """a + b. `fmt_b` is for x87 instructions whose second operand is a narrower number in memory."""
    x, y = _operands(fmt, a, b, ctx, fmt_b)
    return _add(fmt, x, y, ctx, y)


def sub(fmt: Format, a: int, b: int, ctx: FloatContext, fmt_b: Format | None = None) -> int:
    """a - b."""
    x, y = _operands(fmt, a, b, ctx, fmt_b)
    return _add(fmt, x, y._replace(sign=y.sign ^ 1), ctx, y)


def sub_reversed(fmt: Format, a: int, b: int, ctx: FloatContext, fmt_b: Format | None = None) -> int:
    """b - a, where b may have the narrower format of a memory operand (FSUBR)."""
    x, y = _operands(fmt, a, b, ctx, fmt_b)
    if x.kind >= QNAN or y.kind >= QNAN:
        return propagate_nan(fmt, ctx, y, x)
    return _add(fmt, y, x._replace(sign=x.sign ^ 1), ctx, x)


def _add(fmt: Format, x: Number, y: Number, ctx: FloatContext, nan_y: Number) -> int:
    """x + y; `nan_y` is y before subtraction changed its sign, which a NaN keeps."""
    if x.kind >= QNAN or y.kind >= QNAN:
        return propagate_nan(fmt, ctx, x, nan_y)
    if x.kind == INFINITY and y.kind == INFINITY and x.sign != y.sign:
        return invalid(fmt, ctx)
    note_denormals(ctx, x, y)
    if x.kind == INFINITY or y.kind == INFINITY:
        return pack_infinity(fmt, x.sign if x.kind == INFINITY else y.sign)
    return _finite_sum(fmt, x, y, ctx)


def _finite_sum(fmt: Format, x: Number, y: Number, ctx: FloatContext) -> int:
    if x.kind == ZERO and y.kind == ZERO:
        return pack_zero(fmt, x.sign if x.sign == y.sign else ctx.rounding == DOWN)
    if x.kind == ZERO:
        sign, exponent, significand = y.sign, y.exponent, y.significand
    elif y.kind == ZERO:
        sign, exponent, significand = x.sign, x.exponent, x.significand
    else:
        sign, exponent, significand = add_exact(x, y)
        if not significand:
            return pack_zero(fmt, ctx.rounding == DOWN)
    return round_pack(fmt, sign, exponent, significand, ctx, _precision(fmt, ctx))


def mul(fmt: Format, a: int, b: int, ctx: FloatContext, fmt_b: Format | None = None) -> int:
    """a * b."""
    x, y = _operands(fmt, a, b, ctx, fmt_b)
    if x.kind >= QNAN or y.kind >= QNAN:
        return propagate_nan(fmt, ctx, x, y)
    sign = x.sign ^ y.sign
    if x.kind == INFINITY or y.kind == INFINITY:
        if x.kind == ZERO or y.kind == ZERO:
            return invalid(fmt, ctx)
        note_denormals(ctx, x, y)
        return pack_infinity(fmt, sign)
    note_denormals(ctx, x, y)
    if x.kind == ZERO or y.kind == ZERO:
        return pack_zero(fmt, sign)
    return round_pack(fmt, sign, x.exponent + y.exponent, x.significand * y.significand, ctx, _precision(fmt, ctx))


def div(fmt: Format, a: int, b: int, ctx: FloatContext, fmt_b: Format | None = None) -> int:
    """a / b."""
    x, y = _operands(fmt, a, b, ctx, fmt_b)
    return _div(fmt, x, y, ctx)


def div_reversed(fmt: Format, a: int, b: int, ctx: FloatContext, fmt_b: Format | None = None) -> int:
    """b / a, where b may have the narrower format of a memory operand (FDIVR)."""
    x, y = _operands(fmt, a, b, ctx, fmt_b)
    return _div(fmt, y, x, ctx)


def _div(fmt: Format, x: Number, y: Number, ctx: FloatContext) -> int:
    if x.kind >= QNAN or y.kind >= QNAN:
        return propagate_nan(fmt, ctx, x, y)
    sign = x.sign ^ y.sign
    if (x.kind == INFINITY and y.kind == INFINITY) or (x.kind == ZERO and y.kind == ZERO):
        return invalid(fmt, ctx)
    if y.kind == ZERO and x.kind != INFINITY:
        ctx.flags |= ZE  # outranks the denormal-operand exception
        return pack_infinity(fmt, sign)
    note_denormals(ctx, x, y)
    if x.kind == INFINITY:
        return pack_infinity(fmt, sign)
    if x.kind == ZERO or y.kind == INFINITY:
        return pack_zero(fmt, sign)
    shift = max(0, fmt.precision + 3 + y.significand.bit_length() - x.significand.bit_length())
    quotient, rest = divmod(x.significand << shift, y.significand)
    # One more bit than the quotient has, for the remainder.
    significand = quotient << 1 | (rest != 0)
    return round_pack(fmt, sign, x.exponent - y.exponent - shift - 1, significand, ctx, _precision(fmt, ctx))


def sqrt(fmt: Format, a: int, ctx: FloatContext) -> int:
    """The square root of a; of -0 it is -0."""
    ctx.rounded_up = False
    x = unpack(fmt, a, ctx.daz)
    if x.kind >= QNAN:
        return propagate_nan(fmt, ctx, x)
    if x.kind == ZERO:
        return pack_zero(fmt, x.sign)
    if x.sign:
        return invalid(fmt, ctx)
    note_denormals(ctx, x)
    if x.kind == INFINITY:
        return pack_infinity(fmt, 0)
    shift = max(0, 2 * fmt.precision + 6 - x.significand.bit_length())
    shift += (x.exponent - shift) & 1
    radicand = x.significand << shift
    root = isqrt(radicand)
    significand = root << 1 | (root * root != radicand)
    return round_pack(fmt, 0, (x.exponent - shift) // 2 - 1, significand, ctx, _precision(fmt, ctx))


def fma(
    fmt: Format, a: int, b: int, c: int, ctx: FloatContext, negate_product: bool = False, negate_c: bool = False
) -> int:
    """±(a * b) ± c with one rounding. A NaN keeps its sign; the first of a, b, c that is a NaN is the result."""
    x, y = _operands(fmt, a, b, ctx, None)
    z = unpack(fmt, c, ctx.daz)
    infinity_times_zero = (x.kind == INFINITY and y.kind == ZERO) or (x.kind == ZERO and y.kind == INFINITY)
    if x.kind >= QNAN or y.kind >= QNAN or z.kind >= QNAN:
        return propagate_nan(fmt, ctx, x, y, z)
    if infinity_times_zero:
        return invalid(fmt, ctx)
    sign = x.sign ^ y.sign ^ negate_product
    addend = z._replace(sign=z.sign ^ negate_c)
    product_infinite = x.kind == INFINITY or y.kind == INFINITY
    if product_infinite and z.kind == INFINITY and sign != addend.sign:
        return invalid(fmt, ctx)
    note_denormals(ctx, x, y, z)
    if product_infinite:
        return pack_infinity(fmt, sign)
    if z.kind == INFINITY:
        return pack_infinity(fmt, addend.sign)
    if x.kind == ZERO or y.kind == ZERO:
        return _finite_sum(fmt, Number(ZERO, sign, 0, 0), addend, ctx)
    product = Number(NORMAL, sign, x.exponent + y.exponent, x.significand * y.significand)
    return _finite_sum(fmt, product, addend, ctx)


def order(x: Number, y: Number) -> int:
    """LESS, EQUAL or GREATER of two numbers that aren't NaNs."""
    if x.kind == ZERO and y.kind == ZERO:
        return EQUAL
    if x.kind == INFINITY or y.kind == INFINITY:
        left = (x.kind == INFINITY) * (-1 if x.sign else 1)
        right = (y.kind == INFINITY) * (-1 if y.sign else 1)
    elif x.kind == ZERO or y.kind == ZERO or x.sign != y.sign:
        left = (x.kind != ZERO) * (-1 if x.sign else 1)
        right = (y.kind != ZERO) * (-1 if y.sign else 1)
    else:
        sign, _, significand = add_exact(x, y._replace(sign=y.sign ^ 1))
        left, right = (-1 if sign else 1) if significand else 0, 0
    return LESS if left < right else GREATER if left > right else EQUAL


def compare(fmt: Format, a: int, b: int, ctx: FloatContext, signaling: bool, fmt_b: Format | None = None) -> int:
    """LESS, EQUAL, GREATER or UNORDERED; if `signaling`, even a quiet NaN is an invalid operand (COMISS, FCOM)."""
    x, y = _operands(fmt, a, b, ctx, fmt_b)
    if x.kind >= QNAN or y.kind >= QNAN:
        if signaling or x.kind >= SNAN or y.kind >= SNAN:
            ctx.flags |= IE
        return UNORDERED
    note_denormals(ctx, x, y)
    return order(x, y)


def compare_predicate(fmt: Format, a: int, b: int, predicate: int, ctx: FloatContext) -> bool:
    """The CMPPS family; `predicate` is the immediate, 0-7 for SSE and 0-31 for AVX."""
    signaling = bool((_SIGNALING_PREDICATES >> (predicate & 15) ^ predicate >> 4) & 1)
    return bool(compare(fmt, a, b, ctx, signaling) & _PREDICATES[predicate & 15])


def minimum(fmt: Format, a: int, b: int, ctx: FloatContext) -> int:
    """MINPS: ``a if a < b else b``, so a NaN on either side or two zeros give b; any NaN is invalid."""
    return _select(fmt, a, b, ctx, LESS)


def maximum(fmt: Format, a: int, b: int, ctx: FloatContext) -> int:
    """MAXPS: ``a if a > b else b``."""
    return _select(fmt, a, b, ctx, GREATER)


def _select(fmt: Format, a: int, b: int, ctx: FloatContext, wanted: int) -> int:
    outcome = compare(fmt, a, b, ctx, True)
    chosen = a if outcome == wanted else b
    number = unpack(fmt, chosen, ctx.daz)
    return pack_zero(fmt, number.sign) if number.kind == ZERO else chosen
