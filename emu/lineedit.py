"""Line editing with history and completion, by prompt_toolkit, on any character device.

The library has a thread of its own, which is fed through a pipe; what it draws goes to the device. It takes a fifth of
a second to import, so the monitor starts it when a key is typed that asks for more than plain text.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prompt_toolkit.completion import CompleteEvent, Completion
    from prompt_toolkit.document import Document

_SIZE = (24, 80)  # of a terminal that can't be asked
_TERMINAL = "xterm"
_CTRL_C = b"\x03"


@dataclass(frozen=True)
class _Screen:
    """What the library takes for the terminal's file."""

    send: Callable[[bytes], None]
    encoding: str = "utf-8"

    def write(self, text: str) -> int:
        self.send(text.encode("utf-8", "replace"))
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True


class LineEditor:
    """Reads lines until it is closed. `execute` is called for each, on the editor's thread."""

    def __init__(
        self,
        prompt: str,
        send: Callable[[bytes], None],
        execute: Callable[[str], None],
        complete: Callable[[str], list[str]],
        history: Iterable[str],
        interrupt: threading.Event,
    ) -> None:
        """`complete` gives what the last word of a line may become; `history` is oldest first; Ctrl-C sets `interrupt`
        while `execute` works."""
        self._prompt = prompt
        self._send = send
        self._execute = execute
        self._complete = complete
        self._history = list(history)
        self._interrupt = interrupt
        self._executing = False
        self._first = ""
        self._pipe: Any = None
        self._app: Any = None
        self._closed = False
        self._ready = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="pyemu-monitor", daemon=True)

    def start(self, line: str) -> None:
        """Go on with a line that has been begun."""
        self._first = line
        self._thread.start()
        self._ready.wait()

    def feed(self, data: bytes) -> None:
        """Keys. What the pipe can't hold while a command runs is dropped."""
        with self._lock:
            if self._executing and _CTRL_C in data:
                self._interrupt.set()
                data = data.rpartition(_CTRL_C)[2]
            if self._pipe is not None:
                try:
                    os.write(self._pipe.pipe.write_fd, data)
                except BlockingIOError:
                    return

    def redraw(self) -> None:
        """Somebody else has used the terminal meanwhile."""
        app = self._app
        if app is not None and app.loop is not None:
            app.loop.call_soon_threadsafe(self._redraw)

    def _redraw(self) -> None:
        self._app.renderer.reset()
        self._app.invalidate()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._pipe is not None:
                self._pipe.close()  # the library sees the end of its input
                self._pipe = None
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout=2.0)

    # ---- the thread ------------------------------------------------------------------------------------------
    def _run(self) -> None:
        from prompt_toolkit.input import create_pipe_input

        with create_pipe_input() as pipe:
            os.set_blocking(pipe.pipe.write_fd, False)  # type: ignore[attr-defined]
            session = self._session(pipe)
            with self._lock:
                self._pipe = None if self._closed else pipe
            self._app = session.app
            self._ready.set()
            line = self._first
            while not self._closed:
                try:
                    text = session.prompt(self._prompt, default=line, handle_sigint=False)
                except KeyboardInterrupt:  # Ctrl-C: the line is given up
                    text = ""
                except EOFError:  # Ctrl-D, or the end of the machine
                    text = ""
                line = ""
                if text and not self._closed:
                    self._execute_interruptibly(text)
            with self._lock:
                self._pipe = None

    def _execute_interruptibly(self, text: str) -> None:
        with self._lock:
            self._interrupt.clear()
            self._executing = True
        try:
            self._execute(text)
        finally:
            with self._lock:
                self._executing = False

    def _session(self, pipe: Any) -> Any:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import Completer, Completion
        from prompt_toolkit.data_structures import Size
        from prompt_toolkit.history import InMemoryHistory
        from prompt_toolkit.output import ColorDepth
        from prompt_toolkit.output.vt100 import Vt100_Output
        from prompt_toolkit.shortcuts import CompleteStyle

        complete = self._complete

        class Words(Completer):
            def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
                line = document.text_before_cursor
                last = line.rpartition(" ")[2]
                return [Completion(word, start_position=-len(last)) for word in complete(line)]

        output = Vt100_Output(
            _Screen(self._send),  # type: ignore[arg-type]
            lambda: Size(*_size()),
            term=_TERMINAL,
            default_color_depth=ColorDepth.DEPTH_1_BIT,
            enable_bell=False,
            enable_cpr=False,  # whoever is at the other end of a socket need not answer
        )
        return PromptSession(
            input=pipe,
            output=output,
            history=InMemoryHistory(self._history),
            completer=Words(),
            complete_while_typing=False,
            complete_style=CompleteStyle.READLINE_LIKE,
        )


def _size() -> tuple[int, int]:
    """Lines and columns of our own terminal, if that is where it goes; a usual size otherwise."""
    try:
        size = os.get_terminal_size(1)
    except OSError:
        return _SIZE
    return (size.lines, size.columns) if size.lines and size.columns else _SIZE
