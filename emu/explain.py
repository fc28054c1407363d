"""`machine.explain(...)`: one door to the explanations.

    machine.explain("$rip")                 the instruction there (also a symbol, a number, or nothing)
    machine.explain("address 0xffff8880")   the page walk, and who may do what
    machine.explain("selector 8"), ("gate 14"), ("tss"), ("fault"), ("time")

The parts are `explain_instruction`, `explain_address`, `explain_descriptors`, `explain_fault`, `explain_time`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pyemu.explanation import Explanation
from pyemu.expression import evaluate

if TYPE_CHECKING:
    from pyemu.machine import Machine

# What can be explained, with what it is called for users.
SUBJECTS = {
    "ADDRESS": "the instruction there: $rip, a symbol, any expression",
    "address ADDRESS": "each level of the page walk, and who may do what there",
    "selector SELECTOR": "its descriptor",
    "gate VECTOR": "the IDT's entry, and what would happen now",
    "tss": "the task-state segment that TR names",
    "fault": "the last exception: why, where, which check; up to a triple fault",
    "time": "the clock, interrupts that wait, timers that are armed",
}


def explain(machine: Machine, what: str | int = "$rip") -> Explanation:
    """Only while the machine is stopped. ExpressionError says what is wrong with the question."""
    if isinstance(what, int):
        return _instruction(machine, what)
    word, _, rest = what.strip().partition(" ")
    subject = _BY_NAME.get(word)
    if subject is not None and (word in ("tss", "fault", "time")) == (not rest.strip()):
        return subject(machine, evaluate(rest, machine.regs, machine.symbols) if rest.strip() else 0)
    return _instruction(machine, evaluate(what.strip() or "$rip", machine.regs, machine.symbols))


def _instruction(machine: Machine, rip: int) -> Explanation:
    from pyemu.explain_instruction import explain_instruction

    return explain_instruction(machine, rip)


def _address(machine: Machine, linear: int) -> Explanation:
    from pyemu.explain_address import explain_address

    return explain_address(machine, linear)


def _selector(machine: Machine, selector: int) -> Explanation:
    from pyemu.explain_descriptors import explain_selector

    return explain_selector(machine, selector)


def _gate(machine: Machine, vector: int) -> Explanation:
    from pyemu.explain_descriptors import explain_gate

    return explain_gate(machine, vector)


def _tss(machine: Machine, _: int) -> Explanation:
    from pyemu.explain_descriptors import explain_tss

    return explain_tss(machine)


def _fault(machine: Machine, _: int) -> Explanation:
    from pyemu.explain_fault import explain_fault

    return explain_fault(machine)


def _time(machine: Machine, _: int) -> Explanation:
    from pyemu.explain_time import explain_time

    return explain_time(machine)


_BY_NAME: dict[str, Callable[[Machine, int], Explanation]] = {
    "address": _address, "selector": _selector, "gate": _gate, "tss": _tss, "fault": _fault, "time": _time,
}  # fmt: skip
