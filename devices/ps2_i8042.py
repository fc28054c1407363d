"""8042 keyboard controller with its keyboard and mouse ports, A20 gate and reset line.

References: IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device Controller"; Intel 8042 as
used in the PC AT (IBM 1502494, section 4). The two devices are in ps2_devices.py. The controller answers at once, so
the input buffer is never full.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from pyemu.devices.device import ALL_ONES, Device
from pyemu.devices.interfaces import IrqLine
from pyemu.devices.ps2_devices import KeyboardState, MouseState, Ps2Keyboard, Ps2Mouse, translate_to_set1

DATA, COMMAND = 0, 1  # offsets; the machine maps port 0x60 to the first and 0x64 to the second

# Status register
STATUS_OUTPUT_FULL, STATUS_SYSTEM, STATUS_COMMAND, STATUS_UNLOCKED, STATUS_AUX = 0x01, 0x04, 0x08, 0x10, 0x20
# Command byte
CTR_KBD_INT, CTR_AUX_INT, CTR_SYSTEM, CTR_KBD_OFF, CTR_AUX_OFF, CTR_TRANSLATE = 0x01, 0x02, 0x04, 0x10, 0x20, 0x40
CTR_WRITABLE = 0x77
# Controller commands
READ_RAM, WRITE_RAM, AUX_DISABLE, AUX_ENABLE, AUX_TEST = 0x20, 0x60, 0xA7, 0xA8, 0xA9
SELF_TEST, KBD_TEST, KBD_DISABLE, KBD_ENABLE, READ_INPUT = 0xAA, 0xAB, 0xAD, 0xAE, 0xC0
READ_OUTPUT, WRITE_OUTPUT, WRITE_KBD_BUFFER, WRITE_AUX_BUFFER, WRITE_AUX = 0xD0, 0xD1, 0xD2, 0xD3, 0xD4
A20_OFF, A20_ON, PULSE = 0xDD, 0xDF, 0xF0
SELF_TEST_PASSED, PORT_TEST_PASSED = 0x55, 0x00
# Output port
OUT_NO_RESET, OUT_A20, OUT_KBD_FULL, OUT_AUX_FULL = 0x01, 0x02, 0x10, 0x20
INPUT_PORT_VALUE = 0xA0  # not locked, no manufacturing jumper
# Port 0x92
P92_RESET, P92_A20 = 0x01, 0x02

FROM_AUX = 0x100
MAX_ANSWERS = 16


@dataclass(slots=True)
class I8042State:
    ram: list[int] = field(default_factory=lambda: [CTR_KBD_INT | CTR_SYSTEM | CTR_AUX_OFF | CTR_TRANSLATE] + [0] * 31)
    pending_command: int = 0  # a command that waits for its data byte
    last_was_command: int = 0
    output_full: int = 0
    output: int = 0  # last byte, with FROM_AUX
    answers: list[int] = field(default_factory=list)  # of the controller itself, with FROM_AUX
    break_prefix: int = 0  # translation saw 0xf0
    a20: int = 1
    keyboard: KeyboardState = field(default_factory=KeyboardState)
    mouse: MouseState = field(default_factory=MouseState)


class I8042(Device):
    """`on_reset()` when the guest pulls the reset line; `on_a20(enabled)` on changes of the gate, which is open at
    start."""

    state: I8042State

    def __init__(
        self,
        keyboard_irq: IrqLine,
        mouse_irq: IrqLine,
        on_reset: Callable[[], None],
        on_a20: Callable[[bool], None] | None = None,
    ) -> None:
        self._keyboard_irq = keyboard_irq
        self._mouse_irq = mouse_irq
        self._on_reset = on_reset
        self._on_a20 = on_a20
        self.state = I8042State()
        self.keyboard = Ps2Keyboard(self.state.keyboard)
        self.mouse = Ps2Mouse(self.state.mouse)
        self.port92 = Port92(self)

    def reset(self) -> None:
        if not self.state.a20:
            self.set_a20(True)
        self.state = I8042State()
        self.keyboard.state = self.state.keyboard
        self.mouse.state = self.state.mouse
        self._update_irqs()

    def resync(self) -> None:
        self._update_irqs()
        if self._on_a20 is not None:
            self._on_a20(bool(self.state.a20))

    # The person at the keyboard

    def key(self, code: int, pressed: bool, extended: bool = False) -> None:
        """`code` is the make code of scan code set 2; `extended` for those with the 0xe0 prefix."""
        self.keyboard.key(code & 0xFF, pressed, extended)
        self._load()

    def move_mouse(self, dx: int, dy: int, buttons: int, wheel: int = 0) -> None:
        """Relative movement, y upwards; buttons: bit 0 left, 1 right, 2 middle."""
        self.mouse.move(dx, dy, buttons, wheel)
        self._load()

    def set_a20(self, enabled: bool) -> None:
        if enabled != bool(self.state.a20):
            self.state.a20 = 1 if enabled else 0
            if self._on_a20 is not None:
                self._on_a20(enabled)

    def pull_reset(self) -> None:
        self._on_reset()

    # Ports

    def port_read(self, offset: int, size: int) -> int:
        if size != 1:
            return ALL_ONES[size] & ~0xFF | self.port_read(offset, 1)
        s = self.state
        if offset == COMMAND:
            status = STATUS_UNLOCKED | s.ram[0] & CTR_SYSTEM
            if s.output_full:
                status |= STATUS_OUTPUT_FULL | (STATUS_AUX if s.output & FROM_AUX else 0)
            return status | STATUS_COMMAND if s.last_was_command else status
        if offset != DATA:
            return 0xFF
        value = s.output & 0xFF
        if s.output_full:
            s.output_full = 0
            self._update_irqs()  # the line drops before the next byte raises it
            self._load()
        return value

    def port_write(self, offset: int, size: int, value: int) -> None:
        value &= 0xFF
        s = self.state
        if offset == COMMAND:
            s.last_was_command = 1
            s.pending_command = 0
            self._command(value)
        elif offset == DATA:
            s.last_was_command = 0
            command = s.pending_command
            s.pending_command = 0
            if command:
                self._command_data(command, value)
            else:
                s.ram[0] &= ~CTR_KBD_OFF  # talking to the keyboard enables its port
                self.keyboard.write(value)
        self._load()

    def _command(self, value: int) -> None:
        s = self.state
        if READ_RAM <= value < READ_RAM + 32:
            self._answer(s.ram[value - READ_RAM])
        elif WRITE_RAM <= value < WRITE_RAM + 32 or WRITE_OUTPUT <= value <= WRITE_AUX:
            s.pending_command = value
        elif value == AUX_DISABLE:
            s.ram[0] |= CTR_AUX_OFF
        elif value == AUX_ENABLE:
            s.ram[0] &= ~CTR_AUX_OFF
        elif value == KBD_DISABLE:
            s.ram[0] |= CTR_KBD_OFF
        elif value == KBD_ENABLE:
            s.ram[0] &= ~CTR_KBD_OFF
        elif value in (AUX_TEST, KBD_TEST):
            self._answer(PORT_TEST_PASSED)
        elif value == SELF_TEST:
            s.ram[0] |= CTR_SYSTEM
            self._answer(SELF_TEST_PASSED)
        elif value == READ_INPUT:
            self._answer(INPUT_PORT_VALUE)
        elif value == READ_OUTPUT:
            self._answer(self._output_port())
        elif value in (A20_OFF, A20_ON):
            self.set_a20(value == A20_ON)
        elif value >= PULSE and not value & OUT_NO_RESET:
            self.pull_reset()  # the low bits tell which outputs to pulse low; the lowest one is reset

    def _command_data(self, command: int, value: int) -> None:
        s = self.state
        if WRITE_RAM <= command < WRITE_RAM + 32:
            s.ram[command - WRITE_RAM] = value & CTR_WRITABLE if command == WRITE_RAM else value
            self._update_irqs()
        elif command == WRITE_OUTPUT:
            self.set_a20(bool(value & OUT_A20))
            if not value & OUT_NO_RESET:
                self.pull_reset()
        elif command == WRITE_KBD_BUFFER:
            self._answer(value)
        elif command == WRITE_AUX_BUFFER:
            self._answer(value | FROM_AUX)
        else:
            s.ram[0] &= ~CTR_AUX_OFF
            self.mouse.write(value)

    def _output_port(self) -> int:
        s = self.state
        value = OUT_NO_RESET | 0xCC | (OUT_A20 if s.a20 else 0)
        if s.output_full:
            value |= OUT_AUX_FULL if s.output & FROM_AUX else OUT_KBD_FULL
        return value

    # Output buffer

    def _answer(self, value: int) -> None:
        if len(self.state.answers) < MAX_ANSWERS:
            self.state.answers.append(value)

    def _load(self) -> None:
        """Fill the output buffer, if it is empty, from the controller, the keyboard or the mouse."""
        s = self.state
        if s.output_full:
            return
        if s.answers:
            s.output = s.answers.pop(0)
        else:
            value = self._from_keyboard() if not s.ram[0] & CTR_KBD_OFF else -1
            if value < 0 and s.mouse.queue and not s.ram[0] & CTR_AUX_OFF:
                value = s.mouse.queue.pop(0) | FROM_AUX
            if value < 0:
                return
            s.output = value
        s.output_full = 1
        self._update_irqs()

    def _from_keyboard(self) -> int:
        s = self.state
        queue = s.keyboard.queue
        while queue:
            value = queue.pop(0)
            if not s.ram[0] & CTR_TRANSLATE:
                return value
            if value == 0xF0:
                s.break_prefix = 0x80
                continue
            value = translate_to_set1(value) | s.break_prefix
            s.break_prefix = 0
            return value
        return -1

    def _update_irqs(self) -> None:
        s = self.state
        from_aux = s.output & FROM_AUX
        ctr = s.ram[0]
        self._keyboard_irq.set(bool(s.output_full and not from_aux and ctr & CTR_KBD_INT))
        self._mouse_irq.set(bool(s.output_full and from_aux and ctr & CTR_AUX_INT))


class Port92:
    """System control port A: the fast way to the A20 gate and to reset."""

    def __init__(self, controller: I8042) -> None:
        self._controller = controller

    def port_read(self, offset: int, size: int) -> int:
        value = P92_A20 if self._controller.state.a20 else 0
        return value if size == 1 else ALL_ONES[size] & ~0xFF | value

    def port_write(self, offset: int, size: int, value: int) -> None:
        if offset == 0:
            self._controller.set_a20(bool(value & P92_A20))
            if value & P92_RESET:
                self._controller.pull_reset()
