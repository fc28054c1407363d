"""What a processor needs of the machine around it, and why a run stops.

The machine implements `Host`; the reference interpreter calls it directly, native code through callbacks whose
addresses stand in `State[HOST_CALLS + n]` (jit/engine.py installs them).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Protocol


class Exit(IntEnum):
    """Why an accelerator's run() returned."""

    NONE = 0
    HALT = 1  # HLT with nothing to deliver
    REQUEST = 2  # EXIT_REQUEST was seen; it is cleared by the accelerator
    BUDGET = 3  # the instruction budget is used up
    SHUTDOWN = 4  # triple fault; the chain stands in FAULT_CHAIN
    UNIMPLEMENTED = 5  # EXIT_INFO: RIP, then 15 instruction bytes in two words, then form or 0
    DEBUG = 6  # a debugger asked to stop here


class Host(Protocol):
    """One vCPU's door to the machine. All methods are called on the vCPU's thread."""

    def mmio_read(self, address: int, size: int) -> int:
        """Read `size` (1, 2, 4, 8) bytes of a physical address that is not RAM."""

    def mmio_write(self, address: int, size: int, value: int) -> None:
        """Write to a physical address that is not RAM."""

    def port_read(self, port: int, size: int) -> int:
        """IN of 1, 2 or 4 bytes."""

    def port_write(self, port: int, size: int, value: int) -> None:
        """OUT of 1, 2 or 4 bytes."""

    def acknowledge_interrupt(self) -> int:
        """The vector to deliver now, or -1; clears IRQ_PENDING when no further one is deliverable."""

    def apic_msr_read(self, index: int) -> int | None:
        """IA32_APIC_BASE, IA32_TSC_DEADLINE and x2APIC registers; None raises #GP."""

    def apic_msr_write(self, index: int, value: int) -> bool:
        """Write one of them; False raises #GP."""

    def get_tpr(self) -> int:
        """CR8: bits 7-4 of the task priority."""

    def set_tpr(self, value: int) -> None:
        """Write CR8 (0-15)."""

    def floating_point_error(self) -> None:
        """FERR#: an x87 exception is pending, and CR0.NE is clear. The machine interrupts, as the PC/AT does."""

    def read_tsc(self) -> int:
        """The machine's time-stamp counter, before TSC_OFFSET."""

    def random_bits(self) -> int:
        """64 bits for RDRAND and RDSEED."""


class HookHost(Protocol):
    """Who is told of what is hooked (hooks.py). All methods are called on the vCPU's thread."""

    def code_hooked(self, linear: int, starts: bool) -> bool:
        """A code hook's condition holds at the instruction about to be executed, which `starts` a block or doesn't
        (hooks.py); true to stop before it."""

    def memory_hooked(self, number: int) -> None:
        """HOOK_ACCESS has an access to the memory that hook `number` watches; a write has not been made yet."""

    def event_hooked(self, kind: int, a: int, b: int) -> bool:
        """One of HOOK_EVENTS; of a hypercall, whether something else than #UD comes of it."""

    def coverage_full(self) -> None:
        """The buffer of coverage entries is full: take them out."""


# Callbacks of native code, in the order of State[HOST_CALLS + n]: all take and return 64-bit words.
CALL_MMIO_READ, CALL_MMIO_WRITE, CALL_PORT_READ, CALL_PORT_WRITE, CALL_SERVICE = range(5)
