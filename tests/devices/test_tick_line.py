"""No tick of IRQ 0 is lost because the host was late; those that the guest keeps waiting in counted time are."""

import pytest

from pyemu import Machine
from pyemu.config import Icount
from pyemu.devices import hpet as h
from pyemu.devices.tick_line import MOST_OWED, TickLine
from tests.devices.helpers import RecordingLine

MS = 1_000_000
VECTOR = 0x30


def interrupts(machine: Machine, ns: int) -> int:
    """The host comes back after so many nanoseconds; gives how many ticks the processor then takes."""
    board, clock = machine.board, machine.clock
    clock._set_now(clock.now_ns() + ns)
    clock.run_due()
    count = 0
    while board.apic.pending_vector() == VECTOR:
        assert board.apic.acknowledge() == VECTOR
        board.apic.mmio_write(0xB0, 4, 0)  # EOI
        count += 1
    return count


def wire(machine: Machine) -> None:
    """Input 2 of the I/O APIC, where the tick is, to the processor."""
    board = machine.board
    board.apic.mmio_write(0xF0, 4, 0x1FF)
    for register, value in ((0x10 + 2 * 2 + 1, 0), (0x10 + 2 * 2, VECTOR)):
        board.ioapic.mmio_write(0, 4, register)
        board.ioapic.mmio_write(0x10, 4, value)


def start_pit(machine: Machine, count: int) -> None:
    machine.board.pit.port_write(3, 1, 0x34)
    for byte in count.to_bytes(2, "little"):
        machine.board.pit.port_write(0, 1, byte)


def start_hpet(machine: Machine) -> None:
    hpet = machine.board.hpet
    hpet.mmio_write(0x100, 4, h.T_ENABLE | h.T_PERIODIC | 0x40)
    for _ in range(2):  # the comparator, then the period
        hpet.mmio_write(0x108, 8, MS * 1_000_000 // 10_000_000)
    hpet.mmio_write(h.CONFIG, 4, h.CONFIG_ENABLE | h.CONFIG_LEGACY)


@pytest.mark.parametrize("source", ["pit", "hpet"])
def test_a_late_host(source: str) -> None:
    with Machine(memory="16M") as machine, machine._cond:
        wire(machine)
        if source == "pit":
            start_pit(machine, 1193)  # 1 ms
        else:
            start_hpet(machine)
        assert interrupts(machine, MS + MS // 2) == 1
        assert interrupts(machine, 9 * MS) == 9
        assert interrupts(machine, MS) == 1
        assert interrupts(machine, 10_000 * MS) == MOST_OWED + 1
        board, clock = machine.board, machine.clock
        for _ in range(4):  # alarms in time, but a processor that isn't run
            clock._set_now(clock.now_ns() + MS)
            clock.run_due()
        assert interrupts(machine, 0) == 4
        clock._set_now(clock.now_ns() + 5 * MS)
        clock.run_due()
        board.reset()
        assert board.tick.owed == 0


def test_what_is_too_fast_anyhow_isnt_owed() -> None:
    with Machine(memory="16M") as machine, machine._cond:
        wire(machine)
        start_pit(machine, 3)
        assert interrupts(machine, MS) == 1


def test_counted_time_is_never_late() -> None:
    with Machine(memory="16M", icount=Icount(0, sleep=False)) as machine, machine._cond:
        wire(machine)
        start_pit(machine, 1193)
        assert interrupts(machine, 9 * MS + MS // 2) == 1


def test_the_line_keeps_its_level() -> None:
    out, waiting = RecordingLine(), [False]
    line = TickLine(out, lambda: waiting[0])
    line.set(True)
    waiting[0] = True
    line.set(False)
    line.set(True)
    assert (line.owed, out.edges, out.level) == (1, 2, True)
    line.acknowledged()
    assert out.edges == 2, "still waiting"
    waiting[0] = False
    line.acknowledged()
    line.acknowledged()
    assert (line.owed, out.edges, out.level) == (0, 3, True)
    line.set(False)
    line.late(1)
    line.acknowledged()
    assert (out.edges, out.level) == (4, False)
