"""The registers as gdb sees them: target descriptions, and reading and writing by number (gdb manual, G.5.17).

There are two: `i386:x86-64` for a processor in long mode, and for one outside it `i386` or `i8086`, by the size of its
code, because gdb takes from the description how to disassemble. Numbers are positions in the description. Outside
64-bit mode the program counter is CS.base + (E)IP: gdb knows no segments, and compares it with addresses. The registers
that only a system sees are a feature of our own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pyemu.cpu import debug, mode, segments
from pyemu.cpu.control_registers import DR6_ONES, DR6_WRITABLE, DR7_ONES, DR7_WRITABLE
from pyemu.cpu.flags import eflags, set_eflags
from pyemu.cpu.fpu_environment import abridge, tag_word
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
    FCS,
    FCW,
    FDP,
    FDS,
    FIP,
    FOP,
    FPR,
    FS,
    FSW,
    FTW,
    GDT_BASE,
    GDT_LIMIT,
    GPR,
    GS,
    HALTED,
    IDT_BASE,
    IDT_LIMIT,
    KERNEL_GS_BASE,
    LDT_BASE,
    LDT_SEL,
    M64,
    MODE,
    MXCSR,
    OPMASK,
    PKRU,
    RIP,
    SEG_BASE,
    SEG_SEL,
    TR_BASE,
    TR_SEL,
    VEC,
    XCR0,
    XCR0_ALLOWED,
    State,
)
from pyemu.registers import arrive, linear_rip
from pyemu.registers import bits as code_bits

# What a debugger may change of RFLAGS: all but RF, VM, VIF and VIP, which the processor's mode hangs on (SDM 1, 3.4.3).
_FLAGS_WRITABLE = 0x24_7FD5
_MXCSR_WRITABLE = 0xFFFF
_XCR0_AVX, _XCR0_AVX512 = 1 << 2, 7 << 5
_SEGMENTS = {"cs": 1, "ss": 2, "ds": 3, "es": 0, "fs": 4, "gs": 5}
_ORDER64 = {"rax": 0, "rbx": 3, "rcx": 1, "rdx": 2, "rsi": 6, "rdi": 7, "rbp": 5, "rsp": 4}
_ORDER32 = {"eax": 0, "ecx": 1, "edx": 2, "ebx": 3, "esp": 4, "ebp": 5, "esi": 6, "edi": 7}
_PREFIX = "org.gnu.gdb.i386."
SYSTEM_FEATURE = "org.pyemu.gdb.i386.system"

Get = Callable[[State], int]
Set = Callable[[State, int], None]


@dataclass(frozen=True)
class Register:
    """One register; without `set` it can't be written. `remaps`: writing it changes what addresses mean."""

    name: str
    bits: int
    type: str
    get: Get
    set: Set | None = None
    group: str = ""
    remaps: bool = False


@dataclass(frozen=True)
class Feature:
    """Registers that gdb knows under one name, with the types that they need."""

    name: str
    registers: list[Register]
    types: str = ""


@dataclass
class Description:
    """All of it, and its XML."""

    architecture: str
    features: list[Feature]
    registers: list[Register] = field(init=False)

    def __post_init__(self) -> None:
        self.registers = [register for feature in self.features for register in feature.registers]

    @property
    def xml(self) -> str:
        lines = [
            '<?xml version="1.0"?>',
            '<!DOCTYPE target SYSTEM "gdb-target.dtd">',
            "<target>",
            f"<architecture>{self.architecture}</architecture>",
        ]
        for feature in self.features:
            lines.append(f'<feature name="{feature.name}">')
            lines += [feature.types] if feature.types else []
            for r in feature.registers:
                group = f' group="{r.group}"' if r.group else ""
                lines.append(f'<reg name="{r.name}" bitsize="{r.bits}" type="{r.type}"{group}/>')
            lines.append("</feature>")
        return "\n".join([*lines, "</target>"])

    def number(self, name: str) -> int:
        for n, register in enumerate(self.registers):
            if register.name == name:
                return n
        raise KeyError(name)


# ---- how registers are read and written -----------------------------------------------------------------------------
def word(index: int, width: int = 64, mask: int | None = None) -> tuple[Get, Set]:
    """A word of State; `mask`: the bits that may be written."""
    low = (1 << width) - 1
    keep = low if mask is None else mask

    def write(s: State, value: int) -> None:
        s[index] = (s[index] & ~keep & M64) | (value & keep)

    return lambda s: s[index] & low, write


def words(index: int, count: int) -> tuple[Get, Set]:
    """Several, lowest first."""

    def read(s: State) -> int:
        return sum(s[index + k] << (64 * k) for k in range(count))

    def write(s: State, value: int) -> None:
        for k in range(count):
            s[index + k] = value >> (64 * k) & M64

    return read, write


def _narrow(index: int) -> tuple[Get, Set]:
    """A 32-bit view of a general register; writing it clears the rest, as instructions do."""

    def write(s: State, value: int) -> None:
        s[index] = value & 0xFFFFFFFF

    return lambda s: s[index] & 0xFFFFFFFF, write


def _set_program_counter(s: State, value: int) -> None:
    if s[MODE] & mode.CODE64:
        s[RIP] = value
    else:
        s[RIP] = (value - s[SEG_BASE + CS]) & 0xFFFFFFFF
    arrive(s)
    s[HALTED] = 0


def _set_flags(s: State, value: int) -> None:
    set_eflags(s, value, _FLAGS_WRITABLE)
    mode.update(s)


def _selector(number: int) -> tuple[Get, Set]:
    """A segment register can be loaded where that means no more than its base: in real and virtual-8086 mode."""

    def write(s: State, value: int) -> None:
        if not s[MODE] & mode.PROTECTED or s[MODE] & mode.V86:
            segments.set_real(s, number, value)
            mode.update(s)

    return lambda s: s[SEG_SEL + number], write


def _stack_register(n: int) -> tuple[Get, Set]:
    """ST(n), counted from the top as gdb does; the registers themselves don't move."""

    def at(s: State) -> int:
        return FPR + 2 * ((s[FSW] >> 11 & 7) + n & 7)

    def write(s: State, value: int) -> None:
        s[at(s)], s[at(s) + 1] = value & M64, value >> 64 & 0xFFFF

    return lambda s: s[at(s)] | (s[at(s) + 1] & 0xFFFF) << 64, write


def _set_tags(s: State, value: int) -> None:
    s[FTW] = abridge(value & 0xFFFF)


def _set_debug(n: int) -> Set:
    def write(s: State, value: int) -> None:
        if n == 6:
            value = DR6_ONES | value & DR6_WRITABLE
        elif n == 7:
            value = DR7_ONES | value & DR7_WRITABLE
        s[DR + n] = value
        debug.refresh(s)

    return write


# ---- features ------------------------------------------------------------------------------------------------------
_EFLAGS_TYPE = """<flags id="i386_eflags" size="4">
<field name="" start="22" end="31"/><field name="ID" start="21" end="21"/><field name="VIP" start="20" end="20"/>
<field name="VIF" start="19" end="19"/><field name="AC" start="18" end="18"/><field name="VM" start="17" end="17"/>
<field name="RF" start="16" end="16"/><field name="NT" start="14" end="14"/><field name="OF" start="11" end="11"/>
<field name="DF" start="10" end="10"/><field name="IF" start="9" end="9"/><field name="TF" start="8" end="8"/>
<field name="SF" start="7" end="7"/><field name="ZF" start="6" end="6"/><field name="AF" start="4" end="4"/>
<field name="PF" start="2" end="2"/><field name="" start="1" end="1"/><field name="CF" start="0" end="0"/></flags>"""
_VECTOR_TYPE = """<vector id="v4f" type="ieee_single" count="4"/><vector id="v2d" type="ieee_double" count="2"/>
<vector id="v16i8" type="int8" count="16"/><vector id="v8i16" type="int16" count="8"/>
<vector id="v4i32" type="int32" count="4"/><vector id="v2i64" type="int64" count="2"/>
<union id="vec128"><field name="v4_float" type="v4f"/><field name="v2_double" type="v2d"/>
<field name="v16_int8" type="v16i8"/><field name="v8_int16" type="v8i16"/><field name="v4_int32" type="v4i32"/>
<field name="v2_int64" type="v2i64"/><field name="uint128" type="uint128"/></union>"""
_MXCSR_TYPE = """<flags id="i386_mxcsr" size="4">
<field name="IE" start="0" end="0"/><field name="DE" start="1" end="1"/>
<field name="ZE" start="2" end="2"/><field name="OE" start="3" end="3"/><field name="UE" start="4" end="4"/>
<field name="PE" start="5" end="5"/><field name="DAZ" start="6" end="6"/><field name="IM" start="7" end="7"/>
<field name="DM" start="8" end="8"/><field name="ZM" start="9" end="9"/><field name="OM" start="10" end="10"/>
<field name="UM" start="11" end="11"/><field name="PM" start="12" end="12"/><field name="FZ" start="15" end="15"/>
</flags>"""
_WIDE_TYPE = '<vector id="v2ui128" type="uint128" count="2"/>'


def core(wide: bool) -> Feature:
    """General registers, program counter, flags, selectors, x87."""
    registers = []
    for name, n in (_ORDER64 if wide else _ORDER32).items():
        kind = "data_ptr" if name[1:] in ("sp", "bp") else f"int{64 if wide else 32}"
        registers.append(Register(name, 64 if wide else 32, kind, *(word(GPR + n) if wide else _narrow(GPR + n))))
    if wide:
        registers += [Register(f"r{n}", 64, "int64", *word(GPR + n)) for n in range(8, 16)]
    registers += [
        Register("rip" if wide else "eip", 64 if wide else 32, "code_ptr", linear_rip, _set_program_counter),
        Register("eflags", 32, "i386_eflags", lambda s: eflags(s) & 0xFFFFFFFF, _set_flags),
    ]
    registers += [Register(name, 32, "int32", *_selector(n)) for name, n in _SEGMENTS.items()]
    registers += [Register(f"st{n}", 80, "i387_ext", *_stack_register(n)) for n in range(8)]
    fields: tuple[tuple[str, tuple[Get, Set]], ...] = (
        ("fctrl", word(FCW, 16)), ("fstat", word(FSW, 16)), ("ftag", (tag_word, _set_tags)), ("fiseg", word(FCS, 16)),
        ("fioff", word(FIP, 32)), ("foseg", word(FDS, 16)), ("fooff", word(FDP, 32)), ("fop", word(FOP, 11)),
    )  # fmt: skip
    registers += [Register(name, 32, "int", *access, group="float") for name, access in fields]
    return Feature(_PREFIX + "core", registers, _EFLAGS_TYPE)


def vector_features(s: State, wide: bool) -> Iterator[Feature]:
    """SSE, and what else the processor has."""
    count = 16 if wide else 8
    xmm = [Register(f"xmm{n}", 128, "vec128", *words(VEC + 8 * n, 2)) for n in range(count)]
    mxcsr = Register("mxcsr", 32, "i386_mxcsr", *word(MXCSR, 32, _MXCSR_WRITABLE), group="vector")
    yield Feature(_PREFIX + "sse", [*xmm, mxcsr], _VECTOR_TYPE + _MXCSR_TYPE)
    if not s[XCR0_ALLOWED] & _XCR0_AVX:
        return
    upper = [Register(f"ymm{n}h", 128, "uint128", *words(VEC + 8 * n + 2, 2)) for n in range(count)]
    yield Feature(_PREFIX + "avx", upper)
    if s[XCR0_ALLOWED] & _XCR0_AVX512 != _XCR0_AVX512:
        return
    registers = [Register(f"k{n}", 64, "uint64", *word(OPMASK + n)) for n in range(8)]
    registers += [Register(f"zmm{n}h", 256, "v2ui128", *words(VEC + 8 * n + 4, 4)) for n in range(count)]
    if wide:
        registers += [Register(f"xmm{n}", 128, "vec128", *words(VEC + 8 * n, 2)) for n in range(16, 32)]
        registers += [Register(f"ymm{n}h", 128, "uint128", *words(VEC + 8 * n + 2, 2)) for n in range(16, 32)]
        registers += [Register(f"zmm{n}h", 256, "v2ui128", *words(VEC + 8 * n + 4, 4)) for n in range(16, 32)]
    yield Feature(_PREFIX + "avx512", registers, _VECTOR_TYPE + _WIDE_TYPE)


def system(task_priority: Get, wide: bool) -> Feature:
    """What only a system sees. Control registers that decide the mode are shown, not written: one alone would make a
    state that no processor gets into."""
    found: list[tuple[str, Get, Set | None]] = []
    if not wide:
        found += [("fs_base", *word(SEG_BASE + FS)), ("gs_base", *word(SEG_BASE + GS))]
    found += [(f"{name}_base", word(SEG_BASE + n)[0], None) for name, n in _SEGMENTS.items() if name[0] not in "fg"]
    found += [
        ("k_gs_base", *word(KERNEL_GS_BASE)),
        ("cr2", *word(CR2)),
        ("cr3", *word(CR3)),
        ("cr8", task_priority, None),
    ]
    shown = {
        "cr0": CR0, "cr4": CR4, "efer": EFER, "xcr0": XCR0, "cpl": CPL, "gdt_base": GDT_BASE, "gdt_limit": GDT_LIMIT,
        "idt_base": IDT_BASE, "idt_limit": IDT_LIMIT, "ldtr": LDT_SEL, "ldt_base": LDT_BASE, "tr": TR_SEL,
        "tr_base": TR_BASE,
    }  # fmt: skip
    found += [(name, word(index)[0], None) for name, index in shown.items()]
    registers = [Register(name, 64, "uint64", get, put, "system", name == "cr3") for name, get, put in found]
    registers += [
        Register(f"dr{n}", 64, "uint64", word(DR + n)[0], _set_debug(n), "system") for n in (0, 1, 2, 3, 6, 7)
    ]
    return Feature(SYSTEM_FEATURE, registers)


def architecture(s: State) -> str:
    """gdb's name for what the processor executes now."""
    if s[MODE] & mode.LONG_MODE:
        return "i386:x86-64"
    return "i386" if code_bits(s) == 32 else "i8086"


def describe(s: State, name: str, task_priority: Get) -> Description:
    """The description for one of those names."""
    wide = name == "i386:x86-64"
    features = [core(wide), *vector_features(s, wide)]
    if wide:
        bases = [("fs_base", SEG_BASE + FS), ("gs_base", SEG_BASE + GS)]
        features.append(Feature(_PREFIX + "segments", [Register(n, 64, "int", *word(at)) for n, at in bases]))
    if s[CR4_ALLOWED] & mode.CR4_PKE and wide:
        features.append(Feature(_PREFIX + "pkeys", [Register("pkru", 32, "int", *word(PKRU, 32))]))
    return Description(name, [*features, system(task_priority, wide)])
