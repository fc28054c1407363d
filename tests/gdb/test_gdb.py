"""Debian's gdb, scripted, at a boot sector: modes, breakpoints, watchpoints, steps, coming and going."""

from __future__ import annotations

import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyemu.chardev import ChardevError
from pyemu.config import ConfigError
from pyemu.cpu.state import OPMASK, VEC
from pyemu.gdbserver.packets import frame
from pyemu.gdbserver.server import parse_place
from pyemu.gdbserver.session import Session
from pyemu.machine import Machine
from tests.gdb.conftest import run_gdb, start_gdb, where
from tests.gdb.sector import LONG, REAL, sector

FOLLOW = ("monitor architecture auto", "define hook-stop\nunset tdesc filename\nend", "unset tdesc filename")


def follow(tmp_path: Path) -> str:
    """A file with what makes gdb follow the processor's mode."""
    file = tmp_path / "follow.gdb"
    file.write_text("\n".join(FOLLOW) + "\n")
    return f"source {file}"


def test_from_real_to_long_mode(machine: Machine, tmp_path: Path) -> None:
    """Disassembly and registers are right on both sides, in a real-mode segment that doesn't start at 0 too."""
    output = run_gdb(
        machine, follow(tmp_path), "x/2i $pc", f"break *{REAL:#x}", "continue", "x/3i $pc", "p/x $cs",
        f"break *{LONG:#x}", "continue", "x/3i $pc", "show architecture", "stepi", "stepi", "p/x $r8", "detach",
    )  # fmt: skip
    for line in (
        "=> 0x7c00:\tcli", "0x7c01:\tljmp   $0x7c0,$0x10", "Breakpoint 1, 0x00007c10", "=> 0x7c10:\txor    %ax,%ax",
        "0x7c14:\tmov    %ax,%ss", "$1 = 0x7c0", "Breakpoint 2, 0x0000000000007d00",
        "=> 0x7d00:\tmovabs $0x1122334455667788,%rax", "0x7d0a:\tmov    %rax,%r8", '(currently "i386:x86-64")',
        "$2 = 0x1122334455667788",
    ):  # fmt: skip
        assert line in output, output


def test_without_a_request_it_is_x86_64_throughout(machine: Machine) -> None:
    output = run_gdb(
        machine, "show architecture", "p/x $cs_base", f"break *{REAL:#x}", "continue", "p/x $cs_base", "p/x $pc",
        f"break *{LONG:#x}", "continue", "x/i $pc", "monitor architecture", "detach",
    )  # fmt: skip
    for line in (
        '(currently "i386:x86-64")', "$1 = 0x0", "$2 = 0x7c00", f"$3 = {REAL:#x}", "movabs $0x1122334455667788",
        "the processor executes i386:x86-64; gdb was told i386:x86-64",
    ):  # fmt: skip
        assert line in output, output


def test_with_a_64_bit_program_loaded(machine: Machine) -> None:
    """A kernel's symbols are loaded while the processor is still in real mode: the usual case."""
    output = run_gdb(machine, "file /bin/true", f"hbreak *{LONG:#x}", "continue", "p/x $rip", "x/i $pc", "detach")
    assert f"$1 = {LONG:#x}" in output and "movabs" in output, output


def test_watchpoints_steps_and_finish(machine: Machine) -> None:
    output = run_gdb(
        machine, f"tbreak *{LONG:#x}", "continue", "watch *(long*)0x600", "continue", "continue", "p $rip",
        "delete", "rwatch *(char*)0x7000", "delete", "tbreak *0x7d70", "continue", "bt 2", "finish", "x/i $pc",
        "stepi", "stepi", "stepi", "info registers rbx", "set $rbx = 7", "p $rbx", "set *(int*)0x700 = 0x1234",
        "x/wx 0x700", "detach",
    )  # fmt: skip
    assert re.search(
        r"Hardware watchpoint 2.*Old value = 0\nNew value = 1\n.*Old value = 1\nNew value = 2", output, re.S
    )
    assert re.search(r"#1  0x0*7d2d in .*\n0x0*7d2d in .*\n=> 0x7d2d:\tjmp", output), output
    assert "$2 = 7" in output and re.search(r"0x700:\t0x00001234", output), output
    assert machine.memory.read(0x700, 2) == b"\x34\x12"


def test_read_and_access_watchpoints(machine: Machine) -> None:
    """RET reads what CALL wrote."""
    output = run_gdb(
        machine, f"tbreak *{LONG:#x}", "continue", "stepi 3", "awatch *(long*)0x6ff8", "continue", "continue",
        "info breakpoints", "detach",
    )  # fmt: skip
    assert re.search(r"Hardware access.*Old value = 0\nNew value = 32045\n0x0*7d70", output, re.S), output
    assert re.search(r"Value = 32045\n0x0*7d2d", output), output
    assert "breakpoint already hit 2 times" in output


def test_conditions_and_counts(machine: Machine) -> None:
    output = run_gdb(
        machine, "hbreak *0x7d70 if $rbx > 20", "continue", "p $rbx", "ignore 1 5", "continue", "p $rbx", "detach",
        timeout=120,
    )  # fmt: skip
    assert "$1 = 21" in output and "$2 = 27" in output, output


def test_interrupt(machine: Machine, tmp_path: Path) -> None:
    """Ctrl-C."""
    marks = [tmp_path / "0", tmp_path / "1"]
    process = start_gdb(
        machine, "continue", f"shell touch {marks[0]}", "p $rbx > 1", "continue", f"shell touch {marks[1]}", "p 6 * 7",
        "detach",
    )  # fmt: skip
    for number, mark in enumerate(marks):
        deadline = time.monotonic() + 60
        while not machine.running and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)  # gdb waits for the guest now
        process.send_signal(signal.SIGINT)
        while not mark.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert mark.exists(), number
    output, _ = process.communicate(timeout=60)
    assert output.count("Program received signal SIGINT") == 2 and "$2 = 42" in output, output


def test_detaching_lets_it_run_and_leaves_nothing(machine: Machine) -> None:
    run_gdb(machine, "break *0x7d70", "continue", "detach")
    assert machine.running and machine.hooks.all == []
    output = run_gdb(machine, "p/x $r8", "info threads", "disconnect")
    assert "$1 = 0x1122334455667788" in output and "CPU#0 [running]" in output
    output = run_gdb(machine, "kill")
    deadline = time.monotonic() + 60
    while machine.loop.final is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert machine.loop.final is not None, output


def test_the_end_of_the_guest_is_the_end_of_the_program(machine: Machine) -> None:
    machine.memory.write(0x7C00, bytes.fromhex("ba0406 b80020 ef"))  # power off: mov dx, 0x604; mov ax, 0x2000; out
    output = run_gdb(machine, "continue")
    assert "exited normally" in output, output


def test_monitor(machine: Machine) -> None:
    output = run_gdb(machine, "monitor info registers", "monitor nonsense", "monitor architecture x", "detach")
    assert "GDT=" in output and "unknown command: 'nonsense'" in output and "architecture [auto|" in output


# ---- clients that don't behave --------------------------------------------------------------------------------------
@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Machine]:
    image = tmp_path / "sector"
    image.write_bytes(sector())
    with Machine(kernel=str(image), memory="16M", gdb=f"unix:{tmp_path}/gdb") as made:
        made.prepare()
        yield made


def _connect(machine: Machine) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(60)
    client.connect(where(machine))
    return client


def _expect(client: socket.socket, wanted: bytes) -> None:
    data = b""
    while len(data) < len(wanted):
        data += client.recv(len(wanted) - len(data)) or pytest.fail(f"closed after {data!r}")
    assert data == wanted


def test_one_at_a_time_and_a_dead_client_is_forgotten(listening: Machine) -> None:
    with _connect(listening) as first:
        first.sendall(frame(b"Z0,7d00,1"))
        _expect(first, b"+$OK#9a")
        with _connect(listening) as second:
            assert second.recv(1) == b""
    deadline = time.monotonic() + 60
    while listening.hooks.all and time.monotonic() < deadline:
        time.sleep(0.02)
    with _connect(listening) as third:
        third.sendall(b"\x00\xff$garbage" + frame(b"?") + b"-")
        answer = frame(b"T05thread:1;")
        _expect(third, b"+" + answer + answer)  # again, as it asked for


def test_a_failure_of_the_server_ends_only_the_connection(
    listening: Machine, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Session, "_alive", lambda *_: 1 // 0)
    with _connect(listening) as first:
        first.sendall(frame(b"T1"))
        _expect(first, b"+")
        assert first.recv(1) == b""
    assert "gdb server: internal error: ZeroDivisionError" in capfd.readouterr().err
    with _connect(listening) as second:
        second.sendall(frame(b"?"))
        _expect(second, b"+" + frame(b"T05thread:1;"))


def test_a_client_that_does_not_read(listening: Machine) -> None:
    """It asks for more than the connection holds, and never takes it: the server lives on."""
    with _connect(listening) as client:
        client.setblocking(False)
        question = frame(b"g") * 100
        try:
            while client.send(question):
                pass
        except BlockingIOError:
            pass
        deadline = time.monotonic() + 20
        answered = b""
        while not answered and time.monotonic() < deadline:
            with _connect(listening) as other:
                try:
                    other.sendall(frame(b"qC"))
                    answered = other.recv(100)
                except OSError:
                    pass  # the other one is not given up yet
            time.sleep(0.5)
        assert answered


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("1234", "not understood"), ("tcp:1234", "not understood"), ("tcp::x", "'x' is not a port number"),
        ("tcp::70000", "not a port number"), ("unix:", "not understood"), ("tcp::1,foo", "unknown property 'foo'"),
        ("", "not understood"),
    ],
)  # fmt: skip
def test_bad_places(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        parse_place(text)


def test_places() -> None:
    assert str(parse_place("tcp::1234")) == "tcp:localhost:1234"
    assert str(parse_place("tcp:0.0.0.0:1,server,nowait")) == "tcp:0.0.0.0:1"
    assert str(parse_place("tcp:[::1]:5,server=on,wait=off")) == "tcp:[::1]:5"
    assert str(parse_place("unix:/tmp/x")) == "unix:/tmp/x"


def test_a_port_that_is_taken(listening: Machine, tmp_path: Path) -> None:
    with pytest.raises(ChardevError, match=r"-gdb unix:.*use"):
        Machine(kernel=str(tmp_path / "sector"), memory="16M", gdb=f"unix:{tmp_path}/gdb")


def test_every_vector_register(machine: Machine) -> None:
    """gdb puts ZMM31 together from four features."""
    machine.state[VEC + 8 * 31 + 3], machine.state[VEC + 8 * 31 + 1] = 33, 11
    output = run_gdb(
        machine, "p $ymm31.v4_int64[3]", "p $xmm31.v2_int64[1]", "set $zmm31.v8_int64[7] = 77",
        "p $zmm31.v8_int64[7]", "set $xmm3.v2_int64[0] = 99", "set $k1 = 0x1234", "p/x $k1", "p/x $pkru",
        "set $st0 = 2.5", "p $st0", "p $mxcsr", "detach",
    )  # fmt: skip
    for line in ("$1 = 33", "$2 = 11", "$3 = 77", "$4 = 0x1234", "$5 = 0x0", "$6 = 2.5", "$7 = [ IM DM ZM OM UM PM ]"):
        assert line in output, output
    assert machine.state[VEC + 8 * 31 + 7] == 77 and machine.state[VEC + 8 * 3] == 99
    assert machine.state[OPMASK + 1] == 0x1234
