"""Names for addresses: from ELF files, System.map, and the table in a running Linux kernel's memory.

    machine.symbols.load("vmlinux")             an ELF file, System.map, or a copy of /proc/kallsyms
    machine.symbols.from_kallsyms()             what the guest's kernel itself knows (`kallsyms`)
    machine.symbols.address("start_kernel")     -> 0xffffffff82f..., or None
    machine.symbols.lookup(0xffffffff81000012)  -> Location("startup_64", 0x12), or None

A kernel that KASLR has moved is followed: where a file knows `entry_SYSCALL_64`, what IA32_LSTAR holds tells by how
much. Until the kernel has set it, early in its start, a file's addresses are taken as they are. Sources and lines come
from DWARF, in the file itself. PDB files are not read, nor the tables of loaded kernel modules.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyemu.cpu.state import LSTAR, M64, State
from pyemu.firmware.files import open_regular

if TYPE_CHECKING:
    from pyemu.lines import LineTable

_FARTHEST = 1 << 20  # bytes behind a symbol that are still called by its name
_SLIDE_UNIT = 0x20_0000  # KASLR moves a kernel by multiples of this (CONFIG_PHYSICAL_ALIGN)
_ENTRY = "entry_SYSCALL_64"
_ELF_MAGIC = b"\x7fELF"
_KNOWN = "known: ELF, System.map, copies of /proc/kallsyms"
_BEGIN = 4096  # bytes of a file that show whether it is text
_MAP_LINE = re.compile(r"([0-9a-fA-F]{1,16}) ([a-zA-Z?-]) (\S+)(?:\s+\[(\S+)\])?")
_ABSOLUTE = "aA"
_MARKERS = re.compile(r"\$|\.L|__UNIQUE_ID_|__pfx_|__kstrtab|__ksymtab|__kstrtabns")  # names that explain nothing


class SymbolError(Exception):
    """A file without usable symbols; the message is one line for the user."""


@dataclass(frozen=True)
class Location:
    """An address by its symbol: `name`, and how far behind it."""

    name: str
    offset: int

    def __str__(self) -> str:
        return f"{self.name}+{self.offset:#x}" if self.offset else self.name


@dataclass(frozen=True)
class Symbol:
    """`size` is 0 where the source doesn't say; an `absolute` one is a number rather than a place."""

    name: str
    address: int
    size: int = 0
    absolute: bool = False
    is_global: bool = True


class _Table:
    """The symbols of one source, at the addresses that it gives."""

    def __init__(self, source: str, symbols: Iterable[Symbol], lines: LineTable | None = None) -> None:
        self.source = source
        self.lines = lines
        self.by_name: dict[str, int] = {}
        places: dict[int, Symbol] = {}
        for symbol in symbols:
            if symbol.is_global or symbol.name not in self.by_name:
                self.by_name[symbol.name] = symbol.address
            if symbol.absolute or _MARKERS.match(symbol.name):
                continue
            other = places.get(symbol.address)
            if other is None or _rank(symbol) > _rank(other):
                places[symbol.address] = symbol
        self._places = sorted(places.values(), key=lambda symbol: symbol.address)
        self._addresses = [symbol.address for symbol in self._places]
        self.entry = self.by_name.get(_ENTRY)

    def lookup(self, address: int) -> Location | None:
        at = bisect_right(self._addresses, address) - 1
        if at < 0:
            return None
        symbol = self._places[at]
        offset = address - symbol.address
        is_last = at + 1 == len(self._places)
        if offset >= _FARTHEST or (is_last and symbol.size and offset >= symbol.size):
            return None
        return Location(symbol.name, offset)


def _rank(symbol: Symbol) -> tuple[bool, bool, bool]:
    """Which of several names of an address is shown: functions and objects before labels, global before local."""
    return symbol.size > 0, symbol.is_global, not symbol.name.startswith("_")


class Symbols:
    """All that is known about one machine's addresses."""

    def __init__(self, state: State, memory: Callable[[], Sequence[memoryview]]) -> None:
        """`memory` gives the pieces of guest RAM."""
        self._state = state
        self._memory = memory
        self._files: list[_Table] = []
        self._kernel: _Table | None = None

    def __bool__(self) -> bool:
        return bool(self._files) or self._kernel is not None

    # ---- where they come from ------------------------------------------------------------------------------

    def load(self, path: str) -> int:
        """Add a file's symbols; gives their number."""
        try:
            with open_regular(path) as file:
                begin = file.read(_BEGIN)
            is_elf = begin.startswith(_ELF_MAGIC)
            if b"\0" in begin and not is_elf:
                raise SymbolError(f"'{path}' has no symbols ({_KNOWN})")
            table = _read_elf(path) if is_elf else _Table(path, _read_map(path))
        except OSError as error:
            raise SymbolError(f"can't read symbols from '{path}': {error.strerror}") from error
        if not table.by_name:
            raise SymbolError(f"'{path}' has no symbols ({_KNOWN})")
        self._files = [known for known in self._files if known.source != path] + [table]
        return len(table.by_name)

    def from_kallsyms(self) -> int:
        """Read the table of the Linux kernel in the guest's memory; gives the number of symbols."""
        from pyemu import kallsyms

        found = kallsyms.find(self._memory())
        if not found:
            raise SymbolError("no Linux kernel's symbol table (kallsyms) is in the guest's memory")
        symbols = (Symbol(s.name, s.address, 0, s.kind in _ABSOLUTE, s.kind.isupper()) for s in found)
        self._kernel = _Table("kallsyms", symbols)
        return len(self._kernel.by_name)

    def sources(self) -> list[str]:
        """Where the symbols are from, with the distance by which a file's kernel was moved."""
        lines = []
        for table, slide in self._tables():
            moved = f", moved by {slide:#x}" if slide else ""
            lines.append(f"{table.source}: {len(table.by_name)} symbols{moved}")
        return lines

    def _tables(self) -> Iterator[tuple[_Table, int]]:
        """Latest first, and what to add to each one's addresses."""
        for table in reversed(self._files):
            yield table, self._slide(table)
        if self._kernel is not None:
            yield self._kernel, 0

    def _slide(self, table: _Table) -> int:
        entry = self._state[LSTAR]
        if table.entry is None or not entry:
            return 0
        distance = entry - table.entry & M64
        return distance if distance % _SLIDE_UNIT == 0 else 0

    # ---- both ways ---------------------------------------------------------------------------------------------

    def address(self, name: str) -> int | None:
        """Where a symbol is."""
        for table, slide in self._tables():
            if name in table.by_name:
                return table.by_name[name] + slide & M64
        return None

    def lookup(self, address: int) -> Location | None:
        """The symbol at or before an address."""
        for table, slide in self._tables():
            if (found := table.lookup(address - slide & M64)) is not None:
                return found
        return None

    def line(self, address: int) -> str | None:
        """`file.c:123`, where a file has DWARF line numbers."""
        for table, slide in self._tables():
            if table.lines is not None and (found := table.lines.lookup(address - slide & M64)) is not None:
                return found
        return None

    def describe(self, address: int) -> str:
        """`<name+0x12>`, or nothing."""
        found = self.lookup(address)
        return f"<{found}>" if found is not None else ""

    def save(self, path: str) -> int:
        """Write all of them into an ELF file, for gdb and others; gives their number."""
        from pyemu.symbol_file import elf

        everything: dict[str, int] = {}
        for table, slide in self._tables():
            everything = {name: address + slide & M64 for name, address in table.by_name.items()} | everything
        if not everything:
            raise SymbolError("there are no symbols to save")
        try:
            with open(path, "wb") as file:
                file.write(elf(everything))
        except OSError as error:
            raise SymbolError(f"can't write symbols to '{path}': {error.strerror}") from error
        return len(everything)

    def starting_with(self, prefix: str, limit: int = 200) -> list[str]:
        """Names for completion."""
        names: set[str] = set()
        for table, _ in self._tables():
            names.update(name for name in table.by_name if name.startswith(prefix))
        return sorted(names)[:limit]


def _read_map(path: str) -> Iterator[Symbol]:
    """Lines `address letter name`, as nm, System.map and /proc/kallsyms have them."""
    with open(path, encoding="utf-8", errors="replace") as file:
        matches = [match for line in file if (match := _MAP_LINE.match(line)) is not None]
    # Per-CPU symbols of a 64-bit kernel are offsets, and so far down there is nothing else of one.
    low = 1 << 63 if any(int(match[1], 16) >> 63 for match in matches) else 0
    for match in matches:
        address, kind = int(match[1], 16), match[2]
        absolute = kind in _ABSOLUTE or address < low
        yield Symbol(match[3], address, 0, absolute, kind.isupper() and match[4] is None)


def _read_elf(path: str) -> _Table:
    from pyemu import elf_symbols

    try:
        symbols, lines = elf_symbols.read(path)
    except elf_symbols.BadElf as error:
        raise SymbolError(f"can't read symbols from '{path}': {error}") from error
    return _Table(path, symbols, lines)
