"""Floating-point errors the PC/AT's way: FERR#, IRQ 13, port F0H, IGNNE#; a boot sector on every back end."""

from __future__ import annotations

from pathlib import Path

import keystone
import pytest

from pyemu.machine import Machine
from pyemu.until import SerialText

SECTOR = """
    cli; xor ax, ax; mov ds, ax; mov ss, ax; mov sp, 0x7c00
    lea bx, [handler]; mov [0x1d4], bx; mov word ptr [0x1d6], 0
    in al, 0xa1; and al, 0xdf; out 0xa1, al; in al, 0x21; and al, 0xfb; out 0x21, al
    mov eax, cr0; and al, 0xd1; mov cr0, eax
    fninit; mov word ptr [0x600], 0x37b; fldcw [0x600]; sti
    fld1; fldz; .byte 0xde, 0xf9
    mov dx, 0x3f8; mov al, 0x61; out dx, al
    fld1
    mov al, 0x62; out dx, al
    cli; fnstsw [0x606]; mov al, 0x2e; out dx, al
    hlt
handler:
    push ax; push dx
    mov dx, 0x3f8; mov al, 0x69; out dx, al
    out 0xf0, al
    fnstsw [0x602]; fldpi; fnstsw [0x604]; fnclex
    mov al, 0x20; out 0xa0, al; out 0x20, al
    pop dx; pop ax; iret
"""


@pytest.mark.parametrize("accelerator", ["reference", "interp", "jit"])
def test_interrupt_13(accelerator: str, tmp_path: Path) -> None:
    """The waiting instruction waits for the handler, in which others are executed although the error is pending."""
    code, _ = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_16).asm(SECTOR.replace("\n", ";"), 0x7C00)
    sector = tmp_path / "sector"
    sector.write_bytes(bytes(code).ljust(510, b"\0") + b"\x55\xaa")
    with Machine(kernel=str(sector), memory="16M", accelerator=accelerator) as machine:
        stop = machine.run(until=".", timeout=60)
        assert stop.condition == SerialText(".")
        assert machine.output == b"aib."
        words = [int.from_bytes(machine.memory.read(at, 2), "little") for at in (0x602, 0x604, 0x606)]
        assert words == [0xB084, 0xA884, 0x2000], [hex(word) for word in words]
