"""What an instruction does: its meaning in words, its row of the opcode table, and what it would change now.

The words come from the instruction's one definition (`pyemu.cpu.sentences`), the values from running the same
definition on a copy of the processor (`dry_run`).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from pyemu.cpu.decode import record as rc
from pyemu.cpu.flags import eflags
from pyemu.cpu.ops import Form
from pyemu.cpu.sentences import FLAG_NAMES, Meaning, meaning, state_name
from pyemu.cpu.state import CS, FLAGS, GPR, LAYOUT, RIP, SEG_BASE, VEC, State
from pyemu.dry_run import ITERATIONS, DryRun, Outcome
from pyemu.explanation import Explanation, Table
from pyemu.memory import OutOfRange

if TYPE_CHECKING:
    from pyemu.machine import Machine

_GPR = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
_RUNS_SHOWN, _BYTES_SHOWN = 16, 16
_M64 = 0xFFFF_FFFF_FFFF_FFFF
# Fields of the state that are no registers of the processor.
_FIRST, _LAST = LAYOUT["seg_sel"].index, LAYOUT["opmask"].index + LAYOUT["opmask"].count
_WORDS_OF_FLAGS = {"r": "reads some", "w": "writes all six", "m": "writes some", "c": "none if the count is 0"}
_PREFIXES = ((rc.LOCKED, "LOCK"), (rc.REPEAT, "REP/REPE"), (rc.REPEAT_NE, "REPNE"))
_INTERNAL = ("linear_top", "cpu_features", "cpuid_model", "cr4_allowed", "xcr0_allowed")


def explain_instruction(machine: Machine, rip: int | None = None) -> Explanation:
    """The instruction at RIP, or at another offset in CS; as if it was executed now."""
    from pyemu.registers import bits
    from pyemu.trace import disassemble, fetch

    s = machine.state
    rip = s[RIP] if rip is None else rip
    linear = rip if bits(s) == 64 else s[SEG_BASE + CS] + rip & 0xFFFF_FFFF
    code = fetch(s, machine.ram, linear)
    text = disassemble(code, linear, bits(s), 1, machine.symbols)[0].partition(":  ")[2][30:].strip() if code else ""
    outcome = DryRun(machine).execute(rip)
    subject = f"instruction at {linear:#x} {machine.symbols.describe(linear)}".rstrip()
    if outcome.form is None:
        return _not_decoded(machine, subject, text, outcome)
    means = meaning(outcome.form, outcome.words, lambda at: f"{at:#x} {machine.symbols.describe(at)}".rstrip())
    changed, written = _changes(s, outcome.state), _memory(machine, outcome)
    fault = _fault(machine, outcome, means)
    now = f"now it would raise {fault.subject}" if fault is not None else ""
    if _goes_on(outcome, rip):
        now = f"what it changes is shown after {ITERATIONS} iterations; there are more"
    if outcome.device:
        now = f"it goes to a device ({outcome.device}), which is not asked: what it would change is not shown"
    rows = (
        ("bytes", code[: outcome.words[rc.PACKED] >> rc.LENGTH & 0xFF].hex(" ")),
        *_row(outcome.form, outcome.words),
    )
    data = {
        "address": linear,
        "text": text,
        "meaning": means.statements,
        "row": dict(rows),
        "changes": {name: {"before": before, "after": after} for name, before, after in changed},
        "fault": None if fault is None else fault.as_dict(),
    }
    tables = [Table("what can go wrong", ("fault",), tuple((text,) for text in means.faults))]
    if fault is None and not outcome.device:
        hexadecimal = tuple((name, f"{before:#x}", "->", f"{after:#x}") for name, before, after in changed)
        tables.append(Table("registers, before and after", ("register", "before", "", "after"), hexadecimal))
        tables.append(Table("memory", ("where", "before", "", "after"), written))
    tables.append(Table("row of the opcode table", ("field", "value"), rows))
    doc = " ".join((outcome.form.row.function.__doc__ or "").split())
    summary = f"{text}  means  {means.text}" + (f". {doc.rstrip('.')}" if doc else "") + (f". {now}" if now else "")
    return Explanation(subject, summary, tuple(tables), data, (fault,) if fault is not None else ())


def _goes_on(outcome: Outcome, rip: int) -> bool:
    """A repeated string instruction that isn't done."""
    form = outcome.form
    return form is not None and form.row.rep and not outcome.raised and outcome.state[RIP] == rip


def _not_decoded(machine: Machine, subject: str, text: str, outcome: Outcome) -> Explanation:
    from pyemu.explain_fault import explain_raised

    if outcome.device:
        return Explanation(subject, f"it lies in a device ({outcome.device})")
    raised = outcome.fault
    assert raised is not None
    part = explain_raised(machine, raised)
    return Explanation(subject, f"it can't be fetched or decoded: {part.subject}", (), {"text": text}, (part,))


def _fault(machine: Machine, outcome: Outcome, means: Meaning) -> Explanation | None:
    from pyemu.explain_fault import explain_raised

    raised = outcome.fault
    if raised is None:
        return None
    own = means.checks[raised.own_check] if raised.own_check is not None else None
    return explain_raised(machine, raised, f"the instruction's own check: {own.condition or 'always'}" if own else "")


def _row(form: Form, words: list[int]) -> list[tuple[str, str]]:
    row = form.row
    prefixes = [name for bit, name in _PREFIXES if words[rc.PACKED] >> rc.RFLAGS_SHIFT & bit]
    modes = {"any": "all modes", "64": "64-bit mode only", "legacy": "not in 64-bit mode"}
    undefined = {"O": "OF", "S": "SF", "Z": "ZF", "A": "AF", "P": "PF", "C": "CF"}
    fields = [
        ("opcode", row.encoding),
        ("operands", row.operands or "none"),
        ("operand size", f"{form.size} bytes" if form.size else "does not matter"),
        ("modes", modes[row.modes]),
        ("arithmetic flags", ", ".join(_WORDS_OF_FLAGS[letter] for letter in row.flags) or "leaves them alone"),
    ]
    if row.lock:
        fields.append(("LOCK", "allowed with a memory destination"))
    if row.undefined:
        fields.append(("undefined flags", " ".join(undefined[letter] for letter in row.undefined)))
    if form.feature:
        fields.append(("CPUID feature", form.feature))
    if prefixes:
        fields.append(("prefixes", " ".join(prefixes)))
    if row.ends_block:
        fields.append(("after it", "control, mode, mappings or interrupts may be others"))
    return fields


# ---- values -------------------------------------------------------------------------------------------------------
def _changes(before: State, after: State) -> list[tuple[str, int, int]]:
    """Registers that differ."""
    changed = [
        (name, before[GPR + n], after[GPR + n]) for n, name in enumerate(_GPR) if before[GPR + n] != after[GPR + n]
    ]
    if before[RIP] != after[RIP]:
        changed.append(("rip", before[RIP], after[RIP]))
    old, new = eflags(before), eflags(after)
    if old != new:
        changed.append(("rflags", old, new))
        changed += [
            (name, int(bool(old & bit)), int(bool(new & bit))) for bit, name in FLAG_NAMES.items() if (old ^ new) & bit
        ]
    word = _FIRST
    while word < _LAST:
        size = 8 if VEC <= word < VEC + 256 else 1
        values = [_number(s, word, size) for s in (before, after)]
        name = f"zmm{(word - VEC) // 8}" if size == 8 else state_name(word)
        if values[0] != values[1] and word != FLAGS and name not in _INTERNAL:
            changed.append((name, values[0], values[1]))
        word += size
    return changed


def _number(s: State, word: int, size: int) -> int:
    return sum(s[word + n] << (64 * n) for n in range(size))


def _memory(machine: Machine, outcome: Outcome) -> tuple[tuple[str, ...], ...]:
    rows: list[tuple[str, ...]] = []
    for access in outcome.accesses:
        where = f"mem{access.width}[{access.linear:#x}] {machine.symbols.describe(access.linear)}".rstrip()
        if access.before is None:
            with suppress(OutOfRange):
                access.before = int.from_bytes(machine.read_virtual(access.linear, access.width // 8), "little")
        before = f"{access.before:#x}" if access.before is not None else "?"
        if access.after is None:
            rows.append((where, before, "", "read"))
        else:
            rows = [row for row in rows if row[0] != where]
            rows.append((where, before, "->", f"{access.after:#x}"))
    if not any(access.after is not None for access in outcome.accesses):
        rows += _written(outcome.written)  # by mechanism: a string instruction, a far transfer
    return tuple(rows)


def _written(written: dict[int, int]) -> list[tuple[str, ...]]:
    """Runs of bytes, by physical address."""
    runs: list[tuple[int, bytearray]] = []
    for address in sorted(written):
        if runs and runs[-1][0] + len(runs[-1][1]) == address:
            runs[-1][1].append(written[address])
        else:
            runs.append((address, bytearray((written[address],))))
    rows: list[tuple[str, ...]] = []
    for address, data in runs[:_RUNS_SHOWN]:
        more = f" ... ({len(data)} bytes)" if len(data) > _BYTES_SHOWN else ""
        rows.append((f"physical {address:#x}", "", "->", data[:_BYTES_SHOWN].hex(" ") + more))
    return rows
