"""Floating point that AVX-512 adds: exponents and mantissas taken apart and put together, rounding to fractions,
ranges, classes and repairs of special numbers.

All of it is bits, and the few operations that raise what the manual says: a comparison of a number with itself for
invalid (signalling NaNs) and denormal operands, a root of -1 for invalid alone. Not here: conversions, and arithmetic
that SSE has too (sse.py, sse2.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyemu.cpu import approximations14
from pyemu.cpu.instruction import Instruction
from pyemu.cpu.ops import Operand, Semantics
from pyemu.cpu.semantics.rows import Evex, simd
from pyemu.cpu.semantics.vectors import lanes, set_low, use_simd
from pyemu.cpu.state import State
from pyemu.cpu.values import Value

FRACTION = {32: 23, 64: 52}  # bits
LANES = ((32, "s", "W0"), (64, "d", "W1"))


class Bits:
    """One number, or a vector of them, taken apart; everything of the number's width."""

    def __init__(self, i: Instruction, x: Value) -> None:
        self.i, self.width, self.fraction_bits = i, x.width, FRACTION[x.width]
        self.bias = (1 << (x.width - self.fraction_bits - 2)) - 1
        self.infinite = (1 << (x.width - 1)) - (1 << self.fraction_bits)  # the pattern of +infinity
        self.quiet_bit = 1 << (self.fraction_bits - 1)
        self.x = x
        self.sign_bit = x & (1 << (x.width - 1))
        self.magnitude = x & ((1 << (x.width - 1)) - 1)
        self.exponent = self.magnitude >> self.fraction_bits
        self.fraction = x & ((1 << self.fraction_bits) - 1)

    @property
    def one(self) -> int:
        """The pattern of 1.0."""
        return self.bias << self.fraction_bits

    @property
    def indefinite(self) -> int:
        """The pattern of the QNaN that an invalid operation gives."""
        return (1 << (self.width - 1)) | self.infinite | self.quiet_bit

    def nan(self) -> Value:
        return self.i.like(self.infinite, self.x).ult(self.magnitude)

    def quieted(self) -> Value:
        return self.x | self.quiet_bit

    def zero(self) -> Value:
        """Also a denormal under DAZ."""
        daz = self.i.mxcsr().bit(6)
        return self.magnitude.eq(0) | (daz.select(self.exponent, 1)).eq(0)

    def normalised(self) -> tuple[Value, Value]:
        """Unbiased exponent (signed) and fraction as if the exponent had no lower limit; of numbers that aren't 0."""
        denormal = self.exponent.eq(0)
        # Places up to the leading 1. LLVM may shift by converting powers of two to integers, and what that raises would
        # be seen: an amount must be one that exists.
        leading = denormal.select(self.magnitude.ctlz() - (self.width - 1 - self.fraction_bits), 0)
        exponent = denormal.select(-leading - (self.bias - 1), self.exponent - self.bias)
        fraction = (self.magnitude << leading) & ((1 << self.fraction_bits) - 1)
        return exponent, fraction


def note_operands(i: Instruction, a: Value, b: Value) -> None:
    """Raise invalid for a signalling NaN and denormal for a denormal number."""
    i.compare("feq", a, b)


def note_invalid(i: Instruction, condition: Value, like: Bits) -> None:
    """Raise invalid where a condition holds."""
    one = like.one
    condition.select(i.like(one | 1 << (like.width - 1), like.x), one).fsqrt()


# ---- taking apart ----------------------------------------------------------------------------------------------
def get_exponent(i: Instruction, x: Value) -> Value:
    """VGETEXP: the exponent as a number; -infinity for 0, +infinity for an infinity."""
    n = Bits(i, x)
    note_operands(i, x, x)
    exponent, _ = n.normalised()
    result = i.convert("int_to_float", n.zero().select(0, exponent), x.width)
    result = n.zero().select(n.infinite | 1 << (x.width - 1), result)
    result = n.magnitude.eq(n.infinite).select(n.infinite, result)
    return n.nan().select(n.quieted(), result)


def get_mantissa(i: Instruction, x: Value, control: Value) -> Value:
    """VGETMANT: the number with its exponent replaced. Bits 1-0 of the control choose the interval, 3-2 the sign."""
    n = Bits(i, x)
    special = n.zero() | n.magnitude.eq(n.infinite)
    refused = n.sign_bit.ne(0) & ~n.zero() & ~n.nan() & control.bit(3)
    note_operands(i, refused.select(n.one, x), refused.select(n.one, x))
    note_invalid(i, refused, n)
    exponent, fraction = n.normalised()
    half = n.one - (1 << n.fraction_bits)
    odd, upper = exponent.trunc(1), fraction.bits(n.fraction_bits - 1, 1)
    # intervals 0: [1, 2), 1: [1/2, 2) by the exponent's parity, 2: [1/2, 1), 3: [3/4, 3/2)
    lower = control.bit(1).select(~control.bit(0) | upper, control.bit(0) & odd)
    by_interval = lower.select(half, i.like(n.one, x))
    sign = control.bit(2).select(0, n.sign_bit)
    result = special.select(sign | n.one, by_interval | fraction | sign)
    result = refused.select(n.indefinite, result)
    return n.nan().select(n.quieted(), result)


def scale(i: Instruction, a: Value, b: Value) -> Value:
    """VSCALEF: a * 2 ** floor(b), rounded once: a's exponent is moved as far as it goes, a product does the rest."""
    x, y = Bits(i, a), Bits(i, b)
    width, bits = a.width, x.fraction_bits
    invalid = (x.magnitude.eq(x.infinite) & b.eq(y.infinite | 1 << (width - 1))) | (x.zero() & b.eq(y.infinite))
    invalid = invalid & ~x.nan()
    note_operands(i, a, y.exponent.eq(0).select(0, b))  # a denormal exponent is not worth mentioning
    note_invalid(i, invalid, x)
    # floor(b) as an integer, limited to what matters
    limit = 4 << (width - 1 - bits)
    large = (y.exponent + 0).ult(i.like(y.bias + width - bits + 2, b)) ^ 1
    below = y.exponent.ult(i.like(y.bias, b))  # less than 1
    shift = (below | large).select(0, i.like(y.bias + bits, b) - y.exponent)
    whole = (y.fraction | 1 << bits) >> shift
    exact = (whole << shift).eq(y.fraction | 1 << bits)
    negative = y.sign_bit.ne(0)
    whole, exact = below.select(0, whole), below.select(y.zero().select(-1, i.like(0, b)), exact.sext(width)).ne(0)
    floor = negative.select(exact.select(-whole, -whole - 1), whole)
    floor = large.select(negative.select(-limit, i.like(limit, b)), floor)
    floor = y.zero().select(0, floor)
    exponent, fraction = x.normalised()
    target = exponent + floor
    low, high = i.like(1 - x.bias, a), i.like(x.bias, a)
    near = target.slt(low).select(low, high.slt(target).select(high, target))
    rest = target - near
    rest = rest.slt(low).select(low, high.slt(rest).select(high, rest))
    plain = x.nan() | y.nan() | x.zero() | x.magnitude.eq(x.infinite) | y.magnitude.eq(y.infinite)
    moved = x.sign_bit | ((near + x.bias) << bits) | fraction
    power = (rest + x.bias) << bits
    product = plain.select(x.one, moved).fmul(plain.select(y.one, power))
    result = plain.select(a, product)
    infinite = y.magnitude.eq(y.infinite)
    sign = x.nan().select(0, x.sign_bit)
    to_infinity = negative.select(sign, sign | x.infinite)
    result = (x.zero() & ~infinite).select(x.sign_bit, result)
    result = (infinite & ~(x.magnitude.eq(x.infinite) & ~negative)).select(to_infinity, result)
    result = invalid.select(x.indefinite, result)
    quiet = x.x & x.quiet_bit
    keeps = x.nan() & (~infinite | quiet.eq(0))
    return keeps.select(x.quieted(), (y.nan() & ~x.nan()).select(y.quieted(), result))


# ---- rounding ----------------------------------------------------------------------------------------------------
def round_to_fraction(i: Instruction, x: Value, control: Value) -> Value:
    """VRNDSCALE: to a multiple of 2 ** -M, M in the control's upper half; its lower half is that of ROUNDPS."""
    n = Bits(i, x)
    places = (control >> 4).resize(n.width)
    # a denormal rounds as the smallest normal number does, but raises nothing
    tiny = n.exponent.eq(0) & ~n.zero()
    large = n.exponent.ult(i.like(n.bias + n.fraction_bits, x)) ^ 1
    value = tiny.select(n.sign_bit | 1 << n.fraction_bits, n.zero().select(n.sign_bit, x))
    skip = large | n.zero()
    up = skip.select(value, value + (i.like(0, x) + places << n.fraction_bits))
    rounded = i.round_float(up, control & 15)
    down = rounded - (i.like(0, x) + places << n.fraction_bits)
    return (skip | (rounded << 1).eq(0)).select(rounded, down)


def reduce(i: Instruction, x: Value, control: Value) -> Value:
    """VREDUCE: what rounding to a fraction takes away, itself rounded as the control says; 0 of an infinity."""
    i.unreported = control.bit(3).zext(32) << 5  # PE, if the control says so
    i.rounding = control.bit(2).select(i.mxcsr_rounding(), control & 3)
    n = Bits(i, x)
    infinite = n.magnitude.eq(n.infinite)
    rounded = round_to_fraction(i, x, control | 8)
    tiny = n.exponent.eq(0) & ~n.zero()  # raises nothing: the smallest normal number has the same rounded difference
    value = tiny.select(n.sign_bit | 1 << n.fraction_bits, n.zero().select(n.sign_bit, x))
    to_zero = (rounded << 1).eq(0)
    difference = infinite.select(0, (tiny & to_zero).select(0, value)).fsub(infinite.select(0, rounded))
    flushed = tiny & to_zero & i.mxcsr().bit(15) & i.mxcsr().bit(11)  # FTZ, if underflow is masked
    i.like(n.one, x).fadd(flushed.select(i.like(1 << n.fraction_bits, x), 0))  # inexact
    difference = (tiny & to_zero).select(flushed.select(n.sign_bit, x), difference)
    return n.nan().select(n.quieted(), infinite.select(0, difference))


def choose(i: Instruction, a: Value, b: Value, control: Value) -> Value:
    """VRANGE: the smaller or larger, by value or by magnitude, with a sign that bits 3-2 choose."""
    x, y = Bits(i, a), Bits(i, b)
    note_operands(i, a, b)
    daz = i.mxcsr().bit(6)
    p, q = (Bits(i, (daz & n.exponent.eq(0)).select(n.sign_bit, n.x)) for n in (x, y))
    order = [n.sign_bit.ne(0).select(~n.x, n.x | 1 << (n.width - 1)) for n in (p, q)]  # as unsigned numbers
    by_value = order[0].ult(order[1])
    by_magnitude = p.magnitude.eq(q.magnitude).select(by_value.sext(1), p.magnitude.ult(q.magnitude))
    less = control.bit(1).select(by_magnitude, by_value)
    result = (less ^ control.bit(0)).select(p.x, q.x)
    quiet_x, quiet_y = (x.x & x.quiet_bit).ne(0), (y.x & y.quiet_bit).ne(0)
    # a quiet NaN beside a number loses, and of two the first wins
    result = x.nan().select(y.nan().select(a, q.x), y.nan().select(p.x, result))
    top = 1 << (a.width - 1)
    result = control.bit(2).select(
        control.bit(3).select(result | top, result),
        control.bit(3).select(result & (top - 1), (result & (top - 1)) | x.sign_bit),
    )
    result = (y.nan() & ~quiet_y).select(y.quieted(), result)
    return (x.nan() & ~quiet_x).select(x.quieted(), result)


# ---- classes and repairs -------------------------------------------------------------------------------------------
def classify(i: Instruction, x: Value, wanted: Value) -> Value:
    """VFPCLASS, width 1: is the number in one of the wanted classes?"""
    n = Bits(i, x)
    negative, zero, infinite = n.sign_bit.ne(0), n.zero(), n.magnitude.eq(n.infinite)
    quiet = (x & n.quiet_bit).ne(0)
    finite = ~n.nan() & ~infinite
    denormal = n.exponent.eq(0) & ~zero
    classes = (
        n.nan() & quiet,
        zero & ~negative,
        zero & negative,
        infinite & ~negative,
        infinite & negative,
        denormal,
        finite & negative & ~zero,
        n.nan() & ~quiet,
    )
    found = classes[0] & wanted.bit(0)
    for k in range(1, 8):
        found = found | (classes[k] & wanted.bit(k))
    return found


HALF, NINETY, HALF_PI = (
    {32: 0x3F000000, 64: 0x3FE0000000000000},
    {32: 0x42B40000, 64: 0x4056800000000000},
    {32: 0x3FC90FDB, 64: 0x3FF921FB54442D18},
)


def repair(i: Instruction, old: Value, x: Value, table: Value, control: Value) -> Value:
    """VFIXUPIMM: the class of x picks four bits of the table, which say what the result is."""
    daz, n = i.mxcsr().bit(6), Bits(i, x)
    x = (daz & n.exponent.eq(0)).select(n.sign_bit, x)
    n = Bits(i, x)
    width, top = n.width, 1 << (n.width - 1)
    negative, infinite, zero = n.sign_bit.ne(0), n.magnitude.eq(n.infinite), n.magnitude.eq(0)
    signalling, one = n.nan() & (x & n.quiet_bit).eq(0), x.eq(n.one)
    token = negative.select(i.like(6, x), 7)
    for condition, number in ((infinite, None), (one, 3), (zero, 2), (n.nan(), 0), (signalling, 1)):
        value = i.like(number, x) if number is not None else negative.select(i.like(4, x), 5)
        token = condition.select(value, token)
    response = (table >> (token << 2)) & 15
    choices: tuple[Value | int, ...] = (
        old, x, x | n.infinite | n.quiet_bit, n.indefinite,
        top | n.infinite, n.infinite, n.sign_bit | n.infinite, top, 0, top | n.one,
        n.one, HALF[width], NINETY[width], HALF_PI[width], n.infinite - 1, top | n.infinite - 1,
    )  # fmt: skip
    result = old
    for number, choice in enumerate(choices):
        result = response.eq(number).select(i.like(choice, x), result)
    finite_negative = negative & ~infinite & ~n.nan() & ~zero & ~one
    divide = (zero & control.bit(0)) | (one & control.bit(2))
    invalid = (zero & control.bit(1)) | (one & control.bit(3)) | (signalling & control.bit(4))
    invalid = invalid | (infinite & negative & control.bit(5)) | (finite_negative & control.bit(6))
    invalid = invalid | (infinite & ~negative & control.bit(7))
    note_invalid(i, invalid, n)
    i.like(n.one, x).fdiv(divide.select(0, i.like(n.one, x)))
    return result


# ---- rows ----------------------------------------------------------------------------------------------------------
Unary = Callable[[Instruction, Value], Value]
UnaryControl = Callable[[Instruction, Value, Value], Value]
Binary = Callable[[Instruction, Value, Value], Value]
BinaryControl = Callable[[Instruction, Value, Value, Value], Value]


def one(i: Instruction, dst: Operand, src: Operand, lane: int, function: Unary) -> None:
    use_simd(i)
    i.write(dst, i.map(lane, lambda x: function(i, x), i.active(i.read(src), lane)))


def one_scalar(i: Instruction, dst: Operand, first: Operand, src: Operand, lane: int, function: Unary) -> None:
    use_simd(i)
    set_low(i, dst, i.read(first), function(i, i.active(i.read(src).trunc(lane), lane)))


def one_control(
    i: Instruction, dst: Operand, src: Operand, control: Operand, lane: int, function: UnaryControl
) -> None:
    use_simd(i)
    how = i.read(control)
    i.write(dst, i.map(lane, lambda x: function(i, x, how), i.active(i.read(src), lane)))


def one_control_scalar(
    i: Instruction, dst: Operand, first: Operand, src: Operand, control: Operand, lane: int, function: UnaryControl
) -> None:
    use_simd(i)
    set_low(i, dst, i.read(first), function(i, i.active(i.read(src).trunc(lane), lane), i.read(control)))


def two(i: Instruction, dst: Operand, first: Operand, second: Operand, lane: int, function: Binary) -> None:
    use_simd(i)
    a, b = (i.active(i.read(o), lane) for o in (first, second))
    i.write(dst, i.map(lane, lambda x, y: function(i, x, y), a, b))


def two_scalar(i: Instruction, dst: Operand, first: Operand, second: Operand, lane: int, function: Binary) -> None:
    use_simd(i)
    a, b = (i.active(i.read(o).trunc(lane), lane) for o in (first, second))
    set_low(i, dst, i.read(first), function(i, a, b))


def two_control(
    i: Instruction, dst: Operand, first: Operand, second: Operand, control: Operand, lane: int, function: BinaryControl
) -> None:
    use_simd(i)
    how = i.read(control)
    a, b = (i.active(i.read(o), lane) for o in (first, second))
    i.write(dst, i.map(lane, lambda x, y: function(i, x, y, how), a, b))


def two_control_scalar(
    i: Instruction, dst: Operand, first: Operand, second: Operand, control: Operand, lane: int, function: BinaryControl
) -> None:
    use_simd(i)
    a, b = (i.active(i.read(o).trunc(lane), lane) for o in (first, second))
    set_low(i, dst, i.read(first), function(i, a, b, i.read(control)))


TWO = {32: 0x40000000, 64: 0x4000000000000000}  # of which nobody asks for an exception


def fix(i: Instruction, dst: Operand, first: Operand, second: Operand, control: Operand, lane: int) -> None:
    use_simd(i)
    how = i.read(control)
    a, table = i.active(i.read(first), lane, TWO[lane]), i.read(second)
    i.write(dst, i.map(lane, lambda o, x, t: repair(i, o, x, t, how), i.read(dst), a, table))


def fix_scalar(i: Instruction, dst: Operand, first: Operand, second: Operand, control: Operand, lane: int) -> None:
    use_simd(i)
    a, table = i.active(i.read(first).trunc(lane), lane, TWO[lane]), i.read(second).trunc(lane)
    set_low(i, dst, i.read(first), repair(i, i.read(dst).trunc(lane), a, table, i.read(control)))


def classes(i: Instruction, dst: Operand, src: Operand, control: Operand, lane: int) -> None:
    use_simd(i)
    wanted = i.read(control)
    value = i.read(src)
    if i.form.scalar:
        value = value.trunc(lane)
    i.write_mask(dst, i.map(lane, lambda x: classify(i, x, wanted), value))


def approximate(i: Instruction, dst: Operand, src: Operand, lane: int, function: Callable[[State, int], int]) -> None:
    """VRCP14 and VRSQRT14, packed."""
    use_simd(i)
    i.write(dst, i.join([_approximated(i, x, function) for x in lanes(i, i.read(src), lane)]))


def approximate_scalar(
    i: Instruction, dst: Operand, first: Operand, src: Operand, lane: int, function: Callable[[State, int], int]
) -> None:
    use_simd(i)
    set_low(i, dst, i.read(first), _approximated(i, i.read(src).trunc(lane), function))


def _approximated(i: Instruction, x: Value, function: Callable[[State, int], int]) -> Value:
    i.call(function, x)
    return i.value(x.width)


_F, _DQ = "avx512f", "avx512dq"
for _lane, _letter, _w in LANES:
    _s = f"Ws{_letter}"
    # opcode of the packed form, mnemonic, rounding, definitions, what they share, feature; the scalar one follows
    _both: tuple[tuple[str, str, str, str, Semantics, Semantics, Any, str], ...] = (
        ("38 42", "getexp", "sae", "", one, one_scalar, get_exponent, _F),
        ("3A 26", "getmant", "sae", ",Ib", one_control, one_control_scalar, get_mantissa, _F),
        ("38 2C", "scalef", "er", "", two, two_scalar, scale, _F),
        ("3A 56", "reduce", "sae", ",Ib", one_control, one_control_scalar, reduce, _DQ),
        ("3A 50", "range", "sae", ",Ib", two_control, two_control_scalar, choose, _DQ),
    )
    for _text, _name, _rounding, _imm, _packed, _scalar, _function, _feature in _both:
        _map, _opcode = _text.split()
        _operands = f"Vx,{'Hx,' if _name in ('scalef', 'range') else ''}Wx{_imm}"
        _evex = Evex(_feature, _lane, _w, _lane, _rounding)
        _extra = (_lane, _function)
        simd(f"66 0F {_text} /r", _operands, f"{_name}p{_letter}", avx="", evex=_evex, extra=_extra)(_packed)
        _evex = Evex(_feature, _lane, _w, rounding=_rounding, lengths="LIG")
        _text = f"66 0F {_map} {int(_opcode, 16) + 1:02X} /r"
        simd(_text, f"Vdq,Hdq,{_s}{_imm}", f"{_name}s{_letter}", avx="", evex=_evex, extra=_extra)(_scalar)
    _extra = (_lane, round_to_fraction)
    _first = 0x08 if _lane == 32 else 0x09
    _evex = Evex(_F, _lane, _w, _lane, "sae")
    simd(f"66 0F 3A {_first:02X} /r", "Vx,Wx,Ib", f"rndscalep{_letter}", avx="", evex=_evex, extra=_extra)(one_control)
    _evex = Evex(_F, _lane, _w, rounding="sae", lengths="LIG")
    _text = f"66 0F 3A {_first + 2:02X} /r"
    simd(_text, f"Vdq,Hdq,{_s},Ib", f"rndscales{_letter}", avx="", evex=_evex, extra=_extra)(one_control_scalar)
    _evex = Evex(_F, _lane, _w, _lane, "sae")
    simd("66 0F 3A 54 /r", "Vx,Hx,Wx,Ib", f"fixupimmp{_letter}", avx="", evex=_evex, extra=(_lane,))(fix)
    _evex = Evex(_F, _lane, _w, rounding="sae", lengths="LIG")
    simd("66 0F 3A 55 /r", f"Vdq,Hdq,{_s},Ib", f"fixupimms{_letter}", avx="", evex=_evex, extra=(_lane,))(fix_scalar)
    _evex = Evex(_DQ, _lane, _w, _lane, masking="k")
    simd("66 0F 3A 66 /r", "KGq,Wx,Ib", f"fpclassp{_letter}", avx="", evex=_evex, extra=(_lane,))(classes)
    _evex = Evex(_DQ, _lane, _w, masking="k", lengths="LIG")
    simd("66 0F 3A 67 /r", f"KGq,{_s},Ib", f"fpclasss{_letter}", avx="", evex=_evex, extra=(_lane,))(classes)
    for _at, _name, _which in (
        (0x4C, "rcp14", approximations14.RECIPROCAL_14[_lane]),
        (0x4E, "rsqrt14", approximations14.RECIPROCAL_ROOT_14[_lane]),
    ):
        _evex = Evex(_F, _lane, _w, _lane)
        _text = f"66 0F 38 {_at:02X} /r"
        simd(_text, "Vx,Wx", f"{_name}p{_letter}", avx="", evex=_evex, extra=(_lane, _which))(approximate)
        _evex = Evex(_F, _lane, _w, lengths="LIG")
        _text = f"66 0F 38 {_at + 1:02X} /r"
        simd(_text, f"Vdq,Hdq,{_s}", f"{_name}s{_letter}", avx="", evex=_evex, extra=(_lane, _which))(
            approximate_scalar
        )
