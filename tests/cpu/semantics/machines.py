"""A flat processor of any bitness with a little RAM, in pyemu and in Unicorn, for one instruction at a time."""

from __future__ import annotations

import ctypes
import importlib
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from pyemu.cpu import flags as fl
from pyemu.cpu import mode, physical, segments, tlb
from pyemu.cpu.concrete import Concrete
from pyemu.cpu.decode import record as rc
from pyemu.cpu.decode.decoder import decode, start_fetch
from pyemu.cpu.faults import DF
from pyemu.cpu.features import WORDS
from pyemu.cpu.host import Exit
from pyemu.cpu.ops import Form, build_table
from pyemu.cpu.state import (
    CPU_FEATURES,
    CR0,
    CR4,
    CS,
    EFER,
    FAULT_VECTOR,
    FLAGS,
    GPR,
    ICOUNT,
    ICOUNT_LIMIT,
    M64,
    NO_FAULT,
    RANGE_COUNT,
    RANGES,
    RECORD,
    RIP,
    XCR0,
    new_state,
)  # fmt: skip
from pyemu.jit.engine import Engine
from tests.cpu import twins

# Its annotations are incomplete.
unicorn: Any = importlib.import_module("unicorn")
ux: Any = importlib.import_module("unicorn.x86_const")

RAM, CODE, DATA, STACK = 0x20000, 0x1000, 0x4000, 0x8000
ATTRIBUTES = {64: (0xA09B, 0xC093), 32: (0xC09B, 0xC093), 16: (0x009B, 0x0093)}  # code, data


JUMP_TO_SELF = b"\xeb\xfe"
UNKNOWN = 256  # an exception of which Unicorn does not tell the vector


@cache
def forms() -> tuple[Form, ...]:
    """The opcode table."""
    return tuple(build_table().forms)


@dataclass(frozen=True)
class Situation:
    """All of the state that the comparison with Unicorn sets and looks at."""

    gpr: tuple[int, ...]
    flags: int
    rip: int
    memory: bytes = field(repr=False)  # DATA to STACK + 0x1000
    vector: int = -1  # exception

    def differences(self, other: Situation, flags: int) -> str:
        """What differs, in words."""
        if self.vector >= 0 or other.vector >= 0:
            same = self.vector == other.vector or UNKNOWN in (self.vector, other.vector)
            return "" if same else f"exception {self.vector} != {other.vector}"
        lines = [
            f"gpr{n}: {a:#x} != {b:#x}" for n, (a, b) in enumerate(zip(self.gpr, other.gpr, strict=True)) if a != b
        ]
        if (self.flags ^ other.flags) & flags:
            lines.append(f"flags: {self.flags:#x} != {other.flags:#x} (compared: {flags:#x})")
        if self.rip != other.rip:
            lines.append(f"rip: {self.rip:#x} != {other.rip:#x}")
        if self.memory != other.memory:
            at = next(n for n, (a, b) in enumerate(zip(self.memory, other.memory, strict=True)) if a != b)
            lines.append(
                f"memory at {DATA + at:#x}: {self.memory[at : at + 16].hex()} != {other.memory[at : at + 16].hex()}"
            )
        return "\n".join(lines)


class NoDevices:
    """A host without anything behind the processor."""

    def mmio_read(self, gpa: int, size: int) -> int:
        return 0

    def mmio_write(self, gpa: int, size: int, value: int) -> None:
        pass

    port_read, port_write = mmio_read, mmio_write

    def acknowledge_interrupt(self) -> int:
        return -1

    def apic_msr_read(self, index: int) -> int | None:
        return None

    def apic_msr_write(self, index: int, value: int) -> bool:
        return False

    def get_tpr(self) -> int:
        return 0

    def set_tpr(self, value: int) -> None:
        pass

    def floating_point_error(self) -> None:
        pass

    def read_tsc(self) -> int:
        return 0

    def random_bits(self) -> int:
        return 0x0123456789ABCDEF


class Machine:
    """pyemu: flat segments, no paging, CPL 0 (64-bit mode without paging exists only here). 16 bits are real mode."""

    def __init__(self, bits: int, backend: str = "reference") -> None:
        self.s = new_state()
        for n in range(WORDS):
            self.s[CPU_FEATURES + n] = M64  # also those that are not announced yet
        buffer = ctypes.create_string_buffer(RAM)
        self.keep = twins.attach(self.s, buffer)
        self.ram = memoryview(buffer).cast("B")
        s = self.s
        s[RANGE_COUNT] = 1
        s[RANGES], s[RANGES + 1], s[RANGES + 2] = 0, RAM, physical.RAM
        code, data = ATTRIBUTES[bits]
        limit = 0xFFFFFFFF if bits > 16 else 0xFFFF
        for segment in range(6):
            segments.set_segment(s, segment, 0, 0, limit, code if segment == CS else data)
        s[CR0] = 0x10 if bits == 16 else 0x11
        s[CR4] = 1 << 9 | 1 << 10 | 1 << 18  # OSFXSR, OSXMMEXCPT, OSXSAVE
        s[XCR0] = 0xE7
        s[EFER] = 0x500 if bits == 64 else 0
        s[FLAGS], s[FAULT_VECTOR] = 2, NO_FAULT
        tlb.flush_all(s)
        mode.update(s)
        self.bits, self.concrete = bits, Concrete(s)
        self.engine = None if backend == "reference" else Engine(s, NoDevices(), s.ram, backend)
        self.last = b""

    def step(self, code: bytes) -> Form:
        """Decode and execute the instruction `code` at CODE; a fault stays noted in FAULT_VECTOR."""
        s = self.s
        self.ram[CODE : CODE + 18] = (code + JUMP_TO_SELF).ljust(18, b"\x90")
        s[FAULT_VECTOR], s[RIP] = NO_FAULT, CODE
        assert start_fetch(s, CODE) == 0
        assert decode(s, CODE, CODE, int(self.bits == 64), int(self.bits == 32)) == 0, f"{code.hex(' ')} is not decoded"
        words = [s[RECORD + n] for n in range(rc.WORDS)]
        assert words[rc.PACKED] >> rc.LENGTH & 0xFF == len(code), f"{code.hex(' ')} has another length"
        form = forms()[words[rc.PACKED] & 0xFFFF]
        if self.engine is None:
            self.concrete.execute(form, words)
        else:
            self._run_native(self.engine, code)
        return form

    def _run_native(self, engine: Engine, code: bytes) -> None:
        """One instruction, which must not fault, and the jump after it: a block that generated code runs as a whole."""
        s = self.s
        if code != self.last:
            engine.flush()
            self.last = code
        s[ICOUNT_LIMIT] = s[ICOUNT] + 2
        reason = engine.run()
        assert reason == Exit.BUDGET, f"{code.hex(' ')}: {reason.name}"

    def run(self, code: bytes, given: Situation) -> tuple[Situation, Form]:
        """Execute one instruction."""
        s = self.s
        for n, value in enumerate(given.gpr):
            s[GPR + n] = value
        fl.set_eflags(s, given.flags, ~0)
        self.ram[DATA : STACK + 0x1000] = given.memory
        form = self.step(code)
        vector = -1 if s[FAULT_VECTOR] == NO_FAULT else s[FAULT_VECTOR]
        memory = bytes(self.ram[DATA : STACK + 0x1000])
        return Situation(tuple(s[GPR + n] for n in range(16)), fl.eflags(s), s[RIP], memory, vector), form


_REGISTERS = (
    "RAX RCX RDX RBX RSP RBP RSI RDI R8 R9 R10 R11 R12 R13 R14 R15",
    "EAX ECX EDX EBX ESP EBP ESI EDI",
)
_MODES = {64: unicorn.UC_MODE_64, 32: unicorn.UC_MODE_32, 16: unicorn.UC_MODE_16}


class Other:
    """Unicorn, with the same memory."""

    def __init__(self, bits: int) -> None:
        self.uc = unicorn.Uc(unicorn.UC_ARCH_X86, _MODES[bits])
        self.uc.mem_map(0, RAM)
        self.registers = [getattr(ux, f"UC_X86_REG_{n}") for n in _REGISTERS[bits != 64].split()]
        self.rip = {64: ux.UC_X86_REG_RIP, 32: ux.UC_X86_REG_EIP, 16: ux.UC_X86_REG_IP}[bits]
        self.vector = -1
        self.uc.hook_add(unicorn.UC_HOOK_INTR, self._interrupt)

    def _interrupt(self, uc: Any, number: int, _: object) -> None:
        self.vector = number
        uc.emu_stop()

    def run(self, code: bytes, given: Situation) -> Situation:
        """Execute one instruction."""
        uc = self.uc
        uc.mem_write(CODE, code.ljust(16, b"\x90"))
        uc.ctl_flush_tb()
        uc.mem_write(DATA, given.memory)
        for register, value in zip(self.registers, given.gpr, strict=False):
            uc.reg_write(register, value)
        uc.reg_write(ux.UC_X86_REG_EFLAGS, given.flags)
        self.vector = -1
        try:
            uc.emu_start(CODE, RAM + 1, count=1)
        except unicorn.UcError as error:
            # a fetch that fails belongs to the next instruction
            if self.vector < 0 and error.errno != unicorn.UC_ERR_FETCH_UNMAPPED:
                self.vector = UNKNOWN
        gpr = [uc.reg_read(r) for r in self.registers]
        gpr += list(given.gpr[len(gpr) :])
        flags = uc.reg_read(ux.UC_X86_REG_EFLAGS)
        if self.vector == DF or (self.vector < 0 and uc.reg_read(self.rip) == CODE):
            self.vector = UNKNOWN  # some exceptions stop it without a word
        memory = bytes(uc.mem_read(DATA, STACK + 0x1000 - DATA))
        return Situation(tuple(gpr), flags, uc.reg_read(self.rip), memory, self.vector)


@cache
def machine(bits: int) -> Machine:
    """The pyemu of a bitness."""
    return Machine(bits)


@cache
def other(bits: int) -> Other:
    """The Unicorn of a bitness."""
    return Other(bits)
