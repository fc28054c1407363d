"""SYSENTER and SYSEXIT in protected mode (SDM 2; 3, 5.8.7), and SYSCALL there, which only AMD's processors have."""

from __future__ import annotations

from tests.guests.topics.program import (
    CODE0,
    CODE3,
    DATA0,
    DONE,
    FIRST_FREE,
    GP,
    STACK0,
    USER_STACK,
    Program,
    descriptor,
)

CS, ESP, EIP = 0x174, 0x175, 0x176
BASE = FIRST_FREE  # code 0, data 0, code 3, data 3


def wr(msr: int, value: int | str) -> str:
    """Code that writes an MSR of 32 bits."""
    return f"mov ecx, {msr:#x}\nmov eax, {value}\nxor edx, edx\nwrmsr\n"


def program() -> Program:
    p = Program("sysenter", 32)
    for n, access in enumerate((0x9A, 0x92, 0xFA, 0xF2)):
        p.set_descriptor(BASE + 8 * n, descriptor(0, 0xFFFFF, access, 0xC))
    p.data(f"entered: mov eax, cs\nmov ebx, ss\nmov ecx, esp\nmov edx, ds\nint {DONE:#x}\n")
    p.data(f"exited: mov eax, cs\nmov ebx, ss\nmov esi, esp\nint {DONE:#x}\n")
    p.asm(wr(CS, 0) + wr(ESP, STACK0 - 64) + wr(EIP, "entered"))
    p.check("enter_cs_0", "enter_0: .byte 0x0f, 0x34", vector=GP, error=0, ip="enter_0")
    p.check("exit_cs_0", "exit_0: .byte 0x0f, 0x35", vector=GP, error=0, ip="exit_0")
    p.asm(wr(CS, 3))
    p.check("enter_cs_3", "enter_3: .byte 0x0f, 0x34", vector=GP, error=0, ip="enter_3")
    p.asm(wr(CS, BASE | 3))
    p.data("user_enter: push 0x3246\nadd esp, 4\nstd\nstc\n.byte 0x0f, 0x34\nnop\n")
    p.attempt(p.to_user("user_enter", flags=0x3002))
    p.verify("enter", vector=DONE, ax=BASE, bx=BASE + 8, cx=STACK0 - 64, cs=BASE, flags=(0x3403, 0x13603))
    p.check("enter_at_cpl0", ".byte 0x0f, 0x34", vector=DONE, cs=BASE, ax=BASE)
    p.check(
        "exit",
        f"lea edx, [exited]\nmov ecx, {USER_STACK - 32}\nstc\n.byte 0x0f, 0x35",
        vector=DONE,
        ax=BASE + 16 | 3,
        bx=BASE + 24 | 3,
        si=USER_STACK - 32,
        cs=BASE + 16 | 3,
        ss=BASE + 24 | 3,
        flags=(1, 1),
    )
    p.user("exit_at_cpl3", "exit_3: .byte 0x0f, 0x35", vector=GP, error=0, ip="exit_3")
    # Nothing of this is read from the GDT.
    p.data("flat_kernel: mov ecx, esp\nint 0x30\n")
    p.asm(f"mov dword ptr [gdt + {BASE + 4}], 0\nmov dword ptr [gdt + {BASE + 12}], 0\n" + wr(EIP, "flat_kernel"))
    p.data("user_enter_2: .byte 0x0f, 0x34\n")
    p.attempt(p.to_user("user_enter_2"))
    p.verify("ignores_gdt", vector=DONE, cs=BASE, cx=STACK0 - 64)
    for name, msr, value in (("cs", CS, 0x12345), ("esp", ESP, 0xFEDCBA98), ("eip", EIP, 0x89ABCDEF)):
        p.check(f"msr_{name}", wr(msr, value) + f"xor eax, eax\nmov ecx, {msr:#x}\nrdmsr", ax=value, dx=0)
        p.user(
            f"msr_{name}_cpl3", f"mov ecx, {msr:#x}\nmsr_{name}: rdmsr", vector=GP, error=0, ip=f"msr_{name}", cs=CODE3
        )
    p.check("segments", "mov eax, cs\nmov ebx, ss", ax=CODE0, bx=DATA0)
    return p
