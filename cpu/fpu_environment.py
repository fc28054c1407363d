"""FNSTENV, FLDENV, FNSAVE, FRSTOR: the x87 environment in memory (mechanism; SDM 1, 8.1.10, figures 8-9 to 8-12).

An environment is seven words of 2 or 4 bytes (`size`): control, status, tags, then instruction and operand pointers,
whose layout depends on the mode. FNSAVE's ten-byte registers ST(0)-ST(7) follow.
"""

from __future__ import annotations

from pyemu.cpu import fpu_state as fs
from pyemu.cpu import memory
from pyemu.cpu.fpu_state import BUSY, ES, EXCEPTIONS
from pyemu.cpu.mode import PROTECTED, V86
from pyemu.cpu.state import FCS, FCW, FDP, FDS, FIP, FOP, FPR, FSW, FTW, IGNNE, M64, MODE, VALUE, State

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
    s[IGNNE] = 0
    return set_pointers(s, 0, 0, 0, 0, 0)


def set_pointers(s: State, fop: int, fip: int, fcs: int, fdp: int, fds: int) -> int:
    """Where the last instruction and its operand are."""
    s[FOP] = fop & FOP_MASK
    s[FIP] = fip
    s[FCS] = fcs & 0xFFFF
    s[FDP] = fdp
    s[FDS] = fds & 0xFFFF
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
    fip = s[FIP]
    fdp = s[FDP]
    if real_format(s):  # linear addresses of 32 bits; the format with 2 bytes holds 20
        fip = fip + (s[FCS] << 4)
        fdp = fdp + (s[FDS] << 4)
        put(s, linear, size, 3, fip & 0xFFFF | unused, access)
        put(s, linear, size, 4, (fip >> 4) & 0xFFFF000 | s[FOP], access)
        put(s, linear, size, 5, fdp & 0xFFFF | unused, access)
        put(s, linear, size, 6, (fdp >> 4) & 0xFFFF000, access)
    else:
        put(s, linear, size, 3, fip & 0xFFFFFFFF, access)
        put(s, linear, size, 4, s[FOP] << 16 | s[FCS] if size == 4 else s[FCS], access)
        put(s, linear, size, 5, fdp & 0xFFFFFFFF, access)
        put(s, linear, size, 6, s[FDS] | unused, access)
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
        fip = fip & 0xFFFF | (middle & 0xFFFF000) << 4
        fdp = fdp & 0xFFFF | (last & 0xFFFF000) << 4
        set_pointers(s, middle, fip, 0, fdp, 0)
    else:
        set_pointers(s, middle >> 16, fip, middle, fdp, last)
    return fs.summarise(s)


def probe(s: State, linear: int, size: int, more: int, access: int) -> int:
    """May the image be accessed? Its first word decides, and then its last byte, as on Zen 4."""
    if memory.probe_aligned(s, linear, size, size, access):
        return 1
    return memory.probe(s, (linear + WORDS * size + more - 1) & M64, 1, access)


def fnstenv(s: State, linear: int, size: int, access: int) -> int:
    """FNSTENV: all exceptions are masked afterwards."""
    if probe(s, linear, size, 0, access | memory.WRITE):
        return 1
    put_environment(s, linear, size, access)
    s[FCW] = s[FCW] | EXCEPTIONS
    s[FSW] = s[FSW] & ~(ES | BUSY)
    return 0


def fldenv(s: State, linear: int, size: int, access: int) -> int:
    """FLDENV."""
    if probe(s, linear, size, 0, access):
        return 1
    return get_environment(s, linear, size, access)


def fnsave(s: State, linear: int, size: int, access: int) -> int:
    """FNSAVE, and then FNINIT."""
    if probe(s, linear, size, REGISTERS, access | memory.WRITE):
        return 1
    put_environment(s, linear, size, access)
    base = linear + WORDS * size
    access |= memory.WRITE | memory.ANY_ALIGNMENT
    for n in range(8):
        at = fs.register(s, n)
        memory.write(s, (base + REGISTER_BYTES * n) & M64, 8, s[at], access)
        memory.write(s, (base + REGISTER_BYTES * n + 8) & M64, 2, s[at + 1] & 0xFFFF, access)
    return initialise(s)


def frstor(s: State, linear: int, size: int, access: int) -> int:
    """FRSTOR."""
    if probe(s, linear, size, REGISTERS, access):
        return 1
    get_environment(s, linear, size, access)
    base = linear + WORDS * size
    for n in range(8):
        at = fs.register(s, n)
        memory.read(s, (base + REGISTER_BYTES * n) & M64, 8, access | memory.ANY_ALIGNMENT)
        s[at] = s[VALUE]
        memory.read(s, (base + REGISTER_BYTES * n + 8) & M64, 2, access | memory.ANY_ALIGNMENT)
        s[at + 1] = s[VALUE]
    return 0
