"""Self-modifying code (SDM 3, 11.6 and 8.1.3): on a processor, a store to the following instruction is seen by it, also in
the running block, through another mapping, by string instructions, across pages, and in a loop.
"""

from __future__ import annotations

from tests.guests.topics.program import DONE, PDPT, Program

CODE = 0x300000  # where pieces are copied to


def program() -> Program:
    p = Program("selfmod", 64)
    p.check("next_instruction", "mov byte ptr [next_1 + 1], 7\nnext_1: mov eax, 1", ax=7)
    p.check(
        "later_instruction",
        "mov dword ptr [later_1 + 1], 0x1234\nnop\nnop\nadd ebx, ebx\nlater_1: mov eax, 1",
        ax=0x1234,
    )
    p.check("opcode", "mov ebx, 5\nmov byte ptr [opcode_1 + 1], 0xcb\nopcode_1: .byte 0xff, 0xc3\nnop", bx=4)
    p.check("longer", "mov ebx, 1\nmov eax, 0x90c3ff90\nmov [longer_1], eax\nlonger_1: nop\nnop\nnop\nnop", bx=2)
    p.check(
        "in_a_loop",
        "xor ebx, ebx\nmov ecx, 10\nloop_1: add ebx, 1\ninc byte ptr [loop_1 + 2]\ndec ecx\njnz loop_1",
        bx=55,
    )
    p.check(
        "itself", "mov dword ptr [self_1 + 7], 0x90909090\nself_1: mov dword ptr [self_1], 0x90909090\nmov eax, 3", ax=3
    )
    p.check("by_stos", "lea rdi, [stos_1 + 1]\nmov al, 9\nmov ecx, 1\nrep stosb es:[rdi], al\nstos_1: mov eax, 1", ax=9)
    p.check(
        "by_movs", "lea rdi, [movs_1 + 1]\nlea rsi, [movs_data]\nmovsb es:[rdi], ds:[rsi]\nmovs_1: mov eax, 1", ax=0x5A
    )
    p.data("movs_data: .byte 0x5a\n")
    p.check(
        "by_push",
        "mov rbp, rsp\nlea rsp, [push_1 + 10]\nmovabs rax, 0x0123456789abcdef\npush rax\npush_1: movabs rbx, 0x1111111111111111\nmov rsp, rbp",
        bx=0x0123456789ABCDEF,
    )
    p.check("by_lock", "lock inc byte ptr [lock_1 + 1]\nlock_1: mov eax, 1", ax=2)
    p.check(
        "by_cmpxchg",
        "mov eax, 1\nmov ecx, 0x77\nlea rbx, [cmpx_1 + 1]\ncmpxchg [rbx], ecx\ncmpx_1: mov eax, 1",
        ax=0x77,
    )
    p.check(
        "by_sse",
        "mov eax, 0x12345678\nmovd xmm0, eax\nmovd dword ptr [sse_1 + 1], xmm0\nsse_1: mov ebx, 1",
        bx=0x12345678,
    )
    p.check(
        "branch_target",
        "mov byte ptr [branch_1 + 1], 3\nbranch_1: jmp branch_2\nbranch_2: mov eax, 1\nbranch_3: mov ebx, 2\nnop",
        bx=2,
    )
    # ---- called, changed, called again
    p.data("change_me: mov eax, 1\nret\n")
    p.check(
        "call_again",
        "call change_me\nmov ebx, eax\nmov byte ptr [change_me + 1], 2\ncall change_me\nshl ebx, 8\nor eax, ebx",
        ax=0x102,
    )
    p.check(
        "call_many",
        "xor ebx, ebx\nmov ecx, 200\ncall_many: mov [change_me + 1], cl\ncall change_me\nadd ebx, eax\ndec ecx\njnz call_many",
        bx=20100,
    )
    # ---- another mapping of the same page: PDPT entry 1 (at 1 GiB) shows what entry 0 does
    p.asm(f"mov rax, [PDPT]\nmov [{PDPT + 32}], rax\nmov rax, cr3\nmov cr3, rax\n")
    alias = 0x100000000
    p.check(
        "other_mapping",
        f"mov rax, {alias:#x}\nlea rbx, [alias_1 + 1]\nadd rbx, rax\nmov byte ptr [rbx], 0x33\nalias_1: mov eax, 1",
        ax=0x33,
    )
    p.check(
        "other_mapping_called",
        f"mov rax, {alias:#x}\nlea rbx, [change_me]\nadd rbx, rax\ncall rbx\nmov byte ptr [change_me + 1], 0x44\ncall rbx",
        ax=0x44,
    )
    # ---- across a page boundary
    end = CODE + 0x1000
    p.asm(
        f"mov eax, 0x000001b8\nmov ebx, {end - 2}\nmov [rbx], eax\nmov dword ptr [rbx + 4], 0xc300\n"
    )  # mov eax, 1; ret
    p.check(
        "across_pages",
        f"mov ebx, {end - 2}\ncall rbx\nmov ecx, eax\nmov byte ptr [rbx + 2], 5\ncall rbx\nshl ecx, 16\nor eax, ecx",
        ax=0x10501,
    )
    # ---- an interrupt handler changes what comes next
    p.data("change_next: mov byte ptr [after_int + 1], 0x66\nmov rsp, rcx\niretq\n")
    p.check(
        "by_handler",
        f"lea rax, [change_next]\nmov [hook], rax\nint {DONE:#x}\nafter_int: mov eax, 1",
        ax=0x66,
        vector=DONE,
    )
    p.asm("mov qword ptr [hook], 0\n")
    p.check(
        "data_beside_code",
        "mov ecx, 1000\nxor ebx, ebx\nbeside_1: add ebx, [beside_data]\ninc dword ptr [beside_data]\ndec ecx\njnz beside_1\njmp beside_2\nbeside_data: .long 0\nbeside_2:",
        bx=499500,
    )
    return p
