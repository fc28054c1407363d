"""The floating-point instructions that AVX-512 adds against the host's processor, and its approximations against their
bound.
"""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyemu.cpu import approximations14
from pyemu.cpu.state import VALUE, new_state
from tests.cpu.semantics import oracle, vector_oracle

TEXTS = """
    vgetexpps zmm0 {k1}, zmm1; vgetexppd ymm0, ymm1; vgetexpss xmm0, xmm1, xmm2
    vgetexpsd xmm0 {k1}, xmm1, [rdi]; vgetexpps zmm0, zmm1, {sae}; vgetmantsd xmm0, xmm1, xmm2, 0
    vgetmantps zmm0 {k1}, zmm1, 2; vgetmantsd xmm0, xmm1, xmm2, 3; vgetmantps zmm0 {k1}, zmm1, 5
    vgetmantsd xmm0, xmm1, xmm2, 6; vgetmantps zmm0 {k1}, zmm1, 8; vgetmantsd xmm0, xmm1, xmm2, 9
    vgetmantps zmm0 {k1}, zmm1, 11; vgetmantsd xmm0, xmm1, xmm2, 12; vgetmantps zmm0 {k1}, zmm1, 14
    vgetmantsd xmm0, xmm1, xmm2, 15; vscalefps zmm0, zmm1, zmm2; vscalefpd zmm0 {k1}, zmm1, zmm2
    vscalefss xmm0, xmm1, xmm2; vscalefsd xmm0, xmm1, [rdi]; vscalefps zmm0, zmm1, zmm2, {rd-sae}
    vrndscaleps zmm0 {k1}, zmm1, 0; vreducess xmm0, xmm1, xmm2, 0; vreducepd zmm0 {k1}, zmm1, 1
    vrndscalesd xmm0, xmm1, xmm2, 2; vrndscaleps zmm0 {k1}, zmm1, 3; vreducess xmm0, xmm1, xmm2, 3
    vreducepd zmm0 {k1}, zmm1, 4; vrndscalesd xmm0, xmm1, xmm2, 8; vrndscaleps zmm0 {k1}, zmm1, 9
    vreducess xmm0, xmm1, xmm2, 9; vreducepd zmm0 {k1}, zmm1, 17; vrndscalesd xmm0, xmm1, xmm2, 35
    vrndscaleps zmm0 {k1}, zmm1, 92; vreducess xmm0, xmm1, xmm2, 92; vreducepd zmm0 {k1}, zmm1, 240
    vrndscalesd xmm0, xmm1, xmm2, 242; vrndscaleps zmm0 {k1}, zmm1, 50; vreducess xmm0, xmm1, xmm2, 50
    vrangeps zmm0 {k1}, zmm1, zmm2, 1; vrangesd xmm0, xmm1, xmm2, 2; vrangeps zmm0 {k1}, zmm1, zmm2, 4
    vrangesd xmm0, xmm1, xmm2, 5; vrangeps zmm0 {k1}, zmm1, zmm2, 7; vrangesd xmm0, xmm1, xmm2, 8
    vrangeps zmm0 {k1}, zmm1, zmm2, 10; vrangesd xmm0, xmm1, xmm2, 11; vrangeps zmm0 {k1}, zmm1, zmm2, 13
    vrangesd xmm0, xmm1, xmm2, 14; vfpclassps k3 {k1}, zmm1, 0; vfpclasssd k2, xmm1, 1
    vfpclassps k3 {k1}, zmm1, 4; vfpclasssd k2, xmm1, 8; vfpclassps k3 {k1}, zmm1, 32; vfpclasssd k2, xmm1, 64
    vfpclassps k3 {k1}, zmm1, 255; vfpclasssd k2, xmm1, 153; vfixupimmps zmm0 {k1}, zmm1, zmm2, 1
    vfixupimmsd xmm0, xmm1, xmm2, 2; vfixupimmps zmm0 {k1}, zmm1, zmm2, 8; vfixupimmsd xmm0, xmm1, xmm2, 16
    vfixupimmps zmm0 {k1}, zmm1, zmm2, 64; vfixupimmsd xmm0, xmm1, xmm2, 128
"""
NATIVE = """
    vgetexppd ymm0, ymm1; vgetmantps zmm0 {k1}, zmm1, 7; vscalefpd zmm0 {k1}, zmm1, zmm2; vrndscalesd xmm0, xmm1, xmm2, 35
    vreducepd zmm0 {k1}, zmm1, 8; vrangeps zmm0 {k1}, zmm1, zmm2, 6; vfpclassps k3 {k1}, zmm1, 153
    vfixupimmps zmm0 {k1}, zmm1, zmm2, 255
"""


def texts(block: str) -> list[str]:
    return [text.strip() for line in block.strip().splitlines() for text in line.split(";")]


@pytest.mark.parametrize("text", texts(TEXTS))
@settings(max_examples=5, deadline=None, phases=oracle.PHASES)
@given(given_operands=vector_oracle.operands())
def test_reference_equals_host(text: str, given_operands: vector_oracle.Operands) -> None:
    vector_oracle.check(text, given_operands, ("reference",))


@pytest.mark.parametrize("text", texts(NATIVE))
@settings(max_examples=10, deadline=None, phases=oracle.PHASES)
@given(given_operands=vector_oracle.operands())
def test_native_back_ends_equal_host(text: str, given_operands: vector_oracle.Operands) -> None:
    vector_oracle.check(text, given_operands, ("interp", "jit"))


@settings(max_examples=300, deadline=None)
@given(x=st.floats(1e-300, 1e300))
def test_approximations_are_within_their_bound(x: float) -> None:
    bits = int(struct.unpack("<Q", struct.pack("<d", x))[0])
    s = new_state()
    for function, exact in ((approximations14.reciprocal_double, 1 / x), (approximations14.root_double, 1 / math.sqrt(x))):
        function(s, bits)
        found = struct.unpack("<d", struct.pack("<Q", s[VALUE]))[0]
        assert abs(found / exact - 1) < 2**-14
