"""QEMU's pc-testdev: storage behind ports and memory, and interrupt lines."""

from __future__ import annotations

from pyemu.devices.pc_testdev import LINES, FlushPort, LinePorts, Storage
from tests.devices.helpers import RecordingLine


def test_storage_reads_as_it_was_written() -> None:
    storage = Storage(4)
    storage.port_write(0, 4, 0x44332211)
    storage.port_write(1, 1, 0xAA)
    assert storage.port_read(0, 4) == 0x4433AA11
    assert storage.port_read(2, 2) == 0x4433
    storage.reset()
    assert storage.mmio_read(1, 1) == 0xAA


def test_storage_ignores_what_is_beyond_it() -> None:
    storage = Storage(4)
    storage.mmio_write(2, 8, 0xFFFF_FFFF_FFFF_FFFF)
    assert storage.port_read(0, 4) == 0xFFFF0000
    assert len(storage.state.data) == 4


def test_lines() -> None:
    lines = [RecordingLine() for _ in range(LINES)]
    ports = LinePorts(lines)
    ports.port_write(11, 1, 5)
    assert [line.level for line in lines] == [n == 11 for n in range(LINES)]
    ports.port_write(11, 1, 0)
    assert not lines[11].level
    assert ports.port_read(0, 1) == 0xFF


def test_flush_does_nothing() -> None:
    FlushPort().port_write(0, 4, 0x1000)
    assert FlushPort().port_read(0, 4) == 0xFFFF_FFFF
