"""Decompression on the host."""

import bz2
import gzip
import lzma
import struct
from collections.abc import Callable

import lz4.block
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pyemu.firmware import linux_boot, unpack
from pyemu.firmware.boot_image import BootError
from tests.linux_guests import images

DATA = bytes(range(256)) * 700 + b"the end"


def lz4_legacy(data: bytes) -> bytes:
    result = bytearray(b"\x02\x21\x4c\x18")
    for at in range(0, len(data), 8 << 20):
        block = lz4.block.compress(data[at : at + (8 << 20)], store_size=False)
        result += struct.pack("<I", len(block)) + block
    return bytes(result)


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=False).compress(data)


FORMATS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32),
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    "bzip2": bz2.compress,
    "zstd": zstd,
    "lz4": lz4_legacy,
}


@pytest.mark.parametrize("name", FORMATS)
def test_round_trip(name: str) -> None:
    packed = FORMATS[name](DATA)
    assert unpack.compression(packed) == name
    assert unpack.unpack(packed, "x") == DATA
    if name != "gzip":
        packed += struct.pack("<I", len(DATA))
    assert unpack.unpack_payload(packed) == (name, DATA)


@pytest.mark.parametrize("name", FORMATS)
def test_truncated(name: str) -> None:
    packed = FORMATS[name](DATA)
    with pytest.raises(BootError, match=r"truncated|damaged"):
        unpack.unpack_payload(packed[: len(packed) // 2] + struct.pack("<I", len(DATA)))


@pytest.mark.parametrize("name", FORMATS)
def test_limit(name: str) -> None:
    packed = FORMATS[name](bytes(3 << 20))
    with pytest.raises(BootError, match="unpacks to more than 1 MiB"):
        unpack.unpack(packed, "x", 1 << 20)


def test_several_blocks_of_lz4() -> None:
    data = bytes(20 << 20)
    assert unpack.unpack(lz4_legacy(data), "x") == data


@given(st.sampled_from(sorted(FORMATS)), st.data())
def test_damaged(name: str, data: st.DataObject) -> None:
    packed = bytearray(FORMATS[name](DATA[:3000]))
    at = data.draw(st.integers(4, len(packed) - 1))
    packed[at] ^= data.draw(st.integers(1, 255))
    message = ""
    try:
        unpack.unpack(bytes(packed), "x", 1 << 20)
    except BootError as error:
        message = str(error)
    assert "\n" not in message


def test_unknown() -> None:
    with pytest.raises(BootError, match="unknown compression"):
        unpack.unpack(b"nothing", "x")


def test_debian_kernels(guests: images.Guests) -> None:
    """The kernels that people have: their payload is an x86-64 kernel."""
    from pyemu.firmware import elf

    for path in (guests.cloud, guests.generic):
        data = path.read_bytes()
        header = linux_boot.parse_header(data)
        assert header.has_64bit_entry
        _, kernel = unpack.unpack_payload(linux_boot.payload(data, header))
        image = elf.parse(kernel)
        assert image.entry == header.pref_address
        assert image.is_loaded(image.entry)
        assert b"Linux version " in kernel
