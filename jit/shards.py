"""What is compiled together, and from which sources: so that after an edit only what it touches is made again.

A shard is a run of forms whose definitions are in one module. Its key covers every source that its machine code can
depend on: the modules that have its rows, the back end's own, and all that these import. What a module imports is
read from its source, so a build that finds all shards in the cache imports none of them.
Not here: compiling (build.py), the cache's files (cache.py).
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from importlib.metadata import version
from pathlib import Path

from pyemu.cpu.ops import Form
from pyemu.jit import hostflags

SIZE = 120  # forms of a shard, at most
SEMANTICS = "pyemu.cpu.semantics"


class Kind(Enum):
    """What a shard's forms are compiled to."""

    HANDLERS = "pyemu.jit.emit"
    STENCILS = "pyemu.jit.stencil_build"
    MECHANISM = "pyemu.jit.subset"


@dataclass
class Shard:
    """Some forms of one module, or those stencils that belong to no form; or mechanism functions, which have no key."""

    kind: Kind
    functions: list[str] = field(default_factory=list)
    forms: list[int] = field(default_factory=list)
    key: str = ""


def shards(forms: list[Form]) -> list[Shard]:
    """All that is compiled before the first start, except for the mechanism."""
    families: dict[str, list[Form]] = {}
    for form in forms:
        if not form.row.lazy:
            families.setdefault(form.row.function.__module__, []).append(form)
    parts = [
        Shard(kind, forms=[form.number for form in part], key=key(kind, module, part))
        for kind in (Kind.HANDLERS, Kind.STENCILS)
        for module, all_ in families.items()
        for part in (all_[k : k + SIZE] for k in range(0, len(all_), SIZE))
    ]
    return [*parts, Shard(Kind.STENCILS, key=key(Kind.STENCILS, Kind.STENCILS.value, []))]


def key(kind: Kind, module: str, forms: list[Form]) -> str:
    """The digest for forms whose functions are in `module`. Their rows may be there or in a module that imports it."""
    sources = closure(kind.value, *(user for user in families() if module in closure(user)))
    names = [form.name for form in forms]
    digest = hashlib.sha256(f"{kind} {version('llvmlite')} {sorted(hostflags.read())} {names}".encode())
    for name in sorted(sources):
        digest.update(f"{name} ".encode() + contents(name))
    return digest.hexdigest()


def families() -> Iterable[str]:
    """The modules with instructions."""
    folder = path(SEMANTICS).parent
    return (f"{SEMANTICS}.{file.stem}" for file in sorted(folder.glob("*.py")) if file.stem != "__init__")


@functools.cache
def path(module: str) -> Path:
    """The source of a module."""
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin)


@functools.cache
def contents(module: str) -> bytes:
    """The digest of a module's source."""
    return hashlib.sha256(path(module).read_bytes()).digest()


@functools.cache
def imports(module: str) -> frozenset[str]:
    """The modules of ours that a module names in its import statements, wherever they are."""
    found = set[str]()
    for node in ast.walk(ast.parse(path(module).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("pyemu."):
            found.add(node.module)
            package = path(node.module)
            if package.stem == "__init__":
                found |= {f"{node.module}.{a.name}" for a in node.names if package.with_name(f"{a.name}.py").exists()}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("pyemu.")}
    return frozenset(found)


@functools.cache
def closure(*modules: str) -> frozenset[str]:
    """Modules and all that they import."""
    seen, queue = set[str](), list(modules)
    while queue:
        module = queue.pop()
        if module not in seen:
            seen.add(module)
            queue += imports(module)
    return frozenset(seen)
