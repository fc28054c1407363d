"""The table of the monitor's commands, and what all of them are written with.

A command is a function of (session, arguments) that gives its reply, with its line of the table as a decorator:

    @command("gva2gpa", "ADDRESS", "physical address of a linear one")
    def gva2gpa(session: Session, arguments: str) -> str: ...

`@info` does the same for the topics of `info`. The functions stand in the modules named in `MODULES`; names are QEMU's
where QEMU has the command.
"""

from __future__ import annotations

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

    @property
    def usage(self) -> str:
        return f"{self.name} {self.arguments}".rstrip()


COMMANDS: dict[str, Command] = {}
TOPICS: dict[str, Command] = {}  # of info


def command(
    name: str, arguments: str, text: str, *, aliases: tuple[str, ...] = (), completes: str = ""
) -> Callable[[Function], Function]:
    """Add a command to the table."""

    def decorate(function: Function) -> Function:
        COMMANDS[name] = Command(name, arguments, text, function, aliases, completes)
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


class Session:
    """What commands work on: one machine, whoever types (a monitor, QMP, a program)."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def execute(self, line: str) -> str:
        """Run one command; the reply, possibly empty."""
        name, _, rest = line.strip().partition(" ")
        if "/" in name:  # `x/4i $rip`
            name, _, form = name.partition("/")
            rest = f"/{form} {rest}"
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
    def stopped(self) -> Iterator[Machine]:
        """The machine, with its processor standing still for as long as the block lasts."""
        with self.machine.standing():
            yield self.machine
