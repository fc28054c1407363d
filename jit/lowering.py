"""Native twins of the primitives in cpu/primitives.py, and primitives that only native code has.

A lowering takes the function being compiled and its argument values, and emits code. Not here: anything that could be
said
in the mechanism subset itself.
"""

from __future__ import annotations

from typing import Any

import llvmlite.ir as ir

from pyemu.cpu import primitives as p
from pyemu.cpu import x87_compute
from pyemu.cpu.decode.record import R_RIP
from pyemu.cpu.host import CALL_MMIO_READ, CALL_MMIO_WRITE, CALL_PORT_READ, CALL_PORT_WRITE, CALL_SERVICE
from pyemu.cpu.state import HOST_CALLS, PAGE_FLAGS, RAM_BASE, RIP
from pyemu.jit import layout, native, x87
from pyemu.jit.subset import I8, I64, PTR, VOID, FunctionCompiler, Lowering


def state_word(b: ir.IRBuilder, s: ir.Value, index: int) -> ir.Value:
    """Load a word of State."""
    return b.load(b.gep(s, [I64(index)], source_etype=I64), typ=I64)


def ram_pointer(b: ir.IRBuilder, s: ir.Value, address: ir.Value) -> ir.Value:
    """The host pointer of a guest physical address."""
    base = b.inttoptr(state_word(b, s, RAM_BASE), PTR)
    return b.gep(base, [address], source_etype=I8)


def _ram_load(bits: int) -> Lowering:
    def lower(f: FunctionCompiler, args: list[ir.Value]) -> ir.Value:
        value = f.b.load(ram_pointer(f.b, *args), typ=ir.IntType(bits), align=1)
        return value if bits == 64 else f.b.zext(value, I64)

    return lower


def _ram_store(bits: int) -> Lowering:
    def lower(f: FunctionCompiler, args: list[ir.Value]) -> ir.Value:
        value = args[2] if bits == 64 else f.b.trunc(args[2], ir.IntType(bits))
        f.b.store(value, ram_pointer(f.b, args[0], args[1]), align=1)
        return I64(0)

    return lower


def _callback(number: int, count: int) -> Lowering:
    """Call the machine: all callbacks take (state, a, b, c)."""

    def lower(f: FunctionCompiler, args: list[ir.Value]) -> ir.Value:
        s, *rest = args
        kind = ir.FunctionType(I64, [PTR, I64, I64, I64])
        function = function_pointer(f.b, state_word(f.b, s, HOST_CALLS + number), kind)
        return f.b.call(function, [s, *rest, *[I64(0)] * (3 - count)])

    return lower


def function_pointer(b: ir.IRBuilder, address: ir.Value, kind: ir.FunctionType) -> ir.Value:
    """An address as something callable."""
    return b.inttoptr(address, kind.as_pointer())


def _intrinsic(name: str, *types: ir.Type) -> Lowering:
    def lower(f: FunctionCompiler, args: list[ir.Value]) -> ir.Value:
        module = f.owner.module
        full = f"llvm.{name}"
        fn = module.globals.get(full) or ir.Function(module, ir.FunctionType(VOID, types), full)
        pointers = [ram_pointer(f.b, args[0], args[1])]
        if name.startswith("memcpy"):
            pointers.append(ram_pointer(f.b, args[0], args[2]))
        else:
            pointers.append(f.b.trunc(args[2], I8))
        f.b.call(fn, [*pointers, args[3], ir.IntType(1)(0)])
        return I64(0)

    return lower


def _sext(f: FunctionCompiler, args: list[ir.Value]) -> ir.Value:
    bits = args[1].constant
    return args[0] if bits == 64 else f.b.sext(f.b.trunc(args[0], ir.IntType(bits)), I64)


def _signed_less(f: FunctionCompiler, args: list[ir.Value]) -> ir.Value:
    return f.b.zext(f.b.icmp_signed("<", *args), I64)


def _page_flags(f: FunctionCompiler, args: list[ir.Value]) -> ir.Value:
    base = f.b.inttoptr(state_word(f.b, args[0], PAGE_FLAGS), PTR)
    page = f.b.lshr(args[1], I64(12))
    return f.b.zext(f.b.load(f.b.gep(base, [page], source_etype=I8), typ=I8), I64)


def _peek(bits: int) -> Lowering:
    def lower(f: FunctionCompiler, args: list[ir.Value]) -> ir.Value:
        value = f.b.load(f.b.inttoptr(args[0], PTR), typ=ir.IntType(bits), align=1)
        return value if bits == 64 else f.b.zext(value, I64)

    return lower


def _poke(bits: int) -> Lowering:
    def lower(f: FunctionCompiler, args: list[ir.Value]) -> ir.Value:
        value = args[1] if bits == 64 else f.b.trunc(args[1], ir.IntType(bits))
        f.b.store(value, f.b.inttoptr(args[0], PTR), align=1)
        return I64(0)

    return lower


def _copy_bytes(f: FunctionCompiler, args: list[ir.Value]) -> ir.Value:
    module = f.owner.module
    name = "llvm.memcpy.p0.p0.i64"
    fn = module.globals.get(name) or ir.Function(
        module, ir.FunctionType(VOID, [PTR, PTR, I64, ir.IntType(1)]), name
    )
    f.b.call(fn, [f.b.inttoptr(args[0], PTR), f.b.inttoptr(args[1], PTR), args[2], ir.IntType(1)(0)])
    return I64(0)


def _call_handler(f: FunctionCompiler, args: list[ir.Value]) -> ir.Value:
    """handler(s, record) -> status."""
    s, function, record = args
    kind = ir.FunctionType(I64, [PTR, PTR])
    return f.b.call(function_pointer(f.b, function, kind), [s, f.b.inttoptr(record, PTR)])


def _call_code(f: FunctionCompiler, args: list[ir.Value]) -> ir.Value:
    """Enter translated code through the entry thunk."""
    s, function, target = args
    kind = ir.FunctionType(VOID, [PTR, I64])
    f.b.call(function_pointer(f.b, function, kind), [s, target])
    return I64(0)


def _volatile(f: FunctionCompiler, args: list[ir.Value]) -> ir.Value:
    """A word of State that other threads write."""
    pointer = f.b.gep(args[0], [args[1]], source_etype=I64)
    return f.b.load_atomic(pointer, "monotonic", 8, typ=I64)


def _host_tsc(f: FunctionCompiler, args: list[ir.Value]) -> ir.Value:
    module = f.owner.module
    name = "llvm.readcyclecounter"
    fn = module.globals.get(name) or ir.Function(module, ir.FunctionType(I64, []), name)
    return f.b.call(fn, [])


def _before_write(f: FunctionCompiler, args: list[ir.Value]) -> ir.Value:
    from pyemu.jit import blocks

    return f.b.call(f.owner.declare(blocks.written), args)  # type: ignore[arg-type]


def _leave_block(f: FunctionCompiler, args: list[ir.Value]) -> ir.Value:
    f.b.store(I64(1), f.b.gep(args[0], [I64(layout.KILLED)], source_etype=I64))
    return I64(0)


def _running_rip(f: FunctionCompiler, args: list[ir.Value]) -> ir.Value:
    """From the record; before the first there is none."""
    record = state_word(f.b, args[0], layout.CURRENT_RECORD)
    where = f.b.gep(f.b.inttoptr(record, PTR), [I64(R_RIP)], source_etype=I64)
    own = f.b.gep(args[0], [I64(RIP)], source_etype=I64)
    return f.b.load(f.b.select(f.b.icmp_unsigned("==", record, I64(0)), own, where), typ=I64)


def _mappings_changed(f: FunctionCompiler, args: list[ir.Value]) -> ir.Value:
    from pyemu.jit import blocks

    return f.b.call(f.owner.declare(blocks.forget_jumps), args)  # type: ignore[arg-type]


LOWERINGS: dict[Any, Lowering] = {
    p.sext: _sext,
    p.signed_less: _signed_less,
    p.ram8: _ram_load(8),
    p.ram16: _ram_load(16),
    p.ram32: _ram_load(32),
    p.ram64: _ram_load(64),
    p.set_ram8: _ram_store(8),
    p.set_ram16: _ram_store(16),
    p.set_ram32: _ram_store(32),
    p.set_ram64: _ram_store(64),
    p.ram_copy: _intrinsic("memcpy.p0.p0.i64", PTR, PTR, I64, ir.IntType(1)),
    p.ram_fill: _intrinsic("memset.p0.i64", PTR, I8, I64, ir.IntType(1)),
    p.mmio_read: _callback(CALL_MMIO_READ, 2),
    p.mmio_write: _callback(CALL_MMIO_WRITE, 3),
    p.port_read: _callback(CALL_PORT_READ, 2),
    p.port_write: _callback(CALL_PORT_WRITE, 3),
    p.call_service: _callback(CALL_SERVICE, 3),
    p.page_flags: _page_flags,
    p.leave_block: _leave_block,
    p.running_rip: _running_rip,
    p.mappings_changed: _mappings_changed,
    p.before_write: _before_write,
    x87_compute.compute: x87.lower,
    native.peek8: _peek(8),
    native.peek16: _peek(16),
    native.peek32: _peek(32),
    native.peek64: _peek(64),
    native.poke8: _poke(8),
    native.poke16: _poke(16),
    native.poke32: _poke(32),
    native.poke64: _poke(64),
    native.copy_bytes: _copy_bytes,
    native.call_handler: _call_handler,
    native.call_code: _call_code,
    native.shared_word: _volatile,
    native.host_tsc: _host_tsc,
}
