"""Dispatch of ports and MMIO: splitting, unclaimed accesses, claims."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyemu.bus import MmioBus, PortBus
from pyemu.log import Log
from pyemu.memory import RangeTable


class Recorder:
    """A device whose byte at offset n reads as n + 1; remembers accesses."""

    def __init__(self):
        self.seen = []

    def port_read(self, offset, size):
        self.seen.append(("r", offset, size))
        return int.from_bytes(bytes((offset + i + 1) & 0xFF for i in range(size)), "little")

    def port_write(self, offset, size, value):
        self.seen.append(("w", offset, size, value))

    mmio_read = port_read
    mmio_write = port_write


@pytest.fixture
def ports():
    return PortBus(Log())


@pytest.fixture
def mmio():
    return MmioBus(Log(), RangeTable())


def test_ports_reach_the_device_with_offsets(ports):
    device = Recorder()
    ports.claim(0x3F8, 8, device)
    assert ports.read(0x3FD, 1) == 6
    ports.write(0x3FA, 1, 0xAB)
    assert device.seen == [("r", 5, 1), ("w", 2, 1, 0xAB)]


def test_wide_access_of_a_narrow_device_is_split_lowest_first(ports):
    device = Recorder()
    ports.claim(0x40, 4, device)
    assert ports.read(0x40, 4) == 0x04030201
    ports.write(0x40, 2, 0xBBAA)
    assert device.seen[-2:] == [("w", 0, 1, 0xAA), ("w", 1, 1, 0xBB)]


def test_access_over_the_end_meets_the_neighbour(ports):
    low, high = Recorder(), Recorder()
    ports.claim(0x10, 1, low, widest=4)
    ports.claim(0x11, 1, high, widest=4)
    assert ports.read(0x10, 2) == 0x0101
    assert ports.read(0x11, 2) == 0xFF01  # the second byte is nobody's


@pytest.mark.parametrize(("size", "ones"), [(1, 0xFF), (2, 0xFFFF), (4, 0xFFFFFFFF)])
def test_unclaimed_ports_float(ports, size, ones):
    assert ports.read(0x1234, size) == ones
    ports.write(0x1234, size, 0)
    assert ports.read(0xFFFF, size) == ones  # wraps at the end of port space


def test_values_are_cut_to_the_access(ports):
    device = Recorder()
    device.port_read = lambda offset, size: 0x1_2345_6789
    ports.claim(0, 4, device, widest=4)
    assert ports.read(0, 1) == 0x89
    ports.write(0, 1, 0x1FF)
    assert device.seen == [("w", 0, 1, 0xFF)]


def test_ports_are_claimed_once(ports):
    ports.claim(0x60, 1, Recorder(), name="first")
    with pytest.raises(ValueError, match="first"):
        ports.claim(0x5E, 4, Recorder(), name="second")
    ports.release(0x60)
    ports.claim(0x5E, 4, Recorder())
    with pytest.raises(KeyError):
        ports.release(0x60)


@pytest.mark.parametrize(("base", "count"), [(-1, 1), (0, 0), (0xFFFF, 2)])
def test_impossible_ports(ports, base, count):
    with pytest.raises(ValueError):
        ports.claim(base, count, Recorder())


def test_mmio_finds_the_right_device(mmio):
    a, b = Recorder(), Recorder()
    mmio.claim(0xFEC00000, 0x1000, a, name="a")
    mmio.claim(0xFEE00000, 0x1000, b, name="b")
    mmio.read(0xFEC00010, 4)
    mmio.write(0xFEE000B0, 4, 0)
    assert a.seen == [("r", 0x10, 4)]
    assert b.seen == [("w", 0xB0, 4, 0)]
    assert mmio.name(0xFEE00FFF) == "b"
    assert mmio.name(0xFEE01000) == "unclaimed"


def test_mmio_splits_what_is_too_wide_or_misaligned(mmio):
    device = Recorder()
    mmio.claim(0x1000, 0x100, device, widest=4)
    assert mmio.read(0x1000, 8) == 0x0807060504030201
    assert device.seen == [("r", 0, 4), ("r", 4, 4)]
    device.seen.clear()
    assert mmio.read(0x1002, 4) == 0x06050403
    assert device.seen == [("r", 2, 2), ("r", 4, 2)]


def test_narrow_reads_of_a_wide_register_are_cut_out(mmio):
    device = Recorder()
    mmio.claim(0x1000, 0x100, device, narrowest=4, widest=4)
    assert mmio.read(0x1006, 1) == 7
    assert device.seen == [("r", 4, 4)]
    device.seen.clear()
    mmio.write(0x1006, 1, 5)  # merging could have side effects: dropped
    assert device.seen == []


def test_mmio_release_and_overlap(mmio):
    device = Recorder()
    mmio.claim(0x1000, 0x1000, device)
    assert mmio.read(0x1000, 1) == 1
    with pytest.raises(ValueError):
        mmio.claim(0x1800, 0x1000, Recorder())
    mmio.release(0x1000)
    assert mmio.read(0x1000, 1) == 0xFF
    assert device.seen == [("r", 0, 1)]


@given(st.integers(0xFF0, 0x1120), st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4, 8]))
def test_any_read_is_bytewise_right(address, size, widest):
    """However an access is split, the bytes are the device's, or ones where nobody is."""
    mmio = MmioBus(Log(), RangeTable())
    mmio.claim(0x1000, 0x100, Recorder(), widest=widest)
    data = mmio.read(address, size).to_bytes(size, "little")
    for i, byte in enumerate(data):
        offset = address + i - 0x1000
        assert byte == ((offset + 1) & 0xFF if 0 <= offset < 0x100 else 0xFF)


def test_log_of_unclaimed_accesses(capsys):
    ports = PortBus(Log(frozenset({"unimp"})))
    for _ in range(1200):
        ports.read(0x99, 1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "unclaimed port read 0x0099 size 1"
    assert len(lines) == 1001  # a guest can't fill the disk with it
    assert "no longer shown" in lines[-1]
