"""Jumps, calls, returns, loops and software interrupts.

Near targets are cut to the operand size and checked before anything is pushed. Far transfers are mechanism
(far_transfers.py, interrupts.py): they write CS:RIP themselves.
"""

from __future__ import annotations

from pyemu.cpu import far_transfers, interrupts
from pyemu.cpu.decode import record as rc
from pyemu.cpu.instruction import GP, READ, Instruction
from pyemu.cpu.ops import Operand, op
from pyemu.cpu.semantics.rows import CONDITIONS, near
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
    target = i.load(i.stack_linear(0, i.size, READ), i.width).zext(64)
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
