"""16-bit code in topic guests: real mode and virtual-8086 mode, from a guest of 32-bit programs.

The code is assembled on its own, for segment 0x1000, and copied there when the guest starts. Its labels can be used in
expected values and in the guest's 32-bit code as `@label`.

    low = Sixteen(program)
    low.real("name", "mov ax, 5", ax=(5, 0xFFFF))     in real mode; it comes to its end with INT 0xF0
    low.v86("name", "cli", iopl=0, vector=GP, ...)    in virtual-8086 mode; it comes to its end with INT3
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.guests.topics.program import BP, FIELDS, FIRST_FREE, LOW, Program, assemble, descriptor

CODE_LOW, DATA_LOW = 0x1E8, 0x1F0  # the last two descriptors
REAL_DONE = 0xF0
DATA, STACK = 0x20000, 0x30000  # DS and ES; SS, with SP = 0x8000
RECORDED = ("vector", "ip", "cs", "flags", "ax", "bx", "cx", "dx", "si", "di", "bp", "ds", "sp", "ss", "r0")
VM, IOPL_SHIFT = 1 << 17, 12
assert FIRST_FREE < CODE_LOW


class Sixteen:
    """Adds 16-bit code to a program."""

    def __init__(self, program: Program) -> None:
        self.p = program
        self._pieces = [_read("real16_low")]
        program.substitutions.append(self._resolve)
        program.set_descriptor(CODE_LOW, descriptor(LOW, 0xFFFF, 0x9A))
        program.set_descriptor(DATA_LOW, descriptor(DATA, 0xFFFF, 0x92))
        fields = ", ".join(str(FIELDS.index(name)) for name in RECORDED)
        program.data(
            f".set CODE_LOW, {CODE_LOW}\n.set DATA_LOW, {DATA_LOW}\n{_read('real16')}\nreal_fields: .long {fields}\n"
        )
        program.asm(
            """
            mov esi, low_code
            mov edi, LOW
            mov ecx, @size
            rep movsb es:[edi], ds:[esi]
            mov eax, real_back
            mov [LOW + @real_back_at], eax
            xor ecx, ecx
        make_vector:
            lea eax, [ecx + ecx * 2]
            lea eax, [eax * 2 + 0x10000000 + @stub_area]
            mov [ecx * 4], eax
            inc ecx
            cmp ecx, 256
            jne make_vector
            """
        )

    def code(self, text: str) -> None:
        """16-bit code or data, at a label of its own."""
        self._pieces.append(text)

    def real(self, name: str, body: str, **expected: Any) -> None:
        """One check in real mode: CS = 0x1000, DS = ES = 0x2000, SS:SP = 0x3000:0x8000, flags clear."""
        entry = self.p.label("real")
        self.code(f"{entry}: {body}\n.byte 0xcd, {REAL_DONE:#x}\n")
        self.p.asm(f"mov eax, @{entry}\ncall run_real\n")
        self.p.verify(name, **{"vector": REAL_DONE, **expected})

    def v86(self, name: str, body: str, iopl: int = 3, with_flags: int = 0, **expected: Any) -> None:
        """One check in virtual-8086 mode, with the same segments."""
        entry = self.p.label("v86")
        self.code(f"{entry}: {body}\n.byte 0xcc\n")
        self.p.attempt(self.to_v86(f"@{entry}", iopl, with_flags))
        self.p.verify(name, **{"vector": BP, **expected})

    def to_v86(self, entry: str, iopl: int = 3, flags: int = 0) -> str:
        """Code that goes to an offset in segment LOW, in virtual-8086 mode."""
        data, stack = DATA >> 4, STACK >> 4
        image = VM | iopl << IOPL_SHIFT | 2 | flags
        return (
            f"push {data}\npush {data}\npush {data}\npush {data}\npush {stack}\npush 0x8000\npush {image:#x}\npush {LOW >> 4}\n"
            f"mov eax, {entry}\npush eax\niretd\n"
        )

    def _resolve(self, text: str) -> str:
        """Assemble the 16-bit code, put it into the guest's text, and give @labels their values."""
        names = sorted({*re.findall(r"@(\w+)", text)} - {"size"})
        stubs = "\n".join(f".byte 0x68, {n}, 0, 0xe9\n.word common16 - stub_area - {6 * n + 6}" for n in range(256))
        source = [self._pieces[0], stubs, *self._pieces[1:], ".align 16\nlabels:", *(f".word {name}" for name in names)]
        code = assemble("\n".join(source), 0, 16)
        words = len(code) - 2 * len(names)
        values = {
            name: int.from_bytes(code[words + 2 * n : words + 2 * n + 2], "little") for n, name in enumerate(names)
        }
        values["size"] = words
        lines = [", ".join(f"{byte:#x}" for byte in code[at : at + 32]) for at in range(0, words, 32)]
        text = text.replace("image_end:", "low_code:\n" + "\n".join(f".byte {line}" for line in lines) + "\nimage_end:")
        return re.sub(r"@(\w+)", lambda match: f"{values[match[1]]:#x}", text)


def _read(name: str) -> str:
    return Path(__file__).with_name(f"{name}.asm").read_text(encoding="utf-8")
