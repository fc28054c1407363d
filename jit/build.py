"""Builds the native image: mechanism code and interpreter handlers, compiled in parallel processes, linked, and cached.

The image is keyed by a digest of everything that goes into it. Loading it needs neither LLVM nor the instruction table.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import marshal
import os
import signal
import sys
import time
from collections.abc import Container
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyemu.cpu.primitives import SERVICE_NAMES
from pyemu.jit import cache, hostflags

if TYPE_CHECKING:
    from pyemu.cpu.ops import Form
    from pyemu.jit.stencils import Stencil

SHARD = 120  # handlers a module
KEPT = ("pyemu.", "thunk.", "memcpy", "memset")  # symbols that the image remembers
CACHE_LIMITS = (("", "image-*", 24 << 20), ("", "lazy-*", 64 << 20), ("objects", "*", 128 << 20))  # bytes
ROOTS = (
    "pyemu.jit.loop.run", "pyemu.jit.blocks.flush", "pyemu.jit.blocks.written", "pyemu.jit.native.ticks",
    "pyemu.jit.lazy.run_lazy",
)  # fmt: skip


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
        data = marshal.dumps(_build())
        cache.write(path, data)
        for where, pattern, most in CACHE_LIMITS:
            cache.prune(cache.directory() / where, pattern, most)
    return Image(digest, *marshal.loads(data))


def _build() -> tuple[Any, ...]:
    """All fields of the image but its digest."""
    from pyemu.cpu.ops import build_table
    from pyemu.jit import elf
    from pyemu.jit.stencil_table import serialise

    table = build_table()
    eager = [form.number for form in table.forms if not form.row.lazy]
    parts = [eager[k : k + SHARD] for k in range(0, len(eager), SHARD)]
    objects: list[bytes] = []
    stencils: dict[str, Stencil] = {}
    workers = int(os.environ.get("PYEMU_BUILD_JOBS", os.cpu_count() or 1))
    pool = ProcessPoolExecutor(max_workers=workers, initializer=die_with_parent)
    with pool, Progress(2 * len(parts) + 1) as progress:
        handlers = [pool.submit(compile_handlers, part) for part in parts]
        others = [pool.submit(compile_stencils, part, part is parts[0]) for part in parts]
        needed = set(ROOTS)
        for done in as_completed(handlers):
            objects.append(done.result())
            needed |= {name for name in elf.undefined(objects[-1]) if name.startswith("pyemu.")}
            progress.step()
        mechanism = pool.submit(compile_mechanism, sorted(needed))
        for other in as_completed(others):
            stencils |= other.result()
            progress.step()
        compiled, services = mechanism.result()
        objects.append(compiled)
        progress.step()
    image = elf.link(objects)
    symbols = {name: at for name, at in image.symbols.items() if name.startswith(KEPT)}
    lazy = symbols["pyemu.jit.lazy.run_lazy"]
    addresses = [lazy if form.row.lazy else image.symbols[f"op.{form.name}"] for form in table.forms]
    return image.data, symbols, addresses, groups(table.forms), *serialise(stencils, table.forms), services


def load_group(image: Image, first: int) -> tuple[bytes, dict[int, str]]:
    """The handlers of a group that is not in the image: an object, and each form's symbol in it. From the cache if it
    was compiled before."""
    path = cache.directory() / f"lazy-{image.digest}" / str(first)
    data = cache.read(path)
    if data is None:
        if source_digest() != image.digest:
            raise RuntimeError(
                "pyemu's sources have changed since it was started, so it cannot compile any more of them"
            )
        from pyemu.cpu.ops import build_table

        numbers = [number for number, group in enumerate(image.groups) if group == first]
        forms = build_table().forms
        symbols = {number: f"op.{forms[number].name}" for number in numbers}
        data = marshal.dumps((compile_handlers(numbers, image.symbols), symbols))
        cache.write(path, data)
    loaded: tuple[bytes, dict[int, str]] = marshal.loads(data)
    return loaded


def groups(forms: list[Form]) -> list[int]:
    """Of each form, the first of its row: those of a row are compiled together on first use."""
    first: dict[int, int] = {}
    return [first.setdefault(id(form.row), form.number) for form in forms]


def die_with_parent() -> None:
    """A worker whose parent was killed stops too (prctl(2), PR_SET_PDEATHSIG), and leaves Ctrl-C to the parent."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Progress:
    """A bar on standard error that shows how far the first build is; one line where that is no terminal."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.start = total, 0, time.monotonic()
        self.show = sys.stderr.isatty()

    def __enter__(self) -> Progress:
        if not self.show:
            print("pyemu: building native code (once) ...", file=sys.stderr, flush=True)
        return self

    def step(self) -> None:
        """One more part is done."""
        self.done += 1
        if self.show:
            filled = 30 * self.done // self.total
            bar = "#" * filled + "." * (30 - filled)
            seconds = time.monotonic() - self.start
            print(f"\rpyemu: building native code (once) [{bar}] {seconds:3.0f} s", end="", file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        if self.show:
            print(file=sys.stderr)


def compile_handlers(numbers: list[int], known: Container[str] | None = None) -> bytes:
    """The interpreter handlers of some forms, as an object: `op.NAME` for each. Mechanism functions that they call are
    in another object; those not among the `known` symbols, if it is given, are compiled too."""
    from pyemu.cpu.ops import build_table
    from pyemu.jit.emit import Handler
    from pyemu.jit.lowering import LOWERINGS
    from pyemu.jit.subset import ModuleCompiler
    from pyemu.jit.target import compile_ir

    owner = ModuleCompiler(f"handlers.{numbers[0]}", LOWERINGS, external=known is None, known=known or ())
    forms = build_table().forms
    for form in (forms[number] for number in numbers):
        try:
            Handler(owner, form).build()
        except Exception as error:
            error.add_note(f"while compiling {form.row.encoding} {form.row.operands} ({form.name})")
            raise
    owner.compile()
    return compile_ir(str(owner.module), level=1)


def compile_stencils(numbers: list[int], helpers: bool) -> dict[str, Stencil]:
    """The stencils of some forms, and perhaps those that belong to no form."""
    from pyemu.cpu.ops import build_table
    from pyemu.jit.stencils import emit_module, extract
    from pyemu.jit.target import compile_ir

    forms = build_table().forms
    text, names = emit_module([forms[number] for number in numbers], helpers)
    return extract(compile_ir(text, level=1, reloc="static"), names)


def compile_mechanism(names: list[str]) -> tuple[bytes, dict[int, tuple[str, str]]]:
    """The named mechanism functions, all that they call, and the thunks, as an object; and the services there are."""
    from pyemu.jit import thunks
    from pyemu.jit.lowering import LOWERINGS
    from pyemu.jit.subset import ModuleCompiler
    from pyemu.jit.target import compile_ir

    owner = ModuleCompiler("mechanism", LOWERINGS)
    for name in names:
        module, _, function = name.rpartition(".")
        owner.compile(getattr(importlib.import_module(module), function))
    return compile_ir(str(owner.module) + MEMORY_FUNCTIONS + thunks.text()), SERVICE_NAMES


# What LLVM calls for llvm.memcpy and llvm.memset; the image has no library behind it.
_CLOBBERS = "~{memory},~{dirflag},~{fpsr},~{flags}"
MEMORY_FUNCTIONS = f"""
define ptr @memcpy(ptr %to, ptr %from, i64 %n) nounwind {{
  call void asm sideeffect "rep movsb", "{{di}},{{si}},{{cx}},~{{di}},~{{si}},~{{cx}},{_CLOBBERS}"(
    ptr %to, ptr %from, i64 %n)
  ret ptr %to
}}
define ptr @memset(ptr %to, i32 %byte, i64 %n) nounwind {{
  %b = trunc i32 %byte to i8
  call void asm sideeffect "rep stosb", "{{di}},{{al}},{{cx}},~{{di}},~{{cx}},{_CLOBBERS}"(ptr %to, i8 %b, i64 %n)
  ret ptr %to
}}
"""
