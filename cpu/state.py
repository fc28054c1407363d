"""The state of one vCPU: a block of 64-bit words whose layout is declared here, once.

Python sees it as the ctypes array `State` (`s[RIP]`, `s[GPR + RAX]`), mechanism code as the same array, and
generated code as byte offsets (`8 * RIP`) from its state register. Every field is one or more 64-bit words;
hot fields come first so that their offsets fit an 8-bit displacement. Not here: what the words mean together
(flags.py, segments.py, paging.py) and guest RAM (the machine's).
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyemu.cpu.host import HookHost, Host


@dataclass(frozen=True)
class Field:
    """One declared field: `count` words from word `index`."""

    name: str
    index: int
    count: int
    comment: str


LAYOUT: dict[str, Field] = {}
_next = 0


def _field(name: str, count: int, comment: str) -> int:
    """Declare the next field of `count` words; returns the index of its first word."""
    global _next
    index = _next
    LAYOUT[name] = Field(name, index, count, comment)
    _next += count
    return index


# ---- hot: registers and what generated code polls ----------------------------------------------------
GPR = _field("gpr", 16, "general registers in encoding order, RAX..R15")
CC_DST = _field("cc_dst", 1, "lazy flags: sign-extended result (see flags.py)")
CC_SRC = _field("cc_src", 1, "lazy flags: carry word (see flags.py)")
RIP = _field("rip", 1, "instruction pointer (offset in CS)")
EXIT_REQUEST = _field("exit_request", 1, "nonzero: leave at the next block boundary; written by other threads")
ICOUNT = _field("icount", 1, "instructions executed since reset (REP counts each iteration)")
ICOUNT_LIMIT = _field("icount_limit", 1, "the run stops when ICOUNT gets there")
ONES = _field("ones", 1, "all ones: the mask of an EVEX instruction without one")
FLAGS = _field("flags", 1, "RFLAGS without CF PF AF ZF SF OF, which are lazy")
ZERO = _field("zero", 1, "always zero: stands for an absent base, index or segment base")
VALUE = _field("value", 2, "result of the last mechanism call that yields a value (low, high 64 bits)")
MODE = _field("mode", 1, "mode word: everything a translation depends on (see mode.py)")
STACK_MASK = _field("stack_mask", 1, "0xffff, 0xffffffff or all ones: width of the stack pointer (SS.B, 64-bit mode)")
MMU = _field("mmu", 1, "MMU index of data accesses at the present privilege (see tlb.py)")

# ---- segments: selector, base, limit (bytes), attributes (descriptor bits 40-55 >> 0, G applied) ------
SEG_SEL = _field("seg_sel", 6, "selectors ES CS SS DS FS GS")
SEG_BASE = _field("seg_base", 6, "bases ES CS SS DS FS GS")
SEG_LIMIT = _field("seg_limit", 6, "limits in bytes, granularity applied")
SEG_ATTR = _field("seg_attr", 6, "access rights: bits 0-7 type/S/DPL/P, 12-15 AVL/L/DB/G, 16 unusable (SDM 3, 24.4.1)")
SEG_REACH = _field("seg_reach", 6, "limit + 1 of those that may be read and written up to it, else 0 (see mode.py)")
LDT_SEL = _field("ldt_sel", 1, "LDTR selector")
LDT_BASE = _field("ldt_base", 1, "LDTR base")
LDT_LIMIT = _field("ldt_limit", 1, "LDTR limit")
LDT_ATTR = _field("ldt_attr", 1, "LDTR access rights")
TR_SEL = _field("tr_sel", 1, "TR selector")
TR_BASE = _field("tr_base", 1, "TR base")
TR_LIMIT = _field("tr_limit", 1, "TR limit")
TR_ATTR = _field("tr_attr", 1, "TR access rights")
GDT_BASE = _field("gdt_base", 1, "GDTR base")
GDT_LIMIT = _field("gdt_limit", 1, "GDTR limit")
IDT_BASE = _field("idt_base", 1, "IDTR base")
IDT_LIMIT = _field("idt_limit", 1, "IDTR limit")

# ---- control, debug and model-specific registers -------------------------------------------------------
CPL = _field("cpl", 1, "current privilege level")
CR0 = _field("cr0", 1, "CR0")
CR2 = _field("cr2", 1, "CR2")
CR3 = _field("cr3", 1, "CR3")
PDPTE = _field("pdpte", 4, "PAE page-directory-pointer entries, loaded with CR3")
CR4 = _field("cr4", 1, "CR4")
XCR0 = _field("xcr0", 1, "XCR0")
EFER = _field("efer", 1, "IA32_EFER")
LINEAR_TOP = _field("linear_top", 1, "47 or 56: bits from this one on are alike in a canonical address (mode.py)")
HIGH_HALF = _field("high_half", 1, "linear addresses from here on are taken for the kernel's (see mode.py)")
PKRU = _field("pkru", 1, "PKRU: two bits for each protection key")
DR = _field("dr", 8, "DR0-DR7 (4 and 5 unused)")
STAR = _field("star", 1, "IA32_STAR")
LSTAR = _field("lstar", 1, "IA32_LSTAR")
CSTAR = _field("cstar", 1, "IA32_CSTAR")
SFMASK = _field("sfmask", 1, "IA32_FMASK")
KERNEL_GS_BASE = _field("kernel_gs_base", 1, "IA32_KERNEL_GS_BASE")
SYSENTER_CS = _field("sysenter_cs", 1, "IA32_SYSENTER_CS")
SYSENTER_ESP = _field("sysenter_esp", 1, "IA32_SYSENTER_ESP")
SYSENTER_EIP = _field("sysenter_eip", 1, "IA32_SYSENTER_EIP")
TSC_AUX = _field("tsc_aux", 1, "IA32_TSC_AUX")
TSC_OFFSET = _field("tsc_offset", 1, "added to the machine's TSC")
PAT = _field("pat", 1, "IA32_PAT")
MISC_ENABLE = _field("misc_enable", 1, "IA32_MISC_ENABLE")
MTRR_DEF_TYPE = _field("mtrr_def_type", 1, "IA32_MTRR_DEF_TYPE")
MTRR_FIXED = _field("mtrr_fixed", 11, "fixed-range MTRRs, 64K_00000 first")
MTRR_VARIABLE = _field("mtrr_variable", 16, "PHYSBASE0, PHYSMASK0, ... PHYSMASK7")
DEBUGCTL = _field("debugctl", 1, "IA32_DEBUGCTL")
MSR_SCRATCH = _field("msr_scratch", 8, "further MSRs that hold what is written (see msr.py)")
MCG_CTL = _field("mcg_ctl", 1, "IA32_MCG_CTL")
MC_CTL = _field("mc_ctl", 10, "IA32_MC0_CTL ... IA32_MC9_CTL")
MONITORED = _field("monitored", 1, "MONITOR executed, and neither MWAIT nor an event since")
CPUID_MODEL = _field("cpuid_model", 1, "index of the CPU model and, above, of its vendor in models.py")
CPU_FEATURES = _field("cpu_features", 4, "bitmap of the features that the processor has (features.py); bit 0 is set")
LINEAR_TOP_MAX = _field("linear_top_max", 1, "LINEAR_TOP with the widest addresses that the processor has")
CR4_ALLOWED = _field("cr4_allowed", 1, "bits of CR4 that are not reserved, by the features")
XCR0_ALLOWED = _field("xcr0_allowed", 1, "bits of XCR0 that may be set, by the features; 0 without XSAVE")
APIC_ID = _field("apic_id", 1, "initial APIC ID, as CPUID reports it")
CPU_COUNT = _field("cpu_count", 1, "processors of the machine, as CPUID reports them; 0 means 1")

# ---- floating point and vectors ---------------------------------------------------------------------------
FPR = _field("fpr", 16, "x87 registers by physical number: 64-bit significand, then sign and exponent")
FCW = _field("fcw", 1, "x87 control word")
FSW = _field("fsw", 1, "x87 status word, TOP in bits 11-13")
FTW = _field("ftw", 1, "abridged tag word: bit n set when physical register n is not empty")
FOP = _field("fop", 1, "x87 last opcode, 11 bits")
FIP = _field("fip", 1, "x87 last instruction pointer")
FDP = _field("fdp", 1, "x87 last data pointer")
FCS = _field("fcs", 1, "x87 selector of the last instruction")
FDS = _field("fds", 1, "x87 selector of the last memory operand")
MXCSR = _field("mxcsr", 1, "MXCSR")
VEC = _field("vec", 32 * 8, "ZMM0-31, 8 words each, lowest first")
OPMASK = _field("opmask", 8, "k0-k7")

# ---- events ---------------------------------------------------------------------------------------------------
IRQ_PENDING = _field("irq_pending", 1, "level: a controller has a vector to deliver; other threads write it")
NMI_PENDING = _field("nmi_pending", 1, "an NMI waits; other threads set it")
NMI_BLOCKED = _field("nmi_blocked", 1, "NMIs are blocked until IRET")
HALTED = _field("halted", 1, "HLT executed and no event since")
SHADOW = _field("shadow", 1, "instruction count at which the interrupt shadow (STI, MOV SS) ends, or 0")
STACK_SHADOW = _field("stack_shadow", 1, "likewise for the shadow of MOV SS and POP SS, which delays debug traps too")
STEPPING = _field("stepping", 1, "nonzero: #DB (BS) follows when the present instruction has ended")
PENDING_DEBUG = _field("pending_debug", 1, "DR6 bits of the debug traps that wait for the end of the instruction")
RF_COUNT = _field("rf_count", 1, "instruction count at which RF in FLAGS is in force; at any other it is stale")
WATCH_DATA = _field("watch_data", 1, "data breakpoints that are enabled, bit n for DRn (see debug.py)")
WATCH_PORTS = _field("watch_ports", 1, "likewise I/O breakpoints")
WATCH_CODE = _field("watch_code", 1, "likewise instruction breakpoints")
WATCH_PAGES = _field("watch_pages", 4, "the pages whose TLB tags carry WATCH_FLAG for DR0-DR3")
FAULT_VECTOR = _field("fault_vector", 1, "vector of the fault being raised; NO_FAULT when none")
FAULT_ERROR = _field("fault_error", 1, "its error code")
FAULT_CR2 = _field("fault_cr2", 1, "the address for CR2, for page faults")
FAULT_DR6 = _field("fault_dr6", 1, "DR6 bits to set, for debug exceptions")
EXIT_REASON = _field("exit_reason", 1, "why the run stopped (host.Exit)")
EXIT_INFO = _field("exit_info", 4, "details of the stop")
FAULT_CHAIN = _field("fault_chain", 8, "last exceptions of a triple fault, oldest first; format in interrupts.py")
FRAME = _field("frame", 48, "scratch: the stack frame or task state that a transfer of control stores or loads")

# ---- instruction being decoded (see decode/record.py) -----------------------------------------------------------
RECORD = _field("record", 8, "the record that decode() fills")
FETCH_RIP = _field("fetch_rip", 1, "linear address of the instruction being fetched")
FETCH_PHYS = _field("fetch_phys", 1, "its physical address")
FETCH_PHYS2 = _field("fetch_phys2", 1, "physical address of the next page, or NO_PAGE until it is needed")
FETCH_FAULT = _field("fetch_fault", 1, "nonzero: a byte could not be fetched; the fault is raised")

# ---- memory -----------------------------------------------------------------------------------------------------
RAM_BASE = _field("ram_base", 1, "host address of guest physical address 0")
RANGE_COUNT = _field("range_count", 1, "number of physical ranges")
RANGES = _field("ranges", 3 * 32, "physical ranges, sorted: start, end, kind (physical.py)")
WALK_PHYS = _field("walk_phys", 1, "page walk: physical address of the 4 KiB page")
WALK_RIGHTS = _field("walk_rights", 1, "page walk: TLB rights and flags (tlb.py)")
HOST_CALLS = _field("host_calls", 16, "addresses of the callbacks into the machine, for native code (host.py)")
JIT_WORDS = 72
JIT = _field("jit", JIT_WORDS, "private words of the native back ends (jit/layout.py)")
PAGE_FLAGS = _field("page_flags", 1, "host address of a byte for each physical page (physical.py); 0 if there is none")
SAVED_COUNT = _field("saved_count", 1, "pages in SAVED_PAGES")
SAVED_NUMBERS = _field("saved_numbers", 1, "host address of their page numbers, 64 bits each")
SAVED_PAGES = _field("saved_pages", 1, "host address of pages as they were before their first write since the snapshot")
TLB_MISSES = _field("tlb_misses", 1, "page walks made to fill the TLB")
STATS = _field("stats", 32, "counters (jit/layout.py)")
TLB_LOG_COUNT = _field("tlb_log_count", 1, "entries in the flush log")
LARGE_LOW = _field("large_low", 1, "a large page of the lower half is in the TLB, so INVLPG there flushes all")
LARGE_HIGH = _field("large_high", 1, "likewise for the upper half")
LOCAL_HIGH_CODE = _field("local_high_code", 1, "code of the upper half came from a page that is not global")
IGNNE = _field("ignne", 1, "FSW.ES while the machine asserts IGNNE#: pending x87 exceptions are ignored; else 0")
X87_OPERAND = _field("x87_operand", 2, "scratch: the memory operand of an x87 operation")
X87_RESULT = _field("x87_result", 5, "scratch: results of an x87 operation, two words each, and a control word")
TLB_LOG_SIZE = 512
TLB_LOG = _field("tlb_log", TLB_LOG_SIZE, "word index of each non-global TLB entry filled since the last flush")
TLB_ENTRIES = 1024
TLB_ENTRY_WORDS = 4
MMU_COUNT = 4
ALIGNED_CLEAN = _field("aligned_clean", 1, "nonzero: the TLB of the last MMU index, which few guests use, is empty")
TLB = _field("tlb", MMU_COUNT * TLB_ENTRIES * TLB_ENTRY_WORDS, "entries of read tag, write tag, exec tag, addend")
VECTOR = _field("vector", 8, "scratch: a vector on its way between generated code and mechanism")

# ---- set by WRMSR only, behind all that generated code addresses ------------------------------------------------
PKRS = _field("pkrs", 1, "IA32_PKRS: as PKRU, for the supervisor's pages")
MC_ADDR = _field("mc_addr", 10, "IA32_MC0_ADDR ... IA32_MC9_ADDR")
MC_MISC = _field("mc_misc", 10, "likewise IA32_MC0_MISC ...")

# ---- the debugger's hooks (hooks.py): no part of the guest's state, and of no snapshot -----------------------------
HOOK_COUNT = _field("hook_count", 1, "hooked addresses and ranges; 0: code is decoded without a look at them")
HOOK_SLOTS = 2048
HOOK_CODE = _field("hook_code", HOOK_SLOTS, "hooked linear addresses, hashed; all ones: empty")
HOOK_CODE_PROGRAM = _field("hook_code_program", HOOK_SLOTS, "their conditions (conditions.py), 0 for none")
HOOK_RANGE_COUNT = _field("hook_range_count", 1, "hooked ranges of code")
HOOK_RANGES_MAX = 8
HOOK_RANGES = _field("hook_ranges", 4 * HOOK_RANGES_MAX, "their start, length, kind and condition")
HOOK_WATCH_COUNT = _field("hook_watch_count", 1, "watched ranges of memory")
HOOK_WATCHES_MAX = 32
HOOK_WATCHES = _field("hook_watches", 4 * HOOK_WATCHES_MAX, "their start, length, kind and condition")
HOOK_EVENTS = _field("hook_events", 1, "bitmap of the events that the machine wants to hear of")
HOOK_PASSED = _field("hook_passed", 1, "instruction count, plus 1, at which the hook at RIP has been served")
HOOK_HYPERCALL = _field("hook_hypercall", 1, "instruction count, plus 1, of a hypercall to tell of")
HOOK_HYPERCALL_END = _field("hook_hypercall_end", 1, "where it ends")
HOOK_HYPERCALL_TOLD = _field("hook_hypercall_told", 1, "instruction count, plus 1, of the last that was told of")
HYPERCALL_ANSWERED = _field("hypercall_answered", 1, "instruction count, plus 1, of a VMCALL that isn't #UD")
HOOK_RIP = _field("hook_rip", 1, "what a condition sees as rip")
HOOK_ACCESS = _field("hook_access", 4, "the access that hit: address, size, value, 1 for a write")
HOOK_LOADED = _field("hook_loaded", 1, "scratch: what a condition has read")
HOOK_STACK_WORDS = 16
HOOK_STACK = _field("hook_stack", HOOK_STACK_WORDS, "scratch: the values of a condition being evaluated")
HOOK_PROGRAM_WORDS = 2048
HOOK_PROGRAMS = _field("hook_programs", HOOK_PROGRAM_WORDS, "the conditions; the first word is not used")

WORDS = _next

NO_FAULT = 0xFFFF
NO_PAGE = 0xFFFFFFFFFFFFFFFF
M64 = 0xFFFFFFFFFFFFFFFF

# Encoding order of registers (SDM 2, table 2-2) and segments (SDM 2, appendix B.1.4.2).
RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 = range(16)
ES, CS, SS, DS, FS, GS = range(6)


class State(ctypes.c_uint64 * WORDS):  # type: ignore[misc]
    """The words of one vCPU. `ram` is a view of guest physical memory, `host` the machine behind the CPU, `debugger`
    who has set hooks."""

    ram: memoryview
    host: Host
    debugger: HookHost

    if TYPE_CHECKING:

        def __getitem__(self, index: int) -> int: ...


def new_state() -> State:
    """A zeroed state block of a processor with all features; cpu/reset.py gives it the values after power-up."""
    from pyemu.cpu.cpuid import configure

    state = State()
    state[ONES] = M64
    configure(state)
    return state
