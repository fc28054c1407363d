"""GFNI, and PCLMULQDQ: products of polynomials (galois.py does the arithmetic)."""

from __future__ import annotations

from pyemu.cpu.instruction import Instruction
from pyemu.cpu.ops import Operand
from pyemu.cpu.semantics import galois
from pyemu.cpu.semantics.rows import Evex, simd
from pyemu.cpu.semantics.sse import vector
from pyemu.cpu.semantics.vectors import each, in_lanes, source, use_simd
from pyemu.cpu.values import Value

simd(
    "66 0F 38 CF /r", "Vx,Hx,Wx", "gf2p8mulb", sse="gfni", avx="avx gfni", w="W0", evex=Evex("gfni", 8, "W0"),
    extra=(each(64, galois.multiply),),
)(vector)  # fmt: skip


def affine(i: Instruction, dst: Operand, first: Operand, matrix: Operand, constant: Operand, inverted: bool) -> None:
    """The bytes of `first`, or their inverses, through the matrix in each 64 bits of the other operand."""
    use_simd(i)
    a, b = i.read(first), source(i, matrix)
    constants = i.join([i.read(constant).zext(64)] * (a.width // 64))

    def lane(x: Value, rows: Value, added: Value) -> Value:
        bits = galois.planes(x)
        return galois.affine(galois.inverse(bits) if inverted else bits, rows, added)

    i.write(dst, i.map(64, lane, a, b, constants))


for _opcode, _name, _inverted in ((0xCE, "gf2p8affineqb", False), (0xCF, "gf2p8affineinvqb", True)):
    simd(
        f"66 0F 3A {_opcode:02X} /r", "Vx,Hx,Wx,Ib", _name, sse="gfni", avx="avx gfni", w="W1",
        evex=Evex("gfni", 8, "W1", broadcast=64, whole=True), extra=(_inverted,),
    )(affine)  # fmt: skip


def pclmulqdq(i: Instruction, dst: Operand, first: Operand, second: Operand, which: Operand) -> None:
    """In each 128 bits: bits 0 and 4 of the immediate select the halves that are multiplied."""
    use_simd(i)
    control = i.read(which)

    def lane(i: Instruction, x: Value, y: Value) -> Value:
        a = control.bit(0).select(x.bits(64, 64), x.trunc(64))
        b = control.bit(4).select(y.bits(64, 64), y.trunc(64))
        return galois.carryless(i, a, b)

    i.write(dst, in_lanes(lane)(i, i.read(first), source(i, second)))


simd(
    "66 0F 3A 44 /r", "Vx,Hx,Wx,Ib", "pclmulqdq", sse="pclmulqdq", avx="avx pclmulqdq", avx256="vpclmulqdq",
    evex=Evex("vpclmulqdq"),
)(pclmulqdq)  # fmt: skip
