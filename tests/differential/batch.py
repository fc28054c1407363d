"""Batches of test cases in memory that native code reaches: instructions, the states before them, the results after.

A batch holds up to BATCH records of RECORD bytes, states of the same instruction side by side; a judge's results lie
the same way. Not here: how records are filled (driver.py, generator.py) and what they mean (case.py).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from tests.differential import case as c
from tests.differential.case import Case

BATCH = 2048  # records


class Records:
    """BATCH records, at a fixed address."""

    def __init__(self, address: int = 0) -> None:
        self._own = None if address else (ctypes.c_char * (BATCH * c.RECORD))()
        self.address = address or ctypes.addressof(self._own)  # type: ignore[arg-type]

    def row(self, n: int, size: int = c.R_END) -> bytes:
        """Record `n`."""
        return ctypes.string_at(self.address + n * c.RECORD, size)

    def put(self, n: int, record: bytes) -> None:
        """Set record `n`."""
        ctypes.memmove(self.address + n * c.RECORD, record, len(record))


class Batch:
    """Instructions in their slots, and `count` states of them one after another."""

    def __init__(self, codes: Sequence[tuple[int, bytes]], bits: int, given: Records, count: int, each: int) -> None:
        """`codes` are slots and their bytes; record n belongs to the instruction n // each."""
        self.codes, self.bits, self.given, self.count, self.each = codes, bits, given, count, each

    @classmethod
    def of(cls, cases: Sequence[Case]) -> Batch:
        """One of given cases."""
        given = Records()
        for n, case in enumerate(cases):
            given.put(n, case.given)
        return cls([(case.slot, case.code) for case in cases], cases[0].bits, given, len(cases), 1)

    def case(self, n: int) -> Case:
        """Case `n`."""
        slot, code = self.codes[n // self.each]
        return Case(code, self.bits, slot, self.given.row(n, c.RECORD))

    def image(self) -> bytes:
        """The code pages."""
        image = bytearray(_FILLED)
        for slot, code in self.codes:
            image[c.SLOT * slot : c.SLOT * slot + len(code)] = code
        return bytes(image)


_FILLED = bytes([c.FILL]) * c.CODE_SIZE
