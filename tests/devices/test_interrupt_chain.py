"""Devices, controllers and a model of a driver together: no interrupt may get lost between them.

The driver is Linux's 8250 in short: it sends and receives in its interrupt handler only, so one lost edge stops the
console for ever. It runs over the I/O APIC (edge and level) and over the 8259 pair through LINT0.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyemu.devices import uart16550 as u
from pyemu.devices.apic import EOI, SVR, Apic
from pyemu.devices.apic_bus import ApicBus
from pyemu.devices.ioapic import IoApic
from pyemu.devices.irq_lines import FanOutLine
from pyemu.devices.pic8259 import PicPair
from pyemu.devices.pit8254 import PIT_HZ, Pit8254
from pyemu.devices.uart16550 import Uart16550
from tests.devices.helpers import FakeClock, RecordingBackend

ROUTES = ("ioapic edge", "ioapic level", "pic")
UART_VECTOR, TIMER_VECTOR = 0x34, 0x30


class Computer:
    """Just enough of one: a UART on IRQ 4, a PIT on IRQ 0, and a processor that takes interrupts between steps."""

    def __init__(self, route: str) -> None:
        self.route = route
        self.clock = FakeClock()
        self.backend = RecordingBackend()
        bus = ApicBus()
        self.apic = Apic(self.clock, 0, is_bsp=True, tsc_now=self.clock.now_ns, tsc_to_ns=lambda tsc: tsc)
        bus.add(self.apic)
        self.ioapic = IoApic(bus.deliver)
        bus.add_eoi_listener(self.ioapic.end_of_interrupt)
        self.pic = PicPair(lambda level: self.apic.set_lint(0, level))
        self.apic.external_acknowledge = self.pic.acknowledge
        line = FanOutLine(self.pic.line(4), self.ioapic.line(4))
        self.uart = Uart16550(self.clock, line, self.backend)
        self.pit = Pit8254(self.clock, FanOutLine(self.pic.line(0), self.ioapic.line(2)))
        self.apic.enter_virtual_wire_mode()
        for chip, base in ((self.pic.master, 0x30), (self.pic.slave, 0x38)):
            for port, value in ((0, 0x11), (1, base), (1, 4 if base == 0x30 else 2), (1, 1)):
                chip.port_write(port, 1, value)
            chip.port_write(1, 1, 0 if route == "pic" else 0xFF)
        if route != "pic":
            self.apic.mmio_write(SVR << 4, 4, 0x1FF)
            trigger = 0x8000 if route == "ioapic level" else 0
            for pin, entry in ((4, UART_VECTOR | trigger), (2, TIMER_VECTOR)):
                self.ioapic.mmio_write(0, 4, 0x10 + 2 * pin)
                self.ioapic.mmio_write(0x10, 4, entry)
        self.received = bytearray()
        self.to_send = bytearray()
        self.offered = bytearray()
        self.ticks = 0
        self.interrupts = 0
        for offset, value in ((u.LCR, 3), (u.IIR_FCR, 0x81), (u.IER_DLM, u.IER_RDI | u.IER_RLSI)):
            self.outb(offset, value)

    def inb(self, offset: int) -> int:
        return self.uart.port_read(offset, 1)

    def outb(self, offset: int, value: int) -> None:
        self.uart.port_write(offset, 1, value)

    def run_interrupts(self) -> None:
        """The processor with interrupts enabled, until nothing is pending."""
        while self.apic.pending_vector() >= 0:
            vector = self.apic.acknowledge()
            self.interrupts += 1
            assert self.interrupts < 100_000
            if vector == UART_VECTOR:
                self.uart_handler()
            elif vector == TIMER_VECTOR:
                self.ticks += 1
            else:
                raise AssertionError(f"unexpected vector {vector:#x}")
            if self.route == "pic":
                self.pic.master.port_write(0, 1, 0x20)
            else:
                self.apic.mmio_write(EOI << 4, 4, 0)

    def uart_handler(self) -> None:
        # serial8250_interrupt() and serial8250_handle_irq()
        while not self.inb(u.IIR_FCR) & u.IIR_NONE:
            status = self.inb(u.LSR)
            while status & u.LSR_DR:
                self.received.append(self.inb(u.RBR_THR_DLL))
                status = self.inb(u.LSR)
            self.offer()
            if status & u.LSR_THRE and self.inb(u.IER_DLM) & u.IER_THRI:
                for _ in range(16):
                    if self.to_send:
                        self.outb(u.RBR_THR_DLL, self.to_send.pop(0))
                if not self.to_send:
                    self.outb(u.IER_DLM, self.inb(u.IER_DLM) & ~u.IER_THRI)

    def send(self, data: bytes) -> None:
        # serial8250_start_tx()
        self.to_send += data
        if self.to_send and not self.inb(u.IER_DLM) & u.IER_THRI:
            self.outb(u.IER_DLM, self.inb(u.IER_DLM) | u.IER_THRI)

    def print_polled(self, data: bytes) -> None:
        # serial8250_console_write()
        ier = self.inb(u.IER_DLM)
        self.outb(u.IER_DLM, 0)
        for c in data:
            assert self.inb(u.LSR) & u.LSR_THRE
            self.outb(u.RBR_THR_DLL, c)
        self.outb(u.IER_DLM, ier)

    def type(self, data: bytes) -> None:
        self.offered += data
        self.offer()

    def offer(self) -> None:
        del self.offered[: self.uart.receive(bytes(self.offered))]


@pytest.mark.parametrize("route", ROUTES)
def test_output_by_interrupts(route: str) -> None:
    computer = Computer(route)
    text = bytes(range(256)) * 5
    computer.send(text)
    computer.run_interrupts()
    assert computer.backend.output == text
    assert not computer.uart.state.ier & u.IER_THRI


@pytest.mark.parametrize("route", ROUTES)
def test_input_by_interrupts(route: str) -> None:
    computer = Computer(route)
    text = bytes(range(200))
    computer.type(text)
    for _ in range(20):
        computer.run_interrupts()
        computer.clock.advance(10_000_000)
    computer.run_interrupts()
    assert computer.received == text


@pytest.mark.parametrize("route", ROUTES)
def test_timer_ticks(route: str) -> None:
    computer = Computer(route)
    computer.pit.port_write(3, 1, 0x34)
    for byte in (4773 & 0xFF, 4773 >> 8):
        computer.pit.port_write(0, 1, byte)
    computer.run_interrupts()
    computer.ticks = 0
    for _ in range(1000):
        computer.clock.advance(1_000_000)
        computer.run_interrupts()
    assert computer.ticks == PIT_HZ // 4773


@pytest.mark.parametrize("route", ROUTES)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("send"), st.binary(max_size=50)),
            st.tuples(st.just("type"), st.binary(max_size=50)),
            st.tuples(st.just("print"), st.binary(max_size=20)),
            st.tuples(st.just("run"), st.just(b"")),
            st.tuples(st.just("wait"), st.just(b"")),
        ),
        max_size=40,
    )
)
def test_nothing_is_ever_lost(route: str, actions: list[tuple[str, bytes]]) -> None:
    computer = Computer(route)
    typed = bytearray()
    output = 0
    for kind, data in actions:
        if kind == "send":
            computer.send(data)
            output += len(data)
        elif kind == "type":
            computer.type(data)
            typed += data
        elif kind == "print":
            computer.print_polled(data)
            output += len(data)
        elif kind == "run":
            computer.run_interrupts()
        else:
            computer.clock.advance(1_000_000)
    for _ in range(2 + len(typed)):
        computer.run_interrupts()
        computer.clock.advance(10_000_000)
    assert computer.received == typed
    assert len(computer.backend.output) == output
    assert not computer.to_send
    assert computer.apic.pending_vector() == -1
