"""Floating point as LLVM IR: the part of the builder (emit.py) that computes on the host's SSE unit.

From the first operation of an instruction to its end the host's MXCSR holds the guest's rounding, FTZ and DAZ with all
exceptions masked and no flag set; at the end the flags are accrued, and an unmasked one raises #XM. Every operation is
one SSE instruction in inline asm, so results, NaNs and flags are the hardware's. Not here: integer values, state,
memory (emit.py).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import llvmlite.ir as ir

from pyemu.cpu import fused
from pyemu.cpu.faults import UD, XM, raise_fault
from pyemu.cpu.instruction import Instruction
from pyemu.cpu.state import CR4, MXCSR, VALUE
from pyemu.cpu.values import Value
from pyemu.jit import hostflags
from pyemu.jit.subset import I1, I32, I64, PTR, ModuleCompiler

ARITHMETIC = {"fadd": "add", "fsub": "sub", "fmul": "mul", "fdiv": "div", "fmin": "min", "fmax": "max"}
PREDICATE = {"feq": 0, "flt": 1, "fle": 2, "funord": 3}

FMA, F16C = "fma" in hostflags.read(), "f16c" in hostflags.read()
DEFAULT_MXCSR = 0x1F80  # the host's: nearest, all masked
FLAGS = 0x3F  # of MXCSR (SDM 1, figure 10-3); the masks are 7 bits above
MASKS_OF_RANGE = 0x18 << 7  # OM and UM
PRE_COMPUTATION = 7  # invalid, denormal, divide by zero come before the operation: no others then


def integer(bits: int) -> ir.IntType:
    """iN."""
    return ir.IntType(bits)


class FloatEmitter(Instruction):
    """Emits floating-point operations into the block at `self.b`."""

    b: ir.IRBuilder
    s: ir.Value
    owner: ModuleCompiler
    entry: ir.Block
    mxcsr_slot: ir.Value | None

    @abstractmethod
    def _word_pointer(self, index: int) -> ir.Value:
        """Pointer to a State word."""

    @abstractmethod
    def _exit_if(self, condition: ir.Value, before: Callable[[], None] | None = None) -> None:
        """Leave with FAULT when the condition holds."""

    @abstractmethod
    def _rehearse_if(self, condition: ir.Value) -> None:
        """If the condition holds, let the reference interpreter find out whether the instruction raises an exception
        (cpu/rehearsal.py)."""

    # ---- the environment ---------------------------------------------------------------------------------------
    def _begin_float(self) -> None:
        if self.mxcsr_slot is not None:
            return
        with self.b.goto_block(self.entry):
            self.b.position_at_start(self.entry)
            slot = self.b.alloca(I32)
        self.mxcsr_slot = slot
        b, guest = self.b, self.mxcsr().payload
        both = I32(MASKS_OF_RANGE)
        self._rehearse_if(b.icmp_unsigned("!=", b.and_(guest, both), both))
        self._load_mxcsr(b.and_(b.or_(guest, I32(FLAGS << 7)), I32(0xFFFFFFFF ^ FLAGS)))

    def _load_mxcsr(self, word: ir.Value) -> None:
        assert self.mxcsr_slot is not None
        self.b.store(word, self.mxcsr_slot)
        self._mxcsr_access("ldmxcsr")

    def _mxcsr_access(self, mnemonic: str) -> None:
        kind = ir.FunctionType(ir.VoidType(), [PTR])
        text, constraint = f"{mnemonic} ($0)", "r,~{memory},~{dirflag},~{fpsr},~{flags}"
        self.b.asm(kind, text, constraint, [self.mxcsr_slot], True)

    def _abandon_float(self) -> None:
        """The instruction ends early: the host gets its control word back."""
        if self.mxcsr_slot is not None:
            self._load_mxcsr(I32(DEFAULT_MXCSR))

    def settle_floats(self) -> None:
        """Accrue flags, restore the host's control word, raise #XM for an unmasked exception."""
        if self.mxcsr_slot is None:
            return
        if self.quiet:
            self._load_mxcsr(I32(DEFAULT_MXCSR))
            self.mxcsr_slot = None
            return
        b, guest = self.b, self.mxcsr().payload
        self._mxcsr_access("stmxcsr")
        raised = b.and_(b.load(self.mxcsr_slot, typ=I32), I32(FLAGS))
        if self.unreported is not None:
            raised = b.and_(raised, b.not_(self.unreported.payload))
        self._load_mxcsr(I32(DEFAULT_MXCSR))
        self.mxcsr_slot = None
        unmasked = b.and_(raised, b.not_(b.lshr(guest, I32(7))))
        before = b.and_(unmasked, I32(PRE_COMPUTATION))
        raised = b.select(b.icmp_unsigned("!=", before, I32(0)), b.and_(raised, I32(PRE_COMPUTATION)), raised)
        b.store(b.or_(self.state(MXCSR, 32).payload, raised), self._word_pointer(MXCSR))
        vector = self.state(CR4).bit(10).select(self.const(XM, 64), self.const(UD, 64))
        fault = self.owner.declare(raise_fault)  # type: ignore[arg-type]
        self._exit_if(b.icmp_unsigned("!=", unmasked, I32(0)), lambda: b.call(fault, [self.s, vector.payload, I64(0)]))

    # ---- one instruction, or one a lane ------------------------------------------------------------------------
    def _instruction(self, text: str, constraint: str, result: ir.Type, *values: ir.Value) -> ir.Value:
        """Inline asm whose order among the others is kept: all of them depend on MXCSR."""
        kind = ir.FunctionType(result, [v.type for v in values])
        return self.b.asm(kind, text, f"{constraint},~{{memory}}", values, True)

    def _lanes(self, function: Callable[..., ir.Value], *vectors: ir.Value) -> ir.Value:
        """Apply a scalar lowering to each lane and collect the results."""
        lanes = range(vectors[0].type.count)
        results = [function(*[self.b.extract_element(v, I32(k)) for v in vectors]) for k in lanes]
        vector: ir.Value = ir.Constant(ir.VectorType(results[0].type, len(results)), ir.Undefined)
        for k, value in enumerate(results):
            vector = self.b.insert_element(vector, value, I32(k))
        return vector

    @staticmethod
    def _float_type(width: int) -> ir.Type:
        return ir.FloatType() if width == 32 else ir.DoubleType()

    @staticmethod
    def _float_letter(width: int) -> str:
        return "s" if width == 32 else "d"

    # ---- operations --------------------------------------------------------------------------------------------
    def _float_operation(self, name: str, width: int, *operands: ir.Value) -> ir.Value:
        """One SSE instruction on the whole vector if it is 128 bits wide, else on each lane."""
        self._begin_float()
        kind = operands[0].type
        packed = isinstance(kind, ir.VectorType)
        if packed and kind.count * width != 128:
            return self._lanes(lambda *lanes: self._float_operation(name, width, *lanes), *operands)
        element = self._float_type(width)
        register = ir.VectorType(element, 128 // width) if packed else element
        mnemonic = name + ("p" if packed else "s") + self._float_letter(width)
        values = [self.b.bitcast(v, register) for v in operands]
        if len(values) == 1:
            result = self._instruction(f"{mnemonic} $1, $0", "=x,x", register, *values)
        else:
            result = self._instruction(f"{mnemonic} $2, $0", "=x,0,x", register, *values)
        return self.b.bitcast(result, kind)

    def _float_compare(self, name: str, width: int, x: ir.Value, y: ir.Value) -> ir.Value:
        self._begin_float()
        if isinstance(x.type, ir.VectorType):
            return self._lanes(lambda p, q: self._float_compare(name, width, p, q), x, y)
        element = self._float_type(width)
        values = [self.b.bitcast(v, element) for v in (x, y)]
        text = f"cmps{self._float_letter(width)} $${PREDICATE[name]}, $2, $0"
        result = self._instruction(text, "=x,0,x", element, *values)
        return self.b.trunc(self.b.bitcast(result, integer(width)), I1)

    def fma(self, a: Value, b: Value, c: Value, negate_product: bool, negate_addend: bool) -> Value:
        return Value(self, self._fma(a.width, negate_product, negate_addend, c.payload, a.payload, b.payload), a.width)

    def _fma(self, width: int, negate_product: bool, negate_addend: bool, *operands: ir.Value) -> ir.Value:
        """The addend comes first: VFMADD231 replaces it."""
        self._begin_float()
        kind = operands[0].type
        packed = isinstance(kind, ir.VectorType)
        if packed and (kind.count * width != 128 or not FMA):
            return self._lanes(lambda *lanes: self._fma(width, negate_product, negate_addend, *lanes), *operands)
        if not FMA:
            addend, *factors = operands
            return self._in_software(fused.operation(width, negate_product, negate_addend), width, *factors, addend)
        element = self._float_type(width)
        register = ir.VectorType(element, 128 // width) if packed else element
        mnemonic = f"vf{'n' if negate_product else ''}m{'sub' if negate_addend else 'add'}231"
        mnemonic += ("p" if packed else "s") + self._float_letter(width)
        values = [self.b.bitcast(v, register) for v in operands]
        return self.b.bitcast(self._instruction(f"{mnemonic} $3, $2, $0", "=x,0,x,x", register, *values), kind)

    def _in_software(self, operation: int, width: int, *operands: ir.Value) -> ir.Value:
        """Softfloat, for what the host has no instruction for, called with the host's own control word."""
        b, wide = self.b, [self.b.zext(v, I64) if v.type != I64 else v for v in operands]
        self._mxcsr_access("stmxcsr")
        now = b.load(self.mxcsr_slot, typ=I32)
        self._load_mxcsr(I32(DEFAULT_MXCSR))
        arguments = [self.s, I64(operation), b.zext(now, I64), *wide, *[I64(0)] * (3 - len(wide))]
        b.call(self.owner.declare(fused.compute), arguments)  # type: ignore[arg-type]
        self._load_mxcsr(b.or_(now, self.state(VALUE + 1, 32).payload))
        return self.state(VALUE, width).payload

    def _half(self, a: Value, width: int, mode: Value | None) -> Value:
        """Single precision from or to half."""
        b = self.b
        if not F16C:
            if mode is None:
                return Value(self, self._in_software(fused.FROM_HALF, width, a.payload), width)
            return Value(self, self._in_software(fused.TO_HALF, width, a.payload, mode.payload), width)
        vector = ir.VectorType(I32, 4)
        if mode is None:
            low = b.insert_element(ir.Constant(vector, None), b.zext(a.payload, I32), I32(0))
            single = self._instruction("vcvtph2ps $1, $0", "=x,x", vector, low)
            return Value(self, b.extract_element(single, I32(0)), width)
        low = b.insert_element(ir.Constant(vector, None), a.payload, I32(0))
        half = self._by_immediate(mode, 8, lambda n: self._instruction(f"vcvtps2ph $${n}, $1, $0", "=x,x", vector, low))
        return Value(self, b.trunc(b.extract_element(half, I32(0)), integer(width)), width)

    def _by_immediate(self, mode: Value, count: int, emit: Callable[[int], ir.Value]) -> ir.Value:
        """The instruction whose immediate is `mode`, modulo a power of two, which is known only at run time."""
        b, kind = self.b, mode.payload.type
        known = getattr(mode.payload, "constant", None)
        if isinstance(known, int):
            return emit(known % count)
        end, default = b.append_basic_block("chosen"), b.append_basic_block("choice")
        switch, incoming = b.switch(b.and_(mode.payload, kind(count - 1)), default), []
        for immediate in range(count):
            last = immediate == count - 1
            block = default if last else b.append_basic_block("choice")
            if not last:
                switch.add_case(kind(immediate), block)
            b.position_at_end(block)
            incoming.append((emit(immediate), block))
            b.branch(end)
        b.position_at_end(end)
        phi = b.phi(incoming[0][0].type)
        for result, block in incoming:
            phi.add_incoming(result, block)
        return phi

    def convert(self, name: str, a: Value, width: int, mode: Value | None = None) -> Value:
        self._begin_float()
        if isinstance(a.payload.type, ir.VectorType):
            lanes = self._lanes(lambda p: self.convert(name, Value(self, p, a.width), width, mode).payload, a.payload)
            return Value(self, lanes, width)
        if 16 in (a.width, width) and name == "float_to_float":
            return self._half(a, width, mode)
        if name == "uint_to_float":
            return self._from_unsigned(a, width)
        if name in ("float_to_uint", "float_to_uint_trunc"):
            return self._to_unsigned(name.replace("uint", "int"), a, width)
        source, target = self._float_letter(a.width), self._float_letter(width)
        kind, operand = integer(width), a.payload
        if name == "int_to_float":
            kind, constraint = self._float_type(width), "=x,r"
            mnemonic = f"cvtsi2s{target}{'q' if a.width == 64 else 'l'}"
        elif name == "float_to_float":
            kind, constraint = self._float_type(width), "=x,x"
            mnemonic = f"cvts{source}2s{target}"
        else:
            constraint = "=r,x"
            mnemonic = f"cvt{'t' if name == 'float_to_int_trunc' else ''}s{source}2si{'q' if width == 64 else 'l'}"
        if name != "int_to_float":
            operand = self.b.bitcast(operand, self._float_type(a.width))
        result = self._instruction(f"{mnemonic} $1, $0", constraint, kind, operand)
        return Value(self, self.b.bitcast(result, integer(width)), width)

    def _from_unsigned(self, a: Value, width: int) -> Value:
        """By the conversion of signed quadwords, which this processor has. A number that isn't one is halved, so that
        its lowest bit still tells how to round, and the result, doubled, is as exact."""
        if a.width < 64:
            return self.convert("int_to_float", a.zext(64), width)
        large = a.sign()
        result = self.convert("int_to_float", large.select((a >> 1) | (a & 1), a), width)
        return result.fadd(large.select(result, 0))

    def _to_unsigned(self, signed: str, a: Value, width: int) -> Value:
        """By the conversion to signed quadwords. What doesn't fit is found by a first conversion, whose exceptions
        don't count; the second one then gets a NaN, and so reports an invalid operation and nothing else."""
        stored, bias = (23, 127) if a.width == 32 else (52, 1023)
        large, reduced = self.constant(0, 1), a
        if width == 64:  # from 2^63 on, without that
            large = (a >> stored).eq(bias + 63)
            rest = large.select(a, 0).fsub(large.select(self.constant((bias + 63) << stored, a.width), 0))
            reduced = large.select(rest, a)
        self._mxcsr_access("stmxcsr")
        before = self.b.load(self.mxcsr_slot, typ=I32)
        trial = self.convert(signed, reduced, 64)
        self._load_mxcsr(before)
        fits = ~trial.sign() if width == 64 else trial.ult(1 << width)
        result = self.convert(signed, fits.select(reduced, -1), 64)
        if width == 64:
            result = result | (large.zext(64) << 63)
        return fits.select(result.trunc(width), -1)

    def round_float(self, a: Value, mode: Value) -> Value:
        self._begin_float()
        if isinstance(a.payload.type, ir.VectorType):
            lanes = self._lanes(lambda p: self.round_float(Value(self, p, a.width), mode).payload, a.payload)
            return Value(self, lanes, a.width)
        kind, letter = self._float_type(a.width), self._float_letter(a.width)
        value = self.b.bitcast(a.payload, kind)
        text = f"rounds{letter} $${{}}, $1, $0"
        rounded = self._by_immediate(mode, 16, lambda n: self._instruction(text.format(n), "=x,x", kind, value))
        return Value(self, self.b.bitcast(rounded, integer(a.width)), a.width)
