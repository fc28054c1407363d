"""ACPI, SMBIOS and MP tables, found and read as a guest does; and the memory map."""

import itertools
import re
import struct
import subprocess
from pathlib import Path

import pytest

from pyemu.firmware import acpi, aml, e820
from pyemu.firmware.boot import BootRequest, prepare
from pyemu.firmware.boot_image import BootError, BootImage, E820Type
from pyemu.firmware.e820 import Layout
from pyemu.firmware.platform import Platform
from tests import judges
from tests.firmware import helpers
from tests.firmware.helpers import MIB, RAM

PLATFORMS = (
    Platform(),
    Platform.of("pc"),
    Platform(cpus=4, pm_timer_bits=32, has_vga=True, has_ps2=False, has_hpet=False),
)


@pytest.fixture(params=PLATFORMS, ids=("q35", "pc", "other"))
def platform(request: pytest.FixtureRequest) -> Platform:
    assert isinstance(request.param, Platform)
    return request.param


@pytest.fixture
def image(platform: Platform) -> BootImage:
    return prepare(BootRequest(RAM), platform)


def find(image: BootImage, signature: bytes, start: int) -> int:
    """The address of a signature on a 16-byte boundary below 1 MiB."""
    area = helpers.memory_of(image, start, MIB - start)
    return next(start + at for at in range(0, len(area), 16) if area.startswith(signature, at))


def table_at(image: BootImage, address: int) -> bytes:
    length = int.from_bytes(helpers.memory_of(image, address + 4, 4), "little")
    return helpers.memory_of(image, address, length)


def acpi_tables(image: BootImage) -> dict[bytes, bytes]:
    """All ACPI tables, through the XSDT; the RSDT must say the same."""
    at = find(image, b"RSD PTR ", 0xE0000)
    rsdp = helpers.memory_of(image, at, 36)
    assert sum(rsdp) % 256 == sum(rsdp[:20]) % 256 == 0
    assert rsdp[15] == 2
    rsdt = table_at(image, int.from_bytes(rsdp[16:20], "little"))
    xsdt = table_at(image, int.from_bytes(rsdp[24:32], "little"))
    assert sum(rsdt) % 256 == sum(xsdt) % 256 == 0
    addresses = [address for (address,) in struct.iter_unpack("<Q", xsdt[36:])]
    assert addresses == [address for (address,) in struct.iter_unpack("<I", rsdt[36:])]
    tables = {table_at(image, address)[:4]: table_at(image, address) for address in addresses}
    facp = tables[b"FACP"]
    for signature, offset in ((b"FACS", 36), (b"DSDT", 40)):
        address = int.from_bytes(facp[offset : offset + 4], "little")
        tables[signature] = table_at(image, address)
        assert tables[signature][:4] == signature
        assert address % 64 == 0
    for signature, table in tables.items():
        assert signature == b"FACS" or sum(table) % 256 == 0
    return tables


def test_which_tables(image: BootImage, platform: Platform) -> None:
    expected = {b"FACP", b"FACS", b"DSDT", b"APIC"}
    expected |= {b"HPET"} if platform.has_hpet else set()
    expected |= {b"MCFG"} if platform.has_ecam else set()
    assert set(acpi_tables(image)) == expected


def test_fadt(image: BootImage, platform: Platform) -> None:
    table = acpi_tables(image)[b"FACP"]
    assert len(table) == 276

    def u32(offset: int) -> int:
        return int.from_bytes(table[offset : offset + 4], "little")

    assert (u32(56), u32(64), u32(76), u32(80)) == (0x600, 0x604, 0x608, 0x620)
    assert table[88:93] == bytes([4, 2, 0, 4, 16])
    assert table[46:48] == b"\x09\0"
    assert bool(u32(112) & acpi.TMR_VAL_EXT) is (platform.pm_timer_bits == 32)
    assert u32(112) & acpi.RESET_REG_SUP
    assert table[116:129] == bytes.fromhex("01080001") + struct.pack("<QB", 0xCF9, 0x0F)
    flags = int.from_bytes(table[109:111], "little")
    assert bool(flags & acpi.HAS_8042) is platform.has_ps2
    assert bool(flags & acpi.VGA_NOT_PRESENT) is not platform.has_vga
    # The extended addresses say the same.
    for legacy, extended in ((56, 148), (64, 172), (76, 208), (80, 220)):
        assert int.from_bytes(table[extended + 4 : extended + 12], "little") == u32(legacy)
        assert table[extended] == acpi.IO_SPACE


def test_madt(image: BootImage, platform: Platform) -> None:
    table = acpi_tables(image)[b"APIC"]
    entries = []
    at = 44
    while at < len(table):
        entries.append((table[at], table[at + 2 : at + table[at + 1]]))
        at += table[at + 1]
    assert [body for kind, body in entries if kind == 0] == [
        struct.pack("<BBI", cpu, cpu, 1) for cpu in range(platform.cpus)
    ]
    assert (1, struct.pack("<BBII", platform.cpus, 0, 0xFEC0_0000, 0)) in entries
    assert (2, struct.pack("<BBIH", 0, 0, 2, 0)) in entries
    assert (2, struct.pack("<BBIH", 0, 9, 9, 0xD)) in entries


def test_mcfg_is_reserved_in_the_memory_map() -> None:
    platform = Platform()
    tables = acpi_tables(prepare(BootRequest(RAM), platform))
    base, segment, first, last = struct.unpack_from("<QHBB", tables[b"MCFG"], 44)
    assert (segment, first, last) == (0, 0, 255)
    assert any(
        entry.type is E820Type.RESERVED and entry.start == base and entry.length == 256 * MIB
        for entry in e820.memory_map(RAM, platform)
    )


def test_iasl_accepts_them(image: BootImage, tmp_path: Path) -> None:
    """Intel's compiler disassembles every table, and compiles the DSDT again without a complaint."""
    iasl = judges.require("iasl")
    for signature, table in acpi_tables(image).items():
        name = signature.decode().lower()
        (tmp_path / f"{name}.dat").write_bytes(table)
        run = subprocess.run(
            [iasl, "-d", f"{name}.dat"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
        )
        source = (tmp_path / f"{name}.dsl").read_text()
        for complaint in ("rror", "arning", "Invalid", "Incorrect"):
            assert complaint not in run.stdout + run.stderr, run.stdout + run.stderr
        for complaint in ("Invalid", "Incorrect", "terminates in the middle"):
            assert complaint not in source, source
    run = subprocess.run([iasl, "dsdt.dsl"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "0 Errors, 0 Warnings" in run.stdout
    text = (tmp_path / "dsdt.dsl").read_text()
    assert re.search(r"Name \(\\?_S5_?, Package \(0x04\)", text)
    assert 'EisaId ("PNP0501")' in text


def test_interrupt_routes_follow_the_wiring_of_each_board() -> None:
    q35, pc = Platform(), Platform.of("pc")
    assert [q35.pci_gsi(0, pin) for pin in range(4)] == [20, 21, 22, 23]
    assert [q35.pci_gsi(3, pin) for pin in range(4)] == [23, 20, 21, 22]
    assert [q35.pci_gsi(31, pin) for pin in range(4)] == [16, 17, 18, 19]
    assert [pc.pci_gsi(1, pin) for pin in range(4)] == [16, 17, 18, 19]
    assert [pc.pci_gsi(3, pin) for pin in range(4)] == [18, 19, 16, 17]
    with pytest.raises(ValueError, match="no board"):
        Platform.of("isapc")


# Encodings from the examples and tables of the specification (ACPI 6.4, 20.2).
@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        (aml.package_length(0x3E), b"\x3f"),
        (aml.package_length(0x3F), b"\x41\x04"),
        (aml.package_length(0xFFD), b"\x4f\xff"),
        (aml.package_length(0xFFE), b"\x81\x00\x01"),
        (aml.name_string("\\_SB.PCI0"), b"\\\x2e_SB_PCI0"),
        (aml.name_string("A.B.C"), b"\x2f\x03A___B___C___"),
        (aml.name_string("_S5"), b"_S5_"),
        (aml.integer(0), b"\0"),
        (aml.integer(1), b"\x01"),
        (aml.integer(2), b"\x0a\x02"),
        (aml.integer(0x1234), b"\x0b\x34\x12"),
        (aml.integer(0x12345678), b"\x0c\x78\x56\x34\x12"),
        (aml.integer(1 << 40), b"\x0e\0\0\0\0\0\x01\0\0"),
        (aml.string("ab"), b"\x0dab\0"),
        (aml.buffer(b"xyz"), b"\x11\x06\x0a\x03xyz"),
        (aml.package(aml.integer(1)), b"\x12\x03\x01\x01"),
        (aml.eisa_id("PNP0A03"), b"\x0c\x41\xd0\x0a\x03"),
        (aml.irq(4), b"\x22\x10\x00"),
        (aml.io_port(0x3F8, 8), b"\x47\x01\xf8\x03\xf8\x03\x01\x08"),
    ],
)
def test_aml(encoded: bytes, expected: bytes) -> None:
    assert encoded == expected


def test_aml_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="more than four characters"):
        aml.name_string("TOOLONG")
    with pytest.raises(ValueError, match="more than 64 bits"):
        aml.integer(1 << 64)
    with pytest.raises(ValueError, match="too large"):
        aml.package_length(1 << 28)


def test_smbios(image: BootImage, platform: Platform) -> None:
    at = find(image, b"_SM_", 0xF0000)
    entry = helpers.memory_of(image, at, 31)
    assert entry[5] == 31
    assert sum(entry) % 256 == 0
    assert entry[16:21] == b"_DMI_"
    assert sum(entry[16:31]) % 256 == 0
    length, address, count = struct.unpack_from("<HIH", entry, 22)
    data = helpers.memory_of(image, address, length)
    kinds = []
    offset = 0
    largest = 0
    while offset < length:
        end = data.index(b"\0\0", offset + data[offset + 1]) + 2
        largest = max(largest, end - offset)
        kinds.append(data[offset])
        offset = end
    assert offset == length
    assert kinds == [0, 1, 3] + [4] * platform.cpus + [16, 17, 19, 32, 127]
    assert count == len(kinds)
    assert int.from_bytes(entry[8:10], "little") == largest


def test_mp_table(image: BootImage, platform: Platform) -> None:
    at = find(image, b"_MP_", 0xF0000)
    pointer = helpers.memory_of(image, at, 16)
    assert sum(pointer) % 256 == 0
    address = int.from_bytes(pointer[4:8], "little")
    length = int.from_bytes(helpers.memory_of(image, address + 4, 2), "little")
    table = helpers.memory_of(image, address, length)
    assert table[:4] == b"PCMP"
    assert sum(table) % 256 == 0
    assert int.from_bytes(table[36:40], "little") == 0xFEE0_0000
    kinds = []
    offset = 44
    while offset < length:
        kinds.append(table[offset])
        offset += 20 if table[offset] == 0 else 8
    assert offset == length
    assert kinds.count(0) == platform.cpus
    assert kinds.count(3) == 15
    assert len(kinds) == int.from_bytes(table[34:36], "little")


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (RAM, [(0, RAM)]),
        (3 << 30, [(0, 3 << 30)]),
        (5 << 30, [(0, 3 << 30), (4 << 30, 2 << 30)]),
    ],
)
def test_ram_leaves_the_pci_hole_free(size: int, expected: list[tuple[int, int]]) -> None:
    assert e820.ram_ranges(size, Platform()) == expected
    ram = [entry for entry in e820.memory_map(size, Platform()) if entry.type is E820Type.RAM]
    assert (ram[0].start, ram[0].end) == (0, 0x9FC00)
    assert ram[1].start == MIB
    assert ram[1].end == expected[0][1]
    assert [(entry.start, entry.length) for entry in ram[2:]] == expected[1:]
    ordered = sorted(e820.memory_map(size, Platform()), key=lambda entry: entry.start)
    assert all(low.end <= high.start for low, high in itertools.pairwise(ordered))


def test_layout_refuses_overlaps_and_what_is_no_ram() -> None:
    layout = Layout(16 * MIB, Platform())
    layout.place(MIB, b"abc", "first", 4096)
    assert layout.zero == [(MIB + 3, 4093)]
    with pytest.raises(BootError, match=r"second .* overlaps first"):
        layout.place(MIB + 4095, b"x", "second")
    layout.place(MIB + 4096, b"x", "second")
    for address in (16 * MIB, 16 * MIB - 1, 1 << 32, 1 << 63):
        with pytest.raises(BootError, match="-m 16M does not provide"):
            layout.place(address, b"xy", "third")


def test_layout_finds_gaps() -> None:
    layout = Layout(16 * MIB, Platform())
    layout.place(0x2000, b"x" * 0x1000, "taken")
    assert layout.find(0x1000, "a", 0x1000, 0x10000) == 0x1000
    assert layout.find(0x1001, "a", 0x1000, 0x10000) == 0x3000
    assert layout.find(0x1000, "a", 0x1800, 0x10000, 0x1000) == 0x3000
    assert layout.find(0x1000, "a", 0x1000, 0x3000, 0x1000, top=True) == 0x1000
    assert layout.find(0x800, "a", 0, 1 << 40, 0x1000, top=True) == 16 * MIB - 0x1000
    with pytest.raises(BootError, match="no room for a"):
        layout.find(0x1001, "a", 0x1000, 0x3000)
