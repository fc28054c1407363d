"""Who called whom.

Each frame says by which way it was found:

* "orc": the unwind tables that a Linux kernel has in its memory say so (`orc`). Debian's kernels have them; it takes
  their symbols. That is exact, and ends at the system call or interrupt from user code, or at the task's begin.

Where there are none, or they don't lead on:

* "frame pointer": rBP leads to a saved rBP and a return address behind a CALL. Compilers leave frame pointers out
  unless told otherwise; Debian's x86-64 kernels have none.
* "call target": a word on the stack that points behind a CALL of the very function that a frame below it is in. That
  takes symbols, and it is hardly ever wrong, though a leftover of an earlier call looks the same.
* "?": a word on the stack that points behind some CALL. It may be a caller (by a pointer, or with a tail call between)
  or a leftover. Linux marks such lines in its own traces by the same character.

DWARF's unwind tables are not read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyemu.cpu.state import CS, GPR, RBP, RIP, RSP, SEG_BASE, SS, STACK_MASK
from pyemu.memory import OutOfRange
from pyemu.orc import unwinder
from pyemu.registers import bits

if TYPE_CHECKING:
    from pyemu.machine import Machine
    from pyemu.symbols import Location

MOST_FRAMES = 64
_SCANNED = 1024  # words of the stack
_LONGEST_CALL = 7
_M64 = 0xFFFF_FFFF_FFFF_FFFF


@dataclass(frozen=True)
class Frame:
    """`address` is where the function goes on, `how` the way by which it was found."""

    number: int
    address: int
    location: Location | None
    how: str
    line: str | None = None

    def __str__(self) -> str:
        name = f" {self.location}" if self.location is not None else ""
        line = f" at {self.line}" if self.line else ""
        return f"#{self.number:<3}{self.address:#018x}{name}{line}{' ' + self.how if self.how == '?' else ''}"


def backtrace(machine: Machine) -> list[Frame]:
    """Innermost first. Only while the machine is stopped."""
    return _Trace(machine).frames()


class _Trace:
    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        s = machine.state
        self._s = s
        self._width = bits(s)
        self._word = self._width // 8
        self._code_base = 0 if self._width == 64 else s[SEG_BASE + CS]
        self._stack_base = 0 if self._width == 64 else s[SEG_BASE + SS]
        self._frames: list[Frame] = []

    def frames(self) -> list[Frame]:
        s = self._s
        self._add(s[RIP], "")
        if (unwind := unwinder(self._machine)) is not None:
            for address in unwind.callers():
                self._add(address, "orc", unwind.is_return)
                if len(self._frames) >= MOST_FRAMES:
                    return self._frames
            if not unwind.complete:
                self._scan(unwind.sp)
            return self._frames
        pointer = s[GPR + RBP] & s[STACK_MASK]
        top = s[GPR + RSP] & s[STACK_MASK]
        following = self._follow(pointer, top)
        if not following:
            self._scan(top)
        return self._frames

    def _add(self, address: int, how: str, is_return: bool = True) -> None:
        symbols = self._machine.symbols
        linear = self._code_base + address & _M64
        # A return address may lie behind the end of the function, if the call never returns.
        inside = linear - 1 if self._frames and is_return else linear
        found = symbols.lookup(inside)
        if found is not None and inside != linear:
            found = type(found)(found.name, found.offset + 1)
        self._frames.append(Frame(len(self._frames), linear, found, how, symbols.line(inside)))

    def _read(self, offset: int) -> int | None:
        try:
            data = self._machine.read_virtual(self._stack_base + offset & _M64, self._word)
        except OutOfRange:
            return None
        return int.from_bytes(data, "little")

    def _called(self, address: int) -> int | bool:
        """Is there a CALL right before `address`? The target of a direct one, True for another, False for none."""
        try:
            linear = self._code_base + address - _LONGEST_CALL & _M64
            code = self._machine.read_virtual(linear, _LONGEST_CALL)
        except OutOfRange:
            return False
        size = min(self._word, 4)
        if code[-1 - size] == 0xE8:
            distance = int.from_bytes(code[-size:], "little", signed=True)
            return address + distance & (1 << self._width) - 1
        # FF /2: opcode, ModRM, and as much of SIB and displacement as ModRM asks for
        return any(code[-n] == 0xFF and code[1 - n] >> 3 & 7 == 2 for n in range(2, 8))

    def _follow(self, pointer: int, top: int) -> bool:
        """By frame pointers; False if not even the first leads anywhere."""
        found = False
        low = top
        while len(self._frames) < MOST_FRAMES and pointer >= low and pointer - top < 1 << 20:
            up, address = self._read(pointer), self._read(pointer + self._word)
            if up is None or address is None or self._called(address) is False:
                break
            self._add(address, "frame pointer")
            found = True
            low, pointer = pointer + 1, up
        return found

    def _scan(self, top: int) -> None:
        symbols = self._machine.symbols
        functions = {self._function()}  # in which we are, as far as is known
        for index in range(_SCANNED):
            address = self._read(top + index * self._word)
            if address is None or len(self._frames) >= MOST_FRAMES:
                return
            linear = self._code_base + address & _M64
            if symbols and symbols.lookup(linear) is None:
                continue
            target = self._called(address)
            if target is False:
                continue
            if target is not True and self._code_base + target & _M64 in functions:
                self._add(address, "call target")
                functions = {self._function()}
            else:
                self._add(address, "?")
                functions.add(self._function())

    def _function(self) -> int | None:
        """Where the outermost frame's function begins."""
        place = self._frames[-1].location
        return self._machine.symbols.address(place.name) if place is not None else None
