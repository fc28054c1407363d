"""The decoder against capstone, on random bytes: is it an instruction, and how long is it?

Where the two differ, one of the lists below says why, or the test fails. They are about capstone 5: reviewed against
the manuals and, where it can be asked, against the host's processor (test_opcode_maps.py, test_generated.py).
"""

from __future__ import annotations

import random
import re
from typing import Any

import capstone
import pytest

from pyemu.cpu.cpuid import configure
from pyemu.cpu.decode import record as rc
from pyemu.cpu.decode.decoder import decode, start_fetch
from pyemu.cpu.ops import Form
from pyemu.cpu.state import FAULT_VECTOR, NO_FAULT, RECORD, RIP
from tests.cpu.semantics.machines import CODE, Machine, forms
from tests.differential.test_generated import SEED

COUNT = 5000  # of each mode
_MODES = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}

_NP = "a prefix that the row excludes (NP in the SDM): capstone ignores it"
_FEATURE = "announced only with its feature"
_ABSENT = "no model announces it"

# We refuse what capstone accepts. By its mnemonic.
REFUSED: dict[str, str] = {
    r"mov": "CS as a destination and CR1, CR5 and so on are #UD; capstone has names for them",
    r"getsec|vm.*|inv(ept|vpid)|stgi|clgi|skinit|invlpga|v?rsm|seam.*|tdcall": "virtualisation, SMX and SMM: absent",
    r"pf.*|pi2f.|pavgusb|pmulhrw|pswapd|femms": "3DNow!, which left the processors in 2010",
    r"extrq|insertq|movnts[sd]|clzero|monitorx?|mwaitx?|rdpru|mcommit": _ABSENT,
    r"xcrypt.*|xsha.*|xstore.*|montmul|ccs.*": "VIA's PadLock",
    r"xbegin|xabort|xend|xtest|rdpkru|wrpkru|pconfig|encl.|vp2intersect.*|ptwrite": _ABSENT,
    r"(inc|dec|rd|wr|set|clr|save)ssp.*|rstorssp|setssbsy|clrssbsy|wru?ss[dq]?|endbr.*": "CET: " + _ABSENT,
    r"bnd.*|umonitor|umwait|tpause|movdir.*|enqcmds?|cldemote|wbnoinvd|serialize|xsusldtrk|xresldtrk": _ABSENT,
    r"xsetbv|xgetbv|xsave.*|xrstor.*|fx.*|ldmxcsr|stmxcsr|rd.sbase|wr.sbase|clwb|clflush.*": _NP,
    r"swapgs|clac|stac": _NP,
    r"rcpps|rsqrtps|movnti|mov[hl]+ps|emms|ps?adbw|maskmov.*|pextr.*|pinsr.*|cvt.*|lddqu": _NP,
    r"sha.*|aes.*|v?aes.*|v?pclmulqdq|ad[co]x|rdrand|rdseed|rdpid": _FEATURE,
    r"v.*|k.*|andn|bextr|bls.*|bzhi|mulx|pdep|pext|rorx|sarx|shlx|shrx": "VEX and EVEX: " + _FEATURE,
    r"bl.*|tzmsk|t1mskc|llwpcb|slwpcb|lwp.*": "XOP: " + _ABSENT,
    r"ud0|ud1": "longer than 15 bytes by the ModRM byte that capstone doesn't see",
}
# We accept what capstone refuses. By our encoding.
ACCEPTED: dict[str, str] = {
    r"0F (0D|1[89A-F]) /r": "hint space: no operation with any operand (SDM 2, NOP; AMD APM 3, NOP)",
    r"63 /r": "66 before MOVSXD: 16 bits (SDM 2, MOVSXD)",
    r"0F B[CD] /r": "F2 is ignored before BSF and BSR",
    r"D[CDF] [CD][08]\+r|DE D0\+r": "aliases of x87 instructions (AMD APM 5, appendix A)",
    r"0F 8[0-9A-F]|E[89]": "66 at a near branch in 64-bit mode, as below: there capstone lets it exclude F3",
    r"NP 0F AE /[567]": "fences ignore the rm field (SDM 2, LFENCE)",
}
ACCEPTED_16 = {r"66 .*": "in 16-bit mode capstone reads 66 as an operand size only, and loses the mandatory prefix"}
# Both accept, and the lengths differ. By our mnemonic.
LENGTHS: dict[str, str] = {
    r"ud0|ud1": "UD0 and UD1 have a ModRM byte (SDM 2, UD)",
    r"j.*|call": "66 at a near branch in 64-bit mode: Intel's processors ignore it, and so do we; AMD's take 16 bits",
}


def locked(code: bytes) -> bool:
    """LOCK: capstone knows some rows that don't allow it, and none with F2 or F3 beside it."""
    prefixes = bytes.fromhex("26 2e 36 3e 64 65 66 67 f0 f2 f3")
    return 0xF0 in code[: next(n for n in range(16) if code[n] not in prefixes)]


def _known(table: dict[str, str], text: str) -> bool:
    return any(re.fullmatch(pattern, text) for pattern in table)


def _ours(machine: Machine, code: bytes) -> tuple[int, Form | None]:
    """Length and form; 0 if the decoder refuses."""
    s, bits = machine.s, machine.bits
    machine.ram[CODE : CODE + len(code)] = code
    s[FAULT_VECTOR], s[RIP] = NO_FAULT, CODE
    assert start_fetch(s, CODE) == 0
    if decode(s, CODE, CODE, int(bits == 64), int(bits == 32)):
        return 0, None
    packed = s[RECORD + rc.PACKED]
    return packed >> rc.LENGTH & 0xFF, forms()[packed & 0xFFFF]


def _random_code(r: random.Random) -> bytes:
    """Sixteen bytes, often from the maps that are sparse."""
    start = r.choice(
        (b"", b"", b"", b"\x0f", b"\x66\x0f", b"\xf3\x0f", b"\xf2\x0f", b"\x0f\x38", b"\x66\x0f\x38", b"\x66\x0f\x3a")
    )
    if r.random() < 0.1:
        start = bytes([r.choice((0xD8, 0xD9, 0xDA, 0xDB, 0xDC, 0xDD, 0xDE, 0xDF, 0xFE, 0xFF, 0xC6, 0xC7, 0x8F))])
    if r.random() < 0.1:
        start = r.choice((b"\x66", b"\x67", b"\xf0", b"\xf2", b"\xf3", b"\x2e", b"\x64", b"\x48", b"\x4f")) + start
    return (start + r.randbytes(16))[:16]


@pytest.mark.parametrize("bits", [64, 32, 16])
def test_lengths_and_validity(bits: int) -> None:
    """Random bytes."""
    machine = Machine(bits)
    configure(machine.s)
    engine: Any = capstone.Cs(capstone.CS_ARCH_X86, _MODES[bits])
    r = random.Random(SEED + bits)
    wrong: dict[str, str] = {}
    valid = 0
    for _ in range(COUNT):
        code = _random_code(r)
        length, form = _ours(machine, code)
        theirs = next(engine.disasm_lite(code[:15], CODE, 1), None)
        valid += bool(length)
        if length == (theirs[1] if theirs else 0):
            continue
        if form is None:
            name = str(theirs[2]) if theirs else ""
            if not _known(REFUSED, name) and not locked(code):
                wrong[f"refused: {name}"] = code.hex(" ")
        elif theirs is None:
            if not _known(ACCEPTED | (ACCEPTED_16 if bits == 16 else {}), form.row.encoding):
                wrong[f"accepted: {form.row.encoding}"] = code.hex(" ")
        elif not _known(LENGTHS, form.row.name):
            wrong[f"length {length}, not {theirs[1]}: {form.row.name} {form.row.encoding}"] = code.hex(" ")
    assert not wrong, "\n".join(f"{what}: {code}" for what, code in wrong.items())
    assert valid > COUNT // 4
