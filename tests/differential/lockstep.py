"""Runs one guest on several back ends in instruction-counted mode and compares their states at equal counts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from pyemu import Machine
from pyemu.check import difference_of_states
from pyemu.cpu.state import ICOUNT
from pyemu.until import Instructions


@contextmanager
def machines(backends: list[str], **options: object) -> Iterator[list[Machine]]:
    """One machine a back end, all alike otherwise: counted time, fixed wall clock, the same random numbers."""
    from pyemu.config import Icount

    with ExitStack() as stack:
        same: dict[str, Any] = {"icount": Icount(shift=4), "wall_start_ns": 10**18, "seed": 1, **options}
        yield [stack.enter_context(Machine(accelerator=name, **same)) for name in backends]


def compare(group: list[Machine], step: int, steps: int) -> int:
    """Advance all by `step` instructions, `steps` times or until they end; returns the instructions compared."""
    first = group[0]
    for number in range(1, steps + 1):
        stops = [m.run(until=Instructions(number * step - m.state[ICOUNT]), timeout=60) for m in group]
        counts = [m.state[ICOUNT] for m in group]
        assert len(set(counts)) == 1, f"after {number} steps the back ends have executed {counts} instructions"
        for other in group[1:]:
            found = difference_of_states(first.state, other.state)
            assert not found, f"at instruction {counts[0]}: {found[:12]}"
            if number % 50 == 0 or stops[0].kind.name != "CONDITION":
                assert first.memory.read(0, 1 << 20) == other.memory.read(0, 1 << 20)
        if first.loop.final is not None:
            assert all(m.loop.final is not None for m in group)
            return counts[0]
    return first.state[ICOUNT]


__all__ = ["compare", "machines"]
