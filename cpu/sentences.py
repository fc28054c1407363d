"""The back end that explains: instruction definitions bound to sentences instead of values.

`meaning(form, words)` runs a form's definition and gives what it says: `rax <- rax + mem64[rsi + 8]; flags from add64`,
and the faults that it may raise, in the order of the checks. With the words of a record, operands are the registers and
numbers that it names; without, they are called as in the opcode table. Mechanism that a definition calls is named by
what its docstring says, as are its results.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyemu.cpu import flags as fl
from pyemu.cpu import mode as md
from pyemu.cpu.decode import record as rc
from pyemu.cpu.expressions import Expr, Expressions
from pyemu.cpu.faults import NAMES, has_error_code
from pyemu.cpu.instruction import Instruction
from pyemu.cpu.mechanism_words import PURE, WORDS
from pyemu.cpu.ops import Form, Operand
from pyemu.cpu.semantics.rows import CONDITIONS
from pyemu.cpu.state import (
    CC_DST,
    CC_SRC,
    FCS,
    FDP,
    FDS,
    FIP,
    FLAGS,
    FOP,
    FPR,
    GPR,
    HALTED,
    LAYOUT,
    ONES,
    OPMASK,
    RSP,
    SEG_BASE,
    SEG_SEL,
    SHADOW,
    STACK_SHADOW,
    VEC,
    ZERO,
)  # fmt: skip
from pyemu.cpu.values import Value

SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs")
_GPR64 = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
_GPR32 = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", *(f"r{n}d" for n in range(8, 16)))
_GPR16 = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di", *(f"r{n}w" for n in range(8, 16)))
_GPR8 = ("al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil", *(f"r{n}b" for n in range(8, 16)))
_HIGH = ("ah", "ch", "dh", "bh")
# SDM 1, appendix B.
CONDITION_WORDS = (
    "OF", "not OF", "CF", "not CF", "ZF", "not ZF", "(CF or ZF)", "not (CF or ZF)", "SF", "not SF", "PF", "not PF",
    "SF != OF", "SF == OF", "(ZF or SF != OF)", "not (ZF or SF != OF)",
)  # fmt: skip
MODE_NAMES = {
    md.PROTECTED: "CR0.PE", md.V86: "RFLAGS.VM", md.TASK_SWITCHED: "CR0.TS", md.EMULATE_FPU: "CR0.EM",
    md.MONITOR_FPU: "CR0.MP", md.NO_OSFXSR: "CR4.OSFXSR off", md.NO_OSXSAVE: "CR4.OSXSAVE off",
    md.LONG_MODE: "EFER.LMA", md.CODE64: "64-bit mode", md.CODE32: "CS.D", md.TRAP: "RFLAGS.TF",
}  # fmt: skip
FLAG_NAMES = {
    fl.CF: "CF", fl.PF: "PF", fl.AF: "AF", fl.ZF: "ZF", fl.SF: "SF", fl.OF: "OF", fl.TF: "TF", fl.IF: "IF", fl.DF: "DF",
    1 << 12: "IOPL bit 0", 1 << 13: "IOPL bit 1", fl.NT: "NT", fl.RF: "RF", fl.VM: "VM", fl.AC: "AC", fl.VIF: "VIF",
    fl.VIP: "VIP", fl.ID: "ID",
}  # fmt: skip
_XCR0_NAMES = {1 << 1: "SSE", 1 << 2: "AVX", 1 << 5: "opmask", 1 << 6: "ZMM_Hi256", 1 << 7: "Hi16_ZMM"}
_XCR0_NAMES = {bit: f"XCR0.{name}" for bit, name in _XCR0_NAMES.items()}
_BITS = {
    "mode": MODE_NAMES,
    "rflags": FLAG_NAMES,
    "xcr0": _XCR0_NAMES,
    "fsw": {1 << 7: "FSW.ES"},
    "cr4": {1: "CR4.VME", 2: "CR4.PVI", 4: "CR4.TSD", md.CR4_UMIP: "CR4.UMIP", md.CR4_FSGSBASE: "CR4.FSGSBASE"},
}
_STATE_NAMES = {
    "flags": "rflags", "cc_dst": "result of the flags", "cc_src": "carry word", "cpl": "CPL", "ignne": "IGNNE#",
    "linear_top": "width of linear addresses",
}  # fmt: skip
NEVER = "never"  # a condition that doesn't hold in this form
_X87_POINTERS = (FIP, FCS, FOP, FDP, FDS)
_OPERANDS = {rc.REG: "reg", rc.RM: "r/m", rc.OP: "reg", rc.VVVV: "vvvv"}


@dataclass(frozen=True)
class Check:
    """A fault that an instruction raises by itself, if the condition holds."""

    vector: int
    error: int
    condition: str  # empty: always

    @property
    def name(self) -> str:
        name = NAMES[self.vector]
        return f"{name}({self.error})" if has_error_code(self.vector) else name

    def __str__(self) -> str:
        return f"{self.name} if {self.condition}" if self.condition else f"{self.name} always"


@dataclass
class Meaning:
    """What an instruction does: statements, and what can go wrong."""

    statements: list[str] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)  # in the order of the definition's fault_if
    touches_memory: bool = False
    rounds: bool = False  # floating point under MXCSR
    calls: list[str] = field(default_factory=list)  # names of mechanism

    @property
    def text(self) -> str:
        return "; ".join(self.statements) or "nothing"

    @property
    def faults(self) -> list[str]:
        """All in words."""
        known = list(dict.fromkeys(str(check) for check in self.checks if check.condition != NEVER))
        if self.touches_memory:
            known.append("#PF, #GP or #SS, #AC if the memory operand can't be reached")
        if self.rounds:
            known.append("#XM if it raises an exception that MXCSR does not mask")
        calls = [name for name in dict.fromkeys(self.calls) if name not in ("reciprocal", "crc32c", "random")]
        if calls:
            known.append(f"what the checks of {', '.join(calls)} find")
        return known


def meaning(form: Form, words: Sequence[int] | None = None, place: Callable[[int], str] = hex) -> Meaning:
    """Run the definition of a form; `place` writes an address in code."""
    return Sentences(form, words, place).run()


class Sentences(Instruction):
    """One definition at a time."""

    def __init__(self, form: Form, words: Sequence[int] | None, place: Callable[[int], str]) -> None:
        self.form = form
        self.words = words
        self.place = place
        self.made = Expressions(_BITS)
        self.meaning = Meaning()
        self._left = ""  # what the last call's value is called
        self._vector: Expr | None = None  # what the next call gets
        self._raw: dict[int, Expr] = {}  # queued CC_DST and CC_SRC
        self._pointers = False

    def run(self) -> Meaning:
        form = self.form
        form.row.function(self, *form.operands, *form.row.extra)
        self._raw_flags()
        if self._pointers:
            self._say("the x87 instruction and data pointers name this instruction")
        return self.meaning

    # ---- saying ------------------------------------------------------------------------------------------------
    def _say(self, text: str) -> None:
        self.meaning.statements.append(text)

    def _text(self, value: Value | Expr) -> str:
        return self.made.text(value.payload if isinstance(value, Value) else value, self.form.row.name)

    def _of(self, a: Expr) -> Value:
        return Value(self, a, a.width)

    def _leaf(self, name: str, width: int) -> Value:
        return self._of(self.made.leaf(name, width))

    # ---- values --------------------------------------------------------------------------------------------------
    def constant(self, number: int, width: int) -> Value:
        return self._of(self.made.const(number, width))

    def like(self, other: Value | int, value: Value) -> Value:
        return other if isinstance(other, Value) else self.constant(other, value.width)

    def binary(self, name: str, a: Value, b: Value) -> Value:
        if name.startswith("f"):
            self.meaning.rounds = True
        if name == "or_" and b.payload.constant == 2 and "carry word" in a.payload.leaves:
            return self._leaf("rflags", 64)  # flags.image() ends so
        if name == "and_" and b.payload.constant == 3 and a.payload is self.made.binary("lshr", *self._iopl_at()):
            return self._leaf("IOPL", 64)
        return self._of(self.made.binary(name, a.payload, b.payload))

    def compare(self, name: str, a: Value, b: Value) -> Value:
        if name.startswith("f"):
            self.meaning.rounds = True
        return self._of(self.made.compare(name, a.payload, b.payload))

    def unary(self, name: str, a: Value) -> Value:
        return self._of(self.made.unary(name, a.payload))

    def cast(self, name: str, a: Value, width: int) -> Value:
        return self._of(self.made.cast(name, a.payload, width))

    def select(self, condition: Value, yes: Value, no: Value) -> Value:
        return self._of(self.made.select(condition.payload, yes.payload, no.payload))

    def map(self, lane: int, function: Callable[..., Value], *operands: Value) -> Value:
        count = operands[0].width // lane
        if count == 1:
            return function(*operands)
        body = function(*(self._of(self.made.each(o.payload, o.width // count)) for o in operands))
        return self._of(self.made.map(body.payload, count))

    def join(self, lanes: Sequence[Value]) -> Value:
        return self._of(self.made.join([lane.payload for lane in lanes]))

    def lane(self, value: Value, lane: int, index: Value | int) -> Value:
        if isinstance(index, Value):
            return self._of(self.made.lane_at(value.payload, lane, index.payload))
        return self._of(self.made.lane(value.payload, lane, index % (value.width // lane)))

    def fma(self, a: Value, b: Value, c: Value, negate_product: bool, negate_addend: bool) -> Value:
        self.meaning.rounds = True
        parts = a.payload, b.payload, c.payload
        return self._of(self.made.other("fma", parts, a.width, (negate_product, negate_addend)))

    def convert(self, name: str, a: Value, width: int, mode: Value | None = None) -> Value:
        self.meaning.rounds = True
        return self._of(self.made.other(name, (a.payload,), width))

    def round_float(self, a: Value, mode: Value) -> Value:
        self.meaning.rounds = True
        return self._of(self.made.other("round_float", (a.payload, mode.payload), a.width))

    def settle_floats(self) -> None:
        pass

    def _iopl_at(self) -> tuple[Expr, Expr]:
        return self.made.leaf("rflags", 64), self.made.const(12, 64)

    # ---- registers -----------------------------------------------------------------------------------------------
    def _at(self, offset: int, width: int) -> Value:
        """What stands at a byte offset in the state."""
        word, byte = divmod(offset, 8)
        if word == ZERO:
            return self.constant(0, width)
        if word == ONES:
            return self.constant(-1, width)
        if GPR <= word < GPR + 16:
            return self._leaf(_general(word - GPR, byte, width), width)
        for first, count, name, whole in (
            (VEC, 256, ("xmm", "xmm", "ymm", "zmm")[max(0, (width - 1).bit_length() - 6)], 8),
            (OPMASK, 8, "k", 1), (FPR, 16, "mm", 2),
        ):  # fmt: skip
            if first <= word < first + count:
                number, inside = divmod(word - first, whole)
                full = max(width, 128 if whole == 8 else 64)
                return self._leaf(f"{name}{number}", full).bits(64 * inside + 8 * byte, width)
        return self._leaf(state_name(word), max(width, 64)).trunc(width) if not byte else self._leaf("state", width)

    def state(self, index: int, width: int = 64) -> Value:
        return self._at(8 * index, width)

    def state_at(self, index: Value) -> Value:
        number = index.payload.constant
        return self.state(number) if number is not None else self._leaf("a register", 64)

    def set_state(self, index: int, value: Value) -> None:
        if index in (CC_DST, CC_SRC):
            self._raw[index] = value.payload
        elif index in _X87_POINTERS:
            self._pointers = True
        elif index == HALTED:
            self._say("the processor halts until an interrupt")
        elif index == SHADOW:
            self._say(f"interrupts wait until the next instruction is over{self._unless_kept(value, index)}")
        elif index == STACK_SHADOW:
            self._say(f"so do debug traps{self._unless_kept(value, index)}")
        else:
            bits = self._flag_bits(value.payload) if index == FLAGS else ""
            if bits:
                self._say(bits)
            else:
                self._assign(self._target(8 * index, value), value)

    def _unless_kept(self, value: Value, index: int) -> str:
        a = value.payload
        if a.op == "select" and a.args[1] is self.state(index).payload:
            return f" unless {self._text(a.args[0])}"
        return ""

    def _flag_bits(self, a: Expr) -> str:
        """`rflags & ~0x200` by the flag's name; nothing if it isn't that."""
        if a.op == "select":
            yes, no = self._flag_bits(a.args[1]), self._flag_bits(a.args[2])
            return f"{yes} if {self._text(a.args[0])}, else {no}" if yes and no else ""
        if a.op not in ("and_", "or_") or a.args[0].op != "leaf":
            return ""
        if a.args[1].op == "select":
            return self._flag_bits(self.made.select(
                a.args[1].args[0], *(self.made.binary(a.op, a.args[0], part) for part in a.args[1].args[1:])
            ))  # fmt: skip
        if a.args[1].constant is None:
            return ""
        bits = a.args[1].constant if a.op == "or_" else ~a.args[1].constant & (1 << 64) - 1
        names = [name for bit, name in FLAG_NAMES.items() if bits & bit]
        return "; ".join(f"{name} <- {int(a.op == 'or_')}" for name in names)

    def register(self, field: int, width: int) -> Value:
        if self.words is not None:
            return self._at(self.words[rc.REGS] >> field & 0xFFFF, width)
        name = "mask" if field == rc.MASK and self.form.space == "EVEX" else _OPERANDS[field]
        return self._leaf(name, width)

    def set_register(self, field: int, value: Value) -> None:
        if self.words is not None:
            target = self._target(self.words[rc.REGS] >> field & 0xFFFF, value)
        else:
            target = _OPERANDS[field]
        self._assign(target, value)

    def _target(self, offset: int, value: Value) -> str:
        """What a write of that value goes to."""
        width = value.payload.args[0].width if value.payload.op == "zext" and value.width == 512 else value.width
        a: Expr = self._at(offset, width).payload
        return self._text(a) if a.leaves else "nothing"

    def _assign(self, target: str, value: Value) -> None:
        a, note = value.payload, ""
        if a.op == "join" and a.width == 128 and len(a.args) == 2 and a.args[1].constant == 0xFFFF:
            a = a.args[0]  # an MMX register; what is above is that of the x87 register that it lies in
        if a.op == "zext" and a.width == 512:
            a, note = a.args[0], ", what is above becomes 0"
        elif a.op == "zext" and a.args[0].width == 32:
            a, note = a.args[0], ", zero-extended"
        self._say(f"{target} <- {self._text(a)}{note}")

    def record_word(self, index: int) -> Value:
        if self.words is not None:
            return self.constant(self.words[index], 64)
        return self._leaf({rc.IMM: "imm", rc.IMM2: "imm2", rc.DISP: "disp", rc.R_RIP: "rip"}.get(index, "record"), 64)

    def record_field(self, word: int, shift: int, width: int) -> Value:
        if self.words is not None:
            return self.constant(self.words[word] >> shift & ((1 << width) - 1), 64)
        names = {
            (rc.PACKED, rc.LENGTH): "length", (rc.PACKED, rc.ADDRESS_SIZE): "address size",
            (rc.PACKED, rc.SEGMENT): "segment", (rc.PACKED, rc.RFLAGS_SHIFT): "prefixes",
            (rc.ADDRESS, rc.SCALE): "scale",
        }  # fmt: skip
        return self._leaf(names.get((word, shift), "operand"), 64)

    def register_number(self, field: int) -> Value:
        if self.words is None:
            return self._leaf(_OPERANDS[field], 64)
        number = self.words[rc.REGS] >> field & 0xFFFF
        names = [self._numbered(operand, number) for operand in self.form.operands if operand.source != "fixed"
                 and self._FIELDS.get(operand.source) == field]  # fmt: skip
        return self._leaf(names[0], 64) if names and names[0] else self.constant(number, 64)

    def _numbered(self, operand: Operand, number: int) -> str:
        kinds = {"seg": SEGMENTS, "st": tuple(f"st{n}" for n in range(8))}
        if operand.kind in kinds and number < len(kinds[operand.kind]):
            return kinds[operand.kind][number]
        return f"{operand.kind}{number}" if operand.kind in ("cr", "dr") else ""

    def address_register(self, field: int) -> Value:
        if self.words is not None:
            return self._at(self.words[rc.ADDRESS] >> field & 0xFFFF, 64)
        return self._leaf({rc.BASE: "base", rc.INDEX_REG: "index"}.get(field, "segment base"), 64)

    # ---- memory ----------------------------------------------------------------------------------------------------
    def offset(self, operand: Operand) -> Value:
        return super().offset(operand) if self.words is not None else self._leaf("address", 64)

    def wrap_address(self, offset: Value) -> Value:
        return super().wrap_address(offset) if self.words is not None else offset

    def linear(self, offset: Value, size: int, access: int) -> Value:
        return self._of(self.made.other("linear", (offset.payload,), 64, self._segment()))

    def _segment(self) -> str:
        """How the segment of the memory operand is written, where it matters."""
        if self.words is None:
            return ""
        packed = self.words[rc.PACKED]
        segment = packed >> rc.SEGMENT & 0xFF
        return f"{SEGMENTS[segment]}:" if segment > 3 or packed >> rc.RFLAGS_SHIFT & rc.LEGACY else ""

    def _memory(self, linear: Value, width: int) -> Value:
        self.meaning.touches_memory = True
        a = linear.payload
        inner, segment = (a.args[0], a.data) if a.op == "linear" else (a, "")
        return self._of(self.made.other("mem", (inner,), width, segment))

    def load(self, linear: Value, width: int, access: int = 0) -> Value:
        return self._memory(linear, width)

    def store(self, linear: Value, value: Value, access: int = 0) -> None:
        self._assign(self._text(self._memory(linear, value.width)), value)

    def probe_write(self, linear: Value, size: int, alignment: int = 0) -> None:
        self.meaning.touches_memory = True

    def load_elements(self, operand: Operand, width: int, mask: Value) -> Value:
        memory = self._memory(self.address(operand), width)
        return self.map(width // mask.width, lambda x, m: m.select(x, 0), memory, mask)

    def store_elements(self, operand: Operand, value: Value, mask: Value, whole: bool = True) -> None:
        target = self._text(self._memory(self.address(operand), value.width))
        self._say(f"{target} <- {self._text(value)}, where {self._text(mask)} selects the element")

    def stack_linear(self, offset: int, size: int, access: int) -> Value:
        return self.stack_linear_at(self.state(GPR + RSP) + offset, size, access)

    def stack_linear_at(self, pointer: Value, size: int, access: int) -> Value:
        return self._of(self.made.other("linear", (pointer.payload,), 64, ""))

    def set_stack(self, pointer: Value) -> None:
        self._say(f"rsp <- {self._text(pointer)}")

    def memory_access(self) -> Value:
        return self._leaf("segment", 64)

    def vector(self, width: int) -> Value:
        return self._leaf(self._left or "result", width)

    def set_vector(self, value: Value) -> None:
        self._vector = value.payload

    # ---- flags -----------------------------------------------------------------------------------------------------
    def _flags(self, what: str, width: int) -> None:
        self._say(f"flags from {what}{width}")

    def flags_logic(self, result: Value) -> None:
        self._flags("logic", result.width)
        if self.form.row.operands and not self.meaning.statements[:-1]:  # TEST: nothing else says of what
            self.meaning.statements[-1] += f" of {self._text(result)}"

    def flags_add(self, a: Value, b: Value, result: Value, carry: Value | None = None) -> None:
        self._flags("add" if carry is None else "adc", result.width)

    def flags_sub(self, a: Value, b: Value, result: Value, borrow: Value | None = None) -> None:
        self._flags("sub" if borrow is None else "sbb", result.width)
        if not self.meaning.statements[:-1]:  # CMP
            self.meaning.statements[-1] += f" of {self._text(a)} and {self._text(b)}"

    def flags_set(self, result: Value, cf: Value, of: Value, adjust: Value | None = None) -> None:
        self._say(f"ZF SF PF from {self._text(result)}")
        af = self.constant(0, 1) if adjust is None else adjust.bit(4)
        for name, bit in (("CF", cf), ("OF", of), ("AF", af)):
            if bit.payload is not self._leaf(name, 1).payload:
                self._say(f"{name} <- {self._text(bit)}")

    def flags_only(self, **bits: Value) -> None:
        for name, bit in bits.items():
            self._say(f"{name.upper()} <- {self._text(bit)}")

    def cf(self) -> Value:
        return self._leaf("CF", 1)

    def pf(self) -> Value:
        return self._leaf("PF", 1)

    def af(self) -> Value:
        return self._leaf("AF", 1)

    def zf(self) -> Value:
        return self._leaf("ZF", 1)

    def sf(self) -> Value:
        return self._leaf("SF", 1)

    def of(self) -> Value:
        return self._leaf("OF", 1)

    def condition(self, code: int) -> Value:
        assert len(CONDITIONS) == len(CONDITION_WORDS)
        return self._leaf(CONDITION_WORDS[code], 1)

    def _raw_flags(self) -> None:
        """What was written to the two words of the lazy flags."""
        for index, old in ((CC_DST, "the result"), (CC_SRC, "the carry word")):
            a = self._raw.get(index)
            if a is None:
                continue
            when = ""
            if a.op == "select" and a.args[2] is self.state(index).payload:
                when, a = f" if {self._text(a.args[0])}", a.args[1]
            a = a.args[0] if a.op == "sext" else a
            if index == CC_DST:
                self._say(f"ZF SF PF from {self._text(a)}{when}")
            else:
                self._say(f"{_carry_word(self, a) or f'CF AF OF from {old}: {self._text(a)}'}{when}")

    # ---- control -----------------------------------------------------------------------------------------------
    def next_rip(self) -> Value:
        return super().next_rip() if self.words is not None else self._leaf("next rip", 64)

    def jump(self, target: Value) -> None:
        if self.form.row.sets_rip or target.payload.op == "select":
            return  # mechanism has said where; a string instruction stays or goes on
        self._say(f"rip <- {self._place(target)}")

    def jump_if(self, condition: Value, target: Value) -> None:
        self._say(f"rip <- {self._place(target)} if {self._text(condition)}, else the next instruction")

    def _place(self, target: Value) -> str:
        number = target.payload.constant
        return self.place(number) if number is not None else self._text(target)

    def fault_if(self, condition: Value, vector: int, error: int = 0) -> None:
        number = condition.payload.constant
        text = self._text(condition) if number is None else "" if number else NEVER
        self.meaning.checks.append(Check(vector, error, text))

    def bad_target(self, target: Value) -> Value:
        limit = "not canonical" if self.size == 8 else "beyond the limit of CS"
        return self._leaf(f"{self._place(target)} is {limit}", 1)

    def mxcsr(self) -> Value:
        return self._leaf("mxcsr", 32)

    def call(self, function: Callable[..., int], *arguments: Value | int) -> None:
        texts = [self._text(self.argument(a)) for a in arguments]
        name = function.__name__.rstrip("_")
        if self._vector is not None:
            texts.insert(0, self._text(self._vector))
            self._vector = None
        self.meaning.calls.append(name)
        self._left = f"{name}({', '.join(texts[:1] if name not in PURE else texts)})"
        self._say(self._repetition() + mechanism_text(function, texts, self.form.row.name))

    def _repetition(self) -> str:
        """What a REP prefix adds."""
        row = self.form.row
        if not row.rep or self.words is None:
            return ""
        prefixes = self.words[rc.PACKED] >> rc.RFLAGS_SHIFT
        until = " or ZF = 0" if prefixes & rc.REPEAT else " or ZF = 1"
        until = until if row.name in ("cmps", "scas") else ""
        return f"until rcx = 0{until}, rcx counting down: " if prefixes & (rc.REPEAT | rc.REPEAT_NE) else ""

    def value(self, width: int = 64) -> Value:
        return self._leaf(self._left or "result", max(width, 64)).trunc(width)


def mechanism_text(function: Callable[..., int], arguments: Sequence[str], mnemonic: str) -> str:
    """What a call does, in words."""
    words = WORDS.get(function.__name__.rstrip("_"))
    return words.format(*arguments, name=mnemonic) if words else first_sentence(function)


def first_sentence(function: Callable[..., Any]) -> str:
    """What a docstring begins with."""
    text = " ".join((function.__doc__ or "").split())
    return re.split(r"(?<=[^.])\.(?:\s|$)|;\s", text, maxsplit=1)[0]


def state_name(word: int) -> str:
    """A word of the state by the name of its field."""
    for name, place in LAYOUT.items():
        if place.index <= word < place.index + place.count:
            if place.index in (SEG_SEL, SEG_BASE):
                return SEGMENTS[word - place.index] + ("" if place.index == SEG_SEL else " base")
            name = _STATE_NAMES.get(name, name)
            return name if place.count == 1 else f"{name}{word - place.index}"
    return f"state{word}"


def _general(number: int, byte: int, width: int) -> str:
    if width == 8:
        return _HIGH[number] if byte == 1 and number < 4 else _GPR8[number]
    return {16: _GPR16, 32: _GPR32}.get(width, _GPR64)[number]


def _carry_word(i: Sentences, a: Expr) -> str:
    """`CF <- ..; OF <- ..` if the word is put together of single bits."""
    found: dict[str, str] = {}
    rest = [a]
    while rest:
        part = rest.pop()
        shift = 0
        if part.op == "or_":
            rest += part.args
            continue
        if part.op == "shl" and part.args[1].constant is not None:
            shift, part = part.args[1].constant or 0, part.args[0]
        if part.constant is not None:
            found.update({name: "1" for bit, name in FLAG_NAMES.items() if part.constant << shift & bit})
        elif part.op == "zext" and part.args[0].width == 1 and 1 << shift in FLAG_NAMES:
            found[FLAG_NAMES[1 << shift]] = i._text(part.args[0])
        else:
            return ""
    return "; ".join(f"{name} <- {found.get(name, '0')}" for name in ("CF", "OF", "AF"))


__all__ = ["Check", "Meaning", "Sentences", "meaning"]
