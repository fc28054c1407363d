"""fw_cfg: how firmware and kernels fetch configuration blobs from the emulator (selector and data ports, DMA, file
directory).

Reference: QEMU's docs/specs/fw_cfg.rst (the interface is theirs; Linux documents its side in
drivers/firmware/qemu_fw_cfg.c). Items are read-only: writes by DMA fail, those through the data port have had no
effect in QEMU since 2.4 either.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from pyemu.devices.device import ALL_ONES, Device
from pyemu.devices.interfaces import GuestMemory

SELECTOR, DATA, DMA = 0, 1, 4  # port offsets from 0x510
DMA_WINDOW = 8

KEY_SIGNATURE, KEY_ID, KEY_RAM_SIZE, KEY_NUM_CPUS, KEY_MAX_CPUS, KEY_FILE_DIRECTORY = 0x00, 0x01, 0x03, 0x05, 0x0F, 0x19
KEY_FIRST_FILE = 0x20
KEY_IRQ0_OVERRIDE = 0x8002  # PC: nonzero if ISA interrupt 0 is the I/O APIC's input 2
FILE_E820 = "etc/e820"
FILE_BOOT_FAIL_WAIT = "etc/boot-fail-wait"  # milliseconds until firmware that found nothing to boot tries again, or -1
E820_FORMAT = struct.Struct("<QQI")  # an entry of that file: address, length, type
SIGNATURE = b"QEMU"
ID_TRADITIONAL, ID_DMA = 0x1, 0x2
DMA_SIGNATURE = 0x51454D5520434647  # "QEMU CFG"
MAX_FILE_NAME = 55
KEY_MASK = 0xBFFF  # bit 14 once asked for writing

# FWCfgDmaAccess: control, length, address, all big-endian
DMA_FORMAT = struct.Struct(">IIQ")
DMA_ERROR, DMA_READ, DMA_SKIP, DMA_SELECT, DMA_WRITE = 1, 2, 4, 8, 16
ZERO_CHUNK = 1 << 20


@dataclass(slots=True)
class FwCfgState:
    key: int = 0
    offset: int = 0
    dma_high: int = 0


class FwCfg(Device):
    """`items` by key, `files` by name. `memory` is what DMA reaches. Contents belong to the machine's set-up, not to
    the state."""

    state: FwCfgState

    def __init__(
        self, memory: GuestMemory, items: Mapping[int, bytes] | None = None, files: Mapping[str, bytes] | None = None
    ) -> None:
        self._memory = memory
        self._items: dict[int, bytes] = {
            KEY_SIGNATURE: SIGNATURE,
            KEY_ID: struct.pack("<I", ID_TRADITIONAL | ID_DMA),
        }
        self._files: dict[str, int] = {}
        self.state = FwCfgState()
        for key, data in (items or {}).items():
            self.add_item(key, data)
        self._write_directory()
        for name, data in (files or {}).items():
            self.add_file(name, data)

    def add_item(self, key: int, data: bytes) -> None:
        if not 0 <= key <= 0xFFFF or key & ~KEY_MASK:
            raise ValueError(f"impossible fw_cfg key {key:#x}")
        self._items[key] = bytes(data)

    def add_file(self, name: str, data: bytes) -> None:
        if not 0 < len(name) <= MAX_FILE_NAME or not name.isascii():
            raise ValueError(f"impossible fw_cfg file name {name!r}")
        key = self._files.setdefault(name, KEY_FIRST_FILE + len(self._files))
        self._items[key] = bytes(data)
        self._write_directory()

    def _write_directory(self) -> None:
        directory = bytearray(struct.pack(">I", len(self._files)))
        for name, key in sorted(self._files.items()):
            directory += struct.pack(">IHH56s", len(self._items[key]), key, 0, name.encode())
        self._items[KEY_FILE_DIRECTORY] = bytes(directory)

    def reset(self) -> None:
        self.state = FwCfgState()

    # Ports

    def port_read(self, offset: int, size: int) -> int:
        if offset == DATA:
            return self._next_byte() if size == 1 else ALL_ONES[size] & ~0xFF | self._next_byte()
        if offset >= DMA:
            at = offset - DMA
            if at + size > DMA_WINDOW:
                return ALL_ONES[size]
            return int.from_bytes(DMA_SIGNATURE.to_bytes(8, "big")[at : at + size], "little")
        return self.state.key if offset == SELECTOR and size == 2 else ALL_ONES[size]

    def port_write(self, offset: int, size: int, value: int) -> None:
        s = self.state
        if offset == SELECTOR and size <= 2:
            s.key = value & KEY_MASK
            s.offset = 0
        elif offset == DMA and size == 4:
            s.dma_high = int.from_bytes(value.to_bytes(4, "little"), "big")
        elif offset == DMA + 4 and size == 4:
            address = s.dma_high << 32 | int.from_bytes(value.to_bytes(4, "little"), "big")
            s.dma_high = 0
            self._dma(address)

    def _next_byte(self) -> int:
        s = self.state
        item = self._items.get(s.key, b"")
        if s.offset >= len(item):
            return 0
        s.offset += 1
        return item[s.offset - 1]

    # DMA

    def _dma(self, address: int) -> None:
        """Carry out the request at `address`; its control word becomes 0, or the error bit."""
        try:
            control, length, target = DMA_FORMAT.unpack(self._read_memory(address, DMA_FORMAT.size))
        except ValueError:
            return  # no place to report it
        s = self.state
        if control & DMA_SELECT:
            s.key = control >> 16 & KEY_MASK
            s.offset = 0
        result = 0
        if control & DMA_READ:
            try:
                self._transfer(target, length)
            except ValueError:
                result = DMA_ERROR
        elif control & DMA_WRITE:
            result = DMA_ERROR
        elif control & DMA_SKIP:
            s.offset = min(s.offset + length, len(self._items.get(s.key, b"")))
        self._memory.write(address, struct.pack(">I", result))

    def _read_memory(self, address: int, length: int) -> bytes:
        if address + length > self._memory.size:
            raise ValueError("beyond RAM")
        return self._memory.read(address, length)

    def _transfer(self, target: int, length: int) -> None:
        """Copy from the selected item to memory; what lies beyond its end is zeros."""
        if target + length > self._memory.size:
            raise ValueError("beyond RAM")
        s = self.state
        item = self._items.get(s.key, b"")
        data = item[s.offset : s.offset + length]
        s.offset += len(data)
        if data:
            self._memory.write(target, data)
        at, end = target + len(data), target + length
        while at < end:
            chunk = min(end - at, ZERO_CHUNK)
            self._memory.write(at, bytes(chunk))
            at += chunk
