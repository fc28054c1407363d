"""Runs a topic guest on an emulator and reads its report.

pyemu runs in this process. QEMU (TCG and KVM) and Bochs run as they are installed; Bochs, which knows no -kernel, gets
the image through a ROM of 64 KiB that enters 32-bit protected mode as a multiboot loader does.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pyemu.config import DebugExit, MachineConfig
from pyemu.machine import Machine
from tests.guests.topics.program import BASE, assemble

PASS = "pass"
SECONDS = 120.0
QEMU_SECONDS = 15.0  # it hangs in some checks
_LINE = re.compile(r"^([a-z0-9_]+\.[^:\r\n]+): ([^\r\n]*)\r?$", re.MULTILINE)

Report = dict[str, str]  # check: "pass" or what was got


class GuestError(Exception):
    """A guest that didn't come to its end; the message has its output."""


def read_report(output: str, topic: str) -> Report:
    """What a guest said; GuestError if it didn't say everything."""
    report = dict(_LINE.findall(output))
    if f"{topic}.end" not in output:
        raise GuestError(f"{topic} did not come to its end:\n{output[-300:]}")
    return report


def on_pyemu(image: bytes, topic: str, accelerator: str, cpu: str = "max", seconds: float = SECONDS) -> Report:
    """Run on pyemu, in this process."""
    config = MachineConfig(
        memory=64 << 20,
        kernel=_file(image),
        accelerator=accelerator,
        cpu=cpu,
        debug_exit=DebugExit(0xF4, 4),
        testdev=True,
        reboot=False,
    )
    with Machine(config) as machine:
        stop = machine.run(timeout=seconds)
        output = machine.output.decode("ascii", "replace")
    try:
        return read_report(output, topic)
    except GuestError as error:
        raise GuestError(f"{error}\nit ended with {stop}") from error


def on_qemu(
    image: bytes, topic: str, accelerator: str = "tcg", cpu: str = "max", seconds: float = QEMU_SECONDS
) -> Report:
    """Run on QEMU."""
    command = [
        "qemu-system-x86_64", "-accel", accelerator, "-cpu", cpu, "-m", "64", "-nodefaults", "-display", "none",
        "-serial", "stdio", "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-device", "pc-testdev", "-kernel", _file(image),
    ]  # fmt: skip
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False)
        output = done.stdout + done.stderr
    except subprocess.TimeoutExpired as error:
        output = error.stdout or b""
    text = output.decode("ascii", "replace")
    try:
        return read_report(text, topic)
    except GuestError:
        report = dict(_LINE.findall(text))
        if not report:
            raise
        return report  # it does not survive everything; what is missing is not passed


def on_bochs(image: bytes, topic: str, cpu: str = "corei7_icelake_u", seconds: float = SECONDS) -> Report:
    """Run on Bochs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "rom").write_bytes(bochs_rom(image))
        (folder / "vga").write_bytes(bytes((0x55, 0xAA, 1)) + bytes(509))
        parts = ""
        for n, at in enumerate(range(0, len(image), BOCHS_BLOCK)):  # it has memory in blocks, and reads a file into one
            (folder / f"image{n}").write_bytes(image[at : at + BOCHS_BLOCK].ljust(BOCHS_BLOCK, b"\0"))
            parts += f"optramimage{n + 1}: file={folder}/image{n}, address={BASE + at:#x}\n"
        (folder / "bochsrc").write_text(
            f"megs: 64\nromimage: file={folder}/rom\nvgaromimage: file={folder}/vga\n{parts}"
            f"cpu: model={cpu}, ips=50000000, ignore_bad_msrs=0\ncom1: enabled=1, mode=file, dev={folder}/out\nclock: sync=none\n"
            f'display_library: rfb, options="timeout=0"\nsound: waveoutdrv=dummy\nlog: {folder}/log\npanic: action=fatal\nerror: action=ignore\nspeaker: enabled=0\n'
            "info: action=ignore\nplugin_ctrl: unmapped=1, biosdev=1, speaker=0, extfpuirq=1, parallel=0, serial=1\n"
        )
        with (
            subprocess.Popen(
                ["bochs", "-q", "-f", f"{folder}/bochsrc"],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder,
            ) as process
        ):  # fmt: skip
            assert process.stdin is not None
            process.stdin.write(b"c\n")  # Debian's has its debugger built in, which waits for this
            process.stdin.flush()
            deadline = time.monotonic() + seconds
            output = ""
            while time.monotonic() < deadline and process.poll() is None and f"{topic}.end" not in output:
                time.sleep(0.05)
                if (folder / "out").exists():
                    output = (folder / "out").read_text("ascii", "replace")
            process.kill()
        try:
            return read_report(output, topic)
        except GuestError as error:
            log = (folder / "log").read_text("ascii", "replace") if (folder / "log").exists() else ""
            raise GuestError(f"{error}\n{log[-1500:]}") from error


ROM_SIZE = 0x10000
BOCHS_BLOCK = 0x20000


def bochs_rom(image: bytes) -> bytes:
    """64 KiB that enter 32-bit protected mode with flat segments and go to the image's entry."""
    entry = int.from_bytes(image[28:32], "little")
    code = assemble(
        f"""
        .code16
        cli
        .byte 0x2e, 0x66, 0x0f, 0x01, 0x16      # lgdt cs:[pointer]
        .word pointer
        mov eax, cr0
        and eax, 0x9fffffff
        or al, 1
        mov cr0, eax
        .byte 0x66, 0xea
        .long flat + 0xf0000
        .word 8
    pointer:
        .word 23
        .long table + 0xf0000
    .align 8
    table:
        .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
        .code32
    flat:
        mov eax, 0x10
        mov ds, eax
        mov es, eax
        mov fs, eax
        mov gs, eax
        mov ss, eax
        mov al, 2
        out 0x92, al
        mov eax, 0x2badb002
        xor ebx, ebx
        mov ecx, {entry:#x}
        jmp ecx
        """,
        0,
        16,
    )
    rom = bytearray(b"\xff" * ROM_SIZE)
    rom[: len(code)] = code
    rom[0xFFF0:0xFFF5] = bytes((0xEA, 0, 0, 0, 0xF0))
    return bytes(rom)


def _file(image: bytes) -> str:
    """A file with an image, kept for this process."""
    folder = _folder()
    path = folder / f"{hash(image) & (1 << 64) - 1:016x}"
    if not path.exists():
        path.write_bytes(image)
    return str(path)


_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []


def _folder() -> Path:
    if not _FOLDERS:
        _FOLDERS.append(tempfile.TemporaryDirectory(prefix="topics"))
    return Path(_FOLDERS[0].name)


Runner = Callable[[bytes, str], Report]
RUNNERS: dict[str, Runner] = {
    "jit": lambda image, topic: on_pyemu(image, topic, "jit"),
    "interp": lambda image, topic: on_pyemu(image, topic, "interp"),
    "reference": lambda image, topic: on_pyemu(image, topic, "reference"),
    "qemu": on_qemu,
    "kvm": lambda image, topic: on_qemu(image, topic, "kvm", "host,-arch-capabilities"),
    "bochs": on_bochs,
}


def available(runner: str) -> bool:
    """Whether this machine has what a runner needs."""
    if runner in ("qemu", "kvm"):
        return shutil.which("qemu-system-x86_64") is not None and (
            runner == "qemu" or os.access("/dev/kvm", os.R_OK | os.W_OK)
        )
    return runner != "bochs" or shutil.which("bochs") is not None
