"""QEMU's pc-testdev: ports and memory that hold what is written, and a port for each interrupt line.

Processor test suites use it to raise interrupts and to have accesses to devices emulated. QEMU's source is its only
documentation: I/O ports 0xe0 (any width) and 0xe8 (byte by byte) share four bytes of storage, 0xe4 takes a page to be
flushed, 0x2000 + n sets interrupt line n, and 64 KiB at 0xff000000 are memory. The machine places them; here
are the parts, each with its own offsets.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pyemu.devices.device import ALL_ONES, Device
from pyemu.devices.interfaces import IrqLine

STORAGE_PORT, FLUSH_PORT, BYTES_PORT, LINES_PORT = 0xE0, 0xE4, 0xE8, 0x2000
STORAGE_PORTS, FLUSH_PORTS, LINES = 4, 4, 24
MEMORY_BASE, MEMORY_SIZE = 0xFF00_0000, 0x1_0000


@dataclass(slots=True)
class StorageState:
    data: bytearray = field(default_factory=bytearray)


class Storage(Device):
    """Bytes behind I/O ports or in an MMIO window, which read as they were written."""

    state: StorageState

    def __init__(self, size: int) -> None:
        self.state = StorageState(bytearray(size))

    def reset(self) -> None:
        """A reset doesn't reach it."""

    def port_read(self, offset: int, size: int) -> int:
        return int.from_bytes(self.state.data[offset : offset + size], "little")

    def port_write(self, offset: int, size: int, value: int) -> None:
        end = min(offset + size, len(self.state.data))
        self.state.data[offset:end] = value.to_bytes(size, "little")[: end - offset]

    mmio_read = port_read
    mmio_write = port_write


class FlushPort:
    """A page that is flushed here changes nothing that a guest can see."""

    def port_read(self, offset: int, size: int) -> int:
        return ALL_ONES[size]

    def port_write(self, offset: int, size: int, value: int) -> None:
        return


class LinePorts:
    """Port n raises (any value but 0) or lowers (0) interrupt line n."""

    def __init__(self, lines: Sequence[IrqLine]) -> None:
        self._set: list[Callable[[bool], None]] = [line.set for line in lines]

    def port_read(self, offset: int, size: int) -> int:
        return ALL_ONES[size]

    def port_write(self, offset: int, size: int, value: int) -> None:
        self._set[offset](value & 0xFF != 0)
