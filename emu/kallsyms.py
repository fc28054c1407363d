"""The symbol table that a running Linux kernel carries in its memory (scripts/kallsyms.c in the kernel's sources).

The kernel keeps its symbols compressed: names are sequences of tokens from a table of 256 strings, addresses are
offsets from a base that the kernel itself relocates, so that KASLR needs no further care. The tables are found by what
they look like, as nothing in memory points to them that one could find without them:

    token_table, token_index    256 strings end to end, and the offset of each
    markers                     before the token table, in some versions with another table between them: offset in
                                names of every 256th symbol
    num_syms, names             before the markers: each name is a length and that many tokens
    offsets, relative_base      before num_syms up to Linux 6.3, after token_index from 6.4 on

Kernels with absolute addresses (before 4.6) are not supported. Loaded modules have symbol tables of their own, which
are not read.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

_TOKENS = 256
_GROUP = 256  # symbols from one marker to the next
# Symbols' names use digits, so each digit is a token of its own. Other tables have all characters end to end, but a
# kernel's names have no colons.
_DIGITS = re.compile(b"".join(bytes((digit, 0)) for digit in b"0123456789") + rb"(?!:\0)")
_MOST_SYMBOLS = 1 << 20
_LONGEST_GROUP = _GROUP * 256  # bytes of names
_TOKEN_LIMIT = 0x8000  # bytes of the token table
_MARKERS_WITHIN = 4 << 20  # bytes before the token table
_CANDIDATES = 64  # places that look like a token table, of which all but one are accidents


@dataclass(frozen=True)
class KernelSymbol:
    """`kind` is nm's letter."""

    address: int
    kind: str
    name: str


def find(memory: Sequence[memoryview]) -> list[KernelSymbol]:
    """The symbols of the kernel in one of these pieces of physical memory; empty if there is none."""
    for piece in memory:
        for at in _candidates(piece):
            tables = _Tables(piece)
            if tables.find_tokens(at) and (found := tables.symbols()):
                return found
    return []


def _candidates(piece: memoryview) -> Iterator[int]:
    return islice((match.start() for match in _DIGITS.finditer(piece)), _CANDIDATES)


class _Tables:
    """One attempt at making sense of what lies around a possible token table."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._tokens: list[bytes] = []
        self._start = self._end = 0  # of token table and token index together

    def _unpack(self, letter: str, at: int, count: int) -> list[int]:
        """Numbers of one format; none where the memory ends before them."""
        data = self._memory[at : at + count * struct.calcsize(letter)]
        whole = at >= 0 and len(data) == count * struct.calcsize(letter)
        return list(struct.unpack(f"<{count}{letter}", data)) if whole else []

    def _u32(self, at: int) -> int:
        return int.from_bytes(self._memory[at : at + 4], "little")

    def find_tokens(self, digits: int) -> bool:
        """Token table and index around the token `0`."""
        data = bytes(self._memory[digits : digits + _TOKEN_LIMIT])
        end = 0
        for _ in range(_TOKENS - ord("0")):
            end = data.find(b"\0", end) + 1
            if not end:
                return False
        for align in (8, 4):
            index = -(-(digits + end) // align) * align
            offsets = self._unpack("H", index, _TOKENS)
            start = digits - offsets[ord("0")] if offsets else -1
            if start >= 0 and self._check_tokens(start, digits + end, offsets):
                self._start, self._end = start, index + 2 * _TOKENS
                return True
        return False

    def _check_tokens(self, start: int, end: int, offsets: list[int]) -> bool:
        strings = bytes(self._memory[start:end]).split(b"\0")[:-1]
        at = 0
        for string, offset in zip(strings, offsets, strict=False):
            if offset != at:
                return False
            at += len(string) + 1
        self._tokens = strings
        return len(strings) == _TOKENS

    def symbols(self) -> list[KernelSymbol]:
        """All symbols, or none if what surrounds the tokens isn't what it should be."""
        for markers, at in self._markers():
            for word in (8, 4):
                found = self._names(markers, at, word)
                if found is None:
                    continue
                names, count_at = found
                addresses = self._addresses(len(names), count_at, word)
                if addresses is not None:
                    pairs = zip(addresses, names, strict=True)
                    return [KernelSymbol(address, name[:1], name[1:]) for address, name in pairs]
        return []

    def _markers(self) -> Iterator[tuple[list[int], int]]:
        """Runs of numbers that could be the markers, nearest first, and where each begins: 0, and then rising."""
        start = max(self._start - _MARKERS_WITHIN, self._start & 3)
        words = self._unpack("I", start, (self._start - start) // 4)
        for first in range(len(words) - 2, -1, -1):
            if words[first] == 0 and _GROUP * 2 <= words[first + 1] <= _LONGEST_GROUP:
                end = first + 1
                while end < len(words) and _GROUP * 2 <= words[end] - words[end - 1] <= _LONGEST_GROUP:
                    end += 1
                yield words[first:end], start + 4 * first

    def _names(self, markers: list[int], end: int, word: int) -> tuple[list[str], int] | None:
        """The names, type letter first, and where their number stands."""
        last = len(markers) * _GROUP
        first_start = (end - markers[-1]) & ~(word - 1)
        for start in range(first_start, max(first_start - _LONGEST_GROUP, 0), -word):
            count = self._u32(start - word)
            if not last - _GROUP < count <= last:
                continue
            names = self._expand(start, end, count, markers)
            if names is not None:
                return names, start - word
        return None

    def _expand(self, start: int, end: int, count: int, markers: list[int]) -> list[str] | None:
        data, at, names = bytes(self._memory[start:end]), 0, []
        for number in range(count):
            if number % _GROUP == 0 and at != markers[number // _GROUP]:
                return None
            if at + 2 > len(data):
                return None
            length = data[at]
            at += 1
            if length & 0x80:  # since 6.1: a second byte for long names
                length = (length & 0x7F) | data[at] << 7
                at += 1
            if not length or at + length > len(data):
                return None
            names.append(b"".join(self._tokens[token] for token in data[at : at + length]).decode("latin-1"))
            at += length
        return names

    def _addresses(self, count: int, count_at: int, word: int) -> list[int] | None:
        size = -(-4 * count // word) * word
        older = count_at - word
        newer = -(-self._end // word) * word
        for offsets_at, base_at in ((older - size, older), (newer, newer + size)):
            offsets = self._unpack("i", offsets_at, count)
            base = int.from_bytes(self._memory[base_at : base_at + word], "little")
            if base >> (8 * word - 1) and offsets:
                addresses = _absolute(offsets, base, word)
                if _plausible(addresses):
                    return addresses
        return None


def _absolute(offsets: list[int], base: int, word: int) -> list[int]:
    """With per-CPU symbols (on x86-64), what isn't negative is absolute, and the others count down from the base."""
    top = (1 << 8 * word) - 1
    if sum(offset < 0 for offset in offsets) * 2 > len(offsets):
        return [offset if offset >= 0 else base - 1 - offset & top for offset in offsets]
    return [base + (offset & 0xFFFF_FFFF) & top for offset in offsets]


def _plausible(addresses: list[int]) -> bool:
    """They are sorted, but for the absolute ones at the start and few others."""
    falling = sum(a > b for a, b in pairwise(addresses))
    return falling <= len(addresses) // 100
