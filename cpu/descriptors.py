"""Segment descriptors: format, fetching, and the instructions about descriptor tables (SDM 3, chapters 3 and 5).

Mechanism subset. Not here: loading segment registers (segments.py), gates (interrupts.py, far_transfers.py).

    lar(s, selector), lsl(s, selector), verify(s, selector, write)   VALUE = result, VALUE + 1 = ZF
    arpl(s, destination, source)                                     VALUE = result, VALUE + 1 = ZF
    sldt(s), str_(s)          VALUE = selector                        lldt(s, selector), ltr(s, selector)
    sgdt, sidt, lgdt, lidt (s, linear, size)                          size = operand size; memory image 2+4 or 2+8 bytes
"""

from __future__ import annotations

from pyemu.cpu import memory, mode
from pyemu.cpu.faults import GP, NP, UD, raise_fault
from pyemu.cpu.state import (
    CPL,
    CR4,
    EFER,
    GDT_BASE,
    GDT_LIMIT,
    IDT_BASE,
    IDT_LIMIT,
    LDT_ATTR,
    LDT_BASE,
    LDT_LIMIT,
    LDT_SEL,
    M64,
    MODE,
    TR_ATTR,
    TR_BASE,
    TR_LIMIT,
    TR_SEL,
    VALUE,
    State,
)

# Attributes, as in SEG_ATTR: descriptor bits 40-55 without the limit (SDM 3, 3.4.5).
TYPE, S, DPL_SHIFT, DPL, P = 0xF, 1 << 4, 5, 3 << 5, 1 << 7
AVL, L, DB, G, UNUSABLE = 1 << 12, 1 << 13, 1 << 14, 1 << 15, 1 << 16
# Type bits of code and data segments (SDM 3, table 3-1).
ACCESSED, WRITABLE, READABLE, EXPAND_DOWN, CONFORMING, CODE = 1, 2, 2, 4, 4, 8
# Types of system descriptors (SDM 3, table 3-2).
TSS16_AVAILABLE, LDT, TSS16_BUSY, CALL_GATE16, TASK_GATE, INTERRUPT_GATE16, TRAP_GATE16 = 1, 2, 3, 4, 5, 6, 7
TSS32_AVAILABLE, TSS32_BUSY, CALL_GATE32, INTERRUPT_GATE32, TRAP_GATE32 = 9, 11, 12, 14, 15
TSS_BUSY_BIT = 2

RPL, TI = 3, 4  # of a selector
SYSTEM_WRITE = memory.SYSTEM | memory.WRITE
WRITE_ANYWHERE = memory.WRITE | memory.ANY_ALIGNMENT

# System types (as bit masks) that LAR and LSL accept; long mode has fewer (SDM 2, LAR and LSL).
LAR_TYPES = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 9 | 1 << 11 | 1 << 12
LAR_TYPES_LONG = 1 << 2 | 1 << 9 | 1 << 11 | 1 << 12
LSL_TYPES = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 9 | 1 << 11
LSL_TYPES_LONG = 1 << 2 | 1 << 9 | 1 << 11


# ---- format ----------------------------------------------------------------------------------------------
def base_of(d: int) -> int:
    """Base address of a descriptor's low 8 bytes."""
    return ((d >> 16) & 0xFFFFFF) | ((d >> 32) & 0xFF000000)


def limit_of(d: int) -> int:
    """Limit in bytes, granularity applied."""
    limit = (d & 0xFFFF) | ((d >> 32) & 0xF0000)
    if (d >> 55) & 1:
        return (limit << 12) | 0xFFF
    return limit


def attr_of(d: int) -> int:
    """Attributes in the layout of SEG_ATTR."""
    return (d >> 40) & 0xF0FF


def dpl_of(attr: int) -> int:
    """Descriptor privilege level."""
    return (attr >> DPL_SHIFT) & 3


def gate_selector(d: int) -> int:
    """Selector in a gate."""
    return (d >> 16) & 0xFFFF


def gate_offset(d: int) -> int:
    """Low 32 bits of the offset in a gate; only the low 16 count in a 16-bit gate."""
    return (d & 0xFFFF) | ((d >> 32) & 0xFFFF0000)


def is_code(attr: int) -> int:
    """1 for a code segment."""
    return 1 if attr & (S | CODE) == S | CODE else 0


def is_conforming(attr: int) -> int:
    """1 for a conforming code segment."""
    return 1 if attr & (S | CODE | CONFORMING) == S | CODE | CONFORMING else 0


def is_writable_data(attr: int) -> int:
    """1 for a data segment that can be written."""
    return 1 if attr & (S | CODE | WRITABLE) == S | WRITABLE else 0


# ---- access ----------------------------------------------------------------------------------------------
def long_mode(s: State) -> int:
    """Nonzero in 64-bit and compatibility mode: system descriptors have 16 bytes."""
    return int(s[EFER] & mode.EFER_LMA)


def wrap(s: State, linear: int) -> int:
    """A linear address of a system structure, cut to 32 bits outside long mode."""
    if s[EFER] & mode.EFER_LMA:
        return linear & M64
    return linear & 0xFFFFFFFF


def table_base(s: State, selector: int) -> int:
    """Base of the table that a selector names."""
    return int(s[LDT_BASE] if selector & TI else s[GDT_BASE])


def in_table(s: State, selector: int, size: int) -> int:
    """1 if the `size`-byte descriptor lies within its table."""
    last = (selector & 0xFFF8) + size - 1
    if selector & TI:
        if s[LDT_SEL] & 0xFFFC == 0 or s[LDT_ATTR] & UNUSABLE:
            return 0
        return 1 if last <= s[LDT_LIMIT] else 0
    return 1 if last <= s[GDT_LIMIT] else 0


def descriptor_address(s: State, selector: int) -> int:
    """Linear address of a selector's descriptor."""
    return wrap(s, table_base(s, selector) + (selector & 0xFFF8))


def selector_error(selector: int, ext: int) -> int:
    """Error code that names a selector."""
    return (selector & 0xFFFC) | ext


def fetch(s: State, selector: int, vector: int, ext: int) -> int:
    """VALUE = the descriptor's 8 bytes; outside the table raises `vector` with the selector."""
    if not in_table(s, selector, 8):
        return raise_fault(s, vector, selector_error(selector, ext))
    return memory.read(s, descriptor_address(s, selector), 8, memory.SYSTEM)


def fetch_upper(s: State, selector: int, vector: int, ext: int) -> int:
    """VALUE = bytes 8-15 of a system descriptor of long mode; nonzero type bits there raise `vector` (SDM 3, 3.5.2)."""
    if not in_table(s, selector, 16):
        return raise_fault(s, vector, selector_error(selector, ext))
    if memory.read(s, wrap(s, descriptor_address(s, selector) + 8), 8, memory.SYSTEM):
        return 1
    if (s[VALUE] >> 40) & 0x1F:
        return raise_fault(s, vector, selector_error(selector, ext))
    return 0


def set_type_bits(s: State, selector: int, d: int, bits: int) -> int:
    """Set bits of the type field (accessed, busy) in memory if they are not set; status."""
    byte = (d >> 40) & 0xFF
    if byte & bits == bits:
        return 0
    return memory.write(s, wrap(s, descriptor_address(s, selector) + 5), 1, byte | bits, SYSTEM_WRITE)


# ---- LAR, LSL, VERR, VERW, ARPL ------------------------------------------------------------------------
def require_protected(s: State) -> int:
    """#UD in real and virtual-8086 mode."""
    if s[MODE] & (mode.PROTECTED | mode.V86) != mode.PROTECTED:
        return raise_fault(s, UD, 0)
    return 0


def no_result(s: State) -> int:
    """VALUE = 0 with ZF clear."""
    s[VALUE] = 0
    s[VALUE + 1] = 0
    return 0


def visible(s: State, selector: int) -> int:
    """Fetch for LAR and friends: 0 with VALUE = descriptor and VALUE + 1 = 1 if there is one that CPL and RPL may see,
    VALUE + 1 = 0 if not; 1 if reading the table faulted."""
    if selector & 0xFFFC == 0 or not in_table(s, selector, 8):
        return no_result(s)
    if memory.read(s, descriptor_address(s, selector), 8, memory.SYSTEM):
        return 1
    attr = attr_of(s[VALUE])
    dpl = dpl_of(attr)
    s[VALUE + 1] = 1
    if not is_conforming(attr) and (dpl < s[CPL] or dpl < selector & RPL):
        return no_result(s)
    return 0


def visible_type(s: State, selector: int, types: int) -> int:
    """visible() of a descriptor that is a code or data segment, or of a system type with a bit in `types`."""
    if require_protected(s) or visible(s, selector):
        return 1
    attr = attr_of(s[VALUE])
    if s[VALUE + 1] and not attr & S and not (types >> (attr & TYPE)) & 1:
        return no_result(s)
    return 0


def lar(s: State, selector: int) -> int:
    """LAR: VALUE = bits 8-23 of the descriptor's second doubleword in place, VALUE + 1 = ZF."""
    if visible_type(s, selector, LAR_TYPES_LONG if long_mode(s) else LAR_TYPES):
        return 1
    s[VALUE] = (s[VALUE] >> 32) & 0xF0FF00
    return 0


def lsl(s: State, selector: int) -> int:
    """LSL: VALUE = limit in bytes, VALUE + 1 = ZF."""
    if visible_type(s, selector, LSL_TYPES_LONG if long_mode(s) else LSL_TYPES):
        return 1
    s[VALUE] = limit_of(s[VALUE])
    return 0


def verify(s: State, selector: int, write: int) -> int:
    """VERR (write = 0) and VERW (write = 1): VALUE + 1 = ZF."""
    if require_protected(s) or visible(s, selector):
        return 1
    if s[VALUE + 1] == 0:
        return 0
    attr = attr_of(s[VALUE])
    good = 0
    if attr & S:
        if write:
            good = is_writable_data(attr)
        elif not attr & CODE or attr & READABLE:
            good = 1
    s[VALUE + 1] = good
    return 0


def arpl(s: State, destination: int, source: int) -> int:
    """ARPL: VALUE = the adjusted selector, VALUE + 1 = ZF."""
    if require_protected(s):
        return 1
    s[VALUE] = destination
    s[VALUE + 1] = 0
    if destination & RPL < source & RPL:
        s[VALUE] = (destination & ~RPL) | (source & RPL)
        s[VALUE + 1] = 1
    return 0


# ---- descriptor-table registers -----------------------------------------------------------------------
def refuse_user_store(s: State) -> int:
    """CR4.UMIP: SGDT, SIDT, SLDT, STR and SMSW are for CPL 0 only."""
    if s[CPL] != 0 and s[CR4] & mode.CR4_UMIP and s[MODE] & mode.PROTECTED:
        return raise_fault(s, GP, 0)
    return 0


def sldt(s: State) -> int:
    """SLDT: VALUE = selector."""
    if require_protected(s) or refuse_user_store(s):
        return 1
    s[VALUE] = s[LDT_SEL]
    return 0


def str_(s: State) -> int:
    """STR: VALUE = selector."""
    if require_protected(s) or refuse_user_store(s):
        return 1
    s[VALUE] = s[TR_SEL]
    return 0


def store_table(s: State, linear: int, base: int, limit: int) -> int:
    """Write a pseudo-descriptor: 2 + 8 bytes in 64-bit mode, else 2 + 4."""
    if refuse_user_store(s):
        return 1
    size = 8 if s[MODE] & mode.CODE64 else 4
    if memory.probe_aligned(s, linear, 2 + size, 4, memory.WRITE):  # SDM 3, table 6-7
        return 1
    if memory.write(s, linear, 2, limit, WRITE_ANYWHERE):
        return 1
    return memory.write(s, wrap(s, linear + 2), size, base, WRITE_ANYWHERE)


def sgdt(s: State, linear: int, size: int) -> int:
    """SGDT; the operand size does not matter."""
    return store_table(s, linear, s[GDT_BASE], s[GDT_LIMIT])


def sidt(s: State, linear: int, size: int) -> int:
    """SIDT."""
    return store_table(s, linear, s[IDT_BASE], s[IDT_LIMIT])


def load_table(s: State, linear: int, size: int) -> int:
    """Read a pseudo-descriptor: VALUE = base, VALUE + 1 = limit. A 16-bit operand size has a 24-bit base."""
    if s[CPL] != 0:
        return raise_fault(s, GP, 0)
    if memory.read(s, linear, 2, memory.READ):
        return 1
    limit = s[VALUE]
    wide = s[MODE] & mode.CODE64
    if memory.read(s, wrap(s, linear + 2), 8 if wide else 4, memory.READ):
        return 1
    if wide and not mode.is_canonical_base(s, s[VALUE]):
        return raise_fault(s, GP, 0)
    if size == 2 and not wide:
        s[VALUE] = s[VALUE] & 0xFFFFFF
    s[VALUE + 1] = limit
    return 0


def lgdt(s: State, linear: int, size: int) -> int:
    """LGDT."""
    if load_table(s, linear, size):
        return 1
    s[GDT_BASE] = s[VALUE]
    s[GDT_LIMIT] = s[VALUE + 1]
    return 0


def lidt(s: State, linear: int, size: int) -> int:
    """LIDT."""
    if load_table(s, linear, size):
        return 1
    s[IDT_BASE] = s[VALUE]
    s[IDT_LIMIT] = s[VALUE + 1]
    return 0


def load_ldtr(s: State, selector: int, vector: int, absent: int, ext: int) -> int:
    """Load LDTR; a bad selector raises `vector`, an absent segment `absent`."""
    if selector & 0xFFFC == 0:
        s[LDT_SEL] = selector
        s[LDT_ATTR] = UNUSABLE
        s[LDT_BASE] = 0
        s[LDT_LIMIT] = 0
        return 0
    if selector & TI:
        return raise_fault(s, vector, selector_error(selector, ext))
    if fetch(s, selector, vector, ext):
        return 1
    d = s[VALUE]
    attr = attr_of(d)
    if attr & (S | TYPE) != LDT:
        return raise_fault(s, vector, selector_error(selector, ext))
    if not attr & P:
        return raise_fault(s, absent, selector_error(selector, ext))
    base = base_of(d)
    if long_mode(s):
        if fetch_upper(s, selector, vector, ext):
            return 1
        base |= (s[VALUE] & 0xFFFFFFFF) << 32
        if not mode.is_canonical_base(s, base):
            return raise_fault(s, vector, selector_error(selector, ext))
    s[LDT_SEL] = selector
    s[LDT_BASE] = base
    s[LDT_LIMIT] = limit_of(d)
    s[LDT_ATTR] = attr
    return 0


def check_system(s: State) -> int:
    """What LLDT and LTR need: protected mode and CPL 0."""
    if require_protected(s):
        return 1
    if s[CPL] != 0:
        return raise_fault(s, GP, 0)
    return 0


def lldt(s: State, selector: int) -> int:
    """LLDT."""
    if check_system(s):
        return 1
    return load_ldtr(s, selector & 0xFFFF, GP, NP, 0)


def ltr(s: State, selector: int) -> int:
    """LTR: marks the TSS busy."""
    if check_system(s):
        return 1
    if selector & 0xFFFC == 0:
        return raise_fault(s, GP, 0)
    selector = selector & 0xFFFF
    if selector & TI:
        return raise_fault(s, GP, selector_error(selector, 0))
    if fetch(s, selector, GP, 0):
        return 1
    d = s[VALUE]
    attr = attr_of(d)
    kind = attr & (S | TYPE)
    if kind != TSS32_AVAILABLE and (kind != TSS16_AVAILABLE or long_mode(s)):
        return raise_fault(s, GP, selector_error(selector, 0))
    if not attr & P:
        return raise_fault(s, NP, selector_error(selector, 0))
    base = base_of(d)
    if long_mode(s):
        if fetch_upper(s, selector, GP, 0):
            return 1
        base |= (s[VALUE] & 0xFFFFFFFF) << 32
        if not mode.is_canonical_base(s, base):
            return raise_fault(s, GP, selector_error(selector, 0))
    if set_type_bits(s, selector, d, TSS_BUSY_BIT):
        return 1
    s[TR_SEL] = selector
    s[TR_BASE] = base
    s[TR_LIMIT] = limit_of(d)
    s[TR_ATTR] = attr | TSS_BUSY_BIT
    return 0
