"""Monitor commands that make the guest stop: breakpoints, watchpoints, and Bochs's stops for events.

All are hooks (`pyemu.hooks`), numbered here for the user. Each may have a condition, which the processor evaluates
(`pyemu.conditions`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyemu.conditions import ConditionError
from pyemu.cpu.faults import NAMES
from pyemu.hook_events import Access, Event
from pyemu.hooks import ACCESSES, Hook, HookError
from pyemu.monitor_table import CommandError, Session, command, info
from pyemu.until import Stop, StopKind

if TYPE_CHECKING:
    from pyemu.machine import Machine

_EVERYWHERE = 1 << 64
# XCHG BX, BX: 87 DB in 16-bit code, 66 87 DB elsewhere
_MAGIC = "mem16[cs_base + rip] == 0xdb87 or (mem32[cs_base + rip] & 0xffffff) == 0xdb8766"
_VECTORS = {name.removeprefix("#").lower(): vector for vector, name in NAMES.items()}
EVENTS = ("exception", "interrupt", "int", "syscall", "hypercall", "cr3", "mode", "msr", "port", "mmio", "magic")


@dataclass
class Stopper:
    """One line of `info breakpoints`."""

    number: int
    what: str
    hook: Hook


def stoppers(machine: Machine) -> dict[int, Stopper]:
    """Those that are still set; temporary ones go by themselves."""
    known = {number: one for number, one in machine.stoppers.items() if one.hook.active}
    machine.stoppers = known
    return known


def _add(session: Session, what: str, hook: Hook) -> str:
    machine = session.machine
    number = machine.next_stopper
    machine.next_stopper += 1
    machine.stoppers[number] = Stopper(number, what, hook)
    return f"{number}: {what}"


def _set(session: Session, what: str, make: Callable[[Machine], Hook]) -> str:
    """Make a hook, and number it."""
    try:
        hook = make(session.machine)
    except (HookError, ConditionError) as error:
        raise CommandError(str(error)) from error
    return _add(session, what, hook)


def _split(arguments: str, usage: str) -> tuple[str, str | None]:
    """What comes before `if`, and the condition."""
    words = arguments.split()
    if not words:
        raise CommandError(usage)
    if "if" not in words:
        return arguments, None
    before, _, condition = f" {arguments} ".partition(" if ")
    if not condition.strip():
        raise CommandError(usage)
    return before.strip(), condition.strip()


# ---- code and memory ----------------------------------------------------------------------------------------------
@command("break", "ADDRESS [if CONDITION]", "stop before the instruction there", aliases=("b",), completes="symbol")
def break_(session: Session, arguments: str) -> str:
    return _breakpoint(session, arguments, "break", False)


@command("tbreak", "ADDRESS [if CONDITION]", "likewise, once", completes="symbol")
def tbreak(session: Session, arguments: str) -> str:
    return _breakpoint(session, arguments, "tbreak", True)


def _breakpoint(session: Session, arguments: str, name: str, temporary: bool) -> str:
    place, condition = _split(arguments, f"{name} ADDRESS [if CONDITION]")
    address = session.evaluate(place)
    symbol = session.machine.symbols.describe(address)
    what = f"{name} {address:#x}{' ' + symbol if symbol else ''}{f' if {condition}' if condition else ''}"
    return _set(session, what, lambda machine: machine.breakpoint(address, condition, temporary=temporary))


@command("watch", "ADDRESS [LENGTH] [r|w|rw] [if CONDITION]", "stop after an access to memory", completes="symbol")
def watch(session: Session, arguments: str) -> str:
    usage = "watch ADDRESS [LENGTH] [r|w|rw] [if CONDITION]"
    place, condition = _split(arguments, usage)
    words = place.split()
    access = words.pop() if words[-1] in ACCESSES else "w"
    length = session.evaluate(words.pop()) if len(words) > 1 and words[-1][0].isdigit() else 4
    if not words:
        raise CommandError(usage)
    address = session.evaluate(" ".join(words))
    symbol = session.machine.symbols.describe(address)
    what = (
        f"watch {address:#x}{' ' + symbol if symbol else ''} {length} {access}{f' if {condition}' if condition else ''}"
    )
    return _set(session, what, lambda machine: machine.watchpoint(address, length, access, condition))


@command("delete", "[NUMBER...]", "remove breakpoints and the like, or all", aliases=("d",), completes="hook")
def delete(session: Session, arguments: str) -> str:
    known = stoppers(session.machine)
    try:
        numbers = [int(word) for word in arguments.split()] or list(known)
    except ValueError:
        raise CommandError("delete [NUMBER...]") from None
    missing = [number for number in numbers if number not in known]
    if missing:
        raise CommandError(f"there is no {missing[0]} (info breakpoints lists them)")
    for number in numbers:
        known.pop(number).hook.remove()
    return ""


@info("breakpoints", "what stops the guest: break, watch, catch")
def breakpoints(session: Session, arguments: str) -> str:
    known = stoppers(session.machine)
    return "\n".join(f"{one.number}: {one.what} (hits: {one.hook.hits})" for one in known.values()) or "none"


# ---- events -------------------------------------------------------------------------------------------------------
@command("catch", "EVENT [NUMBERS] [if CONDITION]", f"stop for {', '.join(EVENTS)}", completes="catch")
def catch(session: Session, arguments: str) -> str:
    """`catch exception pf gp`, `catch interrupt 0x20`, `catch port 0x60-0x64 w`, `catch msr 0xc0000080`."""
    usage = (
        "catch exception|interrupt|int|syscall|hypercall [NUMBER...], catch cr3|mode|magic, catch msr [INDEX...],\n"
        "catch port|mmio FIRST[-LAST] [r|w|rw]; and for each: if CONDITION"
    )
    before, condition = _split(arguments, usage)
    kind, *words = before.split()
    if kind not in EVENTS:
        raise CommandError(usage)
    what = f"catch {before}{f' if {condition}' if condition else ''}"
    if kind == "magic":
        whole = f"({_MAGIC}) and ({condition})" if condition else _MAGIC
        return _set(session, what, lambda machine: machine.hook_code(_stop, 0, _EVERYWHERE, whole))
    if kind in ("port", "mmio"):
        first, last, access = _range(session, words, usage)
        hook_io = "hook_port" if kind == "port" else "hook_mmio"
        end = last if kind == "port" else last + 1
        return _set(session, what, lambda machine: getattr(machine, hook_io)(_stop, first, end, access, condition))
    numbers = [_number(session, kind, word) for word in words]
    if kind in ("cr3", "mode") and numbers:
        raise CommandError(usage)
    name = "software_interrupt" if kind == "int" else kind
    return _set(session, what, lambda machine: getattr(machine, f"hook_{name}")(_stop, *numbers, condition=condition))


def _stop(event: object) -> bool:
    return True


def _range(session: Session, words: list[str], usage: str) -> tuple[int, int, str]:
    access = words.pop() if words and words[-1] in ACCESSES else "rw"
    if len(words) != 1:
        raise CommandError(usage)
    first, _, last = words[0].partition("-")
    return session.evaluate(first), session.evaluate(last or first), access


def _number(session: Session, kind: str, word: str) -> int:
    """A vector by number or name (`pf`), or an index."""
    name = word.lower().removeprefix("#")
    return _VECTORS[name] if kind == "exception" and name in _VECTORS else session.evaluate(word)


# ---- what stopped it ----------------------------------------------------------------------------------------------
def describe_stop(machine: Machine, stop: Stop) -> str:
    """A line about a stop that a hook caused; empty for others."""
    if stop.kind not in (StopKind.BREAKPOINT, StopKind.WATCHPOINT, StopKind.HOOK) or stop.hook is None:
        return ""
    number = next((f" {one.number}" for one in machine.stoppers.values() if one.hook is stop.hook), "")
    rip = machine.regs.rip
    linear = machine.regs["cs_base"] + rip & (1 << 64) - 1
    here = f"at {linear:#x} {machine.symbols.describe(linear)}".rstrip()
    event = stop.event
    if isinstance(event, Access):
        verb = "wrote" if event.write else "read"
        old = f" (was {event.old:#x})" if event.old is not None else ""
        what = f"{event.rip:#x} {verb} {event.value:#x}{old}, {event.size} bytes at {event.address:#x}"
        return f"watchpoint{number}: {what}; now {here}"
    if isinstance(event, Event):
        return f"{event_text(event)}{f' (catch{number})' if number else ''}; now {here}"
    return f"breakpoint{number} {here}"


def event_text(event: Event) -> str:
    """What happened."""
    match event.kind:
        case "exception":
            address = f" on {event.address:#x}" if event.number == 14 else ""
            name = NAMES.get(event.number, f"exception {event.number:#x}")
            return f"{name}({event.error:#x}){address} from {event.rip:#x}"
        case "cr3":
            return f"CR3 changes from {event.old:#x} to {event.value:#x}"
        case "mode":
            return f"the mode changes from {mode_name(event.old)} to {mode_name(event.value)}"
        case "msr":
            verb = "written" if event.old else "read"
            return f"MSR {event.number:#x} {verb}: {event.value:#x}"
        case "syscall":
            return f"system call {event.number:#x}, to return to {event.rip:#x}"
        case "hypercall":
            return f"hypercall {event.number:#x}, to return to {event.rip:#x}"
        case _:
            return f"{event.kind} {event.number:#x} from {event.rip:#x}"


def mode_name(mode: int) -> str:
    """A mode word by what the manuals call it."""
    from pyemu.cpu import mode as md

    if not mode & md.PROTECTED:
        return "real mode"
    if mode & md.V86:
        return "virtual-8086 mode"
    if mode & md.CODE64:
        return "64-bit mode"
    width = 32 if mode & md.CODE32 else 16
    return f"{'compatibility' if mode & md.LONG_MODE else 'protected'} mode, {width}-bit code"
