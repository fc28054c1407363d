"""What an x87 operation computes: a primitive of mechanism code, executed by the host's FPU in native code (its twin is
in jit/x87.py) and by softfloat here, but for the transcendental ones, which nothing but the host's FPU itself agrees
with to the last bit: they run on it here too.

compute(s, operation, a, b) takes 80-bit numbers from State words a and b (b may be a memory operand of the operation's
width) under FCW, gives results in X87_RESULT, and returns exception flags and condition codes at their places in FSW.
Responses to exceptions, masked or not, are in there; whether a result is delivered is up to the caller.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache

from pyemu.cpu import softfloat as sf
from pyemu.cpu import softfloat_convert as sfc
from pyemu.cpu import x87_arith as arith
from pyemu.cpu import x87_operations as x87
from pyemu.cpu.fpu_state import C0, C1, C2, C3, EXCEPTIONS, PE
from pyemu.cpu.softfloat_core import PRE_COMPUTATION, FloatContext
from pyemu.cpu.state import FCW, M64, X87_RESULT, State

_ARITHMETIC = {
    x87.ADD: sf.add, x87.MUL: sf.mul, x87.SUB: sf.sub, x87.SUB_REVERSED: sf.sub_reversed,
    x87.DIV: sf.div, x87.DIV_REVERSED: sf.div_reversed,
}  # fmt: skip
_FORMATS = {x87.STACK: sf.X80, x87.SINGLE: sf.F32, x87.DOUBLE: sf.F64}
_CONDITIONS = {sf.LESS: C0, sf.EQUAL: C3, sf.GREATER: 0, sf.UNORDERED: C3 | C2 | C0}
_STATUS = EXCEPTIONS | C0 | C1 | C2 | C3


def compute(s: State, operation: int, a: int, b: int) -> int:
    """One operation."""
    x, y = (s[at] | (s[at + 1] & 0xFFFF) << 64 for at in (a, b))
    if operation in x87.TRANSCENDENTAL:
        status, results = on_host(operation, s[FCW], x, y)
    else:
        ctx = FloatContext.from_control_word(s[FCW])
        status, results = _softfloat(operation, x, y, ctx)
        to_memory = operation in (x87.STORE + x87.SINGLE, x87.STORE + x87.DOUBLE)
        flags = sf.reported_flags(ctx.flags, ctx.masks, to_memory)
        status |= flags | (C1 if flags & PE and ctx.rounded_up else 0)
    for n, bits in enumerate(results):
        s[X87_RESULT + 2 * n], s[X87_RESULT + 2 * n + 1] = bits & M64, bits >> 64
    return status


def _softfloat(operation: int, x: int, y: int, ctx: FloatContext) -> tuple[int, tuple[int, ...]]:
    """Condition codes and results."""
    if operation < x87.LOAD:
        fmt, digit = _FORMATS[operation >> 3], operation & 7
        y &= (1 << fmt.width) - 1
        if digit in (x87.COMPARE, x87.COMPARE_QUIET):
            return _CONDITIONS[sf.compare(sf.X80, x, y, ctx, digit == x87.COMPARE, fmt)], ()
        return 0, (_ARITHMETIC[digit](sf.X80, x, y, ctx, fmt),)
    if operation < x87.FUNCTION:
        return 0, _transfer(operation & ~7, operation & 7, x, y, ctx)
    if operation in (x87.FPREM, x87.FPREM1):
        rest = (arith.fprem if operation == x87.FPREM else arith.fprem1)(x, y, ctx)
        codes = ((1, C1), (2, C3), (4, C0)) if not ctx.flags & ~ctx.masks & PRE_COMPUTATION else ()
        return sum(code for bit, code in codes if rest.quotient & bit) if rest.complete else C2, (rest.bits,)
    if operation == x87.FXTRACT:
        return 0, arith.fxtract(x, ctx)[::-1]
    if operation == x87.FSQRT:
        return 0, (sf.sqrt(sf.X80, x, ctx),)
    if operation == x87.FRNDINT:
        return 0, (sfc.round_to_int(sf.X80, x, ctx),)
    return 0, (arith.fscale(x, y, ctx),)


def _transfer(direction: int, kind: int, x: int, y: int, ctx: FloatContext) -> tuple[int, ...]:
    """Loads that convert, and what stores store, which is a second result."""
    if direction == x87.LOAD:
        if kind == x87.DECIMAL:
            return (arith.fbld(y),)
        return (sfc.convert(_FORMATS[kind], sf.X80, y & ((1 << x87.WIDTHS[kind]) - 1), ctx),)
    if kind in (x87.SINGLE, x87.DOUBLE):
        return 0, sfc.convert(sf.X80, _FORMATS[kind], x, ctx, False)
    if kind == x87.DECIMAL:
        return 0, arith.fbstp(x, ctx)
    return 0, sfc.to_int(sf.X80, x, x87.WIDTHS[kind], ctx, direction == x87.STORE_TRUNCATED)


# ---- the host's FPU ------------------------------------------------------------------------------------------------
_READ_EXECUTE, _PRIVATE = 5, 2  # of mmap(2)
_RETURN = b"\xc3"
_CALL = ctypes.CFUNCTYPE(ctypes.c_uint16, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)


@cache
def _program(operation: int) -> ctypes._CFunctionType:
    """The operation as a function of three addresses, in memory of its own that is never writable and executable."""
    code = x87.OPERATIONS[operation].exactly() + _RETURN
    file = os.memfd_create("x87")
    try:
        os.write(file, code)
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_ssize_t
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        address = libc.mmap(None, len(code), _READ_EXECUTE, _PRIVATE, file, 0)
    finally:
        os.close(file)
    if address == -1:
        raise OSError(ctypes.get_errno(), "the host doesn't allow executable memory")
    return _CALL(address)


def on_host(operation: int, control: int, x: int, y: int) -> tuple[int, tuple[int, ...]]:
    """Status and results of an operation, by the host's FPU."""
    words = (ctypes.c_uint64 * 9)(
        x & M64, x >> 64, y & M64, y >> 64, 0, 0, 0, 0, control & 0xFFFF | x87.DEFAULT_CONTROL << 16
    )
    base = ctypes.addressof(words)
    status = _program(operation)(base, base + 16, base + 32)
    results = (words[4] | words[5] << 64, words[6] | words[7] << 64)
    return status & _STATUS, results[: x87.OPERATIONS[operation].results]
