"""The built-in guest as a user meets it: `pyemu` without a kernel, in a process of its own, on each back end."""

import subprocess
import sys
import time

import pytest

ACCELERATORS = ("jit", "interp", "reference")
SELFTEST_SECONDS = 60.0  # what -accel reference may take at most
BUILD_SECONDS = 60.0  # a first start builds the native code, too
PARTS = (
    "arithmetic", "memory and strings", "floating point", "exceptions", "paging", "user mode and system calls", "timer",
    "selftest",
)  # fmt: skip


def run(accelerator: str, *options: str, keys: str = "") -> subprocess.CompletedProcess[str]:
    """Run pyemu to its end; what is typed is there from the start."""
    seconds = SELFTEST_SECONDS + (BUILD_SECONDS if accelerator != "reference" else 0)
    return subprocess.run(
        [sys.executable, "-m", "pyemu", "-nographic", "-accel", accelerator, *options],
        input=keys, capture_output=True, text=True, timeout=seconds,
    )  # fmt: skip


@pytest.mark.parametrize("accelerator", ACCELERATORS)
def test_selftest_is_ok_and_status_0(accelerator: str) -> None:
    started = time.monotonic()
    done = run(accelerator, "-append", "selftest")
    print(f"{accelerator}: {time.monotonic() - started:.2f} s")  # pytest -rP shows it
    assert done.returncode == 0, done.stderr
    lines = done.stdout.replace("\r", "").splitlines()
    assert [line for line in lines if line.endswith(": ok")] == [f"{part}: ok" for part in PARTS]
    assert lines[-1] == "powering off"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("accelerator", ACCELERATORS)
def test_shell_answers(accelerator: str) -> None:
    done = run(accelerator, keys="help\rnonsense\rfault\rmem\rpoweroff\r")
    assert done.returncode == 0, done.stderr
    text = done.stdout.replace("\r", "")
    assert "Type help." in text
    for command in ("help", "mem", "ticks", "fault", "cpuid", "reboot", "poweroff"):
        assert f"\n{command}\t" in text
    assert ", reads back 42" in text
    assert "powering off" in text


@pytest.mark.parametrize("accelerator", ACCELERATORS)
def test_every_command_is_survived(accelerator: str) -> None:
    """Also those that crash: the shell comes back and takes the next one."""
    done = run(accelerator, keys="regs\rticks\rcpuid\rcrash\rcrash\rticks\rpoweroff\r")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.count("> ") == 7
