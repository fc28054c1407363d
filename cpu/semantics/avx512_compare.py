"""AVX-512 comparisons and tests of integers into masks, and blends by masks.

The comparisons that SSE has too (VPCMPEQ, VPCMPGT, VCMPPS) are with its families.
"""

from __future__ import annotations

from pyemu.cpu.instruction import Instruction
from pyemu.cpu.ops import Operand, op
from pyemu.cpu.semantics.vectors import lanes, use_simd
from pyemu.cpu.values import Value

# Letter, bits, EVEX.W of the opcode that it shares with the other size, feature.
SMALL = (("b", 8, "W0", "avx512bw"), ("w", 16, "W1", "avx512bw"))
LARGE = (("d", 32, "W0", "avx512f"), ("q", 64, "W1", "avx512f"))


def compare(
    i: Instruction, dst: Operand, first: Operand, second: Operand, kind: Operand, lane: int, signed: bool
) -> None:
    """VPCMP and VPCMPU; the predicate's bits 1-0 are EQ, LT, LE, FALSE, bit 2 the opposite (SDM 2, VPCMPD)."""
    use_simd(i)
    a, b, predicate = i.read(first), i.read(second), i.read(kind)
    equal = i.map(lane, lambda x, y: x.eq(y), a, b)
    less = i.map(lane, lambda x, y: x.slt(y) if signed else x.ult(y), a, b)
    low, high = predicate.bit(0), predicate.bit(1)
    result = low.select(0, equal) | (low ^ high).select(less, 0)
    i.write_mask(dst, result ^ predicate.bit(2).sext(result.width))


def test(i: Instruction, dst: Operand, first: Operand, second: Operand, lane: int, zero: bool) -> None:
    """VPTESTM and VPTESTNM: which lanes have bits in common, or none."""
    use_simd(i)
    both = i.read(first) & i.read(second)
    i.write_mask(dst, i.map(lane, lambda x: x.eq(0) if zero else x.ne(0), both))


def blend(i: Instruction, dst: Operand, first: Operand, second: Operand, lane: int) -> None:
    """VPBLENDM: the second source where the mask selects, else the first, or zero."""
    use_simd(i)
    kept = i.unless_zeroing(i.read(first))
    chosen = i.map(lane, lambda x, y, m: m.select(y, x), kept, i.read(second), i.mask(dst.width // lane))
    i.replace(dst, chosen)


for _sizes, _signed_opcode, _test_opcode, _blend_opcode in ((SMALL, 0x3F, 0x26, 0x66), (LARGE, 0x1F, 0x27, 0x64)):
    for _letter, _lane, _w, _feature in _sizes:
        _broadcast = _lane if _lane >= 32 else 0
        for _opcode, _name, _signed in ((_signed_opcode, "vpcmp", True), (_signed_opcode - 1, "vpcmpu", False)):
            op(
                f"EVEX.66.0F3A.{_w} {_opcode:02X} /r",
                "KGq,Hx,Wx,Ib",
                name=_name + _letter,
                feature=_feature,
                element=_lane,
                masking="k",
                broadcast=_broadcast,
                extra=(_lane, _signed),
            )(compare)
        for _prefix, _name, _zero in (("66", "vptestm", False), ("F3", "vptestnm", True)):
            op(
                f"EVEX.{_prefix}.0F38.{_w} {_test_opcode:02X} /r",
                "KGq,Hx,Wx",
                name=_name + _letter,
                feature=_feature,
                element=_lane,
                masking="k",
                broadcast=_broadcast,
                extra=(_lane, _zero),
            )(test)
        op(
            f"EVEX.66.0F38.{_w} {_blend_opcode:02X} /r",
            "Vx,Hx,Wx",
            name=f"vpblendm{_letter}",
            feature=_feature,
            element=_lane,
            broadcast=_broadcast,
            extra=(_lane,),
        )(blend)
for _name, _lane, _w in (("vblendmps", 32, "W0"), ("vblendmpd", 64, "W1")):
    op(
        f"EVEX.66.0F38.{_w} 65 /r",
        "Vx,Hx,Wx",
        name=_name,
        feature="avx512f",
        element=_lane,
        broadcast=_lane,
        extra=(_lane,),
    )(blend)


def _selected_bits(i: Instruction, value: Value, indices: Value) -> Value:
    """Eight bits of a quadword, by eight indices."""
    return i.join([value.bit((index & 63).zext(64)) for index in lanes(i, indices, 8)])


@op("EVEX.66.0F38.W0 8F /r", "KGq,Hx,Wx", feature="avx512bitalg", element=8, masking="k")
def vpshufbitqmb(i: Instruction, dst: Operand, first: Operand, second: Operand) -> None:
    use_simd(i)
    pairs = zip(lanes(i, i.read(first), 64), lanes(i, i.read(second), 64), strict=True)
    i.write_mask(dst, i.join([_selected_bits(i, a, b) for a, b in pairs]))
