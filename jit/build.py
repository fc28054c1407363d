"""Builds the native image in parallel processes, and single groups of handlers in this one.

What was compiled is kept in the cache by shard (shards.py), so a build after an edit compiles only what the edit
touches. Not here: the image itself (image.py), linking (elf.py).
"""

from __future__ import annotations

import ctypes
import dataclasses
import importlib
import marshal
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Container, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import active_children
from typing import Any

from pyemu.cpu.ops import Form, build_table
from pyemu.cpu.primitives import SERVICE_NAMES
from pyemu.jit import cache, elf, thunks
from pyemu.jit.emit import compile_handlers, emit_handlers
from pyemu.jit.lowering import LOWERINGS
from pyemu.jit.shards import Kind, Shard, shards
from pyemu.jit.stencil_build import compile_helpers, compile_stencils
from pyemu.jit.stencil_object import Stencil
from pyemu.jit.stencil_table import serialise
from pyemu.jit.subset import ModuleCompiler
from pyemu.jit.target import compile_ir

KEPT = ("pyemu.", "thunk.", "memcpy", "memset")  # symbols that the image remembers
ROOTS = (
    "pyemu.jit.loop.run", "pyemu.jit.blocks.flush", "pyemu.jit.blocks.written", "pyemu.jit.native.ticks",
    "pyemu.jit.lazy.run_lazy", "pyemu.jit.blocks.drop_linear", "pyemu.cpu.tlb.mark_all",
)  # fmt: skip


def build() -> tuple[Any, ...]:
    """All fields of the image but its digest."""
    forms = build_table().forms
    results = compile_all(shards(forms))
    mechanism, services = results[Kind.MECHANISM][0]
    linked = elf.link([*results[Kind.HANDLERS], mechanism])
    symbols = {name: at for name, at in linked.symbols.items() if name.startswith(KEPT)}
    lazy = symbols["pyemu.jit.lazy.run_lazy"]
    handlers = [lazy if form.row.lazy else linked.symbols[f"op.{form.name}"] for form in forms]
    stencils = {name: Stencil(*fields) for part in results[Kind.STENCILS] for name, fields in part.items()}
    return linked.data, symbols, handlers, groups(forms), *serialise(stencils, forms), services


def compile_all(parts: list[Shard]) -> dict[Kind, list[Any]]:
    """What compile_shard() makes of each shard, from the cache as far as possible, and of the mechanism."""
    results: dict[Kind, list[Any]] = {kind: [] for kind in Kind}
    waiting = deque[Shard]()
    for part in parts:
        known = cache.read(cache.directory() / "objects" / part.key)
        if known is None:
            waiting.append(part)
        else:
            results[part.kind].append(marshal.loads(known))
    handlers = sum(part.kind is Kind.HANDLERS for part in parts)
    mechanism = None
    running = set[Future[Any]]()
    workers = int(os.environ.get("PYEMU_BUILD_JOBS", os.cpu_count() or 1))
    pool = ProcessPoolExecutor(max_workers=workers, initializer=die_with_parent)
    with pool, _none_left_behind(), Progress(len(waiting) + 1) as progress:
        while waiting or running or mechanism is None:
            if mechanism is None and len(results[Kind.HANDLERS]) == handlers:  # now it is known what they call
                undefined = set[str]().union(*map(elf.undefined, results[Kind.HANDLERS]))
                names = {*ROOTS, *(name for name in undefined if name.startswith("pyemu."))}
                mechanism = Shard(Kind.MECHANISM, sorted(names))
                waiting.appendleft(mechanism)  # takes longest
            while waiting and len(running) <= workers:
                running.add(pool.submit(compile_shard, waiting.popleft()))
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for job in done:
                kind, result = job.result()
                results[kind].append(result)
                progress.step()
    return results


@contextmanager
def _none_left_behind() -> Iterator[None]:
    """Whoever gives up (Ctrl-C) doesn't wait for what the workers are at."""
    others = set(active_children())
    try:
        yield
    except BaseException:
        for worker in set(active_children()) - others:
            worker.kill()
        raise


def compile_shard(shard: Shard) -> tuple[Kind, Any]:
    """In a process of its own: an object, of the mechanism also the services, or stencils by name; in the cache."""
    result: Any
    table = build_table().forms
    forms = [table[number] for number in shard.forms]
    if shard.kind is Kind.HANDLERS:
        result = compile_handlers(forms)
    elif shard.kind is Kind.STENCILS:
        stencils = compile_stencils(forms) if forms else compile_helpers()
        result = {name: dataclasses.astuple(stencil) for name, stencil in stencils.items()}
    else:
        return shard.kind, compile_mechanism(shard.functions)
    cache.write(cache.directory() / "objects" / shard.key, marshal.dumps(result))
    return shard.kind, result


def compile_group(numbers: list[int], known: Container[str]) -> tuple[bytes, dict[int, str]]:
    """The handlers of some forms, and the mechanism that they call as far as its symbols are not `known`: an object,
    and each form's symbol in it."""
    owner = ModuleCompiler("group", LOWERINGS, known=known)
    forms = build_table().forms
    emit_handlers(owner, [forms[number] for number in numbers])
    owner.compile()
    return compile_ir(str(owner.module), level=1), {number: f"op.{forms[number].name}" for number in numbers}


def groups(forms: list[Form]) -> list[int]:
    """Of each form, the first of its row: those of a row are compiled together on first use."""
    first: dict[int, int] = {}
    return [first.setdefault(id(form.row), form.number) for form in forms]


def die_with_parent() -> None:
    """A worker whose parent was killed stops too (prctl(2), PR_SET_PDEATHSIG), and leaves Ctrl-C to the parent."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):  # the parent's handlers aren't for us
        signal.signal(number, signal.SIG_DFL)


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


def compile_mechanism(names: list[str]) -> tuple[bytes, dict[int, tuple[str, str]]]:
    """The named mechanism functions, all that they call, and the thunks, as an object; and the services there are."""
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
