"""The one clock of a machine, and its timers.

TSC, PIT, HPET, PM timer, APIC timer and RTC all derive from `now_ns`, so they tell coherent time. Two sources:
`RealTimeClock` follows the host's monotonic clock while the machine runs; `CountedClock` follows the number of
executed guest instructions (`-icount`), so a run is the same every time. Timer callbacks run on whichever thread
calls `run_due`, with the device lock held by that caller.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from typing import Any

from pyemu.outside import Outside

# The TSC of every machine; CPUID leaf 0x15/0x16 and the boot loader's hints may tell the guest.
TSC_HZ = 2_500_000_000
_NS = 1_000_000_000


def ns_to_tsc(ns: int) -> int:
    return ns * TSC_HZ // _NS


def tsc_to_ns(tsc: int) -> int:
    """First nanosecond at which the TSC has reached `tsc`."""
    return -(-tsc * _NS // TSC_HZ)


class ClockTimer:
    """One alarm. Armed again it forgets its former deadline."""

    __slots__ = ("_callback", "_clock", "deadline", "generation")

    def __init__(self, clock: Clock, callback: Callable[[], None]) -> None:
        self._clock = clock
        self._callback = callback
        self.deadline: int | None = None
        self.generation = 0  # entries of the heap with another generation are stale

    def arm(self, deadline_ns: int) -> None:
        self.generation += 1
        self.deadline = deadline_ns
        self._clock.push(self, deadline_ns)

    def cancel(self) -> None:
        self.generation += 1
        self.deadline = None

    @property
    def callback(self) -> Callable[[], None]:
        return self._callback

    def fire(self) -> None:
        self.deadline = None
        self._callback()


class Clock:
    """Timers over `now_ns`; subclasses say what time it is. Implements `pyemu.devices.interfaces.Clock`."""

    def __init__(self, outside: Outside, wall_start_ns: int | None = None) -> None:
        self._outside = outside
        self._wall_start = outside.wall_ns() if wall_start_ns is None else wall_start_ns
        self._heap: list[tuple[int, int, int, ClockTimer]] = []
        self._sequence = 0
        self._timers: list[ClockTimer] = []  # of the devices, in the order in which they were made
        # Called when the earliest deadline moved closer: somebody may be sleeping until a later one.
        self.on_earlier: Callable[[], None] | None = None

    def now_ns(self) -> int:
        """Nanoseconds since power-on, as the guest sees them."""
        raise NotImplementedError

    def pause(self) -> None:
        """The guest's time stands still from here..."""

    def resume(self) -> None:
        """... to here."""

    def wall_time_ns(self) -> int:
        # Derived from the machine's own clock: the RTC never drifts against the TSC, and stands still in a pause.
        return self._wall_start + self.now_ns()

    def read_tsc(self) -> int:
        return self.now_ns() * TSC_HZ // _NS

    def timer(self, callback: Callable[[], None]) -> ClockTimer:
        """A device's alarm, which belongs to a snapshot; others make a ClockTimer themselves."""
        timer = ClockTimer(self, callback)
        self._timers.append(timer)
        return timer

    def snapshot(self) -> dict[str, Any]:
        """The time, and the devices' alarms in the order in which they will fire."""
        number = {id(timer): n for n, timer in enumerate(self._timers)}
        alarms = [
            [number[id(timer)], deadline]
            for deadline, _, generation, timer in sorted(self._heap, key=lambda entry: entry[:2])
            if generation == timer.generation and id(timer) in number
        ]
        return {"now": self.now_ns(), "wall_start": self._wall_start, "alarms": alarms}

    def can_restore(self, record: Mapping[str, Any]) -> bool:
        """Whether a record is one of a clock with these timers."""
        if record.keys() != {"now", "wall_start", "alarms"} or not isinstance(record["alarms"], list):
            return False
        if type(record["now"]) is not int or type(record["wall_start"]) is not int:
            return False
        for alarm in record["alarms"]:
            if not isinstance(alarm, list) or [type(word) for word in alarm] != [int, int]:
                return False
            if not 0 <= alarm[0] < len(self._timers):
                return False
        return True

    def restore(self, record: Mapping[str, Any]) -> None:
        """Take over the time; restore_alarms() follows when the devices have theirs. While the machine stands still."""
        self._wall_start = record["wall_start"]
        self._set_now(record["now"])

    def restore_alarms(self, record: Mapping[str, Any]) -> None:
        for timer in self._timers:
            timer.cancel()
        self._heap = [entry for entry in self._heap if entry[2] == entry[3].generation]
        heapq.heapify(self._heap)
        for number, deadline in record["alarms"]:
            self._timers[number].arm(deadline)
        if self.on_earlier is not None:
            self.on_earlier()  # whoever sleeps does so by a time that is no more

    def _set_now(self, ns: int) -> None:
        raise NotImplementedError

    def push(self, timer: ClockTimer, deadline: int) -> None:
        """For ClockTimer only."""
        heap = self._heap
        self._sequence += 1
        earlier = not heap or deadline < heap[0][0]
        if len(heap) > 256 and len(heap) > 8 * self._live():
            self._heap = heap = [entry for entry in heap if entry[2] == entry[3].generation]
            heapq.heapify(heap)
        heapq.heappush(heap, (deadline, self._sequence, timer.generation, timer))
        if earlier and self.on_earlier is not None:
            self.on_earlier()

    def _live(self) -> int:
        return sum(entry[2] == entry[3].generation for entry in self._heap)

    def next_deadline(self) -> int | None:
        heap = self._heap
        while heap and heap[0][2] != heap[0][3].generation:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def armed(self) -> list[tuple[int, Callable[[], None]]]:
        """Deadline and callback of every armed timer, earliest first."""
        live = sorted(entry for entry in self._heap if entry[2] == entry[3].generation)
        return [(deadline, timer.callback) for deadline, _, _, timer in live]

    def run_due(self, limit: int = 64) -> int:
        """Fire what is due, oldest first, at most `limit` callbacks (a guest may ask for absurd rates)."""
        fired = 0
        while fired < limit:
            deadline = self.next_deadline()
            if deadline is None or deadline > self.now_ns():
                break
            heapq.heappop(self._heap)[3].fire()
            fired += 1
        return fired


class RealTimeClock(Clock):
    """Runs with the host's monotonic clock, except while the machine is stopped."""

    def __init__(self, outside: Outside, wall_start_ns: int | None = None) -> None:
        super().__init__(outside, wall_start_ns)
        self._monotonic = outside.monotonic_ns
        self._offset = 0  # guest time = host time - offset while running
        self._paused_at: int | None = 0  # guest time at which it stands still

    def now_ns(self) -> int:
        if self._paused_at is not None:
            return self._paused_at
        return self._monotonic() - self._offset

    def pause(self) -> None:
        if self._paused_at is None:
            self._paused_at = self.now_ns()

    def _set_now(self, ns: int) -> None:
        self._paused_at = ns

    def resume(self) -> None:
        if self._paused_at is not None:
            self._offset = self._monotonic() - self._paused_at
            self._paused_at = None


class CountedClock(Clock):
    """One instruction takes `2**shift` ns; idle time is skipped by `skip_to`."""

    def __init__(
        self, outside: Outside, instructions: Callable[[], int], shift: int, wall_start_ns: int | None = None
    ) -> None:
        super().__init__(outside, wall_start_ns)
        self._instructions = instructions
        self.shift = shift
        self._skipped = 0

    def now_ns(self) -> int:
        return (self._instructions() << self.shift) + self._skipped

    def _set_now(self, ns: int) -> None:
        """The instruction count must already be what it shall be."""
        self._skipped += ns - self.now_ns()

    def skip_to(self, ns: int) -> None:
        """The vCPU is halted and nothing happens before `ns`."""
        ahead = ns - self.now_ns()
        if ahead > 0:
            self._skipped += ahead

    def instructions_until(self, deadline_ns: int) -> int:
        """Smallest number of further instructions after which `deadline_ns` is reached."""
        ahead = deadline_ns - self.now_ns()
        return max(0, -((-ahead) >> self.shift))
