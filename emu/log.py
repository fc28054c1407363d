"""The log behind `-d LIST` and `-D FILE`: which items are on, and where lines go."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TextIO

# Names and meanings are QEMU's.
ITEMS = {
    "in_asm": "show guest instructions when they are first run",
    "exec": "show the address of each instruction run (slow)",
    "cpu": "show the registers before each instruction (slow)",
    "int": "show interrupts and exceptions",
    "guest_errors": "log invalid accesses by the guest to devices",
    "unimp": "log accesses to what is not emulated",
}

# A guest can make log lines as fast as it can make port accesses; no item may fill the disk with repetitions.
_REPEAT_LIMIT = 1000


class LogError(Exception):
    """Unknown item or unusable file (message is fit for the user)."""


def parse_items(text: str) -> frozenset[str]:
    """`int,unimp` as a set."""
    items = [item.strip() for item in text.split(",") if item.strip()]
    for item in items:
        if item not in ITEMS:
            raise LogError(f"unknown -d item '{item}' (known: {', '.join(ITEMS)})")
    return frozenset(items)


class Log:
    """Cheap when off: callers test `item in log.items` or just call `write`."""

    def __init__(self, items: frozenset[str] = frozenset(), path: str | None = None) -> None:
        self.items = items
        self._stream: TextIO | None = None
        self._counts: dict[str, int] = {}
        if path is not None:
            self.redirect(path)

    def redirect(self, path: str) -> None:
        """Write to another file from now on."""
        from pyemu.firmware.files import empty, open_output  # only here: -h and -d help load this module

        try:
            stream = open_output(path)
            empty(stream)
        except OSError as error:
            raise LogError(f"can't write log file '{path}': {error.strerror or error}") from error
        stream.reconfigure(line_buffering=True)
        self.close()
        self._stream = stream

    def write(self, item: str, line: str) -> None:
        if item not in self.items:
            return
        self._print(line)

    def _print(self, line: str) -> None:
        try:
            print(line, file=self._stream or sys.stderr)
        except (OSError, ValueError) as error:  # a full disk, a pipe that nobody reads: the guest goes on without
            self.items = frozenset()
            if self._stream is not None:
                self.close()
                print(f"pyemu: the log ends here: {getattr(error, 'strerror', None) or error}", file=sys.stderr)

    def write_limited(self, item: str, line: str) -> None:
        """For events that a guest can repeat for ever: the same line is shown a limited number of times."""
        if item not in self.items:
            return
        if len(self._counts) >= 4 * _REPEAT_LIMIT:
            self._counts.clear()
        count = self._counts.get(line, 0) + 1
        self._counts[line] = count
        if count <= _REPEAT_LIMIT:
            self._print(line)
        elif count == _REPEAT_LIMIT + 1:
            self._print(f"{line} (repeated {_REPEAT_LIMIT} times; no longer shown)")

    def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            with suppress(OSError):  # what it still holds doesn't fit
                stream.close()
