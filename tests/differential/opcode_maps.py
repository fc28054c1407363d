"""Every position of the opcode maps, as an instruction with all pointers good: does the host know it, and does pyemu?
And VEX and EVEX prefixes with random fields, of opcodes that are there.

A position is an encoding space (legacy, VEX, EVEX), map, mandatory prefix, W, vector length, opcode, ModRM reg field,
and register or memory. What raises #UD at its own address is taken as not known. Positions that would leave the host
judge's control are left out, by name. Not here: what the differences mean (test_opcode_maps.py).
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pyemu.cpu.ops import build_table, parse_encoding
from tests.differential import case as c
from tests.differential.batch import BATCH
from tests.differential.case import Case
from tests.differential.generator import Generator
from tests.differential.host import Host
from tests.differential.subject import Subject

INVALID_OPCODE = 6
_PREFIXES = {"NP": b"", "66": b"\x66", "F3": b"\xf3", "F2": b"\xf2"}
_PP = {"NP": 0, "66": 1, "F3": 2, "F2": 3}
_MAPS = {1: b"\x0f", 2: b"\x0f\x38", 3: b"\x0f\x3a"}
_POINTER = c.WINDOWS[0][0] + 0x100
# The host can't be asked: SYSCALL, SYSENTER, INT n and VMMCALL leave, PUSH and POP of segments and WRGSBASE lose it.
_LEAVE_OUT = {(0, 0xCD), (1, 0x05), (1, 0x34)}


class HasCode(Protocol):
    """An instruction to ask about."""

    @property
    def code(self) -> bytes:
        """Its bytes, and zeroes behind them."""


@dataclass(frozen=True)
class Position:
    """One position of the maps."""

    space: str  # "legacy", "VEX" or "EVEX"
    map: int
    prefix: str
    opcode: int
    reg: int
    memory: bool
    w: int = 0
    length: int = 0  # L'L

    @property
    def code(self) -> bytes:
        """The instruction, with zeroes for a displacement and immediates behind it."""
        modrm = bytes([self.reg << 3 | (0 if self.memory else 0xC1)])
        if self.space == "legacy":
            rex = b"\x48" if self.w else b""
            return _PREFIXES[self.prefix] + rex + _MAPS.get(self.map, b"") + bytes([self.opcode]) + modrm + bytes(8)
        pp = _PP[self.prefix]
        if self.space == "VEX":
            # vvvv = 1111: none, or register 0
            return (
                bytes([0xC4, 0xE0 | self.map, self.w << 7 | 0x78 | self.length << 2 | pp, self.opcode])
                + modrm
                + bytes(8)
            )
        # k1, no zeroing, no broadcast
        head = bytes([0x62, 0xF0 | self.map, self.w << 7 | 0x7C | pp, self.length << 5 | 0x08 | 1])
        return head + bytes([self.opcode]) + modrm + bytes(8)

    def __str__(self) -> str:
        where = f"{self.space} {self.prefix} map {self.map} {self.opcode:02X} /{self.reg}"
        return f"{where} {'m' if self.memory else 'r'} W{self.w} L{self.length}"


def legacy(maps: tuple[int, ...] = (0, 1, 2, 3)) -> Iterator[Position]:
    """Positions without VEX."""
    for number in maps:
        for opcode in range(256):
            if (number, opcode) in _LEAVE_OUT or (number == 1 and opcode in (0x38, 0x3A)):
                continue
            for prefix in _PREFIXES if number else ("NP",):
                for reg in range(8):
                    for memory in (False, True):
                        for w in (
                            (0, 1) if number in (1, 3) and opcode in (0x6E, 0x7E, 0x16, 0x22, 0xC7, 0xAE) else (0,)
                        ):
                            yield Position("legacy", number, prefix, opcode, reg, memory, w)


def vex(space: str) -> Iterator[Position]:
    """Positions of VEX or EVEX."""
    for number in (1, 2, 3):
        for opcode in range(256):
            for prefix in _PREFIXES:
                for w in (0, 1):
                    for length in (0, 1) if space == "VEX" else (0, 1, 2):
                        for memory in (False, True):
                            for reg in (
                                range(8) if (number, opcode >> 4) in ((1, 7), (1, 10), (2, 15), (2, 12)) else (1,)
                            ):
                                yield Position(space, number, prefix, opcode, reg, memory, w, length)


@dataclass(frozen=True)
class Prefixed:
    """An instruction with a VEX or EVEX prefix whose fields are random."""

    code: bytes

    @property
    def payload(self) -> bytes:
        """From the byte after C4 or 62 on: two or three of prefix, opcode, ModRM."""
        return self.code[next(n for n, byte in enumerate(self.code) if byte in (0xC4, 0x62)) + 1 :]

    def __str__(self) -> str:
        return self.code.hex(" ")


def prefixed(space: str, bits: int, count: int, seed: int) -> Iterator[Prefixed]:
    """Random fields, each mostly as it should be, around the opcodes that pyemu knows in this space."""
    rng = random.Random(seed)
    encodings = [parse_encoding(form.row.encoding) for form in build_table().forms if form.space == space]
    known = sorted({(e.map, e.opcode) for e in encodings})

    def flip(bit: int, chance: float = 0.1) -> int:
        return bit if rng.random() < chance else 0

    for _ in range(count):
        opcode_map, opcode = rng.choice(known)
        rex = 0xE0 ^ flip(0x80) ^ flip(0x40) ^ flip(0x20)
        if bits == 32:
            rex |= 0xC0  # else it is LES, LDS or BOUND
        vvvv = 15 if rng.random() < 0.6 else rng.randrange(16)
        payload = rng.randrange(2) << 7 | vvvv << 3 | rng.choice((0, 1, 1, 2, 3))
        body = bytes([rng.randrange(8) << 3 | rng.choice((0, 1, 2, 3)) | rng.choice((0, 0xC0))])
        if body[0] < 0xC0 and opcode_map == 2 and opcode >> 4 in (9, 10) and rng.random() < 0.8:  # VSIB
            body = bytes([body[0] & 0x38 | 4, rng.randrange(32) << 3 | 1])
        head = rng.choice((b"\x66", b"\xf2", b"\xf3", b"\xf0", b"\x36")) if rng.random() < 0.05 else b""
        if bits == 64 and rng.random() < 0.03:
            head += bytes([rng.randrange(0x40, 0x50)])
        if space == "VEX":
            prefix = bytes([0xC4, rex | opcode_map ^ flip(4, 0.02), payload | flip(4, 0.5)])
        else:
            p0 = rex | 0x10 ^ flip(0x10) ^ flip(8, 0.02) | opcode_map ^ flip(4, 0.02)
            p2 = flip(0x80, 0.3) | rng.choice((0, 0x20, 0x40, 0x40, 0x60)) | flip(0x10, 0.3) | 8 ^ flip(8)
            prefix = bytes([0x62, p0, payload | 4 ^ flip(4, 0.03), p2 | rng.choice((0, 1, 1, 2))])
        yield Prefixed(head + prefix + bytes([opcode]) + body + bytes(6))


def usable(position: Position, bits: int) -> bool:
    """Can the host be asked?"""
    code = position.code
    if position.space == "legacy":
        if position.map == 0 and position.opcode in (0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3):
            return False
        if position.map == 0 and position.opcode in (
            (0x0F, *range(0x40, 0x50), 0xC4, 0xC5, 0x62) if bits == 64 else (0x0F,)
        ):
            return False
        if position.map == 1 and position.opcode == 0x01 and not position.memory:
            return False  # VMCALL and its like: test_generated.py has the ones that pyemu knows
        if position.w and bits == 32:
            return False
    return bits == 64 or not position.w or len(code) > 0


def verdicts(judge: Host | Subject, positions: Sequence[HasCode], bits: int) -> list[bool]:
    """For each position: is it known?"""
    generator = Generator(0)
    record = bytearray(generator.given_plain(bits))
    for n in range(16):
        struct.pack_into("<Q", record, 8 * n, _POINTER)
    known: list[bool] = []
    for first in range(0, len(positions), BATCH):
        part = positions[first : first + BATCH]
        cases = []
        for slot, position in enumerate(part):
            struct.pack_into("<Q", record, c.R_RIP, c.CODE + c.SLOT * slot)
            cases.append(Case(position.code, bits, slot, bytes(record)))
        for case, result in zip(cases, judge.run(cases), strict=True):
            undefined = c.word(result, c.R_VECTOR) == INVALID_OPCODE and c.word(result, c.R_RIP) == case.rip
            known.append(not undefined)
    return known
