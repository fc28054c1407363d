"""Every x87 instruction against the host CPU, from the same complete x87 state; then what a host process can't show.

Compared are all registers, control, status and tag words, pointers, the memory operand, RAX and the arithmetic flags, to
the last bit. Where the manuals leave room, pyemu does as AMD's Zen 4.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from pyemu.cpu import mode
from pyemu.cpu.faults import MF, NM, PF
from pyemu.cpu.ops import Form, build_table, parse_encoding
from pyemu.cpu.state import CR0, FAULT_VECTOR, FCS, FCW, FDP, FDS, FIP, FOP, FSW, FTW, NO_FAULT
from tests.cpu import softfloat_host as host
from tests.cpu import system_setup, x87_host
from tests.cpu.x87_host import AREA, MEMORY, Emulated, Image

on_host = pytest.mark.skipif(not host.HOST_IS_X86_64, reason="compares with the host CPU, which isn't an x86-64")

CASES = 40
RETRIES = 8  # a context switch makes AMD's processors forget where the last instruction was
C1, CONDITIONS, ES = 0x200, 0x4700, 0x80
ONE, TWO = 0x3FFF8000000000000000, 0x40008000000000000000
INDEFINITE = 0xFFFFC000000000000000
ENVIRONMENT = {"fnstenv", "fldenv", "fnsave", "frstor"}
NEEDS_EXACT_CONTROL = {"fldcw", "fldenv", "frstor"}


def codings() -> list[tuple[str, bytes]]:
    """Mnemonic and machine code of every form; ST(n) with n = 0, 1, 3, memory at [rdi + MEMORY]."""
    found = []
    for form in build_table().forms:
        if form.row.function.__module__.endswith(".x87") and form.size in (0, 2, 4) and form.row.name != "fwait":
            found += [(form.row.name, code) for code in machine_code(form)]
    return found


def machine_code(form: Form) -> list[bytes]:
    """The codings of one form."""
    encoding = parse_encoding(form.row.encoding)
    if form.is_memory:
        prefix = b"\x66" if form.size == 2 else b""
        return [prefix + bytes([encoding.opcode, 0x47 | encoding.digit << 3, MEMORY])]
    if encoding.modrm_byte >= 0:
        return [bytes([encoding.opcode, encoding.modrm_byte])]
    return [bytes([encoding.opcode, 0xC0 | encoding.digit << 3 | n]) for n in (0, 1, 3)]


CODINGS = codings()


def memory_operand(rng: random.Random, near: int) -> bytes:
    """Ten bytes that are interesting in one of the formats."""
    match rng.randrange(4):
        case 0:
            bits = host.random_ieee(rng, 8, 23)
        case 1:
            bits = host.random_ieee(rng, 11, 52)
        case 2:
            bits = host.random_x80(rng, near)
        case _:
            bits = rng.choice((0, rng.getrandbits(80), 1 << 15, 1 << 31, 1 << 63, 0x123456789012345678))
    return bits.to_bytes(10, "little") + bytes(6)


def random_image(rng: random.Random, name: str, masked: bool) -> Image:
    """A state without a pending exception."""
    first = host.random_x80(rng)
    control = 0x40 | rng.choice((0, 2, 3)) << 8 | rng.getrandbits(2) << 10 | (0x3F if masked else rng.getrandbits(6))
    status = (rng.getrandbits(6) & control & 0x3F) | rng.getrandbits(6) << 8 | rng.getrandbits(1) << 14
    if status & 1:
        status |= rng.getrandbits(1) << 6
    tags = rng.choice((0xFF, 0, rng.getrandbits(8), rng.getrandbits(8) | rng.getrandbits(8)))
    memory = memory_operand(rng, first)
    if name in ENVIRONMENT | NEEDS_EXACT_CONTROL:
        memory = bytes(rng.getrandbits(8) for _ in range(112))
    registers = [first] + [host.random_x80(rng, first) for _ in range(7)]
    flags = 0x202 | rng.getrandbits(12) & 0x8D5
    return Image(registers, control, status, tags, memory, rng.getrandbits(64), flags)


@pytest.fixture(scope="module")
def emulated() -> Emulated:
    return Emulated()


@pytest.fixture(scope="module")
def all_backends(emulated: Emulated) -> dict[str, Emulated]:
    """The reference interpreter, the native one and the translator."""
    return {"reference": emulated} | {name: Emulated(backend=name) for name in ("interp", "jit")}


def host_tells_operands() -> bool:
    """Does the host say where the operand of a plain FLD was? Under load it has been seen to keep an old address for
    minutes, in all of a process's instructions."""
    plain = Image([ONE] * 8, tags=0x7F)
    return x87_host.run_host(bytes.fromhex("dd47") + bytes([MEMORY]), [plain])[0].pointers[3:] == ("memory", "ds")


@on_host
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "unmasked"])
@pytest.mark.parametrize(("name", "code"), CODINGS, ids=[f"{name}-{code.hex()}" for name, code in CODINGS])
def test_against_host(name: str, code: bytes, masked: bool, all_backends: dict[str, Emulated]) -> None:
    rng = random.Random(f"{code.hex()} {masked}")
    images = [random_image(rng, name, masked) for _ in range(CASES)]
    there = x87_host.run_host(code, images)
    for backend, emulated in all_backends.items():
        for image, theirs, ours in zip(images, there, emulated.run(code, images), strict=True):
            for _ in range(RETRIES):
                if ours != theirs:
                    theirs = x87_host.run_host(code, [image])[0]
            if ours != theirs and not host_tells_operands():
                theirs = replace(theirs, pointers=(*theirs.pointers[:3], *ours.pointers[3:]))
            assert ours == theirs, f"{backend}, from {image}"


# ---- exceptions and pointers ---------------------------------------------------------------------------------------
def full(**changes: int) -> Image:
    """Eight ones on the stack."""
    return replace(Image([ONE] * 8, tags=0xFF), **changes)  # type: ignore[arg-type]


ZERO_DIVIDE = bytes.fromhex("d877") + bytes([MEMORY])  # fdiv dword [rdi + MEMORY], which is 0
FSQRT, FLD1, FWAIT, FNSTSW_AX, FNCLEX, FNINIT = (
    bytes.fromhex(code) for code in ("d9fa", "d9e8", "9b", "dfe0", "dbe2", "dbe3")
)


def test_unmasked_exception_waits_for_the_next_waiting_instruction(emulated: Emulated) -> None:
    emulated.load(full(control=0x37B))
    assert emulated.step(ZERO_DIVIDE) == -1
    assert emulated.s[FSW] == 0x8084
    assert emulated.read(full()).st[0] == ONE
    for code in (FSQRT, FLD1, FWAIT):
        assert emulated.step(code) == MF
        emulated.s[FAULT_VECTOR] = NO_FAULT
    assert emulated.step(FNSTSW_AX) == -1
    assert emulated.read(full()).rax == 0x8084
    assert emulated.step(FNCLEX) == -1
    assert emulated.s[FSW] == 0
    assert emulated.step(FSQRT) == -1


def test_unmasking_a_pending_exception(emulated: Emulated) -> None:
    emulated.load(full(status=4, control=0x37F, memory=(0x37B).to_bytes(16, "little")))  # type: ignore[arg-type]
    assert emulated.step(bytes([0xD9, 0x6F, MEMORY])) == -1
    assert (emulated.s[FCW], emulated.s[FSW]) == (0x37B, 0x8084)
    assert emulated.step(FWAIT) == MF
    emulated.s[FAULT_VECTOR] = NO_FAULT
    assert emulated.step(FNINIT) == -1
    assert (emulated.s[FCW], emulated.s[FSW], emulated.s[FTW]) == (0x37F, 0, 0)


def test_pointers(emulated: Emulated) -> None:
    emulated.load(full(control=0x37B))
    assert emulated.step(ZERO_DIVIDE) == -1
    assert emulated.s[FIP] == system_setup.CODE
    assert emulated.s[FDP] == AREA + MEMORY
    assert emulated.s[FOP] == 0x077
    emulated.load(full())
    assert emulated.step(ZERO_DIVIDE) == -1
    assert emulated.s[FIP] == system_setup.CODE
    assert emulated.s[FOP] == 0x077
    assert emulated.step(FNSTSW_AX) == -1
    assert emulated.s[FIP] == system_setup.CODE


def test_opcode_is_found_behind_prefixes(emulated: Emulated) -> None:
    emulated.load(full(control=0x37B))
    assert emulated.step(b"\x26\x66\x48" + ZERO_DIVIDE) == -1
    assert emulated.s[FOP] == 0x077


@pytest.mark.parametrize("code", ["dd7f70", "d95f70", "db7f70", "df7770"], ids=["fnstsw", "fstp32", "fstp80", "fbstp"])
def test_page_fault_changes_nothing(code: str) -> None:
    broken = Emulated()
    system_setup.unmap(broken.machine, AREA)
    image = full(status=0x2 | 3 << 11)
    broken.load(image)
    assert broken.step(bytes.fromhex(code)) == PF
    after = broken.read(image)
    assert (after.st, after.status, after.tags) == (image.st, image.status, image.tags)
    assert broken.s[FIP] == 0


def test_store_across_a_page_that_is_not_there() -> None:
    broken = Emulated()
    system_setup.unmap(broken.machine, AREA + 0x1000)
    image = full()
    broken.load(image)
    broken.machine.put(AREA + 0xFF8, "Q", 0x1122334455667788)
    assert broken.step(bytes.fromhex("dbbff80f0000")) == PF  # fstp tbyte [rdi + 0xff8]
    assert broken.machine.get(AREA + 0xFF8, "Q") == (0x1122334455667788,)
    assert broken.read(image).tags == 0xFF


@pytest.mark.parametrize(
    ("bits", "code", "raises"),
    [
        (mode.CR0_TS, FSQRT, True), (mode.CR0_EM, FSQRT, True), (mode.CR0_TS, FNINIT, True),
        (mode.CR0_TS, FNSTSW_AX, True), (mode.CR0_MP, FSQRT, False), (mode.CR0_TS, FWAIT, False),
        (mode.CR0_EM, FWAIT, False), (mode.CR0_MP, FWAIT, False), (mode.CR0_TS | mode.CR0_MP, FWAIT, True),
    ],
)  # fmt: skip
def test_device_not_available(bits: int, code: bytes, raises: bool) -> None:
    """SDM 3, table 2-2."""
    emulated = Emulated()
    emulated.load(full())
    emulated.s[CR0] |= bits
    mode.update(emulated.s)
    assert emulated.step(code) == (NM if raises else -1)


# ---- formats of the environment ------------------------------------------------------------------------------------------
FORMATS = [
    # 32-bit real: FIP 15:0; FIP 31:16 << 12 | FOP; FDP 15:0; FDP 31:16 << 12, of linear addresses (SDM 1, figure 8-10)
    (system_setup.real, b"\x66", "IIII", (0xFFFF79B8, 0x1234 << 12 | 0x5A5, 0xFFFF6550, 0x9ABE << 12)),
    (system_setup.real, b"", "HHHH", (0x79B8, 0x4 << 12 | 0x5A5, 0x6550, 0xE << 12)),  # figure 8-12
    (system_setup.v86, b"", "HHHH", (0x79B8, 0x4 << 12 | 0x5A5, 0x6550, 0xE << 12)),
    (system_setup.protected, b"\x66", "HHHH", (0x5678, 0x0234, 0xDEF0, 0x1866)),  # figure 8-11
    (system_setup.protected, b"", "IIII", (0x12345678, 0x5A5 << 16 | 0x0234, 0x9ABCDEF0, 0xFFFF1866)),  # figure 8-9
]


@pytest.mark.parametrize(("make", "prefix", "layout", "pointers"), FORMATS)
def test_environment_formats(make: object, prefix: bytes, layout: str, pointers: tuple[int, ...]) -> None:
    """FNSTENV and FNSAVE store it, FLDENV and FRSTOR bring back what the format holds."""
    assert callable(make)
    emulated = Emulated(make())
    s, machine = emulated.s, emulated.machine
    size = 4 if layout[0] == "I" else 2
    at = 0x0E00
    for opcode in (b"\xd9", b"\xdd"):
        emulated.load(full(control=0x27F, status=0x3800 | 0x11))
        s[FOP], s[FIP], s[FCS], s[FDP], s[FDS] = 0x5A5, 0x12345678, 0x0234, 0x9ABCDEF0, 0x1866
        assert emulated.step(prefix + opcode + emulated.absolute(6, at)) == -1
        words = machine.get(at, layout[0] * 3)
        assert [word & 0xFFFF for word in words] == [0x27F, 0x3811, 0]
        assert machine.get(at + 3 * size, layout) == pointers
        if opcode == b"\xdd":
            assert (s[FCW], s[FSW], s[FTW], s[FIP]) == (0x37F, 0, 0, 0)
            assert bytes(s.ram[at + 7 * size : at + 7 * size + 10]) == ONE.to_bytes(10, "little")
        emulated.load(Image())
        assert emulated.step(prefix + opcode + emulated.absolute(4, at)) == -1
        assert (s[FCW], s[FSW], s[FTW]) == (0x27F, 0x3811, 0xFF)
        assert emulated.step(prefix + b"\xd9" + emulated.absolute(6, at + 0x100)) == -1
        assert machine.get(at + 0x100 + 3 * size, layout) == pointers
        if opcode == b"\xdd":
            assert emulated.read(Image()).st == [ONE] * 8
