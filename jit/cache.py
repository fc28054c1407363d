"""The user's cache directory: what is expensive to make and can be made again at any time.

An entry is a file with its own checksum in front; one that doesn't verify is ignored. Writes are atomic.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path


def directory() -> Path:
    """Where entries live: PYEMU_CACHE, or the platform's place for caches."""
    if override := os.environ.get("PYEMU_CACHE"):
        return Path(override)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "pyemu"


def read(path: Path) -> bytes | None:
    """The entry's contents, or None if there is none or it is damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if len(data) < 16 or hashlib.blake2b(data[16:], digest_size=16).digest() != data[:16]:
        return None
    return data[16:]


def write(path: Path, data: bytes) -> None:
    """Store an entry. A cache that can't be written (full disk, read-only) costs time, not correctness."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.blake2b(data, digest_size=16).digest() + data)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError:
        pass
