"""The mainboard: which devices a machine has, where they are, and how their wires run.

Two boards: `pc` (i440FX, PIIX3 and the PIIX4's power management function) and `q35` (MCH and ICH9 LPC, with
memory-mapped PCI configuration space). Addresses come from `pyemu.firmware.platform`, which also makes the tables
that describe them to the guest. ISA interrupts go to the 8259 pair and to the I/O APIC (number 0 to pin 2); the
8259's output goes to the local APIC's LINT0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, cast

from pyemu.bus import MmioBus, PortBus
from pyemu.clock import Clock, RealTimeClock, tsc_to_ns
from pyemu.config import DebugExit as DebugExitConfig
from pyemu.devices import pc_testdev
from pyemu.devices.acpi_pm import PM_WINDOW, AcpiPm, ResetControl, SmiCommandPorts
from pyemu.devices.apic import Apic
from pyemu.devices.apic_bus import ApicBus
from pyemu.devices.coprocessor import CoprocessorError
from pyemu.devices.debug_ports import DebugConsole, DebugExit, PostPort
from pyemu.devices.device import Device, nothing, nothing_int
from pyemu.devices.fw_cfg import (
    E820_FORMAT,
    FILE_BOOT_FAIL_WAIT,
    FILE_E820,
    KEY_IRQ0_OVERRIDE,
    KEY_MAX_CPUS,
    KEY_NUM_CPUS,
    KEY_RAM_SIZE,
    FwCfg,
)
from pyemu.devices.hpet import Hpet
from pyemu.devices.interfaces import CharBackend, IrqLine, MmioDevice, NullLine, PortDevice
from pyemu.devices.ioapic import ENTRY_MASKED, IoApic
from pyemu.devices.irq_lines import FanOutLine, GatedLine, SharedLine
from pyemu.devices.pci import ConfigPorts, EcamWindow, PciBus
from pyemu.devices.pci.bus import i440fx_pirq, q35_pirq
from pyemu.devices.pci.chipsets import I440fx, Ich9Lpc, Piix3, Piix4Pm, Q35Mch
from pyemu.devices.pic8259 import PicPair
from pyemu.devices.pit8254 import Pit8254, Port61
from pyemu.devices.ps2_i8042 import I8042
from pyemu.devices.rtc_mc146818 import RtcMc146818, memory_size_bytes
from pyemu.devices.tick_line import TickLine
from pyemu.devices.uart16550 import MCR_DTR, Uart16550
from pyemu.firmware.boot_image import E820Type
from pyemu.firmware.e820 import ram_ranges
from pyemu.firmware.platform import Platform
from pyemu.log import Log
from pyemu.memory import GuestRam
from pyemu.serialport import SerialPort
from pyemu.shadow import ShadowMemory

ISA_IRQS = 16
CASCADE_IRQ = 2
PIT_IRQ = 0
IOAPIC_SIZE = 0x1000
HPET_SIZE = 0x400
APIC_SIZE = 0x1000
# Ports that every PC has at the same place.
PIC_MASTER, PIC_SLAVE, ELCR, PIT, PORT_61, POST, PCI_CONFIG, SMI_COMMAND = (
    0x20, 0xA0, 0x4D0, 0x40, 0x61, 0x80, 0xCF8, 0xB2,
)  # fmt: skip
COPROCESSOR, COPROCESSOR_IRQ = 0xF0, 13
KEYBOARD_DATA, PORT_92, KEYBOARD_COMMAND, FW_CFG = 0x60, 0x92, 0x64, 0x510
# What a BIOS leaves in the interrupt controllers and the timer (`_firmware_setup`).
BIOS_VECTORS_MASTER, BIOS_VECTORS_SLAVE = 0x08, 0x70
BIOS_MASK_MASTER, BIOS_MASK_SLAVE = 0xB8, 0x8F
ELCR_SLAVE_LEVEL = 1 << (9 - 8) | 1 << (10 - 8) | 1 << (11 - 8)  # SCI, PIRQs
PIT_CHANNEL0_MODE3 = 0x36


class _Resettable(Protocol):
    def reset(self) -> None: ...


class Board:
    """All devices of one machine. Everything in here is called with the device lock held."""

    COM_PORTS = ((0x3F8, 4), (0x2F8, 3), (0x3E8, 4), (0x2E8, 3))

    def __init__(
        self,
        *,
        platform: Platform,
        ram: GuestRam,
        clock: Clock,
        log: Log,
        serial_ports: Sequence[SerialPort],
        debug_exit: DebugExitConfig | None,
        testdev: bool,
        debugcon: CharBackend | None,
        debugcon_port: int,
        machine: str,
        rom: bytes | None,
    ) -> None:
        """`rom` is what a ROM shows below 1 MiB; without one, guests start as if firmware had run."""
        self._log = log
        self._platform = platform
        self.ports = PortBus(log)
        self.mmio = MmioBus(log, ram.ranges)
        self._bars: dict[int, tuple[bool, int]] = {}  # by id of the window: is_io, address
        self._apic_page: int | None = None
        self._pm_base: int | None = None
        self._ecam_base: int | None = None
        self._reset: Callable[[], None] = nothing
        self._power_off: Callable[[], None] = nothing
        self._debug_exit: Callable[[int], None] = nothing_int

        self._with_bios = rom is not None
        self.shadow = ShadowMemory(ram, self.mmio, rom or b"")
        self._shadow_modes = self.shadow.modes
        self._memory_changed: Callable[[], None] = nothing
        self._wire_interrupts(clock)
        self._wire_timers(clock, ram)
        self._wire_serial(clock, serial_ports)
        self._wire_pci(clock, machine)
        self._wire_keyboard()
        self._storages: list[pc_testdev.Storage] = []
        self._wire_debug(debug_exit, debugcon, debugcon_port)
        if testdev:
            self._wire_testdev()
        self._wire_fw_cfg(ram)
        self._resettable: list[_Resettable] = [
            self.pic, self.ioapic, self.apic, self.tick, self.coprocessor, self.pit, self.rtc, self.hpet, self.pm,
            self.reset_control, self.smi_ports, self.config_ports, self.pci, self.i8042, self.fw_cfg, *self.uarts,
        ]  # fmt: skip
        self._firmware_setup()

    @property
    def devices(self) -> dict[str, Device]:
        """All devices with a state, in the order in which they are restored: a controller comes after those whose lines
        go to it, since what their edges do to it isn't part of its own record."""
        found: dict[str, Device] = {
            "pit": self.pit, "rtc": self.rtc, "hpet": self.hpet, "acpi pm": self.pm, "i8042": self.i8042,
            "reset control": self.reset_control, "smi ports": self.smi_ports, "pci ports": self.config_ports,
            "fw_cfg": self.fw_cfg, "coprocessor": self.coprocessor, "post": self._post,
        }  # fmt: skip
        found |= {f"serial{number}": uart for number, uart in enumerate(self.uarts)}
        found |= {f"testdev {number}": storage for number, storage in enumerate(self._storages)}
        functions = self.pci.functions.items()
        found |= {f"pci 00:{devfn >> 3:02x}.{devfn & 7}": function for devfn, function in functions}
        return found | {"pic": self.pic, "ioapic": self.ioapic, "apic": self.apic}

    # ---- wiring --------------------------------------------------------------------------------------------

    def _wire_interrupts(self, clock: Clock) -> None:
        platform = self._platform
        self.apic_bus = ApicBus()
        self.apic = Apic(clock, 0, is_bsp=True, tsc_now=clock.read_tsc, tsc_to_ns=tsc_to_ns)
        self.apic_bus.add(self.apic)
        self.apic.on_base_change = self._place_apic
        self.ioapic = IoApic(self.apic_bus.deliver, platform.ioapic_id)
        self.apic_bus.add_eoi_listener(self.ioapic.end_of_interrupt)
        self.pic = PicPair(lambda level: self.apic.set_lint(0, level))
        self.apic.external_acknowledge = self.pic.acknowledge
        self.tick = TickLine(self._isa_line(PIT_IRQ), self._tick_waits if isinstance(clock, RealTimeClock) else None)
        self.apic.on_acknowledge = self.tick.acknowledged
        self._isa = [SharedLine(self.tick if irq == PIT_IRQ else self._isa_line(irq)) for irq in range(ISA_IRQS)]
        self.ports.claim(PIC_MASTER, 2, self.pic.master, name="pic master")
        self.ports.claim(PIC_SLAVE, 2, self.pic.slave, name="pic slave")
        self.ports.claim(ELCR, 2, self.pic.elcr, name="elcr")
        self.mmio.claim(platform.ioapic_base, IOAPIC_SIZE, self.ioapic, name="ioapic")
        self.coprocessor = CoprocessorError(self._isa[COPROCESSOR_IRQ].input())
        self.ports.claim(COPROCESSOR, 2, self.coprocessor, name="coprocessor error")
        self._place_apic()

    def _isa_line(self, irq: int) -> IrqLine:
        if irq == CASCADE_IRQ:
            return NullLine()
        pin = self._platform.pit_gsi if irq == PIT_IRQ else irq
        return FanOutLine(self.pic.line(irq), self.ioapic.line(pin))

    def _tick_waits(self) -> bool:
        entry, pic = self.ioapic.state.table[self._platform.pit_gsi], self.pic.state.master
        if not entry & ENTRY_MASKED:
            return bool(self.apic.state.irr >> (entry & 0xFF) & 1)
        return bool(pic.irr & ~pic.imr & 1)

    def _wire_timers(self, clock: Clock, ram: GuestRam) -> None:
        platform = self._platform
        # While the HPET replaces them ("legacy replacement"), PIT and RTC are cut off from their interrupts.
        pit_line = GatedLine(self._isa[PIT_IRQ].input())
        rtc_line = GatedLine(self._isa[platform.rtc_irq].input())

        def hpet_replaces(active: bool) -> None:
            pit_line.set_open(not active)
            rtc_line.set_open(not active)

        self.pit = Pit8254(clock, pit_line)
        self.pit.on_late = lambda count: self.tick.late(count) if pit_line.is_open else None
        self.port61 = Port61(self.pit, clock)
        nvram = memory_size_bytes(ram.low_end, ram.installed - ram.low_end)
        self.rtc = RtcMc146818(clock, rtc_line, nvram)
        self.hpet = Hpet(
            clock,
            [self.ioapic.line(pin) for pin in range(platform.ioapic_inputs)],
            [self._isa[PIT_IRQ].input(), self._isa[platform.rtc_irq].input()],
            hpet_replaces,
        )
        self.hpet.on_late = self.tick.late
        self.ports.claim(PIT, 4, self.pit, name="pit")
        self.ports.claim(PORT_61, 1, self.port61, name="port 0x61")
        self.ports.claim(platform.rtc_port, 2, self.rtc, name="rtc")
        if platform.has_hpet:
            self.mmio.claim(platform.hpet_base, HPET_SIZE, self.hpet, widest=8, name="hpet")

    def _wire_serial(self, clock: Clock, serial_ports: Sequence[SerialPort]) -> None:
        self.uarts: list[Uart16550] = []
        for port, (base, irq) in zip(serial_ports, self.COM_PORTS, strict=False):
            uart = Uart16550(clock, self._isa[irq].input(), port)
            port.connect(uart, uart.receive_break, _opened(uart))
            self.ports.claim(base, 8, uart, widest=4, name=port.name)
            self.uarts.append(uart)

    def _wire_pci(self, clock: Clock, machine: str) -> None:
        platform = self._platform
        self.pm = AcpiPm(
            clock,
            self._isa[platform.sci_irq].input(),
            lambda: self._power_off(),
            s5_type=platform.s5_sleep_type,
            timer_bits=platform.pm_timer_bits,
        )
        self.reset_control = ResetControl(lambda: self._reset())
        self.smi_ports = SmiCommandPorts(self.pm)
        inputs = [line.input() for line in self._isa]
        configured = not self._with_bios
        announce: list[Callable[[], None]]
        if machine == "q35":
            self.pci = PciBus(self, q35_pirq)
            self._ecam = EcamWindow(self.pci)
            gsi_lines = [self.ioapic.line(pin) for pin in range(16, 24)]
            mch = Q35Mch(platform.ecam_base, self._place_ecam, self._pam_written, configured)
            lpc = Ich9Lpc(inputs, gsi_lines, platform.pm1a_event, self._place_pm, configured)
            self.pci.add(0, 0, mch)
            self.pci.add(31, 0, lpc)
            self.pci.set_pirq_lines([lpc.pirq_line(pirq) for pirq in range(8)])
            announce = [mch.announce, lpc.announce]
        else:
            self.pci = PciBus(self, i440fx_pirq)
            bridge = I440fx(self._pam_written, configured)
            gsi_lines = [self.ioapic.line(platform.pirq_gsi + pirq) for pirq in range(4)]
            piix = Piix3(inputs, gsi_lines, configured)
            pm_function = Piix4Pm(platform.pm1a_event, self._place_pm, configured)
            self.pci.add(0, 0, bridge)
            self.pci.add(1, 0, piix)
            self.pci.add(1, 3, pm_function)
            self.pci.set_pirq_lines([piix.pirq_line(pirq) for pirq in range(4)])
            announce = [bridge.announce, pm_function.announce]
        self.config_ports = ConfigPorts(self.pci, self.reset_control)
        self.ports.claim(PCI_CONFIG, 8, self.config_ports, widest=4, name="pci configuration")
        self.ports.claim(SMI_COMMAND, 2, self.smi_ports, name="smi command")
        for call in announce:
            call()

    def _wire_keyboard(self) -> None:
        platform = self._platform
        keyboard, mouse = self._isa[platform.keyboard_irq].input(), self._isa[platform.mouse_irq].input()
        self.i8042 = I8042(keyboard, mouse, lambda: self._reset())
        self.ports.claim(KEYBOARD_DATA, 1, self.i8042, name="i8042")
        self.ports.claim(KEYBOARD_COMMAND, 1, self.i8042, name="i8042", origin=KEYBOARD_COMMAND - 1)
        self.ports.claim(PORT_92, 1, self.i8042.port92, name="port 0x92")

    def _wire_fw_cfg(self, ram: GuestRam) -> None:
        self.fw_cfg = FwCfg(ram)
        for key, value, size in ((KEY_RAM_SIZE, ram.installed, 8), (KEY_NUM_CPUS, 1, 2), (KEY_MAX_CPUS, 1, 2)):
            self.fw_cfg.add_item(key, value.to_bytes(size, "little"))
        self.fw_cfg.add_item(KEY_IRQ0_OVERRIDE, (1).to_bytes(4, "little"))
        self.fw_cfg.add_file(FILE_BOOT_FAIL_WAIT, (0xFFFF_FFFF).to_bytes(4, "little"))
        # Firmware adds the reserved ranges itself, as it makes them.
        ranges = ram_ranges(ram.installed, self._platform)
        self.fw_cfg.add_file(FILE_E820, b"".join(E820_FORMAT.pack(*entry, E820Type.RAM.value) for entry in ranges))
        self.ports.claim(FW_CFG, 12, self.fw_cfg, widest=4, name="fw_cfg")

    def _wire_debug(self, debug_exit: DebugExitConfig | None, debugcon: CharBackend | None, console_port: int) -> None:
        self._post = PostPort()
        self.ports.claim(POST, 1, self._post, name="post")
        if debugcon is not None:
            self.ports.claim(console_port, 1, DebugConsole(debugcon), name="debug console")
        if debug_exit is not None:
            device = DebugExit(lambda status: self._debug_exit(status))
            # A guest's wider write than the ports is refused as one, and then arrives in pieces, lowest first.
            widest = 1 << min(2, debug_exit.iosize.bit_length() - 1)
            self.ports.claim(debug_exit.iobase, debug_exit.iosize, device, widest=widest, name="isa-debug-exit")

    def _wire_testdev(self) -> None:
        """QEMU's pc-testdev. The console, if it is there, keeps its port among the storage's."""
        storage = pc_testdev.Storage(pc_testdev.STORAGE_PORTS)
        memory = pc_testdev.Storage(pc_testdev.MEMORY_SIZE)
        self._storages = [storage, memory]
        lines = [line.input() for line in self._isa]
        lines += [self.ioapic.line(pin) for pin in range(len(lines), pc_testdev.LINES)]
        self.ports.claim(pc_testdev.STORAGE_PORT, pc_testdev.STORAGE_PORTS, storage, widest=4, name="pc-testdev")
        flush = pc_testdev.FlushPort()
        self.ports.claim(pc_testdev.FLUSH_PORT, pc_testdev.FLUSH_PORTS, flush, widest=4, name="pc-testdev")
        for port in range(pc_testdev.BYTES_PORT, pc_testdev.BYTES_PORT + pc_testdev.STORAGE_PORTS):
            if self.ports.name(port) == "unclaimed":
                self.ports.claim(port, 1, storage, name="pc-testdev", origin=pc_testdev.BYTES_PORT)
        self.ports.claim(pc_testdev.LINES_PORT, pc_testdev.LINES, pc_testdev.LinePorts(lines), name="pc-testdev")
        self.mmio.claim(pc_testdev.MEMORY_BASE, pc_testdev.MEMORY_SIZE, memory, widest=8, name="pc-testdev")

    # ---- what guests can move ------------------------------------------------------------------------------

    def _place_apic(self) -> None:
        if self._apic_page is not None:
            self.mmio.release(self._apic_page)
            self._apic_page = None
        base = self.apic.mmio_base
        if base is not None and self._try_mmio(base, APIC_SIZE, self.apic, 4, "local apic"):
            self._apic_page = base

    def _pam_written(self, modes: tuple[int, ...]) -> None:
        """The processor is in the middle of an instruction: memory changes when that is over."""
        self._shadow_modes = modes
        self._memory_changed()

    def rearrange_memory(self) -> bool:
        """Make memory what the host bridge says; whether that changed it. Not while the processor runs."""
        if self.shadow.modes == self._shadow_modes:
            return False
        self.shadow.set_modes(self._shadow_modes)
        return True

    def _place_pm(self, base: int | None) -> None:
        if self._pm_base is not None:
            self.ports.release(self._pm_base)
            self._pm_base = None
        if base is not None and self._try_ports(base, PM_WINDOW, self.pm, "acpi pm"):
            self._pm_base = base

    def _place_ecam(self, base: int, size: int) -> None:
        if self._ecam_base is not None:
            self.mmio.release(self._ecam_base)
            self._ecam_base = None
        if size and self._try_mmio(base, size, self._ecam, 8, "pci ecam"):
            self._ecam_base = base

    def map_bar(self, window: PortDevice | MmioDevice, is_io: bool, size: int, address: int | None) -> None:
        """`pyemu.devices.interfaces.BarMapper`. Where something else already is, the window doesn't appear."""
        old = self._bars.pop(id(window), None)
        if old is not None:
            (self.ports if old[0] else self.mmio).release(old[1])
        if address is None:
            return
        name = type(window).__name__
        if is_io:
            mapped = self._try_ports(address, size, cast(PortDevice, window), name)
        else:
            mapped = self._try_mmio(address, size, cast(MmioDevice, window), 8, name)
        if mapped:
            self._bars[id(window)] = (is_io, address)

    def _try_mmio(self, base: int, size: int, device: MmioDevice, widest: int, name: str) -> bool:
        try:
            self.mmio.claim(base, size, device, widest=widest, name=name)
        except ValueError as error:
            self._log.write_limited("guest_errors", f"{name} can't be mapped: {error}")
            return False
        return True

    def _try_ports(self, base: int, count: int, device: PortDevice, name: str) -> bool:
        try:
            self.ports.claim(base, count, device, widest=4, name=name)
        except ValueError as error:
            self._log.write_limited("guest_errors", f"{name} can't be mapped: {error}")
            return False
        return True

    # ---- life ----------------------------------------------------------------------------------------------

    def connect(
        self,
        *,
        interrupts_changed: Callable[[], None],
        raise_nmi: Callable[[], None],
        reset: Callable[[], None],
        power_off: Callable[[], None],
        debug_exit: Callable[[int], None],
        memory_changed: Callable[[], None],
    ) -> None:
        """Where what the devices ask of the machine goes."""
        self.apic.on_change = interrupts_changed
        self.apic.on_nmi = raise_nmi
        self.apic.on_init = reset  # the only processor is the boot processor: INIT starts it at the reset vector
        self._reset = reset
        self._power_off = power_off
        self._debug_exit = debug_exit
        self._memory_changed = memory_changed
        interrupts_changed()

    def reset(self) -> None:
        """The RESET wire."""
        for device in self._resettable:
            device.reset()
        self._firmware_setup()

    def _firmware_setup(self) -> None:
        """Without a ROM, guests start as if a BIOS had run: this is what it would have programmed."""
        if self._with_bios:
            self.pm.set_acpi_mode(False)
            return
        self.apic.enter_virtual_wire_mode()
        # The timer first: its output's first edge must not stay behind as a request.
        for offset, value in ((3, PIT_CHANNEL0_MODE3), (0, 0), (0, 0)):  # 18.2 Hz
            self.pit.port_write(offset, 1, value)
        for chip, vectors, cascade, mask in (
            (self.pic.master, BIOS_VECTORS_MASTER, 1 << CASCADE_IRQ, BIOS_MASK_MASTER),
            (self.pic.slave, BIOS_VECTORS_SLAVE, CASCADE_IRQ, BIOS_MASK_SLAVE),
        ):
            chip.port_write(0, 1, 0x11)  # ICW1: edge-triggered, cascaded, ICW4 follows
            for icw in (vectors, cascade, 0x01, mask):  # ICW2, ICW3, ICW4: 8086 mode; then the mask
                chip.port_write(1, 1, icw)
        self.pic.elcr.port_write(1, 1, ELCR_SLAVE_LEVEL)

    def press_power_button(self) -> None:
        self.pm.press_power_button()




def _opened(uart: Uart16550) -> Callable[[], bool]:
    return lambda: bool(uart.state.mcr & MCR_DTR)
