"""Runs random programs: `python -m tests.fuzz --back-ends jit,interp --seed 1 --first 0 --count 1000`.

One line a second says how far it is, so that a watchdog knows where it was when it hangs or dies; -v says each number.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from tests.fuzz.target import Target


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--back-ends", default="jit,interp")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this long")
    parser.add_argument("--hashes", help="write the programs' 64-bit hashes to this file")
    parser.add_argument("-v", action="store_true")
    options = parser.parse_args()
    target = Target(options.back_ends.split(","), options.seed)
    started = said = time.monotonic()
    differences = number = 0
    for number in range(options.first, options.first + options.count):
        if options.v:
            print(f"program {number}", flush=True)
        if found := target.run(number):
            differences += 1
            print(f"difference in program {number}: {found}", flush=True)
        now = time.monotonic()
        if now - said > 1:
            said = now
            print(f"at program {number}: {target.instructions} instructions {target.ends}", flush=True)
        if now - started > options.seconds:
            break
    programs = number + 1 - options.first
    print(f"done: {programs} programs, {target.instructions} instructions, {differences} differences", flush=True)
    if options.hashes:
        Path(options.hashes).write_bytes(target.hashes.tobytes())
    target.close()
    return 1 if differences else 0


if __name__ == "__main__":
    raise SystemExit(main())
