"""The interrupt message bus: who gets a message from an I/O APIC, an MSI or another processor.

Reference: Intel SDM volume 3A, 10.6.2 "Determining IPI Destination", 10.8.4 (EOI messages), 10.11 "Message Signalled
Interrupts". Arbitration for lowest priority picks the matching APIC with the lowest processor priority, the first one
of equals.
"""

from collections.abc import Callable

from pyemu.devices.apic import (
    ICR_LOGICAL,
    ICR_TRIGGER_LEVEL,
    LOWEST,
    SHORTHAND_ALL,
    SHORTHAND_OTHERS,
    Apic,
)

MSI_BASE = 0xFEE0_0000
MSI_SIZE = 0x10_0000
# MSI address and data (figures 10-24 and 10-25)
MSI_ADDRESS_LOGICAL, MSI_ADDRESS_REDIRECTION = 1 << 2, 1 << 3
MSI_DATA_LEVEL, MSI_DATA_ASSERT = 1 << 15, 1 << 14


class ApicBus:
    """Connects local APICs and I/O APICs. `add` wires an APIC to it."""

    def __init__(self) -> None:
        self._apics: list[Apic] = []
        self._eoi_listeners: list[Callable[[int], None]] = []

    def add(self, apic: Apic) -> None:
        self._apics.append(apic)
        apic.send_ipi = self.send_ipi
        apic.broadcast_eoi = self.broadcast_eoi

    def add_eoi_listener(self, listener: Callable[[int], None]) -> None:
        """`listener(vector)` hears the end of every level-triggered interrupt: IoApic.end_of_interrupt."""
        self._eoi_listeners.append(listener)

    def broadcast_eoi(self, vector: int) -> None:
        for listener in self._eoi_listeners:
            listener(vector)

    def deliver(self, destination: int, logical: bool, mode: int, vector: int, level: bool) -> None:
        """A message with an 8-bit destination, from an I/O APIC pin."""
        self._deliver(self._apics, destination, logical, False, mode, vector, level)

    def deliver_msi(self, address: int, data: int) -> None:
        """A write by a device into the MSI window."""
        if not MSI_BASE <= address < MSI_BASE + MSI_SIZE:
            return
        mode = data >> 8 & 7
        if address & MSI_ADDRESS_REDIRECTION and mode == 0:
            mode = LOWEST
        logical = bool(address & MSI_ADDRESS_LOGICAL)
        self._deliver(self._apics, address >> 12 & 0xFF, logical, False, mode, data & 0xFF, bool(data & MSI_DATA_LEVEL))

    def send_ipi(self, source: Apic, destination: int, icr: int) -> None:
        """An interrupt command register was written; self-IPIs never come here."""
        mode, vector = icr >> 8 & 7, icr & 0xFF
        level = bool(icr & ICR_TRIGGER_LEVEL)
        shorthand = icr >> 18 & 3
        if shorthand in (SHORTHAND_ALL, SHORTHAND_OTHERS):
            for apic in self._apics:
                if apic is not source or shorthand == SHORTHAND_ALL:
                    apic.deliver(mode, vector, level)
        else:
            wide = source.is_x2apic
            self._deliver(self._apics, destination, bool(icr & ICR_LOGICAL), wide, mode, vector, level)

    @staticmethod
    def _deliver(
        apics: list[Apic], destination: int, logical: bool, wide: bool, mode: int, vector: int, level: bool
    ) -> None:
        targets = [apic for apic in apics if apic.is_enabled and apic.matches(destination, logical, wide)]
        if mode == LOWEST and len(targets) > 1:
            targets = [min(targets, key=lambda apic: apic.processor_priority())]
        for apic in targets:
            apic.deliver(mode, vector, level)
