"""What hangs on the two ports of the 8042: a 101-key keyboard and a mouse with a wheel.

References: IBM PS/2 Hardware Interface Technical Reference, "Keyboards (101- and 102-Key)" and "Mouse"; Microsoft's
"IntelliMouse" identification (sample rates 200, 100, 80). A device puts its bytes into `queue`; the controller
fetches them. Scan code sets 1 and 2 exist; the keyboard refuses set 3.
"""

from dataclasses import dataclass, field

ACK, RESEND, BAT_PASSED, ECHO = 0xFA, 0xFE, 0xAA, 0xEE
QUEUE_SIZE = 64  # bytes of answers and keys; when full, keys and movements are dropped

# Keyboard commands
K_LED, K_ECHO, K_SET, K_ID, K_RATE, K_ENABLE, K_DEFAULT_OFF, K_DEFAULT = 0xED, 0xEE, 0xF0, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6
K_ALL_FIRST, K_ALL_LAST, K_RESEND, K_RESET = 0xF7, 0xFA, 0xFE, 0xFF
KEYBOARD_ID = (0xAB, 0x83)
DEFAULT_RATE = 0x2B
# Mouse commands
M_SCALE_1, M_SCALE_2, M_RESOLUTION, M_STATUS, M_STREAM, M_READ = 0xE6, 0xE7, 0xE8, 0xE9, 0xEA, 0xEB
M_WRAP_OFF, M_WRAP, M_REMOTE, M_ID, M_RATE, M_ENABLE, M_DISABLE = 0xEC, 0xEE, 0xF0, 0xF2, 0xF3, 0xF4, 0xF5
M_DEFAULT, M_RESEND, M_RESET = 0xF6, 0xFE, 0xFF
MOUSE_PLAIN, MOUSE_WHEEL = 0, 3
WHEEL_KNOCK = [200, 100, 80]
PACKET_ALWAYS_ONE = 0x08
MOUSE_RATES = (10, 20, 40, 60, 80, 100, 200)

# The 8042's translation, given as the set 2 codes that become 0x01 to 0x7f: rows of the keyboard, keypad and function
# keys, and from 0x59 on what keyboards beyond 101 keys use
_SET2 = bytes.fromhex(
    "76 161e26252e363d3e46454e55 66 0d 15 1d242d2c353c43444d545b 5a 14"  # Esc, digits, Tab, Q row, Enter, Ctrl
    "1c1b232b34333b424b4c52 0e 12 5d 1a22212a32313a41494a 59"  # A row, grave, Shift, backslash, Z row, Shift
    "7c 11 29 58 0506040c030b020a0109 77 7e 6c757d 7b 6b7374 79 69727a 70 71 7f 60 61 78 07"  # Alt, F1-F10, keypad, F12
    "0f171f272f373f 474f565e08101820283038404850576f 1319395153 5c5f6263646567686a6d6e"
)
_TO_SET1 = list(range(256))
for _set1, _code in enumerate(_SET2, 1):
    _TO_SET1[_code] = _set1
_TO_SET1[0x83], _TO_SET1[0x84], _TO_SET1[0x00] = 0x41, 0x54, 0xFF  # F7 and Alt-SysRq are outside the table's range


def translate_to_set1(code: int) -> int:
    """The 8042's translation of a byte from the keyboard; bytes above 0x84 are not key codes and pass."""
    return _TO_SET1[code]


@dataclass(slots=True)
class KeyboardState:
    queue: list[int] = field(default_factory=list)
    pending: int = 0  # command that waits for its argument
    scanning: int = 1
    set: int = 2
    leds: int = 0
    rate: int = DEFAULT_RATE
    last: int = 0  # last byte sent, for a resend


class Ps2Keyboard:
    def __init__(self, state: KeyboardState) -> None:
        self.state = state

    def key(self, code: int, pressed: bool, extended: bool) -> None:
        s = self.state
        if not s.scanning:
            return
        sequence = [0xE0] if extended else []
        if s.set == 1:
            sequence.append(translate_to_set1(code) | (0 if pressed else 0x80))
        else:
            sequence += [code] if pressed else [0xF0, code]
        if len(s.queue) + len(sequence) <= QUEUE_SIZE:
            s.queue += sequence

    def write(self, value: int) -> None:
        s = self.state
        command, s.pending = s.pending, 0
        if command and value < K_LED:
            self._argument(command, value)
            return
        if value in (K_LED, K_SET, K_RATE):
            s.pending = value
            self._send(ACK)
        elif value == K_ECHO:
            self._send(ECHO)
        elif value == K_ID:
            self._send(ACK, *KEYBOARD_ID)
        elif value in (K_ENABLE, K_DEFAULT, K_DEFAULT_OFF):
            s.queue.clear()
            if value != K_ENABLE:
                self._defaults()
            s.scanning = 0 if value == K_DEFAULT_OFF else 1
            self._send(ACK)
        elif K_ALL_FIRST <= value <= K_ALL_LAST:
            self._send(ACK)  # key types matter in set 3 only
        elif value == K_RESEND:
            self._send(s.last)
        elif value == K_RESET:
            s.queue.clear()
            self._defaults()
            s.scanning = 1
            self._send(ACK, BAT_PASSED)
        else:
            self._send(RESEND)

    def _argument(self, command: int, value: int) -> None:
        s = self.state
        if command == K_LED:
            s.leds = value & 7
            self._send(ACK)
        elif command == K_RATE:
            s.rate = value & 0x7F
            self._send(ACK)
        elif value == 0:
            self._send(ACK, s.set)
        elif value in (1, 2):
            s.set = value
            self._send(ACK)
        else:
            self._send(RESEND)

    def _defaults(self) -> None:
        s = self.state
        s.set, s.leds, s.rate, s.pending = 2, 0, DEFAULT_RATE, 0

    def _send(self, *values: int) -> None:
        if len(self.state.queue) + len(values) <= QUEUE_SIZE:
            self.state.queue += values
        self.state.last = values[-1]


@dataclass(slots=True)
class MouseState:
    queue: list[int] = field(default_factory=list)
    pending: int = 0
    kind: int = MOUSE_PLAIN
    reporting: int = 0
    remote: int = 0
    wrap: int = 0
    scaling: int = 0
    resolution: int = 2
    rate: int = 100
    rates_seen: list[int] = field(default_factory=list)
    dx: int = 0
    dy: int = 0
    wheel: int = 0
    buttons: int = 0
    last: int = 0


class Ps2Mouse:
    def __init__(self, state: MouseState) -> None:
        self.state = state

    def move(self, dx: int, dy: int, buttons: int, wheel: int) -> None:
        s = self.state
        s.dx = min(max(s.dx + dx, -0x7FFF), 0x7FFF)
        s.dy = min(max(s.dy + dy, -0x7FFF), 0x7FFF)
        s.wheel = min(max(s.wheel + wheel, -0x7F), 0x7F)
        s.buttons = buttons & 7
        if s.reporting and not s.remote and not s.wrap:
            self._report()

    def write(self, value: int) -> None:
        s = self.state
        command, s.pending = s.pending, 0
        if command:
            self._argument(command, value)
        elif s.wrap and value not in (M_WRAP_OFF, M_RESET):
            self._send(value)
        elif value in (M_RATE, M_RESOLUTION):
            s.pending = value
            self._send(ACK)
        elif value == M_ID:
            self._send(ACK, s.kind)
        elif value == M_STATUS:
            status = s.buttons & 1 | (s.buttons & 2) << 1 | (s.buttons & 4) >> 1
            status |= s.scaling << 4 | s.reporting << 5 | s.remote << 6
            self._send(ACK, status, s.resolution, s.rate)
        elif value == M_READ:
            self._send(ACK)
            self._report()
        elif value == M_RESET:
            s.queue.clear()
            self._defaults()
            s.kind, s.wrap, s.buttons = MOUSE_PLAIN, 0, s.buttons
            self._send(ACK, BAT_PASSED, s.kind)
        elif value == M_RESEND:
            self._send(s.last)
        elif self._set_mode(value):
            self._send(ACK)
        else:
            self._send(RESEND)

    def _set_mode(self, value: int) -> bool:
        s = self.state
        if value in (M_SCALE_1, M_SCALE_2):
            s.scaling = value - M_SCALE_1
        elif value == M_STREAM:
            s.remote = 0
        elif value == M_REMOTE:
            s.remote = 1
        elif value in (M_WRAP, M_WRAP_OFF):
            s.wrap = 1 if value == M_WRAP else 0
        elif value in (M_ENABLE, M_DISABLE):
            s.reporting = 1 if value == M_ENABLE else 0
            s.dx = s.dy = s.wheel = 0
        elif value == M_DEFAULT:
            self._defaults()
        else:
            return False
        return True

    def _argument(self, command: int, value: int) -> None:
        s = self.state
        if command == M_RESOLUTION and value <= 3:
            s.resolution = value
        elif command == M_RATE and value in MOUSE_RATES:
            s.rate = value
            s.rates_seen = [*s.rates_seen[-2:], value]
            if s.rates_seen == WHEEL_KNOCK:
                s.kind = MOUSE_WHEEL
        else:
            self._send(RESEND)
            return
        self._send(ACK)

    def _defaults(self) -> None:
        s = self.state
        s.rate, s.resolution, s.scaling, s.reporting, s.remote = 100, 2, 0, 0, 0
        s.dx = s.dy = s.wheel = s.pending = 0
        s.rates_seen = []

    def _report(self) -> None:
        s = self.state
        size = 4 if s.kind == MOUSE_WHEEL else 3
        if len(s.queue) + size > QUEUE_SIZE:
            return  # movement stays in the counters
        dx, dy = min(max(s.dx, -255), 255), min(max(s.dy, -255), 255)
        s.dx -= dx
        s.dy -= dy
        first = PACKET_ALWAYS_ONE | s.buttons | (0x10 if dx < 0 else 0) | (0x20 if dy < 0 else 0)
        packet = [first, dx & 0xFF, dy & 0xFF]
        if size == 4:
            wheel = min(max(s.wheel, -8), 7)
            s.wheel -= wheel
            packet.append(wheel & 0xFF)
        self._send(*packet)

    def _send(self, *values: int) -> None:
        if len(self.state.queue) + len(values) <= QUEUE_SIZE:
            self.state.queue += values
        self.state.last = values[-1]
