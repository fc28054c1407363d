"""Multiboot 1 and 2: headers, raw and ELF images, modules, and the information that the kernel gets."""

import struct
from pathlib import Path

import pytest

from pyemu.firmware.boot import BootRequest, prepare
from pyemu.firmware.boot_image import BootError, BootImage, CpuMode
from pyemu.firmware.platform import Platform
from tests.firmware import helpers
from tests.firmware.helpers import MIB, RAM, elf_file

LOAD = 3 * MIB


def header1(flags: int = 3, raw: bool = False) -> bytes:
    flags |= 0x10000 if raw else 0
    header = struct.pack("<III", 0x1BADB002, flags, -(0x1BADB002 + flags) & 0xFFFF_FFFF)
    if raw:
        header += struct.pack("<5I", LOAD, LOAD, 0, LOAD + 8192, LOAD + 32)
    return header


def header2(*tags: bytes, raw: bool = False, architecture: int = 0) -> bytes:
    body = b"".join(tag + bytes(-len(tag) % 8) for tag in tags)
    if raw:
        body += struct.pack("<HHI4I", 2, 0, 24, LOAD, LOAD, 0, LOAD + 8192)
        body += struct.pack("<HHI I4x", 3, 0, 12, LOAD + 64)
    body += struct.pack("<HHI", 0, 0, 8)
    size = 16 + len(body)
    magic = 0xE85250D6
    return struct.pack("<4I", magic, architecture, size, -(magic + architecture + size) & 0xFFFF_FFFF) + body


def start(kernel: bytes, **options: object) -> BootImage:
    image = prepare(BootRequest(RAM, kernel, **options), Platform())  # type: ignore[arg-type]
    helpers.check_consistent(image, RAM)
    return image


def check_state(image: BootImage, magic: int) -> None:
    cpu = image.cpu
    assert cpu.mode is CpuMode.PROTECTED32
    assert cpu.gpr["rax"] == magic
    assert cpu.cr0 == 0x11
    assert cpu.rflags == 2
    assert cpu.segments["cs"].access == 0xC09B
    assert all(cpu.segments[name].access == 0xC093 for name in ("ds", "es", "fs", "gs", "ss"))
    assert all(cpu.segments[name].limit == 0xFFFF_FFFF for name in ("cs", "ds", "es", "fs", "gs", "ss"))


def info1(image: BootImage) -> tuple[int, ...]:
    return struct.unpack("<29I", helpers.memory_of(image, image.cpu.gpr["rbx"], 116))


@pytest.mark.parametrize("bits", [32, 64])
def test_elf_version_1(bits: int) -> None:
    code = header1() + b"\xf4" * 16
    image = start(elf_file(bits=bits, code=code, memory_size=8192, entry=2 * MIB + 12), append="a b")
    check_state(image, 0x2BADB002)
    assert image.cpu.rip == 2 * MIB + 12
    assert helpers.memory_of(image, 2 * MIB, len(code)) == code
    assert (2 * MIB + len(code), 8192 - len(code)) in image.zero
    info = info1(image)
    assert info[0] == 0x245
    assert info[1:3] == (639, RAM // 1024 - 1024)
    assert helpers.string_at(image, info[4]) == b"kernel a b"
    assert helpers.string_at(image, info[16]) == b"pyemu"
    mmap = helpers.memory_of(image, info[12], info[11])
    entries = [struct.unpack_from("<IQQI", mmap, at) for at in range(0, len(mmap), 24)]
    assert entries == [(20, entry.start, entry.length, entry.type.value) for entry in image.e820]


def test_entry_is_virtual_when_segments_are() -> None:
    kernel = elf_file(bits=32, code=header1() + b"\xf4" * 16, vaddr=0xC000_0000, entry=0xC000_000C)
    assert start(kernel).cpu.rip == 2 * MIB + 12


def test_raw_image_version_1() -> None:
    kernel = header1(raw=True) + b"\xf4" * 100
    image = start(kernel)
    check_state(image, 0x2BADB002)
    assert image.cpu.rip == LOAD + 32
    assert helpers.memory_of(image, LOAD, len(kernel)) == kernel
    assert (LOAD + len(kernel), 8192 - len(kernel)) in image.zero


def test_modules(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "sec,ond"
    first.write_bytes(b"1" * 5000)
    second.write_bytes(b"2" * 10)
    initrd = f"{first} arg1 arg2,{str(second).replace(',', ',,')}"
    image = start(elf_file(bits=32, code=header1() + b"\xf4" * 16), initrd=initrd)
    info = info1(image)
    assert info[0] & 8
    assert info[5] == 2
    modules = struct.unpack("<8I", helpers.memory_of(image, info[6], 32))
    assert helpers.memory_of(image, modules[0], modules[1] - modules[0]) == b"1" * 5000
    assert helpers.memory_of(image, modules[4], modules[5] - modules[4]) == b"2" * 10
    assert modules[0] % 4096 == modules[4] % 4096 == 0
    assert helpers.string_at(image, modules[2]) == f"{first} arg1 arg2".encode()
    assert helpers.string_at(image, modules[6]) == str(second).encode()


def test_module_too_large() -> None:
    with pytest.raises(BootError, match=r"initrd of 127\.0 MiB \(module 0\) does not fit into -m 128M"):
        start(elf_file(bits=32, code=header1() + b"\xf4" * 16), initrd=bytes(127 * MIB))


def tags2(image: BootImage) -> dict[int, bytes]:
    address = image.cpu.gpr["rbx"]
    assert address % 8 == 0
    size = int.from_bytes(helpers.memory_of(image, address, 4), "little")
    data = helpers.memory_of(image, address, size)
    tags = {}
    offset = 8
    while offset < size:
        kind, length = struct.unpack_from("<II", data, offset)
        tags[kind] = data[offset + 8 : offset + length]
        offset += length + 7 & ~7
    assert offset == size
    return tags


@pytest.mark.parametrize("raw", [False, True])
def test_version_2(raw: bool) -> None:
    if raw:
        image = start(header2(raw=True) + b"\xf4" * 64, append="x=1", initrd=b"module")
        assert image.cpu.rip == LOAD + 64
    else:
        image = start(elf_file(code=header2() + b"\xf4" * 16), append="x=1", initrd=b"module")
    check_state(image, 0x36D76289)
    tags = tags2(image)
    assert tags[1] == b"kernel x=1\0"
    assert tags[2] == b"pyemu\0"
    begin, end = struct.unpack_from("<II", tags[3])
    assert helpers.memory_of(image, begin, end - begin) == b"module"
    assert struct.unpack("<II", tags[4]) == (639, RAM // 1024 - 1024)
    assert struct.unpack_from("<II", tags[6]) == (24, 0)
    entries = [struct.unpack_from("<QQII", tags[6], at) for at in range(8, len(tags[6]), 24)]
    assert entries == [(entry.start, entry.length, entry.type.value, 0) for entry in image.e820]
    assert tags[14].startswith(b"RSD PTR ")
    assert len(tags[14]) == 20
    assert len(tags[15]) == 36
    assert tags[0] == b""


def test_version_2_is_preferred() -> None:
    kernel = elf_file(code=header2() + header1() + b"\xf4" * 16)
    assert start(kernel).cpu.gpr["rax"] == 0x36D76289


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (elf_file(bits=32, code=header1(flags=0x13) + b"\xf4" * 16), "unknown features"),
        (header1() + b"\xf4" * 64, "not an ELF file"),
        (header1(raw=True)[:20], "truncated|no kernel"),
        (elf_file(code=header2(architecture=4) + b"\xf4" * 16), "architecture 4"),
        (elf_file(code=header2(struct.pack("<HHII", 1, 0, 12, 9)) + b"\xf4" * 16), "information 9"),
        (elf_file(code=header2(struct.pack("<HHI", 77, 0, 8)) + b"\xf4" * 16), "unknown tag 77"),
        (elf_file(code=header2(struct.pack("<HHI", 4, 0, 4)) + b"\xf4" * 16), "damaged multiboot 2"),
        (elf_file(code=header2() + b"\xf4" * 16, load=RAM), "does not provide"),
        (elf_file(code=header2() + b"\xf4" * 16, load=0xE0000), "overlaps ACPI tables"),
        (elf_file(code=header2() + b"\xf4" * 16, entry=0), "entry point 0x0 lies outside"),
    ],
    ids=helpers.short_id,
)
def test_refused(kernel: bytes, message: str) -> None:
    with pytest.raises(BootError, match=message):
        start(kernel)


def test_optional_tags_are_ignored() -> None:
    wish = struct.pack("<HHII", 1, 1, 12, 9)
    unknown = struct.pack("<HHI", 77, 1, 8)
    check_state(start(elf_file(code=header2(wish, unknown) + b"\xf4" * 16)), 0x36D76289)
