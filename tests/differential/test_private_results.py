"""RDRAND, RDSEED and RDPID against the host's processor, as far as their results are not the machine's own secret.

Of random numbers all but the bits themselves is compared: flags, which part of the register is written, that the rest
is zeroed or kept, faults. pyemu's bits are those that its machine gives. RDPID's result is compared too: pyemu's
TSC_AUX is what Linux has put into that of the processor to which the judge is bound.
"""

from __future__ import annotations

import ctypes
import os
import random
from collections.abc import Iterator

import pytest

from pyemu.cpu import flags as fl
from pyemu.cpu.ops import Form
from tests.cpu.semantics.machines import NoDevices, forms
from tests.differential import case as c
from tests.differential.case import Case
from tests.differential.host import Host, executes
from tests.differential.subject import Subject
from tests.differential.sweep import Sweep, disassembly, same
from tests.differential.test_generated import SEED

RANDOM, PROCESSOR = ("rdrand", "rdseed"), ("rdpid",)
BACKENDS = {"interp": 40, "jit": 40, "reference": 8}  # instructions of each form, each with two states
NODE_SHIFT = 12  # of the node in TSC_AUX (Linux, arch/x86/include/asm/segment.h)


def chosen(names: tuple[str, ...]) -> list[Form]:
    """Their forms."""
    return [form for form in forms() if form.row.name in names and executes(form.feature)]


class Noise(NoDevices):
    """A machine that has random numbers, and knows which it has given."""

    def __init__(self) -> None:
        self.source, self.given = random.Random(SEED), list[bytes]()

    def random_bits(self) -> int:
        number = self.source.getrandbits(64)
        self.given.append(number.to_bytes(8, "little"))
        return number


@pytest.fixture
def bound(host: Host) -> Iterator[tuple[Host, int]]:
    """The host's processor, one of them, and its TSC_AUX."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    cpu, node = ctypes.c_uint(), ctypes.c_uint()
    assert ctypes.CDLL(None).getcpu(ctypes.byref(cpu), ctypes.byref(node)) == 0
    yield host, node.value << NODE_SHIFT | cpu.value
    os.sched_setaffinity(0, before)


def split(result: bytes, case: Case, size: int) -> tuple[bytes, bytes]:
    """The number that a case has left in its register, and the result without it. The register is that of ModRM, the
    last byte, and of a REX prefix before 0F C7."""
    rex_b = case.bits == 64 and len(case.code) > 3 and case.code[-4] & 0xF1 == 0x41
    at = 8 * (case.code[-1] & 7 | 8 * rex_b)
    return result[at : at + size], result[:at] + bytes(size) + result[at + size :]


@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("backend", BACKENDS)
def test_random_numbers(bound: tuple[Host, int], backend: str, bits: int) -> None:
    host, noise = bound[0], Noise()
    subject = Subject(backend, machine=noise)
    sizes: set[int] = set()
    wrong: list[str] = []
    for form in chosen(RANDOM):
        for todo, batch in Sweep(host, "host", {}, SEED).batches([form], bits, BACKENDS[backend], 2):
            expected, found = host.run_batch(batch), subject.run_batch(batch)
            for n in range(batch.count):
                case, theirs, ours = batch.case(n), expected.row(n), found.row(n)
                executed = c.word(theirs, c.R_VECTOR) in (1, c.BREAKPOINT)
                if executed and not c.word(theirs, c.R_FLAGS) & fl.CF:
                    continue  # the host had no number
                if executed:
                    sizes.add(form.size)
                    number, ours = split(ours, case, form.size)
                    _, theirs = split(theirs, case, form.size)
                    assert number in {given[: form.size] for given in noise.given}
                if not same(todo[0], ours, theirs):
                    text = f"{disassembly(case.code, bits, case.rip)} ({case.code.hex(' ')}), seed {SEED}"
                    wrong.append("\n  ".join([text, *c.describe(ours, theirs)]))
    assert not wrong, "\n".join(wrong[:8])
    assert sizes == ({2, 4, 8} if bits == 64 else {2, 4})


@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("backend", BACKENDS)
def test_number_of_the_processor(bound: tuple[Host, int], backend: str, bits: int) -> None:
    host, tsc_aux = bound
    sweep = Sweep(host, "host", {backend: Subject(backend, tsc_aux=tsc_aux)}, SEED)
    wrong = [str(difference) for difference in sweep.run(chosen(PROCESSOR), bits, BACKENDS[backend], 2)]
    assert not wrong, "\n".join(wrong[:8])
    assert sweep.cases == 2 * BACKENDS[backend]
