"""Instructions that 64-bit mode doesn't have, against the host's processor in 32-bit code; all flags compared."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cpu.semantics import compat_host, oracle
from tests.cpu.semantics.oracle import Operands

DECIMAL = ["aaa", "aas", "daa", "das", "aam", "aam 16", "aam 3", "aad", "aad 7", "aad 255"]
SHORT = ["hex 40", "hex 4b", "hex 6641", "hex 664a"]  # one-byte INC and DEC
CORNERS = (0, 0xFA, 0x106, 0x100, 0x7FFA, 0x7F0A, 0x8000, 0x80FF, 0x7EFF, 0x8006, 0x8106, 0xFEFA, 0xFFFA, 0x99, 0x9A)


@pytest.mark.parametrize("text", DECIMAL + SHORT)
def test_same_as_host(text: str) -> None:
    @settings(max_examples=60, deadline=None, database=None, derandomize=True, phases=oracle.PHASES)
    @given(oracle.scalars(), st.one_of(st.sampled_from(CORNERS), st.integers(0, 0xFFFF)))
    def body(given: Operands, ax: int) -> None:
        gpr = (given.gpr[0] & ~0xFFFF | ax, *given.gpr[1:])
        compat_host.check(text, Operands(gpr, given.flags, given.xmm, given.mm, given.mxcsr, given.memory))

    body()
