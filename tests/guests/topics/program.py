"""A topic guest under construction: checks are added one by one, `image()` assembles them with the runtime.

A check is a piece of assembler and what must be found after it: the exception that it ends with, and registers. Values
are numbers, or labels and expressions as text. Nothing here knows a topic; what one expects comes from the SDM.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import keystone

BASE = 0x100000
IDT, STUBS = 0x200000, 0x201000
STACK, STACK0, IST1, IST2, USER_STACK = 0x210000, 0x214000, 0x218000, 0x21C000, 0x220000  # their upper ends
PML4, PDPT, PD = 0x220000, 0x221000, 0x222000  # four page directories follow
SCRATCH = 0x230000  # up to 0x2fffff, for the topic
LOW = 0x10000  # where 16-bit code is copied to: segment 0x1000
LAYOUT = {
    "IDT": IDT, "STUBS": STUBS, "STACK": STACK, "STACK0": STACK0, "IST1": IST1, "IST2": IST2,
    "USER_STACK": USER_STACK, "PML4": PML4, "PDPT": PDPT, "PD": PD, "SCRATCH": SCRATCH, "LOW": LOW,
}  # fmt: skip

CODE0, DATA0, CODE3, DATA3, TSS, CODE32, CODE32_3, CODE16, DATA16 = (
    0x08, 0x10, 0x1B, 0x23, 0x28, 0x38, 0x43, 0x48, 0x50,
)  # fmt: skip
FIRST_FREE = 0x58

DE, DB, NMI, BP, OF, BR, UD, NM, DF, TS, NP, SS, GP, PF, MF, AC = 0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17
NONE = 0x100  # no exception
DONE = 0x30  # the software interrupt with which a program at CPL 3 says that it has finished

FIELDS = (
    "vector", "error", "ip", "cs", "flags", "cr2", "sp", "ss", "ds", "ax", "bx", "cx", "dx", "si", "di", "bp",
    "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7",
)  # fmt: skip
Value = int | str

_NAMES = ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp")


class AssemblyError(Exception):
    """Text that the assembler refuses; the message has the line."""


def assemble(text: str, base: int, bits: int = 32) -> bytes:
    """Machine code of assembler text."""
    text = "\n".join(line.split("#", 1)[0].rstrip() for line in text.splitlines())
    mode = {16: keystone.KS_MODE_16, 32: keystone.KS_MODE_32, 64: keystone.KS_MODE_64}[bits]
    try:
        code, _ = keystone.Ks(keystone.KS_ARCH_X86, mode).asm(text, base, as_bytes=True)
    except keystone.KsError as error:
        raise AssemblyError(f"{error}: {_suspects(text, mode)}") from error
    assert code is not None
    return bytes(code)


def _suspects(text: str, mode: int) -> list[str]:
    """The lines that the assembler refuses on their own, for another reason than an unknown label."""
    found = []
    for line in text.splitlines():
        if line.strip().startswith(".code"):
            mode = {"16": keystone.KS_MODE_16, "32": keystone.KS_MODE_32, "64": keystone.KS_MODE_64}[line.strip()[-2:]]
        try:
            keystone.Ks(keystone.KS_ARCH_X86, mode).asm(line, BASE)
        except keystone.KsError as error:
            if error.errno != keystone.KS_ERR_ASM_SYMBOL_MISSING:
                found.append(f"{line} ({error})")
    return found


def descriptor(base: int, limit: int, access: int, flags: int = 0) -> int:
    """A segment descriptor (SDM 3, 3.4.5): `access` is its sixth byte, `flags` the upper four bits of the seventh."""
    return (
        limit & 0xFFFF | (base & 0xFFFFFF) << 16 | access << 40 | (limit >> 16 & 15) << 48 | flags << 52
        | (base >> 24 & 0xFF) << 56
    )  # fmt: skip


def gate(selector: int, offset: int, access: int, count: int = 0) -> int:
    """A call, interrupt, trap or task gate of 8 bytes (SDM 3, 5.8.3 and 6.11)."""
    return offset & 0xFFFF | selector << 16 | count << 32 | access << 40 | (offset >> 16 & 0xFFFF) << 48


def far(opcode: int, label: Value, selector: int) -> str:
    """The direct far jump (0xea) or call (0x9a) of 32-bit code."""
    return f".byte {opcode:#x}\n.long {label}\n.word {selector:#x}\n"


def halves(value: int) -> str:
    """Operands of .long for a quadword."""
    return f"{value & 0xFFFFFFFF:#x}, {value >> 32 & 0xFFFFFFFF:#x}"


@dataclass
class Program:
    """The guest of one topic. `bits` is 64, or 32 for protected mode without paging."""

    topic: str
    bits: int = 64
    needs: str = ""  # a CPU feature without which the topic says nothing, as QEMU's -cpu names it
    substitutions: list[Callable[[str], str]] = field(default_factory=list)  # made on the whole text at the end
    _code: list[str] = field(default_factory=list)
    _data: list[str] = field(default_factory=list)
    _names: set[str] = field(default_factory=set)
    _count: int = 0
    _blobs: list[tuple[bytes, bytes]] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The checks, in order."""
        return [f"{self.topic}.{name}" for name in self._order]

    def __post_init__(self) -> None:
        self._order: list[str] = []

    def asm(self, text: str) -> None:
        """Code that runs here, outside of any check: an exception in it ends the guest."""
        self._code.append(text)

    def data(self, text: str) -> None:
        """Data, or code that something jumps to."""
        self._data.append(text)

    def blob(self, contents: bytes) -> str:
        """Bytes that are too many for the assembler; gives their label."""
        here = self.label("blob")
        mark = hashlib.sha256(here.encode()).digest()[:16]
        self._blobs.append((mark, contents))
        words = ", ".join(f"{byte:#x}" for byte in mark)
        self.data(f".align 16\n{here}: .byte {words}\n.fill {max(0, len(contents) - 16)}, 1, 0\n")
        return here

    def label(self, prefix: str = "l") -> str:
        """A new label."""
        self._count += 1
        return f"{prefix}_{self._count}"

    def set_descriptor(self, selector: int, value: int) -> None:
        """Put a descriptor into the GDT, now."""
        at = selector & ~7
        self.asm(
            f"mov dword ptr [gdt + {at}], {value & 0xFFFFFFFF:#x}\nmov dword ptr [gdt + {at + 4}], {value >> 32:#x}\n"
        )

    def attempt(self, body: str) -> None:
        """Run `body`; an exception in it is recorded, and ends it."""
        after = self.label("after")
        a = "rax" if self.bits == 64 else "eax"
        self.asm(f"mov {a}, {after}\ncall begin\n{body}\ncall finish\n{after}:\n")

    def verify(self, name: str, **expected: Value | tuple[Value, int]) -> None:
        """Report on what the last attempt gave. A pair is a value and the mask of the bits that count."""
        if name in self._names:
            raise ValueError(f"two checks of {self.topic} are called {name}")
        self._names.add(name)
        self._order.append(name)
        here, text = self.label("check"), self.label("name")
        entries = []
        for key, wanted in expected.items():
            value, mask = wanted if isinstance(wanted, tuple) else (wanted, -1)
            shown = halves(value) if isinstance(value, int) else f"{value}, 0"
            entries.append(f".long {FIELDS.index(key)}, 0, {halves(mask)}, {shown}")
        self.data(
            f'{text}: .asciz "{name}"\n.align 8\n{here}: .long {text}, 0, {len(entries)}, 0\n' + "\n".join(entries)
        )
        s = "rsi" if self.bits == 64 else "esi"
        self.asm(f"mov {s}, {here}\ncall verify\n")

    def check(self, name: str, body: str, **expected: Value | tuple[Value, int]) -> None:
        """One check: code at CPL 0 and what comes of it; without `vector`, no exception."""
        self.attempt(body)
        self.verify(name, **{"vector": NONE, **expected})

    def user(self, name: str, body: str, code: int = 0, **expected: Value | tuple[Value, int]) -> None:
        """One check at CPL 3, in the code segment `code`; without `vector`, it comes to its end."""
        program = self.label("user")
        wide = self.bits == 64
        narrow = code == CODE32_3 and wide
        directive, back = (".code32", ".code64") if narrow else ("", "")
        self.data(f"{directive}\n{program}:\n{body}\nint {DONE:#x}\n{back}\n")
        self.attempt(self.to_user(program, code or CODE3))
        self.verify(name, **{"vector": DONE, **expected})

    def to_user(self, label: str, code: int = CODE3, flags: int = 2) -> str:
        """Code that goes to a label at CPL 3."""
        iret = "iretq" if self.bits == 64 else "iretd"
        load = "mov edx, 0x23\nmov ds, edx\nmov es, edx\n" if self.bits == 32 else ""
        accumulator = "rax" if self.bits == 64 else "eax"
        frame = f"push {DATA3}\npush {USER_STACK}\npush {flags:#x}\npush {code}\nmov eax, {label}\npush {accumulator}\n"
        return load + frame + iret + "\n"

    def image(self) -> bytes:
        """The multiboot image."""
        image = bytearray(assemble(self.text(), BASE, 32))
        for mark, contents in self._blobs:
            at = image.index(mark)
            image[at : at + len(contents)] = contents
        return bytes(image)

    def text(self) -> str:
        """All of its assembler."""
        wide = self.bits == 64
        names = {name: self.label("field") for name in FIELDS}
        tail = [
            "\n".join(self._data),
            f'topic_name: .asciz "{self.topic}."',
            *(f'{label}: .asciz "{name}"' for name, label in names.items()),
            ".align 8",
            "field_names: .long " + ", ".join(names.values()),
            ".align 8",
            "got:",
            *(f"got_{name}: .quad 0" for name in FIELDS),
            ".align 16",
            f"tss:\n.fill {0x68 + 32 + 0x100}, 1, 0\ntss_end:",
            "image_end:",
        ]
        runtime = _read("runtime")
        parts = {
            "start": _read("start64" if wide else "start32"),
            "tss_descriptor": f"{descriptor(0, 0x67, 0x89):#x}",
            "tss": _TSS64 if wide else _TSS32,
            "handler_data": _DATA64 if wide else _DATA32,
            "handler_stack": _STACK64 if wide else _STACK32,
            "code0": "0x00af9a000000ffff" if wide else "0x00cf9a000000ffff",
            "code3": "0x00affa000000ffff" if wide else "0x00cffa000000ffff",
            "word": "8" if wide else "4",
            "size": "qword" if wide else "dword",
            "q": "q" if wide else "d",
            **{name: ("r" if wide else "e") + name for name in _NAMES},
        }
        for key in sorted(parts, key=len, reverse=True):
            runtime = runtime.replace("%" + key, parts[key])
        constants = "".join(f".set {name}, {value:#x}\n" for name, value in LAYOUT.items())
        text = "\n".join([constants, runtime, "main:", *self._code, "jmp end_of_topic", *tail, ""])
        for substitution in self.substitutions:
            text = substitution(text)
        return text


def _read(name: str) -> str:
    return Path(__file__).with_name(f"{name}.asm").read_text(encoding="utf-8")


# Parts of the runtime that differ in more than the names of registers.
_TSS_BASE = """
    mov eax, tss
    mov [gdt + 0x2a], ax
    shr eax, 16
    mov [gdt + 0x2c], al
    mov [gdt + 0x2f], ah
"""
_TSS64 = (
    _TSS_BASE
    + """
    mov dword ptr [tss + 4], STACK0
    mov dword ptr [tss + 36], IST1
    mov dword ptr [tss + 44], IST2
    mov word ptr [tss + 102], 0x68
    mov byte ptr [IDT + 8 * 16 + 4], 1      # double faults and stack faults have a stack of their own
    mov byte ptr [IDT + 12 * 16 + 4], 1
"""
)
_TSS32 = (
    _TSS_BASE
    + """
    mov dword ptr [tss + 4], STACK0
    mov dword ptr [tss + 8], 0x10
    mov word ptr [tss + 102], 0x68
"""
)
_DATA64 = "    mov eax, ds\n"
_DATA32 = "    .byte 0x1e\n    mov eax, 0x10\n    mov ds, eax\n    pop eax\n    movzx eax, ax\n"
_STACK64 = "    pop rax\n    mov [got_sp], rax\n    pop rax\n    mov [got_ss], rax\n"
_STACK32 = """
    test eax, 0x20000
    jnz outer_stack
    test ebx, 3
    jnz outer_stack
    mov [got_sp], esp
    mov eax, ss
    mov [got_ss], eax
    jmp stack_recorded
outer_stack:
    pop eax
    mov [got_sp], eax
    pop eax
    mov [got_ss], eax
    test dword ptr [got_flags], 0x20000
    jz stack_recorded
    pop eax                                 # from virtual-8086 mode: ES, DS, FS, GS
    mov [got_r4], eax
    pop eax
    mov [got_r5], eax
    pop eax
    mov [got_r6], eax
    pop eax
    mov [got_r7], eax
stack_recorded:
"""
