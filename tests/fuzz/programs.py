"""Random programs: bytes that are nothing in particular, instructions of the table one after another, and both mixed.

A Writer draws from a pool of instructions that is made anew now and then, so that a program costs microseconds. Not
here: the state that they start from (target.py).
"""

from __future__ import annotations

import random

from pyemu.cpu.ops import Form
from tests.cpu.semantics.machines import forms
from tests.differential.encoder import NotEncodable
from tests.differential.generator import Generator

POOL = 1500
# What moves between modes and rings, or touches devices and tables: rare in the pool, so added by hand.
_SYSTEM = (
    "0f20c0 0f22c0 0f22d8 0f22e0 0f23f8 0f21f0 440f22c0 0f30 0f32 0fa2 0f31 0f01f8 0f05 0f07 480f07 0f34 0f35 "
    "480f35 cf 48cf 66cf cb 48cb cd03 cd20 cd80 cc f1 ce f4 fa fb 9d 9c ec ed ee ef e460 e670 e6b2 e4cf e6cf 6c "
    "6d 6e 6f f36c f36d f36e f3aa f348ab f3a4 f348a5 0f01d8 0f01d1 0f01d0 0fae38 0fc720 0fae20 0fae28 0fae00 "
    "0fae08 0f0138 660f388200 0f0010 0f0018 0f0110 0f0118 8ed8 8ed0 8ee0 8ee8 0fb200 ff28 ff18 ea000000000800 "
    "9a000000000800 0f09 0f08 0f06 0f01f0 0f01ca 0f01cb f30faee0 f30faed8 0f02c0 0f03c0 0f00e0 63c0 c8000001 "
    "c8ffffff 0fb9 0fff 0f0b d9f6 dd20 dd30 d920 d930 dbe3 9b 0f77 c9 61 60 e2fe ebfe e3f0 f390 0f0100 0f0108 "
    "0f0120 0f01e0 0f000f 1f 17 07 0fa1 0fa9 a0 48a1"
).split()
SYSTEM = tuple(bytes.fromhex(text) for text in _SYSTEM)


class Writer:
    """Programs for one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.generator = Generator(seed)
        self.pools: dict[int, list[bytes]] = {}

    def renew(self) -> None:
        """Make new pools of instructions."""
        table: list[Form] = list(forms())
        for bits in (64, 32):
            pool: list[bytes] = []
            while len(pool) < POOL:
                try:
                    pool.append(self.generator.instruction(self.random.choice(table), bits, 0x6000).code)
                except NotEncodable:
                    continue
            self.pools[bits] = pool

    def program(self, bits: int, length: int) -> bytes:
        """At least `length` bytes."""
        r = self.random
        kind = r.random()
        if kind < 0.2:
            return r.randbytes(length)
        pool = self.pools[64 if bits == 64 else 32]
        parts: list[bytes] = []
        size = 0
        while size < length:
            # a few at a time, one of them spoilt or replaced
            some = r.choices(pool, k=4)
            pick = r.random()
            if pick < 0.48:
                some[0] = r.choice(SYSTEM)
            elif pick < 0.68:
                some[0] = r.randbytes(r.randrange(1, 5))
            elif pick < 0.88:
                part = some[0]
                at = r.randrange(len(part))
                some[0] = part[:at] + bytes([part[at] ^ 1 << r.randrange(8)]) + part[at + 1 :]
            if pick < 0.44:
                some[0], some[2] = some[2], some[0]
            parts += some
            size += sum(map(len, some))
        return b"".join(parts)
