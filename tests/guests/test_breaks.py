"""The monitor's break, watch and catch, on a guest that does everything that can be caught."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pyemu import Machine
from pyemu.monitor_break import describe_stop
from pyemu.monitor_table import Session
from pyemu.until import StopKind
from tests.guests import assemble

PROGRAM = """
main:
    mov rbx, 5
    mov dword ptr [0x300000], 0x1234
    xchg bx, bx
    mov rax, cr3
    mov cr3, rax
    mov ecx, 0xc0000082
    mov eax, 0x5678
    xor edx, edx
    wrmsr
    rdmsr
    mov al, 0x77
    out 0x80, al
    mov eax, [0xfee00020]
    int 0x40
next_round:
    ud2
    jmp next_round
"""


@pytest.fixture(params=["interp", "jit"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    kernel = tmp_path / "guest"
    kernel.write_bytes(assemble(PROGRAM, "caught"))
    with Machine(kernel=str(kernel), memory="16M", accelerator=request.param) as machine:
        yield machine


def stop(machine: Machine) -> str:
    """Run to the next stop; what the monitor says of it."""
    found = machine.run(timeout=60)
    assert found.kind in (StopKind.BREAKPOINT, StopKind.WATCHPOINT, StopKind.HOOK), found
    return describe_stop(machine, found)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("catch cr3 if rbx == 5", "CR3 changes from 0x180000 to 0x180000 (catch 1)"),
        ("catch msr 0xc0000082", "MSR 0xc0000082 written: 0x5678 (catch 1)"),
        ("catch port 0x80", "wrote 0x77, 1 bytes at 0x80"),
        ("catch port 0x80-0x83 w if rbx == 5", "wrote 0x77, 1 bytes at 0x80"),
        ("catch mmio 0xfee00020 r", "read 0x0, 4 bytes at 0xfee00020"),
        ("catch int 0x40", "software interrupt 0x40 from 0x"),
        ("catch exception ud", "#UD(0x0) from 0x"),
        ("catch exception 6 if rbx == 5", "#UD(0x0) from 0x"),
        ("catch mode", "the mode changes from protected mode, 32-bit code to compatibility mode, 32-bit code"),
        ("catch magic", "breakpoint 1 at 0x"),
        ("watch 0x300000", "wrote 0x1234 (was 0x0), 4 bytes at 0x300000"),
        ("watch 0x2fffff 8 w if value == 0x1234", "wrote 0x1234"),
    ],
)
def test_each_kind(machine: Machine, command: str, said: str) -> None:
    session = Session(machine)
    assert session.execute(command) == f"1: {command}" or command.startswith("watch")
    assert said in stop(machine)
    assert "(hits: 1)" in session.execute("info breakpoints")
    assert session.execute("delete") == ""
    assert session.execute("info breakpoints") == "none"


def test_all_changes_of_mode(machine: Machine) -> None:
    session = Session(machine)
    session.execute("catch mode")
    assert "to compatibility mode" in stop(machine)
    assert "from compatibility mode, 32-bit code to 64-bit mode" in stop(machine)


def test_msr_reads_come_after_writes(machine: Machine) -> None:
    session = Session(machine)
    session.execute("catch msr 0xc0000082")
    assert "written" in stop(machine)
    assert "read: 0x5678" in stop(machine)


def test_break_by_symbol_and_condition(machine: Machine, tmp_path: Path) -> None:
    session = Session(machine)
    session.execute("catch magic")
    stop(machine)
    here = machine.regs.rip
    (tmp_path / "map").write_text(f"{here:016x} T magic\n{here + 2:016x} T after\n")
    session.execute(f"symbols {tmp_path / 'map'}")
    assert session.execute("tbreak after if rbx == 6").startswith("2: tbreak")
    assert session.execute("break after + 1 if rbx == 5").endswith("<after+0x1> if rbx == 5")
    assert "breakpoint 3" in stop(machine)
    assert "<after+0x1>" in describe_stop(machine, machine._last_stop)


@pytest.mark.parametrize(
    "command",
    [
        "break", "break nowhere", "break 1 if", "break 1 if (", "break 1 if nothing", "watch", "watch 1 0", "delete x",
        "delete 7", "catch", "catch fire", "catch port", "catch port x", "catch cr3 5", "catch exception zz",
        "catch port 5-4", "catch mmio 1 2 3", "catch exception 6 if bad(", "watch 0x1000 4 if",
    ],
)  # fmt: skip
def test_bad_arguments(machine: Machine, command: str) -> None:
    session = Session(machine)
    reply = session.execute(command)
    assert reply and "Traceback" not in reply
    assert session.execute("info breakpoints") == "none"
