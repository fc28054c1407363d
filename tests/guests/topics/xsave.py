"""XSAVE, XRSTOR, XGETBV and XSETBV (SDM 1, chapter 13; 2): enabling, XCR0, headers, faults, what is saved and restored."""

from __future__ import annotations

from tests.guests.topics.program import GP, NM, SCRATCH, UD, Program

AREA = SCRATCH
HEADER = AREA + 512
OSXSAVE = 1 << 18


def xsetbv(value: int, index: int = 0, label: str = "") -> str:
    """XSETBV."""
    return f"mov ecx, {index}\nmov eax, {value & 0xFFFFFFFF:#x}\nmov edx, {value >> 32:#x}\n{label}.byte 0x0f, 0x01, 0xd1\n"


XGETBV = "xor ecx, ecx\n.byte 0x0f, 0x01, 0xd0\n"


def xsave(mask: int, label: str = "", at: int = AREA) -> str:
    """XSAVE [AREA]."""
    return f"mov eax, {mask}\nxor edx, edx\nmov esi, {at}\n{label}xsave [rsi]\n"


def xrstor(mask: int, label: str = "", at: int = AREA) -> str:
    """XRSTOR [AREA]."""
    return f"mov eax, {mask}\nxor edx, edx\nmov esi, {at}\n{label}xrstor [rsi]\n"


def clear(byte: int = 0) -> str:
    """Fill the area."""
    return f"mov edi, {AREA}\nmov ecx, 0x1000\nmov al, {byte:#x}\nrep stosb es:[rdi], al\n"


def header(at: int, value: int) -> str:
    """Set a quadword of the header."""
    return f"mov rax, {value:#x}\nmov ecx, {HEADER + at}\nmov [rcx], rax\n"


SET_XMM = "mov rax, {}\nmovq xmm3, rax\n"


def program() -> Program:
    p = Program("xsave", 64)
    p.check("cpuid", "mov eax, 1\ncpuid", cx=(1 << 26, 1 << 26 | 1 << 27))
    for name, code in (
        ("xsave", xsave(3, "off_1: ")),
        ("xrstor", xrstor(3, "off_2: ")),
        ("xgetbv", "xor ecx, ecx\noff_3: .byte 0x0f, 0x01, 0xd0"),
        ("xsetbv", xsetbv(3, 0, "off_4: ")),
    ):
        n = ("xsave", "xrstor", "xgetbv", "xsetbv").index(name) + 1
        p.check(f"off_{name}", code, vector=UD, ip=f"off_{n}")
    p.check("osxsave", f"mov rax, cr4\nor eax, {OSXSAVE}\nmov cr4, rax\nmov eax, 1\ncpuid", cx=(1 << 27, 1 << 27))
    p.check("xcr0_initial", XGETBV, ax=1, dx=0)
    for name, value, index in (
        ("without_x87", 2, 0), ("zero", 0, 0), ("bit62", 1 << 62 | 3, 0), ("bit63", 1 << 63 | 3, 0), ("avx_without_sse", 5, 0), ("index_1", 3, 1),
        ("bit8", 0x103, 0), ("avx512_partial", 0x27, 0), ("mpx_partial", 0xB, 0),
    ):  # fmt: skip
        p.check(f"xsetbv_{name}", xsetbv(value, index, f"set_{name}: "), vector=GP, error=0, ip=f"set_{name}")
    p.check("xsetbv", xsetbv(3) + XGETBV, ax=3, dx=0)
    p.user("xsetbv_cpl3", xsetbv(3, 0, "set_3: "), vector=GP, error=0, ip="set_3")
    p.user("xgetbv_cpl3", XGETBV, ax=3)
    p.check("xgetbv_bad", "mov ecx, 2\nget_2: .byte 0x0f, 0x01, 0xd0", vector=GP, error=0, ip="get_2")
    p.check("cpuid_d", "mov eax, 13\nxor ecx, ecx\ncpuid", ax=(3, 3), bx=576)
    # ---- XSAVE and XRSTOR
    value = 0x1122334455667788
    p.asm("fninit\n" + clear(0) + SET_XMM.format(f"{value:#x}"))
    p.check(
        "saves_sse",
        clear()
        + SET_XMM.format(f"{value:#x}")
        + xsave(3)
        + f"mov ecx, {AREA + 160 + 48}\nmov rbx, [rcx]\nmov ecx, {HEADER}\nmov rdx, [rcx]",
        bx=value,
        dx=(2, 2),
    )
    p.check("restores_sse", SET_XMM.format("0") + xrstor(2) + "movq rbx, xmm3", bx=value)
    p.check("mask_0", SET_XMM.format("0x5555") + xrstor(0) + "movq rbx, xmm3", bx=0x5555)
    p.check("initial_sse", header(0, 1) + SET_XMM.format("0x5555") + xrstor(3) + "movq rbx, xmm3", bx=0)
    p.check(
        "sse_only",
        clear(0xFF)
        + header(0, 0)
        + header(8, 0)
        + header(16, 0)
        + SET_XMM.format("0x77")
        + xsave(2)
        + f"mov ecx, {AREA}\nmov ebx, [rcx]\nmov ecx, {AREA + 208}\nmov edx, [rcx]",
        bx=0xFFFFFFFF,
        dx=0x77,
    )
    p.check(
        "header_keeps_others",
        clear()
        + header(0, 0x8000000000000000 | 1)
        + SET_XMM.format("0x77")
        + xsave(2)
        + f"mov ecx, {HEADER}\nmov rbx, [rcx]",
        bx=0x8000000000000003,
    )
    p.asm(clear())
    for name, at, wrong in (
        ("xstate_bv", 0, 1 << 8 | 3),
        ("xstate_bv_63", 0, 1 << 63),
        ("xcomp_bv", 8, 1),
        ("reserved", 16, 1),
        ("xcomp_bv_not_compacted", 8, 3),
    ):
        p.check(
            f"header_{name}",
            clear() + header(at, wrong) + xrstor(3, f"hdr_{name}: "),
            vector=GP,
            error=0,
            ip=f"hdr_{name}",
        )
    p.check(
        "mxcsr_reserved",
        clear() + header(0, 2) + f"mov ecx, {AREA + 24}\nmov dword ptr [rcx], 0x10000\n" + xrstor(2, "mxcsr_1: "),
        vector=GP,
        error=0,
        ip="mxcsr_1",
    )
    p.check(
        "mxcsr_reserved_even_if_initial",
        clear() + f"mov ecx, {AREA + 24}\nmov dword ptr [rcx], 0x10000\n" + xrstor(2, "mxcsr_2: "),
        vector=GP,
        error=0,
        ip="mxcsr_2",
    )
    p.check("misaligned", clear() + xsave(3, "mis_1: ", AREA + 16), vector=GP, error=0, ip="mis_1")
    p.check("misaligned_xrstor", xrstor(3, "mis_2: ", AREA + 32), vector=GP, error=0, ip="mis_2")
    ts = "mov rax, cr0\nor eax, 8\nmov cr0, rax\n"
    p.check("ts", ts + xsave(3, "ts_1: "), vector=NM, ip="ts_1")
    p.check("ts_xrstor", xrstor(3, "ts_2: "), vector=NM, ip="ts_2")
    p.check("ts_xgetbv", XGETBV + "clts\n", ax=3)
    p.check("register", "reg_1: .byte 0x0f, 0xae, 0xe0", vector=UD, ip="reg_1")
    p.check("lock", "mov esi, 0x230000\nlock_1: .byte 0xf0, 0x0f, 0xae, 0x26", vector=UD, ip="lock_1")
    p.check(
        "x87",
        "fninit\nfld1\n"
        + clear()
        + xsave(1)
        + "fninit\n"
        + xrstor(1)
        + f"fstp qword ptr [{AREA}]\nmov eax, {AREA}\nmov rbx, [rax]",
        bx=0x3FF0000000000000,
    )
    p.check(
        "x87_initial",
        "fld1\nfld1\n"
        + clear()
        + xrstor(1)
        + "fnstcw [0x231000]\nfnstsw ax\nmov ecx, 0x231000\nmovzx ebx, word ptr [rcx]",
        ax=(0, 0xFFFF),
        bx=0x37F,
    )
    return p
