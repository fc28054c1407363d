"""Transcendental functions and constants in integer fixed point, far more precise than what is rounded from them.

All values are Python integers scaled by ``2**FRACTION_BITS``; nothing here knows floating-point formats.
"""

from functools import cache
from math import isqrt

# Extended precision needs 64 bits of a result, whose leading bit may stand 100 places below 1 (what is smaller is taken
# as linear by the callers). The rest is margin: hard-to-round cases lie within about 2**-130 of a rounding boundary.
FRACTION_BITS = 320
ONE = 1 << FRACTION_BITS


def multiply(a: int, b: int) -> int:
    return a * b >> FRACTION_BITS


def divide(a: int, b: int) -> int:
    return (a << FRACTION_BITS) // b


def _inverse_arctangent(n: int) -> int:
    """arctan(1 / n) for an integer n > 1."""
    power = total = ONE // n
    divisor, sign = 1, 1
    while power:
        power //= n * n
        divisor += 2
        sign = -sign
        total += sign * (power // divisor)
    return total


@cache
def pi() -> int:
    """Machin: pi = 16 arctan(1/5) - 4 arctan(1/239)."""
    return 16 * _inverse_arctangent(5) - 4 * _inverse_arctangent(239)


@cache
def ln2() -> int:
    return logarithm_of_ratio(2, 1)


@cache
def ln10() -> int:
    return 3 * ln2() + logarithm_of_ratio(5, 4)


def logarithm_of_ratio(numerator: int, denominator: int) -> int:
    """ln(numerator / denominator) for a ratio not far from 1: twice the artanh of their relative difference."""
    z = divide(numerator - denominator, numerator + denominator)
    square = multiply(z, z)
    power, total, divisor = z, z, 1
    while power not in (0, -1):
        power = multiply(power, square)
        divisor += 2
        total += power // divisor
    return 2 * total


def exponential_ratio(t: int) -> int:
    """(e**t - 1) / t for |t| < 1; 1 for t = 0."""
    term = total = ONE
    n = 1
    while term not in (0, -1):
        n += 1
        term = multiply(term, t) // n
        total += term
    return total


def sine_ratio(square: int) -> int:
    """sin(r) / r from r**2."""
    return _alternating(square, 2)


def cosine(square: int) -> int:
    """cos(r) from r**2."""
    return _alternating(square, 1)


def _alternating(square: int, n: int) -> int:
    """1 - s/(n(n+1)) + s**2/(n(n+1)(n+2)(n+3)) - ..."""
    term = total = ONE
    while term not in (0, -1):
        term = -multiply(term, square) // (n * (n + 1))
        total += term
        n += 2
    return total


def arctangent(q: int) -> int:
    """arctan(q) for 0 <= q <= 1, by halving the angle twice and the series of what is left."""
    for _ in range(2):
        q = divide(q, ONE + _square_root(ONE + multiply(q, q)))
    square = multiply(q, q)
    power, total, divisor = q, q, 1
    while power not in (0, -1):
        power = -multiply(power, square)
        divisor += 2
        total += power // divisor
    return 4 * total


def _square_root(a: int) -> int:
    return isqrt(a << FRACTION_BITS)
