"""Integer addition, subtraction, logic, comparison and exchange, and the decimal adjustments (SDM 2, chapters 3-5).

Flags that the SDM leaves undefined are what AMD's Zen 4 leaves: logic clears AF; the adjustments set the flags of the
addition or subtraction that they consist of.
"""

from __future__ import annotations

from collections.abc import Callable

from pyemu.cpu import flags as fl
from pyemu.cpu.decode import record as rc
from pyemu.cpu.instruction import DE, WRITE, Instruction
from pyemu.cpu.ops import Operand, op
from pyemu.cpu.state import CC_DST, CC_SRC, GPR, RAX, RBX, RCX, RDX
from pyemu.cpu.values import Value


def add(i: Instruction, dst: Operand, src: Operand) -> None:
    a, write = i.modify(dst)
    b = i.read(src)
    result = a + b
    write(result)
    i.flags_add(a, b, result)


def or_(i: Instruction, dst: Operand, src: Operand) -> None:
    a, write = i.modify(dst)
    result = a | i.read(src)
    write(result)
    i.flags_logic(result)


def adc(i: Instruction, dst: Operand, src: Operand) -> None:
    a, write = i.modify(dst)
    b, carry = i.read(src), i.cf()
    result = a + b + carry.zext(a.width)
    write(result)
    i.flags_add(a, b, result, carry)


def sbb(i: Instruction, dst: Operand, src: Operand) -> None:
    a, write = i.modify(dst)
    b, borrow = i.read(src), i.cf()
    result = a - b - borrow.zext(a.width)
    write(result)
    i.flags_sub(a, b, result, borrow)


@op("66 0F 38 F6 /r", "Gy,Ey", flags="rm", feature="adx", name="adcx", extra=("cf",))
@op("F3 0F 38 F6 /r", "Gy,Ey", flags="rm", feature="adx", name="adox", extra=("of",))
def add_with_flag(i: Instruction, dst: Operand, src: Operand, flag: str) -> None:
    """Addition with a carry that only CF or only OF holds."""
    a, b = i.read(dst), i.read(src)
    carry = i.cf() if flag == "cf" else i.of()
    result = a + b + carry.zext(a.width)
    i.write(dst, result)
    i.flags_only(**{flag: result.ult(a) | (carry & result.eq(a))})


def and_(i: Instruction, dst: Operand, src: Operand) -> None:
    a, write = i.modify(dst)
    result = a & i.read(src)
    write(result)
    i.flags_logic(result)


def sub(i: Instruction, dst: Operand, src: Operand) -> None:
    a, write = i.modify(dst)
    b = i.read(src)
    result = a - b
    write(result)
    i.flags_sub(a, b, result)


def xor(i: Instruction, dst: Operand, src: Operand) -> None:
    a, write = i.modify(dst)
    result = a ^ i.read(src)
    write(result)
    i.flags_logic(result)


def cmp(i: Instruction, dst: Operand, src: Operand) -> None:
    a, b = i.read(dst), i.read(src)
    i.flags_sub(a, b, a - b)


def _eight_encodings(number: int, function: Callable[[Instruction, Operand, Operand], None]) -> None:
    """The rows that all eight operations have, at opcodes 8*number on and in group 1."""
    base, lock = 8 * number, function is not cmp
    flags = "rw" if function in (adc, sbb) else "w"
    undefined = "A" if function in (or_, and_, xor) else ""
    both = {"flags": flags, "undefined": undefined}
    op(f"{base:02X} /r", "Eb,Gb", lock=lock, **both)(function)
    op(f"{base + 1:02X} /r", "Ev,Gv", lock=lock, **both)(function)
    op(f"{base + 2:02X} /r", "Gb,Eb", **both)(function)
    op(f"{base + 3:02X} /r", "Gv,Ev", **both)(function)
    op(f"{base + 4:02X}", "AL,Ib", **both)(function)
    op(f"{base + 5:02X}", "rAX,Iz", **both)(function)
    op(f"80 /{number}", "Eb,Ib", lock=lock, **both)(function)
    op(f"81 /{number}", "Ev,Iz", lock=lock, **both)(function)
    op(f"82 /{number}", "Eb,Ib", lock=lock, modes="legacy", **both)(function)
    op(f"83 /{number}", "Ev,Ibs", lock=lock, **both)(function)


for _number, _function in enumerate((add, or_, adc, sbb, and_, sub, xor, cmp)):
    _eight_encodings(_number, _function)


@op("84 /r", "Eb,Gb", flags="w", undefined="A")
@op("85 /r", "Ev,Gv", flags="w", undefined="A")
@op("A8", "AL,Ib", flags="w", undefined="A")
@op("A9", "rAX,Iz", flags="w", undefined="A")
@op("F6 /0", "Eb,Ib", flags="w", undefined="A")
@op("F6 /1", "Eb,Ib", flags="w", undefined="A")
@op("F7 /0", "Ev,Iz", flags="w", undefined="A")
@op("F7 /1", "Ev,Iz", flags="w", undefined="A")
def test(i: Instruction, a: Operand, b: Operand) -> None:
    i.flags_logic(i.read(a) & i.read(b))


@op("FE /0", "Eb", flags="m", lock=True)
@op("FF /0", "Ev", flags="m", lock=True)
@op("40+r", "Zv", flags="m", modes="legacy")
def inc(i: Instruction, dst: Operand) -> None:
    a, write = i.modify(dst)
    result = a + 1
    write(result)
    i.flags_increment(a, result)


@op("FE /1", "Eb", flags="m", lock=True)
@op("FF /1", "Ev", flags="m", lock=True)
@op("48+r", "Zv", flags="m", modes="legacy")
def dec(i: Instruction, dst: Operand) -> None:
    a, write = i.modify(dst)
    result = a - 1
    write(result)
    i.flags_decrement(a, result)


@op("F6 /3", "Eb", flags="w", lock=True)
@op("F7 /3", "Ev", flags="w", lock=True)
def neg(i: Instruction, dst: Operand) -> None:
    a, write = i.modify(dst)
    write(-a)
    i.flags_sub(i.const(0, a.width), a, -a)


@op("F6 /2", "Eb", lock=True)
@op("F7 /2", "Ev", lock=True)
def not_(i: Instruction, dst: Operand) -> None:
    a, write = i.modify(dst)
    write(~a)


# ---- exchange ------------------------------------------------------------------------------------------------
@op("0F B0 /r", "Eb,Gb", flags="w", lock=True)
@op("0F B1 /r", "Ev,Gv", flags="w", lock=True)
def cmpxchg(i: Instruction, dst: Operand, src: Operand) -> None:
    old, write = i.modify(dst)
    new, expected = i.read(src), i.gpr(RAX, old.width)
    equal = old.eq(expected)
    # The loser of the comparison is not written at all, not even zero-extended.
    if old.width == 32:
        i.set_state(GPR + RAX, equal.select(i.gpr(RAX, 64), old.zext(64)))
    else:
        i.set_gpr(RAX, equal.select(expected, old))
    if dst.is_memory:
        write(equal.select(new, old))
    elif old.width == 32:
        i.set_register(rc.RM, equal.select(new.zext(64), i.register(rc.RM, 64)))
    else:
        # in this order: where dst is the accumulator, the comparison was equal
        write(equal.select(new, old))
    i.flags_sub(expected, old, expected - old)


@op("0F C0 /r", "Eb,Gb", flags="w", lock=True)
@op("0F C1 /r", "Ev,Gv", flags="w", lock=True)
def xadd(i: Instruction, dst: Operand, src: Operand) -> None:
    a, write = i.modify(dst)
    b = i.read(src)
    i.write(src, a)
    write(a + b)  # last: XADD of a register with itself leaves the sum
    i.flags_add(a, b, a + b)


@op("86 /r", "Eb,Gb", lock=True)
@op("87 /r", "Ev,Gv", lock=True)
@op("90+r", "Zv,rAX")  # 90 itself is NOP
def xchg(i: Instruction, a: Operand, b: Operand) -> None:
    old, write = i.modify(a)
    write(i.read(b))
    i.write(b, old)


def _compare_exchange_pair(i: Instruction, linear: Value, width: int) -> None:
    """[linear] of 2 * width bits against rDX:rAX; rCX:rBX replaces it or rDX:rAX becomes it."""
    old = i.load(linear, 2 * width, WRITE)
    low, high = old.trunc(width), old.bits(width, width)
    equal = low.eq(i.gpr(RAX, width)) & high.eq(i.gpr(RDX, width))
    i.store(linear, equal.select(i.join((i.gpr(RBX, width), i.gpr(RCX, width))), old))
    i.set_state(GPR + RAX, equal.select(i.gpr(RAX, 64), low.zext(64)))
    i.set_state(GPR + RDX, equal.select(i.gpr(RDX, 64), high.zext(64)))
    i.flags_only(zf=equal)


@op("W0 0F C7 /1", "Mq", flags="m", lock=True, feature="cx8")
def cmpxchg8b(i: Instruction, dst: Operand) -> None:
    _compare_exchange_pair(i, i.address(dst, WRITE), 32)


@op("W1 0F C7 /1", "Mdq", flags="m", lock=True, modes="64", feature="cx16")
def cmpxchg16b(i: Instruction, dst: Operand) -> None:
    linear = i.address(dst, WRITE)
    i.require_aligned(linear, 16)
    _compare_exchange_pair(i, linear, 64)


# ---- decimal adjustment (not in 64-bit mode) -----------------------------------------------------------------
def _decimal_flags(i: Instruction, result: Value, cf: Value, af: Value, of: Value) -> None:
    i.set_state(CC_DST, result.sext(64))
    i.set_state(CC_SRC, fl.place(cf, fl.CF) | fl.place(af, fl.AF) | fl.place(of, fl.CARRY_OF))


def _decimal_correction(i: Instruction, al: Value) -> tuple[Value, Value, Value]:
    """What DAA adds and DAS subtracts, whether the low and whether the high digit needs it."""
    low = i.const(9, 8).ult(al & 0xF) | i.af()
    high = i.const(0x99, 8).ult(al) | i.cf()
    return low.select(i.const(0x06, 8), 0) | high.select(i.const(0x60, 8), 0), low, high


@op("27", flags="rm", undefined="O", modes="legacy")
def daa(i: Instruction) -> None:
    al = i.gpr(RAX, 8)
    correction, low, high = _decimal_correction(i, al)
    result = al + correction
    i.set_gpr(RAX, result)
    _decimal_flags(i, result, high, low, (result & ~al).sign())


@op("2F", flags="rm", undefined="O", modes="legacy")
def das(i: Instruction) -> None:
    al = i.gpr(RAX, 8)
    correction, low, high = _decimal_correction(i, al)
    result = al - correction
    i.set_gpr(RAX, result)
    # subtracting 6 may itself borrow
    _decimal_flags(i, result, high | (low & al.ult(6)), low, (al & ~result).sign())


def _ascii_adjust(i: Instruction, sign: int) -> None:
    """AX plus or minus 106h, if needed; the flags are those of this 16-bit operation, before AL is cut to a digit."""
    ax = i.gpr(RAX, 16)
    adjust = i.const(9, 16).ult(ax & 0xF) | i.af()
    result = ax + adjust.select(i.const(sign * 0x106, 16), 0)
    i.set_gpr(RAX, result & 0xFF0F)
    overflow = (result & ~ax if sign > 0 else ax & ~result).sign()
    _decimal_flags(i, result, adjust, adjust, overflow)


@op("37", flags="rm", undefined="OSZP", modes="legacy")
def aaa(i: Instruction) -> None:
    _ascii_adjust(i, 1)


@op("3F", flags="rm", undefined="OSZP", modes="legacy")
def aas(i: Instruction) -> None:
    _ascii_adjust(i, -1)


@op("D4", "Ib", flags="w", undefined="OAC", modes="legacy")
def aam(i: Instruction, base: Operand) -> None:
    divisor, al = i.read(base), i.gpr(RAX, 8)
    i.fault_if(divisor.eq(0), DE)
    result = al.urem(divisor)
    i.set_gpr(RAX, i.join((result, al.udiv(divisor))))
    i.flags_logic(result)


@op("D5", "Ib", flags="w", undefined="OAC", modes="legacy")
def aad(i: Instruction, base: Operand) -> None:
    ax = i.gpr(RAX, 16)
    low, high = ax.trunc(8), ax.bits(8, 8) * i.read(base)
    result = low + high
    i.set_gpr(RAX, result.zext(16))
    i.flags_add(low, high, result)
