"""Debug ports, wiring helpers, and what all devices promise."""

import dataclasses

import pytest

from pyemu.devices.debug_ports import DebugConsole, DebugExit, PostPort
from pyemu.devices.irq_lines import CallbackLine, FanOutLine, GatedLine, SharedLine
from tests.devices.helpers import RecordingBackend, RecordingLine


def test_debug_console() -> None:
    backend = RecordingBackend()
    console = DebugConsole(backend)
    assert console.port_read(0, 1) == 0xE9
    for c in b"hi\n":
        console.port_write(0, 1, c)
    assert backend.output == b"hi\n"


@pytest.mark.parametrize(("value", "size", "status"), [(0, 1, 1), (0x10, 1, 0x21), (0xFFFFFFFF, 4, 0x1FFFFFFFF)])
def test_debug_exit(value: int, size: int, status: int) -> None:
    statuses: list[int] = []
    DebugExit(statuses.append).port_write(0, size, value)
    assert statuses == [status]


def test_post_port() -> None:
    codes: list[int] = []
    port = PostPort(codes.append)
    port.port_write(0, 1, 0x42)
    assert codes == [0x42]
    assert port.port_read(0, 1) == 0x42


def test_fan_out_and_callback() -> None:
    one = RecordingLine()
    changes: list[bool] = []
    line = FanOutLine(one, CallbackLine(changes.append))
    for level in (True, True, False, True):
        line.set(level)
    assert one.history == changes == [True, False, True]


def test_shared_line() -> None:
    out = RecordingLine()
    shared = SharedLine(out)
    a, b = shared.input(), shared.input()
    a.set(True)
    b.set(True)
    a.set(False)
    assert out.level
    b.set(False)
    assert not out.level


def test_gated_line() -> None:
    out = RecordingLine()
    line = GatedLine(out)
    line.set(True)
    line.set_open(False)
    line.set(False)
    line.set(True)
    assert out.history == [True, False]
    line.set_open(True)
    assert out.level


def test_states_hold_plain_data_only() -> None:
    """Snapshots are made of these records, so nothing else may hide in them."""
    from pyemu.devices import (
        acpi_pm,
        apic,
        debug_ports,
        fw_cfg,
        hpet,
        ioapic,
        pic8259,
        pit8254,
        ps2_i8042,
        rtc_mc146818,
        uart16550,
    )
    from pyemu.devices.pci import access, function

    states = [
        acpi_pm.PmState, acpi_pm.ResetState, acpi_pm.SmiPortState, apic.ApicState, debug_ports.PostState,
        fw_cfg.FwCfgState, hpet.HpetState, ioapic.IoApicState, pic8259.PicPairState, pit8254.PitState,
        ps2_i8042.I8042State, rtc_mc146818.RtcState, uart16550.UartState, access.ConfigPortsState, function.PciState,
    ]  # fmt: skip

    def check(value: object) -> None:
        if isinstance(value, dict):
            for item in value.values():
                check(item)
        elif isinstance(value, list):
            for item in value:
                check(item)
        else:
            assert isinstance(value, (int, bytes)), value

    for state in states:
        check(dataclasses.asdict(state()))
