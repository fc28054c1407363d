"""A boot sector that goes from real mode, in a code segment of its own, straight to 64-bit mode, and counts there."""

from __future__ import annotations

import keystone

REAL = 0x7C10  # linear; the segment is 07C0
LONG = 0x7D00
GDT = 0x7D80
LAST_REAL = "66ea" + LONG.to_bytes(4, "little").hex() + "0800"  # jmp 8:LONG
REAL_CODE = f"""
    xor ax, ax; mov ds, ax; mov ss, ax; mov sp, 0x7000
    mov dword ptr [0x1000], 0x2003; mov dword ptr [0x2000], 0x3003; mov dword ptr [0x3000], 0x83
    mov eax, 0xa0; mov cr4, eax; mov eax, 0x1000; mov cr3, eax
    mov ecx, 0xc0000080; rdmsr; or eax, 0x100; wrmsr
    lgdt [{GDT + 16:#x}]
    mov eax, cr0; or eax, 0x80000001; mov cr0, eax
"""
LONG_CODE = """
    mov rax, 0x1122334455667788; mov r8, rax; mov rsp, 0x7000
    mov rbx, 1; mov rcx, 0x600
again:
    mov [rcx], rbx; inc rbx; call 0x7d70; jmp again
"""
FUNCTION = "inc rdx; ret"  # at 7D70


def _assemble(text: str, bits: int, address: int) -> bytes:
    mode = {16: keystone.KS_MODE_16, 64: keystone.KS_MODE_64}[bits]
    code, _ = keystone.Ks(keystone.KS_ARCH_X86, mode).asm(text.replace("\n", ";"), address)
    return bytes(code or ())


def sector() -> bytes:
    """512 bytes for 7C00."""
    image = bytearray(510)
    pieces = {
        0x7C00: bytes.fromhex("fa ea 1000 c007"),  # cli; jmp 07c0:0010
        REAL: _assemble(REAL_CODE, 16, REAL - 0x7C00) + bytes.fromhex(LAST_REAL),
        LONG: _assemble(LONG_CODE, 64, LONG),
        0x7D70: _assemble(FUNCTION, 64, 0x7D70),
        GDT: bytes(8) + (0x00209A0000000000).to_bytes(8, "little") + b"\x0f\0" + GDT.to_bytes(4, "little"),
    }
    for address, data in pieces.items():
        image[address - 0x7C00 : address - 0x7C00 + len(data)] = data
    return bytes(image) + b"\x55\xaa"
