"""8254 interval timer with the PC's port 0x61 (speaker, channel 2 gate, refresh toggle).

Reference: Intel 8254 datasheet (231164-005), "Mode Definitions", "Read-Back Command". No counter ever runs: value and
output are computed from the time that passed since the count was loaded. Only channel 0's output is
wired to an interrupt, so only it has an alarm, one per period; between alarms its line rests high.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from pyemu.devices.device import MIN_REARM_NS, NS_PER_SECOND, Device, nothing_int, read_wide, write_wide
from pyemu.devices.interfaces import Clock, IrqLine

PIT_HZ = 1_193_182
CONTROL = 3  # port offset of the control word

ACCESS_LATCH, ACCESS_LOW, ACCESS_HIGH, ACCESS_BOTH = 0, 1, 2, 3
READ_BACK = 3  # in the channel field
READ_BACK_NO_COUNT, READ_BACK_NO_STATUS = 0x20, 0x10
STATUS_OUT, STATUS_NULL_COUNT = 0x80, 0x40

# Port 0x61 (82371SB datasheet, NMI status and control)
P61_GATE2, P61_SPEAKER, P61_WRITABLE, P61_REFRESH, P61_OUT2 = 0x01, 0x02, 0x0F, 0x10, 0x20
REFRESH_NS = 15_085  # the DRAM refresh request toggles at this interval

PERIODIC_MODES = (2, 3)
LATE_FROM = PIT_HZ * MIN_REARM_NS // NS_PER_SECOND + 1  # a shorter period isn't kept anyhow
GATE_TRIGGERED_MODES = (1, 5)


@dataclass(slots=True)
class PitChannel:
    """One counter. While counting, the number of ticks done is time since `start_ns`; while paused it is
    `paused_ticks`."""

    mode: int = 3
    bcd: int = 0
    access: int = ACCESS_BOTH
    reload: int = 0x10000
    start_ns: int = 0
    loaded: int = 0  # a count was written since the control word
    running: int = 0  # gate high, and triggered where the mode needs a trigger
    paused_ticks: int = 0
    gate: int = 1
    write_low: int = 0
    write_high_next: int = 0
    read_high_next: int = 0
    latched: int = -1  # latched count, -1 if none
    latched_status: int = -1
    last_count: int = 0  # what an unloaded counter shows


@dataclass(slots=True)
class PitState:
    channels: list[PitChannel] = field(default_factory=lambda: [PitChannel(), PitChannel(), PitChannel(gate=0)])
    control61: int = 0


class Pit8254(Device):
    """Ports 0x40 to 0x43. `irq` is channel 0's output."""

    state: PitState

    def __init__(self, clock: Clock, irq: IrqLine) -> None:
        self._clock = clock
        self._now = clock.now_ns
        self._irq = irq
        self._timer = clock.timer(self._on_timer)
        self.on_late: Callable[[int], None] = nothing_int  # so many ticks of channel 0 have been skipped
        self._due = 0  # when channel 0's next periodic edge is
        self.state = PitState()
        self.port61 = Port61(self, clock)

    def reset(self) -> None:
        self.state = PitState()
        self._timer.cancel()
        self._irq.set(False)

    def resync(self) -> None:
        self._irq.set(self.output(0))
        self._arm()

    # Ports

    def port_read(self, offset: int, size: int) -> int:
        if size != 1:
            return read_wide(self.port_read, offset, size)
        if offset >= CONTROL:
            return 0xFF  # the control word can't be read
        c = self.state.channels[offset]
        if c.latched_status >= 0:
            status = c.latched_status
            c.latched_status = -1
            return status
        count = c.latched
        if count < 0:
            count = self._count(c)
        access = c.access
        if access == ACCESS_BOTH:
            if c.read_high_next:
                c.read_high_next = 0
                c.latched = -1
                return count >> 8
            c.read_high_next = 1
            return count & 0xFF
        c.latched = -1
        return count >> 8 if access == ACCESS_HIGH else count & 0xFF

    def port_write(self, offset: int, size: int, value: int) -> None:
        if size != 1:
            write_wide(self.port_write, offset, size, value)
        elif offset < CONTROL:
            c = self.state.channels[offset]
            if c.access == ACCESS_LOW:
                self._load(offset, value)
            elif c.access == ACCESS_HIGH:
                self._load(offset, value << 8)
            elif c.write_high_next:
                c.write_high_next = 0
                self._load(offset, c.write_low | value << 8)
            else:
                c.write_low = value
                c.write_high_next = 1
                if c.mode == 0 and c.running:  # "writing the first byte disables counting"
                    c.paused_ticks = self._ticks(c)
                    c.running = 0
                    if offset == 0:
                        self._arm()
        elif offset == CONTROL:
            self._control(value)

    def _control(self, value: int) -> None:
        number = value >> 6
        if number == READ_BACK:
            for i, c in enumerate(self.state.channels):
                if value & (2 << i):
                    if not value & READ_BACK_NO_COUNT and c.latched < 0:
                        c.latched = self._count(c)
                    if not value & READ_BACK_NO_STATUS and c.latched_status < 0:
                        c.latched_status = self._status(i)
            return
        c = self.state.channels[number]
        access = (value >> 4) & 3
        if access == ACCESS_LATCH:
            if c.latched < 0:
                c.latched = self._count(c)
            return
        c.last_count = self._count(c)
        mode = (value >> 1) & 7
        c.mode = mode - 4 if mode > 5 else mode  # bit 2 doesn't matter for modes 2 and 3
        c.bcd = value & 1
        c.access = access
        c.loaded = c.running = 0
        c.paused_ticks = 0
        c.write_high_next = c.read_high_next = 0
        c.latched = c.latched_status = -1
        if number == 0:
            self._timer.cancel()
            self._irq.set(c.mode != 0)  # the output goes to its initial level

    def _load(self, number: int, value: int) -> None:
        """A count was written completely."""
        c = self.state.channels[number]
        if c.bcd:
            # Digits above 9 count as their value, which is what a decimal counter starting there would do
            count = (value >> 12) * 1000 + (value >> 8 & 15) * 100 + (value >> 4 & 15) * 10 + (value & 15)
            new = min(count or 10_000, 10_000)
        else:
            new = value or 0x10000
        now = self._now()
        if c.mode in GATE_TRIGGERED_MODES:
            c.reload = new
            c.loaded = 1  # counting starts with the next trigger; a running cycle isn't disturbed
            return
        if c.mode in PERIODIC_MODES and c.running and new == c.reload:
            # The current period goes on with the old count. A changed count starts its first period now, at most
            # one old period earlier than the chip would.
            return
        c.reload = new
        c.loaded = 1
        c.start_ns = now
        c.paused_ticks = 0
        c.running = c.gate
        if number == 0:
            if c.mode == 0:
                self._irq.set(False)
            self._arm()

    def set_gate2(self, level: int) -> None:
        """Channel 2's gate pin; the gates of 0 and 1 are tied high."""
        c = self.state.channels[2]
        if level == c.gate:
            return
        now = self._now()
        if level:
            c.gate = 1
            if c.mode in (1, 2, 3, 5):  # a rising edge (re)starts
                c.start_ns = now
                c.running = c.loaded
            elif c.loaded and not c.write_high_next:  # modes 0 and 4 go on
                c.start_ns = now - (c.paused_ticks * NS_PER_SECOND + PIT_HZ - 1) // PIT_HZ
                c.running = 1
        else:
            if c.running and c.mode not in GATE_TRIGGERED_MODES:
                c.paused_ticks = self._ticks(c)
                c.running = 0
            c.gate = 0

    # Counting

    def _ticks(self, c: PitChannel) -> int:
        if c.running:
            return (self._now() - c.start_ns) * PIT_HZ // NS_PER_SECOND
        return c.paused_ticks

    def _count(self, c: PitChannel) -> int:
        if not c.loaded:
            return c.last_count
        reload = c.reload
        mode = c.mode
        ticks = (self._now() - c.start_ns) * PIT_HZ // NS_PER_SECOND if c.running else c.paused_ticks
        if mode == 2:
            value = reload - ticks % reload
        elif mode == 3:
            phase = ticks % reload  # two half cycles, the first one longer by one clock for an odd count
            half = (reload + 1) // 2
            value = (reload & ~1) - 2 * (phase - half if phase >= half else phase)
        elif c.bcd:
            value = (reload - ticks) % 10_000
        else:
            value = (reload - ticks) & 0xFFFF
        if c.bcd:
            value %= 10_000
            return value // 1000 << 12 | value // 100 % 10 << 8 | value // 10 % 10 << 4 | value % 10
        return value & 0xFFFF

    def output(self, number: int) -> bool:
        """Level of a channel's OUT pin."""
        c = self.state.channels[number]
        mode = c.mode
        if not c.loaded:
            return mode != 0
        if mode == 0:
            return self._ticks(c) >= c.reload
        if mode == 1:
            return not c.running or self._ticks(c) >= c.reload
        if mode in PERIODIC_MODES and not c.gate:
            return True
        ticks = self._ticks(c)
        if mode == 2:
            return ticks % c.reload != c.reload - 1
        if mode == 3:
            return ticks % c.reload < (c.reload + 1) // 2
        return not c.running or ticks != c.reload  # modes 4 and 5: low for one clock

    def _status(self, number: int) -> int:
        c = self.state.channels[number]
        status = c.access << 4 | c.mode << 1 | c.bcd
        if self.output(number):
            status |= STATUS_OUT
        if not c.loaded:
            status |= STATUS_NULL_COUNT
        return status

    # Channel 0's interrupt

    def _arm(self) -> None:
        """Set the alarm for channel 0's next rising edge."""
        c = self.state.channels[0]
        if not c.running:
            self._timer.cancel()
            return
        now = self._now()
        if c.mode in PERIODIC_MODES:
            cycles = (now - c.start_ns) * PIT_HZ // (NS_PER_SECOND * c.reload) + 1
            deadline = c.start_ns + (cycles * c.reload * NS_PER_SECOND + PIT_HZ - 1) // PIT_HZ
            self._due = deadline
            self._timer.arm(max(deadline, now + MIN_REARM_NS))
            return
        # Modes 1 and 5 need a trigger, which channel 0 never gets
        ticks = c.reload if c.mode == 0 else c.reload + 1
        deadline = c.start_ns + (ticks * NS_PER_SECOND + PIT_HZ - 1) // PIT_HZ
        if deadline > now:
            self._timer.arm(deadline)
        else:
            self._timer.cancel()

    def _on_timer(self) -> None:
        c = self.state.channels[0]
        if not c.running:
            return
        if c.mode in PERIODIC_MODES:
            late = self._now() - self._due
            self._irq.set(False)
            self._irq.set(True)
            self._arm()
            if (skipped := late * PIT_HZ // (NS_PER_SECOND * c.reload)) and c.reload >= LATE_FROM:
                self.on_late(skipped)
        elif self._ticks(c) >= c.reload:
            if c.mode == 4:
                self._irq.set(False)
            self._irq.set(True)
        else:
            self._arm()


class Port61:
    """The PC's system control port B."""

    def __init__(self, pit: Pit8254, clock: Clock) -> None:
        self._pit = pit
        self._now = clock.now_ns

    def port_read(self, offset: int, size: int) -> int:
        if offset or size != 1:
            return (1 << 8 * size) - 1 if offset else 0xFFFF_FF00 & ((1 << 8 * size) - 1) | self.port_read(0, 1)
        state = self._pit.state
        value = state.control61
        if self._pit.output(2):
            value |= P61_OUT2
        if self._now() // REFRESH_NS & 1:
            value |= P61_REFRESH
        return value

    def port_write(self, offset: int, size: int, value: int) -> None:
        if offset == 0:
            self._pit.state.control61 = value & P61_WRITABLE
            self._pit.set_gate2(value & P61_GATE2)
