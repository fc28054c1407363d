"""Snapshots: a machine that goes back is the machine that it was, in memory and from files, on every back end."""

from __future__ import annotations

import hashlib
import os
import resource
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyemu import Machine, check, snapshot_file
from pyemu.config import Icount
from pyemu.cpu.state import new_state
from pyemu.snapshot import MachineRecord, Snapshot, capture, saved_fields
from pyemu.snapshot_error import SnapshotError
from pyemu.until import Instructions

BACKENDS = ("jit", "interp", "reference")
SIZE = 16 << 20
SAME: dict[str, Any] = {"memory": SIZE, "icount": Icount(4, sleep=False), "wall_start_ns": 10**18, "seed": 3}


def machine(backend: str = "jit", **options: Any) -> Machine:
    """The built-in guest, past its start, in counted time: the same in each run."""
    made = Machine(accelerator=backend, **{**SAME, **options})
    made.run(until="> ", timeout=60)
    return made


def memory(m: Machine) -> str:
    return hashlib.sha256(m.memory.read(0, SIZE)).hexdigest()


def guest_state(record: MachineRecord) -> tuple[object, ...]:
    """Everything that the guest can tell apart: how flags are written down depends on when the host interrupted it."""
    state, at = new_state(), 0
    for _, index, count in saved_fields():
        state[index : index + count] = struct.unpack_from(f"<{count}Q", record.cpu, at)
        at += 8 * count
    return check.registers(state), record.clock, record.devices, record.hidden, record.drawn


def whole(m: Machine) -> tuple[object, ...]:
    return *guest_state(capture(m)), memory(m)


def advance(m: Machine, count: int = 20_000) -> tuple[object, ...]:
    m.run(until=Instructions(count), timeout=60)
    return whole(m)


@pytest.fixture(params=BACKENDS)
def running(request: pytest.FixtureRequest) -> Iterator[Machine]:
    with machine(request.param) as made:
        yield made


def test_going_back_and_on_again_is_the_same(running: Machine) -> None:
    start = running.snapshot()
    at_start = whole(running)
    running.send("selftest\r")
    later = advance(running, 3000)
    assert later != at_start
    running.restore(start)
    assert whole(running) == at_start
    running.send("selftest\r")
    assert advance(running, 3000) == later


def test_a_restored_machine_computes_what_a_fresh_one_does(running: Machine) -> None:
    start = running.snapshot()
    expected = advance(running, 5000)
    for _ in range(3):
        running.restore(start)
        assert advance(running, 5000) == expected


def test_snapshots_are_a_tree() -> None:
    with machine() as m:
        states: dict[Snapshot, tuple[object, ...]] = {}

        def take() -> Snapshot:
            snapshot = m.snapshot()
            states[snapshot] = whole(m)
            return snapshot

        def scribble(byte: int) -> None:
            for page in range(byte, byte + 20):
                m.memory.write(0x80_0000 + page * 4096, bytes([byte]) * 100)
            advance(m, 500)

        a = take()
        scribble(1)
        b = take()
        scribble(7)
        c = take()
        m.restore(b)
        scribble(13)
        d = take()
        m.restore(a)
        scribble(4)
        e = take()
        for snapshot in (c, d, a, e, b, c, e, d):
            m.restore(snapshot)
            assert whole(m) == states[snapshot]
        m.restore(d)
        scribble(9)
        m.drop(b)
        m.drop(d)
        for snapshot in (c, e, a, c):
            m.restore(snapshot)
            assert whole(m) == states[snapshot]
        with pytest.raises(SnapshotError, match="dropped"):
            m.restore(b)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["write", "take", "restore", "drop"]), st.integers(0, 30), st.integers(1, 255)),
        max_size=40,
    )
)
def test_any_order_of_taking_restoring_and_dropping(steps: list[tuple[str, int, int]]) -> None:
    with Machine(memory=SIZE, accelerator="reference") as m:
        known: list[tuple[Snapshot, str]] = []
        for action, number, byte in steps:
            if action == "write":
                m.memory.write(0x40_0000 + number * 4096, bytes([byte]) * 5000)
            elif action == "take":
                known.append((m.snapshot(), memory(m)))
            elif known and action == "restore":
                snapshot, expected = known[number % len(known)]
                m.restore(snapshot)
                assert memory(m) == expected
            elif known:
                m.drop(known.pop(number % len(known))[0])
        for snapshot, expected in known:
            m.restore(snapshot)
            assert memory(m) == expected


@pytest.mark.parametrize("there", BACKENDS)
def test_a_file_goes_on_in_another_process_on_any_back_end(tmp_path: Path, there: str) -> None:
    path = str(tmp_path / "machine.snapshot")
    with machine("jit") as m:
        m.save(path)
        saved = whole(m)
        expected = advance(m, 4000)
    with Machine(accelerator=there, loadvm=path, **SAME) as other:
        other.prepare()
        assert whole(other) == saved
        assert advance(other, 4000) == expected


def test_loading_into_a_running_machine(running: Machine, tmp_path: Path) -> None:
    path = str(tmp_path / "machine.snapshot")
    running.save(path)
    saved = whole(running)
    first = running.snapshot()
    advance(running, 3000)
    running.load(path)
    assert whole(running) == saved
    advance(running, 3000)
    running.restore(first)
    assert whole(running) == saved


def test_the_file_is_sparse(tmp_path: Path) -> None:
    path = tmp_path / "machine.snapshot"
    with Machine(memory=256 << 20) as m:
        m.save(str(path))
    assert path.stat().st_size > 256 << 20
    assert path.stat().st_blocks * 512 < 16 << 20


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "machine.snapshot"
    with Machine(memory=SIZE) as m:
        m.save(str(path))
        before = path.read_bytes()
        m.memory.write(0x10_0000, os.urandom(4 << 20))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
        try:
            with pytest.raises(SnapshotError, match="can't save"):
                m.save(str(path))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_replacing_a_file_that_is_mapped_changes_no_guest(tmp_path: Path) -> None:
    path = str(tmp_path / "machine.snapshot")
    with machine() as m:
        m.save(path)
        saved = whole(m)
        with Machine(loadvm=path, **SAME) as other:
            advance(m, 5000)
            m.memory.write(0x80_0000, b"other" * 1000)
            m.save(path)
            assert whole(other) == saved


@pytest.mark.parametrize("damage", ["magic", "format", "header", "cpu", "short", "empty", "text"])
def test_damaged_files_are_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "machine.snapshot"
    with Machine(memory=SIZE) as m:
        m.save(str(path))
        data = bytearray(path.read_bytes())
        match damage:
            case "magic":
                data[3] ^= 1
            case "format":
                data[16] += 1
            case "header":
                data[100] ^= 1
            case "cpu":
                data[int.from_bytes(data[20:24], "little") + 200] ^= 1
            case "short":
                del data[-4096:]
            case "empty":
                data.clear()
            case "text":
                data = bytearray(b"#!/bin/sh\n")
        path.write_bytes(data)
        before = whole(m)
        with pytest.raises(SnapshotError):
            m.load(str(path))
        assert whole(m) == before


def test_a_file_with_another_device_is_refused_before_anything_changes(tmp_path: Path) -> None:
    path = str(tmp_path / "machine.snapshot")
    with Machine(memory=SIZE) as m:
        for change in (lambda d: d["pit"].pop("control61"), lambda d: d.pop("rtc"), lambda d: d["pic"].update(slave=3)):
            record = capture(m)
            change(record.devices)
            snapshot_file.save(path, m, record)
            m.memory.write(0x1000, b"changed")
            before = whole(m)
            with pytest.raises(SnapshotError, match=r"pit|rtc|pic"):
                m.load(path)
            assert whole(m) == before


def test_a_file_of_another_machine_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "machine.snapshot")
    with Machine(memory=SIZE) as m:
        m.save(path)
    for word, value in (("memory", 2 * SIZE), ("machine", "q35"), ("cpu", "qemu64")):
        options: dict[str, Any] = {"memory": SIZE, word: value}
        with pytest.raises(SnapshotError, match=word), Machine(loadvm=path, **options):
            pass
