"""Monitor commands about memory and ports: dumps, disassembly, expressions, address translation, files of memory."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable

from pyemu.memory import OutOfRange
from pyemu.monitor_table import CommandError, Session, command

_MAX_UNITS = 4096
_MAX_FILE = 1 << 32
_CHUNK = 1 << 20
_SIZES = {"b": 1, "h": 2, "w": 4, "g": 8}
_FORMAT = re.compile(r"/(\d*)([xduocsi]?)([bhwg]?)([xduocsi]?)")
_M64 = 0xFFFF_FFFF_FFFF_FFFF


def _format(arguments: str) -> tuple[int, str, int, str]:
    """Count, format, size in bytes, and what follows."""
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
    return count, form, size, arguments


@command("x", "/FMT ADDRESS", "dump virtual memory; FMT: count, x d u o c s i, b h w g", completes="symbol")
def x(session: Session, arguments: str) -> str:
    with session.stopped() as machine:
        return _dump(session, arguments, machine.read_virtual)


@command("xp", "/FMT ADDRESS", "dump physical memory")
def xp(session: Session, arguments: str) -> str:
    with session.stopped() as machine:
        return _dump(session, arguments, machine.memory.read)


def _dump(session: Session, arguments: str, read: Callable[[int, int], bytes]) -> str:
    count, form, size, rest = _format(arguments)
    address = session.evaluate(rest)
    if form == "i":
        return _instructions(session, address, count, read)
    if form in "cs":
        size = 1
    lines = []
    per_line = 16 // size if form in "xcs" else max(1, 8 // size)
    for first in range(0, count, per_line):
        units = min(per_line, count - first)
        at = address + first * size & _M64
        data = read(at, units * size)
        values = [int.from_bytes(data[i : i + size], "little") for i in range(0, len(data), size)]
        lines.append(f"{at:016x}: " + " ".join(_column(value, form, size) for value in values))
    return "\n".join(lines)


def _instructions(session: Session, address: int, count: int, read: Callable[[int, int], bytes]) -> str:
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
    machine = session.machine
    return "\n".join(disassemble(data, address, bits(machine.state), count, machine.symbols))


def _column(value: int, form: str, size: int) -> str:
    """One of several, as wide as the widest: decimal and octal numbers, as in QEMU."""
    width = {"o": (8 * size + 2) // 3, "d": (80 * size + 32) // 33, "u": (80 * size + 32) // 33}.get(form, 0)
    return _unit(value, form, size).rjust(width)


def _unit(value: int, form: str, size: int) -> str:
    match form:
        case "d":
            return str(value - (1 << 8 * size) if value >> (8 * size - 1) else value)
        case "u":
            return str(value)
        case "o":
            return f"0{value:o}" if value else "0"
        case "c" | "s":
            return f"'{chr(value)}'" if 0x20 <= value < 0x7F else f"'\\x{value:02x}'"
        case _:
            return f"0x{value:0{2 * size}x}"


@command("print", "/FMT EXPRESSION", "its value, and the symbol there", aliases=("p",), completes="symbol")
def print_(session: Session, arguments: str) -> str:
    _, form, size, rest = _format(arguments)
    with session.stopped():
        value = session.evaluate(rest)
    if form in "cs":
        value &= 0xFF
    text = (
        _unit(value, form, 8 if form == "d" else size).replace("0x" + "0" * 8, "0x") if form != "x" else f"{value:#x}"
    )
    return f"{text} {session.machine.symbols.describe(value)}".rstrip()


@command("gva2gpa", "ADDRESS", "physical address of a linear one", completes="symbol")
def gva2gpa(session: Session, arguments: str) -> str:
    with session.stopped() as machine:
        physical = machine.translate(session.evaluate(arguments))
    return "Unmapped" if physical is None else f"gpa: {physical:#x}"


@command("gpa2hva", "ADDRESS", "refused: host addresses are not shown")
def gpa2hva(session: Session, arguments: str) -> str:
    raise CommandError("gpa2hva is not supported: what is at a host address is pyemu's own business")


# ---- ports ----------------------------------------------------------------------------------------------------
@command("i", "/FMT PORT", "read an I/O port")
def port_in(session: Session, arguments: str) -> str:
    _, _, size, rest = _port_format(arguments)
    port = _port(session.evaluate(rest))
    with session.stopped() as machine:
        value = machine.change("port read", f"{port:x} {size}")
    assert isinstance(value, int)
    return f"port{8 * size}[{port:#06x}] = {value:#0{2 * size + 2}x}"


@command("o", "/FMT PORT VALUE", "write an I/O port")
def port_out(session: Session, arguments: str) -> str:
    _, _, size, rest = _port_format(arguments)
    words = rest.split()
    if len(words) != 2:
        raise CommandError("o /FMT PORT VALUE")
    port, value = (session.evaluate(word) for word in words)
    with session.stopped() as machine:
        machine.change("port write", f"{_port(port):x} {size} {value & (1 << 8 * size) - 1:x}")
    return ""


def _port_format(arguments: str) -> tuple[int, str, int, str]:
    """As _format(), but a byte if nothing else is said."""
    count, form, size, rest = _format(arguments)
    text = arguments.partition(" ")[0]
    if not (text.startswith("/") and any(letter in text for letter in "hwg")):
        size = 1
    if size == 8:
        raise CommandError("ports have 1, 2 or 4 bytes")
    return count, form, size, rest


def _port(number: int) -> int:
    if number > 0xFFFF:
        raise CommandError(f"port {number:#x} doesn't exist")
    return number


# ---- files ----------------------------------------------------------------------------------------------------
@command("memsave", "ADDRESS SIZE FILE", "write virtual memory to a file")
def memsave(session: Session, arguments: str) -> str:
    address, size, path = _save_arguments(session, arguments, "memsave")
    save(session, address, size, path, session.machine.read_virtual)
    return ""


@command("pmemsave", "ADDRESS SIZE FILE", "write physical memory to a file")
def pmemsave(session: Session, arguments: str) -> str:
    address, size, path = _save_arguments(session, arguments, "pmemsave")
    save(session, address, size, path, session.machine.memory.read)
    return ""


def _save_arguments(session: Session, arguments: str, name: str) -> tuple[int, int, str]:
    try:
        words = shlex.split(arguments)
    except ValueError as error:
        raise CommandError(f"{name}: {error}") from error
    if len(words) != 3:
        raise CommandError(f"{name} ADDRESS SIZE FILE")
    return session.evaluate(words[0]), session.evaluate(words[1]), words[2]


def save(session: Session, address: int, size: int, path: str, read: Callable[[int, int], bytes]) -> None:
    """Write `size` bytes of memory to a file."""
    if not 0 < size <= _MAX_FILE:
        raise CommandError(f"size is 1 to {_MAX_FILE:#x}")
    with session.stopped():
        try:
            with open(path, "wb") as file:
                for at in range(0, size, _CHUNK):
                    file.write(read(address + at & _M64, min(_CHUNK, size - at)))
        except OSError as error:
            raise CommandError(f"can't write '{path}': {error.strerror}") from error
