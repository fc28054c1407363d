"""Guest physical memory: what lies at an address, and the one gate for writes that bypass the inline fast path.

The machine describes its memory in State[RANGES] as sorted (start, end, kind) triples; what no range covers is MMIO.
RAM and ROM live at host address State[RAM_BASE] + physical address. A byte for each page says what a first write must
do. Mechanism subset.
"""

from __future__ import annotations

from pyemu.cpu.primitives import (
    before_write,
    mmio_read,
    mmio_write,
    ram8,
    ram16,
    ram32,
    ram64,
    set_ram8,
    set_ram16,
    set_ram32,
    set_ram64,
)
from pyemu.cpu.state import RANGE_COUNT, RANGES, State

MMIO, RAM, ROM = 0, 1, 2
SHADOW = 3  # reads come from memory as with ROM, writes go to the machine as with MMIO
PHYSICAL_BITS = 40
PHYSICAL_MASK = (1 << PHYSICAL_BITS) - 1


def kind(s: State, address: int) -> int:
    """MMIO, RAM, ROM or SHADOW at a physical address."""
    for i in range(0, s[RANGE_COUNT] * 3, 3):
        if address < s[RANGES + i]:
            return MMIO
        if address < s[RANGES + i + 1]:
            return s[RANGES + i + 2]
    return MMIO


def ram_read(s: State, address: int, size: int) -> int:
    """1, 2, 4 or 8 bytes of RAM or ROM."""
    if size == 8:
        return ram64(s, address)
    if size == 4:
        return ram32(s, address)
    if size == 1:
        return ram8(s, address)
    return ram16(s, address)


def ram_write(s: State, address: int, size: int, value: int) -> int:
    """Store 1, 2, 4 or 8 bytes of RAM that is known to be plain."""
    if size == 8:
        return set_ram64(s, address, value)
    if size == 4:
        return set_ram32(s, address, value)
    if size == 1:
        return set_ram8(s, address, value)
    return set_ram16(s, address, value)


def read(s: State, address: int, size: int) -> int:
    """Read 1, 2, 4 or 8 bytes that do not cross a page, from wherever they are."""
    if kind(s, address) == MMIO:
        return mmio_read(s, address, size)
    return ram_read(s, address, size)


def write(s: State, address: int, size: int, value: int) -> int:
    """Write 1, 2, 4 or 8 bytes that do not cross a page; ROM ignores it."""
    where = kind(s, address)
    if where == RAM:
        before_write(s, address, size)
        return ram_write(s, address, size, value)
    if where == MMIO or where == SHADOW:
        return mmio_write(s, address, size, value)
    return 0


def writable(s: State, address: int, length: int) -> int:
    """Call before changing `length` bytes of RAM within one page by other means."""
    return before_write(s, address, length)
