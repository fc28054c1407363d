"""AES, SHA, GFNI, PCLMULQDQ and BMI in all their encodings, and AVX2's permutations, against the host's processor."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from tests.cpu.semantics import oracle, vector_oracle

LEGACY = [f"{name} {a}, {b}" for name in "aesenc aesenclast aesdec aesdeclast aesimc".split()
          for a, b in (("xmm0", "xmm1"), ("xmm2", "[rdi + 16]"))]  # fmt: skip
LEGACY += [f"aeskeygenassist xmm0, {b}, {n}" for b in ("xmm1", "[rdi]") for n in (0, 1, 0x1B, 0x80)]
LEGACY += [f"pclmulqdq xmm0, {b}, {n}" for b in ("xmm1", "[rdi]") for n in (0, 1, 0x10, 0x11, 0xEE)]
LEGACY += [f"sha1rnds4 xmm0, {b}, {n}" for b in ("xmm1", "[rdi]") for n in (0, 1, 2, 3, 6)]
LEGACY += [f"{name} xmm1, {b}" for name in
           "sha1nexte sha1msg1 sha1msg2 sha256rnds2 sha256msg1 sha256msg2".split() for b in ("xmm2", "[rdi + 16]")]  # fmt: skip
# keystone knows no GFNI: opcode, ModRM, immediate
GFNI = ["hex 660f38cfc1", "hex 660f38cf4710", "hex 660f3acec100", "hex 660f3acec163", "hex 660f3ace4710a5",
        "hex 660f3acfc163", "hex 660f3acf471000"]  # fmt: skip

_SIZES = (("xmm", "xmmword"), ("ymm", "ymmword"), ("zmm", "zmmword"))
VECTOR = [f"v{name} {r}0, {r}1, {b}" for name in "aesenc aesenclast aesdec aesdeclast gf2p8mulb".split() for r, size in _SIZES
          for b in (f"{r}2", f"{size} ptr [rdi + 32]")]  # fmt: skip
VECTOR += [f"vpclmulqdq {r}0, {r}1, {r}2, {n}" for r, _ in _SIZES for n in (0, 1, 0x10, 0x11)]
VECTOR += [f"v{name} {r}0, {r}1, {b}, {n}" for name in ("gf2p8affineqb", "gf2p8affineinvqb") for r, size in _SIZES
           for b in (f"{r}2", f"{size} ptr [rdi + 32]") for n in (0, 0x63)]  # fmt: skip
VECTOR += ["vaesimc xmm0, xmm1", "vaesimc xmm0, xmmword ptr [rdi + 1]", "vaeskeygenassist xmm0, xmm1, 0x36"]
VECTOR += ["vgf2p8mulb ymm0 {k1}, ymm1, ymm2", "vgf2p8mulb zmm0 {k2} {z}, zmm1, zmmword ptr [rdi]"]
VECTOR += ["vgf2p8affineqb xmm0 {k1} {z}, xmm1, qword ptr [rdi + 8]{1to2}, 7"]
VECTOR += ["vgf2p8affineinvqb zmm0 {k1}, zmm1, qword ptr [rdi + 8]{1to8}, 7"]

PERMUTATIONS = [f"{name} ymm0, ymm1, {b}" for name in ("vpermd", "vpermps") for b in ("ymm2", "ymmword ptr [rdi + 1]")]
PERMUTATIONS += [f"{name} ymm0, {b}, {n}" for name in ("vpermq", "vpermpd") for b in ("ymm2", "ymmword ptr [rdi + 1]")
                 for n in (0x1B, 0xE4, 0x93)]  # fmt: skip
_REGISTERS = (("eax", "ecx", "edx", "dword ptr [rdi + 1]"), ("rax", "rcx", "rdx", "qword ptr [rdi + 1]"))
BMI = [f"{name} {a}, {b}, {c}" for name in "andn pdep pext mulx".split() for a, b, d, m in _REGISTERS for c in (d, m)]
BMI += [f"{name} {a}, {c}, {b}" for name in "bextr bzhi sarx shlx shrx".split() for a, b, d, m in _REGISTERS for c in (d, m)]
BMI += [f"{name} {a}, {c}" for name in "blsi blsr blsmsk".split() for a, _, d, m in _REGISTERS for c in (d, m)]
BMI += [f"rorx {a}, {c}, {n}" for a, _, d, m in _REGISTERS for c in (d, m) for n in (0, 7, 31, 33)]
BMI += ["mulx rax, rax, rcx", "mulx eax, eax, dword ptr [rdi]", "mulx rdx, rcx, rdx", "pext rax, rax, rax"]


@pytest.mark.parametrize("text", LEGACY + GFNI)
def test_legacy(text: str) -> None:
    @settings(max_examples=8, deadline=None, database=None, derandomize=True, phases=oracle.PHASES)
    @given(oracle.simd())
    def body(given: oracle.Operands) -> None:
        oracle.check(text, given)

    body()


@pytest.mark.parametrize("text", VECTOR + PERMUTATIONS)
def test_vex_and_evex(text: str) -> None:
    @settings(max_examples=5, deadline=None, database=None, derandomize=True, phases=oracle.PHASES)
    @given(vector_oracle.operands())
    def body(given: vector_oracle.Operands) -> None:
        vector_oracle.check(text, given)

    body()


@pytest.mark.parametrize("text", BMI)
def test_bmi(text: str) -> None:
    code = vector_oracle.assemble(text)

    @settings(max_examples=12, deadline=None, database=None, derandomize=True, phases=oracle.PHASES)
    @given(oracle.scalars())
    def body(given: oracle.Operands) -> None:
        oracle.check(f"hex {code.hex()}", given)

    body()
