"""Flat 32-bit mode, for which there are stencils, and what leaves it: segments that don't begin at 0 or end early,
addresses that wrap, other address sizes. Small programs on every back end, with results from the manual (SDM 1, 3.3.4
and 3.3.7; SDM 3, 3.4 and 5.3)."""

from __future__ import annotations

import struct

import pytest

from pyemu.cpu import mode
from pyemu.cpu.faults import GP, TS
from pyemu.cpu.faults import SS as STACK_FAULT
from pyemu.cpu.state import GPR, MODE, RAX, SEG_REACH, State
from tests.cpu import programs
from tests.cpu import system_setup as setup

DATA = 0x20000
WHOLE = 0xE8  # a selector of the tests' own: 4 GiB from BASE
BASE = 0x8000


pytestmark = pytest.mark.parametrize("backend", programs.BACKENDS)


def prepared() -> setup.Machine:
    """Protected mode at privilege 0, with a segment of 4 GiB that doesn't begin at 0, and each word its own address."""
    m = setup.protected()
    for at in range(0x7000, 0x9000, 4):
        m.put(at, "I", at)
    for at in range(DATA, DATA + 0x1000, 4):
        m.put(at, "I", at)
    return m


def whole() -> setup.Machine:
    """With SMALL_DATA's descriptor extended to all addresses from its base."""
    m = prepared()
    m.put(setup.GDT + WHOLE, "Q", setup.descriptor(BASE, 0xFFFFF, setup.A_DATA))
    return m


def load(segment: str, selector: int) -> str:
    """Code that loads a segment register."""
    return f"mov cx, {selector:#x}; mov {segment}, cx; "


def eax(m: setup.Machine) -> int:
    """EAX, of which nothing is above 32 bits."""
    return m.s[GPR + RAX]


def expect(backend: str, m: setup.Machine, text: str, value: int | None, vector: int = GP) -> None:
    """A program ends with EAX as given, or with a fault that has error code 0."""
    outcome = programs.run(m, backend, f"{text}; hlt", 32)
    if value is None:
        assert (outcome.vector, outcome.error) == (vector, 0)
    else:
        assert outcome.vector == -1
        assert eax(m) == value, hex(eax(m))


# ---- segments that have a base or a limit ---------------------------------------------------------------------------
@pytest.mark.parametrize("segment", ["fs", "gs", "es"])
@pytest.mark.parametrize(
    ("access", "value"),
    [
        ("mov eax, {}:[0xfc]", BASE + 0xFC),
        ("mov eax, {}:[0xfd]", None),
        ("mov al, {}:[0xfd]", 0x80),
        ("mov al, {}:[0x100]", None),
        ("mov ebx, 0xf8; add eax, {}:[ebx + 4]", BASE + 0xFC),
        ("mov ebx, 0x40; mov eax, {}:[ebx * 2 - 0x10]", BASE + 0x70),
        ("mov ebx, -0x10; mov edx, 0x10; mov eax, {}:[ebx + edx * 4 + 0x10]", BASE + 0x40),
        ("mov ebx, 4; mov eax, {}:[ebx - 8]", None),
        ("push dword ptr {}:[0x20]; pop eax", BASE + 0x20),
        ("lea eax, {}:[0x123456]", 0x123456),
        ("mov eax, 0x17; bt {}:[0], eax; setc al", 0),
        ("mov eax, 0x7e0; bts {}:[0], eax; mov eax, {}:[0xfc]", BASE + 0xFD),
        ("mov eax, 0x800; bts {}:[0], eax", None),
    ],
)
def test_limit(backend: str, segment: str, access: str, value: int | None) -> None:
    m = prepared()
    m.put(setup.GDT + WHOLE, "Q", setup.descriptor(BASE, 0xFF, 0x4093))
    text = load(segment, WHOLE) + "xor eax, eax; " + access.replace("{}", segment)
    expect(backend, m, text, value)


@pytest.mark.parametrize(
    ("access", "value"),
    [
        ("mov eax, fs:[0xfffffffc]", BASE - 4),  # a negative offset, as in thread-local storage
        ("mov ebx, -0x20; mov eax, fs:[ebx + 0x10]", BASE - 0x10),
        ("mov eax, fs:[0xfffffffd]", None),
        (".byte 0x64, 0xa1, 0x10, 0, 0, 0", BASE + 0x10),  # MOV EAX, moffs32
        ("mov eax, 0x1234; .byte 0x64, 0xa3, 0x10, 0, 0, 0; xor eax, eax; mov eax, [0x8010]", 0x1234),
        ("mov ebx, 0x10; mov eax, 1; .byte 0x64, 0xd7", 0x80),  # XLAT
        ("call dword ptr fs:[0x10]", None),  # beyond RAM lies nothing that decodes
    ],
)
def test_base(backend: str, access: str, value: int | None) -> None:
    m = whole()
    if access.startswith("call"):
        m.put(BASE + 0x10, "I", setup.HANDLERS + 16 * GP)
        outcome = programs.run(m, backend, load("fs", WHOLE) + access, 32)
        assert outcome.vector == GP  # that is where it went
        return
    expect(backend, m, load("fs", WHOLE) + access, value)


@pytest.mark.parametrize(
    ("selector", "read", "write"),
    [
        (setup.READ_ONLY, True, False),
        (setup.EXECUTE_ONLY, False, False),
        (setup.CONFORMING32, True, False),
        (setup.DATA, True, True),
        (0, False, False),
    ],
)
def test_kind_of_segment(backend: str, selector: int, read: bool, write: bool) -> None:
    if selector == setup.EXECUTE_ONLY:
        selector = 0  # it can't even be loaded
    for text, allowed in ((f"mov eax, gs:[{DATA:#x}]", read), (f"mov dword ptr gs:[{DATA:#x}], {DATA:#x}", write)):
        m = prepared()
        expect(backend, m, f"mov eax, {DATA:#x}; {load('gs', selector)}{text}", DATA if allowed else None)


def test_expand_down(backend: str) -> None:
    for offset, allowed in ((0x1000, True), (0xFFF, False)):
        m = prepared()
        m.put(setup.GDT + WHOLE, "Q", setup.descriptor(BASE - 0x1000, 0xFFF, 0x4097))
        expect(backend, m, f"{load('fs', WHOLE)}mov eax, fs:[{offset:#x}]", BASE if allowed else None)


# ---- leaving flat mode and coming back -------------------------------------------------------------------------------
@pytest.mark.parametrize("segment", ["ds", "es"])
def test_segment_stops_being_flat(backend: str, segment: str) -> None:
    """The instruction behind the load sees it, and so does the one that is executed again in the other mode."""
    m = whole()
    loop = f"""
        xor eax, eax
        mov edx, 3
        mov esi, 0x20
        mov edi, 0x20
    again:
        mov cx, {WHOLE:#x}
        mov {segment}, cx
        add eax, {segment}:[esi]
        mov cx, {setup.DATA:#x}
        mov {segment}, cx
        add eax, {segment}:[{DATA:#x} + esi]
        dec edx
        jnz again
    """
    expect(backend, m, loop, 3 * (BASE + 0x20 + DATA + 0x20))


def test_small_stack(backend: str) -> None:
    """A stack segment with a limit: the mode isn't flat, and pushes are checked."""
    m = prepared()
    m.put(setup.GDT + WHOLE, "Q", setup.descriptor(BASE, 0xFF, 0x4093))
    expect(backend, m, f"mov cx, {WHOLE:#x}; mov ss, cx; mov esp, 0x80; push 0x77; pop eax", 0x77)
    m = prepared()
    m.put(setup.GDT + WHOLE, "Q", setup.descriptor(BASE, 0xFF, 0x4093))
    expect(backend, m, f"mov cx, {WHOLE:#x}; mov ss, cx; mov esp, 0x80; mov ebp, 0x20; mov eax, [ebp]", BASE + 0x20)


def test_stack_of_16_bits(backend: str) -> None:
    """SP wraps at 64 KiB and leaves the upper half alone."""
    m = prepared()
    text = f"{load('ss', setup.DATA16)}mov esp, 0x12340000; .byte 0x66, 0x68, 0x78, 0x56; mov eax, esp"
    expect(backend, m, text, 0x1234FFFE)
    assert m.get(0xFFFE, "H") == (0x5678,)


def test_reach(backend: str) -> None:
    """What is kept of the limits for generated code."""
    m = whole()
    programs.run(m, backend, f"{load('fs', WHOLE)}{load('gs', 0)}{load('es', setup.READ_ONLY)}hlt", 32)
    s: State = m.s
    assert s[MODE] & mode.FLAT == 0  # ES can't be written
    assert [s[SEG_REACH + n] for n in (0, 2, 3, 4, 5)] == [0, 1 << 32, 1 << 32, 1 << 32, 0]


# ---- widths ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "value"),
    [
        (f"mov ebx, 0xffff0000; mov eax, [ebx + {DATA + 0x10000:#x}]", DATA),
        (f"mov ebx, 0x80000000; mov eax, [ebx * 2 + {DATA:#x}]", DATA),
        (f"mov ebx, 0xc0000000; mov edx, 0x80000000; mov eax, [edx + ebx * 2 + {DATA:#x}]", DATA),
        ("mov ebx, 0xffffffff; lea eax, [ebx + ebx * 8 + 16]", 7),
        ("mov esp, 0x8004; push 0x1111; mov eax, esp; pop ebx; add eax, ebx", 0x9111),
        ("mov ebp, 0x8000; leave; mov eax, esp; add eax, ebp", 0x8004 + 0x8000),
        ("mov ebx, 0xffff7000; mov esi, 0x1010; .byte 0x67, 0x8b, 0x00", 0x8010),  # MOV EAX, [BX+SI]
        (".byte 0x67, 0xa1, 0x10, 0x80", 0x8010),  # MOV EAX, moffs16
        ("mov ecx, 0xffff0000; xor eax, eax; .byte 0x67, 0xe3, 0x02; mov al, 1; mov ah, 2", 0x200),  # JCXZ
        ("mov ecx, 0x10002; xor eax, eax; again: inc eax; .byte 0x67, 0xe2, 0xfc; add eax, ecx", 0x10002),  # LOOP, CX
        ("mov ecx, 3; xor eax, eax; again: add eax, ecx; loop again", 6),
        (
            "xor eax, eax; .byte 0x66, 0xe8, 0, 0; mov eax, esp; .byte 0x66, 0x5b; sub eax, esp; neg eax",
            2,
        ),  # CALL rel16
        ("xor eax, eax; .byte 0x66, 0xeb, 0x02; mov al, 1; inc eax", 1),
        ("call next; next: pop eax", setup.CODE + 5),
        ("mov eax, 0x11223344; push eax; mov ax, [esp]; pop ebx; bswap eax", 0x44332211),
        ("mov eax, 0x7fffffff; inc eax; seto al", 0x80000001),
        ("mov eax, 0x19; aam; mov bx, ax; aad; cmp bx, 0x205; jne past; add eax, 0x10000; past: nop", 0x10019),
    ],
)
def test_widths(backend: str, text: str, value: int) -> None:
    expect(backend, prepared(), text, value)


def test_access_across_the_end(backend: str) -> None:
    """An operand that reaches beyond 4 GiB is outside its segment."""
    expect(backend, prepared(), "mov eax, [0xfffffffd]", None)
    expect(backend, prepared(), "mov ebp, 0xfffffffe; mov eax, [ebp]", None, STACK_FAULT)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (f"mov rbx, 0x123400000000 + {DATA:#x}; .byte 0x67, 0x8b, 0x03", DATA),  # MOV EAX, [EBX]
        ("mov rbx, 0x1234ffffffff; .byte 0x67, 0x48, 0x8d, 0x43, 0x03", 2),  # LEA RAX, [EBX + 3]
        ("mov rcx, 0x100000000; xor eax, eax; .byte 0x67, 0xe3, 0x02; mov al, 1; mov ah, 2", 0x200),  # JECXZ
        ("xor eax, eax; .byte 0x67, 0xe8, 0, 0, 0, 0; pop rbx; add eax, 5", 5),  # the linker's padding of a CALL
    ],
)
def test_short_addresses_in_64_bit_mode(backend: str, text: str, value: int) -> None:
    m = setup.long()
    for at in range(DATA, DATA + 0x100, 4):
        m.put(at, "I", at)
    outcome = programs.run(m, backend, f"{text}; hlt", 64)
    assert outcome.vector == -1
    assert eax(m) == value


# ---- task switches ------------------------------------------------------------------------------------------------
def test_fault_of_a_new_task_comes_before_its_first_instruction(backend: str) -> None:
    """The new task has a bad FS: #TS is raised in its context, though its code is known already."""
    m = prepared()
    selector = setup.TSS_OTHER_SELECTOR
    state = [0] * 26
    state[8], state[9], state[14] = setup.CODE, 2, setup.OTHER_STACK  # EIP, EFLAGS, ESP
    state[18:24] = [setup.DATA, setup.CODE32, setup.DATA, setup.DATA, setup.TSS_SELECTOR, 0]  # ES CS SS DS FS GS
    m.put(setup.TSS_OTHER, "26I", *state)
    m.put(setup.GDT + selector, "Q", setup.descriptor(setup.TSS_OTHER, 0x67, 0x89))
    far = programs.assemble("jmp past; past:", 32)
    assert len(far) == 2
    jump = bytes([0xEA, 0, 0, 0, 0]) + struct.pack("<H", selector)
    code = programs.assemble("cmp eax, 5; je out; inc eax; hlt; out: nop", 32) + jump
    m.s.ram[setup.CODE : setup.CODE + len(code)] = code
    m.s[GPR + RAX] = 5
    outcome = programs.Runner(m, backend).go()
    assert (outcome.vector, outcome.error, outcome.rip) == (TS, setup.TSS_SELECTOR, setup.CODE)
