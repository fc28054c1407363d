"""The line of the system tick (IRQ 0), on which no tick is lost because the host was late.

A guest counts ticks: Linux gives up at its start if fewer than five arrive while the TSC counts 16 periods of them.
Where the host runs the machine in slices, some of its ticks fall together: the device's alarm comes late, or the next
tick before the guest has had a chance to take the last. Those are owed, and follow when the guest acknowledges an
interrupt, as KVM's PIT has it (`kvm-pit.lost_tick_policy=delay`). Only for a machine that follows the host's clock: in
counted time nothing is late, and a tick that the guest itself keeps waiting is lost as on hardware.

Not here: the devices that tick (pit8254.py, hpet.py).
"""

from collections.abc import Callable

from pyemu.devices.interfaces import IrqLine

MOST_OWED = 64


class TickLine:
    """`waiting()`: the last tick has reached an interrupt controller and isn't acknowledged; None: nothing is owed."""

    __slots__ = ("_level", "_line", "_waiting", "owed")

    def __init__(self, line: IrqLine, waiting: Callable[[], bool] | None) -> None:
        self._line = line
        self._waiting = waiting
        self._level = False
        self.owed = 0

    def set(self, level: bool) -> None:
        if level and not self._level and self._waiting is not None and self._waiting():
            self.late(1)
        self._level = level
        self._line.set(level)

    def late(self, count: int) -> None:
        """So many ticks should have come."""
        if self._waiting is not None:
            self.owed = min(self.owed + count, MOST_OWED)

    def acknowledged(self) -> None:
        """The processor has taken an interrupt, of whichever source."""
        if self.owed and self._waiting is not None and not self._waiting():
            self.owed -= 1
            self._line.set(False)
            self._line.set(True)
            self._line.set(self._level)

    def reset(self) -> None:
        self.owed = 0
