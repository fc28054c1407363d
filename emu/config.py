"""What a machine is made of, as plain data, and how sizes and names in it are checked."""

from __future__ import annotations

import types
import typing
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

MACHINES = {
    "pc": "i440FX host bridge, PIIX3 and PIIX4 power management",
    "q35": "Q35 host bridge with memory-mapped PCI configuration, ICH9",
}
# QEMU's name for its own translator means ours.
ACCELERATORS = {"jit": "jit", "tcg": "jit", "interp": "interp", "reference": "reference"}
_SUFFIXES = {"": 20, "B": 0, "K": 10, "M": 20, "G": 30, "T": 40}
# Room for the real-mode area, the firmware tables and a smallest kernel; less can't start anything.
MIN_RAM = 1 << 20
SERIAL_PORTS = 4


class ConfigError(Exception):
    """A machine that can't be built as asked; the message is one line for the user."""


class OutputError(Exception):
    """A file that can't be written; the message is one line for the user."""


def parse_size(text: str) -> int:
    """`512M`, `1G`, `1.5G`, plain MiB, as QEMU's -m; in bytes."""
    body = text.strip()
    suffix = body[-1:].upper() if body[-1:].isalpha() else ""
    number = body[: len(body) - len(suffix)]
    if suffix not in _SUFFIXES:
        raise ConfigError(f"memory size '{text}' is not a number with an optional suffix K, M, G or T")
    whole, dot, fraction = number.partition(".")
    if not whole.isascii() or not whole.isdigit() or (dot and not (fraction.isascii() and fraction.isdigit())):
        raise ConfigError(f"memory size '{text}' is not a number with an optional suffix K, M, G or T")
    if len(number) > 20:
        raise ConfigError(f"memory size '{text}' is too large")
    shift = _SUFFIXES[suffix]
    size = int(whole) << shift
    if fraction:
        size += (int(fraction) << shift) // 10 ** len(fraction)
    return size


@dataclass(frozen=True)
class DebugExit:
    """`-device isa-debug-exit`: a write of v ends the run with status (v << 1) | 1."""

    iobase: int = 0x501
    iosize: int = 2


@dataclass(frozen=True)
class Icount:
    """Instruction-counted time: one instruction takes 2**shift ns. `sleep`: idle time passes in real time."""

    shift: int = 0
    sleep: bool = True


def _is(value: object, kind: Any) -> bool:
    """Whether a value is what an annotation says; lists may stand for tuples."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return any(_is(value, one) for one in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return isinstance(value, tuple | list) and all(_is(item, typing.get_args(kind)[0]) for item in value)
    if typing.get_origin(kind) is frozenset:
        return isinstance(value, frozenset | set) and all(_is(item, typing.get_args(kind)[0]) for item in value)
    if isinstance(kind, type) and is_dataclass(kind):
        return isinstance(value, kind) and all(_is(getattr(value, name), of) for name, of in _kinds(kind).items())
    return type(value) is kind or (kind is str and isinstance(value, str))


def _kinds(of: Any) -> dict[str, Any]:
    """The fields of a dataclass with what they may be."""
    hints = typing.get_type_hints(of)
    return {one.name: hints[one.name] for one in fields(of)}


@dataclass(frozen=True)
class MachineConfig:
    """Everything that a `Machine` is built from."""

    memory: int = 128 << 20  # bytes
    machine: str = "pc"
    cpu: str = "max"  # as for -cpu (cpuoption.py)
    accelerator: str = "jit"
    kernel: str | None = None
    initrd: str | None = None
    append: str = ""
    bios: str | None = None  # a path, or the name of a file in one of `bios_path`
    bios_path: tuple[str, ...] = ()  # directories that are searched before those where distributions keep ROMs
    serials: tuple[str, ...] | None = None  # specifications as for -serial; None: captured, for the Python API
    monitor: str | None = None  # only where it isn't multiplexed with a serial port
    debugcon: str | None = None  # where bytes written to the debug console's port go
    debugcon_port: int = 0xE9
    debug_exit: DebugExit | None = None
    testdev: bool = False  # pc-testdev: storage and interrupt lines for test suites
    icount: Icount | None = None
    reboot: bool = True  # False: a reset ends the run
    shutdown: bool = True  # False: power-off stops the machine but doesn't end the run
    paused: bool = False  # wait for `cont`
    unpack_kernel: bool = False  # unpack a bzImage on the host instead of in the guest
    name: str = ""
    log_items: frozenset[str] = field(default_factory=frozenset)
    log_file: str | None = None
    coverage: str | None = None  # where to write the blocks that were executed, as drcov
    gdb: str | None = None  # where gdb can connect, as for -gdb
    qmp: tuple[str, ...] = ()  # character devices with QMP, as for -qmp
    symbols: tuple[str, ...] = ()  # files with symbols of the guest's programs
    loadvm: str | None = None  # a snapshot file to begin with
    record: str | None = None  # a file for what reaches the guest from outside; "" keeps it in memory, for going back
    replay: str | None = None  # such a file, to be run again
    seed: int | None = None  # of the guest's random numbers; None: the host's
    wall_start_ns: int | None = None  # what the RTC shows at power-on; None: the host's time

    def check_types(self) -> None:
        """Refuse values of the wrong types, which come from Python or from a file."""
        for name, kind in _kinds(MachineConfig).items():
            value = getattr(self, name)
            if not _is(value, kind):
                wanted = getattr(kind, "__name__", str(kind)) if isinstance(kind, type) else str(kind)
                raise ConfigError(f"{name} can't be {value!r:.80}: it is {wanted}".replace("pyemu.config.", ""))
            if "\0" in (value if isinstance(value, str) else "") and name != "append":
                raise ConfigError(f"{name} can't be {value!r:.80}: there is a NUL in it")

    def check(self) -> None:
        """Refuse what isn't real, by name."""
        from pyemu.memory import MAX_RAM, PAGE_SIZE

        self.check_types()
        if self.memory <= 0:
            raise ConfigError("memory size must not be 0")
        if self.memory < MIN_RAM:
            raise ConfigError(f"memory size {self.memory} bytes is too small (at least {MIN_RAM >> 20}M)")
        if self.memory > MAX_RAM:
            raise ConfigError(f"memory size {self.memory >> 30}G is too large (at most {MAX_RAM >> 30}G)")
        if self.memory % PAGE_SIZE:
            raise ConfigError(f"memory size {self.memory} bytes is not a multiple of {PAGE_SIZE}")
        for kind, value, known in (
            ("machine", self.machine, MACHINES),
            ("accelerator", self.accelerator, ACCELERATORS),
        ):
            if value not in known:
                raise ConfigError(f"unknown {kind} '{value}' (known: {', '.join(known)})")
        self._check_cpu()
        if self.kernel is None and self.initrd:
            raise ConfigError("-initrd needs -kernel")
        if self.bios is not None and self.append:
            raise ConfigError("-append needs -kernel, or neither -kernel nor -bios (for the built-in guest)")
        if self.kernel is not None and self.bios is not None:
            raise ConfigError("-kernel together with -bios is not supported: pyemu starts kernels itself")
        if not 0 <= self.debugcon_port <= 0xFFFF:
            raise ConfigError(f"debug console: port {self.debugcon_port:#x} doesn't exist")
        if self.record is not None and self.replay is not None:
            raise ConfigError("-record and -replay exclude each other")
        if self.icount is not None and not 0 <= self.icount.shift <= 10:
            raise ConfigError(f"icount shift {self.icount.shift} is not in 0..10")
        self._check_chardevs()

    def _check_cpu(self) -> None:
        from pyemu.cpuoption import choose

        choose(self.cpu)

    def _check_chardevs(self) -> None:
        from pyemu.chardev import ChardevError, check_spec

        if self.coverage is not None and self.accelerator == "reference":
            raise ConfigError("-coverage needs -accel jit or interp")
        if self.gdb is not None:
            from pyemu.gdbserver.server import parse_place

            parse_place(self.gdb)
        specs = [*(self.serials or ()), *self.qmp, *(spec for spec in (self.monitor, self.debugcon) if spec)]
        try:
            for spec in specs:
                check_spec(spec)
        except ChardevError as error:
            raise ConfigError(str(error)) from error
        for only_serial in (self.monitor, self.debugcon, *self.qmp):
            if only_serial == "mon:stdio":
                raise ConfigError("mon:stdio is for -serial only")
        if sum(spec in ("stdio", "mon:stdio") for spec in [*specs, self.gdb]) > 1:
            raise ConfigError("stdio can be used only once (mon:stdio shares it between serial port and monitor)")
        if self.serials is not None and len(self.serials) > SERIAL_PORTS:
            raise ConfigError(f"at most {SERIAL_PORTS} serial ports")
