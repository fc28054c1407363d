"""Unmasked overflow and underflow for native code (mechanism).

The host computes with all exceptions masked, and then neither says that an exact result is denormal, which is an
underflow as long as that is unmasked (SDM 1, 4.9.1.5), nor whether the result was inexact but for its exponent. So
while one of the two is unmasked, which few programs do, the reference interpreter executes the instruction first, up to
where it would change anything: if it raises an exception, MXCSR is as it should be, and nothing is left to do.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

from pyemu.cpu.concrete import Concrete
from pyemu.cpu.decode import record as rc
from pyemu.cpu.ops import Form, build_table
from pyemu.cpu.primitives import call_service, service
from pyemu.cpu.state import MXCSR, State
from pyemu.cpu.values import Value


class _EndError(Exception):
    """Everything that can fault has been seen."""


class _Rehearsal(Concrete):
    """Executes without writing."""

    def store(self, linear: Value, value: Value, access: int = 0) -> None:
        self.settle_floats()
        raise _EndError

    def call(self, function: Callable[..., int], *arguments: Value | int) -> None:
        if self.uses_float:
            self.settle_floats()
            raise _EndError
        super().call(function, *arguments)


@cache
def _forms() -> list[Form]:
    return build_table().forms


def _rehearse(s: State, record: int, unused: int) -> int:
    words = list((ctypes.c_uint64 * rc.WORDS).from_address(record))
    flags = s[MXCSR]
    try:
        if _Rehearsal(s).execute(_forms()[words[rc.PACKED] & 0xFFFF], words, commit=False):
            return 1
    except _EndError:
        pass
    s[MXCSR] = flags
    return 0


REHEARSE = service(_rehearse)


def rehearse(s: State, record: int) -> int:
    """1 if the instruction raises an exception, which then is raised; `record` is the record's host address."""
    return call_service(s, REHEARSE, record, 0)
