"""What the functions of hooks get (see hooks.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class CodeEvent:
    """The instruction at `address` (linear) is about to be executed."""

    address: int


@dataclass(frozen=True)
class Access:
    """An access to memory, a port or a device register. `old` is what a write replaces, None where that isn't memory;
    of a read of a port or device `value` is what it got."""

    address: int
    size: int
    write: bool
    value: int
    old: int | None = None
    rip: int = 0


@dataclass(frozen=True)
class Event:
    """An exception or interrupt about to be delivered (number: the vector), a system call or hypercall (number: RAX), a
    new value for CR3 (`old` to `value`), another mode (likewise: mode words), or an access to a model-specific register
    (number: which; `old` is 1 for a write of `value`). `rip` is where control will return to."""

    kind: str
    number: int = 0
    error: int = 0
    rip: int = 0
    address: int = 0  # of a page fault
    old: int = 0
    value: int = 0


@dataclass(frozen=True)
class Hypercall(Event):
    """VMCALL or VMMCALL, which raises #UD if nobody calls `answer(rax)`: then RAX is that, and the guest goes on. Only
    the hook's function can, while it is called; it may change registers and memory too."""

    answer: Callable[[int], None] = field(kw_only=True, repr=False, compare=False)
