"""Shadow memory: what reads and writes do in each of the four states of a segment."""

import itertools

import pytest

from pyemu.bus import MmioBus
from pyemu.log import Log
from pyemu.memory import GuestRam, OutOfRange, RangeKind
from pyemu.shadow import ALL_RAM, ALL_ROM, END, READ_RAM, SEGMENTS, START, WRITE_RAM, ShadowMemory

ROM = b"rom!" * 0x8000  # 128 KiB


@pytest.fixture
def ram():
    ram = GuestRam(2 << 20)
    yield ram
    ram.close()


@pytest.fixture
def bus(ram):
    return MmioBus(Log(), ram.ranges)


@pytest.fixture
def shadow(ram, bus):
    return ShadowMemory(ram, bus, ROM)


def write(ram, bus, address, data):
    """As a processor does: by the kind of range."""
    kind = ram.ranges.find(address).kind
    if kind is RangeKind.RAM:
        ram.write(address, data)
    elif kind is RangeKind.SHADOW:
        bus.write(address, len(data), int.from_bytes(data, "little"))


def test_segments_cover_the_area():
    assert SEGMENTS[0][0] == START and SEGMENTS[-1][1] == END
    assert all(first[1] == second[0] for first, second in itertools.pairwise(SEGMENTS))


def test_rom_and_what_nobody_answers(ram, bus, shadow):
    shadow.set_modes(ALL_ROM)
    assert ram.read(0xFFFFC, 8) == b"rom!\0\0\0\0"
    assert ram.read(0xDFFFE, 4) == b"\xff\xffro"
    write(ram, bus, 0xE0000, b"new!")
    assert ram.read(0xE0000, 4) == b"rom!"
    with pytest.raises(OutOfRange):
        ram.write(0xC0000, b"x")


def test_each_state_and_each_change_between_them(ram, bus, shadow):
    """A model of two memories says what must be read."""
    at, real = 0xF1000, {READ_RAM: b"\0\0\0\0", 0: b"rom!"}
    step = 0
    for before, after in itertools.product(range(4), repeat=2):
        for mode in (before, after):
            shadow.set_modes([*ALL_ROM[:-1], mode])
            assert ram.read(at, 4) == real[mode & READ_RAM]
            step += 1
            new = step.to_bytes(4, "little")
            write(ram, bus, at, new)
            if mode & WRITE_RAM:
                real[READ_RAM] = new
            assert ram.read(at, 4) == real[mode & READ_RAM]


def test_neighbours_of_a_kind_are_one_range(ram, shadow):
    shadow.set_modes([0, READ_RAM, WRITE_RAM, WRITE_RAM, *ALL_RAM[4:]])
    assert [(span.start, span.end, span.kind) for span in ram.ranges] == [
        (0, 0xC0000, RangeKind.RAM),
        (0xC0000, 0xC8000, RangeKind.ROM),
        (0xC8000, 0xD0000, RangeKind.SHADOW),
        (0xD0000, 2 << 20, RangeKind.RAM),
    ]
    shadow.set_modes(ALL_RAM)
    assert [(span.start, span.end) for span in ram.ranges] == [(0, 2 << 20)]


def test_what_is_read_and_modified_is_the_rom(ram, bus, shadow):
    shadow.set_modes([WRITE_RAM] * len(SEGMENTS))
    bus.write(0xE0001, 2, 0x5678)
    assert bus.read(0xE0000, 4) == int.from_bytes(b"rom!", "little")
    shadow.set_modes(ALL_RAM)
    assert ram.read(0xE0000, 4) == b"\0\x78\x56\0"


def test_a_rom_that_is_too_large(ram, bus):
    with pytest.raises(ValueError, match="doesn't fit"):
        ShadowMemory(ram, bus, bytes(END - START + 1))
