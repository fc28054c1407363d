"""What explanations say is what happens: expressions of random instructions, evaluated, against the reference back end.

The sentences' expressions are read here by a small evaluator of its own. Left out are floating point and what mechanism
does, of which an explanation says only what it is.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from pyemu.cpu import mode as md
from pyemu.cpu import physical
from pyemu.cpu.concrete import Concrete
from pyemu.cpu.decode import record as rc
from pyemu.cpu.decode.decoder import decode
from pyemu.cpu.expressions import Expr
from pyemu.cpu.faults import clear_fault
from pyemu.cpu.flags import ARITHMETIC, eflags, set_arithmetic
from pyemu.cpu.ops import Form, build_table
from pyemu.cpu.sentences import CONDITION_WORDS, FLAG_NAMES, SEGMENTS, Sentences
from pyemu.cpu.state import (
    CC_DST,
    CC_SRC,
    CR0,
    CR4,
    CS,
    EFER,
    FETCH_PHYS,
    FETCH_PHYS2,
    FLAGS,
    GPR,
    NO_PAGE,
    OPMASK,
    RANGE_COUNT,
    RANGES,
    RECORD,
    RIP,
    SEG_ATTR,
    SEG_BASE,
    SEG_LIMIT,
    SEG_SEL,
    VEC,
    XCR0,
    State,
    new_state,
)  # fmt: skip
from pyemu.cpu.tlb import flush_all
from pyemu.cpu.values import Value
from tests.cpu.fake_host import FakeHost

FORMS = build_table().forms
RAM, CODE = 0x30000, 0x1000
M64 = (1 << 64) - 1


class Unknown(Exception):
    """An expression that the evaluator doesn't read."""


class Collecting(Sentences):
    """Keeps the expressions that registers and memory get."""

    def __init__(self, form: Form, words: Sequence[int]) -> None:
        super().__init__(form, words, hex)
        self.writes: list[tuple[int, Expr]] = []
        self.stores: list[tuple[Expr, Expr]] = []

    def set_register(self, field: int, value: Value) -> None:
        assert self.words is not None
        self.writes.append((self.words[rc.REGS] >> field & 0xFFFF, value.payload))
        super().set_register(field, value)

    def set_state(self, index: int, value: Value) -> None:
        if index not in (CC_DST, CC_SRC):
            self.writes.append((8 * index, value.payload))
        super().set_state(index, value)

    def set_stack(self, pointer: Value) -> None:
        self.writes.append((8 * (GPR + 4), pointer.payload))
        super().set_stack(pointer)

    def store(self, linear: Value, value: Value, access: int = 0) -> None:
        self.stores.append((linear.payload, value.payload))
        super().store(linear, value, access)


class Storing(Concrete):
    """Keeps what it stores."""

    stores: list[tuple[int, int]]

    def store(self, linear: Value, value: Value, access: int = 0) -> None:
        super().store(linear, value, access)
        self.stores.append((linear.payload, value.payload))


class Evaluator:
    """Expressions on a state as it was before the instruction."""

    def __init__(self, s: State, memory: bytes) -> None:
        self.words = [s[n] for n in range(OPMASK + 8)]
        self.memory, self.flags = memory, eflags(s)
        self._known: dict[tuple[int, int], int] = {}
        self.names = {name: bool(self.flags & bit) for bit, name in FLAG_NAMES.items()}

    def value(self, a: Expr, lane: int = 0) -> int:
        key = id(a), lane  # large ones share their parts
        if key not in self._known:
            self._known[key] = self._value(a, lane) & (1 << a.width) - 1
        return self._known[key]

    def _value(self, a: Expr, lane: int) -> int:
        part = [self.value(one, lane) for one in a.args] if a.op not in ("map", "each") else []
        width = a.args[0].width if a.args else a.width
        signed = [x - (1 << one.width) if x >> (one.width - 1) else x for x, one in zip(part, a.args, strict=False)]
        match a.op:
            case "const":
                return int(a.data)
            case "leaf":
                return self.leaf(a)
            case "mem":
                at = (self.segment(a.data) + part[0]) & M64
                if at + a.width // 8 > RAM:
                    raise Unknown("a device's register")
                return int.from_bytes(self.memory[at : at + a.width // 8], "little")
            case "linear":
                return self.segment(a.data) + part[0]
            case "zext":
                return part[0]
            case "sext":
                return signed[0]
            case "field":
                return part[0] >> int(a.data)
            case "each":
                return self.value(a.args[0], lane) >> (lane * a.width)
            case "map":
                count = a.width // a.data
                return sum(self.value(a.args[0], n) << (n * a.data) for n in range(count))
            case "join":
                return sum(x << (n * width) for n, x in enumerate(part))
            case "lane_at":
                return part[0] >> (part[1] % (width // a.width) * a.width)
            case "select":
                return part[1] if part[0] else part[2]
            case "not_":
                return ~part[0]
            case "ctpop":
                return part[0].bit_count()
            case "ctlz":
                return width - part[0].bit_length()
            case "cttz":
                return (part[0] & -part[0]).bit_length() - 1 if part[0] else width
            case "bswap":
                return int.from_bytes(part[0].to_bytes(width // 8, "little"), "big")
            case "shl":
                return part[0] << part[1] if part[1] < width else 0
            case "lshr":
                return part[0] >> part[1]
            case "ashr":
                return signed[0] >> min(part[1], width - 1)
            case "udiv" | "urem" | "sdiv" | "srem":
                return self.divide(a.op, part, signed)
        both = {
            "add": lambda x, y: x + y, "sub": lambda x, y: x - y, "mul": lambda x, y: x * y, "and_": lambda x, y: x & y,
            "or_": lambda x, y: x | y, "xor": lambda x, y: x ^ y, "eq": lambda x, y: x == y, "ne": lambda x, y: x != y,
            "ult": lambda x, y: x < y, "ule": lambda x, y: x <= y,
        }  # fmt: skip
        if a.op in ("slt", "sle"):
            return int(signed[0] < signed[1] if a.op == "slt" else signed[0] <= signed[1])
        if a.op not in both:
            raise Unknown(a.op)
        return int(both[a.op](part[0], part[1]))

    @staticmethod
    def divide(op: str, part: list[int], signed: list[int]) -> int:
        x, y = part if op[0] == "u" else signed
        if y == 0:
            raise Unknown("a division that faults")
        quotient = abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)
        return quotient if op.endswith("div") else x - quotient * y

    def segment(self, name: str) -> int:
        return self.words[SEG_BASE + SEGMENTS.index(name[:-1])] if name else 0

    def leaf(self, a: Expr) -> int:
        name = str(a.data)
        if name in self.names:
            return int(self.names[name])
        if name == "rflags":
            return self.flags
        for field, index, words in (("xmm", VEC, 8), ("ymm", VEC, 8), ("zmm", VEC, 8), ("k", OPMASK, 1)):
            if name.startswith(field) and name[len(field) :].isdigit():
                at = index + int(name[len(field) :]) * words
                return sum(self.words[at + n] << (64 * n) for n in range(words))
        if name.endswith(" base") and name[:2] in SEGMENTS:
            return self.words[SEG_BASE + SEGMENTS.index(name[:2])]
        if name in SEGMENTS:
            return self.words[SEG_SEL + SEGMENTS.index(name)]
        if name in CONDITION_WORDS:
            return int(bool(eval(name, {}, self.names)))
        try:
            number, shift = REGISTERS[name]
        except KeyError:
            raise Unknown(name) from None
        return self.words[GPR + number] >> shift


def registers() -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for n, name in enumerate(("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")):
        low = name[0] + "l" if n < 4 else name + "l"
        found |= {f"r{name}": (n, 0), f"e{name}": (n, 0), name: (n, 0), low: (n, 0)}
        if n < 4:
            found[name[0] + "h"] = n, 8
    return found | {f"r{n}{letter}": (n, 0) for n in range(8, 16) for letter in ("", "d", "w", "b")}


REGISTERS = registers()
PREFIXES = (
    b"", b"", b"\x48", b"\x49", b"\x4d", b"\x66", b"\x0f", b"\x48\x0f", b"\x66\x0f", b"\x66\x0f\x38", b"\x66\x0f\x3a",
    b"\x64\x48", b"\xc5\xf9", b"\xc5\xfd", b"\xc4\xe2\x79", b"\xc4\xe2\x7d", b"\xc4\xe3\x7d", b"\xc4\xe2\xfb",
    b"\x62\xf1\x7d\x48", b"\x62\xf2\x7d\xca", b"\x62\xf1\xfd\x29", b"\x67",
)  # fmt: skip


def long_mode() -> State:
    """64-bit mode without paging, which serves here."""
    s = new_state()
    s[RANGE_COUNT], s[RANGES], s[RANGES + 1], s[RANGES + 2] = 1, 0, RAM, physical.RAM
    s[CR0], s[EFER], s[CR4], s[XCR0], s[SEG_ATTR + CS] = 1, 0x500, 0x40600, 0xE7, 0xA09B
    s[SEG_BASE + 4], s[SEG_LIMIT + CS] = 0x2000, 0xFFFFFFFF
    s[RIP], s[FETCH_PHYS], s[FETCH_PHYS2] = CODE, CODE, NO_PAGE
    md.update(s)
    flush_all(s)
    clear_fault(s)
    return s


def prepared(base: State, rng: random.Random) -> State:
    """Registers that mostly point into memory."""
    s: State = State.from_buffer_copy(base)
    s.host = FakeHost()
    for n in range(16):
        s[GPR + n] = rng.choice((rng.randrange(0x10000, 0x20000), rng.getrandbits(64), rng.getrandbits(6)))
    for n in range(256):
        s[VEC + n] = rng.getrandbits(64)
    for n in range(8):
        s[OPMASK + n] = rng.getrandbits(64)
    set_arithmetic(s, rng.getrandbits(12))
    return s


def test_expressions_are_what_the_reference_computes() -> None:
    rng, base = random.Random(7), long_mode()
    seen: set[Callable[..., None]] = set()
    original = rng.randbytes(RAM)
    for _ in range(8000):
        s, memory = prepared(base, rng), bytearray(original)
        code = rng.choice(PREFIXES) + rng.randbytes(10)
        memory[CODE : CODE + len(code)] = code
        s.ram = memoryview(memory)
        if decode(s, CODE, CODE, 1, 0):
            continue
        words = [s[RECORD + n] for n in range(rc.WORDS)]
        form = FORMS[words[rc.PACKED] & 0xFFFF]
        said = Collecting(form, words)
        if said.run().calls or said.meaning.rounds:
            continue
        before = Evaluator(s, bytes(memory))
        done = Storing(s)
        done.stores = []
        if done.execute(form, words, commit=False):
            continue
        if compare(said, done, before):
            seen.add(form.row.function)
    assert len(seen) > 95, len(seen)


def flagless(offset: int, size: int, value: int) -> tuple[int, int, int]:
    """A write, without what FLAGS has no place for: the arithmetic flags are lazy, in words of their own."""
    return offset, size, value & ~(ARITHMETIC | 2) if offset == 8 * FLAGS else value


def compare(said: Collecting, done: Storing, before: Evaluator) -> bool:
    """Do the same places get the same values, in this order? False where that can't be told."""
    kept = [flagless(*write) for write in done.writes if write[0] not in (8 * CC_DST, 8 * CC_SRC)]
    name = f"{said.form.name}: {said.meaning.text}"
    try:
        found = [flagless(offset, a.width // 8, before.value(a)) for offset, a in said.writes]
        stores = [(before.value(linear), before.value(a)) for linear, a in said.stores]
    except Unknown:
        return False
    assert found == kept, name
    assert stores == done.stores, name
    return True
