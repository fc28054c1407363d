"""String instructions: rows over strings.py, which does the iterations."""

from __future__ import annotations

from collections.abc import Callable

from pyemu.cpu import ports, strings
from pyemu.cpu.decode import record as rc
from pyemu.cpu.instruction import Instruction
from pyemu.cpu.ops import Operand, op
from pyemu.cpu.state import RDX, State

Function = Callable[[State, int, int], int]


def string(i: Instruction, first: Operand, second: Operand, function: Function) -> None:
    """Run the iterations; an interrupted repetition stays on the instruction."""
    size = first.size if first.kind == "str" else second.size
    i.call(function, i.record_word(rc.PACKED), size)
    i.jump(i.value().ne(0).select(i.rip(), i.next_rip()))


def port_string(i: Instruction, first: Operand, second: Operand, function: Function) -> None:
    """INS and OUTS: permission for the port, then as the others."""
    i.call(ports.check_port, i.gpr(RDX, 16), (first if first.kind == "str" else second).size)
    string(i, first, second, function)


_ROWS: tuple[tuple[int, str, str, Function], ...] = (
    (0xA4, "Yb,Xb", "Yv,Xv", strings.movs),
    (0xAA, "Yb,AL", "Yv,rAX", strings.stos),
    (0xAC, "AL,Xb", "rAX,Xv", strings.lods),
    (0xA6, "Xb,Yb", "Xv,Yv", strings.cmps),
    (0xAE, "AL,Yb", "rAX,Yv", strings.scas),
    (0x6C, "Yb,DX", "Yz,DX", strings.ins),
    (0x6E, "DX,Xb", "DX,Xz", strings.outs),
)
for _opcode, _bytes, _words, _function in _ROWS:
    _flags = "m" if _function in (strings.cmps, strings.scas) else ""
    _body = port_string if _function in (strings.ins, strings.outs) else string
    for _encoding, _operands in ((f"{_opcode:02X}", _bytes), (f"{_opcode + 1:02X}", _words)):
        op(_encoding, _operands, name=_function.__name__, flags=_flags, rep=True, ends_block=True, extra=(_function,))(
            _body
        )
