"""The programs that judge pyemu from outside, and the Debian packages that they come from.

`python -m tests.judges`, a step of tests/run, sees to it that all of them are there: where it runs as root on a Debian
it installs what is missing, otherwise it says what to install. A test asks for a program with `require` and fails with
the same words where it isn't there: a test that quietly skips judges nothing. Guests are not installed but unpacked
into a cache directory: see tests/linux_guests/.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# What is called, and where it comes from. The only list: tests/run, the tests and the docs refer to it.
PACKAGES = {
    "qemu-system-x86_64": "qemu-system-x86",  # another emulator: runs the same guests
    "iasl": "acpica-tools",  # Intel's ACPI compiler: reads our tables
    "bochs": "bochs",  # a third emulator, for what QEMU's TCG does not emulate or gets wrong
    "gdb": "gdb",  # the debugger that our server is for
    "grub-mkimage": "grub-common",  # makes the GRUB that tests boot
    "gcc": "build-essential",  # makes the programs that judge from inside a guest
}
INSTALL = ("apt-get", "install", "-y", "-q", "--no-install-recommends")


def missing(programs: dict[str, str] | None = None) -> dict[str, str]:
    """The programs that are not there, with their packages."""
    wanted = PACKAGES if programs is None else programs
    return {program: package for program, package in wanted.items() if shutil.which(program) is None}


def advice(programs: dict[str, str]) -> str:
    """One line that says what to install."""
    packages = " ".join(sorted(set(programs.values())))
    return f"not found: {', '.join(programs)}; install them, on Debian: apt-get install {packages}"


def require(program: str) -> str:
    """The path of a program of the list; the test that asks fails where it isn't installed."""
    path = shutil.which(program)
    if path is None:
        pytest.fail(advice({program: PACKAGES[program]}), pytrace=False)
    return path


def _apt(*command: str) -> str:
    """Runs a command of apt's; the last thing that it complained about, or nothing."""
    environment = os.environ | {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    return (done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}").splitlines()[-1]


def install(packages: list[str]) -> str:
    """Installs Debian packages, with new package lists if the old ones don't do. The reason if that failed."""
    complaint = _apt(*INSTALL, *packages)
    if complaint:
        _apt("apt-get", "update", "-q")  # its own status may be about another source than we need
        complaint = _apt(*INSTALL, *packages)
    return complaint


def main() -> int:
    """Exit status 1, with an explanation, if a program isn't there in the end."""
    wanted = missing()
    if wanted and os.geteuid() == 0 and shutil.which("apt-get"):
        packages = sorted(set(wanted.values()))
        print(f"installing {' '.join(packages)}", file=sys.stderr, flush=True)
        complaint = install(packages)
        if complaint:
            print(f"apt-get: {complaint}", file=sys.stderr)
        wanted = missing()
    if wanted:
        print(f"judges {advice(wanted)}", file=sys.stderr)
        return 1
    for program in PACKAGES:
        print(f"{program:20} {Path(shutil.which(program) or '')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
