"""x87 instructions (mechanism): what happens to the register stack, operands in memory, and the status word.

What computes is x87_compute.py. Masked responses to stack faults are given here; an unmasked exception of those that
come before the computation leaves operands alone, every unmasked one sets FSW.ES, and the next waiting instruction
raises #MF. Not here: availability and FIP (semantics/x87.py), the environment (fpu_environment.py).

A command word says what is to be done with which operand; its fields are named here.
"""

from __future__ import annotations

from array import array

from pyemu.cpu import flags, memory
from pyemu.cpu import fpu_state as fs
from pyemu.cpu.fpu_state import C0, C1, C2, C3, CONDITIONS, DE, IE, INDEFINITE_HIGH, INDEFINITE_LOW, OE, UE, ZE
from pyemu.cpu.primitives import sext
from pyemu.cpu.state import FCW, FSW, FTW, M64, X87_OPERAND, X87_RESULT, State
from pyemu.cpu.x87_compute import compute
from pyemu.cpu.x87_operations import DECIMAL, DOUBLE, FPREM, FPREM1, FXTRACT, INT16, LOAD, SINGLE, STACK

# ---- command words -------------------------------------------------------------------------------------------------
# Bits 0-5: the operation (x87_operations.py), for arithmetic and comparison without the operand's kind.
OPERATION = 0x3F
KIND_SHIFT = 6  # bits 6-9: the other operand, or the destination of a store
N_SHIFT = 10  # bits 10-12: n of ST(n)
TO_N = 1 << 13  # the result goes to ST(n), not ST(0)
POP_SHIFT = 14  # bits 14-15: how often to pop
NOTHING = 8  # a kind: zero, as an integer

INTEGER_BIT, QUIET_BIT = 1 << 63, 1 << 62
EXPONENT = 0x7FFF  # of the second word of a register; SIGN is above it
SIGN = 0x8000
BIAS = 16383
ROUNDING_SHIFT = 10  # of RC in FCW
REPORTED = fs.EXCEPTIONS | C1
PRE_COMPUTATION = IE | DE | ZE  # if one of these isn't masked, nothing is computed

# FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2, FLDZ (D9 E8-EE): significand, rounded down, and exponent; then what
# rounding to nearest and up add to the significand.
CONSTANTS = (
    ("fld1", 0x8000000000000000, 0x3FFF, 0, 0), ("fldl2t", 0xD49A784BCD1B8AFE, 0x4000, 0, 1),
    ("fldl2e", 0xB8AA3B295C17F0BB, 0x3FFF, 1, 1), ("fldpi", 0xC90FDAA22168C234, 0x4000, 1, 1),
    ("fldlg2", 0x9A209A84FBCFF798, 0x3FFD, 1, 1), ("fldln2", 0xB17217F7D1CF79AB, 0x3FFE, 1, 1), ("fldz", 0, 0, 0, 0),
)  # fmt: skip
CONSTANT_COUNT = len(CONSTANTS)
CONSTANT_LOW = array("Q", [low + (near, 0, up, 0)[rc] for rc in range(4) for _, low, _, near, up in CONSTANTS])
CONSTANT_HIGH = array("Q", [high for _, _, high, _, _ in CONSTANTS])
# What an empty ST(0) is stored as, by kind of destination.
INDEFINITE = array("Q", [0, 0xFFC00000, 0xFFF8 << 48, 1 << 15, 1 << 31, 1 << 63, INDEFINITE_LOW])


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
    rounding = (s[FCW] >> ROUNDING_SHIFT) & 3
    return load(s, CONSTANT_LOW[rounding * CONSTANT_COUNT + number], CONSTANT_HIGH[number])


def extend_integer(s: State, bits: int, width: int) -> int:
    """X87_OPERAND = a signed integer as an 80-bit number."""
    value = bits
    if width == 16:
        value = sext(bits, 16)
    elif width == 32:
        value = sext(bits, 32)
    sign = 0
    if value >> 63:
        sign = SIGN
        value = (0 - value) & M64
    exponent = BIAS + 63 if value else 0
    shift = 32
    while shift != 0 and value:
        if value >> (64 - shift) == 0:
            value = (value << shift) & M64
            exponent = exponent - shift
        shift = shift >> 1
    s[X87_OPERAND] = value
    s[X87_OPERAND + 1] = sign | exponent
    return 0


def load_integer(s: State, bits: int, width: int) -> int:
    """FILD."""
    extend_integer(s, bits, width)
    return load(s, s[X87_OPERAND], s[X87_OPERAND + 1])


def load_converted(s: State, kind: int, low: int, high: int) -> int:
    """FLD m32 and m64 of what raises exceptions, FBLD."""
    if fs.empty(s, 7) == 0:
        return load(s, 0, 0)
    s[X87_OPERAND] = low
    s[X87_OPERAND + 1] = high
    status = compute(s, LOAD + kind, X87_OPERAND, X87_OPERAND)
    fs.report(s, status & REPORTED)
    if status & ~s[FCW] & IE:  # AMD's processors push a denormal whether #D is masked or not
        return 0
    return fs.push(s, s[X87_RESULT], s[X87_RESULT + 1])


def load_binary(s: State, kind: int, bits: int, size: int, top: int) -> int:
    """Push a number with `size` bits of fraction and exponents up to `top`; denormals and signalling NaNs, which raise
    exceptions, are the service's."""
    exponent = (bits >> size) & top
    fraction = bits & ((1 << size) - 1)
    sign = SIGN if (bits >> size) & (top + 1) else 0
    significand = INTEGER_BIT | fraction << (63 - size)
    if exponent == 0:
        if fraction:
            return load_converted(s, kind, bits, 0)
        return load(s, 0, sign)
    if exponent == top:
        if fraction and fraction >> (size - 1) == 0:
            return load_converted(s, kind, bits, 0)
        return load(s, significand, sign | EXPONENT)
    return load(s, significand, sign | (exponent + BIAS - (top >> 1)))


def load_double(s: State, bits: int) -> int:
    """FLD m64."""
    return load_binary(s, DOUBLE, bits, 52, 0x7FF)


def load_single(s: State, bits: int) -> int:
    """FLD m32."""
    return load_binary(s, SINGLE, bits & 0xFFFFFFFF, 23, 0xFF)


def load_decimal(s: State, low: int, high: int) -> int:
    """FBLD."""
    return load_converted(s, DECIMAL, low, high)


# ---- stores ------------------------------------------------------------------------------------------------------
def put_extended(s: State, linear: int, low: int, high: int, access: int) -> int:
    """Store ten bytes, all or nothing."""
    if memory.probe_aligned(s, linear, 10, 8, access | memory.WRITE):
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
        elif memory.probe_aligned(s, linear, 10, 8, access | memory.WRITE):
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
    operation = command & OPERATION
    kind = operation & 7
    if fs.empty(s, 0):
        status = IE | fs.SF
        blocked = ~s[FCW] & IE
        s[X87_RESULT + 2] = INDEFINITE[kind]
        s[X87_RESULT + 3] = INDEFINITE_HIGH
    else:
        status = compute(s, operation, fs.register(s, 0), X87_OPERAND) & REPORTED
        blocked = status & ~s[FCW] & (PRE_COMPUTATION | OE | UE)
    if blocked:
        if memory.probe_aligned(s, linear, size, 8 if size == 10 else size, access | memory.WRITE):
            return 1
        return fs.report(s, status)
    if size == 10:
        if put_extended(s, linear, s[X87_RESULT + 2], s[X87_RESULT + 3], access):
            return 1
    elif memory.write(s, linear, size, s[X87_RESULT + 2], access | memory.WRITE):
        return 1
    fs.report(s, status)
    return fs.pop_if(s, (command >> POP_SHIFT) & 3)


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
    s[FSW] = s[FSW] & ~C1
    s[FTW] = s[FTW] & ~fs.tag(s, n) & 0xFF
    return fs.pop_if(s, pops)


def rotate(s: State, by: int) -> int:
    """FINCSTP (1), FDECSTP (7)."""
    s[FSW] = s[FSW] & ~C1
    return fs.move_top(s, by)


# ---- what computes -------------------------------------------------------------------------------------------------
def missing(s: State, command: int) -> int:
    """1 if an operand isn't there."""
    if (command >> KIND_SHIFT) & 15 == STACK and fs.empty(s, (command >> N_SHIFT) & 7):
        return 1
    return fs.empty(s, 0)


def compute_with(s: State, command: int, operand: int) -> int:
    """ST(0) with the other operand; the result is in X87_RESULT."""
    kind = (command >> KIND_SHIFT) & 15
    operation = command & OPERATION
    other = X87_OPERAND
    if kind == STACK:
        other = fs.register(s, (command >> N_SHIFT) & 7)
    elif kind <= DOUBLE:
        operation = operation + 8 * kind
        s[X87_OPERAND] = operand
    else:
        extend_integer(s, operand, 16 if kind == INT16 else 32)
    return compute(s, operation, fs.register(s, 0), other)


def finish(s: State, status: int) -> int:
    """Report; may the result be delivered?"""
    fs.report(s, status & REPORTED)
    return 0 if status & ~s[FCW] & PRE_COMPUTATION else 1


def arithmetic(s: State, command: int, operand: int) -> int:
    """FADD FMUL FSUB FSUBR FDIV FDIVR, with integers too."""
    destination = (command >> N_SHIFT) & 7 if command & TO_N else 0
    if missing(s, command):
        if fs.stack_fault(s, 0) == 0:
            return 0
        fs.write_indefinite(s, destination)
    else:
        if finish(s, compute_with(s, command, operand)) == 0:
            return 0
        fs.write(s, destination, s[X87_RESULT], s[X87_RESULT + 1])
    return fs.pop_if(s, (command >> POP_SHIFT) & 3)


def function(s: State, operation: int, two: int, pops: int, conditions: int) -> int:
    """D9 F0-FF with one result, from ST(0), or from both ST(0) and ST(1); some say in C2 that they are not through."""
    affected = conditions
    s[FSW] = s[FSW] & ~affected
    if fs.empty(s, 0) or (two and fs.empty(s, 1)):
        if fs.stack_fault(s, 0) == 0:
            return 0
        fs.write_indefinite(s, pops)
        return fs.pop_if(s, pops)
    status = compute(s, operation, fs.register(s, 0), fs.register(s, 1))
    if finish(s, status) == 0:
        return 0
    if (operation == FPREM or operation == FPREM1) and s[X87_RESULT + 1] & EXPONENT != EXPONENT:
        affected = CONDITIONS  # of the quotient, of which a NaN says nothing
    s[FSW] = (s[FSW] & ~affected) | (status & affected)
    fs.write(s, pops, s[X87_RESULT], s[X87_RESULT + 1])
    return fs.pop_if(s, pops)


def function_pushing(s: State, operation: int) -> int:
    """FPTAN, FXTRACT, FSINCOS: one number replaces ST(0), another is pushed."""
    if operation != FXTRACT:
        s[FSW] = s[FSW] & ~C2
    if fs.empty(s, 0) or fs.empty(s, 7) == 0:
        if fs.stack_fault(s, 1 - fs.empty(s, 0)):
            fs.write_indefinite(s, 0)
            fs.push(s, INDEFINITE_LOW, INDEFINITE_HIGH)
        return 0
    status = compute(s, operation, fs.register(s, 0), X87_OPERAND)
    if finish(s, status) == 0:
        return 0
    if status & C2 and operation != FXTRACT:  # out of range
        s[FSW] = s[FSW] | C2
        return 0
    fs.write(s, 0, s[X87_RESULT + 2], s[X87_RESULT + 3])
    return fs.push(s, s[X87_RESULT], s[X87_RESULT + 1])


def outcome(s: State, command: int, operand: int) -> int:
    """Compare and pop: the condition codes, which AMD's processors deliver whether exceptions are masked or not."""
    status = CONDITIONS
    if missing(s, command):
        delivered = fs.stack_fault(s, 0)
    else:
        status = compute_with(s, command, operand)
        delivered = finish(s, status)
    if delivered:
        fs.pop_if(s, (command >> POP_SHIFT) & 3)
    return status & CONDITIONS


def compare(s: State, command: int, operand: int) -> int:
    """FCOM, FUCOM, FICOM, FTST: the outcome goes to C3, C2, C0."""
    codes = outcome(s, command, operand)
    s[FSW] = (s[FSW] & ~CONDITIONS) | codes
    return 0


def compare_to_flags(s: State, command: int) -> int:
    """FCOMI, FUCOMI: the outcome goes to ZF, PF, CF; OF, SF, AF are cleared. C1 stays, but for a stack fault."""
    kept = 0 if missing(s, command) else s[FSW] & C1
    codes = outcome(s, command, 0)
    s[FSW] = s[FSW] | kept
    word = flags.ZF if codes & C3 else 0
    if codes & C2:
        word = word | flags.PF
    if codes & C0:
        word = word | flags.CF
    return flags.set_arithmetic(s, word)
