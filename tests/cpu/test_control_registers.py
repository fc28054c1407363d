"""Control and debug registers, XCR0, INVPCID, time-stamp counter: checks, consequences, faults; in both forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pyemu.cpu import control_registers as cr
from pyemu.cpu import cpuid, memory, mode, models, tlb, xstate
from pyemu.cpu.faults import DB, GP, UD
from pyemu.cpu.state import (
    CR0,
    CR2,
    CR3,
    CR4,
    DR,
    EFER,
    FAULT_DR6,
    FAULT_VECTOR,
    GPR,
    MMU,
    MODE,
    NO_FAULT,
    PDPTE,
    RAX,
    RCX,
    RDX,
    TSC_AUX,
    TSC_OFFSET,
    VALUE,
    XCR0,
    State,
)
from tests.cpu import system_setup as setup
from tests.cpu.fake_host import FakeHost

Twin = Callable[[Any], Callable[..., int]]
PG, WP, TS, PE, NW, CD, ET = 1 << 31, 1 << 16, 8, 1, 1 << 29, 1 << 30, 16
PAE, PGE, PCIDE, SMEP, SMAP, OSXSAVE, DE, TSD = 1 << 5, 1 << 7, 1 << 17, 1 << 20, 1 << 21, 1 << 18, 8, 4
GLOBAL = 1 << 8
LONG_BASE = 0x80010011


def machine(of: Callable[[], setup.Machine] = setup.long, model: str = "max") -> setup.Machine:
    m = of()
    m.s.host = FakeHost()
    cpuid.configure(m.s, models.model(model))
    return m


def fault(s: State) -> int:
    """The fault raised since the last call."""
    vector: int = s[FAULT_VECTOR]
    s[FAULT_VECTOR] = NO_FAULT
    return vector


def warm(m: setup.Machine, address: int = 0x20000, global_: bool = False) -> int:
    """Put a page into the TLB; the word index of its entry."""
    page = setup.PT + 8 * (address >> 12)
    (entry,) = m.get(page, "Q")
    m.put(page, "Q", entry | (GLOBAL if global_ else 0))
    assert memory.read(m.s, address, 1, memory.READ) == 0
    return tlb.entry(address, m.s[MMU])


def cached(m: setup.Machine, entry: int) -> bool:
    return bool(m.s[entry + tlb.READ_TAG] != tlb.INVALID)


@pytest.mark.parametrize("number", [0, 2, 3, 4, 8])
def test_read(twin: Twin, number: int) -> None:
    m = machine()
    m.s[CR2] = 0x1234567890
    m.s.host.set_tpr(9)
    assert twin(cr.read_cr)(m.s, number) == 0
    expected = {0: LONG_BASE, 2: 0x1234567890, 3: setup.PML4, 4: PAE, 8: 9}[number]
    assert m.s[VALUE] == expected


@pytest.mark.parametrize("function", ["read_cr", "read_dr", "invlpg", "lmsw", "clts", "write_cr"])
def test_privilege(twin: Twin, function: str) -> None:
    m = machine(setup.long_user)
    arguments = {"clts": (), "write_cr": (0, LONG_BASE)}.get(function, (0,))
    assert twin(getattr(cr, function))(m.s, *arguments) == 1
    assert fault(m.s) == GP


@pytest.mark.parametrize(
    "value",
    [1 << 32 | LONG_BASE, PG, LONG_BASE | NW, LONG_BASE & ~PG, LONG_BASE & ~PE],
    ids=["high half", "PG without PE", "NW without CD", "PG off in 64-bit code", "PE off"],
)
def test_cr0_refuses(twin: Twin, value: int) -> None:
    m = machine()
    assert twin(cr.write_cr)(m.s, 0, value) == 1
    assert fault(m.s) == GP
    assert m.s[CR0] == LONG_BASE


def test_cr0_ignores_reserved_bits_and_keeps_et(twin: Twin) -> None:
    m = machine()
    assert twin(cr.write_cr)(m.s, 0, LONG_BASE & ~ET | 0x1FFD0 & ~ET & ~0x20 | TS) == 0
    assert m.s[CR0] == LONG_BASE | TS | WP
    assert m.s[MODE] & mode.TASK_SWITCHED


def test_long_mode_comes_and_goes_with_paging(twin: Twin) -> None:
    m = machine(setup.compatibility)
    s = m.s
    assert twin(cr.write_cr)(s, 0, LONG_BASE & ~PG) == 0
    assert s[EFER] == 0x100
    assert not s[MODE] & mode.LONG_MODE
    s[CR4] = 0
    assert twin(cr.write_cr)(s, 0, LONG_BASE) == 1  # no PAE
    assert fault(s) == GP
    s[CR4] = PAE
    assert twin(cr.write_cr)(s, 0, LONG_BASE) == 0
    assert s[EFER] == 0x500
    assert s[MODE] & mode.LONG_MODE


def test_pae_pointers_are_loaded_and_checked(twin: Twin) -> None:
    m = machine(setup.protected)
    s = m.s
    table = 0x20020
    for n in range(4):
        m.put(table + 8 * n, "Q", 0x30000 + 0x1000 * n | 1)
    s[CR4] = PAE
    assert twin(cr.write_cr)(s, 3, table | 0x1F) == 0
    assert s[PDPTE] == 0  # not before paging is on
    assert twin(cr.write_cr)(s, 0, PG | PE | ET) == 0
    assert [s[PDPTE + n] for n in range(4)] == [0x30001, 0x31001, 0x32001, 0x33001]
    m.put(table + 16, "Q", 0x32003)
    assert twin(cr.write_cr)(s, 3, table) == 1
    assert fault(s) == GP
    assert s[PDPTE + 2] == 0x32001
    m.put(table + 16, "Q", 0x32002)  # reserved bits of an absent entry don't matter
    assert twin(cr.write_cr)(s, 3, table) == 0
    assert s[PDPTE + 2] == 0x32002


@pytest.mark.parametrize(
    ("number", "value", "global_survives"),
    [(3, setup.PML4, True), (0, LONG_BASE ^ WP, False), (4, PAE | PGE | SMEP, False), (4, PAE, False)],
)
def test_translations_dropped(twin: Twin, number: int, value: int, global_survives: bool) -> None:
    m = machine()
    m.s[CR4] = PAE | PGE
    ordinary, global_ = warm(m), warm(m, 0x21000, True)
    assert cached(m, ordinary)
    assert cached(m, global_)
    assert twin(cr.write_cr)(m.s, number, value) == 0
    assert not cached(m, ordinary)
    assert cached(m, global_) == global_survives


def test_cr3(twin: Twin) -> None:
    m = machine()
    write = twin(cr.write_cr)
    for bad in (1 << 40, 1 << 63, 1 << 51):
        assert write(m.s, 3, bad | setup.PML4) == 1
        assert fault(m.s) == GP
    assert write(m.s, 4, PAE | PCIDE) == 0
    assert write(m.s, 3, setup.PML4 | 5) == 0
    entry = warm(m)
    assert write(m.s, 3, 1 << 63 | setup.PML4 | 5) == 0
    assert cached(m, entry)
    assert m.s[CR3] == setup.PML4 | 5
    assert write(m.s, 3, 1 << 63 | setup.PML4 | 6) == 0  # another context: its translations are not kept apart
    assert not cached(m, entry)


def test_cr4(twin: Twin) -> None:
    m = machine()
    write = twin(cr.write_cr)
    for bad in (0, PAE | 1 << 13, PAE | 1 << 23, 1 << 32 | PAE, PAE | 1 << 12):  # LA57 not in long mode
        assert write(m.s, 4, bad) == 1
        assert fault(m.s) == GP
    m.s[CR3] |= 1
    assert write(m.s, 4, PAE | PCIDE) == 1  # a context number is there already
    assert fault(m.s) == GP
    assert write(m.s, 4, PAE | SMAP | SMEP | OSXSAVE) == 0
    assert m.s[MMU] == mode.MMU_SUPERVISOR
    m = machine(model="qemu64")
    assert write(m.s, 4, PAE | SMAP) == 1  # not announced
    m = machine(setup.protected)
    assert write(m.s, 4, PCIDE) == 1


def test_cr8_and_absent_ones(twin: Twin) -> None:
    m = machine()
    assert twin(cr.write_cr)(m.s, 8, 7) == 0
    assert m.s.host.get_tpr() == 7
    assert twin(cr.write_cr)(m.s, 8, 16) == 1
    assert fault(m.s) == GP
    assert twin(cr.write_cr)(m.s, 5, 0) == 1
    assert fault(m.s) == UD
    assert twin(cr.read_cr)(m.s, 1) == 1
    assert fault(m.s) == UD


def test_machine_status_word(twin: Twin) -> None:
    m = machine(setup.real)
    assert twin(cr.lmsw)(m.s, 0xFFFB) == 0
    assert m.s[CR0] == 0x1B
    assert twin(cr.lmsw)(m.s, 0) == 0
    assert m.s[CR0] == 0x11  # PE stays
    m = machine()
    m.s[CR0] |= TS
    assert twin(cr.clts)(m.s) == 0
    assert m.s[CR0] == LONG_BASE
    m = machine(setup.long_user)
    assert twin(cr.smsw)(m.s) == 0
    assert m.s[VALUE] == LONG_BASE


def test_debug_registers(twin: Twin) -> None:
    m = machine()
    s = m.s
    write, read = twin(cr.write_dr), twin(cr.read_dr)
    assert write(s, 0, 0xFFFF800000000000) == 0
    assert s[DR] == 0xFFFF800000000000
    assert write(s, 6, 0) == 0
    assert s[DR + 6] == 0xFFFF0FF0
    assert write(s, 7, 0xFFFFFFFF & ~(1 << 13)) == 0
    assert s[DR + 7] == 0xFFFF07FF
    for number in (6, 7):
        assert write(s, number, 1 << 32) == 1
        assert fault(s) == GP
    assert write(s, 5, 0x400) == 0  # another name of DR7
    assert read(s, 7) == 0
    assert s[VALUE] == 0x400
    s[CR4] |= DE
    assert read(s, 4) == 1
    assert fault(s) == UD
    assert write(s, 7, 1 << 13) == 0
    assert read(s, 0) == 1  # general detect
    assert (fault(s), s[FAULT_DR6]) == (DB, 1 << 13)


def test_xcr0(twin: Twin) -> None:
    m = machine()
    s = m.s
    s[XCR0] = 1
    assert twin(xstate.xgetbv)(s) == 1
    assert fault(s) == UD
    s[CR4] |= OSXSAVE
    for ecx, low, high in ((1, 3, 0), (0, 2, 0), (0, 5, 0), (0, 0x27, 0), (0, 3, 1)):
        s[GPR + RCX], s[GPR + RAX], s[GPR + RDX] = ecx, low, high
        assert twin(cr.xsetbv)(s) == 1
        assert fault(s) == GP
    s[GPR + RCX], s[GPR + RAX], s[GPR + RDX] = 0xFFFFFFFF00000000, 0xFFFFFFFF00000003, 0
    assert twin(cr.xsetbv)(s) == 0
    assert s[XCR0] == 3
    s[GPR + RDX] = 1 << 40
    assert twin(xstate.xgetbv)(s) == 0
    assert (s[GPR + RAX], s[GPR + RDX]) == (3, 0)
    s[GPR + RCX] = 2
    assert twin(xstate.xgetbv)(s) == 1
    assert fault(s) == GP


@pytest.mark.parametrize(
    ("kind", "pcid", "address", "kept"),
    [(0, 0, 0x20000, (False, True)), (1, 0, 0, (False, True)), (2, 0, 0, (False, False)), (3, 0, 0, (False, True))],
)
def test_invpcid(twin: Twin, kind: int, pcid: int, address: int, kept: tuple[bool, bool]) -> None:
    m = machine()
    m.s[CR4] |= PGE
    entries = warm(m), warm(m, 0x21000, True)
    m.put(0x20100, "QQ", pcid, address)
    assert twin(cr.invpcid)(m.s, kind, 0x20100) == 0
    assert tuple(cached(m, e) for e in entries) == kept


@pytest.mark.parametrize(
    ("kind", "pcid", "address"), [(4, 0, 0), (0, 1, 0), (1, 1, 0), (2, 0x1000, 0), (0, 0, 1 << 56), (1 << 32, 0, 0)]
)
def test_invpcid_refuses(twin: Twin, kind: int, pcid: int, address: int) -> None:
    m = machine()
    m.put(0x20100, "QQ", pcid, address)
    assert twin(cr.invpcid)(m.s, kind, 0x20100) == 1
    assert fault(m.s) == GP


def test_time_stamp_counter(twin: Twin) -> None:
    m = machine(setup.long_user)
    s = m.s
    s[TSC_OFFSET], s[TSC_AUX] = 1 << 40, 7
    assert twin(cr.rdtscp)(s) == 0
    assert (s[GPR + RAX], s[GPR + RDX], s[GPR + RCX]) == (1000, 1 << 8, 7)
    s[CR4] |= TSD
    assert twin(cr.rdtsc)(s) == 1
    assert fault(s) == GP
    assert twin(cr.rdpmc)(s) == 1
    assert fault(s) == GP
