"""Local APIC of one processor: interrupt acceptance, local vector table, timer; xAPIC page and x2APIC MSRs.

Reference: Intel SDM volume 3A, chapter "Advanced Programmable Interrupt Controller (APIC)": 10.4 (local APIC), 10.5
(local interrupts, timer, errors), 10.6 (IPIs), 10.8 (acceptance, priorities, EOI), 10.12 (x2APIC). The 256-bit
registers IRR, ISR and TMR are single integers, so the highest priority is a bit_length(). Messages between APICs go
over apic_bus.ApicBus; how a processor reacts to NMI, INIT, SIPI and SMI is its own business (callbacks). CMCI,
thermal and performance entries exist as registers, nothing ever signals them. Delivery is immediate, so delivery
status always reads idle.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from pyemu.devices.apic_timer import TIMER_MODE_MASK, ApicTimer, ApicTimerState
from pyemu.devices.device import Device, nothing, nothing_int
from pyemu.devices.interfaces import EXTINT, Clock

# Register numbers: MMIO offset >> 4, and x2APIC MSR - 0x800 (tables 10-1 and 10-6)
ID, VERSION, TPR, APR, PPR, EOI, RRD, LDR, DFR, SVR = 0x02, 0x03, 0x08, 0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x0E, 0x0F
ISR0, TMR0, IRR0, ESR, LVT_CMCI, ICR_LOW, ICR_HIGH = 0x10, 0x18, 0x20, 0x28, 0x2F, 0x30, 0x31
LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR = 0x32, 0x33, 0x34, 0x35, 0x36, 0x37
TIMER_INITIAL, TIMER_CURRENT, TIMER_DIVIDE, SELF_IPI = 0x38, 0x39, 0x3E, 0x3F

MSR_APIC_BASE, MSR_TSC_DEADLINE, MSR_X2APIC_FIRST, MSR_X2APIC_LAST = 0x1B, 0x6E0, 0x800, 0x8FF
BASE_BSP, BASE_EXTD, BASE_ENABLE = 1 << 8, 1 << 10, 1 << 11  # 10.4.4, 10.12.1
DEFAULT_BASE = 0xFEE0_0000
BASE_RESERVED_LOW = 0x2FF

VERSION_VALUE = 0x0005_0014  # integrated APIC, 6 LVT entries, no EOI broadcast suppression (10.4.8)
SVR_ENABLE = 0x100
SVR_MASK = 0x3FF  # bit 9, focus checking, can be set and does nothing
DFR_FLAT = 0xFFFF_FFFF

# Delivery modes (10.5.1, 10.6.1)
FIXED, LOWEST, SMI, NMI, INIT, SIPI, EXTINT_MODE = 0, 1, 2, 4, 5, 6, 7
# LVT bits (figure 10-8)
LVT_PENDING, LVT_ACTIVE_LOW, LVT_REMOTE_IRR, LVT_LEVEL, LVT_MASKED = 1 << 12, 1 << 13, 1 << 14, 1 << 15, 1 << 16
LVT_WRITABLE = {  # LVT entries: what software can write
    LVT_TIMER: 0x0007_00FF,
    LVT_THERMAL: 0x0001_07FF,
    LVT_PERF: 0x0001_07FF,
    LVT_LINT0: 0x0001_A7FF,
    LVT_LINT1: 0x0001_A7FF,
    LVT_ERROR: 0x0001_00FF,
}
# ICR (figure 10-12)
ICR_LEVEL_ASSERT, ICR_TRIGGER_LEVEL, ICR_LOGICAL = 1 << 14, 1 << 15, 1 << 11
ICR_WRITABLE = 0x000C_CFFF
ICR_PENDING = 1 << 12  # read-only, may be written
NO_SHORTHAND, SHORTHAND_SELF, SHORTHAND_ALL, SHORTHAND_OTHERS = 0, 1, 2, 3
# Error status (figure 10-9)
ESR_SEND_ILLEGAL, ESR_RECEIVE_ILLEGAL, ESR_ILLEGAL_REGISTER = 1 << 5, 1 << 6, 1 << 7

M32 = 0xFFFF_FFFF
X2_READABLE = frozenset((ID, VERSION, TPR, PPR, LDR, SVR, ESR, TIMER_INITIAL, TIMER_CURRENT, TIMER_DIVIDE))
READ_ONLY = frozenset((ID, VERSION, APR, PPR, LDR, RRD, TIMER_CURRENT))


@dataclass(slots=True)
class ApicState:
    base: int = 0
    id: int = 0
    tpr: int = 0
    ldr: int = 0
    dfr: int = DFR_FLAT
    svr: int = 0xFF
    isr: int = 0
    irr: int = 0
    tmr: int = 0
    esr: int = 0  # as last latched by a write
    errors: int = 0  # collected since
    icr: int = 0
    lvt: list[int] = field(default_factory=lambda: [LVT_MASKED] * 6)
    lint: list[int] = field(default_factory=lambda: [0, 0])  # levels of the two pins
    extint: int = 0  # an ExtINT message (not the LINT0 level) waits
    timer: ApicTimerState = field(default_factory=ApicTimerState)


class Apic(Device):
    """One local APIC; implements interfaces.LocalApic.

    Callbacks (plain attributes, to be set by the machine): `on_change()` whenever pending_vector() is another one,
    `on_acknowledge()` when the processor has taken an interrupt, `on_nmi()`, `on_smi()`, `on_init()`,
    `on_sipi(vector)`, `on_base_change()` when the page moved, appeared or vanished (look at `mmio_base`, None if there
    is none), and of the bus: `send_ipi(apic, destination, icr)`, `broadcast_eoi(vector)`, and
    `external_acknowledge()` -> vector (the 8259 pair's acknowledge).
    """

    state: ApicState

    def __init__(
        self,
        clock: Clock,
        apic_id: int,
        *,
        is_bsp: bool,
        tsc_now: Callable[[], int],
        tsc_to_ns: Callable[[int], int],
        physical_bits: int = 40,
    ) -> None:
        """`tsc_to_ns(t)` is the first moment of Clock.now_ns() at which tsc_now() >= t (round up)."""
        if not 0 <= apic_id < 0xFF:
            raise ValueError("xAPIC IDs are 0 to 254")
        self._initial_id = apic_id
        self._physical_mask = (1 << physical_bits) - 1
        self.on_change: Callable[[], None] = nothing
        self.on_nmi: Callable[[], None] = nothing
        self.on_smi: Callable[[], None] = nothing
        self.on_init: Callable[[], None] = nothing
        self.on_sipi: Callable[[int], None] = nothing_int
        self.on_base_change: Callable[[], None] = nothing
        self.on_acknowledge: Callable[[], None] = nothing
        self.broadcast_eoi: Callable[[int], None] = nothing_int
        self.send_ipi: Callable[[Apic, int, int], None] = _no_bus
        self.external_acknowledge: Callable[[], int] | None = None
        self._pending = -1
        self.state = ApicState(base=DEFAULT_BASE | BASE_ENABLE | (BASE_BSP if is_bsp else 0), id=apic_id)
        self._timer = ApicTimer(clock, self.state.timer, self._timer_expired, tsc_now, tsc_to_ns)

    # Life cycle

    def reset(self) -> None:
        """Power-up or reset (10.4.7.1): also back to xAPIC mode."""
        self.state.base = DEFAULT_BASE | BASE_ENABLE | (self.state.base & BASE_BSP)
        self.init()
        self.on_base_change()

    def init(self) -> None:
        """INIT (10.4.7.3): everything but the ID and the base; in x2APIC mode LDR stays too, as it derives from the
        ID."""
        s = self.state
        s.id = self._initial_id
        s.tpr = s.isr = s.irr = s.tmr = s.esr = s.errors = s.icr = s.extint = 0
        s.ldr = self._x2_ldr() if s.base & BASE_EXTD else 0
        s.dfr = DFR_FLAT
        s.svr = 0xFF
        s.lvt[:] = [LVT_MASKED] * 6
        self._timer.reset()
        self._update()

    def enter_virtual_wire_mode(self) -> None:
        """What PC firmware leaves on the boot processor: enabled, 8259 on LINT0, NMI on LINT1 (MP specification
        3.6.2.2)."""
        s = self.state
        s.svr = SVR_ENABLE | 0xFF
        s.lvt[LVT_LINT0 - LVT_TIMER] = LVT_LEVEL | EXTINT_MODE << 8
        s.lvt[LVT_LINT1 - LVT_TIMER] = NMI << 8
        self._update()

    def resync(self) -> None:
        self._timer.rearm(self.state.lvt[0])
        self._pending = -1
        self.on_base_change()
        self.on_change()
        self._update()

    def tsc_changed(self) -> None:
        """The guest wrote the TSC: a deadline means another moment now."""
        self._timer.rearm(self.state.lvt[0])

    @property
    def timer(self) -> ApicTimer:
        return self._timer

    @property
    def mmio_base(self) -> int | None:
        """Where the register page is; None while disabled and in x2APIC mode."""
        base = self.state.base
        return base & self._physical_mask & ~0xFFF if base & (BASE_ENABLE | BASE_EXTD) == BASE_ENABLE else None

    @property
    def is_x2apic(self) -> bool:
        return bool(self.state.base & BASE_EXTD)

    @property
    def is_enabled(self) -> bool:
        """By hardware: IA32_APIC_BASE."""
        return bool(self.state.base & BASE_ENABLE)

    # Processor side

    def pending_vector(self) -> int:
        return self._pending

    def acknowledge(self) -> int:
        vector = self._pending
        s = self.state
        if vector == EXTINT:
            s.extint = 0
            vector = self.external_acknowledge() if self.external_acknowledge else -1
        elif vector >= 0:
            bit = 1 << vector
            s.irr &= ~bit
            s.isr |= bit
        self._update()
        self.on_acknowledge()
        return vector

    def get_tpr(self) -> int:
        return self.state.tpr

    def set_tpr(self, value: int) -> None:
        s = self.state
        if s.tpr != value:
            s.tpr = value & 0xFF
            if s.irr:
                self._update()

    def msr_read(self, index: int) -> int | None:
        s = self.state
        if MSR_X2APIC_FIRST <= index <= MSR_X2APIC_LAST:
            register = index - MSR_X2APIC_FIRST
            if not s.base & BASE_EXTD:
                return None
            if register == ICR_LOW:
                return s.icr
            if register in X2_READABLE or ISR0 <= register < ESR or LVT_TIMER <= register <= LVT_ERROR:
                return self._read(register)
            return None
        if index == MSR_TSC_DEADLINE:
            return self._timer.read_deadline(s.lvt[0])
        return s.base if index == MSR_APIC_BASE else None

    def msr_write(self, index: int, value: int) -> bool:
        s = self.state
        if MSR_X2APIC_FIRST <= index <= MSR_X2APIC_LAST:
            return bool(s.base & BASE_EXTD) and self._x2_write(index - MSR_X2APIC_FIRST, value)
        if index == MSR_TSC_DEADLINE:
            self._timer.write_deadline(value, s.lvt[0])
            return True
        return index == MSR_APIC_BASE and self._write_base(value)

    def _write_base(self, value: int) -> bool:
        """State machine of 10.12.5; the BSP flag is fixed by the board."""
        s = self.state
        if value & (BASE_RESERVED_LOW & ~BASE_BSP | ~self._physical_mask):
            return False
        old_mode = s.base & (BASE_ENABLE | BASE_EXTD)
        new_mode = value & (BASE_ENABLE | BASE_EXTD)
        if new_mode == BASE_EXTD or (not old_mode and new_mode & BASE_EXTD):
            return False  # invalid state; x2APIC is reached from xAPIC only
        if old_mode & BASE_EXTD and new_mode == BASE_ENABLE:
            return False  # and left by disabling only
        s.base = value & ~BASE_BSP | s.base & BASE_BSP
        if new_mode != old_mode:
            if not new_mode:
                self.init()  # nothing survives being disabled (10.4.3)
            elif new_mode & BASE_EXTD:
                s.id = self._initial_id
                s.ldr = self._x2_ldr()
                s.icr &= M32
            self._update()
        self.on_base_change()
        return True

    def _x2_ldr(self) -> int:
        return (self._initial_id >> 4) << 16 | 1 << (self._initial_id & 15)  # 10.12.10.2

    def _x2_write(self, register: int, value: int) -> bool:
        if register == ICR_LOW:
            if value & M32 & ~(ICR_WRITABLE | ICR_PENDING):
                return False
            self.state.icr = value & ~ICR_PENDING
            self._send(value >> 32, value & ICR_WRITABLE)
            return True
        if value >> 32 or register in READ_ONLY:
            return False
        if register in (EOI, ESR):
            if value:
                return False
        elif register in (TPR, SELF_IPI):
            if value > 0xFF:
                return False
        elif register == SVR:
            if value & ~SVR_MASK:
                return False
        elif register == TIMER_DIVIDE:
            if value & ~0xB:
                return False
        elif register in LVT_WRITABLE:
            if value & ~(LVT_WRITABLE[register] | LVT_PENDING | LVT_REMOTE_IRR):
                return False
        elif register != TIMER_INITIAL:
            return False
        if register == SELF_IPI:
            self._send(0, SHORTHAND_SELF << 18 | value)
        else:
            self._write(register, value)
        return True

    # The register page

    def mmio_read(self, offset: int, size: int) -> int:
        """Registers are 32 bits wide at 16-byte steps; other accesses are undefined (10.4.1): parts and zeros here."""
        if self.state.base & BASE_EXTD or offset > 0xFFF:
            return (1 << 8 * size) - 1
        shift = 8 * (offset & 15)
        if shift >= 32:
            return 0
        return (self._read(offset >> 4) >> shift) & ((1 << 8 * size) - 1)

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        if offset & 15 or size < 4 or self.state.base & BASE_EXTD or offset > 0xFFF:
            return
        register = offset >> 4
        value &= M32
        s = self.state
        if register == ICR_LOW:
            s.icr = s.icr & ~M32 | value & ICR_WRITABLE
            self._send(s.icr >> 56, value & ICR_WRITABLE)
        elif register == ICR_HIGH:
            s.icr = s.icr & M32 | (value & 0xFF00_0000) << 32
        elif register == LDR:
            s.ldr = value & 0xFF00_0000
        elif register == DFR:
            s.dfr = value | 0x0FFF_FFFF
        elif register == ID:
            s.id = value >> 24
        elif register not in READ_ONLY:
            self._write(register, value)

    def _read(self, register: int) -> int:
        s = self.state
        if register == TIMER_CURRENT:
            return self._timer.current(s.lvt[0])
        if register == ICR_LOW:
            return s.icr & M32
        if ISR0 <= register < ESR:
            value = (s.isr, s.tmr, s.irr)[(register - ISR0) >> 3]
            return value >> ((register & 7) * 32) & M32
        if register == TPR:
            return s.tpr
        if LVT_TIMER <= register <= LVT_ERROR:
            return s.lvt[register - LVT_TIMER]
        if register == ID:
            return s.id if s.base & BASE_EXTD else s.id << 24
        if register == VERSION:
            return VERSION_VALUE
        if register == PPR:
            return self.processor_priority()
        if register == SVR:
            return s.svr
        if register == LDR:
            return s.ldr
        if register == DFR:
            return s.dfr
        if register == ESR:
            return s.esr
        if register == ICR_HIGH:
            return s.icr >> 32
        if register == TIMER_INITIAL:
            return s.timer.initial
        if register == TIMER_DIVIDE:
            return s.timer.divide
        if register not in (APR, RRD, EOI, LVT_CMCI):
            self._error(ESR_ILLEGAL_REGISTER)
        return 0

    def _write(self, register: int, value: int) -> None:
        """Writes that mean the same in both modes."""
        s = self.state
        if register == EOI:
            self._end_of_interrupt()
        elif register == TIMER_INITIAL:
            self._timer.write_initial(value, s.lvt[0])
        elif register == TPR:
            self.set_tpr(value & 0xFF)
        elif LVT_TIMER <= register <= LVT_ERROR:
            self._write_lvt(register, value)
        elif register == SVR:
            s.svr = value & SVR_MASK
            if not value & SVR_ENABLE:  # 10.4.7.2: all entries get masked
                for i in range(6):
                    s.lvt[i] |= LVT_MASKED
                self._timer.rearm(s.lvt[0])
            self._update()
        elif register == ESR:
            s.esr = s.errors
            s.errors = 0
        elif register == TIMER_DIVIDE:
            self._timer.write_divide(value & 0xB, s.lvt[0])
        elif register != LVT_CMCI:
            self._error(ESR_ILLEGAL_REGISTER)

    def _write_lvt(self, register: int, value: int) -> None:
        s = self.state
        value &= LVT_WRITABLE[register]
        if not s.svr & SVR_ENABLE:
            value |= LVT_MASKED
        index = register - LVT_TIMER
        old = s.lvt[index]
        s.lvt[index] = value | old & LVT_REMOTE_IRR & value >> 1
        if register == LVT_TIMER:
            self._timer.entry_changed(old, value)
        elif register in (LVT_LINT0, LVT_LINT1):
            if s.lint[register - LVT_LINT0] and value & LVT_LEVEL and old & LVT_MASKED:
                self._lint_asserted(register - LVT_LINT0)
            self._update()

    # Interrupt sources

    def set_lint(self, pin: int, level: bool) -> None:
        """LINT0 (the 8259 pair's INTR) or LINT1 (NMI). With the APIC disabled they are the processor's INTR and NMI."""
        s = self.state
        if level == bool(s.lint[pin]):
            return
        s.lint[pin] = 1 if level else 0
        if level:
            self._lint_asserted(pin)
        self._update()

    def _lint_asserted(self, pin: int) -> None:
        s = self.state
        if not s.base & BASE_ENABLE:
            if pin == 1:
                self.on_nmi()
            return
        index = LVT_LINT0 - LVT_TIMER + pin
        entry = s.lvt[index]
        if entry & LVT_MASKED:
            return
        mode = entry >> 8 & 7
        if mode == FIXED:
            if entry & LVT_LEVEL and pin == 0:
                if entry & LVT_REMOTE_IRR:
                    return
                s.lvt[index] = entry | LVT_REMOTE_IRR
            self._accept(entry & 0xFF, bool(entry & LVT_LEVEL))
        elif mode == NMI:
            self.on_nmi()
        elif mode == SMI:
            self.on_smi()
        elif mode == INIT:
            self.on_init()

    def deliver(self, mode: int, vector: int, level: bool) -> None:
        """A message that addresses this APIC arrived (see ApicBus)."""
        s = self.state
        if not s.base & BASE_ENABLE:
            return
        if mode in (FIXED, LOWEST):
            self._accept(vector, level)
        elif mode == NMI:
            self.on_nmi()
        elif mode == INIT:
            self.init()
            self.on_init()
        elif mode == SIPI:
            self.on_sipi(vector)
        elif mode == SMI:
            self.on_smi()
        elif mode == EXTINT_MODE:
            s.extint = 1
            self._update()

    def _accept(self, vector: int, level: bool) -> None:
        s = self.state
        if not s.svr & SVR_ENABLE:
            return  # 10.4.7.2
        if vector < 16:
            self._error(ESR_RECEIVE_ILLEGAL)
            return
        bit = 1 << vector
        s.irr |= bit
        s.tmr = s.tmr | bit if level else s.tmr & ~bit
        self._update()

    def _timer_expired(self) -> None:
        """Called by the timer; the entry decides whether that interrupts."""
        entry = self.state.lvt[0]
        if not entry & LVT_MASKED:
            self._accept(entry & 0xFF, False)

    def _error(self, bit: int) -> None:
        s = self.state
        is_new = not s.errors & bit
        s.errors |= bit
        entry = s.lvt[LVT_ERROR - LVT_TIMER]
        if is_new and not entry & LVT_MASKED and entry & 0xF0:
            self._accept(entry & 0xFF, False)

    def _send(self, destination: int, icr: int) -> None:
        mode = icr >> 8 & 7
        if mode in (FIXED, LOWEST) and icr & 0xFF < 16:
            self._error(ESR_SEND_ILLEGAL)
            return
        if icr >> 18 & 3 == SHORTHAND_SELF:
            if mode == FIXED:
                self._accept(icr & 0xFF, bool(icr & ICR_TRIGGER_LEVEL))
            return
        if mode == INIT and icr & ICR_TRIGGER_LEVEL and not icr & ICR_LEVEL_ASSERT:
            return  # INIT level de-assert: nothing since the Pentium 4
        self.send_ipi(self, destination, icr)

    # Priorities

    def processor_priority(self) -> int:
        """PPR: the priority that an interrupt must exceed (10.8.3.1)."""
        s = self.state
        in_service = s.isr.bit_length() - 1
        if in_service < 0 or s.tpr >> 4 >= in_service >> 4:
            return s.tpr
        return in_service & 0xF0

    def _end_of_interrupt(self) -> None:
        s = self.state
        vector = s.isr.bit_length() - 1
        if vector < 0:
            return
        bit = 1 << vector
        s.isr &= ~bit
        if s.tmr & bit:
            lint0 = s.lvt[LVT_LINT0 - LVT_TIMER]
            if lint0 & LVT_REMOTE_IRR and lint0 & 0xFF == vector:
                s.lvt[LVT_LINT0 - LVT_TIMER] = lint0 & ~LVT_REMOTE_IRR
                if s.lint[0]:
                    self._lint_asserted(0)
            self.broadcast_eoi(vector)
        self._update()

    def _update(self) -> None:
        """Find what the processor would get now, and say so if that changed."""
        s = self.state
        pending = -1
        irr = s.irr
        if irr and s.svr & SVR_ENABLE:
            vector = irr.bit_length() - 1
            priority = vector >> 4
            if priority > s.tpr >> 4 and priority > s.isr.bit_length() - 1 >> 4:
                pending = vector
        if pending < 0:
            if s.extint:
                pending = EXTINT
            elif s.lint[0]:
                entry = s.lvt[LVT_LINT0 - LVT_TIMER]
                if not s.base & BASE_ENABLE or (not entry & LVT_MASKED and entry >> 8 & 7 == EXTINT_MODE):
                    pending = EXTINT
        if pending != self._pending:
            self._pending = pending
            self.on_change()

    # Addressing (10.6.2), asked by the bus

    def matches(self, destination: int, logical: bool, wide: bool) -> bool:
        """Whether a message to `destination` (32 bits if `wide`, else 8) is for this APIC."""
        s = self.state
        if destination == (M32 if wide else 0xFF):
            return True
        if not logical:
            return destination == s.id
        if s.base & BASE_EXTD:
            return destination >> 16 == s.ldr >> 16 and bool(destination & s.ldr & 0xFFFF)
        own = s.ldr >> 24
        if s.dfr >> 28 == 0xF:
            return bool(destination & own)
        return destination >> 4 == own >> 4 and bool(destination & own & 0xF)




def _no_bus(_apic: Apic, _destination: int, _icr: int) -> None:
    return


assert TIMER_MODE_MASK & LVT_WRITABLE[LVT_TIMER] == TIMER_MODE_MASK
