"""Linux's x86 boot protocol: a bzImage, or the kernel proper that was unpacked from one.

Offsets and rules: Documentation/arch/x86/boot.rst and zero-page.rst of Linux. The real-mode part of a bzImage is
never run: the loader does what it would do, from its own knowledge of the machine, and enters the 64-bit entry,
or the 32-bit one of kernels that have no other.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pyemu.firmware import elf
from pyemu.firmware.boot_image import (
    ACCESS_CODE32,
    ACCESS_CODE64,
    CR0_ET,
    CR0_PE,
    CR0_PG,
    CR4_PAE,
    EFER_LMA,
    EFER_LME,
    BootError,
    CpuMode,
    CpuStart,
    E820Entry,
    SegmentStart,
    TableStart,
    descriptor,
    flat_segments,
)
from pyemu.firmware.e820 import HIGH_MEMORY, MIB, Layout
from pyemu.firmware.platform import Platform

# Setup header, offsets in the file and in boot_params alike.
SETUP_SECTS = 0x1F1
SYSSIZE = 0x1F4
BOOT_FLAG = 0x1FE
JUMP = 0x200
HEADER_MAGIC = 0x202
VERSION = 0x206
TYPE_OF_LOADER = 0x210
LOADFLAGS = 0x211
CODE32_START = 0x214
RAMDISK_IMAGE = 0x218
RAMDISK_SIZE = 0x21C
CMD_LINE_PTR = 0x228
INITRD_ADDR_MAX = 0x22C
KERNEL_ALIGNMENT = 0x230
RELOCATABLE_KERNEL = 0x234
XLOADFLAGS = 0x236
CMDLINE_SIZE = 0x238
PAYLOAD_OFFSET = 0x248
PREF_ADDRESS = 0x258
INIT_SIZE = 0x260
HEADER_END = 0x268

# Other fields of boot_params (the "zero page").
ORIG_VIDEO_MODE = 0x06
ORIG_VIDEO_COLS = 0x07
ORIG_VIDEO_LINES = 0x0E
ORIG_VIDEO_IS_VGA = 0x0F
ORIG_VIDEO_POINTS = 0x10
EXT_MEM_K = 0x02
ACPI_RSDP_ADDR = 0x70
ALT_MEM_K = 0x1E0
E820_ENTRIES = 0x1E8
E820_TABLE = 0x2D0
E820_MAX = 128
BOOT_PARAMS_SIZE = 0x1000

LOADED_HIGH = 1 << 0  # loadflags
XLF_KERNEL_64 = 1 << 0  # xloadflags
ENTRY64_OFFSET = 0x200
LOADER_UNDEFINED = 0xFF

MAGIC = b"HdrS"
PROTOCOL_MINIMUM = 0x0202  # the first with a 32-bit command line pointer
PROTOCOL_CMDLINE_SIZE = 0x0206
PROTOCOL_SYSSIZE = 0x0204
PROTOCOL_RELOCATABLE = 0x0205
PROTOCOL_PAYLOAD = 0x0208
PROTOCOL_INIT_SIZE = 0x020A
PROTOCOL_XLOADFLAGS = 0x020C

BOOT_CS = 0x10
BOOT_DS = 0x18

PAGE_PRESENT_WRITE = 0x3  # page table entry bits (SDM vol. 3, 4.5)
PAGE_LARGE = 1 << 7
MAPPED_GIB = 4
PAGE = 4096


@dataclass(frozen=True)
class SetupHeader:
    """The fields of a bzImage's setup header that matter here."""

    protocol: int
    setup_bytes: int  # size of the real-mode part
    header_end: int  # where the setup header ends in the file
    code32_start: int
    initrd_addr_max: int
    alignment: int
    relocatable: bool
    xloadflags: int
    cmdline_size: int
    payload_offset: int  # in the protected-mode part
    payload_length: int
    pref_address: int
    init_size: int

    @property
    def has_64bit_entry(self) -> bool:
        """Whether the kernel has the 64-bit entry point."""
        return bool(self.xloadflags & XLF_KERNEL_64)

    @property
    def version(self) -> str:
        """The protocol version as text."""
        return f"{self.protocol >> 8}.{self.protocol & 0xFF:02d}"


def is_bzimage(data: bytes) -> bool:
    """Whether the file has a setup header."""
    return data[HEADER_MAGIC : HEADER_MAGIC + 4] == MAGIC


def parse_header(data: bytes) -> SetupHeader:
    """Read and check the setup header."""

    def u32(offset: int, since: int, default: int) -> int:
        return int.from_bytes(data[offset : offset + 4], "little") if protocol >= since else default

    if len(data) < HEADER_END:
        raise BootError(f"kernel: truncated bzImage ({len(data)} bytes)")
    if data[BOOT_FLAG : BOOT_FLAG + 2] != b"\x55\xaa":
        raise BootError("kernel: damaged bzImage (no 55 aa at 0x1fe)")
    protocol = int.from_bytes(data[VERSION : VERSION + 2], "little")
    if protocol < PROTOCOL_MINIMUM:
        raise BootError(f"kernel: boot protocol {protocol >> 8}.{protocol & 0xFF:02d} is too old, 2.02 is needed")
    if not data[LOADFLAGS] & LOADED_HIGH:
        raise BootError("kernel: a zImage (loaded below 1 MiB); only bzImages are supported")
    setup_bytes = ((data[SETUP_SECTS] or 4) + 1) * 512
    header_end = HEADER_MAGIC + data[JUMP + 1]
    if not CMD_LINE_PTR + 4 <= header_end <= E820_TABLE or header_end > setup_bytes:
        raise BootError("kernel: damaged bzImage (impossible size of the setup header)")
    body = len(data) - setup_bytes
    if body <= 0:
        raise BootError(f"kernel: truncated bzImage ({len(data)} bytes, its setup alone has {setup_bytes})")
    needed = u32(SYSSIZE, PROTOCOL_SYSSIZE, 0) * 16
    # syssize counts paragraphs, the last of which the file may fill only in part.
    if needed - 15 > body:
        raise BootError(f"kernel: truncated bzImage ({len(data)} bytes of {setup_bytes + needed})")
    alignment = u32(KERNEL_ALIGNMENT, PROTOCOL_RELOCATABLE, 0)
    relocatable = protocol >= PROTOCOL_RELOCATABLE and data[RELOCATABLE_KERNEL] != 0
    if relocatable and (alignment == 0 or alignment & (alignment - 1)):
        raise BootError(f"kernel: damaged bzImage (alignment {alignment:#x})")
    xloadflags = int.from_bytes(data[XLOADFLAGS : XLOADFLAGS + 2], "little") if protocol >= PROTOCOL_XLOADFLAGS else 0
    if xloadflags & XLF_KERNEL_64 and body <= ENTRY64_OFFSET:
        raise BootError(f"kernel: truncated bzImage ({len(data)} bytes)")
    return SetupHeader(
        protocol=protocol,
        setup_bytes=setup_bytes,
        header_end=header_end,
        code32_start=u32(CODE32_START, 0, HIGH_MEMORY),
        initrd_addr_max=u32(INITRD_ADDR_MAX, 0x0203, 0x37FF_FFFF),
        alignment=max(alignment, PAGE),
        relocatable=relocatable,
        xloadflags=xloadflags,
        cmdline_size=u32(CMDLINE_SIZE, PROTOCOL_CMDLINE_SIZE, 255),
        payload_offset=u32(PAYLOAD_OFFSET, PROTOCOL_PAYLOAD, 0),
        payload_length=u32(PAYLOAD_OFFSET + 4, PROTOCOL_PAYLOAD, 0),
        pref_address=int.from_bytes(data[PREF_ADDRESS : PREF_ADDRESS + 8], "little")
        if protocol >= PROTOCOL_INIT_SIZE
        else HIGH_MEMORY,
        init_size=u32(INIT_SIZE, PROTOCOL_INIT_SIZE, 0),
    )


def payload(data: bytes, header: SetupHeader) -> bytes:
    """The compressed kernel inside a bzImage."""
    start = header.setup_bytes + header.payload_offset
    if not header.payload_length:
        raise BootError(f"kernel: boot protocol {header.version} does not say where the compressed kernel is")
    if start + header.payload_length > len(data):
        raise BootError(f"kernel: truncated bzImage ({len(data)} bytes, the payload ends later)")
    return data[start : start + header.payload_length]


def place_initrd(layout: Layout, initrd: bytes, lowest: int, highest: int, align: int = PAGE) -> int:
    """Put the initrd as high as allowed, as other loaders do; returns its address."""
    if not initrd:
        return 0
    room = min(highest, layout.low_ram_end) - lowest
    try:
        address = layout.find(len(initrd), "initrd", lowest, highest, align, top=True)
    except BootError as error:
        raise BootError(
            f"initrd of {_mib(len(initrd))} does not fit: the kernel leaves {_mib(max(room, 0))} "
            f"of -m {layout.ram_size // MIB}M"
        ) from error
    layout.place(address, initrd, "initrd")
    return address


def _mib(size: int) -> str:
    return f"{size / MIB:.1f} MiB"


def load_bzimage(
    data: bytes,
    initrd: bytes,
    command_line: bytes,
    layout: Layout,
    memory_map: tuple[E820Entry, ...],
    platform: Platform,
    rsdp: int,
) -> tuple[str, CpuStart]:
    """Place a bzImage and what it needs; returns a description and the first state of the processor."""
    header = parse_header(data)
    body = data[header.setup_bytes :]
    load = header.code32_start
    if header.relocatable:
        # At its preferred address the kernel need not move itself.
        load = header.pref_address if header.protocol >= PROTOCOL_INIT_SIZE else HIGH_MEMORY
        load = max((load + header.alignment - 1) & ~(header.alignment - 1), HIGH_MEMORY)
    # A kernel that isn't relocatable unpacks itself at pref_address, wherever the image is.
    runs_at = load if header.relocatable else max(load, header.pref_address)
    end = max(load + len(body), runs_at + header.init_size)
    if end > layout.low_ram_end:
        raise BootError(
            f"kernel needs {_mib(end)} of memory to unpack itself, -m {layout.ram_size // MIB}M is too small"
        )
    layout.place(load, body, "kernel", end - load)
    boot_params = bytearray(BOOT_PARAMS_SIZE)
    boot_params[SETUP_SECTS : header.header_end] = data[SETUP_SECTS : header.header_end]
    struct.pack_into("<I", boot_params, CODE32_START, load)
    address = _place_boot_params(boot_params, header, initrd, command_line, layout, memory_map, platform, rsdp, end)
    if header.has_64bit_entry:
        entry = load + ENTRY64_OFFSET
        return (
            f"Linux bzImage, boot protocol {header.version}: 64-bit entry at {entry:#x}",
            _start64(entry, address, layout),
        )
    return (
        f"Linux bzImage, boot protocol {header.version}: 32-bit entry at {load:#x}",
        _start32(load, address, layout),
    )


def load_vmlinux(
    image: elf.Elf,
    header_bytes: bytes,
    initrd: bytes,
    command_line: bytes,
    layout: Layout,
    memory_map: tuple[E820Entry, ...],
    platform: Platform,
    rsdp: int,
) -> tuple[str, CpuStart]:
    """Place a 64-bit kernel proper, as the stub of its bzImage would have done, without address randomisation.

    `header_bytes` is the bzImage that it came from (its setup header is handed on), or empty.
    """
    if not image.is_64bit or image.machine != elf.MACHINE_X86_64:
        raise BootError(f"kernel: the unpacked kernel is an {image.kind}, only 64-bit ones are entered directly")
    entry = image.entry if image.is_loaded(image.entry) else image.physical(image.entry)
    if not image.is_loaded(entry):
        raise BootError(f"kernel: the entry point {image.entry:#x} lies outside the loaded segments")
    image.place(layout, "kernel")
    boot_params = bytearray(BOOT_PARAMS_SIZE)
    header = None
    if header_bytes:
        header = parse_header(header_bytes)
        boot_params[SETUP_SECTS : header.header_end] = header_bytes[SETUP_SECTS : header.header_end]
    else:
        struct.pack_into("<H", boot_params, BOOT_FLAG, 0xAA55)
        boot_params[HEADER_MAGIC : HEADER_MAGIC + 4] = MAGIC
        struct.pack_into("<H", boot_params, VERSION, 0x020F)
    boot_params[LOADFLAGS] |= LOADED_HIGH
    end = max(segment.paddr + segment.memory_size for segment in image.loads())
    if header is not None:
        end = max(end, header.pref_address + header.init_size)  # the kernel's early allocations (brk)
    address = _place_boot_params(boot_params, header, initrd, command_line, layout, memory_map, platform, rsdp, end)
    return f"64-bit entry at {entry:#x}", _start64(entry, address, layout)


def _place_boot_params(
    boot_params: bytearray,
    header: SetupHeader | None,
    initrd: bytes,
    command_line: bytes,
    layout: Layout,
    memory_map: tuple[E820Entry, ...],
    platform: Platform,
    rsdp: int,
    kernel_end: int,
) -> int:
    """Fill in boot_params, place it with the command line and the initrd; returns its address."""
    limit = header.cmdline_size if header else 2047
    if len(command_line) > limit:
        raise BootError(f"-append has {len(command_line)} bytes, this kernel takes {limit}")
    initrd_limit = header.initrd_addr_max + 1 if header else 1 << 31
    struct.pack_into("<I", boot_params, CMD_LINE_PTR, layout.put_low(command_line + b"\0", "command line"))
    initrd_address = place_initrd(layout, initrd, kernel_end, initrd_limit)
    struct.pack_into("<II", boot_params, RAMDISK_IMAGE, initrd_address, len(initrd))
    boot_params[TYPE_OF_LOADER] = LOADER_UNDEFINED
    struct.pack_into("<Q", boot_params, ACPI_RSDP_ADDR, rsdp)
    if platform.has_vga:
        boot_params[ORIG_VIDEO_MODE] = 3
        boot_params[ORIG_VIDEO_COLS] = 80
        boot_params[ORIG_VIDEO_LINES] = 25
        boot_params[ORIG_VIDEO_IS_VGA] = 1
        boot_params[ORIG_VIDEO_POINTS] = 16
    above_1m = layout.low_ram_end - HIGH_MEMORY
    struct.pack_into("<H", boot_params, EXT_MEM_K, min(above_1m // 1024, 0xFFFF))
    struct.pack_into("<I", boot_params, ALT_MEM_K, above_1m // 1024)
    entries = memory_map[:E820_MAX]
    boot_params[E820_ENTRIES] = len(entries)
    for index, entry in enumerate(entries):
        struct.pack_into("<QQI", boot_params, E820_TABLE + 20 * index, entry.start, entry.length, entry.type.value)
    return layout.put_low(bytes(boot_params), "boot_params", PAGE)


def _place_gdt(layout: Layout, code: SegmentStart, data: SegmentStart) -> TableStart:
    """The descriptor table that the boot protocol wants: code at selector 0x10, data at 0x18."""
    table = struct.pack("<4Q", 0, 0, descriptor(code), descriptor(data))
    return TableStart(layout.put_low(table, "GDT"), len(table) - 1)


def _start32(entry: int, boot_params: int, layout: Layout) -> CpuStart:
    segments = flat_segments(BOOT_CS, BOOT_DS, ACCESS_CODE32)
    return CpuStart(
        mode=CpuMode.PROTECTED32,
        rip=entry,
        segments=segments,
        gpr={"rsi": boot_params},
        gdt=_place_gdt(layout, segments["cs"], segments["ds"]),
        idt=TableStart(0, 0),
        cr0=CR0_PE | CR0_ET,
    )


def _start64(entry: int, boot_params: int, layout: Layout) -> CpuStart:
    segments = flat_segments(BOOT_CS, BOOT_DS, ACCESS_CODE64)
    return CpuStart(
        mode=CpuMode.LONG64,
        rip=entry,
        segments=segments,
        gpr={"rsi": boot_params},
        gdt=_place_gdt(layout, segments["cs"], segments["ds"]),
        idt=TableStart(0, 0),
        cr0=CR0_PE | CR0_ET | CR0_PG,
        cr3=place_identity_map(layout),
        cr4=CR4_PAE,
        efer=EFER_LME | EFER_LMA,
    )


def place_identity_map(layout: Layout) -> int:
    """Page tables that map the first 4 GiB onto themselves with 2 MiB pages; returns the address for CR3."""
    base = layout.find(PAGE * (2 + MAPPED_GIB), "page tables", PAGE, 0x98000, PAGE)
    tables = bytearray(PAGE * (2 + MAPPED_GIB))
    struct.pack_into("<Q", tables, 0, base + PAGE | PAGE_PRESENT_WRITE)
    for gib in range(MAPPED_GIB):
        directory = base + PAGE * (2 + gib)
        struct.pack_into("<Q", tables, PAGE + 8 * gib, directory | PAGE_PRESENT_WRITE)
        for index in range(512):
            address = gib << 30 | index << 21
            struct.pack_into("<Q", tables, directory - base + 8 * index, address | PAGE_LARGE | PAGE_PRESENT_WRITE)
    layout.place(base, bytes(tables), "page tables")
    return base
