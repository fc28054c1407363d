"""The opcode maps, position by position: what the host's processor knows and pyemu doesn't, or the other way round.

A position that pyemu lacks needs a reason here: a feature that no model announces. capstone only gives the names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import capstone
import pytest

from tests.differential.host import Host
from tests.differential.opcode_maps import Position, legacy, usable, verdicts, vex
from tests.differential.subject import Subject

# The host knows it and pyemu doesn't. By capstone's mnemonic, "" where it has none.
LACKED: dict[str, str] = {
    r"extrq|insertq|movnts[sd]": "SSE4a, AMD's own: no model announces it",
    r"gf2p8.*|vgf2p8.*": "GFNI: no model announces it",
    r"xsaves.*|xrstors.*": "supervisor states: no model announces XSAVES",
    r"vaes.*|vpclmulqdq": "VAES and VPCLMULQDQ beyond 128 bits: no model announces them",
    r"vp(comp|expand)[bw]|vpsh[lr]d.*": "AVX512_VBMI2: no model announces it",
    r"vcvtne.*|vdpbf16ps": "AVX512_BF16: no model announces it",
}
# Features that are on their way: pyemu doesn't announce them yet.
COMING: dict[str, str] = {
    r"sha.*|aes.*|pclmulqdq|ad[co]x|rdrand|rdseed|rdpid|clwb|clflushopt": "docs/roadmap.md",
    r"v.*|k.*|andn|bextr|bls.*|bzhi|mulx|pdep|pext|rorx|sarx|shlx|shrx|[lt]zcnt|": "docs/roadmap.md",
}


@pytest.fixture
def host() -> Iterator[Host]:
    judge = Host()
    yield judge
    judge.close()


def compare(host: Host, positions: Iterator[Position], bits: int) -> tuple[dict[str, list[str]], int]:
    """Unreviewed differences by mnemonic, and how many positions the host knows."""
    asked = [position for position in positions if usable(position, bits)]
    theirs, ours = verdicts(host, asked, bits), verdicts(Subject("interp"), asked, bits)
    engine: Any = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64 if bits == 64 else capstone.CS_MODE_32)
    wrong: dict[str, list[str]] = {}
    for position, they, we in zip(asked, theirs, ours, strict=True):
        if they == we:
            continue
        instruction = next(engine.disasm_lite(position.code, 0, 1), None)
        name = str(instruction[2]) if instruction else ""
        reviewed = {**LACKED, **COMING} if they else {}
        if not any(re.fullmatch(pattern, name) for pattern in reviewed):
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
    """What is accepted must exist."""
    wrong, known = compare(host, vex(space), 64)
    assert not wrong, "\n".join(f"{name}: {where[:6]}" for name, where in wrong.items())
    assert known > 1000
