"""LLVM for our purposes: verify, optimise and compile a module to an object file.

Objects are kept in the cache by the hash of their IR, so that a rebuild compiles only what changed.
"""

from __future__ import annotations

import hashlib
from typing import Any

import llvmlite
import llvmlite.binding as llvm

from pyemu.jit import cache

# SSE code only: guests' SSE instructions run as inline assembly, and mixing encodings with AVX costs transitions.
CPU, WANTED_FEATURES = "x86-64-v2", ("bmi", "bmi2", "lzcnt", "popcnt")


def features() -> str:
    """The optional features that the host has, in LLVM's notation."""
    host = llvm.get_host_cpu_features()
    return ",".join(f"+{f}" for f in WANTED_FEATURES if host.get(f))


_machine: Any = None


def machine() -> Any:
    """The target machine, made once a process."""
    global _machine
    if _machine is None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        llvm.initialize_native_asmparser()
        _machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=CPU, features=features(), opt=2, reloc="pic", codemodel="small"
        )
    return _machine


def compile_ir(text: str, level: int = 2, reloc: str = "pic") -> bytes:
    """An object file for LLVM IR, from the cache if it has been compiled before."""
    key = hashlib.sha256(f"{llvmlite.__version__} {CPU} {features()} {level} {reloc}\n{text}".encode()).hexdigest()
    path = cache.directory() / "objects" / key
    known = cache.read(path)
    if known is not None:
        return known
    data = _compile(text, level, reloc)
    cache.write(path, data)
    return data


def _compile(text: str, level: int, reloc: str) -> bytes:
    target = machine()
    if reloc != "pic":
        target = llvm.Target.from_default_triple().create_target_machine(
            cpu=CPU, features=features(), opt=2, reloc=reloc, codemodel="small"
        )
    module = llvm.parse_assembly(text)
    module.verify()
    if level:
        options = llvm.create_pipeline_tuning_options(speed_level=level)
        options.loop_vectorization = options.slp_vectorization = False
        builder = llvm.create_pass_builder(target, options)
        builder.getModulePassManager().run(module, builder)
    data: bytes = target.emit_object(module)
    return data
