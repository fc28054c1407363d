"""SSSE3 on XMM registers and wider (the MMX forms are in mmx.py)."""

from __future__ import annotations

from pyemu.cpu.instruction import Instruction
from pyemu.cpu.ops import Operand
from pyemu.cpu.semantics import packed
from pyemu.cpu.semantics.rows import Evex, simd
from pyemu.cpu.semantics.sse import packed_vector, vector
from pyemu.cpu.semantics.vectors import in_lanes, source, use_simd

for _opcode, _name, _function in packed.SUPPLEMENTAL:
    # PABS has one source
    _operands, _definition = ("Vx,Wx", packed_vector) if _name.startswith("pabs") else ("Vx,Hx,Wx", vector)
    simd(
        f"66 0F 38 {_opcode:02X} /r",
        _operands,
        _name,
        sse="ssse3",
        avx256="avx2",
        evex=packed.evex_forms(_name, _operands),
        extra=(_function,),
    )(_definition)


def palignr(i: Instruction, dst: Operand, first: Operand, second: Operand, count: Operand) -> None:
    use_simd(i)
    by = i.read(count).zext(256) << 3
    function = in_lanes(lambda i, a, b: (i.join((b, a)) >> by).trunc(128))
    i.write(dst, function(i, i.read(first), source(i, second)))


simd("66 0F 3A 0F /r", "Vx,Hx,Wx,Ib", "palignr", sse="ssse3", avx256="avx2", evex=Evex("avx512bw", 8, whole=True))(
    palignr
)
