"""AVX and AVX2 (SDM 1, chapter 14): what they add to the SSE families, whose VEX forms stand beside the legacy ones;
EVEX forms of the same.

Broadcasts, permutations of halves, masked moves, tests, shifts by a vector of counts. FMA and half precision are in
fma.py, gathers in gather.py.
"""

from __future__ import annotations

from typing import Any

from pyemu.cpu.instruction import MAX_VECTOR, Instruction
from pyemu.cpu.ops import Operand, op
from pyemu.cpu.semantics.rows import Evex, simd
from pyemu.cpu.semantics.sse import vector
from pyemu.cpu.semantics.sse41 import blend_by_immediate
from pyemu.cpu.semantics.vectors import Vector, broadcast, each, in_lanes, lanes, use_simd
from pyemu.cpu.state import VEC
from pyemu.cpu.values import Value


def zero(i: Instruction, first: int, count: int) -> None:
    """VZEROUPPER and VZEROALL: clear `count` registers from word `first` on."""
    use_simd(i)
    nothing = i.const(0, MAX_VECTOR - 64 * first)
    for n in range(count):
        i.set_state(VEC + 8 * n + first, nothing)


for _length, _name, _first in ((128, "vzeroupper", 2), (256, "vzeroall", 0)):
    for _modes, _count in (("64", 16), ("legacy", 8)):  # the registers that a VEX encoding reaches
        op(f"VEX.{_length}.NP.0F 77", name=_name, feature="avx", modes=_modes, extra=(_first, _count))(zero)


# ---- broadcasts ----------------------------------------------------------------------------------------------
def repeat(i: Instruction, dst: Operand, src: Operand, block: int) -> None:
    """The lowest `block` bits of the source everywhere. With a mask, those elements of memory are read that a selected
    one of the result needs."""
    use_simd(i)
    if src.is_memory and i.masked:
        each_time = lanes(i, i.mask(i.form.elements), block // i.form.row.element)
        wanted = each_time[0]
        for mask in each_time[1:]:
            wanted = wanted | mask
        value = i.load_elements(src, block, wanted)
    else:
        value = i.read(src).trunc(block)
    i.write(dst, broadcast(i, value, dst.width))


for _text, _lengths, _operands, _name, _lane, _feature in (
    ("18", "128/256", "Vx,Md", "broadcastss", 32, "avx"),
    ("18", "128/256", "Vx,Udq", "broadcastss", 32, "avx2"),
    ("19", "256", "Vx,Mq", "broadcastsd", 64, "avx"),
    ("19", "256", "Vx,Udq", "broadcastsd", 64, "avx2"),
    ("1A", "256", "Vx,Mdq", "broadcastf128", 128, "avx"),
    ("5A", "256", "Vx,Mdq", "broadcasti128", 128, "avx2"),
    ("78", "128/256", "Vx,Wb", "pbroadcastb", 8, "avx2"),
    ("79", "128/256", "Vx,Ww", "pbroadcastw", 16, "avx2"),
    ("58", "128/256", "Vx,Wd", "pbroadcastd", 32, "avx2"),
    ("59", "128/256", "Vx,Wq", "pbroadcastq", 64, "avx2"),
):
    simd(f"66 0F 38 {_text} /r", _operands, _name, avx=_feature, lengths=_lengths, w="W0", extra=(_lane,))(repeat)


# ---- permutations ------------------------------------------------------------------------------------------------
def permute_in_lanes(lane: int) -> Vector:
    """VPERMILPS and VPERMILPD: elements picked within their 128 bits by the low bits (PS) or bit 1 (PD) of another."""

    def function(i: Instruction, a: Value, b: Value) -> Value:
        return i.join([i.lane(a, lane, index if lane == 32 else index >> 1) for index in lanes(i, b, lane)])

    return in_lanes(function)


def permute_by_immediate(i: Instruction, dst: Operand, src: Operand, order: Operand, lane: int) -> None:
    """Their forms with an immediate: two bits for each of four elements, or one for each of all."""
    use_simd(i)
    control, results = i.read(order), []
    for k, part in enumerate(lanes(i, i.read(src), 128)):
        for n in range(128 // lane):
            results.append(i.lane(part, lane, control >> (2 * n if lane == 32 else 2 * k + n)))
    i.write(dst, i.join(results))


def permute_halves(i: Instruction, dst: Operand, first: Operand, second: Operand, order: Operand) -> None:
    """VPERM2F128: each half is one of the four, or zero."""
    use_simd(i)
    control = i.read(order)
    four = i.join((i.read(first), i.read(second)))
    i.write(dst, i.join([control.bit(n + 3).select(0, i.lane(four, 128, control >> n)) for n in (0, 4)]))


def insert_half(i: Instruction, dst: Operand, first: Operand, second: Operand, place: Operand) -> None:
    use_simd(i)
    low, high = lanes(i, i.read(first), 128)
    value, upper = i.read(second), i.read(place).bit(0)
    i.write(dst, i.join((upper.select(low, value), upper.select(value, high))))


def extract_half(i: Instruction, dst: Operand, src: Operand, place: Operand) -> None:
    use_simd(i)
    i.write(dst, i.lane(i.read(src), 128, i.read(place)))


for _text, _immediate, _name, _lane in (("0C", "04", "permilps", 32), ("0D", "05", "permilpd", 64)):
    _extra = (permute_in_lanes(_lane),)
    _evex = Evex("avx512f", _lane, "W0" if _lane == 32 else "W1", _lane, whole=True)
    simd(f"66 0F 38 {_text} /r", "Vx,Hx,Wx", _name, w="W0", evex=_evex, extra=_extra)(vector)
    simd(f"66 0F 3A {_immediate} /r", "Vx,Wx,Ib", _name, w="W0", evex=_evex, extra=(_lane,))(permute_by_immediate)
for _feature, _letter, _permute, _insert, _extract in (("avx", "f", "06", "18", "19"), ("avx2", "i", "46", "38", "39")):
    _static: dict[str, Any] = {"avx": _feature, "lengths": "256", "w": "W0"}
    simd(f"66 0F 3A {_permute} /r", "Vx,Hx,Wx,Ib", f"perm2{_letter}128", **_static)(permute_halves)
    simd(f"66 0F 3A {_insert} /r", "Vx,Hx,Wdq,Ib", f"insert{_letter}128", **_static)(insert_half)
    simd(f"66 0F 3A {_extract} /r", "Wdq,Vx,Ib", f"extract{_letter}128", **_static)(extract_half)
simd("66 0F 3A 02 /r", "Vx,Hx,Wx,Ib", "pblendd", avx="avx2", w="W0", extra=(32,))(blend_by_immediate)


# ---- masked moves ------------------------------------------------------------------------------------------------
def masked_load(i: Instruction, dst: Operand, mask: Operand, src: Operand, lane: int) -> None:
    """Elements where the mask's sign is set; the others are 0 and can't fault."""
    use_simd(i)
    signs = i.map(lane, lambda x: x.sign(), i.read(mask))
    i.write(dst, i.load_elements(src, src.width, signs))


def masked_store(i: Instruction, dst: Operand, mask: Operand, src: Operand, lane: int) -> None:
    use_simd(i)
    signs = i.map(lane, lambda x: x.sign(), i.read(mask))
    i.store_elements(dst, i.read(src), signs)


for _load, _store, _name, _lane, _feature, _w in (
    ("2C", "2E", "maskmovps", 32, "avx", "W0"),
    ("2D", "2F", "maskmovpd", 64, "avx", "W0"),
    ("8C", "8E", "pmaskmovd", 32, "avx2", "W0"),
    ("8C", "8E", "pmaskmovq", 64, "avx2", "W1"),
):
    simd(f"66 0F 38 {_load} /r", "Vx,Hx,Mx", _name, avx=_feature, w=_w, extra=(_lane,))(masked_load)
    simd(f"66 0F 38 {_store} /r", "Mx,Hx,Vx", _name, avx=_feature, w=_w, extra=(_lane,))(masked_store)


# ---- tests -------------------------------------------------------------------------------------------------------
def sign_test(i: Instruction, first: Operand, second: Operand, lane: int) -> None:
    """VTESTPS and VTESTPD: ZF if no sign is set in both, CF if none is set in the second alone."""
    use_simd(i)
    a, b, zero = i.read(first), i.read(second), i.const(0, 1)
    zf, cf = (i.map(lane, lambda x: x.sign(), value).eq(0) for value in (a & b, ~a & b))
    i.flags_only(zf=zf, cf=cf, pf=zero, af=zero, sf=zero, of=zero)


simd("66 0F 38 0E /r", "Vx,Wx", "testps", w="W0", flags="w", extra=(32,))(sign_test)
simd("66 0F 38 0F /r", "Vx,Wx", "testpd", w="W0", flags="w", extra=(64,))(sign_test)


# ---- shifts by a vector of counts -----------------------------------------------------------------------------------
def variable_shift(lane: int, name: str) -> Vector:
    """Each element by its own count; too large a one clears or, for "ashr", fills."""
    return each(lane, lambda a, by: a.builder.binary(name, a, by))


for _text, _word, _name, _operation in (
    ("45", "10", "psrlv", "lshr"), ("46", "11", "psrav", "ashr"), ("47", "12", "psllv", "shl"),
):  # fmt: skip
    for _letter, _lane, _w in (("d", 32, "W0"), ("q", 64, "W1")):
        _evex = Evex("avx512f", _lane, _w, _lane)
        _avx2 = "" if _name + _letter == "psravq" else "avx2"
        _extra = (variable_shift(_lane, _operation),)
        simd(f"66 0F 38 {_text} /r", "Vx,Hx,Wx", _name + _letter, avx=_avx2, w=_w, evex=_evex, extra=_extra)(vector)
    _evex = Evex("avx512bw", 16, "W1")
    _extra = (variable_shift(16, _operation),)
    simd(f"66 0F 38 {_word} /r", "Vx,Hx,Wx", f"{_name}w", avx="", evex=_evex, extra=_extra)(vector)
