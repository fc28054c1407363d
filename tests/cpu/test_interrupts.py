"""Delivery of interrupts and exceptions in every mode, double and triple faults, and IRET."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pyemu.cpu import flags as fl
from pyemu.cpu import interrupts as it
from pyemu.cpu import iret as ir
from pyemu.cpu import mode
from pyemu.cpu.faults import AC, BP, DB, DE, DF, GP, NMI, NP, PF, TS, UD, raise_debug, raise_fault, raise_page_fault
from pyemu.cpu.faults import SS as STACK_FAULT
from pyemu.cpu.state import (
    CPL,
    CR2,
    CS,
    DR,
    DS,
    ES,
    FAULT_CHAIN,
    FAULT_ERROR,
    FAULT_VECTOR,
    FLAGS,
    FS,
    GPR,
    GS,
    HALTED,
    ICOUNT,
    IDT_LIMIT,
    IRQ_PENDING,
    M64,
    MODE,
    NMI_BLOCKED,
    NMI_PENDING,
    NO_FAULT,
    RIP,
    RSP,
    SEG_ATTR,
    SEG_BASE,
    SEG_SEL,
    SHADOW,
    SS,
    TR_LIMIT,
)  # fmt: skip
from tests.cpu import system_setup as setup

Twin = Callable[[Any], Callable[..., int]]
NEXT = setup.CODE + 2


def fault(m: setup.Machine) -> tuple[int, int]:
    return m.s[FAULT_VECTOR], m.s[FAULT_ERROR]


def handler(vector: int) -> int:
    return setup.HANDLERS + 16 * vector


def raised(m: setup.Machine, vector: int, error: int = 0) -> setup.Machine:
    raise_fault(m.s, vector, error)
    return m


# ---- real mode ------------------------------------------------------------------------------------------------
def test_real_mode_interrupt_and_return(twin: Twin) -> None:
    m = setup.real()
    fl.set_eflags(m.s, fl.IF | fl.TF | fl.AC | fl.CF | 2, M64)
    mode.update(m.s)
    assert twin(it.software_interrupt)(m.s, 0x21, it.SOFTWARE, NEXT) == 0
    assert (m.s[SEG_SEL + CS], m.s[SEG_BASE + CS], m.s[RIP]) == (0x500, 0x5000, 0x210)
    assert m.get(setup.STACK - 6, "HHH") == (NEXT, 0, fl.IF | fl.TF | fl.CF | 2)
    assert m.s[GPR + RSP] == setup.STACK - 6
    assert fl.eflags(m.s) == fl.CF | 2
    assert not m.s[MODE] & mode.TRAP
    assert twin(ir.iret)(m.s, 2, 0) == 0
    assert (m.s[SEG_SEL + CS], m.s[RIP], m.s[GPR + RSP]) == (0, NEXT, setup.STACK)
    assert fl.eflags(m.s) == fl.IF | fl.TF | fl.CF | 2
    assert m.s[MODE] & mode.TRAP


def test_real_mode_vector_beyond_the_table(twin: Twin) -> None:
    m = setup.real()
    m.s[IDT_LIMIT] = 4 * 0x21 + 2
    assert twin(it.software_interrupt)(m.s, 0x21, it.SOFTWARE, NEXT) == 1
    assert m.s[FAULT_VECTOR] == GP
    assert (m.s[RIP], m.s[GPR + RSP]) == (setup.CODE, setup.STACK)


def test_real_mode_push_across_the_segment_end(twin: Twin) -> None:
    m = setup.real()
    m.s[GPR + RSP] = 3  # the second word would lie at FFFF
    assert twin(it.software_interrupt)(m.s, 0x21, it.SOFTWARE, NEXT) == 1
    assert fault(m) == (STACK_FAULT, 0)
    assert m.ram[0:8] == setup.real().ram[0:8]


def test_real_mode_iretd_keeps_the_virtual_flags(twin: Twin) -> None:
    m = setup.real()
    m.put(setup.STACK, "III", 0x1234, 0x100, 0xFFFFFFFF)
    assert twin(ir.iret)(m.s, 4, 0) == 0
    m.s[ICOUNT] += 1  # RF is in force from there
    assert fl.eflags(m.s) == 0x257FD7
    m = setup.real()
    m.put(setup.STACK, "III", 0x12345, 0x100, 2)
    assert twin(ir.iret)(m.s, 4, 0) == 1
    assert fault(m) == (GP, 0)


# ---- protected mode ---------------------------------------------------------------------------------------------
def test_same_privilege_with_error_code(twin: Twin) -> None:
    m = raised(setup.protected(), GP, 0x1234)
    assert twin(it.deliver_fault)(m.s) == 0
    assert m.get(setup.STACK - 16, "IIII") == (0x1234, setup.CODE, setup.CODE32, fl.RF | 2)
    assert (m.s[RIP], m.s[GPR + RSP], m.s[FAULT_VECTOR]) == (handler(GP), setup.STACK - 16, NO_FAULT)
    assert not m.s[FLAGS] & fl.RF


def test_inner_privilege_switches_stacks(twin: Twin) -> None:
    m = setup.protected_user()
    m.s[FLAGS] = fl.IF | fl.NT | 2
    assert twin(it.deliver)(m.s, 0x30, 0, it.HARDWARE, m.s[RIP]) == 0
    frame = (setup.CODE, setup.USER_CODE32, fl.IF | fl.NT | 2, setup.USER_STACK, setup.USER_DATA)
    assert m.get(setup.INNER_STACK - 20, "IIIII") == frame
    assert (m.s[CPL], m.s[SEG_SEL + CS], m.s[SEG_SEL + SS]) == (0, setup.CODE32, setup.DATA)
    assert m.s[SEG_SEL + DS] == setup.USER_DATA
    assert m.s[FLAGS] == 2
    assert m.s[GPR + RSP] == setup.INNER_STACK - 20
    assert twin(ir.iret)(m.s, 4, 0) == 0
    assert (m.s[CPL], m.s[RIP], m.s[GPR + RSP]) == (3, setup.CODE, setup.USER_STACK)
    assert fl.eflags(m.s) == fl.IF | fl.NT | 2
    assert m.s[SEG_SEL + SS] == setup.USER_DATA


def test_return_to_outer_level_drops_inner_segments(twin: Twin) -> None:
    m = setup.protected()
    m.load(ES, setup.USER_DATA)
    m.load(FS, setup.CONFORMING32)
    m.put(setup.STACK, "IIIII", 0x1111, setup.USER_CODE32, 2, setup.USER_STACK, setup.USER_DATA)
    assert twin(ir.iret)(m.s, 4, 0) == 0
    assert m.selectors() == [setup.USER_DATA, setup.USER_CODE32, setup.USER_DATA, 0, setup.CONFORMING32, 0]
    assert m.s[SEG_ATTR + DS] & 1 << 16


@pytest.mark.parametrize("outer", [False, True])
def test_return_to_outer_level_clears_the_rpl_of_null_selectors(outer: bool, twin: Twin) -> None:
    m = setup.protected()
    m.load(ES, setup.DATA)
    m.load(DS, 3)
    m.load(FS, 1)
    code, stack = (setup.USER_CODE32, setup.USER_DATA) if outer else (setup.CODE32, setup.DATA)
    m.put(setup.STACK, "IIIII", 0x1111, code, 2, setup.USER_STACK, stack)
    assert twin(ir.iret)(m.s, 4, 0) == 0
    assert m.selectors() == ([0, code, stack, 0, 0, 0] if outer else [setup.DATA, code, stack, 3, 1, setup.DATA])


def test_trap_gate_keeps_if_and_16_bit_gate_clears_the_upper_half(twin: Twin) -> None:
    m = setup.protected()
    m.s[FLAGS] = fl.IF | 2
    setup.set_gate(m, 0x40, 0x8F)
    assert twin(it.deliver)(m.s, 0x40, 0, it.HARDWARE, 0x12345678) == 0
    assert m.s[FLAGS] & fl.IF
    m = setup.protected()
    setup.set_gate(m, 0x40, 0x86)
    m.put(setup.IDT + 8 * 0x40 + 6, "H", 0x1234)
    assert twin(it.deliver)(m.s, 0x40, 0, it.HARDWARE, 0x12345678) == 0
    assert m.s[RIP] == handler(0x40)
    assert m.get(setup.STACK - 6, "HHH") == (0x5678, setup.CODE32, 2)


GATE_FAULTS: list[tuple[int, int | None, int, tuple[int, int], tuple[int, int]]] = [
    # attributes, selector, kind, error at CPL 0, error at CPL 3
    (0x8E, None, it.SOFTWARE, (NO_FAULT, 0), (GP, 0x40 * 8 + 2)),  # DPL
    (0x8E, None, it.TRAP_INSTRUCTION, (NO_FAULT, 0), (GP, 0x40 * 8 + 2)),
    (0x8E, None, it.HARDWARE, (NO_FAULT, 0), (NO_FAULT, 0)),
    (0x8E, None, it.ICEBP, (NO_FAULT, 0), (NO_FAULT, 0)),
    (0xEE, None, it.SOFTWARE, (NO_FAULT, 0), (NO_FAULT, 0)),
    (0x6E, None, it.SOFTWARE, (NP, 0x40 * 8 + 2), (NP, 0x40 * 8 + 2)),
    (0x6E, None, it.HARDWARE, (NP, 0x40 * 8 + 3), (NP, 0x40 * 8 + 3)),
    (0xEC, None, it.HARDWARE, (GP, 0x40 * 8 + 3), (GP, 0x40 * 8 + 3)),  # a call gate
    (0xEE, setup.DATA, it.HARDWARE, (GP, setup.DATA + 1), (GP, setup.DATA + 1)),
    (0xEE, setup.USER_CODE32, it.SOFTWARE, (GP, setup.USER_CODE32 & ~3), (NO_FAULT, 0)),
    (0xEE, setup.ABSENT_CODE, it.HARDWARE, (NP, setup.ABSENT_CODE + 1), (NP, setup.ABSENT_CODE + 1)),
    (0xEE, setup.BEYOND, it.SOFTWARE, (GP, setup.BEYOND), (GP, setup.BEYOND)),
    (0xEE, setup.CONFORMING32, it.HARDWARE, (NO_FAULT, 0), (NO_FAULT, 0)),
]


@pytest.mark.parametrize(("attr", "selector", "kind", "inner", "user"), GATE_FAULTS)
def test_checks_of_gates(
    twin: Twin, attr: int, selector: int | None, kind: int, inner: tuple[int, int], user: tuple[int, int]
) -> None:
    for m, expected in ((setup.protected(), inner), (setup.protected_user(), user)):
        setup.set_gate(m, 0x40, attr, selector)
        before = m.ram.raw[0x8000:0xE000]
        rsp = m.s[GPR + RSP]
        assert twin(it.deliver)(m.s, 0x40, 0, kind, NEXT) == (expected[0] != NO_FAULT)
        if expected[0] == NO_FAULT:
            assert m.s[RIP] == handler(0x40)
        else:
            assert fault(m) == expected
            assert (m.s[RIP], m.s[GPR + RSP]) == (setup.CODE, rsp)
            assert m.ram.raw[0x8000:0xE000] == before


def test_conforming_handler_stays_at_its_privilege(twin: Twin) -> None:
    m = setup.protected_user()
    setup.set_gate(m, 0x40, 0x8E, setup.CONFORMING32)
    assert twin(it.deliver)(m.s, 0x40, 0, it.HARDWARE, NEXT) == 0
    assert (m.s[CPL], m.s[SEG_SEL + CS]) == (3, setup.CONFORMING32 | 3)
    assert m.s[GPR + RSP] == setup.USER_STACK - 12


STACK_FAULTS = [
    (0, (TS, 1)),
    (setup.USER_DATA, (TS, (setup.USER_DATA & ~3) + 1)),
    (setup.CODE32, (TS, setup.CODE32 + 1)),
    (setup.ABSENT_DATA, (STACK_FAULT, setup.ABSENT_DATA + 1)),
    (setup.BEYOND, (TS, setup.BEYOND + 1)),
]


@pytest.mark.parametrize(("selector", "expected"), STACK_FAULTS)
def test_checks_of_the_inner_stack(twin: Twin, selector: int, expected: tuple[int, int]) -> None:
    m = setup.protected_user()
    m.put(setup.TSS + 8, "I", selector)
    assert twin(it.deliver)(m.s, 0x40, 0, it.HARDWARE, NEXT) == 1
    assert fault(m) == expected
    m = setup.protected_user()
    m.s[TR_LIMIT] = 8
    assert twin(it.deliver)(m.s, 0x40, 0, it.HARDWARE, NEXT) == 1
    assert fault(m) == (TS, setup.TSS_SELECTOR + 1)


def test_inner_stack_without_room(twin: Twin) -> None:
    m = setup.protected_user()
    m.put(setup.GDT + setup.DATA, "Q", setup.descriptor(setup.INNER_STACK - 16, 0xFF, 0x4093))
    m.put(setup.TSS + 4, "I", 16)  # room for four of five words
    assert twin(it.deliver)(m.s, 0x40, 0, it.HARDWARE, NEXT) == 1
    assert fault(m) == (STACK_FAULT, setup.DATA + 1)


# ---- virtual-8086 mode -------------------------------------------------------------------------------------------
def test_virtual_8086_mode_there_and_back(twin: Twin) -> None:
    m = setup.v86()
    for segment, selector in ((ES, 0x111), (DS, 0x222), (FS, 0x333), (GS, 0x444)):
        m.s[SEG_SEL + segment] = selector
    m.s[GPR + RSP] = 0x8000
    image = m.s[FLAGS]
    assert twin(it.deliver)(m.s, 0x30, 0, it.HARDWARE, m.s[RIP]) == 0
    frame = (setup.CODE, 0, image, 0x8000, 0, 0x111, 0x222, 0x333, 0x444)
    assert m.get(setup.INNER_STACK - 36, "9I") == frame
    assert (m.s[CPL], m.s[FLAGS] & fl.VM) == (0, 0)
    assert m.selectors() == [0, setup.CODE32, setup.DATA, 0, 0, 0]
    assert m.s[SEG_ATTR + DS] & 1 << 16
    assert twin(ir.iret)(m.s, 4, 0) == 0
    assert m.selectors() == [0x111, 0, 0, 0x222, 0x333, 0x444]
    assert (m.s[CPL], m.s[RIP], m.s[GPR + RSP], m.s[FLAGS]) == (3, setup.CODE, 0x8000, image)
    assert m.s[SEG_BASE + GS] == 0x4440
    assert m.s[MODE] & mode.V86


def test_virtual_8086_int_needs_iopl_3(twin: Twin) -> None:
    m = setup.v86(iopl=2)
    setup.set_gate(m, 0x21, 0xEE)
    assert twin(it.software_interrupt)(m.s, 0x21, it.SOFTWARE, NEXT) == 1
    assert fault(m) == (GP, 0)
    setup.set_gate(m, 3, 0xEE)
    assert twin(it.software_interrupt)(m.s, 3, it.TRAP_INSTRUCTION, NEXT) == 0  # INT3 doesn't care
    m = setup.v86(iopl=3)
    setup.set_gate(m, 0x21, 0xEE)
    assert twin(it.software_interrupt)(m.s, 0x21, it.SOFTWARE, NEXT) == 0
    assert m.s[CPL] == 0


def test_virtual_8086_handler_must_be_at_privilege_0(twin: Twin) -> None:
    m = setup.v86()
    setup.set_gate(m, 0x30, 0x8E, setup.CONFORMING32)
    assert twin(it.deliver)(m.s, 0x30, 0, it.HARDWARE, m.s[RIP]) == 1
    assert fault(m) == (GP, setup.CONFORMING32 + 1)


def test_virtual_8086_iret(twin: Twin) -> None:
    m = setup.v86(iopl=3)
    m.put(setup.USER_STACK, "HHH", 0x10, 0x200, fl.IF | fl.CF)
    assert twin(ir.iret)(m.s, 2, 0) == 0
    assert (m.s[SEG_BASE + CS], m.s[RIP]) == (0x2000, 0x10)
    assert fl.eflags(m.s) == fl.VM | fl.IOPL | fl.IF | fl.CF | 2  # IOPL stays
    m = setup.v86(iopl=0)
    assert twin(ir.iret)(m.s, 2, 0) == 1
    assert fault(m) == (GP, 0)


# ---- long mode ------------------------------------------------------------------------------------------------
def test_long_mode_aligns_the_stack(twin: Twin) -> None:
    m = setup.long()
    m.s[GPR + RSP] = setup.STACK - 3
    m.s[FLAGS] = fl.IF | fl.TF | 2
    assert twin(it.deliver)(m.s, 0x30, 0, it.HARDWARE, m.s[RIP]) == 0
    top = (setup.STACK - 3) & ~15
    assert m.get(top - 40, "5Q") == (setup.CODE, setup.CODE64, fl.IF | fl.TF | 2, setup.STACK - 3, setup.DATA)
    assert (m.s[GPR + RSP], m.s[SEG_SEL + SS], m.s[RIP], m.s[FLAGS]) == (top - 40, setup.DATA, handler(0x30), 2)


@pytest.mark.parametrize("make", [setup.long_user, setup.compatibility_user])
def test_long_mode_from_user_and_back(twin: Twin, make: Callable[[], setup.Machine]) -> None:
    m = make()
    code = m.s[SEG_SEL + CS]
    raise_page_fault(m.s, 0xFFFF_8000_0000_0123, 5)
    fl.set_eflags(m.s, fl.IF | fl.ZF | 2, M64)
    assert twin(it.deliver_fault)(m.s) == 0
    assert m.s[CR2] == 0xFFFF_8000_0000_0123
    frame = (5, setup.CODE, code, fl.RF | fl.IF | fl.ZF | 2, setup.USER_STACK, setup.USER_DATA)
    assert m.get(setup.INNER_STACK - 48, "6Q") == frame
    assert (m.s[CPL], m.s[SEG_SEL + SS], m.s[SEG_SEL + CS]) == (0, 0, setup.CODE64)
    assert m.s[SEG_ATTR + SS] & 1 << 16
    assert m.s[MODE] & mode.CODE64
    m.s[GPR + RSP] += 8
    assert twin(ir.iret)(m.s, 8, 0) == 0
    m.s[ICOUNT] += 1  # RF is in force from there
    assert (m.s[CPL], m.s[RIP], m.s[GPR + RSP], m.s[SEG_SEL + CS]) == (3, setup.CODE, setup.USER_STACK, code)
    assert m.s[SEG_SEL + SS] == setup.USER_DATA
    assert fl.eflags(m.s) == fl.RF | fl.IF | fl.ZF | 2


def test_interrupt_stack_table(twin: Twin) -> None:
    m = raised(setup.long(), DF)
    setup.set_gate(m, DF, 0x8E, low=1)
    assert twin(it.deliver_fault)(m.s) == 0
    assert m.s[GPR + RSP] == setup.IST1 - 48
    assert m.get(setup.IST1 - 48, "6Q") == (0, setup.CODE, setup.CODE64, 2, setup.STACK, setup.DATA)
    assert m.s[SEG_SEL + SS] == setup.DATA  # the privilege did not change


LONG_GATE_FAULTS: list[tuple[int, int | None, int, tuple[int, int]]] = [
    (0x8E, None, it.SOFTWARE, (GP, 0x40 * 8 + 2)),  # not QEMU's n * 16
    (0x86, None, it.HARDWARE, (GP, 0x40 * 8 + 3)),  # 16-bit gates don't exist
    (0x85, None, it.HARDWARE, (GP, 0x40 * 8 + 3)),  # nor task gates
    (0x0E, None, it.HARDWARE, (NP, 0x40 * 8 + 3)),
    (0x8E, setup.CODE32, it.HARDWARE, (GP, setup.CODE32 + 1)),
    (0x8E, setup.BAD_CODE64, it.HARDWARE, (GP, setup.BAD_CODE64 + 1)),
]


@pytest.mark.parametrize(("attr", "selector", "kind", "expected"), LONG_GATE_FAULTS)
def test_checks_of_long_mode_gates(
    twin: Twin, attr: int, selector: int | None, kind: int, expected: tuple[int, int]
) -> None:
    m = setup.long_user()
    setup.set_gate(m, 0x40, attr, selector)
    assert twin(it.deliver)(m.s, 0x40, 0, kind, NEXT) == 1
    assert fault(m) == expected
    assert (m.s[RIP], m.s[GPR + RSP], m.s[CPL]) == (setup.CODE, setup.USER_STACK, 3)


def test_long_mode_addresses_must_be_canonical(twin: Twin) -> None:
    m = setup.long_user()
    m.put(setup.IDT + 16 * 0x40 + 8, "Q", 0x8000)
    assert twin(it.deliver)(m.s, 0x40, 0, it.HARDWARE, NEXT) == 1
    assert fault(m) == (GP, 1)
    m = setup.long_user()
    m.put(setup.TSS + 4, "Q", 1 << 47)
    assert twin(it.deliver)(m.s, 0x40, 0, it.HARDWARE, NEXT) == 1
    assert fault(m) == (STACK_FAULT, 1)


def test_nothing_is_pushed_if_a_page_of_the_frame_is_missing(twin: Twin) -> None:
    m = setup.long()
    m.s[GPR + RSP] = setup.STACK + 16  # the frame would cross a page
    setup.unmap(m, setup.STACK - 1)
    before = m.ram.raw[0x8000:0xA000]
    assert twin(it.deliver)(m.s, 0x40, 0, it.HARDWARE, NEXT) == 1
    assert fault(m) == (PF, 2)
    assert m.ram.raw[0x8000:0xA000] == before


def test_iretq_to_a_null_stack_segment(twin: Twin) -> None:
    m = setup.long()
    m.put(setup.STACK, "5Q", 0x1234, setup.CODE64, 2, 0x8888, 0)
    assert twin(ir.iret)(m.s, 8, 0) == 0
    assert (m.s[RIP], m.s[GPR + RSP], m.s[SEG_SEL + SS]) == (0x1234, 0x8888, 0)


IRET_FAULTS = [
    ((1 << 47, setup.CODE64, 2, 0, 0), (GP, 0)),
    ((0, 0, 2, 0, 0), (GP, 0)),
    ((0, setup.DATA, 2, 0, 0), (GP, setup.DATA)),
    ((0, setup.BAD_CODE64, 2, 0, setup.DATA), (GP, setup.BAD_CODE64)),
    ((0, setup.ABSENT_CODE, 2, 0, setup.DATA), (NP, setup.ABSENT_CODE)),
    ((0, setup.USER_CODE64 & ~3, 2, 0, setup.DATA), (GP, setup.USER_CODE64 & ~3)),  # DPL is not RPL
    ((0, setup.USER_CODE64, 2, 0, 3), (GP, 0)),  # null at CPL 3
    ((0, setup.CODE32, 2, 0, 0), (GP, 0)),  # null for 32-bit code
    ((0, setup.USER_CODE64, 2, 0, setup.DATA), (GP, setup.DATA)),
    ((0, setup.CODE64, 2, 0, setup.ABSENT_DATA), (STACK_FAULT, setup.ABSENT_DATA)),
]


@pytest.mark.parametrize(("frame", "expected"), IRET_FAULTS)
def test_checks_of_iretq(twin: Twin, frame: tuple[int, ...], expected: tuple[int, int]) -> None:
    m = setup.long()
    m.put(setup.STACK, "5Q", *frame)
    m.s[NMI_BLOCKED] = 1
    assert twin(ir.iret)(m.s, 8, 0) == 1
    assert fault(m) == expected
    assert (m.s[RIP], m.s[GPR + RSP], m.s[SEG_SEL + CS]) == (setup.CODE, setup.STACK, setup.CODE64)
    assert m.s[NMI_BLOCKED] == 0


def test_iretq_at_cpl_3_cannot_reach_inwards(twin: Twin) -> None:
    m = setup.long_user()
    m.put(setup.USER_STACK, "5Q", 0, setup.CODE64, 2, 0, setup.DATA)
    assert twin(ir.iret)(m.s, 8, 0) == 1
    assert fault(m) == (GP, setup.CODE64)
    m.put(setup.PT + 8 * (setup.USER_STACK >> 12), "Q", setup.USER_STACK | 3)
    m = setup.long_user()
    m.put(setup.PT + 8 * (setup.USER_STACK >> 12), "Q", setup.USER_STACK | 3)  # a supervisor page
    assert twin(ir.iret)(m.s, 8, 0) == 1
    assert fault(m) == (PF, 5)


def test_nested_task_flag_in_long_mode(twin: Twin) -> None:
    m = setup.long()
    m.s[FLAGS] |= fl.NT
    assert twin(ir.iret)(m.s, 8, 0) == 1
    assert fault(m) == (GP, 0)


PRIVILEGED = fl.IOPL | fl.IF | fl.VIF | fl.VIP


@pytest.mark.parametrize(
    ("make", "iopl", "expected"),
    [(setup.long, 0, 0x3F7FD7 & ~fl.VM), (setup.long_user, 0, 0x257FD7 & ~(fl.IOPL | fl.IF)),
     (setup.long_user, 3, 0x257FD7)],
)  # fmt: skip
def test_flags_that_iret_restores(twin: Twin, make: Callable[[], setup.Machine], iopl: int, expected: int) -> None:
    m = make()
    m.s[FLAGS] = 2 | iopl << 12
    m.put(m.s[GPR + RSP], "5Q", 0x10, m.s[SEG_SEL + CS], M64, 0x8000, m.s[SEG_SEL + SS])
    assert twin(ir.iret)(m.s, 8, 0) == 0
    m.s[ICOUNT] += 1  # RF is in force from there
    assert fl.eflags(m.s) == expected | iopl << 12


# ---- exceptions --------------------------------------------------------------------------------------------------
def test_resume_flag_is_pushed_for_faults_only(twin: Twin) -> None:
    for vector, expected in ((UD, fl.RF | 2), (DE, fl.RF | 2), (BP, 2)):
        m = raised(setup.long(), vector)
        assert twin(it.deliver_fault)(m.s) == 0
        assert m.get(setup.STACK - 24, "Q") == (expected,)


def test_debug_exception(twin: Twin) -> None:
    m = setup.long()
    m.s[DR + 6], m.s[DR + 7] = 0xFFFF0FF0, 0x2400
    raise_debug(m.s, 1 << 14)
    assert twin(it.deliver_fault)(m.s) == 0
    assert (m.s[DR + 6], m.s[DR + 7]) == (0xFFFF4FF0, 0x400)
    assert (m.s[RIP], m.get(setup.STACK - 24, "Q")) == (handler(DB), (2,))


def chain(m: setup.Machine) -> list[tuple[int, int, int]]:
    """(vector, error, address) of FAULT_CHAIN."""
    words = [m.s[FAULT_CHAIN + n] for n in range(8)]
    return [(w & 0xFF, w >> 8 & 0xFFFFFFFF, a) for w, a in zip(words[::2], words[1::2], strict=True) if w & it.VALID]


def test_double_fault(twin: Twin) -> None:
    m = raised(setup.long(), GP, 0x10)
    setup.set_gate(m, GP, 0x0E)  # not present: #NP during #GP
    assert twin(it.deliver_fault)(m.s) == 0
    assert m.s[RIP] == handler(DF)
    assert m.get(setup.STACK - 48, "QQ") == (0, setup.CODE)


def test_page_fault_during_a_contributory_fault_is_handled_by_itself(twin: Twin) -> None:
    m = raised(setup.long(), GP, 0x10)
    m.put(setup.IDT + 16 * GP, "Q", setup.gate(setup.CODE64, 0, 0x8E, 1))
    m.put(setup.TSS + 36, "Q", 0x20000)
    setup.unmap(m, 0x1FFFF)
    assert twin(it.deliver_fault)(m.s) == 0
    assert m.s[RIP] == handler(PF)
    assert m.get(setup.STACK - 48, "QQ") == (2, setup.CODE)
    assert m.s[CR2] == 0x20000 - 8


def test_page_fault_twice_is_a_double_fault(twin: Twin) -> None:
    m = setup.long()
    setup.set_gate(m, DF, 0x8E, low=1)
    m.s[GPR + RSP] = 0x20000
    setup.unmap(m, 0x1FFFF)
    raise_page_fault(m.s, 0x123456, 0)
    assert twin(it.deliver_fault)(m.s) == 0
    assert m.s[RIP] == handler(DF)
    assert m.s[CR2] == 0x20000 - 8
    assert m.s[GPR + RSP] == setup.IST1 - 48


def test_benign_then_contributory_is_no_double_fault(twin: Twin) -> None:
    m = raised(setup.long(), UD)
    setup.set_gate(m, UD, 0x0E)
    assert twin(it.deliver_fault)(m.s) == 0
    assert m.s[RIP] == handler(NP)
    assert m.get(setup.STACK - 48, "Q") == (UD * 8 + 3,)


@pytest.mark.parametrize("make", [setup.real, setup.protected, setup.protected_user, setup.long, setup.long_user])
def test_triple_fault(twin: Twin, make: Callable[[], setup.Machine]) -> None:
    m = raised(make(), GP, 0x10)
    m.s[IDT_LIMIT] = 0
    assert twin(it.deliver_fault)(m.s) == it.SHUTDOWN
    vectors = [(vector, error) for vector, error, _ in chain(m)]
    ext = 0 if make is setup.real else 1
    assert vectors == [(GP, 0x10), (GP, GP * 8 + 2 + ext), (DF, 0), (GP, DF * 8 + 2 + ext)]
    assert {address for *_, address in chain(m)} == {setup.CODE}
    assert m.s[FAULT_VECTOR] == NO_FAULT
    assert m.s[RIP] == setup.CODE


def test_delivery_that_never_succeeds_ends_in_shutdown(twin: Twin) -> None:
    """#AC at privilege 3 whose handler's stack is misaligned too: a loop without end on some processors."""
    m = raised(setup.protected_user(), AC)
    setup.set_gate(m, AC, 0xEE, setup.BEYOND)
    setup.set_gate(m, GP, 0xEE, setup.BEYOND)
    setup.set_gate(m, DF, 0xEE, setup.BEYOND)
    assert twin(it.deliver_fault)(m.s) == it.SHUTDOWN


# ---- interrupts -----------------------------------------------------------------------------------------------------
class Controller:
    """A host that has vectors to acknowledge."""

    def __init__(self, *vectors: int) -> None:
        self.vectors = list(vectors)

    def acknowledge_interrupt(self) -> int:
        return self.vectors.pop(0) if self.vectors else -1


def with_interrupt(m: setup.Machine, *vectors: int) -> setup.Machine:
    m.s.host = Controller(*vectors)  # type: ignore[assignment]
    m.s[IRQ_PENDING] = 1
    m.s[HALTED] = 1
    return m


def test_external_interrupt_needs_if(twin: Twin) -> None:
    m = with_interrupt(setup.long(), 0x31)
    assert twin(it.can_take)(m.s) == 0
    assert twin(it.take_interrupts)(m.s) == 0
    m.s[FLAGS] |= fl.IF
    assert twin(it.can_take)(m.s) == 1
    assert twin(it.take_interrupts)(m.s) == it.DELIVERED
    assert (m.s[RIP], m.s[HALTED]) == (handler(0x31), 0)
    assert twin(it.take_interrupts)(m.s) == 0  # the gate cleared IF


def test_interrupt_shadow(twin: Twin) -> None:
    m = with_interrupt(setup.long(), 0x31)
    m.s[FLAGS] |= fl.IF
    m.s[NMI_PENDING] = 1
    m.s[ICOUNT], m.s[SHADOW] = 100, 101
    assert twin(it.can_take)(m.s) == 0
    assert twin(it.take_interrupts)(m.s) == 0
    m.s[ICOUNT] = 101
    assert twin(it.take_interrupts)(m.s) == it.DELIVERED


def test_spurious_acknowledge(twin: Twin) -> None:
    m = with_interrupt(setup.long())
    m.s[FLAGS] |= fl.IF
    assert twin(it.take_interrupts)(m.s) == 0
    assert (m.s[RIP], m.s[HALTED]) == (setup.CODE, 1)


def test_nmi_blocks_nmis_until_iret(twin: Twin) -> None:
    m = setup.long()
    m.s[NMI_PENDING] = 1
    assert twin(it.take_interrupts)(m.s) == it.DELIVERED
    assert (m.s[RIP], m.s[NMI_PENDING], m.s[NMI_BLOCKED]) == (handler(NMI), 0, 1)
    m.s[NMI_PENDING] = 1
    assert twin(it.take_interrupts)(m.s) == 0
    assert twin(ir.iret)(m.s, 8, 0) == 0
    assert twin(it.take_interrupts)(m.s) == it.DELIVERED


def test_fault_while_delivering_an_interrupt(twin: Twin) -> None:
    m = with_interrupt(setup.long(), 0x31)
    m.s[FLAGS] |= fl.IF
    setup.set_gate(m, 0x31, 0x0E)
    assert twin(it.take_interrupts)(m.s) == it.DELIVERED
    assert m.s[RIP] == handler(NP)
    assert m.get(setup.STACK - 48, "Q") == (0x31 * 8 + 3,)
    m = with_interrupt(setup.long(), 0x31)
    m.s[FLAGS] |= fl.IF
    m.s[IDT_LIMIT] = 0
    assert twin(it.take_interrupts)(m.s) == it.SHUTDOWN
