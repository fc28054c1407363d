"""SSE: floating point on XMM registers, single precision and, where SSE2 merely adds the other precision, double.

Exceptions of the arithmetic, denormals and rounding under MXCSR are the builder's. Conversions, and integers in XMM
registers, are in sse2.py.
"""

from __future__ import annotations

from collections.abc import Callable

from pyemu.cpu import approximations
from pyemu.cpu.instruction import GP, Instruction
from pyemu.cpu.ops import Operand, op
from pyemu.cpu.semantics.vectors import (
    Binary,
    Vector,
    broadcast,
    check_mmx,
    enter_mmx,
    lanes,
    set_low,
    set_mm,
    source,
    store_aligned,
    use_mmx,
    use_sse,
)
from pyemu.cpu.state import MXCSR, State
from pyemu.cpu.values import Value

# Precisions: prefix of packed, prefix of scalar, suffix letter, bits, feature.
PRECISIONS = (("NP", "F3", "s", 32, "sse"), ("66", "F2", "d", 64, "sse2"))
MXCSR_MASK = 0xFFFF  # the bits that may be set, DAZ among them (SDM 1, 10.2.3)


# ---- arithmetic ----------------------------------------------------------------------------------------------
def packed(i: Instruction, dst: Operand, src: Operand, lane: int, function: Binary) -> None:
    use_sse(i)
    i.write(dst, i.map(lane, function, i.read(dst), source(i, src)))


def scalar(i: Instruction, dst: Operand, src: Operand, lane: int, function: Binary) -> None:
    use_sse(i)
    set_low(i, dst, function(i.read(dst).trunc(lane), i.read(src).trunc(lane)))


def _root(a: Value, b: Value) -> Value:
    return b.fsqrt()


_ARITHMETIC: tuple[tuple[int, str, Binary], ...] = (
    (0x51, "sqrt", _root),
    (0x58, "add", Value.fadd),
    (0x59, "mul", Value.fmul),
    (0x5C, "sub", Value.fsub),
    (0x5D, "min", Value.fmin),
    (0x5E, "div", Value.fdiv),
    (0x5F, "max", Value.fmax),
)
for _packed, _scalar, _letter, _lane, _feature in PRECISIONS:
    for _opcode, _name, _function in _ARITHMETIC:
        _p, _s = f"p{_letter}", f"s{_letter}"
        _static = {"feature": _feature, "extra": (_lane, _function)}
        op(f"{_packed} 0F {_opcode:02X} /r", f"V{_p},W{_p}", name=_name + _p, **_static)(packed)
        op(f"{_scalar} 0F {_opcode:02X} /r", f"V{_s},W{_s}", name=_name + _s, **_static)(scalar)


def approximate(i: Instruction, dst: Operand, src: Operand, function: Callable[[State, int], int]) -> None:
    """RCP and RSQRT: of one lane, or of four."""
    use_sse(i)
    results = []
    value = source(i, src) if i.form.row.name.endswith("ps") else i.read(src).trunc(32)
    for lane in lanes(i, value, 32):
        i.call(function, lane)
        results.append(i.value(32))
    set_low(i, dst, i.join(results))


for _opcode, _name, _approximation in (
    (0x52, "rsqrt", approximations.reciprocal_root),
    (0x53, "rcp", approximations.reciprocal),
):
    op(f"NP 0F {_opcode:02X} /r", "Vps,Wps", name=f"{_name}ps", feature="sse", extra=(_approximation,))(approximate)
    op(f"F3 0F {_opcode:02X} /r", "Vss,Wss", name=f"{_name}ss", feature="sse", extra=(_approximation,))(approximate)


# ---- logic ---------------------------------------------------------------------------------------------------
def vector(i: Instruction, dst: Operand, src: Operand, function: Vector) -> None:
    """An operation on whole XMM registers."""
    use_sse(i)
    i.write(dst, function(i, i.read(dst), source(i, src)))


_LOGIC: tuple[tuple[int, str, Vector], ...] = (
    (0x54, "and", lambda i, a, b: a & b),
    (0x55, "andn", lambda i, a, b: ~a & b),
    (0x56, "or", lambda i, a, b: a | b),
    (0x57, "xor", lambda i, a, b: a ^ b),
)
for _packed, _, _letter, _unused, _feature in PRECISIONS:
    for _opcode, _name, _logic in _LOGIC:
        op(f"{_packed} 0F {_opcode:02X} /r", "Vps,Wps", name=f"{_name}p{_letter}", feature=_feature, extra=(_logic,))(
            vector
        )


# ---- comparison ----------------------------------------------------------------------------------------------
def compare(i: Instruction, a: Value, b: Value, predicate: Value) -> Value:
    """CMPPS of one lane: predicate (as wide as the lane) 0 EQ, 1 LT, 2 LE, 3 UNORD, 4-7 their opposites.

    LT and LE signal on every NaN, EQ and UNORD on signalling ones only: NaNs reach the signalling comparison only if
    the predicate is such a one.
    """
    unordered = i.compare("funord", a, b)
    quiet = unordered & ~(predicate.bit(0) ^ predicate.bit(1))
    less = i.compare("flt", quiet.select(0, a), quiet.select(0, b)) & ~unordered
    equal = i.compare("feq", a, b)
    ordered = predicate.bit(0).select(less, less | equal)
    result = predicate.bit(1).select(predicate.bit(0).select(unordered, ordered), predicate.bit(0).select(less, equal))
    return (result ^ predicate.bit(2)).sext(a.width)


def compare_packed(i: Instruction, dst: Operand, src: Operand, kind: Operand, lane: int) -> None:
    use_sse(i)
    predicate = broadcast(i, i.read(kind).zext(lane), 128)
    i.write(dst, i.map(lane, lambda a, b, p: compare(i, a, b, p), i.read(dst), source(i, src), predicate))


def compare_scalar(i: Instruction, dst: Operand, src: Operand, kind: Operand, lane: int) -> None:
    use_sse(i)
    set_low(i, dst, compare(i, i.read(dst).trunc(lane), i.read(src).trunc(lane), i.read(kind).zext(lane)))


def compare_flags(i: Instruction, first: Operand, second: Operand, lane: int, signal: bool) -> None:
    """COMISS (signals on every NaN) and UCOMISS: ZF, PF and CF say equal, unordered, less."""
    use_sse(i)
    a, b = i.read(first).trunc(lane), i.read(second).trunc(lane)
    unordered = i.compare("funord", a, b)
    equal = i.compare("feq", a, b)
    if not signal:
        a, b = unordered.select(0, a), unordered.select(0, b)
    less, zero = i.compare("flt", a, b), i.const(0, 1)
    i.flags_only(cf=less | unordered, zf=equal | unordered, pf=unordered, af=zero, sf=zero, of=zero)


for _packed, _scalar, _letter, _lane, _feature in PRECISIONS:
    _p, _s = f"p{_letter}", f"s{_letter}"
    op(f"{_packed} 0F C2 /r", f"V{_p},W{_p},Ib", name=f"cmp{_p}", feature=_feature, extra=(_lane,))(compare_packed)
    op(f"{_scalar} 0F C2 /r", f"V{_s},W{_s},Ib", name=f"cmp{_s}", feature=_feature, extra=(_lane,))(compare_scalar)
    for _opcode, _name, _signal in ((0x2E, "ucomi", False), (0x2F, "comi", True)):
        _extra = (_lane, _signal)
        op(
            f"{_packed} 0F {_opcode:02X} /r", f"V{_s},W{_s}", name=_name + _s, flags="w", feature=_feature, extra=_extra
        )(compare_flags)


# ---- moves ---------------------------------------------------------------------------------------------------
@op("NP 0F 10 /r", "Vps,Wps", feature="sse")
@op("NP 0F 11 /r", "Wps,Vps", feature="sse")
@op("66 0F 10 /r", "Vpd,Wpd", feature="sse2", name="movupd")
@op("66 0F 11 /r", "Wpd,Vpd", feature="sse2", name="movupd")
def movups(i: Instruction, dst: Operand, src: Operand) -> None:
    use_sse(i)
    i.write(dst, i.read(src))


@op("NP 0F 28 /r", "Vps,Wps", feature="sse")
@op("NP 0F 29 /r", "Wps,Vps", feature="sse")
@op("66 0F 28 /r", "Vpd,Wpd", feature="sse2", name="movapd")
@op("66 0F 29 /r", "Wpd,Vpd", feature="sse2", name="movapd")
@op("NP 0F 2B /r", "Mps,Vps", feature="sse", name="movntps")
@op("66 0F 2B /r", "Mpd,Vpd", feature="sse2", name="movntpd")
def movaps(i: Instruction, dst: Operand, src: Operand) -> None:
    use_sse(i)
    store_aligned(i, dst, source(i, src))


@op("F3 0F 10 /r", "Vss,Wss", feature="sse", extra=(32,))
@op("F2 0F 10 /r", "Vsd,Wsd", feature="sse2", name="movsd", extra=(64,))
def movss(i: Instruction, dst: Operand, src: Operand, lane: int) -> None:
    use_sse(i)
    value = i.read(src)
    if src.is_memory:
        i.write(dst, value.zext(128))
    else:
        set_low(i, dst, value.trunc(lane))


@op("F3 0F 11 /r", "Wss,Vss", feature="sse", name="movss", extra=(32,))
@op("F2 0F 11 /r", "Wsd,Vsd", feature="sse2", name="movsd", extra=(64,))
def movss_store(i: Instruction, dst: Operand, src: Operand, lane: int) -> None:
    use_sse(i)
    value = i.read(src).trunc(lane)
    if dst.is_memory:
        i.write(dst, value)
    else:
        set_low(i, dst, value)


@op("NP 0F 12 /r", "Vq,Wq", feature="sse")
@op("66 0F 12 /r", "Vq,Mq", feature="sse2", name="movlpd")
def movlps(i: Instruction, dst: Operand, src: Operand) -> None:
    """MOVLPS from memory; MOVHLPS between registers."""
    use_sse(i)
    set_low(i, dst, i.read(src) if src.is_memory else i.read(src).bits(64, 64))


@op("NP 0F 16 /r", "Vq,Wq", feature="sse")
@op("66 0F 16 /r", "Vq,Mq", feature="sse2", name="movhpd")
def movhps(i: Instruction, dst: Operand, src: Operand) -> None:
    """MOVHPS from memory; MOVLHPS between registers."""
    use_sse(i)
    i.write(dst, i.join((i.read(dst).trunc(64), i.read(src).trunc(64))))


@op("NP 0F 13 /r", "Mq,Vq", feature="sse", name="movlps")
@op("66 0F 13 /r", "Mq,Vq", feature="sse2", name="movlpd")
def movlps_store(i: Instruction, dst: Operand, src: Operand) -> None:
    use_sse(i)
    i.write(dst, i.read(src).trunc(64))


@op("NP 0F 17 /r", "Mq,Vq", feature="sse", name="movhps")
@op("66 0F 17 /r", "Mq,Vq", feature="sse2", name="movhpd")
def movhps_store(i: Instruction, dst: Operand, src: Operand) -> None:
    use_sse(i)
    i.write(dst, i.read(src).bits(64, 64))


@op("NP 0F 14 /r", "Vps,Wps", feature="sse", extra=(32, 0))
@op("NP 0F 15 /r", "Vps,Wps", feature="sse", name="unpckhps", extra=(32, 1))
@op("66 0F 14 /r", "Vpd,Wpd", feature="sse2", name="unpcklpd", extra=(64, 0))
@op("66 0F 15 /r", "Vpd,Wpd", feature="sse2", name="unpckhpd", extra=(64, 1))
def unpcklps(i: Instruction, dst: Operand, src: Operand, lane: int, half: int) -> None:
    use_sse(i)
    a = lanes(i, i.read(dst).bits(64 * half, 64), lane)
    b = lanes(i, source(i, src).bits(64 * half, 64), lane)
    i.write(dst, i.join([value for pair in zip(a, b, strict=True) for value in pair]))


@op("NP 0F C6 /r", "Vps,Wps,Ib", feature="sse")
def shufps(i: Instruction, dst: Operand, src: Operand, order: Operand) -> None:
    use_sse(i)
    a, b, control = i.read(dst), source(i, src), i.read(order)
    picked = [i.lane(a if k < 2 else b, 32, control >> 2 * k) for k in range(4)]
    i.write(dst, i.join(picked))


@op("66 0F C6 /r", "Vpd,Wpd,Ib", feature="sse2")
def shufpd(i: Instruction, dst: Operand, src: Operand, order: Operand) -> None:
    use_sse(i)
    a, b, control = i.read(dst), source(i, src), i.read(order)
    i.write(dst, i.join((i.lane(a, 64, control), i.lane(b, 64, control >> 1))))


@op("NP 0F 50 /r", "Gd,Ups", feature="sse", extra=(32,))
@op("66 0F 50 /r", "Gd,Upd", feature="sse2", name="movmskpd", extra=(64,))
def movmskps(i: Instruction, dst: Operand, src: Operand, lane: int) -> None:
    use_sse(i)
    i.write(dst, i.map(lane, lambda x: x.sign(), i.read(src)).zext(32))


# ---- conversions to and from integers -------------------------------------------------------------------------
@op("F3 W0 0F 2A /r", "Vss,Ed", feature="sse", extra=(32,))
@op("F3 W1 0F 2A /r", "Vss,Eq", feature="sse", extra=(32,))
@op("F2 W0 0F 2A /r", "Vsd,Ed", feature="sse2", name="cvtsi2sd", extra=(64,))
@op("F2 W1 0F 2A /r", "Vsd,Eq", feature="sse2", name="cvtsi2sd", extra=(64,))
def cvtsi2ss(i: Instruction, dst: Operand, src: Operand, lane: int) -> None:
    use_sse(i)
    set_low(i, dst, i.convert("int_to_float", i.read(src), lane))


def cvtss2si(i: Instruction, dst: Operand, src: Operand, lane: int, conversion: str) -> None:
    use_sse(i)
    i.write(dst, i.convert(conversion, i.read(src).trunc(lane), dst.width))


def cvtps2pi(i: Instruction, dst: Operand, src: Operand, lane: int, conversion: str) -> None:
    use_sse(i)
    check_mmx(i)
    value = i.read(src).trunc(2 * lane) if lane == 32 else source(i, src)
    i.call(enter_mmx)  # also if the conversion raises #XM
    set_mm(i, dst, i.map(lane, lambda x: i.convert(conversion, x, 32), value))


for _packed, _scalar, _letter, _lane, _feature in PRECISIONS:
    for _opcode, _name, _conversion in ((0x2C, "cvtt", "float_to_int_trunc"), (0x2D, "cvt", "float_to_int")):
        _static = {"feature": _feature, "extra": (_lane, _conversion)}
        for _w, _general in (("W0", "Gd"), ("W1", "Gq")):
            op(
                f"{_scalar} {_w} 0F {_opcode:02X} /r",
                f"{_general},Ws{_letter}",
                name=f"{_name}s{_letter}2si",
                **_static,
            )(cvtss2si)
        _w = "Wq" if _lane == 32 else "Wpd"
        op(f"{_packed} 0F {_opcode:02X} /r", f"Pq,{_w}", name=f"{_name}p{_letter}2pi", **_static)(cvtps2pi)


@op("NP 0F 2A /r", "Vps,Qq", feature="sse")
def cvtpi2ps(i: Instruction, dst: Operand, src: Operand) -> None:
    use_sse(i)
    if not src.is_memory:
        check_mmx(i)
        i.call(enter_mmx)  # also if the conversion raises #XM
    set_low(i, dst, i.map(32, lambda x: i.convert("int_to_float", x, 32), i.read(src)))


@op("66 0F 2A /r", "Vpd,Qq", feature="sse2")
def cvtpi2pd(i: Instruction, dst: Operand, src: Operand) -> None:
    use_sse(i)
    if not src.is_memory:
        use_mmx(i)
    i.write(dst, i.map(32, lambda x: i.convert("int_to_float", x, 64), i.read(src)))


# ---- control and status ----------------------------------------------------------------------------------------
@op("NP 0F AE /2", "Md", feature="sse", ends_block=True)
def ldmxcsr(i: Instruction, src: Operand) -> None:
    use_sse(i)
    value = i.read(src)
    i.fault_if((value & ~MXCSR_MASK).ne(0), GP)
    i.set_state(MXCSR, value.zext(64))


@op("NP 0F AE /3", "Md", feature="sse")
def stmxcsr(i: Instruction, dst: Operand) -> None:
    use_sse(i)
    i.write(dst, i.mxcsr())
