"""Sequences of instructions that write, keep and read flags: translated as one block, they leave what the host leaves.

One instruction at a time, nobody would see that the translator takes a flag write for dead that isn't. Only
instructions whose flags are all defined are here, or kept, so that any x86-64 host can judge.
"""

from __future__ import annotations

import random

import pytest

from pyemu.cpu import flags as fl
from pyemu.cpu.host import Exit
from pyemu.cpu.state import GPR, ICOUNT, ICOUNT_LIMIT, RDI, RIP
from tests.cpu.semantics import oracle
from tests.cpu.semantics.machines import CODE, DATA, JUMP_TO_SELF, Machine
from tests.cpu.semantics.vector_oracle import assemble

SEQUENCES, LONGEST = 150, 10
REGISTERS = {8: ("al", "cl", "dl", "bl"), 32: ("eax", "ecx", "edx", "ebx"), 64: ("rax", "rcx", "rdx", "rbx")}
MEMORY = {8: "byte ptr [rdi + 5]", 32: "dword ptr [rdi + 8]", 64: "qword ptr [rdi + 16]"}
PLAIN = "add sub adc sbb cmp inc dec neg cmc clc stc mov set cmov rol ror rcl rcr shl shr sar lea not xadd".split()
CONDITIONS = "o no b nb z nz be a s ns p np l ge le g".split()


def instruction(r: random.Random) -> str:
    """One instruction; counts are 0 or 1, for which all flags are defined."""
    name, width = r.choice(PLAIN), r.choice((8, 32, 64))
    a, b = r.choice(REGISTERS[width]), r.choice(REGISTERS[width])
    place = MEMORY[width] if r.random() < 0.2 else a
    match name:
        case "inc" | "dec" | "neg" | "not":
            return f"{name} {place}"
        case "cmc" | "clc" | "stc":
            return name
        case "set":
            return f"set{r.choice(CONDITIONS)} {r.choice(REGISTERS[8])}"
        case "cmov":
            return f"cmov{r.choice(CONDITIONS)} {r.choice(REGISTERS[64])}, {r.choice(REGISTERS[64])}"
        case "rol" | "ror" | "rcl" | "rcr" | "shl" | "shr" | "sar":
            return f"{name} {place}, {r.choice((0, 1, 1))}"
        case "lea":
            return f"lea {r.choice(REGISTERS[64])}, [rax + 2*rcx + 3]"
        case "xadd":
            return f"xadd {place}, {b}"
    return f"{name} {place}, {r.choice((b, str(r.randrange(-128, 128))))}"


def encode(text: str) -> bytes:
    """Shifts by a count of 1 in both encodings: with the immediate too, which assemblers avoid."""
    code = assemble(text)
    if text.endswith(", 1") and text[:3] in ("rol", "ror", "rcl", "rcr", "shl", "shr", "sar"):
        at = 1 if code[0] in (0x40, 0x48) else 0
        if code[at] in (0xD0, 0xD1) and sum(code) & 1:
            return code[:at] + bytes([code[at] - 0x10]) + code[at + 1 :] + b"\x01"
    return code


def given(r: random.Random) -> oracle.Operands:
    """Registers and flags to begin with."""
    corners = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 63, (1 << 64) - 1)
    gpr = tuple(r.choice((*corners, r.getrandbits(64))) for _ in range(4))
    flags = sum(bit for bit in (fl.CF, fl.PF, fl.AF, fl.ZF, fl.SF, fl.OF) if r.random() < 0.5)
    return oracle.Operands(gpr, flags, (0, 0, 0), (0, 0), 0x1F80, r.randbytes(oracle.MEMORY))


def run(machine: Machine, code: bytes, count: int, start: oracle.Operands) -> oracle.Operands:
    """All of it as one block."""
    s = machine.s
    oracle.load(s, start)
    machine.ram[DATA : DATA + oracle.MEMORY] = start.memory
    machine.ram[CODE : CODE + len(code) + 2] = code + JUMP_TO_SELF
    assert machine.engine is not None
    machine.engine.flush()
    s[RIP], s[GPR + RDI], s[ICOUNT_LIMIT] = CODE, DATA, s[ICOUNT] + count + 1
    assert machine.engine.run() == Exit.BUDGET
    gpr = tuple(s[GPR + n] for n in oracle.REGISTERS)
    memory = bytes(machine.ram[DATA : DATA + oracle.MEMORY])
    return oracle.Operands(gpr, fl.eflags(s) & fl.ARITHMETIC, start.xmm, start.mm, start.mxcsr, memory)


@pytest.mark.parametrize("backend", ["interp", "jit"])
@pytest.mark.parametrize("seed", range(4))
def test_sequences_leave_what_the_host_leaves(backend: str, seed: int) -> None:
    r, machine = random.Random(seed), Machine(64, backend)
    for _ in range(SEQUENCES):
        lines = [instruction(r) for _ in range(r.randrange(2, LONGEST))]
        codes = [encode(line) for line in lines]
        start = given(r)
        ours = run(machine, b"".join(codes), len(codes), start)
        theirs = oracle.run_host(b"".join(codes), start)
        found = ours.differences(theirs, fl.ARITHMETIC & ~fl.AF)  # which the SDM leaves undefined after shifts
        assert not found, "\n".join([f"seed {seed}: {backend} != host", *lines, found, f"from {start}"])
