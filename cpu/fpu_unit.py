"""x87 instructions (mechanism): data movement is done here, natively in every back end, and what computes is passed on
to the Python services in x87_services.py.

Masked responses to stack faults and to exceptions are given here; an unmasked exception leaves operands alone and sets
FSW.ES, and the next waiting instruction raises #MF. Not here: availability and FIP (semantics/x87.py), the
environment (fpu_environment.py).
"""

from __future__ import annotations

from array import array

from pyemu.cpu import flags, memory, x87_arith
from pyemu.cpu import fpu_state as fs
from pyemu.cpu import x87_services as x87
from pyemu.cpu.fpu_state import C0, C1, C2, C3, CONDITIONS, INDEFINITE_HIGH, INDEFINITE_LOW
from pyemu.cpu.primitives import call_service, sext
from pyemu.cpu.state import FCW, FSW, FTW, M64, VALUE, State
from pyemu.cpu.x87_services import ARITHMETIC, BLOCKED, COMPARE, CONVERT_STORE, FUNCTION, LOAD, NOT_DELIVERED

INTEGER_BIT, QUIET_BIT = 1 << 63, 1 << 62
EXPONENT = 0x7FFF  # of the second word of a register; SIGN is above it
SIGN = 0x8000
BIAS = 16383
ROUNDING_SHIFT = 10  # of RC in FCW

# FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2, FLDZ (D9 E8-EE): significand and exponent, for each rounding mode.
NAMES = ("fld1", "fldl2t", "fldl2e", "fldpi", "fldlg2", "fldln2", "fldz")
_VALUES = [x87_arith.load_constant(name, rounding) for rounding in range(4) for name in NAMES]
CONSTANT_LOW = array("Q", [value & M64 for value in _VALUES])
CONSTANT_HIGH = array("Q", [value >> 64 for value in _VALUES])
CONSTANTS = len(NAMES)


# ---- loads -------------------------------------------------------------------------------------------------------
def load(s: State, low: int, high: int) -> int:
    """Push 80 bits: FLD m80, and what the other loads come to."""
    if fs.empty(s, 7):
        s[FSW] = s[FSW] & ~C1
        return fs.push(s, low, high)
    if fs.stack_fault(s, 1):
        fs.push(s, INDEFINITE_LOW, INDEFINITE_HIGH)
    return 0


def load_register(s: State, n: int) -> int:
    """FLD ST(n)."""
    if fs.empty(s, n):  # outranks an overflow
        if fs.stack_fault(s, 0):
            fs.push(s, INDEFINITE_LOW, INDEFINITE_HIGH)
        return 0
    at = fs.register(s, n)
    return load(s, s[at], s[at + 1])


def load_constant(s: State, number: int) -> int:
    """FLD1 and its like; `number` counts from D9 E8."""
    at = ((s[FCW] >> ROUNDING_SHIFT) & 3) * CONSTANTS + number
    return load(s, CONSTANT_LOW[at], CONSTANT_HIGH[at])


def load_integer(s: State, bits: int, width: int) -> int:
    """FILD."""
    value = bits
    if width == 16:
        value = sext(bits, 16)
    elif width == 32:
        value = sext(bits, 32)
    if value == 0:
        return load(s, 0, 0)
    sign = 0
    if value >> 63:
        sign = SIGN
        value = (0 - value) & M64
    exponent = BIAS + 63
    shift = 32
    while shift != 0:
        if value >> (64 - shift) == 0:
            value = (value << shift) & M64
            exponent = exponent - shift
        shift = shift >> 1
    return load(s, value, sign | exponent)


def load_double(s: State, bits: int) -> int:
    """FLD m64; denormals and signalling NaNs, which raise exceptions, are the service's."""
    exponent = (bits >> 52) & 0x7FF
    fraction = bits & 0xFFFFFFFFFFFFF
    sign = (bits >> 63) << 15
    if exponent == 0:
        if fraction:
            return call_service(s, LOAD, x87.DOUBLE << x87.KIND_SHIFT, bits)
        return load(s, 0, sign)
    if exponent == 0x7FF:
        if fraction and fraction >> 51 == 0:
            return call_service(s, LOAD, x87.DOUBLE << x87.KIND_SHIFT, bits)
        return load(s, INTEGER_BIT | fraction << 11, sign | EXPONENT)
    return load(s, INTEGER_BIT | fraction << 11, sign | (exponent + BIAS - 1023))


def load_single(s: State, bits: int) -> int:
    """FLD m32, likewise."""
    exponent = (bits >> 23) & 0xFF
    fraction = bits & 0x7FFFFF
    sign = ((bits >> 31) & 1) << 15
    if exponent == 0:
        if fraction:
            return call_service(s, LOAD, x87.SINGLE << x87.KIND_SHIFT, bits)
        return load(s, 0, sign)
    if exponent == 0xFF:
        if fraction and fraction >> 22 == 0:
            return call_service(s, LOAD, x87.SINGLE << x87.KIND_SHIFT, bits)
        return load(s, INTEGER_BIT | fraction << 40, sign | EXPONENT)
    return load(s, INTEGER_BIT | fraction << 40, sign | (exponent + BIAS - 127))


def load_decimal(s: State, low: int, high: int) -> int:
    """FBLD."""
    s[VALUE + 1] = high
    return call_service(s, LOAD, x87.DECIMAL << x87.KIND_SHIFT, low)


# ---- stores ------------------------------------------------------------------------------------------------------
def put_extended(s: State, linear: int, low: int, high: int, access: int) -> int:
    """Store ten bytes, all or nothing."""
    if memory.probe(s, linear, 10, access | memory.WRITE):
        return 1
    memory.write(s, linear, 8, low, access | memory.WRITE)
    return memory.write(s, (linear + 8) & M64, 2, high, access | memory.WRITE)


def store_extended(s: State, linear: int, access: int) -> int:
    """FSTP m80."""
    if fs.empty(s, 0):
        masked = s[FCW] & fs.IE
        if masked:
            if put_extended(s, linear, INDEFINITE_LOW, INDEFINITE_HIGH, access):
                return 1
        fs.stack_fault(s, 0)
        return fs.pop(s) if masked else 0
    at = fs.register(s, 0)
    if put_extended(s, linear, s[at], s[at + 1], access):
        return 1
    s[FSW] = s[FSW] & ~C1
    return fs.pop(s)


def store(s: State, linear: int, access: int, command: int, size: int) -> int:
    """FST, FIST, FISTTP, FBSTP: a store that converts (and may be prevented by an unmasked exception)."""
    status = call_service(s, CONVERT_STORE, command, 0)
    if status & BLOCKED:
        return fs.report(s, status & ~BLOCKED)
    low = s[VALUE]
    if size == 10:
        if put_extended(s, linear, low, s[VALUE + 1], access):
            return 1
    elif memory.write(s, linear, size, low, access | memory.WRITE):
        return 1
    fs.report(s, status)
    return fs.pop_if(s, (command >> x87.POP_SHIFT) & 3)


def store_register(s: State, n: int, pops: int) -> int:
    """FST ST(n), FSTP ST(n)."""
    if fs.empty(s, 0):
        if fs.stack_fault(s, 0) == 0:
            return 0
        fs.write_indefinite(s, n)
    else:
        at = fs.register(s, 0)
        s[FSW] = s[FSW] & ~C1
        fs.write(s, n, s[at], s[at + 1])
    return fs.pop_if(s, pops)


def store_register_unchecked(s: State, n: int) -> int:
    """FSTP1 (D9 D8): without an ST(0) it only pops."""
    s[FSW] = s[FSW] & ~C1
    if fs.empty(s, 0) == 0:
        at = fs.register(s, 0)
        fs.write(s, n, s[at], s[at + 1])
    return fs.pop(s)


# ---- moves within the stack ----------------------------------------------------------------------------------------
def exchange(s: State, n: int) -> int:
    """FXCH."""
    if fs.empty(s, 0) or fs.empty(s, n):
        if fs.stack_fault(s, 0) == 0:
            return 0
        if fs.empty(s, 0):
            fs.write_indefinite(s, 0)
        if fs.empty(s, n):
            fs.write_indefinite(s, n)
    else:
        s[FSW] = s[FSW] & ~C1
    a = fs.register(s, 0)
    b = fs.register(s, n)
    low = s[a]
    high = s[a + 1]
    s[a] = s[b]
    s[a + 1] = s[b + 1]
    s[b] = low
    s[b + 1] = high
    return 0


def move_if(s: State, n: int, condition: int) -> int:
    """FCMOVcc; a missing operand is noticed whatever the condition says."""
    if fs.empty(s, 0) or fs.empty(s, n):
        if fs.stack_fault(s, 0):
            fs.write_indefinite(s, 0)
        return 0
    if condition:
        at = fs.register(s, n)
        fs.write(s, 0, s[at], s[at + 1])
    return 0


def set_sign(s: State, keep: int, flip: int) -> int:
    """FCHS, FABS: the sign is first masked by `keep`, then inverted by `flip`."""
    if fs.empty(s, 0):
        if fs.stack_fault(s, 0):
            fs.write_indefinite(s, 0)
        return 0
    s[FSW] = s[FSW] & ~C1
    at = fs.register(s, 0) + 1
    s[at] = ((s[at] & (EXPONENT | keep)) ^ flip) & 0xFFFF
    return 0


def examine(s: State) -> int:
    """FXAM (SDM 2, FXAM)."""
    at = fs.register(s, 0)
    significand = s[at]
    exponent = s[at + 1] & EXPONENT
    result = C1 if s[at + 1] & SIGN else 0
    if fs.empty(s, 0):
        result = result | C3 | C0
    elif exponent == 0:
        result = result | (C3 | C2 if significand else C3)
    elif significand >> 63 == 0:
        result = result | 0  # unsupported
    elif exponent < EXPONENT:
        result = result | C2
    elif significand == INTEGER_BIT:
        result = result | C2 | C0
    else:
        result = result | C0
    s[FSW] = (s[FSW] & ~(CONDITIONS | C1)) | result
    return 0


def free(s: State, n: int, pops: int) -> int:
    """FFREE, FFREEP."""
    s[FTW] = s[FTW] & ~fs.tag(s, n) & 0xFF
    return fs.pop_if(s, pops)


def rotate(s: State, by: int) -> int:
    """FINCSTP (1), FDECSTP (7)."""
    s[FSW] = s[FSW] & ~C1
    return fs.move_top(s, by)


# ---- what computes -------------------------------------------------------------------------------------------------
def arithmetic(s: State, command: int, operand: int) -> int:
    """FADD FMUL FSUB FSUBR FDIV FDIVR, with integers too."""
    return call_service(s, ARITHMETIC, command, operand)


def function(s: State, opcode: int) -> int:
    """D9 F0-FF, but for FINCSTP and FDECSTP."""
    return call_service(s, FUNCTION, opcode, 0)


def compare(s: State, command: int, operand: int) -> int:
    """FCOM, FUCOM, FICOM, FTST: the outcome goes to C3, C2, C0."""
    outcome = call_service(s, COMPARE, command, operand)
    if outcome & NOT_DELIVERED == 0:
        s[FSW] = (s[FSW] & ~CONDITIONS) | outcome
    return 0


def compare_to_flags(s: State, command: int) -> int:
    """FCOMI, FUCOMI: the outcome goes to ZF, PF, CF; OF, SF, AF are cleared."""
    outcome = call_service(s, COMPARE, command, 0)
    if outcome & NOT_DELIVERED == 0:
        word = flags.ZF if outcome & C3 else 0
        if outcome & C2:
            word = word | flags.PF
        if outcome & C0:
            word = word | flags.CF
        flags.set_arithmetic(s, word)
    return 0
