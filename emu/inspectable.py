"""The part of `Machine` for people: explanations, backtraces, the monitor's breakpoints, what is logged."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from pyemu.cpu.state import ICOUNT, M64, State
from pyemu.log import Log
from pyemu.part import Part
from pyemu.symbols import Symbols

if TYPE_CHECKING:
    from pyemu.backtrace import Frame
    from pyemu.coverage import Coverage
    from pyemu.execution_trace import Trace
    from pyemu.explanation import Explanation
    from pyemu.hostcpu import HostCpu
    from pyemu.monitor_break import Stopper
    from pyemu.runloop import RunLoop
    from pyemu.trace import Tracer


class Inspectable(Part):
    """Mixed into `Machine`."""

    symbols: Symbols
    log: Log
    loop: RunLoop
    host: HostCpu
    _tracer: Tracer
    state: State
    _lock: threading.RLock

    def __init__(self) -> None:
        self.stoppers: dict[int, Stopper] = {}  # breakpoints of the monitor, by number
        self.next_stopper = 1

    def explain(self, what: str | int = "$rip") -> Explanation:
        """In words: the instruction at an address, `address 0x...`, `selector 8`, `gate 14`, `tss`, `fault`, `time`.

        Only while the machine is stopped. `print` it, or take `as_dict()`; a notebook shows it as HTML.
        """
        from pyemu.explain import explain

        return explain(self._machine, what)

    def backtrace(self) -> list[Frame]:
        """Who called whom, innermost first; each frame says how it was found. Only while the machine is stopped."""
        from pyemu.backtrace import backtrace

        return backtrace(self._machine)

    def coverage(self, edges: bool = False) -> Coverage:
        """Record from now on which blocks are executed, and which jumps between them if `edges`."""
        from pyemu.coverage import Coverage

        self._machine.prepare()
        recording = Coverage(self.state, self._machine.accelerator, self.loop.exclusive, edges)
        self.host.on_coverage_full = recording.drain
        return recording

    def trace(self, path: str, begin: int = 0, end: int = M64 + 1, memory: bool = True) -> Trace:
        """Write each instruction from now on, at linear addresses from `begin` to `end`, into an SQLite file."""
        from pyemu.execution_trace import Trace

        return Trace(self._machine, path, begin, end, memory)

    def set_log_items(self, items: frozenset[str]) -> None:
        """What `-d` asks for, while the machine is stopped."""
        self.log.items = items
        self.loop.before_step = self._tracer.before_step if self._tracer.wanted else None
        self.host.on_interrupt = self._log_interrupt if items else None

    def _log_interrupt(self, vector: int) -> None:
        self.log.write("int", f"interrupt {vector:#04x} delivered at icount {self.state[ICOUNT]}")
