"""What can't be started, as a user sees it: one clear line on stderr, nothing on stdout, status 1 or 2, and soon."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from pyemu import Machine
from pyemu.config import OutputError
from pyemu.log import Log, LogError
from pyemu.snapshot_error import SnapshotError
from tests.firmware import helpers
from tests.guests import build


def run(*arguments: str) -> tuple[int, str]:
    """The status and the one line of a process that fails."""
    done = subprocess.run(
        [sys.executable, "-m", "pyemu", "-nographic", "-accel", "reference", *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    lines = done.stderr.splitlines()
    assert done.stdout == ""
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("pyemu: ")
    assert "internal error" not in lines[0]
    return done.returncode, lines[0]


def elf(bits: int, machine: int) -> bytes:
    """An ELF header without anything behind it (ELF specification, figure 1-3)."""
    kind = {32: 1, 64: 2}[bits]
    return b"\x7fELF" + bytes([kind, 1, 1]) + bytes(9) + struct.pack("<HHI", 2, machine, 1) + bytes(1000)


WRONG_MACHINES = {
    "arm": (elf(32, 40), "ARM"),
    "aarch64": (elf(64, 183), "64-bit ARM"),
    "riscv": (elf(64, 243), "RISC-V"),
    "arm64-image": (bytes(0x38) + b"ARM\x64" + bytes(1000), "64-bit ARM"),
}


@pytest.mark.parametrize("name", WRONG_MACHINES)
def test_wrong_architecture_is_named(name: str, tmp_path: Path) -> None:
    data, what = WRONG_MACHINES[name]
    (tmp_path / name).write_bytes(data)
    status, line = run("-kernel", str(tmp_path / name))
    assert status == 1
    assert what in line


def test_no_readable_file(tmp_path: Path) -> None:
    """Missing, empty, a directory; and a path below a file, which not even root can read."""
    empty = tmp_path / "empty"
    empty.touch()
    for path, why in (
        (tmp_path / "missing", "No such file"),
        (empty, "empty"),
        (tmp_path, "directory"),
        (empty / "below", "Not a directory"),
    ):
        for option in ("-kernel", "-bios"):
            status, line = run(option, str(path))
            assert (option, status) == (option, 1)
            assert why.lower() in line.lower(), line


def test_truncated_kernels(tmp_path: Path) -> None:
    path = tmp_path / "kernel"
    for whole in (helpers.bzimage(), build("cli_loop")):
        for length in (1, 12, 40, 500, 600):
            path.write_bytes(whole[: min(length, len(whole) - 1)])
            status, line = run("-kernel", str(path))
            assert status == 1, line


@pytest.mark.parametrize("megabytes", [17, 4096])
def test_initrd_too_large_for_memory(megabytes: int, tmp_path: Path) -> None:
    kernel, initrd = tmp_path / "kernel", tmp_path / "initrd"
    kernel.write_bytes(helpers.bzimage())
    with initrd.open("wb") as file:
        file.truncate(megabytes << 20)  # sparse
    status, line = run("-m", "16", "-kernel", str(kernel), "-initrd", str(initrd))
    assert status == 1
    assert "initrd" in line


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["-m", "0"], "memory size"),
        (["-m", "1T"], "too large"),
        (["-M", "nonsense"], "nonsense"),
        (["-cpu", "nonsense"], "nonsense"),
        (["-accel", "nonsense"], "nonsense"),
        (["-nonsense"], "-nonsense"),
        (["-device", "nonsense"], "nonsense"),
        (["-initrd", "file"], "-kernel"),
        (["-smp", "1,cores=2"], "only one CPU"),
        (["-smp", "0"], "not in 1..4096"),
        (["-smp", "1,foo=1"], "foo=1"),
        (["-record", ""], "-record"),
        (["-gdb", ""], "-gdb"),
        (["-chardev", "null,id=a", "-chardev", "null,id=a"], "already"),
    ],
    ids=lambda value: " ".join(value),
)
def test_bad_usage(arguments: list[str], what: str) -> None:
    status, line = run(*arguments)
    assert status == 2
    assert what in line


@pytest.mark.parametrize("option", ["-loadvm", "-replay", "-symbols"])
def test_what_is_no_file_is_neither_waited_for_nor_read_for_ever(option: str, tmp_path: Path) -> None:
    fifo, zeros = tmp_path / "fifo", tmp_path / "zeros"
    os.mkfifo(fifo)
    with zeros.open("wb") as file:
        file.truncate(1 << 40)  # sparse
    for path, why in ((fifo, "not a regular file"), (Path("/dev/zero"), "not a regular file"), (zeros, str(zeros))):
        status, line = run(option, str(path))
        assert status == 1
        assert why in line


def test_what_cannot_be_written_at_the_end_is_refused_at_the_begin(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing" / "coverage"):
        status, line = run("-accel", "interp", "-coverage", str(path))
        assert status == 1
        assert str(path) in line


@pytest.mark.parametrize("option", ["-gdb", "-qmp", "-serial", "-monitor"])
def test_a_socket_takes_no_other_files_place(option: str, tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    status, line = run(option, f"unix:{path},server,nowait")
    assert status == 1
    assert "in use" in line
    assert path.read_text() == "data"


def test_help_that_nobody_reads_to_its_end() -> None:
    for arguments in (["-h"], ["-version"], ["-cpu", "help"]):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "pyemu", *arguments], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
            )
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "No space left" in done.stderr


def test_a_log_that_does_not_fit_ends_and_the_guest_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    log = Log(frozenset({"int"}), "/dev/full")
    log.write("int", "one")
    log.write("int", "two")
    assert capsys.readouterr().err == "pyemu: the log ends here: No space left on device\n"
    assert not log.items
    log.close()


def test_what_would_wait_for_a_reader_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "pipe")
    os.mkfifo(path)
    with pytest.raises(LogError, match="can't write"):
        Log(frozenset(), path)
    with pytest.raises(OutputError, match="can't write"):
        Machine(memory="4M", coverage=path)
    with pytest.raises(SnapshotError, match="can't record"):
        Machine(memory="4M", record=path)
