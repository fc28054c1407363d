"""The monitor's `explain`: an answer in words, from `pyemu.explain_*`."""

from __future__ import annotations

from pyemu.monitor_table import CommandError, Session, command

SUBJECTS = {"time": "the clock, interrupts that wait, timers that are armed"}


@command("explain", "SUBJECT", f"explain {', '.join(SUBJECTS)}", completes="explain")
def explain(session: Session, arguments: str) -> str:
    subject, _, _rest = arguments.partition(" ")
    if subject not in SUBJECTS:
        raise CommandError("\n".join(f"explain {name} -- {text}" for name, text in SUBJECTS.items()))
    with session.stopped() as machine:
        from pyemu.explain_time import explain_time

        return explain_time(machine).text
