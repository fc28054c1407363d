"""16550A serial port: registers, both FIFOs, interrupts, modem lines, loopback.

Reference: National Semiconductor PC16550D datasheet (June 1995), section 8 "Registers". Characters that the guest sends
reach the backend at once, so the transmitter is always empty again when the write returns; the baud rate counts only
for the receiver's time-out. DMA mode bits are accepted and do nothing, as no PC wires RXRDY/TXRDY. The interrupt
line isn't gated by OUT2 (a matter of the board, and small guests forget to set it).
"""

from dataclasses import dataclass, field

from pyemu.devices.device import NS_PER_SECOND, Device, read_wide, write_wide
from pyemu.devices.interfaces import CharBackend, Clock, IrqLine

# Register offsets (8.0 table II)
RBR_THR_DLL, IER_DLM, IIR_FCR, LCR, MCR, LSR, MSR, SCR = range(8)

# Interrupt enable (8.7)
IER_RDI, IER_THRI, IER_RLSI, IER_MSI = 0x01, 0x02, 0x04, 0x08
# Interrupt identification (8.6), in order of priority
IIR_RLSI, IIR_RDI, IIR_TIMEOUT, IIR_THRI, IIR_MSI, IIR_NONE = 0x06, 0x04, 0x0C, 0x02, 0x00, 0x01
IIR_FIFO_ENABLED = 0xC0
# FIFO control (8.5)
FCR_ENABLE, FCR_CLEAR_RX, FCR_CLEAR_TX, FCR_DMA, FCR_TRIGGER = 0x01, 0x02, 0x04, 0x08, 0xC0
TRIGGER_LEVELS = (1, 4, 8, 14)
FIFO_SIZE = 16
# Line control (8.1)
LCR_STOP, LCR_PARITY, LCR_BREAK, LCR_DLAB = 0x04, 0x08, 0x40, 0x80
# Modem control (8.8)
MCR_DTR, MCR_RTS, MCR_OUT1, MCR_OUT2, MCR_LOOP, MCR_MASK = 0x01, 0x02, 0x04, 0x08, 0x10, 0x1F
# Line status (8.4)
LSR_DR, LSR_OE, LSR_PE, LSR_FE, LSR_BI, LSR_THRE, LSR_TEMT, LSR_FIFO_ERROR = 1, 2, 4, 8, 0x10, 0x20, 0x40, 0x80
LSR_ERRORS = LSR_OE | LSR_PE | LSR_FE | LSR_BI
# Modem status (8.9)
MSR_DCTS, MSR_DDSR, MSR_TERI, MSR_DDCD, MSR_CTS, MSR_DSR, MSR_RI, MSR_DCD = 1, 2, 4, 8, 0x10, 0x20, 0x40, 0x80
MSR_DELTAS = 0x0F

BAUD_BASE = 115_200  # 1.8432 MHz / 16
TIMEOUT_CHARACTERS = 4  # FIFO interrupt mode operation, section 8.5
DEFAULT_DIVISOR = 12

_BYTES = [bytes((i,)) for i in range(256)]


@dataclass(slots=True)
class UartState:
    """Registers. An entry of `rx` is the character, with the LSR bits that came with it above bit 8."""

    ier: int = 0
    fcr: int = 0
    lcr: int = 0
    mcr: int = 0
    lsr: int = LSR_THRE | LSR_TEMT
    msr: int = MSR_CTS | MSR_DSR | MSR_DCD
    scr: int = 0
    divisor: int = DEFAULT_DIVISOR
    rx: list[int] = field(default_factory=list)
    rbr: int = 0  # the character read last, which an empty receiver shows again
    thr_pending: int = 0  # transmitter-empty interrupt not yet cleared by reading IIR or writing THR
    timeout_pending: int = 0
    rx_activity_ns: int = 0  # last time a character arrived or was read
    wire_inputs: int = MSR_CTS | MSR_DSR | MSR_DCD  # levels at the connector, hidden while in loopback
    input_refused: int = 0  # the backend waits for room


class Uart16550(Device):
    """One serial port of eight byte registers, wired to an interrupt line and a character backend."""

    state: UartState

    def __init__(self, clock: Clock, irq: IrqLine, backend: CharBackend) -> None:
        self._clock = clock
        self._irq = irq
        self._backend = backend
        self._timer = clock.timer(self._on_timeout)
        self._level = False
        self.state = UartState()
        self._refresh_derived()

    def reset(self) -> None:
        """Master reset (8.0 table I); the divisor and scratch registers are not affected by it."""
        old = self.state
        self.state = UartState(divisor=old.divisor, scr=old.scr, input_refused=old.input_refused)
        self.state.wire_inputs = self.state.msr = old.wire_inputs
        self._refresh_derived()
        self._update()
        self._resume_input()

    def resync(self) -> None:
        self._refresh_derived()
        self._level = False
        self._irq.set(False)
        self._update()

    # Guest side

    def port_read(self, offset: int, size: int) -> int:
        s = self.state
        if size != 1:
            return read_wide(self.port_read, offset, size)
        if offset == LSR:
            value = s.lsr
            if value & LSR_ERRORS:
                s.lsr = value & ~LSR_ERRORS
                self._update()
            if value & LSR_DR and s.fcr and self._fifo_has_error():
                value |= LSR_FIFO_ERROR
            return value
        if offset == RBR_THR_DLL:
            if s.lcr & LCR_DLAB:
                return s.divisor & 0xFF
            return self._read_character()
        if offset == IIR_FCR:
            iir = self._iir()
            if iir == IIR_THRI:
                s.thr_pending = 0
                self._update()
            return iir | IIR_FIFO_ENABLED if s.fcr else iir
        if offset == IER_DLM:
            return s.divisor >> 8 if s.lcr & LCR_DLAB else s.ier
        if offset == MSR:
            value = s.msr
            if value & MSR_DELTAS:
                s.msr = value & ~MSR_DELTAS
                self._update()
            return value
        if offset == MCR:
            return s.mcr
        if offset == LCR:
            return s.lcr
        if offset == SCR:
            return s.scr
        return 0xFF

    def port_write(self, offset: int, size: int, value: int) -> None:
        s = self.state
        if size != 1:
            write_wide(self.port_write, offset, size, value)
        elif offset == RBR_THR_DLL:
            if s.lcr & LCR_DLAB:
                s.divisor = (s.divisor & 0xFF00) | value
                self._refresh_derived()
            else:
                self._transmit(value)
        elif offset == IER_DLM:
            if s.lcr & LCR_DLAB:
                s.divisor = (s.divisor & 0xFF) | (value << 8)
                self._refresh_derived()
            else:
                self._write_ier(value & 0x0F)
        elif offset == IIR_FCR:
            self._write_fcr(value)
        elif offset == LCR:
            if (s.lcr ^ value) & LCR_BREAK and not s.mcr & MCR_LOOP:
                self._backend.set_break(bool(value & LCR_BREAK))
            s.lcr = value
            self._refresh_derived()
        elif offset == MCR:
            self._write_mcr(value & MCR_MASK)
        elif offset == SCR:
            s.scr = value
        # LSR and MSR are for reading only (writing LSR is a factory test)

    # Backend side

    def receive(self, data: bytes) -> int:
        """Take as much of `data` as there is room for. Nothing while in loopback, where the line is disconnected."""
        s = self.state
        room = 0 if s.mcr & MCR_LOOP else (FIFO_SIZE if s.fcr else 1) - len(s.rx)
        if len(data) > room:
            s.input_refused = 1
            data = data[: max(room, 0)]
        for character in data:
            self._push(character)
        if data:
            self._update()
        return len(data)

    def receive_break(self) -> None:
        """The far end sends a break: a null character with BI and FE (8.4, bit 4). Lost if there is no room."""
        if not self.state.mcr & MCR_LOOP:
            self._push((LSR_BI | LSR_FE) << 8)
            self._update()

    def set_modem_inputs(self, *, cts: bool, dsr: bool, ri: bool, dcd: bool) -> None:
        """Levels of the modem lines at the connector."""
        s = self.state
        s.wire_inputs = MSR_CTS * cts | MSR_DSR * dsr | MSR_RI * ri | MSR_DCD * dcd
        if not s.mcr & MCR_LOOP:
            self._set_inputs(s.wire_inputs)
            self._update()

    # Receiver

    def _push(self, entry: int) -> None:
        s = self.state
        if not s.fcr:
            if s.rx:
                s.lsr |= LSR_OE  # the new character replaces the unread one
                s.rx.clear()
        elif len(s.rx) >= FIFO_SIZE:
            s.lsr |= LSR_OE  # the FIFO keeps what it has, the new character is lost
            return
        s.rx.append(entry)
        s.lsr |= LSR_DR
        if len(s.rx) == 1:
            s.lsr |= entry >> 8  # errors show when their character is at the top
        s.rx_activity_ns = self._clock.now_ns()

    def _read_character(self) -> int:
        s = self.state
        rx = s.rx
        if not rx:
            return s.rbr
        s.rbr = character = rx.pop(0) & 0xFF
        s.timeout_pending = 0
        if rx:
            s.lsr |= rx[0] >> 8
            s.rx_activity_ns = self._clock.now_ns()
        else:
            s.lsr &= ~LSR_DR
        self._update()
        if s.input_refused and not rx:
            self._resume_input()
        return character

    def _fifo_has_error(self) -> bool:
        return any(entry >> 8 for entry in self.state.rx)

    def _clear_receiver(self) -> None:
        s = self.state
        s.rx.clear()
        s.lsr &= ~LSR_DR
        s.timeout_pending = 0

    def _resume_input(self) -> None:
        if self.state.input_refused:
            self.state.input_refused = 0
            self._backend.resume_input()

    def _on_timeout(self) -> None:
        s = self.state
        if not s.fcr or not s.rx:
            return
        deadline = s.rx_activity_ns + self._timeout_ns
        if self._clock.now_ns() < deadline:
            self._timer.arm(deadline)  # characters came or went since it was armed
            return
        s.timeout_pending = 1
        self._update()

    # Transmitter and controls

    def _transmit(self, character: int) -> None:
        s = self.state
        if s.ier & IER_THRI and s.thr_pending:
            # Writing THR clears the interrupt, sending raises it anew: an edge-triggered controller must see both.
            s.thr_pending = 0
            self._update()
        if s.mcr & MCR_LOOP:
            self._push(character)
            s.thr_pending = 1
            self._update()
            return
        self._backend.write(_BYTES[character])
        s.thr_pending = 1
        if s.ier & IER_THRI:
            self._update()

    def _write_ier(self, value: int) -> None:
        s = self.state
        if (s.ier ^ value) & IER_THRI:
            # Enabling it while THR is empty (here always) interrupts at once, also if that was already reported.
            # Linux tests for the opposite as a bug of the chip (serial8250_do_startup).
            s.thr_pending = 1 if value & IER_THRI else 0
        s.ier = value
        self._update()

    def _write_fcr(self, value: int) -> None:
        s = self.state
        if not value & FCR_ENABLE:
            value = 0  # other bits are programmed only together with the enable bit
        changed = (s.fcr ^ value) & FCR_ENABLE
        if changed or value & FCR_CLEAR_RX:
            self._clear_receiver()
        s.fcr = value & (FCR_ENABLE | FCR_DMA | FCR_TRIGGER)
        self._refresh_derived()
        self._update()
        if not s.rx:
            self._resume_input()

    def _write_mcr(self, value: int) -> None:
        s = self.state
        left_loopback = s.mcr & MCR_LOOP and not value & MCR_LOOP
        s.mcr = value
        if value & MCR_LOOP:
            # 8.8 bit 4: the four outputs are connected to the four inputs inside the chip
            inputs = (value & MCR_DTR) << 5 | (value & MCR_RTS) << 3 | (value & (MCR_OUT1 | MCR_OUT2)) << 4
            self._set_inputs(inputs)
        else:
            self._set_inputs(s.wire_inputs)
        self._update()
        if left_loopback:
            self._resume_input()

    def _set_inputs(self, inputs: int) -> None:
        s = self.state
        old = s.msr
        changed = (old ^ inputs) & 0xF0
        if not changed:
            return
        deltas = (changed >> 4) & (MSR_DCTS | MSR_DDSR | MSR_DDCD)
        if changed & MSR_RI and not inputs & MSR_RI:
            deltas |= MSR_TERI  # only the trailing edge of ring counts
        s.msr = inputs | (old & MSR_DELTAS) | deltas

    # Interrupts

    def _refresh_derived(self) -> None:
        s = self.state
        self._trigger = TRIGGER_LEVELS[s.fcr >> 6] if s.fcr else 1
        half_bits = 2 * (1 + 5 + (s.lcr & 3) + 1)
        if s.lcr & LCR_PARITY:
            half_bits += 2
        if s.lcr & LCR_STOP:
            half_bits += 2 if s.lcr & 3 else 1  # two stop bits, or one and a half with 5-bit characters
        divisor = s.divisor or 0x10000
        self._timeout_ns = TIMEOUT_CHARACTERS * half_bits * divisor * NS_PER_SECOND // (2 * BAUD_BASE)

    def _iir(self) -> int:
        s = self.state
        ier = s.ier
        if ier & IER_RLSI and s.lsr & LSR_ERRORS:
            return IIR_RLSI
        if ier & IER_RDI:
            if len(s.rx) >= self._trigger:
                return IIR_RDI
            if s.timeout_pending:
                return IIR_TIMEOUT
        if ier & IER_THRI and s.thr_pending:
            return IIR_THRI
        if ier & IER_MSI and s.msr & MSR_DELTAS:
            return IIR_MSI
        return IIR_NONE

    def _update(self) -> None:
        """Drive the line, and arm the receiver's time-out if it could change it."""
        s = self.state
        level = bool(s.ier) and self._iir() != IIR_NONE
        if level != self._level:
            self._level = level
            self._irq.set(level)
        if s.rx and s.fcr and s.ier & IER_RDI and not s.timeout_pending and len(s.rx) < self._trigger:
            self._timer.arm(s.rx_activity_ns + self._timeout_ns)
