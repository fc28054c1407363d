"""The monitor behind Ctrl-A c: a few of QEMU's commands, on a character device of its own or beside the guest's.

Commands run on the I/O thread. Those that look at the processor stop it for the moment.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from pyemu.chardev import Chardev, MuxEnd
from pyemu.memory import OutOfRange

if TYPE_CHECKING:
    from pyemu.machine import Machine

_PROMPT = "(pyemu) "
_MAX_LINE = 1024
_MAX_UNITS = 4096
_SIZES = {"b": 1, "h": 2, "w": 4, "g": 8}
_FORMAT = re.compile(r"/(\d*)([xduocsi]?)([bhwg]?)([xduocsi]?)")
_TERM = re.compile(r"\s*([+-]?)\s*(\$[a-z][a-z0-9_]*|0[xX][0-9a-fA-F]+|\d+)")


class CommandError(Exception):
    """Shown to the user."""


class Monitor:
    """One prompt."""

    def __init__(self, machine: Machine, chardev: Chardev, prompt_at_start: bool = False) -> None:
        self._machine = machine
        self._chardev = chardev
        self._line = ""
        self._escape = 0  # inside an escape sequence of the terminal: how far
        self._last_was_return = False
        self._prompt_at_start = prompt_at_start
        chardev.on_input = self._input
        if isinstance(chardev, MuxEnd):
            chardev.on_focus = self._focused
        self._commands: dict[str, tuple[Callable[[str], None], str]] = {
            "help": (self._help, "help -- this list"),
            "quit": (self._quit, "quit -- end pyemu"),
            "stop": (self._stop, "stop -- stop the guest"),
            "cont": (self._cont, "cont -- let it go on"),
            "info": (self._info, "info registers|status|version|mtree -- show it"),
            "x": (self._x, "x /FMT ADDRESS -- dump virtual memory; FMT: count, x d u o c s i, b h w g; $rip etc. work"),
            "xp": (self._xp, "xp /FMT ADDRESS -- dump physical memory"),
            "sendkey": (
                self._sendkey,
                "sendkey KEYS -- press keys: a, shift-a, ctrl-alt-delete, f1, ret",
            ),
            "system_reset": (self._system_reset, "system_reset -- press the reset button"),
            "system_powerdown": (self._system_powerdown, "system_powerdown -- press the power button"),
        }
        self._short = {"?": "help", "q": "quit", "s": "stop", "c": "cont", "i": "info"}

    def start(self) -> None:
        if self._prompt_at_start:
            self._focused()

    def _focused(self) -> None:
        self._write(f"\r\npyemu monitor - type 'help' for more information\r\n{_PROMPT}{self._line}")

    def _write(self, text: str) -> None:
        self._chardev.write(text.encode())

    def _input(self, data: bytes) -> None:
        for byte in data:
            self._key(byte)

    def _key(self, byte: int) -> None:
        after_return, self._last_was_return = self._last_was_return, byte == 0x0D
        if self._escape:
            # ESC [ parameters final: cursor keys and the like, which mean nothing here
            self._escape = 2 if (self._escape == 1 and byte in b"[O") else 0 if byte >= 0x40 else self._escape
        elif byte == 0x1B:
            self._escape = 1
        elif byte == 0x0A and after_return:
            return
        elif byte in (0x0D, 0x0A):
            self._write("\r\n")
            line, self._line = self._line, ""
            for reply in self.execute(line).splitlines():
                self._write(reply + "\r\n")
            self._write(_PROMPT)
        elif byte in (0x08, 0x7F):
            if self._line:
                self._line = self._line[:-1]
                self._write("\b \b")
        elif byte in (0x15, 0x03):  # Ctrl-U, Ctrl-C
            self._write("\b \b" * len(self._line))
            self._line = ""
        elif 0x20 <= byte < 0x7F and len(self._line) < _MAX_LINE:
            self._line += chr(byte)
            self._write(chr(byte))

    def execute(self, line: str) -> str:
        """Run one command; the reply, possibly empty."""
        name, _, rest = line.strip().partition(" ")
        if "/" in name:  # `x/4i $rip`
            name, _, form = name.partition("/")
            rest = f"/{form} {rest}"
        if not name:
            return ""
        entry = self._commands.get(self._short.get(name, name))
        if entry is None:
            return f"unknown command: '{name}'"
        self._reply: list[str] = []
        try:
            entry[0](rest.strip())
        except (CommandError, OutOfRange) as error:
            self._reply.append(str(error))
        return "\n".join(self._reply)

    # ---- commands ------------------------------------------------------------------------------------------

    def _help(self, _arguments: str) -> None:
        self._reply += [text for _, text in self._commands.values()]

    def _quit(self, _arguments: str) -> None:
        self._machine.quit()

    def _stop(self, _arguments: str) -> None:
        self._machine.pause()

    def _cont(self, _arguments: str) -> None:
        if self._machine.loop.final is not None:
            raise CommandError("the guest is over")
        self._machine.resume()

    def _sendkey(self, keys: str) -> None:
        try:
            self._machine.press(keys)
        except ValueError as error:
            raise CommandError(str(error)) from error

    def _system_reset(self, _arguments: str) -> None:
        self._machine.reset()

    def _system_powerdown(self, _arguments: str) -> None:
        self._machine.power_button()

    def _info(self, what: str) -> None:
        machine = self._machine
        if what == "registers":
            from pyemu.registers import dump

            self._reply += self._stopped(lambda: dump(machine.state)).splitlines()
        elif what == "status":
            self._reply.append(f"VM status: {'running' if machine.running else 'paused'}")
        elif what == "version":
            from pyemu import __version__

            self._reply.append(__version__)
        elif what == "mtree":
            for span in machine.ram.ranges:
                self._reply.append(f"{span.start:016x}-{span.end - 1:016x} {span.kind.value:4} {span.name}")
        else:
            raise CommandError("info registers|status|version|mtree")

    def _stopped(self, action: Callable[[], str]) -> str:
        """Run `action` with the vCPU standing still."""
        machine = self._machine
        was_running = machine.running
        if was_running:
            machine.pause()
        try:
            return action()
        finally:
            if was_running and machine.loop.final is None:
                machine.resume()

    def _x(self, arguments: str) -> None:
        self._reply += self._stopped(lambda: self._dump(arguments, self._machine.read_virtual)).splitlines()

    def _xp(self, arguments: str) -> None:
        self._reply += self._stopped(lambda: self._dump(arguments, self._machine.memory.read)).splitlines()

    def _dump(self, arguments: str, read: Callable[[int, int], bytes]) -> str:
        form, count, size = "x", 1, 4
        if arguments.startswith("/"):
            text, _, arguments = arguments.partition(" ")
            match = _FORMAT.fullmatch(text)
            if match is None:
                raise CommandError(f"'{text}' is not a format such as /16xb or /4i")
            count = int(match[1] or 1)
            form = match[2] or match[4] or "x"
            size = _SIZES[match[3] or "w"]
        if not 0 < count <= _MAX_UNITS:
            raise CommandError(f"count is 1 to {_MAX_UNITS}")
        address = self._evaluate(arguments)
        if form == "i":
            return self._instructions(address, count, read)
        if form in "cs":
            size = 1
        lines = []
        per_line = 16 // size if form in "xcs" else max(1, 8 // size)
        for first in range(0, count, per_line):
            units = min(per_line, count - first)
            at = address + first * size & 0xFFFF_FFFF_FFFF_FFFF
            data = read(at, units * size)
            values = [int.from_bytes(data[i : i + size], "little") for i in range(0, len(data), size)]
            lines.append(f"{at:016x}: " + " ".join(_unit(value, form, size) for value in values))
        return "\n".join(lines)

    def _instructions(self, address: int, count: int, read: Callable[[int, int], bytes]) -> str:
        from pyemu.registers import bits
        from pyemu.trace import disassemble

        data = b""
        while len(data) < 15 * count:
            try:
                data += read(address + len(data), 1 if data else 16)
            except OutOfRange:
                if not data:
                    data = read(address, 1)
                break
        return "\n".join(disassemble(data, address, bits(self._machine.state), count))

    def _evaluate(self, text: str) -> int:
        """Sums of numbers and $registers."""
        total, at = 0, 0
        text = text.strip()
        if not text:
            raise CommandError("address missing")
        while at < len(text):
            match = _TERM.match(text, at)
            if match is None or (at and not match[1]):
                raise CommandError(f"'{text}' is not an address")
            at = match.end()
            total += (-1 if match[1] == "-" else 1) * self._term(match[2])
        return total & 0xFFFF_FFFF_FFFF_FFFF

    def _term(self, text: str) -> int:
        if not text.startswith("$"):
            return int(text, 16 if text[:2].lower() == "0x" else 10)
        name = {"$pc": "rip", "$sp": "rsp", "$fp": "rbp", "$eflags": "rflags"}.get(text, text[1:])
        try:
            return self._machine.regs[name]
        except KeyError:
            raise CommandError(f"unknown register '{text}'") from None


def _unit(value: int, form: str, size: int) -> str:
    match form:
        case "d":
            return str(value - (1 << 8 * size) if value >> (8 * size - 1) else value)
        case "u":
            return str(value)
        case "o":
            return f"0{value:o}"
        case "c" | "s":
            return f"'{chr(value)}'" if 0x20 <= value < 0x7F else f"'\\x{value:02x}'"
        case _:
            return f"0x{value:0{2 * size}x}"
