"""How a processor reaches configuration space: ports 0xcf8 to 0xcff (mechanism #1), and the memory-mapped window
(ECAM).

Reference: PCI Local Bus Specification 3.0, 3.2.2.3.2; PCI Express Base Specification, 7.2.2. Port 0xcf9, which lies
within, is the chipset's reset register and is passed on.
"""

from dataclasses import dataclass

from pyemu.devices.device import ALL_ONES, Device
from pyemu.devices.interfaces import PortDevice
from pyemu.devices.pci.bus import PciBus

ADDRESS, RESET, DATA = 0, 1, 4  # port offsets
ADDRESS_ENABLE, ADDRESS_WRITABLE = 0x8000_0000, 0x80FF_FFFC


@dataclass(slots=True)
class ConfigPortsState:
    address: int = 0


class ConfigPorts(Device):
    """Eight ports. Only a whole 32-bit write sets the address; smaller ones belong to whoever else is there."""

    state: ConfigPortsState

    def __init__(self, bus: PciBus, reset_register: PortDevice | None = None) -> None:
        self._bus = bus
        self._reset_register = reset_register
        self.state = ConfigPortsState()

    def reset(self) -> None:
        self.state.address = 0

    def port_read(self, offset: int, size: int) -> int:
        if offset >= DATA:
            address = self.state.address
            at = (address & 0xFC) + offset - DATA
            if not address & ADDRESS_ENABLE or address >> 16 & 0xFF or offset - DATA + size > 4:
                return ALL_ONES[size]
            return self._bus.config_read(address >> 8 & 0xFF, at, size)
        if offset == ADDRESS and size == 4:
            return self.state.address
        if offset == RESET and size == 1 and self._reset_register is not None:
            return self._reset_register.port_read(0, 1)
        return ALL_ONES[size]

    def port_write(self, offset: int, size: int, value: int) -> None:
        if offset >= DATA:
            address = self.state.address
            if address & ADDRESS_ENABLE and not address >> 16 & 0xFF and offset - DATA + size <= 4:
                self._bus.config_write(address >> 8 & 0xFF, (address & 0xFC) + offset - DATA, size, value)
        elif offset == ADDRESS and size == 4:
            self.state.address = value & ADDRESS_WRITABLE
        elif offset == RESET and size == 1 and self._reset_register is not None:
            self._reset_register.port_write(0, 1, value)


class EcamWindow:
    """4 KiB a function, 1 MiB a bus; only bus 0 has functions. An access within a dword, or an aligned quadword."""

    def __init__(self, bus: PciBus) -> None:
        self._bus = bus

    def mmio_read(self, offset: int, size: int) -> int:
        if offset >> 20 or ((offset & 3) + size > 4 and (size != 8 or offset & 7)):
            return ALL_ONES[size]
        devfn, at = offset >> 12, offset & 0xFFF
        if size == 8:
            return self._bus.config_read(devfn, at, 4) | self._bus.config_read(devfn, at + 4, 4) << 32
        return self._bus.config_read(devfn, at, size)

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        if offset >> 20 or ((offset & 3) + size > 4 and (size != 8 or offset & 7)):
            return
        devfn, at = offset >> 12, offset & 0xFFF
        if size == 8:
            self._bus.config_write(devfn, at, 4, value & 0xFFFF_FFFF)
            self._bus.config_write(devfn, at + 4, 4, value >> 32)
        else:
            self._bus.config_write(devfn, at, size, value)
