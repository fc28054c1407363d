"""IRET in every mode (SDM 2, IRET; SDM 3, 6.14 and 20.2). Mechanism subset.

    iret(s, size, next_rip)      changes s[RIP], and leaves it in VALUE for Instruction.jump()

Not here: task switches (tasks.py), descriptor checks shared with RET (returns.py).
"""

from __future__ import annotations

from pyemu.cpu import descriptors as ds
from pyemu.cpu import flags as fl
from pyemu.cpu import mode, returns, segments, tasks, virtual8086
from pyemu.cpu.faults import (
    GP,
    raise_fault,
)
from pyemu.cpu.state import (
    CPL,
    CR4,
    CS,
    DS,
    ES,
    FLAGS,
    FRAME,
    FS,
    GPR,
    GS,
    ICOUNT,
    MODE,
    NMI_BLOCKED,
    RF_COUNT,
    RIP,
    RSP,
    SEG_LIMIT,
    SS,
    VALUE,
    State,
)

# Flags that IRET and POPF never touch, and those that need privilege (SDM 2, IRET).
IRET_ALWAYS = fl.ARITHMETIC | fl.TF | fl.DF | fl.NT
IRET_WIDE = fl.RF | fl.AC | fl.ID
V86_FRAME = 9  # doublewords of an IRET to virtual-8086 mode


def restore_flags(s: State, image: int, size: int, cpl: int) -> int:
    """RFLAGS from an IRET frame that was popped at privilege `cpl`."""
    mask = IRET_ALWAYS
    if size != 2:
        mask |= IRET_WIDE
    if cpl <= (s[FLAGS] >> 12) & 3:
        mask |= fl.IF
    if cpl == 0:
        mask |= fl.IOPL
        if size != 2:
            mask |= fl.VIF | fl.VIP
    s[RF_COUNT] = s[ICOUNT] + 1
    return fl.set_eflags(s, image, mask)


def finish_iret(s: State) -> int:
    """The new mode, and RIP for Instruction.jump()."""
    mode.update(s)
    s[VALUE] = s[RIP]
    return 0


def read_words(s: State, first: int, end: int, size: int) -> int:
    """FRAME + n = word n from the top of the stack, from the first one to that before `end`."""
    for n in range(first, end):
        if segments.stack_read(s, n * size, size):
            return 1
        s[FRAME + n] = s[VALUE]
    return 0


def iret_real(s: State, size: int) -> int:
    """Real mode, and virtual-8086 mode with IOPL 3 or VME."""
    virtual = virtual8086.virtual_flags(s)
    if virtual and (size != 2 or s[CR4] & mode.CR4_VME == 0):
        return raise_fault(s, GP, 0)
    if read_words(s, 0, 3, size):
        return 1
    offset = s[FRAME]
    selector = s[FRAME + 1] & 0xFFFF
    image = s[FRAME + 2]
    if offset > s[SEG_LIMIT + CS]:
        return raise_fault(s, GP, 0)
    mask = IRET_ALWAYS | fl.IF
    if size == 4:
        mask |= IRET_WIDE
    if s[MODE] & mode.V86 == 0:
        mask |= fl.IOPL
    if virtual:
        if virtual8086.load_flags(s, image, mask):
            return 1
    else:
        fl.set_eflags(s, image, mask)
    segments.move_stack(s, 3 * size)
    segments.set_real(s, CS, selector)
    s[RF_COUNT] = s[ICOUNT] + 1
    s[RIP] = offset
    return finish_iret(s)


def iret_to_v86(s: State, offset: int, selector: int, image: int) -> int:
    """From CPL 0 to virtual-8086 mode: ESP, SS, ES, DS, FS, GS follow the three words that were read."""
    if read_words(s, 3, V86_FRAME, 4):
        return 1
    if offset > 0xFFFF:
        return raise_fault(s, GP, 0)
    fl.set_eflags(s, image, 0x3F7FD5)
    s[RF_COUNT] = s[ICOUNT] + 1
    s[CPL] = 3
    mode.update(s)
    segments.set_real(s, CS, selector)
    segments.set_real(s, SS, s[FRAME + 4])
    segments.set_real(s, ES, s[FRAME + 5])
    segments.set_real(s, DS, s[FRAME + 6])
    segments.set_real(s, FS, s[FRAME + 7])
    segments.set_real(s, GS, s[FRAME + 8])
    s[GPR + RSP] = s[FRAME + 3]
    s[RIP] = offset
    return finish_iret(s)


def iret_protected(s: State, size: int, next_rip: int) -> int:
    """Protected, compatibility and 64-bit mode."""
    if s[FLAGS] & fl.NT:
        if ds.long_mode(s):
            return raise_fault(s, GP, 0)
        if tasks.return_from_task(s, next_rip):
            return 1
        return finish_iret(s)
    if read_words(s, 0, 3, size):
        return 1
    offset = s[FRAME]
    selector = s[FRAME + 1] & 0xFFFF
    image = s[FRAME + 2]
    cpl = s[CPL]
    if image & fl.VM and size == 4 and cpl == 0 and not ds.long_mode(s):
        return iret_to_v86(s, offset, selector, image)
    if returns.fetch_code(s, selector):
        return 1
    d = s[VALUE]
    if s[MODE] & mode.CODE64 == 0 and selector & ds.RPL == cpl:
        if segments.check_target(s, d, offset):
            return 1
        segments.move_stack(s, 3 * size)
        segments.set_code(s, selector, d, cpl)
    else:
        if returns.to_stack(s, 3 * size, size, selector, d, offset, 0):
            return 1
    restore_flags(s, image, size, cpl)
    s[RIP] = offset
    return finish_iret(s)


def iret(s: State, size: int, next_rip: int) -> int:
    """IRET, IRETD, IRETQ (size 2, 4, 8). NMIs are unblocked even if it faults (SDM 3, 6.7.1)."""
    s[NMI_BLOCKED] = 0
    if s[MODE] & (mode.PROTECTED | mode.V86) != mode.PROTECTED:
        return iret_real(s, size)
    return iret_protected(s, size, next_rip)
