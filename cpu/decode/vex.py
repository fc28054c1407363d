"""VEX and EVEX prefixes (SDM 2, 2.3 and 2.7): read into one word, and checked against the form found. Mechanism subset.

The word has the fields below, none of them inverted. Not here: which form they select (vex_tables.py), the rest of the
instruction (decoder.py).
"""

from __future__ import annotations

from pyemu.cpu.decode import record as rc
from pyemu.cpu.decode.vex_tables import (
    K_B,
    K_LENGTH,
    K_LONG,
    K_MEMORY,
    K_PREFIX,
    K_W,
    X_MASKED,
    X_NEEDS_MASK,
    X_ROUNDING,
    X_VSIB,
    X_VVVV,
    X_ZEROING,
)
from pyemu.cpu.state import ONES, OPMASK

# ---- the word ---------------------------------------------------------------------------------------------------
V_REX = 0  # as a REX byte has them: B X R W
V_REG4 = 1 << 4  # EVEX.R'
V_VVVV = 5  # five bits, EVEX.V' on top
V_PREFIX = 10  # two bits, pp
V_LENGTH = 12  # two bits, L'L
V_MAP = 14  # three bits: EVEX's third is set for maps that are not there
V_B = 1 << 17
V_Z = 1 << 18
V_MASK = 19  # three bits, aaa
V_EVEX = 1 << 22
V_PRESENT = 1 << 23
V_BAD = 1 << 24  # a fixed bit or the map is wrong: #UD
V_HIGH = 1 << 25  # outside 64-bit mode: the top bit of vvvv, which is ignored where vvvv names a register

VEX2, VEX3, EVEX = 0xC5, 0xC4, 0x62
assert 8 * ONES < 1 << 16, "a record has 16 bits for the offset of a register"


def parse_vex(opcode: int, first: int, second: int, third: int, mode64: int) -> int:
    """The word, from the bytes after C5 (one), C4 (two) or 62 (three)."""
    word = V_PRESENT
    bits = first ^ 0xFF
    if opcode == VEX2:
        word = word | 1 << V_MAP | (bits >> 7) << 2 | ((first >> 2) & 1) << V_LENGTH | vvvv(first)
    else:
        opcode_map = first & 0x1F
        word = word | bits >> 5 | (second >> 7) << 3 | vvvv(second)
        if opcode == EVEX:
            opcode_map = first & 0xF
            word = word | V_EVEX | ((second >> 2) & 1 ^ 1) * V_BAD
            word = word | ((bits >> 4) & 1) * V_REG4 | ((third >> 3) & 1 ^ 1) << (V_VVVV + 4)
            word = word | ((third >> 5) & 3) << V_LENGTH | (third >> 7) * V_Z | ((third >> 4) & 1) * V_B
            word = word | (third & 7) << V_MASK
        else:
            word = word | ((second >> 2) & 1) << V_LENGTH
        if opcode_map == 0 or opcode_map > 3:
            word = word | V_BAD
        word = word | (opcode_map & 3) << V_MAP
    if mode64 == 0:  # there are eight registers
        word = word | int(word & 8 << V_VVVV != 0) * V_HIGH
        word = word & ~(7 | V_REG4 | 24 << V_VVVV)
    return word


def vvvv(byte: int) -> int:
    """The fields that all have in one byte: vvvv and pp."""
    return ((byte >> 3) & 15 ^ 15) << V_VVVV | (byte & 3) << V_PREFIX


def key(word: int, modrm: int, memory: int, mode64: int) -> int:
    """What the candidates are compared with."""
    return (
        modrm
        | ((word >> V_LENGTH) & 3) << K_LENGTH
        | ((word >> 3) & 1) << K_W
        | int(word & V_B != 0) << K_B
        | ((word >> V_PREFIX) & 3) << K_PREFIX
        | memory << K_MEMORY
        | mode64 << K_LONG
    )


def undefined(word: int, vector: int, mode64: int) -> int:
    """1 if a field has a value that the form refuses (SDM 2, 2.7.11)."""
    if word & V_EVEX and word & V_B == 0 and (word >> V_LENGTH) & 3 == 3:
        return 1  # no such length, even where it is ignored
    number = (word >> V_VVVV) & 31
    if vector & (15 << X_VVVV) == 0 and (number != 0 or word & V_HIGH):
        if vector & X_VSIB == 0 or number & 15 or word & V_HIGH:
            return 1
    mask = (word >> V_MASK) & 7
    if mask != 0 and vector & X_MASKED == 0:
        return 1
    if word & V_Z and (mask == 0 or vector & X_ZEROING == 0):
        return 1
    return int(mask == 0 and vector & X_NEEDS_MASK != 0 and word & V_EVEX != 0)


assert 8 * ONES < 1 << 16  # it stands in 16 bits of the record


def mask_offset(word: int) -> int:
    """Byte offset in State of the mask: all ones for k0."""
    mask = (word >> V_MASK) & 7
    return 8 * (OPMASK + mask) if mask else 8 * ONES


def record_flags(word: int, vector: int) -> int:
    """EVEX.z and the rounding mode, as record flags."""
    flags = rc.ZEROING if word & V_Z else 0
    if vector & X_ROUNDING:
        flags = flags | ((word >> V_LENGTH) & 3) << rc.ROUNDING_SHIFT
    return flags
