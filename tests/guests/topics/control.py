"""Control registers, EFER and other MSRs of 64-bit mode: reserved bits, combinations that are refused, what is read back
(SDM 3, 2.5, 4.1.2 and 9.8.5; 4 for the MSRs), TSC and TSC_ADJUST.
"""

from __future__ import annotations

from tests.guests.topics.program import GP, Program

PE, MP, EM, TS, ET, NE, WP, AM, NW, CD = 1, 2, 4, 8, 16, 32, 1 << 16, 1 << 18, 1 << 29, 1 << 30
EFER = 0xC0000080


def rd(msr: int, label: str = "") -> str:
    """Code that reads an MSR."""
    return f"mov ecx, {msr:#x}\n{label}rdmsr\n"


def wr(msr: int, value: int, label: str = "") -> str:
    """Code that writes one."""
    return f"mov ecx, {msr:#x}\nmov eax, {value & 0xFFFFFFFF:#x}\nmov edx, {value >> 32:#x}\n{label}wrmsr\n"


def program() -> Program:
    p = Program("control", 64)
    # ---- CR0
    keep = "mov rax, cr0\nmov rsi, rax\n"
    for name, change in (
        ("nw_without_cd", f"or eax, {NW:#x}"),
        ("high", "bts rax, 32"), ("bit63", "bts rax, 63"),
    ):  # fmt: skip
        p.check(f"cr0_{name}", f"{keep}{change}\ncr0_{name}: mov cr0, rax", vector=GP, error=0, ip=f"cr0_{name}")
    p.check(
        "cr0_reserved_ignored", f"{keep}or eax, 0x8040\nmov cr0, rax\nmov rbx, cr0\nmov cr0, rsi\nxor rbx, rsi", bx=0
    )
    p.check(
        "cr0_et_fixed", f"{keep}and eax, {0xFFFFFFFF & ~ET:#x}\nmov cr0, rax\nmov rbx, cr0\nmov cr0, rsi", bx=(ET, ET)
    )
    p.check(
        "cr0_bits",
        f"{keep}or eax, {MP | EM | TS | NE | WP | AM:#x}\nmov cr0, rax\nmov rbx, cr0\nmov cr0, rsi",
        bx=(0x5003F, 0x5003F),
    )
    p.check("cr0_cache", f"{keep}or eax, {CD | NW:#x}\nmov cr0, rax\nmov rbx, cr0\nmov cr0, rsi", bx=(CD | NW, CD | NW))
    p.check("lmsw_sets", f"{keep}mov eax, {PE | MP | EM | TS}\nlmsw ax\nmov rbx, cr0\nmov cr0, rsi", bx=(15, 15))
    p.check("lmsw_keeps_pe", f"{keep}xor eax, eax\nlmsw ax\nmov rbx, cr0\nmov cr0, rsi", bx=(PE, 15))
    p.check(
        "lmsw_only_four",
        f"{keep}mov eax, 0xfff1\nlmsw ax\nmov rbx, cr0\nmov cr0, rsi\nxor rbx, rsi\nand ebx, 0xfff0",
        bx=0,
    )
    p.check("smsw_64", "mov rax, -1\n.byte 0x48, 0x0f, 0x01, 0xe0\nmov rbx, cr0\nxor rax, rbx", ax=0)
    p.check("clts", f"{keep}or eax, {TS}\nmov cr0, rax\nclts\nmov rbx, cr0\nand ebx, {TS}", bx=0)
    p.check("cr2", "mov rax, 0x123456789abcdef0\nmov cr2, rax\nmov rbx, cr2", bx=0x123456789ABCDEF0)
    # ---- CR3, CR4
    p.check(
        "cr3_low_bits",
        "mov rsi, cr3\nmov rax, rsi\nor eax, 0x18\nmov cr3, rax\nmov rbx, cr3\nmov cr3, rsi\nxor rbx, rsi",
        bx=0x18,
    )
    p.check(
        "cr4_la57_in_long_mode", "mov rax, cr4\nbts rax, 12\ncr4_la57: mov cr4, rax", vector=GP, error=0, ip="cr4_la57"
    )
    p.check(
        "cr4_bits",
        "mov rsi, cr4\nmov rax, rsi\nor eax, 0x79c\nmov cr4, rax\nmov rbx, cr4\nmov cr4, rsi\nand ebx, 0x79c",
        bx=0x79C,
    )
    p.check("cr4_tsd", "mov rax, cr4\nor eax, 4\nmov cr4, rax\nrdtsc")
    p.user("tsd_cpl3", "tsd_3: rdtsc", vector=GP, error=0, ip="tsd_3")
    p.asm("mov rax, cr4\nand eax, 0xfffffffb\nmov cr4, rax\n")
    p.user("rdtsc_cpl3", "rdtsc")
    p.check("pce_rdpmc", "mov rax, cr4\nand eax, 0xfffffeff\nmov cr4, rax\nnop")
    p.user("rdpmc_cpl3", "xor ecx, ecx\nrdpmc_3: rdpmc", vector=GP, error=0, ip="rdpmc_3")
    p.check("cr8", "mov eax, 5\nmov cr8, rax\nmov rbx, cr8\nxor eax, eax\nmov cr8, rax", bx=5)
    p.check(
        "mov_cr_mod", "mov rsi, cr0\n.byte 0x0f, 0x20, 0x03\nmov rax, rsi\nxor rax, rbx", ax=0
    )  # mod is ignored: a register
    # ---- EFER
    p.check("efer", rd(EFER), ax=0x500, dx=0)
    p.check("efer_lme_off", wr(EFER, 0x400, "efer_1: "), vector=GP, error=0, ip="efer_1")
    p.check("efer_reserved", wr(EFER, 0x502, "efer_2: "), vector=GP, error=0, ip="efer_2")
    p.check("efer_high", wr(EFER, 0x100000500, "efer_3: "), vector=GP, error=0, ip="efer_3")
    p.check("efer_sce_nxe", wr(EFER, 0xD01) + rd(EFER), ax=0xD01)
    p.check("efer_lma_ignored", wr(EFER, 0x100) + rd(EFER), ax=0x500)
    # ---- other MSRs
    for name, msr in (("none", 0x12345678), ("hole", 0xC0001234)):
        p.check(f"msr_{name}", rd(msr, f"msr_{name}: "), vector=GP, error=0, ip=f"msr_{name}")
        p.check(f"msr_{name}_write", wr(msr, 0, f"msr_{name}_w: "), vector=GP, error=0, ip=f"msr_{name}_w")
    for name, msr, value in (
        ("star", 0xC0000081, 0x123456789ABCDEF0), ("fmask", 0xC0000084, 0x47700), ("sysenter_cs", 0x174, 0x1234), ("pat", 0x277, 0x0007040600070406),
        ("tsc_aux", 0xC0000103, 0x1234), ("mtrr_base", 0x200, 0x80000006), ("mtrr_mask", 0x201, 0xFF80000800), ("mtrr_fixed", 0x250, 0x0606060606060606),
        ("mtrr_default", 0x2FF, 0xC06),
    ):  # fmt: skip
        p.check(
            f"msr_{name}", rd(msr) + "mov esi, eax\nmov edi, edx\n" + wr(msr, value) + rd(msr) + "mov ebx, eax\nmov ebp, edx\n"
            f"mov ecx, {msr:#x}\nmov eax, esi\nmov edx, edi\nwrmsr", bx=value & 0xFFFFFFFF, bp=value >> 32,
        )  # fmt: skip
    for name, msr, value in (
        ("pat_type_2", 0x277, 0x0007040600070402), ("pat_type_8", 0x277, 8 << 56), ("mtrr_type_2", 0x200, 2), ("mtrr_fixed_type", 0x250, 3),
        ("mtrr_default_type", 0x2FF, 2), ("mtrr_default_reserved", 0x2FF, 0x1000), ("mtrr_cap", 0xFE, 0), ("mtrr_base_high", 0x200, 1 << 52),
    ):  # fmt: skip
        p.check(f"msr_{name}", wr(msr, value, f"msr_{name}: "), vector=GP, error=0, ip=f"msr_{name}")
    p.user("msr_cpl3", rd(0x277, "msr_cpl3: "), vector=GP, error=0, ip="msr_cpl3")
    # ---- time-stamp counter
    later = "mov edi, eax\nmov esi, edx\nrdtsc\nsub eax, edi\nsbb edx, esi\nsetns bl\nmovzx ebx, bl\n"
    p.check("tsc_goes_on", "rdtsc\n" + later, bx=1)
    p.check("tsc_msr", rd(0x10) + later, bx=1)
    p.check("tsc_write", wr(0x10, 0x123456789A) + "rdtsc\nmov ebx, edx\nshr eax, 29", bx=0x12, ax=0x3456789A >> 29)
    p.check("rdtscp", wr(0xC0000103, 0x55) + "rdtscp", cx=0x55)
    p.check("tsc_adjust_0", wr(0x3B, 0) + rd(0x3B), ax=0, dx=0)
    p.check("tsc_adjust", "rdtsc\nmov esi, edx\n" + wr(0x3B, 0x100 << 32) + "rdtsc\nsub edx, esi\nshr edx, 1", dx=0x80)
    p.check(
        "tsc_write_adjusts",
        wr(0x3B, 0) + "rdtsc\nadd edx, 0x10\nmov ecx, 0x10\nwrmsr\n" + rd(0x3B) + "add eax, 0x80000000\nadc edx, 0",
        dx=0x10,
    )
    p.check("cpuid_tsc_adjust", "mov eax, 7\nxor ecx, ecx\ncpuid\nand ebx, 2", bx=2)
    # QEMU does not survive these
    for name, bit in (("bit15", 15), ("bit19", 19), ("bit31", 31), ("bit32", 32), ("bit63", 63)):
        p.check(
            f"cr4_{name}",
            f"mov rax, cr4\nbts rax, {bit}\ncr4_{name}: mov cr4, rax",
            vector=GP,
            error=0,
            ip=f"cr4_{name}",
        )
    p.check("cr4_pae_off", "mov rax, cr4\nbtr rax, 5\ncr4_pae_off: mov cr4, rax", vector=GP, error=0, ip="cr4_pae_off")
    p.check("cr3_beyond", "mov rax, cr3\nbts rax, 52\ncr3_1: mov cr3, rax", vector=GP, error=0, ip="cr3_1")
    p.check("cr3_bit63_without_pcid", "mov rax, cr3\nbts rax, 63\ncr3_2: mov cr3, rax", vector=GP, error=0, ip="cr3_2")
    return p
