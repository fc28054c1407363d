"""What snapshots cost, on a booted 512 MiB Linux guest.

    python benchmarks/snapshots.py [--runs 7]

Loading: from the start of the command `pyemu -loadvm FILE` to the guest's first instruction, with Python's own cache of
compiled sources. Restoring in memory: after 1,000 pages have been written. A history: a boot with one beside a boot
with -icount alone. Medians.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pyemu import Machine
from pyemu.until import StopKind

GUESTS = Path.home() / ".cache" / "pyemu" / "guests"
# Runs the command line and prints how long after argv[1] (of time.time) the processor begins.
CHILD = """
import sys, time, os
from pyemu.jit.engine import Engine
run = Engine.run
def first(engine):
    print(time.time() - float(sys.argv[1]), flush=True)
    os._exit(0)
Engine.run = first
from pyemu.cli import main
main(sys.argv[2:])
"""


def booted() -> Machine:
    """A guest at its shell."""
    machine = Machine(
        memory=512 << 20, kernel=str(GUESTS / "vmlinuz-cloud"), initrd=str(GUESTS / "initramfs.gz"),
        append="console=ttyS0 rdinit=/bin/sh",
    )  # fmt: skip
    stop = machine.run(until="# ", timeout=120)
    if stop.kind is not StopKind.CONDITION:
        raise SystemExit(f"the guest didn't boot: {stop}")
    machine.run(timeout=1)
    return machine


def load_seconds(path: str) -> float:
    command = [sys.executable, "-c", CHILD, str(time.time()), "-loadvm", path, "-serial", "null", "-monitor", "none"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return float(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)


def restore_seconds(machine: Machine, runs: int) -> list[float]:
    snapshot = machine.snapshot()
    found = []
    for _ in range(runs):
        for page in range(1000):
            machine.memory.write((100 << 20) + page * 4096, b"dirty")
        start = time.perf_counter()
        machine.restore(snapshot)
        found.append(time.perf_counter() - start)
    return found


def boot_seconds(**options: Any) -> float:
    from pyemu.config import Icount

    start = time.perf_counter()
    with Machine(
        memory=512 << 20, kernel=str(GUESTS / "vmlinuz-cloud"), initrd=str(GUESTS / "initramfs.gz"),
        append="console=ttyS0 rdinit=/bin/sh", icount=Icount(1), **options,
    ) as machine:  # fmt: skip
        machine.run(until="# ", timeout=120)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder, booted() as machine:
        path = str(Path(folder) / "linux.snapshot")
        start = time.perf_counter()
        machine.save(path)
        print(f"savevm, 512 MiB guest:             {time.perf_counter() - start:.3f} s")
        loads = [load_seconds(path) for _ in range(runs)]
        print(f"-loadvm to the first instruction:  {statistics.median(loads):.3f} s")
        restores = restore_seconds(machine, runs)
        print(f"restore after 1,000 dirty pages:   {1e3 * statistics.median(restores):.2f} ms")
    plain, recorded = [], []
    for _ in range(max(1, runs // 2)):
        plain.append(boot_seconds())
        recorded.append(boot_seconds(record=""))
    ratio = statistics.median(recorded) / statistics.median(plain)
    print(f"boot with a history over without:  {ratio:.2f}")


if __name__ == "__main__":
    main()
