"""The packet layer, and that nothing a client sends makes the server stumble."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyemu.gdbserver.packets import MOST, Packet, Reader, Signal, frame
from pyemu.gdbserver.session import Session
from pyemu.machine import Machine
from tests.gdb.sector import sector


@given(st.lists(st.binary(max_size=200)), st.integers(1, 50))
def test_what_is_framed_is_read(payloads: list[bytes], chunk: int) -> None:
    data = b"+".join(frame(payload) for payload in payloads)
    reader = Reader()
    found = [item for k in range(0, len(data), chunk) for item in reader.feed(data[k : k + chunk])]
    assert [item.payload for item in found if isinstance(item, Packet)] == payloads
    assert all(isinstance(item, Packet) or item is Signal.ACKNOWLEDGED for item in found)


@given(st.binary(), st.binary(max_size=30))
def test_garbage_is_survived_and_the_next_packet_is_read(garbage: bytes, payload: bytes) -> None:
    reader = Reader()
    reader.feed(garbage + b"#00")
    assert reader.feed(frame(payload))[-1] == Packet(payload)


def test_damage_and_signals() -> None:
    reader = Reader()
    assert reader.feed(b"$g#67\x03-+$g#68$m#zz") == [
        Packet(b"g"), Signal.INTERRUPT, Signal.SEND_AGAIN, Signal.ACKNOWLEDGED, Signal.DAMAGED, Signal.DAMAGED,
    ]  # fmt: skip
    assert reader.feed(b"$X\x03}\x03#db") == [Packet(b"X\x03#")]  # 03 in a packet is data
    assert reader.feed(b"$lost$g#67") == [Packet(b"g")]
    assert reader.feed(b"$" + b"a" * (3 * MOST) + b"#00") == [Signal.DAMAGED]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    image: Path = tmp_path_factory.mktemp("gdb") / "sector"
    image.write_bytes(sector())
    with Machine(kernel=str(image), memory="16M", accelerator="interp") as made:
        yield made


_STARTS = [
    "?", "!", "g", "G", "p", "P", "m", "M", "X", "H", "T", "Z0,", "Z2,", "z4,", "Z9,", "qSupported:",
    "qXfer:features:read:target.xml:", "qXfer:x:", "qC", "qfThreadInfo", "qThreadExtraInfo,", "qAttached",
    "vMustReplyEmpty", "vCont?", "qqemu.sstepbits", "Qqemu.sstep=", "Qqemu.PhyMemMode:", "qRcmd,", "bs", "bc",
    "vFile:", "Y", "\xff",
]  # fmt: skip
_REST = st.one_of(
    st.binary(max_size=40),
    st.lists(
        st.sampled_from([b"0", b"1", b"ffffffffffffffff", b"7c00", b",", b":", b";", b"=", b"p1.1", b"-1", b"6869"])
    ).map(b"".join),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(start=st.sampled_from(_STARTS), rest=_REST)
def test_any_packet_has_an_answer(session: Session, start: str, rest: bytes) -> None:
    if start.startswith("qRcmd"):
        rest = b"696e666f20" + rest  # "info ...": what the monitor ends is another matter
    reply = session.handle(start.encode("latin-1") + rest)
    assert reply is not None and len(reply) <= 2 * MOST


def test_registers_and_memory(session: Session) -> None:
    machine = session.machine
    features = session.handle(b"qSupported:multiprocess+;swbreak+;hwbreak+")
    assert features is not None and features.startswith(b"PacketSize=4000;vContSupported+")
    xml = session.handle(b"qXfer:features:read:target.xml:0,3fff")
    assert xml is not None and b"<architecture>i386:x86-64</architecture>" in xml
    n = session.description.number
    assert session.handle(b"p%x" % n("rip")) == (0x7C00).to_bytes(8, "little").hex().encode()
    assert session.handle(b"P%x=efbeadde00000080" % n("rbx")) == b"OK"
    assert machine.regs.rbx == 0x80000000DEADBEEF
    assert session.handle(b"P%x=0000000000000000" % n("cr0")) == b"E16"  # decides the mode: not to be written
    assert session.handle(b"p%x" % len(session.description.registers)) == b"E16"
    everything = session.handle(b"g")
    assert everything is not None
    assert session.handle(b"G" + everything) == b"OK" and session.handle(b"g") == everything
    for n_, register in enumerate(session.description.registers):
        if register.set is not None and register.name not in ("cs", "ss", "ds", "es", "fs", "gs"):
            value = session.handle(b"p%x" % n_)
            assert value is not None and session.handle(b"P%x=%b" % (n_, value)) == b"OK"
    assert session.handle(b"m7c00,6") == b"faea1000c007"
    assert session.handle(b"M600,3:010203") == b"OK" and session.handle(b"m5ff,5") == b"0001020300"
    assert session.handle(b"X600,2:#$") == b"OK" and machine.memory.read(0x600, 2) == b"#$"
    assert session.handle(b"mfee00000,4") == b"E0e"  # a device: looking at it might change it
    assert session.handle(b"m600") == session.handle(b"M600,2:01") == session.handle(b"m-1,2") == b"E16"


def test_breakpoints_never_change_memory_and_have_an_end(session: Session) -> None:
    before = session.machine.memory.read(0x7C00, 512)
    assert session.handle(b"Z0,7c00,1") == session.handle(b"Z0,7c00,1") == session.handle(b"Z1,7c10,1") == b"OK"
    assert session.machine.memory.read(0x7C00, 512) == before
    assert len(session.machine.hooks.all) == 2
    assert session.handle(b"z0,7c00,1") == session.handle(b"z0,7c00,1") == b"OK"
    replies = [session.handle(b"Z2,%x,4" % (0x600 + 4 * n)) for n in range(40)]
    assert replies == [b"OK"] * 32 + [b"E1c"] * 8
    assert session.handle(b"Z5,0,1") == b""
