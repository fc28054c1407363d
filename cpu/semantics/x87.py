"""The x87 family, opcodes D8-DF and 9B.

Rows over mechanism: fpu_unit.py for what works on the register stack, fpu_environment.py for its image in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyemu.cpu import fpu_environment as env
from pyemu.cpu import fpu_unit as unit
from pyemu.cpu import x87_operations as x87
from pyemu.cpu.decode import record as rc
from pyemu.cpu.fpu_state import BUSY, C2, ES, EXCEPTIONS
from pyemu.cpu.instruction import MF, NM, READ, STACK_ACCESS, WRITE, Instruction
from pyemu.cpu.mode import EMULATE_FPU, MONITOR_FPU, TASK_SWITCHED
from pyemu.cpu.ops import Operand, op
from pyemu.cpu.state import CS, FCS, FCW, FDP, FDS, FIP, FOP, FSW, IGNNE, MODE, SEG_SEL, SS, State
from pyemu.cpu.values import Value

ENVIRONMENT, REGISTERS = 7, 80  # words, bytes
STATUS_KEPT = 0x7F00  # what FNCLEX leaves


# ---- availability and pointers -------------------------------------------------------------------------------------
def available(i: Instruction) -> None:
    """#NM without an x87 to use (SDM 3, table 2-2)."""
    i.fault_if((i.state(MODE) & (EMULATE_FPU | TASK_SWITCHED)).ne(0), NM)


def pending(i: Instruction) -> None:
    """#MF for an unmasked exception of an earlier instruction."""
    i.fault_if((i.state(FSW) & ~i.state(IGNNE) & ES).ne(0), MF)


def wait(i: Instruction) -> None:
    """What waiting control instructions begin with."""
    available(i)
    pending(i)


def begin(i: Instruction) -> None:
    """What other instructions begin with: they also leave their address and their opcode."""
    wait(i)
    i.set_state(FIP, i.rip())
    i.set_state(FCS, i.state(SEG_SEL + CS))
    i.set_state(FOP, i.record_word(rc.IMM))


def point(i: Instruction, operand: Operand) -> Value:
    """The offset of a memory operand, which goes to FDP, and its selector to FDS."""
    offset = i.offset(operand)
    i.set_state(FDP, offset)
    i.set_state(FDS, i.state_at(i.record_field(rc.PACKED, rc.SEGMENT, 8) + SEG_SEL))
    return offset


def source(i: Instruction, operand: Operand) -> Value:
    """Read a memory operand."""
    return i.load(i.linear(point(i, operand), operand.size, READ), operand.width)


def destination(i: Instruction, operand: Operand) -> tuple[Value, Value]:
    """Linear address of a memory operand that mechanism will write, and the access flags."""
    return i.linear(point(i, operand), operand.size, WRITE), segment_access(i)


def segment_access(i: Instruction) -> Value:
    """STACK_ACCESS if the operand's segment is SS."""
    return i.record_field(rc.PACKED, rc.SEGMENT, 8).eq(SS).select(i.const(STACK_ACCESS, 64), 0)


def command_of(i: Instruction, command: int, register: Operand) -> Value:
    """A command word with the number of ST(n)."""
    return (i.number(register) << unit.N_SHIFT) | command


# ---- control -------------------------------------------------------------------------------------------------------
@op("9B")
def fwait(i: Instruction) -> None:
    both = TASK_SWITCHED | MONITOR_FPU
    i.fault_if((i.state(MODE) & both).eq(both), NM)
    pending(i)


@op("DB E3")
def fninit(i: Instruction) -> None:
    available(i)
    i.call(env.initialise)


@op("DB E2")
def fnclex(i: Instruction) -> None:
    available(i)
    i.set_state(FSW, i.state(FSW) & STATUS_KEPT)
    i.set_state(IGNNE, i.const(0, 64))


@op("DB E0", name="fneni")
@op("DB E1", name="fndisi")
@op("DB E4", name="fnsetpm")
def fn_ignored(i: Instruction) -> None:
    """Instructions of the 8087 and 80287 that have no function any more."""
    available(i)


@op("D9 D0")
def fnop(i: Instruction) -> None:
    begin(i)


@op("D9 /7", "Mw")
def fnstcw(i: Instruction, dst: Operand) -> None:
    available(i)
    i.write(dst, i.state(FCW, 16))


@op("DD /7", "Mw")
@op("DF E0", "AX")
def fnstsw(i: Instruction, dst: Operand) -> None:
    available(i)
    i.write(dst, i.state(FSW, 16))


@op("D9 /5", "Mw")
def fldcw(i: Instruction, src: Operand) -> None:
    wait(i)
    control = (i.read(src).zext(64) & env.CONTROL_MASK) | env.CONTROL_BIT_6
    status = i.state(FSW)
    unmasked = (status & ~control & EXCEPTIONS).ne(0)
    i.set_state(FCW, control)
    i.set_state(FSW, (status & ~(ES | BUSY)) | unmasked.select(i.const(ES | BUSY, 64), 0))


# ---- environment ---------------------------------------------------------------------------------------------------
Image = Callable[[State, int, int, int], int]
SIZES: dict[str, Any] = {"sizes": (2, 4, 8)}


@op("D9 /6", "M", name="fnstenv", extra=(env.fnstenv, available, 0, WRITE), **SIZES)
@op("D9 /4", "M", name="fldenv", extra=(env.fldenv, wait, 0, READ), **SIZES)
@op("DD /6", "M", name="fnsave", extra=(env.fnsave, available, REGISTERS, WRITE), **SIZES)
@op("DD /4", "M", name="frstor", extra=(env.frstor, wait, REGISTERS, READ), **SIZES)
def environment(
    i: Instruction, area: Operand, function: Image, check: Callable[[Instruction], None], more: int, access: int
) -> None:
    check(i)
    size = min(i.size, 4)  # REX.W changes nothing
    linear = i.address(area, access, size=ENVIRONMENT * size + more)
    i.call(function, linear, size, segment_access(i))


# ---- loads ---------------------------------------------------------------------------------------------------------
@op("D9 /0", "Md", extra=(unit.load_single,))
@op("DD /0", "Mq", extra=(unit.load_double,))
def fld(i: Instruction, src: Operand, function: Callable[[State, int], int]) -> None:
    begin(i)
    i.call(function, source(i, src))


@op("DF /0", "Mw")
@op("DB /0", "Md")
@op("DF /5", "Mq")
def fild(i: Instruction, src: Operand) -> None:
    begin(i)
    i.call(unit.load_integer, source(i, src), src.width)


@op("DB /5", "Mt", name="fld", extra=(unit.load,))
@op("DF /4", "Mt", name="fbld", extra=(unit.load_decimal,))
def fld80(i: Instruction, src: Operand, function: Callable[[State, int, int], int]) -> None:
    begin(i)
    bits = source(i, src)
    i.call(function, bits.trunc(64), bits.bits(64, 16))


@op("D9 C0+r", "T", name="fld")
def fld_register(i: Instruction, src: Operand) -> None:
    begin(i)
    i.call(unit.load_register, i.number(src))


def load_constant(i: Instruction, number: int) -> None:
    begin(i)
    i.call(unit.load_constant, number)


for _number, _name in enumerate(name for name, *_ in unit.CONSTANTS):
    op(f"D9 {0xE8 + _number:02X}", name=_name, extra=(_number,))(load_constant)


# ---- stores --------------------------------------------------------------------------------------------------------
def store(i: Instruction, dst: Operand, command: int) -> None:
    begin(i)
    linear, access = destination(i, dst)
    i.call(unit.store, linear, access, command, dst.size)


_POP = 1 << unit.POP_SHIFT
for _encoding, _operand, _name, _kind, _more in (
    ("D9 /2", "Md", "fst", x87.STORE + x87.SINGLE, 0),
    ("D9 /3", "Md", "fstp", x87.STORE + x87.SINGLE, _POP),
    ("DD /2", "Mq", "fst", x87.STORE + x87.DOUBLE, 0),
    ("DD /3", "Mq", "fstp", x87.STORE + x87.DOUBLE, _POP),
    ("DF /2", "Mw", "fist", x87.STORE + x87.INT16, 0),
    ("DF /3", "Mw", "fistp", x87.STORE + x87.INT16, _POP),
    ("DB /2", "Md", "fist", x87.STORE + x87.INT32, 0),
    ("DB /3", "Md", "fistp", x87.STORE + x87.INT32, _POP),
    ("DF /7", "Mq", "fistp", x87.STORE + x87.INT64, _POP),
    ("DF /6", "Mt", "fbstp", x87.STORE + x87.DECIMAL, _POP),
    ("DF /1", "Mw", "fisttp", x87.STORE_TRUNCATED + x87.INT16, _POP),
    ("DB /1", "Md", "fisttp", x87.STORE_TRUNCATED + x87.INT32, _POP),
    ("DD /1", "Mq", "fisttp", x87.STORE_TRUNCATED + x87.INT64, _POP),
):
    op(_encoding, _operand, name=_name, extra=(_kind | _more,))(store)


@op("DB /7", "Mt", name="fstp")
def fstp80(i: Instruction, dst: Operand) -> None:
    begin(i)
    i.call(unit.store_extended, *destination(i, dst))


@op("DD D0+r", "T", name="fst", extra=(0,))
@op("DD D8+r", "T", name="fstp", extra=(1,))
@op("DF D0+r", "T", name="fstp", extra=(1,))  # not documented by Intel, as the next
@op("DF D8+r", "T", name="fstp", extra=(1,))
def fst_register(i: Instruction, dst: Operand, pops: int) -> None:
    begin(i)
    i.call(unit.store_register, i.number(dst), pops)


@op("D9 D8+r", "T")
def fstp1(i: Instruction, dst: Operand) -> None:
    """Not documented by Intel."""
    begin(i)
    i.call(unit.store_register_unchecked, i.number(dst))


# ---- moves within the stack ----------------------------------------------------------------------------------------
@op("D9 C8+r", "T")
@op("DD C8+r", "T")  # not documented by Intel, as the next
@op("DF C8+r", "T")
def fxch(i: Instruction, other: Operand) -> None:
    begin(i)
    i.call(unit.exchange, i.number(other))


def fcmov(i: Instruction, src: Operand, code: int) -> None:
    begin(i)
    i.call(unit.move_if, i.number(src), i.condition(code))


for _base, _invert in (("DA", 0), ("DB", 1)):
    for _byte, _code, _names in (
        ("C0", 2, ("fcmovb", "fcmovnb")),
        ("C8", 4, ("fcmove", "fcmovne")),
        ("D0", 6, ("fcmovbe", "fcmovnbe")),
        ("D8", 10, ("fcmovu", "fcmovnu")),
    ):
        op(f"{_base} {_byte}+r", "T", name=_names[_invert], flags="r", feature="cmov", extra=(_code | _invert,))(fcmov)


@op("D9 E0", name="fchs", extra=(unit.SIGN, unit.SIGN))
@op("D9 E1", name="fabs", extra=(0, 0))
def set_sign(i: Instruction, keep: int, flip: int) -> None:
    begin(i)
    i.call(unit.set_sign, keep, flip)


@op("D9 E5")
def fxam(i: Instruction) -> None:
    begin(i)
    i.call(unit.examine)


@op("DD C0+r", "T", name="ffree", extra=(0,))
@op("DF C0+r", "T", name="ffreep", extra=(1,))
def ffree(i: Instruction, register: Operand, pops: int) -> None:
    begin(i)
    i.call(unit.free, i.number(register), pops)


@op("D9 F6", name="fdecstp", extra=(7,))
@op("D9 F7", name="fincstp", extra=(1,))
def rotate(i: Instruction, by: int) -> None:
    begin(i)
    i.call(unit.rotate, by)


# ---- arithmetic ----------------------------------------------------------------------------------------------------
def arithmetic_memory(i: Instruction, src: Operand, command: int) -> None:
    begin(i)
    i.call(unit.arithmetic, command, source(i, src))


def arithmetic_register(i: Instruction, other: Operand, command: int) -> None:
    begin(i)
    i.call(unit.arithmetic, command_of(i, command, other), 0)


_ARITHMETIC = (
    (x87.ADD, "add"), (x87.MUL, "mul"), (x87.SUB, "sub"), (x87.SUB_REVERSED, "subr"), (x87.DIV, "div"),
    (x87.DIV_REVERSED, "divr"),
)  # fmt: skip
_MEMORY = (
    ("D8", "Md", x87.SINGLE, "f"), ("DC", "Mq", x87.DOUBLE, "f"),
    ("DE", "Mw", x87.INT16, "fi"), ("DA", "Md", x87.INT32, "fi"),
)  # fmt: skip
_SWAPPED = {"sub": "subr", "subr": "sub", "div": "divr", "divr": "div"}  # how they are called with ST(n) as destination
for _digit, _stem in _ARITHMETIC:
    for _opcode, _operand, _kind, _prefix in _MEMORY:
        op(f"{_opcode} /{_digit}", _operand, name=_prefix + _stem, extra=(_digit | _kind << unit.KIND_SHIFT,))(
            arithmetic_memory
        )
    _byte, _to_n = f"{0xC0 + 8 * _digit:02X}+r", "f" + _SWAPPED.get(_stem, _stem)
    op(f"D8 {_byte}", "T", name="f" + _stem, extra=(_digit,))(arithmetic_register)
    op(f"DC {_byte}", "T", name=_to_n, extra=(_digit | unit.TO_N,))(arithmetic_register)
    op(f"DE {_byte}", "T", name=_to_n + "p", extra=(_digit | unit.TO_N | _POP,))(arithmetic_register)


def compute(i: Instruction, operation: int) -> None:
    begin(i)
    if operation in x87.PUSHING:
        i.call(unit.function_pushing, operation)
    else:
        two, pops = operation in x87.TAKING_TWO, operation in x87.POPPING
        i.call(unit.function, operation, int(two), int(pops), C2 if operation in x87.PARTIAL else 0)


for _number, _name in enumerate((
    "f2xm1", "fyl2x", "fptan", "fpatan", "fxtract", "fprem1", "", "", "fprem", "fyl2xp1", "fsqrt", "fsincos", "frndint",
    "fscale", "fsin", "fcos",
)):  # fmt: skip
    if _name:
        op(f"D9 {0xF0 + _number:02X}", name=_name, extra=(x87.FUNCTION + _number,))(compute)


# ---- comparisons ---------------------------------------------------------------------------------------------------
def compare_memory(i: Instruction, src: Operand, command: int) -> None:
    begin(i)
    i.call(unit.compare, command, source(i, src))


for _opcode, _operand, _kind, _prefix in _MEMORY:
    for _digit, _suffix, _more in ((2, "com", 0), (3, "comp", _POP)):
        op(
            f"{_opcode} /{_digit}", _operand, name=_prefix + _suffix,
            extra=(x87.COMPARE | _kind << unit.KIND_SHIFT | _more,),
        )(
            compare_memory
        )


@op("D8 D0+r", "T", name="fcom", extra=(x87.COMPARE,))
@op("D8 D8+r", "T", name="fcomp", extra=(x87.COMPARE | _POP,))
@op("DC D0+r", "T", name="fcom", extra=(x87.COMPARE,))  # these three are not documented by Intel
@op("DC D8+r", "T", name="fcomp", extra=(x87.COMPARE | _POP,))
@op("DE D0+r", "T", name="fcomp", extra=(x87.COMPARE | _POP,))
@op("DD E0+r", "T", name="fucom", extra=(x87.COMPARE_QUIET,))
@op("DD E8+r", "T", name="fucomp", extra=(x87.COMPARE_QUIET | _POP,))
def compare_register(i: Instruction, other: Operand, command: int) -> None:
    begin(i)
    i.call(unit.compare, command_of(i, command, other), 0)


@op("DE D9", name="fcompp", extra=(x87.COMPARE | 2 * _POP | 1 << unit.N_SHIFT,))
@op("DA E9", name="fucompp", extra=(2 * _POP | 1 << unit.N_SHIFT | x87.COMPARE_QUIET,))
@op("D9 E4", name="ftst", extra=(x87.COMPARE | unit.NOTHING << unit.KIND_SHIFT,))
def compare_fixed(i: Instruction, command: int) -> None:
    begin(i)
    i.call(unit.compare, command, 0)


@op("DB F0+r", "T", name="fcomi", extra=(x87.COMPARE,), flags="m", feature="cmov")
@op("DF F0+r", "T", name="fcomip", extra=(x87.COMPARE | _POP,), flags="m", feature="cmov")
@op("DB E8+r", "T", name="fucomi", extra=(x87.COMPARE_QUIET,), flags="m", feature="cmov")
@op("DF E8+r", "T", name="fucomip", extra=(x87.COMPARE_QUIET | _POP,), flags="m", feature="cmov")
def compare_to_flags(i: Instruction, other: Operand, command: int) -> None:
    begin(i)
    i.call(unit.compare_to_flags, command_of(i, command, other))
