"""The decoder against Capstone: lengths, validity, registers, addresses and immediates."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

import capstone
import pytest
from capstone import x86 as cx
from hypothesis import given, settings
from hypothesis import strategies as st

from pyemu.cpu import cpuid, features, models, paging
from pyemu.cpu.decode import decoder, tables
from pyemu.cpu.decode import record as rc
from pyemu.cpu.faults import GP, PF, UD
from pyemu.cpu.ops import Form, Operand, Row, build_table, expand, parse_encoding
from pyemu.cpu.state import (
    CPU_FEATURES,
    CR0,
    CS,
    FAULT_CR2,
    FAULT_VECTOR,
    FETCH_PHYS,
    FETCH_PHYS2,
    FPR,
    GPR,
    MMU_COUNT,
    NO_FAULT,
    NO_PAGE,
    RANGE_COUNT,
    RANGES,
    RECORD,
    SEG_BASE,
    SEG_LIMIT,
    TLB,
    TLB_ENTRIES,
    TLB_ENTRY_WORDS,
    VEC,
    ZERO,
    State,
    new_state,
)
from tests.cpu import twins

MODES = {64: (1, 1), 32: (0, 1), 16: (0, 0)}
RAM = 0x4000


def nothing(*_: object) -> None:
    """The meaning of every row here."""


def row(encoding: str, operands: str = "", **attributes: object) -> Row:
    name = str(attributes.pop("name", encoding))
    return Row(encoding, operands, nothing, name, **attributes)  # type: ignore[arg-type]


# One row of every shape that the decoder treats differently.
SHAPES = [
    row("00 /r", "Eb,Gb", lock=True), row("01 /r", "Ev,Gv", lock=True), row("02 /r", "Gb,Eb"), row("03 /r", "Gv,Ev"),
    row("04", "AL,Ib"), row("05", "rAX,Iz"), row("50+r", "Zv", default64=True), row("60", sizes=(2, 4), modes="legacy"),
    row("63 /r", "Gv,Ed", modes="64"), row("68", "Iz", default64=True), row("69 /r", "Gv,Ev,Iz"),
    row("6A", "Ibs", default64=True), row("6B /r", "Gv,Ev,Ibs"), row("74", "Jb", force64=True),
    row("80 /0", "Eb,Ib", lock=True),
    row("81 /7", "Ev,Iz"), row("83 /5", "Ev,Ibs", lock=True), row("8C /r", "Ev,Sw"), row("8E /r", "Sw,Ew"),
    row("8D /r", "Gv,M"),
    row("NP 90", name="nop"), row("F3 90", name="pause"), row("90+r", "Zv,rAX"), row("9A", "Ap", modes="legacy"),
    row("A0", "AL,Ob"), row("A3", "Ov,rAX"), row("A4", "Yb,Xb", rep=True), row("A5", "Yv,Xv", rep=True),
    row("B0+r", "Zb,Ib"), row("B8+r", "Zv,Iv"), row("C2", "Iw", force64=True), row("C7 /0", "Ev,Iz"),
    row("C8", "Iw,Ib2", default64=True), row("E9", "Jz", force64=True), row("F6 /0", "Eb,Ib"), row("F7 /0", "Ev,Iz"),
    row("F7 /2", "Ev", lock=True), row("FF /6", "Ev", default64=True), row("0F 01 F8", modes="64"),
    row("0F 01 /7", "Mb"),
    row("0F 20 /r", "Rq,Cq", modes="64"), row("0F 22 /r", "Cd,Rd", modes="legacy"), row("NP 0F 10 /r", "Vx,Wx"),
    row("66 0F 10 /r", "Vx,Wx"), row("F3 0F 10 /r", "Vx,Wss"), row("F2 0F 10 /r", "Vx,Wsd"),
    row("NP 0F 6F /r", "Pq,Qq"),
    row("66 0F 6F /r", "Vx,Wx"), row("66 0F 6E /r", "Vdq,Ey"), row("66 0F C4 /r", "Vdq,Ed,Ib"),
    row("66 0F 3A 0F /r", "Vx,Wx,Ib"),
    row("F2 0F 38 F1 /r", "Gd,Ev"), row("D8 C0+r", "ST0,T"), row("D8 /0", "Md"),
    row("D9 E8"), row("0F A2"), row("0F C8+r", "Zy"),
]  # fmt: skip


@cache
def shapes() -> tuple[Form, ...]:
    forms: list[Form] = []
    for one in SHAPES:
        forms += expand(one, len(forms))
    return tuple(forms)


@cache
def shape_tables() -> tables.Tables:
    return tables.build(shapes())


@pytest.fixture
def with_shapes(monkeypatch: pytest.MonkeyPatch) -> tuple[Form, ...]:
    """The decoder with SHAPES as its whole table."""
    for name in (
        "GROUP",
        "CANDIDATE_MASK",
        "CANDIDATE_VALUE",
        "CANDIDATE_FORM",
        "MODRM",
        "DESCRIPTION",
        "VEX_FIRST",
        "VECTOR",
    ):
        monkeypatch.setattr(decoder, name, getattr(shape_tables(), name.lower()))
    return shapes()


@cache
def empty_state() -> State:
    s = new_state()
    for e in range(TLB, TLB + MMU_COUNT * TLB_ENTRIES * TLB_ENTRY_WORDS):
        s[e] = NO_PAGE
    return s


def state(code: bytes, at: int = 0x100, bits: int = 64) -> State:
    """A State with `code` in RAM at `at`, paging off."""
    s: State = State.from_buffer_copy(empty_state())
    memory = bytearray(RAM)
    memory[at : at + len(code)] = code
    s.ram = memoryview(memory)
    s[RANGE_COUNT] = 1
    s[RANGES + 1], s[RANGES + 2] = RAM, 1
    s[FAULT_VECTOR] = NO_FAULT
    s[FETCH_PHYS], s[FETCH_PHYS2] = at, NO_PAGE
    s[SEG_LIMIT + CS] = 0xFFFF if bits == 16 else 0xFFFFFFFF
    return s


@cache
def disassembler(bits: int) -> capstone.Cs:
    mode = {64: capstone.CS_MODE_64, 32: capstone.CS_MODE_32, 16: capstone.CS_MODE_16}[bits]
    made = capstone.Cs(capstone.CS_ARCH_X86, mode)
    made.detail = True
    return made


def decode(code: bytes, bits: int = 64, at: int = 0x100) -> tuple[State, int]:
    s = state(code.ljust(24, b"\0"), at, bits)
    return s, decoder.decode(s, at, at, *MODES[bits])


def field(s: State, word: int, shift: int, width: int) -> int:
    value: int = s[RECORD + word] >> shift & ((1 << width) - 1)
    return value


def length(s: State) -> int:
    return field(s, rc.PACKED, rc.LENGTH, 8)


_NAMES = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")
_SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs")


@cache
def general_register(name: str) -> int:
    """Byte offset in State of a register by its name."""
    if name in ("ah", "ch", "dh", "bh"):
        return 8 * (GPR + "acdb".index(name[0])) + 1
    if name in ("al", "cl", "dl", "bl"):
        return 8 * (GPR + "acdb".index(name[0]))
    if name[0] == "r" and name[1].isdigit():
        return 8 * (GPR + int(name[1:].rstrip("bwd")))
    short = name.lstrip("re") if len(name) > 2 else name
    if len(name) == 3 and name.endswith("l"):
        short = name[:2]
    return 8 * (GPR + _NAMES.index(short))


def register(name: str) -> int:
    """What the record holds for a register that Capstone names."""
    if name.startswith("xmm"):
        return 8 * (VEC + 8 * int(name[3:]))
    if name.startswith("mm"):
        return 8 * (FPR + 2 * int(name[2:]))
    if name.startswith("st"):
        return int(name[3:-1] or 0) if "(" in name else 0
    if name[:2] in ("cr", "dr"):
        return int(name[2:])
    if name in _SEGMENTS:
        return _SEGMENTS.index(name)
    return general_register(name)


def check_memory(s: State, instruction: capstone.CsInsn, operand: cx.X86Op, bits: int) -> None:
    memory, name = operand.mem, instruction.reg_name
    base = name(memory.base) if memory.base else None
    index = name(memory.index) if memory.index else None
    index = None if index in ("riz", "eiz") else index
    disp = memory.disp & (2**64 - 1)
    if base in ("rip", "eip"):
        disp, base = (disp + instruction.address + instruction.size) & (2**64 - 1), None
    expected_base = general_register(base) if base else 8 * ZERO
    expected_index = general_register(index) if index else 8 * ZERO
    got = (field(s, rc.ADDRESS, rc.BASE, 16), field(s, rc.ADDRESS, rc.INDEX_REG, 16))
    scale = field(s, rc.ADDRESS, rc.SCALE, 16)
    if bits == 64 or instruction.addr_size != 2:
        assert got == (expected_base, expected_index)
    else:
        assert sorted(got) == sorted((expected_base, expected_index))
    assert 1 << scale == (memory.scale if index else 1)
    wrap = (1 << 8 * instruction.addr_size) - 1
    assert (s[RECORD + rc.DISP] ^ disp) & wrap == 0
    assert field(s, rc.PACKED, rc.ADDRESS_SIZE, 8) == instruction.addr_size


def unknown_to_capstone(encoding: str, code: bytes, bits: int) -> bool:
    """What it takes otherwise than processors do, or not at all."""
    if encoding.startswith(("63", "F3 90")):  # MOVSXD and PAUSE with an address-size prefix
        return 0x67 in code[:3]
    if encoding.startswith(
        ("0F 8", "E8", "E9", "68", "C2")
    ):  # near branch, PUSH: 66 in 64-bit mode (perhaps with REX.W)
        return 0x66 in code[:3]
    if encoding.startswith(("0F BC", "0F BD", "0F 38 F0", "0F 38 F1")):
        return 0xF2 in code[:3] or 0xF3 in code[:3]
    # hint instructions (reserved NOPs), UD0 and UD1 with their ModRM byte, fences with an unusual one
    # undocumented second encodings of x87 instructions
    odd = (
        "DC D0,DC D8,DD C8,DE D0,DF C8,DF D0,DF D8,0F 0D,0F 18,0F 19,0F 1A,0F 1B,0F 1C,0F 1D,0F 1E,0F B9,0F FF,NP 0F AE"
    )
    if encoding.startswith(tuple(odd.split(","))):
        return True
    return bits == 16 and encoding.startswith("66")  # 66 as a mandatory prefix in 16-bit mode


def check(forms: tuple[Form, ...], code: bytes, bits: int) -> None:
    """Decode with both. Where our table has a form, Capstone must agree on what it says."""
    s, failed = decode(code, bits)
    instruction = next(disassembler(bits).disasm(code.ljust(16, b"\0")[:16], 0x100, 1), None)
    if failed:
        assert s[FAULT_VECTOR] in (UD, GP)
        return
    form = forms[field(s, rc.PACKED, rc.FORM, 16)]
    if unknown_to_capstone(form.row.encoding, code, bits):
        return
    assert instruction is not None, f"{code.hex()} is not an instruction"
    note = f"{code.hex()} {bits} {form.row.encoding} {form.size}: {instruction.mnemonic} {instruction.op_str}"
    assert length(s) == instruction.size, note
    operands = list(instruction.operands)
    if len(operands) != len(form.operands) or any(o.kind in ("str", "far") for o in form.operands):
        return
    for ours, theirs in zip(form.operands, operands, strict=True):
        check_operand(s, ours, theirs, instruction, bits, note)


def check_operand(
    s: State, ours: Operand, theirs: cx.X86Op, instruction: capstone.CsInsn, bits: int, note: str
) -> None:
    """One operand of an instruction that both know."""
    sources = {"reg": rc.REG, "rm": rc.RM, "op": rc.OP}
    if theirs.type == capstone.CS_OP_REG and ours.source in sources:
        got = field(s, rc.REGS, sources[ours.source], 16)
        assert got == register(instruction.reg_name(theirs.reg)), note
    elif theirs.type == capstone.CS_OP_MEM and ours.kind == "mem":
        check_memory(s, instruction, theirs, bits)
    elif theirs.type == capstone.CS_OP_MEM and ours.kind == "moffs":
        wrap = (1 << 8 * instruction.addr_size) - 1
        assert s[RECORD + rc.IMM] == theirs.mem.disp & wrap, note
    elif theirs.type == capstone.CS_OP_IMM and ours.kind == "imm":
        word = rc.IMM2 if ours.source == "imm2" else rc.IMM
        mask = (1 << ours.width) - 1
        assert (s[RECORD + word] ^ theirs.imm) & mask == 0, note
    elif theirs.type == capstone.CS_OP_IMM and ours.kind == "rel":
        mask = 0xFFFF if instruction.size < 4 and bits == 16 else (1 << bits) - 1
        target = s[RECORD + rc.IMM] + 0x100 + instruction.size
        assert (target ^ theirs.imm) & mask & 0xFFFF == 0, note


def instruction_bytes(forms: tuple[Form, ...]) -> st.SearchStrategy[bytes]:
    """Prefixes, an opcode of the table, random bytes after it."""
    opcodes = sorted({opcode for form in forms for opcode in _opcodes(form)})
    # In an order that Capstone accepts always, and never 66 with REX.W, which it takes wrongly now and then.
    segment = st.sampled_from([b"", b"", b"\x64", b"\x2e", b"\x36", b"\xf0"])
    address = st.sampled_from([b"", b"", b"\x67"])
    rex = st.integers(0x40, 0x4F).map(lambda b: bytes([b]))
    mandatory = st.one_of(
        st.just(b""),
        st.just(b"\x66"),
        rex,
        st.tuples(st.just(b"\x66"), rex.map(lambda b: bytes([b[0] & ~8]))).map(b"".join),
        st.tuples(st.sampled_from([b"\xf2", b"\xf3"]), st.one_of(st.just(b""), rex)).map(b"".join),
    )
    tail = st.binary(min_size=12, max_size=12)
    return st.tuples(segment, address, mandatory, st.sampled_from(opcodes), tail).map(b"".join)


def _opcodes(form: Form) -> list[bytes]:
    encoding = parse_encoding(form.row.encoding)
    lead = (b"", b"\x0f", b"\x0f\x38", b"\x0f\x3a")[encoding.map]
    tail = bytes([encoding.modrm_byte]) if encoding.modrm_byte >= 0 else b""
    return [lead + bytes([encoding.opcode + r]) + tail for r in range(8 if encoding.plus_r else 1)]


@pytest.mark.parametrize("bits", MODES)
def test_shapes_agree_with_capstone(with_shapes: tuple[Form, ...], bits: int) -> None:
    @settings(max_examples=600, deadline=None)
    @given(instruction_bytes(with_shapes))
    def agree(code: bytes) -> None:
        check(with_shapes, code, bits)

    agree()


@pytest.mark.parametrize("bits", MODES)
def test_real_table_agrees_with_capstone(bits: int) -> None:
    forms = tuple(build_table().forms)

    @settings(max_examples=800, deadline=None)
    @given(instruction_bytes(forms))
    def agree(code: bytes) -> None:
        check(forms, code, bits)

    agree()


@pytest.mark.parametrize("bits", MODES)
def test_native_twin_agrees(bits: int) -> None:
    """The compiled decoder makes the same record or raises the same fault."""
    ram = ctypes.create_string_buffer(RAM)
    native = twins.native(decoder.decode)
    results = FAULT_VECTOR, *range(RECORD, RECORD + rc.WORDS), FETCH_PHYS2

    @settings(max_examples=400, deadline=None)
    @given(instruction_bytes(tuple(build_table().forms)), st.sampled_from([0x100, 0xFF8]))
    def agree(code: bytes, at: int) -> None:
        outcomes = []
        for function in (decoder.decode, native):
            s = state(b"", at, bits)
            keep = twins.attach(s, ram)
            s.ram[at : at + len(code)] = code
            failed = function(s, at, at, *MODES[bits])
            outcomes.append((failed, [s[word] for word in results]))
            assert keep
        assert outcomes[0] == outcomes[1]

    agree()


def decoded(forms: tuple[Form, ...], text: str, bits: int = 64) -> tuple[State, Form]:
    s, failed = decode(bytes.fromhex(text), bits)
    assert not failed
    return s, forms[field(s, rc.PACKED, rc.FORM, 16)]


@pytest.mark.parametrize(
    ("bits", "code", "size"),
    [
        (64, "50", 8), (64, "6650", 2), (64, "4850", 8), (32, "50", 4), (32, "6650", 2), (16, "50", 2), (16, "6650", 4),
        (64, "66e900000000", 8), (32, "66e90000", 2), (64, "01c0", 4), (64, "6601c0", 2), (64, "664801c0", 8),
        (64, "486601c0", 2), (64, "ff30", 8), (64, "66f20f38f1c0", 2), (64, "f2480f38f1c0", 8),
    ],
)  # fmt: skip
def test_operand_size(with_shapes: tuple[Form, ...], bits: int, code: str, size: int) -> None:
    assert decoded(with_shapes, code, bits)[1].size == size


@pytest.mark.parametrize(
    ("code", "encoding"),
    [
        ("0f10c1", "NP 0F 10 /r"), ("660f10c1", "66 0F 10 /r"), ("66f30f10c1", "F3 0F 10 /r"),
        ("f2660f10c1", "F2 0F 10 /r"),
        ("f2f30f10c1", "F3 0F 10 /r"), ("f3f20f10c1", "F2 0F 10 /r"), ("90", "NP 90"), ("f390", "F3 90"),
        ("4990", "90+r"),
        ("f34990", "90+r"), ("4890", "NP 90"), ("6690", "90+r"), ("0f01f8", "0F 01 F8"), ("0f0138", "0F 01 /7"),
        ("d8c3", "D8 C0+r"), ("d800", "D8 /0"), ("d9e8", "D9 E8"),
    ],
)  # fmt: skip
def test_row_chosen(with_shapes: tuple[Form, ...], code: str, encoding: str) -> None:
    assert decoded(with_shapes, code)[1].row.encoding == encoding


@pytest.mark.parametrize(
    ("bits", "code"),
    [
        (64, "f001c0"), (64, "f00301"), (64, "f08138"), (64, "8ec8"), (64, "8ef0"), (64, "8cf0"), (64, "0f20c8"),
        (64, "440f20c8"), (64, "60"), (64, "9a"), (64, "8dc0"), (64, "c4e27900"), (64, "62"), (32, "0f01f8"),
        (64, "d9e9"),
        (64, "0f0b"), (64, "0f01c0"), (64, "f30f6fc0"),
    ],
)  # fmt: skip
def test_undefined(with_shapes: tuple[Form, ...], bits: int, code: str) -> None:
    s, failed = decode(bytes.fromhex(code), bits)
    assert failed
    assert s[FAULT_VECTOR] == UD


@pytest.mark.parametrize(
    ("bits", "code", "segment", "based"),
    [
        (64, "0100", 3, False), (64, "014500", 2, False), (64, "010424", 2, False), (64, "41014500", 3, False),
        (64, "2e0100", 3, False), (64, "64014500", 4, True), (64, "642e0100", 4, True), (64, "01042c", 2, False),
        (64, "01042500000000", 3, False), (32, "014500", 2, True), (32, "3e014500", 3, True), (32, "0100", 3, True),
        (16, "0102", 2, True), (16, "01060000", 3, True), (16, "260102", 0, True), (32, "a4", 3, True),
        (32, "65a4", 5, True),
        (64, "36a4", 3, False),
    ],
)  # fmt: skip
def test_segment(with_shapes: tuple[Form, ...], bits: int, code: str, segment: int, based: bool) -> None:
    s, _ = decoded(with_shapes, code, bits)
    assert field(s, rc.PACKED, rc.SEGMENT, 8) == segment
    assert field(s, rc.ADDRESS, rc.SEGMENT_BASE, 16) == 8 * (SEG_BASE + segment if based else ZERO)


@pytest.mark.parametrize(
    ("code", "flags"),
    [
        ("f00100", rc.LOCKED), ("f3a4", rc.REPEAT), ("f2a4", rc.REPEAT_NE), ("f2f3a4", rc.REPEAT),
        ("f348a5", rc.REPEAT | rc.REX_W),
        ("f30100", 0), ("480100", rc.REX_W),
    ],
)  # fmt: skip
def test_flags(with_shapes: tuple[Form, ...], code: str, flags: int) -> None:
    s, _ = decoded(with_shapes, code)
    assert field(s, rc.PACKED, rc.RFLAGS_SHIFT, 8) == flags
    assert field(decoded(with_shapes, "a4", 32)[0], rc.PACKED, rc.RFLAGS_SHIFT, 8) == rc.LEGACY


@pytest.mark.parametrize(
    ("bits", "code", "imm", "imm2"),
    [
        (64, "c8341205", 0x1234, 5), (32, "9a785634121000", 0x12345678, 0x10), (16, "9a34121000", 0x1234, 0x10),
        (64, "48b8efcdab8967452301", 0x0123456789ABCDEF, 0), (64, "48c7c0ffffffff", 2**64 - 1, 0),
        (64, "6a80", 2**64 - 128, 0),
        (64, "a0f0debc9a78563412", 0x123456789ABCDEF0, 0), (64, "67a0000000ff", 0xFF000000, 0),
        (16, "a000ff", 0xFF00, 0),
    ],
)  # fmt: skip
def test_immediates(with_shapes: tuple[Form, ...], bits: int, code: str, imm: int, imm2: int) -> None:
    s, _ = decoded(with_shapes, code, bits)
    assert (s[RECORD + rc.IMM], s[RECORD + rc.IMM2]) == (imm, imm2)
    assert length(s) == len(code) // 2


def test_rip_relative_counts_immediates(with_shapes: tuple[Form, ...]) -> None:
    s, _ = decoded(with_shapes, "80051000000011")
    assert s[RECORD + rc.DISP] == 0x100 + 7 + 0x10
    assert field(s, rc.ADDRESS, rc.BASE, 16) == 8 * ZERO


def test_length_limit(with_shapes: tuple[Form, ...]) -> None:
    s, failed = decode(b"\x66" * 14 + b"\x90")
    assert not failed
    assert length(s) == 15
    s, failed = decode(b"\x66" * 13 + b"\x01\xc0\x90")
    assert not failed
    for code in (b"\x66" * 15 + b"\x90", b"\x2e" * 14 + b"\x01\xc0"):
        s, failed = decode(code)
        assert failed
        assert s[FAULT_VECTOR] == GP


def test_next_page_only_when_needed(with_shapes: tuple[Form, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    fetch: Callable[[State, int], int] = paging.fetch_page

    def fetch_page(s: State, linear: int) -> int:
        asked.append(linear)
        return fetch(s, linear)

    monkeypatch.setattr(paging, "fetch_page", fetch_page)
    s, failed = decode(bytes.fromhex("01c0"), at=0xFFE)
    assert (failed, asked) == (0, [])
    s, failed = decode(bytes.fromhex("0185785634127f"), at=0xFFD)
    assert (failed, asked) == (0, [0x1000])
    assert s[RECORD + rc.DISP] == 0x12345678
    assert s[FETCH_PHYS2] == 0x1000


def test_fault_on_next_page(with_shapes: tuple[Form, ...]) -> None:
    s = state(b"\x01", at=0xFFF)
    s[CR0] = 1 << 31  # 32-bit paging with an empty page directory at 0
    assert decoder.decode(s, 0xFFF, 0xFFF, 0, 1)
    assert s[FAULT_VECTOR] == PF
    assert s[FAULT_CR2] == 0x1000


def test_code_segment_limit(with_shapes: tuple[Form, ...]) -> None:
    s = state(b"\x01\xc0", at=0x100)
    s[SEG_LIMIT + CS] = 0x100
    assert decoder.decode(s, 0x100, 0x100, 0, 1)
    assert s[FAULT_VECTOR] == GP
    s[SEG_LIMIT + CS] = 0x101
    assert not decoder.decode(s, 0x100, 0x100, 0, 1)


def test_instructions_that_the_model_lacks() -> None:
    code = bytes.fromhex("f30fb8c1")  # POPCNT
    for model, failed in (("max", 0), ("qemu64", 1)):
        s = state(code)
        cpuid.configure(s, models.model(model))
        assert decoder.decode(s, 0x100, 0x100, 1, 1) == failed
        assert s[FAULT_VECTOR] == (UD if failed else NO_FAULT)


def test_a_row_may_need_two_features() -> None:
    (form,) = expand(row("0F 0A", feature="vaes avx512vl"), 0)
    word = tables.describe(form)
    found = {word >> tables.D_FEATURE & 0xFF, word >> tables.D_FEATURE2 & 0xFF}
    assert found == {features.number("vaes"), features.number("avx512vl")}
    s = state(b"")
    for announced in ({"vaes"}, {"avx512vl"}, {"vaes", "avx512vl"}):
        for n, bits in enumerate(features.bitmap(announced)):
            s[CPU_FEATURES + n] = bits
        assert all(cpuid.has_feature(s, n) for n in found) == (len(announced) == 2)
        assert cpuid.has_feature(s, 0)
    with pytest.raises(ValueError, match="more than two"):
        tables.describe(expand(row("0F 0A", feature="vaes avx512vl avx"), 0)[0])


def test_conflicting_rows_are_refused() -> None:
    one, other = row("01 /r", "Ev,Gv", name="one"), row("01 /r", "Ev,Gv", name="other")
    forms = expand(one, 0)
    forms += expand(other, len(forms))
    with pytest.raises(ValueError, match="claims the bytes of another row"):
        tables.build(forms)


def test_unknown_features_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown feature 'fortran'"):
        tables.build(expand(row("0F A2", feature="fortran"), 0))


def test_high_bytes_need_no_rex(with_shapes: tuple[Form, ...]) -> None:
    s, _ = decoded(with_shapes, "00e0")
    assert field(s, rc.REGS, rc.REG, 16) == 8 * GPR + 1
    s, _ = decoded(with_shapes, "4000e0")
    assert field(s, rc.REGS, rc.REG, 16) == 8 * (GPR + 4)


def test_a_prefix_without_its_feature_is_ignored() -> None:
    """F3 0F BD is LZCNT, or BSR to processors that don't know LZCNT."""
    names = {}
    for text, code in (("lzcnt", "f30fbdc1"), ("tzcnt", "f3480fbc07")):
        for announced in (set[str](), {"abm", "bmi1"}):
            s = state(bytes.fromhex(code))
            cpuid.configure(s, models.model("max"), announced)
            assert not decoder.decode(s, 0x100, 0x100, 1, 1)
            form = build_table().forms[field(s, rc.PACKED, rc.FORM, 16)]
            names[text, bool(announced)] = form.row.name
    assert names == {
        ("lzcnt", False): "bsr", ("lzcnt", True): "lzcnt", ("tzcnt", False): "bsf", ("tzcnt", True): "tzcnt",
    }  # fmt: skip
