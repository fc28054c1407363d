"""Debian's gdb going back: `reverse-stepi`, `reverse-continue` to breakpoints and to what a write has changed."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyemu import history
from pyemu.gdbserver.packets import Packet, Reader, frame
from pyemu.machine import Machine
from pyemu.until import Instructions
from tests.emu.test_snapshot import whole
from tests.gdb.conftest import run_gdb, where
from tests.gdb.sector import LONG, sector


@pytest.fixture(params=["jit", "interp"])
def remembering(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    image = tmp_path / "sector"
    image.write_bytes(sector())
    with Machine(kernel=str(image), memory="16M", accelerator=request.param, record="", gdb="tcp::0") as made:
        made.prepare()
        yield made


def test_back_to_writes_and_breakpoints(remembering: Machine) -> None:
    """The write is undone when gdb stops: it sees the old value come back."""
    output = run_gdb(
        remembering, f"tbreak *{LONG:#x}", "continue", "watch *(long*)0x600", "continue", "continue", "continue",
        "reverse-continue", "p $rip", "reverse-continue", "p $rbx", "continue", "delete",
        "tbreak *0x7d70", "reverse-continue", "p $rbx", "reverse-stepi", "x/i $pc", "stepi", "x/i $pc", "detach",
    )  # fmt: skip
    values = [(int(a), int(b)) for a, b in re.findall(r"Old value = (\d+)\nNew value = (\d+)", output)]
    assert values == [(0, 1), (1, 2), (2, 3), (3, 2), (2, 1), (1, 2)], output
    assert "$1 = (void (*)()) 0x7d22" in output and "$2 = 2" in output, output
    assert re.search(r"\$3 = 2\n0x0*7d28 .*\n=> 0x7d28:\tcall", output), output
    assert re.search(r"=> 0x7d70:\tinc", output), output


def test_back_to_where_a_condition_held(remembering: Machine) -> None:
    """It is evaluated on the way, not by gdb at each hit."""
    output = run_gdb(
        remembering, f"tbreak *{LONG:#x}", "continue", "break *0x7d70 if $rbx % 8 == 3", "continue", "continue",
        "condition 2 $rbx % 8 == 6", "reverse-continue", "p $rbx", "reverse-stepi", "condition 2 $rbx > 7 && $rbx < 10",
        "continue", "p $rbx", "continue", "reverse-continue", "p $rbx", "detach",
    )  # fmt: skip
    assert re.findall(r"^\$\d+ = (\d+)$", output, re.MULTILINE) == ["6", "8", "8"], output


def test_back_to_the_beginning(remembering: Machine) -> None:
    output = run_gdb(
        remembering, f"break *{LONG:#x}", "continue", "stepi", "reverse-stepi", "p $rip", "delete",
        "reverse-continue", "p/x $cs_base", "p $rip", "reverse-stepi", "detach",
    )  # fmt: skip
    assert f"$1 = (void (*)()) {LONG:#x}" in output, output
    assert output.count("No more reverse-execution history") == 2, output
    assert "$3 = (void (*)()) 0x7c00" in output, output


def test_what_gdb_changes_belongs_to_the_history(remembering: Machine) -> None:
    """Going back undoes it, coming back repeats it; changed in the past, the future is another."""
    output = run_gdb(
        remembering, f"tbreak *{LONG:#x}", "continue", "tbreak *0x7d70", "continue", "set $rbx = 500", "stepi 20",
        "p $rbx", "reverse-stepi 30", "p $rbx < 10", "stepi 30", "p $rbx", "reverse-stepi 15", "set $rbx = 9000",
        "stepi 15", "p $rbx > 9000", "p *(long*)0x600 > 9000", "set var *(long*)0x640 = 7", "reverse-stepi",
        "stepi", "p *(long*)0x640", "detach",
    )  # fmt: skip
    values = re.findall(r"^\$\d+ = (\d+)$", output, re.MULTILINE)
    assert values[0] == values[2] and int(values[0]) >= 500, output
    assert values[1:2] + values[3:] == ["1", "1", "1", "7"], output


def conversation(machine: Machine) -> tuple[socket.socket, Reader]:
    host, _, port = where(machine).rpartition(":")
    client = socket.create_connection((host, int(port)), timeout=60)
    client.sendall(frame(b"QStartNoAckMode"))
    return client, Reader()


def reply(client: socket.socket, reader: Reader) -> bytes:
    while True:
        for item in reader.feed(client.recv(4096)):
            if isinstance(item, Packet):
                return item.payload


@pytest.mark.parametrize("accelerator", ["jit", "reference"])
def test_ctrl_c_on_the_way_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accelerator: str) -> None:
    monkeypatch.setattr(history, "CHECKPOINT_EVERY", 10_000)
    image = tmp_path / "sector"
    image.write_bytes(sector())
    with Machine(kernel=str(image), memory="16M", accelerator=accelerator, record="", gdb="tcp::0") as machine:
        machine.run(until=Instructions(60_000), timeout=60)
        end, after = machine.instructions, whole(machine)
        client, reader = conversation(machine)
        with client:
            assert reply(client, reader) == b"OK"
            # The breakpoint is hit in each round, which makes the way back slow enough.
            client.sendall(frame(b"Z0,7d70,1"))
            assert reply(client, reader) == b"OK"
            client.sendall(frame(b"bc") + b"\x03")
            assert reply(client, reader).startswith(b"T02thread:")
            assert 0 <= machine.instructions < end
            client.sendall(frame(b"bs"))
            assert reply(client, reader).startswith(b"T05thread:")
            client.sendall(frame(b"z0,7d70,1"))
            assert reply(client, reader) == b"OK"
            machine.goto(end)
            assert whole(machine) == after
            client.sendall(frame(b"bs"))
            assert reply(client, reader).startswith(b"T05thread:")
            assert machine.instructions == end - 1
