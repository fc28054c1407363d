"""pyemu as the subject: executes test cases on a back end, in user mode of a small 64-bit guest.

The guest has page tables that give the cases the same linear addresses and rights as the host gives them, and an IDT
whose every vector leads to a HLT, so that each case ends there: behind the breakpoint, or with what it raised, and the
exception frame on the stack is part of what is judged. Between cases the state is restored by copying a template. Here
is no Python for each instruction: the native back ends decode, translate and deliver by themselves.
"""

from __future__ import annotations

import ctypes
import struct

from pyemu.cpu import flags as fl
from pyemu.cpu import mode, physical, reset, segments, tlb
from pyemu.cpu.cpuid import configure
from pyemu.cpu.features import FEATURES
from pyemu.cpu.host import Exit
from pyemu.cpu.reference import Reference
from pyemu.cpu.state import (
    CC_DST,
    CPL,
    CR0,
    CR2,
    CR3,
    CR4,
    CS,
    EFER,
    FLAGS,
    FPR,
    FRAME,
    FS,
    GDT_BASE,
    GDT_LIMIT,
    GPR,
    GS,
    ICOUNT,
    ICOUNT_LIMIT,
    IDT_BASE,
    IDT_LIMIT,
    IRQ_PENDING,
    RANGE_COUNT,
    RANGES,
    RIP,
    SEG_BASE,
    SS,
    TR_ATTR,
    TR_BASE,
    TR_LIMIT,
    TR_SEL,
    XCR0,
    new_state,
)  # fmt: skip
from pyemu.jit.engine import Engine
from tests.cpu import twins
from tests.cpu.semantics.machines import NoDevices
from tests.differential import case as c
from tests.differential.case import Case
from tests.differential.host import readable_only

# ---- guest physical memory ----
RAM = 0x200000
_GDT, _TSS, _IDT, _HALTS, _STACK_TOP = 0x1000, 0x2000, 0x3000, 0x4000, 0x9000
_KERNEL = 0xFFFF_FFFF_8000_0000  # their linear addresses: where no case finds them
_TABLES, _CODE, _DATA, _READ_ONLY = 0x10000, 0x80000, 0x40000, 0x50000
_P, _RW, _US, _NX = 1, 2, 4, 1 << 63
_KERNEL_CS, _USER32_CS, _USER_SS, _USER_CS, _TSS_SELECTOR = 0x10, 0x23, 0x2B, 0x33, 0x40  # Linux's
_CR0 = 0x80050033  # PG AM WP NE ET MP PE
_CR4 = 0x00050668 | 0x10  # OSXSAVE FSGSBASE OSXMMEXCPT OSFXSR MCE PAE DE PSE
_GDT_ENTRIES = {
    0x08: 0x00CF9B000000FFFF, 0x10: 0x00AF9B000000FFFF, 0x18: 0x00CF93000000FFFF, 0x20: 0x00CFFB000000FFFF,
    0x28: 0x00CFF3000000FFFF, 0x30: 0x00AFFB000000FFFF,
}  # fmt: skip
_UNUSABLE = 1 << 16
LIMIT = 20_000  # instructions, REP iterations included, that a case may take
_ZEROES = bytes(0x1000)
_FRAME = struct.Struct("<5Q")

# CC_DST and CC_SRC for each combination of the arithmetic flags
_FLAG_WORDS: dict[int, bytes] = {}


def _flag_words() -> None:
    s = new_state()
    bits = (fl.CF, fl.PF, fl.AF, fl.ZF, fl.SF, fl.OF)
    for n in range(64):
        value = sum(bit for k, bit in enumerate(bits) if n >> k & 1)
        fl.set_arithmetic(s, value)
        _FLAG_WORDS[value] = struct.pack("<2Q", s[CC_DST], s[CC_DST + 1])


class Subject:
    """One back end: "reference", "interp" or "jit"."""

    def __init__(self, backend: str) -> None:
        if not _FLAG_WORDS:
            _flag_words()
        self.backend = backend
        s = self.s = new_state()
        buffer = ctypes.create_string_buffer(RAM)
        self.keep = twins.attach(s, buffer)
        self.ram = memoryview(buffer).cast("B")
        s.host = NoDevices()
        s[RANGE_COUNT] = 1
        s[RANGES], s[RANGES + 1], s[RANGES + 2] = 0, RAM, physical.RAM
        configure(s, None, set(FEATURES) - {"la57"})  # all that are known; the addresses are the host's, of 48 bits
        reset.reset(s)
        self._tables()
        s[GDT_BASE], s[GDT_LIMIT], s[IDT_BASE], s[IDT_LIMIT] = _KERNEL + _GDT, 0x7F, _KERNEL + _IDT, 0xFFF
        s[TR_SEL], s[TR_BASE], s[TR_LIMIT], s[TR_ATTR] = _TSS_SELECTOR, _KERNEL + _TSS, 0x67, 0x8B
        s[CR0], s[CR3], s[CR4], s[EFER], s[XCR0] = _CR0, _TABLES, _CR4, 0xD01, 0xE7
        self.bytes = memoryview(s).cast("B")
        self.before = {bits: self._template(bits) for bits in (64, 32)}
        self.events = bytes(self.bytes[8 * IRQ_PENDING : 8 * FRAME])
        self.engine = None if backend == "reference" else Engine(s, s.host, self.ram, backend)
        self.reference = Reference(s, s.host, self.ram) if self.engine is None else None

    def _template(self, bits: int) -> bytes:
        """The words before FPR for a case of a bitness."""
        s = self.s
        for segment in range(6):
            segments.set_segment(s, segment, _USER_SS, 0, 0xFFFFFFFF, 0xC0F3)
        code = (_USER_CS, 0xA0FB) if bits == 64 else (_USER32_CS, 0xC0FB)
        segments.set_segment(s, CS, code[0], 0, 0xFFFFFFFF, code[1])
        segments.set_segment(s, FS, 0, 0, 0, _UNUSABLE)
        segments.set_segment(s, GS, 0, 0, 0, _UNUSABLE)
        s[CPL], s[FLAGS], s[ICOUNT], s[ICOUNT_LIMIT] = 3, 0x202, 0, LIMIT
        tlb.flush_all(s)
        mode.update(s)
        return bytes(self.bytes[: 8 * FPR])

    def _tables(self) -> None:
        """Descriptors, halts and page tables."""
        ram = self.ram
        for at, entry in _GDT_ENTRIES.items():
            struct.pack_into("<Q", ram, _GDT + at, entry)
        struct.pack_into("<I3Q", ram, _TSS, 0, _KERNEL + _STACK_TOP, 0, 0)
        struct.pack_into("<H", ram, _TSS + 0x66, 0x68)  # no I/O permission bitmap
        for vector in range(256):
            target = _KERNEL + _HALTS + 16 * vector
            dpl = 3 if vector in (3, 4) else 0
            gate = (target & 0xFFFF) | _KERNEL_CS << 16 | (0x8E00 | dpl << 13) << 32 | (target >> 16 & 0xFFFF) << 48
            struct.pack_into("<2Q", ram, _IDT + 16 * vector, gate, target >> 32)
            ram[_HALTS + 16 * vector] = 0xF4
        self.next_table = _TABLES + 0x1000
        for page in range(0x1000, _STACK_TOP, 0x1000):
            self._map(_KERNEL + page, page, _RW)
        for offset in range(0, c.CODE_SIZE, 0x1000):
            self._map(c.CODE + offset, _CODE + offset, _US)
        for offset in range(0, c.DATA_SIZE, 0x1000):
            self._map(c.DATA + offset, _DATA + offset, _US | _RW | _NX)
        self._map(c.READ_ONLY, _READ_ONLY, _US | _NX)
        ram[_READ_ONLY : _READ_ONLY + 0x1000] = readable_only()

    def _map(self, linear: int, target: int, rights: int) -> None:
        """One 4 KiB page."""
        table = _TABLES
        for level in (3, 2, 1):
            at = table + (linear >> 12 + 9 * level & 511) * 8
            entry = int.from_bytes(self.ram[at : at + 8], "little")
            if not entry:
                entry = self.next_table | _P | _RW | _US
                self.next_table += 0x1000
                struct.pack_into("<Q", self.ram, at, entry)
            table = entry & ~0xFFF
        struct.pack_into("<Q", self.ram, table + (linear >> 12 & 511) * 8, target | _P | rights)

    def load(self, code: bytes) -> None:
        """The code pages of a batch."""
        self.ram[_CODE : _CODE + c.CODE_SIZE] = code
        if self.engine is not None:
            self.engine.flush()
        else:
            assert self.reference is not None
            self.reference.known.clear()

    def run(self, cases: list[Case], code: bytes) -> list[bytes]:
        """The results of a batch, as records."""
        self.load(code)
        return [self.execute(case.given, case.bits) for case in cases]

    def execute(self, given: bytes, bits: int) -> bytes:
        """One case; its instruction is loaded."""
        state, ram = self.bytes, self.ram
        rip, rflags = struct.unpack_from("<2Q", given, c.R_RIP)
        state[: 8 * FPR] = self.before[bits]
        state[8 * GPR : 8 * GPR + 128] = given[:128]
        state[8 * CC_DST : 8 * CC_DST + 16] = _FLAG_WORDS[rflags & fl.ARITHMETIC]
        s = self.s
        s[RIP] = rip
        s[FLAGS] = rflags & ~fl.ARITHMETIC
        if rflags & (fl.AC | fl.TF):
            mode.update(s)
        state[8 * SEG_BASE + 8 * FS : 8 * SEG_BASE + 8 * GS + 8] = given[c.R_FS : c.R_FS + 16]
        state[8 * FPR : 8 * IRQ_PENDING] = given[c.R_FP : c.R_MEMORY]
        state[8 * IRQ_PENDING : 8 * FRAME] = self.events
        at = c.R_MEMORY
        for address, size in c.WINDOWS:
            ram[_DATA + address - c.DATA : _DATA + address - c.DATA + size] = given[at : at + size]
            at += size
        for address, size in c.GAPS:
            ram[_DATA + address - c.DATA : _DATA + address - c.DATA + size] = _ZEROES[:size]
        reason = self.engine.run() if self.engine is not None else self.reference.run()  # type: ignore[union-attr]
        return self._result(reason)

    def _result(self, reason: Exit) -> bytes:
        """The record that a case leaves."""
        state, ram, s = self.bytes, self.ram, self.s
        vector, error, cr2 = c.ENDLESS, 0, 0
        rip, rflags, rsp = s[RIP], fl.eflags(s), s[GPR + 4]
        if reason == Exit.SHUTDOWN:
            vector = c.SHUTDOWN
        elif reason == Exit.HALT:
            vector = (rip - _HALTS - _KERNEL) >> 4
            frame = _STACK_TOP - 40
            rip, _, rflags, rsp, _ = _FRAME.unpack_from(ram, frame)
            if vector in c.WITH_ERROR:
                error = int.from_bytes(ram[frame - 8 : frame], "little")
            cr2 = s[CR2] if vector == c.PAGE_FAULT else 0
        gpr = state[8 * GPR : 8 * GPR + 128]
        head = struct.pack("<5Q", rip, rflags, vector, error, cr2)
        bases = state[8 * (SEG_BASE + FS) : 8 * (SEG_BASE + GS) + 8]
        parts: list[bytes | memoryview] = [
            gpr[:32],
            rsp.to_bytes(8, "little"),
            gpr[40:],
            head,
            bases,
            bytes(8),
            state[8 * FPR : 8 * IRQ_PENDING],
        ]
        for address, size in c.WINDOWS:
            parts.append(ram[_DATA + address - c.DATA : _DATA + address - c.DATA + size])
        return b"".join(parts)


__all__ = ["LIMIT", "SS", "Subject"]
