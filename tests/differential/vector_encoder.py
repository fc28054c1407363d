"""VEX and EVEX encodings of forms, from choices: what encoder.py does for the others (SDM 2, 2.3 and 2.7)."""

from __future__ import annotations

from dataclasses import dataclass

from pyemu.cpu.ops import Encoding, Form
from tests.differential.encoder import (
    SEGMENT_PREFIXES,
    Address,
    Choice,
    NotEncodable,
    immediate_sizes,
    joined,
    modrm_bytes,
    operand,
)

_PP = {"NP": 0, "66": 1, "F3": 2, "F2": 3}
_LENGTH = {16: 0, 32: 1, 64: 2}


@dataclass(frozen=True)
class VectorChoice:
    """What VEX and EVEX leave open beside a Choice."""

    mask: int = 0  # EVEX.aaa
    zeroing: bool = False
    rounding: int = 0  # L'L where it is a rounding mode
    ignored: int = 0  # random bits for fields that are ignored: W, length
    short: bool = True  # the two-byte VEX prefix where it does


def displacement_unit(form: Form) -> int:
    """Bytes that an 8-bit displacement counts in (EVEX, SDM 2, 2.7.5)."""
    if form.space != "EVEX":
        return 1
    memory = operand(form, "rm")
    size = memory.size if memory is not None else 1
    return form.row.disp8 or (form.row.broadcast // 8 if form.b else size)


def _fields(form: Form, encoding: Encoding, choice: Choice) -> tuple[int, int, int, bytes, int]:
    """reg and rm as 5-bit numbers, index, ModRM to displacement, and where a RIP-relative displacement is."""
    reg = encoding.digit if encoding.digit >= 0 else choice.reg
    if encoding.modrm_byte >= 0:
        return 0, 0, 0, bytes([encoding.modrm_byte]), -1
    if not encoding.modrm and encoding.digit < 0:
        return 0, 0, 0, b"", -1
    if not form.is_memory:
        return reg, choice.rm, 0, bytes([0xC0 | (reg & 7) << 3 | choice.rm & 7]), -1
    assert choice.address is not None
    address, unit = choice.address, displacement_unit(form)
    if address.disp_size == 1 and unit > 1 and not address.relative and address.rm16 < 0:
        address = Address(address.base, address.index, address.scale, address.disp // unit, 1)
    if form.row.vsib:
        if address.index < 0 or address.base < 0:
            raise NotEncodable("VSIB needs base and index here")
        body, at = _vsib(address, reg), -1
    else:
        body, at = modrm_bytes(address, reg)
    return reg, max(address.base, 0), max(address.index, 0), body, at


def _vsib(address: Address, reg: int) -> bytes:
    mod = {0: 0, 1: 1, 4: 2}[address.disp_size]
    if mod == 0 and address.base & 7 == 5:
        raise NotEncodable("[rbp] needs a displacement")
    disp = (address.disp & 0xFFFFFFFF).to_bytes(4, "little")[: address.disp_size]
    return (
        bytes([mod << 6 | (reg & 7) << 3 | 4, address.scale << 6 | (address.index & 7) << 3 | address.base & 7]) + disp
    )


def _w(form: Form, encoding: Encoding, bits: int, vector: VectorChoice) -> int:
    if encoding.rex_w >= 0:
        if encoding.rex_w and bits != 64 and any(o.kind == "reg" for o in form.operands):
            raise NotEncodable("W1 with general registers outside 64-bit mode")
        return encoding.rex_w
    if form.size:
        if form.size == 8 and bits != 64:
            raise NotEncodable("only in 64-bit mode")
        return int(form.size == 8)
    return vector.ignored & 1


def encode_vector(form: Form, encoding: Encoding, bits: int, choice: Choice, vector: VectorChoice, rip: int) -> bytes:
    """The instruction's bytes."""
    if (form.row.modes == "64" and bits != 64) or (form.row.modes == "legacy" and bits == 64):
        raise NotEncodable("not in this mode")
    reg, rm, index, body, relative_at = _fields(form, encoding, choice)
    vvvv = choice.vvvv if operand(form, "vvvv") is not None else 0
    w, pp = _w(form, encoding, bits, vector), _PP[encoding.prefix]
    head = b"\x67" if choice.address32 or choice.address16 else b""
    if choice.segment:
        head += bytes([SEGMENT_PREFIXES[choice.segment]])
    if form.space == "VEX":
        length = _LENGTH[form.length]
        if encoding.lig:
            length = vector.ignored >> 1 & 1
        head += _vex(encoding.map, reg, rm, index, vvvv, w, length, pp, vector.short)
    else:
        head += _evex(form, encoding, (reg, rm, index, vvvv), w, pp, vector)
    head += bytes([encoding.opcode])
    first, _ = immediate_sizes(form, 8)
    tail = (choice.imm & ((1 << 8 * first) - 1)).to_bytes(first, "little")
    return joined(head, body, tail, relative_at, choice, rip)


def _vex(opcode_map: int, reg: int, rm: int, index: int, vvvv: int, w: int, length: int, pp: int, short: bool) -> bytes:
    last = (~vvvv & 15) << 3 | length << 2 | pp
    r, x, b = ~reg >> 3 & 1, ~index >> 3 & 1, ~rm >> 3 & 1
    if short and opcode_map == 1 and not w and x and b:
        return bytes([0xC5, r << 7 | last])
    return bytes([0xC4, r << 7 | x << 6 | b << 5 | opcode_map, w << 7 | last])


def _evex(
    form: Form, encoding: Encoding, numbers: tuple[int, int, int, int], w: int, pp: int, v: VectorChoice
) -> bytes:
    reg, rm, index, vvvv = numbers
    fifth = vvvv >> 4
    if form.is_memory:
        x = index >> 3
        fifth |= index >> 4 if form.row.vsib else 0
    else:
        x = rm >> 4
    p0 = (~reg >> 3 & 1) << 7 | (~x & 1) << 6 | (~rm >> 3 & 1) << 5 | (~reg >> 4 & 1) << 4 | encoding.map
    p1 = w << 7 | (~vvvv & 15) << 3 | 4 | pp
    length = _LENGTH[form.length]
    if form.b and not form.is_memory:
        length = v.rounding
    elif encoding.lig:
        length = v.ignored >> 1 & 3
        length = 0 if length == 3 else length
    p2 = v.zeroing << 7 | length << 5 | form.b << 4 | (~fifth & 1) << 3 | v.mask
    return bytes([0x62, p0, p1, p2])
