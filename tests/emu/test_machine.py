"""The machine around a fake processor: run conditions, interrupts, halts, reset, power, failures, ends."""

import os
import threading
import time

import pytest

from pyemu import chardev
from pyemu import machine as machine_module
from pyemu.config import ConfigError, DebugExit, Icount
from pyemu.cpu.host import Exit
from pyemu.cpu.interrupts import VALID
from pyemu.cpu.state import EXIT_INFO, FAULT_CHAIN, FLAGS, HALTED, ICOUNT, RIP
from pyemu.firmware import boot
from pyemu.machine import Machine
from pyemu.until import Address, GuestTime, Instructions, SerialText, StopKind
from tests.emu.fakes import IF, spin


def halt(cpu):
    cpu.s[HALTED] = 1
    return Exit.HALT


def test_boot_image_is_in_place(build):
    machine = build()
    assert machine.memory.read(0x7C00, 1) == b"\xf4"
    assert machine.regs.rip == 0x7C00
    assert machine.regs["cs_base"] == 0


def test_run_a_number_of_instructions(build):
    machine = build()
    stop = machine.run(until=Instructions(1000))
    assert stop.kind is StopKind.CONDITION
    assert machine.instructions == 1000
    machine.run(until=Instructions(1))
    assert machine.instructions == 1001
    assert machine.run(until=Instructions(0)).kind is StopKind.CONDITION
    assert machine.instructions == 1001


def test_run_to_an_address(build):
    machine = build()
    stop = machine.run(until=0x7C10)
    assert stop.condition == Address(0x7C10)
    assert machine.regs.rip == 0x7C10
    machine.regs.rip = 0x7C00
    machine.run(until=[0x7C20, 0x7C08])
    assert machine.regs.rip == 0x7C08


def test_run_until_serial_text(build):
    def step(cpu):
        if cpu.s[ICOUNT] == 500:
            cpu.write_text("debian log")
        if cpu.s[ICOUNT] == 600:
            cpu.write_text("in: ")

    machine = build(step)
    stop = machine.run(until="login:", timeout=10)
    assert stop.condition == SerialText("login:")
    assert 600 <= machine.instructions < 10_000
    assert machine.output == b"debian login: "


def test_run_for_guest_time(build):
    machine = build()
    stop = machine.run(until=GuestTime(0.05), timeout=60)
    assert stop.kind is StopKind.CONDITION
    assert 0.05 <= machine.clock.now_ns() / 1e9 < 20
    paused_at = machine.clock.now_ns()
    time.sleep(0.02)
    assert machine.clock.now_ns() == paused_at


def test_timeout(build):
    machine = build()
    started = time.monotonic()
    assert machine.run(timeout=0.1).kind is StopKind.TIMEOUT
    assert 0.1 <= time.monotonic() - started < 20
    assert not machine.running


def test_a_halted_processor_is_woken_by_the_timer(build):
    """IRQ 0 through 8259 and LINT0, as a BIOS leaves them, with the PIT at 1 kHz."""

    def step(cpu):
        if cpu.s[ICOUNT] == 1:
            cpu.s[FLAGS] |= IF
            cpu.host.port_write(0x43, 1, 0x34)
            cpu.host.port_write(0x40, 1, 1193 & 0xFF)
            cpu.host.port_write(0x40, 1, 1193 >> 8)
        if len(cpu.vectors) == 5:
            cpu.write_text("enough")
        if cpu.vectors:
            cpu.host.port_write(0x20, 1, 0x20)
        return halt(cpu)

    machine = build(step)
    assert machine.run(until="enough", timeout=60).kind is StopKind.CONDITION
    assert machine.fake.vectors == [8] * 5
    assert machine.fake.runs < 100  # it slept in between


def test_a_halted_processor_does_not_burn_the_host(build):
    machine = build(halt)
    before = time.process_time()
    machine.run(timeout=0.3)
    assert time.process_time() - before < 0.15
    assert machine.fake.runs < 20


def test_halted_with_interrupts_off_sleeps_too(build):
    """A pending interrupt that can't be delivered must not make the loop spin."""

    def step(cpu):
        cpu.host.port_write(0x43, 1, 0x34)
        cpu.host.port_write(0x40, 1, 100)
        cpu.host.port_write(0x40, 1, 0)
        return halt(cpu)

    machine = build(step)
    machine.run(timeout=0.3)
    assert machine.fake.vectors == []
    assert machine.fake.runs < 20


def test_counted_time_is_deterministic(build):
    def script(log):
        def step(cpu):
            if cpu.s[ICOUNT] == 10:
                cpu.s[FLAGS] |= IF
                cpu.host.port_write(0x43, 1, 0x34)
                cpu.host.port_write(0x40, 1, 50)
                cpu.host.port_write(0x40, 1, 0)
            if len(log) < len(cpu.vectors):
                log.append((cpu.s[ICOUNT], cpu.host.read_tsc()))
                cpu.host.port_write(0x20, 1, 0x20)
                if len(log) == 3:
                    cpu.write_text("three")
            return halt(cpu) if len(log) == 2 else None

        return step

    logs = []
    for _ in range(2):
        log = []
        machine = build(script(log), icount=Icount(2, sleep=False), wall_start_ns=0)
        assert machine.run(until="three", timeout=60).kind is StopKind.CONDITION
        logs.append(log)
    assert logs[0] == logs[1]
    counts = [count for count, _ in logs[0]]
    # 50 cycles of 838 ns are 41.9 us: 10477 instructions of 4 ns
    assert 10_400 < counts[0] - 10 < 10_600
    assert counts[2] - counts[1] < 10  # it was halted: time passed without instructions
    assert logs[0][2][1] - logs[0][1][1] > 50_000  # 2.5 ticks a nanosecond


def test_counted_time_with_sleep_takes_real_time(build):
    machine = build(halt, icount=Icount(0, sleep=True))
    started = time.monotonic()
    machine.run(until=GuestTime(0.1), timeout=60)
    assert 0.09 < time.monotonic() - started < 20


def test_power_off_by_acpi(build):
    def step(cpu):
        if cpu.s[ICOUNT] == 3:
            cpu.host.port_write(0x604, 2, 0x2000)

    machine = build(step)
    stop = machine.run(timeout=60)
    assert (stop.kind, stop.status) == (StopKind.POWER_OFF, 0)
    assert machine.run().kind is StopKind.POWER_OFF  # it stays off


def test_no_shutdown_stops_instead(build):
    def step(cpu):
        if cpu.s[ICOUNT] == 3:
            cpu.host.port_write(0x604, 2, 0x2000)

    machine = build(step, shutdown=False)
    stop = machine.run(timeout=60)
    assert (stop.kind, stop.message) == (StopKind.PAUSED, "powered off")
    assert machine.run(until=Instructions(5)).kind is StopKind.CONDITION


@pytest.mark.parametrize(("value", "status"), [(0, 1), (0x10, 33), (0x7F, 255)])
def test_debug_exit(build, value, status):
    machine = build(lambda cpu: cpu.host.port_write(0xF4, 4, value), debug_exit=DebugExit(0xF4, 4))
    stop = machine.run(timeout=60)
    assert (stop.kind, stop.status) == (StopKind.DEBUG_EXIT, status)


@pytest.mark.parametrize(("port", "value"), [(0xCF9, 0x06), (0x64, 0xFE), (0x92, 0x01)])
def test_reset_starts_over(build, port, value):
    def step(cpu):
        if cpu.s[RIP] == 0x7C05 and not done:
            done.append(1)
            machine.memory.write(0x7C00, b"\0")  # the guest overwrites its image
            cpu.host.port_write(port, 1, value)

    done = []
    machine = build(step)
    machine.run(until=Instructions(20), timeout=60)  # it resets after five of them
    assert done
    assert machine.memory.read(0x7C00, 1) == b"\xf4"


def test_no_reboot_ends(build):
    machine = build(lambda cpu: cpu.host.port_write(0xCF9, 1, 6), reboot=False)
    stop = machine.run(timeout=60)
    assert (stop.kind, stop.status) == (StopKind.RESET, 0)


def triple_fault(cpu):
    for i, word in enumerate((VALID | 2 << 8 | 14, 0x1000, VALID | 0x33 << 8 | 13, 0x2000, VALID | 8, 0x2000)):
        cpu.s[FAULT_CHAIN + i] = word
    return Exit.SHUTDOWN


def test_triple_fault_with_no_reboot(build, capsys):
    stop = build(triple_fault, reboot=False).run(timeout=60)
    assert (stop.kind, stop.status) == (StopKind.TRIPLE_FAULT, 1)
    line = capsys.readouterr().err.strip()
    assert line == (
        "pyemu: triple fault: #PF (error 0x2) on 0x1000, "
        "then #GP (error 0x33: IDT entry 6) at 0x2000, then #DF at 0x2000"
    )


def test_triple_faults_reset_for_ever_but_are_not_printed_for_ever(build, capsys):
    machine = build(triple_fault)
    assert machine.run(timeout=0.3).kind is StopKind.TIMEOUT
    while machine.fake.runs < 30:  # the host was busy
        machine.run(timeout=0.3)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11
    assert "not shown" in lines[-1]


def test_unimplemented_instruction(build):
    def step(cpu):
        cpu.s[EXIT_INFO] = 0x401000
        cpu.s[EXIT_INFO + 1] = int.from_bytes(b"\x0f\x01\xc1\x90\x90\x90\x90\x90", "little")  # vmcall
        return Exit.UNIMPLEMENTED

    stop = build(step).run(timeout=60)
    assert (stop.kind, stop.status) == (StopKind.UNIMPLEMENTED, 1)
    assert stop.message == "instruction 'vmcall' at 0x401000 (bytes 0f 01 c1) is not implemented"


def test_a_device_that_fails_ends_the_run_with_its_error(build, monkeypatch):
    machine = build(lambda cpu: cpu.host.port_read(0x3F8, 1))
    monkeypatch.setattr(machine.board.uarts[0], "port_read", lambda offset, size: 1 // 0)
    with pytest.raises(RuntimeError, match="ZeroDivisionError") as caught:
        machine.run(timeout=60)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert machine.loop.final.status == 1


def test_an_accelerator_that_fails_ends_the_run(build):
    def step(cpu):
        raise KeyError("inside")

    with pytest.raises(RuntimeError, match="KeyError"):
        build(step).run(timeout=60)


@pytest.mark.parametrize("raises_dtr", [True, False])
def test_typing_reaches_the_uart(build, raises_dtr):
    """Not before the guest opened the port, which empties the FIFO; or, if it never does, once it has gone quiet."""

    def step(cpu):
        if cpu.s[ICOUNT] == 1:
            cpu.write_text("> ")
        if cpu.s[ICOUNT] == 20:
            cpu.host.port_write(0x3FA, 1, 7)  # empties the FIFO
            cpu.host.port_write(0x3FC, 1, int(raises_dtr))
        if cpu.host.port_read(0x3FD, 1) & 1:
            seen.append(cpu.host.port_read(0x3F8, 1))
            if len(seen) == 26:
                cpu.write_text("done")
        else:
            time.sleep(0.001)

    seen = []
    machine = build(step)
    machine.send("abcdefghijklmnopqrstuvwxyz")  # more than its FIFO holds
    machine.run(until="done", timeout=60)
    assert bytes(seen) == b"abcdefghijklmnopqrstuvwxyz"


def test_quit_from_another_thread(build):
    machine = build()
    threading.Timer(0.05, machine.quit).start()
    assert machine.run(timeout=60).kind is StopKind.QUIT


def test_interrupt_from_the_keyboard_leaves_a_machine_that_goes_on(build, monkeypatch):
    machine = build()
    wait = machine._stopped.wait

    def interrupted(timeout=None):
        monkeypatch.setattr(machine._stopped, "wait", wait)
        time.sleep(0.02)
        raise KeyboardInterrupt

    monkeypatch.setattr(machine._stopped, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        machine.run()
    assert not machine.running
    before = machine.instructions
    assert machine.run(until=Instructions(10)).kind is StopKind.CONDITION
    assert machine.instructions == before + 10


def test_pause_and_resume_keep_their_word(build):
    machine = build()
    machine.start()
    for _ in range(20):
        machine.pause()
        count = machine.instructions
        assert machine.instructions == count
        machine.resume()
        assert machine.running
    machine.close()
    with pytest.raises(RuntimeError, match="closed"):
        machine.start()


def test_with_block_closes(build):
    with build() as machine:
        machine.start()
    assert not machine.loop._thread.is_alive()
    assert machine.ram.host_base == 0


def test_the_apic_page_moves_with_its_base(build):
    machine = build()
    assert machine.host.mmio_read(0xFEE00030, 4) & 0xFF == 0x14
    assert machine.host.apic_msr_write(0x1B, 0xFED40000 | 0x900)
    assert machine.host.mmio_read(0xFEE00030, 4) == 0xFFFFFFFF
    assert machine.host.mmio_read(0xFED40030, 4) & 0xFF == 0x14
    assert machine.host.apic_msr_write(0x1B, 0x100000 | 0x900)  # over RAM: RAM wins, nothing breaks
    assert machine.host.apic_msr_write(0x1B, 0xFEE00000 | 0x900)
    assert machine.host.mmio_read(0xFEE00030, 4) & 0xFF == 0x14


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match="unknown CPU model"):
        Machine(cpu="z80")
    with pytest.raises(TypeError):
        Machine(colour="blue")
    assert spin is not None


def test_a_stuck_output_does_not_keep_the_machine_alive(build, monkeypatch):
    """A flooding guest and a reader that doesn't read: the vCPU waits with the device lock held, and must still end."""
    read_end, write_end = os.pipe()
    monkeypatch.setattr(chardev, "_open_fd", lambda stream, fd: write_end if fd == 1 else None)
    machine = build(lambda cpu: cpu.write_text("x" * 10_000 + "\n"), serials=("stdio",))
    machine.start()
    time.sleep(0.3)
    assert machine.running
    started = time.monotonic()
    machine.quit_by_signal(15)
    stop = machine.wait_end()
    assert (stop.kind, stop.status) == (StopKind.QUIT, 143)
    assert time.monotonic() - started < 20
    os.close(read_end)
    machine.close()
    os.close(write_end)


@pytest.mark.parametrize(("append", "hinted"), [("quiet", True), ("console=ttyS0", False)])
def test_hint_when_the_guest_stays_silent(build, monkeypatch, capsys, append, hinted):
    monkeypatch.setattr(machine_module, "_HINT_AFTER_NS", 50_000_000)
    image = build().image
    monkeypatch.setattr(boot, "prepare", lambda request, platform: image)  # a boot sector takes no -append
    machine = build(halt, serials=("null",), append=append)
    machine.run(timeout=0.3)
    said = capsys.readouterr().err
    for _ in range(200 * hinted):
        if "console=ttyS0" in said:
            break
        machine.run(timeout=0.3)  # the host was busy
        said += capsys.readouterr().err
    assert said.count("console=ttyS0") == int(hinted)
