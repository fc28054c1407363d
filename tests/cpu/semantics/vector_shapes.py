"""Short for assembler lines: one template stands for an EVEX instruction in several shapes.

`vpaddd V0, V1, W2:32` has registers of the vector length (`V0` is XMM0, YMM0 or ZMM0), and `W2` is a register or memory,
`:32` may be repeated from memory. `W1/2` is half as long as the vector, `X2` always a register of 128 bits. ` @512` says
which lengths there are, ` er` or ` sae` what stands in braces after registers.
"""

from __future__ import annotations

import re

_REGISTERS = {128: "xmm", 256: "ymm", 512: "zmm"}
_POINTERS = {16: "word", 32: "dword", 64: "qword", 128: "xmmword", 256: "ymmword", 512: "zmmword"}
# Vector length, where the operand W is, mask.
_SHAPES = (
    (128, "register", ""),
    (256, "memory", " {k1}"),
    (512, "register", " {k1}"),
    (512, "memory", " {k2} {z}"),
    (512, "repeated", " {k3}"),
    (128, "memory", " {k2} {z}"),
    (256, "register", " {k4} {z}"),
    (512, "memory", ""),
)
_ROUNDINGS = {"er": ("rn-sae", "rd-sae", "ru-sae", "rz-sae"), "sae": ("sae",)}


def _operand(text: str, length: int, where: str) -> str:
    """One operand at a vector length."""
    match = re.fullmatch(r"([VWX])(\d)(?:/(\d))?(?::(\d+))?", text)
    if not match:
        return text
    letter, number, share, repeated = match[1], match[2], int(match[3] or 1), match[4]
    bits = length // share
    if letter == "W" and where == "repeated":
        return f"{_POINTERS[int(repeated)]} ptr [rdi+8]{{1to{bits // int(repeated)}}}"
    if letter == "W" and where == "memory":
        return f"{_POINTERS[bits]} ptr [rdi+{bits // 8}]"
    return f"{_REGISTERS[128 if letter == 'X' else max(bits, 128)]}{number}"


def shapes(template: str) -> list[str]:
    """The lines that a template stands for."""
    text, _, only = template.partition(" @")
    lengths = [int(x) for x in only.split("/")] if only else list(_REGISTERS)
    text, _, last = text.rpartition(" ") if text.endswith((" er", " sae")) else (text, "", "")
    rounding = _ROUNDINGS.get(last, ())
    mnemonic, _, rest_of_line = text.partition(" ")
    operands = rest_of_line.split(", ")
    first = operands[0]
    lines = []
    for length, where, mask in _SHAPES:
        if length not in lengths or (where == "repeated" and ":" not in text):
            continue
        if where == "memory" and "W" not in text:
            where = "register"
        if first[0] == "k" or (first[0] == "W" and where == "memory") or "[" in first:
            mask = mask.removesuffix(" {z}")
        head, *rest = (_operand(o, length, where) for o in operands)
        lines.append(f"{mnemonic} {', '.join((head + mask, *rest))}")
    if rounding:
        registers = ", ".join(_operand(o, 512, "register") for o in operands)
        lines += [f"{mnemonic} {registers}, {{{r}}}" for r in rounding]
    return list(dict.fromkeys(lines))
