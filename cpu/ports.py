"""I/O instructions: who may use a port (SDM 1, 19.5), and the access itself (mechanism).

check_port(s, port, size)          #GP(0) unless IOPL or the task's I/O permission bitmap allows it
port_in(s, port, size) -> VALUE    port_out(s, port, size, value)       both check
"""

from __future__ import annotations

from pyemu.cpu import debug, memory
from pyemu.cpu.faults import GP, raise_fault
from pyemu.cpu.flags import VM
from pyemu.cpu.primitives import port_read, port_write
from pyemu.cpu.state import CPL, FLAGS, M64, TR_ATTR, TR_BASE, TR_LIMIT, VALUE, WATCH_PORTS, State

TSS_TYPE, TSS_AVAILABLE, TSS_BUSY = 0x1F, 0x09, 0x0B  # S and type: 386 or 64-bit TSS (SDM 3, table 3-2)
BITMAP_OFFSET = 0x66  # word in the TSS: where the bitmap begins (SDM 3, 8.2.1)


def check_port(s: State, port: int, size: int) -> int:
    """0 if the ports may be used, else 1 with a fault raised."""
    if s[CPL] <= (s[FLAGS] >> 12) & 3 and s[FLAGS] & VM == 0:
        return 0
    kind = s[TR_ATTR] & TSS_TYPE
    if (kind != TSS_AVAILABLE and kind != TSS_BUSY) or s[TR_LIMIT] < BITMAP_OFFSET + 1:
        return raise_fault(s, GP, 0)
    if memory.read(s, (s[TR_BASE] + BITMAP_OFFSET) & M64, 2, memory.SYSTEM):
        return 1
    at = s[VALUE] + (port >> 3)
    if at + 1 > s[TR_LIMIT]:  # the processor always reads two bytes
        return raise_fault(s, GP, 0)
    if memory.read(s, (s[TR_BASE] + at) & M64, 2, memory.SYSTEM):
        return 1
    if (s[VALUE] >> (port & 7)) & ((1 << size) - 1):
        return raise_fault(s, GP, 0)
    return 0


def read(s: State, port: int, size: int) -> int:
    """The access of IN and INS."""
    value = port_read(s, port, size)
    if s[WATCH_PORTS]:
        debug.port_accessed(s, port, size)
    return value


def write(s: State, port: int, size: int, value: int) -> int:
    """The access of OUT and OUTS."""
    port_write(s, port, size, value)
    if s[WATCH_PORTS]:
        debug.port_accessed(s, port, size)
    return 0


def port_in(s: State, port: int, size: int) -> int:
    """IN."""
    if check_port(s, port, size):
        return 1
    s[VALUE] = read(s, port, size)
    return 0


def port_out(s: State, port: int, size: int, value: int) -> int:
    """OUT."""
    if check_port(s, port, size):
        return 1
    return write(s, port, size, value)
