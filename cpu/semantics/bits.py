"""Bit tests, bit scans and counts, byte swap."""

from __future__ import annotations

from collections.abc import Callable

from pyemu.cpu import flags as fl
from pyemu.cpu.instruction import READ, WRITE, Instruction
from pyemu.cpu.ops import Operand, op
from pyemu.cpu.state import CC_DST, CC_SRC
from pyemu.cpu.values import Value

Change = Callable[[Value, Value], Value]  # (operand, mask of the bit) -> new operand


def _bit_operand(
    i: Instruction, dst: Operand, number: Operand, access: int
) -> tuple[Value, Value, Callable[[Value], None]]:
    """The addressed word, the bit's number in it, and how to write the word back.

    A register bit number may address memory far from the operand: bytes at word offset * size, signed (SDM 2, BT).
    """
    bit = i.read(number)
    within = (bit & (dst.width - 1)).resize(dst.width)
    if not dst.is_memory:
        return i.read(dst), within, lambda v: i.write(dst, v)
    offset = i.offset(dst)
    if number.kind == "reg":
        shift = dst.width.bit_length() - 1
        offset = i.wrap_address(offset + ((bit.sext(64).sar(shift)) << (shift - 3)))
    linear = i.linear(offset, dst.size, access)
    return i.load(linear, dst.width, access), within, lambda v: i.store(linear, v)


def bt(i: Instruction, dst: Operand, number: Operand) -> None:
    word, bit, _ = _bit_operand(i, dst, number, READ)
    i.flags_only(cf=word.bit(bit))


def change_bit(i: Instruction, dst: Operand, number: Operand, change: Change) -> None:
    """BTS, BTR and BTC."""
    word, bit, write = _bit_operand(i, dst, number, WRITE)
    write(change(word, i.const(1, dst.width) << bit))
    i.flags_only(cf=word.bit(bit))


op("0F A3 /r", "Ev,Gv", flags="m", undefined="OSAP")(bt)
op("0F BA /4", "Ev,Ib", flags="m", undefined="OSAP")(bt)
_CHANGES: tuple[tuple[str, int, int, Change], ...] = (
    ("bts", 0xAB, 5, lambda word, mask: word | mask),
    ("btr", 0xB3, 6, lambda word, mask: word & ~mask),
    ("btc", 0xBB, 7, lambda word, mask: word ^ mask),
)
for _name, _opcode, _digit, _change in _CHANGES:
    for _encoding, _operands in ((f"0F {_opcode:02X} /r", "Ev,Gv"), (f"0F BA /{_digit}", "Ev,Ib")):
        op(_encoding, _operands, name=_name, flags="m", undefined="OSAP", lock=True, extra=(_change,))(change_bit)


def _scan(i: Instruction, dst: Operand, source: Value, found: Value) -> None:
    """Write the index that a scan found; a source of 0 leaves the destination as it was, all 64 bits of it.

    PF is the index's parity, which the SDM leaves undefined as the other flags that are cleared."""
    if dst.width == 32:
        i.set_register(i.field(dst), source.eq(0).select(i.register(i.field(dst), 64), found.zext(64)))
    else:
        i.write(dst, source.eq(0).select(i.read(dst), found))
    i.set_state(CC_DST, source.eq(0).select(i.const(0, 64), found.zext(64) | 0x100))  # bit 8 keeps ZF off
    i.set_state(CC_SRC, i.const(0, 64))


@op("0F BC /r", "Gv,Ev", flags="w", undefined="OSAPC")
def bsf(i: Instruction, dst: Operand, src: Operand) -> None:
    source = i.read(src)
    _scan(i, dst, source, source.cttz())


@op("0F BD /r", "Gv,Ev", flags="w", undefined="OSAPC")
def bsr(i: Instruction, dst: Operand, src: Operand) -> None:
    source = i.read(src)
    _scan(i, dst, source, i.const(source.width - 1, source.width) - source.ctlz())


@op("F3 0F B8 /r", "Gv,Ev", flags="w", feature="popcnt")
def popcnt(i: Instruction, dst: Operand, src: Operand) -> None:
    source = i.read(src)
    i.write(dst, source.ctpop())
    # ZF alone: parity is even for a result of 0 and has to be inverted, and odd for the 1 that stands for any other
    i.set_state(CC_DST, source.ne(0).zext(64))
    i.set_state(CC_SRC, fl.place(source.eq(0), fl.PF))


def _count(i: Instruction, dst: Operand, source: Value, count: Value) -> None:
    """LZCNT and TZCNT: CF for a source of 0, ZF for a count of 0; OF stays, the others are cleared."""
    i.write(dst, count)
    i.set_state(CC_DST, count.ne(0).zext(64))  # as for POPCNT
    carry = fl.place(source.eq(0), fl.CF) | fl.place(count.eq(0), fl.PF)
    i.set_state(CC_SRC, carry | (i.state(CC_SRC) & fl.CARRY_OF))


@op("F3 0F BD /r", "Gv,Ev", flags="m", undefined="OSAP", feature="abm", prefix_ignored=True)
def lzcnt(i: Instruction, dst: Operand, src: Operand) -> None:
    source = i.read(src)
    _count(i, dst, source, source.ctlz())


@op("F3 0F BC /r", "Gv,Ev", flags="m", undefined="OSAP", feature="bmi1", prefix_ignored=True)
def tzcnt(i: Instruction, dst: Operand, src: Operand) -> None:
    source = i.read(src)
    _count(i, dst, source, source.cttz())


@op("0F C8+r", "Zv")
def bswap(i: Instruction, dst: Operand) -> None:
    value = i.read(dst)
    i.write(dst, i.const(0, 16) if value.width == 16 else value.bswap())  # 16 bits: undefined, processors give 0
