"""Which instructions are branches, for single-stepping on branches (SDM 3, 18.4.3). Mechanism subset."""

from __future__ import annotations

from array import array

from pyemu.cpu.ops import build_table
from pyemu.cpu.semantics.rows import CONDITIONS
from pyemu.cpu.state import RIP, State

NOT, CONDITIONAL, ALWAYS = 0, 1, 2
_CONDITIONAL = frozenset((*(f"j{c}" for c in CONDITIONS), "loop", "loope", "loopne", "jrcxz"))
_ALWAYS = frozenset(
    ("jmp", "jmpf", "call", "callf", "ret", "retf", "iret", "syscall", "sysret", "sysenter", "sysexit")
)
KINDS = array(
    "B", [ALWAYS if f.row.name in _ALWAYS else int(f.row.name in _CONDITIONAL) for f in build_table().forms]
)


def taken(s: State, form: int, following: int) -> int:
    """1 if an instruction of a form, which has ended and had `following` behind it, was a taken branch."""
    if KINDS[form] == CONDITIONAL:
        return int(s[RIP] != following)
    return int(KINDS[form] == ALWAYS)
