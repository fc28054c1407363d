"""Puts a `BootImage` into a machine: RAM contents and the first state of the processor.

The firmware layer hands over plain data and knows no processor; this module is the translation.
"""

from __future__ import annotations

from pyemu.cpu import cpuid, mode, reset
from pyemu.cpu.flags import set_eflags
from pyemu.cpu.state import (
    CR0,
    CR3,
    CR4,
    EFER,
    GDT_BASE,
    GDT_LIMIT,
    GPR,
    IDT_BASE,
    IDT_LIMIT,
    LDT_ATTR,
    LDT_BASE,
    LDT_LIMIT,
    LDT_SEL,
    M64,
    RIP,
    SEG_ATTR,
    SEG_BASE,
    SEG_LIMIT,
    SEG_SEL,
    TR_ATTR,
    TR_BASE,
    TR_LIMIT,
    TR_SEL,
    State,
)
from pyemu.cpuoption import Chosen
from pyemu.firmware.boot_image import GPR_NAMES, BootImage, CpuStart
from pyemu.memory import GuestRam

_SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs")  # in encoding order, as in the state


def apply_cpu(s: State, start: CpuStart, cpu: Chosen) -> None:
    """The state after RESET, changed by what the loader asks for."""
    cpuid.configure(s, cpu.model, cpu.features)
    reset.reset(s)
    for name, value in start.gpr.items():
        s[GPR + GPR_NAMES.index(name)] = value
    s[RIP] = start.rip
    for i, name in enumerate(_SEGMENTS):
        segment = start.segments[name]
        s[SEG_SEL + i] = segment.selector
        s[SEG_BASE + i] = segment.base
        s[SEG_LIMIT + i] = segment.limit
        s[SEG_ATTR + i] = segment.access
    for name, (selector, base, limit, access) in (
        ("ldtr", (LDT_SEL, LDT_BASE, LDT_LIMIT, LDT_ATTR)),
        ("tr", (TR_SEL, TR_BASE, TR_LIMIT, TR_ATTR)),
    ):
        table = start.segments[name]
        s[selector], s[base], s[limit], s[access] = table.selector, table.base, table.limit, table.access
    s[GDT_BASE], s[GDT_LIMIT] = start.gdt.base, start.gdt.limit
    s[IDT_BASE], s[IDT_LIMIT] = start.idt.base, start.idt.limit
    s[CR0], s[CR3], s[CR4], s[EFER] = start.cr0, start.cr3, start.cr4, start.efer
    set_eflags(s, start.rflags, M64)
    mode.update(s)


def load_memory(ram: GuestRam, image: BootImage) -> None:
    """Contents of RAM at power-on; again at each reset, as the guest may have overwritten them."""
    for address, length in image.zero:
        # In pieces: these ranges may be large, and a reset must not need as much memory again.
        for at in range(address, address + length, 1 << 20):
            ram.write(at, bytes(min(1 << 20, address + length - at)))
    for address, data in image.segments:
        ram.write(address, data)
