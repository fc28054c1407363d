"""MMX: 64-bit integer vectors in the x87 registers, with the additions that came with SSE, SSE2 and SSSE3."""

from __future__ import annotations

from pyemu.cpu import masked_store
from pyemu.cpu.instruction import WRITE, Instruction
from pyemu.cpu.ops import Operand, op
from pyemu.cpu.semantics import packed
from pyemu.cpu.semantics.vectors import FSW_TOP, Vector, check_mmx, enter_mmx, set_mm, use_mmx
from pyemu.cpu.state import FSW, FTW, RDI


# ---- operations of two operands -------------------------------------------------------------------------------
def binary(i: Instruction, dst: Operand, src: Operand, function: Vector) -> None:
    use_mmx(i)
    set_mm(i, dst, function(i, i.read(dst), i.read(src).zext(64)))


def shift_immediate(i: Instruction, dst: Operand, count: Operand, function: Vector) -> None:
    use_mmx(i)
    set_mm(i, dst, function(i, i.read(dst), i.read(count).zext(64)))


for _opcode, _name, _function in packed.BASIC:
    # the unpacks of low halves read 32 bits of memory only
    op(f"NP 0F {_opcode:02X} /r", "Pq,Qd" if _opcode < 0x63 else "Pq,Qq", name=_name, extra=(_function,))(binary)
for _opcode, _digit, _name, _function in packed.SHIFTS:
    op(f"NP 0F {_opcode:02X} /{_digit}", "Nq,Ib", name=_name, extra=(_function,))(shift_immediate)
for _opcode, _name, _function in packed.SUPPLEMENTAL:
    op(f"NP 0F 38 {_opcode:02X} /r", "Pq,Qq", name=_name, feature="ssse3", extra=(_function,))(binary)


# ---- moves ---------------------------------------------------------------------------------------------------
@op("NP W0 0F 6E /r", "Pq,Ed")
@op("NP W1 0F 6E /r", "Pq,Eq", name="movq")
@op("NP 0F 6F /r", "Pq,Qq", name="movq")
def movd(i: Instruction, dst: Operand, src: Operand) -> None:
    use_mmx(i)
    set_mm(i, dst, i.read(src).zext(64))


@op("NP W0 0F 7E /r", "Ed,Pq", name="movd")
@op("NP W1 0F 7E /r", "Eq,Pq", name="movq")
def movd_from(i: Instruction, dst: Operand, src: Operand) -> None:
    use_mmx(i)
    i.write(dst, i.read(src).trunc(dst.width))


@op("NP 0F 7F /r", "Qq,Pq", name="movq")
@op("NP 0F E7 /r", "Mq,Pq", name="movntq")
def movq_store(i: Instruction, dst: Operand, src: Operand) -> None:
    use_mmx(i)
    if dst.is_memory:
        i.write(dst, i.read(src))
    else:
        set_mm(i, dst, i.read(src))


@op("NP 0F 70 /r", "Pq,Qq,Ib", feature="sse")
def pshufw(i: Instruction, dst: Operand, src: Operand, order: Operand) -> None:
    use_mmx(i)
    value, control = i.read(src), i.read(order)
    set_mm(i, dst, i.join([i.lane(value, 16, control >> 2 * k) for k in range(4)]))


@op("NP 0F C4 /r", "Pq,Ew,Ib", feature="sse")
def pinsrw(i: Instruction, dst: Operand, src: Operand, index: Operand) -> None:
    use_mmx(i)
    at = (i.read(index) & 3).zext(64) << 4
    cleared = i.read(dst) & ~(i.const(0xFFFF, 64) << at)
    set_mm(i, dst, cleared | (i.read(src).zext(64) << at))


@op("NP 0F C5 /r", "Gd,Nq,Ib", feature="sse")
def pextrw(i: Instruction, dst: Operand, src: Operand, index: Operand) -> None:
    use_mmx(i)
    i.write(dst, i.lane(i.read(src), 16, i.read(index)).zext(32))


@op("NP 0F D7 /r", "Gd,Nq", feature="sse")
def pmovmskb(i: Instruction, dst: Operand, src: Operand) -> None:
    use_mmx(i)
    i.write(dst, i.map(8, lambda x: x.sign(), i.read(src)).zext(32))


@op("NP 0F F7 /r", "Pq,Nq", feature="sse")
def maskmovq(i: Instruction, src: Operand, mask: Operand) -> None:
    check_mmx(i)
    i.call(enter_mmx)  # also if the store faults
    linear = i.linear(i.wrap_address(i.gpr(RDI, 64)), 8, WRITE)
    i.call(masked_store.store_bytes, linear, 8, i.read(src), 0, i.map(8, lambda x: x.sign(), i.read(mask)))


@op("NP 0F 3A 0F /r", "Pq,Qq,Ib", feature="ssse3")
def palignr(i: Instruction, dst: Operand, src: Operand, count: Operand) -> None:
    use_mmx(i)
    both = i.join((i.read(src), i.read(dst)))
    set_mm(i, dst, (both >> (i.read(count).zext(128) << 3)).trunc(64))


@op("NP 0F 77")
def emms(i: Instruction) -> None:
    check_mmx(i)
    i.set_state(FSW, i.state(FSW) & ~FSW_TOP)  # as on Zen 4; the SDM leaves TOP alone
    i.set_state(FTW, i.const(0, 64))
