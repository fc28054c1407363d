"""Unmasked SSE exceptions whose flags depend on more than the masked result, on every back end and on the host."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from pyemu.cpu.state import FCW, FPR
from tests.differential import case as c
from tests.differential.case import Case
from tests.differential.host import Host
from tests.differential.subject import Subject

MULPD, ADDPD, DPPD = bytes.fromhex("660f59c1"), bytes.fromhex("660f58c1"), bytes.fromhex("660f3a41c131")
XM, NONE = 19, c.BREAKPOINT
IE, DE, ZE, OE, UE, PE = (1 << n for n in range(6))
ALL_MASKED, FTZ = 0x1F80, 0x8000
TINY, HALF, ONE, HUGE, THIRD = 0x0010 << 48, 0x3FE0 << 48, 0x3FF0 << 48, 0x7FE0 << 48, 0x3FD5555555555555
SIGNALLING, DENORMAL = 0x7FF0 << 48 | 1, 1

# code, lower and upper lanes of XMM0 and XMM1, what is unmasked, FTZ; then the vector and the flags
SITUATIONS = (
    (MULPD, (TINY, ONE), (HALF, ONE), UE, 0, XM, UE),  # exact, and denormal
    (MULPD, (TINY, ONE), (HALF, ONE), UE, FTZ, XM, UE),
    (MULPD, (TINY, ONE), (HALF, ONE), OE, 0, NONE, 0),  # masked, it is no underflow
    (MULPD, (TINY | 1, ONE), (HALF, ONE), UE, 0, XM, UE),  # inexact for its exponent only
    (MULPD, (TINY, ONE), (THIRD, THIRD), UE, 0, XM, UE),
    (MULPD, (TINY | 1, ONE), (THIRD, ONE), UE, 0, XM, UE | PE),
    (MULPD, (HUGE, ONE), (HUGE, ONE), OE, 0, XM, OE),  # exact but for its exponent
    (MULPD, (HUGE, ONE), (HUGE | 1, THIRD), OE, 0, XM, OE),
    (MULPD, (HUGE | 1, ONE), (HUGE | 1, ONE), OE, 0, XM, OE | PE),
    (ADDPD, (HUGE, SIGNALLING), (HUGE, ONE), IE, 0, XM, IE),  # what comes before the computation prevents the rest
    (ADDPD, (HUGE, SIGNALLING), (HUGE, ONE), OE, 0, XM, IE | OE),
    (ADDPD, (DENORMAL, SIGNALLING), (ONE, ONE), DE, 0, XM, IE | DE),
    (DPPD, (TINY, ONE), (HALF, DENORMAL), UE, 0, XM, UE | DE),  # the products; the sum is not reached
)


@pytest.fixture(scope="module")
def judges() -> Iterator[dict[str, Host | Subject]]:
    host = Host()
    yield {"host": host} | {name: Subject(name) for name in ("reference", "interp", "jit")}
    host.close()


@pytest.mark.parametrize("situation", SITUATIONS)
def test_flags_and_vector(judges: dict[str, Host | Subject], situation: tuple[object, ...]) -> None:
    code, first, second, unmasked, ftz, vector, flags = situation
    assert isinstance(code, bytes) and isinstance(first, tuple) and isinstance(second, tuple)
    assert isinstance(unmasked, int) and isinstance(ftz, int) and isinstance(flags, int)
    given = bytearray(c.RECORD)
    mxcsr = ALL_MASKED & ~(unmasked << 7) | ftz
    struct.pack_into("<3Q", given, c.R_RIP, c.CODE, 0x202, 64)
    struct.pack_into("<Q", given, c.R_FP + 8 * (FCW - FPR), 0x37F)
    struct.pack_into("<Q", given, c.R_MXCSR, mxcsr)
    for n, lanes in enumerate((first, second)):
        struct.pack_into("<2Q", given, c.R_VEC + 64 * n, *lanes)
    case = Case(code, 64, 0, bytes(given))
    for name, judge in judges.items():
        result = judge.run([case])[0]
        got = c.word(result, c.R_VECTOR), c.word(result, c.R_MXCSR)
        assert got == (vector, mxcsr | flags), f"{name}: vector {got[0]}, MXCSR {got[1]:#x}"
