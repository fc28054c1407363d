"""What a page walk leaves in the tables: accessed and dirty flags, and none where it ends in a fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pyemu.cpu import mode, paging, tlb
from pyemu.cpu.memory import WRITE
from pyemu.cpu.state import CR0, CR3, EFER, WALK_PHYS
from tests.cpu import system_setup as setup

Twin = Callable[[Any], Callable[..., int]]
A, D = 0x20, 0x40
PAGE = 0x5000
TABLES = (setup.PML4, setup.PDPT, setup.PD)
DIRECTORY = 0x20000
SELF = 0x3FF << 22  # what the last entry of a directory maps, if that is the directory


def leaf(page: int) -> int:
    return setup.PT + 8 * (page >> 12)


@pytest.mark.parametrize("entry", [0, PAGE | 3], ids=["absent", "supervisor"])
def test_a_fault_marks_nothing(twin: Twin, entry: int) -> None:
    m = setup.long_user()
    m.put(leaf(PAGE), "Q", entry)
    assert twin(paging.walk)(m.s, PAGE, 0, tlb.USER) == 1
    assert [m.get(table, "Q")[0] & A for table in TABLES] == [0, 0, 0]
    assert m.get(leaf(PAGE), "Q") == (entry,)


@pytest.mark.parametrize(("access", "flags"), [(0, A), (WRITE, A | D)])
def test_a_translation_marks_all_that_it_used(twin: Twin, access: int, flags: int) -> None:
    m = setup.long_user()
    m.put(setup.PDPT, "Q", m.get(setup.PDPT, "Q")[0] | A)  # one of them is marked already
    assert twin(paging.walk)(m.s, PAGE, access, tlb.USER) == 0
    assert [m.get(table, "Q")[0] & (A | D) for table in TABLES] == [A, A, A]
    assert m.get(leaf(PAGE), "Q")[0] & (A | D) == flags
    assert m.get(leaf(PAGE + 0x1000), "Q")[0] & (A | D) == 0


def two_levels(entry: int) -> setup.Machine:
    """32-bit paging: the entry for PAGE, and the directory as its own last page table."""
    m = setup.protected()
    m.put(DIRECTORY, "I", DIRECTORY + 0x1000 | 7)
    m.put(DIRECTORY + 0xFFC, "I", DIRECTORY | 7)
    m.put(DIRECTORY + 0x1000 + (PAGE >> 10), "I", entry)
    m.s[CR3], m.s[EFER], m.s[CR0] = DIRECTORY, 0, m.s[CR0] | 0x80000000
    mode.update(m.s)
    return m


@pytest.mark.parametrize("entry", [0, PAGE | 3], ids=["absent", "supervisor"])
def test_a_fault_marks_nothing_in_two_levels(twin: Twin, entry: int) -> None:
    m = two_levels(entry)
    assert twin(paging.walk)(m.s, PAGE, WRITE, tlb.USER) == 1
    assert m.get(DIRECTORY, "I")[0] & A == 0
    assert m.get(DIRECTORY + 0x1000 + (PAGE >> 10), "I") == (entry,)


def test_both_levels_are_marked(twin: Twin) -> None:
    m = two_levels(PAGE | 7)
    assert twin(paging.walk)(m.s, PAGE, WRITE, tlb.USER) == 0
    assert m.s[WALK_PHYS] == PAGE
    assert m.get(DIRECTORY, "I")[0] & (A | D) == A
    assert m.get(DIRECTORY + 0x1000 + (PAGE >> 10), "I") == (PAGE | 7 | A | D,)


def test_an_entry_that_is_of_both_levels_keeps_what_it_is_as_a_leaf(twin: Twin) -> None:
    m = two_levels(PAGE | 7)
    assert twin(paging.walk)(m.s, SELF | 0x3FF000, WRITE, tlb.USER) == 0
    assert m.s[WALK_PHYS] == DIRECTORY
    assert m.get(DIRECTORY + 0xFFC, "I") == (DIRECTORY | 7 | A | D,)
