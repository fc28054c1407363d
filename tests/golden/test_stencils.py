"""The host code of a dozen stencils, as text. `pytest tests/golden --regenerate` writes it anew after a change."""

from __future__ import annotations

import struct
from pathlib import Path

import capstone
import pytest

from pyemu.cpu.ops import Form, build_table
from pyemu.jit.elf import R_64
from pyemu.jit.loaded import native
from pyemu.jit.stencil_build import compile_helpers, compile_stencils
from pyemu.jit.stencil_object import HOLES, Stencil
from pyemu.jit.stencils import HELPERS

GOLDEN = Path(__file__).with_name("stencils.txt")
SHOWN = (
    ("add", "Ev,Gv", 8, False), ("add", "Ev,Gv", 8, True), ("sub", "Ev,Ibs", 8, False), ("mov", "Gv,Ev", 8, True),
    ("mov", "Ev,Gv", 4, True), ("mov", "Zv,Iv", 8, False), ("push", "Zv", 8, False), ("je", "Jb", 8, False),
    ("call", "Jz", 8, False), ("ret", "", 8, False), ("lea", "Gv,M", 8, True), ("movzx", "Gv,Eb", 4, True),
    ("addsd", "Vdq,Hdq,Wsd", 0, False),
)  # fmt: skip


def chosen() -> list[Form]:
    """The forms that are shown."""
    forms = []
    for name, operands, size, memory in SHOWN:
        key = (name, operands, size, memory)
        found = [f for f in build_table().forms if (f.row.name, f.row.operands, f.size, f.is_memory) == key]
        assert found, key
        forms.append(found[0])
    return forms


def listing(stencil: Stencil) -> str:
    """Disassembly, each instruction with the holes in it."""
    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    lines = []
    for instruction in engine.disasm(stencil.code, 0):
        end = instruction.address + instruction.size
        holes = [
            f"{HOLES[number]}{'' if kind != R_64 else ':64'}"
            for at, kind, number, _ in stencil.relocations
            if instruction.address <= at < end
        ]
        text = f"    {instruction.mnemonic} {instruction.op_str}"
        lines.append(f"{text:60s} {' '.join(holes)}".rstrip())
    return "\n".join(lines)


def text() -> str:
    """What stencils.txt should contain."""
    forms = chosen()
    stencils = compile_helpers() | compile_stencils(forms)
    parts = [f"{name}\n{listing(stencils[name])}\n" for name in HELPERS]
    for form in forms:
        label = f"{form.row.name} {form.row.operands} ({form.size} bytes{', memory' if form.is_memory else ''})"
        parts.append(f"{label}\n{listing(stencils[form.name])}\n")
    return "\n".join(parts)


def test_stencils(request: pytest.FixtureRequest) -> None:
    """The code is what was reviewed."""
    now = text()
    if request.config.getoption("--regenerate"):
        GOLDEN.write_text(now)
    assert now == GOLDEN.read_text(), "generated code has changed; look at the difference, then use --regenerate"


def test_no_common_instruction_lacks_a_stencil() -> None:
    """What ordinary 64-bit code consists of must not run by its handler."""
    common = {
        "mov", "add", "sub", "and", "or", "xor", "cmp", "test", "lea", "push", "pop", "call", "ret", "jmp", "je", "jne",
        "inc", "dec", "shl", "shr", "sar", "movzx", "movsx", "movsxd", "imul", "neg", "not", "cmovne", "sete", "nop",
        "pslld", "psrlq", "psadbw", "movaps", "movups", "movdqa", "movdqu", "pxor",
        "addsd", "subsd", "mulsd", "divsd", "sqrtsd", "ucomisd",
        "mulps", "cvttsd2si", "cvtsi2sd", "cvtss2sd", "cvtsd2ss",
    }  # fmt: skip
    forms = [
        f
        for f in build_table().forms
        if f.row.name in common and f.row.modes != "legacy" and f.size in (0, 4, 8)
        and not any(o.kind in ("moffs", "seg", "cr", "dr", "mm") for o in f.operands)
        and not (f.row.name == "pop" and (f.is_memory or any(o.kind == "seg" for o in f.operands)))
    ]  # fmt: skip
    stencils = compile_stencils(forms)
    missing = [f.name for f in forms if f.name not in stencils]
    assert not missing


def test_what_c_libraries_use_has_stencils() -> None:
    """With a VEX or EVEX encoding, without a mask; with one too, but for what becomes too long."""
    table, forms = native().image.forms, build_table().forms
    entries = list(struct.iter_unpack("<4H2I", table))
    chosen = [f for f in forms if f.space and not f.row.lazy and f.row.modes != "legacy"]
    long = {f.name for f in chosen if f.row.name.startswith("vpternlog") and f.length >= 32}
    assert len(chosen) > 300
    assert {f.name for f in chosen if not entries[f.number][0]} <= long
    assert {f.name for f in chosen if not entries[f.number][1]} <= {f.name for f in chosen if f.length == 64} & long
