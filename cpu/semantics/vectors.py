"""What the MMX, SSE and AVX families share: when the units may be used, aligned operands, and small lane tools."""

from __future__ import annotations

from collections.abc import Callable

from pyemu.cpu.instruction import MF, NM, READ, UD, WRITE, Instruction
from pyemu.cpu.mode import EMULATE_FPU, NO_OSFXSR, NO_OSXSAVE, TASK_SWITCHED
from pyemu.cpu.ops import Operand
from pyemu.cpu.state import FSW, FTW, IGNNE, MODE, XCR0, State
from pyemu.cpu.values import Value

Unary = Callable[[Value], Value]
Binary = Callable[[Value, Value], Value]
Vector = Callable[[Instruction, Value, Value], Value]  # whole registers, of 64 or 128 bits

AVX_STATE, AVX512_STATE = 0x06, 0xE6  # bits of XCR0: SSE and AVX; opmask and both parts of ZMM beside (SDM 1, 13.3)
FSW_ES, FSW_TOP = 1 << 7, 7 << 11  # SDM 1, 8.1.3
MMX_EXPONENT = 0xFFFF  # sign and exponent of an x87 register after an MMX write (SDM 3, 12.2)


# ---- availability --------------------------------------------------------------------------------------------
def use_simd(i: Instruction) -> None:
    """May the instruction's encoding be used? Legacy: #UD without CR4.OSFXSR or with CR0.EM. VEX and EVEX: #UD without
    CR4.OSXSAVE or with part of the state off in XCR0; mask registers need what EVEX needs. Then #NM with CR0.TS (SDM 2,
    tables 2-17 to 2-24 and 2-48)."""
    mode = i.state(MODE)
    if i.form.space:
        masks = any(operand.kind == "mask" for operand in i.form.operands)
        state = AVX512_STATE if masks or i.form.space == "EVEX" else AVX_STATE
        i.fault_if((mode & NO_OSXSAVE).ne(0), UD)
        i.fault_if((i.state(XCR0) & state).ne(state), UD)
    else:
        i.fault_if((mode & (EMULATE_FPU | NO_OSFXSR)).ne(0), UD)
    i.fault_if((mode & TASK_SWITCHED).ne(0), NM)


def enter_mmx(s: State) -> int:
    """The x87 stack is taken over: TOP = 0 and all registers valid (SDM 3, 12.2). Mechanism."""
    s[FSW] = s[FSW] & ~FSW_TOP
    s[FTW] = 0xFF
    return 0


def check_mmx(i: Instruction) -> None:
    """#UD, #NM or a pending #MF."""
    mode, status = i.state(MODE), i.state(FSW)
    i.fault_if((mode & EMULATE_FPU).ne(0), UD)
    i.fault_if((mode & TASK_SWITCHED).ne(0), NM)
    i.fault_if((status & ~i.state(IGNNE) & FSW_ES).ne(0), MF)


def use_mmx(i: Instruction) -> None:
    """Check, and take the x87 stack over."""
    check_mmx(i)
    i.set_state(FSW, i.state(FSW) & ~FSW_TOP)
    i.set_state(FTW, i.const(0xFF, 64))


# ---- operands ------------------------------------------------------------------------------------------------
def source(i: Instruction, operand: Operand) -> Value:
    """Read an operand; one of 16 bytes in memory must be aligned in the legacy encoding."""
    if operand.is_memory and operand.size == 16 and not i.form.space:
        linear = i.address(operand, READ)
        i.require_aligned(linear, 16)
        return i.load(linear, 128)
    return i.read(operand)


def store_aligned(i: Instruction, operand: Operand, value: Value) -> None:
    """Write an operand, which must be aligned to its size in memory."""
    if operand.is_memory:
        i.require_aligned_operand(operand, WRITE)
    i.write(operand, value)


def write_narrower(i: Instruction, operand: Operand, value: Value) -> None:
    """Write a result that may be narrower than the register, the rest of which is cleared in every encoding."""
    i.write(operand, value if i.form.space else value.zext(operand.width))


def set_low(i: Instruction, operand: Operand, first: Value, value: Value) -> None:
    """Write the low bits of an XMM register; the others of the 128 come from the first source, which is the register
    itself in the legacy encoding."""
    if i.form.space:
        i.write(operand, ((first.trunc(128) >> value.width) << value.width) | value.zext(128))
    else:
        i.set_register(i.field(operand), value)


def set_mm(i: Instruction, operand: Operand, value: Value) -> None:
    """Write an MMX register, and with it the upper part of the x87 register that it lies in."""
    i.set_register(i.field(operand), i.join((value, i.const(MMX_EXPONENT, 64))))


# ---- lanes ---------------------------------------------------------------------------------------------------
def lanes(i: Instruction, value: Value, lane: int) -> list[Value]:
    """All lanes, lowest first."""
    return [i.lane(value, lane, number) for number in range(value.width // lane)]


def broadcast(i: Instruction, value: Value, width: int) -> Value:
    """A vector of `width` bits with the value in every lane."""
    return i.join([value] * (width // value.width))


def in_lanes(function: Vector) -> Vector:
    """The operation done on each 128 bits by themselves, as AVX has it."""

    def wide(i: Instruction, a: Value, b: Value) -> Value:
        if b.width <= 128:
            return function(i, a, b)
        return i.join([function(i, x, y) for x, y in zip(lanes(i, a, 128), lanes(i, b, 128), strict=True)])

    return wide


def each(lane: int, function: Binary) -> Vector:
    """The vector operation that does `function` in every lane."""
    return lambda i, a, b: i.map(lane, function, a, b)


def each_one(lane: int, function: Unary) -> Vector:
    """The same for a function of the source alone."""
    return lambda i, a, b: i.map(lane, function, b)


def clamp(value: Value, low: int, high: int) -> Value:
    """The nearest signed number between two."""
    value = value.slt(low).select(low, value)
    return value.slt(high).select(value, high)


def saturate_signed(value: Value, width: int) -> Value:
    """Narrow to `width` bits with signed saturation."""
    return clamp(value, -(1 << (width - 1)), (1 << (width - 1)) - 1).trunc(width)


def saturate_unsigned(value: Value, width: int) -> Value:
    """Narrow a signed number to `width` bits with unsigned saturation."""
    return clamp(value, 0, (1 << width) - 1).trunc(width)
