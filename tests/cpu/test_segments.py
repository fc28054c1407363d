"""Segment loads, limits and types, descriptor instructions and the mode word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pyemu.cpu import descriptors as ds
from pyemu.cpu import mode, segments
from pyemu.cpu.faults import GP, NP, PF, UD
from pyemu.cpu.faults import SS as STACK_FAULT
from pyemu.cpu.state import (
    CPL,
    CR0,
    CR4,
    DS,
    ES,
    FAULT_CR2,
    FAULT_ERROR,
    FAULT_VECTOR,
    FLAGS,
    FS,
    GDT_BASE,
    GDT_LIMIT,
    GPR,
    GS,
    LDT_ATTR,
    LDT_BASE,
    LDT_LIMIT,
    M64,
    MMU,
    MODE,
    RSP,
    SEG_ATTR,
    SEG_BASE,
    SEG_LIMIT,
    SEG_SEL,
    SS,
    STACK_MASK,
    TR_SEL,
    VALUE,
)  # fmt: skip
from tests.cpu import system_setup as setup

Twin = Callable[[Any], Callable[..., int]]


def fault(m: setup.Machine) -> tuple[int, int]:
    return m.s[FAULT_VECTOR], m.s[FAULT_ERROR]


# ---- loads of segment registers ----------------------------------------------------------------------------
def test_real_mode_keeps_limit_and_rights(twin: Twin) -> None:
    m = setup.real()
    m.s[SEG_LIMIT + DS], m.s[SEG_ATTR + DS] = 0xFFFFFFFF, 0xC093  # "big real mode"
    assert twin(segments.load_segment)(m.s, DS, 0x1234) == 0
    assert (m.s[SEG_SEL + DS], m.s[SEG_BASE + DS]) == (0x1234, 0x12340)
    assert (m.s[SEG_LIMIT + DS], m.s[SEG_ATTR + DS]) == (0xFFFFFFFF, 0xC093)


def test_virtual_8086_load_resets_limit_and_rights(twin: Twin) -> None:
    m = setup.v86()
    m.s[SEG_LIMIT + FS] = 5
    assert twin(segments.load_segment)(m.s, FS, 0xFFFF) == 0
    assert (m.s[SEG_BASE + FS], m.s[SEG_LIMIT + FS], m.s[SEG_ATTR + FS]) == (0xFFFF0, 0xFFFF, 0xF3)


def test_load_sets_the_accessed_bit_in_memory(twin: Twin) -> None:
    m = setup.protected_user()
    assert m.get(setup.GDT + (setup.SMALL_DATA & ~7) + 5, "B") == (0xF2,)
    assert twin(segments.load_segment)(m.s, ES, setup.SMALL_DATA) == 0
    assert m.get(setup.GDT + (setup.SMALL_DATA & ~7) + 5, "B") == (0xF3,)
    assert (m.s[SEG_BASE + ES], m.s[SEG_LIMIT + ES], m.s[SEG_ATTR + ES]) == (0x8000, 0xFF, 0x40F3)


def test_granularity_expands_the_limit(twin: Twin) -> None:
    m = setup.protected()
    assert twin(segments.load_segment)(m.s, GS, setup.DATA) == 0
    assert m.s[SEG_LIMIT + GS] == 0xFFFFFFFF


def test_local_descriptor_table(twin: Twin) -> None:
    m = setup.protected()
    selector = 0x8 | ds.TI
    assert twin(segments.load_segment)(m.s, DS, selector) == 1
    assert fault(m) == (GP, selector)  # LDTR is null
    assert twin(ds.lldt)(m.s, setup.LDT_SELECTOR) == 0
    assert (m.s[LDT_BASE], m.s[LDT_LIMIT], m.s[LDT_ATTR]) == (setup.LDT, 0xFF, 0x82)
    m.put(setup.LDT + 8, "Q", setup.descriptor(0x1234, 0x10, 0x4093))
    assert twin(segments.load_segment)(m.s, DS, selector) == 0
    assert m.s[SEG_BASE + DS] == 0x1234


USER_LOADS = [
    (DS, setup.USER_DATA, None),
    (DS, setup.READ_ONLY, None),
    (DS, setup.USER_CODE32, None),  # readable code
    (DS, setup.CONFORMING32, None),  # any privilege
    (DS, setup.DATA, (GP, setup.DATA)),  # DPL 0
    (DS, setup.DATA | 3, (GP, setup.DATA)),
    (DS, setup.EXECUTE_ONLY, (GP, setup.EXECUTE_ONLY & ~3)),
    (DS, setup.GATE32, (GP, setup.GATE32 & ~3)),  # a system descriptor
    (DS, setup.BEYOND, (GP, setup.BEYOND)),
    (DS, 0, None),
    (SS, setup.USER_DATA, None),
    (SS, setup.USER_DATA & ~3, (GP, setup.USER_DATA & ~3)),  # RPL is not CPL
    (SS, setup.READ_ONLY, (GP, setup.READ_ONLY & ~3)),
    (SS, setup.USER_CODE32, (GP, setup.USER_CODE32 & ~3)),
    (SS, 0, (GP, 0)),
    (SS, 3, (GP, 0)),
]


@pytest.mark.parametrize(("segment", "selector", "expected"), USER_LOADS)
def test_checks_of_a_load_at_cpl_3(twin: Twin, segment: int, selector: int, expected: tuple[int, int] | None) -> None:
    m = setup.protected_user()
    before = bytes(m.s)
    assert twin(segments.load_segment)(m.s, segment, selector) == (expected is not None)
    if expected is None:
        assert m.s[SEG_SEL + segment] == selector
    else:
        assert fault(m) == expected
        assert bytes(m.s)[8 * SEG_SEL : 8 * CPL] == before[8 * SEG_SEL : 8 * CPL]


def test_absent_segments(twin: Twin) -> None:
    m = setup.protected()
    assert twin(segments.load_segment)(m.s, ES, setup.ABSENT_DATA) == 1
    assert fault(m) == (NP, setup.ABSENT_DATA)
    assert twin(segments.load_segment)(m.s, SS, setup.ABSENT_DATA) == 1
    assert fault(m) == (STACK_FAULT, setup.ABSENT_DATA)


def test_null_stack_segment_is_for_inner_64_bit_code(twin: Twin) -> None:
    m = setup.long()
    assert twin(segments.load_segment)(m.s, SS, 0) == 0
    assert m.s[SEG_ATTR + SS] & ds.UNUSABLE
    assert twin(segments.load_segment)(m.s, SS, 1) == 1
    assert fault(m) == (GP, 0)
    m = setup.long_user()
    assert twin(segments.load_segment)(m.s, SS, 3) == 1
    m = setup.compatibility()
    assert twin(segments.load_segment)(m.s, SS, 0) == 1


def test_null_fs_clears_the_base(twin: Twin) -> None:
    m = setup.long_user()
    m.s[SEG_BASE + FS] = 0xFFFF_8000_0000_1000
    assert twin(segments.load_segment)(m.s, FS, 0) == 0
    assert (m.s[SEG_SEL + FS], m.s[SEG_BASE + FS]) == (0, 0)


def test_descriptor_tables_are_read_as_supervisor(twin: Twin) -> None:
    m = setup.long_user()
    m.put(setup.PT + 8 * (setup.GDT >> 12), "Q", setup.GDT | 3)  # a supervisor page
    assert twin(segments.load_segment)(m.s, ES, setup.USER_DATA) == 0
    setup.unmap(m, setup.GDT)
    assert twin(segments.load_segment)(m.s, ES, setup.USER_DATA) == 1
    assert fault(m) == (PF, 0)  # neither present nor user
    assert m.s[FAULT_CR2] == setup.GDT + (setup.USER_DATA & ~7)


# ---- linear addresses -----------------------------------------------------------------------------------------
LINEAR = [
    (setup.SMALL_DATA, 0, 1, 0, 0x8000),
    (setup.SMALL_DATA, 0xFC, 4, 1, 0x80FC),
    (setup.SMALL_DATA, 0xFD, 4, 0, None),
    (setup.SMALL_DATA, 0xFFFFFFFF, 1, 0, None),
    (setup.EXPAND_DOWN, 0x1000, 1, 0, 0x2000),  # valid above the limit
    (setup.EXPAND_DOWN, 0xFFF, 1, 0, None),
    (setup.EXPAND_DOWN, 0xFFFFFFFC, 4, 1, 0xFFC),
    (setup.EXPAND_DOWN, 0xFFFFFFFD, 4, 0, None),
    (setup.READ_ONLY, 0x10, 4, 0, 0x10),
    (setup.READ_ONLY, 0x10, 4, 1, None),
    (setup.USER_CODE32, 0x10, 4, 0, 0x10),
    (setup.USER_CODE32, 0x10, 4, 1, None),
    (0, 0, 1, 0, None),
]


@pytest.mark.parametrize(("selector", "offset", "size", "access", "expected"), LINEAR)
def test_segment_checks(twin: Twin, selector: int, offset: int, size: int, access: int, expected: int | None) -> None:
    m = setup.protected_user()
    assert segments.load_segment(m.s, DS, selector) == 0
    status = twin(segments.linear)(m.s, DS, offset, size, access)
    assert status == (expected is None)
    if expected is None:
        assert fault(m) == (GP, 0)
    else:
        assert m.s[VALUE] == expected


def test_stack_limit_is_a_stack_fault(twin: Twin) -> None:
    m = setup.real()
    assert twin(segments.linear)(m.s, SS, 0xFFFF, 2, 0) == 1
    assert fault(m) == (STACK_FAULT, 0)
    assert twin(segments.linear)(m.s, DS, 0xFFFF, 2, 0) == 1
    assert fault(m) == (GP, 0)


def test_linear_addresses_wrap_at_32_bits(twin: Twin) -> None:
    m = setup.protected()
    m.s[SEG_BASE + ES] = 0xFFFFF000
    assert twin(segments.linear)(m.s, ES, 0x1234, 4, 0) == 0
    assert m.s[VALUE] == 0x234


def test_64_bit_mode_has_bases_in_fs_and_gs_only(twin: Twin) -> None:
    m = setup.long()
    for segment in range(6):
        m.s[SEG_BASE + segment] = 0xFFFF_8000_0000_0000
        assert twin(segments.linear)(m.s, segment, 0x10, 8, 1) == 0
        assert m.s[VALUE] == (0xFFFF_8000_0000_0010 if segment in (FS, GS) else 0x10)
    assert twin(segments.linear)(m.s, GS, M64, 8, 0) == 0
    assert m.s[VALUE] == 0xFFFF_7FFF_FFFF_FFFF  # not canonical: memory.py's business


# ---- the stack ------------------------------------------------------------------------------------------------
def test_push_and_pop_wrap_at_the_stack_width(twin: Twin) -> None:
    m = setup.real()
    m.s[GPR + RSP] = 0x5678_0000
    assert twin(segments.stack_push)(m.s, 0xABCD, 2) == 0
    assert m.s[GPR + RSP] == 0x5678_FFFE
    assert m.get(0xFFFE, "H") == (0xABCD,)
    assert twin(segments.stack_pop)(m.s, 2) == 0
    assert (m.s[VALUE], m.s[GPR + RSP]) == (0xABCD, 0x5678_0000)


def test_a_push_that_faults_leaves_the_stack_pointer(twin: Twin) -> None:
    m = setup.long_user()
    setup.unmap(m, setup.USER_STACK - 8)
    assert twin(segments.stack_push)(m.s, 1, 8) == 1
    assert fault(m) == (PF, 6)  # a user write
    assert m.s[GPR + RSP] == setup.USER_STACK


# ---- LAR, LSL, VERR, VERW, ARPL ----------------------------------------------------------------------------
def result(m: setup.Machine) -> tuple[int, int]:
    return m.s[VALUE], m.s[VALUE + 1]


def test_lar_and_lsl(twin: Twin) -> None:
    lar, lsl = twin(ds.lar), twin(ds.lsl)
    m = setup.protected_user()
    assert lar(m.s, setup.USER_DATA) == 0
    assert result(m) == (0x00C0F300, 1)  # bits 19-16 are not the limit's
    assert lsl(m.s, setup.SMALL_DATA) == 0
    assert result(m) == (0xFF, 1)
    assert lar(m.s, setup.DATA) == 0  # not visible at CPL 3
    assert result(m) == (0, 0)
    assert lar(m.s, setup.CONFORMING32) == 0
    assert result(m)[1] == 1
    assert lar(m.s, 0) == 0
    assert result(m) == (0, 0)
    assert lar(m.s, setup.GATE32) == 0
    assert result(m) == (0x0000EC00, 1)
    assert lsl(m.s, setup.GATE32) == 0  # a gate has no limit
    assert result(m) == (0, 0)
    assert lar(m.s, setup.TASK_GATE) == 0
    assert result(m)[1] == 1
    assert lsl(m.s, setup.TSS16_SELECTOR | 3) == 0
    assert result(m) == (0x2B, 1)


def test_lar_in_long_mode_knows_fewer_types(twin: Twin) -> None:
    m = setup.long()
    for selector, good in ((setup.TSS_SELECTOR, 1), (setup.TASK_GATE, 0), (setup.TSS16_SELECTOR, 0), (setup.GATE64, 1)):
        assert twin(ds.lar)(m.s, selector) == 0
        assert m.s[VALUE + 1] == good


def test_verr_and_verw(twin: Twin) -> None:
    verify = twin(ds.verify)
    m = setup.protected_user()
    cases = [
        (setup.USER_DATA, 1, 1), (setup.READ_ONLY, 1, 0), (setup.USER_CODE32, 1, 0), (setup.EXECUTE_ONLY, 0, 0),
        (setup.DATA, 0, 0), (setup.CONFORMING32, 1, 0), (setup.GATE32, 0, 0), (0, 0, 0), (setup.BEYOND, 0, 0),
    ]  # fmt: skip
    for selector, read, write in cases:
        assert verify(m.s, selector, 0) == 0
        assert m.s[VALUE + 1] == read, hex(selector)
        assert verify(m.s, selector, 1) == 0
        assert m.s[VALUE + 1] == write, hex(selector)


def test_arpl(twin: Twin) -> None:
    m = setup.protected()
    assert twin(ds.arpl)(m.s, 0x10, 3) == 0
    assert result(m) == (0x13, 1)
    assert twin(ds.arpl)(m.s, 0x13, 1) == 0
    assert result(m) == (0x13, 0)


@pytest.mark.parametrize("make", [setup.real, setup.v86])
def test_selector_instructions_need_protected_mode(twin: Twin, make: Callable[[], setup.Machine]) -> None:
    m = make()
    for function, arguments in ((ds.lar, 1), (ds.lsl, 1), (ds.verify, 2), (ds.arpl, 2), (ds.lldt, 1), (ds.sldt, 0)):
        assert twin(function)(m.s, *[8] * arguments) == 1
        assert fault(m) == (UD, 0)


# ---- table registers --------------------------------------------------------------------------------------------
def test_ltr(twin: Twin) -> None:
    ltr = twin(ds.ltr)
    m = setup.protected()
    assert ltr(m.s, setup.TSS_SELECTOR) == 1  # busy
    assert fault(m) == (GP, setup.TSS_SELECTOR)
    assert ltr(m.s, 0) == 1
    assert fault(m) == (GP, 0)
    assert ltr(m.s, setup.TSS_OTHER_SELECTOR) == 0
    assert m.s[TR_SEL] == setup.TSS_OTHER_SELECTOR
    assert m.get(setup.GDT + setup.TSS_OTHER_SELECTOR + 5, "B") == (0xEB,)
    m = setup.protected_user()
    assert ltr(m.s, setup.TSS_OTHER_SELECTOR) == 1
    assert fault(m) == (GP, 0)


def test_ltr_reads_16_bytes_in_long_mode(twin: Twin) -> None:
    m = setup.long()
    m.put(setup.GDT + 0x60, "QQ", setup.descriptor(0x12345678, 0x67, 0x89), 0x01000000)
    assert twin(ds.ltr)(m.s, 0x60) == 1  # a base that is not canonical
    assert fault(m) == (GP, 0x60)
    m.put(setup.GDT + 0x68, "Q", 0x00001000)
    assert twin(ds.ltr)(m.s, 0x60) == 0
    assert m.s[TR_SEL] == 0x60


@pytest.mark.parametrize(("make", "size", "wide"), [(setup.long, 8, True), (setup.protected, 4, False)])
def test_table_registers_in_memory(twin: Twin, make: Callable[[], setup.Machine], size: int, wide: bool) -> None:
    m = make()
    base = 0xFFFF_8000_1234_5678 if wide else 0x89ABCDEF
    m.put(0x8000, "HQ" if wide else "HI", 0x1FF, base)
    assert twin(ds.lgdt)(m.s, 0x8000, size) == 0
    assert (m.s[GDT_BASE], m.s[GDT_LIMIT]) == (base, 0x1FF)
    assert twin(ds.sgdt)(m.s, 0x8100, size) == 0
    length = 10 if wide else 6
    assert m.ram[0x8100 : 0x8100 + length] == m.ram[0x8000 : 0x8000 + length]
    assert m.get(0x8100 + length, "H") == (0,)


def test_lgdt_checks(twin: Twin) -> None:
    m = setup.long()
    m.put(0x8000, "HQ", 0x1FF, 1 << 56)
    assert twin(ds.lgdt)(m.s, 0x8000, 8) == 1
    assert fault(m) == (GP, 0)
    m = setup.protected()
    m.put(0x8000, "HI", 0x1FF, 0x89ABCDEF)
    assert twin(ds.lgdt)(m.s, 0x8000, 2) == 0  # 24 bits with a 16-bit operand
    assert m.s[GDT_BASE] == 0xABCDEF
    m = setup.protected_user()
    assert twin(ds.lgdt)(m.s, 0x8000, 4) == 1
    assert fault(m) == (GP, 0)


def test_umip(twin: Twin) -> None:
    m = setup.protected_user()
    assert twin(ds.str_)(m.s) == 0
    assert m.s[VALUE] == setup.TSS_SELECTOR
    m.s[CR4] = mode.CR4_UMIP
    assert twin(ds.str_)(m.s) == 1
    assert fault(m) == (GP, 0)
    assert twin(ds.sidt)(m.s, 0x8000, 4) == 1


# ---- the mode word -----------------------------------------------------------------------------------------------
MODES = [
    (setup.real, 0, 0xFFFF),
    (setup.protected, mode.PROTECTED | mode.CODE32 | mode.STACK32 | mode.FLAT, 0xFFFFFFFF),
    (setup.protected_user, mode.PROTECTED | mode.CODE32 | mode.STACK32 | mode.FLAT | 3 << mode.CPL_SHIFT, 0xFFFFFFFF),
    (setup.v86, mode.PROTECTED | mode.V86 | 3 << mode.CPL_SHIFT, 0xFFFF),
    (setup.long, mode.PROTECTED | mode.LONG_MODE | mode.CODE64, M64),
    (setup.long_user, mode.PROTECTED | mode.LONG_MODE | mode.CODE64 | 3 << mode.CPL_SHIFT, M64),
    (setup.compatibility, mode.PROTECTED | mode.LONG_MODE | mode.CODE32 | mode.STACK32 | mode.FLAT, 0xFFFFFFFF),
]


@pytest.mark.parametrize(("make", "expected", "mask"), MODES)
def test_mode_word(twin: Twin, make: Callable[[], setup.Machine], expected: int, mask: int) -> None:
    m = make()
    m.s[MODE] = m.s[STACK_MASK] = 0x5555
    assert twin(mode.update)(m.s) == 0
    absent = mode.NO_OSFXSR | mode.NO_OSXSAVE
    assert m.s[MODE] & ~(3 << mode.MMU_SHIFT) == expected | absent
    assert m.s[STACK_MASK] == mask
    assert m.s[MODE] >> mode.MMU_SHIFT & 3 == m.s[MMU]


def test_mmu_index(twin: Twin) -> None:
    update = twin(mode.update)
    m = setup.long()
    update(m.s)
    assert m.s[MMU] == mode.MMU_SUPERVISOR_USER_PAGES  # no SMAP
    m.s[CR4] |= mode.CR4_SMAP
    update(m.s)
    assert m.s[MMU] == mode.MMU_SUPERVISOR
    m.s[FLAGS] |= 1 << 18
    update(m.s)
    assert m.s[MMU] == mode.MMU_SUPERVISOR_USER_PAGES
    m.s[CPL] = 3
    m.s[CR0] |= mode.CR0_AM
    update(m.s)
    assert m.s[MMU] == mode.MMU_USER_ALIGNED
    m.s[FLAGS] &= ~(1 << 18)
    update(m.s)
    assert m.s[MMU] == mode.MMU_USER
