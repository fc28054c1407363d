"""Breakpoints and single-stepping: what DR0-DR7, TF, RF and IA32_DEBUGCTL.BTF do (SDM 3, 18.2-18.4). Mechanism subset.

    refresh(s)                       DR0-DR3, DR7 or CR4.DE have changed
    accessed(s, linear, size, write) data of a page with a breakpoint is read or written
    port_accessed(s, port, size)     IN, OUT, INS and OUTS, if WATCH_PORTS is set
    at_breakpoint(s)                 before an instruction, in a mode with BREAKPOINTS: 1 with #DB raised
    covers(s, linear, length)        does an instruction breakpoint lie in a block, behind its start?
    completed(s, branched)           after an instruction without fault, if it was stepped or PENDING_DEBUG is set
    waiting(s)                       what delivering an interrupt has hit: before the handler's first instruction

Ordinary code pays nothing: pages with data breakpoints have flagged TLB tags, so that the inline check fails; with an
instruction breakpoint the mode word has a bit under which blocks are not chained. Traps are collected in PENDING_DEBUG,
and raised together. Not here: MOV to and from debug registers (control_registers.py), delivery
(interrupts.py).
"""

from __future__ import annotations

from pyemu.cpu import mode, tlb
from pyemu.cpu.faults import DR6_BS, raise_debug
from pyemu.cpu.flags import RF
from pyemu.cpu.mode import CR4_DE
from pyemu.cpu.models import INTEL_NUMBER, VENDOR_SHIFT
from pyemu.cpu.primitives import leave_block
from pyemu.cpu.state import (
    CPUID_MODEL,
    CR4,
    CS,
    DEBUGCTL,
    DR,
    FLAGS,
    HALTED,
    HOOK_WATCH_COUNT,
    ICOUNT,
    M64,
    MODE,
    PENDING_DEBUG,
    RF_COUNT,
    RIP,
    SEG_BASE,
    STACK_SHADOW,
    STEPPING,
    WATCH_CODE,
    WATCH_DATA,
    WATCH_PAGES,
    WATCH_PORTS,
    State,
)

# DR7: L and G of DRn at 2n, its R/W field at 16 + 4n, its LEN field at 18 + 4n (SDM 3, 18.2.4).
EXECUTE, WRITE, PORT, ACCESS = 0, 1, 2, 3
DEBUGCTL_BTF = 1 << 1


# ---- the registers' fields --------------------------------------------------------------------------------------
def kind_of(s: State, n: int) -> int:
    """R/W of DRn."""
    return (s[DR + 7] >> (16 + 4 * n)) & 3


def length_of(s: State, n: int) -> int:
    """Bytes that DRn covers: 1, 2, 8 or 4 for LEN 0 to 3."""
    field = (s[DR + 7] >> (18 + 4 * n)) & 3
    if field == 2:
        return 8
    return field + 1


def start_of(s: State, n: int) -> int:
    """First address that DRn covers: the low bits that its length spans don't count."""
    start: int = s[DR + n] & ~(length_of(s, n) - 1) & M64
    return start


def refresh(s: State) -> int:
    """Bring what is derived from the registers up to date."""
    data = 0
    ports = 0
    code = 0
    for n in range(4):
        if s[WATCH_DATA] >> n & 1:
            tlb.mark_page(s, s[WATCH_PAGES + n], 0)
        if (s[DR + 7] >> (2 * n)) & 3:
            kind = kind_of(s, n)
            if kind == EXECUTE:
                code |= 1 << n
            elif kind != PORT:
                data |= 1 << n
            elif s[CR4] & CR4_DE:
                ports |= 1 << n
    s[WATCH_DATA] = data
    s[WATCH_PORTS] = ports
    s[WATCH_CODE] = code
    for n in range(4):
        if data >> n & 1:
            s[WATCH_PAGES + n] = s[DR + n] & tlb.PAGE
            tlb.mark_page(s, s[WATCH_PAGES + n], tlb.WATCH_FLAG)
    if s[HOOK_WATCH_COUNT]:
        tlb.mark_all(s)  # the debugger's may lie in the same pages
    return mode.update(s)


# ---- data and ports -----------------------------------------------------------------------------------------------
def overlap(a: int, size: int, b: int, length: int) -> int:
    """1 if two ranges share a byte (modulo 2^64)."""
    return int((a - b) & M64 < length or (b - a) & M64 < size)


def accessed(s: State, linear: int, size: int, write: int) -> int:
    """Note the breakpoints that a data access hits; the block ends behind the present instruction then."""
    for n in range(4):
        if (s[WATCH_DATA] >> n) & 1 and (write or kind_of(s, n) == ACCESS):
            if overlap(linear, size, start_of(s, n), length_of(s, n)):
                s[PENDING_DEBUG] = s[PENDING_DEBUG] | 1 << n
                leave_block(s)
    return 0


def port_accessed(s: State, port: int, size: int) -> int:
    """Note the breakpoints that an I/O access hits."""
    for n in range(4):
        if (s[WATCH_PORTS] >> n) & 1 and overlap(port, size, start_of(s, n), length_of(s, n)):
            s[PENDING_DEBUG] = s[PENDING_DEBUG] | 1 << n
            leave_block(s)
    return 0


# ---- RF -----------------------------------------------------------------------------------------------------------
def set_resume(s: State, count: int) -> int:
    """RF is in force for the instruction that is the `count`th."""
    s[FLAGS] = s[FLAGS] | RF
    s[RF_COUNT] = count
    return 0


def resumes(s: State) -> int:
    """1 if RF is in force: it is cleared by completing an instruction, which is never done explicitly."""
    return int(s[FLAGS] & RF != 0 and s[RF_COUNT] == s[ICOUNT])


# ---- instructions ---------------------------------------------------------------------------------------------------
def at_breakpoint(s: State) -> int:
    """#DB as a fault if the instruction at RIP has a breakpoint. Intel's processors have none behind MOV SS, as if RF
    were set (SDM 3, 6.8.3); AMD's have (Zen 4 does)."""
    if resumes(s) or (s[STACK_SHADOW] > s[ICOUNT] and s[CPUID_MODEL] >> VENDOR_SHIFT == INTEL_NUMBER):
        return 0
    linear = s[RIP]
    if s[MODE] & mode.CODE64 == 0:
        linear = (linear + s[SEG_BASE + CS]) & 0xFFFFFFFF
    hit = 0
    for n in range(4):
        if (s[WATCH_CODE] >> n) & 1 and s[DR + n] == linear:
            hit |= 1 << n
    if hit == 0:
        return 0
    return raise_debug(s, hit)


def covers(s: State, linear: int, length: int) -> int:
    """1 if an instruction breakpoint lies in `length` bytes at `linear`, but not at their start."""
    for n in range(4):
        if (s[WATCH_CODE] >> n) & 1 and (s[DR + n] - linear - 1) & M64 < length - 1:
            return 1
    return 0


# ---- traps ----------------------------------------------------------------------------------------------------------
def completed(s: State, branched: int) -> int:
    """1 with #DB raised if the instruction that has ended has to be trapped. MOV SS puts that off by an instruction;
    with IA32_DEBUGCTL.BTF only branches are stepped (SDM 3, 18.4.3)."""
    hit = s[PENDING_DEBUG]
    if s[STEPPING] and (branched or s[DEBUGCTL] & DEBUGCTL_BTF == 0):
        hit |= DR6_BS
    s[STEPPING] = 0
    if hit == 0 or s[STACK_SHADOW] > s[ICOUNT]:
        return 0
    s[HALTED] = 0
    s[PENDING_DEBUG] = 0
    return raise_debug(s, hit)


def waiting(s: State) -> int:
    """1 with #DB raised for what was hit between two instructions."""
    if s[STACK_SHADOW] > s[ICOUNT]:
        return 0
    hit = s[PENDING_DEBUG]
    s[HALTED] = 0
    s[PENDING_DEBUG] = 0
    return raise_debug(s, hit)
