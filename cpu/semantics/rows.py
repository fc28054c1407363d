"""Shorthands for rows that come in groups: the names of conditions, rows that differ in 64-bit mode, and the legacy,
VEX and EVEX encodings of one vector instruction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Evex:
    """What the EVEX encoding of an instruction adds: feature, W, masking and broadcast element in bits, and so on."""

    feature: str
    element: int = 0
    w: str = ""
    broadcast: int = 0
    rounding: str = ""
    masking: str = "kz"
    name: str = ""  # mnemonic, if it is not that of VEX
    operands: str = ""  # if they are not those of VEX
    disp8: int = 0
    whole: bool = False  # no faults suppressed: source elements are not those of the result
    lengths: str = ""  # as in the encoding; all if empty


def vector_encoding(legacy: str, space: str, lengths: str = "", w: str = "") -> str:
    """The VEX or EVEX encoding with prefix, map and opcode of a legacy one: `66 0F 38 1C /r` and VEX give
    `VEX.66.0F38 1C /r`."""
    prefix, _, *rest = (t for t in legacy.split() if t not in ("W0", "W1"))
    opcode_map = "0F"
    if rest[0] in ("38", "3A"):
        opcode_map += rest.pop(0)
    fields = [space, lengths, prefix, opcode_map, w]
    return " ".join([".".join(f for f in fields if f), *rest])


def simd(
    encoding: str,
    operands: str,
    name: str,
    *,
    sse: str = "",
    avx: str = "avx",
    avx256: str = "",
    evex: Evex | Sequence[Evex] = (),
    lengths: str = "",
    w: str = "",
    **common: Any,
) -> Callable[[Semantics], Semantics]:
    """The encodings of a vector instruction: legacy with feature `sse`, VEX with `avx` (256 bits wide with `avx256`, if
    that is another), EVEX; each only if it has a feature. `lengths` (LIG, 128, ...) and `w` are those of VEX; what else
    is given belongs to all rows."""

    def decorate(function: Semantics) -> Semantics:
        if sse:
            op(encoding, operands, name=name, feature=sse, **common)(function)
        for length, feature in ((lengths, avx),) if not avx256 else (("128", avx), ("256", avx256)):
            if feature:
                text = vector_encoding(encoding, "VEX", length, w)
                op(text, operands, name=f"v{name}", feature=feature, **common)(function)
        for e in (evex,) if isinstance(evex, Evex) else evex:
            text = vector_encoding(encoding, "EVEX", e.lengths or lengths, e.w)
            op(
                text,
                e.operands or operands,
                name=e.name or f"v{name}",
                feature=e.feature,
                element=e.element,
                masking=e.masking,
                broadcast=e.broadcast,
                rounding=e.rounding,
                disp8=e.disp8,
                whole=e.whole,
                **common,
            )(function)
        return function

    return decorate
