"""Breakpoints, watchpoints and hooks: what stops the guest or calls Python, the same for every back end.

    with Machine(...) as machine:
        machine.breakpoint(0xffffffff81000000, condition="rdi == 5")
        machine.watchpoint(0x7000, 4, access="w")
        hook = machine.hook_memory(print, 0x7000, 0x8000, access="r", condition="value > 9")
        machine.run()
        hook.remove()

A hook's function gets an event, on the vCPU's thread, with the guest at an instruction boundary (memory hooks: within
the instruction, before it has changed any register); if it returns true the guest stops there. It must not wait for the
guest. Conditions are text that the processor itself evaluates (conditions.py), or functions of the machine.
The tables that the processor looks at are described in pyemu.cpu.hooks; here is what fills them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from pyemu.conditions import Resolve, compile_condition
from pyemu.cpu import conditions as cpu_conditions
from pyemu.cpu import hooks as cpu_hooks
from pyemu.cpu.mode import CODE64, MODE_CHANGE
from pyemu.cpu.state import (
    CR2,
    EXIT_REQUEST,
    GPR,
    HOOK_ACCESS,
    HOOK_CODE,
    HOOK_CODE_PROGRAM,
    HOOK_COUNT,
    HOOK_EVENTS,
    HOOK_HYPERCALL_TOLD,
    HOOK_PASSED,
    HOOK_PROGRAM_WORDS,
    HOOK_PROGRAMS,
    HOOK_RANGE_COUNT,
    HOOK_RANGES,
    HOOK_RANGES_MAX,
    HOOK_RIP,
    HOOK_SLOTS,
    HOOK_WATCH_COUNT,
    HOOK_WATCHES,
    HOOK_WATCHES_MAX,
    HYPERCALL_ANSWERED,
    ICOUNT,
    M64,
    MODE,
    RAX,
    RIP,
    State,
)
from pyemu.cpu.tlb import PHYSICAL
from pyemu.hook_events import Access, CodeEvent, Event, Hypercall
from pyemu.memory import GuestRam, OutOfRange
from pyemu.until import Stop, StopKind
from pyemu.virtual import read_virtual

_MOST_ADDRESSES = HOOK_SLOTS * 3 // 4  # so that searching the table stays short
ACCESSES = {"r": cpu_hooks.READS, "w": cpu_hooks.WRITES, "rw": cpu_hooks.READS | cpu_hooks.WRITES}
EVENTS = {
    "exception": cpu_hooks.EXCEPTION,
    "interrupt": cpu_hooks.INTERRUPT,
    "software interrupt": cpu_hooks.SOFTWARE_INTERRUPT,
    "cr3": cpu_hooks.CR3_CHANGE,
    "syscall": cpu_hooks.SYSCALL,
    "hypercall": cpu_hooks.HYPERCALL,
    "msr": cpu_hooks.MSR,
    "mode": MODE_CHANGE,
}
_NAMES = {bit: name for name, bit in EVENTS.items()}
_PAGE_FAULT = 14


class HookError(ValueError):
    """A hook that can't be set; one line for the user."""


Function = Callable[[Any], object]
Program = tuple[int, ...]  # a compiled condition
Condition = str | Program | Callable[[Any], object] | None


class Target(Protocol):
    """Who runs the code: what an accelerator has to do when hooks change."""

    def code_hooks_changed(self, spans: Iterable[tuple[int, int]]) -> None: ...
    def watches_changed(self) -> None: ...


class Hook:
    """What setting a hook gives. `hits` counts how often its condition held; a `temporary` one goes with the first."""

    def __init__(
        self, owner: Hooks, function: Function | None, condition: Condition, *, memory: bool = False,
        temporary: bool = False, stop: Stop | None = None,
    ) -> None:  # fmt: skip
        self.hits = 0
        self.temporary = temporary
        self._owner = owner
        self._function = function
        self._stop = stop
        self._test = condition if callable(condition) else None
        self.program: Program = condition if isinstance(condition, tuple) else ()
        if isinstance(condition, str):
            self.program = compile_condition(condition, memory, owner.resolve)
        self.offset = 0  # of the program in the processor's table

    def remove(self) -> None:
        """Take the hook out again, at once; nothing happens if it is out already."""
        self._owner.remove(self)

    @property
    def calls(self) -> bool:
        """Whether it calls Python, rather than only stop the guest."""
        return self._function is not None or self._test is not None

    @property
    def active(self) -> bool:
        return self in self._owner.all

    def hit(self, event: object) -> Stop | None:
        """The condition that the processor knows of holds; gives the stop if the guest shall. What a function raises
        stops it too, and reaches whoever runs the machine: the guest itself is as sound as before."""
        try:
            return self._hit(event)
        except BaseException as error:
            message = f"a function of a hook has failed: {type(error).__name__}: {error}"
            return Stop(StopKind.HOOK, 1, message, error=error, hook=self, event=event)

    def _hit(self, event: object) -> Stop | None:
        if self._test is not None and not self._test(self._owner.machine):
            return None
        self.hits += 1
        if self.temporary:
            self.remove()
        if self._function is None:
            return self.stop(event)
        return self.stop(event) if self._function(event) else None

    def stop(self, event: object) -> Stop:
        return self._stop or Stop(StopKind.HOOK, hook=self, event=event)


class Breakpoint(Hook):
    """Stops before the instruction at a linear address."""

    def __init__(self, owner: Hooks, address: int, function: Function | None, condition: Condition, **how: Any) -> None:
        if not 0 <= address < M64:
            raise HookError(f"{address:#x} can't be the address of a breakpoint")
        super().__init__(owner, function, condition, **how)
        self.address = address

    def stop(self, event: object) -> Stop:
        return self._stop or Stop(StopKind.BREAKPOINT, hook=self, event=event)


class CodeRange(Hook):
    """Calls for each instruction, or each block (what runs without a jump), that starts in a range."""

    def __init__(self, owner: Hooks, kind: int, begin: int, end: int, function: Function, condition: Condition) -> None:
        _check_range(begin, end)
        super().__init__(owner, function, condition)
        self.kind, self.begin, self.length = kind, begin, min(end - begin, M64)

    def covers(self, address: int) -> bool:
        return address - self.begin & M64 < self.length


class Watchpoint(Hook):
    """Stops after an instruction that accesses a range of memory."""

    def __init__(
        self, owner: Hooks, address: int, length: int, access: str, function: Function | None, condition: Condition,
        *, physical: bool = False, **how: Any,
    ) -> None:  # fmt: skip
        if access not in ACCESSES:
            raise HookError(f"unknown access '{access}' (known: {', '.join(ACCESSES)})")
        _check_range(address, address + length)
        super().__init__(owner, function, condition, memory=True, **how)
        self.address, self.length, self.access, self.physical = address, min(length, M64), access, physical
        self.bits = ACCESSES[access] | (PHYSICAL if physical else 0)

    def stop(self, event: object) -> Stop:
        return self._stop or Stop(StopKind.WATCHPOINT, hook=self, event=event)


class EventHook(Hook):
    """Calls for events of a kind, of some numbers or all."""

    def __init__(
        self, owner: Hooks, kind: str, numbers: Iterable[int] | None, function: Function | None, condition: Condition
    ) -> None:
        super().__init__(owner, function, condition)
        self.kind = kind
        self.numbers = None if numbers is None else frozenset(numbers)


class IoHook(Hook):
    """Calls for accesses to ports, or to device registers in memory, when they have been made."""

    def __init__(
        self, owner: Hooks, ports: bool, begin: int, end: int, access: str, function: Function | None,
        condition: Condition,
    ) -> None:  # fmt: skip
        if access not in ACCESSES:
            raise HookError(f"unknown access '{access}' (known: {', '.join(ACCESSES)})")
        _check_range(begin, end)
        super().__init__(owner, function, condition)
        self.ports, self.begin, self.end, self.access = ports, begin, end, access


def _check_range(begin: int, end: int) -> None:
    if not 0 <= begin < end <= M64 + 1:
        raise HookError(f"{begin:#x} to {end:#x} is not a range of addresses")


class Hooks:
    """All hooks of a machine; methods may be called from any thread."""

    def __init__(
        self, machine: object, s: State, ram: GuestRam, lock: AbstractContextManager[object],
        exclusive: Callable[[Callable[[], None]], None], parked: Callable[[], bool],
    ) -> None:  # fmt: skip
        """`exclusive` calls a function while the vCPU is between two instructions, `parked` says whether it stands."""
        self.machine = machine
        self.resolve: Resolve | None = None  # symbols
        self.target: Target | None = None
        self.answer: Callable[[int], object] = lambda rax: None  # the hypercall that a function has been told of
        self.all: list[Hook] = []
        self._s, self._ram, self._lock, self._exclusive, self._parked = s, ram, lock, exclusive, parked
        self._unsettled = False
        self._pending: Stop | None = None
        self.between = False  # a function is called between two instructions, and may change the guest
        self._code: dict[int, list[Breakpoint]] = {}
        self._ranges: list[CodeRange] = []
        self._watches: list[Watchpoint] = []
        self._events: list[EventHook] = []
        self.io: list[IoHook] = []
        self._applied: tuple[set[int], set[tuple[int, int, int]], list[int]] = (set(), set(), [])

    # ---- setting and removing ------------------------------------------------------------------------------
    def add(self, hook: Hook) -> Any:
        """Set a hook; in force when this returns."""
        with self._lock:
            self._check_room(hook)
            self.all.append(hook)
        self._changed()
        return hook

    def remove(self, hook: Hook) -> None:
        with self._lock:
            if hook not in self.all:
                return
            self.all.remove(hook)
        self._changed()

    @contextmanager
    def suspended(self, keep: Callable[[Hook], bool] = lambda hook: False) -> Iterator[None]:
        """As if there were no hooks, or only some: for code that is executed again. Those set meanwhile count."""
        with self._lock:
            before = list(self.all)
            self.all = [hook for hook in before if keep(hook)]
        self._changed()
        try:
            yield
        finally:
            with self._lock:
                self.all = before + [hook for hook in self.all if hook not in before]
            self._changed()

    def _check_room(self, hook: Hook) -> None:
        future = [*self.all, hook]
        counts = (
            ("breakpoints", len({h.address for h in future if isinstance(h, Breakpoint)}), _MOST_ADDRESSES),
            ("hooked ranges of code", sum(isinstance(h, CodeRange) for h in future), HOOK_RANGES_MAX),
            ("watched ranges of memory", sum(isinstance(h, Watchpoint) for h in future), HOOK_WATCHES_MAX),
            ("words of conditions", sum(len(h.program) for h in future), HOOK_PROGRAM_WORDS - 1),
        )
        for what, count, most in counts:
            if count > most:
                raise HookError(f"at most {most} {what}")

    def _changed(self) -> None:
        """While the guest stands, changes are only collected: a debugger takes its breakpoints out whenever it stops
        the guest, and puts the same ones back when it goes on."""
        with self._lock:
            self._unsettled = True
            if self._parked():
                return
        self._exclusive(self.settle)

    def settle(self) -> None:
        """Between two instructions, lock held: what was changed takes effect."""
        if self._unsettled:
            self._unsettled = False
            self._apply()

    def restored(self) -> None:
        """The processor's state was replaced as a whole, tables included: fill them in again."""
        self._applied = (set(), set(), [-1])
        self._s[HOOK_PASSED] = self._s[HOOK_HYPERCALL_TOLD] = 0
        self._changed()

    # ---- the processor's tables ----------------------------------------------------------------------------
    def _apply(self) -> None:
        s = self._s
        self._code = {}
        for hook in self.all:
            if isinstance(hook, Breakpoint):
                self._code.setdefault(hook.address, []).append(hook)
        self._ranges = [h for h in self.all if isinstance(h, CodeRange)]
        self._watches = [h for h in self.all if isinstance(h, Watchpoint)]
        self._events = [h for h in self.all if isinstance(h, EventHook)]
        self.io = [h for h in self.all if isinstance(h, IoHook)]
        self._write_programs()
        self._write_code()
        watches = [word for h in self._watches for word in (h.address, h.length, h.bits, h.offset)]
        s[HOOK_WATCHES : HOOK_WATCHES + len(watches)] = watches
        s[HOOK_WATCH_COUNT] = len(self._watches)
        s[HOOK_EVENTS] = sum({EVENTS[h.kind] for h in self._events})
        addresses, ranges = set(self._code), {(h.begin, h.length, h.kind) for h in self._ranges}
        old_addresses, old_ranges, old_watches = self._applied
        self._applied = addresses, ranges, watches
        if self.target is None:
            return
        spans = {(address, 1) for address in addresses ^ old_addresses}
        spans |= {(begin, length) for begin, length, _ in ranges ^ old_ranges}
        if spans:
            self.target.code_hooks_changed(spans)
        if watches != old_watches:
            self.target.watches_changed()

    def _write_programs(self) -> None:
        s, at = self._s, 1
        for hook in self.all:
            hook.offset = at if hook.program else 0
            s[HOOK_PROGRAMS + at : HOOK_PROGRAMS + at + len(hook.program)] = list(hook.program)
            at += len(hook.program)

    def _write_code(self) -> None:
        s = self._s
        table, programs = [cpu_hooks.EMPTY] * HOOK_SLOTS, [0] * HOOK_SLOTS
        for address, hooks in self._code.items():
            slot = cpu_hooks.home(address)
            while table[slot] != cpu_hooks.EMPTY:
                slot = (slot + 1) % HOOK_SLOTS
            table[slot] = address
            programs[slot] = hooks[0].offset if len(hooks) == 1 else 0  # of several, Python finds out which
        s[HOOK_CODE : HOOK_CODE + HOOK_SLOTS] = table
        s[HOOK_CODE_PROGRAM : HOOK_CODE_PROGRAM + HOOK_SLOTS] = programs
        ranges = [word for h in self._ranges for word in (h.begin, h.length, h.kind, h.offset)]
        s[HOOK_RANGES : HOOK_RANGES + len(ranges)] = ranges
        s[HOOK_RANGE_COUNT] = len(self._ranges)
        s[HOOK_COUNT] = len(self._code) + len(self._ranges)

    # ---- what the processor calls, on its thread, lock held -----------------------------------------------------
    def code_hooked(self, linear: int, starts: bool) -> bool:
        kinds = cpu_hooks.INSTRUCTIONS | (cpu_hooks.BLOCKS if starts else 0)
        found: list[Hook] = [h for h in self._ranges if h.kind & kinds and h.covers(linear)]
        found += self._code.get(linear, ())
        event = CodeEvent(linear)
        stopped = False
        self.between = True
        try:
            for hook in found:
                if len(found) == 1 or cpu_conditions.holds(self._s, hook.offset):
                    stopped |= self._note(hook.hit(event))
        finally:
            self.between = False
        return stopped

    def memory_hooked(self, number: int) -> None:
        s = self._s
        address, size, value, write = (s[HOOK_ACCESS + k] for k in range(4))
        old = None
        if write:
            try:
                old = int.from_bytes(read_virtual(s, self._ram, address, size), "little")
            except OutOfRange:
                pass  # a device's
        event = Access(address, size, bool(write), value, old, s[HOOK_RIP])
        if self._note(self._watches[number].hit(event)):
            s[EXIT_REQUEST] = 1

    def event_hooked(self, kind: int, a: int, b: int) -> bool:
        s, name = self._s, _NAMES[kind]
        if kind in (cpu_hooks.CR3_CHANGE, MODE_CHANGE):
            event = Event(name, old=a, value=b, rip=s[RIP])
        elif kind == cpu_hooks.MSR:
            event = Event(name, number=a & 0xFFFFFFFF, rip=s[RIP], old=a >> 32, value=b)
        elif kind == cpu_hooks.HYPERCALL:
            return self._hypercall(b)
        elif kind == cpu_hooks.SYSCALL:
            event = Event(name, number=s[GPR + RAX], rip=b)
        else:
            vector = a & 0xFF
            fault = vector == _PAGE_FAULT and kind == cpu_hooks.EXCEPTION
            event = Event(name, vector, a >> 8, b, s[CR2] if fault else 0)
        self._tell(event)
        return False

    def _tell(self, event: Event) -> bool:
        """Whether a hook wants the guest to stop."""
        s, stops = self._s, False
        for hook in list(self._events):
            wanted = hook.kind == event.kind and (hook.numbers is None or event.number in hook.numbers)
            if wanted and cpu_conditions.holds(s, hook.offset):
                if self._note(hook.hit(event)):
                    s[EXIT_REQUEST] = 1
                    stops = True
        return stops

    def _hypercall(self, next_rip: int) -> bool:
        """Whether the processor shall look again before it raises #UD."""
        s, rip = self._s, self._s[RIP]
        word = M64 if s[MODE] & CODE64 else 0xFFFFFFFF  # as KVM takes them (arch/x86/kvm/x86.c)
        told = s[ICOUNT] + 1

        def answer(rax: int) -> None:
            if not self.between or s[HOOK_HYPERCALL_TOLD] != told:
                raise HookError("a hypercall can be answered only by the hook's function, while it is called")
            self.answer(rax & word)

        self.between = True
        try:
            stops = self._tell(Hypercall("hypercall", s[GPR + RAX] & word, rip=next_rip, answer=answer))
        finally:
            self.between = False
        return stops or s[HYPERCALL_ANSWERED] == told or s[RIP] != rip

    def io_accessed(self, ports: bool, address: int, size: int, write: bool, value: int) -> None:
        for hook in list(self.io):
            if hook.ports == ports and hook.begin < address + size and address < hook.end:
                if ("w" if write else "r") in hook.access and cpu_conditions.holds(self._s, hook.offset):
                    if self._note(hook.hit(Access(address, size, write, value))):
                        self._s[EXIT_REQUEST] = 1

    def _note(self, stop: Stop | None) -> bool:
        """The first of several is the one that is reported."""
        if stop is not None and self._pending is None:
            self._pending = stop
        return stop is not None

    def take(self) -> Stop | None:
        """What the guest shall stop for now."""
        stop, self._pending = self._pending, None
        return stop

    def here_is_passed(self) -> None:
        """What is hooked at RIP doesn't stop the guest before it has executed something."""
        self._s[HOOK_PASSED] = self._s[ICOUNT] + 1

    def here_is_new(self) -> None:
        """What is hooked at RIP counts although it may have been reported at this count: RIP or the count has been
        set."""
        self._s[HOOK_PASSED] = 0


class Hookable:
    """The part of `Machine` that sets hooks. Addresses are linear; where one is a text, it is a symbol."""

    hooks: Hooks

    def _address(self, address: int | str) -> int:
        if isinstance(address, int):
            return address
        found = self.hooks.resolve(address) if self.hooks.resolve is not None else None
        if found is None:
            raise HookError(f"unknown symbol '{address}'")
        return found

    def breakpoint(
        self, address: int | str, condition: Condition = None, *, temporary: bool = False,
        action: Function | None = None,
    ) -> Breakpoint:  # fmt: skip
        """Stop before the instruction at an address, if a condition holds. With an action: call that, and stop only if
        it returns true."""
        hook = Breakpoint(self.hooks, self._address(address), action, condition, temporary=temporary)
        self.hooks.add(hook)
        return hook

    def watchpoint(
        self, address: int | str, length: int, access: str = "w", condition: Condition = None, *,
        temporary: bool = False, physical: bool = False,
    ) -> Watchpoint:  # fmt: skip
        """Stop behind an instruction that accesses memory: `r`, `w` or `rw`. The stop's event is the access. What
        devices and page walks do isn't seen."""
        where = self._address(address)
        hook = Watchpoint(
            self.hooks, where, length, access, None, condition, physical=physical, temporary=temporary
        )  # fmt: skip
        self.hooks.add(hook)
        return hook

    def hook_code(
        self, function: Function, begin: int | str, end: int | None = None, condition: Condition = None
    ) -> Hook:
        """Call before the instruction at an address, or each in a range (which is slow)."""
        if end is None:
            return self.breakpoint(begin, condition, action=function)
        return self._range(cpu_hooks.INSTRUCTIONS, function, self._address(begin), end, condition)

    def hook_block(
        self, function: Function, begin: int = 0, end: int = M64 + 1, condition: Condition = None
    ) -> CodeRange:
        """Call before each block that starts in a range. For coverage there is something faster: `coverage`."""
        return self._range(cpu_hooks.BLOCKS, function, begin, end, condition)

    def _range(self, kind: int, function: Function, begin: int, end: int, condition: Condition) -> CodeRange:
        hook = CodeRange(self.hooks, kind, begin, end, function, condition)
        self.hooks.add(hook)
        return hook

    def hook_memory(
        self, function: Function, begin: int | str, end: int, access: str = "rw", condition: Condition = None, *,
        physical: bool = False,
    ) -> Watchpoint:  # fmt: skip
        """Call for each access to a range of memory; pages without any of it cost nothing."""
        start = self._address(begin)
        hook = Watchpoint(self.hooks, start, end - start, access, function, condition, physical=physical)
        self.hooks.add(hook)
        return hook

    def hook_port(
        self, function: Function, first: int, last: int | None = None, access: str = "rw", condition: Condition = None
    ) -> IoHook:
        """Call after IN and OUT."""
        return self._io(True, function, first, (first if last is None else last) + 1, access, condition)

    def hook_mmio(
        self, function: Function, begin: int, end: int, access: str = "rw", condition: Condition = None
    ) -> IoHook:
        """Call after accesses to device registers at physical addresses."""
        return self._io(False, function, begin, end, access, condition)

    def _io(self, ports: bool, function: Function, begin: int, end: int, access: str, condition: Condition) -> IoHook:
        hook = IoHook(self.hooks, ports, begin, end, access, function, condition)
        self.hooks.add(hook)
        return hook

    def _event(
        self, kind: str, function: Function, numbers: Iterable[int] | None = None, condition: Condition = None
    ) -> EventHook:
        hook = EventHook(self.hooks, kind, numbers, function, condition)
        self.hooks.add(hook)
        return hook

    def hook_exception(self, function: Function, *vectors: int, condition: Condition = None) -> EventHook:
        """Call before an exception is delivered; one that the function stops for is seen at its handler."""
        return self._event("exception", function, vectors or None, condition)

    def hook_interrupt(self, function: Function, *vectors: int, condition: Condition = None) -> EventHook:
        """Call before an interrupt of a device, or an NMI, is delivered."""
        return self._event("interrupt", function, vectors or None, condition)

    def hook_software_interrupt(self, function: Function, *vectors: int, condition: Condition = None) -> EventHook:
        """Call before INT n, INT3 and INTO go to their handler."""
        return self._event("software interrupt", function, vectors or None, condition)

    def hook_cr3(self, function: Function, condition: Condition = None) -> EventHook:
        """Call before CR3 changes, or is loaded with what it has."""
        return self._event("cr3", function, None, condition)

    def hook_mode(self, function: Function, condition: Condition = None) -> EventHook:
        """Call when the processor's mode changes: real, protected, virtual-8086, 64-bit or compatibility mode, or
        the width of its code."""
        return self._event("mode", function, None, condition)

    def hook_msr(self, function: Function, *indexes: int, condition: Condition = None) -> EventHook:
        """Call after RDMSR and WRMSR that didn't fault."""
        return self._event("msr", function, indexes or None, condition)

    def hook_syscall(self, function: Function, *numbers: int, condition: Condition = None) -> EventHook:
        """Call before SYSCALL and SYSENTER enter the system."""
        return self._event("syscall", function, numbers or None, condition)

    def hook_hypercall(self, function: Function, *numbers: int, condition: Condition = None) -> EventHook:
        """Call for VMCALL and VMMCALL, in place of a hypervisor and at any privilege. The event is a `Hypercall`; if it
        isn't answered the guest gets #UD. In a replay, what has been answered is answered again without a call."""
        return self._event("hypercall", function, numbers or None, condition)
