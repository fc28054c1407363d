"""SSE2 and SSE3: integers in XMM registers, conversions, and SSE3's horizontal and duplicating additions.

The arithmetic on double precision is in sse.py, with the single one; the meaning of integer lanes is in packed.py.
"""

from __future__ import annotations

from collections.abc import Callable

from pyemu.cpu import masked_store
from pyemu.cpu.instruction import WRITE, Instruction
from pyemu.cpu.ops import Operand, op
from pyemu.cpu.semantics import packed as table
from pyemu.cpu.semantics.sse import vector
from pyemu.cpu.semantics.vectors import Vector, lanes, set_low, set_mm, source, store_aligned, use_mmx, use_sse
from pyemu.cpu.state import RDI
from pyemu.cpu.values import Value


# ---- integers ------------------------------------------------------------------------------------------------
def shift_immediate(i: Instruction, dst: Operand, count: Operand, function: Vector) -> None:
    use_sse(i)
    i.write(dst, function(i, i.read(dst), i.read(count).zext(64)))


def _shift_bytes_left(i: Instruction, a: Value, count: Value) -> Value:
    return a << (count.zext(128) << 3)


def _shift_bytes_right(i: Instruction, a: Value, count: Value) -> Value:
    return a >> (count.zext(128) << 3)


for _opcode, _name, _function in (
    *table.BASIC,
    (0x6C, "punpcklqdq", table.interleave(64, high=False)),
    (0x6D, "punpckhqdq", table.interleave(64, high=True)),
):
    op(f"66 0F {_opcode:02X} /r", "Vdq,Wdq", name=_name, feature="sse2", extra=(_function,))(vector)
for _opcode, _digit, _name, _function in (
    *table.SHIFTS,
    (0x73, 3, "psrldq", _shift_bytes_right),
    (0x73, 7, "pslldq", _shift_bytes_left),
):
    op(f"66 0F {_opcode:02X} /{_digit}", "Udq,Ib", name=_name, feature="sse2", extra=(_function,))(shift_immediate)


# ---- moves ---------------------------------------------------------------------------------------------------
@op("66 W0 0F 6E /r", "Vdq,Ed", feature="sse2")
@op("66 W1 0F 6E /r", "Vdq,Eq", feature="sse2", name="movq")
def movd(i: Instruction, dst: Operand, src: Operand) -> None:
    use_sse(i)
    i.write(dst, i.read(src).zext(128))


@op("66 W0 0F 7E /r", "Ed,Vdq", feature="sse2", name="movd")
@op("66 W1 0F 7E /r", "Eq,Vdq", feature="sse2", name="movq")
def movd_from(i: Instruction, dst: Operand, src: Operand) -> None:
    use_sse(i)
    i.write(dst, i.read(src).trunc(dst.width))


@op("F3 0F 7E /r", "Vq,Wq", feature="sse2")
def movq(i: Instruction, dst: Operand, src: Operand) -> None:
    use_sse(i)
    i.write(dst, i.read(src).trunc(64).zext(128))


@op("66 0F D6 /r", "Wq,Vq", feature="sse2", name="movq")
def movq_store(i: Instruction, dst: Operand, src: Operand) -> None:
    use_sse(i)
    i.write(dst, i.read(src).trunc(64).zext(dst.width))


@op("66 0F 6F /r", "Vdq,Wdq", feature="sse2")
@op("66 0F 7F /r", "Wdq,Vdq", feature="sse2")
@op("66 0F E7 /r", "Mdq,Vdq", feature="sse2", name="movntdq")
def movdqa(i: Instruction, dst: Operand, src: Operand) -> None:
    use_sse(i)
    store_aligned(i, dst, source(i, src))


@op("F3 0F 6F /r", "Vdq,Wdq", feature="sse2")
@op("F3 0F 7F /r", "Wdq,Vdq", feature="sse2")
@op("F2 0F F0 /r", "Vdq,Mdq", feature="pni", name="lddqu")
def movdqu(i: Instruction, dst: Operand, src: Operand) -> None:
    use_sse(i)
    i.write(dst, i.read(src))


@op("NP W0 0F C3 /r", "Md,Gd", feature="sse2")
@op("NP W1 0F C3 /r", "Mq,Gq", feature="sse2")
def movnti(i: Instruction, dst: Operand, src: Operand) -> None:
    i.write(dst, i.read(src))


@op("F3 0F D6 /r", "Vdq,Nq", feature="sse2")
def movq2dq(i: Instruction, dst: Operand, src: Operand) -> None:
    use_sse(i)
    use_mmx(i)
    i.write(dst, i.read(src).zext(128))


@op("F2 0F D6 /r", "Pq,Udq", feature="sse2")
def movdq2q(i: Instruction, dst: Operand, src: Operand) -> None:
    use_sse(i)
    use_mmx(i)
    set_mm(i, dst, i.read(src).trunc(64))


@op("66 0F F7 /r", "Vdq,Udq", feature="sse2")
def maskmovdqu(i: Instruction, src: Operand, mask: Operand) -> None:
    use_sse(i)
    linear = i.linear(i.wrap_address(i.gpr(RDI, 64)), 16, WRITE)
    value, selected = i.read(src), i.map(8, lambda x: x.sign(), i.read(mask))
    i.call(masked_store.store_bytes, linear, 16, value.trunc(64), value.bits(64, 64), selected)


# ---- shuffles ------------------------------------------------------------------------------------------------
def _shuffled(i: Instruction, value: Value, lane: int, control: Value) -> list[Value]:
    """Four lanes picked by the four fields of an immediate."""
    return [i.lane(value, lane, control >> 2 * k) for k in range(4)]


@op("66 0F 70 /r", "Vdq,Wdq,Ib", feature="sse2")
def pshufd(i: Instruction, dst: Operand, src: Operand, order: Operand) -> None:
    use_sse(i)
    i.write(dst, i.join(_shuffled(i, source(i, src), 32, i.read(order))))


@op("F2 0F 70 /r", "Vdq,Wdq,Ib", feature="sse2")
def pshuflw(i: Instruction, dst: Operand, src: Operand, order: Operand) -> None:
    use_sse(i)
    value = source(i, src)
    i.write(dst, i.join((i.join(_shuffled(i, value.trunc(64), 16, i.read(order))), value.bits(64, 64))))


@op("F3 0F 70 /r", "Vdq,Wdq,Ib", feature="sse2")
def pshufhw(i: Instruction, dst: Operand, src: Operand, order: Operand) -> None:
    use_sse(i)
    value = source(i, src)
    i.write(dst, i.join((value.trunc(64), i.join(_shuffled(i, value.bits(64, 64), 16, i.read(order))))))


def insert_lane(i: Instruction, dst: Operand, value: Value, index: Value) -> None:
    """Replace the lane at `index` (any width; taken modulo the number of lanes) of an XMM register."""
    count = 128 // value.width
    at = (index & (count - 1)).resize(8)
    now = lanes(i, i.read(dst), value.width)
    i.write(dst, i.join([at.eq(k).select(value, now[k]) for k in range(count)]))


@op("66 0F C4 /r", "Vdq,Ew,Ib", feature="sse2")
def pinsrw(i: Instruction, dst: Operand, src: Operand, index: Operand) -> None:
    use_sse(i)
    insert_lane(i, dst, i.read(src), i.read(index))


@op("66 0F C5 /r", "Gd,Udq,Ib", feature="sse2")
def pextrw(i: Instruction, dst: Operand, src: Operand, index: Operand) -> None:
    use_sse(i)
    i.write(dst, i.lane(i.read(src), 16, i.read(index)).zext(32))


@op("66 0F D7 /r", "Gd,Udq", feature="sse2")
def pmovmskb(i: Instruction, dst: Operand, src: Operand) -> None:
    use_sse(i)
    i.write(dst, i.map(8, lambda x: x.sign(), i.read(src)).zext(32))


# ---- conversions ---------------------------------------------------------------------------------------------
def _convert(i: Instruction, name: str, value: Value, lane: int, width: int) -> Value:
    """All lanes converted, the upper part of the register cleared if they got narrower."""
    return i.map(lane, lambda x: i.convert(name, x, width), value).zext(128)


def widening(i: Instruction, dst: Operand, src: Operand, conversion: str) -> None:
    """From the low two lanes of 32 bits to 64 bits."""
    use_sse(i)
    i.write(dst, _convert(i, conversion, i.read(src).trunc(64), 32, 64))


def converting(i: Instruction, dst: Operand, src: Operand, conversion: str, lane: int) -> None:
    """To 32 bits in each lane."""
    use_sse(i)
    i.write(dst, _convert(i, conversion, source(i, src), lane, 32))


def converting_scalar(i: Instruction, dst: Operand, src: Operand, lane: int, width: int) -> None:
    use_sse(i)
    set_low(i, dst, i.convert("float_to_float", i.read(src).trunc(lane), width))


op("NP 0F 5A /r", "Vpd,Wq", name="cvtps2pd", feature="sse2", extra=("float_to_float",))(widening)
op("F3 0F E6 /r", "Vpd,Wq", name="cvtdq2pd", feature="sse2", extra=("int_to_float",))(widening)
op("66 0F 5A /r", "Vps,Wpd", name="cvtpd2ps", feature="sse2", extra=("float_to_float", 64))(converting)
op("66 0F E6 /r", "Vdq,Wpd", name="cvttpd2dq", feature="sse2", extra=("float_to_int_trunc", 64))(converting)
op("F2 0F E6 /r", "Vdq,Wpd", name="cvtpd2dq", feature="sse2", extra=("float_to_int", 64))(converting)
op("NP 0F 5B /r", "Vps,Wdq", name="cvtdq2ps", feature="sse2", extra=("int_to_float", 32))(converting)
op("66 0F 5B /r", "Vdq,Wps", name="cvtps2dq", feature="sse2", extra=("float_to_int", 32))(converting)
op("F3 0F 5B /r", "Vdq,Wps", name="cvttps2dq", feature="sse2", extra=("float_to_int_trunc", 32))(converting)
op("F3 0F 5A /r", "Vsd,Wss", name="cvtss2sd", feature="sse2", extra=(32, 64))(converting_scalar)
op("F2 0F 5A /r", "Vss,Wsd", name="cvtsd2ss", feature="sse2", extra=(64, 32))(converting_scalar)


# ---- SSE3 ----------------------------------------------------------------------------------------------------
Combine = Callable[[Value, Value], Value]


def horizontal(i: Instruction, dst: Operand, src: Operand, lane: int, combine: Combine) -> None:
    use_sse(i)
    values = [*lanes(i, i.read(dst), lane), *lanes(i, source(i, src), lane)]
    i.write(dst, i.join([combine(values[k], values[k + 1]) for k in range(0, len(values), 2)]))


def alternating(i: Instruction, dst: Operand, src: Operand, lane: int) -> None:
    """ADDSUBPS and ADDSUBPD: even lanes subtracted, odd ones added."""
    use_sse(i)
    pairs = zip(lanes(i, i.read(dst), lane), lanes(i, source(i, src), lane), strict=True)
    i.write(dst, i.join([a.fadd(b) if k & 1 else a.fsub(b) for k, (a, b) in enumerate(pairs)]))


for _prefix, _suffix, _lane in (("66", "pd", 64), ("F2", "ps", 32)):
    op(f"{_prefix} 0F 7C /r", "Vps,Wps", name=f"hadd{_suffix}", feature="pni", extra=(_lane, Value.fadd))(horizontal)
    op(f"{_prefix} 0F 7D /r", "Vps,Wps", name=f"hsub{_suffix}", feature="pni", extra=(_lane, Value.fsub))(horizontal)
    op(f"{_prefix} 0F D0 /r", "Vps,Wps", name=f"addsub{_suffix}", feature="pni", extra=(_lane,))(alternating)


@op("F3 0F 12 /r", "Vps,Wps", feature="pni", name="movsldup", extra=(0,))
@op("F3 0F 16 /r", "Vps,Wps", feature="pni", name="movshdup", extra=(1,))
def duplicate(i: Instruction, dst: Operand, src: Operand, odd: int) -> None:
    use_sse(i)
    values = lanes(i, source(i, src), 32)
    i.write(dst, i.join((values[odd], values[odd], values[2 + odd], values[2 + odd])))


@op("F2 0F 12 /r", "Vdq,Wq", feature="pni")
def movddup(i: Instruction, dst: Operand, src: Operand) -> None:
    use_sse(i)
    value = i.read(src).trunc(64)
    i.write(dst, i.join((value, value)))
