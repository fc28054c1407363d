"""Symbols and line numbers of ELF files, read through pyelftools.

The library finds and checks sections; the symbol table itself is unpacked here in one go, because a kernel has
hundreds of thousands of entries. Relocatable files (.o, .ko) have no addresses yet and are refused.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from pyemu.lines import LineTable

if TYPE_CHECKING:
    from pyemu.symbols import Symbol

_ENTRY = {32: struct.Struct("<IIIBBH"), 64: struct.Struct("<IBBHQQ")}
_NOTYPE, _OBJECT, _FUNC, _GNU_IFUNC = 0, 1, 2, 10  # types of symbols
_LOCAL = 0  # binding
_UNDEFINED, _ABSOLUTE, _RESERVED = 0, 0xFFF1, 0xFF00  # section numbers
_FIRST_PAGES = 0x10000  # a section below this address holds offsets (.data..percpu of a kernel)
_TABLES = (".symtab", ".dynsym")


class BadElf(Exception):
    """Not a file that this can read; one line."""


def read(path: str) -> tuple[list[Symbol], LineTable | None]:
    """All symbols with an address, and the line table if there is one."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    with open(path, "rb") as file:
        try:
            elf = ELFFile(file)
            if elf["e_type"] == "ET_REL":
                raise BadElf("it is relocatable: its symbols have no addresses yet")
            if not elf.little_endian:
                raise BadElf("it is not for x86")
            symbols = _symbols(elf)
            has_lines = elf.get_section_by_name(".debug_line") or elf.get_section_by_name(".zdebug_line")
        except (ELFError, struct.error, ValueError, KeyError, AttributeError, TypeError, OverflowError) as error:
            raise BadElf(f"the file is damaged ({error or type(error).__name__})") from error
    return symbols, LineTable(path) if has_lines else None


def _symbols(elf: Any) -> list[Symbol]:
    found: list[Symbol] = []
    percpu = {
        number
        for number, section in enumerate(elf.iter_sections())
        if section["sh_flags"] & 2 and section["sh_addr"] < _FIRST_PAGES and section.name.endswith("percpu")
    }
    for name in _TABLES:
        section = elf.get_section_by_name(name)
        if section is None:
            continue
        strings = elf.get_section(section["sh_link"]).data()
        form = _ENTRY[elf.elfclass]
        data = section.data()
        for entry in form.iter_unpack(data[: len(data) // form.size * form.size]):
            symbol = _symbol(entry, strings, elf.elfclass, percpu)
            if symbol is not None:
                found.append(symbol)
        if found:
            break
    return found


def _symbol(entry: tuple[int, ...], strings: bytes, bits: int, percpu: set[int]) -> Symbol | None:
    from pyemu.symbols import Symbol

    if bits == 64:
        name_at, info, _, section, value, size = entry
    else:
        name_at, value, size, info, _, section = entry
    if section == _UNDEFINED or info & 15 not in (_NOTYPE, _OBJECT, _FUNC, _GNU_IFUNC):
        return None
    if section >= _RESERVED and section != _ABSOLUTE:
        return None
    end = strings.find(b"\0", name_at)
    name = strings[name_at:end].decode("utf-8", "replace") if end > name_at else ""
    if not name:
        return None
    absolute = section == _ABSOLUTE or section in percpu
    return Symbol(name, value, size, absolute, info >> 4 != _LOCAL)
