"""PCI: enumeration as Linux does it by ports and ECAM, BAR sizing and mapping, INTx routing, chipset registers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyemu.devices.acpi_pm import ResetControl
from pyemu.devices.interfaces import MmioDevice, PortDevice
from pyemu.devices.pci import Bar, ConfigPorts, EcamWindow, PciBus, PciFunction
from pyemu.devices.pci.bus import q35_pirq
from pyemu.devices.pci.chipsets import I440fx, Ich9Lpc, Piix3, Piix4Pm, Q35Mch
from tests.devices.helpers import RecordingLine


class Window:
    def mmio_read(self, offset: int, size: int) -> int:
        return 0

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        return

    port_read = mmio_read
    port_write = mmio_write


class Mapper:
    def __init__(self) -> None:
        self.mapped: dict[int, tuple[bool, int, int | None]] = {}

    def map_bar(self, window: PortDevice | MmioDevice, is_io: bool, size: int, address: int | None) -> None:
        self.mapped[id(window)] = (is_io, size, address)


class Rig:
    def __init__(self) -> None:
        self.mapper = Mapper()
        self.bus = PciBus(self.mapper)
        self.isa = [RecordingLine() for _ in range(16)]
        self.pm_bases: list[int | None] = []
        self.resets = 0
        self.gsi = [RecordingLine() for _ in range(4)]
        self.piix3 = Piix3(self.isa, self.gsi)
        self.pm = Piix4Pm(0x600, self.pm_bases.append)
        self.pam: list[tuple[int, ...]] = []
        self.bus.add(0, 0, I440fx(self.pam.append))
        self.bus.add(1, 0, self.piix3)
        self.bus.add(1, 3, self.pm)
        self.bus.set_pirq_lines([self.piix3.pirq_line(i) for i in range(4)])
        self.io, self.mem, self.mem64 = Window(), Window(), Window()
        self.card = PciFunction(0x1AF4, 0x1000, 0x020000, pin=1)
        self.card.add_bar(0, Bar(self.io, 32, is_io=True))
        self.card.add_bar(1, Bar(self.mem, 4096))
        self.card.add_bar(4, Bar(self.mem64, 1 << 14, is_64bit=True, prefetchable=True))
        self.bus.add(3, 0, self.card)
        self.ports = ConfigPorts(self.bus, ResetControl(self.reset))
        self.ecam = EcamWindow(self.bus)

    def reset(self) -> None:
        self.resets += 1

    def get(self, device: int, offset: int, size: int = 4, function: int = 0) -> int:
        self.ports.port_write(0, 4, 1 << 31 | device << 11 | function << 8 | offset & ~3)
        return self.ports.port_read(4 + (offset & 3), size)

    def put(self, device: int, offset: int, value: int, size: int = 4) -> None:
        self.ports.port_write(0, 4, 1 << 31 | device << 11 | offset & ~3)
        self.ports.port_write(4 + (offset & 3), size, value)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_linux_probe_of_mechanism_1(rig: Rig) -> None:
    # arch/x86/pci/direct.c, pci_check_type1()
    rig.ports.port_write(3, 1, 0x01)
    old = rig.ports.port_read(0, 4)
    rig.ports.port_write(0, 4, 0x80000000)
    assert rig.ports.port_read(0, 4) == 0x80000000
    assert rig.get(0, 0x0A, 2) == 0x0600
    rig.ports.port_write(0, 4, old)


def test_enumeration(rig: Rig) -> None:
    found = {(d, f): rig.get(d, 0, 4, f) for d in range(32) for f in range(8) if rig.get(d, 0, 2, f) != 0xFFFF}
    assert found == {(0, 0): 0x12378086, (1, 0): 0x70008086, (1, 3): 0x71138086, (3, 0): 0x10001AF4}
    assert rig.get(1, 0x0E, 1) == 0x80
    assert rig.get(3, 0x0E, 1) == 0
    assert rig.get(3, 0x08) == 0x02000000
    rig.ports.port_write(0, 4, 1 << 31 | 1 << 16)
    assert rig.ports.port_read(4, 4) == 0xFFFFFFFF  # bus 1
    rig.ports.port_write(0, 4, 0)
    assert rig.ports.port_read(4, 4) == 0xFFFFFFFF


def test_ecam_sees_the_same(rig: Rig) -> None:
    assert rig.ecam.mmio_read(3 << 15, 4) == 0x10001AF4
    assert rig.ecam.mmio_read(3 << 15 | 2, 2) == 0x1000
    assert rig.ecam.mmio_read(3 << 15, 8) == rig.get(3, 0) | rig.get(3, 4) << 32
    rig.ecam.mmio_write(3 << 15 | 0x3C, 1, 11)
    assert rig.get(3, 0x3C, 1) == 11
    assert rig.ecam.mmio_read(3 << 15 | 0x100, 4) == 0xFFFFFFFF  # no extended space
    assert rig.ecam.mmio_read(1 << 20, 4) == 0xFFFFFFFF
    assert rig.ecam.mmio_read(3 << 15 | 3, 2) == 0xFFFF


def test_bar_sizing_and_mapping(rig: Rig) -> None:
    sizes = []
    for i in range(6):
        rig.put(3, 0x10 + 4 * i, 0xFFFFFFFF)
        sizes.append(rig.get(3, 0x10 + 4 * i))
    assert sizes == [0xFFFFFFE1, 0xFFFFF000, 0, 0, 0xFFFFC00C, 0xFFFFFFFF]
    rig.put(3, 0x30, 0xFFFFF800)
    assert rig.get(3, 0x30) == 0  # no ROM
    rig.put(3, 0x10, 0xC000)
    rig.put(3, 0x14, 0xFEBF0000)
    rig.put(3, 0x20, 0x10000000)
    rig.put(3, 0x24, 0x8)
    assert rig.mapper.mapped == {}
    rig.put(3, 0x04, 0x0007, 2)
    assert rig.mapper.mapped == {
        id(rig.io): (True, 32, 0xC000),
        id(rig.mem): (False, 4096, 0xFEBF0000),
        id(rig.mem64): (False, 1 << 14, 0x8_1000_0000),
    }
    assert rig.card.is_bus_master
    rig.put(3, 0x14, 0xFFFFFFFF)  # sizing while decoding
    assert rig.mapper.mapped[id(rig.mem)][2] is None
    rig.put(3, 0x14, 0xFEBE0000)
    assert rig.mapper.mapped[id(rig.mem)][2] == 0xFEBE0000
    rig.put(3, 0x04, 0x0002, 2)
    assert rig.mapper.mapped[id(rig.io)][2] is None
    rig.card.reset()
    assert rig.mapper.mapped[id(rig.mem)][2] is None


def test_status_and_identity_are_read_only(rig: Rig) -> None:
    rig.put(3, 0, 0)
    assert rig.get(3, 0) == 0x10001AF4
    rig.put(3, 4, 0xFFFFFFFF)
    assert rig.get(3, 4) == 0x547


def test_capabilities(rig: Rig) -> None:
    card = PciFunction(0x1AF4, 0x1041, 0x020000)
    assert card.add_capability(0x09, b"\x10\x01") == 0x40
    assert card.add_capability(0x11, bytes(10), b"\x00\xc0") == 0x44
    rig.bus.add(4, 0, card)
    assert rig.get(4, 4) >> 16 & 0x10
    assert rig.get(4, 0x34, 1) == 0x40
    assert rig.get(4, 0x40) == 0x01104409
    rig.put(4, 0x44, 0xFFFFFFFF)
    assert rig.get(4, 0x44) == 0xC0000011


def test_intx_through_piix3(rig: Rig) -> None:
    # device 3, INTA is PIRQC: routed to ISA 11
    rig.card.set_intx(True)
    assert rig.isa[11].level
    assert [line.level for line in rig.gsi] == [False, False, True, False]
    assert rig.get(3, 4) >> 16 & 8
    rig.put(3, 4, 0x400, 2)
    assert not rig.isa[11].level
    assert rig.get(3, 4) >> 16 & 8
    rig.put(3, 4, 0, 2)
    rig.put(1, 0x62, 5, 1)
    assert not rig.isa[11].level
    assert rig.isa[5].level
    rig.put(1, 0x62, 0x80, 1)
    assert not rig.isa[5].level
    rig.put(1, 0x62, 8, 1)  # not routable
    assert not rig.isa[8].level


def test_shared_pirq(rig: Rig) -> None:
    other = PciFunction(1, 2, 0x020000, pin=1)
    rig.bus.add(7, 0, other)
    rig.card.set_intx(True)
    other.set_intx(True)
    rig.card.set_intx(False)
    assert rig.isa[11].level
    other.set_intx(False)
    assert not rig.isa[11].level


def test_pm_base(rig: Rig) -> None:
    rig.pm.announce()
    assert rig.pm_bases == [0x600]
    rig.ports.port_write(0, 4, 0x80000000 | 1 << 11 | 3 << 8 | 0x40)
    assert rig.ports.port_read(4, 4) == 0x601
    rig.ports.port_write(4, 4, 0xB000)
    rig.ports.port_write(0, 4, 0x80000000 | 1 << 11 | 3 << 8 | 0x80)
    rig.ports.port_write(4, 1, 0)
    assert rig.pm_bases == [0x600, 0xB000, None]
    rig.bus.reset()
    assert rig.pm_bases[-1] == 0x600


def test_reset_register_within_the_ports(rig: Rig) -> None:
    rig.ports.port_write(0, 4, 0x80000E00)
    rig.ports.port_write(1, 1, 0x02)
    assert rig.ports.port_read(1, 1) == 0x02
    assert rig.ports.port_read(0, 4) == 0x80000E00
    rig.ports.port_write(1, 1, 0x06)
    assert rig.resets == 1


def test_pam_registers_say_where_ram_is(rig: Rig) -> None:
    """440FX 3.2.18: the upper half of the first is for 0xf0000, the lower one doesn't exist."""
    rig.ports.port_write(0, 4, 0x80000058)
    rig.ports.port_write(5, 1, 0x1F)
    assert rig.pam[-1] == (3,) * 12 + (1,)
    assert rig.ports.port_read(5, 1) == 0x10
    rig.ports.port_write(6, 2, 0x2013)
    assert rig.pam[-1] == (3, 1, 0, 2) + (3,) * 8 + (1,)
    rig.ports.port_write(0, 4, 0x8000005C)
    rig.ports.port_write(4, 4, 0)
    assert rig.pam[-1] == (3, 1, 0, 2) + (0,) * 8 + (1,)
    rig.bus.reset()
    assert rig.pam[-1] == (3,) * 13


def test_chipset_without_firmware_does_nothing_yet() -> None:
    pam: list[tuple[int, ...]] = []
    windows: list[tuple[int, int]] = []
    bases: list[int | None] = []
    bridge = I440fx(pam.append, configured=False)
    mch = Q35Mch(0xB0000000, lambda base, size: windows.append((base, size)), pam.append, configured=False)
    pm = Piix4Pm(0x600, bases.append, configured=False)
    lpc = Ich9Lpc([RecordingLine()] * 16, [RecordingLine()] * 8, 0x600, bases.append, configured=False)
    for function in (bridge, mch, pm, lpc):
        function.announce()
    assert pam == [(0,) * 13] * 2
    assert not windows and not bases


def test_q35() -> None:
    windows: list[tuple[int, int]] = []
    isa = [RecordingLine() for _ in range(16)]
    gsi = [RecordingLine() for _ in range(8)]
    pm_bases: list[int | None] = []
    bus = PciBus(pirq_of=q35_pirq)
    pam: list[tuple[int, ...]] = []
    mch = Q35Mch(0xB0000000, lambda base, size: windows.append((base, size)), pam.append)
    lpc = Ich9Lpc(isa, gsi, 0x600, pm_bases.append)
    bus.add(0, 0, mch)
    bus.add(31, 0, lpc)
    bus.set_pirq_lines([lpc.pirq_line(i) for i in range(8)])
    mch.announce()
    lpc.announce()
    assert windows == [(0xB0000000, 256 << 20)]
    assert pm_bases == [0x600]
    bus.config_write(0, 0x60, 4, 0xE0000003)
    bus.config_write(0, 0x60, 4, 0xE0000002)
    assert windows[1:] == [(0xE0000000, 128 << 20), (0, 0)]
    card = PciFunction(1, 2, 0x020000, pin=1)
    bus.add(2, 0, card)
    card.set_intx(True)  # slot 2: PIRQG, input 22
    assert [line.level for line in gsi] == [False] * 6 + [True, False]
    assert not any(line.level for line in isa)
    bus.config_write(31 << 3, 0x6A, 1, 10)
    assert isa[10].level


def test_impossible_things_are_refused(rig: Rig) -> None:
    with pytest.raises(ValueError):
        rig.bus.add(3, 0, PciFunction(1, 2, 3))
    with pytest.raises(ValueError):
        rig.card.add_bar(2, Bar(Window(), 24))
    with pytest.raises(ValueError):
        rig.card.add_bar(5, Bar(Window(), 32, is_64bit=True))


@given(
    st.lists(
        st.tuples(
            st.sampled_from("pre"),
            st.integers(0, 2**20 - 1),
            st.sampled_from([1, 2, 4, 8]),
            st.integers(0, 2**64 - 1),
        ),
        max_size=60,
    )
)
def test_random(actions: list[tuple[str, int, int, int]]) -> None:
    rig = Rig()
    for kind, where, size, value in actions:
        value &= (1 << 8 * size) - 1
        if kind == "p" and size < 8:
            rig.ports.port_write(where & 7, size, value)
            assert 0 <= rig.ports.port_read(where & 7, size) < 1 << 8 * size
        elif kind == "r":
            at = (0, 1, 3)[where % 3] << 15 | where & 0xFF
            rig.ecam.mmio_write(at, size, value)
            assert 0 <= rig.ecam.mmio_read(at, size) < 1 << 8 * size
        else:
            assert 0 <= rig.ecam.mmio_read(where, size) < 1 << 8 * size
    for is_io, size, address in rig.mapper.mapped.values():
        assert address is None or (address % size == 0 and (not is_io or address + size <= 0x10000))
    record = rig.card.snapshot()
    other = Rig()
    other.card.restore(record)
    assert other.card.snapshot() == record
