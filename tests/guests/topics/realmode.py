"""Real mode (SDM 3, chapter 20; 2, the sections on real-address mode): vectors, limits, flags, far transfers, both
operand and address sizes, what is undefined there, and string and stack instructions at the end of a segment.
"""

from __future__ import annotations

from tests.guests.topics.program import BR, DB, DE, GP, OF, SS, UD, Program
from tests.guests.topics.sixteen import REAL_DONE, Sixteen

W = 0xFFFF
STOP = "mov word ptr [0], 0xf0cd\n"  # INT 0xF0 behind the code segment, for an emulator that goes on there


def program() -> Program:
    p = Program("realmode", 32)
    low = Sixteen(p)
    real = low.real
    real(
        "state",
        "mov ax, cs\nmov bx, ss\nmov cx, sp\nmov dx, ds",
        ax=(0x1000, W),
        bx=(0x3000, W),
        cx=(0x8000, W),
        dx=(0x2000, W),
        flags=2,
    )
    # ---- exceptions: no error code, IP of the instruction
    for number, (name, code, vector) in enumerate(
        (
            ("divide", "xor cx, cx\n{}: div cx", DE), ("divide_byte", "mov ax, 0x100\nmov cl, 1\n{}: div cl", DE),
            ("idiv", "mov dx, 0x4000\nxor ax, ax\nmov cx, 0xffff\n{}: idiv cx", DE),
            ("idiv_min", "mov ax, 0x8000\nmov cl, 0xff\n{}: idiv cl", DE), ("aam", "{}: .byte 0xd4, 0x00", DE),
            ("invalid", "{}: .byte 0x0f, 0x0b", UD), ("limit", "mov bx, 0xffff\n{}: mov ax, [bx]", GP),
            ("limit_write", "mov bx, 0xffff\n{}: mov [bx], ax", GP), ("limit_dword", "mov bx, 0xfffd\n{}: mov eax, [bx]", GP),
            ("stack", "mov bp, 0xffff\n{}: mov ax, [bp]", SS), ("limit_32", "mov ebx, 0x10000\n{}: mov al, [ebx]", GP),
            ("limit_32_ss", "mov ebp, 0x10000\n{}: mov al, [ebp]", SS), ("limit_ss", "mov bx, 0xffff\n{}: mov ax, ss:[bx]", SS),
            ("bound", "mov ax, 5\nmov bx, 0x100\nmov dword ptr [bx], 0x40001\n{}: .byte 0x62, 0x07", BR),
            ("bound_low", "mov ax, 0xfff0\nmov bx, 0x100\nmov dword ptr [bx], 0x40001\n{}: .byte 0x62, 0x07", BR),
            ("lldt", "{}: .byte 0x0f, 0x00, 0xd0", UD), ("ltr", "{}: .byte 0x0f, 0x00, 0xd8", UD), ("sldt", "{}: .byte 0x0f, 0x00, 0xc0", UD),
            ("str", "{}: .byte 0x0f, 0x00, 0xc8", UD), ("verr", "{}: .byte 0x0f, 0x00, 0xe0", UD), ("lar", "{}: .byte 0x0f, 0x02, 0xc0", UD),
            ("lsl", "{}: .byte 0x0f, 0x03, 0xc0", UD), ("arpl", "{}: .byte 0x63, 0xc0", UD), ("mov_cs", "{}: .byte 0x8e, 0xc8", UD),
            ("lock", "{}: .byte 0xf0, 0x8b, 0x07", UD), ("lock_register", "{}: .byte 0xf0, 0x01, 0xc0", UD), ("lea_register", "{}: .byte 0x8d, 0xc0", UD),
            ("les_register", "{}: .byte 0xc4, 0xc0", UD), ("mov_cr1", "{}: .byte 0x0f, 0x20, 0xc8", UD),

            ("mov_cr0_nw", "mov eax, cr0\nand eax, 0xbfffffff\nor eax, 0x20000000\n{}: mov cr0, eax", GP),
            ("rdmsr", "mov ecx, 0x12345\n{}: rdmsr", GP), ("pop_ss_limit", "mov sp, 0xffff\n{}: pop ax", SS),
            ("jump_over", STOP + "mov eax, 0x10000\n{}: .byte 0x66, 0xff, 0xe0", GP),
            ("far_jump_over", STOP + "{}: .byte 0x66, 0xea\n.long 0x10000\n.word 0x1000", GP),
            ("sysexit", "{}: .byte 0x0f, 0x35", GP), ("call_over", STOP + "mov eax, 0x10000\n{}: .byte 0x66, 0xff, 0xd0", GP),
            ("opcode_0f_ff", "{}: .byte 0x0f, 0xff, 0xc0", UD),
        )
    ):  # fmt: skip
        real(name, code.format(f"real_fault_{number}"), vector=vector, ip=f"@real_fault_{number}", cs=0x1000)
    # ---- software interrupts: behind the instruction; IF and TF cleared
    real("int", "int 0x40\nint_behind:", vector=0x40, ip="@int_behind")
    real("int3", ".byte 0xcc\nint3_behind:", vector=3, ip="@int3_behind")
    real("int_3_long", ".byte 0xcd, 3\nint_3_behind:", vector=3, ip="@int_3_behind")
    real("into", "mov al, 0x7f\nadd al, 1\ninto\ninto_behind:", vector=OF, ip="@into_behind", flags=(0x800, 0x800))
    real("into_not", "xor al, al\ninto", vector=REAL_DONE)
    real("icebp", ".byte 0xf1\nicebp_behind:", vector=DB, ip="@icebp_behind")
    real("int_frame", "sub sp, 2\nint 0x41", vector=0x41, sp=(0x7FFE, W), cs=0x1000)
    own = "push ds\nxor ax, ax\nmov ds, ax\nmov word ptr [0x42 * 4], {}\nmov word ptr [0x42 * 4 + 2], 0x1000\npop ds\n"
    low.code("own_handler: pushf\npop dx\npush bp\nmov bp, sp\nmov cx, [bp + 6]\npop bp\niret\n")
    real(
        "int_flags",
        own.format("own_handler") + ".byte 0x68, 0xd7, 0x0c\npopf\nint 0x42\npushf\npop bx",
        dx=(0x0CD7, W),
        cx=(0x0CD7, W),
        bx=(0x0CD7, W),
    )
    real(
        "int_clears_if",
        own.format("own_handler")
        + "pushf\npop ax\nor ah, 2\npush ax\npopf\nint 0x42\ncli\nand cx, 0x200\nand dx, 0x200",
        cx=(0x200, W),
        dx=(0, W),
    )
    # ---- flags
    real("popf_iopl_nt", ".byte 0x68, 0xd5, 0x7c\npopf\npushf\npop bx\npush 0\npopf", bx=(0x7CD7, W))
    real("pushf_fixed", ".byte 0x68, 0x2a, 0x80\npopf\npushf\npop bx", bx=(2, W))
    real("popfd", "push 0x243cd5\npopfd\npushfd\npop ebx\npush 0\npopfd", bx=0x243CD7)
    real("popfd_vm_ignored", "push 0x20002\npopfd\npushfd\npop ebx", bx=2)
    real("sahf", "mov ah, 0xff\nsahf\nlahf", ax=(0xD700, 0xFF00))
    # ---- far transfers
    real("far_jump", ".byte 0xea\n.word real_landing + 16, 0x0fff", vector=3, cs=0x0FFF, ip="@real_landing + 17")
    low.code("real_landing: .byte 0xcc\n")
    real(
        "far_call",
        "mov bp, sp\n.byte 0x9a\n.word real_called, 0x1000\nreal_next: sub bp, sp",
        bp=(0, W),
        ax=(0x1000, W),
        bx=("@real_next", W),
    )
    low.code("real_called: pop bx\npop ax\npush ax\npush bx\n.byte 0xcb\n")
    real(
        "far_call_wide",
        "mov bp, sp\n.byte 0x66, 0x9a\n.long real_wide\n.word 0x1000\nreal_wide_next: sub bp, sp",
        bp=(0, W),
        ax=(0x1000, W),
        bx="@real_wide_next",
        cx=(8, W),
    )
    low.code("real_wide: mov cx, bp\nsub cx, sp\npop ebx\npop eax\npush eax\npush ebx\n.byte 0x66, 0xcb\n")
    real(
        "retf_release",
        "mov bp, sp\npush ax\npush ax\npush cs\nmov ax, retf_at\npush ax\n.byte 0xca, 4, 0\nretf_at: sub bp, sp",
        bp=(0, W),
    )
    real(
        "far_jump_memory",
        "mov bx, 0x100\nmov ax, real_landing\nmov [bx], ax\nmov word ptr [bx + 2], 0x1000\n.byte 0xff, 0x2f",
        vector=3,
        ip="@real_landing + 1",
    )
    real("ret_release", "mov bp, sp\npush ax\nmov ax, ret_at\npush ax\n.byte 0xc2, 2, 0\nret_at: sub bp, sp", bp=(0, W))
    # ---- segments
    real(
        "load_keeps_limit",
        "mov ax, 0x2fff\nmov es, ax\nmov es:[0x10], ax\nmov bx, es\nmov cx, es:[0x10]",
        bx=(0x2FFF, W),
        cx=(0x2FFF, W),
        r0=0x2FFF,
    )
    real(
        "lds",
        "mov bx, 0x200\nmov dword ptr [bx], 0x22221111\n.byte 0xc5, 0x37\nmov ax, ds",
        ax=(0x2222, W),
        si=(0x1111, W),
    )
    real(
        "les_wide",
        "mov bx, 0x200\nmov dword ptr [bx], 0x44443333\nmov word ptr [bx + 4], 0x2555\n.byte 0x66, 0xc4, 0x37\nmov ax, es",
        ax=(0x2555, W),
        si=0x44443333,
    )
    real("override", "mov word ptr [0x300], 0x1234\nmov ax, 0x2010\nmov fs, ax\nmov bx, fs:[0x200]", bx=(0x1234, W))
    real(
        "bp_is_ss",
        "mov bp, 0x400\nmov word ptr [bp], 0x5678\nmov ax, 0x3000\nmov es, ax\nmov bx, es:[0x400]",
        bx=(0x5678, W),
    )
    real(
        "ebp_is_ss",
        "mov ebp, 0x404\nmov word ptr [ebp], 0x6789\nmov ax, 0x3000\nmov es, ax\nmov bx, es:[0x404]",
        bx=(0x6789, W),
    )
    real("wrap_16", "mov word ptr [4], 0x4242\nmov bx, 0xfff0\nmov si, 0x14\nmov ax, [bx + si]", ax=(0x4242, W))
    real("wrap_disp", "mov word ptr [8], 0x4343\nmov bx, 0xffff\nmov ax, [bx + 9]", ax=(0x4343, W))
    # ---- stack
    real("push_wraps", "mov sp, 0\npush ax\nmov cx, sp", cx=(0xFFFE, W))
    real("push_keeps_upper", "mov esp, 0x12340000\npush ax\nmov ecx, esp\nmov esp, 0x8000", cx=0x1234FFFE)
    real("push_sp", "mov bp, sp\npush sp\npop ax\nsub ax, bp", ax=(0, W))
    real(
        "pusha",
        "mov ax, 1\nmov bx, 2\nmov cx, 3\nmov dx, 4\nmov si, 6\nmov di, 7\nmov bp, 5\npusha\nmov bp, sp\nmov ax, [bp + 6]\nmov bx, [bp + 14]\nmov cx, [bp]",
        ax=(0x8000, W),
        bx=(1, W),
        cx=(7, W),
    )
    real(
        "popa_skips_sp",
        "push 0x11112222\npush 0x33334444\npush 0x55556666\npush 0x77778888\npopa\nmov cx, sp",
        cx=(0x8000, W),
        di=(0x8888, W),
        si=(0x7777, W),
        bp=(0x6666, W),
        ax=(0x1111, W),
    )
    real(
        "enter",
        "mov bp, 0x1234\n.byte 0xc8, 8, 0, 0\nmov ax, [bp]\nmov cx, sp\nmov dx, bp\nleave\nmov si, sp",
        ax=(0x1234, W),
        cx=(0x7FF6, W),
        dx=(0x7FFE, W),
        si=(0x8000, W),
        bp=(0x1234, W),
    )
    real(
        "enter_2",
        "mov bp, 0x7000\nmov word ptr [bp - 2], 0x9999\n.byte 0xc8, 4, 0, 2\nmov ax, [bp - 2]\nmov cx, [bp - 4]\nmov dx, bp\nmov si, sp\nmov sp, 0x8000",
        ax=(0x9999, W),
        cx=(0x7FFE, W),
        dx=(0x7FFE, W),
        si=(0x7FF6, W),
    )
    # ---- strings
    real(
        "movs",
        "mov byte ptr [0xffff], 0x77\nmov si, 0xffff\nmov di, 0x10\ncld\nmovsb es:[di], ds:[si]\nmov al, [0x10]",
        ax=(0x77, 0xFF),
        si=(0, W),
        di=(0x11, W),
    )
    real("movs_down", "mov si, 0\nmov di, 0x10\nstd\nmovsb es:[di], ds:[si]\ncld", si=(0xFFFF, W), di=(0x0F, W))
    real("rep_zero", "mov cx, 0\nmov si, 5\nmov di, 6\nrep movsb es:[di], ds:[si]", cx=(0, W), si=(5, W), di=(6, W))
    real(
        "rep_keeps_upper",
        "mov ecx, 0x10002\nmov edi, 0x100020\nmov esi, 0x200030\nrep movsb es:[di], ds:[si]",
        cx=0x10000,
        di=0x100022,
        si=0x200032,
    )
    real(
        "rep_limit",
        "mov cx, 4\nmov di, 0xfffd\nrep_fault: rep stosw es:[di], ax",
        vector=GP,
        ip="@rep_fault",
        cx=(3, W),
        di=(0xFFFF, W),
    )
    real(
        "scas",
        "mov di, 0x500\nmov dword ptr [di], 0x04030201\nmov al, 3\nmov cx, 10\nrepne scasb al, es:[di]",
        cx=(7, W),
        di=(0x503, W),
        flags=(0x40, 0x40),
    )
    real(
        "cmps",
        "mov si, 0x500\nmov di, 0x600\nmov dword ptr [si], 0x04030201\nmov dword ptr [di], 0x04990201\nmov cx, 4\nrepe cmpsb ds:[si], es:[di]",
        cx=(1, W),
        flags=(1, 0x41),
    )
    # ---- loops
    real("loop", "mov ecx, 0x10001\nloop_1: loop loop_1", cx=0x10000)
    real("loop_wraps", "mov cx, 0\nmov ax, 0\nloop_2: inc ax\nloop loop_2", ax=(0, W))
    real("jcxz", "mov ecx, 0x10000\nmov ax, 1\njcxz jcxz_1\nmov ax, 2\njcxz_1:", ax=(1, W))
    real("jecxz", "mov ecx, 0x10000\nmov ax, 1\n.byte 0x67, 0xe3, 3\nmov ax, 2", ax=(2, W))
    # ---- control registers, descriptor tables
    real("smsw", "smsw ax\nmov ebx, cr0\nxor ax, bx\nand bx, 1", ax=(0, W), bx=(0, W))
    real(
        "sgdt",
        "mov bx, 0x700\nmov dword ptr [bx + 2], 0\nsgdt [bx]\nmov ax, [bx]\nmov ecx, [bx + 2]",
        ax=(511, W),
        cx="gdt",
    )
    real("idt_limit", ".byte 0x2e, 0x0f, 0x01, 0x1e\n.word small_idt\nidt_fault: int 0x20", vector=GP, ip="@idt_fault")
    low.code("small_idt: .word 0x20 * 4 + 2\n.long 0\n")
    p.asm("mov eax, gdt\nmov [LOW + @flat_gdt_base], eax\n")
    # ---- "unreal" mode: limits that were loaded in protected mode stay
    real(
        "big_limits", ".byte 0x2e, 0x0f, 0x01, 0x16\n.word flat_gdt\nmov eax, cr0\nor al, 1\nmov cr0, eax\nmov bx, 0x10\nmov fs, bx\nand al, 0xfe\n"
        "mov cr0, eax\nxor bx, bx\nmov fs, bx\nmov ebx, 0x100000\nmov eax, fs:[ebx]", ax=0x1BADB002,
    )  # fmt: skip
    low.code("flat_gdt: .word 511\nflat_gdt_base: .long 0\n")
    return p
