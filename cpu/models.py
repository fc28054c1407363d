"""The CPU models that -cpu can name: QEMU's, with identity and features as QEMU 7.2 defines them.

    MODELS, model(name)   a model, also by QEMU's versioned names `Haswell-v1`, `Haswell-v2`; KeyError if there is none

A model lists what QEMU's announces, implemented here or not; cpuid.configure() is given what is left of it. `max` and
`host` have every implemented feature (the machine cuts `host` to what the host has). `qemu64` has beyond QEMU's the
TSC-deadline timer and the invariant TSC, since guests calibrate less with them. The numbers and lists are facts that
`query-cpu-model-expansion` of QEMU prints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyemu.cpu.features import IMPLEMENTED

AMD, INTEL, HYGON = "AuthenticAMD", "GenuineIntel", "HygonGenuine"
VENDORS = AMD, INTEL, HYGON  # of all models, and what -cpu vendor= takes
INTEL_NUMBER = VENDORS.index(INTEL)
VENDOR_SHIFT = 16  # where State's CPUID_MODEL has the number of the vendor, above the number of the model


@dataclass(frozen=True)
class Model:
    """A processor that -cpu can name."""

    name: str
    vendor: str
    family: int
    model: int
    stepping: int
    brand: str  # at most 47 characters
    level: int  # highest basic leaf; raised for features that need more
    features: frozenset[str]

    @property
    def signature(self) -> int:
        """CPUID.1:EAX, which EDX also holds after a reset."""
        base, extended = min(self.family, 15), max(self.family - 15, 0)
        return extended << 20 | self.model >> 4 << 16 | base << 8 | (self.model & 15) << 4 | self.stepping


_MODELS: dict[str, Model] = {}
_PYEMU = "pyemu virtual CPU "


def _model(
    name: str, vendor: str, family: int, model: int, stepping: int, brand: str, level: int, parent: str, changes: str
) -> None:
    """A model with the features of `parent`, changed by words `+feature` and `-feature`."""
    features = set(_MODELS[parent].features if parent else ())
    for change in changes.split():
        if change[0] == "+":
            features.add(change[1:])
        else:
            features.remove(change[1:])
    _MODELS[name] = Model(name, vendor, family, model, stepping, brand, level, frozenset(features))


def _alike(name: str, like: str, changes: str, stepping: int = -1, brand: str = "", model: int = -1) -> None:
    """A model that differs little from another one."""
    of = _MODELS[like]
    stepping = of.stepping if stepping < 0 else stepping
    model = of.model if model < 0 else model
    _model(name, of.vendor, of.family, model, stepping, brand or of.brand, of.level, like, changes)


_EVERYTHING = " ".join(f"+{name}" for name in sorted(IMPLEMENTED))
_model("max", AMD, 15, 107, 1, _PYEMU + "max", 13, "", _EVERYTHING)
_model("host", AMD, 15, 107, 1, _PYEMU + "host", 13, "", _EVERYTHING)

# 32-bit processors
_model("486", INTEL, 4, 8, 0, "", 1, "", "+fpu +pse +hypervisor")
_model("pentium", INTEL, 5, 4, 3, "", 1, "486", "+apic +cx8 +de +mce +mmx +msr +tsc")
_model("pentium2", INTEL, 6, 5, 2, "", 2, "pentium", "+cmov +fxsr +mca +mtrr +pae +pat +pge +pse36 +sep")
_model("pentium3", INTEL, 6, 7, 3, "", 3, "pentium2", "+sse")
_model("athlon", AMD, 6, 2, 3, _PYEMU + "athlon", 2, "pentium3", "+sse2 +3dnow +3dnowext +mmxext")
_model("qemu32", INTEL, 6, 6, 3, _PYEMU + "qemu32", 4, "pentium3", "+sse2 +pni -mca -mtrr -pse36")
_model("kvm32", INTEL, 15, 6, 1, "Common 32-bit KVM processor", 5, "qemu32", "+clflush +mca +mtrr +pse36")
_model(
    "coreduo", INTEL, 6, 14, 8, "Genuine Intel(R) CPU           T2600  @ 2.16GHz", 10, "kvm32",
    "+acpi +monitor +nx +ss -pse36",
)  # fmt: skip
_model("n270", INTEL, 6, 28, 2, "Intel(R) Atom(TM) CPU N270   @ 1.60GHz", 10, "coreduo", "+lahf-lm +movbe +ssse3")

# 64-bit processors
_model("kvm64", INTEL, 15, 6, 1, "Common KVM processor", 13, "kvm32", "+cx16 +lm +nx +syscall")
_model("qemu64", AMD, 15, 107, 1, _PYEMU + "qemu64", 13, "kvm64", "+lahf-lm +svm +tsc-deadline +invtsc +arat")
_model(
    "core2duo", INTEL, 6, 15, 11, "Intel(R) Core(TM)2 Duo CPU     T7700  @ 2.40GHz", 10, "kvm64",
    "+lahf-lm +acpi +monitor +ss +ssse3",
)  # fmt: skip
_model(
    "phenom", AMD, 16, 2, 3, "AMD Phenom(tm) 9550 Quad-Core Processor", 5, "kvm64",
    "+lahf-lm +monitor +3dnow +3dnowext +abm +fxsr-opt +mmxext +npt +pdpe1gb +popcnt +rdtscp +sse4a +svm",
)  # fmt: skip
_model("Conroe", INTEL, 6, 15, 3, "Intel Celeron_4x0 (Conroe/Merom Class Core 2)", 10, "kvm64", "+lahf-lm +ssse3 -cx16")
_model("Penryn", INTEL, 6, 23, 3, "Intel Core 2 Duo P9xxx (Penryn Class Core 2)", 10, "Conroe", "+cx16 +sse4.1")
_model("Nehalem", INTEL, 6, 26, 3, "Intel Core i7 9xx (Nehalem Class Core i7)", 11, "Penryn", "+popcnt +sse4.2")
_model("Westmere", INTEL, 6, 44, 1, "Westmere E56xx/L56xx/X56xx (Nehalem-C)", 11, "Nehalem", "+aes +arat +pclmulqdq")
_model(
    "SandyBridge", INTEL, 6, 42, 1, "Intel Xeon E312xx (Sandy Bridge)", 13, "Westmere",
    "+avx +rdtscp +tsc-deadline +x2apic +xsave +xsaveopt",
)  # fmt: skip
_model(
    "IvyBridge", INTEL, 6, 58, 9, "Intel Xeon E3-12xx v2 (Ivy Bridge)", 13, "SandyBridge",
    "+erms +f16c +fsgsbase +rdrand +smep",
)  # fmt: skip
_model(
    "Haswell", INTEL, 6, 60, 4, "Intel Core Processor (Haswell)", 13, "IvyBridge",
    "+abm +avx2 +bmi1 +bmi2 +fma +hle +invpcid +movbe +pcid +rtm",
)  # fmt: skip
_model(
    "Broadwell", INTEL, 6, 61, 2, "Intel Core Processor (Broadwell)", 13, "Haswell",
    "+3dnowprefetch +adx +rdseed +smap",
)  # fmt: skip
_model("Skylake-Client", INTEL, 6, 94, 3, "Intel Core Processor (Skylake)", 13, "Broadwell", "+xgetbv1 +xsavec")
_model(
    "Skylake-Server", INTEL, 6, 85, 4, "Intel Xeon Processor (Skylake)", 13, "Skylake-Client",
    "+avx512bw +avx512cd +avx512dq +avx512f +avx512vl +clflushopt +clwb +pdpe1gb +pku",
)  # fmt: skip
_model(
    "Cascadelake-Server", INTEL, 6, 85, 6, "Intel Xeon Processor (Cascadelake)", 13, "Skylake-Server",
    "+avx512vnni +spec-ctrl +ssbd",
)  # fmt: skip
_model(
    "Cooperlake", INTEL, 6, 85, 10, "Intel Xeon Processor (Cooperlake)", 13, "Cascadelake-Server",
    "+arch-capabilities +avx512-bf16 +stibp",
)  # fmt: skip
_model(
    "Icelake-Server", INTEL, 6, 134, 0, "Intel Xeon Processor (Icelake)", 13, "Cascadelake-Server",
    "+avx512-vpopcntdq +avx512bitalg +avx512vbmi +avx512vbmi2 +gfni +la57 +umip +vaes +vpclmulqdq +wbnoinvd",
)  # fmt: skip
_model(
    "KnightsMill", INTEL, 6, 133, 0, "Intel Xeon Phi Processor (Knights Mill)", 13, "Haswell",
    "+3dnowprefetch +adx +rdseed +pdpe1gb +ss +avx512f +avx512cd +avx512pf +avx512er +avx512-4fmaps +avx512-4vnniw"
    " +avx512-vpopcntdq -hle -rtm -invpcid -pcid",
)  # fmt: skip
_model(
    "Denverton", INTEL, 6, 95, 1, "Intel Atom Processor (Denverton)", 21, "Westmere",
    "+3dnowprefetch +arch-capabilities +clflushopt +erms +fsgsbase +monitor +movbe +mpx +pdpe1gb +rdrand +rdseed"
    " +rdtscp +sha-ni +smap +smep +spec-ctrl +ssbd +tsc-deadline +x2apic +xgetbv1 +xsave +xsavec +xsaveopt",
)  # fmt: skip
_model(
    "Snowridge", INTEL, 6, 134, 1, "Intel Atom Processor (SnowRidge)", 27, "Denverton",
    "+cldemote +clwb +core-capability +gfni +movdir64b +movdiri +umip",
)  # fmt: skip
_model("Opteron_G1", AMD, 15, 6, 1, "AMD Opteron 240 (Gen 1 Class Opteron)", 5, "kvm64", "-cx16")
_model("Opteron_G2", AMD, 15, 6, 1, "AMD Opteron 22xx (Gen 2 Class Opteron)", 5, "kvm64", "+lahf-lm +svm")
_model(
    "Opteron_G3", AMD, 16, 2, 3, "AMD Opteron 23xx (Gen 3 Class Opteron)", 5, "Opteron_G2",
    "+abm +misalignsse +monitor +popcnt +rdtscp +sse4a",
)  # fmt: skip
_model(
    "Opteron_G4", AMD, 21, 1, 2, "AMD Opteron 62xx class CPU", 13, "Opteron_G3",
    "+3dnowprefetch +aes +avx +fma4 +npt +nrip-save +pclmulqdq +pdpe1gb +sse4.1 +sse4.2 +ssse3 +xop +xsave -monitor",
)  # fmt: skip
_model("Opteron_G5", AMD, 21, 2, 0, "AMD Opteron 63xx class CPU", 13, "Opteron_G4", "+f16c +fma +tbm")
_model(
    "EPYC", AMD, 23, 1, 2, "AMD EPYC Processor", 13, "Opteron_G5",
    "+adx +arat +avx2 +bmi1 +bmi2 +clflushopt +cr8legacy +fsgsbase +fxsr-opt +mmxext +monitor +movbe +osvw +rdrand"
    " +rdseed +sha-ni +smap +smep +topoext +xgetbv1 +xsavec +xsaveopt -fma4 -tbm -xop",
)  # fmt: skip
_model(
    "EPYC-Rome", AMD, 23, 49, 0, "AMD EPYC-Rome Processor", 13, "EPYC",
    "+ibpb +amd-stibp +clwb +clzero +perfctr-core +rdpid +umip +wbnoinvd +xsaveerptr +xsaves",
)  # fmt: skip
_model(
    "EPYC-Milan", AMD, 25, 1, 1, "AMD EPYC-Milan Processor", 13, "EPYC-Rome",
    "+amd-ssbd +erms +fsrm +ibrs +invpcid +pcid +pku +svme-addr-chk",
)  # fmt: skip
_model(
    "EPYC-Genoa", AMD, 25, 17, 0, "AMD EPYC-Genoa Processor", 13, "EPYC-Milan",
    "+avx512f +avx512bw +avx512cd +avx512dq +avx512vl +avx512ifma +avx512vbmi +avx512vbmi2 +avx512vnni +avx512bitalg"
    " +avx512-vpopcntdq +avx512-bf16 +gfni +vaes +vpclmulqdq +la57 +stibp-always-on +amd-psfd +flush-l1d +vnmi"
    " +no-nested-data-bp +lfence-always-serializing +null-sel-clr-base +auto-ibrs",
)  # fmt: skip
_model("Dhyana", HYGON, 24, 0, 1, "Hygon Dhyana Processor", 13, "EPYC", "+ibpb -aes -pclmulqdq -sha-ni")

_PLAIN = frozenset(_MODELS) - {"max", "host"}

# Variants: without TSX, with the microcode's control of speculation
for _name, _stepping in (("Haswell", 1), ("Broadwell", 2)):
    _alike(f"{_name}-noTSX", _name, "-hle -rtm", stepping=_stepping, brand=f"Intel Core Processor ({_name}, no TSX)")
_alike("Cascadelake-Server-noTSX", "Cascadelake-Server", "-hle -rtm +arch-capabilities")
_alike("Icelake-Server-noTSX", "Icelake-Server", "-hle -rtm")
for _name, _brand in (
    ("Nehalem", "Intel Core i7 9xx (Nehalem Core i7, IBRS update)"),
    ("Westmere", "Westmere E56xx/L56xx/X56xx (IBRS update)"),
    ("SandyBridge", "Intel Xeon E312xx (Sandy Bridge, IBRS update)"),
    ("IvyBridge", "Intel Xeon E3-12xx v2 (Ivy Bridge, IBRS)"),
    ("Haswell", "Intel Core Processor (Haswell, IBRS)"),
    ("Haswell-noTSX", "Intel Core Processor (Haswell, no TSX, IBRS)"),
    ("Broadwell", "Intel Core Processor (Broadwell, IBRS)"),
    ("Broadwell-noTSX", "Intel Core Processor (Broadwell, no TSX, IBRS)"),
    ("Skylake-Client", "Intel Core Processor (Skylake, IBRS)"),
):
    _alike(f"{_name}-IBRS", _name, "+spec-ctrl", brand=_brand)
_alike(
    "Skylake-Client-noTSX-IBRS", "Skylake-Client", "+spec-ctrl -hle -rtm",
    brand="Intel Core Processor (Skylake, IBRS, no TSX)",
)  # fmt: skip
_alike("Skylake-Server-IBRS", "Skylake-Server", "+spec-ctrl -clflushopt", brand="Intel Xeon Processor (Skylake, IBRS)")
_alike(
    "Skylake-Server-noTSX-IBRS", "Skylake-Server-IBRS", "-hle -rtm",
    brand="Intel Xeon Processor (Skylake, IBRS, no TSX)",
)  # fmt: skip
_alike("EPYC-IBPB", "EPYC", "+ibpb", brand="AMD EPYC Processor (with IBPB)")

# QEMU's versions NAME-v2, NAME-v3 ... of a model: a variant from above, or what is different from the version before.
# Some differ only in what a nested hypervisor sees. NAME-v1 is the model itself.
_VERSIONS: dict[str, tuple[str, ...]] = {
    "Nehalem": ("Nehalem-IBRS",),
    "Westmere": ("Westmere-IBRS",),
    "SandyBridge": ("SandyBridge-IBRS",),
    "IvyBridge": ("IvyBridge-IBRS",),
    "Haswell": ("Haswell-noTSX", "Haswell-IBRS", "Haswell-noTSX-IBRS"),
    "Broadwell": ("Broadwell-noTSX", "Broadwell-IBRS", "Broadwell-noTSX-IBRS"),
    "Skylake-Client": ("Skylake-Client-IBRS", "Skylake-Client-noTSX-IBRS", "+xsaves"),
    "Skylake-Server": ("Skylake-Server-IBRS", "Skylake-Server-noTSX-IBRS", "", "+xsaves"),
    "Cascadelake-Server": ("+arch-capabilities", "Cascadelake-Server-noTSX", "", "+xsaves"),
    "Cooperlake": ("+xsaves",),
    "Icelake-Server": (
        "Icelake-Server-noTSX", "+arch-capabilities", "+avx512ifma +fsrm +rdpid +sha-ni", "+xsaves", "",
    ),
    "Denverton": ("-monitor -mpx", "+xsaves"),
    "Snowridge": ("-mpx", "+xsaves", "-core-capability"),
    "EPYC": ("EPYC-IBPB", "+clzero +perfctr-core +xsaveerptr +xsaves"),
    "EPYC-Rome": ("+amd-ssbd +ibrs",),
    "Dhyana": ("+xsaves",),
}  # fmt: skip
_IDENTITIES: dict[str, dict[str, Any]] = {  # of the versions that change it
    "Icelake-Server-v4": {"model": 106}, "EPYC-v3": {"brand": "AMD EPYC Processor"},
    "Snowridge-v2": {"brand": "Intel Atom Processor (Snowridge, no MPX)"},
}  # fmt: skip
_OTHER_NAMES = {f"{name}-v1": name for name in _PLAIN}  # QEMU's second names of what is here already
for _name, _versions in _VERSIONS.items():
    _before = _name
    for _number, _version in enumerate(_versions, 2):
        _versioned = f"{_name}-v{_number}"
        if _version in _MODELS:
            _before = _OTHER_NAMES[_versioned] = _version
        else:
            _alike(_versioned, _before, _version, **_IDENTITIES.get(_versioned, {}))
            _before = _versioned

MODELS = tuple(_MODELS.values())
DEFAULT_MODEL = "max"


def model(name: str) -> Model:
    """A model by name; KeyError if there is none."""
    return _MODELS[_OTHER_NAMES.get(name, name)]
