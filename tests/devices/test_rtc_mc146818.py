"""MC146818: time and its setting, UIP as Linux waits for it, all three interrupts, memory size bytes."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyemu.devices import rtc_mc146818 as r
from pyemu.devices.rtc_mc146818 import RtcMc146818
from tests.devices.helpers import FakeClock, RecordingLine

SECOND = 1_000_000_000
START = datetime.datetime(2023, 11, 14, 22, 13, 20, 250_000, tzinfo=datetime.UTC)  # FakeClock's wall time


class Rig:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.irq = RecordingLine()
        self.rtc = RtcMc146818(self.clock, self.irq, r.memory_size_bytes(512 << 20, 1 << 30))

    def get(self, index: int) -> int:
        self.rtc.port_write(0, 1, index)
        return self.rtc.port_read(1, 1)

    def put(self, index: int, value: int) -> None:
        self.rtc.port_write(0, 1, index)
        self.rtc.port_write(1, 1, value)

    def time(self) -> tuple[int, ...]:
        return tuple(self.get(i) for i in (r.CENTURY, r.YEAR, r.MONTH, r.DAY, r.HOURS, r.MINUTES, r.SECONDS))


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_time_in_bcd_and_binary(rig: Rig) -> None:
    assert rig.time() == (0x20, 0x23, 0x11, 0x14, 0x22, 0x13, 0x20)
    assert rig.get(r.DAY_OF_WEEK) == 3  # Tuesday
    rig.put(r.REG_B, r.B_24H | r.B_BINARY)
    assert rig.time() == (20, 23, 11, 14, 22, 13, 20)
    rig.put(r.REG_B, 0)
    assert rig.get(r.HOURS) == 0x90  # 10 pm
    rig.clock.advance(2 * 3600 * SECOND)
    assert rig.get(r.HOURS) == 0x12


@given(st.datetimes(datetime.datetime(1, 1, 1), datetime.datetime(9999, 12, 31)))
def test_calendar(moment: datetime.datetime) -> None:
    days = (moment.date() - datetime.date(1970, 1, 1)).days
    assert r.days_from_civil(moment.year, moment.month, moment.day) == days
    assert r.civil_from_days(days) == (moment.year, moment.month, moment.day)


def test_linux_reads_time_outside_of_update(rig: Rig) -> None:
    # mc146818_get_time(): UIP is clear, and stays so for 244 us at least
    toggles = 0
    last = rig.get(r.REG_A) & r.A_UIP
    for _ in range(10_000):
        rig.clock.advance(200_000)
        uip = rig.get(r.REG_A) & r.A_UIP
        toggles += uip != last
        last = uip
    assert toggles == 4  # two seconds
    while not rig.get(r.REG_A) & r.A_UIP:
        rig.clock.advance(50_000)
    before = rig.get(r.SECONDS)
    rig.clock.advance(r.UIP_NS)
    assert not rig.get(r.REG_A) & r.A_UIP
    assert rig.get(r.SECONDS) != before


def test_setting_the_time(rig: Rig) -> None:
    # mc146818_set_time(): stop with SET and the divider, write, start again
    rig.put(r.REG_B, r.B_24H | r.B_SET)
    rig.put(r.REG_A, 0x60 | r.A_DIVIDER_RESET)
    for index, value in (
        (r.YEAR, 0x99), (r.MONTH, 0x12), (r.DAY, 0x31), (r.HOURS, 0x23), (r.MINUTES, 0x59), (r.SECONDS, 0x58),
        (r.CENTURY, 0x19), (r.DAY_OF_WEEK, 6),
    ):  # fmt: skip
        rig.put(index, value)
    rig.clock.advance(5 * SECOND)
    assert rig.time() == (0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x58)
    assert not rig.get(r.REG_A) & r.A_UIP
    rig.put(r.REG_B, r.B_24H)
    rig.put(r.REG_A, 0x26)
    rig.clock.advance(SECOND // 2)
    assert rig.get(r.SECONDS) == 0x59
    rig.clock.advance(SECOND)
    assert rig.time() == (0x20, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00)
    assert rig.get(r.DAY_OF_WEEK) == 7


def test_writing_one_register_while_running(rig: Rig) -> None:
    rig.put(r.MINUTES, 0x45)
    rig.clock.advance(SECOND)
    assert rig.time() == (0x20, 0x23, 0x11, 0x14, 0x22, 0x45, 0x21)


def test_update_interrupt(rig: Rig) -> None:
    rig.get(r.REG_C)
    rig.put(r.REG_B, r.B_24H | r.B_UIE)
    rig.clock.advance(750_000_000 - 1)
    assert not rig.irq.level
    rig.clock.advance(1)
    assert rig.irq.level
    rig.clock.advance(5 * SECOND)
    assert rig.irq.edges == 1  # held until read
    assert rig.get(r.REG_C) == r.C_IRQF | r.C_UF | r.C_PF
    assert not rig.irq.level
    assert rig.get(r.REG_C) == 0
    rig.clock.advance(SECOND)
    assert rig.irq.level


@pytest.mark.parametrize(("rate", "hz"), [(6, 1024), (15, 2), (3, 8192), (1, 256), (2, 128)])
def test_periodic_interrupt(rig: Rig, rate: int, hz: int) -> None:
    rig.put(r.REG_A, 0x20 | rate)
    rig.put(r.REG_B, r.B_24H | r.B_PIE)
    rig.get(r.REG_C)
    count = 0
    end = rig.clock.now + SECOND
    while (deadline := rig.clock.next_deadline()) is not None and deadline <= end:
        rig.clock.advance(deadline - rig.clock.now)
        assert rig.irq.level
        assert rig.get(r.REG_C) & (r.C_PF | r.C_IRQF) == r.C_PF | r.C_IRQF
        assert not rig.irq.level
        count += 1
    assert count == hz


def test_polled_flags_need_no_timer(rig: Rig) -> None:
    rig.get(r.REG_C)
    rig.clock.advance(SECOND)
    assert rig.clock.next_deadline() is None
    assert rig.get(r.REG_C) == r.C_UF | r.C_PF
    assert not rig.irq.history


@pytest.mark.parametrize(
    ("hour", "minute", "second", "expected"),
    [
        (0x22, 0x13, 0x21, 1),
        (0x22, 0x13, 0x20, 86_400),
        (0xFF, 0x14, 0x00, 40),
        (0xC0, 0xC0, 0x19, 59),
        (0x07, 0x30, 0x00, 9 * 3600 + 16 * 60 + 40),
        (0x22, 0xFF, 0xFF, 1),
    ],
)
def test_alarm(rig: Rig, hour: int, minute: int, second: int, expected: int) -> None:
    rig.put(r.HOURS_ALARM, hour)
    rig.put(r.MINUTES_ALARM, minute)
    rig.put(r.SECONDS_ALARM, second)
    rig.get(r.REG_C)
    rig.put(r.REG_B, r.B_24H | r.B_AIE)
    rig.clock.advance(expected * SECOND - 250_000_000 - 1)
    assert not rig.irq.level
    rig.clock.advance(1)
    assert rig.irq.level
    assert rig.clock.fired == 1
    assert rig.get(r.REG_C) & (r.C_AF | r.C_IRQF) == r.C_AF | r.C_IRQF


def test_impossible_alarm(rig: Rig) -> None:
    rig.put(r.SECONDS_ALARM, 0x99)
    rig.put(r.REG_B, r.B_24H | r.B_AIE)
    assert rig.clock.next_deadline() is None


def test_set_clears_uie_and_stops_updates(rig: Rig) -> None:
    rig.put(r.REG_B, r.B_24H | r.B_UIE)
    rig.put(r.REG_B, r.B_24H | r.B_UIE | r.B_SET)
    assert rig.get(r.REG_B) == r.B_24H | r.B_SET
    rig.get(r.REG_C)
    rig.clock.advance(3 * SECOND)
    assert not rig.get(r.REG_C) & r.C_UF


def test_cmos_contents(rig: Rig) -> None:
    assert rig.get(0x15) | rig.get(0x16) << 8 == 640
    assert rig.get(0x17) | rig.get(0x18) << 8 == 0xFFFF
    assert (rig.get(0x34) | rig.get(0x35) << 8) << 16 == (512 - 16) << 20
    assert (rig.get(0x5B) | rig.get(0x5C) << 8 | rig.get(0x5D) << 16) << 16 == 1 << 30
    assert rig.get(r.REG_D) == 0x80
    assert sum(rig.get(i) for i in range(0x10, 0x2E)) == rig.get(0x2E) << 8 | rig.get(0x2F)
    rig.put(0x40, 0x5A)
    rig.rtc.reset()
    assert rig.get(0xC0) == 0x5A  # bit 7 of the index is the NMI mask
    assert rig.rtc.port_read(0, 1) == 0xFF


@given(
    st.lists(
        st.tuples(st.sampled_from("wwwrt"), st.integers(0, 255), st.integers(0, 255), st.integers(0, 10**12)),
        max_size=50,
    )
)
def test_random(actions: list[tuple[str, int, int, int]]) -> None:
    rig = Rig()
    for kind, index, value, ns in actions:
        if kind == "w":
            rig.put(index % 16 if ns & 1 else index, value)
        elif kind == "r":
            assert 0 <= rig.get(index % 16) <= 0xFF
        else:
            rig.clock.jump(ns)
    record = rig.rtc.snapshot()
    other = Rig()
    other.clock.now = rig.clock.now
    other.rtc.restore(record)
    assert other.rtc.snapshot() == record
    assert other.irq.level == rig.irq.level
