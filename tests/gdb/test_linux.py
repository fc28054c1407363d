"""Debian's gdb at a booting Debian kernel, with the symbols that the kernel knows itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pyemu.machine import Machine
from tests.gdb.conftest import run_gdb
from tests.linux_guests import images

pytestmark = pytest.mark.slow

COMMANDS = (
    "hbreak start_kernel", "continue", "x/i $pc", "stepi", "x/i $pc",
    "tbreak rest_init", "continue", "bt 2",
    "hbreak do_timer", "continue", "finish", "delete",
    "watch *(long*)&jiffies_64", "continue", "continue", "bt 3",
    "reverse-continue", "x/i $pc", "reverse-continue", "continue", "delete",
    "tbreak run_init_process", "continue", "x/2i $pc", "detach",
)  # fmt: skip


def test_a_kernel_boots_under_gdb(tmp_path: Path) -> None:
    guests = images.obtain()
    with Machine(
        kernel=str(guests.cloud), initrd=str(guests.initrd), append="console=ttyS0 nokaslr rdinit=/scripted",
        memory="512M", unpack_kernel=True, reboot=False, record="", gdb=f"unix:{tmp_path}/gdb",
    ) as machine:  # fmt: skip
        machine.symbols.from_kallsyms()  # before its first instruction: it lies in memory unpacked
        symbols = tmp_path / "symbols"
        assert machine.symbols.save(str(symbols)) > 50_000
        machine.prepare()
        output = run_gdb(machine, *COMMANDS, before=[f"file {symbols}"], timeout=120)
        for line in (
            r"Breakpoint 1, 0x\w+ in start_kernel \(\)",
            r"=> 0x\w+ <start_kernel>:\tcall +0x\w+ <__fentry__>\n0x\w+ in __fentry__ \(\)\n=> 0x\w+ <__fentry__>:\t",
            r"Temporary breakpoint 2, 0x\w+ in rest_init \(\)\n#0 .*rest_init.*\n#1 .*arch_call_rest_init \(\)",
            r"Breakpoint 3, 0x\w+ in do_timer \(\)\n0x\w+ in tick_periodic \(\)",
            r"Hardware watchpoint 4: .*\n\nOld value = \d+\nNew value = \d+\n0x\w+ in do_timer \(\)\n",
            r"#0 .* in do_timer \(\)\n#1 .* in tick_periodic \(\)",
            r"Temporary breakpoint 5, 0x\w+ in run_init_process \(\)",
        ):  # fmt: skip
            assert re.search(line, output), f"{line}:\n{output}"
        values = [(int(a), int(b)) for a, b in re.findall(r"Old value = (\d+)\nNew value = (\d+)", output)]
        n = values[0][0]
        assert values == [(n, n + 1), (n + 1, n + 2), (n + 2, n + 1), (n + 1, n), (n, n + 1)], output
        assert machine.run(until="guest-is-done", timeout=60).condition is not None, machine.output[-2000:]
