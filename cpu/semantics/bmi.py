"""BMI1 and BMI2: VEX-encoded instructions on general registers (LZCNT and TZCNT are in bits.py).

Flags that the SDM leaves undefined are what AMD's Zen 4 leaves: those of a logical operation, for BEXTR AF set and SF
cleared.
"""

from __future__ import annotations

from collections.abc import Callable

from pyemu.cpu import flags as fl
from pyemu.cpu.instruction import Instruction
from pyemu.cpu.ops import Operand, op
from pyemu.cpu.state import CC_DST, CC_SRC, RDX
from pyemu.cpu.values import Value

Unary = Callable[[Value], Value]


# ---- BMI1 -----------------------------------------------------------------------------------------------------
@op("VEX.LZ.0F38 F2 /r", "Gy,By,Ey", flags="w", undefined="AP", feature="bmi1")
def andn(i: Instruction, dst: Operand, inverted: Operand, src: Operand) -> None:
    result = ~i.read(inverted) & i.read(src)
    i.write(dst, result)
    i.flags_logic(result)


@op("VEX.LZ.0F38 F7 /r", "Gy,Ey,By", flags="w", undefined="SAP", feature="bmi1")
def bextr(i: Instruction, dst: Operand, src: Operand, control: Operand) -> None:
    """Bits 7-0 of the control are the first bit's number, 15-8 how many."""
    a, how = i.read(src), i.read(control)
    result = (a >> (how & 0xFF)) & _low_ones(i, (how >> 8) & 0xFF)
    i.write(dst, result)
    # bit 63 off keeps SF off; ZF needs another bit than the sign
    i.set_state(CC_DST, result.eq(0).select(i.const(0, 64), (result.zext(64) & 0xFF) | 0x100))
    i.set_state(CC_SRC, i.const(fl.AF, 64))


def _low_ones(i: Instruction, count: Value) -> Value:
    """As many low bits set; all for a count of the width or more."""
    return (i.const(1, count.width) << count) - 1


def lowest(i: Instruction, dst: Operand, src: Operand, function: Unary, carry_if_zero: bool) -> None:
    """BLSI, BLSMSK and BLSR."""
    a = i.read(src)
    result = function(a)
    i.write(dst, result)
    i.flags_set(result, a.eq(0) if carry_if_zero else a.ne(0), i.const(0, 1))


_LOWEST: tuple[tuple[int, str, Unary, bool], ...] = (
    (1, "blsr", lambda a: (a - 1) & a, True),
    (2, "blsmsk", lambda a: (a - 1) ^ a, True),
    (3, "blsi", lambda a: -a & a, False),
)
for _digit, _name, _function, _carry in _LOWEST:
    op(
        f"VEX.LZ.0F38 F3 /{_digit}", "By,Ey", name=_name, flags="w", undefined="AP", feature="bmi1",
        extra=(_function, _carry),
    )(lowest)  # fmt: skip


# ---- BMI2 -----------------------------------------------------------------------------------------------------
@op("VEX.LZ.0F38 F5 /r", "Gy,Ey,By", flags="w", undefined="AP", feature="bmi2")
def bzhi(i: Instruction, dst: Operand, src: Operand, control: Operand) -> None:
    a = i.read(src)
    count = i.read(control) & 0xFF
    result = a & _low_ones(i, count)
    i.write(dst, result)
    i.flags_set(result, i.const(a.width - 1, a.width).ult(count), i.const(0, 1))


@op("VEX.LZ.F2.0F38 F6 /r", "Gy,By,Ey", feature="bmi2")
def mulx(i: Instruction, high: Operand, low: Operand, src: Operand) -> None:
    """The high half is written last: it wins where both are one register."""
    width = src.width
    product = i.gpr(RDX, width).zext(2 * width) * i.read(src).zext(2 * width)
    i.write(low, product.trunc(width))
    i.write(high, product.bits(width, width))


@op("VEX.LZ.F2.0F3A F0 /r", "Gy,Ey,Ib", feature="bmi2")
def rorx(i: Instruction, dst: Operand, src: Operand, by: Operand) -> None:
    a = i.read(src)
    count = i.read(by).zext(a.width) & (a.width - 1)
    i.write(dst, (a >> count) | (a << (i.const(a.width, a.width) - count)))


def shift(i: Instruction, dst: Operand, src: Operand, by: Operand, function: Callable[[Value, Value], Value]) -> None:
    """SARX, SHLX and SHRX: no flags."""
    a = i.read(src)
    i.write(dst, function(a, i.read(by) & (a.width - 1)))


op("VEX.LZ.66.0F38 F7 /r", "Gy,Ey,By", name="shlx", feature="bmi2", extra=(lambda a, n: a << n,))(shift)
op("VEX.LZ.F2.0F38 F7 /r", "Gy,Ey,By", name="shrx", feature="bmi2", extra=(lambda a, n: a >> n,))(shift)
op("VEX.LZ.F3.0F38 F7 /r", "Gy,Ey,By", name="sarx", feature="bmi2", extra=(lambda a, n: a.sar(n),))(shift)


def moves(i: Instruction, mask: Value) -> list[Value]:
    """For each power of two, which bits have to go down by it to gather the bits of the mask at the low end; as each
    step leaves them. A bit moves by the number of zeros below it in the mask (Warren, Hacker's Delight, 7-4)."""
    steps = []
    distance = 1
    zeros = ~mask << 1  # bit k: the bit below bit k is none of the mask's
    while distance < mask.width:
        odd = zeros  # parity of the zeros below each bit
        by = 1
        while by < mask.width:
            odd = odd ^ (odd << by)
            by *= 2
        moving = odd & mask
        steps.append(moving)
        mask = (mask ^ moving) | (moving >> distance)
        zeros = zeros & ~odd
        distance *= 2
    return steps


@op("VEX.LZ.F3.0F38 F5 /r", "Gy,By,Ey", feature="bmi2")
def pext(i: Instruction, dst: Operand, src: Operand, selection: Operand) -> None:
    """The selected bits, gathered at the low end."""
    mask = i.read(selection)
    bits = i.read(src) & mask
    for k, moving in enumerate(moves(i, mask)):
        these = bits & moving
        bits = (bits ^ these) | (these >> (1 << k))
    i.write(dst, bits)


@op("VEX.LZ.F2.0F38 F5 /r", "Gy,By,Ey", feature="bmi2")
def pdep(i: Instruction, dst: Operand, src: Operand, selection: Operand) -> None:
    """The low bits, spread to the selected places: the steps of PEXT, backwards."""
    mask = i.read(selection)
    bits = i.read(src)
    for k, moving in reversed(list(enumerate(moves(i, mask)))):
        bits = (bits & ~moving) | ((bits << (1 << k)) & moving)
    i.write(dst, bits & mask)
