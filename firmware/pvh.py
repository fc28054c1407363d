"""The PVH entry: an ELF file with Xen's note 18, entered in 32-bit protected mode with an hvm_start_info.

Layouts: xen/include/public/arch-x86/hvm/start_info.h; docs/misc/pvh.pandoc for the processor's state.
"""

from __future__ import annotations

import struct

from pyemu.firmware import elf
from pyemu.firmware.boot_image import (
    ACCESS_CODE32,
    CR0_ET,
    CR0_PE,
    BootError,
    CpuMode,
    CpuStart,
    E820Entry,
    TableStart,
    flat_segments,
)
from pyemu.firmware.e820 import Layout
from pyemu.firmware.linux_boot import place_initrd

NOTE_OWNER = b"Xen"
NOTE_PHYS32_ENTRY = 18
START_INFO_MAGIC = 0x336EC578
START_INFO_VERSION = 1
START_INFO = struct.Struct("<IIIIQQQQII")  # magic version flags nr_modules modlist cmdline rsdp memmap entries reserved
MODULE = struct.Struct("<QQQQ")  # address size command line reserved
MEMMAP_ENTRY = struct.Struct("<QQII")  # address size type reserved
INITRD_LIMIT = 1 << 31


def entry_point(image: elf.Elf) -> int | None:
    """The physical entry point that the note names, if there is such a note."""
    for owner, note_type, description in image.notes():
        if owner == NOTE_OWNER and note_type == NOTE_PHYS32_ENTRY and len(description) in (4, 8):
            return int.from_bytes(description, "little")
    return None


def load(
    image: elf.Elf, initrd: bytes, command_line: bytes, layout: Layout, memory_map: tuple[E820Entry, ...], rsdp: int
) -> tuple[str, CpuStart]:
    """Place the kernel, its initrd and the start_info; returns a description and the first state."""
    entry = entry_point(image)
    if entry is None or not image.is_loaded(entry):
        raise BootError("kernel: the PVH entry point lies outside the loaded segments")
    image.place(layout, "kernel")
    end = max(segment.paddr + segment.memory_size for segment in image.loads())
    modules = b""
    if initrd:
        modules = MODULE.pack(place_initrd(layout, initrd, end, INITRD_LIMIT), len(initrd), 0, 0)
    memmap = b"".join(MEMMAP_ENTRY.pack(e.start, e.length, e.type.value, 0) for e in memory_map)
    info = START_INFO.pack(
        START_INFO_MAGIC,
        START_INFO_VERSION,
        0,
        1 if modules else 0,
        layout.put_low(modules, "module list") if modules else 0,
        layout.put_low(command_line + b"\0", "command line"),
        rsdp,
        layout.put_low(memmap, "memory map"),
        len(memory_map),
        0,
    )
    start = CpuStart(
        mode=CpuMode.PROTECTED32,
        rip=entry,
        segments=flat_segments(0x08, 0x10, ACCESS_CODE32),
        gpr={"rbx": layout.put_low(info, "start_info")},
        gdt=TableStart(0, 0),
        idt=TableStart(0, 0),
        cr0=CR0_PE | CR0_ET,
    )
    return f"{image.kind} with a PVH note: 32-bit entry at {entry:#x}", start
