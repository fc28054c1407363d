"""FXSAVE and the XSAVE family: layout, round trips, faults; in both forms of the code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pyemu.cpu import fxsave
from pyemu.cpu.faults import GP, NM, PF, UD
from pyemu.cpu.state import (
    CR0,
    CR4,
    FAULT_CR2,
    FAULT_VECTOR,
    FCS,
    FCW,
    FDP,
    FDS,
    FIP,
    FOP,
    FPR,
    FSW,
    FTW,
    GPR,
    MXCSR,
    NO_FAULT,
    OPMASK,
    RAX,
    RDX,
    VEC,
    XCR0,
    State,
)
from tests.cpu import system_setup as setup

Twin = Callable[[Any], Callable[..., int]]
AREA = 0x20000
OSXSAVE = 1 << 18


def machine(of: Callable[[], setup.Machine] = setup.long) -> setup.Machine:
    m = of()
    s = m.s
    s[CR4] |= OSXSAVE
    s[XCR0] = 3
    fill(s, 1)
    for n in range(0x1000):
        m.s.ram[AREA + n] = 0xCC
    for n in range(64):
        m.s.ram[AREA + 512 + n] = 0
    return m


def fill(s: State, seed: int) -> None:
    """Something different in every register."""
    pending = 0x80C1  # an invalid operation that isn't masked
    s[FCW], s[FSW], s[FTW], s[FOP] = 0x340 + 2 * seed, (seed + 2 & 7) << 11 | pending, 0xA5 ^ seed, 0x123 + seed
    s[FIP], s[FDP], s[MXCSR] = 0x123456789ABC + seed, 0xFFFF888812345678 - seed, 0x1F80 + seed
    s[FCS], s[FDS] = 0x1234 + seed, 0x5678 + seed
    for n in range(8):
        s[FPR + 2 * n], s[FPR + 2 * n + 1] = 0x8000000000000000 + n * 257 + seed, 0x3FFF + n
    for n in range(32):
        for word in range(8):
            s[VEC + 8 * n + word] = (n << 56) + (word << 48) + seed


def x87(s: State) -> list[int]:
    return [s[w] for w in (FCW, FSW, FTW, FOP, FIP, FDP)] + [s[FPR + n] for n in range(16)]


def xmm(s: State) -> list[int]:
    return [s[VEC + n] for n in range(256)]


def low_halves(values: list[int]) -> list[int]:
    return [values[8 * n + word] for n in range(16) for word in range(2)]


def mask(s: State, value: int) -> None:
    s[GPR + RAX], s[GPR + RDX] = value, 0


def test_layout(twin: Twin) -> None:
    m = machine()
    assert twin(fxsave.fxsave)(m.s, AREA, 1) == 0
    assert m.get(AREA, "HHBBH") == (0x342, 3 << 11 | 0x80C1, 0xA4, 0, 0x124)
    assert m.get(AREA + 8, "QQII") == (0x123456789ABD, 0xFFFF888812345677, 0x1F81, 0xFFFF)
    assert m.get(AREA + 32, "QH6B") == (0x8000000000000000 + 3 * 257 + 1, 0x4002, 0, 0, 0, 0, 0, 0)  # ST0 is R3
    assert m.get(AREA + 160 + 16 * 15, "QQ") == ((15 << 56) + 1, (15 << 56) + (1 << 48) + 1)
    assert m.s.ram[AREA + 416] == 0xCC
    assert twin(fxsave.fxsave)(m.s, AREA, 0) == 0
    assert m.get(AREA + 8, "IIII") == (0x56789ABD, 0x1235, 0x12345677, 0x5679)
    m.s[FCW] |= 1
    m.s[FSW] &= ~0x8080
    assert twin(fxsave.fxsave)(m.s, AREA, 1) == 0
    assert m.get(AREA + 6, "H") == (0,), "nothing is pending"
    assert m.get(AREA + 8, "QQ") == (0, 0)


def test_restored_exceptions_are_pending_where_they_are_not_masked(twin: Twin) -> None:
    """FXRSTOR takes the pointers at any rate, of 57 bits; ES and B follow from flags and masks (as on Zen 4)."""
    m = machine()
    for control, status, after in ((0x37F, 0x80C1, 0x41), (0x37E, 0x01, 0x8081), (0xE07E, 0x8000, 0)):
        m.put(AREA, "HHHH", control, status, 0, 0xFFFF)
        m.put(AREA + 8, "QQII", 0x1122334455667788, 0x80AABBCCDDEEFF00, 0x1F80, 0)
        assert twin(fxsave.fxrstor)(m.s, AREA, 1) == 0
        assert (m.s[FCW], m.s[FSW], m.s[FOP]) == (control & 0x1FFF, after, 0x7FF)
        assert (m.s[FIP], m.s[FDP]) == (0xFF22334455667788, 0x00AABBCCDDEEFF00)
        assert (m.s[FCS], m.s[FDS]) == (0, 0)
        assert twin(fxsave.fxrstor)(m.s, AREA, 0) == 0
        assert (m.s[FIP], m.s[FCS], m.s[FDP], m.s[FDS]) == (0x55667788, 0x3344, 0xDDEEFF00, 0xBBCC)


RESTORE = {"fxsave": fxsave.fxrstor, "xsaves": fxsave.xrstors}


@pytest.mark.parametrize("save", ["fxsave", "xsave", "xsaveopt", "xsavec", "xsaves"])
def test_round_trip(twin: Twin, save: str) -> None:
    m = machine()
    s = m.s
    mask(s, 0xFFFFFFFF)
    assert twin(getattr(fxsave, save))(s, AREA, 1) == 0
    before = x87(s), s[MXCSR], low_halves(xmm(s))
    fill(s, 2)
    upper = s[VEC + 2]
    assert twin(RESTORE.get(save, fxsave.xrstor))(s, AREA, 1) == 0
    assert (x87(s), s[MXCSR], low_halves(xmm(s))) == before
    assert s[VEC + 2] == upper


def test_legacy_modes_reach_eight_registers(twin: Twin) -> None:
    m = machine(setup.protected)
    assert twin(fxsave.fxsave)(m.s, AREA, 0) == 0
    assert m.get(AREA + 160 + 16 * 7, "Q") == ((7 << 56) + 1,)
    assert m.s.ram[AREA + 160 + 16 * 8] == 0xCC
    fill(m.s, 2)
    assert twin(fxsave.fxrstor)(m.s, AREA, 0) == 0
    assert (m.s[VEC + 8 * 7], m.s[VEC + 8 * 8]) == ((7 << 56) + 1, (8 << 56) + 2)


def test_requested_components_only(twin: Twin) -> None:
    m = machine()
    s = m.s
    mask(s, 2)
    assert twin(fxsave.xsave)(s, AREA, 1) == 0
    assert bytes(m.s.ram[AREA : AREA + 24]) == b"\xcc" * 24
    assert m.get(AREA + 24, "I") == (0x1F81,)
    assert m.get(AREA + 512, "QQ") == (2, 0)
    mask(s, 1)
    assert twin(fxsave.xsave)(s, AREA, 1) == 0
    assert m.get(AREA + 512, "QQ") == (3, 0)
    assert twin(fxsave.xsavec)(s, AREA, 1) == 0
    assert m.get(AREA + 512, "QQ") == (1, 1 << 63 | 1)
    saved = x87(s)
    fill(s, 5)
    wanted = xmm(s), s[MXCSR]
    assert twin(fxsave.xrstor)(s, AREA, 1) == 0
    assert x87(s) == saved
    assert (xmm(s), s[MXCSR]) == wanted


def test_absent_components_are_initialised(twin: Twin) -> None:
    m = machine()
    s = m.s
    mask(s, 3)
    m.put(AREA + 24, "I", 0x1FA0)
    assert twin(fxsave.xrstor)(s, AREA, 1) == 0
    assert x87(s) == [0x37F, *[0] * 21]
    assert set(low_halves(xmm(s))) == {0}
    assert s[MXCSR] == 0x1FA0  # the standard form takes it from memory nevertheless
    m.put(AREA + 520, "Q", 1 << 63 | 3)
    assert twin(fxsave.xrstor)(s, AREA, 1) == 0
    assert s[MXCSR] == 0x1F80


@pytest.mark.parametrize(
    ("offset", "value"), [(512, 4), (520, 1), (528, 1), (24, 0x10000), (520, 1 << 63 | 4), (512, 1 << 63)]
)
def test_restore_refuses(twin: Twin, offset: int, value: int) -> None:
    m = machine()
    mask(m.s, 3)
    m.put(AREA + 24, "I", 0x1F80)
    m.put(AREA + offset, "Q", value)
    before = x87(m.s), xmm(m.s)
    assert twin(fxsave.xrstor)(m.s, AREA, 1) == 1
    assert m.s[FAULT_VECTOR] == GP
    assert (x87(m.s), xmm(m.s)) == before


def test_compacted_header_is_checked_to_its_end(twin: Twin) -> None:
    m = machine()
    mask(m.s, 3)
    m.put(AREA + 568, "Q", 1)
    assert twin(fxsave.xrstor)(m.s, AREA, 1) == 1 or m.s[MXCSR] == 0xCCCCCCCC  # MXCSR in the area is bad
    m.s[FAULT_VECTOR] = NO_FAULT
    m.put(AREA + 24, "I", 0x1F80)
    assert twin(fxsave.xrstor)(m.s, AREA, 1) == 0  # the standard form looks at bytes 8-23 only
    m.put(AREA + 520, "Q", 1 << 63 | 3)
    assert twin(fxsave.xrstor)(m.s, AREA, 1) == 1
    assert m.s[FAULT_VECTOR] == GP


def test_compacted_header_marks_no_component_63(twin: Twin) -> None:
    """Bit 63 of XCOMP_BV is the format, of XSTATE_BV it is reserved."""
    m = machine()
    mask(m.s, 3)
    m.put(AREA + 24, "I", 0x1F80)
    m.put(AREA + 512, "QQ", 1 << 63, 1 << 63 | 3)
    assert twin(fxsave.xrstor)(m.s, AREA, 1) == 1
    assert m.s[FAULT_VECTOR] == GP


@pytest.mark.parametrize(
    ("name", "cr0", "cr4", "misaligned", "vector"),
    [
        ("fxsave", 8, OSXSAVE, 0, NM), ("fxrstor", 4, OSXSAVE, 0, NM), ("fxsave", 0, OSXSAVE, 8, GP),
        ("fxrstor", 0, OSXSAVE, 4, GP), ("xsave", 8, OSXSAVE, 0, NM), ("xrstor", 0, 0, 0, UD), ("xsavec", 0, 0, 16, UD),
        ("xsave", 0, OSXSAVE, 16, GP), ("xrstor", 0, OSXSAVE, 32, GP),
    ],
)  # fmt: skip
def test_not_available(twin: Twin, name: str, cr0: int, cr4: int, misaligned: int, vector: int) -> None:
    m = machine()
    m.s[CR0] |= cr0
    m.s[CR4] = 0x20 | cr4
    assert twin(getattr(fxsave, name))(m.s, AREA + misaligned, 1) == 1
    assert m.s[FAULT_VECTOR] == vector


def test_page_fault_before_anything_is_written(twin: Twin) -> None:
    m = machine()
    setup.unmap(m, 0x21000)
    mask(m.s, 3)
    for name, at in (("fxsave", 0x20F00), ("xsave", 0x20F00), ("fxrstor", 0x20F00), ("xrstor", 0x20F00)):
        before = bytes(m.s.ram[0x20F00:0x21000])
        assert twin(getattr(fxsave, name))(m.s, at, 1) == 1
        assert (m.s[FAULT_VECTOR], m.s[FAULT_CR2] & ~0xFFF) == (PF, 0x21000)  # Zen 4 touches the last byte first
        assert bytes(m.s.ram[0x20F00:0x21000]) == before


# ---- AVX and AVX-512 state ---------------------------------------------------------------------------------------
ALL_STATE = 0xE7
# offsets of the standard format: QEMU's and Intel's
AT_YMM, AT_OPMASK, AT_ZMM, AT_HIGH_ZMM, END = 576, 1088, 1152, 1664, 2688


def wide() -> setup.Machine:
    """A machine with all vector state on and something in each of its words."""
    m = machine()
    m.s[XCR0] = ALL_STATE
    for n in range(32 * 8):
        m.s[VEC + n] = 0x1111_0000 + n
    for n in range(8):
        m.s[OPMASK + n] = 0x2222_0000 + n
    return m


def word_at(m: setup.Machine, offset: int) -> int:
    return int.from_bytes(m.s.ram[AREA + offset : AREA + offset + 8], "little")


def test_standard_format_of_vector_state(twin: Twin) -> None:
    m = wide()
    mask(m.s, ALL_STATE)
    assert twin(fxsave.xsave)(m.s, AREA, 1) == 0
    assert word_at(m, 512) == ALL_STATE
    for n in range(16):
        assert word_at(m, AT_YMM + 16 * n + 8) == 0x1111_0000 + 8 * n + 3
        assert word_at(m, AT_ZMM + 32 * n + 24) == 0x1111_0000 + 8 * n + 7
        assert word_at(m, AT_HIGH_ZMM + 64 * n + 56) == 0x1111_0000 + 8 * (16 + n) + 7
    assert word_at(m, AT_OPMASK + 56) == 0x2222_0007
    assert m.s.ram[AREA + END] == 0xCC


@pytest.mark.parametrize("name", ["xsave", "xsavec", "xsaves", "xsaveopt"])
@pytest.mark.parametrize("components", [ALL_STATE, 7, 3, 0xE3, 4, 0x40])
def test_vector_state_comes_back(twin: Twin, name: str, components: int) -> None:
    m = wide()
    before = [m.s[n] for n in range(VEC, OPMASK + 8)]
    mask(m.s, components)
    assert twin(getattr(fxsave, name))(m.s, AREA, 1) == 0
    for n in range(VEC, OPMASK + 8):
        m.s[n] = 0x3333
    assert twin(RESTORE.get(name, fxsave.xrstor))(m.s, AREA, 1) == 0
    where = {2: (2, 4), 6: (4, 8)}
    for n in range(VEC, OPMASK):
        register, word = (n - VEC) >> 3, (n - VEC) & 7
        if register >= 16:
            component = 7
        else:
            component = next((c for c, (low, high) in where.items() if low <= word < high), 1)
        assert m.s[n] == (before[n - VEC] if components >> component & 1 else 0x3333), (register, word)
    assert m.s[OPMASK] == (before[OPMASK - VEC] if components >> 5 & 1 else 0x3333)


def test_components_with_initial_values_are_left_out(twin: Twin) -> None:
    m = wide()
    for n in range(16, 32):
        for word in range(8):
            m.s[VEC + 8 * n + word] = 0
    for n in range(16):
        m.s[VEC + 8 * n + 2] = m.s[VEC + 8 * n + 3] = 0
    mask(m.s, ALL_STATE)
    assert twin(fxsave.xsavec)(m.s, AREA, 1) == 0
    assert word_at(m, 512) == ALL_STATE & ~0x84
    assert word_at(m, 520) == 1 << 63 | ALL_STATE
    assert m.s.ram[AREA + AT_YMM] == 0xCC
    assert word_at(m, 576 + 256) == 0x2222_0000  # opmask, behind the room for AVX
    for n in range(VEC, OPMASK):
        m.s[n] = 0x3333
    assert twin(fxsave.xrstor)(m.s, AREA, 1) == 0
    assert m.s[VEC + 8 * 20] == m.s[VEC + 2] == 0


def test_32_bit_code_reaches_eight_registers(twin: Twin) -> None:
    m = machine(setup.protected)
    m.s[XCR0] = ALL_STATE
    for n in range(32 * 8):
        m.s[VEC + n] = 1
    mask(m.s, ALL_STATE)
    assert twin(fxsave.xsave)(m.s, AREA, 0) == 0
    assert word_at(m, AT_YMM + 16 * 7) == 1
    assert m.s.ram[AREA + AT_YMM + 16 * 8] == m.s.ram[AREA + AT_HIGH_ZMM] == 0xCC
