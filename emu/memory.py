"""Guest RAM and the table of physical ranges.

Guest RAM is private anonymous memory in one reservation of host address space: guest physical address `a` lives
at `host_base + a`, so generated code reaches it with one addition. The PCI hole below 4 GiB is part of the
reservation but never accessible. What a physical address *means* (RAM, ROM, MMIO) is said only by the flat table
of ranges kept here; dispatch of accesses that aren't RAM is in `bus`.
"""

from __future__ import annotations

import ctypes
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

PAGE_SIZE = 0x1000
# Below 4 GiB, RAM ends here at the latest: above lie ECAM, BARs, I/O APIC, HPET, local APIC and the BIOS ROM.
PCI_HOLE_START = 0xC000_0000
HIGH_RAM_START = 0x1_0000_0000
# More than this is refused; the processor's physical addresses (cpu.physical) would allow 1 TiB, hole included.
MAX_RAM = 256 << 30

# Linux <sys/mman.h>; the mmap module can't map without access rights, so libc is called directly.
_PROT_NONE = 0
_PROT_READ_WRITE = 1 | 2
_MAP_PRIVATE = 0x02
_MAP_FIXED = 0x10
_MAP_ANONYMOUS = 0x20
_MAP_NORESERVE = 0x4000
_MAP_FAILED = ctypes.c_void_p(-1).value
_MADV_NOHUGEPAGE = 15
_MADV_DONTNEED = 4


class NoMemory(Exception):
    """Guest memory could not be provided (message is fit for the user)."""


class OutOfRange(ValueError):
    """An access by loader, device or debugger that isn't wholly inside RAM or ROM."""


class RangeKind(Enum):
    RAM = "ram"
    ROM = "rom"  # reads come from memory, writes are dropped
    SHADOW = "shadow"  # reads come from memory, writes go to a device (see `shadow`)
    MMIO = "mmio"


@dataclass(frozen=True, slots=True)
class PhysicalRange:
    """Guest physical addresses `start` up to (not including) `end`."""

    start: int
    end: int
    kind: RangeKind
    name: str

    @property
    def size(self) -> int:
        return self.end - self.start


class RangeTable:
    """Sorted, non-overlapping ranges; everything between them is unclaimed."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ranges: list[PhysicalRange] = []

    def __iter__(self) -> Iterator[PhysicalRange]:
        return iter(self._ranges)

    def add(self, new: PhysicalRange) -> None:
        if new.start < 0 or new.end <= new.start:
            raise ValueError(f"empty physical range {new}")
        at = bisect_right(self._starts, new.start)
        if (at and self._ranges[at - 1].end > new.start) or (at < len(self._ranges) and self._starts[at] < new.end):
            raise ValueError(f"physical range {new.name} {new.start:#x}-{new.end - 1:#x} overlaps another")
        self._starts.insert(at, new.start)
        self._ranges.insert(at, new)

    def remove(self, start: int) -> PhysicalRange:
        at = bisect_right(self._starts, start) - 1
        if at < 0 or self._starts[at] != start:
            raise KeyError(f"no physical range starts at {start:#x}")
        del self._starts[at]
        return self._ranges.pop(at)

    def find(self, address: int) -> PhysicalRange | None:
        at = bisect_right(self._starts, address) - 1
        if at < 0:
            return None
        found = self._ranges[at]
        return found if address < found.end else None


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
    ]  # fmt: skip
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return libc


class GuestRam:
    """RAM (and ROM images) of one machine. Implements `pyemu.devices.interfaces.GuestMemory`.

    `read` and `write` are for loaders, DMA and the debugger: they check bounds strictly, and `write` is the gate
    that tells the accelerator (through `on_write`) which bytes are about to change behind its back.
    """

    def __init__(self, size: int) -> None:
        if size <= 0 or size % PAGE_SIZE:
            raise NoMemory(f"memory size {size} is not a positive multiple of {PAGE_SIZE} bytes")
        if size > MAX_RAM:
            raise NoMemory(f"memory size {size >> 20} MiB is more than the supported {MAX_RAM >> 30} GiB")
        self.installed = size  # bytes of RAM
        self.low_end = min(size, PCI_HOLE_START)
        self.high_end = HIGH_RAM_START + (size - self.low_end) if size > self.low_end else 0
        self.size = self.high_end or self.low_end  # first address beyond all RAM
        self.reserved = max(HIGH_RAM_START, self.high_end)
        self.ranges = RangeTable()
        self.on_write: Callable[[int, int], None] | None = None
        self._libc = _libc()
        base = self._libc.mmap(None, self.reserved, _PROT_NONE, _MAP_PRIVATE | _MAP_ANONYMOUS | _MAP_NORESERVE, -1, 0)
        if base is None or base == _MAP_FAILED:
            raise NoMemory(f"the host can't reserve {self.reserved >> 20} MiB of address space for the guest")
        self.host_base: int = base
        # Accessible parts and writable parts, as (first guest address, end, host view).
        self._spans: list[tuple[int, int, memoryview]] = []
        self._writable: list[tuple[int, int, memoryview]] = []
        # By guest physical address, holes included: for the processor, which looks at the range table first.
        # Touching a hole through it is a host fault.
        self.whole = memoryview((ctypes.c_ubyte * self.reserved).from_address(base)).cast("B")
        self._add_ram(0, self.low_end, "ram")
        if self.high_end:
            self._add_ram(HIGH_RAM_START, self.high_end, "ram above 4 GiB")

    def _open(self, start: int, end: int) -> memoryview:
        """Make part of the reservation accessible; give a byte view of it."""
        address = self.host_base + start
        if self._libc.mprotect(address, end - start, _PROT_READ_WRITE):
            error = ctypes.get_errno()
            self.close()
            raise NoMemory(f"the host refused {(end - start) >> 20} MiB of guest memory (errno {error})")
        # Transparent huge pages make the first touch of guest memory slower (the kernel clears 2 MiB at a time).
        self._libc.madvise(address, end - start, _MADV_NOHUGEPAGE)
        return memoryview((ctypes.c_ubyte * (end - start)).from_address(address)).cast("B")

    def _add_ram(self, start: int, end: int, name: str) -> None:
        view = self._open(start, end)
        self._spans.append((start, end, view))
        self._writable.append((start, end, view))
        self.ranges.add(PhysicalRange(start, end, RangeKind.RAM, name))

    def add_rom(self, start: int, data: bytes, name: str) -> None:
        """Map a ROM image in the hole below 4 GiB. It too is at `host_base + start`; nobody writes it."""
        size = -(-len(data) // PAGE_SIZE) * PAGE_SIZE
        end = start + size
        if not data or start % PAGE_SIZE or start < PCI_HOLE_START or end > HIGH_RAM_START:
            raise OutOfRange(f"ROM {name} of {len(data)} bytes doesn't fit at {start:#x}")
        view = self._open(start, end)
        self._spans.append((start, end, view))
        self.ranges.add(PhysicalRange(start, end, RangeKind.ROM, name))
        view[: len(data)] = data

    def set_low(self, start: int, end: int, pieces: Sequence[tuple[int, int, RangeKind]]) -> None:
        """Make a part of the RAM below 4 GiB RAM or ROM piece by piece, ascending; what lies between isn't claimed."""
        for old in [span for span in self.ranges if span.end <= self.low_end]:
            self.ranges.remove(old.start)
        merged: list[tuple[int, int, RangeKind]] = []
        for piece in ((0, start, RangeKind.RAM), *pieces, (end, self.low_end, RangeKind.RAM)):
            if merged and merged[-1][1] == piece[0] and merged[-1][2] is piece[2]:
                merged[-1] = (merged[-1][0], piece[1], piece[2])
            elif piece[0] < piece[1]:
                merged.append(piece)
        self._writable = [span for span in self._writable if span[0] >= self.low_end]
        for first, last, kind in merged:
            self.ranges.add(PhysicalRange(first, last, kind, kind.value))
            if kind is RangeKind.RAM:
                self._writable.append((first, last, self.whole[first:last]))

    def pieces(self) -> list[memoryview]:
        """All memory, piece by piece. Valid until `close`."""
        return [view.toreadonly() for _, _, view in self._spans]

    def is_ram(self, address: int, length: int = 1) -> bool:
        end = address + length
        return any(first <= address and end <= last for first, last, _ in self._writable)

    def is_memory(self, address: int, length: int) -> bool:
        """Whether all of it is RAM or ROM."""
        return any(first <= address and address + length <= end for first, end, _ in self._spans)

    def _span(self, spans: list[tuple[int, int, memoryview]], address: int, length: int) -> tuple[memoryview, int]:
        if length >= 0:
            for first, end, view in spans:
                if first <= address and address + length <= end:
                    return view, address - first
        raise OutOfRange(f"{length} bytes at {address:#x} are not guest memory")

    def read(self, address: int, length: int) -> bytes:
        view, at = self._span(self._spans, address, length)
        return bytes(view[at : at + length])

    def view(self, address: int, length: int) -> memoryview:
        """Read-only view, for devices that would otherwise copy. Valid until `close`."""
        view, at = self._span(self._spans, address, length)
        return view[at : at + length].toreadonly()

    def write(self, address: int, data: bytes) -> None:
        length = len(data)
        view, at = self._span(self._writable, address, length)
        self.touch(address, length)
        view[at : at + length] = data

    def touch(self, address: int, length: int) -> None:
        """Say that bytes of RAM are about to change by other means than `write`."""
        if self.on_write is not None and length:
            self.on_write(address, length)

    def map_file(self, descriptor: int, offset: int, start: int, end: int) -> None:
        """Let a part of RAM begin with a file's contents, privately: writes don't reach the file. The processor stands
        still, and whoever knows what was there must be told."""
        flags = _MAP_PRIVATE | _MAP_FIXED
        address = self.host_base + start
        found = self._libc.mmap(address, end - start, _PROT_READ_WRITE, flags, descriptor, offset)
        if found != address:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def clear(self) -> None:
        """All RAM reads as zero again (power cycle); gives the pages back to the host."""
        for start, end, _ in self._writable:
            self.touch(start, end - start)
            self._libc.madvise(self.host_base + start, end - start, _MADV_DONTNEED)

    def close(self) -> None:
        """Give the memory back. Views and generated code must no longer be used."""
        if self.host_base:
            self._spans.clear()
            self._writable.clear()
            self._libc.munmap(self.host_base, self.reserved)
            self.host_base = 0
