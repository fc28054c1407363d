"""Fused multiply-add and half precision by softfloat, for native code on a host without the instructions (mechanism).

compute(s, operation, mxcsr, a, b, c): VALUE = the result, VALUE + 1 = the exception flags that it raised. `operation`
is one of the numbers here. MXCSR in the state is neither read nor written.
"""

from __future__ import annotations

from pyemu.cpu import softfloat as sf
from pyemu.cpu import softfloat_convert as sfc
from pyemu.cpu.primitives import call_service, service
from pyemu.cpu.state import VALUE, State

MULTIPLY_ADD = 0  # with these added:
DOUBLE, NEGATE_PRODUCT, NEGATE_ADDEND = 1, 2, 4
FROM_HALF, TO_HALF = 8, 9  # b is VCVTPS2PH's imm8


def operation(width: int, negate_product: bool, negate_addend: bool) -> int:
    """The number of a multiply-add."""
    return MULTIPLY_ADD + DOUBLE * (width == 64) + NEGATE_PRODUCT * negate_product + NEGATE_ADDEND * negate_addend


def _compute(s: State, a: int, b: int) -> int:
    c, what = int(s[VALUE]), int(s[VALUE + 1])
    number, ctx = what >> 32, sf.FloatContext.from_mxcsr(what & 0xFFFFFFFF)
    if number == FROM_HALF:
        result = sfc.half_to_single(sf.F32, sf.F16, a, ctx)
    elif number == TO_HALF:
        result = sfc.single_to_half(sf.F32, sf.F16, a, b, ctx)
    else:
        fmt = sf.F64 if number & DOUBLE else sf.F32
        result = sf.fma(fmt, a, b, c, ctx, bool(number & NEGATE_PRODUCT), bool(number & NEGATE_ADDEND))
    s[VALUE + 1] = ctx.flags
    return result


COMPUTE = service(_compute)


def compute(s: State, operation: int, mxcsr: int, a: int, b: int, c: int) -> int:
    """One operation; there is no fault."""
    s[VALUE] = c
    s[VALUE + 1] = operation << 32 | mxcsr
    s[VALUE] = call_service(s, COMPUTE, a, b)
    return 0
