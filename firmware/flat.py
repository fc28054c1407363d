"""Guests without a header: a boot sector, a flat 32-bit image, a ROM given with -bios."""

from __future__ import annotations

import struct

from pyemu.firmware.boot_image import (
    ACCESS_CODE32,
    CR0_CD,
    CR0_ET,
    CR0_NW,
    CR0_PE,
    BootError,
    CpuMode,
    CpuStart,
    SegmentStart,
    TableStart,
    descriptor,
    flat_segments,
    real_mode_segments,
)
from pyemu.firmware.e820 import BIOS_AREA, HIGH_MEMORY, Layout
from pyemu.firmware.platform import Platform

SECTOR = 512
SECTOR_ADDRESS = 0x7C00
SIGNATURE = b"\x55\xaa"
FIRST_DISK = 0x80

ROM_UNIT = 64 << 10
ROM_MAXIMUM = 16 << 20
ROM_ALIAS = 128 << 10  # the end of the ROM is also visible below 1 MiB
RESET_CS = 0xF000
RESET_CS_BASE = 0xFFFF_0000
RESET_IP = 0xFFF0
RESET_RDX = 0x0006_0F00  # family, model, stepping as after power-on (SDM vol. 3, 9.1.1)

BIOS_STUB = 0xFFE00
RESET_VECTOR = 0xFFFF0
BIOS_SEGMENT = 0xF000


def bios_stub(platform: Platform) -> tuple[bytes, dict[str, int]]:
    """Real-mode handlers that stand in for a BIOS, with their offsets.

    They end hardware interrupts, print a character on the serial port for INT 10h/AH=0Eh, answer every other
    service with "not supported" (carry set, AH=86h), and reset the machine.
    """
    routines = {
        # push ax; mov al, 20h; out 20h, al; pop ax; iret
        "irq_master": bytes.fromhex("50 b020 e620 58 cf"),
        # push ax; mov al, 20h; out 0a0h, al; out 20h, al; pop ax; iret
        "irq_slave": bytes.fromhex("50 b020 e6a0 e620 58 cf"),
        # push bp; mov bp, sp; or word [bp+6], 1; pop bp; mov ah, 86h; iret
        "service": bytes.fromhex("55 89e5 834e0601 5d b486 cf"),
        # mov dx, port; mov al, value; out dx, al; 1: hlt; jmp 1b
        "reset": b"\xba" + struct.pack("<H", platform.reset_port) + bytes([0xB0, platform.reset_value])
        + bytes.fromhex("ee f4 ebfd"),
        # cmp ah, 0eh; je 1f; (as in service); 1: push dx; push ax; mov dx, com1+5;
        # 2: in al, dx; test al, 20h; jz 2b; pop ax; mov dx, com1; out dx, al; pop dx; iret
        "teletype": bytes.fromhex("80fc0e 740b 55 89e5 834e0601 5d b486 cf 52 50 ba")
        + struct.pack("<H", platform.com1_port + 5)
        + bytes.fromhex("ec a820 74fb 58 ba")
        + struct.pack("<H", platform.com1_port)
        + bytes.fromhex("ee 5a cf"),
    }  # fmt: skip
    code = bytearray()
    offsets = {}
    for name, routine in routines.items():
        offsets[name] = len(code)
        code += routine
    return bytes(code), offsets


def place_low_bios(layout: Layout, platform: Platform) -> None:
    """What every guest may look for below 1 MiB: interrupt vectors, BIOS data area, reset vector."""
    code, offsets = bios_stub(platform)
    base = BIOS_STUB - (BIOS_SEGMENT << 4)
    vectors = ["service"] * 256
    vectors[0x08:0x10] = ["irq_master"] * 8
    vectors[0x70:0x78] = ["irq_slave"] * 8
    vectors[0x10] = "teletype"
    table = b"".join(struct.pack("<HH", base + offsets[name], BIOS_SEGMENT) for name in vectors)
    layout.place(0, table, "interrupt vectors")
    data_area = bytearray(0x100)
    struct.pack_into("<H", data_area, 0x00, platform.com1_port)  # first serial port
    struct.pack_into("<H", data_area, 0x0E, 0x9FC0)  # segment of the extended BIOS data area
    struct.pack_into("<H", data_area, 0x13, 639)  # KiB of conventional memory
    layout.place(0x400, bytes(data_area), "BIOS data area")
    layout.place(BIOS_STUB, code, "BIOS stub")
    layout.place(RESET_VECTOR, b"\xea" + struct.pack("<HH", base + offsets["reset"], BIOS_SEGMENT), "reset vector")


def is_boot_sector(data: bytes) -> bool:
    """Whether the file is exactly one sector with the signature at its end."""
    return len(data) == SECTOR and data[-2:] == SIGNATURE


def load_boot_sector(data: bytes, layout: Layout) -> tuple[str, CpuStart]:
    """A boot sector at 0:7c00 in real mode, as a BIOS starts it from the first disk."""
    layout.place(SECTOR_ADDRESS, data, "boot sector")
    start = CpuStart(
        mode=CpuMode.REAL,
        rip=SECTOR_ADDRESS,
        segments=real_mode_segments(0, 0),
        gpr={"rdx": FIRST_DISK, "rsp": SECTOR_ADDRESS},
        idt=TableStart(0, 0x3FF),
        cr0=CR0_ET,
    )
    return "boot sector: real mode at 0:7c00 (no BIOS services but INT 10h/AH=0Eh, to the serial port)", start


def load_flat32(data: bytes, layout: Layout, address: int = HIGH_MEMORY, stack_top: int = 0x90000) -> CpuStart:
    """A flat image entered at its first byte in 32-bit protected mode, with flat segments and a stack."""
    layout.place(address, data, "flat image")
    segments = flat_segments(0x08, 0x10, ACCESS_CODE32)
    gdt = struct.pack("<3Q", 0, descriptor(segments["cs"]), descriptor(segments["ds"]))
    return CpuStart(
        mode=CpuMode.PROTECTED32,
        rip=address,
        segments=segments,
        gpr={"rsp": stack_top},
        gdt=TableStart(layout.put_low(gdt, "GDT"), len(gdt) - 1),
        idt=TableStart(0, 0),
        cr0=CR0_PE | CR0_ET,
    )


def load_rom(data: bytes) -> tuple[str, tuple[tuple[int, bytes], ...], CpuStart]:
    """A firmware ROM that ends at 4 GiB, its last 128 KiB also below 1 MiB; the processor as after power-on."""
    if len(data) % ROM_UNIT or not 0 < len(data) <= ROM_MAXIMUM:
        raise BootError(f"-bios: {len(data)} bytes; a ROM image has a multiple of 64 KiB, at most 16 MiB")
    alias = data[-ROM_ALIAS:]
    roms = (((1 << 32) - len(data), data), (BIOS_AREA + ROM_ALIAS - len(alias), alias))
    return f"ROM image of {len(data) >> 10} KiB: reset vector f000:fff0", roms, power_on()


def power_on() -> CpuStart:
    """The state of a processor after RESET (SDM vol. 3, table 9-1)."""
    segments = real_mode_segments(RESET_CS, RESET_CS_BASE)
    segments["cs"] = SegmentStart(RESET_CS, RESET_CS_BASE, 0xFFFF, segments["cs"].access)
    return CpuStart(
        mode=CpuMode.REAL,
        rip=RESET_IP,
        segments=segments,
        gpr={"rdx": RESET_RDX},
        cr0=CR0_CD | CR0_NW | CR0_ET,
    )
