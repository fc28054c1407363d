"""Source files and lines of addresses, from the DWARF of an ELF file, through pyelftools.

Read when first asked for, and by compilation unit: a kernel has thousands of them. Which unit an address belongs to is
what .debug_aranges says; a file without that section has its units' ranges read, once.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any


class LineTable:
    """The lines of one file."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._dwarf: Any = None
        self._ranges: Any = None
        self._units: dict[int, list[tuple[int, str]]] = {}  # by offset of the unit: first addresses and lines, sorted

    def lookup(self, address: int) -> str | None:
        """`file.c:123`; None if the file doesn't say, or can't be read any more."""
        try:
            unit = self._unit_of(address)
        except Exception:  # pyelftools raises many kinds over damaged DWARF, which is only an aid here
            return None
        if not unit:
            return None
        at = bisect_right(unit, address, key=lambda row: row[0]) - 1
        return unit[at][1] or None if at >= 0 else None

    def _open(self) -> None:
        from elftools.elf.elffile import ELFFile

        if self._dwarf is None:
            with open(self._path, "rb") as file:  # the library copies the sections
                self._dwarf = ELFFile(file).get_dwarf_info(relocate_dwarf_sections=False)
            self._ranges = self._dwarf.get_aranges()

    def _unit_of(self, address: int) -> list[tuple[int, str]]:
        self._open()
        offset = self._ranges.cu_offset_at_addr(address) if self._ranges is not None else self._search(address)
        if offset is None:
            return []
        if offset not in self._units:
            self._units[offset] = self._rows(self._dwarf.get_CU_at(offset))
        return self._units[offset]

    def _search(self, address: int) -> int | None:
        """Without .debug_aranges: the unit whose low_pc and high_pc enclose the address."""
        for unit in self._dwarf.iter_CUs():
            attributes = unit.get_top_DIE().attributes
            if "DW_AT_low_pc" in attributes and "DW_AT_high_pc" in attributes:
                low, high = attributes["DW_AT_low_pc"].value, attributes["DW_AT_high_pc"]
                end = high.value if high.form == "DW_FORM_addr" else low + high.value
                if low <= address < end:
                    return int(unit.cu_offset)
        return None

    def _rows(self, unit: Any) -> list[tuple[int, str]]:
        program = self._dwarf.line_program_for_CU(unit)
        if program is None:
            return []
        names = [entry.name.decode("utf-8", "replace") for entry in program["file_entry"]]
        first = 0 if program["version"] >= 5 else 1  # files count from 1 before DWARF 5
        rows = []
        for entry in program.get_entries():
            state = entry.state
            if state is None:
                continue
            number = state.file - first
            known = not state.end_sequence and 0 <= number < len(names)
            rows.append((state.address, f"{names[number]}:{state.line}" if known else ""))
        # Where one sequence ends another may begin, and then that one counts.
        return sorted(rows, key=lambda row: (row[0], bool(row[1])))
