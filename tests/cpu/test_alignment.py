"""Alignment check: which misaligned accesses raise #AC at CPL 3, and what comes first, on every back end.

What is expected was measured on the host's processor (Zen 4), as a process that sets EFLAGS.AC may do.
"""

from __future__ import annotations

import pytest

from pyemu.cpu import mode, tlb
from pyemu.cpu.faults import AC, GP, PF
from pyemu.cpu.state import CR0, CR4, FLAGS, GPR, OPMASK, RBX, TLB, TLB_ENTRIES, TLB_ENTRY_WORDS, XCR0
from tests.cpu import programs
from tests.cpu import system_setup as setup

DATA = 0x20000
HLT = -1  # privileged, so that a program which comes to its end raises #GP there

pytestmark = pytest.mark.parametrize("backend", programs.BACKENDS)


def user(check: bool = True) -> setup.Machine:
    m = setup.long_user()
    m.s[CR0] |= mode.CR0_AM
    m.s[CR4] |= mode.CR4_OSFXSR | mode.CR4_OSXSAVE
    m.s[XCR0], m.s[OPMASK + 1] = 0xE7, 0xFFFF
    m.s[FLAGS] |= int(check) << 18
    mode.update(m.s)
    return m


def vector(m: setup.Machine, backend: str, text: str, address: int) -> int:
    """The exception of some code with RBX at an address, or HLT."""
    m.s[GPR + RBX] = address
    m.s[GPR + 6] = m.s[GPR + 7] = address
    end = programs.run(m, backend, text + "; hlt")
    if end.vector == GP and end.rip == setup.CODE + len(programs.assemble(text)):
        return HLT
    assert end.error == 0 or end.vector == PF
    return end.vector


CASES = [
    ("mov rax, [rbx]", 8), ("mov eax, [rbx]", 4), ("mov ax, [rbx]", 2), ("mov al, [rbx]", 1), ("mov [rbx], rax", 8),
    ("add [rbx], eax", 4), ("lock add [rbx], eax", 4), ("xchg [rbx], rax", 8), ("lock cmpxchg8b [rbx]", 8),
    ("movups xmm0, [rbx]", 16), ("movups [rbx], xmm0", 16), ("movdqu xmm0, [rbx]", 16), ("lddqu xmm0, [rbx]", 16),
    ("addsd xmm0, [rbx]", 8), ("addss xmm0, [rbx]", 4), ("movhps xmm0, [rbx]", 8), ("pinsrw xmm0, [rbx], 0", 2),
    ("fld tbyte ptr [rbx]", 8), ("fld qword ptr [rbx]", 8), ("fild word ptr [rbx]", 2), ("fnstcw [rbx]", 2),
    ("stmxcsr [rbx]", 4), ("fnstenv [rbx]", 4), ("mov [rbx], ds", 2), ("mov rsp, rbx; push rax", 8),
    ("mov rsp, rbx; pop rax", 8), ("mov rsp, rbx; pushfq", 8), ("movsq", 8), ("lodsw", 2), ("bt [rbx], eax", 4),
    ("movnti [rbx], rax", 8), ("clflush [rbx]", 1), ("prefetcht0 [rbx]", 1), ("crc32 rax, qword ptr [rbx]", 8),
    ("fnsave [rbx]", 4),
    ("mov rsp, rbx; call next; next:", 8), ("pcmpistri xmm0, [rbx], 0", 16), ("pmovzxbw xmm0, [rbx]", 8),
    ("vmovdqu ymm0, [rbx]", 16), ("vmovdqu [rbx], ymm0", 16), ("vmovdqu64 zmm0, [rbx]", 16),
    ("vmovdqu32 [rbx]{k1}, zmm0", 4), ("vpaddd zmm0 {k1}, zmm1, [rbx]", 4), ("vpaddd zmm0, zmm1, [rbx]{1to16}", 4),
    ("vmaskmovps ymm0, ymm1, [rbx]", 1), ("vtestps ymm0, [rbx]", 16), ("vpcompressd [rbx] {k1}, zmm0", 4),
    ("vextracti32x4 [rbx] {k1}, zmm0, 1", 16), ("vextracti64x4 [rbx] {k1}, zmm0, 1", 16),
    ("vcvtps2ph [rbx], xmm0, 0", 8), ("vcvtps2ph [rbx], zmm0, 0", 16), ("vcvtps2ph [rbx] {k1}, zmm0, 0", 2),
    ("vpgatherdd zmm0 {k1}, [rbx + zmm1]", 1), ("vpscatterqq [rbx + zmm1] {k1}, zmm0", 1),
    ("vpcmpeqd ymm2, ymm2, ymm2; vgatherdpd ymm0, [rbx + xmm1], ymm2", 1),
]  # fmt: skip


@pytest.mark.parametrize(("text", "alignment"), CASES)
def test_natural_alignment(backend: str, text: str, alignment: int) -> None:
    for offset in range(1, 17):
        m = user()
        expected = AC if offset % alignment else HLT
        assert vector(m, backend, text, DATA + offset) == expected, f"offset {offset}"


@pytest.mark.parametrize(("text", "alignment"), [("movaps xmm0, [rbx]", 16), ("addps xmm0, [rbx]", 16)])
def test_operands_that_must_be_aligned_raise_gp(backend: str, text: str, alignment: int) -> None:
    assert vector(user(), backend, text, DATA + alignment // 2) == GP
    assert vector(user(), backend, text, DATA + 1) == GP
    assert vector(user(), backend, text, DATA) == HLT


STORES = ["mov [rbx], rax", "vextracti32x4 [rbx] {k1}, zmm0, 1", "vcvtps2ph [rbx], xmm0, 0", "vcvtps2ph [rbx], ymm0, 0"]


@pytest.mark.parametrize("text", ["mov rax, [rbx]", "movups xmm0, [rbx]", *STORES])
def test_priorities(backend: str, text: str) -> None:
    """#AC comes before #PF, and behind the #GP of an address that is not canonical."""
    for address, expected in ((0x30000, PF), (0x30001, AC), (0x2FFFC, AC), ((1 << 47) + 1, GP), (DATA + 0xFFC, AC)):
        m = user()
        setup.unmap(m, 0x30000)
        assert vector(m, backend, text, address) == expected, hex(address)


def test_nothing_is_checked_without_ac_or_am(backend: str) -> None:
    assert vector(user(check=False), backend, "mov rax, [rbx]", DATA + 1) == HLT
    m = user()
    m.s[CR0] &= ~mode.CR0_AM
    mode.update(m.s)
    assert vector(m, backend, "mov rax, [rbx]", DATA + 1) == HLT


def test_switched_on_by_the_program(backend: str) -> None:
    """The page is in the TLB and the code has run unchecked before; afterwards the checks are off again."""
    m = user(check=False)
    text = "mov ecx, 3; again: mov rax, [rbx]; dec ecx; jnz again; pushfq; btc dword ptr [rsp], 18; popfq; "
    text += "dec edx; js again_checked; again_checked: mov ecx, 1; mov rax, [rbx]"
    assert vector(m, backend, text, DATA + 1) == AC
    off = user()
    text = "mov rax, [rbx-1]; pushfq; btc dword ptr [rsp], 18; popfq; mov rax, [rbx]"
    assert vector(off, backend, text, DATA + 1) == HLT


def test_flushes_reach_the_table_of_checked_accesses(backend: str) -> None:
    m = user()
    assert vector(m, backend, "mov rax, [rbx]", DATA) == HLT
    entry = TLB + (tlb.USER_ALIGNED * TLB_ENTRIES + (DATA >> 12)) * TLB_ENTRY_WORDS
    assert m.s[entry] & tlb.ALIGN_FLAG
    tlb.flush_all(m.s)
    assert m.s[entry] == tlb.INVALID
