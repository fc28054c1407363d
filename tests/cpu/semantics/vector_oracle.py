"""One VEX or EVEX instruction on the host's processor and in pyemu: 512-bit registers and masks.

Like oracle.py, with ZMM0-ZMM4, k1-k4 and 256 bytes of memory at RDI. Not here: which instructions.
"""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass, fields
from functools import cache

import llvmlite.binding as llvm
from hypothesis import strategies as st

from pyemu.cpu import flags as fl
from pyemu.cpu.ops import Form
from pyemu.cpu.state import FAULT_VECTOR, FLAGS, GPR, MXCSR, NO_FAULT, OPMASK, RDI, VEC, State
from pyemu.jit import elf
from tests.cpu.semantics import oracle
from tests.cpu.semantics.machines import DATA
from tests.differential.host import executes

MEMORY = 256
VECTORS, MASKS = 5, 4
M64 = (1 << 64) - 1

_AT_MXCSR, _AT_OLD, _AT_FLAGS, _AT_GPR, _AT_MASK, _AT_VECTOR = 256, 264, 272, 280, 312, 384
_RECORD = struct.Struct(f"<{MEMORY}sQQQ4Q{MASKS}Q40x" + "64s" * VECTORS)


@cache
def assemble(text: str) -> bytes:
    """Machine code of Intel-syntax text, by LLVM's assembler: keystone's knows no AVX."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmparser()
    llvm.initialize_native_asmprinter()
    lines = "\\0A".join([".intel_syntax noprefix", *text.replace("\n", ";").split(";")])
    machine = llvm.Target.from_default_triple().create_target_machine(cpu="znver4", features="+vaes,+vpclmulqdq")
    found = elf.parse(machine.emit_object(llvm.parse_assembly(f'module asm "{lines}"')))
    (section,) = (x for x in found.sections.values() if x.name == ".text")
    assert section.data and not section.relocations, text
    return bytes(section.data)


@dataclass(frozen=True)
class Operands:
    """What an instruction starts from, and what it leaves."""

    gpr: tuple[int, ...]  # RAX RCX RDX RBX
    flags: int
    vectors: tuple[int, ...]  # ZMM0-
    masks: tuple[int, ...]  # k1-
    mxcsr: int
    memory: bytes

    def differences(self, other: Operands, flags: int) -> str:
        """What differs, in words; flags only where the mask says."""
        lines = []
        for f in fields(self):
            ours, theirs = getattr(self, f.name), getattr(other, f.name)
            if f.name == "flags":
                ours, theirs = ours & flags, theirs & flags
            if isinstance(ours, tuple):
                names = (
                    ("rax", "rcx", "rdx", "rbx") if f.name == "gpr" else [f"{f.name}[{n}]" for n in range(len(ours))]
                )
                pairs = zip(names, ours, theirs, strict=True)
                lines += [f"{name}: {a:#x} != {b:#x}" for name, a, b in pairs if a != b]
            elif ours != theirs:
                text = [x.hex() if isinstance(x, bytes) else hex(x) for x in (ours, theirs)]
                lines.append(f"{f.name}: {text[0]} != {text[1]}")
        return "\n".join(lines)


def _moves(load: bool) -> str:
    """Assembler that loads or saves vectors and masks."""
    lines = []
    for n in range(VECTORS):
        place = f"zmmword ptr [rdi + {_AT_VECTOR + 64 * n}]"
        lines.append(f"vmovdqu64 zmm{n}, {place}" if load else f"vmovdqu64 {place}, zmm{n}")
    for n in range(MASKS):
        place = f"qword ptr [rdi + {_AT_MASK + 8 * n}]"
        lines.append(f"kmovq k{n + 1}, {place}" if load else f"kmovq {place}, k{n + 1}")
    return "; ".join(lines)


def _registers(load: bool) -> str:
    names = ("rax", "rcx", "rdx", "rbx")
    places = [f"[rdi + {_AT_GPR + 8 * n}]" for n in range(4)]
    pairs = zip(names, places, strict=True)
    return "; ".join(f"mov {name}, {place}" if load else f"mov {place}, {name}" for name, place in pairs)


_LOAD = f"""
    push rbx; push rbp; push r12; push r13; push r14; push r15
    stmxcsr [rdi + {_AT_OLD}]; ldmxcsr [rdi + {_AT_MXCSR}]
    {_moves(load=True)}; {_registers(load=True)}
    push qword ptr [rdi + {_AT_FLAGS}]; popfq
"""
_SAVE = f"""
    {_registers(load=False)}
    pushfq; pop qword ptr [rdi + {_AT_FLAGS}]
    {_moves(load=False)}; vzeroupper
    stmxcsr [rdi + {_AT_MXCSR}]; ldmxcsr [rdi + {_AT_OLD}]
    cld; pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx; ret
"""


@cache
def _wrapped(code: bytes) -> ctypes._CFunctionType:
    whole = assemble(_LOAD) + code + assemble(_SAVE)
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(oracle.host().place(whole))


def run_host(code: bytes, given: Operands) -> Operands:
    """Execute non-faulting code on this processor."""
    processor, function = oracle.host(), _wrapped(code)
    vectors = [x.to_bytes(64, "little") for x in given.vectors]
    processor.data[: _RECORD.size] = _RECORD.pack(
        given.memory, given.mxcsr, 0, given.flags | 0x202, *given.gpr, *given.masks, *vectors
    )
    function(processor.record)
    memory, mxcsr, _, flags, *rest = _RECORD.unpack(processor.data[: _RECORD.size])
    return Operands(
        tuple(rest[:4]),
        flags & fl.ARITHMETIC,
        tuple(int.from_bytes(x, "little") for x in rest[4 + MASKS :]),
        tuple(rest[4 : 4 + MASKS]),
        mxcsr & 0xFFFF,
        memory,
    )


def _vector(s: State, n: int) -> int:
    return sum(s[VEC + 8 * n + k] << 64 * k for k in range(8))


def run_pyemu(code: bytes, given: Operands, backend: str) -> tuple[Operands, Form]:
    """Execute one instruction on a back end; it must not fault."""
    m = oracle.machine(backend)
    s = m.s
    for n, value in zip(oracle.REGISTERS, given.gpr, strict=True):
        s[GPR + n] = value
    s[GPR + RDI], s[FLAGS], s[MXCSR] = DATA, 2, given.mxcsr
    fl.set_arithmetic(s, given.flags)
    for n, x in enumerate(given.vectors):
        for k in range(8):
            s[VEC + 8 * n + k] = x >> 64 * k & M64
    for n, x in enumerate(given.masks):
        s[OPMASK + 1 + n] = x
    m.ram[DATA : DATA + MEMORY] = given.memory
    form = m.step(code)
    assert s[FAULT_VECTOR] == NO_FAULT, f"{form.name}: fault {s[FAULT_VECTOR]}"
    result = Operands(
        tuple(s[GPR + n] for n in oracle.REGISTERS),
        fl.eflags(s) & fl.ARITHMETIC,
        tuple(_vector(s, n) for n in range(VECTORS)),
        tuple(s[OPMASK + 1 + n] for n in range(MASKS)),
        s[MXCSR],
        bytes(m.ram[DATA : DATA + MEMORY]),
    )
    return result, form


def check(text: str, given: Operands, backends: tuple[str, ...] = oracle.BACKENDS) -> None:
    """The instruction leaves the same on every back end as on the host, or as on the reference where the host's
    processor hasn't the instruction or the registers."""
    code = assemble(text)
    theirs, form = run_pyemu(code, given, "reference")
    judge, flags = "reference", fl.ARITHMETIC
    if executes(f"avx512f avx512bw avx512dq {form.feature}"):
        judge, theirs, flags = "host", run_host(code, given), oracle.defined_flags(form)
    for backend in backends:
        found = run_pyemu(code, given, backend)[0].differences(theirs, flags)
        assert not found, f"{text} ({code.hex(' ')}, {form.name}): {backend} != {judge}\n{found}\nfrom {given}"


def _wide(draw: st.DrawFn) -> int:
    return sum(draw(oracle.vectors) << 128 * k for k in range(4))


@st.composite
def operands(draw: st.DrawFn) -> Operands:
    """Vectors of numbers that matter, masks, memory, rounding."""
    gpr = draw(st.tuples(*[oracle.integers64] * 4))
    memory = b"".join(draw(oracle.vectors).to_bytes(16, "little") for _ in range(4)) * 4
    vectors = tuple(_wide(draw) for _ in range(VECTORS))
    masks = draw(st.tuples(*[oracle.integers64] * MASKS))
    return Operands(gpr, draw(oracle.flag_words), vectors, masks, draw(oracle.mxcsrs), memory)
