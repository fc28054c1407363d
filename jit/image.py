"""The native image: mechanism code and interpreter handlers in one piece, found in the cache or built.

The image is keyed by a digest of everything that goes into it. Loading it needs neither LLVM nor the instruction table.
Not here: how it is built (build.py), mapping it into memory (loaded.py).
"""

from __future__ import annotations

import hashlib
import importlib.util
import marshal
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pyemu.jit import cache, hostflags

CACHE_LIMITS = (
    ("", "image-*", 24 << 20), ("", "lazy-*", 64 << 20), ("objects", "*", 128 << 20), ("sources", "*", 1 << 14),
)  # bytes  # fmt: skip


@dataclass
class Image:
    """Position-independent code, and what is where in it."""

    digest: str  # of the sources
    code: bytes
    symbols: dict[str, int]  # mechanism, thunks and the memory functions: what other native code may refer to
    handlers: list[int]  # offset of each form's handler, or of run_lazy
    groups: list[int]  # of each form, the first of those that are compiled together on first use: its row's
    stencils: bytes  # stencil_table.py
    forms: bytes
    services: dict[int, tuple[str, str]]  # what native code may call in Python


def _sources() -> Iterator[tuple[str, os.DirEntry[str]]]:
    """All sources that the image depends on, with their names in their package."""
    for package in ("pyemu.cpu", "pyemu.jit"):
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.origin is not None
        yield from _below(os.path.dirname(spec.origin), "")


def _below(folder: str, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.endswith(".py"):
            yield prefix + entry.name, entry
        elif entry.is_dir():
            yield from _below(entry.path, f"{prefix}{entry.name}/")


def source_digest() -> str:
    """A digest of all sources that the image depends on, and of what the host can do. It is remembered as long as the
    files look the same: reading them takes a tenth of a start."""
    host = " ".join([sys.version.split()[0], *sorted(hostflags.read())])
    sources = list(_sources())
    seen = [(name, entry.path, entry.stat().st_size, entry.stat().st_mtime_ns) for name, entry in sources]
    known = cache.directory() / "sources" / hashlib.sha256(repr((host, seen)).encode()).hexdigest()[:32]
    remembered = cache.read(known)
    if remembered is not None:
        return remembered.decode()
    digest = hashlib.sha256(host.encode())
    for name, entry in sources:
        digest.update(name.encode() + b"\0" + Path(entry.path).read_bytes())
    found = digest.hexdigest()[:32]
    cache.write(known, found.encode())
    return found


def load() -> Image:
    """The image from the cache, built first if need be."""
    digest = source_digest()
    path = cache.directory() / f"image-{digest}"
    data = cache.read(path)
    if data is None:
        with cache.building():
            data = cache.read(path) or _build(path)
    return Image(digest, *marshal.loads(data))


def _build(path: Path) -> bytes:
    from pyemu.jit import build

    data = marshal.dumps(build.build())
    cache.write(path, data)
    for where, pattern, most in CACHE_LIMITS:
        cache.prune(cache.directory() / where, pattern, most)
    return data


def load_group(image: Image, first: int) -> tuple[bytes, dict[int, str]]:
    """The handlers of a group that is not in the image: an object, and each form's symbol in it. From the cache if it
    was compiled before."""
    path = cache.directory() / f"lazy-{image.digest}" / str(first)
    data = cache.read(path)
    if data is None:
        if source_digest() != image.digest:
            raise RuntimeError("pyemu's sources have changed since it started: start it again")
        from pyemu.jit import build

        numbers = [number for number, group in enumerate(image.groups) if group == first]
        data = marshal.dumps(build.compile_group(numbers, image.symbols))
        cache.write(path, data)
    loaded: tuple[bytes, dict[int, str]] = marshal.loads(data)
    return loaded
