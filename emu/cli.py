"""The command line: QEMU's names and meanings over `pyemu.machine.Machine`.

Exit status: 0 when the guest powers off, (value << 1) | 1 for isa-debug-exit, 1 for failures, 2 for bad usage, 128 + n
when ended by signal n. Only what is needed to say -h is imported at the top.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pyemu import __version__
from pyemu.config import (
    ACCELERATORS,
    MACHINES,
    ConfigError,
    DebugExit,
    Icount,
    MachineConfig,
    OutputError,
    parse_size,
)
from pyemu.log import ITEMS, LogError, parse_items
from pyemu.snapshot_error import SnapshotError

if TYPE_CHECKING:
    from pyemu.machine import Machine
    from pyemu.until import Stop

STATUS_FAILURE = 1
STATUS_USAGE = 2
# What isn't there, under the names by which it is turned off in QEMU.
_ABSENT = ("net", "nic", "parallel", "vnc")
_EPILOG = (
    "With neither -kernel nor -bios a small built-in guest is started.\n"
    "While it runs: Ctrl-A x ends pyemu, Ctrl-A c switches to the monitor and back, Ctrl-A h shows more."
)


class UsageError(Exception):
    """Bad usage: one line, status 2."""


class Interrupted(BaseException):
    """A signal came while the machine couldn't listen yet."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


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
    Option(("L",), "DIR", "where ROM images are searched", repeats=True),
    Option(("unpack-kernel",), "", "unpack a bzImage here, not in the guest (faster; no KASLR)"),
    Option(
        ("device",),
        "DEVICE",
        "isa-debug-exit[,iobase=PORT][,iosize=N], isa-debugcon,chardev=ID[,iobase=PORT], pc-testdev",
        repeats=True,
    ),
    Option(("global",), "NAME=VALUE", "isa-debugcon.iobase=PORT: another port than 0xe9", repeats=True),
    Option(("chardev",), "DEV", "a character device for -device: stdio,id=ID or file,path=PATH,id=ID", repeats=True),
    Option(
        ("serial",),
        "DEV",
        "stdio, mon:stdio, file:PATH, /dev/NAME, pty, tcp:HOST:PORT[,server][,nowait], unix:PATH[...], null, none",
        repeats=True,
    ),
    Option(("monitor",), "DEV", "the monitor on a character device of its own"),
    Option(("qmp",), "DEV", "QMP for scripts: tcp:HOST:PORT,server,nowait or unix:PATH,server,nowait", repeats=True),
    Option(("debugcon",), "DEV", "output of the debug console (port 0xe9)"),
    Option(("nographic",), "", "serial port and monitor on this terminal (as without it)"),
    Option(("display",), "NAME", "none", "none"),
    Option(("vga",), "NAME", "none", "none"),
    *(Option((name,), "NAME", "none", "none") for name in _ABSENT),
    Option(("nodefaults",), "", "no serial port and no monitor that isn't asked for"),
    Option(("no-user-config",), "", "no configuration files are read (as without it)"),
    Option(("no-reboot",), "", "end instead of resetting"),
    Option(("no-shutdown",), "", "stop instead of ending when the guest powers off"),
    Option(("S",), "", "don't start the guest before the monitor's cont"),
    Option(("s",), "", "the same as -gdb tcp::1234"),
    Option(("gdb",), "DEV", "let gdb connect: tcp::PORT (from here), tcp:HOST:PORT, unix:PATH, stdio; see also -S"),
    Option(("coverage",), "FILE", "write which blocks of code were executed, at the end, in drcov's format"),
    Option(("loadvm",), "FILE", "go on from a file that savevm has made; options default to its machine"),
    Option(("record",), "FILE", "note everything that reaches the guest from outside, so that the run can be replayed"),
    Option(("replay",), "FILE", "run what -record has noted; the machine and its guest are the recorded ones"),
    Option(("history",), "", "like -record, but in memory: for going back (reverse-step, reverse-continue)"),
    Option(("icount",), "N", "count time in instructions of 2^N ns: N or shift=N[,sleep=on|off]"),
    Option(("seed",), "N", "make the guest's random numbers (RDRAND) the same in each run"),
    Option(("symbols",), "FILE", "symbols of the guest's kernel: an ELF file or System.map", repeats=True),
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
        numbers = f"{low:#x}..{high:#x}" if "x" in text.lower() or high > 1 << 20 else f"{low}..{high}"
        raise UsageError(f"{what}: {text} is not in {numbers}")
    return value


def _debug_exit(properties: str) -> DebugExit:
    if not properties:
        return DebugExit()
    values = _properties(properties, "isa-debug-exit", {"iobase": "iobase", "iosize": "iosize"})
    iobase = _integer(values.get("iobase", "0x501"), "iobase", 0, 0xFFFF)
    iosize = _integer(values.get("iosize", "2"), "iosize", 1, 8)
    if iobase + iosize > 0x10000:
        raise UsageError(f"isa-debug-exit: ports {iobase:#x}+{iosize} don't exist")
    return DebugExit(iobase, iosize)


def _chardevs(texts: list[str]) -> dict[str, str]:
    """`stdio,id=a`, `file,id=b,path=c`: what -serial would call each, by its id."""
    found = {}
    for text in texts:
        kind, _, rest = text.partition(",")
        values = _properties(rest, "-chardev", {"id": "id", "path": "path"}) if rest else {}
        name = values.get("id")
        if not name:
            raise UsageError(f"-chardev {text}: needs id=ID")
        if name in found:
            raise UsageError(f"-chardev {text}: there is already one with the id {name}")
        if kind not in ("stdio", "pty", "null", "file") or (kind == "file") != ("path" in values):
            raise UsageError(f"-chardev {text}: unknown (known: stdio, pty, null, file,path=PATH; and id=ID)")
        found[name] = f"file:{values['path']}" if kind == "file" else kind
    return found


_DEVICES = ("isa-debug-exit", "isa-debugcon", "pc-testdev")


@dataclass(frozen=True)
class _Devices:
    """What -device, -debugcon, -global and -chardev come to."""

    debug_exit: DebugExit | None
    testdev: bool
    debugcon: str | None
    debugcon_port: int


def _devices(options: Arguments) -> _Devices:
    port = 0xE9
    for text in options.all("global"):
        name, equals, value = text.partition("=")
        if name != "isa-debugcon.iobase" or not equals:
            raise UsageError(f"-global: unknown property '{text}' (known: isa-debugcon.iobase=PORT)")
        port = _integer(value, name, 0, 0xFFFF)
    chardevs = _chardevs(options.all("chardev"))
    exits: list[DebugExit] = []
    testdevs = 0
    consoles = [(text, port) for text in [options.get("debugcon")] if text is not None]
    for text in options.all("device"):
        name, _, rest = text.partition(",")
        if name == "isa-debug-exit":
            exits.append(_debug_exit(rest))
        elif name == "pc-testdev" and not rest:
            testdevs += 1
        elif name == "isa-debugcon":
            values = _properties(rest, name, {"iobase": "iobase", "chardev": "chardev"}) if rest else {}
            chardev = chardevs.get(values.get("chardev", ""))
            if chardev is None:
                raise UsageError(f"-device {text}: needs chardev=ID of a -chardev")
            consoles.append((chardev, _integer(values.get("iobase", hex(port)), "iobase", 0, 0xFFFF)))
        else:
            raise UsageError(f"-device: unknown device '{name}' (known: {', '.join(_DEVICES)})")
    for what, count in (("isa-debug-exit", len(exits)), ("isa-debugcon", len(consoles)), ("pc-testdev", testdevs)):
        if count > 1:
            raise UsageError(f"only one {what}")
    debugcon, port = consoles[0] if consoles else (None, port)
    return _Devices(exits[0] if exits else None, testdevs > 0, debugcon, port)


def _serials(options: Arguments, others: list[str | None]) -> tuple[str, ...]:
    """The serial ports. The first is on this terminal unless something else is, as with QEMU's -display none."""
    given = options.all("serial")
    if given:
        return tuple(given)
    taken = "stdio" in others and "nographic" not in options
    return ("null",) if taken or "nodefaults" in options else ("mon:stdio",)


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
    """`1`, `cpus=1,cores=1`: whatever is counted, there is one."""
    for i, part in enumerate(text.split(",")):
        name, equals, number = part.partition("=")
        if not equals and i == 0:
            name, number = "cpus", part
        if name not in ("cpus", "sockets", "dies", "clusters", "cores", "threads", "maxcpus"):
            raise UsageError(f"-smp: unknown property '{part}' (known: cpus, sockets, cores, threads, maxcpus)")
        if _integer(number, f"-smp {name}", 1, 4096) > 1:
            raise UsageError(f"-smp {text}: only one CPU is supported")


def _record(options: Arguments) -> str | None:
    """Where to record; "" for memory only. A replay has a history anyway."""
    path = options.get("record")
    if path == "":
        raise UsageError("-record needs the name of a file")
    return "" if path is None and "history" in options and "replay" not in options else path


def _memory(text: str) -> int:
    parts = text.split(",")
    if len(parts) > 1:
        raise UsageError(f"-m: unknown property '{parts[1]}' (only a size)")
    return parse_size(text.removeprefix("size="))


def make_config(options: Arguments) -> MachineConfig:
    """What the options ask for; raises UsageError, ConfigError or LogError."""
    _check_smp(options.text("smp"))
    machine, accel = _machine(options.text("M"))
    devices = _devices(options)
    for name in ("display", "vga", *_ABSENT):
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
        bios_path=tuple(options.all("L")),
        serials=_serials(options, [options.get("monitor"), devices.debugcon, options.get("gdb"), *options.all("qmp")]),
        coverage=options.get("coverage"),
        gdb=options.get("gdb") if "gdb" in options or "s" not in options else "tcp::1234",
        monitor=options.get("monitor"),
        qmp=tuple(options.all("qmp")),
        debugcon=devices.debugcon,
        debugcon_port=devices.debugcon_port,
        debug_exit=devices.debug_exit,
        testdev=devices.testdev,
        icount=_icount(icount) if icount is not None else None,
        reboot="no-reboot" not in options,
        shutdown="no-shutdown" not in options,
        paused="S" in options,
        unpack_kernel="unpack-kernel" in options,
        name=options.text("name"),
        seed=_integer(seed, "-seed", 0, 2**64 - 1) if seed is not None else None,
        record=_record(options),
        replay=options.get("replay"),
        log_items=parse_items(options.text("d")),
        log_file=options.get("D"),
        symbols=tuple(options.all("symbols")),
    )
    if (path := options.get("loadvm")) is not None:
        config = _from_snapshot(config, path, options)
    config.check()
    return config


def _from_snapshot(config: MachineConfig, path: str, options: Arguments) -> MachineConfig:
    """Options that weren't given are the snapshot's."""
    from pyemu.snapshot_file import adopt, read_header

    names = {"memory": "m", "machine": "M", "bios_path": "L", "unpack_kernel": "unpack-kernel"}
    names |= {"debug_exit": "device", "testdev": "device", "debugcon_port": "debugcon"}
    return replace(adopt(path, config, read_header(path), lambda name: names.get(name, name) in options), loadvm=path)


def _fail(message: str, status: int) -> int:
    print(f"pyemu: {message}", file=sys.stderr)
    return status


def _choices(options: Arguments) -> str | None:
    """What there is, for `-cpu help` and its like."""
    if options.text("cpu") in ("help", "?"):
        from pyemu.cpuoption import help_text as cpu_help

        return cpu_help()
    if {"help", "?"} & set(options.all("device")):
        return "\n".join(_DEVICES)
    tables = {"M": MACHINES, "accel": ACCELERATORS, "d": ITEMS}
    for name, table in tables.items():
        if options.text(name) in ("help", "?"):
            return "\n".join(f"  {choice:<16} {text}".rstrip() for choice, text in table.items())
    return None


def _show(text: str) -> int:
    """Print what was asked for; gives the exit status."""
    try:
        print(text, flush=True)
    except OSError as error:
        # What is still in the buffer would be tried again at the end, with a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if isinstance(error, BrokenPipeError):  # whoever reads it has read enough
            return 0
        return _fail(f"can't write: {error.strerror}", STATUS_FAILURE)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """The console script; gives the exit status."""
    try:
        options = Arguments(sys.argv[1:] if arguments is None else arguments)
        if "h" in options:
            return _show(help_text())
        if "version" in options:
            return _show(f"pyemu {__version__}")
        if (choices := _choices(options)) is not None:
            return _show(choices)
        config = make_config(options)
    except SnapshotError as error:
        return _fail(str(error), STATUS_FAILURE)
    except (UsageError, ConfigError, LogError) as error:
        return _fail(str(error), STATUS_USAGE)
    return run(config)


def run(config: MachineConfig) -> int:
    """Build the machine, run it to its end; gives the exit status."""
    from pyemu.chardev import ChardevError
    from pyemu.firmware.boot_image import BootError
    from pyemu.machine import Machine
    from pyemu.memory import NoMemory
    from pyemu.symbols import SymbolError

    sys.setswitchinterval(1e-4)  # a native vCPU that calls back must not wait 5 ms for the GIL
    try:
        machine = Machine(config)
    except ConfigError as error:
        return _fail(str(error), STATUS_USAGE)
    except (BootError, ChardevError, LogError, NoMemory, OutputError, SnapshotError, SymbolError) as error:
        return _fail(str(error), STATUS_FAILURE)
    try:
        with machine:
            _install_signals(machine)
            _announce(machine)
            stop = machine.wait_end()
    except Interrupted as error:
        return 128 + error.number
    except (NoMemory, OutputError, SnapshotError) as error:  # what is written at the end can't be
        return _fail(str(error), STATUS_FAILURE)
    return _report(stop)


def _announce(machine: Machine) -> None:
    """What is about to run."""
    config = machine.config
    if machine.cpu.warning:
        print(f"pyemu: warning: {machine.cpu.warning}", file=sys.stderr)
    name = f"{config.name}: " if config.name else ""
    start = machine.image.description if config.loadvm is None else f"going on from {config.loadvm}"
    print(f"pyemu: {name}{start}", file=sys.stderr)


def _install_signals(machine: Machine) -> None:
    from pyemu.chardev import Stdio

    terminals = [chardev.terminal for chardev in machine.chardevs if isinstance(chardev, Stdio)]

    asked = 0

    def end(number: int, _frame: object) -> None:
        nonlocal asked
        asked += 1
        if machine.accelerator is None:  # the native code is being built, perhaps: nobody listens yet
            raise Interrupted(number)
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
