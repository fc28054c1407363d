"""Snapshots as files: `savevm`, `loadvm` and `-loadvm`.

A file is a line of JSON's length and check sum, the JSON (configuration, clock, devices), the processor's words, memory
that is hidden behind other memory, and then RAM at a page boundary, with holes where it is zero: it is mapped, not
read, so that loading takes as long for a large guest as for a small one. A file is complete or isn't there: it gets its
name only when all of it is on the disk, and a mapped one that is replaced lives on until it is let go.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO

from pyemu import __version__
from pyemu.config import ConfigError, DebugExit, Icount, MachineConfig
from pyemu.firmware.files import open_regular
from pyemu.memory import HIGH_RAM_START, PAGE_SIZE, GuestRam
from pyemu.snapshot import MachineRecord, saved_fields
from pyemu.snapshot_error import SnapshotError

if TYPE_CHECKING:
    from pyemu.machine import Machine

MAGIC = b"pyemu snapshot\r\n"
FORMAT = 1  # raised by whoever changes what the file means
_PREFIX = struct.Struct("<16sIIII")  # magic, format, length of the JSON and its CRC-32, CRC-32 of what follows it
_MAX_HEADER = 16 << 20
_CHUNK = 1 << 20
_ZEROS = bytes(_CHUNK)
_ZERO_PAGE = bytes(PAGE_SIZE)
# What the guest can see of a configuration. The rest (terminals, logs, the accelerator) may be another when it goes on.
GUEST_OPTIONS = (
    "memory", "machine", "cpu", "kernel", "initrd", "append", "bios", "bios_path", "debugcon_port", "debug_exit",
    "testdev", "icount", "unpack_kernel", "seed",
)  # fmt: skip


@dataclass(frozen=True)
class Header:
    """A file without its RAM."""

    config: dict[str, Any]  # GUEST_OPTIONS
    record: MachineRecord
    ram_offset: int  # of the first byte of RAM in the file
    instructions: int


_KINDS = {
    "version": str, "config": dict, "fields": list, "cpu": int, "hidden": int, "ram": int, "ram_base": int,
    "clock": dict, "devices": dict, "drawn": int, "instructions": int,
}  # fmt: skip
_last: dict[str, object] = {}  # of read_header


def _spans(ram: GuestRam) -> Iterator[tuple[int, int, int]]:
    """Guest addresses of RAM, start and end, and where that is in a file's RAM."""
    yield 0, ram.low_end, 0
    if ram.high_end:
        yield HIGH_RAM_START, ram.high_end, ram.low_end


def guest_options(config: MachineConfig) -> dict[str, Any]:
    """What a guest can see of a configuration, as plain data."""
    options = {name: getattr(config, name) for name in GUEST_OPTIONS}
    for name in ("debug_exit", "icount"):
        options[name] = asdict(options[name]) if options[name] is not None else None
    return options | {name: os.path.abspath(options[name]) for name in ("kernel", "initrd") if options[name]}


# ---- saving -------------------------------------------------------------------------------------------------------


def save(path: str, machine: Machine, record: MachineRecord) -> None:
    """Write a snapshot. On any failure a file that was there before stays as it is."""
    header = json.dumps(
        {
            "version": __version__,
            "config": guest_options(machine.config),
            "fields": [[name, count] for name, _, count in saved_fields()],
            "cpu": len(record.cpu),
            "hidden": len(record.hidden),
            "ram": machine.ram.installed,
            "ram_base": record.ram_base,
            "clock": record.clock,
            "devices": record.devices,
            "drawn": record.drawn,
            "instructions": machine.instructions,
        },
        default=_plain,
    ).encode()
    body = record.cpu + record.hidden
    prefix = _PREFIX.pack(MAGIC, FORMAT, len(header), zlib.crc32(header), zlib.crc32(body))
    directory, name = os.path.split(os.path.abspath(path))
    temporary = os.path.join(directory, f".{name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(prefix + header + body)
            offset = -(-file.tell() // PAGE_SIZE) * PAGE_SIZE
            file.truncate(offset + machine.ram.installed)
            for start, end, at in _spans(machine.ram):
                _write_ram(file, machine.ram, start, end, offset + at)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        try:
            os.unlink(temporary)
        except (OSError, ValueError):
            pass  # there was none
        if isinstance(error, OSError | ValueError):  # which is a NUL in the name
            raise SnapshotError(f"can't save {path!r}: {getattr(error, 'strerror', None) or error}") from error
        raise


def _plain(value: object) -> object:
    if isinstance(value, bytes | bytearray):
        return {"bytes": value.hex()}
    raise TypeError(f"{type(value).__name__} in a device's record")


def _write_ram(file: BinaryIO, ram: GuestRam, start: int, end: int, offset: int) -> None:
    for at in range(start, end, _CHUNK):
        chunk = ram.read(at, min(_CHUNK, end - at))
        if chunk == _ZEROS[: len(chunk)]:
            continue
        first = None
        for page in range(0, len(chunk) + PAGE_SIZE, PAGE_SIZE):  # one more than there are ends the last run
            zero = page >= len(chunk) or chunk[page : page + PAGE_SIZE] == _ZERO_PAGE
            if zero and first is not None:
                file.seek(offset + at - start + first)
                file.write(memoryview(chunk)[first:page])
                first = None
            elif not zero and first is None:
                first = page


# ---- loading ------------------------------------------------------------------------------------------------------


def read_header(path: str) -> Header:
    """Read and check everything but RAM. The last one is remembered: the command line reads it for its options."""
    try:
        with open_regular(path) as file:
            status = os.fstat(file.fileno())
            seen = (path, status.st_ino, status.st_size, status.st_mtime_ns)
            if _last.get("seen") != seen:
                _last.update(header=_parse(path, file), seen=seen)
            header = _last["header"]
            assert isinstance(header, Header)
            return header
    except OSError as error:
        raise SnapshotError(f"can't read snapshot {path}: {error.strerror or error}") from error


def _parse(path: str, file: BinaryIO) -> Header:
    prefix = file.read(_PREFIX.size)
    if len(prefix) < _PREFIX.size or not prefix.startswith(MAGIC):
        raise SnapshotError(f"{path} is not a snapshot of pyemu's")
    _, version, length, header_crc, body_crc = _PREFIX.unpack(prefix)
    text = file.read(length) if length <= _MAX_HEADER else b""
    if version != FORMAT:
        raise SnapshotError(f"snapshot {path} has format {version}; this pyemu reads format {FORMAT}")
    if len(text) != length or zlib.crc32(text) != header_crc:
        raise SnapshotError(f"snapshot {path} is damaged")
    header = _header(path, text)
    if header["fields"] != [[name, count] for name, _, count in saved_fields()]:
        raise SnapshotError(
            f"snapshot {path} is of pyemu {header['version']}, whose processor has other registers than this one's"
        )
    size = os.fstat(file.fileno()).st_size
    if not 0 <= header["cpu"] <= size - file.tell() or not 0 <= header["hidden"] <= _MAX_HEADER:
        raise SnapshotError(f"snapshot {path} is damaged")
    body = file.read(header["cpu"] + header["hidden"])
    offset = -(-file.tell() // PAGE_SIZE) * PAGE_SIZE
    if zlib.crc32(body) != body_crc or size != offset + header["ram"]:
        raise SnapshotError(f"snapshot {path} is damaged")
    record = MachineRecord(
        cpu=body[: header["cpu"]],
        ram_base=header["ram_base"],
        clock=header["clock"],
        devices=header["devices"],
        hidden=body[header["cpu"] :],
        drawn=header["drawn"],
    )
    return Header(header["config"], record, offset, header["instructions"])


def _header(path: str, text: bytes) -> dict[str, Any]:
    """The JSON, if everything in it has the right type: its check sum may have been made to fit."""
    try:
        header = json.loads(text, object_hook=_unplain)
    except (ValueError, TypeError, RecursionError) as error:
        raise SnapshotError(f"snapshot {path} is damaged") from error
    if not isinstance(header, dict) or header.keys() != _KINDS.keys():
        raise SnapshotError(f"snapshot {path} is damaged")
    wrong = [name for name, kind in _KINDS.items() if type(header[name]) is not kind]
    if wrong or header["config"].keys() != set(GUEST_OPTIONS):
        raise SnapshotError(f"snapshot {path} is damaged: '{(wrong or ['config'])[0]}' isn't what it should be")
    return header


def _unplain(value: dict[str, Any]) -> Any:
    return bytearray.fromhex(value["bytes"]) if set(value) == {"bytes"} else value


def map_ram(path: str, header: Header, ram: GuestRam) -> None:
    """RAM is what the file says: its pages are read when they are needed."""
    try:
        with open(path, "rb") as file:
            for start, end, at in _spans(ram):
                ram.map_file(file.fileno(), header.ram_offset + at, start, end)
    except OSError as error:
        raise SnapshotError(f"can't read snapshot {path}: {error.strerror or error}") from error


def copy_ram(path: str, header: Header, ram: GuestRam) -> None:
    """The same by writing what differs: pages that snapshots in memory need are saved first."""
    try:
        with open(path, "rb") as file:
            for start, end, at in _spans(ram):
                file.seek(header.ram_offset + at)
                for address in range(start, end, PAGE_SIZE):
                    page = file.read(PAGE_SIZE)
                    if page != bytes(ram.whole[address : address + PAGE_SIZE]):
                        ram.touch(address, PAGE_SIZE)
                        ram.whole[address : address + PAGE_SIZE] = page
    except OSError as error:
        raise SnapshotError(f"can't read snapshot {path}: {error.strerror or error}") from error


# ---- configurations ---------------------------------------------------------------------------------------------


def check_config(path: str, header: Header, config: MachineConfig) -> None:
    """Refuse a machine that isn't the one in the file."""
    ours = json.loads(json.dumps(guest_options(config), default=_plain))
    for name in ("memory", "machine", "cpu", "testdev", "debug_exit", "debugcon_port", "icount"):
        if ours[name] != header.config[name]:
            raise SnapshotError(f"snapshot {path} is of a machine with {name} {header.config[name]}, not {ours[name]}")


def adopt(path: str, config: MachineConfig, header: Header, given: Callable[[str], bool]) -> MachineConfig:
    """The configuration with the file's options, except for those that `given` says the user has set."""
    return adopt_options(path, config, {name: value for name, value in header.config.items() if not given(name)})


def adopt_options(path: str, config: MachineConfig, options: dict[str, Any]) -> MachineConfig:
    """The configuration with some of `guest_options` from a file."""
    options = dict(options)
    try:
        for name, kind in (("debug_exit", DebugExit), ("icount", Icount)):
            if options.get(name) is not None:
                options[name] = kind(**options[name])
        if "bios_path" in options:
            options["bios_path"] = tuple(options["bios_path"])
        config = replace(config, **options)
        config.check_types()
    except (TypeError, ConfigError) as error:
        raise SnapshotError(f"what {path} says about the machine is damaged: {error}") from error
    return config
