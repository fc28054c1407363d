"""QMP: the protocol on a captured device, and a whole session with QEMU's own client."""

import asyncio
import json
import random
import socket
import subprocess
import sys
import time

import pytest
from qemu.qmp import ExecuteError, QMPClient

from pyemu.chardev import Capture
from pyemu.qmp import DEEPEST, LARGEST, Messages, QmpError, QmpServer
from pyemu.qmp_commands import COMMANDS


class Client:
    """The other end of a captured device."""

    def __init__(self, machine):
        self.console = Capture()
        self.server = QmpServer(machine, self.console)
        machine.listeners.append(self.server.event)
        self.console.on_open()
        self.greeting = self.replies()[0]

    def replies(self):
        data = bytes(self.console.output)  # other threads may add to it
        end = data.rfind(b"\n") + 1
        del self.console.output[:end]
        return [json.loads(line) for line in data[:end].splitlines()]

    def send(self, data):
        self.console.send(data if isinstance(data, bytes) else json.dumps(data).encode())
        return self.replies()

    def execute(self, name, **arguments):
        message = {"execute": name, "arguments": arguments} if arguments else {"execute": name}
        return next(reply for reply in self.send(message) if "event" not in reply)


@pytest.fixture
def machine(build):
    return build(name="guest")


@pytest.fixture
def client(machine):
    client = Client(machine)
    assert client.execute("qmp_capabilities") == {"return": {}}
    return client


def error(reply):
    return reply["error"]["class"], reply["error"]["desc"]


def test_greeting_and_negotiation(machine):
    client = Client(machine)
    assert client.greeting["QMP"]["capabilities"] == []
    assert set(client.greeting["QMP"]["version"]["qemu"]) == {"major", "minor", "micro"}
    assert error(client.execute("query-status"))[0] == "CommandNotFound"
    assert "no capabilities" in error(client.execute("qmp_capabilities", enable=["oob"]))[1]
    assert client.execute("qmp_capabilities", enable=[]) == {"return": {}}
    assert error(client.execute("qmp_capabilities"))[0] == "CommandNotFound"
    client.console.on_open()  # the next client
    client.replies()
    assert error(client.execute("query-status"))[0] == "CommandNotFound"


def test_queries(machine, client):
    assert client.execute("query-status")["return"] == {"running": False, "singlestep": False, "status": "prelaunch"}
    assert client.execute("query-name") == {"return": {"name": "guest"}}
    assert client.execute("query-memory-size-summary")["return"]["base-memory"] == 16 << 20
    assert client.execute("query-cpus-fast")["return"][0]["target"] == "x86_64"
    assert client.execute("query-kvm")["return"] == {"enabled": False, "present": False}
    assert client.execute("query-target")["return"] == {"arch": "x86_64"}
    assert client.execute("query-version")["return"] == client.execute("query-version")["return"]
    assert client.execute("query-chardev")["return"] == []
    names = {entry["name"] for entry in client.execute("query-commands")["return"]}
    assert names == {*COMMANDS, "qmp_capabilities"}


def test_run_state_and_events(machine, client):
    replies = client.send({"execute": "cont", "id": 7})
    assert {"return": {}, "id": 7} in replies
    assert [reply["event"] for reply in replies if "event" in reply] == ["RESUME"]
    assert client.execute("query-status")["return"]["status"] == "running"
    replies = client.send({"execute": "stop", "id": [1]})
    assert {"return": {}, "id": [1]} in replies
    stop = next(reply for reply in replies if "event" in reply)
    assert stop["event"] == "STOP" and abs(stop["timestamp"]["seconds"] - time.time()) < 100
    assert client.execute("query-status")["return"]["status"] == "paused"
    assert client.execute("query-cpus-fast")["return"][0]["thread-id"] > 0
    # a look at the processor is nobody's business
    client.execute("cont")
    replies = client.send({"execute": "human-monitor-command", "arguments": {"command-line": "info registers"}})
    assert [reply for reply in replies if "event" in reply] == []
    assert "CR0=" in replies[0]["return"]


def test_reset_and_power(machine, client):
    assert client.execute("system_powerdown") == {"return": {}}
    machine.start()
    replies = client.send({"execute": "system_reset"})
    assert reset_event(client, replies) == {"guest": False, "reason": "host-qmp-system-reset"}
    machine.loop.ask_reset()
    assert reset_event(client, []) == {"guest": True, "reason": "guest-reset"}


def reset_event(client, replies):
    """What the event says, which comes when the processor has noticed."""
    deadline = time.monotonic() + 60
    while not (found := [reply["data"] for reply in replies if reply.get("event") == "RESET"]):
        assert time.monotonic() < deadline
        replies += client.replies()
    return found[0]


def test_powerdown_is_told(client):
    replies = client.send({"execute": "system_powerdown"})
    assert any(reply.get("event") == "POWERDOWN" for reply in replies)


def test_the_end_is_told_once(machine, client):
    machine.start()
    machine.quit()
    machine.wait_end()
    events = [reply for reply in client.replies() if reply.get("event") == "SHUTDOWN"]
    assert [event["data"] for event in events] == [{"guest": False, "reason": "host-qmp-quit"}]
    assert client.execute("query-status")["return"]["status"] == "shutdown"
    assert "error" in client.execute("cont")


def test_keys_and_nmi(machine, client):
    keys = [{"type": "qcode", "data": "shift"}, {"type": "qcode", "data": "a"}]
    assert client.execute("send-key", keys=keys, **{"hold-time": 5}) == {"return": {}}
    assert machine.board.i8042.keyboard.state.queue
    assert client.execute("inject-nmi") == {"return": {}}
    for text in ("savevm ./\ud800", "savevm ./a\0b"):
        assert "not text" in error(client.execute("human-monitor-command", **{"command-line": text}))[1]
    odd = [{"type": "qcode", "data": []}]
    for bad in (odd, [{"type": "number", "data": 5}], [{"type": "qcode", "data": "hyper"}], [5], [{"type": "qcode"}]):
        assert error(client.execute("send-key", keys=bad))[0] == "GenericError"


def test_memory(machine, client, tmp_path):
    machine.memory.write(0x3000, b"qmp!")
    path = str(tmp_path / "out")
    assert client.execute("pmemsave", val=0x3000, size=4, filename=path) == {"return": {}}
    assert (tmp_path / "out").read_bytes() == b"qmp!"
    assert client.execute("memsave", val=0x3001, size=2, filename=path) == {"return": {}}
    assert (tmp_path / "out").read_bytes() == b"mp"
    for val, size, filename in (
        (0xFFFFFFFF0, 4, path),
        (0, 0, path),
        (-5, 2, path),
        (0, 4, "/nowhere/x"),
        (0, 4, "a\0b"),
    ):
        assert error(client.execute("pmemsave", val=val, size=size, filename=filename))[0] == "GenericError"
    assert "CPU index" in error(client.execute("memsave", val=0, size=1, filename=path, **{"cpu-index": 3}))[1]


def test_explanations(client):
    explained = client.execute("x-explain", what="$rip")["return"]
    assert explained["row"]["opcode"] == "F4"
    assert "error" in client.execute("x-explain", what="nonsense")


@pytest.mark.parametrize(
    ("message", "kind", "text"),
    [
        ({"execute": "nonsense"}, "CommandNotFound", "The command nonsense has not been found"),
        ({"execute": "stop", "arguments": {"x": 1}}, "GenericError", "Parameter 'x' is unexpected"),
        ({"execute": "memsave", "arguments": {}}, "GenericError", "Parameter 'val' is missing"),
        (
            {"execute": "human-monitor-command", "arguments": {"command-line": 5}},
            "GenericError",
            "Invalid parameter type for 'command-line', expected: string",
        ),
        (
            {"execute": "pmemsave", "arguments": {"val": True, "size": 1, "filename": ""}},
            "GenericError",
            "expected: int",
        ),
        ({"execute": 5}, "GenericError", "must be a string"),
        ({"execute": "stop", "arguments": []}, "GenericError", "must be an object"),
        ({"execute": "stop", "more": 1}, "GenericError", "'more' is unexpected"),
        ({}, "GenericError", "lacks member 'execute'"),
        ([], "GenericError", "must be a JSON object"),
    ],
)
def test_bad_requests(client, message, kind, text):
    found = error(client.send(message)[0])
    assert found[0] == kind and text in found[1]
    assert client.execute("query-name") == {"return": {"name": "guest"}}


@pytest.mark.parametrize(
    "data",
    [
        b"garbage\n", b"\xff\xfe\xfd", b'{"execute": }', b"{'execute': 'stop'}", b'{"a": NaN}', b'{"a": "\\ud800"}x',
        b'{"a": "\xff"}', b"}", b"[" * 1000, b'{"a":' * 1000, b'{"n": ' + b"9" * 10000 + b"}", b"5", b'"x"', b"{]",
    ],
)  # fmt: skip
def test_garbage(client, data):
    replies = client.send(data)
    assert all(error(reply)[0] == "GenericError" for reply in replies) and replies
    client.send(b"}" * 100)
    assert client.execute("query-name") == {"return": {"name": "guest"}}


def test_a_message_without_an_end(client):
    replies = client.send(b'{"a": "')
    for _ in range(LARGEST // 4096 + 1):
        replies += client.send(b"x" * 4096)
    assert "longer than" in error(replies[0])[1]
    assert client.execute("query-name") == {"return": {"name": "guest"}}


def test_messages_may_come_in_pieces():
    text = b' {"a": "}{\\"\\\\"}\r\n[1, {"b": []}]{}\n'
    rng = random.Random(1)
    for _ in range(200):
        cut, found, messages = 0, [], Messages()
        while cut < len(text):
            step = rng.randrange(1, 9)
            found += messages.feed(text[cut : cut + step])
            cut += step
        assert found == [b'{"a": "}{\\"\\\\"}', b'[1, {"b": []}]', b"{}"]


def test_random_bytes_never_raise():
    rng = random.Random(2)
    for _ in range(500):
        data = bytes(rng.choice(b'{}[]"\\:,a1 \n\xff') for _ in range(60))
        for message in Messages().feed(data):
            assert isinstance(message, (bytes, QmpError))
    assert DEEPEST < 1000  # Python's parser is recursive


# ---- processes ------------------------------------------------------------------------------------------------------
PYEMU = [sys.executable, "-m", "pyemu", "-m", "16", "-accel", "interp", "-S", "-serial", "null", "-name", "checked"]


def start(address, stderr=subprocess.DEVNULL):
    return subprocess.Popen([*PYEMU, "-qmp", address], stderr=stderr)


async def connected(address):
    client = QMPClient("test")
    for _ in range(600):
        try:
            await client.connect(address)
            return client
        except Exception:
            await asyncio.sleep(0.05)
    raise AssertionError("no connection")


async def session(address):
    client = await connected(address)
    assert await client.execute("query-name") == {"name": "checked"}
    assert (await client.execute("query-status"))["status"] == "prelaunch"
    with client.listener(("RESUME", "STOP", "RESET", "SHUTDOWN")) as listener:
        await client.execute("cont")
        assert (await listener.get())["event"] == "RESUME"
        assert (await client.execute("query-status"))["running"]
        await client.execute("system_reset")
        assert (await listener.get())["event"] == "RESET"
        await client.execute("stop")
        assert (await listener.get())["event"] == "STOP"
        with pytest.raises(ExecuteError, match="has not been found"):
            await client.execute("nonsense")
        text = await client.execute("human-monitor-command", {"command-line": "info status"})
        assert text == "VM status: paused\r\n"
        await client.disconnect()
    client = await connected(address)  # the next client
    assert (await client.execute("query-status"))["status"] == "paused"
    with client.listener("SHUTDOWN") as listener:
        await client.execute("quit")
        assert (await listener.get())["data"] == {"guest": False, "reason": "host-qmp-quit"}
    try:
        await client.disconnect()
    except Exception:
        return  # the other end has gone already


def test_qemus_client_over_a_unix_socket(tmp_path):
    path = tmp_path / "qmp"
    process = start(f"unix:{path},server=on,wait=off")
    try:
        asyncio.run(session(str(path)))
        assert process.wait(60) == 0
        assert not path.exists()
    finally:
        process.kill()
        process.wait()


def test_qemus_client_over_tcp():
    with start("tcp:127.0.0.1:0,server=on,wait=on", stderr=subprocess.PIPE) as process:
        try:
            said = process.stderr.readline().decode()
            asyncio.run(session(("127.0.0.1", int(said.removeprefix("pyemu: waiting for a connection on 127.0.0.1:")))))
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_who_does_not_read_is_cut_off(tmp_path):
    path = tmp_path / "qmp"
    process = start(f"unix:{path},server,nowait")
    try:
        deadline = time.monotonic() + 60
        while not path.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with socket.socket(socket.AF_UNIX) as deaf:
            deaf.connect(str(path))
            deaf.sendall(b'{"execute": "qmp_capabilities"}')
            deaf.settimeout(30)
            with pytest.raises(OSError):
                deaf.sendall(b'{"execute": "query-commands"}' * 2_000_000)
        asyncio.run(session(str(path)))
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("spec", ["mon:stdio", "nonsense", "unix:", "unix:/x,fire", f"unix:/{'x' * 200},server"])
def test_bad_options(spec):
    done = subprocess.run([*PYEMU, "-qmp", spec], capture_output=True, timeout=60)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
