"""Protocols between the devices and whoever wires them: lines, clock, memory, characters, the local APIC.

Everything in devices/ (and in firmware/) depends on these names only. A device gets offsets into its own window, lines,
a clock and callbacks; it never learns its base address, the bus or the machine. No implementations live here except the
null objects that stand for "nothing is connected".

Rules that every implementation keeps:

* The machine calls devices, and fires timers, under one lock; devices don't lock.
* Ports and MMIO arrive with sizes 1, 2, 4 (MMIO also 8), value already truncated to the size; a read returns a value
  that fits the size. An access never raises, whatever the guest does.
* Timer callbacks may come late. A periodic device then catches up by arithmetic, never by looping.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable


class IrqLine(Protocol):
    """One wire into an interrupt controller. Setting the level it already has is allowed and does nothing."""

    def set(self, level: bool) -> None: ...


class Timer(Protocol):
    """A one-shot alarm. Arming again moves it; it doesn't fire before its deadline, and once fired it is disarmed."""

    def arm(self, deadline_ns: int) -> None:
        """Fire at `deadline_ns` on the axis of Clock.now_ns(); a deadline in the past fires as soon as possible."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """The only source of time. TSC, PIT, HPET, PM timer, APIC timer and RTC are all computed from it."""

    def now_ns(self) -> int:
        """Monotonic guest time; stands still while the machine is stopped."""

    def wall_time_ns(self) -> int:
        """UTC in nanoseconds since 1970, advancing at the rate of now_ns()."""

    def timer(self, callback: Callable[[], None]) -> Timer: ...


class GuestMemory(Protocol):
    """Guest RAM as a bus master sees it. Out-of-range access raises ValueError: check against `size` before."""

    @property
    def size(self) -> int:
        """First address that is certainly beyond all RAM."""

    def read(self, address: int, length: int) -> bytes: ...
    def write(self, address: int, data: bytes) -> None: ...


class PortDevice(Protocol):
    """A window of I/O ports; `offset` counts from its first port."""

    def port_read(self, offset: int, size: int) -> int: ...
    def port_write(self, offset: int, size: int, value: int) -> None: ...


class MmioDevice(Protocol):
    """A window of physical addresses; `offset` counts from its first byte."""

    def mmio_read(self, offset: int, size: int) -> int: ...
    def mmio_write(self, offset: int, size: int, value: int) -> None: ...


class BarMapper(Protocol):
    """Whoever owns the physical address space and the I/O ports: places a PCI function's windows there."""

    def map_bar(self, window: "PortDevice | MmioDevice", is_io: bool, size: int, address: int | None) -> None:
        """`window` now decodes [address, address + size), or nothing if None. It replaces what the same window decoded
        before. Ranges may overlap others (a guest can do that): the machine decides who answers, and RAM always
        wins."""


class CharBackend(Protocol):
    """The far end of a serial line or console."""

    def write(self, data: bytes) -> None:
        """Take output. Never blocks for long; must take all of it (buffer, or drop the oldest)."""

    def resume_input(self) -> None:
        """The device has room again after its receive() took less than it was offered. Called with the device lock
        held, possibly from within receive(): offer the rest from elsewhere, not from inside this call."""

    def set_break(self, active: bool) -> None:
        """The device started or stopped sending a break."""


class CharDevice(Protocol):
    """The input side of a device that has a CharBackend."""

    def receive(self, data: bytes) -> int:
        """Offer input; the device takes as many bytes from the front as it has room for and says how many."""


@runtime_checkable
class LocalApic(Protocol):
    """What a processor needs of its local APIC; everything else the APIC does is between it and the interrupt bus."""

    def pending_vector(self) -> int:
        """The vector that would be delivered now (TPR and in-service priority considered); -1 if none; EXTINT (256)
        if it is an external interrupt, whose vector is known only once acknowledged."""

    def acknowledge(self) -> int:
        """Take the pending interrupt: its vector, or -1 if it went away meanwhile."""

    def get_tpr(self) -> int:
        """Task priority, 8 bits. CR8 is its upper four."""

    def set_tpr(self, value: int) -> None: ...

    def msr_read(self, index: int) -> int | None:
        """IA32_APIC_BASE, IA32_TSC_DEADLINE, x2APIC registers 0x800-0x8ff. None means #GP."""

    def msr_write(self, index: int, value: int) -> bool:
        """False means #GP."""


EXTINT = 256


class NullLine:
    """A wire that leads nowhere."""

    def set(self, level: bool) -> None:
        return


class NullBackend:
    """A character backend with nothing connected: output vanishes, input never comes."""

    def write(self, data: bytes) -> None:
        return

    def resume_input(self) -> None:
        return

    def set_break(self, active: bool) -> None:
        return
