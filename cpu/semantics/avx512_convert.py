"""AVX-512's conversions between floating point and unsigned or 64-bit integers.

Those between floating point and signed doublewords are SSE2's (sse.py, sse2.py).
"""

from __future__ import annotations

from pyemu.cpu.ops import op
from pyemu.cpu.semantics.sse import cvtsi2ss, cvtss2si
from pyemu.cpu.semantics.sse2 import converting

_PACKED = (
    # prefix, opcode, operands, mnemonic, conversion, lane, result, EVEX.W, rounding, feature
    ("NP", 0x79, "Vx,Wx", "vcvtps2udq", "float_to_uint", 32, 32, "W0", "er", "avx512f"),
    ("NP", 0x78, "Vx,Wx", "vcvttps2udq", "float_to_uint_trunc", 32, 32, "W0", "sae", "avx512f"),
    ("NP", 0x79, "Vh,Wx", "vcvtpd2udq", "float_to_uint", 64, 32, "W1", "er", "avx512f"),
    ("NP", 0x78, "Vh,Wx", "vcvttpd2udq", "float_to_uint_trunc", 64, 32, "W1", "sae", "avx512f"),
    ("66", 0x7B, "Vx,Wh", "vcvtps2qq", "float_to_int", 32, 64, "W0", "er", "avx512dq"),
    ("66", 0x7A, "Vx,Wh", "vcvttps2qq", "float_to_int_trunc", 32, 64, "W0", "sae", "avx512dq"),
    ("66", 0x79, "Vx,Wh", "vcvtps2uqq", "float_to_uint", 32, 64, "W0", "er", "avx512dq"),
    ("66", 0x78, "Vx,Wh", "vcvttps2uqq", "float_to_uint_trunc", 32, 64, "W0", "sae", "avx512dq"),
    ("66", 0x7B, "Vx,Wx", "vcvtpd2qq", "float_to_int", 64, 64, "W1", "er", "avx512dq"),
    ("66", 0x7A, "Vx,Wx", "vcvttpd2qq", "float_to_int_trunc", 64, 64, "W1", "sae", "avx512dq"),
    ("66", 0x79, "Vx,Wx", "vcvtpd2uqq", "float_to_uint", 64, 64, "W1", "er", "avx512dq"),
    ("66", 0x78, "Vx,Wx", "vcvttpd2uqq", "float_to_uint_trunc", 64, 64, "W1", "sae", "avx512dq"),
    ("F2", 0x7A, "Vx,Wx", "vcvtudq2ps", "uint_to_float", 32, 32, "W0", "er", "avx512f"),
    ("F3", 0x7A, "Vx,Wh", "vcvtudq2pd", "uint_to_float", 32, 64, "W0", "ignored", "avx512f"),
    ("NP", 0x5B, "Vh,Wx", "vcvtqq2ps", "int_to_float", 64, 32, "W1", "er", "avx512dq"),
    ("F3", 0xE6, "Vx,Wx", "vcvtqq2pd", "int_to_float", 64, 64, "W1", "er", "avx512dq"),
    ("F2", 0x7A, "Vh,Wx", "vcvtuqq2ps", "uint_to_float", 64, 32, "W1", "er", "avx512dq"),
    ("F3", 0x7A, "Vx,Wx", "vcvtuqq2pd", "uint_to_float", 64, 64, "W1", "er", "avx512dq"),
)
for _prefix, _opcode, _operands, _name, _conversion, _lane, _width, _w, _rounding, _feature in _PACKED:
    op(
        f"EVEX.{_prefix}.0F.{_w} {_opcode:02X} /r",
        _operands,
        name=_name,
        feature=_feature,
        element=_width,
        broadcast=_lane,
        rounding=_rounding,
        extra=(_conversion, _lane, _width),
    )(converting)

for _prefix, _letter, _lane in (("F3", "s", 32), ("F2", "d", 64)):
    for _w, _size, _modes in (("W0", "d", "any"), ("W1", "q", "64")):
        _rounding = "ignored" if (_letter, _w) == ("d", "W0") else "er"  # as for CVTSI2SD
        op(
            f"EVEX.LIG.{_prefix}.0F.{_w} 7B /r",
            f"Vdq,Hdq,E{_size}",
            name=f"vcvtusi2s{_letter}",
            feature="avx512f",
            modes=_modes,
            rounding=_rounding,
            extra=(_lane, "uint_to_float"),
        )(cvtsi2ss)
        for _opcode, _name, _conversion, _rounding in (
            (0x79, "vcvt", "float_to_uint", "er"), (0x78, "vcvtt", "float_to_uint_trunc", "sae"),
        ):  # fmt: skip
            op(
                f"EVEX.LIG.{_prefix}.0F.{_w} {_opcode:02X} /r",
                f"G{_size},Ws{_letter}",
                name=f"{_name}s{_letter}2usi",
                feature="avx512f",
                modes=_modes,
                rounding=_rounding,
                extra=(_lane, _conversion),
            )(cvtss2si)
