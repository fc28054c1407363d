"""RCPSS and RSQRTSS for all back ends: rare enough to be computed by softfloat_approx.py everywhere (mechanism).

reciprocal(s, bits) -> VALUE    reciprocal_root(s, bits) -> VALUE     of one single-precision number
"""

from __future__ import annotations

from pyemu.cpu import softfloat_approx
from pyemu.cpu.primitives import call_service, service
from pyemu.cpu.state import VALUE, State


def _reciprocal(s: State, bits: int, unused: int) -> int:
    return softfloat_approx.reciprocal(bits)


def _reciprocal_root(s: State, bits: int, unused: int) -> int:
    return softfloat_approx.reciprocal_square_root(bits)


RECIPROCAL = service(_reciprocal)
RECIPROCAL_ROOT = service(_reciprocal_root)


def reciprocal(s: State, bits: int) -> int:
    """1 / x, to 12 bits."""
    s[VALUE] = call_service(s, RECIPROCAL, bits, 0)
    return 0


def reciprocal_root(s: State, bits: int) -> int:
    """1 / sqrt(x), to 12 bits."""
    s[VALUE] = call_service(s, RECIPROCAL_ROOT, bits, 0)
    return 0
