"""What would happen: one instruction, or the delivery of one event, on a copy of the processor.

The copy runs the reference back end on a view of guest memory that keeps its writes to itself, and never touches a
device: an access to one ends the run. Exceptions that mechanism raises are caught at the check that raised them, with
its source, which `pyemu.cpu.check_words` puts into words.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

from pyemu.cpu import interrupts, paging
from pyemu.cpu import mode as md
from pyemu.cpu.check_words import WORDS
from pyemu.cpu.concrete import Concrete
from pyemu.cpu.decode import record as rc
from pyemu.cpu.decode.decoder import decode
from pyemu.cpu.faults import PF, clear_fault
from pyemu.cpu.ops import Form, build_table
from pyemu.cpu.state import (
    CPL,
    CS,
    EXIT_REQUEST,
    FAULT_CR2,
    FAULT_ERROR,
    FAULT_VECTOR,
    FETCH_PHYS,
    FETCH_PHYS2,
    GDT_LIMIT,
    HOOK_COUNT,
    HOOK_EVENTS,
    HOOK_RANGE_COUNT,
    HOOK_WATCH_COUNT,
    ICOUNT,
    ICOUNT_LIMIT,
    IDT_LIMIT,
    LDT_LIMIT,
    M64,
    MODE,
    NO_FAULT,
    NO_PAGE,
    PENDING_DEBUG,
    RECORD,
    RIP,
    SEG_BASE,
    SEG_LIMIT,
    STEPPING,
    TR_LIMIT,
    WALK_PHYS,
    State,
)  # fmt: skip
from pyemu.cpu.values import Value

if TYPE_CHECKING:
    from pyemu.machine import Machine

_RAISERS = ("raise_fault", "raise_page_fault", "raise_debug")
ITERATIONS = 64  # of a repeated string instruction: the guest may ask for any number
_SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs")


class NeedsDevice(Exception):
    """The dry run came to an access of a device; the text says which."""


@dataclass(frozen=True)
class Raised:
    """An exception, and the check that raised it. `own_check` counts the definition's own checks (fault_if)."""

    vector: int
    error: int
    address: int  # for #PF
    reason: str
    check: str  # the condition in the source
    functions: tuple[str, ...]  # of mechanism, innermost first
    own_check: int | None = None


@dataclass
class Access:
    """Memory that an instruction reads or writes: bytes at a linear address."""

    linear: int
    width: int
    before: int | None
    after: int | None = None


@dataclass
class Outcome:
    """How it went. `state` is the processor afterwards."""

    state: State
    form: Form | None = None
    words: list[int] = field(default_factory=list)
    raised: list[Raised] = field(default_factory=list)
    accesses: list[Access] = field(default_factory=list)
    device: str = ""  # set if it came to one
    written: dict[int, int] = field(default_factory=dict)  # bytes by physical address

    @property
    def fault(self) -> Raised | None:
        return self.raised[0] if self.raised else None


class DryState(State):
    """A copy of a processor's state that notes who raises an exception."""

    def watch(self) -> None:
        self.raised: list[Raised] = []
        self.definition: _Noting | None = None

    def __setitem__(self, index: int, value: int) -> None:
        if index == FAULT_VECTOR and value != NO_FAULT:
            raiser = sys._getframe(1)
            if raiser.f_code.co_name in _RAISERS:  # a double fault is only noted
                self.raised.append(_find_check(self, raiser))
        super().__setitem__(index, value)


class Overlay:
    """Guest memory, by physical address, whose writes only this sees."""

    def __init__(self, base: memoryview) -> None:
        self._base = base
        self.written: dict[int, int] = {}

    def __getitem__(self, key: int | slice) -> int | bytes:
        if isinstance(key, int):
            return self.written.get(key, self._base[key])
        data = bytearray(self._base[key])
        if self.written:
            for at in range(key.start, key.stop):
                if at in self.written:
                    data[at - key.start] = self.written[at]
        return bytes(data)

    def __setitem__(self, key: int | slice, value: int | bytes) -> None:
        if isinstance(key, int):
            self.written[key] = cast(int, value)
        else:
            self.written.update(enumerate(cast(bytes, value), key.start))


class _NoDevices:
    """`pyemu.cpu.host.Host` that ends the dry run."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def refuse(*arguments: int) -> Any:
            where = f" {arguments[0]:#x}" if arguments else ""
            raise NeedsDevice(f"{name.replace('_', ' ')}{where}")

        return refuse


class _Noting(Concrete):
    """The reference back end, which also notes memory accesses and counts the definition's checks."""

    def __init__(self, s: DryState) -> None:
        super().__init__(s)
        self.checks = 0
        self.accesses: list[Access] = []

    def load(self, linear: Value, width: int, access: int = 0) -> Value:
        value = super().load(linear, width, access)
        self.accesses.append(Access(linear.payload, width, value.payload))
        return value

    def store(self, linear: Value, value: Value, access: int = 0) -> None:
        known = [a.before for a in self.accesses if (a.linear, a.width) == (linear.payload, value.width)]
        super().store(linear, value, access)
        self.accesses.append(Access(linear.payload, value.width, known[0] if known else None, value.payload))

    def fault_if(self, condition: Value, vector: int, error: int = 0) -> None:
        self.checks += 1
        super().fault_if(condition, vector, error)


@cache
def forms() -> list[Form]:
    return build_table().forms


class DryRun:
    """A copy of a stopped machine's processor."""

    def __init__(self, machine: Machine, state: State | None = None) -> None:
        self.state = DryState.from_buffer_copy(state or machine.state)
        self.state.watch()
        self.memory = Overlay(machine.ram.whole)
        self.state.ram = cast(memoryview, self.memory)
        self.state.host = cast(Any, _NoDevices())
        clear_fault(self.state)
        for index in (HOOK_COUNT, HOOK_RANGE_COUNT, HOOK_WATCH_COUNT, HOOK_EVENTS):
            self.state[index] = 0  # what a copy does concerns no hook

    def execute(self, rip: int | None = None) -> Outcome:
        """One instruction, at RIP or elsewhere; what it raises is not delivered."""
        s = self.state
        if rip is not None:
            s[RIP] = rip
        s[STEPPING] = s[PENDING_DEBUG] = s[EXIT_REQUEST] = 0
        s[ICOUNT_LIMIT] = s[ICOUNT] + ITERATIONS
        back_end = s.definition = _Noting(s)
        outcome = Outcome(s, raised=s.raised, accesses=back_end.accesses, written=self.memory.written)
        try:
            words = self._fetch()
            if words is not None:
                outcome.words = words
                outcome.form = forms()[words[rc.PACKED] & 0xFFFF]
                back_end.execute(outcome.form, words)
        except NeedsDevice as device:
            outcome.device = str(device)
        return outcome

    def _fetch(self) -> list[int] | None:
        """The record at RIP; None with a fault raised."""
        s = self.state
        rip, mode = s[RIP], s[MODE]
        linear = rip if mode & md.CODE64 else (rip + s[SEG_BASE + CS]) & 0xFFFFFFFF
        if paging.fetch_page(s, linear):
            return None
        if s[WALK_PHYS] >> 63:
            raise NeedsDevice(f"instruction fetch {s[WALK_PHYS] & ~(1 << 63) & M64:#x}")
        s[FETCH_PHYS], s[FETCH_PHYS2] = s[WALK_PHYS] + (linear & 0xFFF), NO_PAGE
        if decode(s, rip, linear, mode & md.CODE64, (mode & md.CODE32) >> 1):
            return None
        return [s[RECORD + k] for k in range(rc.WORDS)]

    def deliver(self, vector: int, error: int, kind: int = interrupts.EXCEPTION) -> Outcome:
        """Enter the handler of one event, as far as that goes."""
        s = self.state
        outcome = Outcome(s, raised=s.raised)
        try:
            interrupts.deliver(s, vector, error, kind, s[RIP])
        except NeedsDevice as device:
            outcome.device = str(device)
        return outcome

    def deliver_all(self, vector: int, error: int, address: int) -> tuple[list[Raised], bool]:
        """Deliver an exception, and those that its delivery raises: these, and whether the processor shut down."""
        s = self.state
        for index, value in ((FAULT_CR2, address), (FAULT_ERROR, error), (FAULT_VECTOR, vector)):
            s[index] = value
        try:
            shut_down = interrupts.deliver_noted(s) == interrupts.SHUTDOWN
        except NeedsDevice:
            return s.raised, False
        return s.raised, shut_down


# ---- which check ------------------------------------------------------------------------------------------------
def _find_check(s: DryState, frame: FrameType | None) -> Raised:
    """Look at who is raising."""
    vector, error, address = PF, 0, 0
    while frame is not None and frame.f_code.co_name in _RAISERS:
        values = frame.f_locals
        vector, error = values.get("vector", vector), values.get("error", error)
        address = values.get("linear", 0)
        if frame.f_code.co_name == "raise_debug":
            vector = 1
        frame = frame.f_back
    assert frame is not None
    functions = _mechanism(frame)
    check = condition_at(frame.f_code.co_filename, frame.f_code.co_name, frame.f_lineno)
    own = s.definition.checks - 1 if s.definition is not None and frame.f_code.co_name == "fault_if" else None
    reason = "" if own is not None else _words(s, frame, check)
    return Raised(vector, error, address, reason, check, functions, own)


def _mechanism(frame: FrameType | None) -> tuple[str, ...]:
    names = []
    while frame is not None and "/cpu/" in frame.f_code.co_filename:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    return tuple(names)


def _words(s: State, frame: FrameType, check: str) -> str:
    name = frame.f_code.co_name
    if name == "settle_floats":
        return "an SSE exception occurred that MXCSR does not mask"
    template = WORDS.get(name, {}).get(check)
    if template is None:
        return f"in {name}: {check}" if check else f"in {name}"
    values = _names(s, frame.f_locals)
    try:
        return template.format_map(values)
    except (KeyError, ValueError, IndexError):  # a variable that has another name by now
        return f"in {name}: {check}"


def _names(s: State, local: dict[str, Any]) -> dict[str, Any]:
    """What templates may use: the function's variables, and some registers."""
    vector = local.get("vector", 0)
    values = {
        "cpl": s[CPL], "rip": s[RIP], "idt_limit": s[IDT_LIMIT], "gdt_limit": s[GDT_LIMIT],
        "ldt_limit": s[LDT_LIMIT], "tr_limit": s[TR_LIMIT],
        "last4": 4 * vector + 3, "last8": 8 * vector + 7, "last16": 16 * vector + 15,
    }  # fmt: skip
    segment = local.get("segment")
    if isinstance(segment, int) and 0 <= segment < 6:
        values |= {"segment_name": _SEGMENTS[segment], "segment_limit": s[SEG_LIMIT + segment]}
    return (
        values
        | {name: value for name, value in local.items() if isinstance(value, int) and name != "cpl"}
        | ({"cpl": local["cpl"]} if isinstance(local.get("cpl"), int) else {})
    )


def condition_at(path: str, function: str, line: int) -> str:
    """The innermost `if` around a line of a function, as text; empty if there is none."""
    for name, first, last, text in conditions_in(path):
        if name == function and first <= line <= last:
            return text
    return ""


@cache
def conditions_in(path: str) -> Sequence[tuple[str, int, int, str]]:
    """Function, first and last line of the body, and the condition, for each `if` of a file; innermost first."""
    with open(path, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    found = []
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.If):
                text = ast.unparse(node.test)
                found.append((function.name, *_lines(node.body), text))
                if node.orelse:
                    found.append((function.name, *_lines(node.orelse), f"else of {text}"))
    return sorted(found, key=lambda entry: entry[2] - entry[1])


def _lines(body: list[ast.stmt]) -> tuple[int, int]:
    return body[0].lineno, body[-1].end_lineno or body[-1].lineno
