"""pyemu as the subject: executes test cases on a back end, in user mode of a small 64-bit guest.

The guest has page tables that give the cases the same linear addresses and rights as the host gives them, and an IDT
whose every vector leads to a HLT, so that each case ends there: behind the breakpoint, or with what it raised, and the
exception frame on the stack is part of what is judged. Between cases the state is restored by copying a template. Here
is no Python for each instruction: the native back ends decode, translate and deliver by themselves.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from functools import cache

from pyemu.cpu import mode, physical, reset, segments, tlb
from pyemu.cpu.cpuid import configure
from pyemu.cpu.features import FEATURES
from pyemu.cpu.reference import Reference
from pyemu.cpu.state import (
    CPL,
    CR0,
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
    GS,
    ICOUNT,
    ICOUNT_LIMIT,
    IDT_BASE,
    IDT_LIMIT,
    IRQ_PENDING,
    RANGE_COUNT,
    RANGES,
    TR_ATTR,
    TR_BASE,
    TR_LIMIT,
    TR_SEL,
    TSC_AUX,
    XCR0,
    new_state,
)  # fmt: skip
from pyemu.jit.engine import Engine
from tests.cpu import twins
from tests.cpu.semantics.machines import NoDevices, forms
from tests.differential import case as c
from tests.differential import driver
from tests.differential.batch import Batch, Records
from tests.differential.case import Case
from tests.differential.host import executes, readable_only, vector_bytes

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


@cache
def announced() -> frozenset[str]:
    """All CPU features that are known but what the host can't judge; the addresses are the host's, of 48 bits."""
    needed = {name for form in forms() for name in form.feature.split()}
    return frozenset(FEATURES) - {"la57"} - {name for name in needed if not executes(name)}


def xcr0() -> int:
    """x87, SSE, and what else of AVX and AVX-512 the host has."""
    return {16: 0x03, 32: 0x07, 64: 0xE7}[vector_bytes()]


class Subject:
    """One back end: "reference", "interp" or "jit"."""

    def __init__(self, backend: str, machine: NoDevices | None = None, tsc_aux: int = 0) -> None:
        self.backend = backend
        s = self.s = new_state()
        buffer = ctypes.create_string_buffer(RAM)
        self.keep = twins.attach(s, buffer)
        self.ram = memoryview(buffer).cast("B")
        s.host = machine or NoDevices()
        s[RANGE_COUNT] = 1
        s[RANGES], s[RANGES + 1], s[RANGES + 2] = 0, RAM, physical.RAM
        configure(s, None, announced())
        reset.reset(s)
        self._tables()
        s[GDT_BASE], s[GDT_LIMIT], s[IDT_BASE], s[IDT_LIMIT] = _KERNEL + _GDT, 0x7F, _KERNEL + _IDT, 0xFFF
        s[TR_SEL], s[TR_BASE], s[TR_LIMIT], s[TR_ATTR] = _TSS_SELECTOR, _KERNEL + _TSS, 0x67, 0x8B
        s[CR0], s[CR3], s[CR4], s[EFER], s[XCR0] = _CR0, _TABLES, _CR4, 0xD01, xcr0()
        s[TSC_AUX] = tsc_aux
        events = bytes(memoryview(s).cast("B")[8 * IRQ_PENDING : 8 * FRAME])
        contents = (bytes(4096), self._template(64), self._template(32), events)
        self.buffers = [ctypes.create_string_buffer(data) for data in contents]
        self.templates = [ctypes.addressof(buffer) for buffer in self.buffers]
        self.results = Records()
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
        return bytes(memoryview(s).cast("B")[: 8 * FPR])

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
        self.put_read_only(readable_only())

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

    def put_read_only(self, page: bytes) -> None:
        """Set what the page that the cases can only read holds."""
        self.ram[_READ_ONLY : _READ_ONLY + len(page)] = page

    def data(self) -> bytes:
        """All of the data pages, as the last case has left them."""
        return bytes(self.ram[_DATA : _DATA + c.DATA_SIZE])

    def run(self, cases: Sequence[Case]) -> list[bytes]:
        """The results of up to BATCH cases."""
        results = self.run_batch(Batch.of(cases))
        return [results.row(n) for n in range(len(cases))]

    def run_batch(self, batch: Batch) -> Records:
        """The results of a batch; they stay until the next one."""
        self.load(batch.image())
        given, results = batch.given.address, self.results.address
        if self.engine is not None:
            run = self.engine.native.address("pyemu.jit.loop.run")
            self._call("run_cases", run, given, results, batch.count)
            if self.engine.error is not None:
                raise self.engine.error
            return self.results
        assert self.reference is not None
        for at in range(0, batch.count * c.RECORD, c.RECORD):
            self._call("one_state", 0, given + at, results + at, 1)
            self._call("one_result", self.reference.run(), given + at, results + at, 1)
        return self.results

    def _call(self, name: str, first: int, given: int, results: int, count: int) -> None:
        """Call one of the driver's functions: the parameters are explained there."""
        parameters = (first, ctypes.addressof(self.s), given, results, _KERNEL + _HALTS, _DATA, _STACK_TOP - 40)
        driver.call(name, *parameters, *self.templates, count, state=self.s)


__all__ = ["LIMIT", "Subject"]
