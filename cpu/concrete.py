"""The reference back end: instruction definitions executed on Python integers, one instruction at a time.

Slow and plain on purpose: it is the oracle of the others, what single-step explanation runs on, and the easiest place
to
read how an instruction happens. Floating point is computed by softfloat.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pyemu.cpu import memory, segments, vector_memory
from pyemu.cpu import softfloat as sf
from pyemu.cpu import softfloat_convert as sfc
from pyemu.cpu.decode import record as rc
from pyemu.cpu.faults import UD, XM, raise_fault
from pyemu.cpu.instruction import FIRST_PART, STACK_ACCESS, Instruction
from pyemu.cpu.ops import Form
from pyemu.cpu.state import CR4, GPR, M64, MXCSR, RIP, RSP, SS, STACK_MASK, VALUE, VECTOR, State
from pyemu.cpu.values import Value

CR4_OSXMMEXCPT = 1 << 10


class Stop(Exception):
    """The instruction ended early: a fault is raised in the state, nothing was committed."""


def _signed(x: int, width: int) -> int:
    return x - (1 << width) if x >> (width - 1) else x


INTEGER: dict[str, Callable[[int, int, int], int]] = {
    "add": lambda a, b, w: a + b,
    "sub": lambda a, b, w: a - b,
    "mul": lambda a, b, w: a * b,
    "and_": lambda a, b, w: a & b,
    "or_": lambda a, b, w: a | b,
    "xor": lambda a, b, w: a ^ b,
    "shl": lambda a, b, w: a << b if b < w else 0,
    "lshr": lambda a, b, w: a >> b if b < w else 0,
    "ashr": lambda a, b, w: _signed(a, w) >> min(b, w - 1),
    "udiv": lambda a, b, w: a // b,
    "urem": lambda a, b, w: a % b,
    "sdiv": lambda a, b, w: _divide(_signed(a, w), _signed(b, w))[0],
    "srem": lambda a, b, w: _divide(_signed(a, w), _signed(b, w))[1],
}
COMPARE: dict[str, Callable[[int, int, int], bool]] = {
    "eq": lambda a, b, w: a == b,
    "ne": lambda a, b, w: a != b,
    "ult": lambda a, b, w: a < b,
    "ule": lambda a, b, w: a <= b,
    "slt": lambda a, b, w: _signed(a, w) < _signed(b, w),
    "sle": lambda a, b, w: _signed(a, w) <= _signed(b, w),
}
_FLOAT = {"fadd": sf.add, "fsub": sf.sub, "fmul": sf.mul, "fdiv": sf.div, "fmin": sf.minimum, "fmax": sf.maximum}
_FLOAT_COMPARE = {"feq": 0, "flt": 1, "fle": 2, "funord": 3}  # CMPPS predicates
_FORMAT = {16: sf.F16, 32: sf.F32, 64: sf.F64}


def _divide(a: int, b: int) -> tuple[int, int]:
    """Quotient truncated toward zero, and remainder with the dividend's sign."""
    quotient = abs(a) // abs(b)
    if (a < 0) != (b < 0):
        quotient = -quotient
    return quotient, a - quotient * b


class Concrete(Instruction):
    """Executes one decoded instruction at a time on a State."""

    def __init__(self, s: State) -> None:
        self.s = s
        self.bytes = memoryview(s).cast("B")
        self.words: list[int] = [0] * rc.WORDS
        self.writes: list[tuple[int, int, int]] = []  # byte offset, bytes, value
        self.target: int | None = None
        self.context = sf.FloatContext()
        self.uses_float = False

    def execute(self, form: Form, words: Sequence[int], commit: bool = True) -> int:
        """Run one instruction from its record; 0, or 1 with a fault raised and nothing committed."""
        self.form, self.words = form, list(words)
        self.writes.clear()
        self.target = None
        self.uses_float = False
        self.rounding = self.unreported = None
        try:
            form.row.function(self, *form.operands, *form.row.extra)
            self.settle_floats()
        except Stop:
            return 1
        if not commit:
            return 0
        for offset, size, value in self.writes:
            self.bytes[offset : offset + size] = value.to_bytes(size, "little")
        if self.target is not None:
            self.s[RIP] = self.target
        elif not form.row.sets_rip:
            self.s[RIP] = self._next()
        return 0

    def _next(self) -> int:
        return (self.words[rc.R_RIP] + (self.words[rc.PACKED] >> rc.LENGTH & 0xFF)) & M64

    # ---- values --------------------------------------------------------------------------------------------
    def constant(self, number: int, width: int) -> Value:
        return Value(self, number & ((1 << width) - 1), width)

    def like(self, other: Value | int, value: Value) -> Value:
        return other if isinstance(other, Value) else self.constant(other, value.width)

    def binary(self, name: str, a: Value, b: Value) -> Value:
        assert a.width == b.width, f"{self.form.name}: {name} of {a.width} and {b.width} bits"
        if name in _FLOAT:
            return Value(self, _FLOAT[name](_FORMAT[a.width], a.payload, b.payload, self._floats()), a.width)
        return self.constant(INTEGER[name](a.payload, b.payload, a.width), a.width)

    def compare(self, name: str, a: Value, b: Value) -> Value:
        assert a.width == b.width, f"{self.form.name}: {name} of {a.width} and {b.width} bits"
        if name in _FLOAT_COMPARE:
            predicate = _FLOAT_COMPARE[name]
            return Value(
                self, int(sf.compare_predicate(_FORMAT[a.width], a.payload, b.payload, predicate, self._floats())), 1
            )
        return Value(self, int(COMPARE[name](a.payload, b.payload, a.width)), 1)

    def unary(self, name: str, a: Value) -> Value:
        x, width = a.payload, a.width
        match name:
            case "not_":
                x = ~x
            case "ctpop":
                x = x.bit_count()
            case "ctlz":
                x = width - x.bit_length()
            case "cttz":
                x = (x & -x).bit_length() - 1 if x else width
            case "bswap":
                x = int.from_bytes(x.to_bytes(width // 8, "little"), "big")
            case "fsqrt":
                x = sf.sqrt(_FORMAT[width], x, self._floats())
        return self.constant(x, width)

    def cast(self, name: str, a: Value, width: int) -> Value:
        return self.constant(_signed(a.payload, a.width) if name == "sext" else a.payload, width)

    def select(self, condition: Value, yes: Value, no: Value) -> Value:
        assert yes.width == no.width, f"{self.form.name}: select of {yes.width} and {no.width} bits"
        return yes if condition.payload else no

    def map(self, lane: int, function: Callable[..., Value], *operands: Value) -> Value:
        count = operands[0].width // lane
        split = [[self.lane(o, o.width // count, k) for o in operands] for k in range(count)]
        return self.join([function(*values) for values in split])

    def join(self, lanes: Sequence[Value]) -> Value:
        width, total = lanes[0].width, 0
        for k, value in enumerate(lanes):
            total |= value.payload << (k * width)
        return Value(self, total, width * len(lanes))

    def lane(self, value: Value, lane: int, index: Value | int) -> Value:
        k = (index.payload if isinstance(index, Value) else index) % (value.width // lane)
        return self.constant(value.payload >> (k * lane), lane)

    # ---- floating point ----------------------------------------------------------------------------------
    def _floats(self) -> sf.FloatContext:
        if not self.uses_float:
            word = self.mxcsr().payload
            self.context = sf.FloatContext(
                rounding=word >> 13 & 3, daz=bool(word & 0x40), ftz=bool(word & 0x8000), masks=word >> 7 & 0x3F
            )
            self.uses_float = True
        return self.context

    def settle_floats(self) -> None:
        """Accrue the exception flags; an unmasked one is #XM (or #UD) and cancels the instruction's writes."""
        if not self.uses_float or self.quiet:
            return
        self.uses_float = False
        found = self.context.flags & ~(self.unreported.payload if self.unreported is not None else 0)
        flags = sf.reported_flags(found, self.context.masks)
        self.s[MXCSR] |= flags
        if flags & ~self.context.masks & 0x3F:
            raise_fault(self.s, XM if self.s[CR4] & CR4_OSXMMEXCPT else UD, 0)
            raise Stop

    def fma(self, a: Value, b: Value, c: Value, negate_product: bool, negate_addend: bool) -> Value:
        numbers = a.payload, b.payload, c.payload
        result = sf.fma(_FORMAT[a.width], *numbers, self._floats(), negate_product, negate_addend)
        return Value(self, result, a.width)

    def convert(self, name: str, a: Value, width: int, mode: Value | None = None) -> Value:
        context = self._floats()
        if name == "int_to_float":
            result = sfc.from_int(_FORMAT[width], _signed(a.payload, a.width), context)
        elif name == "uint_to_float":
            result = sfc.from_int(_FORMAT[width], a.payload, context)
        elif name == "float_to_float" and a.width == 16:
            result = sfc.half_to_single(sf.F32, sf.F16, a.payload, context)
        elif name == "float_to_float" and width == 16:
            assert mode is not None
            result = sfc.single_to_half(sf.F32, sf.F16, a.payload, mode.payload, context)
        elif name == "float_to_float":
            result = sfc.convert(_FORMAT[a.width], _FORMAT[width], a.payload, context)
        else:
            truncate, signed = name.endswith("_trunc"), name.startswith("float_to_int")
            result = sfc.to_int(_FORMAT[a.width], a.payload, width, context, truncate, signed)
        return self.constant(result, width)

    def round_float(self, a: Value, mode: Value) -> Value:
        return Value(self, sfc.round_sd_imm(_FORMAT[a.width], a.payload, mode.payload, self._floats()), a.width)

    # ---- state ---------------------------------------------------------------------------------------------
    def _bytes_at(self, offset: int, width: int) -> Value:
        return Value(self, int.from_bytes(self.bytes[offset : offset + width // 8], "little"), width)

    def state(self, index: int, width: int = 64) -> Value:
        return self._bytes_at(8 * index, width)

    def state_at(self, index: Value) -> Value:
        return self._bytes_at(8 * index.payload, 64)

    def set_state(self, index: int, value: Value) -> None:
        self.writes.append((8 * index, value.width // 8, value.payload))

    def register(self, field: int, width: int) -> Value:
        return self._bytes_at(self.words[rc.REGS] >> field & 0xFFFF, width)

    def set_register(self, field: int, value: Value) -> None:
        self.writes.append((self.words[rc.REGS] >> field & 0xFFFF, value.width // 8, value.payload))

    def record_word(self, index: int) -> Value:
        return Value(self, self.words[index], 64)

    def record_field(self, word: int, shift: int, width: int) -> Value:
        return Value(self, self.words[word] >> shift & ((1 << width) - 1), 64)

    def register_number(self, field: int) -> Value:
        return self.record_field(rc.REGS, field, 16)

    def address_register(self, field: int) -> Value:
        return self._bytes_at(self.words[rc.ADDRESS] >> field & 0xFFFF, 64)

    # ---- memory --------------------------------------------------------------------------------------------
    def _check(self, status: int) -> None:
        if status:
            raise Stop

    def linear(self, offset: Value, size: int, access: int) -> Value:
        packed = self.words[rc.PACKED]
        segment = packed >> rc.SEGMENT & 0xFF
        if packed >> rc.RFLAGS_SHIFT & rc.LEGACY:
            self._check(segments.linear(self.s, segment, offset.payload, size, access))
            return self.value()
        base = self._bytes_at(self.words[rc.ADDRESS] >> rc.SEGMENT_BASE & 0xFFFF, 64)
        return offset + base

    def _segment_access(self) -> int:
        return STACK_ACCESS if self.words[rc.PACKED] >> rc.SEGMENT & 0xFF == SS else 0

    def load(self, linear: Value, width: int, access: int = 0) -> Value:
        address, size = linear.payload, width // 8
        access |= self._segment_access()
        if size <= 8 and size & (size - 1) == 0 or size == 16:
            self._check(memory.read(self.s, address, size, access))
            return self.value(width)
        if width in FIRST_PART:
            self._check(memory.probe_aligned(self.s, address, size, FIRST_PART[width], access))
        elif size > vector_memory.WHOLE:
            self._check(memory.probe_aligned(self.s, address, size, vector_memory.WHOLE, access))
            access |= memory.ANY_ALIGNMENT
        else:
            self._check(memory.probe(self.s, address, size, access))
        total, at = 0, 0
        while at < size:
            step = 8 if size - at >= 8 else 1 << ((size - at).bit_length() - 1)
            self._check(memory.read(self.s, (address + at) & M64, step, access))
            total |= self.s[VALUE] << (8 * at)
            at += step
        return Value(self, total, width)

    def store(self, linear: Value, value: Value, access: int = 0) -> None:
        self.settle_floats()  # whose exceptions come first
        address, size, data = linear.payload, value.width // 8, value.payload
        access |= memory.WRITE | self._segment_access()
        if size == 16 and access & memory.ANY_ALIGNMENT == 0:
            self._check(memory.write128(self.s, address, data & M64, data >> 64))
            return
        if size > vector_memory.WHOLE:
            self._check(memory.probe_aligned(self.s, address, size, vector_memory.WHOLE, access))
            access |= memory.ANY_ALIGNMENT
        elif size > 8 or size & (size - 1):
            self._check(memory.probe(self.s, address, size, access))
        at = 0
        while at < size:
            step = 8 if size - at >= 8 else 1 << ((size - at).bit_length() - 1)
            part = data >> (8 * at) & ((1 << (8 * step)) - 1)
            self._check(memory.write(self.s, (address + at) & M64, step, part, access))
            at += step

    def probe_write(self, linear: Value, size: int, alignment: int = 0) -> None:
        access = memory.WRITE | self._segment_access()
        self._check(memory.probe_aligned(self.s, linear.payload, size, alignment or 1, access))

    def vector(self, width: int) -> Value:
        return self.state(VECTOR, width)

    def set_vector(self, value: Value) -> None:
        size = value.width // 8
        self.bytes[8 * VECTOR : 8 * VECTOR + size] = value.payload.to_bytes(size, "little")

    def memory_access(self) -> Value:
        return self.constant(self._segment_access(), 64)

    def stack_linear(self, offset: int, size: int, access: int) -> Value:
        return self.stack_linear_at(self.state(GPR + RSP) + offset, size, access)

    def stack_linear_at(self, pointer: Value, size: int, access: int) -> Value:
        at = pointer.payload & self.s[STACK_MASK]
        if self.words[rc.PACKED] >> rc.RFLAGS_SHIFT & rc.LEGACY:
            self._check(segments.linear(self.s, SS, at, size, access | STACK_ACCESS))
            return self.value()
        return self.constant(at, 64)

    # ---- effects -------------------------------------------------------------------------------------------
    def fault_if(self, condition: Value, vector: int, error: int = 0) -> None:
        if condition.payload:
            raise_fault(self.s, vector, error)
            raise Stop

    def call(self, function: Callable[..., int], *arguments: Value | int) -> None:
        self.settle_floats()
        numbers = [self.argument(a).payload for a in arguments]
        self._check(function(self.s, *numbers))

    def jump(self, target: Value) -> None:
        self.target = target.payload

    def value(self, width: int = 64) -> Value:
        return self.state(VALUE, width)
