"""Firmware that isn't ours starts from its reset vector and does what it does on a PC without disks.

`pytest tests/guests_boot --emulator qemu` runs the same tests against QEMU.
"""

import re
import zlib
from pathlib import Path

import pytest

from tests.linux_guests import images, machines
from tests.linux_guests.console import Console

START_SECONDS = 120.0
COMMAND_SECONDS = 30.0
SEABIOS_CONSOLE = ("-debugcon", "stdio", "-global", "isa-debugcon.iobase=0x402", "-display", "none", "-nodefaults")


@pytest.mark.parametrize(("machine", "rom"), [("pc", "seabios-128k"), ("pc", "seabios-256k"), ("q35", "seabios-256k")])
def test_seabios_sets_the_machine_up_and_finds_nothing_to_boot(
    machine: str, rom: str, emulator: tuple[str, ...]
) -> None:
    with Console(machines.rom_command(emulator, images.file(rom), ("-M", machine, *SEABIOS_CONSOLE))) as console:
        console.expect(r"^SeaBIOS \(version ", START_SECONDS)
        console.expect(r"^No bootable device\.$", START_SECONDS)
        said = console.text
    assert re.search(r"^Running on QEMU \((i440fx|q35)\)$", said, re.MULTILINE)
    for line in (
        r"qemu/e820: addr 0x0000000000000000 len 0x0000000008000000 \[RAM\]",
        r"Relocating init from 0x\w+ to 0x06\w+ \(size \d+\)",  # it runs from RAM from here on
        r"PIIX3/PIIX4 init: elcr=00 0c|Q35 LPC init: elcr=00 0c",
        r"Using pmtimer, ioport 0x\w+",
        r"Found 1 cpu\(s\) max supported 1 cpu\(s\)",
        r"Copying PIR from 0x\w+ to 0x000f\w+",
        r"PS2 keyboard initialized",
        r"All threads complete\.",
        r"Booting from Hard Disk\.\.\.",
    ):
        assert re.search(f"^{line}$", said, re.MULTILINE), line
    assert "WARNING" not in said


@pytest.mark.parametrize("rom", ["u-boot-x86", "u-boot-x86_64"])
def test_u_boot_gives_a_prompt_whose_commands_work(rom: str, emulator: tuple[str, ...], tmp_path: Path) -> None:
    command = machines.rom_command(emulator, images.file(rom), ("-nographic", "-no-reboot"))
    with Console(command, tmp_path / "console.log") as console:
        console.expect("U-Boot 20", START_SECONDS)
        console.expect("DRAM:  128 MiB", START_SECONDS)
        console.expect("Hit any key to stop autoboot", START_SECONDS)
        console.send("x")
        console.expect("=> ", COMMAND_SECONDS)
        # A kilobyte of a pattern, of which we know the checksum.
        console.send("mw.l 1000000 12345678 100\n")
        console.expect("=> ", COMMAND_SECONDS)
        console.send("crc32 1000000 400\n")
        found = console.expect(r"crc32 for 01000000 ... 010003ff ==> (\w+)", COMMAND_SECONDS)
        assert int(found[1], 16) == zlib.crc32((0x12345678).to_bytes(4, "little") * 0x100)
        console.expect("=> ", COMMAND_SECONDS)
        console.send("reset\n")
        assert console.finish(COMMAND_SECONDS) == 0
