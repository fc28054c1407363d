"""Linear addresses as the debugger translates them: the same as the processor does, in every paging mode."""

import pytest

from pyemu.cpu import paging, tlb
from pyemu.cpu.faults import clear_fault
from pyemu.cpu.state import CR0, CR3, CR4, EFER, LINEAR_TOP, PDPTE, WALK_PHYS
from pyemu.pagetables import mappings

PG, PSE, PAE, LA57, LMA = 1 << 31, 1 << 4, 1 << 5, 1 << 12, 0x500
TOP, NEXT, LOWER, LAST = 0x10000, 0x11000, 0x12000, 0x13000


def set_mode(machine, levels):
    """Page tables of so many levels that map one 4 KiB page and one large one."""
    s, write = machine.state, machine.memory.write
    s[CR0], s[CR3], s[CR4], s[EFER], s[LINEAR_TOP] = PG | 1, TOP, PSE, 0, 47
    if levels == 2:
        write(TOP + 4 * 0x345, (NEXT | 7).to_bytes(4, "little"))
        write(NEXT + 4 * 0x67, (0x5000 | 7).to_bytes(4, "little"))
        write(TOP + 4 * 1, (0x800000 | 0x2000 | 0x87).to_bytes(4, "little"))  # PSE-36: address bit 32
        return 0xD1467123, 0x00456789
    s[CR4] |= PAE
    if levels == 3:
        s[PDPTE], s[PDPTE + 3] = 0, NEXT | 1
        write(NEXT + 8 * 0x1FF, (LOWER | 7).to_bytes(8, "little"))
        write(LOWER + 8 * 3, (0x5000 | 7).to_bytes(8, "little"))
        write(NEXT + 8 * 5, (0x800000 | 0x87).to_bytes(8, "little"))
        return 0xFFE03123, 0xC0A45678
    s[EFER] = LMA
    table = TOP
    if levels == 5:
        s[CR4] |= LA57
        s[LINEAR_TOP] = 56
        write(TOP + 8 * 0x1FF, (0x14000 | 7).to_bytes(8, "little"))
        table = 0x14000
    write(table + 8 * 0x1FF, (NEXT | 7).to_bytes(8, "little"))
    write(NEXT + 8 * 0x1FF, (LOWER | 7).to_bytes(8, "little"))
    write(LOWER + 8 * 0x1FE, (LAST | 7).to_bytes(8, "little"))
    write(LAST + 8 * 3, (0x5000 | 7).to_bytes(8, "little"))
    write(LOWER + 8 * 5, (0x800000 | 0x87).to_bytes(8, "little"))
    return 0xFFFFFFFFFFC03123, 0xFFFFFFFFC0A45678


@pytest.mark.parametrize("levels", [2, 3, 4, 5])
def test_the_same_as_the_processor(build, levels):
    machine = build()
    s = machine.state
    s.ram, s.host = machine.ram.whole, machine.host
    small, large = set_mode(machine, levels)
    unmapped = [0x1000, small + 0x1000, 0x12345678]
    for linear in (small, large, large - 0x45678, *unmapped):
        failed = paging.walk(s, linear, 0, tlb.SUPERVISOR)
        expected = None if failed else s[WALK_PHYS] + (linear & 0xFFF)
        clear_fault(s)
        assert machine.translate(linear) == expected, hex(linear)
        assert (linear in unmapped) == (expected is None)
    assert machine.translate(small) == 0x5123
    found = {m.linear: m for m in mappings(s, machine.ram)}
    assert found[small & ~0xFFF].physical == 0x5000
    assert any(m.size > 0x1000 and m.linear <= large < m.linear + m.size for m in found.values())
    assert len(found) == 2


def test_not_canonical(build):
    machine = build()
    set_mode(machine, 4)
    assert machine.translate(1 << 60) is None
    set_mode(machine, 5)
    assert machine.translate(1 << 60) is None
