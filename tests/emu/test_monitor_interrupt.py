"""Ctrl-C while a command of the monitor takes long: the machine stands, the monitor says where, and goes on."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyemu import Machine, history, monitor
from pyemu.chardev import Capture
from pyemu.monitor import Monitor
from pyemu.monitor_table import Session
from pyemu.snapshot_error import SnapshotError
from pyemu.until import Instructions
from tests.emu.test_snapshot import whole
from tests.gdb.sector import LONG, sector

ROUNDS = 60_000
IN_EACH_ROUND = 0x7D70  # is executed again and again, so that the way back is long
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Typist:
    """A monitor and who sits at it."""

    def __init__(self, machine: Machine) -> None:
        self.console = Capture()
        self.monitor = Monitor(machine, self.console)
        self.seen = 0

    def type(self, keys: bytes) -> None:
        self.console.send(keys)

    def wait(self, until: str) -> str:
        """What the monitor says up to this text."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            text = bytes(self.console.output[self.seen :]).decode()
            if (match := re.search(until, ESCAPES.sub("", text))) is not None:
                self.seen = len(self.console.output)
                return match[0]
            time.sleep(0.005)
        raise AssertionError(f"{until!r} is not in {text!r}")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    monkeypatch.setattr(history, "CHECKPOINT_EVERY", 10_000)
    image = tmp_path / "sector"
    image.write_bytes(sector())
    with Machine(kernel=str(image), memory="16M", record="") as made:
        made.run(until=LONG, timeout=60)
        made.run(until=Instructions(ROUNDS), timeout=60)
        yield made


@pytest.fixture
def typist(machine: Machine) -> Iterator[Typist]:
    one = Typist(machine)
    yield one
    one.monitor.close()


@pytest.mark.parametrize("editor", [False, True])
def test_ctrl_c_ends_the_way_back(machine: Machine, typist: Typist, editor: bool) -> None:
    end, after = machine.instructions, whole(machine)
    machine.breakpoint(IN_EACH_ROUND, condition="rbx == 1")
    machine.breakpoint(IN_EACH_ROUND + 1, condition="mem8[0x7c00] == 1")  # never: looked at in each round
    if editor:
        typist.type(b"info statsu\x1b[D\x1b[D\x7f\x1b[C\x1b[Cs\r")
        typist.wait("VM status|unknown|information")
    typist.type(b"reverse-continue\r")
    if editor:
        time.sleep(0.02)
    typist.type(b"info nonsense\x03")  # what was typed before Ctrl-C is given up
    ends = "breakpoint.*|the beginning of the history"
    where = typist.wait(rf"(interrupted at instruction \d+, in the past; the present is at \d+|{ends})")
    if not editor:  # where a single thread takes the line and Ctrl-C nothing is left to chance
        assert where.startswith("interrupted"), where
    if where.startswith("interrupted"):
        assert f"the present is at {end}" in where and f"instruction {machine.instructions}," in where
    typist.type(b"goto %d\r" % end)
    typist.wait(r"0x[0-9a-f]+:")
    assert (machine.instructions, whole(machine)) == (end, after)


def test_keys_typed_meanwhile_are_the_next_command(machine: Machine, typist: Typist) -> None:
    count = machine.instructions
    typist.type(b"goto %d\rgoto %d\rinfo replay\r" % (count - 50_000, count - 20))
    typist.wait(f"replaying at instruction {count - 20},")


def test_progress_is_shown(machine: Machine, typist: Typist, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "_PROGRESS_S", 0.0)
    begin = machine.instructions
    typist.type(b"goto %d\r" % (begin - 45_000))
    typist.wait(rf"at instruction \d+, on the way to {begin - 45_000} \(Ctrl-C ends it here\)[^\n]*0x")


def test_many_steps_end_with_ctrl_c(machine: Machine, typist: Typist) -> None:
    before = machine.instructions
    typist.type(b"step 1000000000000\r\x03")
    text = typist.wait(r"(\d+) instructions, then interrupted")
    assert machine.instructions - before == int(text.split()[0])
    assert "steps are 1 to" in Session(machine).execute("step 1000000000000")


def test_two_at_once(machine: Machine) -> None:
    """Another thread is told that the machine is on its way already."""
    refused: list[SnapshotError] = []

    def go() -> None:
        try:
            machine.goto(1)
        except SnapshotError as error:
            refused.append(error)

    with machine.interruptible(threading.Event()):
        other = threading.Thread(target=go)
        other.start()
        other.join()
        machine.goto(machine.instructions - 5)
    assert "already" in str(refused[0])
