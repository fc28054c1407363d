"""Looking at guest memory as the guest sees it, without changing anything: no accessed bits, no TLB, no faults.

For the monitor, traces and the Python API. The processor's own page walk is in `pyemu.cpu.paging`.
"""

from __future__ import annotations

from collections.abc import Callable

from pyemu.cpu.mode import CR4_LA57, is_canonical
from pyemu.cpu.state import CR0, CR3, CR4, EFER, PDPTE, State
from pyemu.memory import GuestRam, OutOfRange

_CR0_PG = 1 << 31
_CR4_PSE = 1 << 4
_CR4_PAE = 1 << 5
_EFER_LMA = 1 << 10
_PRESENT = 1
_LARGE = 1 << 7
_ADDRESS = ((1 << 52) - 1) & ~0xFFF


def translate(s: State, ram: GuestRam, linear: int) -> int | None:
    """Physical address of a linear one under the present page tables; None if not mapped."""
    if not s[CR0] & _CR0_PG:
        return linear & 0xFFFF_FFFF
    try:
        if s[EFER] & _EFER_LMA:
            if not is_canonical(s, linear):
                return None
            return _walk(ram, s[CR3] & _ADDRESS, linear, 5 if s[CR4] & CR4_LA57 else 4)
        linear &= 0xFFFF_FFFF
        if s[CR4] & _CR4_PAE:
            pointer = s[PDPTE + (linear >> 30)]
            return _walk(ram, pointer & _ADDRESS, linear, 2) if pointer & _PRESENT else None
        return _walk32(s, ram, linear)
    except OutOfRange:
        return None


def _entry(ram: GuestRam, address: int, size: int) -> int:
    return int.from_bytes(ram.read(address, size), "little")


def _walk(ram: GuestRam, table: int, linear: int, level: int) -> int | None:
    while True:
        shift = 9 * level  # of the index, times 8
        entry = _entry(ram, table + ((linear >> shift) & 0xFF8), 8)
        if not entry & _PRESENT:
            return None
        if level == 1 or (level < 4 and entry & _LARGE):
            inside = (1 << (shift + 3)) - 1
            return (entry & _ADDRESS & ~inside) | (linear & inside)
        table = entry & _ADDRESS
        level -= 1


def _walk32(s: State, ram: GuestRam, linear: int) -> int | None:
    entry = _entry(ram, (s[CR3] & 0xFFFF_F000) + 4 * (linear >> 22), 4)
    if not entry & _PRESENT:
        return None
    if entry & _LARGE and s[CR4] & _CR4_PSE:
        return (entry & 0xFFC0_0000) | (entry >> 13 & 0xFF) << 32 | (linear & 0x3F_FFFF)
    entry = _entry(ram, (entry & 0xFFFF_F000) + 4 * (linear >> 12 & 0x3FF), 4)
    return (entry & 0xFFFF_F000) | (linear & 0xFFF) if entry & _PRESENT else None


def read_virtual(s: State, ram: GuestRam, linear: int, length: int) -> bytes:
    """Bytes at a linear address; OutOfRange where it isn't mapped to memory."""
    if length < 0:
        raise OutOfRange(f"{length} bytes at {linear:#x} are not memory")
    data = bytearray()
    while length > 0:
        piece = min(length, 0x1000 - (linear & 0xFFF))
        physical = translate(s, ram, linear)
        if physical is None:
            raise OutOfRange(f"{linear:#x} is not mapped")
        data += ram.read(physical, piece)
        linear = (linear + piece) & 0xFFFF_FFFF_FFFF_FFFF
        length -= piece
    return bytes(data)


def write_virtual(s: State, ram: GuestRam, linear: int, data: bytes, write: Callable[[int, bytes], None]) -> None:
    """Change memory at a linear address, whatever the guest's page tables say about writing; `write` takes physical
    addresses."""
    at = 0
    while at < len(data):
        piece = min(len(data) - at, 0x1000 - (linear & 0xFFF))
        physical = translate(s, ram, linear)
        if physical is None:
            raise OutOfRange(f"{linear:#x} is not mapped")
        write(physical, data[at : at + piece])
        linear = (linear + piece) & 0xFFFF_FFFF_FFFF_FFFF
        at += piece
