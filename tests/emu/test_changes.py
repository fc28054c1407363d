"""A history stays true when a person interferes: changes by a debugger, keys and buttons, now and in the past."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyemu import Machine, history
from pyemu.chardev import Capture
from pyemu.gdbserver.session import Session as GdbSession
from pyemu.gdbserver.session import Settings
from pyemu.monitor_table import Session
from pyemu.qmp import QmpServer
from pyemu.snapshot_error import SnapshotError
from pyemu.until import Instructions, StopKind
from tests.emu.test_snapshot import whole
from tests.gdb.sector import LONG, sector

BACKENDS = ("jit", "interp", "reference")
BUTTONS: tuple[Callable[[Machine], None], ...] = (
    lambda m: m.press("a"), lambda m: m.reset(), lambda m: m.power_button(), lambda m: m.inject_nmi(),
)  # fmt: skip

KEY_AND_BUTTONS = (
    {"execute": "send-key", "arguments": {"keys": [{"type": "qcode", "data": "b"}]}},
    {"execute": "system_powerdown"}, {"execute": "inject-nmi"}, {"execute": "system_reset"},
)  # fmt: skip


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "CHECK_EVERY", 700)
    monkeypatch.setattr(history, "CHECKPOINT_EVERY", 500)


@pytest.fixture
def image(tmp_path: Path) -> str:
    """The boot sector that counts in RBX, and in memory at 600."""
    path = tmp_path / "sector"
    path.write_bytes(sector())
    return str(path)


def go_on(m: Machine, count: int = 500) -> None:
    assert m.run(until=Instructions(count), timeout=60).kind is StopKind.CONDITION


def gdb(m: Machine) -> GdbSession:
    session = GdbSession(m, lambda _: None, Settings())
    session.begin()
    return session


def interfere(m: Machine) -> None:
    """By each way that there is, with the guest running in between."""
    m.regs.rbp = 77  # before it has run at all
    m.run(until=LONG, timeout=60)
    go_on(m)
    m.regs.rbx = 0x1000
    m.memory.write(0x9_0000, b"changed")
    go_on(m)
    m.write_virtual(0x7D70, bytes.fromhex("90 90 90 c3"))  # its function doesn't count RDX any more
    go_on(m)
    number = gdb(m).description.number
    for packet in (
        b"P%x=0020000000000000" % number("rbx"), b"P%x=%b" % (number("xmm3"), b"5a" * 16),
        b"P%x=0030000000000000" % number("cr3"), b"P%x=0010000000000000" % number("cr3"),
        b"M608,2:0102", b"X60a,2:#$",
    ):  # fmt: skip
        assert gdb(m).handle(packet) == b"OK"
    everything = gdb(m).handle(b"g")
    assert everything is not None
    assert gdb(m).handle(b"G" + b"1122334455667788" + everything[16:]) == b"OK"
    go_on(m)
    monitor = Session(m)
    assert monitor.execute("o /b 0x70 0x0f") == monitor.execute("o /b 0x71 0x5a") == ""
    assert "0x5a" in monitor.execute("i /b 0x71")
    m.start()
    m.memory.write(0x9_1000, b"while it runs")
    m.pause()
    go_on(m, 2000)


@pytest.mark.parametrize("backend", ["jit", "reference"])
def test_changes_are_recorded_and_replayed_on_every_back_end(image: str, tmp_path: Path, backend: str) -> None:
    path = tmp_path / "run"
    with Machine(kernel=image, memory="16M", accelerator=backend, record=str(path)) as m:
        interfere(m)
        end, value = whole(m), m.regs.rbx
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {line["from"] for line in lines if "from" in line} == {
        "register", "memory", "gdb register", "port read", "port write",
    }  # fmt: skip
    assert value > 0x2000
    for other in BACKENDS:
        with Machine(replay=str(path), accelerator=other) as m:
            stop = m.run(timeout=100)
            assert stop.kind is StopKind.HISTORY_END, stop.message
            assert whole(m) == end
            assert m.history is not None and m.history.checks == sum("check" in line for line in lines) > 3


@pytest.fixture(params=["jit", "reference"])
def past(request: pytest.FixtureRequest, image: str) -> Iterator[Machine]:
    """A machine that has been changed, and stands in its past."""
    with Machine(kernel=image, memory="16M", accelerator=request.param, record="") as m:
        m.run(until=LONG, timeout=60)
        go_on(m, 1000)
        m.regs.rbx = 0x1000
        go_on(m, 1000)
        yield m


def test_going_back_over_changes(past: Machine) -> None:
    end, after = past.instructions, whole(past)
    past.goto(end - 1200)
    assert past.regs.rbx < 0x1000
    past.goto(end)
    assert whole(past) == after and past.regs.rbx > 0x1000


def test_a_change_in_the_past_makes_another_future(past: Machine) -> None:
    end = past.instructions
    past.goto(end - 1500)
    past.regs.rbx = 0x5000
    begin = past.instructions
    assert past.history is not None and not past.history.replaying
    go_on(past, 1500)
    assert 0x5000 < past.regs.rbx < 0x6000, "the change that was made later is not made now"
    other = whole(past)
    past.goto(begin - 10)
    assert past.regs.rbx < 0x1000
    past.goto(begin)
    assert past.regs.rbx == 0x5000
    past.memory.write(0x9_0000, b"y")  # once more, where there has been a change
    past.goto(begin + 1500)
    assert whole(past) != other and past.regs.rbx > 0x5000
    past.press("a")  # it is the present


def test_keys_and_buttons_are_refused_in_the_past(past: Machine) -> None:
    end, after = past.instructions, whole(past)
    past.goto(end - 100)
    before = whole(past)
    for touch in BUTTONS:
        with pytest.raises(SnapshotError, match=f"replays its past: no .* at instruction {end}$"):
            touch(past)
    monitor = Session(past)
    console = qmp(past)
    for command in ("sendkey a", "system_reset", "system_powerdown", "nmi"):
        said = monitor.execute(command)
        assert "replays its past" in said and "\n" not in said
    for request in KEY_AND_BUTTONS:
        console.send(json.dumps(request).encode())
    replies = [json.loads(line) for line in bytes(console.output).splitlines()]
    assert [reply["error"]["class"] for reply in replies] == ["GenericError"] * 4
    assert all("replays its past" in reply["error"]["desc"] for reply in replies)
    assert whole(past) == before
    past.goto(end)
    assert whole(past) == after
    for touch in BUTTONS[:1]:
        touch(past)


def test_the_past_of_a_file_is_not_changed(image: str, tmp_path: Path) -> None:
    path = tmp_path / "run"
    with Machine(kernel=image, memory="16M", record=str(path)) as m:
        m.run(until=LONG, timeout=60)
        go_on(m, 1000)
        m.goto(m.instructions - 500)
        with pytest.raises(SnapshotError, match="is being recorded"):
            m.regs.rbx = 1
        reply = gdb(m).handle(b"M600,1:00")
        assert reply is not None and reply.startswith(b"E.the run is being recorded to")
    with Machine(replay=str(path)) as m:
        m.run(until=LONG, timeout=60)
        there = m.instructions
        changes: tuple[Callable[[], object], ...] = (
            lambda: m.memory.write(0x600, b"x"), lambda: m.write_virtual(0x600, b"x"),
            lambda: setattr(m.regs, "rbx", 1), lambda: m.press("a"),
        )  # fmt: skip
        for change in changes:
            with pytest.raises(SnapshotError, match=" replays "):
                change()
        assert "replays" in Session(m).execute("o /b 0x70 0")
        stop = m.run(timeout=60)
        assert stop.kind is StopKind.HISTORY_END, stop.message
        assert m.instructions == there + 1000, "it was closed in its past, and is complete"


def test_a_damaged_event_is_named(image: str, tmp_path: Path) -> None:
    path = tmp_path / "run"
    with Machine(kernel=image, memory="16M", record=str(path)) as m:
        m.run(until=LONG, timeout=60)
        m.regs.rbx = 5
        go_on(m)
    text = path.read_text()
    for old, new in (('"rbx 5"', '"rqx 5"'), ('"rbx 5"', '"5"'), ('"register"', '"nobody"')):
        path.write_text(text.replace(old, new))
        with Machine(replay=str(path)) as m:
            stop = m.run(timeout=60)
            assert stop.kind is StopKind.FAILURE and "can't be given" in stop.message


def qmp(m: Machine) -> Capture:
    """A client that has negotiated."""
    console = Capture()
    m.listeners.append(QmpServer(m, console).event)
    console.on_open()
    console.send(b'{"execute":"qmp_capabilities"}')
    console.output.clear()
    return console


@pytest.mark.parametrize("recorder", ["jit", "reference"])
def test_keys_and_buttons_of_the_monitors_are_recorded(tmp_path: Path, recorder: str) -> None:
    path = tmp_path / "run"
    with Machine(memory="16M", accelerator=recorder, record=str(path)) as m:
        m.run(until="> ", timeout=60)
        monitor, console = Session(m), qmp(m)
        for command in ("sendkey shift-a", "sendkey ret", "system_powerdown", "system_reset", "nmi"):
            assert monitor.execute(command) == ""
            m.run(timeout=0.05)
        m.run(until=Instructions(3000), timeout=60)
        for request in KEY_AND_BUTTONS:
            console.send(json.dumps(request).encode())
            m.run(timeout=0.05)
        assert bytes(console.output).count(b'"return"') == 4
        m.run(until=Instructions(3000), timeout=60)
        end, output, count = whole(m), m.output, m.instructions
        m.goto(count // 2)
        m.goto(count)
        assert m.output == output
    events = [json.loads(line)["from"] for line in path.read_text().splitlines() if '"from"' in line]
    assert sorted(events) == sorted(2 * ["nmi button", "power button", "reset button"] + 3 * ["keyboard"])
    for backend in BACKENDS:
        with Machine(replay=str(path), accelerator=backend) as m:
            stop = m.run(timeout=100)
            assert stop.kind is StopKind.HISTORY_END, stop.message
            assert m.output == output and whole(m) == end


@pytest.mark.parametrize("backend", ["jit", "reference"])
def test_a_checkpoint_is_before_a_reset_or_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setattr(history, "CHECKPOINT_EVERY", 1)
    image = tmp_path / "sector"
    image.write_bytes(bytes.fromhex("43 b0fe e664 90 ebf8").ljust(510, b"\0") + b"\x55\xaa")  # inc bx; out 0x64, 0xfe
    with Machine(kernel=str(image), memory="16M", accelerator=backend, record="") as m:
        go_on(m, 18)
        end, after = m.instructions, whole(m)
        assert m.regs.rbx < 4, "it has been reset"
        assert m.history is not None
        for checkpoint in list(m.history.checkpoints):
            m.goto(checkpoint.snapshot.instructions)
            m.goto(end)
            assert whole(m) == after


@pytest.mark.parametrize("backend", ["jit", "reference"])
def test_what_hooks_change(image: str, tmp_path: Path, backend: str) -> None:
    path = tmp_path / "run"

    def set_rbx(event: object) -> None:
        if m.regs.rbx % 10 == 0:
            m.regs.rbx += 90
            m.memory.write(0x9_0000, b"seen")

    with Machine(kernel=image, memory="16M", accelerator=backend, record=str(path)) as m:
        m.run(until=LONG, timeout=60)
        hook = m.hook_code(set_rbx, 0x7D70, 0x7D71)
        go_on(m, 2000)
        end = whole(m)
        assert m.regs.rbx > 1000
        hook.remove()
        m.hook_memory(set_rbx, 0x600, 0x608)
        with pytest.raises(RuntimeError, match="hook within an instruction"):
            m.run(timeout=60)
    for other in BACKENDS:
        with Machine(replay=str(path), accelerator=other) as m:
            m.run(until=LONG, timeout=60)
            stop = m.run(until=Instructions(2000), timeout=60)
            assert stop.kind is StopKind.CONDITION, stop.message
            assert whole(m) == end


def slow_way_back(m: Machine) -> None:
    """So many hits of a breakpoint that going back takes a while."""
    m.run(until=LONG, timeout=60)
    go_on(m, 30_000)
    m.breakpoint(0x7D70, condition="rbx == 5 or rbx > 5")


def back_and_forth(m: Machine, end: int) -> None:
    """Without an end."""
    while True:
        m.reverse_continue()
        m.goto(end)


def test_ctrl_c_in_the_api(image: str) -> None:
    with Machine(kernel=image, memory="16M", record="") as m:
        slow_way_back(m)
        end, after = m.instructions, whole(m)
        timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            back_and_forth(m, end)
        timer.join()
        assert len(m.hooks.all) == 1
        m.goto(end)
        assert whole(m) == after
