"""Values and the builder contract: the language in which instructions are defined.

`Value` carries a width in bits and a payload that only its builder understands; operators call the builder. A
builder is one back end: `Concrete` (Python integers, concrete.py) and the LLVM one (jit/emit.py). What both share,
because it is said in terms of values (operand access, lazy flags, conditions), stands in `Instruction`
(instruction.py).

Arithmetic wraps at the width. Comparisons give width 1. `<<` and `>>` are logical; a count of the width or more gives
0.
A plain int operand takes the other side's width. There is no `if` on a value: use `select`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

BINARY = (
    "add", "sub", "mul", "and_", "or_", "xor", "shl", "lshr", "ashr", "udiv", "urem", "sdiv", "srem",
    "fadd", "fsub", "fmul", "fdiv", "fmin", "fmax",
)  # fmt: skip
COMPARE = ("eq", "ne", "ult", "ule", "slt", "sle", "feq", "flt", "fle", "funord")
UNARY = ("not_", "ctpop", "ctlz", "cttz", "bswap", "fsqrt")


class Value:
    """A number of `width` bits (or, inside Builder.map, a vector of them) in some back end."""

    __slots__ = ("builder", "payload", "width")

    def __init__(self, builder: Builder, payload: Any, width: int) -> None:
        self.builder, self.payload, self.width = builder, payload, width

    def _binary(self, name: str, other: Value | int) -> Value:
        return self.builder.binary(name, self, self.builder.like(other, self))

    def __add__(self, other: Value | int) -> Value:
        return self._binary("add", other)

    def __sub__(self, other: Value | int) -> Value:
        return self._binary("sub", other)

    def __rsub__(self, other: int) -> Value:
        return self.builder.like(other, self)._binary("sub", self)

    def __mul__(self, other: Value | int) -> Value:
        return self._binary("mul", other)

    def __and__(self, other: Value | int) -> Value:
        return self._binary("and_", other)

    def __or__(self, other: Value | int) -> Value:
        return self._binary("or_", other)

    def __xor__(self, other: Value | int) -> Value:
        return self._binary("xor", other)

    def __lshift__(self, other: Value | int) -> Value:
        return self._binary("shl", other)

    def __rshift__(self, other: Value | int) -> Value:
        return self._binary("lshr", other)

    def __invert__(self) -> Value:
        return self.builder.unary("not_", self)

    def __neg__(self) -> Value:
        return self.builder.like(0, self)._binary("sub", self)

    def sar(self, other: Value | int) -> Value:
        """Arithmetic shift right; a count of the width or more gives the sign everywhere."""
        return self._binary("ashr", other)

    def udiv(self, other: Value | int) -> Value:
        """Unsigned quotient; the divisor must not be 0 (also: urem, sdiv, srem; no overflow for the signed ones)."""
        return self._binary("udiv", other)

    def urem(self, other: Value | int) -> Value:
        return self._binary("urem", other)

    def sdiv(self, other: Value | int) -> Value:
        return self._binary("sdiv", other)

    def srem(self, other: Value | int) -> Value:
        return self._binary("srem", other)

    def eq(self, other: Value | int) -> Value:
        return self.builder.compare("eq", self, self.builder.like(other, self))

    def ne(self, other: Value | int) -> Value:
        return self.builder.compare("ne", self, self.builder.like(other, self))

    def ult(self, other: Value | int) -> Value:
        return self.builder.compare("ult", self, self.builder.like(other, self))

    def ule(self, other: Value | int) -> Value:
        return self.builder.compare("ule", self, self.builder.like(other, self))

    def slt(self, other: Value | int) -> Value:
        return self.builder.compare("slt", self, self.builder.like(other, self))

    def sle(self, other: Value | int) -> Value:
        return self.builder.compare("sle", self, self.builder.like(other, self))

    def zext(self, width: int) -> Value:
        """Zero-extend, or the value itself at its own width."""
        return self if width == self.width else self.builder.cast("zext", self, width)

    def sext(self, width: int) -> Value:
        """Sign-extend."""
        return self if width == self.width else self.builder.cast("sext", self, width)

    def trunc(self, width: int) -> Value:
        """Keep the low bits."""
        return self if width == self.width else self.builder.cast("trunc", self, width)

    def resize(self, width: int) -> Value:
        """Truncate or zero-extend."""
        return self.trunc(width) if width < self.width else self.zext(width)

    def bits(self, low: int, width: int) -> Value:
        """The field of `width` bits from bit `low`."""
        return (self >> low if low else self).trunc(width)

    def bit(self, number: Value | int) -> Value:
        """One bit, as width 1."""
        return (self >> number).trunc(1)

    def sign(self) -> Value:
        """The top bit."""
        return self.bits(self.width - 1, 1)

    def select(self, yes: Value | int, no: Value | int) -> Value:
        """This condition (width 1) ? yes : no. One of the two must be a Value."""
        if not isinstance(yes, Value):
            assert isinstance(no, Value)
            yes = self.builder.like(yes, no)
        return self.builder.select(self, yes, self.builder.like(no, yes))

    def ctpop(self) -> Value:
        """Number of one bits."""
        return self.builder.unary("ctpop", self)

    def ctlz(self) -> Value:
        """Leading zeros; the width for 0."""
        return self.builder.unary("ctlz", self)

    def cttz(self) -> Value:
        """Trailing zeros; the width for 0."""
        return self.builder.unary("cttz", self)

    def bswap(self) -> Value:
        """Bytes reversed; width a multiple of 16."""
        return self.builder.unary("bswap", self)

    # Floating point of width 32 or 64 under MXCSR: bits in, bits out; the builder accrues exception flags.
    def fadd(self, other: Value) -> Value:
        return self.builder.binary("fadd", self, other)

    def fsub(self, other: Value) -> Value:
        return self.builder.binary("fsub", self, other)

    def fmul(self, other: Value) -> Value:
        return self.builder.binary("fmul", self, other)

    def fdiv(self, other: Value) -> Value:
        return self.builder.binary("fdiv", self, other)

    def fmin(self, other: Value) -> Value:
        """MINPS: the second operand when either is a NaN or both are zero."""
        return self.builder.binary("fmin", self, other)

    def fmax(self, other: Value) -> Value:
        return self.builder.binary("fmax", self, other)

    def fsqrt(self) -> Value:
        return self.builder.unary("fsqrt", self)

    def fma(self, b: Value, c: Value, negate_product: bool = False, negate_addend: bool = False) -> Value:
        """This * b + c with one rounding; of several NaNs the first in this order is the result, its sign unchanged."""
        return self.builder.fma(self, b, c, negate_product, negate_addend)


class Builder(ABC):
    """The primitive operations of a back end."""

    @abstractmethod
    def constant(self, number: int, width: int) -> Value:
        """A known number."""

    @abstractmethod
    def like(self, other: Value | int, value: Value) -> Value:
        """`other` as a value of `value`'s width (and vector shape)."""

    @abstractmethod
    def binary(self, name: str, a: Value, b: Value) -> Value:
        """One of BINARY; both of one width."""

    @abstractmethod
    def compare(self, name: str, a: Value, b: Value) -> Value:
        """One of COMPARE; gives width 1. feq/flt/fle/funord are SSE compares (flt, fle signal on any NaN, feq and
        funord on signalling NaNs)."""

    @abstractmethod
    def unary(self, name: str, a: Value) -> Value:
        """One of UNARY."""

    @abstractmethod
    def cast(self, name: str, a: Value, width: int) -> Value:
        """zext, sext or trunc."""

    @abstractmethod
    def select(self, condition: Value, yes: Value, no: Value) -> Value:
        """condition ? yes : no."""

    @abstractmethod
    def map(self, lane: int, function: Callable[..., Value], *operands: Value) -> Value:
        """Apply a function to each `lane`-bit lane of the operands and join the results: widths may change per lane
        (all results one width); operands may have different lane widths if their lane count is that of the first
        at `lane`. Functions must not use effects, only values."""

    @abstractmethod
    def join(self, lanes: Sequence[Value]) -> Value:
        """One value from lanes of equal width, lowest first."""

    @abstractmethod
    def lane(self, value: Value, lane: int, index: Value | int) -> Value:
        """The `index`th (taken modulo the lane count, a power of two) lane of `lane` bits."""

    def pick_bytes(self, value: Value, indices: Value) -> Value:
        """PSHUFB: for each byte of `indices`, as wide as the value, the byte of that number; 0 if its sign is set."""
        picked = [self.lane(indices, 8, n) for n in range(value.width // 8)]
        return self.join([index.sign().select(0, self.lane(value, 8, index)) for index in picked])

    @abstractmethod
    def fma(self, a: Value, b: Value, c: Value, negate_product: bool, negate_addend: bool) -> Value:
        """±(a * b) ± c of width 32 or 64."""

    @abstractmethod
    def convert(self, name: str, a: Value, width: int, mode: Value | None = None) -> Value:
        """Number formats: "int_to_float" (signed), "float_to_int" (MXCSR rounding), "float_to_int_trunc",
        "float_to_float"; "uint_to_float", "float_to_uint" and "float_to_uint_trunc" are AVX-512's for unsigned numbers;
        integer indefinite and exception flags as SSE2 has them. Width is the result's. Single precision (32) converts
        from and to half (16) too; to half, `mode` is VCVTPS2PH's imm8 (bits 1-0 rounding, 2 use MXCSR)."""

    @abstractmethod
    def round_float(self, a: Value, mode: Value) -> Value:
        """ROUNDSS/SD of one lane: mode is imm8 (bits 1-0 rounding, 2 use MXCSR, 3 suppress precision)."""
