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


def _how(i: Instruction, memory: Operand, count: int, kind: int) -> Value:
    """The word that tells the mechanism what to do."""
    fixed = memory.size << vm.HOW_ELEMENT | i.form.row.vsib // 8 << vm.HOW_INDEX | count << vm.HOW_COUNT
    word = i.const(fixed | kind, 64)
    word = word | i.record_field(rc.ADDRESS, rc.SCALE, 16) << vm.HOW_SCALE
    word = word | i.record_field(rc.PACKED, rc.ADDRESS_SIZE, 8) << vm.HOW_ADDRESS
    word = word | i.record_field(rc.PACKED, rc.SEGMENT, 8) << vm.HOW_SEGMENT
    legacy = (i.record_field(rc.PACKED, rc.RFLAGS_SHIFT, 8) & rc.LEGACY).ne(0)
    return word | legacy.select(i.const(vm.HOW_LEGACY, 64), 0)


def _indexed(i: Instruction, vector: Operand, memory: Operand, by: Value, kind: int) -> None:
    """Transfer elements between a vector register and memory, under the mask in the register with the offset `by`. The
    registers of a gather must differ."""
    use_simd(i)
    register, index = i.register_number(i.field(vector)), i.record_field(rc.ADDRESS, rc.INDEX_REG, 16)
    if kind & vm.HOW_SIGNS:
        i.fault_if(register.eq(index) | register.eq(by) | index.eq(by), UD)
    elif not kind & vm.HOW_STORE:
        i.fault_if(register.eq(index), UD)
    count = i.form.length // max(memory.size, i.form.row.vsib // 8)
    origin = i.address_register(rc.BASE) + i.record_word(rc.DISP)
    base, how = i.address_register(rc.SEGMENT_BASE), _how(i, memory, count, kind)
    i.call(vm.indexed, register, index, by, origin, base, how, i.memory_access())
    if not kind & vm.HOW_STORE:
        i.call(vm.clear_above, register, count * memory.size)


def gather(i: Instruction, dst: Operand, memory: Operand, mask: Operand) -> None:
    """The VEX form."""
    _indexed(i, dst, memory, i.register_number(i.field(mask)), vm.HOW_SIGNS)


def gather_masked(i: Instruction, dst: Operand, memory: Operand) -> None:
    """The EVEX form."""
    _indexed(i, dst, memory, i.register_number(rc.MASK), i.form.length << vm.HOW_VECTOR)


def scatter(i: Instruction, memory: Operand, src: Operand) -> None:
    _indexed(i, src, memory, i.register_number(rc.MASK), vm.HOW_STORE)


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
