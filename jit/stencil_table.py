"""The stencils as flat memory for the translator: numbering, per-form facts, serialisation.

    stencil entry  16 bytes: code offset, code length, relocation offset, relocation count (32 bits each)
    relocation     16 bytes: offset (32), type (16), hole (16), addend (64)
    form entry      8 bytes: stencil, stencil without flag writes (16 each, 0 for none), facts (32)
    constants      the pieces of memory that stencils refer to
"""

from __future__ import annotations

import struct

from pyemu.cpu.ops import Form
from pyemu.jit.stencils import ALIGNMENT, DEAD, HELPERS, HOLE, Stencil

STENCIL_SIZE, RELOCATION_SIZE, FORM_ENTRY = 16, 16, 8

# Numbers of the stencils that belong to no instruction; 0 means none.
_NUMBER = {name: number for number, name in enumerate(HELPERS, 1)}
PROLOGUE, EXECUTE, UNLINKED, CHAIN, GOTO, STOP, PROCEED, INDIRECT_END, COUNT_EDGE = (
    _NUMBER[n] for n in ("prologue", "exec", "unlinked", "chain", "goto", "stop", "proceed", "indirect", "count_edge")
)
E_BASE, E_INDEX, E_BASE_INDEX, E_CONSTANT, E_SEGMENT = (
    _NUMBER[n] for n in ("ea_base", "ea_index", "ea_base_index", "ea_constant", "ea_segment")
)
(
    H_REG, H_RM, H_OP, H_BASE, H_INDEX, H_SEGMENT, H_SCALE, H_DISP, H_IMM, H_IMM32, H_IMM64, H_DISP64, H_RIP, H_NEXT,
    H_COUNT, H_RECORD, H_RESUME, H_TLB, H_SLOT, H_SLOT_NEXT, H_SLOW, H_CONT, H_EXEC, H_LEAVE, H_UNLINKED,
    H_PROCEED, H_CONSTANTS, H_VVVV,
) = HOLE.values()  # fmt: skip

# Facts about a form.
WRITES_FLAGS = 1  # all six, always
READS_FLAGS = 2
MAY_EXIT = 4  # its stencil can leave through its cold stub, or it has none
MEMORY = 8  # needs the effective address in tmp
ADDRESS_ONLY = 16  # LEA: without the segment base
RELATIVE = 32  # a direct jump: needs chain slots
JUMP = 64  # ... unconditional
ENDS = 128  # ends the block, and what follows may see another mode or mapping, or an event that waited


def facts(form: Form, stencil: Stencil | None) -> int:
    """The facts that the translator needs about a form."""
    word, row = 0, form.row
    word |= WRITES_FLAGS if "w" in row.flags else 0
    word |= READS_FLAGS if row.flags and row.flags != "w" else 0
    if stencil is None or any(number == H_SLOW for _, _, number, _ in stencil.relocations):
        word |= MAY_EXIT
    if form.is_memory:
        word |= MEMORY
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
        entries.append(
            struct.pack("<4I", code_base + len(code), len(stencil.code), where, len(stencil.relocations))
        )
        code += stencil.code
    table = bytearray()
    for form in forms:
        live = number.get(form.name, 0)
        dead = number.get(form.name + DEAD, live)
        table += struct.pack("<HHI", live, dead, facts(form, stencils.get(form.name)))
    code += bytes(constants_base - code_base - len(code))
    return b"".join(entries) + relocations + code + constants, bytes(table)
