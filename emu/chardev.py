"""Character devices: where a serial port's bytes come from and go to on the host.

A `Chardev` is given bytes by `write` (from the guest, device lock held) and gives bytes to `on_input` (on the I/O
thread, without the lock). `Mux` puts the monitor beside the guest on one terminal, switched by Ctrl-A. The names are
QEMU's: stdio, mon:stdio, file:PATH, /dev/NAME, pty, null; tcp: and unix: are in `chardev_socket`.
"""

from __future__ import annotations

import errno
import os
import select
import sys
import threading
import time
import tty
from collections.abc import Callable
from typing import Protocol

from pyemu.terminal import RawTerminal

# Output is collected for a moment: a guest writes single bytes, and a system call for each would cost more than
# emulating them.
_FLUSH_DELAY_NS = 2_000_000
_FLUSH_SIZE = 512
_CHUNK = 2048  # a descriptor that select() calls writable takes this much without blocking (PIPE_BUF is 4096)
_FULL = 256 << 10  # more unwritten output than this makes the guest wait (or, for a pty nobody reads, is dropped)
_READ_SIZE = 4096


class ChardevError(Exception):
    """A character device that can't be opened (message is fit for the user)."""


class Loop(Protocol):
    """What is needed of `ioloop.IoLoop`."""

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None: ...
    def remove_reader(self, fd: int) -> None: ...
    def call_later(self, delay_ns: int, callback: Callable[[], None]) -> None: ...


class Chardev:
    """A device that swallows output and never has input (`null`); the others derive from it."""

    def __init__(self) -> None:
        self.on_input: Callable[[bytes], None] = lambda data: None
        self.on_break: Callable[[], None] = lambda: None
        # Somebody is at the other end from now on (a socket may have one client after the other).
        self.on_open: Callable[[], None] = lambda: None
        # The other end is gone for good (closed terminal, broken pipe): called once, with a line for the user.
        self.on_hangup: Callable[[str], None] = lambda reason: None

    def start(self, loop: Loop) -> None:
        """Begin to deliver input."""

    def pause_input(self, paused: bool) -> None:
        """The front end can't take more for now (or can again)."""

    def write(self, data: bytes) -> None:
        """Output from the guest."""

    def flush(self) -> None:
        """Write out what is collected, waiting for at most a second."""

    def close(self) -> None:
        """Flush, and put everything back as it was."""


class Capture(Chardev):
    """In-process console for the Python API: keeps the output, and is fed by `send`."""

    def __init__(self) -> None:
        super().__init__()
        self.output = bytearray()
        self.on_output: Callable[[bytes], None] = lambda data: None

    def write(self, data: bytes) -> None:
        self.output += data
        self.on_output(data)

    def send(self, data: bytes) -> None:
        self.on_input(data)


class FdChardev(Chardev):
    """Bytes over file descriptors, with collected output."""

    drop_when_full = False
    close_when_full = False  # rather than wait for who doesn't read

    def __init__(self, read_fd: int | None, write_fd: int | None) -> None:
        super().__init__()
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._pending = bytearray()
        self._lock = threading.Lock()
        self._loop: Loop | None = None
        self._flush_asked = False
        self._closing = False
        self._hung_up = False

    def start(self, loop: Loop) -> None:
        self._loop = loop
        if self._read_fd is not None:
            loop.add_reader(self._read_fd, self._readable)
        if self._write_fd is not None:
            self.on_open()

    def pause_input(self, paused: bool) -> None:
        if self._loop is not None and self._read_fd is not None:
            if paused:
                self._loop.remove_reader(self._read_fd)
            else:
                self._loop.add_reader(self._read_fd, self._readable)

    def _readable(self) -> None:
        fd = self._read_fd
        if fd is None:
            return
        try:
            data = os.read(fd, _READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.on_input(data)
        else:
            self._end_of_input(fd)

    def _end_of_input(self, fd: int) -> None:
        self._read_fd = None
        if self._loop is not None:
            self._loop.remove_reader(fd)

    def hang_up(self, reason: str) -> None:
        if not self._hung_up:
            self._hung_up = True
            self.on_hangup(reason)

    def write(self, data: bytes) -> None:
        with self._lock:
            if self._write_fd is None:
                return
            self._pending += data
            if len(self._pending) >= _FLUSH_SIZE or data.endswith(b"\n"):
                self._write_some()
                if len(self._pending) > _FULL:
                    self._make_room()
            elif not self._flush_asked and self._loop is not None:
                self._ask_flush()

    def _ask_flush(self) -> None:
        if self._loop is not None:
            self._flush_asked = True
            self._loop.call_later(_FLUSH_DELAY_NS, self._flush_later)

    def _flush_later(self) -> None:
        with self._lock:
            self._flush_asked = False
            self._write_some()
            if self._pending and not self._closing:
                self._ask_flush()

    def _write_some(self, timeout: float = 0.0) -> None:
        """Write what goes without blocking longer than `timeout`. Lock held."""
        while self._pending and self._write_fd is not None:
            try:
                if not select.select((), [self._write_fd], (), timeout)[1]:
                    return
                written = self.write_fd(self._write_fd, bytes(self._pending[:_CHUNK]))
            except BlockingIOError:
                return
            except OSError as error:
                self._pending.clear()
                self._write_failed(error)
                return
            del self._pending[:written]

    def write_fd(self, fd: int, data: bytes) -> int:
        return os.write(fd, data)

    def _write_failed(self, error: OSError) -> None:
        self._write_fd = None
        self.hang_up(f"output closed ({error.strerror})")

    def _make_room(self) -> None:
        if self.close_when_full:
            self._pending.clear()
            self._write_failed(OSError(errno.ENOBUFS, "nobody reads"))
            return
        if self.drop_when_full:
            del self._pending[: len(self._pending) - _FULL]
            return
        while len(self._pending) > _FULL and not self._closing:
            self._write_some(0.05)

    def flush(self) -> None:
        until = time.monotonic() + 1.0
        with self._lock:
            while self._pending and self._write_fd is not None and time.monotonic() < until:
                self._write_some(0.1)

    def abandon(self) -> None:
        """A guest that waits for room in the output waits no longer: the machine is ending."""
        self._closing = True

    def close(self) -> None:
        self.abandon()
        self.flush()
        if self._read_fd is not None and self._loop is not None:
            self._loop.remove_reader(self._read_fd)
        self._read_fd = self._write_fd = None


class Stdio(FdChardev):
    """Standard input and output; a terminal is put into raw mode from `start` to `close`."""

    def __init__(self, signals: bool = True) -> None:
        super().__init__(_open_fd(sys.stdin, 0), _open_fd(sys.stdout, 1))
        self.terminal = RawTerminal(0, signals)

    def start(self, loop: Loop) -> None:
        self.terminal.enter()
        super().start(loop)

    def _end_of_input(self, fd: int) -> None:
        was_terminal = self.terminal.active
        super()._end_of_input(fd)
        if was_terminal:  # raw mode has no end-of-file key, so this is a closed window or connection
            self.hang_up("terminal closed")

    def close(self) -> None:
        try:
            super().close()
        finally:
            self.terminal.leave()


def _open_fd(stream: object, fd: int) -> int | None:
    """`fd`, unless it was closed before we started."""
    try:
        os.fstat(fd)
    except OSError:
        return None
    return fd if stream is not None else None


class FileChardev(FdChardev):
    """`file:PATH`: output only, from the start of the file; or `/dev/...`, to the end of what is there."""

    def __init__(self, path: str, mode: int = os.O_CREAT | os.O_TRUNC) -> None:
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | mode, 0o666)
        except OSError as error:
            raise ChardevError(f"can't write '{path}': {error.strerror}") from error
        super().__init__(None, fd)
        self._fd = fd

    def close(self) -> None:
        super().close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Pty(FdChardev):
    """`pty`: a new pseudo-terminal whose name is printed."""

    drop_when_full = True  # nobody need ever open it

    def __init__(self, label: str) -> None:
        try:
            master, slave = os.openpty()
        except OSError as error:
            raise ChardevError(f"can't open a pseudo-terminal: {error.strerror}") from error
        super().__init__(master, master)
        tty.setraw(slave)
        os.set_blocking(master, False)
        self._fds = (master, slave)  # our own slave end keeps reads from failing while nobody has it open
        self.path = os.ttyname(slave)
        print(f"char device redirected to {self.path} (label {label})", file=sys.stderr)

    def close(self) -> None:
        super().close()
        for fd in self._fds:
            os.close(fd)
        self._fds = ()  # type: ignore[assignment]


_ESCAPE = 0x01  # Ctrl-A
_HELP = (
    "\r\nC-a h    print this help\r\nC-a x    exit emulator\r\nC-a b    send break\r\n"
    "C-a c    switch between console and monitor\r\nC-a C-a  send C-a\r\n"
)


class Mux:
    """Two front ends, the guest's serial port and the monitor, on one back end."""

    def __init__(self, backend: Chardev, quit_machine: Callable[[], None]) -> None:
        self.backend = backend
        self._quit = quit_machine
        self._escaped = False
        self.guest = MuxEnd(self)
        self.monitor = MuxEnd(self)
        self._focus = self.guest
        backend.on_input = self._input

    def _input(self, data: bytes) -> None:
        plain = bytearray()
        for byte in data:
            if self._escaped:
                self._escaped = False
                if byte == _ESCAPE:
                    plain.append(byte)
                else:
                    self._pass_on(plain)
                    self._command(byte)
            elif byte == _ESCAPE:
                self._escaped = True
            else:
                plain.append(byte)
        self._pass_on(plain)

    def _pass_on(self, plain: bytearray) -> None:
        if plain:
            self._focus.on_input(bytes(plain))
            plain.clear()

    def _command(self, byte: int) -> None:
        match chr(byte).lower():
            case "x":
                self.backend.write(b"\r\npyemu: terminated\r\n")
                self._quit()
            case "c":
                self._focus = self.monitor if self._focus is self.guest else self.guest
                self._focus.on_focus()
            case "h" | "?":
                self.backend.write(_HELP.encode())
            case "b":
                self._focus.on_break()


class MuxEnd(Chardev):
    """One of the two front ends."""

    def __init__(self, mux: Mux) -> None:
        super().__init__()
        self._mux = mux
        self.on_focus: Callable[[], None] = lambda: None

    def write(self, data: bytes) -> None:
        self._mux.backend.write(data)


def check_spec(spec: str) -> None:
    """Refuse, before anything is opened, what `open_chardev` doesn't know."""
    known = (
        "stdio, mon:stdio, file:PATH, /dev/NAME, pty, tcp:HOST:PORT[,server][,nowait], unix:PATH[,server][,nowait], "
        "null, none"
    )
    if spec in ("stdio", "mon:stdio", "pty", "null", "none"):
        return
    if spec.startswith(("tcp:", "unix:")):
        from pyemu.chardev_socket import parse_socket

        parse_socket(spec)
        return
    if any(spec.startswith(prefix) and len(spec) > len(prefix) for prefix in ("file:", "/dev/")):
        return
    raise ChardevError(f"unknown character device '{spec}' (known: {known})")


def open_chardev(spec: str, label: str) -> Chardev:
    """The back end that `spec` names; `mon:` has been taken off by the caller."""
    check_spec(spec)
    if spec == "stdio":
        return Stdio()
    if spec == "mon:stdio":
        return Stdio(signals=False)
    if spec == "pty":
        return Pty(label)
    if spec.startswith(("tcp:", "unix:")):
        from pyemu.chardev_socket import open_socket

        return open_socket(spec)
    if spec.startswith("file:"):
        return FileChardev(spec.removeprefix("file:"))
    if spec.startswith("/dev/"):
        return FileChardev(spec, os.O_APPEND | os.O_NOCTTY)
    return Chardev()
