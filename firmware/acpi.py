"""ACPI tables: RSDP, RSDT, XSDT, FADT, FACS, DSDT, MADT, HPET, MCFG (ACPI 6.4, chapter 5).

`build` lays the tables out from a given address; where that is, and everything else that firmware leaves in memory,
is `tables.py`'s decision. Hardware-reduced ACPI is not used: guests find PM1 blocks, a PM timer and an SCI.
"""

from __future__ import annotations

import struct

from pyemu.firmware import aml
from pyemu.firmware.platform import Platform

OEM_ID = b"PYEMU "
OEM_TABLE_ID = b"PYEMUPC "
CREATOR_ID = b"PYEM"
RSDP_SIZE = 36
FACS_SIZE = 64
HEADER_SIZE = 36
FADT_SIZE = 276  # revision 6
TABLE_ALIGNMENT = 64

# FADT flags (table 5.10).
WBINVD = 1 << 0
PROC_C1 = 1 << 2
SLP_BUTTON = 1 << 5  # set: no fixed sleep button
FIX_RTC = 1 << 6  # set: no fixed RTC wake-up
TMR_VAL_EXT = 1 << 8  # the PM timer has 32 bits, not 24
RESET_REG_SUP = 1 << 10

# FADT IA-PC boot architecture flags (table 5.11).
LEGACY_DEVICES = 1 << 0
HAS_8042 = 1 << 1
VGA_NOT_PRESENT = 1 << 2
CMOS_RTC_NOT_PRESENT = 1 << 5

NO_C_STATE = 0xFFF  # a latency above 100 us (C2) or 1000 us (C3) means: not supported
CMOS_CENTURY = 0x32
IO_SPACE = 1  # generic address structure: system I/O
MEMORY_SPACE = 0

# MADT (5.2.12).
PCAT_COMPAT = 1 << 0  # there is a pair of 8259s
MPS_EDGE_CONFORMING = 0x0
MPS_LEVEL_HIGH = 0xD

PCI_SLOTS = 32


def checksum(data: bytes | bytearray) -> int:
    """The byte that makes all bytes sum up to zero."""
    return -sum(data) & 0xFF


def table(signature: bytes, revision: int, body: bytes) -> bytes:
    """A table with its standard header (5.2.6)."""
    size = HEADER_SIZE + len(body)
    header = struct.pack("<4sIBB6s8sI4sI", signature, size, revision, 0, OEM_ID, OEM_TABLE_ID, 1, CREATOR_ID, 1)
    data = bytearray(header + body)
    data[9] = checksum(data)
    return bytes(data)


def generic_address(space: int, address: int, bits: int) -> bytes:
    """A generic address structure (5.2.3.2); the access size follows from the width, blocks are read by bytes."""
    access = {0: 0, 16: 2, 32: 3, 64: 4}.get(bits, 1)
    return struct.pack("<BBBBQ", space, bits, 0, access, address)


NO_ADDRESS = generic_address(IO_SPACE, 0, 0)


def facs() -> bytes:
    """Firmware ACPI control structure: holds the global lock, so it must be in RAM (5.2.10)."""
    return struct.pack("<4sIIIIIQB", b"FACS", FACS_SIZE, 0, 0, 0, 0, 0, 2).ljust(FACS_SIZE, b"\0")


def fadt(platform: Platform, facs_address: int, dsdt_address: int) -> bytes:
    """Fixed ACPI description table, revision 6 (5.2.9)."""
    flags = WBINVD | PROC_C1 | SLP_BUTTON | FIX_RTC | RESET_REG_SUP
    if platform.pm_timer_bits == 32:
        flags |= TMR_VAL_EXT
    boot_flags = LEGACY_DEVICES
    if platform.has_ps2:
        boot_flags |= HAS_8042
    if not platform.has_vga:
        boot_flags |= VGA_NOT_PRESENT
    if not platform.has_cmos:
        boot_flags |= CMOS_RTC_NOT_PRESENT
    data = bytearray(FADT_SIZE - HEADER_SIZE)

    def put(offset: int, layout: str, *values: int) -> None:
        struct.pack_into("<" + layout, data, offset - HEADER_SIZE, *values)

    put(36, "II", facs_address, dsdt_address)
    put(45, "B", 1)  # preferred profile: desktop
    put(46, "H", platform.sci_irq)
    put(48, "I", 0)  # no command port for switching modes: the machine is always in ACPI mode
    put(56, "I", platform.pm1a_event)
    put(64, "I", platform.pm1a_control)
    put(76, "I", platform.pm_timer)
    put(80, "I", platform.gpe0 if platform.gpe0_bytes else 0)
    put(88, "BBBBB", 4, 2, 0, 4, platform.gpe0_bytes)  # lengths: PM1 event, PM1 control, PM2 control, PM timer, GPE0
    put(96, "HH", NO_C_STATE, NO_C_STATE)
    put(108, "B", CMOS_CENTURY if platform.has_cmos else 0)
    put(109, "H", boot_flags)
    put(112, "I", flags)
    data[116 - HEADER_SIZE : 128 - HEADER_SIZE] = generic_address(IO_SPACE, platform.reset_port, 8)
    put(128, "B", platform.reset_value)
    put(140, "Q", dsdt_address)  # the FACS is named once, by its 32-bit field
    data[148 - HEADER_SIZE : 268 - HEADER_SIZE] = b"".join(
        (
            generic_address(IO_SPACE, platform.pm1a_event, 32),
            NO_ADDRESS,
            generic_address(IO_SPACE, platform.pm1a_control, 16),
            NO_ADDRESS,
            NO_ADDRESS,
            generic_address(IO_SPACE, platform.pm_timer, 32),
            generic_address(IO_SPACE, platform.gpe0, 8 * platform.gpe0_bytes) if platform.gpe0_bytes else NO_ADDRESS,
            NO_ADDRESS,
            NO_ADDRESS,
            NO_ADDRESS,
        )
    )
    return table(b"FACP", 6, bytes(data))


def madt(platform: Platform) -> bytes:
    """Multiple APIC description table: processors, the I/O APIC, and how ISA interrupts reach it."""
    entries = [struct.pack("<BBBBI", 0, 8, cpu, cpu, 1) for cpu in range(platform.cpus)]
    entries.append(struct.pack("<BBBBII", 1, 12, platform.ioapic_id, 0, platform.ioapic_base, 0))
    entries.append(struct.pack("<BBBBIH", 2, 10, 0, 0, platform.pit_gsi, MPS_EDGE_CONFORMING))
    entries.append(struct.pack("<BBBBIH", 2, 10, 0, platform.sci_irq, platform.sci_irq, MPS_LEVEL_HIGH))
    entries.append(struct.pack("<BBBHB", 4, 6, 0xFF, 0, 1))  # NMI on LINT1 of every processor
    return table(b"APIC", 3, struct.pack("<II", platform.lapic_base, PCAT_COMPAT) + b"".join(entries))


def hpet(platform: Platform) -> bytes:
    """HPET description table (IA-PC HPET specification 1.0a, 3.2.4)."""
    address = generic_address(MEMORY_SPACE, platform.hpet_base, 64)
    return table(b"HPET", 1, struct.pack("<I12sBHB", platform.hpet_id, address, 0, 0x80, 0))


def mcfg(platform: Platform) -> bytes:
    """Where PCI configuration space is in memory (PCI firmware specification 3.0, 4.1.2)."""
    return table(b"MCFG", 1, struct.pack("<QQHBBI", 0, platform.ecam_base, 0, 0, platform.ecam_buses - 1, 0))


def dsdt(platform: Platform) -> bytes:
    """The devices that a guest can't find by itself."""
    routes = [
        aml.package(
            aml.integer(slot << 16 | 0xFFFF),
            aml.integer(pin),
            aml.integer(0),
            aml.integer(platform.pci_gsi(slot, pin)),
        )
        for slot in range(PCI_SLOTS)
        for pin in range(4)
    ]
    window_start, window_end = platform.pci_window
    bridge = [
        aml.name("_HID", aml.eisa_id("PNP0A08" if platform.has_ecam else "PNP0A03")),
        aml.name("_CID", aml.eisa_id("PNP0A03")),
        aml.name("_UID", aml.integer(0)),
        aml.name("_BBN", aml.integer(0)),
        aml.name(
            "_CRS",
            aml.resources(
                aml.bus_numbers(0, platform.ecam_buses - 1),
                aml.io_port(0xCF8, 8),
                aml.io_window(0, 0xCF7),
                aml.io_window(0xD00, 0xFFFF),
                aml.memory_window(0xA0000, 0xBFFFF),
                aml.memory_window(window_start, window_end - 1),
            ),
        ),
        aml.name("_PRT", aml.package(*routes)),
        _isa("COM1", "PNP0501", aml.io_port(platform.com1_port, 8), aml.irq(platform.com1_irq), unit=1),
    ]
    if platform.has_cmos:
        bridge.append(_isa("RTC", "PNP0B00", aml.io_port(platform.rtc_port, 8), aml.irq(platform.rtc_irq)))
    if platform.has_ps2:
        ports = aml.io_port(0x60, 1) + aml.io_port(0x64, 1)
        bridge.append(_isa("KBD", "PNP0303", ports, aml.irq(platform.keyboard_irq)))
        bridge.append(_isa("MOU", "PNP0F13", aml.irq(platform.mouse_irq)))
    system = [aml.device("PCI0", *bridge)]
    if platform.has_hpet:
        system.append(_isa("HPET", "PNP0103", aml.memory32(platform.hpet_base, 0x400), unit=0))
    if platform.has_ecam:
        ecam = aml.memory32(platform.ecam_base, platform.ecam_buses << 20)
        system.append(_isa("MRES", "PNP0C02", ecam, unit=0))
    for cpu in range(platform.cpus):
        system.append(
            aml.device(f"C{cpu:03X}", aml.name("_HID", aml.string("ACPI0007")), aml.name("_UID", aml.integer(cpu)))
        )
    sleep = aml.integer(platform.s5_sleep_type)
    return table(
        b"DSDT",
        2,
        aml.scope("\\_SB", *system)
        + aml.name("\\_S5", aml.package(sleep, sleep, aml.integer(0), aml.integer(0))),
    )  # fmt: skip


def _isa(path: str, hardware_id: str, *descriptors: bytes, unit: int | None = None) -> bytes:
    terms = [aml.name("_HID", aml.eisa_id(hardware_id))]
    if unit is not None:
        terms.append(aml.name("_UID", aml.integer(unit)))
    terms.append(aml.name("_CRS", aml.resources(*descriptors)))
    return aml.device(path, *terms)


def rsdp(rsdt_address: int, xsdt_address: int) -> bytes:
    """Root system description pointer, revision 2 (5.2.5.3)."""
    data = bytearray(struct.pack("<8sB6sBIIQB3x", b"RSD PTR ", 0, OEM_ID, 2, rsdt_address, RSDP_SIZE, xsdt_address, 0))
    data[8] = checksum(data[:20])
    data[32] = checksum(data)
    return bytes(data)


def build(platform: Platform, address: int) -> bytes:
    """All tables as one block for `address` (64-byte aligned), beginning with the RSDP."""
    block = bytearray(TABLE_ALIGNMENT)  # the RSDP comes last, when the addresses are known

    def add(data: bytes) -> int:
        block.extend(bytes(-len(block) % TABLE_ALIGNMENT))
        at = address + len(block)
        block.extend(data)
        return at

    facs_address = add(facs())
    dsdt_address = add(dsdt(platform))
    tables = [add(fadt(platform, facs_address, dsdt_address)), add(madt(platform))]
    if platform.has_hpet:
        tables.append(add(hpet(platform)))
    if platform.has_ecam:
        tables.append(add(mcfg(platform)))
    rsdt_address = add(table(b"RSDT", 1, struct.pack(f"<{len(tables)}I", *tables)))
    xsdt_address = add(table(b"XSDT", 1, struct.pack(f"<{len(tables)}Q", *tables)))
    block[:RSDP_SIZE] = rsdp(rsdt_address, xsdt_address)
    return bytes(block)
