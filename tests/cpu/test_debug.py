"""Debug registers, single-stepping and RF, as small programs on every back end. Addresses of the expectations were
compared with the processor's manual (SDM 3, 18.2 to 18.4) and with Bochs where tests/cpu/judges says so."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pyemu.cpu import cpuid, mode, models
from pyemu.cpu.faults import DB, PF
from pyemu.cpu.flags import RF, TF
from pyemu.cpu.state import (
    CR4,
    DEBUGCTL,
    DR,
    EFER,
    FLAGS,
    GPR,
    HALTED,
    LSTAR,
    OPMASK,
    PENDING_DEBUG,
    RAX,
    RBX,
    RCX,
    RDI,
    RSI,
    SFMASK,
    STAR,
    VEC,
    XCR0,
)
from tests.cpu import programs
from tests.cpu import system_setup as setup

CODE, DATA = setup.CODE, 0x20000
B0, B1, B3, BD, BS, BT = 1, 2, 8, 1 << 13, 1 << 14, 1 << 15
ONES = 0xFFFF0FF0
ENABLE = f"mov rax, {DATA:#x}; mov dr0, rax; "

pytestmark = pytest.mark.parametrize("backend", programs.BACKENDS)


def dr7(kind: int, length: int = 1, n: int = 0, enable: int = 1) -> int:
    """DR7 with one breakpoint."""
    return {1: 0, 2: 1, 8: 2, 4: 3}[length] << (18 + 4 * n) | kind << (16 + 4 * n) | enable << (2 * n)


def watch(kind: int, length: int = 1, address: int = DATA) -> str:
    """Code that enables DR0."""
    return f"mov rax, {address:#x}; mov dr0, rax; mov rax, {dr7(kind, length):#x}; mov dr7, rax; "


def after(text: str) -> int:
    """Address behind some code."""
    return CODE + len(programs.assemble(text))


def stop(backend: str, text: str, of: Callable[[], setup.Machine] = setup.long) -> programs.Outcome:
    """How a program ends."""
    return programs.run(of(), backend, text)


# ---- data ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("length", "access", "hit"),
    [
        (1, "mov byte ptr [rbx], 1", True),
        (1, "mov byte ptr [rbx+1], 1", False),
        (2, "mov byte ptr [rbx+1], 1", True),
        (2, "mov byte ptr [rbx+2], 1", False),
        (4, "mov qword ptr [rbx-5], rcx", True),
        (4, "mov qword ptr [rbx-8], rcx", False),
        (4, "movups [rbx-15], xmm0", True),
        (8, "mov byte ptr [rbx+7], 1", True),
        (8, "mov byte ptr [rbx+8], 1", False),
        (8, "mov rcx, [rbx]", False),  # only writes are watched
        (8, "add [rbx+4], ecx", True),
        (8, "cmpxchg [rbx+4], ecx", True),
        (8, "push rcx", False),
        (1, "mov dword ptr [rbx-2], ecx", True),
    ],
)
def test_data_write(backend: str, length: int, access: str, hit: bool) -> None:
    text = watch(1, length) + f"mov rbx, {DATA:#x}; {access}; "
    m = setup.long()
    m.s[CR4] |= 1 << 9
    mode.update(m.s)
    end = programs.run(m, backend, text + "inc rdx; hlt")
    if hit:
        assert (end.vector, end.rip, end.dr6) == (DB, after(text), ONES | B0)
    else:
        assert (end.vector, end.dr6) == (-1, ONES)


@pytest.mark.parametrize("access", ["mov cl, [rbx]", "mov [rbx], cl", "cmp [rbx-4], rcx", "xchg [rbx], ecx", "lodsb"])
def test_data_access(backend: str, access: str) -> None:
    text = watch(3) + f"mov rbx, {DATA:#x}; mov rsi, rbx; {access}; "
    end = stop(backend, text + "nop; hlt")
    assert (end.vector, end.rip, end.dr6) == (DB, after(text), ONES | B0)
    assert not end.rflags & RF


def test_the_page_was_in_the_tlb_and_other_data_of_it_is_free(backend: str) -> None:
    text = f"mov rbx, {DATA:#x}; mov [rbx], rcx; mov rcx, [rbx+8]; " + watch(1)
    text += "mov ecx, 100; again: mov [rbx+8], rcx; dec ecx; jnz again; mov [rbx], ecx; "
    end = stop(backend, text + "nop; hlt")
    assert (end.vector, end.rip) == (DB, after(text))
    assert end.executed == 7 + 300 + 1 + 1 + 1 + 1  # with the exception and the handler's HLT


def test_disabled_again(backend: str) -> None:
    text = watch(1) + f"mov rbx, {DATA:#x}; xor eax, eax; mov dr7, rax; mov [rbx], rcx; hlt"
    assert stop(backend, text).vector == -1


def test_across_a_page(backend: str) -> None:
    text = watch(1, 1, DATA + 0x1000) + f"mov rbx, {DATA + 0xFFC:#x}; mov [rbx], rcx; "
    end = stop(backend, text + "nop; hlt")
    assert (end.vector, end.rip) == (DB, after(text))


def test_two_hit_at_once_and_other_bits_stay(backend: str) -> None:
    value = dr7(1) | dr7(3, 2, 3) | dr7(1, 1, 1, 0)  # DR1 has the address, but is off: B1 and B2 are cleared
    text = f"mov rax, {DATA:#x}; mov dr0, rax; mov dr1, rax; mov dr3, rax; mov rax, {0xFFFF2FF6:#x}; mov dr6, rax; "
    text += f"mov rax, {value:#x}; mov dr7, rax; mov rbx, {DATA:#x}; mov [rbx], cx; "
    end = stop(backend, text + "nop; hlt")
    assert (end.vector, end.rip, end.dr6) == (DB, after(text), ONES | BD | B0 | B3)


def test_repeated_string(backend: str) -> None:
    text = watch(1, 1, DATA + 20) + f"mov edi, {DATA:#x}; mov ecx, 30; mov al, 7; "
    m = setup.long()
    end = programs.run(m, backend, text + "rep stosb; nop; hlt")
    assert (end.vector, end.rip, m.s[GPR + RCX], m.s[GPR + RDI]) == (DB, after(text), 9, DATA + 21)
    assert not end.rflags & RF  # as on Zen 4; only interrupts find it set in the middle of a repetition


def test_a_fault_of_the_same_instruction_wins(backend: str) -> None:
    text = watch(3, 8) + f"mov rbx, {DATA:#x}; mov rdi, 0x8000000000000000; mov rsi, rbx; "
    end = stop(backend, text + "movsb; nop; hlt")
    assert (end.vector, end.dr6) == (13, ONES)


def scattering() -> setup.Machine:
    """ZMM1 has two indices; an element at the second one, from DATA on, isn't there."""
    m = setup.long()
    m.s[CR4] |= mode.CR4_OSFXSR | mode.CR4_OSXSAVE
    m.s[XCR0], m.s[OPMASK + 1], m.s[VEC + 8] = 0xE7, 3, 0x10000 << 32
    m.s[GPR + RBX] = DATA
    setup.unmap(m, DATA + 0x10000)
    mode.update(m.s)
    return m


def test_elements_before_a_fault_have_their_traps(backend: str) -> None:
    """In place of the fault, which comes when the instruction goes on (SDM 2, VPSCATTERDD)."""
    m, text = scattering(), watch(1, 4)
    end = programs.run(m, backend, text + "vpscatterdd [rbx + zmm1] {k1}, zmm0; hlt")
    assert (end.vector, end.rip, end.dr6, m.s[OPMASK + 1]) == (DB, after(text), ONES | B0, 2)
    m = scattering()
    programs.handler(m, DB, "iretq")
    end = programs.run(m, backend, text + "vpscatterdd [rbx + zmm1] {k1}, zmm0; hlt")
    assert (end.vector, end.rip, end.cr2) == (PF, after(text), DATA + 0x10000)


@pytest.mark.parametrize("text", ["vpscatterdd [rbx + zmm1] {k1}, zmm0", "vpgatherdd zmm0 {k1}, [rbx + zmm1]"])
def test_elements_before_a_fault_are_stepped(backend: str, text: str) -> None:
    """Zen 4 does the same as a process sees it."""
    m, start = scattering(), STEP_ON + "nop; "
    assert steps(m, backend, start + text) == [after(start)] * 2
    assert m.s[OPMASK + 1] == 2


def test_frame_of_an_interrupt(backend: str) -> None:
    """What INT pushes is data, too: the trap comes before the handler's first instruction."""
    text = watch(1, 8, setup.STACK - 16) + "int 0x30; nop; hlt"
    end = stop(backend, text)
    assert (end.vector, end.rip, end.dr6) == (DB, setup.HANDLERS + 16 * 0x30, ONES | B0)


PORT_ACCESSES = [("in al, 0x81", 1), ("out 0x83, al", 1), ("in eax, 0x7e", 1), ("in al, 0x84", 0)]


# ---- ports --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("access", "hit"), PORT_ACCESSES)
@pytest.mark.parametrize("extensions", [True, False])
def test_ports(backend: str, access: str, hit: int, extensions: bool) -> None:
    text = "mov rax, cr4; or rax, 8; mov cr4, rax; " if extensions else ""
    text += watch(2, 4, 0x80) + f"{access}; "
    end = stop(backend, text + "nop; hlt")
    if hit and extensions:
        assert (end.vector, end.rip, end.dr6) == (DB, after(text), ONES | B0)
    else:
        assert end.vector == -1


def test_port_strings(backend: str) -> None:
    text = "mov rax, cr4; or rax, 8; mov cr4, rax; " + watch(2, 2, 0x80)
    text += f"mov esi, {DATA:#x}; mov ecx, 3; mov edx, 0x81; "
    m = setup.long()
    end = programs.run(m, backend, text + "rep outsb; hlt")
    assert (end.vector, end.rip, m.s[GPR + RCX]) == (DB, after(text), 2)


# ---- instructions --------------------------------------------------------------------------------------------------
def code_watch(skipped: str) -> tuple[str, int]:
    """Code that puts a breakpoint behind itself and `skipped`; and that address."""
    base = len(programs.assemble(watch(0, 1, 0x6100)))
    at = CODE + base + len(programs.assemble(skipped))
    return watch(0, 1, at) + skipped, at


def test_instruction(backend: str) -> None:
    text, at = code_watch("mov ecx, 5; inc edx; add ebx, 3; ")
    m = setup.long()
    end = programs.run(m, backend, text + "inc ebx; hlt")
    assert (end.vector, end.rip, end.dr6, m.s[GPR + RBX]) == (DB, at, ONES | B0, 3)
    assert not end.rflags & RF


def test_instruction_in_a_loop(backend: str) -> None:
    """The handler sets RF in the frame, so that each pass stops once."""
    text, _ = code_watch("mov ecx, 5; xor edx, edx; again: inc esi; ")
    m = setup.long()
    programs.handler(m, DB, "inc edx; or byte ptr [rsp+18], 1; iretq")
    end = programs.run(m, backend, text + "nop; dec ecx; jnz again; hlt")
    assert (end.vector, m.s[GPR + 2], m.s[GPR + 6]) == (-1, 5, 5)
    assert end.executed == 4 + 2 + 5 * (4 + 1 + 3) + 1  # an exception counts too


def test_resume_flag_is_spent_by_one_instruction(backend: str) -> None:
    """IRET to an instruction with RF, two behind it a breakpoint."""
    m = setup.long()
    target = CODE + 0x100
    body = programs.assemble("nop; nop; inc ebx; hlt", address=target)
    m.s.ram[target : target + len(body)] = body
    text = watch(0, 1, target + 1)
    text += f"mov rax, ss; push rax; push {setup.STACK}; push 0x10002; push {setup.CODE64}; push {target}; iretq"
    end = programs.run(m, backend, text)
    assert (end.vector, end.rip) == (DB, target + 1)
    m = setup.long()
    m.s.ram[target : target + len(body)] = body
    end = programs.run(m, backend, text.replace(f"{target + 1:#x}", f"{target:#x}"))
    assert (end.vector, m.s[GPR + RBX]) == (-1, 1)


def test_resume_flag_in_frames(backend: str) -> None:
    """Set for a fault, not for a software interrupt or trap."""
    assert stop(backend, "ud2").rflags & RF
    assert not stop(backend, "int 0x30").rflags & RF
    assert not stop(backend, "int3").rflags & RF
    assert not stop(backend, "pushfq; or dword ptr [rsp], 0x10000; popfq; int3").rflags & RF
    assert stop(backend, "mov rax, 0x2000; mov dr7, rax; mov rax, dr0").rflags & RF  # general detect


@pytest.mark.parametrize(("model", "vector"), [("EPYC", DB), ("Haswell", -1)])
def test_behind_a_load_of_ss(backend: str, model: str, vector: int) -> None:
    """AMD's processors stop there (the host's does), Intel's don't."""
    text, at = code_watch("mov eax, ss; mov ss, eax; ")
    m = setup.long()
    cpuid.configure(m.s, models.model(model))
    end = programs.run(m, backend, text + "nop; hlt")
    assert end.vector == vector
    if vector == DB:
        assert end.rip == at


def test_fetch_fault_comes_after_a_breakpoint(backend: str) -> None:
    at = 0x30000
    m = setup.long()
    setup.unmap(m, at)
    end = programs.run(m, backend, watch(0, 1, at) + f"mov rbx, {at:#x}; jmp rbx")
    assert (end.vector, end.rip) == (DB, at)
    m = setup.long()
    setup.unmap(m, at)
    assert programs.run(m, backend, f"mov rbx, {at:#x}; jmp rbx").vector == 14


# ---- registers ------------------------------------------------------------------------------------------------------
def test_general_detect(backend: str) -> None:
    text = "mov rax, 0x2000; mov dr7, rax; "
    m = setup.long()
    end = programs.run(m, backend, text + "mov rax, dr3; hlt")
    assert (end.vector, end.rip, end.dr6) == (DB, after(text), ONES | BD)
    assert m.s[DR + 7] == 0x400


# ---- single-stepping -----------------------------------------------------------------------------------------------
STEP_ON = "pushfq; or dword ptr [rsp], 0x100; popfq; "
STEP_OFF = "pushfq; and dword ptr [rsp], 0xfffffeff; popfq; hlt"


@pytest.mark.parametrize("first", ["nop", "inc rax", "jmp next; next:", "push rax", "mov ecx, 3", "cpuid", "popfq"])
def test_the_first_trap_comes_after_the_next_instruction(backend: str, first: str) -> None:
    text = STEP_ON + f"{first}; "
    end = stop(backend, text + "nop; hlt")
    assert (end.vector, end.rip, end.dr6) == (DB, after(text), ONES | BS)
    assert end.rflags & TF or first == "popfq"


def steps(m: setup.Machine, backend: str, text: str, table: int = 0x28000) -> list[int]:
    """Where the traps of a program come: the handler notes the addresses. R15 is its pointer."""
    programs.handler(m, DB, "push rax; mov rax, [rsp+8]; stosq; pop rax; iretq")
    m.s[GPR + RDI] = table
    programs.run(m, backend, text)
    count = (m.s[GPR + RDI] - table) // 8
    return list(m.get(table, f"{count}Q"))


def places(*parts: str) -> list[int]:
    """Addresses behind the first part, the first two, and so on."""
    return [after("".join(parts[: n + 1])) for n in range(len(parts))]


def test_every_instruction(backend: str) -> None:
    parts = (STEP_ON + "nop; ", "xor eax, eax; ", "push rbx; ", "pop rcx; ", "cld; ")
    end = ("pushfq; ", "and dword ptr [rsp], 0xfffffeff; ", "popfq; ")
    assert steps(setup.long(), backend, "".join(parts) + STEP_OFF) == places(*parts, *end)


def test_iterations(backend: str) -> None:
    before = f"mov esi, {DATA:#x}; mov ecx, 3; " + STEP_ON
    text = before + "rep lodsb; "
    got = steps(setup.long(), backend, text + STEP_OFF)
    assert got[:3] == [after(before), after(before), after(text)]


def test_load_of_ss_is_not_stepped(backend: str) -> None:
    parts = ("mov eax, ss; " + STEP_ON + "nop; ", "mov ss, eax; nop; ", "nop; ")
    assert steps(setup.long(), backend, "".join(parts) + STEP_OFF)[:3] == places(*parts)


def test_two_loads_of_ss(backend: str) -> None:
    """The second one is in the shadow, and starts none."""
    parts = ("mov eax, ss; " + STEP_ON + "nop; ", "mov ss, eax; mov ss, eax; ", "nop; ")
    assert steps(setup.long(), backend, "".join(parts) + STEP_OFF)[:3] == places(*parts)


def test_data_trap_of_a_load_of_ss_waits(backend: str) -> None:
    text = f"mov rbx, {DATA:#x}; mov eax, ss; mov [rbx], eax; " + watch(3) + "mov ss, [rbx]; nop; "
    end = stop(backend, text + "nop; hlt")
    assert (end.vector, end.rip, end.dr6) == (DB, after(text), ONES | B0)


def test_software_interrupts_are_stepped_over(backend: str) -> None:
    m = setup.long()
    programs.handler(m, 0x30, "nop; iretq")
    parts = (STEP_ON + "nop; ", "int 0x30; nop; ")
    assert steps(m, backend, "".join(parts) + STEP_OFF)[:2] == places(*parts)


def test_halt_wakes(backend: str) -> None:
    m = setup.long()
    text = STEP_ON + "hlt; "
    end = programs.run(m, backend, text + "nop; hlt")
    assert (end.vector, end.rip) == (DB, after(text))
    assert m.s[HALTED] == 0


def test_icebp(backend: str) -> None:
    text = "int1; "
    end = stop(backend, text + "nop; hlt")
    assert (end.vector, end.rip, end.dr6) == (DB, after(text), ONES)


def test_data_trap_of_a_load_of_ss_joins_that_of_int1(backend: str) -> None:
    """Behind INT n it is raised by itself, before the handler's first instruction."""
    load = f"mov rbx, {DATA:#x}; mov eax, ss; mov [rbx], eax; " + watch(3) + "mov ss, [rbx]; "
    end = stop(backend, load + "int1; " + "nop; hlt")
    assert (end.vector, end.rip, end.dr6) == (DB, after(load + "int1; "), ONES | B0)
    m = setup.long()
    programs.handler(m, DB, "inc esi; iretq")
    assert programs.run(m, backend, "xor esi, esi; " + load + "int1; hlt").vector == -1
    assert m.s[GPR + RSI] == 1
    m = setup.long()
    programs.handler(m, DB, "inc esi; iretq")
    assert programs.run(m, backend, "xor esi, esi; " + load + "int 1; hlt").vector == -1
    assert m.s[GPR + RSI] == 2


def test_branches(backend: str) -> None:
    """IA32_DEBUGCTL.BTF: the trap clears it."""
    before = "mov ecx, 0x1d9; mov eax, 2; xor edx, edx; wrmsr; " + STEP_ON
    text = before + "xor eax, eax; jnz away; inc eax; jnz away; nop; away: nop; hlt"
    m = setup.long()
    end = programs.run(m, backend, text)
    assert (end.vector, end.rip, end.dr6) == (DB, after(text) - 2, ONES | BS)
    assert m.s[DEBUGCTL] == 0


def test_system_call(backend: str) -> None:
    """With TF masked, SYSCALL is not stepped; the SYSRET that restores it is."""
    m = setup.long_user()
    m.s[EFER] |= 1
    target = CODE + 0x200
    m.s[STAR], m.s[LSTAR], m.s[SFMASK] = setup.CODE64 << 32 | 0x1B << 48, target, TF
    m.s.ram[target : target + 3] = programs.assemble("nop; hlt", address=target).ljust(3, b"\x90")
    end = programs.run(m, backend, STEP_ON + "syscall")
    assert (end.vector, end.dr6) == (-1, m.s[DR + 6])
    m = setup.long_user()
    m.s[EFER] |= 1
    m.s[STAR], m.s[LSTAR], m.s[SFMASK] = setup.CODE64 << 32 | 0x20 << 48, target, TF
    body = programs.assemble("nop; .byte 0x48, 0x0f, 0x07", address=target)
    m.s.ram[target : target + len(body)] = body
    end = programs.run(m, backend, STEP_ON + "syscall; ")
    assert (end.vector, end.rip) == (DB, after(STEP_ON + "syscall"))


def test_nothing_is_left_pending(backend: str) -> None:
    m = setup.long()
    programs.run(m, backend, watch(1) + f"mov rbx, {DATA:#x}; mov [rbx], cl; hlt")
    assert m.s[PENDING_DEBUG] == 0
    assert not m.s[FLAGS] & TF
    assert m.s[GPR + RAX]
