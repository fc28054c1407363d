"""savevm, loadvm, delvm, and the monitor's way back in time, on a guest that counts."""

from __future__ import annotations

from pathlib import Path

from pyemu import Machine
from pyemu.monitor_table import Session
from tests.guests import assemble

COUNTER = """
main:
    xor eax, eax
next_round:
    inc eax
    mov [0x300000], eax
    jmp next_round
"""


def started(tmp_path: Path, **options: object) -> Machine:
    kernel = tmp_path / "guest"
    kernel.write_bytes(assemble(COUNTER, "counting"))
    return Machine(kernel=str(kernel), memory="16M", accelerator="interp", **options)  # type: ignore[arg-type]


def test_states_are_kept_and_come_back(tmp_path: Path) -> None:
    with started(tmp_path) as machine:
        machine.run(until="counting", timeout=60)
        session = Session(machine)
        session.execute("step 50")
        before = machine.regs.rax, machine.instructions
        assert session.execute("savevm here") == ""
        assert session.execute(f"savevm {tmp_path}/file") == ""
        session.execute("step 300")
        assert machine.regs.rax > before[0]
        assert session.execute("info snapshots") == f"here: at instruction {before[1]}"
        for place in ("here", f"{tmp_path}/file"):
            assert session.execute(f"loadvm {place}") == ""
            assert (machine.regs.rax, machine.instructions) == before
            session.execute("step 300")
        assert session.execute("savevm here") == ""  # the same name: it takes the other's place
        assert len(session.execute("info snapshots").splitlines()) == 1
        assert session.execute("delvm here") == ""
        assert session.execute("info snapshots") == "none"
        for bad in (
            "savevm",
            "loadvm",
            "loadvm nothing",
            "loadvm /no/file",
            "savevm /no/dir/x",
            "delvm x",
            "rsi",
            "rc",
        ):
            assert session.execute(bad) and "\n" not in session.execute(bad)


def test_the_way_back(tmp_path: Path) -> None:
    with started(tmp_path, record="") as machine:
        machine.run(until="counting", timeout=60)
        session = Session(machine)
        session.execute("step 60")
        count, rax = machine.instructions, machine.regs.rax
        session.execute("step 30")
        assert "0x" in session.execute(f"goto {count}")
        assert (machine.instructions, machine.regs.rax) == (count, rax)
        session.execute("rsi 6")
        assert (machine.instructions, machine.regs.rax) == (count - 6, rax - 2)
        said = session.execute("last-write 0x300000 4")
        assert "bytes at 0x300000" in said
        written = int.from_bytes(machine.memory.read(0x300000, 4), "little")
        assert count - 12 < machine.instructions <= count - 6 and rax - 4 <= written <= rax - 2
        assert "beginning" in session.execute("rc")
