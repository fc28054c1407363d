"""Interrupts, NMI, shadows and HLT between instructions, on every back end (SDM 3, 6.7 and 6.8)."""

from __future__ import annotations

from typing import Any

import pytest

from pyemu.cpu.host import Exit
from pyemu.cpu.state import (
    EXIT_REQUEST,
    FLAGS,
    GPR,
    ICOUNT,
    ICOUNT_LIMIT,
    IRQ_PENDING,
    NMI_BLOCKED,
    NMI_PENDING,
    RBX,
    RDX,
    RIP,
)
from tests.cpu import programs
from tests.cpu import system_setup as setup

CODE, VECTOR, NMI = setup.CODE, 0x40, 2
IF = 1 << 9

pytestmark = pytest.mark.parametrize("backend", programs.BACKENDS)


def start(backend: str, text: str, flags: int = 0, irq: bool = True, nmi: bool = False) -> Any:
    """A program with an interrupt waiting; every handler halts."""
    m = setup.long()
    code = programs.assemble(text)
    m.s.ram[CODE : CODE + len(code)] = code
    m.s[FLAGS] |= flags
    m.s[IRQ_PENDING], m.s[NMI_PENDING] = int(irq), int(nmi)
    runner = programs.Runner(m, backend)

    def acknowledge() -> int:
        m.s[IRQ_PENDING] = 0
        return VECTOR

    runner.host.acknowledge_interrupt = acknowledge  # type: ignore[method-assign]
    return runner


def after(text: str) -> int:
    return CODE + len(programs.assemble(text))


@pytest.mark.parametrize(
    ("text", "taken_after"),
    [
        ("sti; nop; nop", "sti; nop"),
        ("sti; sti; nop", "sti; sti"),
        ("sti; cli; sti; nop; nop", "sti; cli; sti; nop"),  # nothing between STI and CLI
        ("sti; hlt; nop", "sti; hlt"),
        ("pushfq; or dword ptr [rsp], 0x200; popfq; nop; nop", "pushfq; or dword ptr [rsp], 0x200; popfq"),
        ("mov eax, ss; sti; mov ss, eax; nop; nop", "mov eax, ss; sti; mov ss, eax; nop"),
        ("mov eax, ss; sti; mov ss, eax; mov ss, eax; nop", "mov eax, ss; sti; mov ss, eax; mov ss, eax"),
    ],
)
def test_shadows(backend: str, text: str, taken_after: str) -> None:
    end = start(backend, text + "; hlt").go()
    assert (end.vector, end.rip) == (VECTOR, after(taken_after))


def test_interrupt_before_the_first_instruction(backend: str) -> None:
    end = start(backend, "inc ebx; hlt", IF).go()
    assert (end.vector, end.rip, end.executed) == (VECTOR, CODE, 2)  # the delivery and the HLT
    assert end.rflags & IF


@pytest.mark.parametrize("budget", [1, 2])
def test_a_delivery_uses_up_the_budget(backend: str, budget: int) -> None:
    """A run that may execute one more takes the interrupt, and nothing of its handler."""
    runner = start(backend, "inc ebx; hlt", IF)
    s, engine = runner.m.s, runner.reference or runner.engine
    s[RIP], s[ICOUNT_LIMIT] = CODE, s[ICOUNT] + budget
    first = s[ICOUNT]
    assert engine.run() == Exit.BUDGET
    assert s[ICOUNT] == first + budget
    assert s[RIP] == setup.HANDLERS + 16 * VECTOR + budget - 1  # a handler is HLT


def test_sti_with_interrupts_on_has_no_shadow(backend: str) -> None:
    text = "push 2; popfq; sti; nop; sti; "
    runner = start(backend, text + "nop; hlt", irq=False)
    end = runner.go()
    assert end.vector == -1


@pytest.mark.parametrize("text", ["mov eax, ss; mov ss, eax; nop; nop", "nop; nop"])
def test_nmi_comes_first(backend: str, text: str) -> None:
    runner = start(backend, text + "; hlt", IF, nmi=True)
    end = runner.go()
    assert (end.vector, end.rip) == (NMI, CODE)
    assert (runner.m.s[NMI_PENDING], runner.m.s[NMI_BLOCKED], runner.m.s[IRQ_PENDING]) == (0, 1, 1)


def test_nmi_waits_for_the_stack(backend: str) -> None:
    """Not between MOV SS and the next instruction."""
    port = 0x80
    runner = start(backend, f"mov eax, ss; mov ss, eax; out {port:#x}, al; inc ebx; hlt", irq=False)
    m = runner.m

    def write(number: int, size: int, value: int) -> None:
        assert (number, size) == (port, 1)
        m.s[NMI_PENDING] = 1
        m.s[EXIT_REQUEST] = 1

    runner.host.port_write = write
    end = runner.go()
    assert (end.vector, end.rip) == (NMI, after(f"mov eax, ss; mov ss, eax; out {port:#x}, al"))
    assert m.s[GPR + RBX] == 0


def test_nmi_is_blocked_until_iret(backend: str) -> None:
    """A second one that comes in the handler waits for its IRET, even if that is no return from it."""
    runner = start(backend, "nop; hlt", irq=False, nmi=True)
    m = runner.m
    programs.handler(m, NMI, "inc edx; out 0x80, al; nop; nop; iretq")
    count = 0

    def write(number: int, size: int, value: int) -> None:
        nonlocal count
        count += 1
        if count == 1:
            m.s[NMI_PENDING] = 1
            assert m.s[NMI_BLOCKED] == 1

    runner.host.port_write = write
    end = runner.go()
    assert (end.vector, m.s[GPR + RDX], count) == (-1, 2, 2)
    assert end.executed == 2 * (1 + 5) + 2  # a delivery counts as an instruction
    assert m.s[NMI_BLOCKED] == 0


def test_exceptions_in_the_handler_of_an_nmi_unblock_it(backend: str) -> None:
    """Any IRET does (SDM 3, 6.7.1)."""
    runner = start(backend, "nop; hlt", irq=False, nmi=True)
    m = runner.m
    programs.handler(m, NMI, "int 0x30; hlt")
    programs.handler(m, 0x30, "iretq")
    runner.go()
    assert m.s[NMI_BLOCKED] == 0


def test_halt_wakes_for_an_nmi_with_interrupts_off(backend: str) -> None:
    runner = start(backend, "cli; hlt; inc ebx; hlt", irq=False)
    assert runner.go().vector == -1
    runner.m.s[NMI_PENDING] = 1
    end = runner.go()
    assert (end.vector, end.rip) == (NMI, after("cli; hlt"))


def test_a_repeated_instruction_is_interrupted_between_iterations(backend: str) -> None:
    """RIP stays on it, RF is set, and RCX counts what is left."""
    text = "mov esi, 0x20000; mov ecx, 5; mov edx, 0x80; "
    runner = start(backend, text + "rep outsb; hlt", IF, irq=False)
    m = runner.m
    seen = 0

    def write(number: int, size: int, value: int) -> None:
        nonlocal seen
        seen += 1
        if seen == 2:
            m.s[IRQ_PENDING] = 1
            m.s[EXIT_REQUEST] = 1

    runner.host.port_write = write
    end = runner.go()
    assert (end.vector, end.rip, m.s[GPR + 1]) == (VECTOR, after(text), 3)
    assert end.rflags & 1 << 16
