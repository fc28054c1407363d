"""16550A: driven as Linux's 8250 driver does, and the interrupt rules of the datasheet one by one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyemu.devices import uart16550 as u
from pyemu.devices.uart16550 import Uart16550
from tests.devices.helpers import FakeClock, RecordingBackend, RecordingLine

CHARACTER_NS = 10 * 1_000_000_000 // 115_200  # 8N1 at 115200


class Rig:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.irq = RecordingLine()
        self.backend = RecordingBackend()
        self.uart = Uart16550(self.clock, self.irq, self.backend)

    def inb(self, offset: int) -> int:
        return self.uart.port_read(offset, 1)

    def outb(self, offset: int, value: int) -> None:
        self.uart.port_write(offset, 1, value)

    def set_baud(self, divisor: int = 1) -> None:
        self.outb(u.LCR, u.LCR_DLAB | 3)
        self.outb(u.RBR_THR_DLL, divisor & 0xFF)
        self.outb(u.IER_DLM, divisor >> 8)
        self.outb(u.LCR, 3)


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    rig.set_baud()
    return rig


def linux_fifo(rig: Rig, trigger: int = 0x80) -> None:
    rig.outb(u.IIR_FCR, 0x01)
    rig.outb(u.IIR_FCR, 0x07)
    rig.outb(u.IIR_FCR, 0x01 | trigger)


def test_reset_values(rig: Rig) -> None:
    rig.uart.reset()
    assert [rig.inb(i) for i in (1, 2, 3, 4, 5, 6)] == [0, 0x01, 0, 0, 0x60, 0xB0]


def test_linux_autoconfig_finds_a_16550a(rig: Rig) -> None:
    # drivers/tty/serial/8250/8250_port.c, autoconfig()
    rig.outb(u.IER_DLM, 0)
    assert rig.inb(u.IER_DLM) & 0x0F == 0
    rig.outb(u.IER_DLM, 0xFF)
    assert rig.inb(u.IER_DLM) == 0x0F
    rig.outb(u.IER_DLM, 0)
    rig.outb(u.MCR, u.MCR_LOOP | u.MCR_OUT2 | u.MCR_RTS)
    assert rig.inb(u.MSR) & 0xF0 == u.MSR_DCD | u.MSR_CTS
    rig.outb(u.MCR, 0)
    rig.outb(u.LCR, 0xBF)
    rig.outb(u.IIR_FCR, 0)  # EFR of better chips
    rig.outb(u.LCR, 0)
    rig.outb(u.IIR_FCR, 1)
    assert rig.inb(u.IIR_FCR) >> 6 == 3
    # autoconfig_16550a(): neither EFR, nor 64 byte FIFO, nor a National super I/O
    rig.outb(u.LCR, 0x80)
    assert rig.inb(u.IIR_FCR) != 0
    rig.outb(u.LCR, 0)
    rig.outb(u.IIR_FCR, 0x21)
    assert not rig.inb(u.IIR_FCR) & 0x20
    rig.outb(u.LCR, 0xE0)
    before = rig.inb(u.IIR_FCR)
    rig.outb(u.LCR, 0)
    rig.outb(u.MCR, u.MCR_LOOP)
    rig.outb(u.LCR, 0xE0)
    assert not (rig.inb(u.IIR_FCR) ^ before) & u.MCR_LOOP
    rig.outb(u.LCR, 0)
    rig.outb(u.MCR, 0)
    rig.outb(u.IER_DLM, 0x40)
    assert not rig.inb(u.IER_DLM) & 0x40
    rig.outb(u.SCR, 0x5A)
    assert rig.inb(u.SCR) == 0x5A
    assert not rig.irq.level


def test_linux_fifo_size_by_loopback(rig: Rig) -> None:
    # size_fifo()
    rig.outb(u.IIR_FCR, 0x07)
    rig.outb(u.MCR, u.MCR_LOOP)
    for i in range(256):
        rig.outb(u.RBR_THR_DLL, i)
    got: list[int] = []
    while rig.inb(u.LSR) & u.LSR_DR and len(got) < 256:
        got.append(rig.inb(u.RBR_THR_DLL))
    assert got == list(range(16))
    assert not rig.backend.output


def test_linux_thre_test_at_startup(rig: Rig) -> None:
    # serial8250_do_startup(): a chip that doesn't raise THRE again on re-enabling has UART_BUG_THRE
    rig.outb(u.IER_DLM, u.IER_THRI)
    assert rig.inb(u.IIR_FCR) & 0x0F == u.IIR_THRI
    rig.outb(u.IER_DLM, 0)
    rig.outb(u.IER_DLM, u.IER_THRI)
    assert rig.inb(u.IIR_FCR) & 0x0F == u.IIR_THRI
    rig.outb(u.IER_DLM, 0)
    # and the test for UART_BUG_TXEN
    rig.outb(u.IER_DLM, u.IER_THRI)
    assert rig.inb(u.LSR) & u.LSR_TEMT
    assert not rig.inb(u.IIR_FCR) & u.IIR_NONE


def test_thre_interrupt_is_cleared_by_iir_or_thr(rig: Rig) -> None:
    rig.outb(u.IER_DLM, u.IER_THRI)
    assert rig.irq.level
    assert rig.inb(u.IIR_FCR) == u.IIR_THRI
    assert not rig.irq.level
    assert rig.inb(u.IIR_FCR) == u.IIR_NONE
    rig.outb(u.RBR_THR_DLL, 0x41)  # sent at once, so it is empty again: a new edge
    assert rig.irq.history == [True, False, True]
    rig.outb(u.RBR_THR_DLL, 0x42)  # not having read IIR: the line must drop and rise all the same
    assert rig.irq.history == [True, False, True, False, True]
    rig.outb(u.IER_DLM, 0)
    assert not rig.irq.level
    assert rig.backend.output == b"AB"


def test_writing_ier_with_thri_already_set_raises_nothing(rig: Rig) -> None:
    rig.outb(u.IER_DLM, u.IER_THRI)
    rig.inb(u.IIR_FCR)
    rig.outb(u.IER_DLM, u.IER_THRI | u.IER_RDI)
    assert not rig.irq.level


def test_polled_output_makes_no_interrupts(rig: Rig) -> None:
    for c in b"console":
        while not rig.inb(u.LSR) & u.LSR_THRE:
            pass
        rig.outb(u.RBR_THR_DLL, c)
    assert rig.backend.output == b"console"
    assert not rig.irq.history
    assert rig.clock.next_deadline() is None


def test_reading_iir_clears_thre_only_if_reported(rig: Rig) -> None:
    rig.outb(u.IER_DLM, u.IER_THRI | u.IER_RDI)
    rig.uart.receive(b"x")
    assert rig.inb(u.IIR_FCR) == u.IIR_RDI  # higher priority hides THRE
    assert rig.inb(u.RBR_THR_DLL) == ord("x")
    assert rig.inb(u.IIR_FCR) == u.IIR_THRI
    assert rig.inb(u.IIR_FCR) == u.IIR_NONE


def test_interrupt_priorities(rig: Rig) -> None:
    linux_fifo(rig, 0)
    rig.outb(u.IER_DLM, 0x0F)
    rig.uart.set_modem_inputs(cts=False, dsr=True, ri=False, dcd=True)
    rig.uart.receive_break()
    seen = []
    for clear in (u.LSR, u.RBR_THR_DLL, None, u.MSR, None):
        seen.append(rig.inb(u.IIR_FCR) & 0x0F)
        if clear is not None:
            rig.inb(clear)
    assert seen == [u.IIR_RLSI, u.IIR_RDI, u.IIR_THRI, u.IIR_MSI, u.IIR_NONE]
    assert not rig.irq.level


def test_fifo_trigger_and_timeout(rig: Rig) -> None:
    linux_fifo(rig)  # 8 characters
    rig.outb(u.IER_DLM, u.IER_RDI)
    assert rig.uart.receive(b"1234567") == 7
    assert not rig.irq.level
    rig.clock.advance(3 * CHARACTER_NS)
    assert not rig.irq.level
    rig.clock.advance(2 * CHARACTER_NS)
    assert rig.irq.level
    assert rig.inb(u.IIR_FCR) == 0xC0 | u.IIR_TIMEOUT
    assert rig.inb(u.RBR_THR_DLL) == ord("1")  # clears it
    assert not rig.irq.level
    rig.clock.advance(5 * CHARACTER_NS)  # the rest times out again
    assert rig.inb(u.IIR_FCR) == 0xC0 | u.IIR_TIMEOUT
    rig.uart.receive(b"89")
    assert rig.inb(u.IIR_FCR) == 0xC0 | u.IIR_RDI
    got = bytearray()
    while rig.inb(u.LSR) & u.LSR_DR:
        got.append(rig.inb(u.RBR_THR_DLL))
    assert got == b"23456789"
    assert not rig.irq.level
    rig.clock.advance(10**9)
    assert not rig.irq.level


def test_arrivals_restart_the_timeout(rig: Rig) -> None:
    linux_fifo(rig)
    rig.outb(u.IER_DLM, u.IER_RDI)
    for c in b"abc":
        rig.uart.receive(bytes((c,)))
        rig.clock.advance(3 * CHARACTER_NS)
    assert not rig.irq.level
    rig.clock.advance(2 * CHARACTER_NS)
    assert rig.irq.level


def test_enabling_rdi_with_characters_waiting(rig: Rig) -> None:
    linux_fifo(rig)
    rig.uart.receive(b"q")
    assert rig.clock.next_deadline() is None
    rig.outb(u.IER_DLM, u.IER_RDI)
    rig.clock.advance(5 * CHARACTER_NS)
    assert rig.irq.level


def test_receive_takes_what_fits_and_resumes(rig: Rig) -> None:
    assert rig.uart.receive(b"abc") == 1  # no FIFO
    assert rig.uart.receive(b"bc") == 0
    assert rig.inb(u.RBR_THR_DLL) == ord("a")
    assert rig.backend.resumed == 1
    linux_fifo(rig)
    assert rig.uart.receive(bytes(range(40))) == 16
    for i in range(16):
        resumed = rig.backend.resumed
        assert rig.inb(u.RBR_THR_DLL) == i
    assert rig.backend.resumed == resumed + 1
    assert not rig.inb(u.LSR) & u.LSR_OE


def test_no_input_in_loopback(rig: Rig) -> None:
    rig.outb(u.MCR, u.MCR_LOOP)
    assert rig.uart.receive(b"a") == 0
    rig.outb(u.MCR, 0)
    assert rig.backend.resumed == 1
    assert rig.uart.receive(b"a") == 1


def test_clearing_fifos(rig: Rig) -> None:
    linux_fifo(rig)
    rig.outb(u.IER_DLM, u.IER_RDI)
    rig.uart.receive(bytes(20))
    assert rig.irq.level
    rig.outb(u.IIR_FCR, 0x83)
    assert not rig.irq.level
    assert not rig.inb(u.LSR) & u.LSR_DR
    assert rig.backend.resumed == 1
    rig.uart.receive(b"z")
    rig.outb(u.IIR_FCR, 0)  # disabling clears as well
    assert not rig.inb(u.LSR) & u.LSR_DR
    assert rig.inb(u.IIR_FCR) == u.IIR_NONE


def test_break_in_fifo_shows_at_the_top(rig: Rig) -> None:
    linux_fifo(rig)
    rig.uart.receive(b"a")
    rig.uart.receive_break()
    assert rig.inb(u.LSR) == 0x60 | u.LSR_DR | u.LSR_FIFO_ERROR
    assert rig.inb(u.RBR_THR_DLL) == ord("a")
    assert rig.inb(u.LSR) & (u.LSR_BI | u.LSR_FE) == u.LSR_BI | u.LSR_FE
    assert not rig.inb(u.LSR) & u.LSR_BI  # cleared by reading
    assert rig.inb(u.RBR_THR_DLL) == 0
    assert rig.inb(u.LSR) == 0x60


def test_overrun_without_fifo_in_loopback(rig: Rig) -> None:
    rig.outb(u.MCR, u.MCR_LOOP)
    rig.outb(u.RBR_THR_DLL, 1)
    rig.outb(u.RBR_THR_DLL, 2)
    assert rig.inb(u.LSR) & u.LSR_OE
    assert rig.inb(u.RBR_THR_DLL) == 2
    assert not rig.inb(u.LSR) & (u.LSR_OE | u.LSR_DR)


def test_modem_deltas(rig: Rig) -> None:
    rig.outb(u.IER_DLM, u.IER_MSI)
    rig.uart.set_modem_inputs(cts=True, dsr=True, ri=True, dcd=True)
    assert not rig.irq.level  # the leading edge of ring doesn't count
    rig.uart.set_modem_inputs(cts=True, dsr=True, ri=False, dcd=False)
    assert rig.irq.level
    assert rig.inb(u.MSR) == u.MSR_TERI | u.MSR_DDCD | u.MSR_CTS | u.MSR_DSR
    assert not rig.irq.level
    assert rig.inb(u.MSR) == u.MSR_CTS | u.MSR_DSR


@pytest.mark.parametrize(
    ("mcr", "msr"),
    [(u.MCR_DTR, u.MSR_DSR), (u.MCR_RTS, u.MSR_CTS), (u.MCR_OUT1, u.MSR_RI), (u.MCR_OUT2, u.MSR_DCD)],
)
def test_loopback_modem_wiring(rig: Rig, mcr: int, msr: int) -> None:
    rig.outb(u.MCR, u.MCR_LOOP | mcr)
    assert rig.inb(u.MSR) & 0xF0 == msr
    rig.outb(u.MCR, 0)
    assert rig.inb(u.MSR) & 0xF0 == 0xB0


def test_sending_a_break(rig: Rig) -> None:
    rig.outb(u.LCR, 3 | u.LCR_BREAK)
    rig.outb(u.LCR, 3)
    assert rig.backend.breaks == [True, False]


def test_divisor_latch_and_wide_access(rig: Rig) -> None:
    rig.outb(u.LCR, u.LCR_DLAB)
    rig.uart.port_write(0, 2, 0x1234)
    assert rig.uart.port_read(0, 2) == 0x1234
    rig.outb(u.LCR, 0)
    assert rig.uart.port_read(4, 4) == 0x00B06000 | rig.uart.state.mcr


def test_snapshot_and_restore(rig: Rig) -> None:
    linux_fifo(rig)
    rig.outb(u.IER_DLM, 0x0F)
    rig.inb(u.IIR_FCR)
    rig.uart.receive(b"hello")
    record = rig.uart.snapshot()
    other = Rig()
    other.clock.now = rig.clock.now
    other.uart.restore(record)
    assert other.uart.snapshot() == record
    assert not other.irq.level
    other.clock.advance(5 * CHARACTER_NS)
    assert other.inb(u.IIR_FCR) == 0xC0 | u.IIR_TIMEOUT
    with pytest.raises(ValueError):
        other.uart.restore({"ier": 0})


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("w"), st.integers(0, 7), st.sampled_from([1, 2, 4]), st.integers(0, 0xFFFFFFFF)),
            st.tuples(st.just("r"), st.integers(0, 7), st.sampled_from([1, 2, 4]), st.just(0)),
            st.tuples(st.just("in"), st.integers(0, 40), st.just(0), st.just(0)),
            st.tuples(st.just("t"), st.integers(0, 10**9), st.just(0), st.just(0)),
        )
    )
)
def test_random_accesses(actions: list[tuple[str, int, int, int]]) -> None:
    rig = Rig()
    for kind, a, size, value in actions:
        if kind == "w":
            rig.uart.port_write(a, size, value & ((1 << 8 * size) - 1))
        elif kind == "r":
            assert 0 <= rig.uart.port_read(a, size) < 1 << 8 * size
        elif kind == "in":
            assert 0 <= rig.uart.receive(bytes(a)) <= a
        else:
            rig.clock.advance(a)
        s = rig.uart.state
        assert len(s.rx) <= 16
        assert bool(s.rx) == bool(s.lsr & u.LSR_DR)
        assert s.lsr & 0x60 == 0x60
        # The line always says what IIR would say (peeked on a copy, as reading has effects)
        assert rig.irq.level == (rig.uart._iir() != u.IIR_NONE)
