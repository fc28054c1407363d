"""Small programs in assembler on the processor of system_setup.py, run by each back end until they halt.

Every handler of system_setup.py is a HLT, so that the first exception ends a program; `Outcome` says which it was, and
what the frame holds. `handler(m, vector, text)` puts other code into a handler. Not here:
whole machines (tests/guests).
"""

from __future__ import annotations

from dataclasses import dataclass

import keystone

from pyemu.cpu.control_registers import DR6_ONES
from pyemu.cpu.host import Exit
from pyemu.cpu.reference import Reference
from pyemu.cpu.state import CR2, CS, DR, EFER, FLAGS, GPR, HALTED, ICOUNT, ICOUNT_LIMIT, RIP, RSP, SEG_BASE, State
from pyemu.jit.engine import Engine
from tests.cpu import system_setup as setup
from tests.cpu.fake_host import FakeHost

BACKENDS = ("reference", "interp", "jit")
MOST = 20_000  # instructions after which a program has gone astray
_MODES = {64: keystone.KS_MODE_64, 32: keystone.KS_MODE_32, 16: keystone.KS_MODE_16}


def assemble(text: str, bits: int = 64, address: int = setup.CODE) -> bytes:
    """Machine code of some lines."""
    code, _ = keystone.Ks(keystone.KS_ARCH_X86, _MODES[bits]).asm(text, address, as_bytes=True)
    assert code is not None
    return bytes(code)


@dataclass(frozen=True)
class Outcome:
    """How a program ended: by a HLT of its own (vector -1), or in the handler of a vector."""

    vector: int
    rip: int  # behind the HLT, or what the frame says
    error: int | None
    rflags: int
    dr6: int
    cr2: int
    executed: int


class Runner:
    """A machine on a back end."""

    def __init__(self, m: setup.Machine, backend: str) -> None:
        self.m, self.host = m, FakeHost()
        s = m.s
        s[DR + 6] = DR6_ONES
        self.reference = self.engine = None
        if backend == "reference":
            self.reference = Reference(s, self.host, s.ram)
        else:
            self.engine = Engine(s, self.host, s.ram, backend)

    def go(self) -> Outcome:
        """Run until the processor halts; requests to leave (EXIT_REQUEST) are for the test's own purposes."""
        s = self.m.s
        first = s[ICOUNT]
        s[ICOUNT_LIMIT] = first + MOST
        reason: Exit | None = Exit.REQUEST
        while reason == Exit.REQUEST:
            reason = self.reference.run() if self.reference else self.engine.run() if self.engine else None
        assert reason == Exit.HALT, f"ended with {reason!r} at {s[RIP]:#x}"
        s[HALTED] = 0
        return outcome(self.m, s[ICOUNT] - first)


def outcome(m: setup.Machine, executed: int) -> Outcome:
    """What the HLT that has just been executed belongs to."""
    s: State = m.s
    at = s[SEG_BASE + CS] + s[RIP] - 1
    vector, rest = divmod(at - setup.HANDLERS, 16)
    if rest or not 0 <= vector < 256:
        return Outcome(-1, s[RIP], None, s[FLAGS], s[DR + 6], s[CR2], executed)
    has_error = vector in (8, 10, 11, 12, 13, 14, 17)
    size = "Q" if s[EFER] & 0x400 else "I" if s[SEG_BASE + CS] == 0 else "H"
    words = m.get(s[GPR + RSP] & 0xFFFFF, size * 4)
    error = words[0] if has_error and size != "H" else None
    frame = words[1:] if error is not None else words
    return Outcome(vector, frame[0], error, frame[2], s[DR + 6], s[CR2], executed)


def run(m: setup.Machine, backend: str, text: str, bits: int = 64) -> Outcome:
    """Assemble a program at CODE, and run it."""
    code = assemble(text, bits)
    m.s.ram[setup.CODE : setup.CODE + len(code)] = code
    return Runner(m, backend).go()


def handler(m: setup.Machine, vector: int, text: str, bits: int = 64) -> None:
    """Other code for a handler: at most 16 bytes."""
    at = setup.HANDLERS + 16 * vector
    code = assemble(text, bits, at)
    assert len(code) <= 16
    m.s.ram[at : at + len(code)] = code


__all__ = ["BACKENDS", "Outcome", "Runner", "assemble", "handler", "outcome", "run"]
