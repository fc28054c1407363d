"""Segment registers: loads in every mode, segment checks, and the stack for mechanism code (SDM 3, chapters 3, 5, 20).

Mechanism subset. Not here: descriptors (descriptors.py), transfers of control (far_transfers.py, interrupts.py).

    load_segment(s, segment, selector)            MOV/POP to ES SS DS FS GS, LDS and friends
    linear(s, segment, offset, size, access)      VALUE = linear address, after limit and type checks
    stack_push(s, value, size), stack_pop(s, size)
    push_frame(...)                               several pushes, all or nothing, on the present or on a new stack
"""

from __future__ import annotations

from pyemu.cpu import descriptors as ds
from pyemu.cpu import memory, mode
from pyemu.cpu.faults import GP, NP, raise_fault
from pyemu.cpu.faults import SS as STACK_FAULT
from pyemu.cpu.state import (
    CPL,
    CS,
    FRAME,
    FS,
    GPR,
    GS,
    M64,
    MODE,
    RSP,
    SEG_ATTR,
    SEG_BASE,
    SEG_LIMIT,
    SEG_SEL,
    SS,
    STACK_MASK,
    VALUE,
    State,
)

# Attributes that loads give without a descriptor.
REAL_DATA = 0x93  # present, writable, accessed
REAL_CODE = 0x9B  # present, readable, accessed code
V86_SEGMENT = 0xF3  # the same as REAL_DATA with DPL 3 (SDM 3, 20.1.1)
FLAT_LIMIT = 0xFFFFFFFF
FLAT_CODE64 = 0xA09B  # G, L, present, readable, accessed code; DPL is or-ed in
FLAT_CODE32 = 0xC09B
FLAT_DATA = 0xC093

TYPE_CODE_READABLE = ds.CODE | ds.READABLE


# ---- putting values into segment registers (no checks) -------------------------------------------------
def set_segment(s: State, segment: int, selector: int, base: int, limit: int, attr: int) -> int:
    """All four parts of a segment register."""
    s[SEG_SEL + segment] = selector
    s[SEG_BASE + segment] = base
    s[SEG_LIMIT + segment] = limit
    s[SEG_ATTR + segment] = attr
    return 0


def set_from_descriptor(s: State, segment: int, selector: int, d: int) -> int:
    """From a checked descriptor; it counts as accessed."""
    return set_segment(s, segment, selector, ds.base_of(d), ds.limit_of(d), ds.attr_of(d) | ds.ACCESSED)


def set_null(s: State, segment: int, selector: int) -> int:
    """A null selector: unusable, with base 0 (as Intel's processors clear it); the DPL of a null SS is CPL."""
    return set_segment(s, segment, selector, 0, 0, ds.UNUSABLE | (selector & ds.RPL) << ds.DPL_SHIFT)


def set_real(s: State, segment: int, selector: int) -> int:
    """A load in real or virtual-8086 mode: base = selector * 16. Real mode keeps limit and rights ("big real mode")."""
    selector = selector & 0xFFFF
    if s[MODE] & mode.V86:
        return set_segment(s, segment, selector, selector << 4, 0xFFFF, V86_SEGMENT)
    s[SEG_SEL + segment] = selector
    s[SEG_BASE + segment] = selector << 4
    if s[SEG_ATTR + segment] & ds.UNUSABLE:
        s[SEG_LIMIT + segment] = 0xFFFF
        s[SEG_ATTR + segment] = REAL_CODE if segment == CS else REAL_DATA
    return 0


# ---- loads of data and stack segments ------------------------------------------------------------------
def load_data(s: State, segment: int, selector: int, vector: int, ext: int) -> int:
    """ES, DS, FS, GS in protected mode; a bad selector raises `vector` (#GP, or #TS in a task switch)."""
    if selector & 0xFFFC == 0:
        return set_null(s, segment, selector)
    if ds.fetch(s, selector, vector, ext):
        return 1
    d = s[VALUE]
    attr = ds.attr_of(d)
    error = ds.selector_error(selector, ext)
    if not attr & ds.S or attr & TYPE_CODE_READABLE == ds.CODE:
        return raise_fault(s, vector, error)
    if not ds.is_conforming(attr):
        dpl = ds.dpl_of(attr)
        if selector & ds.RPL > dpl or s[CPL] > dpl:
            return raise_fault(s, vector, error)
    if not attr & ds.P:
        return raise_fault(s, NP, error)
    if ds.set_type_bits(s, selector, d, ds.ACCESSED):
        return 1
    return set_from_descriptor(s, segment, selector, d)


def fetch_stack(s: State, selector: int, cpl: int, vector: int, ext: int) -> int:
    """Check a non-null selector for SS at privilege `cpl`; VALUE = its descriptor, marked accessed. Bad ones raise
    `vector`, absent ones #SS."""
    if ds.fetch(s, selector, vector, ext):
        return 1
    d = s[VALUE]
    attr = ds.attr_of(d)
    error = ds.selector_error(selector, ext)
    if selector & ds.RPL != cpl or ds.dpl_of(attr) != cpl or not ds.is_writable_data(attr):
        return raise_fault(s, vector, error)
    if not attr & ds.P:
        return raise_fault(s, STACK_FAULT, error)
    if ds.set_type_bits(s, selector, d, ds.ACCESSED):
        return 1
    s[VALUE] = d
    return 0


def load_stack(s: State, selector: int) -> int:
    """SS in protected mode. Null is allowed in 64-bit mode below CPL 3."""
    cpl = s[CPL]
    if selector & 0xFFFC == 0:
        if not s[MODE] & mode.CODE64 or cpl == 3 or selector & ds.RPL != cpl:
            return raise_fault(s, GP, 0)
        return set_null(s, SS, selector)
    if fetch_stack(s, selector, cpl, GP, 0):
        return 1
    return set_from_descriptor(s, SS, selector, s[VALUE])


def load_segment(s: State, segment: int, selector: int) -> int:
    """Load ES, SS, DS, FS or GS as MOV does. The interrupt shadow after SS is the instruction's business."""
    selector = selector & 0xFFFF
    status = 0
    if s[MODE] & (mode.PROTECTED | mode.V86) != mode.PROTECTED:
        set_real(s, segment, selector)
    elif segment == SS:
        status = load_stack(s, selector)
    else:
        status = load_data(s, segment, selector, GP, 0)
    if status == 0 and (segment == SS or s[MODE] & mode.CODE64 == 0):
        mode.update(s)
    return status


def drop_inner_segments(s: State) -> int:
    """After a return to an outer level: ES, DS, FS and GS that the new CPL may not use become null (SDM 2, RET), as
    selectors: the base stays, which 64-bit code goes on using. A null selector loses its RPL: Linux's sigreturn test
    sees it. The caller brings the mode up to date."""
    cpl = s[CPL]
    for segment in range(6):
        if segment != CS and segment != SS:
            attr = s[SEG_ATTR + segment]
            if attr & ds.UNUSABLE:
                s[SEG_SEL + segment] = 0
            elif not ds.is_conforming(attr) and ds.dpl_of(attr) < cpl:
                base = s[SEG_BASE + segment]
                set_null(s, segment, 0)
                s[SEG_BASE + segment] = base
    return 0


# ---- code segments ---------------------------------------------------------------------------------------
def set_code(s: State, selector: int, d: int, cpl: int) -> int:
    """Load CS from a checked descriptor at privilege `cpl`, and bring the mode up to date."""
    set_from_descriptor(s, CS, (selector & 0xFFFC) | cpl, d)
    s[CPL] = cpl
    return mode.update(s)


def check_code_size(s: State, selector: int, attr: int, ext: int) -> int:
    """#GP if a code descriptor has both L and D set in long mode (SDM 3, 5.2.1)."""
    if ds.long_mode(s) and attr & (ds.L | ds.DB) == ds.L | ds.DB:
        return raise_fault(s, GP, ds.selector_error(selector, ext))
    return 0


def check_target(s: State, d: int, offset: int) -> int:
    """#GP(0) if an offset does not lie in a code segment: canonical for 64-bit code, else within the limit."""
    if ds.long_mode(s) and ds.attr_of(d) & ds.L:
        if mode.is_canonical(s, offset):
            return 0
    elif offset <= ds.limit_of(d):
        return 0
    return raise_fault(s, GP, 0)


# ---- linear addresses -----------------------------------------------------------------------------------
def in_limit(limit: int, attr: int, offset: int, size: int) -> int:
    """1 if `size` bytes at a 32-bit offset lie within a segment (SDM 3, 5.3)."""
    last = offset + size - 1
    if attr & (ds.S | ds.CODE | ds.EXPAND_DOWN) == ds.S | ds.EXPAND_DOWN:
        top = 0xFFFFFFFF if attr & ds.DB else 0xFFFF
        return 1 if offset > limit and last <= top else 0
    return 1 if last <= limit else 0


def linear(s: State, segment: int, offset: int, size: int, access: int) -> int:
    """VALUE = linear address of `size` bytes at an offset in a segment register, or 1 with #GP(0) or #SS(0) raised."""
    if s[MODE] & mode.CODE64:
        if segment == FS or segment == GS:
            offset = offset + s[SEG_BASE + segment]
        s[VALUE] = offset & M64
        return 0
    attr = s[SEG_ATTR + segment]
    offset = offset & 0xFFFFFFFF
    good = 1
    if attr & ds.UNUSABLE:
        good = 0
    elif s[MODE] & (mode.PROTECTED | mode.V86) == mode.PROTECTED:
        if access & memory.WRITE:
            good = ds.is_writable_data(attr)
        elif attr & TYPE_CODE_READABLE == ds.CODE:
            good = 0
    if good == 0 or not in_limit(s[SEG_LIMIT + segment], attr, offset, size):
        return raise_fault(s, STACK_FAULT if segment == SS else GP, 0)
    s[VALUE] = (s[SEG_BASE + segment] + offset) & 0xFFFFFFFF
    return 0


# ---- the stack, for mechanism code ----------------------------------------------------------------------
def set_stack_pointer(s: State, value: int) -> int:
    """Set SP, ESP or RSP, whichever the stack segment has; a 16-bit one keeps the upper bits."""
    mask = s[STACK_MASK]
    if mask == 0xFFFF:
        s[GPR + RSP] = (s[GPR + RSP] & ~0xFFFF) | (value & 0xFFFF)
    else:
        s[GPR + RSP] = value & mask
    return 0


def stack_linear(s: State, offset: int, size: int, access: int) -> int:
    """VALUE = linear address of `size` bytes at stack pointer + offset (modulo 2^64); nothing moves."""
    return linear(s, SS, (s[GPR + RSP] + offset) & s[STACK_MASK], size, access)


def stack_read(s: State, offset: int, size: int) -> int:
    """VALUE = what stands at stack pointer + offset, read at the present privilege."""
    if stack_linear(s, offset, size, memory.READ):
        return 1
    return memory.read(s, s[VALUE], size, memory.STACK)


def stack_probe(s: State, offset: int, size: int) -> int:
    """0 if stack pointer + offset can be written."""
    if stack_linear(s, offset, size, memory.WRITE):
        return 1
    return memory.probe_aligned(s, s[VALUE], size, size, memory.STACK | memory.WRITE)


def stack_write(s: State, offset: int, size: int, value: int) -> int:
    """Store at stack pointer + offset; nothing moves."""
    if stack_linear(s, offset, size, memory.WRITE):
        return 1
    return memory.write(s, s[VALUE], size, value, memory.STACK | memory.WRITE)


def move_stack(s: State, offset: int) -> int:
    """Add an offset (modulo 2^64) to the stack pointer."""
    return set_stack_pointer(s, (s[GPR + RSP] + offset) & M64)


def stack_push(s: State, value: int, size: int) -> int:
    """Push and commit the stack pointer."""
    if stack_write(s, (0 - size) & M64, size, value):
        return 1
    return move_stack(s, (0 - size) & M64)


def stack_pop(s: State, size: int) -> int:
    """Pop into VALUE and commit the stack pointer."""
    if stack_read(s, 0, size):
        return 1
    return move_stack(s, size)


def pointer_mask(s: State, attr: int) -> int:
    """Width of the stack pointer with an SS of these attributes, outside 64-bit mode."""
    return 0xFFFFFFFF if attr & ds.DB else 0xFFFF


def frame_linear(s: State, base: int, limit: int, attr: int, mask: int, offset: int, size: int, error: int) -> int:
    """VALUE = linear address of one slot of push_frame()."""
    if mask == M64:
        if not mode.is_canonical(s, offset):
            return raise_fault(s, STACK_FAULT, error)
        s[VALUE] = offset
        return 0
    if not in_limit(limit, attr, offset, size):
        return raise_fault(s, STACK_FAULT, error)
    s[VALUE] = ds.wrap(s, (base + offset) & 0xFFFFFFFF)
    return 0


def push_frame(
    s: State,
    base: int,
    limit: int,
    attr: int,
    mask: int,
    pointer: int,
    count: int,
    size: int,
    error: int,
    access: int,
) -> int:
    """Push FRAME[0] .. FRAME[count - 1] on the described stack; VALUE = its pointer afterwards. Nothing is written if
    any push would fault. `error` is the code of #SS, `mask` the pointer's width (M64: no base and limit)."""
    access = access | memory.STACK | memory.WRITE
    for n in range(count):
        if frame_linear(s, base, limit, attr, mask, (pointer - (n + 1) * size) & mask, size, error):
            return 1
        if memory.probe(s, s[VALUE], size, access):
            return 1
    for n in range(count):
        if frame_linear(s, base, limit, attr, mask, (pointer - (n + 1) * size) & mask, size, error):
            return 1
        if memory.write(s, s[VALUE], size, s[FRAME + n], access):
            return 1
    s[VALUE] = (pointer - count * size) & mask
    return 0


def push_frame_here(s: State, count: int, size: int, error: int) -> int:
    """push_frame() on the present stack, at the present privilege; VALUE = the pointer afterwards."""
    return push_frame(
        s, s[SEG_BASE + SS], s[SEG_LIMIT + SS], s[SEG_ATTR + SS], s[STACK_MASK], s[GPR + RSP] & s[STACK_MASK],
        count, size, error, 0,
    )  # fmt: skip
