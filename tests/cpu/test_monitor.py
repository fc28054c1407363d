"""MONITOR and MWAIT on every back end, their CPUID leaf, and the registers of machine checks (SDM 3, 8.10 and 15.3)."""

from __future__ import annotations

import pytest

from pyemu.cpu import cpuid, models, msr, reset
from pyemu.cpu.faults import GP, PF, UD
from pyemu.cpu.features import IMPLEMENTED
from pyemu.cpu.flags import IF
from pyemu.cpu.state import CR4_ALLOWED, FLAGS, GPR, MONITORED, NMI_PENDING, RAX, RCX, RIP, State
from tests.cpu import programs
from tests.cpu import system_setup as setup
from tests.cpu.fake_host import FakeHost

MONITOR, MWAIT = ".byte 0x0f, 0x01, 0xc8; ", ".byte 0x0f, 0x01, 0xc9; "
LINE, UNMAPPED = 0x8000, 0x80000000
M64 = (1 << 64) - 1
backends = pytest.mark.parametrize("backend", programs.BACKENDS)


def machine(make: object = setup.long, ecx: int = 0, address: int = LINE, monitor: bool = True) -> setup.Machine:
    """A processor in some mode, with operands for the two."""
    assert callable(make)
    m = make()
    assert isinstance(m, setup.Machine)
    cpuid.configure(m.s, None, IMPLEMENTED if monitor else IMPLEMENTED - {"monitor"})
    m.s[GPR + RAX], m.s[GPR + RCX] = address, ecx
    return m


@backends
def test_waits_after_monitor_and_not_without(backend: str) -> None:
    m = machine()
    assert programs.run(m, backend, f"{MONITOR}{MWAIT}hlt").rip == setup.CODE + 6  # not at the HLT, which is behind it
    end = programs.run(machine(), backend, f"{MWAIT}hlt")
    assert (end.vector, end.rip) == (-1, setup.CODE + 4)
    end = programs.run(machine(), backend, f"{MONITOR}{MWAIT}{MWAIT}hlt")
    assert end.rip == setup.CODE + 6
    assert m.s[MONITORED] == 0


@backends
def test_an_interrupt_in_between_ends_the_wait_before_it_begins(backend: str) -> None:
    m = machine()
    programs.handler(m, 2, "iretq")
    code = programs.assemble(f"{MWAIT}hlt")
    m.s.ram[setup.CODE : setup.CODE + len(code)] = code
    m.s[MONITORED], m.s[NMI_PENDING] = 1, 1
    programs.Runner(m, backend).go()
    assert m.s[RIP] == setup.CODE + 4


@backends
def test_masked_interrupts_as_break_events(backend: str) -> None:
    text = f"xor ecx, ecx; {MONITOR}inc ecx; {MWAIT}hlt"
    length = len(programs.assemble(text))
    assert programs.run(machine(), backend, text).rip == setup.CODE + length
    m = machine()
    m.s[FLAGS] |= IF
    assert programs.run(m, backend, text).rip == setup.CODE + length - 1


@backends
@pytest.mark.parametrize("text", [MONITOR, MWAIT])
def test_who_may(backend: str, text: str) -> None:
    for make, bits in ((setup.long_user, 64), (setup.protected_user, 32), (setup.v86, 16)):
        assert programs.run(machine(make), backend, text, bits).vector == UD
    assert programs.run(machine(monitor=False), backend, text).vector == UD
    assert programs.run(machine(ecx=2), backend, text).vector == GP
    assert programs.run(machine(ecx=1), backend, text + "hlt").vector == (GP if text == MONITOR else -1)
    assert programs.run(machine(ecx=1 << 32), backend, text + "hlt").vector == -1
    for make, bits in ((setup.real, 16), (setup.protected, 32)):
        assert programs.run(machine(make), backend, text + "hlt", bits).vector == -1


@backends
def test_the_address_is_that_of_a_load(backend: str) -> None:
    end = programs.run(machine(address=UNMAPPED), backend, MONITOR)
    assert (end.vector, end.error, end.cr2) == (PF, 0, UNMAPPED)
    assert programs.run(machine(address=1 << 60), backend, MONITOR).vector == GP
    assert programs.run(machine(address=UNMAPPED << 32 | LINE), backend, ".byte 0x67; " + MONITOR + "hlt").vector == -1


# ---- CPUID and machine checks --------------------------------------------------------------------------------------
def processor(model: str) -> State:
    m = setup.long()
    m.s.host = FakeHost()
    cpuid.configure(m.s, models.model(model))
    return m.s


def test_leaf_5() -> None:
    assert cpuid.leaf(processor("max"), 5, 0) == (64, 64, 3, 0)
    assert cpuid.leaf(processor("core2duo"), 5, 0) == (64, 64, 3, 0)
    assert cpuid.leaf(processor("Haswell"), 5, 0) == (0, 0, 0, 0)


def test_banks_of_machine_checks() -> None:
    s = processor("max")
    reset.reset(s)
    assert msr.read(s, msr.IA32_MCG_CAP) == 0x0100010A
    assert not msr.write(s, msr.IA32_MCG_CAP, 0)
    assert msr.read(s, msr.IA32_MCG_CTL) == M64
    assert msr.write(s, msr.IA32_MCG_CTL, 0)
    assert not msr.write(s, msr.IA32_MCG_CTL, 1)
    assert msr.read(s, msr.IA32_MCG_CTL) == 0
    for index in range(0x400, 0x428):
        assert msr.read(s, index) == (0 if index & 3 else M64)
        assert msr.write(s, index, 0)
        control, status = index & 3 == 0, index & 3 == 1
        for value in (1, 0xAAAAAAAAAAAAAAAA):
            assert msr.write(s, index, value) == (not control and not status)
            assert msr.read(s, index) == (0 if control or status else value)
        assert msr.write(s, index, M64) == (not status)
        assert msr.read(s, index) == (0 if status else M64)
    assert msr.write(s, 0x424, M64 - (1 << 10))
    assert msr.read(s, 0x428) is None
    assert not msr.write(s, 0x428, 0)
    reset.init(s)
    assert [msr.read(s, index) for index in range(0x424, 0x428)] == [M64 - (1 << 10), 0, M64, M64]  # kept
    reset.reset(s)
    assert [msr.read(s, index) for index in range(0x424, 0x428)] == [M64, 0, 0, 0]


@pytest.mark.parametrize(("model", "old", "banks"), [("486", None, None), ("pentium", 0, None), ("pentium2", 0, 0)])
def test_which_models_have_them(model: str, old: int | None, banks: int | None) -> None:
    s = processor(model)
    assert msr.read(s, 0) == msr.read(s, 1) == old
    assert msr.read(s, msr.IA32_MCG_STATUS) == banks
    assert msr.write(s, msr.IA32_MCG_STATUS, 0) == (banks is not None)
    assert msr.read(s, msr.IA32_MCG_CAP) == (0 if banks is None else 0x0100010A)
    assert bool(s[CR4_ALLOWED] & 1 << 6) == (old is not None)
