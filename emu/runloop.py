"""The vCPU thread: runs the accelerator, and decides what each of its exits means.

Other threads never touch the vCPU's state, except for the words made for it (EXIT_REQUEST, IRQ_PENDING,
NMI_PENDING), unless the loop is parked. All requests are made with the device lock held, which is also the lock of
the condition on which a halted or stopped vCPU sleeps.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pyemu.accelerator import Accelerator
from pyemu.clock import Clock, CountedClock
from pyemu.config import Icount
from pyemu.cpu.flags import IF
from pyemu.cpu.host import Exit
from pyemu.cpu.interrupts import CHAIN_WORDS, VALID
from pyemu.cpu.state import (
    EXIT_INFO,
    EXIT_REQUEST,
    FAULT_CHAIN,
    FLAGS,
    HALTED,
    ICOUNT,
    ICOUNT_LIMIT,
    IRQ_PENDING,
    NMI_PENDING,
    RIP,
    SHADOW,
    State,
)
from pyemu.devices.interfaces import LocalApic
from pyemu.hooks import Hooks
from pyemu.hostcpu import HostCpu
from pyemu.log import Log
from pyemu.until import RESUMABLE, Condition, Instructions, Stop, StopKind

if TYPE_CHECKING:
    from pyemu.history import History

_ENDLESS = (1 << 63) - 1  # an instruction count that no run reaches
_CHAINS_SHOWN = 10  # a guest that triple-faults in a reset loop does so thousands of times a second
_VECTORS = (
    "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "#9", "#TS", "#NP", "#SS", "#GP", "#PF", "#15",
    "#MF", "#AC", "#MC", "#XM", "#VE", "#CP",
)  # fmt: skip


_PAGE_FAULT = 14
_WITH_SELECTOR = frozenset({10, 11, 12, 13})  # #TS #NP #SS #GP: the error code is a selector


def vector_name(vector: int) -> str:
    return _VECTORS[vector] if vector < len(_VECTORS) else f"interrupt {vector:#x}"


class RunLoop:
    """Runs, parks, resets and ends one vCPU. Created parked."""

    def __init__(
        self,
        s: State,
        condition: threading.Condition,
        clock: Clock,
        apic: LocalApic,
        host: HostCpu,
        log: Log,
        icount: Icount | None,
        on_reset: Callable[[], None],
        on_stop: Callable[[Stop], None],
        hooks: Hooks | None = None,
    ) -> None:
        self._s = s
        self._cond = condition
        self._clock = clock
        self._counted = clock if isinstance(clock, CountedClock) else None
        self._apic = apic
        self._host = host
        self._log = log
        self._icount = icount
        self._on_reset = on_reset
        self._on_stop = on_stop
        self._hooks = hooks
        self._running = False
        self._parked = True
        self._ending = False
        self._request: Stop | None = None
        self._reset_asked = False
        self._work: list[Callable[[], None]] = []
        self._reboot = True
        self._chains = 0
        self._target: tuple[int, Condition] | None = None  # instruction count at which to stop
        self.before_step: Callable[[], None] | None = None  # set: single steps, and this is called before each
        self.history: History | None = None
        self.on_shutdown: Callable[[], None] = lambda: None  # before a triple fault's reset
        self.on_over: Callable[[Stop], None] = lambda stop: None  # before `final` is set
        self.accelerator: Accelerator | None = None
        self.final: Stop | None = None  # set when the machine can't go on
        self._thread = threading.Thread(target=self._main, name="pyemu-vcpu0", daemon=True)
        if self._counted is not None:
            clock.on_earlier = self._counted_deadline_moved

    # ---- from other threads, or from devices on this one ---------------------------------------------------

    def start(self, accelerator: Accelerator, reboot: bool) -> None:
        self.accelerator = accelerator
        self._reboot = reboot
        self._thread.start()

    def interrupts_changed(self) -> None:
        """APIC or 8259 may have something else to deliver. Device lock held."""
        s = self._s
        if self._apic.pending_vector() >= 0:
            s[IRQ_PENDING] = 1
            s[EXIT_REQUEST] = 1
            self._cond.notify_all()
        else:
            s[IRQ_PENDING] = 0

    def raise_nmi(self) -> None:
        """Device lock held."""
        self._s[NMI_PENDING] = 1
        self._s[EXIT_REQUEST] = 1
        self._cond.notify_all()

    def ask_reset(self) -> None:
        with self._cond:
            self._reset_asked = True
            self._poke()

    def between_instructions(self, work: Callable[[], None]) -> None:
        """Have the vCPU's thread do something, lock held, as soon as the present instruction is over."""
        with self._cond:
            if work not in self._work:
                self._work.append(work)
            self._poke()

    def exclusive(self, work: Callable[[], None]) -> None:
        """Do something while the vCPU stands between two instructions, lock held: at once if it does or if this is its
        thread, else as soon as the present instruction is over; returns when it is done."""
        done: list[None] = []

        def act() -> None:
            work()
            done.append(None)
            self._cond.notify_all()

        with self._cond:
            if self._parked or threading.current_thread() is self._thread or not self._thread.is_alive():
                work()
                return
            self._work.append(act)
            self._poke()
            while not self._cond.wait_for(lambda: bool(done) or not self._thread.is_alive(), 0.2):
                pass

    def _ask_hooked_stop(self, stop: Stop) -> None:
        """A hook wants the guest to stop: it goes before what only wanted it to pause. If something else ends the run,
        the hook is met again."""
        with self._cond:
            if self._request is None or self._request.kind in (StopKind.PAUSED, StopKind.TIMEOUT):
                self._request = stop
            elif self._hooks is not None:
                self._hooks.here_is_new()

    def ask_stop(self, stop: Stop) -> None:
        """The first wins: what ended a run isn't replaced by what follows from it."""
        with self._cond:
            if self._request is None or (self._request.kind in RESUMABLE and stop.kind not in RESUMABLE):
                self._request = stop
            self._poke()

    def _poke(self) -> None:
        self._s[EXIT_REQUEST] = 1
        self._cond.notify_all()

    def resume(self) -> None:
        """Go on, unless the machine is over."""
        with self._cond:
            if self.final is None and not self._running:
                if self._hooks is not None:
                    self._hooks.settle()
                self._running = True
                self._parked = False
                self._clock.resume()
                self._poke()

    def step(self, quietly: bool) -> None:
        """Go on for one instruction; `quietly`: without taking an interrupt before it. Being delivered, an exception
        counts as one. What is hooked at the instruction doesn't stop it."""
        with self._cond:
            s = self._s
            if self._hooks is not None:
                self._hooks.here_is_passed()
            if quietly and not s[HALTED]:
                s[SHADOW] = s[ICOUNT] + 1  # as behind STI
            self.set_conditions([Instructions(1)])
            self.resume()

    def revive(self) -> None:
        """The machine is over, but is about to be in a state before its end."""
        with self._cond:
            if self.final is not None and self._thread.is_alive():
                self.final = None

    def cancel_stop(self) -> None:
        """Forget a request to stop that came while nothing ran."""
        with self._cond:
            if self._request is not None and self._request.kind in RESUMABLE:
                self._request = None

    @property
    def thread_id(self) -> int | None:
        """Of the host."""
        return self._thread.native_id

    @property
    def is_here(self) -> bool:
        """Asked by a function that the guest's execution calls."""
        return not self._parked and threading.current_thread() is self._thread

    @property
    def parked(self) -> bool:
        return self._parked

    def wait_parked(self, timeout: float) -> bool:
        """The vCPU stands still and its state is complete."""
        with self._cond:
            return self._cond.wait_for(lambda: self._parked, timeout)

    def set_conditions(self, conditions: list[Condition]) -> None:
        """Those that the vCPU itself must watch. While parked."""
        self._target = None
        for condition in conditions:
            if isinstance(condition, Instructions):
                target = self._s[ICOUNT] + max(0, condition.count)
                if self._target is None or target < self._target[0]:
                    self._target = (target, condition)

    def end(self) -> bool:
        """End the thread; False if it doesn't listen (its memory must then stay)."""
        with self._cond:
            self._ending = True
            self._running = False
            self._poke()
        if self._thread.ident is None or threading.current_thread() is self._thread:
            return self._thread.ident is None
        self._thread.join(timeout=1.0)
        return not self._thread.is_alive()

    # ---- the thread ----------------------------------------------------------------------------------------

    def _main(self) -> None:
        try:
            while self._ready():
                self._step()
        except BaseException as error:
            self._over(Stop(StopKind.FAILURE, 1, f"internal error: {type(error).__name__}: {error}", error=error))
            with self._cond:
                self._running = False
                self._parked = True
                self._cond.notify_all()

    def _over(self, stop: Stop) -> None:
        """Park for good."""
        self.on_over(stop)
        self.final = stop
        self._on_stop(stop)

    def _ready(self) -> bool:
        """Serve requests and wait until there is something to run; False to end the thread."""
        with self._cond:
            while True:
                if self._ending:
                    return False
                self.settle()
                if self.history is not None and self._running:
                    self.history.serve()
                if self._request is not None and (self._running or self._request.kind not in RESUMABLE):
                    stop, self._request = self._request, None
                    self._park()
                    if stop.kind in RESUMABLE:
                        self._on_stop(stop)
                    else:
                        self._over(stop)
                if self._running:
                    return True
                self._park()
                self._cond.wait()

    def settle(self) -> None:
        """Do what was asked for at this instruction boundary, first what the guest itself has asked for: a replay has
        it in the same order. Lock held, on the vCPU's thread or while that is parked."""
        if self._reset_asked:
            self._reset_asked = False
            self.reset()
        while self._work:
            self._work.pop(0)()

    def _park(self) -> None:
        self._running = False
        if not self._parked:
            self._parked = True
            self._clock.pause()
            self._cond.notify_all()

    def reset(self) -> None:
        """At once: between two instructions, lock held."""
        if self._reboot:
            self._on_reset()
        elif self._request is None:
            self._request = Stop(StopKind.RESET, 0, "the guest reset itself")

    def _step(self) -> None:
        assert self.accelerator is not None
        s = self._s
        budget = self._next_budget()
        if budget == 0:
            return
        s[ICOUNT_LIMIT] = s[ICOUNT] + budget
        reason = self.accelerator.run()
        if self._host.failure is not None:
            raise self._host.failure
        if self._hooks is not None and (stop := self._hooks.take()) is not None:
            self._ask_hooked_stop(stop)
        match reason:
            case Exit.HALT:
                self._halted()
            case Exit.SHUTDOWN:
                self._shutdown()
            case Exit.UNIMPLEMENTED:
                self.ask_stop(Stop(StopKind.UNIMPLEMENTED, 1, self._describe_unimplemented()))
            case _:
                pass  # hooks have asked already; requests are served by _ready; a used-up budget by _next_budget

    def _next_budget(self) -> int:
        """How many instructions may run now; 0: none, look at the requests first."""
        s = self._s
        budget = _ENDLESS
        if self._counted is not None:
            with self._cond:
                self._counted.run_due()
                deadline = self._counted.next_deadline()
                if deadline is not None:
                    budget = max(1, self._counted.instructions_until(deadline))
        if self.history is not None:
            budget = min(budget, self.history.budget())
        if self._target is not None:
            left = self._target[0] - s[ICOUNT]
            if left <= 0:
                self.ask_stop(Stop(StopKind.CONDITION, condition=self._target[1]))
                self._target = None
                return 0
            budget = min(budget, left)
        if self.before_step is not None:
            self.before_step()
            return 1
        return budget

    def _counted_deadline_moved(self) -> None:
        """A device armed a timer that may come before the end of the present budget. Lock held."""
        s = self._s
        deadline = self._clock.next_deadline()
        if self._counted is not None and deadline is not None:
            limit = s[ICOUNT] + max(1, self._counted.instructions_until(deadline))
            s[ICOUNT_LIMIT] = min(s[ICOUNT_LIMIT], limit)
        s[EXIT_REQUEST] = 1
        self._cond.notify_all()

    def _awake(self) -> bool:
        """Whether a halted vCPU has a reason to look again. Lock held."""
        s = self._s
        return bool(
            (s[IRQ_PENDING] and s[FLAGS] & IF)
            or s[NMI_PENDING]
            or self._request is not None
            or self._reset_asked
            or self._work
            or self._ending
            or not self._running
            or (self.history is not None and self.history.is_due())
        )

    def _halted(self) -> None:
        with self._cond:
            if self._counted is None:
                while not self._awake():
                    self._cond.wait()
                return
            while not self._awake():
                self._idle(self._counted)

    def _idle(self, clock: CountedClock) -> None:
        """Instruction-counted time while nothing runs: jump to the next deadline. Lock held."""
        deadline = clock.next_deadline()
        if self.history is not None and self.history.replaying:
            wake = self.history.wake_ns()
            if wake is not None and (deadline is None or wake < deadline):
                clock.skip_to(wake)
                return
        if deadline is None:
            self._cond.wait()
            return
        ahead = deadline - clock.now_ns()
        replaying = self.history is not None and self.history.replaying
        if ahead > 0 and self._icount is not None and self._icount.sleep and not replaying:
            started = time.monotonic_ns()
            if self._cond.wait_for(self._awake, ahead / 1e9):
                clock.skip_to(min(deadline, clock.now_ns() + time.monotonic_ns() - started))
                return
        clock.skip_to(deadline)
        clock.run_due()

    # ---- how things went wrong -----------------------------------------------------------------------------

    def _shutdown(self) -> None:
        self._chains += 1
        self.on_shutdown()
        message = "triple fault: " + self._describe_chain()
        if self._chains <= _CHAINS_SHOWN:
            print(f"pyemu: {message}", file=sys.stderr)
            if self._chains == _CHAINS_SHOWN:
                print("pyemu: further triple faults are not shown", file=sys.stderr)
        if self._reboot:
            self.ask_reset()
        else:
            self.ask_stop(Stop(StopKind.TRIPLE_FAULT, 1, message))

    def _describe_chain(self) -> str:
        return ", then ".join(chain_steps(self._s)) or f"at {self._s[RIP]:#x}"

    def _describe_unimplemented(self) -> str:
        s = self._s
        code = (s[EXIT_INFO + 1].to_bytes(8, "little") + s[EXIT_INFO + 2].to_bytes(8, "little"))[:15]
        return f"instruction {instruction_text(code, s[EXIT_INFO])} is not implemented"


def chain_steps(s: State) -> list[str]:
    """The exceptions that were last recorded in FAULT_CHAIN, oldest first."""
    steps = []
    for i in range(0, CHAIN_WORDS, 2):
        word, address = s[FAULT_CHAIN + i], s[FAULT_CHAIN + i + 1]
        if not word & VALID:
            break
        vector, error = word & 0xFF, word >> 8 & 0xFFFF_FFFF
        text = vector_name(vector)
        if vector == _PAGE_FAULT:
            text += f" (error {error:#x}) on {address:#x}"
        else:
            if vector in _WITH_SELECTOR and error & 2:  # SDM 3, 6.13: the error is in a gate of the IDT
                text += f" (error {error:#x}: IDT entry {error >> 3})"
            elif vector in _WITH_SELECTOR:
                text += f" (error {error:#x})"
            text += f" at {address:#x}"
        steps.append(text)
    return steps


def instruction_text(code: bytes, address: int) -> str:
    """`name at address (bytes)`, as well as can be said."""
    name, length = "", len(code)
    try:
        import capstone
    except ImportError:
        return f"(unknown) at {address:#x} (bytes {code.hex(' ')})"
    disassembler = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    for _, size, mnemonic, operands in disassembler.disasm_lite(code, address, 1):
        name, length = f"'{mnemonic} {operands}'".replace(" '", "'"), size
    return f"{name or '(unknown)'} at {address:#x} (bytes {code[:length].hex(' ')})"
