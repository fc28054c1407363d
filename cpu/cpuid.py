"""CPUID: what a processor announces.

    configure(s, model, features)   make a vCPU one of a model (models.py) with these features
    announces(s, feature)           QEMU's names of features, in Python
    cpuid(s)            the instruction: EAX, ECX in; EAX, EBX, ECX, EDX out (mechanism; the leaves come from a service)
    leaf(s, eax, ecx)   the four registers, in Python
    has_feature(s, number)   in mechanism; the number is a constant that features.number() gives

A feature is announced only if the processor has it, and then the instruction decoder accepts its instructions: both
look at State[CPU_FEATURES]. CR4_ALLOWED and XCR0_ALLOWED follow from it too. Bits are cited from SDM 2, CPUID, and AMD
APM 3, appendix E.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

from pyemu.cpu import features, physical
from pyemu.cpu.features import EAX as _EAX
from pyemu.cpu.features import EBX as _EBX
from pyemu.cpu.features import ECX as _ECX
from pyemu.cpu.features import EDX as _EDX
from pyemu.cpu.features import FEATURES
from pyemu.cpu.mode import CR4_LA57, CR4_OSXSAVE, CR4_PKE, CR4_PKS, TOP_48, TOP_57
from pyemu.cpu.models import AMD, DEFAULT_MODEL, HYGON, MODELS, VENDOR_SHIFT, VENDORS, Model, model
from pyemu.cpu.primitives import call_service, service
from pyemu.cpu.state import (
    APIC_ID,
    CPU_COUNT,
    CPU_FEATURES,
    CPUID_MODEL,
    CR4,
    CR4_ALLOWED,
    GPR,
    LINEAR_TOP,
    LINEAR_TOP_MAX,
    RAX,
    RBX,
    RCX,
    RDX,
    XCR0,
    XCR0_ALLOWED,
    State,
)

HYPERVISOR = b"PyEmuPyEmu\0\0"
HYPERVISOR_LEAVES, EXTENDED_LEAVES = 0x40000001, 0x80000008
AMD_ALIASES = 0x0183F3FF  # bits of 1:EDX that AMD repeats in 80000001:EDX
LINEAR_BITS = 48
XSAVE_SIZE = 576  # x87 and SSE state with the header
X87_SSE = 3  # their bits in XCR0
CLFLUSH_LINE = 64

# Caches, as the legacy leaves describe them: level, type (1 data, 2 instruction, 3 unified), KiB, ways
_CACHES = ((1, 1, 64, 2), (1, 2, 64, 2), (2, 3, 512, 16), (3, 3, 16384, 16))

# CR4 bits and the feature that each comes with; the others may always be set
_CR4_FEATURES = {
    "vme": 1 << 0 | 1 << 1, "tsc": 1 << 2, "de": 1 << 3, "pse": 1 << 4, "pae": 1 << 5, "mce": 1 << 6, "pge": 1 << 7,
    "fxsr": 1 << 9, "sse": 1 << 10, "umip": 1 << 11, "la57": CR4_LA57, "fsgsbase": 1 << 16,
    "pcid": 1 << 17, "xsave": 1 << 18, "smep": 1 << 20, "smap": 1 << 21, "pku": CR4_PKE,
    "pks": CR4_PKS,
}  # fmt: skip
_CR4_ALWAYS = 1 << 8  # PCE

Leaf = tuple[int, int, int, int]


def configure(s: State, chosen: Model | None = None, announced: Iterable[str] | None = None) -> None:
    """Make a vCPU one of a model, by default the one with everything, that announces these features, by default all
    implemented ones of the model."""
    chosen = chosen or model(DEFAULT_MODEL)
    names = features.closed(chosen.features & features.IMPLEMENTED if announced is None else announced)
    number = next(n for n, known in enumerate(MODELS) if known.name == chosen.name)
    s[CPUID_MODEL] = VENDORS.index(chosen.vendor) << VENDOR_SHIFT | number
    for n, word in enumerate(features.bitmap(names)):
        s[CPU_FEATURES + n] = word
    s[LINEAR_TOP], s[LINEAR_TOP_MAX] = TOP_48, TOP_57 if "la57" in names else TOP_48
    s[CR4_ALLOWED] = _CR4_ALWAYS | sum(bits for name, bits in _CR4_FEATURES.items() if name in names)
    components = sum(1 << c.bit for c in features.COMPONENTS if c.feature in names)
    s[XCR0_ALLOWED] = X87_SSE | components if "xsave" in names else 0


def model_of(s: State) -> Model:
    """The model of a processor."""
    return _model_and_vendor(s[CPUID_MODEL])


@lru_cache(maxsize=64)
def _model_and_vendor(numbers: int) -> Model:
    known = MODELS[numbers & (1 << VENDOR_SHIFT) - 1]
    vendor = VENDORS[numbers >> VENDOR_SHIFT]
    return known if known.vendor == vendor else replace(known, vendor=vendor)


def announces(s: State, feature: str) -> bool:
    """Does the processor have a feature?"""
    return bool(has_feature(s, features.number(feature)))


def _words(text: bytes) -> list[int]:
    return [int.from_bytes(text[at : at + 4], "little") for at in range(0, len(text), 4)]


def _feature_words(s: State) -> tuple[int, ...]:
    return tuple(s[CPU_FEATURES + n] for n in range(features.WORDS))


@lru_cache(maxsize=64)
def _feature_leaves(words: tuple[int, ...]) -> dict[tuple[int, int], Leaf]:
    """Leaf and subleaf to registers with the bits of these features. CPUID looks here each time: going over all
    features for each would take a hundred times as long."""
    leaves: dict[tuple[int, int], list[int]] = {}
    for name, (at, sub, register, bit) in FEATURES.items():
        number = features.number(name)
        if words[number >> 6] >> (number & 63) & 1:
            leaves.setdefault((at, sub), [0, 0, 0, 0])[register] |= 1 << bit
    return {at: (r[0], r[1], r[2], r[3]) for at, r in leaves.items()}


@lru_cache(maxsize=64)
def _highest_of(words: tuple[int, ...]) -> int:
    return max((at for at, _ in _feature_leaves(words) if at < 0x80000000), default=0)


def _announced(s: State, number: int, subleaf: int) -> list[int]:
    """A leaf with the processor's feature bits, and nothing else."""
    return list(_feature_leaves(_feature_words(s)).get((number, subleaf), (0, 0, 0, 0)))


def _apic_enabled(s: State) -> bool:
    base = s.host.apic_msr_read(0x1B)
    return base is None or bool(base & 1 << 11)


def _leaf_1(s: State) -> list[int]:
    registers = _announced(s, 1, 0)
    count = max(s[CPU_COUNT], 1)
    registers[_EAX] = model_of(s).signature
    registers[_EBX] = (s[APIC_ID] & 0xFF) << 24 | min(count, 255) << 16 | CLFLUSH_LINE // 8 << 8
    if count > 1:
        registers[_EDX] |= 1 << 28  # HTT: EBX[23:16] is valid
    if s[CR4] & CR4_OSXSAVE:
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


def _leaf_7(s: State, subleaf: int) -> list[int]:
    registers = _announced(s, 7, subleaf)
    if subleaf == 0:
        registers[_EAX] = int(any(_announced(s, 7, 1)))  # the highest subleaf
        if s[CR4] & CR4_PKE:
            registers[_ECX] |= 1 << 4  # OSPKE
    return registers


def _xsave_size(components: int) -> int:
    """Bytes of an XSAVE area in the standard format."""
    ends = [c.offset + c.size for c in features.COMPONENTS if components >> c.bit & 1]
    return max(ends, default=XSAVE_SIZE)


def _compacted_size(components: int) -> int:
    """Bytes of an XSAVE area in the compacted format; no component asks for alignment."""
    return XSAVE_SIZE + sum(c.size for c in features.COMPONENTS if components >> c.bit & 1)


def _leaf_d(s: State, subleaf: int) -> list[int]:
    allowed = s[XCR0_ALLOWED]
    if not allowed:
        return [0, 0, 0, 0]
    if subleaf == 0:
        return [allowed & 0xFFFFFFFF, _xsave_size(s[XCR0]), _xsave_size(allowed), allowed >> 32]
    if subleaf == 1:
        registers = _announced(s, 0xD, 1)
        if announces(s, "xsavec") or announces(s, "xsaves"):
            registers[_EBX] = _compacted_size(s[XCR0])
        return registers
    for component in features.COMPONENTS:
        if component.bit == subleaf and allowed >> subleaf & 1:
            return [component.size, component.offset, 0, 0]
    return [0, 0, 0, 0]


def _extended(s: State, number: int) -> list[int]:
    registers = _announced(s, number, 0)
    chosen = model_of(s)
    if number == 0x80000000:
        vendor = _words(chosen.vendor.encode())
        return [EXTENDED_LEAVES, vendor[0], vendor[2], vendor[1]]
    if number == 0x80000001:
        registers[_EAX] = chosen.signature
        if chosen.vendor in (AMD, HYGON):
            registers[_EDX] |= _leaf_1(s)[_EDX] & AMD_ALIASES
    elif 0x80000002 <= number <= 0x80000004:
        brand = chosen.brand.encode().ljust(48, b"\0")
        return _words(brand[16 * (number - 0x80000002) :][:16])
    elif number == 0x80000005:
        first = 64 << 24 | 2 << 16 | 1 << 8 | CLFLUSH_LINE  # size in KiB, ways, lines per tag, line
        return [0x01FF01FF, 0x01FF01FF, first, first]
    elif number == 0x80000006:
        line = 8 << 12 | 1 << 8 | CLFLUSH_LINE  # 16 ways (AMD APM 3, table E-4), one line per tag
        return [0, 0x42004200, 512 << 16 | line, 32 << 18 | line]
    elif number == 0x80000008:
        linear_bits = 57 if announces(s, "la57") else LINEAR_BITS
        registers[_EAX] = linear_bits << 8 | physical.PHYSICAL_BITS
        registers[_ECX] = max(s[CPU_COUNT], 1) - 1
    return registers


def _highest(s: State) -> int:
    """The highest basic leaf: the model's, or what the features need."""
    return max(model_of(s).level, _highest_of(_feature_words(s)))


def leaf(s: State, number: int, subleaf: int) -> Leaf:
    """EAX, EBX, ECX, EDX of a leaf; zeros where there is none."""
    chosen = model_of(s)
    registers = [0, 0, 0, 0]
    if number >= 0x80000000:
        if number <= EXTENDED_LEAVES and chosen.brand:  # the oldest have none
            registers = _extended(s, number)
    elif number == 0x40000000:
        registers = [HYPERVISOR_LEAVES, *_words(HYPERVISOR)]
    elif number > _highest(s):
        pass
    elif number == 0:
        vendor = _words(chosen.vendor.encode())
        registers = [_highest(s), vendor[0], vendor[2], vendor[1]]
    elif number == 1:
        registers = _leaf_1(s)
    elif number == 2:
        registers = [1, 0, 0x4D, 0x2C307D]  # one byte descriptors of the caches
    elif number == 4:
        registers = _leaf_4(s, subleaf)
    elif number == 5 and announces(s, "monitor"):  # QEMU's: extensions, ECX bit 0 of MWAIT; no C states
        registers = [CLFLUSH_LINE, CLFLUSH_LINE, 3, 0]
    elif number == 7:
        registers = _leaf_7(s, subleaf)
    elif number == 0xB:
        registers = _leaf_b(s, subleaf)
    elif number == 0xD:
        registers = _leaf_d(s, subleaf)
    else:
        registers = _announced(s, number, subleaf)
    return registers[0], registers[1], registers[2], registers[3]


def _cpuid(s: State, _a: int, _b: int) -> int:
    results = leaf(s, s[GPR + RAX] & 0xFFFFFFFF, s[GPR + RCX] & 0xFFFFFFFF)
    s[GPR + RAX], s[GPR + RBX], s[GPR + RCX], s[GPR + RDX] = results
    return 0


CPUID = service(_cpuid)


# ---- mechanism ------------------------------------------------------------------------------------------------------
def cpuid(s: State) -> int:
    """CPUID, at any privilege."""
    return call_service(s, CPUID, 0, 0)


def has_feature(s: State, number: int) -> int:
    """1 if the processor has the feature of that number."""
    return s[CPU_FEATURES + (number >> 6)] >> (number & 63) & 1
