"""Instructions that change the flags behind the mode word, and those that trap on a flag (mechanism).

popf(s, image, size)       the popped flags; in virtual-8086 mode the caller has checked IOPL and VME
set_ac(s, value)           CLAC (0) and STAC (1)
into(s, of, next_rip)      INTO with the overflow flag; VALUE = RIP afterwards
"""

from __future__ import annotations

from pyemu.cpu import flags as fl
from pyemu.cpu import interrupts, mode, virtual8086
from pyemu.cpu.faults import OF, UD, raise_fault
from pyemu.cpu.state import CPL, FLAGS, M64, VALUE, State

# What POPF changes at any privilege; IOPL needs CPL 0 and IF needs CPL <= IOPL (SDM 2, POPF).
POPF_ALWAYS = fl.ARITHMETIC | fl.TF | fl.DF | fl.NT | fl.RF | fl.AC | fl.ID


def popf(s: State, image: int, size: int) -> int:
    """Load the flags that the present privilege may change. RF is cleared; VM, VIF and VIP stay."""
    mask = POPF_ALWAYS
    if virtual8086.virtual_flags(s):
        if virtual8086.load_flags(s, image, mask):
            return 1
        return mode.update(s)
    if s[CPL] == 0:
        mask = mask | fl.IOPL
    if s[CPL] <= (s[FLAGS] >> 12) & 3:
        mask = mask | fl.IF
    if size == 2:
        mask = mask & 0xFFFF
    fl.set_eflags(s, image & ~fl.RF & M64, mask)
    return mode.update(s)


def set_ac(s: State, value: int) -> int:
    """EFLAGS.AC, which lets the kernel reach user pages under SMAP."""
    if s[CPL] != 0:
        return raise_fault(s, UD, 0)
    s[FLAGS] = s[FLAGS] | fl.AC if value else s[FLAGS] & ~fl.AC & M64
    return mode.update(s)


def into(s: State, of: int, next_rip: int) -> int:
    """#OF as a trap, or nothing."""
    if of:
        return interrupts.software_interrupt(s, OF, interrupts.TRAP_INSTRUCTION, next_rip)
    s[VALUE] = next_rip
    return 0
