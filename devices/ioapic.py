"""I/O APIC: 24 interrupt inputs to messages on the APIC bus.

Reference: Intel 82093AA datasheet (290566-001), section 3; the EOI register at offset 0x40 and version 0x20 are those
of the ICH family (ICH9 datasheet 13.5). An edge that comes while its input is masked is lost (82093AA, redirection
table bit 16); a level is looked at again when unmasked.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from pyemu.devices.device import Device
from pyemu.devices.interfaces import IrqLine

PINS = 24
# Windows (3.1)
IOREGSEL, IOWIN, EOI_REGISTER = 0x00, 0x10, 0x40
# Indexed registers (3.2)
REG_ID, REG_VERSION, REG_ARBITRATION, REG_TABLE = 0x00, 0x01, 0x02, 0x10
VERSION = 0x20
# Redirection table entry (3.2.4)
ENTRY_LOGICAL, ENTRY_STATUS, ENTRY_ACTIVE_LOW = 1 << 11, 1 << 12, 1 << 13
ENTRY_REMOTE_IRR, ENTRY_LEVEL, ENTRY_MASKED = 1 << 14, 1 << 15, 1 << 16
ENTRY_WRITABLE = 0xFF00_0000_0001_AFFF
MODE_FIXED, MODE_LOWEST, MODE_EXTINT = 0, 1, 7


@dataclass(slots=True)
class IoApicState:
    id: int = 0
    select: int = 0
    lines: int = 0  # input levels, as asserted (polarity is the board's affair)
    table: list[int] = field(default_factory=lambda: [ENTRY_MASKED] * PINS)


class IoApic(Device):
    """`deliver(destination, logical, mode, vector, level)` sends a message: ApicBus.deliver. Give `end_of_interrupt`
    to ApicBus.add_eoi_listener."""

    state: IoApicState

    def __init__(self, deliver: Callable[[int, bool, int, int, bool], None], apic_id: int = 0) -> None:
        self._deliver = deliver
        self._initial_id = apic_id & 0xF
        self.state = IoApicState(id=self._initial_id)

    def reset(self) -> None:
        lines = self.state.lines
        self.state = IoApicState(id=self._initial_id, lines=lines)

    def line(self, pin: int) -> IrqLine:
        if not 0 <= pin < PINS:
            raise ValueError(f"the I/O APIC has no input {pin}")
        return _Pin(self, pin)

    def set_line(self, pin: int, level: bool) -> None:
        s = self.state
        bit = 1 << pin
        if level:
            if not s.lines & bit:
                s.lines |= bit
                self._service(pin)
        else:
            s.lines &= ~bit

    def end_of_interrupt(self, vector: int) -> None:
        """A processor finished a level-triggered interrupt: inputs still asserted interrupt again."""
        table = self.state.table
        for pin in range(PINS):
            entry = table[pin]
            if entry & 0xFF == vector and entry & ENTRY_REMOTE_IRR:
                table[pin] = entry & ~ENTRY_REMOTE_IRR
                if self.state.lines & (1 << pin):
                    self._service(pin)

    def _service(self, pin: int) -> None:
        s = self.state
        entry = s.table[pin]
        if entry & (ENTRY_MASKED | ENTRY_REMOTE_IRR):
            return
        mode = entry >> 8 & 7
        # The other modes are edge-triggered whatever bit 15 says (3.2.4, delivery mode)
        level = bool(entry & ENTRY_LEVEL) and mode in (MODE_FIXED, MODE_LOWEST)
        if level:
            s.table[pin] = entry | ENTRY_REMOTE_IRR
        self._deliver(entry >> 56, bool(entry & ENTRY_LOGICAL), mode, entry & 0xFF, level)

    # Registers

    def mmio_read(self, offset: int, size: int) -> int:
        mask = (1 << 8 * size) - 1
        base = offset & ~0xF & 0xFF
        shift = 8 * (offset & 0xF)
        if offset > 0xFF or shift >= 32:
            return 0
        if base == IOREGSEL:
            return self.state.select >> shift & mask
        if base == IOWIN:
            return self._read(self.state.select) >> shift & mask
        return 0

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        if offset == IOREGSEL:
            self.state.select = value & 0xFF
        elif size < 4:
            return  # the data window takes whole registers only
        elif offset == IOWIN:
            self._write(self.state.select, value & 0xFFFF_FFFF)
        elif offset == EOI_REGISTER:
            self.end_of_interrupt(value & 0xFF)

    def _read(self, register: int) -> int:
        s = self.state
        if register >= REG_TABLE:
            pin, high = divmod(register - REG_TABLE, 2)
            if pin >= PINS:
                return 0
            return s.table[pin] >> 32 if high else s.table[pin] & 0xFFFF_FFFF
        if register == REG_VERSION:
            return (PINS - 1) << 16 | VERSION
        return s.id << 24 if register in (REG_ID, REG_ARBITRATION) else 0

    def _write(self, register: int, value: int) -> None:
        s = self.state
        if register == REG_ID:
            s.id = value >> 24 & 0xF
        if register < REG_TABLE:
            return
        pin, high = divmod(register - REG_TABLE, 2)
        if pin >= PINS:
            return
        old = s.table[pin]
        merged = (old & 0xFFFF_FFFF | value << 32) if high else (old & ~0xFFFF_FFFF | value)
        entry = merged & ENTRY_WRITABLE
        if entry & ENTRY_LEVEL:
            entry |= old & ENTRY_REMOTE_IRR  # back to edge clears it, which is how Linux acknowledges old versions
        s.table[pin] = entry
        if entry & ENTRY_LEVEL and s.lines & (1 << pin):
            self._service(pin)


class _Pin:
    __slots__ = ("_chip", "_pin")

    def __init__(self, chip: IoApic, pin: int) -> None:
        self._chip = chip
        self._pin = pin

    def set(self, level: bool) -> None:
        self._chip.set_line(self._pin, level)
