"""Instruction definitions as LLVM IR: the builder behind the native interpreter's handlers and the translator's
stencils.

`Emitter` lowers values and effects; where operands come from is left to two methods of its children: `Handler` (here)
takes
them from the decoded record at run time, the stencil builder (stencils.py) from link-time holes. A handler is
`i64 handler(State*, record*)`: 0 the next instruction follows, 1 a fault is raised and nothing is committed, 2 RIP is
set.
Not here: floating point (emit_float.py), what instructions mean (cpu/semantics), mechanism code (subset.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import llvmlite.ir as ir

from pyemu.cpu import flags as fl
from pyemu.cpu import memory, rehearsal, segments, tlb, vector_memory
from pyemu.cpu.decode import record as rc
from pyemu.cpu.faults import raise_fault
from pyemu.cpu.instruction import FIRST_PART, STACK_ACCESS
from pyemu.cpu.ops import Form
from pyemu.cpu.state import CC_SRC, GPR, MMU, RIP, RSP, SS, STACK_MASK, TLB, TLB_ENTRIES, VALUE, VECTOR
from pyemu.cpu.values import Value
from pyemu.jit.emit_float import ARITHMETIC, PREDICATE, FloatEmitter, integer
from pyemu.jit.layout import FAULT, JUMPED, NEXT
from pyemu.jit.subset import I1, I8, I32, I64, PTR, ModuleCompiler
from pyemu.jit.target import compile_ir

HANDLER_TYPE = ir.FunctionType(I64, [PTR, PTR])

_INTEGER = {"add": "add", "sub": "sub", "mul": "mul", "and_": "and_", "or_": "or_", "xor": "xor"}
_ORDER = {"eq": "==", "ne": "!=", "ult": "<", "ule": "<=", "slt": "<", "sle": "<="}


class Emitter(FloatEmitter):
    """Emits one instruction definition into the block at `self.b`."""

    def __init__(self, owner: ModuleCompiler, form: Form) -> None:
        self.owner, self.form = owner, form
        self.b: ir.IRBuilder = ir.IRBuilder()
        self.s: ir.Value = None
        self.writes: list[Callable[[], None]] = []
        self.target: Value | None = None
        self.entry: ir.Block = None
        self.mxcsr_slot = None

    # ---- values --------------------------------------------------------------------------------------------
    def constant(self, number: int, width: int) -> Value:
        return Value(self, integer(width)(number & ((1 << width) - 1)), width)

    def like(self, other: Value | int, value: Value) -> Value:
        if isinstance(other, Value):
            return other
        scalar = other & ((1 << value.width) - 1)
        kind = value.payload.type
        if isinstance(kind, ir.VectorType):
            return Value(self, ir.Constant(kind, [integer(value.width)(scalar)] * kind.count), value.width)
        return Value(self, kind(scalar), value.width)

    def _same(self, a: Value, b: Value) -> tuple[ir.Value, ir.Value]:
        """Payloads of one shape: a scalar beside a vector is repeated in every lane."""
        assert a.width == b.width, f"{self.form.name}: widths {a.width} and {b.width}"
        x, y = a.payload, b.payload
        if isinstance(x.type, ir.VectorType) and not isinstance(y.type, ir.VectorType):
            y = self._splat(y, x.type)
        elif isinstance(y.type, ir.VectorType) and not isinstance(x.type, ir.VectorType):
            x = self._splat(x, y.type)
        return x, y

    def _splat(self, x: ir.Value, kind: ir.VectorType) -> ir.Value:
        vector: ir.Value = ir.Constant(kind, ir.Undefined)
        for k in range(kind.count):
            vector = self.b.insert_element(vector, x, I32(k))
        return vector

    def binary(self, name: str, a: Value, b: Value) -> Value:
        x, y = self._same(a, b)
        if name in ARITHMETIC:
            return Value(self, self._float_operation(ARITHMETIC[name], a.width, x, y), a.width)
        if name in _INTEGER:
            return Value(self, getattr(self.b, _INTEGER[name])(x, y), a.width)
        if name in ("shl", "lshr", "ashr"):
            return Value(self, self._shift(name, x, y, a.width), a.width)
        if a.width == 128:
            return Value(self, self._divide128(name, x, y), 128)
        return Value(self, getattr(self.b, name)(x, y), a.width)

    def _shift(self, name: str, x: ir.Value, count: ir.Value, width: int) -> ir.Value:
        """A count of the width or more gives 0 (or the sign), which LLVM leaves undefined."""
        operation = {"shl": self.b.shl, "lshr": self.b.lshr, "ashr": self.b.ashr}[name]
        known = self._known(count)
        if known is not None and known < width:
            return operation(x, count)
        limit = self.like(width, Value(self, x, width)).payload
        last = self.like(width - 1, Value(self, x, width)).payload
        inside = self.b.icmp_unsigned("<", count, limit)
        safe = self.b.select(inside, count, last)
        if name == "ashr":
            return operation(x, safe)
        return self.b.select(inside, operation(x, safe), ir.Constant(x.type, None))

    @staticmethod
    def _known(x: ir.Value) -> int | None:
        """The number behind a constant (in every lane), if it is one."""
        if not isinstance(x, ir.Constant):
            return None
        if isinstance(x.type, ir.VectorType):
            values = {c.constant for c in x.constant} if isinstance(x.constant, list) else set()
            return values.pop() if len(values) == 1 else None
        return x.constant if isinstance(x.constant, int) else None

    def _divide128(self, name: str, x: ir.Value, y: ir.Value) -> ir.Value:
        """128-bit division as DIV and IDIV need it: the divisor's magnitude fits in 64 bits."""
        b, wide = self.b, integer(128)
        negative_x = negative_y = I1(0)
        if name in ("sdiv", "srem"):
            zero = wide(0)
            negative_x, negative_y = b.icmp_signed("<", x, zero), b.icmp_signed("<", y, zero)
            x, y = b.select(negative_x, b.neg(x), x), b.select(negative_y, b.neg(y), y)
        divisor = b.trunc(y, I64)
        high, low = b.trunc(b.lshr(x, wide(64)), I64), b.trunc(x, I64)
        top = b.udiv(high, divisor)
        rest = b.urem(high, divisor)
        pair = ir.LiteralStructType([I64, I64])
        kind = ir.FunctionType(pair, [I64, I64, I64])
        both = b.asm(kind, "divq $4", "={ax},={dx},{ax},{dx},r,~{flags}", [low, rest, divisor], False)
        quotient = b.or_(b.shl(b.zext(top, wide), wide(64)), b.zext(b.extract_value(both, 0), wide))
        remainder = b.zext(b.extract_value(both, 1), wide)
        if name in ("udiv", "urem"):
            return quotient if name == "udiv" else remainder
        if name == "sdiv":
            return b.select(b.xor(negative_x, negative_y), b.neg(quotient), quotient)
        return b.select(negative_x, b.neg(remainder), remainder)

    def compare(self, name: str, a: Value, b: Value) -> Value:
        x, y = self._same(a, b)
        if name in PREDICATE:
            return Value(self, self._float_compare(name, a.width, x, y), 1)
        method = self.b.icmp_signed if name in ("slt", "sle") else self.b.icmp_unsigned
        return Value(self, method(_ORDER[name], x, y), 1)

    def unary(self, name: str, a: Value) -> Value:
        if name == "not_":
            return Value(self, self.b.not_(a.payload), a.width)
        if name == "fsqrt":
            return Value(self, self._float_operation("sqrt", a.width, a.payload), a.width)
        kind = a.payload.type
        flag = [I1(0)] if name in ("ctlz", "cttz") else []
        suffix = f"v{kind.count}i{a.width}" if isinstance(kind, ir.VectorType) else f"i{a.width}"
        fn = self._intrinsic(f"llvm.{name}.{suffix}", kind, [kind, *[I1] * len(flag)])
        return Value(self, self.b.call(fn, [a.payload, *flag]), a.width)

    def _intrinsic(self, name: str, result: ir.Type, arguments: list[ir.Type]) -> ir.Function:
        known = self.owner.module.globals.get(name)
        return known or ir.Function(self.owner.module, ir.FunctionType(result, arguments), name)

    def cast(self, name: str, a: Value, width: int) -> Value:
        kind: ir.Type = integer(width)
        if isinstance(a.payload.type, ir.VectorType):
            kind = ir.VectorType(kind, a.payload.type.count)
        if isinstance(a.payload, ir.Constant) and not isinstance(kind, ir.VectorType):
            number = a.payload.constant
            if name == "sext" and number >> (a.width - 1) & 1:
                number -= 1 << a.width
            return self.constant(int(number), width)
        return Value(self, getattr(self.b, name)(a.payload, kind), width)

    def select(self, condition: Value, yes: Value, no: Value) -> Value:
        x, y = self._same(yes, no)
        if isinstance(condition.payload.type, ir.VectorType) and not isinstance(x.type, ir.VectorType):
            kind = ir.VectorType(x.type, condition.payload.type.count)
            x, y = self._splat(x, kind), self._splat(y, kind)
        return Value(self, self.b.select(condition.payload, x, y), yes.width)

    def _vector(self, value: Value, lane: int) -> ir.Value:
        return self.b.bitcast(value.payload, ir.VectorType(integer(lane), value.width // lane))

    def map(self, lane: int, function: Callable[..., Value], *operands: Value) -> Value:
        count = operands[0].width // lane
        if count == 1:
            return function(*operands)
        vectors = [Value(self, self._vector(o, o.width // count), o.width // count) for o in operands]
        result = function(*vectors)
        payload = result.payload
        if not isinstance(payload.type, ir.VectorType):
            payload = self._splat(payload, ir.VectorType(integer(result.width), count))
        return Value(self, self.b.bitcast(payload, integer(result.width * count)), result.width * count)

    def join(self, lanes: Sequence[Value]) -> Value:
        if len(lanes) == 1:
            return lanes[0]
        width = lanes[0].width
        vector: ir.Value = ir.Constant(ir.VectorType(integer(width), len(lanes)), ir.Undefined)
        for k, value in enumerate(lanes):
            vector = self.b.insert_element(vector, value.payload, I32(k))
        return Value(self, self.b.bitcast(vector, integer(width * len(lanes))), width * len(lanes))

    def lane(self, value: Value, lane: int, index: Value | int) -> Value:
        count = value.width // lane
        if count == 1:
            return value
        if isinstance(index, int):
            position: ir.Value = I32(index % count)
        else:
            position = self.b.and_(index.payload, index.payload.type(count - 1))
        return Value(self, self.b.extract_element(self._vector(value, lane), position), lane)

    def pick_bytes(self, value: Value, indices: Value) -> Value:
        if value.width != 128:
            return super().pick_bytes(value, indices)
        kind = ir.VectorType(I8, 16)
        shuffle = self._intrinsic("llvm.x86.ssse3.pshuf.b.128", kind, [kind, kind])
        picked = self.b.call(shuffle, [self._vector(value, 8), self._vector(indices, 8)])
        return Value(self, self.b.bitcast(picked, integer(128)), 128)

    # ---- state ---------------------------------------------------------------------------------------------
    def _word_pointer(self, index: int) -> ir.Value:
        return self.b.gep(self.s, [I64(8 * index)], source_etype=I8)

    def _load_bits(self, pointer: ir.Value, width: int) -> Value:
        return Value(self, self.b.load(pointer, typ=integer(width), align=1), width)

    def state(self, index: int, width: int = 64) -> Value:
        return self._load_bits(self._word_pointer(index), width)

    def state_at(self, index: Value) -> Value:
        return self._load_bits(self.b.gep(self.s, [index.payload], source_etype=I64), 64)

    def set_state(self, index: int, value: Value) -> None:
        self.writes.append(lambda: self.b.store(value.payload, self._word_pointer(index), align=1))

    def value(self, width: int = 64) -> Value:
        return self.state(VALUE, width)

    # ---- flags: the host's, of the same operation ------------------------------------------------------------------
    def flags_add(self, a: Value, b: Value, result: Value, carry: Value | None = None) -> None:
        if carry is not None:
            super().flags_add(a, b, result, carry)
        else:
            self._carry_word(result, self._host_flags("add", a, b, result))

    def flags_sub(self, a: Value, b: Value, result: Value, borrow: Value | None = None) -> None:
        if borrow is not None:
            super().flags_sub(a, b, result, borrow)
        else:
            self._carry_word(result, self._host_flags("sub", a, b, result))

    def flags_increment(self, a: Value, result: Value) -> None:
        self._carry_word(result, self._host_flags("add", a, self.const(1, a.width), result), keep=fl.CF)

    def flags_decrement(self, a: Value, result: Value) -> None:
        self._carry_word(result, self._host_flags("sub", a, self.const(1, a.width), result), keep=fl.CF)

    def _carry_word(self, result: Value, flags: Value, keep: int = 0) -> None:
        word = flags & ((fl.CF | fl.AF | fl.CARRY_OF) & ~keep)
        self._result(result)
        self.set_state(CC_SRC, word | (self.state(CC_SRC) & keep) if keep else word)

    def _host_flags(self, operation: str, a: Value, b: Value, result: Value) -> Value:
        """LAHF's byte, with OF above it, after an addition or subtraction; other bits mean nothing. Its result takes
        the place of LLVM's wherever `result` is not used yet."""
        suffix, part = {8: ("b", "b"), 16: ("w", "w"), 32: ("l", "k"), 64: ("q", "q")}[a.width]
        kind = integer(a.width)
        lines = f"{operation}{suffix} ${{3:{part}}}, ${{1:{part}}}; lahf; seto %al; rolw $$8, %ax"
        pair = ir.FunctionType(ir.LiteralStructType([I64, kind]), [kind, kind])
        call = self.b.asm(pair, lines, "={ax},=r,1,r,~{flags}", [a.payload, b.payload], False)
        call.attributes.add("readnone")
        result.payload = self.b.extract_value(call, 1)
        return Value(self, self.b.extract_value(call, 0), 64)

    # ---- memory: the hit on plain RAM is inline, everything else is mechanism ----------------------------------
    def _segment_access(self) -> ir.Value:
        """The STACK bit when the segment is SS."""
        raise NotImplementedError

    def linear_flat(self, offset: Value) -> Value:
        """Linear address in 64-bit mode."""
        raise NotImplementedError

    def _tlb_entry(self, linear: ir.Value) -> ir.Value:
        b = self.b
        mmu = b.load(self._word_pointer(MMU), typ=I64)
        at = b.add(b.mul(mmu, I64(TLB_ENTRIES * 32)), b.and_(b.lshr(linear, I64(7)), I64((TLB_ENTRIES - 1) << 5)))
        return b.gep(b.gep(self.s, [at], source_etype=I8), [I64(8 * TLB)], source_etype=I8)

    def _hit(self, linear: ir.Value, size: int, write: bool) -> tuple[ir.Value, ir.Value]:
        """Whether the inline check succeeds, and the host pointer if it does."""
        b = self.b
        entry = self._tlb_entry(linear)
        tag = b.load(b.gep(entry, [I64(8 if write else 0)], source_etype=I8), typ=I64)
        last = b.add(linear, I64(size - 1)) if size > 1 else linear
        hit = b.icmp_unsigned("==", b.and_(last, I64(tlb.PAGE)), tag)
        addend = b.load(b.gep(entry, [I64(24)], source_etype=I8), typ=I64)
        return hit, b.gep(b.inttoptr(addend, PTR), [linear], source_etype=I8)

    def vector(self, width: int) -> Value:
        return self.state(VECTOR, width)

    def set_vector(self, value: Value) -> None:
        self.b.store(value.payload, self._word_pointer(VECTOR), align=8)

    def memory_access(self) -> Value:
        return Value(self, self._segment_access(), 64)

    def load(self, linear: Value, width: int, access: int = 0) -> Value:
        if width & (width - 1):
            return self._load_parts(linear, width, access)
        b, size = self.b, width // 8
        hit, pointer = self._hit(linear.payload, size, bool(access & memory.WRITE))
        fast, slow, end = (b.append_basic_block(n) for n in ("hit", "miss", "loaded"))
        b.cbranch(hit, fast, slow)
        b.position_at_end(slow)
        flags = b.or_(I64(access), self._segment_access())
        read = memory.read if width <= 128 else vector_memory.read
        status = b.call(self.owner.declare(read), [self.s, linear.payload, I64(size), flags])  # type: ignore[arg-type]
        self._exit_if(b.icmp_unsigned("!=", status, I64(0)))
        missed, missed_at = (self.value(width) if width <= 128 else self.vector(width)).payload, b.block
        b.branch(end)
        b.position_at_end(fast)
        loaded = b.load(pointer, typ=integer(width), align=1)
        b.branch(end)
        b.position_at_end(end)
        phi = b.phi(integer(width))
        phi.add_incoming(loaded, fast)
        phi.add_incoming(missed, missed_at)
        return Value(self, phi, width)

    def _load_parts(self, linear: Value, width: int, access: int) -> Value:
        """An operand of odd size (far pointers, 80-bit floats): probed as a whole, then read in pieces."""
        self._probe(linear, width // 8, access, FIRST_PART.get(width, 0))
        total, at = self.constant(0, width), 0
        while at < width:
            step = 64 if width - at >= 64 else 1 << ((width - at).bit_length() - 1)
            part = self.load(linear + at // 8, step, access)
            total = total | (part.zext(width) << at)
            at += step
        return total

    def store(self, linear: Value, value: Value, access: int = 0) -> None:
        self.settle_floats()  # whose exceptions come first
        width = value.width
        if width & (width - 1):
            self._probe(linear, width // 8, memory.WRITE | access)
            at = 0
            while at < width:
                step = 64 if width - at >= 64 else 1 << ((width - at).bit_length() - 1)
                self.store(linear + at // 8, value.bits(at, step), access)
                at += step
            return
        b, size = self.b, width // 8
        hit, pointer = self._hit(linear.payload, size, True)
        fast, slow, end = (b.append_basic_block(n) for n in ("hit", "miss", "stored"))
        b.cbranch(hit, fast, slow)
        b.position_at_end(slow)
        flags = b.or_(I64(memory.WRITE | access), self._segment_access())
        if width == 128:
            low, high = value.bits(0, 64).payload, value.bits(64, 64).payload
            status = b.call(self.owner.declare(memory.write128), [self.s, linear.payload, low, high])  # type: ignore[arg-type]
        elif width > 128:
            self.set_vector(value)
            arguments = [self.s, linear.payload, I64(size), flags]
            status = b.call(self.owner.declare(vector_memory.write), arguments)  # type: ignore[arg-type]
        else:
            arguments = [self.s, linear.payload, I64(size), value.zext(64).payload, flags]
            status = b.call(self.owner.declare(memory.write), arguments)  # type: ignore[arg-type]
        self._exit_if(b.icmp_unsigned("!=", status, I64(0)))
        b.branch(end)
        b.position_at_end(fast)
        b.store(value.payload, pointer, align=1)
        b.branch(end)
        b.position_at_end(end)

    def _probe(self, linear: Value, size: int, access: int, alignment: int = 0) -> None:
        flags = self.b.or_(I64(access), self._segment_access())
        if alignment:
            arguments = [self.s, linear.payload, I64(size), I64(alignment), flags]
            status = self.b.call(self.owner.declare(memory.probe_aligned), arguments)  # type: ignore[arg-type]
        else:
            arguments = [self.s, linear.payload, I64(size), flags]
            status = self.b.call(self.owner.declare(memory.probe), arguments)  # type: ignore[arg-type]
        self._exit_if(self.b.icmp_unsigned("!=", status, I64(0)))

    def probe_write(self, linear: Value, size: int, alignment: int = 0) -> None:
        self._probe(linear, size, memory.WRITE, alignment)

    # ---- effects -------------------------------------------------------------------------------------------
    def _exit_if(self, condition: ir.Value, before: Callable[[], None] | None = None) -> None:
        """Leave with FAULT when the condition holds."""
        b = self.b
        leave, stay = b.append_basic_block("leave"), b.append_basic_block("stay")
        b.cbranch(condition, leave, stay)
        b.position_at_end(leave)
        if before is not None:
            before()
        self._abandon_float()
        self._leave(FAULT)
        b.position_at_end(stay)

    def _leave(self, status: int) -> None:
        self.b.ret(I64(status))

    def fault_if(self, condition: Value, vector: int, error: int = 0) -> None:
        known = self._known(condition.payload)
        if known == 0:
            return
        fault = self.owner.declare(raise_fault)  # type: ignore[arg-type]
        self._exit_if(condition.payload, lambda: self.b.call(fault, [self.s, I64(vector), I64(error)]))

    def call(self, function: Callable[..., int], *arguments: Value | int) -> None:
        self.settle_floats()
        values = [self.argument(a).payload for a in arguments]
        self.b.store(self.rip().payload, self._word_pointer(RIP))
        status = self.b.call(self.owner.declare(function), [self.s, *values])  # type: ignore[arg-type]
        self._exit_if(self.b.icmp_unsigned("!=", status, I64(0)))

    def jump(self, target: Value) -> None:
        self.target = target

    def run(self) -> None:
        """Emit the definition and its commit, up to where the back end continues."""
        self.form.row.function(self, *self.form.operands, *self.form.row.extra)
        self.settle_floats()
        for write in self.writes:
            write()


class Handler(Emitter):
    """A native interpreter handler: operands from the record."""

    rehearsed = False

    def build(self) -> ir.Function:
        """Emit the handler function."""
        fn = ir.Function(self.owner.module, HANDLER_TYPE, f"op.{self.form.name}")
        fn.attributes.add("nounwind")
        self.s, self.record = fn.args
        self.s.add_attribute("noalias")
        self.record.add_attribute("noalias")
        self.entry = fn.append_basic_block("entry")
        body = fn.append_basic_block("body")
        self.b = ir.IRBuilder(body)
        self.run()
        if self.target is not None:
            self.b.store(self.target.payload, self._word_pointer(RIP))
        self._leave(JUMPED if self.target is not None or self.form.row.sets_rip else NEXT)
        ir.IRBuilder(self.entry).branch(body)
        return fn

    def _rehearse_if(self, condition: ir.Value) -> None:
        if self.rehearsed:
            return
        self.rehearsed = True
        with self.b.if_then(condition, likely=False):
            at = self.b.ptrtoint(self.record, I64)
            status = self.b.call(self.owner.declare(rehearsal.rehearse), [self.s, at])  # type: ignore[arg-type]
            slot, self.mxcsr_slot = self.mxcsr_slot, None  # the host's control word is still in place
            self._exit_if(self.b.icmp_unsigned("!=", status, I64(0)))
            self.mxcsr_slot = slot

    def record_word(self, index: int) -> Value:
        return self._load_bits(self.b.gep(self.record, [I64(8 * index)], source_etype=I8), 64)

    def record_field(self, word: int, shift: int, width: int) -> Value:
        at = self.b.gep(self.record, [I64(8 * word + shift // 8)], source_etype=I8)
        return self._load_bits(at, width).zext(64)

    def _register_pointer(self, word: int, field: int) -> ir.Value:
        return self.b.gep(self.s, [self.record_field(word, field, 16).payload], source_etype=I8)

    def register(self, field: int, width: int) -> Value:
        return self._load_bits(self._register_pointer(rc.REGS, field), width)

    def set_register(self, field: int, value: Value) -> None:
        pointer = self._register_pointer(rc.REGS, field)
        self.writes.append(lambda: self.b.store(value.payload, pointer, align=1))

    def register_number(self, field: int) -> Value:
        return self.record_field(rc.REGS, field, 16)

    def address_register(self, field: int) -> Value:
        return self._load_bits(self._register_pointer(rc.ADDRESS, field), 64)

    def _segment_access(self) -> ir.Value:
        is_stack = self.record_field(rc.PACKED, rc.SEGMENT, 8).eq(SS)
        return (is_stack.zext(64) << 2).payload

    def _legacy(self) -> ir.Value:
        flags = self.record_field(rc.PACKED, rc.RFLAGS_SHIFT, 8)
        return (flags & rc.LEGACY).ne(0).payload

    def _checked(self, segment: Value, offset: Value, size: int, access: int, flat: Value) -> Value:
        """The flat address in 64-bit mode, the segment-checked one elsewhere."""
        b = self.b
        legacy, end, here = b.append_basic_block("legacy"), b.append_basic_block("linear"), b.block
        b.cbranch(self._legacy(), legacy, end)
        b.position_at_end(legacy)
        arguments = [self.s, segment.payload, offset.payload, I64(size), I64(access)]
        status = b.call(self.owner.declare(segments.linear), arguments)  # type: ignore[arg-type]
        self._exit_if(b.icmp_unsigned("!=", status, I64(0)))
        checked, checked_at = self.value().payload, b.block
        b.branch(end)
        b.position_at_end(end)
        phi = b.phi(I64)
        phi.add_incoming(flat.payload, here)
        phi.add_incoming(checked, checked_at)
        return Value(self, phi, 64)

    def linear(self, offset: Value, size: int, access: int) -> Value:
        flat = offset + self.address_register(rc.SEGMENT_BASE)
        return self._checked(self.record_field(rc.PACKED, rc.SEGMENT, 8), offset, size, access, flat)

    def stack_linear(self, offset: int, size: int, access: int) -> Value:
        return self.stack_linear_at(self.state(GPR + RSP) + offset, size, access)

    def stack_linear_at(self, pointer: Value, size: int, access: int) -> Value:
        at = pointer & self.state(STACK_MASK)
        return self._checked(self.const(SS, 64), at, size, access | STACK_ACCESS, at)


def emit_handlers(owner: ModuleCompiler, forms: list[Form]) -> None:
    """Add the handlers of some forms to a module."""
    for form in forms:
        try:
            Handler(owner, form).build()
        except Exception as error:
            error.add_note(f"while compiling {form.row.encoding} {form.row.operands} ({form.name})")
            raise


def compile_handlers(forms: list[Form]) -> bytes:
    """The handlers of some forms, as an object that lacks the mechanism that they call."""
    owner = ModuleCompiler("handlers", {}, external=True)
    emit_handlers(owner, forms)
    return compile_ir(str(owner.module), level=1)
