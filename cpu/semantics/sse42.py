"""SSE4.2: text comparison, CRC32 and PCMPGTQ (the comparisons themselves are in text_compare.py)."""

from __future__ import annotations

from collections.abc import Callable

from pyemu.cpu import text_compare
from pyemu.cpu.instruction import MAX_VECTOR, Instruction
from pyemu.cpu.ops import Operand, op
from pyemu.cpu.semantics import packed
from pyemu.cpu.semantics.rows import simd
from pyemu.cpu.semantics.sse import vector
from pyemu.cpu.semantics.vectors import each, use_simd
from pyemu.cpu.state import RAX, RCX, RDX, VEC
from pyemu.cpu.values import Value

FEATURE = "sse4.2"

simd(
    "66 0F 38 37 /r",
    "Vx,Hx,Wx",
    "pcmpgtq",
    sse=FEATURE,
    avx256="avx2",
    evex=packed.evex_forms("pcmpgtq", "Vx,Hx,Wx"),
    extra=(each(64, packed.greater),),
)(vector)


@op("F2 0F 38 F0 /r", "Gd,Eb", feature=FEATURE)
@op("F2 0F 38 F1 /r", "Gd,Ev", feature=FEATURE)
def crc32(i: Instruction, dst: Operand, src: Operand) -> None:
    i.call(text_compare.crc32c, i.read(dst), i.read(src), src.size)
    i.write(dst, i.value(32))


# ---- text ----------------------------------------------------------------------------------------------------
def _compare(i: Instruction, first: Operand, second: Operand, control: Operand) -> tuple[Value, Value]:
    """Do the comparison and set the flags: IntRes2 and the control byte."""
    use_simd(i)
    a, b, how = i.read(first), i.read(second), i.read(control)
    parts = (a.trunc(64), a.bits(64, 64), b.trunc(64), b.bits(64, 64))
    if "pcmpe" in i.form.row.name:
        width = 64 if i.size == 8 else 32
        i.call(text_compare.compare_explicit, *parts, i.gpr(RAX, width).sext(64), i.gpr(RDX, width).sext(64), how)
    else:
        i.call(text_compare.compare_implicit, *parts, how)
    result, short = i.split_value()
    zero = i.const(0, 1)
    i.flags_only(cf=result.ne(0), zf=short.bit(1), sf=short.bit(0), of=result.bit(0), af=zero, pf=zero)
    return result, how


def compare_to_index(i: Instruction, first: Operand, second: Operand, control: Operand) -> None:
    """PCMPxSTRI: the number of the lowest or highest bit set, or the number of elements, into ECX."""
    result, how = _compare(i, first, second, control)
    picked = how.bit(6).select(i.const(63, 64) - result.ctlz(), result.cttz())
    none = how.bit(0).select(i.const(8, 64), 16)
    i.set_gpr(RCX, result.eq(0).select(none, picked).trunc(32))


def compare_to_mask(i: Instruction, first: Operand, second: Operand, control: Operand) -> None:
    """PCMPxSTRM: the bits, or elements of all ones and all zeros, into XMM0."""
    result, how = _compare(i, first, second, control)
    words = i.join([result.bit(k).sext(16) for k in range(8)])
    mask = how.bit(0).select(words, i.join([result.bit(k).sext(8) for k in range(16)]))
    xmm0 = how.bit(6).select(mask, result.zext(128))
    i.set_state(VEC, xmm0.zext(MAX_VECTOR) if i.form.space else xmm0)


Compare = Callable[[Instruction, Operand, Operand, Operand], None]
_ROWS: tuple[tuple[int, str, Compare], ...] = (
    (0x60, "pcmpestrm", compare_to_mask),
    (0x61, "pcmpestri", compare_to_index),
    (0x62, "pcmpistrm", compare_to_mask),
    (0x63, "pcmpistri", compare_to_index),
)
for _opcode, _name, _function in _ROWS:
    # REX.W makes the lengths of the explicit forms 64 bits wide
    for _w, _size in (("W0", 0), ("W1", 8)):
        _text = f"66 {_w} 0F 3A {_opcode:02X} /r"
        _modes = "64" if _size else "any"
        simd(_text, "Vdq,Wdq,Ib", _name, sse=FEATURE, lengths="LZ", w=_w, flags="w", sizes=(_size,), modes=_modes)(
            _function
        )
