"""The decoder's tables for VEX and EVEX instructions, made from the rows.

`FIRST` gives, for space, map and opcode, the first of a run of candidates; the first one for which
`key & mask == value` wins, and the last of every run is INVALID. The key is a word of what the encoding says: the
ModRM byte, then the fields below. `VECTOR` has, for each form, what is left to check and do. Not here: the bytes
(vex.py), what all encodings share (tables.py).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from pyemu.cpu.ops import Encoding, Form, parse_encoding

# ---- the key, from bit 8 on (SDM 2, 2.3.5 and 2.7.1) --------------------------------------------------------------
K_LENGTH = 8  # two bits: VEX.L or EVEX.L'L
K_W = 10
K_B = 11  # EVEX.b
K_PREFIX = 12  # two bits, pp
K_MEMORY = 14
K_LONG = 15  # 64-bit mode
PP = ("NP", "66", "F3", "F2")  # by the value of pp

OPCODES = 2 * 4 * 256  # space (VEX, EVEX), map, opcode

# ---- VECTOR: fields -------------------------------------------------------------------------------------------------
X_VVVV = 0  # register class of VEX.vvvv, four bits; 0: it must be 1111
X_IS4 = 1 << 4  # the immediate's upper half names a vector register
X_MASKED = 1 << 5  # a mask is allowed
X_ZEROING = 1 << 6  # EVEX.z is allowed
X_NEEDS_MASK = 1 << 7  # k0 is refused
X_DISP8 = 8  # log2 of what an 8-bit displacement counts in, three bits
X_VSIB = 1 << 11  # the index is a vector register
X_ROUNDING = 1 << 12  # L'L is the rounding mode

Candidate = tuple[int, int, int]  # mask, value, form


def opcode_of(encoding: Encoding) -> int:
    """Index into FIRST."""
    return (int(encoding.space == "EVEX") * 4 + encoding.map) * 256 + encoding.opcode


def _conditions(form: Form, encoding: Encoding, sized: bool) -> list[tuple[int, int]]:
    """Masks and values of the keys that select a form; `sized` says that W chooses between 32 and 64 bits."""
    mask, value = 3 << K_PREFIX, PP.index(encoding.prefix) << K_PREFIX
    if encoding.digit >= 0:
        mask, value = mask | 0x38, value | encoding.digit << 3
    if encoding.modrm or encoding.digit >= 0:
        mask, value = mask | 1 << K_MEMORY, value | form.is_memory << K_MEMORY
    if not encoding.lig and not (form.b and not form.is_memory):
        mask, value = mask | 3 << K_LENGTH, value | (form.length.bit_length() - 5) << K_LENGTH
    if form.space == "EVEX":
        mask, value = mask | 1 << K_B, value | form.b << K_B
    w = encoding.rex_w if form.size == 0 else int(form.size == 8)
    with_w = (mask | 1 << K_W, value | w << K_W) if w >= 0 else (mask, value)
    if form.row.modes == "64" or form.size == 8:
        return [(with_w[0] | 1 << K_LONG, with_w[1] | 1 << K_LONG)]
    if sized and w == 0:  # outside 64-bit mode it doesn't
        return [(with_w[0] | 1 << K_LONG, with_w[1] | 1 << K_LONG), (mask | 1 << K_LONG, value)]
    return [with_w]


def describe(form: Form, vvvv_class: int) -> int:
    """The form's word in VECTOR."""
    if not form.space:
        return 0
    row, word = form.row, vvvv_class << X_VVVV
    if any(o.source == "is4" for o in form.operands):
        word |= X_IS4
    if row.element:
        word |= X_MASKED
        if "z" in row.masking and not form.operands[0].is_memory:
            word |= X_ZEROING
        if "K" in row.masking:
            word |= X_NEEDS_MASK
    if form.space == "EVEX" and form.is_memory:
        memory = next(o for o in form.operands if o.is_memory)
        size = row.disp8 or (row.broadcast // 8 if form.b else memory.size)
        word |= (size.bit_length() - 1) << X_DISP8
    if row.vsib:
        word |= X_VSIB
    if form.b and not form.is_memory and row.rounding == "er":
        word |= X_ROUNDING
    return word


def build(forms: Sequence[Form], start: int, invalid: int) -> tuple[array[int], list[Candidate]]:
    """FIRST, and the candidates; their numbers begin with `start`, where one that always is INVALID comes first."""
    by_opcode: dict[int, list[tuple[int, int, int]]] = {}
    vectors = [(form, parse_encoding(form.row.encoding)) for form in forms if form.space]
    sized = {(opcode_of(e), e.prefix) for form, e in vectors if form.size == 8 or form.row.modes == "64"}
    for form, encoding in vectors:
        conditions = _conditions(form, encoding, (opcode_of(encoding), encoding.prefix) in sized)
        here = by_opcode.setdefault(opcode_of(encoding), [])
        here += [(mask, value, form.number) for mask, value in conditions]
    first = array("H", [start]) * OPCODES
    candidates: list[Candidate] = [(0, 0, invalid)]
    for opcode, run in sorted(by_opcode.items()):
        run.sort(key=lambda c: (-c[0].bit_count(), c))
        seen: dict[tuple[int, int], int] = {}
        for mask, value, number in run:
            if (mask, value) in seen:
                one, two = forms[number].row, forms[seen[mask, value]].row
                raise ValueError(f"{one.encoding} ({one.name}) claims the bytes of {two.encoding} ({two.name})")
            seen[mask, value] = number
        first[opcode] = start + len(candidates)
        candidates += [*run, (0, 0, invalid)]
    return first, candidates
