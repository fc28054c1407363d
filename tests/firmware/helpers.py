"""Files and guests made for these tests."""

from __future__ import annotations

import itertools
import lzma
import struct

from pyemu.firmware import linux_boot
from pyemu.firmware.boot_image import BootImage
from pyemu.firmware.e820 import Layout
from pyemu.firmware.platform import Platform

MIB = 1 << 20
RAM = 128 * MIB


def bzimage(
    *,
    protocol: int = 0x020F,
    xloadflags: int = 1,
    relocatable: int = 1,
    payload: bytes = b"payload",
    pref_address: int = 16 * MIB,
    init_size: int = 2 * MIB,
    initrd_max: int = 0x7FFF_FFFF,
    loadflags: int = 1,
    setup_sects: int = 4,
    alignment: int = 2 * MIB,
) -> bytes:
    """A bzImage with a body of 0x400 bytes before its payload."""
    setup = bytearray((setup_sects + 1) * 512)
    body = bytearray(b"\x90" * 0x400) + payload
    body += bytes(-len(body) % 16)
    setup[linux_boot.SETUP_SECTS] = setup_sects
    struct.pack_into("<I", setup, linux_boot.SYSSIZE, len(body) // 16)
    struct.pack_into("<H", setup, linux_boot.BOOT_FLAG, 0xAA55)
    setup[0x200:0x202] = b"\xeb\x6a"
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, linux_boot.VERSION, protocol)
    setup[linux_boot.LOADFLAGS] = loadflags
    struct.pack_into("<I", setup, linux_boot.CODE32_START, MIB)
    struct.pack_into("<I", setup, linux_boot.INITRD_ADDR_MAX, initrd_max)
    struct.pack_into("<I", setup, linux_boot.KERNEL_ALIGNMENT, alignment)
    setup[linux_boot.RELOCATABLE_KERNEL] = relocatable
    struct.pack_into("<H", setup, linux_boot.XLOADFLAGS, xloadflags)
    struct.pack_into("<I", setup, linux_boot.CMDLINE_SIZE, 255)
    struct.pack_into("<II", setup, linux_boot.PAYLOAD_OFFSET, 0x400, len(payload))
    struct.pack_into("<Q", setup, linux_boot.PREF_ADDRESS, pref_address)
    struct.pack_into("<I", setup, linux_boot.INIT_SIZE, init_size)
    return bytes(setup + body)


def elf_file(
    *,
    bits: int = 64,
    machine: int | None = None,
    load: int = 2 * MIB,
    code: bytes = b"\xf4" * 64,
    memory_size: int | None = None,
    entry: int | None = None,
    notes: bytes = b"",
    file_type: int = 2,
    vaddr: int | None = None,
) -> bytes:
    """An executable with one loadable segment and, if given, a note segment."""
    header_size, phdr_size = (64, 56) if bits == 64 else (52, 32)
    machine = (62 if bits == 64 else 3) if machine is None else machine
    count = 2 if notes else 1
    code_at = header_size + count * phdr_size
    notes_at = code_at + len(code)
    word = "Q" if bits == 64 else "I"
    ident = b"\x7fELF" + bytes([2 if bits == 64 else 1, 1, 1]) + bytes(9)
    header = ident + struct.pack(
        f"<HHI{word}{word}{word}IHHHHHH",
        file_type, machine, 1, load if entry is None else entry, header_size, 0, 0,
        header_size, phdr_size, count, 0, 0, 0,
    )  # fmt: skip

    def phdr(kind: int, offset: int, paddr: int, size: int, memory: int, virtual: int) -> bytes:
        if bits == 64:
            return struct.pack("<IIQQQQQQ", kind, 7, offset, virtual, paddr, size, memory, 4)
        return struct.pack("<8I", kind, offset, virtual, paddr, size, memory, 7, 4)

    result = header + phdr(
        1, code_at, load, len(code), len(code) if memory_size is None else memory_size, load if vaddr is None else vaddr
    )
    if notes:
        result += phdr(4, notes_at, 0, len(notes), len(notes), 0)
    return result + code + notes


def note(owner: bytes, kind: int, description: bytes) -> bytes:
    """One ELF note."""
    name = owner + b"\0"
    pad = bytes(-len(name) % 4)
    return (
        struct.pack("<III", len(name), len(description), kind) + name + pad + description + bytes(-len(description) % 4)
    )


def xz_payload(kernel: bytes) -> bytes:
    """A bzImage payload: compressed, with the unpacked size behind it."""
    return lzma.compress(kernel, check=lzma.CHECK_CRC32) + struct.pack("<I", len(kernel))


def layout(ram_size: int = RAM) -> Layout:
    """Empty RAM."""
    return Layout(ram_size, Platform())


def memory_of(image: BootImage, address: int, length: int) -> bytes:
    """What RAM holds at an address when the guest starts."""
    result = bytearray(length)
    for start, data in image.segments:
        low, high = max(start, address), min(start + len(data), address + length)
        if low < high:
            result[low - address : high - address] = data[low - start : high - start]
    return bytes(result)


def string_at(image: BootImage, address: int) -> bytes:
    """A zero-terminated string in RAM."""
    return memory_of(image, address, 4096).split(b"\0", 1)[0]


def check_consistent(image: BootImage, ram_size: int) -> None:
    """No two things at one place, and nothing outside RAM."""
    ranges = sorted([(start, len(data)) for start, data in image.segments] + list(image.zero))
    for (start, length), (following, _) in itertools.pairwise(ranges):
        assert start + length <= following
    assert all(0 <= start and start + length <= ram_size for start, length in ranges)


def short_id(value: object) -> str | None:
    """A name for a test's parameter: the expected message; files are numbered."""
    return value if isinstance(value, str) else ""
