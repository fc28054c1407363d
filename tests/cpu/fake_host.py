"""A machine behind a processor that is only a few variables."""

from __future__ import annotations


class FakeHost:
    """Implements pyemu.cpu.host.Host."""

    def __init__(self) -> None:
        self.tsc = 1000
        self.tpr = 0
        self.apic: dict[int, int] = {0x1B: 0xFEE00900, 0x6E0: 0, 0x808: 0}
        self.ports: list[tuple[int, int, int]] = []

    def mmio_read(self, address: int, size: int) -> int:
        return address & ((1 << 8 * size) - 1)

    def mmio_write(self, address: int, size: int, value: int) -> None:
        self.ports.append((address, size, value))

    def port_read(self, port: int, size: int) -> int:
        return port & ((1 << 8 * size) - 1)

    def port_write(self, port: int, size: int, value: int) -> None:
        self.ports.append((port, size, value))

    def acknowledge_interrupt(self) -> int:
        return -1

    def apic_msr_read(self, index: int) -> int | None:
        return self.apic.get(index)

    def apic_msr_write(self, index: int, value: int) -> bool:
        known = index in self.apic
        if known:
            self.apic[index] = value
        return known

    def get_tpr(self) -> int:
        return self.tpr

    def set_tpr(self, value: int) -> None:
        self.tpr = value

    def floating_point_error(self) -> None:
        pass

    def read_tsc(self) -> int:
        return self.tsc

    def random_bits(self) -> int:
        return 0x0123456789ABCDEF
