"""Jumps, calls, returns, loops and software interrupts.

Near targets are cut to the operand size and checked before anything is pushed. Far transfers are mechanism
(far_transfers.py, interrupts.py): they write CS:RIP themselves.
"""

from __future__ import annotations

from typing import Any

from pyemu.cpu import far_transfers, flag_changes, interrupts
from pyemu.cpu import iret as return_from_interrupt
from pyemu.cpu.decode import record as rc
from pyemu.cpu.faults import BP, BR, DB
from pyemu.cpu.instruction import GP, READ, STACK_ACCESS, UD, Instruction
from pyemu.cpu.ops import Operand, op
from pyemu.cpu.semantics.rows import CONDITIONS, near
from pyemu.cpu.semantics.segment import far_pointer
from pyemu.cpu.state import GPR, RCX, RSP
from pyemu.cpu.values import Value


# ---- near ----------------------------------------------------------------------------------------------------
@near("E9", "Jz", name="jmp")
@near("EB", "Jb", name="jmp")
def jmp(i: Instruction, target: Operand) -> None:
    i.jump_relative()


def jcc(i: Instruction, target: Operand, code: int) -> None:
    i.jump_relative(i.condition(code))


for _code, _name in enumerate(CONDITIONS):
    near(f"{0x70 + _code:02X}", "Jb", name=f"j{_name}", flags="r", extra=(_code,))(jcc)
    near(f"0F {0x80 + _code:02X}", "Jz", name=f"j{_name}", flags="r", extra=(_code,))(jcc)


@near("FF /4", "Ev", name="jmp")
def jmp_operand(i: Instruction, target: Operand) -> None:
    offset = i.read(target).zext(64)
    i.fault_if(i.bad_target(offset), GP)
    i.jump(offset)


def _call(i: Instruction, target: Value) -> None:
    i.fault_if(i.bad_target(target), GP)
    i.push(i.next_rip().trunc(i.width))
    i.jump(target)


@near("E8", "Jz")
def call(i: Instruction, target: Operand) -> None:
    _call(i, i.narrow_rip(i.next_rip() + i.record_word(rc.IMM)))


@near("FF /2", "Ev", name="call")
def call_operand(i: Instruction, target: Operand) -> None:
    _call(i, i.read(target).zext(64))


@near("C3")
@near("C2", "Iw")
def ret(i: Instruction, *release: Operand) -> None:
    target = i.load(i.stack_linear(0, i.size, READ), i.width, STACK_ACCESS).zext(64)
    i.fault_if(i.bad_target(target), GP)
    extra = i.read(release[0]).zext(64) if release else i.const(0, 64)
    i.set_stack(i.gpr(RSP, 64) + i.size + extra)
    i.jump(target)


# ---- loops: the counter is as wide as an address ----------------------------------------------------------------
def _count_down(i: Instruction) -> Value:
    """Decrement the counter; true if it is not 0 then."""
    old = i.gpr(RCX, 64)
    count = i.wrap_address(old - 1)
    word = i.record_field(rc.PACKED, rc.ADDRESS_SIZE, 8).eq(2)
    i.set_state(GPR + RCX, word.select(old & ~0xFFFF, 0) | count)
    return count.ne(0)


@near("E2", "Jb")
def loop(i: Instruction, target: Operand) -> None:
    i.jump_relative(_count_down(i))


@near("E1", "Jb", flags="r")
def loope(i: Instruction, target: Operand) -> None:
    i.jump_relative(_count_down(i) & i.zf())


@near("E0", "Jb", flags="r")
def loopne(i: Instruction, target: Operand) -> None:
    i.jump_relative(_count_down(i) & ~i.zf())


@near("E3", "Jb")
def jrcxz(i: Instruction, target: Operand) -> None:
    i.jump_relative(i.wrap_address(i.gpr(RCX, 64)).eq(0))


# ---- far and software interrupts: mechanism leaves the new RIP in VALUE -----------------------------------------
FAR: dict[str, Any] = {"ends_block": True, "sets_rip": True}


def _pointer(i: Instruction, target: Operand) -> tuple[Value, Value]:
    """Selector and offset of a far pointer, in the instruction or in memory."""
    if target.kind == "far":
        return i.record_word(rc.IMM2).trunc(16), i.record_word(rc.IMM).trunc(i.width)
    return far_pointer(i, target)


@op("EA", "Ap", modes="legacy", name="jmpf", **FAR)
@op("FF /5", "Mp", name="jmpf", **FAR)
def jmp_far(i: Instruction, target: Operand) -> None:
    i.call(far_transfers.far_jump, *_pointer(i, target), i.size, i.next_rip())
    i.jump(i.value())


@op("9A", "Ap", modes="legacy", name="callf", **FAR)
@op("FF /3", "Mp", name="callf", **FAR)
def call_far(i: Instruction, target: Operand) -> None:
    i.call(far_transfers.far_call, *_pointer(i, target), i.size, i.next_rip())
    i.jump(i.value())


@op("CB", sizes=(2, 4, 8), **FAR)
@op("CA", "Iw", sizes=(2, 4, 8), **FAR)
def retf(i: Instruction, *release: Operand) -> None:
    i.call(far_transfers.far_return, i.size, i.read(release[0]) if release else 0)
    i.jump(i.value())


@op("CF", sizes=(2, 4, 8), flags="m", **FAR)
def iret(i: Instruction) -> None:
    i.call(return_from_interrupt.iret, i.size, i.next_rip())
    i.jump(i.value())


def _interrupt(i: Instruction, vector: Value | int, kind: int) -> None:
    i.call(interrupts.software_interrupt, vector, kind, i.next_rip())
    i.jump(i.value())


@op("CD", "Ib", name="int", flags="r", **FAR)
def int_(i: Instruction, vector: Operand) -> None:
    _interrupt(i, i.read(vector), interrupts.SOFTWARE)


@op("CC", flags="r", **FAR)
def int3(i: Instruction) -> None:
    _interrupt(i, BP, interrupts.TRAP_INSTRUCTION)


@op("F1", flags="r", **FAR)
def icebp(i: Instruction) -> None:
    _interrupt(i, DB, interrupts.ICEBP)


@op("CE", flags="r", modes="legacy", ends_block=True)
def into(i: Instruction) -> None:
    i.call(flag_changes.into, i.of(), i.next_rip())
    i.jump(i.value())


@op("62 /r", "Gv,Ma", modes="legacy")
def bound(i: Instruction, index: Operand, bounds: Operand) -> None:
    value, linear = i.read(index), i.address(bounds)
    lower, upper = i.load(linear, i.width), i.load(linear + i.size, i.width)
    i.fault_if(value.slt(lower) | upper.slt(value), BR)


@op("0F FF /r", "E", name="ud0", ends_block=True)
@op("0F B9 /r", "E", name="ud1", ends_block=True)
@op("0F 0B", name="ud2", ends_block=True)
def undefined(i: Instruction, *operands: Operand) -> None:
    i.fault(UD)
