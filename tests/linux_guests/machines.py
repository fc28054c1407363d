"""Command lines that start a guest under pyemu and under QEMU, made from the same arguments."""

import sys
from collections.abc import Sequence
from pathlib import Path

PYEMU = (sys.executable, "-m", "pyemu")
QEMU = ("qemu-system-x86_64", "-accel", "tcg")
MEMORY_MIB = 512
APPEND = "console=ttyS0"


def command(
    emulator: Sequence[str],
    kernel: Path | str,
    initrd: Path | str,
    *,
    append: str = APPEND,
    memory_mib: int = MEMORY_MIB,
    extra: Sequence[str] = (),
) -> list[str]:
    """One vCPU, the serial port on stdio, and an end instead of a reboot."""
    machine = ["-m", str(memory_mib), "-smp", "1", "-nographic", "-no-reboot"]
    return [*emulator, *machine, *extra, "-kernel", str(kernel), "-initrd", str(initrd), "-append", append]


def rom_command(emulator: Sequence[str], rom: Path | str, extra: Sequence[str] = ()) -> list[str]:
    """One vCPU and 128 MiB that start from a ROM."""
    return [*emulator, "-m", "128", "-smp", "1", *extra, "-bios", str(rom)]
