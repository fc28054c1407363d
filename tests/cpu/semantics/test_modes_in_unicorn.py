"""Stack, control flow, division faults, decimal arithmetic and 16-bit and 32-bit modes against Unicorn."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyemu.cpu import flags as fl
from pyemu.cpu.faults import BR, DE, UD
from pyemu.cpu.state import RAX, RBP, RBX, RCX, RDI, RSI, RSP
from tests.cpu.semantics import machines
from tests.cpu.semantics.machines import CODE, DATA, STACK, Situation
from tests.cpu.semantics.oracle import PHASES, assemble, defined_flags, flag_words, integers64

POINTERS = {RDI: DATA + 0x40, RSI: DATA + 0x80, RBX: DATA + 0x123, RSP: STACK, RBP: STACK + 0x30}

STACK_64 = """push rax; push r9; push 5; push -2; push 0x12345678; push qword ptr [rdi]; push ax; push word ptr [rdi]; pop rcx; pop r15
    pop rsp; pop qword ptr [rdi]; pop qword ptr [rsp + 8]; pop cx; pop word ptr [rsp]; push rsp; pushfq; leave; enter 16, 0; enter 8, 1
    enter 32, 3""".replace("\n", ";").split(";")
STACK_32 = """push eax; push 5; push 0x12345678; push dword ptr [edi]; push ax; pop ecx; pop esp; pop dword ptr [edi]
    pop dword ptr [esp + 4]; pop word ptr [esp]; pusha; popa; pushaw; popaw; pushfd; hex 669c; leave; enter 16, 0; enter 8, 2; push ds; push cs
    """.strip().replace("\n", ";").split(";")  # fmt: skip
STACK_16 = (
    "push ax;push eax;pop cx;pop ecx;pusha;popa;pushf;leave;enter 16, 0;enter 8, 3;push 5;push word ptr [di]".split(";")
)

CONTROL = """jmp 0x1080; jmp 0x2000; jo 0x1020; jno 0x1020; jb 0x1020; jae 0x1020; je 0x1020; jne 0x1800; jbe 0x1020; ja 0x1020; js 0x1020
    jns 0x1800; jp 0x1020; jnp 0x1020; jl 0x1020; jge 0x1800; jle 0x1020; jg 0x1020; call 0x1800; ret; ret 8; loop 0x1010; loope 0x1010
    loopne 0x1010; ud2""".replace("\n", ";").split(";")
CONTROL_64 = "jmp rax;call rax;jmp qword ptr [rdi];call qword ptr [rdi];jrcxz 0x1010;jecxz 0x1010".split(";")
CONTROL_32 = "jmp eax;call eax;jmp dword ptr [edi];call dword ptr [edi];jecxz 0x1010;jcxz 0x1010;jmp ax;call word ptr [edi]".split(
    ";"
)
CONTROL_16 = "jmp ax;call ax;jmp word ptr [di];call word ptr [di];jcxz 0x1010;jecxz 0x1010".split(";")

DIVIDE_64 = [
    f"{name} {by}" for name in ("div", "idiv") for by in ("cl", "cx", "ecx", "rcx", "byte ptr [rdi]", "qword ptr [rdi]")
]
DIVIDE_32 = [f"{name} {by}" for name in ("div", "idiv") for by in ("cl", "cx", "ecx", "dword ptr [edi]")]

DECIMAL = ["daa", "das", "aaa", "aas", "aam", "aad", "hex d407", "hex d507", "hex d400"]

PLAIN_32 = """add eax, ecx; adc ax, dx; sbb byte ptr [edi], cl; sub dword ptr [ebx + esi], 5; inc eax; dec cx; xchg ecx, eax; mov eax, [0x4040]
    mov [0x4040], ax; mov ah, [ebx + 4*ecx]; lea eax, [ebx + 4*ecx + 7]; cmpxchg8b [edi]; imul eax, ecx, 7; shl eax, cl; rcr word ptr [edi], 3
    bt dword ptr [edi + 32], ecx; movzx eax, byte ptr [edi]; cwde; cdq; xlatb; bound eax, [edi]; bswap ecx; mov ax, ds
    cmovb eax, dword ptr [edi]; sete al; lahf; lodsd; stosb; movsw; cmpsb; scasd; rep movsb; rep stosd; repe cmpsb; repne scasb
    """.strip().replace("\n", ";").split(";")  # fmt: skip
PLAIN_16 = """add ax, cx; adc eax, edx; mov al, [bx + si]; mov [bp + di], cx; mov eax, [bx + 8]; add word ptr [di], 5; lea ax, [bp + si + 3]
    lea eax, [ebx + ecx]; movsw; lodsb; stosd; inc ax; imul cx; mul ecx; rol ax, cl; mov ax, [0x4040]; push ds; les ax, [di]; lds bx, [si]
    mov es, ax; mov ss, dx; xlatb""".replace("\n", ";").split(";")
STRINGS_64 = "movsb;movsq;lodsd;stosw;cmpsq;scasb;rep movsb;rep stosq;repe cmpsb;repne scasb;rep lodsb;hex 67a4;hex 67f3aa".split(
    ";"
)

EXPECTED = {"div": DE, "idiv": DE, "hex": DE, "bound": BR, "ud2": UD}  # the only exceptions there may be

CASES = [(64, t) for t in STACK_64 + CONTROL + CONTROL_64 + DIVIDE_64 + STRINGS_64]
CASES += [(32, t) for t in STACK_32 + CONTROL + CONTROL_32 + DIVIDE_32 + DECIMAL + PLAIN_32]
CASES += [(16, t) for t in STACK_16 + CONTROL + CONTROL_16 + DECIMAL + PLAIN_16]


@st.composite
def situations(draw: st.DrawFn, bits: int, text: str) -> Situation:
    """Registers that point into memory, except for those that hold data. Branch targets are near."""
    branch = text.startswith(("jmp", "call", "ret"))
    mask = (1 << max(bits, 32)) - 1
    gpr = [draw(integers64) & mask for _ in range(16 if bits == 64 else 8)] + [0] * (0 if bits == 64 else 8)
    for register, value in POINTERS.items():
        gpr[register] = value
    gpr[RCX] = draw(st.one_of(st.integers(0, 40), st.just(gpr[RCX] & 0xFF)))
    if branch:
        gpr[RAX] &= 0x1FFF
    words = [CODE + 0x100 if branch else draw(integers64) for _ in range(5)]
    block = b"".join(w.to_bytes(8, "little") for w in words)
    size = STACK + 0x1000 - DATA
    direction = draw(st.sampled_from([0, fl.DF]))
    return Situation(tuple(gpr), draw(flag_words) | direction | 2, CODE, (block * (size // len(block) + 1))[:size])


@pytest.mark.parametrize(("bits", "text"), [(bits, text.strip()) for bits, text in CASES])
def test_same_as_unicorn(bits: int, text: str) -> None:
    code = assemble(text, bits)

    @settings(max_examples=10, deadline=None, database=None, derandomize=True, phases=PHASES)
    @given(situations(bits, text))
    def body(given: Situation) -> None:
        ours, form = machines.machine(bits).run(code, given)
        theirs = machines.other(bits).run(code, given)
        found = ours.differences(theirs, (defined_flags(form) & fl.ARITHMETIC) | fl.DF)
        assert ours.vector in (-1, EXPECTED.get(text.split()[0], -1)), f"{text}: exception {ours.vector}"
        assert not found, f"{text} ({code.hex(' ')}, {form.name}): pyemu != Unicorn\n{found}\nfrom {given}"

    body()
