"""Everything that reaches the guest from outside and isn't the same in the next run: host time, wall time, random
bytes, bytes typed at a console.

It all passes through one `Outside` object, so recording a run means recording this object's answers, and replaying
it means giving them again. Nothing else in the machine may read a host clock on the guest's behalf.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyemu.history import History


class Outside:
    """The live host; with a seed, random bytes are the same in each run."""

    def __init__(self, seed: int | None = None) -> None:
        self._seed = seed
        self.drawn = 0  # random blocks given so far: belongs to a snapshot
        self.sources: dict[str, Callable[[str], object]] = {}
        self.history: History | None = None
        self.schedule: Callable[[Callable[[], None]], None] = lambda work: work()

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def wall_ns(self) -> int:
        """Nanoseconds since 1970, UTC."""
        return time.time_ns()

    def random_bytes(self, length: int) -> bytes:
        if self._seed is None:
            return os.urandom(length)
        self.drawn += 1
        block = hashlib.shake_128(f"{self._seed} {self.drawn}".encode())
        return block.digest(length)

    def source(self, name: str, receive: Callable[[str], object]) -> None:
        """Say who in the machine takes what comes from a source; it takes plain text."""
        self.sources[name] = receive

    def at_boundary(self, work: Callable[[], None]) -> None:
        """Do `work`, which may deliver(), at a moment that a recording can name. Device lock held."""
        if self.history is None:
            work()
        elif not self.history.replaying:
            self.schedule(work)

    def seen(self) -> bool:
        """The guest repeats its past: what it does now has been shown."""
        return self.history is not None and self.history.seen()

    def deliver(self, name: str, data: str) -> object:
        """Something from outside for the guest, in work that at_boundary() does; gives what the receiver gives."""
        if self.history is not None:
            self.history.note(name, data)
        return self.sources[name](data)
