"""Evaluates the conditions of hooks: small programs for a stack of 64-bit words. Mechanism subset.

    holds(s, program)              1 if the condition at word `program` of HOOK_PROGRAMS is true; 0 is none: true
    peek(s, linear, size)          a look at memory that changes nothing: 0 with HOOK_LOADED set, 1 if it isn't there
    translate(s, linear)           the physical address under the present page tables, or NO_PAGE

A word of a program is an operation in bits 0-7 and its argument above. Jumps only go forward, so that a program ends.
A condition that reads memory that isn't mapped, or divides by zero, doesn't hold, unless it begins with UNSURE. Not
here: what makes programs of text (emu/conditions.py) and of what gdb sends (emu/gdbserver/agent.py).
"""

from __future__ import annotations

from pyemu.cpu import mode, paging, physical
from pyemu.cpu.flags import eflags
from pyemu.cpu.state import (
    CR0,
    CR3,
    CR4,
    EFER,
    HOOK_LOADED,
    HOOK_PROGRAMS,
    HOOK_STACK,
    M64,
    NO_PAGE,
    PDPTE,
    State,
)

# Operations. Binary ones take two words from the stack and leave one; comparisons are unsigned.
END, CONST, WORD, FLAGS_IMAGE, LOAD, NEGATE, INVERT, NOT, IF_FALSE, IF_TRUE = range(10)
JUMP, JUMP_IF, DUP, SWAP, DROP, UNSURE = range(10, 16)  # JUMP_IF takes what it tests from the stack
ADD, SUB, MUL, DIV, MOD, AND, OR, XOR, SHL, SHR, EQ, NE, LT, LE, GT, GE, SLT, SLE, SGT, SGE = range(16, 36)
SDIV, SMOD, SSHR = range(36, 39)
SIGN = 1 << 63


def table_entry(s: State, address: int, size: int) -> int:
    """An entry of a paging structure; one that lies outside memory is not present."""
    if physical.kind(s, address) == physical.MMIO:
        return 0
    return physical.ram_read(s, address, size)


def translate(s: State, linear: int) -> int:
    """Physical address of a linear one, whatever rights the page has, or NO_PAGE."""
    if not s[CR0] & paging.CR0_PG:
        return linear & 0xFFFFFFFF
    if s[EFER] & paging.EFER_LMA:
        if not mode.is_canonical(s, linear):
            return NO_PAGE
        level = 5 if s[CR4] & mode.CR4_LA57 else 4
        table = s[CR3] & paging.ADDRESS_MASK
    elif s[CR4] & paging.CR4_PAE:
        pointer = s[PDPTE + ((linear >> 30) & 3)]
        if not pointer & paging.P:
            return NO_PAGE
        level = 2
        table = pointer & paging.ADDRESS_MASK
    else:
        return translate32(s, linear & 0xFFFFFFFF)
    while True:
        e = table_entry(s, paging.entry_address(s, linear, level, table), 8)
        if not e & paging.P:
            return NO_PAGE
        if level == 1 or (e & paging.PS and level < 4):
            mask = paging.page_mask(8, level)
            return (e & paging.ADDRESS_MASK & ~mask) | (linear & mask)
        table = e & paging.ADDRESS_MASK
        level = level - 1


def translate32(s: State, linear: int) -> int:
    """Likewise with 32-bit paging."""
    e = table_entry(s, (s[CR3] & 0xFFFFF000) + ((linear >> 20) & 0xFFC), 4)
    if not e & paging.P:
        return NO_PAGE
    if e & paging.PS and s[CR4] & paging.CR4_PSE:
        return (e & 0xFFC00000) | ((e >> 13) & 0xFF) << 32 | (linear & 0x3FFFFF)
    e = table_entry(s, (e & 0xFFFFF000) + ((linear >> 10) & 0xFFC), 4)
    if not e & paging.P:
        return NO_PAGE
    return (e & 0xFFFFF000) | (linear & 0xFFF)


def peek(s: State, linear: int, size: int) -> int:
    """Read 1, 2, 4 or 8 bytes into HOOK_LOADED: 0, or 1 if they are not all in memory."""
    if (linear & 0xFFF) + size > 0x1000:
        value = 0
        for n in range(size):
            if peek(s, (linear + n) & M64, 1):
                return 1
            value = value | s[HOOK_LOADED] << (8 * n)
        s[HOOK_LOADED] = value
        return 0
    address = translate(s, linear)
    if address == NO_PAGE or physical.kind(s, address) == physical.MMIO:
        return 1
    s[HOOK_LOADED] = physical.ram_read(s, address, size)
    return 0


def signed(operation: int, a: int, b: int) -> int:
    """Signed division, its rest, and the shift that keeps the sign. Divisions round towards zero."""
    if operation == SSHR:
        ones = M64 if a & SIGN else 0
        return ((a ^ ones) >> (b if b < 64 else 63)) ^ ones
    x = (0 - a) & M64 if a & SIGN else a
    y = (0 - b) & M64 if b & SIGN else b
    if operation == SDIV:
        return (0 - x // y) & M64 if (a ^ b) & SIGN else x // y
    return (0 - x % y) & M64 if a & SIGN else x % y


def binary(operation: int, a: int, b: int) -> int:
    """The result of a binary operation, modulo 2^64."""
    if operation == ADD:
        return (a + b) & M64
    if operation == SUB:
        return (a - b) & M64
    if operation == MUL:
        return (a * b) & M64
    if operation == DIV:
        return a // b
    if operation == MOD:
        return a % b
    if operation == AND:
        return a & b
    if operation == OR:
        return a | b
    if operation == XOR:
        return a ^ b
    if operation == SHL:
        return (a << b) & M64 if b < 64 else 0
    if operation == SHR:
        return a >> b if b < 64 else 0
    if operation == EQ:
        return int(a == b)
    if operation == NE:
        return int(a != b)
    if operation >= SDIV:
        return signed(operation, a, b)
    if operation >= SLT:  # the signed comparisons come in the order of the others
        a = a ^ SIGN
        b = b ^ SIGN
        operation = operation - (SLT - LT)
    if operation == LT:
        return int(a < b)
    if operation == LE:
        return int(a <= b)
    if operation == GT:
        return int(a > b)
    return int(a >= b)


def holds(s: State, program: int) -> int:
    """1 if a condition is true; so is none."""
    if program == 0:
        return 1
    at = HOOK_PROGRAMS + program
    top = HOOK_STACK  # where the next value goes
    unsure = 0  # what is the answer if there is none
    while True:
        operation = s[at] & 0xFF
        argument = s[at] >> 8
        at = at + 1
        if operation == END:
            return int(s[HOOK_STACK] != 0)
        if operation == CONST:
            s[top] = s[at]
            at = at + 1
            top = top + 1
        elif operation == WORD:
            s[top] = s[argument]
            top = top + 1
        elif operation == FLAGS_IMAGE:
            s[top] = eflags(s)
            top = top + 1
        elif operation == LOAD:
            if peek(s, s[top - 1], argument):
                return unsure
            s[top - 1] = s[HOOK_LOADED]
        elif operation == NEGATE:
            s[top - 1] = (0 - s[top - 1]) & M64
        elif operation == INVERT:
            s[top - 1] = s[top - 1] ^ M64
        elif operation == NOT:
            s[top - 1] = int(s[top - 1] == 0)
        elif operation == IF_FALSE or operation == IF_TRUE:  # `and`, `or`: jump with the value, or drop it
            if (s[top - 1] != 0) == (operation == IF_TRUE):
                at = at + argument
            else:
                top = top - 1
        elif operation >= JUMP and operation <= UNSURE:
            if operation == JUMP:
                at = at + argument
            elif operation == JUMP_IF:
                top = top - 1
                if s[top] != 0:
                    at = at + argument
            elif operation == DUP:
                s[top] = s[top - 1]
                top = top + 1
            elif operation == SWAP:
                value = s[top - 1]
                s[top - 1] = s[top - 2]
                s[top - 2] = value
            elif operation == DROP:
                top = top - 1
            else:
                unsure = 1
        else:
            top = top - 1
            if s[top] == 0 and (operation == DIV or operation == MOD or operation == SDIV or operation == SMOD):
                return unsure
            s[top - 1] = binary(operation, s[top - 1], s[top])
