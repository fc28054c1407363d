"""Decompression on the host: the payload of a bzImage, or a whole kernel file that is compressed.

Output is bounded, since a few KiB of hostile input can ask for terabytes. zstd and LZ4 come from the packages
`zstandard` and `lz4`, imported only when they are needed.
"""

from __future__ import annotations

import bz2
import importlib
import lzma
import zlib
from collections.abc import Callable
from typing import Any

from pyemu.firmware.boot_image import BootError

LIMIT = 1 << 30
LZ4_LEGACY_BLOCK = 8 << 20  # each block of the legacy frame expands to at most this

GZIP_MAGIC = b"\x1f\x8b\x08"
LZ4_LEGACY_MAGIC = b"\x02\x21\x4c\x18"


def _optional(package: str, module: str, what: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BootError(f"unpacking a kernel compressed with {what} needs the Python package {package}") from error


def _gzip(data: bytes, limit: int) -> bytes:
    stream = zlib.decompressobj(wbits=31)
    output = stream.decompress(data, limit + 1)
    if not stream.eof and len(output) <= limit:
        raise EOFError
    return output


def _lzma(data: bytes, limit: int) -> bytes:
    stream = lzma.LZMADecompressor(format=lzma.FORMAT_AUTO, memlimit=1 << 30)
    output = stream.decompress(data, limit + 1)
    if not stream.eof and len(output) <= limit:
        raise EOFError
    return output


def _bzip2(data: bytes, limit: int) -> bytes:
    stream = bz2.BZ2Decompressor()
    output = stream.decompress(data, limit + 1)
    if not stream.eof and len(output) <= limit:
        raise EOFError
    return output


def _zstd(data: bytes, limit: int) -> bytes:
    zstandard = _optional("zstandard", "zstandard", "zstd")
    reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(data, read_across_frames=False)
    chunks = []
    total = 0
    try:
        while total <= limit and (chunk := reader.read(1 << 20)):
            chunks.append(chunk)
            total += len(chunk)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
    return b"".join(chunks)


def _lz4_legacy(data: bytes, limit: int) -> bytes:
    """Blocks of (length, data) behind a magic number, until the input ends or the magic is repeated."""
    block_format = _optional("lz4", "lz4.block", "LZ4")
    chunks = []
    total = 0
    position = len(LZ4_LEGACY_MAGIC)
    while position + 4 <= len(data) and total <= limit:
        length = int.from_bytes(data[position : position + 4], "little")
        position += 4
        if data[position - 4 : position] == LZ4_LEGACY_MAGIC:
            continue
        if position + length > len(data):
            raise EOFError
        try:
            chunk = block_format.decompress(data[position : position + length], uncompressed_size=LZ4_LEGACY_BLOCK)
        except (block_format.LZ4BlockError, MemoryError) as error:
            raise ValueError(str(error)) from error
        chunks.append(chunk)
        total += len(chunk)
        position += length
    return b"".join(chunks)


FORMATS: tuple[tuple[bytes, str, Callable[[bytes, int], bytes]], ...] = (
    (GZIP_MAGIC, "gzip", _gzip),
    (b"\xfd7zXZ\x00", "xz", _lzma),
    (b"\x5d\x00\x00", "lzma", _lzma),
    (b"BZh", "bzip2", _bzip2),
    (b"\x28\xb5\x2f\xfd", "zstd", _zstd),
    (LZ4_LEGACY_MAGIC, "lz4", _lz4_legacy),
)


def compression(data: bytes) -> str | None:
    """The name of the format of compressed data, or None."""
    return next((name for magic, name, _ in FORMATS if data.startswith(magic)), None)


def unpack(data: bytes, what: str, limit: int = LIMIT) -> bytes:
    """Decompress; BootError if the format is unknown, the data damaged, or the result larger than `limit`."""
    for magic, name, decompress in FORMATS:
        if not data.startswith(magic):
            continue
        try:
            output = decompress(data, limit)
        except EOFError as error:
            raise BootError(f"{what}: truncated {name} data") from error
        except (ValueError, OSError, zlib.error, lzma.LZMAError) as error:
            raise BootError(f"{what}: damaged {name} data ({str(error) or type(error).__name__})") from error
        if len(output) > limit:
            raise BootError(f"{what}: the {name} data unpacks to more than {limit >> 20} MiB")
        return output
    raise BootError(f"{what}: unknown compression (starts with {data[:4].hex()})")


def unpack_payload(data: bytes, limit: int = LIMIT) -> tuple[str, bytes]:
    """Unpack a bzImage's payload; returns the format's name and the kernel proper.

    The kernel's build appends the unpacked size as four bytes (for gzip they are the format's own trailer).
    """
    name = compression(data)
    if name is None or name == "gzip":
        return name or "unknown", unpack(data, "kernel payload", limit)
    output = unpack(data[:-4], "kernel payload", limit)
    expected = int.from_bytes(data[-4:], "little")
    if len(output) != expected:
        raise BootError(f"kernel payload: truncated or damaged {name} data ({len(output)} bytes of {expected})")
    return name, output
