"""Test doubles for devices: a clock that stands still until told, lines and backends that remember."""

from collections.abc import Callable

from pyemu.devices.interfaces import Timer


class FakeTimer:
    def __init__(self, clock: "FakeClock", callback: Callable[[], None]) -> None:
        self.clock = clock
        self.callback = callback
        self.deadline: int | None = None

    def arm(self, deadline_ns: int) -> None:
        assert isinstance(deadline_ns, int)
        self.deadline = deadline_ns

    def cancel(self) -> None:
        self.deadline = None


class FakeClock:
    """Time moves only through advance(), which fires what becomes due, each timer at its own moment."""

    def __init__(self, now_ns: int = 1_000_000_007, wall_ns: int = 1_700_000_000_250_000_000) -> None:
        self.now = now_ns
        self.wall_offset = wall_ns - now_ns
        self.timers: list[FakeTimer] = []
        self.fired = 0

    def now_ns(self) -> int:
        return self.now

    def wall_time_ns(self) -> int:
        return self.now + self.wall_offset

    def timer(self, callback: Callable[[], None]) -> Timer:
        timer = FakeTimer(self, callback)
        self.timers.append(timer)
        return timer

    def next_deadline(self) -> int | None:
        return min((t.deadline for t in self.timers if t.deadline is not None), default=None)

    def advance(self, ns: int) -> None:
        end = self.now + ns
        while (deadline := self.next_deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self._fire_due()
        self.now = end

    def jump(self, ns: int) -> None:
        """Like advance, but as a busy host does it: everything that became due fires once, late."""
        self.now += ns
        self._fire_due()

    def _fire_due(self) -> None:
        for timer in list(self.timers):
            if timer.deadline is not None and timer.deadline <= self.now:
                timer.deadline = None
                self.fired += 1
                timer.callback()


class RecordingLine:
    """Level, number of rising edges, and all changes."""

    def __init__(self) -> None:
        self.level = False
        self.edges = 0
        self.history: list[bool] = []

    def set(self, level: bool) -> None:
        if level != self.level:
            self.level = level
            self.edges += level
            self.history.append(level)


class RecordingBackend:
    def __init__(self) -> None:
        self.output = bytearray()
        self.resumed = 0
        self.breaks: list[bool] = []

    def write(self, data: bytes) -> None:
        self.output += data

    def resume_input(self) -> None:
        self.resumed += 1

    def set_break(self, active: bool) -> None:
        self.breaks.append(active)
