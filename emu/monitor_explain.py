"""The monitor's `explain`: an answer in words, from `pyemu.explain`."""

from __future__ import annotations

from pyemu.explain import SUBJECTS, explain
from pyemu.monitor_table import Session, command


@command("explain", "SUBJECT", f"in words; SUBJECT: {', '.join(SUBJECTS)}; ? says what these are", completes="explain")
def explain_(session: Session, arguments: str) -> str:
    if arguments == "?":
        return "\n".join(f"explain {name} -- {text}" for name, text in SUBJECTS.items())
    with session.stopped() as machine:
        return explain(machine, arguments).text
