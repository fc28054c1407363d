"""Segment loads, descriptor instructions and far transfers with random descriptors, compared with Unicorn.

Unicorn shows registers, memory and the vector of a fault, but not error codes, and it delivers nothing:
test_interrupts.py
has those. Where it is laxer than the manual, `known_difference` says so.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import pytest

from pyemu.cpu import descriptors as ds
from pyemu.cpu import far_transfers as ft
from pyemu.cpu import flags as fl
from pyemu.cpu import iret as ir
from pyemu.cpu import segments
from pyemu.cpu.faults import DF, GP
from pyemu.cpu.state import CPL, FAULT_ERROR, FAULT_VECTOR, GPR, ICOUNT, RAX, RIP, RSP, VALUE
from tests.cpu import system_setup as setup

# The stubs that come with it are incomplete: to the type checker it is opaque.
u: Any = import_module("unicorn")
x: Any = import_module("unicorn.x86_const")

SELECTORS = [
    x.UC_X86_REG_ES,
    x.UC_X86_REG_CS,
    x.UC_X86_REG_SS,
    x.UC_X86_REG_DS,
    x.UC_X86_REG_FS,
    x.UC_X86_REG_GS,
]
START = 0xF000
RANDOM_SLOTS = [12, 13, 14, 15, 25, 27, 28, 29, 30, 31]  # of the GDT
PAGE_TABLES = range(0x10000, 0x14000)  # accessed bits depend on what is cached
CASES = 250


class Outcome(NamedTuple):
    """What an instruction did: the vector of its fault, or registers and memory."""

    fault: int | None
    rip: int = 0
    rsp: int = 0
    selectors: tuple[int, ...] = ()
    zf: int | None = None
    rflags: int | None = None
    ram: bytes = b""


class Case(NamedTuple):
    """One instruction: its bytes, our function for it, and what of the result matters."""

    name: str
    code: bytes
    run: Callable[[], int]
    jumps: bool = False
    flag: bool = False


class Oracle:
    """A Unicorn at the same starting point as a Machine of system_setup."""

    def __init__(self, make: Callable[[], setup.Machine]) -> None:
        m = make()
        self.long = make in (setup.long, setup.long_user)
        user = m.s[CPL] == 3
        uc = self.uc = u.Uc(u.UC_ARCH_X86, u.UC_MODE_64 if self.long else u.UC_MODE_32)
        uc.mem_map(0, setup.RAM_SIZE)
        uc.mem_write(0, m.ram.raw)
        self.vector: int | None = None
        uc.hook_add(u.UC_HOOK_INTR, self._interrupt)
        uc.reg_write(x.UC_X86_REG_GDTR, (0, setup.GDT, setup.GDT_SIZE - 1, 0))
        if self.long:
            uc.reg_write(x.UC_X86_REG_CR4, 0x20)
            uc.reg_write(x.UC_X86_REG_CR3, setup.PML4)
            uc.reg_write(x.UC_X86_REG_CR0, 0x80010011)
        # LTR, data segments of CPL 0, then IRET to the code and stack of `m`
        uc.mem_write(setup.GDT + setup.TSS_SELECTOR + 5, b"\x89")
        load = b"\x66\xb8" + struct.pack("<H", setup.TSS_SELECTOR) + b"\x0f\x00\xd8"
        load += b"\x66\xb8" + struct.pack("<H", setup.DATA) + b"\x8e\xd8\x8e\xc0\x8e\xe0\x8e\xe8\x8e\xd0"
        uc.mem_write(START, load + (b"\x48\xcf" if self.long else b"\xcf"))
        frame = [m.s[RIP], m.selectors()[1], 2, m.s[GPR + RSP], m.selectors()[2]]
        uc.mem_write(0xE000, struct.pack("<5Q" if self.long else "<5I", *frame))
        uc.reg_write(x.UC_X86_REG_ESP, 0xE000)
        uc.emu_start(START, 0, count=9)
        uc.reg_write(x.UC_X86_REG_ESP, m.s[GPR + RSP])
        if user:
            uc.mem_write(
                setup.CODE, b"\x66\xb8" + struct.pack("<H", setup.USER_DATA) + b"\x8e\xd8\x8e\xc0\x8e\xe0\x8e\xe8"
            )
            uc.ctl_flush_tb()
            uc.emu_start(setup.CODE, 0xFFFFFFFF, count=5)
        assert self.vector is None
        assert [uc.reg_read(r) for r in SELECTORS] == m.selectors()
        self.start = uc.context_save()

    def _interrupt(self, uc: Any, vector: int, _: object) -> None:
        self.vector = vector
        uc.emu_stop()

    def run(self, m: setup.Machine, case: Case) -> Outcome:
        """Execute the instruction at CODE."""
        uc = self.uc
        uc.context_restore(self.start)
        uc.mem_write(0, m.ram.raw)
        uc.ctl_flush_tb()
        uc.reg_write(x.UC_X86_REG_EAX, m.s[GPR + RAX])
        self.vector = None
        uc.emu_start(setup.CODE, 0xFFFFFFFF, count=1)
        if self.vector is not None:
            return Outcome(self.vector)
        return Outcome(
            None,
            uc.reg_read(x.UC_X86_REG_RIP if self.long else x.UC_X86_REG_EIP),
            uc.reg_read(x.UC_X86_REG_RSP if self.long else x.UC_X86_REG_ESP),
            tuple(uc.reg_read(r) for r in SELECTORS),
            uc.reg_read(x.UC_X86_REG_EFLAGS) >> 6 & 1 if case.flag else None,
            uc.reg_read(x.UC_X86_REG_EFLAGS) if case.name == "iret" else None,
            bytes(uc.mem_read(0, setup.RAM_SIZE)),
        )


def random_descriptor(r: random.Random, long: bool) -> int:
    """Mostly code and data segments, some gates and other system descriptors."""
    kind = 0x10 | r.randrange(16) if r.random() < 0.75 else r.choice([2, 9, 12] if long else [1, 2, 4, 5, 6, 9, 12, 14])
    attr = kind | r.choice([0, 0, 3, 3, 1, 2]) << 5 | (r.random() < 0.9) << 7
    if kind & 0x10:
        sizes = [0x2000, 0x4000, 0xC000, 0xA000, 0] if long and kind & 8 else [0x4000, 0xC000, 0]
        base, limit = r.choice([0, 0, 0x100]), r.choice([0xFFFFF, 0xFFFFF, 0x10, 0xFFFF])
        return setup.descriptor(base, limit, attr | r.choice(sizes))
    if kind in (4, 12):
        return setup.gate(
            r.choice([setup.CODE32, setup.CODE64, r.randrange(256)]), setup.GATE_TARGET, attr, r.randrange(4)
        )
    return setup.descriptor(setup.LDT if kind == 2 else setup.TSS_OTHER, 0x67, attr)


def likely_pair(r: random.Random) -> tuple[int, int]:
    """Selectors for CS and SS."""
    if r.random() < 0.5:
        pairs = [
            (setup.CODE32, setup.DATA),
            (setup.CODE64, 0),
            (setup.USER_CODE32, setup.USER_DATA),
            (setup.USER_CODE64, setup.USER_DATA),
            (setup.GATE32, 0),
            (setup.GATE64, 0),
            (setup.GATE16, 0),
        ]
        return r.choice(pairs)
    code = r.choice([r.randrange(256), r.choice(RANDOM_SLOTS) * 8 | r.choice([0, 3]), r.randrange(4)])
    return code, r.choice([r.randrange(256), setup.DATA, setup.USER_DATA])


def random_case(r: random.Random, m: setup.Machine, long: bool) -> tuple[Case, int]:
    """A machine prepared for one random instruction, and the selector that it is about."""
    s = m.s
    for slot in RANDOM_SLOTS:
        m.put(setup.GDT + 8 * slot, "Q", random_descriptor(r, long))
    selector, stack = likely_pair(r)
    offset, rsp, at = r.choice([0x7000, 0x7000, 0x11, 0x20000]), s[GPR + RSP], setup.CODE
    s[GPR + RAX] = selector
    size, letter, prefix = (8, "Q", b"\x48") if long else (4, "I", b"")
    match r.randrange(9):
        case 0:
            segment = r.choice([0, 2, 3, 4, 5])
            code = bytes([0x8E, 0xC0 | segment << 3])
            return Case("mov", code, lambda: segments.load_segment(s, segment, selector)), selector
        case 1:
            return Case("lar", b"\x0f\x02\xc8", lambda: ds.lar(s, selector), flag=True), selector
        case 2:
            return Case("lsl", b"\x0f\x03\xc8", lambda: ds.lsl(s, selector), flag=True), selector
        case 3:
            write = r.randrange(2)
            code = b"\x0f\x00" + (b"\xe8" if write else b"\xe0")
            return Case("verify", code, lambda: ds.verify(s, selector, write), flag=True), selector
        case 4:
            return Case("lldt", b"\x0f\x00\xd0", lambda: ds.lldt(s, selector)), selector
        case 5 | 6 as which:
            jump = which == 5
            m.put(0x8800, letter + "H", offset, selector)
            code = prefix + bytes([0xFF, (0x28 if jump else 0x18) | (4 if long else 5)])
            code += (b"\x25" if long else b"") + struct.pack("<I", 0x8800)
            function, after = ft.far_jump if jump else ft.far_call, at + len(code)
            name = "jmp" if jump else "call"
            return Case(name, code, lambda: function(s, selector, offset, size, after), jumps=True), selector
        case 7:
            m.put(rsp, "2" + letter, offset, selector)
            m.put(rsp + 2 * size + 8, "2" + letter, 0x8080, stack)
            return Case("retf", prefix + b"\xca\x08\x00", lambda: ft.far_return(s, size, 8), jumps=True), selector
        case _:
            image = r.getrandbits(22) & ~(fl.NT | fl.VM | fl.TF | fl.VIF | fl.VIP) | 2
            m.put(rsp, "5" + letter, offset, selector, image, 0x8080, stack)
            return Case("iret", prefix + b"\xcf", lambda: ir.iret(s, size, 0), jumps=True), selector


def ours(m: setup.Machine, case: Case) -> Outcome:
    """The same with our functions."""
    s = m.s
    if case.run():
        return Outcome(s[FAULT_VECTOR])
    s[ICOUNT] += 1  # the instruction is done: RF that it popped is for the next one
    rip = s[RIP] if case.jumps else s[RIP] + len(case.code)
    zf = s[VALUE + 1] if case.flag else None
    rflags = fl.eflags(s) if case.name == "iret" else None
    return Outcome(None, rip, s[GPR + RSP], tuple(m.selectors()), zf, rflags, m.ram.raw)


def known_difference(m: setup.Machine, case: Case, selector: int, mine: Outcome, long: bool) -> bool:
    """Where the oracle does not do what the SDM says."""
    kind = ds.attr_of(m.get(setup.GDT + (selector & ~7), "Q")[0]) & 0x1F
    if case.name in ("lar", "lsl") and long and kind < 0x10:
        return True  # it accepts system types that long mode doesn't have
    if case.name == "lldt" and long:
        return True  # it ignores the type bits of the upper half
    if case.name in ("retf", "iret") and mine.fault == GP and m.s[FAULT_ERROR] == 0:
        return True  # it checks neither the limit of the target nor the RPL of a null SS
    return case.name == "mov" and selector < 4 and long  # the RPL of a null SS again


def same(mine: Outcome, theirs: Outcome) -> bool:
    """Equal but for accessed bits, which the oracle sets in page tables only when it walks, and not for a new CS."""
    if mine.fault is not None or theirs.fault is not None:
        return mine.fault == theirs.fault or (
            mine.fault is not None and theirs.fault == DF
        )  # it may count an old fault
    if mine[:-1] != theirs[:-1]:
        return False
    changed = [n for n in range(len(mine.ram)) if mine.ram[n] != theirs.ram[n]] if mine.ram != theirs.ram else []
    gdt = range(setup.GDT, setup.GDT + setup.GDT_SIZE)
    return all(n in PAGE_TABLES or (n in gdt and mine.ram[n] == theirs.ram[n] | 1) for n in changed)


@pytest.mark.parametrize("make", [setup.protected, setup.protected_user, setup.long, setup.long_user])
def test_random_descriptors(make: Callable[[], setup.Machine]) -> None:
    oracle = Oracle(make)
    r = random.Random(1)
    compared: dict[tuple[str, bool], int] = {}
    for number in range(CASES):
        m = make()
        case, selector = random_case(r, m, oracle.long)
        m.put(setup.CODE, f"{len(case.code)}B", *case.code)
        theirs = oracle.run(m, case)
        mine = ours(m, case)
        if not same(mine, theirs):
            assert known_difference(m, case, selector, mine, oracle.long), (
                f"case {number}: {case.name} {selector:#x}: {mine[:-1]}, but Unicorn: {theirs[:-1]}"
            )
        else:
            key = case.name, mine.fault is None
            compared[key] = compared.get(key, 0) + 1
    transfers = sum(
        count for (name, good), count in compared.items() if good and name in ("jmp", "call", "retf", "iret")
    )
    faults = sum(count for (_, good), count in compared.items() if not good)
    assert transfers >= 10, compared
    assert faults >= 50, compared
