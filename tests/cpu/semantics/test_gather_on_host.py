"""Gathers and scatters against the host's processor, with indices that stay in the test's memory."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cpu.semantics import oracle, vector_oracle

TEXTS = """
    vpgatherdd xmm0, [rdi + xmm1*4 + 8], xmm2; vpgatherdd ymm0, [rdi + ymm1*8 + 8], ymm2
    vpgatherqd xmm0, [rdi + xmm1*4 + 8], xmm2; vgatherqps xmm0, [rdi + ymm1*4 + 8], xmm2
    vpgatherdq ymm0, [rdi + xmm1*8 + 16], ymm2; vgatherqpd xmm0, [rdi + xmm1*2 + 16], xmm2
    vpgatherdd zmm0 {k1}, [rdi + zmm1*8 + 16]; vgatherdpd zmm0 {k2}, [rdi + ymm1*8 + 16]
    vpgatherqd ymm0 {k1}, [rdi + zmm1*8 + 16]; vpgatherqd xmm0 {k3}, [rdi + xmm1 + 16]
    vpscatterdd [rdi + zmm1*4 + 8] {k1}, zmm2; vscatterqpd [rdi + ymm1*8 + 8] {k1}, ymm2
    vpscatterqd [rdi + xmm1*4 + 8] {k1}, xmm2
"""


@pytest.mark.parametrize("text", [t.strip() for line in TEXTS.strip().splitlines() for t in line.split(";")])
@settings(max_examples=10, deadline=None, phases=oracle.PHASES)
@given(given_operands=vector_oracle.operands(), indices=st.lists(st.integers(-1, 20), min_size=16, max_size=16))
def test_elements_come_from_where_the_indices_say(
    text: str, given_operands: vector_oracle.Operands, indices: list[int]
) -> None:
    width = 32 if "erd" in text.split()[0] else 64
    packed = sum((n & ((1 << width) - 1)) << (width * k) for k, n in enumerate(indices[: 512 // width]))
    vectors = (given_operands.vectors[0], packed, *given_operands.vectors[2:])
    vector_oracle.check(text, dataclasses.replace(given_operands, vectors=vectors))
