"""A checked reader of ELF executables: header, program headers, notes.

Only what loaders need; section headers and symbols are the debugger's business. Every offset comes from a file
that nobody vouches for, so each access is checked and turned into a BootError.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pyemu.firmware.boot_image import BootError
from pyemu.firmware.e820 import Layout

MAGIC = b"\x7fELF"
CLASS32, CLASS64 = 1, 2
LITTLE_ENDIAN = 1
TYPE_EXECUTABLE, TYPE_SHARED = 2, 3
MACHINE_I386, MACHINE_X86_64 = 3, 62
MACHINE_NAMES = {
    2: "SPARC", 8: "MIPS", 20: "PowerPC", 21: "PowerPC 64", 22: "S/390", 40: "32-bit ARM", 43: "SPARC 64",
    50: "Itanium", 183: "64-bit ARM", 243: "RISC-V", 258: "LoongArch",
}  # fmt: skip
SEGMENT_LOAD, SEGMENT_NOTE = 1, 4
MAX_PROGRAM_HEADERS = 128


@dataclass(frozen=True)
class ProgramHeader:
    """One segment of the file."""

    type: int
    offset: int
    vaddr: int
    paddr: int
    file_size: int
    memory_size: int
    align: int


@dataclass(frozen=True)
class Elf:
    """An x86 executable whose program headers are known to lie inside the file."""

    data: bytes
    is_64bit: bool
    machine: int
    entry: int
    headers: tuple[ProgramHeader, ...]

    @property
    def kind(self) -> str:
        """What to call it in a message."""
        return f"{'ELF64' if self.is_64bit else 'ELF32'} for {'x86-64' if self.machine == MACHINE_X86_64 else 'i386'}"

    def loads(self) -> list[ProgramHeader]:
        """The segments that occupy memory."""
        return [header for header in self.headers if header.type == SEGMENT_LOAD and header.memory_size]

    def content(self, header: ProgramHeader) -> bytes:
        """The bytes of a segment."""
        return self.data[header.offset : header.offset + header.file_size]

    def physical(self, address: int) -> int:
        """The physical address of a virtual one; the address itself if it already is physical."""
        for header in self.loads():
            if header.vaddr <= address < header.vaddr + header.memory_size:
                return header.paddr + address - header.vaddr
        return address

    def is_loaded(self, physical: int) -> bool:
        """Whether a physical address holds bytes of this file."""
        return any(header.paddr <= physical < header.paddr + header.file_size for header in self.loads())

    def notes(self) -> Iterator[tuple[bytes, int, bytes]]:
        """Owner, type and description of each note."""
        for header in self.headers:
            if header.type != SEGMENT_NOTE:
                continue
            content = self.content(header)
            align = 8 if header.align == 8 else 4
            position = 0
            while position + 12 <= len(content):
                name_size, desc_size, note_type = struct.unpack_from("<III", content, position)
                desc_at = position + (12 + name_size + align - 1) // align * align
                if desc_at + desc_size > len(content):
                    break
                yield (
                    content[position + 12 : position + 12 + name_size].rstrip(b"\0"),
                    note_type,
                    content[desc_at : desc_at + desc_size],
                )
                position = desc_at + (desc_size + align - 1) // align * align

    def place(self, layout: Layout, what: str) -> None:
        """Put all loadable segments at their physical addresses."""
        loads = self.loads()
        if not loads:
            raise BootError(f"{what}: the {self.kind} has no loadable segment")
        for header in loads:
            layout.place(header.paddr, self.content(header), f"{what} segment", header.memory_size)


def parse(data: bytes, what: str = "kernel") -> Elf:
    """Read an ELF file's headers; BootError if it is damaged or for another machine."""
    if len(data) < 52 or data[:4] != MAGIC:
        raise BootError(f"{what}: truncated ELF file ({len(data)} bytes)")
    elf_class, order = data[4], data[5]
    if elf_class not in (CLASS32, CLASS64) or order not in (1, 2):
        raise BootError(f"{what}: damaged ELF header")
    if order != LITTLE_ENDIAN:
        machine = int.from_bytes(data[18:20], "big")
        raise BootError(f"{what}: ELF for {MACHINE_NAMES.get(machine, f'machine {machine}')} (big-endian), not for x86")
    file_type, machine = struct.unpack_from("<HH", data, 16)
    if machine not in (MACHINE_I386, MACHINE_X86_64):
        raise BootError(f"{what}: ELF for {MACHINE_NAMES.get(machine, f'machine {machine}')}, not for x86")
    is_64bit = elf_class == CLASS64
    if is_64bit and len(data) < 64:
        raise BootError(f"{what}: truncated ELF file ({len(data)} bytes)")
    if file_type not in (TYPE_EXECUTABLE, TYPE_SHARED):
        raise BootError(f"{what}: ELF file of type {file_type}, not an executable")
    if is_64bit:
        entry, table = struct.unpack_from("<QQ", data, 24)
        entry_size, count = struct.unpack_from("<HH", data, 54)
    else:
        entry, table = struct.unpack_from("<II", data, 24)
        entry_size, count = struct.unpack_from("<HH", data, 42)
    if count > MAX_PROGRAM_HEADERS or entry_size != (56 if is_64bit else 32):
        raise BootError(f"{what}: damaged ELF header ({count} program headers of {entry_size} bytes)")
    if table + count * entry_size > len(data):
        raise BootError(f"{what}: truncated ELF file (program headers lie behind its {len(data)} bytes)")
    headers = []
    for index in range(count):
        at = table + index * entry_size
        if is_64bit:
            kind, _, offset, vaddr, paddr, file_size, memory_size, align = struct.unpack_from("<IIQQQQQQ", data, at)
        else:
            kind, offset, vaddr, paddr, file_size, memory_size, _, align = struct.unpack_from("<8I", data, at)
        if kind in (SEGMENT_LOAD, SEGMENT_NOTE):
            if offset + file_size > len(data):
                raise BootError(f"{what}: truncated ELF file (segment {index} ends behind its {len(data)} bytes)")
            if kind == SEGMENT_LOAD and memory_size < file_size:
                raise BootError(f"{what}: damaged ELF file (segment {index} is larger in the file than in memory)")
        headers.append(ProgramHeader(kind, offset, vaddr, paddr, file_size, memory_size, align))
    return Elf(data, is_64bit, machine, entry, tuple(headers))
