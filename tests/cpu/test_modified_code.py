"""Code that changes itself: a store is seen by the very next instruction, on every back end (SDM 3, 8.1.3; what the
processors do is stronger than what the manual promises, and guests rely on it)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pyemu.cpu import mode, tlb
from pyemu.cpu.state import CR0, CR4, GPR, RAX, RBX, RCX, RDI, RDX, RSI, RSP, VEC
from tests.cpu import programs
from tests.cpu import system_setup as setup

CODE = setup.CODE
TWO = "mov eax, 2"  # b8 02 00 00 00; the test changes the immediate to 7, or all of it

pytestmark = pytest.mark.parametrize("backend", programs.BACKENDS)


def machine() -> setup.Machine:
    m = setup.long()
    m.s[CR4] |= mode.CR4_OSFXSR | 1 << 10
    m.s[CR0] |= mode.CR0_NE | mode.CR0_MP
    mode.update(m.s)
    return m


def find(text: str, part: str = TWO) -> int:
    """Address of an instruction in a program."""
    return CODE + programs.assemble(text).index(programs.assemble(part))


def patched(text: str) -> tuple[str, int]:
    """A program with `PATCH` replaced by the address of the immediate of TWO, which may depend on it; that address."""
    at = CODE + 0x11
    for _ in range(4):
        now = text.replace("PATCH", f"{at:#x}")
        if find(now) + 1 == at:
            return now, at
        at = find(now) + 1
    raise AssertionError(f"no place for {text}")


def run(backend: str, text: str, prepare: Callable[[setup.Machine], None] = lambda m: None) -> setup.Machine:
    """Run a program with PATCH."""
    m = machine()
    prepare(m)
    end = programs.run(m, backend, patched(text)[0] + "; hlt")
    assert end.vector == -1
    return m


STORES = [
    "mov byte ptr [PATCH], 7", "mov dword ptr [PATCH], 7", "add byte ptr [PATCH], 5", "mov rbx, PATCH; mov [rbx], cl",
    "mov rbx, PATCH; lock xadd [rbx], dl", "mov rdi, PATCH; mov al, 7; stosb", "mov rbx, PATCH; xchg [rbx], cl",
    "mov rdi, PATCH; mov esi, 0x20000; mov ecx, 4; rep movsb", "mov rbx, PATCH; movd [rbx], xmm1",
    "mov rbx, PATCH; inc byte ptr [rbx]; add byte ptr [rbx], 4", "mov rbx, PATCH; cmpxchg [rbx], cl",
    "mov rbx, PATCH; movss [rbx], xmm1", "push 7; mov rbx, PATCH; pop word ptr [rbx]; add rsp, 6",
]  # fmt: skip


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("again", [1, 3])
def test_next_instruction(backend: str, store: str, again: int) -> None:
    """Changed in the block that is running, once and in a loop that changes it back."""

    def prepare(m: setup.Machine) -> None:
        m.s[GPR + RCX], m.s[GPR + RDX], m.s[GPR + RAX] = 7, 5, 2
        m.s[VEC + 8] = 7
        m.s.ram[0x20000:0x20004] = b"\x07\0\0\0"

    if again > 1:
        text = (
            f"mov r8d, {again}; xor r9d, r9d; jmp start; back: mov byte ptr [PATCH], 2; mov ecx, 7; mov edx, 5; "
            f"push 2; pop rax; start: {store}; {TWO}; add r9d, eax; dec r8d; jnz back"
        )
        assert run(backend, text, prepare).s[GPR + 9] == 7 * again
    else:
        assert run(backend, f"{store}; {TWO}", prepare).s[GPR + RAX] == 7


def test_longer_and_shorter_instructions(backend: str) -> None:
    """The store changes where the following instructions begin."""
    text = f"mov ebx, 0; mov rbx, PATCH - 1; mov dword ptr [rbx], 0xc3ff9090; mov byte ptr [rbx + 4], 0x90; {TWO}"
    m = run(backend, text)
    assert m.s[GPR + RAX] == 0
    assert m.s[GPR + RBX] == patched(text)[1]  # INC EBX ran


def test_a_block_that_was_run_before(backend: str) -> None:
    """Called, changed, called again; from another page, too."""
    body = programs.assemble("mov eax, 2; ret", address=0x8000)
    m = machine()
    m.s.ram[0x8000 : 0x8000 + len(body)] = body
    m.s[GPR + RSP] = setup.INNER_STACK
    text = "mov r8, 0x8000; mov ecx, 50; again: call r8; add edx, eax; dec ecx; jnz again; "
    text += "mov byte ptr [0x8001], 7; mov ecx, 50; more: call r8; add edx, eax; dec ecx; jnz more; hlt"
    assert programs.run(m, backend, text).vector == -1
    assert m.s[GPR + RDX] == 50 * 2 + 50 * 7


def test_through_another_address(backend: str) -> None:
    """The page is mapped twice; the store goes to the alias."""
    m = machine()
    m.put(setup.PT + 8 * 0x30, "Q", 0x8000 | 7)
    tlb.flush_all(m.s)
    body = programs.assemble("mov byte ptr [rbx], 7; mov eax, 2; ret", address=0x8000)
    m.s.ram[0x8000 : 0x8000 + len(body)] = body
    m.s[GPR + RSP] = setup.INNER_STACK
    at = 0x30000 + body.index(b"\xb8") + 1
    end = programs.run(m, backend, f"mov rbx, 0x20000; mov r8, 0x8000; call r8; mov rbx, {at:#x}; call r8; hlt")
    assert (end.vector, m.s[GPR + RAX]) == (-1, 7)


def test_instruction_across_a_page(backend: str) -> None:
    """Its second page is changed by the instruction before."""
    body = programs.assemble("mov byte ptr [rbx], 7; mov eax, 2; ret", address=0x7FF8)
    at = 0x7FFE - body.index(b"\xb8")
    for target in (0x7FFF, 0x8000):
        m = machine()
        m.s.ram[at : at + len(body)] = body
        m.s[GPR + RSP] = setup.INNER_STACK
        text = f"mov rbx, 0x20000; mov r8, {at:#x}; call r8; mov rbx, {target:#x}; call r8; hlt"
        assert programs.run(m, backend, text).vector == -1
        assert m.s[GPR + RAX] == (7 if target == 0x7FFF else 2 | 7 << 8)


def test_by_a_system_structure(backend: str) -> None:
    """The frame of an interrupt lands on code, which is run after IRET."""
    m = machine()
    programs.handler(m, 0x30, "mov ebx, 0x1234; iretq")
    target = 0x8000
    body = programs.assemble("mov eax, 2; hlt", address=target)
    m.s.ram[target : target + len(body)] = body
    text = f"mov r8d, {target:#x}; mov rsp, {target + 0x30:#x}; mov ecx, 7; push rcx; pop rcx; "
    text += f"call sub; sub: pop rdx; mov rsp, {target + 8:#x}; push 0x0; mov dword ptr [{target + 1:#x}], ecx; "
    text += f"mov byte ptr [{target:#x}], 0xb8; mov byte ptr [{target + 5:#x}], 0xf4; mov rsp, 0x9000; int 0x30; jmp r8"
    end = programs.run(m, backend, text)
    assert (end.vector, m.s[GPR + RAX], m.s[GPR + RBX]) == (-1, 7, 0x1234)


def test_repeated_store_over_itself(backend: str) -> None:
    """REP STOSB runs over its own bytes: it has been fetched, and ends; what follows is new."""
    text = "mov edi, START; mov ecx, 6; mov al, 0x90; rep stosb; inc ebx; inc ebx; hlt"
    start = CODE + len(programs.assemble("mov edi, 0x6000; mov ecx, 6; mov al, 0x90; "))
    m = machine()
    end = programs.run(m, backend, text.replace("START", f"{start:#x}"))
    assert (end.vector, m.s[GPR + RBX], m.s[GPR + RCX]) == (-1, 0, 0)
    assert m.s[GPR + RDI] == start + 6
    assert m.s[GPR + RSI] == 0
