"""Far JMP, CALL and RET: code segments, call gates with stack switch, task gates and TSSs (SDM 2; SDM 3, 5.8).

Mechanism subset. Each returns nonzero after raising a fault, with nothing changed; else s[RIP] is new, and VALUE holds
it too, for Instruction.jump().

    far_jump(s, selector, offset, size, next_rip)   size = operand size in bytes; direct and indirect forms
    far_call(s, selector, offset, size, next_rip)
    far_return(s, size, release)                    release = bytes of parameters (RETF imm16)
"""

from __future__ import annotations

from pyemu.cpu import descriptors as ds
from pyemu.cpu import flags as fl
from pyemu.cpu import memory, mode, returns, segments, tasks
from pyemu.cpu.faults import GP, NP, raise_fault
from pyemu.cpu.faults import SS as STACK_FAULT
from pyemu.cpu.state import (
    CPL,
    CS,
    FRAME,
    GPR,
    M64,
    MODE,
    RIP,
    RSP,
    SEG_LIMIT,
    SEG_SEL,
    SS,
    STACK_MASK,
    VALUE,
    State,
)


# ---- parts ---------------------------------------------------------------------------------------------------
def cut(offset: int, size: int) -> int:
    """An offset at an operand size."""
    if size == 2:
        return offset & 0xFFFF
    if size == 4:
        return offset & 0xFFFFFFFF
    return offset


def arrive(s: State, rip: int) -> int:
    """The end of every transfer."""
    s[RIP] = rip
    s[VALUE] = rip
    return 0


def real(s: State) -> int:
    """1 in real and virtual-8086 mode."""
    return 1 if s[MODE] & (mode.PROTECTED | mode.V86) != mode.PROTECTED else 0


def fetch_target(s: State, selector: int) -> int:
    """VALUE = descriptor that a far pointer names; null is #GP(0)."""
    if selector & 0xFFFC == 0:
        return raise_fault(s, GP, 0)
    return ds.fetch(s, selector, GP, 0)


def check_code(s: State, selector: int, d: int) -> int:
    """A code segment as the direct target of JMP or CALL (SDM 3, 5.8.1): same privilege, or conforming. Marks it."""
    attr = ds.attr_of(d)
    dpl = ds.dpl_of(attr)
    error = ds.selector_error(selector, 0)
    if ds.is_conforming(attr):
        if dpl > s[CPL]:
            return raise_fault(s, GP, error)
    elif selector & ds.RPL > s[CPL] or dpl != s[CPL]:
        return raise_fault(s, GP, error)
    if not attr & ds.P:
        return raise_fault(s, NP, error)
    if segments.check_code_size(s, selector, attr, 0):
        return 1
    return ds.set_type_bits(s, selector, d, ds.ACCESSED)


def fetch_gate_code(s: State, selector: int, jump: int) -> int:
    """VALUE = code descriptor that a call gate names, marked accessed."""
    if fetch_target(s, selector):
        return 1
    d = s[VALUE]
    attr = ds.attr_of(d)
    dpl = ds.dpl_of(attr)
    error = ds.selector_error(selector, 0)
    if not ds.is_code(attr) or dpl > s[CPL]:
        return raise_fault(s, GP, error)
    if jump and not ds.is_conforming(attr) and dpl != s[CPL]:
        return raise_fault(s, GP, error)
    if ds.long_mode(s) and attr & (ds.L | ds.DB) != ds.L:
        return raise_fault(s, GP, error)
    if not attr & ds.P:
        return raise_fault(s, NP, error)
    if ds.set_type_bits(s, selector, d, ds.ACCESSED):
        return 1
    s[VALUE] = d
    return 0


def check_gate(s: State, selector: int, d: int) -> int:
    """Privilege and presence of a call gate, task gate or TSS."""
    attr = ds.attr_of(d)
    dpl = ds.dpl_of(attr)
    error = ds.selector_error(selector, 0)
    if dpl < s[CPL] or dpl < selector & ds.RPL:
        return raise_fault(s, GP, error)
    if not attr & ds.P:
        return raise_fault(s, NP, error)
    return 0


def gate_target(s: State, selector: int, d: int) -> int:
    """VALUE = offset in a call gate of any size."""
    if ds.long_mode(s):
        if ds.fetch_upper(s, selector, GP, 0):
            return 1
        s[VALUE] = ds.gate_offset(d) | (s[VALUE] & 0xFFFFFFFF) << 32
    elif ds.attr_of(d) & 8:
        s[VALUE] = ds.gate_offset(d)
    else:
        s[VALUE] = d & 0xFFFF
    return 0


def is_call_gate(s: State, attr: int) -> int:
    """1 for a call gate that exists in the present mode."""
    kind = attr & (ds.S | ds.TYPE)
    if kind == ds.CALL_GATE32:
        return 1
    return 1 if kind == ds.CALL_GATE16 and not ds.long_mode(s) else 0


def to_task(s: State, selector: int, d: int, cause: int, next_rip: int) -> int:
    """JMP or CALL to a TSS or task gate; whatever else the descriptor is raises #GP."""
    kind = ds.attr_of(d) & (ds.S | ds.TYPE)
    if ds.long_mode(s):
        return raise_fault(s, GP, ds.selector_error(selector, 0))
    target = selector
    if kind == ds.TASK_GATE:
        target = ds.gate_selector(d)
    elif kind != ds.TSS16_AVAILABLE and kind != ds.TSS32_AVAILABLE:
        return raise_fault(s, GP, ds.selector_error(selector, 0))
    if check_gate(s, selector, d):
        return 1
    if tasks.switch_task(s, target, cause, next_rip, fl.eflags(s), 0):
        return 1
    return arrive(s, s[RIP])


# ---- JMP -------------------------------------------------------------------------------------------------------
def far_jump(s: State, selector: int, offset: int, size: int, next_rip: int) -> int:
    """JMP ptr16:n and JMP m16:n."""
    selector = selector & 0xFFFF
    offset = cut(offset, size)
    if real(s):
        if offset > s[SEG_LIMIT + CS]:
            return raise_fault(s, GP, 0)
        segments.set_real(s, CS, selector)
        mode.update(s)
        return arrive(s, offset)
    if fetch_target(s, selector):
        return 1
    d = s[VALUE]
    attr = ds.attr_of(d)
    if ds.is_code(attr):
        if check_code(s, selector, d) or segments.check_target(s, d, offset):
            return 1
    elif is_call_gate(s, attr):
        if check_gate(s, selector, d) or gate_target(s, selector, d):
            return 1
        offset = s[VALUE]
        selector = ds.gate_selector(d)
        if fetch_gate_code(s, selector, 1):
            return 1
        d = s[VALUE]
        if segments.check_target(s, d, offset):
            return 1
    else:
        return to_task(s, selector, d, tasks.BY_JUMP, next_rip)
    segments.set_code(s, selector, d, s[CPL])
    return arrive(s, offset)


# ---- CALL ------------------------------------------------------------------------------------------------------
def call_real(s: State, selector: int, offset: int, size: int, next_rip: int) -> int:
    """CALL in real and virtual-8086 mode."""
    if offset > s[SEG_LIMIT + CS]:
        return raise_fault(s, GP, 0)
    s[FRAME] = s[SEG_SEL + CS]
    s[FRAME + 1] = next_rip
    if segments.push_frame_here(s, 2, size, 0):
        return 1
    segments.set_stack_pointer(s, s[VALUE])
    segments.set_real(s, CS, selector)
    mode.update(s)
    return arrive(s, offset)


def call_same_level(s: State, selector: int, d: int, offset: int, size: int, next_rip: int) -> int:
    """CALL to a checked code segment without a change of privilege."""
    if segments.check_target(s, d, offset):
        return 1
    s[FRAME] = s[SEG_SEL + CS]
    s[FRAME + 1] = next_rip
    if segments.push_frame_here(s, 2, size, 0):
        return 1
    pointer = s[VALUE]
    segments.set_stack_pointer(s, pointer)
    segments.set_code(s, selector, d, s[CPL])
    return arrive(s, offset)


def call_inner_long(s: State, selector: int, d: int, offset: int, next_rip: int) -> int:
    """CALL through a 64-bit gate to an inner level: SS becomes null."""
    cpl = ds.dpl_of(ds.attr_of(d))
    if not mode.is_canonical(s, offset):
        return raise_fault(s, GP, 0)
    if tasks.long_stack(s, cpl, 0, 0):
        return 1
    pointer = s[VALUE]
    if not mode.is_canonical(s, pointer):
        return raise_fault(s, STACK_FAULT, 0)
    s[FRAME] = s[SEG_SEL + SS]
    s[FRAME + 1] = s[GPR + RSP]
    s[FRAME + 2] = s[SEG_SEL + CS]
    s[FRAME + 3] = next_rip
    if segments.push_frame(s, 0, 0, 0, M64, pointer, 4, 8, 0, memory.SYSTEM):
        return 1
    s[GPR + RSP] = s[VALUE]
    segments.set_null(s, SS, cpl)
    segments.set_code(s, selector, d, cpl)
    return arrive(s, offset)


def call_inner(s: State, selector: int, d: int, offset: int, size: int, count: int, next_rip: int) -> int:
    """CALL through a 16-bit or 32-bit gate to an inner level, with `count` parameters copied from the old stack."""
    cpl = ds.dpl_of(ds.attr_of(d))
    if tasks.inner_stack(s, cpl, 0):
        return 1
    stack = s[VALUE]
    stack_selector = s[tasks.INNER_SELECTOR]
    pointer = s[tasks.INNER_POINTER]
    if segments.check_target(s, d, offset):
        return 1
    for n in range(count):
        if segments.stack_read(s, (count - 1 - n) * size, size):
            return 1
        s[FRAME + 2 + n] = s[VALUE]
    s[FRAME] = s[SEG_SEL + SS]
    s[FRAME + 1] = s[GPR + RSP] & s[STACK_MASK]
    s[FRAME + 2 + count] = s[SEG_SEL + CS]
    s[FRAME + 3 + count] = next_rip
    attr = ds.attr_of(stack)
    mask = segments.pointer_mask(s, attr)
    if segments.push_frame(
        s, ds.base_of(stack), ds.limit_of(stack), attr, mask, pointer & mask, 4 + count, size,
        ds.selector_error(stack_selector, 0), memory.SYSTEM,
    ):  # fmt: skip
        return 1
    pointer = s[VALUE]
    segments.set_from_descriptor(s, SS, stack_selector, stack)
    segments.set_code(s, selector, d, cpl)
    segments.set_stack_pointer(s, pointer)
    return arrive(s, offset)


def call_gate(s: State, selector: int, gate: int, next_rip: int) -> int:
    """CALL to a call gate."""
    if check_gate(s, selector, gate) or gate_target(s, selector, gate):
        return 1
    offset = s[VALUE]
    target = ds.gate_selector(gate)
    if fetch_gate_code(s, target, 0):
        return 1
    d = s[VALUE]
    attr = ds.attr_of(d)
    inner = 1 if not ds.is_conforming(attr) and ds.dpl_of(attr) < s[CPL] else 0
    if ds.long_mode(s):
        if inner:
            return call_inner_long(s, target, d, offset, next_rip)
        return call_same_level_long(s, target, d, offset, next_rip)
    size = 4 if ds.attr_of(gate) & 8 else 2
    if inner:
        return call_inner(s, target, d, offset, size, (gate >> 32) & 31, next_rip)
    return call_same_level(s, target, d, offset, size, next_rip)


def call_same_level_long(s: State, selector: int, d: int, offset: int, next_rip: int) -> int:
    """CALL through a 64-bit gate without a change of privilege; it pushes 8-byte words from compatibility mode too."""
    if segments.check_target(s, d, offset):
        return 1
    s[FRAME] = s[SEG_SEL + CS]
    s[FRAME + 1] = next_rip
    if segments.push_frame(s, 0, 0, 0, M64, s[GPR + RSP], 2, 8, 0, memory.READ):
        return 1
    s[GPR + RSP] = s[VALUE]
    segments.set_code(s, selector, d, s[CPL])
    return arrive(s, offset)


def far_call(s: State, selector: int, offset: int, size: int, next_rip: int) -> int:
    """CALL ptr16:n and CALL m16:n."""
    selector = selector & 0xFFFF
    offset = cut(offset, size)
    if real(s):
        return call_real(s, selector, offset, size, next_rip)
    if fetch_target(s, selector):
        return 1
    d = s[VALUE]
    attr = ds.attr_of(d)
    if ds.is_code(attr):
        if check_code(s, selector, d):
            return 1
        return call_same_level(s, selector, d, offset, size, next_rip)
    if is_call_gate(s, attr):
        return call_gate(s, selector, d, next_rip)
    return to_task(s, selector, d, tasks.BY_CALL, next_rip)


# ---- RET -------------------------------------------------------------------------------------------------------
def far_return(s: State, size: int, release: int) -> int:
    """RETF and RETF imm16; to an outer level with SS:RSP from the stack, where parameters are released too."""
    if segments.stack_read(s, 0, size):
        return 1
    offset = s[VALUE]
    if segments.stack_read(s, size, size):
        return 1
    selector = s[VALUE] & 0xFFFF
    if real(s):
        if offset > s[SEG_LIMIT + CS]:
            return raise_fault(s, GP, 0)
        segments.move_stack(s, 2 * size + release)
        segments.set_real(s, CS, selector)
        mode.update(s)
        return arrive(s, offset)
    if returns.fetch_code(s, selector):
        return 1
    d = s[VALUE]
    if selector & ds.RPL == s[CPL]:
        if segments.check_target(s, d, offset):
            return 1
        segments.move_stack(s, 2 * size + release)
        segments.set_code(s, selector, d, s[CPL])
        return arrive(s, offset)
    if returns.to_stack(s, 2 * size + release, size, selector, d, offset, release):
        return 1
    mode.update(s)
    return arrive(s, offset)
