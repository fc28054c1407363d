"""Monitor commands that run, stop, reset and end the machine, and that press its buttons and keys."""

from __future__ import annotations

from pyemu.log import ITEMS, LogError, parse_items
from pyemu.monitor_table import COMMANDS, CommandError, Session, command, find
from pyemu.until import Instructions

_STEP_WAIT_S = 2.0  # for a processor that executes nothing
_SLICE_S = 0.1
_MOST_STEPS = 1_000_000  # where nobody can interrupt


@command("help", "[COMMAND]", "this list, or what one command does", aliases=("?",), completes="command")
def help_(session: Session, arguments: str) -> str:
    if arguments:
        known = find(arguments)
        if known is None:
            raise CommandError(f"unknown command: '{arguments}'")
        short = f" (short: {', '.join(known.aliases)})" if known.aliases else ""
        return f"{known.usage} -- {known.help}{short}"
    return "\n".join(f"{known.usage} -- {known.help}" for known in COMMANDS.values())


@command("quit", "", "end pyemu", aliases=("q",))
def quit_(session: Session, arguments: str) -> str:
    session.machine.quit()
    return ""


@command("stop", "", "stop the guest", aliases=("s",))
def stop(session: Session, arguments: str) -> str:
    session.machine.pause()
    return ""


@command("cont", "", "let it go on", aliases=("c",))
def cont(session: Session, arguments: str) -> str:
    if session.machine.loop.final is not None:
        raise CommandError("the guest is over")
    session.machine.resume()
    return ""


@command("step", "[N]", "execute one instruction, or N, and show the next", aliases=("si",), long=True)
def step(session: Session, arguments: str) -> str:
    """Through QMP and gdb the I/O thread waits meanwhile, so there the number is bounded; a halted processor isn't
    waited for long."""
    machine = session.machine
    count = session.evaluate(arguments) if arguments else 1
    if count < 1 or (count > _MOST_STEPS and not session.listens):
        raise CommandError(f"steps are 1 to {_MOST_STEPS}")
    if machine.loop.final is not None:
        raise CommandError("the guest is over")
    machine.pause()
    before = machine.instructions
    machine.prepare()
    machine.loop.set_conditions([Instructions(count)])
    machine.resume()
    why = _await_steps(session)
    machine.loop.set_conditions([])
    done = machine.instructions - before
    lines = [] if done == count else [f"{done} instructions{why}"]
    return "\n".join([*lines, session.execute("x/1i $cs_base + $rip")])


def _await_steps(session: Session) -> str:
    """Wait until the machine stands; why it does so early."""
    machine = session.machine
    last, idle = machine.instructions, 0.0
    while not machine.loop.wait_parked(_SLICE_S):
        now = machine.instructions
        idle = idle + _SLICE_S if now == last else 0.0
        last = now
        if session.interrupt.is_set() or idle >= _STEP_WAIT_S:
            machine.pause()
            return ", then interrupted" if session.interrupt.is_set() else "; the processor waits for an interrupt"
        if session.progress is not None:
            session.progress(f"at instruction {now}")
    return ""


@command("system_reset", "", "press the reset button")
def system_reset(session: Session, arguments: str) -> str:
    session.machine.reset()
    return ""


@command("system_powerdown", "", "press the power button")
def system_powerdown(session: Session, arguments: str) -> str:
    session.machine.power_button()
    return ""


@command("sendkey", "KEYS", "press keys: a, shift-a, ctrl-alt-delete, f1, ret", completes="key")
def sendkey(session: Session, arguments: str) -> str:
    try:
        session.machine.press(arguments)
    except ValueError as error:
        raise CommandError(str(error)) from error
    return ""


@command("nmi", "", "raise a non-maskable interrupt")
def nmi(session: Session, arguments: str) -> str:
    session.machine.inject_nmi()
    return ""


@command("log", "ITEMS|none", f"what -d logs from now on: {', '.join(ITEMS)}; without ITEMS, what it logs now")
def log(session: Session, arguments: str) -> str:
    machine = session.machine
    if not arguments:
        return ", ".join(sorted(machine.log.items)) or "none"
    try:
        items = parse_items("" if arguments == "none" else arguments)
    except LogError as error:
        raise CommandError(str(error)) from error
    with session.stopped():
        machine.set_log_items(items)
    return ""


@command("logfile", "FILE", "where the log goes from now on")
def logfile(session: Session, arguments: str) -> str:
    if not arguments:
        raise CommandError("logfile FILE")
    try:
        session.machine.log.redirect(arguments)
    except LogError as error:
        raise CommandError(str(error)) from error
    return ""
