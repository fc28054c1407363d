"""Call gates, far returns and IRET between privilege levels in protected mode (SDM 3, 5.8; SDM 2, CALL, RET, IRET)."""

from __future__ import annotations

from tests.guests.topics.program import (
    CODE0,
    CODE3,
    DATA0,
    DATA3,
    DONE,
    FIRST_FREE,
    GP,
    NP,
    SCRATCH,
    SS,
    STACK0,
    TS,
    TSS,
    USER_STACK,
    Program,
    descriptor,
    far,
)  # fmt: skip

F = FIRST_FREE
(GATE, CONF, ABSENT_C, ABSENT_S, RONLY, CODE2, DATA2, SMALL_S, CODE1, DATA1, SMALL_C, CONF3, CALL16, CODE0_16) = range(F, F + 8 * 14, 8)  # fmt: skip
FRAME = SCRATCH


def program() -> Program:
    p = Program("gates", 32)
    for selector, value in {
        CONF: descriptor(0, 0xFFFFF, 0x9E, 0xC), ABSENT_C: descriptor(0, 0xFFFFF, 0x1A, 0xC),
        ABSENT_S: descriptor(0, 0xFFFFF, 0x12, 0xC), RONLY: descriptor(0, 0xFFFFF, 0x90, 0xC),
        CODE2: descriptor(0, 0xFFFFF, 0xDA, 0xC), DATA2: descriptor(0, 0xFFFFF, 0xD2, 0xC),
        CODE1: descriptor(0, 0xFFFFF, 0xBA, 0xC), DATA1: descriptor(0, 0xFFFFF, 0xB2, 0xC),
        SMALL_S: descriptor(0, STACK0 - 9, 0x92, 4), SMALL_C: descriptor(0, 0xFFF, 0x9A, 4),
        CONF3: descriptor(0, 0xFFFFF, 0xFE, 0xC), CODE0_16: descriptor(0x100000, 0xFFFF, 0x9A, 0),
    }.items():  # fmt: skip
        p.set_descriptor(selector, value)
    # What a gate leads to: the stack that it finds is copied to FRAME, then the program ends.
    p.data(
        f"""
    gate_target:
        mov esi, esp
        mov edi, {FRAME}
        mov ecx, 8
        rep movsd es:[edi], ds:[esi]
        mov eax, cs
        mov edx, ss
        mov ebp, esp
        int {DONE:#x}
    gate_return: retf
    gate_return8: retf 8
    set_gate:                               # selector EBX, code EAX, access DH and count DL, at gate ECX
        mov [gdt + ecx], bx
        mov [gdt + ecx], ax
        mov [gdt + ecx + 2], bx
        mov [gdt + ecx + 4], dx
        shr eax, 16
        mov [gdt + ecx + 6], ax
        ret
    """
    )

    def set_gate(code: int, access: int, count: int = 0, target: str = "gate_target") -> None:
        p.asm(f"mov eax, {target}\nmov ebx, {code}\nmov ecx, {GATE}\nmov edx, {access << 8 | count}\ncall set_gate\n")

    def user(name: str, body: str, **expected: int | str | tuple[int | str, int]) -> None:
        p.data(f"user_{name}: {body}\nint {DONE:#x}\n")
        p.asm(f"mov edi, {FRAME}\nmov ecx, 16\nxor eax, eax\nrep stosd es:[edi], eax\n")
        p.attempt(p.to_user(f"user_{name}"))
        for n in range(8):
            p.asm(f"mov eax, [{FRAME + 4 * n}]\nmov [got_r{n}], eax\n")
        p.verify(name, **expected)

    call = far(0x9A, 0x1234, GATE | 3)
    jump = far(0xEA, 0x1234, GATE | 3)
    # ---- CPL 0
    set_gate(CODE0, 0x8C)
    p.check("call_same", "mov ebx, esp\n" + far(0x9A, 0, GATE), vector=DONE, ax=CODE0, cs=CODE0)
    p.check("jump_same", "mov ebx, esp\n" + far(0xEA, 0, GATE), vector=DONE, ax=CODE0)
    set_gate(CODE0, 0x8C, target="gate_return")
    p.check("call_and_return", "mov ebx, esp\n" + far(0x9A, 0, GATE) + "sub ebx, esp", bx=0)
    set_gate(CODE0, 0x8C)
    p.check("gate_rpl", "gate_rpl: " + far(0x9A, 0, GATE | 3), vector=GP, error=GATE, ip="gate_rpl")
    # ---- CPL 3 to 0
    set_gate(CODE0, 0xEC)
    user(
        "inner",
        call + "inner_next:",
        vector=DONE,
        ax=CODE0,
        dx=DATA0,
        bp=STACK0 - 16,
        r0="inner_next",
        r1=CODE3,
        r2=USER_STACK,
        r3=DATA3,
    )
    set_gate(CODE0, 0xEC, 3)
    user(
        "parameters", "push 0x11\npush 0x22\npush 0x33\n" + call + "params_next:", vector=DONE, bp=STACK0 - 28, r0="params_next",
        r1=CODE3, r2=0x33, r3=0x22, r4=0x11, r5=USER_STACK - 12, r6=DATA3,
    )  # fmt: skip
    set_gate(CODE0, 0xEC, 31 + 32)  # five bits count
    user("most_parameters", "sub esp, 200\n" + call, vector=DONE, bp=STACK0 - 16 - 31 * 4)
    set_gate(CODE0, 0xEC)
    user("jump_inner", "jump_inner_at: " + jump, vector=GP, error=CODE0, ip="jump_inner_at", cs=CODE3)
    set_gate(CONF, 0xEC)
    user("conforming", call + "conf_next:", vector=DONE, ax=CONF | 3, cs=CONF | 3, r0="conf_next", r1=CODE3, dx=DATA3)
    user("jump_conforming", jump, vector=DONE, ax=CONF | 3, dx=DATA3, bp=USER_STACK)
    set_gate(CODE3, 0xEC)
    user("same_level", call + "same_next:", vector=DONE, ax=CODE3, r0="same_next", r1=CODE3)
    set_gate(CODE0, 0xEC, 2, "gate_return8")
    user(
        "return_outer",
        "push 0x11\npush 0x22\n" + call + "mov eax, cs\nmov edx, ss\nmov ecx, esp",
        vector=DONE,
        ax=CODE3,
        dx=DATA3,
        cx=USER_STACK,
    )
    p.data(
        f"gate_segments: mov eax, {DATA0}\nmov ds, eax\nmov es, eax\nmov eax, {CONF}\nmov fs, eax\nmov eax, {DATA3}\nmov gs, eax\nretf\n"
    )
    set_gate(CODE0, 0xEC, 0, "gate_segments")
    user(
        "return_drops_segments",
        call + "mov eax, ds\nmov ebx, es\nmov ecx, fs\nmov edx, gs",
        vector=DONE,
        ax=0,
        bx=0,
        cx=CONF,
        dx=DATA3,
    )
    # ---- what is wrong with the gate or its code
    for name, code, access, vector, error in (
        ("gate_dpl", CODE0, 0x8C, GP, GATE), ("gate_absent", CODE0, 0x6C, NP, GATE),
        ("gate_dpl_absent", CODE0, 0x0C, GP, GATE), ("code_null", 0, 0xEC, GP, 0), ("code_beyond", 0x200, 0xEC, GP, 0x200),
        ("code_data", DATA0, 0xEC, GP, DATA0), ("code_absent", ABSENT_C, 0xEC, NP, ABSENT_C),
        ("code_tss", TSS, 0xEC, GP, TSS),
    ):  # fmt: skip
        set_gate(code, access)
        user(name, f"{name}_at: " + call, vector=vector, error=error, ip=f"{name}_at", cs=CODE3, sp=USER_STACK)
        vector = GP if name == "code_absent" else vector  # its privilege is wrong for JMP, too
        user(f"{name}_jump", f"{name}_jump_at: " + jump, vector=vector, error=error, ip=f"{name}_jump_at", cs=CODE3)
    set_gate(CODE3, 0x8C)
    p.check("code_outer", "code_outer: " + far(0x9A, 0, GATE), vector=GP, error=CODE3 & ~3, ip="code_outer")
    set_gate(SMALL_C, 0xEC)
    user("offset", "offset_at: " + call, vector=GP, error=0, ip="offset_at", cs=CODE3, sp=USER_STACK)
    # ---- what is wrong with the inner stack
    set_gate(CODE2, 0xEC)
    for name, selector, pointer, vector, error in (
        ("stack", DATA2 | 2, STACK0, DONE, 0), ("stack_null", 2, STACK0, TS, 0), ("stack_beyond", 0x202, STACK0, TS, 0x200),
        ("stack_rpl", DATA2 | 3, STACK0, TS, DATA2), ("stack_dpl", DATA0 | 2, STACK0, TS, DATA0),
        ("stack_code", CODE2 | 2, STACK0, TS, CODE2), ("stack_read_only", RONLY | 2, STACK0, TS, RONLY),
    ):  # fmt: skip
        p.asm(f"mov dword ptr [tss + 24], {selector}\nmov dword ptr [tss + 20], {pointer}\n")
        if name == "stack":
            p.asm(f"mov ax, {DATA3}\n")
            user(name, call, vector=DONE, ax=CODE2 | 2, dx=DATA2 | 2, bp=STACK0 - 16, cs=CODE2 | 2)
        else:
            user(name, f"{name}_at: " + call, vector=vector, error=error, ip=f"{name}_at", cs=CODE3, sp=USER_STACK)
    p.set_descriptor(DATA1, descriptor(0, 0xFFFFF, 0x52, 0xC))
    p.asm(f"mov dword ptr [tss + 24], {DATA1 | 2}\n")
    user("stack_absent", "stack_absent_at: " + call, vector=SS, error=DATA1, ip="stack_absent_at", cs=CODE3)
    p.set_descriptor(DATA1, descriptor(0, 0x207, 0xD2, 4))
    p.asm("mov dword ptr [tss + 20], 0x20c\n")
    user("stack_small", "stack_small_at: " + call, vector=SS, error=DATA1, ip="stack_small_at", cs=CODE3)
    p.asm(f"mov dword ptr [tss + 20], {STACK0}\nmov dword ptr [tss + 24], {DATA2 | 2}\n")
    # ---- RETF
    p.check("retf_null", "push 0\npush 0\nretf_1: retf", vector=GP, error=0, ip="retf_1")
    p.check("retf_beyond", "push 0x200\npush 0\nretf_2: retf", vector=GP, error=0x200, ip="retf_2")
    p.check("retf_data", f"push {DATA0}\npush 0\nretf_3: retf", vector=GP, error=DATA0, ip="retf_3")
    p.check("retf_absent", f"push {ABSENT_C}\npush 0\nretf_4: retf", vector=NP, error=ABSENT_C, ip="retf_4")
    p.check("retf_dpl", f"push {CODE0 | 3}\npush 0\nretf_5: retf", vector=GP, error=CODE0, ip="retf_5")
    p.check("retf_dpl3_rpl0", f"push {CODE3 & ~3}\npush 0\nretf_6: retf", vector=GP, error=CODE3 & ~3, ip="retf_6")
    p.check("retf_offset", f"push {SMALL_C}\npush 0x1000\nretf_7: retf", vector=GP, error=0, ip="retf_7")
    p.check(
        "retf_conforming",
        f"push {CONF}\nmov eax, conf_at\npush eax\nretf\nconf_at: mov eax, cs\n"
        + far(0xEA, "conf_end", CODE0)
        + "conf_end:",
        ax=CONF,
    )
    for n, (name, stack, vector, error) in enumerate(
        (
            ("null", 0, GP, 0), ("null3", 3, GP, 0), ("beyond", 0x203, GP, 0x200), ("rpl", DATA3 & ~3, GP, DATA3 & ~3),
            ("dpl", DATA0 | 3, GP, DATA0), ("code", CODE3, GP, CODE3 & ~3),
        )
    ):  # fmt: skip
        p.check(
            f"retf_stack_{name}",
            f"push {stack}\npush {USER_STACK}\npush {CODE3}\npush 0x100000\nretf_s{n}: retf",
            vector=vector,
            error=error,
            ip=f"retf_s{n}",
            cs=CODE0,
        )
        p.check(
            f"iret_stack_{name}",
            f"push {stack}\npush {USER_STACK}\npush 2\npush {CODE3}\npush 0x100000\niret_s{n}: iretd",
            vector=vector,
            error=error,
            ip=f"iret_s{n}",
            cs=CODE0,
        )
    p.set_descriptor(DATA1, descriptor(0, 0xFFFFF, 0x72, 0xC))
    p.check(
        "retf_stack_absent",
        f"push {DATA1 | 3}\npush {USER_STACK}\npush {CODE3}\npush 0x100000\nretf_a: retf",
        vector=SS,
        error=DATA1,
        ip="retf_a",
    )
    user("retf_inner", f"push {CODE0}\npush 0\nretf_i: retf", vector=GP, error=CODE0, ip="retf_i")
    user("iret_inner", f"push 2\npush {CODE0}\npush 0\niret_i: iretd", vector=GP, error=CODE0, ip="iret_i")
    # ---- IRET
    p.check("iret_null", "push 2\npush 0\npush 0\niret_1: iretd", vector=GP, error=0, ip="iret_1")
    p.check("iret_absent", f"push 2\npush {ABSENT_C}\npush 0\niret_2: iretd", vector=NP, error=ABSENT_C, ip="iret_2")
    p.check("iret_offset", f"push 2\npush {SMALL_C}\npush 0x1000\niret_3: iretd", vector=GP, error=0, ip="iret_3")
    p.check(
        "iret_flags0",
        f"push 0x243cd5\npush {CODE0}\nmov eax, iret_at0\npush eax\niretd\niret_at0: pushfd\npop ebx\npush 2\npopfd",
        bx=0x243CD7,
    )
    user(
        "iret_flags3",
        f"push 0x243ed5\npush {CODE3}\nmov eax, iret_at3\npush eax\niretd\niret_at3: pushfd\npop ebx\npush 2\npopfd",
        vector=DONE,
        bx=0x240CD7,
    )
    user("popf3", "push 0x3ed7\npopfd\npushfd\npop ebx\npush 2\npopfd\n", vector=DONE, bx=0xCD7)
    user(
        "iret_vm3",
        f"push 0x20002\npush {CODE3}\nmov eax, iret_vm\npush eax\niretd\niret_vm: pushfd\npop ebx\n",
        vector=DONE,
        bx=2,
    )
    p.check(
        "iret_drops_segments", f"mov eax, {CONF}\nmov fs, eax\nmov eax, {DATA3}\nmov gs, eax\npush {DATA3}\npush {USER_STACK}\npush 2\n"
        f"push {CODE3}\nmov eax, iret_drops\npush eax\niretd", vector=DONE, ax=0, bx=0, cx=CONF, dx=DATA3,
    )  # fmt: skip
    p.data(f"iret_drops: mov eax, ds\nmov ebx, es\nmov ecx, fs\nmov edx, gs\nint {DONE:#x}\n")
    # ---- a 16-bit gate: pushes words, takes 16 bits of the offset
    p.set_descriptor(CODE0_16, descriptor(SCRATCH, 0xFFFF, 0x9A, 0))
    p.data("gate16: .byte 0x67, 0x66, 0x8b, 0x04, 0x24, 0x66, 0x89, 0xe5, 0xcd, 0x30\n")  # mov eax, [esp]; mov ebp, esp
    p.asm(f"mov esi, gate16\nmov edi, {SCRATCH + 0x100}\nmov ecx, 10\nrep movsb es:[edi], ds:[esi]\n")
    set_gate(CODE0_16, 0x84, target="0x12340100")
    p.check(
        "gate16", "mov ebx, esp\n" + far(0x9A, 0x12345678, GATE) + "gate16_next: nop", vector=DONE, cs=CODE0_16, ip=0x10A,
        ax=f"gate16_next + {(CODE0 << 16) - 0x100000:#x}",
    )  # fmt: skip
    return p
