"""What instruction definitions see: operands, memory, flags, stack, control flow, on top of a builder.

Rules of the contract. Reads see the state as it was when the instruction began. Register and flag writes are queued and
committed when the definition returns. Stores happen at once, so they come after everything that can fault; with two
stores
the first probes the second's address (`probe_write`). `call` runs mechanism code, which reads and writes the state
directly: an instruction that calls should leave the rest to it, and take its result with `value()`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from pyemu.cpu import flags as fl
from pyemu.cpu import vector_memory
from pyemu.cpu.decode import record as rc
from pyemu.cpu.memory import ANY_ALIGNMENT
from pyemu.cpu.ops import Form, Operand
from pyemu.cpu.state import CC_DST, CC_SRC, CPL, CS, GPR, LINEAR_TOP, MXCSR, ONES, RSP, SEG_LIMIT, STACK_MASK, VALUE
from pyemu.cpu.values import Builder, Value

UD, NM, TS, NPV, SSV, GP, PF, MF, AC, XM, DE = 6, 7, 10, 11, 12, 13, 14, 16, 17, 19, 0
READ, WRITE = 0, 1
MAX_VECTOR = 512  # what a VEX instruction clears above its result (SDM 1, 14.1.1)
ALL_MASKED, ROUNDING, ROUNDING_AT = 0x1F80, 0x6000, 13  # of MXCSR (SDM 1, figure 10-3)
STACK_ACCESS = 4  # access through SS: #SS instead of #GP for a non-canonical address


# Operands of odd size that are read in parts: bits, and the bytes of the first part, whose alignment may be checked
# (SDM 3, table 6-7). It comes before page faults of the others.
FIRST_PART = {48: 4, 80: 8}


class Instruction(Builder):
    """One instruction being executed (Concrete) or compiled (LLVM). `size` is its operand size in bytes (0 if
    irrelevant)."""

    form: Form
    rounding: Value | None = None  # set before the first floating-point operation, it takes the place of MXCSR's
    unreported: Value | None = None  # exception flags of MXCSR that the instruction doesn't report, 32 bits

    @property
    def size(self) -> int:
        return self.form.size

    @property
    def width(self) -> int:
        """Operand size in bits."""
        return 8 * self.form.size

    # ---- what a back end provides ---------------------------------------------------------------------
    @abstractmethod
    def state(self, index: int, width: int = 64) -> Value:
        """The low `width` bits of State word `index` (width up to 512 reads the following words too)."""

    @abstractmethod
    def state_at(self, index: Value) -> Value:
        """A State word whose number is known only at run time."""

    @abstractmethod
    def set_state(self, index: int, value: Value) -> None:
        """Queue a write of the low bytes of State word `index` (any width that is a multiple of 8; others are kept)."""

    @abstractmethod
    def register(self, field: int, width: int) -> Value:
        """The register whose byte offset stands in REGS field `field` (record.REG, RM, OP)."""

    @abstractmethod
    def set_register(self, field: int, value: Value) -> None:
        """Queue a write of exactly value.width bits to that register."""

    @abstractmethod
    def record_word(self, index: int) -> Value:
        """Word `index` of the record (IMM, DISP, IMM2, R_RIP, PACKED) as 64 bits."""

    @abstractmethod
    def record_field(self, word: int, shift: int, width: int) -> Value:
        """A packed field of the record, as 64 bits."""

    @abstractmethod
    def register_number(self, field: int) -> Value:
        """The number (not offset) in REGS field `field`, for segment, control and debug registers; 64 bits."""

    @abstractmethod
    def address_register(self, field: int) -> Value:
        """The base or index register (record.BASE, INDEX_REG), 64 bits."""

    @abstractmethod
    def linear(self, offset: Value, size: int, access: int) -> Value:
        """The linear address of `offset` in the instruction's memory segment, checked for `size` bytes."""

    @abstractmethod
    def load(self, linear: Value, width: int, access: int = READ) -> Value:
        """Read memory at a linear address; exits on a fault. access=WRITE reads for modification."""

    @abstractmethod
    def store(self, linear: Value, value: Value, access: int = 0) -> None:
        """Write memory at a linear address; exits on a fault."""

    @abstractmethod
    def probe_write(self, linear: Value, size: int, alignment: int = 0) -> None:
        """Fault now if `size` bytes at `linear` cannot be written, or (where that is checked) aren't aligned."""

    @abstractmethod
    def stack_linear(self, offset: int, size: int, access: int) -> Value:
        """Linear address of `size` bytes at stack pointer + offset (wrapped to the stack's width)."""

    @abstractmethod
    def stack_linear_at(self, pointer: Value, size: int, access: int) -> Value:
        """Linear address of `size` bytes at another offset in the stack segment (wrapped to the stack's width)."""

    @abstractmethod
    def vector(self, width: int) -> Value:
        """State[VECTOR] as the last call() left it."""

    @abstractmethod
    def set_vector(self, value: Value) -> None:
        """Put a value into State[VECTOR], for call()."""

    @abstractmethod
    def memory_access(self) -> Value:
        """STACK_ACCESS if the memory operand is in SS, else 0; 64 bits."""

    @abstractmethod
    def settle_floats(self) -> None:
        """Raise the floating-point exceptions so far, if any is not masked, before there are more."""

    @abstractmethod
    def fault_if(self, condition: Value, vector: int, error: int = 0) -> None:
        """Raise an exception when the condition (width 1) holds."""

    @abstractmethod
    def call(self, function: Callable[..., int], *arguments: Value | int) -> None:
        """Run mechanism `function(s, *arguments)`; nonzero means that a fault was raised, and exits."""

    @abstractmethod
    def jump(self, target: Value) -> None:
        """Queue: continue at RIP `target`. The instruction's row has ends_block=True."""

    @abstractmethod
    def value(self, width: int = 64) -> Value:
        """State[VALUE] as the last call() left it (width up to 128)."""

    # ---- constants -----------------------------------------------------------------------------------------
    def const(self, number: int, width: int | None = None) -> Value:
        """A constant of the operand's width, or of the given one."""
        return self.constant(number & ((1 << (width or self.width)) - 1), width or self.width)

    # ---- operands ------------------------------------------------------------------------------------------
    _FIELDS = {"reg": rc.REG, "rm": rc.RM, "op": rc.OP, "vvvv": rc.VVVV, "is4": rc.IS4}

    def field(self, operand: Operand) -> int:
        """The REGS field of a register operand, for register() and set_register() at other widths."""
        return self._FIELDS[operand.source]

    def offset(self, operand: Operand) -> Value:
        """The effective address (offset in its segment) of a memory operand, wrapped to the address size; 64 bits."""
        if operand.kind == "moffs":
            return self.record_word(rc.IMM)
        index = self.address_register(rc.INDEX_REG) << self.record_field(rc.ADDRESS, rc.SCALE, 16)
        total = self.address_register(rc.BASE) + index + self.record_word(rc.DISP)
        return self.wrap_address(total)

    def wrap_address(self, offset: Value) -> Value:
        """An offset cut to the instruction's address size."""
        size = self.record_field(rc.PACKED, rc.ADDRESS_SIZE, 8)
        narrow = size.eq(4).select(offset & 0xFFFFFFFF, offset & 0xFFFF)
        return size.eq(8).select(offset, narrow)

    def address(self, operand: Operand, access: int = READ, displacement: int = 0, size: int | None = None) -> Value:
        """The linear address of a memory operand (plus a constant), checked for `size` bytes."""
        offset = self.offset(operand)
        if displacement:
            offset = self.wrap_address(offset + displacement)
        return self.linear(offset, size or operand.size, access)

    def read(self, operand: Operand) -> Value:
        """The operand's value at its own width. Immediates are sign-extended where the table says so."""
        kind, width = operand.kind, operand.width
        if kind in ("reg", "xmm", "mask", "mm", "fixed"):
            if operand.source == "fixed":
                return self.state(GPR + operand.number, width)
            return self.register(self._FIELDS[operand.source], width)
        if operand.is_memory:
            return self.vector_source(operand) if self.form.space == "EVEX" else self.load(self.address(operand), width)
        if kind in ("imm", "rel"):
            return self.record_word(rc.IMM2 if operand.source == "imm2" else rc.IMM).trunc(width)
        if kind == "one":
            return self.const(1, width)
        if kind in ("seg", "cr", "dr"):
            return self.number(operand)
        raise ValueError(f"{self.form.name}: cannot read operand of kind {kind}")

    def number(self, operand: Operand) -> Value:
        """The number of a segment, control or debug register operand (64 bits)."""
        if operand.source == "fixed":
            return self.const(operand.number, 64)
        return self.register_number(self._FIELDS[operand.source])

    def modify(self, operand: Operand) -> tuple[Value, Callable[[Value], None]]:
        """Read an operand that will be written: its value, and the function that writes it back.

        A memory operand is checked for write access only, and computed once.
        """
        if not operand.is_memory:
            return self.read(operand), lambda v: self.write(operand, v)
        linear = self.address(operand, WRITE)
        return self.load(linear, operand.width, WRITE), lambda v: self.store(linear, v)

    def write(self, operand: Operand, value: Value) -> None:
        """Write an operand. A 32-bit general register is zero-extended to 64; narrower ones merge."""
        cleared = operand.kind == "xmm" and self.form.space  # what is above the result becomes 0
        assert value.width == operand.width or (cleared and value.width < operand.width), f"{self.form.name}: {operand}"
        if operand.is_memory:
            if self.masked:
                if self.form.row.whole:
                    self._probe_whole(operand)
                self.store_elements(operand, value, self.mask(self.form.elements))
            else:
                self.store(self.address(operand, WRITE), value)
            return
        if (operand.kind == "reg" and operand.size == 4) or operand.kind == "mask":
            value = value.zext(64)
        elif cleared:
            value = self.merge(operand, value).zext(MAX_VECTOR)
        if operand.source == "fixed":
            self.set_state(GPR + operand.number, value)
        else:
            self.set_register(self._FIELDS[operand.source], value)

    # ---- VEX and EVEX ----------------------------------------------------------------------------------------
    @property
    def masked(self) -> bool:
        """May the form have a mask?"""
        return self.form.row.element != 0

    def mask(self, count: int) -> Value:
        """The mask of a masked form, for `count` elements (`count` bits)."""
        return self.register(rc.MASK, 64).trunc(count)

    def zeroing(self) -> Value:
        """EVEX.z, width 1."""
        return (self.record_field(rc.PACKED, rc.RFLAGS_SHIFT, 8) & rc.ZEROING).ne(0)

    def unless_zeroing(self, value: Value) -> Value:
        """A value that EVEX.z makes 0."""
        return self.zeroing().select(0, value)

    def merge(self, dst: Operand, value: Value, mask: Value | None = None) -> Value:
        """The elements that the mask (of the instruction, if none is given) selects from `value`, the others from the
        destination, or zero; what is above the elements as it is."""
        if not self.masked or self.form.row.masking == "K":
            return value
        lane, count = self.form.row.element, self.form.elements
        old = self.unless_zeroing(self.register(self.field(dst), lane * count))
        new, chosen = value.trunc(lane * count), mask or self.mask(count)
        low = self.map(lane, lambda a, b, m: m.select(a, b), new, old, chosen)
        if not self.form.scalar:
            return low.zext(value.width)
        return self.join((low, *(self.lane(value, lane, n) for n in range(1, value.width // lane))))

    def replace(self, dst: Operand, value: Value) -> None:
        """Write a vector register without regard to the mask."""
        self.set_register(self._FIELDS[dst.source], value.zext(MAX_VECTOR))

    def write_mask(self, dst: Operand, bits: Value) -> None:
        """Write a mask register: one bit an element, 0 where the mask leaves one out."""
        if self.masked:
            bits = bits & self.mask(bits.width)
        self.write(dst, bits.zext(dst.width))

    def active(self, value: Value, lane: int, other: int | None = None) -> Value:
        """Floating-point numbers with `other`, by default 1.0, in place of those that the mask leaves out, so that they
        raise no exceptions."""
        if not self.masked:
            return value
        one = self.const(other or (0x3FF0000000000000 if lane == 64 else 0x3F800000), lane)
        if value.width == lane:
            return self.mask(1).select(value, one)
        count = value.width // lane
        return self.map(lane, lambda x, m: m.select(x, one), value, self.mask(count))

    def vector_source(self, operand: Operand) -> Value:
        """A memory operand of an EVEX instruction: repeated, or only where the mask selects, or whole. One that is
        repeated is read if the mask selects anything."""
        row, form = self.form.row, self.form
        suppressing = self.masked and not row.whole
        if form.b:
            if suppressing:
                one = self.load_elements(operand, row.broadcast, self.mask(form.elements).ne(0))
            else:
                one = self.load(self.address(operand, size=row.broadcast // 8), row.broadcast)
            return self.join([one] * (operand.width // row.broadcast))
        if not suppressing:
            return self.load(self.address(operand), operand.width)
        return self.load_elements(operand, operand.width, self.mask(form.elements))

    def _elements(self, operand: Operand) -> tuple[Value, Value]:
        """Where elements are, for vector_memory: in legacy modes, each of them is checked against its segment.
        VMASKMOV's may lie anywhere even where alignment is checked."""
        legacy = (self.record_field(rc.PACKED, rc.RFLAGS_SHIFT, 8) & rc.LEGACY).ne(0)
        segment = self.record_field(rc.PACKED, rc.SEGMENT, 8) << vector_memory.SEGMENT_AT | vector_memory.LEGACY
        base = legacy.select(self.const(0, 64), self.address_register(rc.SEGMENT_BASE))
        anywhere = ANY_ALIGNMENT if self.form.space == "VEX" else 0
        return self.offset(operand) + base, self.memory_access() | anywhere | legacy.select(segment, 0)

    def load_elements(self, operand: Operand, width: int, mask: Value) -> Value:
        """Read the elements that a mask selects, the others as 0; those cannot fault (SDM 2, 2.7.7)."""
        (at, access), size = self._elements(operand), width // 8
        self.call(vector_memory.load, at, size // mask.width, mask, self._unmasked(size), access)
        return self.vector(width)

    def store_elements(self, operand: Operand, value: Value, mask: Value, whole: bool = True) -> None:
        """Write the elements that a mask selects; without a mask, as a whole."""
        (at, access), size = self._elements(operand), value.width // 8
        self.set_vector(value)
        at_once = self._unmasked(size) if whole else self.const(0, 64)
        self.call(vector_memory.store, at, size // mask.width, mask, at_once, access)

    def probe_elements(self, operand: Operand, mask: Value | None) -> None:
        """Fault now if the elements that a mask selects, or all bytes without one, cannot be written."""
        if mask is None:
            self._probe_whole(operand)
        else:
            (at, access), size = self._elements(operand), operand.size
            self.call(vector_memory.probe_elements, at, size // mask.width, mask, self._unmasked(size), access)

    def _probe_whole(self, operand: Operand) -> None:
        alignment = min(operand.size, vector_memory.WHOLE)
        self.probe_write(self.address(operand, WRITE), operand.size, alignment)

    def _unmasked(self, size: int) -> Value:
        """`size` if the instruction, whose form may have a mask, has none; else 0."""
        if not self.masked:
            return self.const(0, 64)
        return self.register_number(rc.MASK).eq(8 * ONES).select(self.const(size, 64), 0)

    # ---- named registers -----------------------------------------------------------------------------------
    def gpr(self, number: int, width: int | None = None) -> Value:
        """The low bits of a general register, by default of the operand's width."""
        return self.state(GPR + number, width or self.width)

    def set_gpr(self, number: int, value: Value) -> None:
        """Write a general register as an operand write would (32 bits zero-extend)."""
        self.set_state(GPR + number, value.zext(64) if value.width == 32 else value)

    # ---- flags -------------------------------------------------------------------------------------------------
    def may_be_zero(self, count: Operand) -> bool:
        """Can the count of a shift or rotate be 0, so that the flags stay? A back end may have chosen code by it."""
        return True

    def _result(self, result: Value) -> None:
        self.set_state(CC_DST, result.sext(64))

    def flags_logic(self, result: Value) -> None:
        """CF = OF = AF = 0, the rest from the result."""
        self._result(result)
        self.set_state(CC_SRC, self.const(0, 64))

    def flags_add(self, a: Value, b: Value, result: Value, carry: Value | None = None) -> None:
        """All six after result = a + b + carry (carry of width 1, absent for 0)."""
        cf = result.ult(a)
        if carry is not None:
            cf = cf | (carry & result.eq(a))
        self.flags_set(result, cf, ((a ^ result) & (b ^ result)).sign(), a ^ b ^ result)

    def flags_sub(self, a: Value, b: Value, result: Value, borrow: Value | None = None) -> None:
        """All six after result = a - b - borrow."""
        cf = a.ult(b)
        if borrow is not None:
            cf = cf | (borrow & a.eq(b))
        self.flags_set(result, cf, ((a ^ b) & (a ^ result)).sign(), a ^ b ^ result)

    def flags_increment(self, a: Value, result: Value) -> None:
        """All but CF after result = a + 1."""
        self.flags_set(result, self.cf(), (~a & result).sign(), a ^ result)

    def flags_decrement(self, a: Value, result: Value) -> None:
        """All but CF after result = a - 1."""
        self.flags_set(result, self.cf(), (a & ~result).sign(), a ^ result)

    def flags_set(self, result: Value, cf: Value, of: Value, adjust: Value | None = None) -> None:
        """ZF SF PF from the result, CF and OF (width 1) as given, AF from bit 4 of `adjust` (0 if absent)."""
        word = fl.place(cf, fl.CF) | fl.place(of, fl.CARRY_OF)
        if adjust is not None:
            word = word | (adjust.resize(64) & fl.AF)
        self._result(result)
        self.set_state(CC_SRC, word)

    def flags_only(self, **bits: Value) -> None:
        """Replace the named flags (cf pf af zf sf of, width 1 each) and keep the others."""
        masks = {"cf": fl.CF, "pf": fl.PF, "af": fl.AF, "zf": fl.ZF, "sf": fl.SF, "of": fl.CARRY_OF}
        if bits.keys() <= {"cf", "af", "of"}:
            word = self.state(CC_SRC)
            for name, bit in bits.items():
                word = (word & ~masks[name]) | fl.place(bit, masks[name])
            self.set_state(CC_SRC, word)
            return
        now = {"cf": self.cf, "pf": self.pf, "af": self.af, "zf": self.zf, "sf": self.sf, "of": self.of}
        new = {name: bits[name] if name in bits else get() for name, get in now.items()}
        word = fl.place(new["cf"], fl.CF) | fl.place(new["af"], fl.AF) | fl.place(new["of"], fl.CARRY_OF)
        word = word | fl.place(new["sf"], fl.SF) | (fl.place(new["pf"] ^ new["zf"], fl.PF))
        self.set_state(CC_DST, (~new["zf"]).zext(64))
        self.set_state(CC_SRC, word)

    def cf(self) -> Value:
        """CF now, width 1; likewise pf, af, zf, sf, of."""
        return self.state(CC_SRC).bit(0)

    def af(self) -> Value:
        return self.state(CC_SRC).bit(4)

    def of(self) -> Value:
        return self.state(CC_SRC).bit(8)

    def zf(self) -> Value:
        return self.state(CC_DST).eq(0)

    def sf(self) -> Value:
        return fl.sign(self)

    def pf(self) -> Value:
        return fl.parity(self)

    def condition(self, code: int) -> Value:
        """Condition code 0-15 as width 1."""
        return fl.condition(self, code)

    # ---- stack ---------------------------------------------------------------------------------------------
    def push(self, value: Value) -> None:
        """Store below the stack pointer and move it."""
        size = value.width // 8
        self.store(self.stack_linear(-size, size, WRITE), value, STACK_ACCESS)
        self.move_stack(-size)

    def pop(self, width: int) -> Value:
        """Read at the stack pointer and move it (queued: a write of RSP that follows wins)."""
        value = self.load(self.stack_linear(0, width // 8, READ), width, STACK_ACCESS)
        self.move_stack(width // 8)
        return value

    def move_stack(self, delta: int) -> None:
        """Queue: add to the stack pointer within the stack's width."""
        self.set_stack(self.state(GPR + RSP) + delta)

    def set_stack(self, pointer: Value) -> None:
        """Queue: a new stack pointer (64 bits, of which the stack's width counts)."""
        old, mask = self.state(GPR + RSP), self.state(STACK_MASK)
        self.set_state(GPR + RSP, mask.eq(0xFFFF).select(old & ~0xFFFF, 0) | (pointer & mask))

    # ---- control -------------------------------------------------------------------------------------------
    def rip(self) -> Value:
        """RIP of this instruction."""
        return self.record_word(rc.R_RIP)

    def next_rip(self) -> Value:
        """RIP of the next instruction, before truncation to the operand size."""
        return self.rip() + self.record_field(rc.PACKED, rc.LENGTH, 8)

    def jump_if(self, condition: Value, target: Value) -> None:
        """Queue a conditional jump."""
        self.jump(condition.select(target, self.next_rip()))

    def narrow_rip(self, target: Value) -> Value:
        """A branch target cut to the operand size."""
        return target.trunc(self.width).zext(64)

    def bad_target(self, target: Value) -> Value:
        """May a near branch not go there: non-canonical in 64-bit mode, beyond the code segment otherwise?"""
        if self.size == 8:
            return (target.sar(self.state(LINEAR_TOP)) + 1).ult(2) ^ 1
        return self.state(SEG_LIMIT + CS).ult(target)

    def jump_relative(self, condition: Value | None = None) -> None:
        """Queue a jump by the immediate (when a condition holds); #GP(0) at this instruction for a bad target."""
        target = self.narrow_rip(self.next_rip() + self.record_word(rc.IMM))
        bad = self.bad_target(target)
        if condition is None:
            self.fault_if(bad, GP)
            self.jump(target)
        else:
            self.fault_if(bad & condition, GP)
            self.jump_if(condition, target)

    def fault(self, vector: int, error: int = 0) -> None:
        """Raise an exception unconditionally."""
        self.fault_if(self.const(1, 1), vector, error)

    def unlikely(self, condition: Value) -> None:
        """Nothing, but where rare cases have code of their own, the rest of this one is there."""

    def privileged(self) -> None:
        """#GP(0) unless CPL is 0."""
        self.fault_if(self.state(CPL).ne(0), GP)

    def require_aligned(self, linear: Value, size: int) -> None:
        """#GP(0) unless the address is a multiple of size (MOVAPS and the like), or the mask selects nothing."""
        odd = (linear & (size - 1)).ne(0)
        self.fault_if(odd & self.mask(self.form.elements).ne(0) if self.masked else odd, GP)

    def require_aligned_operand(self, operand: Operand, access: int) -> None:
        """The same of a memory operand. Under a mask only what is selected is checked against the segment, later."""
        linear = self.unchecked_address(operand) if self.masked else self.address(operand, access)
        self.require_aligned(linear, operand.size)

    def unchecked_address(self, operand: Operand) -> Value:
        """The linear address of a memory operand, whatever its segment's limit; the low 32 bits outside 64-bit mode."""
        return self.offset(operand) + self.address_register(rc.SEGMENT_BASE)

    # ---- SSE environment --------------------------------------------------------------------------------------
    @property
    def quiet(self) -> bool:
        """EVEX.b between registers: floating point reports no exception (SDM 2, 2.7.8)."""
        return self.form.b and not self.form.is_memory

    def mxcsr(self) -> Value:
        """MXCSR as the instruction is to see it, 32 bits."""
        word = self.state(MXCSR, 32)
        if self.quiet:
            word = word | ALL_MASKED
            if self.form.row.rounding == "er":
                rounding = self.record_field(rc.PACKED, rc.RFLAGS_SHIFT, 8) >> rc.ROUNDING_SHIFT
                word = (word & ~ROUNDING) | (rounding.trunc(32) << ROUNDING_AT)
        if self.rounding is not None:
            word = (word & ~ROUNDING) | (self.rounding.resize(32) << ROUNDING_AT)
        return word

    def mxcsr_rounding(self) -> Value:
        """The rounding mode in MXCSR, 8 bits."""
        return (self.state(MXCSR, 32) >> ROUNDING_AT).trunc(8) & 3

    def split_value(self) -> tuple[Value, Value]:
        """State[VALUE] and State[VALUE + 1] as the last call() left them."""
        return self.value(), self.value(128).bits(64, 64)

    def argument(self, value: Any) -> Any:
        """An int or Value as a 64-bit Value, for call()."""
        return value.resize(64) if isinstance(value, Value) else self.const(value, 64)


__all__ = ["Instruction", "VALUE"]
