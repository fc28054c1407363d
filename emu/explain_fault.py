"""Why an exception happened: the check that failed, what it looked at, and the chain up to a triple fault.

What is explained is the last exception that was delivered, or could not be: the processor keeps its cause and what came
of it (FAULT_CHAIN, see `pyemu.cpu.interrupts`). Each step is tried again on a copy of the processor, which stands as it
stood when nothing could be delivered; where the guest has gone on since, the explanation says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyemu.cpu import faults, interrupts, paging
from pyemu.cpu.faults import DF, NAMES, PF, has_error_code
from pyemu.cpu.state import (
    CPL,
    CR3,
    CS,
    FAULT_CHAIN,
    GDT_BASE,
    GPR,
    IDT_BASE,
    IDT_LIMIT,
    RIP,
    RSP,
    SEG_SEL,
    SS,
    TR_BASE,
    State,
)  # fmt: skip
from pyemu.dry_run import DryRun, Raised
from pyemu.explanation import Explanation, Table

if TYPE_CHECKING:
    from pyemu.machine import Machine

_WITH_SELECTOR = frozenset({faults.TS, faults.NP, faults.SS, faults.GP})
_TITLES = {
    0: "divide error", 1: "debug", 2: "NMI", 3: "breakpoint", 4: "overflow", 5: "bound range exceeded",
    6: "invalid opcode", 7: "device not available", 8: "double fault", 10: "invalid TSS", 11: "segment not present",
    12: "stack-segment fault", 13: "general protection", 14: "page fault", 16: "x87 floating-point error",
    17: "alignment check", 18: "machine check", 19: "SIMD floating-point exception", 20: "virtualization exception",
    21: "control protection",
}  # fmt: skip
_CLASSES = {
    faults.BENIGN: "benign", faults.CONTRIBUTORY_CLASS: "contributory", faults.PAGE_FAULT_CLASS: "page fault",
    faults.DOUBLE_FAULT_CLASS: "double fault",
}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One exception of FAULT_CHAIN: `address` is CR2 for #PF, RIP for others."""

    vector: int
    error: int
    address: int

    @property
    def name(self) -> str:
        name = NAMES.get(self.vector, f"interrupt {self.vector:#x}")
        return f"{name}({self.error:#x})" if has_error_code(self.vector) else name

    @property
    def title(self) -> str:
        return f"{self.name}, {_TITLES.get(self.vector, 'interrupt')}"


def chain(s: State) -> list[Step]:
    """What FAULT_CHAIN holds, the cause first."""
    steps = []
    for at in range(0, interrupts.CHAIN_WORDS, 2):
        word = s[FAULT_CHAIN + at]
        if not word & interrupts.VALID:
            break
        steps.append(Step(word & 0xFF, word >> 8 & 0xFFFF_FFFF, s[FAULT_CHAIN + at + 1]))
    return steps


def explain_fault(machine: Machine) -> Explanation:
    """The last exception, and what followed from it."""
    s = machine.last_shutdown if machine.last_shutdown is not None else machine.state
    recorded = chain(s)
    if not recorded:
        return Explanation("fault", "no exception since the reset")
    parts = [_explain_cause(machine, s, recorded[0])]
    steps, fatal = [recorded[0]], False
    if len(recorded) > 1:
        raised, fatal = DryRun(machine, s).deliver_all(recorded[0].vector, recorded[0].error, recorded[0].address)
        if raised and (raised[-1].vector, raised[-1].error) == (recorded[-1].vector, recorded[-1].error):
            _add_consequences(machine, s, raised, steps, parts)
        else:
            steps, fatal = recorded, is_shutdown(recorded)
            parts += [Explanation(step.title, "what stood there then has changed since") for step in recorded[1:]]
    names = ", then ".join(step.name for step in steps)
    end = "no handler could be entered, and the processor shut down" if fatal else "delivered"
    if machine.last_shutdown is not None:
        end += "; the machine was reset since: memory is shown as it is now"
    elif not fatal:
        end += "; explained as things stand now, as the guest may have gone on since"
    rows = [(step.name, _TITLES.get(step.vector, ""), part.summary) for step, part in zip(steps, parts, strict=True)]
    data = {
        "triple_fault": fatal,
        "chain": [
            {"vector": step.vector, "error": step.error, "address": step.address, "why": part.summary}
            for step, part in zip(steps, parts, strict=True)
        ],
    }
    title = "triple fault" if fatal else "fault"
    table = Table("what led to what", ("exception", "kind", "why"), tuple(rows))
    return Explanation(title, f"{names}: {end}", (table,), data, tuple(parts))


def is_shutdown(steps: list[Step]) -> bool:
    """Does the chain end with an exception that a double fault's delivery raised?"""
    return any(step.vector == DF for step in steps[:-1])


def _add_consequences(
    machine: Machine, s: State, raised: list[Raised], steps: list[Step], parts: list[Explanation]
) -> None:
    """What was raised while the handlers could not be entered, with the double fault where it comes."""
    for one in raised:
        before = steps[-1]
        part = explain_raised(machine, one, s=s)
        why = f"while {before.name} was being delivered{_place(s, one)}: {part.summary}"
        steps.append(Step(one.vector, one.error, one.address))
        parts.append(Explanation(part.subject, why, part.tables, part.data, part.parts))
        if interrupts.combine(before.vector, one.vector) == DF and one.vector != DF:
            kinds = f"{_CLASSES[faults.fault_class(before.vector)]} and {_CLASSES[faults.fault_class(one.vector)]}"
            steps.append(Step(DF, 0, s[RIP]))
            why = f"{Step(one.vector, one.error, 0).name} came while {before.name} was being delivered: {kinds}"
            parts.append(Explanation(steps[-1].title, f"{why}, which together are a double fault"))


# What delivery was doing, by the function that was at it.
_PLACES = (
    (("push_frame", "push_frame_here"), "pushing the handler's frame onto the stack, RSP {rsp:#x}"),
    (("long_stack", "inner_stack", "read_tss"), "taking the handler's stack from the TSS at {tss:#x}"),
    (("gate_code",), "reading the descriptor of the handler's code segment, GDT at {gdt:#x}"),
    (("deliver_long", "deliver_protected", "deliver_real"), "looking at the IDT at {idt:#x}"),
)


def _place(s: State, raised: Raised) -> str:
    values = {"rsp": s[GPR + RSP], "tss": s[TR_BASE], "gdt": s[GDT_BASE], "idt": s[IDT_BASE]}
    for functions, words in _PLACES:
        if any(name in raised.functions for name in functions):
            return f", {words.format(**values)}"
    return ""


def _explain_cause(machine: Machine, s: State, step: Step) -> Explanation:
    """The first exception: of the instruction at RIP, if that still raises it."""
    from pyemu.cpu.sentences import meaning

    outcome = DryRun(machine, s).execute()
    raised = outcome.fault
    where = f"at {s[SEG_SEL + CS]:#x}:{s[RIP]:#x} {machine.symbols.describe(s[RIP])}".rstrip()
    if raised is not None and raised.vector == step.vector:
        own = ""
        if raised.own_check is not None and outcome.form is not None:
            own = meaning(outcome.form, outcome.words).checks[raised.own_check].condition or "always"
            own = (
                f"'{outcome.form.row.name}' raises it if: {own}"
                if own != "always"
                else f"'{outcome.form.row.name}' always raises it"
            )
        part = explain_raised(machine, raised, own, s)
        return Explanation(step.title, f"{where}: {part.summary}", part.tables, part.data, part.parts)
    if step.vector == PF:
        raised = Raised(PF, step.error, step.address, "", "", ())
        part = explain_raised(machine, raised, "the instruction has been completed or changed since", s)
        return Explanation(step.title, part.summary, part.tables, part.data, part.parts)
    return Explanation(step.title, f"raised at {step.address:#x} {machine.symbols.describe(step.address)}".rstrip())


def explain_raised(machine: Machine, raised: Raised, own: str = "", s: State | None = None) -> Explanation:
    """One exception by the check that raised it."""
    from pyemu.explain_address import explain_address

    step = Step(raised.vector, raised.error, raised.address)
    reason = (
        own
        or raised.reason
        or "the opcode is not one that this processor has, or not in this mode and with these prefixes"
    )
    parts: tuple[Explanation, ...] = ()
    if raised.vector == PF:
        reason = f"{_page_access(raised.error)} {raised.address:#x}: {reason}"
        parts = (explain_address(machine, raised.address),)
    rows = [("error code", error_text(raised))] if has_error_code(raised.vector) else []
    if raised.functions:
        rows.append(("found by", " < ".join(name for name in raised.functions if name not in ("execute", "_check"))))
    if raised.check and raised.own_check is None:
        rows.append(("the check", raised.check))
    rows += _registers(s or machine.state, raised)
    data = {"vector": raised.vector, "error": raised.error, "reason": reason, "check": raised.check}
    if raised.vector == PF:
        data["address"] = raised.address
    return Explanation(step.title, reason, (Table("", ("what", "value"), tuple(rows)),), data, parts)


def _registers(s: State, raised: Raised) -> list[tuple[str, str]]:
    """What the check looked at, besides its own variables."""
    if raised.vector == PF:
        return [("CR3, CPL", f"{s[CR3]:#x}, {s[CPL]}")]
    if raised.error & faults.IDT and raised.vector in _WITH_SELECTOR:
        return [("IDTR", f"base {s[IDT_BASE]:#x}, limit {s[IDT_LIMIT]:#x}")]
    if raised.vector == faults.SS:
        return [("SS:RSP", f"{s[SEG_SEL + SS]:#x}:{s[GPR + RSP]:#x}")]
    return []


def _page_access(error: int) -> str:
    who = "a user's" if error & paging.E_U else "the supervisor's"
    what = "instruction fetch at" if error & paging.E_I else "write to" if error & paging.E_W else "read of"
    return f"{who} {what}"


def error_text(raised: Raised) -> str:
    """The bits of an error code in words."""
    error = raised.error
    if raised.vector == PF:
        words = [
            "page present" if error & paging.E_P else "page not present",
            "write" if error & paging.E_W else "read",
            "user" if error & paging.E_U else "supervisor",
            *(["reserved bit"] if error & paging.E_RSVD else []),
            *(["instruction fetch"] if error & paging.E_I else []),
            *(["protection key"] if error & paging.E_PK else []),
        ]
        return f"{error:#x}: {', '.join(words)}"
    if raised.vector not in _WITH_SELECTOR or not error:
        return f"{error:#x}"
    external = ", while delivering an event" if error & faults.EXT else ""
    if error & faults.IDT:
        return f"{error:#x}: entry {error >> 3:#x} of the IDT{external}"
    return (
        f"{error:#x}: selector {error & 0xFFFC:#x} of the {'LDT' if error & 4 else 'GDT'}{external}"
        if error & 0xFFFC
        else f"{error:#x}{external}"
    )
