"""What a selector, a gate of the IDT, or the task-state segment says, field by field (SDM 3, 3.4.5, 6.11 and 7.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyemu.cpu import descriptors as ds
from pyemu.cpu import interrupts
from pyemu.cpu import mode as md
from pyemu.cpu.faults import NAMES, has_error_code
from pyemu.cpu.state import (
    CPL,
    EFER,
    GDT_BASE,
    GDT_LIMIT,
    GPR,
    IDT_BASE,
    IDT_LIMIT,
    LDT_ATTR,
    LDT_BASE,
    LDT_LIMIT,
    LDT_SEL,
    MODE,
    RIP,
    RSP,
    SEG_SEL,
    TR_ATTR,
    TR_BASE,
    TR_LIMIT,
    TR_SEL,
    State,
)  # fmt: skip
from pyemu.dry_run import DryRun
from pyemu.explanation import Explanation, Table
from pyemu.memory import OutOfRange

if TYPE_CHECKING:
    from pyemu.machine import Machine

_SEGMENTS = ("ES", "CS", "SS", "DS", "FS", "GS")
_SYSTEM = {
    1: "available 16-bit TSS", 2: "LDT", 3: "busy 16-bit TSS", 4: "16-bit call gate", 5: "task gate",
    6: "16-bit interrupt gate", 7: "16-bit trap gate", 9: "available 32-bit TSS", 11: "busy 32-bit TSS",
    12: "32-bit call gate", 14: "32-bit interrupt gate", 15: "32-bit trap gate",
}  # fmt: skip
_SYSTEM_LONG = {
    2: "LDT", 9: "available 64-bit TSS", 11: "busy 64-bit TSS", 12: "64-bit call gate", 14: "64-bit interrupt gate",
    15: "64-bit trap gate",
}  # fmt: skip
_GATES = (4, 5, 6, 7, 12, 14, 15)
_TSS_TYPES = (1, 3, 9, 11)
_M64 = 0xFFFF_FFFF_FFFF_FFFF
_BITMAP_AT = 0x66  # of the I/O permission bitmap's offset (SDM 3, 7.2.1 and 7.7)


def _read(machine: Machine, linear: int, size: int) -> int | None:
    try:
        return int.from_bytes(machine.read_virtual(linear, size), "little")
    except OutOfRange:
        return None


def _is_long(s: State) -> bool:
    return bool(s[EFER] & md.EFER_LMA)


def type_text(attr: int, long: bool) -> str:
    """The type of a descriptor in words."""
    kind = attr & ds.TYPE
    if not attr & ds.S:
        return (_SYSTEM_LONG if long else _SYSTEM).get(kind, f"reserved type {kind:#x}")
    if kind & ds.CODE:
        bits = "64-bit" if attr & ds.L and long else "32-bit" if attr & ds.DB else "16-bit"
        more = ["conforming"] if kind & ds.CONFORMING else []
        more += ["readable" if kind & ds.READABLE else "execute-only", *(["accessed"] if kind & ds.ACCESSED else [])]
        return f"{bits} code, {', '.join(more)}"
    more = ["expand-down"] if kind & ds.EXPAND_DOWN else []
    more += ["writable" if kind & ds.WRITABLE else "read-only", *(["accessed"] if kind & ds.ACCESSED else [])]
    return f"{'32-bit' if attr & ds.DB else '16-bit'} data, {', '.join(more)}"


# ---- selectors ------------------------------------------------------------------------------------------------------
def explain_selector(machine: Machine, selector: int) -> Explanation:
    """Where its descriptor is, and what that says."""
    s = machine.state
    selector &= 0xFFFF
    subject = f"selector {selector:#x}"
    if s[MODE] & (md.PROTECTED | md.V86) != md.PROTECTED:
        base = selector << 4
        return Explanation(
            subject, f"real or virtual-8086 mode: base {base:#x}, there is no descriptor", (), {"base": base}
        )
    table = "LDT" if selector & ds.TI else "GDT"
    base, limit = (s[LDT_BASE], s[LDT_LIMIT]) if selector & ds.TI else (s[GDT_BASE], s[GDT_LIMIT])
    rows = [
        ("index", f"{selector >> 3:#x}"),
        ("table", f"{table}, base {base:#x}, limit {limit:#x}"),
        ("RPL", str(selector & ds.RPL)),
    ]
    data = {"selector": selector, "table": table, "index": selector >> 3, "rpl": selector & ds.RPL}
    if selector & 0xFFFC == 0:
        return Explanation(subject, "null: it names no segment", (Table("", ("field", "value"), tuple(rows)),), data)
    problem = ""
    if selector & ds.TI and (s[LDT_SEL] & 0xFFFC == 0 or s[LDT_ATTR] & ds.UNUSABLE):
        problem = "there is no LDT (LDTR is null)"
    elif not ds.in_table(s, selector, 8):
        problem = f"beyond the limit of the {table}, which is {limit:#x}"
    where = ds.descriptor_address(s, selector)
    descriptor = None if problem else _read(machine, where, 8)
    if descriptor is None:
        problem = problem or f"its descriptor at {where:#x} is not in mapped memory"
        return Explanation(subject, problem, (Table("", ("field", "value"), tuple(rows)),), data)
    rows.append(("descriptor", f"{descriptor:#018x} at {where:#x}"))
    more, facts = _descriptor(machine, descriptor, where)
    rows += more
    users = [name for n, name in enumerate(_SEGMENTS) if s[SEG_SEL + n] == selector]
    if users:
        rows.append(("loaded in", ", ".join(users)))
    summary = f"{facts['type']}{'' if facts['present'] else ', not present'}, DPL {facts['dpl']}"
    return Explanation(subject, summary, (Table("", ("field", "value"), tuple(rows)),), data | facts)


def _descriptor(machine: Machine, d: int, where: int) -> tuple[list[tuple[str, str]], dict[str, object]]:
    """Rows and facts about a descriptor at a linear address."""
    s = machine.state
    attr, long = ds.attr_of(d), _is_long(s)
    kind = type_text(attr, long)
    rows = [("type", kind), ("DPL", str(ds.dpl_of(attr))), ("present", "yes" if attr & ds.P else "no (#NP or #SS)")]
    facts: dict[str, object] = {"type": kind, "dpl": ds.dpl_of(attr), "present": bool(attr & ds.P), "descriptor": d}
    if not attr & ds.S and attr & ds.TYPE in _GATES:
        more, gate = _gate(machine, d, where)
        return rows + more, facts | gate
    base, limit = ds.base_of(d), ds.limit_of(d)
    if not attr & ds.S and long:
        base |= (_read(machine, where + 8, 8) or 0) << 32 & _M64
    rows += [
        ("base", f"{base:#x}"),
        ("limit", f"{limit:#x}{' (in pages: G)' if attr & ds.G else ''}"),
        (
            "bits",
            " ".join(name for bit, name in ((ds.AVL, "AVL"), (ds.L, "L"), (ds.DB, "D/B"), (ds.G, "G")) if attr & bit)
            or "-",
        ),
    ]
    if long and attr & ds.S:
        rows.append(("in 64-bit mode", "base and limit do not count, but for the base of FS and GS"))
    return rows, facts | {"base": base, "limit": limit}


# ---- gates ----------------------------------------------------------------------------------------------------------
def _gate(machine: Machine, d: int, where: int) -> tuple[list[tuple[str, str]], dict[str, object]]:
    s = machine.state
    attr, selector, offset = ds.attr_of(d), ds.gate_selector(d), ds.gate_offset(d)
    kind = attr & ds.TYPE
    if kind == ds.TASK_GATE:
        return [("TSS selector", f"{selector:#x}")], {"selector": selector}
    if _is_long(s):
        offset |= (_read(machine, where + 8, 4) or 0) << 32
    elif not kind & 8:
        offset &= 0xFFFF
    rows = [("target", f"{selector:#x}:{offset:#x} {machine.symbols.describe(offset)}".rstrip())]
    facts: dict[str, object] = {"selector": selector, "offset": offset}
    if kind in (ds.CALL_GATE16, ds.CALL_GATE32) and not _is_long(s):
        rows.append(("parameters", str(d >> 32 & 31)))
    if kind in (6, 14):
        rows.append(("RFLAGS.IF", "cleared: an interrupt gate"))
    elif kind in (7, 15):
        rows.append(("RFLAGS.IF", "stays: a trap gate"))
    if _is_long(s) and kind in (14, 15):
        ist = d >> 32 & 7
        rows.append(("stack", f"IST{ist} of the TSS" if ist else "RSP of the inner level, or the present one"))
        facts["ist"] = ist
    return rows, facts


def explain_gate(machine: Machine, vector: int) -> Explanation:
    """An entry of the IDT, and what would happen now if its event came."""
    s = machine.state
    vector &= 0xFF
    name = NAMES.get(vector, "")
    subject = f"gate {vector:#x}{f' ({name})' if name else ''}"
    if s[MODE] & md.PROTECTED == 0:
        entry = _read(machine, s[IDT_BASE] + 4 * vector, 4)
        rows = [("interrupt vector table", f"base {s[IDT_BASE]:#x}, limit {s[IDT_LIMIT]:#x}")]
        if entry is None:
            return Explanation(subject, "its entry is not in memory", (Table("", ("field", "value"), tuple(rows)),))
        rows += [("handler", f"{entry >> 16:#x}:{entry & 0xFFFF:#x}"), *_delivered(machine, vector)]
        data = {"vector": vector, "selector": entry >> 16, "offset": entry & 0xFFFF}
        summary = f"real mode: handler at {entry >> 16:04x}:{entry & 0xFFFF:04x}"
        return Explanation(subject, summary, (Table("", ("field", "value"), tuple(rows)),), data)
    size = 16 if _is_long(s) else 8
    where = ds.wrap(s, s[IDT_BASE] + size * vector)
    rows = [("IDT", f"base {s[IDT_BASE]:#x}, limit {s[IDT_LIMIT]:#x}")]
    data = {"vector": vector, "address": where}
    inside = size * vector + size - 1 <= s[IDT_LIMIT]
    d = _read(machine, where, 8) if inside else None
    if d is None:
        summary = f"at {where:#x}, {'not in mapped memory' if inside else 'beyond the limit of the IDT'}"
        rows += _delivered(machine, vector)
        return Explanation(subject, summary, (Table("", ("field", "value"), tuple(rows)),), data)
    rows.append(("descriptor", f"{d:#018x} at {where:#x}"))
    more, facts = _descriptor(machine, d, where)
    rows += [*more, *_delivered(machine, vector)]
    target = f", to {facts['selector']:#x}:{facts['offset']:#x}" if "offset" in facts else ""
    summary = f"{facts['type']}{'' if facts['present'] else ', not present'}, DPL {facts['dpl']}{target}"
    return Explanation(subject, summary, (Table("", ("field", "value"), tuple(rows)),), data | facts)


def _delivered(machine: Machine, vector: int) -> list[tuple[str, str]]:
    """What would come of the event now."""
    is_exception = vector < 32 and vector != 2
    kind = interrupts.EXCEPTION if is_exception else interrupts.HARDWARE
    outcome = DryRun(machine).deliver(vector, 0, kind)
    if outcome.device:
        return [("if it came now", f"a device would have to be asked ({outcome.device})")]
    raised = outcome.fault
    if raised is not None:
        error = f"({raised.error:#x})" if has_error_code(raised.vector) else ""
        return [("if it came now", f"{NAMES.get(raised.vector, raised.vector)}{error}: {raised.reason}")]
    after = outcome.state
    stack = f"RSP {after[GPR + RSP]:#x}, CPL {after[CPL]}"
    name = machine.symbols.describe(after[RIP])
    return [("if it came now", f"handler at {after[RIP]:#x} {name}".rstrip() + f"; {stack}")]


# ---- task state -----------------------------------------------------------------------------------------------------
def explain_tss(machine: Machine) -> Explanation:
    """What TR names."""
    s = machine.state
    subject = f"TSS (TR = {s[TR_SEL]:#x})"
    rows = [("base, limit", f"{s[TR_BASE]:#x}, {s[TR_LIMIT]:#x}")]
    data: dict[str, object] = {"selector": s[TR_SEL], "base": s[TR_BASE], "limit": s[TR_LIMIT]}
    if s[TR_SEL] & 0xFFFC == 0 or s[TR_ATTR] & ds.UNUSABLE:
        return Explanation(subject, "TR is null: no TSS has been loaded", (), data)
    kind = type_text(s[TR_ATTR] & ~ds.S, _is_long(s))
    fields = _fields(s)
    values = {}
    for name, offset, size in fields:
        value = _read(machine, ds.wrap(s, s[TR_BASE] + offset), size) if offset + size - 1 <= s[TR_LIMIT] else None
        values[name] = value
        text = (
            "beyond the limit" if offset + size - 1 > s[TR_LIMIT] else "not mapped" if value is None else f"{value:#x}"
        )
        rows.append((name, text))
    rows.append(("I/O permission bitmap", _bitmap(s, values.get("I/O bitmap offset"))))
    return Explanation(
        subject,
        f"{kind} at {s[TR_BASE]:#x}",
        (Table("", ("field", "value"), tuple(rows)),),
        data | {"type": kind, "fields": values},
    )


def _fields(s: State) -> list[tuple[str, int, int]]:
    """Name, offset, bytes (SDM 3, figures 7-2, 7-10 and 7-11)."""
    if _is_long(s):
        stacks = [(f"RSP{n}", 4 + 8 * n, 8) for n in range(3)]
        return [*stacks, *((f"IST{n}", 0x1C + 8 * n, 8) for n in range(1, 8)), ("I/O bitmap offset", _BITMAP_AT, 2)]
    if s[TR_ATTR] & 8:
        stacks = [field for n in range(3) for field in ((f"ESP{n}", 4 + 8 * n, 4), (f"SS{n}", 8 + 8 * n, 2))]
        registers = ("EIP", "EFLAGS", "EAX", "ECX", "EDX", "EBX", "ESP", "EBP", "ESI", "EDI", *_SEGMENTS, "LDT")
        task = [(name, 0x20 + 4 * n, 4 if n < 10 else 2) for n, name in enumerate(registers)]
        return [("previous task", 0, 2), *stacks, ("CR3", 0x1C, 4), *task, ("I/O bitmap offset", _BITMAP_AT, 2)]
    stacks = [field for n in range(3) for field in ((f"SP{n}", 2 + 4 * n, 2), (f"SS{n}", 4 + 4 * n, 2))]
    names = ("IP", "FLAGS", "AX", "CX", "DX", "BX", "SP", "BP", "SI", "DI", "ES", "CS", "SS", "DS", "LDT")
    return [("previous task", 0, 2), *stacks, *((name, 0xE + 2 * n, 2) for n, name in enumerate(names))]


def _bitmap(s: State, offset: int | None) -> str:
    if offset is None:
        return "none: above IOPL every port is refused"
    last = s[TR_LIMIT]
    return (
        f"offsets {offset:#x}-{last:#x}" if offset < last else "lies beyond the limit: above IOPL every port is refused"
    )
