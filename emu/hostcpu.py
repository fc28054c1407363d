"""What a vCPU sees of the machine: `Host` and `HookHost` of `pyemu.cpu.host` over bus, local APIC and clock.

All methods run on the vCPU's thread, called by the reference interpreter or by native code, and take the device
lock. Native code can't pass an exception on, so a failure here is kept in `failure`, the run is asked to end, and
the run loop raises it where it can be seen.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from pyemu.bus import MmioBus, PortBus
from pyemu.clock import Clock
from pyemu.cpu.state import EXIT_REQUEST, IRQ_PENDING, State
from pyemu.devices.interfaces import LocalApic
from pyemu.hooks import Hooks
from pyemu.memory import GuestRam
from pyemu.outside import Outside

_ALL_ONES = {1: 0xFF, 2: 0xFFFF, 4: 0xFFFF_FFFF, 8: 0xFFFF_FFFF_FFFF_FFFF}
NO_VECTOR = -1


class HostCpu:
    """One vCPU's door to the machine."""

    def __init__(
        self,
        s: State,
        lock: AbstractContextManager[object],
        ports: PortBus,
        mmio: MmioBus,
        ram: GuestRam,
        apic: LocalApic,
        clock: Clock,
        outside: Outside,
    ) -> None:
        self._s = s
        self._lock = lock
        self._port_bus = ports
        self._mmio_bus = mmio
        self._ram = ram
        self._apic = apic
        self._clock = clock
        self._outside = outside
        self.failure: Exception | None = None
        # Set by whoever wants to know how often Python is called, and by which device (see `count_calls`).
        self.calls: dict[str, int] = {}
        self.on_floating_point_error: Callable[[], None] | None = None  # FERR#, lock held
        # Called (lock held) with vector and whether it came from the 8259, when -d int is on.
        self.on_interrupt: Callable[[int], None] | None = None
        self.hooks: Hooks | None = None
        self.on_coverage_full: Callable[[], None] | None = None

    def _failed(self, error: Exception) -> None:
        if self.failure is None:
            self.failure = error
        self._s[EXIT_REQUEST] = 1

    # ---- memory and ports ----------------------------------------------------------------------------------

    def mmio_read(self, address: int, size: int) -> int:
        try:
            with self._lock:
                value = self._mmio_bus.read(address, size)
                if self.hooks is not None and self.hooks.io:
                    self.hooks.io_accessed(False, address, size, False, value)
                return value
        except Exception as error:
            self._failed(error)
            return _ALL_ONES[size]

    def mmio_write(self, address: int, size: int, value: int) -> None:
        try:
            with self._lock:
                self._mmio_bus.write(address, size, value)
                if self.hooks is not None and self.hooks.io:
                    self.hooks.io_accessed(False, address, size, True, value)
        except Exception as error:
            self._failed(error)

    def port_read(self, port: int, size: int) -> int:
        try:
            with self._lock:
                value = self._port_bus.read(port, size)
                if self.hooks is not None and self.hooks.io:
                    self.hooks.io_accessed(True, port, size, False, value)
                return value
        except Exception as error:
            self._failed(error)
            return _ALL_ONES[size]

    def port_write(self, port: int, size: int, value: int) -> None:
        try:
            with self._lock:
                self._port_bus.write(port, size, value)
                if self.hooks is not None and self.hooks.io:
                    self.hooks.io_accessed(True, port, size, True, value)
        except Exception as error:
            self._failed(error)

    def count_calls(self) -> None:
        """From now on count accesses by device in `calls`; replaces the methods so that nobody else pays."""

        def counted_mmio_read(address: int, size: int) -> int:
            self._count(f"read {self._mmio_bus.name(address)}")
            return HostCpu.mmio_read(self, address, size)

        def counted_mmio_write(address: int, size: int, value: int) -> None:
            self._count(f"write {self._mmio_bus.name(address)}")
            HostCpu.mmio_write(self, address, size, value)

        def counted_port_read(port: int, size: int) -> int:
            self._count(f"in {self._port_bus.name(port)}")
            return HostCpu.port_read(self, port, size)

        def counted_port_write(port: int, size: int, value: int) -> None:
            self._count(f"out {self._port_bus.name(port)}")
            HostCpu.port_write(self, port, size, value)

        self.__dict__.update(
            mmio_read=counted_mmio_read, mmio_write=counted_mmio_write,
            port_read=counted_port_read, port_write=counted_port_write,
        )  # fmt: skip

    def _count(self, name: str) -> None:
        self.calls[name] = self.calls.get(name, 0) + 1

    # ---- interrupts ----------------------------------------------------------------------------------------

    def acknowledge_interrupt(self) -> int:
        try:
            with self._lock:
                apic = self._apic
                vector = apic.acknowledge() if apic.pending_vector() >= 0 else NO_VECTOR
                self._s[IRQ_PENDING] = int(apic.pending_vector() >= 0)
                if vector >= 0 and self.on_interrupt is not None:
                    self.on_interrupt(vector)
                return vector
        except Exception as error:
            self._failed(error)
            self._s[IRQ_PENDING] = 0
            return NO_VECTOR

    def floating_point_error(self) -> None:
        try:
            with self._lock:
                if self.on_floating_point_error is not None:
                    self.on_floating_point_error()
        except Exception as error:
            self._failed(error)

    def get_tpr(self) -> int:
        """CR8: the upper four bits of the task priority."""
        with self._lock:
            return self._apic.get_tpr() >> 4

    def set_tpr(self, value: int) -> None:
        try:
            with self._lock:
                self._apic.set_tpr((value & 0xF) << 4)
        except Exception as error:
            self._failed(error)

    def apic_msr_read(self, index: int) -> int | None:
        try:
            with self._lock:
                return self._apic.msr_read(index)
        except Exception as error:
            self._failed(error)
            return None

    def apic_msr_write(self, index: int, value: int) -> bool:
        try:
            with self._lock:
                return self._apic.msr_write(index, value)
        except Exception as error:
            self._failed(error)
            return False

    # ---- hooks ---------------------------------------------------------------------------------------------

    def code_hooked(self, linear: int, starts: bool) -> bool:
        try:
            with self._lock:
                return self.hooks is not None and self.hooks.code_hooked(linear, starts)
        except Exception as error:
            self._failed(error)
            return True

    def memory_hooked(self, number: int) -> None:
        try:
            with self._lock:
                if self.hooks is not None:
                    self.hooks.memory_hooked(number)
        except Exception as error:
            self._failed(error)

    def event_hooked(self, kind: int, a: int, b: int) -> bool:
        try:
            with self._lock:
                return self.hooks is not None and self.hooks.event_hooked(kind, a, b)
        except Exception as error:
            self._failed(error)
            return False

    def coverage_full(self) -> None:
        try:
            with self._lock:
                if self.on_coverage_full is not None:
                    self.on_coverage_full()
        except Exception as error:
            self._failed(error)

    def read_tsc(self) -> int:
        return self._clock.read_tsc()

    def random_bits(self) -> int:
        return int.from_bytes(self._outside.random_bytes(8), "little")
