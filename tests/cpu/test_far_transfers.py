"""Far JMP, CALL and RET, call gates, and hardware task switches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pyemu.cpu import far_transfers as ft
from pyemu.cpu import flags as fl
from pyemu.cpu import interrupts as it
from pyemu.cpu import iret as ir
from pyemu.cpu import mode
from pyemu.cpu.faults import DF, GP, NP, TS, raise_fault
from pyemu.cpu.faults import SS as STACK_FAULT
from pyemu.cpu.state import (
    CPL,
    CR0,
    CS,
    DS,
    ES,
    FAULT_ERROR,
    FAULT_VECTOR,
    FLAGS,
    GPR,
    MODE,
    PENDING_DEBUG,
    RAX,
    RDI,
    RIP,
    RSP,
    SEG_ATTR,
    SEG_BASE,
    SEG_SEL,
    SS,
    TR_SEL,
    VALUE,
)  # fmt: skip
from tests.cpu import system_setup as setup

Twin = Callable[[Any], Callable[..., int]]
NEXT = setup.CODE + 7


def fault(m: setup.Machine) -> tuple[int, int]:
    return m.s[FAULT_VECTOR], m.s[FAULT_ERROR]


def untouched(m: setup.Machine, make: Callable[[], setup.Machine]) -> bool:
    """Nothing architectural changed but accessed bits."""
    fresh = make()
    words = [RIP, CPL, FLAGS, MODE, *range(GPR, GPR + 16), *range(SEG_SEL, SEG_SEL + 24)]
    return [m.s[n] for n in words] == [fresh.s[n] for n in words] and m.ram[0x3000:0xE000] == fresh.ram[0x3000:0xE000]


# ---- JMP -------------------------------------------------------------------------------------------------------
def test_real_mode_jump(twin: Twin) -> None:
    m = setup.real()
    assert twin(ft.far_jump)(m.s, 0xF000, 0x1FFF0, 2, NEXT) == 0  # the offset is cut to the operand size
    assert (m.s[SEG_SEL + CS], m.s[SEG_BASE + CS], m.s[RIP], m.s[VALUE]) == (0xF000, 0xF0000, 0xFFF0, 0xFFF0)
    m = setup.real()
    assert twin(ft.far_jump)(m.s, 0xF000, 0x1FFF0, 4, NEXT) == 1
    assert fault(m) == (GP, 0)


def test_jump_into_protected_mode(twin: Twin) -> None:
    m = setup.real()
    setup.write_gdt(m, long=False)
    m.s[CR0] |= 1
    mode.update(m.s)
    assert not m.s[MODE] & mode.CODE32
    assert twin(ft.far_jump)(m.s, setup.CODE32, 0x12345, 4, NEXT) == 0
    assert (m.s[RIP], m.s[CPL]) == (0x12345, 0)
    assert m.s[MODE] & mode.CODE32


def test_jump_from_compatibility_to_64_bit_mode(twin: Twin) -> None:
    m = setup.compatibility()
    assert twin(ft.far_jump)(m.s, setup.CODE64, 0x12345, 4, NEXT) == 0
    assert m.s[MODE] & mode.CODE64
    assert (m.s[SEG_ATTR + CS], m.s[RIP]) == (0xA09B, 0x12345)


JUMPS: list[tuple[Callable[[], setup.Machine], int, int, tuple[int, int] | None]] = [
    (setup.protected, 0, 0, (GP, 0)),
    (setup.protected, setup.BEYOND, 0, (GP, setup.BEYOND)),
    (setup.protected, setup.DATA, 0, (GP, setup.DATA)),
    (setup.protected, setup.ABSENT_CODE, 0, (NP, setup.ABSENT_CODE)),
    (setup.protected, setup.CODE32 | 3, 0, (GP, setup.CODE32)),  # RPL above CPL
    (setup.protected, setup.USER_CODE32, 0, (GP, setup.USER_CODE32 & ~3)),
    (setup.protected, setup.CODE16, 0x10000, (GP, 0)),  # beyond the limit
    (setup.protected, setup.CODE16, 0xFFFF, None),
    (setup.protected_user, setup.CODE32, 0, (GP, setup.CODE32)),
    (setup.protected_user, setup.CONFORMING32, 0x10, None),
    (setup.protected_user, setup.EXECUTE_ONLY, 0x10, None),
    (setup.long, setup.CODE64, 1 << 47, (GP, 0)),
    (setup.long, setup.CODE32, 1 << 32, (GP, 0)),
    (setup.long, setup.BAD_CODE64, 0, (GP, setup.BAD_CODE64)),
    (setup.long, setup.TSS_OTHER_SELECTOR, 0, (GP, setup.TSS_OTHER_SELECTOR)),
    (setup.long, setup.TASK_GATE & ~3, 0, (GP, setup.TASK_GATE & ~3)),
    (setup.long, setup.CODE32, 0x10, None),
    (setup.long_user, setup.CONFORMING64, 0x10, None),
]


@pytest.mark.parametrize(("make", "selector", "offset", "expected"), JUMPS)
@pytest.mark.parametrize("call", [False, True])
def test_checks_of_direct_transfers(
    twin: Twin,
    make: Callable[[], setup.Machine],
    selector: int,
    offset: int,
    expected: tuple[int, int] | None,
    call: bool,
) -> None:
    m = make()
    cpl = m.s[CPL]
    status = twin(ft.far_call if call else ft.far_jump)(m.s, selector, offset, 8, NEXT)
    assert status == (expected is not None)
    if expected is None:
        assert (m.s[RIP], m.s[SEG_SEL + CS], m.s[CPL]) == (offset, selector & ~3 | cpl, cpl)
    else:
        assert fault(m) == expected
        assert untouched(m, make)


# ---- CALL and RET at one level ----------------------------------------------------------------------------------
CALLS: list[tuple[Callable[[], setup.Machine], int, int, str]] = [
    (setup.real, 0x700, 2, "HH"),
    (setup.real, 0x700, 4, "II"),
    (setup.v86, 0x700, 2, "HH"),
    (setup.protected, setup.CODE32, 4, "II"),
    (setup.protected, setup.CODE16, 2, "HH"),
    (setup.protected_user, setup.USER_CODE32, 4, "II"),
    (setup.compatibility, setup.CODE64, 4, "II"),
    (setup.long, setup.CODE64, 8, "QQ"),
    (setup.long, setup.CODE32, 4, "II"),
    (setup.long_user, setup.USER_CODE64, 2, "HH"),
]


@pytest.mark.parametrize(("make", "selector", "size", "layout"), CALLS)
def test_call_and_return(twin: Twin, make: Callable[[], setup.Machine], selector: int, size: int, layout: str) -> None:
    m = make()
    old_rsp, old_cs, old_mode = m.s[GPR + RSP], m.s[SEG_SEL + CS], m.s[MODE]
    assert twin(ft.far_call)(m.s, selector, 0x10, size, NEXT) == 0
    assert (m.s[SEG_SEL + CS], m.s[RIP]) == (selector, 0x10)
    assert m.s[GPR + RSP] == old_rsp - 2 * size
    assert m.get(old_rsp - 2 * size, layout) == (NEXT, old_cs)
    m.put(m.s[GPR + RSP] - 6, "H", 0)
    assert twin(ft.far_return)(m.s, size, 6) == 0
    assert (m.s[SEG_SEL + CS], m.s[RIP], m.s[GPR + RSP], m.s[MODE]) == (old_cs, NEXT, old_rsp + 6, old_mode)


def test_call_without_stack_changes_nothing(twin: Twin) -> None:
    m = setup.long()
    m.s[GPR + RSP] = 0x20004
    setup.unmap(m, 0x1FFFF)
    assert twin(ft.far_call)(m.s, setup.CODE64, 0x10, 8, NEXT) == 1
    assert (m.s[GPR + RSP], m.s[RIP]) == (0x20004, setup.CODE)
    assert m.get(0x1FFFC, "QQ") == (0, 0)


# ---- call gates -----------------------------------------------------------------------------------------------------
def test_call_gate_to_an_inner_level_copies_parameters(twin: Twin) -> None:
    m = setup.protected_user()
    m.put(setup.USER_STACK, "II", 0x11111111, 0x22222222)
    m.put(setup.STACK, "I", 0)
    assert twin(ft.far_call)(m.s, setup.GATE32, 0xDEAD, 4, NEXT) == 0
    frame = (NEXT, setup.USER_CODE32, 0x11111111, 0x22222222, setup.USER_STACK, setup.USER_DATA)
    assert m.get(setup.INNER_STACK - 24, "6I") == frame
    assert (m.s[RIP], m.s[SEG_SEL + CS], m.s[CPL], m.s[SEG_SEL + SS]) == (
        setup.GATE_TARGET,
        setup.CODE32,
        0,
        setup.DATA,
    )
    m.load(ES, setup.DATA)
    assert twin(ft.far_return)(m.s, 4, 8) == 0
    assert (m.s[RIP], m.s[SEG_SEL + CS], m.s[CPL]) == (NEXT, setup.USER_CODE32, 3)
    assert (m.s[GPR + RSP], m.s[SEG_SEL + SS]) == (setup.USER_STACK + 8, setup.USER_DATA)
    assert m.s[SEG_SEL + ES] == 0  # an inner segment
    assert m.s[SEG_SEL + DS] == setup.USER_DATA


def test_16_bit_call_gate(twin: Twin) -> None:
    m = setup.protected_user()
    m.put(setup.USER_STACK, "H", 0x1234)
    assert twin(ft.far_call)(m.s, setup.GATE16, 0, 4, NEXT) == 0
    frame = (NEXT, setup.USER_CODE32, 0x1234, setup.USER_STACK, setup.USER_DATA)
    assert m.get(setup.INNER_STACK - 10, "5H") == frame
    assert not m.s[MODE] & mode.CODE32


def test_call_gate_at_the_same_level(twin: Twin) -> None:
    m = setup.protected()
    assert twin(ft.far_call)(m.s, setup.GATE32, 0, 4, NEXT) == 0
    assert m.get(setup.STACK - 8, "II") == (NEXT, setup.CODE32)
    assert m.s[SEG_SEL + CS] == setup.CODE32
    m = setup.protected()
    assert twin(ft.far_jump)(m.s, setup.GATE32, 0, 4, NEXT) == 0
    assert (m.s[RIP], m.s[GPR + RSP]) == (setup.GATE_TARGET, setup.STACK)


def test_64_bit_call_gate(twin: Twin) -> None:
    m = setup.long_user()
    assert twin(ft.far_call)(m.s, setup.GATE64, 0, 8, NEXT) == 0
    frame = (NEXT, setup.USER_CODE64, setup.USER_STACK, setup.USER_DATA)
    assert m.get(setup.INNER_STACK - 32, "4Q") == frame
    assert (m.s[RIP], m.s[CPL], m.s[SEG_SEL + SS]) == (setup.GATE_TARGET, 0, 0)
    assert twin(ft.far_return)(m.s, 8, 0) == 0
    assert (m.s[RIP], m.s[CPL], m.s[GPR + RSP]) == (NEXT, 3, setup.USER_STACK)
    m = setup.compatibility()
    assert twin(ft.far_call)(m.s, setup.GATE64, 0, 4, NEXT) == 0
    assert m.get(setup.STACK - 16, "QQ") == (NEXT, setup.CODE32)
    assert m.s[MODE] & mode.CODE64


GATES: list[tuple[Callable[[], setup.Machine], int, tuple[int, int]]] = [
    (setup.protected_user, setup.gate(setup.CODE32, 0, 0x8C), (GP, setup.GATE32 & ~3)),  # the gate's DPL
    (setup.protected_user, setup.gate(setup.CODE32, 0, 0x6C), (NP, setup.GATE32 & ~3)),
    (setup.protected_user, setup.gate(0, 0, 0xEC), (GP, 0)),
    (setup.protected_user, setup.gate(setup.DATA, 0, 0xEC), (GP, setup.DATA)),
    (setup.protected_user, setup.gate(setup.ABSENT_CODE, 0, 0xEC), (NP, setup.ABSENT_CODE)),
    (setup.protected_user, setup.gate(setup.CODE16, 0x10000, 0xEC), (GP, 0)),
    (setup.protected, setup.gate(setup.USER_CODE32, 0, 0xEC), (GP, setup.USER_CODE32 & ~3)),
    (setup.long_user, setup.gate(setup.CODE64, 0, 0xE4), (GP, setup.GATE32 & ~3)),  # 16 bits in long mode
    (setup.long_user, setup.gate(setup.CODE32, 0, 0xEC), (GP, setup.CODE32)),
]


@pytest.mark.parametrize(("make", "value", "expected"), GATES)
def test_checks_of_call_gates(
    twin: Twin, make: Callable[[], setup.Machine], value: int, expected: tuple[int, int]
) -> None:
    m = make()
    selector = setup.GATE32
    m.put(setup.GDT + (selector & ~7), "QQ", value, 0)
    assert twin(ft.far_call)(m.s, selector, 0, 4, NEXT) == 1
    assert fault(m) == expected
    assert untouched(m, make)


def test_upper_half_of_a_64_bit_gate(twin: Twin) -> None:
    m = setup.long_user()
    m.put(setup.GDT + (setup.GATE64 & ~7) + 8, "Q", 0x0C00 << 32)  # type bits must be 0
    assert twin(ft.far_call)(m.s, setup.GATE64, 0, 8, NEXT) == 1
    assert fault(m) == (GP, setup.GATE64 & ~3)
    m.put(setup.GDT + (setup.GATE64 & ~7) + 8, "Q", 0x8000)  # not canonical
    assert twin(ft.far_call)(m.s, setup.GATE64, 0, 8, NEXT) == 1
    assert fault(m) == (GP, 0)


def test_jump_through_a_gate_keeps_the_privilege(twin: Twin) -> None:
    m = setup.protected_user()
    assert twin(ft.far_jump)(m.s, setup.GATE32, 0, 4, NEXT) == 1
    assert fault(m) == (GP, setup.CODE32)


def test_return_checks(twin: Twin) -> None:
    cases = [
        (setup.protected, (0, 0), (GP, 0)),
        (setup.protected, (0, setup.DATA), (GP, setup.DATA)),
        (setup.protected_user, (0, setup.CODE32), (GP, setup.CODE32)),
        (setup.protected, (0, setup.USER_CODE32, 0, setup.DATA), (GP, setup.DATA)),
        (setup.protected, (0, setup.USER_CODE32, 0, 0), (GP, 0)),
        (setup.protected, (0x10000, setup.CODE16), (GP, 0)),
    ]
    for make, frame, expected in cases:
        m = make()
        rsp = m.s[GPR + RSP]
        m.put(rsp, f"{len(frame)}I", *frame)
        assert twin(ft.far_return)(m.s, 4, 0) == 1
        assert fault(m) == expected
        assert (m.s[GPR + RSP], m.s[RIP], m.s[CPL]) == (rsp, setup.CODE, make().s[CPL])


# ---- tasks ----------------------------------------------------------------------------------------------------------
def other_task(m: setup.Machine, **changes: int) -> setup.Machine:
    """Fill the second, 32-bit TSS."""
    values = {
        "eip": 0x7777, "eflags": fl.IF | fl.CF | 2, "eax": 0xA0A0, "esp": setup.OTHER_STACK, "edi": 0xD1D1,
        "es": setup.DATA, "cs": setup.CODE32, "ss": setup.DATA, "ds": setup.USER_DATA, "ldt": setup.LDT_SELECTOR,
        "trap": 0,
    } | changes  # fmt: skip
    offsets = {
        "eip": 0x20, "eflags": 0x24, "eax": 0x28, "esp": 0x38, "edi": 0x44, "es": 0x48, "cs": 0x4C, "ss": 0x50,
        "ds": 0x54, "ldt": 0x60, "trap": 0x64,
    }  # fmt: skip
    for name, offset in offsets.items():
        m.put(setup.TSS_OTHER + offset, "I", values[name])
    return m


def busy(m: setup.Machine, selector: int) -> bool:
    return bool(m.get(setup.GDT + selector + 5, "B")[0] & 2)


def check_other(m: setup.Machine) -> None:
    assert (m.s[RIP], m.s[GPR + RAX], m.s[GPR + RSP], m.s[GPR + RDI]) == (0x7777, 0xA0A0, setup.OTHER_STACK, 0xD1D1)
    assert m.selectors() == [setup.DATA, setup.CODE32, setup.DATA, setup.USER_DATA, 0, 0]
    assert (m.s[TR_SEL], m.s[CR0] & mode.CR0_TS) == (setup.TSS_OTHER_SELECTOR, mode.CR0_TS)
    assert busy(m, setup.TSS_OTHER_SELECTOR)


@pytest.mark.parametrize("selector", [setup.TSS_OTHER_SELECTOR, setup.TASK_GATE])
def test_jump_to_a_task(twin: Twin, selector: int) -> None:
    m = other_task(setup.protected())
    m.s[GPR + RAX] = 0x1234
    assert twin(ft.far_jump)(m.s, selector, 0, 4, NEXT) == 0
    check_other(m)
    assert fl.eflags(m.s) == fl.IF | fl.CF | 2
    assert not busy(m, setup.TSS_SELECTOR)
    assert m.get(setup.TSS + 0x20, "III") == (NEXT, 2, 0x1234)
    assert m.get(setup.TSS + 0x38, "I") == (setup.STACK,)
    assert m.get(setup.TSS + 0x4C, "H") == (setup.CODE32,)


def test_call_a_task_and_return(twin: Twin) -> None:
    m = other_task(setup.protected_user())
    assert twin(ft.far_call)(m.s, setup.TASK_GATE, 0, 4, NEXT) == 0
    check_other(m)
    assert m.s[CPL] == 0
    assert fl.eflags(m.s) == fl.NT | fl.IF | fl.CF | 2
    assert busy(m, setup.TSS_SELECTOR)
    assert m.get(setup.TSS_OTHER, "H") == (setup.TSS_SELECTOR,)
    assert twin(ir.iret)(m.s, 4, 0x7778) == 0
    assert (m.s[RIP], m.s[CPL], m.s[GPR + RSP], m.s[TR_SEL]) == (NEXT, 3, setup.USER_STACK, setup.TSS_SELECTOR)
    assert m.selectors() == setup.protected_user().selectors()
    assert not busy(m, setup.TSS_OTHER_SELECTOR)
    assert m.get(setup.TSS_OTHER + 0x20, "II") == (0x7778, fl.IF | fl.CF | 2)  # without NT


def test_task_gate_for_an_exception(twin: Twin) -> None:
    m = other_task(setup.protected_user())
    m.put(setup.IDT + 8 * DF, "Q", setup.gate(setup.TSS_OTHER_SELECTOR, 0, 0x85))
    raise_fault(m.s, DF, 0)
    assert twin(it.deliver_fault)(m.s) == 0
    assert m.s[RIP] == 0x7777
    assert m.s[GPR + RSP] == setup.OTHER_STACK - 4  # the error code
    assert m.get(setup.TSS + 0x20, "I") == (setup.CODE,)


def test_16_bit_task(twin: Twin) -> None:
    m = setup.protected()
    m.put(setup.TSS16 + 0x0E, "HH", 0x7777, fl.IF | 2)
    m.put(setup.TSS16 + 0x12, "8H", *range(0x100, 0x108))
    m.put(setup.TSS16 + 0x22, "5H", setup.DATA, setup.CODE16, setup.DATA, setup.DATA, 0)
    assert twin(ft.far_jump)(m.s, setup.TSS16_SELECTOR, 0, 4, NEXT) == 0
    assert (m.s[RIP], m.s[GPR + RAX], m.s[GPR + RDI]) == (0x7777, 0xFFFF0100, 0xFFFF0107)
    assert m.selectors() == [setup.DATA, setup.CODE16, setup.DATA, setup.DATA, 0, 0]
    m.load(DS, setup.USER_DATA)
    assert twin(ft.far_jump)(m.s, setup.TSS_SELECTOR, 0, 4, 0x7778) == 0
    assert m.get(setup.TSS16 + 0x0E, "HHH") == (0x7778, fl.IF | 2, 0x100)
    assert m.get(setup.TSS16 + 0x28, "H") == (setup.USER_DATA,)
    assert m.s[RIP] == NEXT


def test_task_in_virtual_8086_mode(twin: Twin) -> None:
    m = other_task(setup.protected(), eflags=fl.VM | 2, cs=0x1000, ss=0x2000, ds=0x3000, es=0x4000, ldt=0)
    assert twin(ft.far_jump)(m.s, setup.TSS_OTHER_SELECTOR, 0, 4, NEXT) == 0
    assert m.s[CPL] == 3
    assert m.s[MODE] & mode.V86
    assert [m.s[SEG_BASE + n] for n in range(6)] == [0x40000, 0x10000, 0x20000, 0x30000, 0, 0]


def test_faults_before_a_switch_change_nothing(twin: Twin) -> None:
    cases = [
        (setup.TSS_SELECTOR, None, (GP, setup.TSS_SELECTOR)),  # busy
        (setup.TSS_OTHER_SELECTOR, setup.descriptor(setup.TSS_OTHER, 0x66, 0xE9), (TS, setup.TSS_OTHER_SELECTOR)),
        (setup.TSS_OTHER_SELECTOR, setup.descriptor(setup.TSS_OTHER, 0x67, 0x69), (NP, setup.TSS_OTHER_SELECTOR)),
        (setup.LDT_SELECTOR, None, (GP, setup.LDT_SELECTOR)),
    ]
    for selector, value, expected in cases:
        m = setup.protected()
        if value is not None:
            m.put(setup.GDT + selector, "Q", value)
        assert twin(ft.far_jump)(m.s, selector, 0, 4, NEXT) == 1
        assert fault(m) == expected
        assert untouched(m, setup.protected)


def test_faults_of_the_new_task_are_its_own(twin: Twin) -> None:
    cases = [
        ({"ss": setup.USER_DATA}, (TS, setup.USER_DATA & ~3)),
        ({"cs": setup.DATA}, (TS, setup.DATA)),
        ({"cs": setup.ABSENT_CODE}, (NP, setup.ABSENT_CODE)),
        ({"ds": setup.ABSENT_DATA}, (NP, setup.ABSENT_DATA)),
        ({"ss": setup.ABSENT_DATA}, (STACK_FAULT, setup.ABSENT_DATA)),
        ({"ldt": setup.TSS_SELECTOR}, (TS, setup.TSS_SELECTOR)),
        ({"cs": setup.CODE16, "eip": 0x10000}, (GP, 0)),
    ]
    for changes, expected in cases:
        m = other_task(setup.protected(), **changes)
        assert twin(ft.far_jump)(m.s, setup.TSS_OTHER_SELECTOR, 0, 4, NEXT) == 0  # done: the fault comes after it
        assert fault(m) == expected
        assert m.s[RIP] == changes.get("eip", 0x7777)
        assert m.s[TR_SEL] == setup.TSS_OTHER_SELECTOR


def test_debug_trap_of_a_task(twin: Twin) -> None:
    m = other_task(setup.protected(), trap=1)
    assert twin(ft.far_jump)(m.s, setup.TSS_OTHER_SELECTOR, 0, 4, NEXT) == 0
    assert (m.s[PENDING_DEBUG], m.s[RIP]) == (1 << 15, 0x7777)
    check_other(m)
