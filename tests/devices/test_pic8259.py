"""8259A pair: initialisation as Linux does it, priorities, EOI kinds, cascade, levels, spurious interrupts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyemu.devices.pic8259 import PicPair
from tests.devices.helpers import RecordingLine


class Rig:
    def __init__(self) -> None:
        self.intr = RecordingLine()
        self.pair = PicPair(self.intr.set)
        self.lines = {i: self.pair.line(i) for i in range(16) if i != 2}

    def init(self, master_icw4: int = 1, slave_icw4: int = 1) -> None:
        # arch/x86/kernel/i8259.c, init_8259A()
        m, s = self.pair.master, self.pair.slave
        for chip, base, icw3, icw4 in ((m, 0x30, 4, master_icw4), (s, 0x38, 2, slave_icw4)):
            chip.port_write(1, 1, 0xFF)
            chip.port_write(0, 1, 0x11)
            chip.port_write(1, 1, base)
            chip.port_write(1, 1, icw3)
            chip.port_write(1, 1, icw4)
            chip.port_write(1, 1, 0)

    def pulse(self, irq: int) -> None:
        self.lines[irq].set(True)
        self.lines[irq].set(False)


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    rig.init()
    return rig


def test_linux_probe() -> None:
    # probe_8259A(): the mask register keeps what is written
    rig = Rig()
    rig.pair.master.port_write(1, 1, 0xFB)
    assert rig.pair.master.port_read(1, 1) == 0xFB


def test_priority_and_eoi(rig: Rig) -> None:
    rig.pulse(4)
    rig.pulse(1)
    assert rig.intr.level
    assert rig.pair.acknowledge() == 0x31
    assert not rig.intr.level  # 4 has to wait for 1
    rig.pair.master.port_write(0, 1, 0x0B)
    assert rig.pair.master.port_read(0, 1) == 0x02  # ISR
    rig.pair.master.port_write(0, 1, 0x0A)
    assert rig.pair.master.port_read(0, 1) == 0x10  # IRR
    rig.pulse(0)
    assert rig.pair.acknowledge() == 0x30  # nests
    rig.pair.master.port_write(0, 1, 0x20)
    assert not rig.intr.level
    rig.pair.master.port_write(0, 1, 0x61)  # specific EOI of 1
    assert rig.pair.acknowledge() == 0x34


def test_cascade(rig: Rig) -> None:
    rig.pulse(12)
    assert rig.pair.acknowledge() == 0x38 + 4
    rig.pulse(8)  # higher than 12, but the master is busy with input 2
    assert not rig.intr.level
    rig.pair.slave.port_write(0, 1, 0x20)
    rig.pair.master.port_write(0, 1, 0x62)
    assert rig.pair.acknowledge() == 0x38


def test_special_fully_nested(rig: Rig) -> None:
    rig.init(master_icw4=0x11)
    rig.pulse(12)
    rig.pair.acknowledge()
    rig.pulse(8)
    assert rig.pair.acknowledge() == 0x38


def test_masked_requests_wait(rig: Rig) -> None:
    rig.pair.slave.port_write(1, 1, 0x01)
    rig.pulse(8)
    assert not rig.intr.level
    rig.pair.slave.port_write(1, 1, 0)
    assert rig.intr.level


def test_edge_needs_a_new_edge(rig: Rig) -> None:
    rig.lines[3].set(True)
    assert rig.pair.acknowledge() == 0x33
    rig.pair.master.port_write(0, 1, 0x20)
    assert not rig.intr.level
    rig.lines[3].set(False)
    rig.lines[3].set(True)
    assert rig.intr.level


def test_level_by_elcr(rig: Rig) -> None:
    rig.pair.elcr.port_write(0, 2, 0xFFFF)
    assert rig.pair.elcr.port_read(0, 2) == 0xDEF8
    rig.lines[10].set(True)
    for _ in range(2):
        assert rig.pair.acknowledge() == 0x3A
        rig.pair.slave.port_write(0, 1, 0x20)
        rig.pair.master.port_write(0, 1, 0x20)
        assert rig.intr.level  # asserted still
    rig.lines[10].set(False)
    assert not rig.intr.level


def test_spurious(rig: Rig) -> None:
    assert rig.pair.acknowledge() == 0x37
    rig.pair.elcr.port_write(1, 1, 0x04)
    rig.lines[10].set(True)
    rig.lines[10].set(False)
    assert rig.pair.acknowledge() == 0x37
    # The slave's request vanishes after the master has taken input 2
    rig.lines[10].set(True)
    rig.pair.state.slave.irr = 0
    assert rig.pair.acknowledge() == 0x3F
    assert rig.pair.state.slave.isr == 0  # a spurious one isn't in service
    assert rig.pair.state.master.isr == 4


def test_auto_eoi_and_rotation(rig: Rig) -> None:
    rig.init(master_icw4=3)
    rig.pair.master.port_write(0, 1, 0x80)  # rotate in auto-EOI mode
    for irq in (3, 4):
        rig.lines[irq].set(True)
    assert rig.pair.acknowledge() == 0x33
    assert rig.pair.state.master.isr == 0
    rig.lines[3].set(False)
    rig.lines[3].set(True)
    assert rig.pair.acknowledge() == 0x34  # 3 is lowest now
    assert rig.pair.acknowledge() == 0x33


def test_rotate_on_eoi_and_set_priority(rig: Rig) -> None:
    rig.pulse(1)
    rig.pair.acknowledge()
    rig.pair.master.port_write(0, 1, 0xA0)
    rig.pulse(1)
    rig.pulse(3)
    assert rig.pair.acknowledge() == 0x33
    rig.pair.master.port_write(0, 1, 0xE3)  # rotate on specific EOI
    assert rig.pair.acknowledge() == 0x31
    rig.pair.master.port_write(0, 1, 0x20)
    rig.pair.master.port_write(0, 1, 0xC7)  # 7 lowest: the usual order
    rig.pulse(5)
    rig.pulse(0)
    assert rig.pair.acknowledge() == 0x30


def test_special_mask_mode(rig: Rig) -> None:
    rig.pulse(1)
    rig.pair.acknowledge()
    rig.pulse(5)
    assert not rig.intr.level
    rig.pair.master.port_write(1, 1, 0x02)
    rig.pair.master.port_write(0, 1, 0x68)
    assert rig.intr.level
    assert rig.pair.acknowledge() == 0x35
    rig.pair.master.port_write(0, 1, 0x48)


def test_poll(rig: Rig) -> None:
    rig.pulse(6)
    rig.pair.master.port_write(0, 1, 0x0C)
    assert rig.pair.master.port_read(0, 1) == 0x86
    assert not rig.intr.level
    assert rig.pair.state.master.isr == 0x40
    rig.pair.master.port_write(0, 1, 0x0C)
    assert rig.pair.master.port_read(0, 1) == 0


def test_input_2_is_taken(rig: Rig) -> None:
    with pytest.raises(ValueError):
        rig.pair.line(2)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 15), st.integers(0, 255), st.booleans()), max_size=60))
def test_random(actions: list[tuple[int, int, int, bool]]) -> None:
    rig = Rig()
    for kind, irq, value, flag in actions:
        chip = rig.pair.slave if flag else rig.pair.master
        if kind == 0 and irq != 2:
            rig.lines[irq].set(flag)
        elif kind == 1:
            chip.port_write(irq & 1, 1, value)
        elif kind == 2:
            assert 0 <= chip.port_read(irq & 1, 1) <= 255
        elif kind == 3:
            rig.pair.elcr.port_write(irq & 1, 1, value)
        else:
            assert 0 <= rig.pair.acknowledge() <= 255
        assert rig.intr.level == (rig.pair.master.request() >= 0) == rig.pair.pending
        assert bool(rig.pair.state.master.irr & 4) == (rig.pair.slave.request() >= 0)
    record = rig.pair.snapshot()
    other = Rig()
    other.pair.restore(record)
    assert other.pair.snapshot() == record
    assert other.intr.level == rig.intr.level
