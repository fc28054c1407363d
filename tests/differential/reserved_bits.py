"""Which bits of control, debug and model-specific registers a processor takes: one at a time, through its instructions.

A `Probe` reads a register, changes bits of it, reads it again and puts the old value back; what came of that is an
`Outcome`. Not here: what differs between judges, and why (test_reserved_bits.py).
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pyemu.cpu import msr
from pyemu.cpu.control_registers import DR6_ONES, DR7_ONES
from pyemu.cpu.cpuid import configure
from pyemu.cpu.mode import CR4_OSXSAVE
from pyemu.cpu.ops import Form
from pyemu.cpu.reset import RESET_PAT
from pyemu.cpu.state import CR4, DR, FPR, GPR, PAT, R8, R9, R12, R15, RBP, RBX, RDI, RIP, RSI, XCR0, State
from tests.cpu import system_setup as setup
from tests.differential.system_cases import ANNOUNCED, SystemCase
from tests.guests.topics.program import assemble

NONE, SHUTDOWN = -1, -2  # instead of an exception
UNKNOWN_COUNT = 100
# Paging without page tables, and SMEP with pages that are all the user's: handlers that can't be fetched
_NO_END = {("cr0", 31, "protected"), ("cr4", 20, "64-bit")}

_JOIN = "shl rdx, 32\nor rax, rdx\n"
_SPLIT = "mov rdx, rax\nshr rdx, 32\n"
# The steps that came to their end are counted in R12. R8 and R9 are what is read before and after the change.
_PROGRAM64 = "{read}mov r8, rax\ninc r12\nxor rax, r15\n{write}inc r12\n{read}mov r9, rax\nmov rax, r8\n{write}hlt\n"
_PROGRAM32 = "{read}mov ebx, eax\ninc esi\nxor eax, edi\n{write}inc esi\n{read}mov ebp, eax\nmov eax, ebx\n{write}hlt\n"


@dataclass(frozen=True)
class Outcome:
    """How far a probe came (1: read, 2: written), the exception that ended it, and what has changed."""

    steps: int
    vector: int
    changed: int

    def __str__(self) -> str:
        if self.vector != NONE:
            return f"{'shutdown' if self.vector == SHUTDOWN else f'exception {self.vector}'} after step {self.steps}"
        return f"changes {self.changed:#x}"


@dataclass(frozen=True)
class Probe:
    """A register, by a name like `msr 277` or `cr4`, and the bits to change in it."""

    register: str
    bits: int
    world: str = "64-bit"

    def __str__(self) -> str:
        return f"{self.register} ^ {self.bits:#x} ({self.world})"

    @property
    def index(self) -> int:
        """The number of an MSR."""
        return int(self.register.removeprefix("msr "), 16)


def _code(probe: Probe) -> str:
    register = probe.register
    if register.startswith("msr"):
        access = {"read": f"mov ecx, {probe.index:#x}\nrdmsr\n{_JOIN}", "write": f"{_SPLIT}wrmsr\n"}
    elif register == "xcr0":
        access = {"read": f"xor ecx, ecx\nxgetbv\n{_JOIN}", "write": f"{_SPLIT}xsetbv\n"}
    else:
        accumulator = "rax" if probe.world == "64-bit" else "eax"
        access = {"read": f"mov {accumulator}, {register}\n", "write": f"mov {register}, {accumulator}\n"}
    return (_PROGRAM64 if probe.world == "64-bit" else _PROGRAM32).format(**access)


class Cases:
    """Probes as cases for SystemSubject and KVM."""

    def __init__(self) -> None:
        self._worlds = {"64-bit": setup.long(), "protected": setup.protected()}
        for machine in self._worlds.values():
            configure(machine.s, None, ANNOUNCED)
            for word, value in ((DR + 6, DR6_ONES), (DR + 7, DR7_ONES), (PAT, RESET_PAT), (XCR0, 1)):
                machine.s[word] = value
        self._codes: dict[tuple[str, str], bytes] = {}

    def case(self, probe: Probe, form: Form) -> SystemCase:
        """The state and memory from which a probe runs. A case wants a form, which nothing here looks at."""
        wide = probe.world == "64-bit"
        key = probe.register, probe.world
        if key not in self._codes:
            self._codes[key] = assemble(_code(probe), setup.CODE, 64 if wide else 32)
        code = self._codes[key]
        machine = self._worlds[probe.world]
        words = bytearray(memoryview(machine.s).cast("B")[: 8 * FPR])
        values = {R12: 0, R15: probe.bits} if wide else {RSI: 0, RDI: probe.bits}
        for register, value in values.items():
            struct.pack_into("<Q", words, 8 * (GPR + register), value)
        if probe.register == "xcr0":
            struct.pack_into("<Q", words, 8 * CR4, machine.s[CR4] | CR4_OSXSAVE)
        memory = bytearray(machine.ram.raw)
        memory[setup.CODE : setup.CODE + len(code)] = code
        return SystemCase(form, probe.world, 64 if wide else 32, code, bytes(words), bytes(memory))


def outcome(probe: Probe, s: State, shutdown: bool) -> Outcome:
    """What a probe came to."""
    wide = probe.world == "64-bit"
    steps, before, after = (s[GPR + n] for n in ((R12, R8, R9) if wide else (RSI, RBX, RBP)))
    if shutdown:
        return Outcome(steps, SHUTDOWN, 0)
    at = s[RIP] - 1  # behind HLT
    if setup.HANDLERS <= at < setup.HANDLERS + 16 * 32:
        return Outcome(steps, (at - setup.HANDLERS) // 16, 0)
    return Outcome(steps, NONE, before ^ after)


def known_msrs() -> list[int]:
    """Every MSR that pyemu has, but for those of the local APIC (topics apic and x2apic)."""
    ranges = range(msr.IA32_MTRR_PHYSBASE0, msr.IA32_MTRR_PHYSBASE0 + 2 * msr.VARIABLE_MTRRS)
    special = (
        msr.IA32_TSC_ADJUST, msr.IA32_TSC_AUX, msr.IA32_EFER, msr.IA32_MISC_ENABLE, msr.IA32_PAT,
        msr.IA32_MTRR_DEF_TYPE, msr.IA32_PKRS,
    )  # fmt: skip
    machine_check = (
        *msr.IA32_P5_MC, msr.IA32_MCG_CAP, msr.IA32_MCG_STATUS, msr.IA32_MCG_CTL,
        *range(msr.IA32_MC0_CTL, msr.IA32_MC0_CTL + 4 * msr.MCA_BANKS),
    )  # fmt: skip
    return sorted({*msr.REGISTERS, *machine_check, *ranges, *msr.MTRR_FIXED_NUMBERS, *special})


def probes() -> Iterator[Probe]:
    """Every bit of every register, and some pairs of bits that only count together."""
    for index in known_msrs():
        for bit in range(64):
            yield Probe(f"msr {index:x}", 1 << bit)
    for world, width in (("64-bit", 64), ("protected", 32)):
        for register in ("cr0", "cr4", "dr6", "dr7"):
            for bit in range(width):
                if (register, bit, world) not in _NO_END:
                    yield Probe(register, 1 << bit, world)
        for bit in (*range(12), *range(52, width)):  # the others move the page tables
            yield Probe("cr3", 1 << bit, world)
    yield Probe("cr0", 1 << 29 | 1 << 30)
    for bit in range(64):
        for others in (0, 6, 0xE6):
            yield Probe("xcr0", others ^ 1 << bit)


def unknown(seed: int) -> Iterator[Probe]:
    """MSRs that pyemu doesn't have: those around its own, and random ones."""
    known = known_msrs()
    apic = (msr.IA32_APIC_BASE, msr.IA32_TSC_DEADLINE, *range(msr.X2APIC_FIRST, msr.X2APIC_LAST + 1), msr.IA32_TSC)
    r = random.Random(seed)
    near = {index + step & 0xFFFFFFFF for index in known for step in (-2, -1, 1, 2)}
    wild = {r.choice((0, 0xC0000000, 0xC0010000)) | r.getrandbits(r.choice((8, 12, 16))) for _ in range(UNKNOWN_COUNT)}
    wild |= {r.getrandbits(32) for _ in range(UNKNOWN_COUNT)}
    for index in sorted((near | wild).difference(known, apic)):
        yield Probe(f"msr {index:x}", 0)
