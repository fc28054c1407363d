"""The I/O thread: timers in real time, descriptors, errors."""

import os
import threading
import time

import pytest

from pyemu.clock import RealTimeClock
from pyemu.ioloop import IoLoop
from pyemu.outside import Outside


@pytest.fixture
def loop():
    clock = RealTimeClock(Outside())
    clock.resume()
    errors = []
    loop = IoLoop(clock, threading.RLock(), errors.append)
    loop.errors = errors
    loop.clock = clock
    loop.start()
    yield loop
    loop.stop()


def test_timer_fires_close_to_its_deadline(loop):
    done = threading.Event()
    at = []

    def fire():
        at.append(loop.clock.now_ns())
        done.set()

    late = []
    while not late or (late[-1] >= 15_000_000 and len(late) < 20):  # a busy host is late now and then
        time.sleep(0.02)  # the loop sleeps, with no deadline: arming must wake it
        deadline = loop.clock.now_ns() + 20_000_000
        done.clear()
        loop.clock.timer(fire).arm(deadline)
        assert done.wait(60)
        late.append(at[-1] - deadline)
    assert min(late) >= 0
    assert late[-1] < 15_000_000


def test_readable_descriptor(loop):
    read_end, write_end = os.pipe()
    got = threading.Event()
    data = []

    def readable():
        data.append(os.read(read_end, 100))
        got.set()

    loop.add_reader(read_end, readable)
    os.write(write_end, b"abc")
    assert got.wait(60)
    loop.remove_reader(read_end)
    assert data == [b"abc"]
    os.close(read_end)
    os.close(write_end)


def test_call_later_runs_in_order(loop):
    order, done = [], threading.Event()
    loop.call_later(20_000_000, lambda: (order.append(2), done.set()))
    loop.call_later(1_000_000, lambda: order.append(1))
    assert done.wait(60)
    assert order == [1, 2]


def test_urgent_request(loop):
    done = threading.Event()
    loop.urgent = done.set
    loop.wake()
    assert done.wait(60)


def test_an_error_is_reported_and_the_loop_goes_on(loop):
    done = threading.Event()

    def fail():
        raise ZeroDivisionError

    loop.call_later(0, fail)
    loop.call_later(1_000_000, done.set)
    assert done.wait(60)
    assert isinstance(loop.errors[0], ZeroDivisionError)


def test_a_descriptor_that_vanishes_does_not_stop_the_loop(loop):
    read_end, write_end = os.pipe()
    loop.add_reader(read_end, lambda: None)
    os.close(read_end)
    os.close(write_end)
    done = threading.Event()
    loop.call_later(5_000_000, done.set)
    assert done.wait(60)
