"""A test case: one instruction with all the state that a user program sees, as a record for every judge.

The host's driver (host.py) is native code and pyemu's State (subject.py) is native memory, so a record is laid out for
plain copies: the words from FPR to OPMASK lie exactly as in State. The same linear addresses mean the same in both:
a page of code slots, and data pages with an unmapped and a read-only one among them. Not here: which instructions and
operands (generator.py), what may differ (reviewed.py).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pyemu.cpu.state import FPR, FSW, FTW, IRQ_PENDING, MXCSR, OPMASK, VEC

# ---- linear addresses, alike in host and guest ----
CODE, SLOT, SLOTS = 0x2000_0000, 64, 4096
CODE_SIZE = SLOT * SLOTS
DATA = 0x3000_0000  # two pages to write, one that is not mapped, one to read only, and again none
DATA_SIZE, READ_ONLY = 0x2000, DATA + 0x3000
WINDOWS = ((DATA + 0xE00, 0x400), (DATA + 0x1E00, 0x200))  # what a case sets and what is compared: (address, size)
GAPS = ((DATA, 0xE00), (DATA + 0x1200, 0xC00))  # the rest of those pages, which a case finds filled with zeroes
PAGE_BOUNDARY, DATA_END = DATA + 0x1000, DATA + 0x2000
FILL = 0xCC  # what code slots hold behind the instruction: INT3

# ---- a record: byte offsets ----
R_GPR, R_RIP, R_FLAGS, R_VECTOR, R_ERROR, R_CR2, R_FS, R_GS, R_FP = 0, 128, 136, 144, 152, 160, 168, 176, 192
FP_WORDS = OPMASK + 8 - FPR
assert IRQ_PENDING == OPMASK + 8, "the record copies State from FPR to OPMASK"
R_MEMORY = R_FP + 8 * FP_WORDS
MEMORY = sum(size for _, size in WINDOWS)
R_END = R_MEMORY + MEMORY
RECORD = 4096
assert R_END <= RECORD
R_FSW, R_FTW, R_MXCSR = (R_FP + 8 * (word - FPR) for word in (FSW, FTW, MXCSR))
R_VEC, R_OPMASK = R_FP + 8 * (VEC - FPR), R_FP + 8 * (OPMASK - FPR)

# In a record that is given, R_VECTOR holds the bitness. In a result it is a vector or one of these:
ENDLESS, SHUTDOWN, DIED = 256, 257, 258
BREAKPOINT, PAGE_FAULT = 3, 14
WITH_ERROR = frozenset({8, 10, 11, 12, 13, 14, 17})

GPR_NAMES = "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15".split()
FP_NAMES = "fcw fsw ftw fop fip fdp fcs fds mxcsr".split()


def word(record: bytes, at: int) -> int:
    """A 64-bit word of a record."""
    return int(struct.unpack_from("<Q", record, at)[0])


@dataclass(frozen=True)
class Case:
    """An instruction in a slot, and the record it starts from."""

    code: bytes
    bits: int
    slot: int
    given: bytes  # RECORD bytes

    @property
    def rip(self) -> int:
        return CODE + SLOT * self.slot


def vector_name(vector: int) -> str:
    """What ended a case."""
    return {BREAKPOINT: "none", ENDLESS: "endless", SHUTDOWN: "shutdown", DIED: "died"}.get(vector, f"{vector}")


def describe(a: bytes, b: bytes, flags: int = ~0) -> list[str]:
    """What differs between two results, in words."""
    lines = []
    if word(a, R_VECTOR) != word(b, R_VECTOR):
        lines.append(f"exception: {vector_name(word(a, R_VECTOR))} != {vector_name(word(b, R_VECTOR))}")
    if max(word(a, R_VECTOR), word(b, R_VECTOR)) >= ENDLESS:
        return lines
    for name, at in (("rip", R_RIP), ("error code", R_ERROR), ("cr2", R_CR2), ("fs base", R_FS), ("gs base", R_GS)):
        if word(a, at) != word(b, at):
            lines.append(f"{name}: {word(a, at):#x} != {word(b, at):#x}")
    if (word(a, R_FLAGS) ^ word(b, R_FLAGS)) & flags:
        lines.append(f"rflags: {word(a, R_FLAGS):#x} != {word(b, R_FLAGS):#x}")
    lines += _words(a, b, R_GPR, GPR_NAMES)
    for n in range(8):
        at = R_FP + 16 * n
        if a[at : at + 16] != b[at : at + 16]:
            lines.append(f"x87 register {n}: {a[at : at + 10][::-1].hex()} != {b[at : at + 10][::-1].hex()}")
    lines += _words(a, b, R_FP + 128, FP_NAMES)
    for n in range(32):
        at = R_VEC + 64 * n
        if a[at : at + 64] != b[at : at + 64]:
            size = 16 if a[at + 16 : at + 64] == b[at + 16 : at + 64] else 64
            lines.append(f"vector {n}: {a[at : at + size][::-1].hex()} != {b[at : at + size][::-1].hex()}")
    lines += _words(a, b, R_OPMASK, [f"k{n}" for n in range(8)])
    at = R_MEMORY
    for address, size in WINDOWS:
        for k in range(0, size, 8):
            if a[at + k : at + k + 8] != b[at + k : at + k + 8]:
                lines.append(f"[{address + k:#x}]: {a[at + k : at + k + 8].hex()} != {b[at + k : at + k + 8].hex()}")
        at += size
    return lines


def _words(a: bytes, b: bytes, at: int, names: list[str]) -> list[str]:
    return [
        f"{name}: {word(a, at + 8 * n):#x} != {word(b, at + 8 * n):#x}"
        for n, name in enumerate(names)
        if word(a, at + 8 * n) != word(b, at + 8 * n)
    ]
