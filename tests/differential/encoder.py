"""From a form of the operand table and choices to machine code.

    code = encode(form, bits, choice, rip)      bytes; NotEncodable if the mode has no such instruction

A Choice says everything that the form leaves open: register numbers, address, immediates, prefixes that are not part of
the encoding. It is the opposite of cpu/decode/ and shares no code with it. Random choices are made in generator.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pyemu.cpu.ops import Encoding, Form, Operand, parse_encoding

SEGMENT_PREFIXES = {"es": 0x26, "cs": 0x2E, "ss": 0x36, "ds": 0x3E, "fs": 0x64, "gs": 0x65}
_MANDATORY = {"66": 0x66, "F3": 0xF3, "F2": 0xF2}
_MAPS = {0: b"", 1: b"\x0f", 2: b"\x0f\x38", 3: b"\x0f\x3a"}
ESP, EBP = 4, 5


class NotEncodable(ValueError):
    """The mode, or the choice, has no such instruction."""


@dataclass(frozen=True)
class Address:
    """A memory operand of 32- or 64-bit addressing: registers by number, -1 for none."""

    base: int = -1
    index: int = -1
    scale: int = 0
    disp: int = 0
    disp_size: int = 4  # 0, 1 or 4
    relative: bool = False  # RIP-relative: disp is what is added to the next RIP
    rm16: int = -1  # 16-bit addressing: the rm field, with disp_size 0, 1 or 2


@dataclass(frozen=True)
class Choice:
    """What a form leaves open."""

    reg: int = 0  # reg field, or mask register there
    rm: int = 0  # rm field, if it is a register
    op: int = 0  # register in the opcode
    vvvv: int = 0
    address: Address | None = None
    imm: int = 0
    imm2: int = 0
    address16: bool = False  # bits 32 only: prefix 67
    address32: bool = False  # bits 64 only: prefix 67
    segment: str = ""
    lock: bool = False
    repeat: int = 0  # F2 or F3 where it is no mandatory prefix
    rex: int = 0  # further bits of REX that mean nothing here
    force_rex: bool = False
    redundant66: bool = False
    order: int = 0  # rotates the legacy prefixes


def immediate_sizes(form: Form, address_bytes: int) -> tuple[int, int]:
    """Bytes of the instruction's two immediates."""
    first = second = 0
    codes = [code for code in form.row.operands.split(",") if code]
    for operand, code in zip(form.operands, codes, strict=True):
        if operand.kind == "moffs":
            first = address_bytes
        elif operand.kind == "far":
            first, second = min(form.size, 4), 2
        elif operand.kind in ("imm", "rel"):
            kind = code[1:].removesuffix("2")
            fixed = {"b": 1, "bs": 1, "w": 2, "d": 4, "q": 8}
            size = fixed[kind] if kind in fixed else min(form.size or 4, 4) if kind == "z" else form.size
            if operand.source == "imm2":
                second = size
            else:
                first = size
        elif operand.source == "is4":
            first = 1
    return first, second


def operand(form: Form, source: str) -> Operand | None:
    """The operand that comes from a field of the instruction."""
    return next((o for o in form.operands if o.source == source), None)


def _size_prefixes(form: Form, encoding: Encoding, bits: int) -> tuple[bool, int]:
    """Prefix 66, and REX.W, for the form's operand size."""
    row = form.row
    if encoding.prefix == "NP" and form.size == 2 and bits != 16:
        raise NotEncodable("the operand size needs a prefix that the row excludes")
    if bits == 64:
        if row.modes == "legacy":
            raise NotEncodable("not in 64-bit mode")
        w = 8 if encoding.rex_w == 1 else 0
        if form.size == 8 and not (row.force64 or row.default64) and encoding.rex_w < 0:
            w = 8
        if form.size and encoding.prefix == "66" and encoding.rex_w < 0 and form.size == 4:
            raise NotEncodable("the prefix selects another operand size")
        return form.size == 2 and encoding.prefix != "66", w
    if row.modes == "64" or encoding.rex_w == 1 or form.size == 8:
        raise NotEncodable("only in 64-bit mode")
    if form.size and encoding.prefix == "66" and (form.size == 4) == (bits == 32):
        raise NotEncodable("the prefix selects another operand size")
    return (form.size == 4) == (bits == 16) and bool(form.size) and encoding.prefix != "66", 0


def _needs_rex(form: Form, choice: Choice) -> bool:
    """Byte registers 4 to 7 are SPL.. with REX and AH.. without; random choices get both."""
    return choice.force_rex or choice.rex != 0


def modrm_bytes(address: Address, reg: int) -> tuple[bytes, int]:
    """ModRM, SIB and displacement; and where a RIP-relative displacement stands in them, or -1."""
    reg_bits = (reg & 7) << 3
    if address.rm16 >= 0:
        mod = {0: 0, 1: 1, 2: 2}[address.disp_size]
        if mod == 0 and address.rm16 == 6:
            raise NotEncodable("[bp] needs a displacement")
        disp = (address.disp & 0xFFFF).to_bytes(2, "little")[: address.disp_size]
        return bytes([mod << 6 | reg_bits | address.rm16]) + disp, -1
    disp = (address.disp & 0xFFFFFFFF).to_bytes(4, "little")
    if address.relative:
        return bytes([reg_bits | 5]) + disp, 1
    if address.base < 0:
        index = ESP if address.index < 0 else address.index & 7
        return bytes([reg_bits | ESP, address.scale << 6 | index << 3 | EBP]) + disp, -1
    mod = {0: 0, 1: 1, 4: 2}[address.disp_size]
    if mod == 0 and address.base & 7 == EBP:
        raise NotEncodable("[rbp] needs a displacement")
    if address.index < 0 and address.base & 7 != ESP:
        return bytes([mod << 6 | reg_bits | address.base & 7]) + disp[: address.disp_size], -1
    index = ESP if address.index < 0 else address.index & 7
    sib = address.scale << 6 | index << 3 | address.base & 7
    return bytes([mod << 6 | reg_bits | ESP, sib]) + disp[: address.disp_size], -1


def encode(form: Form, bits: int, choice: Choice, rip: int = 0) -> bytes:
    """The instruction's bytes at `rip`, which only a RIP-relative address depends on."""
    encoding = parse_encoding(form.row.encoding)
    operand66, w = _size_prefixes(form, encoding, bits)
    prefixes = []
    if operand66 or (choice.redundant66 and not encoding.prefix and form.size in (0, 8) and not form.row.force64):
        prefixes.append(0x66)
    if choice.address32 or choice.address16:
        prefixes.append(0x67)
    if choice.segment:
        prefixes.append(SEGMENT_PREFIXES[choice.segment])
    if choice.lock:
        prefixes.append(0xF0)
    if choice.repeat and encoding.prefix not in ("F2", "F3", "NP", "66"):
        prefixes.append(choice.repeat)
    turn = choice.order % max(1, len(prefixes))
    prefixes = prefixes[turn:] + prefixes[:turn]
    if encoding.prefix in _MANDATORY:
        prefixes.append(_MANDATORY[encoding.prefix])
    rex, body, relative_at = _body(form, encoding, choice, w)
    if bits == 64 and (rex or choice.force_rex):
        head = bytes(prefixes) + bytes([0x40 | rex | choice.rex])
    elif rex:
        raise NotEncodable("needs REX")
    else:
        head = bytes(prefixes)
    opcode = encoding.opcode | (choice.op & 7 if encoding.plus_r else 0)
    head += _MAPS[encoding.map] + bytes([opcode])
    address_bytes = (4 if choice.address32 else 8) if bits == 64 else (4 if (bits == 32) != choice.address16 else 2)
    first, second = immediate_sizes(form, address_bytes)
    tail = (choice.imm & ((1 << 8 * first) - 1)).to_bytes(first, "little")
    tail += (choice.imm2 & ((1 << 8 * second) - 1)).to_bytes(second, "little")
    return joined(head, body, tail, relative_at, choice, rip)


def joined(head: bytes, body: bytes, tail: bytes, relative_at: int, choice: Choice, rip: int) -> bytes:
    """The whole instruction at `rip`; a RIP-relative displacement, if `relative_at` says where in the body there is
    one, leads to the choice's address."""
    code = bytearray(head + body + tail)
    if relative_at >= 0:
        at = len(head) + relative_at
        assert choice.address is not None
        code[at : at + 4] = ((choice.address.disp - rip - len(code)) & 0xFFFFFFFF).to_bytes(4, "little")
    if len(code) > 15:
        raise NotEncodable("longer than 15 bytes")
    return bytes(code)


def _body(form: Form, encoding: Encoding, choice: Choice, w: int) -> tuple[int, bytes, int]:
    """REX bits; ModRM to displacement; where a RIP-relative displacement is in it. Such an Address has the target
    itself as its displacement."""
    rex = w | (1 if encoding.plus_r and choice.op & 8 else 0)
    if encoding.modrm_byte >= 0:
        return rex, bytes([encoding.modrm_byte]), -1
    if not encoding.modrm and encoding.digit < 0:
        return rex, b"", -1
    reg = encoding.digit if encoding.digit >= 0 else choice.reg
    rex |= 4 if reg & 8 else 0
    if not form.is_memory:
        rex |= 1 if choice.rm & 8 else 0
        return rex, bytes([0xC0 | (reg & 7) << 3 | choice.rm & 7]), -1
    assert choice.address is not None
    rex |= 1 if choice.address.base & 8 and choice.address.base > 0 else 0
    rex |= 2 if choice.address.index & 8 and choice.address.index > 0 else 0
    body, at = modrm_bytes(choice.address, reg)
    return rex, body, at


__all__ = ["Address", "Choice", "NotEncodable", "encode", "immediate_sizes", "operand", "replace"]
