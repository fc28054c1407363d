"""Reads relocatable x86-64 ELF objects, and links several into one position-independent image.

Only what LLVM emits for our modules is understood (ELF-64 specification; System V ABI for AMD64, table 4.9); anything
else
is an error when the image is built, never at run time. Undefined symbols are an error too: the image needs no
libraries.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

R_64, R_PC32, R_PLT32, R_32, R_32S, R_PC64 = 1, 2, 4, 10, 11, 24
SHT_PROGBITS, SHT_SYMTAB, SHT_RELA, SHT_NOBITS = 1, 2, 4, 8
SHF_ALLOC = 2


class LinkError(Exception):
    """An object that can't be linked: says which symbol or relocation."""


@dataclass
class Relocation:
    """`kind` at byte `offset` of its section refers to a symbol, or to a section of the same object (`section` >=
    0)."""

    offset: int
    kind: int
    symbol: str
    section: int
    value: int  # offset of a defined symbol in its section
    addend: int


@dataclass
class Section:
    """An allocated section and its relocations."""

    name: str
    data: bytearray
    align: int
    relocations: list[Relocation] = field(default_factory=list)
    at: int = 0  # place in the image


@dataclass
class Symbol:
    """A defined symbol."""

    section: int
    value: int
    size: int
    function: bool


@dataclass
class Object:
    """One parsed object file."""

    sections: dict[int, Section]
    symbols: dict[str, Symbol]


def parse(data: bytes) -> Object:
    """Parse a relocatable object."""
    (table,) = struct.unpack_from("<Q", data, 40)
    _, count, names_index = struct.unpack_from("<HHH", data, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", data, table + 64 * k) for k in range(count)]

    def text(section: int, offset: int) -> str:
        start = headers[section][4] + offset
        return data[start : data.index(b"\0", start)].decode()

    sections: dict[int, Section] = {}
    for k, (name, kind, flags, _, offset, size, _, _, align, _) in enumerate(headers):
        if flags & SHF_ALLOC and kind in (SHT_PROGBITS, SHT_NOBITS):
            label = text(names_index, name)
            if label.startswith((".eh_frame", ".note")):
                continue
            content = bytearray(size) if kind == SHT_NOBITS else bytearray(data[offset : offset + size])
            sections[k] = Section(label, content, max(align, 1))
    entries: list[tuple[str, int, int, int, int]] = []
    symbols: dict[str, Symbol] = {}
    for _, (_, kind, _, _, offset, size, link, _, _, _) in enumerate(headers):
        if kind != SHT_SYMTAB:
            continue
        for at in range(offset, offset + size, 24):
            name, info, _, section, value, length = struct.unpack_from("<IBBHQQ", data, at)
            label = text(link, name) if name else ""
            entries.append((label, info, section, value, length))
            if label and section in sections:
                symbols[label] = Symbol(section, value, length, info & 15 == 2)
    for _, kind, _, _, offset, size, _, target, _, _ in headers:
        if kind != SHT_RELA or target not in sections:
            continue
        for at in range(offset, offset + size, 24):
            where, info, addend = struct.unpack_from("<QQq", data, at)
            label, _, section, value, _ = entries[info >> 32]
            inside = section if section in sections else -1
            sections[target].relocations.append(Relocation(where, info & 0xFFFFFFFF, label, inside, value, addend))
    return Object(sections, symbols)


def undefined(data: bytes) -> set[str]:
    """Names that an object refers to but does not define."""
    return {r.symbol for section in parse(data).sections.values() for r in section.relocations if r.section < 0}


@dataclass
class Image:
    """Linked bytes that run at any address, and where each symbol is in them."""

    data: bytes
    symbols: dict[str, int]


def link(objects: list[bytes], outside: Mapping[str, int] | None = None) -> Image:
    """Place all sections one after another and resolve everything; every reference must be relative. `outside` are
    further symbols, relative to where the image will be: they tie it to that place."""
    parsed = [parse(o) for o in objects]
    image, symbols = bytearray(), dict[str, int]()
    for o in parsed:
        for section in o.sections.values():
            image += b"\xcc" * (-len(image) % max(section.align, 16))
            section.at = len(image)
            image += section.data
    for o in parsed:
        for name, s in o.symbols.items():
            if name in symbols and not name.startswith((".L", "table.")):
                raise LinkError(f"symbol {name} is defined twice")
            symbols[name] = o.sections[s.section].at + s.value
    resolved = {**(outside or {}), **symbols}
    for o in parsed:
        for section in o.sections.values():
            for r in section.relocations:
                _relocate(image, section, r, o, resolved)
    return Image(bytes(image), symbols)


def _relocate(image: bytearray, section: Section, r: Relocation, o: Object, symbols: dict[str, int]) -> None:
    if r.section >= 0:
        target = o.sections[r.section].at + r.value
    elif r.symbol in symbols:
        target = symbols[r.symbol]
    else:
        raise LinkError(f"undefined symbol {r.symbol!r} in {section.name}")
    place = section.at + r.offset
    if r.kind in (R_PC32, R_PLT32):
        struct.pack_into("<i", image, place, target + r.addend - place)
    elif r.kind == R_PC64:
        struct.pack_into("<q", image, place, target + r.addend - place)
    else:
        raise LinkError(f"relocation type {r.kind} against {r.symbol!r} is not position-independent")
