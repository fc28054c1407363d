"""What a loader hands over: memory contents and the first state of the processor, as plain data.

Nothing here knows a CPU, a bus or a machine: the emu layer copies `BootImage.segments` into RAM, maps
`BootImage.roms`, and writes `BootImage.cpu` into the vCPU. The kinds of image live in their own modules
(linux_boot, pvh, multiboot, flat).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class BootError(Exception):
    """The guest can't be started; the message is one line that tells the user why."""


class CpuMode(Enum):
    """Operating mode at the first instruction."""

    REAL = "real"
    PROTECTED32 = "protected32"
    LONG64 = "long64"


# Control register bits (SDM vol. 3, 2.5) and IA32_EFER bits (SDM vol. 4, table 2-2).
CR0_PE = 1 << 0
CR0_ET = 1 << 4
CR0_NW = 1 << 29
CR0_CD = 1 << 30
CR0_PG = 1 << 31
CR4_PAE = 1 << 5
EFER_LME = 1 << 8
EFER_LMA = 1 << 10
RFLAGS_FIXED = 1 << 1  # bit 1 always reads 1 (SDM vol. 1, 3.4.3)

# Segment access rights as in a VMCS (SDM vol. 3, 24.4.1, table 24-2): type 3:0, S 4, DPL 6:5, P 7,
# AVL 12, L 13, D/B 14, G 15, unusable 16.
ACCESS_CODE16 = 0x009B
ACCESS_DATA16 = 0x0093
ACCESS_CODE32 = 0xC09B
ACCESS_DATA32 = 0xC093
ACCESS_CODE64 = 0xA09B
ACCESS_LDT = 0x0082
ACCESS_TSS32_BUSY = 0x008B
ACCESS_UNUSABLE = 0x10000

SEGMENT_NAMES = ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr")
GPR_NAMES = (
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip


@dataclass(frozen=True)
class SegmentStart:
    """One segment register with its hidden part. `limit` is in bytes whatever the granularity bit says."""

    selector: int
    base: int
    limit: int
    access: int


@dataclass(frozen=True)
class TableStart:
    """GDTR or IDTR."""

    base: int
    limit: int


@dataclass(frozen=True)
class CpuStart:
    """The state of the boot processor when the guest begins. Registers that are not named are zero."""

    mode: CpuMode
    rip: int
    segments: dict[str, SegmentStart]
    gpr: dict[str, int] = field(default_factory=dict)
    rflags: int = RFLAGS_FIXED
    gdt: TableStart = TableStart(0, 0xFFFF)
    idt: TableStart = TableStart(0, 0xFFFF)
    cr0: int = CR0_ET
    cr3: int = 0
    cr4: int = 0
    efer: int = 0


class E820Type(Enum):
    """Kinds of address range (ACPI 6.4, table 15.4; multiboot and PVH use the same numbers)."""

    RAM = 1
    RESERVED = 2
    ACPI = 3
    NVS = 4
    UNUSABLE = 5


@dataclass(frozen=True)
class E820Entry:
    """One line of the memory map that the guest is given."""

    start: int
    length: int
    type: E820Type

    @property
    def end(self) -> int:
        """First address behind the range."""
        return self.start + self.length


@dataclass(frozen=True)
class BootImage:
    """A guest that is ready to start."""

    description: str  # one line: what was found and which entry was chosen
    segments: tuple[tuple[int, bytes], ...]  # guest-physical address, contents of RAM
    zero: tuple[tuple[int, int], ...]  # address, length: RAM that must read as zero (matters after a reset)
    roms: tuple[tuple[int, bytes], ...]  # address, contents: read-only, mapped over whatever is there
    cpu: CpuStart
    e820: tuple[E820Entry, ...]


def real_mode_segments(code_selector: int, code_base: int, data_selector: int = 0) -> dict[str, SegmentStart]:
    """Segments in real mode: 64 KiB limits (SDM vol. 3, table 9-1)."""
    data = SegmentStart(data_selector, data_selector << 4, 0xFFFF, ACCESS_DATA16)
    segments = dict.fromkeys(("es", "ss", "ds", "fs", "gs"), data)
    segments["cs"] = SegmentStart(code_selector, code_base, 0xFFFF, ACCESS_CODE16)
    segments["ldtr"] = SegmentStart(0, 0, 0xFFFF, ACCESS_LDT)
    segments["tr"] = SegmentStart(0, 0, 0xFFFF, ACCESS_TSS32_BUSY)
    return segments


def flat_segments(code_selector: int, data_selector: int, code_access: int) -> dict[str, SegmentStart]:
    """Flat 4 GiB segments for protected or long mode; task and local descriptor table as after power-on."""
    data = SegmentStart(data_selector, 0, 0xFFFF_FFFF, ACCESS_DATA32)
    segments = dict.fromkeys(("es", "ss", "ds", "fs", "gs"), data)
    segments["cs"] = SegmentStart(code_selector, 0, 0xFFFF_FFFF, code_access)
    segments["ldtr"] = SegmentStart(0, 0, 0, ACCESS_UNUSABLE)
    segments["tr"] = SegmentStart(0, 0, 0x67, ACCESS_TSS32_BUSY)
    return segments


def descriptor(segment: SegmentStart) -> int:
    """The eight-byte GDT entry of a segment (SDM vol. 3, 3.4.5), for the table that the hidden parts came from."""
    limit = segment.limit >> 12 if segment.access & 0x8000 else segment.limit
    access = segment.access & 0xF0FF
    return (
        (limit & 0xFFFF)
        | (segment.base & 0xFF_FFFF) << 16
        | access << 40
        | (limit >> 16 & 0xF) << 48
        | (segment.base >> 24 & 0xFF) << 56
    )
