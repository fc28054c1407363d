"""What a line of the monitor may go on with."""

from __future__ import annotations

import re

from pyemu.explain import SUBJECTS
from pyemu.keys import KEYS
from pyemu.monitor_break import EVENTS
from pyemu.monitor_table import COMMANDS, TOPICS, Session, find, load

_WORD = re.compile(r"[\w.$]*$")


def complete(session: Session, line: str) -> list[str]:
    """The words that the last word of a line may become."""
    load()
    before, _, last = line.rpartition(" ")
    words = before.split()
    if not words:
        return sorted(name for name in COMMANDS if name.startswith(last))
    known = find(words[0].partition("/")[0])
    kind = known.completes if known is not None else ""
    names: list[str] = []
    match kind:
        case "command":
            names = list(COMMANDS)
        case "info":
            names = list(TOPICS) if len(words) == 1 else []
        case "explain" if len(words) == 1:
            names = [subject.split()[0] for subject in SUBJECTS if subject[0].islower()]
            return sorted(name for name in names if name.startswith(last)) + _symbols(session, last)
        case "explain" | "symbol":
            return _symbols(session, last)
        case "key":
            done, dash, key = last.rpartition("-")
            return sorted(done + dash + name for name in KEYS if name.startswith(key))
        case "catch" if len(words) == 1:
            names = list(EVENTS)
        case "snapshot":
            names = [snapshot.name for snapshot in session.machine.snapshots]
        case "hook":
            names = [str(number) for number in session.machine.stoppers]
    return sorted(name for name in names if name.startswith(last))


def _symbols(session: Session, last: str) -> list[str]:
    """The last word of an expression as a register or symbol."""
    match = _WORD.search(last)
    word = match[0] if match is not None else ""
    before = last[: len(last) - len(word)]
    if word.startswith("$"):
        names = sorted(f"${name}" for name in session.machine.regs.as_dict() if name.startswith(word[1:]))
    else:
        names = session.machine.symbols.starting_with(word) if word else []
    return [before + name for name in names]
