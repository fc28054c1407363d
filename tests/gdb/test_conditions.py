"""Conditions of breakpoints that Debian's gdb sends are evaluated by the processor, and mean what gdb means."""

from __future__ import annotations

import ctypes
import operator
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyemu.cpu import conditions as cd
from pyemu.cpu.state import GPR, HOOK_PROGRAMS, HOOK_STACK, HOOK_STACK_WORDS, M64, RAX, RBX, new_state
from pyemu.gdbserver.agent import compile_agent, unpack
from pyemu.gdbserver.session import Session
from pyemu.machine import Machine
from tests.cpu import twins
from tests.gdb.conftest import run_gdb
from tests.gdb.sector import LONG, REAL

FUNCTION = 0x7D70
AGAIN = LONG + 0x22  # the loop that calls it
# In C, and the RBX at which the guest stops: the first above 10 that makes it true.
CONDITIONS = (
    ("$rbx == 20", 20), ("$rbx > 30 && *(long*)0x600 % 7 == 3", 32), ("$rbx == 99 || (char)$rbx == 25", 25),
    ("(char)($rbx + 100) < 0", 28), ("-(long)$rbx < -40", 41), ("(int)-$rbx / 4 == -5", 20), ("!($rbx % 19)", 19),
    ("((int)-$rbx >> 2) == -7", 25), ("$rbx * 2 - 1 == 61", 31), ("(~$rbx & 0xff) == 0xe0", 31),
    ("$rip == 0x7d70 && $rbx >= 33", 33), ("((unsigned char)$rbx ^ 5) == 0x1c", 25),
    ("$rsp == 0x6ff8 && $rbx > 17", 18), ("*(unsigned short*)($rcx + 0) == 22", 23),
    ("$cs == 8 && $cr3 == 0x1000 && $rbx == 44", 44), ("*(short*)($rsp + 6) == 0 && ((char*)$rcx)[0] == 16", 17),
)  # fmt: skip


@pytest.fixture
def stops(machine: Machine) -> list[str]:
    """Of which kind each stop of the guest was."""
    seen: list[str] = []
    machine.stop_listeners.append(lambda stop: seen.append(stop.kind.value))
    return seen


def test_conditions_are_evaluated_where_the_guest_runs(machine: Machine, stops: list[str]) -> None:
    """gdb tests again whatever stops: what is true too early is seen in the number of stops, too late in the values."""
    commands = [f"hbreak *{AGAIN:#x}", "continue", "delete"]
    for condition, _ in CONDITIONS:
        commands += [f"break *{FUNCTION:#x} if {condition}", "set $rbx = 10", "set $rsp = 0x7000"]
        commands += [f"set $rip = {AGAIN:#x}", "continue", "p $rbx", "delete"]
    output = run_gdb(machine, *commands, "kill")
    values = [int(n) for n in re.findall(r"^\$\d+ = (\d+)$", output, re.MULTILINE)]
    assert values == [value for _, value in CONDITIONS], output
    assert stops.count("breakpoint") == len(CONDITIONS) + 1, output


def test_what_only_gdb_can_evaluate(machine: Machine, stops: list[str]) -> None:
    """What gdb can't send, what the processor doesn't know, and what has no value, which gdb reports."""
    output = run_gdb(
        machine, f"hbreak *{AGAIN:#x}", "continue", "delete", f"break *{FUNCTION:#x} if $bl == 9", "continue",
        "p $rbx", "condition 2 $dr0 == 0 && $rbx == 12", "continue", "p $rbx",
        "condition 2 *(char*)0x7fffffff == 1 || $rbx == 15", "continue", "p $rbx", "kill",
    )  # fmt: skip
    assert all(line in output for line in ("$1 = 9", "$2 = 12", "$3 = 13")), output
    assert "Error in testing" in output and "0x7fffffff" in output, output
    assert stops.count("breakpoint") == 1 + 8 + 3 + 1, "gdb lets the guest go on where its condition doesn't hold"


def test_several_breakpoints_at_one_place(machine: Machine, stops: list[str]) -> None:
    """One of the conditions has to hold; with a breakpoint that has none, none is sent."""
    output = run_gdb(
        machine, f"hbreak *{AGAIN:#x}", "continue", "delete", f"break *{FUNCTION:#x} if $rbx == 30",
        f"break *{FUNCTION:#x} if $rbx == 20", f"break *{FUNCTION:#x} if $rbx % 17 == 0", "continue", "p $rbx",
        "continue", "p $rbx", "continue", "p $rbx", f"hbreak *{FUNCTION:#x} if $rbx == 33", "delete 4", "continue",
        "p $rbx", f"tbreak *{FUNCTION:#x}", "continue", "p $rbx", "kill",
    )  # fmt: skip
    assert re.findall(r"^\$\d+ = (\d+)$", output, re.MULTILINE) == ["17", "20", "30", "33", "34"], output
    assert stops.count("breakpoint") == 6, output


def test_32_bit_registers_and_a_code_segment_with_a_base(machine: Machine, stops: list[str]) -> None:
    """gdb's program counter is a linear address."""
    output = run_gdb(
        machine, "monitor architecture auto", "unset tdesc filename",
        f"break *{REAL:#x} if $eip == {REAL:#x} && $cs == 0x7c0", "continue", "p $eip", "kill",
    )  # fmt: skip
    assert f"$1 = (void (*)()) {REAL:#x}" in output and stops.count("breakpoint") == 1, output


def test_packets_with_conditions(session: Session) -> None:
    hooks = session.machine.hooks
    always, never, unknown = b"X3,220127", b"X3,220027", b"X2,9927"
    assert session.handle(b"Z0,7c00,1;" + always + never) == b"OK"
    (first,) = hooks.all
    assert first.program
    assert session.handle(b"Z0,7c00,1;" + always + never) == b"OK" and hooks.all == [first]
    assert session.handle(b"Z0,7c00,1;" + never) == b"OK" and hooks.all != [first]
    assert session.handle(b"Z0,7c00,1;" + unknown) == b"OK" and not hooks.all[0].program
    for bad in (b"X", b"X9,2201", b"X1,zz", b"X1,1", b"Y", b"X3,220127,", b"cmds:0,X3,220127"):
        assert session.handle(b"Z0,7c00,1;" + bad) == b"E16"
    assert session.handle(b"z0,7c00,1") == b"OK" and not hooks.all
    long = b"X%x,%b27" % (2 + 900 + 1, b"2201" + b"0e" * 900)
    assert [session.handle(b"Z0,%x,1;%b" % (0x7C00 + n, long)) for n in range(4)] == [b"OK"] * 4
    assert [bool(hook.program) for hook in hooks.all] == [True, True, False, False], "no room: gdb tests for itself"


def test_unpacking() -> None:
    assert unpack(b"") == [] and unpack(b";X3,220127X2,2727;X0,") == [b"\x22\x01\x27", b"\x27\x27", b""]


# ---- expressions ---------------------------------------------------------------------------------------------------
NAMES = {0: "rax", 1: "rbx", 2: "rflags", 3: "nonsense"}
END = b"\x27"


def signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _toward_zero(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


Meaning = Callable[..., int]
BINARY: dict[int, Meaning] = {
    0x02: operator.add, 0x03: operator.sub, 0x04: operator.mul, 0x06: operator.floordiv, 0x08: operator.mod,
    0x05: lambda a, b: _toward_zero(signed(a), signed(b)),
    0x07: lambda a, b: signed(a) - _toward_zero(signed(a), signed(b)) * signed(b),
    0x09: lambda a, b: a << min(b, 64), 0x0A: lambda a, b: signed(a) >> min(b, 64), 0x0B: lambda a, b: a >> min(b, 64),
    0x0F: operator.and_, 0x10: operator.or_, 0x11: operator.xor, 0x13: operator.eq,
    0x14: lambda a, b: signed(a) < signed(b), 0x15: operator.lt,
}  # fmt: skip
UNARY: dict[int, Meaning] = {0x0E: operator.not_, 0x12: operator.invert}


def _extended(value: int, width: int, sign: bool) -> int:
    low = value & (1 << width) - 1
    return low - (1 << width) if sign and low >> width - 1 else low


Tree = tuple[Any, ...]
_LEAVES = st.one_of(
    st.tuples(st.just("const"), st.sampled_from([1, 2, 4, 8]), st.integers(0, M64)),
    st.tuples(st.just("reg"), st.integers(0, 1)),
)
TREES: st.SearchStrategy[Tree] = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from([*BINARY]), inner, inner),
        st.tuples(st.sampled_from([*UNARY]), inner),
        st.tuples(st.sampled_from(["ext", "zero_ext"]), st.integers(1, 64), inner),
        st.tuples(st.just("if"), inner, inner, inner),
        st.tuples(st.just("swapped"), st.sampled_from([*BINARY]), inner, inner),
        st.tuples(st.just("double"), inner),
        st.tuples(st.just("dropped"), inner, inner),
    ),
    max_leaves=12,
)


def assemble(tree: Tree, at: int = 0) -> bytes:
    """Agent code that leaves its value, to stand at a byte."""
    match tree:
        case ("const", int(size), int(value)):
            return bytes((0x22 + size.bit_length() - 1,)) + (value & (1 << 8 * size) - 1).to_bytes(size, "big")
        case ("reg", int(number)):
            return b"\x26" + number.to_bytes(2, "big")
        case ("if", condition, yes, no):
            test = assemble(condition, at)
            otherwise = assemble(no, at + len(test) + 3)
            start = at + len(test) + len(otherwise) + 6
            then = assemble(yes, start)
            end = (start + len(then)).to_bytes(2, "big")
            return test + b"\x20" + start.to_bytes(2, "big") + otherwise + b"\x21" + end + then
        case ("ext" | "zero_ext" as how, width, inner):
            return assemble(inner, at) + bytes((0x16 if how == "ext" else 0x2A, width))
        case ("swapped", code, a, b):
            first = assemble(b, at)
            return first + assemble(a, at + len(first)) + bytes((0x2B, code))
        case ("double", inner):
            return assemble(inner, at) + b"\x28\x02"
        case ("dropped", kept, lost):
            first = assemble(kept, at)
            return first + assemble(lost, at + len(first)) + b"\x29"
        case (code, inner):
            return assemble(inner, at) + bytes((code,))
        case (code, a, b):
            first = assemble(a, at)
            return first + assemble(b, at + len(first)) + bytes((code,))
    raise AssertionError(tree)


def value_of(tree: Tree, registers: tuple[int, int]) -> int:
    """By the gdb manual's words; ZeroDivisionError where there is none."""
    match tree:
        case ("const", size, value):
            return int(value & (1 << 8 * size) - 1)
        case ("reg", number):
            return registers[number]
        case ("if", condition, yes, no):
            return value_of(yes if value_of(condition, registers) else no, registers)
        case ("ext" | "zero_ext" as how, width, inner):
            return _extended(value_of(inner, registers), width, how == "ext") & M64
        case ("swapped", code, a, b):
            second, first = value_of(b, registers), value_of(a, registers)
            return int(BINARY[code](first, second)) & M64
        case ("double", inner):
            return 2 * value_of(inner, registers) & M64
        case ("dropped", kept, lost):
            result = value_of(kept, registers)
            value_of(lost, registers)
            return result
        case (code, inner):
            return int(UNARY[code](value_of(inner, registers))) & M64
        case (code, a, b):
            first, second = value_of(a, registers), value_of(b, registers)
            return int(BINARY[code](first, second)) & M64
    raise AssertionError(tree)


def is_true(trees: list[Tree], registers: tuple[int, int]) -> bool:
    try:
        return any(value_of(tree, registers) for tree in trees)
    except ZeroDivisionError:
        return True  # gdb shall find out


_RAM = ctypes.create_string_buffer(4096)


@settings(deadline=None)
@given(trees=st.lists(TREES, min_size=1, max_size=3), rax=st.integers(0, M64), rbx=st.integers(0, M64))
@example([(0x05, ("reg", 0), ("reg", 1))], 1 << 63, M64)  # the quotient doesn't fit
@example([(0x07, ("reg", 0), ("reg", 1))], 1 << 63, M64)
@example([("if", ("reg", 0), ("reg", 0), ("reg", 1)), ("reg", 1)], 0, 5)
def test_python_and_native_code_evaluate_it(trees: list[Tree], rax: int, rbx: int) -> None:
    program = compile_agent([assemble(tree) + END for tree in trees], NAMES.__getitem__)
    assert program is not None
    for make in (twins.python, twins.native):
        s = new_state()
        keep = twins.attach(s, _RAM)
        s[GPR + RAX], s[GPR + RBX] = rax, rbx
        s[HOOK_PROGRAMS + 1 : HOOK_PROGRAMS + 1 + len(program)] = list(program)
        assert make(cd.holds)(s, 1) == is_true(trees, (rax, rbx)), make
        del keep


_PIECES = st.sampled_from([*(bytes((code,)) for code in range(0x30)), b"\x22\x05", b"\x26\x00\x01", b"\x20\x00\x08"])


@settings(deadline=None)
@given(codes=st.lists(st.lists(_PIECES, max_size=30).map(b"".join), min_size=1, max_size=3))
def test_any_bytes_end_and_stay_on_the_stack(codes: list[bytes]) -> None:
    program = compile_agent([code + END for code in codes], NAMES.__getitem__)
    if program is not None:
        s = new_state()
        keep = twins.attach(s, _RAM)
        around = [*range(HOOK_STACK - 16, HOOK_STACK), *range(HOOK_STACK + HOOK_STACK_WORDS, HOOK_PROGRAMS + 1)]
        before = [s[n] for n in around]
        s[HOOK_PROGRAMS + 1 : HOOK_PROGRAMS + 1 + len(program)] = list(program)
        assert cd.holds(s, 1) in (0, 1)
        assert [s[n] for n in around] == before
        del keep


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "nothing"), ("27", "nothing on the stack"), ("0227", "too little on the stack"), ("2201", "no end"),
        ("2227", "an end that is an operand"), ("2201270127", "an end in the middle"), ("2201220227", "too much left"),
        ("220121000027", "a jump back"), ("220121006327", "a jump out"), ("220121000727", "a jump into an operand"),
        ("26000327", "an unknown register"), ("26000927", "a register that isn't there"), ("22012600", "a cut operand"),
        ("2200" * (HOOK_STACK_WORDS + 1) + "29" * HOOK_STACK_WORDS + "27", "too deep"), ("22013000011727", "tracing"),
        ("2201160027", "a width of none"), ("2201164127", "a width of 65"), ("2201" + "0e" * 2000 + "27", "too long"),
        ("2201220120000a220222030227", "depths differ"), ("22012100069927", "a jump over what isn't known"),
    ],
)  # fmt: skip
def test_what_is_left_to_gdb(text: str, why: str) -> None:
    good = bytes.fromhex("220127")
    assert compile_agent([good, good], NAMES.__getitem__) is not None
    assert compile_agent([bytes.fromhex(text)], NAMES.__getitem__) is None, why
    assert compile_agent([good, bytes.fromhex(text), good], NAMES.__getitem__) is None, why
