"""FNSTENV, FLDENV, FNSAVE, FRSTOR: the x87 environment in memory (mechanism; SDM 1, 8.1.10, figures 8-9 to 8-12).

An environment is seven words of 2 or 4 bytes (`size`): control, status, tags, then instruction and operand pointers,
whose layout depends on the mode. FNSAVE's ten-byte registers ST(0)-ST(7) follow. Selectors are not kept, as
CPUID.7.0:EBX[13] allows.
"""

from __future__ import annotations

from pyemu.cpu import fpu_state as fs
from pyemu.cpu import memory
from pyemu.cpu.fpu_state import BUSY, ES, EXCEPTIONS
from pyemu.cpu.mode import PROTECTED, V86
from pyemu.cpu.state import FCW, FDP, FIP, FOP, FPR, FSW, FTW, M64, MODE, VALUE, State

INITIAL_CONTROL = 0x37F
CONTROL_BIT_6 = 0x40  # always 1
CONTROL_MASK = 0x1F3F  # the bits that can be changed
WORDS = 7
REGISTER_BYTES = 10
REGISTERS = 8 * REGISTER_BYTES
UNUSED_HALF = 0xFFFF0000  # upper halves of 32-bit words that hold 16 bits
TAG_VALID, TAG_ZERO, TAG_SPECIAL, TAG_EMPTY = 0, 1, 2, 3
FOP_MASK = 0x7FF


def initialise(s: State) -> int:
    """FNINIT; the registers keep what they hold but count as empty."""
    s[FCW] = INITIAL_CONTROL
    s[FSW] = 0
    s[FTW] = 0
    s[FOP] = 0
    s[FIP] = 0
    s[FDP] = 0
    return 0


def tag_of(s: State, physical: int) -> int:
    """The two-bit tag of a physical register."""
    if (s[FTW] >> physical) & 1 == 0:
        return TAG_EMPTY
    significand = s[FPR + 2 * physical]
    exponent = s[FPR + 2 * physical + 1] & 0x7FFF
    if exponent == 0 and significand == 0:
        return TAG_ZERO
    if exponent == 0 or exponent == 0x7FFF or significand >> 63 == 0:
        return TAG_SPECIAL
    return TAG_VALID


def tag_word(s: State) -> int:
    """The full tag word."""
    word = 0
    for physical in range(8):
        word = word | tag_of(s, physical) << (2 * physical)
    return word


def abridge(word: int) -> int:
    """One bit for each register that a full tag word doesn't call empty."""
    result = 0
    for physical in range(8):
        if (word >> (2 * physical)) & 3 != TAG_EMPTY:
            result = result | 1 << physical
    return result


def put(s: State, linear: int, size: int, n: int, value: int, access: int) -> int:
    """Store the n-th word; the whole image has been probed."""
    return memory.write(s, (linear + n * size) & M64, size, value, access | memory.WRITE)


def get(s: State, linear: int, size: int, n: int, access: int) -> int:
    """The n-th word; the whole image has been probed."""
    memory.read(s, (linear + n * size) & M64, size, access)
    return s[VALUE]


def real_format(s: State) -> int:
    """1 where pointers are stored as in real mode: real and virtual-8086 mode."""
    return 1 if s[MODE] & PROTECTED == 0 or s[MODE] & V86 else 0


def put_environment(s: State, linear: int, size: int, access: int) -> int:
    """The seven words."""
    unused = UNUSED_HALF if size == 4 else 0
    put(s, linear, size, 0, s[FCW] & 0xFFFF | unused, access)
    put(s, linear, size, 1, s[FSW] & 0xFFFF | unused, access)
    put(s, linear, size, 2, tag_word(s) | unused, access)
    fip = s[FIP] & 0xFFFFFFFF
    fdp = s[FDP] & 0xFFFFFFFF
    if real_format(s):
        put(s, linear, size, 3, fip & 0xFFFF | unused, access)
        put(s, linear, size, 4, (fip >> 16) << 12 & 0xFFFFFFFF & ~0x7FF | s[FOP] & FOP_MASK, access)
        put(s, linear, size, 5, fdp & 0xFFFF | unused, access)
        put(s, linear, size, 6, (fdp >> 16) << 12 & 0xFFFFFFFF, access)
    else:
        put(s, linear, size, 3, fip, access)
        put(s, linear, size, 4, (s[FOP] & FOP_MASK) << 16 if size == 4 else 0, access)
        put(s, linear, size, 5, fdp, access)
        put(s, linear, size, 6, unused, access)
    return 0


def get_environment(s: State, linear: int, size: int, access: int) -> int:
    """The reverse."""
    s[FCW] = get(s, linear, size, 0, access) & CONTROL_MASK | CONTROL_BIT_6
    s[FSW] = get(s, linear, size, 1, access) & 0xFFFF
    s[FTW] = abridge(get(s, linear, size, 2, access))
    fip = get(s, linear, size, 3, access)
    middle = get(s, linear, size, 4, access)
    fdp = get(s, linear, size, 5, access)
    last = get(s, linear, size, 6, access)
    if real_format(s):
        fip = fip & 0xFFFF | (middle >> 12 & 0xFFFF) << 16
        fdp = fdp & 0xFFFF | (last >> 12 & 0xFFFF) << 16
        s[FOP] = middle & FOP_MASK
    else:
        s[FOP] = middle >> 16 & FOP_MASK if size == 4 else 0
    s[FIP] = fip
    s[FDP] = fdp
    return fs.summarise(s)


def fnstenv(s: State, linear: int, size: int, access: int) -> int:
    """FNSTENV: all exceptions are masked afterwards."""
    if memory.probe(s, linear, WORDS * size, access | memory.WRITE):
        return 1
    put_environment(s, linear, size, access)
    s[FCW] = s[FCW] | EXCEPTIONS
    s[FSW] = s[FSW] & ~(ES | BUSY)
    return 0


def fldenv(s: State, linear: int, size: int, access: int) -> int:
    """FLDENV."""
    if memory.probe(s, linear, WORDS * size, access):
        return 1
    return get_environment(s, linear, size, access)


def fnsave(s: State, linear: int, size: int, access: int) -> int:
    """FNSAVE, and then FNINIT."""
    if memory.probe(s, linear, WORDS * size + REGISTERS, access | memory.WRITE):
        return 1
    put_environment(s, linear, size, access)
    base = linear + WORDS * size
    for n in range(8):
        at = fs.register(s, n)
        memory.write(s, (base + REGISTER_BYTES * n) & M64, 8, s[at], access | memory.WRITE)
        memory.write(s, (base + REGISTER_BYTES * n + 8) & M64, 2, s[at + 1] & 0xFFFF, access | memory.WRITE)
    return initialise(s)


def frstor(s: State, linear: int, size: int, access: int) -> int:
    """FRSTOR."""
    if memory.probe(s, linear, WORDS * size + REGISTERS, access):
        return 1
    get_environment(s, linear, size, access)
    base = linear + WORDS * size
    for n in range(8):
        at = fs.register(s, n)
        memory.read(s, (base + REGISTER_BYTES * n) & M64, 8, access)
        s[at] = s[VALUE]
        memory.read(s, (base + REGISTER_BYTES * n + 8) & M64, 2, access)
        s[at + 1] = s[VALUE]
    return 0
