"""Data movement: registers and memory, sign and zero extension, conditional moves, flag bits, and no-operations."""

from __future__ import annotations

from pyemu.cpu import flags as fl
from pyemu.cpu.instruction import READ, Instruction
from pyemu.cpu.ops import Operand, op
from pyemu.cpu.semantics.rows import CONDITIONS
from pyemu.cpu.state import FLAGS, RAX, RBX, RDX


@op("88 /r", "Eb,Gb")
@op("89 /r", "Ev,Gv")
@op("8A /r", "Gb,Eb")
@op("8B /r", "Gv,Ev")
@op("A0", "AL,Ob")
@op("A1", "rAX,Ov")
@op("A2", "Ob,AL")
@op("A3", "Ov,rAX")
@op("B0+r", "Zb,Ib")
@op("B8+r", "Zv,Iv")
@op("C6 /0", "Eb,Ib")
@op("C7 /0", "Ev,Iz")
def mov(i: Instruction, dst: Operand, src: Operand) -> None:
    i.write(dst, i.read(src))


@op("0F B6 /r", "Gv,Eb")
@op("0F B7 /r", "Gv,Ew")
def movzx(i: Instruction, dst: Operand, src: Operand) -> None:
    i.write(dst, i.read(src).resize(dst.width))


@op("0F BE /r", "Gv,Eb")
@op("0F BF /r", "Gv,Ew")
def movsx(i: Instruction, dst: Operand, src: Operand) -> None:
    i.write(dst, i.read(src).sext(dst.width))


@op("63 /r", "Gv,Ed", modes="64")
def movsxd(i: Instruction, dst: Operand, src: Operand) -> None:
    i.write(dst, i.read(src).sext(64).trunc(dst.width))


@op("8D /r", "Gv,M")
def lea(i: Instruction, dst: Operand, src: Operand) -> None:
    i.write(dst, i.offset(src).trunc(dst.width))


@op("NP 0F 38 F0 /r", "Gv,Mv", feature="movbe")  # not with F2, which makes CRC32 of it, or F3
@op("66 0F 38 F0 /r", "Gv,Mv", feature="movbe")
@op("NP 0F 38 F1 /r", "Mv,Gv", feature="movbe")
@op("66 0F 38 F1 /r", "Mv,Gv", feature="movbe")
def movbe(i: Instruction, dst: Operand, src: Operand) -> None:
    i.write(dst, i.read(src).bswap())


# ---- conditions ----------------------------------------------------------------------------------------------
def cmovcc(i: Instruction, dst: Operand, src: Operand, code: int) -> None:
    value = i.read(src)  # memory is read, and a 32-bit destination zero-extended, whatever the condition
    i.write(dst, i.condition(code).select(value, i.read(dst)))


def setcc(i: Instruction, dst: Operand, code: int) -> None:
    i.write(dst, i.condition(code).zext(8))


for _code, _name in enumerate(CONDITIONS):
    op(f"0F {0x40 + _code:02X} /r", "Gv,Ev", name=f"cmov{_name}", flags="r", extra=(_code,))(cmovcc)
    op(f"0F {0x90 + _code:02X} /r", "Eb", name=f"set{_name}", flags="r", extra=(_code,))(setcc)


# ---- the accumulator -----------------------------------------------------------------------------------------
@op("98", sizes=(2, 4, 8))
def cbw(i: Instruction) -> None:
    i.set_gpr(RAX, i.gpr(RAX, i.width // 2).sext(i.width))


@op("99", sizes=(2, 4, 8))
def cwd(i: Instruction) -> None:
    i.set_gpr(RDX, i.gpr(RAX).sar(i.width - 1))


@op("D7")
def xlat(i: Instruction) -> None:
    offset = i.wrap_address(i.gpr(RBX, 64) + i.gpr(RAX, 8).zext(64))
    i.set_gpr(RAX, i.load(i.linear(offset, 1, READ), 8))


@op("9F", flags="r")
def lahf(i: Instruction) -> None:
    i.set_gpr(RAX, i.join((i.gpr(RAX, 8), fl.image(i).trunc(8))))


@op("9E", flags="m")
def sahf(i: Instruction) -> None:
    ah = i.gpr(RAX, 16) >> 8
    i.flags_only(cf=ah.bit(0), pf=ah.bit(2), af=ah.bit(4), zf=ah.bit(6), sf=ah.bit(7))


@op("D6", modes="legacy", flags="r")
def salc(i: Instruction) -> None:
    """AL = all bits CF. The manuals leave it out; all processors have it."""
    i.set_gpr(RAX, i.cf().sext(8))


# ---- single flags --------------------------------------------------------------------------------------------
@op("F5", flags="rm")
def cmc(i: Instruction) -> None:
    i.flags_only(cf=~i.cf())


@op("F8", flags="m")
def clc(i: Instruction) -> None:
    i.flags_only(cf=i.const(0, 1))


@op("F9", flags="m")
def stc(i: Instruction) -> None:
    i.flags_only(cf=i.const(1, 1))


@op("FC")
def cld(i: Instruction) -> None:
    i.set_state(FLAGS, i.state(FLAGS) & ~fl.DF)


@op("FD")
def std(i: Instruction) -> None:
    i.set_state(FLAGS, i.state(FLAGS) | fl.DF)


# ---- nothing -------------------------------------------------------------------------------------------------
def nop(i: Instruction, *operands: Operand) -> None:
    """Long no-operations, hints and prefetches: no memory is touched and nothing can fault."""


op("90")(nop)
op("F3 90", name="pause")(nop)
op("0F 0D /r", "M", name="prefetchw")(nop)
for _opcode in range(0x18, 0x20):  # PREFETCHh, and hint space: ENDBR, CLDEMOTE and so on are no-operations here
    op(f"0F {_opcode:02X} /r", "E", name="prefetch" if _opcode == 0x18 else "nop")(nop)
