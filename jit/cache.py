"""The user's cache directory: what is expensive to make and can be made again at any time.

An entry is a file with its own checksum in front; one that doesn't verify is ignored. Writes are atomic.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def directory() -> Path:
    """Where entries live: PYEMU_CACHE, or the platform's place for caches."""
    if override := os.environ.get("PYEMU_CACHE"):
        return Path(override)
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # which its specification says to ignore
        base = os.path.join(os.path.expanduser("~"), ".cache")
    if not os.path.isabs(base):  # a user whom the system doesn't know, without HOME: nothing can be kept
        base = os.devnull
    return Path(base) / "pyemu"


def read(path: Path) -> bytes | None:
    """The entry's contents, or None if there is none or it is damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    with suppress(OSError):
        os.utime(path)  # used now: prune() takes those that nobody has used for longest
    contents = memoryview(data)[16:]
    if len(data) < 16 or hashlib.blake2b(contents, digest_size=16).digest() != data[:16]:
        return None
    return bytes(contents)


@contextmanager
def building() -> Iterator[None]:
    """One process of this cache at a time: two that build the same would take twice as long."""
    handle = -1
    with suppress(OSError):  # without a cache there is nothing to wait for
        directory().mkdir(parents=True, exist_ok=True)
        handle = os.open(directory() / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if handle >= 0:
            os.close(handle)


def prune(directory: Path, pattern: str, most: int) -> None:
    """Remove the entries (files or folders) of a directory that were not used for longest, until those that are left
    have no more than `most` bytes together."""
    entries = []
    for path in directory.glob(pattern):
        with suppress(OSError):  # another process prunes too
            files = [path, *path.rglob("*")]
            entries.append((max(f.stat().st_mtime for f in files), sum(f.stat().st_size for f in files), path))
    total = 0
    for _, size, path in sorted(entries, reverse=True):
        total += size
        if total > most:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


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
