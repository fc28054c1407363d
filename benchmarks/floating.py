"""How fast floating point is: the same loops in pyemu, in QEMU's translator and on the processor itself.

    python benchmarks/floating.py [--runs 3] [--accel jit]

One multiboot guest runs all loops and writes a byte to the serial port before and after each; the times are taken here,
as the bytes arrive. pyemu and QEMU run in turn, so that a change in the host's speed hits both. The table has the
medians, in nanoseconds an iteration, and pyemu's as a multiple of QEMU's and of the processor's.
"""

import argparse
import ctypes
import mmap
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import keystone

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 120.0
MARK = ord("#")

# name: iterations, what sets up, what is repeated (RDI points at four doubles: 1.5, 0.75, 3.0 and a result)
LOOPS = {
    "x87 multiply, add": (2_000_000, "fld1", "fld qword ptr [rdi]; fmul qword ptr [rdi + 8]; faddp st(1), st(0)"),
    "x87 divide, store": (
        2_000_000, "fld1", "fdiv qword ptr [rdi]; fld st(0); fstp qword ptr [rdi + 24]; fadd qword ptr [rdi + 16]",
    ),
    "x87 square root": (2_000_000, "fld1", "fadd qword ptr [rdi + 16]; fsqrt"),
    "x87 sine": (1_000_000, "fld1", "fld st(0); fsin; faddp st(1), st(0)"),
    "SSE2 multiply, add": (2_000_000, "", "movsd xmm0, [rdi]; mulsd xmm0, [rdi + 8]; addsd xmm1, xmm0"),
    "SSE2 divide, convert": (
        2_000_000, "", "movsd xmm0, [rdi]; divsd xmm0, [rdi + 16]; cvttsd2si rax, xmm0; cvtsi2sd xmm1, rax",
    ),
    "SSE packed single": (2_000_000, "", "movups xmm0, [rdi]; mulps xmm0, xmm1; addps xmm1, xmm0; subps xmm0, xmm1"),
}  # fmt: skip
DATA = ".quad 0x3ff8000000000000, 0x3fe8000000000000, 0x4008000000000000, 0"


def loop(number: int, name: str) -> str:
    """The assembler text of one loop."""
    count, setup, body = LOOPS[name]
    return f"fninit\nxorps xmm1, xmm1\n{setup}\nmov ecx, {count}\nloop{number}:\n{body}\ndec ecx\njnz loop{number}\n"


def assemble(text: str, base: int) -> bytes:
    """Machine code."""
    code, _ = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64).asm(text, base, as_bytes=True)
    assert code is not None
    return bytes(code)


def guest() -> bytes:
    """The image that runs all loops and then stops; its prologue is that of the tests' guests."""
    sys.path.insert(0, str(ROOT))
    from tests import guests

    marks = f"mov al, {MARK}\nmov edx, 0x3f8\nout dx, al\n"
    prologue = (ROOT / "tests/guests/long_mode.asm").read_text()
    text = [f".set {name}, {value:#x}" for name, value in guests.CONSTANTS.items()]
    text += [line.split("#", 1)[0] for line in prologue.splitlines()]
    text += ["main:", "lea rdi, [numbers]"]
    text += [f"{marks}{loop(number, name)}{marks}" for number, name in enumerate(LOOPS)]
    text += ["next_round:", "cli", "hlt", "announcement: .byte 0", ".p2align 12", f"numbers: {DATA}", "image_end:"]
    return assemble("\n".join(text), guests.BASE)


def measure(command: list[str]) -> list[float]:
    """Nanoseconds an iteration of every loop in an emulator."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout
    arrivals: list[float] = []
    deadline = time.monotonic() + TIMEOUT
    try:
        while len(arrivals) < 2 * len(LOOPS) and time.monotonic() < deadline:
            data = os.read(process.stdout.fileno(), 4096)
            if not data:
                break
            arrivals += [time.monotonic()] * data.count(MARK)
    finally:
        process.kill()
        process.wait()
    if len(arrivals) < 2 * len(LOOPS):
        sys.exit(f"floating.py: {command[0]} didn't finish the loops")
    pairs = zip(arrivals[::2], arrivals[1::2], LOOPS.values(), strict=True)
    return [(end - begin) * 1e9 / count for begin, end, (count, _, _) in pairs]


def natively() -> list[float]:
    """The same on the processor itself."""
    times = []
    for number, name in enumerate(LOOPS):
        code = assemble(loop(number, name) + "fninit\nret", 0)
        memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        memory[: len(code)] = code
        numbers = (ctypes.c_double * 4)(1.5, 0.75, 3.0)
        function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
        begin = time.monotonic()
        function(ctypes.addressof(numbers))
        times.append((time.monotonic() - begin) * 1e9 / LOOPS[name][0])
    return times


def main() -> int:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(description="Compare floating point under pyemu, QEMU and the processor itself.")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--accel", default="jit", help="of pyemu")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        image = Path(directory) / "loops"
        image.write_bytes(guest())
        common = ["-kernel", str(image), "-nographic", "-m", "64"]
        pyemu = [sys.executable, "-m", "pyemu", "-accel", arguments.accel, *common]
        qemu = ["qemu-system-x86_64", "-accel", "tcg", *common]
        runs = [(measure(pyemu), measure(qemu), natively()) for _ in range(arguments.runs)]
    print(f"{'ns an iteration':22}{'pyemu':>8}{'qemu':>8}{'native':>8}{'pyemu/qemu':>12}{'pyemu/native':>14}")
    for number, name in enumerate(LOOPS):
        ours, theirs, real = (statistics.median(run[side][number] for run in runs) for side in range(3))
        print(f"{name:22}{ours:8.1f}{theirs:8.1f}{real:8.2f}{ours / theirs:12.2f}{ours / real:14.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
