"""Gathers of AVX2 and AVX-512, and scatters: elements at a vector of indices (SDM 2, VPGATHERDD, VPSCATTERDD).

The work is mechanism (vector_memory.py), because what was done before a fault stays.
"""

from __future__ import annotations

from pyemu.cpu import vector_memory as vm
from pyemu.cpu.decode import record as rc
from pyemu.cpu.instruction import UD, Instruction
from pyemu.cpu.ops import Operand, op
from pyemu.cpu.semantics.vectors import use_simd
from pyemu.cpu.values import Value


def _how(i: Instruction, memory: Operand, count: int, index_bits: int, store: bool) -> Value:
    """The word that tells the mechanism what to do."""
    fixed = memory.size << vm.HOW_ELEMENT | index_bits // 8 << vm.HOW_INDEX | count << vm.HOW_COUNT
    word = i.const(fixed | (vm.HOW_STORE if store else 0), 64)
    word = word | i.record_field(rc.ADDRESS, rc.SCALE, 16) << vm.HOW_SCALE
    word = word | i.record_field(rc.PACKED, rc.ADDRESS_SIZE, 8) << vm.HOW_ADDRESS
    word = word | i.record_field(rc.PACKED, rc.SEGMENT, 8) << vm.HOW_SEGMENT
    legacy = (i.record_field(rc.PACKED, rc.RFLAGS_SHIFT, 8) & rc.LEGACY).ne(0)
    return word | legacy.select(i.const(vm.HOW_LEGACY, 64), 0)


def _place(i: Instruction) -> tuple[Value, Value, Value]:
    """Byte offset of the index register, base plus displacement, base of the segment."""
    origin = i.address_register(rc.BASE) + i.record_word(rc.DISP)
    return i.record_field(rc.ADDRESS, rc.INDEX_REG, 16), origin, i.address_register(rc.SEGMENT_BASE)


def gather(i: Instruction, dst: Operand, memory: Operand, mask: Operand) -> None:
    """The VEX form. The three registers must differ."""
    use_simd(i)
    index_bits = i.form.row.vsib
    count = i.form.length // max(memory.size, index_bits // 8)
    index, origin, base = _place(i)
    to, by = i.register_number(i.field(dst)), i.register_number(i.field(mask))
    i.fault_if(to.eq(index) | to.eq(by) | index.eq(by), UD)
    how = _how(i, memory, count, index_bits, store=False)
    i.call(vm.indexed_by_sign, to, index, by, origin, base, how, i.memory_access())
    i.call(vm.clear_above, to, count * memory.size)


def gather_masked(i: Instruction, dst: Operand, memory: Operand) -> None:
    """The EVEX form."""
    use_simd(i)
    index_bits = i.form.row.vsib
    count = i.form.length // max(memory.size, index_bits // 8)
    index, origin, base = _place(i)
    to, by = i.register_number(i.field(dst)), i.register_number(rc.MASK)
    i.fault_if(to.eq(index), UD)
    how = _how(i, memory, count, index_bits, store=False)
    how = how | i.form.length << vm.HOW_VECTOR
    i.call(vm.indexed, to, index, by, origin, base, how, i.memory_access())
    i.call(vm.clear_above, to, count * memory.size)


def scatter(i: Instruction, memory: Operand, src: Operand) -> None:
    use_simd(i)
    index_bits = i.form.row.vsib
    count = i.form.length // max(memory.size, index_bits // 8)
    index, origin, base = _place(i)
    what, by = i.register_number(i.field(src)), i.register_number(rc.MASK)
    how = _how(i, memory, count, index_bits, store=True)
    i.call(vm.indexed, what, index, by, origin, base, how, i.memory_access())


# Opcode of the gather, bits of an index and its letter; of both kinds of elements.
for _opcode, _bits, _index, _name in (
    (0x90, 32, "d", "p"), (0x91, 64, "q", "p"), (0x92, 32, "d", ""), (0x93, 64, "q", ""),
):  # fmt: skip
    for _w, _memory, _size in (("W0", "Md", 32), ("W1", "Mq", 64)):
        _letter = ("d" if _size == 32 else "q") if _name else ("ps" if _size == 32 else "pd")
        _type = "h" if (_bits, _size) == (64, 32) else "x"
        _suffix = f"{_index}{_letter}"
        op(
            f"VEX.66.0F38.{_w} {_opcode:02X} /r",
            f"V{_type},{_memory},H{_type}",
            name=f"v{_name}gather{_suffix}",
            feature="avx2",
            vsib=_bits,
        )(gather)
        op(
            f"EVEX.66.0F38.{_w} {_opcode:02X} /r",
            f"V{_type},{_memory}",
            name=f"v{_name}gather{_suffix}",
            feature="avx512f",
            element=_size,
            masking="K",
            vsib=_bits,
        )(gather_masked)
        op(
            f"EVEX.66.0F38.{_w} {_opcode + 0x10:02X} /r",
            f"{_memory},V{_type}",
            name=f"v{_name}scatter{_suffix}",
            feature="avx512f",
            element=_size,
            masking="K",
            vsib=_bits,
        )(scatter)
