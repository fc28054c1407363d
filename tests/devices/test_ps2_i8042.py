"""8042: Linux's probe of controller, keyboard and mouse; translation, interrupts, A20, reset."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyemu.devices.ps2_i8042 import I8042
from tests.devices.helpers import RecordingLine


class Rig:
    def __init__(self) -> None:
        self.irq1 = RecordingLine()
        self.irq12 = RecordingLine()
        self.resets = 0
        self.a20: list[bool] = []
        self.chip = I8042(self.irq1, self.irq12, self.reset, self.a20.append)

    def reset(self) -> None:
        self.resets += 1

    def status(self) -> int:
        return self.chip.port_read(1, 1)

    def command(self, value: int, *data: int) -> None:
        assert not self.status() & 2
        self.chip.port_write(1, 1, value)
        for byte in data:
            self.chip.port_write(0, 1, byte)

    def answers(self) -> list[int]:
        """Drain the buffer; bytes from the mouse port have bit 8."""
        got = []
        while self.status() & 1:
            aux = (self.status() & 0x20) << 3
            got.append(self.chip.port_read(0, 1) | aux)
            assert len(got) < 1000
        return got

    def keyboard(self, *data: int) -> list[int]:
        got = []
        for byte in data:
            self.chip.port_write(0, 1, byte)
            got += self.answers()
        return got

    def mouse(self, *data: int) -> list[int]:
        got = []
        for byte in data:
            self.command(0xD4, byte)
            got += [x & 0xFF for x in self.answers()]
        return got


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_linux_controller_probe(rig: Rig) -> None:
    # drivers/input/serio/i8042.c
    assert rig.answers() == []  # i8042_flush()
    rig.command(0xAA)
    assert rig.answers() == [0x55]
    rig.command(0x20)
    (ctr,) = rig.answers()
    assert ctr & 0x40  # translating
    assert rig.status() & 0x10  # not locked
    rig.command(0x60, (ctr | 0x10) & ~1)
    # i8042_check_aux(): loop, test, disable and enable
    rig.command(0xD3, 0x5A)
    assert rig.answers() == [0x15A]
    rig.command(0xA9)
    assert rig.answers() == [0x00]
    rig.command(0xA7)
    rig.command(0x20)
    assert rig.answers()[0] & 0x20
    rig.command(0xA8)
    rig.command(0x20)
    assert not rig.answers()[0] & 0x20
    # i8042_set_mux_mode(): the last byte comes back as it was, so there is no multiplexer
    for byte in (0xF0, 0x56, 0xA4):
        rig.command(0xD3, byte)
        assert rig.answers() == [0x100 | byte]
    # the aux interrupt arrives
    rig.command(0x60, ctr & ~0x30 | 0x02)
    rig.command(0xD3, 0xA5)
    assert rig.irq12.level
    assert rig.answers() == [0x1A5]
    assert not rig.irq12.level
    rig.command(0xAB)
    assert rig.answers() == [0x00]


def test_linux_atkbd_probe(rig: Rig) -> None:
    # drivers/input/keyboard/atkbd.c: reset, identify, LEDs, rate, enable
    assert rig.keyboard(0xFF) == [0xFA, 0xAA]
    assert rig.keyboard(0xF2) == [0xFA, 0xAB, 0x41]  # 0x83 as translated
    assert rig.keyboard(0xED, 0x02) == [0xFA, 0xFA]
    assert rig.keyboard(0xF3, 0x00) == [0xFA, 0xFA]
    assert rig.keyboard(0xF5) == [0xFA]
    assert rig.keyboard(0xF4) == [0xFA]
    assert rig.keyboard(0xEE) == [0xEE]
    assert rig.keyboard(0xF0, 0x00) == [0xFA, 0xFA, 0x41]  # set 2, translated
    assert rig.keyboard(0xF0, 0x03) == [0xFA, 0xFE]
    assert rig.keyboard(0xEF) == [0xFE]


def test_linux_psmouse_probe(rig: Rig) -> None:
    assert rig.mouse(0xFF) == [0xFA, 0xAA, 0x00]
    assert rig.mouse(0xF2) == [0xFA, 0x00]
    assert rig.mouse(0xE8, 3, 0xE6, 0xE6, 0xE6, 0xE9) == [0xFA] * 6 + [0x00, 3, 100]
    assert rig.mouse(0xF3, 200, 0xF3, 100, 0xF3, 80, 0xF2) == [0xFA] * 7 + [3]
    assert rig.mouse(0xF4) == [0xFA]
    rig.chip.move_mouse(5, -3, 1, 1)
    assert [x & 0xFF for x in rig.answers()] == [0x29, 5, 0xFD, 1]
    assert rig.mouse(0xF5) == [0xFA]
    rig.chip.move_mouse(5, -3, 1)
    assert rig.answers() == []
    assert rig.mouse(0xBB) == [0xFE]


def test_keys_and_translation(rig: Rig) -> None:
    rig.chip.key(0x1C, True)  # A
    assert rig.irq1.level
    rig.chip.key(0x1C, False)
    rig.chip.key(0x75, True, extended=True)  # up
    assert rig.answers() == [0x1E, 0x9E, 0xE0, 0x48]
    assert rig.irq1.edges == 4  # each byte has its own edge
    assert not rig.irq1.level
    rig.command(0x60, 0x05)  # no translation
    rig.chip.key(0x1C, False)
    assert rig.answers() == [0xF0, 0x1C]
    rig.keyboard(0xF5)
    rig.chip.key(0x1C, True)
    assert rig.answers() == []


def test_set_1_from_the_keyboard(rig: Rig) -> None:
    rig.command(0x60, 0x05)
    assert rig.keyboard(0xF0, 1) == [0xFA, 0xFA]
    rig.chip.key(0x1C, False)
    assert rig.answers() == [0x9E]


def test_disabled_keyboard_keeps_its_bytes(rig: Rig) -> None:
    rig.command(0xAD)
    rig.chip.key(0x1C, True)
    assert rig.answers() == []
    rig.command(0xAE)
    assert rig.answers() == [0x1E]


def test_no_interrupt_unless_enabled(rig: Rig) -> None:
    rig.command(0x60, 0x44)
    rig.chip.key(0x1C, True)
    assert rig.status() & 1
    assert not rig.irq1.level
    rig.command(0x60, 0x45)
    assert rig.irq1.level


def test_a20(rig: Rig) -> None:
    rig.command(0xD0)
    assert rig.answers()[0] & 3 == 3
    rig.command(0xD1, 0xDD)
    rig.command(0xDF)
    rig.chip.port92.port_write(0, 1, 0)
    assert rig.chip.port92.port_read(0, 1) == 0
    rig.chip.port92.port_write(0, 1, 2)
    assert rig.a20 == [False, True, False, True]
    assert rig.resets == 0


@pytest.mark.parametrize("how", ["pulse", "output", "port92"])
def test_reset(rig: Rig, how: str) -> None:
    rig.command(0xFF)  # pulses nothing
    rig.command(0xF1)
    assert rig.resets == 0
    if how == "pulse":
        rig.command(0xFE)
    elif how == "output":
        rig.command(0xD1, 0x02)
    else:
        rig.chip.port92.port_write(0, 1, 3)
    assert rig.resets == 1


def test_floods_are_bounded(rig: Rig) -> None:
    for _ in range(500):
        rig.chip.key(0x1C, True)
        rig.chip.port_write(0, 1, 0xF2)
        rig.command(0xD4, 0xE9)
        rig.command(0xAA)
    assert len(rig.answers()) <= 64 * 2 + 17


@given(
    st.lists(st.tuples(st.sampled_from("cdrkm"), st.integers(0, 255), st.integers(-300, 300)), max_size=80),
)
def test_random(actions: list[tuple[str, int, int]]) -> None:
    rig = Rig()
    for kind, value, extra in actions:
        if kind in "cd":
            rig.chip.port_write(kind == "c", 1, value)
        elif kind == "r":
            assert 0 <= rig.chip.port_read(value & 1, 1) <= 0xFF
        elif kind == "k":
            rig.chip.key(value, extra > 0, extra & 1 == 1)
        else:
            rig.chip.move_mouse(extra, -extra, value)
        status = rig.status()
        ctr = rig.chip.state.ram[0]
        assert rig.irq1.level == (status & 0x21 == 1 and bool(ctr & 1))
    record = rig.chip.snapshot()
    other = Rig()
    other.chip.restore(record)
    assert other.chip.snapshot() == record
    assert other.answers() == rig.answers()
