"""`Machine`: a whole computer, built from a `MachineConfig`, run until something happens.

    with Machine(kernel="vmlinuz", initrd="initrd.gz", append="console=ttyS0", memory=512 << 20) as machine:
        machine.run(until="login:", timeout=60)
        machine.send("root\\n")
        print(hex(machine.regs.rip), machine.memory.read(0x1000, 16))

Here everything is put together; the parts are in `board` (devices), `runloop` (the vCPU), `ioloop` (host side).
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pyemu.accelerator import Accelerator, describe_memory, make_accelerator
from pyemu.board import Board
from pyemu.changes import Changeable
from pyemu.chardev import Capture, Chardev, ChardevError, FdChardev, Mux, open_chardev
from pyemu.clock import Clock, ClockTimer, CountedClock, RealTimeClock
from pyemu.config import ACCELERATORS, ConfigError, MachineConfig, parse_size
from pyemu.controls import Controllable
from pyemu.cpu import cpuid
from pyemu.cpu.fpu_state import ES as FSW_ES
from pyemu.cpu.state import ICOUNT, IGNNE, State, new_state
from pyemu.cpuoption import choose
from pyemu.events import Events
from pyemu.firmware.boot_image import BootError
from pyemu.firmware.e820 import MIB
from pyemu.firmware.platform import Platform
from pyemu.hooks import Breakpoint, Hookable, Hooks
from pyemu.hostcpu import HostCpu
from pyemu.inspectable import Inspectable
from pyemu.ioloop import IoLoop
from pyemu.log import Log
from pyemu.memory import GuestRam
from pyemu.monitor import Monitor
from pyemu.outputs import check_writable, write_json
from pyemu.outside import Outside
from pyemu.registers import linear_rip
from pyemu.reverse import Reversible
from pyemu.runloop import RunLoop
from pyemu.savable import Savable, recorded
from pyemu.serialport import SerialPort
from pyemu.snapshot import SnapshotTree
from pyemu.symbols import Symbols
from pyemu.trace import Tracer
from pyemu.tracking import PageTracker
from pyemu.until import (
    RESUMABLE,
    Address,
    Condition,
    GuestTime,
    SerialText,
    Stop,
    StopKind,
    Until,
    conditions,
    host_seconds,
)  # fmt: skip

if TYPE_CHECKING:
    from pyemu.coverage import Coverage
    from pyemu.firmware.boot_image import BootImage
    from pyemu.gdbserver.server import GdbServer

_PATIENCE_S = 0.7  # how long a vCPU may take to notice that it shall end
_SLICE_S = 0.2  # how long the main thread waits at a time
_HINT_AFTER_NS = 10_000_000_000
_HINT = 'pyemu: no output on the serial port for 10 seconds; a Linux kernel needs -append "console=ttyS0" to talk there'


def make_platform(config: MachineConfig) -> Platform:
    """What the firmware tables say must be what the board has."""
    return Platform(has_ecam=config.machine == "q35")


class Machine(Hookable, Controllable, Changeable, Savable, Reversible, Inspectable, Events):
    """One computer. Use it in a with-block: leaving it ends the guest and puts the terminal back."""

    def __init__(self, config: MachineConfig | None = None, **options: Any) -> None:
        """`options` are fields of `MachineConfig`; memory may also be a size such as "512M"."""
        if isinstance(options.get("memory"), str):
            options["memory"] = parse_size(options["memory"])
        for name, value in options.items():
            options[name] = os.fspath(value) if isinstance(value, os.PathLike) else value
        Inspectable.__init__(self)
        Events.__init__(self)
        with ExitStack() as failing:  # gives back what has been opened when the rest can't be
            self._build(replace(config or MachineConfig(), **options), failing)
            failing.pop_all()

    def _build(self, config: MachineConfig, failing: ExitStack) -> None:
        config.check()
        self.config, self._recording = config, recording = recorded(config)
        if recording is not None:
            failing.callback(recording.close)
        config.check()
        self.cpu = choose(config.cpu)
        self.platform = make_platform(config)
        self.log = Log(config.log_items, config.log_file)
        failing.callback(self.log.close)
        self.outside = Outside(config.seed)
        self._lock = threading.RLock()
        self._cond = threading.Condition(self._lock)
        self._stopped = threading.Event()
        self._travels = threading.RLock()
        self._last_stop = Stop(StopKind.PAUSED)
        self._started = False
        self.accelerator: Accelerator | None = None
        self._closed = False
        self._ending: Stop | None = None
        self.state = new_state()
        self.clock: Clock = self._make_clock()
        self.ram = GuestRam(config.memory)
        failing.callback(self.ram.close)
        self.tracker = PageTracker(self.state, self.ram)
        self.snapshots = SnapshotTree(self, self.tracker)
        for address, data in self._roms():
            if address >= MIB:  # what shows below is the board's business
                self.ram.add_rom(address, data, "rom")
        self.symbols = Symbols(self.state, self.ram.pieces)
        self.gdb: GdbServer | None = None
        self._coverage: Coverage | None = None  # the one that is saved at the end
        self.chardevs: list[Chardev] = []
        failing.callback(self._close_chardevs)
        self.chardev_names: dict[str, str] = {}  # by label, what was asked for
        self._monitors: list[Monitor] = []
        self.serial_ports: list[SerialPort] = []
        for path in config.symbols:
            self.symbols.load(path)
        if config.coverage is not None:
            check_writable(config.coverage)
        self._open_chardevs()
        self._wire()

    @functools.cached_property
    def image(self) -> BootImage:
        """What is loaded at power-on, and at each reset. A machine that goes on from a file may never need it."""
        from pyemu.firmware.boot import BootRequest, prepare  # here, as it brings much along

        config = self.config
        request = BootRequest(
            ram_size=config.memory,
            kernel=config.kernel,
            initrd=config.initrd,
            append=config.append,
            bios=config.bios,
            bios_path=config.bios_path,
            unpack=config.unpack_kernel,
        )
        return prepare(request, self.platform)

    def _roms(self) -> Sequence[tuple[int, bytes]]:
        return () if self.config.loadvm is not None and self.config.bios is None else self.image.roms

    # ---- putting it together -------------------------------------------------------------------------------

    def _make_clock(self) -> Clock:
        icount = self.config.icount
        if icount is None:
            return RealTimeClock(self.outside, self.config.wall_start_ns)
        state = self.state
        return CountedClock(self.outside, lambda: int(state[ICOUNT]), icount.shift, self.config.wall_start_ns)

    def _open_chardevs(self) -> None:
        if self.config.serials is None:
            capture = Capture()
            self.chardevs.append(capture)
            self.serial_ports.append(SerialPort("serial0", capture, self._lock, self.outside))
        for number, spec in enumerate(self.config.serials or ()):
            if spec == "none":
                continue
            chardev = self._open(spec, f"serial{number}")
            if spec == "mon:stdio":
                mux = Mux(chardev, self.quit)
                self._add_monitor(mux.monitor)
                chardev = mux.guest
            self.serial_ports.append(SerialPort(f"serial{number}", chardev, self._lock, self.outside))
        self._debugcon: SerialPort | None = None
        if self.config.debugcon not in (None, "none"):
            chardev = self._open(self.config.debugcon, "debugcon")
            self._debugcon = SerialPort("debugcon", chardev, self._lock, self.outside)
        if self.config.monitor not in (None, "none"):
            self._add_monitor(self._open(self.config.monitor, "monitor"))
        for number, spec in enumerate(self.config.qmp):
            from pyemu.qmp import QmpServer

            self.listeners.append(QmpServer(self, self._open(spec, f"compat_monitor{number}")).event)

    def _add_monitor(self, chardev: Chardev) -> None:
        monitor = Monitor(self, chardev)
        self._monitors.append(monitor)
        self.stop_listeners.append(monitor.stopped)

    def _open(self, spec: str, label: str) -> Chardev:
        chardev = open_chardev(spec, label)
        chardev.on_hangup = self._hang_up
        self.chardev_names[label] = spec
        self.chardevs.append(chardev)
        return chardev

    def _wire(self) -> None:
        config = self.config
        self.board = Board(
            platform=self.platform,
            ram=self.ram,
            clock=self.clock,
            log=self.log,
            serial_ports=self.serial_ports,
            debug_exit=config.debug_exit,
            testdev=config.testdev,
            debugcon=self._debugcon,
            debugcon_port=config.debugcon_port,
            machine=config.machine,
            rom=next((data for address, data in self._roms() if address < MIB), None),
        )
        board = self.board
        self.host = HostCpu(
            self.state, self._lock, board.ports, board.mmio, self.ram, board.apic, self.clock, self.outside
        )
        self.state.debugger = self.host
        self.hooks = self.host.hooks = Hooks(
            self, self.state, self.ram, self._lock,
            exclusive=lambda work: self.loop.exclusive(work), parked=lambda: self.loop.parked,
        )  # fmt: skip
        self.hooks.resolve = self.symbols.address
        self.host.on_floating_point_error = board.coprocessor.error
        board.coprocessor.on_ignore = self._ignore_floating_point_errors
        if config.log_items:
            self.host.on_interrupt = self._log_interrupt
        self.loop = RunLoop(
            self.state, self._cond, self.clock, board.apic, self.host, self.log, config.icount,
            self._reset, self._on_stop, self.hooks,
        )  # fmt: skip
        self.io = IoLoop(self.clock, self._lock, self._io_failed, run_timers=config.icount is None)
        board.connect(
            interrupts_changed=self.loop.interrupts_changed,
            raise_nmi=self.loop.raise_nmi,
            reset=self.loop.ask_reset,
            power_off=self._power_off,
            debug_exit=self._debug_exit,
            memory_changed=lambda: self.loop.between_instructions(self.rearrange_memory),
        )
        self.outside.schedule = self.loop.between_instructions
        self.wire_controls()
        self.wire_changes()
        self._tracer = Tracer(self.state, self.ram, self.log, self.symbols)
        if self._tracer.wanted:
            self.loop.before_step = self._tracer.before_step
        self.loop.on_shutdown = self._shut_down
        self.loop.on_over = self.tell_shutdown
        self.last_shutdown: State | None = None  # the processor at a triple fault that reset the machine
        board.rearrange_memory()
        describe_memory(self.state, self.ram)
        if self.config.loadvm is None:
            self._load()
        else:
            cpuid.configure(self.state, self.cpu.model, self.cpu.features)
            with self._lock:
                self.load_file(self.config.loadvm)
        if config.gdb not in (None, "none"):
            from pyemu.gdbserver.server import GdbServer, parse_place

            self.gdb = GdbServer(self, parse_place(config.gdb))

    def rearrange_memory(self) -> None:
        """The host bridge has turned ROM into RAM or back. On the vCPU's thread, lock held."""
        if self.board.rearrange_memory():
            describe_memory(self.state, self.ram)
            if self.accelerator is not None:
                self.accelerator.memory_changed()

    def _load(self) -> None:
        from pyemu.cpustart import apply_cpu, load_memory

        load_memory(self.ram, self.image)
        apply_cpu(self.state, self.image.cpu, self.cpu)

    def _reset(self) -> None:
        """On the vCPU's thread, lock held."""
        try:
            self.image  # noqa: B018 - the files may be gone
        except BootError as error:
            self.loop.ask_stop(Stop(StopKind.FAILURE, 1, f"the guest can't start anew: {error}"))
            return
        self.board.reset()
        self.rearrange_memory()
        for port in self.serial_ports:
            port.reset()
        self._load()
        self.hooks.here_is_new()
        self.loop.interrupts_changed()
        self.tell_reset()

    # ---- running -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Let the guest run in the background (`run` does this itself)."""
        self.prepare()
        self._stopped.clear()
        self._resume_loop()

    def prepare(self) -> None:
        """Build what a machine that never runs doesn't need."""
        if self._closed:
            raise RuntimeError("the machine is closed")
        if self._started:
            return
        name = ACCELERATORS[self.config.accelerator]
        self.accelerator = accelerator = make_accelerator(name, self.state, self.host, self.ram)
        self._started = True
        self.hooks.target = accelerator
        self.io.start()
        for chardev in self.chardevs:
            chardev.start(self.io)
        for port in self.serial_ports:
            port.start(self.io)
        config = self.config
        if config.kernel is not None and config.serials is not None and "console=ttyS" not in config.append:
            self.io.call_later(_HINT_AFTER_NS, self._hint)
        self.start_history()
        self.loop.start(accelerator, self.config.reboot)
        if self.gdb is not None:
            self.gdb.start()
        if self.config.coverage is not None:
            self._coverage = self.coverage()

    def run(self, until: Until | None = None, *, timeout: float | None = None) -> Stop:
        """Run until the guest ends, a condition comes true, or `timeout` host seconds are over.

        Ctrl-C (KeyboardInterrupt) stops the guest, at an instruction boundary, and is then raised here. RuntimeError is
        raised for what a hook's function has raised, after which the machine can run on, and for failures of pyemu's.
        """
        wanted = conditions(until)
        limit = host_seconds(timeout)
        if self.loop.final is None:
            self.prepare()
            self.pause()
        if self.loop.final is not None:
            return self.loop.final.sound()
        self.loop.set_conditions(wanted)
        undo = [self._watch(condition) for condition in wanted]
        try:
            self._stopped.clear()
            self._resume_loop()
            if not self._stopped.wait(limit):
                self.loop.ask_stop(Stop(StopKind.TIMEOUT, 1, f"{timeout} s are over"))
                self.loop.wait_parked(5.0)
        except KeyboardInterrupt:
            self.pause()
            raise
        finally:
            for remove in undo:
                remove()
            if self.loop.parked:
                self.loop.set_conditions([])
        return self._last_stop.sound()

    def wait_end(self) -> Stop:
        """Start (unless the configuration says paused) and wait until the machine is over, however often it pauses."""
        self.prepare()
        if not self.config.paused:
            self._resume_loop()
        while self.loop.final is None:
            ending = self._ending
            # Never without a limit: Python runs signal handlers between waits, and one signal close behind another can
            # be missed by a wait that has no end.
            if not self._stopped.wait(_SLICE_S if ending is None else _PATIENCE_S) and ending is not None:
                return ending  # native code that doesn't listen can't keep the process alive
            self._stopped.clear()
            last = self._last_stop
            if last.kind is StopKind.HISTORY_END and last.event == "end" and self.config.shutdown and not self.gdb:
                return last
        return self.loop.final

    def _watch(self, condition: Condition) -> Callable[[], None]:
        """Arrange that the loop stops when `condition` comes true; gives what undoes that."""
        if isinstance(condition, SerialText):
            return self._watch_text(condition)
        if isinstance(condition, GuestTime):
            timer = ClockTimer(
                self.clock, lambda: self.loop.ask_stop(Stop(StopKind.CONDITION, condition=condition))
            )
            with self._lock:
                timer.arm(self.clock.now_ns() + int(condition.seconds * 1e9))

            def cancel() -> None:
                with self._lock:
                    timer.cancel()

            return cancel
        if isinstance(condition, Address):
            if condition.rip == linear_rip(self.state):
                self.hooks.here_is_passed()
            stop = Stop(StopKind.CONDITION, condition=condition)
            hook = self.hooks.add(Breakpoint(self.hooks, condition.rip, None, None, stop=stop))
            return lambda: self.hooks.remove(hook)
        return lambda: None  # the run loop itself counts

    def _watch_text(self, condition: SerialText) -> Callable[[], None]:
        pattern = condition.pattern
        if not self.serial_ports:
            raise ConfigError("waiting for serial text needs a serial port")
        watchers = self.serial_ports[0].watchers
        tail = bytearray()

        def watch(data: bytes) -> None:
            tail.extend(data)
            if pattern in tail:
                tail.clear()
                self.loop.ask_stop(Stop(StopKind.CONDITION, condition=condition))
            elif len(tail) > len(pattern) + 4096:
                del tail[: -len(pattern)]

        watchers.append(watch)

        def remove() -> None:
            with self._lock:
                watchers.remove(watch)

        return remove

    def step(self, quietly: bool = False) -> None:
        """Let the guest execute one instruction, in the background; `quietly`: interrupts wait."""
        self.prepare()
        self._stopped.clear()
        self.loop.step(quietly)

    def pause(self, why: str = "") -> None:
        """Stop the guest at an instruction boundary; returns when it stands."""
        self._check_outside()
        if not self.loop.parked and self.loop.final is None:
            self.loop.ask_stop(Stop(StopKind.PAUSED, message=why))
            if not self.loop.wait_parked(5.0):
                raise RuntimeError("the vCPU doesn't stop")
        self.loop.cancel_stop()

    def _check_outside(self) -> None:
        """Refuse what would wait for itself."""
        if self._started and self.loop.is_here and self.loop.final is None:
            raise RuntimeError("a function of a hook can't do this: it may return true, and it be done after the run")

    def resume(self) -> None:
        """Go on after `pause`."""
        self.start()

    @property
    def running(self) -> bool:
        return not self.loop.parked

    @property
    def closed(self) -> bool:
        return self._closed

    def quit(self) -> None:
        """End the machine, from any thread."""
        self._end(Stop(StopKind.QUIT))

    def quit_by_signal(self, number: int) -> None:
        """From a signal handler, where no lock may be taken: the I/O thread does the rest."""
        self.io.urgent = lambda: self._end(Stop(StopKind.QUIT, 128 + number, f"terminated by signal {number}"))
        self.io.wake()

    def _end(self, stop: Stop) -> None:
        """End without waiting for anything that the guest could hold up."""
        self._ending = stop
        self.tell_shutdown(stop)
        for chardev in self.chardevs:
            if isinstance(chardev, FdChardev):
                chardev.abandon()
        self._last_stop = stop
        self._stopped.set()
        self.loop.ask_stop(stop)

    # ---- looking and typing --------------------------------------------------------------------------------

    def send(self, text: str | bytes) -> None:
        """Type at the first serial port."""
        data = text.encode() if isinstance(text, str) else text
        self.serial_ports[0].chardev.on_input(data)

    @property
    def output(self) -> bytes:
        """What the guest has written to a captured serial port (the default in the Python API)."""
        chardev = self.serial_ports[0].chardev
        if not isinstance(chardev, Capture):
            raise ConfigError("the first serial port isn't captured")
        return bytes(chardev.output)

    @property
    def instructions(self) -> int:
        """Executed since reset."""
        return int(self.state[ICOUNT])

    # ---- callbacks -----------------------------------------------------------------------------------------

    def _power_off(self) -> None:
        if self.config.shutdown:
            self.loop.ask_stop(Stop(StopKind.POWER_OFF, 0))
        else:
            self.loop.ask_stop(Stop(StopKind.PAUSED, 0, "powered off"))

    def _shut_down(self) -> None:
        self.last_shutdown = State.from_buffer_copy(self.state) if self.config.reboot else None

    def _ignore_floating_point_errors(self) -> None:
        """IGNNE#."""
        self.state[IGNNE] = FSW_ES

    def _debug_exit(self, status: int) -> None:
        self.loop.ask_stop(Stop(StopKind.DEBUG_EXIT, status & 0xFF))

    def _hang_up(self, reason: str) -> None:
        self._end(Stop(StopKind.HANGUP, 1, reason))

    def _io_failed(self, error: BaseException) -> None:
        self._end(Stop(StopKind.FAILURE, 1, f"internal error: {type(error).__name__}: {error}", error=error))

    def _on_stop(self, stop: Stop) -> None:
        self._last_stop = stop
        self._stopped.set()
        if not self._quiet:
            self.tell_stop(stop)

    def _hint(self) -> None:
        if self.running and not any(port.output_seen for port in self.serial_ports):
            print(_HINT, file=sys.stderr)

    # ---- the end -------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the guest and give everything back. May be called twice."""
        if self._closed:
            return
        self._check_outside()
        self._closed = True
        for chardev in self.chardevs:
            if isinstance(chardev, FdChardev):
                chardev.abandon()
        for monitor in self._monitors:
            monitor.close()
        if self._interrupt is not None:  # somebody is on the way through its past
            self._interrupt.set()
            self.loop.ask_stop(Stop(StopKind.PAUSED))
            self.loop.wait_parked(1.0)
        ended = True
        try:
            ended = self.loop.end()
            if self._coverage is not None and self.config.coverage is not None and ended:
                self._coverage.save_drcov(self.config.coverage)
        finally:
            if self.gdb is not None:
                self.gdb.close()
            self._close_chardevs()
            self.io.stop()
            self.log.close()
            self.tracker.close()
            if ended:
                # A vCPU that didn't stop may still be writing to guest memory: better leak it than crash.
                self.ram.close()
            self.close_history()
        self._write_statistics()

    def _write_statistics(self) -> None:
        """The accelerator's counters as JSON, into the file that PYEMU_STATS names."""
        path, counters = os.environ.get("PYEMU_STATS"), getattr(self.accelerator, "statistics", None)
        if path and counters is not None:
            write_json(path, counters())

    def _close_chardevs(self) -> None:
        for chardev in self.chardevs:
            try:
                chardev.close()
            except (OSError, ChardevError):
                continue  # the next one may hold the terminal

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


__all__ = ["RESUMABLE", "Machine", "MachineConfig"]
