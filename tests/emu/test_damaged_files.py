"""Snapshots and recordings that were damaged on purpose: refused in one line, and the machine is what it was.

Check sums are made to fit, so that what is behind them is reached. Damage by accident is in `test_snapshot`.
"""

from __future__ import annotations

import copy
import hashlib
import json
import resource
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyemu import Machine, snapshot_file
from pyemu.config import ConfigError
from pyemu.cpu.state import MMU, TLB, TLB_LOG_COUNT
from pyemu.snapshot import capture, saved_fields
from pyemu.snapshot_error import SnapshotError
from pyemu.until import Instructions, StopKind

SIZE = 4 << 20

DELETED = object()
WRONG: tuple[Any, ...] = (-1, 1.5, "x", [[]], {"bytes": "zz"}, {"bytes": "00"}, DELETED)
_PREFIX = struct.Struct("<16sIIII")


def whole(machine: Machine) -> tuple[object, ...]:
    return capture(machine), hashlib.sha256(machine.memory.read(0, SIZE)).digest()


class Parts:
    """A snapshot file, taken apart."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        self.path = path
        self.magic, self.format, length, _, _ = _PREFIX.unpack_from(data)
        self.header: Any = json.loads(data[_PREFIX.size : _PREFIX.size + length])
        size = self.header["cpu"] + self.header["hidden"]
        self.body = bytearray(data[_PREFIX.size + length :][:size])
        self.ram = data[-SIZE:]

    def write(self, text: bytes | None = None) -> None:
        """Put together, with the right check sums."""
        text = json.dumps(self.header).encode() if text is None else text
        prefix = _PREFIX.pack(self.magic, self.format, len(text), zlib.crc32(text), zlib.crc32(self.body))
        data = prefix + text + self.body
        self.path.write_bytes(data + bytes(-len(data) % 4096) + self.ram)

    def set_word(self, index: int, value: int) -> None:
        """A word of the processor's."""
        at = 0
        for _, first, count in saved_fields():
            if first <= index < first + count:
                struct.pack_into("<Q", self.body, at + 8 * (index - first), value)
            at += 8 * count


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, Path]]:
    """A machine, and a file that it can load."""
    path = tmp_path_factory.mktemp("damaged") / "machine.snapshot"
    with Machine(memory=SIZE, accelerator="interp") as machine:
        machine.save(str(path))
        yield machine, path


@pytest.fixture
def parts(saved: tuple[Machine, Path], tmp_path: Path) -> Parts:
    found = Parts(saved[1])
    found.path = tmp_path / "damaged.snapshot"
    return found


def refused(machine: Machine, path: Path) -> str:
    """The line with which a machine refuses a file; it has stayed what it was."""
    before = whole(machine)
    with pytest.raises(SnapshotError) as caught:
        machine.load(str(path))
    assert whole(machine) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    [b"[]", b"{}", b"null", b'"x"', b"{", b"[" * 100_000, b"\xff\xfe", b"1" * 10_000, b'{"cpu":' + b"9" * 5000 + b"}"],
    ids=lambda text: repr(text[:8]),
)
def test_a_header_that_is_none(saved: tuple[Machine, Path], parts: Parts, text: bytes) -> None:
    parts.write(text)
    assert "is damaged" in refused(saved[0], parts.path)


@pytest.mark.parametrize(
    "place",
    [
        (), ("version",), ("config",), ("config", "memory"), ("fields",), ("cpu",), ("hidden",), ("ram",),
        ("ram_base",), ("clock",), ("clock", "now"), ("clock", "alarms", 0), ("clock", "alarms", 0, 0),
        ("clock", "alarms", 0, 1), ("devices",), ("devices", "pit"), ("devices", "apic", "lvt"),
        ("devices", "pit", "channels"), ("devices", "i8042", "ram"), ("drawn",), ("instructions",),
    ],
    ids=str,
)  # fmt: skip
def test_wrong_types_in_the_header(saved: tuple[Machine, Path], parts: Parts, place: tuple[str | int, ...]) -> None:
    machine = saved[0]
    good = parts.header
    for value in WRONG:
        if place in (("clock", "now"), ("clock", "alarms", 0, 1)) and value == -1:
            continue  # strange, but times
        if place in (("drawn",), ("instructions",), ("ram_base",)) and isinstance(value, int):
            continue
        if (place == ("version",) and value == "x") or (place == ("clock", "alarms", 0) and value is DELETED):
            continue
        parts.header = holder = {"": copy.deepcopy(good)}
        here: Any = holder
        for step in ("", *place)[:-1]:
            here = here[step]
        if value is DELETED:
            del here[("", *place)[-1]]
        else:
            here[("", *place)[-1]] = value
        parts.header = holder.get("", {})
        parts.write()
        refused(machine, parts.path)


def test_registers_of_devices_that_no_chip_can_hold(saved: tuple[Machine, Path], parts: Parts) -> None:
    parts.header["devices"]["serial0"]["fcr"] = 2**64 - 1
    parts.write()
    assert "is damaged" in refused(saved[0], parts.path)


@pytest.mark.parametrize("word", ["mmu", "mode", "tlb", "log", "base"])
def test_a_processor_that_would_lead_out_of_memory(saved: tuple[Machine, Path], parts: Parts, word: str) -> None:
    match word:
        case "mmu":
            parts.set_word(MMU, 255)
        case "mode":
            parts.set_word(MMU - 2, 2**63)
        case "log":
            parts.set_word(TLB_LOG_COUNT, 1)  # and the log says 0
        case "tlb":
            parts.set_word(TLB, 0x1000)
            parts.set_word(TLB + 3, 0x1234_5000)
        case "base":
            parts.set_word(TLB, 0)
            parts.set_word(TLB + 3, parts.header["ram_base"])
            parts.write()
            saved[0].load(str(parts.path))
            parts.header["ram_base"] += SIZE
    parts.write()
    assert "is damaged" in refused(saved[0], parts.path)


def test_every_border_of_a_truncated_file(saved: tuple[Machine, Path], parts: Parts) -> None:
    parts.write()
    data = parts.path.read_bytes()
    json_end = _PREFIX.size + struct.unpack_from("<I", data, 20)[0]
    for end in (15, 16, _PREFIX.size, json_end, json_end + parts.header["cpu"], len(data) - SIZE, len(data)):
        for cut in (end - 1, end, end + 1):
            if cut != len(data):
                parts.path.write_bytes((data + b"\0")[:cut])
                refused(saved[0], parts.path)


def test_options_of_a_machine_that_never_was(saved: tuple[Machine, Path], parts: Parts) -> None:
    """The command line takes them from the file."""
    for name, value in (("debug_exit", [1]), ("icount", {"a": 1}), ("kernel", 1.5), ("bios_path", 7), ("bios", "a\0b")):
        header = copy.deepcopy(parts.header)
        header["config"][name] = value
        parts.path.write_bytes(b"")
        other = Parts(saved[1])
        other.header, other.path = header, parts.path
        other.write()
        file = str(parts.path)
        with pytest.raises(SnapshotError, match="about the machine is damaged"):
            snapshot_file.adopt(file, saved[0].config, snapshot_file.read_header(file), lambda _: False)


def test_a_configuration_of_wrong_types_is_refused() -> None:
    wrong: list[dict[str, Any]] = [
        {"memory": 1e8}, {"memory": None}, {"kernel": 5}, {"serials": "stdio"}, {"icount": 3}, {"seed": "x"},
        {"reboot": 1}, {"qmp": (1,)}, {"symbols": [None]}, {"kernel": "a\0b"},
    ]  # fmt: skip
    for options in wrong:
        with pytest.raises(ConfigError, match=f"{next(iter(options))} can't be"):
            Machine(**options)


def test_save_to_where_nothing_can_be_saved(tmp_path: Path, saved: tuple[Machine, Path]) -> None:
    path = tmp_path / "machine.snapshot"
    saved[0].save(str(path))
    data = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        with pytest.raises(SnapshotError, match="can't save"):
            saved[0].save(str(path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    for bad in (str(tmp_path), str(tmp_path / "none" / "x"), "a\0b", ""):
        with pytest.raises(SnapshotError, match="can't save"):
            saved[0].save(bad)
    assert path.read_bytes() == data
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


# ---- recordings -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    path = tmp_path_factory.mktemp("recorded") / "run"
    with Machine(memory=SIZE, accelerator="interp", record=str(path)) as machine:
        machine.run(until=Instructions(2000), timeout=60)
        machine.regs.rax = 5
        machine.memory.write(0x1000, b"x")
        machine.run(until=Instructions(2000), timeout=60)
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("config", "memory"), "x"), (("config", "memory"), None), (("config", "icount"), None),
        (("config", "icount"), [1]), (("config", "debug_exit"), {"a": 1}), (("config", "bios_path"), 3),
        (("config",), []), (("wall_start_ns",), "x"), (("wall_start_ns",), None), (("pyemu recording",), []),
        (("config", "kernel"), {}), (("config", "cpu"), 5), (("config", "seed"), 1.5),
    ],
    ids=str,
)  # fmt: skip
def test_a_recording_that_describes_no_machine(
    tmp_path: Path, recorded: list[dict[str, Any]], place: tuple[str, ...], value: object
) -> None:
    lines = copy.deepcopy(recorded)
    here: Any = lines[0]
    for step in place[:-1]:
        here = here[step]
    here[place[-1]] = value
    path = write(tmp_path / "run", lines)
    with pytest.raises(SnapshotError) as caught:
        Machine(replay=str(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        {"i": 5}, {"i": "x", "t": 1, "end": 1}, {"i": 2**70, "t": 1, "end": 1},
        {"i": 1.5, "t": 2, "from": "a", "data": ""},
        {"i": 1, "t": 2, "from": 5, "data": ""}, {"i": 1, "t": 2, "from": [], "data": "x"},
        {"i": 1, "t": 2, "check": 5},
        {"i": 1, "t": 2, "check": {}}, {"i": -1, "t": 2, "from": "x", "data": "x"},
        {"i": 1, "t": 2, "check": {"registers": {"gpr": 5}, "clock": {}, "devices": {}, "ram": {}}},
        {"i": 1, "t": 2, "check": {"registers": {}, "clock": {}, "devices": {}, "ram": {"-1": 5}}},
    ],
    ids=str,
)  # fmt: skip
def test_entries_that_nobody_recorded(tmp_path: Path, recorded: list[dict[str, Any]], line: dict[str, Any]) -> None:
    path = write(tmp_path / "run", [recorded[0], line])
    with pytest.raises(SnapshotError, match="is damaged"):
        Machine(replay=str(path))


@pytest.mark.parametrize(
    ("source", "data"),
    [
        ("memory", "x"), ("memory", "ffffffffffff 00"), ("memory", "-5 00"), ("register", "rax"),
        ("register", "nosuch 1"),
        ("register", "rax -1"), ("register", "cr0 0"), ("port read", "70"),
        ("port read", "70 9"),
        ("port write", "70 1 x"),
        ("gdb register", "i386 rip 1"), ("gdb register", "a b c"), ("serial0", "zz"), ("nobody", ""),
    ],
)  # fmt: skip
def test_what_can_be_given_to_nobody(
    tmp_path: Path, recorded: list[dict[str, Any]], source: str, data: str
) -> None:
    """The replay ends there; a word that a register can hold is one that it holds."""
    event = {"i": 2000, "t": 4000, "from": source, "data": data}
    path = write(tmp_path / "run", [recorded[0], event, {"i": 3000, "t": 6000, "end": 1}])
    with Machine(replay=str(path), accelerator="interp") as machine:
        stop = machine.run(timeout=60)
        assert stop.kind is StopKind.FAILURE, stop.message
        assert "differs from the recording at instruction 2000" in stop.message


def test_a_check_of_pages_that_are_not_there_is_a_difference(tmp_path: Path, recorded: list[dict[str, Any]]) -> None:
    state = {"registers": {"gpr": " ".join(["1"] * 40)}, "clock": {}, "devices": {}, "ram": {"fffffffffffff": 1}}
    path = write(tmp_path / "run", [recorded[0], {"i": 2000, "t": 4000, "check": state}])
    with Machine(replay=str(path), accelerator="interp") as machine:
        stop = machine.run(timeout=60)
        assert stop.kind is StopKind.FAILURE
        assert "differs from the recording" in stop.message


def test_one_line_from_the_command_line(tmp_path: Path, recorded: list[dict[str, Any]]) -> None:
    lines = copy.deepcopy(recorded)
    lines[0]["config"]["memory"] = []
    path = write(tmp_path / "run", lines)
    for option, name in (("-replay", path), ("-replay", tmp_path), ("-loadvm", tmp_path), ("-loadvm", path)):
        ended = subprocess.run(
            [sys.executable, "-m", "pyemu", "-serial", "null", option, str(name)],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert ended.returncode == 1
        assert ended.stderr.startswith("pyemu: ") and ended.stderr.count("\n") == 1, ended.stderr
