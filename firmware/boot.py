"""From the options of a machine to a guest that is ready to start: reads the files, probes, loads, adds tables."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pyemu.firmware import flat, linux_boot, multiboot, pvh, unpack
from pyemu.firmware.boot_image import BootError, BootImage, CpuStart
from pyemu.firmware.e820 import MIB, MINIMUM_RAM, Layout, memory_map
from pyemu.firmware.elf import parse as parse_elf
from pyemu.firmware.files import open_regular
from pyemu.firmware.platform import Platform
from pyemu.firmware.probe import Kind, Probe, probe
from pyemu.firmware.tables import PlacedTables, place_tables

MAX_KERNEL = 512 * MIB
ROM_DIRECTORIES = ("/usr/share/seabios", "/usr/share/qemu", "/usr/share/ovmf")  # of Debian's packages


@dataclass(frozen=True)
class BootRequest:
    """What the user asked for. Files are paths, or bytes that were made in memory."""

    ram_size: int
    kernel: str | bytes | None = None
    initrd: str | bytes | None = None
    append: str = ""
    bios: str | bytes | None = None
    bios_path: tuple[str, ...] = ()  # directories that are searched for it first
    unpack: bool = False  # unpack a bzImage here rather than let the guest do it


def read_file(source: str | bytes, what: str, limit: int) -> bytes:
    """The contents of a regular file; each way to fail is one line."""
    if isinstance(source, bytes):
        data = source
    else:
        try:
            with open_regular(source) as file:
                size = os.fstat(file.fileno()).st_size
                if size > limit:
                    raise BootError(f"{what}: {source} has {size / MIB:.1f} MiB, {limit // MIB} MiB is the most")
                data = file.read(limit + 1)
        except OSError as error:
            raise BootError(f"{what}: cannot read {source or repr(source)}: {error.strerror or error}") from error
    if not data:
        raise BootError(f"{what}: {'the file' if isinstance(source, bytes) else source} is empty")
    if len(data) > limit:
        raise BootError(f"{what}: more than {limit // MIB} MiB")
    return data


def prepare(request: BootRequest, platform: Platform) -> BootImage:
    """Make the guest ready. With neither kernel nor ROM that is the built-in one."""
    if request.ram_size < MINIMUM_RAM:
        raise BootError(f"-m: {request.ram_size} bytes of memory are too few, {MINIMUM_RAM // MIB}M is the least")
    if request.bios is not None:
        if request.kernel is not None:
            raise BootError("-bios and -kernel exclude each other: a ROM finds its own kernel")
        return _prepare_rom(request, platform)
    if request.kernel is None and request.initrd is not None:
        raise BootError("-initrd needs -kernel")
    command_line = os.fsencode(request.append)
    if b"\0" in command_line:
        raise BootError("-append contains a NUL character")
    layout = Layout(request.ram_size, platform)
    flat.place_low_bios(layout, platform)
    tables = place_tables(layout, platform)
    if request.kernel is None:
        from pyemu.firmware import builtin_guest

        description, cpu = builtin_guest.load(layout, platform, command_line)
    else:
        found = probe(read_file(request.kernel, "kernel", MAX_KERNEL), _name(request.kernel))
        description, cpu = _load(found, request, command_line, layout, platform, tables)
        description = found.wrapping + description
    return BootImage(
        description=description,
        segments=tuple(layout.segments),
        zero=tuple(layout.zero),
        roms=(),
        cpu=cpu,
        e820=memory_map(request.ram_size, platform),
    )


def _name(source: str | bytes) -> str:
    return source if isinstance(source, str) else "kernel"


def _prepare_rom(request: BootRequest, platform: Platform) -> BootImage:
    assert request.bios is not None
    if request.initrd is not None or request.append:
        raise BootError("-initrd and -append need -kernel")
    bios = request.bios if isinstance(request.bios, bytes) else _find_rom(request.bios, request.bios_path)
    description, roms, cpu = flat.load_rom(read_file(bios, "-bios", flat.ROM_MAXIMUM))
    return BootImage(description, (), (), roms, cpu, memory_map(request.ram_size, platform))


def _find_rom(name: str, path: tuple[str, ...]) -> str:
    """A file of that name, else one in the directories that are searched; the name itself if there is none."""
    if name and not os.path.exists(name):
        for directory in (*path, *ROM_DIRECTORIES):
            candidate = os.path.join(directory, name)
            if os.path.exists(candidate):
                return candidate
    return name


def _load(
    found: Probe, request: BootRequest, command_line: bytes, layout: Layout, platform: Platform, tables: PlacedTables
) -> tuple[str, CpuStart]:
    ranges = memory_map(request.ram_size, platform)
    if found.kind is Kind.MULTIBOOT:
        assert found.header is not None
        line = os.fsencode(_name(request.kernel or "")) + (b" " + command_line if command_line else b"")
        modules = _modules(request)
        return multiboot.load(
            found.data, found.header, modules, line, layout, ranges, (tables.rsdp_address, tables.rsdp)
        )
    if found.kind in (Kind.BOOT_SECTOR, Kind.FLAT32):
        if request.initrd is not None or command_line:
            raise BootError(f"a {found.kind.value} takes neither -initrd nor -append")
        if found.kind is Kind.BOOT_SECTOR:
            return flat.load_boot_sector(found.data, layout)
        return "flat image: 32-bit protected mode at 0x100000", flat.load_flat32(found.data, layout)
    initrd = read_file(request.initrd, "initrd", _initrd_limit(request)) if request.initrd is not None else b""
    if found.kind is Kind.PVH:
        assert found.image is not None
        return pvh.load(found.image, initrd, command_line, layout, ranges, tables.rsdp_address)
    common = (initrd, command_line, layout, ranges, platform, tables.rsdp_address)
    if found.kind is Kind.VMLINUX:
        assert found.image is not None
        description, cpu = linux_boot.load_vmlinux(found.image, b"", *common)
        return f"Linux kernel proper (ELF64): {description}", cpu
    if request.unpack:
        header = linux_boot.parse_header(found.data)
        name, kernel = unpack.unpack_payload(linux_boot.payload(found.data, header))
        description, cpu = linux_boot.load_vmlinux(parse_elf(kernel, "kernel payload"), found.data, *common)
        return f"Linux bzImage, unpacked here ({name}, no KASLR): {description}", cpu
    return linux_boot.load_bzimage(found.data, *common)


def _initrd_limit(request: BootRequest) -> int:
    """More than RAM can never fit; the loader's own message then gives the numbers for what is left."""
    return request.ram_size


def _modules(request: BootRequest) -> list[multiboot.Module]:
    """The modules of a multiboot kernel: `-initrd "file arguments,file arguments"`, a comma in them doubled."""
    if request.initrd is None:
        return []
    if isinstance(request.initrd, bytes):
        return [multiboot.Module(read_file(request.initrd, "initrd", _initrd_limit(request)), b"initrd")]
    modules = []
    for text in request.initrd.replace(",,", "\0").split(","):
        text = text.replace("\0", ",").strip()
        path = text.split(" ", 1)[0]
        modules.append(multiboot.Module(read_file(path, "initrd", _initrd_limit(request)), os.fsencode(text)))
    return modules
