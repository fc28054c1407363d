"""Symbols from files, both ways, KASLR, and where the monitor uses them."""

import contextlib
import subprocess

import pytest

from pyemu.cpu.state import LSTAR, new_state
from pyemu.symbols import Location, SymbolError, Symbols
from tests import judges

MAP = """\
0000000000000000 A fixed_percpu_data
0000000000001000 A cpu_debug_store
ffffffff81000000 T startup_64
ffffffff81000000 t _text_start
ffffffff81000100 t do_work
ffffffff81000200 T entry_SYSCALL_64
ffffffff81000300 D jiffies
"""
SOURCE = """\
int counter = 3;
static int helper(int x) {
  return x * counter;
}
int main(void) {
  return helper(2);
}
"""


def make(path="", text=MAP):
    symbols = Symbols(new_state(), list)
    if path:
        path.write_text(text)
        symbols.load(str(path))
    return symbols


@pytest.fixture
def known(tmp_path):
    return make(tmp_path / "System.map")


def test_both_ways(known):
    assert known.address("do_work") == 0xFFFFFFFF81000100
    assert known.address("nothing") is None
    assert known.lookup(0xFFFFFFFF81000112) == Location("do_work", 0x12)
    assert known.describe(0xFFFFFFFF81000112) == "<do_work+0x12>"
    assert known.describe(0xFFFFFFFF81000000) == "<startup_64>"  # the global one of two
    assert known.starting_with("s") == ["startup_64"]


def test_what_is_no_place_is_not_found_there(known):
    assert known.address("cpu_debug_store") == 0x1000
    assert known.lookup(0x1010) is None
    assert known.lookup(0xFFFFFFFF80FFFFFF) is None
    assert known.lookup(0xFFFFFFFFC0000000) is None


def test_a_kernel_that_was_moved_is_followed(known):
    known._state[LSTAR] = 0xFFFFFFFF81000200 + 0x11200000
    assert known.address("do_work") == 0xFFFFFFFF92200100
    assert known.describe(0xFFFFFFFF92200104) == "<do_work+0x4>"
    assert known.sources()[0].endswith("moved by 0x11200000")
    known._state[LSTAR] = 0x1234567  # another system
    assert known.address("do_work") == 0xFFFFFFFF81000100


@pytest.mark.parametrize("bits", [32, 64])
def test_elf_with_lines(tmp_path, bits):
    judges.require("gcc")
    source, program = tmp_path / "t.c", tmp_path / "t"
    source.write_text(SOURCE)
    options = ["-g", "-O0", f"-m{bits}", "-no-pie", "-nostdlib", "-Wl,-emain"]
    subprocess.run(["gcc", *options, source, "-o", program], check=True)
    symbols = make()
    assert symbols.load(str(program)) >= 4
    main, counter = symbols.address("main"), symbols.address("counter")
    assert symbols.lookup(main + 3) == Location("main", 3)
    assert symbols.lookup(counter + 1) == Location("counter", 1)
    assert symbols.line(main + 1) == "t.c:5"
    assert symbols.line(0) is None


@pytest.mark.parametrize("content", [b"", b"nothing here\n", b"\x7fELF", b"\x7fELF" + bytes(200)])
def test_files_without_symbols(tmp_path, content):
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(SymbolError) as error:
        make().load(str(tmp_path / "f"))
    assert "\n" not in str(error.value)
    with pytest.raises(SymbolError, match="No such file"):
        make().load(str(tmp_path / "missing"))


def test_damaged_elf_is_refused_or_read(tmp_path):
    judges.require("gcc")
    program = tmp_path / "t"
    (tmp_path / "t.c").write_text(SOURCE)
    subprocess.run(["gcc", "-nostdlib", "-Wl,-emain", tmp_path / "t.c", "-o", program], check=True)
    good = program.read_bytes()
    for at in range(0, len(good), 61):
        bad = bytearray(good)
        bad[at : at + 4] = b"\xff\xfe\xfd\xff"
        program.write_bytes(bad)
        with contextlib.suppress(SymbolError):
            make().load(str(program))


def test_monitor_and_command_line(build, tmp_path):
    (tmp_path / "System.map").write_text("0000000000007c00 T boot\n0000000000007d00 T after\n")
    machine = build(symbols=(str(tmp_path / "System.map"),))
    from pyemu.monitor_table import Session

    session = Session(machine)
    machine.memory.write(0x7C00, bytes.fromhex("e8fd00 8b0500000000"))
    lines = session.execute("x/1i boot").splitlines()
    assert "<boot>:" in lines[0] and "call 0x7d00 <after>" in lines[0]
    assert session.execute("p after - boot") == "0x100"
    assert session.execute("p/d (after-boot)*2+1") == "513"
    assert session.execute("p boot+4") == "0x7c04 <boot+0x4>"
    assert session.execute("p nowhere") == "no symbol is called 'nowhere'"
    assert session.execute("info cpus") == "* CPU #0: pc=0x0000000000007c00 <boot>"
    assert "2 symbols" in session.execute("info symbols")
    assert session.execute("info symbol 0x7d01") == "after+0x1"
    assert session.execute("bt").startswith("#0  0x0000000000007c00 boot")
    assert "kallsyms" in session.execute("symbols kallsyms")
    assert session.execute(f"symbols {tmp_path / 'System.map'}") == "2 symbols"


@pytest.mark.parametrize("text", ["1 +", "(1", "1)", "(" * 500 + "1", "1/0", "7 7", "~", "@", "$rax $rax"])
def test_bad_expressions_are_one_line(build, text):
    from pyemu.monitor_table import Session

    reply = Session(build()).execute(f"p {text}")
    assert reply and "\n" not in reply


def test_saved_for_others(tmp_path):
    """What is written is an ELF file that we, and pyelftools, read again."""
    source = tmp_path / "map"
    source.write_text("ffffffff81000000 T startup\nffffffff81000123 t inner\n0000000000001000 A per_cpu\n")
    known = make()
    known.load(str(source))
    assert known.save(str(tmp_path / "elf")) == 3
    again = make()
    assert again.load(str(tmp_path / "elf")) == 3
    found = [again.address(name) for name in ("startup", "inner", "per_cpu")]
    assert found == [0xFFFFFFFF81000000, 0xFFFFFFFF81000123, 0x1000]
    with pytest.raises(SymbolError, match="can't write symbols"):
        known.save(str(tmp_path / "no" / "elf"))
    with pytest.raises(SymbolError, match="no symbols to save"):
        make().save(str(tmp_path / "elf"))
