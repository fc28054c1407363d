"""Local APIC, its timer and the bus: priorities, EOI, IPIs, both register interfaces, modes, Linux's calibration."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyemu.devices import apic as a
from pyemu.devices.apic import Apic
from pyemu.devices.apic_bus import ApicBus
from pyemu.devices.interfaces import EXTINT, LocalApic
from pyemu.devices.ioapic import IoApic
from tests.devices.helpers import FakeClock

GHZ = 2  # TSC ticks per ns


class Rig:
    def __init__(self, cpus: int = 1) -> None:
        self.clock = FakeClock()
        self.bus = ApicBus()
        self.events: list[tuple[object, ...]] = []
        self.apics = [self.make(i) for i in range(cpus)]
        self.apic = self.apics[0]
        self.eois: list[int] = []
        self.bus.add_eoi_listener(self.eois.append)

    def make(self, number: int) -> Apic:
        apic = Apic(
            self.clock,
            number,
            is_bsp=number == 0,
            tsc_now=lambda: self.clock.now * GHZ,
            tsc_to_ns=lambda tsc: -(-tsc // GHZ),
        )
        apic.on_change = lambda: self.events.append(("change", number, apic.pending_vector()))
        apic.on_nmi = lambda: self.events.append(("nmi", number))
        apic.on_init = lambda: self.events.append(("init", number))
        apic.on_sipi = lambda vector: self.events.append(("sipi", number, vector))
        apic.external_acknowledge = lambda: 0x30
        self.bus.add(apic)
        return apic

    def write(self, register: int, value: int, cpu: int = 0) -> None:
        self.apics[cpu].mmio_write(register << 4, 4, value)

    def read(self, register: int, cpu: int = 0) -> int:
        return self.apics[cpu].mmio_read(register << 4, 4)

    def enable(self) -> None:
        for i in range(len(self.apics)):
            self.write(a.SVR, 0x1FF, i)

    def inject(self, vector: int, level: bool = False) -> None:
        self.bus.deliver(0, False, a.FIXED, vector, level)

    def take(self) -> int:
        return self.apic.acknowledge()

    def eoi(self) -> None:
        self.write(a.EOI, 0)


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    rig.enable()
    return rig


def to_x2apic(rig: Rig, cpu: int = 0) -> None:
    base = rig.apics[cpu].msr_read(a.MSR_APIC_BASE)
    assert base is not None and rig.apics[cpu].msr_write(a.MSR_APIC_BASE, base | a.BASE_EXTD)


def test_is_a_local_apic(rig: Rig) -> None:
    assert isinstance(rig.apic, LocalApic)


def test_reset_values() -> None:
    rig = Rig(2)
    assert rig.read(a.ID, 1) == 1 << 24
    assert rig.read(a.VERSION) == 0x50014
    assert rig.read(a.SVR) == 0xFF
    assert [rig.read(r) for r in range(a.LVT_TIMER, a.LVT_ERROR + 1)] == [0x10000] * 6
    assert rig.read(a.DFR) == 0xFFFFFFFF
    assert rig.apics[0].msr_read(a.MSR_APIC_BASE) == 0xFEE00900
    assert rig.apics[1].msr_read(a.MSR_APIC_BASE) == 0xFEE00800


def test_software_disabled_accepts_nothing() -> None:
    rig = Rig()
    rig.inject(0x40)
    assert rig.read(a.IRR0 + 2) == 0
    rig.write(a.LVT_TIMER, 0x30)
    assert rig.read(a.LVT_TIMER) == 0x10030


def test_priorities_nesting_and_eoi(rig: Rig) -> None:
    rig.inject(0x41)
    rig.inject(0x52)
    assert rig.take() == 0x52
    assert rig.apic.pending_vector() == -1
    assert rig.read(a.PPR) == 0x50
    assert rig.read(a.ISR0 + 2) == 1 << 0x12
    rig.inject(0x5F)  # same class: waits
    assert rig.apic.pending_vector() == -1
    rig.inject(0x61)
    assert rig.take() == 0x61
    rig.eoi()
    assert rig.apic.pending_vector() == -1
    rig.eoi()
    assert [rig.take(), rig.apic.pending_vector()] == [0x5F, -1]
    rig.eoi()
    assert rig.take() == 0x41
    rig.eoi()
    assert rig.take() == -1
    assert rig.eois == []  # all were edges


def test_task_priority(rig: Rig) -> None:
    rig.apic.set_tpr(0x50)
    rig.inject(0x5F)
    assert rig.apic.pending_vector() == -1
    rig.inject(0x60)
    assert rig.apic.pending_vector() == 0x60
    rig.write(a.TPR, 0x40)
    rig.take()
    rig.eoi()
    assert rig.apic.pending_vector() == 0x5F
    assert rig.apic.get_tpr() == 0x40


def test_one_vector_in_service_and_requested(rig: Rig) -> None:
    rig.inject(0x41)
    rig.take()
    rig.inject(0x41)
    rig.inject(0x41)
    rig.eoi()
    assert rig.take() == 0x41
    rig.eoi()
    assert rig.take() == -1


def test_changes_are_announced_once(rig: Rig) -> None:
    rig.events.clear()
    rig.inject(0x41)
    rig.inject(0x41)
    rig.inject(0x31)
    rig.take()
    rig.eoi()
    assert rig.events == [("change", 0, 0x41), ("change", 0, -1), ("change", 0, 0x31)]


def test_level_interrupt_with_io_apic(rig: Rig) -> None:
    ioapic = IoApic(rig.bus.deliver)
    rig.bus.add_eoi_listener(ioapic.end_of_interrupt)
    ioapic.mmio_write(0, 4, 0x10 + 2 * 9)
    ioapic.mmio_write(0x10, 4, 0x8000 | 0x39)
    line = ioapic.line(9)
    line.set(True)
    assert rig.take() == 0x39
    assert ioapic.mmio_read(0x10, 4) & 0x4000
    assert rig.read(a.TMR0 + 1) == 1 << 0x19
    rig.eoi()  # asserted still: comes again
    assert rig.eois == [0x39]
    assert rig.take() == 0x39
    line.set(False)
    rig.eoi()
    assert not ioapic.mmio_read(0x10, 4) & 0x4000
    assert rig.take() == -1


def test_self_ipi(rig: Rig) -> None:
    rig.write(a.ICR_LOW, 0x40045)
    assert rig.take() == 0x45
    rig.eoi()
    to_x2apic(rig)
    assert rig.apic.msr_write(0x83F, 0x46)
    assert rig.take() == 0x46


def test_ipis_between_processors() -> None:
    rig = Rig(3)
    rig.enable()
    rig.events.clear()
    rig.write(a.ICR_HIGH, 2 << 24)
    rig.write(a.ICR_LOW, 0x4055)
    assert [x.pending_vector() for x in rig.apics] == [-1, -1, 0x55]
    rig.write(a.ICR_LOW, 0xC4056)  # all but self
    assert [x.pending_vector() for x in rig.apics] == [-1, 0x56, 0x56]
    rig.write(a.ICR_LOW, 0x84057)  # all
    assert [x.pending_vector() for x in rig.apics] == [0x57] * 3
    rig.events.clear()
    # How Linux wakes processor 1
    rig.write(a.ICR_HIGH, 1 << 24)
    rig.write(a.ICR_LOW, 0xC500)
    rig.write(a.ICR_LOW, 0x8500)  # de-assert does nothing
    rig.write(a.ICR_LOW, 0x4600 | 0x9A)
    assert [e for e in rig.events if e[0] != "change"] == [("init", 1), ("sipi", 1, 0x9A)]
    rig.write(a.ICR_HIGH, 1 << 24)
    rig.write(a.ICR_LOW, 0x4400)
    assert rig.events[-1] == ("nmi", 1)


def test_logical_destinations() -> None:
    rig = Rig(2)
    rig.enable()
    for i in range(2):
        rig.write(a.LDR, 1 << 24 + i, i)
    rig.bus.deliver(0x02, True, a.FIXED, 0x61, False)
    assert [x.pending_vector() for x in rig.apics] == [-1, 0x61]
    rig.bus.deliver(0x03, True, a.LOWEST, 0x62, False)
    assert [x.pending_vector() for x in rig.apics] == [0x62, 0x61]
    for i in range(2):
        rig.write(a.DFR, 0x0FFFFFFF, i)
        rig.write(a.LDR, (0x11, 0x21)[i] << 24, i)
    rig.bus.deliver(0x21, True, a.FIXED, 0x70, False)
    assert [x.pending_vector() for x in rig.apics] == [0x62, 0x70]


def test_msi(rig: Rig) -> None:
    rig.bus.deliver_msi(0xFEE00000, 0x0041)
    assert rig.take() == 0x41
    rig.bus.deliver_msi(0xFEEFF000, 0x0042)  # broadcast, but 0x41 is in service
    rig.bus.deliver_msi(0xFEE05000, 0x0053)  # nobody
    rig.bus.deliver_msi(0x1000, 0x0054)
    rig.eoi()
    assert rig.take() == 0x42


def test_virtual_wire_and_external_interrupts() -> None:
    rig = Rig()
    rig.apic.enter_virtual_wire_mode()
    rig.apic.set_tpr(0xFF)
    rig.apic.set_lint(0, True)
    assert rig.apic.pending_vector() == EXTINT  # the task priority doesn't count
    assert rig.take() == 0x30
    assert rig.read(a.ISR0 + 1) == 0
    rig.apic.set_lint(0, False)
    assert rig.apic.pending_vector() == -1
    rig.apic.set_lint(1, True)
    assert ("nmi", 0) in rig.events
    rig.apic.set_lint(0, True)
    rig.write(a.LVT_LINT0, 0x10700)
    assert rig.apic.pending_vector() == -1
    rig.write(a.LVT_LINT0, 0x700)
    assert rig.apic.pending_vector() == EXTINT


def test_disabled_apic_passes_the_pic() -> None:
    rig = Rig()
    assert rig.apic.msr_write(a.MSR_APIC_BASE, 0xFEE00000)
    rig.apic.set_lint(0, True)
    assert rig.apic.pending_vector() == EXTINT
    assert rig.apic.mmio_base is None
    rig.inject(0x44)
    assert rig.take() == 0x30


def test_lint0_fixed(rig: Rig) -> None:
    # Linux's check_timer() tries this as "Virtual Wire IRQ"
    rig.write(a.LVT_LINT0, 0x31)
    rig.apic.set_lint(0, True)
    assert rig.take() == 0x31
    rig.eoi()
    assert rig.take() == -1
    rig.apic.set_lint(0, False)
    rig.apic.set_lint(0, True)
    assert rig.take() == 0x31


@pytest.mark.parametrize(
    ("start", "new", "allowed"),
    [
        (0x800, 0x000, True),
        (0x800, 0xC00, True),
        (0x800, 0x400, False),
        (0xC00, 0x800, False),
        (0xC00, 0x000, True),
        (0xC00, 0x400, False),
        (0x000, 0xC00, False),
        (0x000, 0x800, True),
        (0x000, 0x400, False),
        (0x800, 0x801, False),
        (0x800, 0xA00, False),
        (0x800, 0x800 | 1 << 40, False),
    ],
)
def test_base_transitions(start: int, new: int, allowed: bool) -> None:
    rig = Rig()
    if start & 0x400:
        to_x2apic(rig)
    elif not start:
        assert rig.apic.msr_write(a.MSR_APIC_BASE, 0xFEE00100)
    before = rig.apic.msr_read(a.MSR_APIC_BASE)
    assert rig.apic.msr_write(a.MSR_APIC_BASE, 0xFEE00100 | new) is allowed
    assert rig.apic.msr_read(a.MSR_APIC_BASE) == (0xFEE00100 | new if allowed else before)


def test_disabling_forgets(rig: Rig) -> None:
    rig.inject(0x41)
    assert rig.apic.msr_write(a.MSR_APIC_BASE, 0xFEE00100)
    assert rig.apic.pending_vector() == -1
    assert rig.apic.msr_write(a.MSR_APIC_BASE, 0xFEE00900)
    assert rig.read(a.SVR) == 0xFF


def test_x2apic_registers(rig: Rig) -> None:
    assert rig.apic.msr_read(0x802) is None
    assert not rig.apic.msr_write(0x808, 0)
    to_x2apic(rig)
    apic = rig.apic
    assert apic.mmio_base is None
    assert rig.read(a.VERSION) == 0xFFFFFFFF
    assert apic.msr_read(0x802) == 0
    assert apic.msr_read(0x80D) == 1
    assert apic.msr_read(0x803) == 0x50014
    for index in (0x80B, 0x80E, 0x831, 0x83F, 0x800, 0x8FF, 0x840, 0x82F):
        assert apic.msr_read(index) is None
    for index, value in ((0x802, 0), (0x80D, 0), (0x80A, 0), (0x839, 0), (0x80B, 1), (0x828, 1), (0x808, 0x100),
                         (0x80F, 0x1000), (0x832, 1 << 20), (0x83E, 4), (0x808, 1 << 32), (0x810, 0)):  # fmt: skip
        assert not apic.msr_write(index, value), hex(index)
    for index, value in ((0x808, 0x20), (0x80F, 0x1FF), (0x832, 0x400EC), (0x83E, 0xB), (0x838, 5), (0x80B, 0)):
        assert apic.msr_write(index, value), hex(index)
    assert apic.msr_read(0x808) == 0x20
    assert apic.msr_write(0x830, 0x1_0000_4041)
    assert apic.msr_read(0x830) == 0x1_0000_4041
    assert not apic.msr_write(0x830, 1 << 20)


def test_x2apic_ipis() -> None:
    rig = Rig(2)
    rig.enable()
    for i in range(2):
        to_x2apic(rig, i)
    assert rig.apic.msr_write(0x830, 1 << 32 | 0x51)
    assert rig.apics[1].pending_vector() == 0x51
    assert rig.apic.msr_write(0x830, 0x2 << 32 | 0x862)  # logical: cluster 0, member 1
    assert [x.pending_vector() for x in rig.apics] == [-1, 0x62]
    assert rig.apic.msr_write(0x830, 0xFFFFFFFF << 32 | 0x73)
    assert [x.pending_vector() for x in rig.apics] == [0x73, 0x73]


def test_error_status(rig: Rig) -> None:
    rig.write(a.LVT_ERROR, 0xFE)
    rig.write(a.ICR_LOW, 0x4005)
    assert rig.take() == 0xFE
    assert rig.read(a.ESR) == 0  # latched by a write
    rig.write(a.ESR, 0)
    assert rig.read(a.ESR) == a.ESR_SEND_ILLEGAL
    rig.inject(0x0F)
    rig.read(0x00)
    rig.write(a.ESR, 0)
    assert rig.read(a.ESR) == a.ESR_RECEIVE_ILLEGAL | a.ESR_ILLEGAL_REGISTER
    rig.write(a.ESR, 0)
    assert rig.read(a.ESR) == 0


def test_linux_timer_calibration(rig: Rig) -> None:
    # calibrate_APIC_clock(): masked one-shot from the top, divided by 16
    rig.write(a.LVT_TIMER, 0x10000 | 0xEC)
    rig.write(a.TIMER_DIVIDE, 3)
    rig.write(a.TIMER_INITIAL, 0xFFFFFFFF)
    first = rig.read(a.TIMER_CURRENT)
    rig.clock.advance(100_000_000)
    assert first - rig.read(a.TIMER_CURRENT) == 100_000_000 // 16
    assert rig.clock.next_deadline() is None
    rig.clock.advance(100 * 10**9)
    assert rig.read(a.TIMER_CURRENT) == 0


@pytest.mark.parametrize(("code", "shift"), [(0, 1), (1, 2), (2, 3), (3, 4), (8, 5), (9, 6), (10, 7), (11, 0)])
def test_divider(rig: Rig, code: int, shift: int) -> None:
    rig.write(a.LVT_TIMER, 0xEC)
    rig.write(a.TIMER_DIVIDE, code)
    assert rig.read(a.TIMER_DIVIDE) == code
    rig.write(a.TIMER_INITIAL, 1000)
    rig.clock.advance((1000 << shift) - 1)
    assert rig.take() == -1
    assert rig.read(a.TIMER_CURRENT) == 1
    rig.clock.advance(1)
    assert rig.take() == 0xEC
    assert rig.read(a.TIMER_CURRENT) == 0
    rig.clock.advance(10**12)
    assert rig.clock.fired == 1


def test_periodic_timer(rig: Rig) -> None:
    rig.write(a.LVT_TIMER, 0x200EC)
    rig.write(a.TIMER_DIVIDE, 0xB)
    rig.write(a.TIMER_INITIAL, 1_000_000)
    for _ in range(3):
        rig.clock.advance(1_000_000)
        assert rig.take() == 0xEC
        rig.eoi()
    rig.clock.jump(50_500_000)  # late: one interrupt, in phase afterwards
    assert rig.take() == 0xEC
    rig.eoi()
    assert rig.take() == -1
    assert rig.read(a.TIMER_CURRENT) == 500_000
    rig.clock.advance(500_000)
    assert rig.take() == 0xEC
    rig.write(a.LVT_TIMER, 0x300EC & ~0x0 | 0x10000)
    assert rig.clock.next_deadline() is None
    rig.write(a.TIMER_INITIAL, 0)
    rig.write(a.LVT_TIMER, 0x200EC)
    assert rig.clock.next_deadline() is None


def test_tiny_period_is_bounded(rig: Rig) -> None:
    rig.write(a.LVT_TIMER, 0x200EC)
    rig.write(a.TIMER_DIVIDE, 0xB)
    rig.write(a.TIMER_INITIAL, 1)
    rig.clock.advance(10_000_000)
    assert rig.clock.fired <= 500


def test_masked_while_running_out(rig: Rig) -> None:
    rig.write(a.LVT_TIMER, 0x100EC)
    rig.write(a.TIMER_DIVIDE, 0xB)
    rig.write(a.TIMER_INITIAL, 1000)
    rig.clock.advance(2000)
    rig.write(a.LVT_TIMER, 0xEC)
    rig.clock.advance(2000)
    assert rig.take() == -1


@pytest.mark.parametrize("masked", [0, 0x10000])
def test_periodic_mode_does_not_restart_a_count_that_has_run_out(rig: Rig, masked: int) -> None:
    # SDM 3, 10.5.4: the reload comes "when the count reaches 0", not while it stands there
    rig.write(a.LVT_TIMER, masked | 0xEC)
    rig.write(a.TIMER_DIVIDE, 0xB)
    rig.write(a.TIMER_INITIAL, 1_000_000)
    rig.clock.advance(1_500_000)
    assert rig.take() == (-1 if masked else 0xEC)
    rig.eoi()
    rig.write(a.LVT_TIMER, 0x200EC)
    rig.clock.advance(2_300_000)
    assert rig.read(a.TIMER_CURRENT) == 0
    assert rig.clock.next_deadline() is None
    assert rig.take() == -1
    rig.write(a.TIMER_DIVIDE, 0)
    assert rig.read(a.TIMER_CURRENT) == 0
    rig.write(a.TIMER_INITIAL, 1_000_000)  # starts it again
    rig.clock.advance(2_000_000)
    assert rig.take() == 0xEC
    assert rig.read(a.TIMER_CURRENT) == 1_000_000


def test_periodic_mode_goes_on_with_a_running_count(rig: Rig) -> None:
    rig.write(a.LVT_TIMER, 0xEC)
    rig.write(a.TIMER_DIVIDE, 0xB)
    rig.write(a.TIMER_INITIAL, 1_000_000)
    rig.clock.advance(700_000)
    rig.write(a.LVT_TIMER, 0x200EC)
    assert rig.read(a.TIMER_CURRENT) == 300_000
    rig.clock.advance(300_000)
    assert rig.take() == 0xEC
    rig.eoi()
    rig.clock.advance(1_000_000)
    assert rig.take() == 0xEC


def test_tsc_deadline(rig: Rig) -> None:
    apic = rig.apic
    assert apic.msr_write(a.MSR_TSC_DEADLINE, 12345)
    assert apic.msr_read(a.MSR_TSC_DEADLINE) == 0  # ignored in other modes
    rig.write(a.LVT_TIMER, 0x400EC)
    deadline = (rig.clock.now + 5000) * GHZ - 1
    assert apic.msr_write(a.MSR_TSC_DEADLINE, deadline)
    assert apic.msr_read(a.MSR_TSC_DEADLINE) == deadline
    rig.clock.advance(4999)
    assert rig.take() == -1
    rig.clock.advance(1)
    assert rig.take() == 0xEC
    assert apic.msr_read(a.MSR_TSC_DEADLINE) == 0
    rig.eoi()
    assert apic.msr_write(a.MSR_TSC_DEADLINE, 1)  # in the past: at once
    rig.clock.advance(0)
    assert rig.take() == 0xEC
    rig.eoi()
    assert apic.msr_write(a.MSR_TSC_DEADLINE, rig.clock.now * GHZ + 1000)
    assert apic.msr_write(a.MSR_TSC_DEADLINE, 0)
    assert rig.clock.next_deadline() is None
    rig.write(a.TIMER_INITIAL, 1000)  # ignored in this mode
    assert rig.read(a.TIMER_INITIAL) == 0
    assert apic.msr_write(a.MSR_TSC_DEADLINE, rig.clock.now * GHZ + 1000)
    rig.write(a.LVT_TIMER, 0xEC)
    assert apic.msr_read(a.MSR_TSC_DEADLINE) == 0
    assert rig.clock.next_deadline() is None


def test_deadline_far_away(rig: Rig) -> None:
    rig.write(a.LVT_TIMER, 0x400EC)
    assert rig.apic.msr_write(a.MSR_TSC_DEADLINE, 2**64 - 1)
    assert rig.clock.next_deadline() is not None
    rig.clock.advance(10**12)
    assert rig.take() == -1


def test_init_resets_registers_and_keeps_mode(rig: Rig) -> None:
    to_x2apic(rig)
    rig.inject(0x41)
    rig.bus.deliver(0, False, a.INIT, 0, False)
    assert rig.apic.pending_vector() == -1
    assert rig.apic.is_x2apic
    assert rig.apic.msr_read(0x80F) == 0xFF
    rig.apic.reset()
    assert rig.apic.mmio_base == 0xFEE00000


def test_page_moves(rig: Rig) -> None:
    moves = []
    rig.apic.on_base_change = lambda: moves.append(rig.apic.mmio_base)
    assert rig.apic.msr_write(a.MSR_APIC_BASE, 0xFED00900)
    assert moves == [0xFED00000]


@given(
    st.lists(
        st.tuples(
            st.sampled_from("wwwrmnit"), st.integers(0, 0x3F), st.sampled_from([1, 2, 4, 8]), st.integers(0, 2**64 - 1)
        ),
        max_size=60,
    )
)
def test_random(actions: list[tuple[str, int, int, int]]) -> None:
    rig = Rig(2)
    rig.enable()
    for kind, register, size, value in actions:
        apic = rig.apics[value & 1]
        if kind == "w":
            apic.mmio_write(register << 4, size, value & ((1 << 8 * size) - 1))
        elif kind == "r":
            assert 0 <= apic.mmio_read(register << 4 | value & 4, size) < 1 << 8 * size
        elif kind == "m":
            apic.msr_write((a.MSR_APIC_BASE, a.MSR_TSC_DEADLINE, 0x800 + register)[value % 3], value)
        elif kind == "n":
            apic.msr_read(0x800 + register)
        elif kind == "i":
            apic.set_lint(size & 1, bool(value & 2))
            assert apic.acknowledge() < 256
        else:
            rig.clock.jump(value % 10**9)
        for x in rig.apics:
            pending = x.pending_vector()
            x._update()
            assert x.pending_vector() == pending  # nobody forgot to look
    record = rig.apic.snapshot()
    other = Rig()
    other.clock.now = rig.clock.now
    other.apic.restore(record)
    assert other.apic.snapshot() == record
    assert other.apic.pending_vector() == rig.apic.pending_vector()
