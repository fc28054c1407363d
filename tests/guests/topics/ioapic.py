"""The I/O APIC (its datasheet, 82093AA; SDM 3, 10.8): edge and level, masking, remote IRR, redirection while a request
waits; the 8259 pair as far as it is the other way in. The interrupt lines are those of pc-testdev.

Checks as in interrupts.py: r0 interrupts came, r1 are their vectors.
"""

from __future__ import annotations

from tests.guests.topics.interrupts import EOI, LINT0, MASKED, TPR, counted, get, prepare, put
from tests.guests.topics.program import Program

IOAPIC = 0xFEC00000
LEVEL, MASK, REMOTE_IRR, LOGICAL = 1 << 15, 1 << 16, 1 << 14, 1 << 11
LINE = 0x2000  # of pc-testdev


def write(register: int, value: int) -> str:
    """Code that writes a register."""
    return f"mov eax, {IOAPIC:#x}\nmov dword ptr [rax], {register:#x}\nmov dword ptr [rax + 16], {value:#x}\n"


def read(register: int, into: str = "ebx") -> str:
    """Code that reads one."""
    return f"mov eax, {IOAPIC:#x}\nmov dword ptr [rax], {register:#x}\nmov {into}, [rax + 16]\n"


def route(pin: int, low: int, high: int = 0) -> str:
    """Write a redirection entry."""
    return write(0x11 + 2 * pin, high) + write(0x10 + 2 * pin, low)


def line(number: int, level: int) -> str:
    """Set an interrupt line."""
    return f"mov edx, {LINE + number:#x}\nmov al, {level}\nout dx, al\n"


def pulse(number: int) -> str:
    """An edge."""
    return line(number, 1) + line(number, 0)


def program() -> Program:
    p = Program("ioapic", 64)
    prepare(p)
    p.check("version", read(1) + "and ebx, 0xff00ff", bx=(0x170000, 0xFF0000))
    p.check("id", write(0, 0x0F000000) + read(0) + write(0, 0), bx=(0x0F000000, 0x0F000000))
    p.check("version_read_only", write(1, 0xFFFFFFFF) + read(1) + "and ebx, 0xff0000", bx=0x170000)
    p.check(
        "entry_reads_back",
        route(5, MASK | LEVEL | 0x77, 0x5A000000) + read(0x1A) + read(0x1B, "ecx"),
        bx=MASK | LEVEL | 0x77,
        cx=0x5A000000,
    )
    p.check(
        "entry_read_only_bits",
        write(0x1A, 0xFFFFFFFF) + read(0x1A) + write(0x1A, MASK),
        bx=(0, 0xFFFE0000 | 1 << 14 | 1 << 12),
    )
    wait = "mov ecx, 1\ncall irq_wait\n"
    # ---- edges
    counted(p, "edge", route(11, 0x76) + pulse(11) + wait, r0=1, r1=0x76)
    counted(p, "edge_stays_high", route(11, 0x76) + line(11, 1) + wait + "call irq_pause\n" + line(11, 0), r0=1)
    counted(
        p,
        "edge_two",
        route(10, 0x77) + route(11, 0x76) + pulse(11) + pulse(10) + "mov ecx, 2\ncall irq_wait",
        r0=2,
        r1=0x7776,
    )
    counted(p, "edge_masked_is_lost", route(11, MASK | 0x76) + pulse(11) + route(11, 0x76) + "call irq_pause", r0=0)
    counted(p, "edge_twice", pulse(11) + wait + pulse(11) + "mov ecx, 2\ncall irq_wait", r0=2)
    counted(p, "edge_merges", pulse(11) + pulse(11) + "call irq_pause", r0=1)
    counted(p, "logical", route(11, LOGICAL | 0x78, 0x01000000) + pulse(11) + wait, r0=1, r1=0x78)
    counted(p, "other_destination", route(11, 0x79, 0x05000000) + pulse(11) + "call irq_pause", r0=0)
    # ---- levels
    p.data(f"more_lower: {line(11, 0)}ret\n")
    lower = "lea rax, [more_lower]\nmov [irq_more], rax\n"
    counted(p, "level", lower + route(11, LEVEL | 0x7A) + line(11, 1) + wait + "call irq_pause", r0=1, r1=0x7A)
    p.data(f"more_third: cmp qword ptr [irq_count], 3\njne more_third_not\n{line(11, 0)}more_third_not: ret\n")
    counted(
        p,
        "level_repeats",
        "lea rax, [more_third]\nmov [irq_more], rax\n" + line(11, 1) + "mov ecx, 3\ncall irq_wait\ncall irq_pause",
        r0=3,
        r1=0x7A7A7A,
    )
    p.data(f"more_irr: {read(0x26, 'ebx')}mov [got_r4], rbx\n{line(11, 0)}ret\n")
    counted(
        p,
        "remote_irr",
        "lea rax, [more_irr]\nmov [irq_more], rax\n" + line(11, 1) + wait + read(0x26),
        r0=1,
        r4=LEVEL | REMOTE_IRR | 0x7A,
        bx=LEVEL | 0x7A,
    )
    counted(
        p,
        "level_masked_waits",
        lower
        + route(11, MASK | LEVEL | 0x7A)
        + line(11, 1)
        + "call irq_pause\nmov ebx, [irq_count]\n"
        + route(11, LEVEL | 0x7A)
        + wait,
        bx=0,
        r0=1,
    )
    counted(
        p,
        "level_gone",
        route(11, MASK | LEVEL | 0x7A) + line(11, 1) + line(11, 0) + route(11, LEVEL | 0x7A) + "call irq_pause",
        r0=0,
    )
    counted(
        p,
        "level_no_eoi",
        lower
        + "mov dword ptr [irq_no_eoi], 1\n"
        + line(11, 1)
        + wait
        + line(11, 1)
        + "call irq_pause\nmov ebx, [irq_count]\nmov qword ptr [irq_no_eoi], 0\n"
        + put(EOI, 0)
        + "mov ecx, 2\ncall irq_wait",
        bx=1,
        r0=2,
    )
    counted(
        p,
        "level_and_edge",
        lower + route(10, 0x66) + line(11, 1) + pulse(10) + "mov ecx, 2\ncall irq_wait",
        r0=2,
        r1=0x7A66,
    )
    counted(p, "tmr", "lea rax, [more_tmr]\nmov [irq_more], rax\n" + line(11, 1) + wait, r4=1 << (0x7A & 31))
    p.data(f"more_tmr: {get(0x180 + 0x30)}mov [got_r4], rbx\n{line(11, 0)}ret\n")
    # ---- priority, masking by TPR
    counted(
        p,
        "tpr",
        route(11, 0x76) + put(TPR, 0x70) + pulse(11) + "call irq_pause\nmov ebx, [irq_count]\n" + put(TPR, 0) + wait,
        bx=0,
        r0=1,
        r1=0x76,
    )
    counted(p, "nmi", route(11, 0x400 | 0x12) + pulse(11) + "nop\nnop\n", r0=1, r1=2)
    p.asm(route(11, MASK) + route(10, MASK))
    # ---- the 8259 pair through LINT0
    p.asm(
        "mov edx, 0x4d1\nxor eax, eax\nout dx, al\nmov al, 0x11\nout 0x20, al\nout 0xa0, al\nmov al, 0x20\nout 0x21, al\nmov al, 0x28\nout 0xa1, al\nmov al, 4\nout 0x21, al\nmov al, 2\nout 0xa1, al\nmov al, 1\nout 0x21, al\nout 0xa1, al\n"
    )
    p.data("more_pic: mov al, 0x20\nout 0xa0, al\nout 0x20, al\nret\n")
    pic = "lea rax, [more_pic]\nmov [irq_more], rax\nmov dword ptr [irq_no_eoi], 1\n"
    masks = "mov al, {:#x}\nout 0x21, al\nmov al, {:#x}\nout 0xa1, al\n"
    counted(p, "pic_masked", pic + put(LINT0, 0x700) + masks.format(0xFF, 0xFF) + pulse(5) + "call irq_pause", r0=0)
    counted(p, "pic", pic + masks.format(0xDF, 0xFF) + line(5, 1) + wait + line(5, 0), r0=1, r1=0x25)
    counted(p, "pic_slave", pic + masks.format(0xFB, 0xFB) + line(10, 1) + wait + line(10, 0), r0=1, r1=0x2A)
    counted(
        p, "pic_lint0_masked", pic + put(LINT0, MASKED | 0x700) + line(10, 1) + "call irq_pause\n" + line(10, 0), r0=0
    )
    p.asm(masks.format(0xFF, 0xFF))
    return p
