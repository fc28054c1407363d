"""MC146818A real-time clock with the PC's 128 bytes of CMOS RAM (ports 0x70 and 0x71).

Reference: Motorola MC146818A datasheet, "Registers", "Update cycle" and "Interrupts". The time of day is the clock's
wall time plus an offset that the guest changes by setting the time. Flags of register C are computed when somebody
can see them; alarms are armed only for interrupts that are enabled. The bytes from 0x10 on follow the IBM PC AT's
layout as far as firmware and kernels still read it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pyemu.devices.device import NS_PER_SECOND, Device, read_wide, write_wide
from pyemu.devices.interfaces import Clock, IrqLine

INDEX, DATA = 0, 1  # port offsets

SECONDS, SECONDS_ALARM, MINUTES, MINUTES_ALARM, HOURS, HOURS_ALARM = range(6)
DAY_OF_WEEK, DAY, MONTH, YEAR, REG_A, REG_B, REG_C, REG_D = range(6, 14)
CENTURY = 0x32
CMOS_SIZE = 128
TIME_REGISTERS = frozenset((SECONDS, MINUTES, HOURS, DAY_OF_WEEK, DAY, MONTH, YEAR, CENTURY))

A_UIP, A_DIVIDER, A_RATE = 0x80, 0x70, 0x0F
A_DIVIDER_32KHZ, A_DIVIDER_RESET = 0x20, 0x60  # reset is 11x
B_SET, B_PIE, B_AIE, B_UIE, B_SQWE, B_BINARY, B_24H, B_DSE = 0x80, 0x40, 0x20, 0x10, 8, 4, 2, 1
C_IRQF, C_PF, C_AF, C_UF = 0x80, 0x40, 0x20, 0x10
D_VRT = 0x80

UIP_NS = 244_000  # UIP is set this long before the registers change ("Update cycle")
OSCILLATOR_HZ = 32_768
ALARM_ANY = 0xC0  # an alarm byte with both top bits set matches everything
HOUR_PM = 0x80
SECONDS_PER_DAY = 86_400


def days_from_civil(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 in the Gregorian calendar; defined for any day number."""
    year -= month <= 2
    era_day = (year % 400) * 365 + (year % 400) // 4 - (year % 400) // 100
    month_day = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return year // 400 * 146_097 + era_day + month_day - 719_468


def civil_from_days(days: int) -> tuple[int, int, int]:
    """The inverse of days_from_civil: year, month, day."""
    days += 719_468
    era, day_of_era = divmod(days, 146_097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * day_of_year + 2) // 153
    month = shifted + 3 if shifted < 10 else shifted - 9
    return era * 400 + year_of_era + (month <= 2), month, day_of_year - (153 * shifted + 2) // 5 + 1


def memory_size_bytes(below_4g: int, above_4g: int = 0) -> dict[int, int]:
    """The CMOS bytes that tell firmware how much RAM there is, for `below_4g` and `above_4g` bytes of it."""
    base_kib = min(below_4g >> 10, 640)
    extended_kib = min(max((below_4g >> 10) - 1024, 0), 0xFFFF)
    above_16m = min(max(below_4g - (16 << 20), 0) >> 16, 0xFFFF)
    high = min(above_4g >> 16, 0xFF_FFFF)
    values = {0x15: base_kib, 0x17: extended_kib, 0x30: extended_kib, 0x34: above_16m}
    record = {index + i: value >> 8 * i & 0xFF for index, value in values.items() for i in range(2)}
    record.update({0x5B + i: high >> 8 * i & 0xFF for i in range(3)})
    return record


@dataclass(slots=True)
class RtcState:
    """`cmos` holds alarms, B and RAM always, the time registers only while B_SET or the divider stops the clock."""

    index: int = 0
    cmos: list[int] = field(default_factory=lambda: [0] * CMOS_SIZE)
    offset_ns: int = 0  # RTC time minus wall time
    flags: int = 0  # register C without IRQF
    seen_ns: int = 0  # RTC time up to which events are in `flags`
    seen_ticks: int = 0  # the same for the periodic event, in cycles of the oscillator
    weekday_shift: int = 0  # what the guest calls day 1


class RtcMc146818(Device):
    """`nvram` gives initial contents of CMOS bytes (see memory_size_bytes); `irq` is ISA interrupt 8."""

    state: RtcState

    def __init__(self, clock: Clock, irq: IrqLine, nvram: Mapping[int, int] | None = None) -> None:
        self._clock = clock
        self._irq = irq
        self._timer = clock.timer(self._on_timer)
        self._level = False
        self.state = s = RtcState()
        s.cmos[REG_A] = A_DIVIDER_32KHZ | 6
        s.cmos[REG_B] = B_24H
        for index, value in (nvram or {}).items():
            s.cmos[index] = value & 0xFF
        checksum = sum(s.cmos[0x10:0x2E])
        s.cmos[0x2E], s.cmos[0x2F] = checksum >> 8 & 0xFF, checksum & 0xFF
        s.seen_ns = self._time_ns()
        s.seen_ticks = self._oscillator()

    def reset(self) -> None:
        """RESET pin: interrupts off, flags cleared; time and RAM are on battery."""
        s = self.state
        self._catch_up()
        s.cmos[REG_B] &= ~(B_PIE | B_AIE | B_UIE | B_SQWE)
        s.flags = 0
        self._update()

    def resync(self) -> None:
        self._level = False
        self._irq.set(False)
        self._update()

    # Ports

    def port_read(self, offset: int, size: int) -> int:
        if size != 1:
            return read_wide(self.port_read, offset, size)
        if offset != DATA:
            return 0xFF  # the index can't be read back
        s = self.state
        index = s.index
        if index == REG_A:
            value = s.cmos[REG_A]
            if self._is_running() and NS_PER_SECOND - self._time_ns() % NS_PER_SECOND <= UIP_NS:
                value |= A_UIP
            return value
        if index == REG_C:
            self._catch_up()
            value = s.flags
            if value & s.cmos[REG_B] & (C_PF | C_AF | C_UF):
                value |= C_IRQF
            s.flags = 0
            self._update()
            return value
        if index == REG_D:
            return D_VRT
        if index in TIME_REGISTERS and self._is_running():
            return self._time_registers()[index]
        return s.cmos[index]

    def port_write(self, offset: int, size: int, value: int) -> None:
        s = self.state
        if size != 1:
            write_wide(self.port_write, offset, size, value)
        elif offset == INDEX:
            s.index = value & (CMOS_SIZE - 1)
        elif offset != DATA or s.index in (REG_C, REG_D):
            return
        elif s.index in TIME_REGISTERS:
            if self._is_running():
                self._catch_up()
                self._freeze()
                s.cmos[s.index] = value
                self._thaw(self._time_ns() % NS_PER_SECOND)
            else:
                s.cmos[s.index] = value
        elif s.index in (REG_A, REG_B):
            self._write_control(s.index, value)
        else:
            self._catch_up()
            s.cmos[s.index] = value
            if s.index in (SECONDS_ALARM, MINUTES_ALARM, HOURS_ALARM):
                self._update()

    def _write_control(self, index: int, value: int) -> None:
        s = self.state
        self._catch_up()
        was_running = self._is_running()
        was_reset = s.cmos[REG_A] & A_DIVIDER_RESET == A_DIVIDER_RESET
        registers = self._time_registers() if was_running else {}
        if index == REG_A:
            s.cmos[REG_A] = value & ~A_UIP
        else:
            s.cmos[REG_B] = value & ~B_UIE if value & B_SET else value  # setting SET clears UIE
        running = self._is_running()
        if was_running and not running:
            for register, byte in registers.items():
                s.cmos[register] = byte
        elif running and not was_running:
            # Leaving the divider's reset, the first update comes half a second later ("Divider control")
            self._thaw(NS_PER_SECOND // 2 if was_reset else self._time_ns() % NS_PER_SECOND)
        self._update()

    # Time

    def _is_running(self) -> bool:
        cmos = self.state.cmos
        return not cmos[REG_B] & B_SET and cmos[REG_A] & A_DIVIDER_RESET != A_DIVIDER_RESET

    def _time_ns(self) -> int:
        return self._clock.wall_time_ns() + self.state.offset_ns

    def _encode(self, value: int) -> int:
        return value if self.state.cmos[REG_B] & B_BINARY else value // 10 << 4 | value % 10

    def _decode(self, value: int) -> int:
        return value if self.state.cmos[REG_B] & B_BINARY else (value >> 4) * 10 + (value & 15)

    def _encode_hour(self, hour: int) -> int:
        if self.state.cmos[REG_B] & B_24H:
            return self._encode(hour)
        return self._encode((hour + 11) % 12 + 1) | (HOUR_PM if hour >= 12 else 0)

    def _decode_hour(self, value: int) -> int:
        if self.state.cmos[REG_B] & B_24H:
            return self._decode(value)
        return self._decode(value & ~HOUR_PM) % 12 + (12 if value & HOUR_PM else 0)

    def _time_registers(self) -> dict[int, int]:
        days, second = divmod(self._time_ns() // NS_PER_SECOND, SECONDS_PER_DAY)
        year, month, day = civil_from_days(days)
        year %= 10_000
        encode = self._encode
        return {
            SECONDS: encode(second % 60),
            MINUTES: encode(second // 60 % 60),
            HOURS: self._encode_hour(second // 3600),
            DAY_OF_WEEK: encode((days + 4 + self.state.weekday_shift) % 7 + 1),
            DAY: encode(day),
            MONTH: encode(month),
            YEAR: encode(year % 100),
            CENTURY: encode(year // 100),
        }

    def _freeze(self) -> None:
        for register, byte in self._time_registers().items():
            self.state.cmos[register] = byte

    def _thaw(self, fraction_ns: int) -> None:
        """Let the clock run from what the time registers say, `fraction_ns` into that second."""
        s = self.state
        cmos = s.cmos
        year = self._decode(cmos[CENTURY]) * 100 + self._decode(cmos[YEAR])
        month = min(max(self._decode(cmos[MONTH]), 1), 12)
        days = days_from_civil(year, month, self._decode(cmos[DAY]))
        second = self._decode(cmos[MINUTES]) * 60 + self._decode(cmos[SECONDS])
        second += self._decode_hour(cmos[HOURS]) * 3600
        time_ns = (days * SECONDS_PER_DAY + second) * NS_PER_SECOND + fraction_ns
        s.offset_ns = time_ns - self._clock.wall_time_ns()
        s.weekday_shift = (self._decode(cmos[DAY_OF_WEEK]) - 1 - (days + 4)) % 7
        s.seen_ns = time_ns  # a jump of the time is no event

    # Events

    def _oscillator(self) -> int:
        return self._clock.now_ns() * OSCILLATOR_HZ // NS_PER_SECOND

    def _period(self) -> int:
        """Cycles of the oscillator between periodic events, 0 if off (table "Periodic interrupt rate")."""
        rate = self.state.cmos[REG_A] & A_RATE
        if not rate or self.state.cmos[REG_A] & A_DIVIDER_RESET == A_DIVIDER_RESET:
            return 0
        return 1 << (rate - 1 if rate > 2 else rate + 6)

    def _alarm_matches(self, register: int, limit: int) -> list[int]:
        value = self.state.cmos[register]
        if value >= ALARM_ANY:
            return list(range(limit))
        decoded = self._decode_hour(value) if register == HOURS_ALARM else self._decode(value)
        return [decoded] if decoded < limit else []

    def _next_alarm(self, after: int) -> int:
        """The first second later than `after` at which the alarm matches, or -1 if it never does."""
        hours = self._alarm_matches(HOURS_ALARM, 24)
        minutes = self._alarm_matches(MINUTES_ALARM, 60)
        seconds = self._alarm_matches(SECONDS_ALARM, 60)
        if not (hours and minutes and seconds):
            return -1
        midnight, start = divmod(after + 1, SECONDS_PER_DAY)
        midnight *= SECONDS_PER_DAY
        hour, minute, second = start // 3600, start // 60 % 60, start % 60
        if hour in hours:
            if minute in minutes:
                rest = [x for x in seconds if x >= second]
                if rest:
                    return midnight + hour * 3600 + minute * 60 + rest[0]
            later = [x for x in minutes if x > minute]
            if later:
                return midnight + hour * 3600 + later[0] * 60 + seconds[0]
        next_hours = [x for x in hours if x > hour]
        next_hour = next_hours[0] if next_hours else hours[0] + 24
        return midnight + next_hour * 3600 + minutes[0] * 60 + seconds[0]

    def _catch_up(self) -> None:
        """Put what happened since the last look into the flags."""
        s = self.state
        period = self._period()
        ticks = self._oscillator()
        if period and ticks // period > s.seen_ticks // period:
            s.flags |= C_PF
        s.seen_ticks = ticks
        now = self._time_ns()
        if self._is_running():
            old_second = s.seen_ns // NS_PER_SECOND
            new_second = now // NS_PER_SECOND
            if new_second > old_second:
                s.flags |= C_UF
                alarm = self._next_alarm(old_second)
                if 0 <= alarm <= new_second:
                    s.flags |= C_AF
        s.seen_ns = now

    def _on_timer(self) -> None:
        self._catch_up()
        self._update()

    def _update(self) -> None:
        """Drive the line; arm the next event that could raise it."""
        s = self.state
        enabled = s.cmos[REG_B] & (B_PIE | B_AIE | B_UIE)
        level = bool(s.flags & enabled)
        if level != self._level:
            self._level = level
            self._irq.set(level)
        if level or not enabled:
            self._timer.cancel()  # nothing changes before register C is read
            return
        now = self._clock.now_ns()
        deadlines = []
        period = self._period()
        if enabled & B_PIE and period:
            next_tick = (s.seen_ticks // period + 1) * period
            deadlines.append(-(-next_tick * NS_PER_SECOND // OSCILLATOR_HZ))
        if self._is_running():
            time_ns = self._time_ns()
            second = time_ns // NS_PER_SECOND
            if enabled & B_UIE:
                deadlines.append(now + (second + 1) * NS_PER_SECOND - time_ns)
            if enabled & B_AIE:
                alarm = self._next_alarm(second)
                if alarm >= 0:
                    deadlines.append(now + alarm * NS_PER_SECOND - time_ns)
        if deadlines:
            self._timer.arm(min(deadlines))
        else:
            self._timer.cancel()
