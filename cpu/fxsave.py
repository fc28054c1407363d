"""FXSAVE, FXRSTOR, XSAVE, XSAVEOPT, XSAVEC, XSAVES, XRSTOR and XRSTORS of the x87 and SSE state (mechanism).

    fxsave(s, linear, rex_w)   fxrstor(s, linear, rex_w)
    xsave(s, linear, rex_w)    xsaveopt   xsavec   xsaves   xrstor   xrstors     the mask is EDX:EAX

`linear` is the checked linear address of the area (512 bytes, for XSAVE forms 576), `rex_w` nonzero for the 64-bit
forms.
They raise #UD, #NM, #GP (alignment, reserved bits) and memory faults themselves and then return nonzero.
"""

from __future__ import annotations

from pyemu.cpu import memory, mode, xstate
from pyemu.cpu.control_registers import get_edx_eax, privileged
from pyemu.cpu.faults import AC, GP, NM, SS, UD, raise_fault
from pyemu.cpu.fpu_environment import CONTROL_BIT_6, CONTROL_MASK, initialise, set_pointers
from pyemu.cpu.fpu_state import ES, summarise
from pyemu.cpu.mode import CR0_EM, CR0_TS, CR4_OSXSAVE
from pyemu.cpu.primitives import sext
from pyemu.cpu.state import (
    CR0,
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
    M64,
    MMU,
    MODE,
    MXCSR,
    VALUE,
    VEC,
    XCR0,
    State,
)
from pyemu.cpu.tlb import USER_ALIGNED
from pyemu.cpu.xstate import AVX_STATE, COMPACTED, HEADER_END, SSE_STATE, X87_STATE

# The legacy area (SDM 1, 10.5.1 and 13.4.1)
AT_FCW, AT_FSW, AT_FTW, AT_FOP, AT_FIP, AT_FDP = 0, 2, 4, 6, 8, 16
AT_MXCSR, AT_ST, AT_XMM = 24, 32, 160
LEGACY_SIZE = 512
ACCESS_AT = 8  # in `how` of FXSAVE and FXRSTOR
# The XSAVE header (SDM 1, 13.4.2)
AT_XSTATE_BV, AT_XCOMP_BV = 512, 520
HEADER_SIZE = 64
STANDARD_RESERVED_END = 536  # the standard form of XRSTOR checks bytes 8-23 of the header only

MXCSR_MASK = 0xFFFF  # DAZ is there
MXCSR_INITIAL = 0x1F80
TOP_SHIFT = 11  # of TOP in FSW
POINTER_BITS = 57  # of FIP and FDP that a processor with LA57 keeps


def available(s: State, linear: int, access: int) -> int:
    """FXSAVE and FXRSTOR: #NM; then a misaligned area, which is #AC where alignment is checked if not even its words
    are aligned, else #GP; that it isn't canonical is worse (SDM 2, FXSAVE leaves the order open: it is Zen 4's)."""
    if s[CR0] & (CR0_EM | CR0_TS):
        return raise_fault(s, NM, 0)
    if linear & 15 == 0:
        return 0
    if mode.is_canonical(s, linear) and mode.is_canonical(s, (linear + LEGACY_SIZE - 1) & M64):
        return raise_fault(s, AC if linear & 3 and s[MMU] == USER_ALIGNED else GP, 0)
    return raise_fault(s, SS if access & memory.STACK else GP, 0)


def xsave_available(s: State, linear: int) -> int:
    """The XSAVE forms: #UD, #NM, #GP."""
    if s[CR4] & CR4_OSXSAVE == 0:
        return raise_fault(s, UD, 0)
    if s[CR0] & CR0_TS:
        return raise_fault(s, NM, 0)
    if linear & 63:
        return raise_fault(s, GP, 0)
    return 0


def kernel_only(s: State) -> int:
    """What XSAVES and XRSTORS check before their operand: #UD, #GP."""
    if s[CR4] & CR4_OSXSAVE == 0:
        return raise_fault(s, UD, 0)
    return privileged(s)


def probe_written(s: State, linear: int, size: int) -> int:
    """Probe the area of an XSAVE form: its first byte, then as probe_area(), which is Zen 4's order."""
    return memory.probe(s, linear, 1, memory.WRITE) or memory.probe_area(s, linear, size, memory.WRITE)


def put(s: State, address: int, size: int, value: int) -> int:
    """Store into the area, which has been probed."""
    return memory.write(s, address & M64, size, value, memory.WRITE)


def get(s: State, address: int, size: int) -> int:
    """Load from the area, which has been probed, into VALUE."""
    return memory.read(s, address & M64, size, memory.READ)


def xmm_count(s: State) -> int:
    """XMM registers that the present mode reaches."""
    return 16 if s[MODE] & mode.CODE64 else 8


def store_x87(s: State, linear: int, rex_w: int) -> int:
    """The x87 part; registers in stack order, tags in physical order."""
    put(s, linear + AT_FCW, 2, s[FCW])
    put(s, linear + AT_FSW, 2, s[FSW])
    put(s, linear + AT_FTW, 2, s[FTW] & 0xFF)
    fop = 0
    fip = 0
    fdp = 0
    if s[FSW] & ES:  # AMD's processors tell where only about a pending exception (APM 5, FXSAVE)
        fop = s[FOP]
        fip = s[FIP] if rex_w else s[FIP] & 0xFFFFFFFF | s[FCS] << 32
        fdp = s[FDP] if rex_w else s[FDP] & 0xFFFFFFFF | s[FDS] << 32
    put(s, linear + AT_FOP, 2, fop)
    put(s, linear + AT_FIP, 8, fip)
    put(s, linear + AT_FDP, 8, fdp)
    top = s[FSW] >> TOP_SHIFT & 7
    for n in range(8):
        register = FPR + 2 * ((top + n) & 7)
        put(s, linear + AT_ST + 16 * n, 8, s[register])
        put(s, linear + AT_ST + 16 * n + 8, 8, s[register + 1] & 0xFFFF)
    return 0


def load_x87(s: State, linear: int, rex_w: int) -> int:
    """The reverse of store_x87."""
    get(s, linear + AT_FCW, 8)
    head = s[VALUE]
    s[FCW] = head & CONTROL_MASK | CONTROL_BIT_6
    s[FSW] = head >> 16 & 0xFFFF
    s[FTW] = head >> 32 & 0xFF
    get(s, linear + AT_FIP, 8)
    fip = s[VALUE]
    get(s, linear + AT_FDP, 8)
    fdp = s[VALUE]
    if rex_w:
        set_pointers(s, head >> 48, sext(fip, POINTER_BITS), 0, sext(fdp, POINTER_BITS), 0)
    else:
        set_pointers(s, head >> 48, fip & 0xFFFFFFFF, fip >> 32, fdp & 0xFFFFFFFF, fdp >> 32)
    summarise(s)
    top = s[FSW] >> TOP_SHIFT & 7
    for n in range(8):
        register = FPR + 2 * ((top + n) & 7)
        get(s, linear + AT_ST + 16 * n, 8)
        s[register] = s[VALUE]
        get(s, linear + AT_ST + 16 * n + 8, 2)
        s[register + 1] = s[VALUE]
    return 0


def initial_x87(s: State) -> int:
    """As FNINIT, with registers cleared."""
    initialise(s)
    for n in range(16):
        s[FPR + n] = 0
    return 0


def store_mxcsr(s: State, linear: int) -> int:
    """MXCSR and its mask."""
    return put(s, linear + AT_MXCSR, 8, (s[MXCSR] & 0xFFFFFFFF) | MXCSR_MASK << 32)


def store_xmm(s: State, linear: int) -> int:
    """XMM registers."""
    for n in range(xmm_count(s)):
        put(s, linear + AT_XMM + 16 * n, 8, s[VEC + 8 * n])
        put(s, linear + AT_XMM + 16 * n + 8, 8, s[VEC + 8 * n + 1])
    return 0


def load_xmm(s: State, linear: int) -> int:
    """The reverse; the rest of the vector registers stays."""
    for n in range(xmm_count(s)):
        get(s, linear + AT_XMM + 16 * n, 8)
        s[VEC + 8 * n] = s[VALUE]
        get(s, linear + AT_XMM + 16 * n + 8, 8)
        s[VEC + 8 * n + 1] = s[VALUE]
    return 0


def initial_xmm(s: State) -> int:
    """XMM registers to zero."""
    for n in range(xmm_count(s)):
        s[VEC + 8 * n] = 0
        s[VEC + 8 * n + 1] = 0
    return 0


def check_mxcsr(s: State, linear: int) -> int:
    """VALUE = the area's MXCSR; #GP for reserved bits."""
    get(s, linear + AT_MXCSR, 4)
    if s[VALUE] & ~MXCSR_MASK:
        return raise_fault(s, GP, 0)
    return 0


def fxsave(s: State, linear: int, how: int) -> int:
    """FXSAVE, FXSAVE64. All of it: CR4.OSFXSR off lets processors leave the XMM part out, ours doesn't. `how` is REX.W
    in its byte, then the access bits of the segment."""
    access = how >> ACCESS_AT
    if available(s, linear, access) or memory.probe_area(s, linear, LEGACY_SIZE, access | memory.WRITE):
        return 1
    store_x87(s, linear, how & 0xFF)
    store_mxcsr(s, linear)
    return store_xmm(s, linear)


def fxrstor(s: State, linear: int, how: int) -> int:
    """FXRSTOR, FXRSTOR64, likewise."""
    access = how >> ACCESS_AT
    if available(s, linear, access) or memory.probe_area(s, linear, LEGACY_SIZE, access) or check_mxcsr(s, linear):
        return 1
    s[MXCSR] = s[VALUE]
    load_x87(s, linear, how & 0xFF)
    return load_xmm(s, linear)


def store_components(s: State, linear: int, rex_w: int, wanted: int, format_word: int) -> int:
    """Components, without MXCSR; x87 and SSE are where both formats have them."""
    if wanted & X87_STATE:
        store_x87(s, linear, rex_w)
    if wanted & SSE_STATE:
        store_xmm(s, linear)
    return xstate.store(s, linear, wanted, format_word)


def xsave(s: State, linear: int, rex_w: int) -> int:
    """XSAVE, XSAVE64 (SDM 1, 13.7): all that is asked for is written."""
    return save(s, linear, rex_w, 0)


def xsaveopt(s: State, linear: int, rex_w: int) -> int:
    """XSAVEOPT (SDM 1, 13.9): what has its initial value isn't written; that nothing has changed isn't noticed."""
    return save(s, linear, rex_w, 1)


def save(s: State, linear: int, rex_w: int, only_in_use: int) -> int:
    """The standard format. MXCSR belongs to SSE and AVX, and is written whether they are in use or not."""
    if xsave_available(s, linear):
        return 1
    requested = s[XCR0] & get_edx_eax(s)
    if probe_written(s, linear, xstate.size(requested, 0)):
        return 1
    used = xstate.in_use(s, requested)
    store_components(s, linear, rex_w, used if only_in_use else requested, 0)
    if requested & (SSE_STATE | AVX_STATE):
        store_mxcsr(s, linear)
    get(s, linear + AT_XSTATE_BV, 8)
    return put(s, linear + AT_XSTATE_BV, 8, s[VALUE] & ~requested | used)


def xsavec(s: State, linear: int, rex_w: int) -> int:
    """XSAVEC (SDM 1, 13.10): what is in use, in the compacted format, in which MXCSR goes with SSE."""
    if xsave_available(s, linear):
        return 1
    requested = s[XCR0] & get_edx_eax(s)
    format_word = requested | COMPACTED
    if probe_written(s, linear, xstate.size(requested, format_word)):
        return 1
    used = xstate.in_use(s, requested)
    if s[MXCSR] != MXCSR_INITIAL:
        used = used | requested & SSE_STATE
    store_components(s, linear, rex_w, used, format_word)
    if used & SSE_STATE:
        store_mxcsr(s, linear)
    put(s, linear + AT_XSTATE_BV, 8, used)
    return put(s, linear + AT_XCOMP_BV, 8, format_word)


def xsaves(s: State, linear: int, rex_w: int) -> int:
    """XSAVES (SDM 1, 13.11): as XSAVEC, since IA32_XSS, which adds supervisor components, can only be 0;
    kernel_only() comes before. That nothing has changed since XRSTORS isn't noticed."""
    return xsavec(s, linear, rex_w)


def check_header(s: State, linear: int) -> int:
    """#GP for a header that XRSTOR may not take (SDM 1, 13.8); VALUE = XSTATE_BV, VALUE + 1 = XCOMP_BV."""
    get(s, linear + AT_XCOMP_BV, 8)
    format_word = s[VALUE]
    reserved = 0
    last = HEADER_END if format_word & COMPACTED else STANDARD_RESERVED_END
    for at in range(AT_XCOMP_BV + 8, last, 8):
        get(s, linear + at, 8)
        reserved = reserved | s[VALUE]
    get(s, linear + AT_XSTATE_BV, 8)
    present = s[VALUE]
    if format_word & COMPACTED:
        reserved = reserved | (format_word & ~(s[XCR0] | COMPACTED)) | (present & ~(format_word ^ COMPACTED))
    else:
        reserved = reserved | format_word | (present & ~s[XCR0])
    if reserved:
        return raise_fault(s, GP, 0)
    s[VALUE + 1] = format_word
    return 0


def xrstor(s: State, linear: int, rex_w: int) -> int:
    """XRSTOR, XRSTOR64 (SDM 1, 13.8): either format."""
    return restore(s, linear, rex_w, 0)


def xrstors(s: State, linear: int, rex_w: int) -> int:
    """XRSTORS, XRSTORS64 (SDM 1, 13.12): the compacted format only. kernel_only() comes before."""
    return restore(s, linear, rex_w, 1)


def restore(s: State, linear: int, rex_w: int, only_compacted: int) -> int:
    """What the area lacks gets its initial value. Zen 4 touches the first byte, reads the header, and then touches the
    last byte that it wants."""
    if xsave_available(s, linear) or memory.probe(s, linear, 1, memory.READ):
        return 1
    if memory.probe(s, linear + AT_XSTATE_BV & M64, HEADER_SIZE, memory.READ) or check_header(s, linear):
        return 1
    if only_compacted and s[VALUE + 1] & COMPACTED == 0:
        return raise_fault(s, GP, 0)
    requested = s[XCR0] & get_edx_eax(s)
    present = s[VALUE]
    format_word = s[VALUE + 1]
    compacted = format_word & COMPACTED
    touched = requested & present if compacted else requested  # as Zen 4 does
    if memory.probe_area(s, linear, xstate.size(touched, format_word), memory.READ):
        return 1
    if requested & AVX_STATE and requested & SSE_STATE == 0 and compacted == 0:  # MXCSR belongs to both
        if check_mxcsr(s, linear):
            return 1
        s[MXCSR] = s[VALUE]
    if requested & SSE_STATE:
        mxcsr = MXCSR_INITIAL
        if present & SSE_STATE or compacted == 0:  # the standard format restores MXCSR whatever XSTATE_BV says
            if check_mxcsr(s, linear):
                return 1
            mxcsr = s[VALUE]
        s[MXCSR] = mxcsr
        if present & SSE_STATE:
            load_xmm(s, linear)
        else:
            initial_xmm(s)
    if requested & X87_STATE:
        if present & X87_STATE:
            load_x87(s, linear, rex_w)
        else:
            initial_x87(s)
    return xstate.load(s, linear, requested, present, format_word)
