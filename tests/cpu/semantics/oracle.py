"""One instruction on the host's processor and in pyemu, from the same operands: what the tests of all families compare.

The host runs it inside a small wrapper that loads and saves the registers. RDI points at MEMORY bytes of data in both; RSI,
RSP, RBP and R8-R15 are not operands. Instructions that fault, jump or use the stack are compared with Unicorn
(machines.py).
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from dataclasses import dataclass
from functools import cache

import keystone
from hypothesis import Phase
from hypothesis import strategies as st

from pyemu.cpu import flags as fl
from pyemu.cpu.ops import Form
from pyemu.cpu.state import (
    FAULT_VECTOR,
    FLAGS,
    FPR,
    GPR,
    MXCSR,
    NO_FAULT,
    RAX,
    RBX,
    RCX,
    RDI,
    RDX,
    RIP,
    VEC,
    State,
)  # fmt: skip
from tests.cpu.semantics.machines import CODE, DATA, Machine
from tests.differential.host import executes, is_zen4

MEMORY = 128
REGISTERS = (RAX, RCX, RDX, RBX)
M64 = (1 << 64) - 1
ALL_MASKED = 0x1F80
PHASES = (Phase.generate, Phase.shrink)  # without explanations of failures: they trace every line


@dataclass(frozen=True)
class Operands:
    """What an instruction starts from, and what it leaves."""

    gpr: tuple[int, ...]  # RAX RCX RDX RBX
    flags: int  # the six arithmetic ones
    xmm: tuple[int, ...]  # XMM0-XMM2
    mm: tuple[int, ...]  # MM0, MM1
    mxcsr: int
    memory: bytes

    def differences(self, other: Operands, flags: int) -> str:
        """What differs, in words; flags only where the mask says."""
        lines = []
        for name, a, b in zip(("rax", "rcx", "rdx", "rbx"), self.gpr, other.gpr, strict=True):
            lines += [f"{name}: {a:#x} != {b:#x}"] if a != b else []
        if (self.flags ^ other.flags) & flags:
            lines.append(f"flags: {self.flags:#x} != {other.flags:#x} (compared: {flags:#x})")
        for kind, ours, theirs in (("xmm", self.xmm, other.xmm), ("mm", self.mm, other.mm)):
            for n, (a, b) in enumerate(zip(ours, theirs, strict=True)):
                lines += [f"{kind}{n}: {a:#x} != {b:#x}"] if a != b else []
        if self.mxcsr != other.mxcsr:
            lines.append(f"mxcsr: {self.mxcsr:#x} != {other.mxcsr:#x}")
        if self.memory != other.memory:
            lines.append(f"memory: {self.memory.hex()} != {other.memory.hex()}")
        return "\n".join(lines)


# ---- assembler -------------------------------------------------------------------------------------------------
@cache
def assemble(text: str, bits: int = 64) -> bytes:
    """Machine code of Intel-syntax text; `.byte` works too."""
    if text.startswith("hex "):
        return bytes.fromhex(text[4:])
    kind = {64: keystone.KS_MODE_64, 32: keystone.KS_MODE_32, 16: keystone.KS_MODE_16}[bits]
    code, _ = keystone.Ks(keystone.KS_ARCH_X86, kind).asm(text, CODE)
    assert code, text
    return bytes(code)


# ---- the host ------------------------------------------------------------------------------------------------------
# After MEMORY bytes of data: MXCSR before and after, the host's; flags; registers.
_AT_MXCSR, _AT_OLD, _AT_FLAGS, _AT_GPR, _AT_XMM, _AT_MM = 128, 136, 144, 152, 192, 240
_RECORD = struct.Struct("<128sQQQ4Q8x16s16s16s2Q")
_LOAD = f"""
    push rbx; push rbp; push r12; push r13; push r14; push r15
    stmxcsr [rdi + {_AT_OLD}]; ldmxcsr [rdi + {_AT_MXCSR}]
    movups xmm0, [rdi + {_AT_XMM}]; movups xmm1, [rdi + {_AT_XMM + 16}]; movups xmm2, [rdi + {_AT_XMM + 32}]
    movq mm0, [rdi + {_AT_MM}]; movq mm1, [rdi + {_AT_MM + 8}]
    mov rax, [rdi + {_AT_GPR}]; mov rcx, [rdi + {_AT_GPR + 8}]
    mov rdx, [rdi + {_AT_GPR + 16}]; mov rbx, [rdi + {_AT_GPR + 24}]
    push qword ptr [rdi + {_AT_FLAGS}]; popfq
"""
_SAVE = f"""
    mov [rdi + {_AT_GPR}], rax; mov [rdi + {_AT_GPR + 8}], rcx
    mov [rdi + {_AT_GPR + 16}], rdx; mov [rdi + {_AT_GPR + 24}], rbx
    pushfq; pop qword ptr [rdi + {_AT_FLAGS}]
    movups [rdi + {_AT_XMM}], xmm0; movups [rdi + {_AT_XMM + 16}], xmm1; movups [rdi + {_AT_XMM + 32}], xmm2
    movq [rdi + {_AT_MM}], mm0; movq [rdi + {_AT_MM + 8}], mm1; emms
    stmxcsr [rdi + {_AT_MXCSR}]; ldmxcsr [rdi + {_AT_OLD}]
    cld; pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx; ret
"""


class _Host:
    """Executable memory, and an aligned record beside it."""

    def __init__(self) -> None:
        self.code = mmap.mmap(-1, 1 << 22, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self.at = 0
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self.code))
        self.data = mmap.mmap(-1, 4096)
        self.record = ctypes.addressof(ctypes.c_char.from_buffer(self.data))

    def place(self, code: bytes) -> int:
        address = self.base + self.at
        self.code[self.at : self.at + len(code)] = code
        self.at += (len(code) + 15) & ~15
        return address


@cache
def host() -> _Host:
    return _Host()


@cache
def _wrapped(code: bytes) -> ctypes._CFunctionType:
    whole = assemble(_LOAD) + code + assemble(_SAVE)
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(host().place(whole))


def run_host(code: bytes, given: Operands) -> Operands:
    """Execute non-faulting code on this processor."""
    processor, function = host(), _wrapped(code)
    xmm = [x.to_bytes(16, "little") for x in given.xmm]
    processor.data[: _RECORD.size] = _RECORD.pack(
        given.memory, given.mxcsr, 0, given.flags | 0x202, *given.gpr, *xmm, *given.mm
    )
    function(processor.record)
    memory, mxcsr, _, flags, a, c, d, b, x0, x1, x2, m0, m1 = _RECORD.unpack(processor.data[: _RECORD.size])
    return Operands(
        (a, c, d, b),
        flags & fl.ARITHMETIC,
        tuple(int.from_bytes(x, "little") for x in (x0, x1, x2)),
        (m0, m1),
        mxcsr & 0xFFFF,
        memory,
    )


# ---- pyemu ---------------------------------------------------------------------------------------------------------
BACKENDS = ("reference", "interp", "jit")


@cache
def machine(backend: str) -> Machine:
    return Machine(64, backend)


def load(s: State, given: Operands) -> None:
    """Put operands into a state (memory apart)."""
    for n, value in zip(REGISTERS, given.gpr, strict=True):
        s[GPR + n] = value
    s[GPR + RDI] = DATA
    s[FLAGS] = 2
    fl.set_arithmetic(s, given.flags)
    for n, x in enumerate(given.xmm):
        s[VEC + 8 * n], s[VEC + 8 * n + 1] = x & M64, x >> 64
    for n, x in enumerate(given.mm):
        s[FPR + 2 * n] = x
    s[MXCSR] = given.mxcsr


def run_pyemu(code: bytes, given: Operands, backend: str = "reference") -> tuple[Operands, Form]:
    """Execute one instruction on a back end; it must not fault."""
    m = machine(backend)
    s = m.s
    load(s, given)
    m.ram[DATA : DATA + MEMORY] = given.memory
    form = m.step(code)
    assert s[FAULT_VECTOR] == NO_FAULT, f"{form.name}: fault {s[FAULT_VECTOR]}"
    assert s[RIP] == CODE + len(code), form.name
    result = Operands(
        tuple(s[GPR + n] for n in REGISTERS),
        fl.eflags(s) & fl.ARITHMETIC,
        tuple(s[VEC + 8 * n] | s[VEC + 8 * n + 1] << 64 for n in range(3)),
        tuple(s[FPR + 2 * n] for n in range(2)),
        s[MXCSR],
        bytes(m.ram[DATA : DATA + MEMORY]),
    )
    return result, form


FLAG_LETTERS = {"O": fl.OF, "S": fl.SF, "Z": fl.ZF, "A": fl.AF, "P": fl.PF, "C": fl.CF}


def defined_flags(form: Form) -> int:
    """The flags that the SDM defines after an instruction, for judges that are no Zen 4."""
    mask = fl.ARITHMETIC
    for letter in form.row.undefined:
        mask &= ~FLAG_LETTERS[letter]
    return mask


def check(text: str, given: Operands, backends: tuple[str, ...] = BACKENDS) -> None:
    """The instruction leaves the same on every back end as on the host, or as on the reference where the host's
    processor hasn't the instruction."""
    code = assemble(text)
    theirs, form = run_pyemu(code, given)
    judge, flags = "reference", fl.ARITHMETIC
    if executes(form.feature):
        judge, theirs = "host", run_host(code, given)
        flags = fl.ARITHMETIC if is_zen4() else defined_flags(form)
    for backend in backends:
        found = run_pyemu(code, given, backend)[0].differences(theirs, flags)
        assert not found, f"{text} ({code.hex(' ')}, {form.name}): {backend} != {judge}\n{found}\nfrom {given}"


# ---- operands ------------------------------------------------------------------------------------------------------
_CORNERS = [0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF,
            0x7FFFFFFFFFFFFFFF, 0x8000000000000000, M64, M64 - 1, 0xFF00FF00FF00FF00]  # fmt: skip
integers64 = st.one_of(st.sampled_from(_CORNERS), st.integers(0, M64))
flag_words = st.integers(0, 63).map(
    lambda n: sum(bit for k, bit in enumerate((fl.CF, fl.PF, fl.AF, fl.ZF, fl.SF, fl.OF)) if n >> k & 1)
)
_FLOATS = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    1.5,
    2.5,
    -2.5,
    3.0e9,
    -3.0e9,
    1e-310,
    1e300,
    1e-40,
    1e38,
    float("inf"),
    float("-inf"),
]
_NANS32, _NANS64 = [0x7FC00000, 0x7F800001, 0xFFC12345], [0x7FF8 << 48, 0x7FF0 << 48 | 1, 0xFFF8 << 48 | 77]


def _as_double(x: float) -> int:
    return int(struct.unpack("<Q", struct.pack("<d", x))[0])


def _as_single(x: float) -> int:
    return int(struct.unpack("<I", struct.pack("<f", x if abs(x) < 3e38 else float("inf")))[0])


_doubles = st.one_of(
    st.sampled_from(_FLOATS).map(_as_double), st.sampled_from(_NANS64), st.floats(width=64).map(_as_double)
)
_singles = st.one_of(
    st.sampled_from(_FLOATS).map(_as_single), st.sampled_from(_NANS32), st.floats(width=32).map(_as_single)
)
_bytes = st.one_of(st.sampled_from([0, 1, 0x61, 0x7F, 0x80, 0xFF]), st.integers(0, 255))


def _join(lanes: list[int], width: int) -> int:
    return sum(x << k * width for k, x in enumerate(lanes))


vectors = st.one_of(
    st.integers(0, (1 << 128) - 1),
    st.lists(_bytes, min_size=16, max_size=16).map(lambda v: _join(v, 8)),
    st.lists(_singles, min_size=4, max_size=4).map(lambda v: _join(v, 32)),
    st.lists(_doubles, min_size=2, max_size=2).map(lambda v: _join(v, 64)),
)
mxcsrs = st.builds(
    lambda rounding, ftz, daz: ALL_MASKED | rounding << 13 | ftz << 15 | daz << 6,
    st.integers(0, 3),
    st.integers(0, 1),
    st.integers(0, 1),
)


@st.composite
def scalars(draw: st.DrawFn) -> Operands:
    """Operands for instructions on general registers."""
    gpr = draw(st.tuples(integers64, integers64, integers64, integers64))
    memory = b"".join(draw(integers64).to_bytes(8, "little") for _ in range(2)) * 8
    return Operands(gpr, draw(flag_words), (0, 0, 0), (0, 0), ALL_MASKED, memory)


@st.composite
def simd(draw: st.DrawFn) -> Operands:
    """Operands for instructions on vectors."""
    gpr = draw(st.tuples(integers64, integers64, integers64, integers64))
    memory = b"".join(draw(vectors).to_bytes(16, "little") for _ in range(2)) * 4
    mm = (draw(vectors) & M64, draw(vectors) >> 64)
    return Operands(gpr, draw(flag_words), draw(st.tuples(vectors, vectors, vectors)), mm, draw(mxcsrs), memory)
