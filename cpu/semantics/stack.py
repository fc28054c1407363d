"""PUSH, POP and their relatives, stack frames, and the flags register on the stack."""

from __future__ import annotations

from pyemu.cpu import flag_changes, stack_frames, virtual8086
from pyemu.cpu import flags as fl
from pyemu.cpu.decode import record as rc
from pyemu.cpu.instruction import GP, READ, STACK_ACCESS, WRITE, Instruction
from pyemu.cpu.ops import Operand, op
from pyemu.cpu.semantics.rows import stacked
from pyemu.cpu.state import GPR, RBP, RSP
from pyemu.cpu.values import Value


@stacked("50+r", "Zv")
@stacked("FF /6", "Ev")
@stacked("68", "Iz")
@stacked("6A", "Ibs")
def push(i: Instruction, src: Operand) -> None:
    i.push(i.read(src))


@stacked("58+r", "Zv")
def pop(i: Instruction, dst: Operand) -> None:
    i.write(dst, i.pop(dst.width))  # after the stack pointer has moved, so that POP RSP keeps the popped value


@stacked("8F /0", "Ev", name="pop")
def pop_operand(i: Instruction, dst: Operand) -> None:
    value = i.pop(dst.width)
    if not dst.is_memory:
        i.write(dst, value)
        return
    # An address based on the stack pointer is computed after the pop (SDM 2, POP).
    base = i.record_field(rc.ADDRESS, rc.BASE, 16)
    offset = i.offset(dst) + base.eq(8 * (GPR + RSP)).select(i.const(dst.size, 64), 0)
    i.store(i.linear(i.wrap_address(offset), dst.size, WRITE), value)


def pusha(i: Instruction) -> None:
    size = i.size
    i.probe_write(i.stack_linear(-size, size, WRITE), size)  # eight stores span two pages at most
    i.probe_write(i.stack_linear(-8 * size, size, WRITE), size)
    for number in range(8):
        i.store(i.stack_linear(-size * (number + 1), size, WRITE), i.gpr(number))
    i.move_stack(-8 * size)


def popa(i: Instruction) -> None:
    size = i.size
    for number in reversed(range(8)):  # from the top of the stack: that is the fault that is seen
        if number != RSP:
            i.set_gpr(number, i.load(i.stack_linear(size * (7 - number), size, READ), i.width))
    i.move_stack(8 * size)


op("60", modes="legacy", sizes=(2, 4))(pusha)
op("61", modes="legacy", sizes=(2, 4))(popa)


# ---- frames --------------------------------------------------------------------------------------------------
@stacked("C8", "Iw,Ib2")
def enter(i: Instruction, frame: Operand, level: Operand) -> None:
    i.call(stack_frames.enter, i.size, i.read(frame), i.read(level) & 31)


@stacked("C9")
def leave(i: Instruction) -> None:
    pointer = i.gpr(RBP, 64)
    value = i.load(i.stack_linear_at(pointer, i.size, READ), i.width, STACK_ACCESS)
    i.set_stack(pointer + i.size)
    i.set_gpr(RBP, value)


# ---- flags ---------------------------------------------------------------------------------------------------
def _check_virtual_8086(i: Instruction) -> Value:
    """PUSHF and POPF in virtual-8086 mode need IOPL 3, or for 16 bits VME (SDM 3, 20.2.8): true for the latter."""
    refused = virtual8086.v86_refused(i)
    i.unlikely(refused)
    virtual = refused & virtual8086.extended(i) if i.size == 2 else i.const(0, 1)
    i.fault_if(refused & ~virtual, GP)
    return virtual


@stacked("9C", flags="r")
def pushf(i: Instruction) -> None:
    virtual = _check_virtual_8086(i)
    word = fl.image(i) & ~(fl.VM | fl.RF)
    vif = fl.place((word & fl.VIF).ne(0), fl.IF)
    i.push(virtual.select((word & ~fl.IF) | fl.IOPL | vif, word).trunc(i.width))


@stacked("9D", flags="m", ends_block=True)
def popf(i: Instruction) -> None:
    _check_virtual_8086(i)
    image = i.pop(i.width)
    i.call(flag_changes.popf, image, i.size)
