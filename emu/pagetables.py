"""The guest's page tables as a whole: every mapping in order, for `info tlb` and `info mem`.

One address at a time, and why, is in `explain_address`; the processor's own walk is in `pyemu.cpu.paging`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pyemu.cpu.mode import CR0_PG, CR4_LA57, EFER_LMA, EFER_NXE
from pyemu.cpu.paging import ADDRESS_MASK, CR4_PAE, CR4_PSE, NX, PS, RW, US, P
from pyemu.cpu.state import CR0, CR3, CR4, EFER, PDPTE, State
from pyemu.memory import GuestRam, OutOfRange

_FLAGS = ((8, "G"), (7, "P"), (6, "D"), (5, "A"), (4, "C"), (3, "T"), (2, "U"), (1, "W"))  # P: a large page


@dataclass(frozen=True)
class Mapping:
    """`size` bytes at `linear` lead to `physical`. `entry` is the leaf; `writable`, `user` and `executable` are what
    all levels together allow."""

    linear: int
    physical: int
    size: int
    entry: int
    writable: bool
    user: bool
    executable: bool

    @property
    def flags(self) -> str:
        """As QEMU's `info tlb` has them."""
        large = self.size > 0x1000
        letters = (letter if self.entry >> bit & 1 and (bit != 7 or large) else "-" for bit, letter in _FLAGS)
        return ("-" if self.executable else "X") + "".join(letters)


def mappings(s: State, ram: GuestRam) -> Iterator[Mapping]:
    """All of them, ascending; tables that lie outside RAM are passed over. There may be very many: the caller stops."""
    if not s[CR0] & CR0_PG:
        return
    if s[EFER] & EFER_LMA:
        levels = 5 if s[CR4] & CR4_LA57 else 4
        yield from _tables(ram, s[CR3] & ADDRESS_MASK, levels, 0, _Rights(bool(s[EFER] & EFER_NXE)), levels)
    elif s[CR4] & CR4_PAE:
        for index in range(4):
            if s[PDPTE + index] & P:
                rights = _Rights(bool(s[EFER] & EFER_NXE))
                yield from _tables(ram, s[PDPTE + index] & ADDRESS_MASK, 2, index << 30, rights, 0)
    else:
        yield from _tables32(s, ram)


@dataclass(frozen=True)
class _Rights:
    nx_counts: bool
    writable: bool = True
    user: bool = True
    executable: bool = True

    def below(self, entry: int) -> _Rights:
        return _Rights(
            self.nx_counts,
            self.writable and bool(entry & RW),
            self.user and bool(entry & US),
            self.executable and not (self.nx_counts and entry & NX),
        )


def _read(ram: GuestRam, table: int, size: int) -> list[int]:
    try:
        data = ram.read(table, 0x1000)
    except OutOfRange:
        return []
    return [int.from_bytes(data[at : at + size], "little") for at in range(0, 0x1000, size)]


def _tables(ram: GuestRam, table: int, level: int, base: int, rights: _Rights, top: int) -> Iterator[Mapping]:
    shift = 3 + 9 * level
    for index, entry in enumerate(_read(ram, table, 8)):
        if not entry & P:
            continue
        linear = base | index << shift
        if level == top and index >= 256:  # the upper half, sign-extended
            linear |= (1 << 64) - (1 << (shift + 9))
        below = rights.below(entry)
        if level == 1 or (entry & PS and level < 4):
            size = 1 << shift
            physical = entry & ADDRESS_MASK & ~(size - 1)
            yield Mapping(linear, physical, size, entry, below.writable, below.user, below.executable)
        else:
            yield from _tables(ram, entry & ADDRESS_MASK, level - 1, linear, below, top)


def _tables32(s: State, ram: GuestRam) -> Iterator[Mapping]:
    for index, directory in enumerate(_read(ram, s[CR3] & 0xFFFFF000, 4)):
        if not directory & P:
            continue
        linear, rights = index << 22, _Rights(False).below(directory)
        if directory & PS and s[CR4] & CR4_PSE:
            physical = (directory & 0xFFC00000) | (directory >> 13 & 0xFF) << 32
            yield Mapping(linear, physical, 1 << 22, directory, rights.writable, rights.user, True)
            continue
        for low, entry in enumerate(_read(ram, directory & 0xFFFFF000, 4)):
            if entry & P:
                both = rights.below(entry)
                yield Mapping(linear | low << 12, entry & 0xFFFFF000, 0x1000, entry, both.writable, both.user, True)
