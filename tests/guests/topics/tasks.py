"""Hardware task switches (SDM 3, chapter 7): what is saved and loaded, NT and the back link, busy bits, every check of
table 7-1 with the fault that it gives and the task in whose context that comes.

The new task ends with INT 0x30, so that what it found is what the exception recorded; faults in the new task are
recorded in the same way. r0 is TR afterwards, r1 the back link in the new TSS, r2 and r3 the access bytes of the old
and the new TSS, r4 CR0, r5 DR7, r6 LDTR, r7 the old task's saved EIP.
"""

from __future__ import annotations

from typing import Any

from tests.guests.topics.program import (
    CODE0,
    CODE3,
    DATA0,
    DATA3,
    DATA16,
    DB,
    DONE,
    GP,
    NP,
    SS,
    STACK0,
    TS,
    USER_STACK,
    Program,
    Value,
    descriptor,
    gate,
)  # fmt: skip

TSS_A, TSS_B, TSS_C, GATE, LDT = 0x28, 0x58, 0x60, 0x68, 0x70
BAD_DATA, ABSENT_DATA, ABSENT_CODE, SMALL_CODE, CONFORMING, LDT_ABSENT = 0x78, 0x80, 0x88, 0x90, 0x98, 0xA0
GATE3, TSS_B3, SYSTEM, RONLY, ABSENT_STACK = 0xA8, 0xB0, 0xB8, 0xC0, 0xC8
AVAILABLE, BUSY = 0x89, 0x8B
NT, VM, RF = 1 << 14, 1 << 17, 1 << 16
B_STACK = 0x240000
FIELDS = {
    "link": 0, "esp0": 4, "ss0": 8, "cr3": 0x1C, "eip": 0x20, "eflags": 0x24, "eax": 0x28, "ecx": 0x2C, "edx": 0x30,
    "ebx": 0x34, "esp": 0x38, "ebp": 0x3C, "esi": 0x40, "edi": 0x44, "es": 0x48, "cs": 0x4C, "ss": 0x50, "ds": 0x54,
    "fs": 0x58, "gs": 0x5C, "ldt": 0x60, "trap": 0x64,
}  # fmt: skip
DEFAULT: dict[str, Any] = {
    "esp0": STACK0, "ss0": DATA0, "eip": "task_b", "eflags": 2, "eax": 0x11111111, "ecx": 0x22222222,
    "edx": 0x33333333, "ebx": 0x44444444, "esp": B_STACK, "ebp": 0x55555555, "esi": 0x66666666, "edi": 0x77777777,
    "es": DATA0, "cs": CODE0, "ss": DATA0, "ds": DATA0, "trap": 0x680000,
}  # fmt: skip
USER: dict[str, Any] = {"cs": CODE3, "ss": DATA3, "es": DATA3, "ds": DATA3, "esp": USER_STACK}

JUMP = f".byte 0xea\n.long 0\n.word {TSS_B}\n"
CALL = f".byte 0x9a\n.long 0\n.word {TSS_B}\n"


class Tasks:
    """Writes the checks."""

    def __init__(self) -> None:
        self.p = Program("tasks", 32)

    def prepare(self, changes: dict[str, Value], access: int = AVAILABLE, limit: int = 0x67) -> None:
        """A fresh TSS B, and its descriptor."""
        p = self.p
        p.asm("mov edi, tssb\nmov ecx, 26\nxor eax, eax\nrep stosd es:[edi], eax\n")
        for name, value in {**DEFAULT, **changes}.items():
            p.asm(f"mov dword ptr [tssb + {FIELDS[name]}], {value}\n")
        p.asm(f"mov eax, tssb\nmov edx, {access}\nmov ecx, {limit}\nmov ebx, {TSS_B}\ncall set_tss\n")

    def record(self) -> None:
        """Note what the switch left behind, and make the main task current again."""
        self.p.asm("call back_to_main\n")

    def switch(
        self, name: str, how: str, changes: dict[str, Value] | None = None, access: int = AVAILABLE, limit: int = 0x67,
        before: str = "", **expected: Value | tuple[Value, int],
    ) -> None:  # fmt: skip
        """A check of one switch."""
        p = self.p
        self.prepare(changes or {}, access, limit)
        p.asm(before)
        p.attempt(how)
        self.record()
        p.verify(name, **expected)


def program() -> Program:
    t = Tasks()
    p = t.p
    p.data(
        f"""
    .align 16
tssb: .fill 128, 1, 0
tssc: .fill 128, 1, 0
ldt: .quad {descriptor(0, 0xFFFFF, 0x92, 0xC):#x}
task_b: nop
task_b_end: int {DONE:#x}
    jmp task_b
set_tss:                                    # selector EBX: base EAX, access EDX, limit ECX
    mov [gdt + ebx], cx
    mov [gdt + ebx + 2], ax
    shr eax, 16
    mov [gdt + ebx + 4], al
    mov [gdt + ebx + 5], dl
    mov byte ptr [gdt + ebx + 6], 0
    mov [gdt + ebx + 7], ah
    ret
back_to_main:
    str ax
    movzx eax, ax
    mov [got_r0], eax
    movzx eax, word ptr [tssb]
    mov [got_r1], eax
    movzx eax, byte ptr [gdt + {TSS_A + 5}]
    mov [got_r2], eax
    movzx eax, byte ptr [gdt + {TSS_B + 5}]
    mov [got_r3], eax
    mov eax, cr0
    mov [got_r4], eax
    mov eax, dr7
    mov [got_r5], eax
    sldt ax
    movzx eax, ax
    mov [got_r6], eax
    mov eax, [tss + 0x20]
    mov [got_r7], eax
    xor eax, eax
    lldt ax
    mov byte ptr [gdt + {TSS_A + 5}], {AVAILABLE}
    mov eax, {TSS_A}
    ltr ax
    clts
    mov dword ptr [idt_b], 0
    ret
idt_b: .long 0
"""
    )
    p.set_descriptor(GATE, gate(TSS_B, 0, 0x85))
    p.set_descriptor(GATE3, gate(TSS_B, 0, 0xE5))
    p.asm("mov eax, ldt\nmov edx, 0x82\nmov ecx, 7\n" + f"mov ebx, {LDT}\ncall set_tss\n")
    p.asm("mov eax, ldt\nmov edx, 0x02\nmov ecx, 7\n" + f"mov ebx, {LDT_ABSENT}\ncall set_tss\n")
    p.set_descriptor(BAD_DATA, descriptor(0, 0xFFFFF, 0x98, 0xC))  # code that can't be read
    p.set_descriptor(ABSENT_DATA, descriptor(0, 0xFFFFF, 0x72, 0xC))
    p.set_descriptor(ABSENT_CODE, descriptor(0, 0xFFFFF, 0x7A, 0xC))
    p.set_descriptor(SMALL_CODE, descriptor(0, 0xFFF, 0xFA, 0x4))
    p.set_descriptor(CONFORMING, descriptor(0, 0xFFFFF, 0x9E, 0xC))
    p.set_descriptor(RONLY, descriptor(0, 0xFFFFF, 0xF0, 0xC))
    p.set_descriptor(ABSENT_STACK, descriptor(0, 0xFFFFF, 0x72, 0xC))
    # EM cleared, so that CR0 has a known value
    end: dict[str, Any] = {"vector": DONE, "ip": "task_b_end + 2"}
    loaded: dict[str, Any] = {
        "ax": 0x11111111, "cx": 0x22222222, "dx": 0x33333333, "bx": 0x44444444, "bp": 0x55555555, "si": 0x66666666,
        "di": 0x77777777,
    }  # fmt: skip
    ts = (8, 8)
    # ---- the three ways in (SDM 3, 7.3 and table 7-2)
    jumped: dict[str, Any] = {"r0": TSS_B, "r1": 0, "r2": AVAILABLE, "r3": BUSY, "r4": ts}
    called: dict[str, Any] = {"r0": TSS_B, "r1": TSS_A, "r2": BUSY, "r3": BUSY, "r4": ts}
    t.switch("jmp", JUMP + "jump_next:", flags=2, r7="jump_next", **jumped, **end, **loaded)
    t.switch("call", CALL + "call_next:", flags=(NT | 2), r7="call_next", **called, **end, **loaded)
    t.switch("jmp_gate", f".byte 0xea\n.long 0x1234\n.word {GATE}\n", flags=2, **jumped, **end, **loaded)
    t.switch("call_gate", f".byte 0x9a\n.long 0x1234\n.word {GATE}\n", flags=NT | 2, **called, **end)
    t.switch(
        "call_indirect", "call_pointer_at: lcall [call_pointer]\ncall_pointer_next:", flags=NT | 2,
        r7="call_pointer_next", **called, **end,
    )  # fmt: skip
    p.data(f"call_pointer: .long 0x1234\n.word {TSS_B}\n")
    task_gate = f"mov dword ptr [IDT + 0x31 * 8], {TSS_B << 16:#x}\nmov dword ptr [IDT + 0x31 * 8 + 4], 0xe500\n"
    p.asm(task_gate)
    t.switch("int_gate", "int 0x31\nint_next:", flags=NT | 2, r7="int_next", **called, **end, **loaded)
    loads: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("stack", {"esp": B_STACK - 64}, {"sp": B_STACK - 64 - 12 + 12}),
        ("flags", {"eflags": 0xCD7}, {"flags": 0xCD7}),
        ("reserved_flags", {"eflags": 0xFF00802A}, {"flags": (0x2, 0xFF00802A)}),
        ("ldt", {"ldt": LDT}, {"r6": LDT}),
        ("segments", {"ds": DATA3, "es": DATA3}, {"ds": DATA3}),
        ("null_data", {"ds": 0, "es": 3, "fs": 0, "gs": 0}, {"ds": 0}),
        ("to_cpl3", USER, {"cs": CODE3, "ss": DATA3, "sp": USER_STACK}),
        ("conforming", {"cs": CONFORMING | 3, "ss": DATA3, "ds": 0, "es": 0}, {"cs": CONFORMING | 3}),
    ]
    for name, changes, wanted in loads:
        t.switch(f"load_{name}", JUMP, changes, **{"vector": DONE, "r0": TSS_B, **wanted})
    # ---- the way back: IRET with NT (SDM 3, 7.4)
    p.asm("mov dword ptr [tss + 0x1c], 0\n")
    for name, how in (("call", CALL), ("int", "int 0x31\n")):
        t.prepare({"eip": "task_iret", "esp": B_STACK})
        p.attempt("mov esi, 0x1234\nmov edi, 0x5678\nstc\n" + how)
        p.asm("mov eax, [tssb + 0x24]\nmov [got_bx], eax\nmov eax, [tssb + 0x20]\nmov [got_cx], eax\n")
        t.record()
        p.verify(
            f"iret_from_{name}", vector=0x100, si=0x1234, di=0x5678, flags=(1, NT | 1), r0=TSS_A, r2=BUSY,
            r3=AVAILABLE, r4=ts, bx=(0, NT), cx="task_iret_next",
        )  # fmt: skip
    p.data("task_iret: cmp esi, 1\niretd\ntask_iret_next: jmp task_iret\n")
    # Twice: the second call goes on behind IRET.
    t.prepare({"eip": "task_count"})
    p.asm("mov dword ptr [task_counter], 0\n")
    p.attempt(CALL + CALL + CALL + "mov eax, [task_counter]")
    t.record()
    p.verify("iret_reenter", vector=0x100, ax=3, r0=TSS_A, r3=AVAILABLE)
    p.data("task_count: inc dword ptr [task_counter]\niretd\njmp task_count\ntask_counter: .long 0\n")
    nt = f"pushfd\nor dword ptr [esp], {NT}\npopfd\nmov dword ptr [tss], "
    t.switch("iret_to_available", nt + f"{TSS_B}\niret_1: iretd\n", vector=TS, error=TSS_B, ip="iret_1", r0=TSS_A)
    t.switch("iret_to_null", nt + "0\niret_2: iretd\n", vector=TS, error=0, ip="iret_2", r0=TSS_A)
    t.switch("iret_to_ldt_bit", nt + f"{TSS_B | 4}\niret_3: iretd\n", vector=TS, error=TSS_B | 4, ip="iret_3")
    t.switch("iret_to_data", nt + f"{DATA0}\niret_4: iretd\n", vector=TS, error=DATA0, ip="iret_4")
    t.switch("iret_beyond_gdt", nt + "0x800\niret_5: iretd\n", vector=TS, error=0x800, ip="iret_5")
    t.switch("iret_absent", nt + f"{TSS_B}\niret_6: iretd\n", access=0x0B, vector=NP, error=TSS_B, ip="iret_6")
    t.switch("iret_small", nt + f"{TSS_B}\niret_7: iretd\n", access=BUSY, limit=0x66, vector=TS, error=TSS_B)
    t.switch("iret_jumps", nt + f"{TSS_B}\niretd\n", access=BUSY, **end, r0=TSS_B, r2=AVAILABLE, r3=BUSY)
    # ---- checks before the switch: in the old task (table 7-1, SDM 2 JMP/CALL)
    for kind, how in (("jmp", JUMP), ("call", CALL)):
        at = f"before_{kind}"
        t.switch(f"{kind}_busy", f"{at}_1: {how}", access=BUSY, vector=GP, error=TSS_B, ip=f"{at}_1", r0=TSS_A)
        t.switch(f"{kind}_absent", f"{at}_2: {how}", access=0x09, vector=NP, error=TSS_B, ip=f"{at}_2", r0=TSS_A)
        t.switch(f"{kind}_small", f"{at}_3: {how}", limit=0x66, vector=TS, error=TSS_B, ip=f"{at}_3", r0=TSS_A)
    t.switch("jmp_small_busy", JUMP, access=BUSY, limit=0x10, vector=GP, error=TSS_B)
    t.switch("jmp_absent_busy", JUMP, access=0x0B, vector=GP, error=TSS_B)
    t.switch("self", f"self_1: .byte 0xea\n.long 0\n.word {TSS_A}\n", vector=GP, error=TSS_A, ip="self_1", r2=BUSY)
    t.switch("rpl", f".byte 0xea\n.long 0\n.word {TSS_B | 3}\n", vector=GP, error=TSS_B, r0=TSS_A)
    t.switch("int_busy", "int_1: int 0x31\n", access=BUSY, vector=GP, error=TSS_B, ip="int_1", r0=TSS_A)
    t.switch("int_absent", "int_2: int 0x31\n", access=0x09, vector=NP, error=TSS_B, ip="int_2", r0=TSS_A)
    t.switch("int_small", "int_3: int 0x31\n", limit=0x66, vector=TS, error=TSS_B, ip="int_3", r0=TSS_A)
    for name, selector, vector, error in (
        ("null", 0, GP, 0), ("ldt_bit", TSS_B | 4, GP, TSS_B | 4), ("beyond", 0x1000, GP, 0x1000),
        ("data", DATA0, GP, DATA0),
    ):  # fmt: skip
        for way, how in (("int", "int 0x32"), ("jmp", f".byte 0xea\n.long 0\n.word {GATE + 0x80}\n")):
            p.asm(f"mov dword ptr [IDT + 0x32 * 8], {selector << 16:#x}\nmov dword ptr [IDT + 0x32 * 8 + 4], 0xe500\n")
            p.set_descriptor(GATE + 0x80, gate(selector, 0, 0x85))
            t.switch(f"gate_{name}_{way}", how, vector=vector, error=error, r0=TSS_A)
    p.asm(f"mov dword ptr [IDT + 0x32 * 8], {TSS_B << 16:#x}\nmov dword ptr [IDT + 0x32 * 8 + 4], 0x6500\n")
    t.switch("gate_absent_int", "gate_absent: int 0x32", vector=NP, error=0x32 * 8 + 2, ip="gate_absent", r0=TSS_A)
    p.set_descriptor(GATE + 0x80, gate(TSS_B, 0, 0x05))
    t.switch("gate_absent_jmp", f".byte 0xea\n.long 0\n.word {GATE + 0x80}\n", vector=NP, error=GATE + 0x80)
    # an exception through a task gate whose TSS is bad: EXT is set (SDM 3, 6.13)
    ud_gate = f"mov dword ptr [IDT + 6 * 8], {TSS_B << 16:#x}\nmov dword ptr [IDT + 6 * 8 + 4], 0x8500\n"
    p.asm("mov eax, [IDT + 48]\nmov [saved_gate], eax\nmov eax, [IDT + 52]\nmov [saved_gate + 4], eax\n" + ud_gate)
    p.data("saved_gate: .quad 0\n")
    t.switch("exception_absent", "ud_1: ud2", access=0x09, vector=NP, error=TSS_B | 1, ip="ud_1", r0=TSS_A)
    t.switch("exception_busy", "ud_2: ud2", access=BUSY, vector=GP, error=TSS_B | 1, ip="ud_2", r0=TSS_A)
    t.switch("exception", "ud_3: ud2", r7="ud_3", flags=NT | 2, **called, **end)
    t.prepare({"eip": "task_b"})
    p.attempt("ud_4: ud2")
    p.asm("mov eax, [tss + 0x24]\nmov [got_bx], eax\n")
    t.record()
    p.verify("exception_saves_rf", vector=DONE, bx=(RF, RF))
    p.asm("mov eax, [saved_gate]\nmov [IDT + 48], eax\nmov eax, [saved_gate + 4]\nmov [IDT + 52], eax\n")
    # an exception with an error code: it is on the new task's stack
    p.asm("mov eax, [IDT + 104]\nmov [saved_gate], eax\nmov eax, [IDT + 108]\nmov [saved_gate + 4], eax\n")
    p.asm(f"mov dword ptr [IDT + 13 * 8], {TSS_B << 16:#x}\nmov dword ptr [IDT + 13 * 8 + 4], 0x8500\n")
    t.switch(
        "error_code", "mov eax, 0x1234\ngp_1: mov ds, eax", {"eip": "task_error"}, vector=DONE, ax=0x1234,
        sp=B_STACK, r7="gp_1",
    )  # fmt: skip
    p.data(f"task_error: pop eax\nint {DONE:#x}\n")
    t.prepare({"eip": "task_fix"})
    p.attempt("mov eax, 0x1234\nmov ds, eax\nmov ecx, 99\n")
    t.record()
    p.verify("error_iret", vector=0x100, cx=99, r0=TSS_A)
    p.data("task_fix: pop eax\nadd dword ptr [tss + 0x20], 2\niretd\njmp task_fix\n")
    p.asm("mov eax, [saved_gate]\nmov [IDT + 104], eax\nmov eax, [saved_gate + 4]\nmov [IDT + 108], eax\n")
    # ---- checks of the new task's state: in its context (table 7-1), at its EIP
    faults: list[tuple[str, dict[str, Any], int, int]] = [
        ("ldt_not_ldt", {"ldt": DATA0}, TS, DATA0),
        ("ldt_bit", {"ldt": LDT | 4}, TS, LDT | 4),
        ("ldt_beyond", {"ldt": 0x1000}, TS, 0x1000),
        ("ldt_absent", {"ldt": LDT_ABSENT}, TS, LDT_ABSENT),
        ("cs_null", {"cs": 3}, TS, 0),
        ("cs_beyond", {"cs": 0x1003}, TS, 0x1000),
        ("cs_data", {"cs": DATA3}, TS, DATA3 & ~3),
        ("cs_rpl", {"cs": CODE0 | 3}, TS, CODE0),
        ("cs_absent", {"cs": ABSENT_CODE | 3}, NP, ABSENT_CODE),
        ("ss_null", {"ss": 0}, TS, 0),
        ("ss_beyond", {"ss": 0x1003}, TS, 0x1000),
        ("ss_code", {"ss": CODE3}, TS, CODE3 & ~3),
        ("ss_rpl", {"ss": DATA3 & ~3}, TS, DATA3 & ~3),
        ("ss_dpl", {"ss": DATA0 | 3}, TS, DATA0),
        ("ss_read_only", {"ss": RONLY | 3}, TS, RONLY),
        ("ss_absent", {"ss": ABSENT_STACK | 3}, SS, ABSENT_STACK),
        ("ds_dpl", {"ds": DATA0}, TS, DATA0),
        ("ds_unreadable", {"ds": BAD_DATA | 3}, TS, BAD_DATA),
        ("es_beyond", {"es": 0x1003}, TS, 0x1000),
        ("es_system", {"es": TSS_B}, TS, TSS_B),
        ("fs_ldt_null", {"fs": 0x7}, TS, 0x4),
        ("gs_absent", {"gs": ABSENT_DATA | 3}, NP, ABSENT_DATA),
        ("eip", {"cs": SMALL_CODE | 3, "eip": 0x1000}, GP, 0),
    ]
    for name, changes, vector, error in faults:
        place: dict[str, Any] = {"r0": TSS_B, "r3": BUSY, "ip": changes.get("eip", "task_b")}
        t.switch(f"new_{name}", JUMP, {**USER, **changes}, vector=vector, error=error, **place)
    t.switch("new_ss_by_iret", nt + f"{TSS_B}\niretd\n", {**USER, "ss": 0}, access=BUSY, vector=TS, error=0, r0=TSS_B)
    # ---- the T flag (SDM 3, 17.3.1.5), DR7 (17.2.4)
    p.asm("xor eax, eax\nmov dr6, eax\n")
    t.prepare({"trap": 0x680001})
    p.attempt(JUMP)
    p.asm("mov eax, dr6\nmov [got_bx], eax\n")
    t.record()
    p.verify("trap_flag", vector=DB, ip="task_b", r0=TSS_B, bx=(1 << 15, 0xF00F))
    p.asm("mov eax, 0x400\nmov dr7, eax\nxor eax, eax\nmov dr0, eax\nmov dr6, eax\n")
    t.switch("dr7_local", JUMP, before="mov eax, 0x755\nmov dr7, eax\n", r5=(0x400, 0x455), **end)
    t.switch("dr7_global", JUMP, before="mov eax, 0x6aa\nmov dr7, eax\n", r5=0x6AA, **end)
    p.asm("mov eax, 0x400\nmov dr7, eax\n")
    # ---- from CPL 3: privilege (SDM 3, 7.3)
    for name, how, error in (
        ("tss", f".byte 0xea\n.long 0\n.word {TSS_B}\n", TSS_B),
        ("call_tss", f".byte 0x9a\n.long 0\n.word {TSS_B}\n", TSS_B),
        ("gate", f".byte 0xea\n.long 0\n.word {GATE}\n", GATE),
        ("gate_rpl", f".byte 0xea\n.long 0\n.word {GATE | 3}\n", GATE),
    ):
        t.prepare({})
        p.data(f"cpl3_{name}: {how}\n")
        p.attempt(p.to_user(f"cpl3_{name}"))
        t.record()
        p.verify(f"cpl3_{name}", vector=GP, error=error, ip=f"cpl3_{name}", cs=CODE3, r0=TSS_A)
    t.prepare({})
    p.data(f"cpl3_allowed: .byte 0x9a\n.long 0\n.word {GATE3 | 3}\n")
    p.attempt(p.to_user("cpl3_allowed"))
    p.asm("mov eax, [tss + 0x4c]\nand eax, 0xffff\nmov [got_bx], eax\n")
    t.record()
    p.verify("cpl3_gate_allowed", **end, cs=CODE0, bx=CODE3, r0=TSS_B, r1=TSS_A)
    t.prepare({"eip": "task_iret"})
    p.data(f"cpl3_back: mov esi, 7\n.byte 0x9a\n.long 0\n.word {GATE3 | 3}\nint {DONE:#x}\n")
    p.attempt(p.to_user("cpl3_back"))
    t.record()
    p.verify("cpl3_and_back", vector=DONE, cs=CODE3, ss=DATA3, si=7, r0=TSS_A)
    # ---- a 16-bit TSS (SDM 3, figure 7-10)
    p.asm(
        "mov edi, tssc\nmov ecx, 26\nxor eax, eax\nrep stosd es:[edi], eax\n"
        f"mov eax, tssc\nmov edx, 0x81\nmov ecx, 0x2b\nmov ebx, {TSS_C}\ncall set_tss\n"
    )
    low = 0x8000
    for offset, value in (
        (0x0E, low), (0x10, 2), (0x12, 0x1111), (0x14, 0x2222), (0x16, 0x3333), (0x18, 0x4444), (0x1A, 0x7000),
        (0x1C, 0x5555), (0x1E, 0x6666), (0x20, 0x7777), (0x22, DATA0), (0x24, CODE0), (0x26, DATA16), (0x28, DATA0),
    ):  # fmt: skip
        p.asm(f"mov word ptr [tssc + {offset}], {value}\n")
    p.asm(f"mov word ptr [{low:#x}], {0x00CD | DONE << 8:#x}\n")
    p.attempt(f".byte 0x9a\n.long 0\n.word {TSS_C}\n")
    p.asm("movzx eax, word ptr [tssc]\nmov [got_r4], eax\nstr ax\nmovzx eax, ax\nmov [got_r5], eax\n")
    p.asm(f"movzx eax, byte ptr [gdt + {TSS_C + 5}]\nmov [got_r6], eax\n")
    p.asm("call back_to_main\n")
    p.verify(
        "call_16", vector=DONE, ip=low + 2, flags=NT | 2, ax=(0x1111, 0xFFFF), cx=(0x2222, 0xFFFF),
        dx=(0x3333, 0xFFFF), bx=(0x4444, 0xFFFF), bp=(0x5555, 0xFFFF), si=(0x6666, 0xFFFF), di=(0x7777, 0xFFFF),
        r0=TSS_C,
    )  # fmt: skip
    # ---- LTR and STR (SDM 2)
    for name, selector, access, vector, error in (
        ("null", 0, AVAILABLE, GP, 0), ("busy", TSS_B, BUSY, GP, TSS_B), ("absent", TSS_B, 0x09, NP, TSS_B),
        ("data", DATA0, AVAILABLE, GP, DATA0), ("ldt_bit", TSS_B | 4, AVAILABLE, GP, TSS_B | 4),
        ("beyond", 0x1000, AVAILABLE, GP, 0x1000),
    ):  # fmt: skip
        how = f"mov eax, {selector}\nltr_{name}: ltr ax"
        t.switch(f"ltr_{name}", how, access=access, vector=vector, error=error, ip=f"ltr_{name}", r0=TSS_A)
    t.switch("ltr", f"mov eax, {TSS_B | 3}\nltr ax", vector=0x100, r0=TSS_B | 3, r3=BUSY)
    return p
