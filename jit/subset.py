"""Compiles mechanism code: plain Python functions of unsigned 64-bit words, to LLVM IR.

The functions run as they are in the reference interpreter; here the same source becomes native code. Everything is an
i64:
arithmetic wraps, comparisons and shifts are unsigned, truth is nonzero. A call to another Python function compiles
that one
too; names and attributes that are not locals are evaluated now, and must be ints, tables (array.array) or functions.
Primitives (lowering.py) supply what the subset can't say. Not here: instruction definitions (emit.py).

A construct outside the subset raises SubsetError with file and line. Nothing is silently dropped.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from array import array
from collections.abc import Callable, Container
from types import FunctionType, ModuleType
from typing import Any

import llvmlite.ir as ir

I1, I8, I16, I32, I64 = (ir.IntType(n) for n in (1, 8, 16, 32, 64))
PTR = ir.PointerType()
VOID = ir.VoidType()

_BINARY: dict[type[ast.operator], str] = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.BitAnd: "and_", ast.BitOr: "or_", ast.BitXor: "xor",
    ast.FloorDiv: "udiv", ast.Mod: "urem",
}  # fmt: skip
_COMPARE: dict[type[ast.cmpop], str] = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
}  # fmt: skip

Lowering = Callable[["FunctionCompiler", list[ir.Value]], ir.Value]


class SubsetError(Exception):
    """Source that mechanism code may not contain."""


def symbol(function: FunctionType) -> str:
    """The native name of a mechanism function."""
    return f"{function.__module__}.{function.__qualname__}"


def is_state(parameter: inspect.Parameter) -> bool:
    """Is this the parameter that points to the vCPU's words?"""
    return bool(getattr(parameter.annotation, "__name__", parameter.annotation) == "State")


class ModuleCompiler:
    """Collects functions into one LLVM module; callees are compiled as they are met."""

    def __init__(
        self, name: str, lowerings: dict[Any, Lowering], external: bool = False, known: Container[str] = ()
    ) -> None:
        self.module = ir.Module(name)
        self.module.triple = "x86_64-unknown-linux-gnu"
        self.lowerings = lowerings
        self.external = external  # callees live in another object: all of them ...
        self.known = known  # ... or those with these symbols
        self.queue: list[FunctionType] = []
        self.tables: dict[int, tuple[ir.GlobalVariable, Any]] = {}

    def declare(self, function: FunctionType) -> ir.Function:
        """The LLVM function for a Python one, queued for compilation if it is new."""
        name = symbol(function)
        if name in self.module.globals:
            return self.module.globals[name]
        parameters = list(inspect.signature(function).parameters.values())
        types = [PTR if is_state(p) else I64 for p in parameters]
        declared = ir.Function(self.module, ir.FunctionType(I64, types), name)
        declared.attributes.add("nounwind")
        for argument, parameter in zip(declared.args, parameters, strict=True):
            argument.name = parameter.name
            if is_state(parameter):
                argument.add_attribute("noalias")
        if not self.external and name not in self.known:
            self.queue.append(function)
        return declared

    def compile(self, *roots: FunctionType) -> None:
        """Compile functions and everything that they call."""
        for root in roots:
            self.declare(root)
        while self.queue:
            function = self.queue.pop()
            FunctionCompiler(self, function).run()

    def table(self, data: array[int]) -> tuple[ir.GlobalVariable, int]:
        """A constant global with the contents of an array, and its element size."""
        if id(data) not in self.tables:
            element = ir.IntType(8 * data.itemsize)
            kind = ir.ArrayType(element, len(data))
            variable = ir.GlobalVariable(self.module, kind, f"table.{len(self.tables)}")
            variable.global_constant, variable.linkage = True, "internal"
            variable.initializer = ir.Constant(kind, list(data))
            self.tables[id(data)] = variable, data
        return self.tables[id(data)][0], data.itemsize


class FunctionCompiler:
    """Compiles one function. Locals are stack slots; LLVM turns them into registers."""

    def __init__(self, owner: ModuleCompiler, function: FunctionType) -> None:
        self.owner, self.function = owner, function
        self.fn = owner.module.globals[symbol(function)]
        source, self.first_line = inspect.getsourcelines(function)
        self.tree = ast.parse(textwrap.dedent("".join(source))).body[0]
        assert isinstance(self.tree, ast.FunctionDef)
        self.entry = self.fn.append_basic_block("entry")
        self.body = self.fn.append_basic_block("body")
        self.b = ir.IRBuilder(self.body)
        self.locals: dict[str, ir.Value] = {}
        self.pointers: dict[str, ir.Value] = {}
        self.loops: list[tuple[ir.Block, ir.Block]] = []

    def fail(self, node: ast.AST, why: str) -> SubsetError:
        line = self.first_line + getattr(node, "lineno", 1) - 1
        return SubsetError(f"{self.function.__code__.co_filename}:{line}: {why}")

    def run(self) -> None:
        for argument in self.fn.args:
            if argument.type == PTR:
                self.pointers[argument.name] = argument
            else:
                self.b.store(argument, self.slot(argument.name))
        assert isinstance(self.tree, ast.FunctionDef)
        self.statements(self.tree.body)
        if not self.b.block.is_terminated:
            self.b.ret(I64(0))
        ir.IRBuilder(self.entry).branch(self.body)

    def slot(self, name: str) -> ir.Value:
        if name not in self.locals:
            with self.b.goto_block(self.entry):
                self.locals[name] = self.b.alloca(I64, name=name)
        return self.locals[name]

    # ---- statements ----------------------------------------------------------------------------------------
    def statements(self, body: list[ast.stmt]) -> None:
        for node in body:
            if self.b.block.is_terminated:
                return
            handler = getattr(self, f"do_{type(node).__name__}", None)
            if handler is None:
                raise self.fail(node, f"{type(node).__name__} is not in the subset")
            handler(node)

    def do_Pass(self, node: ast.Pass) -> None:
        pass

    def do_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # a docstring
            self.expression(node.value)

    def do_Assign(self, node: ast.Assign) -> None:
        value = self.expression(node.value)
        for target in node.targets:
            self.assign(target, value)

    def do_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.assign(node.target, self.expression(node.value))

    def do_AugAssign(self, node: ast.AugAssign) -> None:
        left = ast.copy_location(ast.BinOp(node.target, node.op, node.value), node)
        self.assign(node.target, self.expression(left))

    def assign(self, target: ast.expr, value: ir.Value) -> None:
        if isinstance(target, ast.Name):
            self.b.store(value, self.slot(target.id))
        elif isinstance(target, ast.Subscript) and (pointer := self.pointer(target.value)) is not None:
            self.b.store(value, self.word(pointer, target.slice))
        else:
            raise self.fail(target, "assignment target is not in the subset")

    def pointer(self, node: ast.expr) -> ir.Value | None:
        """The state parameter that a name stands for, if it does."""
        return self.pointers.get(node.id) if isinstance(node, ast.Name) else None

    def do_Return(self, node: ast.Return) -> None:
        if node.value is None:
            raise self.fail(node, "return needs a value")
        self.b.ret(self.expression(node.value))

    def do_If(self, node: ast.If) -> None:
        condition = self.condition(node.test)
        if isinstance(condition, ir.Constant):  # known now: configuration
            self.statements(node.body if condition.constant else node.orelse)
            return
        yes, end = self.b.append_basic_block("if"), self.b.append_basic_block("endif")
        no = self.b.append_basic_block("else") if node.orelse else end
        self.b.cbranch(condition, yes, no)
        for block, body in ((yes, node.body), (no, node.orelse)):
            if block is not end:
                self.b.position_at_end(block)
                self.statements(body)
                if not self.b.block.is_terminated:
                    self.b.branch(end)
        self.b.position_at_end(end)

    def loop(self, test: Callable[[], ir.Value] | None, body: list[ast.stmt], step: Callable[[], None]) -> None:
        head, inside = self.b.append_basic_block("head"), self.b.append_basic_block("loop")
        following, end = self.b.append_basic_block("step"), self.b.append_basic_block("done")
        self.b.branch(head)
        self.b.position_at_end(head)
        if test is None:
            self.b.branch(inside)
        else:
            self.b.cbranch(test(), inside, end)
        self.b.position_at_end(inside)
        self.loops.append((following, end))
        self.statements(body)
        self.loops.pop()
        if not self.b.block.is_terminated:
            self.b.branch(following)
        self.b.position_at_end(following)
        step()
        self.b.branch(head)
        self.b.position_at_end(end)

    def do_While(self, node: ast.While) -> None:
        if node.orelse:
            raise self.fail(node, "while-else is not in the subset")
        forever = isinstance(node.test, ast.Constant) and bool(node.test.value)
        self.loop(None if forever else lambda: self.condition(node.test), node.body, lambda: None)

    def do_For(self, node: ast.For) -> None:
        call = node.iter
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "range"):
            raise self.fail(node, "for needs range(...)")
        if not isinstance(node.target, ast.Name) or node.orelse:
            raise self.fail(node, "for needs one name and no else")
        bounds = [self.expression(a) for a in call.args]
        start, stop, step = (I64(0), bounds[0], I64(1)) if len(bounds) == 1 else (*bounds, I64(1))[:3]
        if not isinstance(step, ir.Constant):
            raise self.fail(node, "the step of a range must be constant")
        down = step.constant >> 63 == 1 or step.constant < 0
        counter, variable = self.slot(f"{node.target.id}.{node.lineno}"), self.slot(node.target.id)
        self.b.store(start, counter)

        def test() -> ir.Value:
            now = self.b.load(counter, typ=I64)
            self.b.store(now, variable)
            return self.b.icmp_signed(">" if down else "<", now, stop)

        def advance() -> None:
            self.b.store(self.b.add(self.b.load(counter, typ=I64), step), counter)

        self.loop(test, node.body, advance)

    def do_Break(self, node: ast.Break) -> None:
        self.b.branch(self.loops[-1][1])

    def do_Continue(self, node: ast.Continue) -> None:
        self.b.branch(self.loops[-1][0])

    # ---- expressions ---------------------------------------------------------------------------------------
    def static(self, node: ast.expr) -> Any:
        """The object that a name or attribute means now, if it isn't a local."""
        if isinstance(node, ast.Name):
            if node.id in self.locals or node.id in self.pointers:
                return None
            return self.function.__globals__.get(node.id)
        if isinstance(node, ast.Attribute):
            owner = self.static(node.value)
            return getattr(owner, node.attr, None) if isinstance(owner, ModuleType) else None
        return None

    def expression(self, node: ast.expr) -> ir.Value:
        handler = getattr(self, f"on_{type(node).__name__}", None)
        if handler is None:
            raise self.fail(node, f"{type(node).__name__} is not in the subset")
        value: ir.Value = handler(node)
        if value.type == I1:
            if isinstance(value, ir.Constant):
                return I64(int(bool(value.constant)))
            return self.b.zext(value, I64)
        return value

    def condition(self, node: ast.expr) -> ir.Value:
        """An expression as i1."""
        if isinstance(node, ast.Compare):
            return self.on_Compare(node)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self.condition(node.operand)
            if isinstance(inner, ir.Constant):
                return I1(not inner.constant)
            return self.b.not_(inner)
        value = self.expression(node)
        if isinstance(value, ir.Constant):
            return I1(bool(value.constant))
        return self.b.icmp_unsigned("!=", value, I64(0))

    def on_Constant(self, node: ast.Constant) -> ir.Value:
        if not isinstance(node.value, int):
            raise self.fail(node, f"constant {node.value!r} is not in the subset")
        return I64(int(node.value) & 0xFFFFFFFFFFFFFFFF)

    def on_Name(self, node: ast.Name) -> ir.Value:
        if node.id in self.locals:
            return self.b.load(self.locals[node.id], typ=I64)
        if node.id in self.pointers:
            return self.pointers[node.id]
        return self.on_static(node)

    def on_Attribute(self, node: ast.Attribute) -> ir.Value:
        return self.on_static(node)

    def on_static(self, node: ast.expr) -> ir.Value:
        value = self.static(node)
        if not isinstance(value, int):
            raise self.fail(node, f"{ast.unparse(node)} is neither a local nor a constant int")
        return I64(int(value) & 0xFFFFFFFFFFFFFFFF)

    def on_BinOp(self, node: ast.BinOp) -> ir.Value:
        left, right = self.expression(node.left), self.expression(node.right)
        if isinstance(left, ir.Constant) and isinstance(right, ir.Constant):
            text = ast.Expression(ast.BinOp(ast.Constant(left.constant), node.op, ast.Constant(right.constant)))
            return I64(eval(compile(ast.fix_missing_locations(text), "", "eval")) & 0xFFFFFFFFFFFFFFFF)
        if isinstance(node.op, ast.LShift | ast.RShift):
            return self.shift(isinstance(node.op, ast.LShift), left, right)
        name = _BINARY.get(type(node.op))
        if name is None:
            raise self.fail(node, f"operator {type(node.op).__name__} is not in the subset")
        return getattr(self.b, name)(left, right)

    def shift(self, left: bool, value: ir.Value, count: ir.Value) -> ir.Value:
        """As in Python: a count of 64 or more leaves nothing."""
        operation = self.b.shl if left else self.b.lshr
        if isinstance(count, ir.Constant):
            return operation(value, count) if count.constant < 64 else I64(0)
        inside = self.b.icmp_unsigned("<", count, I64(64))
        return self.b.select(inside, operation(value, self.b.and_(count, I64(63))), I64(0))

    def on_UnaryOp(self, node: ast.UnaryOp) -> ir.Value:
        if isinstance(node.op, ast.Not):
            return self.condition(node)
        value = self.expression(node.operand)
        if isinstance(node.op, ast.USub):
            return I64(-value.constant & 0xFFFFFFFFFFFFFFFF) if isinstance(value, ir.Constant) else self.b.neg(value)
        if isinstance(node.op, ast.Invert):
            return I64(~value.constant & 0xFFFFFFFFFFFFFFFF) if isinstance(value, ir.Constant) else self.b.not_(value)
        raise self.fail(node, "unary operator is not in the subset")

    def on_Compare(self, node: ast.Compare) -> ir.Value:
        if len(node.ops) != 1:
            pairs = [node.left, *node.comparators]
            each: list[ast.expr] = [
                ast.copy_location(ast.Compare(pairs[k], [o], [pairs[k + 1]]), node) for k, o in enumerate(node.ops)
            ]
            return self.condition(ast.copy_location(ast.BoolOp(ast.And(), each), node))
        left, right = self.expression(node.left), self.expression(node.comparators[0])
        name = _COMPARE.get(type(node.ops[0]))
        if name is None:
            raise self.fail(node, "comparison is not in the subset")
        if isinstance(left, ir.Constant) and isinstance(right, ir.Constant):
            table = {"==": left.constant == right.constant, "!=": left.constant != right.constant}
            order = {"<": -1, "<=": 0, ">": 1, ">=": 0}
            known = table.get(name)
            if known is None:
                sign = (left.constant > right.constant) - (left.constant < right.constant)
                known = sign == order[name] or (sign == -1 and name == "<=") or (sign == 1 and name == ">=")
            return I1(known)
        return self.b.icmp_unsigned(name, left, right)

    def on_BoolOp(self, node: ast.BoolOp) -> ir.Value:
        """Short-circuit; yields 0 or 1 (mechanism code uses the truth only)."""
        stop_on = isinstance(node.op, ast.Or)
        end = self.b.append_basic_block("bool")
        incoming: list[tuple[ir.Value, ir.Block]] = []
        for k, part in enumerate(node.values):
            value = self.condition(part)
            incoming.append((value, self.b.block))
            if k == len(node.values) - 1:
                self.b.branch(end)
            else:
                further = self.b.append_basic_block("next")
                self.b.cbranch(value, end if stop_on else further, further if stop_on else end)
                self.b.position_at_end(further)
        self.b.position_at_end(end)
        phi = self.b.phi(I1)
        for value, block in incoming:
            phi.add_incoming(value, block)
        return phi

    def on_IfExp(self, node: ast.IfExp) -> ir.Value:
        condition = self.condition(node.test)
        if isinstance(condition, ir.Constant):
            return self.expression(node.body if condition.constant else node.orelse)
        yes, no, end = (self.b.append_basic_block(n) for n in ("then", "otherwise", "end"))
        self.b.cbranch(condition, yes, no)
        incoming = []
        for block, part in ((yes, node.body), (no, node.orelse)):
            self.b.position_at_end(block)
            value = self.expression(part)
            incoming.append((value, self.b.block))
            self.b.branch(end)
        self.b.position_at_end(end)
        phi = self.b.phi(I64)
        for value, block in incoming:
            phi.add_incoming(value, block)
        return phi

    def word(self, pointer: ir.Value, index: ast.expr) -> ir.Value:
        return self.b.gep(pointer, [self.expression(index)], source_etype=I64)

    def on_Subscript(self, node: ast.Subscript) -> ir.Value:
        if (pointer := self.pointer(node.value)) is not None:
            return self.b.load(self.word(pointer, node.slice), typ=I64)
        data = self.static(node.value)
        if isinstance(data, array):
            variable, size = self.owner.table(data)
            element = ir.IntType(8 * size)
            pointer = self.b.gep(variable, [self.expression(node.slice)], source_etype=element)
            value = self.b.load(pointer, typ=element)
            return value if size == 8 else self.b.zext(value, I64)
        raise self.fail(node, f"{ast.unparse(node.value)} is neither the state nor a table")

    def on_Call(self, node: ast.Call) -> ir.Value:
        if isinstance(node.func, ast.Name) and node.func.id in ("int", "bool"):
            return self.expression(node.args[0])
        function = self.static(node.func)
        if node.keywords:
            raise self.fail(node, "keyword arguments are not in the subset")
        if function in self.owner.lowerings:
            return self.owner.lowerings[function](self, [self.expression(a) for a in node.args])
        if not isinstance(function, FunctionType):
            raise self.fail(node, f"{ast.unparse(node.func)} is not a mechanism function")
        callee = self.owner.declare(function)
        if len(callee.args) != len(node.args):
            raise self.fail(node, f"{symbol(function)} takes {len(callee.args)} arguments")
        return self.b.call(callee, [self.expression(a) for a in node.args])
