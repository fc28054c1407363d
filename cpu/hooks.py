"""What a debugger outside the guest hooks: code, memory, events. Mechanism subset.

    before(s, linear, packed, starts)            before an instruction that may be hooked: GO, STOP, or AGAIN
    cuts(s, linear)   flags(s, linear)           does a block end here?  does one that starts here need a look?
    accessed(s, linear, size, write, value)      data in a page with a watched range has been read, or will be written
    event(s, kind, a, b)                         if HOOK_EVENTS has a bit of `kind`
    hypercall(s, next_rip)                       VMCALL is about to raise #UD
    answered(s)                                  1 if something better has come of it

The machine fills the tables in State (HOOK_...); a guest can neither see nor change them. Code without hooks pays
nothing: a hooked instruction starts a block, which translated code enters through the loop, and a page with watched
memory has flagged TLB tags (tlb.py). Conditions are evaluated here, so that Python runs on a match only. Nothing here
counts as an instruction or changes the guest. The guest's own debug registers are another matter: debug.py.
"""

from __future__ import annotations

from pyemu.cpu import conditions, debug, tlb
from pyemu.cpu.decode import record as rc
from pyemu.cpu.faults import UD, clear_fault, raise_fault
from pyemu.cpu.primitives import call_service, running_rip, service
from pyemu.cpu.state import (
    HOOK_ACCESS,
    HOOK_CODE,
    HOOK_CODE_PROGRAM,
    HOOK_EVENTS,
    HOOK_HYPERCALL,
    HOOK_HYPERCALL_END,
    HOOK_HYPERCALL_TOLD,
    HOOK_PASSED,
    HOOK_RANGE_COUNT,
    HOOK_RANGES,
    HOOK_RIP,
    HOOK_SLOTS,
    HOOK_WATCH_COUNT,
    HOOK_WATCHES,
    ICOUNT,
    M64,
    RIP,
    State,
)

GO, STOP, AGAIN = 0, 1, 2  # execute the instruction; leave; Python has run, so look at everything again
INSTRUCTIONS, BLOCKS = 1, 2  # kinds of code ranges
READS, WRITES = 1, 2  # kind bits of watched ranges, with tlb.PHYSICAL
EXCEPTION, INTERRUPT, SOFTWARE_INTERRUPT, CR3_CHANGE, SYSCALL, MSR = 1, 2, 4, 8, 16, 32  # events; 64: mode.py
HYPERCALL = 128
EMPTY = M64
REPEATED = (rc.REPEAT | rc.REPEAT_NE) << rc.RFLAGS_SHIFT


def _code(s: State, linear: int, starts: int) -> int:
    return int(s.debugger.code_hooked(linear, starts != 0))


def _memory(s: State, number: int, _: int) -> int:
    s.debugger.memory_hooked(number)
    return 0


def _event(s: State, a: int, b: int) -> int:
    return int(s.debugger.event_hooked(a & 0xFF, a >> 8, b))


CODE_HOOKED, MEMORY_HOOKED, EVENT_HOOKED = service(_code), service(_memory), service(_event)


# ---- code ---------------------------------------------------------------------------------------------------------
def home(linear: int) -> int:
    """The slot of an address in HOOK_CODE, or the first of those that may be it."""
    return (linear ^ linear >> 11 ^ linear >> 22) & (HOOK_SLOTS - 1)


def find(s: State, linear: int) -> int:
    """The slot of a hooked address, or HOOK_SLOTS. The table is never full."""
    slot = home(linear)
    while s[HOOK_CODE + slot] != EMPTY:
        if s[HOOK_CODE + slot] == linear:
            return slot
        slot = (slot + 1) & (HOOK_SLOTS - 1)
    return HOOK_SLOTS


def in_range(s: State, linear: int, kinds: int) -> int:
    """1 if a range of one of the kinds covers an address."""
    for n in range(HOOK_RANGES, HOOK_RANGES + 4 * s[HOOK_RANGE_COUNT], 4):
        if (linear - s[n]) & M64 < s[n + 1] and s[n + 2] & kinds:
            return 1
    return 0


def cuts(s: State, linear: int) -> int:
    """1 if an instruction has to be the first of its block."""
    return int(find(s, linear) != HOOK_SLOTS or in_range(s, linear, INSTRUCTIONS) != 0)


def flags(s: State, linear: int) -> int:
    """1 if a block that starts at an address has to be looked at whenever control gets there."""
    return int(find(s, linear) != HOOK_SLOTS or in_range(s, linear, INSTRUCTIONS | BLOCKS) != 0)


def matches(s: State, linear: int, kinds: int) -> int:
    """1 if a hook whose condition holds is at an address."""
    slot = find(s, linear)
    if slot != HOOK_SLOTS and conditions.holds(s, s[HOOK_CODE_PROGRAM + slot]):
        return 1
    for n in range(HOOK_RANGES, HOOK_RANGES + 4 * s[HOOK_RANGE_COUNT], 4):
        if (linear - s[n]) & M64 < s[n + 1] and s[n + 2] & kinds and conditions.holds(s, s[n + 3]):
            return 1
    return 0


def before(s: State, linear: int, packed: int, starts: int) -> int:
    """Before the instruction at RIP, whose linear address and record word are given; `starts`: it begins a block. What
    goes on after a REP prefix was interrupted isn't a new instruction."""
    if s[HOOK_PASSED] == s[ICOUNT] + 1:
        return GO
    if packed & REPEATED and debug.resumes(s):
        return GO
    s[HOOK_RIP] = s[RIP]
    if matches(s, linear, INSTRUCTIONS | BLOCKS if starts else INSTRUCTIONS) == 0:
        return GO
    s[HOOK_PASSED] = s[ICOUNT] + 1
    if call_service(s, CODE_HOOKED, linear, starts):
        return STOP
    return AGAIN


# ---- memory -------------------------------------------------------------------------------------------------------
def accessed(s: State, linear: int, address: int, size: int, write: int, value: int) -> int:
    """Tell the machine of an access to watched memory; `address` is the physical one. Registers are as they were
    before the instruction; so is what a write is about to change."""
    for n in range(s[HOOK_WATCH_COUNT]):
        at = HOOK_WATCHES + 4 * n
        if s[at + 2] & (WRITES if write else READS):
            where = address if s[at + 2] & tlb.PHYSICAL else linear
            if debug.overlap(where, size, s[at], s[at + 1]):
                s[HOOK_ACCESS] = linear
                s[HOOK_ACCESS + 1] = size
                s[HOOK_ACCESS + 2] = value & (M64 >> (64 - 8 * size))
                s[HOOK_ACCESS + 3] = write
                s[HOOK_RIP] = running_rip(s)
                if conditions.holds(s, s[at + 3]):
                    call_service(s, MEMORY_HOOKED, n, 0)
    return 0


# ---- events -------------------------------------------------------------------------------------------------------
def event(s: State, kind: int, a: int, b: int) -> int:
    """Tell the machine of an event if it wants to know: `a` (56 bits) and `b` are the kind's."""
    if s[HOOK_EVENTS] & kind:
        call_service(s, EVENT_HOOKED, kind | a << 8, b)
    return 0


def hypercall(s: State, next_rip: int) -> int:
    """A hypercall is about to raise #UD. It is told of when that is to be delivered: then all is as before it."""
    if s[HOOK_EVENTS] & HYPERCALL and s[HOOK_HYPERCALL_TOLD] != s[ICOUNT] + 1:
        s[HOOK_HYPERCALL] = s[ICOUNT] + 1
        s[HOOK_HYPERCALL_END] = next_rip
    return 0


def answered(s: State) -> int:
    """Before a fault is delivered: 1 if it was the #UD of a hypercall, and the processor is to go on with what it finds
    now, which may be the hypercall again."""
    if s[HOOK_HYPERCALL] != s[ICOUNT] + 1:
        return 0
    s[HOOK_HYPERCALL] = 0
    s[HOOK_HYPERCALL_TOLD] = s[ICOUNT] + 1
    s[HOOK_PASSED] = s[ICOUNT] + 1
    s[HOOK_RIP] = s[RIP]
    clear_fault(s)
    if call_service(s, EVENT_HOOKED, HYPERCALL, s[HOOK_HYPERCALL_END]):
        return 1
    raise_fault(s, UD, 0)
    return 0
