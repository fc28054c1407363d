"""Foundations of the integer softfloat: formats, context, unpacking, rounding and NaN propagation.

Lives here: everything that every operation needs. The operations themselves are in `softfloat` (arithmetic,
comparison), `softfloat_convert` (formats, integers, rounding to integral), and `x87_arith`.

A number is a raw bit pattern (a Python int) together with a `Format`. Internally it is unpacked into a `Number`, whose
value is ``(-1)**sign * significand * 2**exponent`` with an *integer* significand, so all arithmetic is exact integer
arithmetic followed by one call of `round_pack`.
"""

from dataclasses import dataclass
from typing import NamedTuple

# Exception flags: the order of MXCSR[5:0] and of the x87 status word (SDM vol. 1, 10.2.3 and 8.1.3).
IE = 0x01
DE = 0x02
ZE = 0x04
OE = 0x08
UE = 0x10
PE = 0x20
ALL_EXCEPTIONS = 0x3F
# Found before the computation; if one of these is unmasked the operation isn't performed (SDM vol. 1, 11.5.1).
PRE_COMPUTATION = IE | DE | ZE

# Rounding control as in MXCSR.RC, the x87 control word and ROUNDSD's immediate (SDM vol. 1, table 4-8).
NEAREST = 0
DOWN = 1
UP = 2
TOWARD_ZERO = 3

# Kinds of numbers. Their order matters: everything from QNAN on isn't a number.
ZERO = 0
NORMAL = 1
DENORMAL = 2
INFINITY = 3
QNAN = 4
SNAN = 5
UNSUPPORTED = 6  # x87 encodings that the 80387 and later reject: unnormal, pseudo-infinity, pseudo-NaN

QUIET_BIT = 1 << 62  # in a NaN's significand, which is always left-aligned to the 64 bits of extended precision
INTEGER_BIT = 1 << 63
# An unmasked x87 overflow or underflow moves the exponent by this much (SDM vol. 1, 8.5.4 and 8.5.5).
WRAP_BIAS = 24576


@dataclass(frozen=True, slots=True)
class Format:
    """A binary interchange format; `precision` counts the integer bit, whether or not it is stored."""

    name: str
    width: int
    exponent_bits: int
    precision: int
    explicit: bool
    bias: int
    emin: int
    emax: int
    sign_bit: int
    exponent_field: int  # all-ones exponent, unshifted
    stored: int  # how many significand bits are stored
    default_nan: int


def _format(name: str, exponent_bits: int, precision: int, explicit: bool) -> Format:
    stored = precision if explicit else precision - 1
    bias = (1 << (exponent_bits - 1)) - 1
    field = (1 << exponent_bits) - 1
    width = 1 + exponent_bits + stored
    significand = (1 << (precision - 2)) | ((1 << (precision - 1)) if explicit else 0)
    default_nan = (1 << (width - 1)) | (field << stored) | significand
    return Format(
        name,
        width,
        exponent_bits,
        precision,
        explicit,
        bias,
        1 - bias,
        bias,
        1 << (width - 1),
        field,
        stored,
        default_nan,
    )


F16 = _format("binary16", 5, 11, False)
F32 = _format("binary32", 8, 24, False)
F64 = _format("binary64", 11, 53, False)
X80 = _format("extended80", 15, 64, True)


class Number(NamedTuple):
    """An unpacked number. For a NaN, `significand` is the left-aligned 64-bit significand with the integer bit set."""

    kind: int
    sign: int
    exponent: int
    significand: int


@dataclass(slots=True)
class FloatContext:
    """What the control register says, and what operations found out: `flags` accumulates, `rounded_up` is the last."""

    rounding: int = NEAREST
    daz: bool = False
    ftz: bool = False
    precision: int = 64  # x87 precision control: bits of significand that FADD, FSUB, FMUL, FDIV and FSQRT deliver
    x87: bool = False  # NaN selection rule and wrapped results of unmasked exceptions
    masks: int = ALL_EXCEPTIONS
    flags: int = 0
    rounded_up: bool = False  # condition code C1 of inexact x87 results

    @classmethod
    def from_mxcsr(cls, mxcsr: int) -> "FloatContext":
        """The environment of SSE; `flags` starts empty (SDM vol. 1, figure 10-3)."""
        return cls(
            rounding=mxcsr >> 13 & 3,
            daz=bool(mxcsr & 0x40),
            ftz=bool(mxcsr & 0x8000),
            masks=mxcsr >> 7 & ALL_EXCEPTIONS,
        )

    @classmethod
    def from_control_word(cls, word: int) -> "FloatContext":
        """The environment of x87; the reserved precision 01b is taken as extended (SDM vol. 1, figure 8-6)."""
        return cls(
            rounding=word >> 10 & 3, precision=(24, 64, 53, 64)[word >> 8 & 3], x87=True, masks=word & ALL_EXCEPTIONS
        )


def reported_flags(flags: int, masks: int, to_memory: bool = False) -> int:
    """Flags the processor really sets when `masks` (1 = masked) leaves some of `flags` unmasked.

    An unmasked pre-computation exception stops the operation before it can overflow, underflow or round. For a packed
    SSE operation, `flags` is the union over all elements (SDM vol. 1, 11.5.3). `to_memory` is for FST/FSTP m32/m64: if
    an unmasked overflow or underflow prevents the store, nothing is said about precision (SDM vol. 1, 8.5.4).
    """
    if flags & ~masks & PRE_COMPUTATION:
        return flags & PRE_COMPUTATION
    if to_memory and flags & ~masks & (OE | UE):
        return flags & ~PE
    return flags


def unpack(fmt: Format, bits: int, daz: bool = False) -> Number:
    """Take a bit pattern apart; with `daz`, denormals are zeros."""
    sign = bits >> (fmt.width - 1) & 1
    field = bits >> fmt.stored & fmt.exponent_field
    fraction = bits & ((1 << fmt.stored) - 1)
    if fmt.explicit:
        return _unpack_explicit(fmt, sign, field, fraction)
    if field == fmt.exponent_field:
        if not fraction:
            return Number(INFINITY, sign, 0, 0)
        significand = INTEGER_BIT | fraction << (63 - fmt.stored)
        return Number(QNAN if significand & QUIET_BIT else SNAN, sign, 0, significand)
    if field:
        return Number(NORMAL, sign, field - fmt.bias - fmt.stored, fraction | 1 << fmt.stored)
    if not fraction or daz:
        return Number(ZERO, sign, 0, 0)
    return Number(DENORMAL, sign, fmt.emin - fmt.stored, fraction)


def _unpack_explicit(fmt: Format, sign: int, field: int, significand: int) -> Number:
    if field == 0:
        if not significand:
            return Number(ZERO, sign, 0, 0)
        # A pseudo-denormal (integer bit set) has the value of the normal number with exponent field 1, but counts as
        # denormal.
        return Number(DENORMAL, sign, fmt.emin - 63, significand)
    if not significand & INTEGER_BIT:
        return Number(UNSUPPORTED, sign, 0, significand)
    if field == fmt.exponent_field:
        if significand == INTEGER_BIT:
            return Number(INFINITY, sign, 0, 0)
        return Number(QNAN if significand & QUIET_BIT else SNAN, sign, 0, significand)
    return Number(NORMAL, sign, field - fmt.bias - 63, significand)


def pack_zero(fmt: Format, sign: int) -> int:
    return fmt.sign_bit if sign else 0


def pack_infinity(fmt: Format, sign: int) -> int:
    bits = fmt.exponent_field << fmt.stored | (INTEGER_BIT if fmt.explicit else 0)
    return bits | fmt.sign_bit if sign else bits


def pack_nan(fmt: Format, number: Number) -> int:
    """The quiet NaN with the sign and the leading payload bits of `number`."""
    significand = number.significand | QUIET_BIT
    fraction = significand >> (64 - fmt.precision) & ((1 << fmt.stored) - 1)
    bits = fmt.exponent_field << fmt.stored | fraction
    return bits | fmt.sign_bit if number.sign else bits


def invalid(fmt: Format, ctx: FloatContext) -> int:
    """The masked response to an invalid operation: the default NaN."""
    ctx.flags |= IE
    return fmt.default_nan


def propagate_nan(fmt: Format, ctx: FloatContext, *operands: Number) -> int:
    """The result of an operation at least one of whose operands is a NaN or unsupported."""
    for operand in operands:
        if operand.kind == UNSUPPORTED:
            return invalid(fmt, ctx)
    nans = [operand for operand in operands if operand.kind >= QNAN]
    if any(operand.kind == SNAN for operand in nans):
        ctx.flags |= IE
    if not ctx.x87 or len(nans) == 1:
        return pack_nan(fmt, nans[0])
    # x87 (SDM vol. 1, table 4-7): a quiet NaN beats a signaling one, then the larger significand, then a
    # positive sign.
    quiet = [operand for operand in nans if operand.kind == QNAN]
    candidates = quiet if len(quiet) == 1 else nans
    return pack_nan(fmt, max(candidates, key=lambda operand: (operand.significand, 1 - operand.sign)))


def note_denormals(ctx: FloatContext, *operands: Number) -> None:
    for operand in operands:
        if operand.kind == DENORMAL:
            ctx.flags |= DE


def round_shift(significand: int, drop: int, sign: int, rounding: int) -> int:
    """`significand / 2**drop`, rounded to an integer in the given mode; the sign matters for the directed modes."""
    if drop <= 0:
        return significand << -drop
    quotient = significand >> drop
    rest = significand - (quotient << drop)
    if not rest or rounding == TOWARD_ZERO:
        return quotient
    if rounding == NEAREST:
        half = 1 << (drop - 1)
        return quotient + (rest > half or (rest == half and quotient & 1))
    return quotient + (sign == (rounding == DOWN))


def round_pack(fmt: Format, sign: int, exponent: int, significand: int, ctx: FloatContext, precision: int = 0) -> int:
    """Round ``significand * 2**exponent`` (not zero) into `fmt`, note the exceptions and give the masked response.

    Whoever has an irrational or periodic value passes its truncation with at least precision + 2 bits and a lowest bit
    that is set ("sticky"). `precision` is x87 precision control: fewer bits in the unchanged exponent range.
    """
    bits_kept = precision or fmt.precision
    drop = significand.bit_length() - bits_kept
    top = exponent + significand.bit_length() - 1
    wraps = ctx.x87 and fmt.explicit
    rounded = round_shift(significand, drop, sign, ctx.rounding)
    tiny = top < fmt.emin and not (top == fmt.emin - 1 and rounded >> bits_kept)
    if tiny and ctx.masks & UE and ctx.ftz and not fmt.explicit:
        ctx.flags |= UE | PE
        return pack_zero(fmt, sign)
    if tiny and wraps and not ctx.masks & UE:
        top += WRAP_BIAS
        exponent += WRAP_BIAS
        if top < fmt.emin:  # FSCALE can go that far
            ctx.flags |= UE | PE
            return pack_zero(fmt, sign)
    # what an unmasked exception says of precision is about the result before its exponent is found to be out of range
    unbounded_inexact = drop > 0 and (rounded << drop) != significand
    if top < fmt.emin:
        drop += fmt.emin - top
        top = fmt.emin
        rounded = round_shift(significand, drop, sign, ctx.rounding)
    inexact = drop > 0 and (rounded << drop) != significand
    ctx.rounded_up = inexact and (rounded << drop) > significand
    if rounded >> bits_kept:
        rounded >>= 1
        top += 1
    if top > fmt.emax:
        ctx.flags |= OE
        if not wraps or ctx.masks & OE:
            if unbounded_inexact or ctx.masks & OE:
                ctx.flags |= PE
            return _overflow(fmt, sign, ctx, bits_kept)
        top -= WRAP_BIAS
        if top > fmt.emax:
            ctx.flags |= PE
            ctx.rounded_up = True
            return pack_infinity(fmt, sign)
    if tiny and not ctx.masks & UE and not wraps:
        inexact = unbounded_inexact
    if inexact:
        ctx.flags |= PE
    if tiny and (inexact or not ctx.masks & UE):
        ctx.flags |= UE
    rounded <<= fmt.precision - bits_kept
    field = top + fmt.bias if rounded >> (fmt.precision - 1) else 0
    bits = field << fmt.stored | rounded & ((1 << fmt.stored) - 1)
    return bits | fmt.sign_bit if sign else bits


def _overflow(fmt: Format, sign: int, ctx: FloatContext, bits_kept: int) -> int:
    """Infinity, or the largest finite number if the rounding mode doesn't lead away from zero."""
    ctx.rounded_up = ctx.rounding == NEAREST or ctx.rounding == (DOWN if sign else UP)
    if ctx.rounded_up:
        return pack_infinity(fmt, sign)
    significand = ((1 << bits_kept) - 1) << (fmt.precision - bits_kept)
    bits = (fmt.exponent_field - 1) << fmt.stored | significand & ((1 << fmt.stored) - 1)
    return bits | fmt.sign_bit if sign else bits
