"""VEX and EVEX encodings against the host's processor: wide vectors, masks, broadcasts, rounding; the SSE families, AVX,
AVX2, FMA and F16C.

What AVX-512 adds of its own has tests of its own.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from tests.cpu.semantics import oracle, vector_oracle

# Each has something of its own to go wrong in the native back ends.
BRIEF = """
    vaddps xmm0, xmm1, xmm2
    vaddpd zmm0 {k1}, zmm1, zmm2
    vsubps ymm0 {k2} {z}, ymm1, [rdi+8]
    vmulps zmm0 {k1}, zmm1, dword ptr [rdi+4]{1to16}
    vdivpd zmm0, zmm1, zmm2, {ru-sae}
    vmaxsd xmm0 {k1} {z}, xmm1, [rdi+8]
    vcmppd k3 {k1}, zmm1, zmm2, 17
    vcmpss xmm0, xmm1, xmm2, 13
    vmovups [rdi+1], ymm0
    vmovupd [rdi+64] {k1}, zmm2
    vmovss [rdi] {k1}, xmm1
    vcvttpd2dq xmm0, ymm1
    vcvtpd2dq ymm0, zmm1, {rd-sae}
    vpunpcklbw ymm0, ymm1, ymm2
    vpackssdw zmm0 {k1}, zmm1, [rdi+64]
    vpcmpgtw k3 {k1}, zmm1, [rdi+64]
    vpsraq ymm0, ymm1, xmm2
    vmovdqu8 zmm0 {k1} {z}, [rdi+1]
    vpblendvb ymm0, ymm1, ymm2, ymm3
    vpextrd [rdi], xmm1, 2
    vpcmpestrm xmm1, xmm2, 0x18
    vpermilpd ymm0, ymm1, [rdi]
    vmaskmovps [rdi+5], ymm1, ymm2
    vpsravd ymm0, ymm1, ymm2
    vcvtps2ph xmm0 {k1} {z}, xmm1, 3
    vfmadd213ps zmm0 {k1}, zmm1, zmm2
    vfnmsub231sd xmm0, xmm1, [rdi]
    vfmaddsub132ps ymm0, ymm1, ymm2
"""

ALL = """
    vaddps xmm0, xmm1, xmm2; vaddps ymm0, ymm1, [rdi+3]; vaddps zmm0 {k1}, zmm1, zmm2
    vaddps ymm0 {k2} {z}, ymm1, [rdi+8]; vaddps zmm0 {k2} {z}, zmm1, [rdi+64]
    vaddps zmm0 {k1}, zmm1, dword ptr [rdi+4]{1to16}; vaddps zmm0, zmm1, zmm2, {rn-sae}
    vaddps zmm0, zmm1, zmm2, {rd-sae}; vaddps zmm0, zmm1, zmm2, {ru-sae}; vaddps zmm0, zmm1, zmm2, {rz-sae}
    vaddpd xmm0, xmm1, xmm2; vaddpd ymm0, ymm1, [rdi+3]; vaddpd zmm0 {k1}, zmm1, zmm2
    vaddpd ymm0 {k2} {z}, ymm1, [rdi+8]; vaddpd zmm0 {k2} {z}, zmm1, [rdi+64]
    vaddpd zmm0 {k1}, zmm1, qword ptr [rdi+8]{1to8}; vaddpd zmm0, zmm1, zmm2, {rn-sae}
    vaddpd zmm0, zmm1, zmm2, {rd-sae}; vaddpd zmm0, zmm1, zmm2, {ru-sae}; vaddpd zmm0, zmm1, zmm2, {rz-sae}
    vaddss xmm0, xmm1, xmm2; vaddss xmm0 {k1}, xmm1, xmm2; vaddss xmm0 {k1} {z}, xmm1, [rdi+8]
    vaddss xmm0, xmm1, xmm2, {rz-sae}; vaddsd xmm0, xmm1, xmm2; vaddsd xmm0 {k1}, xmm1, xmm2
    vaddsd xmm0 {k1} {z}, xmm1, [rdi+8]; vaddsd xmm0, xmm1, xmm2, {rz-sae}; vmulps xmm0, xmm1, xmm2
    vmulps ymm0, ymm1, [rdi+3]; vmulps zmm0 {k1}, zmm1, zmm2; vmulps ymm0 {k2} {z}, ymm1, [rdi+8]
    vmulps zmm0 {k2} {z}, zmm1, [rdi+64]; vmulps zmm0 {k1}, zmm1, dword ptr [rdi+4]{1to16}
    vmulps zmm0, zmm1, zmm2, {rn-sae}; vmulps zmm0, zmm1, zmm2, {rd-sae}; vmulps zmm0, zmm1, zmm2, {ru-sae}
    vmulps zmm0, zmm1, zmm2, {rz-sae}; vmulpd xmm0, xmm1, xmm2; vmulpd ymm0, ymm1, [rdi+3]
    vmulpd zmm0 {k1}, zmm1, zmm2; vmulpd ymm0 {k2} {z}, ymm1, [rdi+8]; vmulpd zmm0 {k2} {z}, zmm1, [rdi+64]
    vmulpd zmm0 {k1}, zmm1, qword ptr [rdi+8]{1to8}; vmulpd zmm0, zmm1, zmm2, {rn-sae}
    vmulpd zmm0, zmm1, zmm2, {rd-sae}; vmulpd zmm0, zmm1, zmm2, {ru-sae}; vmulpd zmm0, zmm1, zmm2, {rz-sae}
    vmulss xmm0, xmm1, xmm2; vmulss xmm0 {k1}, xmm1, xmm2; vmulss xmm0 {k1} {z}, xmm1, [rdi+8]
    vmulss xmm0, xmm1, xmm2, {rz-sae}; vmulsd xmm0, xmm1, xmm2; vmulsd xmm0 {k1}, xmm1, xmm2
    vmulsd xmm0 {k1} {z}, xmm1, [rdi+8]; vmulsd xmm0, xmm1, xmm2, {rz-sae}; vsubps xmm0, xmm1, xmm2
    vsubps ymm0, ymm1, [rdi+3]; vsubps zmm0 {k1}, zmm1, zmm2; vsubps ymm0 {k2} {z}, ymm1, [rdi+8]
    vsubps zmm0 {k2} {z}, zmm1, [rdi+64]; vsubps zmm0 {k1}, zmm1, dword ptr [rdi+4]{1to16}
    vsubps zmm0, zmm1, zmm2, {rn-sae}; vsubps zmm0, zmm1, zmm2, {rd-sae}; vsubps zmm0, zmm1, zmm2, {ru-sae}
    vsubps zmm0, zmm1, zmm2, {rz-sae}; vsubpd xmm0, xmm1, xmm2; vsubpd ymm0, ymm1, [rdi+3]
    vsubpd zmm0 {k1}, zmm1, zmm2; vsubpd ymm0 {k2} {z}, ymm1, [rdi+8]; vsubpd zmm0 {k2} {z}, zmm1, [rdi+64]
    vsubpd zmm0 {k1}, zmm1, qword ptr [rdi+8]{1to8}; vsubpd zmm0, zmm1, zmm2, {rn-sae}
    vsubpd zmm0, zmm1, zmm2, {rd-sae}; vsubpd zmm0, zmm1, zmm2, {ru-sae}; vsubpd zmm0, zmm1, zmm2, {rz-sae}
    vsubss xmm0, xmm1, xmm2; vsubss xmm0 {k1}, xmm1, xmm2; vsubss xmm0 {k1} {z}, xmm1, [rdi+8]
    vsubss xmm0, xmm1, xmm2, {rz-sae}; vsubsd xmm0, xmm1, xmm2; vsubsd xmm0 {k1}, xmm1, xmm2
    vsubsd xmm0 {k1} {z}, xmm1, [rdi+8]; vsubsd xmm0, xmm1, xmm2, {rz-sae}; vminps xmm0, xmm1, xmm2
    vminps ymm0, ymm1, [rdi+3]; vminps zmm0 {k1}, zmm1, zmm2; vminps ymm0 {k2} {z}, ymm1, [rdi+8]
    vminps zmm0 {k2} {z}, zmm1, [rdi+64]; vminps zmm0 {k1}, zmm1, dword ptr [rdi+4]{1to16}
    vminps zmm0, zmm1, zmm2, {sae}; vminpd xmm0, xmm1, xmm2; vminpd ymm0, ymm1, [rdi+3]
    vminpd zmm0 {k1}, zmm1, zmm2; vminpd ymm0 {k2} {z}, ymm1, [rdi+8]; vminpd zmm0 {k2} {z}, zmm1, [rdi+64]
    vminpd zmm0 {k1}, zmm1, qword ptr [rdi+8]{1to8}; vminpd zmm0, zmm1, zmm2, {sae}; vminss xmm0, xmm1, xmm2
    vminss xmm0 {k1}, xmm1, xmm2; vminss xmm0 {k1} {z}, xmm1, [rdi+8]; vminsd xmm0, xmm1, xmm2
    vminsd xmm0 {k1}, xmm1, xmm2; vminsd xmm0 {k1} {z}, xmm1, [rdi+8]; vdivps xmm0, xmm1, xmm2
    vdivps ymm0, ymm1, [rdi+3]; vdivps zmm0 {k1}, zmm1, zmm2; vdivps ymm0 {k2} {z}, ymm1, [rdi+8]
    vdivps zmm0 {k2} {z}, zmm1, [rdi+64]; vdivps zmm0 {k1}, zmm1, dword ptr [rdi+4]{1to16}
    vdivps zmm0, zmm1, zmm2, {rn-sae}; vdivps zmm0, zmm1, zmm2, {rd-sae}; vdivps zmm0, zmm1, zmm2, {ru-sae}
    vdivps zmm0, zmm1, zmm2, {rz-sae}; vdivpd xmm0, xmm1, xmm2; vdivpd ymm0, ymm1, [rdi+3]
    vdivpd zmm0 {k1}, zmm1, zmm2; vdivpd ymm0 {k2} {z}, ymm1, [rdi+8]; vdivpd zmm0 {k2} {z}, zmm1, [rdi+64]
    vdivpd zmm0 {k1}, zmm1, qword ptr [rdi+8]{1to8}; vdivpd zmm0, zmm1, zmm2, {rn-sae}
    vdivpd zmm0, zmm1, zmm2, {rd-sae}; vdivpd zmm0, zmm1, zmm2, {ru-sae}; vdivpd zmm0, zmm1, zmm2, {rz-sae}
    vdivss xmm0, xmm1, xmm2; vdivss xmm0 {k1}, xmm1, xmm2; vdivss xmm0 {k1} {z}, xmm1, [rdi+8]
    vdivss xmm0, xmm1, xmm2, {rz-sae}; vdivsd xmm0, xmm1, xmm2; vdivsd xmm0 {k1}, xmm1, xmm2
    vdivsd xmm0 {k1} {z}, xmm1, [rdi+8]; vdivsd xmm0, xmm1, xmm2, {rz-sae}; vmaxps xmm0, xmm1, xmm2
    vmaxps ymm0, ymm1, [rdi+3]; vmaxps zmm0 {k1}, zmm1, zmm2; vmaxps ymm0 {k2} {z}, ymm1, [rdi+8]
    vmaxps zmm0 {k2} {z}, zmm1, [rdi+64]; vmaxps zmm0 {k1}, zmm1, dword ptr [rdi+4]{1to16}
    vmaxps zmm0, zmm1, zmm2, {sae}; vmaxpd xmm0, xmm1, xmm2; vmaxpd ymm0, ymm1, [rdi+3]
    vmaxpd zmm0 {k1}, zmm1, zmm2; vmaxpd ymm0 {k2} {z}, ymm1, [rdi+8]; vmaxpd zmm0 {k2} {z}, zmm1, [rdi+64]
    vmaxpd zmm0 {k1}, zmm1, qword ptr [rdi+8]{1to8}; vmaxpd zmm0, zmm1, zmm2, {sae}; vmaxss xmm0, xmm1, xmm2
    vmaxss xmm0 {k1}, xmm1, xmm2; vmaxss xmm0 {k1} {z}, xmm1, [rdi+8]; vmaxsd xmm0, xmm1, xmm2
    vmaxsd xmm0 {k1}, xmm1, xmm2; vmaxsd xmm0 {k1} {z}, xmm1, [rdi+8]; vsqrtps ymm0, ymm1; vsqrtpd zmm0 {k1}, zmm1
    vsqrtss xmm0, xmm1, xmm2; vsqrtsd xmm0 {k1}, xmm1, [rdi]; vandps ymm0, ymm1, ymm2
    vandnpd zmm0 {k1}, zmm1, zmm2; vorps xmm0 {k2} {z}, xmm1, dword ptr [rdi]{1to4}; vcmpps ymm0, ymm1, ymm2, 0
    vcmppd k3 {k1}, zmm1, zmm2, 0; vcmpss xmm0, xmm1, xmm2, 0; vcmpsd k2, xmm1, [rdi], 0
    vcmpps ymm0, ymm1, ymm2, 1; vcmppd k3 {k1}, zmm1, zmm2, 1; vcmpss xmm0, xmm1, xmm2, 1
    vcmpsd k2, xmm1, [rdi], 1; vcmpps ymm0, ymm1, ymm2, 3; vcmppd k3 {k1}, zmm1, zmm2, 3
    vcmpss xmm0, xmm1, xmm2, 3; vcmpsd k2, xmm1, [rdi], 3; vcmpps ymm0, ymm1, ymm2, 5
    vcmppd k3 {k1}, zmm1, zmm2, 5; vcmpss xmm0, xmm1, xmm2, 5; vcmpsd k2, xmm1, [rdi], 5
    vcmpps ymm0, ymm1, ymm2, 8; vcmppd k3 {k1}, zmm1, zmm2, 8; vcmpss xmm0, xmm1, xmm2, 8
    vcmpsd k2, xmm1, [rdi], 8; vcmpps ymm0, ymm1, ymm2, 11; vcmppd k3 {k1}, zmm1, zmm2, 11
    vcmpss xmm0, xmm1, xmm2, 11; vcmpsd k2, xmm1, [rdi], 11; vcmpps ymm0, ymm1, ymm2, 13
    vcmppd k3 {k1}, zmm1, zmm2, 13; vcmpss xmm0, xmm1, xmm2, 13; vcmpsd k2, xmm1, [rdi], 13
    vcmpps ymm0, ymm1, ymm2, 15; vcmppd k3 {k1}, zmm1, zmm2, 15; vcmpss xmm0, xmm1, xmm2, 15
    vcmpsd k2, xmm1, [rdi], 15; vcmpps ymm0, ymm1, ymm2, 17; vcmppd k3 {k1}, zmm1, zmm2, 17
    vcmpss xmm0, xmm1, xmm2, 17; vcmpsd k2, xmm1, [rdi], 17; vcmpps ymm0, ymm1, ymm2, 20
    vcmppd k3 {k1}, zmm1, zmm2, 20; vcmpss xmm0, xmm1, xmm2, 20; vcmpsd k2, xmm1, [rdi], 20
    vcmpps ymm0, ymm1, ymm2, 24; vcmppd k3 {k1}, zmm1, zmm2, 24; vcmpss xmm0, xmm1, xmm2, 24
    vcmpsd k2, xmm1, [rdi], 24; vcmpps ymm0, ymm1, ymm2, 30; vcmppd k3 {k1}, zmm1, zmm2, 30
    vcmpss xmm0, xmm1, xmm2, 30; vcmpsd k2, xmm1, [rdi], 30; vucomiss xmm0, xmm1; vcomisd xmm0, [rdi]
    vcomiss xmm0, xmm1, {sae}; vmovups ymm0, [rdi+1]; vmovups [rdi+1], ymm0; vmovaps zmm0, zmm1
    vmovaps zmm0 {k1}, zmm1; vmovupd [rdi+64] {k1}, zmm2; vmovups xmm0 {k1} {z}, [rdi]
    vmovapd ymm0 {k3} {z}, [rdi+32]; vmovntps [rdi], ymm0; vmovntpd [rdi], zmm1; vmovss xmm0, [rdi]
    vmovss xmm0, xmm1, xmm2; vmovsd [rdi+3], xmm1; vmovsd xmm0 {k1} {z}, xmm1, xmm2; vmovss xmm0 {k1}, [rdi]
    vmovss [rdi] {k1}, xmm1; vmovlps xmm0, xmm1, [rdi]; vmovhpd xmm0, xmm1, [rdi]; vmovlpd [rdi], xmm1
    vmovhps [rdi], xmm1; vmovhlps xmm0, xmm1, xmm2; vmovlhps xmm0, xmm1, xmm2; vshufps ymm0, ymm1, ymm2, 0x1b
    vshufps zmm0 {k1}, zmm1, zmm2, 0x72; vshufpd ymm0, ymm1, [rdi], 5; vshufpd zmm0, zmm1, zmm2, 0xa6
    vunpcklps ymm0, ymm1, ymm2; vunpckhpd zmm0, zmm1, qword ptr [rdi]{1to8}; vmovmskps eax, ymm1
    vmovmskpd ecx, xmm1; vcvtsi2ss xmm0, xmm1, ecx; vcvtsi2sd xmm0, xmm1, rcx; vcvtsi2ss xmm0, xmm1, {rz-sae}, ecx
    vcvttss2si eax, xmm1; vcvtsd2si rax, [rdi]; vcvtss2si rax, xmm1, {ru-sae}; vcvtps2pd ymm0, xmm1
    vcvtps2pd zmm0 {k1}, ymm1; vcvtps2pd zmm0, dword ptr [rdi]{1to8}; vcvtdq2pd ymm0, xmm1
    vcvtdq2pd zmm0 {k1} {z}, ymm2; vcvtpd2ps xmm0, xmm1; vcvtpd2ps xmm0, ymm1; vcvtpd2ps ymm0 {k1}, zmm1
    vcvttpd2dq xmm0, ymm1; vcvtpd2dq ymm0, zmm1, {rd-sae}; vcvtdq2ps zmm0, zmm1; vcvtps2dq ymm0, ymm1
    vcvttps2dq zmm0 {k1}, zmm1; vcvtss2sd xmm0, xmm1, xmm2; vcvtsd2ss xmm0 {k1}, xmm1, xmm2
    vpunpcklbw xmm0, xmm1, xmm2; vpunpcklbw ymm0, ymm1, ymm2; vpunpcklbw zmm0 {k1}, zmm1, [rdi+64]
    vpunpcklwd xmm0, xmm1, xmm2; vpunpcklwd ymm0, ymm1, ymm2; vpunpcklwd zmm0 {k1}, zmm1, [rdi+64]
    vpunpckldq xmm0, xmm1, xmm2; vpunpckldq ymm0, ymm1, ymm2; vpunpckldq zmm0 {k1}, zmm1, [rdi+64]
    vpacksswb xmm0, xmm1, xmm2; vpacksswb ymm0, ymm1, ymm2; vpacksswb zmm0 {k1}, zmm1, [rdi+64]
    vpcmpgtb xmm0, xmm1, xmm2; vpcmpgtb ymm0, ymm1, ymm2; vpcmpgtb k3 {k1}, zmm1, [rdi+64]
    vpcmpgtw xmm0, xmm1, xmm2; vpcmpgtw ymm0, ymm1, ymm2; vpcmpgtw k3 {k1}, zmm1, [rdi+64]
    vpcmpgtd xmm0, xmm1, xmm2; vpcmpgtd ymm0, ymm1, ymm2; vpcmpgtd k3 {k1}, zmm1, [rdi+64]
    vpackuswb xmm0, xmm1, xmm2; vpackuswb ymm0, ymm1, ymm2; vpackuswb zmm0 {k1}, zmm1, [rdi+64]
    vpunpckhbw xmm0, xmm1, xmm2; vpunpckhbw ymm0, ymm1, ymm2; vpunpckhbw zmm0 {k1}, zmm1, [rdi+64]
    vpunpckhwd xmm0, xmm1, xmm2; vpunpckhwd ymm0, ymm1, ymm2; vpunpckhwd zmm0 {k1}, zmm1, [rdi+64]
    vpunpckhdq xmm0, xmm1, xmm2; vpunpckhdq ymm0, ymm1, ymm2; vpunpckhdq zmm0 {k1}, zmm1, [rdi+64]
    vpackssdw xmm0, xmm1, xmm2; vpackssdw ymm0, ymm1, ymm2; vpackssdw zmm0 {k1}, zmm1, [rdi+64]
    vpcmpeqb xmm0, xmm1, xmm2; vpcmpeqb ymm0, ymm1, ymm2; vpcmpeqb k3 {k1}, zmm1, [rdi+64]
    vpcmpeqw xmm0, xmm1, xmm2; vpcmpeqw ymm0, ymm1, ymm2; vpcmpeqw k3 {k1}, zmm1, [rdi+64]
    vpcmpeqd xmm0, xmm1, xmm2; vpcmpeqd ymm0, ymm1, ymm2; vpcmpeqd k3 {k1}, zmm1, [rdi+64]
    vpsrlw xmm0, xmm1, xmm2; vpsrlw ymm0, ymm1, xmm2; vpsrlw zmm0 {k1}, zmm1, xmm2; vpsrld xmm0, xmm1, xmm2
    vpsrld ymm0, ymm1, xmm2; vpsrld zmm0 {k1}, zmm1, xmm2; vpsrlq xmm0, xmm1, xmm2; vpsrlq ymm0, ymm1, xmm2
    vpsrlq zmm0 {k1}, zmm1, xmm2; vpaddq xmm0, xmm1, xmm2; vpaddq ymm0, ymm1, ymm2
    vpaddq zmm0 {k1}, zmm1, [rdi+64]; vpmullw xmm0, xmm1, xmm2; vpmullw ymm0, ymm1, ymm2
    vpmullw zmm0 {k1}, zmm1, [rdi+64]; vpsubusb xmm0, xmm1, xmm2; vpsubusb ymm0, ymm1, ymm2
    vpsubusb zmm0 {k1}, zmm1, [rdi+64]; vpsubusw xmm0, xmm1, xmm2; vpsubusw ymm0, ymm1, ymm2
    vpsubusw zmm0 {k1}, zmm1, [rdi+64]; vpminub xmm0, xmm1, xmm2; vpminub ymm0, ymm1, ymm2
    vpminub zmm0 {k1}, zmm1, [rdi+64]; vpaddusb xmm0, xmm1, xmm2; vpaddusb ymm0, ymm1, ymm2
    vpaddusb zmm0 {k1}, zmm1, [rdi+64]; vpaddusw xmm0, xmm1, xmm2; vpaddusw ymm0, ymm1, ymm2
    vpaddusw zmm0 {k1}, zmm1, [rdi+64]; vpmaxub xmm0, xmm1, xmm2; vpmaxub ymm0, ymm1, ymm2
    vpmaxub zmm0 {k1}, zmm1, [rdi+64]; vpavgb xmm0, xmm1, xmm2; vpavgb ymm0, ymm1, ymm2
    vpavgb zmm0 {k1}, zmm1, [rdi+64]; vpsraw xmm0, xmm1, xmm2; vpsraw ymm0, ymm1, xmm2
    vpsraw zmm0 {k1}, zmm1, xmm2; vpsrad xmm0, xmm1, xmm2; vpsrad ymm0, ymm1, xmm2; vpsrad zmm0 {k1}, zmm1, xmm2
    vpavgw xmm0, xmm1, xmm2; vpavgw ymm0, ymm1, ymm2; vpavgw zmm0 {k1}, zmm1, [rdi+64]; vpmulhuw xmm0, xmm1, xmm2
    vpmulhuw ymm0, ymm1, ymm2; vpmulhuw zmm0 {k1}, zmm1, [rdi+64]; vpmulhw xmm0, xmm1, xmm2
    vpmulhw ymm0, ymm1, ymm2; vpmulhw zmm0 {k1}, zmm1, [rdi+64]; vpsubsb xmm0, xmm1, xmm2
    vpsubsb ymm0, ymm1, ymm2; vpsubsb zmm0 {k1}, zmm1, [rdi+64]; vpsubsw xmm0, xmm1, xmm2
    vpsubsw ymm0, ymm1, ymm2; vpsubsw zmm0 {k1}, zmm1, [rdi+64]; vpminsw xmm0, xmm1, xmm2
    vpminsw ymm0, ymm1, ymm2; vpminsw zmm0 {k1}, zmm1, [rdi+64]; vpaddsb xmm0, xmm1, xmm2
    vpaddsb ymm0, ymm1, ymm2; vpaddsb zmm0 {k1}, zmm1, [rdi+64]; vpaddsw xmm0, xmm1, xmm2
    vpaddsw ymm0, ymm1, ymm2; vpaddsw zmm0 {k1}, zmm1, [rdi+64]; vpmaxsw xmm0, xmm1, xmm2
    vpmaxsw ymm0, ymm1, ymm2; vpmaxsw zmm0 {k1}, zmm1, [rdi+64]; vpsllw xmm0, xmm1, xmm2; vpsllw ymm0, ymm1, xmm2
    vpsllw zmm0 {k1}, zmm1, xmm2; vpslld xmm0, xmm1, xmm2; vpslld ymm0, ymm1, xmm2; vpslld zmm0 {k1}, zmm1, xmm2
    vpsllq xmm0, xmm1, xmm2; vpsllq ymm0, ymm1, xmm2; vpsllq zmm0 {k1}, zmm1, xmm2; vpmuludq xmm0, xmm1, xmm2
    vpmuludq ymm0, ymm1, ymm2; vpmuludq zmm0 {k1}, zmm1, [rdi+64]; vpmaddwd xmm0, xmm1, xmm2
    vpmaddwd ymm0, ymm1, ymm2; vpmaddwd zmm0 {k1}, zmm1, [rdi+64]; vpsadbw xmm0, xmm1, xmm2
    vpsadbw ymm0, ymm1, ymm2; vpsadbw zmm0, zmm1, [rdi+64]; vpsubb xmm0, xmm1, xmm2; vpsubb ymm0, ymm1, ymm2
    vpsubb zmm0 {k1}, zmm1, [rdi+64]; vpsubw xmm0, xmm1, xmm2; vpsubw ymm0, ymm1, ymm2
    vpsubw zmm0 {k1}, zmm1, [rdi+64]; vpsubd xmm0, xmm1, xmm2; vpsubd ymm0, ymm1, ymm2
    vpsubd zmm0 {k1}, zmm1, [rdi+64]; vpsubq xmm0, xmm1, xmm2; vpsubq ymm0, ymm1, ymm2
    vpsubq zmm0 {k1}, zmm1, [rdi+64]; vpaddb xmm0, xmm1, xmm2; vpaddb ymm0, ymm1, ymm2
    vpaddb zmm0 {k1}, zmm1, [rdi+64]; vpaddw xmm0, xmm1, xmm2; vpaddw ymm0, ymm1, ymm2
    vpaddw zmm0 {k1}, zmm1, [rdi+64]; vpaddd xmm0, xmm1, xmm2; vpaddd ymm0, ymm1, ymm2
    vpaddd zmm0 {k1}, zmm1, [rdi+64]; vpshufb xmm0, xmm1, xmm2; vpshufb ymm0, ymm1, ymm2
    vpshufb zmm0 {k1}, zmm1, [rdi+64]; vpmaddubsw xmm0, xmm1, xmm2; vpmaddubsw ymm0, ymm1, ymm2
    vpmaddubsw zmm0 {k1}, zmm1, [rdi+64]; vpmulhrsw xmm0, xmm1, xmm2; vpmulhrsw ymm0, ymm1, ymm2
    vpmulhrsw zmm0 {k1}, zmm1, [rdi+64]; vpunpcklqdq xmm0, xmm1, xmm2; vpunpcklqdq ymm0, ymm1, ymm2
    vpunpcklqdq zmm0 {k1}, zmm1, [rdi+64]; vpunpckhqdq xmm0, xmm1, xmm2; vpunpckhqdq ymm0, ymm1, ymm2
    vpunpckhqdq zmm0 {k1}, zmm1, [rdi+64]; vpmuldq xmm0, xmm1, xmm2; vpmuldq ymm0, ymm1, ymm2
    vpmuldq zmm0 {k1}, zmm1, [rdi+64]; vpcmpeqq xmm0, xmm1, xmm2; vpcmpeqq ymm0, ymm1, ymm2
    vpcmpeqq k3 {k1}, zmm1, [rdi+64]; vpackusdw xmm0, xmm1, xmm2; vpackusdw ymm0, ymm1, ymm2
    vpackusdw zmm0 {k1}, zmm1, [rdi+64]; vpminsb xmm0, xmm1, xmm2; vpminsb ymm0, ymm1, ymm2
    vpminsb zmm0 {k1}, zmm1, [rdi+64]; vpminsd xmm0, xmm1, xmm2; vpminsd ymm0, ymm1, ymm2
    vpminsd zmm0 {k1}, zmm1, [rdi+64]; vpminuw xmm0, xmm1, xmm2; vpminuw ymm0, ymm1, ymm2
    vpminuw zmm0 {k1}, zmm1, [rdi+64]; vpminud xmm0, xmm1, xmm2; vpminud ymm0, ymm1, ymm2
    vpminud zmm0 {k1}, zmm1, [rdi+64]; vpmaxsb xmm0, xmm1, xmm2; vpmaxsb ymm0, ymm1, ymm2
    vpmaxsb zmm0 {k1}, zmm1, [rdi+64]; vpmaxsd xmm0, xmm1, xmm2; vpmaxsd ymm0, ymm1, ymm2
    vpmaxsd zmm0 {k1}, zmm1, [rdi+64]; vpmaxuw xmm0, xmm1, xmm2; vpmaxuw ymm0, ymm1, ymm2
    vpmaxuw zmm0 {k1}, zmm1, [rdi+64]; vpmaxud xmm0, xmm1, xmm2; vpmaxud ymm0, ymm1, ymm2
    vpmaxud zmm0 {k1}, zmm1, [rdi+64]; vpmulld xmm0, xmm1, xmm2; vpmulld ymm0, ymm1, ymm2
    vpmulld zmm0 {k1}, zmm1, [rdi+64]; vpcmpgtq xmm0, xmm1, xmm2; vpcmpgtq ymm0, ymm1, ymm2
    vpcmpgtq k3 {k1}, zmm1, [rdi+64]; vphaddw ymm0, ymm1, ymm2; vphsubd xmm0, xmm1, [rdi]
    vphaddsw ymm0, ymm1, ymm2; vpsignb ymm0, ymm1, ymm2; vpabsb ymm0, ymm1; vpabsd zmm0 {k1}, zmm1
    vpand ymm0, ymm1, ymm2; vpandd zmm0 {k1}, zmm1, dword ptr [rdi]{1to16}; vpandnq zmm0 {k1}, zmm1, zmm2
    vpxorq xmm0, xmm1, xmm2; vpalignr ymm0, ymm1, ymm2, 5; vpalignr zmm0 {k1}, zmm1, zmm2, 21
    vpsrlw ymm0, ymm1, 3; vpsrad zmm0 {k1}, zmm1, 7; vpsraq zmm0 {k1}, zmm1, 7; vpsraq ymm0, ymm1, xmm2
    vpslldq ymm0, ymm1, 5; vpsrldq zmm0, zmm1, 3; vpsllq zmm0, qword ptr [rdi]{1to8}, 70; vmovd xmm0, ecx
    vmovq xmm0, rcx; vmovd eax, xmm1; vmovq rax, xmm1; vmovq xmm0, xmm1; vmovq [rdi], xmm1; vmovdqa ymm0, [rdi+32]
    vmovdqu [rdi+5], ymm1; vmovdqa32 zmm0 {k1}, zmm1; vmovdqu8 zmm0 {k1} {z}, [rdi+1]
    vmovdqu16 [rdi+1] {k1}, zmm1; vmovdqu64 [rdi+1] {k1}, ymm1; vmovntdq [rdi], zmm1; vlddqu ymm0, [rdi+3]
    vmovntdqa zmm0, [rdi+64]; vmaskmovdqu xmm0, xmm1; vpshufd ymm0, ymm1, 0x1b; vpshufd zmm0 {k1}, zmm1, 0x1b
    vpshuflw ymm0, ymm1, 0x1b; vpshufhw zmm0 {k1} {z}, zmm1, 0x93; vpinsrw xmm0, xmm1, ecx, 5
    vpextrw eax, xmm1, 6; vpmovmskb eax, ymm1; vhaddps ymm0, ymm1, ymm2; vhsubpd xmm0, xmm1, xmm2
    vaddsubps ymm0, ymm1, ymm2; vmovsldup ymm0, ymm1; vmovshdup zmm0 {k1}, zmm1; vmovddup xmm0, [rdi]
    vmovddup ymm0, ymm1; vmovddup zmm0 {k1}, zmm1; vmovddup xmm0 {k1} {z}, xmm1; vphminposuw xmm0, xmm1
    vpmullq zmm0 {k1}, zmm1, zmm2; vpmovsxbw ymm0, xmm1; vpmovzxbq zmm0 {k1}, xmm1; vpmovsxdq ymm0, [rdi]
    vpmovzxwd zmm0 {k1} {z}, ymm1; vptest ymm0, ymm1; vmpsadbw ymm0, ymm1, ymm2, 0x2d
    vpblendvb ymm0, ymm1, ymm2, ymm3; vblendvps xmm0, xmm1, xmm2, xmm3; vblendvpd ymm0, ymm1, [rdi], ymm3
    vblendps ymm0, ymm1, ymm2, 0xa5; vblendpd ymm0, ymm1, ymm2, 6; vpblendw ymm0, ymm1, ymm2, 0x3c
    vpinsrb xmm0, xmm1, ecx, 9; vpinsrd xmm0, xmm1, [rdi], 3; vpinsrq xmm0, xmm1, rcx, 1; vpextrb eax, xmm1, 3
    vpextrd [rdi], xmm1, 2; vpextrq rax, xmm1, 1; vextractps ecx, xmm1, 2; vinsertps xmm0, xmm1, xmm2, 0x4c
    vroundps ymm0, ymm1, 3; vroundsd xmm0, xmm1, xmm2, 4; vdpps ymm0, ymm1, ymm2, 0xf1
    vdppd xmm0, xmm1, xmm2, 0x31; vpcmpistri xmm0, xmm1, 0x0c; vpcmpestrm xmm1, xmm2, 0x18; vrcpps ymm0, ymm1
    vrsqrtss xmm0, xmm1, xmm2; vptest xmm0, [rdi]
"""

ADDED = """
    vzeroupper; vzeroall; vbroadcastss ymm0, [rdi+4]; vbroadcastss xmm0, xmm1; vbroadcastsd ymm0, xmm1
    vbroadcastf128 ymm0, [rdi+8]; vbroadcasti128 ymm0, [rdi]; vpbroadcastb ymm0, xmm1; vpbroadcastw xmm0, [rdi+2]
    vpbroadcastd ymm0, xmm2; vpbroadcastq ymm0, [rdi]; vpermilps ymm0, ymm1, ymm2; vpermilps ymm0, ymm1, 0x72
    vpermilpd ymm0, ymm1, [rdi]; vpermilpd ymm0, ymm1, 9; vperm2f128 ymm0, ymm1, ymm2, 0x21
    vperm2i128 ymm0, ymm1, [rdi], 0x83; vinsertf128 ymm0, ymm1, xmm2, 1; vinserti128 ymm0, ymm1, [rdi], 0
    vextractf128 xmm0, ymm1, 1; vextracti128 [rdi+1], ymm1, 1; vpblendd ymm0, ymm1, ymm2, 0xa5
    vmaskmovps ymm0, ymm1, [rdi+3]; vmaskmovpd xmm0, xmm1, [rdi]; vmaskmovps [rdi+5], ymm1, ymm2
    vpmaskmovd xmm0, xmm1, [rdi]; vpmaskmovq [rdi+1], ymm1, ymm2; vtestps ymm0, ymm1; vtestpd xmm0, [rdi]
    vpsrlvd ymm0, ymm1, ymm2; vpsrlvq xmm0, xmm1, [rdi]; vpsravd ymm0, ymm1, ymm2; vpsllvd ymm0, ymm1, ymm2
    vpsllvq ymm0, ymm1, ymm2; vcvtph2ps ymm0, xmm1; vcvtph2ps xmm0, [rdi]; vcvtph2ps zmm0 {k1}, ymm1
    vcvtph2ps zmm0, ymm1, {sae}; vcvtps2ph xmm0, ymm1, 0; vcvtps2ph [rdi], xmm1, 4; vcvtps2ph ymm0 {k1}, zmm1, 2
    vcvtps2ph xmm0 {k1} {z}, xmm1, 3; vcvtps2ph [rdi] {k1}, zmm1, 1; vcvtpd2ps xmm0 {k1}, xmm1
    vcvtpd2dq xmm0 {k1} {z}, xmm1; vcvttpd2dq xmm0 {k2}, ymm1; vfmadd132ps ymm0, ymm1, ymm2
    vfmadd132sd xmm0, xmm1, [rdi]; vfmadd132pd zmm0 {k1}, zmm1, qword ptr [rdi]{1to8}
    vfmadd132ss xmm0 {k1}, xmm1, xmm2; vfmadd213ps ymm0, ymm1, ymm2; vfmadd213sd xmm0, xmm1, [rdi]
    vfmadd213pd zmm0 {k1}, zmm1, qword ptr [rdi]{1to8}; vfmadd213ss xmm0 {k1}, xmm1, xmm2
    vfmadd231ps ymm0, ymm1, ymm2; vfmadd231sd xmm0, xmm1, [rdi]
    vfmadd231pd zmm0 {k1}, zmm1, qword ptr [rdi]{1to8}; vfmadd231ss xmm0 {k1}, xmm1, xmm2
    vfmsub132ps ymm0, ymm1, ymm2; vfmsub132sd xmm0, xmm1, [rdi]
    vfmsub132pd zmm0 {k1}, zmm1, qword ptr [rdi]{1to8}; vfmsub132ss xmm0 {k1}, xmm1, xmm2
    vfmsub213ps ymm0, ymm1, ymm2; vfmsub213sd xmm0, xmm1, [rdi]
    vfmsub213pd zmm0 {k1}, zmm1, qword ptr [rdi]{1to8}; vfmsub213ss xmm0 {k1}, xmm1, xmm2
    vfmsub231ps ymm0, ymm1, ymm2; vfmsub231sd xmm0, xmm1, [rdi]
    vfmsub231pd zmm0 {k1}, zmm1, qword ptr [rdi]{1to8}; vfmsub231ss xmm0 {k1}, xmm1, xmm2
    vfnmadd132ps ymm0, ymm1, ymm2; vfnmadd132sd xmm0, xmm1, [rdi]
    vfnmadd132pd zmm0 {k1}, zmm1, qword ptr [rdi]{1to8}; vfnmadd132ss xmm0 {k1}, xmm1, xmm2
    vfnmadd213ps ymm0, ymm1, ymm2; vfnmadd213sd xmm0, xmm1, [rdi]
    vfnmadd213pd zmm0 {k1}, zmm1, qword ptr [rdi]{1to8}; vfnmadd213ss xmm0 {k1}, xmm1, xmm2
    vfnmadd231ps ymm0, ymm1, ymm2; vfnmadd231sd xmm0, xmm1, [rdi]
    vfnmadd231pd zmm0 {k1}, zmm1, qword ptr [rdi]{1to8}; vfnmadd231ss xmm0 {k1}, xmm1, xmm2
    vfnmsub132ps ymm0, ymm1, ymm2; vfnmsub132sd xmm0, xmm1, [rdi]
    vfnmsub132pd zmm0 {k1}, zmm1, qword ptr [rdi]{1to8}; vfnmsub132ss xmm0 {k1}, xmm1, xmm2
    vfnmsub213ps ymm0, ymm1, ymm2; vfnmsub213sd xmm0, xmm1, [rdi]
    vfnmsub213pd zmm0 {k1}, zmm1, qword ptr [rdi]{1to8}; vfnmsub213ss xmm0 {k1}, xmm1, xmm2
    vfnmsub231ps ymm0, ymm1, ymm2; vfnmsub231sd xmm0, xmm1, [rdi]
    vfnmsub231pd zmm0 {k1}, zmm1, qword ptr [rdi]{1to8}; vfnmsub231ss xmm0 {k1}, xmm1, xmm2
    vfmaddsub132ps ymm0, ymm1, ymm2; vfmsubadd231pd ymm0, ymm1, ymm2; vfmaddsub213pd zmm0 {k1} {z}, zmm1, zmm2
    vfmadd213ps zmm0, zmm1, zmm2, {rd-sae}; vfnmsub231ss xmm0, xmm1, xmm2, {ru-sae}
"""


def texts(block: str) -> list[str]:
    return [text.strip() for line in block.strip().splitlines() for text in line.split(";")]


@pytest.mark.parametrize("text", texts(ALL) + texts(ADDED))
@settings(max_examples=3, deadline=None, phases=oracle.PHASES)
@given(given_operands=vector_oracle.operands())
def test_reference_equals_host(text: str, given_operands: vector_oracle.Operands) -> None:
    vector_oracle.check(text, given_operands, ("reference",))


@pytest.mark.parametrize("text", texts(BRIEF))
@settings(max_examples=20, deadline=None, phases=oracle.PHASES)
@given(given_operands=vector_oracle.operands())
def test_native_back_ends_equal_host(text: str, given_operands: vector_oracle.Operands) -> None:
    vector_oracle.check(text, given_operands, ("interp", "jit"))
