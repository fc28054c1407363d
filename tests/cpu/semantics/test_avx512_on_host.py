"""What AVX-512 adds of its own, against the host's processor: mask registers, integers, permutations, conversions.

The SSE families in their EVEX encodings are in test_vectors_on_host.py.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from pyemu.cpu import mode
from pyemu.cpu.faults import PF, UD
from pyemu.cpu.state import CR0, CR3, CR4, FAULT_VECTOR, GPR, NO_FAULT, OPMASK, RDI, XCR0
from tests.cpu.semantics import oracle, vector_oracle
from tests.cpu.semantics.machines import RAM, Machine
from tests.cpu.semantics.vector_shapes import shapes

MASKS = [
    *(f"{name}{size} k3, k1, k2" for name in ("kand", "kandn", "kor", "kxnor", "kxor", "kadd") for size in "bwdq"),
    *(f"{name}{size} k2, k1, {n}" for name in ("kshiftl", "kshiftr") for size in "bwdq" for n in (3, 8, 31, 63, 200)),
    *(f"{name}{size} k1, k2" for name in ("knot", "kortest", "ktest", "kmov") for size in "bwdq"),
    *(f"kmov{size} {operands}" for size in "bwdq" for operands in ("k3, [rdi+3]", "[rdi+3], k2")),
    *(f"kmov{size} {operands}" for size in "bwd" for operands in ("k3, ecx", "ecx, k3")),
    *("kmovq k3, rcx", "kmovq rcx, k3", "kunpckbw k3, k1, k2", "kunpckwd k3, k1, k2", "kunpckdq k3, k1, k2"),
    *(f"vpmovm2{size} {vector}, k1" for size in "bwdq" for vector in ("xmm0", "zmm0")),
    *(f"vpmov{size}2m k3, {vector}" for size in "bwdq" for vector in ("ymm0", "zmm0")),
    *("vpbroadcastmb2q zmm0, k1", "vpbroadcastmw2d ymm0, k1"),
]

COMPARISONS = """
    vpcmpb k3, V1, W2, 0; vpcmpub k3, V1, W2, 1; vpcmpw k3, V1, W2, 2; vpcmpuw k3, V1, W2, 3; vpcmpd k3, V1, W2:32, 4
    vpcmpud k3, V1, W2:32, 5; vpcmpq k3, V1, W2:64, 6; vpcmpuq k3, V1, W2:64, 7; vpcmpq k3, V1, W2:64, 1
    vptestmb k3, V1, W2; vptestnmw k3, V1, W2; vptestmd k3, V1, W2:32; vptestnmq k3, V1, W2:64
    vpblendmb V0, V1, W2; vpblendmw V0, V1, W2; vpblendmd V0, V1, W2:32; vblendmpd V0, V1, W2:64
    vpshufbitqmb k3, V1, W2
"""
INTEGERS = """
    vpternlogd V0, V1, W2:32, 0x96; vpternlogq V0, V1, W2:64, 0x1b; vprold V0, W1:32, 7; vprolq V0, W1:64, 77
    vprord V0, W1:32, 32; vprorq V0, W1:64, 13; vprolvd V0, V1, W2:32; vprorvq V0, V1, W2:64
    vpsllvw V0, V1, W2; vpsrlvw V0, V1, W2; vpsravw V0, V1, W2; vpsllvd V0, V1, W2:32
    vpsrlvq V0, V1, W2:64; vpsravd V0, V1, W2:32; vpsravq V0, V1, W2:64; vpabsq V0, W1:64
    vpminsq V0, V1, W2:64; vpmaxsq V0, V1, W2:64; vpminuq V0, V1, W2:64; vpmaxuq V0, V1, W2:64
    vdbpsadbw V0, V1, W2, 0x1b; vplzcntd V0, W1:32; vplzcntq V0, W1:64; vpconflictd V0, W1:32; vpconflictq V0, W1:64
    vpopcntb V0, W1; vpopcntw V0, W1; vpopcntd V0, W1:32; vpopcntq V0, W1:64; vpmadd52luq V0, V1, W2:64
    vpmadd52huq V0, V1, W2:64; vpdpbusd V0, V1, W2:32; vpdpbusds V0, V1, W2:32; vpdpwssd V0, V1, W2:32
    vpdpwssds V0, V1, W2:32; vpmultishiftqb V0, V1, W2:64; vpshldw V0, V1, W2, 5; vpshldd V0, V1, W2:32, 33
    vpshldq V0, V1, W2:64, 64; vpshrdw V0, V1, W2, 16; vpshrdd V0, V1, W2:32, 7; vpshrdq V0, V1, W2:64, 9
    vpshldvw V0, V1, W2; vpshldvd V0, V1, W2:32; vpshrdvw V0, V1, W2; vpshrdvq V0, V1, W2:64
"""
PERMUTATIONS = """
    vpermb V0, V1, W2; vpermw V0, V1, W2; vpermd V0, V1, W2:32 @256/512; vpermps V0, V1, W2:32 @256/512
    vpermq V0, V1, W2:64 @256/512; vpermpd V0, V1, W2:64 @256/512; vpermq V0, W1:64, 0x72 @256/512
    vpermpd V0, W1:64, 0x1b @256/512; vpermi2b V0, V1, W2; vpermi2w V0, V1, W2; vpermi2d V0, V1, W2:32
    vpermi2q V0, V1, W2:64; vpermi2ps V0, V1, W2:32; vpermi2pd V0, V1, W2:64; vpermt2b V0, V1, W2; vpermt2w V0, V1, W2
    vpermt2d V0, V1, W2:32; vpermt2q V0, V1, W2:64; vpermt2ps V0, V1, W2:32; vpermt2pd V0, V1, W2:64
    vpermilps V0, V1, W2:32; vpermilpd V0, V1, W2:64; vpermilps V0, W1:32, 0x72; vpermilpd V0, W1:64, 0xa6
    valignd V0, V1, W2:32, 21; valignq V0, V1, W2:64, 3; vshuff32x4 V0, V1, W2:32, 0x72 @256/512
    vshuff64x2 V0, V1, W2:64, 0x1b @256/512; vshufi32x4 V0, V1, W2:32, 0x93 @256/512
    vshufi64x2 V0, V1, W2:64, 1 @256/512; vinsertf32x4 V0, V1, X2, 3 @256/512; vinserti64x2 V0, V1, [rdi+16], 1 @256/512
    vinsertf32x8 V0, V1, W2/2, 1 @512; vinserti64x4 V0, V1, W2/2, 0 @512; vextractf64x2 X0, V1, 3 @256/512
    vextracti32x4 [rdi+16], V1, 2 @256/512; vextractf32x8 W0/2, V1, 1 @512; vextracti64x4 W0/2, V1, 0 @512
    vbroadcastf32x4 V0, [rdi+16] @256/512; vbroadcasti64x2 V0, [rdi+16] @256/512; vbroadcastf32x8 V0, [rdi+32] @512
    vbroadcasti64x4 V0, [rdi+32] @512; vbroadcastf32x2 V0, X1 @256/512; vbroadcasti32x2 V0, [rdi+8]
    vbroadcastss V0, X1; vbroadcastsd V0, [rdi+8] @256/512; vpbroadcastb V0, ecx; vpbroadcastb V0, [rdi+3]
    vpbroadcastw V0, ecx; vpbroadcastw V0, X1; vpbroadcastd V0, ecx; vpbroadcastd V0, [rdi+4]; vpbroadcastq V0, rcx
    vpbroadcastq V0, X1
"""
COMPRESSIONS = """
    vpcompressb V0, V1; vpcompressb [rdi+3], V1; vpcompressw V0, V1; vpcompressw [rdi+6], V1; vpcompressd V0, V1
    vpcompressd [rdi+4], V1; vpcompressq W0, V1; vcompressps V0, V1; vcompresspd [rdi+8], V1; vpexpandb V0, V1
    vpexpandb V0, [rdi+3]; vpexpandw V0, V1; vpexpandw V0, [rdi+6]; vpexpandd V0, [rdi+4]; vpexpandq V0, W1
    vexpandps V0, V1; vexpandpd V0, [rdi+8]
    vpmovwb W0/2, V1; vpmovdb W0/4, V1; vpmovqb W0/8, V1; vpmovdw W0/2, V1; vpmovqw W0/4, V1; vpmovqd W0/2, V1
    vpmovswb W0/2, V1; vpmovsdb W0/4, V1; vpmovsqb W0/8, V1; vpmovsdw W0/2, V1; vpmovsqw W0/4, V1; vpmovsqd W0/2, V1
    vpmovuswb W0/2, V1; vpmovusdb W0/4, V1; vpmovusqb W0/8, V1; vpmovusdw W0/2, V1; vpmovusqw W0/4, V1
    vpmovusqd W0/2, V1
"""
CONVERSIONS = """
    vcvtps2udq V0, W1:32 er; vcvttps2udq V0, W1:32 sae; vcvtpd2udq V0/2, W1:64 er; vcvttpd2udq V0/2, W1:64 sae
    vcvtps2qq V0, W1/2:32 er; vcvttps2qq V0, W1/2:32 sae; vcvtps2uqq V0, W1/2:32 er; vcvttps2uqq V0, W1/2:32 sae
    vcvtpd2qq V0, W1:64 er; vcvttpd2qq V0, W1:64 sae; vcvtpd2uqq V0, W1:64 er; vcvttpd2uqq V0, W1:64 sae
    vcvtudq2ps V0, W1:32 er; vcvtudq2pd V0, W1/2:32; vcvtqq2ps V0/2, W1:64 er; vcvtqq2pd V0, W1:64 er
    vcvtuqq2ps V0/2, W1:64 er; vcvtuqq2pd V0, W1:64 er
    vcvtpd2ps V0/2, W1:64 er; vcvttpd2dq V0/2, W1:64 sae; vcvtdq2ps V0, W1:32 er
"""
SCALARS = [
    *(f"vcvt{t}s{p}2usi {r}, {s}" for t in ("", "t") for p in "sd" for r in ("eax", "rax") for s in ("xmm1", "[rdi+8]")),
    *("vcvtss2usi eax, xmm1, {ru-sae}", "vcvtsd2usi rax, xmm1, {rd-sae}", "vcvttsd2usi rax, xmm1, {sae}"),
    *(f"vcvtusi2s{p} xmm0, xmm1, {s}" for p in "sd" for s in ("ecx", "rcx", "dword ptr [rdi]", "qword ptr [rdi+8]")),
    *("vcvtusi2ss xmm0, xmm1, {rz-sae}, ecx", "vcvtusi2sd xmm0, xmm1, {ru-sae}, rcx"),
]
# Each has something of its own to go wrong in the native back ends.
BRIEF = """
    kaddw k3, k1, k2; kshiftlq k2, k1, 63; kortestd k1, k2; kmovb k3, [rdi+3]; kmovq [rdi+3], k2; kmovd ecx, k3
    vpmovm2w zmm0, k1; vpmovq2m k3, zmm0; vpcmpuw k3 {k1}, zmm1, zmm2, 2; vpblendmb zmm0 {k2} {z}, zmm1, [rdi+64]
    vpshufbitqmb k3 {k1}, zmm1, zmm2; vpternlogq zmm0 {k1}, zmm1, qword ptr [rdi+8]{1to8}, 0x96
    vprolvd zmm0 {k1}, zmm1, zmm2; vpsravw zmm0, zmm1, zmm2; vpconflictd zmm0 {k1}, [rdi+64]; vpmadd52huq zmm0, zmm1, zmm2
    vpdpbusds zmm0 {k1}, zmm1, zmm2; vpermb zmm0 {k1}, zmm1, zmm2; vpermi2w zmm0, zmm1, zmm2
    valignd zmm0 {k1}, zmm1, zmm2, 21; vextractf32x4 [rdi+16] {k1}, zmm1, 2; vbroadcasti64x2 zmm0 {k1}, [rdi+16]
    vpcompressb zmm0 {k1}, zmm1; vpcompressd [rdi+4] {k1}, zmm1; vpexpandw zmm0 {k2} {z}, [rdi+6]
    vpmovsqb xmm0 {k1}, zmm1; vpmovusdw [rdi+32] {k1}, zmm1; vcvtps2udq zmm0 {k1}, zmm1; vcvttpd2uqq zmm0, zmm1
    vcvtps2uqq zmm0, ymm1, {ru-sae}; vcvtuqq2ps ymm0 {k1}, zmm1; vcvtuqq2pd zmm0, zmm1, {rd-sae}
    vcvtpd2ps xmm0 {k1}, xmmword ptr [rdi+16]; vcvtsd2usi eax, xmm1; vcvtusi2ss xmm0, xmm1, rcx
"""


def texts(block: str) -> list[str]:
    return [text.strip() for line in block.strip().splitlines() for text in line.split(";") if text.strip()]


@pytest.mark.parametrize("text", [*MASKS, *SCALARS])
@settings(max_examples=4, deadline=None, phases=oracle.PHASES)
@given(given_operands=vector_oracle.operands())
def test_masks_and_scalars_equal_host(text: str, given_operands: vector_oracle.Operands) -> None:
    vector_oracle.check(text, given_operands, ("reference",))


@pytest.mark.parametrize("template", texts(COMPARISONS + INTEGERS + PERMUTATIONS + COMPRESSIONS + CONVERSIONS))
@settings(max_examples=2, deadline=None, phases=oracle.PHASES)
@given(given_operands=vector_oracle.operands())
def test_reference_equals_host(template: str, given_operands: vector_oracle.Operands) -> None:
    for text in shapes(template):
        vector_oracle.check(text, given_operands, ("reference",))


@pytest.mark.parametrize("text", texts(BRIEF))
@settings(max_examples=20, deadline=None, phases=oracle.PHASES)
@given(given_operands=vector_oracle.operands())
def test_native_back_ends_equal_host(text: str, given_operands: vector_oracle.Operands) -> None:
    vector_oracle.check(text, given_operands, ("interp", "jit"))


# A memory operand in a page that isn't there, with a mask that selects nothing: what then doesn't fault has exception
# type E4, E6 or their like (SDM 2, 2.8); tried on Zen 4.
SUPPRESSED = """
    vbroadcastss V0, [rdi]; vbroadcastf32x4 V0, [rdi] @512; vpbroadcastb V0, [rdi]; vcompressps [rdi], V0
    vpcompressb [rdi], V0; vexpandps V0, [rdi]; vpexpandb V0, [rdi]; vpmovqd [rdi], V0; vpmovwb [rdi], V0
    vplzcntd V0, [rdi]; vpshufbitqmb k2, V1, [rdi]; vpmadd52luq V0, V1, [rdi]; vpdpbusd V0, V1, [rdi]
    vpternlogd V0, V1, [rdi], 3; vprold V0, [rdi], 3; vpsllvw V0, V1, [rdi]; vpopcntb V0, [rdi]; vpshldvw V0, V1, [rdi]
    vpblendmb V0, V1, [rdi]; vpcmpb k2, V1, [rdi], 1; vptestnmq k2, V1, [rdi]; vcvtqq2pd V0, [rdi]
    vaddps V0, V1, dword ptr [rdi]{1to16} @512; vpcmpd k2, V1, dword ptr [rdi]{1to16}, 1 @512; vmovdqu8 [rdi], V0
"""
NOT_SUPPRESSED = """
    vextractf32x4 [rdi], V0, 1 @512; vinsertf32x4 V0, V1, [rdi], 1 @512; vpermd V0, V1, [rdi] @512; vpermb V0, V1, [rdi]
    vpermq V0, [rdi], 3 @512; vpermi2d V0, V1, [rdi]; vpermt2pd V0, V1, [rdi]; vpermilps V0, V1, [rdi]
    vpermilps V0, [rdi], 3; vshuff32x4 V0, V1, [rdi], 3 @512; vpconflictd V0, [rdi]; vpmultishiftqb V0, V1, [rdi]
    valignq V0, V1, [rdi], 3; vdbpsadbw V0, V1, [rdi], 3; vpermd V0, V1, dword ptr [rdi]{1to16} @512
    vpunpckldq V0, V1, [rdi]; vpshufd V0, [rdi], 3
"""


def paged() -> Machine:
    """A machine whose first 2 MiB are all that is mapped."""
    m = Machine(64)
    tables, s = RAM - 0x3000, m.s
    for at, entry in ((0, tables + 0x1003), (0x1000, tables + 0x2003), (0x2000, 0x83)):
        m.ram[tables + at : tables + at + 8] = entry.to_bytes(8, "little")
    s[CR3], s[CR4], s[CR0] = tables, s[CR4] | 0x20, s[CR0] | 1 << 31
    mode.update(s)
    return m


def _fault(text: str) -> int:
    """What the instruction raises with RDI not mapped and k1 empty."""
    m = paged()
    m.s[GPR + RDI], m.s[OPMASK + 1] = 1 << 30, 0
    m.step(vector_oracle.assemble(text))
    return int(m.s[FAULT_VECTOR])


@pytest.mark.parametrize("template", texts(SUPPRESSED))
def test_what_the_mask_leaves_out_cannot_fault(template: str) -> None:
    for text in shapes(template):
        if "{k1}" in text:
            assert _fault(text) == NO_FAULT, text


@pytest.mark.parametrize("template", texts(NOT_SUPPRESSED))
def test_what_is_read_whole_can_fault(template: str) -> None:
    for text in shapes(template):
        if "{k1}" in text:
            assert _fault(text) == PF, text


def test_mask_registers_need_their_state_enabled() -> None:
    m = Machine(64)
    m.s[XCR0] = 7
    m.step(vector_oracle.assemble("kandw k1, k2, k3"))
    assert m.s[FAULT_VECTOR] == UD
