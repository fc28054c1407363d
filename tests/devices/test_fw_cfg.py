"""fw_cfg: signature, directory, data port, DMA with hostile requests."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyemu.devices import fw_cfg as f
from pyemu.devices.fw_cfg import FwCfg

SIZE = 1 << 16


class Memory:
    """RAM with a hole, as a machine has one."""

    size = SIZE

    def __init__(self) -> None:
        self.data = bytearray(SIZE)

    def check(self, address: int, length: int) -> None:
        if address + length > SIZE or (address < 0x9000 and address + length > 0x8000):
            raise ValueError("no RAM there")

    def read(self, address: int, length: int) -> bytes:
        self.check(address, length)
        return bytes(self.data[address : address + length])

    def write(self, address: int, data: bytes) -> None:
        self.check(address, len(data))
        self.data[address : address + len(data)] = data


class Rig:
    def __init__(self) -> None:
        self.memory = Memory()
        self.cfg = FwCfg(self.memory, {f.KEY_NUM_CPUS: b"\x01\x00"}, {"opt/b": b"second", "etc/e820": b"map"})

    def select(self, key: int) -> None:
        self.cfg.port_write(0, 2, key)

    def bytes(self, count: int) -> bytes:
        return bytes(self.cfg.port_read(1, 1) for _ in range(count))

    def dma(self, control: int, length: int, target: int, at: int = 0x100) -> int:
        self.memory.data[at : at + 16] = struct.pack(">IIQ", control, length, target)
        self.cfg.port_write(4, 4, int.from_bytes(struct.pack(">I", at >> 32), "little"))
        self.cfg.port_write(8, 4, int.from_bytes(struct.pack(">I", at & 0xFFFFFFFF), "little"))
        return int.from_bytes(self.memory.data[at : at + 4], "big")


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_linux_probe(rig: Rig) -> None:
    # drivers/firmware/qemu_fw_cfg.c
    rig.select(0)
    assert rig.bytes(6) == b"QEMU\0\0"
    rig.select(1)
    assert struct.unpack("<I", rig.bytes(4)) == (3,)
    assert rig.cfg.port_read(4, 4) == int.from_bytes(b"QEMU", "little")
    assert rig.cfg.port_read(8, 4) == int.from_bytes(b" CFG", "little")


def test_directory_and_files(rig: Rig) -> None:
    rig.select(0x19)
    (count,) = struct.unpack(">I", rig.bytes(4))
    entries = [struct.unpack(">IHH56s", rig.bytes(64)) for _ in range(count)]
    assert [(size, name.rstrip(b"\0")) for size, _, _, name in entries] == [(3, b"etc/e820"), (6, b"opt/b")]
    rig.select(entries[1][1])
    assert rig.bytes(7) == b"second\0"
    rig.select(0x3FFF)
    assert rig.bytes(2) == b"\0\0"


def test_dma_read_select_skip(rig: Rig) -> None:
    key = rig.cfg._files["opt/b"]
    assert rig.dma(key << 16 | f.DMA_SELECT | f.DMA_READ, 3, 0x200) == 0
    assert rig.memory.data[0x200:0x203] == b"sec"
    assert rig.dma(f.DMA_SKIP, 1, 0) == 0
    rig.memory.data[0x200:0x210] = b"\xff" * 16
    assert rig.dma(f.DMA_READ, 8, 0x200) == 0
    assert rig.memory.data[0x200:0x209] == b"nd\0\0\0\0\0\0\xff"


@pytest.mark.parametrize(
    ("control", "length", "target"),
    [
        (f.DMA_READ, 16, SIZE - 8),
        (f.DMA_READ, 16, 2**64 - 8),
        (f.DMA_READ, 2**32 - 1, 0),
        (f.DMA_READ, 16, 0x7FF8),
        (f.DMA_WRITE, 4, 0x200),
    ],
)
def test_dma_errors(rig: Rig, control: int, length: int, target: int) -> None:
    before = bytes(rig.memory.data[:0x100])
    assert rig.dma(control, length, target) == f.DMA_ERROR
    assert rig.memory.data[:0x100] == before


@pytest.mark.parametrize("address", [SIZE - 8, 0x7FF8, 2**64 - 1])
def test_request_outside_memory_is_ignored(rig: Rig, address: int) -> None:
    before = bytes(rig.memory.data)
    rig.cfg.port_write(4, 4, int.from_bytes(struct.pack(">I", address >> 32), "little"))
    rig.cfg.port_write(8, 4, int.from_bytes(struct.pack(">I", address & 0xFFFFFFFF), "little"))
    assert rig.memory.data == before


def test_bad_names_and_keys(rig: Rig) -> None:
    with pytest.raises(ValueError):
        rig.cfg.add_file("x" * 56, b"")
    with pytest.raises(ValueError):
        rig.cfg.add_item(0x4000, b"")


@given(
    st.lists(
        st.tuples(
            st.sampled_from("wrd"),
            st.integers(0, 11),
            st.sampled_from([1, 2, 4]),
            st.integers(0, 2**32 - 1),
            st.integers(0, 2**64 - 1),
        ),
        max_size=40,
    )
)
def test_random(actions: list[tuple[str, int, int, int, int]]) -> None:
    rig = Rig()
    for kind, offset, size, value, target in actions:
        if kind == "w":
            rig.cfg.port_write(offset, size, value & ((1 << 8 * size) - 1))
        elif kind == "r":
            assert 0 <= rig.cfg.port_read(offset, size) < 1 << 8 * size
        else:
            rig.dma(value, value % SIZE, target % (2 * SIZE))
        assert len(rig.memory.data) == SIZE
