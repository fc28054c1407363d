"""Opening the files of the host that a user names. Not here: what is in them."""

from __future__ import annotations

import errno
import os
import stat
from typing import BinaryIO


def open_regular(path: str) -> BinaryIO:
    """Open a regular file for reading; OSError for anything else: no waiting for a FIFO, no device without an end."""
    try:
        file = open(path, "rb", opener=_open_without_waiting)
    except ValueError as error:  # a NUL in the name
        raise OSError(errno.EINVAL, "impossible file name") from error
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(errno.EINVAL, "not a regular file")


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
