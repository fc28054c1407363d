"""The chipsets' own PCI functions: i440FX host bridge with PIIX3 and the PIIX4 PM function, Q35 host bridge with ICH9
LPC.

References: Intel 82441FX (290549), 82371FB/SB PIIX3 (290550) section 2, 82371AB PIIX4 (290562) section 7; Intel 3
Series Express Chipset MCH (316966) section 5; ICH9 (316972) section 13. A guest may be started without firmware: then
(`configured`) the functions come up as firmware would leave them, with PM registers, ECAM window, PIRQ routes and
shadow memory already set; otherwise as the chips do. Not there: SMM memory, the integrated IDE, USB and SMBus
functions.
"""

from collections.abc import Callable, Sequence

from pyemu.devices.interfaces import IrqLine
from pyemu.devices.pci.function import (
    COMMAND,
    COMMAND_IO,
    COMMAND_MASTER,
    COMMAND_MEMORY,
    CONFIG_SIZE,
    HEADER_SIZE,
    INTERRUPT_LINE,
    STATUS,
    PciFunction,
)

INTEL = 0x8086
CLASS_HOST_BRIDGE, CLASS_ISA_BRIDGE, CLASS_OTHER_BRIDGE = 0x060000, 0x060100, 0x068000
QEMU_SUBSYSTEM_VENDOR, QEMU_SUBSYSTEM = 0x1AF4, 0x1100

PIRQ_DISABLED = 0x80
PIRQ_ROUTABLE = (3, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15)  # PIIX3 2.3.3
PIIX_PIRQ, ICH9_PIRQ_LOW, ICH9_PIRQ_HIGH = 0x60, 0x60, 0x68
PIIX4_PMBASE, PIIX4_PMBASE_MASK, PIIX4_PMREGMISC, PIIX4_PM_ENABLE = 0x40, 0xFFC0, 0x80, 0x01
PIIX4_DEVACTB, PIIX4_APMC_ENABLE = 0x58, 0x02  # bit 25 of that register (PIIX4 7.1.26)
Q35_PCIEXBAR, Q35_PCIEXBAR_ENABLE = 0x60, 0x01
Q35_ECAM_SIZES = (256 << 20, 128 << 20, 64 << 20)  # field 2:1 (MCH 5.1.18); 3 is reserved
ICH9_PMBASE, ICH9_PMBASE_MASK, ICH9_ACPI_CONTROL, ICH9_ACPI_ENABLE = 0x40, 0xFF80, 0x44, 0x80
SCI_IRQ = 9
# PAM registers (440FX 3.2.18, MCH 5.1.22): seven bytes, the upper half of the first for 0xf0000, then two halves for
# each 32 KiB from 0xc0000 on. Bit 0 of a half: reads come from RAM; bit 1: writes go there.
I440FX_PAM, Q35_PAM, PAM_REGISTERS = 0x59, 0x90, 7
PAM_BITS = 0x33


class _ChipsetFunction(PciFunction):
    """Registers above the header keep what is written unless a class says otherwise."""

    def __init__(self, device: int, class_code: int, revision: int = 0, pin: int = 0) -> None:
        super().__init__(
            INTEL,
            device,
            class_code,
            revision=revision,
            subsystem_vendor=QEMU_SUBSYSTEM_VENDOR,
            subsystem=QEMU_SUBSYSTEM,
            pin=pin,
        )
        for offset in range(HEADER_SIZE, CONFIG_SIZE):
            self.make_writable(offset, 1)


class _HostBridge(_ChipsetFunction):
    """`on_pam(modes)` says how memory behaves: bits 0 (reads come from RAM) and 1 (writes go there) of the twelve
    16 KiB from 0xc0000 on and of the 64 KiB at 0xf0000."""

    def __init__(
        self, device: int, pam: int, on_pam: Callable[[tuple[int, ...]], None], revision: int, configured: bool
    ) -> None:
        super().__init__(device, CLASS_HOST_BRIDGE, revision)
        self._pam = pam
        self._on_pam = on_pam
        self._modes: tuple[int, ...] | None = None
        self.put(COMMAND, 2, COMMAND_MASTER | COMMAND_MEMORY)
        self.make_writable(COMMAND, 2, 0x0100)
        for offset in range(pam, pam + PAM_REGISTERS):
            bits = PAM_BITS & 0xF0 if offset == pam else PAM_BITS
            self.make_writable(offset, 1, bits)
            self.put(offset, 1, bits if configured else 0)

    def announce(self) -> None:
        """Say how memory behaves; call once everything is wired."""
        self.config_written(self._pam, PAM_REGISTERS)

    def config_written(self, offset: int, size: int) -> None:
        registers = self.pci.config[self._pam : self._pam + PAM_REGISTERS]
        halves = [half for register in registers[1:] for half in (register & 3, register >> 4 & 3)]
        modes = (*halves, registers[0] >> 4 & 3)
        if modes != self._modes:
            self._modes = modes
            self._on_pam(modes)


class I440fx(_HostBridge):
    """Host bridge of `-M pc`."""

    def __init__(self, on_pam: Callable[[tuple[int, ...]], None], configured: bool = True) -> None:
        super().__init__(0x1237, I440FX_PAM, on_pam, 2, configured)
        self.put(STATUS, 2, 0x0280)
        self.set_reset_values()


class Q35Mch(_HostBridge):
    """Host bridge of `-M q35`. `on_ecam(base, size)` says where configuration space is mapped, (0, 0) for nowhere."""

    def __init__(
        self,
        ecam_base: int,
        on_ecam: Callable[[int, int], None],
        on_pam: Callable[[tuple[int, ...]], None],
        configured: bool = True,
    ) -> None:
        super().__init__(0x29C0, Q35_PAM, on_pam, 0, configured)
        self._on_ecam = on_ecam
        self._ecam = (0, 0)
        self.put(STATUS, 2, 0x0080)
        self.make_writable(Q35_PCIEXBAR, 8, 0xF_FC00_0007)
        self.put(Q35_PCIEXBAR, 8, ecam_base | Q35_PCIEXBAR_ENABLE if configured else 0)
        self.set_reset_values()

    def announce(self) -> None:
        """Say also where the window is."""
        super().announce()
        self.config_written(Q35_PCIEXBAR, 8)

    def config_written(self, offset: int, size: int) -> None:
        super().config_written(offset, size)
        if offset >= Q35_PCIEXBAR + 8 or offset + size <= Q35_PCIEXBAR:
            return
        register = self.get(Q35_PCIEXBAR, 8)
        size_field = register >> 1 & 3
        window = (0, 0)
        if register & Q35_PCIEXBAR_ENABLE and size_field < 3:
            length = Q35_ECAM_SIZES[size_field]
            window = (register & ~0x3FF_FFFF & ~(length - 1), length)
        if window != self._ecam:
            self._ecam = window
            self._on_ecam(*window)


class _PirqRouter(_ChipsetFunction):
    """An ISA bridge with registers that route PIRQ wires to ISA interrupts. The same wires also go straight to inputs
    of the I/O APIC (`gsi_lines`), so a guest uses one or the other."""

    def __init__(
        self,
        device: int,
        registers: Sequence[int],
        isa_lines: Sequence[IrqLine],
        gsi_lines: Sequence[IrqLine],
        routes: Sequence[int],
        revision: int = 0,
    ) -> None:
        super().__init__(device, CLASS_ISA_BRIDGE, revision)
        self._registers = registers
        self._isa_lines = isa_lines
        self._gsi_lines = gsi_lines
        self._levels = [False] * len(registers)
        self._driven = 0
        for register, route in zip(registers, routes, strict=True):
            self.make_writable(register, 1, 0x8F)
            self.put(register, 1, route)
        self.put(COMMAND, 2, COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER)
        self.make_writable(COMMAND, 2, 0x0108)
        self.put(STATUS, 2, 0x0200)

    def pirq_line(self, pirq: int) -> IrqLine:
        return _PirqLine(self, pirq)

    def set_pirq(self, pirq: int, level: bool) -> None:
        self._levels[pirq] = level
        if self._gsi_lines:
            self._gsi_lines[pirq].set(level)
        self.route()

    def route(self) -> None:
        """Drive the ISA lines from the PIRQ levels; several PIRQs may share one."""
        driven = 0
        for register, level in zip(self._registers, self._levels, strict=True):
            route = self.pci.config[register]
            if level and not route & PIRQ_DISABLED and route & 15 in PIRQ_ROUTABLE:
                driven |= 1 << (route & 15)
        changed = driven ^ self._driven
        self._driven = driven
        for irq in PIRQ_ROUTABLE:
            if changed & (1 << irq):
                self._isa_lines[irq].set(bool(driven & (1 << irq)))

    def config_written(self, offset: int, size: int) -> None:
        self.route()


class _PirqLine:
    __slots__ = ("_pirq", "_router")

    def __init__(self, router: _PirqRouter, pirq: int) -> None:
        self._router = router
        self._pirq = pirq

    def set(self, level: bool) -> None:
        self._router.set_pirq(self._pirq, level)


class Piix3(_PirqRouter):
    """ISA bridge of `-M pc`. `isa_lines` are the 16 ISA interrupts (unused ones may be NullLine); `gsi_lines`, if the
    board has them, the I/O APIC inputs of PIRQA to PIRQD."""

    def __init__(
        self,
        isa_lines: Sequence[IrqLine],
        gsi_lines: Sequence[IrqLine] = (),
        configured: bool = True,
    ) -> None:
        routes = (10, 10, 11, 11) if configured else (PIRQ_DISABLED,) * 4
        super().__init__(0x7000, range(PIIX_PIRQ, PIIX_PIRQ + 4), isa_lines, gsi_lines, routes)
        self.set_multifunction()
        self.set_reset_values()


class Piix4Pm(_ChipsetFunction):
    """Power management function beside PIIX3. `on_pm_base(base)` says where the PM ports are, None for nowhere."""

    def __init__(self, pm_base: int, on_pm_base: Callable[[int | None], None], configured: bool = True) -> None:
        super().__init__(0x7113, CLASS_OTHER_BRIDGE, revision=3, pin=1)
        self._on_pm_base = on_pm_base
        self._base: int | None = None
        self.make_writable(COMMAND, 2, 0x0101)
        self.put(STATUS, 2, 0x0280)
        self.put(INTERRUPT_LINE, 1, SCI_IRQ)
        self.make_writable(PIIX4_PMBASE, 4, PIIX4_PMBASE_MASK)
        self.put(PIIX4_PMBASE, 4, 1)
        self.put(PIIX4_DEVACTB + 3, 1, PIIX4_APMC_ENABLE)  # no SMM: firmware must find that it has been set up already
        if configured:
            self.put(COMMAND, 2, COMMAND_IO)
            self.put(PIIX4_PMBASE, 4, pm_base & PIIX4_PMBASE_MASK | 1)
            self.put(PIIX4_PMREGMISC, 1, PIIX4_PM_ENABLE)
        self.set_reset_values()

    def announce(self) -> None:
        """Say where the ports are; call once everything is wired."""
        self.config_written(PIIX4_PMBASE, 4)

    def config_written(self, offset: int, size: int) -> None:
        enabled = self.pci.config[PIIX4_PMREGMISC] & PIIX4_PM_ENABLE
        base = (self.get(PIIX4_PMBASE, 4) & PIIX4_PMBASE_MASK or None) if enabled else None
        if base != self._base:
            self._base = base
            self._on_pm_base(base)


class Ich9Lpc(_PirqRouter):
    """ISA bridge of `-M q35`, device 31. PIRQA to PIRQH go to the I/O APIC's inputs 16 to 23 (`gsi_lines`), and by
    the route registers to ISA interrupts."""

    def __init__(
        self,
        isa_lines: Sequence[IrqLine],
        gsi_lines: Sequence[IrqLine],
        pm_base: int,
        on_pm_base: Callable[[int | None], None],
        configured: bool = True,
    ) -> None:
        self._on_pm_base = on_pm_base
        self._base: int | None = None
        registers = (*range(ICH9_PIRQ_LOW, ICH9_PIRQ_LOW + 4), *range(ICH9_PIRQ_HIGH, ICH9_PIRQ_HIGH + 4))
        super().__init__(0x2918, registers, isa_lines, gsi_lines, (PIRQ_DISABLED,) * 8, revision=2)
        self.make_writable(ICH9_PMBASE, 4, ICH9_PMBASE_MASK)
        self.put(ICH9_PMBASE, 4, 1)
        self.make_writable(ICH9_ACPI_CONTROL, 1, 0x87)
        if configured:
            self.put(ICH9_PMBASE, 4, pm_base & ICH9_PMBASE_MASK | 1)
            self.put(ICH9_ACPI_CONTROL, 1, ICH9_ACPI_ENABLE)
        self.set_multifunction()
        self.set_reset_values()

    def announce(self) -> None:
        """Say where the ports are; call once everything is wired."""
        self.config_written(ICH9_PMBASE, 4)

    def config_written(self, offset: int, size: int) -> None:
        super().config_written(offset, size)
        enabled = self.pci.config[ICH9_ACPI_CONTROL] & ICH9_ACPI_ENABLE
        base = (self.get(ICH9_PMBASE, 4) & ICH9_PMBASE_MASK or None) if enabled else None
        if base != self._base:
            self._base = base
            self._on_pm_base(base)
