"""What RET far and IRET share: checks of the code and stack segments that they return to (SDM 2, IRET and RET).

Mechanism subset. The instructions themselves are in far_transfers.py and interrupts.py.
"""

from __future__ import annotations

from pyemu.cpu import descriptors as ds
from pyemu.cpu import segments
from pyemu.cpu.faults import GP, NP, raise_fault
from pyemu.cpu.state import CPL, GPR, RSP, SS, STACK_MASK, VALUE, State


def fetch_code(s: State, selector: int) -> int:
    """Check a return CS; VALUE = its descriptor, marked accessed."""
    if selector & 0xFFFC == 0:
        return raise_fault(s, GP, 0)
    if ds.fetch(s, selector, GP, 0):
        return 1
    d = s[VALUE]
    attr = ds.attr_of(d)
    rpl = selector & ds.RPL
    dpl = ds.dpl_of(attr)
    error = ds.selector_error(selector, 0)
    if not ds.is_code(attr) or rpl < s[CPL]:
        return raise_fault(s, GP, error)
    if ds.is_conforming(attr):
        if dpl > rpl:
            return raise_fault(s, GP, error)
    elif dpl != rpl:
        return raise_fault(s, GP, error)
    if not attr & ds.P:
        return raise_fault(s, NP, error)
    if segments.check_code_size(s, selector, attr, 0):
        return 1
    if ds.set_type_bits(s, selector, d, ds.ACCESSED):
        return 1
    s[VALUE] = d
    return 0


def fetch_stack(s: State, selector: int, code: int, cpl: int) -> int:
    """Check a return SS for privilege `cpl`; VALUE = its descriptor, or 0 for a null selector, which is allowed when
    the code descriptor is a 64-bit one below privilege 3."""
    if selector & 0xFFFC == 0:
        if not ds.long_mode(s) or not ds.attr_of(code) & ds.L or cpl == 3 or selector & ds.RPL != cpl:
            return raise_fault(s, GP, 0)
        s[VALUE] = 0
        return 0
    return segments.fetch_stack(s, selector, cpl, GP, 0)


def enter(s: State, selector: int, code: int, stack_selector: int, stack: int, pointer: int) -> int:
    """Load CS and SS:RSP from checked descriptors (stack 0: null), at the RPL of CS, and drop segments of inner levels
    if that is an outer one."""
    cpl = selector & ds.RPL
    outer = 1 if cpl > s[CPL] else 0
    if stack == 0:
        segments.set_null(s, SS, stack_selector)
    else:
        segments.set_from_descriptor(s, SS, stack_selector, stack)
    segments.set_code(s, selector, code, cpl)
    if s[STACK_MASK] == 0xFFFF:  # the upper half of ESP stays, as on real processors
        s[GPR + RSP] = (s[GPR + RSP] & 0xFFFF0000) | (pointer & 0xFFFF)
    else:
        s[GPR + RSP] = pointer & s[STACK_MASK]
    if outer:
        segments.drop_inner_segments(s)
    return 0


def to_stack(s: State, at: int, size: int, selector: int, code: int, offset: int, release: int) -> int:
    """Return with another stack: SS:RSP is at `at` on the present one, and drops `release` bytes of parameters."""
    if segments.stack_read(s, at, size):
        return 1
    pointer = s[VALUE]
    if segments.stack_read(s, at + size, size):
        return 1
    stack_selector = s[VALUE] & 0xFFFF
    if fetch_stack(s, stack_selector, code, selector & ds.RPL):
        return 1
    stack = s[VALUE]
    if segments.check_target(s, code, offset):
        return 1
    return enter(s, selector, code, stack_selector, stack, pointer + release)
