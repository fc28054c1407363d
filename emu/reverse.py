"""Backwards: what `Machine` can do with its history.

Going back is going to a checkpoint before and running forward again. To find the last stop before the present moment,
the way from a checkpoint is run once, with everything that would stop the guest, and noted; then once more, up to it.
Who interrupts this (Ctrl-C) finds the guest somewhere on the way, in its past, from where it can go on or back. Only
one thread at a time travels.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from pyemu.hooks import Watchpoint
from pyemu.part import Part
from pyemu.snapshot_error import SnapshotError
from pyemu.until import A_LOOK, HOOKED, Instructions, Stop, StopKind

if TYPE_CHECKING:
    from pyemu.history import Checkpoint, History

_PATIENCE_S = 0.2  # how long an interrupt may go unheard


class Interrupted(SnapshotError):
    """Somebody didn't want to wait."""


class Reversible(Part):
    """Base of `Machine`. Raises SnapshotError where the machine keeps no history."""

    history: History | None
    _interrupt: threading.Event | None = None
    _progress: Callable[[str], None] | None = None
    _travels: threading.RLock

    @property
    def can_reverse(self) -> bool:
        return self.history is not None

    def _past(self) -> History:
        if self.history is None:
            raise SnapshotError("the machine keeps no history: start it with -record FILE, -replay FILE or -history")
        return self.history

    @contextmanager
    def interruptible(
        self, interrupt: threading.Event, progress: Callable[[str], None] | None = None
    ) -> Iterator[None]:
        """What goes back or forth in here ends early when another thread sets `interrupt`, and tells `progress` a few
        times a second how far it is."""
        with self._alone():
            before = self._interrupt, self._progress
            self._interrupt, self._progress = interrupt, progress
            try:
                yield
            finally:
                self._interrupt, self._progress = before

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._travels.acquire(blocking=False):
            raise SnapshotError("the machine is on a way through its past already; Ctrl-C there ends it")
        try:
            yield
        finally:
            self._travels.release()

    def goto(self, count: int) -> None:
        """Be where this many instructions have been executed, in the past or the future; nothing hooked stops it."""
        machine, past = self._machine, self._past()
        with self._alone(), machine.unannounced(), machine.hooks.suspended():
            machine.pause(A_LOOK)
            machine.loop.revive()
            if count < machine.instructions:
                self._go_back(past.before(count))
            self._forward(count)
        machine.hooks.here_is_passed()

    def reverse_step(self, count: int = 1) -> Stop:
        """Undo instructions."""
        first, target = self._first().snapshot.instructions, self._machine.instructions - count
        try:
            self.goto(max(first, target))
        except Interrupted:
            return self._announce(Stop(StopKind.PAUSED))
        if target < first:
            return self._announce(Stop(StopKind.HISTORY_END, message="the beginning of the history", event="begin"))
        return self._announce(Stop(StopKind.STEP))

    def reverse_continue(self) -> Stop:
        """Go back to the last moment at which a breakpoint or watchpoint would have stopped the guest, or to the
        beginning (then the stop is HISTORY_END)."""
        with self._alone(), self._machine.unannounced():
            try:
                stop = self._back_to_stop()
            except Interrupted:
                stop = Stop(StopKind.PAUSED)
        return self._announce(stop)

    def _announce(self, stop: Stop) -> Stop:
        if not self._machine._quiet:
            self._machine.tell_stop(stop)
        return stop

    def _back_to_stop(self) -> Stop:
        machine, past = self._machine, self._past()
        machine.pause(A_LOOK)
        machine.loop.revive()
        end = machine.instructions
        while True:
            start = past.before(max(end - 1, self._first().snapshot.instructions))
            with machine.hooks.suspended(keep=lambda hook: not hook.calls):
                found = self._last_stop_between(start, end)
            if found is not None:
                self.goto(found[0])
                return found[1]
            if start is self._first():
                self.goto(start.snapshot.instructions)
                return Stop(StopKind.HISTORY_END, message="the beginning of the history", event="begin")
            end = start.snapshot.instructions

    def last_write(self, address: int, length: int = 1) -> Stop:
        """Go back to where bytes at a linear address were last written, right behind the instruction that did it."""
        machine = self._machine
        watch = Watchpoint(machine.hooks, address, length, "w", None, None)
        with self._alone(), machine.hooks.suspended():
            machine.hooks.add(watch)
            try:
                return self.reverse_continue()
            finally:
                machine.hooks.remove(watch)

    def _first(self) -> Checkpoint:
        checkpoints = self._past().checkpoints
        if not checkpoints:
            raise SnapshotError("the machine has not run yet")
        return checkpoints[0]

    def _go_back(self, to: Checkpoint) -> None:
        with self._machine.stopped(), _whole():
            self._machine.loop.settle()
            self._past().go_back(to)
            self._machine.hooks.here_is_new()

    def _last_stop_between(self, start: Checkpoint, end: int) -> tuple[int, Stop] | None:
        """The last stop on the way from a checkpoint to (before) an instruction count."""
        machine = self._machine
        found: tuple[int, Stop] | None = None
        self._go_back(start)
        while machine.instructions < end:
            stop = self._run(end)
            if stop.kind not in HOOKED:
                if stop.kind is not StopKind.CONDITION:
                    raise SnapshotError(f"the way back ended: {stop.message or stop.kind.value}")
                break
            if machine.instructions < end:
                found = machine.instructions, stop
        return found

    def _forward(self, count: int) -> None:
        machine = self._machine
        while machine.instructions < count:
            stop = self._run(count)
            if stop.kind not in (StopKind.CONDITION, StopKind.HISTORY_END):
                raise SnapshotError(f"instruction {count} was not reached: {stop.message or stop.kind.value}")

    def _run(self, count: int) -> Stop:
        """Forward to an instruction count, or to what stops the guest before; raises Interrupted."""
        machine = self._machine
        while True:
            if self._interrupt is not None and self._interrupt.is_set():
                raise Interrupted(f"interrupted at instruction {machine.instructions}")
            if self._progress is not None:
                self._progress(f"at instruction {machine.instructions}, on the way to {count}")
            stop = machine.run(until=Instructions(count - machine.instructions), timeout=_PATIENCE_S)
            if stop.kind is StopKind.PAUSED and stop.message != A_LOOK:
                raise Interrupted(f"stopped at instruction {machine.instructions}")
            if stop.kind not in (StopKind.TIMEOUT, StopKind.PAUSED):
                return stop


@contextmanager
def _whole() -> Iterator[None]:
    """KeyboardInterrupt comes before or after what is done in here."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield
        return
    came: list[FrameType | None] = []
    before = signal.signal(signal.SIGINT, lambda _, frame: came.append(frame))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came and callable(before):
            before(signal.SIGINT, came[0])
