"""Makes a multiboot kernel of GRUB: Debian's modules for coreboot, the same source as GRUB's own multiboot platform.

That GRUB starts by multiboot but asks coreboot where memory is, so it is wrapped into a kernel that brings a coreboot
table along and copies both to where they belong: a low address, to which not every multiboot loader can load.
References: GRUB 2.06, grub-core/kern/i386/coreboot/cbtable.c; coreboot,
src/commonlib/include/commonlib/coreboot_tables.h.
"""

import struct
import subprocess
from pathlib import Path

import keystone

from pyemu.firmware import elf
from tests import judges

# What the image can do at its prompt, on the first serial port.
MODULES = (
    "serial", "terminal", "normal", "echo", "cat", "lsmmap", "halt", "hashsum", "gcry_sha256", "gcry_md5", "test",
    "cpuid", "memrw", "hexdump", "eval", "sleep", "setjmp",
)  # fmt: skip
CONFIGURATION = "serial --unit=0 --speed=115200\nterminal_input serial\nterminal_output serial\n"

TABLE = 0xEC0  # GRUB looks from 0x500 to 0x1000, in steps of a header's size
LOAD = 0x200_0000
MULTIBOOT = 0x1BADB002
ADDRESSES_VALID = 1 << 16


def coreboot_table(memory: int) -> bytes:
    """A table that says that there are so many bytes of memory: one record, with ranges of usable RAM."""
    ranges = ((0, 0xA0000), (0x100000, memory - 0x100000))
    record = struct.pack("<II", 1, 8 + 20 * len(ranges))
    record += b"".join(struct.pack("<QQI", start, size, 1) for start, size in ranges)

    def header(checksum: int) -> bytes:
        return struct.pack("<4sIIIII", b"LBIO", 24, checksum, len(record), _checksum(record), 1)

    return header(_checksum(header(0))) + record


def _checksum(data: bytes) -> int:
    """The Internet's, which coreboot uses, too (RFC 1071)."""
    total = sum(int.from_bytes(data[at : at + 2], "little") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def wrap(image: bytes, memory: int) -> bytes:
    """The kernel: a header, code that copies, and what it copies."""
    grub = elf.parse(image)
    pieces = [(TABLE, coreboot_table(memory), 0)]
    pieces += [(part.paddr, grub.content(part), part.memory_size - part.file_size) for part in grub.loads()]
    lines = ["cld"]
    for number, (target, data, zeros) in enumerate(pieces):
        lines += [f"mov esi, piece{number}", f"mov edi, {target}", f"mov ecx, {len(data)}", "rep movsb"]
        lines += ["xor eax, eax", f"mov ecx, {zeros}", "rep stosb"]
    lines += [f"mov eax, {0x2BADB002:#x}", f"mov ecx, {grub.entry:#x}", "jmp ecx"]
    at, addresses = LOAD + 0x1000, []
    for _, data, _ in pieces:
        addresses.append(at)
        at += len(data)
    constants = [f".set piece{number}, {address:#x}" for number, address in enumerate(addresses)]
    assembler = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_32)
    code, _ = assembler.asm("\n".join([*constants, *lines]), LOAD + 32, as_bytes=True)
    assert code is not None and len(code) < 0x1000 - 32
    header = struct.pack(
        "<8I", MULTIBOOT, ADDRESSES_VALID, -(MULTIBOOT + ADDRESSES_VALID) & 0xFFFF_FFFF, LOAD, LOAD, at, at, LOAD + 32
    )
    return (header + bytes(code)).ljust(0x1000, b"\0") + b"".join(data for _, data, _ in pieces)


def build(modules: Path, directory: Path, memory: int) -> Path:
    """The kernel, made in `directory`, for a machine with so much memory."""
    configuration, image, kernel = directory / "load.cfg", directory / "grub.elf", directory / "grub-multiboot"
    configuration.write_text(CONFIGURATION)
    subprocess.run(
        [judges.require("grub-mkimage"), "-O", "i386-coreboot", "-d", modules, "-c", configuration, "-o", image,
         "-p", "/boot/grub", *MODULES],
        check=True, capture_output=True,
    )  # fmt: skip
    kernel.write_bytes(wrap(image.read_bytes(), memory))
    return kernel
