"""What the long runs have done so far, kept over runs: seeds, counts and rates, and hashes of all that was generated.

Each long run has a file of one line a seed, and one of the hashes, in build/long/ (PYEMU_LONG is another folder). A run
goes on with the first seed that is not in it, and says the totals, so that hours can be spent piece by piece. Distinct
ones are counted exactly, up to collisions of 64-bit hashes. A line names the sources that it was made with.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
from array import array
from pathlib import Path

from tests.differential import driver

ROOT = Path(__file__).resolve().parents[2]


def folder() -> Path:
    """Where progress is kept."""
    path = Path(os.environ.get("PYEMU_LONG") or ROOT / "build" / "long")
    path.mkdir(parents=True, exist_ok=True)
    return path


def sources() -> str:
    """The commit that is tested."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


class Distinct:
    """Counts distinct 64-bit hashes: a table in native memory that grows."""

    def __init__(self) -> None:
        self.count = 0
        self._make(1 << 20)

    def _make(self, size: int) -> None:
        self.size, self.table = size, (ctypes.c_uint64 * size)()

    def add(self, hashes: array[int]) -> int:
        """How many of them are new."""
        while self.count + len(hashes) > self.size // 2:
            old, size = self.table, self.size
            self._make(4 * size)
            self._insert(ctypes.addressof(old), size)
        at, count = hashes.buffer_info()
        new = self._insert(at, count)
        self.count += new
        return new

    def _insert(self, hashes: int, count: int) -> int:
        return driver.call("insert", ctypes.addressof(self.table), self.size - 1, hashes, count)


class Progress:
    """The records of one long run."""

    def __init__(self, name: str) -> None:
        self.lines, self.hashes = folder() / f"{name}.jsonl", folder() / f"{name}.hashes"
        self.records: list[dict[str, int | str]] = []
        self.distinct = Distinct()
        self.sources = sources()
        if self.lines.exists():
            self.records = [json.loads(line) for line in self.lines.read_text().splitlines()]
        if self.hashes.exists():
            known = array("Q")
            known.frombytes(self.hashes.read_bytes())
            self.distinct.add(known)

    def next_seed(self, first: int) -> int:
        """The first seed from `first` on that is not done."""
        done = {record["seed"] for record in self.records}
        while first in done:
            first += 1
        return first

    def total(self, field: str) -> int:
        """The sum of a field over all records."""
        return sum(int(record.get(field, 0)) for record in self.records)

    def less(self, field: str, count: int, distinct: int) -> bool:
        """Whether there is more to do."""
        return self.total(field) < count or self.distinct.count < distinct

    def add(self, record: dict[str, int | str], hashes: array[int]) -> str:
        """Keep what a seed has done; returns a line with the totals of all numbers."""
        new = self.distinct.add(hashes)
        record |= {"new": new, "sources": self.sources}
        with self.hashes.open("ab") as file:
            file.write(hashes.tobytes())
        with self.lines.open("a") as file:
            file.write(json.dumps(record) + "\n")
        self.records.append(record)
        fields = [name for name, value in record.items() if isinstance(value, int) and name not in ("seed", "new")]
        totals = ", ".join(f"{self.total(name)} {name}" for name in fields)
        return f"seed {record['seed']} ({self.sources}); all seeds: {totals}, {self.distinct.count} distinct"
