"""RDMSR and WRMSR: which model-specific registers there are and what they accept.

    rdmsr(s)   wrmsr(s)                the instructions (mechanism): privilege, ECX, EDX:EAX, #GP
    read(s, index) -> int | None       write(s, index, value) -> bool      in Python; None and False mean #GP
    set_memory_types(s, hole)          the MTRRs as firmware leaves them, for guests that are started without any

The bases of FS and GS, which a guest switches often, are handled here in mechanism; the others by a Python service. The
local APIC's registers, IA32_APIC_BASE and the TSC deadline belong to the machine (Host). There are also the registers
of AMD's family 15 that Linux touches without asking, since that is what the CPU models are; they hold what is harmless.
Numbers and names: SDM 4, chapter 2; AMD's BKDG for family 0Fh.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyemu.cpu import hooks, mode, physical, tlb
from pyemu.cpu.control_registers import get_edx_eax, privileged, put_edx_eax, set_keys
from pyemu.cpu.cpuid import announces
from pyemu.cpu.faults import GP, raise_fault
from pyemu.cpu.mode import CR0_PG, EFER_LMA, EFER_LME, EFER_NXE, EFER_SCE
from pyemu.cpu.primitives import call_service, service
from pyemu.cpu.state import (
    CR0,
    CSTAR,
    DEBUGCTL,
    EFER,
    FS,
    GPR,
    GS,
    KERNEL_GS_BASE,
    LSTAR,
    M64,
    MC_ADDR,
    MC_CTL,
    MC_MISC,
    MCG_CTL,
    MISC_ENABLE,
    MSR_SCRATCH,
    MTRR_DEF_TYPE,
    MTRR_FIXED,
    MTRR_VARIABLE,
    PAT,
    PKRS,
    RCX,
    SEG_BASE,
    SFMASK,
    STAR,
    SYSENTER_CS,
    SYSENTER_EIP,
    SYSENTER_ESP,
    TSC_AUX,
    TSC_OFFSET,
    VALUE,
    State,
)

# Architectural registers
IA32_TSC_ADJUST = 0x3B
IA32_P5_MC = (0x00, 0x01)  # P5_MC_ADDR, P5_MC_TYPE
IA32_PKRS = 0x6E1
IA32_XSS = 0xDA0
IA32_MCG_CAP, IA32_MCG_STATUS, IA32_MCG_CTL, IA32_MC0_CTL = 0x179, 0x17A, 0x17B, 0x400
IA32_TSC, IA32_APIC_BASE, IA32_PLATFORM_ID, IA32_BIOS_SIGN_ID = 0x10, 0x1B, 0x17, 0x8B
IA32_MTRRCAP, IA32_MTRR_PHYSBASE0, IA32_MTRR_DEF_TYPE = 0xFE, 0x200, 0x2FF
IA32_SYSENTER_CS, IA32_SYSENTER_ESP, IA32_SYSENTER_EIP = 0x174, 0x175, 0x176
IA32_MISC_ENABLE, IA32_DEBUGCTL, IA32_PAT, IA32_TSC_DEADLINE = 0x1A0, 0x1D9, 0x277, 0x6E0
IA32_LAST_BRANCH = (0x1DB, 0x1DC, 0x1DD, 0x1DE)  # LASTBRANCHFROMIP ... LASTINTTOIP: never recorded
X2APIC_FIRST, X2APIC_LAST = 0x800, 0x8FF
IA32_EFER, IA32_STAR, IA32_LSTAR, IA32_CSTAR, IA32_FMASK = 0xC0000080, 0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084
IA32_FS_BASE, IA32_GS_BASE, IA32_KERNEL_GS_BASE, IA32_TSC_AUX = 0xC0000100, 0xC0000101, 0xC0000102, 0xC0000103
MTRR_FIXED_NUMBERS = (0x250, 0x258, 0x259, *range(0x268, 0x270))

# AMD family 0Fh (BKDG 26094): read and written by Linux and Xen without a check
AMD_PERFORMANCE = range(0xC0010000, 0xC0010008)  # PerfEvtSel0-3 and PerfCtr0-3: nothing is counted, as in QEMU's TCG
AMD_SYSCFG, AMD_HWCR, AMD_TOP_MEM, AMD_TOP_MEM2 = 0xC0010010, 0xC0010015, 0xC001001A, 0xC001001D
AMD_INT_PENDING = 0xC0010055
AMD_DE_CFG, AMD_LS_CFG, AMD_DC_CFG, AMD_BU_CFG = 0xC0011029, 0xC0011020, 0xC0011022, 0xC0011023
AMD_IORR = range(0xC0010016, 0xC001001A)

VARIABLE_MTRRS = 8
MTRRCAP = VARIABLE_MTRRS | 1 << 8 | 1 << 10  # fixed ranges, write combining
MCA_BANKS = 10
MCG_CAP = MCA_BANKS | 1 << 8 | 1 << 24  # IA32_MCG_CTL, software error recovery: as QEMU's
# A bank's control takes all bits or none, as in KVM: no bank here has a source of errors of its own. Bit 10 may be
# left out, which Linux does for bank 4 of AMD's processors, and bit 0.
MC_CTL_LEFT_OUT = 1 << 10 | 1
MTRR_DEF_BITS = 0xCFF  # E, FE, type
MTRR_MASK_VALID = 1 << 11
EFER_FEATURES = {"syscall": EFER_SCE, "lm": EFER_LME, "nx": EFER_NXE}  # without any of them there is no EFER
MISC_FAST_STRINGS = 1
MISC_BITS = sum(1 << bit for bit in (0, 3, 7, 11, 12, 16, 18, 22, 23, 34))  # kept, without an effect (SDM 4, table 2-2)
DEBUGCTL_BITS = 1 << 0 | 1 << 1  # LBR, BTF
UNCACHEABLE, WRITE_BACK = 0, 6
MEMORY_TYPES = frozenset((UNCACHEABLE, 1, 4, 5, WRITE_BACK))  # UC WC WT WP WB (SDM 3, table 12-2)
PAT_TYPES = MEMORY_TYPES | {7}  # and UC- (SDM 3, table 12-10)
M32 = 0xFFFFFFFF


@dataclass(frozen=True)
class Plain:
    """A register that is a word of State: what may be written, and whether it has to be a canonical address."""

    word: int
    writable: int = M64  # other bits are reserved: #GP
    canonical: bool = False


@dataclass(frozen=True)
class Fixed:
    """A register that reads as a constant and ignores writes, or refuses them."""

    value: int
    ignores_writes: bool = True


def _scratch(number: int) -> Plain:
    return Plain(MSR_SCRATCH + number)


REGISTERS: dict[int, Plain | Fixed] = {
    IA32_PLATFORM_ID: Fixed(0, ignores_writes=False),
    IA32_BIOS_SIGN_ID: Fixed(0),  # no microcode; written with 0 before it is read
    IA32_MTRRCAP: Fixed(MTRRCAP, ignores_writes=False),
    IA32_SYSENTER_CS: Plain(SYSENTER_CS, M32),
    IA32_SYSENTER_ESP: Plain(SYSENTER_ESP, canonical=True),
    IA32_SYSENTER_EIP: Plain(SYSENTER_EIP, canonical=True),
    IA32_DEBUGCTL: Plain(DEBUGCTL, DEBUGCTL_BITS),
    IA32_STAR: Plain(STAR),
    IA32_LSTAR: Plain(LSTAR, canonical=True),
    IA32_CSTAR: Plain(CSTAR, canonical=True),
    IA32_FMASK: Plain(SFMASK, M32),
    IA32_FS_BASE: Plain(SEG_BASE + FS, canonical=True),
    IA32_GS_BASE: Plain(SEG_BASE + GS, canonical=True),
    IA32_KERNEL_GS_BASE: Plain(KERNEL_GS_BASE, canonical=True),
    **dict.fromkeys(IA32_LAST_BRANCH, Fixed(0, ignores_writes=False)),  # read-only (AMD BKDG)
    AMD_SYSCFG: _scratch(0),
    AMD_HWCR: _scratch(1),
    AMD_DE_CFG: _scratch(2),
    AMD_LS_CFG: _scratch(3),
    AMD_DC_CFG: _scratch(4),
    AMD_BU_CFG: _scratch(5),
    AMD_TOP_MEM: _scratch(6),
    AMD_TOP_MEM2: _scratch(7),
    AMD_INT_PENDING: Fixed(0),
    **dict.fromkeys(AMD_IORR, Fixed(0)),
    **dict.fromkeys(AMD_PERFORMANCE, Fixed(0)),
}


def _is_apic(index: int) -> bool:
    return index == IA32_APIC_BASE or X2APIC_FIRST <= index <= X2APIC_LAST


def _is_machine_check(index: int) -> bool:
    banks = range(IA32_MC0_CTL, IA32_MC0_CTL + 4 * MCA_BANKS)
    return index in IA32_P5_MC or IA32_MCG_CAP <= index <= IA32_MCG_CTL or index in banks


def _has_banks(s: State) -> bool:
    return announces(s, "mce") and announces(s, "mca")


def _bank_word(index: int) -> int | None:
    """The State word of a bank's control, address or further information."""
    bank, register = divmod(index - IA32_MC0_CTL, 4)
    first = (MC_CTL, None, MC_ADDR, MC_MISC)[register]
    return None if first is None or index < IA32_MC0_CTL else first + bank


def _read_machine_check(s: State, index: int) -> int | None:
    """SDM 3, 15.3. Nothing here ever fails: status is 0, address and further information what was written there."""
    if index in IA32_P5_MC:
        return 0 if announces(s, "mce") else None
    if index == IA32_MCG_CAP:
        return MCG_CAP if _has_banks(s) else 0  # some read it without asking CPUID for MCA
    if not _has_banks(s):
        return None
    if index == IA32_MCG_CTL:
        return _word(s, MCG_CTL)
    field = _bank_word(index)
    return 0 if field is None else _word(s, field)


def _write_machine_check(s: State, index: int, value: int) -> bool:
    """Status can only be cleared (15.3.1.2, 15.3.2.2); controls take everything or nothing."""
    if index in (*IA32_P5_MC, IA32_MCG_CAP) or not _has_banks(s):
        return False
    field = MCG_CTL if index == IA32_MCG_CTL else _bank_word(index)
    if field is None:
        return value == 0
    if index == IA32_MCG_CTL and value not in (0, M64):  # 15.3.1.3: other values mean nothing
        return False
    if MC_CTL <= field < MC_CTL + MCA_BANKS and value and value | MC_CTL_LEFT_OUT != M64:
        return False
    s[field] = value
    return True


def _mtrr_word(index: int) -> int | None:
    """The State word of a range register of the MTRRs."""
    if IA32_MTRR_PHYSBASE0 <= index < IA32_MTRR_PHYSBASE0 + 2 * VARIABLE_MTRRS:
        return MTRR_VARIABLE + index - IA32_MTRR_PHYSBASE0
    if index in MTRR_FIXED_NUMBERS:
        return MTRR_FIXED + MTRR_FIXED_NUMBERS.index(index)
    return MTRR_DEF_TYPE if index == IA32_MTRR_DEF_TYPE else None


def _mtrr_accepts(index: int, value: int) -> bool:
    """SDM 3, 12.11.2: reserved bits and memory types."""
    if index == IA32_MTRR_DEF_TYPE:
        return not value & ~MTRR_DEF_BITS and value & 0xFF in MEMORY_TYPES
    if index in MTRR_FIXED_NUMBERS:
        return all(byte in MEMORY_TYPES for byte in value.to_bytes(8, "little"))
    if index & 1:
        return not value & ~(physical.PHYSICAL_MASK & ~0xFFF | MTRR_MASK_VALID)
    return not value & ~(physical.PHYSICAL_MASK & ~0xFFF | 0xFF) and value & 0xFF in MEMORY_TYPES


def _offset(s: State, ticks: int) -> int:
    """The machine's time-stamp counter as the guest sees it."""
    guest: int = (ticks + s[TSC_OFFSET]) & M64
    return guest


def _word(s: State, index: int) -> int:
    word: int = s[index]
    return word


def read(s: State, index: int) -> int | None:
    """A register's value, or None if there is none of that number."""
    if _is_apic(index):
        return s.host.apic_msr_read(index)
    if _is_machine_check(index):
        return _read_machine_check(s, index)
    if index == IA32_TSC_DEADLINE:
        deadline = s.host.apic_msr_read(index) if announces(s, "tsc-deadline") else None
        return _offset(s, deadline) if deadline else deadline
    if index == IA32_TSC:
        return _offset(s, s.host.read_tsc())
    if index == IA32_TSC_ADJUST:
        return _word(s, TSC_OFFSET) if announces(s, "tsc-adjust") else None
    if index == IA32_TSC_AUX:
        return _word(s, TSC_AUX) if announces(s, "rdtscp") else None
    if index == IA32_PKRS:
        return _word(s, PKRS) if announces(s, "pks") else None
    if index == IA32_EFER:
        return _word(s, EFER) if _efer_bits(s) else None
    if index == IA32_XSS:
        return 0 if announces(s, "xsaves") else None
    words = {IA32_MISC_ENABLE: MISC_ENABLE, IA32_PAT: PAT}
    word = words.get(index, _mtrr_word(index))
    if word is not None:
        return _word(s, word)
    register = REGISTERS.get(index)
    if isinstance(register, Fixed):
        return register.value
    return _word(s, register.word) if register else None


def _efer_bits(s: State) -> int:
    return sum(bit for feature, bit in EFER_FEATURES.items() if announces(s, feature))


def _write_efer(s: State, value: int) -> bool:
    """SDM 4, table 2-2: LMA is read-only, and LME can't change while paging is on."""
    old = s[EFER]
    writable = _efer_bits(s)
    if not writable or value & ~(writable | EFER_LMA) or ((old ^ value) & EFER_LME and s[CR0] & CR0_PG):
        return False
    s[EFER] = (value & writable) | (old & EFER_LMA)
    if (old ^ s[EFER]) & EFER_NXE:
        tlb.flush_all(s)
    mode.update(s)
    return True


def _write_special(s: State, index: int, value: int) -> bool | None:
    """Registers with rules of their own; None for any other."""
    if _is_apic(index):
        return s.host.apic_msr_write(index, value)
    if _is_machine_check(index):
        return _write_machine_check(s, index, value)
    if index == IA32_TSC_DEADLINE:
        deadline = (value - s[TSC_OFFSET]) & M64 if value else 0
        return announces(s, "tsc-deadline") and s.host.apic_msr_write(index, deadline)
    if index == IA32_TSC:
        s[TSC_OFFSET] = (value - s.host.read_tsc()) & M64
        return True
    if index == IA32_TSC_ADJUST:  # what was added to the counter, by whichever register (SDM 3, 17.17.3)
        if not announces(s, "tsc-adjust"):
            return False
        s[TSC_OFFSET] = value
        return True
    if index == IA32_EFER:
        return _write_efer(s, value)
    if index == IA32_TSC_AUX:
        if value > M32 or not announces(s, "rdtscp"):
            return False
        s[TSC_AUX] = value
        return True
    if index == IA32_PKRS:
        if value > M32 or not announces(s, "pks"):
            return False
        set_keys(s, PKRS, value, mode.CR4_PKS)
        return True
    if index == IA32_XSS:  # no supervisor components
        return value == 0 and announces(s, "xsaves")
    if index == IA32_MISC_ENABLE:
        if value & ~MISC_BITS:
            return False
        s[MISC_ENABLE] = value
        return True
    if index == IA32_PAT:
        if not all(byte in PAT_TYPES for byte in value.to_bytes(8, "little")):
            return False
        s[PAT] = value
        return True
    word = _mtrr_word(index)
    if word is None:
        return None
    if not _mtrr_accepts(index, value):
        return False
    s[word] = value
    return True


def write(s: State, index: int, value: int) -> bool:
    """Change a register; False if it refuses (or doesn't exist)."""
    special = _write_special(s, index, value)
    if special is not None:
        return special
    register = REGISTERS.get(index)
    if register is None:
        return False
    if isinstance(register, Fixed):
        return register.ignores_writes
    if value & ~register.writable or (register.canonical and not mode.is_canonical_base(s, value)):
        return False
    s[register.word] = value
    return True


def set_memory_types(s: State, hole: int) -> None:
    """Write-back by default, uncacheable from `hole` (start of the PCI hole, 2^n below 4 GiB) to 4 GiB."""
    s[MTRR_DEF_TYPE] = 0xC00 | WRITE_BACK
    for n in range(len(MTRR_FIXED_NUMBERS)):
        s[MTRR_FIXED + n] = 0x0101010101010101 * WRITE_BACK
    for n in range(2 * VARIABLE_MTRRS):
        s[MTRR_VARIABLE + n] = 0
    s[MTRR_VARIABLE] = hole | UNCACHEABLE
    s[MTRR_VARIABLE + 1] = (physical.PHYSICAL_MASK & ~((1 << 32) - hole - 1)) | MTRR_MASK_VALID


def _read_service(s: State, index: int, _b: int) -> int:
    value = read(s, index)
    if value is None:
        return 1
    s[VALUE] = value
    return 0


def _write_service(s: State, index: int, value: int) -> int:
    return 0 if write(s, index, value) else 1


READ_MSR, WRITE_MSR = service(_read_service), service(_write_service)


# ---- mechanism ------------------------------------------------------------------------------------------------------
def base_word(index: int) -> int:
    """The State word of a segment base register, or 0."""
    if index == IA32_FS_BASE:
        return SEG_BASE + FS
    if index == IA32_GS_BASE:
        return SEG_BASE + GS
    if index == IA32_KERNEL_GS_BASE:
        return KERNEL_GS_BASE
    return 0


def rdmsr(s: State) -> int:
    """EDX:EAX = MSR[ECX]."""
    if privileged(s):
        return 1
    index = s[GPR + RCX] & M32
    word = base_word(index)
    if word:
        s[VALUE] = s[word]
    elif call_service(s, READ_MSR, index, 0):
        return raise_fault(s, GP, 0)
    hooks.event(s, hooks.MSR, index, s[VALUE])
    return put_edx_eax(s, s[VALUE])


def wrmsr(s: State) -> int:
    """MSR[ECX] = EDX:EAX."""
    if privileged(s):
        return 1
    index = s[GPR + RCX] & M32
    value = get_edx_eax(s)
    word = base_word(index)
    if word and mode.is_canonical_base(s, value):
        s[word] = value
    elif call_service(s, WRITE_MSR, index, value):
        return raise_fault(s, GP, 0)
    hooks.event(s, hooks.MSR, index | 1 << 32, value)
    return 0
