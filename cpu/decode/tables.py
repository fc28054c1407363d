"""The decoder's tables, made from the rows: flat arrays that both Python and native code index.

Selecting a form takes one lookup and a short match. The lookup key is (opcode map, opcode, situation, mandatory prefix
class, memory or register): `GROUP` gives the first of a run of candidates, and the first candidate for which
`key & CANDIDATE_MASK == CANDIDATE_VALUE` wins; the key is the ModRM byte plus REX.B in bit 8. The last candidate of
every run matches everything: a less specific row, or form INVALID.

A *situation* says which operand size the prefixes ask for; which one a row gets from it (default64, force64) is settled
here. `DESCRIPTION` has, for each form, what is left to do: register classes, immediates, CPU features. Not
here: the bytes (decoder.py).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from pyemu.cpu.decode import vex_tables
from pyemu.cpu.features import numbers
from pyemu.cpu.ops import Encoding, Form, Operand, Row, build_table, parse_encoding
from pyemu.cpu.state import CS, DS, ES, FPR, FS, GPR, GS, OPMASK, SS, VEC, ZERO

INVALID = 0xFFFF  # form number: #UD

# Situations: two legacy operand sizes, then 64-bit mode by REX.W and 66.
LEGACY16, LEGACY32, LONG32, LONG16, LONG64, LONG64_66 = range(6)
SITUATIONS = 6
_SIZE = {LEGACY16: 2, LEGACY32: 4, LONG32: 4, LONG16: 2, LONG64: 8, LONG64_66: 8}

# Mandatory prefix classes: F3 and F2 outrank 66 (SDM 2, 2.1.2).
PREFIX_CLASSES = ("NP", "F3", "F2", "66")
CLASSES = len(PREFIX_CLASSES)

OPCODES = 4 * 256  # maps 0 (one byte), 1 (0F), 2 (0F 38), 3 (0F 3A)

KEY_REX_B = 0x100

# ---- prefixes: fields of the word that the decoder gathers -----------------------------------------------
P_OPERAND, P_ADDRESS, P_LOCK = 1, 2, 4
P_REPEAT_SHIFT = 3  # two bits: 0 none, 1 F3, 2 F2
P_SEGMENT_SHIFT = 5  # three bits: 0 none, else segment number + 1
P_REX_SHIFT = 8  # the REX byte, 0 if there is none
_REPEAT, _SEGMENT, _REX = 3 << P_REPEAT_SHIFT, 7 << P_SEGMENT_SHIFT, 0xFF << P_REX_SHIFT

# ---- register classes: rows of REGISTER --------------------------------------------------------------------
(C_NONE, C_BYTE, C_GPR, C_XMM, C_MM, C_NUMBER, C_SEGMENT, C_SEGMENT_WRITE, C_CONTROL, C_DEBUG, C_MASK) = range(11)
NO_REGISTER = 0xFFFF  # this number names no register: #UD
NO_REX = 16  # added to the number of a byte register when there is no REX prefix: 4-7 are AH CH DH BH
CLASS_ROW = 32

# ---- DESCRIPTION: fields -----------------------------------------------------------------------------------
D_REG, D_RM, D_OP = 0, 4, 8  # register classes
D_IMM, D_IMM2 = 12, 16  # encoded bytes of the immediates
D_MOFFS = 1 << 20  # IMM is an address of the address size
D_LOCK = 1 << 21  # LOCK is allowed
D_REP = 1 << 22  # F3 and F2 mean repetition
D_FEATURE, D_FEATURE2 = 24, 32  # numbers of the CPU features that announce it (features.py); 0: none
D_INSTEAD = 40  # 16 bits: the form that it is without them; 0: none, #UD

# MODRM: does the opcode have a ModRM byte?
HAS_MODRM = 1
REGISTER_ONLY = 2  # its mod field is ignored (MOV to and from control and debug registers)


Candidate = tuple[int, int, int]  # mask, value, form


@dataclass
class Tables:
    """What build() makes."""

    group: array[int]  # index_of() -> first candidate
    candidate_mask: array[int]
    candidate_value: array[int]
    candidate_form: array[int]
    modrm: array[int]  # map * 256 + opcode -> HAS_MODRM | REGISTER_ONLY
    description: array[int]  # by form number
    vex_first: array[int]  # vex_tables.py
    vector: array[int]  # by form number, likewise


def index_of(opcode: int, situation: int, prefix_class: int, memory: int) -> int:
    """Index into `group`; `opcode` includes the map."""
    return ((opcode * SITUATIONS + situation) * CLASSES + prefix_class) * 2 + memory


def operand_size(row: Row, situation: int) -> int:
    """The operand size that a row has in a situation."""
    if situation >= LONG32:
        if row.force64 or (row.default64 and situation != LONG16):
            return 8
    return _SIZE[situation]


def _applies(form: Form, encoding: Encoding, situation: int, prefix_class: int) -> bool:
    """Does the form stand for these prefixes in this mode?"""
    row, long = form.row, situation >= LONG32
    if (row.modes == "64" and not long) or (row.modes == "legacy" and long):
        return False
    if encoding.prefix and encoding.prefix != PREFIX_CLASSES[prefix_class]:
        return False
    if encoding.rex_w >= 0 and encoding.rex_w != (situation >= LONG64):
        return False
    return not form.size or form.size == operand_size(row, situation)


def _match(encoding: Encoding, exact_beside_register: bool) -> tuple[int, int]:
    """Mask and value of the key."""
    mask = value = 0
    if encoding.modrm_byte >= 0:
        mask, value = 0xFF, encoding.modrm_byte
    elif encoding.digit >= 0:
        mask, value = 0x38, encoding.digit << 3
    if exact_beside_register:
        mask |= KEY_REX_B  # 90 is NOP, but 49 90 is XCHG R8, RAX
    return mask, value


def _operand_class(operand: Operand, position: int) -> int:
    """Register class of a register operand."""
    match operand.kind:
        case "reg":
            return C_BYTE if operand.size == 1 else C_GPR
        case "xmm":
            return C_XMM
        case "mask":
            return C_MASK
        case "mm":
            return C_MM
        case "st":
            return C_NUMBER
        case "seg":
            return C_SEGMENT_WRITE if position == 0 else C_SEGMENT
        case "cr":
            return C_CONTROL
        case "dr":
            return C_DEBUG
    return C_NONE


def _vvvv_class(form: Form) -> int:
    """Register class of VEX.vvvv."""
    return next((_operand_class(o, 1) for o in form.operands if o.source == "vvvv"), C_NONE)


def _immediate_bytes(code: str, size: int) -> int:
    """Bytes that an immediate or branch operand takes in the instruction."""
    kind = code[1:].rstrip("2") if code[0] == "I" else code[1:]
    fixed = {"b": 1, "bs": 1, "w": 2, "d": 4, "q": 8}
    if kind in fixed:
        return fixed[kind]
    return min(size or 4, 4) if kind in ("z", "p") else size


def describe(form: Form) -> int:
    """The form's word in DESCRIPTION."""
    word, size = 0, form.size
    shifts = {"reg": D_REG, "rm": D_RM, "op": D_OP}
    codes = [c for c in form.row.operands.split(",") if c]
    for position, (operand, code) in enumerate(zip(form.operands, codes, strict=True)):
        if operand.source in shifts:
            word |= _operand_class(operand, position) << shifts[operand.source]
        elif operand.source == "is4":
            word |= 1 << D_IMM
        elif operand.kind == "moffs":
            word |= D_MOFFS
        elif operand.kind == "far":
            word |= _immediate_bytes(code, size) << D_IMM | 2 << D_IMM2
        elif operand.kind in ("imm", "rel"):
            word |= _immediate_bytes(code, size) << (D_IMM2 if operand.source == "imm2" else D_IMM)
    if form.row.lock and form.is_memory:
        word |= D_LOCK
    if form.row.rep:
        word |= D_REP
    try:
        first, second = numbers(form.feature)
    except KeyError as error:
        raise ValueError(f"{form.row.encoding} ({form.row.name}): unknown feature {error}") from error
    return word | first << D_FEATURE | second << D_FEATURE2


def _instead(form: Form, by_opcode: dict[int, list[Form]], encodings: Sequence[Encoding]) -> int:
    """The form of the same bytes without mandatory prefix, for a row that says so."""
    if not form.row.prefix_ignored:
        return 0
    encoding = encodings[form.number]
    for other in by_opcode[encoding.map * 256 + encoding.opcode]:
        if not encodings[other.number].prefix and (other.size, other.is_memory) == (form.size, form.is_memory):
            return other.number
    raise ValueError(f"{form.row.encoding} ({form.row.name}): nothing there without the prefix")


def _run(forms: Sequence[Form], encodings: Sequence[Encoding], plus: bool) -> tuple[Candidate, ...]:
    """The candidates among forms that all apply: most specific first, rows that name their prefix before others."""
    candidates = []
    for form in forms:
        encoding = encodings[form.number]
        mask, value = _match(encoding, plus and not encoding.plus_r)
        candidates.append((-mask.bit_count(), not encoding.prefix, mask, value, form))
    candidates.sort(key=lambda c: (*c[:4], c[4].number))
    run: list[Candidate] = []
    seen: dict[tuple[int, int], bool] = {}
    for _, any_prefix, mask, value, form in candidates:
        if (mask, value) not in seen:
            run.append((mask, value, form.number))
            seen[mask, value] = any_prefix
        elif seen[mask, value] == any_prefix:
            row = form.row
            raise ValueError(f"{row.encoding} {row.operands} ({row.name}) claims the bytes of another row")
    if not run or run[-1][0]:
        run.append((0, 0, INVALID))
    return tuple(run)


def build(forms: Sequence[Form]) -> Tables:
    """Make the tables; the order of rows decides only between rows that claim the same bytes, which is refused."""
    parsed = {text: parse_encoding(text) for text in {form.row.encoding for form in forms}}
    encodings = [parsed[form.row.encoding] for form in forms]
    modrm = array("B", bytes(OPCODES))
    by_opcode: dict[int, list[Form]] = {}
    for form in forms:
        encoding = encodings[form.number]
        if encoding.space:
            continue
        first = encoding.map * 256 + encoding.opcode
        for opcode in range(first, first + (8 if encoding.plus_r else 1)):
            by_opcode.setdefault(opcode, []).append(form)
            if encoding.modrm or encoding.digit >= 0:
                modrm[opcode] = HAS_MODRM
                if any(operand.kind in ("cr", "dr") for operand in form.operands):
                    modrm[opcode] = HAS_MODRM | REGISTER_ONLY
    group = array("H", [0]) * (OPCODES * SITUATIONS * CLASSES * 2)
    runs: dict[tuple[Candidate, ...], int] = {((0, 0, INVALID),): 0}
    total = 1
    for opcode, here in sorted(by_opcode.items()):
        plus = any(encodings[form.number].plus_r for form in here)
        for situation in range(SITUATIONS):
            for prefix_class in range(CLASSES):
                applying = [f for f in here if _applies(f, encodings[f.number], situation, prefix_class)]
                for memory in range(2):
                    fitting = [f for f in applying if not modrm[opcode] or f.is_memory == bool(memory)]
                    run = _run(fitting, encodings, plus)
                    if run not in runs:
                        runs[run] = total
                        total += len(run)
                    group[index_of(opcode, situation, prefix_class, memory)] = runs[run]
    flat = [candidate for run_key in runs for candidate in run_key]
    vex_first, vex_candidates = vex_tables.build(forms, len(flat), INVALID)
    flat += vex_candidates
    return Tables(
        group,
        array("H", [c[0] for c in flat]),
        array("H", [c[1] for c in flat]),
        array("H", [c[2] for c in flat]),
        modrm,
        array("Q", [describe(form) | _instead(form, by_opcode, encodings) << D_INSTEAD for form in forms]),
        vex_first,
        array("H", [vex_tables.describe(form, _vvvv_class(form)) for form in forms]),
    )


def _prefixes() -> array[int]:
    """For (64-bit mode, byte): 0 if it is no prefix, else what to keep (high half) and to set (low half) in the word.
    Any prefix after a REX cancels it (SDM 2, 2.2.1)."""
    table = array("I", [0]) * 512
    segments = {0x26: ES, 0x2E: CS, 0x36: SS, 0x3E: DS, 0x64: FS, 0x65: GS}
    keep_all = 0xFFFF & ~_REX
    for long in range(2):
        at = long << 8
        for byte, bit in ((0x66, P_OPERAND), (0x67, P_ADDRESS), (0xF0, P_LOCK)):
            table[at + byte] = keep_all << 16 | bit
        for byte, kind in ((0xF3, 1), (0xF2, 2)):
            table[at + byte] = (keep_all & ~_REPEAT) << 16 | kind << P_REPEAT_SHIFT
        for byte, segment in segments.items():
            if long and segment < FS:
                table[at + byte] = keep_all << 16
            else:
                table[at + byte] = (keep_all & ~_SEGMENT) << 16 | (segment + 1) << P_SEGMENT_SHIFT
    for byte in range(0x40, 0x50):
        table[256 + byte] = keep_all << 16 | byte << P_REX_SHIFT
    return table


def _registers() -> array[int]:
    """For (class, number): the byte offset in State, the number itself where the record wants that, or NO_REGISTER."""
    table = array("H", [NO_REGISTER]) * (11 * CLASS_ROW)
    for n in range(CLASS_ROW):
        low = n & 15
        table[C_NONE * CLASS_ROW + n] = 8 * ZERO
        high_byte = n & NO_REX and 4 <= low < 8
        table[C_BYTE * CLASS_ROW + n] = 8 * (GPR + low - 4) + 1 if high_byte else 8 * (GPR + low)
        if n < 16:
            table[C_GPR * CLASS_ROW + n] = 8 * (GPR + n)
        if n < 8:
            table[C_MASK * CLASS_ROW + n] = 8 * (OPMASK + n)
        table[C_XMM * CLASS_ROW + n] = 8 * (VEC + 8 * n)
        table[C_MM * CLASS_ROW + n] = 8 * (FPR + 2 * (n & 7))
        table[C_NUMBER * CLASS_ROW + n] = n & 7
        if n & 7 < 6:
            table[C_SEGMENT * CLASS_ROW + n] = n & 7
            if n & 7 != CS:
                table[C_SEGMENT_WRITE * CLASS_ROW + n] = n & 7
        if low in (0, 2, 3, 4, 8):
            table[C_CONTROL * CLASS_ROW + n] = low
        if low < 8:
            table[C_DEBUG * CLASS_ROW + n] = low
    return table


PREFIX = _prefixes()
REGISTER = _registers()

# 16-bit addressing (SDM 2, table 2-1), by the rm field: base and index as byte offsets in State, default segment.
_BX, _BP, _SI, _DI, _NONE = 8 * (GPR + 3), 8 * (GPR + 5), 8 * (GPR + 6), 8 * (GPR + 7), 8 * ZERO
BASE_16 = array("H", [_BX, _BX, _BP, _BP, _NONE, _NONE, _BP, _BX])
INDEX_16 = array("H", [_SI, _DI, _SI, _DI, _SI, _DI, _NONE, _NONE])
SEGMENT_16 = array("H", [DS, DS, SS, SS, DS, DS, SS, DS])

_tables = build(build_table().forms)
GROUP = _tables.group
CANDIDATE_MASK = _tables.candidate_mask
CANDIDATE_VALUE = _tables.candidate_value
CANDIDATE_FORM = _tables.candidate_form
MODRM = _tables.modrm
DESCRIPTION = _tables.description
VEX_FIRST = _tables.vex_first
VECTOR = _tables.vector
