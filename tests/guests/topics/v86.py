"""Virtual-8086 mode (SDM 3, chapter 20) without its extensions: what IOPL decides, what is never allowed, the frames of
exceptions, IRET in and out, I/O permissions, segments, and a task that runs in it.
"""

from __future__ import annotations

from typing import Any

from tests.guests.topics.program import (
    BP,
    BR,
    CODE0,
    CODE3,
    DATA0,
    DE,
    DONE,
    FIRST_FREE,
    GP,
    SS,
    STACK0,
    UD,
    Program,
    descriptor,
    far,
)  # fmt: skip
from tests.guests.topics.sixteen import DATA, STACK, VM, Sixteen

TSS_V, CONF = FIRST_FREE, FIRST_FREE + 8


def program() -> Program:
    p = Program("v86", 32)
    low = Sixteen(p)
    # ---- entry, and the frame of an exception
    low.v86(
        "enter", "mov ax, cs\nmov bx, ss\nmov cx, sp\nmov dx, ds\nmov si, es\nentered:", ax=(0x1000, 0xFFFF), bx=(0x3000, 0xFFFF),
        cx=(0x8000, 0xFFFF), dx=(0x2000, 0xFFFF), si=(0x2000, 0xFFFF), ip="@entered + 1", cs=0x1000, ss=STACK >> 4, sp=0x8000, ds=0,
        flags=VM | 0x3002, r4=DATA >> 4, r5=DATA >> 4, r6=DATA >> 4, r7=DATA >> 4,
    )  # fmt: skip
    low.v86("segments", "mov ax, 0x1234\nmov fs, ax\ninc ax\nmov gs, ax", r6=0x1234, r7=0x1235)
    for number, (name, code, vector) in enumerate(
        (
            ("divide", "xor cx, cx\nfault_0: div cx", DE), ("invalid", "fault_1: .byte 0x0f, 0x0b", UD),
            ("bound", "mov ax, 5\nmov bx, 0x100\nmov dword ptr [bx], 0x20001\nfault_2: .byte 0x62, 0x07", BR),
            ("limit", "mov bx, 0xffff\nfault_3: mov ax, [bx]", GP), ("limit_write", "mov bx, 0xffff\nfault_4: mov [bx], ax", GP),
            ("stack", "mov sp, 1\nfault_5: push ax", SS), ("stack_bp", "mov bp, 0xffff\nfault_6: mov ax, [bp]", SS),
            ("limit_32", "mov ebx, 0x10000\nfault_7: mov ax, [ebx]", GP),
            ("limit_dword", "mov bx, 0xfffd\nfault_8: mov eax, [bx]", GP),
        )
    ):  # fmt: skip
        low.v86(
            name, code, vector=vector, error=0, ip=f"@fault_{number}", cs=0x1000, flags=(VM | 0x10000, VM | 0x10000)
        )
    low.v86("last_word", "mov bx, 0xfffe\nmov ax, [bx]")
    low.v86("stack_wraps", "mov sp, 0\npush ax\nmov cx, sp", cx=(0xFFFE, 0xFFFF))
    low.v86("base", "mov word ptr [0x10], 0x4321\nmov ax, 0x2001\nmov ds, ax\nmov bx, [0]", bx=(0x4321, 0xFFFF))
    # ---- what depends on IOPL
    for number, (name, code) in enumerate(
        (
            ("cli", "cli"), ("sti", "sti"), ("pushf", "pushf"), ("pushfd", "pushfd"), ("popf", "push 0\npopf"), ("popfd", "push 0\npopfd"),
            ("int", "int 0x30"), ("iret", "iret"), ("iretd", "iretd"),
        )
    ):  # fmt: skip
        lines = code.split("\n")
        lines[-1] = f"iopl_{number}: {lines[-1]}"
        low.v86(f"iopl2_{name}", "\n".join(lines), iopl=2, vector=GP, error=0, ip=f"@iopl_{number}")
    low.v86("iopl0_int3", "nop", iopl=0)
    low.v86("iopl3_cli", "cli", with_flags=0x200)
    low.v86("iopl3_int", "int 0x30\nint_next:", vector=DONE, error=0)
    low.v86("iopl3_pushf", "stc\npushf\npop bx", bx=(0x3003, 0xFFFF))
    low.v86("iopl3_pushfd", "stc\npushfd\npop ebx", bx=0x3003)  # VM and RF read as 0
    low.v86("iopl3_popf_keeps_iopl", ".byte 0x68, 0xd5, 0x0c\npopf\npushf\npop bx", bx=(0x3CD7, 0xFFFF))
    low.v86(
        "iopl3_iret",
        ".byte 0x68, 0xd5, 0x0c\npush cs\nmov ax, v86_iret\npush ax\niret\nv86_iret: pushf\npop bx",
        bx=(0x3CD7, 0xFFFF),
    )
    low.v86("into", "mov al, 0x7f\nadd al, 1\ninto_at: into", iopl=0, vector=4, ip="@into_at + 1")
    low.v86("popf_tf_clear", "pushf\npop ax\npush ax\npopf", iopl=3)
    # ---- never allowed: #GP(0) for what is privileged, #UD for what is of protected mode
    for number, (name, code) in enumerate(
        (
            ("hlt", ".byte 0xf4"), ("mov_cr0", "mov cr0, eax"), ("read_cr0", "mov eax, cr0"), ("clts", "clts"), ("lmsw", "lmsw ax"),
            ("lgdt", "lgdt [bx]"), ("lidt", ".byte 0x0f, 0x01, 0x1f"), ("invlpg", ".byte 0x0f, 0x01, 0x3f"), ("wbinvd", "wbinvd"),
            ("rdmsr", "rdmsr"), ("wrmsr", "wrmsr"), ("mov_dr7", ".byte 0x0f, 0x21, 0xf8"), ("in", "in al, 0x80"), ("out", "mov dx, 0x80\nout dx, al"),
            ("insb", "mov dx, 0x80\n.byte 0x6c"),
        )
    ):  # fmt: skip
        lines = code.split("\n")
        lines[-1] = f"never_{number}: {lines[-1]}"
        low.v86(f"never_{name}", "\n".join(lines), vector=GP, error=0, ip=f"@never_{number}")
    for number, (name, code) in enumerate(
        (
            ("lldt", ".byte 0x0f, 0x00, 0xd0"), ("ltr", ".byte 0x0f, 0x00, 0xd8"), ("sldt", ".byte 0x0f, 0x00, 0xc0"), ("str", ".byte 0x0f, 0x00, 0xc8"),
            ("verr", ".byte 0x0f, 0x00, 0xe0"), ("verw", ".byte 0x0f, 0x00, 0xe8"), ("lar", ".byte 0x0f, 0x02, 0xc0"), ("lsl", ".byte 0x0f, 0x03, 0xc0"),
            ("arpl", ".byte 0x63, 0xc0"), ("lock", "lock inc word ptr [bx]\nlock_bad: .byte 0xf0, 0x8b, 0x07"),
        )
    ):  # fmt: skip
        lines = code.split("\n")
        lines[-1] = f"ud_{number}: {lines[-1].removeprefix('lock_bad: ')}"
        low.v86(f"undefined_{name}", "\n".join(lines), vector=UD, ip=f"@ud_{number}")
    low.v86("smsw", "smsw ax", ax=(1, 1))
    low.v86("sgdt", "mov bx, 0x100\nsgdt [bx]\nmov ax, [bx]", ax=(511, 0xFFFF))
    # ---- far transfers load CS as real mode does
    low.v86("far_jump", ".byte 0xea\n.word far_landing + 16, 0x0fff", cs=0x0FFF, ip="@far_landing + 0x11")
    low.code("far_landing: .byte 0xcc\n")
    low.v86(
        "far_call",
        "mov bp, sp\n.byte 0x9a\n.word far_called, 0x1000\nfar_next: mov cx, sp\nsub bp, cx",
        bp=(0, 0xFFFF),
        ax=(0x1000, 0xFFFF),
        bx=("@far_next", 0xFFFF),
    )
    low.code("far_called: pop bx\npop ax\npush ax\npush bx\n.byte 0xcb\n")
    low.v86(
        "jump_over",
        "mov word ptr [0], 0xcccc\nmov eax, 0x10000\nover_1: .byte 0x66, 0xff, 0xe0",
        vector=GP,
        error=0,
        ip="@over_1",
    )
    low.v86(
        "ret_wide", "mov word ptr [0], 0xcccc\npush 0x10000\nover_2: .byte 0x66, 0xc3", vector=GP, error=0, ip="@over_2"
    )
    # ---- interrupts leave it only for CPL 0
    p.set_descriptor(CONF, descriptor(0, 0xFFFFF, 0x9E, 0xC))
    p.asm(
        "mov eax, [IDT + 0x31 * 8 + 4]\nmov [saved_vector + 4], eax\nmov eax, [IDT + 0x31 * 8]\nmov [saved_vector], eax\n"
    )
    p.data("saved_vector: .quad 0\n")
    for name, selector in (("conforming", CONF), ("code3", CODE3)):
        p.asm(f"mov word ptr [IDT + 0x31 * 8 + 2], {selector}\n")
        low.v86(f"gate_{name}", f"gate_{name}: int 0x31", vector=GP, error=selector & ~3, ip=f"@gate_{name}", cs=0x1000)
    p.asm(f"mov word ptr [IDT + 0x31 * 8 + 2], {CODE0}\nand byte ptr [IDT + 0x31 * 8 + 5], 0x9f\n")
    low.v86("gate_dpl", "gate_dpl: int 0x31", vector=GP, error=0x31 * 8 + 2, ip="@gate_dpl")
    p.asm(
        "mov eax, [saved_vector]\nmov [IDT + 0x31 * 8], eax\nmov eax, [saved_vector + 4]\nmov [IDT + 0x31 * 8 + 4], eax\n"
    )
    # ---- the I/O permission bitmap decides, whatever IOPL is (SDM 3, 20.2.8.1; 1, 19.5.2)
    tss = 0x28
    p.asm(
        f"mov word ptr [gdt + {tss}], 0x67 + 0x12\nmov word ptr [tss + 102], 0x68\n"
    )  # 0x12 bytes: ports 0 to 0x87, and the byte after them
    p.asm(
        "mov edi, tss + 0x68\nmov ecx, 0x12\nmov al, 0xff\nrep stosb es:[edi], al\nmov byte ptr [tss + 0x68 + 0x10], 0xfc\n"
    )
    reload = f"and byte ptr [gdt + {tss + 5}], 0xfd\nmov eax, {tss}\nltr ax\n"
    p.asm(reload)
    for number, (name, code, fine) in enumerate(
        (
            ("allowed", "in al, 0x80", True), ("allowed_word", "in ax, 0x80", True), ("denied", "in al, 0x82", False),
            ("denied_across", "in ax, 0x81", False), ("denied_dword", "in eax, 0x80", False), ("beyond", "in al, 0x88", False),
            ("last", "mov dx, 0x87\nin al, dx", False),
        )
    ):  # fmt: skip
        for iopl in (0, 3):
            lines = code.split("\n")
            lines[-1] = f"io_{number}_{iopl}: {lines[-1]}"
            wanted: dict[str, Any] = {} if fine else {"vector": GP, "error": 0, "ip": f"@io_{number}_{iopl}"}
            low.v86(f"io_{name}_iopl{iopl}", "\n".join(lines), iopl=iopl, **wanted)
    p.asm(f"mov byte ptr [tss + 0x68 + 0x10], 0\nmov word ptr [gdt + {tss}], 0x67 + 0x10\n{reload}")
    low.v86("io_second_byte_missing", "io_limit: in al, 0x78", vector=GP, error=0, ip="@io_limit")  # two bytes are read
    p.user("io_cpl3_denied", "io_cpl3: in al, 0x80", vector=GP, error=0, ip="io_cpl3")
    p.asm(f"mov word ptr [gdt + {tss}], 0x67 + 0x12\n{reload}")
    p.user("io_cpl3_allowed", "in al, 0x80")
    p.user("io_cpl3_denied_bit", "io_cpl3b: in al, 0x78", vector=GP, error=0, ip="io_cpl3b")
    p.data(f"io_iopl3: in al, 0x78\nint {DONE:#x}\n")
    p.attempt(p.to_user("io_iopl3", flags=0x3002))
    p.verify("io_cpl3_iopl3", vector=DONE)
    # ---- a task in it
    p.data(".align 16\ntss_v: .fill 0x80, 1, 0\n")
    p.asm(
        f"""
        mov dword ptr [tss_v + 4], {STACK0}
        mov dword ptr [tss_v + 8], {DATA0}
        mov eax, @task_v86
        mov [tss_v + 0x20], eax
        mov dword ptr [tss_v + 0x24], {VM | 0x3002:#x}
        mov dword ptr [tss_v + 0x38], 0x7000
        mov dword ptr [tss_v + 0x48], 0x2100
        mov dword ptr [tss_v + 0x4c], 0x1000
        mov dword ptr [tss_v + 0x50], 0x3000
        mov dword ptr [tss_v + 0x54], 0x2200
        mov dword ptr [tss_v + 0x58], 0x2300
        mov dword ptr [tss_v + 0x5c], 0x2400
        mov dword ptr [tss_v + 0x64], 0x680000
        mov eax, tss_v
        mov [gdt + {TSS_V + 2}], ax
        shr eax, 16
        mov [gdt + {TSS_V + 4}], al
        mov [gdt + {TSS_V + 7}], ah
        mov word ptr [gdt + {TSS_V}], 0x67
        mov byte ptr [gdt + {TSS_V + 5}], 0x89
        """
    )
    low.code("task_v86: mov ax, ds\nmov bx, es\n.byte 0xcc\n")
    p.attempt(far(0x9A, 0, TSS_V))
    p.asm(reload)
    p.verify(
        "task", vector=BP, ip="@task_v86 + 5", cs=0x1000, ss=0x3000, sp=0x7000, ax=(0x2200, 0xFFFF), bx=(0x2100, 0xFFFF),
        flags=VM | 0x7002, r4=0x2100, r5=0x2200, r6=0x2300, r7=0x2400,
    )  # fmt: skip
    return p
