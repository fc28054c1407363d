"""The log of a run: every event from outside with the moment at which it reached the guest, and now and then a check.

A moment is a number of instructions and a time: between two instructions only time that is skipped while the processor
is halted can tell two moments apart. A check has the state of the guest, to be compared when the run is replayed. In a
file it is one line of JSON an entry; a line that was cut short when recording ended badly is left out. Who makes events
and gives them again is `history`.
"""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass
from typing import IO, Any

from pyemu import __version__
from pyemu.firmware.files import empty, open_output, open_regular
from pyemu.snapshot_error import SnapshotError
from pyemu.snapshot_file import GUEST_OPTIONS

FORMAT = 1
_LONGEST_FIRST_LINE = 1 << 20  # characters: what isn't a recording need not be read whole
_LONGEST_LINE = 256 << 20  # a check names each page that has changed, in some 20 characters
_MOST_INSTRUCTIONS = 1 << 62


_PAGE_NUMBER = re.compile("[0-9a-f]{1,13}")


@dataclass(frozen=True, slots=True)
class Moment:
    """Instructions executed, and the clock in ns."""

    instructions: int
    ns: int

    def __lt__(self, other: Moment) -> bool:
        return (self.instructions, self.ns) < (other.instructions, other.ns)


@dataclass(frozen=True, slots=True)
class Event:
    """`data` has reached the guest from `source`."""

    moment: Moment
    source: str
    data: str  # bytes in hexadecimal for character devices, words for others


@dataclass(frozen=True, slots=True)
class Check:
    """The state of the guest at a moment (`check`)."""

    moment: Moment
    state: dict[str, Any]


Entry = Event | Check


class Recording:
    """Entries in order; those recorded also go to a file, if there is one."""

    def __init__(self, file: IO[str] | None = None, path: str = "") -> None:
        self.entries: list[Entry] = []
        self.end: Moment | None = None  # how far a file goes
        self.is_read = False  # from a file, and not gone beyond
        self._file = file
        self._first: dict[str, Any] | None = None  # what begin() writes
        self.path = path

    @classmethod
    def create(cls, path: str, options: dict[str, Any]) -> Recording:
        """An empty one, with a file whose first line will describe the machine."""
        try:
            file = open_output(path)
        except OSError as error:
            raise SnapshotError(f"can't record to {path}: {error.strerror or error}") from error
        recording = cls(file, path)
        recording._first = {"pyemu recording": FORMAT, "version": __version__, **options}
        return recording

    def begin(self) -> None:
        """The machine exists and is about to run: what was in the file may be lost now."""
        if self._file is not None and self._first is not None:
            first, self._first = self._first, None
            try:
                empty(self._file)
            except OSError as error:
                raise SnapshotError(f"can't record to {self.path}: {error.strerror or error}") from error
            self._write(first)

    def append(self, entry: Entry) -> None:
        self.entries.append(entry)
        if self._file is not None:
            self._write(_plain(entry))

    @property
    def is_kept(self) -> bool:
        """Whether it goes to a file."""
        return self._file is not None

    def close(self, end: Moment | None = None) -> None:
        """No more entries; `end` is how far the machine has come."""
        if self._file is not None:
            if end is not None:
                self._write({"i": end.instructions, "t": end.ns, "end": 1})
            file, self._file = self._file, None
            _close(file)

    def _write(self, line: dict[str, Any]) -> None:
        assert self._file is not None
        try:
            self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
            self._file.flush()
        except OSError as error:
            file, self._file = self._file, None
            _close(file)
            raise SnapshotError(f"recording to {self.path} has failed: {error.strerror or error}") from error


def _close(file: IO[str]) -> None:
    """Close a file that can't take what it still holds."""
    try:
        file.close()
    except OSError:
        return


def _plain(entry: Entry) -> dict[str, Any]:
    line: dict[str, Any] = {"i": entry.moment.instructions, "t": entry.moment.ns}
    match entry:
        case Event():
            return line | {"from": entry.source, "data": entry.data}
        case Check():
            return line | {"check": entry.state}


def _entry(line: dict[str, Any]) -> Entry:
    """Raises KeyError or TypeError for what nobody has recorded."""
    if "check" in line:
        return Check(_moment(line), _state(line["check"]))
    source, data = line["from"], line["data"]
    if not isinstance(source, str) or not isinstance(data, str):
        raise TypeError("an event is text")
    return Event(_moment(line), source, data)


def _moment(line: dict[str, Any]) -> Moment:
    count, ns = line["i"], line["t"]
    if type(count) is not int or type(ns) is not int or not 0 <= count < _MOST_INSTRUCTIONS or ns < 0:
        raise TypeError("a moment is two numbers")
    return Moment(count, ns)


def _state(state: Any) -> dict[str, Any]:
    """What `check.take` gives, as far as comparing relies on it."""
    for name, kind in (("registers", str), ("clock", object), ("devices", object), ("ram", int)):
        if not isinstance(state[name], dict) or not all(isinstance(value, kind) for value in state[name].values()):
            raise TypeError(f"a check has a dict of its {name}")
    if not all(_PAGE_NUMBER.fullmatch(number) for number in state["ram"]):
        raise TypeError("a page has a number")
    return dict(state)


def read(path: str) -> tuple[dict[str, Any], Recording]:
    """The description of the machine, and the recording."""
    try:
        with io.TextIOWrapper(open_regular(path), encoding="ascii") as file:
            first = _line(file.readline(_LONGEST_FIRST_LINE))
            if first is None or "pyemu recording" not in first:
                raise SnapshotError(f"{path} is not a recording of pyemu's")
            if first["pyemu recording"] != FORMAT:
                raise SnapshotError(
                    f"recording {path} has format {first['pyemu recording']}; this pyemu reads format {FORMAT}"
                )
            config = first.get("config")
            if not isinstance(config, dict) or set(config) != set(GUEST_OPTIONS) or "wall_start_ns" not in first:
                raise SnapshotError(f"recording {path} doesn't say what machine it is of")
            recording = Recording(path=path)
            recording.is_read = True
            while text := file.readline(_LONGEST_LINE):
                line = _line(text)
                if line is None:
                    break
                if "end" in line:
                    recording.end = _moment(line)
                else:
                    recording.entries.append(_entry(line))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise SnapshotError(f"can't read recording {path}: {reason}") from error
    except (KeyError, TypeError) as error:
        raise SnapshotError(f"recording {path} is damaged") from error
    return first, recording


def _line(text: str) -> dict[str, Any] | None:
    """An entry of the file; None for one that was cut short."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None

