"""The integer families in 64-bit mode against the host's processor."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cpu.semantics import oracle
from tests.cpu.semantics.oracle import Operands

# destination, source by width
_PAIRS = (
    ("al", "cl"), ("ah", "cl"), ("byte ptr [rdi + 5]", "dh"), ("al", "byte ptr [rdi + 3]"), ("bl", "0x85"),
    ("ax", "cx"), ("word ptr [rdi + 5]", "dx"), ("bx", "word ptr [rdi + 3]"), ("cx", "0x8765"), ("cx", "-3"),
    ("eax", "ecx"), ("dword ptr [rdi + 5]", "edx"), ("ebx", "dword ptr [rdi + 3]"), ("ecx", "0x87654321"), ("ecx", "-3"),
    ("rax", "rcx"), ("qword ptr [rdi + 5]", "rdx"), ("rbx", "qword ptr [rdi + 3]"), ("rax", "-0x12345678"), ("rdx", "rdx"),
)  # fmt: skip
_PLACES = (
    "al",
    "ch",
    "byte ptr [rdi + 1]",
    "ax",
    "word ptr [rdi + 1]",
    "eax",
    "dword ptr [rdi + 1]",
    "rax",
    "qword ptr [rdi + 1]",
)
_CONDITIONS = "o no b ae e ne be a s ns p np l ge le g".split()

ALU = [f"{name} {a}, {b}" for name in "add or adc sbb and sub xor cmp".split() for a, b in _PAIRS]
ALU += [f"test {a}, {b}" for a, b in _PAIRS if "ptr" not in b and b != "-3"]
ALU += [f"{name} {place}" for name in "inc dec neg not".split() for place in _PLACES]
ALU += [
    f"{name} {a}, {b}"
    for name in "cmpxchg xadd xchg".split()
    for a, b in _PAIRS
    if "ptr" not in b and not b[-1].isdigit() and (a, b) != ("ah", "cl")
]
ALU += [
    "cmpxchg8b [rdi + 8]",
    "cmpxchg16b [rdi + 16]",
    "cmpxchg ecx, edx",
    "xadd rcx, rcx",
    "xadd ecx, ecx",
    "xchg eax, ecx",
]

MOVES = [f"mov {a}, {b}" for a, b in _PAIRS] + [
    "mov rax, 0x123456789abcdef0",
    "lea eax, [rbx + rcx*4 + 5]",
    "lea rax, [rcx + rdx*8]",
]
MOVES += [
    "lea ax, [rcx + rdx]",
    "lea rax, [ecx + edx*2 - 7]",
    "movbe eax, [rdi + 3]",
    "movbe [rdi], cx",
    "movbe rdx, [rdi + 1]",
]
MOVES += [
    f"{name} {a}, {b}"
    for name in ("movzx", "movsx")
    for a in ("ax", "eax", "rax")
    for b in ("cl", "byte ptr [rdi + 2]")
]
MOVES += [
    f"{name} {a}, {b}" for name in ("movzx", "movsx") for a in ("eax", "rax") for b in ("cx", "word ptr [rdi + 2]")
]
MOVES += ["movsxd rax, ecx", "movsxd rax, dword ptr [rdi]", "cbw", "cwde", "cdqe", "cwd", "cdq", "cqo", "lahf", "sahf"]
MOVES += ["cmc", "clc", "stc", "nop", "pause", "hex 0f1f4000", "hex f30f1efa", "hex 6690", "xchg eax, eax", "bswap eax"]
MOVES += ["bswap rcx", "cld"]
MOVES += [
    f"cmov{c} {a}, {b}" for c in _CONDITIONS for a, b in (("eax", "ecx"), ("rbx", "qword ptr [rdi]"), ("ax", "dx"))
]
MOVES += [f"set{c} {a}" for c in _CONDITIONS for a in ("al", "byte ptr [rdi]")]

SHIFTS = [
    f"{name} {place}, {count}"
    for name in "rol ror rcl rcr shl shr sar".split()
    for place in _PLACES
    for count in ("1", "cl", "3", "17")
    if not (place == "ch" and count == "cl")
]
SHIFTS += [f"{name} {a}, {b}, {c}" for name in ("shld", "shrd") for c in ("1", "5", "cl", "13")
           for a, b in (("eax", "edx"), ("rax", "rdx"), ("dword ptr [rdi + 3]", "ebx"), ("qword ptr [rdi]", "rbx"))]  # fmt: skip
SHIFTS += [f"{name} {a}, dx, {c}" for name in ("shld", "shrd") for c in ("1", "7", "15", "16", "17", "21", "31", "cl")
           for a in ("ax", "word ptr [rdi + 3]")]  # fmt: skip
SHIFTS += [f"{name} {a}, {c}" for name in ("rcl", "rcr", "rol", "shl", "sar") for a, c in
           (("al", "9"), ("al", "18"), ("al", "8"), ("bl", "27"), ("ax", "16"), ("bx", "17"), ("eax", "31"), ("rax", "63"))]  # fmt: skip

MULTIPLY = [f"{name} {place}" for name in ("mul", "imul") for place in _PLACES]
MULTIPLY += [f"imul {a}, {b}" for a, b in _PAIRS if a[0] != "[" and "ptr" not in a and a not in ("al", "ah", "bl")]
MULTIPLY += ["imul eax, ecx, -77", "imul rax, qword ptr [rdi], 0x1234567", "imul ax, dx, 300"]

BITS = [f"{name} {a}, {b}" for name in "bt bts btr btc".split() for a, b in
        (("ax", "cx"), ("eax", "ecx"), ("rax", "rcx"), ("rax", "43"), ("eax", "31"), ("dword ptr [rdi + 4]", "27"),
         ("qword ptr [rdi + 8]", "61"), ("word ptr [rdi + 1]", "9"))]  # fmt: skip
BITS += [f"{name} {a}, {b}" for name in "bsf bsr popcnt lzcnt tzcnt".split() for a, b in
         (("ax", "cx"), ("eax", "ecx"), ("rax", "rcx"), ("rdx", "qword ptr [rdi]"), ("ebx", "dword ptr [rdi + 1]"))]  # fmt: skip
BITS += [f"crc32 {a}, {b}" for a, b in
         (("eax", "cl"), ("eax", "cx"), ("eax", "ecx"), ("rax", "rcx"), ("edx", "byte ptr [rdi + 1]"), ("rdx", "qword ptr [rdi]"))]  # fmt: skip
BITS += ["movnti [rdi], eax", "movnti [rdi + 8], rcx"]
BITS += [f"{name} {a}, {b}" for name in ("adcx", "adox") for a, b in
         (("eax", "ecx"), ("rax", "rcx"), ("edx", "dword ptr [rdi + 1]"), ("rdx", "qword ptr [rdi]"), ("rcx", "rcx"))]  # fmt: skip
BITS += [f"{name} [rdi + 1]" for name in ("clflush", "clflushopt", "clwb", "prefetchw")]


@pytest.mark.parametrize("text", ALU + MOVES + SHIFTS + MULTIPLY + BITS)
def test_same_as_host(text: str) -> None:
    @settings(max_examples=8, deadline=None, database=None, derandomize=True, phases=oracle.PHASES)
    @given(oracle.scalars())
    def body(given: Operands) -> None:
        oracle.check(text, given)

    body()


@pytest.mark.parametrize("name", ["bt", "bts", "btr", "btc"])
@pytest.mark.parametrize("register", ["cx", "ecx", "rcx"])
def test_bit_beyond_operand(name: str, register: str) -> None:
    """A register bit number reaches bytes before and after the operand."""
    size = {"cx": "word", "ecx": "dword", "rcx": "qword"}[register]

    @settings(max_examples=8, deadline=None, database=None, derandomize=True, phases=oracle.PHASES)
    @given(oracle.scalars(), st.integers(-400, 400))
    def body(given: Operands, bit: int) -> None:
        gpr = (given.gpr[0], bit & oracle.M64, *given.gpr[2:])
        text = f"{name} {size} ptr [rdi + 56], {register}"
        oracle.check(text, Operands(gpr, given.flags, given.xmm, given.mm, given.mxcsr, given.memory))

    body()


@pytest.mark.parametrize("name", ["div", "idiv"])
@pytest.mark.parametrize("divisor", ["bl", "bx", "ebx", "rbx", "dword ptr [rdi]", "qword ptr [rdi]"])
def test_division(name: str, divisor: str) -> None:
    """Quotients that fit: the dividend is made from a quotient, a divisor and a rest."""
    width = {"l": 8, "bx": 16, "eb": 32, "dw": 32, "rb": 64, "qw": 64}.get(divisor[:2], 8)

    @settings(max_examples=25, deadline=None, database=None, derandomize=True, phases=oracle.PHASES)
    @given(oracle.scalars(), oracle.integers64, oracle.integers64, oracle.integers64)
    def body(given: Operands, quotient: int, by: int, rest: int) -> None:
        mask = (1 << width) - 1
        q, d = quotient & mask, by & mask or 1
        if name == "idiv":
            q, d = (x - (1 << width) if x >> (width - 1) else x for x in (q, d))
        dividend = q * d + (rest % abs(d) if (q * d >= 0) else -(rest % abs(d)))
        if not -(1 << (2 * width - 1)) <= dividend < (1 << (2 * width - (name == "idiv"))):
            return
        if q == 0 and name == "div":
            dividend = rest % d
        dividend &= (1 << 2 * width) - 1
        rax, rcx, rdx, rbx = given.gpr
        if width == 8:
            rax = rax & ~0xFFFF | dividend
        else:
            rax, rdx = rax & ~mask | dividend & mask, rdx & ~mask | dividend >> width
        value = d & mask
        memory = value.to_bytes(8, "little") + given.memory[8:]
        rbx = rbx & ~mask | value
        oracle.check(
            f"{name} {divisor}", Operands((rax, rcx, rdx, rbx), given.flags, given.xmm, given.mm, given.mxcsr, memory)
        )

    body()
