"""SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS and VMCALL (SDM 2; AMD's manual, volume 3, for SYSCALL outside 64-bit
mode).

Mechanism subset. None of them touches the stack or reads a descriptor: CS and SS get fixed values. Each returns nonzero
after raising a fault; those that jump set s[RIP] and leave it in VALUE too, for Instruction.jump().

    syscall(s, next_rip)   sysret(s, size)   sysenter(s)   sysexit(s, size)   swapgs(s)     size = operand size in bytes
"""

from __future__ import annotations

from pyemu.cpu import flags as fl
from pyemu.cpu import hooks, mode, segments
from pyemu.cpu.descriptors import DPL_SHIFT
from pyemu.cpu.faults import GP, UD, raise_fault
from pyemu.cpu.state import (
    CPL,
    CS,
    CSTAR,
    EFER,
    FLAGS,
    GPR,
    GS,
    HOOK_EVENTS,
    HYPERCALL_ANSWERED,
    ICOUNT,
    KERNEL_GS_BASE,
    LSTAR,
    MODE,
    R11,
    RCX,
    RDX,
    RIP,
    RSP,
    SEG_BASE,
    SEG_SEL,
    SFMASK,
    SS,
    STAR,
    STEPPING,
    SYSENTER_CS,
    SYSENTER_EIP,
    SYSENTER_ESP,
    VALUE,
    State,
)

SYSRET_FLAGS = 0x3C7FD7  # what SYSRET takes of R11: all but RF and VM


def enter(s: State, selector: int, cpl: int, wide: int, rip: int) -> int:
    """Flat CS (64-bit if `wide`) at a selector, flat SS at the next one, a new privilege and RIP."""
    rights = cpl << DPL_SHIFT
    code = segments.FLAT_CODE64 if wide else segments.FLAT_CODE32
    selector = selector & 0xFFFC
    segments.set_segment(s, CS, selector | cpl, 0, segments.FLAT_LIMIT, code | rights)
    segments.set_segment(s, SS, ((selector + 8) & 0xFFFF) | cpl, 0, segments.FLAT_LIMIT, segments.FLAT_DATA | rights)
    s[CPL] = cpl
    s[RIP] = rip
    s[VALUE] = rip
    return mode.update(s)


def step(s: State) -> int:
    """Whether SYSCALL and SYSRET are stepped depends on TF behind them: the kernel's entry isn't, and a return to a
    stepped program is, as if its SYSCALL had just ended (AMD's manual, volume 2, 6.1.1)."""
    s[STEPPING] = s[FLAGS] & fl.TF
    return 0


def syscall(s: State, next_rip: int) -> int:
    """SYSCALL; from compatibility mode through IA32_CSTAR, outside long mode through STAR, as AMD's processors do."""
    if not s[EFER] & mode.EFER_SCE or not s[MODE] & mode.PROTECTED:
        return raise_fault(s, UD, 0)
    if s[HOOK_EVENTS]:
        hooks.event(s, hooks.SYSCALL, 0, next_rip)
    selector = (s[STAR] >> 32) & 0xFFFF
    s[GPR + RCX] = next_rip
    if s[MODE] & mode.LONG_MODE:
        image = fl.eflags(s) & ~fl.RF
        s[GPR + R11] = image
        fl.set_eflags(s, image & ~(s[SFMASK] & 0xFFFFFFFF), 0xFFFFFFFF)
        step(s)
        return enter(s, selector, 0, 1, s[LSTAR] if s[MODE] & mode.CODE64 else s[CSTAR])
    s[FLAGS] = s[FLAGS] & ~(fl.VM | fl.IF | fl.RF)
    return enter(s, selector, 0, 0, s[STAR] & 0xFFFFFFFF)


def hypercall(s: State, next_rip: int) -> int:
    """VMCALL and VMMCALL: #UD, as there is no virtualization, unless a debugger has answered in place of a hypervisor.
    That it does between two instructions, so that all that is left is to go on."""
    if s[HYPERCALL_ANSWERED] == s[ICOUNT] + 1:
        return 0
    hooks.hypercall(s, next_rip)
    return raise_fault(s, UD, 0)


def sysret(s: State, size: int) -> int:
    """SYSRET; with a 64-bit operand size back to 64-bit mode, else to 32-bit code. CS.RPL is forced to 3."""
    if not s[EFER] & mode.EFER_SCE or not s[MODE] & mode.PROTECTED:
        return raise_fault(s, UD, 0)
    if s[CPL] != 0:
        return raise_fault(s, GP, 0)
    selector = (s[STAR] >> 48) & 0xFFFF
    rip = s[GPR + RCX]
    if size == 8 and not mode.is_canonical(s, rip):
        return raise_fault(s, GP, 0)
    if s[MODE] & mode.LONG_MODE:
        fl.set_eflags(s, s[GPR + R11] & SYSRET_FLAGS, 0xFFFFFFFF)
    else:
        s[FLAGS] = s[FLAGS] | fl.IF
    step(s)
    if size != 8:
        return enter(s, selector, 3, 0, rip & 0xFFFFFFFF)
    enter(s, (selector + 16) & 0xFFFF, 3, 1, rip)
    s[SEG_SEL + SS] = ((selector + 8) & 0xFFFC) | 3
    return 0


def sysenter(s: State) -> int:
    """SYSENTER: to 64-bit code in long mode, else 32-bit."""
    if not s[MODE] & mode.PROTECTED or s[SYSENTER_CS] & 0xFFFC == 0:
        return raise_fault(s, GP, 0)
    if s[HOOK_EVENTS]:
        hooks.event(s, hooks.SYSCALL, 1, 0)  # where to return to is the system's own business
    s[FLAGS] = s[FLAGS] & ~(fl.VM | fl.IF | fl.RF)
    if s[MODE] & mode.LONG_MODE:
        s[GPR + RSP] = s[SYSENTER_ESP]
        return enter(s, s[SYSENTER_CS], 0, 1, s[SYSENTER_EIP])
    s[GPR + RSP] = s[SYSENTER_ESP] & 0xFFFFFFFF
    return enter(s, s[SYSENTER_CS], 0, 0, s[SYSENTER_EIP] & 0xFFFFFFFF)


def sysexit(s: State, size: int) -> int:
    """SYSEXIT: to RDX with stack RCX at privilege 3."""
    if not s[MODE] & mode.PROTECTED or s[SYSENTER_CS] & 0xFFFC == 0 or s[CPL] != 0:
        return raise_fault(s, GP, 0)
    rip = s[GPR + RDX]
    rsp = s[GPR + RCX]
    if size == 8:
        if not mode.is_canonical(s, rip) or not mode.is_canonical(s, rsp):
            return raise_fault(s, GP, 0)
        s[GPR + RSP] = rsp
        return enter(s, (s[SYSENTER_CS] + 32) & 0xFFFF, 3, 1, rip)
    s[GPR + RSP] = rsp & 0xFFFFFFFF
    return enter(s, (s[SYSENTER_CS] + 16) & 0xFFFF, 3, 0, rip & 0xFFFFFFFF)


def swapgs(s: State) -> int:
    """SWAPGS."""
    if not s[MODE] & mode.CODE64:
        return raise_fault(s, UD, 0)
    if s[CPL] != 0:
        return raise_fault(s, GP, 0)
    base = s[SEG_BASE + GS]
    s[SEG_BASE + GS] = s[KERNEL_GS_BASE]
    s[KERNEL_GS_BASE] = base
    return 0
