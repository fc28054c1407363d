"""Which file is what; and that nothing but a BootError of one line comes out of bad files."""

import contextlib
import errno
import gzip
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyemu.firmware import elf, flat
from pyemu.firmware.boot import BootRequest, prepare
from pyemu.firmware.boot_image import BootError, CpuMode
from pyemu.firmware.platform import Platform
from pyemu.firmware.probe import Kind, probe
from tests.firmware import helpers
from tests.firmware.helpers import MIB, RAM, bzimage, elf_file, note
from tests.firmware.test_multiboot import header1, header2

PVH_NOTE = note(b"Xen", 18, (2 * MIB).to_bytes(4, "little"))
SECTOR = b"\xeb\xfe".ljust(510, b"\0") + b"\x55\xaa"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (bzimage(), Kind.BZIMAGE),
        (elf_file(notes=PVH_NOTE), Kind.PVH),
        (elf_file(bits=32, notes=PVH_NOTE), Kind.PVH),
        (elf_file(bits=32, code=header1() + b"\xf4" * 16), Kind.MULTIBOOT),
        (elf_file(code=header2() + b"\xf4" * 16), Kind.MULTIBOOT),
        (elf_file(code=header1() + b"\xf4" * 16, notes=PVH_NOTE), Kind.MULTIBOOT),
        (elf_file(code=b"Linux version 6.1"), Kind.VMLINUX),
        (SECTOR, Kind.BOOT_SECTOR),
        (gzip.compress(elf_file(notes=PVH_NOTE), mtime=0), Kind.PVH),
    ],
)
def test_kinds(data: bytes, kind: Kind) -> None:
    assert probe(data, "kernel").kind is kind


def test_flat_image_goes_by_its_name() -> None:
    assert probe(b"\xf4" * 1000, "some.bin").kind is Kind.FLAT32
    with pytest.raises(BootError, match=r"must be named \*\.bin"):
        probe(b"\xf4" * 1000, "some")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (elf_file(), "ELF64 for x86-64 without a multiboot header or PVH note"),
        (elf_file(bits=32), "ELF32 for i386 without a multiboot header or PVH note"),
        (elf_file(bits=32, machine=40), "32-bit ARM"),
        (elf_file(machine=183), "64-bit ARM"),
        (elf_file(machine=243), "RISC-V"),
        (elf_file(machine=4711), "machine 4711"),
        (elf_file(file_type=1), "not an executable"),
        (elf_file()[:40], "truncated ELF"),
        (elf_file()[:80], "truncated ELF"),
        (elf_file(notes=PVH_NOTE)[:-1], "truncated ELF"),
        (b"\x7fELF\x02\x02".ljust(18, b"\0") + b"\0\x16".ljust(100, b"\0"), "S/390 .big-endian."),
        (bytes(0x38) + b"ARM\x64" + bytes(1000), "64-bit ARM"),
        (gzip.compress(bytes(0x38) + b"ARM\x64" + bytes(1000), mtime=0), "64-bit ARM"),
        (gzip.compress(b"no kernel" * 100, mtime=0), "gzip-compressed data, but no kernel inside"),
        (gzip.compress(elf_file(), mtime=0)[:-30], "truncated gzip data"),
        (b"QFI\xfb" + bytes(1000), "qcow2"),
        (b"070701" + b"0" * 1000, "initrd"),
        (b"#!/bin/sh\necho", "script"),
        (b"MZ" + bytes(1000), "EFI or DOS"),
        (SECTOR + bytes(512), "disk image"),
        (SECTOR[:300], "no kernel"),
        (b"\xff" * 5000, "not a kernel"),
    ],
    ids=helpers.short_id,
)
def test_refusals_name_what_it_is(data: bytes, message: str) -> None:
    with pytest.raises(BootError, match=message) as caught:
        probe(data, "kernel")
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    empty = tmp_path / "empty"
    empty.touch()
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(1 << 40)
    for path, message in (
        (tmp_path / "missing", "No such file"),
        (tmp_path, "Is a directory"),
        (fifo, "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
        (empty, "is empty"),
        (huge, "512 MiB is the most"),
    ):
        with pytest.raises(BootError, match=message):
            prepare(BootRequest(RAM, str(path)), Platform())
        with pytest.raises(BootError):
            prepare(BootRequest(RAM, bzimage(), initrd=str(path)), Platform())
    with pytest.raises(BootError, match="impossible file name"):
        prepare(BootRequest(RAM, "a\0b"), Platform())


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kernel"
    path.write_bytes(bzimage())
    path.chmod(0)
    if os.geteuid() == 0:  # root may read everything, so the system has to be asked for its refusal in another way

        def refuse(*_: object) -> int:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr("pyemu.firmware.boot.os.open", refuse)
    with pytest.raises(BootError, match=r"cannot read .*kernel: Permission denied"):
        prepare(BootRequest(RAM, str(path)), Platform())


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (BootRequest(0), "-m: 0 bytes"),
        (BootRequest(MIB), "-m"),
        (BootRequest(2 * MIB), "built-in guest needs 4 MiB"),
        (BootRequest(RAM, initrd=b"x"), "-initrd needs -kernel"),
        (BootRequest(RAM, bzimage(), bios=bytes(65536)), "exclude each other"),
        (BootRequest(RAM, bios=bytes(65536), append="x"), "need -kernel"),
        (BootRequest(RAM, SECTOR, append="x"), "boot sector takes neither"),
        (BootRequest(RAM, bzimage(), append="a\0b"), "NUL"),
    ],
    ids=helpers.short_id,
)
def test_impossible_requests(request_: BootRequest, message: str) -> None:
    with pytest.raises(BootError, match=message):
        prepare(request_, Platform())


def test_boot_sector() -> None:
    image = prepare(BootRequest(RAM, SECTOR), Platform())
    cpu = image.cpu
    assert cpu.mode is CpuMode.REAL
    assert (cpu.segments["cs"].selector, cpu.rip) == (0, 0x7C00)
    assert cpu.gpr["rdx"] == 0x80
    assert cpu.cr0 & 1 == 0
    assert helpers.memory_of(image, 0x7C00, 512) == SECTOR
    code, offsets = flat.bios_stub(Platform())
    vector = int.from_bytes(helpers.memory_of(image, 4 * 0x10, 4), "little")
    assert (vector >> 16 << 4) + (vector & 0xFFFF) == flat.BIOS_STUB + offsets["teletype"]
    assert helpers.memory_of(image, flat.BIOS_STUB, len(code)) == code


def test_flat_image(tmp_path: Path) -> None:
    path = tmp_path / "flat.bin"
    path.write_bytes(b"\xf4" * 777)
    image = prepare(BootRequest(RAM, str(path)), Platform())
    assert image.cpu.mode is CpuMode.PROTECTED32
    assert image.cpu.rip == MIB
    assert helpers.memory_of(image, MIB, 777) == b"\xf4" * 777


@pytest.mark.parametrize("size", [64 << 10, 128 << 10, 256 << 10, 4 * MIB])
def test_rom(size: int) -> None:
    rom = bytes(index >> 16 & 0xFF for index in range(0, size, 1 << 16)) * (1 << 16)
    image = prepare(BootRequest(RAM, bios=rom), Platform())
    (top, contents), (alias, low) = image.roms
    assert (top, contents) == ((1 << 32) - size, rom)
    assert alias + len(low) == MIB
    assert low == rom[-(128 << 10) :]
    assert image.cpu.segments["cs"].selector == 0xF000
    assert image.cpu.segments["cs"].base + image.cpu.rip == 0xFFFF_FFF0
    assert image.cpu.cr0 == 0x6000_0010


@pytest.mark.parametrize("size", [1, 1000, 65535, 17 * MIB])
def test_rom_of_a_wrong_size(size: int) -> None:
    with pytest.raises(BootError, match="-bios"):
        prepare(BootRequest(RAM, bios=bytes(size)), Platform())


SAMPLES = (
    bzimage(),
    bzimage(xloadflags=0, relocatable=0),
    bzimage(payload=helpers.xz_payload(elf_file(load=16 * MIB))),
    elf_file(notes=PVH_NOTE),
    elf_file(bits=32, notes=PVH_NOTE),
    elf_file(bits=32, code=header1() + b"\xf4" * 16),
    elf_file(code=header2() + b"\xf4" * 16),
    header1(raw=True) + b"\xf4" * 64,
    header2(raw=True) + b"\xf4" * 64,
    elf_file(code=b"Linux version 6.1"),
    gzip.compress(elf_file(notes=PVH_NOTE), mtime=0),
)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_damaged_files_start_or_are_refused(data: st.DataObject) -> None:
    """Whatever happens to a kernel on its way: it is prepared consistently, or there is a BootError of one line."""
    sample = bytearray(data.draw(st.sampled_from(SAMPLES)))
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, min(len(sample), 0x2A0) - 1))
        new = data.draw(st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from([b"\xff" * 8, b"\0" * 8])))
        sample[at : at + len(new)] = new
    kernel = bytes(sample[: data.draw(st.one_of(st.just(len(sample)), st.integers(0, len(sample))))])
    request = BootRequest(RAM, kernel, initrd=b"initrd", append="x", unpack=data.draw(st.booleans()))
    message = "fine"
    try:
        helpers.check_consistent(prepare(request, Platform()), RAM)
    except BootError as error:
        message = str(error)
    assert message
    assert "\n" not in message


@given(st.binary(max_size=300))
def test_notes_of_hostile_files(content: bytes) -> None:
    header = elf.ProgramHeader(elf.SEGMENT_NOTE, 0, 0, 0, len(content), 0, 4)
    image = elf.Elf(content, True, elf.MACHINE_X86_64, 0, (header,))
    assert sum(len(description) for _, _, description in image.notes()) <= len(content)


@given(st.binary(max_size=2000), st.sampled_from(["kernel", "kernel.bin"]))
def test_any_bytes(content: bytes, name: str) -> None:
    with contextlib.suppress(BootError):
        probe(content, name)
