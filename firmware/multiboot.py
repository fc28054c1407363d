"""Multiboot 1 and 2: kernels that carry a header saying how to load them (specifications 0.6.96 and 2.0).

ELF32, ELF64 and raw images with load addresses in the header are entered in 32-bit protected mode. Modules are the
files of -initrd.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pyemu.firmware import elf
from pyemu.firmware.boot_image import (
    ACCESS_CODE32,
    CR0_ET,
    CR0_PE,
    BootError,
    CpuMode,
    CpuStart,
    E820Entry,
    TableStart,
    descriptor,
    flat_segments,
)
from pyemu.firmware.e820 import EBDA, HIGH_MEMORY, MIB, Layout

LOADER_NAME = b"pyemu\0"
PAGE = 4096

# Multiboot 1: header (3.1), info (3.3).
MB1_MAGIC = 0x1BADB002
MB1_LOADER_MAGIC = 0x2BADB002
MB1_SEARCH = 8192
MB1_ADDRESSES = 1 << 16
MB1_UNDERSTOOD = 0x7 | MB1_ADDRESSES  # align modules, memory information, video mode (which we don't promise)
MB1_REQUIRED = 0xFFFF
MB1_INFO_MEMORY = 1 << 0
MB1_INFO_CMDLINE = 1 << 2
MB1_INFO_MODULES = 1 << 3
MB1_INFO_MMAP = 1 << 6
MB1_INFO_LOADER = 1 << 9
MB1_INFO_SIZE = 116

# Multiboot 2: header (3.1), information (3.6).
MB2_MAGIC = 0xE85250D6
MB2_LOADER_MAGIC = 0x36D76289
MB2_SEARCH = 32768
MB2_ARCH_I386 = 0
MB2_OPTIONAL = 1
TAG_END, TAG_INFO_REQUEST, TAG_ADDRESS, TAG_ENTRY = 0, 1, 2, 3
TAGS_IGNORED = frozenset({4, 5, 6, 7, 8, 9, 10})  # console, framebuffer, alignment, EFI entries, relocatable
INFO_CMDLINE, INFO_LOADER, INFO_MODULE, INFO_MEMORY, INFO_MMAP = 1, 2, 3, 4, 6
INFO_ACPI_OLD, INFO_ACPI_NEW = 14, 15
INFO_PROVIDED = frozenset(
    {INFO_CMDLINE, INFO_LOADER, INFO_MODULE, INFO_MEMORY, INFO_MMAP, INFO_ACPI_OLD, INFO_ACPI_NEW}
)


@dataclass(frozen=True)
class Module:
    """A file to load beside the kernel, with its string."""

    data: bytes
    command_line: bytes


@dataclass(frozen=True)
class RawLoad:
    """Addresses in the header itself, for images that aren't ELF."""

    header_address: int
    load_address: int
    load_end: int  # 0: the whole file
    bss_end: int


@dataclass(frozen=True)
class Header:
    """A multiboot header of either version."""

    version: int
    offset: int
    raw: RawLoad | None
    entry: int | None


def find_header(data: bytes) -> Header | None:
    """The multiboot header in a file; version 2 is preferred. BootError if it asks for the impossible."""
    return _find2(data) or _find1(data)


def _find1(data: bytes) -> Header | None:
    for offset in range(0, min(len(data), MB1_SEARCH) - 11, 4):
        magic, flags, checksum = struct.unpack_from("<III", data, offset)
        if magic != MB1_MAGIC or (magic + flags + checksum) & 0xFFFF_FFFF:
            continue
        unknown = flags & MB1_REQUIRED & ~MB1_UNDERSTOOD
        if unknown:
            raise BootError(f"kernel: multiboot header asks for unknown features ({unknown:#x})")
        if not flags & MB1_ADDRESSES:
            return Header(1, offset, None, None)
        if offset + 32 > len(data):
            raise BootError("kernel: truncated multiboot header")
        header_address, load, load_end, bss_end, entry = struct.unpack_from("<5I", data, offset + 12)
        return Header(1, offset, RawLoad(header_address, load, load_end, bss_end), entry)
    return None


def _find2(data: bytes) -> Header | None:
    for offset in range(0, min(len(data), MB2_SEARCH) - 15, 8):
        magic, architecture, length, checksum = struct.unpack_from("<4I", data, offset)
        if magic != MB2_MAGIC or (magic + architecture + length + checksum) & 0xFFFF_FFFF:
            continue
        if architecture != MB2_ARCH_I386:
            raise BootError(f"kernel: multiboot 2 header for architecture {architecture}, not x86")
        if length < 16 or offset + length > len(data):
            raise BootError("kernel: truncated multiboot 2 header")
        return _parse2(data, offset, length)
    return None


def _parse2(data: bytes, start: int, length: int) -> Header:
    raw = None
    entry = None
    offset, end = start + 16, start + length
    while offset + 8 <= end:
        tag, flags, size = struct.unpack_from("<HHI", data, offset)
        if tag == TAG_END:
            break
        if size < 8 or offset + size > end:
            raise BootError("kernel: damaged multiboot 2 header")
        body = data[offset + 8 : offset + size]
        if tag == TAG_INFO_REQUEST:
            wanted = {int.from_bytes(body[at : at + 4], "little") for at in range(0, len(body) - 3, 4)}
            missing = sorted(wanted - INFO_PROVIDED)
            if missing and not flags & MB2_OPTIONAL:
                raise BootError(f"kernel: multiboot 2 header asks for information {missing[0]}, which is not provided")
        elif tag == TAG_ADDRESS and len(body) >= 16:
            raw = RawLoad(*struct.unpack_from("<4I", body))
        elif tag == TAG_ENTRY and len(body) >= 4:
            entry = int.from_bytes(body[:4], "little")
        elif tag not in TAGS_IGNORED and not flags & MB2_OPTIONAL:
            raise BootError(f"kernel: multiboot 2 header has an unknown tag {tag}")
        offset += (size + 7) & ~7
    if raw is not None and entry is None:
        raise BootError("kernel: multiboot 2 header has load addresses but no entry address")
    return Header(2, start, raw, entry)


def load(
    data: bytes,
    header: Header,
    modules: list[Module],
    command_line: bytes,
    layout: Layout,
    memory_map: tuple[E820Entry, ...],
    rsdp: tuple[int, bytes],
) -> tuple[str, CpuStart]:
    """Place the kernel, its modules and the information structure; `rsdp` is its address and contents."""
    kind, entry, end = _place_kernel(data, header, layout)
    placed = []
    for number, module in enumerate(modules):
        try:
            address = layout.find(len(module.data), "module", end, layout.low_ram_end, PAGE)
        except BootError as error:
            raise BootError(
                f"initrd of {len(module.data) / MIB:.1f} MiB (module {number}) does not fit into "
                f"-m {layout.ram_size // MIB}M beside the kernel"
            ) from error
        layout.place(address, module.data, f"module {number}")
        end = address + len(module.data)
        placed.append((address, end, module.command_line))
    if header.version == 1:
        magic, info = MB1_LOADER_MAGIC, _info1(placed, command_line, layout, memory_map)
    else:
        magic = MB2_LOADER_MAGIC
        info = layout.put_low(_info2(placed, command_line, layout, memory_map, rsdp[1]), "multiboot information")
    segments = flat_segments(0x08, 0x10, ACCESS_CODE32)
    gdt = struct.pack("<3Q", 0, descriptor(segments["cs"]), descriptor(segments["ds"]))
    start = CpuStart(
        mode=CpuMode.PROTECTED32,
        rip=entry,
        segments=segments,
        gpr={"rax": magic, "rbx": info},
        gdt=TableStart(layout.put_low(gdt, "GDT"), len(gdt) - 1),
        idt=TableStart(0, 0x3FF),  # as a BIOS leaves it
        cr0=CR0_PE | CR0_ET,
    )
    return f"{kind} with a multiboot {header.version} header: 32-bit entry at {entry:#x}", start


def _place_kernel(data: bytes, header: Header, layout: Layout) -> tuple[str, int, int]:
    """Put the kernel into RAM; returns what it is, its entry and its end."""
    raw = header.raw
    if raw is not None:
        skip = header.offset - (raw.header_address - raw.load_address)
        size = raw.load_end - raw.load_address if raw.load_end else len(data) - skip
        if raw.header_address < raw.load_address or skip < 0 or size <= 0:
            raise BootError("kernel: damaged multiboot header (impossible load addresses)")
        if skip + size > len(data):
            raise BootError(f"kernel: truncated, the multiboot header announces {skip + size} bytes of {len(data)}")
        end = max(raw.load_address + size, raw.bss_end)
        layout.place(raw.load_address, data[skip : skip + size], "kernel", end - raw.load_address)
        entry = header.entry or 0
        if not raw.load_address <= entry < raw.load_address + size:
            raise BootError(f"kernel: the multiboot entry address {entry:#x} lies outside the image")
        return "raw image", entry, end
    if not data.startswith(elf.MAGIC):
        raise BootError("kernel: has a multiboot header without load addresses, but is not an ELF file")
    image = elf.parse(data)
    entry = image.physical(image.entry) if header.entry is None else header.entry
    if not image.is_loaded(entry):
        raise BootError(f"kernel: the entry point {entry:#x} lies outside the loaded segments")
    image.place(layout, "kernel")
    return image.kind, entry, max(segment.paddr + segment.memory_size for segment in image.loads())


def _memory_kib(layout: Layout) -> tuple[int, int]:
    """Conventional memory and memory above 1 MiB, in KiB."""
    return EBDA // 1024, (layout.low_ram_end - HIGH_MEMORY) // 1024


def _info1(
    modules: list[tuple[int, int, bytes]], command_line: bytes, layout: Layout, memory_map: tuple[E820Entry, ...]
) -> int:
    mmap = b"".join(struct.pack("<IQQI", 20, e.start, e.length, e.type.value) for e in memory_map)
    entries = b"".join(
        struct.pack("<4I", start, end, layout.put_low(text + b"\0", "module string"), 0) for start, end, text in modules
    )
    info = bytearray(MB1_INFO_SIZE)
    flags = MB1_INFO_MEMORY | MB1_INFO_CMDLINE | MB1_INFO_MMAP | MB1_INFO_LOADER
    if modules:
        flags |= MB1_INFO_MODULES
        struct.pack_into("<II", info, 20, len(modules), layout.put_low(entries, "module list"))
    struct.pack_into("<3I", info, 0, flags, *_memory_kib(layout))
    struct.pack_into("<I", info, 16, layout.put_low(command_line + b"\0", "command line"))
    struct.pack_into("<II", info, 44, len(mmap), layout.put_low(mmap, "memory map"))
    struct.pack_into("<I", info, 64, layout.put_low(LOADER_NAME, "loader name"))
    return layout.put_low(bytes(info), "multiboot information")


def _info2(
    modules: list[tuple[int, int, bytes]],
    command_line: bytes,
    layout: Layout,
    memory_map: tuple[E820Entry, ...],
    rsdp: bytes,
) -> bytes:
    tags = bytearray()

    def tag(number: int, body: bytes) -> None:
        tags.extend(struct.pack("<II", number, 8 + len(body)) + body)
        tags.extend(bytes(-len(tags) % 8))

    tag(INFO_CMDLINE, command_line + b"\0")
    tag(INFO_LOADER, LOADER_NAME)
    for start, end, text in modules:
        tag(INFO_MODULE, struct.pack("<II", start, end) + text + b"\0")
    tag(INFO_MEMORY, struct.pack("<II", *_memory_kib(layout)))
    mmap = b"".join(struct.pack("<QQII", e.start, e.length, e.type.value, 0) for e in memory_map)
    tag(INFO_MMAP, struct.pack("<II", 24, 0) + mmap)
    if rsdp:
        tag(INFO_ACPI_OLD, rsdp[:20])
        tag(INFO_ACPI_NEW, rsdp)
    tag(TAG_END, b"")
    return struct.pack("<II", 8 + len(tags), 0) + bytes(tags)
