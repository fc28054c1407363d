"""Hooks on hypercalls: a function in place of the hypervisor, on every back end, stopped, stepped and replayed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keystone
import pytest

from pyemu.cpu.faults import UD
from pyemu.hook_events import Hypercall
from pyemu.hooks import HookError
from pyemu.machine import Machine
from pyemu.monitor_break import event_text
from pyemu.monitor_table import Session
from pyemu.until import StopKind

ORIGIN, SUM, REPLY, FAULTS = 0x7C00, 0x608, 0x600, 0x610
VMCALL, VMMCALL = ".byte 0x0f, 0x01, 0xc1", ".byte 0x0f, 0x01, 0xd9"
TIMES = 300
LINES = {
    "start": "xor ax, ax; mov ds, ax; mov ss, ax; mov sp, 0x7c00; mov word ptr [0x18], 0x7d00; mov [0x1a], ax",
    "number": "mov eax, 0x10005",
    "first": VMCALL,
    "reply": f"mov [{REPLY:#x}], eax",
    "count": f"xor eax, eax; mov cx, {TIMES}",
    "loop": "mov ax, cx",
    "second": VMMCALL,
    "sum": f"add [{SUM:#x}], ax; dec cx; jnz 0x7c25",
    "trap": "pushf; or byte ptr [0x7bff], 1; mov word ptr [4], 0x7d20; mov [6], ss; popf",
    "third": VMCALL,
    "end": "jmp 0x7c45",
}
HANDLER = f"inc word ptr [{FAULTS:#x}]; mov bp, sp; add word ptr [bp], 3; iret"  # at 7D00: steps over it
STEPPED = "mov bp, sp; mov bx, [bp]; and word ptr [bp + 4], 0xfeff; iret"  # at 7D20: BX is where the trap was


def _assemble() -> tuple[bytes, dict[str, int]]:
    """The sector, and where its lines are."""
    assembler = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_16)
    image, places, at = bytearray(510), {}, ORIGIN
    for name, text in [*LINES.items(), ("handler", HANDLER), ("stepped", STEPPED)]:
        at = {"handler": 0x7D00, "stepped": 0x7D20}.get(name, at)
        places[name] = at
        code = bytes(assembler.asm(text, at)[0] or ())
        image[at - ORIGIN : at - ORIGIN + len(code)] = code
        at += len(code)
    return bytes(image) + b"\x55\xaa", places


SECTOR, AT = _assemble()
assert (AT["loop"], AT["end"]) == (0x7C25, 0x7C45), {name: hex(at) for name, at in AT.items()}


@pytest.fixture
def sector(tmp_path: Path) -> str:
    path = tmp_path / "sector"
    path.write_bytes(SECTOR)
    return str(path)


@pytest.fixture(params=["reference", "interp", "jit"])
def machine(request: pytest.FixtureRequest, sector: str) -> Iterator[Machine]:
    with Machine(kernel=sector, memory="16M", accelerator=request.param) as made:
        yield made


def finish(machine: Machine) -> tuple[int, int, int]:
    """Run to the end; the first reply, the sum of the others, the number of faults."""
    stop = machine.run(until=AT["end"], timeout=20)
    assert stop.kind is not StopKind.TIMEOUT and machine.regs.rip == AT["end"]
    return word(machine, REPLY, 4), word(machine, SUM), word(machine, FAULTS)


def word(machine: Machine, address: int, size: int = 2) -> int:
    return int.from_bytes(machine.memory.read(address, size), "little")


FAULTED = (0x10005, sum(range(TIMES + 1)) & 0xFFFF, TIMES + 2)
COUNT = 6 + 1 + 1 + 1 + 2 + 5 * TIMES + 5 + 1  # of instructions if none faults, without the trap of the last


@pytest.mark.parametrize("hooked", [False, True])
def test_unanswered_it_is_an_undefined_instruction(machine: Machine, hooked: bool) -> None:
    """And takes what it takes without a hook: a fault and the four instructions of its handler."""
    seen: list[tuple[int, int]] = []
    machine.hook_exception(lambda event: seen.append((event.number, event.rip)), UD)
    calls: list[Hypercall] = []
    if hooked:
        machine.hook_hypercall(calls.append)
    assert finish(machine) == FAULTED
    assert machine.instructions == COUNT + 4 * (TIMES + 2)
    assert seen == [(UD, AT["first"]), *[(UD, AT["second"])] * TIMES, (UD, AT["third"])]
    if hooked:
        assert [event.number for event in calls] == [0x10005, *range(TIMES, 0, -1), 1]
        assert [event.rip for event in calls] == [AT["reply"], *[AT["sum"]] * TIMES, AT["end"]]


def test_answers(machine: Machine) -> None:
    """It completes as any instruction does: it is counted, and trapped if TF is set."""

    def answer(event: Hypercall) -> None:
        assert machine.regs.rip in (AT["first"], AT["second"], AT["third"])
        event.answer(event.number + 1 if event.number > 1000 else 3)

    machine.hook_hypercall(answer)
    assert finish(machine) == (0x10006, 3 * TIMES, 0)
    assert machine.instructions == COUNT + 1 + 4 and machine.regs.rbx == AT["end"]


def test_numbers_conditions_and_several(machine: Machine) -> None:
    def answer(value: int) -> Any:
        return lambda event: event.answer(value)

    some = machine.hook_hypercall(answer(7), 5, 6, 0x10005)
    odd = machine.hook_hypercall(answer(1 << 40 | 9), condition=f"rip == {AT['second']} and cx % 2")
    assert finish(machine) == (7, (9 * TIMES // 2 + 7 + sum(range(0, TIMES + 1, 2)) - 6) & 0xFFFF, TIMES // 2)
    assert (some.hits, odd.hits) == (3, TIMES // 2)
    assert "answer" not in repr(Hypercall("hypercall", 1, answer=print))


def test_stops_before_it_and_goes_on(machine: Machine) -> None:
    replies = iter((None, 0x77))

    def stop(event: Hypercall) -> bool:
        reply = next(replies)
        if reply is not None:
            event.answer(reply)
        return True

    hook = machine.hook_hypercall(stop)
    for at in (AT["first"], AT["second"]):
        found = machine.run(timeout=20)
        assert (found.kind, found.hook, machine.regs.rip) == (StopKind.HOOK, hook, at)
        assert isinstance(found.event, Hypercall)
        with pytest.raises(HookError, match="only by the hook's function"):
            found.event.answer(1)
    hook.remove()
    sum_of_others = FAULTED[1] - TIMES + 0x77
    assert finish(machine) == (0x10005, sum_of_others, TIMES + 1)


def test_the_function_may_change_the_guest(machine: Machine) -> None:
    def serve(event: Hypercall) -> None:
        if event.number == 0x10005:
            machine.memory.write(SUM, b"\x01\x00")
            machine.regs.rcx = 0xAAAA
            event.answer(8)
        elif event.rip == AT["sum"]:
            machine.regs.rip = AT["trap"]

    machine.hook_hypercall(serve)
    machine.breakpoint(AT["count"])
    machine.run(timeout=20)
    assert machine.regs.rcx == 0xAAAA
    assert finish(machine) == (8, 1, 1)


@pytest.mark.parametrize(("backend", "other"), [("jit", "interp"), ("interp", "reference")])
def test_answers_are_recorded(sector: str, tmp_path: Path, backend: str, other: str) -> None:
    """Going back and coming again, and a replay elsewhere, need nobody who answers."""
    path = str(tmp_path / "recording")
    with Machine(kernel=sector, memory="16M", accelerator=backend, record=path) as made:
        hook = made.hook_hypercall(lambda event: event.answer(2))
        expected = finish(made)
        assert expected == (2, 2 * TIMES, 0)
        end, hits = made.instructions, hook.hits
        made.goto(9)
        assert word(made, SUM) == 0 and finish(made) == expected
        assert (made.instructions, hook.hits) == (end, hits)
        made.reverse_step(7)
        assert made.regs.rip == AT["third"] - 1
        made.goto(8)
        assert made.regs.rax == 2 and made.regs.rip == AT["reply"]
        assert finish(made) == expected and made.instructions == end
    with Machine(replay=path, accelerator=other) as again:
        assert finish(again) == expected and again.instructions == end


def test_catch(machine: Machine) -> None:
    """In the monitor."""
    monitor = Session(machine)
    command = "catch hypercall 5 6 0x10005 if rip < 0x8000"
    assert monitor.execute(command) == f"1: {command}"
    stop = machine.run(timeout=20)
    assert isinstance(stop.event, Hypercall)
    assert event_text(stop.event) == f"hypercall 0x10005, to return to {AT['reply']:#x}"
    assert machine.regs.rip == AT["first"]
    assert "there is no hypervisor, and no hook has answered" in str(machine.explain("$rip"))
