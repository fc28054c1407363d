"""Runs one guest on several back ends in instruction-counted mode and compares their states at equal counts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from pyemu import Machine
from pyemu.cpu import flags
from pyemu.cpu.state import ICOUNT, LAYOUT, State
from pyemu.until import Instructions

# What belongs to a back end, to the host, or to nobody between two instructions.
PRIVATE = {
    "cc_dst", "cc_src", "flags", "tmp", "value", "exit_request", "icount_limit", "jit", "stats", "ram_base",
    "host_calls", "page_flags", "record", "fetch_rip", "fetch_phys", "fetch_phys2", "fetch_fault", "walk_phys",
    "walk_rights", "frame", "fault_error", "fault_cr2", "fault_dr6", "exit_reason", "exit_info", "tlb",
    "tlb_misses", "tlb_log", "tlb_log_count", "large_low", "large_high", "local_high_code", "x87_operand", "x87_result",
    "stepping", "aligned_clean",
}  # fmt: skip


def difference(a: State, b: State) -> list[str]:
    """What the guest could tell apart, as readable lines."""
    lines = []
    if flags.eflags(a) != flags.eflags(b):
        lines.append(f"rflags: {flags.eflags(a):#x} {flags.eflags(b):#x}")
    for name, field in LAYOUT.items():
        if name in PRIVATE:
            continue
        for k in range(field.index, field.index + field.count):
            if a[k] != b[k]:
                lines.append(f"{name}[{k - field.index}]: {a[k]:#x} {b[k]:#x}")
    return lines


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
            found = difference(first.state, other.state)
            assert not found, f"at instruction {counts[0]}: {found[:12]}"
            if number % 50 == 0 or stops[0].kind.name != "CONDITION":
                assert first.memory.read(0, 1 << 20) == other.memory.read(0, 1 << 20)
        if first.loop.final is not None:
            assert all(m.loop.final is not None for m in group)
            return counts[0]
    return first.state[ICOUNT]


__all__ = ["compare", "difference", "machines"]
