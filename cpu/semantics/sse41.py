"""SSE4.1 (SDM 1, 12.8): blends, rounding, dot products, inserts and extracts, widening moves, more integer lanes; and
their VEX and EVEX forms.
"""

from __future__ import annotations

from typing import Any

from pyemu.cpu.instruction import Instruction
from pyemu.cpu.ops import Operand, op
from pyemu.cpu.semantics import packed as table
from pyemu.cpu.semantics.rows import Evex, simd
from pyemu.cpu.semantics.sse import move_aligned, packed_vector, vector
from pyemu.cpu.semantics.sse2 import insert_lane
from pyemu.cpu.semantics.vectors import Vector, each, in_lanes, lanes, set_low, source, use_simd
from pyemu.cpu.state import VEC
from pyemu.cpu.values import Value

_static: dict[str, Any]  # attributes that rows of a group share
_evex: Evex

FEATURE = "sse4.1"


# ---- integer lanes -------------------------------------------------------------------------------------------
def _multiply_even_signed(a: Value, b: Value) -> Value:
    return a.trunc(32).sext(64) * b.trunc(32).sext(64)


def _minimum_position(i: Instruction, a: Value, b: Value) -> Value:
    """PHMINPOSUW: the smallest word, and where it first stands."""
    best = i.lane(b, 16, 0).zext(32) << 3
    for k in range(1, 8):
        best = table.minimum_unsigned(best, (i.lane(b, 16, k).zext(32) << 3) | k)
    return i.join(((best >> 3).trunc(16), (best & 7).trunc(16))).zext(128)


_VECTORS: tuple[tuple[int, str, Vector], ...] = (
    (0x28, "pmuldq", each(64, _multiply_even_signed)),
    (0x29, "pcmpeqq", each(64, table.equal)),
    (0x2B, "packusdw", in_lanes(table.pack(32, signed=False))),
    (0x38, "pminsb", each(8, table.minimum_signed)),
    (0x39, "pminsd", each(32, table.minimum_signed)),
    (0x3A, "pminuw", each(16, table.minimum_unsigned)),
    (0x3B, "pminud", each(32, table.minimum_unsigned)),
    (0x3C, "pmaxsb", each(8, table.maximum_signed)),
    (0x3D, "pmaxsd", each(32, table.maximum_signed)),
    (0x3E, "pmaxuw", each(16, table.maximum_unsigned)),
    (0x3F, "pmaxud", each(32, table.maximum_unsigned)),
    (0x40, "pmulld", each(32, table.multiply_low)),
    (0x41, "phminposuw", _minimum_position),
)
for _opcode, _name, _function in _VECTORS:
    _static = {"sse": FEATURE, "extra": (_function,)}
    if _name == "phminposuw":
        simd(f"66 0F 38 {_opcode:02X} /r", "Vdq,Wdq", _name, lengths="LZ", **_static)(packed_vector)
    else:
        _forms = table.evex_forms(_name, "Vx,Hx,Wx")
        simd(f"66 0F 38 {_opcode:02X} /r", "Vx,Hx,Wx", _name, avx256="avx2", evex=_forms, **_static)(vector)
simd(
    "66 0F 38 40 /r",
    "Vx,Hx,Wx",
    "pmullq",
    avx="",
    evex=Evex("avx512dq", 64, "W1", 64),
    extra=(each(64, table.multiply_low),),
)(vector)


def widen(i: Instruction, dst: Operand, src: Operand, lane: int, to: int, signed: bool) -> None:
    """PMOVSX and PMOVZX."""
    use_simd(i)
    value = i.read(src).trunc(dst.width // to * lane)
    i.write(dst, i.map(lane, lambda x: x.sext(to) if signed else x.zext(to), value))


for _base, _letter, _signed in ((0x20, "s", True), (0x30, "z", False)):
    for _low, _sizes, _lane, _to, _source in (
        (0, "bw", 8, 16, "Wh"), (1, "bd", 8, 32, "Wf"), (2, "bq", 8, 64, "We"),
        (3, "wd", 16, 32, "Wh"), (4, "wq", 16, 64, "Wf"), (5, "dq", 32, 64, "Wh"),
    ):  # fmt: skip
        simd(
            f"66 0F 38 {_base + _low:02X} /r",
            f"Vx,{_source}",
            f"pmov{_letter}x{_sizes}",
            sse=FEATURE,
            avx256="avx2",
            evex=Evex("avx512bw" if _to == 16 else "avx512f", _to, "W0" if _lane == 32 else ""),
            extra=(_lane, _to, _signed),
        )(widen)

simd("66 0F 38 2A /r", "Vx,Mx", "movntdqa", sse=FEATURE, avx256="avx2", evex=Evex("avx512f", w="W0"))(move_aligned)


def ptest(i: Instruction, a: Operand, b: Operand) -> None:
    use_simd(i)
    first, second, zero = i.read(a), source(i, b), i.const(0, 1)
    zf, cf = (first & second).eq(0), (~first & second).eq(0)
    i.flags_only(zf=zf, cf=cf, pf=zero, af=zero, sf=zero, of=zero)


simd("66 0F 38 17 /r", "Vx,Wx", "ptest", sse=FEATURE, flags="w")(ptest)


def _sums_of_differences(i: Instruction, first: Value, second: Value, k: Value) -> Value:
    """MPSADBW of 128 bits; three bits of control."""
    k = k.zext(128)
    a = lanes(i, first >> ((k & 4) << 3), 8)  # eleven bytes from 0 or 4
    b = lanes(i, second >> ((k & 3) << 5), 8)  # four bytes from 0, 4, 8 or 12
    sums = []
    for at in range(8):
        total = table.byte_difference(a[at], b[0])
        for n in range(1, 4):
            total = total + table.byte_difference(a[at + n], b[n])
        sums.append(total)
    return i.join(sums)


def mpsadbw(i: Instruction, dst: Operand, first: Operand, second: Operand, control: Operand) -> None:
    use_simd(i)
    k = i.read(control)
    pairs = zip(lanes(i, i.read(first), 128), lanes(i, source(i, second), 128), strict=True)
    i.write(dst, i.join([_sums_of_differences(i, a, b, k >> 3 * n) for n, (a, b) in enumerate(pairs)]))


simd("66 0F 3A 42 /r", "Vx,Hx,Wx,Ib", "mpsadbw", sse=FEATURE, avx256="avx2")(mpsadbw)


# ---- blends --------------------------------------------------------------------------------------------------
def _by_sign(i: Instruction, a: Value, b: Value, mask: Value, lane: int) -> Value:
    return i.map(lane, lambda x, y, m: m.sign().select(y, x), a, b, mask)


def blend_by_sign(i: Instruction, dst: Operand, src: Operand, lane: int) -> None:
    """Lanes whose sign is set in XMM0 come from the source."""
    use_simd(i)
    i.write(dst, _by_sign(i, i.read(dst), source(i, src), i.state(VEC, 128), lane))


def blend_by_register(i: Instruction, dst: Operand, first: Operand, second: Operand, mask: Operand, lane: int) -> None:
    """The VEX forms name the register."""
    use_simd(i)
    i.write(dst, _by_sign(i, i.read(first), i.read(second), i.read(mask), lane))


def blend_by_immediate(i: Instruction, dst: Operand, first: Operand, second: Operand, mask: Operand, lane: int) -> None:
    use_simd(i)
    bits = i.read(mask)
    pairs = zip(lanes(i, i.read(first), lane), lanes(i, source(i, second), lane), strict=True)
    i.write(dst, i.join([bits.bit(k % 8).select(b, a) for k, (a, b) in enumerate(pairs)]))


for _opcode, _vex, _name, _lane, _wide in (
    (0x10, 0x4C, "pblendvb", 8, "avx2"), (0x14, 0x4A, "blendvps", 32, "avx"), (0x15, 0x4B, "blendvpd", 64, "avx"),
):  # fmt: skip
    op(f"66 0F 38 {_opcode:02X} /r", "Vdq,Wdq", name=_name, feature=FEATURE, extra=(_lane,))(blend_by_sign)
    _text = f"66 0F 3A {_vex:02X} /r"
    simd(_text, "Vx,Hx,Wx,Lx", _name, avx256=_wide, w="W0", extra=(_lane,))(blend_by_register)
for _opcode, _name, _lane, _wide in (
    (0x0C, "blendps", 32, "avx"), (0x0D, "blendpd", 64, "avx"), (0x0E, "pblendw", 16, "avx2"),
):  # fmt: skip
    _text = f"66 0F 3A {_opcode:02X} /r"
    simd(_text, "Vx,Hx,Wx,Ib", _name, sse=FEATURE, avx256=_wide, extra=(_lane,))(blend_by_immediate)


# ---- inserts and extracts -------------------------------------------------------------------------------------
def insert(i: Instruction, dst: Operand, first: Operand, src: Operand, index: Operand, lane: int) -> None:
    use_simd(i)
    insert_lane(i, dst, first, i.read(src).trunc(lane), i.read(index))


def extract(i: Instruction, dst: Operand, src: Operand, index: Operand, lane: int) -> None:
    use_simd(i)
    i.write(dst, i.lane(i.read(src), lane, i.read(index)).zext(dst.width))


for _text, _operands, _name, _lane, _w, _feature in (
    ("66 0F 3A 20 /r", "Vdq,Hdq,Mb,Ib", "pinsrb", 8, "", "avx512bw"),
    ("66 0F 3A 20 /r", "Vdq,Hdq,Rd,Ib", "pinsrb", 8, "", "avx512bw"),
    ("66 W0 0F 3A 22 /r", "Vdq,Hdq,Ed,Ib", "pinsrd", 32, "W0", "avx512dq"),
    ("66 W1 0F 3A 22 /r", "Vdq,Hdq,Eq,Ib", "pinsrq", 64, "W1", "avx512dq"),
    ("66 0F 3A 14 /r", "Mb,Vdq,Ib", "pextrb", 8, "", "avx512bw"),
    ("66 0F 3A 14 /r", "Rd,Vdq,Ib", "pextrb", 8, "", "avx512bw"),
    ("66 0F 3A 15 /r", "Mw,Vdq,Ib", "pextrw", 16, "", "avx512bw"),
    ("66 0F 3A 15 /r", "Rd,Vdq,Ib", "pextrw", 16, "", "avx512bw"),
    ("66 W0 0F 3A 16 /r", "Ed,Vdq,Ib", "pextrd", 32, "W0", "avx512dq"),
    ("66 W1 0F 3A 16 /r", "Eq,Vdq,Ib", "pextrq", 64, "W1", "avx512dq"),
    ("66 0F 3A 17 /r", "Ed,Vdq,Ib", "extractps", 32, "", "avx512f"),
):
    simd(
        _text,
        _operands,
        _name,
        sse=FEATURE,
        lengths="LZ",
        w=_w,
        modes="64" if _w == "W1" else "any",
        evex=Evex(_feature, w=_w),
        extra=(_lane,),
    )(insert if _name.startswith("pins") else extract)


def insertps(i: Instruction, dst: Operand, first: Operand, src: Operand, control: Operand) -> None:
    use_simd(i)
    k = i.read(control)
    value = i.read(src) if src.is_memory else i.lane(i.read(src), 32, k >> 6)
    at, now = (k >> 4) & 3, lanes(i, i.read(first), 32)
    i.write(dst, i.join([k.bit(n).select(0, at.eq(n).select(value, now[n])) for n in range(4)]))


simd("66 0F 3A 21 /r", "Vdq,Hdq,Wd,Ib", "insertps", sse=FEATURE, lengths="LZ", evex=Evex("avx512f", w="W0"))(insertps)


# ---- floating point ------------------------------------------------------------------------------------------
def round_packed(i: Instruction, dst: Operand, src: Operand, mode: Operand, lane: int) -> None:
    use_simd(i)
    how = i.read(mode)
    i.write(dst, i.join([i.round_float(x, how) for x in lanes(i, source(i, src), lane)]))


def round_scalar(i: Instruction, dst: Operand, first: Operand, src: Operand, mode: Operand, lane: int) -> None:
    use_simd(i)
    set_low(i, dst, i.read(first), i.round_float(i.read(src).trunc(lane), i.read(mode)))


for _opcode, _letter, _lane in ((0x08, "s", 32), (0x09, "d", 64)):
    simd(f"66 0F 3A {_opcode:02X} /r", "Vx,Wx,Ib", f"roundp{_letter}", sse=FEATURE, extra=(_lane,))(round_packed)
    _operands = f"Vdq,Hdq,Ws{_letter},Ib"
    simd(f"66 0F 3A {_opcode + 2:02X} /r", _operands, f"rounds{_letter}", sse=FEATURE, lengths="LIG", extra=(_lane,))(
        round_scalar
    )


def dot_product(i: Instruction, dst: Operand, first: Operand, src: Operand, control: Operand, lane: int) -> None:
    use_simd(i)
    mask = i.read(control)

    a, b, count = lanes(i, i.read(first), lane), lanes(i, source(i, src), lane), 128 // lane
    # a lane that is left out counts as +0, without exceptions from its product
    chosen = [mask.bit(4 + k % count) for k in range(len(a))]
    terms = [c.select(x, 0).fmul(c.select(y, 0)) for c, x, y in zip(chosen, a, b, strict=True)]
    while len(terms) > len(a) // count:
        i.settle_floats()  # an exception of one step prevents the next (SDM 2, DPPS)
        terms = [terms[k].fadd(terms[k + 1]) for k in range(0, len(terms), 2)]
    i.write(dst, i.join([mask.bit(k % count).select(terms[k // count], 0) for k in range(len(a))]))


simd("66 0F 3A 40 /r", "Vx,Hx,Wx,Ib", "dpps", sse=FEATURE, extra=(32,))(dot_product)
simd("66 0F 3A 41 /r", "Vdq,Hdq,Wdq,Ib", "dppd", sse=FEATURE, lengths="128", extra=(64,))(dot_product)
