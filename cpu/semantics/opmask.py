"""Mask registers (SDM 2, 2.7.2; the instructions begin with K): logic, shifts, tests, moves, and vectors from and to
masks.

Comparisons into masks are in avx512_compare.py. What a mask does to other instructions is said in instruction.py.
"""

from __future__ import annotations

from pyemu.cpu.instruction import Instruction
from pyemu.cpu.ops import Operand, op
from pyemu.cpu.semantics.vectors import Binary, use_simd
from pyemu.cpu.values import Value

# Letter, prefix, VEX.W, feature of what came with each size.
_SIZES = (
    ("b", "66", "W0", "avx512dq"), ("w", "NP", "W0", "avx512f"), ("d", "66", "W1", "avx512bw"),
    ("q", "NP", "W1", "avx512bw"),
)  # fmt: skip


# ---- logic ---------------------------------------------------------------------------------------------------
def binary(i: Instruction, dst: Operand, first: Operand, second: Operand, function: Binary) -> None:
    use_simd(i)
    i.write(dst, function(i.read(first), i.read(second)))


_BINARY: tuple[tuple[int, str, Binary], ...] = (
    (0x41, "kand", lambda a, b: a & b),
    (0x42, "kandn", lambda a, b: ~a & b),
    (0x45, "kor", lambda a, b: a | b),
    (0x46, "kxnor", lambda a, b: ~(a ^ b)),
    (0x47, "kxor", lambda a, b: a ^ b),
    (0x4A, "kadd", lambda a, b: a + b),
)


def knot(i: Instruction, dst: Operand, src: Operand) -> None:
    use_simd(i)
    i.write(dst, ~i.read(src))


def kunpck(i: Instruction, dst: Operand, first: Operand, second: Operand) -> None:
    """The low half of the first above that of the second."""
    use_simd(i)
    half = dst.width // 2
    i.write(dst, i.join((i.read(second).trunc(half), i.read(first).trunc(half))))


def shift(i: Instruction, dst: Operand, src: Operand, count: Operand, left: bool) -> None:
    use_simd(i)
    value, by = i.read(src).zext(64), i.read(count).zext(64)
    i.write(dst, (value << by if left else value >> by).trunc(dst.width))


# ---- tests ---------------------------------------------------------------------------------------------------
def _two_flags(i: Instruction, zf: Value, cf: Value) -> None:
    zero = i.const(0, 1)
    i.flags_only(zf=zf, cf=cf, pf=zero, af=zero, sf=zero, of=zero)


def kortest(i: Instruction, first: Operand, second: Operand) -> None:
    use_simd(i)
    both = i.read(first) | i.read(second)
    _two_flags(i, both.eq(0), (~both).eq(0))


def ktest(i: Instruction, first: Operand, second: Operand) -> None:
    use_simd(i)
    a, b = i.read(first), i.read(second)
    _two_flags(i, (a & b).eq(0), (~a & b).eq(0))


# ---- moves ---------------------------------------------------------------------------------------------------
def kmov(i: Instruction, dst: Operand, src: Operand) -> None:
    use_simd(i)
    i.write(dst, i.read(src).resize(dst.width))


for _letter, _prefix, _w, _feature in _SIZES:
    _new = "avx512dq" if _letter == "w" else _feature
    _operands = f"KG{_letter},KH{_letter},KR{_letter}"
    for _opcode, _name, _function in _BINARY:
        _needs = _new if _name == "kadd" else _feature
        _text = f"VEX.256.{_prefix}.0F.{_w} {_opcode:02X} /r"
        op(_text, _operands, name=_name + _letter, feature=_needs, extra=(_function,))(binary)
    _operands, _text = f"KG{_letter},KR{_letter}", f"VEX.128.{_prefix}.0F.{_w}"
    op(f"{_text} 44 /r", _operands, name=f"knot{_letter}", feature=_feature)(knot)
    op(f"{_text} 98 /r", _operands, name=f"kortest{_letter}", feature=_feature, flags="w")(kortest)
    op(f"{_text} 99 /r", _operands, name=f"ktest{_letter}", feature=_new, flags="w")(ktest)
    op(f"{_text} 90 /r", f"KG{_letter},KM{_letter}", name=f"kmov{_letter}", feature=_feature)(kmov)
    op(f"{_text} 91 /r", f"M{_letter},KG{_letter}", name=f"kmov{_letter}", feature=_feature)(kmov)
    _general = "q" if _letter == "q" else "d"
    _text = f"VEX.128.{'F2' if _letter in 'dq' else _prefix}.0F.{'W1' if _letter == 'q' else 'W0'}"
    _modes = "64" if _letter == "q" else "any"
    _operands = f"KG{_letter},R{_general}"
    op(f"{_text} 92 /r", _operands, name=f"kmov{_letter}", feature=_feature, modes=_modes)(kmov)
    _operands = f"G{_general},KR{_letter}"
    op(f"{_text} 93 /r", _operands, name=f"kmov{_letter}", feature=_feature, modes=_modes)(kmov)
    for _opcode, _name, _left in ((0x30, "kshiftr", False), (0x32, "kshiftl", True)):
        _text = f"VEX.128.66.0F3A.{'W1' if _letter in 'wq' else 'W0'} {_opcode + (_letter in 'dq'):02X} /r"
        _operands = f"KG{_letter},KR{_letter},Ib"
        op(_text, _operands, name=_name + _letter, feature=_feature, extra=(_left,))(shift)
for _prefix, _w, _letter, _name, _feature in (
    ("66", "W0", "w", "kunpckbw", "avx512f"), ("NP", "W0", "d", "kunpckwd", "avx512bw"),
    ("NP", "W1", "q", "kunpckdq", "avx512bw"),
):  # fmt: skip
    _operands = f"KG{_letter},KH{_letter},KR{_letter}"
    op(f"VEX.256.{_prefix}.0F.{_w} 4B /r", _operands, name=_name, feature=_feature)(kunpck)


# ---- vectors and masks ---------------------------------------------------------------------------------------
def mask_from_signs(i: Instruction, dst: Operand, src: Operand, lane: int) -> None:
    """VPMOVB2M and the like."""
    use_simd(i)
    i.write(dst, i.map(lane, lambda x: x.sign(), i.read(src)).zext(64))


def signs_from_mask(i: Instruction, dst: Operand, src: Operand, lane: int) -> None:
    """VPMOVM2B and the like: lanes of ones or zeros."""
    use_simd(i)
    i.write(dst, i.map(1, lambda m: m.sext(lane), i.read(src).trunc(dst.width // lane)))


def broadcast_mask(i: Instruction, dst: Operand, src: Operand, lane: int, bits: int) -> None:
    """VPBROADCASTMB2Q and VPBROADCASTMW2D: a mask as a number in every lane."""
    use_simd(i)
    i.write(dst, i.join([i.read(src).trunc(bits).zext(lane)] * (dst.width // lane)))


for _opcode, _w, _letter, _lane, _feature in (
    (0x28, "W0", "b", 8, "avx512bw"), (0x28, "W1", "w", 16, "avx512bw"), (0x38, "W0", "d", 32, "avx512dq"),
    (0x38, "W1", "q", 64, "avx512dq"),
):  # fmt: skip
    _text = f"EVEX.F3.0F38.{_w}"
    op(f"{_text} {_opcode:02X} /r", "Vx,KRq", name=f"vpmovm2{_letter}", feature=_feature, extra=(_lane,))(
        signs_from_mask
    )
    op(f"{_text} {_opcode + 1:02X} /r", "KGq,Ux", name=f"vpmov{_letter}2m", feature=_feature, extra=(_lane,))(
        mask_from_signs
    )
op("EVEX.F3.0F38.W1 2A /r", "Vx,KRq", name="vpbroadcastmb2q", feature="avx512cd", extra=(64, 8))(broadcast_mask)
op("EVEX.F3.0F38.W0 3A /r", "Vx,KRq", name="vpbroadcastmw2d", feature="avx512cd", extra=(32, 16))(broadcast_mask)
