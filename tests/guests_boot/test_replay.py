"""A Linux boot recorded, with input at moments of the host's choosing, and replayed: equal in every check."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from pyemu import Machine, history
from pyemu.snapshot import capture
from pyemu.until import Instructions, StopKind
from tests.emu.test_snapshot import guest_state
from tests.linux_guests import images

APPEND = "console=ttyS0 rdinit=/bin/sh"


def record(path: Path, backend: str, seed: int) -> bytes:
    """One boot; gives its output. Something is typed at four moments, a key is pressed, and a snapshot taken."""
    guests = images.obtain()
    source = random.Random(seed)
    with Machine(
        kernel=str(guests.cloud), initrd=str(guests.initrd), append=APPEND, memory="256M", accelerator=backend,
        record=str(path),
    ) as machine:  # fmt: skip
        for number in range(3):
            machine.run(timeout=source.random())
            machine.send(f"early{number} ")
            if number == seed % 3:
                machine.snapshot()
        assert machine.run(until="# ", timeout=120).kind is StopKind.CONDITION, machine.output[-500:]
        machine.send("\x15echo hello from $((6*7)); sleep 0.2\r")
        assert machine.run(until="hello from 42", timeout=60).kind is StopKind.CONDITION
        machine.run(timeout=0.2 * source.random())
        machine.press("a")
        machine.run(timeout=0.3)
        return machine.output


def replay(path: Path, backend: str, output: bytes, checks: int) -> None:
    with Machine(replay=str(path), accelerator=backend) as machine:
        stop = machine.run(timeout=300)
        assert stop.kind is StopKind.HISTORY_END, stop.message
        assert machine.output == output
        assert machine.history is not None
        assert machine.history.checks >= checks


@pytest.mark.slow
@pytest.mark.xdist_group("linux")
def test_a_recorded_boot_is_replayed_by_translator_and_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "CHECK_EVERY", 10_000_000)
    output = record(tmp_path / "boot", "jit", 1)
    for backend in ("jit", "interp"):
        replay(tmp_path / "boot", backend, output, 100)


@pytest.mark.long
def test_ten_recorded_boots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "CHECK_EVERY", 10_000_000)
    events = []
    for seed in range(10):
        path = tmp_path / str(seed)
        output = record(path, "interp" if seed % 3 == 2 else "jit", seed)
        for backend in ("jit", "interp"):
            replay(path, backend, output, 100)
        events.append([line.split('"from"')[0] for line in path.read_text().splitlines() if '"from"' in line])
        print(f"boot {seed}: replayed twice", flush=True)
    assert len({str(each) for each in events}) == 10


@pytest.mark.slow
@pytest.mark.xdist_group("linux")
def test_the_reference_goes_on_where_the_translator_was(tmp_path: Path) -> None:
    """A whole boot is too much for it; a part in the middle is not."""
    guests = images.obtain()
    options: dict[str, Any] = {"memory": 256 << 20, "record": "", "wall_start_ns": 10**18, "seed": 1}
    options |= {"kernel": str(guests.cloud), "initrd": str(guests.initrd), "append": APPEND}
    saved, states = str(tmp_path / "middle"), []
    with Machine(**options) as machine:
        machine.run(until=Instructions(700_000_000), timeout=120)
        machine.save(saved)
        machine.run(until=Instructions(50_000), timeout=60)
        states.append(guest_state(capture(machine)))
    with Machine(accelerator="reference", loadvm=saved, **options) as machine:
        machine.run(until=Instructions(50_000), timeout=120)
        states.append(guest_state(capture(machine)))
    assert states[0] == states[1]
