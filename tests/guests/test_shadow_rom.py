"""A ROM that shadows itself, on each back end and each board: what it reads, writes and executes in every state."""

import functools
import struct
import subprocess
import sys
from pathlib import Path

import keystone
import pytest

SIZE = 0x10000
COM1, DEBUG_EXIT = 0x3F8, 0xF4
PAM = {"pc": 0x59, "q35": 0x90}
SECONDS = 90.0  # the first start builds the native code


@functools.cache
def rom(pam: int) -> bytes:
    """The ROM for a host bridge whose register for the BIOS area is `pam`."""
    lines = Path(__file__).with_name("shadow_rom.asm").read_text().splitlines()
    constants = {
        "COM1": COM1,
        "DEBUG_EXIT": DEBUG_EXIT,
        "PAM_ADDRESS": 0x8000_0000 | pam & ~3,
        "PAM_DATA": 0xCFC + pam % 4,
    }
    text = "\n".join(
        [*(f".set {name}, {value:#x}" for name, value in constants.items()), *(line.split("#", 1)[0] for line in lines)]
    )
    code, _ = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_16).asm(text, 0, as_bytes=True)
    assert code is not None
    reset = b"\xea" + struct.pack("<HH", 0, 0xF000)  # jmp 0xf000:0, into the copy below 1 MiB
    return bytes(code).ljust(SIZE - 16, b"\0") + reset.ljust(16, b"\0")


@pytest.mark.parametrize("accelerator", ["jit", "interp", "reference"])
@pytest.mark.parametrize("machine", sorted(PAM))
def test_what_is_read_written_and_executed(machine: str, accelerator: str, tmp_path: Path) -> None:
    path = tmp_path / "rom"
    path.write_bytes(rom(PAM[machine]))
    done = subprocess.run(
        [sys.executable, "-m", "pyemu", "-M", machine, "-accel", accelerator, "-bios", path, "-serial", "stdio",
         "-monitor", "none", "-device", f"isa-debug-exit,iobase={DEBUG_EXIT:#x},iosize=4", "-m", "2"],
        capture_output=True, stdin=subprocess.DEVNULL, text=True, timeout=SECONDS,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("rrR1RrR!", 1), done.stderr
