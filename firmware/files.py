"""Opening the files of the host that a user names. Not here: what is in them."""

from __future__ import annotations

import errno
import io
import os
import stat
from typing import IO, BinaryIO


def open_regular(path: str) -> BinaryIO:
    """Open a regular file for reading; OSError for anything else: no waiting for a FIFO, no device without an end."""
    try:
        file = open(os.fspath(path), "rb", opener=_open_without_waiting)
    except ValueError as error:  # a NUL in the name
        raise OSError(errno.EINVAL, "impossible file name") from error
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(errno.EINVAL, "not a regular file")


def open_output(path: str) -> io.TextIOWrapper:
    """Open a file for writing text; what is in it stays until `empty`. A FIFO without reader is refused."""
    try:
        file = open(os.fspath(path), "a", encoding="utf-8", opener=_open_without_waiting)
    except ValueError as error:  # a NUL in the name
        raise OSError(errno.EINVAL, "impossible file name") from error
    os.set_blocking(file.fileno(), True)
    return file


def empty(file: IO[str]) -> None:
    """Forget what is in it."""
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        os.ftruncate(file.fileno(), 0)


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK, 0o666)
