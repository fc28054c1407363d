"""The tools that make and drive Linux guests do what the boot tests rely on; no emulator runs here."""

import gzip
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.linux_guests import images, initramfs, programs
from tests.linux_guests.bootlog import trouble, without_expected
from tests.linux_guests.console import Console, ConsoleError
from tests.linux_guests.cpio import CpioWriter
from tests.linux_guests.images import Guests

SECONDS = 20.0


def entries(archive: bytes) -> Iterator[tuple[str, int, bytes]]:
    """Name, mode and contents of each entry: a reader written from the format, not from the writer."""
    position = 0
    while True:
        header = archive[position : position + 110]
        assert header[:6] == b"070701"
        fields = [int(header[6 + 8 * i : 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[position + 110 : position + 110 + name_size]
        assert name[-1:] == b"\0"
        start = (position + 110 + name_size + 3) & ~3
        if name == b"TRAILER!!!\0":
            return
        yield name[:-1].decode(), mode, archive[start : start + size]
        position = (start + size + 3) & ~3


def test_cpio_archive_reads_back() -> None:
    writer = CpioWriter()
    writer.directory("/dir")
    writer.file("dir/odd", b"12345", 0o600)
    writer.symlink("dir/link", "odd")
    writer.character_device("tty", 5, 1)
    archive = writer.finish()
    assert len(archive) % 512 == 0
    assert list(entries(archive)) == [
        ("dir", 0o040755, b""),
        ("dir/odd", 0o100600, b"12345"),
        ("dir/link", 0o120777, b"odd"),
        ("tty", 0o020600, b""),
    ]
    assert archive.count(b"0000000500000001") == 1, "the device's number"


def test_initramfs_has_what_the_boot_tests_call(guests: Guests) -> None:
    data = guests.initrd.read_bytes()
    assert data == initramfs.build(guests.busybox), "not reproducible, or stale"
    files = {name: (mode, contents) for name, mode, contents in entries(gzip.decompress(data))}
    for command in ("sh", "cat", "dmesg", "tail", "sha256sum", "poweroff", "mount", "setsid", "sleep"):
        assert files[f"bin/{command}"] == (0o120777, b"busybox")
    for script in ("init", "scripted"):
        mode, contents = files[script]
        assert mode == 0o100755 and contents.startswith(b"#!/bin/sh\n")
    assert files["etc/known"][1] == initramfs.KNOWN_BYTES


def test_programs_are_packed_with_what_is_expected_of_them(guests: Guests) -> None:
    host = programs.on_host(guests.busybox, 7)
    assert host.expected and host.expected.startswith(b"BusyBox v") and host.expected.endswith(b"\nstatus 0\n")
    packed = programs.pack([programs.Program(Path(sys.executable)), host], guests.busybox)
    files = {name: contents for name, _, contents in entries(gzip.decompress(packed))}
    python = Path(sys.executable)
    assert files["list"].decode() == f"{python.name} {programs.PROGRAM_SECONDS}\nbusybox 7\n"
    assert files[f"programs/{python.name}"] == python.read_bytes()
    assert files["expected/busybox"] == host.expected and f"expected/{python.name}" not in files


def test_results_of_programs_are_read() -> None:
    found = programs.results("[  0.1] x\nprogram a 0 good\n| -1\n| +2\nprogram b_32 139 differs\nprogram c 1 failed\n")
    assert {name: result.good for name, result in found.items()} == {"a": True, "b_32": False, "c": False}
    assert found["b_32"].text == "differs, status 139\n| -1\n| +2" and found["c"].text == "failed, status 1"


def test_missing_package_tools_are_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(images.OVERRIDE, str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(images.GuestsMissing) as raised:
        images.obtain()
    for word in ("dpkg-deb", "linux-image-cloud-amd64", "vmlinuz-generic", "busybox", images.OVERRIDE):
        assert word in str(raised.value)


def test_guests_provided_by_hand_are_used(monkeypatch: pytest.MonkeyPatch, guests: Guests, tmp_path: Path) -> None:
    monkeypatch.setenv(images.OVERRIDE, str(tmp_path))
    (tmp_path / "vmlinuz-cloud").write_bytes(b"cloud")
    (tmp_path / "vmlinuz-generic").write_bytes(b"generic")
    (tmp_path / "busybox").symlink_to(guests.busybox)
    mine = images.obtain()
    assert mine.cloud.read_bytes() == b"cloud"
    assert mine.initrd.read_bytes() == guests.initrd.read_bytes()


def test_console_types_commands_and_tells_output_from_echo(guests: Guests) -> None:
    with Console([guests.busybox, "sh", "-i"]) as console:
        assert console.shell("echo one; echo two", SECONDS) == "one\ntwo\n"
        assert console.shell("true", SECONDS) == ""
        with pytest.raises(ConsoleError, match="status 3"):
            console.shell("(exit 3)", SECONDS)
        console.send("exit 7\n")
        assert console.finish(SECONDS) == 7


def test_console_reports_silence_and_early_ends(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Console([sys.executable, "-c", "print('hello', flush=True); input()"], log) as console:
        console.expect("hello", SECONDS)
        with pytest.raises(ConsoleError, match="no 'hello' within"):
            console.expect("hello", 0.05)
        console.send("\n")
        with pytest.raises(ConsoleError, match="status 0"):
            console.expect("more", SECONDS)
    assert log.read_bytes().startswith(b"hello")


def test_console_kills_a_program_that_stays(tmp_path: Path) -> None:
    program = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); print('up', flush=True); signal.pause()"
    with Console([sys.executable, "-c", program]) as console:
        console.expect("up", SECONDS)
        with pytest.raises(ConsoleError, match="still running"):
            console.finish(0.05)
        process = console._process
    assert process.poll() is not None


def test_trouble_is_found_and_compared_without_time_stamps() -> None:
    log = "[    1.25] fine\n[    2.0] WARNING: CPU: 0 PID: 1 at x.c:12\n[    3.0] DEBUG: installed\n"
    assert trouble(log) == ["[    2.0] WARNING: CPU: 0 PID: 1 at x.c:12"]
    assert trouble("tsc: Marking TSC unstable due to check_tsc_sync_source failed")
    assert trouble("unchecked MSR access error: RDMSR from 0x10a")
    assert trouble("rcu: INFO: rcu_sched self-detected stall")
    assert without_expected(trouble(log), ["[    9.9] WARNING: CPU: 1 PID: 7 at x.c:12"]) == []
    assert without_expected(trouble(log), ["WARNING: something else"]) == trouble(log)
