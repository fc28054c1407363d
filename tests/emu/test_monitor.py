"""The monitor's commands and its line editing."""

import re

import pytest

from pyemu import Machine
from pyemu.chardev import Capture
from pyemu.monitor import Monitor
from pyemu.registers import dump
from pyemu.until import Instructions, StopKind


@pytest.fixture
def machine(build):
    machine = build()
    machine.memory.write(0x1000, bytes(range(64)))
    return machine


@pytest.fixture
def monitor(machine):
    return Monitor(machine, Capture())


def test_help_lists_the_commands(monitor):
    text = monitor.execute("help")
    for name in ("help", "quit", "stop", "cont", "info", "x", "xp", "system_reset", "system_powerdown"):
        assert any(line.startswith(name + " ") for line in text.splitlines())


def test_unknown_command_and_empty_line(monitor):
    assert monitor.execute("frobnicate now") == "unknown command: 'frobnicate'"
    assert monitor.execute("   ") == ""


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("xp /4xb 0x1000", "0000000000001000: 0x00 0x01 0x02 0x03"),
        ("xp/2xw 0x1004", "0000000000001004: 0x07060504 0x0b0a0908"),
        ("xp /1xg 4096", "0000000000001000: 0x0706050403020100"),
        ("xp /xh 0x1002", "0000000000001002: 0x0302"),
        ("xp /bx 0x1001", "0000000000001001: 0x01"),
        ("xp /2cb 0x1030", "0000000000001030: '0' '1'"),
        ("xp /dw 0x1000 + 4", "0000000000001004:  117835012"),
        ("x /2ub 0x1010-0x10", "0000000000001000:   0   1"),
    ],
)
def test_dumps(monitor, command, reply):
    assert monitor.execute(command) == reply


def test_dump_of_several_lines(monitor):
    lines = monitor.execute("xp /8xw 0x1000").splitlines()
    assert [line.split(":")[0] for line in lines] == ["0000000000001000", "0000000000001010"]


def test_disassembly_at_a_register(monitor):
    assert monitor.execute("x /i $rip").endswith("hlt")
    assert monitor.execute("x /1i $pc + 0").split()[0] == "0x00007c00:"


@pytest.mark.parametrize(
    "command",
    [
        "x",
        "x /4",
        "x /zz 0",
        "x /99999xb 0",
        "x /0xb 0",
        "x nonsense",
        "x $nothing",
        "xp 0x20000000",
        "x 1 2",
        "info",
        "info x",
    ],
)
def test_bad_arguments_are_answered(monitor, command):
    reply = monitor.execute(command)
    assert reply
    assert "Traceback" not in reply


def test_info_registers_is_right_and_lets_the_guest_go_on(machine, monitor):
    machine.start()
    text = monitor.execute("info registers")
    assert "CR0=" in text
    assert machine.running
    machine.pause()
    machine.regs.rbx = 0x123456789ABCDEF0
    assert "EBX=9abcdef0" in monitor.execute("info registers")  # the processor is in real mode
    assert not machine.running


def test_stop_and_cont(machine, monitor):
    machine.start()
    assert monitor.execute("info status") == "VM status: running"
    monitor.execute("stop")
    assert monitor.execute("info status") == "VM status: paused"
    monitor.execute("cont")
    assert monitor.execute("info status") == "VM status: running"


def test_quit_ends_the_machine(machine, monitor):
    machine.start()
    monitor.execute("q")
    assert machine.wait_end().kind is StopKind.QUIT
    assert "over" in monitor.execute("cont")


def test_system_reset(machine, monitor):
    machine.run(until=Instructions(20), timeout=60)
    machine.memory.write(0x7C00, b"\0")
    monitor.execute("system_reset")
    machine.run(until=Instructions(20), timeout=60)
    assert machine.memory.read(0x7C00, 1) == b"\xf4"


def test_power_button_sets_the_acpi_status(machine, monitor):
    monitor.execute("system_powerdown")
    assert machine.host.port_read(0x600, 2) & 0x100


def test_plain_lines(machine):
    console = Capture()
    Monitor(machine, console)
    console.send(b"infp\x7fo status\r\n")
    text = console.output.decode()
    assert "VM status: paused\r\n(pyemu) " in text
    assert text.count("(pyemu) ") == 1  # \r\n is one line end
    console.send(b"garbage\x15info version\n")
    assert "\r\n0." in console.output.decode()
    console.send(b"x" * 5000 + b"\r")  # no unbounded line
    assert len(console.output) < 4000


def test_keys_are_pressed_together_and_let_go_in_reverse(machine, monitor):
    assert monitor.execute("sendkey shift-up") == ""
    # Shift's own code has gone on into the controller already.
    assert machine.board.i8042.keyboard.state.queue == [0xE0, 0x75, 0xE0, 0xF0, 0x75, 0xF0, 0x12]


@pytest.mark.parametrize("keys", ["", "a-", "hyper", "shift-q-x1"])
def test_what_is_no_key(monitor, keys):
    assert "no key is called" in monitor.execute(f"sendkey {keys}")


def test_info_registers_has_the_form_of_qemu_7_2(tmp_path):
    """Compared with what QEMU prints for Linux and for a boot sector; only the instruction count is ours."""
    sector = tmp_path / "sector"
    sector.write_bytes(b"\xf4".ljust(510, b"\0") + b"\x55\xaa")
    with Machine(kernel=str(sector), memory="8M", accelerator="interp") as real:
        text = dump(real.state)
    assert re.search(r"^EAX=\w{8} EBX=\w{8} ECX=\w{8} EDX=\w{8}$", text, re.M)
    assert re.search(r"^EIP=00007c00 EFL=\w{8} \[[-ODSZAPC]{7}\] CPL=0 II=0 A20=1 SMM=0 HLT=0 icount=0$", text, re.M)
    assert re.search(r"^CS =0000 00000000 0000ffff 00009b00$", text, re.M)
    assert re.search(r"^CR0=00000010 CR2=0{8} CR3=0{8} CR4=0{8}$", text, re.M)
    assert "XMM07=" in text and "XMM08=" not in text
    with Machine(memory="8M", accelerator="interp") as long:
        long.run(until="> ", timeout=60)
        text = dump(long.state)
    assert re.search(r"^R8 =\w{16} R9 =\w{16} R10=\w{16} R11=\w{16}$", text, re.M)
    assert re.search(r"^RIP=\w{16} RFL=\w{8} ", text, re.M)
    assert re.search(r"^CS =\w{4} 0{16} \w{8} 00a[0-9a-f]9[ab]00 DPL=0 CS64 \[-RA?-?\]$", text, re.M)
    assert re.search(r"^TR =\w{4} \w{16} \w{8} \w{4}8b00 DPL=0 TSS64-busy$", text, re.M)
    assert re.search(r"^GDT=     \w{16} \w{8}$", text, re.M)
    assert re.search(r"^FCW=\w{4} FSW=\w{4} \[ST=\d\] FTW=\w\w MXCSR=\w{8}$", text, re.M)
    assert re.search(r"^XMM14=\w{16} \w{16} XMM15=\w{16} \w{16}$", text, re.M)
