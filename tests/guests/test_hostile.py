"""Hostile guests: none of them crashes the emulator, and the user ends each within a second.

`pytest tests/guests --emulator qemu` shows that the guests do what they say (QEMU 7.2 doesn't survive all of them).
"""

import os
import pty
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.guests import HOSTILE, build

START_SECONDS = 60.0  # the first start may have to build the code cache
MISBEHAVE_SECONDS = 1.5
END_SECONDS = 1.0
CTRL_A_X = b"\x01x"
CTRL_C = b"\x03"


class Session:
    """A program on a terminal of its own, which is also its controlling one, so that Ctrl-C is a signal."""

    def __init__(self, command: list[str]) -> None:
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            try:
                os.execvp(command[0], command)
            finally:
                os._exit(127)
        self.output = bytearray()
        self.status: int | None = None

    def read_until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Take output until the condition holds, the time is over, or the program has ended."""
        deadline = time.monotonic() + seconds
        while not condition() and (left := deadline - time.monotonic()) > 0:
            if not select.select([self._terminal], [], [], min(left, 0.05))[0]:
                continue
            try:
                self.output += os.read(self._terminal, 65536)
            except OSError:  # nobody has the other side open any more
                time.sleep(0.01)

    def ended(self) -> bool:
        """Whether the program has ended; its status then is in `status`."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is not None

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._terminal, keys)

    def close(self) -> None:
        """End it whatever it does."""
        if not self.ended():
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._terminal)


@pytest.fixture(params=HOSTILE)
def hostile(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """The name of a guest, and its image."""
    name = str(request.param)
    path = tmp_path / name
    path.write_bytes(build(name))
    return name, path


@pytest.fixture
def sessions() -> Iterator[list[Session]]:
    """What is in the list when the test is over is ended."""
    running: list[Session] = []
    yield running
    for session in running:
        session.close()


@pytest.mark.parametrize(
    ("options", "keys"),
    [(["-nographic"], CTRL_A_X), (["-display", "none", "-serial", "stdio"], CTRL_C)],
    ids=["ctrl-a x", "ctrl-c"],
)
def test_user_stays_in_control(
    emulator: tuple[str, ...], hostile: tuple[str, Path], options: list[str], keys: bytes, sessions: list[Session]
) -> None:
    name, path = hostile
    session = Session([*emulator, "-m", "64", *options, "-kernel", str(path)])
    sessions.append(session)
    greeting = f"hostile {name}".encode()
    session.read_until(lambda: greeting in session.output or session.ended(), START_SECONDS)
    assert greeting in session.output, session.output.decode(errors="replace")
    session.read_until(session.ended, MISBEHAVE_SECONDS)
    assert session.status is None, f"ended by itself: {session.output[-1000:].decode(errors='replace')}"
    session.type(keys)
    typed = time.monotonic()
    session.read_until(session.ended, END_SECONDS)
    seconds = time.monotonic() - typed
    assert session.status is not None, f"still running {seconds:.1f} s after the keys"
    text = session.output.decode(errors="replace")
    assert "Traceback" not in text, text
    assert session.status >= 0, f"died of signal {-session.status}: {text[-1000:]}"


@pytest.mark.parametrize("name", HOSTILE)
def test_images_are_small_multiboot_kernels(name: str) -> None:
    image = build(name)
    assert image[:4] == b"\x02\xb0\xad\x1b"
    assert len(image) < 4096
    assert f"hostile {name}\r\n\0".encode() in image
