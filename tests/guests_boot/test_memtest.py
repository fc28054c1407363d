"""Memtest86+, for 64 and for 32 bits, passes its tests of memory without an error.

Its kernels are bzImages whose whole code is at the entry of the boot protocol. It draws the same screen on its serial
console as into video memory. `pytest tests/guests_boot --emulator qemu` runs the same tests against QEMU.
"""

import re
from pathlib import Path

import pytest

from tests.linux_guests import images
from tests.linux_guests.console import Console

SECONDS = 300.0
MEMORY_MIB = 8
LAST = 10  # the bit fade test, which waits for five minutes twice, is the first that isn't awaited
SLOW_ONES = {6, 9}  # of the others; what takes less than a second may not be shown


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param("memtest-x64", marks=pytest.mark.long), "memtest-ia32"])
def test_memory_is_found_good(name: str, emulator: tuple[str, ...], tmp_path: Path) -> None:
    command = [*emulator, "-m", str(MEMORY_MIB), "-nographic", "-no-reboot", "-kernel", str(images.file(name)),
               "-append", "console=ttyS0,115200"]  # fmt: skip
    with Console(command, tmp_path / "console.log") as console:
        console.expect(r"Memtest86\+ v\d", SECONDS)
        console.expect(rf"#{LAST} +\[", SECONDS)
        said = console.text
    begun = {int(number) for number in re.findall(r"#(\d+) +\[", said)}
    assert begun >= SLOW_ONES, begun
    assert set(re.findall(r"Errors: +(\d+)", said)) == {"0"}
    assert re.search(rf"Memory +: +{MEMORY_MIB - 1}|Memory +: +{MEMORY_MIB}MB", said)
