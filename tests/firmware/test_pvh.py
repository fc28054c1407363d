"""The PVH entry."""

import struct

import pytest

from pyemu.firmware.boot import BootRequest, prepare
from pyemu.firmware.boot_image import BootError, CpuMode
from pyemu.firmware.platform import Platform
from tests.firmware import helpers
from tests.firmware.helpers import MIB, RAM, elf_file, note


@pytest.mark.parametrize("size", [4, 8])
def test_start(size: int) -> None:
    kernel = elf_file(
        notes=note(b"GNU", 3, b"12345") + note(b"Xen", 18, (2 * MIB + 4).to_bytes(size, "little")), memory_size=MIB
    )
    image = prepare(BootRequest(RAM, kernel, initrd=b"initrd", append="a=b"), Platform())
    helpers.check_consistent(image, RAM)
    cpu = image.cpu
    assert cpu.mode is CpuMode.PROTECTED32
    assert cpu.rip == 2 * MIB + 4
    assert (cpu.cr0, cpu.cr4, cpu.rflags) == (0x11, 0, 2)
    assert cpu.segments["cs"].access == 0xC09B
    assert cpu.segments["tr"].access == 0x8B
    assert cpu.segments["tr"].limit == 0x67
    info = struct.unpack("<IIIIQQQQII", helpers.memory_of(image, cpu.gpr["rbx"], 56))
    magic, version, flags, modules, modlist, cmdline, rsdp, memmap, entries, _ = info
    assert (magic, version, flags, modules) == (0x336EC578, 1, 0, 1)
    address, length, _, _ = struct.unpack("<4Q", helpers.memory_of(image, modlist, 32))
    assert helpers.memory_of(image, address, length) == b"initrd"
    assert helpers.string_at(image, cmdline) == b"a=b"
    assert helpers.memory_of(image, rsdp, 8) == b"RSD PTR "
    found = [struct.unpack("<QQII", helpers.memory_of(image, memmap + 24 * at, 24)) for at in range(entries)]
    assert found == [(entry.start, entry.length, entry.type.value, 0) for entry in image.e820]


def test_without_initrd() -> None:
    kernel = elf_file(bits=32, notes=note(b"Xen", 18, (2 * MIB).to_bytes(4, "little")))
    image = prepare(BootRequest(RAM, kernel), Platform())
    assert struct.unpack("<IIIIQ", helpers.memory_of(image, image.cpu.gpr["rbx"], 24))[3:] == (0, 0)


def test_entry_outside() -> None:
    kernel = elf_file(notes=note(b"Xen", 18, (64 * MIB).to_bytes(4, "little")))
    with pytest.raises(BootError, match="PVH entry point lies outside"):
        prepare(BootRequest(RAM, kernel), Platform())
