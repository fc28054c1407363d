"""The same guest on all back ends: equal counts, equal state at every 97th instruction.

The built-in guest's self-test has what makes back ends drift apart: timer interrupts, page faults that it handles, REP
instructions, mode switches, system calls, power-off.
"""

from __future__ import annotations

import pytest

from tests.differential.lockstep import compare, machines
from tests.linux_guests import images


def test_builtin_guest_on_all_back_ends() -> None:
    """To the end of the self-test, on reference, interpreter and translator."""
    with machines(["reference", "interp", "jit"], append="selftest", memory=64 << 20) as group:
        executed = compare(group, 97, 1000)
        assert b"selftest: ok" in group[0].output
        assert [m.output for m in group[1:]] == [group[0].output] * 2
        assert executed > 10_000


@pytest.mark.parametrize("step", [10_000_019])
def test_linux_on_both_native_back_ends(step: int) -> None:
    """A kernel boot into its late initialisation; the step is prime so that it falls everywhere into blocks."""
    kernel = str(images.obtain().cloud)
    with machines(["interp", "jit"], kernel=kernel, append="console=ttyS0", memory=256 << 20) as group:
        assert compare(group, step, 60) > 500_000_000
