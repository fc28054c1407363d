"""A PCI function: configuration header, base address registers, command register, INTx pin, capability list.

Reference: PCI Local Bus Specification 3.0, chapter 6 (6.1 header, 6.2.2 command, 6.2.3 status, 6.2.5 base addresses,
6.7 capabilities), 2.2.6 (interrupt pins). A device derives from PciFunction and adds windows with add_bar().
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from pyemu.devices.device import Device
from pyemu.devices.interfaces import BarMapper, MmioDevice, PortDevice

CONFIG_SIZE = 256
HEADER_SIZE = 64

# Header offsets (figure 6-1)
VENDOR_ID, DEVICE_ID, COMMAND, STATUS, REVISION, CLASS = 0x00, 0x02, 0x04, 0x06, 0x08, 0x09
CACHE_LINE, LATENCY, HEADER_TYPE, BAR0, SUBSYSTEM_VENDOR, SUBSYSTEM = 0x0C, 0x0D, 0x0E, 0x10, 0x2C, 0x2E
CAPABILITIES, INTERRUPT_LINE, INTERRUPT_PIN = 0x34, 0x3C, 0x3D
HEADER_MULTIFUNCTION = 0x80

COMMAND_IO, COMMAND_MEMORY, COMMAND_MASTER, COMMAND_PARITY, COMMAND_SERR = 0x01, 0x02, 0x04, 0x40, 0x100
COMMAND_INTX_DISABLE = 0x400
COMMAND_WRITABLE = 0x547
STATUS_INTERRUPT, STATUS_CAPABILITIES, STATUS_CLEARABLE = 0x08, 0x10, 0xF900

BAR_IO, BAR_MEM64, BAR_PREFETCH = 0x01, 0x04, 0x08


@dataclass(frozen=True, slots=True)
class Bar:
    """One window. `size` is a power of two; a 64-bit window takes two registers."""

    window: PortDevice | MmioDevice
    size: int
    is_io: bool = False
    is_64bit: bool = False
    prefetchable: bool = False


@dataclass(slots=True)
class PciState:
    config: list[int] = field(default_factory=lambda: [0] * CONFIG_SIZE)
    intx: int = 0  # what the device asks for, before the disable bit of the command register


class PciFunction(Device):
    """Base of all PCI functions. `pin` is 1 to 4 for INTA to INTD, 0 for none."""

    def __init__(
        self,
        vendor: int,
        device: int,
        class_code: int,
        *,
        revision: int = 0,
        subsystem_vendor: int = 0,
        subsystem: int = 0,
        pin: int = 0,
    ) -> None:
        self.pci = PciState()
        self.state = self.pci
        self._write_mask = [0] * CONFIG_SIZE
        self._clear_mask = [0] * CONFIG_SIZE
        self._bars: dict[int, Bar] = {}
        self._mapped: dict[int, int | None] = {}
        self._mapper: BarMapper | None = None
        self._drive_pin: Callable[[int, bool], None] | None = None
        self._next_capability = HEADER_SIZE
        self._last_capability = CAPABILITIES
        self._pin_level = False
        self.put(VENDOR_ID, 2, vendor)
        self.put(DEVICE_ID, 2, device)
        self.put(REVISION, 4, class_code << 8 | revision)
        self.put(SUBSYSTEM_VENDOR, 2, subsystem_vendor)
        self.put(SUBSYSTEM, 2, subsystem)
        self.put(INTERRUPT_PIN, 1, pin)
        self.make_writable(COMMAND, 2, COMMAND_WRITABLE)
        self.make_writable(CACHE_LINE, 1)
        self.make_writable(INTERRUPT_LINE, 1)
        for i in range(2):
            self._clear_mask[STATUS + i] = STATUS_CLEARABLE >> 8 * i & 0xFF
        self._at_reset = list(self.pci.config)

    # For derived classes

    def put(self, offset: int, size: int, value: int) -> None:
        """Set bytes of the configuration space, whatever the guest may write there."""
        for i in range(size):
            self.pci.config[offset + i] = value >> 8 * i & 0xFF

    def get(self, offset: int, size: int) -> int:
        return int.from_bytes(bytes(self.pci.config[offset : offset + size]), "little")

    def make_writable(self, offset: int, size: int, mask: int = 0xFFFF_FFFF_FFFF_FFFF) -> None:
        for i in range(size):
            self._write_mask[offset + i] = mask >> 8 * i & 0xFF

    def set_reset_values(self) -> None:
        """Take the present contents as what reset() goes back to: call last in a constructor."""
        self._at_reset = list(self.pci.config)

    def add_bar(self, index: int, bar: Bar) -> None:
        minimum = 4 if bar.is_io else 16
        if bar.size < minimum or bar.size & (bar.size - 1) or index + bar.is_64bit > 5 or (bar.is_io and bar.is_64bit):
            raise ValueError(f"impossible BAR {index}: {bar}")
        flags = BAR_IO if bar.is_io else BAR_MEM64 * bar.is_64bit | BAR_PREFETCH * bar.prefetchable
        offset = BAR0 + 4 * index
        size = 8 if bar.is_64bit else 4
        self.put(offset, size, flags)
        self.make_writable(offset, size, -bar.size & 0xFFFF_FFFF_FFFF_FFFF)
        self._bars[index] = bar
        self._mapped[index] = None
        self.set_reset_values()

    def add_capability(self, identifier: int, body: bytes, writable: bytes = b"") -> int:
        """Append a capability; `body` follows its ID and link. Returns its offset."""
        offset = self._next_capability
        if offset + 2 + len(body) > CONFIG_SIZE:
            raise ValueError("configuration space is full")
        self.put(self._last_capability, 1, offset)
        self.put(offset, 2, identifier)
        for i, value in enumerate(body):
            self.put(offset + 2 + i, 1, value)
        for i, mask in enumerate(writable):
            self._write_mask[offset + 2 + i] = mask
        self.pci.config[STATUS] |= STATUS_CAPABILITIES
        self._last_capability = offset + 1
        self._next_capability = (offset + 2 + len(body) + 3) & ~3
        self.set_reset_values()
        return offset

    def config_written(self, offset: int, size: int) -> None:
        """The guest wrote these bytes of the configuration space: react to device-specific ones here."""

    def set_intx(self, level: bool) -> None:
        """Level of the interrupt pin, which the command register may hold back."""
        self.pci.intx = 1 if level else 0
        self._update_pin()

    @property
    def is_bus_master(self) -> bool:
        return bool(self.pci.config[COMMAND] & COMMAND_MASTER)

    # For the bus

    def attach(self, mapper: BarMapper | None, drive_pin: Callable[[int, bool], None]) -> None:
        """Called once by PciBus. `drive_pin(pin, level)` has pin 0 to 3."""
        self._mapper = mapper
        self._drive_pin = drive_pin

    def set_multifunction(self) -> None:
        self.pci.config[HEADER_TYPE] |= HEADER_MULTIFUNCTION
        self._at_reset[HEADER_TYPE] |= HEADER_MULTIFUNCTION

    def reset(self) -> None:
        self.pci.config[:] = self._at_reset
        self.pci.intx = 0
        self.config_written(0, CONFIG_SIZE)
        self._update_mappings()
        self._update_pin()

    def resync(self) -> None:
        self.config_written(0, CONFIG_SIZE)
        self._update_mappings()
        self._update_pin()

    def config_read(self, offset: int, size: int) -> int:
        if offset + size > CONFIG_SIZE:
            return (1 << 8 * size) - 1  # no extended space
        config = self.pci.config
        if offset == STATUS or (offset == COMMAND and size == 4):
            config[STATUS] = config[STATUS] & ~STATUS_INTERRUPT | (STATUS_INTERRUPT if self.pci.intx else 0)
        return int.from_bytes(bytes(config[offset : offset + size]), "little")

    def config_write(self, offset: int, size: int, value: int) -> None:
        if offset + size > CONFIG_SIZE:
            return
        config = self.pci.config
        for i in range(size):
            byte = value >> 8 * i & 0xFF
            at = offset + i
            mask = self._write_mask[at]
            config[at] = (config[at] & ~mask | byte & mask) & ~(byte & self._clear_mask[at])
        if offset < CAPABILITIES:
            self._update_mappings()
            self._update_pin()
        self.config_written(offset, size)

    def _update_pin(self) -> None:
        pin = self.pci.config[INTERRUPT_PIN]
        level = bool(self.pci.intx and pin and not self.get(COMMAND, 2) & COMMAND_INTX_DISABLE)
        if level != self._pin_level:
            self._pin_level = level
            if self._drive_pin is not None:
                self._drive_pin(pin - 1, level)

    def _update_mappings(self) -> None:
        command = self.pci.config[COMMAND]
        for index, bar in self._bars.items():
            address = self._decoded(index, bar) if command & (COMMAND_IO if bar.is_io else COMMAND_MEMORY) else None
            if address != self._mapped[index]:
                self._mapped[index] = address
                if self._mapper is not None:
                    self._mapper.map_bar(bar.window, bar.is_io, bar.size, address)

    def _decoded(self, index: int, bar: Bar) -> int | None:
        """The window's address; none at 0 or at the end, which is what sizing leaves there for a moment."""
        size = 8 if bar.is_64bit else 4
        address = self.get(BAR0 + 4 * index, size) & ~(bar.size - 1)
        limit = 1 << (16 if bar.is_io else 8 * size)
        return address if address and address + bar.size < limit else None
