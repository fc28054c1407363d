"""Shifts and rotates (SDM 2: SAL/SAR/SHL/SHR, RCL/RCR/ROL/ROR, SHLD, SHRD).

Counts are masked to 5 bits (6 for 64-bit operands); a masked count of 0 leaves all flags alone. Shifting by the width
or more gives 0 in the builder's arithmetic, and so does a "negative" count: that makes the formulas below total.
Flags that the SDM leaves undefined are what AMD's Zen 4 leaves: shifts set AF, and OF comes for all counts from the
result as it does for a count of 1.
"""

from __future__ import annotations

from collections.abc import Callable

from pyemu.cpu import flags as fl
from pyemu.cpu.instruction import Instruction
from pyemu.cpu.ops import Operand, op
from pyemu.cpu.state import CC_DST, CC_SRC
from pyemu.cpu.values import Value


def _count(i: Instruction, operand: Operand, width: int) -> Value:
    """The masked count, as wide as the operand."""
    return (i.read(operand) & (63 if width == 64 else 31)).resize(width)


def _but_one(i: Instruction, by: Operand, count: Value) -> Value:
    """The count less 1, by which the bit that goes to CF has been shifted to the edge."""
    less = count - 1
    return less if i.may_be_zero(by) else less & (63 if count.width == 64 else 31)


def _shift_flags(i: Instruction, by: Operand, count: Value, result: Value, cf: Value, of: Value) -> None:
    """All flags after a shift, unless the count is 0."""
    word = fl.place(cf, fl.CF) | fl.place(of, fl.CARRY_OF) | fl.AF
    result = result.sext(64)
    if i.may_be_zero(by):
        changed = count.ne(0)
        result, word = changed.select(result, i.state(CC_DST)), changed.select(word, i.state(CC_SRC))
    i.set_state(CC_DST, result)
    i.set_state(CC_SRC, word)


def _top_two_differ(value: Value) -> Value:
    """OF of the right shifts and rotates."""
    return value.sign() ^ value.bit(value.width - 2)


def _rotate_flags(i: Instruction, by: Operand, count: Value, cf: Value, of: Value) -> None:
    """CF and OF after a rotate, unless the count is 0."""
    if i.may_be_zero(by):
        changed = count.ne(0)
        cf, of = changed.select(cf, i.cf()), changed.select(of, i.of())
    i.flags_only(cf=cf, of=of)


def shl(i: Instruction, dst: Operand, by: Operand) -> None:
    a, write = i.modify(dst)
    count = _count(i, by, a.width)
    result, carry = a << count, (a << _but_one(i, by, count)).sign()
    write(result)
    _shift_flags(i, by, count, result, carry, carry ^ result.sign())


def shr(i: Instruction, dst: Operand, by: Operand) -> None:
    a, write = i.modify(dst)
    count = _count(i, by, a.width)
    result = a >> count
    write(result)
    _shift_flags(i, by, count, result, (a >> _but_one(i, by, count)).bit(0), _top_two_differ(result))


def sar(i: Instruction, dst: Operand, by: Operand) -> None:
    a, write = i.modify(dst)
    count = _count(i, by, a.width)
    result = a.sar(count)
    write(result)
    _shift_flags(i, by, count, result, a.sar(_but_one(i, by, count)).bit(0), i.const(0, 1))


def rol(i: Instruction, dst: Operand, by: Operand) -> None:
    a, write = i.modify(dst)
    count = _count(i, by, a.width)
    turn = count & (a.width - 1)
    result = (a << turn) | (a >> (-turn & (a.width - 1)))
    write(result)
    _rotate_flags(i, by, count, result.bit(0), result.bit(0) ^ result.sign())


def ror(i: Instruction, dst: Operand, by: Operand) -> None:
    a, write = i.modify(dst)
    count = _count(i, by, a.width)
    turn = count & (a.width - 1)
    result = (a >> turn) | (a << (-turn & (a.width - 1)))
    write(result)
    _rotate_flags(i, by, count, result.sign(), _top_two_differ(result))


def _count_through_carry(i: Instruction, operand: Operand, width: int) -> tuple[Value, Value]:
    """The count modulo the bits that turn, the operand's and CF; and the count itself."""
    count = _count(i, operand, width)
    return count.urem(width + 1) if width < 32 else count, count


def rcl(i: Instruction, dst: Operand, by: Operand) -> None:
    a, write = i.modify(dst)
    count, whole = _count_through_carry(i, by, a.width)
    carry = i.cf().zext(a.width)
    result = (a << count) | (carry << (count - 1)) | (a >> (i.const(a.width + 1, a.width) - count))
    write(result)
    out = count.eq(0).select(i.cf(), (a >> (i.const(a.width, a.width) - count)).bit(0))
    _rotate_flags(i, by, whole, out, out ^ result.sign())


def rcr(i: Instruction, dst: Operand, by: Operand) -> None:
    a, write = i.modify(dst)
    count, whole = _count_through_carry(i, by, a.width)
    carry = i.cf().zext(a.width)
    left = i.const(a.width, a.width) - count
    result = (a >> count) | (carry << left) | (a << (left + 1))
    write(result)
    out = count.eq(0).select(i.cf(), (a >> (count - 1)).bit(0))
    _rotate_flags(i, by, whole, out, _top_two_differ(result))


Shift = Callable[[Instruction, Operand, Operand], None]


def _group2(digit: int, function: Shift, undefined: str) -> None:
    """The six encodings of one operation of group 2; `undefined` without OF, which is defined for a count of 1 only."""
    reads = "r" if function in (rcl, rcr) else ""
    flags = reads + ("m" if function in (rol, ror, rcl, rcr) else "w")
    op(f"D0 /{digit}", "Eb,1", flags=flags, undefined=undefined)(function)
    op(f"D1 /{digit}", "Ev,1", flags=flags, undefined=undefined)(function)
    op(f"C0 /{digit}", "Eb,Ib", flags=flags + "c", undefined=undefined + "O")(function)
    op(f"C1 /{digit}", "Ev,Ib", flags=flags + "c", undefined=undefined + "O")(function)
    op(f"D2 /{digit}", "Eb,CL", flags=reads + "m", undefined=undefined + "O")(function)
    op(f"D3 /{digit}", "Ev,CL", flags=reads + "m", undefined=undefined + "O")(function)


_ROTATES: tuple[Shift, ...] = (rol, ror, rcl, rcr)
for _digit, _function in enumerate(_ROTATES):
    _group2(_digit, _function, "")
for _digit, _function in ((4, shl), (5, shr), (6, shl), (7, sar)):
    _group2(_digit, _function, "A")


def _double(i: Instruction, a: Value, b: Value, count: Value) -> tuple[Value, Value, Value]:
    """The two operands of a double shift and the count; one of 16 bits may be shifted by more, which the SDM leaves
    undefined: what is shifted in then is the second operand twice."""
    if a.width > 16:
        return a, b, count
    far = i.const(16, 16).ult(count)
    return far.select(b, a), b, far.select(count - 16, count)


@op("0F A4 /r", "Ev,Gv,Ib", flags="wc", undefined="OA")
@op("0F A5 /r", "Ev,Gv,CL", flags="m", undefined="OA")
def shld(i: Instruction, dst: Operand, src: Operand, by: Operand) -> None:
    a, write = i.modify(dst)
    whole = _count(i, by, a.width)
    first, second, count = _double(i, a, i.read(src), whole)
    left = i.const(a.width, a.width) - count
    result = (first << count) | (second >> left)
    write(result)
    carry = (a << _but_one(i, by, whole)).sign()
    _shift_flags(i, by, whole, result, carry, carry ^ (a << whole).sign())


@op("0F AC /r", "Ev,Gv,Ib", flags="wc", undefined="OA")
@op("0F AD /r", "Ev,Gv,CL", flags="m", undefined="OA")
def shrd(i: Instruction, dst: Operand, src: Operand, by: Operand) -> None:
    a, write = i.modify(dst)
    whole = _count(i, by, a.width)
    first, second, count = _double(i, a, i.read(src), whole)
    result = (first >> count) | (second << (i.const(a.width, a.width) - count))
    write(result)
    _shift_flags(i, by, whole, result, (a >> _but_one(i, by, whole)).bit(0), _top_two_differ(result))
