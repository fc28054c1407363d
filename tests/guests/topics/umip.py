"""UMIP (SDM 3, 2.5): SGDT, SIDT, SLDT, STR and SMSW are #GP(0) at CPL 3 while CR4.UMIP is set, and work at CPL 0."""

from __future__ import annotations

from tests.guests.topics.program import GP, PF, SCRATCH, UD, Program

CODES = {
    "sgdt": f"sgdt [{SCRATCH}]", "sidt": f"sidt [{SCRATCH}]", "sldt": ".byte 0x0f, 0x00, 0xc0", "str": ".byte 0x0f, 0x00, 0xc8",
    "smsw": ".byte 0x0f, 0x01, 0xe0", "sldt_memory": "mov ebx, 0x230000\n{}.byte 0x0f, 0x00, 0x03",
    "str_memory": "mov ebx, 0x230000\n{}.byte 0x0f, 0x00, 0x0b", "smsw_memory": "mov ebx, 0x230000\n{}.byte 0x0f, 0x01, 0x23",
    "sgdt_unmapped": "mov rbx, 0x4000000000\n{}.byte 0x0f, 0x01, 0x03",
}  # fmt: skip


def program() -> Program:
    p = Program("umip", 64)
    p.check("cpuid", "mov eax, 7\nxor ecx, ecx\ncpuid", cx=(4, 4))
    for on in (0, 1):
        p.check(
            f"cr4_{on}",
            f"mov rax, cr4\nand eax, 0xfffff7ff\nor eax, {on << 11}\nmov cr4, rax\nmov rbx, cr4",
            bx=(on << 11, 1 << 11),
        )
        for name, code in CODES.items():
            label = f"umip_{name}_{on}"
            text = code.format(f"{label}: ") if "{}" in code else f"{label}: {code}"
            unmapped = name.endswith("unmapped")
            if on:
                p.user(f"{name}_user", text, vector=GP, error=0, ip=label)
            elif unmapped:
                p.user(f"{name}_user_off", text, vector=PF, error=6, ip=label)
            else:
                p.user(f"{name}_user_off", text)
            if unmapped:
                p.check(f"{name}_{on}", text.replace(label, label + "k"), vector=PF, error=2, ip=label + "k")
            else:
                p.check(f"{name}_{on}", text.replace(label, label + "k"))
    p.user("lgdt_user", f"umip_lgdt: lgdt [{SCRATCH}]", vector=GP, error=0, ip="umip_lgdt")
    p.user("lock", "umip_lock: .byte 0xf0, 0x0f, 0x00, 0xc0", vector=UD, ip="umip_lock")
    return p
