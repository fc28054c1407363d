"""Coverage: which blocks of code were executed, which jumps between them; recorded by native code.

    coverage = machine.coverage()
    machine.run(...)
    coverage.save_drcov("boot.drcov")     # for lighthouse, bncov and others

A block is recorded when it is executed for the first time, which is always from the native loop: that costs next to
nothing. It is a straight run of instructions, cut at page ends; one that an exception leaves counts as a whole. Edges
are counted as AFL does, in a map of 64 KiB that translated code increments, by numbers that are hashes of addresses.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from pyemu.config import ConfigError, OutputError
from pyemu.cpu.state import State
from pyemu.jit import layout as ly

_ENTRIES = 1 << 16
_WINDOW = 1 << 32  # offsets in a drcov file have 32 bits
_MOST_BYTES = 0xFFFF  # and sizes 16


@dataclass(frozen=True)
class Block:
    """A block at a linear address, first executed in the address space that CR3 told."""

    address: int
    size: int
    cr3: int


@dataclass(frozen=True)
class Module:
    """A piece of the address space under a name, for export."""

    name: str
    start: int
    end: int


class Translator(Protocol):
    """The accelerators that can record: those that keep translated blocks."""

    def flush(self) -> None: ...


class Coverage:
    """A recording, from when it is made until `stop`."""

    def __init__(
        self, s: State, accelerator: object, exclusive: Callable[[Callable[[], None]], None], edges: bool
    ) -> None:
        flush = getattr(accelerator, "flush", None)
        mode = getattr(accelerator, "mode", None)
        if flush is None:
            raise ConfigError("coverage needs -accel jit or interp")
        if edges and mode != "jit":
            raise ConfigError("coverage of edges needs -accel jit")
        if s[ly.COVERAGE_NEXT]:
            raise ConfigError("coverage is being recorded already")
        self._s, self._flush, self._exclusive = s, flush, exclusive
        self._buffer = (ctypes.c_uint64 * (_ENTRIES * ly.COVERAGE_ENTRY // 8))()
        self._map = (ctypes.c_uint8 * ly.EDGE_MAP_SIZE)() if edges else None
        self._blocks: set[Block] = set()
        exclusive(self._start)

    def _start(self) -> None:
        """Between two instructions: what is translated already would not be recorded."""
        s = self._s
        s[ly.COVERAGE_NEXT] = ctypes.addressof(self._buffer)
        s[ly.COVERAGE_END] = ctypes.addressof(self._buffer) + ctypes.sizeof(self._buffer)
        s[ly.EDGE_MAP] = ctypes.addressof(self._map) if self._map is not None else 0
        s[ly.EDGE_LAST] = 0
        self._flush()

    def drain(self) -> None:
        """Take the entries out of the buffer. Between two instructions, or on the vCPU's thread."""
        s, start = self._s, ctypes.addressof(self._buffer)
        if not s[ly.COVERAGE_NEXT]:
            return
        data = bytes(self._buffer)[: s[ly.COVERAGE_NEXT] - start]
        self._blocks.update(Block(*entry) for entry in struct.iter_unpack("<3Q", data))
        s[ly.COVERAGE_NEXT] = start

    @property
    def blocks(self) -> frozenset[Block]:
        """What was executed so far."""
        self._exclusive(self.drain)
        return frozenset(self._blocks)

    @property
    def edges(self) -> bytes:
        """The map of edges: counters of one byte, which never go back to 0."""
        if self._map is None:
            raise ConfigError("edges are not being counted: coverage(edges=True)")
        return bytes(self._map)

    def reset(self) -> None:
        """Begin anew."""

        def again() -> None:
            self.drain()
            self._blocks.clear()
            if self._map is not None:
                ctypes.memset(self._map, 0, ctypes.sizeof(self._map))
            self._start()

        self._exclusive(again)

    def stop(self) -> None:
        """Record no more; what was recorded stays."""

        def end() -> None:
            self.drain()
            s = self._s
            s[ly.COVERAGE_NEXT] = s[ly.COVERAGE_END] = s[ly.EDGE_MAP] = 0
            self._flush()

        if self._s[ly.COVERAGE_NEXT]:
            self._exclusive(end)

    def save_drcov(self, path: str, modules: Iterable[Module] = ()) -> int:
        """Write the blocks in DynamoRIO's format, version 2; gives their number. Those outside the modules given are in
        modules of 4 GiB."""
        known = list(modules)
        table: list[bytes] = []
        for block in sorted(self.blocks, key=lambda b: (b.address, b.size)):
            number = next((n for n, m in enumerate(known) if m.start <= block.address < m.end), None)
            if number is None:
                start = block.address & ~(_WINDOW - 1)
                number = len(known)
                known.append(Module(f"memory-{start:#x}", start, start + _WINDOW))
            offset = block.address - known[number].start
            table.append(struct.pack("<IHH", offset, min(block.size, _MOST_BYTES), number))
        table = list(dict.fromkeys(table))  # the same code in several address spaces
        lines = ["DRCOV VERSION: 2", "DRCOV FLAVOR: pyemu", f"Module Table: version 2, count {len(known)}"]
        lines.append("Columns: id, base, end, entry, checksum, timestamp, path")
        for n, m in enumerate(known):
            lines.append(f"{n:3}, {m.start:#018x}, {m.end:#018x}, 0x0000000000000000, 0x00000000, 0x00000000, {m.name}")
        lines.append(f"BB Table: {len(table)} bbs")
        try:
            with open(path, "wb") as file:
                file.write("\n".join(lines).encode() + b"\n" + b"".join(table))
        except OSError as error:
            raise OutputError(f"can't write coverage to '{path}': {error.strerror or error}") from error
        return len(table)
