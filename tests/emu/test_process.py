"""pyemu as a process on a pseudo-terminal, with the built-in guest: keys, signals, hang-up, exit status, raw mode."""

import contextlib
import os
import pty
import runpy
import select
import signal
import subprocess
import sys
import termios
import time
import types

import pytest

COMMAND = [sys.executable, "-m", "pyemu", "-accel", "reference"]
PROMPT = b"> "


class Session:
    """A child on a terminal of its own."""

    def __init__(self, *arguments):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            # The parent may kill or stop us; what is on the terminal before we touch it must come back.
            os.execv(COMMAND[0], [*COMMAND, *arguments])
        self.output = b""
        self.before = termios.tcgetattr(self.fd)

    def expect(self, text, seconds=60):
        until = time.monotonic() + seconds
        while text not in self.output:
            left = until - time.monotonic()
            assert left > 0, self.output
            if select.select([self.fd], [], [], left)[0]:
                try:
                    data = os.read(self.fd, 4096)
                except OSError:
                    data = b""
                assert data, self.output
                self.output += data
        end = self.output.index(text) + len(text)
        seen, self.output = self.output[:end], self.output[end:]
        return seen

    def type(self, text):
        os.write(self.fd, text)

    def is_raw(self):
        return not termios.tcgetattr(self.fd)[3] & (termios.ECHO | termios.ICANON)

    def wait(self, seconds=60):
        """Exit status, negative for a signal; reads on, so that the child never blocks on output."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
            if self.fd >= 0 and select.select([self.fd], [], [], 0.02)[0]:
                try:
                    self.output += os.read(self.fd, 4096)
                except OSError:
                    time.sleep(0.02)
        raise AssertionError(f"still running after {seconds} s: {self.output!r}")

    def hang_up(self):
        os.close(self.fd)
        self.fd = -1

    def close(self):
        if self.fd >= 0:
            os.close(self.fd)
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


@pytest.fixture
def start():
    sessions = []

    def make(*arguments):
        sessions.append(Session(*arguments))
        return sessions[-1]

    yield make
    for session in sessions:
        session.close()


def test_shell_and_power_off(start):
    session = start()
    session.expect(PROMPT)
    assert session.is_raw()
    session.type(b"ticks\r")
    session.expect(b"ticks")
    session.expect(PROMPT)
    session.type(b"poweroff\r")
    assert session.wait() == 0
    assert termios.tcgetattr(session.fd) == session.before


def test_ctrl_a_x_ends_within_a_second(start):
    seconds = []
    while not seconds or (seconds[-1] >= 1 and len(seconds) < 5):  # a busy host is late now and then
        session = start()
        session.expect(PROMPT)
        started = time.monotonic()
        session.type(b"\x01x")
        assert session.wait() == 0
        seconds.append(time.monotonic() - started)
        assert b"terminated" in session.output
        assert termios.tcgetattr(session.fd) == session.before
    assert seconds[-1] < 1, seconds


def test_monitor_beside_the_guest(start):
    session = start()
    session.expect(PROMPT)
    session.type(b"\x01c")
    session.expect(b"(pyemu) ")
    session.type(b"info registers\r")
    session.expect(b"CR0=")
    session.expect(b"(pyemu) ")
    session.type(b"stop\r")
    session.expect(b"(pyemu) ")
    session.type(b"x /2i $rip\r")
    session.expect(b"(pyemu) ")
    session.type(b"cont\r")
    session.expect(b"(pyemu) ")
    session.type(b"\x01chelp\r")
    session.expect(b"poweroff")
    session.type(b"\x01cquit\r")
    assert session.wait() == 0


def test_paused_at_start(start):
    session = start("-S")
    session.type(b"\x01c")
    session.expect(b"(pyemu) ")
    session.type(b"info status\r")
    session.expect(b"paused")
    session.type(b"cont\r")
    session.expect(b"Type help")
    session.type(b"quit\r")
    assert session.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_end_it_and_restore_the_terminal(start, number):
    session = start()
    session.expect(PROMPT)
    os.kill(session.pid, number)
    assert session.wait() == 128 + number
    assert termios.tcgetattr(session.fd) == session.before


def test_ctrl_c_goes_to_the_guest_with_mon_stdio(start):
    session = start()
    session.expect(PROMPT)
    session.type(b"\x03")
    session.type(b"ticks\r")
    session.expect(b"ticks")
    session.type(b"\x01x")
    assert session.wait() == 0


def test_ctrl_c_ends_it_with_plain_stdio(start):
    session = start("-serial", "stdio")
    session.expect(PROMPT)
    session.type(b"\x03")
    assert session.wait() == 128 + signal.SIGINT
    assert termios.tcgetattr(session.fd) == session.before


def test_closed_terminal_ends_it(start):
    session = start()
    session.expect(PROMPT)
    session.hang_up()
    assert session.wait() in (1, 128 + signal.SIGHUP)


def test_no_shutdown_keeps_the_monitor(start):
    session = start("-no-shutdown")
    session.expect(PROMPT)
    session.type(b"poweroff\r")
    session.expect(b"powering off")
    session.type(b"\x01c")
    said = b""
    while b"paused" not in said:  # the guest has said it, but perhaps not done it yet
        session.type(b"info status\r")
        session.expect(b"VM status: ")
        said = session.expect(b"\n")
    session.type(b"quit\r")
    assert session.wait() == 0


def test_reboot(start):
    session = start()
    session.expect(PROMPT)
    session.type(b"reboot\r")
    session.expect(b"Type help")  # again
    session.expect(PROMPT)
    session.type(b"\x01x")
    assert session.wait() == 0


def test_no_reboot(start):
    session = start("-no-reboot")
    session.expect(PROMPT)
    session.type(b"reboot\r")
    assert session.wait() == 0


def run(*arguments, **options):
    return subprocess.run([*COMMAND, *arguments], capture_output=True, timeout=60, **options)


def test_pipes_instead_of_a_terminal():
    done = run(input=b"help\rpoweroff\r")
    assert done.returncode == 0
    assert b"the memory map" in done.stdout


def test_no_input_at_all():
    child = subprocess.Popen(COMMAND, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    seen = b""
    while PROMPT not in seen:
        seen += os.read(child.stdout.fileno(), 1000)
    child.send_signal(signal.SIGTERM)
    assert child.wait(60) == 128 + signal.SIGTERM
    child.communicate()


def test_reader_that_goes_away_ends_it():
    child = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    child.stdout.read(1)
    child.stdout.close()
    child.stdin.write(b"help\r" * 10)
    child.stdin.flush()
    assert child.wait(60) == 1
    assert b"output closed" in child.stderr.read()
    child.stdin.close()
    child.stderr.close()


def test_serial_to_a_file(tmp_path):
    path = tmp_path / "serial"
    child = subprocess.Popen([*COMMAND, "-serial", f"file:{path}"], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not (path.exists() and PROMPT in path.read_bytes()):
        assert time.monotonic() < until
        time.sleep(0.05)
    child.terminate()
    assert child.wait(60) == 128 + signal.SIGTERM


def test_logging_instructions(tmp_path):
    log = tmp_path / "log"
    done = run("-d", "in_asm,exec,cpu,int", "-D", str(log), input=b"poweroff\r")
    assert done.returncode == 0
    text = log.read_text()
    assert "Trace 0:" in text
    assert "RAX=" in text
    assert "lidt" in text
    assert "interrupt" in text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_first_build_at_once(number, tmp_path):
    """Nobody waits for a compiler that has been told to stop, and its workers don't stay."""
    child = subprocess.Popen(
        [sys.executable, "-m", "pyemu", "-serial", "null"],
        env=os.environ | {"PYEMU_CACHE": str(tmp_path), "PYEMU_BUILD_JOBS": "1"},
        stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        until = time.monotonic() + 60
        while not (workers := children(child.pid)):
            assert time.monotonic() < until
            time.sleep(0.05)
        child.send_signal(number)
        assert child.wait(60) == 128 + number
        assert b"Traceback" not in child.stderr.read()
        assert not [worker for worker in workers if os.path.exists(f"/proc/{worker}")]
    finally:
        child.stderr.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return file.read().split()


def test_ctrl_c_while_starting_leaves_no_traceback(monkeypatch):
    """Python's own handler would leave one, in whatever is being imported."""
    seen = []
    cli = types.ModuleType("pyemu.cli")
    cli.main = lambda: seen.append(signal.getsignal(signal.SIGINT)) or 0
    monkeypatch.setitem(sys.modules, "pyemu.cli", cli)
    before = signal.getsignal(signal.SIGINT)
    try:
        assert runpy.run_module("pyemu.__main__", run_name="started")["main"]() == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.SIG_DFL]
