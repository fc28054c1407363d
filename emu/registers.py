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
    HOOK_HYPERCALL,
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

_ATTR_L, _ATTR_DB = 1 << 13, 1 << 14
_EFER_LMA = 1 << 10


def _check(name: str, value: int) -> None:
    if name not in _WRITABLE:
        raise KeyError(f"register {name} can't be written here (can: {', '.join(sorted(_WRITABLE))})")
    if not 0 <= value <= M64:
        raise ValueError(f"{value:#x} doesn't fit a 64-bit register")


def arrive(s: State) -> None:
    """RIP has been set: what is hooked there has not been met, and a hypercall there has not been answered."""
    s[HOOK_PASSED] = s[HOOK_HYPERCALL + 2] = s[HYPERCALL_ANSWERED] = 0


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


def dump(s: State, vectors: bool = True) -> str:
    """All of it, as text."""
    lines = []
    names = ("RAX", "RBX", "RCX", "RDX", "RSI", "RDI", "RBP", "RSP")
    order = [(name, GPR_NAMES.index(name.lower())) for name in names] + [(f"R{n}".ljust(3), n) for n in range(8, 16)]
    for row in range(0, 16, 4):
        lines.append(" ".join(f"{name}={s[GPR + index]:016x}" for name, index in order[row : row + 4]))
    flags = eflags(s)
    lines.append(
        f"RIP={s[RIP]:016x} RFL={flags:08x} [{_flag_letters(flags)}] CPL={s[CPL]} "
        f"HLT={s[HALTED]} bits={bits(s)} icount={s[ICOUNT]}"
    )
    for i, name in enumerate(_SEGMENTS):
        lines.append(_segment(name.upper(), s[SEG_SEL + i], s[SEG_BASE + i], s[SEG_LIMIT + i], s[SEG_ATTR + i]))
    lines.append(_segment("LDT", s[LDT_SEL], s[LDT_BASE], s[LDT_LIMIT], s[LDT_ATTR]))
    lines.append(_segment("TR", s[TR_SEL], s[TR_BASE], s[TR_LIMIT], s[TR_ATTR]))
    lines.append(f"GDT=     {s[GDT_BASE]:016x} {s[GDT_LIMIT]:08x}")
    lines.append(f"IDT=     {s[IDT_BASE]:016x} {s[IDT_LIMIT]:08x}")
    lines.append(f"CR0={s[CR0]:08x} CR2={s[CR2]:016x} CR3={s[CR3]:016x} CR4={s[CR4]:08x}")
    lines.append(" ".join(f"DR{n}={s[DR + n]:016x}" for n in range(4)))
    lines.append(f"DR6={s[DR + 6]:016x} DR7={s[DR + 7]:016x}")
    lines.append(f"EFER={s[EFER]:016x}")
    if vectors:
        lines.append(f"FCW={s[FCW]:04x} FSW={s[FSW]:04x} FTW={s[FTW]:02x} MXCSR={s[MXCSR]:08x}")
        for n in range(0, 8, 2):
            lines.append(" ".join(f"FPR{k}={s[FPR + 2 * k]:016x} {s[FPR + 2 * k + 1]:04x}" for k in (n, n + 1)))
        for n in range(0, 16, 2):
            lines.append(" ".join(f"XMM{k:02d}={s[VEC + 8 * k + 1]:016x}{s[VEC + 8 * k]:016x}" for k in (n, n + 1)))
    return "\n".join(lines)


def _segment(name: str, selector: int, base: int, limit: int, attributes: int) -> str:
    return f"{name:3}={selector:04x} {base:016x} {limit:08x} {attributes:05x}"
