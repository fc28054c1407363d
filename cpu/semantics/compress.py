"""AVX-512 instructions whose result has fewer elements than the source, or the other way round: VPCOMPRESS, VPEXPAND,
and the down-converting VPMOV.
"""

from __future__ import annotations

from collections.abc import Callable

from pyemu.cpu import vector_memory
from pyemu.cpu.instruction import Instruction
from pyemu.cpu.ops import Operand, op
from pyemu.cpu.semantics.vectors import saturate_signed, use_simd
from pyemu.cpu.values import Value


def _first(i: Instruction) -> Value:
    """As many of the lowest elements as the mask selects: one bit an element."""
    total = i.form.elements
    count = i.mask(total).zext(64).ctpop()
    return ((i.const(1, 64) << count) - 1).trunc(total)


def compress(i: Instruction, dst: Operand, src: Operand) -> None:
    """The selected elements, one after the other; those above them stay, or become zero. Memory gets no more."""
    use_simd(i)
    lane, total = i.form.row.element, i.form.elements
    value = i.read(src)
    i.set_vector(value)
    i.call(vector_memory.compress, lane // 8, i.mask(total))
    value = i.vector(value.width)
    if dst.is_memory:
        i.store_elements(dst, value, _first(i), whole=False)
    else:
        i.replace(dst, i.merge(dst, value, _first(i)))


def expand(i: Instruction, dst: Operand, src: Operand) -> None:
    """One element after the other of the source where the mask selects. Memory has no more of them."""
    use_simd(i)
    lane, total = i.form.row.element, i.form.elements
    if src.is_memory:
        i.load_elements(src, dst.width, _first(i))
    else:
        i.set_vector(i.read(src))
    i.call(vector_memory.expand, total, lane // 8, i.mask(total))
    i.write(dst, i.vector(dst.width))


for _compress, _expand, _name, _lane, _w, _feature in (
    (0x63, 0x62, "pCb", 8, "W0", "avx512vbmi2"),
    (0x63, 0x62, "pCw", 16, "W1", "avx512vbmi2"),
    (0x8B, 0x89, "pCd", 32, "W0", "avx512f"),
    (0x8B, 0x89, "pCq", 64, "W1", "avx512f"),
    (0x8A, 0x88, "Cps", 32, "W0", "avx512f"),
    (0x8A, 0x88, "Cpd", 64, "W1", "avx512f"),
):
    for _opcode, _operands, _verb, _function in (
        (_compress, "Wx,Vx", "compress", compress), (_expand, "Vx,Wx", "expand", expand),
    ):  # fmt: skip
        op(
            f"EVEX.66.0F38.{_w} {_opcode:02X} /r",
            _operands,
            name="v" + _name.replace("C", _verb),
            feature=_feature,
            element=_lane,
            disp8=_lane // 8,
        )(_function)


# ---- narrower elements ---------------------------------------------------------------------------------------
_NARROWED: dict[str, Callable[[Value, int], Value]] = {
    "": lambda x, width: x.trunc(width),
    "s": saturate_signed,
    "us": lambda x, width: x.ult(1 << width).select(x, -1).trunc(width),
}


def narrow(i: Instruction, dst: Operand, src: Operand, lane: int, kind: str) -> None:
    """VPMOVQB and the like: truncated, or with signed or unsigned saturation."""
    use_simd(i)
    width = i.form.row.element
    result = i.map(lane, lambda x: _NARROWED[kind](x, width), i.read(src))
    i.write(dst, result if dst.is_memory else result.zext(dst.width))


for _low, _letters, _lane, _width, _type in (
    (0, "wb", 16, 8, "h"), (1, "db", 32, 8, "f"), (2, "qb", 64, 8, "e"),
    (3, "dw", 32, 16, "h"), (4, "qw", 64, 16, "f"), (5, "qd", 64, 32, "h"),
):  # fmt: skip
    for _base, _kind in ((0x30, ""), (0x20, "s"), (0x10, "us")):
        op(
            f"EVEX.F3.0F38.W0 {_base + _low:02X} /r",
            f"W{_type},Vx",
            name=f"vpmov{_kind}{_letters}",
            feature="avx512bw" if _lane == 16 else "avx512f",
            element=_width,
            extra=(_lane, _kind),
        )(narrow)
