"""Every position of the opcode maps, as an instruction with all pointers good: does the host know it, and does pyemu?

A position is an encoding space (legacy, VEX, EVEX), map, mandatory prefix, W, vector length, opcode, ModRM reg field,
and register or memory. What raises #UD at its own address is taken as not known. Positions that would leave the host
judge's control are left out, by name. Not here: what the differences mean (test_opcode_maps.py).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

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


def verdicts(judge: Host | Subject, positions: list[Position], bits: int) -> list[bool]:
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
