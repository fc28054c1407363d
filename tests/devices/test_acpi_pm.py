"""ACPI ports: PM timer, SCI causes, S5, GPE block, SMI command port, reset register."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyemu.devices import acpi_pm as p
from pyemu.devices.acpi_pm import AcpiPm, ResetControl, SmiCommandPorts
from tests.devices.helpers import FakeClock, RecordingLine


class Rig:
    def __init__(self, timer_bits: int = 24) -> None:
        self.clock = FakeClock(0)
        self.sci = RecordingLine()
        self.shutdowns = 0
        self.pm = AcpiPm(self.clock, self.sci, self.shutdown, s5_type=5, timer_bits=timer_bits)

    def shutdown(self) -> None:
        self.shutdowns += 1


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.mark.parametrize("bits", [24, 32])
def test_timer(bits: int) -> None:
    rig = Rig(bits)
    rig.clock.advance(10**9)
    assert rig.pm.port_read(8, 4) == 3_579_545
    rig.clock.advance(10 * 10**9)
    assert rig.pm.port_read(8, 4) == 11 * 3_579_545 % (1 << bits)
    assert rig.pm.port_read(9, 1) == rig.pm.port_read(8, 4) >> 8 & 0xFF
    rig.pm.port_write(8, 4, 0)
    assert rig.pm.port_read(8, 4) == 11 * 3_579_545 % (1 << bits)


def test_linux_timer_check(rig: Rig) -> None:
    # drivers/clocksource/acpi_pm.c, init_acpi_pm_clocksource(): the timer moves, and only forward
    last = rig.pm.port_read(8, 4)
    for _ in range(100):
        rig.clock.advance(1000)
        value = rig.pm.port_read(8, 4)
        assert last < value < last + 10
        last = value


def test_timer_overflow_interrupt(rig: Rig) -> None:
    half = -(-(1 << 23) * 10**9 // p.PM_TIMER_HZ)
    rig.clock.advance(half)
    assert rig.clock.next_deadline() is None
    assert rig.pm.port_read(0, 2) == p.TIMER_STATUS
    rig.pm.port_write(0, 2, p.TIMER_STATUS)
    rig.pm.port_write(2, 2, p.TIMER_STATUS)
    rig.clock.advance(half - 2)
    assert not rig.sci.level
    rig.clock.advance(2)
    assert rig.sci.level
    rig.pm.port_write(0, 2, p.TIMER_STATUS)
    assert not rig.sci.level
    rig.clock.jump(100 * half)
    assert rig.sci.level
    assert rig.clock.fired == 2


def test_power_button(rig: Rig) -> None:
    rig.pm.press_power_button()
    assert not rig.sci.level
    rig.pm.port_write(2, 2, p.POWER_BUTTON)
    assert rig.sci.level
    assert rig.pm.port_read(1, 1) == 1
    rig.pm.port_write(1, 1, 1)
    assert not rig.sci.level
    assert rig.pm.port_read(0, 4) == p.POWER_BUTTON << 16


def test_s5(rig: Rig) -> None:
    assert rig.pm.port_read(4, 2) == p.SCI_ENABLE
    rig.pm.port_write(4, 2, 5 << 10)  # type only
    rig.pm.port_write(4, 2, 1 << 10 | 1 << 13)  # another state
    assert rig.shutdowns == 0
    rig.pm.port_write(4, 2, 5 << 10 | 1 << 13)
    assert rig.shutdowns == 1
    assert not rig.pm.port_read(4, 2) & p.SLEEP_ENABLE  # write only


def test_s5_by_bytes(rig: Rig) -> None:
    rig.pm.port_write(5, 1, (5 << 10 | 1 << 13) >> 8)
    assert rig.shutdowns == 1


def test_gpe_block(rig: Rig) -> None:
    rig.pm.port_write(0x28, 4, 0xFFFFFFFF)
    rig.pm.port_write(0x2C, 1, 0x10)
    assert rig.pm.port_read(0x28, 4) == 0xFFFFFFFF
    assert rig.pm.port_read(0x2C, 4) == 0x10
    rig.pm.raise_gpe(36)
    assert rig.sci.level
    assert rig.pm.port_read(0x24, 1) == 0x10
    rig.pm.port_write(0x24, 1, 0x10)
    assert not rig.sci.level


def test_smi_command_port(rig: Rig) -> None:
    smi = SmiCommandPorts(rig.pm)
    smi.port_write(0, 1, p.ACPI_DISABLE_COMMAND)
    assert rig.pm.port_read(4, 2) == 0
    rig.pm.port_write(4, 2, p.SCI_ENABLE)  # not the guest's to set
    assert rig.pm.port_read(4, 2) == 0
    smi.port_write(0, 1, p.ACPI_ENABLE_COMMAND)
    assert rig.pm.port_read(4, 2) == p.SCI_ENABLE
    smi.port_write(1, 1, 0x77)
    assert smi.port_read(0, 2) == 0x77F1


@pytest.mark.parametrize("sequence", [(0x02, 0x06), (0x0E,), (0x02, 0x0A, 0x0E)])
def test_reset_register(sequence: tuple[int, ...]) -> None:
    resets = []
    control = ResetControl(lambda: resets.append(1))
    for value in sequence[:-1]:
        control.port_write(0, 1, value)
    assert not resets
    control.port_write(0, 1, sequence[-1])
    assert resets
    assert control.port_read(0, 1) == sequence[-1] & 0x0A


@given(
    st.lists(
        st.tuples(st.sampled_from("wrtg"), st.integers(0, 0x3F), st.sampled_from([1, 2, 4]), st.integers(0, 2**32 - 1)),
        max_size=50,
    )
)
def test_random(actions: list[tuple[str, int, int, int]]) -> None:
    rig = Rig()
    for kind, offset, size, value in actions:
        if kind == "w":
            rig.pm.port_write(offset, size, value & ((1 << 8 * size) - 1))
        elif kind == "r":
            assert 0 <= rig.pm.port_read(offset, size) < 1 << 8 * size
        elif kind == "g":
            rig.pm.raise_gpe(offset)
        else:
            rig.clock.jump(value)
    rig.pm.port_read(0, 2)  # the timer's status bit is noted when somebody looks
    record = rig.pm.snapshot()
    other = Rig()
    other.clock.now = rig.clock.now
    other.pm.restore(record)
    assert other.pm.snapshot() == record
    assert other.sci.level == rig.sci.level
