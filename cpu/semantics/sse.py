"""SSE: floating point on XMM registers, single precision and, where SSE2 merely adds the other precision, double.

Exceptions of the arithmetic, denormals and rounding under MXCSR are the builder's. Conversions, and integers in XMM
registers, are in sse2.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyemu.cpu import approximations
from pyemu.cpu.instruction import GP, READ, Instruction
from pyemu.cpu.ops import Operand, op
from pyemu.cpu.semantics.packed import interleave
from pyemu.cpu.semantics.rows import Evex, simd
from pyemu.cpu.semantics.vectors import (
    Binary,
    Unary,
    Vector,
    broadcast,
    check_mmx,
    enter_mmx,
    in_lanes,
    lanes,
    set_low,
    set_mm,
    source,
    store_aligned,
    use_mmx,
    use_simd,
)
from pyemu.cpu.state import MXCSR, State
from pyemu.cpu.values import Value

_static: dict[str, Any]  # attributes that rows of a group share
_evex: Evex

# Precisions: prefix of packed, prefix of scalar, suffix letter, bits, feature, EVEX.W.
PRECISIONS = (("NP", "F3", "s", 32, "sse", "W0"), ("66", "F2", "d", 64, "sse2", "W1"))
MXCSR_MASK = 0xFFFF  # the bits that may be set, DAZ among them (SDM 1, 10.2.3)


# ---- arithmetic ----------------------------------------------------------------------------------------------
def packed(i: Instruction, dst: Operand, first: Operand, second: Operand, lane: int, function: Binary) -> None:
    use_simd(i)
    a, b = i.active(i.read(first), lane), i.active(source(i, second), lane)
    i.write(dst, i.map(lane, function, a, b))


def packed_one(i: Instruction, dst: Operand, src: Operand, lane: int, function: Unary) -> None:
    use_simd(i)
    i.write(dst, i.map(lane, function, i.active(source(i, src), lane)))


def scalar(i: Instruction, dst: Operand, first: Operand, second: Operand, lane: int, function: Binary) -> None:
    use_simd(i)
    a, b = i.read(first), i.read(second).trunc(lane)
    set_low(i, dst, a, function(i.active(a.trunc(lane), lane), i.active(b, lane)))


_ARITHMETIC: tuple[tuple[int, str, Binary, str], ...] = (
    (0x58, "add", Value.fadd, "er"),
    (0x59, "mul", Value.fmul, "er"),
    (0x5C, "sub", Value.fsub, "er"),
    (0x5D, "min", Value.fmin, "sae"),
    (0x5E, "div", Value.fdiv, "er"),
    (0x5F, "max", Value.fmax, "sae"),
)
for _packed, _scalar, _letter, _lane, _feature, _w in PRECISIONS:
    _p, _s = f"p{_letter}", f"s{_letter}"
    for _opcode, _name, _function, _rounding in _ARITHMETIC:
        _evex = Evex("avx512f", _lane, _w, broadcast=_lane, rounding=_rounding)
        _static = {"sse": _feature, "extra": (_lane, _function)}
        simd(f"{_packed} 0F {_opcode:02X} /r", "Vx,Hx,Wx", _name + _p, evex=_evex, **_static)(packed)
        _evex = Evex("avx512f", _lane, _w, rounding=_rounding)
        _operands = f"Vdq,Hdq,W{_s}"
        simd(f"{_scalar} 0F {_opcode:02X} /r", _operands, _name + _s, lengths="LIG", evex=_evex, **_static)(scalar)
    _evex = Evex("avx512f", _lane, _w, broadcast=_lane, rounding="er")
    simd(f"{_packed} 0F 51 /r", "Vx,Wx", f"sqrt{_p}", sse=_feature, evex=_evex, extra=(_lane, Value.fsqrt))(packed_one)
    _evex = Evex("avx512f", _lane, _w, rounding="er")
    simd(
        f"{_scalar} 0F 51 /r",
        f"Vdq,Hdq,W{_s}",
        f"sqrt{_s}",
        sse=_feature,
        lengths="LIG",
        evex=_evex,
        extra=(_lane, lambda a, b: b.fsqrt()),
    )(scalar)


def approximate(i: Instruction, dst: Operand, src: Operand, function: Callable[[State, int], int]) -> None:
    """RCPPS and RSQRTPS."""
    use_simd(i)
    i.write(dst, i.join([_approximation_of(i, lane, function) for lane in lanes(i, source(i, src), 32)]))


def approximate_scalar(
    i: Instruction, dst: Operand, first: Operand, second: Operand, function: Callable[[State, int], int]
) -> None:
    """RCPSS and RSQRTSS."""
    use_simd(i)
    a, b = i.read(first), i.read(second).trunc(32)
    set_low(i, dst, a, _approximation_of(i, b, function))


def _approximation_of(i: Instruction, lane: Value, function: Callable[[State, int], int]) -> Value:
    i.call(function, lane)
    return i.value(32)


for _opcode, _name, _approximation in (
    (0x52, "rsqrt", approximations.reciprocal_root),
    (0x53, "rcp", approximations.reciprocal),
):
    simd(f"NP 0F {_opcode:02X} /r", "Vx,Wx", f"{_name}ps", sse="sse", extra=(_approximation,))(approximate)
    simd(f"F3 0F {_opcode:02X} /r", "Vdq,Hdq,Wss", f"{_name}ss", sse="sse", lengths="LIG", extra=(_approximation,))(
        approximate_scalar
    )


# ---- logic ---------------------------------------------------------------------------------------------------
def vector(i: Instruction, dst: Operand, first: Operand, second: Operand, function: Vector) -> None:
    """An operation on whole vectors. With a mask for destination it is a comparison, of which the signs are kept."""
    use_simd(i)
    result = function(i, i.read(first), source(i, second))
    if dst.kind == "mask":
        lane = i.form.row.element
        i.write_mask(dst, i.map(lane, lambda x: x.sign(), result))
    else:
        i.write(dst, result)


def packed_vector(i: Instruction, dst: Operand, src: Operand, function: Vector) -> None:
    """An operation on one whole vector."""
    use_simd(i)
    value = source(i, src)
    i.write(dst, function(i, value, value))


_LOGIC: tuple[tuple[int, str, Vector], ...] = (
    (0x54, "and", lambda i, a, b: a & b),
    (0x55, "andn", lambda i, a, b: ~a & b),
    (0x56, "or", lambda i, a, b: a | b),
    (0x57, "xor", lambda i, a, b: a ^ b),
)
for _packed, _, _letter, _lane, _feature, _w in PRECISIONS:
    for _opcode, _name, _logic in _LOGIC:
        _evex = Evex("avx512dq", _lane, _w, broadcast=_lane)
        simd(
            f"{_packed} 0F {_opcode:02X} /r",
            "Vx,Hx,Wx",
            f"{_name}p{_letter}",
            sse=_feature,
            evex=_evex,
            extra=(_logic,),
        )(vector)


# ---- comparison ----------------------------------------------------------------------------------------------
def compare(i: Instruction, a: Value, b: Value, predicate: Value) -> Value:
    """CMPPS of one lane, width 1. Predicate (as wide as the lane, SDM 2, table 3-1): bits 1-0 EQ, LT, LE, UNORD; bit 2
    the opposite; bit 3 the other answer for unordered numbers; bit 4 the other choice of signalling.

    LT and LE signal on every NaN, EQ and UNORD on signalling ones only: NaNs reach the signalling comparison only if
    the predicate is such a one.
    """
    unordered = i.compare("funord", a, b)
    quiet = unordered & ~(predicate.bit(0) ^ predicate.bit(1) ^ predicate.bit(4))
    less = i.compare("flt", quiet.select(0, a), quiet.select(0, b)) & ~unordered
    equal = i.compare("feq", a, b)
    ordered = predicate.bit(0).select(less, less | equal)
    result = predicate.bit(1).select(predicate.bit(0).select(unordered, ordered), predicate.bit(0).select(less, equal))
    return result ^ predicate.bit(2) ^ (predicate.bit(3) & unordered)


def _predicate(i: Instruction, kind: Operand, lane: int) -> Value:
    return (i.read(kind) & (31 if i.form.space else 7)).zext(lane)


def compare_packed(i: Instruction, dst: Operand, first: Operand, second: Operand, kind: Operand, lane: int) -> None:
    use_simd(i)
    a, b = i.active(i.read(first), lane), i.active(source(i, second), lane)
    predicate = broadcast(i, _predicate(i, kind, lane), a.width)
    if dst.kind == "mask":
        i.write_mask(dst, i.map(lane, lambda x, y, p: compare(i, x, y, p), a, b, predicate))
    else:
        i.write(dst, i.map(lane, lambda x, y, p: compare(i, x, y, p).sext(lane), a, b, predicate))


def compare_scalar(i: Instruction, dst: Operand, first: Operand, second: Operand, kind: Operand, lane: int) -> None:
    use_simd(i)
    whole = i.read(first)
    a, b = i.active(whole.trunc(lane), lane), i.active(i.read(second).trunc(lane), lane)
    result = compare(i, a, b, _predicate(i, kind, lane))
    if dst.kind == "mask":
        i.write_mask(dst, result)
    else:
        set_low(i, dst, whole, result.sext(lane))


def compare_flags(i: Instruction, first: Operand, second: Operand, lane: int, signal: bool) -> None:
    """COMISS (signals on every NaN) and UCOMISS: ZF, PF and CF say equal, unordered, less."""
    use_simd(i)
    a, b = i.read(first).trunc(lane), i.read(second).trunc(lane)
    unordered = i.compare("funord", a, b)
    equal = i.compare("feq", a, b)
    if not signal:
        a, b = unordered.select(0, a), unordered.select(0, b)
    less, zero = i.compare("flt", a, b), i.const(0, 1)
    i.flags_only(cf=less | unordered, zf=equal | unordered, pf=unordered, af=zero, sf=zero, of=zero)


for _packed, _scalar, _letter, _lane, _feature, _w in PRECISIONS:
    _p, _s = f"p{_letter}", f"s{_letter}"
    _evex = Evex("avx512f", _lane, _w, broadcast=_lane, rounding="sae", masking="k", operands="KGq,Hx,Wx,Ib")
    simd(f"{_packed} 0F C2 /r", "Vx,Hx,Wx,Ib", f"cmp{_p}", sse=_feature, evex=_evex, extra=(_lane,))(compare_packed)
    _evex = Evex("avx512f", _lane, _w, rounding="sae", masking="k", operands=f"KGq,Hdq,W{_s},Ib")
    _operands = f"Vdq,Hdq,W{_s},Ib"
    simd(f"{_scalar} 0F C2 /r", _operands, f"cmp{_s}", sse=_feature, lengths="LIG", evex=_evex, extra=(_lane,))(
        compare_scalar
    )
    for _opcode, _name, _signal in ((0x2E, "ucomi", False), (0x2F, "comi", True)):
        simd(
            f"{_packed} 0F {_opcode:02X} /r",
            f"Vdq,W{_s}",
            _name + _s,
            sse=_feature,
            lengths="LIG",
            evex=Evex("avx512f", w=_w, rounding="sae"),
            flags="w",
            extra=(_lane, _signal),
        )(compare_flags)


# ---- moves ---------------------------------------------------------------------------------------------------
def move(i: Instruction, dst: Operand, src: Operand) -> None:
    use_simd(i)
    i.write(dst, i.read(src))


def move_aligned(i: Instruction, dst: Operand, src: Operand) -> None:
    """A move whose memory operand must be aligned to its size."""
    use_simd(i)
    if src.is_memory:
        i.require_aligned_operand(src, READ)
    store_aligned(i, dst, i.read(src))


for _packed, _scalar, _letter, _lane, _feature, _w in PRECISIONS:
    _p, _s = f"p{_letter}", f"s{_letter}"
    for _name, _load, _move in (("movu", 0x10, move), ("mova", 0x28, move_aligned)):
        for _opcode, _operands in ((_load, "Vx,Wx"), (_load + 1, "Wx,Vx")):
            _evex = Evex("avx512f", _lane, _w)
            simd(f"{_packed} 0F {_opcode:02X} /r", _operands, _name + _p, sse=_feature, evex=_evex)(_move)
    simd(f"{_packed} 0F 2B /r", "Mx,Vx", f"movnt{_p}", sse=_feature, evex=Evex("avx512f", w=_w))(move_aligned)


def move_scalar_load(i: Instruction, dst: Operand, src: Operand) -> None:
    """MOVSS and MOVSD from memory clear the rest of the register."""
    use_simd(i)
    i.write(dst, i.read(src).zext(128))


def move_scalar(i: Instruction, dst: Operand, first: Operand, second: Operand, lane: int) -> None:
    use_simd(i)
    set_low(i, dst, i.read(first), i.read(second).trunc(lane))


def move_scalar_store(i: Instruction, dst: Operand, src: Operand, lane: int) -> None:
    use_simd(i)
    i.write(dst, i.read(src).trunc(lane))


for _, _scalar, _letter, _lane, _feature, _w in PRECISIONS:
    _static = {"sse": _feature, "lengths": "LIG", "evex": Evex("avx512f", _lane, _w)}
    _s, _name = f"s{_letter}", f"movs{_letter}"
    simd(f"{_scalar} 0F 10 /r", f"Vdq,M{_s}", _name, **_static)(move_scalar_load)
    simd(f"{_scalar} 0F 10 /r", f"Vdq,Hdq,U{_s}", _name, **_static, extra=(_lane,))(move_scalar)
    simd(f"{_scalar} 0F 11 /r", f"M{_s},Vdq", _name, **_static, extra=(_lane,))(move_scalar_store)
    simd(f"{_scalar} 0F 11 /r", f"U{_s},Hdq,Vdq", _name, **_static, extra=(_lane,))(move_scalar)


def replace_half(i: Instruction, dst: Operand, first: Operand, second: Operand, to: int, part: int) -> None:
    """Half `to` of the result is half `part` of the second source, the other comes from the first."""
    use_simd(i)
    a, b = lanes(i, i.read(first), 64), i.read(second).bits(64 * part, 64)
    i.write(dst, i.join((b, a[1]) if to == 0 else (a[0], b)))


def store_half(i: Instruction, dst: Operand, src: Operand, part: int) -> None:
    use_simd(i)
    i.write(dst, i.read(src).bits(64 * part, 64))


for _opcode, _name, _other, _half in ((0x12, "movl", "movhlps", 0), (0x16, "movh", "movlhps", 1)):
    _evex = Evex("avx512f", w="W0", lengths="LZ")
    for _prefix, _letter, _feature, _w in (("NP", "s", "sse", "W0"), ("66", "d", "sse2", "W1")):
        _static = {"sse": _feature, "lengths": "LZ", "evex": Evex("avx512f", w=_w, lengths="LZ")}
        simd(f"{_prefix} 0F {_opcode:02X} /r", "Vdq,Hdq,Mq", f"{_name}p{_letter}", **_static, extra=(_half, 0))(
            replace_half
        )
        simd(f"{_prefix} 0F {_opcode + 1:02X} /r", "Mq,Vdq", f"{_name}p{_letter}", **_static, extra=(_half,))(
            store_half
        )
    simd(
        f"NP 0F {_opcode:02X} /r", "Vdq,Hdq,Udq", _other, sse="sse", lengths="LZ", evex=_evex, extra=(_half, 1 - _half)
    )(replace_half)


# ---- shuffles --------------------------------------------------------------------------------------------------
def _shuffle_single(i: Instruction, a: Value, b: Value, control: Value) -> Value:
    return i.join([i.lane(a if k < 2 else b, 32, control >> 2 * k) for k in range(4)])


def shufps(i: Instruction, dst: Operand, first: Operand, second: Operand, order: Operand) -> None:
    use_simd(i)
    control = i.read(order)
    function = in_lanes(lambda i, a, b: _shuffle_single(i, a, b, control))
    i.write(dst, function(i, i.read(first), source(i, second)))


def shufpd(i: Instruction, dst: Operand, first: Operand, second: Operand, order: Operand) -> None:
    use_simd(i)
    control = i.read(order)
    a, b = lanes(i, i.read(first), 128), lanes(i, source(i, second), 128)
    picked = [i.lane((b if k & 1 else a)[k >> 1], 64, control >> k) for k in range(2 * len(a))]
    i.write(dst, i.join(picked))


for _packed, _, _letter, _lane, _feature, _w in PRECISIONS:
    _evex = Evex("avx512f", _lane, _w, broadcast=_lane, whole=True)
    for _opcode, _name, _high in ((0x14, "unpckl", False), (0x15, "unpckh", True)):
        _extra = (in_lanes(interleave(_lane, _high)),)
        _name = f"{_name}p{_letter}"
        simd(f"{_packed} 0F {_opcode:02X} /r", "Vx,Hx,Wx", _name, sse=_feature, evex=_evex, extra=_extra)(vector)
    _shuffle = shufps if _lane == 32 else shufpd
    simd(f"{_packed} 0F C6 /r", "Vx,Hx,Wx,Ib", f"shufp{_letter}", sse=_feature, evex=_evex)(_shuffle)


def movmskps(i: Instruction, dst: Operand, src: Operand, lane: int) -> None:
    use_simd(i)
    i.write(dst, i.map(lane, lambda x: x.sign(), i.read(src)).zext(32))


for _packed, _, _letter, _lane, _feature, _ in PRECISIONS:
    simd(f"{_packed} 0F 50 /r", "Gd,Ux", f"movmskp{_letter}", sse=_feature, extra=(_lane,))(movmskps)


# ---- conversions to and from integers -------------------------------------------------------------------------
def cvtsi2ss(
    i: Instruction, dst: Operand, first: Operand, second: Operand, lane: int, conversion: str = "int_to_float"
) -> None:
    use_simd(i)
    set_low(i, dst, i.read(first), i.convert(conversion, i.read(second), lane))


def cvtss2si(i: Instruction, dst: Operand, src: Operand, lane: int, conversion: str) -> None:
    use_simd(i)
    i.write(dst, i.convert(conversion, i.read(src).trunc(lane), dst.width))


def cvtps2pi(i: Instruction, dst: Operand, src: Operand, lane: int, conversion: str) -> None:
    use_simd(i)
    check_mmx(i)
    value = i.read(src).trunc(2 * lane) if lane == 32 else source(i, src)
    i.call(enter_mmx)  # also if the conversion raises #XM
    set_mm(i, dst, i.map(lane, lambda x: i.convert(conversion, x, 32), value))


for _packed, _scalar, _letter, _lane, _feature, _ in PRECISIONS:
    _s = f"s{_letter}"
    for _w, _general in (("W0", "Gd"), ("W1", "Gq")):
        _source = "E" + _general[1]
        # a 32-bit integer is exact in double precision: no rounding to embed
        _rounding = "ignored" if (_letter, _w) == ("d", "W0") else "er"
        _static = {"sse": _feature, "lengths": "LIG", "w": _w, "modes": "64" if _w == "W1" else "any"}
        _evex = Evex("avx512f", w=_w, rounding=_rounding)
        simd(f"{_scalar} {_w} 0F 2A /r", f"Vdq,Hdq,{_source}", f"cvtsi2{_s}", **_static, evex=_evex, extra=(_lane,))(
            cvtsi2ss
        )
        for _opcode, _name, _conversion, _rounding in (
            (0x2C, "cvtt", "float_to_int_trunc", "sae"),
            (0x2D, "cvt", "float_to_int", "er"),
        ):
            _evex = Evex("avx512f", w=_w, rounding=_rounding)
            simd(
                f"{_scalar} {_w} 0F {_opcode:02X} /r",
                f"{_general},W{_s}",
                f"{_name}{_s}2si",
                **_static,
                evex=_evex,
                extra=(_lane, _conversion),
            )(cvtss2si)
    for _opcode, _name, _conversion in ((0x2C, "cvtt", "float_to_int_trunc"), (0x2D, "cvt", "float_to_int")):
        op(
            f"{_packed} 0F {_opcode:02X} /r",
            f"Pq,{'Wq' if _lane == 32 else 'Wpd'}",
            name=f"{_name}p{_letter}2pi",
            feature=_feature,
            extra=(_lane, _conversion),
        )(cvtps2pi)


@op("NP 0F 2A /r", "Vps,Qq", feature="sse")
def cvtpi2ps(i: Instruction, dst: Operand, src: Operand) -> None:
    use_simd(i)
    if not src.is_memory:
        check_mmx(i)
        i.call(enter_mmx)  # also if the conversion raises #XM
    i.set_register(i.field(dst), i.map(32, lambda x: i.convert("int_to_float", x, 32), i.read(src)))


@op("66 0F 2A /r", "Vpd,Qq", feature="sse2")
def cvtpi2pd(i: Instruction, dst: Operand, src: Operand) -> None:
    use_simd(i)
    if not src.is_memory:
        use_mmx(i)
    i.write(dst, i.map(32, lambda x: i.convert("int_to_float", x, 64), i.read(src)))


# ---- control and status ----------------------------------------------------------------------------------------
def ldmxcsr(i: Instruction, src: Operand) -> None:
    use_simd(i)
    value = i.read(src)
    i.fault_if((value & ~MXCSR_MASK).ne(0), GP)
    i.set_state(MXCSR, value.zext(64))


def stmxcsr(i: Instruction, dst: Operand) -> None:
    use_simd(i)
    i.write(dst, i.mxcsr())


simd("NP 0F AE /2", "Md", "ldmxcsr", sse="sse", lengths="LZ", ends_block=True)(ldmxcsr)
simd("NP 0F AE /3", "Md", "stmxcsr", sse="sse", lengths="LZ")(stmxcsr)
