"""Everything that reaches the guest from outside and isn't the same in the next run: host time, wall time, random
bytes, bytes typed at a console.

It all passes through one `Outside` object, so recording a run means recording this object's answers, and replaying
it means giving them again. Nothing else in the machine may read a host clock on the guest's behalf.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from random import Random


class Outside:
    """The live host; with a seed, random bytes are the same in each run."""

    def __init__(self, seed: int | None = None) -> None:
        self._random = None if seed is None else Random(seed)

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def wall_ns(self) -> int:
        """Nanoseconds since 1970, UTC."""
        return time.time_ns()

    def random_bytes(self, length: int) -> bytes:
        return os.urandom(length) if self._random is None else self._random.randbytes(length)

    def input(self, source: str, data: bytes, deliver: Callable[[bytes], None]) -> None:
        """Bytes from the host for the guest's device behind `source` (called with the device lock held)."""
        deliver(data)
