"""Guests that misbehave, assembled when a test needs them: `build(name)` gives a multiboot image for -kernel.

Each announces itself on the serial port with "hostile NAME" and then goes on for ever.
"""

from __future__ import annotations

import functools
from pathlib import Path

import keystone

HOSTILE = ("garbage", "mmio_jump", "self_mapped", "device_flood", "cli_loop")
OTHERS = ("remapped_code",)
BASE = 0x100000
TSS = 0x187000
CONSTANTS = {
    "PML4": 0x180000,
    "PDPT": 0x181000,
    "PD": 0x182000,  # four pages
    "IDT": 0x186000,
    "TSS": TSS,
    "PT": 0x188000,
    "STACK": 0x1A0000,
    "WINDOW": 0x400000,  # virtual: what PT maps in hostile_self_mapped
    "TSS_DESCRIPTOR": 0x67 | (TSS & 0xFF_FFFF) << 16 | 0x89 << 40 | TSS >> 24 << 56,
}


def _text(name: str) -> str:
    lines = Path(__file__).with_name(f"{name}.asm").read_text(encoding="utf-8").splitlines()
    return "\n".join(line.split("#", 1)[0] for line in lines)


@functools.cache
def build(name: str) -> bytes:
    """The image of one of the `HOSTILE` guests, or of one of the `OTHERS`."""
    if name not in (*HOSTILE, *OTHERS):
        raise ValueError(f"no guest is called {name}")
    announcement = f"{'hostile ' if name in HOSTILE else ''}{name}"
    return assemble(_text(f"hostile_{name}" if name in HOSTILE else name), announcement)


def assemble(program: str, announcement: str) -> bytes:
    """A guest in 64-bit mode from its `main` and `next_round` on; the rest is long_mode.asm."""
    text = "\n".join(
        [
            *(f".set {constant}, {value:#x}" for constant, value in CONSTANTS.items()),
            _text("long_mode"),
            program,
            f'announcement:\n.asciz "{announcement}\\r\\n"',
            "image_end:\n",
        ]
    )
    code, _ = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64).asm(text, BASE, as_bytes=True)
    assert code is not None
    return bytes(code)
