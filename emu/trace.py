"""`-d in_asm,exec,cpu`: a line or a dump before each instruction, by single-stepping the vCPU.

Slow, but the same for every back end, as it looks only at the architectural state between instructions.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pyemu.cpu.state import CS, FAULT_CHAIN, ICOUNT, MODE, RIP, SEG_BASE, State
from pyemu.log import Log
from pyemu.memory import GuestRam, OutOfRange
from pyemu.registers import bits, dump
from pyemu.runloop import chain_steps
from pyemu.virtual import read_virtual

if TYPE_CHECKING:
    from pyemu.symbols import Symbols

_STEP_ITEMS = frozenset({"in_asm", "exec", "cpu"})
_SEEN_LIMIT = 1 << 20


class Tracer:
    """Attach `before_step` to the run loop if `wanted`."""

    def __init__(self, s: State, ram: GuestRam, log: Log, symbols: Symbols | None = None) -> None:
        self._s = s
        self._symbols = symbols
        self._ram = ram
        self._log = log
        self._seen: set[tuple[int, bytes]] = set()
        self._last = (-1, 0)

    @property
    def wanted(self) -> bool:
        return bool(self._log.items & _STEP_ITEMS)

    def before_step(self) -> None:
        s, log = self._s, self._log
        where = s[ICOUNT], s[RIP]
        if where == self._last:
            return  # the run was interrupted before it did anything
        self._last = where
        self._exceptions()
        linear = s[SEG_BASE + CS] + s[RIP] & 0xFFFF_FFFF_FFFF_FFFF
        if "in_asm" in log.items:
            self._disassemble(linear)
        if "exec" in log.items:
            name = f" {self._symbols.describe(linear)}" if self._symbols else ""
            log.write("exec", f"Trace 0: [{s[SEG_BASE + CS]:016x}/{s[RIP]:016x}/{s[MODE]:08x}]{name}")
        if "cpu" in log.items:
            log.write("cpu", dump(s, vectors=False))

    def _exceptions(self) -> None:
        """Show what the last instruction raised: FAULT_CHAIN is written by each delivery."""
        if "int" in self._log.items and self._s[FAULT_CHAIN]:
            for step in chain_steps(self._s):
                self._log.write("int", f"exception {step}")
            self._s[FAULT_CHAIN] = 0

    def _disassemble(self, linear: int) -> None:
        code = fetch(self._s, self._ram, linear)
        if (linear, code) in self._seen:
            return
        if len(self._seen) >= _SEEN_LIMIT:
            self._seen.clear()
        self._seen.add((linear, code))
        self._log.write("in_asm", disassemble(code, linear, bits(self._s), 1, self._symbols)[0])


def fetch(s: State, ram: GuestRam, linear: int, length: int = 15) -> bytes:
    """Up to `length` code bytes: fewer where the mapping ends."""
    for size in (length, min(length, 0x1000 - (linear & 0xFFF))):
        try:
            return read_virtual(s, ram, linear, size)
        except OutOfRange:
            continue
    return b""


_TARGET = re.compile(r"0x[0-9a-f]+")
_RELATIVE = re.compile(r"\[(?:rip|eip) ([+-]) (0x[0-9a-f]+|\d+)\]")


def disassemble(code: bytes, address: int, width: int, count: int, symbols: Symbols | None = None) -> list[str]:
    """At most `count` lines `address <symbol>:  bytes  text`."""
    import capstone

    modes = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
    lines = []
    for at, length, mnemonic, operands in capstone.Cs(capstone.CS_ARCH_X86, modes[width]).disasm_lite(
        code, address, count
    ):
        data = code[at - address : at - address + length].hex(" ")
        if symbols:
            operands = with_names(mnemonic, operands, at + length, symbols)
        lines.append(f"{_place(at, symbols)}:  {data:<30}  {mnemonic} {operands}".rstrip())
    if not lines:
        lines.append(f"{_place(address, symbols)}:  {code[:1].hex() or '??':<30}  (bad)")
    return lines


def _place(address: int, symbols: Symbols | None) -> str:
    name = symbols.describe(address) if symbols else ""
    return f"0x{address:08x} {name}".rstrip()


def with_names(mnemonic: str, operands: str, following: int, symbols: Symbols) -> str:
    """Operands with the names of a branch's target, and of what a RIP-relative address leads to."""
    if mnemonic.startswith(("j", "call", "loop")) and _TARGET.fullmatch(operands):
        return f"{operands} {symbols.describe(int(operands, 16))}".rstrip()
    match = _RELATIVE.search(operands)
    if match is not None:
        distance = int(match[2], 0)
        target = following + (distance if match[1] == "+" else -distance) & 0xFFFF_FFFF_FFFF_FFFF
        return f"{operands}  # {target:#x} {symbols.describe(target)}".rstrip()
    return operands
