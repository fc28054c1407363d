"""Traces of execution: the database, and the export for Tenet."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pyemu.execution_trace import TraceError
from pyemu.machine import Machine
from pyemu.until import Instructions
from tests.emu.test_hooks import AT, COUNT, SECTOR

HANDLER = 0x7D00  # an IRET
BACKENDS = ("reference", "interp", "jit")


@pytest.fixture(params=BACKENDS)
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    sector = tmp_path / "sector"
    sector.write_bytes(SECTOR)
    with Machine(kernel=str(sector), memory="16M", accelerator=request.param) as made:
        yield made


def test_everything_is_in_the_database(machine: Machine, tmp_path: Path) -> None:
    path = str(tmp_path / "trace.sqlite")
    with machine.trace(path) as trace:
        machine.run(until=AT["end"], timeout=60)
    # REP STOSB is one step of 20 counts; the last step is only about to be executed.
    assert (machine.instructions, trace.steps) == (COUNT, COUNT - 19 + 1)
    trace.close()
    database = sqlite3.connect(path)
    ask = database.execute
    assert ask("SELECT count(*) FROM step").fetchone() == (trace.steps,)
    assert ask("SELECT address, hex(substr(code, 1, 2)) FROM step WHERE count = 0").fetchone() == (
        f"{0x7C00:016x}",
        "31C0",
    )
    writes = ask(
        "SELECT value FROM access WHERE address = ? AND is_write ORDER BY count", (f"{0x600:016x}",)
    ).fetchall()
    assert [int(value, 16) for (value,) in writes] == list(range(1001))
    stores = "SELECT count(*), min(address), max(address) FROM access WHERE is_write AND value = ? AND size = 1"
    assert ask(stores, (f"{7:016x}",)).fetchone() == (20, f"{0x700:016x}", f"{0x713:016x}")
    counted = ask("SELECT value FROM change WHERE register = 'rcx' ORDER BY count").fetchall()
    assert [int(value, 16) for (value,) in counted if int(value, 16) <= 1000][-1003:-1] == [*range(1000, -1, -1), 20]
    (event,) = ask("SELECT kind, number, address FROM event").fetchall()
    assert event == ("software interrupt", 0x20, f"{AT['port']:016x}")
    database.close()


def test_a_repetition_that_was_left_goes_on_in_its_step(machine: Machine, tmp_path: Path) -> None:
    """Stopped by a person or by the clock after some of its iterations, and by an interrupt after some more."""
    machine.run(until=AT["rep"], timeout=60)
    machine.write_virtual(8, HANDLER.to_bytes(4, "little"))
    before = machine.instructions
    with machine.trace(str(tmp_path / "t")) as trace:
        machine.run(until=Instructions(8), timeout=60)
        machine.run(until=Instructions(4), timeout=60)
        machine.inject_nmi()
        machine.run(until=AT["int"], timeout=60)
    assert machine.instructions == before + 20 + 2  # the delivery of an interrupt counts
    trace.close()
    with closing(sqlite3.connect(tmp_path / "t")) as database:
        ask = database.execute
        steps = ask("SELECT count, address FROM step ORDER BY count").fetchall()
        assert [(count - before, int(address, 16)) for count, address in steps] == [
            (0, AT["rep"]), (13, HANDLER), (14, AT["rep"]), (22, AT["int"]),
        ]  # fmt: skip
        stores = ask("SELECT count, address FROM access WHERE is_write AND size = 1 ORDER BY rowid").fetchall()
        assert [(count - before, int(address, 16)) for count, address in stores] == [
            (0 if n < 12 else 14, 0x700 + n) for n in range(20)
        ]
        pops = ask("SELECT address, size FROM access WHERE count = ? AND NOT is_write ORDER BY rowid", (before + 13,))
        assert pops.fetchall() == [(f"{at:016x}", 2) for at in (0x7BFA, 0x7BFC, 0x7BFE)]


def test_a_range_and_an_export_for_tenet(machine: Machine, tmp_path: Path) -> None:
    trace = machine.trace(str(tmp_path / "t"), AT["loop"], AT["fill"])
    machine.run(until=AT["int"], timeout=60)
    assert trace.steps == 4000
    assert trace.save_tenet(str(tmp_path / "tenet")) == 4000
    lines = (tmp_path / "tenet").read_text().splitlines()
    first = dict(part.split("=") for part in lines[0].split(","))
    assert (len(first), first["rcx"], first["rip"]) == (17, "0x3e8", f"{AT['loop']:#x}")
    assert lines[1:6] == [
        f"rip={AT['load']:#x},mr=0x600:0000,mw=0x600:0100",
        f"rip={AT['again']:#x},mr=0x602:0000",
        f"rcx=0x3e7,rip={AT['again'] + 1:#x}",
        f"rip={AT['loop']:#x}",
        f"rip={AT['load']:#x},mr=0x600:0100,mw=0x600:0200",
    ]
    trace.close()
    machine.run(until=AT["end"], timeout=60)
    assert (machine.instructions, machine.hooks.all) == (COUNT, [])


def test_a_trace_can_be_read_while_it_grows(machine: Machine, tmp_path: Path) -> None:
    path = str(tmp_path / "t")
    trace = machine.trace(path, memory=False)
    machine.run(until=Instructions(100), timeout=60)
    trace.flush()
    database = sqlite3.connect(path)
    assert database.execute("SELECT count(*), max(count) FROM step").fetchone() == (100, 99)
    database.close()
    trace.close()


def test_files_that_cannot_be_written(machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="can't write a trace to"):
        machine.trace(str(tmp_path / "no" / "t"))
    assert machine.hooks.all == []
