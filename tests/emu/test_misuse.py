"""The Python API called wrongly: a clear exception, and a machine that is as good as before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyemu import Machine
from pyemu.config import OutputError
from pyemu.memory import OutOfRange
from pyemu.snapshot_error import SnapshotError
from pyemu.until import Address, GuestTime, Instructions, SerialText, StopKind

ALL = (0, 1 << 47)


@pytest.fixture(scope="module", params=["jit", "interp", "reference"])
def running(request: pytest.FixtureRequest) -> Iterator[Machine]:
    with Machine(memory="8M", accelerator=request.param) as machine:
        machine.run(until="> ", timeout=60)
        yield machine


def goes_on(machine: Machine) -> bool:
    before = machine.instructions
    machine.send("ticks\r")
    return machine.run(until="> ", timeout=60).kind is StopKind.CONDITION and machine.instructions > before


def test_conditions_that_can_never_come_true(running: Machine) -> None:
    text: Any = "x"
    number: Any = 1.5
    five: Any = 5
    wrong: list[Any] = [
        1.5, {}, object(), Instructions, True, Instructions(text), Address(text), Address(number), SerialText(five),
        GuestTime(text), [5.5], ["x", None, {}],
    ]  # fmt: skip
    for until in wrong:
        with pytest.raises(TypeError, match="can't run until"):
            running.run(until=until, timeout=5)
    for seconds in (float("nan"), float("inf"), 1e300):
        with pytest.raises(ValueError, match="can't run until"):
            running.run(until=GuestTime(seconds), timeout=5)
    assert goes_on(running)


def test_timeouts(running: Machine) -> None:
    text: Any = "1"
    with pytest.raises(TypeError, match="number of seconds"):
        running.run(timeout=text)
    with pytest.raises(ValueError, match="NaN"):
        running.run(timeout=float("nan"))
    for long in (float("inf"), 10**20):
        assert running.run(until=Instructions(5), timeout=long).kind is StopKind.CONDITION
    assert running.run(timeout=-1).kind is StopKind.TIMEOUT
    assert not running.running


def test_memory_that_is_not_there(running: Machine) -> None:
    for address, length in ((-1, 4), (0, -1), (2**64, 4), (8 << 20, 1), (0, 1 << 40)):
        with pytest.raises(OutOfRange):
            running.memory.read(address, length)
        with pytest.raises(OutOfRange):
            running.read_virtual(address, length)


@pytest.mark.parametrize("kind", ["code", "block", "memory", "port", "interrupt", "test", "exit", "keyboard"])
def test_a_function_of_a_hook_that_fails(running: Machine, kind: str) -> None:
    """The run ends with what it raised, and the guest goes on as if it had asked for a stop."""

    def fail(*_: object) -> bool:
        raise {"exit": SystemExit, "keyboard": KeyboardInterrupt}.get(kind, ZeroDivisionError)("on purpose")

    sets: dict[str, Callable[[], Any]] = {
        "block": lambda: running.hook_block(fail),
        "memory": lambda: running.hook_memory(fail, *ALL),
        "port": lambda: running.hook_port(fail, 0, 0xFFFF),
        "interrupt": lambda: running.hook_interrupt(fail),
        "test": lambda: running.hook_code(lambda _: True, *ALL, condition=fail),
    }
    hook = sets.get(kind, lambda: running.hook_code(fail, *ALL))()
    running.send("ticks\r")
    with pytest.raises(RuntimeError, match=r"a function of a hook has failed: \w+: on purpose") as caught:
        running.run(timeout=60)
    assert isinstance(caught.value.__cause__, SystemExit | KeyboardInterrupt | ZeroDivisionError)
    hook.remove()
    assert running.run(until="> ", timeout=60).kind is StopKind.CONDITION
    assert goes_on(running)


@pytest.mark.parametrize("call", ["run", "pause", "close", "snapshot"])
def test_a_function_of_a_hook_that_would_wait_for_itself(running: Machine, call: str) -> None:
    hook = running.hook_code(lambda _: getattr(running, call)(), *ALL)
    with pytest.raises(RuntimeError, match="hook can't do this"):
        running.run(timeout=60)
    hook.remove()
    assert goes_on(running)


def test_what_is_no_snapshot_of_this_machine(running: Machine) -> None:
    nonsense: tuple[Any, ...] = (5, None, "x")
    for wrong in nonsense:
        with pytest.raises(TypeError, match="no snapshot"):
            running.restore(wrong)
        with pytest.raises(TypeError, match="no snapshot"):
            running.drop(wrong)
        with pytest.raises((TypeError, SnapshotError)):
            running.load(wrong)
    with Machine(memory="8M", accelerator=running.config.accelerator) as other:
        strange = other.snapshot()
        for use in (running.restore, running.drop):
            with pytest.raises(SnapshotError, match="another machine"):
                use(strange)
        other.restore(strange)


def test_after_the_end(tmp_path: Path) -> None:
    path = str(tmp_path / "machine.snapshot")
    machine = Machine(memory="8M", accelerator="interp")
    machine.run(until="> ", timeout=60)
    kept = machine.snapshot()
    machine.save(path)
    machine.close()
    machine.close()
    for late in (
        machine.run, machine.start, machine.resume, machine.step, machine.snapshot, machine.coverage,
        lambda: machine.restore(kept), lambda: machine.drop(kept),
        lambda: machine.save(path), lambda: machine.load(path),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match="closed"):
            late()
    for access in (lambda: machine.memory.read(0, 4), lambda: machine.memory.write(0, b"x")):
        with pytest.raises(OutOfRange):
            access()
    assert machine.translate(0x10_0000) is None
    assert b"> " in machine.output


def test_a_file_may_be_named_by_a_path(tmp_path: Path) -> None:
    sector = tmp_path / "sector"
    sector.write_bytes(b"\xf4".ljust(510, b"\0") + b"\x55\xaa")
    with Machine(kernel=sector, memory="8M", accelerator="interp") as machine:
        assert machine.config.kernel == str(sector)


def test_statistics_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYEMU_STATS", str(tmp_path / "none" / "stats"))
    machine = Machine(memory="8M", accelerator="interp")
    machine.prepare()
    with pytest.raises(OutputError, match="can't write"):
        machine.close()
