"""One instruction of 32-bit code on the host's processor: what 64-bit mode doesn't have (AAA, DAA, one-byte INC).

A wrapper goes to 32-bit code with a far return, in memory below 4 GiB, and back with a far jump. EDI points at MEMORY
bytes of data; ESP is a small stack. Otherwise as oracle.py, whose operands this takes.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from functools import cache

from pyemu.cpu import flags as fl
from pyemu.cpu.state import FAULT_VECTOR, FLAGS, GPR, MXCSR, NO_FAULT, RDI
from tests.cpu.semantics.machines import DATA, Machine
from tests.cpu.semantics.oracle import (
    BACKENDS,
    MEMORY,
    REGISTERS,
    Operands,
    assemble,
    defined_flags,
)
from tests.differential.host import is_zen4

MAP_32BIT = 0x40
CODE64, CODE32, FLAT = 0x33, 0x23, 0x2B  # Linux's user segments on x86-64
M32 = 0xFFFFFFFF
_AT_FLAGS, _AT_GPR, _AT_RSP = 128, 132, 152  # in the record, after MEMORY bytes of data
_RECORD = struct.Struct("<128sI4I")
_STACK_TOP = 0x3000


class _Host:
    def __init__(self) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_32BIT
        self.code = mmap.mmap(-1, 1 << 18, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self.data = mmap.mmap(-1, 1 << 14, flags=flags)
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self.code))
        self.record = ctypes.addressof(ctypes.c_char.from_buffer(self.data))
        assert self.base + (1 << 18) <= 1 << 32
        self.at = 0

    def place(self, code: bytes) -> int:
        address = self.base + self.at
        self.code[self.at : self.at + len(code)] = code
        self.at += (len(code) + 15) & ~15
        return address


@cache
def _host() -> _Host:
    return _Host()


@cache
def _wrapped(code: bytes) -> ctypes._CFunctionType:
    host = _host()
    leave = assemble(f"mov rsp, [rdi + {_AT_RSP}]; cld; pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx; ret")
    back = host.place(leave)
    registers = ("eax", "ecx", "edx", "ebx")
    load = "; ".join(f"mov {name}, [edi + {_AT_GPR + 4 * n}]" for n, name in enumerate(registers))
    save = "; ".join(f"mov [edi + {_AT_GPR + 4 * n}], {name}" for n, name in enumerate(registers))
    body = assemble(f"{load}; push dword ptr [edi + {_AT_FLAGS}]; popfd", 32) + code
    body += assemble(f"{save}; pushfd; pop dword ptr [edi + {_AT_FLAGS}]", 32)
    inside = host.place(body + b"\xea" + struct.pack("<IH", back, CODE64))
    enter = f"""
        push rbx; push rbp; push r12; push r13; push r14; push r15; mov [rdi + {_AT_RSP}], rsp
        mov eax, {FLAT}; mov ds, eax; mov es, eax
        lea rsp, [rdi + {_STACK_TOP}]; push {CODE32}; push {inside}; retfq
    """
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(host.place(assemble(enter)))


def run_host(code: bytes, given: Operands) -> Operands:
    """Execute non-faulting 32-bit code on this processor."""
    host, function = _host(), _wrapped(code)
    host.data[: _RECORD.size] = _RECORD.pack(given.memory, given.flags | 0x202, *(x & M32 for x in given.gpr))
    function(host.record)
    memory, flags, *gpr = _RECORD.unpack(host.data[: _RECORD.size])
    return Operands(tuple(gpr), flags & fl.ARITHMETIC, given.xmm, given.mm, given.mxcsr, memory)


@cache
def _machine(backend: str) -> Machine:
    return Machine(32, backend)


def check(text: str, given: Operands) -> None:
    """The 32-bit instruction leaves the same on every back end as on the host, all flags included."""
    code = assemble(text, 32)
    theirs = run_host(code, given)
    for backend in BACKENDS:
        m = _machine(backend)
        s = m.s
        for n, value in zip(REGISTERS, given.gpr, strict=True):
            s[GPR + n] = value & M32
        s[GPR + RDI], s[FLAGS], s[MXCSR] = DATA, 2, given.mxcsr
        fl.set_arithmetic(s, given.flags)
        m.ram[DATA : DATA + MEMORY] = given.memory
        form = m.step(code)
        assert s[FAULT_VECTOR] == NO_FAULT, f"{form.name}: fault {s[FAULT_VECTOR]}"
        gpr = tuple(s[GPR + n] & M32 for n in REGISTERS)
        memory = bytes(m.ram[DATA : DATA + MEMORY])
        ours = Operands(gpr, fl.eflags(s) & fl.ARITHMETIC, given.xmm, given.mm, given.mxcsr, memory)
        found = ours.differences(theirs, fl.ARITHMETIC if is_zen4() else defined_flags(form))
        assert not found, f"{text} ({code.hex(' ')}, {form.name}): {backend} != host\n{found}\nfrom {given}"
