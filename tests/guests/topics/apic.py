"""The local APIC in xAPIC mode (SDM 3, chapter 10): IPIs, priorities, IRR and ISR, errors, the timer, NMIs, the
interrupt shadow of STI, and IA32_APIC_BASE.
"""

from __future__ import annotations

from tests.guests.topics.interrupts import (
    APIC,
    CURRENT,
    DIVIDE,
    EOI,
    ESR,
    ICR,
    ICR_HIGH,
    ID,
    INITIAL,
    IRR,
    ISR,
    LVT_ERROR,
    LVT_TIMER,
    MASKED,
    PERIODIC,
    PPR,
    SELF,
    SVR,
    TPR,
    VERSION,
    counted,
    get,
    prepare,
    put,
)  # fmt: skip
from tests.guests.topics.program import GP, Program

BASE_MSR = 0x1B
NMI_MODE = 0x400


def program() -> Program:
    p = Program("apic", 64)
    prepare(p)
    p.check("id", get(ID), bx=0)
    p.check("version", get(VERSION) + "shr ebx, 4", bx=(1, 0xF))  # 0x10 to 0x15: integrated
    p.check("max_lvt", get(VERSION) + "shr ebx, 16\nand ebx, 0xff\ncmp ebx, 5\nsetae bl\nmovzx ebx, bl", bx=1)
    p.check("cpuid", "mov eax, 1\ncpuid\nshr ebx, 24", bx=0, dx=(0x200, 0x200))
    # ---- IPIs
    send = put(ICR, SELF | 0x50)
    counted(p, "self_ipi", send + "mov ecx, 1\ncall irq_wait", r0=1, r1=0x50)
    counted(p, "physical_ipi", put(ICR_HIGH, 0) + put(ICR, 0x51) + "mov ecx, 1\ncall irq_wait", r0=1, r1=0x51)
    counted(p, "logical_ipi", put(ICR_HIGH, 0x1000000) + put(ICR, 0x852) + "mov ecx, 1\ncall irq_wait", r0=1, r1=0x52)
    counted(p, "logical_ipi_other", put(ICR_HIGH, 0x2000000) + put(ICR, 0x853) + "call irq_pause", r0=0)
    counted(p, "broadcast_ipi", put(ICR_HIGH, 0xFF000000) + put(ICR, 0x54) + "mov ecx, 1\ncall irq_wait", r0=1, r1=0x54)
    counted(p, "all_including_self", put(ICR, 0x80055) + "mov ecx, 1\ncall irq_wait", r0=1, r1=0x55)
    counted(p, "all_but_self", put(ICR, 0xC0056) + "call irq_pause", r0=0)
    counted(
        p, "lowest_priority", put(ICR_HIGH, 0xFF000000) + put(ICR, 0x957) + "mov ecx, 1\ncall irq_wait", r0=1, r1=0x57
    )
    counted(p, "not_with_if_clear", send + "nop\nnop\nmov ebx, [irq_count]\nmov ecx, 1\ncall irq_wait", r0=1, bx=0)
    counted(p, "delivery_status", send + get(ICR) + "mov ecx, 1\ncall irq_wait", r0=1, bx=SELF | 0x50)
    # ---- order, and what is nested
    burst = put(ICR, SELF | 0x50) + put(ICR, SELF | 0x71) + put(ICR, SELF | 0x62)
    counted(p, "order", burst + "mov ecx, 3\ncall irq_wait", r0=3, r1=0x716250)
    counted(p, "twice_is_once", send + send + "call irq_pause", r0=1)
    counted(
        p,
        "irr",
        burst + get(IRR + 0x20) + get(IRR + 0x30, "edx") + "mov ecx, 3\ncall irq_wait",
        bx=1 << 16,
        dx=1 << 17 | 1 << 2,
    )
    p.data(
        f"more_isr: {get(ISR + 0x20, 'ebx')}mov [got_r4], rbx\n{get(IRR + 0x20, 'ebx')}mov [got_r5], rbx\n{get(PPR, 'ebx')}mov [got_r6], rbx\nret\n"
    )
    counted(
        p,
        "isr",
        "lea rax, [more_isr]\nmov [irq_more], rax\n" + send + "mov ecx, 1\ncall irq_wait",
        r0=1,
        r4=1 << 16,
        r5=0,
        r6=0x50,
    )
    counted(
        p, "no_eoi_blocks", "mov dword ptr [irq_no_eoi], 1\n" + send + "mov ecx, 1\ncall irq_wait\n" + put(ICR, SELF | 0x5F) + "call irq_pause\n"
        "mov ebx, [irq_count]\n" + put(ICR, SELF | 0x60) + "mov ecx, 2\ncall irq_wait\nmov edx, [irq_vectors]\n" + put(EOI, 0) + put(EOI, 0)
        + "mov ecx, 3\ncall irq_wait\n" + put(EOI, 0), bx=1, dx=0x5060, r0=3, r1=0x50605F,
    )  # fmt: skip
    counted(p, "eoi_without_interrupt", put(EOI, 0) + get(ISR + 0x20), bx=0)
    # ---- task priority (10.8.3)
    counted(
        p, "tpr_blocks", put(TPR, 0x5F) + send + "call irq_pause\nmov ebx, [irq_count]\n" + get(PPR, "edx") + put(TPR, 0x4F) + "mov ecx, 1\ncall irq_wait",
        bx=0, dx=0x5F, r0=1, r1=0x50,
    )  # fmt: skip
    p.check("cr8_writes_tpr", "mov ecx, 7\nmov cr8, rcx\n" + get(TPR), bx=0x70)
    p.check("cr8_reads_tpr", put(TPR, 0x3F) + "mov rbx, cr8", bx=3)
    p.check("cr8_reserved", "mov ecx, 16\ncr8_16: mov cr8, rcx", vector=GP, error=0, ip="cr8_16")
    counted(
        p,
        "cr8_unblocks",
        put(TPR, 0xF0)
        + send
        + "sti\nnop\nnop\nmov ebx, [irq_count]\nxor ecx, ecx\nmov cr8, rcx\ncr8_next: nop\nnop\ncli",
        bx=0,
        r0=1,
        r2="cr8_next",
    )
    p.asm(put(TPR, 0))
    # ---- the shadow of STI (SDM 2, STI); none after POPF
    counted(p, "sti_shadow", send + "sti\nnop\nsti_next: nop\nnop\ncli", r0=1, r2="sti_next")
    counted(p, "sti_cli", send + "sti\ncli\nnop\nmov ebx, [irq_count]\nmov ecx, 1\ncall irq_wait", bx=0, r0=1)
    counted(p, "sti_sti", send + "sti\nsti\nsti_2: nop\nnop\ncli", r0=1, r2="sti_2")
    counted(p, "popf", send + "push 0x202\npopfq\npopf_next: nop\nnop\ncli", r0=1, r2="popf_next")
    counted(
        p,
        "iret",
        send
        + "mov rdx, rsp\npush 0x10\npush rdx\npush 0x202\npush 8\nlea rbx, [iret_next]\npush rbx\niretq\niret_next: nop\nnop\ncli",
        r0=1,
        r2="iret_next",
    )
    counted(p, "mov_ss", send + "mov ecx, 0x10\nsti\nmov ss, ecx\nmov_ss_next: nop\nmov_ss_after: nop\ncli", r0=1)
    counted(p, "hlt", send + "sti\nhlt\nhlt_next: cli", r0=1, r2="hlt_next")
    # ---- NMI (SDM 3, 6.7): whatever IF is, and not within itself
    nmi = put(ICR_HIGH, 0) + put(ICR, NMI_MODE)
    counted(p, "nmi", nmi + "nop\nnop\nmov ebx, [irq_count]", r0=1, r1=2, bx=1)
    p.data(
        f"more_nmi: cmp qword ptr [irq_count], 1\njne more_nmi_not\n{nmi}{nmi}nop\nnop\nmov rax, [irq_count]\nmov [got_r4], rax\nmore_nmi_not: ret\n"
    )
    counted(
        p,
        "nmi_in_nmi",
        "lea rax, [more_nmi]\nmov [irq_more], rax\n" + nmi + "nmi_after: nop\nnop",
        r0=2,
        r1=0x202,
        r4=1,
    )
    counted(p, "nmi_before_irq", "cli\n" + send + "sti\n" + "nop\nnop\n" + nmi + "nop\ncli", r0=2, r1=0x5002)
    counted(p, "nmi_hlt", nmi + "nop\nmov ebx, [irq_count]", r0=1, bx=1)
    # ---- errors (10.5.3)
    p.check("send_illegal_vector", put(ESR, 0) + put(ICR, SELF | 5) + put(ESR, 0) + get(ESR), bx=0x20)
    p.check("esr_cleared", put(ESR, 0) + get(ESR), bx=0)
    counted(
        p,
        "error_interrupt",
        put(LVT_ERROR, 0x5A) + put(ICR, SELF | 6) + "mov ecx, 1\ncall irq_wait\n" + put(ESR, 0) + put(ESR, 0),
        r0=1,
        r1=0x5A,
    )
    p.asm(put(LVT_ERROR, MASKED))
    # ---- the timer (10.5.4)
    p.check("divide_reads_back", put(DIVIDE, 0xFFFFFFFF) + get(DIVIDE), bx=0xB)
    p.asm(put(DIVIDE, 0xB))
    counted(
        p,
        "one_shot",
        put(LVT_TIMER, 0x40) + put(INITIAL, 10000) + "mov ecx, 1\ncall irq_wait\ncall irq_pause\n" + get(CURRENT),
        r0=1,
        r1=0x40,
        bx=0,
    )
    counted(
        p,
        "periodic",
        put(LVT_TIMER, PERIODIC | 0x41)
        + put(INITIAL, 100000)
        + "mov ecx, 3\ncall irq_wait\n"
        + put(INITIAL, 0)
        + "mov ebx, [irq_count]\ncmp ebx, 3\nsetae bl\nmovzx ebx, bl",
        bx=1,
        r1=(0x4141, 0xFFFF),
    )
    counted(
        p,
        "initial_0_stops",
        put(LVT_TIMER, PERIODIC | 0x41) + put(INITIAL, 100000) + put(INITIAL, 0) + "call irq_pause\n" + get(CURRENT),
        r0=(0, ~1),
        bx=0,
    )
    counted(
        p,
        "masked",
        put(LVT_TIMER, MASKED | 0x42) + put(INITIAL, 1000) + "call irq_pause\ncall irq_pause\n" + get(CURRENT),
        r0=0,
    )
    p.check(
        "counts_down", put(LVT_TIMER, MASKED | 0x42) + put(INITIAL, 0xFFFFFFFF) + get(CURRENT, "ecx") + "mov edx, 1000\ncount_wait: pause\ndec edx\n"
        "jnz count_wait\n" + get(CURRENT, "edx") + "cmp edx, ecx\nsetb bl\nmovzx ebx, bl", bx=1,
    )  # fmt: skip
    p.check("initial_reads_back", get(INITIAL), bx=0xFFFFFFFF)
    p.asm(put(INITIAL, 0))
    counted(
        p,
        "lvt_illegal_vector",
        put(LVT_TIMER, 0x0F) + put(INITIAL, 100) + "call esr_wait\n" + put(ESR, 0),
        r0=0,
        bx=(0x40, 0x40),
    )
    p.asm(put(LVT_TIMER, MASKED) + put(INITIAL, 0))
    # ---- software disable (10.4.7.2)
    p.check("disabled_masks", put(LVT_TIMER, 0x43) + put(SVR, 0xFF) + get(LVT_TIMER), bx=MASKED | 0x43)
    p.check("disabled_keeps_masked", put(LVT_TIMER, 0x43) + get(LVT_TIMER), bx=MASKED | 0x43)
    p.check("enabled_stays_masked", put(SVR, 0x1FF) + get(LVT_TIMER), bx=MASKED | 0x43)
    # ---- IA32_APIC_BASE (10.4.4)
    write = f"mov ecx, {BASE_MSR:#x}\nmov eax, {{low}}\nmov edx, {{high}}\n{{label}}wrmsr\n"
    p.check("base", f"mov ecx, {BASE_MSR:#x}\nrdmsr", ax=APIC | 0x900, dx=0)
    for n, (name, low, high) in enumerate(
        (
            ("bit0", APIC | 0x901, 0),
            ("bit1", APIC | 0x902, 0),
            ("bit9", APIC | 0xB00, 0),
            ("beyond", APIC | 0x900, 1 << 20),
        )
    ):
        p.check(
            f"base_reserved_{name}",
            write.format(low=low, high=high, label=f"base_{n}: "),
            vector=GP,
            error=0,
            ip=f"base_{n}",
        )
    p.check(
        "base_extd_alone",
        write.format(low=APIC | 0x500, high=0, label="base_extd: "),
        vector=GP,
        error=0,
        ip="base_extd",
    )
    p.check(
        "base_moved",
        write.format(low=0x42000900, high=0, label="") + "mov eax, 0x42000030\nmov ebx, [rax]\nand ebx, 0xf0",
        bx=0x10,
    )
    p.check("base_moved_away", f"mov ecx, {BASE_MSR:#x}\nrdmsr", ax=0x42000900)
    p.asm(write.format(low=APIC | 0x900, high=0, label=""))
    p.check("base_moved_back", get(VERSION) + "and ebx, 0xf0", bx=0x10)
    p.check("x2apic_msr", "mov ecx, 0x802\nx2_rd: rdmsr", vector=GP, error=0, ip="x2_rd")
    p.check(
        "x2apic_msr_write", "mov ecx, 0x80b\nxor eax, eax\nxor edx, edx\nx2_wr: wrmsr", vector=GP, error=0, ip="x2_wr"
    )
    p.check("globally_disabled", write.format(low=APIC | 0x100, high=0, label="") + "mov eax, 1\ncpuid", dx=(0, 0x200))
    p.asm(write.format(low=APIC | 0x900, high=0, label=""))
    p.check("enabled_again", "mov eax, 1\ncpuid\nmov ebp, edx\n" + get(SVR), bp=(0x200, 0x200), bx=0xFF)
    return p
