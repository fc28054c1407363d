"""Debian's gdb going back: `reverse-stepi`, `reverse-continue` to breakpoints and to what a write has changed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyemu.machine import Machine
from tests.gdb.conftest import run_gdb
from tests.gdb.sector import LONG, sector


@pytest.fixture(params=["jit", "interp"])
def remembering(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    image = tmp_path / "sector"
    image.write_bytes(sector())
    with Machine(kernel=str(image), memory="16M", accelerator=request.param, record="", gdb="tcp::0") as made:
        made.prepare()
        yield made


def test_back_to_writes_and_breakpoints(remembering: Machine) -> None:
    """The write is undone when gdb stops: it sees the old value come back."""
    output = run_gdb(
        remembering, f"tbreak *{LONG:#x}", "continue", "watch *(long*)0x600", "continue", "continue", "continue",
        "reverse-continue", "p $rip", "reverse-continue", "p $rbx", "continue", "delete",
        "tbreak *0x7d70", "reverse-continue", "p $rbx", "reverse-stepi", "x/i $pc", "stepi", "x/i $pc", "detach",
    )  # fmt: skip
    values = [(int(a), int(b)) for a, b in re.findall(r"Old value = (\d+)\nNew value = (\d+)", output)]
    assert values == [(0, 1), (1, 2), (2, 3), (3, 2), (2, 1), (1, 2)], output
    assert "$1 = (void (*)()) 0x7d22" in output and "$2 = 2" in output, output
    assert re.search(r"\$3 = 2\n0x0*7d28 .*\n=> 0x7d28:\tcall", output), output
    assert re.search(r"=> 0x7d70:\tinc", output), output


def test_back_to_the_beginning(remembering: Machine) -> None:
    output = run_gdb(
        remembering, f"break *{LONG:#x}", "continue", "stepi", "reverse-stepi", "p $rip", "delete",
        "reverse-continue", "p/x $cs_base", "p $rip", "reverse-stepi", "detach",
    )  # fmt: skip
    assert f"$1 = (void (*)()) {LONG:#x}" in output, output
    assert output.count("No more reverse-execution history") == 2, output
    assert "$3 = (void (*)()) 0x7c00" in output, output
