"""The addresses and interrupt numbers of the machine: the one source for its wiring and for its tables.

The devices know none of these; the emu layer maps them at these places, and acpi, smbios, mptable and the
loaders describe these places to the guest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Platform:
    """A PC with an ICH9-like power-management block; the defaults are where QEMU's q35 has its devices.

    `Platform.of("pc")` gives the other board.
    """

    # Memory. RAM above low_ram_limit continues at 4 GiB; the gap is for PCI and the chips below.
    low_ram_limit: int = 0xC000_0000
    ecam_base: int = 0xE000_0000
    ecam_buses: int = 256  # 1 MiB each
    pci_window: tuple[int, int] = (0xC000_0000, 0xE000_0000)  # 32-bit BARs: start, end
    lapic_base: int = 0xFEE0_0000
    ioapic_base: int = 0xFEC0_0000
    hpet_base: int = 0xFED0_0000
    hpet_id: int = 0x8086_A201  # low half of the HPET's capability register: 3 comparators, 64 bits, legacy routing

    # Power management ports (ACPI 6.4, 4.8.3).
    pm1a_event: int = 0x600
    pm1a_control: int = 0x604
    pm_timer: int = 0x608
    gpe0: int = 0x620
    gpe0_bytes: int = 16  # half of them status, half enable; 0: no such block
    pm_timer_bits: int = 24  # 24 or 32
    reset_port: int = 0xCF9
    reset_value: int = 0x0F
    s5_sleep_type: int = 0  # SLP_TYPa that means "off"

    # ISA ports and interrupts.
    com1_port: int = 0x3F8
    com1_irq: int = 4
    rtc_port: int = 0x70
    rtc_irq: int = 8
    keyboard_irq: int = 1
    mouse_irq: int = 12
    sci_irq: int = 9
    pit_gsi: int = 2  # ISA interrupt 0 arrives at this I/O APIC input
    pirq_gsi: int = 16  # I/O APIC input of PIRQA; PIRQB and so on follow

    # What is there.
    cpus: int = 1
    ioapic_inputs: int = 24
    has_hpet: bool = True
    has_ecam: bool = True
    has_ps2: bool = True
    has_vga: bool = False
    has_cmos: bool = True

    @classmethod
    def of(cls, machine: str) -> Platform:
        """The platform of a board: `q35`, or `pc`, which has no memory-mapped PCI configuration space."""
        if machine == "q35":
            return cls()
        if machine == "pc":
            return replace(cls(), has_ecam=False)
        raise ValueError(f"no board is called {machine}")

    def pci_gsi(self, slot: int, pin: int) -> int:
        """The I/O APIC input of an interrupt pin (0 is INTA) of a PCI slot.

        i440FX boards rotate over PIRQA to PIRQD, with INTA of slot 1 on PIRQA. On Q35 slots 0 to 24 rotate over PIRQE
        to PIRQH, and the chipset's own have their pins on PIRQA to PIRQD.
        """
        if not self.has_ecam:
            return self.pirq_gsi + (slot + pin - 1) % 4
        return self.pirq_gsi + (pin if slot >= 25 else 4 + (slot + pin) % 4)

    @property
    def ioapic_id(self) -> int:
        """The I/O APIC's ID: the first one behind the processors'."""
        return self.cpus
