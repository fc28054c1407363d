"""Integer operations on vectors that exist for MMX, XMM and wider registers alike, as tables of opcode, mnemonic and
meaning.

mmx.py, sse2.py and ssse3.py make the rows. A meaning takes whole registers of any width.
"""

from __future__ import annotations

from pyemu.cpu.instruction import Instruction
from pyemu.cpu.semantics.rows import Evex
from pyemu.cpu.semantics.vectors import (
    Vector,
    broadcast,
    each,
    each_one,
    in_lanes,
    saturate_signed,
    saturate_unsigned,
)
from pyemu.cpu.values import Value


# ---- lane functions ------------------------------------------------------------------------------------------
def _add_signed(a: Value, b: Value) -> Value:
    return saturate_signed(a.sext(2 * a.width) + b.sext(2 * a.width), a.width)


def _subtract_signed(a: Value, b: Value) -> Value:
    return saturate_signed(a.sext(2 * a.width) - b.sext(2 * a.width), a.width)


def _add_unsigned(a: Value, b: Value) -> Value:
    total = a + b
    return total.ult(a).select(-1, total)


def _subtract_unsigned(a: Value, b: Value) -> Value:
    return a.ult(b).select(0, a - b)


def _average(a: Value, b: Value) -> Value:
    return ((a.zext(2 * a.width) + b.zext(2 * a.width) + 1) >> 1).trunc(a.width)


def minimum_signed(a: Value, b: Value) -> Value:
    return a.slt(b).select(a, b)


def maximum_signed(a: Value, b: Value) -> Value:
    return a.slt(b).select(b, a)


def minimum_unsigned(a: Value, b: Value) -> Value:
    return a.ult(b).select(a, b)


def maximum_unsigned(a: Value, b: Value) -> Value:
    return a.ult(b).select(b, a)


def equal(a: Value, b: Value) -> Value:
    return a.eq(b).sext(a.width)


def greater(a: Value, b: Value) -> Value:
    return b.slt(a).sext(a.width)


def multiply_low(a: Value, b: Value) -> Value:
    return a * b


def _multiply_high_signed(a: Value, b: Value) -> Value:
    return (a.sext(32) * b.sext(32)).bits(16, 16)


def _multiply_high_unsigned(a: Value, b: Value) -> Value:
    return (a.zext(32) * b.zext(32)).bits(16, 16)


def _multiply_even(a: Value, b: Value) -> Value:
    return a.trunc(32).zext(64) * b.trunc(32).zext(64)


def _multiply_add(a: Value, b: Value) -> Value:
    """PMADDWD: both products of a pair of words, added."""
    return a.trunc(16).sext(32) * b.trunc(16).sext(32) + a.sar(16) * b.sar(16)


def byte_difference(a: Value, b: Value) -> Value:
    """|a - b| of two unsigned bytes, as 16 bits."""
    return a.ult(b).select(b - a, a - b).zext(16)


def _sum_of_differences(a: Value, b: Value) -> Value:
    """PSADBW on eight bytes."""
    total = byte_difference(a.trunc(8), b.trunc(8))
    for at in range(8, 64, 8):
        total = total + byte_difference(a.bits(at, 8), b.bits(at, 8))
    return total.zext(64)


# ---- vector functions ----------------------------------------------------------------------------------------
def interleave(lane: int, high: bool) -> Vector:
    """PUNPCKL and PUNPCKH."""

    def function(i: Instruction, a: Value, b: Value) -> Value:
        count = a.width // lane
        first = count // 2 if high else 0
        pairs = [(i.lane(a, lane, k), i.lane(b, lane, k)) for k in range(first, first + count // 2)]
        return i.join([value for pair in pairs for value in pair])

    return function


def pack(lane: int, signed: bool) -> Vector:
    """PACKSS and PACKUS: both operands narrowed to half the lane."""
    narrow = saturate_signed if signed else saturate_unsigned

    def function(i: Instruction, a: Value, b: Value) -> Value:
        return i.join((i.map(lane, lambda x: narrow(x, lane // 2), a), i.map(lane, lambda x: narrow(x, lane // 2), b)))

    return function


def shift(lane: int, name: str) -> Vector:
    """Shifts of all lanes by the low 64 bits of the second operand; too large a count clears or, for "ashr", fills."""

    def function(i: Instruction, a: Value, b: Value) -> Value:
        count = b.trunc(64)
        count = count.ult(lane).select(count, lane).trunc(lane)
        return i.map(lane, lambda x, by: i.binary(name, x, by), a, broadcast(i, count, a.width))

    return function


def horizontal(lane: int, name: str, saturate: bool = False) -> Vector:
    """PHADD and PHSUB: neighbours combined, first those of `a`, then those of `b`."""

    def combine(i: Instruction, pair: Value) -> Value:
        low, high = pair.trunc(lane), pair.bits(lane, lane)
        if saturate:
            return saturate_signed(i.binary(name, low.sext(2 * lane), high.sext(2 * lane)), lane)
        return i.binary(name, low, high)

    def function(i: Instruction, a: Value, b: Value) -> Value:
        return i.join((i.map(2 * lane, lambda x: combine(i, x), a), i.map(2 * lane, lambda x: combine(i, x), b)))

    return function


def _pshufb(i: Instruction, a: Value, b: Value) -> Value:
    return i.pick_bytes(a, b)


# MMX, and its XMM twins of SSE2: opcode after 0F.
BASIC: tuple[tuple[int, str, Vector], ...] = (
    (0x60, "punpcklbw", in_lanes(interleave(8, high=False))),
    (0x61, "punpcklwd", in_lanes(interleave(16, high=False))),
    (0x62, "punpckldq", in_lanes(interleave(32, high=False))),
    (0x63, "packsswb", in_lanes(pack(16, signed=True))),
    (0x64, "pcmpgtb", each(8, greater)),
    (0x65, "pcmpgtw", each(16, greater)),
    (0x66, "pcmpgtd", each(32, greater)),
    (0x67, "packuswb", in_lanes(pack(16, signed=False))),
    (0x68, "punpckhbw", in_lanes(interleave(8, high=True))),
    (0x69, "punpckhwd", in_lanes(interleave(16, high=True))),
    (0x6A, "punpckhdq", in_lanes(interleave(32, high=True))),
    (0x6B, "packssdw", in_lanes(pack(32, signed=True))),
    (0x74, "pcmpeqb", each(8, equal)),
    (0x75, "pcmpeqw", each(16, equal)),
    (0x76, "pcmpeqd", each(32, equal)),
    (0xD1, "psrlw", shift(16, "lshr")),
    (0xD2, "psrld", shift(32, "lshr")),
    (0xD3, "psrlq", shift(64, "lshr")),
    (0xD4, "paddq", each(64, lambda a, b: a + b)),
    (0xD5, "pmullw", each(16, multiply_low)),
    (0xD8, "psubusb", each(8, _subtract_unsigned)),
    (0xD9, "psubusw", each(16, _subtract_unsigned)),
    (0xDA, "pminub", each(8, minimum_unsigned)),
    (0xDB, "pand", lambda i, a, b: a & b),
    (0xDC, "paddusb", each(8, _add_unsigned)),
    (0xDD, "paddusw", each(16, _add_unsigned)),
    (0xDE, "pmaxub", each(8, maximum_unsigned)),
    (0xDF, "pandn", lambda i, a, b: ~a & b),
    (0xE0, "pavgb", each(8, _average)),
    (0xE1, "psraw", shift(16, "ashr")),
    (0xE2, "psrad", shift(32, "ashr")),
    (0xE3, "pavgw", each(16, _average)),
    (0xE4, "pmulhuw", each(16, _multiply_high_unsigned)),
    (0xE5, "pmulhw", each(16, _multiply_high_signed)),
    (0xE8, "psubsb", each(8, _subtract_signed)),
    (0xE9, "psubsw", each(16, _subtract_signed)),
    (0xEA, "pminsw", each(16, minimum_signed)),
    (0xEB, "por", lambda i, a, b: a | b),
    (0xEC, "paddsb", each(8, _add_signed)),
    (0xED, "paddsw", each(16, _add_signed)),
    (0xEE, "pmaxsw", each(16, maximum_signed)),
    (0xEF, "pxor", lambda i, a, b: a ^ b),
    (0xF1, "psllw", shift(16, "shl")),
    (0xF2, "pslld", shift(32, "shl")),
    (0xF3, "psllq", shift(64, "shl")),
    (0xF4, "pmuludq", each(64, _multiply_even)),
    (0xF5, "pmaddwd", each(32, _multiply_add)),
    (0xF6, "psadbw", each(64, _sum_of_differences)),
    (0xF8, "psubb", each(8, lambda a, b: a - b)),
    (0xF9, "psubw", each(16, lambda a, b: a - b)),
    (0xFA, "psubd", each(32, lambda a, b: a - b)),
    (0xFB, "psubq", each(64, lambda a, b: a - b)),
    (0xFC, "paddb", each(8, lambda a, b: a + b)),
    (0xFD, "paddw", each(16, lambda a, b: a + b)),
    (0xFE, "paddd", each(32, lambda a, b: a + b)),
)

# Shifts by an immediate: opcode after 0F, digit of ModRM, mnemonic, meaning.
SHIFTS: tuple[tuple[int, int, str, Vector], ...] = (
    (0x71, 2, "psrlw", shift(16, "lshr")),
    (0x71, 4, "psraw", shift(16, "ashr")),
    (0x71, 6, "psllw", shift(16, "shl")),
    (0x72, 2, "psrld", shift(32, "lshr")),
    (0x72, 4, "psrad", shift(32, "ashr")),
    (0x72, 6, "pslld", shift(32, "shl")),
    (0x73, 2, "psrlq", shift(64, "lshr")),
    (0x73, 6, "psllq", shift(64, "shl")),
)


def _sign(a: Value, b: Value) -> Value:
    """PSIGN: a with the sign of b applied."""
    return b.eq(0).select(0, b.sign().select(-a, a))


def absolute(b: Value) -> Value:
    return b.sign().select(-b, b)


def _multiply_add_bytes(a: Value, b: Value) -> Value:
    """PMADDUBSW: unsigned bytes of a times signed bytes of b, a pair added with saturation."""
    low = a.trunc(8).zext(32) * b.trunc(8).sext(32)
    return saturate_signed(low + a.bits(8, 8).zext(32) * b.bits(8, 8).sext(32), 16)


def _multiply_round(a: Value, b: Value) -> Value:
    """PMULHRSW."""
    return ((a.sext(32) * b.sext(32) + 0x4000) >> 15).trunc(16)


# SSSE3: opcode after 0F 38.
SUPPLEMENTAL: tuple[tuple[int, str, Vector], ...] = (
    (0x00, "pshufb", in_lanes(_pshufb)),
    (0x01, "phaddw", in_lanes(horizontal(16, "add"))),
    (0x02, "phaddd", in_lanes(horizontal(32, "add"))),
    (0x03, "phaddsw", in_lanes(horizontal(16, "add", saturate=True))),
    (0x04, "pmaddubsw", each(16, _multiply_add_bytes)),
    (0x05, "phsubw", in_lanes(horizontal(16, "sub"))),
    (0x06, "phsubd", in_lanes(horizontal(32, "sub"))),
    (0x07, "phsubsw", in_lanes(horizontal(16, "sub", saturate=True))),
    (0x08, "psignb", each(8, _sign)),
    (0x09, "psignw", each(16, _sign)),
    (0x0A, "psignd", each(32, _sign)),
    (0x0B, "pmulhrsw", each(16, _multiply_round)),
    (0x1C, "pabsb", each_one(8, absolute)),
    (0x1D, "pabsw", each_one(16, absolute)),
    (0x1E, "pabsd", each_one(32, absolute)),
)


# ---- EVEX ----------------------------------------------------------------------------------------------------
# Elements of the result in bits, where the mnemonic's last letter doesn't say it.
_ELEMENTS = {"punpcklbw": 8, "punpckhbw": 8, "punpcklwd": 16, "punpckhwd": 16, "punpckldq": 32, "punpckhdq": 32,
             "packssdw": 16, "packusdw": 16, "pmaddwd": 32, "pmaddubsw": 16, "psadbw": 0}  # fmt: skip
_LETTERS = {"b": 8, "w": 16, "d": 32, "q": 64}
_LOGIC = ("pand", "pandn", "por", "pxor")
_WHOLE = ("punpck", "pack", "pshufb", "pmadd", "psadbw", "psrl", "psra", "psll")  # not element by element
# Legacy operations that AVX-512 left out or replaced.
_NOT_IN_EVEX = ("psign", "phadd", "phsub", "phminposuw")


def evex_forms(name: str, operands: str) -> list[Evex]:
    """The EVEX rows of an integer operation: bytes and words come with AVX512BW and have no broadcast."""
    if name.startswith(_NOT_IN_EVEX):
        return []
    if name in _LOGIC:
        return [
            Evex("avx512f", 32, "W0", broadcast=32, name=f"v{name}d"),
            Evex("avx512f", 64, "W1", broadcast=64, name=f"v{name}q"),
        ]
    whole = name.startswith(_WHOLE) and "I" not in operands
    element = _ELEMENTS.get(name, _LETTERS.get(name[-1], 0))
    if name.startswith("pcmp"):
        operands, masking = operands.replace("Vx", "KGq"), "k"
    else:
        masking = "kz"
    if name in ("packssdw", "packusdw"):
        return [Evex("avx512bw", element, "W0", broadcast=32, whole=True)]
    if element < 32 or name == "pmaddwd":
        return [Evex("avx512bw", element, masking=masking, operands=operands, whole=whole)]
    repeated = 0 if "Wdq" in operands else element
    w = "W1" if element == 64 else "W0"
    return [Evex("avx512f", element, w, repeated, masking=masking, operands=operands, whole=whole)]
