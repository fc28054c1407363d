"""GRUB as a ROM and as a multiboot kernel reaches its prompt, where its commands work.

`pytest tests/guests_boot --emulator qemu` runs the same tests against QEMU.
"""

from pathlib import Path

import pytest

from tests.linux_guests import grub, images, machines
from tests.linux_guests.console import Console
from tests.linux_guests.screen import Screen

START_SECONDS = 120.0
COMMAND_SECONDS = 30.0
MEMORY_MIB = 128
USED_MIB = 112  # of it by GRUB: firmware may have tables at the end


def test_multiboot_kernel(emulator: tuple[str, ...], tmp_path: Path) -> None:
    kernel = grub.build(images.file("grub-coreboot"), tmp_path, USED_MIB << 20)
    command = [*emulator, "-m", str(MEMORY_MIB), "-nographic", "-no-reboot", "-kernel", str(kernel)]
    with Console(command, tmp_path / "console.log") as console:
        console.expect(r"GNU GRUB  version \d", START_SECONDS)
        console.expect("grub> ", COMMAND_SECONDS)
        console.send("lsmmap\n")
        console.expect("base_addr = 0x100000, length = 0x6f00000, available", COMMAND_SECONDS)
        console.send("write_dword 0x3000000 0xfedc; read_word 0x3000000\n")
        console.expect("^0xfedc$", COMMAND_SECONDS)
        console.send("if cpuid -l; then echo long mode; fi\n")
        console.expect("^long mode$", COMMAND_SECONDS)
        console.expect("grub> ", COMMAND_SECONDS)
        console.send("halt\n")  # by ACPI: it looks for _S5 in the DSDT itself
        assert console.finish(COMMAND_SECONDS) == 0


@pytest.mark.long
def test_rom_with_screen_and_keyboard(emulator: tuple[str, ...]) -> None:
    command = machines.rom_command(emulator, images.file("grub-rom"), ("-no-reboot",))
    with Screen(command) as screen:
        # It looks for kernels on disks that aren't there, says so for each, and then shows its menu.
        while screen.expect("^Press any key to continue|GNU GRUB  version", START_SECONDS)[0].startswith("Press"):
            screen.press("a")
        screen.press("c")
        screen.expect("^ *grub> ?$", COMMAND_SECONDS)
        screen.type("echo 2.06 is old\n")
        screen.expect("^ *2.06 is old$", COMMAND_SECONDS)
        screen.type("lsmmap\n")
        screen.expect("base_addr = 0x100000, length = 0x7f00000, available", COMMAND_SECONDS)
