"""SMBIOS tables (DMTF DSP0134 2.8): what the machine calls itself, and its memory."""

from __future__ import annotations

import struct

from pyemu.firmware.acpi import checksum
from pyemu.firmware.platform import Platform

ENTRY_SIZE = 31
ENTRY_ROOM = 32  # the structures follow, aligned
VERSION = (2, 8)
REVISION_BCD = 0x28
MIB = 1 << 20
UNKNOWN = 2
HANDLE_CHASSIS, HANDLE_CPU, HANDLE_ARRAY, HANDLE_DEVICE, HANDLE_RANGE = 0x300, 0x400, 0x1000, 0x1100, 0x1300
NO_HANDLE = 0xFFFE
BIOS_CHARACTERISTICS_UNSUPPORTED = 1 << 3
BIOS_EXT_VIRTUAL_MACHINE = 1 << 4
MEMORY_SIZE_EXTENDED = 0x7FFF


def _structure(kind: int, handle: int, body: bytes, *strings: str) -> bytes:
    texts = b"".join(text.encode("ascii") + b"\0" for text in strings) or b"\0"
    return struct.pack("<BBH", kind, 4 + len(body), handle) + body + texts + b"\0"


def structures(platform: Platform, ranges: list[tuple[int, int]]) -> list[bytes]:
    """The structures of the table, the end marker last."""
    ram_size = sum(length for _, length in ranges)
    result = [
        # BIOS: vendor, version, segment, date, ROM size, characteristics, extension bytes, releases.
        _structure(
            0, 0, struct.pack("<BBHBBQBBBBBB", 1, 2, 0xE000, 3, 1, BIOS_CHARACTERISTICS_UNSUPPORTED,
                              0, BIOS_EXT_VIRTUAL_MACHINE, 0, 1, 0xFF, 0xFF),
            "pyemu", "1", "01/01/2026",
        ),
        # System: manufacturer, product, version, serial, UUID, wake-up type, SKU, family.
        _structure(1, 0x100, struct.pack("<BBBB16sBBB", 1, 2, 0, 0, bytes(16), 6, 0, 0), "pyemu", "PC"),
        # Chassis: manufacturer, type "other", no version, serial, tag; states safe; no OEM data.
        _structure(
            3, HANDLE_CHASSIS,
            struct.pack("<BBBBBBBBBIBBBBB", 1, 1, 0, 0, 0, 3, 3, 3, UNKNOWN, 0, 0, 0, 0, 0, 0), "pyemu",
        ),
    ]  # fmt: skip
    for cpu in range(platform.cpus):
        body = struct.pack(
            "<BBBBQBBHHHBBHHHBBBBBBHH",
            1, 3, 1, 2, 0, 0, 0, 0, 0, 0, 0x41, 1, 0xFFFF, 0xFFFF, 0xFFFF, 0, 0, 0, 1, 1, 1, 1 << 2, 1,
        )  # fmt: skip
        result.append(_structure(4, HANDLE_CPU + cpu, body, f"CPU {cpu}", "pyemu"))
    kib = ram_size // 1024
    result.append(
        _structure(
            16,
            HANDLE_ARRAY,
            # Location "other", use "system memory", no error correction, capacity, devices, extended capacity.
            struct.pack(
                "<BBBIHHQ", 1, 3, 3, kib if kib < 1 << 31 else 1 << 31, NO_HANDLE, 1, 0 if kib < 1 << 31 else ram_size
            ),
        )
    )
    mib = ram_size // MIB
    device = struct.pack(
        "<HHHHHBBBBBHHBBBBBIHHHH",
        HANDLE_ARRAY, NO_HANDLE, 64, 64, min(mib, MEMORY_SIZE_EXTENDED), 9, 0, 1, 0, 7, 1 << 1, 0,
        2, 0, 0, 0, 0, mib if mib >= MEMORY_SIZE_EXTENDED else 0, 0, 0, 0, 0,
    )  # fmt: skip
    result.append(_structure(17, HANDLE_DEVICE, device, "DIMM 0", "pyemu"))
    for index, (start, length) in enumerate(ranges):
        end = start + length
        if end <= 1 << 32:
            body = struct.pack("<IIHBQQ", start // 1024, end // 1024 - 1, HANDLE_ARRAY, 1, 0, 0)
        else:
            body = struct.pack("<IIHBQQ", 0xFFFF_FFFF, 0xFFFF_FFFF, HANDLE_ARRAY, 1, start, end - 1)
        result.append(_structure(19, HANDLE_RANGE + index, body))
    result.append(_structure(32, 0x2000, bytes(7)))  # boot status: no error
    result.append(_structure(127, 0x7F00, b""))
    return result


def build(platform: Platform, ranges: list[tuple[int, int]], address: int) -> bytes:
    """The entry point, which must be 16-byte aligned in 0xf0000-0xfffff, followed by the structures."""
    items = structures(platform, ranges)
    table = b"".join(items)
    entry = bytearray(
        struct.pack(
            "<4sBBBBHB5s5sBHIHB",
            b"_SM_", 0, ENTRY_SIZE, *VERSION, max(map(len, items)), 0, bytes(5),
            b"_DMI_", 0, len(table), address + ENTRY_ROOM, len(items), REVISION_BCD,
        )
    )  # fmt: skip
    entry[21] = checksum(entry[16:])  # the inner entry point has a checksum of its own
    entry[4] = checksum(entry)
    return bytes(entry).ljust(ENTRY_ROOM, b"\0") + table
