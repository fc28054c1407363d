"""What `explain` says of real guests: three that triple-fault, each for another reason, and their instructions.

A triple fault without a reset leaves the machine as it was when nothing could be delivered any more.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pyemu import Machine
from pyemu.cpu.state import ICOUNT
from pyemu.monitor_table import Session
from pyemu.until import StopKind
from tests.guests import assemble

BAD_IDT = """
main:
    lidt [no_idt]
    ud2
next_round:
    jmp next_round
no_idt:
    .word 0x5f
    .quad IDT
"""
MISSING_PAGE = """
main:
    mov eax, 0x190000                       # a page of zeros: nothing is mapped
    mov cr3, rax
next_round:
    jmp next_round
"""
BAD_STACK = """
main:
    mov rsp, 0x7fff00001000
    push rax
next_round:
    jmp next_round
"""


def run(tmp_path: Path, program: str, accelerator: str = "interp") -> Machine:
    kernel = tmp_path / "guest"
    kernel.write_bytes(assemble(program, "explained"))
    return Machine(kernel=str(kernel), memory="16M", accelerator=accelerator, reboot=False)


@pytest.mark.parametrize("accelerator", ["interp", "jit", "reference"])
def test_a_bad_idt(tmp_path: Path, accelerator: str) -> None:
    with run(tmp_path, BAD_IDT, accelerator) as machine:
        assert machine.run(timeout=60).kind is StopKind.TRIPLE_FAULT
        found = machine.explain("fault")
        assert found.subject == "triple fault"
        chain = found.data["chain"]
        assert [step["vector"] for step in chain] == [6, 13, 13, 8, 13]
        assert "'ud2' always raises it" in chain[0]["why"]
        assert "vector 0x6 needs an IDT limit of at least 0x6f; it is 0x5f" in chain[1]["why"]
        assert "while #UD was being delivered" in chain[1]["why"]
        assert "together are a double fault" in chain[3]["why"]
        assert "vector 0x8 needs an IDT limit of at least 0x8f; it is 0x5f" in chain[4]["why"]
        assert "entry 0x8 of the IDT, while delivering an event" in found.text


def test_a_missing_page(tmp_path: Path) -> None:
    with run(tmp_path, MISSING_PAGE) as machine:
        assert machine.run(timeout=60).kind is StopKind.TRIPLE_FAULT
        found = machine.explain("fault")
        chain = found.data["chain"]
        assert [step["vector"] for step in chain] == [14, 14, 8, 14]
        assert "the level-4 entry at 0x190000 is not present: 0x0" in chain[0]["why"]
        assert f"{machine.regs.rip:#x}" in chain[0]["why"]
        assert "looking at the IDT at 0x186000" in chain[1]["why"]
        assert "not present" in chain[3]["why"]
        assert found.parts[0].parts[0].data["problem"] == "the PML4E at 0x190000 is not present (P = 0)"


def test_a_bad_stack(tmp_path: Path) -> None:
    with run(tmp_path, BAD_STACK) as machine:
        assert machine.run(timeout=60).kind is StopKind.TRIPLE_FAULT
        found = machine.explain("fault")
        chain = found.data["chain"]
        assert [step["vector"] for step in chain] == [14, 14, 8, 14]
        assert "the supervisor's write to 0x7fff00000ff8" in chain[0]["why"]
        assert "pushing the handler's frame onto the stack, RSP 0x7fff00001000" in chain[1]["why"]
        assert "not present" in chain[1]["why"]
        text = Session(machine).execute("explain fault")
        assert text.startswith("triple fault: #PF(0x2), then #PF(0x2), then #DF(0x0), then #PF(0x2)")


def test_after_a_reset_the_processor_is_remembered(tmp_path: Path) -> None:
    kernel = tmp_path / "guest"
    kernel.write_bytes(assemble(BAD_IDT, "explained"))
    with Machine(kernel=str(kernel), memory="16M", accelerator="interp") as machine:
        machine.run(until="explained", timeout=60)
        while machine.last_shutdown is None:
            machine.run(timeout=0.01)
        found = machine.explain("fault")
        assert "the machine was reset since" in found.summary
        assert "vector 0x8 needs an IDT limit of at least 0x8f" in found.text


PROGRAM = """
main:
    mov rsi, 0x300000
    mov qword ptr [rsi + 8], 0x1234
    mov eax, 7
here:
    add rax, [rsi + 8]
    mov [rsi], rax
    mov rdx, 0x7fff00000000
    mov rcx, [rdx]
next_round:
    jmp next_round
"""


def test_an_instruction_with_present_values(tmp_path: Path) -> None:
    with run(tmp_path, PROGRAM) as machine:
        machine.run(until="explained", timeout=60)
        step_to(machine, "add rax")
        before = machine.state[ICOUNT], machine.memory.read(0x300000, 16), machine.regs.as_dict()
        found = machine.explain()
        assert "rax <- rax + mem64[rsi + 8]; flags from add64" in found.summary
        assert found.data["changes"]["rax"] == {"before": 7, "after": 0x123B}
        assert found.data["row"]["opcode"] == "03 /r"
        assert ("mem64[0x300008]", "0x1234", "", "read") in found.tables[2].rows
        step_to(machine, "mov qword ptr [rsi], rax")
        written = machine.explain("$rip")
        assert ("mem64[0x300000]", "0x0", "->", "0x123b") in written.tables[2].rows
        assert machine.memory.read(0x300000, 8) == bytes(8)  # explaining changes nothing
        assert before[1] == machine.memory.read(0x300000, 16)
        step_to(machine, "mov rcx")
        faulting = machine.explain()
        assert "now it would raise #PF(0x0), page fault" in faulting.summary
        assert "not mapped" in faulting.text
        html = faulting._repr_html_()
        assert "&lt;-" in html and "rcx <-" not in html


def step_to(machine: Machine, text: str) -> None:
    """Until the next instruction is this one."""
    session = Session(machine)
    for _ in range(200):
        if text in session.execute("step"):
            return
    raise AssertionError(text)
