"""Exceptions and interrupts of 64-bit mode (SDM 3, chapter 6): frames, gates and their checks with error codes, IST,
double faults and faults that are handled one after the other, priorities within one instruction, #NM and #UD of
the floating-point controls.
"""

from __future__ import annotations

from tests.guests.topics.program import (
    BP,
    CODE0,
    CODE3,
    CODE32,
    DATA0,
    DATA3,
    DB,
    DE,
    DF,
    DONE,
    FIRST_FREE,
    GP,
    IST2,
    NM,
    NONE,
    NP,
    PF,
    SCRATCH,
    SS,
    STACK0,
    UD,
    USER_STACK,
    Program,
    descriptor,
)  # fmt: skip

ABSENT_C, CONF, CODE_D, SLOT = FIRST_FREE, FIRST_FREE + 8, FIRST_FREE + 16, 0x40
RF, TF, IF = 1 << 16, 1 << 8, 1 << 9
GATE = f"IDT + {SLOT} * 16"
BAD = 0x4000000000  # not mapped


def gate(p: Program, selector: int = CODE0, access: int = 0x8E, ist: int = 0, vector: int = SLOT) -> None:
    """Another gate for a vector, to its usual handler."""
    at = f"IDT + {vector} * 16"
    p.asm(f"mov word ptr [{at} + 2], {selector}\nmov word ptr [{at} + 4], {access << 8 | ist}\n")


def program() -> Program:
    p = Program("exceptions", 64)
    p.set_descriptor(ABSENT_C, descriptor(0, 0xFFFFF, 0x1A, 0xA))
    p.set_descriptor(CONF, descriptor(0, 0xFFFFF, 0x9E, 0xA))
    p.set_descriptor(CODE_D, descriptor(0, 0xFFFFF, 0x9A, 0xE))
    # ---- frames
    p.check(
        "divide",
        "xor ecx, ecx\nmov rbx, rsp\ndivide: div ecx",
        vector=DE,
        ip="divide",
        cs=CODE0,
        ss=DATA0,
        flags=(RF, RF | TF),
    )
    p.check("int3", ".byte 0xcc\nint3_next:", vector=BP, ip="int3_next", flags=(0, RF))
    p.check("int_3", ".byte 0xcd, 3\nint_3_next:", vector=BP, ip="int_3_next")
    p.check("int", "stc\nint 0x30\nint_next:", vector=DONE, ip="int_next", flags=(1, 1), sp="STACK")
    p.check("icebp", ".byte 0xf1\nicebp_next:", vector=DB, ip="icebp_next")
    p.check("into", "into_at: .byte 0xce", vector=UD, ip="into_at")
    p.check("stack_aligned", "mov rbx, rsp\nsub rsp, 3\nint 0x30", vector=DONE, sp="STACK - 3")
    p.user("from_user", "from_user: ud2", vector=UD, ip="from_user", cs=CODE3, ss=DATA3, sp=USER_STACK, flags=(RF, RF))
    p.check("flags_kept", "push 0x246ed7\npopfq\nint 0x30", vector=DONE, flags=0x246ED7)
    p.check("rf_not_popf", "push 0x10002\npopfq\nint 0x30", vector=DONE, flags=2)
    # ---- the handler's flags: IF cleared by an interrupt gate only; TF, NT, RF always (SDM 3, 6.12.1.3)
    p.data("note_flags: pushfq\npop rax\nmov [got_r0], rax\nmov qword ptr [hook], 0\njmp unwind\n")
    for name, access, kept in (("interrupt_gate", 0x8E, 0), ("trap_gate", 0x8F, IF)):
        gate(p, access=access)
        p.check(
            name,
            f"mov rax, note_flags\nmov [hook], rax\npush 0x44202\npopfq\nint {SLOT}",
            vector=SLOT,
            r0=(kept, IF | 0x14000),
            flags=0x44202,
        )
    gate(p)
    # ---- checks of gates: INT n has no EXT, exceptions have (SDM 3, 6.13)
    slot_error = SLOT * 8 + 2
    for name, selector, access, vector, error in (
        ("absent", CODE0, 0x0E, NP, slot_error), ("type_0", CODE0, 0x80, GP, slot_error), ("type_16bit", CODE0, 0x86, GP, slot_error),
        ("type_task", CODE0, 0x85, GP, slot_error), ("type_call", CODE0, 0x8C, GP, slot_error), ("code_null", 0, 0x8E, GP, 0),
        ("code_beyond", 0x800, 0x8E, GP, 0x800), ("code_data", DATA0, 0x8E, GP, DATA0), ("code_absent", ABSENT_C, 0x8E, NP, ABSENT_C),
        ("code_32", CODE32, 0x8E, GP, CODE32), ("code_l_and_d", CODE_D, 0x8E, GP, CODE_D), ("code_dpl3", CODE3 & ~3, 0x8E, GP, CODE3 & ~3),
        ("code_ldt", 4, 0x8E, GP, 4), ("type_absent", CODE0, 0x00, GP, slot_error),
    ):  # fmt: skip
        gate(p, selector, access)
        p.check(
            f"gate_{name}", f"gate_{name}: int {SLOT}", vector=vector, error=error, ip=f"gate_{name}", flags=(RF, RF)
        )
    gate(p)
    p.user("gate_dpl", f"gate_dpl: int {SLOT}", vector=GP, error=slot_error, ip="gate_dpl", cs=CODE3)
    gate(p, access=0x0E)
    p.user("gate_dpl_absent", f"int {SLOT}", vector=GP, error=slot_error)
    gate(p, access=0xEE)
    p.user("gate_allowed", f"int {SLOT}", vector=SLOT)
    p.asm(f"mov word ptr [idt_pointer], 16 * {SLOT} + 14\nlidt [idt_pointer]\n")
    p.check("beyond_limit", f"beyond: int {SLOT}", vector=GP, error=slot_error, ip="beyond")
    p.asm("mov word ptr [idt_pointer], 4095\nlidt [idt_pointer]\n")
    for name, access, vector, error in (("absent", 0x0E, NP, UD * 8 + 3), ("type", 0x8C, GP, UD * 8 + 3)):
        gate(p, access=access, vector=UD)
        p.check(f"exception_gate_{name}", f"xg_{name}: ud2", vector=vector, error=error, ip=f"xg_{name}")
    for name, selector, vector, error in (
        ("null", 0, GP, 1),
        ("data", DATA0, GP, DATA0 | 1),
        ("absent", ABSENT_C, NP, ABSENT_C | 1),
    ):
        gate(p, selector, vector=UD)
        p.check(f"exception_code_{name}", f"xc_{name}: ud2", vector=vector, error=error, ip=f"xc_{name}")
    gate(p, vector=UD)
    p.asm(f"mov dword ptr [{GATE} + 8], 0x8000\n")
    gate(p)
    p.check("gate_noncanonical", f"gate_nc: int {SLOT}", vector=GP, error=0, ip="gate_nc")
    p.asm(f"mov dword ptr [{GATE} + 8], 0\n")
    # ---- stacks
    p.data("note_sp: mov [got_r0], rcx\nmov qword ptr [hook], 0\njmp unwind\n")
    gate(p, ist=2)
    p.check("ist", f"mov rax, note_sp\nmov [hook], rax\nint {SLOT}", vector=SLOT, r0=IST2 - 40, sp="STACK")
    p.asm("mov dword ptr [tss + 48], 0x8000\n")
    p.check("ist_noncanonical", f"ist_nc: int {SLOT}", vector=SS, error=0, ip="ist_nc")
    p.asm("mov dword ptr [tss + 48], 0\nmov dword ptr [tss + 44], IST2 - 5\n")
    p.check("ist_aligned", f"mov rax, note_sp\nmov [hook], rax\nint {SLOT}", vector=SLOT, r0=(IST2 - 16) - 40)
    p.asm("mov dword ptr [tss + 44], IST2\n")
    gate(p, access=0xEE)
    p.user("rsp0", f"int {SLOT}", vector=SLOT, cs=CODE3)
    p.data("user_ud: ud2\n")
    for name, low, high in (("unmapped", 0, 0x40), ("noncanonical", 0, 0x8000)):
        p.asm(f"mov dword ptr [tss + 4], {low}\nmov dword ptr [tss + 8], {high}\n")
        # the second fault must not need RSP0 again: its gate has a stack of its own
        gate(p, ist=2, vector=PF)
        p.attempt(p.to_user("user_ud"))
        p.asm(f"mov dword ptr [tss + 4], {STACK0}\nmov dword ptr [tss + 8], 0\n")
        if high == 0x8000:
            p.verify(f"rsp0_{name}", vector=SS, error=1, cs=CODE3, ip="user_ud")
        else:
            p.verify(f"rsp0_{name}", vector=PF, error=2, cs=CODE3, ip="user_ud", cr2=(high << 32) - 8)
        gate(p, vector=PF)
    gate(p)
    # ---- double faults (SDM 3, table 6-5)
    idt_page = SCRATCH + 0x8000
    p.asm(f"mov rsi, IDT\nmov edi, {idt_page}\nmov ecx, 512\nrep movsq es:[rdi], ds:[rsi]\n")
    p.asm(f"mov qword ptr [idt_pointer + 2], {idt_page}\nlidt [idt_pointer]\n")

    def spoil(vector: int) -> None:
        p.asm(f"mov byte ptr [{idt_page} + {vector} * 16 + 5], 0x8c\n")

    def mend(vector: int) -> None:
        p.asm(f"mov byte ptr [{idt_page} + {vector} * 16 + 5], 0x8e\n")

    for name, first, body in (
        ("de_gp", DE, "xor ecx, ecx\n{}: div ecx"), ("gp_gp", None, "mov eax, 0x7f8\n{}: mov ds, eax"),
        ("np_gp", NP, f"mov eax, {FIRST_FREE + 24}\n{{}}: mov ds, eax"), ("ss_gp", SS, "mov rbp, 0x800000000000\n{}: mov al, [rbp]"),
        ("pf_gp", PF, f"mov rax, {BAD:#x}\n{{}}: mov al, [rax]"),
    ):  # fmt: skip
        p.set_descriptor(FIRST_FREE + 24, descriptor(0, 0xFFFFF, 0x12, 0xC))
        if first is None:
            p.asm(f"mov word ptr [{idt_page} + 13 * 16 + 2], 0\n")
        else:
            spoil(first)
        p.check(f"double_{name}", body.format(f"double_{name}"), vector=DF, error=0, ip=f"double_{name}", cs=CODE0)
        if first is None:
            p.asm(f"mov word ptr [{idt_page} + 13 * 16 + 2], {CODE0}\n")
        else:
            mend(first)
    for name, first, body in (
        ("ud_gp", UD, "{}: ud2"), ("bp_gp", BP, "{}: .byte 0xcc"), ("nm_gp", NM, "mov rax, cr0\nor eax, 8\nmov cr0, rax\n{}: fninit"),
        ("db_gp", DB, "{}: .byte 0xf1"),
    ):  # fmt: skip
        spoil(first)
        ext = 0 if first == BP else 1
        p.check(
            f"serial_{name}", body.format(f"serial_{name}"), vector=GP, error=first * 8 + 2 + ext, ip=f"serial_{name}"
        )
        mend(first)
        p.asm("clts\n")
    p.asm("mov qword ptr [idt_pointer + 2], IDT\nlidt [idt_pointer]\n")
    # A benign or contributory exception followed by a page fault is a page fault; a page fault followed by one, double.
    for name, vector, body in (
        ("ud_pf", UD, "{}: ud2"),
        ("de_pf", DE, "xor ecx, ecx\n{}: div ecx"),
        ("gp_pf", GP, "mov eax, 0x7f8\n{}: mov ds, eax"),
    ):
        gate(p, ist=2, vector=vector)
        p.asm(f"mov dword ptr [tss + 48], {BAD >> 32:#x}\nmov dword ptr [tss + 44], 0\n")
        p.check(f"serial_{name}", body.format(f"serial_{name}"), vector=PF, error=2, ip=f"serial_{name}", cr2=BAD - 8)
        gate(p, vector=vector)
    gate(p, ist=2, vector=PF)
    p.check(
        "double_pf_pf",
        f"mov rax, {BAD:#x}\ndouble_pf_pf: mov al, [rax]",
        vector=DF,
        error=0,
        ip="double_pf_pf",
        cr2=BAD - 8,
    )
    gate(p, vector=PF)
    p.asm("mov dword ptr [tss + 48], 0\nmov dword ptr [tss + 44], IST2\n")
    # ---- priorities within an instruction (SDM 3, 6.9): decoding before privilege, that before operands
    for name, body, vector in (
        ("lock_before_pf", f"mov rax, {BAD:#x}\n{{}}: .byte 0xf0, 0x8b, 0x00", UD), ("ud_before_pf", f"mov rax, {BAD:#x}\n{{}}: .byte 0x0f, 0xc7, 0x10", UD),
        ("length_16", "{}: .byte 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90", GP),
        ("length_15", ".byte 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90\n{}: nop", NONE),
        ("length_16_imm", "{}: .byte 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0xb8, 0, 0, 0, 0", GP),
        ("divide_before_nothing", f"mov rax, {BAD:#x}\n{{}}: div dword ptr [rax]", PF), ("cmpxchg16b_misaligned", f"mov eax, {SCRATCH + 8}\n{{}}: cmpxchg16b [rax]", GP),
        ("movaps_misaligned", f"mov eax, {SCRATCH + 8}\n{{}}: movaps xmm0, [rax]", GP), ("mov_cr1", "{}: .byte 0x0f, 0x20, 0xc8", UD),
        ("mov_cr5", "{}: .byte 0x0f, 0x22, 0xe8", UD), ("mov_cr9", "{}: .byte 0x44, 0x0f, 0x20, 0xc8", UD), ("ud1", "{}: .byte 0x0f, 0xb9, 0xc0", UD),
        ("lea_register", "{}: .byte 0x8d, 0xc0", UD), ("movbe_register", "{}: .byte 0x0f, 0x38, 0xf0, 0xc0", UD),
        ("push_es", "{}: .byte 0x06", UD), ("aaa", "{}: .byte 0x37", UD), ("bound", "{}: .byte 0x62, 0x00, 0x00, 0x00, 0x00, 0x00", UD),
        ("salc", "{}: .byte 0xd6", UD), ("far_call_direct", "{}: .byte 0x9a, 0, 0, 0, 0, 0, 0", UD),
        ("opcode_82", "{}: .byte 0x82, 0xc0, 0", UD),
    ):  # fmt: skip
        label = f"priority_{name}"
        p.check(name, body.format(label), vector=vector, error=0, **({"ip": label} if vector != NONE else {}))
    p.user("privilege_before_pf", f"mov rax, {BAD:#x}\nppf: lgdt [rax]", vector=GP, error=0, ip="ppf")
    p.user("privilege_before_pf_invlpg", f"mov rax, {BAD:#x}\nppi: invlpg [rax]", vector=GP, error=0, ip="ppi")
    for name, code in (
        ("hlt", "hlt"), ("cli", "cli"), ("sti", "sti"), ("in", "in al, 0x80"), ("outs", "mov edx, 0x80\noutsb dx, ds:[rsi]"), ("clts", "clts"),
        ("lmsw", "lmsw ax"), ("rdmsr", "rdmsr"), ("wrmsr", "wrmsr"), ("mov_cr0", "mov rax, cr0"), ("mov_to_cr3", "mov cr3, rax"), ("mov_cr8", "mov rax, cr8"),
        ("mov_dr7", "mov rax, dr7"), ("lidt", f"lidt [{SCRATCH}]"), ("ltr", "ltr ax"), ("lldt", "lldt ax"), ("invd", "invd"), ("wbinvd", "wbinvd"),
        ("swapgs", "swapgs"), ("xsetbv", "xsetbv"),
    ):  # fmt: skip
        lines = code.split("\n")
        lines[-1] = f"privilege_{name}: {lines[-1]}"
        if name == "xsetbv":
            p.asm("mov rax, cr4\nor eax, 0x40000\nmov cr4, rax\n")
        p.user(f"privilege_{name}", "\n".join(lines), vector=GP, error=0, ip=f"privilege_{name}", cs=CODE3)

    # ---- CR0.TS, EM, MP and CR4.OSFXSR (SDM 3, table 13-1; 2.5)
    def control(cr0: int, cr4: int = 0x600) -> str:
        return f"mov rax, cr0\nand eax, 0xfffffff1\nor eax, {cr0}\nmov cr0, rax\nmov rax, cr4\nand eax, 0xfffff9ff\nor eax, {cr4}\nmov cr4, rax\n"

    MP, EM, TS = 2, 4, 8
    for name, cr0, cr4, code, vector in (
        ("x87_ts", TS, 0x600, "fnop", NM), ("x87_em", EM, 0x600, "fnop", NM), ("x87_mp", MP, 0x600, "fnop", NONE),
        ("wait_ts", TS, 0x600, "wait", NONE), ("wait_ts_mp", TS | MP, 0x600, "wait", NM), ("wait_em", EM | MP, 0x600, "wait", NONE),
        ("sse_ts", TS, 0x600, "movaps xmm0, xmm1", NM), ("sse_em", EM, 0x600, "movaps xmm0, xmm1", UD), ("sse_em_ts", EM | TS, 0x600, "movaps xmm0, xmm1", UD),
        ("sse_osfxsr", 0, 0x400, "movaps xmm0, xmm1", UD), ("sse_osfxsr_ts", TS, 0x400, "movaps xmm0, xmm1", UD),
        ("mmx_ts", TS, 0x600, "movq mm0, mm1", NM), ("mmx_em", EM, 0x600, "movq mm0, mm1", UD), ("fxsave_ts", TS, 0x600, f"fxsave [{SCRATCH}]", NM),
        ("fxsave_em", EM, 0x600, f"fxsave [{SCRATCH}]", NM), ("emms_ts", TS, 0x600, "emms", NM), ("ldmxcsr_ts", TS, 0x600, f"ldmxcsr [{SCRATCH}]", NM),
        ("sfence_ts", TS | EM, 0, "sfence", NONE), ("prefetch_ts", TS | EM, 0, f"prefetcht0 [{SCRATCH}]", NONE), ("movnti_ts", TS | EM, 0, f"movnti [{SCRATCH}], eax", NONE),
        ("fninit_em_ts", TS | EM, 0x600, "fninit", NM), ("sse_ts_pf", TS, 0x600, "movaps xmm0, [rbx]", NM),
    ):  # fmt: skip
        p.asm(f"mov dword ptr [{SCRATCH}], 0x1f80\n")
        label = f"fpu_{name}"
        p.check(
            label,
            control(cr0, cr4) + f"mov rbx, {BAD:#x}\n{label}: {code}\n",
            vector=vector,
            **({"ip": label} if vector != NONE else {}),
        )
        p.asm(control(0))
    return p
