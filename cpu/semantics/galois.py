"""Arithmetic in GF(2^8) and on bits of bytes, in terms of values: what AES, GFNI and PCLMULQDQ share. No rows.

    planes(x), bytes_of(planes)   a vector of bytes as its eight bit planes and back
    linear(matrix, planes)        a linear map of every byte
    inverse(planes)               the multiplicative inverse of every byte; 0 for 0
    multiply(a, b)                the product of every byte with the byte beside it
    affine(x, matrix)             a linear map whose matrix is data
    carryless(i, a, b)            the product of two polynomials of 64 bits, 128 bits wide

Functions of one argument list take and give lanes of 64 bits, to be used in Builder.map: eight bytes at a time, where
bit k of every byte stands in plane k at bit 0 of that byte. There are no tables: guests' keys must not show in the time
that a step takes. The field is AES's, x^8 + x^4 + x^3 + x + 1 (FIPS 197, 4.2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pyemu.cpu.values import Builder, Value

POLYNOMIAL = 0x11B
LOW_BITS = 0x0101010101010101
Matrix = Sequence[int]  # row k: the bits of the input whose sum is bit k of the output
Planes = list[Value]


# ---- numbers, at import ---------------------------------------------------------------------------------------
def times(a: int, b: int, modulus: int = POLYNOMIAL, degree: int = 8) -> int:
    """The product of two field elements."""
    product = 0
    for k in range(degree):
        if b >> k & 1:
            product ^= a << k
    for k in reversed(range(degree, 2 * degree - 1)):
        if product >> k & 1:
            product ^= modulus << (k - degree)
    return product


def matrix_of(function: Callable[[int], int]) -> Matrix:
    """The matrix of a linear map of bytes."""
    columns = [function(1 << k) for k in range(8)]
    return [sum((columns[k] >> row & 1) << k for k in range(8)) for row in range(8)]


def _power(a: int, exponent: int) -> int:
    result = 1
    for _ in range(exponent):
        result = times(result, a)
    return result


# The field as pairs over GF(16): a byte is high * y + low, where y^2 = y + E and GF(16) is modulo x^4 + x + 1.
# W is the element of GF(2^8) that x becomes, of order 15; Y solves the equation for y.
_MODULUS16 = 0x13
_W = next(w for w in range(2, 256) if _power(w, 4) ^ w ^ 1 == 0)
_POWERS = [_power(_W, k) for k in range(4)]


def _embed(nibble: int) -> int:
    value = 0
    for k in range(4):
        value ^= _POWERS[k] if nibble >> k & 1 else 0
    return value


_NIBBLES = {_embed(n): n for n in range(16)}
_Y = next(y for y in range(256) if y not in _NIBBLES and times(y, y) ^ y in _NIBBLES)
_E = _NIBBLES[times(_Y, _Y) ^ _Y]
FROM_PAIRS = matrix_of(lambda pair: times(_embed(pair >> 4), _Y) ^ _embed(pair & 15))
_TO = {times(_embed(pair >> 4), _Y) ^ _embed(pair & 15): pair for pair in range(256)}
TO_PAIRS = matrix_of(lambda byte: _TO[byte])


def compose(outer: Matrix, inner: Matrix) -> Matrix:
    """The matrix of doing `inner`, then `outer`."""
    rows = []
    for row in outer:
        total = 0
        for k in range(8):
            total ^= inner[k] if row >> k & 1 else 0
        rows.append(total)
    return rows


# ---- values ---------------------------------------------------------------------------------------------------
def planes(x: Value) -> Planes:
    """The bit planes of a lane of eight bytes."""
    return [(x >> k if k else x) & LOW_BITS for k in range(8)]


def bytes_of(bits: Planes) -> Value:
    """The lane that the planes are those of."""
    whole = bits[0]
    for k in range(1, 8):
        whole = whole | (bits[k] << k)
    return whole


def _total(terms: list[Value]) -> Value:
    total = terms[0]
    for term in terms[1:]:
        total = total ^ term
    return total


def linear(matrix: Matrix, bits: Planes, constant: int = 0) -> Planes:
    """matrix * bits + constant."""
    rows = [_total([bits[k] for k in range(8) if row >> k & 1]) for row in matrix]
    return [row ^ LOW_BITS if constant >> k & 1 else row for k, row in enumerate(rows)]


def _reduce(coefficients: list[list[Value]], modulus: int, degree: int) -> Planes:
    """The sums of each degree, of which the high ones are folded into the low ones."""
    for high in reversed(range(degree, 2 * degree - 1)):
        total = _total(coefficients[high])
        for k in range(degree):
            if modulus >> k & 1:
                coefficients[high - degree + k].append(total)
    return [_total(terms) for terms in coefficients[:degree]]


def product(a: Planes, b: Planes, modulus: int) -> Planes:
    """The product in the field that has as many bits as there are planes."""
    degree = len(a)
    coefficients: list[list[Value]] = [[] for _ in range(2 * degree - 1)]
    for j in range(degree):
        for k in range(degree):
            coefficients[j + k].append(a[j] & b[k])
    return _reduce(coefficients, modulus, degree)


def _linear16(function: Callable[[int], int], bits: Planes) -> Planes:
    columns = [function(1 << k) for k in range(4)]
    return [_total([bits[k] for k in range(4) if columns[k] >> row & 1]) for row in range(4)]


def _inverse16(a: Planes) -> Planes:
    """The inverse in GF(16): a^14 = a^2 * a^4 * a^8, whose factors but the multiplications are linear."""

    def squared(n: int) -> int:
        return times(n, n, _MODULUS16, 4)

    second = _linear16(squared, a)
    fourth = _linear16(squared, second)
    eighth = _linear16(squared, fourth)
    return product(product(second, fourth, _MODULUS16), eighth, _MODULUS16)


def inverse_of_pairs(pair: Planes) -> Planes:
    """The inverse of high * y + low: (high * y + high + low) / (E * high^2 + high * low + low^2)."""
    low, high = pair[:4], pair[4:]
    both = [x ^ y for x, y in zip(low, high, strict=True)]
    squares = _linear16(lambda n: times(_E, times(n, n, _MODULUS16, 4), _MODULUS16, 4), high)
    mixed = product(both, low, _MODULUS16)
    divisor = _inverse16([x ^ y for x, y in zip(squares, mixed, strict=True)])
    return [*product(both, divisor, _MODULUS16), *product(high, divisor, _MODULUS16)]


def inverse(bits: Planes) -> Planes:
    """The inverse of every byte."""
    return linear(FROM_PAIRS, inverse_of_pairs(linear(TO_PAIRS, bits)))


def multiply(a: Value, b: Value) -> Value:
    """GF2P8MULB."""
    return bytes_of(product(planes(a), planes(b), POLYNOMIAL))


def affine(bits: Planes, matrix: Value, constant: Value) -> Value:
    """GF2P8AFFINEQB: bit k of every byte is the parity of the byte and byte 7 - k of the matrix, plus bit k of the
    constant (8 bits, zero-extended to the lane). Every plane is multiplied by the matrix's column."""
    rows = planes(matrix)
    result = constant * LOW_BITS
    for k in range(8):
        # gather bit k of every row: bit 7 - n of the column is bit k of byte n
        column = (rows[k] * 0x8040201008040201) >> 56
        result = result ^ (bits[k] * column)
    return result


_FIFTH = sum(1 << k for k in range(0, 128, 5))  # every fifth bit
_M64, _M128 = (1 << 64) - 1, (1 << 128) - 1


def carryless(i: Builder, a: Value, b: Value) -> Value:
    """The product without carries of two words of 64 bits. Integer products of every fifth bit have room for their
    carries: at most 13 bits meet, which stay below 16."""
    first = [(a & (_FIFTH << k & _M64)).zext(128) for k in range(5)]
    second = [(b & (_FIFTH << k & _M64)).zext(128) for k in range(5)]
    whole = i.constant(0, 128)
    for k in range(5):
        here = _total([first[j] * second[(k - j) % 5] for j in range(5)])
        whole = whole | (here & i.constant(_FIFTH << k & _M128, 128))
    return whole
