"""Random bytes as instructions, not from our operand table: what is executed, how long it is, and what it leaves.

The host's processor says. capstone is asked only where an instruction ends and what it is called: so that nothing runs
that leaves the judge's control, and for the message. PYEMU_SEED=n runs other bytes.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from typing import Any

import capstone
import pytest

from pyemu.cpu.decode import record as rc
from pyemu.cpu.ops import Form
from tests.cpu.semantics.machines import forms
from tests.differential import case as c
from tests.differential.batch import BATCH, Batch, Records
from tests.differential.case import Case
from tests.differential.generator import Generator, Instruction
from tests.differential.host import Host
from tests.differential.reviewed import HOST_CANNOT
from tests.differential.subject import Subject
from tests.differential.sweep import same

SEED = int(os.environ.get("PYEMU_SEED", "1"))
STATES = 4
# By capstone's names: system calls and branches, which leave the slot; the machine's own answers; descriptor tables.
LEAVES = re.compile(
    r"(j|call|l?call|loop|ret|iret|int|sys|hlt|rd(tsc|pmc|pid|rand|seed|pru|msr)|cpuid|xgetbv|xbegin|xabort|xend|xtest|"
    r"[sl][gi]dt|sldt|str$|smsw|lar|lsl|ver[rw]|l[defgs]s|xsave|xrstor|fxrstor|vm|monitor|mwait|clzero|rdpkru|wrpkru|"
    r"rdssp|incssp|endbr|tpause|umwait|umonitor|serialize|enqcmd|movdir|ptwrite|skinit|clgi|stgi|invlpga|into|bound)"
)
SEGMENT = re.compile(r"\b[cdefgs]s\b(?!:)")
# Likewise, where capstone doesn't know what the bytes are.
DANGEROUS = (b"\x0f\x05", b"\x0f\x34", b"\xcd", b"\x0f\x01", b"\xca", b"\xcb", b"\xcf", b"\x0f\x07", b"\x0f\x35")
# What the host's processor knows and no model of pyemu's has, by capstone's names, or nothing where it has none.
LACKED = r"extrq|insertq|movnts[sd]|vcvtne.*|vdpbf16ps|rdsspd|nop|"


def known(code: bytes, bits: int) -> tuple[str, str, int]:
    """Mnemonic, operands and length, as capstone sees them."""
    engine: Any = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64 if bits == 64 else capstone.CS_MODE_32)
    for _, size, mnemonic, operands in engine.disasm_lite(code, 0, 1):
        return mnemonic, operands, size
    return "", "", 0


def usable(r: random.Random, bits: int) -> bytes:
    """Random bytes that the host may execute: one instruction, or what is none as far as anyone knows."""
    while True:
        code = r.randbytes(r.choice((2, 3, 4, 6, 8, 12, 15)))
        if r.random() < 0.3:
            code = r.choice((b"\x0f", b"\x66\x0f", b"\xf2\x0f", b"\xf3\x0f", b"\x0f\x38", b"\x62", b"\xc5")) + code
        code = code.ljust(15, bytes([c.FILL]))[:15]  # as it will lie in its slot
        mnemonic, operands, size = known(code, bits)
        plain = mnemonic.split()[-1] if mnemonic else ""
        if not mnemonic:
            if any(part in code for part in DANGEROUS):
                continue
            return code
        if LEAVES.match(plain) or SEGMENT.search(operands) or plain in HOST_CANNOT:
            continue
        return code[:size]


class Raw:
    """The judges, and batches of such bytes."""

    def __init__(self, host: Host, seed: int) -> None:
        self.host, self.random, self.generator = host, random.Random(seed), Generator(seed)
        self.subjects = {name: Subject(name) for name in ("interp", "jit", "reference")}
        self.given, self.first = Records(), forms()[0]

    def batch(self, bits: int) -> Batch:
        codes = [usable(self.random, bits) for _ in range(BATCH // STATES)]
        instructions = [Instruction(code, self.first, bits, ()) for code in codes]
        rips = [c.CODE + c.SLOT * slot for slot in range(len(codes))]
        self.generator.states(instructions, rips, STATES, self.given)
        return Batch(list(enumerate(codes)), bits, self.given, len(codes) * STATES, STATES)

    def form(self, case: Case) -> Form | None:
        """What pyemu takes it for."""
        reference = self.subjects["reference"]
        reference.run([case])
        assert reference.reference is not None
        for (_, rip, _), (_, words) in reference.reference.known.items():
            if rip == case.rip:
                return forms()[words[rc.PACKED] & 0xFFFF]
        return None

    def wrong(self, name: str, batch: Batch, expected: list[bytes]) -> Iterator[str]:
        """What a back end does otherwise than the host."""
        subject = self.subjects[name]
        if name == "reference":  # a few, as it is slow
            cases = [batch.case(n) for n in range(0, batch.count, 32)]
            pairs = list(zip(cases, subject.run(cases), expected[::32], strict=True))
        else:
            results = subject.run_batch(batch)
            found = [results.row(n) for n in range(batch.count)]
            pairs = [(batch.case(n), found[n], expected[n]) for n in range(batch.count) if found[n] != expected[n]]
        for case, ours, theirs in pairs:
            form = self.form(case)
            if same(form or self.first, ours, theirs):
                continue
            mnemonic, operands, _ = known(case.code, case.bits)
            if form is None and re.fullmatch(LACKED, mnemonic.split()[-1] if mnemonic else ""):
                continue
            differences = "; ".join(c.describe(ours, theirs)[:4])
            yield f"{name}, {case.bits} bits: {case.code.hex(' ')} ({mnemonic} {operands}): {differences}"


def sweep(host: Host, bits: int, batches: int) -> None:
    raw = Raw(host, SEED)
    found: list[str] = []
    for _ in range(batches):
        batch = raw.batch(bits)
        results = host.run_batch(batch)
        expected = [results.row(n) for n in range(batch.count)]
        for name in raw.subjects:
            found += raw.wrong(name, batch, expected)
    assert not found, f"{len(found)}:\n" + "\n".join(found[:20])


@pytest.mark.parametrize("bits", [64, 32])
def test_random_bytes(host: Host, bits: int) -> None:
    """Two thousand strings, four states each, through all three back ends."""
    sweep(host, bits, 4)


@pytest.mark.long
@pytest.mark.parametrize("bits", [64, 32])
def test_many_random_bytes(host: Host, bits: int) -> None:
    sweep(host, bits, 400)
