"""The kernel's own symbol table, made here in each of its layouts and found again."""

from __future__ import annotations

import struct

import pytest

from pyemu import kallsyms

BASE = 0xFFFFFFFF81000000
TOKENS = [bytes((n,)) for n in range(256)]
TOKENS[1], TOKENS[2], TOKENS[0x3A], TOKENS[0xFE] = b"Tsys_", b"_init", b"ext4_", b"t__"
TOKENS[0] = b"start_"


def _name(number: int) -> bytes:
    """As the kernel has it: type letter first, in tokens, behind its length."""
    tokens = b"\x01\x00" + f"{number}".encode() if number % 3 else b"\xfe" + f"{number}".encode() + b"\x02" * 70
    length = len(tokens)
    return (bytes((length,)) if length < 0x80 else bytes((length & 0x7F | 0x80, length >> 7))) + tokens


def _text(number: int) -> tuple[str, str]:
    return ("T", f"sys_start_{number}") if number % 3 else ("t", f"__{number}" + "_init" * 70)


def _align(data: bytes, size: int) -> bytes:
    return data + bytes(-len(data) % size)


def tables(count: int, word: int, base: int, *, sequence: bool, addresses_last: bool, percpu: bool) -> bytes:
    names, markers = b"", b""
    for number in range(count):
        if number % 256 == 0:
            markers += struct.pack("<I", len(names))
        names += _name(number)
    token_table = b"".join(token + b"\0" for token in TOKENS)
    index, at = b"", 0
    for token in TOKENS:
        index += struct.pack("<H", at)
        at += len(token) + 1
    offsets = b"".join(struct.pack("<i", -1 - 16 * n if percpu else 16 * n) for n in range(count))
    where = _align(offsets, word) + base.to_bytes(word, "little")
    middle = [struct.pack("<I", count), names, markers]
    middle += [b"\1\2\3" * count] if sequence else []
    middle += [token_table, index]
    body = b"".join(_align(part, word) for part in middle)
    return body + where if addresses_last else where + body


@pytest.mark.parametrize("count", [257, 1000])
@pytest.mark.parametrize(
    ("word", "base", "sequence", "addresses_last", "percpu"),
    [
        (8, BASE, False, False, True),  # Linux 6.1
        (8, BASE, True, False, True),  # Debian's 6.1, Linux 6.2
        (8, BASE, False, True, True),  # Linux 6.4
        (8, BASE, False, False, False),
        (4, 0xC1000000, False, False, False),
        (4, 0xC1000000, True, False, False),
    ],
)
def test_each_layout(count, word, base, sequence, addresses_last, percpu):
    made = tables(count, word, base, sequence=sequence, addresses_last=addresses_last, percpu=percpu)
    alphabet = b"".join(bytes((n, 0)) for n in range(1, 256))  # looks like it, and isn't
    memory = bytearray(0x100000)
    memory[0x1000 : 0x1000 + len(alphabet)] = alphabet
    memory[0x20000 : 0x20000 + len(made)] = made
    found = kallsyms.find([memoryview(memory)])
    assert len(found) == count
    for number, symbol in enumerate(found):
        assert (symbol.kind, symbol.name) == _text(number)
        assert symbol.address == base + 16 * number


def test_damage_is_no_symbols():
    made = tables(600, 8, BASE, sequence=False, addresses_last=False, percpu=True)
    assert kallsyms.find([memoryview(b"")]) == []
    for cut in range(0, len(made), 997):
        kallsyms.find([memoryview(made[cut:])])
        kallsyms.find([memoryview(made[: len(made) - cut])])
    broken = bytearray(made)
    broken[len(made) // 2 : len(made) // 2 + 300] = bytes(300)
    assert kallsyms.find([memoryview(broken)]) == []
