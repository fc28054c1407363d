"""x87 arithmetic in Python: services that every back end calls (see fpu_unit.py for how).

A command word says what to do; its fields are named here. Operands come from the register stack or as argument; results
go to the stack at once, but for stores, which fpu_unit makes. Number formats are softfloat's and x87_arith's business.
"""

from __future__ import annotations

from collections.abc import Callable

from pyemu.cpu import fpu_state as fs
from pyemu.cpu import softfloat as sf
from pyemu.cpu import softfloat_convert as sfc
from pyemu.cpu import x87_arith as arith
from pyemu.cpu import x87_transcendental as trans
from pyemu.cpu.fpu_state import C0, C1, C2, C3, DE, IE, OE, PE, SF, UE, ZE
from pyemu.cpu.primitives import service
from pyemu.cpu.softfloat_core import FloatContext
from pyemu.cpu.state import FCW, FSW, M64, VALUE, State

# ---- command words -----------------------------------------------------------------------------------------------
# Bits 0-3: what to compute. Arithmetic: the reg field of the opcode (SDM 2, table A-7 and on).
ADD, MUL, SUB, SUB_REVERSED, DIV, DIV_REVERSED = 0, 1, 4, 5, 6, 7
# Bits 4-7: the other operand, or the destination of a store.
KIND_SHIFT = 4
STACK, SINGLE, DOUBLE, INT16, INT32, INT64, DECIMAL, ZERO = range(8)
# Bits 8-10: n of ST(n).
N_SHIFT = 8
TO_N = 1 << 11  # the result goes to ST(n), not ST(0)
POP_SHIFT = 12  # bits 12-13: how often to pop
QUIET = 1 << 14  # a comparison that accepts quiet NaNs
TRUNCATE = 1 << 14  # a store that ignores the rounding mode

# What convert_store returns beside exception flags and C1.
BLOCKED = 1 << 63  # an unmasked exception: don't store, don't pop
# What compare returns beside the condition codes: an unmasked exception left EFLAGS and condition codes alone.
NOT_DELIVERED = 1 << 63

INTEGERS = {INT16: 16, INT32: 32, INT64: 64}
PRE_COMPUTATION = IE | DE | ZE


def kind_of(command: int) -> int:
    """The kind of the other operand."""
    return command >> KIND_SHIFT & 15


def st(s: State, n: int) -> int:
    """The 80 bits of ST(n)."""
    at = fs.register(s, n)
    return int(s[at]) | (int(s[at + 1]) & 0xFFFF) << 64


def set_st(s: State, n: int, bits: int) -> None:
    """Give ST(n) a value."""
    fs.write(s, n, bits & M64, bits >> 64)


def context(s: State) -> FloatContext:
    """The environment that the control word describes."""
    return FloatContext.from_control_word(s[FCW])


def exceptions(ctx: FloatContext, to_memory: bool = False) -> int:
    """The status bits to report: exception flags, and C1 if a result was rounded up."""
    flags = sf.reported_flags(ctx.flags, ctx.masks, to_memory)
    return flags | (C1 if flags & PE and ctx.rounded_up else 0)


def finish(s: State, ctx: FloatContext) -> bool:
    """Report; may the result be delivered?"""
    status = exceptions(ctx)
    fs.report(s, status)
    return not status & ~ctx.masks & PRE_COMPUTATION


def operand_of(s: State, command: int, operand: int) -> tuple[int, sf.Format]:
    """The other operand and its format; integers are converted, which is exact."""
    kind = kind_of(command)
    if kind == STACK:
        return st(s, command >> N_SHIFT & 7), sf.X80
    if kind == SINGLE:
        return operand & 0xFFFFFFFF, sf.F32
    if kind == DOUBLE:
        return operand, sf.F64
    if kind == ZERO:
        return 0, sf.X80
    return integer(operand, INTEGERS[kind]), sf.X80


def integer(bits: int, width: int) -> int:
    """A signed integer in extended precision."""
    value = bits & ((1 << width) - 1)
    return sfc.from_int(sf.X80, value - (1 << width) if value >> (width - 1) else value, FloatContext())


def underflows(s: State, command: int) -> bool:
    """Is an operand missing?"""
    return bool(fs.empty(s, 0) or (kind_of(command) == STACK and fs.empty(s, command >> N_SHIFT & 7)))


# ---- arithmetic with two operands ----------------------------------------------------------------------------------
_ARITHMETIC: dict[int, Callable[[sf.Format, int, int, FloatContext, sf.Format | None], int]] = {
    ADD: sf.add, MUL: sf.mul, SUB: sf.sub, SUB_REVERSED: sf.sub_reversed, DIV: sf.div, DIV_REVERSED: sf.div_reversed,
}  # fmt: skip


def _arithmetic(s: State, command: int, operand: int) -> int:
    """FADD and its like: ST(0) with the other operand."""
    destination = command >> N_SHIFT & 7 if command & TO_N else 0
    if underflows(s, command):
        if not fs.stack_fault(s, 0):
            return 0
        fs.write_indefinite(s, destination)
    else:
        ctx = context(s)
        other, fmt = operand_of(s, command, operand)
        result = _ARITHMETIC[command & 7](sf.X80, st(s, 0), other, ctx, fmt)
        if not finish(s, ctx):
            return 0
        set_st(s, destination, result)
    return fs.pop_if(s, command >> POP_SHIFT & 3)


_CONDITIONS = {sf.LESS: C0, sf.EQUAL: C3, sf.GREATER: 0, sf.UNORDERED: C3 | C2 | C0}


def _compare(s: State, command: int, operand: int) -> int:
    """FCOM and its like: returns the condition codes, which the caller delivers, and pops."""
    if underflows(s, command):
        if not fs.stack_fault(s, 0):
            return NOT_DELIVERED
        outcome = sf.UNORDERED
    else:
        ctx = context(s)
        other, fmt = operand_of(s, command, operand)
        outcome = sf.compare(sf.X80, st(s, 0), other, ctx, not command & QUIET, fmt)
        if not finish(s, ctx):
            return NOT_DELIVERED
    fs.pop_if(s, command >> POP_SHIFT & 3)
    return _CONDITIONS[outcome]


# ---- loads and stores that convert -----------------------------------------------------------------------------------
def _load(s: State, command: int, operand: int) -> int:
    """FLD m32/m64 of numbers that may raise an exception; FBLD, whose upper 16 bits are in VALUE + 1."""
    if not fs.empty(s, 7):
        if fs.stack_fault(s, 1):
            fs.push(s, fs.INDEFINITE_LOW, fs.INDEFINITE_HIGH)
        return 0
    ctx = context(s)
    if kind_of(command) == DECIMAL:
        result = arith.fbld(operand | (int(s[VALUE + 1]) & 0xFFFF) << 64)
    else:
        other, fmt = operand_of(s, command, operand)
        result = sfc.convert(fmt, sf.X80, other, ctx)
    if finish(s, ctx):
        fs.push(s, result & M64, result >> 64)
    return 0


def _convert_store(s: State, command: int, unused: int) -> int:
    """VALUE = ST(0) in the format of the destination; returns what to report. Changes nothing else."""
    ctx, kind = context(s), kind_of(command)
    if fs.empty(s, 0):
        _set_value(s, _indefinite(kind))
        return IE | SF | (0 if ctx.masks & IE else BLOCKED)
    bits = st(s, 0)
    if kind in (SINGLE, DOUBLE):
        result = sfc.convert(sf.X80, sf.F32 if kind == SINGLE else sf.F64, bits, ctx, False)
        status = exceptions(ctx, True)
        blocking = IE | DE | ZE | OE | UE
    else:
        if kind == DECIMAL:
            result = arith.fbstp(bits, ctx)
        else:
            result = sfc.to_int(sf.X80, bits, INTEGERS[kind], ctx, bool(command & TRUNCATE))
        status = exceptions(ctx)
        blocking = PRE_COMPUTATION
    _set_value(s, result)
    return status | (BLOCKED if status & ~ctx.masks & blocking else 0)


def _set_value(s: State, bits: int) -> None:
    s[VALUE], s[VALUE + 1] = bits & M64, bits >> 64


def _indefinite(kind: int) -> int:
    """The masked response to storing what isn't there."""
    if kind == SINGLE:
        return sf.F32.default_nan
    if kind == DOUBLE:
        return sf.F64.default_nan
    return arith.BCD_INDEFINITE if kind == DECIMAL else 1 << (INTEGERS[kind] - 1)


# ---- D9 F0-FF: everything else that computes -----------------------------------------------------------------------
_ONE: dict[int, Callable[[int, sf.FloatContext], int]] = {
    0xF0: trans.f2xm1,
    0xFA: lambda a, c: sf.sqrt(sf.X80, a, c),
    0xFC: lambda a, c: sfc.round_to_int(sf.X80, a, c),
}
_TWO_POP = {0xF1: trans.fyl2x, 0xF3: trans.fpatan, 0xF9: trans.fyl2xp1}
_REMAINDER = {0xF5: arith.fprem1, 0xF8: arith.fprem}
_FSCALE, _FXTRACT = 0xFD, 0xF4
_TRIGONOMETRIC = {0xF2: trans.fptan, 0xFB: trans.fsincos, 0xFE: trans.fsin, 0xFF: trans.fcos}
_PUSHING = {0xF2, 0xF4, 0xFB}


def _function(s: State, opcode: int, unused: int) -> int:
    """The instruction D9 `opcode`."""
    if opcode in _PUSHING:
        return _pushing(s, opcode)
    two = opcode in _TWO_POP or opcode in _REMAINDER or opcode == _FSCALE
    destination = 1 if opcode in _TWO_POP else 0
    pops = destination
    if opcode in _TRIGONOMETRIC or opcode in _REMAINDER:
        s[FSW] &= ~C2
    if fs.empty(s, 0) or (two and fs.empty(s, 1)):
        if not fs.stack_fault(s, 0):
            return 0
        fs.write_indefinite(s, destination)
        return fs.pop_if(s, pops)
    ctx, affected, conditions = context(s), 0, 0
    a, b = st(s, 0), st(s, 1)
    if opcode in _ONE:
        result = _ONE[opcode](a, ctx)
    elif opcode in _TWO_POP:
        result = _TWO_POP[opcode](a, b, ctx)
    elif opcode in _TRIGONOMETRIC:
        sine = _TRIGONOMETRIC[opcode](a, ctx)
        result, conditions = sine.bits, 0 if sine.complete else C2
    elif opcode == _FSCALE:
        result = arith.fscale(a, b, ctx)
    else:
        rest = _REMAINDER[opcode](a, b, ctx)
        result, quotient = rest.bits, rest.quotient
        if result >> 64 & 0x7FFF != 0x7FFF:  # a NaN says nothing about the quotient
            affected = C0 | C3
            conditions = (C0 if quotient & 4 else 0) | (C3 if quotient & 2 else 0) | (C1 if quotient & 1 else 0)
        if not rest.complete:
            conditions = C2
    if finish(s, ctx):
        s[FSW] = s[FSW] & ~affected | conditions
        set_st(s, destination, result)
        fs.pop_if(s, pops)
    return 0


def _pushing(s: State, opcode: int) -> int:
    """FPTAN, FXTRACT, FSINCOS: one number replaces ST(0), another is pushed."""
    if opcode != _FXTRACT:
        s[FSW] &= ~C2
    missing = fs.empty(s, 0)
    if missing or not fs.empty(s, 7):
        if fs.stack_fault(s, 0 if missing else 1):
            fs.write_indefinite(s, 0)
            fs.push(s, fs.INDEFINITE_LOW, fs.INDEFINITE_HIGH)
        return 0
    ctx = context(s)
    if opcode == _FXTRACT:
        replaced, pushed = arith.fxtract(st(s, 0), ctx)
    else:
        both = _TRIGONOMETRIC[opcode](st(s, 0), ctx)
        replaced, pushed = both.bits, both.pushed
        if not both.complete:
            fs.report(s, 0)
            s[FSW] |= C2
            return 0
    if finish(s, ctx):
        set_st(s, 0, replaced)
        fs.push(s, pushed & M64, pushed >> 64)
    return 0


ARITHMETIC, COMPARE, LOAD = service(_arithmetic), service(_compare), service(_load)
CONVERT_STORE, FUNCTION = service(_convert_store), service(_function)

__all__ = ["ARITHMETIC", "COMPARE", "CONVERT_STORE", "FUNCTION", "LOAD"]
