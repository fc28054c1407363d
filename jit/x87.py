"""The native twin of cpu/x87_compute.py: x87 operations on the host's FPU, in inline assembly.

With all exceptions masked, an operation takes its operands from memory, and gives its result back to memory, on the
host's empty register stack. The host's exception flags are sticky, and clearing them is slow: they are left as they
are, and only if one is set that the guest's FSW lacks, and which may therefore be an old one, is the operation repeated
with clean flags. Everything else runs as `Operation.exactly` says. Either way the host's control word and stack are as
the C convention wants them afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import llvmlite.ir as ir

from pyemu.cpu import x87_operations as x87
from pyemu.cpu.fpu_state import C0, C1, C2, C3, EXCEPTIONS
from pyemu.cpu.state import FCW, FSW, X87_RESULT
from pyemu.cpu.x87_operations import OPERATIONS, Operation
from pyemu.jit.subset import I64, PTR, VOID, FunctionCompiler

CONTROL = X87_RESULT + 4  # as the machine code has it
_CLOBBERS = "~{memory},~{dirflag},~{fpsr},~{flags}"
_STATUS = EXCEPTIONS | C0 | C1 | C2 | C3


def _bytes(code: bytes) -> str:
    return ".byte " + ",".join(str(byte) for byte in code)


def _quickly(operation: Operation) -> str:
    """The operation with all exceptions masked; ECX has the flags that are not expected."""
    body = operation.code + x87.FNSTSW_AX
    stores = b"".join(x87.STORE_RESULTS[: operation.results]) + x87.DROP * (operation.depth - operation.results)
    again = x87.DROP * operation.depth + x87.FNCLEX + body
    return f"{_bytes(body)}\ntestl %ecx, %eax\nje 1f\n{_bytes(again)}\n1: {_bytes(stores) if stores else ''}"


class _Lowering:
    """The code for one call of compute()."""

    def __init__(self, f: FunctionCompiler, args: list[ir.Value]) -> None:
        self.b, (self.s, self.operation, a, b) = f.b, args
        self.end = self.b.append_basic_block("computed")
        self.a, self.other, self.result = self._word(a), self._word(b), self._word(I64(X87_RESULT))
        self.incoming: list[tuple[ir.Value, ir.Block]] = []

    def _word(self, index: ir.Value) -> ir.Value:
        return self.b.gep(self.s, [index], source_etype=I64)

    def _load(self, index: int) -> ir.Value:
        return self.b.load(self._word(I64(index)), typ=I64)

    def _assemble(self, text: str, *inputs: tuple[str, ir.Value]) -> ir.Value:
        fixed = (("{di}", self.a), ("{si}", self.other), ("{dx}", self.result), *inputs)
        kind = ir.FunctionType(I64, [value.type for _, value in fixed])
        constraint = ",".join(["={ax}", *[register for register, _ in fixed], _CLOBBERS])
        return self.b.asm(kind, text, constraint, [value for _, value in fixed], True)

    def _load_control(self, code: bytes) -> None:
        kind = ir.FunctionType(VOID, [PTR])
        self.b.asm(kind, _bytes(code), f"{{dx}},{_CLOBBERS}", [self.result], True)

    def _normalise(self, operation: Operation) -> None:
        """The words of a result have nothing above it; read as wide as they were written, they are forwarded."""
        widths = {2 * n + 1: 16 for n in range(operation.results)}
        if operation.memory:
            widths[3 if operation.memory == 80 else 2] = 16 if operation.memory == 80 else operation.memory
        for word, width in widths.items():
            pointer = self._word(I64(X87_RESULT + word))
            if width < 64:
                self.b.store(self.b.zext(self.b.load(pointer, typ=ir.IntType(width)), I64), pointer)

    def _switch(self, numbers: Iterable[int], emit: Callable[[Operation], ir.Value], default: ir.Block) -> None:
        """A block for each operation, which ends at `end` with its status."""
        switch = self.b.switch(self.operation, default)
        for number in numbers:
            block = self.b.append_basic_block("x87")
            switch.add_case(I64(number), block)
            self.b.position_at_end(block)
            status = emit(OPERATIONS[number])
            self._normalise(OPERATIONS[number])
            self.incoming.append((status, self.b.block))
            self.b.branch(self.end)

    def run(self) -> ir.Value:
        b = self.b
        control = b.and_(self._load(FCW), I64(0xFFFF))
        both = b.or_(control, I64(x87.DEFAULT_CONTROL << 16))
        b.store(both, self._word(I64(CONTROL)))
        quick, exact, unknown = (b.append_basic_block(name) for name in ("quick", "exact", "unknown"))
        masked = b.icmp_unsigned("==", b.and_(control, I64(x87.ALL_MASKED)), I64(x87.ALL_MASKED))
        b.cbranch(masked, quick, exact)
        b.position_at_end(quick)
        unusual = b.icmp_unsigned("!=", control, I64(x87.DEFAULT_CONTROL))
        with b.if_then(unusual):
            self._load_control(x87.LOAD_CONTROL)
        unexpected = b.and_(b.not_(self._load(FSW)), I64(EXCEPTIONS))
        self._switch(
            (number for number, operation in OPERATIONS.items() if operation.results < 2),
            lambda operation: self._assemble(_quickly(operation), ("{cx}", unexpected)),
            exact,
        )
        quick_end, self.incoming = self.incoming, []
        b.position_at_end(exact)
        self._switch(OPERATIONS, lambda operation: self._assemble(_bytes(operation.exactly())), unknown)
        b.position_at_end(unknown)
        b.unreachable()
        b.position_at_end(self.end)
        status = b.phi(I64)
        for value, block in quick_end + self.incoming:
            status.add_incoming(value, block)
        with b.if_then(b.icmp_unsigned("!=", control, I64(x87.DEFAULT_CONTROL))):
            self._load_control(x87.LOAD_DEFAULT)
        return b.and_(status, I64(_STATUS))


def lower(f: FunctionCompiler, args: list[ir.Value]) -> ir.Value:
    """compute(s, operation, a, b)."""
    return _Lowering(f, args).run()
