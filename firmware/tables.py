"""Puts the tables that firmware leaves behind where guests search for them: below 1 MiB."""

from __future__ import annotations

from dataclasses import dataclass

from pyemu.firmware import acpi, mptable, smbios
from pyemu.firmware.e820 import BIOS_AREA, HIGH_MEMORY, Layout
from pyemu.firmware.platform import Platform

BIOS_SEGMENT_START = 0xF0000  # SMBIOS and MP pointers are looked for from here on, the RSDP from BIOS_AREA on


@dataclass(frozen=True)
class PlacedTables:
    """What boot protocols hand on."""

    rsdp_address: int
    rsdp: bytes


def place_tables(layout: Layout, platform: Platform) -> PlacedTables:
    """Build and place ACPI, SMBIOS and MP tables."""
    size = len(acpi.build(platform, BIOS_AREA))  # the size doesn't depend on the address
    address = layout.find(size, "ACPI tables", BIOS_AREA, BIOS_SEGMENT_START, acpi.TABLE_ALIGNMENT)
    block = acpi.build(platform, address)
    layout.place(address, block, "ACPI tables")
    ranges = layout.ranges
    size = len(smbios.build(platform, ranges, BIOS_SEGMENT_START))
    at = layout.find(size, "SMBIOS tables", BIOS_SEGMENT_START, HIGH_MEMORY)
    layout.place(at, smbios.build(platform, ranges, at), "SMBIOS tables")
    size = len(mptable.build(platform, BIOS_SEGMENT_START))
    at = layout.find(size, "MP table", BIOS_SEGMENT_START, HIGH_MEMORY)
    layout.place(at, mptable.build(platform, at), "MP table")
    return PlacedTables(address, block[: acpi.RSDP_SIZE])
