"""The Linux boot protocol: what is placed where, and the state at the entry points."""

import struct

import pytest

from pyemu.firmware import linux_boot as lb
from pyemu.firmware.boot import BootRequest, prepare
from pyemu.firmware.boot_image import BootError, BootImage, CpuMode
from pyemu.firmware.e820 import LOW_MEMORY_END
from pyemu.firmware.platform import Platform
from tests.firmware import helpers
from tests.firmware.helpers import MIB, RAM, bzimage


def start(kernel: bytes, ram: int = RAM, **options: object) -> BootImage:
    image = prepare(BootRequest(ram, kernel, **options), Platform())  # type: ignore[arg-type]
    helpers.check_consistent(image, ram)
    return image


def boot_params(image: BootImage) -> bytes:
    return helpers.memory_of(image, image.cpu.gpr["rsi"], 4096)


def u32(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 4], "little")


def test_64bit_entry() -> None:
    image = start(bzimage(), append="console=ttyS0")
    cpu = image.cpu
    assert image.description == "Linux bzImage, boot protocol 2.15: 64-bit entry at 0x1000200"
    assert (cpu.mode, cpu.rip) == (CpuMode.LONG64, 16 * MIB + 0x200)
    assert cpu.cr0 & 0x8000_0001 == 0x8000_0001
    assert cpu.cr4 == 0x20
    assert cpu.efer == 0x500
    assert cpu.rflags == 2
    assert cpu.segments["cs"].selector == 0x10
    assert cpu.segments["cs"].access == 0xA09B
    assert cpu.segments["ds"].selector == 0x18
    assert helpers.memory_of(image, 16 * MIB, 0x400) == b"\x90" * 0x400


def test_gdt_holds_the_loaded_segments() -> None:
    image = start(bzimage())
    table = helpers.memory_of(image, image.cpu.gdt.base, image.cpu.gdt.limit + 1)
    assert struct.unpack("<4Q", table) == (0, 0, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF)


def test_page_tables_map_four_gib_onto_themselves() -> None:
    image = start(bzimage())

    def entry(table: int, index: int) -> int:
        return int.from_bytes(helpers.memory_of(image, table + 8 * index, 8), "little")

    pdpt = entry(image.cpu.cr3, 0)
    assert pdpt & 3 == 3
    for address in (0, 2 * MIB, 0x4000_0000, 0xFFE0_0000, 0x9ABC_0000):
        directory = entry(pdpt & ~0xFFF, address >> 30)
        leaf = entry(directory & ~0xFFF, address >> 21 & 511)
        assert leaf == address & ~0x1F_FFFF | 0x83
    assert entry(pdpt & ~0xFFF, 4) == 0


def test_32bit_entry_of_old_kernels() -> None:
    for kernel in (bzimage(xloadflags=0), bzimage(protocol=0x0205)):
        image = start(kernel)
        assert "32-bit entry" in image.description
        assert image.cpu.mode is CpuMode.PROTECTED32
        assert image.cpu.cr0 == 0x11
        assert image.cpu.cr3 == image.cpu.cr4 == image.cpu.efer == 0
        assert image.cpu.segments["cs"].access == 0xC09B
        assert u32(boot_params(image), lb.CODE32_START) == image.cpu.rip
    assert start(bzimage(protocol=0x0205)).cpu.rip == 2 * MIB  # no preferred address yet: the aligned 1 MiB


def test_kernel_that_is_not_relocatable_stays_where_it_wants() -> None:
    image = start(bzimage(relocatable=0))
    assert image.cpu.rip == MIB + 0x200
    # It will run at its preferred address, so the initrd must not be there.
    image = start(bzimage(relocatable=0), initrd=b"i" * 4096)
    assert u32(boot_params(image), lb.RAMDISK_IMAGE) >= 18 * MIB


def test_boot_params() -> None:
    image = start(bzimage(), append="a b=c", initrd=b"initrd" * 1000)
    params = boot_params(image)
    assert params[0x1EF] == 0  # the sentinel that says: all of this was set on purpose
    assert params[lb.HEADER_MAGIC : lb.HEADER_MAGIC + 4] == b"HdrS"
    assert params[lb.TYPE_OF_LOADER] == 0xFF
    assert helpers.string_at(image, u32(params, lb.CMD_LINE_PTR)) == b"a b=c"
    where, size = u32(params, lb.RAMDISK_IMAGE), u32(params, lb.RAMDISK_SIZE)
    assert helpers.memory_of(image, where, size) == b"initrd" * 1000
    assert where % 4096 == 0
    assert where + size > RAM - 8192  # as high as possible
    rsdp = int.from_bytes(params[lb.ACPI_RSDP_ADDR : lb.ACPI_RSDP_ADDR + 8], "little")
    assert helpers.memory_of(image, rsdp, 8) == b"RSD PTR "
    entries = [
        struct.unpack_from("<QQI", params, lb.E820_TABLE + 20 * index) for index in range(params[lb.E820_ENTRIES])
    ]
    assert entries == [(entry.start, entry.length, entry.type.value) for entry in image.e820]
    assert image.cpu.gpr["rsi"] < LOW_MEMORY_END


def test_no_initrd_is_zero() -> None:
    params = boot_params(start(bzimage()))
    assert u32(params, lb.RAMDISK_IMAGE) == u32(params, lb.RAMDISK_SIZE) == 0


def test_initrd_respects_the_kernels_limit() -> None:
    image = start(bzimage(initrd_max=64 * MIB - 1), initrd=b"x" * MIB)
    assert u32(boot_params(image), lb.RAMDISK_IMAGE) == 63 * MIB


def test_initrd_too_large() -> None:
    with pytest.raises(BootError, match=r"^initrd of 115\.0 MiB does not fit: .* -m 128M$"):
        start(bzimage(), initrd=bytes(115 * MIB))
    with pytest.raises(BootError, match="initrd: more than 128 MiB"):
        start(bzimage(), initrd=bytes(129 * MIB))


def test_memory_too_small_for_the_kernel() -> None:
    with pytest.raises(BootError, match=r"kernel needs 18\.0 MiB of memory .* -m 16M is too small"):
        start(bzimage(), ram=16 * MIB)


def test_command_line_too_long() -> None:
    start(bzimage(), append="x" * 255)
    with pytest.raises(BootError, match="-append has 256 bytes, this kernel takes 255"):
        start(bzimage(), append="x" * 256)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (bzimage()[:100], "truncated|no kernel"),
        (bzimage()[:0x240], "truncated bzImage"),
        (bzimage()[:2560], "truncated bzImage"),
        (bzimage()[:-64], r"truncated bzImage \(\d+ bytes of \d+\)"),
        (bzimage(protocol=0x0201), "2.01 is too old"),
        (bzimage(loadflags=0), "zImage"),
        (bzimage(alignment=3), "alignment 0x3"),
    ],
    ids=helpers.short_id,
)
def test_bad_kernels(kernel: bytes, message: str) -> None:
    with pytest.raises(BootError, match=message):
        start(kernel)


def test_bss_of_the_loader_area_is_zero() -> None:
    image = start(bzimage(init_size=4 * MIB))
    size = len(bzimage()) - 2560
    assert (16 * MIB + size, 4 * MIB - size) in image.zero


def vmlinux(**options: object) -> bytes:
    return helpers.elf_file(
        load=16 * MIB,
        vaddr=0xFFFF_FFFF_8100_0000,
        code=b"\xf4" * 100 + b"Linux version 6",
        **options,  # type: ignore[arg-type]
    )


def test_unpacked_kernel() -> None:
    kernel = vmlinux(memory_size=3 * MIB)
    image = start(bzimage(payload=helpers.xz_payload(kernel)), unpack=True, append="quiet", initrd=b"abc")
    assert image.description == "Linux bzImage, unpacked here (xz, no KASLR): 64-bit entry at 0x1000000"
    assert image.cpu.mode is CpuMode.LONG64
    assert image.cpu.rip == 16 * MIB
    params = boot_params(image)
    assert helpers.string_at(image, u32(params, lb.CMD_LINE_PTR)) == b"quiet"
    assert helpers.memory_of(image, 16 * MIB, 100) == b"\xf4" * 100
    assert (16 * MIB + 115, 3 * MIB - 115) in image.zero


def test_vmlinux_with_a_virtual_entry() -> None:
    image = start(vmlinux(entry=0xFFFF_FFFF_8100_0010))
    assert image.cpu.rip == 16 * MIB + 0x10
    assert image.description == "Linux kernel proper (ELF64): 64-bit entry at 0x1000010"


def test_unpacked_32bit_kernel_is_refused() -> None:
    payload = helpers.xz_payload(helpers.elf_file(bits=32, load=16 * MIB))
    with pytest.raises(BootError, match="ELF32 for i386, only 64-bit ones"):
        start(bzimage(payload=payload), unpack=True)


def test_entry_outside_the_kernel() -> None:
    payload = helpers.xz_payload(vmlinux(entry=0x5000_0000))
    with pytest.raises(BootError, match="entry point 0x50000000 lies outside"):
        start(bzimage(payload=payload), unpack=True)
