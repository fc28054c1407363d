"""The local APIC's timer: one-shot, periodic and TSC-deadline mode.

Reference: Intel SDM volume 3A, 10.5.4 "APIC Timer" and 10.5.4.1 "TSC-Deadline Mode". The input clock is 1 GHz, so one
undivided tick is one nanosecond of the clock. The count is computed on reading; a host timer is armed only while the
entry isn't masked.
"""

from collections.abc import Callable
from dataclasses import dataclass

from pyemu.devices.device import MIN_REARM_NS
from pyemu.devices.interfaces import Clock

MODE_ONE_SHOT, MODE_PERIODIC, MODE_DEADLINE = 0 << 17, 1 << 17, 2 << 17
TIMER_MODE_MASK = 3 << 17
MASKED = 1 << 16


@dataclass(slots=True)
class ApicTimerState:
    initial: int = 0
    divide: int = 0
    start_ns: int = 0  # when the initial count was loaded
    expired: int = 0  # the count stands at 0: it has interrupted in one-shot mode, or ran out while masked
    deadline: int = 0  # IA32_TSC_DEADLINE


class ApicTimer:
    """`expired()` tells the APIC that the count reached zero."""

    def __init__(
        self,
        clock: Clock,
        state: ApicTimerState,
        expired: Callable[[], None],
        tsc_now: Callable[[], int],
        tsc_to_ns: Callable[[int], int],
    ) -> None:
        self.state = state
        self._now = clock.now_ns
        self._timer = clock.timer(self._on_timer)
        self._expired = expired
        self._tsc_now = tsc_now
        self._tsc_to_ns = tsc_to_ns
        self._entry = MASKED
        self._shift = 1

    def reset(self) -> None:
        s = self.state
        s.initial = s.divide = s.start_ns = s.expired = s.deadline = 0
        self.rearm(MASKED)

    def write_initial(self, value: int, entry: int) -> None:
        s = self.state
        if entry & TIMER_MODE_MASK == MODE_DEADLINE:
            return  # "writes to the initial-count register are ignored"
        s.initial = value
        s.start_ns = self._now()
        s.expired = 0
        self.rearm(entry)

    def write_divide(self, value: int, entry: int) -> None:
        s = self.state
        current = self.current(entry)
        s.divide = value
        self._set_shift()
        # Go on with the same count at the new rate
        s.start_ns = self._now() - ((s.initial - current) << self._shift)
        self.rearm(entry)

    def current(self, entry: int) -> int:
        s = self.state
        mode = entry & TIMER_MODE_MASK
        initial = s.initial
        if not initial or s.expired or mode == MODE_DEADLINE:
            return 0
        ticks = (self._now() - s.start_ns) >> self._shift
        if mode == MODE_PERIODIC:
            return initial - ticks % initial
        return initial - ticks if ticks < initial else 0

    def read_deadline(self, entry: int) -> int:
        s = self.state
        if s.deadline and self._tsc_now() >= s.deadline:
            if entry & MASKED:
                s.deadline = 0  # nobody was told, and nobody will be
            else:
                self._on_timer()  # the host timer is only late
        return s.deadline

    def write_deadline(self, value: int, entry: int) -> None:
        if entry & TIMER_MODE_MASK == MODE_DEADLINE:  # ignored in other modes
            self.state.deadline = value
            self.rearm(entry)
            if value and not entry & MASKED and self._tsc_now() >= value:
                self._on_timer()  # at once: the host timer would be late (SDM 3, 10.5.4.1)

    def entry_changed(self, old: int, new: int) -> None:
        """The LVT entry was written. Switching to or from deadline mode disarms; the other two modes share the
        count. Periodic mode reloads "when the count reaches 0": one that stands at 0 already stays there."""
        s = self.state
        if (old ^ new) & TIMER_MODE_MASK:
            if MODE_DEADLINE in (old & TIMER_MODE_MASK, new & TIMER_MODE_MASK):
                s.deadline = s.initial = 0
            elif s.initial:
                left = self.current(old)
                s.expired = 0 if left else 1
                s.start_ns = self._now() - ((s.initial - left) << self._shift)
        if old & MASKED and not new & MASKED:
            # What ran out while masked interrupts no more
            if s.initial and new & TIMER_MODE_MASK == MODE_ONE_SHOT and self._now() >= self._end_ns():
                s.expired = 1
            if s.deadline and self._tsc_now() >= s.deadline:
                s.deadline = 0
        self.rearm(new)

    def rearm(self, entry: int) -> None:
        """Set the host timer for the next interrupt, if there is to be one."""
        s = self.state
        self._entry = entry
        self._set_shift()
        mode = entry & TIMER_MODE_MASK
        if entry & MASKED:
            self._timer.cancel()
        elif mode == MODE_DEADLINE:
            if s.deadline:
                self._timer.arm(self._tsc_to_ns(s.deadline))
            else:
                self._timer.cancel()
        elif not s.initial or s.expired or mode == TIMER_MODE_MASK:
            self._timer.cancel()
        elif mode == MODE_PERIODIC:
            now = self._now()
            period = s.initial << self._shift
            deadline = now + period - (now - s.start_ns) % period
            self._timer.arm(max(deadline, now + MIN_REARM_NS))
        else:
            self._timer.arm(self._end_ns())

    def _end_ns(self) -> int:
        return self.state.start_ns + (self.state.initial << self._shift)

    def _set_shift(self) -> None:
        divide = self.state.divide
        self._shift = ((divide & 3 | divide >> 1 & 4) + 1) & 7  # figure 10-10: 000 is 2 ... 110 is 128, 111 is 1

    def _on_timer(self) -> None:
        s = self.state
        mode = self._entry & TIMER_MODE_MASK
        if mode == MODE_PERIODIC:
            if s.initial and not s.expired:
                self._expired()
                self.rearm(self._entry)
        elif mode == MODE_DEADLINE:
            if s.deadline and self._tsc_now() >= s.deadline:
                s.deadline = 0
                self._timer.cancel()
                self._expired()
            else:
                self.rearm(self._entry)
        elif s.initial and not s.expired:
            if self._now() >= self._end_ns():
                s.expired = 1
                self._expired()
            else:
                self.rearm(self._entry)
