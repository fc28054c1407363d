"""Registers of a stopped vCPU by name, and as text in the manner of QEMU's `info registers`."""

from __future__ import annotations

from collections.abc import Callable

from pyemu.cpu.flags import eflags, set_eflags
from pyemu.cpu.state import (
    CPL,
    CR0,
    CR2,
    CR3,
    CR4,
    CS,
    DR,
    EFER,
    FCW,
    FPR,
    FSW,
    FTW,
    GDT_BASE,
    GDT_LIMIT,
    GPR,
    HALTED,
    HOOK_HYPERCALL_TOLD,
    HOOK_PASSED,
    HYPERCALL_ANSWERED,
    ICOUNT,
    IDT_BASE,
    IDT_LIMIT,
    LDT_ATTR,
    LDT_BASE,
    LDT_LIMIT,
    LDT_SEL,
    M64,
    MXCSR,
    RIP,
    SEG_ATTR,
    SEG_BASE,
    SEG_LIMIT,
    SEG_SEL,
    SHADOW,
    TR_ATTR,
    TR_BASE,
    TR_LIMIT,
    TR_SEL,
    VEC,
    State,
)

GPR_NAMES = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
_SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs")
WORDS: dict[str, int] = {
    **{name: GPR + i for i, name in enumerate(GPR_NAMES)},
    **{name: SEG_SEL + i for i, name in enumerate(_SEGMENTS)},
    **{f"{name}_base": SEG_BASE + i for i, name in enumerate(_SEGMENTS)},
    "rip": RIP, "cr0": CR0, "cr2": CR2, "cr3": CR3, "cr4": CR4, "efer": EFER, "cpl": CPL,
    "gdt_base": GDT_BASE, "gdt_limit": GDT_LIMIT, "idt_base": IDT_BASE, "idt_limit": IDT_LIMIT,
    "mxcsr": MXCSR, "dr6": DR + 6, "dr7": DR + 7,
}  # fmt: skip
# Selectors, privilege and mode bits are consequences of others: changing one alone would make an impossible state.
_WRITABLE = {*GPR_NAMES, "rip", "cr2", "mxcsr", "rflags"}

# Bits of a descriptor's upper word, from bit 8 on (SDM 3, figure 3-8).
_ATTR_CODE, _ATTR_S, _ATTR_P, _ATTR_L, _ATTR_DB, _ATTR_G = 1 << 3, 1 << 4, 1 << 7, 1 << 13, 1 << 14, 1 << 15
_EFER_LMA = 1 << 10


def _check(name: str, value: int) -> None:
    if name not in _WRITABLE:
        raise KeyError(f"register {name} can't be written here (can: {', '.join(sorted(_WRITABLE))})")
    if not 0 <= value <= M64:
        raise ValueError(f"{value:#x} doesn't fit a 64-bit register")


def arrive(s: State) -> None:
    """RIP has been set: what is hooked there has not been met, and a hypercall there has not been answered."""
    s[HOOK_PASSED] = s[HOOK_HYPERCALL_TOLD] = s[HYPERCALL_ANSWERED] = 0


class Registers:
    """`regs.rax`, `regs["rax"]`; rflags is computed. Only while the machine is stopped."""

    __slots__ = ("_change", "_s")
    _s: State
    _change: Callable[[str, int], object]

    def __init__(self, s: State, change: Callable[[str, int], object]) -> None:
        """`change` is what writing calls, to have `put` called in its turn."""
        object.__setattr__(self, "_s", s)
        object.__setattr__(self, "_change", change)

    def __getitem__(self, name: str) -> int:
        if name == "rflags":
            return eflags(self._s)
        return int(self._s[WORDS[name]])

    def __setitem__(self, name: str, value: int) -> None:
        _check(name, value)
        self._change(name, value)

    def put(self, name: str, value: int) -> None:
        """Change one of those that may be."""
        _check(name, value)
        if name == "rflags":
            set_eflags(self._s, value, M64)
        else:
            self._s[WORDS[name]] = value
        if name == "rip":
            arrive(self._s)

    def __getattr__(self, name: str) -> int:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no register {name}") from None

    def __setattr__(self, name: str, value: int) -> None:
        self[name] = value

    def as_dict(self) -> dict[str, int]:
        return {name: self[name] for name in [*WORDS, "rflags"]}


def linear_rip(s: State) -> int:
    """Where the next instruction is: CS.base + IP outside 64-bit mode."""
    if bits(s) == 64:
        return int(s[RIP])
    return int((s[RIP] + s[SEG_BASE + CS]) & 0xFFFF_FFFF)


def bits(s: State) -> int:
    """16, 32 or 64: how the code at CS:RIP is decoded."""
    attributes = s[SEG_ATTR + CS]
    if s[EFER] & _EFER_LMA and attributes & _ATTR_L:
        return 64
    return 32 if attributes & _ATTR_DB else 16


def _flag_letters(flags: int) -> str:
    pairs = ((11, "O"), (10, "D"), (7, "S"), (6, "Z"), (4, "A"), (2, "P"), (0, "C"))
    return "".join(letter if flags >> bit & 1 else "-" for bit, letter in pairs)


# System descriptors by type, in long mode and outside it (SDM 3, table 3-2), as QEMU calls them.
_SYSTEM = (
    "Reserved", "TSS16-avl", "LDT", "TSS16-busy", "CallGate16", "TaskGate", "IntGate16", "TrapGate16", "Reserved",
    "TSS32-avl", "Reserved", "TSS32-busy", "CallGate32", "Reserved", "IntGate32", "TrapGate32",
)  # fmt: skip
_SYSTEM_LONG = (
    "<hiword>", "Reserved", "LDT", "Reserved", "Reserved", "Reserved", "Reserved", "Reserved", "Reserved",
    "TSS64-avl", "Reserved", "TSS64-busy", "CallGate64", "Reserved", "IntGate64", "TrapGate64",
)  # fmt: skip


def dump(s: State, vectors: bool = True) -> str:
    """All of it, as text: QEMU's, which has 32-bit names and widths outside 64-bit mode; the instruction count is ours.
    There is no SMM, and address line 20 is always there."""
    is_64, is_long = bits(s) == 64, bool(s[EFER] & _EFER_LMA)
    digits = 16 if is_64 else 8

    def shown(name: str, value: int) -> str:
        return f"{('R' if is_64 else 'E') + name}={value & (M64 >> (64 - 4 * digits)):0{digits}x}"

    lines = []
    order = [GPR_NAMES.index(f"r{name}") for name in ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp")]
    for row in (order[:4], order[4:]):
        lines.append(" ".join(shown(GPR_NAMES[n][1:].upper(), s[GPR + n]) for n in row))
    for row in ([*range(8, 12)], [*range(12, 16)]) if is_64 else ():
        lines.append(" ".join(f"{f'R{n}':3}={s[GPR + n]:016x}" for n in row))
    flags = eflags(s)
    lines.append(
        f"{shown('IP', s[RIP])} {'RFL' if is_64 else 'EFL'}={flags:08x} [{_flag_letters(flags)}] CPL={s[CPL]} "
        f"II={int(s[SHADOW] > s[ICOUNT])} A20=1 SMM=0 HLT={s[HALTED]} icount={s[ICOUNT]}"
    )
    for i, name in enumerate(_SEGMENTS):
        lines.append(_segment(s, name.upper(), SEG_SEL + i, SEG_BASE + i, SEG_LIMIT + i, SEG_ATTR + i))
    lines.append(_segment(s, "LDT", LDT_SEL, LDT_BASE, LDT_LIMIT, LDT_ATTR))
    lines.append(_segment(s, "TR", TR_SEL, TR_BASE, TR_LIMIT, TR_ATTR))
    wide = 16 if is_long else 8
    lines.append(f"GDT=     {s[GDT_BASE]:0{wide}x} {s[GDT_LIMIT]:08x}")
    lines.append(f"IDT=     {s[IDT_BASE]:0{wide}x} {s[IDT_LIMIT]:08x}")
    lines.append(f"CR0={s[CR0]:08x} CR2={s[CR2]:0{wide}x} CR3={s[CR3]:0{wide}x} CR4={s[CR4]:08x}")
    lines.append(" ".join(f"DR{n}={s[DR + n]:016x}" for n in range(4)))
    lines.append(f"DR6={s[DR + 6]:016x} DR7={s[DR + 7]:016x}")
    lines.append(f"EFER={s[EFER]:016x}")
    if vectors:
        top = s[FSW] >> 11 & 7
        lines.append(f"FCW={s[FCW]:04x} FSW={s[FSW]:04x} [ST={top}] FTW={s[FTW]:02x} MXCSR={s[MXCSR]:08x}")
        for n in range(0, 8, 2):
            lines.append(" ".join(f"FPR{k}={s[FPR + 2 * k]:016x} {s[FPR + 2 * k + 1]:04x}" for k in (n, n + 1)))
        for n in range(0, 16 if is_64 else 8, 2):
            lines.append(" ".join(f"XMM{k:02d}={s[VEC + 8 * k + 1]:016x} {s[VEC + 8 * k]:016x}" for k in (n, n + 1)))
    return "\n".join(lines)


def _segment(s: State, name: str, selector: int, base: int, limit: int, attributes: int) -> str:
    """One of them, with the upper word of its descriptor."""
    attr, size = s[attributes], s[limit]
    field = size >> 28 if attr & _ATTR_G else size >> 16
    text = f"{name:3}={s[selector]:04x} {s[base]:0{16 if bits(s) == 64 else 8}x} {size:08x} "
    text += f"{(attr & 0xFFFF) << 8 | (field & 0xF) << 16:08x}"  # the unusable ones have a bit of ours above
    if not s[CR0] & 1 or not attr & _ATTR_P:
        return text
    return f"{text} DPL={attr >> 5 & 3} {_kind(attr, bool(s[EFER] & _EFER_LMA))}"


def _kind(attr: int, is_long: bool) -> str:
    """What a descriptor is of."""
    if not attr & _ATTR_S:
        return (_SYSTEM_LONG if is_long else _SYSTEM)[attr & 0xF]
    accessed = "A" if attr & 1 else "-"
    if attr & _ATTR_CODE:
        kind = "CS64" if attr & _ATTR_L else "CS32" if attr & _ATTR_DB else "CS16"
        return f"{kind} [{'C' if attr & 4 else '-'}{'R' if attr & 2 else '-'}{accessed}]"
    kind = "DS  " if attr & _ATTR_DB or is_long else "DS16"
    return f"{kind} [{'E' if attr & 4 else '-'}{'W' if attr & 2 else '-'}{accessed}]"
