"""Nothing that a guest executes ends in a Python traceback or a host signal, and the back ends agree on it.

The programs run in a child process under a watchdog here. CI runs a slice of a fixed seed; the long run goes on through
seeds until PYEMU_PROGRAMS distinct programs have run on each native back end.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from array import array
from pathlib import Path

import pytest

from tests.differential.progress import Progress

SEED = int(os.environ.get("PYEMU_SEED", "1"))
PROGRAMS = int(os.environ.get("PYEMU_PROGRAMS", 10**7))
SILENCE = 60.0  # seconds without a line: it hangs (the first line waits for the native code)
_DONE = re.compile(r"done: (\d+) programs, (\d+) instructions, (\d+) differences")


def run(*arguments: str) -> tuple[int, int, str]:
    """Programs and instructions that were executed, and the end of the output if anything went wrong."""
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.fuzz", *arguments]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert child.stdout is not None
    lines: list[str] = []
    silent = False

    def give_up() -> None:
        nonlocal silent
        silent = True
        child.kill()

    while True:
        timer = threading.Timer(SILENCE, give_up)
        timer.start()
        line = child.stdout.readline()
        timer.cancel()
        if not line:
            break
        lines.append(line)
    child.stdout.close()
    status = child.wait()
    done = _DONE.search("".join(lines[-3:]))
    programs, instructions = (int(done[1]), int(done[2])) if done else (0, 0)
    if status == 0 and done:
        return programs, instructions, ""
    what = "no sign of life" if silent else f"status {status}"
    return programs, instructions, f"python -m tests.fuzz {' '.join(arguments)}: {what}\n" + "".join(lines[-30:])


@pytest.mark.parametrize("back_ends", ["jit,interp", "interp,reference"])
def test_random_programs(back_ends: str) -> None:
    """A slice, the same in each run."""
    count = 1000 if "jit" in back_ends else 60
    programs, instructions, wrong = run("--back-ends", back_ends, "--seed", str(SEED), "--count", str(count))
    assert not wrong, wrong
    assert programs == count and instructions > 20 * count


@pytest.mark.long
def test_many_random_programs(tmp_path: Path) -> None:
    """Seeds one after another, a hundred thousand programs each; the reference gets a few of each."""
    each, file = 100_000, tmp_path / "hashes"
    progress = Progress("fuzz")
    found: list[str] = []
    while progress.less("programs", PROGRAMS, PROGRAMS) and len(found) < 5:
        seed, started = progress.next_seed(SEED), time.monotonic()
        hashes = array("Q")
        programs, instructions, wrong = run(
            "--back-ends", "jit,interp", "--seed", str(seed), "--count", str(each), "--hashes", str(file)
        )
        few, more, also = run("--back-ends", "interp,reference", "--seed", str(seed), "--count", str(each // 500))
        if not wrong:
            hashes.frombytes(file.read_bytes())
        wrong += also
        record: dict[str, int | str] = {
            "seed": seed, "programs": programs, "in reference": few, "instructions": instructions + more,
            "differences": int(bool(wrong)), "seconds": round(time.monotonic() - started),
        }  # fmt: skip
        print(progress.add(record, hashes), wrong, sep="\n", flush=True)
        found += [wrong] if wrong else []
    assert not found, "\n".join(found)
