"""SSE2 and SSE3: integers in XMM registers, conversions, and SSE3's horizontal and duplicating additions.

The arithmetic on double precision is in sse.py, with the single one; the meaning of integer lanes is in packed.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyemu.cpu import masked_store
from pyemu.cpu.instruction import WRITE, Instruction
from pyemu.cpu.ops import Operand, op
from pyemu.cpu.semantics import packed as table
from pyemu.cpu.semantics.rows import Evex, simd
from pyemu.cpu.semantics.sse import move, move_aligned, vector
from pyemu.cpu.semantics.vectors import (
    Vector,
    in_lanes,
    lanes,
    set_low,
    set_mm,
    source,
    use_mmx,
    use_simd,
    write_narrower,
)
from pyemu.cpu.state import RDI
from pyemu.cpu.values import Value

_static: dict[str, Any]  # attributes that rows of a group share
_evex: Evex


# ---- integers ------------------------------------------------------------------------------------------------
def shift_immediate(i: Instruction, dst: Operand, src: Operand, count: Operand, function: Vector) -> None:
    use_simd(i)
    i.write(dst, function(i, source(i, src), i.read(count).zext(64)))


def _shift_bytes(left: bool) -> Vector:
    """PSLLDQ and PSRLDQ: the bytes of each 128 bits moved."""

    def function(i: Instruction, a: Value, count: Value) -> Value:
        by = count.zext(128) << 3
        return i.join([x << by if left else x >> by for x in lanes(i, a, 128)])

    return function


for _opcode, _name, _function in (
    *table.BASIC,
    (0x6C, "punpcklqdq", in_lanes(table.interleave(64, high=False))),
    (0x6D, "punpckhqdq", in_lanes(table.interleave(64, high=True))),
):
    _operands = "Vx,Hx,Wdq" if _name.startswith(("psrl", "psra", "psll")) else "Vx,Hx,Wx"
    _forms = table.evex_forms(_name, _operands)
    simd(f"66 0F {_opcode:02X} /r", _operands, _name, sse="sse2", avx256="avx2", evex=_forms, extra=(_function,))(
        vector
    )
_function = table.shift(64, "ashr")
simd("66 0F E2 /r", "Vx,Hx,Wdq", "psraq", avx="", evex=Evex("avx512f", 64, "W1", whole=True), extra=(_function,))(
    vector
)
for _opcode, _digit, _name, _function in (
    *table.SHIFTS,
    (0x73, 3, "psrldq", _shift_bytes(left=False)),
    (0x73, 7, "pslldq", _shift_bytes(left=True)),
):
    _text = f"66 0F {_opcode:02X} /{_digit}"
    op(_text, "Ux,Ux,Ib", name=_name, feature="sse2", extra=(_function,))(shift_immediate)
    simd(_text, "Hx,Ux,Ib", _name, avx256="avx2", extra=(_function,))(shift_immediate)
    for _form in [Evex("avx512bw")] if _name.endswith("dq") else table.evex_forms(_name, "Hx,Wx,Ib"):
        simd(_text, "Hx,Wx,Ib", _name, avx="", evex=_form, extra=(_function,))(shift_immediate)
_function = table.shift(64, "ashr")
simd("66 0F 72 /4", "Hx,Wx,Ib", "psraq", avx="", evex=Evex("avx512f", 64, "W1", 64), extra=(_function,))(
    shift_immediate
)


# ---- moves ---------------------------------------------------------------------------------------------------
def movd(i: Instruction, dst: Operand, src: Operand) -> None:
    use_simd(i)
    i.write(dst, i.read(src).zext(128))


def movd_from(i: Instruction, dst: Operand, src: Operand) -> None:
    use_simd(i)
    i.write(dst, i.read(src).trunc(dst.width))


for _w, _letter, _modes in (("W0", "d", "any"), ("W1", "q", "64")):
    _static = {
        "sse": "sse2", "lengths": "LZ", "w": _w, "modes": _modes, "evex": Evex("avx512f", w=_w),
    }  # fmt: skip
    simd(f"66 {_w} 0F 6E /r", f"Vdq,E{_letter}", f"mov{_letter}", **_static)(movd)
    simd(f"66 {_w} 0F 7E /r", f"E{_letter},Vdq", f"mov{_letter}", **_static)(movd_from)


def movq(i: Instruction, dst: Operand, src: Operand) -> None:
    use_simd(i)
    i.write(dst, i.read(src).trunc(64).zext(dst.width))


_static = {"sse": "sse2", "lengths": "LZ", "evex": Evex("avx512f", w="W1")}
simd("F3 0F 7E /r", "Vdq,Wq", "movq", **_static)(movq)
simd("66 0F D6 /r", "Wq,Vdq", "movq", **_static)(movq)

for _prefix, _name, _move in (("66", "movdqa", move_aligned), ("F3", "movdqu", move)):
    _forms = [Evex("avx512f", 32, "W0", name=f"v{_name}32"), Evex("avx512f", 64, "W1", name=f"v{_name}64")]
    for _opcode, _operands in ((0x6F, "Vx,Wx"), (0x7F, "Wx,Vx")):
        simd(f"{_prefix} 0F {_opcode:02X} /r", _operands, _name, sse="sse2", evex=_forms)(_move)
for _opcode, _operands in ((0x6F, "Vx,Wx"), (0x7F, "Wx,Vx")):
    _forms = [Evex("avx512bw", 8, "W0", name="vmovdqu8"), Evex("avx512bw", 16, "W1", name="vmovdqu16")]
    simd(f"F2 0F {_opcode:02X} /r", _operands, "movdqu", avx="", evex=_forms)(move)
simd("66 0F E7 /r", "Mx,Vx", "movntdq", sse="sse2", evex=Evex("avx512f", w="W0"))(move_aligned)
simd("F2 0F F0 /r", "Vx,Mx", "lddqu", sse="pni")(move)


@op("NP W0 0F C3 /r", "Md,Gd", feature="sse2")
@op("NP W1 0F C3 /r", "Mq,Gq", feature="sse2")
def movnti(i: Instruction, dst: Operand, src: Operand) -> None:
    i.write(dst, i.read(src))


@op("F3 0F D6 /r", "Vdq,Nq", feature="sse2")
def movq2dq(i: Instruction, dst: Operand, src: Operand) -> None:
    use_simd(i)
    use_mmx(i)
    i.write(dst, i.read(src).zext(128))


@op("F2 0F D6 /r", "Pq,Udq", feature="sse2")
def movdq2q(i: Instruction, dst: Operand, src: Operand) -> None:
    use_simd(i)
    use_mmx(i)
    set_mm(i, dst, i.read(src).trunc(64))


def maskmovdqu(i: Instruction, src: Operand, mask: Operand) -> None:
    use_simd(i)
    linear = i.linear(i.wrap_address(i.gpr(RDI, 64)), 16, WRITE)
    value, selected = i.read(src), i.map(8, lambda x: x.sign(), i.read(mask))
    i.call(masked_store.store_bytes, linear, 16, value.trunc(64), value.bits(64, 64), selected)


simd("66 0F F7 /r", "Vdq,Udq", "maskmovdqu", sse="sse2", lengths="LZ")(maskmovdqu)


# ---- shuffles ------------------------------------------------------------------------------------------------
def _shuffled(i: Instruction, value: Value, lane: int, control: Value) -> Value:
    """Four lanes picked by the four fields of an immediate."""
    return i.join([i.lane(value, lane, control >> 2 * k) for k in range(4)])


def _pshufd(i: Instruction, value: Value, control: Value) -> Value:
    return _shuffled(i, value, 32, control)


def _pshuflw(i: Instruction, value: Value, control: Value) -> Value:
    return i.join((_shuffled(i, value.trunc(64), 16, control), value.bits(64, 64)))


def _pshufhw(i: Instruction, value: Value, control: Value) -> Value:
    return i.join((value.trunc(64), _shuffled(i, value.bits(64, 64), 16, control)))


def shuffle(i: Instruction, dst: Operand, src: Operand, order: Operand, function: Vector) -> None:
    """A shuffle within each 128 bits."""
    use_simd(i)
    control = i.read(order)
    i.write(dst, i.join([function(i, part, control) for part in lanes(i, source(i, src), 128)]))


for _prefix, _name, _function, _evex in (
    ("66", "pshufd", _pshufd, Evex("avx512f", 32, "W0", 32, whole=True)),
    ("F2", "pshuflw", _pshuflw, Evex("avx512bw", 16, whole=True)),
    ("F3", "pshufhw", _pshufhw, Evex("avx512bw", 16, whole=True)),
):
    _extra = (_function,)
    simd(f"{_prefix} 0F 70 /r", "Vx,Wx,Ib", _name, sse="sse2", avx256="avx2", evex=_evex, extra=_extra)(shuffle)


def insert_lane(i: Instruction, dst: Operand, first: Operand, value: Value, index: Value) -> None:
    """Replace the lane at `index` (any width; taken modulo the number of lanes) of an XMM register."""
    count = 128 // value.width
    at = (index & (count - 1)).resize(8)
    now = lanes(i, i.read(first), value.width)
    i.write(dst, i.join([at.eq(k).select(value, now[k]) for k in range(count)]))


def pinsrw(i: Instruction, dst: Operand, first: Operand, src: Operand, index: Operand) -> None:
    use_simd(i)
    insert_lane(i, dst, first, i.read(src), i.read(index))


def pextrw(i: Instruction, dst: Operand, src: Operand, index: Operand) -> None:
    use_simd(i)
    i.write(dst, i.lane(i.read(src), 16, i.read(index)).zext(32))


def pmovmskb(i: Instruction, dst: Operand, src: Operand) -> None:
    use_simd(i)
    i.write(dst, i.map(8, lambda x: x.sign(), i.read(src)).zext(32))


_static = {"sse": "sse2", "lengths": "LZ", "evex": Evex("avx512bw")}
simd("66 0F C4 /r", "Vdq,Hdq,Ew,Ib", "pinsrw", **_static)(pinsrw)
simd("66 0F C5 /r", "Gd,Udq,Ib", "pextrw", **_static)(pextrw)
simd("66 0F D7 /r", "Gd,Ux", "pmovmskb", sse="sse2", avx256="avx2")(pmovmskb)


# ---- conversions ---------------------------------------------------------------------------------------------
def converting(i: Instruction, dst: Operand, src: Operand, conversion: str, lane: int, width: int) -> None:
    """As many lanes as both operands have; the rest of the register is cleared if they got narrower."""
    use_simd(i)
    value = i.read(src) if width > lane else source(i, src)
    count = min(dst.width // width, value.width // lane)
    value = i.active(value.trunc(count * lane), lane)  # 1.0 is exact as an integer, too
    write_narrower(i, dst, i.map(lane, lambda x: i.convert(conversion, x, width), value))


def converting_scalar(i: Instruction, dst: Operand, first: Operand, second: Operand, lane: int, width: int) -> None:
    use_simd(i)
    value = i.active(i.read(second).trunc(lane), lane)
    set_low(i, dst, i.read(first), i.convert("float_to_float", value, width))


_CONVERSIONS = (
    # encoding, operands, mnemonic, conversion, lane, width, EVEX.W, bits that EVEX.b repeats, rounding
    ("NP 0F 5A /r", "Vx,Wh", "cvtps2pd", "float_to_float", 32, 64, "W0", 32, "sae"),
    ("F3 0F E6 /r", "Vx,Wh", "cvtdq2pd", "int_to_float", 32, 64, "W0", 32, "ignored"),
    ("66 0F 5A /r", "Vh,Wx", "cvtpd2ps", "float_to_float", 64, 32, "W1", 64, "er"),
    ("66 0F E6 /r", "Vh,Wx", "cvttpd2dq", "float_to_int_trunc", 64, 32, "W1", 64, "sae"),
    ("F2 0F E6 /r", "Vh,Wx", "cvtpd2dq", "float_to_int", 64, 32, "W1", 64, "er"),
    ("NP 0F 5B /r", "Vx,Wx", "cvtdq2ps", "int_to_float", 32, 32, "W0", 32, "er"),
    ("66 0F 5B /r", "Vx,Wx", "cvtps2dq", "float_to_int", 32, 32, "W0", 32, "er"),
    ("F3 0F 5B /r", "Vx,Wx", "cvttps2dq", "float_to_int_trunc", 32, 32, "W0", 32, "sae"),
)
for _text, _operands, _name, _conversion, _lane, _width, _w, _repeated, _rounding in _CONVERSIONS:
    _evex = Evex("avx512f", _width, _w, _repeated, _rounding)
    simd(_text, _operands, _name, sse="sse2", evex=_evex, extra=(_conversion, _lane, _width))(converting)
_static = {"sse": "sse2", "lengths": "LIG"}
_evex = Evex("avx512f", 64, "W0", rounding="sae")
simd("F3 0F 5A /r", "Vdq,Hdq,Wss", "cvtss2sd", **_static, evex=_evex, extra=(32, 64))(converting_scalar)
_evex = Evex("avx512f", 32, "W1", rounding="er")
simd("F2 0F 5A /r", "Vdq,Hdq,Wsd", "cvtsd2ss", **_static, evex=_evex, extra=(64, 32))(converting_scalar)


# ---- SSE3 ----------------------------------------------------------------------------------------------------
def _horizontal(lane: int, combine: Callable[[Value, Value], Value]) -> Vector:
    def function(i: Instruction, a: Value, b: Value) -> Value:
        values = [*lanes(i, a, lane), *lanes(i, b, lane)]
        return i.join([combine(values[k], values[k + 1]) for k in range(0, len(values), 2)])

    return in_lanes(function)


def _alternating(lane: int) -> Vector:
    """ADDSUBPS and ADDSUBPD: even lanes subtracted, odd ones added."""

    def function(i: Instruction, a: Value, b: Value) -> Value:
        pairs = zip(lanes(i, a, lane), lanes(i, b, lane), strict=True)
        return i.join([x.fadd(y) if k & 1 else x.fsub(y) for k, (x, y) in enumerate(pairs)])

    return function


for _prefix, _suffix, _lane in (("66", "pd", 64), ("F2", "ps", 32)):
    for _opcode, _name, _function in (
        (0x7C, "hadd", _horizontal(_lane, Value.fadd)),
        (0x7D, "hsub", _horizontal(_lane, Value.fsub)),
        (0xD0, "addsub", _alternating(_lane)),
    ):
        simd(f"{_prefix} 0F {_opcode:02X} /r", "Vx,Hx,Wx", _name + _suffix, sse="pni", extra=(_function,))(vector)


def duplicate(i: Instruction, dst: Operand, src: Operand, odd: int) -> None:
    """MOVSLDUP and MOVSHDUP: one of each pair of lanes, twice."""
    use_simd(i)
    values = lanes(i, source(i, src), 32)
    i.write(dst, i.join([values[k & ~1 | odd] for k in range(len(values))]))


_evex = Evex("avx512f", 32, "W0", whole=True)
simd("F3 0F 12 /r", "Vx,Wx", "movsldup", sse="pni", evex=_evex, extra=(0,))(duplicate)
simd("F3 0F 16 /r", "Vx,Wx", "movshdup", sse="pni", evex=_evex, extra=(1,))(duplicate)


def movddup(i: Instruction, dst: Operand, src: Operand) -> None:
    use_simd(i)
    values = lanes(i, i.read(src), 64)
    i.write(dst, i.join([values[k & ~1] for k in range(dst.width // 64)]))


_wide = Evex("avx512f", 64, "W1", lengths="256/512", whole=True)
_evex = Evex("avx512f avx512vl", 64, "W1", whole=True)
simd("F2 0F 12 /r", "Vdq,Wq", "movddup", sse="pni", lengths="128", evex=_evex)(movddup)
simd("F2 0F 12 /r", "Vx,Wx", "movddup", lengths="256", evex=_wide)(movddup)
