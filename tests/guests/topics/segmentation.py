"""Segments of protected mode (SDM 3, chapters 3 and 5): loading them, limits and types at every use, expand-down and
16-bit stacks, near transfers out of the code segment, LAR, LSL, VERR, VERW, ARPL, descriptor tables, the LDT.
"""

from __future__ import annotations

from typing import Any

from tests.guests.topics.program import (
    CODE0,
    CODE3,
    DATA0,
    DATA3,
    DONE,
    FIRST_FREE,
    GP,
    NONE,
    NP,
    SCRATCH,
    SS,
    UD,
    Program,
    descriptor,
    far,
)  # fmt: skip

F = FIRST_FREE
(RONLY, EXONLY, CONF, CONF_EX, ABSENT, ABSENT_C, SYSTEM_TSS, LDT_SEL, SMALL, DOWN, DOWN16, BYTE, STACK16, RO_SMALL, CODE_SMALL,
 CALLG, DATA3_RO, PAGES, DOWN_ALL, UNACCESSED, INTGATE, DOWN_BASE, C16, EX_SMALL) = range(F, F + 8 * 24, 8)  # fmt: skip
LOADS = (
    # name, selector, CPL 0: (DS, SS) vector and error, None for fine
    ("null", 0, None, (GP, 0)),
    ("null3", 3, None, (GP, 0)),
    ("beyond", 0x200, (GP, 0x200), (GP, 0x200)),
    ("beyond_by_a_byte", 0x1F8 + 8, (GP, 0x200), (GP, 0x200)),
    ("data", DATA0, None, None),
    ("data_rpl3", DATA0 | 3, (GP, DATA0), (GP, DATA0)),
    ("data_dpl3", DATA3 & ~3, None, (GP, DATA3 & ~3)),
    ("data_dpl3_rpl3", DATA3, None, (GP, DATA3 & ~3)),
    ("read_only", RONLY, None, (GP, RONLY)),
    ("execute_only", EXONLY, (GP, EXONLY), (GP, EXONLY)),
    ("code", CODE0, None, (GP, CODE0)),
    ("conforming", CONF, None, (GP, CONF)),
    ("conforming_rpl3", CONF | 3, None, (GP, CONF)),
    ("conforming_execute_only", CONF_EX, (GP, CONF_EX), (GP, CONF_EX)),
    ("absent", ABSENT, (NP, ABSENT), (SS, ABSENT)),
    ("absent_rpl3", ABSENT | 3, (GP, ABSENT), (GP, ABSENT)),
    ("absent_code", ABSENT_C, (NP, ABSENT_C), (GP, ABSENT_C)),
    ("tss", SYSTEM_TSS, (GP, SYSTEM_TSS), (GP, SYSTEM_TSS)),
    ("ldt", LDT_SEL, (GP, LDT_SEL), (GP, LDT_SEL)),
    ("gate", CALLG, (GP, CALLG), (GP, CALLG)),
    ("in_no_ldt", 4, (GP, 4), (GP, 4)),
    ("expand_down", DOWN, None, None),
)
LOADS3 = (
    ("null", 0, None, (GP, 0)),
    ("data3", DATA3, None, None),
    ("data3_rpl0", DATA3 & ~3, None, (GP, DATA3 & ~3)),
    ("data0", DATA0, (GP, DATA0), (GP, DATA0)),
    ("data0_rpl3", DATA0 | 3, (GP, DATA0), (GP, DATA0)),
    ("code3", CODE3, None, (GP, CODE3 & ~3)),
    ("code0", CODE0, (GP, CODE0), (GP, CODE0)),
    ("conforming0", CONF, None, (GP, CONF)),
    ("read_only3", DATA3_RO | 3, None, (GP, DATA3_RO)),
    ("absent0", ABSENT, (GP, ABSENT), (GP, ABSENT)),
)


def program() -> Program:
    p = Program("segmentation", 32)
    s = SCRATCH
    table = {
        RONLY: descriptor(0, 0xFFFFF, 0x90, 0xC), EXONLY: descriptor(0, 0xFFFFF, 0x98, 0xC),
        CONF: descriptor(0, 0xFFFFF, 0x9E, 0xC), CONF_EX: descriptor(0, 0xFFFFF, 0x9C, 0xC),
        ABSENT: descriptor(0, 0xFFFFF, 0x12, 0xC), ABSENT_C: descriptor(0, 0xFFFFF, 0x1A, 0xC),
        SYSTEM_TSS: descriptor(s, 0x67, 0x89), SMALL: descriptor(s, 0xFFF, 0x92, 4),
        DOWN: descriptor(0, 0xFFF, 0x96, 4), DOWN16: descriptor(s, 0xFFF, 0x96, 0), BYTE: descriptor(s, 0, 0x92, 4),
        STACK16: descriptor(s, 0xFFFF, 0x92, 0), RO_SMALL: descriptor(s, 0xFFF, 0x90, 4),
        CODE_SMALL: descriptor(0, 0x1EF, 0x9A, 0xC), CALLG: 0x8C << 40 | CODE0 << 16,
        DATA3_RO: descriptor(0, 0xFFFFF, 0xF0, 0xC), PAGES: descriptor(s, 1, 0x92, 0xC),
        DOWN_ALL: descriptor(0, 0xFFFFF, 0x96, 0xC), UNACCESSED: descriptor(0, 0xFFFFF, 0x92, 0xC),
        INTGATE: 0x8E << 40 | CODE0 << 16, DOWN_BASE: descriptor(s - 0x1000, 0xFFF, 0x96, 4),
        LDT_SEL: descriptor(s + 0x8000, 15, 0x82), C16: descriptor(0x100000, 0xFFFF, 0x9A, 0),
        EX_SMALL: descriptor(s, 0xFFF, 0x98, 4),
    }  # fmt: skip
    for selector, value in table.items():
        p.set_descriptor(selector, value)
    p.asm(f"mov edi, {s}\nmov ecx, 0x3000\nmov eax, 0x5a5a5a5a\nrep stosd es:[edi], eax\n")
    # ---- loads
    for cpl, loads in ((0, LOADS), (3, LOADS3)):
        for name, selector, for_ds, for_ss in loads:
            for register, wanted in (("ds", for_ds), ("ss", for_ss), ("gs", for_ds)):
                at = f"load{cpl}_{register}_{name}"
                fine = NONE if cpl == 0 else DONE
                vector, error = wanted or (fine, 0)
                extra: dict[str, Any] = {} if wanted is None else {"ip": at}
                if wanted is None and register == "ds":
                    extra["ds"] = selector
                back = "mov ebx, 0x10\nmov ss, ebx\n" if register == "ss" and cpl == 0 else ""
                body = f"mov eax, {selector}\n{at}: mov {register}, ax\n{back}"
                if cpl == 0:
                    p.check(f"load_{register}_{name}", body, vector=vector, error=error, **extra)
                    if register == "ds":
                        p.asm("mov eax, 0x10\nmov ds, eax\n")
                else:
                    p.user(f"load3_{register}_{name}", body, vector=vector, error=error, **extra)
    p.check("load_cs", "bad_cs: .byte 0x8e, 0xc8", vector=UD, ip="bad_cs")
    p.check("load_6", "bad_6: .byte 0x8e, 0xf0", vector=UD, ip="bad_6")
    p.check("store_7", "bad_7: .byte 0x8c, 0xf8", vector=UD, ip="bad_7")
    p.check("pop_beyond", "push 0x200\nmov ebx, esp\npop_1: .byte 0x07\n", vector=GP, error=0x200, ip="pop_1")
    p.check("pop_keeps_sp", "mov ebx, esp\npush 0x200\npop_2: .byte 0x07\n", vector=GP, error=0x200, ip="pop_2")
    p.check("pop_fs", f"push 0xffff{DATA3:04x}\n.byte 0x0f, 0xa1\nmov eax, fs\nmov ebx, esp\n", ax=DATA3)
    p.check("push_ds", "mov ebx, esp\n.byte 0x1e\nsub ebx, esp\npop eax\nmovzx eax, ax\n", ax=DATA0, bx=4)
    p.check(
        "accessed", f"mov eax, {UNACCESSED}\nmov es, eax\nmov al, [gdt + {UNACCESSED + 5}]\nmovzx eax, al\n"
        "mov ebx, 0x10\nmov es, ebx\n", ax=0x93,
    )  # fmt: skip
    p.check("not_accessed", f"movzx eax, byte ptr [gdt + {ABSENT + 5}]", ax=0x12)
    p.check(
        "lds", "mov ebx, far_1\n.byte 0xc4, 0x0b\nmov eax, es\nmov ebx, 0x10\nmov es, ebx\n", ax=DATA3, cx=0x12345678
    )
    p.data(f"far_1: .long 0x12345678\n.word {DATA3}\nfar_2: .long 0x12345678\n.word 0x200\n")
    p.check(
        "les_bad", "mov ecx, 7\nmov ebx, far_2\nles_1: .byte 0xc4, 0x0b\n", vector=GP, error=0x200, cx=7, ip="les_1"
    )
    p.check("lfs", "mov ebx, far_1\n.byte 0x0f, 0xb4, 0x0b\nmov eax, fs\n", ax=DATA3, cx=0x12345678)
    p.check("les_register", "les_2: .byte 0xc4, 0xc0, 0x90, 0x90, 0x90\n", vector=UD, ip="les_2")

    # ---- limits and types
    def use(name: str, selector: int, instruction: str, vector: int = NONE, error: int = 0, **more: int | str) -> None:
        at = p.label("use")
        p.check(
            name, f"mov eax, {selector}\nmov es, eax\n{at}: {instruction}\n", vector=vector, error=error,
            **({"ip": at} if vector != NONE else {}), **more,
        )  # fmt: skip

    for name, selector, offset, good in (
        ("limit", SMALL, 0xFFC, True), ("limit_over", SMALL, 0xFFD, False), ("limit_beyond", SMALL, 0x1000, False),
        ("limit_wraps", SMALL, 0xFFFFFFFE, False), ("limit_high", SMALL, 0xFFFFFFFC, False), ("byte", BYTE, 0, False),
        ("pages", PAGES, 0x1FFC, True), ("pages_over", PAGES, 0x1FFD, False),
        ("down_below", DOWN_BASE, 0xFFC, False), ("down_over", DOWN_BASE, 0xFFF, False), ("down", DOWN_BASE, 0x1000, True),
        ("down16", DOWN16, 0x1000, True), ("down16_top", DOWN16, 0xFFFC, True), ("down16_over", DOWN16, 0xFFFD, False),
        ("down16_beyond", DOWN16, 0x10000, False), ("down16_below", DOWN16, 0x800, False),
        ("down_nothing", DOWN_ALL, 0xFFFFFFFC, False), ("down_nothing_low", DOWN_ALL, s, False),
        ("read_only_read", RO_SMALL, 0, True), ("execute_only", EX_SMALL, 0, False), ("null", 0, s, False),
    ):  # fmt: skip
        for access in ("read", "write"):
            if selector == EX_SMALL:
                continue
            fine = good and not (selector == RO_SMALL and access == "write")
            instruction = (
                f"mov ebx, es:[{offset:#x}]" if access == "read" else f"mov dword ptr es:[{offset:#x}], 0x5a5a5a5a"
            )
            use(f"{name}_{access}", selector, instruction, *(() if fine else (GP, 0)))
    use("one_byte", BYTE, "movzx ebx, byte ptr es:[0]", bx=0x5A)
    use("one_byte_over", BYTE, "movzx ebx, byte ptr es:[1]", GP)
    use("quad_over", SMALL, "fild qword ptr es:[0xffc]", GP)
    use("quad", SMALL, "fild qword ptr es:[0xff8]\nfninit")
    use("code_write", CODE0, f"mov dword ptr es:[{s}], 1", GP)
    use("code_read", CODE0, f"mov ebx, es:[{s}]", bx=0x5A5A5A5A)
    use("read_only_rmw", RO_SMALL, "add dword ptr es:[0], 0", GP)
    use("read_only_cmp", RO_SMALL, "cmp dword ptr es:[0], 0")
    use("read_only_xchg", RO_SMALL, "xchg es:[0], ebx", GP)
    use("read_only_bts_same", RO_SMALL, "bts dword ptr es:[0], 1", GP)
    p.check(
        "stos_over", f"mov eax, {SMALL}\nmov es, eax\nmov edi, 0xff8\nmov ecx, 4\nstos_1: rep stosd es:[edi], eax\n",
        vector=GP, error=0, ip="stos_1", di=0x1000, cx=2,
    )  # fmt: skip
    p.asm(f"mov eax, 0x10\nmov es, eax\nmov edi, {s}\nmov ecx, 0x3000\nmov eax, 0x5a5a5a5a\nrep stosd es:[edi], eax\n")
    use("addressing16_wraps", PAGES, ".byte 0x66, 0xbb, 0xff, 0xff\n.byte 0x26, 0x67, 0x8b, 0x47, 0x02", ax=0x5A5A5A5A)
    p.check("read_cs", "mov eax, cs:[boot_magic]", ax=0x2BADB002)
    p.check("write_cs", "wcs: mov cs:[boot_magic], eax", vector=GP, error=0, ip="wcs")
    # ---- code segments: the end of the segment
    p.check("far_jump_small", far(0xEA, 0x1F0000, CODE_SMALL), vector=GP, error=0)
    for where in (0x1F0000, 0x1F0010):  # for an emulator that goes on there
        p.asm(f"mov dword ptr [{where}], {0x00CD | DONE << 8:#x}\n")
    p.asm("mov dword ptr [0x1efffc], 0x90909090\n")
    p.check(
        "fetch_over", far(0xEA, 0x1EFFFE, CODE_SMALL), vector=GP, error=0, ip=0x1F0000, cs=CODE_SMALL,
    )  # fmt: skip
    p.asm("mov dword ptr [0x1efffc], 0xb8909090\n")
    p.check("fetch_across", far(0xEA, 0x1EFFFC, CODE_SMALL), vector=GP, error=0, ip=0x1EFFFF, cs=CODE_SMALL)
    near = "near_over: jmp 0x1f0000\n"
    p.data(near + "near_call: mov ebx, esp\nnear_call_at: call 0x1f0010\n")
    p.data(
        "near_ret: mov ebx, esp\npush 0x1F0000\nnear_ret_at: ret\nnear_jcc: cmp eax, eax\nnear_jcc_at: je 0x1f0000\n"
    )
    p.data("near_indirect: mov eax, 0x1F0000\nnear_indirect_at: jmp eax\n")
    p.check("near_jump_over", far(0xEA, "near_over", CODE_SMALL), vector=GP, error=0, ip="near_over", cs=CODE_SMALL)
    p.check("near_call_over", far(0xEA, "near_call", CODE_SMALL), vector=GP, error=0, ip="near_call_at")
    p.check("near_ret_over", far(0xEA, "near_ret", CODE_SMALL), vector=GP, error=0, ip="near_ret_at")
    p.check("near_jcc_over", far(0xEA, "near_jcc", CODE_SMALL), vector=GP, error=0, ip="near_jcc_at")
    p.check("near_jump_indirect", far(0xEA, "near_indirect", CODE_SMALL), vector=GP, error=0, ip="near_indirect_at")
    # ---- far jumps to code segments (SDM 2, JMP)
    for name, selector, error, vector in (
        ("null", 0, 0, GP), ("null3", 3, 0, GP), ("beyond", 0x200, 0x200, GP), ("data", DATA0, DATA0, GP),
        ("absent", ABSENT_C, ABSENT_C, NP), ("dpl3", CODE3 & ~3, CODE3 & ~3, GP), ("rpl3", CODE0 | 3, CODE0, GP),
        ("dpl3_rpl3", CODE3, CODE3 & ~3, GP), ("ldt", LDT_SEL, LDT_SEL, GP), ("interrupt_gate", INTGATE, INTGATE, GP),
        ("in_no_ldt", 4, 4, GP),
    ):  # fmt: skip
        p.check(
            f"jump_{name}",
            f"jump_{name}_at: " + far(0xEA, "jumped", selector),
            vector=vector,
            error=error,
            ip=f"jump_{name}_at",
        )
        p.check(
            f"call_{name}",
            f"call_{name}_at: " + far(0x9A, "jumped", selector),
            vector=vector,
            error=error,
            ip=f"call_{name}_at",
        )
    p.data(f"jumped: mov eax, cs\nint {DONE:#x}\n")
    p.check("jump_conforming", far(0xEA, "jumped", CONF), vector=DONE, cs=CONF)
    p.check("jump_conforming_rpl3", far(0xEA, "jumped", CONF | 3), vector=DONE, cs=CONF)
    p.check(
        "call_far",
        "mov ebx, esp\n" + far(0x9A, "called", CODE0) + "call_far_next: nop",
        bx=8,
        cx="call_far_next",
        dx=CODE0,
    )
    p.data("called: sub ebx, esp\nmov ecx, [esp]\nmov edx, [esp + 4]\nmovzx edx, dx\nretf\n")
    for name, selector, vector, error in (
        ("conforming", CONF, DONE, 0), ("code0", CODE0, GP, CODE0), ("code3", CODE3, DONE, 0),
        ("code3_rpl0", CODE3 & ~3, DONE, 0),
    ):  # fmt: skip
        p.data(f"jump3_{name}_at: " + far(0xEA, "jumped", selector))
        p.attempt(p.to_user(f"jump3_{name}_at"))
        p.verify(f"jump3_{name}", vector=vector, error=error, cs=(selector | 3 if vector == DONE else CODE3))
    # ---- 16-bit stacks
    p.check(
        "stack16_wraps", f"mov esi, esp\nmov eax, {STACK16}\nmov ss, ax\nmov esp, 0x12340000\npush 0x11223344\n"
        "mov ebx, esp\nmov eax, 0x10\nmov ss, ax\nmov esp, esi\nmov ecx, [" + hex(s + 0xFFFC) + "]\n",
        bx=0x1234FFFC, cx=0x11223344,
    )  # fmt: skip
    p.check(
        "stack16_pop_wraps", f"mov esi, esp\nmov eax, {STACK16}\nmov ss, ax\nmov esp, 0x1234fffc\npop ecx\n"
        "mov ebx, esp\nmov eax, 0x10\nmov ss, ax\nmov esp, esi\n", bx=0x12340000, cx=0x11223344,
    )  # fmt: skip
    p.check(
        "stack16_leave", f"mov esi, esp\nmov eax, {STACK16}\nmov ss, ax\nmov ebp, 0x5678fffc\nmov esp, 0x12340100\nleave\n"
        "mov ebx, esp\nmov eax, 0x10\nmov ss, ax\nmov esp, esi\n", bx=0x12340000, bp=0x11223344,
    )  # fmt: skip
    # ---- LAR, LSL, VERR, VERW (SDM 2)
    zf = 0x40
    for name, selector, rights, limit, readable, writable in (
        ("null", 0, None, None, 0, 0), ("beyond", 0x200, None, None, 0, 0),
        ("data", DATA0, 0xCF9300, 0xFFFFFFFF, 1, 1), ("data_rpl3", DATA0 | 3, None, None, 0, 0),
        ("code", CODE0, 0xCF9B00, 0xFFFFFFFF, 1, 0), ("read_only", RONLY, 0xCF9100, 0xFFFFFFFF, 1, 0),
        ("execute_only", EXONLY, 0xCF9800, 0xFFFFFFFF, 0, 0), ("conforming", CONF | 3, 0xCF9F00, 0xFFFFFFFF, 1, 0),
        ("absent", ABSENT, 0xCF1200, 0xFFFFFFFF, 1, 1), ("small", SMALL, 0x409300, 0xFFF, 1, 1),
        ("pages", PAGES, 0xC09300, 0x1FFF, 1, 1), ("tss", SYSTEM_TSS, 0x8900, 0x67, 0, 0),
        ("ldt", LDT_SEL, 0x8200, 15, 0, 0), ("call_gate", CALLG, 0x8C00, None, 0, 0),
        ("interrupt_gate", INTGATE, None, None, 0, 0),
    ):  # fmt: skip
        p.check(
            f"lar_{name}", f"mov eax, {selector}\nmov ebx, 0x77\nlar ebx, eax", flags=(zf if rights is not None else 0, zf),
            bx=(rights if rights is not None else 0x77, 0xF0FF00 | 0xFF),
        )  # fmt: skip
        p.check(
            f"lsl_{name}", f"mov eax, {selector}\nmov ebx, 0x77\nlsl ebx, eax", flags=(zf if limit is not None else 0, zf),
            bx=limit if limit is not None else 0x77,
        )  # fmt: skip
        p.check(f"verr_{name}", f"mov eax, {selector}\nverr ax", flags=(zf if readable else 0, zf))
        p.check(f"verw_{name}", f"mov eax, {selector}\nverw ax", flags=(zf if writable else 0, zf))
    p.check("arpl_raises", "mov eax, 0x10\nmov ebx, 3\narpl ax, bx", ax=0x13, flags=(zf, zf))
    p.check("arpl_keeps", "mov eax, 0x12\nmov ebx, 1\narpl ax, bx", ax=0x12, flags=(0, zf))
    # ---- descriptor tables
    p.check(
        "sgdt", f"sgdt [{s}]\nmovzx eax, word ptr [{s}]\nmov ebx, [{s + 2}]\nmovzx ecx, word ptr [{s + 6}]", ax=511,
        bx="gdt", cx=0x5A5A,
    )  # fmt: skip
    p.check("sidt", f".byte 0x0f, 0x01, 0x0d\n.long {s}\nmovzx eax, word ptr [{s}]", ax=2047)
    p.check("lgdt_register", "lgdt_r: .byte 0x0f, 0x01, 0xd0 + 4\n", vector=UD, ip="lgdt_r")
    p.user("lgdt_user", f"lgdt_u: .byte 0x0f, 0x01, 0x15\n.long {s}", vector=GP, error=0, ip="lgdt_u")
    # ---- the LDT
    p.asm(f"mov dword ptr [{s + 0x8000}], {descriptor(s, 0xFFF, 0x92, 4) & 0xFFFFFFFF:#x}\n")
    p.asm(f"mov dword ptr [{s + 0x8004}], {descriptor(s, 0xFFF, 0x92, 4) >> 32:#x}\n")
    p.check(
        "lldt", f"mov eax, {LDT_SEL}\nlldt ax\nmov eax, 4\nmov es, eax\nmov ebx, es:[0x10]\nsldt eax", bx=0x5A5A5A5A
    )
    p.check("ldt_beyond", "mov eax, 0x14\nldt_b: mov es, eax", vector=GP, error=0x14, ip="ldt_b")
    p.check("ldt_last", "mov eax, 0x0c\nldt_c: mov es, eax", vector=NP, error=0x0C, ip="ldt_c")
    for name, selector, vector, error in (
        ("data", DATA0, GP, DATA0), ("ldt_bit", LDT_SEL | 4, GP, LDT_SEL | 4), ("beyond", 0x200, GP, 0x200),
    ):  # fmt: skip
        p.check(
            f"lldt_{name}", f"mov eax, {selector}\nlldt_{name}: lldt ax", vector=vector, error=error, ip=f"lldt_{name}"
        )
    p.check("lldt_null", "xor eax, eax\nlldt ax\nmov eax, 4\nldt_d: mov es, eax", vector=GP, error=4, ip="ldt_d")
    p.user("lldt_user", "xor eax, eax\nlldt_u: lldt ax", vector=GP, error=0, ip="lldt_u")
    p.user("sldt_user", "sldt ax")
    # ---- MOV SS holds off interrupts and the debug trap for one instruction; checked with real faults elsewhere
    return p
