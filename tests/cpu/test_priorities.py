"""Which exception an instruction raises if several are due, on every back end (SDM 3, table 6-2; AMD's manual, volume
2, table 8-9)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pyemu.cpu import mode, segments
from pyemu.cpu.faults import DB, GP, NM, PF, SS, UD
from pyemu.cpu.state import CR0, CR4, CS, DS, FLAGS, GPR, RBX, RCX, RIP, SEG_ATTR, SEG_LIMIT
from tests.cpu import programs
from tests.cpu import system_setup as setup

CODE, DATA, ABSENT = setup.CODE, 0x20000, 0x30000

pytestmark = pytest.mark.parametrize("backend", programs.BACKENDS)


def run(
    backend: str, code: bytes | str, of: Callable[[], setup.Machine] = setup.long, at: int = CODE, **changes: int
) -> programs.Outcome:
    """Run code at an address; ABSENT isn't mapped. `changes`: bits of cr0, cr4 and flags, rbx; ist for #SS on a
    stack of its own."""
    m = of()
    bits = 64 if of in (setup.long, setup.long_user) else 32
    data = programs.assemble(code, bits, at) if isinstance(code, str) else code
    m.s.ram[at : at + len(data)] = data
    if of in (setup.long, setup.long_user, setup.compatibility, setup.compatibility_user):
        setup.unmap(m, ABSENT)
    m.s[CR0] |= changes.get("cr0", 0)
    m.s[CR4] |= mode.CR4_OSFXSR | 1 << 10 | changes.get("cr4", 0)
    m.s[GPR + RBX] = changes.get("rbx", DATA)
    m.s[FLAGS] |= changes.get("flags", 0)
    m.s[RIP] = at
    if "ist" in changes:
        setup.set_gate(m, SS, 0x8E, low=1)
    mode.update(m.s)
    return programs.Runner(m, backend).go()


# ---- fetch and decoding --------------------------------------------------------------------------------------------
def test_fifteen_bytes_at_most(backend: str) -> None:
    assert run(backend, b"\x66" * 14 + b"\x90\xf4").vector == -1
    end = run(backend, b"\x66" * 15 + b"\x90\xf4")
    assert (end.vector, end.error, end.rip) == (GP, 0, CODE)
    end = run(backend, b"\x66" * 16)
    assert end.vector == GP


def test_too_long_across_a_page_that_is_absent(backend: str) -> None:
    """15 bytes in the present page: nothing of the next is needed. With fewer, its fetch fault comes first."""
    assert run(backend, b"\x66" * 15, at=ABSENT - 15).vector == GP
    end = run(backend, b"\x66" * 14, at=ABSENT - 14)
    assert (end.vector, end.cr2, end.rip) == (PF, ABSENT, ABSENT - 14)


@pytest.mark.parametrize("code", [b"\xb8\x01\x02", b"\x0f", b"\x48", b"\x81\x03\x01\x00\x00", b"\xf0"])
def test_fetch_fault_in_the_second_page(backend: str, code: bytes) -> None:
    end = run(backend, code, at=ABSENT - len(code))
    assert (end.vector, end.error, end.cr2, end.rip) == (PF, 0, ABSENT, ABSENT - len(code))


def test_undefined_opcode_at_the_end_of_a_page(backend: str) -> None:
    """What is undefined already needs no further byte."""
    assert run(backend, b"\x0f\x0b", at=ABSENT - 2).vector == UD
    assert run(backend, b"\x06", at=ABSENT - 1).vector == UD


def test_end_of_the_code_segment(backend: str) -> None:
    """#GP(0) for an instruction that reaches beyond the limit, even if its first bytes are undefined."""
    for code, vector in ((b"\xb8\x01\x00\x00\x00", GP), (b"\x90", DB), (b"\x0f\x0b", GP)):
        m = setup.protected()
        m.s.ram[0x6FFF : 0x6FFF + len(code)] = code
        m.s[SEG_LIMIT + CS] = 0x6FFF
        m.s[RIP] = 0x6FFF
        if vector == DB:
            m.s[FLAGS] |= 1 << 8
            mode.update(m.s)
        end = programs.Runner(m, backend).go()
        assert (end.vector, end.rip) == (vector, 0x7000 if vector == DB else 0x6FFF), code.hex()


# ---- LOCK ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "code",
    ["f0 90", "f0 01 d8", "f0 8b 03", "f0 89 03", "f0 39 03", "f0 0f a3 03", "f0 f4", "f0 0f 20 c0", "f0 ff 33"],
)
def test_lock_where_it_is_not_allowed(backend: str, code: str) -> None:
    """#UD, also before the privilege check and the page fault."""
    for of in (setup.long, setup.long_user):
        for rbx in (DATA, ABSENT):
            assert run(backend, bytes.fromhex(code) + b"\xf4", of, rbx=rbx).vector == UD


@pytest.mark.parametrize("code", ["f0 01 03", "f0 0f b1 0b", "f0 0f c7 0b", "f0 0f ab 03", "f0 f7 1b", "f0 87 03"])
def test_lock_where_it_is(backend: str, code: str) -> None:
    assert run(backend, bytes.fromhex(code) + b"\xf4").vector == -1
    assert run(backend, bytes.fromhex(code) + b"\xf4", rbx=ABSENT).vector == PF


# ---- units that are switched off -----------------------------------------------------------------------------------
TS, EM, MP = 8, 4, 2


@pytest.mark.parametrize(
    ("text", "cr0", "vector"),
    [
        ("fld1", TS, NM), ("fld1", EM, NM), ("fwait", TS, -1), ("fwait", MP | TS, NM), ("fwait", EM, -1),
        ("movq mm0, [rbx]", TS, NM), ("movq mm0, [rbx]", EM, UD), ("movq mm0, [rbx]", EM | TS, UD),
        ("movaps xmm0, [rbx]", TS, NM), ("movaps xmm0, [rbx]", EM, UD), ("movaps xmm0, [rbx]", EM | TS, UD),
        ("movaps xmm0, [rbx + 1]", TS, NM), ("fxsave [rbx]", TS, NM), ("fxsave [rbx]", EM, NM),
        ("fxsave [rbx + 1]", TS, NM), ("prefetcht0 [rbx]", TS, -1), ("movnti [rbx], eax", TS | EM, -1),
        ("stmxcsr [rbx]", TS, NM), ("stmxcsr [rbx]", EM, UD), ("lfence", TS | EM, -1), ("fnstcw [rbx]", TS, NM),
        ("fnstsw ax", TS, NM), ("emms", EM, UD), ("emms", TS, NM), ("crc32 eax, ebx", TS | EM, -1),
        ("popcnt eax, ebx", TS | EM, -1), ("pause", TS | EM, -1),
    ],
)  # fmt: skip
def test_switched_off(backend: str, text: str, cr0: int, vector: int) -> None:
    """Before any memory is touched."""
    for rbx in (DATA, ABSENT):
        end = run(backend, text + "; hlt", cr0=cr0, rbx=rbx)
        expected = vector
        if vector == -1 and rbx == ABSENT and "[" in text and "prefetch" not in text:
            expected = PF
        assert end.vector == expected, f"rbx {rbx:#x}"


# ---- privilege and memory ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text",
    ["lgdt [rbx]", "lmsw [rbx]", "lldt [rbx]", "ltr [rbx]", "invlpg [rbx]", "mov cr0, rax", "mov rax, dr0", "wrmsr"],
)
def test_privilege_before_memory(backend: str, text: str) -> None:
    end = run(backend, text, setup.long_user, rbx=ABSENT)
    assert (end.vector, end.error) == (GP, 0)


@pytest.mark.parametrize(
    ("text", "vector"),
    [
        ("mov rax, [rbx]", GP), ("mov rsp, rbx; pop rax", SS), ("mov rbp, rbx; mov rax, [rbp]", SS),
        ("mov rbp, rbx; mov rax, ds:[rbp]", SS), ("mov rsp, rbx; push rax", SS),
        ("mov rbp, rbx; mov [rbp + 8], al", SS),
        ("jmp rbx", GP), ("push rbx; ret", GP), ("mov rsi, rbx; lodsb", GP), ("mov rax, fs:[rbx]", GP),
        ("movaps xmm0, [rbx + 1]", GP), ("mov rsp, rbx; call next; next: hlt", SS),
    ],
)  # fmt: skip
def test_addresses_that_are_not_canonical(backend: str, text: str, vector: int) -> None:
    # A prefix that is ignored in 64-bit mode changes nothing: the base register decides.
    end = run(backend, text + "; hlt", rbx=1 << 47 | 0x1000, ist=1)
    assert (end.vector, end.error) == (vector, 0)


@pytest.mark.parametrize(("text", "vector"), [("mov eax, [ebx]", GP), ("mov eax, ss:[ebx]", SS)])
def test_segment_limit_before_page_fault(backend: str, text: str, vector: int) -> None:
    m = setup.compatibility()
    setup.unmap(m, ABSENT)
    segments.set_segment(m.s, DS, setup.DATA, 0, ABSENT - 1, m.s[SEG_ATTR + DS])
    m.s[SEG_LIMIT + 2] = ABSENT - 1
    m.s[GPR + RBX] = ABSENT
    end = programs.run(m, backend, text + "; hlt", 32)
    assert (end.vector, end.error) == (vector, 0)


def test_alignment_of_sse_before_page_fault(backend: str) -> None:
    assert run(backend, "movaps xmm0, [rbx + 8]; hlt", rbx=ABSENT).vector == GP
    assert run(backend, "movaps xmm0, [rbx]; hlt", rbx=ABSENT).vector == PF


def test_single_step_gives_way_to_a_fault(backend: str) -> None:
    end = run(backend, "pushfq; or dword ptr [rsp], 0x100; popfq; mov al, [rbx]; hlt", rbx=ABSENT)
    assert end.vector == PF
    assert end.rflags & 1 << 8


@pytest.mark.parametrize(("selector", "vector"), [(0x5A, -1), (0x5B, -1), (0x59, GP)])
def test_arpl_writes_only_what_changes(backend: str, selector: int, vector: int) -> None:
    """A selector that stays may be where it could not be written: so it is on Zen 4 (the SDM has #GP in any case)."""
    m = setup.protected()
    m.load(DS, setup.READ_ONLY)
    code = programs.assemble("arpl [ebx], cx\nhlt", 32, CODE)
    m.s.ram[CODE : CODE + len(code)] = code
    m.put(DATA, "H", selector)
    m.s[GPR + RBX], m.s[GPR + RCX] = DATA, 2
    mode.update(m.s)
    end = programs.Runner(m, backend).go()
    assert end.vector == vector
    assert m.get(DATA, "H") == (selector,)
