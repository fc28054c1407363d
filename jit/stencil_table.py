"""The stencils as flat memory for the translator: numbering, per-form facts, serialisation.

stencil entry  16 bytes: code offset, code length, relocation offset, relocation count (32 bits each)
relocation     16 bytes: offset (32), type (16), hole (16), addend (64)
form entry     16 bytes: stencil, the shorter one without flag writes or mask, both for flat 32-bit mode (16 bits each,
                         0 for none),
                         facts (32), bytes of the memory operand minus 1 (32)
constants      the pieces of memory that stencils refer to
"""

from __future__ import annotations

import struct

from pyemu.cpu.ops import Form
from pyemu.cpu.state import JIT, JIT_WORDS
from pyemu.jit.layout import HOLE_VALUES
from pyemu.jit.stencil_build import shorter
from pyemu.jit.stencil_object import ALIGNMENT, HOLE, Stencil
from pyemu.jit.stencils import FLAT, HELPERS

STENCIL_SIZE, RELOCATION_SIZE, FORM_ENTRY = 16, 16, 16
F_FLAT, F_FACTS, F_EXTENT = 4, 8, 12  # offsets in a form entry

# Numbers of the stencils that belong to no instruction; 0 means none.
_NUMBER = {name: number for number, name in enumerate(HELPERS, 1)}
PROLOGUE, EXECUTE, UNLINKED, CHAIN, GOTO, GOTO32, STOP, PROCEED, INDIRECT_END, COUNT_EDGE = (
    _NUMBER[n]
    for n in (
        "prologue", "exec", "unlinked", "chain", "goto", "goto32", "stop", "proceed", "indirect", "count_edge",
    )
)
E_BASE, E_INDEX, E_BASE_INDEX, E_CONSTANT, E_SEGMENT = (
    _NUMBER[n] for n in ("ea_base", "ea_index1", "ea_base_index1", "ea_constant", "ea_segment")
)
# Of those with an index, these are the first of four: for the scales 1, 2, 4 and 8.
E32 = _NUMBER["ea32_base"] - E_BASE  # from each of these to the one for 32-bit addresses
(
    H_REG, H_RM, H_OP, H_BASE, H_INDEX, H_SEGMENT, H_DISP, H_IMM, H_IMM32, H_IMM64, H_DISP64, H_RIP, H_NEXT,
    H_COUNT, H_RECORD, H_RESUME, H_TLB, H_TLB_WRITE, H_TLB_ADDEND, H_SLOT, H_SLOT_NEXT, H_SLOW, H_CONT, H_EXEC, H_LEAVE,
    H_UNLINKED, H_PROCEED, H_CONSTANTS, H_VVVV, H_EXTENT, H_KEPT,
    H_TAKEN, H_FOLLOWING,
) = HOLE.values()  # fmt: skip
assert HOLE_VALUES + len(HOLE) <= JIT + JIT_WORDS

# Facts about a form.
WRITES_FLAGS = 1  # all six
READS_FLAGS = 2
MAY_EXIT = 4  # its stencil can leave through its cold stub, or it has none
MEMORY = 8  # needs the effective address in tmp
ADDRESS_ONLY = 16  # LEA: without the segment base
RELATIVE = 32  # a direct jump: needs chain slots
JUMP = 64  # ... unconditional
ENDS = 128  # ends the block, and what follows may see another mode or mapping, or an event that waited
ADDRESS_SIZED = 256  # its stencil depends on the address size beyond the operand's address
DIRECT = 512  # the operand's address is the immediate
MASKABLE = 1024  # may have a mask: its shorter stencil is for k0
KEEPS_FLAGS = 2048  # writes some of them, or for some operands
COUNTED = 4096  # its immediate is a count, other than 0 in its stencil: of 5 bits,
COUNTED64 = 8192  # ... of 6


def variants(form: Form, stencils: dict[str, Stencil]) -> list[str]:
    """The names of a form's stencils for 64-bit mode, then for flat 32-bit mode, each with flag writes or mask and
    without; "" for none."""
    names: list[str] = []
    for name in (form.name, form.name + FLAT):
        pair = [name, name + shorter(form)]
        if name.endswith(FLAT) and not any(n in stencils for n in pair):  # those of 64-bit mode do
            pair = [n if n in stencils and not stencils[n].wide else "" for n in names]
        longer = pair[0] if pair[0] in stencils else ""
        names += [longer, pair[1] if pair[1] in stencils else longer]
    return names


def extent(form: Form) -> int:
    """Bytes of the memory operand minus 1."""
    return max((1, *(o.size for o in form.operands if o.is_memory))) - 1


def facts(form: Form, known: list[Stencil | None]) -> int:
    """The facts that the translator needs about a form, which has some stencils."""
    word, row = 0, form.row
    word |= MASKABLE if row.element else 0
    word |= WRITES_FLAGS if "w" in row.flags else 0
    word |= READS_FLAGS if "r" in row.flags else 0
    word |= KEEPS_FLAGS if "m" in row.flags else 0
    if "c" in row.flags:
        word |= COUNTED64 if form.size == 8 else COUNTED
    for stencil in known:
        if stencil is None or any(number == H_SLOW for _, _, number, _ in stencil.relocations):
            word |= MAY_EXIT
        if stencil is not None and stencil.address_sized:
            word |= ADDRESS_SIZED
    if form.is_memory:
        word |= MEMORY
    if any(o.kind == "moffs" for o in form.operands):
        word |= MEMORY | DIRECT
    if row.name == "lea":
        word |= ADDRESS_ONLY
    relative = any(o.kind == "rel" for o in form.operands)
    if relative:
        word |= RELATIVE
        if row.name in ("jmp", "call"):
            word |= JUMP
    if row.ends_block:
        word |= ENDS
    return word


def serialise(stencils: dict[str, Stencil], forms: list[Form]) -> tuple[bytes, bytes]:
    """The stencil memory and the form table."""
    order = [*HELPERS, *(n for n in stencils if n not in HELPERS)]
    number = {name: k for k, name in enumerate(order, 1)}
    entries, relocations, code = [struct.pack("<4I", 0, 0, 0, 0)], bytearray(), bytearray()
    base = STENCIL_SIZE * (len(order) + 1)
    total = sum(len(stencils[name].relocations) for name in order)
    code_base = base + RELOCATION_SIZE * total
    constants_base = code_base + sum(len(stencils[name].code) for name in order)
    constants_base += -constants_base % ALIGNMENT
    pools: dict[bytes, int] = {b"": 0}  # offset of each piece of constants, which several stencils may share
    constants = bytearray()
    for name in order:
        stencil = stencils[name]
        where = base + len(relocations)
        if stencil.constants not in pools:
            constants += bytes(-len(constants) % ALIGNMENT)
            pools[stencil.constants] = constants_base + len(constants)
            constants += stencil.constants
        for offset, kind, hole, addend in stencil.relocations:
            if hole == H_CONSTANTS:
                addend += pools[stencil.constants]
            relocations += struct.pack("<IHHq", offset, kind, hole, addend)
        entries.append(struct.pack("<4I", code_base + len(code), len(stencil.code), where, len(stencil.relocations)))
        code += stencil.code
    table = bytearray()
    for form in forms:
        names = variants(form, stencils)
        word = facts(form, [stencils.get(name) for name in (names[0], names[2])])
        table += struct.pack("<4H2I", *(number.get(name, 0) for name in names), word, extent(form))
    code += bytes(constants_base - code_base - len(code))
    return b"".join(entries) + relocations + code + constants, bytes(table)
