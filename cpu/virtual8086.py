"""Virtual-mode extensions: VIF and VIP in virtual-8086 mode (CR4.VME) and at CPL 3 (CR4.PVI), and software interrupts
that stay in virtual-8086 mode (SDM 3, 20.3 and 20.4). Mechanism subset, and what CLI, STI and PUSHF need of it.

    refused(i), virtual(i)               conditions of CLI and STI; v86_refused(i), extended(i) of PUSHF and POPF
    virtual_flags(s)                     1 if POPF and IRET here work on VIF instead of IF
    load_flags(s, image, mask)           their work then
    redirected(s, vector)                VALUE = 1 if INT n goes through the 8086 program's own vector table
    software_interrupt(s, vector, rip)   ... and does so

Not here: delivery to protected mode (interrupts.py), the I/O permission bitmap (ports.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyemu.cpu import flags as fl
from pyemu.cpu import memory, mode, segments
from pyemu.cpu.faults import GP, raise_fault
from pyemu.cpu.mode import CR4_PVI, CR4_VME
from pyemu.cpu.state import CPL, CR4, CS, FLAGS, FRAME, M64, RIP, SEG_SEL, TR_BASE, TR_LIMIT, VALUE, State

if TYPE_CHECKING:
    from pyemu.cpu.instruction import Instruction
    from pyemu.cpu.values import Value

MAP_BASE = 0x66  # word in the TSS: where the I/O permission bitmap begins (SDM 3, 7.2.1)
SMALLEST_LIMIT = 0x67
REDIRECTION_BYTES = 32  # the redirection bitmap ends where the other one begins (SDM 3, 20.3.3)


# ---- conditions of instructions ----------------------------------------------------------------------------------
def refused(i: Instruction) -> Value:
    """CPL > IOPL: IF is not the program's to change. Virtual-8086 mode has CPL 3."""
    return ((i.state(FLAGS) >> 12) & 3).ult(i.state(CPL))


def virtual(i: Instruction) -> Value:
    """Do CLI and STI mean VIF, where they are refused IF?"""
    v86 = (i.state(FLAGS) & fl.VM).ne(0)
    needed = v86.select(i.const(CR4_VME, 64), i.const(CR4_PVI, 64))
    return (i.state(CR4) & needed).ne(0) & i.state(CPL).eq(3)


def v86_refused(i: Instruction) -> Value:
    """Virtual-8086 mode with IOPL below 3, where PUSHF and POPF are refused or mean VIF."""
    word = i.state(FLAGS)
    return (word & fl.VM).ne(0) & (word & fl.IOPL).ne(fl.IOPL)


def extended(i: Instruction) -> Value:
    """CR4.VME."""
    return (i.state(CR4) & CR4_VME).ne(0)


# ---- flags images ---------------------------------------------------------------------------------------------------
def virtual_flags(s: State) -> int:
    """1 in virtual-8086 mode with IOPL below 3: POPF and IRET need VME there, and load VIF."""
    return int(s[FLAGS] & fl.VM != 0 and s[FLAGS] & fl.IOPL != fl.IOPL)


def load_flags(s: State, image: int, mask: int) -> int:
    """Load a 16-bit FLAGS image where virtual_flags() holds: its IF goes to VIF. #GP(0) for TF, or for IF while an
    interrupt waits (VIP)."""
    if s[CR4] & CR4_VME == 0 or image & fl.TF or (image & fl.IF and s[FLAGS] & fl.VIP):
        return raise_fault(s, GP, 0)
    vif = fl.VIF if image & fl.IF else 0
    return fl.set_eflags(s, (image & ~fl.VIF & M64) | vif, (mask & ~(fl.IF | fl.IOPL) & 0xFFFF) | fl.VIF)


# ---- INT n -----------------------------------------------------------------------------------------------------------
def redirected(s: State, vector: int) -> int:
    """VALUE = 1 if a software interrupt stays in virtual-8086 mode: its bit in the TSS is clear."""
    s[VALUE] = 0
    if s[CR4] & CR4_VME == 0:
        return 0
    if s[TR_LIMIT] < SMALLEST_LIMIT:
        return raise_fault(s, GP, 0)
    if memory.read(s, (s[TR_BASE] + MAP_BASE) & M64, 2, memory.SYSTEM):
        return 1
    at = (s[VALUE] - REDIRECTION_BYTES + (vector >> 3)) & M64
    if at > s[TR_LIMIT]:
        return raise_fault(s, GP, 0)
    if memory.read(s, (s[TR_BASE] + at) & 0xFFFFFFFF, 1, memory.SYSTEM):
        return 1
    s[VALUE] = ((s[VALUE] >> (vector & 7)) & 1) ^ 1
    return 0


def software_interrupt(s: State, vector: int, rip: int) -> int:
    """Through the vector table at linear address 0. With IOPL 3 as in real mode; below, the pushed IF is VIF, the
    pushed IOPL is 3, and VIF is cleared (SDM 3, 20.3.3)."""
    if memory.read(s, vector * 4, 4, memory.SYSTEM):
        return 1
    entry = s[VALUE]
    image = fl.eflags(s) & ~fl.RF
    drop = fl.TF | fl.RF | fl.IF
    if s[FLAGS] & fl.IOPL != fl.IOPL:
        image = (image & ~fl.IF) | fl.IOPL
        if s[FLAGS] & fl.VIF:
            image = image | fl.IF
        drop = fl.TF | fl.RF | fl.VIF
    s[FRAME] = image
    s[FRAME + 1] = s[SEG_SEL + CS]
    s[FRAME + 2] = rip
    if segments.push_frame_here(s, 3, 2, 0):
        return 1
    segments.set_stack_pointer(s, s[VALUE])
    s[FLAGS] = s[FLAGS] & ~drop & M64
    segments.set_real(s, CS, entry >> 16)
    s[RIP] = entry & 0xFFFF
    return mode.update(s)
