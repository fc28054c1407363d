"""Generates cases and holds the back ends against a judge: the loop of the differential harness.

    sweep = Sweep(Host(), ["interp", "jit"], seed)
    for difference in sweep.run(forms, bits, instructions=2, states=8): print(difference)

A difference is shrunk to the simplest operands that still show it, and says everything that is needed to see it again.
"""

from __future__ import annotations

import ctypes
import os
import struct
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import blake2b
from typing import Any, Protocol

from pyemu.cpu.ops import Form
from tests.differential import case as c
from tests.differential import driver
from tests.differential.batch import BATCH, Batch, Records
from tests.differential.case import Case
from tests.differential.encoder import NotEncodable
from tests.differential.generator import Generator, Instruction
from tests.differential.reviewed import compared_flags, excused, ignored

_FLAGS_AT = c.R_FLAGS
RENEW = 8  # batches between new pools
Filled = tuple[list[Form], Batch]  # the form of each instruction

class Judge(Protocol):
    """Something that executes cases."""

    def run_batch(self, batch: Batch) -> Records:
        """The results of a batch; they stay until the next one."""

    def run(self, cases: Sequence[Case]) -> list[bytes]:
        """The results of a few cases."""


def disassembly(code: bytes, bits: int, rip: int) -> str:
    """The instruction as capstone reads it."""
    import capstone

    engine: Any = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64 if bits == 64 else capstone.CS_MODE_32)
    for _, _, mnemonic, operands in engine.disasm_lite(code, rip, 1):
        return f"{mnemonic} {operands}"
    return "(not known to capstone)"


@dataclass(frozen=True)
class Difference:
    """A case whose results differ."""

    form: Form
    case: Case
    judge: str
    subject: str
    expected: bytes
    found: bytes
    seed: int

    def lines(self) -> list[str]:
        """What differs: subject != judge."""
        return c.describe(self.found, self.expected, compared_flags(self.form))

    def __str__(self) -> str:
        given = self.case.given
        registers = " ".join(
            f"{n}={c.word(given, 8 * k):#x}" for k, n in enumerate(c.GPR_NAMES) if c.word(given, 8 * k)
        )
        text = disassembly(self.case.code, self.case.bits, self.case.rip)
        row = self.form.row
        fcw, fsw, ftw = (c.word(given, at) for at in (c.R_FP + 128, c.R_FSW, c.R_FTW))
        lines = [f"{text} ({self.case.code.hex(' ')}, {self.case.bits} bits, {row.encoding} {row.operands})"]
        lines.append(f"  seed {self.seed}: {self.subject} != {self.judge}")
        lines += [f"  {line}" for line in self.lines()[:8]]
        lines.append(f"  from rflags={c.word(given, _FLAGS_AT):#x} mxcsr={c.word(given, c.R_MXCSR):#x}")
        lines.append(f"  fcw={fcw:#x} fsw={fsw:#x} ftw={ftw:#x}")
        return "\n".join([*lines, f"  {registers}"])


def same(form: Form, a: bytes, b: bytes) -> bool:
    """Equal, as far as the architecture says."""
    if a == b:
        return True
    if c.word(a, c.R_VECTOR) == c.word(b, c.R_VECTOR) >= c.ENDLESS:
        return True
    a, b = ignored(a), ignored(b)
    if excused(form, a, b):
        return True
    if (c.word(a, _FLAGS_AT) ^ c.word(b, _FLAGS_AT)) & compared_flags(form):
        return False
    end = _FLAGS_AT + 8
    return a[:_FLAGS_AT] == b[:_FLAGS_AT] and a[end:] == b[end:]


def todays_part(forms: list[Form], parts: int) -> list[Form]:
    """One of `parts` parts, another one every day; PYEMU_DAY, which a failure should name, chooses that of a day."""
    day = int(os.environ.get("PYEMU_DAY") or date.today().toordinal())
    print(f"PYEMU_DAY={day}")
    return forms[day % parts :: parts]


def hash_of(code: bytes, bits: int) -> int:
    """64 bits that stand for an instruction, to count distinct ones."""
    return int.from_bytes(blake2b(code, digest_size=8, salt=bytes([bits])).digest(), "little")


class Sweep:
    """One judge, some subjects, one stream of cases."""

    def __init__(self, judge: Judge, name: str, subjects: dict[str, Judge], seed: int) -> None:
        self.judge, self.name, self.subjects, self.seed = judge, name, subjects, seed
        self.generator = Generator(seed)
        self.cases = 0
        self.hashes = array("Q")  # of the instructions
        self.given = Records()
        self.listed = (ctypes.c_uint64 * BATCH)()

    def batches(self, forms: Sequence[Form], bits: int, instructions: int, states: int) -> Iterator[Filled]:
        """Batches of cases: `instructions` of each form, each with `states` states."""
        most = min(BATCH // states, c.SLOTS)
        todo: list[Instruction] = []
        made = 0
        for form in forms:
            for _ in range(instructions):
                try:
                    todo.append(self.generator.instruction(form, bits, c.CODE + c.SLOT * len(todo)))
                except NotEncodable:
                    break
                if len(todo) == most:
                    yield self._fill(todo, bits, states)
                    todo, made = [], made + 1
                    if made % RENEW == 0:
                        self.generator.renew()
        if todo:
            yield self._fill(todo, bits, states)

    def _fill(self, todo: list[Instruction], bits: int, states: int) -> Filled:
        self.hashes.extend(hash_of(i.code, bits) for i in todo)
        self.generator.states(todo, [c.CODE + c.SLOT * slot for slot in range(len(todo))], states, self.given)
        codes = [(slot, i.code) for slot, i in enumerate(todo)]
        return [i.form for i in todo], Batch(codes, bits, self.given, len(todo) * states, states)

    def run(self, forms: Sequence[Form], bits: int, instructions: int, states: int) -> Iterator[Difference]:
        """Execute, compare, and yield what differs."""
        for todo, batch in self.batches(forms, bits, instructions, states):
            expected = self.judge.run_batch(batch)
            self.cases += batch.count
            different: list[Difference] = []  # all of them before anyone shrinks one, which needs the same memory
            for name, subject in self.subjects.items():
                found = subject.run_batch(batch)
                for n in self._different(found, expected, batch.count):
                    form, ours, theirs = todo[n // states], found.row(n), expected.row(n)
                    if not same(form, ours, theirs):
                        different.append(Difference(form, batch.case(n), self.name, name, theirs, ours, self.seed))
            yield from different

    def _different(self, found: Records, expected: Records, count: int) -> list[int]:
        """The cases that are worth a look."""
        listed = ctypes.addressof(self.listed)
        return self.listed[: driver.call("compare", found.address, expected.address, count, listed)]

    def shrink(self, difference: Difference) -> Difference:
        """The same instruction with the simplest operands that still differ, on the same two."""
        form, best = difference.form, difference
        subject = self.subjects[difference.subject]
        for change in _simplifications(best.case):
            case = Case(best.case.code, best.case.bits, best.case.slot, change(best.case.given))
            if case.given == best.case.given:
                continue
            expected, found = self.judge.run([case])[0], subject.run([case])[0]
            if not same(form, found, expected):
                best = Difference(form, case, difference.judge, difference.subject, expected, found, difference.seed)
        return best


def _simplifications(case: Case) -> list[Any]:
    """Changes to a record that make it simpler, coarse ones first."""

    def put(at: int, value: bytes) -> Any:
        return lambda given: given[:at] + value + given[at + len(value) :]

    changes = [put(c.R_MEMORY, bytes(c.MEMORY)), put(c.R_FLAGS, struct.pack("<Q", 0x202))]
    changes += [put(c.R_MXCSR, struct.pack("<Q", 0x1F80)), put(c.R_FP + 128, struct.pack("<2Q", 0x37F, 0))]
    changes += [put(c.R_VEC + 64 * n, bytes(64)) for n in range(32)]
    changes += [put(c.R_FP + 16 * n, bytes(16)) for n in range(8)]
    for n in range(16):
        changes += [put(8 * n + 4, bytes(4)), put(8 * n, struct.pack("<Q", 1)), put(8 * n, bytes(8))]
    changes += [put(c.R_OPMASK + 8 * n, bytes(8)) for n in range(8)]
    return changes
