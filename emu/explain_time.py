"""What is about to interrupt the processor: requests in the controllers, and timers that are armed.

Nothing here changes anything: registers of devices are looked at in their state records, not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pyemu.cpu.flags import IF
from pyemu.cpu.state import FLAGS, HALTED, ICOUNT, IRQ_PENDING, NMI_BLOCKED, NMI_PENDING, SHADOW
from pyemu.devices.apic import LVT_MASKED, SVR_ENABLE
from pyemu.devices.ioapic import ENTRY_LEVEL, ENTRY_MASKED, ENTRY_REMOTE_IRR
from pyemu.explanation import Explanation, Table

if TYPE_CHECKING:
    from pyemu.machine import Machine

_LVT_NAMES = ("timer", "thermal", "performance", "LINT0", "LINT1", "error")
_MODES = ("fixed", "lowest", "SMI", "reserved", "NMI", "INIT", "SIPI", "ExtINT")
_TIMER_MODES = ("one-shot", "periodic", "TSC deadline", "reserved")
_ISA = {
    0: "PIT", 1: "keyboard", 2: "cascade", 3: "COM2", 4: "COM1", 8: "RTC", 9: "SCI (ACPI)", 12: "mouse",
    13: "coprocessor error",
}  # fmt: skip


@dataclass(frozen=True)
class Waiting:
    """An interrupt on its way."""

    where: str
    what: str


def _bits(mask: int) -> list[int]:
    return [number for number in range(mask.bit_length()) if mask >> number & 1]


def pending_interrupts(machine: Machine) -> Iterator[Waiting]:
    """What waits, from the processor outwards."""
    s, board = machine.state, machine.board
    if s[NMI_PENDING]:
        blocked = "; blocked until IRET" if s[NMI_BLOCKED] else ""
        yield Waiting("processor", f"a non-maskable interrupt{blocked}")
    apic = board.apic
    for vector in reversed(_bits(apic.state.irr)):
        priority, threshold = vector >> 4, apic.processor_priority() >> 4
        held = f"; held back: its class {priority:#x} is not above the processor's priority {threshold:#x}"
        yield Waiting("local APIC", f"vector {vector:#04x} requested (IRR){'' if priority > threshold else held}")
    for vector in reversed(_bits(apic.state.isr)):
        yield Waiting("local APIC", f"vector {vector:#04x} in service (ISR): holds back its class and lower ones")
    for pin, entry in enumerate(board.ioapic.state.table):
        asserted = board.ioapic.state.lines >> pin & 1
        if asserted and entry & ENTRY_MASKED:
            yield Waiting("I/O APIC", f"input {pin}{_source(pin)} asserted, but masked")
        elif entry & ENTRY_REMOTE_IRR:
            yield Waiting("I/O APIC", f"input {pin}{_source(pin)}: vector {entry & 0xFF:#04x} waits for its EOI")
        elif asserted and entry & ENTRY_LEVEL:
            yield Waiting("I/O APIC", f"input {pin}{_source(pin)} asserted, level-triggered")
    for chip, first, name in ((board.pic.state.master, 0, "8259 master"), (board.pic.state.slave, 8, "8259 slave")):
        for irq in _bits(chip.irr):
            vector = chip.vector_base + irq
            masked = "masked" if chip.imr >> irq & 1 else f"would be vector {vector:#04x}"
            yield Waiting(name, f"IRQ {first + irq}{_source(first + irq)} requested (IRR), {masked}")
        for irq in _bits(chip.isr):
            yield Waiting(name, f"IRQ {first + irq}{_source(first + irq)} in service (ISR)")


def _source(irq: int) -> str:
    return f" ({_ISA[irq]})" if irq in _ISA else ""


def armed_timers(machine: Machine) -> list[tuple[int, str]]:
    """Nanoseconds from now, and whose timer it is; earliest first."""
    now = machine.clock.now_ns()
    owners = {id(device): name for name, device in _devices(machine)}
    return [(deadline - now, _owner(callback, owners)) for deadline, callback in machine.clock.armed()]


def _devices(machine: Machine) -> Iterator[tuple[str, Any]]:
    board = machine.board
    yield from (("PIT", board.pit), ("RTC", board.rtc), ("HPET", board.hpet), ("ACPI PM timer", board.pm))
    yield "local APIC timer", board.apic.timer
    for number, uart in enumerate(board.uarts):
        yield f"serial port {number}", uart


def _owner(callback: Any, owners: dict[int, str]) -> str:
    number = ""
    if isinstance(callback, partial):
        number = f" {callback.args[0]}" if callback.args else ""
        callback = callback.func
    owner = getattr(callback, "__self__", None)
    return (
        owners.get(id(owner), "the program that runs the machine" if owner is None else type(owner).__name__) + number
    )


def explain_time(machine: Machine) -> Explanation:
    """The machine's clock, what waits, and what is armed."""
    s = machine.state
    now, waiting, timers = machine.clock.now_ns(), list(pending_interrupts(machine)), armed_timers(machine)
    rows = [(w.where, w.what) for w in waiting] or [("", "nothing waits")]
    alarms = [(f"in {_duration(ahead)}" if ahead >= 0 else "overdue", owner) for ahead, owner in timers]
    lvt = [(name, _lvt(machine, n)) for n, name in enumerate(_LVT_NAMES)]
    return Explanation(
        "time",
        f"{_duration(now)} since power-on, {s[ICOUNT]} instructions; {_readiness(machine)}",
        (
            Table("interrupts that wait", ("where", "what"), tuple(rows)),
            Table("timers that are armed", ("when", "whose"), tuple(alarms) or (("", "none"),)),
            Table("local vector table", ("entry", "what it does"), tuple(lvt)),
        ),
        {
            "now_ns": now,
            "instructions": int(s[ICOUNT]),
            "halted": bool(s[HALTED]),
            "waiting": [{"where": w.where, "what": w.what} for w in waiting],
            "timers": [{"in_ns": ahead, "owner": owner} for ahead, owner in timers],
        },
    )


def _readiness(machine: Machine) -> str:
    """Would the processor take an interrupt now?"""
    s = machine.state
    halted = "halted" if s[HALTED] else "not halted"
    if not s[FLAGS] & IF:
        takes = "maskable interrupts are off (RFLAGS.IF = 0)"
    elif s[SHADOW] > s[ICOUNT]:
        takes = "interrupts wait for one instruction (shadow of STI, MOV SS or POP SS)"
    else:
        takes = "interrupts are taken" + (": one waits" if s[IRQ_PENDING] else "")
    return f"the processor is {halted}, {takes}"


def _duration(ns: int) -> str:
    for unit, size in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if abs(ns) >= size:
            return f"{ns / size:.3f} {unit}"
    return f"{ns} ns"


def _lvt(machine: Machine, number: int) -> str:
    entry = machine.board.apic.state.lvt[number]
    if entry & LVT_MASKED:
        return "masked"
    mode = _MODES[entry >> 8 & 7] if number else _TIMER_MODES[entry >> 17 & 3]
    vector = f", vector {entry & 0xFF:#04x}" if number == 0 or entry >> 8 & 7 == 0 else ""
    return f"{mode}{vector}"


def lapic_text(machine: Machine) -> str:
    """`info lapic`."""
    apic = machine.board.apic
    s = apic.state
    mode = "x2APIC" if apic.is_x2apic else "xAPIC" if apic.is_enabled else "disabled"
    lines = [
        f"dumping local APIC state for CPU 0 ({mode})",
        f"ID      {s.id:#x}   LDR {s.ldr:#010x}   DFR {s.dfr:#010x}",
        f"base    {s.base:#x}",
        f"SPIV    {s.svr:#05x} (APIC {'enabled' if s.svr & SVR_ENABLE else 'disabled by software'})",
        f"TPR     {s.tpr:#04x}   PPR {apic.processor_priority():#04x}   ESR {s.esr:#04x}",
        *(f"LVT {name:<12} {s.lvt[n]:#010x}  {_lvt(machine, n)}" for n, name in enumerate(_LVT_NAMES)),
        f"timer   initial {s.timer.initial:#x} divide {s.timer.divide:#x} TSC deadline {s.timer.deadline:#x}",
        f"ICR     {s.icr:#018x}",
        f"IRR     {' '.join(map(str, _bits(s.irr))) or '(none)'}",
        f"ISR     {' '.join(map(str, _bits(s.isr))) or '(none)'}",
    ]
    return "\n".join(lines)
