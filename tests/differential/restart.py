"""One instruction on pages that are taken away one after another: whatever faults leaves everything as it was.

`Bench(backend, bits).check(form)` runs an instruction of a form, finds the data pages that it touched (by their
accessed and dirty bits), and runs it again with each of them absent, and each that it wrote read-only. After the page
fault, registers, flags and memory must be what they were before; once the page is back, the instruction must end as the
undisturbed one did. A repeated string instruction may have made some iterations, and ENTER some pushes. Not here: which
fault comes first (sweep.py, against the host).
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from pyemu.check import COMPARED
from pyemu.cpu import cpuid, flags, mode, tlb
from pyemu.cpu.faults import PF
from pyemu.cpu.features import FEATURES
from pyemu.cpu.ops import Form, parse_encoding
from pyemu.cpu.reference import Reference
from pyemu.cpu.state import (
    CR0,
    CR2,
    CR4,
    EXIT_REQUEST,
    FPR,
    FTW,
    GPR,
    HALTED,
    ICOUNT,
    ICOUNT_LIMIT,
    LAYOUT,
    MXCSR,
    RAX,
    RBP,
    RBX,
    RCX,
    RDI,
    RDX,
    RIP,
    RSI,
    RSP,
    VEC,
    XCR0,
)
from pyemu.jit.engine import Engine
from tests.cpu import system_setup as setup
from tests.cpu.fake_host import FakeHost
from tests.differential.encoder import Address, Choice, NotEncodable, encode
from tests.differential.sweep import disassembly
from tests.differential.vector_encoder import VectorChoice, encode_vector

OPERAND, SOURCE, DESTINATION, STACK, FRAME = 0x20000, 0x24000, 0x28000, 0x2C000, 0x30000  # four pages each
LANDING = 0x6000  # the code page, full of HLT
PRESENT_USER_WRITABLE, ACCESSED, DIRTY = 7, 32, 64
FIRST_PAGE, LAST_PAGE = OPERAND >> 12, (FRAME >> 12) + 3
MOST = 64  # instructions, or iterations

# Instructions whose completed stores stay when a later access faults: ENTER's pushes, on Zen 4 too.
UNFINISHED = frozenset(("enter",))
# What may differ after the fault, and between a disturbed run and an undisturbed one.
_IGNORED = {
    "icount", "cr2", "rip", "fault_chain", "halted", "fault_vector", "rf_count", "shadow", "stack_shadow",
    "pending_debug", "seg_sel", "seg_attr", "seg_limit", "seg_base", "mode", "mmu", "cpl", "stack_mask", "nmi_blocked",
}  # fmt: skip
_FIELDS = [f for f in COMPARED if f.name not in _IGNORED]
_SEGMENTS = [LAYOUT[n] for n in ("seg_sel", "seg_attr", "seg_limit", "seg_base")]
# Words that belong to the back end, and stay when a state is put back.
_KEPT = ("jit", "stats", "host_calls", "ram_base", "page_flags", "icount_limit")


@dataclass(frozen=True)
class Snapshot:
    """What is compared: words of State, flags, data pages, stack pointer included."""

    words: tuple[bytes, ...]
    rflags: int
    memory: bytes

    def differences(self, other: Snapshot) -> list[str]:
        """What differs, in words."""
        found = [f.name for f, a, b in zip(_FIELDS, self.words, other.words, strict=True) if a != b]
        if self.rflags != other.rflags:
            found.append(f"rflags {self.rflags:#x} {other.rflags:#x}")
        changed = [n for n, (a, b) in enumerate(zip(self.memory, other.memory, strict=True)) if a != b]
        if changed:
            found.append(f"{len(changed)} bytes of memory from {OPERAND + changed[0]:#x}")
        return found


class Bench:
    """A processor on a back end that is put back into the same state again and again."""

    def __init__(self, backend: str, bits: int) -> None:
        self.bits = bits
        self.m = setup.long() if bits == 64 else setup.compatibility()
        s = self.m.s
        cpuid.configure(s, None, set(FEATURES) - {"la57"})
        s[CR4] |= mode.CR4_OSFXSR | 1 << 10 | mode.CR4_OSXSAVE | mode.CR4_FSGSBASE
        s[CR0] |= mode.CR0_NE | mode.CR0_MP
        s[XCR0], s[MXCSR] = 0xE7, 0x1F80
        self.host = FakeHost()
        self.reference = self.engine = None
        if backend == "reference":
            self.reference = Reference(s, self.host, s.ram)
        else:
            self.engine = Engine(s, self.host, s.ram, backend)
        for vector in range(256):
            setup.set_gate(self.m, vector, 0x8E, low=1)  # on a stack of their own
        for page in range(FIRST_PAGE, LAST_PAGE + 1):
            s.ram[page << 12 : (page + 1) << 12] = bytes((page * 37 + n * 11) & 0x7F for n in range(0x1000))
        s.ram[LANDING : LANDING + 0x1000] = b"\xf4" * 0x1000
        for n in range(8):
            s[VEC + 8 * n] = 0x3FF0000000000000 + n
            s[FPR + 2 * n], s[FPR + 2 * n + 1] = 0x8000000000000000 + n, 0x3FFF
        s[FTW] = 0x7E
        mode.update(s)
        tlb.flush_all(s)
        kept = [LAYOUT[name] for name in _KEPT]
        self.holes = sorted((8 * f.index, 8 * f.count) for f in kept)
        self.clean_ram = bytes(s.ram)
        self.clean_state = bytes(s)

    # ---- the machine ----------------------------------------------------------------------------------------------
    def _put_back(self) -> None:
        """State and memory as in the beginning."""
        s, address = self.m.s, ctypes.addressof(self.m.s)
        at = 0
        for start, size in [*self.holes, (len(self.clean_state), 0)]:
            ctypes.memmove(address + at, self.clean_state[at:start], start - at)
            at = start + size
        s.ram[:] = self.clean_ram

    def _prepare(self, code: bytes, registers: dict[int, int], memory: dict[int, bytes]) -> None:
        self._put_back()
        s = self.m.s
        for number, value in registers.items():
            s[GPR + number] = value
        for at, data in memory.items():
            s.ram[at : at + len(data)] = data
        s.ram[setup.CODE : setup.CODE + len(code)] = code
        if self.engine:
            self.engine.written(setup.CODE, 16)
        s[RIP] = setup.CODE

    def _entry(self, page: int) -> int:
        return self.m.get(setup.PT + 8 * page, "Q")[0]

    def _set_entry(self, page: int, rights: int) -> None:
        self.m.put(setup.PT + 8 * page, "Q", page << 12 | rights)
        tlb_words = LAYOUT["tlb"]
        s = self.m.s  # an empty table, as in the beginning: quicker than flushing
        at = 8 * tlb_words.index
        ctypes.memmove(ctypes.addressof(s) + at, self.clean_state[at : at + 8 * tlb_words.count], 8 * tlb_words.count)
        s[LAYOUT["tlb_log_count"].index] = 0

    def _go(self) -> tuple[int, int]:
        """Run to a HLT: the vector whose handler it is in (or -1), and the RIP of the frame."""
        s = self.m.s
        s[ICOUNT_LIMIT] = s[ICOUNT] + MOST
        reason = self.reference.run() if self.reference else self.engine.run() if self.engine else None
        assert reason is not None
        if not s[HALTED]:
            return -2, s[RIP]
        s[HALTED] = s[EXIT_REQUEST] = 0
        vector, rest = divmod(s[RIP] - 1 - setup.HANDLERS, 16)
        if rest or not 0 <= vector < 256:
            return -1, s[RIP]
        frame = self.m.get(s[GPR + RSP], "7Q")
        words = frame[1:] if vector in (8, 10, 11, 12, 13, 14, 17) else frame
        s[GPR + RSP] = words[3]
        flags.set_eflags(s, words[2], ~(1 << 16) & (1 << 64) - 1)
        return vector, words[0]

    def _snapshot(self) -> Snapshot:
        s = self.m.s
        address = ctypes.addressof(s)
        words = tuple(ctypes.string_at(address + 8 * f.index, 8 * f.count) for f in _FIELDS)
        memory = bytes(s.ram[OPERAND : (LAST_PAGE + 1) << 12])
        return Snapshot(words, flags.eflags(s) & ~flags.RF, memory)

    def _resume(self) -> None:
        """Back from the handler to the instruction, at the privilege that it had."""
        s, address = self.m.s, ctypes.addressof(self.m.s)
        for f in _SEGMENTS:
            ctypes.memmove(address + 8 * f.index, self.clean_state[8 * f.index : 8 * (f.index + f.count)], 8 * f.count)
        s[RIP] = setup.CODE
        mode.update(s)

    # ---- the property -----------------------------------------------------------------------------------------------
    def check(self, form: Form, placements: tuple[int, ...] = (0xFFD, 0xFC0, 0x1000)) -> int:
        """Check a form; how many faults were made, 0 if it touches no data or doesn't get to its end."""
        total = 0
        for stack in (0x1004, 0xFFC):
            for offset in placements:
                registers = {
                    RAX: 0x1234, RCX: 3, RDX: 5, RBX: OPERAND + offset, RSP: STACK + stack, RBP: FRAME + 0x1004,
                    RSI: SOURCE + 0xFFD, RDI: DESTINATION + 0xFFD,
                }  # fmt: skip
                count = self._check_at(form, registers)
                if count >= 0:
                    total += count
                    break
        return total

    def _code(self, form: Form, address: int) -> bytes:
        kinds = {o.kind for o in form.operands}
        imm = address if "moffs" in kinds else LANDING + 0x100 if "far" in kinds else 16
        choice = Choice(
            reg=2, op=2, vvvv=1, address=Address(base=RBX, disp_size=0), imm=imm,
            imm2=setup.CODE32 if "far" in kinds else 2, repeat=0xF3 if form.row.rep else 0,
        )  # fmt: skip
        if form.space:
            return encode_vector(form, parse_encoding(form.row.encoding), self.bits, choice, VectorChoice(), setup.CODE)
        return encode(form, self.bits, choice)

    def _check_at(self, form: Form, registers: dict[int, int]) -> int:
        """As check(), for these addresses; -1 if the undisturbed instruction raises an exception."""
        try:
            code = self._code(form, registers[RBX])
        except NotEncodable:
            return 0
        selector = setup.CODE64 if self.bits == 64 else setup.CODE32
        size = form.size or 4
        pointer = (LANDING + 0x100).to_bytes(size, "little")
        memory = {registers[RSP]: b"".join(v.to_bytes(size, "little") for v in (LANDING + 0x100, selector, 2))}
        if form.row.sets_rip and form.is_memory:
            memory = {registers[RBX]: pointer + selector.to_bytes(2, "little")}
        elif form.row.name in ("call", "jmp"):
            memory = {registers[RBX]: pointer}
        elif form.row.name == "bound":
            memory = {registers[RBX]: bytes(size) + b"\x7f" * size}
        elif form.row.name in ("fxrstor", "xrstor", "ldmxcsr", "fldenv", "frstor"):
            memory = {registers[RBX]: bytes(600)}
        self._prepare(code, registers, memory)
        before = self._snapshot()
        text = f"{form.name}: {code.hex(' ')} ({disassembly(code, self.bits, setup.CODE)})"
        vector, _ = self._go()
        if vector != -1:
            return -1
        after = self._snapshot()
        faults = 0
        pages = [(page, self._entry(page)) for page in range(FIRST_PAGE, LAST_PAGE + 1)]
        for page, entry in pages:
            for rights in (0, PRESENT_USER_WRITABLE & ~2):
                if not entry & (ACCESSED if rights == 0 else DIRTY):
                    continue
                self._prepare(code, registers, memory)
                self._set_entry(page, rights)
                vector, rip = self._go()
                where = f"{text}, page {page << 12:#x} {'read-only' if rights else 'absent'}"
                assert (vector, rip) == (PF, setup.CODE), f"{where}: vector {vector} at {rip:#x}"
                assert self.m.s[CR2] >> 12 == page, f"{where}: CR2 is {self.m.s[CR2]:#x}"
                faults += 1
                if not form.row.rep and form.row.name not in UNFINISHED:
                    found = before.differences(self._snapshot())
                    assert not found, f"{where}: after the fault there differ {found}"
                self._set_entry(page, PRESENT_USER_WRITABLE)
                self._resume()
                assert self._go()[0] == -1, f"{where}: a second exception"
                found = after.differences(self._snapshot())
                assert not found, f"{where}: after the page was back there differ {found}"
        return faults
