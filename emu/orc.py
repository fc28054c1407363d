"""The stack of a running Linux kernel, unwound by the ORC tables that it carries in its memory.

    unwind = unwinder(machine)           None if its symbols don't lead to tables
    for address in unwind.callers():     where they go on, from the interrupted instruction outwards

A kernel built without frame pointers (CONFIG_UNWINDER_ORC) has for each instruction where the caller's stack pointer
and rBP are: an address in `.orc_unwind_ip`, sorted and relative to itself, and an entry of six bytes with the same
index in `.orc_unwind`:

    s16 sp_offset, s16 bp_offset, 4 bits sp_reg, 4 bits bp_reg, then the type of frame and flags: two bits of type, END
    at bit 3 (before Linux 6.3 at bit 2), and from 6.4 on three bits of type

The layout is arch/x86/include/asm/orc_types.h, the meaning Documentation/x86/orc-unwinder.rst. Tables of modules are
not read. Not here: unwinding without tables, and what a frame is for a user (backtrace.py).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyemu.cpu.state import CPL, GPR, M64, RBP, RDI, RDX, RIP, RSP
from pyemu.memory import OutOfRange

if TYPE_CHECKING:
    from pyemu.machine import Machine

_TABLES = ("__start_orc_unwind_ip", "__stop_orc_unwind_ip", "__start_orc_unwind")
_BANNER = re.compile(rb"Linux version (\d+)\.(\d+)")
_ENTRY = struct.Struct("<hhH")
# Registers of an entry (ORC_REG_*)
_UNDEFINED, _PREV_SP, _DX, _DI, _BP, _SP, _R10, _R13, _BP_INDIRECT, _SP_INDIRECT = range(10)
_OTHERS = {_DX: RDX, _DI: RDI, _R10: 10, _R13: 13}
# Types of frame, by the numbers of Linux 6.4
_NOTHING, _END, _CALL, _REGS, _REGS_PARTIAL = range(5)
_OLD_TYPES = (_CALL, _REGS, _REGS_PARTIAL, _NOTHING)
# Offsets in struct pt_regs (arch/x86/include/asm/ptrace.h), and of the part that the processor pushes
_PT_BP, _PT_IP, _PT_CS, _PT_SP = 32, 128, 136, 152
_PT_OTHERS = {_DX: 96, _DI: 112, _R10: 56, _R13: 16}


class _Lost(Exception):
    """The tables don't tell how to go on."""


@dataclass(frozen=True)
class _Format:
    """What has changed with the versions of Linux."""

    types: tuple[int, ...]  # of a frame, by their bits
    end_bit: int  # 0 where the end is a type

    @classmethod
    def of(cls, version: tuple[int, int]) -> _Format:
        if version >= (6, 4):
            return cls((_NOTHING, _END, _CALL, _REGS, _REGS_PARTIAL, _NOTHING, _NOTHING, _NOTHING), 0)
        return cls(_OLD_TYPES, 1 << 11 if version >= (6, 3) else 1 << 10)


@dataclass(frozen=True)
class _Entry:
    sp_offset: int
    bp_offset: int
    sp_register: int
    bp_register: int
    type: int


# Where code has no entry (a module's, or what was generated): as if it kept frame pointers, which is what Linux tries.
_FRAME_POINTER = _Entry(16, -16, _BP, _PREV_SP, _CALL)


def unwinder(machine: Machine) -> Unwinder | None:
    """For a machine that is stopped in a kernel with tables."""
    places = [machine.symbols.address(name) for name in _TABLES]
    banner = machine.symbols.address("linux_banner")
    if banner is None or None in places or machine.state[CPL] != 0:
        return None
    try:
        version = _BANNER.match(machine.read_virtual(banner, 32))
    except OutOfRange:
        return None
    if version is None:
        return None
    start, stop, entries = (place for place in places if place is not None)
    return Unwinder(machine, start, (stop - start) // 4, entries, (int(version[1]), int(version[2])))


class Unwinder:
    """From where the processor stands."""

    def __init__(self, machine: Machine, start: int, count: int, entries: int, version: tuple[int, int]) -> None:
        self._start, self._count, self._entries = start, count, entries
        self._format = _Format.of(version)
        s = machine.state
        self._bytes: Callable[[int, int], bytes] = machine.read_virtual
        self.address, self.sp, self._bp = s[RIP], s[GPR + RSP], s[GPR + RBP]
        self._others: dict[int, int] = {code: s[GPR + number] for code, number in _OTHERS.items()}
        self.is_return = False  # whether `address` is where a call returns, rather than an interrupted instruction
        self.complete = False  # the outermost frame was reached

    def callers(self) -> Iterator[int]:
        """Where each caller goes on, innermost first; ends at the outermost, or where the tables don't tell more."""
        while True:
            entry = self._look_up(self.address - 1 if self.is_return else self.address) or _FRAME_POINTER
            if entry.type == _END:
                self.complete = True
                return
            before = self.sp
            try:
                goes_on = self._up(entry)
            except (_Lost, OutOfRange):
                return
            if not goes_on:
                self.complete = True
                return
            if self.is_return and self.sp <= before and self.sp >> 14 == before >> 14:
                return  # a stack that leads nowhere
            yield self.address

    def _up(self, entry: _Entry) -> bool:
        """Become the caller; False if that is user code."""
        base = self._stack_pointer(entry)
        if entry.type == _CALL:
            self.address, self.sp, bp = self._word(base - 8), base, self._bp
            self._others = {}
            self.is_return = True
        elif entry.type in (_REGS, _REGS_PARTIAL):
            full = entry.type == _REGS
            frame = base if full else base - _PT_IP
            if self._word(frame + _PT_CS) & 3:
                return False
            self.address, self.sp = self._word(frame + _PT_IP), self._word(frame + _PT_SP)
            bp = self._word(frame + _PT_BP) if full else self._bp
            self._others = {code: self._word(frame + at) for code, at in _PT_OTHERS.items()} if full else {}
            self.is_return = False
        else:
            raise _Lost
        if entry.bp_register == _PREV_SP:
            bp = self._word(base + entry.bp_offset)
        elif entry.bp_register == _BP:
            bp = self._word(self._bp + entry.bp_offset)
        self._bp = bp
        return True

    def _stack_pointer(self, entry: _Entry) -> int:
        """What `sp_reg` and `sp_offset` lead to: the stack before the call, or saved registers."""
        register, offset = entry.sp_register, entry.sp_offset
        if register == _SP:
            return self.sp + offset & M64
        if register == _BP:
            return self._bp + offset & M64
        if register == _SP_INDIRECT:
            return self._word(self.sp) + offset & M64
        if register == _BP_INDIRECT:
            return self._word(self._bp + offset)
        if register in self._others:
            return self._others[register]
        raise _Lost

    def _word(self, address: int) -> int:
        return int.from_bytes(self._bytes(address & M64, 8), "little")

    def _place(self, index: int) -> int:
        at = self._start + 4 * index
        return at + int.from_bytes(self._bytes(at, 4), "little", signed=True) & M64

    def _look_up(self, address: int) -> _Entry | None:
        """The entry of the last place at or before an address."""
        try:
            low, high = 0, self._count
            while low < high:
                middle = (low + high) // 2
                if self._place(middle) <= address:
                    low = middle + 1
                else:
                    high = middle
            return self._entry(low - 1) if low else None
        except OutOfRange:
            return None

    def _entry(self, index: int) -> _Entry | None:
        """None where the table says that it knows nothing."""
        sp_offset, bp_offset, bits = _ENTRY.unpack(self._bytes(self._entries + 6 * index, 6))
        kind = self._format.types[bits >> 8 & len(self._format.types) - 1]
        register = bits & 15
        if register == _UNDEFINED:
            ended = kind == _END or bits & self._format.end_bit
            return _Entry(0, 0, 0, 0, _END) if ended else None
        return _Entry(sp_offset, bp_offset, register, bits >> 4 & 15, kind)
