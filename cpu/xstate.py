"""The state components of XSAVE beyond x87 and SSE: AVX, opmask, both parts of ZMM, PKRU (SDM 1, 13.5). Mechanism
subset.

    size(requested, format_word)                     bytes of an area with these components
    store(s, linear, requested, format_word)         write them; the area has been probed
    load(s, linear, requested, present, format_word) read those that are present, the others get their initial values
    in_use(s, requested)                             which components, x87 and SSE among them, differ from their initial
                                                     values (XINUSE)
    xgetbv(s)                                        the instruction: ECX, EDX:EAX

A format word with bit 63 set (XCOMP_BV) means the compacted format. Not here: the instructions (fxsave.py), and which
components there are (features.py).
"""

from __future__ import annotations

from array import array

from pyemu.cpu import memory, mode
from pyemu.cpu.control_registers import M32, put_edx_eax, set_keys
from pyemu.cpu.cpuid import has_feature
from pyemu.cpu.faults import GP, UD, raise_fault
from pyemu.cpu.features import COMPONENTS, number
from pyemu.cpu.fpu_environment import INITIAL_CONTROL
from pyemu.cpu.mode import CR4_OSXSAVE
from pyemu.cpu.state import (
    CR4,
    FCS,
    FCW,
    FDP,
    FDS,
    FIP,
    FOP,
    FPR,
    FSW,
    FTW,
    GPR,
    M64,
    MODE,
    OPMASK,
    PKRU,
    RCX,
    VALUE,
    VEC,
    XCR0,
    State,
)

HEADER_END = 576  # where components begin (SDM 1, 13.4)
COMPACTED = 1 << 63
X87_STATE, SSE_STATE, AVX_STATE = 1, 2, 4
PKRU_BIT = 9
XGETBV1 = number("xgetbv1")

# The words of State that hold each component, in the order of the area.
_WORDS = {
    2: [VEC + 8 * n + word for n in range(16) for word in (2, 3)],
    5: [OPMASK + n for n in range(8)],
    6: [VEC + 8 * n + word for n in range(16) for word in (4, 5, 6, 7)],
    7: [VEC + 8 * n + word for n in range(16, 32) for word in range(8)],
    9: [PKRU],
}
_HERE = [c for c in COMPONENTS if c.bit in _WORDS]
COUNT = len(_HERE)
BIT = array("B", [c.bit for c in _HERE])
OFFSET = array("H", [c.offset for c in _HERE])
SIZE = array("H", [c.size for c in _HERE])
# Words that 32-bit code reaches: of eight registers, none of the upper sixteen (SDM 1, 13.5.2 and 13.5.5)
LEGACY_WORDS = array("H", [{2: 16, 5: 8, 6: 32, 7: 0, 9: 1}[c.bit] for c in _HERE])
WORDS = array("H", [word for c in _HERE for word in _WORDS[c.bit]])
FIRST = array("H", [sum(len(_WORDS[c.bit]) for c in _HERE[:k]) for k in range(COUNT)])
ALL = sum(1 << c.bit for c in _HERE)


def place(k: int, format_word: int) -> int:
    """Offset of a component in the area."""
    if format_word & COMPACTED == 0:
        return OFFSET[k]
    at = HEADER_END
    for n in range(k):
        if (format_word >> BIT[n]) & 1:
            at = at + SIZE[n]
    return at


def size(requested: int, format_word: int) -> int:
    """Bytes from the start of the area to the end of the last component."""
    end = HEADER_END
    for k in range(COUNT):
        if (requested >> BIT[k]) & 1:
            end = place(k, format_word) + SIZE[k]
    return end


def reached(s: State, k: int) -> int:
    """Words of a component that the present mode reaches."""
    return SIZE[k] >> 3 if s[MODE] & mode.CODE64 else LEGACY_WORDS[k]


def x87_in_use(s: State) -> int:
    """X87_STATE, or 0 if it has its initial configuration (SDM 1, 13.6)."""
    changed = (s[FCW] ^ INITIAL_CONTROL) | s[FSW] | s[FTW] | s[FOP] | s[FIP] | s[FCS] | s[FDP] | s[FDS]
    for n in range(16):
        changed = changed | s[FPR + n]
    return X87_STATE if changed else 0


def sse_in_use(s: State) -> int:
    """SSE_STATE, or 0 if the XMM registers have their initial values; MXCSR doesn't count."""
    changed = 0
    for n in range(16):
        changed = changed | s[VEC + 8 * n] | s[VEC + 8 * n + 1]
    return SSE_STATE if changed else 0


def in_use(s: State, requested: int) -> int:
    """The requested components that don't have their initial values, also where the present mode doesn't reach (SDM 1,
    13.6)."""
    found = requested & (x87_in_use(s) | sse_in_use(s))
    for k in range(COUNT):
        if (requested >> BIT[k]) & 1:
            for n in range(SIZE[k] >> 3):
                if s[WORDS[FIRST[k] + n]] != 0:
                    found = found | 1 << BIT[k]
                    break
    return found


def xgetbv(s: State) -> int:
    """EDX:EAX = XCR[ECX]; XCR1 is XCR0 & XINUSE, where there is one."""
    if s[CR4] & CR4_OSXSAVE == 0:
        return raise_fault(s, UD, 0)
    index = s[GPR + RCX] & M32
    if index > has_feature(s, XGETBV1):
        return raise_fault(s, GP, 0)
    return put_edx_eax(s, in_use(s, s[XCR0]) if index else s[XCR0])


def store(s: State, linear: int, requested: int, format_word: int) -> int:
    """Write components."""
    for k in range(COUNT):
        if (requested >> BIT[k]) & 1:
            at = linear + place(k, format_word)
            for n in range(reached(s, k)):
                memory.write(s, (at + 8 * n) & M64, 8, s[WORDS[FIRST[k] + n]], memory.WRITE)
    return 0


def load(s: State, linear: int, requested: int, present: int, format_word: int) -> int:
    """Read components."""
    for k in range(COUNT):
        if (requested >> BIT[k]) & 1:
            at = linear + place(k, format_word)
            for n in range(reached(s, k)):
                s[VALUE] = 0
                if (present >> BIT[k]) & 1:
                    memory.read(s, (at + 8 * n) & M64, 8, memory.READ)
                if BIT[k] == PKRU_BIT:
                    set_keys(s, PKRU, s[VALUE] & 0xFFFFFFFF, mode.CR4_PKE)
                else:
                    s[WORDS[FIRST[k] + n]] = s[VALUE]
    return 0
