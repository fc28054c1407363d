"""The task-state segment: inner stack pointers, and hardware task switches (SDM 3, chapter 7).

Mechanism subset. `switch_task` serves JMP, CALL, interrupts through task gates and IRET with NT; long mode lacks that,
but keeps its stacks in the TSS.
"""

from __future__ import annotations

from array import array

from pyemu.cpu import debug, hooks, memory, mode, physical, segments, tlb
from pyemu.cpu import descriptors as ds
from pyemu.cpu import flags as fl
from pyemu.cpu.faults import DR6_BT, GP, NP, TS, raise_fault
from pyemu.cpu.state import (
    CPL,
    CR0,
    CR3,
    CR4,
    CS,
    DR,
    EXIT_REQUEST,
    FLAGS,
    FRAME,
    GPR,
    HOOK_EVENTS,
    ICOUNT,
    LDT_ATTR,
    LDT_BASE,
    LDT_LIMIT,
    LDT_SEL,
    PDPTE,
    PENDING_DEBUG,
    RF_COUNT,
    RIP,
    SEG_LIMIT,
    SEG_SEL,
    SS,
    TR_ATTR,
    TR_BASE,
    TR_LIMIT,
    TR_SEL,
    VALUE,
    State,
)

# What causes a switch.
BY_JUMP, BY_CALL, BY_INTERRUPT, BY_IRET = 0, 1, 2, 3

# 32-bit TSS (SDM 3, figure 7-2) and 16-bit TSS (figure 7-10): offsets of the saved state, which is contiguous.
# In FRAME it stands as CR3, EIP, EFLAGS, 8 registers, ES CS SS DS FS GS, LDT (18 words), then the T flag.
STATE32 = array("Q", [0x1C, 0x20, 0x24, *range(0x28, 0x48, 4), *range(0x48, 0x60, 4), 0x60, 0x64])
STATE16 = array("Q", [0, 0x0E, 0x10, *range(0x12, 0x22, 2), 0x22, 0x24, 0x26, 0x28, 0, 0, 0x2A, 0])
F_CR3, F_EIP, F_FLAGS, F_GPR, F_SEGMENTS, F_LDT, F_TRAP = 0, 1, 2, 3, 11, 17, 18
LIMIT32, LIMIT16 = 0x67, 0x2B  # smallest limits (SDM 3, 7.2.2)
CR4_PAE = 1 << 5
PDPTE_RESERVED = 0xFFF0000000000000 | 0x000FFFFFFFFFFFFF & ~physical.PHYSICAL_MASK | 0x1E6
# Scratch words behind the frame.
NEW_PDPTES, INNER_SELECTOR, INNER_POINTER = FRAME + 40, FRAME + 46, FRAME + 47
LINK = 0  # selector of the previous task
LONG_RSP0, LONG_IST0 = 4, 28  # 64-bit TSS (figure 7-11): RSPn at 4 + 8n, ISTn at 28 + 8n


# ---- stacks -----------------------------------------------------------------------------------------------
def read_tss(s: State, offset: int, size: int, ext: int) -> int:
    """VALUE = a field of the current TSS; #TS names TR if it lies outside."""
    if offset + size - 1 > s[TR_LIMIT] or s[TR_ATTR] & ds.UNUSABLE:
        return raise_fault(s, TS, ds.selector_error(s[TR_SEL], ext))
    return memory.read(s, ds.wrap(s, s[TR_BASE] + offset), size, memory.SYSTEM)


def long_stack(s: State, cpl: int, ist: int, ext: int) -> int:
    """VALUE = RSP for privilege `cpl`, or ISTn if `ist` is not 0."""
    return read_tss(s, LONG_IST0 + 8 * ist if ist else LONG_RSP0 + 8 * cpl, 8, ext)


def is_tss32(s: State) -> int:
    """Nonzero if the current TSS is a 32-bit one."""
    return int(s[TR_ATTR] & 8)


def inner_stack(s: State, cpl: int, ext: int) -> int:
    """Legacy stack for an inner privilege level: VALUE = descriptor, FRAME + 46 = selector, FRAME + 47 = pointer."""
    if is_tss32(s):
        if read_tss(s, 4 + 8 * cpl, 4, ext):
            return 1
        pointer = s[VALUE]
        if read_tss(s, 8 + 8 * cpl, 2, ext):
            return 1
    else:
        if read_tss(s, 2 + 4 * cpl, 2, ext):
            return 1
        pointer = s[VALUE]
        if read_tss(s, 4 + 4 * cpl, 2, ext):
            return 1
    selector = s[VALUE]
    s[INNER_SELECTOR] = selector
    s[INNER_POINTER] = pointer
    if selector & 0xFFFC == 0:
        return raise_fault(s, TS, ext)
    return segments.fetch_stack(s, selector, cpl, TS, ext)


# ---- switching --------------------------------------------------------------------------------------------
def check_tss(s: State, selector: int, cause: int, ext: int) -> int:
    """VALUE = descriptor of a TSS that may be switched to."""
    vector = TS if cause == BY_IRET else GP
    error = ds.selector_error(selector, ext)
    if selector & ds.TI or selector & 0xFFFC == 0:
        return raise_fault(s, vector, error)
    if ds.fetch(s, selector, vector, ext):
        return 1
    attr = ds.attr_of(s[VALUE])
    kind = attr & (ds.S | ds.TYPE)
    if cause == BY_IRET:
        if kind != ds.TSS32_BUSY and kind != ds.TSS16_BUSY:
            return raise_fault(s, TS, error)
    elif kind != ds.TSS32_AVAILABLE and kind != ds.TSS16_AVAILABLE:
        return raise_fault(s, GP, error)
    if not attr & ds.P:
        return raise_fault(s, NP, error)
    if ds.limit_of(s[VALUE]) < (LIMIT32 if attr & 8 else LIMIT16):
        return raise_fault(s, TS, error)
    return 0


def read_state(s: State, base: int, wide: int) -> int:
    """Read the new task's state into FRAME."""
    for n in range(19):
        offset = STATE32[n] if wide else STATE16[n]
        if offset:
            size = 4 if wide else 2
            if memory.read(s, ds.wrap(s, base + offset), size, memory.SYSTEM):
                return 1
            s[FRAME + n] = s[VALUE]
        else:
            s[FRAME + n] = 0
    return 0


def probe_state(s: State) -> int:
    """Fault now if the old task's state cannot be saved."""
    first = STATE32[F_EIP] if is_tss32(s) else STATE16[F_EIP]
    last = STATE32[F_SEGMENTS + 5] + 1 if is_tss32(s) else STATE16[F_SEGMENTS + 3] + 1
    if last > s[TR_LIMIT] or s[TR_ATTR] & ds.UNUSABLE:
        return raise_fault(s, TS, ds.selector_error(s[TR_SEL], 0))
    return memory.probe(s, ds.wrap(s, s[TR_BASE] + first), last - first + 1, ds.SYSTEM_WRITE)


def save_state(s: State, rip: int, rflags: int) -> int:
    """Store the old task's state; probe_state() has been done."""
    wide = is_tss32(s)
    size = 4 if wide else 2
    for n in range(F_EIP, F_LDT):
        offset = STATE32[n] if wide else STATE16[n]
        value = rip
        if n == F_FLAGS:
            value = rflags
        elif n >= F_SEGMENTS:
            value = s[SEG_SEL + n - F_SEGMENTS]
        elif n >= F_GPR:
            value = s[GPR + n - F_GPR]
        if offset:
            if memory.write(s, ds.wrap(s, s[TR_BASE] + offset), size if n < F_SEGMENTS else 2, value, ds.SYSTEM_WRITE):
                return 1
    return 0


def read_pdptes(s: State, cr3: int) -> int:
    """PAE paging: read the page-directory-pointer entries; #GP(0) for reserved bits (SDM 3, 4.4.1)."""
    for n in range(4):
        e = physical.read(s, (cr3 & 0xFFFFFFE0) + 8 * n, 8)
        if e & 1 and e & PDPTE_RESERVED:
            return raise_fault(s, GP, 0)
        s[NEW_PDPTES + n] = e
    return 0


def load_cr3(s: State, cr3: int) -> int:
    """The address space of the new task; read_pdptes() has been done."""
    if s[CR4] & CR4_PAE:
        for n in range(4):
            s[PDPTE + n] = s[NEW_PDPTES + n]
    if s[HOOK_EVENTS]:
        hooks.event(s, hooks.CR3_CHANGE, s[CR3], cr3)
    s[CR3] = cr3
    return tlb.flush(s)


def load_code(s: State, ext: int) -> int:
    """CS of the new task, whose selector and CPL are in place."""
    selector = s[SEG_SEL + CS]
    error = ds.selector_error(selector, ext)
    if selector & 0xFFFC == 0:
        return raise_fault(s, TS, error)
    if ds.fetch(s, selector, TS, ext):
        return 1
    d = s[VALUE]
    attr = ds.attr_of(d)
    rpl = selector & ds.RPL
    if not ds.is_code(attr):
        return raise_fault(s, TS, error)
    if ds.is_conforming(attr):
        if ds.dpl_of(attr) > rpl:
            return raise_fault(s, TS, error)
    elif ds.dpl_of(attr) != rpl:
        return raise_fault(s, TS, error)
    if not attr & ds.P:
        return raise_fault(s, NP, error)
    if ds.set_type_bits(s, selector, d, ds.ACCESSED):
        return 1
    return segments.set_code(s, selector, d, rpl)


def load_segments(s: State, ext: int) -> int:
    """Descriptors of the new task's segments; the selectors are in place."""
    if s[FLAGS] & fl.VM:
        for segment in range(6):
            segments.set_real(s, segment, s[SEG_SEL + segment])
        return 0
    if load_code(s, ext):
        return 1
    selector = s[SEG_SEL + SS]
    if selector & 0xFFFC == 0:
        return raise_fault(s, TS, ds.selector_error(selector, ext))
    if segments.fetch_stack(s, selector, s[CPL], TS, ext):
        return 1
    segments.set_from_descriptor(s, SS, selector, s[VALUE])
    mode.update(s)
    for segment in range(6):
        if segment != CS and segment != SS:
            if segments.load_data(s, segment, s[SEG_SEL + segment], TS, ext):
                return 1
    return mode.update(s)


def enter_state(s: State, wide: int, cause: int) -> int:
    """Take registers and selectors from FRAME; every segment is unusable until its descriptor is loaded."""
    new = s[FRAME + F_FLAGS] if wide else s[FRAME + F_FLAGS] & 0xFFFF
    if cause == BY_CALL or cause == BY_INTERRUPT:
        new = new | fl.NT
    fl.set_eflags(s, new & 0x3F7FD5, 0xFFFFFFFF)
    s[RF_COUNT] = s[ICOUNT] if cause == BY_INTERRUPT else s[ICOUNT] + 1
    s[RIP] = s[FRAME + F_EIP]
    for n in range(8):
        value = s[FRAME + F_GPR + n]
        s[GPR + n] = value if wide else 0xFFFF0000 | value
    for n in range(6):
        selector = s[FRAME + F_SEGMENTS + n] & 0xFFFF
        segments.set_segment(s, n, selector, 0, 0, ds.UNUSABLE)
    s[CPL] = 3 if s[FLAGS] & fl.VM else s[SEG_SEL + CS] & ds.RPL
    s[DR + 7] = s[DR + 7] & ~0x155  # local breakpoints are the old task's (SDM 3, 18.2.4)
    s[LDT_SEL] = s[FRAME + F_LDT] & 0xFFFF
    s[LDT_ATTR] = ds.UNUSABLE
    s[LDT_BASE] = 0
    s[LDT_LIMIT] = 0
    return debug.refresh(s)


def switch_task(s: State, selector: int, cause: int, rip: int, rflags: int, ext: int) -> int:
    """Switch to the task of a TSS selector; `rip` is where the old task will resume, with `rflags`. Faults before the
    new task's state is taken leave everything as it was and give 1. Later ones belong to the new task (SDM 3, table
    7-1): the switch is done, and the fault waits to be delivered at the new RIP, before its first instruction."""
    if check_tss(s, selector, cause, ext):
        return 1
    d = s[VALUE]
    base = ds.base_of(d)
    wide = ds.attr_of(d) & 8
    if read_state(s, base, wide) or probe_state(s):
        return 1
    if memory.probe(s, base, 2, ds.SYSTEM_WRITE):
        return 1
    if memory.probe(s, ds.descriptor_address(s, selector), 8, ds.SYSTEM_WRITE):
        return 1
    old = s[TR_SEL]
    old_descriptor = ds.descriptor_address(s, old)
    if memory.probe(s, old_descriptor, 8, ds.SYSTEM_WRITE):
        return 1
    if wide and s[CR0] & mode.CR0_PG:
        if s[CR4] & CR4_PAE and read_pdptes(s, s[FRAME + F_CR3]):
            return 1
    if save_state(s, rip, rflags):
        return 1
    if cause == BY_JUMP or cause == BY_IRET:
        if memory.read(s, old_descriptor + 5, 1, memory.SYSTEM):
            return 1
        if memory.write(s, old_descriptor + 5, 1, s[VALUE] & ~ds.TSS_BUSY_BIT, ds.SYSTEM_WRITE):
            return 1
    if cause != BY_IRET:
        if ds.set_type_bits(s, selector, d, ds.TSS_BUSY_BIT):
            return 1
    if cause == BY_CALL or cause == BY_INTERRUPT:
        if memory.write(s, base + LINK, 2, old, ds.SYSTEM_WRITE):
            return 1
    s[TR_SEL] = selector
    s[TR_BASE] = base
    s[TR_LIMIT] = ds.limit_of(d)
    s[TR_ATTR] = ds.attr_of(d) | ds.TSS_BUSY_BIT
    s[CR0] = s[CR0] | mode.CR0_TS
    if wide and s[CR0] & mode.CR0_PG:
        load_cr3(s, s[FRAME + F_CR3])
    trap = s[FRAME + F_TRAP] & 1
    enter_state(s, wide, cause)
    ldt = s[LDT_SEL]
    if ds.load_ldtr(s, ldt, TS, TS, ext) or load_segments(s, ext):
        s[EXIT_REQUEST] = 1  # the loop delivers what waits: translated code doesn't look for it between instructions
    elif s[RIP] > s[SEG_LIMIT + CS]:
        s[EXIT_REQUEST] = 1
        raise_fault(s, GP, ext)
    elif trap:
        s[PENDING_DEBUG] = s[PENDING_DEBUG] | DR6_BT
    return 0


def return_from_task(s: State, rip: int) -> int:
    """IRET with NT set: back to the task that the current TSS links to."""
    if read_tss(s, LINK, 2, 0):
        return 1
    return switch_task(s, s[VALUE], BY_IRET, rip, fl.eflags(s) & ~fl.NT, 0)
