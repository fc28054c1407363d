"""AVX-512's own arithmetic on integer lanes: ternary logic, rotates and shifts, counts, conflicts, multiply-adds.

Operations that are SSE's or AVX2's in a wider register are in packed.py and with those families.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pyemu.cpu.instruction import Instruction
from pyemu.cpu.ops import Operand, op
from pyemu.cpu.semantics import packed as table
from pyemu.cpu.semantics.sse import packed_vector, vector
from pyemu.cpu.semantics.sse2 import shift_immediate
from pyemu.cpu.semantics.vectors import Binary, Vector, broadcast, each, each_one, lanes, saturate_signed, use_simd
from pyemu.cpu.values import Value

Ternary = Callable[[Value, Value, Value], Value]
Size = tuple[str, int, str]  # letter, bits, EVEX.W
DOUBLES: tuple[Size, ...] = (("d", 32, "W0"), ("q", 64, "W1"))
WORDS: tuple[Size, ...] = (("w", 16, "W1"),)


def _repeated(lane: int) -> int:
    """Lanes of bytes and words have no embedded broadcast."""
    return lane if lane >= 32 else 0


# ---- ternary logic -------------------------------------------------------------------------------------------
def vpternlog(i: Instruction, dst: Operand, first: Operand, second: Operand, truth: Operand) -> None:
    """Bit 4a + 2b + c of the immediate is the result for bits a, b, c of the three operands."""
    use_simd(i)
    k = i.read(truth)

    def one(a: Value, b: Value, c: Value) -> Value:
        column = [k.bit(n).sext(64) for n in range(8)]
        for bit in (c, b, a):  # halve the table by one operand after the other
            column = [(bit & (yes ^ no)) ^ no for no, yes in zip(column[::2], column[1::2], strict=True)]
        return column[0]

    i.write(dst, i.map(64, one, i.read(dst), i.read(first), i.read(second)))


for _letter, _lane, _w in DOUBLES:
    op(
        f"EVEX.66.0F3A.{_w} 25 /r",
        "Vx,Hx,Wx,Ib",
        name=f"vpternlog{_letter}",
        feature="avx512f",
        element=_lane,
        broadcast=_lane,
    )(vpternlog)


# ---- shifts and rotates --------------------------------------------------------------------------------------
def rotate_left(a: Value, by: Value) -> Value:
    n = by & (a.width - 1)
    return (a << n) | (a >> (a.width - n))


def rotate_right(a: Value, by: Value) -> Value:
    n = by & (a.width - 1)
    return (a >> n) | (a << (a.width - n))


def funnel_left(a: Value, b: Value, by: Value) -> Value:
    """The upper half of a:b shifted left."""
    n = by & (a.width - 1)
    return (a << n) | (b >> (a.width - n))


def funnel_right(a: Value, b: Value, by: Value) -> Value:
    """The lower half of b:a shifted right."""
    n = by & (a.width - 1)
    return (a >> n) | (b << (a.width - n))


def by_immediate(lane: int, function: Binary) -> Vector:
    """One count for all lanes."""
    return lambda i, a, count: i.map(lane, function, a, broadcast(i, count.resize(lane), a.width))


def accumulate(i: Instruction, dst: Operand, first: Operand, second: Operand, lane: int, function: Ternary) -> None:
    """An operation on the lanes of three operands, of which the destination is the first."""
    use_simd(i)
    i.write(dst, i.map(lane, function, i.read(dst), i.read(first), i.read(second)))


def funnel_immediate(
    i: Instruction, dst: Operand, first: Operand, second: Operand, count: Operand, lane: int, function: Ternary
) -> None:
    use_simd(i)
    a, by = i.read(first), i.read(count).resize(lane)
    i.write(dst, i.map(lane, function, a, i.read(second), broadcast(i, by, a.width)))


for _letter, _lane, _w in DOUBLES:
    for _digit, _opcode, _name, _rotate in ((1, 0x15, "vprol", rotate_left), (0, 0x14, "vpror", rotate_right)):
        op(
            f"EVEX.66.0F.{_w} 72 /{_digit}",
            "Hx,Wx,Ib",
            name=_name + _letter,
            feature="avx512f",
            element=_lane,
            broadcast=_lane,
            extra=(by_immediate(_lane, _rotate),),
        )(shift_immediate)
        op(
            f"EVEX.66.0F38.{_w} {_opcode:02X} /r",
            "Vx,Hx,Wx",
            name=f"{_name}v{_letter}",
            feature="avx512f",
            element=_lane,
            broadcast=_lane,
            extra=(each(_lane, _rotate),),
        )(vector)

for _opcode, _name, _funnel in ((0x70, "vpshld", funnel_left), (0x72, "vpshrd", funnel_right)):
    for _letter, _lane, _w in DOUBLES + WORDS:
        _at = _opcode + (_lane != 16)
        op(
            f"EVEX.66.0F3A.{_w} {_at:02X} /r",
            "Vx,Hx,Wx,Ib",
            name=_name + _letter,
            feature="avx512vbmi2",
            element=_lane,
            broadcast=_repeated(_lane),
            extra=(_lane, _funnel),
        )(funnel_immediate)
        op(
            f"EVEX.66.0F38.{_w} {_at:02X} /r",
            "Vx,Hx,Wx",
            name=f"{_name}v{_letter}",
            feature="avx512vbmi2",
            element=_lane,
            broadcast=_repeated(_lane),
            extra=(_lane, _funnel),
        )(accumulate)


# ---- lane by lane --------------------------------------------------------------------------------------------
def _conflicts(lane: int) -> Vector:
    """VPCONFLICT: for each lane, which of those below it are equal to it."""

    def function(i: Instruction, a: Value, b: Value) -> Value:
        values, results = lanes(i, b, lane), []
        for n, x in enumerate(values):
            result = i.const(0, lane)
            for k in range(n):
                result = result | x.eq(values[k]).zext(lane) << k
            results.append(result)
        return i.join(results)

    return function


_ONE_SOURCE: tuple[tuple[int, str, str, Sequence[Size], Callable[[int], Vector], bool], ...] = (
    (0x44, "vplzcnt", "avx512cd", DOUBLES, lambda lane: each_one(lane, Value.ctlz), False),
    (0xC4, "vpconflict", "avx512cd", DOUBLES, _conflicts, True),
    (0x54, "vpopcnt", "avx512bitalg", (("b", 8, "W0"), *WORDS), lambda lane: each_one(lane, Value.ctpop), False),
    (0x55, "vpopcnt", "avx512-vpopcntdq", DOUBLES, lambda lane: each_one(lane, Value.ctpop), False),
    (0x1F, "vpabs", "avx512f", DOUBLES[1:], lambda lane: each_one(lane, table.absolute), False),
)
for _opcode, _name, _feature, _sizes, _make, _whole in _ONE_SOURCE:
    for _letter, _lane, _w in _sizes:
        op(
            f"EVEX.66.0F38.{_w} {_opcode:02X} /r",
            "Vx,Wx",
            name=_name + _letter,
            feature=_feature,
            element=_lane,
            broadcast=_repeated(_lane),
            whole=_whole,
            extra=(_make(_lane),),
        )(packed_vector)

_EXTREMES: tuple[tuple[int, str, Binary], ...] = (
    (0x39, "vpminsq", table.minimum_signed),
    (0x3D, "vpmaxsq", table.maximum_signed),
    (0x3B, "vpminuq", table.minimum_unsigned),
    (0x3F, "vpmaxuq", table.maximum_unsigned),
)
for _opcode, _name, _extreme in _EXTREMES:
    op(
        f"EVEX.66.0F38.W1 {_opcode:02X} /r",
        "Vx,Hx,Wx",
        name=_name,
        feature="avx512f",
        element=64,
        broadcast=64,
        extra=(each(64, _extreme),),
    )(vector)


def _multishift(i: Instruction, a: Value, b: Value) -> Value:
    """VPMULTISHIFTQB: eight bytes of each quadword of b, from the bits that the bytes of a name."""

    def byte(control: Value, value: Value) -> Value:
        return rotate_right(value, control.zext(64)).trunc(8)

    pairs = zip(lanes(i, a, 64), lanes(i, b, 64), strict=True)
    return i.join([i.join([byte(k, value) for k in lanes(i, controls, 8)]) for controls, value in pairs])


op(
    "EVEX.66.0F38.W1 83 /r",
    "Vx,Hx,Wx",
    name="vpmultishiftqb",
    feature="avx512vbmi",
    element=8,
    broadcast=64,
    whole=True,
    extra=(_multishift,),
)(vector)


# ---- multiply and add ----------------------------------------------------------------------------------------
def _multiply_52(high: bool) -> Ternary:
    """VPMADD52: a half of the product of 52-bit numbers, added."""

    def one(c: Value, a: Value, b: Value) -> Value:
        x, y = a & (1 << 52) - 1, b & (1 << 52) - 1
        if not high:
            return c + (x * y & (1 << 52) - 1)
        # the product in pieces of 26 bits: what is above bit 52
        mask = (1 << 26) - 1
        cross = (x >> 26) * (y & mask) + ((x & mask) * (y & mask) >> 26)
        middle = (x & mask) * (y >> 26) + (cross & mask)
        return c + (x >> 26) * (y >> 26) + (cross >> 26) + (middle >> 26)

    return one


def _dot(width: int, saturate: bool) -> Ternary:
    """VPDPBUSD (unsigned by signed bytes) and VPDPWSSD (signed words): the products of a doubleword, added."""

    def one(c: Value, a: Value, b: Value) -> Value:
        total = c.sext(64)
        for at in range(0, 32, width):
            x, y = a.bits(at, width), b.bits(at, width)
            total = total + (x.zext(64) if width == 8 else x.sext(64)) * y.sext(64)
        return saturate_signed(total, 32) if saturate else total.trunc(32)

    return one


for _opcode, _name, _feature, _lane, _w, _function in (
    (0xB4, "vpmadd52luq", "avx512ifma", 64, "W1", _multiply_52(high=False)),
    (0xB5, "vpmadd52huq", "avx512ifma", 64, "W1", _multiply_52(high=True)),
    (0x50, "vpdpbusd", "avx512vnni", 32, "W0", _dot(8, saturate=False)),
    (0x51, "vpdpbusds", "avx512vnni", 32, "W0", _dot(8, saturate=True)),
    (0x52, "vpdpwssd", "avx512vnni", 32, "W0", _dot(16, saturate=False)),
    (0x53, "vpdpwssds", "avx512vnni", 32, "W0", _dot(16, saturate=True)),
):
    op(
        f"EVEX.66.0F38.{_w} {_opcode:02X} /r",
        "Vx,Hx,Wx",
        name=_name,
        feature=_feature,
        element=_lane,
        broadcast=_lane,
        extra=(_lane, _function),
    )(accumulate)


# ---- sums of differences -------------------------------------------------------------------------------------
def _sums(i: Instruction, a: Value, b: Value) -> Value:
    """VDBPSADBW of 128 bits, whose second source is shuffled already: each half has four sums of four differences."""
    x, y, sums = lanes(i, a, 8), lanes(i, b, 8), []
    for half in (0, 8):
        for n in range(4):
            first = half + (n & 2) * 2
            total = table.byte_difference(x[first], y[half + n])
            for k in range(1, 4):
                total = total + table.byte_difference(x[first + k], y[half + n + k])
            sums.append(total)
    return i.join(sums)


@op("EVEX.66.0F3A.W0 42 /r", "Vx,Hx,Wx,Ib", feature="avx512bw", element=16, whole=True)
def vdbpsadbw(i: Instruction, dst: Operand, first: Operand, second: Operand, order: Operand) -> None:
    use_simd(i)
    control, sums = i.read(order), []
    for a, b in zip(lanes(i, i.read(first), 128), lanes(i, i.read(second), 128), strict=True):
        sums.append(_sums(i, a, i.join([i.lane(b, 32, control >> 2 * k) for k in range(4)])))
    i.write(dst, i.join(sums))
