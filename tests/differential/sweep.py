"""Generates cases and holds the back ends against a judge: the loop of the differential harness.

    sweep = Sweep(Host(), ["interp", "jit"], seed)
    for difference in sweep.run(forms, bits, instructions=2, operands=8): print(difference)

A difference is shrunk to the simplest operands that still show it, and says everything that is needed to see it again.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from pyemu.cpu.ops import Form
from tests.differential import case as c
from tests.differential.case import Case
from tests.differential.encoder import NotEncodable
from tests.differential.generator import Generator
from tests.differential.host import BATCH
from tests.differential.reviewed import compared_flags, excused, ignored

_FLAGS_AT = c.R_FLAGS


Batch = tuple[list[Form], list[Case]]


class Judge(Protocol):
    """Something that executes cases."""

    def run(self, cases: list[Case], code: bytes) -> list[bytes]:
        """The results of a batch."""


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


class Sweep:
    """One judge, some subjects, one stream of cases."""

    def __init__(self, judge: Judge, name: str, subjects: dict[str, Judge], seed: int) -> None:
        self.judge, self.name, self.subjects, self.seed = judge, name, subjects, seed
        self.generator = Generator(seed)
        self.instructions = self.cases = 0
        self.met: dict[int, int] = {}  # form number -> cases

    def batches(self, forms: list[Form], bits: int, instructions: int, operands: int) -> Iterator[Batch]:
        """Batches of cases: `instructions` of each form, each with `operands` states."""
        todo: list[Form] = []
        cases: list[Case] = []
        slot = 0
        for form in forms:
            for _ in range(instructions):
                rip = c.CODE + c.SLOT * slot
                try:
                    instruction = self.generator.instruction(form, bits, rip)
                except NotEncodable:
                    break
                for _ in range(operands):
                    cases.append(Case(instruction.code, bits, slot, self.generator.given(instruction, rip)))
                    todo.append(form)
                slot += 1
                self.instructions += 1
                if len(cases) + operands > BATCH or slot == c.SLOTS:
                    yield todo, cases
                    todo, cases, slot = [], [], 0
                    self.generator.renew()
        if cases:
            yield todo, cases

    def run(self, forms: list[Form], bits: int, instructions: int, operands: int) -> Iterator[Difference]:
        """Execute, compare, and yield what differs."""
        for todo, cases in self.batches(forms, bits, instructions, operands):
            code = c.place(cases)
            expected = self.judge.run(cases, code)
            self.cases += len(cases)
            for form in todo:
                self.met[form.number] = self.met.get(form.number, 0) + 1
            for name, subject in self.subjects.items():
                found = subject.run(cases, code)
                for form, case, ours, theirs in zip(todo, cases, found, expected, strict=True):
                    if not same(form, ours, theirs):
                        yield Difference(form, case, self.name, name, theirs, ours, self.seed)

    def shrink(self, difference: Difference) -> Difference:
        """The same instruction with the simplest operands that still differ, on the same two."""
        form, best = difference.form, difference
        subject = self.subjects[difference.subject]
        for change in _simplifications(best.case):
            case = Case(best.case.code, best.case.bits, best.case.slot, change(best.case.given))
            if case.given == best.case.given:
                continue
            code = c.place([case])
            expected, found = self.judge.run([case], code)[0], subject.run([case], code)[0]
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
