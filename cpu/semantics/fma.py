"""FMA and F16C: multiplications with an addition rounded once, conversions of half precision (SDM 1, 14.4 and 14.5)."""

from __future__ import annotations

from pyemu.cpu.instruction import Instruction
from pyemu.cpu.ops import Operand
from pyemu.cpu.semantics.rows import Evex, simd
from pyemu.cpu.semantics.vectors import lanes, set_low, use_simd
from pyemu.cpu.values import Value

# The operands (0 the destination, 1 VEX.vvvv, 2 rm) that are factors and addend; first half of the opcode.
_ORDERS = (("132", 0x90, (0, 2, 1)), ("213", 0xA0, (1, 0, 2)), ("231", 0xB0, (1, 2, 0)))
# Mnemonic and low half of the opcode of the packed form: is the product negated, the addend of even and odd elements?
_KINDS = (
    ("fmaddsub", 6, False, (True, False)), ("fmsubadd", 7, False, (False, True)),
    ("fmadd", 8, False, (False, False)), ("fmsub", 0xA, False, (True, True)),
    ("fnmadd", 0xC, True, (False, False)), ("fnmsub", 0xE, True, (True, True)),
)  # fmt: skip
Kind = tuple[tuple[int, int, int], int, bool, tuple[bool, bool]]  # order, element, negations


def fused(i: Instruction, dst: Operand, first: Operand, second: Operand, kind: Kind) -> None:
    order, lane, product, addends = kind
    use_simd(i)
    operands = [i.active(i.read(o), lane) for o in (dst, first, second)]
    a, b, c = (operands[k] for k in order)
    if addends[0] == addends[1]:
        i.write(dst, i.map(lane, lambda x, y, z: i.fma(x, y, z, product, addends[0]), a, b, c))
        return
    triples = zip(lanes(i, a, lane), lanes(i, b, lane), lanes(i, c, lane), strict=True)
    i.write(dst, i.join([i.fma(x, y, z, product, addends[k & 1]) for k, (x, y, z) in enumerate(triples)]))


def fused_scalar(i: Instruction, dst: Operand, first: Operand, second: Operand, kind: Kind) -> None:
    order, lane, product, addends = kind
    use_simd(i)
    operands = [i.active(i.read(o).trunc(lane), lane) for o in (dst, first, second)]
    a, b, c = (operands[k] for k in order)
    set_low(i, dst, i.read(dst), i.fma(a, b, c, product, addends[0]))


for _digits, _base, _order in _ORDERS:
    for _name, _low, _product, _addends in _KINDS:
        for _letter, _lane, _w in (("s", 32, "W0"), ("d", 64, "W1")):
            _extra = ((_order, _lane, _product, _addends),)
            _text = f"66 0F 38 {_base + _low:02X} /r"
            _evex = Evex("avx512f", _lane, _w, broadcast=_lane, rounding="er")
            simd(_text, "Vx,Hx,Wx", f"{_name}{_digits}p{_letter}", avx="fma", w=_w, evex=_evex, extra=_extra)(fused)
            if _low < 8:
                continue
            _evex = Evex("avx512f", _lane, _w, rounding="er")
            _text, _operands = f"66 0F 38 {_base + _low + 1:02X} /r", f"Vdq,Hdq,Ws{_letter}"
            simd(
                _text,
                _operands,
                f"{_name}{_digits}s{_letter}",
                avx="fma",
                lengths="LIG",
                w=_w,
                evex=_evex,
                extra=_extra,
            )(fused_scalar)


# ---- half precision ----------------------------------------------------------------------------------------------
def from_half(i: Instruction, dst: Operand, src: Operand) -> None:
    use_simd(i)
    value = i.read(src).trunc(dst.width // 2)
    if i.masked:
        one = i.const(0x3C00, 16)
        value = i.map(16, lambda x, m: m.select(x, one), value, i.mask(value.width // 16))
    i.write(dst, i.map(16, lambda x: i.convert("float_to_float", x, 32), value))


def to_half(i: Instruction, dst: Operand, src: Operand, rounding: Operand) -> None:
    """The immediate says how to round (SDM 2, VCVTPS2PH)."""
    use_simd(i)
    mode: Value = i.read(rounding)
    if dst.is_memory:  # a page fault comes before any exception of the numbers, as on Zen 4
        i.probe_elements(dst, i.mask(i.form.elements) if i.masked else None)
    i.write(dst, i.map(32, lambda x: i.convert("float_to_float", x, 16, mode), i.active(i.read(src), 32)))


_evex = Evex("avx512f", 32, "W0", rounding="sae")
simd("66 0F 38 13 /r", "Vx,Wh", "cvtph2ps", avx="f16c", w="W0", evex=_evex)(from_half)
_evex = Evex("avx512f", 16, "W0", rounding="sae")
simd("66 0F 3A 1D /r", "Wh,Vx,Ib", "cvtps2ph", avx="f16c", w="W0", evex=_evex)(to_half)
