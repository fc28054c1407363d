"""The opcode maps, position by position: what the host's processor knows and pyemu doesn't, or the other way round.

A position that pyemu lacks needs a reason here: a feature that no model announces. capstone only gives the names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import capstone
import pytest

from tests.differential.host import Host, executes
from tests.differential.opcode_maps import Position, legacy, prefixed, usable, verdicts, vex
from tests.differential.subject import Subject

SEED = int(os.environ.get("PYEMU_SEED", "1"))
COUNT = 5000
# The host knows it and pyemu doesn't. By capstone's mnemonic.
LACKED: dict[str, str] = {
    r"extrq|insertq|movnts[sd]": "SSE4a, AMD's own: not implemented",
}
_BF16 = {(2, 0x52), (2, 0x72)}  # VDPBF16PS, VCVTNEPS2BF16 and VCVTNE2PS2BF16; capstone 5 doesn't know them


def reviewed_vector(space: str, payload: bytes, host_knows: bool) -> str:
    """Why only one of host and pyemu accepts this, from the bytes after C4 or 62; "" if there is no reason."""
    opcode_map, last = payload[0] & 7, payload[1] if space == "VEX" else payload[2]
    opcode, modrm = payload[2:4] if space == "VEX" else payload[3:5]
    if not host_knows:
        moves = space == "VEX" and (opcode_map, opcode) in ((3, 0x16), (3, 0x22)) and last & 0x80
        return "outside 64-bit mode VPEXTRQ and VPINSRQ are VPEXTRD and VPINSRD (SDM 2), not on Zen 4" if moves else ""
    if space == "VEX":
        permute = (opcode_map, opcode) in ((3, 0x00), (3, 0x01)) and last & 0x84 == 4
        return "Zen 4 ignores W in VPERMQ and VPERMPD, where both manuals want 1" if permute else ""
    if (opcode_map, opcode) in _BF16:
        return "AVX512_BF16: not implemented"
    if modrm >= 0xC0 and last & 0x10:
        return "Zen 4 ignores EVEX.b between registers where memory could be repeated; #UD in SDM 2, 2.7.11"
    if last & 0x87 == 0x80:
        return "Zen 4 ignores EVEX.z without a mask where none is allowed; #UD in SDM 2, 2.7.11"
    return ""


def compare(host: Host, positions: Iterator[Position], bits: int) -> tuple[dict[str, list[str]], int]:
    """Unreviewed differences by mnemonic, and how many positions the host knows."""
    asked = [position for position in positions if usable(position, bits)]
    # the interpreter would compile the handlers of rare forms
    subject = Subject("interp" if asked[0].space == "legacy" else "reference")
    theirs, ours = verdicts(host, asked, bits), verdicts(subject, asked, bits)
    engine: Any = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64 if bits == 64 else capstone.CS_MODE_32)
    wrong: dict[str, list[str]] = {}
    for position, they, we in zip(asked, theirs, ours, strict=True):
        if they == we:
            continue
        instruction = next(engine.disasm_lite(position.code, 0, 1), None)
        name = str(instruction[2]) if instruction else ""
        if position.space == "legacy":
            reviewed = they and any(re.fullmatch(pattern, name) for pattern in LACKED)
        else:
            reviewed = reviewed_vector(position.space, position.code[1:], they) != ""
        if not reviewed:
            wrong.setdefault(f"{name or '?'} ({'lacked' if they else 'too much'})", []).append(str(position))
    return wrong, sum(theirs)


@pytest.mark.parametrize("bits", [64, 32])
def test_legacy_maps(host: Host, bits: int) -> None:
    """One byte, 0F, 0F 38, 0F 3A."""
    wrong, known = compare(host, legacy(), bits)
    assert not wrong, "\n".join(f"{name}: {where[:6]}" for name, where in wrong.items())
    assert known > 10_000


@pytest.mark.parametrize("space", ["VEX", "EVEX"])
def test_vector_maps(host: Host, space: str) -> None:
    """What is accepted must exist, and the other way round."""
    wrong, known = compare(host, vex(space), 64)
    assert not wrong, "\n".join(f"{name}: {where[:6]}" for name, where in wrong.items())
    assert known > 1000 or not executes("avx" if space == "VEX" else "avx512f")


@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("space", ["VEX", "EVEX"])
def test_vector_prefixes(host: Host, space: str, bits: int) -> None:
    """Every field of the prefixes: reserved bits, lengths, masks, zeroing, broadcast and rounding, VSIB."""
    asked = list(prefixed(space, bits, COUNT, SEED))
    theirs, ours = verdicts(host, asked, bits), verdicts(Subject("reference"), asked, bits)
    wrong = [
        f"{case} ({'lacked' if they else 'too much'})"
        for case, they, we in zip(asked, theirs, ours, strict=True)
        if they != we and not reviewed_vector(space, case.payload, they)
    ]
    assert not wrong, f"seed {SEED}: {wrong[:8]}"
    assert sum(theirs) > COUNT // 10 or not executes("avx" if space == "VEX" else "avx512f")
