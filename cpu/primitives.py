"""Primitives of mechanism code: what the subset cannot say itself.

Each function here has a twin in jit/lowering.py that emits the same meaning as native code; tests run both.
RAM is addressed by guest physical address and is not checked here: callers check (physical.py).
"""

from __future__ import annotations

import ctypes
import zlib
from collections.abc import Callable
from importlib import import_module

from pyemu.cpu.state import M64, PAGE_FLAGS, RAM_BASE, RIP, SAVED_COUNT, SAVED_NUMBERS, SAVED_PAGES, State


def sext(value: int, bits: int) -> int:
    """Sign-extend the low `bits` (constant, 1..64) of `value` to 64 bits."""
    sign = 1 << (bits - 1)
    return (((value & ((1 << bits) - 1)) ^ sign) - sign) & M64


def signed_less(a: int, b: int) -> int:
    """1 if a < b as signed 64-bit numbers."""
    return int((a ^ (1 << 63)) < (b ^ (1 << 63)))


def ram8(s: State, address: int) -> int:
    """The byte of guest RAM at a physical address."""
    return s.ram[address]


def ram16(s: State, address: int) -> int:
    """Two bytes of guest RAM, little-endian, any alignment; likewise ram32 and ram64."""
    return int.from_bytes(s.ram[address : address + 2], "little")


def ram32(s: State, address: int) -> int:
    return int.from_bytes(s.ram[address : address + 4], "little")


def ram64(s: State, address: int) -> int:
    return int.from_bytes(s.ram[address : address + 8], "little")


def set_ram8(s: State, address: int, value: int) -> int:
    """Store the low byte of `value`; likewise set_ram16, set_ram32, set_ram64."""
    s.ram[address] = value & 0xFF
    return 0


def set_ram16(s: State, address: int, value: int) -> int:
    s.ram[address : address + 2] = (value & 0xFFFF).to_bytes(2, "little")
    return 0


def set_ram32(s: State, address: int, value: int) -> int:
    s.ram[address : address + 4] = (value & 0xFFFFFFFF).to_bytes(4, "little")
    return 0


def set_ram64(s: State, address: int, value: int) -> int:
    s.ram[address : address + 8] = (value & M64).to_bytes(8, "little")
    return 0


def ram_copy(s: State, destination: int, source: int, length: int) -> int:
    """Copy `length` bytes of RAM between physical addresses whose ranges do not overlap."""
    s.ram[destination : destination + length] = bytes(s.ram[source : source + length])
    return 0


def ram_fill(s: State, destination: int, byte: int, length: int) -> int:
    """Fill `length` bytes of RAM with a byte."""
    s.ram[destination : destination + length] = bytes([byte & 0xFF]) * length
    return 0


def mmio_read(s: State, address: int, size: int) -> int:
    """Ask the machine for a device register."""
    return s.host.mmio_read(address, size) & M64


def mmio_write(s: State, address: int, size: int, value: int) -> int:
    """Give the machine a device write."""
    s.host.mmio_write(address, size, value)
    return 0


def port_read(s: State, port: int, size: int) -> int:
    """IN."""
    return s.host.port_read(port, size) & M64


def port_write(s: State, port: int, size: int, value: int) -> int:
    """OUT."""
    s.host.port_write(port, size, value)
    return 0


Service = Callable[[State, int, int], int]
SERVICES: dict[int, Service] = {}
SERVICE_NAMES: dict[int, tuple[str, str]] = {}  # module and function, for a process that has not imported it yet


def service(function: Service) -> int:
    """Register a Python function of (s, a, b) that native code may call; returns its number, which depends on nothing
    but its name: native code that was built long ago knows it."""
    name = function.__module__, function.__qualname__
    number = zlib.crc32(".".join(name).encode())
    if SERVICE_NAMES.setdefault(number, name) != name:
        raise ValueError(f"services {name} and {SERVICE_NAMES[number]} have the same number: rename one")
    SERVICES[number] = function
    return number


def call_service(s: State, number: int, a: int, b: int) -> int:
    """Call a registered Python function: for what is rare enough to stay in Python in every back end."""
    known = SERVICES.get(number)
    if known is None:
        module, function = SERVICE_NAMES[number]
        known = SERVICES[number] = getattr(import_module(module), function)
    return known(s, a, b) & M64


# Bits of a page's byte in State[PAGE_FLAGS]: what the first write to it must do. The page walk, the string instructions
# and the machine come through before_write() too.
HAS_CODE = 1  # drop what was translated from the bytes
UNSAVED = 2  # save the page: it has not changed since the last snapshot
UNSEEN = 4  # nothing more: the page has not changed since somebody began to look
TRACKED = UNSAVED | UNSEEN


def before_write(s: State, address: int, size: int) -> int:
    """A store is about to change `size` bytes within a page. The native twin also drops what was translated from
    them."""
    flags = page_flags(s, address)
    if flags & TRACKED:
        where = s[PAGE_FLAGS] + (address >> 12)
        if flags & UNSAVED:
            count = s[SAVED_COUNT]
            number = (address >> 12).to_bytes(8, "little")
            ctypes.memmove(s[SAVED_NUMBERS] + 8 * count, number, 8)
            ctypes.memmove(s[SAVED_PAGES] + 4096 * count, s[RAM_BASE] + (address & ~0xFFF), 4096)
            s[SAVED_COUNT] = count + 1
        ctypes.c_uint8.from_address(where).value = flags & ~TRACKED
    return 0


def page_flags(s: State, address: int) -> int:
    """The byte of the page at a physical address in RAM."""
    base = s[PAGE_FLAGS]
    return ctypes.c_uint8.from_address(base + (address >> 12)).value if base else 0


def leave_block(s: State) -> int:
    """The block that is being executed ends behind the present instruction."""
    return 0


def running_rip(s: State) -> int:
    """RIP of the instruction that was begun last. Native code brings State[RIP] up to date only at exits."""
    return s[RIP]


def mappings_changed(s: State, kernel_too: int) -> int:
    """Linear addresses (of the lower half, or all) may lead elsewhere: the native back ends drop what they know of
    them."""
    return 0
