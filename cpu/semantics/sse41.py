"""SSE4.1 (SDM 1, 12.8): blends, rounding, dot products, inserts and extracts, widening moves, more integer lanes."""

from __future__ import annotations

from pyemu.cpu.instruction import Instruction
from pyemu.cpu.ops import Operand, op
from pyemu.cpu.semantics import packed as table
from pyemu.cpu.semantics.sse import vector
from pyemu.cpu.semantics.sse2 import insert_lane
from pyemu.cpu.semantics.vectors import Vector, each, lanes, set_low, source, use_sse
from pyemu.cpu.state import VEC
from pyemu.cpu.values import Value

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
    (0x2B, "packusdw", table.pack(32, signed=False)),
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
    op(f"66 0F 38 {_opcode:02X} /r", "Vdq,Wdq", name=_name, feature=FEATURE, extra=(_function,))(vector)


def widen(i: Instruction, dst: Operand, src: Operand, lane: int, to: int, signed: bool) -> None:
    """PMOVSX and PMOVZX."""
    use_sse(i)
    value = i.read(src).trunc(128 // to * lane)
    i.write(dst, i.map(lane, lambda x: x.sext(to) if signed else x.zext(to), value))


for _base, _letter, _signed in ((0x20, "s", True), (0x30, "z", False)):
    for _low, _sizes, _lane, _to, _source in (
        (0, "bw", 8, 16, "Wq"), (1, "bd", 8, 32, "Wd"), (2, "bq", 8, 64, "Ww"),
        (3, "wd", 16, 32, "Wq"), (4, "wq", 16, 64, "Wd"), (5, "dq", 32, 64, "Wq"),
    ):  # fmt: skip
        op(
            f"66 0F 38 {_base + _low:02X} /r",
            f"Vdq,{_source}",
            name=f"pmov{_letter}x{_sizes}",
            feature=FEATURE,
            extra=(_lane, _to, _signed),
        )(widen)


@op("66 0F 38 2A /r", "Vdq,Mdq", feature=FEATURE)
def movntdqa(i: Instruction, dst: Operand, src: Operand) -> None:
    use_sse(i)
    i.write(dst, source(i, src))


@op("66 0F 38 17 /r", "Vdq,Wdq", flags="w", feature=FEATURE)
def ptest(i: Instruction, a: Operand, b: Operand) -> None:
    use_sse(i)
    first, second, zero = i.read(a), source(i, b), i.const(0, 1)
    zf, cf = (first & second).eq(0), (~first & second).eq(0)
    i.flags_only(zf=zf, cf=cf, pf=zero, af=zero, sf=zero, of=zero)


@op("66 0F 3A 42 /r", "Vdq,Wdq,Ib", feature=FEATURE)
def mpsadbw(i: Instruction, dst: Operand, src: Operand, control: Operand) -> None:
    use_sse(i)
    k = i.read(control).zext(128)
    a = lanes(i, i.read(dst) >> ((k & 4) << 3), 8)  # eleven bytes from 0 or 4
    b = lanes(i, source(i, src) >> ((k & 3) << 5), 8)  # four bytes from 0, 4, 8 or 12
    sums = []
    for at in range(8):
        total = table.byte_difference(a[at], b[0])
        for n in range(1, 4):
            total = total + table.byte_difference(a[at + n], b[n])
        sums.append(total)
    i.write(dst, i.join(sums))


# ---- blends --------------------------------------------------------------------------------------------------
def blend_by_sign(i: Instruction, dst: Operand, src: Operand, lane: int) -> None:
    """Lanes whose sign is set in XMM0 come from the source."""
    use_sse(i)
    i.write(dst, i.map(lane, lambda a, b, m: m.sign().select(b, a), i.read(dst), source(i, src), i.state(VEC, 128)))


def blend_by_immediate(i: Instruction, dst: Operand, src: Operand, mask: Operand, lane: int) -> None:
    use_sse(i)
    bits = i.read(mask)
    pairs = zip(lanes(i, i.read(dst), lane), lanes(i, source(i, src), lane), strict=True)
    i.write(dst, i.join([bits.bit(k).select(b, a) for k, (a, b) in enumerate(pairs)]))


for _opcode, _name, _lane in ((0x10, "pblendvb", 8), (0x14, "blendvps", 32), (0x15, "blendvpd", 64)):
    op(f"66 0F 38 {_opcode:02X} /r", "Vdq,Wdq", name=_name, feature=FEATURE, extra=(_lane,))(blend_by_sign)
for _opcode, _name, _lane in ((0x0C, "blendps", 32), (0x0D, "blendpd", 64), (0x0E, "pblendw", 16)):
    op(f"66 0F 3A {_opcode:02X} /r", "Vdq,Wdq,Ib", name=_name, feature=FEATURE, extra=(_lane,))(blend_by_immediate)


# ---- inserts and extracts -------------------------------------------------------------------------------------
@op("66 0F 3A 20 /r", "Vdq,Mb,Ib", feature=FEATURE, name="pinsrb", extra=(8,))
@op("66 0F 3A 20 /r", "Vdq,Rd,Ib", feature=FEATURE, name="pinsrb", extra=(8,))
@op("66 W0 0F 3A 22 /r", "Vdq,Ed,Ib", feature=FEATURE, name="pinsrd", extra=(32,))
@op("66 W1 0F 3A 22 /r", "Vdq,Eq,Ib", feature=FEATURE, name="pinsrq", extra=(64,))
def insert(i: Instruction, dst: Operand, src: Operand, index: Operand, lane: int) -> None:
    use_sse(i)
    insert_lane(i, dst, i.read(src).trunc(lane), i.read(index))


@op("66 0F 3A 14 /r", "Mb,Vdq,Ib", feature=FEATURE, name="pextrb", extra=(8,))
@op("66 0F 3A 14 /r", "Rd,Vdq,Ib", feature=FEATURE, name="pextrb", extra=(8,))
@op("66 0F 3A 15 /r", "Mw,Vdq,Ib", feature=FEATURE, name="pextrw", extra=(16,))
@op("66 0F 3A 15 /r", "Rd,Vdq,Ib", feature=FEATURE, name="pextrw", extra=(16,))
@op("66 W0 0F 3A 16 /r", "Ed,Vdq,Ib", feature=FEATURE, name="pextrd", extra=(32,))
@op("66 W1 0F 3A 16 /r", "Eq,Vdq,Ib", feature=FEATURE, name="pextrq", extra=(64,))
@op("66 0F 3A 17 /r", "Ed,Vdq,Ib", feature=FEATURE, name="extractps", extra=(32,))
def extract(i: Instruction, dst: Operand, src: Operand, index: Operand, lane: int) -> None:
    use_sse(i)
    i.write(dst, i.lane(i.read(src), lane, i.read(index)).zext(dst.width))


@op("66 0F 3A 21 /r", "Vdq,Wd,Ib", feature=FEATURE)
def insertps(i: Instruction, dst: Operand, src: Operand, control: Operand) -> None:
    use_sse(i)
    k = i.read(control)
    value = i.read(src) if src.is_memory else i.lane(i.read(src), 32, k >> 6)
    at, now = (k >> 4) & 3, lanes(i, i.read(dst), 32)
    i.write(dst, i.join([k.bit(n).select(0, at.eq(n).select(value, now[n])) for n in range(4)]))


# ---- floating point ------------------------------------------------------------------------------------------
def round_packed(i: Instruction, dst: Operand, src: Operand, mode: Operand, lane: int) -> None:
    use_sse(i)
    how = i.read(mode)
    i.write(dst, i.join([i.round_float(x, how) for x in lanes(i, source(i, src), lane)]))


def round_scalar(i: Instruction, dst: Operand, src: Operand, mode: Operand, lane: int) -> None:
    use_sse(i)
    set_low(i, dst, i.round_float(i.read(src).trunc(lane), i.read(mode)))


op("66 0F 3A 08 /r", "Vps,Wps,Ib", name="roundps", feature=FEATURE, extra=(32,))(round_packed)
op("66 0F 3A 09 /r", "Vpd,Wpd,Ib", name="roundpd", feature=FEATURE, extra=(64,))(round_packed)
op("66 0F 3A 0A /r", "Vss,Wss,Ib", name="roundss", feature=FEATURE, extra=(32,))(round_scalar)
op("66 0F 3A 0B /r", "Vsd,Wsd,Ib", name="roundsd", feature=FEATURE, extra=(64,))(round_scalar)


@op("66 0F 3A 40 /r", "Vps,Wps,Ib", feature=FEATURE, name="dpps", extra=(32,))
@op("66 0F 3A 41 /r", "Vpd,Wpd,Ib", feature=FEATURE, name="dppd", extra=(64,))
def dot_product(i: Instruction, dst: Operand, src: Operand, control: Operand, lane: int) -> None:
    use_sse(i)
    mask = i.read(control)
    pairs = zip(lanes(i, i.read(dst), lane), lanes(i, source(i, src), lane), strict=True)
    # a lane that is left out counts as +0, without exceptions from its product
    terms = [mask.bit(4 + k).select(a, 0).fmul(mask.bit(4 + k).select(b, 0)) for k, (a, b) in enumerate(pairs)]
    while len(terms) > 1:
        terms = [terms[k].fadd(terms[k + 1]) for k in range(0, len(terms), 2)]
    i.write(dst, i.join([mask.bit(k).select(terms[0], 0) for k in range(128 // lane)]))
