"""Conditions for `Machine.run(until=...)`, and what a run ended with."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from pyemu.hooks import Hook


@dataclass(frozen=True)
class SerialText:
    """The guest has written this text to its first serial port (counting from the start of this run)."""

    text: str | bytes

    @property
    def pattern(self) -> bytes:
        return self.text.encode() if isinstance(self.text, str) else self.text


@dataclass(frozen=True)
class Address:
    """The instruction at this linear address is about to be executed; not if the run starts there."""

    rip: int


@dataclass(frozen=True)
class Instructions:
    """This many further instructions have been executed."""

    count: int


@dataclass(frozen=True)
class GuestTime:
    """This much further time has passed in the guest."""

    seconds: float


_LONGEST_S = 1e12  # of guest time: more than 30,000 years

Condition = SerialText | Address | Instructions | GuestTime
Until: TypeAlias = "str | bytes | int | Condition | list[Until]"


def conditions(until: Until | None) -> list[Condition]:
    """A bare string is serial text, a bare number an address; a list means whichever comes first. TypeError or
    ValueError for what can never come true."""
    match until:
        case None:
            return []
        case str() | bytes():
            return [SerialText(until)]
        case bool():
            pass
        case int():
            return [Address(until)]
        case list() | tuple():
            return [condition for item in until for condition in conditions(item)]
        case SerialText(text) if isinstance(text, str | bytes):
            return [until]
        case Address(number) | Instructions(number) if type(number) is int:
            return [until]
        case GuestTime(seconds) if isinstance(seconds, int | float):
            if not seconds < _LONGEST_S:
                raise ValueError(f"a guest can't run until {until}")
            return [until]
    raise TypeError(f"a guest can't run until {until!r:.80}: a text, an address or a condition of pyemu.until")


def host_seconds(timeout: float | None) -> float | None:
    """As long as Python can wait, at the most; TypeError or ValueError for what is no time."""
    if timeout is None:
        return None
    if not isinstance(timeout, int | float):
        raise TypeError(f"a timeout is a number of seconds, not {timeout!r:.80}")
    if timeout != timeout:
        raise ValueError("a timeout is a number of seconds, not NaN")
    return max(0.0, min(timeout, threading.TIMEOUT_MAX))


class StopKind(Enum):
    """Why the guest isn't running any more."""

    POWER_OFF = "power-off"
    RESET = "reset"  # the guest asked for one, and -no-reboot makes that the end
    DEBUG_EXIT = "debug exit"
    TRIPLE_FAULT = "triple fault"
    UNIMPLEMENTED = "unimplemented instruction"
    FAILURE = "failure"  # of pyemu itself
    QUIT = "quit"  # asked for on this side: Ctrl-A x, monitor, signal
    HANGUP = "hang-up"  # the terminal went away
    CONDITION = "condition"  # a condition of run(until=...) came true
    TIMEOUT = "timeout"  # run(timeout=...) in host time
    BREAKPOINT = "breakpoint"
    WATCHPOINT = "watchpoint"
    HOOK = "hook"  # a hook's function asked for it
    STEP = "step"  # that was asked for
    HISTORY_END = "end of history"  # of a replay or of going back: `event` says which, "begin" or "end"
    PAUSED = "paused"  # stop() or the monitor's stop


# After these the machine can go on; after the others it is over.
RESUMABLE = frozenset(
    {
        StopKind.CONDITION,
        StopKind.TIMEOUT,
        StopKind.PAUSED,
        StopKind.BREAKPOINT,
        StopKind.WATCHPOINT,
        StopKind.HOOK,
        StopKind.STEP,
        StopKind.HISTORY_END,
    }
)
HOOKED = frozenset({StopKind.BREAKPOINT, StopKind.WATCHPOINT, StopKind.HOOK})

A_LOOK = "for a look"  # message of a stop after which the guest goes on at once


@dataclass(frozen=True)
class Stop:
    """The result of a run. `status` is what the process would exit with."""

    kind: StopKind
    status: int = 0
    message: str = ""
    condition: Condition | None = None
    error: BaseException | None = None
    hook: Hook | None = None  # of a breakpoint, watchpoint or hook, with what it saw
    event: object = None

    def sound(self) -> Stop:
        """Itself; RuntimeError if an exception was the reason."""
        if self.error is not None:
            raise RuntimeError(self.message) from self.error
        return self
