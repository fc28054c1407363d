"""Raw mode of the host terminal, and the certainty that it ends.

`RawTerminal` puts a terminal into raw mode and remembers how it was. It is restored by `leave`, by leaving a
with-block, at interpreter exit, and (through cli's signal handlers, which only ask the machine to end) on SIGTERM
and SIGHUP.
"""

from __future__ import annotations

import atexit
import os
import termios
from types import TracebackType
from typing import Self

# Fields of the list that termios.tcgetattr returns.
_IFLAG, _OFLAG, _CFLAG, _LFLAG, _ISPEED, _OSPEED, _CC = range(7)


class RawTerminal:
    """Raw mode for the terminal behind `fd`; does nothing when it isn't one or belongs to another job."""

    def __init__(self, fd: int, signals: bool) -> None:
        """`signals`: Ctrl-C and Ctrl-Z keep their meaning for the host instead of going to the guest."""
        self._fd = fd
        self._signals = signals
        self._saved: list[int | list[bytes | int]] | None = None

    @property
    def active(self) -> bool:
        return self._saved is not None

    def enter(self) -> None:
        if self._saved is not None or not os.isatty(self._fd):
            return
        if self._in_background():
            return  # a background job that changes the terminal would be stopped by SIGTTOU
        try:
            saved = termios.tcgetattr(self._fd)
        except (OSError, termios.error):
            return
        atexit.register(self.leave)
        self._saved = saved
        self._apply()

    def _in_background(self) -> bool:
        try:
            return os.tcgetpgrp(self._fd) != os.getpgrp()
        except OSError:
            return False  # not our controlling terminal: there is no job control on it

    def _apply(self) -> None:
        mode = termios.tcgetattr(self._fd)
        mode[_IFLAG] &= ~(
            termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
            | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
        )  # fmt: skip
        # Output processing stays on: our own messages end lines with a bare newline.
        mode[_LFLAG] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN)
        if not self._signals:
            mode[_LFLAG] &= ~termios.ISIG
        mode[_CC][termios.VMIN] = 1
        mode[_CC][termios.VTIME] = 0
        termios.tcsetattr(self._fd, termios.TCSANOW, mode)

    def resume(self) -> None:
        """After SIGCONT: the shell has put its own mode in the meantime."""
        if self._saved is not None:
            try:
                self._apply()
            except (OSError, termios.error):
                return

    def leave(self) -> None:
        if self._saved is None:
            return
        saved, self._saved = self._saved, None
        atexit.unregister(self.leave)
        try:
            # Not TCSADRAIN: that waits for a reader who may have stopped reading.
            termios.tcsetattr(self._fd, termios.TCSANOW, saved)
        except (OSError, termios.error):
            return  # the terminal is gone

    def __enter__(self) -> Self:
        self.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()
