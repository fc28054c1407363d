"""The table of the monitor's commands, and what all of them are written with.

A command is a function of (session, arguments) that gives its reply, with its line of the table as a decorator:

    @command("gva2gpa", "ADDRESS", "physical address of a linear one")
    def gva2gpa(session: Session, arguments: str) -> str: ...

`@info` does the same for the topics of `info`. The functions stand in the modules named in `MODULES`; names are QEMU's
where QEMU has the command.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from pyemu.expression import ExpressionError, evaluate
from pyemu.memory import OutOfRange
from pyemu.snapshot_error import SnapshotError
from pyemu.symbols import SymbolError

if TYPE_CHECKING:
    from pyemu.machine import Machine

MODULES = ("monitor_run", "monitor_memory", "monitor_break", "monitor_snapshots", "monitor_info", "monitor_explain")
Function = Callable[["Session", str], str]


class CommandError(Exception):
    """Shown to the user."""


@dataclass(frozen=True)
class Command:
    """One line of the table. `completes` says what its arguments are for completion: "info", "symbol", "key",
    "explain", "command" or nothing."""

    name: str
    arguments: str
    help: str
    function: Function
    aliases: tuple[str, ...] = ()
    completes: str = ""
    long: bool = False  # may take a while: ends early where Session.interrupt is set

    @property
    def usage(self) -> str:
        return f"{self.name} {self.arguments}".rstrip()


COMMANDS: dict[str, Command] = {}
TOPICS: dict[str, Command] = {}  # of info


def command(
    name: str, arguments: str, text: str, *, aliases: tuple[str, ...] = (), completes: str = "", long: bool = False
) -> Callable[[Function], Function]:
    """Add a command to the table."""

    def decorate(function: Function) -> Function:
        COMMANDS[name] = Command(name, arguments, text, function, aliases, completes, long)
        return function

    return decorate


def info(name: str, text: str, arguments: str = "") -> Callable[[Function], Function]:
    """Add a topic of `info`."""

    def decorate(function: Function) -> Function:
        TOPICS[name] = Command(name, arguments, text, function)
        return function

    return decorate


def load() -> None:
    """Fill the table; what nobody types at needs none."""
    for name in MODULES:
        import_module(f"pyemu.{name}")


def find(name: str) -> Command | None:
    """A command by its name or one of its short ones."""
    if name in COMMANDS:
        return COMMANDS[name]
    return next((known for known in COMMANDS.values() if name in known.aliases), None)


def starting_with(prefix: str, names: Iterator[str] | dict[str, Command]) -> list[str]:
    return sorted(name for name in names if name.startswith(prefix))


def _split(line: str) -> tuple[str, str]:
    """The name of a command, and the rest."""
    name, _, rest = line.strip().partition(" ")
    if "/" in name:  # `x/4i $rip`
        name, _, form = name.partition("/")
        rest = f"/{form} {rest}"
    return name, rest


class Session:
    """What commands work on: one machine, whoever types (a monitor, QMP, a program)."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.interrupt = threading.Event()  # Ctrl-C, from another thread than the command's
        self.listens = False  # for Ctrl-C
        self.progress: Callable[[str], None] | None = None  # told now and then how far a long command is

    def is_long(self, line: str) -> bool:
        """Whether it may take so long that whoever runs it should listen for Ctrl-C meanwhile."""
        name, _ = _split(line)
        load()
        known = find(name)
        return known is not None and known.long

    def execute(self, line: str) -> str:
        """Run one command; the reply, possibly empty."""
        name, rest = _split(line)
        if not name:
            return ""
        load()
        known = find(name)
        if known is None:
            return f"unknown command: '{name}'"
        try:
            return known.function(self, rest.strip())
        except (CommandError, ExpressionError, OutOfRange, SnapshotError, SymbolError) as error:
            return str(error)

    def evaluate(self, text: str) -> int:
        """An expression with registers and symbols."""
        return evaluate(text, self.machine.regs, self.machine.symbols)

    @contextmanager
    def travelling(self) -> Iterator[Machine]:
        """The machine, while it goes through its past or future until Ctrl-C."""
        with self.machine.interruptible(self.interrupt, self.progress):
            yield self.machine

    @contextmanager
    def stopped(self) -> Iterator[Machine]:
        """The machine, with its processor standing still for as long as the block lasts."""
        with self.machine.standing():
            yield self.machine
