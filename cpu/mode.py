"""The mode word: everything about the processor's mode that decoding and translations depend on, in one word.

`update(s)` recomputes it, and with it the MMU index, the stack mask, the width of canonical addresses and, for flat
32-bit mode, how far segments reach, from the architectural registers. It runs after every change of CR0, CR4, EFER, CS,
SS, CPL, EFLAGS.TF/VM/AC or the breakpoints, and of the other segments outside 64-bit mode. IOPL, CR4.TSD/UMIP/FSGSBASE
and IF are not in it: instructions read them when they run.
"""

from __future__ import annotations

from pyemu.cpu.flags import AC, TF, VM
from pyemu.cpu.primitives import call_service, service
from pyemu.cpu.state import (
    CPL,
    CR0,
    CR4,
    CS,
    DS,
    EFER,
    FLAGS,
    HIGH_HALF,
    HOOK_EVENTS,
    LINEAR_TOP,
    LINEAR_TOP_MAX,
    M64,
    MMU,
    MODE,
    SEG_ATTR,
    SEG_BASE,
    SEG_LIMIT,
    SEG_REACH,
    SS,
    STACK_MASK,
    WATCH_CODE,
    State,
)

# Bits of s[MODE].
CODE64 = 1 << 0  # 64-bit mode: EFER.LMA and CS.L
CODE32 = 1 << 1  # CS.D: operands and addresses are 32 bits wide by default (0 in 64-bit mode)
STACK32 = 1 << 2  # SS.B: the stack pointer is ESP (0 in 64-bit mode)
CPL_SHIFT = 3  # bits 3-4: current privilege level
PROTECTED = 1 << 5  # CR0.PE
V86 = 1 << 6  # EFLAGS.VM
TRAP = 1 << 7  # EFLAGS.TF: #DB after each instruction
TASK_SWITCHED = 1 << 8  # CR0.TS
EMULATE_FPU = 1 << 9  # CR0.EM
MONITOR_FPU = 1 << 10  # CR0.MP
NO_OSFXSR = 1 << 11  # CR4.OSFXSR is off: SSE raises #UD
LONG_MODE = 1 << 12  # EFER.LMA: 64-bit or compatibility mode
MMU_SHIFT = 13  # bits 13-14: s[MMU]
BREAKPOINTS = 1 << 15  # an instruction breakpoint is enabled: blocks are never entered without a look
NO_OSXSAVE = 1 << 16  # CR4.OSXSAVE is off: XSAVE and VEX instructions raise #UD
FLAT = 1 << 17  # 32-bit protected mode whose CS, DS, ES and SS are 4 GiB from 0: offsets are linear addresses
MODE_BITS = 18

MODE_CHANGE = 64  # event of a hook (hooks.py): another mode or width of code
KIND_OF_MODE = CODE64 | CODE32 | PROTECTED | V86 | LONG_MODE

# Values of s[MMU] (SDM 3, 4.6).
MMU_SUPERVISOR, MMU_USER = 0, 1
MMU_SUPERVISOR_USER_PAGES = 2  # may reach user pages (EFLAGS.AC, or no SMAP)
MMU_USER_ALIGNED = 3  # CPL 3 with CR0.AM and EFLAGS.AC: misaligned data raises #AC

# Control register bits (SDM 3, 2.5) and IA32_EFER (SDM 4, table 2-2).
CR0_PE, CR0_MP, CR0_EM, CR0_TS, CR0_NE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 5
CR0_WP, CR0_AM, CR0_PG = 1 << 16, 1 << 18, 1 << 31
CR4_VME, CR4_PVI, CR4_TSD, CR4_DE, CR4_OSFXSR = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 9
CR4_LA57, CR4_PKE, CR4_PKS = 1 << 12, 1 << 22, 1 << 24
CR4_KEYS = CR4_PKE | CR4_PKS
CR4_UMIP, CR4_FSGSBASE, CR4_OSXSAVE, CR4_SMAP = 1 << 11, 1 << 16, 1 << 18, 1 << 21
EFER_SCE, EFER_LME, EFER_LMA, EFER_NXE = 1 << 0, 1 << 8, 1 << 10, 1 << 11
TOP_48, TOP_57 = 47, 56  # of LINEAR_TOP: bits from this one on are alike in a canonical address
ATTR_L, ATTR_DB = 1 << 13, 1 << 14  # of SEG_ATTR
# SEG_ATTR of data that can be read and written from 0 to the limit: present, S, writable; not code, expand-down or
# unusable (SDM 3, table 3-1).
DATA_MASK, DATA = 1 << 16 | 0x9E, 0x92
# Where a kernel usually begins. Only speed depends on it: code and large pages from here on are kept apart (tlb.py).
HIGH_HALF_32, HIGH_HALF_64 = 0xC0000000, 1 << 63


def _changed(s: State, old: int, new: int) -> int:
    s.debugger.event_hooked(MODE_CHANGE, old, new)
    return 0


MODE_CHANGED = service(_changed)


def update(s: State) -> int:
    """Recompute MODE and what goes with it."""
    cr0 = s[CR0]
    cr4 = s[CR4]
    rflags = s[FLAGS]
    code = s[SEG_ATTR + CS]
    if (cr0 & CR0_PE) == 0:
        s[CPL] = 0
    cpl = s[CPL]
    mode = cpl << CPL_SHIFT
    stack = 0xFFFF
    if s[EFER] & EFER_LMA:
        mode |= LONG_MODE
    if mode & LONG_MODE and code & ATTR_L:
        mode |= CODE64
        stack = M64
    else:
        if code & ATTR_DB:
            mode |= CODE32
        if s[SEG_ATTR + SS] & ATTR_DB:
            mode |= STACK32
            stack = 0xFFFFFFFF
    if cr0 & CR0_PE:
        mode |= PROTECTED
        if rflags & VM:
            mode |= V86
        elif mode & (CODE32 | STACK32) == CODE32 | STACK32:
            mode |= flat(s)
    if rflags & TF:
        mode |= TRAP
    if cr0 & CR0_TS:
        mode |= TASK_SWITCHED
    if cr0 & CR0_EM:
        mode |= EMULATE_FPU
    if cr0 & CR0_MP:
        mode |= MONITOR_FPU
    if (cr4 & CR4_OSFXSR) == 0:
        mode |= NO_OSFXSR
    if (cr4 & CR4_OSXSAVE) == 0:
        mode |= NO_OSXSAVE
    if s[WATCH_CODE]:
        mode |= BREAKPOINTS
    mmu = MMU_SUPERVISOR
    if cpl == 3:
        mmu = MMU_USER
        if cr0 & CR0_AM and rflags & AC:
            mmu = MMU_USER_ALIGNED
    elif rflags & AC or (cr4 & CR4_SMAP) == 0:
        mmu = MMU_SUPERVISOR_USER_PAGES
    s[LINEAR_TOP] = TOP_57 if mode & LONG_MODE and cr4 & CR4_LA57 else TOP_48
    s[HIGH_HALF] = HIGH_HALF_64 if mode & LONG_MODE else HIGH_HALF_32
    mode |= mmu << MMU_SHIFT
    if s[HOOK_EVENTS] & MODE_CHANGE:
        if (s[MODE] ^ mode) & KIND_OF_MODE:
            call_service(s, MODE_CHANGED, s[MODE], mode)
    s[MODE] = mode
    s[MMU] = mmu
    s[STACK_MASK] = stack
    return 0


def flat(s: State) -> int:
    """FLAT if CS, DS, ES and SS are 4 GiB from 0, else 0. Brings SEG_REACH up to date."""
    result = FLAT
    for n in range(6):
        reach = 0
        if n == CS or s[SEG_ATTR + n] & DATA_MASK == DATA:
            reach = s[SEG_LIMIT + n] + 1
        s[SEG_REACH + n] = reach
        if n <= DS and (s[SEG_BASE + n] != 0 or reach != 1 << 32):
            result = 0
    return result


def is_canonical(s: State, linear: int) -> int:
    """1 if a 64-bit linear address is canonical in the present paging mode, for 48 or 57 bits (SDM 1, 3.3.7.1)."""
    upper = linear >> s[LINEAR_TOP]
    return 1 if upper == 0 or upper == M64 >> s[LINEAR_TOP] else 0


def is_canonical_base(s: State, linear: int) -> int:
    """Likewise for what a base or address register may hold: its width is the processor's, whatever the paging mode
    is (Intel 335252, 2.2; SDM 3, 4.5.2)."""
    upper = linear >> s[LINEAR_TOP_MAX]
    return 1 if upper == 0 or upper == M64 >> s[LINEAR_TOP_MAX] else 0
