"""Runs mechanism functions of cpu/ in both of their forms: as Python, and compiled to native code."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any

import llvmlite.binding as llvm
import llvmlite.ir as ir

from pyemu.cpu import primitives
from pyemu.cpu.host import CALL_SERVICE
from pyemu.cpu.state import HOST_CALLS, PAGE_FLAGS, RAM_BASE, State
from pyemu.jit.lowering import LOWERINGS
from pyemu.jit.subset import ModuleCompiler, symbol

Call = Callable[..., int]
CALLBACK = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64)


def python(function: Any) -> Call:
    """The function itself."""
    assert isinstance(function, FunctionType)
    return function


def _nothing(compiler: Any, arguments: Any) -> ir.Value:
    """What translated code would need to know: there is none here."""
    return ir.Constant(ir.IntType(64), 0)


@functools.cache
def _compile(function: FunctionType) -> tuple[Any, int, int]:
    """Engine (kept alive), address and parameter count of the native twin."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    lowerings = dict(LOWERINGS)
    lowerings[primitives.before_write] = _nothing
    lowerings[primitives.mappings_changed] = _nothing
    compiler = ModuleCompiler(f"twin.{symbol(function)}", lowerings)
    compiler.compile(function)
    module = llvm.parse_assembly(str(compiler.module))
    module.verify()
    engine = llvm.create_mcjit_compiler(module, llvm.Target.from_default_triple().create_target_machine(opt=1))
    engine.finalize_object()
    return engine, engine.get_function_address(symbol(function)), function.__code__.co_argcount


def native(function: Any) -> Call:
    """The function compiled; the State must have been through attach()."""
    assert isinstance(function, FunctionType)
    _, address, count = _compile(function)
    prototype = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, *[ctypes.c_uint64] * (count - 1))(address)
    return lambda s, *arguments: int(prototype(ctypes.addressof(s), *arguments))


def attach(s: State, ram: ctypes.Array[ctypes.c_char]) -> list[Any]:
    """Give a State RAM that both twins can reach, and the callback for services; returns what must be kept alive."""
    s.ram = memoryview(ram).cast("B")
    bitmap = (ctypes.c_uint8 * (len(ram) // 4096))()
    service = CALLBACK(lambda _, number, a, b: primitives.call_service(s, number, a, b))
    s[RAM_BASE] = ctypes.addressof(ram)
    s[PAGE_FLAGS] = ctypes.addressof(bitmap)
    s[HOST_CALLS + CALL_SERVICE] = ctypes.cast(service, ctypes.c_void_p).value
    return [ram, bitmap, service]


TWINS = {"python": python, "native": native}
