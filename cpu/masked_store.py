"""MASKMOVQ and MASKMOVDQU: stores of selected bytes (mechanism)."""

from __future__ import annotations

from pyemu.cpu import memory
from pyemu.cpu.state import M64, State


def store_bytes(s: State, linear: int, count: int, low: int, high: int, mask: int) -> int:
    """Write byte n of high:low to linear + n where bit n of `mask` is set; all `count` bytes must be writable."""
    if memory.probe_aligned(s, linear, count, 8, memory.WRITE):
        return 1
    for n in range(count):
        if (mask >> n) & 1:
            data = low if n < 8 else high
            if memory.write(s, (linear + n) & M64, 1, (data >> (8 * (n & 7))) & 0xFF, memory.WRITE):
                return 1
    return 0
