"""Shorthands for rows that come in groups: the names of conditions, rows that differ in 64-bit mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyemu.cpu.ops import Semantics, op

# Condition codes 0-15 as mnemonic suffixes (SDM 1, appendix B).
CONDITIONS = ("o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g")


def near(encoding: str, operands: str = "", **attributes: Any) -> Callable[[Semantics], Semantics]:
    """A near branch: operand size always 64 in 64-bit mode (f64 in SDM 2, table A-2); it ends a block."""

    def decorate(function: Semantics) -> Semantics:
        long, legacy = dict(attributes), dict(attributes)
        op(encoding, operands, modes="64", force64=True, sizes=(8,), ends_block=True, **long)(function)
        return op(encoding, operands, modes="legacy", sizes=(2, 4), ends_block=True, **legacy)(function)

    return decorate


def stacked(encoding: str, operands: str = "", **attributes: Any) -> Callable[[Semantics], Semantics]:
    """A stack operation: operand size 64 in 64-bit mode unless a 66 prefix makes it 16 (d64 in SDM 2, table A-2)."""

    def decorate(function: Semantics) -> Semantics:
        long, legacy = dict(attributes), dict(attributes)
        op(encoding, operands, modes="64", default64=True, sizes=(2, 8), **long)(function)
        return op(encoding, operands, modes="legacy", sizes=(2, 4), **legacy)(function)

    return decorate
