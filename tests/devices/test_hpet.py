"""HPET: set up as Linux does, one-shot and periodic, levels, legacy replacement, 32 and 64 bit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyemu.devices import hpet as h
from pyemu.devices.hpet import Hpet
from tests.devices.helpers import FakeClock, RecordingLine


class Rig:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.lines = [RecordingLine() for _ in range(24)]
        self.legacy = [RecordingLine(), RecordingLine()]
        self.legacy_active: list[bool] = []
        self.hpet = Hpet(self.clock, self.lines, self.legacy, self.legacy_active.append)

    def get(self, offset: int, size: int = 4) -> int:
        return self.hpet.mmio_read(offset, size)

    def put(self, offset: int, value: int, size: int = 4) -> None:
        self.hpet.mmio_write(offset, size, value)

    def timer(self, n: int, register: int) -> int:
        return 0x100 + 0x20 * n + register

    def start(self) -> None:
        self.put(h.CONFIG, h.CONFIG_ENABLE)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_capabilities(rig: Rig) -> None:
    # Linux's hpet_enable() checks the period, hpet_readl() of ID and CFG
    assert rig.get(4) == 10_000_000
    assert rig.get(0) == 0x8086A201
    assert rig.get(0, 8) == 10_000_000 << 32 | 0x8086A201
    assert rig.get(0x104) == 0x00FF0104
    assert rig.get(0x160 + 0x20) == 0
    assert rig.get(0x100) == 0x30


def test_counter(rig: Rig) -> None:
    assert rig.get(0xF0) == 0
    rig.start()
    rig.clock.advance(12_345)
    assert rig.get(0xF0, 8) == 1234
    rig.put(h.CONFIG, 0)
    rig.clock.advance(10**9)
    assert rig.get(0xF0) == 1234
    rig.put(0xF0, 0xFFFFFFFF)
    rig.put(0xF4, 1)
    rig.start()
    rig.clock.advance(10)
    assert rig.get(0xF0) == 0
    assert rig.get(0xF4) == 2
    assert rig.get(0xF0, 8) == 2 << 32


def test_linux_legacy_periodic(rig: Rig) -> None:
    # hpet_enable_legacy_int(), hpet_clkevt_set_state_periodic()
    rig.put(h.CONFIG, h.CONFIG_LEGACY | h.CONFIG_ENABLE)
    assert rig.legacy_active == [True]
    rig.put(h.CONFIG, h.CONFIG_LEGACY)
    cfg = rig.get(0x100) | h.T_ENABLE | h.T_PERIODIC | h.T_SET_VALUE | h.T_32BIT
    rig.put(0x100, cfg)
    period = 400_000  # 4 ms
    rig.put(0x108, rig.get(0xF0) + period)
    rig.clock.advance(1000)
    rig.put(0x108, period)
    rig.put(h.CONFIG, h.CONFIG_LEGACY | h.CONFIG_ENABLE)
    rig.clock.advance(10**9 + 10)
    assert rig.legacy[0].edges == 250
    assert rig.get(0x108) == 251 * period
    fired = rig.clock.fired
    rig.clock.jump(10**9)  # late: one interrupt
    assert rig.legacy[0].edges == 251
    assert rig.clock.fired == fired + 1
    assert rig.get(0x108) == 501 * period


def test_linux_legacy_oneshot(rig: Rig) -> None:
    # hpet_clkevt_set_next_event()
    rig.put(h.CONFIG, h.CONFIG_LEGACY | h.CONFIG_ENABLE)
    rig.put(0x100, h.T_ENABLE | h.T_32BIT)
    for _ in range(3):
        count = rig.get(0xF0) + 1000
        rig.put(0x108, count)
        assert rig.get(0x108) == count
        rig.clock.advance(9_990)
        edges = rig.legacy[0].edges
        rig.clock.advance(10)
        assert rig.legacy[0].edges == edges + 1
    rig.put(0x100, h.T_32BIT)
    assert rig.clock.next_deadline() is None


def test_32_bit_one_shot_matches_again_after_a_wrap(rig: Rig) -> None:
    rig.put(0x100, h.T_ENABLE | h.T_32BIT | 2 << 9)
    rig.put(0x108, 100)
    rig.start()
    rig.clock.advance(10 * (100 + 2**32))
    assert rig.lines[2].edges == 2


def test_level_interrupt_and_status(rig: Rig) -> None:
    rig.start()
    rig.put(0x140, h.T_ENABLE | h.T_LEVEL | 20 << 9)
    rig.put(0x148, 500, 8)
    rig.clock.advance(5_000)
    assert rig.lines[20].level
    assert rig.get(h.STATUS) == 4
    rig.put(h.STATUS, 3)
    assert rig.lines[20].level
    rig.put(h.STATUS, 4)
    assert not rig.lines[20].level
    assert rig.get(h.STATUS) == 0


def test_64_bit_comparator_in_halves(rig: Rig) -> None:
    rig.put(0x100, h.T_ENABLE | 16 << 9)
    rig.put(0x108, 5)
    rig.put(0x10C, 1)
    assert rig.get(0x108, 8) == 1 << 32 | 5
    rig.start()
    rig.clock.advance(10 * ((1 << 32) + 4))
    assert rig.lines[16].edges == 0
    rig.clock.advance(10)
    assert rig.lines[16].edges == 1


def test_unroutable_interrupts_go_nowhere(rig: Rig) -> None:
    rig.put(0x100, h.T_ENABLE | 5 << 9)
    rig.put(0x108, 5, 8)
    rig.start()
    rig.clock.advance(1000)
    assert not any(line.edges for line in rig.lines)


def test_tiny_period_is_bounded(rig: Rig) -> None:
    rig.put(0x100, h.T_ENABLE | h.T_PERIODIC | h.T_SET_VALUE | h.T_32BIT | 2 << 9)
    rig.put(0x108, 1)
    rig.start()
    rig.clock.advance(10_000_000)
    assert rig.clock.fired <= 501


def test_reset_ends_legacy_replacement(rig: Rig) -> None:
    rig.put(h.CONFIG, h.CONFIG_LEGACY)
    rig.hpet.reset()
    assert rig.legacy_active == [True, False]
    assert rig.get(h.CONFIG) == 0


@given(
    st.lists(
        st.tuples(
            st.sampled_from("wwrt"),
            st.sampled_from([0, 4, 0x10, 0x20, 0xF0, 0xF4, 0x3FC, *(0x100 + 4 * i for i in range(26))]),
            st.sampled_from([1, 2, 4, 8]),
            st.one_of(st.integers(0, 0x3FFF), st.integers(0, 2**64 - 1)),
        ),
        max_size=60,
    )
)
def test_random(actions: list[tuple[str, int, int, int]]) -> None:
    rig = Rig()
    for kind, offset, size, value in actions:
        if kind == "w":
            rig.put(offset, value & ((1 << 8 * size) - 1), size)
        elif kind == "r":
            assert 0 <= rig.get(offset, size) < 1 << 8 * size
        else:
            rig.clock.jump(value % 10**10)
    record = rig.hpet.snapshot()
    other = Rig()
    other.clock.now = rig.clock.now
    other.hpet.restore(record)
    assert other.get(0xF0, 8) == rig.get(0xF0, 8)
    assert [other.get(0x108 + 32 * i, 8) for i in range(3)] == [rig.get(0x108 + 32 * i, 8) for i in range(3)]
