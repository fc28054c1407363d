"""Debian's kernels, unmodified, boot to a shell that takes typed input, and power off cleanly.

`pytest tests/guests_boot --emulator qemu` runs the same tests against QEMU.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import judges
from tests.linux_guests import images, initramfs, machines
from tests.linux_guests.bootlog import trouble, without_expected
from tests.linux_guests.console import Console
from tests.linux_guests.images import Guests

BOOT_SECONDS = 180.0
COMMAND_SECONDS = 60.0


@dataclass(frozen=True)
class Flavour:
    """One of Debian's kernels."""

    suffix: str  # of its release
    is_32bit: bool = False  # its programs are
    in_ci: bool = True
    kernel: str = ""  # name of its file, if that is another


FLAVOURS = {
    "cloud": Flavour("-cloud-amd64"),
    "cloud-compatibility": Flavour("-cloud-amd64", is_32bit=True, kernel="cloud"),  # compatibility mode
    "generic": Flavour("-amd64"),
    "rt": Flavour("-rt-amd64"),
    "686": Flavour("-686", is_32bit=True, in_ci=False),  # page tables of two levels
    "686-pae": Flavour("-686-pae", is_32bit=True),
}


def boot_log(command: list[str], seconds: float = BOOT_SECONDS) -> tuple[str, int]:
    """Runs a guest that needs no typing to its end; its log and the emulator's status."""
    with Console(command) as console:
        status = console.finish(seconds)
        return console.text, status


def unexpected_trouble(log: str, kernel: Path, initrd: Path) -> list[str]:
    """Lines of trouble in the log that QEMU's log of the same files doesn't have."""
    lines = trouble(log)
    if not lines:
        return lines
    judges.require(machines.QEMU[0])
    reference, _ = boot_log(
        machines.command(machines.QEMU, kernel, initrd, append=f"{machines.APPEND} rdinit=/scripted")
    )
    return without_expected(lines, trouble(reference))


@pytest.mark.slow
@pytest.mark.xdist_group("linux")
@pytest.mark.parametrize(
    "name", [n if f.in_ci else pytest.param(n, marks=pytest.mark.long) for n, f in FLAVOURS.items()]
)
def test_kernel_reaches_a_shell_that_works_and_powers_off(
    name: str, emulator: tuple[str, ...], guests: Guests, tmp_path: Path
) -> None:
    flavour = FLAVOURS[name]
    kernel = images.file(flavour.kernel or name)
    initrd = images.initrd_i386() if flavour.is_32bit else guests.initrd
    with Console(machines.command(emulator, kernel, initrd), log=tmp_path / "console.log") as console:
        console.expect(rf"^{initramfs.READY}$", BOOT_SECONDS)
        console.expect(initramfs.PROMPT, COMMAND_SECONDS)

        cpuinfo = console.shell("cat /proc/cpuinfo", COMMAND_SECONDS)
        assert cpuinfo.count("processor\t:") == 1
        flags = next(line for line in cpuinfo.splitlines() if line.startswith("flags")).split()
        assert {"fpu", "tsc", "pae", "apic", "sse2", "syscall", "nx", "lm"} <= set(flags)

        assert console.shell(initramfs.LOOP, COMMAND_SECONDS).strip() == "looped 20000"
        digest = console.shell(f"sha256sum {initramfs.KNOWN_FILE}", COMMAND_SECONDS)
        assert digest.split() == [initramfs.KNOWN_DIGEST, initramfs.KNOWN_FILE]

        log = console.shell("dmesg", COMMAND_SECONDS)
        assert re.search(rf"^(<\d+>)?\[ +0\.0+\] Linux version [0-9.-]+{flavour.suffix} ", log, re.MULTILINE)
        assert f"ommand line: {machines.APPEND}" in log

        console.send("poweroff -f\n")
        assert console.finish(COMMAND_SECONDS) == 0
        everything = console.text
    assert "Power down" in everything
    assert unexpected_trouble(log + everything, kernel, initrd) == []


@pytest.mark.slow
@pytest.mark.xdist_group("linux")
def test_control_c_interrupts_the_guests_command_and_not_the_emulator(
    emulator: tuple[str, ...], guests: Guests
) -> None:
    with Console(machines.command(emulator, guests.cloud, guests.initrd)) as console:
        console.expect(initramfs.PROMPT, BOOT_SECONDS)
        # In a shell of its own: the interactive one loses a ^C that comes between its fork and the exec of sleep.
        console.send("sh -c 'echo started-$((1)); sleep 1000'\n")
        console.expect("started-1\n", COMMAND_SECONDS)
        console.send("\x03")
        assert console.shell("echo still here", COMMAND_SECONDS) == "still here\n"
        console.send("\x01x")
        console.finish(COMMAND_SECONDS)


@pytest.mark.slow
@pytest.mark.xdist_group("linux")
def test_scripted_boot_prints_the_right_digest_and_ends(emulator: tuple[str, ...], guests: Guests) -> None:
    log, status = boot_log(
        machines.command(emulator, guests.cloud, guests.initrd, append=f"{machines.APPEND} rdinit=/scripted")
    )
    assert status == 0
    assert f"{initramfs.KNOWN_DIGEST}  {initramfs.KNOWN_FILE}\n" in log
    ready, done = log.index(f"{initramfs.READY}\n"), log.index(f"{initramfs.DONE}\n")
    assert ready < log.index("looped 20000\n") < done
