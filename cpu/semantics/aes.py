"""AES-NI and VAES (FIPS 197; SDM 2). The steps of a round are functions of values of 128 bits.

The S-box is computed, not looked up: inversion and an affine map on bit planes (galois.py).
"""

from __future__ import annotations

from collections.abc import Callable

from pyemu.cpu.instruction import Instruction
from pyemu.cpu.ops import Operand
from pyemu.cpu.semantics import galois
from pyemu.cpu.semantics.rows import Evex, simd
from pyemu.cpu.semantics.sse import vector
from pyemu.cpu.semantics.vectors import in_lanes, lanes, source, use_simd
from pyemu.cpu.values import Value


def _turned(byte: int, by: int) -> int:
    return (byte << by | byte >> (8 - by)) & 0xFF


# FIPS 197, 5.1.1 and 5.3.2: the affine map after the inversion, and its inverse
_AFFINE = galois.matrix_of(lambda b: b ^ _turned(b, 1) ^ _turned(b, 2) ^ _turned(b, 3) ^ _turned(b, 4))
_UNDONE = galois.matrix_of(lambda b: _turned(b, 1) ^ _turned(b, 3) ^ _turned(b, 6))
_SBOX_CONSTANT, _UNDONE_CONSTANT = 0x63, 0x05
_OUT = galois.compose(_AFFINE, galois.FROM_PAIRS)
_IN = galois.compose(galois.TO_PAIRS, _UNDONE)
_IN_CONSTANT = sum((row & _UNDONE_CONSTANT).bit_count() % 2 << k for k, row in enumerate(galois.TO_PAIRS))


def _sub(x: Value) -> Value:
    pairs = galois.linear(galois.TO_PAIRS, galois.planes(x))
    return galois.bytes_of(galois.linear(_OUT, galois.inverse_of_pairs(pairs), _SBOX_CONSTANT))


def _inverse_sub(x: Value) -> Value:
    pairs = galois.linear(_IN, galois.planes(x), _IN_CONSTANT)
    return galois.bytes_of(galois.linear(galois.FROM_PAIRS, galois.inverse_of_pairs(pairs)))


def sub_bytes(i: Instruction, x: Value) -> Value:
    """SubBytes of whole lanes of 64 bits."""
    return i.map(64, _sub, x)


def inverse_sub_bytes(i: Instruction, x: Value) -> Value:
    return i.map(64, _inverse_sub, x)


def shift_rows(i: Instruction, x: Value, direction: int = 1) -> Value:
    """ShiftRows, or with direction -1 InvShiftRows: byte 4 * column + row."""
    rows = lanes(i, x, 8)
    return i.join([rows[4 * ((n // 4 + direction * (n % 4)) % 4) + n % 4] for n in range(16)])


def _doubled(x: Value) -> Value:
    """Every byte times 2."""
    return ((x << 1) & 0xFEFEFEFE) ^ (((x >> 7) & 0x01010101) * (galois.POLYNOMIAL & 0xFF))


def _rotated(x: Value, by: int) -> Value:
    return (x >> by) | (x << (32 - by))


def _mix(x: Value) -> Value:
    """2, 3, 1, 1 times the bytes from each one on."""
    following = _rotated(x, 8)
    return _doubled(x ^ following) ^ following ^ _rotated(x, 16) ^ _rotated(x, 24)


def _inverse_mix(x: Value) -> Value:
    """14, 11, 13, 9: the columns of MixColumns after 5, 0, 4, 0."""
    return _mix(x ^ _doubled(_doubled(x ^ _rotated(x, 16))))


def mix_columns(i: Instruction, x: Value) -> Value:
    return i.map(32, _mix, x)


def inverse_mix_columns(i: Instruction, x: Value) -> Value:
    return i.map(32, _inverse_mix, x)


# ---- rounds ---------------------------------------------------------------------------------------------------
def encrypt(i: Instruction, state: Value, key: Value) -> Value:
    return mix_columns(i, sub_bytes(i, shift_rows(i, state))) ^ key


def encrypt_last(i: Instruction, state: Value, key: Value) -> Value:
    return sub_bytes(i, shift_rows(i, state)) ^ key


def decrypt(i: Instruction, state: Value, key: Value) -> Value:
    return inverse_mix_columns(i, inverse_sub_bytes(i, shift_rows(i, state, -1))) ^ key


def decrypt_last(i: Instruction, state: Value, key: Value) -> Value:
    return inverse_sub_bytes(i, shift_rows(i, state, -1)) ^ key


_ROUNDS: tuple[tuple[int, str, Callable[[Instruction, Value, Value], Value]], ...] = (
    (0xDC, "aesenc", encrypt),
    (0xDD, "aesenclast", encrypt_last),
    (0xDE, "aesdec", decrypt),
    (0xDF, "aesdeclast", decrypt_last),
)
for _opcode, _name, _function in _ROUNDS:
    simd(
        f"66 0F 38 {_opcode:02X} /r", "Vx,Hx,Wx", _name, sse="aes", avx="avx aes", avx256="vaes", evex=Evex("vaes"),
        extra=(in_lanes(_function),),
    )(vector)  # fmt: skip


def aesimc(i: Instruction, dst: Operand, src: Operand) -> None:
    use_simd(i)
    i.write(dst, inverse_mix_columns(i, source(i, src)))


def aeskeygenassist(i: Instruction, dst: Operand, src: Operand, constant: Operand) -> None:
    """SubWord of words 1 and 3, and that with RotWord and the round constant."""
    use_simd(i)
    words = lanes(i, sub_bytes(i, source(i, src)), 32)
    rcon = i.read(constant).zext(32)
    i.write(dst, i.join([words[1], _rotated(words[1], 8) ^ rcon, words[3], _rotated(words[3], 8) ^ rcon]))


simd("66 0F 38 DB /r", "Vdq,Wdq", "aesimc", sse="aes", avx="avx aes", lengths="128")(aesimc)
simd("66 0F 3A DF /r", "Vdq,Wdq,Ib", "aeskeygenassist", sse="aes", avx="avx aes", lengths="128")(aeskeygenassist)
