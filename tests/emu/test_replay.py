"""Record and replay: the same run again, on every back end; what isn't the same is named. And the way back."""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyemu import Machine, history
from pyemu.cpu.state import GPR, RBX
from pyemu.snapshot_error import SnapshotError
from pyemu.until import Instructions, StopKind
from tests.emu.test_snapshot import whole

BACKENDS = ("jit", "interp", "reference")
SIZE = 16 << 20
WORDS = ("help\r", "selftest\r", "echo hello\r", "cpu\r")


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The built-in guest executes little: check and keep checkpoints often."""
    monkeypatch.setattr(history, "CHECK_EVERY", 3000)
    monkeypatch.setattr(history, "CHECKPOINT_EVERY", 2500)


def record(path: Path, backend: str, seed: int, **options: Any) -> bytes:
    """A run with words typed at moments that the host's time decides; gives the guest's output."""
    source = random.Random(seed)
    with Machine(memory=SIZE, accelerator=backend, record=str(path), **options) as m:
        m.run(until="> ", timeout=60)
        for word in source.sample(WORDS, len(WORDS)):
            m.run(timeout=source.random() * 0.1)
            m.send(word)
        for _ in range(1200):
            if m.output.count(b"> ") > len(WORDS):  # all of them have been executed
                break
            m.run(timeout=0.05)
        if seed % 2:
            m.snapshot()
            m.press("shift-a")
        m.run(until=Instructions(2000), timeout=60)
        return m.output


@pytest.mark.parametrize("seed", range(4))
def test_a_replay_is_the_recorded_run_on_every_back_end(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "run"
    output = record(path, BACKENDS[seed % 2], seed)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    checks = sum("check" in line for line in lines)
    assert checks >= 3
    assert sum("from" in line for line in lines) >= len(WORDS)
    for backend in BACKENDS:
        with Machine(replay=str(path), accelerator=backend) as m:
            stop = m.run(timeout=100)
            assert stop.kind is StopKind.HISTORY_END, stop.message
            assert m.output == output
            assert m.history is not None
            assert m.history.checks == checks
            assert m.instructions == lines[-1]["i"]


def test_two_recordings_differ(tmp_path: Path) -> None:
    record(tmp_path / "a", "jit", 1)
    record(tmp_path / "b", "jit", 2)

    def events(name: str) -> list[tuple[int, str]]:
        lines = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        return [(line["i"], line["data"]) for line in lines if "from" in line]

    assert events("a") != events("b")


@pytest.mark.parametrize("what", ["register", "memory", "device", "time"])
def test_what_differs_is_named(tmp_path: Path, what: str) -> None:
    """A host that behaves otherwise than when it recorded."""
    path = tmp_path / "run"
    record(path, "jit", 1)
    with Machine(replay=str(path)) as m:
        m.run(until=Instructions(4000), timeout=60)
        match what:
            case "register":
                m.state[GPR + RBX] ^= 1 << 40
            case "memory":
                m.ram.write(0x90_0000, b"x")
            case "device":
                m.board.rtc.state.cmos[0x55] ^= 1
            case "time":
                m.board.pit.state.channels[0].reload += 1
        stop = m.run(timeout=100)
        assert stop.kind is StopKind.FAILURE
        assert stop.status == 1
        expected = {"register": "rbx", "memory": "memory at 0x900000", "device": "rtc.cmos[85]", "time": "pit.channels"}
        assert expected[what] in stop.message


def test_an_event_that_comes_too_late_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "run"
    record(path, "jit", 2)
    lines = path.read_text().splitlines()
    at = next(n for n, line in enumerate(lines) if '"from"' in line)
    event = json.loads(lines[at])
    event["t"] -= 1
    lines[at] = json.dumps(event)
    path.write_text("\n".join(lines) + "\n")
    with Machine(replay=str(path)) as m:
        stop = m.run(timeout=60)
        assert stop.kind is StopKind.FAILURE
        assert "which never was" in stop.message


def test_a_recording_that_was_cut_short_replays_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "run"
    record(path, "jit", 3)
    text = path.read_text()
    path.write_text(text[: len(text) * 2 // 3])
    with Machine(replay=str(path)) as m:
        assert m.run(timeout=60).kind is StopKind.HISTORY_END


@pytest.mark.parametrize("text", ["", "hello\n", "\x00\xff", '{"pyemu recording":99}\n', '{"pyemu recording":1}\n'])
def test_what_is_no_recording_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(SnapshotError, match=str(path)), Machine(replay=str(path)):
        pass


def test_a_full_disk_ends_the_run_with_one_line(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="No space left"), Machine(record="/dev/full") as m:
        m.prepare()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with Machine(memory=SIZE, record=str(tmp_path / "run")) as m:
            m.prepare()
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
            stop = m.run(until=Instructions(10**9), timeout=60)
            assert stop.kind is StopKind.FAILURE and "recording to" in stop.message and "too large" in stop.message
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_from_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "run"
    command = [sys.executable, "-m", "pyemu", "-m", "16M", "-serial", "stdio", "-monitor", "none"]
    recorded = subprocess.run(
        [*command, "-record", str(path)], input=b"help\rpoweroff\r", capture_output=True, timeout=60, check=False
    )

    def replay() -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "pyemu", "-replay", str(path), "-serial", "stdio"],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False,
        )  # fmt: skip

    again = replay()
    assert b"powering off" in recorded.stdout
    assert again.stdout == recorded.stdout
    assert again.returncode == recorded.returncode == 0
    text = path.read_text().splitlines(keepends=True)
    last = max(n for n, line in enumerate(text) if '"from"' in line)
    path.write_text("".join(text[: last + 1]))
    again = replay()
    assert recorded.stdout.startswith(again.stdout)
    assert again.returncode == 0
    assert b"recording is over" in again.stderr


# ---- backwards ------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["jit", "reference"])
def past(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A machine with a history and something in it."""
    with Machine(memory=SIZE, accelerator=request.param, record="") as m:
        m.run(until="> ", timeout=60)
        for word in WORDS[:2]:
            m.send(word)
            m.run(until="\n> ", timeout=60)
        m.run(until=Instructions(500), timeout=60)
        yield m


def test_going_to_moments_and_back(past: Machine) -> None:
    end = past.instructions
    moments: dict[int, tuple[object, ...]] = {end: whole(past)}
    source = random.Random(5)
    output = past.output
    for _ in range(4):
        count = source.randrange(end)
        past.goto(count)
        assert past.instructions == count
        moments[count] = whole(past)
    for count in source.sample(sorted(moments), len(moments)):
        past.goto(count)
        assert whole(past) == moments[count]
    assert past.output == output, "what was shown isn't shown again"
    past.goto(end)
    past.send("echo more\r")
    past.run(until="more\r\n", timeout=60)


def test_steps_back(past: Machine) -> None:
    trail = []
    for _ in range(5):
        trail.append((past.instructions, past.regs.rip))
        past.run(until=Instructions(1), timeout=60)
    for count, rip in reversed(trail):
        assert past.reverse_step().kind is StopKind.STEP
        assert (past.instructions, past.regs.rip) == (count, rip)
    past.goto(0)
    assert past.reverse_step().kind is StopKind.HISTORY_END


def test_back_to_a_breakpoint_and_to_a_write(past: Machine) -> None:
    end = past.instructions
    past.goto(end - 300)
    rip = past.regs.rip
    past.goto(end)
    hook = past.breakpoint(rip)
    assert past.reverse_continue().kind is StopKind.BREAKPOINT
    assert past.regs.rip == rip
    assert end - 300 <= past.instructions < end
    hook.remove()
    address = past.regs["rsp"] - 8
    before = past.instructions
    stop = past.last_write(address, 8)
    assert stop.kind is StopKind.WATCHPOINT
    assert past.instructions < before
    written = past.read_virtual(address, 8)
    past.reverse_step()
    past.run(until=Instructions(1), timeout=60)
    assert past.read_virtual(address, 8) == written
    never = past.breakpoint(0xDEAD_0000)
    assert past.reverse_continue().kind is StopKind.HISTORY_END
    assert past.instructions == 0
    never.remove()


def test_a_jump_to_another_state_begins_another_past(past: Machine, tmp_path: Path) -> None:
    kept = past.snapshot()
    past.run(until=Instructions(1000), timeout=60)
    past.restore(kept)
    begin = past.instructions
    past.run(until=Instructions(1000), timeout=60)
    later = whole(past)
    past.goto(begin + 300)
    past.goto(begin + 1000)
    assert whole(past) == later
    with pytest.raises(SnapshotError, match="not so far"):
        past.goto(begin - 1)
    with Machine(memory=SIZE, record=str(tmp_path / "run")) as recording:
        state = recording.snapshot()
        with pytest.raises(SnapshotError, match="recorded"):
            recording.restore(state)


def test_without_a_history_there_is_no_way_back() -> None:
    with Machine(memory=SIZE) as m:
        m.prepare()
        with pytest.raises(SnapshotError, match="-history"):
            m.reverse_step()
