"""The MP table (Intel MultiProcessor Specification 1.4, chapter 4), for guests that don't read ACPI."""

from __future__ import annotations

import struct

from pyemu.firmware.acpi import checksum
from pyemu.firmware.platform import Platform

OEM_ID = b"PYEMU   "
PRODUCT_ID = b"PC          "
SPECIFICATION = 4  # 1.4
LAPIC_VERSION = 0x14
IOAPIC_VERSION = 0x20
CPU_ENABLED, CPU_BOOT = 1, 2
CPU_SIGNATURE = 0x600  # family 6
CPU_FEATURES = 0x201  # FPU, APIC
ISA_BUS = 0
INTERRUPT_INT, INTERRUPT_NMI, INTERRUPT_EXTINT = 0, 1, 3
LEVEL_HIGH = 0xD
ALL_LAPICS = 0xFF
FLOATING_POINTER_SIZE = 16


def build(platform: Platform, address: int) -> bytes:
    """The floating pointer, which must be 16-byte aligned in 0xf0000-0xfffff, followed by the table."""
    entries = []
    for cpu in range(platform.cpus):
        flags = CPU_ENABLED | (CPU_BOOT if cpu == 0 else 0)
        entries.append(struct.pack("<BBBBIIQ", 0, cpu, LAPIC_VERSION, flags, CPU_SIGNATURE, CPU_FEATURES, 0))
    entries.append(struct.pack("<BB6s", 1, ISA_BUS, b"ISA   "))
    entries.append(struct.pack("<BBBBI", 2, platform.ioapic_id, IOAPIC_VERSION, 1, platform.ioapic_base))
    for irq in range(16):
        if irq == 2:
            continue  # the second 8259
        target = platform.pit_gsi if irq == 0 else irq
        flags = LEVEL_HIGH if irq == platform.sci_irq else 0
        entries.append(struct.pack("<BBHBBBB", 3, INTERRUPT_INT, flags, ISA_BUS, irq, platform.ioapic_id, target))
    entries.append(struct.pack("<BBHBBBB", 4, INTERRUPT_EXTINT, 0, ISA_BUS, 0, ALL_LAPICS, 0))
    entries.append(struct.pack("<BBHBBBB", 4, INTERRUPT_NMI, 0, ISA_BUS, 0, ALL_LAPICS, 1))
    body = b"".join(entries)
    table = bytearray(
        struct.pack(
            "<4sHBB8s12sIHHIHBB",
            b"PCMP", 44 + len(body), SPECIFICATION, 0, OEM_ID, PRODUCT_ID, 0, 0, len(entries), platform.lapic_base,
            0, 0, 0,
        )
        + body
    )  # fmt: skip
    table[7] = checksum(table)
    pointer = bytearray(struct.pack("<4sIBBB5s", b"_MP_", address + FLOATING_POINTER_SIZE, 1, SPECIFICATION, 0, b""))
    pointer[10] = checksum(pointer)
    return bytes(pointer + table)
