"""CPUID: the models, and what each announces.

    cpuid(s)            the instruction: EAX, ECX in; EAX, EBX, ECX, EDX out (mechanism; the leaves come from a service)
    leaf(s, eax, ecx)   the four registers, in Python
    MODELS, model_number(name)    State[CPUID_MODEL] is an index into MODELS
    has(model, feature)           QEMU's names of features
    cr4_allowed(s)      the bits of CR4 that the model lets be set (mechanism)

A feature is announced only if the processor has it. The models have the names and identity of QEMU's under TCG;
`qemu64` has beyond QEMU's the TSC-deadline timer and the invariant TSC, since guests calibrate less with them, and
lacks SVM and machine checks. Bits are cited from SDM 2, CPUID, and AMD APM 3, appendix E.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from pyemu.cpu import physical
from pyemu.cpu.primitives import call_service, service
from pyemu.cpu.state import APIC_ID, CPU_COUNT, CPUID_MODEL, CR4, GPR, RAX, RBX, RCX, RDX, XCR0, State

# feature -> (leaf, subleaf, register, bit); registers in the order EAX EBX ECX EDX
_EAX, _EBX, _ECX, _EDX = range(4)
FEATURES: dict[str, tuple[int, int, int, int]] = {
    "fpu": (1, 0, _EDX, 0), "de": (1, 0, _EDX, 2), "pse": (1, 0, _EDX, 3), "tsc": (1, 0, _EDX, 4),
    "msr": (1, 0, _EDX, 5), "pae": (1, 0, _EDX, 6), "cx8": (1, 0, _EDX, 8), "apic": (1, 0, _EDX, 9),
    "sep": (1, 0, _EDX, 11), "mtrr": (1, 0, _EDX, 12), "pge": (1, 0, _EDX, 13), "cmov": (1, 0, _EDX, 15),
    "pat": (1, 0, _EDX, 16), "pse36": (1, 0, _EDX, 17), "clflush": (1, 0, _EDX, 19), "mmx": (1, 0, _EDX, 23),
    "fxsr": (1, 0, _EDX, 24), "sse": (1, 0, _EDX, 25), "sse2": (1, 0, _EDX, 26),
    "pni": (1, 0, _ECX, 0), "ssse3": (1, 0, _ECX, 9), "cx16": (1, 0, _ECX, 13), "pcid": (1, 0, _ECX, 17),
    "sse4.1": (1, 0, _ECX, 19), "sse4.2": (1, 0, _ECX, 20), "x2apic": (1, 0, _ECX, 21), "movbe": (1, 0, _ECX, 22),
    "popcnt": (1, 0, _ECX, 23), "tsc-deadline": (1, 0, _ECX, 24), "xsave": (1, 0, _ECX, 26),
    "hypervisor": (1, 0, _ECX, 31),
    "arat": (6, 0, _EAX, 2),
    "fsgsbase": (7, 0, _EBX, 0), "smep": (7, 0, _EBX, 7), "erms": (7, 0, _EBX, 9), "invpcid": (7, 0, _EBX, 10),
    "smap": (7, 0, _EBX, 20),
    "xsaveopt": (0xD, 1, _EAX, 0), "xsavec": (0xD, 1, _EAX, 1), "xgetbv1": (0xD, 1, _EAX, 2),
    "lahf-lm": (0x80000001, 0, _ECX, 0), "3dnowprefetch": (0x80000001, 0, _ECX, 8),
    "syscall": (0x80000001, 0, _EDX, 11), "nx": (0x80000001, 0, _EDX, 20), "pdpe1gb": (0x80000001, 0, _EDX, 26),
    "rdtscp": (0x80000001, 0, _EDX, 27), "lm": (0x80000001, 0, _EDX, 29),
    "invtsc": (0x80000007, 0, _EDX, 8),
}  # fmt: skip

_BASE = (
    "fpu de pse tsc msr pae cx8 apic sep mtrr pge cmov pat pse36 clflush mmx fxsr sse sse2 pni cx16 hypervisor arat"
    " lahf-lm syscall nx lm tsc-deadline invtsc"
)
_MORE = (
    "ssse3 pcid sse4.1 sse4.2 x2apic movbe popcnt xsave fsgsbase smep erms invpcid smap xsaveopt xsavec xgetbv1"
    " 3dnowprefetch pdpe1gb rdtscp"
)


@dataclass(frozen=True)
class Model:
    """A processor that -cpu can name."""

    name: str
    brand: str  # at most 47 characters
    family: int
    model: int
    stepping: int
    features: frozenset[str]
    vendor: str = "AuthenticAMD"  # as QEMU's models: guests then don't work around flaws of Intel's

    @property
    def signature(self) -> int:
        """CPUID.1:EAX, which EDX also holds after a reset."""
        base, extended = min(self.family, 15), max(self.family - 15, 0)
        return extended << 20 | self.model >> 4 << 16 | base << 8 | (self.model & 15) << 4 | self.stepping


MODELS = (
    Model("max", "pyemu virtual CPU max", 15, 107, 1, frozenset(f"{_BASE} {_MORE}".split())),
    Model("qemu64", "pyemu virtual CPU qemu64", 15, 107, 1, frozenset(_BASE.split())),
)
DEFAULT_MODEL = "max"

HYPERVISOR = b"PyEmuPyEmu\0\0"
BASIC_LEAVES, HYPERVISOR_LEAVES, EXTENDED_LEAVES = 0xD, 0x40000001, 0x80000008
AMD_ALIASES = 0x0183F3FF  # bits of 1:EDX that AMD repeats in 80000001:EDX
LINEAR_BITS = 48
XSAVE_SIZE = 576  # x87 and SSE state with the header
CLFLUSH_LINE = 64

# Caches, as the legacy leaves describe them: level, type (1 data, 2 instruction, 3 unified), KiB, ways
_CACHES = ((1, 1, 64, 2), (1, 2, 64, 2), (2, 3, 512, 16), (3, 3, 16384, 16))

# CR4 bits and the feature that each comes with; the others may always be set
_CR4_FEATURES = {
    "tsc": 1 << 2, "de": 1 << 3, "pse": 1 << 4, "pae": 1 << 5, "pge": 1 << 7, "fxsr": 1 << 9, "sse": 1 << 10,
    "fsgsbase": 1 << 16, "pcid": 1 << 17, "xsave": 1 << 18, "smep": 1 << 20, "smap": 1 << 21,
}  # fmt: skip
_CR4_ALWAYS = 1 << 6 | 1 << 8  # MCE, PCE

Leaf = tuple[int, int, int, int]


def model_number(name: str) -> int:
    """The index of a model; KeyError if there is none of that name."""
    for number, model in enumerate(MODELS):
        if model.name == name:
            return number
    raise KeyError(name)


def model_of(s: State) -> Model:
    """The model of a processor."""
    return MODELS[s[CPUID_MODEL]]


def has(model: Model, feature: str) -> bool:
    """Does the model announce a feature?"""
    return feature in model.features


def _words(text: bytes) -> list[int]:
    return [int.from_bytes(text[at : at + 4], "little") for at in range(0, len(text), 4)]


def _announced(model: Model, number: int, subleaf: int) -> list[int]:
    """A leaf with the feature bits of the model, and nothing else."""
    registers = [0, 0, 0, 0]
    for name in model.features:
        where = FEATURES[name]
        if where[:2] == (number, subleaf):
            registers[where[2]] |= 1 << where[3]
    return registers


def _apic_enabled(s: State) -> bool:
    base = s.host.apic_msr_read(0x1B)
    return base is None or bool(base & 1 << 11)


def _leaf_1(s: State, model: Model) -> list[int]:
    registers = _announced(model, 1, 0)
    count = max(s[CPU_COUNT], 1)
    registers[_EAX] = model.signature
    registers[_EBX] = (s[APIC_ID] & 0xFF) << 24 | min(count, 255) << 16 | CLFLUSH_LINE // 8 << 8
    if count > 1:
        registers[_EDX] |= 1 << 28  # HTT: EBX[23:16] is valid
    if s[CR4] & 1 << 18:
        registers[_ECX] |= 1 << 27  # OSXSAVE
    if not _apic_enabled(s):
        registers[_EDX] &= ~(1 << 9)
    return registers


def _leaf_4(s: State, subleaf: int) -> list[int]:
    if subleaf >= len(_CACHES):
        return [0, 0, 0, 0]
    level, kind, kilobytes, ways = _CACHES[subleaf]
    sets = kilobytes * 1024 // ways // CLFLUSH_LINE
    sharing = max(s[CPU_COUNT], 1) - 1 if level == 3 else 0
    return [sharing << 14 | 1 << 8 | level << 5 | kind, (ways - 1) << 22 | CLFLUSH_LINE - 1, sets - 1, 0]


def _leaf_b(s: State, subleaf: int) -> list[int]:
    """Topology: one thread a core, all cores in one package."""
    count = max(s[CPU_COUNT], 1)
    if subleaf == 0:
        return [0, 1, 1 << 8, s[APIC_ID]]
    if subleaf == 1:
        return [(count - 1).bit_length(), count, 2 << 8 | 1, s[APIC_ID]]
    return [0, 0, subleaf & 0xFF, s[APIC_ID]]


def _leaf_d(s: State, model: Model, subleaf: int) -> list[int]:
    if "xsave" not in model.features:
        return [0, 0, 0, 0]
    if subleaf == 0:
        return [3, XSAVE_SIZE, XSAVE_SIZE, 0]
    registers = _announced(model, 0xD, subleaf)
    if subleaf == 1:
        registers[_EBX] = XSAVE_SIZE if s[XCR0] else 0
    return registers


def _extended(s: State, model: Model, number: int) -> list[int]:
    registers = _announced(model, number, 0)
    if number == 0x80000000:
        vendor = _words(model.vendor.encode())
        return [EXTENDED_LEAVES, vendor[0], vendor[2], vendor[1]]
    if number == 0x80000001:
        registers[_EAX] = model.signature
        registers[_EDX] |= _leaf_1(s, model)[_EDX] & AMD_ALIASES
    elif 0x80000002 <= number <= 0x80000004:
        brand = model.brand.encode().ljust(48, b"\0")
        return _words(brand[16 * (number - 0x80000002) :][:16])
    elif number == 0x80000005:
        first = 64 << 24 | 2 << 16 | 1 << 8 | CLFLUSH_LINE  # size in KiB, ways, lines per tag, line
        return [0x01FF01FF, 0x01FF01FF, first, first]
    elif number == 0x80000006:
        line = 8 << 12 | 1 << 8 | CLFLUSH_LINE  # 16 ways (AMD APM 3, table E-4), one line per tag
        return [0, 0x42004200, 512 << 16 | line, 32 << 18 | line]
    elif number == 0x80000008:
        return [LINEAR_BITS << 8 | physical.PHYSICAL_BITS, 0, max(s[CPU_COUNT], 1) - 1, 0]
    return registers


def leaf(s: State, number: int, subleaf: int) -> Leaf:
    """EAX, EBX, ECX, EDX of a leaf; zeros where there is none."""
    model = model_of(s)
    registers = [0, 0, 0, 0]
    if 0x80000000 <= number <= EXTENDED_LEAVES:
        registers = _extended(s, model, number)
    elif number == 0x40000000:
        registers = [HYPERVISOR_LEAVES, *_words(HYPERVISOR)]
    elif number == 0:
        vendor = _words(model.vendor.encode())
        registers = [BASIC_LEAVES, vendor[0], vendor[2], vendor[1]]
    elif number == 1:
        registers = _leaf_1(s, model)
    elif number == 2:
        registers = [1, 0, 0x4D, 0x2C307D]  # one byte descriptors of the caches
    elif number == 4:
        registers = _leaf_4(s, subleaf)
    elif number == 0xB:
        registers = _leaf_b(s, subleaf)
    elif number == 0xD:
        registers = _leaf_d(s, model, subleaf)
    elif number <= BASIC_LEAVES:
        registers = _announced(model, number, subleaf)
    return registers[0], registers[1], registers[2], registers[3]


def _cpuid(s: State, _a: int, _b: int) -> int:
    results = leaf(s, s[GPR + RAX] & 0xFFFFFFFF, s[GPR + RCX] & 0xFFFFFFFF)
    s[GPR + RAX], s[GPR + RBX], s[GPR + RCX], s[GPR + RDX] = results
    return 0


CPUID = service(_cpuid)
CR4_BITS = array(
    "Q", [_CR4_ALWAYS | sum(bit for name, bit in _CR4_FEATURES.items() if name in m.features) for m in MODELS]
)


# ---- mechanism ------------------------------------------------------------------------------------------------------
def cpuid(s: State) -> int:
    """CPUID, at any privilege."""
    return call_service(s, CPUID, 0, 0)


def cr4_allowed(s: State) -> int:
    """The bits of CR4 that are not reserved."""
    bits: int = CR4_BITS[s[CPUID_MODEL]]
    return bits
