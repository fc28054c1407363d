"""System instructions in every mode: control and table registers, segment loads, far transfers, interrupts. The native
back ends are held against the reference, and that at CPL 0 against KVM, where /dev/kvm can be opened.

On virtual machines KVM may emulate ring 0 in software (arch/x86/kvm/emulate.c), which lacks some instructions and gets
some things wrong: those are listed by name.
"""

from __future__ import annotations

import re

import pytest

from pyemu.cpu.host import Exit
from pyemu.cpu.ops import Form
from pyemu.cpu.state import State, new_state
from tests.cpu import system_setup as setup
from tests.cpu.semantics.machines import forms
from tests.differential import kvm
from tests.differential.encoder import NotEncodable
from tests.differential.reviewed import compared_flags
from tests.differential.system_cases import WORLDS, SystemCase, SystemSubject, Worlds, differences
from tests.differential.test_generated import SEED

MODES = list(WORLDS)
AT_CPL_0 = ("real", "protected", "64-bit", "compatibility")
NAMES = frozenset(
    "lgdt lidt sgdt sidt lldt ltr sldt str smsw lmsw clts invlpg lar lsl verr verw arpl les lds lss lfs lgs jmpf callf"
    " retf iret int int3 into bound cli sti pushf popf swapgs clac stac xgetbv wbinvd invd enter leave pusha"
    " popa".split()
)  # fmt: skip
# What KVM's emulator is known to get wrong, by mnemonic and by the start of the first difference.
TOLERATED = (
    (r"iret|ltr|lldt|retf|callf|jmpf|l[defgs]s|mov|pop", "memory", "#GP without the selector in its error code"),
    (r"enter", "gpr", "pushes what fits the width of the stack pointer, whatever the operand size is"),
    (r"int", "gpr[0]", "INT 1BH is a call of a paravirtual hypervisor below, which answers -ENOSYS in RAX"),
    (r"int", "gpr[4]", "likewise #GP for others of the vectors from 15H to 1FH"),
    (r"lss|mov|pop", "seg_limit[2]", "a null SS stays usable"),
    (r"popf|iret", "", "no trap after the instruction that follows a set TF"),
    (r"lar|lsl|verr|verw|arpl|bound|xgetbv|wbinvd|invd|clac|stac|swapgs", "", "partly absent: #UD instead"),
)
COUNT = 4


def judged(form: Form) -> bool:
    """Is a form one of those above?"""
    moves = form.row.name in ("mov", "push", "pop") and any(o.kind in ("seg", "cr") for o in form.operands)
    return moves or form.row.name in NAMES


Outcome = tuple[bool, State, bytes]  # shut down, registers, memory


class Kvm:
    """KVM behind the interface of SystemSubject."""

    def __init__(self) -> None:
        self.kvm, self.case = kvm.Kvm(setup.RAM_SIZE), b""
        self.loader, self.s = SystemSubject("reference"), new_state()

    def outcome(self, case: SystemCase) -> Outcome | None:
        self.loader.load(case)
        self.kvm.memory[:] = case.memory
        self.kvm.put(self.loader.s)
        end = self.kvm.run()
        self.kvm.get(self.s)
        ended = end in (kvm.Exit.HLT, kvm.Exit.SHUTDOWN)
        return (end == kvm.Exit.SHUTDOWN, self.s, self.kvm.memory[:]) if ended else None


def outcome(subject: SystemSubject, case: SystemCase) -> Outcome | None:
    """What a back end makes of a case; None if it went astray."""
    subject.load(case)
    end = subject.run()
    return (end == Exit.SHUTDOWN, subject.s, bytes(subject.ram)) if end in (Exit.HALT, Exit.SHUTDOWN) else None


def compare(form: Form, ours: Outcome, theirs: Outcome) -> list[str]:
    """The differences."""
    if ours[0] or theirs[0]:
        return [] if ours[0] == theirs[0] else [f"shutdown: {ours[0]} != {theirs[0]}"]
    lines = differences(ours[1], theirs[1], compared_flags(form) & ~0x10000)
    return lines or (["memory"] if ours[2] != theirs[2] else [])


def tolerated(form: Form, lines: list[str]) -> bool:
    """Is it the judge's mistake?"""
    return any(re.fullmatch(name, form.row.name) and lines[0].startswith(start) for name, start, _ in TOLERATED)


@pytest.mark.parametrize("world", MODES)
def test_system_instructions(world: str) -> None:
    """Each system form in a mode: interpreter and translator as the reference, and that as KVM."""
    worlds, reference = Worlds(SEED), SystemSubject("reference")
    native = {name: SystemSubject(name) for name in ("interp", "jit")}
    judge = Kvm() if kvm.available() and world in AT_CPL_0 else None
    wrong: list[str] = []
    compared = 0
    for form in filter(judged, forms()):
        for _ in range(COUNT):
            try:
                case = worlds.case(form, world)
            except NotEncodable:
                break
            what = f"{case.code.hex(' ')} ({form.row.encoding} {form.row.operands})"
            if (theirs := outcome(reference, case)) is None:
                continue
            compared += 1
            for name, subject in native.items():
                ours = outcome(subject, case)
                if ours is None or (lines := compare(form, ours, theirs)):
                    wrong.append(f"{what}: {name} != reference: {lines[:4] if ours else 'astray'}")
            if judge is not None and (outside := judge.outcome(case)) is not None:
                lines = compare(form, theirs, outside)
                if lines and not tolerated(form, lines):
                    wrong.append(f"{what}: reference != KVM: {lines[:4]}")
    assert not wrong, "\n".join(wrong[:10])
    assert compared > 100
