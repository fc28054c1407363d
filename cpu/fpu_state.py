"""The x87 register stack and status word: what every x87 instruction needs (mechanism, also used by Python services).

`n` is always a stack position: ST(n). Not here: the instructions (fpu_unit.py), memory images (fpu_environment.py).
"""

from __future__ import annotations

from pyemu.cpu.state import FCW, FPR, FSW, FTW, IGNNE, State

# Status word (SDM 1, 8.1.3); the exception flags are also the masks of the control word (SDM 1, 8.1.5).
IE, DE, ZE, OE, UE, PE = 1, 2, 4, 8, 16, 32
EXCEPTIONS = 0x3F
SF, ES, BUSY = 1 << 6, 1 << 7, 1 << 15
C0, C1, C2, C3 = 1 << 8, 1 << 9, 1 << 10, 1 << 14
TOP_SHIFT, TOP = 11, 7 << 11
CONDITIONS = C0 | C2 | C3

# The "real indefinite", the masked response to an invalid operation (SDM 1, table 4-1).
INDEFINITE_LOW, INDEFINITE_HIGH = 0xC000000000000000, 0xFFFF



def register(s: State, n: int) -> int:
    """Index of the first State word of ST(n)."""
    return FPR + 2 * (((s[FSW] >> TOP_SHIFT) + n) & 7)


def tag(s: State, n: int) -> int:
    """The bit of ST(n) in the abridged tag word."""
    return 1 << (((s[FSW] >> TOP_SHIFT) + n) & 7)


def empty(s: State, n: int) -> int:
    """1 if ST(n) is empty."""
    return 0 if s[FTW] & tag(s, n) else 1


def write(s: State, n: int, low: int, high: int) -> int:
    """Give ST(n) a value."""
    at = register(s, n)
    s[at] = low
    s[at + 1] = high & 0xFFFF
    s[FTW] = s[FTW] | tag(s, n)
    return 0


def write_indefinite(s: State, n: int) -> int:
    """ST(n) becomes the real indefinite."""
    return write(s, n, INDEFINITE_LOW, INDEFINITE_HIGH)


def move_top(s: State, by: int) -> int:
    """Add to TOP (7 to decrement)."""
    top = ((s[FSW] >> TOP_SHIFT) + by) & 7
    s[FSW] = (s[FSW] & ~TOP) | top << TOP_SHIFT
    return 0


def pop(s: State) -> int:
    """Drop ST(0)."""
    s[FTW] = s[FTW] & ~tag(s, 0) & 0xFF
    return move_top(s, 1)


def pop_if(s: State, count: int) -> int:
    """Drop as many."""
    for _n in range(count):
        pop(s)
    return 0


def push(s: State, low: int, high: int) -> int:
    """Push onto a stack whose ST(7) may be overwritten."""
    move_top(s, 7)
    return write(s, 0, low, high)


def summarise(s: State) -> int:
    """ES and B say whether an exception is unmasked."""
    s[FSW] = s[FSW] & ~(ES | BUSY)
    if s[FSW] & ~s[FCW] & EXCEPTIONS:
        s[FSW] = s[FSW] | ES | BUSY
    else:
        s[IGNNE] = 0  # without FERR# there is no IGNNE# (SDM 1, D.2.1.2)
    return 0


def report(s: State, flags: int) -> int:
    """Add exception flags, SF among them, and set C1 as it is in `flags`; an unmasked exception waits for the next
    instruction."""
    s[FSW] = (s[FSW] & ~C1) | flags
    if s[FSW] & ~s[FCW] & EXCEPTIONS:
        s[FSW] = s[FSW] | ES | BUSY
    return 0


def stack_fault(s: State, overflow: int) -> int:
    """Stack overflow (1) or underflow (0); nonzero if the masked response is to be given."""
    report(s, IE | SF | (C1 if overflow else 0))
    return s[FCW] & IE
