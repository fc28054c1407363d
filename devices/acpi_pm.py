"""ACPI power management ports: PM1 event and control blocks, PM timer, GPE0 block, SMI command port, reset register.

References: ACPI Specification 6.4, 4.8.3 (PM1 and PM timer registers), 4.8.4 (GPE blocks), 4.8.3.6 (reset register);
ICH9 datasheet (316972) 13.8.3 and PIIX3 (290550) 2.2.21 for port 0xcf9. The layout is that of the ICH: PM1 at offset
0, timer at 8, GPE0 at 0x20 (8 bytes of status, 8 of enable); the FADT must say the same. Sleeping states other than
S5 don't exist.
"""

from collections.abc import Callable
from dataclasses import dataclass

from pyemu.devices.device import ALL_ONES, NS_PER_SECOND, Device, read_wide, write_wide
from pyemu.devices.interfaces import Clock, IrqLine

PM_WINDOW = 0x40  # number of ports
PM1_STATUS, PM1_ENABLE, PM1_CONTROL, PM_TIMER, GPE0, SMI_ENABLE, SMI_STATUS = 0x00, 0x02, 0x04, 0x08, 0x20, 0x30, 0x34
GPE0_BYTES = 16
PM_TIMER_HZ = 3_579_545

# PM1 status and enable (4.8.3.1)
TIMER_STATUS, GLOBAL_STATUS, POWER_BUTTON, SLEEP_BUTTON = 1 << 0, 1 << 5, 1 << 8, 1 << 9
PM1_STATUS_CLEARABLE = 0xCF31
PM1_ENABLE_WRITABLE = 0x4721
# PM1 control (4.8.3.2.1)
SCI_ENABLE, GLOBAL_RELEASE, SLEEP_TYPE_SHIFT, SLEEP_ENABLE = 1 << 0, 1 << 2, 10, 1 << 13
PM1_CONTROL_WRITABLE = 0x1C02

# Reset control register, port 0xcf9
RESET_FULL, RESET_CPU, RESET_SYSTEM = 0x08, 0x04, 0x02

SMI_APMC = 1 << 5  # SMI_EN: writes to the command port cause an SMI (ICH9 13.8.3.9)

ACPI_ENABLE_COMMAND, ACPI_DISABLE_COMMAND = 0xF1, 0xF0  # what the FADT names for the SMI command port


@dataclass(slots=True)
class PmState:
    status: int = 0
    enable: int = 0
    control: int = SCI_ENABLE
    timer_phase: int = 0  # how often the timer's top bit had toggled when TIMER_STATUS was last looked at
    gpe_status: int = 0  # 64 bits
    gpe_enable: int = 0
    smi_enable: int = SMI_APMC  # there is no SMM: firmware must find that it has been set up already


class AcpiPm(Device):
    """`on_shutdown()` is called when the guest enters S5. `s5_type` is what the DSDT's _S5 package says. ACPI mode is
    on from the start, as no firmware has to be asked for it."""

    state: PmState

    def __init__(
        self,
        clock: Clock,
        sci: IrqLine,
        on_shutdown: Callable[[], None],
        *,
        s5_type: int = 0,
        timer_bits: int = 24,
    ) -> None:
        if timer_bits not in (24, 32):
            raise ValueError("the PM timer has 24 or 32 bits")
        self._now = clock.now_ns
        self._timer = clock.timer(self._update)
        self._sci = sci
        self._on_shutdown = on_shutdown
        self._s5_type = s5_type
        self._top = timer_bits - 1
        self._mask = (1 << timer_bits) - 1
        self._level = False
        self.state = PmState(timer_phase=self._phase())

    def reset(self) -> None:
        self.state = PmState(timer_phase=self._phase())
        self._update()

    def resync(self) -> None:
        self._level = False
        self._sci.set(False)
        self._update()

    # Events from the machine

    def press_power_button(self) -> None:
        self.state.status |= POWER_BUTTON
        self._update()

    def raise_gpe(self, number: int) -> None:
        """A general-purpose event, 0 to 63."""
        self.state.gpe_status |= 1 << number
        self._update()

    def set_acpi_mode(self, enabled: bool) -> None:
        """What the SMI handler of firmware does on the FADT's commands."""
        s = self.state
        s.control = s.control | SCI_ENABLE if enabled else s.control & ~SCI_ENABLE
        self._update()

    # Ports

    def port_read(self, offset: int, size: int) -> int:
        if offset == PM_TIMER and size == 4:
            return self._now() * PM_TIMER_HZ // NS_PER_SECOND & self._mask
        return self._read(offset) if size == 1 else read_wide(lambda at, _: self._read(at), offset, size)

    def _read(self, offset: int) -> int:
        s = self.state
        register, shift = offset & ~1, 8 * (offset & 1)
        if register == PM1_STATUS:
            self._note_timer()
            return s.status >> shift & 0xFF
        if register == PM1_ENABLE:
            return s.enable >> shift & 0xFF
        if register == PM1_CONTROL:
            return s.control >> shift & 0xFF
        if PM_TIMER <= offset < PM_TIMER + 4:
            return (self._now() * PM_TIMER_HZ // NS_PER_SECOND & self._mask) >> 8 * (offset - PM_TIMER) & 0xFF
        if GPE0 <= offset < GPE0 + GPE0_BYTES:
            value = s.gpe_enable if offset & 8 else s.gpe_status
            return value >> 8 * (offset & 7) & 0xFF
        if SMI_ENABLE <= offset < SMI_ENABLE + 4:
            return s.smi_enable >> 8 * (offset - SMI_ENABLE) & 0xFF
        return 0

    def port_write(self, offset: int, size: int, value: int) -> None:
        if size == 1:
            self._write(offset, 1, value)
        elif size == 2 and not offset & 1:
            self._write(offset, 2, value)
        elif size == 4 and not offset & 1:
            self._write(offset, 2, value & 0xFFFF)
            self._write(offset + 2, 2, value >> 16)
        else:
            write_wide(self._write, offset, size, value)

    def _write(self, offset: int, size: int, value: int) -> None:
        s = self.state
        register, shift = offset & ~1, 8 * (offset & 1)
        mask = (1 << 8 * size) - 1
        if register == PM1_STATUS:
            self._note_timer()
            s.status &= ~(value << shift & PM1_STATUS_CLEARABLE)
        elif register == PM1_ENABLE:
            self._note_timer()
            s.enable = (s.enable & ~(mask << shift) | value << shift) & PM1_ENABLE_WRITABLE
        elif register == PM1_CONTROL:
            self._write_control(s.control & ~(mask << shift) | value << shift)
        elif GPE0 <= offset < GPE0 + GPE0_BYTES:
            shift = 8 * (offset & 7)
            if offset & 8:
                s.gpe_enable = (s.gpe_enable & ~(mask << shift) | value << shift) & ALL_ONES[8]
            else:
                s.gpe_status &= ~(value << shift)
        elif SMI_ENABLE <= offset < SMI_ENABLE + 4:
            shift = 8 * (offset - SMI_ENABLE)
            s.smi_enable = (s.smi_enable & ~(mask << shift) | value << shift) & 0xFFFF_FFFF
        else:
            return
        self._update()

    def _write_control(self, value: int) -> None:
        s = self.state
        s.control = value & PM1_CONTROL_WRITABLE | s.control & SCI_ENABLE  # SCI_EN is firmware's to change
        if value & SLEEP_ENABLE and value >> SLEEP_TYPE_SHIFT & 7 == self._s5_type:
            self._on_shutdown()

    # Timer status and SCI

    def _phase(self) -> int:
        return (self._now() * PM_TIMER_HZ // NS_PER_SECOND) >> self._top

    def _note_timer(self) -> None:
        """TIMER_STATUS is set whenever the timer's top bit changes (4.8.3.1.1)."""
        s = self.state
        phase = self._phase()
        if phase != s.timer_phase:
            s.timer_phase = phase
            s.status |= TIMER_STATUS

    def _update(self) -> None:
        s = self.state
        self._note_timer()
        level = bool(s.control & SCI_ENABLE) and bool(s.status & s.enable or s.gpe_status & s.gpe_enable)
        if level != self._level:
            self._level = level
            self._sci.set(level)
        if s.enable & TIMER_STATUS and not s.status & TIMER_STATUS:
            ticks = (s.timer_phase + 1) << self._top
            self._timer.arm((ticks * NS_PER_SECOND + PM_TIMER_HZ - 1) // PM_TIMER_HZ)
        else:
            self._timer.cancel()


@dataclass(slots=True)
class ResetState:
    value: int = 0


class ResetControl(Device):
    """Port 0xcf9: setting bit 2 resets; bit 1 says whether the system or only the processor. `on_reset()` does both."""

    state: ResetState

    def __init__(self, on_reset: Callable[[], None]) -> None:
        self._on_reset = on_reset
        self.state = ResetState()

    def reset(self) -> None:
        self.state.value = 0

    def port_read(self, offset: int, size: int) -> int:
        return self.state.value if size == 1 else ALL_ONES[size] & ~0xFF | self.state.value

    def port_write(self, offset: int, size: int, value: int) -> None:
        if offset:
            return
        rising = value & ~self.state.value & RESET_CPU
        self.state.value = value & (RESET_FULL | RESET_SYSTEM)
        if rising:
            self._on_reset()


@dataclass(slots=True)
class SmiPortState:
    command: int = 0
    data: int = 0


class SmiCommandPorts(Device):
    """Ports 0xb2 (command) and 0xb3 (data). There is no system management mode: the two ACPI commands are carried out
    directly."""

    state: SmiPortState

    def __init__(self, pm: AcpiPm) -> None:
        self._pm = pm
        self.state = SmiPortState()

    def reset(self) -> None:
        self.state = SmiPortState()

    def port_read(self, offset: int, size: int) -> int:
        if size != 1:
            return read_wide(self.port_read, offset, size)
        return (self.state.command, self.state.data)[offset] if offset < 2 else 0xFF

    def port_write(self, offset: int, size: int, value: int) -> None:
        if size != 1:
            write_wide(self.port_write, offset, size, value)
        elif offset == 1:
            self.state.data = value
        elif offset == 0:
            self.state.command = value
            if value in (ACPI_ENABLE_COMMAND, ACPI_DISABLE_COMMAND):
                self._pm.set_acpi_mode(value == ACPI_ENABLE_COMMAND)
