"""Multiplication and division, and their overflow into #DE.

Flags that the SDM leaves undefined are what AMD's Zen 4 leaves: multiplication keeps SF, ZF, AF and PF, division keeps
CF and OF, clears SF, ZF and PF and sets AF.
"""

from __future__ import annotations

from pyemu.cpu.instruction import DE, Instruction
from pyemu.cpu.ops import Operand, op
from pyemu.cpu.state import RAX, RDX
from pyemu.cpu.values import Value


def _wide(i: Instruction, width: int) -> Value:
    """rDX:rAX, or AX for bytes."""
    return i.gpr(RAX, 16) if width == 8 else i.join((i.gpr(RAX, width), i.gpr(RDX, width)))


def _set_wide(i: Instruction, low: Value, high: Value) -> None:
    """Write rDX:rAX, or AX for bytes."""
    if low.width == 8:
        i.set_gpr(RAX, i.join((low, high)))
    else:
        i.set_gpr(RAX, low)
        i.set_gpr(RDX, high)


@op("F6 /4", "Eb", flags="m", undefined="SZAP")
@op("F7 /4", "Ev", flags="m", undefined="SZAP")
def mul(i: Instruction, src: Operand) -> None:
    width = src.width
    product = i.gpr(RAX, width).zext(2 * width) * i.read(src).zext(2 * width)
    low, high = product.trunc(width), product.bits(width, width)
    _set_wide(i, low, high)
    i.flags_only(cf=high.ne(0), of=high.ne(0))


@op("F6 /5", "Eb", flags="m", undefined="SZAP", name="imul")
@op("F7 /5", "Ev", flags="m", undefined="SZAP", name="imul")
def imul1(i: Instruction, src: Operand) -> None:
    width = src.width
    product = i.gpr(RAX, width).sext(2 * width) * i.read(src).sext(2 * width)
    low = product.trunc(width)
    _set_wide(i, low, product.bits(width, width))
    lost = product.ne(low.sext(2 * width))
    i.flags_only(cf=lost, of=lost)


def _imul(i: Instruction, dst: Operand, a: Value, b: Value) -> None:
    product = a.sext(2 * a.width) * b.sext(2 * a.width)
    low = product.trunc(a.width)
    i.write(dst, low)
    lost = product.ne(low.sext(2 * a.width))
    i.flags_only(cf=lost, of=lost)


@op("0F AF /r", "Gv,Ev", flags="m", undefined="SZAP", name="imul")
def imul2(i: Instruction, dst: Operand, src: Operand) -> None:
    _imul(i, dst, i.read(dst), i.read(src))


@op("69 /r", "Gv,Ev,Iz", flags="m", undefined="SZAP", name="imul")
@op("6B /r", "Gv,Ev,Ibs", flags="m", undefined="SZAP", name="imul")
def imul3(i: Instruction, dst: Operand, a: Operand, b: Operand) -> None:
    _imul(i, dst, i.read(a), i.read(b))


def _division_flags(i: Instruction) -> None:
    zero = i.const(0, 1)
    i.flags_only(sf=zero, zf=zero, pf=zero, af=i.const(1, 1))


@op("F6 /6", "Eb", flags="m", undefined="OSZAPC")
@op("F7 /6", "Ev", flags="m", undefined="OSZAPC")
def div(i: Instruction, src: Operand) -> None:
    divisor = i.read(src)
    dividend, width = _wide(i, divisor.width), divisor.width
    i.fault_if(divisor.ule(dividend.bits(width, width)), DE)  # the quotient has more than `width` bits, or divisor 0
    long = divisor.zext(2 * width)
    _set_wide(i, dividend.udiv(long).trunc(width), dividend.urem(long).trunc(width))
    _division_flags(i)


@op("F6 /7", "Eb", flags="m", undefined="OSZAPC")
@op("F7 /7", "Ev", flags="m", undefined="OSZAPC")
def idiv(i: Instruction, src: Operand) -> None:
    divisor = i.read(src)
    dividend, width = _wide(i, divisor.width), divisor.width
    negative = dividend.sign() ^ divisor.sign()
    a = dividend.sign().select(-dividend, dividend)
    b = divisor.sign().select(-divisor, divisor)
    i.fault_if(b.ule(a.bits(width, width)), DE)
    quotient, rest = a.udiv(b.zext(2 * width)).trunc(width), a.urem(b.zext(2 * width)).trunc(width)
    most = i.const((1 << (width - 1)) - 1, width) + negative.zext(width)
    i.fault_if(most.ult(quotient), DE)
    _set_wide(i, negative.select(-quotient, quotient), dividend.sign().select(-rest, rest))
    _division_flags(i)
