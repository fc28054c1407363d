"""A small assembler for ACPI Machine Language, the byte code of the DSDT (ACPI 6.4, chapter 20).

Each function returns the bytes of one object, so a table is an expression. Resource descriptors (6.4 of the same
specification) are at the end.
"""

from __future__ import annotations

import struct

# Opcodes (table 20.1).
ZERO_OP, ONE_OP = 0x00, 0x01
NAME_OP = 0x08
BYTE_PREFIX, WORD_PREFIX, DWORD_PREFIX, STRING_PREFIX, QWORD_PREFIX = 0x0A, 0x0B, 0x0C, 0x0D, 0x0E
SCOPE_OP, BUFFER_OP, PACKAGE_OP = 0x10, 0x11, 0x12
DUAL_NAME_PREFIX, MULTI_NAME_PREFIX, ROOT_CHARACTER = 0x2E, 0x2F, 0x5C
DEVICE_OP = b"\x5b\x82"

# Resource descriptor tags.
IRQ_TAG = 0x22  # small item, edge, active high
IO_TAG = 0x47
END_TAG = b"\x79\x00"
MEMORY32_FIXED_TAG = 0x86
DWORD_SPACE_TAG = 0x87
WORD_SPACE_TAG = 0x88
SPACE_MEMORY, SPACE_IO, SPACE_BUS = 0, 1, 2
SPACE_FIXED_PRODUCER = 0x0C  # minimum and maximum fixed, positive decode, passed on to children


def package_length(body_size: int) -> bytes:
    """PkgLength: the size of a body, counting the bytes of this field itself (20.2.4)."""
    for extra in range(4):
        total = body_size + 1 + extra
        if extra == 0 and total < 0x40:
            return bytes([total])
        if extra and total < 1 << (4 + 8 * extra):
            return bytes([extra << 6 | total & 0xF]) + (total >> 4).to_bytes(extra, "little")
    raise ValueError(f"AML object of {body_size} bytes is too large")


def name_string(path: str) -> bytes:
    """A path such as `\\_SB.PCI0` (20.2.2); segments are padded to four characters."""
    root = b"\\" if path.startswith("\\") else b""
    segments = [segment.ljust(4, "_").encode("ascii") for segment in path.lstrip("\\").split(".")]
    if any(len(segment) != 4 for segment in segments):
        raise ValueError(f"AML name {path!r} has a segment of more than four characters")
    prefix = b""
    if len(segments) == 2:
        prefix = bytes([DUAL_NAME_PREFIX])
    elif len(segments) > 2:
        prefix = bytes([MULTI_NAME_PREFIX, len(segments)])
    return root + prefix + b"".join(segments)


def integer(value: int) -> bytes:
    """The shortest encoding of an integer."""
    if value in (0, 1):
        return bytes([ZERO_OP if value == 0 else ONE_OP])
    for prefix, size in ((BYTE_PREFIX, 1), (WORD_PREFIX, 2), (DWORD_PREFIX, 4), (QWORD_PREFIX, 8)):
        if value < 1 << 8 * size:
            return bytes([prefix]) + value.to_bytes(size, "little")
    raise ValueError(f"AML integer {value} has more than 64 bits")


def string(text: str) -> bytes:
    """A string."""
    return bytes([STRING_PREFIX]) + text.encode("ascii") + b"\0"


def buffer(data: bytes) -> bytes:
    """A buffer with its initial contents."""
    body = integer(len(data)) + data
    return bytes([BUFFER_OP]) + package_length(len(body)) + body


def package(*elements: bytes) -> bytes:
    """A package of objects."""
    body = bytes([len(elements)]) + b"".join(elements)
    return bytes([PACKAGE_OP]) + package_length(len(body)) + body


def name(path: str, value: bytes) -> bytes:
    """A named object."""
    return bytes([NAME_OP]) + name_string(path) + value


def scope(path: str, *terms: bytes) -> bytes:
    """Terms that belong to an existing object."""
    body = name_string(path) + b"".join(terms)
    return bytes([SCOPE_OP]) + package_length(len(body)) + body


def device(path: str, *terms: bytes) -> bytes:
    """A device with its objects."""
    body = name_string(path) + b"".join(terms)
    return DEVICE_OP + package_length(len(body)) + body


def eisa_id(text: str) -> bytes:
    """An identifier such as PNP0A08, packed into an integer (19.6.36)."""
    letters = [ord(letter) - 0x40 for letter in text[:3]]
    value = letters[0] << 26 | letters[1] << 21 | letters[2] << 16 | int(text[3:], 16)
    return bytes([DWORD_PREFIX]) + value.to_bytes(4, "big")


def resources(*descriptors: bytes) -> bytes:
    """A resource template."""
    return buffer(b"".join(descriptors) + END_TAG)


def io_port(base: int, length: int) -> bytes:
    """Fixed I/O ports, 16 bits decoded."""
    return struct.pack("<BBHHBB", IO_TAG, 1, base, base, 1, length)


def irq(number: int) -> bytes:
    """An ISA interrupt."""
    return struct.pack("<BH", IRQ_TAG, 1 << number)


def memory32(base: int, length: int) -> bytes:
    """A fixed memory range that can be written."""
    return struct.pack("<BHBII", MEMORY32_FIXED_TAG, 9, 1, base, length)


def bus_numbers(first: int, last: int) -> bytes:
    """The buses behind a bridge."""
    return _word_space(SPACE_BUS, 0, first, last)


def io_window(first: int, last: int) -> bytes:
    """I/O ports that a bridge passes on."""
    return _word_space(SPACE_IO, 3, first, last)  # whole range, ISA and non-ISA


def _word_space(kind: int, flags: int, first: int, last: int) -> bytes:
    return struct.pack(
        "<BHBBB5H", WORD_SPACE_TAG, 13, kind, SPACE_FIXED_PRODUCER, flags, 0, first, last, 0, last - first + 1
    )


def memory_window(first: int, last: int) -> bytes:
    """Memory that a bridge passes on: not cacheable, writable."""
    return struct.pack(
        "<BHBBB5I", DWORD_SPACE_TAG, 23, SPACE_MEMORY, SPACE_FIXED_PRODUCER, 1, 0, first, last, 0, last - first + 1
    )
