"""I/O APIC: registers, edges and levels, masks, remote IRR, both ways to end an interrupt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyemu.devices.ioapic import PINS, IoApic

Message = tuple[int, bool, int, int, bool]


class Rig:
    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.chip = IoApic(lambda *message: self.messages.append(message), 2)

    def put(self, register: int, value: int) -> None:
        self.chip.mmio_write(0, 4, register)
        self.chip.mmio_write(0x10, 4, value)

    def get(self, register: int) -> int:
        self.chip.mmio_write(0, 4, register)
        return self.chip.mmio_read(0x10, 4)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_identification(rig: Rig) -> None:
    assert rig.get(1) == 0x00170020
    assert rig.get(0) == 2 << 24
    rig.put(0, 0xFF000000)
    assert rig.get(0) == 0x0F000000
    rig.put(1, 0)
    assert rig.get(1) == 0x00170020


def test_entries_start_masked(rig: Rig) -> None:
    assert [rig.get(0x10 + i) for i in range(48)] == [0x10000, 0] * 24
    assert rig.get(0x40) == 0
    rig.put(0x40, 1)


def test_edge(rig: Rig) -> None:
    rig.put(0x11 + 8, 0x03000000)
    rig.put(0x10 + 8, 0x0831)
    line = rig.chip.line(4)
    line.set(True)
    line.set(True)
    line.set(False)
    line.set(True)
    assert rig.messages == [(3, True, 0, 0x31, False)] * 2


def test_edge_while_masked_is_lost(rig: Rig) -> None:
    line = rig.chip.line(4)
    line.set(True)
    rig.put(0x18, 0x31)
    assert rig.messages == []


def test_level(rig: Rig) -> None:
    line = rig.chip.line(20)
    line.set(True)
    rig.put(0x10 + 40, 0x8000 | 0x51)  # unmasking shows it
    assert rig.messages == [(0, False, 0, 0x51, True)]
    assert rig.get(0x10 + 40) == 0xC051
    rig.put(0x10 + 40, 0x18051)  # masked: remote IRR stays
    rig.put(0x10 + 40, 0x8051)
    assert len(rig.messages) == 1
    rig.chip.end_of_interrupt(0x50)
    assert len(rig.messages) == 1
    rig.chip.end_of_interrupt(0x51)
    assert len(rig.messages) == 2
    line.set(False)
    rig.chip.mmio_write(0x40, 4, 0x51)  # EOI register
    assert len(rig.messages) == 2
    assert rig.get(0x10 + 40) == 0x8051


def test_remote_irr_cleared_by_edge_mode(rig: Rig) -> None:
    # Linux's __eoi_ioapic_pin() for old versions: masked edge and back
    line = rig.chip.line(20)
    rig.put(0x10 + 40, 0x8051)
    line.set(True)
    rig.put(0x10 + 40, 0x10051)
    assert not rig.get(0x10 + 40) & 0x4000
    rig.put(0x10 + 40, 0x8051)
    assert len(rig.messages) == 2


def test_read_only_bits(rig: Rig) -> None:
    rig.put(0x10, 0xFFFFFFFF)
    assert rig.get(0x10) == 0x1AFFF
    rig.put(0x11, 0xFFFFFFFF)
    assert rig.get(0x11) == 0xFF000000


def test_nmi_mode_is_an_edge(rig: Rig) -> None:
    rig.put(0x10, 0x8000 | 4 << 8)
    rig.chip.line(0).set(True)
    assert rig.messages == [(0, False, 4, 0, False)]
    assert not rig.get(0x10) & 0x4000


def test_pins_are_checked(rig: Rig) -> None:
    with pytest.raises(ValueError):
        rig.chip.line(PINS)


@given(
    st.lists(
        st.tuples(
            st.sampled_from("wrle"), st.integers(0, 0x4F), st.sampled_from([1, 2, 4, 8]), st.integers(0, 2**64 - 1)
        ),
        max_size=60,
    )
)
def test_random(actions: list[tuple[str, int, int, int]]) -> None:
    rig = Rig()
    for kind, offset, size, value in actions:
        if kind == "w":
            rig.chip.mmio_write(offset & 0x50, size, value & ((1 << 8 * size) - 1))
        elif kind == "r":
            assert 0 <= rig.chip.mmio_read(offset, size) < 1 << 8 * size
        elif kind == "l":
            rig.chip.set_line(offset % PINS, bool(value & 1))
        else:
            rig.chip.end_of_interrupt(value & 0xFF)
    record = rig.chip.snapshot()
    other = Rig()
    other.chip.restore(record)
    assert other.chip.snapshot() == record
