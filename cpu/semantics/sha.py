"""SHA extensions (FIPS 180-4; SDM 2). Words stand highest first in the vectors of SHA-1: A is bits 127-96. Operands in
memory need no alignment, as on AMD's processors (the SDM asks for it)."""

from __future__ import annotations

from pyemu.cpu.instruction import Instruction
from pyemu.cpu.ops import Operand, op
from pyemu.cpu.semantics.vectors import lanes, use_simd
from pyemu.cpu.state import VEC
from pyemu.cpu.values import Value

FEATURE = "sha-ni"
# FIPS 180-4, 4.2.1
_K = (0x5A827999, 0x6ED9EBA1, 0x8F1BBCDC, 0xCA62C1D6)


def _left(x: Value, by: int) -> Value:
    return (x << by) | (x >> (32 - by))


def _right(x: Value, by: int) -> Value:
    return _left(x, 32 - by)


def choose(x: Value, y: Value, z: Value) -> Value:
    """Ch (FIPS 180-4, 4.1)."""
    return (x & y) ^ (~x & z)


def majority(x: Value, y: Value, z: Value) -> Value:
    """Maj."""
    return (x & y) ^ (x & z) ^ (y & z)


# ---- SHA-1 ----------------------------------------------------------------------------------------------------
@op("NP 0F 3A CC /r", "Vdq,Wdq,Ib", feature=FEATURE)
def sha1rnds4(i: Instruction, dst: Operand, src: Operand, which: Operand) -> None:
    """Four rounds; the first word of the source has E added already."""
    use_simd(i)
    d, c, b, a = lanes(i, i.read(dst), 32)
    words = lanes(i, i.read(src), 32)
    kind = i.read(which)
    low, high = kind.bit(0), kind.bit(1)
    constant = high.select(low.select(i.const(_K[3], 32), _K[2]), low.select(i.const(_K[1], 32), _K[0]))
    e = i.const(0, 32)
    for n in range(4):
        mixed = low.select(b ^ c ^ d, high.select(majority(b, c, d), choose(b, c, d)))
        total = mixed + _left(a, 5) + words[3 - n] + e + constant
        a, b, c, d, e = total, a, _left(b, 30), c, d
    i.write(dst, i.join((d, c, b, a)))


@op("NP 0F 38 C8 /r", "Vdq,Wdq", feature=FEATURE)
def sha1nexte(i: Instruction, dst: Operand, src: Operand) -> None:
    use_simd(i)
    words = lanes(i, i.read(src), 32)
    e = _left(i.read(dst).bits(96, 32), 30)
    i.write(dst, i.join((*words[:3], words[3] + e)))


@op("NP 0F 38 C9 /r", "Vdq,Wdq", feature=FEATURE)
def sha1msg1(i: Instruction, dst: Operand, src: Operand) -> None:
    use_simd(i)
    w3, w2, w1, w0 = lanes(i, i.read(dst), 32)
    w5, w4 = lanes(i, i.read(src), 32)[2:]
    i.write(dst, i.join((w5 ^ w3, w4 ^ w2, w3 ^ w1, w2 ^ w0)))


@op("NP 0F 38 CA /r", "Vdq,Wdq", feature=FEATURE)
def sha1msg2(i: Instruction, dst: Operand, src: Operand) -> None:
    use_simd(i)
    x3, x2, x1, x0 = lanes(i, i.read(dst), 32)
    w15, w14, w13, _ = lanes(i, i.read(src), 32)
    w16 = _left(x0 ^ w13, 1)
    w17, w18, w19 = _left(x1 ^ w14, 1), _left(x2 ^ w15, 1), _left(x3 ^ w16, 1)
    i.write(dst, i.join((w19, w18, w17, w16)))


# ---- SHA-256 --------------------------------------------------------------------------------------------------
def _sum0(x: Value) -> Value:
    return _right(x, 2) ^ _right(x, 13) ^ _right(x, 22)


def _sum1(x: Value) -> Value:
    return _right(x, 6) ^ _right(x, 11) ^ _right(x, 25)


def _sigma0(x: Value) -> Value:
    return _right(x, 7) ^ _right(x, 18) ^ (x >> 3)


def _sigma1(x: Value) -> Value:
    return _right(x, 17) ^ _right(x, 19) ^ (x >> 10)


@op("NP 0F 38 CB /r", "Vdq,Wdq", feature=FEATURE)
def sha256rnds2(i: Instruction, dst: Operand, src: Operand) -> None:
    """Two rounds; XMM0 has the words with their constants added."""
    use_simd(i)
    h, g, d, c = lanes(i, i.read(dst), 32)
    f, e, b, a = lanes(i, i.read(src), 32)
    words = i.state(VEC, 64)
    for n in range(2):
        first = h + _sum1(e) + choose(e, f, g) + words.bits(32 * n, 32)
        total = first + _sum0(a) + majority(a, b, c)
        a, b, c, d, e, f, g, h = total, a, b, c, d + first, e, f, g
    i.write(dst, i.join((f, e, b, a)))


@op("NP 0F 38 CC /r", "Vdq,Wdq", feature=FEATURE)
def sha256msg1(i: Instruction, dst: Operand, src: Operand) -> None:
    use_simd(i)
    words = [*lanes(i, i.read(dst), 32), i.lane(i.read(src), 32, 0)]
    i.write(dst, i.join([words[n] + _sigma0(words[n + 1]) for n in range(4)]))


@op("NP 0F 38 CD /r", "Vdq,Wdq", feature=FEATURE)
def sha256msg2(i: Instruction, dst: Operand, src: Operand) -> None:
    use_simd(i)
    w = lanes(i, i.read(dst), 32)
    w14, w15 = lanes(i, i.read(src), 32)[2:]
    w16, w17 = w[0] + _sigma1(w14), w[1] + _sigma1(w15)
    w18, w19 = w[2] + _sigma1(w16), w[3] + _sigma1(w17)
    i.write(dst, i.join((w16, w17, w18, w19)))
