"""Guest RAM: bounds, the hole below 4 GiB, ROM, the gate for writes."""

import ctypes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyemu.memory import (
    HIGH_RAM_START,
    PCI_HOLE_START,
    GuestRam,
    NoMemory,
    OutOfRange,
    PhysicalRange,
    RangeKind,
    RangeTable,
)

MIB = 1 << 20


@pytest.fixture
def ram():
    memory = GuestRam(16 * MIB)
    yield memory
    memory.close()


@pytest.fixture
def big():
    memory = GuestRam(4 << 30)  # address space only: untouched pages cost nothing
    yield memory
    memory.close()


def test_contents_are_at_host_base_plus_physical_address(ram):
    ram.write(0x12345, b"hello")
    assert ctypes.string_at(ram.host_base + 0x12345, 5) == b"hello"
    assert ram.read(0x12345, 5) == b"hello"
    assert bytes(ram.whole[0x12345:0x1234A]) == b"hello"


def test_fresh_memory_is_zero(ram):
    assert ram.read(16 * MIB - 4096, 4096) == bytes(4096)


@pytest.mark.parametrize(
    ("address", "length"),
    [(-1, 1), (16 * MIB, 1), (16 * MIB - 1, 2), (0, 16 * MIB + 1), (0, -1), (1 << 64, 1), (PCI_HOLE_START, 4)],
)
def test_outside_is_refused(ram, address, length):
    with pytest.raises(OutOfRange):
        ram.read(address, length)
    with pytest.raises(OutOfRange):
        ram.view(address, length)
    if length > 0:
        with pytest.raises(OutOfRange):
            ram.write(address, bytes(min(length, 32 * MIB)))


def test_ram_continues_above_4_gib(big):
    assert big.size == HIGH_RAM_START + (1 << 30)
    assert big.installed == 4 << 30
    big.write(HIGH_RAM_START, b"high")
    assert big.read(HIGH_RAM_START, 4) == b"high"
    with pytest.raises(OutOfRange):
        big.read(PCI_HOLE_START - 2, 4)  # runs into the hole
    with pytest.raises(OutOfRange):
        big.write(HIGH_RAM_START - 2, bytes(4))
    assert [(span.start, span.end) for span in big.ranges] == [
        (0, PCI_HOLE_START),
        (HIGH_RAM_START, HIGH_RAM_START + (1 << 30)),
    ]


def test_views_are_read_only(ram):
    ram.write(100, b"abc")
    view = ram.view(100, 3)
    assert bytes(view) == b"abc"
    with pytest.raises(TypeError):
        view[0] = 1
    ram.write(100, b"x")
    assert bytes(view) == b"xbc"  # it is a view, not a copy


def test_writes_are_reported(ram):
    seen = []
    ram.on_write = lambda address, length: seen.append((address, length))
    ram.write(0x1000, b"abcd")
    ram.write(0x2000, b"")
    with pytest.raises(OutOfRange):
        ram.write(16 * MIB, b"a")
    assert seen == [(0x1000, 4)]


def test_rom_in_the_hole(ram):
    ram.add_rom(0xFFFF_0000, b"\x90" * 0x10000, "bios")
    assert ram.read(0xFFFF_FFF0, 16) == b"\x90" * 16
    with pytest.raises(OutOfRange):
        ram.write(0xFFFF_0000, b"x")
    assert ram.ranges.find(0xFFFF_1234).kind is RangeKind.ROM


def test_a_part_of_low_memory_can_be_rom_and_ram_again(ram):
    ram.set_low(0xC0000, 0x100000, [(0xC0000, 0xF0000, RangeKind.RAM), (0xF0000, 0x100000, RangeKind.ROM)])
    with pytest.raises(OutOfRange):
        ram.write(0xF0000, b"x")
    with pytest.raises(OutOfRange):
        ram.write(0xEFFFF, b"xx")
    ram.write(0xEFFFF, b"x")
    ram.write(0x100000, b"y")
    assert ram.read(0xEFFFF, 2) == b"x\0"  # reading over the seam is fine
    assert [(span.start, span.end, span.kind) for span in ram.ranges] == [
        (0, 0xF0000, RangeKind.RAM),
        (0xF0000, 0x100000, RangeKind.ROM),
        (0x100000, 16 * MIB, RangeKind.RAM),
    ]
    ram.set_low(0xC0000, 0x100000, [(0xF0000, 0x100000, RangeKind.RAM)])
    assert [(span.start, span.end) for span in ram.ranges] == [(0, 0xC0000), (0xF0000, 16 * MIB)]
    assert ram.ranges.find(0xD0000) is None
    ram.write(0xFFFFF, b"xy")


@pytest.mark.parametrize("start", [0xFFFF_0001, 16 * MIB - 4096, 0x1_0000_0000, 0xFFFF_F000])
def test_rom_that_does_not_fit(ram, start):
    with pytest.raises((OutOfRange, ValueError)):
        ram.add_rom(start, bytes(0x2000), "rom")


def test_clear_gives_zeroes(ram):
    ram.write(0x5000, b"secret")
    ram.clear()
    assert ram.read(0x5000, 6) == bytes(6)


@pytest.mark.parametrize("size", [0, -4096, 4097, 1 << 40])
def test_impossible_sizes(size):
    with pytest.raises(NoMemory):
        GuestRam(size)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12)), max_size=12))
def test_range_table_never_overlaps(pieces):
    """Against a plain set of taken addresses."""
    table, taken = RangeTable(), set()
    for start, size in pieces:
        addresses = set(range(start, start + size))
        new = PhysicalRange(start, start + size, RangeKind.MMIO, "x")
        if addresses & taken:
            with pytest.raises(ValueError):
                table.add(new)
        else:
            table.add(new)
            taken |= addresses
    for address in range(80):
        found = table.find(address)
        assert (found is not None) == (address in taken)
        assert found is None or found.start <= address < found.end
