"""High precision event timer block: a 100 MHz counter and three comparators.

Reference: IA-PC HPET Specification 1.0a (October 2004), 2.3 (registers), 2.4 (legacy replacement). Counter and
comparators are computed on access. FSB (MSI) delivery isn't announced.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from pyemu.devices.device import ALL_ONES, MIN_REARM_NS, Device, nothing_int
from pyemu.devices.interfaces import Clock, IrqLine

# Register offsets (table 2)
CAPABILITIES, CONFIG, STATUS, COUNTER, TIMERS, TIMER_STRIDE = 0x00, 0x10, 0x20, 0xF0, 0x100, 0x20
TIMER_CONFIG, TIMER_COMPARATOR, TIMER_FSB = 0x00, 0x08, 0x10

NUM_TIMERS = 3
PERIOD_NS = 10
FEMTOSECONDS = 1_000_000
CAPABILITY_VALUE = PERIOD_NS * FEMTOSECONDS << 32 | 0x8086 << 16 | 1 << 15 | 1 << 13 | (NUM_TIMERS - 1) << 8 | 0x01
CONFIG_ENABLE, CONFIG_LEGACY = 0x1, 0x2
# Timer configuration (2.3.8)
T_LEVEL, T_ENABLE, T_PERIODIC, T_CAN_PERIODIC, T_CAN_64BIT, T_SET_VALUE, T_32BIT = 2, 4, 8, 0x10, 0x20, 0x40, 0x100
T_ROUTE_SHIFT, T_ROUTE_MASK = 9, 0x1F
T_WRITABLE = T_LEVEL | T_ENABLE | T_PERIODIC | T_SET_VALUE | T_32BIT | T_ROUTE_MASK << T_ROUTE_SHIFT
ROUTES = 0x00FF_0104  # I/O APIC inputs that a comparator can use: 2, 8, 16 to 23

M32, M64 = 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF


@dataclass(slots=True)
class HpetTimer:
    """A periodic `comparator` is the next match as of the last time anybody looked."""

    config: int = T_CAN_PERIODIC | T_CAN_64BIT
    comparator: int = M64
    period: int = 0
    fsb: int = 0


@dataclass(slots=True)
class HpetState:
    config: int = 0
    status: int = 0
    base: int = 0  # counter value at start_ns while running, else the counter
    start_ns: int = 0
    timers: list[HpetTimer] = field(default_factory=lambda: [HpetTimer() for _ in range(NUM_TIMERS)])


class Hpet(Device):
    """`lines[n]` is I/O APIC input n (24 or more); `legacy_lines` are ISA interrupts 0 and 8 as wired to all
    controllers. `on_legacy(active)` tells when the HPET replaces PIT and RTC on these two."""

    state: HpetState

    def __init__(
        self,
        clock: Clock,
        lines: Sequence[IrqLine],
        legacy_lines: Sequence[IrqLine],
        on_legacy: Callable[[bool], None],
    ) -> None:
        self._now = clock.now_ns
        self._lines = lines
        self._legacy_lines = legacy_lines
        self._on_legacy = on_legacy
        self._alarms = [clock.timer(partial(self._on_alarm, number)) for number in range(NUM_TIMERS)]
        self.on_late: Callable[[int], None] = nothing_int  # so many ticks of timer 0, in the PIT's place, were skipped
        self.state = HpetState()

    def reset(self) -> None:
        for number in range(NUM_TIMERS):
            self._drive(number, False)
            self._alarms[number].cancel()
        legacy = self.state.config & CONFIG_LEGACY
        self.state = HpetState()
        if legacy:
            self._on_legacy(False)

    def resync(self) -> None:
        self._on_legacy(bool(self.state.config & CONFIG_LEGACY))
        for number in range(NUM_TIMERS):
            if self.state.timers[number].config & T_LEVEL:
                self._drive(number, bool(self.state.status & 1 << number))
            self._arm(number)

    # Registers

    def mmio_read(self, offset: int, size: int) -> int:
        if offset == COUNTER:
            return self._counter() & (M64 if size == 8 else ALL_ONES[size])
        shift = 8 * (offset & 7)
        return self._read(offset & ~7) >> shift & ALL_ONES[size]

    def _read(self, register: int) -> int:
        s = self.state
        if register >= TIMERS:
            number, register = divmod(register - TIMERS, TIMER_STRIDE)
            if number >= NUM_TIMERS:
                return 0
            t = s.timers[number]
            if register == TIMER_CONFIG:
                return t.config | ROUTES << 32
            if register == TIMER_COMPARATOR:
                self._catch_up(t, self._counter())
                return t.comparator & (M32 if t.config & T_32BIT else M64)
            return t.fsb if register == TIMER_FSB else 0
        if register == COUNTER:
            return self._counter()
        if register == CAPABILITIES:
            return CAPABILITY_VALUE
        if register == CONFIG:
            return s.config
        return s.status if register == STATUS else 0

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        if size < 4 or offset & (size - 1):
            return  # only aligned 32 and 64 bit writes are defined (2.2)
        register = offset & ~7
        high = offset & 4
        if register >= TIMERS:
            number, register = divmod(register - TIMERS, TIMER_STRIDE)
            if number < NUM_TIMERS:
                self._write_timer(number, register, size, high, value)
            return
        s = self.state
        if register == CONFIG and not high:
            self._write_config(value)
        elif register == STATUS and not high:
            for number in range(NUM_TIMERS):
                if s.status & value & 1 << number:
                    s.status &= ~(1 << number)
                    self._drive(number, False)
        elif register == COUNTER:
            self._settle()
            counter = _merge(self._counter(), size, high, value)
            s.base, s.start_ns = counter, self._now()
            self._arm_all()

    def _write_config(self, value: int) -> None:
        s = self.state
        new = value & (CONFIG_ENABLE | CONFIG_LEGACY)
        changed = s.config ^ new
        if changed & CONFIG_ENABLE:
            if not new & CONFIG_ENABLE:
                self._settle()
            s.base, s.start_ns = self._counter(), self._now()
        if changed & CONFIG_LEGACY:
            for number in range(NUM_TIMERS):
                self._drive(number, False)
        s.config = new
        if changed & CONFIG_LEGACY:
            self._on_legacy(bool(new & CONFIG_LEGACY))
        self._arm_all()

    def _write_timer(self, number: int, register: int, size: int, high: int, value: int) -> None:
        t = self.state.timers[number]
        if register == TIMER_CONFIG:
            if high:
                return  # the routing capability
            self._catch_up(t, self._counter())
            old = t.config
            if (old ^ value) & (T_LEVEL | T_ENABLE | T_ROUTE_MASK << T_ROUTE_SHIFT):
                self._drive(number, False)
            t.config = old & ~T_WRITABLE | value & T_WRITABLE
            if t.config & T_32BIT and not old & T_32BIT:
                t.comparator &= M32
                t.period &= M32
        elif register == TIMER_COMPARATOR:
            self._catch_up(t, self._counter())
            wide = not t.config & T_32BIT
            if high and not wide:
                return
            if not t.config & T_PERIODIC or t.config & T_SET_VALUE:
                t.comparator = _merge(t.comparator, size, high, value) & (M64 if wide else M32)
            if t.config & T_PERIODIC:
                t.period = _merge(t.period, size, high, value) & (M64 if wide else M32)
            t.config &= ~T_SET_VALUE  # clears itself; software sets it again for the other half
        elif register == TIMER_FSB:
            t.fsb = _merge(t.fsb, size, high, value)
            return
        self._arm(number)

    # Time

    def _counter(self) -> int:
        s = self.state
        if s.config & CONFIG_ENABLE:
            return (s.base + (self._now() - s.start_ns) // PERIOD_NS) & M64
        return s.base

    def _catch_up(self, t: HpetTimer, counter: int) -> int:
        """Move a periodic comparator beyond the counter, without a loop; gives the number of matches that it passes."""
        if not t.config & T_PERIODIC or not t.period or not self.state.config & CONFIG_ENABLE:
            return 0
        mask = M32 if t.config & T_32BIT else M64
        late = (counter - t.comparator) & mask
        if late > mask >> 1:
            return 0
        passed = late // t.period + 1
        t.comparator = (t.comparator + passed * t.period) & mask
        return passed

    def _settle(self) -> None:
        for t in self.state.timers:
            self._catch_up(t, self._counter())

    def _arm_all(self) -> None:
        for number in range(NUM_TIMERS):
            self._arm(number)

    def _arm(self, number: int) -> None:
        """Wake up at the next match, if it interrupts."""
        s = self.state
        t = s.timers[number]
        alarm = self._alarms[number]
        if not s.config & CONFIG_ENABLE or not t.config & T_ENABLE:
            alarm.cancel()
            return
        # One reading of the clock: between two, the counter could pass the comparator
        now = self._now()
        elapsed = (now - s.start_ns) // PERIOD_NS
        counter = (s.base + elapsed) & M64
        self._catch_up(t, counter)
        mask = M32 if t.config & T_32BIT else M64
        ticks = (t.comparator - counter) & mask
        deadline = s.start_ns + (elapsed + (ticks or mask + 1)) * PERIOD_NS
        if t.config & T_PERIODIC:
            deadline = max(deadline, now + MIN_REARM_NS)
        alarm.arm(deadline)

    def _on_alarm(self, number: int) -> None:
        t = self.state.timers[number]
        if t.config & T_LEVEL:
            self.state.status |= 1 << number
            self._drive(number, True)
        else:
            self._drive(number, True)
            self._drive(number, False)
            passed = self._catch_up(t, self._counter())
            if passed > 1 and number == 0 and self.state.config & CONFIG_LEGACY and t.period * PERIOD_NS > MIN_REARM_NS:
                self.on_late(passed - 1)
        self._arm(number)

    def _drive(self, number: int, level: bool) -> None:
        if self.state.config & CONFIG_LEGACY and number < 2:
            self._legacy_lines[number].set(level)
            return
        route = self.state.timers[number].config >> T_ROUTE_SHIFT & T_ROUTE_MASK
        if ROUTES >> route & 1:
            self._lines[route].set(level)


def _merge(old: int, size: int, high: int, value: int) -> int:
    if size == 8:
        return value
    return old & M32 | value << 32 if high else old & ~M32 | value
