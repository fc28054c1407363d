"""What `Machine` can do about its own state: snapshots in memory and in files.

Here is who stops the guest for it; what a snapshot is is said in `snapshot` and `snapshot_file`.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from pyemu import snapshot_file
from pyemu.config import Icount, MachineConfig
from pyemu.part import Part
from pyemu.snapshot import Snapshot, SnapshotTree, capture, check_cpu, check_devices, put_back_cpu, put_back_devices
from pyemu.snapshot_error import SnapshotError
from pyemu.tracking import PageTracker

if TYPE_CHECKING:
    from pyemu.history import History
    from pyemu.recording import Recording


SHIFT = 1  # of counted time where nobody has chosen: 2 ns an instruction is about as fast as they are executed


def recorded(config: MachineConfig) -> tuple[MachineConfig, Recording | None]:
    """The configuration with what recording and replaying need, and the recording; raises SnapshotError."""
    if config.replay is None and config.record is None:
        return config, None
    from pyemu import recording as recording_file
    from pyemu.recording import Recording

    if config.record is None:
        assert config.replay is not None
        options, recording = recording_file.read(config.replay)
        options = options["config"] | {"wall_start_ns": options["wall_start_ns"]}
        config = snapshot_file.adopt_options(config.replay, config, options)
        if config.icount is None or config.wall_start_ns is None:
            raise SnapshotError(f"recording {config.replay} is damaged: it doesn't say how time passes")
        return config, recording
    config = replace(
        config,
        icount=config.icount or Icount(SHIFT),
        seed=secrets.randbits(63) if config.seed is None else config.seed,
        wall_start_ns=time.time_ns() if config.wall_start_ns is None else config.wall_start_ns,
    )
    config.check()
    if not config.record:
        return config, Recording()
    options = {"config": snapshot_file.guest_options(config), "wall_start_ns": config.wall_start_ns}
    return config, Recording.create(config.record, options)


class Savable(Part):
    """Base of `Machine`."""

    tracker: PageTracker
    snapshots: SnapshotTree
    history: History | None = None
    _lock: threading.RLock
    _recording: Recording | None

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """The guest stands still in here, device lock held, and goes on afterwards if it was running."""
        machine = self._machine
        if machine.closed:
            raise RuntimeError("the machine is closed")
        with machine.standing(), self._lock:
            yield

    # ---- record and replay -------------------------------------------------------------------------------

    def start_history(self) -> None:
        """Before the first instruction."""
        machine = self._machine
        if self._recording is not None:
            from pyemu.history import History, Mode

            mode = Mode.RECORD if machine.config.replay is None else Mode.REPLAY
            self.history = History(machine, self._recording, mode)
            machine.outside.history = machine.loop.history = self.history
            self.history.begin()

    def close_history(self) -> None:
        """After the last."""
        if self.history is not None:
            self.history.close()
        elif self._recording is not None:
            self._recording.close()

    # ---- snapshots ------------------------------------------------------------------------------------------

    def snapshot(self, name: str = "") -> Snapshot:
        """Remember the present state. Costs little: pages of RAM are copied when they change."""
        self._machine.prepare()
        with self.stopped():
            return self.snapshots.take(name)

    def restore(self, snapshot: Snapshot) -> None:
        """Be in that state again. Costs what has changed since."""
        self._check_no_file()
        with self.stopped():
            self.snapshots.restore(snapshot)
            self._jumped()

    def _check_no_file(self) -> None:
        if self.history is not None and self.history.recording.is_kept:
            path = self.history.recording.path
            raise SnapshotError(f"the run is being recorded to {path}, which can't tell of a jump to another state")

    def _jumped(self) -> None:
        self._machine.hooks.here_is_new()
        if self.history is not None:
            self.history.restart()

    def drop(self, snapshot: Snapshot) -> None:
        """Forget a snapshot in memory."""
        with self.stopped():
            self.snapshots.drop(snapshot)

    def save(self, path: str) -> None:
        """Write the present state to a file; raises SnapshotError."""
        with self.stopped():
            snapshot_file.save(path, self._machine, capture(self._machine))

    def load(self, path: str) -> None:
        """Go on from a file; raises SnapshotError, and then nothing has changed."""
        self._check_no_file()
        with self.stopped():
            self.load_file(path)
            self._jumped()

    def load_file(self, path: str) -> None:
        """The same while the guest stands still."""
        machine = self._machine
        header = snapshot_file.read_header(path)
        snapshot_file.check_config(path, header, machine.config)
        check_devices(machine, header.record)
        check_cpu(machine, header.record)
        before = capture(machine)
        try:
            put_back_devices(machine, header.record)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # a register that no chip can hold
            put_back_devices(machine, before)
            machine.clock.restore_alarms(before.clock)
            raise SnapshotError(f"snapshot {path} is damaged: {error}") from error
        if any(self.snapshots):
            snapshot_file.copy_ram(path, header, machine.ram)
        else:
            snapshot_file.map_ram(path, header, machine.ram)
        if machine.accelerator is not None:
            machine.accelerator.memory_changed()
        put_back_cpu(machine, header.record)
        if any(self.snapshots):
            self.tracker.slow_first_writes()
