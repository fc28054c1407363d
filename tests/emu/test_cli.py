"""The command line: help, bad usage, what options come to."""

import os
import resource
import subprocess
import sys

import pytest

from pyemu import cli
from pyemu.config import ConfigError, DebugExit, Icount, MachineConfig, parse_size


def config(*arguments):
    return cli.make_config(cli.Arguments(list(arguments)))


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "pyemu", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


BAD_USAGE = [
    (["-m", "0"], "memory size"),
    (["-m", "1T"], "too large"),
    (["-m", "512X"], "512X"),
    (["-m", "12Q4"], "12Q4"),
    (["-m", ""], "memory size"),
    (["-m", "-5"], "memory size"),
    (["-m", "100K"], "too small"),
    (["-M", "microvm"], "known: pc, q35"),
    (["-machine", "pc,foo=bar"], "foo=bar"),
    (["-cpu", "i9"], "unknown CPU model 'i9'"),
    (["-cpu", ""], "unknown CPU model ''"),
    (["-cpu", "max-v1"], "unknown CPU model 'max-v1'"),
    (["-cpu", "max,+fortran"], "'fortran'"),
    (["-cpu", "max,vendor=me"], "unknown vendor"),
    (["-cpu", "max,nx=maybe"], "nx=maybe"),
    (["-cpu", "Haswell,enforce"], "not implemented and left out: "),
    (["-accel", "kvm"], "known: jit, tcg, interp, reference"),
    (["-smp", "2"], "one CPU"),
    (["-smp", "x"], "not a number"),
    (["-device", "e1000"], "isa-debug-exit"),
    (["-device", "isa-debug-exit,iobase=0x12345"], "iobase"),
    (["-device", "isa-debug-exit,speed=9"], "speed=9"),
    (["-device", "isa-debugcon,iobase=0x402"], "chardev"),
    (["-device", "isa-debugcon,chardev=nobody"], "nobody"),
    (["-chardev", "stdio,id=a", "-debugcon", "null", "-device", "isa-debugcon,chardev=a"], "only one isa-debugcon"),
    (["-device", "isa-debug-exit", "-device", "isa-debug-exit"], "only one isa-debug-exit"),
    (["-chardev", "stdio"], "id=ID"),
    (["-chardev", "file,id=a"], "path=PATH"),
    (["-chardev", "socket,id=a"], "known: stdio"),
    (["-global", "isa-debugcon.iobase=0x10000"], "iobase"),
    (["-global", "e1000.mac=1"], "isa-debugcon.iobase"),
    (["-net", "user"], "known: none"),
    (["-serial", "vc"], "known: stdio"),
    (["-d", "everything"], "in_asm"),
    (["-icount", "99"], "shift"),
    (["-icount", "shift=auto"], "auto"),
    (["-display", "gtk"], "gtk"),
    (["-seed", "-1"], "-seed"),
    (["-initrd", "file"], "-initrd needs -kernel"),
    (["-bios", "rom", "-append", "quiet"], "-append needs -kernel"),
    (["-kernel"], "needs a value"),
    (["-nonsense"], "-nonsense"),
    (["-kernell", "x"], "-kernell"),
    (["stray"], "stray"),
    (["-"], "unexpected"),
    (["-machin", "pc"], "-machin"),
    (["-serial", "stdio", "-serial", "mon:stdio"], "only once"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_USAGE, ids=lambda value: " ".join(value) or "-")
def test_bad_usage_is_one_line_and_status_2(arguments, message, capsys):
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("pyemu: ")
    assert message in lines[0]


def test_defaults():
    assert config() == MachineConfig(serials=("mon:stdio",))


def test_everything_at_once():
    made = config(
        "-M", "q35,accel=tcg", "-cpu", "qemu64", "-m", "1G", "-smp", "1", "-kernel", "k", "-initrd", "i",
        "-append", "console=ttyS0 -x",
        "-serial", "stdio", "-serial", "null", "-no-reboot", "-no-shutdown", "-nographic",
        "-m", "2G", "-m", "1G", "-S", "-icount", "shift=3,sleep=off", "-d", "int,unimp", "-D", "log", "-name", "n",
        "-seed", "0x5",
        "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04", "-display", "none",
    )  # fmt: skip
    assert made == MachineConfig(
        memory=1 << 30, machine="q35", cpu="qemu64", accelerator="tcg", kernel="k", initrd="i",
        append="console=ttyS0 -x", serials=("stdio", "null"), debug_exit=DebugExit(0xF4, 4), icount=Icount(3, False),
        reboot=False, shutdown=False, paused=True, name="n", seed=5,
        log_items=frozenset({"int", "unimp"}), log_file="log",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "debugcon"),
    [
        ([], (None, 0xE9)),
        (["-debugcon", "file:log"], ("file:log", 0xE9)),
        (["-debugcon", "stdio", "-global", "isa-debugcon.iobase=0x402"], ("stdio", 0x402)),
        (["-chardev", "stdio,id=bios", "-device", "isa-debugcon,iobase=0x402,chardev=bios"], ("stdio", 0x402)),
        (["-chardev", "file,id=b,path=p", "-device", "isa-debugcon,chardev=b"], ("file:p", 0xE9)),
    ],
)
def test_debug_console(arguments, debugcon):
    made = config(*arguments)
    assert (made.debugcon, made.debugcon_port) == debugcon


@pytest.mark.parametrize(
    ("arguments", "serials"),
    [
        ([], ("mon:stdio",)),
        (["-nodefaults"], ("null",)),
        (["-debugcon", "stdio"], ("null",)),
        (["-monitor", "stdio", "-display", "none"], ("null",)),
        (["-debugcon", "stdio", "-serial", "file:log"], ("file:log",)),
    ],
)
def test_the_first_serial_port_leaves_the_terminal_to_others(arguments, serials):
    assert config(*arguments).serials == serials


def test_two_dashes_and_append_with_dashes():
    assert config("--kernel", "k", "-append", "-dash").append == "-dash"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512", 512 << 20),
        ("512M", 512 << 20),
        ("1G", 1 << 30),
        ("1.5G", 3 << 29),
        ("2097152B", 2 << 20),
        ("4096k", 4 << 20),
    ],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "1.", ".5G", "1e3", "0x100", "1 G", "--1", "9" * 40, "\u0661"])
def test_bad_sizes(text):
    with pytest.raises(ConfigError):
        parse_size(text)


def test_help_names_every_option(capsys):
    assert cli.main(["-h"]) == 0
    text = capsys.readouterr().out
    for name in (
        "kernel initrd append m smp cpu M machine bios device accel nographic serial no-reboot no-shutdown d D icount "
        "S name version h"
    ).split():
        assert f"-{name}" in text


def test_version(capsys):
    assert cli.main(["-version"]) == 0
    assert capsys.readouterr().out.startswith("pyemu ")


@pytest.mark.parametrize("word", ["help", "?"])
def test_device_help_lists_the_devices(capsys, word):
    assert cli.main(["-device", word]) == 0
    listed = capsys.readouterr().out.split()
    assert "pc-testdev" in listed
    for name in listed:
        extra = ["-chardev", "null,id=x"] if name == "isa-debugcon" else []
        config("-device", f"{name},chardev=x" if extra else name, *extra)


@pytest.mark.parametrize("option", [["-device", "help"], ["-cpu", "help"], ["-h"]])
def test_help_to_a_reader_who_has_gone(option):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as gone:
        done = subprocess.run(
            [sys.executable, "-m", "pyemu", *option], stdout=gone, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert (done.returncode, done.stderr) == (0, "")


def test_help_is_quick():
    """Nothing heavy is imported for it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(3):
        assert run("-h").returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime  # of the processor, not of the clock
    assert seconds < 1.5
    loaded = subprocess.run(
        [sys.executable, "-c", "import pyemu.cli, sys; print([m for m in sys.modules if m.startswith('pyemu')])"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for heavy in ("machine", "cpu", "jit", "devices", "firmware"):
        assert f"pyemu.{heavy}" not in loaded


def bad_files(tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "garbage").write_bytes(bytes(range(256)) * 64)
    (tmp_path / "elf-arm").write_bytes(b"\x7fELF\2\1\1" + bytes(9) + b"\2\0\xb7\0" + bytes(1000))
    (tmp_path / "truncated").write_bytes(bytes(0x1FE) + b"\x55\xaa\xeb\x00HdrS" + bytes(20))
    (tmp_path / "unreadable").write_bytes(b"x")
    (tmp_path / "unreadable").chmod(0)
    return ["missing", "empty", "garbage", "elf-arm", "truncated", ".", "unreadable"]


def test_bad_kernels_are_one_line_and_status_1(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cli, "_install_signals", lambda machine: None)
    for name in bad_files(tmp_path):
        status = cli.main(["-kernel", str(tmp_path / name), "-serial", "null"])
        lines = capsys.readouterr().err.splitlines()
        assert (name, status, len(lines)) == (name, 1, 1), lines
        assert lines[0].startswith("pyemu: ")


def test_testdev():
    assert config("-device", "pc-testdev").testdev
    assert not config().testdev


HELP = [("-M", "q35"), ("-accel", "interp"), ("-d", "unimp")]


@pytest.mark.parametrize(("option", "word"), HELP)
def test_help_as_a_value_lists_what_there_is(capsys, option, word):
    assert cli.main([option, "help"]) == 0
    assert word in capsys.readouterr().out


def test_one_cpu_may_be_said_in_many_words():
    for text in ("1", "cpus=1", "1,sockets=1,cores=1,threads=1", "1,maxcpus=1"):
        assert cli.make_config(cli.Arguments(["-smp", text])).cpu == "max"
