"""8254 and port 0x61: Linux's calibrations, each mode's count and output, latch and read-back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyemu.devices.pit8254 import PIT_HZ, REFRESH_NS, Pit8254
from tests.devices.helpers import FakeClock, RecordingLine

SECOND = 1_000_000_000


def ns(ticks: int) -> int:
    """The first moment at which this many ticks have passed."""
    return -(-ticks * SECOND // PIT_HZ)


class Rig:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.irq = RecordingLine()
        self.pit = Pit8254(self.clock, self.irq)

    def program(self, channel: int, mode: int, count: int, bcd: int = 0) -> None:
        self.pit.port_write(3, 1, channel << 6 | 0x30 | mode << 1 | bcd)
        self.pit.port_write(channel, 1, count & 0xFF)
        self.pit.port_write(channel, 1, count >> 8)

    def read(self, channel: int) -> int:
        return self.pit.port_read(channel, 1) | self.pit.port_read(channel, 1) << 8

    def latch(self, channel: int) -> int:
        self.pit.port_write(3, 1, channel << 6)
        return self.read(channel)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_linux_pit_calibrate_tsc(rig: Rig) -> None:
    # arch/x86/kernel/tsc.c, pit_calibrate_tsc(): poll OUT2 through port 0x61
    port61 = rig.pit.port61
    port61.port_write(0, 1, port61.port_read(0, 1) & ~0x02 | 0x01)
    latch = PIT_HZ // (1000 // 50)
    rig.program(2, 0, latch)
    start = rig.clock.now
    while not port61.port_read(0, 1) & 0x20:
        rig.clock.advance(1000)
        assert rig.clock.now - start < SECOND
    assert rig.clock.now - start == pytest.approx(50_000_000, abs=3000)


def test_linux_quick_pit_calibrate(rig: Rig) -> None:
    # quick_pit_calibrate(): the high byte of channel 2 counts down every 256 ticks
    rig.pit.port61.port_write(0, 1, 1)
    rig.program(2, 0, 0xFFFF)
    rig.pit.port_read(2, 1)
    assert rig.pit.port_read(2, 1) == 0xFF
    for high in (0xFE, 0xFD, 0xFC):
        rig.clock.advance(ns(256))
        rig.pit.port_read(2, 1)
        assert rig.pit.port_read(2, 1) == high


def test_periodic_interrupts_at_hz_250(rig: Rig) -> None:
    rig.program(0, 2, 4773)
    rig.irq.edges = 0
    rig.clock.advance(SECOND)
    assert rig.irq.edges == PIT_HZ // 4773 == 249
    fired = rig.clock.fired
    rig.clock.jump(10 * SECOND)  # late: coalesces
    assert rig.clock.fired == fired + 1
    assert rig.irq.edges == 250


@pytest.mark.parametrize("mode", [2, 3])
def test_interrupt_phase_has_no_drift(rig: Rig, mode: int) -> None:
    start = rig.clock.now
    rig.program(0, mode, 1000)
    rig.clock.advance(ns(1000 * 500) - 1)
    edges = rig.irq.edges
    rig.clock.advance(1)
    assert rig.irq.edges == edges + 1
    assert rig.clock.now == start + ns(500_000)


def test_tiny_period_is_bounded(rig: Rig) -> None:
    rig.program(0, 2, 1)
    rig.clock.advance(SECOND // 100)
    assert rig.clock.fired <= 501


def test_one_shot_interrupt(rig: Rig) -> None:
    # pit_set_oneshot(), pit_next_event(): mode 4
    rig.pit.port_write(3, 1, 0x38)
    rig.irq.edges = 0
    for _ in range(2):
        rig.pit.port_write(0, 1, 0x00)
        rig.pit.port_write(0, 1, 0x10)
        rig.clock.advance(ns(0x1002))
    assert rig.irq.edges == 2
    assert rig.clock.next_deadline() is None


def test_mode_0_interrupts_once_and_stays_high(rig: Rig) -> None:
    rig.program(0, 0, 100)
    assert not rig.irq.level
    rig.clock.advance(ns(100) - 1)
    assert not rig.irq.level
    rig.clock.advance(1)
    assert rig.irq.level
    rig.clock.advance(SECOND)
    assert rig.irq.edges == 1
    assert rig.latch(0) == (100 - rig.pit._ticks(rig.pit.state.channels[0])) & 0xFFFF  # goes on below zero
    rig.pit.port_write(3, 1, 0x30)
    assert not rig.irq.level


def test_mode_0_first_byte_stops_counting(rig: Rig) -> None:
    rig.program(0, 0, 1000)
    rig.pit.port_write(0, 1, 0xE8)
    rig.clock.advance(SECOND)
    assert not rig.irq.level
    rig.pit.port_write(0, 1, 0x03)
    rig.clock.advance(ns(1000))
    assert rig.irq.level


def test_count_in_modes_2_and_3(rig: Rig) -> None:
    rig.program(2, 2, 100)
    rig.program(1, 2, 100)
    rig.clock.advance(ns(130))
    assert rig.latch(1) == 70
    assert rig.latch(2) == 100  # gate 2 is low: not counting
    rig.program(1, 3, 101)
    outs, counts = [], []
    start = rig.clock.now
    for tick in range(102):
        rig.clock.now = start + ns(tick)
        outs.append(rig.pit.output(1))
        counts.append(rig.latch(1))
    assert outs[:101].count(True) == 51  # high for (n + 1) / 2
    assert counts[0] == 100 and counts[1] == 98 and counts[50] == 0 and counts[51] == 100 and counts[101] == 100


def test_gate_of_channel_2(rig: Rig) -> None:
    port61 = rig.pit.port61
    port61.port_write(0, 1, 1)
    rig.program(2, 0, 1000)
    rig.clock.advance(ns(400))
    port61.port_write(0, 1, 0)
    rig.clock.advance(SECOND)
    assert rig.latch(2) == 600
    port61.port_write(0, 1, 1)
    rig.clock.advance(ns(599))
    assert not port61.port_read(0, 1) & 0x20
    rig.clock.advance(ns(2))
    assert port61.port_read(0, 1) & 0x20


@pytest.mark.parametrize("mode", [1, 5])
def test_triggered_modes(rig: Rig, mode: int) -> None:
    rig.pit.port61.port_write(0, 1, 0)
    rig.program(2, mode, 50)
    assert rig.pit.output(2)
    rig.clock.advance(SECOND)
    rig.pit.port61.port_write(0, 1, 1)
    rig.clock.advance(ns(20))
    assert rig.pit.output(2) == (mode == 5)
    rig.pit.port61.port_write(0, 1, 0)
    rig.pit.port61.port_write(0, 1, 1)  # retrigger
    rig.clock.advance(ns(50) if mode == 5 else ns(49))
    assert not rig.pit.output(2)
    rig.clock.advance(ns(3))
    assert rig.pit.output(2)


def test_latch_holds_until_read(rig: Rig) -> None:
    rig.program(1, 2, 0)
    rig.clock.advance(ns(0x100))
    rig.pit.port_write(3, 1, 0x40)
    rig.clock.advance(ns(0x1000))
    rig.pit.port_write(3, 1, 0x40)  # a second latch is ignored
    assert rig.read(1) == 0xFF00
    assert rig.latch(1) < 0xF000


def test_read_back(rig: Rig) -> None:
    rig.program(0, 2, 1000)
    rig.pit.port_write(3, 1, 0xC0 | 2)  # count and status of channel 0
    assert rig.pit.port_read(0, 1) == 0x80 | 0x34
    assert rig.read(0) == 1000
    rig.pit.port_write(3, 1, 0x36)
    rig.pit.port_write(3, 1, 0xE0 | 2)
    assert rig.pit.port_read(0, 1) == 0x80 | 0x40 | 0x36  # null count


def test_bcd(rig: Rig) -> None:
    rig.program(1, 2, 0x1234, bcd=1)
    rig.clock.advance(ns(35))
    assert rig.latch(1) == 0x1199
    rig.program(1, 2, 0, bcd=1)
    rig.clock.advance(ns(1))
    assert rig.latch(1) == 0x9999


def test_byte_access_modes(rig: Rig) -> None:
    rig.pit.port_write(3, 1, 0x54)
    rig.pit.port_write(1, 1, 0x12)
    assert rig.pit.port_read(1, 1) == rig.pit.port_read(1, 1) == 0x12
    rig.pit.port_write(3, 1, 0x64)
    rig.pit.port_write(1, 1, 0x12)
    assert rig.pit.port_read(1, 1) == 0x12
    assert rig.pit.state.channels[1].reload == 0x1200


def test_port_61_refresh_toggle_and_storage(rig: Rig) -> None:
    rig.pit.port61.port_write(0, 1, 0xFF)
    assert rig.pit.port61.port_read(0, 1) & 0xCF == 0x0F
    first = rig.pit.port61.port_read(0, 1) & 0x10
    rig.clock.advance(REFRESH_NS)
    assert rig.pit.port61.port_read(0, 1) & 0x10 != first


@given(
    st.lists(
        st.tuples(st.sampled_from("wrg6t"), st.integers(0, 3), st.sampled_from([1, 2, 4]), st.integers(0, 2**32 - 1)),
        max_size=60,
    )
)
def test_random(actions: list[tuple[str, int, int, int]]) -> None:
    rig = Rig()
    for kind, offset, size, value in actions:
        value &= (1 << 8 * size) - 1
        if kind == "w":
            rig.pit.port_write(offset, size, value)
        elif kind == "r":
            assert 0 <= rig.pit.port_read(offset, size) < 1 << 8 * size
        elif kind == "g":
            rig.pit.port61.port_write(0, 1, value & 0xFF)
        elif kind == "6":
            assert 0 <= rig.pit.port61.port_read(0, 1) <= 0xFF
        else:
            rig.clock.advance(value % 3_000_000)
    record = rig.pit.snapshot()
    other = Rig()
    other.clock.now = rig.clock.now
    other.pit.restore(record)
    assert other.pit.snapshot() == record
    assert [other.pit.output(i) for i in range(3)] == [rig.pit.output(i) for i in range(3)]
