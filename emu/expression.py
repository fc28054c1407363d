"""Expressions of the monitor: `start_kernel + 4 * $rcx`, `($rsp & ~15) - 8`.

Numbers are decimal or 0x...; registers begin with $; any other word is a symbol. The operators are C's, with C's
precedence, on 64-bit unsigned numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyemu.registers import Registers
    from pyemu.symbols import Symbols

_M64 = 0xFFFF_FFFF_FFFF_FFFF
_TOKEN = re.compile(
    r"\s*(?:(0[xX][0-9a-fA-F]+|\d+)|(\$[A-Za-z][A-Za-z0-9_]*)|([A-Za-z_.][\w.$]*)|(<<|>>|[-+*/%&|^~()]))"
)
_ALIASES = {"pc": "rip", "sp": "rsp", "fp": "rbp", "eflags": "rflags", "eip": "rip"}
_LOWEST_FIRST: tuple[dict[str, Callable[[int, int], int]], ...] = (
    {"|": lambda a, b: a | b},
    {"^": lambda a, b: a ^ b},
    {"&": lambda a, b: a & b},
    {"<<": lambda a, b: a << b if b < 64 else 0, ">>": lambda a, b: a >> b},
    {"+": lambda a, b: a + b, "-": lambda a, b: a - b},
    {"*": lambda a, b: a * b, "/": lambda a, b: a // b, "%": lambda a, b: a % b},
)
_DEEPEST = 64  # nested parentheses


class ExpressionError(Exception):
    """What is wrong with it, in one line."""


def evaluate(text: str, registers: Registers, symbols: Symbols) -> int:
    """The value, modulo 2^64."""
    return _Parser(text, registers, symbols).parse()


class _Parser:
    def __init__(self, text: str, registers: Registers, symbols: Symbols) -> None:
        self._text = text.strip()
        self._registers = registers
        self._symbols = symbols
        self._depth = 0
        self._tokens: list[str] = []
        at = 0
        while at < len(self._text):
            match = _TOKEN.match(self._text, at)
            if match is None:
                raise ExpressionError(f"'{text}' is not an expression")
            self._tokens.append(match[0].strip())
            at = match.end()
        self._tokens.reverse()

    def parse(self) -> int:
        if not self._tokens:
            raise ExpressionError("address missing")
        value = self._level(0)
        if self._tokens:
            raise self._bad()
        return value

    def _bad(self) -> ExpressionError:
        return ExpressionError(f"'{self._text}' is not an expression")

    def _level(self, level: int) -> int:
        if level == len(_LOWEST_FIRST):
            return self._unary()
        operators = _LOWEST_FIRST[level]
        value = self._level(level + 1)
        while self._tokens and self._tokens[-1] in operators:
            name = self._tokens.pop()
            right = self._level(level + 1)
            if name in "/%" and right == 0:
                raise ExpressionError("division by zero")
            value = operators[name](value, right) & _M64
        return value

    def _unary(self) -> int:
        if not self._tokens:
            raise self._bad()
        token = self._tokens.pop()
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._bad()
        match token:
            case "-":
                value = -self._unary()
            case "~":
                value = ~self._unary()
            case "+":
                value = self._unary()
            case "(":
                value = self._level(0)
                if not self._tokens or self._tokens.pop() != ")":
                    raise self._bad()
            case _:
                value = self._operand(token)
        self._depth -= 1
        return value & _M64

    def _operand(self, token: str) -> int:
        if token[0].isdigit():
            return int(token, 16 if token[:2].lower() == "0x" else 10)
        if token.startswith("$"):
            name = token[1:].lower()
            try:
                return self._registers[_ALIASES.get(name, name)]
            except KeyError:
                raise ExpressionError(f"unknown register '{token}'") from None
        if not (token[0].isalpha() or token[0] in "_."):
            raise self._bad()
        address = self._symbols.address(token)
        if address is None:
            raise ExpressionError(f"no symbol is called '{token}'")
        return address
