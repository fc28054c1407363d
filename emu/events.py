"""The part of `Machine` that tells what happens to it: stops, resets, the end. The names are those of QMP.

A listener is called on whichever thread makes it happen, perhaps with the device lock held: it must not wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pyemu.part import Part
from pyemu.until import A_LOOK, RESUMABLE, Stop, StopKind

if TYPE_CHECKING:
    from pyemu.runloop import RunLoop

Listener = Callable[[str, dict[str, Any]], None]
_REASONS = {
    StopKind.POWER_OFF: (True, "guest-shutdown"),
    StopKind.DEBUG_EXIT: (True, "guest-shutdown"),
    StopKind.RESET: (True, "guest-reset"),
    StopKind.TRIPLE_FAULT: (True, "guest-reset"),
    StopKind.UNIMPLEMENTED: (False, "host-error"),
    StopKind.FAILURE: (False, "host-error"),
    StopKind.HANGUP: (False, "host-signal"),
    StopKind.QUIT: (False, "host-qmp-quit"),
}


class Events(Part):
    """Mixed into `Machine`."""

    loop: RunLoop

    def __init__(self) -> None:
        self.listeners: list[Listener] = []
        self.stop_listeners: list[Callable[[Stop], None]] = []  # told of every stop, on the vCPU's thread
        self.has_run = False
        self._quiet = 0  # pauses that are nobody's business
        self._shutdown_told = False
        self._host_resets = False

    def tell(self, name: str, **data: Any) -> None:
        """Tell all listeners."""
        for listener in self.listeners:
            listener(name, data)

    def tell_stop(self, stop: Stop) -> None:
        """The vCPU stands."""
        if stop.kind in RESUMABLE and stop.message != A_LOOK:
            self.tell("STOP")
        for listener in self.stop_listeners:
            listener(stop)

    def tell_shutdown(self, stop: Stop) -> None:
        """The machine is over: told once."""
        if not self._shutdown_told:
            self._shutdown_told = True
            guest, reason = _REASONS.get(stop.kind, (False, "none"))
            self.tell("SHUTDOWN", guest=guest, reason="host-signal" if stop.status > 128 else reason)

    def tell_reset(self) -> None:
        by_host, self._host_resets = self._host_resets, False
        self.tell("RESET", guest=not by_host, reason="host-qmp-system-reset" if by_host else "guest-reset")

    def _resume_loop(self) -> None:
        if self.loop.final is None and self.loop.parked and not self._quiet:
            self.has_run = True
            self.tell("RESUME")
        self.loop.resume()

    @contextmanager
    def unannounced(self) -> Iterator[None]:
        """Nobody is told of what stops and goes on in here."""
        self._quiet += 1
        try:
            yield
        finally:
            self._quiet -= 1

    @contextmanager
    def standing(self) -> Iterator[None]:
        """The processor stands still for as long as the block lasts, without anybody being told."""
        machine = self._machine
        was_running = machine.running
        with self.unannounced():
            try:
                if was_running:
                    machine.pause(A_LOOK)
                yield
            finally:
                if was_running and self.loop.final is None:
                    machine.resume()
