"""The monitor behind Ctrl-A c: its prompt, on a character device of its own or beside the guest's.

Its commands are in `monitor_table`. Plain text is taken as it comes, so that a script can talk to the monitor through a
pipe or a socket; the first key that asks for more (cursor keys, Tab, Ctrl-R ...) brings the line editor (`lineedit`).
Commands run on the I/O thread, or then on the editor's; those that look at the processor stop it meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyemu.chardev import Chardev, MuxEnd
from pyemu.monitor_table import Session

if TYPE_CHECKING:
    from pyemu.lineedit import LineEditor
    from pyemu.machine import Machine
    from pyemu.until import Stop

_PROMPT = "(pyemu) "
_MAX_LINE = 1024
_MOST_REMEMBERED = 1000  # lines
_RETURN, _NEWLINE, _BACKSPACE, _DELETE, _CTRL_C, _CTRL_U = 0x0D, 0x0A, 0x08, 0x7F, 0x03, 0x15
# Tab and Escape, and of the control keys: A B D E F G K L N P R S T W X Y _
_EDITING = frozenset((0x09, 0x1B, 1, 2, 4, 5, 6, 7, 11, 12, 14, 16, 18, 19, 20, 23, 24, 25, 0x1F))


class Monitor:
    """One prompt."""

    def __init__(self, machine: Machine, chardev: Chardev) -> None:
        self.session = Session(machine)
        self._chardev = chardev
        self._line = ""
        self._history: list[str] = []
        self._last_was_return = False
        self._editor: LineEditor | None = None
        self._closed = False
        chardev.on_input = self._input
        if isinstance(chardev, MuxEnd):
            chardev.on_focus = self._focused
        else:
            chardev.on_open = self._opened

    def _opened(self) -> None:
        """Somebody is there, perhaps somebody else than before."""
        if self._editor is not None:
            self._editor.close()
            self._editor = None
        self._line = ""
        self._focused()

    def close(self) -> None:
        self._closed = True
        if self._editor is not None:
            self._editor.close()

    def stopped(self, stop: Stop) -> None:
        """The guest has stopped: say why, if a breakpoint or the like is the reason."""
        if stop.hook is None:
            return
        from pyemu.monitor_break import describe_stop

        text = describe_stop(self.session.machine, stop)
        if text:
            self._write(f"\r\x1b[K{text}\r\n")
            self._prompt()

    def _prompt(self) -> None:
        """Show the line again."""
        if self._editor is not None:
            self._editor.redraw()
        else:
            self._write(f"{_PROMPT}{self._line}")

    def _focused(self) -> None:
        self._write("\r\npyemu monitor - type 'help' for more information\r\n")
        self._prompt()

    def _write(self, text: str) -> None:
        self._chardev.write(text.encode())

    def _input(self, data: bytes) -> None:
        for at, byte in enumerate(data):
            if self._editor is None and byte in _EDITING and not self._closed:
                self._start_editor()
            if self._editor is not None:
                self._editor.feed(data[at:])
                return
            self._key(byte)

    def _start_editor(self) -> None:
        from pyemu.completion import complete
        from pyemu.lineedit import LineEditor

        self._write("\r\x1b[K")  # it draws the line anew
        session = self.session
        editor = LineEditor(
            _PROMPT, self._chardev.write, self._answer, lambda line: complete(session, line), self._history
        )
        editor.start(self._line)
        self._line, self._editor = "", editor

    def _key(self, byte: int) -> None:
        after_return, self._last_was_return = self._last_was_return, byte == _RETURN
        if byte == _NEWLINE and after_return:
            return
        if byte in (_RETURN, _NEWLINE):
            self._write("\r\n")
            line, self._line = self._line, ""
            self._answer(line)
            self._write(_PROMPT)
        elif byte in (_BACKSPACE, _DELETE):
            if self._line:
                self._line = self._line[:-1]
                self._write("\b \b")
        elif byte in (_CTRL_U, _CTRL_C):
            self._write("\b \b" * len(self._line))
            self._line = ""
        elif 0x20 <= byte < 0x7F and len(self._line) < _MAX_LINE:
            self._line += chr(byte)
            self._write(chr(byte))

    def _answer(self, line: str) -> None:
        if line.strip():
            self._history.append(line)
            del self._history[:-_MOST_REMEMBERED]
        for reply in self.execute(line).splitlines():
            self._write(reply + "\r\n")

    def execute(self, line: str) -> str:
        """Run one command; the reply, possibly empty."""
        return self.session.execute(line)
