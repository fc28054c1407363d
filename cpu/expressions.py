"""Expressions that stand for values: what an instruction computes, to be read by people.

`Expressions` makes them, folding what is known and dropping what changes nothing; equal ones are one object. `text`
writes one down. What would be too long to read is summed up: as the instruction's own name, applied to what it depends
on. Not here: what instructions do with them (sentences.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyemu.cpu.concrete import COMPARE, INTEGER

LONGEST = 40  # parts of an expression that is written out
_MANY = 1 << 30  # as large as sizes get
_WORDS = {8: "b", 16: "w", 32: "d", 64: "q", 128: "dq", 256: "qq", 512: "oq"}  # lanes, by their width


@dataclass(frozen=True, eq=False, slots=True)
class Expr:
    """One operation on others. `data` is the number of a constant, the name of a leaf, or what else there is to say;
    `size` counts its parts, `leaves` are the names of what it depends on."""

    op: str
    args: tuple[Expr, ...]
    width: int
    data: Any = None
    size: int = 1
    leaves: tuple[str, ...] = ()

    @property
    def constant(self) -> int | None:
        """The number, if it is known."""
        return self.data if self.op == "const" else None


_Key = tuple[Any, ...]


@dataclass
class Expressions:
    """Makes expressions. `bit_names` says what the bits of certain leaves are called."""

    bit_names: dict[str, dict[int, str]] = field(default_factory=dict)
    _known: dict[_Key, Expr] = field(default_factory=dict)

    def _make(self, op: str, args: Iterable[Expr], width: int, data: Any = None) -> Expr:
        parts = tuple(args)
        key = (op, width, data, *(id(part) for part in parts))
        found = self._known.get(key)
        if found is None:
            size = min(1 + sum(part.size for part in parts), _MANY)
            leaves = tuple(dict.fromkeys(name for part in parts for name in part.leaves))
            found = self._known[key] = Expr(op, parts, width, data, size, leaves)
        return found

    # ---- leaves ------------------------------------------------------------------------------------------------
    def const(self, number: int, width: int) -> Expr:
        return self._make("const", (), width, number & ((1 << width) - 1))

    def leaf(self, name: str, width: int) -> Expr:
        key = ("leaf", width, name)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = Expr("leaf", (), width, name, 1, (name,))
        return found

    # ---- arithmetic --------------------------------------------------------------------------------------------
    def binary(self, op: str, a: Expr, b: Expr) -> Expr:
        x, y, width = a.constant, b.constant, a.width
        if x is not None and y is not None and op in _FOLD:
            return self.const(_FOLD[op](x, y, width), width)
        if x is not None and op in ("add", "and_", "or_", "xor", "mul"):
            return self.binary(op, b, a)
        if y is not None:
            simple = self._with_constant(op, a, y)
            if simple is not None:
                return simple
        if a is b and op in ("and_", "or_"):
            return a
        if a is b and op in ("xor", "sub"):
            return self.const(0, width)
        return self._make(op, (a, b), width)

    def _with_constant(self, op: str, a: Expr, y: int) -> Expr | None:
        ones = (1 << a.width) - 1
        if y == 0:
            if op in ("add", "sub", "or_", "xor", "shl", "lshr", "ashr"):
                return a
            if op in ("and_", "mul"):
                return self.const(0, a.width)
        if op == "and_" and y == ones:
            return a
        if op == "or_" and y == ones:
            return self.const(ones, a.width)
        if op == "mul" and y == 1:
            return a
        if op == "xor" and y == ones:
            return self.unary("not_", a)
        if op == "sub":
            return self.binary("add", a, self.const(-y, a.width))
        if op == "add" and a.op == "add" and a.args[1].constant is not None:
            return self.binary("add", a.args[0], self.const(a.args[1].constant + y, a.width))
        return None

    def unary(self, op: str, a: Expr) -> Expr:
        if op == "not_":
            if a.constant is not None:
                return self.const(~a.constant, a.width)
            if a.op == "not_":
                return a.args[0]
            if a.op in _OPPOSITE:
                return self._make(_OPPOSITE[a.op], a.args, 1)
        return self._make(op, (a,), a.width)

    def compare(self, op: str, a: Expr, b: Expr) -> Expr:
        x, y = a.constant, b.constant
        if x is not None and y is not None and op in COMPARE:
            return self.const(int(COMPARE[op](x, y, a.width)), 1)
        if a is b and op in ("eq", "ne"):
            return self.const(int(op == "eq"), 1)
        if x is not None and op in ("eq", "ne"):
            a, b, y = b, a, x
        if a.width == 1 and y is not None and op in ("eq", "ne"):
            return a if (op == "eq") == bool(y) else self.unary("not_", a)
        if a.op == "zext" and y is not None and op in ("eq", "ne") and y >> a.args[0].width == 0:
            return self.compare(op, a.args[0], self.const(y, a.args[0].width))
        return self._make(op, (a, b), 1)

    def select(self, condition: Expr, yes: Expr, no: Expr) -> Expr:
        if condition.constant is not None:
            return yes if condition.constant else no
        if yes is no:
            return yes
        if yes.width == 1 and yes.constant is not None and no.constant is not None:
            return condition if yes.constant else self.unary("not_", condition)
        return self._make("select", (condition, yes, no), yes.width)

    def cast(self, op: str, a: Expr, width: int) -> Expr:
        if a.constant is not None:
            signed = a.constant - (1 << a.width) if op == "sext" and a.constant >> (a.width - 1) else a.constant
            return self.const(signed, width)
        if width == a.width:
            return a
        if op == "trunc":
            return self._field(a, 0, width)
        if op == a.op:
            return self.cast(op, a.args[0], width)
        return self._make(op, (a,), width)

    def _field(self, a: Expr, low: int, width: int) -> Expr:
        """`width` bits from bit `low`."""
        if a.op == "lshr" and a.args[1].constant is not None and a.args[1].constant + low + width <= a.width:
            return self._field(a.args[0], low + a.args[1].constant, width)
        if a.op == "field":
            return self._field(a.args[0], low + a.data, width)
        if a.op in ("zext", "sext"):
            inner = a.args[0]
            if low + width <= inner.width:
                return self._field(inner, low, width)
            if low == 0:
                return self.cast(a.op, inner, width)
            if a.op == "zext" and low >= inner.width:
                return self.const(0, width)
        if a.op == "join":
            lane = a.args[0].width
            if low % lane + width <= lane:
                return self._field(a.args[low // lane], low % lane, width)
        if low == 0 and width == a.width:
            return a
        return self._make("field", (a,), width, low)

    # ---- vectors ---------------------------------------------------------------------------------------------
    def lane(self, a: Expr, width: int, number: int) -> Expr:
        if a.constant is not None:
            return self.const(a.constant >> (number * width), width)
        return self._field(a, number * width, width)

    def lane_at(self, a: Expr, width: int, index: Expr) -> Expr:
        if index.constant is not None:
            return self.lane(a, width, index.constant % (a.width // width))
        return self._make("lane_at", (a, index), width)

    def each(self, a: Expr, width: int) -> Expr:
        """Any lane of `a`, inside map."""
        if a.constant is not None:
            count, mask = a.width // width, (1 << width) - 1
            values = {a.constant >> (n * width) & mask for n in range(count)}
            if len(values) == 1:
                return self.const(values.pop(), width)
        if a.op == "map" and a.data == width:
            return a.args[0]
        if a.op == "join" and all(part is a.args[0] for part in a.args) and a.args[0].width == width:
            return a.args[0]
        return self._make("each", (a,), width)

    def map(self, body: Expr, count: int) -> Expr:
        """The same for each lane; `body` is the result of one."""
        if body.constant is not None:
            return self.join([body] * count)
        if body.op == "each" and body.args[0].width == body.width * count:
            return body.args[0]
        return self._make("map", (body,), body.width * count, body.width)

    def join(self, parts: Sequence[Expr]) -> Expr:
        width = parts[0].width
        if len(parts) == 1:
            return parts[0]
        if all(part.constant is not None for part in parts):
            total = sum((part.constant or 0) << (n * width) for n, part in enumerate(parts))
            return self.const(total, width * len(parts))
        first = parts[0]
        if first.op == "field" and first.data == 0 and first.args[0].width == width * len(parts):
            whole = first.args[0]
            if all(p.op == "field" and p.args[0] is whole and p.data == n * width for n, p in enumerate(parts)):
                return whole
        return self._make("join", parts, width * len(parts))

    def other(self, op: str, args: Sequence[Expr], width: int, data: Any = None) -> Expr:
        """An operation that nothing is known about here."""
        return self._make(op, args, width, data)

    # ---- as text -----------------------------------------------------------------------------------------------
    def text(self, a: Expr, name: str) -> str:
        """What it says; `name` sums up what is too long."""
        return _Writer(self, name).write(a, 0)


# Operations on constants that are carried out. Explanations look at more than is executed: nothing is divided by zero.
_FOLD: dict[str, Callable[[int, int, int], int]] = {
    name: INTEGER[name] for name in ("add", "sub", "mul", "and_", "or_", "xor", "shl", "lshr", "ashr")
} | {
    "urem": lambda a, b, w: a % b if b else 0,
    "udiv": lambda a, b, w: a // b if b else 0,
}
_OPPOSITE = {"eq": "ne", "ne": "eq"}
# Signs with their precedence, as in C; a 1-bit value is a truth and has words instead.
_SIGNS = {
    "or_": ("|", 3), "xor": ("^", 4), "and_": ("&", 5), "shl": ("<<", 8), "lshr": (">>", 8), "ashr": (">>s", 8),
    "add": ("+", 9), "sub": ("-", 9), "fadd": ("+", 9), "fsub": ("-", 9), "mul": ("*", 10), "fmul": ("*", 10),
    "udiv": ("/", 10), "fdiv": ("/", 10), "sdiv": ("/s", 10), "urem": ("%", 10), "srem": ("%s", 10),
    "eq": ("==", 7), "ne": ("!=", 7), "ult": ("<", 7), "ule": ("<=", 7), "slt": ("<s", 7), "sle": ("<=s", 7),
    "feq": ("==", 7), "flt": ("<", 7), "fle": ("<=", 7),
}  # fmt: skip
_TRUTHS = {"or_": ("or", 1), "and_": ("and", 2), "xor": ("!=", 7)}
_CALLS = {
    "ctpop": "count of ones", "ctlz": "leading zeros", "cttz": "trailing zeros", "bswap": "bytes reversed",
    "fsqrt": "square root", "sext": "sign-extended", "fmin": "minimum", "fmax": "maximum", "funord": "unordered",
    "int_to_float": "to float", "uint_to_float": "unsigned to float", "float_to_int": "to integer",
    "float_to_int_trunc": "to integer, truncated", "float_to_uint": "to unsigned integer",
    "float_to_uint_trunc": "to unsigned integer, truncated", "float_to_float": "converted", "round_float": "rounded",
}  # fmt: skip


class _Writer:
    def __init__(self, made: Expressions, name: str) -> None:
        self._made = made
        self._name = name

    def write(self, a: Expr, outer: int) -> str:
        """`outer` is the precedence of what surrounds it."""
        if a.op == "map":
            body = self.write(a.args[0], 0)
            text = f"in each {a.data}-bit lane: {body}" if a.args[0].size <= LONGEST else self._summary(a)
            return f"({text})" if outer else text
        if a.size > LONGEST:
            return self._summary(a)
        match a.op:
            case "const":
                return _number(a.data, a.width)
            case "leaf":
                return str(a.data)
            case "mem":
                return f"mem{a.width}[{a.data}{self._address(a.args[0])}]"
            case "zext":
                return self.write(a.args[0], outer)
            case "each":
                inner = a.args[0]
                return self.write(inner.args[0] if inner.op == "field" and inner.data == 0 else inner, outer)
            case "field":
                return self._bits(a)
            case "lane_at":
                lane = _WORDS.get(a.width, f"{a.width}")
                return f"{self.write(a.args[0], 12)}.{lane}[{self.write(a.args[1], 0)}]"
            case "join":
                return self._joined(a)
            case "select":
                yes, no = (self.write(part, 1) for part in a.args[1:])
                text = f"{yes} if {self.write(a.args[0], 1)} else {no}"
                return f"({text})" if outer else text
            case "not_":
                text = self.write(a.args[0], 11)
                return f"not {text}" if a.width == 1 else f"~{text}"
            case "fma":
                return self._fused(a, outer)
            case _:
                return self._operation(a, outer)

    def _address(self, a: Expr) -> str:
        """With `* 4` for a scaled index, and `mod 2^32` for a cut one."""
        if a.op == "and_" and a.args[1].constant in (0xFFFF, 0xFFFF_FFFF):
            return f"({self._address(a.args[0])}) mod 2^{16 if a.args[1].constant == 0xFFFF else 32}"
        if a.op == "add" and a.size <= LONGEST and a.args[1].constant is None:
            return f"{self._address(a.args[0])} + {self._address(a.args[1])}"
        if a.op == "add" and a.size <= LONGEST:
            return self._operation(a, 0) if a.args[0].op == "leaf" else self._plus(a)
        if a.op == "shl" and a.args[1].constant in (1, 2, 3):
            return f"{self.write(a.args[0], 10)} * {1 << a.args[1].constant}"
        return self.write(a, 0)

    def _plus(self, a: Expr) -> str:
        number = a.args[1].constant or 0
        sign = "-" if number >> (a.width - 1) else "+"
        distance = (1 << a.width) - number if sign == "-" else number
        return f"{self._address(a.args[0])} {sign} {_number(distance, a.width)}"

    def _summary(self, a: Expr) -> str:
        return f"{self._name}({', '.join(a.leaves)})"

    def _operation(self, a: Expr, outer: int) -> str:
        if a.op in ("eq", "ne") and (named := self._named_bits(a)):
            return f"({named})" if outer > 2 and " " in named else named
        sign = _TRUTHS.get(a.op) if a.width == 1 else None
        sign = sign or _SIGNS.get(a.op)
        if sign is None or len(a.args) != 2:
            return f"{_CALLS.get(a.op, a.op)}({', '.join(self.write(part, 0) for part in a.args)})"
        mark, precedence = sign
        first = self.write(a.args[0], precedence)
        right = a.args[1]
        number = right.constant
        if a.op == "add" and number is not None and number >> (a.width - 1):  # most are small and negative
            mark, right = "-", self._made.const(-number, a.width)
        text = f"{first} {mark} {self.write(right, precedence + 1)}"
        return f"({text})" if precedence < outer else text

    def _named_bits(self, a: Expr) -> str:
        """`(mode & 0x300) != 0` by the names of the bits."""
        value, number = a.args[0], a.args[1].constant
        if value.op != "and_" or value.args[1].constant is None or number is None:
            return ""
        mask = value.args[1].constant
        names = self._made.bit_names.get(str(value.args[0].data), {}) if value.args[0].op == "leaf" else {}
        bits = [bit for bit in range(mask.bit_length()) if mask >> bit & 1]
        if not all(1 << bit in names for bit in bits):
            return ""
        words = [names[1 << bit] for bit in bits]
        if number == 0:
            return " or ".join(words) if a.op == "ne" else " and ".join(f"not {word}" for word in words)
        if number == mask:
            return " and ".join(words) if a.op == "eq" else " or ".join(f"not {word}" for word in words)
        return ""

    def _bits(self, a: Expr) -> str:
        inner, low = a.args[0], a.data
        text = self.write(inner, 12)
        if inner.op in ("leaf", "mem", "each") and inner.width > 64 and a.width in _WORDS and low % a.width == 0:
            return f"{text}.{_WORDS[a.width]}[{low // a.width}]"
        return f"{text}[{low}]" if a.width == 1 else f"{text}[{low + a.width - 1}:{low}]"

    def _joined(self, a: Expr) -> str:
        if all(part is a.args[0] for part in a.args):
            return f"{len(a.args)} times {self.write(a.args[0], 12)}"
        return "{" + ", ".join(self.write(part, 0) for part in reversed(a.args)) + "}"

    def _fused(self, a: Expr, outer: int) -> str:
        negate_product, negate_addend = a.data
        x, y = (self.write(part, 10) for part in a.args[:2])
        text = f"{'-' if negate_product else ''}{x} * {y} {'-' if negate_addend else '+'} {self.write(a.args[2], 10)}"
        return f"({text})" if outer > 9 else text


def _number(number: int, width: int) -> str:
    if number >> (width - 1) and width > 1 and (1 << width) - number < 0x1000:
        return f"-{(1 << width) - number:#x}" if (1 << width) - number > 9 else f"-{(1 << width) - number}"
    return str(number) if number < 10 else f"{number:#x}"
