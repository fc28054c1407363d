"""AVX-512's permutations, broadcasts, inserts and extracts; VPERMD and its kin of AVX2, which cross 128-bit lanes too.

Compressing and expanding is in compress.py.
"""

from __future__ import annotations

from pyemu.cpu.instruction import Instruction
from pyemu.cpu.ops import Operand, op
from pyemu.cpu.semantics.avx import repeat
from pyemu.cpu.semantics.rows import Evex, simd
from pyemu.cpu.semantics.vectors import lanes, use_simd


# ---- elements by a vector of indices -------------------------------------------------------------------------
def permute(i: Instruction, dst: Operand, indices: Operand, src: Operand, lane: int) -> None:
    """VPERMD and the like: every element is the one of the source that an index names."""
    use_simd(i)
    value = i.read(src)
    i.write(dst, i.join([i.lane(value, lane, index) for index in lanes(i, i.read(indices), lane)]))


def permute_two(i: Instruction, dst: Operand, first: Operand, second: Operand, lane: int, over_index: bool) -> None:
    """VPERMI2 and VPERMT2: elements of two sources; the result replaces the indices, or the first source."""
    use_simd(i)
    one, indices = (first, dst) if over_index else (dst, first)
    both = i.join((i.read(one), i.read(second)))
    i.write(dst, i.join([i.lane(both, lane, index) for index in lanes(i, i.read(indices), lane)]))


for _opcode, _name, _lane, _w, _avx, _feature in (
    (0x36, "permd", 32, "W0", "avx2", "avx512f"),
    (0x16, "permps", 32, "W0", "avx2", "avx512f"),
    (0x36, "permq", 64, "W1", "", "avx512f"),
    (0x16, "permpd", 64, "W1", "", "avx512f"),
    (0x8D, "permw", 16, "W1", "", "avx512bw"),
    (0x8D, "permb", 8, "W0", "", "avx512vbmi"),
):
    _evex = Evex(
        _feature,
        _lane,
        _w,
        _lane if _lane >= 32 else 0,
        whole=True,
        lengths="256/512" if _lane >= 32 else "128/256/512",
    )
    simd(f"66 0F 38 {_opcode:02X} /r", "Vx,Hx,Wx", _name, avx=_avx, lengths="256", w=_w, evex=_evex, extra=(_lane,))(
        permute
    )
for _opcode, _name, _lane, _w, _feature in (
    (0x75, "b", 8, "W0", "avx512vbmi"),
    (0x75, "w", 16, "W1", "avx512bw"),
    (0x76, "d", 32, "W0", "avx512f"),
    (0x76, "q", 64, "W1", "avx512f"),
    (0x77, "ps", 32, "W0", "avx512f"),
    (0x77, "pd", 64, "W1", "avx512f"),
):
    for _at, _kind, _over_index in ((_opcode, "vpermi2", True), (_opcode + 8, "vpermt2", False)):
        op(
            f"EVEX.66.0F38.{_w} {_at:02X} /r",
            "Vx,Hx,Wx",
            name=_kind + _name,
            feature=_feature,
            element=_lane,
            broadcast=_lane if _lane >= 32 else 0,
            whole=True,
            extra=(_lane, _over_index),
        )(permute_two)


# ---- elements by an immediate --------------------------------------------------------------------------------
def permute_quarters(i: Instruction, dst: Operand, src: Operand, order: Operand) -> None:
    """VPERMQ: four quadwords of each 256 bits, picked by four fields."""
    use_simd(i)
    control = i.read(order)
    parts = [[i.lane(part, 64, control >> 2 * k) for k in range(4)] for part in lanes(i, i.read(src), 256)]
    i.write(dst, i.join([x for part in parts for x in part]))


for _opcode, _name in ((0x00, "permq"), (0x01, "permpd")):
    _evex = Evex("avx512f", 64, "W1", 64, whole=True, lengths="256/512")
    simd(f"66 0F 3A {_opcode:02X} /r", "Vx,Wx,Ib", _name, avx="avx2", lengths="256", w="W1", evex=_evex)(
        permute_quarters
    )


def align(i: Instruction, dst: Operand, first: Operand, second: Operand, count: Operand, lane: int) -> None:
    """VALIGN: the first source above the second, shifted right by elements."""
    use_simd(i)
    both = i.join((i.read(second), i.read(first)))
    total = dst.width // lane
    by = i.read(count) & (total - 1)
    i.write(dst, i.join([i.lane(both, lane, by + k) for k in range(total)]))


def shuffle_blocks(i: Instruction, dst: Operand, first: Operand, second: Operand, order: Operand) -> None:
    """VSHUFF32X4: the lower half are 128-bit lanes of the first source, the upper half of the second."""
    use_simd(i)
    control, total = i.read(order), dst.width // 128
    a, b, bits = i.read(first), i.read(second), total // 2
    i.write(dst, i.join([i.lane(a if k < bits else b, 128, control >> bits * k) for k in range(total)]))


for _letter, _lane, _w in (("d", 32, "W0"), ("q", 64, "W1")):
    op(
        f"EVEX.66.0F3A.{_w} 03 /r",
        "Vx,Hx,Wx,Ib",
        name=f"valign{_letter}",
        feature="avx512f",
        element=_lane,
        broadcast=_lane,
        whole=True,
        extra=(_lane,),
    )(align)
for _opcode, _name, _lane, _w in (
    (0x23, "vshuff32x4", 32, "W0"), (0x23, "vshuff64x2", 64, "W1"), (0x43, "vshufi32x4", 32, "W0"),
    (0x43, "vshufi64x2", 64, "W1"),
):  # fmt: skip
    op(
        f"EVEX.256/512.66.0F3A.{_w} {_opcode:02X} /r",
        "Vx,Hx,Wx,Ib",
        name=_name,
        feature="avx512f",
        element=_lane,
        broadcast=_lane,
        whole=True,
    )(shuffle_blocks)


# ---- blocks of 128 and 256 bits ------------------------------------------------------------------------------
def insert_block(i: Instruction, dst: Operand, first: Operand, src: Operand, place: Operand, block: int) -> None:
    use_simd(i)
    value, now = i.read(src), lanes(i, i.read(first), block)
    at = i.read(place) & (len(now) - 1)
    i.write(dst, i.join([at.eq(k).select(value, x) for k, x in enumerate(now)]))


def extract_block(i: Instruction, dst: Operand, src: Operand, place: Operand, block: int) -> None:
    use_simd(i)
    i.write(dst, i.lane(i.read(src), block, i.read(place)))


_BLOCKS = (
    # suffix, lane, EVEX.W, bits, operand type, lengths, distance of the opcodes, feature
    ("32x4", 32, "W0", 128, "dq", "256/512", 0, "avx512f"),
    ("64x2", 64, "W1", 128, "dq", "256/512", 0, "avx512dq"),
    ("32x8", 32, "W0", 256, "qq", "512", 2, "avx512dq"),
    ("64x4", 64, "W1", 256, "qq", "512", 2, "avx512f"),
)
for _letter, _insert, _extract, _repeat in (("f", 0x18, 0x19, 0x1A), ("i", 0x38, 0x39, 0x5A)):
    for _suffix, _lane, _w, _bits, _type, _lengths, _further, _feature in _BLOCKS:
        for _map, _opcode, _operands, _verb, _whole, _function in (
            ("0F3A", _insert + _further, f"Vx,Hx,W{_type},Ib", "vinsert", True, insert_block),
            ("0F3A", _extract + _further, f"W{_type},Vx,Ib", "vextract", True, extract_block),
            ("0F38", _repeat + _further // 2, f"Vx,M{_type}", "vbroadcast", False, repeat),
        ):
            op(
                f"EVEX.{_lengths}.66.{_map}.{_w} {_opcode:02X} /r",
                _operands,
                name=f"{_verb}{_letter}{_suffix}",
                feature=_feature,
                element=_lane,
                whole=_whole,
                extra=(_bits,),
            )(_function)

for _opcode, _name, _operands, _lane, _w, _lengths, _bits, _feature in (
    (0x18, "vbroadcastss", "Vx,Wss", 32, "W0", "128/256/512", 32, "avx512f"),
    (0x19, "vbroadcastsd", "Vx,Wsd", 64, "W1", "256/512", 64, "avx512f"),
    (0x19, "vbroadcastf32x2", "Vx,Wq", 32, "W0", "256/512", 64, "avx512dq"),
    (0x59, "vbroadcasti32x2", "Vx,Wq", 32, "W0", "128/256/512", 64, "avx512dq"),
    (0x78, "vpbroadcastb", "Vx,Wb", 8, "W0", "128/256/512", 8, "avx512bw"),
    (0x79, "vpbroadcastw", "Vx,Ww", 16, "W0", "128/256/512", 16, "avx512bw"),
    (0x58, "vpbroadcastd", "Vx,Wd", 32, "W0", "128/256/512", 32, "avx512f"),
    (0x59, "vpbroadcastq", "Vx,Wq", 64, "W1", "128/256/512", 64, "avx512f"),
    (0x7A, "vpbroadcastb", "Vx,Rd", 8, "W0", "128/256/512", 8, "avx512bw"),
    (0x7B, "vpbroadcastw", "Vx,Rd", 16, "W0", "128/256/512", 16, "avx512bw"),
    (0x7C, "vpbroadcastd", "Vx,Rd", 32, "W0", "128/256/512", 32, "avx512f"),
    (0x7C, "vpbroadcastq", "Vx,Rq", 64, "W1", "128/256/512", 64, "avx512f"),
):
    op(
        f"EVEX.{_lengths}.66.0F38.{_w} {_opcode:02X} /r",
        _operands,
        name=_name,
        feature=_feature,
        element=_lane,
        modes="64" if _operands.endswith("Rq") else "any",
        extra=(_bits,),
    )(repeat)
