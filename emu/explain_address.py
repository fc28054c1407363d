"""What a linear address leads to: each level of the page walk, what its bits say, and who may do what there, and why.

The levels are read here, without setting accessed bits; what is allowed in the end is asked of the processor's own
`pyemu.cpu.paging`, on the rights that the levels add up to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pyemu.cpu import mode as md
from pyemu.cpu import paging, physical, tlb
from pyemu.cpu.state import CPL, CR0, CR3, CR4, EFER, MMU, PDPTE, PKRS, PKRU, State
from pyemu.explanation import Explanation, Table
from pyemu.memory import OutOfRange, RangeKind

if TYPE_CHECKING:
    from pyemu.machine import Machine

_NAMES = {5: "PML5E", 4: "PML4E", 3: "PDPTE", 2: "PDE", 1: "PTE"}
_SIZES = {12: "4 KiB", 21: "2 MiB", 22: "4 MiB", 30: "1 GiB"}
_M64 = 0xFFFF_FFFF_FFFF_FFFF
# Who, doing what: the words, access bits, and whether it is a user.
ACCESSES = (
    ("supervisor read", 0, False), ("supervisor write", paging.WRITE, False),
    ("supervisor execute", paging.EXEC, False),
    ("user read", 0, True), ("user write", paging.WRITE, True), ("user execute", paging.EXEC, True),
)  # fmt: skip


@dataclass
class Level:
    """One entry of the walk."""

    name: str
    where: int
    entry: int
    bits: str
    says: str


@dataclass
class Walk:
    """All of them, and what they come to."""

    linear: int
    mode: str
    levels: list[Level] = field(default_factory=list)
    problem: str = ""  # why there is no translation
    physical: int | None = None
    page_bits: int = 12
    rights: int = 0  # as State[WALK_RIGHTS] has them
    leaf: int = 0


def walk(machine: Machine, linear: int) -> Walk:
    """Follow the page tables to the end, or to where they end."""
    s = machine.state
    if not s[CR0] & md.CR0_PG:
        linear &= 0xFFFF_FFFF
        rights = tlb.R_WRITE | tlb.R_USER | tlb.R_DIRTY
        return Walk(linear, "paging is off (CR0.PG = 0): physical addresses", physical=linear, rights=rights)
    if s[EFER] & md.EFER_LMA:
        levels = 5 if s[CR4] & md.CR4_LA57 else 4
        found = Walk(linear, f"{levels}-level paging")
        if not md.is_canonical(s, linear):
            found.problem = (
                f"not canonical: bits from {s_top(s)} on are not all alike (#GP, or #SS in the stack segment)"
            )
            return found
        return _walk_long(machine, found, levels, s[CR3] & paging.ADDRESS_MASK)
    linear &= 0xFFFF_FFFF
    if s[CR4] & paging.CR4_PAE:
        found = Walk(linear, "PAE paging")
        pointer = s[PDPTE + (linear >> 30)]
        present = pointer & paging.P
        says = "leads to the page directory" if present else "not present"
        found.levels.append(
            Level("PDPTE", (s[CR3] & 0xFFFFFFE0) + 8 * (linear >> 30), pointer, _bits(pointer, ()), says)
        )
        if not present:
            found.problem = "the page-directory-pointer entry (as loaded with CR3) is not present"
            return found
        return _walk_long(machine, found, 2, pointer & paging.ADDRESS_MASK)
    return _walk_32(machine, Walk(linear, "32-bit paging"))


def s_top(s: State) -> int:
    """The lowest of the bits that are alike in a canonical address."""
    return 56 if s[CR4] & md.CR4_LA57 else 47


def _read(machine: Machine, where: int, size: int) -> int | None:
    try:
        return int.from_bytes(machine.ram.read(where, size), "little")
    except OutOfRange:
        return None


_COMMON = ((1, "RW"), (2, "US"), (3, "PWT"), (4, "PCD"), (5, "A"))


def _bits(entry: int, more: tuple[tuple[int, str], ...]) -> str:
    """The names of the bits that are set."""
    names = [name for bit, name in ((0, "P"), *_COMMON, *more) if entry >> bit & 1]
    return " ".join(names) or "-"


def _level(found: Walk, name: str, where: int, entry: int, leaf: bool, long: bool, is_last: bool) -> Level:
    more: tuple[tuple[int, str], ...] = ((6, "D"), *(() if is_last else ((7, "PS"),)), (8, "G")) if leaf else ()
    bits = _bits(entry, (*more, *(((63, "NX"),) if long else ())))
    if leaf and entry >> paging.KEY_SHIFT & 15 and long:
        bits += f" key={entry >> paging.KEY_SHIFT & 15}"
    level = Level(name, where, entry, bits, "")
    found.levels.append(level)
    return level


def _deny(found: Walk, entry: int, nx: bool) -> None:
    if not entry & paging.RW:
        found.rights &= ~tlb.R_WRITE
    if not entry & paging.US:
        found.rights &= ~tlb.R_USER
    if nx and entry & paging.NX:
        found.rights |= tlb.R_NX


def _walk_long(machine: Machine, found: Walk, level: int, table: int) -> Walk:
    s, linear = machine.state, found.linear
    found.rights = tlb.R_WRITE | tlb.R_USER
    nx = bool(s[EFER] & md.EFER_NXE)
    reserved = paging.RESERVED_HIGH | (0 if nx else paging.NX)
    if not s[EFER] & md.EFER_LMA:
        reserved |= 0x7FF0_0000_0000_0000
    while True:
        where = paging.entry_address(s, linear, level, table)
        entry = _read(machine, where, 8)
        if entry is None:
            found.problem = f"the {_NAMES[level]} would be at {where:#x}, where there is no memory"
            return found
        is_leaf = level == 1 or (bool(entry & paging.PS) and level < 4)
        here = _level(found, _NAMES[level], where, entry, is_leaf, True, level == 1)
        shift = 3 + 9 * level
        low = (1 << shift) - 1 & 0xFFFFFFFFFFFFE000 if level > 1 and is_leaf else 0
        if not _check(found, here, reserved, low, level):
            return found
        _deny(found, entry, nx)
        if is_leaf:
            here.says = f"a page of {_SIZES[shift]}"
            return _finish(s, found, entry, shift, entry & paging.ADDRESS_MASK & ~((1 << shift) - 1))
        table = entry & paging.ADDRESS_MASK
        here.says = f"leads to the next table at {table:#x}"
        level -= 1


def _check(found: Walk, here: Level, reserved: int, low: int, level: int) -> bool:
    """Does the entry lead on? If not, say why."""
    entry = here.entry
    if not entry & paging.P:
        here.says = "not present"
        found.problem = f"the {here.name} at {here.where:#x} is not present (P = 0)"
    elif entry & (reserved | low) or (level >= 4 and entry & paging.PS):
        bits = entry & (reserved | low) or paging.PS
        here.says = f"reserved bits {bits:#x} are set"
        found.problem = f"the {here.name} at {here.where:#x} has reserved bits set: {bits:#x}"
    else:
        return True
    return False


def _walk_32(machine: Machine, found: Walk) -> Walk:
    s, linear = machine.state, found.linear
    found.rights = tlb.R_WRITE | tlb.R_USER
    where = (s[CR3] & 0xFFFFF000) + (linear >> 20 & 0xFFC)
    leaf = 0
    for name in ("PDE", "PTE"):
        entry = _read(machine, where, 4)
        if entry is None:
            found.problem = f"the {name} would be at {where:#x}, where there is no memory"
            return found
        leaf = entry
        large = name == "PDE" and bool(entry & paging.PS) and bool(s[CR4] & paging.CR4_PSE)
        here = _level(found, name, where, entry, large or name == "PTE", False, name == "PTE")
        if not _check(found, here, 0x200000 if large else 0, 0, 1):
            return found
        _deny(found, entry, False)
        if large:
            here.says = "a page of 4 MiB"
            return _finish(s, found, entry, 22, (entry & 0xFFC00000) | (entry >> 13 & 0xFF) << 32)
        where = (entry & 0xFFFFF000) + (linear >> 10 & 0xFFC)
        here.says = f"leads to the page table at {entry & 0xFFFFF000:#x}"
    here.says = "a page of 4 KiB"
    return _finish(s, found, leaf, 12, leaf & 0xFFFFF000)


def _finish(s: State, found: Walk, leaf: int, page_bits: int, base: int) -> Walk:
    found.leaf, found.page_bits = leaf, page_bits
    found.physical = base | found.linear & (1 << page_bits) - 1
    if s[EFER] & md.EFER_LMA:
        found.rights |= paging.key_rights(s, leaf, found.rights)
    return found


def verdict(s: State, found: Walk, access: int, is_user: bool) -> tuple[bool, str]:
    """May it? And why, or why not."""
    if found.physical is None:
        return False, found.problem
    if not s[CR0] & md.CR0_PG:
        return True, "no paging, no rights"
    mmu = mmu_index(s, access, is_user)
    allowed = bool(paging.allowed(s, found.rights, access, mmu))
    return allowed, _why(s, found.rights, access, is_user, allowed)


def mmu_index(s: State, access: int, is_user: bool) -> int:
    """As the processor would have it at that privilege, with RFLAGS.AC as it is."""
    if is_user:
        return tlb.USER
    smap = bool(s[CR4] & md.CR4_SMAP)
    now = s[MMU] if s[CPL] != 3 else tlb.SUPERVISOR_SMAP if smap else tlb.SUPERVISOR
    return tlb.SUPERVISOR if access & paging.EXEC or not smap else int(now)


def _why(s: State, rights: int, access: int, is_user: bool, allowed: bool) -> str:
    """The reason in words, in the order of the processor's checks."""
    user_page = bool(rights & tlb.R_USER)
    keys = f"PKRU ({s[PKRU]:#x})" if user_page else f"IA32_PKRS ({s[PKRS]:#x})"
    if access & paging.EXEC:
        if rights & tlb.R_NX:
            return "a level has NX (execute disable) set"
        if not is_user and user_page:
            return "user page, and CR4.SMEP is off" if allowed else "user page, and CR4.SMEP keeps the supervisor out"
    elif rights & tlb.R_KEY_NO_ACCESS:
        return f"the page's protection key has AD set in {keys}"
    elif not allowed and access & paging.WRITE and rights & tlb.R_KEY_NO_WRITE:
        return f"the page's protection key has WD set in {keys}"
    if is_user and not user_page:
        return "supervisor page: a level has US = 0"
    if not is_user and user_page and not access & paging.EXEC:
        if not allowed and access & paging.WRITE and not rights & tlb.R_WRITE and not _smap_denies(s):
            return "read-only page (a level has RW = 0), and CR0.WP is on"
        if _smap_denies(s):
            return "user page, and CR4.SMAP with RFLAGS.AC = 0 keeps the supervisor out"
    if access & paging.WRITE and not rights & tlb.R_WRITE:
        if is_user:
            return "read-only page: a level has RW = 0"
        wp = "on" if not allowed else "off"
        return f"read-only page (a level has RW = 0), and CR0.WP is {wp}"
    return "all levels allow it"


def _smap_denies(s: State) -> bool:
    return bool(mmu_index(s, 0, False) == tlb.SUPERVISOR_SMAP and s[CR4] & md.CR4_SMAP)


def describe_physical(machine: Machine, address: int) -> str:
    """RAM, ROM, which device, or nothing."""
    if address > physical.PHYSICAL_MASK:
        return "beyond the processor's physical addresses"
    span = machine.ram.ranges.find(address)
    if span is None:
        return "nothing: reads give all ones, writes are lost"
    where = f"{span.start:#x}-{span.end - 1:#x}"
    if span.kind is RangeKind.MMIO:
        return f"device: {span.name}, register at offset {address - span.start:#x} ({where})"
    words = {RangeKind.RAM: "RAM", RangeKind.ROM: "ROM: writes are lost"}
    return f"{words.get(span.kind, 'RAM that shows ROM: writes go to the host bridge')} ({where}, {span.name})"


def explain_address(machine: Machine, linear: int) -> Explanation:
    """Everything about one linear address."""
    s = machine.state
    found = walk(machine, linear & _M64)
    symbol = machine.symbols.describe(linear)
    subject = f"address {linear:#x}{' ' + symbol if symbol else ''}"
    where = describe_physical(machine, found.physical) if found.physical is not None else ""
    summary = f"physical {found.physical:#x}, {where}" if found.physical is not None else f"not mapped: {found.problem}"
    levels = tuple((lv.name, f"at {lv.where:#x}", f"{lv.entry:#018x}", lv.bits, lv.says) for lv in found.levels)
    rows, verdicts = [], {}
    for words, access, is_user in ACCESSES:
        allowed, why = verdict(s, found, access, is_user)
        rows.append((words, "allowed" if allowed else "denied", why))
        verdicts[words] = {"allowed": allowed, "reason": why}
    now = _now(s)
    return Explanation(
        subject,
        f"{summary} ({found.mode})",
        (
            Table("page walk", ("entry", "where", "value", "bits", "what it says"), levels),
            Table("who may do what", ("access", "verdict", "reason"), tuple(rows)),
            Table("what counts", ("register", "value"), now),
        ),
        {
            "linear": linear,
            "physical": found.physical,
            "kind": where,
            "problem": found.problem,
            "page_size": 1 << found.page_bits if found.physical is not None and levels else None,
            "levels": [
                {"name": lv.name, "address": lv.where, "entry": lv.entry, "bits": lv.bits} for lv in found.levels
            ],
            "verdicts": verdicts,
        },
    )


def _now(s: State) -> tuple[tuple[str, str], ...]:
    on = [
        name
        for name, value in (
            ("CR0.PG", s[CR0] & md.CR0_PG), ("CR0.WP", s[CR0] & md.CR0_WP), ("CR4.PAE", s[CR4] & paging.CR4_PAE),
            ("CR4.PSE", s[CR4] & paging.CR4_PSE), ("CR4.LA57", s[CR4] & md.CR4_LA57),
            ("CR4.SMEP", s[CR4] & paging.CR4_SMEP), ("CR4.SMAP", s[CR4] & paging.CR4_SMAP),
            ("CR4.PKE", s[CR4] & md.CR4_PKE), ("CR4.PKS", s[CR4] & md.CR4_PKS),
            ("EFER.NXE", s[EFER] & md.EFER_NXE),
        ) if value
    ]  # fmt: skip
    return (("CR3", f"{s[CR3]:#x}"), ("bits that are on", " ".join(on) or "none"), ("CPL", str(s[CPL])))
