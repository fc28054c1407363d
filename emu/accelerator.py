"""The back ends that run guest instructions, behind one interface, chosen by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from pyemu.cpu.host import Exit, Host
from pyemu.cpu.physical import RAM, ROM, SHADOW
from pyemu.cpu.state import LAYOUT, RAM_BASE, RANGE_COUNT, RANGES, State
from pyemu.memory import GuestRam, RangeKind

_KINDS = {RangeKind.RAM: RAM, RangeKind.ROM: ROM, RangeKind.SHADOW: SHADOW}


class Accelerator(Protocol):
    """Runs the vCPU whose state it was made with."""

    def run(self) -> Exit:
        """Execute until there is a reason to stop; the state is then architecturally complete."""

    def memory_changed(self) -> None:
        """Other memory is at some addresses now: forget what is known of it. Not while `run` runs."""

    def code_hooks_changed(self, spans: Iterable[tuple[int, int]]) -> None:
        """Code at these linear addresses (start, length) is hooked, or no longer (cpu/hooks.py). Likewise."""

    def watches_changed(self) -> None:
        """The watched ranges of memory are others. Likewise."""
    def state_replaced(self) -> None:
        """The registers are about to be others: forget where linear addresses lead. Not while `run` runs."""


def describe_memory(s: State, ram: GuestRam) -> None:
    """Write the table of physical ranges into the vCPU's state, where mechanism looks memory up."""
    spans = [(span.start, span.end, _KINDS[span.kind]) for span in ram.ranges if span.kind in _KINDS]
    if 3 * len(spans) > LAYOUT["ranges"].count:
        raise ValueError(f"{len(spans)} separate pieces of RAM and ROM are more than the processor's table holds")
    s[RAM_BASE] = ram.host_base
    s[RANGE_COUNT] = len(spans)
    for i, span in enumerate(spans):
        s[RANGES + 3 * i], s[RANGES + 3 * i + 1], s[RANGES + 3 * i + 2] = span
    s.ram = ram.whole


def make_accelerator(name: str, s: State, host: Host, ram: GuestRam) -> Accelerator:
    """`jit`, `interp` or `reference`. Imported here: each pulls in much that the others don't need."""
    s.host = host
    describe_memory(s, ram)
    if name == "reference":
        from pyemu.cpu.reference import Reference

        reference = Reference(s, host, ram.whole)
        ram.on_write = reference.written
        return reference
    from pyemu.jit.engine import Engine

    engine = Engine(s, host, ram.whole, mode=name)
    ram.on_write = engine.written
    return engine
