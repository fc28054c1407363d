"""The commands of QMP, by QEMU's names, with arguments and results as in QEMU's schema (qapi/*.json there).

`x-explain` is pyemu's own: `machine.explain` as a dict.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyemu import __version__
from pyemu.expression import ExpressionError
from pyemu.keys import KEYS
from pyemu.memory import OutOfRange
from pyemu.monitor_memory import save
from pyemu.monitor_table import CommandError, Session
from pyemu.qmp import QmpError
from pyemu.until import StopKind

if TYPE_CHECKING:
    from pyemu.machine import Machine

# Characters that no file name or command has: NUL, and surrogates, which JSON can spell alone.
_NO_TEXT = frozenset(map(chr, (0, *range(0xD800, 0xE000))))
_TYPES: dict[str, type] = {"integer": int, "string": str, "array": list, "boolean": bool}


@dataclass(frozen=True)
class QmpCommand:
    """`arguments`: name, type, and a ? behind the type of one that may be left out."""

    name: str
    arguments: dict[str, str]
    function: Callable[..., Any]


COMMANDS: dict[str, QmpCommand] = {}


def qmp(name: str, **arguments: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add a command. In Python names of arguments have _ where QMP has -."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        known = {argument.replace("_", "-"): kind for argument, kind in arguments.items()}
        COMMANDS[name] = QmpCommand(name, known, function)
        return function

    return decorate


def checked_arguments(command: QmpCommand, given: dict[str, Any]) -> dict[str, Any]:
    """What the function gets; QmpError in QEMU's words for what is wrong."""
    for name in given:
        if name not in command.arguments:
            raise QmpError(f"Parameter '{name}' is unexpected")
    checked = {}
    for name, kind in command.arguments.items():
        optional = kind.endswith("?")
        if name not in given:
            if not optional:
                raise QmpError(f"Parameter '{name}' is missing")
            continue
        value, wanted = given[name], kind.rstrip("?")
        if not isinstance(value, _TYPES[wanted]) or (wanted == "integer" and isinstance(value, bool)):
            raise QmpError(f"Invalid parameter type for '{name}', expected: {wanted}")
        if isinstance(value, str) and not _NO_TEXT.isdisjoint(value):
            raise QmpError(f"Parameter '{name}' is not text")
        checked[name.replace("-", "_")] = value
    return checked


# ---- what there is --------------------------------------------------------------------------------------------------
@qmp("query-status")
def query_status(machine: Machine) -> Any:
    status = "running" if machine.running else "paused"
    final = machine.loop.final
    if final is not None:
        status = "internal-error" if final.kind in (StopKind.FAILURE, StopKind.UNIMPLEMENTED) else "shutdown"
    elif not machine.has_run:
        status = "prelaunch"
    return {"running": machine.running, "singlestep": False, "status": status}


@qmp("query-version")
def query_version(machine: Machine) -> Any:
    major, minor, micro = (int(part) for part in __version__.split("."))
    return {"qemu": {"major": major, "minor": minor, "micro": micro}, "package": f"pyemu {__version__}"}


@qmp("query-commands")
def query_commands(machine: Machine) -> Any:
    return [{"name": name} for name in ("qmp_capabilities", *COMMANDS)]


@qmp("query-name")
def query_name(machine: Machine) -> Any:
    return {"name": machine.config.name} if machine.config.name else {}


@qmp("query-target")
def query_target(machine: Machine) -> Any:
    return {"arch": "x86_64"}


@qmp("query-kvm")
def query_kvm(machine: Machine) -> Any:
    return {"enabled": False, "present": False}


@qmp("query-cpus-fast")
def query_cpus_fast(machine: Machine) -> Any:
    place = {"core-id": 0, "thread-id": 0, "socket-id": 0}
    thread = machine.loop.thread_id or 0
    return [{"cpu-index": 0, "qom-path": "/machine/cpu[0]", "thread-id": thread, "target": "x86_64", "props": place}]


@qmp("query-memory-size-summary")
def query_memory_size_summary(machine: Machine) -> Any:
    return {"base-memory": machine.config.memory, "plugged-memory": 0}


@qmp("query-chardev")
def query_chardev(machine: Machine) -> Any:
    return [{"label": label, "filename": spec, "frontend-open": True} for label, spec in machine.chardev_names.items()]


# ---- running --------------------------------------------------------------------------------------------------------
@qmp("stop")
def stop(machine: Machine) -> Any:
    machine.pause()
    return {}


@qmp("cont")
def cont(machine: Machine) -> Any:
    if machine.loop.final is not None:
        raise QmpError("Resetting the Virtual Machine is required")
    machine.resume()
    return {}


@qmp("quit")
def quit_(machine: Machine) -> Any:
    # after the reply has been written
    machine.io.call_later(0, machine.quit)
    return {}


@qmp("system_reset")
def system_reset(machine: Machine) -> Any:
    machine.reset()
    return {}


@qmp("system_powerdown")
def system_powerdown(machine: Machine) -> Any:
    machine.power_button()
    return {}


@qmp("inject-nmi")
def inject_nmi(machine: Machine) -> Any:
    machine.inject_nmi()
    return {}


@qmp("send-key", keys="array", hold_time="integer?")
def send_key(machine: Machine, keys: list[Any], hold_time: int = 100) -> Any:
    """Keys are pressed together and let go at once: `hold-time` makes no difference to the guest's keyboard."""
    names = []
    for key in keys:
        if not isinstance(key, dict) or not isinstance(key.get("type"), str) or "data" not in key:
            raise QmpError("Invalid parameter type for 'keys', expected: KeyValue")
        if key["type"] != "qcode":
            raise QmpError(f"Parameter 'type' does not accept value '{key['type']}' (known: qcode)")
        if not isinstance(key["data"], str) or key["data"] not in KEYS:
            raise QmpError(f"Parameter 'data' does not accept value '{key['data']}'")
        names.append(key["data"])
    if names:
        machine.press("-".join(names))
    return {}


# ---- memory ---------------------------------------------------------------------------------------------------------
@qmp("memsave", val="integer", size="integer", filename="string", cpu_index="integer?")
def memsave(machine: Machine, val: int, size: int, filename: str, cpu_index: int = 0) -> Any:
    _check_cpu(cpu_index)
    return _save(machine, val, size, filename, machine.read_virtual)


@qmp("pmemsave", val="integer", size="integer", filename="string")
def pmemsave(machine: Machine, val: int, size: int, filename: str) -> Any:
    return _save(machine, val, size, filename, machine.memory.read)


def _check_cpu(index: int) -> None:
    if index != 0:
        raise QmpError(f"CPU index {index} is not there: Parameter 'cpu-index' expects a CPU number")


def _save(machine: Machine, val: int, size: int, path: str, read: Callable[[int, int], bytes]) -> Any:
    try:
        save(Session(machine), val, size, path, read)
    except (CommandError, OutOfRange, ValueError) as error:
        raise QmpError(str(error)) from error
    return {}


# ---- the other monitor, and explanations ----------------------------------------------------------------------------
@qmp("human-monitor-command", command_line="string", cpu_index="integer?")
def human_monitor_command(machine: Machine, command_line: str, cpu_index: int = 0) -> Any:
    _check_cpu(cpu_index)
    reply = Session(machine).execute(command_line)
    return "".join(f"{line}\r\n" for line in reply.splitlines())


@qmp("x-explain", what="string?")
def x_explain(machine: Machine, what: str = "$rip") -> Any:
    with Session(machine).stopped():
        try:
            return machine.explain(what).as_dict()
        except ExpressionError as error:
            raise QmpError(str(error)) from error
