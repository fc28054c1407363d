"""Writes symbols as an ELF file for other programs, above all gdb: what the running kernel knows of itself (`symbols
kallsyms`) is then as good there as its vmlinux, but for types and lines. Not here: reading them (symbols.py)."""

from __future__ import annotations

import struct
from collections.abc import Mapping

_KERNEL = 1 << 63  # what lies below isn't an address of a 64-bit kernel's code: offsets of per-CPU data, constants
_PAGE = 0x1000
# System V ABI, chapter 4; AMD64 ABI, 4.1
_ET_EXEC, _EM_X86_64, _EV_CURRENT = 2, 62, 1
_SHT_SYMTAB, _SHT_STRTAB, _SHT_NOBITS = 2, 3, 8
_SHF_ALLOC, _SHF_EXECINSTR = 2, 4
_STB_GLOBAL_NOTYPE, _SHN_ABS, _TEXT = 1 << 4, 0xFFF1, 1
_HEADER, _SECTION, _SYMBOL = struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQIIQQ"), struct.Struct("<IBBHQQ")
_NAMES = b"\0.text\0.symtab\0.strtab\0.shstrtab\0"


def elf(symbols: Mapping[str, int]) -> bytes:
    """An executable without contents. Its one segment spans the symbols of the kernel; the others are absolute."""
    inside = [address for address in symbols.values() if address >= _KERNEL]
    low = min(inside, default=0) & ~(_PAGE - 1)
    high = max(inside, default=0) + _PAGE & ~(_PAGE - 1)
    table, strings = bytearray(_SYMBOL.size), bytearray(b"\0")
    for name, address in symbols.items():
        section = _TEXT if address >= _KERNEL else _SHN_ABS
        table += _SYMBOL.pack(len(strings), _STB_GLOBAL_NOTYPE, 0, section, address, 0)
        strings += name.encode() + b"\0"
    at_table = _HEADER.size
    at_strings = at_table + len(table)
    at_names = at_strings + len(strings)
    at_sections = at_names + len(_NAMES)

    def name_of(section: bytes) -> int:
        return _NAMES.index(b"\0" + section + b"\0") + 1

    flags = _SHF_ALLOC | _SHF_EXECINSTR
    sections = (
        bytes(_SECTION.size),
        _SECTION.pack(name_of(b".text"), _SHT_NOBITS, flags, low, at_table, high - low, 0, 0, _PAGE, 0),
        _SECTION.pack(name_of(b".symtab"), _SHT_SYMTAB, 0, 0, at_table, len(table), 3, 1, 8, _SYMBOL.size),
        _SECTION.pack(name_of(b".strtab"), _SHT_STRTAB, 0, 0, at_strings, len(strings), 0, 0, 1, 0),
        _SECTION.pack(name_of(b".shstrtab"), _SHT_STRTAB, 0, 0, at_names, len(_NAMES), 0, 0, 1, 0),
    )
    identity = b"\x7fELF\2\1\1".ljust(16, b"\0")  # 64 bits, little-endian
    header = _HEADER.pack(
        identity, _ET_EXEC, _EM_X86_64, _EV_CURRENT, 0, 0, at_sections, 0, _HEADER.size, 0, 0, _SECTION.size,
        len(sections), len(sections) - 1,
    )  # fmt: skip
    return b"".join((header, table, strings, _NAMES, *sections))
