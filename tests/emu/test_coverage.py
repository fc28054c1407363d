"""Coverage of blocks and edges, and its export."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyemu.config import ConfigError
from pyemu.coverage import Block, Module
from pyemu.machine import Machine
from tests.emu.test_hooks import AT, COUNT, ORIGIN, SECTOR


@pytest.fixture(params=["jit", "interp"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    sector = tmp_path / "sector"
    sector.write_bytes(SECTOR)
    with Machine(kernel=str(sector), memory="16M", accelerator=request.param) as made:
        yield made


def test_blocks(machine: Machine) -> None:
    """What is executed is there, and nothing else; the last instruction isn't executed."""
    coverage = machine.coverage()
    machine.run(until=AT["end"], timeout=60)
    assert machine.instructions == COUNT
    spans = sorted((block.address, block.address + block.size) for block in coverage.blocks)
    covered = {at for start, end in spans for at in range(start, end)}
    assert covered == set(range(ORIGIN, AT["end"])) | {0x7D00}
    assert {AT["loop"], AT["fill"], AT["port"], 0x7D00} <= {start for start, _ in spans}


def test_begun_in_the_middle_reset_and_stopped(machine: Machine) -> None:
    machine.run(until=AT["again"], timeout=60)
    coverage = machine.coverage()
    with pytest.raises(ConfigError, match="already"):
        machine.coverage()
    machine.run(until=AT["int"], timeout=60)
    assert all(block.address >= AT["loop"] for block in coverage.blocks)
    assert AT["loop"] in {block.address for block in coverage.blocks}
    coverage.reset()
    machine.run(until=AT["port"], timeout=60)
    assert {block.address for block in coverage.blocks} == {AT["int"], 0x7D00}
    coverage.stop()
    machine.run(until=AT["end"], timeout=60)
    assert {block.address for block in coverage.blocks} == {AT["int"], 0x7D00}
    machine.coverage().stop()


def test_a_full_buffer(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyemu.coverage._ENTRIES", 3)
    coverage = machine.coverage()
    hooks = [machine.breakpoint(at, action=lambda _: None) for at in range(ORIGIN, AT["end"])]
    machine.run(until=AT["end"], timeout=60)
    assert len(coverage.blocks) > 20
    assert hooks[0].hits == 1


def test_edges(machine: Machine) -> None:
    if machine.config.accelerator != "jit":
        with pytest.raises(ConfigError, match="needs -accel jit"):
            machine.coverage(edges=True)
        return
    coverage = machine.coverage(edges=True)
    machine.run(until=AT["fill"], timeout=60)
    first = coverage.edges
    assert 2 <= sum(map(bool, first)) < 12
    assert max(first) == (1000 - 2) % 255 or max(first) > 100  # the loop's edge to itself, counted modulo 255
    coverage.reset()
    assert not any(coverage.edges)
    machine.run(until=AT["end"], timeout=60)
    assert any(coverage.edges) and coverage.edges != first
    assert machine.instructions == COUNT


def test_the_reference_interpreter_keeps_no_blocks(tmp_path: Path) -> None:
    sector = tmp_path / "sector"
    sector.write_bytes(SECTOR)
    with Machine(kernel=str(sector), memory="16M", accelerator="reference") as machine:
        with pytest.raises(ConfigError, match="needs -accel jit or interp"):
            machine.coverage()


def test_drcov(machine: Machine, tmp_path: Path) -> None:
    """The file is read as its format's description has it."""
    coverage = machine.coverage()
    machine.run(until=AT["end"], timeout=60)
    path = tmp_path / "out.drcov"
    count = coverage.save_drcov(str(path), [Module("sector", ORIGIN, AT["end"])])
    head, data = re.fullmatch(rb"(.*BB Table: \d+ bbs\n)(.*)", path.read_bytes(), re.S).groups()  # type: ignore[union-attr]
    lines = head.decode().splitlines()
    assert lines[:2] == ["DRCOV VERSION: 2", "DRCOV FLAVOR: pyemu"]
    assert lines[2:4] == [
        "Module Table: version 2, count 2",
        "Columns: id, base, end, entry, checksum, timestamp, path",
    ]
    modules = [[field.strip() for field in line.split(",")] for line in lines[4:6]]
    assert [(int(m[0]), int(m[1], 16), m[6]) for m in modules] == [(0, ORIGIN, "sector"), (1, 0, "memory-0x0")]
    assert lines[6] == f"BB Table: {count} bbs"
    found = {(int(modules[m][1], 16) + at, size) for at, size, m in struct.iter_unpack("<IHH", data)}
    assert found == {(block.address, block.size) for block in coverage.blocks}
    assert Block(0x7D00, 1, 0) in coverage.blocks
