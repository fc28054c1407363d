"""Clocks and timers."""

import pytest

from pyemu.clock import CountedClock, RealTimeClock, ns_to_tsc, tsc_to_ns
from pyemu.outside import Outside


class FakeOutside(Outside):
    def __init__(self):
        self.now = 1000
        self.wall = 5_000_000

    def monotonic_ns(self):
        return self.now

    def wall_ns(self):
        return self.wall


@pytest.fixture
def outside():
    return FakeOutside()


@pytest.fixture
def clock(outside):
    clock = RealTimeClock(outside)
    clock.resume()
    return clock


def test_time_starts_at_zero_and_follows_the_host(clock, outside):
    assert clock.now_ns() == 0
    outside.now += 250
    assert clock.now_ns() == 250
    assert clock.wall_time_ns() == 5_000_250


def test_time_stands_still_in_a_pause(clock, outside):
    outside.now += 100
    clock.pause()
    outside.now += 10**12
    assert clock.now_ns() == 100
    clock.pause()
    clock.resume()
    clock.resume()
    outside.now += 7
    assert clock.now_ns() == 107


def test_timers_fire_in_order_once(clock, outside):
    fired = []
    timers = [clock.timer(lambda n=n: fired.append(n)) for n in range(3)]
    for n, deadline in ((0, 300), (1, 100), (2, 200)):
        timers[n].arm(deadline)
    assert clock.next_deadline() == 100
    outside.now += 200
    clock.run_due()
    assert fired == [1, 2]
    outside.now += 1000
    clock.run_due()
    clock.run_due()
    assert fired == [1, 2, 0]
    assert clock.next_deadline() is None


def test_arming_again_moves_and_cancel_forgets(clock, outside):
    fired = []
    timer = clock.timer(lambda: fired.append(clock.now_ns()))
    timer.arm(100)
    timer.arm(500)
    outside.now += 200
    clock.run_due()
    assert fired == []
    timer.cancel()
    outside.now += 1000
    clock.run_due()
    assert fired == []
    assert clock.next_deadline() is None


def test_a_callback_may_arm_again_but_not_for_ever(clock, outside):
    """A guest's absurd rate must not keep the loop in here."""
    count = 0

    def again():
        nonlocal count
        count += 1
        timer.arm(0)

    timer = clock.timer(again)
    timer.arm(0)
    assert clock.run_due(limit=10) == 10
    assert count == 10


def test_who_sleeps_is_told_of_earlier_deadlines(clock):
    told = []
    clock.on_earlier = lambda: told.append(clock.next_deadline())
    a, b = clock.timer(lambda: None), clock.timer(lambda: None)
    a.arm(1000)
    b.arm(2000)
    b.arm(500)
    assert told == [1000, 500]


def test_stale_entries_do_not_pile_up(clock):
    timer = clock.timer(lambda: None)
    for deadline in range(10_000, 0, -1):
        timer.arm(deadline)
    assert len(clock._heap) < 1000


def test_counted_clock(outside):
    executed = 0
    clock = CountedClock(outside, lambda: executed, shift=3)
    assert clock.now_ns() == 0
    executed = 10
    outside.now += 10**9
    assert clock.now_ns() == 80
    assert clock.instructions_until(81) == 1
    assert clock.instructions_until(88) == 1
    assert clock.instructions_until(89) == 2
    assert clock.instructions_until(80) == 0
    assert clock.instructions_until(0) == 0
    clock.skip_to(1000)
    assert clock.now_ns() == 1000
    clock.skip_to(5)  # never back
    executed += 1
    assert clock.now_ns() == 1008


@pytest.mark.parametrize("tsc", [0, 1, 2, 3, 4, 5, 12345, 10**15 + 1])
def test_tsc_conversion_rounds_up(tsc):
    ns = tsc_to_ns(tsc)
    assert ns_to_tsc(ns) >= tsc
    assert ns == 0 or ns_to_tsc(ns - 1) < tsc


def test_read_tsc_is_coherent(clock, outside):
    outside.now += 1_000_000_000
    assert clock.read_tsc() == ns_to_tsc(clock.now_ns()) == 2_500_000_000
