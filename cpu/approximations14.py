"""VRCP14 and VRSQRT14 of one number, for all back ends computed by softfloat_approx14.py (mechanism).

RECIPROCAL_14[width], RECIPROCAL_ROOT_14[width]    functions (s, bits) -> VALUE, of 32 or 64 bits
"""

from __future__ import annotations

from pyemu.cpu import softfloat as sf
from pyemu.cpu import softfloat_approx14
from pyemu.cpu.primitives import call_service, service
from pyemu.cpu.state import MXCSR, VALUE, State


def _reciprocal_14(s: State, bits: int, width: int) -> int:
    return softfloat_approx14.reciprocal(sf.F64 if width == 64 else sf.F32, bits, s[MXCSR])


def _reciprocal_root_14(s: State, bits: int, width: int) -> int:
    return softfloat_approx14.reciprocal_square_root(sf.F64 if width == 64 else sf.F32, bits, s[MXCSR])


RECIPROCAL = service(_reciprocal_14)
RECIPROCAL_ROOT = service(_reciprocal_root_14)


def reciprocal_single(s: State, bits: int) -> int:
    """VRCP14SS."""
    s[VALUE] = call_service(s, RECIPROCAL, bits, 32)
    return 0


def reciprocal_double(s: State, bits: int) -> int:
    """VRCP14SD."""
    s[VALUE] = call_service(s, RECIPROCAL, bits, 64)
    return 0


def root_single(s: State, bits: int) -> int:
    """VRSQRT14SS."""
    s[VALUE] = call_service(s, RECIPROCAL_ROOT, bits, 32)
    return 0


def root_double(s: State, bits: int) -> int:
    """VRSQRT14SD."""
    s[VALUE] = call_service(s, RECIPROCAL_ROOT, bits, 64)
    return 0


RECIPROCAL_14 = {32: reciprocal_single, 64: reciprocal_double}
RECIPROCAL_ROOT_14 = {32: root_single, 64: root_double}
