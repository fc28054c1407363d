"""How long Linux takes to boot, run a few commands and power off: pyemu beside QEMU's translator.

    python benchmarks/boot.py [--kernel generic] [--runs 5] [--cold] [--variant unpacked="..."]

Both run the same files with the same arguments (kernel address randomisation on, 512 MiB, one vCPU), in turn, so that
a change in the host's speed hits both. The table has medians; the command of each side is printed, to be run by hand.
pyemu runs once before, unmeasured, to warm its code cache; `--cold` also measures that: a start with no cache at all.
"""

import argparse
import json
import os
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
APPEND = "console=ttyS0 rdinit=/scripted"
MEMORY_MIB = 512
STATISTICS = "PYEMU_STATS"  # names the file to which pyemu writes its counters when it ends
SAMPLE_SECONDS = 0.05
PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024
READY, DONE, LOOPED = b"guest-is-ready", b"guest-is-done", b"looped 20000"
BASELINE = "qemu"


class BenchmarkError(Exception):
    """A run that can't be counted."""


@dataclass
class Run:
    """One measured boot."""

    to_user_space: float  # seconds from the start of the process to the guest's first own line
    total: float  # ... to its exit
    cpu: float  # seconds of processor time of the process and all its children
    peak_mib: float  # resident memory of the process tree at its highest


@dataclass
class Side:
    """One of the programs that are compared."""

    name: str
    command: list[str]
    runs: list[Run] = field(default_factory=list)

    def median(self, attribute: str) -> float:
        """The median over the runs."""
        return float(statistics.median(getattr(run, attribute) for run in self.runs))


def process_tree(pid: int) -> Iterator[int]:
    """A process and all that descend from it."""
    yield pid
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return
    for thread in threads:
        try:
            children = Path(f"/proc/{pid}/task/{thread}/children").read_text().split()
        except OSError:
            continue
        for child in children:
            yield from process_tree(int(child))


def resident_kib(pid: int) -> int:
    """Resident memory of one process, 0 once it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_KIB
    except (OSError, IndexError):
        return 0


class MemorySampler(threading.Thread):
    """Watches the resident memory of a process tree until told to stop."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._stop_request = threading.Event()
        self.peak_kib = 0

    def run(self) -> None:
        """Samples; pages that processes share count once for each, as they do in ps."""
        while not self._stop_request.wait(SAMPLE_SECONDS):
            self.peak_kib = max(self.peak_kib, sum(map(resident_kib, process_tree(self._pid))))

    def finish(self) -> int:
        """Stops and returns the highest sum seen."""
        self._stop_request.set()
        self.join()
        return self.peak_kib


def measure(side: Side, digest: str, timeout: float, environment: dict[str, str]) -> Run:
    """Boots once, and checks that the guest did all of its work."""
    begin = time.monotonic()
    process = subprocess.Popen(
        side.command,
        stdin=subprocess.PIPE,  # stays open and silent
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=ROOT,
        env=os.environ | environment,
        start_new_session=True,  # so that helpers which it starts can be ended with it
    )
    assert process.stdout
    sampler = MemorySampler(process.pid)
    sampler.start()
    watchdog = threading.Timer(timeout, os.killpg, (process.pid, signal.SIGKILL))
    watchdog.start()
    output = bytearray()
    to_user_space = 0.0
    try:
        while data := os.read(process.stdout.fileno(), 65536):
            output += data
            if not to_user_space and READY in output:
                to_user_space = time.monotonic() - begin
        _, status, usage = os.wait4(process.pid, 0)
        total = time.monotonic() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        watchdog.cancel()
        sampled = sampler.finish()
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    missing = [mark.decode() for mark in (READY, LOOPED, digest.encode(), DONE) if mark not in output]
    if process.returncode or missing:
        tail = output.decode(errors="replace")[-2000:]
        raise BenchmarkError(
            f"{side.name} ended with status {process.returncode} after {total:.1f} s, without {missing}:\n{tail}"
        )
    peak = max(sampled, usage.ru_maxrss) / 1024
    return Run(to_user_space, total, usage.ru_utime + usage.ru_stime, peak)


def guest_files(kernel: str) -> tuple[str, str]:
    """Paths of the kernel and the initramfs, which are downloaded if they aren't there."""
    listing = subprocess.run(
        [sys.executable, "-m", "tests.linux_guests", "--json"], cwd=ROOT, check=False, stdout=subprocess.PIPE
    )
    if listing.returncode:
        raise BenchmarkError("there are no guests to boot")
    paths = json.loads(listing.stdout)
    return paths[kernel], paths["initrd"]


def known_digest() -> str:
    """What the guest must say about its known file."""
    program = "from tests.linux_guests import initramfs; print(initramfs.KNOWN_DIGEST)"
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()


def table(rows: list[list[str]]) -> str:
    """Rows with aligned columns, the first left, the others right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def report(sides: list[Side]) -> str:
    """The comparison."""
    baseline = next((side for side in sides if side.name == BASELINE), None)
    quantities = [
        ("total", "start to exit, s", "{:.2f}"),
        ("to_user_space", "start to user space, s", "{:.2f}"),
        ("cpu", "processor time, s", "{:.2f}"),
        ("peak_mib", "peak resident, MiB", "{:.0f}"),
    ]
    ratio = [f"{side.name}/{BASELINE}" for side in sides if baseline and side is not baseline]
    rows = [[f"median of {len(sides[0].runs)}", *(side.name for side in sides), *ratio]]
    for attribute, title, shape in quantities:
        medians = [side.median(attribute) for side in sides]
        row = [title, *(shape.format(value) for value in medians)]
        if baseline:
            base = baseline.median(attribute)
            row += [f"{side.median(attribute) / base:.2f}" for side in sides if side is not baseline]
        rows.append(row)
    spread = [f"{min(r.total for r in side.runs):.2f}-{max(r.total for r in side.runs):.2f}" for side in sides]
    rows.append(["range of start to exit, s", *spread, *("" for _ in ratio)])
    return table(rows)


def flatten(value: Any, name: str = "") -> Iterator[list[str]]:
    """Rows of a nested record of counters."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flatten(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, float):
        yield [name, f"{value:,.2f}"]
    elif isinstance(value, int):
        yield [name, f"{value:,}"]
    else:
        yield [name, str(value)]


def print_statistics(file: Path) -> None:
    """What pyemu counted in its last run."""
    if file.is_file():
        print("\npyemu's statistics (last run)")
        print(table(list(flatten(json.loads(file.read_text())))))
    else:
        print(f"\npyemu wrote no statistics to {STATISTICS}")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Compare the boot of Linux under pyemu and QEMU.")
    parser.add_argument("--kernel", choices=["cloud", "generic"], default="cloud")
    parser.add_argument("--runs", type=int, default=5, help="measured boots of each side (default 5)")
    parser.add_argument("--append", default=APPEND, help=f"the kernel's command line (default {APPEND!r})")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds after which a boot is given up")
    parser.add_argument("--cold", action="store_true", help="also measure one start with an empty code cache")
    parser.add_argument("--no-qemu", action="store_true", help="measure pyemu alone")
    parser.add_argument(
        "--variant",
        action="append",
        default=[],
        metavar="NAME=OPTIONS",
        help="also measure pyemu with these further options, for example: interp='-accel interp'",
    )
    arguments = parser.parse_args()
    if arguments.runs < 1:
        parser.error("--runs must be at least 1")
    for variant in arguments.variant:
        if not variant.partition("=")[0] or "=" not in variant:
            parser.error(f"--variant {variant}: not of the form NAME=OPTIONS")
    return arguments


def sides_to_compare(arguments: argparse.Namespace) -> list[Side]:
    """The command of each side; they differ in nothing but the program."""
    kernel, initrd = guest_files(arguments.kernel)
    common = ["-m", str(MEMORY_MIB), "-smp", "1", "-nographic", "-no-reboot"]
    common += ["-kernel", kernel, "-initrd", initrd, "-append", arguments.append]
    pyemu = [sys.executable, "-m", "pyemu"]
    sides = [Side("pyemu", pyemu + common)]
    for variant in arguments.variant:
        name, _, options = variant.partition("=")
        sides.append(Side(name, pyemu + shlex.split(options) + common))
    if not arguments.no_qemu:
        if not shutil.which("qemu-system-x86_64"):
            raise BenchmarkError("qemu-system-x86_64 not found (on Debian: apt install qemu-system-x86), see --no-qemu")
        sides.append(Side(BASELINE, ["qemu-system-x86_64", "-accel", "tcg", *common]))
    return sides


def main() -> int:
    """Runs the comparison."""
    arguments = parse_arguments()
    try:
        sides = sides_to_compare(arguments)
        digest = known_digest()
        for side in sides:
            print(f"{side.name}: {shlex.join(side.command)}\n")
        with tempfile.TemporaryDirectory() as directory:
            statistics_file = Path(directory) / "statistics.json"
            if arguments.cold:
                cold = measure(sides[0], digest, arguments.timeout, {"PYEMU_CACHE": f"{directory}/cache"})
                print(f"pyemu with an empty cache: {cold.total:.2f} s\n", flush=True)
            for side in sides:
                if side.name != BASELINE:
                    measure(side, digest, arguments.timeout, {})
            for number in range(arguments.runs):
                for side in sides:
                    first = side is sides[0]
                    environment = {STATISTICS: str(statistics_file)} if first else {}
                    side.runs.append(measure(side, digest, arguments.timeout, environment))
                    print(f"run {number + 1}: {side.name} {side.runs[-1].total:.2f} s", file=sys.stderr, flush=True)
            print(report(sides))
            print_statistics(statistics_file)
    except BenchmarkError as error:
        print(f"boot.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
