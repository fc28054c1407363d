"""Pair of 8259A interrupt controllers, cascaded as in a PC, with the edge/level registers of the chipset.

Reference: Intel 8259A datasheet (231468-003): "Programming the 8259A", ICW1-4 and OCW1-3; the ELCR is described in the
82371SB (PIIX3) datasheet section 2.5.5. As in every PC chipset's successor of this chip, an edge stays latched when
its line drops before the acknowledge; a request that is masked meanwhile is answered with the spurious level 7.
MCS-80/85 mode (ICW4 bit 0 clear) and buffered mode's pins aren't there, their bits are accepted.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from pyemu.devices.device import Device, read_wide, write_wide
from pyemu.devices.interfaces import IrqLine

COMMAND, DATA = 0, 1  # port offsets (address line A0)

ICW1, ICW1_SINGLE, ICW1_LEVEL, ICW1_NEEDS_ICW4 = 0x10, 0x02, 0x08, 0x01
ICW4_AUTO_EOI, ICW4_SPECIAL_FULLY_NESTED = 0x02, 0x10
OCW3, OCW3_POLL, OCW3_READ, OCW3_READ_ISR = 0x08, 0x04, 0x02, 0x01
OCW3_SET_SPECIAL_MASK, OCW3_SPECIAL_MASK = 0x40, 0x20
# OCW2: rotate, specific, EOI in bits 7-5
OCW2_ROTATE_AUTO_CLEAR, OCW2_EOI, OCW2_NOP, OCW2_SPECIFIC_EOI = 0, 1, 2, 3
OCW2_ROTATE_AUTO_SET, OCW2_ROTATE_EOI, OCW2_SET_PRIORITY, OCW2_ROTATE_SPECIFIC_EOI = 4, 5, 6, 7

CASCADE_IRQ = 2
SPURIOUS_IRQ = 7
ELCR_MASKS = (0xF8, 0xDE)  # IRQ 0, 1, 2, 8 and 13 are always edge-triggered


@dataclass(slots=True)
class PicState:
    """One chip. `init_step` counts which ICW comes next (0: none)."""

    irr: int = 0
    imr: int = 0
    isr: int = 0
    lines: int = 0
    elcr: int = 0
    vector_base: int = 0
    highest: int = 0  # the input with the highest priority, moved by rotation
    read_isr: int = 0
    poll: int = 0
    special_mask: int = 0
    special_fully_nested: int = 0
    auto_eoi: int = 0
    rotate_on_auto_eoi: int = 0
    level_mode: int = 0  # ICW1's LTIM: all inputs level-triggered
    init_step: int = 0
    needs_icw4: int = 0
    single: int = 0


@dataclass(slots=True)
class PicPairState:
    master: PicState = field(default_factory=PicState)
    slave: PicState = field(default_factory=PicState)


class Pic8259:
    """One chip of the pair: a window of two ports. `changed` is called when its INT output may have changed."""

    def __init__(self, state: PicState, is_master: bool, changed: Callable[[], None]) -> None:
        self.state = state
        self._is_master = is_master
        self._changed = changed

    def set_line(self, irq: int, level: bool) -> None:
        s = self.state
        bit = 1 << irq
        if level:
            if not s.lines & bit:
                s.lines |= bit
                s.irr |= bit
                self._changed()
        elif s.lines & bit:
            s.lines &= ~bit
            if (s.elcr & bit) or s.level_mode:
                s.irr &= ~bit
                self._changed()

    def request(self) -> int:
        """The input that drives INT now, or -1."""
        s = self.state
        requests = s.irr & ~s.imr
        if not requests:
            return -1
        in_service = s.isr
        if s.special_mask:
            in_service &= ~s.imr
        if s.special_fully_nested and self._is_master:
            in_service &= ~(1 << CASCADE_IRQ)
        for i in range(8):
            irq = (s.highest + i) & 7
            bit = 1 << irq
            if in_service & bit:
                return -1
            if requests & bit:
                return irq
        return -1

    def take(self, irq: int) -> None:
        """The processor acknowledged `irq`."""
        s = self.state
        bit = 1 << irq
        if s.auto_eoi:
            if s.rotate_on_auto_eoi:
                s.highest = (irq + 1) & 7
        else:
            s.isr |= bit
        if not (s.elcr & bit or s.level_mode or (self._is_master and irq == CASCADE_IRQ)):
            s.irr &= ~bit  # the cascade input follows the slave, which isn't served yet if this was a poll

    def port_read(self, offset: int, size: int) -> int:
        s = self.state
        if size != 1:
            return read_wide(self.port_read, offset, size)
        if s.poll:
            s.poll = 0
            irq = self.request()
            if irq < 0:
                return 0
            self.take(irq)  # a poll read is an acknowledge
            self._changed()
            return 0x80 | irq
        if offset == COMMAND:
            return s.isr if s.read_isr else s.irr
        return s.imr if offset == DATA else 0xFF

    def port_write(self, offset: int, size: int, value: int) -> None:
        if size != 1:
            write_wide(self.port_write, offset, size, value)
        elif offset == DATA:
            self._write_data(value)
        elif offset == COMMAND:
            if value & ICW1:
                self._start_init(value)
            elif value & OCW3:
                self._write_ocw3(value)
            else:
                self._write_ocw2(value >> 5, value & 7)

    def _start_init(self, value: int) -> None:
        s = self.state
        s.imr = s.isr = 0
        s.highest = 0
        s.read_isr = s.poll = s.special_mask = s.special_fully_nested = 0
        s.auto_eoi = s.rotate_on_auto_eoi = 0
        s.level_mode = 1 if value & ICW1_LEVEL else 0
        # The edge sense circuit is reset: an input must go low and high again; level inputs request still
        levels = s.elcr | (1 << CASCADE_IRQ if self._is_master else 0)
        s.irr = s.lines & (0xFF if s.level_mode else levels)
        s.single = 1 if value & ICW1_SINGLE else 0
        s.needs_icw4 = value & ICW1_NEEDS_ICW4
        s.init_step = 2
        self._changed()

    def _write_data(self, value: int) -> None:
        s = self.state
        if s.init_step == 0:
            s.imr = value
            self._changed()
        elif s.init_step == 2:
            s.vector_base = value & 0xF8
            s.init_step = (4 if s.needs_icw4 else 0) if s.single else 3
        elif s.init_step == 3:  # the cascade is wired, so ICW3 has nothing to tell
            s.init_step = 4 if s.needs_icw4 else 0
        else:
            s.auto_eoi = 1 if value & ICW4_AUTO_EOI else 0
            s.special_fully_nested = 1 if value & ICW4_SPECIAL_FULLY_NESTED else 0
            s.init_step = 0

    def _write_ocw2(self, command: int, level: int) -> None:
        s = self.state
        if command in (OCW2_EOI, OCW2_ROTATE_EOI):
            in_service = s.isr & ~s.imr if s.special_mask else s.isr
            for i in range(8):
                irq = (s.highest + i) & 7
                if in_service & (1 << irq):
                    s.isr &= ~(1 << irq)
                    if command == OCW2_ROTATE_EOI:
                        s.highest = (irq + 1) & 7
                    break
        elif command == OCW2_SPECIFIC_EOI:
            s.isr &= ~(1 << level)
        elif command == OCW2_ROTATE_SPECIFIC_EOI:
            s.isr &= ~(1 << level)
            s.highest = (level + 1) & 7
        elif command == OCW2_SET_PRIORITY:
            s.highest = (level + 1) & 7
        elif command == OCW2_ROTATE_AUTO_SET:
            s.rotate_on_auto_eoi = 1
        elif command == OCW2_ROTATE_AUTO_CLEAR:
            s.rotate_on_auto_eoi = 0
        self._changed()

    def _write_ocw3(self, value: int) -> None:
        s = self.state
        s.poll = 1 if value & OCW3_POLL else 0
        if value & OCW3_READ:
            s.read_isr = value & OCW3_READ_ISR
        if value & OCW3_SET_SPECIAL_MASK:
            s.special_mask = 1 if value & OCW3_SPECIAL_MASK else 0
            self._changed()


class PicPair(Device):
    """Master (ports 0x20, 0x21) and slave (0xa0, 0xa1) as seen from the processor.

    `output(level)` is the INTR wire: to the local APIC's LINT0.
    """

    state: PicPairState

    def __init__(self, output: Callable[[bool], None]) -> None:
        self._output = output
        self._level = False
        self.state = PicPairState()
        self.master = Pic8259(self.state.master, True, self._update)
        self.slave = Pic8259(self.state.slave, False, self._update_slave)
        self.elcr = ElcrPorts(self.state, self._update_slave)

    def reset(self) -> None:
        """The chip has no reset pin; the ELCR has one. Requests of lines that are high stay."""
        for chip in (self.state.master, self.state.slave):
            lines = chip.lines
            for name, default in PicState.__dataclass_fields__.items():
                setattr(chip, name, default.default)
            chip.lines = lines
        self._update_slave()

    def resync(self) -> None:
        self._level = False
        self._output(False)
        self._update()

    @property
    def pending(self) -> bool:
        """Level of INTR."""
        return self._level

    def line(self, irq: int) -> IrqLine:
        """Input 0 to 15. Input 2 is taken by the cascade."""
        if not 0 <= irq < 16 or irq == CASCADE_IRQ:
            raise ValueError(f"the PIC pair has no free input {irq}")
        return PicLine(self.slave if irq >= 8 else self.master, irq & 7)

    def acknowledge(self) -> int:
        """An interrupt acknowledge cycle: the vector, which is a spurious one (7 or 15) if the request went away."""
        master = self.master
        irq = master.request()
        if irq < 0:
            return self.state.master.vector_base + SPURIOUS_IRQ  # datasheet, "Edge and Level Triggered Modes"
        if irq == CASCADE_IRQ:
            slave_irq = self.slave.request()
            if slave_irq >= 0:
                self.slave.take(slave_irq)
            else:
                slave_irq = SPURIOUS_IRQ
            vector = self.state.slave.vector_base + slave_irq
        else:
            vector = self.state.master.vector_base + irq
        master.take(irq)
        self._update_slave()
        return vector

    def _update_slave(self) -> None:
        """The slave's INT is the master's input 2, which always works as a level here."""
        state = self.state.master
        bit = 1 << CASCADE_IRQ
        if self.slave.request() >= 0:
            state.lines |= bit
            state.irr |= bit
        else:
            state.lines &= ~bit
            state.irr &= ~bit
        self._update()

    def _update(self) -> None:
        level = self.master.request() >= 0
        if level != self._level:
            self._level = level
            self._output(level)


class PicLine:
    """One input of the pair."""

    __slots__ = ("_chip", "_irq")

    def __init__(self, chip: Pic8259, irq: int) -> None:
        self._chip = chip
        self._irq = irq

    def set(self, level: bool) -> None:
        self._chip.set_line(self._irq, level)


class ElcrPorts:
    """Edge/level control registers, ports 0x4d0 and 0x4d1: a set bit makes that input level-triggered."""

    def __init__(self, state: PicPairState, changed: Callable[[], None]) -> None:
        self._state = state
        self._changed = changed

    def port_read(self, offset: int, size: int) -> int:
        if size != 1:
            return read_wide(self.port_read, offset, size)
        if offset > 1:
            return 0xFF
        return (self._state.slave if offset else self._state.master).elcr

    def port_write(self, offset: int, size: int, value: int) -> None:
        if size != 1:
            write_wide(self.port_write, offset, size, value)
        elif offset <= 1:
            chip = self._state.slave if offset else self._state.master
            old = chip.elcr
            chip.elcr = value & ELCR_MASKS[offset]
            level = chip.elcr
            dropped = (old | level) & ~chip.lines  # a level input that is low requests nothing
            chip.irr = (chip.irr & ~dropped) | (level & chip.lines)
            self._changed()
