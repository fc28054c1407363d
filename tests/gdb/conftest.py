"""Fixtures: a machine with a boot sector, and Debian's gdb at it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pyemu.gdbserver.session import Session, Settings
from pyemu.machine import Machine
from tests.gdb.sector import sector
from tests.judges import require

OPENING = ("set pagination off", "set confirm off", "set remotetimeout 60", "set width 0")


def where(machine: Machine) -> str:
    """What `target remote` is followed by."""
    assert machine.gdb is not None
    return machine.gdb.address.removeprefix("tcp:").removeprefix("unix:")


def start_gdb(machine: Machine, *commands: str, before: Sequence[str] = ()) -> subprocess.Popen[str]:
    """gdb, connected after what comes `before`, with commands that it executes one after another."""
    lines = [*OPENING, *before, f"target remote {where(machine)}", *commands]
    arguments = [argument for line in lines for argument in ("-ex", line)]
    return subprocess.Popen(
        [require("gdb"), "-nx", "-batch", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def run_gdb(machine: Machine, *commands: str, timeout: float = 60, before: Sequence[str] = ()) -> str:
    """All that it says."""
    process = start_gdb(machine, *commands, before=before)
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        pytest.fail(f"gdb doesn't end:\n{output}")
    return output


@pytest.fixture(params=["jit", "interp", "reference"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    image = tmp_path / "sector"
    image.write_bytes(sector())
    with Machine(kernel=str(image), memory="16M", accelerator=request.param, gdb="tcp::0") as made:
        made.prepare()
        yield made


@pytest.fixture
def session(machine: Machine) -> Iterator[Session]:
    """What a gdb is connected to, without one. It leaves nothing behind."""
    made = Session(machine, lambda _: None, Settings())
    made.begin()
    yield made
    made.end()
    assert machine.hooks.all == []
