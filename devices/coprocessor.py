"""What makes IRQ 13 of the processor's floating-point errors, as in the PC/AT: a latch behind FERR#, cleared through
port F0H, which also tells the processor to ignore the error (IGNNE#) while it is being handled (SDM 1, D.2.1).

Processors with CR0.NE set don't ask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pyemu.devices.device import ALL_ONES, Device
from pyemu.devices.interfaces import IrqLine

CLEAR_BUSY = 0  # port F0H; F1H reset the 80287


@dataclass(slots=True)
class CoprocessorState:
    error: bool = False


class CoprocessorError(Device):
    """Ports F0H and F1H. `on_ignore` is IGNNE#, up to the time when no error is pending any more."""

    state: CoprocessorState

    def __init__(self, line: IrqLine) -> None:
        self._line = line
        self.on_ignore: Callable[[], None] | None = None
        self.state = CoprocessorState()

    def error(self) -> None:
        """FERR# is asserted."""
        self.state.error = True
        self._line.set(True)

    def port_read(self, offset: int, size: int) -> int:
        return ALL_ONES[size]

    def port_write(self, offset: int, size: int, value: int) -> None:
        if offset == CLEAR_BUSY and self.state.error:
            self.reset()
            if self.on_ignore is not None:
                self.on_ignore()

    def reset(self) -> None:
        """The RESET wire."""
        self.state.error = False
        self._line.set(False)

    def resync(self) -> None:
        self._line.set(self.state.error)
