"""Hostile guests: none of them crashes the emulator, and the user ends each within a second, whatever runs it.

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
MISBEHAVE_SECONDS = 0.5
END_SECONDS = 30.0  # a second is promised; a loaded machine gets more, and `pytest -rP` shows the figure
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


@pytest.fixture
def misbehaving(
    emulator: tuple[str, ...], hostile: tuple[str, Path], sessions: list[Session]
) -> Callable[..., Session]:
    """misbehaving(*options) starts the guest and gives the session when it has been at it for a while."""
    name, path = hostile

    def start(*options: str) -> Session:
        session = Session([*emulator, "-m", "64", *options, "-kernel", str(path)])
        sessions.append(session)
        greeting = f"hostile {name}".encode()
        session.read_until(lambda: greeting in session.output or session.ended(), START_SECONDS)
        assert greeting in session.output, session.output.decode(errors="replace")
        session.read_until(session.ended, MISBEHAVE_SECONDS)
        assert session.status is None, f"ended by itself: {session.output[-1000:].decode(errors='replace')}"
        return session

    return start


def end_soon(session: Session, end: Callable[[], object]) -> int:
    """Do `end`; the process must end soon, and by itself. Returns its status."""
    started = time.monotonic()
    end()
    session.read_until(session.ended, END_SECONDS)
    seconds = time.monotonic() - started
    print(f"ended after {seconds:.2f} s")  # pytest -rP shows it
    text = session.output.decode(errors="replace")
    assert session.status is not None, f"still running {seconds:.1f} s later: {text[-1000:]}"
    assert "Traceback" not in text, text
    assert "internal error" not in text, text
    assert session.status >= 0, f"died of signal {-session.status}: {text[-1000:]}"
    return session.status


RAW = ("-nographic",)
COOKED = ("-display", "none", "-serial", "stdio")  # Ctrl-C is a signal


@pytest.mark.parametrize(("options", "keys"), [(RAW, CTRL_A_X), (COOKED, CTRL_C)], ids=["ctrl-a x", "ctrl-c"])
def test_user_stays_in_control(
    misbehaving: Callable[..., Session],
    options: tuple[str, ...],
    keys: bytes,
) -> None:
    session = misbehaving(*options)
    end_soon(session, lambda: session.type(keys))


@pytest.mark.parametrize(("options", "keys"), [(RAW, CTRL_A_X), (COOKED, CTRL_C)], ids=["ctrl-a x", "ctrl-c"])
@pytest.mark.parametrize("accelerator", ["interp", "reference"])
def test_user_stays_in_control_of_the_interpreters(
    misbehaving: Callable[..., Session],
    accelerator: str,
    options: tuple[str, ...],
    keys: bytes,
    request: pytest.FixtureRequest,
) -> None:
    if request.config.getoption("--emulator") != "pyemu":
        pytest.skip("these accelerators are pyemu's")
    session = misbehaving("-accel", accelerator, *options)
    status = end_soon(session, lambda: session.type(keys))
    assert status == (0 if keys == CTRL_A_X else 128 + signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_signals_end_it(
    misbehaving: Callable[..., Session],
    number: signal.Signals,
    request: pytest.FixtureRequest,
) -> None:
    if request.config.getoption("--emulator") != "pyemu":
        pytest.skip("the exit status is pyemu's")
    session = misbehaving(*RAW)
    assert end_soon(session, lambda: os.kill(session.pid, number)) == 128 + number


@pytest.mark.parametrize("name", HOSTILE)
def test_images_are_small_multiboot_kernels(name: str) -> None:
    image = build(name)
    assert image[:4] == b"\x02\xb0\xad\x1b"
    assert len(image) < 4096
    assert f"hostile {name}\r\n\0".encode() in image
