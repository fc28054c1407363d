"""Conditions that gdb sends with its breakpoints (gdb manual, appendix "The GDB Agent Expression Mechanism"), compiled
for the processor's own evaluator (pyemu.cpu.conditions).

An agent expression is a program for a stack of 64-bit words, as ours are. One that isn't understood, jumps back or
needs too much of the stack gives no program: the guest then stops each time, and gdb, which tests again whatever
stops, lets it go on. So does a value that can't be found out, as gdb then tells why.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pyemu.conditions import ConditionError, compile_name
from pyemu.cpu import conditions as cd
from pyemu.cpu.state import HOOK_STACK_WORDS, M64


class _Op(NamedTuple):
    """A bytecode: bytes of its operand, values that it takes from the stack, and how many it leaves there."""

    operand: int
    takes: int
    leaves: int


# "Bytecode Descriptions" there. What traces, and variables of the target, are not among them.
_BINARY = {
    0x02: cd.ADD, 0x03: cd.SUB, 0x04: cd.MUL, 0x05: cd.SDIV, 0x06: cd.DIV, 0x07: cd.SMOD, 0x08: cd.MOD, 0x09: cd.SHL,
    0x0A: cd.SSHR, 0x0B: cd.SHR, 0x0F: cd.AND, 0x10: cd.OR, 0x11: cd.XOR, 0x13: cd.EQ, 0x14: cd.SLT, 0x15: cd.LT,
}  # fmt: skip
_UNARY = {0x0E: cd.NOT, 0x12: cd.INVERT}
_LOADS = {0x17: 1, 0x18: 2, 0x19: 4, 0x1A: 8}
_CONSTANTS = {0x22: 1, 0x23: 2, 0x24: 4, 0x25: 8}
_EXT, _ZERO_EXT, _REG, _END = 0x16, 0x2A, 0x26, 0x27
_IF_GOTO, _GOTO = 0x20, 0x21
_JUMPS = {_IF_GOTO: cd.JUMP_IF, _GOTO: cd.JUMP}
_DUP, _POP, _SWAP = 0x28, 0x29, 0x2B
_SIMPLE = {**_BINARY, **_UNARY, _DUP: cd.DUP, _POP: cd.DROP, _SWAP: cd.SWAP}
_OPS: dict[int, _Op] = {
    **dict.fromkeys(_BINARY, _Op(0, 2, 1)),
    **dict.fromkeys((*_UNARY, *_LOADS), _Op(0, 1, 1)),
    **{code: _Op(size, 0, 1) for code, size in _CONSTANTS.items()},
    **dict.fromkeys((_EXT, _ZERO_EXT), _Op(1, 1, 1)),
    _REG: _Op(2, 0, 1),
    _IF_GOTO: _Op(2, 1, 0),
    _GOTO: _Op(2, 0, 0),
    _DUP: _Op(0, 1, 2),
    _POP: _Op(0, 1, 0),
    _SWAP: _Op(0, 2, 2),
    _END: _Op(0, 1, 0),
}
_SCRATCH = 1  # words of the stack that the code for one of them may need meanwhile
_MOST = 1024  # bytes of an expression

# A register by gdb's number: its name in conditions, or its value where that is known already.
Register = Callable[[int], str | int]


# Length and bytes of each. gdb's manual has semicolons between them; gdb sends none.
_EXPRESSION = re.compile(rb";?X([0-9a-fA-F]{1,8}),([0-9a-fA-F]*)")


def unpack(text: bytes) -> list[bytes]:
    """The expressions of `X3,220127X3,220027`; ValueError if it isn't that."""
    found = [(int(length, 16), bytes.fromhex(code.decode())) for length, code in _EXPRESSION.findall(text)]
    if _EXPRESSION.sub(b"", text) or any(length != len(code) for length, code in found):
        raise ValueError
    return [code for _, code in found]


class _LeftToGdbError(Exception):
    """Not understood."""


class _Compiler:
    """Of one expression. It has one end, its last byte, to which all its ways lead with one value on the stack."""

    def __init__(self, code: bytes, register: Register) -> None:
        self.code, self.register = code, register
        self.words: list[int] = []
        self.places: dict[int, int] = {}  # the word where what is made of a byte begins
        self.jumps: list[tuple[int, int]] = []  # word, and the byte that it leads to
        self.depths: dict[int, int] = {0: 0}  # how much is on the stack at a byte, if a way leads there

    def emit(self, operation: int, argument: int = 0) -> None:
        self.words.append(operation | argument << 8)

    def constant(self, value: int) -> None:
        self.emit(cd.CONST)
        self.words.append(value & M64)

    def compile(self) -> list[int]:
        at = 0
        while at < len(self.code):
            at = self.instruction(at)
        if len(self.code) in self.depths:  # a way leads past the end
            raise _LeftToGdbError
        for word, target in self.jumps:
            if self.places.get(target, 0) <= word:  # back, or to no instruction
                raise _LeftToGdbError
            self.words[word] |= (self.places[target] - word - 1) << 8
        return self.words

    def instruction(self, at: int) -> int:
        """Compile the one at a byte; where the next begins."""
        code = self.code[at]
        op = _OPS.get(code)
        if op is None:
            raise _LeftToGdbError
        after = at + 1 + op.operand
        depth = self.depths.get(at)
        if depth is None:  # no way leads here
            return after
        if after > len(self.code) or depth < op.takes or (code == _END and (depth, after) != (1, len(self.code))):
            raise _LeftToGdbError
        operand = int.from_bytes(self.code[at + 1 : after], "big")
        self.places[at] = len(self.words)
        self.translate(code, operand)
        depth += op.leaves - op.takes
        if code in _JUMPS:
            self.jumps.append((len(self.words) - 1, operand))
            self.leads_to(operand, depth)
        if code not in (_GOTO, _END):
            self.leads_to(after, depth)
        return after

    def leads_to(self, at: int, depth: int) -> None:
        if depth + _SCRATCH > HOOK_STACK_WORDS or self.depths.setdefault(at, depth) != depth:
            raise _LeftToGdbError

    def translate(self, code: int, operand: int) -> None:
        if code in _SIMPLE:
            self.emit(_SIMPLE[code])
        elif code in _LOADS:
            self.emit(cd.LOAD, _LOADS[code])
        elif code in _CONSTANTS:
            self.constant(operand)
        elif code == _REG:
            register = self.register(operand)
            if isinstance(register, int):
                self.constant(register)
            else:
                self.words += compile_name(register)
        elif code in (_EXT, _ZERO_EXT):
            self.extend(operand, code == _EXT)
        elif code in _JUMPS:
            self.emit(_JUMPS[code])

    def extend(self, width: int, signed: bool) -> None:
        if not 0 < width <= 64:
            raise _LeftToGdbError
        if width == 64:
            return
        self.constant((1 << width) - 1)
        self.emit(cd.AND)
        if signed:  # (x ^ sign) - sign
            for operation in (cd.XOR, cd.SUB):
                self.constant(1 << width - 1)
                self.emit(operation)


def compile_agent(expressions: Sequence[bytes], register: Register) -> tuple[int, ...] | None:
    """The program of "one of these is true"; None if that is left to gdb."""
    words: list[int] = []
    try:
        for code in reversed(expressions):
            if len(code) > _MOST:
                raise _LeftToGdbError
            otherwise = [cd.IF_TRUE | len(words) << 8, *words] if words else []
            words = _Compiler(code, register).compile() + otherwise
    except (_LeftToGdbError, ConditionError, LookupError):
        return None
    return cd.UNSURE, *words, cd.END
