"""The built-in guest: a small teaching kernel, assembled when it is first needed.

Its sources are the .asm files of this folder, meant to be read in the order of `SOURCES`. Keystone assembles them
(Intel syntax) into a raw multiboot image, so the multiboot loader starts it, here and in other emulators.
"""

from __future__ import annotations

import functools
from importlib import resources

from pyemu.firmware import multiboot
from pyemu.firmware.boot_image import BootError, CpuStart
from pyemu.firmware.e820 import MIB, Layout, memory_map
from pyemu.firmware.platform import Platform

SOURCES = ("boot", "interrupts", "memory", "console", "shell", "system_call", "selftest")

# Where things are in the guest's memory.
KERNEL_BASE = 0x100000
KERNEL_LIMIT = 0x140000
IDT = 0x150000  # five pages in a row: IDT, PML4, PDPT, PD, TSS
PML4 = 0x151000
PDPT = 0x152000
PD = 0x153000
TSS = 0x154000
STACK_TOP = 0x160000
USER_TRAP_STACK = 0x164000
FAULT_STACK = 0x168000
FRAMES = 0x200000  # pages for demand paging
FRAMES_END = 0x400000
DEMAND_BASE = 0x40_0000_0000  # virtual
USER_PAGE = DEMAND_BASE + 0x3000_0000

TSS_SELECTOR = 0x30
TSS_LIMIT = 0x67
TSS_AVAILABLE = 0x89
VECTORS = 48
VECTORS_WITH_ERROR_CODE = frozenset({8, 10, 11, 12, 13, 14, 17, 21})  # SDM vol. 3, table 6-1
FRAME_REGISTERS = (
    "r15", "r14", "r13", "r12", "r11", "r10", "r9", "r8", "rdi", "rsi", "rbp", "rbx", "rdx", "rcx", "rax",
    "vector", "error", "rip", "cs", "rflags", "rsp", "ss",
)  # fmt: skip
SLEEP_ENABLE = 1 << 13  # PM1 control register (ACPI 6.4, table 4.15)
SLEEP_TYPE_SHIFT = 10


def _constants(platform: Platform) -> dict[str, int]:
    """The names that the sources use."""
    constants = {
        "KERNEL_CS": 0x08,
        "KERNEL_DS": 0x10,
        "USER_DS": 0x23,
        "USER_CS": 0x2B,
        "TSS_SELECTOR": TSS_SELECTOR,
        "TSS_DESCRIPTOR": TSS_LIMIT | (TSS & 0xFF_FFFF) << 16 | TSS_AVAILABLE << 40 | TSS >> 24 << 56,
        "IDT": IDT,
        "PML4": PML4,
        "PDPT": PDPT,
        "PD": PD,
        "TSS": TSS,
        "STACK_TOP": STACK_TOP,
        "USER_TRAP_STACK": USER_TRAP_STACK,
        "FAULT_STACK": FAULT_STACK,
        "FRAMES": FRAMES,
        "FRAMES_END": FRAMES_END,
        "DEMAND_BASE": DEMAND_BASE,
        "USER_PAGE": USER_PAGE,
        "COM1": platform.com1_port,
        "PM1A_CONTROL": platform.pm1a_control,
        "SLEEP_VALUE": platform.s5_sleep_type << SLEEP_TYPE_SHIFT | SLEEP_ENABLE,
        "RESET_PORT": platform.reset_port,
        "RESET_VALUE": platform.reset_value,
    }
    for index, register in enumerate(FRAME_REGISTERS):
        constants[f"FRAME_{register.upper()}"] = 8 * index
    return constants


def _vector_stubs() -> str:
    """The entries of the exception and interrupt handlers, and the list of their addresses."""
    lines = []
    for vector in range(VECTORS):
        lines.append(f"vector_{vector}:")
        if vector not in VECTORS_WITH_ERROR_CODE:
            lines.append("push 0")
        lines += [f"push {vector}", "jmp interrupt_entry"]
    lines.append("vector_stubs:")
    lines += [f".quad vector_{vector}" for vector in range(VECTORS)]
    return "\n".join(lines)


def _without_comments(text: str) -> str:
    lines = (line.split("#", 1)[0].strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line)


def source(platform: Platform) -> str:
    """The whole program, as it goes to the assembler."""
    folder = resources.files(__name__)
    parts = [f".set {name}, {value:#x}" for name, value in _constants(platform).items()]
    for name in SOURCES:
        parts.append(_without_comments(folder.joinpath(f"{name}.asm").read_text(encoding="utf-8")))
        if name == "interrupts":
            parts.append(_vector_stubs())
    parts.append("kernel_end:")
    return "\n".join(parts) + "\n"


@functools.lru_cache(maxsize=4)
def assemble(platform: Platform) -> bytes:
    """The image, to be loaded at KERNEL_BASE."""
    try:
        import keystone
    except ImportError as error:
        raise BootError("the built-in guest needs the Python package keystone-engine") from error
    assembler = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64)
    code, _ = assembler.asm(source(platform), KERNEL_BASE, as_bytes=True)
    assert code is not None and len(code) <= KERNEL_LIMIT - KERNEL_BASE
    return bytes(code)


def load(layout: Layout, platform: Platform, command_line: bytes) -> tuple[str, CpuStart]:
    """Place the built-in guest; returns a description and the first state of the processor."""
    if layout.ram_size < FRAMES_END:
        raise BootError(f"-m: the built-in guest needs {FRAMES_END // MIB} MiB of memory")
    image = assemble(platform)
    header = multiboot.find_header(image)
    assert header is not None
    ranges = memory_map(layout.ram_size, platform)
    _, start = multiboot.load(image, header, [], command_line, layout, ranges, (0, b""))
    return f"built-in guest: 32-bit entry at {start.rip:#x}", start
