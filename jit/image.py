"""The native image: mechanism code and interpreter handlers in one piece, found in the cache or built.

The image is keyed by a digest of everything that goes into it. Loading it needs neither LLVM nor the instruction table.
Not here: how it is built (build.py), mapping it into memory (loaded.py).
"""

from __future__ import annotations

import hashlib
import importlib.util
import marshal
import sys
from dataclasses import dataclass
from pathlib import Path

from pyemu.jit import cache, hostflags

CACHE_LIMITS = (("", "image-*", 24 << 20), ("", "lazy-*", 64 << 20), ("objects", "*", 128 << 20))  # bytes


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


def source_digest() -> str:
    """A digest of all sources that the image depends on, and of what the host can do."""
    digest = hashlib.sha256()
    for package in ("pyemu.cpu", "pyemu.jit"):
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.origin is not None
        root = Path(spec.origin).parent
        for path in sorted(root.rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    digest.update(" ".join([sys.version.split()[0], *sorted(hostflags.read())]).encode())
    return digest.hexdigest()[:32]


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
