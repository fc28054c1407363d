"""What every instruction does, once for all back ends: one module a family, each function under its table rows."""

from __future__ import annotations

import importlib

# The order in which the rows register, and so the numbers of the forms.
FAMILIES = (
    "alu", "move", "shift", "muldiv", "bits", "stack", "control", "string", "segment", "system",
    "bmi", "sse", "sse2", "ssse3", "sse41", "sse42", "avx", "fma", "gather", "avx512_float", "aes", "gfni", "sha",
    "opmask", "permute", "compress", "avx512_compare", "avx512_integer", "avx512_convert", "mmx", "x87",
)  # fmt: skip


def load() -> None:
    """Import all families, so that pyemu.cpu.ops.ROWS is complete."""
    for family in FAMILIES:
        importlib.import_module(f"{__name__}.{family}")
