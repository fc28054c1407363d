"""Runs x87 instructions on the host CPU and in pyemu from the same complete x87 state, for comparison.

An `Image` is everything that an x87 instruction may read or write: registers in stack order, control, status and
abridged
tag words, a memory operand at [rdi + 112], RAX and RFLAGS. The host loads it with FRSTOR and reads it back with FNSAVE.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

from pyemu.cpu import flags
from pyemu.cpu.concrete import Concrete
from pyemu.cpu.decode import record as rc
from pyemu.cpu.decode.decoder import decode, start_fetch
from pyemu.cpu.host import Exit
from pyemu.cpu.mode import CODE32, CODE64
from pyemu.cpu.ops import build_table
from pyemu.cpu.state import (
    CS,
    DS,
    FAULT_VECTOR,
    FCS,
    FCW,
    FDP,
    FDS,
    FIP,
    FOP,
    FPR,
    FSW,
    FTW,
    GPR,
    ICOUNT,
    ICOUNT_LIMIT,
    M64,
    MODE,
    NO_FAULT,
    RAX,
    RDI,
    RECORD,
    RIP,
    SEG_SEL,
    State,
)
from pyemu.jit.engine import Engine
from tests.cpu import system_setup
from tests.cpu.semantics.machines import JUMP_TO_SELF, NoDevices
from tests.cpu.softfloat_host import HostLoop

M32 = 0xFFFFFFFF
HOST_CS, HOST_DS = 0x33, 0  # of a 64-bit process under Linux
MEMORY = 112  # offset of the memory operand
MEMORY_SIZE = 128
AREA = 0x20000  # where RDI points in pyemu
ARITHMETIC_FLAGS = flags.ARITHMETIC

_OUT, _RAX, _RFLAGS, _SIZE = 240, 352, 360, 368
_LOAD = bytes.fromhex("dd27 488b87 60010000 ffb7 68010000 9d".replace(" ", ""))
_STORE = bytes.fromhex("9c 8f87 68010000 ddb7 f0000000 488987 60010000 4881c7 70010000 48ffce".replace(" ", ""))
_EPILOGUE = bytes.fromhex("dbe3c3")


@dataclass
class Image:
    """The state around one instruction."""

    st: list[int] = field(default_factory=lambda: [0] * 8)
    control: int = 0x37F
    status: int = 0
    tags: int = 0  # bit n: physical register n isn't empty
    memory: bytes = bytes(16)
    rax: int = 0
    rflags: int = 0x202
    pointers: tuple[object, ...] = ()  # FOP, FIP, FCS, FDP, FDS afterwards; what they should point at by its name

    def top(self) -> int:
        """TOP."""
        return self.status >> 11 & 7


@cache
def _loop(code: bytes) -> HostLoop:
    return HostLoop(b"", _LOAD, code, _STORE, _EPILOGUE)


def _full_tags(tags: int) -> int:
    """FRSTOR only looks at which registers are empty."""
    return sum(3 << 2 * n for n in range(8) if not tags >> n & 1)


def _abridged(word: int) -> int:
    return sum(1 << n for n in range(8) if word >> 2 * n & 3 != 3)


def _name_pointers(
    fop: int, fip: int, fcs: int, fdp: int, fds: int, code: tuple[int, int], memory: tuple[int, int]
) -> tuple[object, ...]:
    """Pointers at the instruction and at the memory operand (each a selector and an address) by name."""
    instruction = ("code", "cs") if (fcs, fip) == code else (fip, fcs)
    operand = ("memory", "ds") if (fds, fdp) == memory else (fdp, fds)
    return (fop, *instruction, *operand)


def run_host(code: bytes, images: Sequence[Image]) -> list[Image]:
    """Execute `code` from each image; an image must have no unmasked pending exception."""
    records = b""
    for image in images:
        record = bytearray(_SIZE)
        struct.pack_into("<III", record, 0, image.control, image.status, _full_tags(image.tags))
        for n, bits in enumerate(image.st):
            record[28 + 10 * n : 38 + 10 * n] = bits.to_bytes(10, "little")
        record[MEMORY : MEMORY + len(image.memory)] = image.memory
        struct.pack_into("<QQ", record, _RAX, image.rax, image.rflags)
        records += record
    loop = _loop(code)
    data = loop.run(records, len(images))
    results = []
    for number, image in enumerate(images):
        record = bytearray(data[_SIZE * number : _SIZE * (number + 1)])
        control, status, tags = (word & 0xFFFF for word in struct.unpack_from("<III", record, _OUT))
        st = [int.from_bytes(record[_OUT + 28 + 10 * n : _OUT + 38 + 10 * n], "little") for n in range(8)]
        rax, rflags = struct.unpack_from("<QQ", record, _RAX)
        memory = bytes(record[MEMORY : MEMORY + len(image.memory)])
        fip, fcs, fop, fdp, fds = struct.unpack_from("<IHHIH", record, _OUT + 12)
        operand = loop.data_address + _SIZE * number + MEMORY
        pointers = _name_pointers(fop, fip, fcs, fdp, fds, (HOST_CS, loop.code_address & M32), (HOST_DS, operand & M32))
        results.append(Image(st, control, status, _abridged(tags), memory, rax, rflags & ARITHMETIC_FLAGS, pointers))
    return results


class Emulated:
    """pyemu, one instruction at a time; in 64-bit mode unless another machine is given. `step` is for "reference"."""

    def __init__(self, machine: system_setup.Machine | None = None, backend: str = "reference") -> None:
        self.machine = machine or system_setup.long()
        self.s: State = self.machine.s
        self.concrete = Concrete(self.s)
        self.forms = build_table().forms
        self.engine = None if backend == "reference" else Engine(self.s, NoDevices(), self.s.ram, backend)

    def load(self, image: Image) -> None:
        """Make the image the processor's state."""
        s = self.s
        s[FAULT_VECTOR] = NO_FAULT
        s[FCW], s[FSW], s[FTW] = image.control, image.status, image.tags
        s[FOP] = s[FIP] = s[FCS] = s[FDP] = s[FDS] = 0
        for n, bits in enumerate(image.st):
            at = FPR + 2 * (image.top() + n & 7)
            s[at], s[at + 1] = bits & M64, bits >> 64
        self.s.ram[AREA + MEMORY : AREA + MEMORY + len(image.memory)] = image.memory
        s[GPR + RAX], s[GPR + RDI] = image.rax, AREA
        flags.set_eflags(s, image.rflags, ARITHMETIC_FLAGS)

    def read(self, image: Image) -> Image:
        """The processor's state, with as much memory as `image` has."""
        s = self.s
        top = s[FSW] >> 11 & 7
        words = [FPR + 2 * (top + n & 7) for n in range(8)]
        st = [s[at] | s[at + 1] << 64 for at in words]
        memory = self.s.ram[AREA + MEMORY : AREA + MEMORY + len(image.memory)]
        rflags = flags.eflags(s) & ARITHMETIC_FLAGS
        code, data = (s[SEG_SEL + CS], system_setup.CODE), (s[SEG_SEL + DS], AREA + MEMORY)
        pointers = _name_pointers(s[FOP], s[FIP], s[FCS], s[FDP], s[FDS], code, data)
        return Image(st, s[FCW], s[FSW], s[FTW], bytes(memory), s[GPR + RAX], rflags, pointers)

    def step(self, code: bytes) -> int:
        """Execute one instruction; -1, or the vector that it raised."""
        s = self.s
        start = system_setup.CODE
        s.ram[start : start + len(code)] = code
        s[RIP] = start
        word = s[MODE]
        failed = start_fetch(s, start) or decode(s, start, start, word & CODE64, (word & CODE32) >> 1)
        if not failed:
            words = [s[RECORD + n] for n in range(rc.WORDS)]
            if not self.concrete.execute(self.forms[words[rc.PACKED] & 0xFFFF], words):
                assert s[RIP] == start + len(code)
                return -1
        return int(s[FAULT_VECTOR])

    def absolute(self, digit: int, address: int) -> bytes:
        """ModRM and displacement of [address] in 16- or 32-bit mode."""
        if self.s[MODE] & CODE32:
            return bytes([digit << 3 | 5]) + struct.pack("<I", address)
        return bytes([digit << 3 | 6]) + struct.pack("<H", address)

    def run(self, code: bytes, images: Sequence[Image]) -> list[Image]:
        """What run_host() does; no instruction may raise an exception."""
        results = []
        if self.engine is not None:
            self.s.ram[system_setup.CODE : system_setup.CODE + len(code) + 2] = code + JUMP_TO_SELF
            self.engine.flush()
        for image in images:
            self.load(image)
            if self.engine is None:
                assert self.step(code) == -1
            else:
                self._run_native(self.engine, code)
            results.append(self.read(image))
        return results

    def _run_native(self, engine: Engine, code: bytes) -> None:
        """The instruction and the jump after it: a block that generated code runs as a whole."""
        s = self.s
        s[RIP] = system_setup.CODE
        s[ICOUNT_LIMIT] = s[ICOUNT] + 2
        assert engine.run() == Exit.BUDGET
        assert s[RIP] == system_setup.CODE + len(code)
