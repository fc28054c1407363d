"""Host memory for generated code: executable images and large zeroed arrays, placed where 32-bit addresses reach.

W^X holds everywhere: an image is written before it becomes executable; the code cache is one memfd mapped twice.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os

MAP_32BIT = 0x40  # asm/mman.h: below 2 GiB
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
MAP_NORESERVE = 0x4000
PAGE = 4096


class ExecutableMemoryError(RuntimeError):
    """The host forbids executable mappings, or has no room for them."""


def address_of(mapping: mmap.mmap) -> int:
    """Host address of a writable mapping."""
    return ctypes.addressof(ctypes.c_char.from_buffer(mapping))


def map_low(handle: int, size: int, flags: int, prot: int = mmap.PROT_READ | mmap.PROT_WRITE) -> mmap.mmap:
    """A mapping below 2 GiB. That space is scarce: machines that are over but not yet collected may hold some of it."""
    try:
        return mmap.mmap(handle, size, flags=flags | MAP_32BIT, prot=prot)
    except OSError:
        gc.collect()
    try:
        return mmap.mmap(handle, size, flags=flags | MAP_32BIT, prot=prot)
    except OSError as error:
        raise ExecutableMemoryError(
            f"no {size >> 20} MiB of address space left below 2 GiB ({error.strerror}): close other machines first"
        ) from None


class Image:
    """Read-only executable code."""

    def __init__(self, code: bytes) -> None:
        size = -(-len(code) // PAGE) * PAGE
        self.map = map_low(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.map[: len(code)] = code
        self.address = address_of(self.map)
        if _libc.mprotect(self.address, size, mmap.PROT_READ | mmap.PROT_EXEC):
            reason = os.strerror(ctypes.get_errno())
            raise ExecutableMemoryError(f"this host refuses executable memory ({reason}): use -accel reference")


class CodeCache:
    """Memory for translated code: a writable and an executable view of the same pages."""

    def __init__(self, size: int) -> None:
        self.size = size
        handle = os.memfd_create("pyemu-code")
        try:
            os.ftruncate(handle, size)
            self.writable = mmap.mmap(handle, size, flags=mmap.MAP_SHARED)
            self.executable = map_low(handle, size, flags=mmap.MAP_SHARED)
        finally:
            os.close(handle)
        self.write_address, self.address = address_of(self.writable), address_of(self.executable)
        if _libc.mprotect(self.address, size, mmap.PROT_READ | mmap.PROT_EXEC):
            reason = os.strerror(ctypes.get_errno())
            raise ExecutableMemoryError(f"this host refuses executable memory ({reason}): use -accel reference")


class Array:
    """Zeroed memory, touched only where it is used; `low` places it where 32-bit addresses reach."""

    def __init__(self, size: int, low: bool = False) -> None:
        size = max(PAGE, -(-size // PAGE) * PAGE)
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        self.map = map_low(-1, size, flags=flags) if low else mmap.mmap(-1, size, flags=flags)
        self.size, self.address = size, address_of(self.map)
