"""A processor without instructions: stands in for an accelerator where the machine around it is tested."""

from __future__ import annotations

import time
from collections.abc import Callable

from pyemu.cpu import hooks
from pyemu.cpu.host import Exit
from pyemu.cpu.state import (
    EXIT_REQUEST,
    FLAGS,
    HALTED,
    HOOK_COUNT,
    ICOUNT,
    ICOUNT_LIMIT,
    IRQ_PENDING,
    NMI_PENDING,
    RIP,
)

IF = 1 << 9


class FakeAccelerator:
    """Each "instruction" is one call of `step(self)`, which may use the host and return an Exit to leave with."""

    def __init__(self, s, host, step: Callable[[FakeAccelerator], Exit | None]) -> None:
        self.s = s
        self.host = host
        self.step = step
        self.vectors: list[int] = []
        self.runs = 0

    def run(self) -> Exit:
        s = self.s
        self.runs += 1
        while True:
            if s[EXIT_REQUEST]:
                s[EXIT_REQUEST] = 0
                return Exit.REQUEST
            if s[NMI_PENDING]:
                s[NMI_PENDING] = 0
                s[HALTED] = 0
                self.vectors.append(2)
            if s[IRQ_PENDING] and s[FLAGS] & IF:
                vector = self.host.acknowledge_interrupt()
                if vector >= 0:
                    s[HALTED] = 0
                    self.vectors.append(vector)
            if s[HALTED]:
                return Exit.HALT
            if s[ICOUNT] >= s[ICOUNT_LIMIT]:
                return Exit.BUDGET
            if s[HOOK_COUNT]:
                served = hooks.before(s, s[RIP], 0, 1)
                if served == hooks.STOP:
                    return Exit.DEBUG
                if served == hooks.AGAIN:
                    continue
            s[ICOUNT] += 1
            s[RIP] += 1
            reason = self.step(self)
            if reason is not None:
                return reason

    def memory_changed(self) -> None:
        """Nothing is cached."""

    def code_hooks_changed(self, spans) -> None:
        """Likewise."""

    def watches_changed(self) -> None:
        """It never touches memory."""

    def write_text(self, text: str) -> None:
        for byte in text.encode():
            self.host.port_write(0x3F8, 1, byte)


def spin(_cpu: FakeAccelerator) -> None:
    time.sleep(0)
