"""Programs that other projects test processors with run in a Linux guest: the kernel's selftests/x86, valgrind's tests
of instructions, and QEMU's guest tests. Each must end as it says itself that it should, or print what it prints on the
host; the exceptions are listed here, with reasons.

`--emulator qemu` shows how QEMU's TCG does.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.linux_guests import images, programs, suites

SECONDS = 3600.0

# Programs that don't end well in pyemu, by kernel, and why that is right.
REVIEWED = {
    "generic": {
        "amx_64": "fails, rather than being skipped, where AMX isn't announced",
        "insn_basic_32": "crashes on the host, too: gcc 12 keeps an address in EDX across the test's CDQ",
    },
    "686-pae": {
        "insn_basic_32": "as above",
        "smc1_32": "crashes on the host for executing data, which a 32-bit kernel lets it do, also in QEMU",
    },
}


@pytest.mark.long
@pytest.mark.xdist_group("linux")
@pytest.mark.parametrize(
    ("suite", "kernel", "bits"),
    [
        (suites.kernel, "generic", (32, 64)),
        (suites.kernel, "686-pae", (32,)),
        (suites.valgrind, "generic", (32, 64)),
        (suites.valgrind, "686-pae", (32,)),
        # Not in a 32-bit kernel, which has virtual-8086 mode for test-i386, unlike the host that tells what to expect.
        (suites.qemu, "generic", (32, 64)),
    ],
)
def test_programs_end_well(
    suite: Callable[[int], list[programs.Program]],
    kernel: str,
    bits: Sequence[int],
    emulator: tuple[str, ...],
    tmp_path: Path,
) -> None:
    wanted = [program for size in bits for program in suite(size)]
    initrd = tmp_path / "initrd.gz"
    initrd.write_bytes(programs.pack(wanted, images.file("busybox" if 64 in bits else "busybox-i386")))
    results = programs.run(emulator, images.file(kernel), initrd, seconds=SECONDS, extra=["-cpu", "max"])
    assert results.keys() == {program.name for program in wanted}
    bad = {name: result.text for name, result in results.items() if not result.good}
    assert bad.keys() == REVIEWED[kernel].keys() & results.keys(), "\n".join(
        f"{name}: {text}" for name, text in bad.items()
    )
