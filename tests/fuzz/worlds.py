"""The modes that random programs start in: a processor state and the first 256 KiB of memory each.

They are those of the system tests (tests/cpu/system_setup.py), and legacy paging in two formats. Not here: what is then
made random (target.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pyemu.cpu import mode, tlb
from pyemu.cpu.cpuid import configure
from pyemu.cpu.features import IMPLEMENTED
from pyemu.cpu.state import CR0, CR3, CR4, FPR
from tests.cpu import system_setup as setup

PAGE_DIRECTORY, PDPT_PAE, PD_PAE = 0x14000, 0x15000, 0x16000
TABLES = (setup.PML4, 0x17000)  # from, to: all paging structures
SPACE = setup.RAM_SIZE  # of memory that programs find around them
CODE = setup.CODE
HANDLERS = (setup.HANDLERS, setup.CODE)  # 256 of 16 bytes
FILLERS = ((setup.GATE_TARGET, 0x8000), (0xE000, 0x10000), (0x18000, SPACE))  # memory without a meaning: more code


@dataclass(frozen=True)
class World:
    """One mode to start in."""

    name: str
    bits: int
    words: bytes  # State before FPR
    memory: bytes


def _world(name: str, bits: int, make: Callable[[], setup.Machine], paging: int = 0) -> World:
    m = make()
    s = m.s
    if paging:
        m.put(PAGE_DIRECTORY, "II", 0x87, 0x400087)
        m.put(PDPT_PAE, "4Q", *(PD_PAE | 1,) * 4)
        m.put(PD_PAE, "QQ", 0x87, 0x200087)
        s[CR4] |= 0x10 if paging == 2 else 0x30
        s[CR3] = PAGE_DIRECTORY if paging == 2 else PDPT_PAE
        s[CR0] |= 0x80010000
    configure(s, announced=IMPLEMENTED - {"rdrand", "rdseed"})  # two back ends would see different numbers
    s[CR4] |= 0x600
    tlb.flush_all(s)
    mode.update(s)
    return World(name, bits, bytes(memoryview(s).cast("B")[: 8 * FPR]), m.ram.raw[:SPACE])


def all_worlds() -> list[World]:
    """Every mode, the ones that most guests live in more than once."""
    return [
        _world("real", 16, setup.real),
        _world("protected", 32, setup.protected),
        _world("protected, user", 32, setup.protected_user),
        _world("protected, 32-bit paging", 32, setup.protected, 2),
        _world("protected, PAE, user", 32, setup.protected_user, 3),
        _world("virtual 8086", 16, setup.v86),
        _world("compatibility", 32, setup.compatibility),
        _world("compatibility, user", 32, setup.compatibility_user),
        _world("64-bit", 64, setup.long),
        _world("64-bit, user", 64, setup.long_user),
        _world("64-bit again", 64, setup.long),
        _world("64-bit, user, again", 64, setup.long_user),
    ]


__all__ = ["CODE", "FILLERS", "HANDLERS", "SPACE", "TABLES", "World", "all_worlds"]
