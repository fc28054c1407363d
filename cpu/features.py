"""CPU features as data: names, where CPUID announces them, what each needs, which are implemented.

    FEATURES                 QEMU's name -> the CPUID bit; a feature's number is its place in this table, from 1
    IMPLEMENTED              the names that may be announced: all of their instructions and registers are there
    closed(names)            without those whose needs are not among them
    COMPONENTS               the state components of XSAVE beyond x87 and SSE, and the feature that each comes with
    numbers(requirement)     the feature numbers of a row's `feature`

A processor's features are a bitmap in State (CPU_FEATURES), filled by cpuid.configure(); bit 0 is always set. To add a
feature, add its bit here if it is missing, then its name to IMPLEMENTED when the whole feature is there, and not
before: `-cpu max` has it from then on. Not here: the models (models.py), the leaves (cpuid.py).
Bits: SDM 2, CPUID; AMD APM 3, appendix E. Names: QEMU's, which are those of Linux with few exceptions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

EAX, EBX, ECX, EDX = range(4)
Bit = tuple[int, int, int, int]  # leaf, subleaf, register, bit


def _bits(leaf: int, subleaf: int, register: int, names: str) -> dict[str, Bit]:
    """`names` are `bit:name` pairs."""
    pairs = (word.split(":") for word in names.split())
    return {name: (leaf, subleaf, register, int(bit)) for bit, name in pairs}


FEATURES: dict[str, Bit] = {
    **_bits(
        1, 0, EDX,
        "0:fpu 1:vme 2:de 3:pse 4:tsc 5:msr 6:pae 7:mce 8:cx8 9:apic 11:sep 12:mtrr 13:pge 14:mca 15:cmov 16:pat"
        " 17:pse36 19:clflush 22:acpi 23:mmx 24:fxsr 25:sse 26:sse2 27:ss",
    ),
    **_bits(
        1, 0, ECX,
        "0:pni 1:pclmulqdq 3:monitor 9:ssse3 12:fma 13:cx16 17:pcid 19:sse4.1 20:sse4.2 21:x2apic 22:movbe 23:popcnt"
        " 24:tsc-deadline 25:aes 26:xsave 28:avx 29:f16c 30:rdrand 31:hypervisor",
    ),
    **_bits(6, 0, EAX, "2:arat"),
    **_bits(
        7, 0, EBX,
        "0:fsgsbase 1:tsc-adjust 3:bmi1 4:hle 5:avx2 7:smep 8:bmi2 9:erms 10:invpcid 11:rtm 14:mpx 16:avx512f"
        " 17:avx512dq 18:rdseed 19:adx 20:smap 21:avx512ifma 23:clflushopt 24:clwb 26:avx512pf 27:avx512er 28:avx512cd"
        " 29:sha-ni 30:avx512bw 31:avx512vl",
    ),
    **_bits(
        7, 0, ECX,
        "1:avx512vbmi 2:umip 3:pku 6:avx512vbmi2 8:gfni 9:vaes 10:vpclmulqdq 11:avx512vnni 12:avx512bitalg"
        " 14:avx512-vpopcntdq 16:la57 22:rdpid 25:cldemote 27:movdiri 28:movdir64b 31:pks",
    ),
    **_bits(
        7, 0, EDX,
        "2:avx512-4vnniw 3:avx512-4fmaps 4:fsrm 26:spec-ctrl 27:stibp 28:flush-l1d 29:arch-capabilities"
        " 30:core-capability 31:ssbd",
    ),
    **_bits(7, 1, EAX, "4:avx-vnni 5:avx512-bf16"),
    **_bits(0xD, 1, EAX, "0:xsaveopt 1:xsavec 2:xgetbv1 3:xsaves"),
    **_bits(
        0x80000001, 0, ECX,
        "0:lahf-lm 2:svm 4:cr8legacy 5:abm 6:sse4a 7:misalignsse 8:3dnowprefetch 9:osvw 11:xop 16:fma4 21:tbm"
        " 22:topoext 23:perfctr-core",
    ),
    **_bits(
        0x80000001, 0, EDX, "11:syscall 20:nx 22:mmxext 25:fxsr-opt 26:pdpe1gb 27:rdtscp 29:lm 30:3dnowext 31:3dnow"
    ),
    **_bits(0x80000007, 0, EDX, "8:invtsc"),
    **_bits(
        0x80000008, 0, EBX,
        "0:clzero 2:xsaveerptr 9:wbnoinvd 12:ibpb 14:ibrs 15:amd-stibp 17:stibp-always-on 24:amd-ssbd 28:amd-psfd",
    ),
    **_bits(0x8000000A, 0, EDX, "0:npt 3:nrip-save 25:vnmi 28:svme-addr-chk"),
    **_bits(
        0x80000021, 0, EAX, "0:no-nested-data-bp 2:lfence-always-serializing 6:null-sel-clr-base 8:auto-ibrs"
    ),
}  # fmt: skip
# Other names that QEMU's users write; the first four are QEMU's own.
ALIASES = {"sse3": "pni", "pclmuldq": "pclmulqdq", "ffxsr": "fxsr-opt", "xd": "nx", "lzcnt": "abm", "sha": "sha-ni"}

IMPLEMENTED = frozenset(
    # x86-64-v2 and what surrounds it
    "fpu vme de pse tsc msr pae mce mca cx8 apic sep mtrr pge cmov pat pse36 clflush mmx fxsr sse sse2 ss pni ssse3"
    " cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline xsave hypervisor arat fsgsbase smep erms invpcid smap"
    " xsaveopt xsavec xsaves xgetbv1 lahf-lm 3dnowprefetch syscall nx mmxext pdpe1gb rdtscp lm invtsc tsc-adjust"
    # further instructions of general registers, and system features
    " abm adx clflushopt cldemote clwb fsrm monitor rdpid rdrand rdseed umip wbnoinvd la57 pku pks bmi1 bmi2"
    # vectors
    " avx avx2 fma f16c aes pclmulqdq sha-ni gfni vaes vpclmulqdq avx512f avx512cd avx512bw avx512dq avx512vl"
    " avx512ifma avx512vbmi avx512vbmi2 avx512vnni avx512bitalg avx512-vpopcntdq".split()
)

# What a feature can't be without; those that everything needs are left out.
_NEEDS = {
    "sse2": "sse", "pni": "sse2", "ssse3": "pni", "sse4.1": "ssse3", "sse4.2": "sse4.1", "sse4a": "pni",
    "aes": "sse2", "pclmulqdq": "sse2", "sha-ni": "sse2", "gfni": "sse2", "mmxext": "mmx",
    "xsaveopt": "xsave", "xsavec": "xsave", "xgetbv1": "xsave", "xsaves": "xsave", "mpx": "xsave",
    "avx": "xsave sse4.2", "f16c": "avx", "fma": "avx", "avx2": "avx", "avx-vnni": "avx2", "xop": "avx", "fma4": "avx",
    "vaes": "avx aes", "vpclmulqdq": "avx pclmulqdq",
    "avx512f": "avx2 fma f16c", "avx512cd": "avx512f", "avx512dq": "avx512f", "avx512bw": "avx512f",
    "avx512vl": "avx512f", "avx512ifma": "avx512f", "avx512vbmi": "avx512bw", "avx512vbmi2": "avx512bw",
    "avx512bitalg": "avx512bw", "avx512vnni": "avx512f", "avx512-vpopcntdq": "avx512f", "avx512-bf16": "avx512bw",
    "avx512pf": "avx512f", "avx512er": "avx512f", "avx512-4vnniw": "avx512f", "avx512-4fmaps": "avx512f",
    "x2apic": "apic", "tsc-deadline": "apic", "invtsc": "tsc", "rdtscp": "tsc",
    "pcid": "lm", "la57": "lm", "pdpe1gb": "lm", "lahf-lm": "lm", "fsgsbase": "lm", "cx16": "lm",
}  # fmt: skip
NEEDS = {name: frozenset(needs.split()) for name, needs in _NEEDS.items()}

_NUMBERS = {name: number for number, name in enumerate(FEATURES, 1)}
WORDS = 4  # of the bitmap in State
assert len(FEATURES) < 64 * WORDS


@dataclass(frozen=True)
class Component:
    """A state component that XSAVE manages (SDM 1, 13.5): its bit in XCR0, place in the standard format, and size."""

    bit: int
    feature: str
    offset: int
    size: int


# AVX (upper halves of YMM0-15), opmask, ZMM_Hi256, Hi16_ZMM, PKRU; offsets as Intel's processors and QEMU have them
COMPONENTS = (
    Component(2, "avx", 576, 256),
    Component(5, "avx512f", 1088, 64),
    Component(6, "avx512f", 1152, 512),
    Component(7, "avx512f", 1664, 1024),
    Component(9, "pku", 2688, 8),
)


def number(name: str) -> int:
    """A feature's bit in the bitmap; KeyError if there is none of that name."""
    return _NUMBERS[name]


def numbers(requirement: str) -> tuple[int, int]:
    """The two feature numbers that a row like `avx512vl avx512bw` needs; 0 stands for no need."""
    found = [_NUMBERS[name] for name in requirement.split()]
    if len(found) > 2:
        raise ValueError(f"more than two features: {requirement!r}")
    first, second = [*found, 0, 0][:2]
    return first, second


def bitmap(names: Iterable[str]) -> list[int]:
    """The words of CPU_FEATURES."""
    bits = 1 | sum(1 << _NUMBERS[name] for name in names)
    return [bits >> 64 * n & (1 << 64) - 1 for n in range(WORDS)]


def closed(names: Iterable[str]) -> frozenset[str]:
    """The features that have all that they need among `names`."""
    kept = set(names)
    while missing := {name for name in kept if not NEEDS.get(name, frozenset()) <= kept}:
        kept -= missing
    return frozenset(kept)
