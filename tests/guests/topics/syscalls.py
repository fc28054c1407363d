"""SYSCALL and SYSRET (SDM 2; 3, 5.8.8), SWAPGS, FS and GS bases of 64-bit mode, and hypercalls without a hypervisor."""

from __future__ import annotations

from tests.guests.topics.program import (
    CODE0,
    DATA0,
    DONE,
    GP,
    SCRATCH,
    UD,
    USER_STACK,
    Program,
)  # fmt: skip

EFER, STAR, LSTAR, CSTAR, FMASK, FS_BASE, GS_BASE, KERNEL_GS_BASE = (
    0xC0000080, 0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084, 0xC0000100, 0xC0000101, 0xC0000102,
)  # fmt: skip
HIGH = 1 << 56  # not canonical, for 57 bits either


def wr(msr: int, value: int | str) -> str:
    """Code that writes an MSR; labels are below 4 GiB."""
    return f"mov ecx, {msr:#x}\nmov rax, {value}\nmov rdx, rax\nshr rdx, 32\nwrmsr\n"


def program() -> Program:
    p = Program("syscalls", 64)
    # STAR: SYSCALL's CS is 0x08, SYSRET's base 0x33: 32-bit code 0x33, data 0x3b, 64-bit code 0x43
    p.set_descriptor(0x30, 0)
    p.data(
        f"""
    kernel: mov rdi, rsp
        mov rsp, STACK0
        mov eax, cs
        mov edx, ss
        int {DONE:#x}
    kernel_32: .code64
        mov eax, 0x77
        int {DONE:#x}
    """
    )
    p.data(
        "back_64: mov eax, cs\nmov edx, ss\nmov rdi, rsp\npushfq\npop rbx\nint 0x30\nback_32: .code32\nmov eax, cs\nmov edx, ss\npushfd\npop ebx\nint 0x30\n.code64\n"
    )
    p.check("no_sce", "no_sce: syscall", vector=UD, ip="no_sce")
    p.check("no_sce_sysret", "no_sce_ret: .byte 0x48, 0x0f, 0x07", vector=UD, ip="no_sce_ret")
    p.asm(
        wr(EFER, 0x501)
        + wr(STAR, (0x33 << 48) | (CODE0 << 32))
        + wr(LSTAR, "kernel")
        + wr(CSTAR, "kernel_32")
        + wr(FMASK, 0x4500)
    )
    p.data("user_call: mov eax, 0x1234\nstd\nstc\nsyscall\nuser_call_next: nop\n")
    p.attempt(p.to_user("user_call"))
    p.verify(
        "syscall",
        vector=DONE,
        cx="user_call_next",
        ax=CODE0,
        dx=DATA0,
        cs=CODE0,
        ss=DATA0,
        di=USER_STACK,
        flags=(3, 0x10503),
    )
    p.data("user_flags: push 0x40cd7\npopfq\nsyscall\nnop\n")
    p.data("kernel_flags: mov rdi, r11\nmov rsp, STACK0\nint 0x30\n")
    p.asm(wr(LSTAR, "kernel_flags") + wr(FMASK, 0x40400))
    p.attempt(p.to_user("user_flags"))
    p.verify("syscall_flags", vector=DONE, di=0x40CD7, flags=0x8D7)
    p.asm(wr(FMASK, 0xFFFFFFFF))
    p.attempt(p.to_user("user_flags"))
    p.verify("syscall_masks_all", vector=DONE, di=0x40CD7, flags=2)
    p.asm(wr(FMASK, 0))
    p.check("syscall_at_cpl0", "syscall\nsyscall_0: nop", vector=DONE, cx="syscall_0", cs=CODE0)
    # ---- SYSRET
    sysret64 = "lea rcx, [back_64]\nmov r11d, {}\n.byte 0x48, 0x0f, 0x07\n"
    p.check("sysret_64", sysret64.format("0x246cd7"), vector=DONE, ax=0x43, dx=0x3B, cs=0x43, ss=0x3B, bx=0x246CD7)
    p.check("sysret_flags", sysret64.format("0x10002"), vector=DONE, bx=2)  # RF and VM are not taken
    p.check("sysret_vm", sysret64.format("0x20002"), vector=DONE, bx=2)
    p.check(
        "sysret_32",
        "lea rcx, [back_32]\nmov r11d, 2\n.byte 0x0f, 0x07\n",
        vector=DONE,
        ax=0x33,
        dx=0x3B,
        cs=0x33,
        ss=0x3B,
    )
    p.check(
        "sysret_32_cuts",
        f"lea rcx, [back_32]\nmov rax, {1 << 32:#x}\nor rcx, rax\nmov r11d, 2\n.byte 0x0f, 0x07\n",
        vector=DONE,
        cs=0x33,
    )
    p.check("sysret_keeps_sp", "mov rbp, rsp\n" + sysret64.format("2"), vector=DONE, sp="STACK")
    p.user("sysret_at_cpl3", "sysret_3: .byte 0x48, 0x0f, 0x07", vector=GP, error=0, ip="sysret_3")
    p.asm(wr(STAR, (0x30 << 48) | (CODE0 << 32)))
    p.check("sysret_forces_rpl", sysret64.format("2"), vector=DONE, cs=0x43, ss=0x3B)
    # CS and SS are not read from the GDT: what is there is not even usable
    p.asm("mov rax, [gdt + 0x40]\nmov [got_r0], rax\nmov qword ptr [gdt + 0x40], 0\n")
    p.data("back_flat: int 0x30\n")
    p.check("sysret_ignores_gdt", "lea rcx, [back_flat]\nmov r11d, 2\n.byte 0x48, 0x0f, 0x07", vector=DONE, cs=0x43)
    p.set_descriptor(0x40, 0x00CFFA000000FFFF)
    # ---- SWAPGS, FS and GS (SDM 3, 3.4.4.1)
    p.asm(f"mov dword ptr [{SCRATCH}], 0x1111\nmov dword ptr [{SCRATCH + 0x100}], 0x2222\n")
    p.asm(wr(GS_BASE, SCRATCH) + wr(KERNEL_GS_BASE, SCRATCH + 0x100) + wr(FS_BASE, SCRATCH + 0x100))
    p.check(
        "gs_base",
        ".byte 0x65, 0x8b, 0x1c, 0x25, 0, 0, 0, 0\n.byte 0x64, 0x8b, 0x0c, 0x25, 0, 0, 0, 0",
        bx=0x1111,
        cx=0x2222,
    )
    p.check(
        "swapgs",
        "swapgs\n.byte 0x65, 0x8b, 0x1c, 0x25, 0, 0, 0, 0\nswapgs\n.byte 0x65, 0x8b, 0x14, 0x25, 0, 0, 0, 0",
        bx=0x2222,
        dx=0x1111,
    )
    p.user("swapgs_cpl3", "swapgs_3: swapgs", vector=GP, error=0, ip="swapgs_3")
    p.check("load_gs_clears_base", f"mov eax, {DATA0}\nmov gs, eax\nmov ecx, {GS_BASE:#x}\nrdmsr", ax=0, dx=0)
    p.check(
        "load_fs_null",
        f"mov ecx, {FS_BASE:#x}\nmov eax, 0x5000\nxor edx, edx\nwrmsr\nxor eax, eax\nmov fs, eax\nmov ebx, fs",
        bx=0,
    )
    for name, msr in (
        ("fs", FS_BASE),
        ("gs", GS_BASE),
        ("kernel_gs", KERNEL_GS_BASE),
        ("lstar", LSTAR),
        ("cstar", CSTAR),
        ("sysenter_eip", 0x176),
        ("sysenter_esp", 0x175),
    ):
        p.check(
            f"noncanonical_{name}",
            f"mov ecx, {msr:#x}\nxor eax, eax\nmov edx, {HIGH >> 32:#x}\nnc_{name}: wrmsr",
            vector=GP,
            error=0,
            ip=f"nc_{name}",
        )
        p.check(
            f"canonical_{name}",
            f"mov ecx, {msr:#x}\nmov eax, 0x1000\nmov edx, 0xffff8000\nwrmsr\nxor eax, eax\nxor edx, edx\nrdmsr",
            ax=0x1000,
            dx=0xFFFF8000,
        )
    p.asm(wr(LSTAR, "kernel") + wr(FS_BASE, 0) + wr(GS_BASE, 0))
    fsgs = "mov rax, cr4\nor eax, 0x10000\nmov cr4, rax\n"
    p.check("rdfsbase_off", "rdfs_off: .byte 0xf3, 0x48, 0x0f, 0xae, 0xc0", vector=UD, ip="rdfs_off")
    p.check(
        "wrfsbase",
        fsgs
        + f"mov eax, {SCRATCH}\n.byte 0xf3, 0x48, 0x0f, 0xae, 0xd0\n.byte 0x64, 0x8b, 0x1c, 0x25, 0, 0, 0, 0\n.byte 0xf3, 0x48, 0x0f, 0xae, 0xc1",
        bx=0x1111,
        cx=SCRATCH,
    )
    p.check(
        "wrgsbase_32", "mov rax, -1\n.byte 0xf3, 0x0f, 0xae, 0xd8\n.byte 0xf3, 0x48, 0x0f, 0xae, 0xc9", cx=0xFFFFFFFF
    )
    p.check(
        "wrfsbase_noncanonical",
        f"mov rax, {HIGH:#x}\nwrfs_nc: .byte 0xf3, 0x48, 0x0f, 0xae, 0xd0",
        vector=GP,
        error=0,
        ip="wrfs_nc",
    )
    p.user(
        "wrgsbase_cpl3",
        "mov eax, 0x6000\n.byte 0xf3, 0x48, 0x0f, 0xae, 0xd8\n.byte 0xf3, 0x48, 0x0f, 0xae, 0xc9",
        cx=0x6000,
    )
    # without virtualization (SDM 3, 31.3, VMCALL; APM 3, VMMCALL); a prefix makes it no less undefined
    for name, code in (("vmcall", "0x0f, 0x01, 0xc1"), ("vmmcall", "0x0f, 0x01, 0xd9")):
        for prefix in ("", "0x66, ", "0xf2, ", "0xf3, ", "0xf0, "):
            label = f"{name}_{prefix[2:4]}"
            p.check(label, f"{label}: .byte {prefix}{code}", vector=UD, ip=label)
        p.user(f"{name}_cpl3", f"{name}_3: .byte {code}", vector=UD, ip=f"{name}_3")
    return p
