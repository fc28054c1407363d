"""Builds the native image: mechanism code and interpreter handlers, compiled in parallel processes, linked, and cached.

The image is keyed by a digest of everything that goes into it. Loading it needs neither LLVM nor the instruction table.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import marshal
import os
import pkgutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType

import pyemu.cpu
from pyemu.cpu.primitives import SERVICES
from pyemu.jit import cache

# Modules of cpu/ that are no mechanism code: they run in Python in every back end.
PYTHON_ONLY = {"concrete", "reference", "msr", "cpuid", "reset", "primitives", "explain"}
SHARD = 120  # handlers a module
ROOTS = ("pyemu.jit.loop.run", "pyemu.jit.blocks.flush", "pyemu.jit.blocks.written", "pyemu.cpu.tlb.flush_all")


@dataclass
class Image:
    """Position-independent code, and what is where in it."""

    code: bytes
    symbols: dict[str, int]
    handlers: list[int]  # offset of each form's handler


def source_digest() -> str:
    """A digest of all sources that the image depends on."""
    digest = hashlib.sha256()
    for package in ("pyemu.cpu", "pyemu.jit"):
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.origin is not None
        root = Path(spec.origin).parent
        for path in sorted(root.rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    digest.update(" ".join(sys.version.split()[:1]).encode())
    return digest.hexdigest()[:32]


def load() -> Image:
    """The image from the cache, built first if need be."""
    path = cache.directory() / f"image-{source_digest()}"
    data = cache.read(path)
    if data is None:
        data = marshal.dumps(_build())
        cache.write(path, data)
    code, symbols, handlers = marshal.loads(data)
    return Image(code, symbols, handlers)


def _build() -> tuple[bytes, dict[str, int], list[int]]:
    from pyemu.cpu.ops import build_table
    from pyemu.jit import elf

    table = build_table()
    jobs: list[tuple[int, int]] = [(-1, 0)]
    jobs += [(k, min(k + SHARD, len(table.forms))) for k in range(0, len(table.forms), SHARD)]
    objects: list[bytes] = []
    workers = int(os.environ.get("PYEMU_BUILD_JOBS", os.cpu_count() or 1))
    with ProcessPoolExecutor(max_workers=min(workers, len(jobs))) as pool:
        futures = [pool.submit(compile_job, *job) for job in jobs]
        for done in progress(as_completed(futures), len(jobs)):
            objects.append(done.result())
    image = elf.link(objects)
    handlers = [image.symbols[f"op.{form.name}"] for form in table.forms]
    symbols = {name: at for name, at in image.symbols.items() if name.startswith(("pyemu.", "thunk."))}
    return image.data, symbols, handlers


def progress(items: Iterator[object], total: int) -> Iterator[object]:
    """Yield items while a bar on standard error, if it is a terminal, shows how far the first build is."""
    start, show = time.monotonic(), sys.stderr.isatty()
    if not show:
        print("pyemu: building native code (once) ...", file=sys.stderr, flush=True)
    for number, item in enumerate(items, 1):
        yield item
        if show:
            filled = 30 * number // total
            bar = "#" * filled + "." * (30 - filled)
            seconds = time.monotonic() - start
            print(f"\rpyemu: building native code (once) [{bar}] {seconds:3.0f} s", end="", file=sys.stderr, flush=True)
    if show:
        print(file=sys.stderr)


def compile_job(first: int, last: int) -> bytes:
    """Compile one part of the image: mechanism code (first < 0) or the handlers of forms first..last-1."""
    from pyemu.cpu.ops import build_table
    from pyemu.jit.emit import Handler
    from pyemu.jit.lowering import LOWERINGS
    from pyemu.jit.subset import ModuleCompiler
    from pyemu.jit.target import compile_ir

    if first < 0:
        owner = ModuleCompiler("mechanism", LOWERINGS)
        owner.compile(*roots())
        return compile_ir(str(owner.module) + MEMORY_FUNCTIONS)
    owner = ModuleCompiler(f"handlers.{first}", LOWERINGS, external=True)
    for form in build_table().forms[first:last]:
        try:
            Handler(owner, form).build()
        except Exception as error:
            error.add_note(f"while compiling {form.row.encoding} {form.row.operands} ({form.name})")
            raise
    return compile_ir(str(owner.module), level=1)


def roots() -> list[FunctionType]:
    """The functions that the image exports."""
    from pyemu.jit.subset import is_state

    found = []
    for name in ROOTS:
        module, _, function = name.rpartition(".")
        found.append(getattr(importlib.import_module(module), function))
    for name in sorted(entry.name for entry in pkgutil.iter_modules(pyemu.cpu.__path__) if not entry.ispkg):
        if name in PYTHON_ONLY or name.startswith(("softfloat", "x87")):
            continue
        module = importlib.import_module(f"pyemu.cpu.{name}")
        for function in vars(module).values():
            if isinstance(function, FunctionType) and function.__module__ == module.__name__:
                parameters = list(inspect.signature(function).parameters.values())
                if parameters and is_state(parameters[0]) and function not in SERVICES:
                    found.append(function)
    return found


# What LLVM calls for llvm.memcpy and llvm.memset; the image has no library behind it.
MEMORY_FUNCTIONS = """
define ptr @memcpy(ptr %to, ptr %from, i64 %n) nounwind {
  call void asm sideeffect "rep movsb", "{di},{si},{cx},~{di},~{si},~{cx},~{memory},~{dirflag},~{fpsr},~{flags}"(ptr %to, ptr %from, i64 %n)
  ret ptr %to
}
define ptr @memset(ptr %to, i32 %byte, i64 %n) nounwind {
  %b = trunc i32 %byte to i8
  call void asm sideeffect "rep stosb", "{di},{al},{cx},~{di},~{cx},~{memory},~{dirflag},~{fpsr},~{flags}"(ptr %to, i8 %b, i64 %n)
  ret ptr %to
}
"""
