"""Cases for FXSAVE, FXRSTOR and the XSAVE family, whose areas are larger than the memory that other cases compare.

    areas = Areas(seed, xcr0)
    area = areas.case("xsavec", bits)       area = areas.in_use(bits)

A case that saves first fills all of the data pages, mostly brings some components to given or initial values by XRSTOR,
and then runs the instruction; one that restores runs it on an image in the read-only page. Masks, headers in both
formats, MXCSR, misaligned places, page boundaries and the end of what is mapped are chosen at random. Not here: what
two processors may make of them (test_save_areas.py).
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass

from pyemu.cpu import features
from pyemu.cpu.ops import Form
from pyemu.cpu.state import RCX, RDI, RSI
from pyemu.cpu.xstate import COMPACTED
from tests.cpu.semantics.machines import forms
from tests.differential import case as c
from tests.differential.batch import Records
from tests.differential.case import Case
from tests.differential.generator import Fixed, Generator, Instruction
from tests.differential.subject import xcr0

OPCODES = {
    "fxsave": (b"\x0f\xae", 0), "fxrstor": (b"\x0f\xae", 1), "xsave": (b"\x0f\xae", 4), "xrstor": (b"\x0f\xae", 5),
    "xsaveopt": (b"\x0f\xae", 6), "xsavec": (b"\x0f\xc7", 4),
}  # fmt: skip
RESTORES = ("fxrstor", "xrstor")
HEADER = 512
Layout = dict[int, tuple[int, int]]  # of the standard format: offset and size by number of the component
COMPONENTS = xcr0()
OURS: Layout = {k.bit: (k.offset, k.size) for k in features.COMPONENTS if COMPONENTS >> k.bit & 1}
SIZE = 2696  # of the standard format with them
_PAGE = 0x1000
_RSI, _ABSOLUTE = b"\x06", b"\x04\x25"  # ModRM and what follows, for [rsi] and, in 64-bit mode, [disp32]


def form_of(name: str) -> Form:
    """The form of one of these instructions."""
    return next(form for form in forms() if form.row.name == name)


def instruction(name: str, wide: bool, place: bytes = _RSI) -> bytes:
    """One of them; `place` is ModRM without the reg field, and what follows."""
    opcode, number = OPCODES[name]
    return b"\x48" * wide + opcode + bytes([place[0] | number << 3]) + place[1:]


def rearranged(area: bytes, old: Layout, new: Layout) -> bytes:
    """An area in the standard format, or the part of one that is there, for a processor with another layout."""
    result = bytearray(area)
    for number, (at, size) in old.items():
        part, to = area[at : at + size], new[number][0]
        result[to : to + len(part)] = part
    return bytes(result[: len(area)])


@dataclass(frozen=True)
class Area:
    """A case, where its area is, and what the read-only page holds."""

    name: str
    case: Case
    place: int
    offset: int  # of the image in the read-only page
    image: bytes

    def page(self, layout: Layout) -> bytes:
        """The read-only page for a processor."""
        if not 0 <= self.offset <= _PAGE - HEADER - 16 or self.image[self.offset + HEADER + 15] & 0x80:
            return self.image
        return self.image[: self.offset] + rearranged(self.image[self.offset :], OURS, layout)


class Areas:
    """A stream of cases that depends only on the seed."""

    def __init__(self, seed: int, xcr0: int) -> None:
        """`xcr0` is what the judge's processor has: what else Subject has isn't asked for."""
        self.random = random.Random(seed)
        self.components = COMPONENTS & xcr0
        self.generator = Generator(seed)
        self.given = Records()

    def in_use(self, bits: int) -> Area:
        """XRSTOR, then XGETBV of XCR0, of XCR1, which is what is in use, or of what isn't there."""
        offset = 64 * self.random.randrange((_PAGE - SIZE) // 64)
        read = b"\xb9" + struct.pack("<I", self.random.choice((0, 1, 1, 1, 2))) + b"\x0f\x01\xd0"
        code = self._restored(bits, offset) + read
        return self._area("xgetbv", bits, code, [], c.DATA, offset)

    def _restored(self, bits: int, offset: int) -> bytes:
        """Load components from the read-only page."""
        address = (_ABSOLUTE if bits == 64 else b"\x05") + struct.pack("<I", c.READ_ONLY + offset)
        return self._mask() + instruction("xrstor", bits == 64 and self.random.random() < 0.7, address)

    def _area(self, name: str, bits: int, code: bytes, fixed: Fixed, place: int, offset: int) -> Area:
        """These instructions with a random state and a random image."""
        what = Instruction(code, form_of(name), bits, tuple(fixed))
        self.generator.states([what], [c.CODE], 1, self.given)
        case = Case(code, bits, 0, self.given.row(0, c.RECORD))
        return Area(name, case, place, offset, self._image(offset))

    def case(self, name: str, bits: int) -> Area:
        """A random case of an instruction."""
        r = self.random
        wide = bits == 64 and r.random() < 0.7
        start, size = (c.READ_ONLY, _PAGE) if name in RESTORES else (c.DATA, c.DATA_SIZE)
        place = start + self._offset(size)
        code, fixed = b"", [(RSI, place)]
        # whose end comes first depends on the layout, but for x87, SSE and AVX
        within = 0xFFFFFFFF if place + SIZE <= start + size else 7
        offset = place - c.READ_ONLY
        if name not in RESTORES:
            code = b"\xfc\xf3" + b"\x48" * (bits == 64) + b"\xab"  # CLD; REP STOS
            fixed += [(RDI, c.DATA), (RCX, c.DATA_SIZE * 8 // bits)]
            if r.random() < 0.8:
                offset = 64 * r.randrange((_PAGE - SIZE) // 64)
                code += self._restored(bits, offset)
        code += self._mask(within) + instruction(name, wide)
        return self._area(name, bits, code, fixed, place, offset)

    def _offset(self, end: int) -> int:
        """Where an area lies in pages of that size: mostly whole in them."""
        r = self.random
        kind = r.random()
        if kind < 0.8:
            return 64 * r.randrange((end - SIZE) // 64)
        if kind < 0.9:
            return 64 * r.randrange(end // 64 + 1)
        return r.randrange(end)

    def _mask(self, within: int = 0xFFFFFFFF) -> bytes:
        """MOV EAX and MOV EDX of the components that are asked for."""
        r = self.random
        low = r.choice((COMPONENTS, 0xFFFFFFFF, 7, 3, r.getrandbits(8), r.getrandbits(8), r.getrandbits(32)))
        high = r.choice((0, 0xFFFFFFFF, r.getrandbits(32)))
        return (
            b"\xb8"
            + struct.pack("<I", low & within & ~(COMPONENTS ^ self.components))
            + b"\xba"
            + struct.pack("<I", high)
        )

    def _image(self, offset: int) -> bytes:
        """The read-only page with an area in it that XRSTOR can mostly take."""
        r = self.random
        page = bytearray(b"".join(r.choice(self.generator.lanes) for _ in range(_PAGE // 64)))
        mxcsr = r.getrandbits(16)
        if r.random() < 0.08:
            mxcsr |= 1 << r.choice((16, 18, 20, 31))
        every = self.components
        header = [r.choice((every, 0, r.getrandbits(8) & every, r.getrandbits(8) & every)), *[0] * 7]
        if r.random() < 0.5:
            header[1] = COMPACTED | header[0] | r.choice((every, 0, r.getrandbits(8) & every))
        if r.random() < 0.1:
            header[r.randrange(8)] ^= 1 << r.randrange(64)
        for at, data in ((24, struct.pack("<I", mxcsr)), (HEADER, struct.pack("<8Q", *header))):
            if 0 <= offset + at <= _PAGE - len(data):
                page[offset + at : offset + at + len(data)] = data
        return bytes(page)


__all__ = ["OPCODES", "OURS", "RESTORES", "Area", "Areas", "Layout", "form_of", "rearranged"]
