"""The reference interpreter: decodes and executes one instruction after another in plain Python.

It has the same shape as the native loop (jit/loop.py) and calls the same mechanism code. Decoded instructions are
kept by
physical address and mode as long as their bytes stay the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from pyemu.cpu import branches, debug, hooks, interrupts, paging, tlb
from pyemu.cpu import mode as md
from pyemu.cpu.concrete import Concrete
from pyemu.cpu.decode import record as rc
from pyemu.cpu.decode.decoder import decode
from pyemu.cpu.host import Exit, Host
from pyemu.cpu.ops import build_table
from pyemu.cpu.primitives import before_write
from pyemu.cpu.state import (
    CS,
    EXIT_REQUEST,
    FAULT_VECTOR,
    FETCH_PHYS,
    FETCH_PHYS2,
    HALTED,
    HOOK_COUNT,
    ICOUNT,
    ICOUNT_LIMIT,
    IRQ_PENDING,
    M64,
    MODE,
    NMI_PENDING,
    NO_FAULT,
    NO_PAGE,
    PENDING_DEBUG,
    RECORD,
    RIP,
    SEG_BASE,
    STEPPING,
    WALK_PHYS,
    State,
)

SHUTDOWN = 2  # from interrupts


class Reference:
    """Runs one vCPU in Python."""

    def __init__(self, state: State, host: Host, ram: memoryview) -> None:
        self.state = state
        state.ram, state.host = ram, host
        self.concrete = Concrete(state)
        self.forms = build_table().forms
        self.known: dict[tuple[int, int, int], tuple[bytes, list[int]]] = {}
        self.following: int | None = None  # RIP behind the last instruction if that ended no block

    def run(self) -> Exit:
        """Execute until there is a reason to stop."""
        s = self.state
        while True:
            if s[PENDING_DEBUG] and debug.waiting(s) and interrupts.deliver_fault(s) == SHUTDOWN:
                return Exit.SHUTDOWN
            if s[EXIT_REQUEST]:
                s[EXIT_REQUEST] = 0
                return Exit.REQUEST
            if s[ICOUNT] >= s[ICOUNT_LIMIT]:
                return Exit.BUDGET
            if (s[IRQ_PENDING] or s[NMI_PENDING]) and interrupts.take_interrupts(s) == SHUTDOWN:
                return Exit.SHUTDOWN
            if s[ICOUNT] >= s[ICOUNT_LIMIT]:
                return Exit.BUDGET  # the delivery was the last that might happen
            if s[HALTED]:
                return Exit.HALT
            if s[PENDING_DEBUG] and debug.waiting(s):
                if interrupts.deliver_fault(s) == SHUTDOWN:
                    return Exit.SHUTDOWN
                continue
            if s[HOOK_COUNT] and self._hooked():
                return Exit.DEBUG
            if self.step():
                return Exit.SHUTDOWN

    def memory_changed(self) -> None:
        """Other memory is at some addresses now. Decoded instructions are compared with their bytes anyway."""
        tlb.flush_all(self.state)

    def code_hooks_changed(self, spans: Iterable[tuple[int, int]]) -> None:
        """Each instruction is looked at anyway."""

    def watches_changed(self) -> None:
        """Memory is watched that wasn't, or no longer."""
        tlb.mark_all(self.state)

    def _hooked(self) -> bool:
        """Serve the hooks of the instruction at RIP; true to stop before it."""
        s = self.state
        while True:
            linear = s[RIP] if s[MODE] & md.CODE64 else (s[RIP] + s[SEG_BASE + CS]) & 0xFFFFFFFF
            packed = 0
            if hooks.flags(s, linear):
                words = self._fetch()
                s[FAULT_VECTOR] = NO_FAULT  # step() raises it again
                if words is None:
                    return False  # there is no instruction to execute
                packed = words[rc.PACKED]
            result = hooks.before(s, linear, packed, int(s[RIP] != self.following))
            if result != hooks.AGAIN:
                return result == hooks.STOP

    def state_replaced(self) -> None:
        """The registers are about to be others."""
        tlb.flush_all(self.state)

    def written(self, address: int, length: int) -> None:
        """RAM is about to change behind the vCPU's back (DMA, debugger)."""
        for page in range(address & ~0xFFF, address + length, 0x1000):
            before_write(self.state, page, 1)

    def step(self) -> int:
        """Execute one instruction and deliver what it raises; nonzero for a triple fault."""
        s = self.state
        if s[MODE] & md.BREAKPOINTS and debug.at_breakpoint(s):
            return int(interrupts.deliver_fault(s) == SHUTDOWN)
        s[STEPPING] = s[MODE] & md.TRAP
        words = self._fetch()
        self.following = None
        if words is not None:
            form = self.forms[words[rc.PACKED] & 0xFFFF]
            if self.concrete.execute(form, words) == 0:
                s[ICOUNT] += 1
                if not form.row.ends_block:
                    self.following = s[RIP]
                if s[FAULT_VECTOR] == NO_FAULT and s[STEPPING] | s[PENDING_DEBUG]:
                    following = (words[rc.R_RIP] + (words[rc.PACKED] >> rc.LENGTH & 0xFF)) & M64
                    debug.completed(s, branches.taken(s, words[rc.PACKED] & 0xFFFF, following))
        if s[FAULT_VECTOR] != NO_FAULT:
            return int(interrupts.deliver_fault(s) == SHUTDOWN)
        return 0

    def _fetch(self) -> list[int] | None:
        """The record at RIP, or None with a fault raised."""
        s = self.state
        rip, mode = s[RIP], s[MODE]
        linear = rip if mode & md.CODE64 else (rip + s[SEG_BASE + CS]) & 0xFFFFFFFF
        if paging.fetch_page(s, linear):
            return None
        phys = s[WALK_PHYS] + (linear & 0xFFF)
        near_end = (linear & 0xFFF) > 0xFF0 or phys >> 63
        key = phys, rip, mode
        if not near_end and (entry := self.known.get(key)) is not None:
            code, words = entry
            if s.ram[phys : phys + len(code)] == code:
                return words
        s[FETCH_PHYS], s[FETCH_PHYS2] = phys, NO_PAGE
        if decode(s, rip, linear, mode & md.CODE64, (mode & md.CODE32) >> 1):
            return None
        words = [s[RECORD + k] for k in range(rc.WORDS)]
        if not near_end:
            length = words[rc.PACKED] >> rc.LENGTH & 0xFF
            self.known[key] = bytes(s.ram[phys : phys + length]), words
        return words
