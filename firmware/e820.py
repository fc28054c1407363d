"""The memory map, and the placement of everything that a loader puts into RAM.

`ram_ranges` says where RAM is, `memory_map` what the guest is told, and `Layout` keeps loaders honest:
each byte range is checked against RAM and against what is already placed, since addresses come from guest files.
"""

from __future__ import annotations

from pyemu.firmware.boot_image import BootError, E820Entry, E820Type
from pyemu.firmware.platform import Platform

MIB = 1 << 20
EBDA = 0x9FC00  # extended BIOS data area: the last KiB of conventional memory
BIOS_AREA = 0xE0000  # tables and BIOS stubs, up to 1 MiB
HIGH_MEMORY = 0x100000
HIGH_RAM = 1 << 32  # RAM that doesn't fit below the PCI hole goes here
LOW_MEMORY = 0x1000  # loaders put their structures between here ...
LOW_MEMORY_END = 0x98000  # ... and here: Linux uses the pages below the EBDA for its trampolines
MINIMUM_RAM = 2 * MIB


def ram_ranges(ram_size: int, platform: Platform) -> list[tuple[int, int]]:
    """Start and length of each block of RAM: below the PCI hole, and from 4 GiB on."""
    low = min(ram_size, platform.low_ram_limit)
    ranges = [(0, low)]
    if ram_size > low:
        ranges.append((HIGH_RAM, ram_size - low))
    return ranges


def memory_map(ram_size: int, platform: Platform) -> tuple[E820Entry, ...]:
    """What INT 15h/E820 of a PC would say."""
    low = min(ram_size, platform.low_ram_limit)
    entries = [
        E820Entry(0, EBDA, E820Type.RAM),
        E820Entry(EBDA, HIGH_MEMORY - EBDA, E820Type.RESERVED),
        E820Entry(HIGH_MEMORY, low - HIGH_MEMORY, E820Type.RAM),
    ]
    if platform.has_ecam:
        # Linux uses memory-mapped configuration space only if firmware reserved it here or in the DSDT.
        entries.append(E820Entry(platform.ecam_base, platform.ecam_buses * MIB, E820Type.RESERVED))
    if ram_size > low:
        entries.append(E820Entry(HIGH_RAM, ram_size - low, E820Type.RAM))
    return tuple(entries)


class Layout:
    """RAM being filled: refuses what lies outside RAM or on something else."""

    def __init__(self, ram_size: int, platform: Platform) -> None:
        self.ram_size = ram_size
        self.ranges = ram_ranges(ram_size, platform)
        self.segments: list[tuple[int, bytes]] = []
        self.zero: list[tuple[int, int]] = []
        self._claims: list[tuple[int, int, str]] = []  # start, end, what

    @property
    def low_ram_end(self) -> int:
        """First address behind the RAM below 4 GiB."""
        return self.ranges[0][1]

    def claim(self, address: int, size: int, what: str) -> None:
        """Reserve a range; BootError if it is not RAM or is taken."""
        end = address + size
        if not any(start <= address and end <= start + length for start, length in self.ranges):
            raise BootError(
                f"{what} needs memory at {address:#x}..{end:#x}, which -m {self.ram_size // MIB}M does not provide"
            )
        for start, taken_end, owner in self._claims:
            if address < taken_end and start < end:
                raise BootError(f"{what} at {address:#x}..{end:#x} overlaps {owner} at {start:#x}..{taken_end:#x}")
        if size:
            self._claims.append((address, end, what))

    def place(self, address: int, data: bytes, what: str, size: int | None = None) -> None:
        """Put data at an address; `size` beyond its length is RAM that must read as zero."""
        total = len(data) if size is None else max(size, len(data))
        self.claim(address, total, what)
        if data:
            self.segments.append((address, data))
        if total > len(data):
            self.zero.append((address + len(data), total - len(data)))

    def find(self, size: int, what: str, low: int, high: int, align: int = 16, top: bool = False) -> int:
        """A free, aligned address for `size` bytes in low..high below 4 GiB, the lowest or the highest one."""
        high = min(high, self.low_ram_end)
        edges = sorted((start, end) for start, end, _ in self._claims)
        best = -1
        cursor = low
        for start, end in [*edges, (high, high)]:
            gap_end = min(start, high)
            address = (cursor + align - 1) // align * align
            if address + size <= gap_end:
                if not top:
                    return address
                best = max(best, (gap_end - size) // align * align)
            cursor = max(cursor, end)
        if best < 0:
            raise BootError(f"no room for {what} ({size} bytes) in -m {self.ram_size // MIB}M")
        return best

    def put_low(self, data: bytes, what: str, align: int = 16, size: int | None = None) -> int:
        """Place a boot structure anywhere in conventional memory; returns its address."""
        total = len(data) if size is None else max(size, len(data))
        address = self.find(total, what, LOW_MEMORY, LOW_MEMORY_END, align)
        self.place(address, data, what, size)
        return address
