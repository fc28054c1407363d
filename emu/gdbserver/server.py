"""Where gdb connects: `-gdb tcp::1234`, `tcp:HOST:PORT`, `unix:PATH`, `stdio`, and the thread that serves it.

Without a host name only this computer can connect (QEMU listens to all the world): whoever connects controls the
guest. One gdb at a time; the guest runs on when it detaches, and stays as it is when its connection breaks. The server
never waits for a client without an end.
"""

from __future__ import annotations

import os
import queue
import select
import socket
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyemu.chardev import ChardevError
from pyemu.config import ConfigError
from pyemu.gdbserver.packets import Packet, Reader, Signal, frame
from pyemu.gdbserver.session import Session, Settings
from pyemu.socket_file import SocketFile
from pyemu.until import Stop

if TYPE_CHECKING:
    from pyemu.machine import Machine

_PATIENCE_S = 5.0  # for a client that doesn't read
_READ_SIZE = 65536
_FORMS = "tcp::PORT, tcp:HOST:PORT, unix:PATH, stdio or none"
# What QEMU's manual has people write behind the address: that it is a server that doesn't wait is always so.
_SUFFIXES = frozenset({"server", "nowait", "server=on", "wait=off", "nodelay", "nodelay=on"})


@dataclass(frozen=True)
class Place:
    """Where to listen."""

    kind: str  # tcp, unix, stdio, none
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return {"tcp": f"tcp:{host}:{self.port}", "unix": f"unix:{self.path}"}.get(self.kind, self.kind)


def parse_place(text: str) -> Place:
    """What follows -gdb; ConfigError if it is none of the forms."""
    address, *suffixes = text.split(",")
    kind, _, rest = address.partition(":")
    unknown = [suffix for suffix in suffixes if suffix not in _SUFFIXES]
    if unknown:
        raise ConfigError(f"-gdb {text}: unknown property '{unknown[0]}'")
    if address in ("stdio", "none"):
        return Place(address)
    if kind == "unix" and rest:
        return Place("unix", path=rest)
    host, colon, port = rest.rpartition(":")
    if kind != "tcp" or not colon:
        raise ConfigError(f"-gdb {text}: not understood (known: {_FORMS})")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 0xFFFF):
        raise ConfigError(f"-gdb {text}: '{port}' is not a port number")
    return Place("tcp", host=host.removeprefix("[").removesuffix("]") or "localhost", port=int(port))


class Connection:
    """Bytes from and to one gdb."""

    def __init__(self, read_fd: int, write_fd: int, owner: socket.socket | None = None) -> None:
        self.read_fd, self._write_fd, self._socket = read_fd, write_fd, owner
        os.set_blocking(write_fd, False)

    def read(self) -> bytes:
        """What is there; nothing at the end."""
        try:
            return os.read(self.read_fd, _READ_SIZE)
        except OSError:
            return b""

    def write(self, data: bytes) -> None:
        """OSError if the client is gone, or doesn't read."""
        deadline = time.monotonic() + _PATIENCE_S
        while data:
            try:
                data = data[os.write(self._write_fd, data) :]
            except BlockingIOError:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError("gdb doesn't read") from None
                select.select((), [self._write_fd], (), left)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()


class GdbServer:
    """Listens from the start, serves from `start` on."""

    def __init__(self, machine: Machine, place: Place) -> None:
        self._machine = machine
        self._place = place
        self._file: SocketFile | None = None
        self._listener: socket.socket | None = None
        self._connection: Connection | None = None
        self._session: Session | None = None
        self._settings = Settings()
        self._reader = Reader()
        self._last = b""  # the packet sent last, should it be asked for again
        self._stops: queue.SimpleQueue[Stop] = queue.SimpleQueue()
        self._closing = False
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._thread = threading.Thread(target=self._main, name="pyemu-gdb", daemon=True)
        self.address = str(place)  # with the port that was chosen, if any would do
        try:
            self._listen()
        except OSError as error:
            self._close_pipe()
            if self._listener is not None:
                self._listener.close()
            raise ChardevError(f"-gdb {place}: {error.strerror or error}") from error

    def _listen(self) -> None:
        place = self._place
        if place.kind == "unix":
            self._file = SocketFile(place.path)
            self._listener = self._file.listener
        elif place.kind == "tcp":
            family, _, _, _, where = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)[0]
            self._listener = socket.socket(family)
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind(where)
            self._listener.listen(1)
            port = int(self._listener.getsockname()[1])
            self.address = str(Place("tcp", host=place.host, port=port))

    def start(self) -> None:
        self._machine.stop_listeners.append(self._stopped)
        if self._place.kind == "stdio":
            self._begin(Connection(0, 1))
        else:
            where = self.address.removeprefix("tcp:").removeprefix("unix:")
            print(f"pyemu: gdb: target remote {where}", file=sys.stderr)
        self._thread.start()

    def close(self) -> None:
        """End the thread, from another one."""
        self._closing = True
        self._wake()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout=2.0)
        if self._file is not None:
            self._file.close()
        elif self._listener is not None:
            self._listener.close()
        if not self._thread.is_alive():
            self._close_pipe()

    def _close_pipe(self) -> None:
        for fd in (self._wake_read, self._wake_write):
            if fd >= 0:
                os.close(fd)
        self._wake_read = self._wake_write = -1

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b"!")
        except OSError:
            return  # full: it will wake anyway; closed: nobody is there

    def _stopped(self, stop: Stop) -> None:
        """On the vCPU's thread."""
        self._stops.put(stop)
        self._wake()

    # ---- the thread ----------------------------------------------------------------------------------------------
    def _main(self) -> None:
        while not self._closing:
            try:
                self._once()
            except Exception as error:  # which must not end the guest, nor keep the next gdb out
                print(f"pyemu: gdb server: internal error: {type(error).__name__}: {error}", file=sys.stderr)
                if self._connection is None:  # it will not get better
                    break
                self._drop()
        self._tell_end()
        self._drop()

    def _once(self) -> None:
        waiting = [self._wake_read]
        if self._listener is not None:
            waiting.append(self._listener.fileno())
        if self._connection is not None:
            waiting.append(self._connection.read_fd)
        ready = select.select(waiting, (), ())[0]
        if self._wake_read in ready:
            os.read(self._wake_read, 4096)
        self._tell_stops()
        if self._listener is not None and self._listener.fileno() in ready:
            self._accept(self._listener)
        elif self._connection is not None and self._connection.read_fd in ready:
            self._receive(self._connection)

    def _accept(self, listener: socket.socket) -> None:
        client, _ = listener.accept()
        if self._connection is not None:
            client.close()  # one at a time
            return
        if client.family != socket.AF_UNIX:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._begin(Connection(client.fileno(), client.fileno(), client))

    def _begin(self, connection: Connection) -> None:
        self._connection, self._reader = connection, Reader()
        self._session = Session(self._machine, self._send, self._settings)
        self._session.begin()
        while not self._stops.empty():
            self._stops.get()  # from before

    def _drop(self) -> None:
        """The client is gone."""
        if self._session is not None:
            self._session.end()
        if self._connection is not None:
            self._connection.close()
            if self._place.kind == "stdio" and not self._closing:
                self._machine.quit()  # nobody will come again
        self._connection = self._session = None

    def _receive(self, connection: Connection) -> None:
        data = connection.read()
        if not data:
            self._drop()
            return
        for item in self._reader.feed(data):
            session = self._session
            if session is None:
                return
            self._item(session, item)
            if session.over:
                self._drop()
                return

    def _item(self, session: Session, item: Packet | Signal) -> None:
        if item is Signal.INTERRUPT:
            session.interrupt()
        elif item is Signal.SEND_AGAIN:
            self._raw(self._last)
        elif item is Signal.DAMAGED:
            if session.acknowledging:
                self._raw(b"-")
        elif isinstance(item, Packet):
            if session.acknowledging:
                self._raw(b"+")
            reply = session.handle(item.payload)
            if reply is not None:
                self._send(reply)

    def _tell_stops(self) -> None:
        while not self._stops.empty():
            stop = self._stops.get()
            if self._session is not None and (reply := self._session.stopped(stop)) is not None:
                self._send(reply)

    def _tell_end(self) -> None:
        """A guest that is over as this ends: gdb waits to hear so."""
        self._tell_stops()
        final = self._machine.loop.final
        if final is not None and self._session is not None:
            if (reply := self._session.stopped(final)) is not None:
                self._send(reply)

    def _send(self, payload: bytes) -> None:
        self._last = frame(payload)
        self._raw(self._last)

    def _raw(self, data: bytes) -> None:
        if self._connection is not None:
            try:
                self._connection.write(data)
            except OSError:
                self._drop()
