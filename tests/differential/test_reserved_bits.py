"""Every bit of every control, debug and model-specific register: taken, ignored or refused, as the manuals say and as
KVM has it, where /dev/kvm can be opened. MSRs of other numbers are #GP(0).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest

from tests.cpu.semantics.machines import forms
from tests.differential import kvm
from tests.differential.reserved_bits import NONE, Cases, Outcome, Probe, known_msrs, outcome, probes, unknown
from tests.differential.system_cases import SystemSubject
from tests.differential.test_generated import SEED
from tests.differential.test_system_instructions import Kvm
from tests.differential.test_system_instructions import outcome as run
from tests.guests.topics.program import DB, GP

ALL = (1 << 64) - 1
M32 = (1 << 32) - 1
ADDRESS = (1 << 47) - 1  # one bit of 47 to 63 alone makes an address that isn't canonical
PHYSICAL = ((1 << 40) - 1) & ~0xFFF
BYTES = 0x0101010101010101
# The bits that can be changed one by one, and those that are ignored; all others are #GP(0).
EXPECTED: dict[str, tuple[int, int]] = {
    "msr 17|msr fe|msr 179|msr [01]|msr 1d[bcde]": (0, 0),  # read-only
    "msr 4[012][159d]|msr 17a": (0, 0),  # status can only be cleared: SDM 3, 15.3
    "msr 4[012][2367abef]": (ALL, 0),  # address and further information
    "msr 4[012][048c]|msr 17b": (0, 0),  # IA32_MCi_CTL as KVM has it, IA32_MCG_CTL: nothing but 0 and all ones
    "msr 8b": (0, ALL),  # SDM 3, 10.11.7.1: written with 0 before CPUID puts the microcode's revision there
    "msr 3b": (ALL, 0),
    "msr 174": (M32, 0), "msr 17[56]": (ADDRESS, 0),
    "msr 1a0": (0x4_00C5_1889, 0),  # SDM 4, table 2-2
    "msr 1d9": (3, 0),  # LBR, BTF
    "msr 20[02468ace]": (PHYSICAL | 5, 0), "msr 20[13579bdf]": (PHYSICAL | 1 << 11, 0),  # SDM 3, 12.11.2.3
    "msr 25[089]|msr 26[89a-f]": (5 * BYTES, 0),
    "msr 6e1": (M32, 0),
    "msr 277": (0x0503_0703_0503_0703, 0),  # with the types of its reset value, 12.12.4
    "msr 2ff": (0xC05, 0),
    "msr c0000080": (0x801, 0x400),  # SCE, NXE; LMA is read-only, LME can't change while paging is on
    "msr c0000081": (ALL, 0), "msr c000008[23]|msr c000010[012]": (ADDRESS, 0), "msr c0000084|msr c0000103": (M32, 0),
    "msr c001001[05ad]|msr c001102[0239]": (ALL, 0),  # AMD's, of family 0Fh
    "msr c001001[6789]|msr c0010055|msr c001000[0-7]": (0, ALL),
    "cr0 64-bit": (0x6005_002E & ~(1 << 29), 0x1FFA_FFD0),  # SDM 3, 2.5: NW needs CD, WP AM NE TS EM MP
    "cr0 protected": (0x4005_002E | 1, 0x1FFA_FFD0),  # PE: until the next far transfer nothing else changes
    "cr3 64-bit|cr3 protected": (0xFFF, 0),
    "cr4 64-bit": (0x167_0FDF, 0),  # PAE and LA57 can't change in long mode
    "cr4 protected": (0x175_0FFF, 0),  # PCIDE can't be set outside of it
    "dr6 64-bit|dr6 protected": (0xE00F, 0xFFFF_1FF0),
    "dr7 64-bit|dr7 protected": (0xFFFF_03FF, 0xDC00),
}  # fmt: skip
HIGH = ALL & ~M32
# What KVM is known to do differently: register, bits, reason.
TOLERATED = (
    ("cr[04] 64-bit", HIGH, "KVM's emulator cuts values to 32 bits; SDM 2, MOV: #GP(0), and so does Bochs"),
    ("cr4 64-bit", 1 << 17, "PCIDs are announced by pyemu, not by every KVM"),
    ("cr4 .*", 1 << 24, "protection keys of supervisor pages are announced by pyemu, not by every KVM"),
    ("msr 6e1", ALL, "likewise"),
    ("dr7 .*", 1 << 11, "bit 11 (RTM) belongs to a feature that pyemu doesn't announce"),
    ("xcr0 64-bit", ALL, "KVM's emulator has no XGETBV"),
    ("msr (174|c0000084)", HIGH, "SDM 4: 32 bits; AMD's processors keep 64"),
    ("msr 17[56]", ALL & ~ADDRESS, "SDM 2, WRMSR: not canonical is #GP(0); KVM extends the sign for AMD's processors"),
    ("msr 1a0", ALL, "KVM takes everything; reserved bits are those of SDM 4, table 2-2"),
    ("msr 1d9", ALL, "KVM for AMD's processors ignores it without LBR virtualization; SDM 4: reserved bits are #GP"),
    ("msr 20.", 0xF_FF00_0000_0000, "the width of physical addresses"),
    ("msr 277", ALL, "memory types are checked by SDM 3, 12.12.2, and by Bochs (topic control); not by every KVM"),
    ("msr c0000103", ALL, "RDTSCP is announced by pyemu, not by every KVM"),
    ("msr c001....", ALL, "pyemu's own models are AMD's family 0Fh, KVM's are the host's"),
    ("msr c001001[bf]|msr c001102a", ALL, "of AMD's later families"),
    ("msr 17a", ALL, "KVM has injected machine checks; SDM 3, 15.3.1.2: the global status can only be cleared"),
    ("msr 42[89a-f]|msr 4[3-7].", ALL, "KVM may have more banks"),
    ("msr 17b", ALL, "IA32_MCG_CTL is not in every KVM's IA32_MCG_CAP"),
)  # fmt: skip


@pytest.fixture(scope="module")
def cases() -> Cases:
    return Cases()


def observe(cases: Cases, subject: SystemSubject | Kvm, probe: Probe) -> Outcome | None:
    """What a judge makes of a probe; None if it doesn't come to an end."""
    case = cases.case(probe, next(iter(forms())))
    ended = subject.outcome(case) if isinstance(subject, Kvm) else run(subject, case)
    return outcome(probe, ended[1], ended[0]) if ended else None


def key(probe: Probe) -> str:
    """A register as the lists name it."""
    return probe.register if probe.register.startswith("msr") else f"{probe.register} {probe.world}"


def expected(probe: Probe) -> Outcome:
    """By the manuals."""
    if probe.register == "xcr0":  # SDM 1, 13.3, from 1: SSE and AVX, the three of AVX-512 together and with AVX, PKRU
        value = 1 ^ probe.bits
        vectors = value & 0xE6 in (0, 2, 6, 0xE6)
        return Outcome(2, NONE, probe.bits) if value & 1 and not value & ~0x2E7 and vectors else Outcome(1, GP, 0)
    taken, ignored = next(masks for names, masks in EXPECTED.items() if re.fullmatch(names, key(probe)))
    if probe == Probe("cr0", 3 << 29):  # NW and CD
        taken |= 1 << 29
    if probe.register == "dr7" and probe.bits == 1 << 13:
        return Outcome(2, DB, 0)  # GD: the next access is refused
    if probe.bits & taken == probe.bits:
        return Outcome(2, NONE, probe.bits)
    return Outcome(2, NONE, 0) if probe.bits & ignored == probe.bits else Outcome(1, GP, 0)


def wrong(cases: Cases, subject: SystemSubject, chosen: Iterable[Probe]) -> list[str]:
    """The probes that came to something else, in words."""
    pairs = ((probe, observe(cases, subject, probe), expected(probe)) for probe in chosen)
    return [f"{probe}: {got}, expected: {wanted}" for probe, got, wanted in pairs if got != wanted]


def test_every_bit_is_as_the_manual_says(cases: Cases) -> None:
    assert not wrong(cases, SystemSubject("interp"), probes())


@pytest.mark.parametrize("backend", ["jit", "reference"])
def test_back_ends_agree(cases: Cases, backend: str) -> None:
    """The MSRs are one Python function for all of them."""
    chosen = [probe for probe in probes() if not probe.register.startswith("msr")]
    assert not wrong(cases, SystemSubject(backend), chosen)


def test_unknown_registers_are_refused(cases: Cases) -> None:
    subject = SystemSubject("interp")
    assert not [str(probe) for probe in unknown(SEED) if observe(cases, subject, probe) != Outcome(0, GP, 0)]


def tolerated(probe: Probe) -> bool:
    """Is it a known difference?"""
    return any(re.fullmatch(name, key(probe)) and probe.bits & ~bits == 0 for name, bits, _ in TOLERATED)


if kvm.available():

    def test_kvm_has_it_so(cases: Cases) -> None:
        subject, judge = SystemSubject("interp"), Kvm()
        different, judged = [], 0
        for probe in (*probes(), *unknown(SEED)):
            ours, theirs = observe(cases, subject, probe), observe(cases, judge, probe)
            judged += theirs is not None
            if theirs is not None and ours != theirs and not tolerated(probe):
                different.append(f"{probe}: {ours}, KVM: {theirs}")
        assert not different
        assert judged > 4000


def test_every_register_is_in_the_list() -> None:
    """No entry without a register."""
    keys = {key(probe) for probe in probes()}
    assert not [names for names in EXPECTED if not any(re.fullmatch(names, name) for name in keys)]
    assert len(known_msrs()) > 60
