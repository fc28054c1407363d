"""Debug registers and single-stepping in 64-bit mode (SDM 3, 18.2 and 18.3): conditions, traps and faults, DR6, RF, what
MOV SS and software interrupts do to them.
"""

from __future__ import annotations

from tests.guests.topics.program import DB, GP, NONE, SCRATCH, UD, Program

EXECUTE, WRITE, PORT, ACCESS = 0, 1, 2, 3
LENGTHS = {1: 0, 2: 1, 8: 2, 4: 3}
B0, B1, B3, BD, BS = 1, 2, 8, 1 << 13, 1 << 14
REST = 0xFFFF0FF0  # of DR6
DR6_MASK = 0xEFFF  # without what later processors gave a meaning
RF, TF = 1 << 16, 1 << 8
DATA = SCRATCH + 0x1000
STEP = "pushfq\nor dword ptr [rsp], 0x100\npopfq\n"


def dr7(kind: int, length: int = 1, n: int = 0, enable: int = 1) -> int:
    """DR7 with one breakpoint."""
    return LENGTHS[length] << (18 + 4 * n) | kind << (16 + 4 * n) | enable << (2 * n) | 0x400


def watch(kind: int, length: int = 1, address: int | str = DATA, n: int = 0) -> str:
    """Code that enables one breakpoint."""
    return f"mov rax, {address}\nmov dr{n}, rax\nmov eax, {dr7(kind, length, n):#x}\nmov dr7, rax\n"


def program() -> Program:
    p = Program("debug", 64)
    # The handler of #DB notes DR6 and DR7, and clears them.
    p.data(
        "note: mov rax, dr6\nmov [got_r0], rax\nmov rax, dr7\nmov [got_r1], rax\nxor eax, eax\nmov dr7, rax\n"
        "mov qword ptr [hook], 0\njmp unwind\n"
    )

    def check(
        name: str, body: str, hit: int = 0, at: str = "", rf: int = 0, **more: int | str | tuple[int | str, int]
    ) -> None:
        """Code, and what it ends with: nothing, or #DB with bits of DR6 and a return address."""
        body = body.replace("HERE", f"here_{name}")
        start = f"mov rax, note\nmov [hook], rax\nmov eax, {REST:#x}\nmov dr6, rax\nmov ebx, {DATA:#x}\n"
        if hit:
            p.check(
                name,
                start + body,
                vector=DB,
                ip=at or f"here_{name}",
                r0=(REST | hit, DR6_MASK | 0xF),
                flags=(rf, RF),
                **more,
            )
        else:
            p.check(name, start + body, vector=NONE, **more)
        p.asm("xor eax, eax\nmov dr7, rax\nmov qword ptr [hook], 0\n")

    # ---- data
    for name, length, access, hit in (
        ("write_1", 1, "mov byte ptr [rbx], 1", 1), ("write_1_next", 1, "mov byte ptr [rbx + 1], 1", 0),
        ("write_2_last", 2, "mov byte ptr [rbx + 1], 1", 1), ("write_2_next", 2, "mov byte ptr [rbx + 2], 1", 0),
        ("write_4_overlap", 4, "mov [rbx - 5], rcx", 1), ("write_4_before", 4, "mov [rbx - 8], rcx", 0),
        ("write_8_last", 8, "mov byte ptr [rbx + 7], 1", 1), ("write_8_next", 8, "mov byte ptr [rbx + 8], 1", 0),
        ("write_not_read", 8, "mov rcx, [rbx]", 0), ("write_modify", 8, "add [rbx + 4], ecx", 1),
        ("write_xchg", 8, "xchg [rbx + 4], ecx", 1),
    ):  # fmt: skip
        check(name, watch(WRITE, length) + f"{access}\nHERE: nop\n", B0 if hit else 0)
    for name, access in (
        ("access_read", "mov cl, [rbx]"), ("access_write", "mov [rbx], cl"), ("access_compare", "cmp [rbx - 4], rcx"),
        ("access_lods", "mov esi, ebx\nlodsb"), ("access_pop", "mov r8, rsp\nmov rsp, rbx\npop rcx\n"),
    ):  # fmt: skip
        fix = "" if "rsp" not in access else "HERE: mov rsp, r8\n"
        check(name, watch(ACCESS) + access + "\n" + (fix or "HERE: nop\n"), B0)
    check("unaligned_address", watch(WRITE, 4, DATA + 3) + "mov byte ptr [rbx], 1\nHERE: nop\n", B0)
    check("page_before", watch(WRITE, 1, DATA + 0x1000) + "mov [rbx + 0xffc], rcx\nHERE: nop\n", B0)
    check("dr3", watch(WRITE, 2, n=3) + "mov [rbx], cl\nHERE: nop\n", B3)
    check("global", f"mov dr1, rbx\nmov eax, {dr7(WRITE, 1, 1, 2):#x}\nmov dr7, rax\nmov [rbx], cl\nHERE: nop\n", B1)
    check("off", f"mov dr0, rbx\nmov eax, {dr7(WRITE, enable=0):#x}\nmov dr7, rax\nmov [rbx], cl\n")
    check(
        "two", f"mov dr0, rbx\nmov dr3, rbx\nmov eax, {dr7(WRITE) | dr7(ACCESS, 4, 3):#x}\nmov dr7, rax\nmov [rbx], cl\nHERE: nop\n",
        B0 | B3,
    )  # fmt: skip
    check("sticky", watch(WRITE) + f"mov eax, {REST | BD:#x}\nmov dr6, rax\nmov [rbx], cl\nHERE: nop\n", B0 | BD)
    check(
        "rep", watch(WRITE, 1, DATA + 20) + "mov edi, ebx\nmov ecx, 30\nHERE: rep stosb\nnop\n", B0, cx=9
    )  # fmt: skip
    # ---- ports
    for name, access, hit in (
        ("port_in", "in al, 0x81", 1),
        ("port_out", "out 0x83, al", 1),
        ("port_next", "in al, 0x84", 0),
    ):
        body = f"mov rax, cr4\nor eax, 8\nmov cr4, rax\n{watch(PORT, 4, 0x80)}{access}\nHERE: nop\n"
        check(name, body, B0 if hit else 0)
    p.asm("mov rax, cr4\nand eax, 0xfffffff7\nmov cr4, rax\n")
    # ---- instructions
    check("instruction", watch(EXECUTE, 1, "HERE") + "nop\nHERE: nop\n", B0)
    check(
        "instruction_in_block", watch(EXECUTE, 1, "HERE") + "xor ecx, ecx\ninc ecx\ninc ecx\nHERE: inc ecx\n", B0, cx=2
    )
    # (AMD's processors; Intel's suppress it)
    check("instruction_after_ss", watch(EXECUTE, 1, "HERE") + "mov ecx, ss\nmov ss, ecx\nHERE: nop\n", B0)
    check(
        "resume", watch(EXECUTE, 1, "HERE") + "mov eax, ss\npush rax\npush rsp\nadd qword ptr [rsp], 8\npush 0x10002\n"
        "mov eax, cs\npush rax\nmov eax, HERE\npush rax\niretq\nHERE: pop rcx\n",
    )  # fmt: skip
    check(
        "resume_is_spent", watch(EXECUTE, 1, "HERE") + "mov eax, ss\npush rax\npush rsp\nadd qword ptr [rsp], 8\n"
        "push 0x10002\nmov eax, cs\npush rax\nmov eax, spent\npush rax\niretq\nspent: pop rcx\nHERE: nop\n", B0,
    )  # fmt: skip
    # ---- registers
    check("detect", "mov eax, 0x2400\nmov dr7, rax\nHERE: mov rax, dr3\n", BD, rf=RF, r1=(0x400, 0x2400))
    p.check("dr6_ones", "xor eax, eax\nmov dr6, rax\nmov rcx, dr6", cx=(0xFFFF0FF0, 0xFFFF1FF0 & ~0x10800))
    p.check("dr6_high", "mov rax, 0x100000000\nhigh6: mov dr6, rax", vector=GP, ip="high6", error=0)
    p.check("dr7_high", "mov rax, 0x100000000\nhigh7: mov dr7, rax", vector=GP, ip="high7", error=0)
    p.check("dr7_ones", "xor eax, eax\nmov dr7, rax\nmov rcx, dr7", cx=0x400)
    p.check("dr4_is_dr6", "mov rax, 0xffff0ff1\nmov dr6, rax\n.byte 0x0f, 0x21, 0xe1", cx=(1, 15))
    p.check(
        "dr4_with_de", "mov rax, cr4\nor eax, 8\nmov cr4, rax\nde: .byte 0x0f, 0x21, 0xe1", vector=UD, ip="de",
    )  # fmt: skip
    p.asm("mov rax, cr4\nand eax, 0xfffffff7\nmov cr4, rax\n")
    p.user("user_dr", "dr_user: mov rax, dr0", vector=GP, ip="dr_user")
    # ---- steps
    for name, instruction in (
        ("step", "inc ecx"),
        ("step_push", "push rcx"),
        ("step_cpuid", "cpuid"),
        ("step_jump", "jmp HERE"),
    ):
        check(name, STEP + f"{instruction}\nHERE: nop\n", BS)
    check("step_rep", "mov ecx, 3\nmov esi, ebx\n" + STEP + "HERE: rep lodsb\n", BS, cx=2)
    check("step_ss", "mov ecx, ss\n" + STEP + "mov ss, ecx\nnop\nHERE: nop\n", BS)
    check("step_popf", STEP + "push 2\nHERE: popfq\n", BS)
    check("data_of_ss", "mov ecx, ss\nmov [rbx], ecx\n" + watch(ACCESS) + "mov ss, [rbx]\nnop\nHERE: nop\n", B0)
    p.check("icebp", "mov eax, 0xffff0ff0\nmov dr6, rax\n.byte 0xf1\nicebp_at: nop", vector=DB, ip="icebp_at")
    return p
