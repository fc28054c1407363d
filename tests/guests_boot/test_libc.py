"""A static program that calls the C library's string functions runs as process 1 of Debian's kernel, and finds what it
finds on the host: the library chooses its functions by CPUID, for AVX-512 (`evex`), AVX2 or SSE2.
"""

import gzip
import subprocess
from pathlib import Path

import pytest

from tests import judges
from tests.linux_guests import images, machines
from tests.linux_guests.console import Console
from tests.linux_guests.cpio import CpioWriter

SECONDS = 180.0
SOURCE = Path(__file__).with_name("libc_strings.c")
END = "strings-done"


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, linked statically."""
    path = tmp_path_factory.mktemp("libc") / "strings"
    compiler = judges.require("gcc")
    subprocess.run([compiler, "-O1", "-fno-builtin", "-static", "-o", path, SOURCE], check=True, timeout=60)
    return path


@pytest.mark.slow
@pytest.mark.xdist_group("linux")
@pytest.mark.parametrize(
    ("cpu", "features"),
    [("max", "avx2 1 avx512bw 1 avx512vl 1"), ("max,-avx512f", "avx2 1 avx512bw 0 avx512vl 0"),
     ("qemu64", "avx2 0 avx512bw 0 avx512vl 0")],
)  # fmt: skip
def test_string_functions_find_what_they_find_on_the_host(
    cpu: str, features: str, program: Path, tmp_path: Path
) -> None:
    archive = CpioWriter()
    archive.directory("dev")
    archive.character_device("dev/console", 5, 1)
    archive.file("init", program.read_bytes(), 0o755)
    initrd = tmp_path / "initrd.gz"
    initrd.write_bytes(gzip.compress(archive.finish(), 1))
    append = f"{machines.APPEND} quiet panic=-1"
    command = machines.command(machines.PYEMU, images.file("cloud"), initrd, append=append, extra=["-cpu", cpu])
    with Console(command) as console:
        assert console.finish(SECONDS) == 0
        lines = [line.strip() for line in console.text.splitlines()]
    expected = subprocess.run([program], capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    assert expected[-1] == END and len(expected) == 8
    start = lines.index(features)
    assert lines[start + 1 : start + 8] == expected[1:]
