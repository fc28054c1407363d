"""MMX and SSE to SSE4.2 against the host's processor: results, and exception flags in MXCSR."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from tests.cpu.semantics import oracle
from tests.cpu.semantics.oracle import Operands

_SHARED = (
    "punpcklbw punpcklwd punpckldq packsswb pcmpgtb pcmpgtw pcmpgtd packuswb punpckhbw punpckhwd punpckhdq packssdw pcmpeqb"
    " pcmpeqw pcmpeqd psrlw psrld psrlq paddq pmullw psubusb psubusw pminub pand paddusb paddusw pmaxub pandn pavgb psraw psrad"
    " pavgw pmulhuw pmulhw psubsb psubsw pminsw por paddsb paddsw pmaxsw pxor psllw pslld psllq pmuludq pmaddwd psadbw psubb psubw"
    " psubd psubq paddb paddw paddd pshufb phaddw phaddd phaddsw pmaddubsw phsubw phsubd phsubsw psignb psignw psignd pmulhrsw"
    " pabsb pabsw pabsd"
).split()
_SHIFTS = "psrlw psraw psllw psrld psrad pslld psrlq psllq".split()

MMX = [f"{name} {a}, {b}" for name in _SHARED for a, b in (("mm0", "mm1"), ("mm1", "[rdi + 3]"))]
MMX += [f"{name} mm0, {n}" for name in _SHIFTS for n in (0, 3, 15, 70)] + [
    f"palignr mm0, mm1, {n}" for n in (0, 3, 8, 13, 16)
]
MMX += [
    "movd mm0, ecx",
    "movq mm0, rcx",
    "movd eax, mm1",
    "movq rax, mm1",
    "movq mm0, mm1",
    "movq mm0, [rdi + 1]",
    "movq [rdi], mm1",
]
MMX += [
    "movntq [rdi + 8], mm0",
    "pshufw mm0, mm1, 0x1b",
    "pinsrw mm0, ecx, 2",
    "pinsrw mm0, word ptr [rdi], 7",
    "pextrw eax, mm1, 3",
]
MMX += [
    "pmovmskb eax, mm0",
    "movq2dq xmm0, mm1",
    "movdq2q mm0, xmm1",
    "maskmovq mm0, mm1",
    "movd [rdi + 2], mm1",
    "movd mm0, [rdi]",
]

INTEGER = [
    f"{name} {a}, {b}"
    for name in [*_SHARED, "punpcklqdq", "punpckhqdq"]
    for a, b in (("xmm0", "xmm1"), ("xmm2", "[rdi + 16]"))
]
INTEGER += [f"{name} xmm1, {n}" for name in [*_SHIFTS, "psrldq", "pslldq"] for n in (0, 3, 15, 16, 70)]
INTEGER += [
    "movd xmm0, ecx",
    "movq xmm0, rcx",
    "movd eax, xmm1",
    "movq rax, xmm1",
    "movq xmm0, xmm1",
    "movq xmm0, [rdi + 1]",
]
INTEGER += [
    "movq [rdi + 1], xmm1",
    "movdqa xmm0, xmm1",
    "movdqa xmm0, [rdi + 16]",
    "movdqa [rdi], xmm2",
    "movdqu xmm0, [rdi + 1]",
]
INTEGER += ["movdqu [rdi + 1], xmm2", "lddqu xmm0, [rdi + 5]", "movntdq [rdi + 16], xmm1", "maskmovdqu xmm0, xmm1"]
INTEGER += [
    f"{name} xmm0, {b}, {n}"
    for name in "pshufd pshuflw pshufhw".split()
    for b in ("xmm1", "[rdi]")
    for n in (0x1B, 0xE4, 0x93)
]
INTEGER += ["pinsrw xmm0, ecx, 5", "pinsrw xmm0, word ptr [rdi], 9", "pextrw eax, xmm1, 6", "pmovmskb eax, xmm1"]
INTEGER += [f"palignr xmm0, {b}, {n}" for b in ("xmm1", "[rdi]") for n in (0, 5, 16, 21, 32)]

SSE41 = [f"{name} {a}, {b}" for name in
         ("pmuldq pcmpeqq pcmpgtq packusdw pminsb pminsd pminuw pminud pmaxsb pmaxsd pmaxuw pmaxud pmulld phminposuw ptest"
          " pblendvb blendvps blendvpd").split() for a, b in (("xmm1", "xmm2"), ("xmm2", "[rdi + 16]"))]  # fmt: skip
SSE41 += [f"pmov{s}x{k} xmm0, {b}" for s in "sz" for k in "bw bd bq wd wq dq".split() for b in ("xmm1", "[rdi + 1]")]
SSE41 += [f"{name} xmm0, {b}, {n}" for name in "blendps blendpd pblendw mpsadbw dpps dppd".split() for b in ("xmm1", "[rdi]")
          for n in (0, 0x5A, 0xFF, 0x37)]  # fmt: skip
SSE41 += [
    "movntdqa xmm0, [rdi + 16]",
    "pinsrb xmm0, ecx, 13",
    "pinsrb xmm0, byte ptr [rdi + 1], 3",
    "pinsrd xmm0, ecx, 2",
]
SSE41 += [
    "pinsrq xmm0, rcx, 1",
    "pinsrd xmm0, dword ptr [rdi + 1], 7",
    "pextrb eax, xmm1, 11",
    "pextrb byte ptr [rdi], xmm1, 4",
]
SSE41 += [
    "pextrw word ptr [rdi], xmm1, 4",
    "hex 660f3a15c805",
    "pextrd eax, xmm1, 3",
    "pextrq rax, xmm1, 1",
    "pextrd [rdi], xmm0, 1",
]
SSE41 += [
    "extractps eax, xmm1, 2",
    "extractps [rdi + 1], xmm1, 3",
    "insertps xmm0, xmm1, 0x92",
    "insertps xmm0, [rdi + 4], 0x35",
]
SSE41 += [
    f"round{k} xmm0, {b}, {n}"
    for k in "ps pd ss sd".split()
    for b in ("xmm1", "[rdi]")
    for n in (0, 1, 2, 3, 4, 8, 9, 12)
]

TEXT = [f"{name} xmm0, {b}, {n}" for name in "pcmpistri pcmpistrm pcmpestri pcmpestrm".split() for b in ("xmm1", "[rdi + 3]")
        for n in (0, 0x01, 0x0C, 0x18, 0x44, 0x3A, 0x73, 0x55, 0x0D, 0x66)]  # fmt: skip

_FLOAT = [f"{name}{k}" for name in "add sub mul div min max sqrt".split() for k in "ps pd ss sd".split()]
_FLOAT += [f"{name}{k}" for name in "and andn or xor haddX hsubX addsubX unpckl unpckh".split() for k in ("ps", "pd")]
_FLOAT += "comiss comisd ucomiss ucomisd movsldup movshdup movddup cvtps2pd cvtpd2ps cvtss2sd cvtsd2ss".split()
_FLOAT += "cvtdq2ps cvtps2dq cvttps2dq cvtdq2pd cvtpd2dq cvttpd2dq".split()
FLOAT = [f"{name.replace('X', '')} {a}, {b}" for name in _FLOAT for a, b in (("xmm0", "xmm1"), ("xmm2", "[rdi + 16]"))]
FLOAT += [f"cmp{p}{k} xmm0, {b}" for p in "eq lt le unord neq nlt nle ord".split() for k in "ps pd ss sd".split()
          for b in ("xmm1", "[rdi]")]  # fmt: skip
FLOAT += [f"{name} {a}, {b}" for name in "cvtss2si cvttss2si cvtsd2si cvttsd2si".split() for a in ("eax", "rax")
          for b in ("xmm1", "[rdi]")]  # fmt: skip
FLOAT += [
    f"{name} {a}"
    for name in ("cvtsi2ss xmm0,", "cvtsi2sd xmm0,")
    for a in ("ecx", "rcx", "dword ptr [rdi]", "qword ptr [rdi]")
]
FLOAT += [f"{name} mm0, {b}" for name in "cvtps2pi cvttps2pi cvtpd2pi cvttpd2pi".split() for b in ("xmm1", "[rdi]")]
FLOAT += [f"{name} xmm0, {b}" for name in ("cvtpi2ps", "cvtpi2pd") for b in ("mm1", "[rdi]")]
FLOAT += ["shufps xmm0, xmm1, 0x1b", "shufpd xmm0, [rdi], 2", "movmskps eax, xmm1", "movmskpd eax, xmm1"]
FLOAT += [
    "movups xmm0, [rdi + 1]",
    "movups [rdi + 1], xmm1",
    "movaps xmm0, xmm1",
    "movapd [rdi + 16], xmm1",
    "movss xmm0, xmm1",
]
FLOAT += [
    "movss xmm0, [rdi]",
    "movss [rdi], xmm1",
    "movsd xmm0, xmm1",
    "movsd xmm0, [rdi + 1]",
    "movsd [rdi + 1], xmm1",
]
FLOAT += ["movhlps xmm0, xmm1", "movlhps xmm0, xmm1", "movlps xmm0, [rdi]", "movhps xmm0, [rdi]", "movlpd [rdi], xmm1"]
FLOAT += ["movhpd [rdi], xmm1", "movntps [rdi], xmm0", "stmxcsr [rdi + 4]"]


@pytest.mark.parametrize("text", MMX + INTEGER + SSE41 + TEXT + FLOAT)
def test_same_as_host(text: str) -> None:
    @settings(max_examples=5, deadline=None, database=None, derandomize=True, phases=oracle.PHASES)
    @given(oracle.simd())
    def body(given: Operands) -> None:
        oracle.check(text, given)

    body()
