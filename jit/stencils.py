"""Stencils: machine code with holes, made once by LLVM from instruction definitions, copied and patched by the
translator.

A stencil is a `preserve_none` function of (state, tmp, a, b) whose operands are link-time symbols (`hole_*`) and which
ends in a tail call of `cont`; the linker here strips that jump, so that stencils fall through into each other. `tmp`
carries the linear address from an address stencil to the instruction's own. Anything rare tail-calls `slow`, the
instruction's cold stub, before it has changed anything: the interpreter's handler then executes the instruction whole.

Stencils are for 64-bit mode and for flat 32-bit mode (cpu/mode.py). Most forms have one for both: widths of addresses
are the address stencils' business. A form that calls mechanism code, or stores twice, has none, and runs by its
handler. Not here: choosing and patching them (translator.py), what the stubs jump to (thunks.py).
"""

from __future__ import annotations

from collections.abc import Callable

import llvmlite.ir as ir

from pyemu.cpu import tlb
from pyemu.cpu.decode import record as rc
from pyemu.cpu.instruction import WRITE
from pyemu.cpu.ops import Form, Operand
from pyemu.cpu.state import (
    CC_DST,
    CC_SRC,
    EXIT_REQUEST,
    GPR,
    HIGH_HALF,
    ICOUNT,
    ICOUNT_LIMIT,
    MODE,
    RIP,
    RSP,
    SEG_BASE,
    SEG_REACH,
    TLB_ENTRIES,
    VALUE,
)
from pyemu.cpu.values import Value
from pyemu.jit import layout as ly
from pyemu.jit.emit import Emitter
from pyemu.jit.emit_float import DEFAULT_MXCSR, FLAGS
from pyemu.jit.stencil_object import (
    STENCIL_TYPE,
    code_hole,
    function,
    hole,
    tail_call,
)
from pyemu.jit.subset import I1, I8, I64, PTR, VOID, ModuleCompiler

DEAD = ":dead"  # ends the name of a stencil that leaves out its flag writes
UNMASKED = ":k0"  # ends the name of a stencil for when a form that may have a mask has none
FLAT = ":flat"  # ends the name of a stencil, before DEAD, that is for flat 32-bit mode alone
M32 = 0xFFFFFFFF


class NoStencilError(Exception):
    """This form runs by its handler."""


class StencilEmitter(Emitter):
    """Emits a stencil for a form in 64-bit mode; `dead_flags` leaves out its writes of the arithmetic flags."""

    def __init__(
        self, owner: ModuleCompiler, form: Form, name: str, dead_flags: bool = False, unmasked: bool = False
    ) -> None:
        super().__init__(owner, form)
        self.dead_flags, self.unmasked = dead_flags, unmasked
        self.fn = function(owner, name)
        self.s, self.tmp, self.a, self.c = self.fn.args
        self.s.add_attribute("noalias")
        self.entry = self.fn.append_basic_block("entry")
        self.b = ir.IRBuilder(self.entry)
        self.relative: Value | None = None  # condition of a relative jump
        self.stored = self.floats = False
        self.ordered = True  # loads of guest registers are
        self.loaded: dict[tuple[int | str, int], ir.Value] = {}
        self.checked: dict[tuple[ir.Value, int, bool], ir.Value] = {}
        self.wide = False  # something in it holds in 64-bit mode only
        self.address_sized = False  # it depends on the address size
        self.cold: list[tuple[ir.Block, str]] = []

    # ---- holes ---------------------------------------------------------------------------------------------
    def hole(self, name: str) -> ir.Value:
        """The value of a hole, 64 bits."""
        return hole(self.owner, self.b, name)

    def _at(self, name: str) -> ir.Value:
        return self.b.gep(self.s, [self.hole(name)], source_etype=I8)

    _NAMES = {rc.REG: "reg", rc.RM: "rm", rc.OP: "op", rc.VVVV: "vvvv"}

    def record_word(self, index: int) -> Value:
        if index == rc.R_RIP:
            return Value(self, self.hole("rip"), 64)
        if index == rc.IMM:
            return Value(self, self.hole("imm64" if self._wide_immediate() else "imm"), 64)
        raise NoStencilError

    def _wide_immediate(self) -> bool:
        """Is the immediate encoded in 64 bits (MOV r64, imm64)?"""
        codes = self.form.row.operands.split(",")
        return self.form.size == 8 and "Iv" in codes

    def read(self, operand):  # type: ignore[no-untyped-def]
        if operand.kind == "imm" and operand.source == "imm" and operand.size <= 4:
            return Value(self, self.hole("imm32"), 64).trunc(operand.width)
        return super().read(operand)

    def record_field(self, word: int, shift: int, width: int) -> Value:
        if (word, shift) == (rc.PACKED, rc.ADDRESS_SIZE):
            self.wide = self.address_sized = True
            return self.const(8, 64)  # others run by their handler
        raise NoStencilError

    def state(self, index: int, width: int = 64) -> Value:
        if index == ICOUNT:
            raise NoStencilError  # only a handler sees it exact
        if self.dead_flags and index in (CC_DST, CC_SRC) and "r" not in self.form.row.flags:
            return self.const(0, 64)  # read only to be kept; LLVM doesn't leave ordered loads out
        if index <= CC_SRC:  # GPR, CC_DST, CC_SRC
            return self._load_word(lambda: self._word_pointer(index), width, index)
        return super().state(index, width)

    def next_rip(self) -> Value:
        self.wide = True
        return Value(self, self.hole("next"), 64)

    def _load_word(self, pointer: Callable[[], ir.Value], width: int, what: int | str) -> Value:
        """A register of the guest, named by `what`. Hosts forward what was stored there just before to a MOV sooner
        than to the operand of another instruction (Zen 4: one cycle against eight). LLVM doesn't fold atomic loads, nor
        does it see that two are the same. They come first: of an access to memory, with nothing ordered inside, LLVM
        can make one instruction."""
        if width not in (8, 16, 32, 64) or not self.ordered:
            return self._load_bits(pointer(), width)
        if (what, width) not in self.loaded:
            with self.b.goto_block(self.entry):
                loaded = self.b.load_atomic(pointer(), "monotonic", width // 8, typ=ir.IntType(width))
            self.loaded[what, width] = loaded
        return Value(self, self.loaded[what, width], width)

    def register(self, field: int, width: int) -> Value:
        name = self._NAMES[field]
        return self._load_word(lambda: self._at(name), width, name)

    def set_register(self, field: int, value: Value) -> None:
        self.writes.append(lambda: self.b.store(value.payload, self._at(self._NAMES[field]), align=1))

    def set_state(self, index: int, value: Value) -> None:
        if not (self.dead_flags and index in (CC_DST, CC_SRC)):
            super().set_state(index, value)

    def may_be_zero(self, count: Operand) -> bool:
        return count.kind != "imm"  # an immediate 0 runs by its handler

    def register_number(self, field: int) -> Value:
        raise NoStencilError

    def address_register(self, field: int) -> Value:
        raise NoStencilError

    def unchecked_address(self, operand: Operand) -> Value:
        return self.address(operand)

    # ---- masks ---------------------------------------------------------------------------------------------
    @property
    def masked(self) -> bool:
        return super().masked and not self.unmasked

    def unless_zeroing(self, value: Value) -> Value:
        kept = Value(self, self.hole("kept"), 64)  # all ones, or 0 with EVEX.z: LLVM makes a branch of a condition
        return value & (kept.trunc(value.width) if value.width <= 64 else self.join([kept] * (value.width // 64)))

    def load_elements(self, operand: Operand, width: int, mask: Value) -> Value:
        """All of the operand is read if all of it is there, else the handler finds out what may be missing."""
        value = self.load(self.address(operand), width)
        if self.form.space == "EVEX":
            return value  # nobody sees what the mask leaves out
        return self.map(width // mask.width, lambda x, m: m.select(x, 0), value, mask)

    def store_elements(self, operand: Operand, value: Value, mask: Value, whole: bool = True) -> None:
        linear = self.address(operand)
        old = self.load(linear, value.width, WRITE)
        self.store(linear, self.map(value.width // mask.width, lambda x, y, m: m.select(x, y), value, old, mask))

    def probe_elements(self, operand: Operand, mask: Value | None) -> None:
        raise NoStencilError

    # ---- memory --------------------------------------------------------------------------------------------
    def offset(self, operand):  # type: ignore[no-untyped-def]
        return Value(self, self.tmp, 64)

    def wrap_address(self, offset: Value) -> Value:
        self.wide = self.address_sized = True
        return offset

    def linear(self, offset: Value, size: int, access: int) -> Value:
        return offset

    def stack_linear(self, offset: int, size: int, access: int) -> Value:
        return self.stack_linear_at(self.state(GPR + RSP) + offset, size, access)

    def stack_linear_at(self, pointer: Value, size: int, access: int) -> Value:
        self.wide = True
        return pointer

    def move_stack(self, delta: int) -> None:
        self.set_stack(self.state(GPR + RSP) + delta)

    def set_stack(self, value: Value) -> None:
        self.wide = True
        self.super_set(GPR + RSP, value)

    def _host_flags(self, operation: str, a: Value, b: Value, result: Value) -> Value:
        return self.const(0, 64) if self.dead_flags else super()._host_flags(operation, a, b, result)

    def super_set(self, index: int, value: Value) -> None:
        """Queue a write of a whole State word."""
        super().set_state(index, value)

    def _hit(self, linear: ir.Value, size: int, write: bool) -> tuple[ir.Value, ir.Value]:
        b = self.b
        at = b.and_(b.lshr(linear, I64(7)), I64((TLB_ENTRIES - 1) << 5))
        tag = b.load(b.gep(self._at("tlb_write" if write else "tlb"), [at], source_etype=I8), typ=I64)
        # Of a load here LLVM would make two instructions. Nothing writes there meanwhile.
        kind = ir.FunctionType(I64, [PTR, I64])
        addend = b.asm(kind, "movq hole_tlb_addend($1,$2), $0", "=r,r,r", [self.s, at], False)
        addend.attributes.add("readonly")
        last = b.add(linear, I64(size - 1)) if size > 1 else linear
        hit = b.icmp_unsigned("==", b.and_(last, I64(tlb.PAGE)), tag)
        return hit, b.gep(b.inttoptr(addend, PTR), [linear], source_etype=I8)

    def _pointer(self, linear: ir.Value, size: int, write: bool) -> ir.Value:
        """The host address of an operand; the slow way if the TLB lacks it. Checked once."""
        key = linear, size, write
        if key not in self.checked:
            hit, self.checked[key] = self._hit(linear, size, write)
            self._slow_unless(hit)
        return self.checked[key]

    def load(self, linear: Value, width: int, access: int = 0) -> Value:
        if width & (width - 1) or width > 512 or self.stored:
            raise NoStencilError
        pointer = self._pointer(linear.payload, width // 8, bool(access & 1))
        return Value(self, self.b.load(pointer, typ=ir.IntType(width), align=1), width)

    def store(self, linear: Value, value: Value, access: int = 0) -> None:
        if value.width & (value.width - 1) or value.width > 512 or self.stored or self.floats:
            raise NoStencilError
        pointer = self._pointer(linear.payload, value.width // 8, True)
        self.b.store(value.payload, pointer, align=1)
        self.stored = True

    def probe_write(self, linear: Value, size: int, alignment: int = 0) -> None:
        raise NoStencilError

    def _slow_unless(self, likely: ir.Value) -> None:
        on, slow = self.fn.append_basic_block("on"), ir.Block(self.fn, "slow")
        self.b.cbranch(likely, on, slow).set_weights([100000, 1])
        self.b.position_at_end(on)
        self.cold.append((slow, "slow"))

    def _append_cold(self) -> None:
        """Put the rare exits last: only from there does LLVM make them conditional tail calls."""
        for block, where in self.cold:
            self.fn.blocks.append(block)
            self.b.position_at_end(block)
            self.go(where)

    # ---- effects -------------------------------------------------------------------------------------------
    def unlikely(self, condition: Value) -> None:
        if self.stored:
            raise NoStencilError
        self._slow_unless(self.b.xor(condition.payload, I1(1)))

    def fault_if(self, condition: Value, vector: int, error: int = 0) -> None:
        known = self._known(condition.payload)
        if known == 0:
            return
        if known is not None or self.stored:
            raise NoStencilError
        self._slow_unless(self.b.xor(condition.payload, I1(1)))

    def call(self, function: Callable[..., int], *arguments: Value | int) -> None:
        raise NoStencilError

    # ---- floating point, for the usual MXCSR: all exceptions masked, to nearest, nothing flushed -----------------
    def _begin_float(self) -> None:
        """The host's MXCSR says the same as the guest's then, flags apart."""
        if not self.floats:
            self.floats = True
            self._slow_unless((self.mxcsr() & (0xFFFFFFFF ^ FLAGS)).eq(DEFAULT_MXCSR).payload)

    def settle_floats(self) -> None:
        """The host's flags only ever accumulate here. One that the guest's lack is new, or was left by something else:
        the handler finds out, by executing the instruction again with none set."""
        if not self.floats:
            return
        b, kind = self.b, ir.FunctionType(VOID, [PTR])
        b.asm(kind, f"stmxcsr {8 * VALUE}($0)", "r,~{memory},~{dirflag},~{fpsr},~{flags}", [self.s], True)
        unknown = self.state(VALUE, 32) & ~self.mxcsr() & FLAGS
        self._slow_unless(unknown.eq(0).payload)
        self.floats = False

    def _by_immediate(self, mode: Value, count: int, emit: Callable[[int], ir.Value]) -> ir.Value:
        raise NoStencilError

    def _rehearse_if(self, condition: ir.Value) -> None:
        raise NoStencilError

    def bad_target(self, target: Value) -> Value:
        # with 57-bit addresses this sends some good ones to the handler, which knows the paging mode
        self.wide = True
        if any(o.kind == "rel" for o in self.form.operands):
            return self.const(0, 1)  # CALL: the translator has looked
        return (target.sar(47) + 1).ult(2).__invert__()

    def narrow_rip(self, target: Value) -> Value:
        return target

    def jump_relative(self, condition: Value | None = None) -> None:
        self.wide = True
        self.relative = condition if condition is not None else self.const(1, 1)

    def jump(self, target: Value) -> None:
        if any(o.kind == "rel" for o in self.form.operands):
            self.relative = self.const(1, 1)  # CALL: the translator knows where to
            return
        super().jump(target)

    def jump_if(self, condition: Value, target: Value) -> None:
        raise NoStencilError

    # ---- ends ----------------------------------------------------------------------------------------------
    def high(self, rip: ir.Value) -> ir.Value:
        """1 for an address in the half that is usually a kernel's (tlb.py), else 0; 64 bits."""
        self.wide = True
        return self.b.lshr(rip, I64(63))

    def go(self, where: str) -> None:
        """Tail-call a code hole."""
        self._tail(code_hole(self.owner, where))

    def _tail(self, target: ir.Value) -> None:
        # a and c mean nothing here, but handing them on costs nothing, and "undefined" would cost LLVM an instruction
        # that keeps it from making a branch to this call one conditional jump.
        tail_call(self.b, target, [self.s, self.tmp, self.a, self.c])

    def build(self) -> ir.Function:
        """Emit the stencil; NoStencilError leaves the module with an unfinished function that the caller drops."""
        self.run()
        if self.relative is not None:
            self._finish_relative(self.relative)
        elif self.target is not None:
            self.b.store(self.target.payload, self._word_pointer(RIP))
            indirect(self)
        else:
            self.go("cont")
        self._append_cold()
        return self.fn

    def _finish_relative(self, condition: Value) -> None:
        known = self._known(condition.payload)
        if known:
            self.go("taken")
            return
        b = self.b
        taken, following = self.fn.append_basic_block("taken"), self.fn.append_basic_block("following")
        b.cbranch(condition.payload, taken, following)
        b.position_at_end(taken)
        self.go("taken")
        b.position_at_end(following)
        self.go("following")


class FlatEmitter(StencilEmitter):
    """Emits a stencil for a form in flat 32-bit mode: what differs is the width of addresses."""

    def record_field(self, word: int, shift: int, width: int) -> Value:
        if (word, shift) == (rc.PACKED, rc.ADDRESS_SIZE):
            self.address_sized = True
            return self.const(4, 64)
        return super().record_field(word, shift, width)

    def wrap_address(self, offset: Value) -> Value:
        self.address_sized = True
        return offset & M32

    def stack_linear_at(self, pointer: Value, size: int, access: int) -> Value:
        return pointer & M32

    def set_stack(self, value: Value) -> None:
        self.super_set(GPR + RSP, value & M32)

    def bad_target(self, target: Value) -> Value:
        return self.const(0, 1)

    def narrow_rip(self, target: Value) -> Value:
        if self.form.size == 2:
            raise NoStencilError  # the translator knows where to, but it doesn't know 16 bits
        return target

    def jump_relative(self, condition: Value | None = None) -> None:
        self.narrow_rip(self.const(0, 64))
        super().jump_relative(condition)

    def high(self, rip: ir.Value) -> ir.Value:
        return high_half(self, rip)


def high_half(e: StencilEmitter, rip: ir.Value) -> ir.Value:
    """StencilEmitter.high() outside 64-bit mode."""
    beyond = e.b.icmp_unsigned(">=", rip, e.b.load(e._word_pointer(HIGH_HALF), typ=I64))
    return e.b.zext(beyond, I64)


def indirect(e: StencilEmitter, high: Callable[[ir.Value], ir.Value] | None = None) -> None:
    """Continue at State[RIP]: through the jump cache, or the loop."""
    b, s = e.b, e.s
    rip = b.load(e._word_pointer(RIP), typ=I64)
    mode = b.load(e._word_pointer(MODE), typ=I64)
    tag = b.xor(rip, b.shl(mode, I64(ly.JUMP_CACHE_MODE_SHIFT)))
    index = b.and_(b.xor(rip, b.lshr(rip, I64(ly.JUMP_CACHE_BITS))), I64(ly.JUMP_CACHE_SIZE - 1))
    half = b.shl((high or e.high)(rip), I64(ly.JUMP_CACHE_BITS))
    table = b.inttoptr(b.load(e._word_pointer(ly.JUMP_CACHE), typ=I64), PTR)
    entry = b.gep(table, [b.shl(b.or_(index, half), I64(4))], source_etype=I8)
    hit = b.icmp_unsigned("==", b.load(entry, typ=I64), tag)
    found, missed = e.fn.append_basic_block("found"), ir.Block(e.fn, "missed")
    b.cbranch(hit, found, missed).set_weights([100000, 1])
    e.cold.append((missed, "leave"))
    b.position_at_end(found)
    target = b.load(b.gep(entry, [I64(8)], source_etype=I8), typ=I64)
    tail_call(b, b.inttoptr(target, STENCIL_TYPE.as_pointer()), [s, e.tmp, e.a, e.c])


# ---- stencils that belong to no instruction --------------------------------------------------------------------
class Helper(StencilEmitter):
    """A stencil written here: the body is a function of the emitter."""

    def __init__(self, owner: ModuleCompiler, name: str, body: Callable[[Helper], None]) -> None:
        super().__init__(owner, Form(0, None, 8, False, ()), name)  # type: ignore[arg-type]
        body(self)
        if not self.b.block.is_terminated:
            self.go("cont")
        self._append_cold()

    def slot_value(self, name: str) -> ir.Value:
        """The State word at an offset hole."""
        word: ir.Value = self._load_word(lambda: self._at(name), 64, name).payload
        return word

    def state_word(self, index: int) -> ir.Value:
        """A State word, also ICOUNT."""
        word: ir.Value = self._load_word(lambda: self._word_pointer(index), 64, index).payload
        return word

    def set_tmp(self, value: ir.Value) -> None:
        """tmp for the next stencil."""
        self.tmp = value


def _prologue(e: Helper) -> None:
    b = e.b
    count = b.add(e.state_word(ICOUNT), e.hole("count"))
    e._slow_unless(b.icmp_unsigned("<=", count, b.load(e._word_pointer(ICOUNT_LIMIT), typ=I64)))
    request = b.load(e._word_pointer(EXIT_REQUEST), typ=I64)  # once a block: no need to say that others write it
    e._slow_unless(b.icmp_unsigned("==", request, I64(0)))
    b.store(count, e._word_pointer(ICOUNT))


def _address(registers: str, wide: bool) -> Callable[[Helper], None]:
    """tmp = an effective address of 64 or 32 bits: a displacement and the registers that are named, the index with its
    scale behind it. LLVM would take several instructions for what one LEA does."""
    names = [name for name in ("base", "index") if name in registers]
    scale = registers.partition("index")[2]
    inside = ",".join((f"${names.index(n) + 1}" if n in names else "") for n in ("base", "index"))
    text = f"lea hole_disp({inside}{',' + scale if scale else ''}), $0" if names else "mov $$hole_disp, $0"
    if not wide:
        text = text.replace("$0", "${0:k}")

    def body(e: Helper) -> None:
        words = [e.slot_value(name) for name in names]
        kind = ir.FunctionType(I64, [I64] * len(words))
        e.set_tmp(e.b.asm(kind, text, ",".join(["=r"] + ["r"] * len(words)), words, False))
        e.tmp.attributes.add("readnone")

    return body


def _segment32(e: Helper) -> None:
    """Add the base of FS or GS, unless the operand reaches beyond what may be accessed there."""
    b = e.b
    reach = b.load(b.gep(e._at("segment"), [I64(8 * (SEG_REACH - SEG_BASE))], source_etype=I8), typ=I64)
    inside = b.icmp_unsigned("<", b.add(e.tmp, e.hole("extent")), reach)
    e.set_tmp(b.and_(b.add(e.tmp, e.slot_value("segment")), I64(M32)))
    e._slow_unless(inside)


def _store_rip(e: Helper) -> None:
    e.b.store(e.hole("next"), e._word_pointer(RIP))


def _goto(e: Helper) -> None:
    """A direct jump into another page."""
    _store_rip(e)
    indirect(e)


def _goto32(e: Helper) -> None:
    """Likewise in flat 32-bit mode."""
    _store_rip(e)
    indirect(e, lambda rip: high_half(e, rip))


def _stop(e: Helper) -> None:
    """Back to the loop with RIP known."""
    _store_rip(e)
    e.go("leave")


def _proceed(e: Helper) -> None:
    """On with the next block, unless an event waits."""
    _store_rip(e)
    e.go("proceed")


def _count_edge(e: Helper) -> None:
    """Count an edge between blocks: the number of this one is in `slot`, half of it in `slot_next`."""
    b = e.b
    last = b.gep(e.s, [I64(ly.EDGE_LAST)], source_etype=I64)
    edges = b.inttoptr(b.load(b.gep(e.s, [I64(ly.EDGE_MAP)], source_etype=I64), typ=I64), PTR)
    counter = b.gep(edges, [b.xor(b.load(last, typ=I64), e.hole("slot"))], source_etype=I8)
    more = b.add(b.load(counter, typ=I8), I8(1))
    b.store(b.add(more, b.zext(b.icmp_unsigned("==", more, I8(0)), I8)), counter)  # never back to 0
    b.store(e.hole("slot_next"), last)
    e.go("cont")


def _with(e: Helper, where: str, first: str, second: str | None = None) -> None:
    """Tail-call a thunk with the arguments a and b."""
    second_value = e.hole(second) if second else e.c
    tail_call(e.b, code_hole(e.owner, where), [e.s, e.tmp, e.hole(first), second_value])


ADDRESSES = ("base", *(f"{base}index{scale}" for base in ("", "base_") for scale in (1, 2, 4, 8)))
HELPERS: dict[str, Callable[[Helper], None]] = {
    "prologue": _prologue,
    **{f"ea_{registers}": _address(registers, True) for registers in ADDRESSES},
    "ea_constant": lambda e: e.set_tmp(e.hole("disp64")),
    "ea_segment": lambda e: e.set_tmp(e.b.add(e.tmp, e.slot_value("segment"))),
    **{f"ea32_{registers}": _address(registers, False) for registers in ADDRESSES},
    "ea32_constant": _address("", False),
    "ea32_segment": _segment32,
    "exec": lambda e: _with(e, "exec", "record", "resume"),
    "unlinked": lambda e: _with(e, "unlinked", "slot"),
    "chain": lambda e: e.go("taken"),
    "goto": _goto,
    "goto32": _goto32,
    "stop": _stop,
    "proceed": _proceed,
    "indirect": indirect,
    "count_edge": _count_edge,
}
