"""The machine that runs random programs: a whole one, with its devices, whose vCPU is driven from here.

Each program starts in a world (worlds.py) with random registers, control bits, tables and code, and may take LIMIT
instructions. Between programs memory and state are put back by copying, so that thousands a second run and each can be
repeated from its seed and number. With two back ends the same program runs on both, and must leave the same.
"""

from __future__ import annotations

import random
import struct
from array import array
from dataclasses import dataclass
from hashlib import blake2b

from pyemu import Machine
from pyemu.check import difference_of_states
from pyemu.config import Icount
from pyemu.cpu import flags, mode, tlb
from pyemu.cpu.host import Exit
from pyemu.cpu.state import (
    CR0,
    CR4,
    CR4_ALLOWED,
    DR,
    EFER,
    FLAGS,
    FPR,
    FRAME,
    GPR,
    ICOUNT,
    ICOUNT_LIMIT,
    IRQ_PENDING,
    LAYOUT,
    RCX,
    RDX,
    RIP,
    RSP,
    STAR,
    SYSENTER_CS,
    TLB,
    TLB_LOG_COUNT,
    XCR0,
)  # fmt: skip
from pyemu.jit.engine import Engine
from tests.fuzz import worlds
from tests.fuzz.programs import Writer

LIMIT = 300
GROUP, SLOT = 32, 128  # programs that share a memory image, and the bytes of each
RENEW = 256  # groups between new pools, fillers and values
VALUES = 2048  # for registers
MEMORY = 4 << 20
ADDRESSES = (
    0, 0x6000, 0x7FF0, 0x9000, 0xFFFC, 0x10000, 0x10FF8, 0x13000, 0x1FFFF, 0xA0000, 0xFEE00000, 0xFEE00080, 0xFEE000F0,
    0xFEE00300, 0xFEC00000, 0xFED00000, 0xB0000000, 0xE0000000, 0x3FFFFF, 0x400000, 0xFFFFFFF0, (1 << 47) - 4, 1 << 47,
    0xFFFF800000000000, (1 << 64) - 8, 1 << 40,
)  # fmt: skip
PORTS = (
    0x20, 0x21, 0xA0, 0xA1, 0x40, 0x43, 0x60, 0x61, 0x64, 0x70, 0x71, 0x80, 0x92, 0xB2, 0x3F8, 0x3F9, 0x3FB, 0xCF8,
    0xCFC, 0x510, 0x511, 0x600, 0x604, 0x608, 0xCF9, 0x402, 0xFFFF, 0xFFFE,
)  # fmt: skip
MSRS = (
    0x10, 0x1B, 0x3A, 0x8B, 0xFE, 0x174, 0x175, 0x176, 0x1A0, 0x1D9, 0x200, 0x20F, 0x250, 0x277, 0x2FF, 0x6E0, 0x800,
    0x802, 0x80B, 0x830, 0xC0000080, 0xC0000081, 0xC0000082, 0xC0000084, 0xC0000100, 0xC0000101, 0xC0000102, 0xC0000103,
    0xDA0, 0x40000000, 0xC0010015,
)  # fmt: skip
ENTRIES = (0, 0x10003, 0x13007, 0xFEE00007, 0x87, 0xFEC0008F, 0xE7 | 1 << 63, 0x400007, 0x6005)
_INTERESTING = (0, 1, 2, 3, 5, 8, 31, 0x7F, 0x80, 0xFF, 0x8000, 0xFFFF, 0x80000000, 0xFFFFFFFF, 1 << 63, (1 << 64) - 1)


@dataclass(frozen=True)
class Program:
    """What a program runs in."""

    world: worlds.World
    memory: bytes
    patches: dict[int, bytes]
    words: dict[int, int]
    fp: bytes

    def __str__(self) -> str:
        at = self.words[RIP]
        return f"{self.world.name}, at {at:#x}: {self.memory[at : at + 24].hex(' ')}"


class Target:
    """One or two machines, alike but for their back end."""

    def __init__(self, backends: list[str], seed: int) -> None:
        self.seed = seed
        self.machines = [
            Machine(accelerator=name, icount=Icount(shift=4), wall_start_ns=10**18, memory=MEMORY) for name in backends
        ]
        self.worlds = worlds.all_worlds()
        self.writer = Writer(seed)
        self.pools = self.group = -1
        self.space: dict[int, bytes] = {}
        self.values: list[int] = []
        self.hashes = array("Q")  # of the programs' bytes, for those who count distinct ones
        self.world, self.memory = self.worlds[0], b""
        self.instructions = 0
        self.ends: dict[str, int] = {}
        for m in self.machines:
            m.io.start = lambda: None  # type: ignore[method-assign]  # nothing from outside, no other thread
            m.loop.start = lambda *_: None  # type: ignore[method-assign]
            m.prepare()
        self.bytes = [memoryview(m.state).cast("B") for m in self.machines]
        s = self.machines[0].state
        tlb.flush_all(s)
        self.empty_tlb = bytes(self.bytes[0][8 * TLB : 8 * (TLB + LAYOUT["tlb"].count)])
        self.idle = bytes(self.bytes[0][8 * IRQ_PENDING : 8 * FRAME])
        self.known = [i for n in ("gpr", "rip", "cr0", "cr2", "cr3", "cr4", "efer", "cpl", "seg_sel", "icount", "mxcsr")
                      for i in range(LAYOUT[n].index, LAYOUT[n].index + LAYOUT[n].count)]  # fmt: skip

    def close(self) -> None:
        for m in self.machines:
            m.close()

    # ---- one program ----
    def prepare(self, number: int) -> Program:
        """Everything random about program `number`: world, memory, words of the state, floating-point state."""
        group = number // GROUP
        if group // RENEW != self.pools:
            self.pools = group // RENEW
            self.writer = Writer(self.seed << 32 | self.pools)
            self.writer.renew()
            self.space = {bits: self._space(bits) for bits in (16, 32, 64)}
            self.values = [self._value() for _ in range(VALUES)]
        if group != self.group:
            self.group = group
            self.writer.random = random.Random(self.seed << 40 | group)
            self.world, self.memory = self._image()
        r = self.writer.random = random.Random(self.seed << 40 | number << 1 | 1)
        patches: dict[int, bytes] = {}
        if r.random() < 0.5:
            self._corrupt(patches)
        code = worlds.CODE + SLOT * (number % GROUP)
        if r.random() < 0.05:
            code = r.randrange(0x6000, 0x7FFF)
        return Program(
            self.world, self.memory, patches, self._words(self.world, code), r.choice(self.writer.generator.fps)
        )

    def _image(self) -> tuple[worlds.World, bytes]:
        """A world whose memory is full of programs."""
        r = self.writer.random
        world = r.choice(self.worlds)
        memory = bytearray(world.memory)
        shift = r.randrange(0, 64)
        for first, end in worlds.FILLERS:
            memory[first:end] = self.space[world.bits][first + shift : end + shift]
        first, end = worlds.HANDLERS
        if r.random() < 0.9:
            memory[first:end] = self.space[world.bits][first + shift : end + shift]
        for n in range(GROUP):
            at = worlds.CODE + SLOT * n
            memory[at : at + SLOT] = self.writer.program(world.bits, SLOT)[:SLOT]
        return world, bytes(memory)

    def _space(self, bits: int) -> bytes:
        """Code everywhere."""
        return self.writer.program(bits, worlds.SPACE + 64)

    def _corrupt(self, patches: dict[int, bytes]) -> None:
        """Other page tables, gates and descriptors."""
        r = self.writer.random
        if r.random() < 0.4:
            for _ in range(r.randrange(1, 8)):
                at = r.randrange(0x10000, 0x17000, 0x1000) + 8 * r.choice((0, 1, 6, 9, 511))
                entry = r.choice((r.getrandbits(64), *ENTRIES))
                patches[at] = struct.pack("<Q", entry ^ (1 << r.randrange(64) if r.random() < 0.3 else 0))
        if r.random() < 0.3:
            for _ in range(r.randrange(1, 12)):
                at = r.choice((0x1000, 0x2000, 0x3000)) + 8 * r.randrange(0, 32)
                patches[at] = r.randbytes(8)
        if r.random() < 0.1:
            at = r.choice((0x1000, 0x2000)) + 8 * r.randrange(0, 32) + 5
            patches[at] = bytes([self.memory[at] ^ 1 << r.randrange(8)])

    def _value(self) -> int:
        r = self.writer.random
        kind = r.random()
        if kind < 0.35:
            return r.choice(_INTERESTING)
        if kind < 0.75:
            return r.choice(ADDRESSES) + r.choice((0, 0, 1, 4, 8, -1, 0xFF8)) & (1 << 64) - 1
        return r.getrandbits(64)

    def _words(self, world: worlds.World, rip: int) -> dict[int, int]:
        """Words of the state that differ from the world's."""
        r = self.writer.random
        mask = (1 << 64) - 1 if world.bits == 64 else 0xFFFFFFFF
        words = {GPR + n: value & mask for n, value in enumerate(r.choices(self.values, k=16))}
        if r.random() < 0.7:
            words[GPR + RSP] = r.choice((0x9000, 0xC000, 0xA004, 0xD000))
        if r.random() < 0.4:
            words[GPR + RDX] = r.choice(PORTS)
        if r.random() < 0.5:
            words[GPR + RCX] = r.choice(MSRS) if r.random() < 0.5 else r.randrange(0, 70)
        words[RIP] = rip
        # changed bits of control registers and flags; target.start() applies them
        words[CR0] = sum(1 << bit for bit in (1, 2, 3, 16, 18) if r.random() < 0.15)
        words[CR4] = sum(1 << b for b in (0, 1, 2, 3, 4, 7, 8, 11, 16, 17, 18, 20, 21, 22) if r.random() < 0.25)
        words[FLAGS] = sum(1 << b for b in (8, 9, 10, 14, 18, 21) if r.random() < 0.15) | r.choice((0, 0, 3)) << 12
        words[XCR0] = r.choice((1, 3, 7, 0xE7, 0xE7))
        words[EFER] = sum(1 << b for b in (0, 11) if r.random() < 0.5)
        words[STAR] = r.choice((0x0023001000000000, 0x0013000800000000, r.getrandbits(64)))
        words[SYSENTER_CS] = r.choice((0, 8, 0x10))
        if r.random() < 0.1:
            for n in (0, 1, 2, 3):
                words[DR + n] = r.choice(self.values)
            words[DR + 7] = r.getrandbits(32) & 0xFFFF03FF | 0x400
        return words

    def start(self, which: int, program: Program) -> None:
        """Put a program and its state into a machine."""
        m, state = self.machines[which], self.bytes[which]
        s = m.state
        state[: 8 * FPR] = program.world.words
        toggled = (CR0, CR4, FLAGS, EFER)
        for index, value in program.words.items():
            s[index] = s[index] ^ value if index in toggled else value
        s[CR4] &= s[CR4_ALLOWED] | 0x600
        state[8 * FPR : 8 * IRQ_PENDING] = program.fp
        state[8 * IRQ_PENDING : 8 * FRAME] = self.idle
        s[ICOUNT], s[ICOUNT_LIMIT] = 0, LIMIT
        flags.set_arithmetic(s, 0)
        state[8 * TLB : 8 * TLB + len(self.empty_tlb)] = self.empty_tlb
        s[TLB_LOG_COUNT] = 0
        mode.update(s)
        self._restore(m, program)

    def _restore(self, m: Machine, program: Program) -> None:
        """Make memory what the program expects, and drop all translations."""
        ram = m.ram.whole
        ram[: worlds.SPACE] = program.memory
        for at, data in program.patches.items():
            ram[at : at + len(data)] = data
        engine = m.accelerator if isinstance(m.accelerator, Engine) else None
        if engine is not None:
            engine.flush()

    def run(self, number: int) -> str:
        """Run program `number`; returns what the back ends disagree about, or ""."""
        program = self.prepare(number)
        at = program.words[RIP]
        self.hashes.append(int.from_bytes(blake2b(program.memory[at : at + SLOT], digest_size=8).digest(), "little"))
        reasons = []
        for which, m in enumerate(self.machines):
            self.start(which, program)
            assert m.accelerator is not None
            reason = Exit.REQUEST
            while reason == Exit.REQUEST:
                reason = m.accelerator.run()
                if m.host.failure is not None:
                    raise m.host.failure
            reasons.append(reason)
            self.instructions += m.state[ICOUNT]
            self.ends[reason.name] = self.ends.get(reason.name, 0) + 1
        if len(self.machines) == 1:
            return ""
        a, b = self.machines[0].state, self.machines[1].state
        if reasons[0] != reasons[1] or any(a[i] != b[i] for i in self.known) or flags.eflags(a) != flags.eflags(b):
            return f"{program}: {reasons[0].name} {reasons[1].name}: " + "; ".join(difference_of_states(a, b)[:6])
        return ""


__all__ = ["LIMIT", "Target"]
