"""x2APIC mode and the TSC deadline (SDM 3, 10.12 and 10.5.4.1)."""

from __future__ import annotations

from tests.guests.topics.interrupts import APIC, DEADLINE, MASKED, SELF, counted, prepare
from tests.guests.topics.program import GP, Program

BASE, TSC_DEADLINE = 0x1B, 0x6E0
X2 = 0x800


def wr(msr: int, low: int, high: int = 0, label: str = "") -> str:
    """Code that writes an MSR."""
    return f"mov ecx, {msr:#x}\nmov eax, {low:#x}\nmov edx, {high:#x}\n{label}wrmsr\n"


def rd(msr: int, label: str = "") -> str:
    """Code that reads one."""
    return f"mov ecx, {msr:#x}\n{label}rdmsr\n"


def program() -> Program:
    p = Program("x2apic", 64)
    prepare(p)
    p.check("cpuid", "mov eax, 1\ncpuid", cx=(1 << 21 | 1 << 24, 1 << 21 | 1 << 24))
    p.check("enable", wr(BASE, APIC | 0xD00), vector=0x100)
    p.check("base", rd(BASE), ax=APIC | 0xD00)
    p.asm("mov dword ptr [x2apic], 1\n")
    p.check("id", rd(X2 + 2), ax=0, dx=0)
    p.check("version", rd(X2 + 3) + "and eax, 0xf0", ax=0x10)
    p.check("ldr", rd(X2 + 0xD), ax=1, dx=0)
    for name, msr in (
        ("dfr", 0x80E),
        ("icr_high", 0x831),
        ("eoi", 0x80B),
        ("self_ipi", 0x83F),
        ("hole", 0x801),
        ("hole_2", 0x840),
        ("apr", 0x809),
    ):
        p.check(f"read_{name}", rd(msr, f"read_{name}: "), vector=GP, error=0, ip=f"read_{name}")
    for name, msr, low, high in (
        ("id", 0x802, 0, 0), ("version", 0x803, 0, 0), ("ldr", 0x80D, 1, 0), ("ppr", 0x80A, 0, 0), ("isr", 0x810, 0, 0), ("irr", 0x827, 0, 0),
        ("current", 0x839, 0, 0), ("eoi_nonzero", 0x80B, 1, 0), ("eoi_high", 0x80B, 0, 1), ("tpr_reserved", 0x808, 0x100, 0), ("svr_reserved", 0x80F, 0x10000, 0),
        ("esr_nonzero", 0x828, 1, 0), ("icr_reserved", 0x830, 1 << 20, 0), ("lvt_reserved", 0x832, 1 << 20, 0), ("lvt_high", 0x832, MASKED, 1),
        ("self_reserved", 0x83F, 0x150, 0), ("divide_reserved", 0x83E, 4, 0), ("dfr", 0x80E, 0, 0), ("hole", 0x840, 0, 0), ("icr_high", 0x831, 0, 0),
    ):  # fmt: skip
        p.check(f"write_{name}", wr(msr, low, high, f"write_{name}: "), vector=GP, error=0, ip=f"write_{name}")
    p.check("enable_svr", wr(0x80F, 0x1FF) + rd(0x80F), ax=0x1FF)
    counted(p, "self_ipi", wr(0x83F, 0x50) + "mov ecx, 1\ncall irq_wait", r0=1, r1=0x50)
    counted(p, "icr_self", wr(0x830, SELF | 0x51) + "mov ecx, 1\ncall irq_wait", r0=1, r1=0x51)
    counted(p, "icr_physical", wr(0x830, 0x52, 0) + "mov ecx, 1\ncall irq_wait", r0=1, r1=0x52)
    counted(p, "icr_logical", wr(0x830, 0x853, 1) + "mov ecx, 1\ncall irq_wait", r0=1, r1=0x53)
    counted(p, "icr_logical_cluster_1", wr(0x830, 0x853, 0x10001) + "call irq_pause", r0=0)
    counted(p, "icr_broadcast", wr(0x830, 0x54, 0xFFFFFFFF) + "mov ecx, 1\ncall irq_wait", r0=1, r1=0x54)
    counted(p, "icr_8bit_broadcast_is_an_id", wr(0x830, 0x55, 0xFF) + "call irq_pause", r0=0)
    counted(p, "nmi", wr(0x830, 0x400, 0) + "nop\nnop", r0=1, r1=2)
    p.check("icr_reads_back", wr(0x830, 0x5F, 0x1234) + rd(0x830), ax=0x5F, dx=0x1234)
    p.check("tpr", wr(0x808, 0x35) + "mov rbx, cr8\nxor eax, eax\nmov cr8, rax\n" + rd(0x808), bx=3, ax=0)
    counted(
        p, "timer", wr(0x83E, 0xB) + wr(0x832, 0x40) + wr(0x838, 10000) + "mov ecx, 1\ncall irq_wait", r0=1, r1=0x40
    )
    # ---- the TSC deadline
    arm = "rdtsc\nshl rdx, 32\nor rax, rdx\nadd rax, {}\nmov rdx, rax\nshr rdx, 32\nmov ecx, 0x6e0\nwrmsr\n"
    p.check("deadline_ignored_before", wr(0x832, MASKED) + arm.format(1000000) + rd(TSC_DEADLINE), ax=0, dx=0)
    counted(
        p,
        "deadline",
        wr(0x832, DEADLINE | 0x44) + arm.format(100000) + "mov ecx, 1\ncall irq_wait\n" + rd(TSC_DEADLINE),
        r0=1,
        r1=0x44,
        ax=0,
        dx=0,
    )
    counted(
        p,
        "deadline_past",
        wr(TSC_DEADLINE, 1) + "mov ecx, 1\ncall irq_wait\n" + rd(TSC_DEADLINE),
        r0=1,
        r1=0x44,
        ax=0,
        dx=0,
    )
    counted(p, "deadline_once", wr(TSC_DEADLINE, 1) + "call irq_pause\ncall irq_pause", r0=1)
    counted(
        p,
        "deadline_disarmed",
        arm.format(0x7FFFFFFF) + wr(TSC_DEADLINE, 0) + "call irq_pause\n" + rd(TSC_DEADLINE),
        r0=0,
        ax=0,
    )
    counted(
        p,
        "deadline_armed_reads",
        wr(TSC_DEADLINE, 0x89ABCDEF, 0x7FFFFFF) + rd(TSC_DEADLINE),
        r0=0,
        ax=0x89ABCDEF,
        dx=0x7FFFFFF,
    )
    counted(
        p,
        "deadline_initial_ignored",
        wr(0x838, 1000) + "call irq_pause\n" + rd(0x838) + "mov ebx, eax\n" + rd(0x839),
        r0=0,
        ax=0,
    )
    p.check("deadline_mode_left", wr(0x832, MASKED | 0x44) + rd(TSC_DEADLINE), ax=0, dx=0)
    counted(
        p,
        "deadline_masked",
        wr(0x832, DEADLINE | MASKED | 0x44) + wr(TSC_DEADLINE, 1) + "call irq_pause\n" + rd(TSC_DEADLINE),
        r0=0,
        ax=0,
    )
    p.check("lvt_reserved_mode", wr(0x832, MASKED) + rd(0x832), ax=MASKED)
    # ---- the ways out (10.12.5)
    p.check("to_xapic", wr(BASE, APIC | 0x900, 0, "to_xapic: "), vector=GP, error=0, ip="to_xapic")
    p.check("page_gone", f"mov eax, {APIC + 0x30:#x}\nmov ebx, [rax]\nand ebx, 0xf0", bx=0xF0)
    p.check("to_disabled", wr(BASE, APIC | 0x100) + rd(BASE), ax=APIC | 0x100)
    p.check("disabled_msr", rd(0x802, "disabled_msr: "), vector=GP, error=0, ip="disabled_msr")
    p.check(
        "disabled_to_x2apic",
        wr(BASE, APIC | 0xD00, 0, "disabled_to_x2apic: "),
        vector=GP,
        error=0,
        ip="disabled_to_x2apic",
    )
    p.check("to_xapic_again", wr(BASE, APIC | 0x900) + f"mov eax, {APIC + 0xF0:#x}\nmov ebx, [rax]", bx=0xFF)
    return p
