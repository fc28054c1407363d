"""A processor with descriptor tables, stacks and page tables in a little RAM, for tests of segmentation and events.

Handlers of vector v start at HANDLERS + 16 v. Every mode has the same GDT, so that selectors mean the same in all.
"""

from __future__ import annotations

import ctypes
import struct

from pyemu.cpu import descriptors as ds
from pyemu.cpu import flags, mode, physical, segments, tlb
from pyemu.cpu.state import (
    CPL,
    CR0,
    CR3,
    CR4,
    CS,
    DS,
    EFER,
    ES,
    FAULT_VECTOR,
    FLAGS,
    FS,
    GDT_BASE,
    GDT_LIMIT,
    GPR,
    GS,
    IDT_BASE,
    IDT_LIMIT,
    LDT_ATTR,
    LDT_BASE,
    LDT_LIMIT,
    LDT_SEL,
    NO_FAULT,
    RANGE_COUNT,
    RANGES,
    RIP,
    RSP,
    SEG_SEL,
    SS,
    TR_ATTR,
    TR_BASE,
    TR_LIMIT,
    TR_SEL,
    State,
    new_state,
)  # fmt: skip
from tests.cpu import twins

RAM_SIZE = 0x40000
GDT, IDT, TSS, TSS_OTHER, TSS16, LDT = 0x1000, 0x2000, 0x3000, 0x3800, 0x3C00, 0x4000
HANDLERS, CODE, GATE_TARGET = 0x5000, 0x6000, 0x7000
STACK, INNER_STACK, IST1, USER_STACK, OTHER_STACK = 0x9000, 0xA000, 0xB000, 0xC000, 0xD000
PML4, PDPT, PD, PT = 0x10000, 0x11000, 0x12000, 0x13000

# Selectors.
CODE32, DATA, USER_CODE32, USER_DATA, CODE64, USER_CODE64 = 0x08, 0x10, 0x18 | 3, 0x20 | 3, 0x28, 0x30 | 3
CONFORMING32, CODE16, DATA16, ABSENT_DATA, ABSENT_CODE = 0x38, 0x40, 0x48, 0x50, 0x58
EXECUTE_ONLY, READ_ONLY, EXPAND_DOWN, GATE32, LDT_SELECTOR = 0x60 | 3, 0x68 | 3, 0x70 | 3, 0x78 | 3, 0x80
TSS_SELECTOR, TSS_OTHER_SELECTOR, TASK_GATE, TSS16_SELECTOR, GATE16, GATE64 = (
    0x90,
    0xA0,
    0xA8 | 3,
    0xB0,
    0xB8 | 3,
    0xC0 | 3,
)
CONFORMING64, BAD_CODE64, DATA_DPL1, SMALL_DATA, BEYOND = 0xD0, 0xD8, 0xE0 | 1, 0xE8 | 3, 0x108
GDT_SIZE = 0x100

# Attributes: G, D/B, P and the type.
A_CODE32, A_DATA, A_CODE64, A_CODE16, A_DATA16 = 0xC09B, 0xC093, 0xA09B, 0x009B, 0x0093
USER = 3 << 5


def descriptor(base: int, limit: int, attr: int) -> int:
    """Eight bytes of a descriptor from base, raw 20-bit limit and attributes as in SEG_ATTR."""
    return (
        limit & 0xFFFF
        | (base & 0xFFFFFF) << 16
        | (attr & 0xF0FF) << 40
        | (limit >> 16 & 0xF) << 48
        | (base >> 24 & 0xFF) << 56
    )


def gate(selector: int, offset: int, attr: int, low: int = 0) -> int:
    """Low eight bytes of a gate; `low` is the parameter count or IST."""
    return offset & 0xFFFF | selector << 16 | low << 32 | attr << 40 | (offset >> 16 & 0xFFFF) << 48


class Machine:
    """State and RAM, with ways to look at them."""

    def __init__(self) -> None:
        self.s: State = new_state()
        self.ram = ctypes.create_string_buffer(RAM_SIZE)
        self.keep = twins.attach(self.s, self.ram)
        self.s[RANGE_COUNT] = 1
        self.s[RANGES], self.s[RANGES + 1], self.s[RANGES + 2] = 0, RAM_SIZE, physical.RAM
        self.s[FAULT_VECTOR] = NO_FAULT
        self.s[FLAGS] = 2
        flags.set_arithmetic(self.s, 0)
        tlb.flush_all(self.s)
        for vector in range(256):
            self.ram[HANDLERS + 16 * vector] = b"\xf4"

    def put(self, address: int, format_: str, *values: int) -> None:
        """Store packed values."""
        struct.pack_into("<" + format_, self.ram, address, *values)

    def get(self, address: int, format_: str) -> tuple[int, ...]:
        """Load packed values."""
        return struct.unpack_from("<" + format_, self.ram, address)

    def selectors(self) -> list[int]:
        """ES CS SS DS FS GS."""
        return [self.s[SEG_SEL + n] for n in range(6)]

    def load(self, segment: int, selector: int) -> None:
        """Load a segment register from the GDT without checks."""
        (d,) = self.get(GDT + (selector & ~7), "Q")
        segments.set_from_descriptor(self.s, segment, selector, d)


def write_gdt(m: Machine, long: bool) -> None:
    """The GDT, the same in all modes but for the system descriptors."""
    table = {
        CODE32: descriptor(0, 0xFFFFF, A_CODE32), DATA: descriptor(0, 0xFFFFF, A_DATA),
        USER_CODE32: descriptor(0, 0xFFFFF, A_CODE32 | USER), USER_DATA: descriptor(0, 0xFFFFF, A_DATA | USER),
        CODE64: descriptor(0, 0xFFFFF, A_CODE64), USER_CODE64: descriptor(0, 0xFFFFF, A_CODE64 | USER),
        CONFORMING32: descriptor(0, 0xFFFFF, A_CODE32 | ds.CONFORMING), CODE16: descriptor(0, 0xFFFF, A_CODE16),
        DATA16: descriptor(0, 0xFFFF, A_DATA16), ABSENT_DATA: descriptor(0, 0xFFFFF, A_DATA & ~ds.P),
        ABSENT_CODE: descriptor(0, 0xFFFFF, A_CODE32 & ~ds.P), EXECUTE_ONLY: descriptor(0, 0xFFFFF, 0xC0F9),
        READ_ONLY: descriptor(0, 0xFFFFF, 0xC0F1), EXPAND_DOWN: descriptor(0x1000, 0xFFF, 0x40F6),
        GATE32: gate(CODE32, GATE_TARGET, 0xEC, 2), LDT_SELECTOR: descriptor(LDT, 0xFF, 0x82),
        TSS_SELECTOR: descriptor(TSS, 0x67, 0x8B), TSS_OTHER_SELECTOR: descriptor(TSS_OTHER, 0x67, 0xE9),
        TASK_GATE: gate(TSS_OTHER_SELECTOR, 0, 0xE5), TSS16_SELECTOR: descriptor(TSS16, 0x2B, 0xE1),
        GATE16: gate(CODE16, GATE_TARGET, 0xE4, 1), CONFORMING64: descriptor(0, 0xFFFFF, A_CODE64 | ds.CONFORMING),
        BAD_CODE64: descriptor(0, 0xFFFFF, A_CODE64 | ds.DB), DATA_DPL1: descriptor(0, 0xFFFFF, A_DATA | 1 << 5),
        SMALL_DATA: descriptor(0x8000, 0xFF, 0x40F2),
    }  # fmt: skip
    if long:
        table[GATE64] = gate(CODE64, GATE_TARGET, 0xEC)
    for selector, value in table.items():
        m.put(GDT + (selector & ~7), "Q", value)
    m.s[GDT_BASE], m.s[GDT_LIMIT] = GDT, GDT_SIZE - 1
    m.s[TR_SEL], m.s[TR_BASE], m.s[TR_LIMIT], m.s[TR_ATTR] = TSS_SELECTOR, TSS, 0x67, 0x8B
    m.s[LDT_SEL], m.s[LDT_BASE], m.s[LDT_LIMIT], m.s[LDT_ATTR] = 0, 0, 0, ds.UNUSABLE


def enter(m: Machine, code: int, stack: int, data: int, pointer: int) -> Machine:
    """Run at these selectors."""
    m.load(CS, code)
    for segment in (ES, DS, FS, GS):
        m.load(segment, data)
    if stack & ~3:
        m.load(SS, stack)
    else:
        segments.set_null(m.s, SS, stack)
    m.s[CPL] = code & 3
    m.s[RIP], m.s[GPR + RSP] = CODE, pointer
    mode.update(m.s)
    return m


def real() -> Machine:
    """Real mode with CS = DS = 0, SS:SP = 0:STACK."""
    m = Machine()
    for segment in range(6):
        segments.set_segment(m.s, segment, 0, 0, 0xFFFF, segments.REAL_CODE if segment == CS else segments.REAL_DATA)
    for vector in range(256):
        m.put(4 * vector, "HH", 16 * vector, HANDLERS >> 4)
    m.s[IDT_LIMIT] = 0x3FF
    m.s[CR0] = 0x10
    m.s[RIP], m.s[GPR + RSP] = CODE, STACK
    mode.update(m.s)
    return m


def _protected() -> Machine:
    m = Machine()
    m.s[CR0] = 0x11
    write_gdt(m, long=False)
    for vector in range(256):
        m.put(IDT + 8 * vector, "Q", gate(CODE32, HANDLERS + 16 * vector, 0x8E))
    m.s[IDT_BASE], m.s[IDT_LIMIT] = IDT, 0x7FF
    m.put(TSS + 4, "II", INNER_STACK, DATA)  # ESP0, SS0
    return m


def set_gate(m: Machine, vector: int, attr: int, selector: int | None = None, low: int = 0) -> None:
    """Replace the IDT's gate of a vector, with its usual handler."""
    long = bool(m.s[EFER] & mode.EFER_LMA)
    offset = HANDLERS + 16 * vector
    m.put(IDT + (16 if long else 8) * vector, "Q", gate(selector or (CODE64 if long else CODE32), offset, attr, low))


def protected() -> Machine:
    """32-bit protected mode, flat, CPL 0."""
    return enter(_protected(), CODE32, DATA, DATA, STACK)


def protected_user() -> Machine:
    """32-bit protected mode, flat, CPL 3."""
    return enter(_protected(), USER_CODE32, USER_DATA, USER_DATA, USER_STACK)


def v86(iopl: int = 0) -> Machine:
    """Virtual-8086 mode."""
    m = _protected()
    m.s[FLAGS] = 2 | 1 << 17 | iopl << 12
    m.s[CPL] = 3
    mode.update(m.s)
    for segment in range(6):
        segments.set_real(m.s, segment, 0)
    m.s[RIP], m.s[GPR + RSP] = CODE, USER_STACK
    mode.update(m.s)
    return m


def _long() -> Machine:
    m = Machine()
    write_gdt(m, long=True)
    m.put(GDT + 0x88, "Q", 0)  # upper half of the LDT's descriptor
    m.put(GDT + 0x98, "Q", 0)  # of the TSS's
    m.put(GDT + 0xC8, "Q", 0)  # of the call gate's
    for vector in range(256):
        m.put(IDT + 16 * vector, "QQ", gate(CODE64, HANDLERS + 16 * vector, 0x8E), 0)
    m.s[IDT_BASE], m.s[IDT_LIMIT] = IDT, 0xFFF
    m.put(TSS + 4, "Q", INNER_STACK)
    m.put(TSS + 36, "Q", IST1)
    m.put(PML4, "Q", PDPT | 7)
    m.put(PDPT, "Q", PD | 7)
    m.put(PD, "Q", PT | 7)
    for page in range(RAM_SIZE >> 12):
        m.put(PT + 8 * page, "Q", page << 12 | 7)
    m.s[CR3], m.s[CR4], m.s[EFER] = PML4, 0x20, 0x500
    m.s[CR0] = 0x80010011
    return m


def unmap(m: Machine, address: int) -> None:
    """Make a page not present."""
    m.put(PT + 8 * (address >> 12), "Q", 0)
    tlb.flush_all(m.s)


def long() -> Machine:
    """64-bit mode, CPL 0."""
    return enter(_long(), CODE64, DATA, DATA, STACK)


def long_user() -> Machine:
    """64-bit mode, CPL 3."""
    return enter(_long(), USER_CODE64, USER_DATA, USER_DATA, USER_STACK)


def compatibility() -> Machine:
    """32-bit compatibility mode, CPL 0."""
    return enter(_long(), CODE32, DATA, DATA, STACK)


def compatibility_user() -> Machine:
    """32-bit compatibility mode, CPL 3."""
    return enter(_long(), USER_CODE32, USER_DATA, USER_DATA, USER_STACK)
