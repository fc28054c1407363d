"""Segment registers, descriptors and descriptor tables: rows over segments.py and descriptors.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyemu.cpu import descriptors, segments
from pyemu.cpu.instruction import GP, READ, UD, WRITE, Instruction
from pyemu.cpu.mode import CR4_FSGSBASE
from pyemu.cpu.ops import Operand, op
from pyemu.cpu.semantics.rows import stacked
from pyemu.cpu.state import (
    CR4,
    DS,
    ES,
    FS,
    GS,
    ICOUNT,
    LINEAR_TOP_MAX,
    SEG_BASE,
    SEG_SEL,
    SHADOW,
    SS,
    STACK_SHADOW,
    State,
)
from pyemu.cpu.values import Value

MECHANISM: dict[str, Any] = {"ends_block": True}


def selector(i: Instruction, operand: Operand) -> Value:
    """The selector in the segment register that an operand names."""
    known = [i.state(SEG_SEL + number, 16) for number in range(6)]
    return i.lane(i.join([*known, known[DS], known[DS]]), 16, i.number(operand))


def shadow_after_stack_load(i: Instruction, number: Value) -> None:
    """Neither interrupt nor debug trap between a load of SS and the next instruction, unless that one is in such a
    shadow itself (SDM 3, 6.8.3)."""
    now, before, until = i.state(ICOUNT), i.state(STACK_SHADOW), i.state(ICOUNT) + 2
    starts = number.eq(SS) & before.ule(now)
    i.set_state(SHADOW, starts.select(until, i.state(SHADOW)))
    i.set_state(STACK_SHADOW, starts.select(until, before))


# ---- loads and stores of selectors ----------------------------------------------------------------------------
@op("8C /r", "Rv,Sw", name="mov")
@op("8C /r", "Mw,Sw", name="mov")
def mov_from_segment(i: Instruction, dst: Operand, src: Operand) -> None:
    i.write(dst, selector(i, src).zext(dst.width))


@op("8E /r", "Sw,Ew", name="mov", **MECHANISM)
def mov_to_segment(i: Instruction, dst: Operand, src: Operand) -> None:
    number = i.number(dst)
    shadow_after_stack_load(i, number)
    i.call(segments.load_segment, number, i.read(src))


def push_segment(i: Instruction, src: Operand) -> None:
    i.push(i.state(SEG_SEL + src.number, 16).zext(i.width))


def pop_segment(i: Instruction, dst: Operand) -> None:
    shadow_after_stack_load(i, i.number(dst))
    i.call(segments.load_segment, dst.number, i.pop(i.width).trunc(16))


for _opcode, _name in ((0x06, "ES"), (0x0E, "CS"), (0x16, "SS"), (0x1E, "DS")):
    op(f"{_opcode:02X}", _name, name="push", modes="legacy", sizes=(2, 4))(push_segment)
    if _name != "CS":
        op(f"{_opcode + 1:02X}", _name, name="pop", modes="legacy", sizes=(2, 4), **MECHANISM)(pop_segment)
for _opcode, _name in ((0xA0, "FS"), (0xA8, "GS")):
    stacked(f"0F {_opcode:02X}", _name, name="push")(push_segment)
    stacked(f"0F {_opcode + 1:02X}", _name, name="pop", **MECHANISM)(pop_segment)


def far_pointer(i: Instruction, memory: Operand) -> tuple[Value, Value]:
    """Selector and offset in memory. One of 32 bits is two words as far as its alignment goes (SDM 3, table 6-7)."""
    if memory.width != 32:
        pointer = i.read(memory)
        return pointer.bits(i.width, 16), pointer.trunc(i.width)
    linear = i.address(memory)
    offset = i.load(linear, 16)
    return i.load(linear + 2, 16), offset


def load_far_pointer(i: Instruction, dst: Operand, src: Operand, segment: int) -> None:
    """LDS, LES, LFS, LGS and LSS."""
    selector, offset = far_pointer(i, src)
    i.write(dst, offset)
    i.call(segments.load_segment, segment, selector)


op("C4 /r", "Gv,Mp", name="les", modes="legacy", extra=(ES,), **MECHANISM)(load_far_pointer)
op("C5 /r", "Gv,Mp", name="lds", modes="legacy", extra=(DS,), **MECHANISM)(load_far_pointer)
op("0F B2 /r", "Gv,Mp", name="lss", extra=(SS,), **MECHANISM)(load_far_pointer)
op("0F B4 /r", "Gv,Mp", name="lfs", extra=(FS,), **MECHANISM)(load_far_pointer)
op("0F B5 /r", "Gv,Mp", name="lgs", extra=(GS,), **MECHANISM)(load_far_pointer)


# ---- looking at descriptors -----------------------------------------------------------------------------------
def look(i: Instruction, dst: Operand, src: Operand, function: Callable[[State, int], int]) -> None:
    """LAR and LSL: the result, if ZF says that there is one; else all of the destination stays."""
    i.call(function, i.read(src))
    result, found = i.split_value()
    field, zf = i.field(dst), found.bit(0)
    if dst.width == 32:
        i.set_register(field, zf.select(result.trunc(32).zext(64), i.register(field, 64)))
    else:
        i.write(dst, zf.select(result.trunc(dst.width), i.read(dst)))
    i.flags_only(zf=zf)


op("0F 02 /r", "Gv,Ew", name="lar", flags="m", extra=(descriptors.lar,))(look)
op("0F 03 /r", "Gv,Ew", name="lsl", flags="m", extra=(descriptors.lsl,))(look)


@op("0F 00 /4", "Ew", name="verr", flags="m", extra=(0,))
@op("0F 00 /5", "Ew", name="verw", flags="m", extra=(1,))
def verify(i: Instruction, src: Operand, write: int) -> None:
    i.call(descriptors.verify, i.read(src), write)
    i.flags_only(zf=i.split_value()[1].bit(0))


@op("63 /r", "Ew,Gw", flags="m", modes="legacy")
def arpl(i: Instruction, dst: Operand, src: Operand) -> None:
    i.call(descriptors.arpl, i.read(dst), i.read(src))
    result, changed = i.split_value()
    i.flags_only(zf=changed.bit(0))
    if dst.is_memory:  # a selector that stays is not written, so it may be where it could not be: 386 and Zen 4
        i.store_elements(dst, result.trunc(16), changed.bit(0))
    else:
        i.write(dst, result.trunc(16))


# ---- table registers --------------------------------------------------------------------------------------------
@op("0F 00 /0", "Rv", name="sldt", extra=(descriptors.sldt,))
@op("0F 00 /0", "Mw", name="sldt", extra=(descriptors.sldt,))
@op("0F 00 /1", "Rv", name="str", extra=(descriptors.str_,))
@op("0F 00 /1", "Mw", name="str", extra=(descriptors.str_,))
def store_selector(i: Instruction, dst: Operand, function: Callable[[State], int]) -> None:
    i.call(function)
    i.write(dst, i.value(16).zext(dst.width))


@op("0F 00 /2", "Ew", name="lldt", extra=(descriptors.lldt,), **MECHANISM)
@op("0F 00 /3", "Ew", name="ltr", extra=(descriptors.ltr,), **MECHANISM)
def load_selector(i: Instruction, src: Operand, function: Callable[[State, int], int]) -> None:
    i.call(descriptors.check_system)  # before a fault of the operand
    i.call(function, i.read(src))


def table(i: Instruction, memory: Operand, function: Callable[[State, int, int], int], access: int) -> None:
    """SGDT, SIDT, LGDT and LIDT: a limit of 2 bytes and a base of 4 or 8."""
    if access == READ:
        i.privileged()  # before a fault of the operand
    i.call(function, i.address(memory, access), i.size)


_TABLES: tuple[tuple[int, str, Callable[[State, int, int], int], int], ...] = (
    (0, "sgdt", descriptors.sgdt, WRITE),
    (1, "sidt", descriptors.sidt, WRITE),
    (2, "lgdt", descriptors.lgdt, READ),
    (3, "lidt", descriptors.lidt, READ),
)
for _digit, _name, _function, _access in _TABLES:
    _extra = (_function, _access)
    op(f"0F 01 /{_digit}", "Ms", name=_name, modes="64", force64=True, extra=_extra, **MECHANISM)(table)
    op(f"0F 01 /{_digit}", "Ms", name=_name, modes="legacy", extra=_extra, **MECHANISM)(table)


# ---- FS and GS base -----------------------------------------------------------------------------------------------
def _require_fsgsbase(i: Instruction) -> None:
    i.fault_if((i.state(CR4) & CR4_FSGSBASE).eq(0), UD)


def read_base(i: Instruction, dst: Operand, segment: int) -> None:
    _require_fsgsbase(i)
    i.write(dst, i.state(SEG_BASE + segment, dst.width))


def write_base(i: Instruction, src: Operand, segment: int) -> None:
    _require_fsgsbase(i)
    base = i.read(src).zext(64)
    i.fault_if((base.sar(i.state(LINEAR_TOP_MAX)) + 1).ult(2) ^ 1, GP)
    i.set_state(SEG_BASE + segment, base)


for _digit, _name, _segment in ((0, "fs", FS), (1, "gs", GS)):
    for _w, _operand in (("W0", "Rd"), ("W1", "Rq")):
        _static: dict[str, Any] = {"modes": "64", "feature": "fsgsbase", "extra": (_segment,)}
        op(f"F3 {_w} 0F AE /{_digit}", _operand, name=f"rd{_name}base", **_static)(read_base)
        op(f"F3 {_w} 0F AE /{_digit + 2}", _operand, name=f"wr{_name}base", **_static)(write_base)
