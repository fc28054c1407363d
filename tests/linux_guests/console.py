"""Types at a guest's serial console and reads what it says.

A `Console` runs an emulator (or any program with a shell behind it) on a pseudo-terminal, as a person at a terminal
would, so raw mode and line discipline are exercised too. It knows nothing of Linux beyond a POSIX shell.
"""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

COLUMNS = 250  # wide enough that no line editor folds a command
GRACE_SECONDS = 5.0
_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|[()][0-9A-B]|[=>cM78])")


class ConsoleError(Exception):
    """The guest didn't say what was expected; carries the end of what it did say."""


class Console:
    """A program on a pseudo-terminal; leave the with-block and it is gone."""

    def __init__(self, command: Sequence[str | Path], log: Path | None = None) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 25, COLUMNS, 0, 0))
        self._received = bytearray()
        self._seen = 0  # characters of `text` that earlier calls of `expect` consumed
        self._commands = 0
        self._log = log.open("wb") if log else None
        self._process = subprocess.Popen(
            [os.fspath(word) for word in command], stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def text(self) -> str:
        """Everything received so far, without terminal escapes and carriage returns."""
        return _ESCAPES.sub("", self._received.decode(errors="replace")).replace("\r", "")

    def expect(self, pattern: str, seconds: float) -> re.Match[str]:
        """Waits until text after the previous match matches `pattern`."""
        deadline = time.monotonic() + seconds
        while True:
            match = re.compile(pattern, re.MULTILINE).search(self.text, self._seen)
            if match:
                self._seen = match.end()
                return match
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._error(f"no {pattern!r} within {seconds:g} s")
            if not self._receive(left):
                raise self._error(f"ended (status {self._process.wait()}) before {pattern!r}")

    def send(self, text: str) -> None:
        """Types text, as it is: end it with a newline to enter a line."""
        data = text.encode()
        while data:
            select.select([], [self._master], [])
            data = data[os.write(self._master, data) :]

    def shell(self, command: str, seconds: float) -> str:
        """Enters a command at a shell prompt and returns what it printed; a status other than 0 is an error."""
        self._commands += 1
        # The terminal echoes what is typed, so the typed line must not match what marks the output.
        self.send(f"echo begin-$((0))-{self._commands}; {command}; echo status-$?-{self._commands}-\n")
        self.expect(rf"begin-0-{self._commands}\n", seconds)
        begin = self._seen
        match = self.expect(rf"status-(\d+)-{self._commands}-", seconds)
        if match[1] != "0":
            raise self._error(f"{command!r} ended with status {match[1]}")
        return self.text[begin : match.start()]

    def finish(self, seconds: float) -> int:
        """Waits for the program to end by itself and returns its status."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if not self._receive(left):
                try:
                    return self._process.wait(max(left, GRACE_SECONDS))
                except subprocess.TimeoutExpired:
                    break
        raise self._error(f"still running after {seconds:g} s")

    def close(self) -> None:
        """Ends the program and its children if they still run."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        if self._master >= 0:
            os.close(self._master)
            self._master = -1
        if self._log:
            self._log.close()

    def _receive(self, seconds: float) -> bool:
        """Takes what arrives within the time; False once the program has closed its terminal."""
        if not select.select([self._master], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self._master, 65536)
        except OSError:  # EIO: nobody has the other side open
            return False
        self._received += data
        if self._log:
            self._log.write(data)
            self._log.flush()
        return bool(data)

    def _error(self, problem: str) -> ConsoleError:
        return ConsoleError(f"{problem}; the last it said:\n{self.text[-2000:]}")
