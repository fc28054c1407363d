"""Floating-point operations of the builder, outside any instruction: the reference, the LLVM back end on the host's
unit, and the LLVM back end on a host that lacks the instructions must agree in results, flags and exceptions."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Callable
from functools import cache
from typing import Any

import llvmlite.binding as llvm
import pytest

from pyemu.cpu import softfloat as sf
from pyemu.cpu.concrete import Concrete
from pyemu.cpu.decode import record as rc
from pyemu.cpu.instruction import Instruction
from pyemu.cpu.ops import Form, Row
from pyemu.cpu.state import CR4, FAULT_VECTOR, M64, MXCSR, NO_FAULT, VEC, State, new_state
from pyemu.cpu.values import Value
from pyemu.jit import emit_float
from pyemu.jit.emit import Handler
from pyemu.jit.lowering import LOWERINGS
from pyemu.jit.subset import ModuleCompiler
from tests.cpu import twins
from tests.cpu.softfloat_host import random_ieee

LAYOUT = {16: (5, 10), 32: (8, 23), 64: (11, 52)}  # bits of exponent and fraction
ROUNDS = 400
OSXMMEXCPT = 1 << 10

Definition = Callable[[Instruction], None]


def multiply_add(width: int, lanes: int, negate_product: bool, negate_addend: bool) -> Definition:
    """XMM0 = XMM1 * XMM2 + XMM3 in the first lanes."""

    def define(i: Instruction) -> None:
        a, b, c = (i.state(VEC + 8 * n, width * lanes) for n in (1, 2, 3))
        i.set_state(VEC, i.map(width, lambda x, y, z: x.fma(y, z, negate_product, negate_addend), a, b, c))

    return define


def arithmetic(width: int, name: str) -> Definition:
    """An operation on XMM1 and XMM2."""

    def define(i: Instruction) -> None:
        a, b = (i.state(VEC + 8 * n, 128) for n in (1, 2))
        i.set_state(VEC, i.map(width, lambda x, y: getattr(x, name)(y), a, b))

    return define


def narrow(i: Instruction) -> None:
    """CVTPD2PS."""
    i.set_state(VEC, i.map(64, lambda x: i.convert("float_to_float", x, 32), i.state(VEC + 8, 128)))


def from_half(i: Instruction) -> None:
    """VCVTPH2PS of two lanes."""
    i.set_state(VEC, i.map(16, lambda x: i.convert("float_to_float", x, 32), i.state(VEC + 8, 32)))


def to_half(i: Instruction) -> None:
    """VCVTPS2PH of two lanes; the immediate is the first byte of XMM2."""
    mode: Value = i.state(VEC + 16, 8)
    i.set_state(VEC, i.map(32, lambda x: i.convert("float_to_float", x, 16, mode), i.state(VEC + 8, 64)))


DEFINITIONS: dict[str, tuple[int, Definition]] = (
    {
        f"fma{width}x{lanes} {product:d}{addend:d}": (width, multiply_add(width, lanes, product, addend))
        for width, lanes in ((32, 1), (64, 1), (32, 4), (64, 2), (64, 4))
        for product, addend in ((False, False), (True, False), (False, True), (True, True))
    }
    | {
        f"{name}{width}": (width, arithmetic(width, name))
        for width in (32, 64)
        for name in ("fadd", "fsub", "fmul", "fdiv", "fmin", "fmax")
    }
    | {"narrow": (64, narrow), "from half": (16, from_half), "to half": (32, to_half)}
)


def form(name: str) -> Form:
    """The definition as the only form of a table."""
    row = Row("90", "", lambda i: DEFINITIONS[name][1](i), "tested")
    return Form(0, row, 0, False, ())


@cache
def native(name: str, host_has_it: bool) -> tuple[Any, Callable[[State], int]]:
    """The definition compiled; the engine is to be kept."""
    patch = pytest.MonkeyPatch()
    with patch.context() as m:
        m.setattr(emit_float, "FMA", host_has_it)
        m.setattr(emit_float, "F16C", host_has_it)
        owner = ModuleCompiler("tested", LOWERINGS)
        handler = Handler(owner, form(name)).build()
    owner.compile()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    module = llvm.parse_assembly(str(owner.module))
    module.verify()
    machine = llvm.Target.from_default_triple().create_target_machine(cpu="x86-64-v2", opt=1)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    function = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_void_p)(
        engine.get_function_address(handler.name)
    )
    record = (ctypes.c_uint64 * rc.WORDS)()
    return engine, lambda s: int(function(ctypes.addressof(s), ctypes.addressof(record)))


def operand(rng: random.Random, width: int, near: int) -> int:
    """256 bits of numbers, the exponents of the first lane near each other."""
    lanes = [random_ieee(rng, *LAYOUT[width], near if k == 0 else None) for k in range(256 // width)]
    return sum(lane << width * k for k, lane in enumerate(lanes))


def cancelling(width: int, a: int, b: int) -> int:
    """About -(a * b)."""
    fmt = sf.F32 if width == 32 else sf.F64
    mask = (1 << width) - 1
    return sf.mul(fmt, a & mask, b & mask, sf.FloatContext()) ^ fmt.sign_bit


@pytest.mark.parametrize("name", DEFINITIONS)
def test_back_ends_agree(name: str) -> None:
    rng, width = random.Random(name), DEFINITIONS[name][0]
    keep, states = [], [new_state() for _ in range(3)]
    for s in states:
        keep.append(twins.attach(s, ctypes.create_string_buffer(4096)))
    reference, (_, on_host), (_, in_software) = Concrete(states[0]), native(name, True), native(name, False)

    def in_python(s: State) -> int:
        return reference.execute(form(name), [0] * rc.WORDS)

    runs = (in_python, on_host, in_software)
    for _ in range(ROUNDS):
        a = operand(rng, width, 0)
        b = operand(rng, width, a)
        c = cancelling(width, a, b) if "fma" in name and rng.random() < 0.3 else operand(rng, width, b)
        mxcsr = rng.getrandbits(16) & ~0x3F if rng.random() < 0.5 else 0x1F80 | rng.getrandbits(2) << 13
        mxcsr |= 0xC00  # overflow and underflow: others are for instructions (cpu/rehearsal.py)
        outcomes = []
        for s, run in zip(states, runs, strict=True):
            s[FAULT_VECTOR], s[MXCSR], s[CR4] = NO_FAULT, mxcsr, OSXMMEXCPT
            for n, vector in enumerate((0, a, b, c)):
                for k in range(4):
                    s[VEC + 8 * n + k] = vector >> 64 * k & M64
            run(s)
            outcomes.append((s[FAULT_VECTOR], s[MXCSR], *(s[VEC + k] for k in range(4))))
        shown = [[hex(word) for word in outcome] for outcome in outcomes]
        assert shown[0] == shown[1] == shown[2], f"{name} mxcsr={mxcsr:#x} a={a:#x} b={b:#x} c={c:#x}"
