"""Breakpoints, watchpoints and hooks: a boot sector on every back end."""

from __future__ import annotations

import ast
import ctypes
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keystone
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyemu.conditions import ConditionError, compile_condition
from pyemu.cpu import conditions as cpu_conditions
from pyemu.cpu.state import GPR, HOOK_PROGRAMS, M64, RAX, RBX, new_state
from pyemu.hook_events import Access
from pyemu.hooks import HookError
from pyemu.machine import Machine
from pyemu.until import Instructions, StopKind
from tests.cpu import twins

ORIGIN = 0x7C00
LINES = {
    "start": "xor ax, ax; mov ds, ax; mov es, ax; mov ss, ax; mov sp, 0x7c00; cli",
    "vectors": "mov word ptr [0x80], 0x7d00; mov word ptr [0x82], ax; mov word ptr [0x600], ax",
    "count": "mov cx, 1000",
    "loop": "inc word ptr [0x600]",
    "load": "mov bx, [0x602]",
    "again": "dec cx; jnz 0x7c1b",
    "fill": "mov di, 0x700; mov cx, 20; mov al, 7",
    "rep": "rep stosb",
    "int": "int 0x20",
    "port": "out 0x80, al; in al, 0x81",
    "watched": "mov eax, 0x610; mov dr0, eax; mov eax, 0xf0001; mov dr7, eax",
    "end": "jmp 0x7c48",
}
BACKENDS = ("reference", "interp", "jit")


def _assemble() -> tuple[bytes, dict[str, int]]:
    """The sector, and where its lines are."""
    assembler, code, places = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_16), b"", {}
    for name, text in LINES.items():
        places[name] = ORIGIN + len(code)
        code += bytes(assembler.asm(text, places[name])[0] or ())
    return (code.ljust(0x100, b"\0") + b"\xcf").ljust(510, b"\0") + b"\x55\xaa", places


SECTOR, AT = _assemble()
assert (AT["loop"], AT["end"]) == (0x7C1B, 0x7C48), {name: hex(at) for name, at in AT.items()}


@pytest.fixture(params=BACKENDS)
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    sector = tmp_path / "sector"
    sector.write_bytes(SECTOR)
    with Machine(kernel=str(sector), memory="16M", accelerator=request.param) as made:
        yield made


def run(machine: Machine) -> Any:
    stop = machine.run(timeout=60)
    assert stop.kind is not StopKind.TIMEOUT
    return stop


def finish(machine: Machine) -> int:
    """Run to the end; gives the instruction count there."""
    machine.run(until=AT["end"], timeout=60)
    assert machine.regs.rip == AT["end"]
    return machine.instructions


COUNT = 6 + 3 + 1 + 4 * 1000 + 3 + 20 + 2 + 2 + 4


def test_without_hooks(machine: Machine) -> None:
    assert finish(machine) == COUNT


def test_stops_before_the_instruction_each_time(machine: Machine) -> None:
    hook = machine.breakpoint(AT["load"])
    for n in range(1, 4):
        stop = run(machine)
        assert (stop.kind, stop.hook, stop.event.address) == (StopKind.BREAKPOINT, hook, AT["load"])
        assert (machine.regs.rip, machine.instructions, hook.hits) == (AT["load"], 10 + 4 * (n - 1) + 1, n)
    hook.remove()
    hook.remove()
    assert finish(machine) == COUNT


def test_conditions_hold_or_nothing_is_seen(machine: Machine) -> None:
    hook = machine.breakpoint(AT["load"], "cx == 500 and mem16[0x600] == 501 and not rax and rip == " + str(AT["load"]))
    never = machine.breakpoint(AT["load"], "mem64[0x600] > 1 << 63 or rdx // 0")
    assert run(machine).hook is hook
    assert (machine.regs.rcx & 0xFFFF, hook.hits, never.hits) == (500, 1, 0)
    python = machine.breakpoint(AT["loop"], lambda m: m.regs.rcx & 0xFFFF == 7)
    assert run(machine).hook is python
    assert machine.regs.rcx & 0xFFFF == 7
    assert finish(machine) == COUNT


def test_temporary_and_with_an_action(machine: Machine) -> None:
    seen: list[int] = []
    hook = machine.breakpoint(AT["load"], temporary=True)
    counting = machine.breakpoint(AT["load"], action=lambda event: seen.append(event.address))
    assert run(machine).hook is hook
    assert not hook.active
    assert finish(machine) == COUNT
    assert (counting.hits, seen) == (1000, [AT["load"]] * 1000)


def test_takes_effect_in_code_already_translated(machine: Machine) -> None:
    machine.run(until=Instructions(1000), timeout=60)
    hook = machine.breakpoint(AT["load"])
    run(machine)
    assert machine.regs.rip == AT["load"]
    hook.remove()
    machine.run(until=Instructions(1000), timeout=60)
    again = machine.breakpoint(AT["loop"])
    run(machine)
    assert (machine.regs.rip, again.hits, hook.hits) == (AT["loop"], 1, 1)
    again.remove()
    assert finish(machine) == COUNT


def test_a_hook_may_change_hooks(machine: Machine) -> None:
    watch: list[Any] = []

    def first(_event: object) -> None:
        here.remove()
        watch.append(machine.watchpoint(0x600, 2, "r"))
        watch.append(machine.breakpoint(AT["again"], "cx < 990"))

    here = machine.breakpoint(AT["load"], "cx == 995", action=first)
    stop = run(machine)
    assert (stop.hook, machine.regs.rcx & 0xFFFF, machine.regs.rip) == (watch[0], 994, AT["load"])
    watch[0].remove()
    assert run(machine).hook is watch[1]
    assert machine.regs.rcx & 0xFFFF == 989


def test_set_from_another_thread_while_it_runs(machine: Machine) -> None:
    finish(machine)
    machine.start()
    hook = machine.breakpoint(AT["end"])
    assert machine._stopped.wait(60)
    assert (machine.regs.rip, machine._last_stop.hook) == (AT["end"], hook)
    hook.remove()
    machine.start()
    threads = [threading.Thread(target=lambda: machine.breakpoint(0x100).remove()) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


@pytest.mark.parametrize(("access", "length"), [("w", 2), ("rw", 1), ("w", 0x10000)])
def test_watchpoint_on_writes(machine: Machine, access: str, length: int) -> None:
    machine.run(until=AT["count"], timeout=60)
    hook = machine.watchpoint(0x600, length, access, "write")
    for n in range(3):
        stop = run(machine)
        assert stop.kind is StopKind.WATCHPOINT
        assert stop.event == Access(0x600, 2, True, n + 1, n, AT["loop"])
        assert (machine.regs.rip, machine.instructions) == (AT["load"], 10 + 4 * n + 1)
    assert machine.memory.read(0x600, 2) == b"\3\0"
    hook.remove()
    assert finish(machine) == COUNT


def test_watchpoint_on_reads(machine: Machine) -> None:
    hook = machine.watchpoint(0x603, 1, "r", "cx == 700")
    stop = run(machine)
    assert (stop.hook, stop.event) == (hook, Access(0x602, 2, False, 0, None, AT["load"]))
    assert (machine.regs.rip, machine.regs.rcx & 0xFFFF, hook.hits) == (AT["again"], 700, 1)
    assert finish(machine) == COUNT


def test_neighbours_are_not_hit(machine: Machine) -> None:
    hooks = [machine.watchpoint(0x5FE, 2, "rw"), machine.watchpoint(0x604, 0xF0, "rw")]
    finish(machine)
    assert [hook.hits for hook in hooks] == [0, 0]


def test_watchpoint_at_a_physical_address(machine: Machine) -> None:
    machine.run(until=AT["loop"], timeout=60)
    machine.watchpoint(0x600, 1, physical=True, condition="value >= 300")
    assert run(machine).event.value == 300


def test_repetition_is_one_instruction_for_breakpoints_and_many_accesses(machine: Machine) -> None:
    hook = machine.breakpoint(AT["rep"])
    watch = machine.watchpoint(0x709, 3, "w")
    assert run(machine).hook is hook
    for n in range(3):
        stop = run(machine)
        assert (stop.hook, stop.event.address, machine.regs.rcx & 0xFFFF) == (watch, 0x709 + n, 10 - n)
        assert machine.regs.rip == AT["rep"]
    assert finish(machine) == COUNT
    assert hook.hits == 1


def test_every_instruction_of_a_range(machine: Machine) -> None:
    seen: list[int] = []
    hook = machine.hook_code(lambda event: seen.append(event.address), AT["loop"], AT["fill"])
    assert finish(machine) == COUNT
    assert len(seen) == hook.hits == 4000
    assert seen[:5] == [AT["loop"], AT["load"], AT["again"], AT["again"] + 1, AT["loop"]]


def test_blocks(machine: Machine) -> None:
    seen: list[int] = []
    machine.hook_block(lambda event: seen.append(event.address), AT["loop"], AT["int"])
    assert finish(machine) == COUNT
    assert [at for at in seen if at != AT["rep"]] == [AT["loop"]] * 999 + [AT["fill"]]


def test_memory_ports_and_interrupts(machine: Machine) -> None:
    memory: list[Access] = []
    ports: list[Access] = []
    events: list[tuple[str, int, int]] = []
    machine.hook_memory(memory.append, 0x602, 0x604, "r", "cx & 0xff == 9 and size == 2")
    machine.hook_port(ports.append, 0x80, 0x81)
    machine.hook_software_interrupt(lambda e: events.append((e.kind, e.number, e.rip)), 0x20, 0x21)
    machine.hook_software_interrupt(lambda e: events.append(("other", 0, 0)), 0x22)
    assert finish(machine) == COUNT
    assert memory == [Access(0x602, 2, False, 0, None, AT["load"])] * 4
    assert [(p.address, p.size, p.write) for p in ports] == [(0x80, 1, True), (0x81, 1, False)]
    assert events == [("software interrupt", 0x20, AT["port"])]


def test_a_hook_stops_the_guest(machine: Machine) -> None:
    hook = machine.hook_port(lambda access: access.write, 0x80)
    stop = run(machine)
    assert (stop.kind, stop.hook, machine.regs.rip) == (StopKind.HOOK, hook, AT["port"] + 2)
    assert finish(machine) == COUNT


def test_the_guests_own_debug_registers_are_not_touched(machine: Machine) -> None:
    """Its breakpoint in the page stays when the debugger's goes."""
    finish(machine)
    exceptions: list[int] = []

    def stop(event: Any) -> bool:
        exceptions.append(event.number)
        return True

    machine.hook_exception(stop, 1)
    machine.memory.write(0x800, bytes.fromhex("a11006 a10006 ebf8"))  # mov ax, [0x610]; mov ax, [0x600]; jmp
    watch = machine.watchpoint(0x600, 2, "r")
    machine.regs.rip = 0x800
    assert run(machine).kind is StopKind.HOOK  # #DB after the first
    assert exceptions == [1]
    machine.regs.rip = 0x803
    assert run(machine).hook is watch
    watch.remove()
    machine.regs.rip = 0x803
    assert run(machine).kind is StopKind.HOOK
    assert exceptions == [1, 1]


def test_many_random_breakpoints_never_change_the_count(machine: Machine) -> None:
    chosen = random.Random(5).sample(range(ORIGIN, AT["end"]), 40)
    hooks = [machine.breakpoint(at, action=lambda _: None) for at in chosen]
    assert finish(machine) == COUNT
    assert sum(hook.hits for hook in hooks) > 1000


def test_mistakes_are_named(machine: Machine) -> None:
    for what, message in (
        (lambda: machine.watchpoint(0, 1, "x"), "unknown access 'x'"),
        (lambda: machine.watchpoint(5, 0), "not a range"),
        (lambda: machine.breakpoint(1 << 64), "can't be the address"),
        (lambda: machine.breakpoint("main"), "unknown symbol 'main'"),
        (lambda: machine.breakpoint(5, "rax = 5"), "not an expression"),
        (lambda: machine.breakpoint(5, "value == 1"), "'value' is neither a register nor a known symbol"),
        (lambda: machine.breakpoint(5, "rax.real"), "'rax.real' is not understood"),
        (lambda: [machine.watchpoint(n, 1) for n in range(33)], "at most 32 watched ranges"),
    ):
        with pytest.raises((HookError, ConditionError), match=message):
            what()


# ---- conditions, in both of their forms ----------------------------------------------------------------------------
_LEAVES = st.one_of(
    st.sampled_from(["rax", "rbx", "ax", "bh"]), st.integers(0, M64).map(str), st.integers(0, 70).map(str)
)
_EXPRESSIONS = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+ - * & | ^ << >> // %".split()), inner).map(lambda t: f"({' '.join(t)})"),
        st.tuples(inner, st.sampled_from("== != < <= > >=".split()), inner).map(lambda t: f"({' '.join(t)})"),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda t: f"({' '.join(t)})"),
        st.tuples(st.sampled_from(["not ", "-", "~"]), inner).map(lambda t: f"({''.join(t)})"),
    ),
    max_leaves=8,
)


_RAM = (ctypes.c_char * 0x10000)()


def _expected(text: str, rax: int, rbx: int) -> bool:
    """What Python makes of the expression, modulo 2^64."""
    names = {"rax": rax, "rbx": rbx, "ax": rax & 0xFFFF, "bh": rbx >> 8 & 0xFF}

    def value(node: ast.expr) -> int:
        match node:
            case ast.Constant(value=int(number)):
                return int(number)
            case ast.Name(id=name):
                return names[name]
            case ast.BoolOp(op=op, values=[a, b]):
                first = value(a)
                return value(b) if bool(first) == isinstance(op, ast.And) else first
            case ast.Compare(left=a, ops=[op], comparators=[b]):
                tests: dict[type, Callable[[int, int], bool]] = {
                    ast.Eq: lambda x, y: x == y, ast.NotEq: lambda x, y: x != y, ast.Lt: lambda x, y: x < y,
                    ast.LtE: lambda x, y: x <= y, ast.Gt: lambda x, y: x > y, ast.GtE: lambda x, y: x >= y,
                }  # fmt: skip
                return int(tests[type(op)](value(a), value(b)))
            case ast.UnaryOp(op=ast.Not(), operand=a):
                return int(not value(a))
            case ast.UnaryOp(op=op, operand=a):
                return (-value(a) if isinstance(op, ast.USub) else ~value(a)) & M64
            case ast.BinOp(left=a, op=op, right=b):
                x, y = value(a), value(b)
                if isinstance(op, ast.LShift | ast.RShift):
                    return 0 if y > 63 else (x << y if isinstance(op, ast.LShift) else x >> y) & M64
                operation: dict[type, Callable[[int, int], int]] = {
                    ast.Add: lambda x, y: x + y, ast.Sub: lambda x, y: x - y, ast.Mult: lambda x, y: x * y,
                    ast.BitAnd: lambda x, y: x & y, ast.BitOr: lambda x, y: x | y, ast.BitXor: lambda x, y: x ^ y,
                    ast.FloorDiv: lambda x, y: x // y, ast.Mod: lambda x, y: x % y,
                }  # fmt: skip
                return operation[type(op)](x, y) & M64
        raise AssertionError(ast.dump(node))

    try:
        return bool(value(ast.parse(text, mode="eval").body))
    except ZeroDivisionError:
        return False


@settings(deadline=None)
@given(text=_EXPRESSIONS, rax=st.integers(0, M64), rbx=st.integers(0, M64))
def test_conditions_are_pythons_expressions(text: str, rax: int, rbx: int) -> None:
    program = compile_condition(text)
    results = []
    for make in (twins.python, twins.native):
        s = new_state()
        keep = twins.attach(s, _RAM)
        s[GPR + RAX], s[GPR + RBX] = rax, rbx
        s[HOOK_PROGRAMS + 1 : HOOK_PROGRAMS + 1 + len(program)] = list(program)
        results.append(make(cpu_conditions.holds)(s, 1))
        del keep
    assert results == [int(_expected(text, rax, rbx))] * 2
