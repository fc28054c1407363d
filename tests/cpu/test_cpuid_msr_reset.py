"""CPUID leaves, model-specific registers, and the state after RESET and INIT."""

from __future__ import annotations

import pytest

from pyemu.cpu import cpuid, features, mode, models, msr, reset, tlb
from pyemu.cpu.faults import GP
from pyemu.cpu.flags import eflags
from pyemu.cpu.ops import build_table
from pyemu.cpu.state import (
    APIC_ID,
    CPU_COUNT,
    CR0,
    CR4,
    CS,
    EFER,
    FAULT_VECTOR,
    FCW,
    FS,
    GPR,
    ICOUNT,
    KERNEL_GS_BASE,
    MODE,
    MXCSR,
    NO_FAULT,
    PAT,
    R8,
    RAX,
    RBX,
    RCX,
    RDX,
    RIP,
    SEG_BASE,
    SEG_SEL,
    STAR,
    TR_ATTR,
    TSC_OFFSET,
    XCR0,
    State,
)
from tests.cpu import system_setup as setup
from tests.cpu.fake_host import FakeHost

M64 = 2**64 - 1


def machine(model: str = "max") -> setup.Machine:
    m = setup.long()
    m.s.host = FakeHost()
    cpuid.configure(m.s, models.model(model))
    return m


def run_cpuid(s: State, leaf: int, subleaf: int = 0) -> tuple[int, int, int, int]:
    s[GPR + RAX], s[GPR + RCX] = 0xAAAAAAAA00000000 | leaf, 0xAAAAAAAA00000000 | subleaf
    assert cpuid.cpuid(s) == 0
    return s[GPR + RAX], s[GPR + RBX], s[GPR + RCX], s[GPR + RDX]


def names(*words: int) -> bytes:
    return b"".join(word.to_bytes(4, "little") for word in words)


# ---- CPUID ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("model", [m.name for m in models.MODELS])
def test_announced_bits_are_exactly_the_features(model: str) -> None:
    s = machine(model).s
    expected = features.closed(models.model(model).features & features.IMPLEMENTED)
    found = set()
    extended = bool(models.model(model).brand)
    for name, (leaf, subleaf, register, bit) in features.FEATURES.items():
        if run_cpuid(s, leaf, subleaf)[register] >> bit & 1:
            found.add(name)
    assert found == {n for n in expected if extended or features.FEATURES[n][0] < 0x80000000}
    aliases = cpuid.AMD_ALIASES if models.model(model).vendor != models.INTEL else 0
    known = {(1, 2): 0, (1, 3): 0, (7, 1): 0, (7, 2): 0, (7, 3): 0, (0x80000001, 2): 0, (0x80000001, 3): aliases}
    for (leaf, register), others in known.items():
        bits = sum(1 << b for lf, _, r, b in features.FEATURES.values() if (lf, r) == (leaf, register))
        assert run_cpuid(s, leaf)[register] & ~(bits | others) == 0


def test_features_that_need_others() -> None:
    assert features.closed({"avx2", "avx", "xsave", "sse"}) == {"xsave", "sse"}
    for name, needs in features.NEEDS.items():
        assert {name, *needs} <= set(features.FEATURES)
    assert features.closed(features.IMPLEMENTED) == features.IMPLEMENTED


def test_state_components() -> None:
    """Leaf D, for a processor that announces everything."""
    s = machine().s
    cpuid.configure(s, models.model("max"), set(features.FEATURES) - {"mpx"})
    assert run_cpuid(s, 0xD) == (0x2E7, 576, 2696, 0)
    s[XCR0] = 0x2E7
    assert run_cpuid(s, 0xD)[1] == 2696
    assert run_cpuid(s, 0xD, 1)[1] == 576 + 256 + 64 + 512 + 1024 + 8
    assert run_cpuid(s, 0xD, 2) == (256, 576, 0, 0)
    assert run_cpuid(s, 0xD, 9) == (8, 2688, 0, 0)
    assert run_cpuid(s, 0xD, 3) == (0, 0, 0, 0)
    s[XCR0] = 7
    assert run_cpuid(s, 0xD)[1] == 832
    cpuid.configure(s)
    assert run_cpuid(s, 0x80000008)[0] >> 8 & 0xFF == (57 if "la57" in features.IMPLEMENTED else 48)


# Every feature that adds instructions, and one of them.
INSTRUCTIONS = {
    "fpu": "fadd", "tsc": "rdtsc", "msr": "wrmsr", "cx8": "cmpxchg8b", "sep": "sysenter", "cmov": "cmove",
    "clflush": "clflush",
    "mmx": "emms", "fxsr": "fxsave", "sse": "addps", "sse2": "addpd", "pni": "haddps", "ssse3": "pshufb",
    "cx16": "cmpxchg16b", "sse4.1": "pblendw", "sse4.2": "pcmpgtq", "movbe": "movbe", "popcnt": "popcnt",
    "xsave": "xsave", "xsaves": "xrstors",
    "fsgsbase": "rdfsbase", "invpcid": "invpcid", "xsaveopt": "xsaveopt", "xsavec": "xsavec", "lahf-lm": "lahf",
    "3dnowprefetch": "prefetchw", "syscall": "syscall", "rdtscp": "rdtscp", "smap": "stac",
    "abm": "lzcnt", "adx": "adox", "clflushopt": "clflushopt", "clwb": "clwb", "rdpid": "rdpid", "rdrand": "rdrand",
    "monitor": "mwait", "rdseed": "rdseed", "pku": "wrpkru", "bmi1": "andn", "bmi2": "pext",
    "aes": "aesenc", "pclmulqdq": "pclmulqdq", "sha-ni": "sha256rnds2", "gfni": "gf2p8mulb",
    "avx": "vaddps", "avx2": "vpermd", "fma": "vfmadd132ps", "f16c": "vcvtph2ps", "vaes": "vaesenc",
    "vpclmulqdq": "vpclmulqdq", "avx512f": "vpternlogd", "avx512cd": "vpconflictd", "avx512bw": "vmovdqu8",
    "avx512dq": "vrangeps", "avx512ifma": "vpmadd52luq", "avx512vbmi": "vpermb", "avx512vbmi2": "vpcompressb",
    "avx512vnni": "vpdpbusd", "avx512bitalg": "vpopcntb", "avx512-vpopcntdq": "vpopcntd",
}  # fmt: skip
# Those that don't.
WITHOUT = {
    "de", "pse", "pae", "apic", "mtrr", "pge", "pat", "pse36", "pcid", "x2apic", "tsc-deadline", "hypervisor", "arat",
    "smep", "erms", "xgetbv1", "nx", "pdpe1gb", "lm", "invtsc", "ss", "mmxext",
    "avx512vl", "cldemote", "fsrm", "la57", "pks", "umip", "vme", "mce", "mca", "wbnoinvd", "tsc-adjust",
}  # fmt: skip


def test_announced_instructions_exist() -> None:
    rows = {form.row.name.lower() for form in build_table().forms}
    assert features.IMPLEMENTED == set(INSTRUCTIONS) | WITHOUT
    assert {name for name in INSTRUCTIONS.values() if name not in rows} == set()


def test_identity() -> None:
    s = machine().s
    highest, b, c, d = run_cpuid(s, 0)
    assert highest == 0xD
    assert names(b, d, c) == b"AuthenticAMD"
    assert run_cpuid(s, 0x80000000)[0] == 0x80000008
    brand = b"".join(names(*run_cpuid(s, leaf)) for leaf in (0x80000002, 0x80000003, 0x80000004))
    assert brand.rstrip(b"\0") == b"pyemu virtual CPU max"
    assert run_cpuid(s, 0x40000000) == (
        0x40000001,
        *(int.from_bytes(t, "little") for t in (b"PyEm", b"uPyE", b"mu\0\0")),
    )
    assert run_cpuid(s, 1)[0] == run_cpuid(s, 0x80000001)[0] == 0x60FB1  # family 15, model 107, stepping 1


def test_what_depends_on_the_state() -> None:
    s = machine().s
    assert run_cpuid(s, 1)[2] >> 27 & 1 == 0
    s[CR4] |= 1 << 18
    assert run_cpuid(s, 1)[2] >> 27 & 1 == 1
    s.host.apic_msr_write(0x1B, 0xFEE00100)
    assert run_cpuid(s, 1)[3] >> 9 & 1 == 0
    assert run_cpuid(s, 1)[1] >> 16 == 1
    s[APIC_ID], s[CPU_COUNT] = 3, 6
    assert run_cpuid(s, 1)[1] >> 16 == 0x306
    assert run_cpuid(s, 1)[3] >> 28 & 1
    assert run_cpuid(s, 0xB, 1) == (3, 6, 0x201, 3)
    assert run_cpuid(s, 0x80000008)[::2] == (0x3928, 5)


def test_absent_leaves_are_zero() -> None:
    s = machine("qemu64").s
    for leaf in (0xE, 0x14, 0x3FFFFFFF, 0x40000002, 0x80000009, 0xFFFFFFFF, 3, 0xD):
        assert run_cpuid(s, leaf) == (0, 0, 0, 0)
    assert run_cpuid(machine().s, 0xD)[1:] == (576, 2696, 0)


def test_models_are_found_by_both_names() -> None:
    assert models.model("Haswell-v1") is models.model("Haswell")
    assert models.model("Haswell-v3") is models.model("Haswell-IBRS")
    assert models.model("Icelake-Server-v4").signature == 0x606A0
    assert models.model("Icelake-Server-v3").features - models.model("Icelake-Server-v2").features == {
        "arch-capabilities"
    }
    assert models.model("Skylake-Server-v4").features == models.model("Skylake-Server-noTSX-IBRS").features
    for name in ("80286", "max-v1", "Haswell-IBRS-v1", "Haswell-v7"):
        with pytest.raises(KeyError):
            models.model(name)


def test_levels() -> None:
    s = machine("486").s
    assert run_cpuid(s, 0)[0] == 1
    assert run_cpuid(s, 0x80000000) == (0, 0, 0, 0)
    assert run_cpuid(machine("Nehalem").s, 0)[0] == 11
    cpuid.configure(s, models.model("486"), {"fpu", "smep"})
    assert run_cpuid(s, 0)[0] == 7


# ---- model-specific registers ---------------------------------------------------------------------------------------
def write(s: State, index: int, value: int) -> bool:
    """WRMSR: False for #GP."""
    s[GPR + RCX], s[GPR + RAX], s[GPR + RDX] = (
        M64 << 32 & M64 | index,
        M64 << 32 & M64 | value & 0xFFFFFFFF,
        value >> 32,
    )
    failed = msr.wrmsr(s)
    assert not failed or s[FAULT_VECTOR] == GP
    s[FAULT_VECTOR] = NO_FAULT
    return not failed


def read(s: State, index: int) -> int | None:
    """RDMSR: None for #GP."""
    s[GPR + RCX] = index
    failed = msr.rdmsr(s)
    assert not failed or s[FAULT_VECTOR] == GP
    s[FAULT_VECTOR] = NO_FAULT
    return None if failed else s[GPR + RDX] << 32 | s[GPR + RAX]


CANONICAL, NOT_CANONICAL = 0xFF80000000000000, 0x0100000000000000  # for 57 bits, which the model has


@pytest.mark.parametrize("index", [0x175, 0x176, 0xC0000082, 0xC0000083, 0xC0000100, 0xC0000101, 0xC0000102])
def test_addresses_must_be_canonical(index: int) -> None:
    s = machine().s
    assert write(s, index, CANONICAL)
    assert read(s, index) == CANONICAL
    assert not write(s, index, NOT_CANONICAL)
    assert read(s, index) == CANONICAL


def test_bases_reach_the_state() -> None:
    s = machine().s
    assert write(s, 0xC0000100, 0x1234)
    assert write(s, 0xC0000102, 0x5678)
    assert write(s, 0xC0000081, 0x23001000000000)
    assert (s[SEG_BASE + FS], s[KERNEL_GS_BASE], s[STAR]) == (0x1234, 0x5678, 0x23001000000000)


@pytest.mark.parametrize(
    ("index", "good", "bad"),
    [
        (0xC0000080, 0xD01, 0x1D01), (0xC0000080, 0xD01, 0x401), (0x277, 0x0007010600070106, 0x0007010600070102),
        (0xC0000103, 0xFFFFFFFF, 1 << 32), (0xC0000084, 0x47700, 1 << 32), (0x2FF, 0xC06, 0x1006),
        (0x2FF, 0xC06, 0xC02),
        (0x250, 0x0606060606060606, 0x0606060606060607), (0x200, 0xC0000000, 0xC0000002),
        (0x201, 0xFFC0000800, 0xFFC0000400),
        (0x201, 0xFFC0000800, 1 << 40), (0x1D9, 3, 0x40), (0x1A0, 1, 1 << 40), (0x174, 0x10, 1 << 32),
    ],
)  # fmt: skip
def test_reserved_bits(index: int, good: int, bad: int) -> None:
    s = machine().s
    assert write(s, index, good)
    assert read(s, index) == good
    assert not write(s, index, bad)
    assert read(s, index) == good


@pytest.mark.parametrize("index", [2, 0x3A, 0xCE, 0x2000, 0x210, 0x40000000, 0xC0000104, 0xC0010114, 0xFFFFFFFF])
def test_unknown_registers(index: int) -> None:
    s = machine().s
    assert read(s, index) is None
    assert not write(s, index, 0)


def test_read_only_registers() -> None:
    s = machine().s
    assert read(s, 0xFE) == 0x508
    assert not write(s, 0xFE, 0)
    assert read(s, 0x8B) == 0
    assert write(s, 0x8B, 5)
    assert read(s, 0x8B) == 0


@pytest.mark.parametrize("index", range(0xC0010000, 0xC0010008))
def test_performance_counters_of_amd_do_not_count(index: int) -> None:
    """Xen clears them without asking. Linux sees that they keep nothing, and does without."""
    s = machine().s
    assert write(s, index, 0x5A)
    assert read(s, index) == 0


def test_privilege() -> None:
    m = setup.long_user()
    m.s.host = FakeHost()
    assert read(m.s, 0x277) is None
    assert not write(m.s, 0xC0000100, 0)


def test_efer_consequences() -> None:
    m = machine()
    s = m.s
    assert not write(s, 0xC0000080, 0)  # LME can't go while paging is on
    entry = tlb.entry(0x20000, 0)
    s[entry] = 0x20000
    assert write(s, 0xC0000080, 0x900)
    assert s[EFER] == 0xD00  # LMA is not written
    assert s[entry] == tlb.INVALID  # NXE changed
    assert read(machine("qemu64").s, 0xC0000103) is None  # TSC_AUX comes with RDTSCP
    without = machine("pentium3").s
    assert read(without, 0xC0000080) is None
    assert not write(without, 0xC0000080, 0)
    assert not write(machine("n270").s, 0xC0000080, 0x100)  # NX, but no long mode


def test_time() -> None:
    s = machine().s
    host = FakeHost()
    s.host, host.tsc = host, 5000
    assert write(s, 0x10, 100)
    assert s[TSC_OFFSET] == 100 - 5000 & M64
    host.tsc = 5010
    assert read(s, 0x10) == 110
    assert write(s, 0x6E0, 300)
    assert s.host.apic_msr_read(0x6E0) == 5200  # the machine's time
    assert read(s, 0x6E0) == 300
    assert write(s, 0x6E0, 0)
    assert read(s, 0x6E0) == 0


def test_apic_registers_belong_to_the_machine() -> None:
    s = machine().s
    assert read(s, 0x1B) == 0xFEE00900
    assert write(s, 0x808, 0x20)
    assert read(s, 0x808) == 0x20
    assert read(s, 0x803) is None
    assert not write(s, 0x8FF, 1)


def test_memory_types_after_firmware() -> None:
    s = machine().s
    msr.set_memory_types(s, 0xC0000000)
    assert [read(s, n) for n in (0x2FF, 0x200, 0x201, 0x202, 0x26F)] == [
        0xC06, 0xC0000000, 0xFFC0000800, 0, 0x0606060606060606,
    ]  # fmt: skip
    for index in (0x2FF, 0x200, 0x201, 0x250):
        value = read(s, index)
        assert value is not None
        assert write(s, index, value)


# ---- RESET and INIT --------------------------------------------------------------------------------------------------
def test_reset() -> None:
    m = machine()
    s = m.s
    s[ICOUNT], s[GPR + R8], s[TR_ATTR] = 99, 1, 0
    reset.reset(s)
    assert (s[RIP], s[SEG_SEL + CS], s[SEG_BASE + CS], s[CR0]) == (0xFFF0, 0xF000, 0xFFFF0000, 0x60000010)
    assert (s[GPR + RDX], s[GPR + R8], s[GPR + RAX]) == (0x60FB1, 0, 0)
    assert (s[PAT], s[FCW], s[MXCSR], s[EFER], s[CR4]) == (0x0007040600070406, 0x40, 0x1F80, 0, 0)
    assert eflags(s) == 2
    assert s[MODE] & (mode.PROTECTED | mode.CODE64 | mode.CODE32) == 0
    assert s[ICOUNT] == 99
    assert cpuid.model_of(s).name == "max"


def test_init_keeps_what_it_should() -> None:
    m = machine()
    s = m.s
    s[MXCSR], s[STAR], s[CR0] = 0x1FA0, 0x1234, s[CR0] | 0x40000000
    reset.init(s)
    assert (s[MXCSR], s[STAR], s[CR0], s[RIP]) == (0x1FA0, 0x1234, 0x40000010, 0xFFF0)
    assert s[EFER] == 0


def test_bases_are_canonical_for_the_width_that_the_processor_has() -> None:
    s = machine("qemu64").s
    assert write(s, 0xC0000100, 0xFFFF800000000000)
    assert not write(s, 0xC0000100, 0x0000800000000000)
    assert write(machine().s, 0xC0000100, 0x0000800000000000)
