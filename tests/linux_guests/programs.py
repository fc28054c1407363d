"""Runs many static programs in one boot: packs them into an initramfs around busybox, boots, and tells how they end.

A program that has a known output (what it prints on the host, say) ends well if it prints that and has that status;
any other ends well with status 0. Where programs come from, and what their results mean, is none of this module's
business: see `suites`, and tests/guests_boot/test_programs.py.
"""

import gzip
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.linux_guests import machines
from tests.linux_guests.console import Console
from tests.linux_guests.cpio import CpioWriter

END = "programs-done"
PROGRAM_SECONDS = 60
REPORTED_LINES = 12  # of a program that didn't end well
_COMMANDS = ("cat", "cmp", "diff", "dmesg", "echo", "head", "mount", "poweroff", "rm", "sed", "sh", "tail", "timeout")
_BY_SIGNAL = 128  # a shell's status for a program that a signal ended: this and the signal

# `timeout` replaces itself by the program, whose parent is this shell. What a program wrote comes before its result,
# each line marked. What the kernel logs of a program that a signal ends would spoil those lines: dmesg -n 1.
_INIT = f"""\
#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
dmesg -n 1
cd /tmp
while read name seconds; do
    timeout -s KILL $seconds /programs/$name </dev/null >out 2>err
    status=$?
    if [ -f /expected/$name ]; then
        echo "status $status" >>out
        if cmp -s out /expected/$name; then result=good; else result=differs; fi
    elif [ $status = 0 ]; then result=good
    else result=failed; fi
    if [ $result = differs ]; then diff -U 0 /expected/$name out | head -n {REPORTED_LINES} | sed 's/^/| /'
    elif [ $result = failed ]; then cat out err | tail -n {REPORTED_LINES} | sed 's/^/| /'; fi
    echo "program $name $status $result"
    rm -f out err
done </list
echo {END}
poweroff -f
"""
_RESULT = re.compile(r"program (\S+) (\d+) (\w+)")


@dataclass(frozen=True)
class Program:
    """A static program, and what is known about it."""

    path: Path
    expected: bytes | None = None  # its output, and in a last line its status
    seconds: int = PROGRAM_SECONDS

    @property
    def name(self) -> str:
        """What it is called in the guest, too."""
        return self.path.name


@dataclass(frozen=True)
class Result:
    """How a program ended."""

    good: bool
    text: str  # its status, and if it didn't end well the lines that tell why


def on_host(path: Path, seconds: int = PROGRAM_SECONDS) -> Program:
    """The program with the output that it has when it runs here, on the host's own processor."""
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(
            ["setarch", "--addr-no-randomize", path], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, cwd=directory, env={"PATH": "/bin"}, timeout=PROGRAM_SECONDS, check=False,
        )  # fmt: skip
    status = done.returncode if done.returncode >= 0 else _BY_SIGNAL - done.returncode
    return Program(path, done.stdout + f"status {status}\n".encode(), seconds)


def pack(programs: Sequence[Program], busybox: Path) -> bytes:
    """The compressed initramfs that runs the programs one after the other and powers off."""
    archive = CpioWriter()
    for directory in ("bin", "dev", "expected", "proc", "programs", "sys", "tmp"):
        archive.directory(directory)
    archive.character_device("dev/console", 5, 1)  # what process 1 writes to
    archive.file("bin/busybox", busybox.read_bytes(), 0o755)
    for command in _COMMANDS:
        archive.symlink(f"bin/{command}", "busybox")
    for program in programs:
        archive.file(f"programs/{program.name}", program.path.read_bytes(), 0o755)
        if program.expected is not None:
            archive.file(f"expected/{program.name}", program.expected)
    archive.file("list", "".join(f"{program.name} {program.seconds}\n" for program in programs).encode())
    archive.file("init", _INIT.encode(), 0o755)
    return gzip.compress(archive.finish(), compresslevel=1, mtime=0)


def run(
    emulator: Sequence[str], kernel: Path, initrd: Path, *, seconds: float, extra: Sequence[str] = ()
) -> dict[str, Result]:
    """Boots, and returns how each program ended, by name."""
    command = machines.command(
        emulator, kernel, initrd, append=f"{machines.APPEND} quiet panic=-1", memory_mib=1024, extra=extra
    )
    with Console(command) as console:
        console.expect(rf"^{END}$", seconds)
        console.finish(seconds)
        return results(console.text)


def results(text: str) -> dict[str, Result]:
    """What the init script has reported."""
    found: dict[str, Result] = {}
    told: list[str] = []
    for line in text.splitlines():
        if match := _RESULT.fullmatch(line):
            name, status, result = match.groups()
            found[name] = Result(result == "good", "\n".join([f"{result}, status {status}", *told]))
            told = []
        elif line.startswith("| "):
            told.append(line)
    return found
