"""PCI bus 0: which function answers a configuration access, and where interrupt pins lead.

Reference: PCI Local Bus Specification 3.0, 3.2.2.3 (configuration cycles), 2.2.6 (wiring of interrupt pins is the
board's: here the rotation that PC boards use, which the ACPI _PRT must repeat).
"""

from collections.abc import Callable, Sequence

from pyemu.devices.interfaces import BarMapper, IrqLine
from pyemu.devices.pci.function import PciFunction

DEVICES, FUNCTIONS = 32, 8


def i440fx_pirq(device: int, pin: int) -> int:
    """Pin 0 (INTA) of device 1 is PIRQA."""
    return (device + pin - 1) & 3


def q35_pirq(device: int, pin: int) -> int:
    """Slots 0 to 24 rotate over PIRQE to PIRQH, the chipset's own devices 25 to 31 have INTA to INTD on PIRQA to
    PIRQD."""
    return pin if device >= 25 else 4 + ((device + pin) & 3)


class PciBus:
    """`pirq_of(device, pin)` numbers the PIRQ wires; `set_pirq_lines` gives them their far ends."""

    def __init__(self, mapper: BarMapper | None = None, pirq_of: Callable[[int, int], int] = i440fx_pirq) -> None:
        self._mapper = mapper
        self._pirq_of = pirq_of
        self._functions: dict[int, PciFunction] = {}
        self._lines: Sequence[IrqLine] = ()
        self._asserted = [0] * 8  # per PIRQ, a bit for each function that pulls it

    def set_pirq_lines(self, lines: Sequence[IrqLine]) -> None:
        self._lines = lines

    def add(self, device: int, function: int, item: PciFunction) -> None:
        if not (0 <= device < DEVICES and 0 <= function < FUNCTIONS) or device << 3 | function in self._functions:
            raise ValueError(f"PCI {device:02x}.{function} is impossible or taken")
        devfn = device << 3 | function
        self._functions[devfn] = item
        item.attach(self._mapper, lambda pin, level: self._pin_changed(devfn, pin, level))
        if any(self._functions.get(device << 3 | i) for i in range(1, FUNCTIONS)):
            first = self._functions.get(device << 3)
            if first is not None:
                first.set_multifunction()

    @property
    def functions(self) -> dict[int, PciFunction]:
        """By device << 3 | function."""
        return dict(self._functions)

    def reset(self) -> None:
        for item in self._functions.values():
            item.reset()

    def config_read(self, devfn: int, offset: int, size: int) -> int:
        item = self._functions.get(devfn)
        return (1 << 8 * size) - 1 if item is None else item.config_read(offset, size)

    def config_write(self, devfn: int, offset: int, size: int, value: int) -> None:
        item = self._functions.get(devfn)
        if item is not None:
            item.config_write(offset, size, value)

    def _pin_changed(self, devfn: int, pin: int, level: bool) -> None:
        pirq = self._pirq_of(devfn >> 3, pin)
        if level:
            self._asserted[pirq] |= 1 << devfn
        else:
            self._asserted[pirq] &= ~(1 << devfn)
        if pirq < len(self._lines):
            self._lines[pirq].set(bool(self._asserted[pirq]))
