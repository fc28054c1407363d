"""The monitor's line editor: history, completion, and on which devices it works."""

import os
import pty
import re
import select
import socket
import subprocess
import sys
import time

import pytest

from pyemu.chardev import Capture
from pyemu.completion import complete
from pyemu.monitor import Monitor
from pyemu.monitor_table import Session

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Typist:
    """A monitor on a captured console."""

    def __init__(self, machine):
        self.console = Capture()
        self.monitor = Monitor(machine, self.console)

    def type(self, keys, until):
        start = len(self.console.output)
        self.console.send(keys)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            text = ESCAPES.sub("", self.console.output[start:].decode())
            if until in text:
                return text
            time.sleep(0.01)
        raise AssertionError(f"{until!r} is not in {text[-500:]!r}")


@pytest.fixture
def typist(build):
    typist = Typist(build(name="guest"))
    yield typist
    typist.monitor.close()


def test_the_line_that_was_begun_goes_on(typist):
    typist.type(b"info nme\x1b[D\x1b[Da\x7fa\r", "guest\r\n")


def test_history(typist):
    typist.type(b"info name\r", "guest\r\n")  # plain
    typist.type(b"\x1b[A\r", "guest\r\n")
    typist.type(b"info status\r", "paused\r\n")
    typist.type(b"\x10\x10\r", "guest\r\n")  # Ctrl-P
    typist.type(b"\x12nam\r\r", "guest\r\n")  # Ctrl-R searches


def test_completion_on_tab(typist):
    typist.type(b"inf\t", "info")
    typist.type(b" nam\t\r", "guest\r\n")
    typist.type(b"info me\t\r", "PG disabled")


def test_interrupt_and_end_of_file_give_a_new_line(typist):
    typist.type(b"\x1b[Crubbish\x03info name\r", "guest\r\n")
    typist.type(b"\x04info name\r", "guest\r\n")


def test_garbage(typist):
    typist.type(bytes(range(256)) * 3 + b"\x1b[200~paste\x1b[201~", "paste")
    typist.type(b"\x03info name\r", "guest\r\n")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("qui", ["quit"]),
        ("info regi", ["registers"]),
        ("help memsa", ["memsave"]),
        ("sendkey ctrl-alt-del", ["ctrl-alt-delete"]),
        ("explain add", ["address"]),
        ("x/4i $ri", ["$rip"]),
        ("x/4i bo", ["boot"]),
        ("break 4+bo", ["4+boot"]),
        ("catch exc", ["exception"]),
        ("nonsense x", []),
        ("info registers x", []),
    ],
)
def test_what_a_line_may_become(build, tmp_path, line, expected):
    (tmp_path / "map").write_text("0000000000007c00 T boot\n")
    assert complete(Session(build(symbols=(str(tmp_path / "map"),))), line) == expected


# ---- devices, with the built-in guest in a process of its own --------------------------------------------------------
PYEMU = [sys.executable, "-m", "pyemu", "-m", "16", "-accel", "interp", "-S"]


def test_a_pipe_gets_no_escape_sequences():
    done = subprocess.run(
        [*PYEMU, "-serial", "null", "-monitor", "stdio"],
        input=b"info name\ninfo version\nquit\n", capture_output=True, timeout=60,
    )  # fmt: skip
    assert b"0." in done.stdout and b"\x1b" not in done.stdout
    assert done.returncode == 0


def read_until(fd, text):
    seen, deadline = b"", time.monotonic() + 30
    while text not in ESCAPES.sub("", seen.decode("latin-1")):
        assert time.monotonic() < deadline, seen[-300:]
        if select.select([fd], [], [], 0.5)[0]:
            seen += os.read(fd, 4096)
    return seen


def test_a_terminal_that_the_guest_shares():
    main, terminal = pty.openpty()
    process = subprocess.Popen([*PYEMU, "-name", "shared"], stdin=terminal, stdout=terminal, stderr=terminal)
    try:
        read_until(main, "built-in guest")
        os.write(main, b"\x01c")
        read_until(main, "(pyemu)")
        os.write(main, b"info nam\t\r")
        read_until(main, "shared\r")
        os.write(main, b"\x01c\x01c")  # to the guest and back
        read_until(main, "(pyemu)")
        os.write(main, b"\x1b[A\r")
        read_until(main, "shared\r")
        os.write(main, b"\x01x")
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(main)
        os.close(terminal)


def test_a_socket(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        process = subprocess.Popen([*PYEMU, "-serial", "null", "-monitor", f"tcp:127.0.0.1:{port}"])
        try:
            server.settimeout(30)
            peer, _ = server.accept()
            with peer:
                read_until(peer.fileno(), "(pyemu) ")
                peer.sendall(b"info ver\t\r")
                read_until(peer.fileno(), "0.")
                peer.sendall(b"quit\r")
                assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()
