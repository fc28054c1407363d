"""String instructions: against a plain model, in both forms of the code, with faults, overlaps and interruptions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from pyemu.cpu import flags, physical, strings
from pyemu.cpu.decode import record as rc
from pyemu.cpu.faults import GP, PF
from pyemu.cpu.state import (
    DS,
    ES,
    EXIT_REQUEST,
    FAULT_CR2,
    FAULT_VECTOR,
    FLAGS,
    FS,
    GPR,
    ICOUNT,
    ICOUNT_LIMIT,
    NO_FAULT,
    RANGES,
    RAX,
    RCX,
    RDI,
    RDX,
    RSI,
    SEG_BASE,
    SEG_LIMIT,
    VALUE,
    State,
)
from tests.cpu import system_setup as setup
from tests.cpu import twins

Twin = Callable[[Any], Callable[..., int]]
FROM, TO = 0x20100, 0x28200
DATA = 0x20000  # below are page tables, where accessed and dirty bits appear
NAMES = ("movs", "stos", "lods", "cmps", "scas")
LIMIT = 1 << 40


def packed(prefix: str = "", address_size: int = 8, segment: int = DS) -> int:
    repeat = {"": 0, "rep": rc.REPEAT, "repne": rc.REPEAT_NE}[prefix]
    return repeat << rc.RFLAGS_SHIFT | address_size << rc.ADDRESS_SIZE | segment << rc.SEGMENT


def machine(mode: Callable[[], setup.Machine] = setup.long) -> setup.Machine:
    m = mode()
    m.s[ICOUNT_LIMIT] = LIMIT
    for n in range(0x3000):
        m.s.ram[FROM - 0x100 + n] = (n * 37 + (n >> 8)) & 0xFF
    return m


def registers(s: State, **values: int) -> None:
    numbers = {"rax": RAX, "rcx": RCX, "rdx": RDX, "rsi": RSI, "rdi": RDI}
    for name, value in values.items():
        s[GPR + numbers[name]] = value


@dataclass
class Model:
    """A string instruction as SDM 2 describes it, on a flat memory."""

    memory: bytearray
    rax: int
    rcx: int
    rsi: int
    rdi: int
    down: bool
    difference: tuple[int, int] | None = None

    def load(self, at: int, size: int) -> int:
        return int.from_bytes(self.memory[at : at + size], "little")

    def store(self, at: int, size: int, value: int) -> None:
        self.memory[at : at + size] = value.to_bytes(size, "little")

    def once(self, name: str, size: int) -> None:
        mask, step = (1 << 8 * size) - 1, -size if self.down else size
        if name == "movs":
            self.store(self.rdi, size, self.load(self.rsi, size))
        elif name == "stos":
            self.store(self.rdi, size, self.rax & mask)
        elif name == "lods":
            kept = 0 if size == 4 else self.rax & ~mask
            self.rax = kept | self.load(self.rsi, size)
        elif name == "cmps":
            self.difference = self.load(self.rsi, size), self.load(self.rdi, size)
        else:
            self.difference = self.rax & mask, self.load(self.rdi, size)
        self.rsi += step if name in ("movs", "lods", "cmps") else 0
        self.rdi += step if name != "lods" else 0

    def run(self, name: str, size: int, prefix: str) -> int:
        if not prefix:
            self.once(name, size)
            return 1
        done = 0
        while self.rcx:
            self.once(name, size)
            self.rcx -= 1
            done += 1
            equal = self.difference is not None and self.difference[0] == self.difference[1]
            if name in ("cmps", "scas") and equal != (prefix == "rep"):
                break
        return max(done, 1)


def difference_flags(a: int, b: int, size: int) -> int:
    bits = 8 * size
    result = (a - b) & ((1 << bits) - 1)
    top = 1 << (bits - 1)
    word = flags.CF * (a < b) | flags.ZF * (result == 0) | flags.SF * bool(result & top)
    word |= flags.OF * bool((a ^ b) & (a ^ result) & top) | flags.AF * bool((a ^ b ^ result) & 16)
    return word | flags.PF * (bin(result & 0xFF).count("1") % 2 == 0)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize("name", NAMES)
def test_against_model(twin: Twin, name: str, size: int) -> None:
    function = twin(getattr(strings, name))
    for prefix, count, down, source, target in (
        ("", 7, False, FROM, TO),
        ("", 7, True, FROM, TO),
        ("rep", 0, False, FROM, TO),
        ("rep", 1, False, FROM, TO),
        ("rep", 300, False, FROM + 3, TO + 1),
        ("rep", 1000, False, FROM, 0x29FFD),  # elements across a page boundary
        ("rep", 40, True, FROM + 0x800, TO + 0x800),
        ("repne", 50, False, FROM, TO),
        ("rep", 200, False, FROM, FROM + 1),  # overlapping, copies repeat what they have written
        ("rep", 200, False, FROM, FROM + 24),
        ("rep", 200, False, FROM + 24, FROM),
        ("rep", 100, False, FROM, FROM),
    ):
        m = machine()
        s = m.s
        if name in ("cmps", "scas"):
            for n in range(20 * size):  # equal at first
                m.s.ram[target + n] = m.s.ram[source + n]
        rax = 0x1122334455667788
        model = Model(bytearray(m.ram.raw), rax, count, source, target, down)
        registers(s, rax=rax, rcx=count, rsi=source, rdi=target)
        s[FLAGS] = 2 | (flags.DF if down else 0)
        assert function(s, packed(prefix), size) == 0
        expected = model.run(name, size, prefix)
        assert s[VALUE] == 0
        assert [s[GPR + r] for r in (RAX, RCX, RSI, RDI)] == [model.rax, model.rcx, model.rsi, model.rdi]
        assert s[ICOUNT] == expected - 1
        assert m.ram.raw[DATA:] == bytes(model.memory)[DATA:], (prefix, count, source, target)
        if model.difference:
            assert flags.eflags(s) & flags.ARITHMETIC == difference_flags(*model.difference, size)


def test_stos_of_one_byte_pattern(twin: Twin) -> None:
    m = machine()
    registers(m.s, rax=0xFFFFFFFF_5A5A5A5A, rcx=1500, rdi=TO)
    assert twin(strings.stos)(m.s, packed("rep"), 4) == 0
    assert bytes(m.s.ram[TO : TO + 6000]) == b"\x5a" * 6000
    assert m.s.ram[TO + 6000] != 0x5A


def test_count_limit_and_exit_request(twin: Twin) -> None:
    m = machine()
    s = m.s
    before = m.ram.raw
    registers(s, rcx=9000, rsi=FROM, rdi=TO)
    s[ICOUNT], s[ICOUNT_LIMIT] = 10, 1010
    move = twin(strings.movs)
    assert move(s, packed("rep"), 1) == 0
    assert (s[VALUE], s[GPR + RCX], s[ICOUNT]) == (1, 8000, 1009)
    s[ICOUNT] += 1  # what the caller counts
    s[ICOUNT_LIMIT], s[EXIT_REQUEST] = LIMIT, 1
    assert move(s, packed("rep"), 1) == 0
    assert s[VALUE] == 1
    assert 0 < s[GPR + RCX] < 8000
    s[ICOUNT] += 1
    s[EXIT_REQUEST] = 0
    assert move(s, packed("rep"), 1) == 0
    assert (s[VALUE], s[GPR + RCX], s[ICOUNT]) == (0, 0, 9009)
    assert bytes(m.s.ram[TO : TO + 9000]) == before[FROM : FROM + 9000]


def test_last_iteration_is_not_an_interruption(twin: Twin) -> None:
    m = machine()
    registers(m.s, rcx=5, rdi=TO)
    m.s[ICOUNT_LIMIT], m.s[EXIT_REQUEST] = 5, 1
    assert twin(strings.stos)(m.s, packed("rep"), 1) == 0
    assert (m.s[VALUE], m.s[GPR + RCX]) == (0, 0)


@pytest.mark.parametrize("name", ["movs", "stos", "lods", "cmps", "scas"])
def test_fault_leaves_exact_state(twin: Twin, name: str) -> None:
    m = machine()
    s = m.s
    bad = 0x21000 if name == "lods" else 0x29000
    setup.unmap(m, bad)
    registers(s, rax=0, rcx=1000, rsi=FROM, rdi=bad - 48)
    if name in ("cmps", "scas"):
        for n in range(48):
            m.s.ram[bad - 48 + n] = m.s.ram[FROM + n] if name == "cmps" else 0
    if name == "lods":
        registers(s, rsi=bad - 48)
    assert twin(getattr(strings, name))(s, packed("rep"), 4) == 1
    assert (s[FAULT_VECTOR], s[FAULT_CR2]) == (PF, bad)
    assert (s[GPR + RCX], s[ICOUNT]) == (988, 12)
    moved = {"movs": (RSI, RDI), "stos": (RDI,), "lods": (RSI,), "cmps": (RSI, RDI), "scas": (RDI,)}[name]
    starts = {RSI: bad - 48 if name == "lods" else FROM, RDI: bad - 48}
    for register in moved:
        assert s[GPR + register] == starts[register] + 48


def test_element_half_on_a_missing_page_changes_nothing(twin: Twin) -> None:
    m = machine()
    setup.unmap(m, 0x29000)
    registers(m.s, rax=0x1234567890, rcx=3, rdi=0x28FFC)
    before = m.ram.raw[DATA:]
    assert twin(strings.stos)(m.s, packed("rep"), 8) == 1
    assert (m.s[FAULT_CR2], m.s[GPR + RCX], m.ram.raw[DATA:]) == (0x29000, 3, before)


def test_segments(twin: Twin) -> None:
    """The source's segment may be overridden, the destination's is ES; bases and limits count outside 64-bit mode."""
    m = machine(setup.protected)
    s = m.s
    s[SEG_BASE + FS], s[SEG_BASE + ES], s[SEG_LIMIT + ES] = 0x20000, 0x28000, 0x203
    registers(s, rcx=100, rsi=0x100, rdi=0x1F0)
    before = m.ram.raw
    assert twin(strings.movs)(s, packed("rep", 4, FS), 1) == 1
    assert (s[FAULT_VECTOR], s[GPR + RCX], s[GPR + RDI]) == (GP, 80, 0x204)
    assert bytes(m.s.ram[0x281F0:0x28204]) == before[0x20100:0x20114]


def test_address_size(twin: Twin) -> None:
    """16-bit registers wrap and keep their upper halves; 32-bit ones zero-extend."""
    m = machine(setup.real)
    s = m.s
    high = 0xAAAABBBBCCCC0000
    registers(s, rax=0x77, rcx=high | 4, rsi=0, rdi=high | 0xFFFE)
    assert twin(strings.stos)(s, packed("rep", 2), 1) == 0
    assert (s[GPR + RCX], s[GPR + RDI]) == (high, high | 2)
    assert bytes(m.s.ram[0xFFFE:0x10000]) == b"\x77\x77"
    assert bytes(m.s.ram[0:2]) == b"\x77\x77"
    m = machine()
    s = m.s
    registers(s, rcx=high << 32 | 3, rdi=high << 32 | TO)
    assert twin(strings.stos)(s, packed("rep", 4), 1) == 0
    assert (s[GPR + RCX], s[GPR + RDI]) == (0, TO + 3)


def test_rom_ignores_writes(twin: Twin) -> None:
    m = machine()
    s = m.s
    s[RANGES + 1] = 0x28000
    s[RANGES + 3], s[RANGES + 4], s[RANGES + 5] = 0x28000, 0x40000, physical.ROM
    s[RANGES - 1] = 2  # RANGE_COUNT
    before = m.ram.raw[DATA:]
    registers(s, rax=0x77, rcx=100, rdi=TO)
    assert twin(strings.stos)(s, packed("rep"), 1) == 0
    assert (m.ram.raw[DATA:], s[GPR + RCX]) == (before, 0)


class Ports:
    """A machine that notes port accesses."""

    def __init__(self) -> None:
        self.written: list[tuple[int, int, int]] = []
        self.count = 0

    def port_read(self, port: int, size: int) -> int:
        self.count += 1
        return (port + self.count) & ((1 << 8 * size) - 1)

    def port_write(self, port: int, size: int, value: int) -> None:
        self.written.append((port, size, value))


def test_ports() -> None:
    m = machine()
    s = m.s
    host = Ports()
    s.host = host  # type: ignore[assignment]
    registers(s, rcx=3, rdx=0xFFFF01F0, rdi=TO)
    assert strings.ins(s, packed("rep"), 2) == 0
    assert bytes(m.s.ram[TO : TO + 6]) == b"\xf1\x01\xf2\x01\xf3\x01"
    registers(s, rcx=2, rsi=TO)
    assert strings.outs(s, packed("rep"), 1) == 0
    assert host.written == [(0x1F0, 1, 0xF1), (0x1F0, 1, 1)]
    setup.unmap(m, 0x29000)
    registers(s, rcx=3, rdi=0x28FFE)
    assert strings.ins(s, packed("rep"), 2) == 1
    assert (host.count, s[GPR + RCX]) == (4, 2)  # the device was not read for the element that cannot be stored
    assert s[FAULT_VECTOR] == PF


def test_twins_are_what_they_say() -> None:
    assert set(twins.TWINS) == {"python", "native"}
    assert machine().s[FAULT_VECTOR] == NO_FAULT
