"""The built-in guest, as an image, and run by an emulator that isn't ours."""

import struct
import subprocess
from pathlib import Path

import capstone
import pytest

from pyemu.firmware import builtin_guest, multiboot
from pyemu.firmware.boot import BootRequest, prepare
from pyemu.firmware.boot_image import BootError
from pyemu.firmware.platform import Platform
from tests import judges
from tests.firmware import helpers
from tests.firmware.helpers import MIB, RAM


def test_image_is_a_multiboot_kernel() -> None:
    image = builtin_guest.assemble(Platform())
    header = multiboot.find_header(image)
    assert header is not None
    assert header.raw is not None
    assert header.raw.load_end == builtin_guest.KERNEL_BASE + len(image)
    assert header.raw.bss_end == builtin_guest.FRAMES_END


def test_prepared() -> None:
    image = prepare(BootRequest(RAM, append="selftest"), Platform())
    helpers.check_consistent(image, RAM)
    assert image.description == "built-in guest: 32-bit entry at 0x100020"
    info = struct.unpack("<5I", helpers.memory_of(image, image.cpu.gpr["rbx"], 20))
    assert helpers.string_at(image, info[4]) == b"selftest"


def test_too_little_memory() -> None:
    with pytest.raises(BootError, match="needs 4 MiB"):
        prepare(BootRequest(3 * MIB), Platform())


def test_the_assembler_understood_the_special_instructions() -> None:
    """Keystone accepts some wrong things silently; what it made is read back by another tool."""
    code = builtin_guest.assemble(Platform())
    found = set()
    disassembler = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    for offset in range(len(code)):
        for instruction in disassembler.disasm(code[offset : offset + 15], builtin_guest.KERNEL_BASE + offset, 1):
            found.add((instruction.mnemonic, instruction.op_str))
    assert {("sysretq", ""), ("iretq", ""), ("syscall", ""), ("ltr", "ax"), ("hlt", ""), ("mov", "rdi, cr2")} <= found


def test_addresses_come_from_the_platform() -> None:
    other = Platform(pm1a_control=0xB004, com1_port=0x2F8, s5_sleep_type=5)
    assert ".set PM1A_CONTROL, 0xb004" in builtin_guest.source(other)
    assert ".set SLEEP_VALUE, 0x3400" in builtin_guest.source(other)
    assert builtin_guest.assemble(other) != builtin_guest.assemble(Platform())


@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_selftest_in_qemu(machine: str, tmp_path: Path) -> None:
    """The self-test is right about a processor that is known to be good."""
    qemu = judges.require("qemu-system-x86_64")
    path = tmp_path / "guest"
    path.write_bytes(builtin_guest.assemble(Platform()))
    run = subprocess.run(
        [qemu, "-accel", "tcg", "-M", machine, "-m", "16", "-display", "none", "-serial", "stdio",
         "-no-reboot", "-kernel", path, "-append", "selftest"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "\nselftest: ok\n" in run.stdout.replace("\r", "")
