"""A listening Unix socket and its file, for the gdb server and for character devices: whose file may be replaced."""

from __future__ import annotations

import contextlib
import os
import socket
import stat


class SocketFile:
    """Listens at a path until it is closed. What is no socket is never removed, nor one that somebody listens on."""

    def __init__(self, path: str) -> None:
        """OSError if the path can't be had."""
        if _is_stale(path):
            os.unlink(path)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.listener.bind(path)
            self.listener.listen(1)
            self._ours = _identity(path)
        except OSError:
            self.listener.close()
            raise
        self._path = path

    def close(self) -> None:
        """The file goes too, if it is still ours."""
        self.listener.close()
        with contextlib.suppress(OSError):
            if _identity(self._path) == self._ours:
                os.unlink(self._path)


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _is_stale(path: str) -> bool:
    """Whether a socket is left from a process that is gone."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return False
    except OSError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except BlockingIOError:
            return False  # so many wait that one more can't
        except OSError:
            return True
    return False
