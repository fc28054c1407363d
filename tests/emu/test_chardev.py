"""Character devices over real descriptors: pipes, files, pseudo-terminals, sockets."""

import os
import re
import socket
import termios
import threading
import time

import pytest

from pyemu.chardev import (
    Capture,
    Chardev,
    ChardevError,
    FdChardev,
    FileChardev,
    Mux,
    Pty,
    check_spec,
    open_chardev,
)
from pyemu.chardev_socket import open_socket
from pyemu.clock import RealTimeClock
from pyemu.ioloop import IoLoop
from pyemu.outside import Outside
from pyemu.terminal import RawTerminal


@pytest.fixture
def loop():
    errors = []
    loop = IoLoop(RealTimeClock(Outside()), threading.RLock(), errors.append)
    loop.start()
    yield loop
    loop.stop()
    assert errors == []


def wait_for(condition, seconds=60.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.002)


def read_exactly(fd, length):
    data = b""
    while len(data) < length:
        data += os.read(fd, length - len(data))
    return data


@pytest.mark.parametrize("spec", ["stdio", "mon:stdio", "pty", "null", "none", "file:/tmp/x", "tcp:localhost:1,server"])
def test_known_specifications(spec):
    check_spec(spec)


@pytest.mark.parametrize("spec", ["", "vc", "file:", "mon:pty", "stdin", "sctp:x"])
def test_unknown_specifications(spec):
    with pytest.raises(ChardevError, match="known"):
        check_spec(spec)


def test_null_swallows():
    chardev = open_chardev("null", "serial0")
    assert type(chardev) is Chardev
    chardev.write(b"x" * 1000)
    chardev.close()


def test_output_is_flushed_soon_without_newline(loop):
    read_end, write_end = os.pipe()
    chardev = FdChardev(None, write_end)
    chardev.start(loop)
    for byte in b"login: ":
        chardev.write(bytes((byte,)))
    assert read_exactly(read_end, 7) == b"login: "
    chardev.close()
    os.close(read_end)
    os.close(write_end)


def test_slow_reader_gets_everything(loop):
    """More than a pipe and our buffer hold: the writer waits, nothing is lost."""
    read_end, write_end = os.pipe()
    chardev = FdChardev(None, write_end)
    chardev.start(loop)
    data = bytes(i % 251 for i in range(1 << 20))

    def write():
        for at in range(0, len(data), 1000):
            chardev.write(data[at : at + 1000])
        chardev.flush()

    writer = threading.Thread(target=write)
    writer.start()
    assert read_exactly(read_end, len(data)) == data
    writer.join(60)
    assert not writer.is_alive()
    chardev.close()
    os.close(read_end)
    os.close(write_end)


def test_a_stuck_reader_does_not_hold_up_the_end(loop):
    read_end, write_end = os.pipe()
    chardev = FdChardev(None, write_end)
    chardev.start(loop)
    writer = threading.Thread(target=lambda: [chardev.write(bytes(10_000)) for _ in range(100)])
    writer.start()
    time.sleep(0.1)
    assert writer.is_alive()
    chardev.abandon()
    writer.join(60)
    assert not writer.is_alive()
    os.close(read_end)
    chardev.close()
    os.close(write_end)


def test_broken_pipe_hangs_up_once(loop):
    read_end, write_end = os.pipe()
    chardev = FdChardev(None, write_end)
    reasons = []
    chardev.on_hangup = reasons.append
    chardev.start(loop)
    os.close(read_end)
    chardev.write(b"one\n")
    chardev.write(b"two\n")
    assert len(reasons) == 1
    assert "Broken pipe" in reasons[0]
    chardev.close()
    os.close(write_end)


def test_input_and_its_end(loop):
    read_end, write_end = os.pipe()
    chardev = FdChardev(read_end, None)
    seen = bytearray()
    chardev.on_input = seen.extend
    chardev.start(loop)
    os.write(write_end, b"typed")
    wait_for(lambda: seen == b"typed")
    os.close(write_end)  # not a terminal: the guest just gets no more input
    wait_for(lambda: chardev._read_fd is None)
    chardev.close()
    os.close(read_end)


def test_input_can_be_paused(loop):
    read_end, write_end = os.pipe()
    chardev = FdChardev(read_end, None)
    seen = bytearray()
    chardev.on_input = seen.extend
    chardev.start(loop)
    chardev.pause_input(True)
    os.write(write_end, b"later")
    time.sleep(0.05)
    assert seen == b""
    chardev.pause_input(False)
    wait_for(lambda: seen == b"later")
    chardev.close()
    os.close(read_end)
    os.close(write_end)


def test_file(tmp_path, loop):
    path = tmp_path / "log"
    path.write_text("old contents")
    chardev = FileChardev(str(path))
    chardev.start(loop)
    chardev.write(b"boot\npartial")
    chardev.close()
    assert path.read_bytes() == b"boot\npartial"
    with pytest.raises(ChardevError, match="No such file"):
        FileChardev(str(tmp_path / "missing" / "log"))


def test_pty_both_ways(loop, capsys):
    chardev = Pty("serial0")
    assert f"redirected to {chardev.path} (label serial0)" in capsys.readouterr().err
    seen = bytearray()
    chardev.on_input = seen.extend
    chardev.start(loop)
    fd = os.open(chardev.path, os.O_RDWR | os.O_NOCTTY)
    chardev.write(b"hello\n")
    assert read_exactly(fd, 6) == b"hello\n"  # raw: no \r added
    os.write(fd, b"root\r\x03")
    wait_for(lambda: seen == b"root\r\x03")
    os.close(fd)
    chardev.write(b"nobody reads\n" * 100_000)  # must not block
    chardev.close()


def test_tcp_server_and_reconnection(loop):
    chardev = open_socket("tcp:127.0.0.1:0,server,nowait")
    seen = bytearray()
    chardev.on_input = seen.extend
    chardev.start(loop)
    chardev.write(b"lost: nobody is there\n")
    with socket.create_connection(("127.0.0.1", chardev.port), timeout=60) as peer:
        wait_for(lambda: chardev._write_fd is not None)
        chardev.write(b"hi\n")
        assert peer.recv(100) == b"hi\n"
        peer.sendall(b"there")
        wait_for(lambda: seen == b"there")
    wait_for(lambda: chardev._write_fd is None)
    with socket.create_connection(("127.0.0.1", chardev.port), timeout=60) as peer:
        wait_for(lambda: chardev._write_fd is not None)
        chardev.write(b"again\n")
        assert peer.recv(100) == b"again\n"
    chardev.close()


def test_tcp_server_waits_by_default(loop, capsys):
    done = []
    thread = threading.Thread(target=lambda: done.append(open_chardev("tcp:127.0.0.1:0,server", "serial0")))
    thread.start()
    said = []
    wait_for(lambda: said.append(capsys.readouterr().err) or "waiting for" in "".join(said))
    time.sleep(0.1)
    assert done == []
    port = int(re.fullmatch(r"pyemu: waiting for a connection on 127\.0\.0\.1:(\d+)\n", "".join(said))[1])
    peer = socket.create_connection(("127.0.0.1", port), timeout=60)
    thread.join(60)
    done[0].start(loop)
    done[0].write(b"x\n")
    assert peer.recv(10) == b"x\n"
    peer.close()
    done[0].close()


def test_tcp_client(loop):
    listener = socket.create_server(("127.0.0.1", 0))
    chardev = open_chardev(f"tcp:127.0.0.1:{listener.getsockname()[1]}", "serial0")
    peer, _ = listener.accept()
    chardev.start(loop)
    chardev.write(b"ok\n")
    assert peer.recv(10) == b"ok\n"
    chardev.close()
    assert peer.recv(10) == b""
    peer.close()
    listener.close()
    with pytest.raises(ChardevError, match="refused"):
        open_socket(f"tcp:127.0.0.1:{chardev.port}")


@pytest.mark.parametrize("spec", ["tcp:", "tcp:host", "tcp:host:port", "tcp:h:99999", "tcp:h:1,nonsense"])
def test_bad_tcp_specifications(spec):
    with pytest.raises(ChardevError):
        open_chardev(spec, "serial0")


def test_mux_switches_and_quits():
    backend = Capture()
    quits = []
    mux = Mux(backend, lambda: quits.append(1))
    guest, monitor, breaks = bytearray(), bytearray(), []
    mux.guest.on_input = guest.extend
    mux.guest.on_break = lambda: breaks.append(1)
    mux.monitor.on_input = monitor.extend
    backend.send(b"ls\r\x01")
    backend.send(b"cinfo")  # the escape may be split from its command
    backend.send(b"\x01cmore\x01\x01\x01b")
    assert guest == b"ls\rmore\x01"
    assert monitor == b"info"
    assert breaks == [1]
    backend.send(b"\x01h")
    assert b"C-a x" in backend.output
    assert quits == []
    backend.send(b"abc\x01x")
    assert quits == [1]
    assert guest.endswith(b"abc")


def test_raw_terminal_is_restored():
    master, slave = os.openpty()
    # Only a terminal of our own session's foreground job is touched; a child makes it its own.
    before = termios.tcgetattr(slave)
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            fd = os.open(os.ttyname(slave), os.O_RDWR)
            terminal = RawTerminal(fd, signals=False)
            with terminal:
                raw = termios.tcgetattr(fd)
                ok = not raw[3] & (termios.ECHO | termios.ICANON | termios.ISIG) and terminal.active
            os._exit(0 if ok and termios.tcgetattr(fd) == before else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(master)
    os.close(slave)


def test_raw_terminal_leaves_others_alone():
    read_end, write_end = os.pipe()
    terminal = RawTerminal(read_end, signals=True)
    terminal.enter()
    assert not terminal.active
    terminal.leave()
    os.close(read_end)
    os.close(write_end)


def test_unix_server(loop, tmp_path):
    path = tmp_path / "socket"
    chardev = open_socket(f"unix:{path},server,nowait")
    opened = []
    chardev.on_open = lambda: opened.append(1)
    chardev.start(loop)
    for count in (1, 2):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(path))
            wait_for(lambda count=count: len(opened) == count)
            chardev.write(b"hi\n")
            assert peer.recv(10) == b"hi\n"
        wait_for(lambda: chardev._write_fd is None)
    chardev.close()
    assert not path.exists()


def test_unix_client_and_stale_sockets(loop, tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    server = open_socket(f"unix:{path},server,nowait")
    client = open_socket(f"unix:{path}")
    client.close()
    server.close()
    with pytest.raises(ChardevError, match="No such file"):
        open_socket(f"unix:{path}")
    (tmp_path / "file").write_text("precious")
    with pytest.raises(ChardevError, match="in use"):
        open_socket(f"unix:{tmp_path / 'file'},server,nowait")
    assert (tmp_path / "file").read_text() == "precious"
