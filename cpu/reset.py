"""The state of a processor after power-up, RESET and INIT (SDM 3, table 9-1).

    reset(s)      power-up or RESET; in Python, as the machine calls it
    init(s)       INIT: keeps x87 and SSE state, most MSRs, CR0.CD and CR0.NW

The machine's words (RAM_BASE, RANGES, HOST_CALLS, CPUID_MODEL, APIC_ID, IRQ_PENDING ...), the instruction count and the
private words of the native back ends stay as they are. Not here: what firmware leaves behind (the machine's boot code
sets that).
"""

from __future__ import annotations

from pyemu.cpu import flags, mode, tlb
from pyemu.cpu.control_registers import CR0_CD, CR0_ET, CR0_NW, DR6_ONES, DR7_ONES
from pyemu.cpu.cpuid import model_of
from pyemu.cpu.msr import MCA_BANKS, MISC_FAST_STRINGS
from pyemu.cpu.state import (
    CR0,
    CS,
    DR,
    FAULT_VECTOR,
    FCW,
    FETCH_PHYS2,
    FTW,
    GDT_LIMIT,
    GPR,
    IDT_LIMIT,
    LAYOUT,
    LDT_ATTR,
    LDT_LIMIT,
    M64,
    MC_CTL,
    MCG_CTL,
    MISC_ENABLE,
    MXCSR,
    NO_FAULT,
    NO_PAGE,
    PAT,
    RDX,
    RIP,
    SEG_ATTR,
    SEG_BASE,
    SEG_LIMIT,
    SEG_SEL,
    TR_ATTR,
    TR_LIMIT,
    XCR0,
    State,
)

RESET_CS, RESET_CS_BASE, RESET_RIP = 0xF000, 0xFFFF0000, 0xFFF0
DATA_SEGMENT, LDT_SEGMENT, TSS_SEGMENT = 0x93, 0x82, 0x8B  # present: accessed read/write data; LDT; busy 32-bit TSS
LIMIT = 0xFFFF
RESET_FLAGS = 2
RESET_FCW, RESET_FTW, RESET_MXCSR = 0x40, 0xFF, 0x1F80  # every x87 register holds +0.0, which is not "empty"
RESET_PAT = 0x0007040600070406  # SDM 3, table 12-12

# What INIT and RESET clear, by name in state.LAYOUT.
_BOTH = (
    "gpr cc_dst cc_src seg_sel seg_base seg_limit seg_attr ldt_sel ldt_base tr_sel tr_base gdt_base idt_base cpl cr2"
    " cr3 cr4 pdpte dr debugctl nmi_pending nmi_blocked halted shadow efer stack_shadow stepping pending_debug rf_count"
    " watch_data watch_ports monitored watch_code watch_pages"
)
_RESET_ONLY = (
    "star lstar cstar sfmask kernel_gs_base sysenter_cs sysenter_esp sysenter_eip tsc_aux tsc_offset mtrr_def_type"
    " mtrr_fixed mtrr_variable msr_scratch mc_addr mc_misc pkru pkrs fpr fsw fop fip fdp vec opmask"
)


def _clear(s: State, names: str) -> None:
    for name in names.split():
        field = LAYOUT[name]
        for index in range(field.index, field.index + field.count):
            s[index] = 0


def _common(s: State) -> None:
    """What RESET and INIT both do."""
    _clear(s, _BOTH)
    for n in range(6):
        s[SEG_LIMIT + n] = LIMIT
        s[SEG_ATTR + n] = DATA_SEGMENT
    s[SEG_ATTR + CS] = DATA_SEGMENT | 8  # code, readable
    s[SEG_SEL + CS], s[SEG_BASE + CS], s[RIP] = RESET_CS, RESET_CS_BASE, RESET_RIP
    s[GDT_LIMIT] = s[IDT_LIMIT] = s[LDT_LIMIT] = s[TR_LIMIT] = LIMIT
    s[LDT_ATTR], s[TR_ATTR] = LDT_SEGMENT, TSS_SEGMENT
    s[GPR + RDX] = model_of(s).signature
    s[DR + 6], s[DR + 7] = DR6_ONES, DR7_ONES
    flags.set_eflags(s, RESET_FLAGS, 0xFFFFFFFFFFFFFFFF)
    s[FAULT_VECTOR] = NO_FAULT
    s[FETCH_PHYS2] = NO_PAGE
    tlb.flush_all(s)
    mode.update(s)


def reset(s: State) -> None:
    """Power-up or RESET: execution starts at physical FFFFFFF0."""
    _clear(s, _RESET_ONLY)
    s[CR0] = CR0_CD | CR0_NW | CR0_ET
    s[XCR0] = 1
    s[FCW], s[FTW], s[MXCSR] = RESET_FCW, RESET_FTW, RESET_MXCSR
    s[PAT], s[MISC_ENABLE] = RESET_PAT, MISC_FAST_STRINGS
    s[MCG_CTL] = M64  # every kind of error is reported, as after QEMU's reset
    for n in range(MCA_BANKS):
        s[MC_CTL + n] = M64
    _common(s)


def init(s: State) -> None:
    """INIT."""
    s[CR0] = (s[CR0] & (CR0_CD | CR0_NW)) | CR0_ET
    _common(s)
