"""What a person can do to a machine: press keys and buttons. It reaches the guest through `outside`, so that it can be
recorded; typing at a serial port goes the same way (`serialport`)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from pyemu.keys import parse as parse_keys
from pyemu.outside import Outside
from pyemu.part import Part
from pyemu.snapshot_error import SnapshotError

if TYPE_CHECKING:
    from pyemu.board import Board


class Controllable(Part):
    """Base of `Machine`. Raises SnapshotError while that replays its past."""

    board: Board
    outside: Outside
    _lock: threading.RLock
    _host_resets: bool

    def wire_controls(self) -> None:
        """Say what each of them does."""
        loop = self._machine.loop
        for source, receive in (
            ("keyboard", self._press),
            ("reset button", lambda _: loop.ask_reset() if loop.history is None else loop.reset()),
            ("power button", lambda _: self.board.press_power_button()),
            ("nmi button", lambda _: loop.raise_nmi()),
        ):
            self.outside.source(source, receive)

    def reset(self) -> None:
        """As if the reset button was pressed."""
        self._check_present("reset button")
        self._host_resets = True
        self._from_outside("reset button")

    def power_button(self) -> None:
        """As if the power button was pressed: the guest gets an ACPI event."""
        self._check_present("power button")
        self._machine.tell("POWERDOWN")
        self._from_outside("power button")

    def inject_nmi(self) -> None:
        """A non-maskable interrupt, as from a button."""
        self._from_outside("nmi button")

    def press(self, keys: str) -> None:
        """Press keys of the PS/2 keyboard together and let them go: `a`, `shift-a`, `ctrl-alt-delete` (see `keys`)."""
        parse_keys(keys)
        self._from_outside("keyboard", keys)

    def _press(self, keys: str) -> None:
        codes = parse_keys(keys)
        for code, extended in codes:
            self.board.i8042.key(code, True, extended)
        for code, extended in reversed(codes):
            self.board.i8042.key(code, False, extended)

    def _from_outside(self, source: str, data: str = "") -> None:
        """Something that a person does to the machine."""

        def deliver() -> None:
            self.outside.deliver(source, data)

        with self._lock:
            self._check_present(source)
            self.outside.at_boundary(deliver)

    def _check_present(self, source: str) -> None:
        """Raises SnapshotError in the past, where nothing can happen that didn't."""
        history = self.outside.history
        if history is not None and history.replaying:
            until = "" if history.frontier is None else f", at instruction {history.frontier.instructions}"
            raise SnapshotError(f"the machine replays its past: no {source} before its end{until}")
