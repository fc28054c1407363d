"""Record, replay and travel in time: the past of a machine in instruction-counted mode.

Everything that reaches the guest from outside goes through `outside`, on the vCPU's thread between two instructions. A
machine that records notes it with its moment; one that replays gives it again at the same moment, and lets nothing else
in. One that has gone back replays up to where it had come before (`frontier`), and records on from there. Checks tell
whether a replay is the run that was recorded; checkpoints (snapshots in memory) are where going back begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from pyemu import check
from pyemu.clock import CountedClock
from pyemu.cpu.state import HALTED, ICOUNT
from pyemu.recording import Check, Event, Moment, Recording
from pyemu.snapshot import Snapshot
from pyemu.snapshot_error import SnapshotError
from pyemu.until import Stop, StopKind

if TYPE_CHECKING:
    from pyemu.machine import Machine

CHECK_EVERY = 50_000_000  # instructions
CHECKPOINT_EVERY = 50_000_000
MOST_CHECKPOINTS = 48  # older ones are thinned out: the further back, the farther apart


class Mode(Enum):
    RECORD = "recording"
    REPLAY = "replaying"


@dataclass
class Checkpoint:
    """Where going back can begin."""

    snapshot: Snapshot
    position: int  # in the recording
    changed: Any  # pages since the last check
    next_check: int


class History:
    """The past of one machine. Its methods are called on the vCPU's thread, or while that is parked, lock held."""

    def __init__(self, machine: Machine, recording: Recording, mode: Mode) -> None:
        clock = machine.clock
        assert isinstance(clock, CountedClock)
        self.recording = recording
        self.mode = mode
        self.position = 0  # of the next entry
        self.checks = 0  # that agreed
        self.frontier: Moment | None = recording.end if mode is Mode.REPLAY else None
        self.checkpoints: list[Checkpoint] = []
        self._furthest = 0  # instructions: what is executed before that has shown its output already
        self._machine = machine
        self._clock = clock
        self._next_check = 0
        self._next_checkpoint = 0
        if mode is Mode.REPLAY and self.frontier is None and recording.entries:
            self.frontier = recording.entries[-1].moment

    def begin(self) -> None:
        """The machine is about to run for the first time."""
        self.recording.begin()
        self._machine.tracker.look_from_here()
        if self.mode is Mode.RECORD:
            self._next_check = self._machine.state[ICOUNT] + CHECK_EVERY
        self._next_checkpoint = self._machine.state[ICOUNT]

    @property
    def now(self) -> Moment:
        return Moment(self._machine.state[ICOUNT], self._clock.now_ns())

    @property
    def replaying(self) -> bool:
        return self.mode is Mode.REPLAY

    def seen(self) -> bool:
        """The guest does again what it has done before: its output has been shown."""
        return self._machine.state[ICOUNT] < self._furthest

    # ---- what comes from outside --------------------------------------------------------------------------

    def note(self, name: str, data: str) -> None:
        """Something from outside reaches the guest now."""
        self._clock.run_due()  # in a replay the timers of this moment have fired, too
        self._append(Event(self.now, name, data))

    def _append(self, entry: Event | Check) -> None:
        try:
            self.recording.append(entry)
        except SnapshotError as error:  # the disk is full, say
            self._machine.loop.ask_stop(Stop(StopKind.FAILURE, 1, str(error)))
        self.position = len(self.recording.entries)

    def change_course(self) -> None:
        """A debugger is about to change the guest: what was recorded of the time from now on will not be."""
        if not self.replaying:
            return
        path = self.recording.path
        if self.recording.is_read:
            raise SnapshotError(f"the machine replays {path}, and can't be changed before its end")
        if self.recording.is_kept:
            raise SnapshotError(f"the run is being recorded to {path}: its past can't be changed")
        del self.recording.entries[self.position :]
        self._furthest = count = self._machine.state[ICOUNT]
        for checkpoint in list(self.checkpoints):
            if checkpoint.snapshot.instructions > count or checkpoint.position > self.position:
                self.checkpoints.remove(checkpoint)
                self._machine.snapshots.drop(checkpoint.snapshot)
        self._be_present()

    # ---- for the run loop ---------------------------------------------------------------------------------

    def serve(self) -> None:
        """Between two instructions: what the recording has for this moment, or what is to be noted."""
        count = self._machine.state[ICOUNT]
        if self.replaying:
            self._replay()
        elif count >= self._next_check:
            self._clock.run_due()
            self._append(Check(self.now, check.take(self._machine)))
            self._next_check = count + CHECK_EVERY
        if count >= self._next_checkpoint:
            self._checkpoint()

    def budget(self) -> int:
        """Instructions until there is something to serve."""
        count = self._machine.state[ICOUNT]
        ends = [self._next_checkpoint]
        following = self._following()
        if following is not None:
            ends.append(following.instructions)
        elif not self.replaying:
            ends.append(self._next_check)
        return max(1, min(ends) - count)

    def wake_ns(self) -> int | None:
        """While the processor is halted: when the recording has something for it, if no timer comes before."""
        following = self._following()
        if following is None or following.instructions > self._machine.state[ICOUNT]:
            return None
        return following.ns

    def is_due(self) -> bool:
        following = self._following()
        return following is not None and not self.now < following

    def _following(self) -> Moment | None:
        if not self.replaying:
            return None
        entries = self.recording.entries
        return entries[self.position].moment if self.position < len(entries) else self.frontier

    def _replay(self) -> None:
        entries = self.recording.entries
        while self.position < len(entries) and self._reached(entries[self.position].moment):
            self._clock.run_due()
            entry = entries[self.position]
            self.position += 1
            if isinstance(entry, Event):
                if not self._give(entry):
                    return
            elif lines := check.differences(self._machine, entry.state):
                self._differs("; ".join(lines))
                return
            else:
                self.checks += 1
                self._next_check = entry.moment.instructions + CHECK_EVERY
        if self.position == len(entries) and (self.frontier is None or self._reached(self.frontier)):
            self._replayed()

    def _give(self, event: Event) -> bool:
        try:
            self._machine.outside.sources[event.source](event.data)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:  # not written by us
            self._differs(f"'{event.source}' can't be given: {error}")
            return False
        return True

    def _reached(self, moment: Moment) -> bool:
        """Whether this is the moment. Only a halted processor may wait for one at the same count."""
        now = self.now
        if now == moment:
            return True
        if now < moment and (now.instructions < moment.instructions or self._machine.state[HALTED]):
            return False
        self._differs(
            f"the recording has something at instruction {moment.instructions}, {moment.ns} ns, which never was"
        )
        return False

    def _differs(self, what: str) -> None:
        now = self.now
        message = f"the replay differs from the recording at instruction {now.instructions}, {now.ns} ns: {what}"
        self._machine.loop.ask_stop(Stop(StopKind.FAILURE, 1, message))
        self._leave_recording()
        self._be_present()

    def _replayed(self) -> None:
        """The end of the past."""
        if self.recording.is_read:
            self._leave_recording()
            message = f"the recording is over: {self.now.instructions} instructions, {self.checks} checks agree"
            self._machine.loop.ask_stop(Stop(StopKind.HISTORY_END, 0, message, event="end"))
        self._be_present()

    def _be_present(self) -> None:
        """What comes from outside from now on reaches the guest, and is recorded."""
        self.mode, self.frontier = Mode.RECORD, None
        for port in self._machine.serial_ports:
            port.resume_input()

    def _leave_recording(self) -> None:
        """What was read from a file is over."""
        self._next_check = self._machine.state[ICOUNT] + CHECK_EVERY
        self._machine.tracker.look_from_here()
        self.recording.is_read = False  # what comes now is in memory only

    # ---- going back ---------------------------------------------------------------------------------------

    def _checkpoint(self) -> None:
        count = self._machine.state[ICOUNT]
        self._next_checkpoint = count + CHECKPOINT_EVERY
        if any(c.snapshot.instructions == count for c in self.checkpoints):
            return
        changed = self._machine.tracker.changed()
        snapshot = self._machine.snapshots.take("")
        self.checkpoints.append(Checkpoint(snapshot, self.position, changed, self._next_check))
        self.checkpoints.sort(key=lambda c: c.snapshot.instructions)
        if len(self.checkpoints) > MOST_CHECKPOINTS:
            self._thin_out()

    def _thin_out(self) -> None:
        """Drop the checkpoint whose neighbours are closest together in relation to how long ago they are."""
        counts = [c.snapshot.instructions for c in self.checkpoints]
        now = max(self._machine.state[ICOUNT], counts[-1])  # which in the past is before some

        def worth(n: int) -> float:
            return (counts[n + 1] - counts[n - 1]) / (now - counts[n] + CHECKPOINT_EVERY)

        number = min(range(1, len(counts) - 1), key=worth)
        self._machine.snapshots.drop(self.checkpoints.pop(number).snapshot)

    def before(self, count: int) -> Checkpoint:
        """The last checkpoint at or before a number of instructions."""
        found = [c for c in self.checkpoints if c.snapshot.instructions <= count]
        if not found:
            raise SnapshotError("there is no way back: the machine keeps no history, or not so far")
        return found[-1]

    def go_back(self, to: Checkpoint) -> None:
        """Be at a checkpoint again, and replay from there."""
        now = self.now
        if not self.replaying:
            self.frontier = now
            self.mode = Mode.REPLAY
        self._furthest = max(self._furthest, now.instructions)
        self._machine.snapshots.restore(to.snapshot)
        self._machine.tracker.set_changed(to.changed)
        self.position = to.position
        self._next_check = to.next_check
        self._next_checkpoint = max(to.snapshot.instructions + CHECKPOINT_EVERY, self._machine.state[ICOUNT])

    def restart(self) -> None:
        """The machine is in quite another state: its past begins here."""
        self.recording = Recording()
        self.position = self._furthest = 0
        self._be_present()
        for checkpoint in self.checkpoints:
            self._machine.snapshots.drop(checkpoint.snapshot)
        self.checkpoints = []
        self.begin()

    def close(self) -> None:
        self.recording.close(self.frontier or self.now)


__all__ = ["History", "Mode"]
