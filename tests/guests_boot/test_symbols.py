"""The symbols of a booted Debian kernel, which KASLR has moved, as its own memory has them."""

import hashlib
import re

import pytest

from pyemu import Machine, kallsyms
from pyemu.backtrace import backtrace
from pyemu.cpu.state import HALTED, LSTAR
from pyemu.monitor_table import Session
from tests.linux_guests.images import Guests

COMMANDS = "md5sum </proc/kallsyms; grep -c . /proc/kallsyms; echo done\n"


@pytest.mark.slow
@pytest.mark.xdist_group("linux")
def test_symbols_of_a_running_kernel(guests: Guests) -> None:
    with Machine(kernel=str(guests.cloud), initrd=str(guests.initrd), append="console=ttyS0", memory="256M") as machine:
        machine.run(until="guest# ", timeout=180)
        machine.send(COMMANDS)
        machine.run(until="\r\ndone", timeout=60)
        digest, count = re.findall(r"([0-9a-f]{32})  -\s+(\d+)", machine.output.decode())[0]

        symbols = machine.symbols
        assert symbols.from_kallsyms() <= int(count)  # some names are used twice
        assert symbols.address("entry_SYSCALL_64") == machine.state[LSTAR]
        assert kallsyms_digest(machine) == digest

        session = Session(machine)
        assert "<do_idle>:" in session.execute("x/1i do_idle")
        for _ in range(100):  # it idles most of the time
            if machine.state[HALTED]:
                break
            machine.run(timeout=0.05)
        functions = [frame.location.name for frame in backtrace(machine) if frame.location and frame.how == "orc"]
        assert "do_idle" in functions and "cpu_startup_entry" in functions
        assert functions[-1].startswith("secondary_startup_64")
        unwind_as_the_kernel_does(machine)


def unwind_as_the_kernel_does(machine: Machine) -> None:
    """A panic prints a call trace from `dump_stack_lvl`: the kernel's own unwinder is the judge."""
    before = len(machine.output)
    machine.send("echo c >/proc/sysrq-trigger\n")
    machine.run(until=machine.symbols.address("dump_stack_lvl"), timeout=60)
    frames = backtrace(machine)
    assert {frame.how for frame in frames[1:]} == {"orc"}
    machine.run(until="</TASK>", timeout=60)
    trace = machine.output[before:].decode().split("<TASK>")[1]
    lines = re.findall(r"^\[[^]]*\]  (\S+)\+(0x[0-9a-f]+)/", trace, re.M)  # those with a question mark don't count
    assert len(lines) > 6
    ours = [(frame.location.name, frame.location.offset) for frame in frames[1:] if frame.location]
    theirs = [(name, int(offset, 16)) for name, offset in lines[1:]]
    assert ours == theirs


def kallsyms_digest(machine: Machine) -> str:
    lines = [f"{s.address:016x} {s.kind} {s.name}\n" for s in kallsyms.find(machine.memory.pieces())]
    return hashlib.md5("".join(lines).encode("latin-1")).hexdigest()
