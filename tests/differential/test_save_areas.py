"""FXSAVE, FXRSTOR and the XSAVE family against the host's processor: registers, and the whole of the areas in memory.

Two things are a processor's own. The standard format's layout is what CPUID leaf 0DH says, so parts are compared, not
offsets. And which component counts as in use though it has its initial value (SDM 1, 13.6): pyemu looks at the values,
so the host may save more than pyemu, but only what is initial.
"""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest

from pyemu.cpu.xstate import HEADER_END
from tests.differential import case as c
from tests.differential.host import Host, executes, is_zen4
from tests.differential.host_child import cpuid_d
from tests.differential.save_areas import HEADER, OPCODES, OURS, RESTORES, SIZE, Area, Areas, Layout, form_of
from tests.differential.subject import Subject
from tests.differential.sweep import same
from tests.differential.test_generated import SEED

CASES = {"interp": 100, "jit": 100, "reference": 12}  # of each instruction, in each mode
MISALIGNED = 2  # bit 17 of MXCSR_MASK, in the byte at 30
IN_USE = "XSTATE_BV"
LEGACY = {"control": (0, 24), "mxcsr": (24, 8), "registers": (32, 128), "xmm": (160, 256), IN_USE: (HEADER, 8)}
COMPONENTS = {0: ("control", "registers"), 1: ("mxcsr", "xmm")} | {n: (f"component {n}",) for n in OURS}
INITIAL_CONTROL, INITIAL_MXCSR = (0x37F).to_bytes(8, "little"), (0xFFFF_0000_1F80).to_bytes(8, "little")
Parts = dict[str, bytes]


def host_layout() -> Layout:
    """Offsets and sizes of the standard format, as the host's CPUID has them."""
    return {number: cpuid_d(number)[::-1] for number in OURS}


def background(area: Area) -> bytes:
    """The 8 bytes that the data pages are filled with."""
    word = c.word(area.case.given, 0)
    return word.to_bytes(8, "little") if area.case.bits == 64 else (word & 0xFFFFFFFF).to_bytes(4, "little") * 2


def compacted(format_word: int) -> Layout:
    """Offsets and sizes of the compacted format."""
    layout: Layout = {}
    end = HEADER_END
    for number, (_, size) in OURS.items():
        if format_word >> number & 1:
            layout[number] = end, size
            end += size
    return layout


def parts(area: Area, data: bytes, standard: Layout) -> Parts:
    """What the data pages hold, by meaning."""
    at = area.place - c.DATA
    image = bytearray(data[at : at + SIZE])
    image += background(area) * ((SIZE - len(image)) // 8)  # what would lie beyond the end
    image[30] &= ~MISALIGNED  # misaligned SSE mode (APM 2, 11.3.2), which no model has
    if not is_zen4():  # how many bits of the x87 pointers there are is a processor's own: pyemu and Zen 4 keep 57
        image[14:16] = image[22:24] = bytes(2)
    layout = compacted(int.from_bytes(image[HEADER + 8 : HEADER + 16], "little")) if area.name == "xsavec" else standard
    found: Parts = {"before": data[:at], "after": data[at + SIZE :]}
    for name, (start, size) in (LEGACY | {f"component {n}": layout[n] for n in layout}).items():
        found[name] = bytes(image[start : start + size])
        image[start : start + size] = background(area) * (size // 8)
    found["rest"] = bytes(image)
    return found


def drop_initial(area: Area, ours: Parts, theirs: Parts) -> None:
    """What the host counts as in use although it has its initial value, and pyemu doesn't."""
    blank = background(area)
    for number, names in COMPONENTS.items():
        more = theirs[IN_USE][0] & ~ours[IN_USE][0] & 1 << number
        found = b"".join(theirs[name] for name in names if name in theirs)
        words = {found[k : k + 8] for k in range(0, len(found), 8)}
        if more and words <= {bytes(8), blank, INITIAL_CONTROL, INITIAL_MXCSR}:
            theirs[IN_USE] = bytes([theirs[IN_USE][0] & ~more]) + theirs[IN_USE][1:]
            if area.name != "xsave":
                theirs |= {name: ours[name] for name in names if name in theirs}


def area_differences(area: Area, found: bytes, expected: bytes, layout: Layout) -> list[str]:
    """What differs between the data pages after a case, in words."""
    ours, theirs = parts(area, found, OURS), parts(area, expected, layout)
    drop_initial(area, ours, theirs)
    return [f"{n}: {ours[n].hex()} != {theirs[n].hex()}" for n in ours if ours[n] != theirs.get(n)]


def differences(area: Area, subject: Subject, host: Host, expected: bytes, layout: Layout) -> list[str]:
    """What differs between pyemu and the host after a case."""
    subject.put_read_only(area.page(OURS))
    found = subject.run([area.case])[0]
    registers, memory = slice(c.R_MEMORY), bytes(c.MEMORY)
    lines = []
    if not same(form_of(area.name), found[registers] + memory, expected[registers] + memory):
        lines = c.describe(found[registers] + memory, expected[registers] + memory)
    if c.word(expected, c.R_VECTOR) != c.BREAKPOINT or area.name in RESTORES:
        return lines if subject.data() == host.data() else [*lines, "memory"]
    return lines + area_differences(area, subject.data(), host.data(), layout)


@pytest.mark.parametrize("backend", CASES)
def test_areas_against_host(host: Host, backend: str) -> None:
    """Random cases of each instruction, in 64-bit and 32-bit mode."""
    subject, areas, layout = Subject(backend), Areas(SEED, cpuid_d(0)[0]), host_layout()
    names = [name for name in OPCODES if executes(form_of(name).feature)]
    wrong: list[str] = []
    completed: Counter[str] = Counter()
    for _ in range(CASES[backend]):
        for name, bits in product(names, (64, 32)):
            area = areas.case(name, bits)
            host.put_read_only(area.page(layout))
            expected = host.run([area.case])[0]
            completed[name] += c.word(expected, c.R_VECTOR) == c.BREAKPOINT
            if lines := differences(area, subject, host, expected, layout):
                where = f"{name} at {area.place:#x}, {bits} bits: {area.case.code.hex(' ')}, seed {SEED}"
                wrong.append("\n  ".join([f"{where}: {backend} != host", *(line[:200] for line in lines[:6])]))
    assert not wrong, f"{len(wrong)}\n" + "\n".join(wrong[:8])
    assert len(completed) == len(names)
    assert min(completed.values()) > CASES[backend]


@pytest.mark.parametrize("backend", CASES)
def test_what_is_in_use_against_host(host: Host, backend: str) -> None:
    """XGETBV: pyemu may count less as in use than the host does."""
    subject, areas = Subject(backend), Areas(SEED, cpuid_d(0)[0])
    seen: set[int] = set()
    for bits in (64, 32) * CASES[backend]:
        area = areas.in_use(bits)
        host.put_read_only(area.page(host_layout()))
        subject.put_read_only(area.page(OURS))
        expected, found = host.run([area.case])[0], subject.run([area.case])[0]
        ours, theirs = c.word(found, 0), c.word(expected, 0)
        if c.word(expected, c.R_VECTOR) == c.BREAKPOINT:
            assert ours & ~theirs == 0, (area.case.code.hex(" "), SEED)
            seen.add(theirs)
            found = expected[:8] + found[8:]
        assert same(form_of("xgetbv"), found, expected), c.describe(found, expected)
    assert len(seen) > 2
