"""A trace of what was executed, in an SQLite file that can be queried while it grows, and exported for Tenet.

    with machine.trace("boot.sqlite", begin, end) as trace:
        machine.run(...)
    trace.save_tenet("boot.log")

    step(count, address, code)                    an instruction, by the count of those executed before it; the last
                                                  one may be only about to be executed; a repeated string instruction
                                                  is one step for each time that it begins or comes back from a handler
    change(count, register, value)                what registers had then, where that differs from the step before
    access(count, address, size, is_write, value) the memory that the instruction accessed
    event(count, kind, number, error, address)    an exception, interrupt or system call behind that many instructions

Addresses and values are 16 hexadecimal digits, so that they compare as text as they do as numbers. Each instruction
calls Python: some ten thousand a second. For what was executed at all there is coverage.py.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Self

from pyemu.cpu.flags import eflags
from pyemu.cpu.state import GPR, ICOUNT, M64, RIP
from pyemu.hook_events import CodeEvent
from pyemu.registers import GPR_NAMES, linear_rip
from pyemu.trace import fetch

if TYPE_CHECKING:
    from pyemu.hook_events import Access, Event
    from pyemu.hooks import Hook
    from pyemu.machine import Machine

_BATCH = 20_000  # rows that are written together
_EVERYTHING = M64 + 1
_SCHEMA = """
CREATE TABLE step (count INTEGER PRIMARY KEY, address TEXT NOT NULL, code BLOB NOT NULL);
CREATE TABLE change (count INTEGER NOT NULL, register TEXT NOT NULL, value TEXT NOT NULL);
CREATE TABLE access (count INTEGER NOT NULL, address TEXT NOT NULL, size INTEGER NOT NULL, is_write INTEGER NOT NULL,
                     value TEXT NOT NULL);
CREATE TABLE event (count INTEGER NOT NULL, kind TEXT NOT NULL, number INTEGER NOT NULL, error INTEGER NOT NULL,
                    address TEXT NOT NULL);
"""
_INDEXES = """
CREATE INDEX IF NOT EXISTS change_by_count ON change (count);
CREATE INDEX IF NOT EXISTS access_by_count ON access (count);
CREATE INDEX IF NOT EXISTS access_by_address ON access (address);
CREATE INDEX IF NOT EXISTS step_by_address ON step (address);
"""
_INSERT = {
    "step": "INSERT OR REPLACE INTO step VALUES (?, ?, ?)",  # after an interrupt another instruction has that count
    "change": "INSERT INTO change VALUES (?, ?, ?)",
    "access": "INSERT INTO access VALUES (?, ?, ?, ?, ?)",
    "event": "INSERT INTO event VALUES (?, ?, ?, ?, ?)",
}


class TraceError(Exception):
    """A file that can't be written; one line for the user."""


def text(value: int) -> str:
    return f"{value:016x}"


class Trace:
    """A trace from when it is made until `stop`."""

    def __init__(
        self, machine: Machine, path: str, begin: int = 0, end: int = _EVERYTHING, memory: bool = True
    ) -> None:
        """Instructions at linear addresses from `begin` to `end`; with `memory` also what they access."""
        self.steps = 0
        self._machine, self._s = machine, machine.state
        self._known: dict[str, int] = {}  # the registers at the last step
        self._count = -1  # of the last step
        self._rip = 0  # of the last step
        self._delivered = -1  # the count at which an interrupt came since
        self._rows: dict[str, list[tuple[object, ...]]] = {name: [] for name in _INSERT}
        try:
            with open(path, "wb"):
                pass  # begin with an empty file
            self._database = sqlite3.connect(path, check_same_thread=False)
            self._database.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise TraceError(f"can't write a trace to '{path}': {error}") from error
        self._hooks: list[Hook] = [machine.hook_code(self._step, begin, end)]
        if memory:
            inside = None if (begin, end) == (0, _EVERYTHING) else f"rip >= {begin} and rip <= {end - 1}"
            self._hooks.append(machine.hook_memory(self._access, 0, _EVERYTHING, "rw", inside))
        self._hooks += [machine.hook_exception(self._event), machine.hook_interrupt(self._event)]
        self._hooks += [machine.hook_software_interrupt(self._event), machine.hook_syscall(self._event)]
        self._hooks.append(machine.hook_hypercall(self._event))

    # ---- on the vCPU's thread ----------------------------------------------------------------------------------
    def _step(self, event: CodeEvent) -> None:
        s, count = self._s, self._s[ICOUNT]
        self._count, self._rip, self._delivered = count, s[RIP], -1
        self.steps += 1
        self._rows["step"].append((count, text(event.address), fetch(s, self._machine.ram, event.address)))
        values = {name: s[GPR + n] for n, name in enumerate(GPR_NAMES)}
        values["rflags"] = eflags(s)
        changes = self._rows["change"]
        changes += [(count, name, text(v)) for name, v in values.items() if self._known.get(name) != v]
        self._known = values
        if len(changes) > _BATCH:
            self._write()

    def _access(self, access: Access) -> None:
        """Of the last step, also if that is a REP instruction that has counted some of its iterations before."""
        count = self._s[ICOUNT]
        if count == self._delivered:
            return
        if count != self._count and access.rip != self._rip:  # a REP instruction goes on after an interrupt
            self._step(CodeEvent(linear_rip(self._s)))
        row = (self._count, text(access.address), access.size, int(access.write), text(access.value))
        self._rows["access"].append(row)

    def _event(self, event: Event) -> None:
        count = self._s[ICOUNT]
        if count != self._count and event.kind in ("exception", "interrupt"):
            self._delivered = count
        row = (count, event.kind, event.number, event.error, text(event.address or event.rip))
        self._rows["event"].append(row)

    def _write(self) -> None:
        for name, rows in self._rows.items():
            self._database.executemany(_INSERT[name], rows)
            rows.clear()
        self._database.commit()

    # ---- from other threads ------------------------------------------------------------------------------------
    def flush(self) -> None:
        """Write what is only in memory yet."""
        self._machine.loop.exclusive(self._write)

    def stop(self) -> None:
        """Trace no more; the file is complete."""
        if not self._hooks:
            return
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self.flush()
        self._database.executescript(_INDEXES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._database.commit()

    def close(self) -> None:
        """Stop, and give the file free."""
        self.stop()
        self._database.close()

    # ---- export ------------------------------------------------------------------------------------------------
    def save_tenet(self, path: str) -> int:
        """Write the trace in Tenet's text format; gives the number of lines. A line has the registers when an
        instruction is about to be executed, and the memory that the one before has accessed."""
        self.flush()
        database = self._database
        lines, before = 0, -1
        with open(path, "w") as file:
            for count, address in database.execute("SELECT count, address FROM step ORDER BY count"):
                changed = database.execute("SELECT register, value FROM change WHERE count = ?", (count,))
                parts = [f"{name}=0x{int(value, 16):x}" for name, value in changed if name != "rflags"]
                parts.append(f"rip=0x{int(address, 16):x}")
                for where, size, is_write, value in database.execute(
                    "SELECT address, size, is_write, value FROM access WHERE count = ? ORDER BY rowid", (before,)
                ):
                    data = int(value, 16).to_bytes(8, "little")[:size].hex()
                    parts.append(f"{'mw' if is_write else 'mr'}=0x{int(where, 16):x}:{data}")
                file.write(",".join(parts) + "\n")
                lines, before = lines + 1, count
        return lines
