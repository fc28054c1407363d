"""Monitor commands that keep the machine's state, bring it back, and go back in time.

`savevm NAME` keeps a snapshot in memory, and `savevm FILE` with a slash in it writes a file; `loadvm` and `delvm` take
the same.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pyemu.monitor_break import describe_stop
from pyemu.monitor_table import CommandError, Session, command, info
from pyemu.reverse import Interrupted
from pyemu.until import StopKind

if TYPE_CHECKING:
    from pyemu.machine import Machine
    from pyemu.snapshot import Snapshot
    from pyemu.until import Stop


def _find(machine: Machine, name: str) -> Snapshot:
    for snapshot in machine.snapshots:
        if snapshot.name == name:
            return snapshot
    raise CommandError(f"there is no snapshot '{name}' (info snapshots lists them)")


def _one(arguments: str, usage: str) -> str:
    if not arguments:
        raise CommandError(usage)
    return arguments


@command("savevm", "NAME|PATH", "keep the machine's state, in memory, or in a file if there is a / in it")
def savevm(session: Session, arguments: str) -> str:
    name = _one(arguments, "savevm NAME|PATH")
    machine = session.machine
    if os.sep in name:
        machine.save(name)
        return ""
    for old in [snapshot for snapshot in machine.snapshots if snapshot.name == name]:
        machine.drop(old)
    machine.snapshot(name)
    return ""


@command("loadvm", "NAME|PATH", "bring a state back", completes="snapshot")
def loadvm(session: Session, arguments: str) -> str:
    name = _one(arguments, "loadvm NAME|PATH")
    machine = session.machine
    if os.sep in name:
        machine.load(name)
    else:
        machine.restore(_find(machine, name))
    return ""


@command("delvm", "NAME", "forget a snapshot in memory", completes="snapshot")
def delvm(session: Session, arguments: str) -> str:
    machine = session.machine
    machine.drop(_find(machine, _one(arguments, "delvm NAME")))
    return ""


@info("snapshots", "the states kept in memory")
def snapshots(session: Session, arguments: str) -> str:
    known = [f"{s.name}: at instruction {s.instructions}" for s in session.machine.snapshots if s.name]
    return "\n".join(known) or "none"


# ---- back in time -------------------------------------------------------------------------------------------------
def _report(session: Session, stop: Stop) -> str:
    text = describe_stop(session.machine, stop)
    if stop.kind is StopKind.HISTORY_END:
        text = stop.message or "the end of the history"
    elif stop.kind is StopKind.PAUSED:
        text = _where_interrupted(session)
    return "\n".join([*([text] if text else []), session.execute("x/1i $cs_base + $rip")])


def _where_interrupted(session: Session) -> str:
    machine, history = session.machine, session.machine.history
    text = f"interrupted at instruction {machine.instructions}"
    if history is not None and history.frontier is not None:
        text += f", in the past; the present is at {history.frontier.instructions}"
    return text


@command("reverse-step", "[N]", "undo one instruction, or N", aliases=("rsi",), long=True)
def reverse_step(session: Session, arguments: str) -> str:
    count = session.evaluate(arguments) if arguments else 1
    with session.travelling() as machine:
        return _report(session, machine.reverse_step(count))


@command("reverse-continue", "", "back to the last breakpoint or watchpoint", aliases=("rc",), long=True)
def reverse_continue(session: Session, arguments: str) -> str:
    with session.travelling() as machine:
        return _report(session, machine.reverse_continue())


@command("last-write", "ADDRESS [LENGTH]", "back to the last write to memory", completes="symbol", long=True)
def last_write(session: Session, arguments: str) -> str:
    words = _one(arguments, "last-write ADDRESS [LENGTH]").split()
    length = session.evaluate(words.pop()) if len(words) > 1 and words[-1].isdigit() else 1
    address = session.evaluate(" ".join(words))
    with session.travelling() as machine:
        return _report(session, machine.last_write(address, length))


@command("goto", "COUNT", "to where so many instructions have been executed, in the past or the future", long=True)
def goto(session: Session, arguments: str) -> str:
    count = session.evaluate(arguments)
    lines = []
    with session.travelling() as machine:
        try:
            machine.goto(count)
        except Interrupted:
            lines.append(_where_interrupted(session))
    return "\n".join([*lines, session.execute("x/1i $cs_base + $rip")])


@info("replay", "what is recorded or replayed, and how far")
def replay(session: Session, arguments: str) -> str:
    history = session.machine.history
    if history is None:
        return "The machine keeps no history (-record, -replay, -history)."
    where = f"{history.mode.value} at instruction {session.machine.instructions}"
    entries = f"{history.position} of {len(history.recording.entries)} entries"
    path = history.recording.path
    return f"{where}, {entries} {f'of {path}' if path else 'in memory'}; {len(history.checkpoints)} checkpoints"
