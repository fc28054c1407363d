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

import functools
from collections.abc import Callable
from dataclasses import dataclass

import llvmlite.ir as ir

from pyemu.cpu.decode import record as rc
from pyemu.cpu.ops import Form
from pyemu.cpu.state import (
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
from pyemu.jit import elf
from pyemu.jit import layout as ly
from pyemu.jit.emit import Emitter
from pyemu.jit.emit_float import DEFAULT_MXCSR, FLAGS
from pyemu.jit.subset import I1, I8, I64, PTR, VOID, ModuleCompiler
from pyemu.jit.target import compile_ir

STENCIL_TYPE = ir.FunctionType(VOID, [PTR, I64, I64, I64])

# Holes: what the translator fills in. The order is the numbering that relocations use.
HOLES = (
    "reg", "rm", "op", "base", "index", "segment", "scale", "disp", "imm", "imm32", "imm64", "disp64", "rip", "next",
    "count", "record", "resume", "tlb", "slot", "slot_next",
    "slow", "cont", "exec", "leave", "unlinked", "proceed", "constants", "vvvv", "extent",
)  # fmt: skip
HOLE = {name: number for number, name in enumerate(HOLES)}
DEAD = ":dead"  # ends the name of a stencil that leaves out its flag writes
FLAT = ":flat"  # ends the name of a stencil, before DEAD, that is for flat 32-bit mode alone
M32 = 0xFFFFFFFF
CODE_HOLES = ("slow", "cont", "exec", "leave", "unlinked", "proceed")
# Ranges of values, which decide the encoding: offsets and 32-bit values, signed 32 bits, anything.
# Numbers far above those that llvmlite gives its own metadata (branch weights).
_UNSIGNED32, _UNSIGNED31, _SIGNED32, _ANY = "!900000", "!900001", "!900002", "!900003"
_RANGE = {
    "imm": _SIGNED32, "disp": _SIGNED32, "imm32": _UNSIGNED32, "imm64": _ANY, "disp64": _ANY, "rip": _ANY, "next": _ANY,
    "record": _UNSIGNED31, "resume": _UNSIGNED31, "slot": _UNSIGNED31, "slot_next": _UNSIGNED31,
}  # fmt: skip
METADATA = f"""
{_UNSIGNED32} = !{{i64 0, i64 4294967296}}
{_UNSIGNED31} = !{{i64 0, i64 2147483648}}
{_SIGNED32} = !{{i64 -2147483648, i64 2147483648}}
{_ANY} = !{{i64 -1, i64 -1}}
"""


class NoStencilError(Exception):
    """This form runs by its handler."""


class StencilEmitter(Emitter):
    """Emits a stencil for a form in 64-bit mode; `dead_flags` leaves out its writes of the arithmetic flags."""

    def __init__(self, owner: ModuleCompiler, form: Form, name: str, dead_flags: bool = False) -> None:
        super().__init__(owner, form)
        self.dead_flags = dead_flags
        self.fn = function(owner, name)
        self.s, self.tmp, self.a, self.c = self.fn.args
        self.s.add_attribute("noalias")
        self.entry = self.fn.append_basic_block("entry")
        self.b = ir.IRBuilder(self.entry)
        self.relative: Value | None = None  # condition of a relative jump
        self.stored = self.floats = False
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
        if operand.kind == "imm" and operand.source == "imm" and operand.size == 4:
            return Value(self, self.hole("imm32"), 64).trunc(32)
        return super().read(operand)

    def record_field(self, word: int, shift: int, width: int) -> Value:
        if (word, shift) == (rc.PACKED, rc.ADDRESS_SIZE):
            self.wide = self.address_sized = True
            return self.const(8, 64)  # others run by their handler
        raise NoStencilError

    def state(self, index: int, width: int = 64) -> Value:
        if index == ICOUNT:
            raise NoStencilError  # only a handler sees it exact
        return super().state(index, width)

    def next_rip(self) -> Value:
        self.wide = True
        return Value(self, self.hole("next"), 64)

    def register(self, field: int, width: int) -> Value:
        return self._load_bits(self._at(self._NAMES[field]), width)

    def set_register(self, field: int, value: Value) -> None:
        self.writes.append(lambda: self.b.store(value.payload, self._at(self._NAMES[field]), align=1))

    def set_state(self, index: int, value: Value) -> None:
        from pyemu.cpu.state import CC_DST, CC_SRC

        if not (self.dead_flags and index in (CC_DST, CC_SRC)):
            super().set_state(index, value)

    def register_number(self, field: int) -> Value:
        raise NoStencilError

    def address_register(self, field: int) -> Value:
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

    def super_set(self, index: int, value: Value) -> None:
        """Queue a write of a whole State word."""
        super().set_state(index, value)

    def _tlb_entry(self, linear: ir.Value) -> ir.Value:
        b = self.b
        at = b.and_(b.lshr(linear, I64(7)), I64((TLB_ENTRIES - 1) << 5))
        return b.gep(self._at("tlb"), [at], source_etype=I8)

    def load(self, linear: Value, width: int, access: int = 0) -> Value:
        if width & (width - 1) or width > 256 or self.stored:
            raise NoStencilError
        hit, pointer = self._hit(linear.payload, width // 8, bool(access & 1))
        self._slow_unless(hit)
        return Value(self, self.b.load(pointer, typ=ir.IntType(width), align=1), width)

    def store(self, linear: Value, value: Value, access: int = 0) -> None:
        if value.width & (value.width - 1) or value.width > 256 or self.stored or self.floats:
            raise NoStencilError
        hit, pointer = self._hit(linear.payload, value.width // 8, True)
        self._slow_unless(hit)
        self.b.store(value.payload, pointer, align=1)
        self.stored = True

    def probe_write(self, linear: Value, size: int) -> None:
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

    def go_slot(self, name: str) -> None:
        """Jump through a chain slot."""
        b = self.b
        target = b.load(b.inttoptr(self.hole(name), PTR), typ=I64)
        self._tail(b.inttoptr(target, STENCIL_TYPE.as_pointer()))

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
            self.go_slot("slot")
            return
        b = self.b
        taken, following = self.fn.append_basic_block("taken"), self.fn.append_basic_block("following")
        b.cbranch(condition.payload, taken, following)
        b.position_at_end(taken)
        self.go_slot("slot")
        b.position_at_end(following)
        self.go_slot("slot_next")


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


def function(owner: ModuleCompiler, name: str) -> ir.Function:
    """An empty stencil function."""
    fn = ir.Function(owner.module, STENCIL_TYPE, name)
    fn.calling_convention = "preserve_nonecc"
    fn.attributes.add("nounwind")
    fn.attributes.add("optsize")  # makes a branch to a tail call one conditional jump
    return fn


def hole(owner: ModuleCompiler, b: ir.IRBuilder, name: str) -> ir.Value:
    """The value of a hole: ptrtoint of its symbol. One of 64 bits is loaded by hand, because LLVM takes any symbol to
    fit the 32-bit immediate of a store (small code model)."""
    if _RANGE.get(name) == _ANY:
        return b.asm(ir.FunctionType(I64, []), f"movabsq $$hole_{name}, $0", "=r", [], False)
    symbol = owner.module.globals.get(f"hole_{name}") or ir.GlobalVariable(owner.module, I8, f"hole_{name}")
    return b.ptrtoint(symbol, I64)


def code_hole(owner: ModuleCompiler, name: str) -> ir.Function:
    """A function symbol that the translator resolves."""
    fn = owner.module.globals.get(f"hole_{name}")
    if fn is None:
        fn = ir.Function(owner.module, STENCIL_TYPE, f"hole_{name}")
        fn.calling_convention = "preserve_nonecc"
    return fn


def tail_call(b: ir.IRBuilder, target: ir.Value, arguments: list[ir.Value]) -> None:
    """musttail call and return."""
    b.call(target, arguments, cconv="preserve_nonecc", tail="musttail")
    b.ret_void()


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
        return self.b.load(self._at(name), typ=I64)

    def set_tmp(self, value: ir.Value) -> None:
        """tmp for the next stencil."""
        self.tmp = value


def _prologue(e: Helper) -> None:
    b = e.b
    count = b.add(b.load(e._word_pointer(ICOUNT), typ=I64), e.hole("count"))
    e._slow_unless(b.icmp_unsigned("<=", count, b.load(e._word_pointer(ICOUNT_LIMIT), typ=I64)))
    request = b.load_atomic(e._word_pointer(EXIT_REQUEST), "monotonic", 8, typ=I64)
    e._slow_unless(b.icmp_unsigned("==", request, I64(0)))
    b.store(count, e._word_pointer(ICOUNT))


def _scaled(e: Helper) -> ir.Value:
    return e.b.shl(e.slot_value("index"), e.b.and_(e.hole("scale"), I64(63)))


def _address32(e: Helper, *parts: ir.Value) -> None:
    """tmp = the sum of some parts, as a 32-bit address."""
    e.set_tmp(e.b.and_(functools.reduce(e.b.add, parts), I64(M32)))


def _segment32(e: Helper) -> None:
    """Add the base of FS or GS, unless the operand reaches beyond what may be accessed there."""
    b = e.b
    reach = b.load(b.gep(e._at("segment"), [I64(8 * (SEG_REACH - SEG_BASE))], source_etype=I8), typ=I64)
    inside = b.icmp_unsigned("<", b.add(e.tmp, e.hole("extent")), reach)
    _address32(e, e.tmp, e.slot_value("segment"))
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


HELPERS: dict[str, Callable[[Helper], None]] = {
    "prologue": _prologue,
    "ea_base": lambda e: e.set_tmp(e.b.add(e.slot_value("base"), e.hole("disp"))),
    "ea_index": lambda e: e.set_tmp(e.b.add(_scaled(e), e.hole("disp"))),
    "ea_base_index": lambda e: e.set_tmp(e.b.add(e.b.add(e.slot_value("base"), _scaled(e)), e.hole("disp"))),
    "ea_constant": lambda e: e.set_tmp(e.hole("disp64")),
    "ea_segment": lambda e: e.set_tmp(e.b.add(e.tmp, e.slot_value("segment"))),
    "ea32_base": lambda e: _address32(e, e.slot_value("base"), e.hole("disp")),
    "ea32_index": lambda e: _address32(e, _scaled(e), e.hole("disp")),
    "ea32_base_index": lambda e: _address32(e, e.slot_value("base"), _scaled(e), e.hole("disp")),
    "ea32_constant": lambda e: _address32(e, e.hole("disp")),
    "ea32_segment": _segment32,
    "exec": lambda e: _with(e, "exec", "record", "resume"),
    "unlinked": lambda e: _with(e, "unlinked", "slot"),
    "chain": lambda e: e.go_slot("slot"),
    "goto": _goto,
    "goto32": _goto32,
    "stop": _stop,
    "proceed": _proceed,
    "indirect": indirect,
    "count_edge": _count_edge,
}


# ---- building ------------------------------------------------------------------------------------------------
def compile_helpers() -> dict[str, Stencil]:
    """The stencils that belong to no instruction, by name."""
    owner = ModuleCompiler("helpers", {})
    for name, body in HELPERS.items():
        Helper(owner, name, body)
    return extract(_object(owner), list(HELPERS))


def compile_stencils(forms: list[Form]) -> dict[str, Stencil]:
    """The stencils of some forms: by the form's name, with FLAT behind it for those of flat 32-bit mode alone, and DEAD
    for those without flag writes."""
    owner = ModuleCompiler("stencils", {})
    built: dict[str, StencilEmitter] = {}
    for form in forms:
        if form.row.sets_rip:
            continue
        if form.row.modes != "legacy":
            _build_form(owner, form, StencilEmitter, form.name, built)
        if form.row.modes == "legacy" or (form.row.modes == "any" and form.name in built and built[form.name].wide):
            _build_form(owner, form, FlatEmitter, form.name + FLAT, built)
    stencils = extract(_object(owner), list(built))
    for name, stencil in stencils.items():
        stencil.wide, stencil.address_sized = built[name].wide, built[name].address_sized
    return stencils


def _build_form(
    owner: ModuleCompiler, form: Form, kind: type[StencilEmitter], name: str, built: dict[str, StencilEmitter]
) -> None:
    """Add the stencils of a form for one mode to a module, if it can have one."""
    for suffix in ("", DEAD) if "w" in form.row.flags else ("",):
        emitter = kind(owner, form, name + suffix, bool(suffix))
        try:
            emitter.build()
        except NoStencilError:
            drop(owner.module, name + suffix)
            return
        built[name + suffix] = emitter


def _object(owner: ModuleCompiler) -> bytes:
    return compile_ir(finish(str(owner.module)), level=1, reloc="static")


def drop(module: ir.Module, name: str) -> None:
    """Take an unfinished function out of a module."""
    del module.globals[name]
    module.scope._useset.discard(name)


def finish(text: str) -> str:
    """Give holes the properties that llvmlite cannot say."""
    lines = []
    for line in text.splitlines():
        if line.startswith('@"hole_'):
            name = line[len('@"hole_') : line.index('"', 2)]
            line = line.replace("external global i8", "external dso_local global i8")
            line += f", !absolute_symbol {_RANGE.get(name, _UNSIGNED31)}"
        elif line.startswith(("declare preserve", "define preserve")):
            line = line.replace("declare preserve", "declare dso_local preserve", 1)
            line = line.replace("define preserve", "define dso_local preserve", 1)
        lines.append(line)
    return "\n".join(lines) + METADATA


Relocations = list[tuple[int, int, int, int]]
ALIGNMENT = 64
LONGEST = 640  # bytes of code; 64 such in a block, with their stubs, stay within translator.MARGIN


@dataclass
class Stencil:
    """Machine code, its holes: (offset, relocation type, hole number, addend), and the constants that it refers to, at
    an address that is a multiple of ALIGNMENT."""

    code: bytes
    relocations: Relocations
    constants: bytes = b""
    wide: bool = False  # it is for 64-bit mode alone
    address_sized: bool = False  # it depends on the address size beyond the operand's address


def extract(data: bytes, names: list[str]) -> dict[str, Stencil]:
    """Cut an object file into stencils, without those that cut() refuses: those forms run by their handlers (tests say
    which must have a stencil)."""
    parsed = elf.parse(data)
    constants, places = pool(parsed)
    result: dict[str, Stencil] = {}
    for name in names:
        symbol = parsed.symbols[name]
        section = parsed.sections[symbol.section]
        code = bytes(section.data[symbol.value : symbol.value + symbol.size])
        relocations = []
        for r in section.relocations:
            at = r.offset - symbol.value
            if not 0 <= at < symbol.size:
                continue
            if r.symbol.startswith("hole_"):
                relocations.append((at, r.kind, HOLE[r.symbol.removeprefix("hole_")], r.addend))
            elif r.section in places:
                relocations.append((at, r.kind, HOLE["constants"], places[r.section] + r.value + r.addend))
            else:
                break  # a jump table
        else:
            if (stencil := cut(code, relocations)) is not None:
                uses = any(number == HOLE["constants"] for _, _, number, _ in relocations)
                result[name] = Stencil(*stencil, constants if uses else b"")
    return result


def pool(parsed: elf.Object) -> tuple[bytes, dict[int, int]]:
    """The constants of an object in one piece, and where in it each section with constants is."""
    data, places = bytearray(), dict[int, int]()
    for number, section in parsed.sections.items():
        if section.name.startswith(".rodata") and not section.relocations:
            data += bytes(-len(data) % ALIGNMENT)
            places[number] = len(data)
            data += section.data
    return bytes(data), places


def cut(code: bytes, relocations: Relocations) -> tuple[bytes, Relocations] | None:
    """Strip the final `jmp cont`; None if LLVM continues from elsewhere, so that the hot path doesn't fall through, or
    if it is so long that copying it would be a waste."""
    last = len(code) - 4
    final = (last, elf.R_PLT32, HOLE["cont"], -4)
    if final in relocations and code[last - 1] == 0xE9:
        relocations.remove(final)
        code = code[: last - 1]
    if any(number == HOLE["cont"] for _, _, number, _ in relocations) or len(code) > LONGEST:
        return None
    return code, relocations
