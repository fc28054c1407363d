"""Compiles conditions of hooks, `rax == 5 and mem64[rsp] > 0`, for the processor's own evaluator (cpu/conditions.py).

The language is Python's expressions of integers: and, or, not, comparisons, + - * // % & | ^ << >> - ~. Everything is
an unsigned 64-bit word; a comparison with `signed(...)` on either side is signed. Names are registers (rax, eax, ax,
al, ah, r8d, rip, rflags, cs, cs_base, cr3, cpl, ...), `mem8[...]` to `mem64[...]` memory at a linear address; a hook
of memory also knows `address`, `size`, `value` and `write` of the access; what else is a name may be a symbol.
"""

from __future__ import annotations

import ast
from collections.abc import Callable

from pyemu.cpu import conditions as cd
from pyemu.cpu.state import GPR, HOOK_ACCESS, HOOK_RIP, HOOK_STACK_WORDS, M64
from pyemu.registers import WORDS

_GPR = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi")
_ACCESS = {"address": 0, "size": 1, "value": 2, "write": 3}
_LOADS = {"mem8": 1, "mem16": 2, "mem32": 4, "mem64": 8}
_BINARY: dict[type[ast.operator], int] = {
    ast.Add: cd.ADD, ast.Sub: cd.SUB, ast.Mult: cd.MUL, ast.FloorDiv: cd.DIV, ast.Mod: cd.MOD, ast.BitAnd: cd.AND,
    ast.BitOr: cd.OR, ast.BitXor: cd.XOR, ast.LShift: cd.SHL, ast.RShift: cd.SHR,
}  # fmt: skip
_COMPARE: dict[type[ast.cmpop], int] = {
    ast.Eq: cd.EQ, ast.NotEq: cd.NE, ast.Lt: cd.LT, ast.LtE: cd.LE, ast.Gt: cd.GT, ast.GtE: cd.GE,
}  # fmt: skip
_UNARY: dict[type[ast.unaryop], int] = {ast.USub: cd.NEGATE, ast.Invert: cd.INVERT, ast.Not: cd.NOT}

Resolve = Callable[[str], int | None]


class ConditionError(ValueError):
    """A condition that can't be compiled; one line for the user."""


def parts() -> dict[str, tuple[int, int, int]]:
    """The registers that are part of others: word, shift, mask."""
    found: dict[str, tuple[int, int, int]] = {}
    for n, name in enumerate(_GPR):
        short = name[1:]
        low = f"{short[0]}l" if n < 4 else f"{short}l"  # al, spl
        found |= {f"e{short}": (GPR + n, 0, 0xFFFFFFFF), short: (GPR + n, 0, 0xFFFF), low: (GPR + n, 0, 0xFF)}
        if n < 4:
            found[f"{short[0]}h"] = GPR + n, 8, 0xFF
    for n in range(8, 16):
        found |= {f"r{n}{c}": (GPR + n, 0, mask) for c, mask in (("d", 0xFFFFFFFF), ("w", 0xFFFF), ("b", 0xFF))}
    return found


_PARTS = parts()


class _Compiler:
    def __init__(self, text: str, memory: bool, resolve: Resolve | None) -> None:
        self.text, self.memory, self.resolve = text, memory, resolve
        self.words: list[int] = []

    def fail(self, why: str) -> ConditionError:
        return ConditionError(f"condition '{self.text}': {why}")

    def emit(self, operation: int, argument: int = 0) -> None:
        self.words.append(operation | argument << 8)

    def expression(self, node: ast.expr, depth: int) -> None:
        """Code that leaves a value on a stack that holds `depth` already."""
        if depth >= HOOK_STACK_WORDS:
            raise self.fail("too deeply nested")
        match node:
            case ast.Constant(value=int(value)):
                self.constant(int(value))
            case ast.Name(id=name):
                self.name(name)
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                self.expression(operand, depth)
            case ast.UnaryOp(op=op, operand=operand):
                self.expression(operand, depth)
                self.emit(_UNARY[type(op)])
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                self.expression(left, depth)
                self.expression(right, depth + 1)
                self.emit(_BINARY[type(op)])
            case ast.BoolOp(op=op, values=values):
                self.boolean(isinstance(op, ast.Or), values, depth)
            case ast.Compare():
                self.compare(node, depth)
            case ast.Subscript(value=ast.Name(id=name), slice=index) if name in _LOADS:
                self.expression(index, depth)
                self.emit(cd.LOAD, _LOADS[name])
            case ast.Call(func=ast.Name(id="signed")):
                raise self.fail("signed(...) is only for comparisons")
            case _:
                raise self.fail(f"'{ast.unparse(node)}' is not understood")

    def constant(self, value: int) -> None:
        if not -(1 << 63) <= value <= M64:
            raise self.fail(f"{value:#x} doesn't fit 64 bits")
        self.emit(cd.CONST)
        self.words.append(value & M64)

    def name(self, name: str) -> None:
        if name in _PARTS:
            word, shift, mask = _PARTS[name]
            self.emit(cd.WORD, word)
            if shift:
                self.constant(shift)
                self.emit(cd.SHR)
            self.constant(mask)
            self.emit(cd.AND)
        elif name == "rip":
            self.emit(cd.WORD, HOOK_RIP)
        elif name == "rflags":
            self.emit(cd.FLAGS_IMAGE)
        elif name in WORDS:
            self.emit(cd.WORD, WORDS[name])
        elif self.memory and name in _ACCESS:
            self.emit(cd.WORD, HOOK_ACCESS + _ACCESS[name])
        else:
            address = self.resolve(name) if self.resolve is not None else None
            if address is None:
                raise self.fail(f"'{name}' is neither a register nor a known symbol")
            self.constant(address)

    def boolean(self, is_or: bool, values: list[ast.expr], depth: int) -> None:
        """Short-circuit, as in Python."""
        exits = []
        for k, value in enumerate(values):
            self.expression(value, depth)
            if k < len(values) - 1:
                exits.append(len(self.words))
                self.emit(cd.IF_TRUE if is_or else cd.IF_FALSE)
        for at in exits:
            self.words[at] |= (len(self.words) - at - 1) << 8

    def compare(self, node: ast.Compare, depth: int) -> None:
        """`a < b < c` is `a < b and b < c`."""
        if len(node.ops) > 1:
            sides = [node.left, *node.comparators]
            pairs: list[ast.expr] = [ast.Compare(sides[k], [op], [sides[k + 1]]) for k, op in enumerate(node.ops)]
            self.boolean(False, pairs, depth)
            return
        operation = _COMPARE.get(type(node.ops[0]))
        if operation is None:
            raise self.fail(f"'{ast.unparse(node)}' is not understood")
        signed = False
        for k, side in enumerate((node.left, node.comparators[0])):
            match side:
                case ast.Call(func=ast.Name(id="signed"), args=[inner], keywords=[]):
                    signed = True
                    self.expression(inner, depth + k)
                case _:
                    self.expression(side, depth + k)
        if signed and operation >= cd.LT:
            operation += cd.SLT - cd.LT
        self.emit(operation)


def compile_name(name: str) -> list[int]:
    """The part of a program that pushes a register; it may need one word more of the stack meanwhile."""
    compiler = _Compiler(name, False, None)
    compiler.name(name)
    return compiler.words


def compile_condition(text: str, memory: bool = False, resolve: Resolve | None = None) -> tuple[int, ...]:
    """The program of a condition; `memory`: it is about an access."""
    compiler = _Compiler(text, memory, resolve)
    try:
        tree = ast.parse(text.strip(), mode="eval")
        compiler.expression(tree.body, 0)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, ConditionError):
            raise
        raise compiler.fail("not an expression") from None
    compiler.emit(cd.END)
    return tuple(compiler.words)
