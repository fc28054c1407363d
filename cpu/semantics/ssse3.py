"""SSSE3 on XMM registers (the MMX forms are in mmx.py)."""

from __future__ import annotations

from pyemu.cpu.instruction import Instruction
from pyemu.cpu.ops import Operand, op
from pyemu.cpu.semantics import packed
from pyemu.cpu.semantics.sse import vector
from pyemu.cpu.semantics.vectors import source, use_sse

for _opcode, _name, _function in packed.SUPPLEMENTAL:
    op(f"66 0F 38 {_opcode:02X} /r", "Vdq,Wdq", name=_name, feature="ssse3", extra=(_function,))(vector)


@op("66 0F 3A 0F /r", "Vdq,Wdq,Ib", feature="ssse3")
def palignr(i: Instruction, dst: Operand, src: Operand, count: Operand) -> None:
    use_sse(i)
    both = i.join((source(i, src), i.read(dst)))
    i.write(dst, (both >> (i.read(count).zext(256) << 3)).trunc(128))
