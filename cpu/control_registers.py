"""Control and debug registers and the privileged instructions around them (mechanism). All check privilege themselves.

    read_cr(s, number) -> VALUE      write_cr(s, number, value)      number 0 2 3 4 8
    read_dr(s, number) -> VALUE      write_dr(s, number, value)      number 0-7
    smsw(s) -> VALUE   lmsw(s, value)   clts(s)
    xsetbv(s)                        ECX, EDX:EAX
    invlpg(s, linear)                linear = segment base + offset; never faults on a bad address
    invpcid(s, kind, linear)         kind = the register operand, linear = address of the 16-byte descriptor
    rdtsc(s)   rdtscp(s)   rdpmc(s)  EDX:EAX (ECX)

Each returns nonzero after raising a fault. An instruction that writes CR0, CR3, CR4 or XCR0, or LMSW, must end its
block.
"""

from __future__ import annotations

from pyemu.cpu import debug, hooks, memory, mode, physical, tlb
from pyemu.cpu.faults import DR6_BD, GP, UD, raise_debug, raise_fault
from pyemu.cpu.flags import VM
from pyemu.cpu.mode import (
    CR0_AM,
    CR0_EM,
    CR0_MP,
    CR0_NE,
    CR0_PE,
    CR0_PG,
    CR0_TS,
    CR0_WP,
    CR4_DE,
    CR4_OSXSAVE,
    CR4_SMAP,
    CR4_TSD,
    CR4_UMIP,
    EFER_LMA,
    EFER_LME,
)
from pyemu.cpu.primitives import call_service, service
from pyemu.cpu.state import (
    CPL,
    CR0,
    CR2,
    CR3,
    CR4,
    CR4_ALLOWED,
    CS,
    DR,
    EFER,
    FLAGS,
    GPR,
    HOOK_EVENTS,
    ICOUNT,
    M64,
    PDPTE,
    PKRU,
    RAX,
    RCX,
    RDX,
    SEG_ATTR,
    TSC_AUX,
    TSC_OFFSET,
    VALUE,
    XCR0,
    XCR0_ALLOWED,
    State,
)

# CR0 (SDM 3, 2.5) beyond those of mode.py
CR0_ET, CR0_NW, CR0_CD = 1 << 4, 1 << 29, 1 << 30
CR0_BITS = CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG
CR0_LMSW = CR0_PE | CR0_MP | CR0_EM | CR0_TS
CR0_TRANSLATION = CR0_PE | CR0_WP | CR0_PG  # what cached translations depend on
# CR4
CR4_PSE, CR4_PAE, CR4_PGE, CR4_PCE, CR4_PCIDE, CR4_SMEP = 1 << 4, 1 << 5, 1 << 7, 1 << 8, 1 << 17, 1 << 20
CR4_TRANSLATION = CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP | mode.CR4_LA57 | mode.CR4_KEYS
CR4_PDPTE = CR4_PSE | CR4_PAE | CR4_PGE | CR4_SMEP  # a change of these reloads the PDPTEs (SDM 3, 4.4.1)
CR3_NO_FLUSH = 1 << 63  # with PCIDs: keep the translations
CR3_PCID = 0xFFF
PDPTE_RESERVED = 0x1E6 | (M64 & ~physical.PHYSICAL_MASK)  # bits 1-2, 5-8 and beyond the width (SDM 3, table 4-8)
# DR6 and DR7 (SDM 3, 18.2)
DR6_ONES, DR6_WRITABLE = 0xFFFF0FF0, 0xE00F
DR7_ONES, DR7_WRITABLE, DR7_GD = 0x400, 0xFFFF23FF, 1 << 13
# XCR0 (SDM 1, 13.3)
XCR0_X87, XCR0_SSE, XCR0_AVX, XCR0_AVX512 = 1, 2, 4, 7 << 5
# INVPCID types (SDM 2)
INVPCID_ADDRESS, INVPCID_CONTEXT, INVPCID_ALL_GLOBAL, INVPCID_ALL = 0, 1, 2, 3
M32 = 0xFFFFFFFF


def _get_tpr(s: State, _a: int, _b: int) -> int:
    return s.host.get_tpr()


def _set_tpr(s: State, value: int, _b: int) -> int:
    s.host.set_tpr(value)
    return 0


def _read_tsc(s: State, _a: int, _b: int) -> int:
    return s.host.read_tsc()


GET_TPR, SET_TPR, READ_TSC = service(_get_tpr), service(_set_tpr), service(_read_tsc)


def privileged(s: State) -> int:
    """0 at CPL 0, else 1 with #GP(0) raised."""
    if s[CPL] == 0 and s[FLAGS] & VM == 0:
        return 0
    return raise_fault(s, GP, 0)


# ---- control registers -------------------------------------------------------------------------------------------
def read_cr(s: State, number: int) -> int:
    """VALUE = CRn."""
    if privileged(s):
        return 1
    if number == 0:
        s[VALUE] = s[CR0]
    elif number == 2:
        s[VALUE] = s[CR2]
    elif number == 3:
        s[VALUE] = s[CR3]
    elif number == 4:
        s[VALUE] = s[CR4]
    elif number == 8:
        s[VALUE] = call_service(s, GET_TPR, 0, 0) & 15
    else:
        return raise_fault(s, UD, 0)
    return 0


def write_cr(s: State, number: int, value: int) -> int:
    """CRn = VALUE, with everything that follows from it."""
    if privileged(s):
        return 1
    if number == 0:
        return write_cr0(s, value)
    if number == 2:
        s[CR2] = value
        return 0
    if number == 3:
        return write_cr3(s, value)
    if number == 4:
        return write_cr4(s, value)
    if number != 8:
        return raise_fault(s, UD, 0)
    if value > 15:
        return raise_fault(s, GP, 0)
    return call_service(s, SET_TPR, value, 0)


def load_pdptes(s: State, cr3: int) -> int:
    """PAE paging: load and check the four entries that CR3 points to (SDM 3, 4.4.1)."""
    table = cr3 & 0xFFFFFFE0
    for n in range(4):
        entry = physical.read(s, table + 8 * n, 8)
        if entry & 1 and entry & PDPTE_RESERVED:
            return raise_fault(s, GP, 0)
    for n in range(4):
        s[PDPTE + n] = physical.read(s, table + 8 * n, 8)
    return 0


def write_cr0(s: State, value: int) -> int:
    """MOV to CR0 and LMSW."""
    old = s[CR0]
    efer = s[EFER]
    if value >> 32:
        return raise_fault(s, GP, 0)
    new = (value & CR0_BITS) | CR0_ET
    if new & CR0_PG and new & CR0_PE == 0:
        return raise_fault(s, GP, 0)
    if new & CR0_NW and new & CR0_CD == 0:
        return raise_fault(s, GP, 0)
    long_code = s[SEG_ATTR + CS] & mode.ATTR_L
    if new & CR0_PG and old & CR0_PG == 0:
        if efer & EFER_LME:
            if s[CR4] & CR4_PAE == 0 or long_code:
                return raise_fault(s, GP, 0)
            efer = efer | EFER_LMA
    elif old & CR0_PG and new & CR0_PG == 0:
        if efer & EFER_LMA and (long_code or s[CR4] & CR4_PCIDE):
            return raise_fault(s, GP, 0)
        efer = efer & ~EFER_LMA
    changed = old ^ new
    if new & CR0_PG and changed & (CR0_PG | CR0_CD | CR0_NW) and s[CR4] & CR4_PAE and efer & EFER_LMA == 0:
        if load_pdptes(s, s[CR3]):
            return 1
    s[CR0] = new
    s[EFER] = efer
    if changed & CR0_TRANSLATION:
        tlb.flush_all(s)
    return mode.update(s)


def write_cr3(s: State, value: int) -> int:
    """MOV to CR3. Translations are not tagged with their PCID: only a reload of the same context may keep them."""
    new = value
    keep = 0
    if s[EFER] & EFER_LMA:
        if s[CR4] & CR4_PCIDE:
            new = value & ~CR3_NO_FLUSH
            keep = int(value & CR3_NO_FLUSH != 0 and new == s[CR3])
        if new & ~physical.PHYSICAL_MASK:
            return raise_fault(s, GP, 0)
    else:
        new = value & M32
        if s[CR0] & CR0_PG and s[CR4] & CR4_PAE and load_pdptes(s, new):
            return 1
    if s[HOOK_EVENTS]:
        hooks.event(s, hooks.CR3_CHANGE, s[CR3], new)
    s[CR3] = new
    if keep == 0:
        tlb.flush(s)
    return 0


def write_cr4(s: State, value: int) -> int:
    """MOV to CR4."""
    old = s[CR4]
    if value & ~s[CR4_ALLOWED]:
        return raise_fault(s, GP, 0)
    if s[EFER] & EFER_LMA:
        if value & CR4_PAE == 0 or (old ^ value) & mode.CR4_LA57:
            return raise_fault(s, GP, 0)
        if value & CR4_PCIDE and old & CR4_PCIDE == 0 and s[CR3] & CR3_PCID:
            return raise_fault(s, GP, 0)
    elif value & CR4_PCIDE:
        return raise_fault(s, GP, 0)
    elif s[CR0] & CR0_PG and value & CR4_PAE and (old ^ value) & CR4_PDPTE:
        if load_pdptes(s, s[CR3]):
            return 1
    s[CR4] = value
    if (old ^ value) & CR4_TRANSLATION:
        tlb.flush_all(s)
    return debug.refresh(s)


def smsw(s: State) -> int:
    """VALUE = CR0; at any privilege, unless CR4.UMIP."""
    if s[CPL] and s[CR4] & CR4_UMIP:
        return raise_fault(s, GP, 0)
    s[VALUE] = s[CR0]
    return 0


def lmsw(s: State, value: int) -> int:
    """Set PE, MP, EM and TS; PE can't be cleared."""
    if privileged(s):
        return 1
    return write_cr0(s, (s[CR0] & ~(CR0_LMSW & ~CR0_PE)) | (value & CR0_LMSW))


def clts(s: State) -> int:
    """Clear CR0.TS."""
    if privileged(s):
        return 1
    s[CR0] = s[CR0] & ~CR0_TS
    return mode.update(s)


# ---- debug registers -----------------------------------------------------------------------------------------------
def check_dr(s: State, number: int) -> int:
    """VALUE = the register that a number means (4 and 5 are 6 and 7 unless CR4.DE), or 1 with a fault raised."""
    if number > 7:
        return raise_fault(s, UD, 0)
    if privileged(s):
        return 1
    if (number == 4 or number == 5) and s[CR4] & CR4_DE:
        return raise_fault(s, UD, 0)
    if s[DR + 7] & DR7_GD:
        s[DR + 7] = s[DR + 7] & ~DR7_GD  # as delivery of the exception would
        debug.set_resume(s, s[ICOUNT])  # of the faults that are #DB, only this one pushes RF set (SDM 3, 18.3.1.1)
        return raise_debug(s, DR6_BD)
    s[VALUE] = number + 2 if number == 4 or number == 5 else number
    return 0


def read_dr(s: State, number: int) -> int:
    """VALUE = DRn."""
    if check_dr(s, number):
        return 1
    s[VALUE] = s[DR + s[VALUE]]
    return 0


def write_dr(s: State, number: int, value: int) -> int:
    """DRn = value."""
    if check_dr(s, number):
        return 1
    number = s[VALUE]
    if number >= 6:
        if value >> 32:
            return raise_fault(s, GP, 0)
        value = (value & DR6_WRITABLE) | DR6_ONES if number == 6 else (value & DR7_WRITABLE) | DR7_ONES
    s[DR + number] = value
    if number == 6:
        return 0
    return debug.refresh(s)


# ---- extended control registers ----------------------------------------------------------------------------------
def put_edx_eax(s: State, value: int) -> int:
    """EDX:EAX = value."""
    s[GPR + RAX] = value & M32
    s[GPR + RDX] = value >> 32
    return 0


def get_edx_eax(s: State) -> int:
    """EDX:EAX."""
    value: int = (s[GPR + RDX] & M32) << 32 | (s[GPR + RAX] & M32)
    return value


def xsetbv(s: State) -> int:
    """XCR0 = EDX:EAX; AVX needs SSE, the three of AVX-512 come together and need AVX (SDM 1, 13.3)."""
    if s[CR4] & CR4_OSXSAVE == 0:
        return raise_fault(s, UD, 0)
    if privileged(s):
        return 1
    value = get_edx_eax(s)
    if s[GPR + RCX] & M32 or value & XCR0_X87 == 0 or value & ~s[XCR0_ALLOWED]:
        return raise_fault(s, GP, 0)
    if value & XCR0_AVX and value & XCR0_SSE == 0:
        return raise_fault(s, GP, 0)
    if value & XCR0_AVX512 and (value & XCR0_AVX512 != XCR0_AVX512 or value & XCR0_AVX == 0):
        return raise_fault(s, GP, 0)
    s[XCR0] = value
    return mode.update(s)


# ---- protection keys ---------------------------------------------------------------------------------------------
def set_keys(s: State, register: int, value: int, enabled: int) -> int:
    """Set PKRU or PKRS, whose bit of CR4 is `enabled`. The TLB holds rights as they made them."""
    if s[register] != value:
        s[register] = value
        if s[CR4] & enabled:
            tlb.flush_all(s)
    return 0


def rdpkru(s: State) -> int:
    """EDX:EAX = PKRU; ECX must be 0."""
    if s[CR4] & mode.CR4_PKE == 0:
        return raise_fault(s, UD, 0)
    if s[GPR + RCX] & M32:
        return raise_fault(s, GP, 0)
    return put_edx_eax(s, s[PKRU])


def wrpkru(s: State) -> int:
    """PKRU = EAX; ECX and EDX must be 0."""
    if s[CR4] & mode.CR4_PKE == 0:
        return raise_fault(s, UD, 0)
    if (s[GPR + RCX] | s[GPR + RDX]) & M32:
        return raise_fault(s, GP, 0)
    return set_keys(s, PKRU, s[GPR + RAX] & M32, mode.CR4_PKE)


# ---- translation caches -------------------------------------------------------------------------------------------
def invlpg(s: State, linear: int) -> int:
    """Forget the translation of one page."""
    if privileged(s):
        return 1
    return tlb.flush_page(s, linear)


def invpcid(s: State, kind: int, linear: int) -> int:
    """Forget translations as the descriptor says (more of them where PCIDs would be told apart)."""
    if privileged(s):
        return 1
    if memory.read(s, linear, 16, memory.READ):
        return 1
    pcid = s[VALUE]
    address = s[VALUE + 1]
    if kind > INVPCID_ALL or pcid > CR3_PCID:
        return raise_fault(s, GP, 0)
    if kind <= INVPCID_CONTEXT and pcid and s[CR4] & CR4_PCIDE == 0:
        return raise_fault(s, GP, 0)
    if kind == INVPCID_ADDRESS:
        if mode.is_canonical_base(s, address) == 0:
            return raise_fault(s, GP, 0)
        return tlb.flush_page(s, address)
    if kind == INVPCID_ALL_GLOBAL:
        return tlb.flush_all(s)
    return tlb.flush(s)


# ---- counters -----------------------------------------------------------------------------------------------------
def tsc(s: State) -> int:
    """The guest's time-stamp counter."""
    now: int = (call_service(s, READ_TSC, 0, 0) + s[TSC_OFFSET]) & M64
    return now


def rdtsc(s: State) -> int:
    """EDX:EAX = time-stamp counter."""
    if s[CPL] and s[CR4] & CR4_TSD:
        return raise_fault(s, GP, 0)
    return put_edx_eax(s, tsc(s))


def rdtscp(s: State) -> int:
    """RDTSC, and ECX = IA32_TSC_AUX."""
    if rdtsc(s):
        return 1
    s[GPR + RCX] = s[TSC_AUX] & M32
    return 0


def rdpmc(s: State) -> int:
    """There are no performance counters: any number of one is wrong."""
    return raise_fault(s, GP, 0)
