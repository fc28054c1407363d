"""Virtual-mode extensions, as small programs on every back end (SDM 3, 20.3 and 20.4)."""

from __future__ import annotations

import pytest

from pyemu.cpu import flags as fl
from pyemu.cpu import mode
from pyemu.cpu.faults import BP, GP
from pyemu.cpu.state import CR4, FLAGS, GPR, RAX, RSP, TR_LIMIT, State
from tests.cpu import programs
from tests.cpu import system_setup as setup

VECTOR, OTHER, TARGET = 0x21, 0x22, 0x7100
STACK = setup.USER_STACK
MAP = 0x68 + 32  # where the I/O permission bitmap begins in the TSS

pytestmark = pytest.mark.parametrize("backend", programs.BACKENDS)


def v86(iopl: int = 0, flags: int = 0, extensions: bool = True) -> setup.Machine:
    """Virtual-8086 mode; INT 21h goes to TARGET, INT 22h to protected mode."""
    m = setup.v86(iopl)
    m.s[CR4] |= int(extensions)
    fl.set_eflags(m.s, flags, flags)
    m.s[TR_LIMIT] = 0xFF
    m.put(setup.TSS + 0x66, "H", MAP)
    m.put(setup.TSS + MAP - 32 + OTHER // 8, "B", 1 << OTHER % 8)
    m.put(4 * VECTOR, "HH", TARGET, 0)
    setup.set_gate(m, OTHER, 0xEE)
    m.s.ram[TARGET : TARGET + 1] = b"\xf4"
    mode.update(m.s)
    return m


def word(s: State, offset: int = 0) -> int:
    """A word of the 8086 program's stack, counted from where it began."""
    return int.from_bytes(s.ram[STACK - offset : STACK - offset + 2], "little")


def run(m: setup.Machine, backend: str, text: str) -> tuple[int, int, int]:
    """The exception that ends some code, the offset where, and the flags there. HLT is #GP in virtual-8086 mode."""
    end = programs.run(m, backend, text + "; hlt", 16)
    return end.vector, end.rip - setup.CODE, end.rflags


def push(value: int) -> str:
    """Code that pushes a word (the assembler's own idea of it has 32 bits)."""
    return f"mov ax, {value:#x}; push ax; "


def length(text: str) -> int:
    """Bytes of some code."""
    return len(programs.assemble(text, 16))


@pytest.mark.parametrize("text", ["cli", "sti", "pushf", "popf", "iret", "int 0x22"])
def test_refused_without_vme(backend: str, text: str) -> None:
    assert run(v86(extensions=False), backend, text)[:2] == (GP, 0)
    if text != "iret":
        assert run(v86(iopl=3), backend, text)[:2] != (GP, 0)


@pytest.mark.parametrize("text", ["pushfd", "popfd", "iretd", "int 0x22"])
def test_refused_with_vme(backend: str, text: str) -> None:
    assert run(v86(), backend, text)[:2] == (GP, 0)


def test_cli_and_sti_mean_vif(backend: str) -> None:
    vector, at, flags = run(v86(flags=fl.IF), backend, "sti")
    assert (vector, at, flags & (fl.IF | fl.VIF)) == (GP, 1, fl.IF | fl.VIF)
    vector, at, flags = run(v86(flags=fl.IF | fl.VIF), backend, "cli")
    assert (vector, at, flags & (fl.IF | fl.VIF)) == (GP, 1, fl.IF)


def test_cli_and_sti_mean_if_with_iopl_3(backend: str) -> None:
    vector, at, flags = run(v86(3, fl.VIF), backend, "sti")
    assert (vector, at, flags & (fl.IF | fl.VIF)) == (GP, 1, fl.IF | fl.VIF)
    vector, at, flags = run(v86(3, fl.IF | fl.VIF), backend, "cli")
    assert (vector, at, flags & (fl.IF | fl.VIF)) == (GP, 1, fl.VIF)


def test_sti_while_an_interrupt_waits(backend: str) -> None:
    assert run(v86(flags=fl.VIP), backend, "sti")[:2] == (GP, 0)
    assert run(v86(flags=fl.VIP), backend, "cli")[:2] == (GP, 1)
    assert run(v86(3, flags=fl.VIP), backend, "sti")[:2] == (GP, 1)


@pytest.mark.parametrize("vif", [0, fl.VIF])
def test_pushf(backend: str, vif: int) -> None:
    m = v86(flags=vif | fl.IF)
    assert run(m, backend, "pushf")[:2] == (GP, 1)
    assert word(m.s, 2) == 2 | fl.IOPL | (fl.IF if vif else 0)


@pytest.mark.parametrize("vif", [0, fl.VIF])
def test_popf(backend: str, vif: int) -> None:
    m = v86(flags=fl.VIF ^ vif)
    image = (fl.IF if vif else 0) | fl.CF | fl.DF | fl.NT | fl.IOPL
    text = push(image) + "popf"
    vector, at, flags = run(m, backend, text)
    assert (vector, at) == (GP, length(text))
    assert flags & 0x1FFFF & ~fl.RF == fl.CF | fl.DF | fl.NT | 2
    assert flags & fl.VIF == vif


@pytest.mark.parametrize(("flags", "image"), [(0, fl.TF), (fl.VIP, fl.IF)])
def test_images_that_are_refused(backend: str, flags: int, image: int) -> None:
    text = push(image)
    assert run(v86(flags=flags), backend, text + "popf")[:2] == (GP, length(text))
    text = push(image) + push(0) + push(setup.CODE)
    m = v86(flags=flags)
    assert run(m, backend, text + "iret")[:2] == (GP, length(text))


def test_iret(backend: str) -> None:
    m = v86(flags=fl.IF)
    text = push(fl.IF | fl.ZF) + push(0) + push(TARGET) + "iret"
    vector, at, flags = run(m, backend, text)
    assert (vector, at) == (GP, TARGET - setup.CODE)
    assert flags & (fl.VIF | fl.IF | fl.ZF | fl.IOPL) == fl.VIF | fl.IF | fl.ZF


@pytest.mark.parametrize("iopl", [0, 3])
@pytest.mark.parametrize("vif", [0, fl.VIF])
def test_redirected_interrupt(backend: str, iopl: int, vif: int) -> None:
    m = v86(iopl, fl.IF | vif | fl.CF)
    vector, at, flags = run(m, backend, f"int {VECTOR:#x}")
    assert (vector, at) == (GP, TARGET - setup.CODE)
    image = 2 | fl.CF | fl.IOPL
    if iopl == 3 or vif:
        image |= fl.IF
    assert (word(m.s, 2), word(m.s, 4), word(m.s, 6)) == (image, 0, setup.CODE + 2)
    assert flags & fl.IF == (0 if iopl == 3 else fl.IF)
    assert flags & fl.VIF == (vif if iopl == 3 else 0)
    assert flags & fl.CF


def test_interrupts_that_are_not_redirected(backend: str) -> None:
    assert run(v86(3), backend, f"int {OTHER:#x}")[:2] == (OTHER, 2)
    m = v86(3)
    setup.set_gate(m, BP, 0xEE)
    assert run(m, backend, "int3")[:2] == (BP, 1)
    m = v86(3)
    m.s[TR_LIMIT] = 0x66
    assert run(m, backend, f"int {VECTOR:#x}")[:2] == (GP, 0)
    m = v86(3)
    m.s[TR_LIMIT] = MAP - 32
    assert run(m, backend, f"int {VECTOR:#x}")[:2] == (GP, 0)


# ---- CR4.PVI ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("of", [setup.protected_user, setup.long_user, setup.compatibility_user])
def test_protected_mode(backend: str, of: object) -> None:
    assert callable(of)
    bits = 64 if of is setup.long_user else 32

    def end(flags: int, text: str, cr4: int = 2) -> tuple[int, int, int]:
        m = of()
        m.s[CR4] |= cr4
        m.s[FLAGS] |= flags
        mode.update(m.s)
        outcome = programs.run(m, backend, text + "; hlt", bits)
        return outcome.vector, outcome.rip - setup.CODE, outcome.rflags & (fl.IF | fl.VIF | fl.VIP)

    assert end(0, "sti", 0)[:2] == (GP, 0)
    assert end(0, "sti", 1)[:2] == (GP, 0)  # VME is another mode's
    assert end(0, "sti") == (GP, 1, fl.VIF)
    assert end(fl.VIF | fl.IF, "cli") == (GP, 1, fl.IF)
    assert end(fl.VIP, "sti")[:2] == (GP, 0)
    assert end(fl.VIP | fl.VIF, "cli") == (GP, 1, fl.VIP)
    assert end(fl.VIF | fl.IOPL, "sti") == (GP, 1, fl.VIF | fl.IF)
    for text in ("pushf; popf", "push 0; popf"):
        assert end(fl.VIF, text)[2] == fl.VIF


def test_ports(backend: str) -> None:
    """Virtual-8086 mode asks the permission bitmap whatever IOPL is."""
    m = v86(3)
    m.put(setup.TSS + MAP + 0x80 // 8, "H", 1 << 2)
    assert run(m, backend, "in al, 0x81")[:2] == (GP, 2)
    m = v86(3)
    m.put(setup.TSS + MAP + 0x80 // 8, "H", 1 << 2)
    assert run(m, backend, "in ax, 0x81")[:2] == (GP, 0)
    assert m.s[GPR + RAX] == 0
    assert m.s[GPR + RSP]
