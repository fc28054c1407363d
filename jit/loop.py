"""The native run loop: looks blocks up, interprets or runs them, delivers faults and interrupts. Mechanism code.

`run(s)` executes until something needs Python, and returns the reason (cpu/host.py, Exit). All architectural state
is in State
when it returns.
"""

from __future__ import annotations

from pyemu.cpu import branches, debug, hooks, interrupts
from pyemu.cpu import mode as md
from pyemu.cpu.decode import record as rc
from pyemu.cpu.host import Exit
from pyemu.cpu.state import (
    EXIT_REQUEST,
    FAULT_VECTOR,
    HALTED,
    ICOUNT,
    ICOUNT_LIMIT,
    IRQ_PENDING,
    M64,
    MODE,
    NMI_PENDING,
    NO_FAULT,
    PENDING_DEBUG,
    RIP,
    SHADOW,
    STEPPING,
    State,
)
from pyemu.jit import blocks, translator
from pyemu.jit import layout as ly
from pyemu.jit.layout import FAULT, JUMPED, NEXT
from pyemu.jit.native import call_code, call_handler, peek64, shared_word

HALT, REQUEST, BUDGET_USED, SHUTDOWN, DEBUG = Exit.HALT, Exit.REQUEST, Exit.BUDGET, Exit.SHUTDOWN, Exit.DEBUG


def following(record: int) -> int:
    """RIP behind an instruction."""
    return (peek64(record + 8 * rc.R_RIP) + ((peek64(record + 8 * rc.PACKED) >> rc.LENGTH) & 0xFF)) & M64


def interpret(s: State, block: int, most: int) -> int:
    """Run up to `most` of a block's instructions one by one. Returns the status of the last. A request to leave that a
    handler caused is seen right after it, so that events land on the same instruction in every back end."""
    count = peek64(block + 8 * ly.B_COUNT)
    left = s[ICOUNT_LIMIT] - s[ICOUNT]
    if most < left:
        left = most
    if count > left:
        count = left
    record = block + ly.B_SIZE
    done = 0
    status = NEXT
    s[ly.KILLED] = 0
    while done < count:
        s[ly.CURRENT_RECORD] = record
        status = call_handler(s, peek64(record), record)
        if status != NEXT:
            break
        done = done + 1
        s[ICOUNT] = s[ICOUNT] + 1
        record = record + ly.RECORD_SIZE
        if s[ly.KILLED] | shared_word(s, EXIT_REQUEST):
            break
    if status == JUMPED:
        s[ICOUNT] = s[ICOUNT] + 1
    elif status == NEXT:
        s[RIP] = following(record - ly.RECORD_SIZE)
    elif status == FAULT:
        s[RIP] = peek64(record + 8 * rc.R_RIP)
    return status


def boundary(s: State) -> int:
    """Between blocks: 0 to go on, or the reason to stop."""
    if shared_word(s, EXIT_REQUEST):
        s[EXIT_REQUEST] = 0
        return REQUEST
    if s[ICOUNT] >= s[ICOUNT_LIMIT]:
        return BUDGET_USED
    if shared_word(s, IRQ_PENDING) | shared_word(s, NMI_PENDING):
        if interrupts.take_interrupts(s) == 2:
            return SHUTDOWN
        if s[ICOUNT] >= s[ICOUNT_LIMIT]:
            return BUDGET_USED  # the delivery was the last that might happen
    if s[HALTED]:
        return HALT
    return 0


def trap(s: State) -> int:
    """After an instruction that has something to be trapped; 0 to go on, SHUTDOWN for a triple fault."""
    record = s[ly.CURRENT_RECORD]
    if debug.completed(s, branches.taken(s, peek64(record + 8 * rc.PACKED) & 0xFFFF, following(record))):
        return after_fault(s)
    return 0


def watch(s: State) -> int:
    """Under an instruction breakpoint, before an instruction: 0 to go on, 1 after #DB, SHUTDOWN for a triple fault."""
    if debug.at_breakpoint(s) == 0:
        return 0
    return after_fault(s) | 1


def after_fault(s: State) -> int:
    """Deliver the raised fault; 0 to go on, SHUTDOWN for a triple fault."""
    s[ly.STAT_FAULTS] += 1
    if interrupts.deliver_fault(s) == 2:
        return SHUTDOWN
    return 0


def run_code(s: State, block: int) -> int:
    """Run a block's host code, translated now if need be; it goes on into others as far as they are linked."""
    if peek64(block + 8 * ly.B_CODE) == 0:
        if peek64(block + 8 * ly.B_RIP) == ly.DEAD:
            return interpret(s, block, ly.MAX_INSTRUCTIONS)
        if translator.room(s) == 0:
            blocks.flush(s)
            return 0
        translator.translate(s, block)
    if s[ly.EXIT_SLOT]:
        blocks.link(s, block)
        s[ly.EXIT_SLOT] = 0
    if s[ICOUNT] + peek64(block + 8 * ly.B_COUNT) > s[ICOUNT_LIMIT]:
        return interpret(s, block, ly.MAX_INSTRUCTIONS)
    blocks.enter_jump(s, block)
    s[ly.STAT_LOOKUPS] += 1
    return call_code(s, s[ly.ENTER], peek64(block + 8 * ly.B_BODY))


def run(s: State) -> int:
    """Execute until there is a reason to stop."""
    while True:
        if s[PENDING_DEBUG] and debug.waiting(s) and after_fault(s):
            return SHUTDOWN
        reason = boundary(s)
        if reason != 0:
            return reason
        if s[PENDING_DEBUG] and debug.waiting(s):
            if after_fault(s):
                return SHUTDOWN
            continue
        mode = s[MODE]
        if mode & md.BREAKPOINTS:
            hit = watch(s)
            if hit:
                if hit & SHUTDOWN:
                    return SHUTDOWN
                continue
        block = blocks.lookup(s)
        s[STEPPING] = mode & md.TRAP
        if block == 0:
            if after_fault(s):
                return SHUTDOWN
            continue
        if peek64(block + 8 * ly.B_HOOKED):
            first = peek64(block + ly.B_SIZE + 8 * rc.PACKED)
            served = hooks.before(s, blocks.linear_rip(s, s[RIP]), first, 1)
            if served == hooks.STOP:
                return DEBUG
            if served == hooks.AGAIN:
                continue
        if s[ly.COVERAGE_NEXT]:
            blocks.cover(s, block)
        if s[SHADOW] > s[ICOUNT]:
            interpret(s, block, 1)  # what waits for the end of the interrupt shadow comes right after this instruction
        elif mode & md.BREAKPOINTS and debug.covers(s, blocks.linear_rip(s, s[RIP]), peek64(block + 8 * ly.B_BYTES)):
            interpret(s, block, 1)
        elif s[ly.USE_CODE] and mode & md.TRAP == 0:
            run_code(s, block)
        else:
            interpret(s, block, ly.MAX_INSTRUCTIONS)
        if s[FAULT_VECTOR] != NO_FAULT:
            if after_fault(s):
                return SHUTDOWN
        elif s[STEPPING] | s[PENDING_DEBUG]:
            if trap(s):
                return SHUTDOWN
