"""How fast a booted guest computes: the same commands typed at Linux's shell under pyemu and under QEMU's translator.

    python -m benchmarks.programs [--runs 3] [--only gzip,awk] [--variant interp="-accel interp"]

Each run boots one after the other and gives it all commands, so that a change in the host's speed hits both. The table
has the medians in seconds, and pyemu's as a multiple of QEMU's. The programs are busybox's.
"""

import argparse
import shlex
import shutil
import statistics
import sys
import time

from benchmarks.boot import table
from tests.linux_guests import images, initramfs, machines
from tests.linux_guests.console import Console, ConsoleError

BOOT_SECONDS, COMMAND_SECONDS = 120.0, 120.0
SETUP = (
    "mkdir -p /tmp; cd /tmp; i=0; while [ $i -lt 4000 ]; do echo \"$i line number $((i * 7919 % 4001)) of some text\";"
    " i=$((i+1)); done > text; cat text text text text text text text text > long;"
    " dd if=/dev/zero of=zero bs=1M count=16 2>/dev/null; gzip -c long > long.gz"
)
COMMANDS = {
    "shell loop": "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done",
    "processes": "i=0; while [ $i -lt 120 ]; do /bin/true; i=$((i+1)); done",
    "sha256sum": "sha256sum zero",
    "md5sum": "md5sum zero",
    "gzip": "gzip -c long > /dev/null",
    "gunzip": "i=0; while [ $i -lt 10 ]; do gunzip -c long.gz > /dev/null; i=$((i+1)); done",
    "sort": "sort -k 4 -n long > /dev/null",
    "grep": "grep -c 'number.*[13579] of.*xt$' long",
    "sed": "sed 's/\\([0-9]*\\) of/<\\1>/' long > /dev/null",
    "awk": "awk 'BEGIN { for (i = 0; i < 150000; i++) s += i % 7 * 1.5; print s }'",
    "bc": "echo '2^4000' | bc > /dev/null; echo 'scale=300; 4*a(1)' | bc -l > /dev/null",
    "copying": "i=0; while [ $i -lt 20 ]; do cat zero > copy; i=$((i+1)); done",
}


def measure(command: list[str], names: list[str]) -> dict[str, float]:
    """Boots, and gives the seconds that each command took."""
    times = {}
    with Console(command) as console:
        console.expect(initramfs.PROMPT, BOOT_SECONDS)
        console.shell(SETUP, COMMAND_SECONDS)
        for name in names:
            begin = time.monotonic()
            console.shell(COMMANDS[name], COMMAND_SECONDS)
            times[name] = time.monotonic() - begin
    return times


def main() -> int:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(description="Compare programs in a Linux guest under pyemu and QEMU.")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default=",".join(COMMANDS), help="some of the commands, between commas")
    parser.add_argument("--variant", metavar="NAME=OPTIONS", action="append", default=[], help="pyemu with options")
    arguments = parser.parse_args()
    names = arguments.only.split(",")
    if unknown := [name for name in names if name not in COMMANDS]:
        parser.error(f"no command {unknown[0]!r}: there are {', '.join(COMMANDS)}")
    if arguments.runs < 1:
        parser.error("--runs must be at least 1")
    if wrong := [variant for variant in arguments.variant if variant.find("=") < 1]:
        parser.error(f"--variant {wrong[0]}: not of the form NAME=OPTIONS")
    if not shutil.which(machines.QEMU[0]):
        parser.error(f"{machines.QEMU[0]} not found (on Debian: apt install qemu-system-x86)")
    try:
        guests = images.obtain()
        commands = {
            name: machines.command(machines.PYEMU, guests.cloud, guests.initrd, extra=shlex.split(options))
            for name, _, options in (variant.partition("=") for variant in ("pyemu=", *arguments.variant))
        }
        commands["qemu"] = machines.command(machines.QEMU, guests.cloud, guests.initrd)
        found: dict[str, list[dict[str, float]]] = {side: [] for side in commands}
        for _ in range(arguments.runs):
            for side, command in commands.items():
                found[side].append(measure(command, names))
    except (images.GuestsMissing, ConsoleError) as error:
        print(f"programs.py: {error}", file=sys.stderr)
        return 1
    others = [side for side in commands if side != "qemu"]
    rows = [["seconds", *commands, *(f"{side}/qemu" for side in others)]]
    for name in names:
        medians = {side: statistics.median(run[name] for run in runs) for side, runs in found.items()}
        ratios = [f"{medians[side] / medians['qemu']:.2f}" for side in others]
        rows.append([name, *(f"{seconds:.3f}" for seconds in medians.values()), *ratios])
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
