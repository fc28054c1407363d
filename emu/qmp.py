"""QMP, QEMU's machine protocol: JSON objects over a character device, `-qmp tcp:...` or `-qmp unix:...`.

Here is the protocol: messages, negotiation, errors, events. The commands are in `qmp_commands`. What comes in is
distrusted: a message has a largest size and depth, and whoever doesn't read is cut off.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pyemu import __version__
from pyemu.chardev import Chardev, FdChardev
from pyemu.snapshot_error import SnapshotError

if TYPE_CHECKING:
    from pyemu.machine import Machine

LARGEST = 1 << 20  # bytes of a message
DEEPEST = 64  # objects and lists in each other
_BLANK = b" \t\r\n"
# What a scanner has to look at inside an object.
_SPECIAL = re.compile(rb'["\\{}\[\]]')
_STRING_END = re.compile(rb'["\\]')
GENERIC, NOT_FOUND = "GenericError", "CommandNotFound"


class QmpError(Exception):
    """An error reply."""

    def __init__(self, text: str, kind: str = GENERIC) -> None:
        super().__init__(text)
        self.kind = kind


class Messages:
    """Cuts a stream of bytes into JSON values that begin with { or [."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._at = 0  # how far it has been looked at
        self._depth = 0
        self._in_string = False

    def feed(self, data: bytes) -> Iterator[bytes | QmpError]:
        """Whole messages, and errors for what can't be one; after an error everything that has come is forgotten."""
        self._data += data
        while True:
            if self._depth == 0 and not self._begin():
                if self._data:
                    yield self._forget("JSON parse error, expecting value")
                return
            end = self._scan()
            if end < 0:
                if self._depth > DEEPEST:
                    yield self._forget(f"JSON parse error, nested deeper than {DEEPEST}")
                elif len(self._data) > LARGEST:
                    yield self._forget(f"JSON parse error, message is longer than {LARGEST} bytes")
                return
            message = bytes(self._data[:end])
            del self._data[:end]
            self._at = 0
            yield message

    def _forget(self, why: str) -> QmpError:
        self._data.clear()
        self._at = self._depth = 0
        self._in_string = False
        return QmpError(why)

    def _begin(self) -> bool:
        """Skip what may stand between messages; is there the begin of one?"""
        start = len(self._data) - len(self._data.lstrip(_BLANK))
        del self._data[:start]
        self._at = 0
        return bool(self._data) and self._data[0] in b"{["

    def _scan(self) -> int:
        """Where the message ends, or -1."""
        while True:
            match = (_STRING_END if self._in_string else _SPECIAL).search(self._data, self._at)
            if match is None:
                self._at = len(self._data)
                return -1
            mark = match[0]
            self._at = match.end()
            if mark == b"\\" and self._in_string:
                if self._at == len(self._data):
                    self._at -= 1  # what it escapes is still to come
                    return -1
                self._at += 1
            elif mark == b'"':
                self._in_string = not self._in_string
            elif mark in (b"{", b"["):
                self._depth += 1
                if self._depth > DEEPEST:
                    return -1
            elif mark in (b"}", b"]"):
                self._depth -= 1
                if self._depth == 0:
                    return self._at


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def parse(message: bytes) -> Any:
    """One message; QmpError if it isn't JSON."""
    try:
        return json.loads(message.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise QmpError("JSON parse error, invalid message") from error


class QmpServer:
    """One QMP monitor. Messages are served on the I/O thread; events come from any."""

    def __init__(self, machine: Machine, chardev: Chardev) -> None:
        self._machine = machine
        self._chardev = chardev
        self._messages = Messages()
        self._negotiated = False
        if isinstance(chardev, FdChardev):
            chardev.close_when_full = True
        chardev.on_open = self._opened
        chardev.on_input = self._input

    def _opened(self) -> None:
        """A client is there: greet it."""
        self._messages = Messages()
        self._negotiated = False
        major, minor, micro = (int(part) for part in __version__.split("."))
        version = {"qemu": {"major": major, "minor": minor, "micro": micro}, "package": f"pyemu {__version__}"}
        self._send({"QMP": {"version": version, "capabilities": []}})

    def _send(self, message: dict[str, Any]) -> None:
        self._chardev.write(json.dumps(message).encode() + b"\r\n")

    def event(self, name: str, data: dict[str, Any]) -> None:
        """Tell the client of something, once it has negotiated."""
        if not self._negotiated:
            return
        seconds, microseconds = divmod(time.time_ns() // 1000, 1_000_000)
        message: dict[str, Any] = {"timestamp": {"seconds": seconds, "microseconds": microseconds}, "event": name}
        if data:
            message["data"] = data
        self._send(message)

    def _input(self, data: bytes) -> None:
        for message in self._messages.feed(data):
            if isinstance(message, QmpError):
                self._send(_error(message))
            else:
                self._serve(message)

    def _serve(self, message: bytes) -> None:
        answer: dict[str, Any] = {}
        request: Any = None
        try:
            request = parse(message)
            name, arguments = self._checked(request)
            answer = {"return": self._execute(name, arguments)}
        except QmpError as error:
            answer = _error(error)
        except SnapshotError as error:
            answer = _error(QmpError(str(error)))
        if isinstance(request, dict) and "id" in request:
            answer["id"] = request["id"]
        self._send(answer)

    def _checked(self, request: Any) -> tuple[str, dict[str, Any]]:
        if not isinstance(request, dict):
            raise QmpError("QMP input must be a JSON object")
        for key, value in request.items():
            if key == "execute" and not isinstance(value, str):
                raise QmpError("QMP input member 'execute' must be a string")
            if key == "arguments" and not isinstance(value, dict):
                raise QmpError("QMP input member 'arguments' must be an object")
            if key not in ("execute", "arguments", "id"):
                raise QmpError(f"QMP input member '{key}' is unexpected")
        if "execute" not in request:
            raise QmpError("QMP input lacks member 'execute'")
        return request["execute"], request.get("arguments", {})

    def _execute(self, name: str, arguments: dict[str, Any]) -> Any:
        from pyemu.qmp_commands import COMMANDS, checked_arguments

        if name == "qmp_capabilities":
            return self._negotiate(arguments)
        if not self._negotiated:
            raise QmpError("Expecting capabilities negotiation with 'qmp_capabilities'", NOT_FOUND)
        command = COMMANDS.get(name)
        if command is None:
            raise QmpError(f"The command {name} has not been found", NOT_FOUND)
        return command.function(self._machine, **checked_arguments(command, arguments))

    def _negotiate(self, arguments: dict[str, Any]) -> Any:
        if self._negotiated:
            raise QmpError("Capabilities negotiation is already complete, command ignored", NOT_FOUND)
        wanted = arguments.get("enable", [])
        if wanted or arguments.keys() - {"enable"}:
            raise QmpError("There are no capabilities that could be enabled")
        self._negotiated = True
        return {}


def _error(error: QmpError) -> dict[str, Any]:
    return {"error": {"class": error.kind, "desc": str(error)}}
