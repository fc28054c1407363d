"""Character devices on sockets: `tcp:HOST:PORT` and `unix:PATH`, with the options `server`, `nowait` and `nodelay`.

Without `server` they connect. With it they listen, one client at a time, and unless `nowait` (or `wait=off`) is given
the first one is waited for.
"""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass

from pyemu.chardev import ChardevError, FdChardev, Loop
from pyemu.socket_file import SocketFile

_CONNECT_TIMEOUT_S = 10
_LONGEST_PATH = 107  # bytes of sun_path, without the final 0 (unix(7))


@dataclass(frozen=True)
class SocketSpec:
    """What a specification says; `path` is empty for TCP."""

    host: str = ""
    port: int = 0
    path: str = ""
    server: bool = False
    wait: bool = True
    nodelay: bool = False

    @property
    def where(self) -> str:
        return f"unix:{self.path}" if self.path else f"tcp:{self.host or '0.0.0.0'}:{self.port}"


def parse_socket(spec: str) -> SocketSpec:
    """Read a specification; ChardevError says what is wrong with it."""
    kind, _, rest = spec.partition(":")
    address, *options = rest.split(",")
    server, wait, nodelay = False, True, False
    for option in options:
        match option:
            case "server" | "server=on":
                server = True
            case "server=off" | "nodelay=off" | "wait" | "wait=on":
                pass
            case "nowait" | "wait=off":
                wait = False
            case "nodelay" | "nodelay=on" if kind == "tcp":
                nodelay = True
            case _:
                raise ChardevError(f"unknown option '{option}' in '{spec}' (known: server, nowait, nodelay)")
    if kind == "unix":
        if not address or len(os.fsencode(address)) > _LONGEST_PATH:
            raise ChardevError(f"'{spec}' is not unix:PATH, with a path of at most {_LONGEST_PATH} bytes")
        return SocketSpec(path=address, server=server, wait=wait)
    host, colon, port_text = address.rpartition(":")
    if not colon or not (port_text.isascii() and port_text.isdigit()) or int(port_text) > 0xFFFF:
        raise ChardevError(f"'{spec}' is not tcp:HOST:PORT")
    return SocketSpec(host.strip("[]"), int(port_text), "", server, wait, nodelay)


def open_socket(spec: str) -> SocketChardev:
    return SocketChardev(parse_socket(spec))


class SocketChardev(FdChardev):
    """One end of a connection, or a server with one client at a time."""

    drop_when_full = False

    def __init__(self, spec: SocketSpec) -> None:
        super().__init__(None, None)
        self._spec = spec
        self._peer: socket.socket | None = None
        self._listener: socket.socket | None = None
        self._file: SocketFile | None = None
        self.port = spec.port
        try:
            if spec.server:
                self._listen()
            else:
                self._connected(self._connect())
        except (OSError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise ChardevError(f"{spec.where}: {reason}") from error

    def _listen(self) -> None:
        spec = self._spec
        if spec.path:
            self._file = SocketFile(spec.path)
            self._listener = self._file.listener
            where = spec.path
        else:
            self._listener = socket.create_server((spec.host, spec.port))
            self.port = self._listener.getsockname()[1]
            where = f"{spec.host or '0.0.0.0'}:{self.port}"
        if spec.wait:
            print(f"pyemu: waiting for a connection on {where}", file=sys.stderr)
            self._accept()
        else:
            self._listener.setblocking(False)

    def _connect(self) -> socket.socket:
        spec = self._spec
        if not spec.path:
            return socket.create_connection((spec.host or "localhost", spec.port), timeout=_CONNECT_TIMEOUT_S)
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            peer.connect(spec.path)
        except OSError:
            peer.close()
            raise
        return peer

    def _connected(self, peer: socket.socket) -> None:
        peer.setblocking(False)
        if self._spec.nodelay:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._peer = peer
            self._read_fd = self._write_fd = peer.fileno()
            self._pending.clear()
        if self._loop is not None:
            self._loop.add_reader(peer.fileno(), self._readable)
            self.on_open()

    def _accept(self) -> None:
        if self._listener is None:
            return
        try:
            peer, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        if self._peer is not None:
            peer.close()  # one client at a time
            return
        self._connected(peer)

    def start(self, loop: Loop) -> None:
        super().start(loop)
        if self._listener is not None:
            self._listener.setblocking(False)
            loop.add_reader(self._listener.fileno(), self._accept)

    def _end_of_input(self, fd: int) -> None:
        super()._end_of_input(fd)
        with self._lock:
            self._disconnect()

    def _write_failed(self, error: OSError) -> None:
        if self._read_fd is not None and self._loop is not None:
            self._loop.remove_reader(self._read_fd)
        self._read_fd = None
        self._disconnect()

    def disconnect(self) -> None:
        """Send the client away, after what has been written."""
        with self._lock:
            self._write_some(0.1)
            if self._read_fd is not None:
                self._write_failed(OSError())

    def _disconnect(self) -> None:
        """The client left: the port is dead until the next one comes."""
        self._write_fd = None
        self._pending.clear()
        if self._peer is not None:
            self._peer.close()
            self._peer = None

    def close(self) -> None:
        super().close()
        if self._listener is not None:
            if self._loop is not None:
                self._loop.remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None
        if self._file is not None:
            self._file.close()
        if self._peer is not None:
            self._peer.close()
            self._peer = None
