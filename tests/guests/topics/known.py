"""The reviewed lists of checks in which QEMU 7.2's TCG is wrong, and in which Bochs 2.7 is, with what the manual says.

`SDM 3, 6.5` is volume 3, section 6.5 of Intel's Software Developer's Manual. A name that ends in * stands for all checks
that begin so. What QEMU fails was seen to pass on a second judge (Bochs 2.7, or the host's processor), and what Bochs
fails, on QEMU or on none.
"""

from __future__ import annotations

import fnmatch

LIMITS = "SDM 3, 5.3: offsets beyond the segment's limit, and uses of a null segment register, are faults"
PUSHED_RF = "SDM 3, 17.3.1.1: RF is set in the flags that a fault pushes"
NOT_ON_QEMU = {
    "x2apic": "QEMU 7.2's TCG has neither x2APIC nor the TSC deadline",
    "pcid": "QEMU 7.2's TCG has neither PCIDs nor INVPCID",
    "vme": "QEMU 7.2's TCG has neither VME nor PVI",
    "xsaves": "QEMU 7.2's TCG has no XSAVES",
}  # topics that say nothing there
KNOWN: dict[str, str] = {
    "debug.unaligned_address": "SDM 3, 18.2.5: the low bits of an address that the length spans don't count",
    "debug.two": "SDM 3, 18.2.3: every breakpoint that is met sets its bit",
    "debug.detect": "SDM 3, 18.3.1.3: DR7.GD makes any access to a debug register a fault",
    "debug.data_of_ss": "SDM 3, 6.8.3: traps of MOV SS wait for the end of the next instruction",
    "debug.icebp": "SDM 3, 18.3.1.6: INT1 is there, and raises #DB",
    "paging32.*": "as in paging; SDM 3, 4.4.1: reserved bits of PDPTEs are #GP(0), and they are read with CR3 only",
    "umip.lock": "SDM 2, LOCK: #UD with an instruction that does not allow it",
    "xsave.mxcsr_*": "SDM 1, 13.8: reserved bits of MXCSR in the area are #GP(0)",
    "xsave.ts*": "SDM 2, XSAVE and XRSTOR: #NM if CR0.TS is set",
    "control.cr0_*": "SDM 2, MOV to CR0: bits 63 to 32 and NW without CD are #GP(0), other reserved bits read as 0",
    "control.cr3_*": "SDM 2, MOV to CR3: reserved bits are #GP(0). QEMU does not survive them",
    "control.cr4_bit*": "SDM 2, MOV to CR4: reserved bits are #GP(0). QEMU does not survive them",
    "control.cr4_pae_off": "SDM 2, MOV to CR4: clearing PAE in long mode is #GP(0). QEMU does not survive it",
    "control.efer_*": "SDM 2, WRMSR: reserved bits of EFER, and LME while paging is on, are #GP(0)",
    "control.msr_none*": "SDM 2, RDMSR and WRMSR: an MSR that does not exist is #GP(0)",
    "control.msr_hole*": "SDM 2, RDMSR and WRMSR: an MSR that does not exist is #GP(0)",
    "control.msr_pat_type_*": "SDM 3, 12.12.2: reserved memory types are #GP(0)",
    "control.msr_mtrr_*": "SDM 3, 12.11: reserved memory types and bits are #GP(0)",
    "control.tsc_*": "SDM 3, 17.17.3: the counter can be written, and TSC_ADJUST says by how much it was changed",
    "control.cpuid_tsc_adjust": "not there in QEMU 7.2's TCG",
    "syscalls.syscall*": "SDM 2, SYSCALL: all flags but those of IA32_FMASK stay",
    "syscalls.sysret_vm": "SDM 2, SYSRET: VM and RF of R11 are not taken",
    "syscalls.noncanonical_*": "SDM 2, WRMSR: non-canonical addresses are #GP(0)",
    "syscalls.wrfsbase_noncanonical": "SDM 2, WRFSBASE: a non-canonical base is #GP(0)",
    "sysenter.enter_cs_3": "SDM 2, SYSENTER: a null selector in IA32_SYSENTER_CS is #GP(0), whatever its RPL",
    "sysenter.msr_cs": "SDM 4, IA32_SYSENTER_CS: 32 bits can be written",
    "apic.cr8_reserved": "SDM 2, MOV to CR8: values above 15 are #GP(0)",
    "apic.nmi*": "SDM 3, 6.7: an NMI is delivered at the next instruction boundary (QEMU's comes with the next block)",
    "apic.send_illegal_vector": "SDM 3, 10.5.3: vectors below 16 set bits of the error status",
    "apic.error_interrupt": "SDM 3, 10.5.3: vectors below 16 are not accepted, and raise the error interrupt",
    "apic.lvt_illegal_vector": "SDM 3, 10.5.3: vectors below 16 are not accepted",
    "apic.*_masked": "SDM 3, 10.4.7.2: software-disabling masks every entry of the local vector table",
    "apic.disabled_masks": "SDM 3, 10.4.7.2: software-disabling masks every entry of the local vector table",
    "apic.base_*": "SDM 3, 10.4.4: reserved bits of IA32_APIC_BASE are #GP(0); the base can be moved, with the enable bit kept",
    "apic.x2apic_msr*": "SDM 3, 10.12.2: the MSRs of x2APIC are #GP(0) in xAPIC mode",
    "apic.enabled_again": "SDM 3, 10.4.3: the enable bit of IA32_APIC_BASE can be set again",
    **dict.fromkeys(("exceptions.divide", "exceptions.from_user", "v86.divide", "v86.invalid", "v86.bound"), PUSHED_RF),
    "exceptions.icebp": "SDM 2, INT1: a trap, #DB behind the instruction",
    "exceptions.gate_noncanonical": "SDM 2, INT n: the offset in the gate is checked before anything changes",
    "exceptions.gate_*": "SDM 3, 6.13: error codes of IDT entries in long mode are vector * 8 + 2, and RF is set",
    "exceptions.beyond_limit": "SDM 3, 6.13: error codes of IDT entries in long mode are vector * 8 + 2",
    "exceptions.exception_*": "SDM 3, 6.13: EXT is set while an exception is being delivered",
    "exceptions.rsp0_noncanonical": "SDM 3, 6.13: EXT is set while an exception is being delivered",
    "exceptions.double_ss_gp": "SDM 3, 6.15: a non-canonical address in the stack segment is #SS",
    "exceptions.serial_*_gp": "SDM 3, 6.13: error codes of IDT entries in long mode, with EXT for exceptions",
    "exceptions.lock_before_pf": "SDM 3, table 6-2: LOCK with MOV is found while decoding, before any page fault",
    "exceptions.fpu_sse_em_ts": "SDM 3, table 13-1: CR0.EM's #UD comes before CR0.TS's #NM",
    "exceptions.fpu_emms_ts": "SDM 2, EMMS: #NM if CR0.TS is set",
    **dict.fromkeys(("v86.limit*", "v86.stack", "v86.stack_bp", "realmode.*limit*", "realmode.stack"), LIMITS),
    **dict.fromkeys(
        ("v86.undefined_lock", "realmode.lock"), "SDM 2, LOCK: #UD with an instruction that does not allow it"
    ),
    **dict.fromkeys(
        ("v86.jump_over", "v86.ret_wide", "realmode.*_over"),
        "SDM 2, JMP, CALL, RET: a target beyond the limit is #GP at the instruction",
    ),
    "realmode.mov_cr0_nw": "SDM 2, MOV to CR0: NW without CD is #GP(0)",
    "realmode.rdmsr": "SDM 2, RDMSR: an MSR that does not exist is #GP(0)",
    "realmode.icebp": "SDM 2, INT1: a trap, #DB behind the instruction",
    "gates.conforming": "SDM 3, 5.8.1.1: the RPL of CS is CPL after a transfer to a conforming segment",
    "gates.offset": "SDM 2, CALL: the offset in the gate is checked against the code segment's limit, before anything changes",
    "gates.stack_absent": "SDM 2, CALL: an absent inner stack segment is #SS(selector)",
    "gates.stack_small": "SDM 2, CALL: an inner stack without room is #SS(selector)",
    "gates.?*_offset": "SDM 2, RET and IRET: an offset beyond the limit is #GP(0) of this instruction",
    "gates.retf_stack_absent": "SDM 2, RET: an absent stack segment is #SS(selector)",
    "gates.iret_vm3": "SDM 2, IRET: VM in the image counts only at CPL 0",
    "paging.[124][kmg]_*": "SDM 3, 4.7: P is set in the error code of a reserved-bit violation; 4.8: flags of entries that grant nothing",
    "paging.reserved_*": "SDM 3, 4.7: P is set in the error code of a reserved-bit violation",
    "paging.noncanonical_*": "SDM 3, 6.15: #SS for the stack segment; SDM 2: transfers fault at the instruction",
    "five_levels.*reserved*": "SDM 3, 4.7: P is set in the error code of a reserved-bit violation",
    "five_levels.four_levels_base_beyond": "SDM 2, WRMSR: a base that is not canonical is #GP",
    "five_levels.not_canonical_stack": "SDM 3, 6.15: #SS for the stack segment",
    "paging.across_add": "SDM 3, 4.7: W is set in the error code of a read-modify-write",
    "segmentation.load_*_in_no_ldt": "SDM 2, MOV: with a null LDTR every selector of the LDT is beyond its limit",
    **dict.fromkeys(
        (
            "segmentation.limit_*",
            "segmentation.*byte*",
            "segmentation.pages_over_*",
            "segmentation.down_*",
            "segmentation.down16_*",
            "segmentation.quad_over",
            "segmentation.stos_over",
            "segmentation.null_*",
        ),
        "SDM 3, 5.3: offsets beyond the segment's limit, and uses of a null segment register, are #GP",
    ),
    **dict.fromkeys(
        ("segmentation.read_only_*", "segmentation.code_write", "segmentation.write_cs"),
        "SDM 3, 5.5: writes to read-only data and to code segments are #GP",
    ),
    "segmentation.code_read": "SDM 3, 5.5: it reads what code_write ought not to have written",
    "segmentation.fetch_*": "SDM 3, 5.3: fetches beyond the limit of the code segment are #GP",
    "segmentation.near_*": "SDM 2, JMP, CALL, RET, Jcc: a target beyond the limit of the code segment is #GP",
    "tasks.load_conforming": "SDM 3, 7.3: the RPL of CS may be above the DPL of a conforming segment",
    "tasks.iret_from_call": "SDM 3, 7.3: the old task's EFLAGS are saved, its CF among them",
    "tasks.gate_ldt_bit_*": "SDM 2, JMP and INT n: a TSS selector in a task gate that names the LDT is #GP, not #TS",
    "tasks.exception_absent": "SDM 3, 6.13: EXT is set while an exception is being delivered",
    "tasks.exception_busy": "SDM 3, 6.13: EXT is set while an exception is being delivered",
    "tasks.exception_saves_rf": "SDM 3, 17.3.1.1: RF is set in the EFLAGS saved for a fault",
    "tasks.new_*": "SDM 3, table 7-1: faults after the commit point are reported at the new task's EIP",
    "tasks.trap_flag": "SDM 3, 17.3.1.5: the T flag of the TSS raises #DB before the new task's first instruction",
    "tasks.ltr_null": "SDM 2, LTR: a null selector is #GP(0)",
}

NOT_ON_BOCHS = {
    "five_levels": "Bochs 2.7 panics when it fetches with 57-bit addresses",
    "ioapic": "Bochs has no device whose interrupt lines a guest can drive, as QEMU's pc-testdev is",
    "protection_keys": "Bochs 2.7 applies PKRU to supervisor pages and not to user pages",
    "supervisor_keys": "no processor of Bochs 2.7 has IA32_PKRS",
}
KNOWN_ON_BOCHS = {
    "apic.no_eoi_blocks": "SDM 3, 10.8.4: no spurious interrupt comes for one that waits for the EOI of another",
    "apic.send_illegal_vector": "SDM 3, 10.5.3: a vector below 16 that is sent sets bit 5, one that is received bit 6",
    "apic.error_interrupt": KNOWN["apic.error_interrupt"],
    "apic.enabled_again": KNOWN["apic.enabled_again"],
    "debug.instruction_after_ss": "Zen 4 stops there; Bochs does as Intel's processors do (SDM 3, 6.8.3)",
    "debug.detect": "SDM 3, 17.3.1.1: RF is set in the flags that a fault pushes; 17.2.3: reserved bits of DR6 are 1",
    "exceptions.ist_noncanonical": "SDM 3, 6.14.5: the error code of a bad stack from the TSS is 0",
    "exceptions.rsp0_noncanonical": "SDM 3, 6.14.5: the error code of a bad stack from the TSS is 0, with EXT",
    "paging.implicit_smap_user": "SDM 3, 4.6.1: RFLAGS.AC doesn't let implicit supervisor accesses through",
    "pcid.type_high": "SDM 2, INVPCID: all 64 bits of the register are the type",
    "x2apic.write_*_reserved": "SDM 3, 10.12.1.2: reserved bits are #GP(0)",
    "x2apic.icr_8bit_broadcast_is_an_id": "SDM 3, 10.12.9: a destination has 32 bits, and FFH is one processor",
    "x2apic.icr_reads_back": "SDM 3, 10.12.9: ICR can be read",
    "x2apic.deadline*": "SDM 3, 10.5.4.1: IA32_TSC_DEADLINE reads 0 once the timer has fired",
    "x2apic.disabled_to_x2apic": "SDM 3, 10.12.5: from disabled only to xAPIC mode",
    "x2apic.to_xapic_again": KNOWN["apic.enabled_again"],
    "xsaves.*_avx*": "SDM 1, 13.4.3: a compacted AVX component begins at byte 576, as Zen 4's XSAVEC has it",
    "xsaves.mxcsr_initial": "SDM 1, 13.12: without SSE in XSTATE_BV, MXCSR gets its initial value, as in Zen 4's XRSTOR",
}


def reason(check: str, known: dict[str, str] = KNOWN) -> str:
    """Why a check may fail on QEMU, or on whom else a list is of; empty if there is no reason."""
    return next((text for pattern, text in known.items() if fnmatch.fnmatchcase(check, pattern)), "")
