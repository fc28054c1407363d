"""System instructions in every mode and ring, from the operand table, for judges that have all of a processor.

The setups are those of tests/cpu/system_setup.py: all descriptors, gates and tables there, every exception leads to a
HLT. `SystemSubject` runs a case on a back end of pyemu. Not here: a judge (kvm.py), and what differs
(test_system_instructions.py).
"""

from __future__ import annotations

import ctypes
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass

from pyemu.cpu import flags as fl
from pyemu.cpu import mode, physical, tlb
from pyemu.cpu.cpuid import configure
from pyemu.cpu.features import IMPLEMENTED
from pyemu.cpu.host import Exit
from pyemu.cpu.ops import Form
from pyemu.cpu.reference import Reference
from pyemu.cpu.state import (
    FPR,
    FRAME,
    GPR,
    ICOUNT,
    ICOUNT_LIMIT,
    IRQ_PENDING,
    LAYOUT,
    RANGE_COUNT,
    RANGES,
    TLB,
    TLB_LOG_COUNT,
    State,
    new_state,
)
from pyemu.jit.engine import Engine
from tests.cpu import system_setup as setup
from tests.cpu import twins
from tests.cpu.semantics.machines import NoDevices
from tests.differential.encoder import Address, Choice, encode

WORLDS: dict[str, tuple[int, Callable[[], setup.Machine]]] = {
    "real": (16, setup.real), "protected": (32, setup.protected), "protected, user": (32, setup.protected_user),
    "virtual 8086": (16, setup.v86), "64-bit": (64, setup.long), "64-bit, user": (64, setup.long_user),
    "compatibility": (32, setup.compatibility), "compatibility, user": (32, setup.compatibility_user),
}  # fmt: skip
SELECTORS = (
    0, 3, setup.CODE32, setup.DATA, setup.USER_CODE32, setup.USER_DATA, setup.CODE64, setup.USER_CODE64,
    setup.CONFORMING32, setup.CODE16, setup.DATA16, setup.ABSENT_DATA, setup.ABSENT_CODE, setup.EXECUTE_ONLY,
    setup.READ_ONLY, setup.EXPAND_DOWN, setup.GATE32, setup.LDT_SELECTOR, setup.TSS_SELECTOR, setup.GATE16,
    setup.GATE64,
    setup.CONFORMING64, setup.DATA_DPL1, setup.SMALL_DATA, setup.BEYOND, setup.DATA | 1, setup.USER_DATA & ~3,
    4,
)  # fmt: skip
OFFSETS = (setup.GATE_TARGET, setup.GATE_TARGET, setup.CODE + 0x20, 0x10000, 0xFFFFFFFF, 0x800000000000)
OPERAND = 0xE000  # where memory operands lie
HLT = 0xF4
LIMIT = 50
COMPARED = ("gpr", "rip", "seg_sel", "seg_base", "seg_limit", "seg_attr", "ldt_sel", "ldt_base", "ldt_limit", "tr_sel",
            "tr_base", "tr_limit", "gdt_base", "gdt_limit", "idt_base", "idt_limit", "cr0", "cr3", "cr4",
            "efer")  # fmt: skip


@dataclass(frozen=True)
class SystemCase:
    """One instruction in a world."""

    form: Form
    world: str
    bits: int
    code: bytes
    words: bytes  # State before FPR
    memory: bytes


ANNOUNCED = IMPLEMENTED - {"la57"}  # the judges' addresses have 48 bits


class Worlds:
    """Random cases."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.made = {name: (bits, make()) for name, (bits, make) in WORLDS.items()}
        for _, machine in self.made.values():
            configure(machine.s, None, ANNOUNCED)

    def case(self, form: Form, name: str) -> SystemCase:
        """A random instance of a form in a world; NotEncodable if the mode has none."""
        r = self.random
        bits, m = self.made[name]
        address = None
        fixed = {}
        if form.is_memory:
            base = r.choice((3, 6, 7))
            address, fixed = Address(base=base, disp_size=0), {base: OPERAND + r.choice((0, 0, 0, 1, 8))}
        offset = r.choice(OFFSETS)
        choice = Choice(
            reg=r.randrange(8), rm=r.randrange(8), op=r.randrange(8), address=address, address16=bits == 16,
            imm=offset if any(o.kind == "far" for o in form.operands) else r.getrandbits(8), imm2=r.choice(SELECTORS),
        )  # fmt: skip
        code = encode(form, bits, choice, setup.CODE) + bytes([HLT] * 3)
        memory = bytearray(m.ram.raw)
        memory[setup.CODE : setup.STACK - 0x1000] = bytes([HLT]) * (setup.STACK - 0x1000 - setup.CODE)
        memory[setup.CODE : setup.CODE + len(code)] = code
        size = form.size or 4
        pointer = (r.choice(OFFSETS) & (1 << 8 * size) - 1).to_bytes(size, "little")
        pointer += struct.pack("<H", r.choice(SELECTORS))
        memory[OPERAND : OPERAND + 32] = (pointer if r.random() < 0.7 else b"").ljust(32, bytes([r.getrandbits(8)]))
        for stack in (setup.STACK, setup.USER_STACK):
            frame = [r.choice((setup.GATE_TARGET, 0x202, r.choice(SELECTORS), 0x9100, 0x10202)) for _ in range(8)]
            if r.random() < 0.6:
                frame[0], frame[1], frame[3], frame[4] = (
                    setup.GATE_TARGET,
                    r.choice(SELECTORS),
                    0x9100,
                    r.choice(SELECTORS),
                )
                frame[2] = 0x202 | r.getrandbits(12) & 0xCD7
            size = form.size or (8 if bits == 64 else bits // 8)
            packed = b"".join((value & (1 << 8 * size) - 1).to_bytes(size, "little") for value in frame)
            memory[stack : stack + len(packed)] = packed
        s = m.s
        words = bytearray(memoryview(s).cast("B")[: 8 * FPR])
        for n in range(16):
            if n != 4 and (bits == 64 or n < 8):
                value = r.choice((r.choice(SELECTORS), r.choice(SELECTORS), r.getrandbits(16), OPERAND, 0, 0xC0000080))
                struct.pack_into("<Q", words, 8 * (GPR + n), fixed.get(n, value))
        return SystemCase(form, name, bits, code, bytes(words), bytes(memory))


class SystemSubject:
    """A back end of pyemu that runs such cases."""

    def __init__(self, backend: str = "interp") -> None:
        self.s = new_state()
        configure(self.s, None, ANNOUNCED)
        buffer = ctypes.create_string_buffer(setup.RAM_SIZE)
        self.keep = twins.attach(self.s, buffer)
        self.ram = memoryview(buffer).cast("B")
        self.s[RANGE_COUNT] = 1
        self.s[RANGES], self.s[RANGES + 1], self.s[RANGES + 2] = 0, setup.RAM_SIZE, physical.RAM
        tlb.flush_all(self.s)
        self.bytes = memoryview(self.s).cast("B")
        self.empty_tlb = bytes(self.bytes[8 * TLB : 8 * (TLB + LAYOUT["tlb"].count)])
        self.idle = bytes(memoryview(setup.long().s).cast("B")[8 * IRQ_PENDING : 8 * FRAME])
        self.engine = Engine(self.s, NoDevices(), self.ram, backend) if backend != "reference" else None
        self.reference = Reference(self.s, NoDevices(), self.ram)

    def load(self, case: SystemCase) -> None:
        """Set everything."""
        s = self.s
        self.bytes[: 8 * FPR] = case.words
        self.bytes[8 * IRQ_PENDING : 8 * FRAME] = self.idle
        self.ram[:] = case.memory
        s[ICOUNT], s[ICOUNT_LIMIT] = 0, LIMIT
        self.bytes[8 * TLB : 8 * TLB + len(self.empty_tlb)] = self.empty_tlb
        s[TLB_LOG_COUNT] = 0
        mode.update(s)
        self.reference.known.clear()
        if self.engine is not None:
            self.engine.flush()

    def run(self) -> Exit:
        """Until it halts."""
        return self.engine.run() if self.engine is not None else self.reference.run()


def _unusable(s: State, segment: int) -> bool:
    attr = s[LAYOUT["seg_attr"].index + segment]
    return bool(attr & 1 << 16 or not attr & 0x80)


def differences(ours: State, theirs: State, flags: int) -> list[str]:
    """What differs, in words."""
    lines = []
    for name in COMPARED:
        field = LAYOUT[name]
        for k in range(field.count):
            a, b = ours[field.index + k], theirs[field.index + k]
            if name in ("seg_base", "seg_limit", "seg_attr") and _unusable(ours, k) and _unusable(theirs, k):
                continue  # what an unusable segment register holds beside that is nobody's business
            if a != b:
                lines.append(f"{name}[{k}]: {a:#x} != {b:#x}")
    if (fl.eflags(ours) ^ fl.eflags(theirs)) & flags:
        lines.append(f"rflags: {fl.eflags(ours):#x} != {fl.eflags(theirs):#x}")
    return lines
