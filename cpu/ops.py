"""The table of instructions: rows, operands and the forms that they expand to.

A row is written as a decorator on the function that defines the instruction (semantics/):

    @op("01 /r", "Ev,Gv", flags="w", lock=True)
    def add(i, dst, src): ...

Encoding, as in SDM 2, chapter 3: hex bytes of the opcode, with `/r` (ModRM), `/0`../`7` (ModRM with that reg field),
`+r` after the last byte (register in its low three bits), a full ModRM byte as an extra opcode byte where the table
has one (`0F 01 F8`, `D9 E8`), a leading mandatory prefix `NP`, `66`, `F3`, `F2`, and `W0`/`W1` where REX.W selects.
VEX and EVEX rows begin as in the SDM: `VEX.66.0F38.W0 18 /r`. A length may stand behind VEX or EVEX (128, 256, 512, LIG
for "ignored", LZ for "must be 0", or several: `128/256`); without one, all lengths of the encoding are meant. W may be
left out where it is ignored or is the size of general registers.
Operands, as in SDM 2, appendix A: an addressing letter and a type letter (`Ev`, `Gb`, `Iz`, `Wdq`), or a fixed
register (`AL`, `rAX`, `CL`, `DX`, `1`). Vectors have the types `x` (the vector length), `h`, `f`, `e` (a half, a
fourth, an eighth of it) and the fixed ones. `H` is the vector register of VEX.vvvv; in a legacy row it is the
destination's, so that one definition with three operands serves both. `L` is the vector register of the immediate's
upper half, `B` the general register of VEX.vvvv; `KG`, `KH`, `KR`, `KM` are mask registers of reg, vvvv, rm, and rm or
memory.

`flags` is what happens to CF PF AF ZF SF OF: "" nothing, "r" read, "w" all written, "m" some written and the others
kept, or kept all for some operands; with "c", the immediate is a count (of 5 bits, 6 for 64-bit operands), for 0 of
which all are kept.
`undefined` names flags that the SDM leaves undefined. `rare=True` leaves making native code to the
first use. Not here: byte-level decoding (decode/), meaning (semantics/).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

Semantics = Callable[..., None]

NP, P66, PF3, PF2, ANY = "NP", "66", "F3", "F2", ""


# What the string functions of C libraries are made of where there is AVX2 or AVX-512: of the instructions with a VEX
# or EVEX encoding, these are not rare.
COMMON = {
    "VEX": frozenset(
        "vmovdqu vmovdqa vmovups vmovaps vmovd vmovq vmovntdq vpand vpandn vpor vpxor vpaddb vpsubb vpcmpeqb vpcmpeqw"
        " vpcmpeqd vpcmpgtb vpminub vpminud vpmaxub vpmovmskb vpbroadcastb vpbroadcastd vptest vpshufb vpunpcklbw"
        " vpunpcklwd vzeroupper kmovb kmovw kmovd kmovq kortestb kortestw kortestd kortestq ktestb ktestw ktestd ktestq"
        " kunpckbw kunpckwd kunpckdq korw kord korq kandw kandd kandq kxnorw kxnord kxnorq".split()
    ),
    "EVEX": frozenset(
        "vmovdqu8 vmovdqu32 vmovdqu64 vmovdqa32 vmovdqa64 vmovups vmovaps vmovd vmovq vmovntdq vpcmpeqb vpcmpeqd vpcmpb"
        " vpcmpub vpcmpd vpcmpud vptestmb vptestmd vptestnmb vptestnmd vpminub vpminud vpaddb vpsubb vpandd vpandq"
        " vpord vporq vpxord vpxorq vpternlogd vpternlogq vpbroadcastb vpbroadcastd vpshufb".split()
    ),
}


@dataclass(frozen=True)
class Row:
    """One row of the opcode table."""

    encoding: str
    operands: str
    function: Semantics
    name: str  # mnemonic
    flags: str = ""
    undefined: str = ""  # flags the SDM leaves undefined
    modes: str = "any"  # "any", "64" (64-bit mode only), "legacy" (not in 64-bit mode)
    default64: bool = False  # operand size is 64 in 64-bit mode unless 66 (d64) ...
    force64: bool = False  # ... or always (f64)
    lock: bool = False  # LOCK is allowed with a memory destination
    rep: bool = False  # REP/REPE/REPNE mean repetition
    ends_block: bool = False  # control leaves, or what follows may see another mode, mapping or interrupt state
    sizes: tuple[int, ...] = ()  # operand sizes when no operand says so
    feature: str = ""  # CPUID feature that announces it, or two ("avx aes"); #UD without (names: features.py)
    prefix_ignored: bool = False  # without the feature it is what the bytes mean without their prefix (LZCNT: BSR)
    sets_rip: bool = False  # the mechanism it calls sets RIP in every case (far transfers, IRET, SYSCALL, INT)
    extra: tuple[Any, ...] = ()  # static arguments passed to the function after the operands (condition code ...)
    rare: bool = False  # few guests execute it: native code is made when one does
    # EVEX (SDM 2, 2.7)
    element: int = 0  # bits of an element of the destination, for masking; 0: a mask is refused
    masking: str = "kz"  # what element allows: "k" merging only, "kz" zeroing too, "K" a mask is required
    broadcast: int = 0  # bits of an element that EVEX.b repeats from memory; 0: EVEX.b with memory is refused
    # EVEX.b between registers: "er" embedded rounding, "sae" suppressed exceptions, "ignored" where every result is
    # exact, "" refused
    rounding: str = ""
    disp8: int = 0  # bytes that an 8-bit displacement counts in, where that is not the memory operand's size
    whole: bool = False  # a memory source is read whole whatever the mask is (exception type E4NF, SDM 2, 2.8)
    vsib: int = 0  # bits of an index, for addresses with a vector of indices (VSIB)

    @property
    def lazy(self) -> bool:
        """Is native code for it made on first use, rather than with all the rest before the first start?"""
        space = self.encoding.split(".")[0]
        return self.rare or (space in COMMON and self.name not in COMMON[space])


@dataclass(frozen=True)
class Operand:
    """One operand of a form; everything here is known before the bytes are."""

    kind: str  # "reg" "mem" "imm" "rel" "fixed" "seg" "cr" "dr" "xmm" "mask" "mm" "st" "far" "moffs" "one" "str"
    size: int  # bytes
    source: str  # "rm" "reg" "op" "vvvv" "is4" "imm" "imm2" or "fixed"
    number: int = 0  # register number of a fixed operand

    @property
    def is_memory(self) -> bool:
        return self.kind in ("mem", "moffs")

    @property
    def width(self) -> int:
        """Size in bits."""
        return 8 * self.size


@dataclass(frozen=True)
class Form:
    """A row with operand size, vector length and register-or-memory decided: what gets one handler."""

    number: int
    row: Row
    size: int  # operand size in bytes: 2, 4, 8 (1 for byte forms)
    is_memory: bool  # ModRM names memory
    operands: tuple[Operand, ...]
    space: str = ""  # "VEX", "EVEX" or "" for the legacy encoding
    length: int = 0  # VEX and EVEX: vector length in bytes
    b: bool = False  # EVEX.b: broadcast from memory, or rounding between registers

    @property
    def feature(self) -> str:
        """CPUID features that announce it, between blanks."""
        encoding = parse_encoding(self.row.encoding)
        if self.space == "EVEX" and self.length < 64 and not encoding.lig and encoding.lengths != (16,):
            return f"{self.row.feature} avx512vl"
        return self.row.feature

    @property
    def scalar(self) -> bool:
        """Is it an operation on the lowest element alone?"""
        return parse_encoding(self.row.encoding).lig

    @property
    def elements(self) -> int:
        """Elements of the result: what the mask has bits for. A register may be larger than what they fill."""
        if self.scalar:
            return 1
        first = self.operands[0]
        share = _SHARES.get(self.row.operands.split(",")[0][1:])
        size = self.length if first.kind == "mask" else self.length // share if share else first.size
        return 8 * size // self.row.element

    @property
    def name(self) -> str:
        """A unique symbol, which stays the same when rows are added: mnemonic, operand kinds, size, encoding, modes."""
        kinds = "_".join(f"{o.kind}{o.width}" for o in self.operands)
        encoding = re.sub(r"\W+", "_", self.row.encoding)
        length = f"_{8 * self.length}{'b' if self.b else ''}" if self.space else ""
        return f"{self.row.name}_{kinds}_{self.size}{length}_{encoding}_{self.row.modes}"


ROWS: list[Row] = []


def op(encoding: str, operands: str = "", **attributes: Any) -> Callable[[Semantics], Semantics]:
    """Add a row for the decorated function; several decorators give several rows."""

    def decorate(function: Semantics) -> Semantics:
        name = attributes.pop("name", function.__name__.rstrip("_"))
        ROWS.append(Row(encoding, operands, function, name, **attributes))
        return function

    return decorate


@dataclass(frozen=True)
class Encoding:
    """A parsed encoding string."""

    prefix: str  # NP 66 F3 F2 or "" for any
    map: int  # 0 one byte, 1 0F, 2 0F38, 3 0F3A
    opcode: int
    plus_r: bool  # register in the opcode's low bits
    digit: int  # /0../7, -1 for none
    modrm: bool  # has a ModRM byte
    modrm_byte: int  # exact ModRM byte, -1 for none
    rex_w: int  # 0 or 1 required, -1 for either
    space: str = ""  # "VEX", "EVEX" or ""
    lengths: tuple[int, ...] = ()  # VEX and EVEX: vector lengths in bytes
    lig: bool = False  # the length field is ignored


_MAPS = {"0F": 1, "0F38": 2, "0F3A": 3}
_LENGTHS = {"128": 16, "LZ": 16, "256": 32, "512": 64}


def _parse_vex(token: str) -> tuple[str, tuple[int, ...], bool, str, int, int]:
    """Space, lengths, LIG, mandatory prefix, map and W of `VEX.128.66.0F38.W0`."""
    space, *fields = token.split(".")
    lengths: tuple[int, ...] = (16, 32) if space == "VEX" else (16, 32, 64)
    lig, prefix, opcode_map, w = False, NP, 0, -1
    for text in fields:
        if text == "LIG":
            lengths, lig = (16,), True
        elif text.split("/")[0] in _LENGTHS:
            lengths = tuple(_LENGTHS[part] for part in text.split("/"))
        elif text in (NP, P66, PF3, PF2):
            prefix = text
        elif text in _MAPS:
            opcode_map = _MAPS[text]
        elif text in ("W0", "W1"):
            w = int(text[1])
        else:
            raise ValueError(f"encoding {token!r}: unknown field {text!r}")
    return space, lengths, lig, prefix, opcode_map, w


@cache
def parse_encoding(text: str) -> Encoding:
    """Parse the notation described in the module's docstring; ValueError names what is wrong."""
    tokens = text.split()
    prefix, opcode_map, digit, modrm, rex_w, plus = "", 0, -1, False, -1, False
    space, lig = "", False
    lengths: tuple[int, ...] = ()
    if tokens[0].startswith(("VEX", "EVEX")):
        space, lengths, lig, prefix, opcode_map, rex_w = _parse_vex(tokens.pop(0))
    elif tokens[0] in (NP, P66, PF3, PF2) and len(tokens) > 1:
        prefix = tokens.pop(0)
    code: list[int] = []
    for token in tokens:
        if token == "/r":
            modrm = True
        elif re.fullmatch(r"/[0-7]", token):
            modrm, digit = True, int(token[1])
        elif token in ("W0", "W1"):
            rex_w = int(token[1])
        elif match := re.fullmatch(r"([0-9A-F]{2})(\+r)?", token):
            code.append(int(match[1], 16))
            plus = plus or bool(match[2])
        else:
            raise ValueError(f"encoding {text!r}: unknown token {token!r}")
    if code[0] == 0x0F and len(code) > 1 and not space:
        code.pop(0)
        opcode_map = 1
        if code[0] in (0x38, 0x3A) and len(code) > 1:
            opcode_map = 2 if code.pop(0) == 0x38 else 3
    opcode, byte = code[0], -1
    if len(code) == 2:
        byte, modrm = code[1], True
        if plus:  # D8 C0+i: eight ModRM bytes, i is the rm field
            plus, byte, digit = False, -1, code[1] >> 3 & 7
    elif len(code) > 2:
        raise ValueError(f"encoding {text!r}: too many opcode bytes")
    return Encoding(prefix, opcode_map, opcode, plus, digit, modrm, byte, rex_w, space, lengths, lig)


_FIXED = {
    "AL": ("reg", 1, 0), "CL": ("reg", 1, 1), "AX": ("reg", 2, 0), "DX": ("reg", 2, 2), "eAX": ("reg", -2, 0),
    "rAX": ("reg", -1, 0), "1": ("one", 1, 0), "ST0": ("st", 10, 0), "XMM0": ("xmm", 16, 0),
    "ES": ("seg", 2, 0), "CS": ("seg", 2, 1), "SS": ("seg", 2, 2), "DS": ("seg", 2, 3),
    "FS": ("seg", 2, 4), "GS": ("seg", 2, 5),
}  # fmt: skip
_SIZES = {"b": 1, "w": 2, "d": 4, "q": 8, "dq": 16, "ss": 4, "sd": 8, "t": 10, "": 0}
_VARIABLE = ("v", "z", "y", "p", "s", "a")


def _type_size(kind: str, size: int, long: bool) -> int:
    """Bytes of an operand type at operand size `size`; `long` for 64-bit mode where that matters."""
    if kind == "v":
        return size
    if kind == "z":
        return min(size, 4)
    if kind == "y":
        return 8 if size == 8 else 4
    if kind == "p":
        return size + 2
    if kind == "s":
        return 10 if long else 6
    if kind == "a":
        return 2 * size
    return _SIZES[kind]


_SHARES = {"x": 1, "ps": 1, "pd": 1, "h": 2, "f": 4, "e": 8}  # types that are a share of the vector length
_MASKS = {"KG": "reg", "KH": "vvvv", "KR": "rm", "KM": "rm"}


def _vector(letter: str, kind: str, memory: bool, encoding: Encoding, length: int) -> Operand:
    """A vector operand: a register has at least 16 bytes, memory what the type says."""
    length = length or 16
    size = length // _SHARES[kind] if kind in _SHARES else {"qq": 32, "oq": 64}.get(kind) or _SIZES[kind]
    if memory and letter in "WM":
        return Operand("mem", size, "rm")
    source = {"V": "reg", "H": "vvvv" if encoding.space else "reg", "L": "is4"}.get(letter, "rm")
    return Operand("xmm", max(size, 16), source)


def _operand(code: str, size: int, memory: bool, row: Row, encoding: Encoding, length: int) -> Operand:
    """Resolve one operand code at a given operand size and vector length."""
    plus_r = encoding.plus_r
    if code in _FIXED:
        kind, width, number = _FIXED[code]
        width = size if width == -1 else min(size, 4) if width == -2 else width
        return Operand(kind, width, "fixed", number)
    if code[:2] in _MASKS:
        bytes_ = _SIZES[code[2:]]
        return Operand("mem" if memory and code[:2] == "KM" else "mask", bytes_, _MASKS[code[:2]])
    letter, rest = code[0], code[1:]
    if letter in "VHWUL" or (letter == "M" and rest in (*_SHARES, "qq", "oq")):
        return _vector(letter, rest, memory or letter == "M", encoding, length)
    if letter == "I" and rest in ("b", "bs"):
        return Operand("imm", size if rest == "bs" else 1, "imm")
    if letter == "I" and rest == "b2":
        return Operand("imm", 1, "imm2")
    bytes_ = _type_size(rest, size, row.modes == "64")
    if letter == "Z" or (letter == "G" and plus_r):
        return Operand("reg", bytes_, "op")
    match letter:
        case "E":
            return Operand("mem" if memory else "reg", bytes_, "rm")
        case "G":
            return Operand("reg", bytes_, "reg")
        case "R":
            return Operand("reg", bytes_, "rm")
        case "M":
            return Operand("mem", bytes_, "rm")
        case "I":
            return Operand("imm", bytes_ if rest != "z" else size, "imm")
        case "J":
            return Operand("rel", bytes_, "imm")
        case "A":
            return Operand("far", bytes_, "imm")
        case "O":
            return Operand("moffs", bytes_, "imm")
        case "S":
            return Operand("seg", 2, "reg")
        case "C":
            return Operand("cr", 8 if row.modes == "64" else 4, "reg")
        case "D":
            return Operand("dr", 8 if row.modes == "64" else 4, "reg")
        case "B":
            return Operand("reg", bytes_, "vvvv")
        case "P":
            return Operand("mm", 8, "reg")
        case "Q":
            return Operand("mem" if memory else "mm", bytes_ if memory else 8, "rm")
        case "N":
            return Operand("mm", 8, "rm")
        case "T":
            return Operand("st", 10, "rm")
        case "X" | "Y":
            return Operand("str", bytes_, letter)
    raise ValueError(f"{row.encoding}: unknown operand {code!r}")


def operand_sizes(row: Row) -> tuple[int, ...]:
    """The operand sizes (2, 4, 8, or 0 for 'does not matter') that a row expands to."""
    encoding = parse_encoding(row.encoding)
    codes = [c for c in row.operands.split(",") if c]
    variable = any(c[0] in "EGRMIJAOZXYB" and c[1:] in (*_VARIABLE, "bs") or c in ("rAX", "eAX") for c in codes)
    if row.sizes:
        return row.sizes
    if encoding.space and variable:
        return {0: (4,), 1: (8,), -1: (4, 8)}[encoding.rex_w]
    if encoding.rex_w == 1 and not encoding.space:
        return (8,)
    if not variable:
        return (0,)
    sizes: tuple[int, ...] = (2, 4) if row.modes == "legacy" else (2, 4, 8)
    if encoding.rex_w == 0:
        sizes = tuple(s for s in sizes if s != 8)
    if row.force64 and row.modes == "64":
        return (8,)
    if row.default64 and row.modes == "64":
        return (2, 8)
    return sizes


def expand(row: Row, first: int) -> list[Form]:
    """All forms of a row, numbered from `first`."""
    encoding = parse_encoding(row.encoding)
    codes = [c for c in row.operands.split(",") if c]
    either = any(c[0] in "EWQ" or c[:2] == "KM" for c in codes if c not in _FIXED)
    only_memory = any(c[0] == "M" for c in codes)
    choices = (False, True) if either else (only_memory,)
    if encoding.modrm_byte >= 0:
        choices = (False,)
    forms: list[Form] = []
    for size, length, memory, with_b in itertools.product(
        operand_sizes(row), encoding.lengths or (0,), choices, (False, True)
    ):
        if with_b and not (row.broadcast if memory else row.rounding):
            continue
        if with_b and not memory and not encoding.lig:  # the length field is the rounding mode: 512 bits
            if length != encoding.lengths[-1]:
                continue
        operands = tuple(_operand(c, size, memory, row, encoding, length) for c in codes)
        number = first + len(forms)
        forms.append(Form(number, row, size, memory, operands, encoding.space, length, with_b))
    return forms


@dataclass
class Table:
    """Every form, in order; a form's number is its index."""

    forms: list[Form] = field(default_factory=list)


@cache
def build_table() -> Table:
    """Expand all rows that the semantics modules have registered, once."""
    from pyemu.cpu import semantics  # the rows register themselves on import

    semantics.load()
    table = Table()
    for row in ROWS:
        table.forms += expand(row, len(table.forms))
    return table
