"""What hooks cost: boots Debian's cloud kernel plain, recording coverage, and with hooks whose conditions never hold.

    python -m benchmarks.hooks [--runs N]

Each boot is a process of its own, in turn; the numbers are medians of its processor time, so that other programs
count less. Addresses are kernel symbols, so the kernel starts unpacked and without KASLR.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from pyemu.machine import Machine
from tests.linux_guests import images

APPEND = "console=ttyS0 nokaslr rdinit=/scripted"


def coverage(machine: Machine) -> Callable[[], str]:
    recording = machine.coverage()
    return lambda: f"{len(recording.blocks)} blocks"


def edges(machine: Machine) -> Callable[[], str]:
    recording = machine.coverage(edges=True)
    return lambda: f"{sum(map(bool, recording.edges))} edges of the map"


def code(machine: Machine) -> Callable[[], str]:
    """At the kernel's memcpy, which is called 100,000 times in a boot."""
    hook = machine.breakpoint("memcpy", "rdx == 0x123456789", action=print)
    return lambda: f"{hook.hits} hits"


def memory(machine: Machine) -> Callable[[], str]:
    """Of a page that the kernel uses all the time: what jiffies, among others, lies in."""
    page = (machine.symbols.address("jiffies_64") or 0) & ~0xFFF
    hook = machine.hook_memory(print, page, page + 0x1000, "rw", "value == 0x123456789abcdef")
    return lambda: f"{hook.hits} hits"


def exceptions(machine: Machine) -> Callable[[], str]:
    hooks = [machine.hook_exception(lambda _: None), machine.hook_syscall(lambda _: None)]
    return lambda: f"{hooks[0].hits} exceptions, {hooks[1].hits} system calls, each in Python"


KINDS: dict[str, Callable[[Machine], Callable[[], str]]] = {
    "plain": lambda machine: lambda: f"{machine.instructions / 1e6:.0f} million instructions",
    "coverage of blocks": coverage,
    "coverage of edges": edges,
    "conditional code hook": code,
    "conditional memory hook": memory,
    "exceptions and system calls": exceptions,
}


def boot(kind: str) -> None:
    """One boot, in this process: its seconds, and what was seen."""
    guests = images.obtain()
    with Machine(
        kernel=str(guests.cloud), initrd=str(guests.initrd), append=APPEND, memory="512M", unpack_kernel=True
    ) as machine:
        machine.symbols.from_kallsyms()
        machine.prepare()
        report = KINDS[kind](machine)
        started = time.process_time()
        stop = machine.run(until="guest-is-done", timeout=300)
        assert stop.condition is not None, stop
        print(f"{time.process_time() - started} {report()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--boot", choices=KINDS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.boot:
        boot(arguments.boot)
        return
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    seen: dict[str, str] = {}
    for _ in range(arguments.runs):
        for kind in KINDS:
            command = [sys.executable, "-m", "benchmarks.hooks", "--boot", kind]
            words = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split(maxsplit=1)
            seconds[kind].append(float(words[0]))
            seen[kind] = words[1].strip()
    plain = statistics.median(seconds["plain"])
    for kind, all_ in seconds.items():
        median = statistics.median(all_)
        print(f"{kind:28} {median:6.2f} s  {median / plain:5.2f}  {seen[kind]}")


if __name__ == "__main__":
    main()
