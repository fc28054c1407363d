"""The command line: QEMU's names and meanings over `pyemu.machine.Machine`.

Exit status: 0 when the guest powers off, (value << 1) | 1 for isa-debug-exit, 1 for failures, 2 for bad usage, 128 + n
when ended by signal n. Only what is needed to say -h is imported at the top.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyemu import __version__
from pyemu.config import (
    ACCELERATORS,
    MACHINES,
    ConfigError,
    DebugExit,
    Icount,
    MachineConfig,
    parse_size,
)
from pyemu.log import ITEMS, LogError, parse_items

if TYPE_CHECKING:
    from pyemu.until import Stop

STATUS_FAILURE = 1
STATUS_USAGE = 2
_EPILOG = (
    "With neither -kernel nor -bios a small built-in guest is started.\n"
    "While it runs: Ctrl-A x ends pyemu, Ctrl-A c switches to the monitor and back, Ctrl-A h shows more."
)


class UsageError(Exception):
    """Bad usage: one line, status 2."""


@dataclass(frozen=True)
class Option:
    """One option. QEMU's rules: one dash or two, the value is the next argument whatever it looks like."""

    names: tuple[str, ...]
    value: str  # what the value is called in the help; empty: a switch
    help: str
    default: str = ""
    repeats: bool = False


def _known(table: dict[str, str]) -> str:
    return ", ".join(table)


OPTIONS = (
    Option(("h", "help"), "", "show this help"),
    Option(("version",), "", "show the version"),
    Option(("name",), "NAME", "name of the guest, shown when it starts"),
    Option(("M", "machine"), "TYPE", f"machine: {_known(MACHINES)}", "pc"),
    Option(("cpu",), "MODEL", "CPU model, with ,+FEATURE and ,-FEATURE; help lists them", "max"),
    Option(("accel",), "NAME", f"how instructions are run: {_known(ACCELERATORS)}", "jit"),
    Option(("smp",), "N", "number of CPUs", "1"),
    Option(("m",), "SIZE", "memory, in MiB or with suffix K, M, G", "128M"),
    Option(("kernel",), "FILE", "kernel: bzImage, vmlinux, multiboot, PVH, boot sector"),
    Option(("initrd",), "FILE", "initial RAM disk"),
    Option(("append",), "TEXT", "kernel command line"),
    Option(("bios",), "FILE", "ROM image to start instead of a kernel"),
    Option(("unpack-kernel",), "", "unpack a bzImage here, not in the guest (faster; no KASLR)"),
    Option(("device",), "DEVICE", "isa-debug-exit[,iobase=PORT][,iosize=N]", repeats=True),
    Option(
        ("serial",), "DEV", "stdio, mon:stdio, file:PATH, pty, tcp:HOST:PORT[,server][,nowait], null, none", "", True
    ),
    Option(("monitor",), "DEV", "the monitor on a character device of its own"),
    Option(("debugcon",), "DEV", "output of debug port 0xe9"),
    Option(("nographic",), "", "serial port and monitor on this terminal (as without it)"),
    Option(("display",), "NAME", "none", "none"),
    Option(("vga",), "NAME", "none", "none"),
    Option(("no-reboot",), "", "end instead of resetting"),
    Option(("no-shutdown",), "", "stop instead of ending when the guest powers off"),
    Option(("S",), "", "don't start the guest before the monitor's cont"),
    Option(("icount",), "N", "count time in instructions of 2^N ns: N or shift=N[,sleep=on|off]"),
    Option(("seed",), "N", "make the guest's random numbers (RDRAND) the same in each run"),
    Option(("d",), "LIST", f"log: {_known(ITEMS)}"),
    Option(("D",), "FILE", "write the log to FILE"),
)


def help_text() -> str:
    lines = ["usage: pyemu [options]", "", "Full-system x86-64 emulator.", ""]
    for option in OPTIONS:
        names = ", ".join("-" + name for name in option.names)
        default = f" (default: {option.default})" if option.default else ""
        lines.append(f"  {names + ' ' + option.value:<22} {option.help}{default}")
    return "\n".join([*lines, "", _EPILOG])


class Arguments:
    """The options that were given, by first name."""

    def __init__(self, arguments: list[str]) -> None:
        by_name = {name: option for option in OPTIONS for name in option.names}
        self._given: dict[str, list[str]] = {}
        words = iter(arguments)
        for word in words:
            if not word.startswith("-") or word in ("-", "--"):
                raise UsageError(f"unexpected argument '{word}' (-h lists the options)")
            option = by_name.get(word.removeprefix("-").removeprefix("-"))
            if option is None:
                raise UsageError(f"unknown option '{word}' (-h lists the options)")
            value = next(words, None) if option.value else ""
            if value is None:
                raise UsageError(f"{word} needs a value ({option.value})")
            values = self._given.setdefault(option.names[0], [])
            if not option.repeats:
                values.clear()  # the last one counts
            values.append(value)
        self._defaults = {option.names[0]: option.default for option in OPTIONS}

    def __contains__(self, name: str) -> bool:
        return name in self._given

    def all(self, name: str) -> list[str]:
        return self._given.get(name, [])

    def get(self, name: str) -> str | None:
        """The value; None if the option wasn't given and has no default."""
        return self._given.get(name, [self._defaults[name] or None])[-1]

    def text(self, name: str) -> str:
        return self.get(name) or ""


def _properties(text: str, what: str, known: dict[str, str]) -> dict[str, str]:
    """`a=1,b=2`; the names in `known` map to what they are called in the result."""
    values = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals or name not in known:
            raise UsageError(f"{what}: unknown property '{part}' (known: {', '.join(known)})")
        values[known[name]] = value
    return values


def _integer(text: str, what: str, low: int, high: int) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        raise UsageError(f"{what}: '{text}' is not a number") from None
    if not low <= value <= high:
        raise UsageError(f"{what}: {text} is not in {low:#x}..{high:#x}")
    return value


def _device(text: str) -> DebugExit:
    name, _, rest = text.partition(",")
    if name != "isa-debug-exit":
        raise UsageError(f"-device: unknown device '{name}' (known: isa-debug-exit)")
    if not rest:
        return DebugExit()
    values = _properties(rest, "isa-debug-exit", {"iobase": "iobase", "iosize": "iosize"})
    iobase = _integer(values.get("iobase", "0x501"), "iobase", 0, 0xFFFF)
    iosize = _integer(values.get("iosize", "2"), "iosize", 1, 8)
    if iobase + iosize > 0x10000:
        raise UsageError(f"isa-debug-exit: ports {iobase:#x}+{iosize} don't exist")
    return DebugExit(iobase, iosize)


def _icount(text: str) -> Icount:
    shift, sleep = 0, True
    for i, part in enumerate(text.split(",")):
        name, equals, value = part.partition("=")
        if not equals and i == 0:
            name, value = "shift", part
        if name == "shift":
            if value == "auto":
                raise UsageError("-icount: shift=auto is not supported; give a number 0..10")
            shift = _integer(value, "-icount shift", 0, 10)
        elif name == "sleep" and value in ("on", "off"):
            sleep = value == "on"
        else:
            raise UsageError(f"-icount: unknown property '{part}' (known: shift=N, sleep=on|off)")
    return Icount(shift, sleep)


def _machine(text: str) -> tuple[str, str | None]:
    """`pc`, `type=pc`, `pc,accel=jit`."""
    name, accel = "pc", None
    for i, part in enumerate(text.split(",")):
        key, equals, value = part.partition("=")
        if not equals and i == 0:
            name = part
        elif key == "type":
            name = value
        elif key == "accel":
            accel = value
        else:
            raise UsageError(f"-machine: unknown property '{part}' (known: type, accel)")
    return name, accel


def _check_smp(text: str) -> None:
    number = text.split(",")[0].removeprefix("cpus=")
    cpus = _integer(number, "-smp", 1, 4096)
    if cpus > 1 or "," in text:
        raise UsageError(f"-smp {text}: only one CPU is supported")


def _memory(text: str) -> int:
    parts = text.split(",")
    if len(parts) > 1:
        raise UsageError(f"-m: unknown property '{parts[1]}' (only a size)")
    return parse_size(text.removeprefix("size="))


def make_config(options: Arguments) -> MachineConfig:
    """What the options ask for; raises UsageError, ConfigError or LogError."""
    _check_smp(options.text("smp"))
    machine, accel = _machine(options.text("M"))
    devices = [_device(text) for text in options.all("device")]
    if len(devices) > 1:
        raise UsageError("-device: only one isa-debug-exit")
    for name in ("display", "vga"):
        if options.get(name) != "none":
            raise UsageError(f"-{name} {options.text(name)} is not supported (known: none)")
    icount, seed = options.get("icount"), options.get("seed")
    config = MachineConfig(
        memory=_memory(options.text("m")),
        machine=machine,
        cpu=options.text("cpu"),
        accelerator=accel or options.text("accel"),
        kernel=options.get("kernel"),
        initrd=options.get("initrd"),
        append=options.text("append"),
        bios=options.get("bios"),
        serials=tuple(options.all("serial") or ["mon:stdio"]),
        monitor=options.get("monitor"),
        debugcon=options.get("debugcon"),
        debug_exit=devices[0] if devices else None,
        icount=_icount(icount) if icount is not None else None,
        reboot="no-reboot" not in options,
        shutdown="no-shutdown" not in options,
        paused="S" in options,
        unpack_kernel="unpack-kernel" in options,
        name=options.text("name"),
        seed=_integer(seed, "-seed", 0, 2**64 - 1) if seed is not None else None,
        log_items=parse_items(options.text("d")),
        log_file=options.get("D"),
    )
    config.check()
    return config


def _fail(message: str, status: int) -> int:
    print(f"pyemu: {message}", file=sys.stderr)
    return status


def main(arguments: list[str] | None = None) -> int:
    """The console script; gives the exit status."""
    try:
        options = Arguments(sys.argv[1:] if arguments is None else arguments)
        if "h" in options:
            print(help_text())
            return 0
        if "version" in options:
            print(f"pyemu {__version__}")
            return 0
        if options.text("cpu") in ("help", "?"):
            from pyemu.cpuoption import help_text as cpu_help

            print(cpu_help())
            return 0
        config = make_config(options)
    except (UsageError, ConfigError, LogError) as error:
        return _fail(str(error), STATUS_USAGE)
    return run(config)


def run(config: MachineConfig) -> int:
    """Build the machine, run it to its end; gives the exit status."""
    from pyemu.chardev import ChardevError
    from pyemu.firmware.boot_image import BootError
    from pyemu.machine import Machine
    from pyemu.memory import NoMemory

    sys.setswitchinterval(1e-4)  # a native vCPU that calls back must not wait 5 ms for the GIL
    try:
        machine = Machine(config)
    except ConfigError as error:
        return _fail(str(error), STATUS_USAGE)
    except ChardevError as error:
        return _fail(str(error), STATUS_FAILURE)
    except (BootError, LogError, NoMemory) as error:
        return _fail(str(error), STATUS_FAILURE)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    with machine:
        _install_signals(machine)
        if machine.cpu.warning:
            print(f"pyemu: warning: {machine.cpu.warning}", file=sys.stderr)
        name = f"{config.name}: " if config.name else ""
        print(f"pyemu: {name}{machine.image.description}", file=sys.stderr)
        try:
            stop = machine.wait_end()
        except KeyboardInterrupt:
            return 128 + signal.SIGINT
    return _report(stop)


def _install_signals(machine: object) -> None:
    from pyemu.chardev import Stdio
    from pyemu.machine import Machine

    assert isinstance(machine, Machine)
    terminals = [chardev.terminal for chardev in machine.chardevs if isinstance(chardev, Stdio)]

    asked = 0

    def end(number: int, _frame: object) -> None:
        nonlocal asked
        asked += 1
        if asked < 3:
            machine.quit_by_signal(number)
            return
        # Whatever is stuck: at least the terminal comes back.
        for terminal in terminals:
            terminal.leave()
        os._exit(128 + number)

    def resume_terminal(_number: int, _frame: object) -> None:
        for terminal in terminals:
            terminal.resume()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    signal.signal(signal.SIGCONT, resume_terminal)


def _report(stop: Stop) -> int:
    """A line about why the run ended, where the guest itself didn't say; the status."""
    from pyemu.until import StopKind

    if stop.kind is StopKind.FAILURE and stop.error is not None and os.environ.get("PYEMU_TRACEBACK"):
        import traceback

        traceback.print_exception(stop.error)
    if stop.message and stop.kind not in (StopKind.RESET, StopKind.TRIPLE_FAULT):
        try:
            _fail(stop.message, stop.status)
        except OSError:
            return stop.status  # the terminal is gone, and stderr with it
    return stop.status
