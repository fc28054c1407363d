"""The monitor's commands beyond running and dumping: info, ports, files, stepping, the log."""

import pytest

from pyemu.cpu.host import Exit
from pyemu.cpu.state import CR0, CR3, CR4, EFER, HALTED, NMI_PENDING
from pyemu.monitor_table import COMMANDS, MODULES, TOPICS, Session, find, load


def halt(cpu):
    cpu.s[HALTED] = 1
    return Exit.HALT


@pytest.fixture
def machine(build):
    return build(name="guest one")


@pytest.fixture
def session(machine):
    return Session(machine)


def test_the_table_is_whole():
    load()
    assert MODULES
    names = [*COMMANDS, *(alias for known in COMMANDS.values() for alias in known.aliases)]
    assert len(names) == len(set(names))
    for known in (*COMMANDS.values(), *TOPICS.values()):
        assert known.help and len(known.usage) < 60


def test_every_command_has_help(session):
    for name, known in COMMANDS.items():
        assert session.execute(f"help {name}").startswith(known.usage)
        assert known.usage in session.execute("help")
    assert "unknown command" in session.execute("help nothing")
    assert find("q").name == "quit"


def test_every_topic_answers(session):
    for name in TOPICS:
        reply = session.execute(f"info {name}")
        assert reply or name == "chardev"  # a machine of the Python API has none
        assert "Traceback" not in reply
        assert f"info {name}" in session.execute("info")


def test_info(machine, session):
    assert session.execute("info name") == "guest one"
    assert session.execute("info chardev") == ""
    assert session.execute("info tlb") == session.execute("info mem") == "PG disabled"
    table = 0x100000
    machine.memory.write(table, (0x83).to_bytes(4, "little") + (0x4000E7).to_bytes(4, "little"))
    machine.state[CR0], machine.state[CR3], machine.state[CR4] = 0x80000001, table, 0x10
    assert session.execute("info tlb").splitlines() == [
        "0000000000000000: 0000000000000000 --P-----W",
        "0000000000400000: 0000000000400000 --PDA--UW",
    ]
    assert session.execute("info mem").splitlines() == [
        "0000000000000000-0000000000400000 0000000000400000 -rw",
        "0000000000400000-0000000000800000 0000000000400000 urw",
    ]
    assert session.execute("gva2gpa 0x401234") == "gpa: 0x401234"
    assert session.execute("gva2gpa 0x801234") == "Unmapped"
    assert "not supported" in session.execute("gpa2hva 0")


def test_interrupt_controllers(machine, session):
    machine.board.ioapic.set_line(4, True)
    machine.board.pic.line(4).set(True)
    assert "pin 4 " in session.execute("info pic") and "asserted" in session.execute("info pic")
    assert "irr=10" in session.execute("info pic")
    assert "input 4 (COM1) asserted, but masked" in session.execute("info irq")
    assert "LINT0" in session.execute("info lapic") and "ExtINT" in session.execute("info lapic")
    text = session.execute("explain time")
    assert "IRQ 4 (COM1) requested (IRR)" in text
    assert "PIT" in text


def test_a_self_mapped_table_ends(machine, session):
    machine.state[CR0], machine.state[CR3], machine.state[CR4], machine.state[EFER] = 0x80000001, 0x100000, 0x20, 0x500
    machine.memory.write(0x100000, (0x100007).to_bytes(8, "little") * 512)
    assert session.execute("info tlb").endswith("... and more")
    assert session.execute("info mem").endswith("... and more")


def test_ports(machine, session):
    assert session.execute("i 0x61").startswith("port8[0x0061] = 0x")
    assert session.execute("o 0x3ff 0x5a") == ""
    assert session.execute("i 0x3ff") == "port8[0x03ff] = 0x5a"
    assert session.execute("i/h 0xcf8").startswith("port16[")
    for bad in ("i 0x10000", "i", "i/g 1", "o 1", "o 1 2 3"):
        assert session.execute(bad)


def test_files_of_memory(machine, session, tmp_path):
    machine.memory.write(0x2000, b"hello")
    path = tmp_path / "a file"
    assert session.execute(f"pmemsave 0x2000 5 '{path}'") == ""
    assert path.read_bytes() == b"hello"
    assert session.execute(f"memsave 0x2001 3 '{path}'") == ""
    assert path.read_bytes() == b"ell"
    for bad in (f"pmemsave 0 0 {path}", "pmemsave 0 1", "pmemsave 0 1 /nowhere/x", "memsave 0 1 'x", "memsave a 1 x"):
        assert "\n" not in session.execute(bad) != ""


def test_steps(machine, session):
    assert "hlt" in session.execute("step") or "0x" in session.execute("si")
    before = machine.instructions
    session.execute("step 100")
    assert machine.instructions == before + 100
    assert not machine.running
    assert "steps are" in session.execute("step 0")


def test_a_step_of_a_halted_processor_ends(build, monkeypatch):
    from pyemu import monitor_run

    monkeypatch.setattr(monitor_run, "_STEP_WAIT_S", 0.1)
    session = Session(build(halt))
    assert "waits for an interrupt" in session.execute("step 5")


def test_nmi(machine, session):
    session.execute("nmi")
    assert machine.state[NMI_PENDING] == 1
    assert "non-maskable" in session.execute("info irq")


def test_the_log_can_be_changed(machine, session, tmp_path):
    assert session.execute("log") == "none"
    assert session.execute(f"logfile {tmp_path / 'log'}") == ""
    assert session.execute("log exec") == ""
    assert session.execute("log") == "exec"
    session.execute("step 3")
    assert session.execute("log none") == ""
    session.execute("step 3")
    machine.log.close()
    assert (tmp_path / "log").read_text().count("Trace") == 3
    assert "unknown" in session.execute("log nonsense")
    assert "can't write" in session.execute("logfile /nowhere/x")


def test_print(machine, session):
    machine.regs.rax = 0x1234
    assert session.execute("p $rax + 1") == "0x1235"
    assert session.execute("p/d -1") == "-1"
    assert session.execute("print/c 65") == "'A'"
    assert session.execute("p 1 << 4 | 3") == "0x13"
