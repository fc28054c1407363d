"""The monitor behind Ctrl-A c: its prompt, on a character device of its own or beside the guest's.

Its commands are in `monitor_table`. They run on the I/O thread; those that look at the processor stop it meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyemu.chardev import Chardev, MuxEnd
from pyemu.monitor_table import Session

if TYPE_CHECKING:
    from pyemu.machine import Machine

_PROMPT = "(pyemu) "
_MAX_LINE = 1024


class Monitor:
    """One prompt."""

    def __init__(self, machine: Machine, chardev: Chardev, prompt_at_start: bool = False) -> None:
        self.session = Session(machine)
        self._chardev = chardev
        self._line = ""
        self._escape = 0  # inside an escape sequence of the terminal: how far
        self._last_was_return = False
        self._prompt_at_start = prompt_at_start
        chardev.on_input = self._input
        if isinstance(chardev, MuxEnd):
            chardev.on_focus = self._focused

    def start(self) -> None:
        if self._prompt_at_start:
            self._focused()

    def _focused(self) -> None:
        self._write(f"\r\npyemu monitor - type 'help' for more information\r\n{_PROMPT}{self._line}")

    def _write(self, text: str) -> None:
        self._chardev.write(text.encode())

    def _input(self, data: bytes) -> None:
        for byte in data:
            self._key(byte)

    def _key(self, byte: int) -> None:
        after_return, self._last_was_return = self._last_was_return, byte == 0x0D
        if self._escape:
            # ESC [ parameters final: cursor keys and the like, which mean nothing here
            self._escape = 2 if (self._escape == 1 and byte in b"[O") else 0 if byte >= 0x40 else self._escape
        elif byte == 0x1B:
            self._escape = 1
        elif byte == 0x0A and after_return:
            return
        elif byte in (0x0D, 0x0A):
            self._write("\r\n")
            line, self._line = self._line, ""
            for reply in self.execute(line).splitlines():
                self._write(reply + "\r\n")
            self._write(_PROMPT)
        elif byte in (0x08, 0x7F):
            if self._line:
                self._line = self._line[:-1]
                self._write("\b \b")
        elif byte in (0x15, 0x03):  # Ctrl-U, Ctrl-C
            self._write("\b \b" * len(self._line))
            self._line = ""
        elif 0x20 <= byte < 0x7F and len(self._line) < _MAX_LINE:
            self._line += chr(byte)
            self._write(chr(byte))

    def execute(self, line: str) -> str:
        """Run one command; the reply, possibly empty."""
        return self.session.execute(line)
