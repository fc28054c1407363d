"""The monitor behind Ctrl-A c: its prompt, on a character device of its own or beside the guest's.

Its commands are in `monitor_table`. Plain text is taken as it comes, so that a script can talk to the monitor through a
pipe or a socket; the first key that asks for more (cursor keys, Tab, Ctrl-R ...) brings the line editor (`lineedit`).
Commands run on the I/O thread, or then on the editor's; those that look at the processor stop it meanwhile. Those that
may take long (`Command.long`) run on a thread of their own, so that Ctrl-C is heard.
"""

from __future__ import annotations

import threading
import time
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
_MOST_TYPED_AHEAD = 4096  # bytes, while a command runs
_PROGRESS_S = 1.0
_ERASE = "\r\x1b[K"
_RETURN, _NEWLINE, _BACKSPACE, _DELETE, _CTRL_C, _CTRL_U = 0x0D, 0x0A, 0x08, 0x7F, 0x03, 0x15
# Tab and Escape, and of the control keys: A B D E F G K L N P R S T W X Y _
_EDITING = frozenset((0x09, 0x1B, 1, 2, 4, 5, 6, 7, 11, 12, 14, 16, 18, 19, 20, 23, 24, 25, 0x1F))


class Monitor:
    """One prompt."""

    def __init__(self, machine: Machine, chardev: Chardev) -> None:
        self.session = Session(machine)
        self.session.listens = True
        self.session.progress = self._progress
        self._told = 0.0  # when progress was shown last, or a command began
        self._shows_progress = False
        self._keys = threading.RLock()  # input is taken by one thread at a time
        self._aside: threading.Thread | None = None  # runs a long command
        self._ahead = bytearray()  # typed meanwhile
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
        self._ahead.clear()
        self._focused()

    def close(self) -> None:
        self._closed = True
        self.session.interrupt.set()
        if self._editor is not None:
            self._editor.close()
        aside = self._aside
        if aside is not None and aside is not threading.current_thread():
            aside.join(timeout=2.0)

    def stopped(self, stop: Stop) -> None:
        """The guest has stopped: say why, if a breakpoint or the like is the reason."""
        if stop.hook is None:
            return
        from pyemu.monitor_break import describe_stop

        text = describe_stop(self.session.machine, stop)
        if text:
            self._write(f"{_ERASE}{text}\r\n")
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
        with self._keys:
            self._take(data)

    def _take(self, data: bytes) -> None:
        for at, byte in enumerate(data):
            if self._aside is not None:
                self._type_ahead(data[at:])
                return
            if self._editor is None and byte in _EDITING and not self._closed:
                self._start_editor()
            if self._editor is not None:
                self._editor.feed(data[at:])
                return
            self._key(byte)

    def _start_editor(self) -> None:
        from pyemu.completion import complete
        from pyemu.lineedit import LineEditor

        self._write(_ERASE)  # it draws the line anew
        session = self.session
        editor = LineEditor(
            _PROMPT, self._chardev.write, self._answer, lambda line: complete(session, line), self._history,
            session.interrupt,
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
            if self.session.is_long(line):
                self._begin_aside(line)
                return
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

    # ---- long commands ---------------------------------------------------------------------------------------------
    def _begin_aside(self, line: str) -> None:
        self.session.interrupt.clear()
        self._aside = threading.Thread(target=self._run_aside, args=(line,), name="pyemu-monitor-command", daemon=True)
        self._aside.start()

    def _run_aside(self, line: str) -> None:
        self._answer(line)
        with self._keys:
            self._aside = None
            ahead, self._ahead = bytes(self._ahead), bytearray()
            if not self._closed:
                self._write(_PROMPT)
                self._take(ahead)

    def _type_ahead(self, data: bytes) -> None:
        if _CTRL_C in data:
            self.session.interrupt.set()
            self._ahead.clear()
            data = data.rpartition(bytes((_CTRL_C,)))[2]
        self._ahead += data[: _MOST_TYPED_AHEAD - len(self._ahead)]

    def _progress(self, text: str) -> None:
        """A line that the next one replaces."""
        now = time.monotonic()
        if now - self._told >= _PROGRESS_S:
            self._told, self._shows_progress = now, True
            self._write(f"{_ERASE}{text} (Ctrl-C ends it here)")

    def _answer(self, line: str) -> None:
        if line.strip():
            self._history.append(line)
            del self._history[:-_MOST_REMEMBERED]
        self._told = time.monotonic()
        replies = self.execute(line).splitlines()
        if self._shows_progress:
            self._shows_progress = False
            self._write(_ERASE)
        for reply in replies:
            self._write(reply + "\r\n")

    def execute(self, line: str) -> str:
        """Run one command; the reply, possibly empty."""
        return self.session.execute(line)
