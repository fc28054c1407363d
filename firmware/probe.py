"""One look at the bytes that -kernel names decides how they are started.

The result says what was found; the loaders know how to start it. What can't be started gets a BootError that names
what it is, as far as that can be told.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from pyemu.firmware import elf, flat, linux_boot, multiboot, pvh, unpack
from pyemu.firmware.boot_image import BootError

LINUX_BANNER = b"Linux version "
EFI_MAGIC = b"MZ"


class Kind(Enum):
    """How a guest is started."""

    BZIMAGE = "Linux bzImage"
    VMLINUX = "Linux kernel proper"
    MULTIBOOT = "multiboot kernel"
    PVH = "PVH kernel"
    BOOT_SECTOR = "boot sector"
    FLAT32 = "flat 32-bit image"


@dataclass(frozen=True)
class Probe:
    """What the file is, with the parts that were read on the way."""

    kind: Kind
    data: bytes
    image: elf.Elf | None = None
    header: multiboot.Header | None = None
    wrapping: str = ""  # the compression that was around the file


# Things that people pass by mistake: offset, bytes, what it is.
STRANGERS: tuple[tuple[int, bytes, str], ...] = (
    (0x38, b"ARM\x64", "a Linux Image for 64-bit ARM, not for x86"),
    (0x24, b"\x18\x28\x6f\x01", "a Linux zImage for 32-bit ARM, not for x86"),
    (0x38, b"RSC\x05", "a Linux Image for RISC-V, not for x86"),
    (0, b"\x27\x05\x19\x56", "a U-Boot image, not an x86 kernel"),
    (0, b"ANDROID!", "an Android boot image, not a kernel"),
    (0, b"QFI\xfb", "a qcow2 disk image, not a kernel"),
    (0x8001, b"CD001", "a CD image, not a kernel"),
    (0, b"070701", "a cpio archive: that is an initrd, not a kernel"),
    (0, b"!<arch>\n", "a Debian package or static library, not a kernel"),
    (0, b"\xfe\xed\xfa", "a Mach-O file, not a kernel for this machine"),
    (0, b"\xcf\xfa\xed\xfe", "a Mach-O file, not a kernel for this machine"),
    (0, b"#!", "a script, not a kernel"),
    (0, EFI_MAGIC, "an EFI or DOS program, not a Linux kernel"),
)


def probe(data: bytes, name: str) -> Probe:
    """Recognise a kernel by its contents. Only for a flat image does the name count: it must end in .bin."""
    if not data:
        raise BootError("kernel: the file is empty")
    wrapping = ""
    packed = unpack.compression(data)
    if packed is not None:
        # Xen and other ELF kernels are distributed compressed as a whole.
        data = unpack.unpack(data, "kernel")
        wrapping = f"{packed}-compressed "
    if linux_boot.is_bzimage(data):
        return Probe(Kind.BZIMAGE, data, wrapping=wrapping)
    if data.startswith(elf.MAGIC):
        return _probe_elf(data, wrapping)
    header = multiboot.find_header(data)
    if header is not None:
        return Probe(Kind.MULTIBOOT, data, header=header, wrapping=wrapping)
    if flat.is_boot_sector(data):
        return Probe(Kind.BOOT_SECTOR, data)
    short = len(data) < linux_boot.HEADER_END  # too short even for the header of a bzImage
    for offset, magic, what in STRANGERS:
        if short and magic == EFI_MAGIC:
            continue  # bzImages begin so, too
        if data[offset : offset + len(magic)] == magic:
            raise BootError(f"kernel: {what}")
    if wrapping:
        raise BootError(f"kernel: {packed}-compressed data, but no kernel inside")
    if short and not name.endswith(".bin"):
        raise BootError(f"kernel: {len(data)} bytes that are no kernel (truncated?)")
    if data[flat.SECTOR - 2 : flat.SECTOR] == flat.SIGNATURE and len(data) > flat.SECTOR:
        raise BootError("kernel: a disk image or truncated kernel; a boot sector has exactly 512 bytes")
    if name.endswith(".bin"):
        return Probe(Kind.FLAT32, data)
    raise BootError(
        "kernel: not a kernel (bzImage, ELF with multiboot or PVH, boot sector); "
        "a flat 32-bit image for 0x100000 must be named *.bin"
    )


def _probe_elf(data: bytes, wrapping: str) -> Probe:
    image = elf.parse(data)
    header = multiboot.find_header(data)
    if header is not None:
        return Probe(Kind.MULTIBOOT, data, image, header, wrapping)
    if pvh.entry_point(image) is not None:
        return Probe(Kind.PVH, data, image, wrapping=wrapping)
    if image.is_64bit and image.machine == elf.MACHINE_X86_64 and LINUX_BANNER in data:
        return Probe(Kind.VMLINUX, data, image, wrapping=wrapping)
    raise BootError(f"kernel: {image.kind} without a multiboot header or PVH note: nothing says how to start it")
