"""The whole state of a machine: taken, put back, and a tree of such states in memory.

A `MachineRecord` is everything but RAM: vCPU, devices, clock. `SnapshotTree` adds RAM at the cost of the pages that
change: it keeps, for each pair of neighbours in the tree, what differs between them. Host-side things (what a chardev
has shown, breakpoints, translations) are no part of a snapshot. Files are `snapshot_file`'s.
"""

from __future__ import annotations

import ctypes
import dataclasses
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pyemu.cpu import mode
from pyemu.cpu.state import (
    ICOUNT,
    LAYOUT,
    MMU,
    MODE,
    RAM_BASE,
    STACK_MASK,
    TLB,
    TLB_ENTRY_WORDS,
    TLB_LOG,
    TLB_LOG_COUNT,
    TLB_LOG_SIZE,
    State,
    new_state,
)
from pyemu.cpu.tlb import ADDEND, CODE_FLAG, EXEC_TAG, INVALID, MMIO_FLAG, PAGE, READ_TAG, TLB_END, WRITE_TAG
from pyemu.memory import PAGE_SIZE
from pyemu.snapshot_error import SnapshotError
from pyemu.tracking import PageSet, PageTracker

if TYPE_CHECKING:
    from pyemu.machine import Machine

# Fields of the vCPU's state that belong to this process, to the machine around it or to nobody: no part of a snapshot.
NOT_SAVED = frozenset(
    "exit_request icount_limit cpuid_model cpu_features linear_top_max cr4_allowed xcr0_allowed apic_id cpu_count"
    " exit_reason exit_info record fetch_rip fetch_phys fetch_phys2 fetch_fault ram_base range_count ranges walk_phys"
    " walk_rights host_calls jit page_flags saved_count saved_numbers saved_pages tlb_misses stats"
    " x87_operand x87_result vector frame value".split()
)


def is_saved(name: str) -> bool:
    """Whether a field belongs to a snapshot: the debugger's hooks don't."""
    return name not in NOT_SAVED and not name.startswith("hook_")


def saved_fields() -> list[tuple[str, int, int]]:
    """Name, first word and number of words of what is saved of a vCPU."""
    return [(f.name, f.index, f.count) for f in LAYOUT.values() if is_saved(f.name)]


def _runs() -> list[tuple[int, int]]:
    """The same as few runs of neighbouring words."""
    runs: list[tuple[int, int]] = []
    for _, index, count in saved_fields():
        if runs and sum(runs[-1]) == index:
            runs[-1] = runs[-1][0], runs[-1][1] + count
        else:
            runs.append((index, count))
    return runs


_RUNS = _runs()


def take_cpu(s: State) -> bytes:
    """The saved words of a vCPU, in the order of the state."""
    base = ctypes.addressof(s)
    return b"".join(ctypes.string_at(base + 8 * index, 8 * count) for index, count in _RUNS)


def put_cpu(s: State, words: bytes) -> None:
    base, at = ctypes.addressof(s), 0
    if len(words) != 8 * sum(count for _, count in _RUNS):
        raise SnapshotError("the snapshot's processor has other registers")
    for index, count in _RUNS:
        ctypes.memmove(base + 8 * index, words[at : at + 8 * count], 8 * count)
        at += 8 * count


def move_tlb(s: State, old_base: int) -> None:
    """The entries lead into RAM that was at another host address; all pages may have a first write before them."""
    offset = s[RAM_BASE] - old_base
    table = memoryview(s).cast("B").cast("Q")[TLB:TLB_END]
    tags, addends = table[WRITE_TAG::TLB_ENTRY_WORDS], table[ADDEND::TLB_ENTRY_WORDS]
    for n, addend in enumerate(addends.tolist()):
        if addend:  # few have ever been filled
            addends[n] = addend + offset & INVALID
            tags[n] |= CODE_FLAG


@dataclass
class MachineRecord:
    """A machine without its RAM, as plain data."""

    cpu: bytes
    ram_base: int  # where the TLB's entries think RAM is
    clock: dict[str, Any]
    devices: dict[str, dict[str, Any]]
    hidden: bytes  # RAM behind ROM, or ROM behind RAM
    drawn: int  # random numbers given


def capture(machine: Machine) -> MachineRecord:
    """Device lock held; the vCPU stands still, or this is its thread."""
    return MachineRecord(
        cpu=take_cpu(machine.state),
        ram_base=machine.state[RAM_BASE],
        clock=machine.clock.snapshot(),
        devices={name: device.snapshot() for name, device in machine.board.devices.items()},
        hidden=machine.board.shadow.snapshot(),
        drawn=machine.outside.drawn,
    )


def check_devices(machine: Machine, record: MachineRecord) -> None:
    """Raise SnapshotError for devices that aren't those of the machine, or of another version of them."""
    devices = machine.board.devices
    if odd := set(record.devices) ^ set(devices):
        raise SnapshotError(f"the machine and the snapshot differ in their devices: {', '.join(sorted(odd))}")
    for name, device in devices.items():
        if not _fits(device.state, record.devices[name]):
            raise SnapshotError(f"the snapshot is of another version of pyemu: '{name}' has other registers there")
    if not machine.clock.can_restore(record.clock) or len(record.hidden) != len(machine.board.shadow.snapshot()):
        raise SnapshotError("the snapshot is damaged: its clock or its hidden memory isn't this machine's")


def check_cpu(machine: Machine, record: MachineRecord) -> None:
    """Raise SnapshotError for a processor that native code couldn't go on with: it believes the mode and the TLB."""
    s = new_state()
    put_cpu(s, record.cpu)
    words = memoryview(s).cast("B").cast("Q")
    mode_words = s[MODE], s[MMU], s[STACK_MASK]
    mode.update(s)
    log = words[TLB_LOG : TLB_LOG + min(s[TLB_LOG_COUNT], TLB_LOG_SIZE)].tolist()
    if mode_words != (s[MODE], s[MMU], s[STACK_MASK]) or any(not TLB <= word < TLB_END for word in log):
        raise SnapshotError("the snapshot is damaged: its processor is in no possible state")
    columns = (words[TLB + n : TLB_END : TLB_ENTRY_WORDS].tolist() for n in (READ_TAG, WRITE_TAG, EXEC_TAG, ADDEND))
    for *tags, addend in zip(*columns, strict=True):
        for tag in tags if addend else ():
            page = (tag & PAGE) + addend - record.ram_base & INVALID
            if tag != INVALID and not tag & MMIO_FLAG and not machine.ram.is_memory(page, PAGE_SIZE):
                raise SnapshotError("the snapshot is damaged: its TLB leads out of memory")


def _fits(state: Any, record: Any) -> bool:
    """Whether a plain record has the fields of a state, of the same kinds and lengths. Only queues, which are empty at
    first, have any length."""
    if dataclasses.is_dataclass(state):
        members = dataclasses.fields(state)
        if not isinstance(record, dict) or record.keys() != {member.name for member in members}:
            return False
        for member in members:
            ours, theirs = getattr(state, member.name), record[member.name]
            has_length = isinstance(ours, list | bytearray) and member.default_factory is not list
            if not _fits(ours, theirs) or (has_length and len(ours) != len(theirs)):
                return False
        return True
    if isinstance(state, list) and state and dataclasses.is_dataclass(state[0]):
        return isinstance(record, list) and len(state) == len(record) and all(map(_fits, state, record))
    return isinstance(record, type(state)) and (
        not isinstance(state, list) or all(type(item) is int for item in record)
    )


def put_back_devices(machine: Machine, record: MachineRecord) -> None:
    """Everything but RAM and processor. What lies at which address is then what it was: RAM comes next."""
    board = machine.board
    machine.state[ICOUNT] = _icount(record)
    machine.clock.restore(record.clock)
    for name, device in board.devices.items():
        device.restore(record.devices[name])
    for name, device in board.devices.items():
        device.refill(record.devices[name])
    machine.rearrange_memory()
    machine.outside.drawn = record.drawn


def put_back_cpu(machine: Machine, record: MachineRecord) -> None:
    """After RAM: the rest."""
    s = machine.state
    if machine.accelerator is not None:
        machine.accelerator.state_replaced()
    machine.board.shadow.restore(record.hidden)
    put_cpu(s, record.cpu)
    if record.ram_base != s[RAM_BASE]:
        move_tlb(s, record.ram_base)
    if machine.accelerator is not None:
        machine.accelerator.watches_changed()  # the TLB has the tags of a time when others were watched
    machine.clock.restore_alarms(record.clock)
    machine.loop.interrupts_changed()


def _icount(record: MachineRecord) -> int:
    at = 0
    for index, count in _RUNS:
        if index <= ICOUNT < index + count:
            at += 8 * (ICOUNT - index)
            return int.from_bytes(record.cpu[at : at + 8], "little")
        at += 8 * count
    raise AssertionError("the instruction count is saved")


# ---- in memory ------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Snapshot:
    """A state to which the machine can go back. `dropped` ones are kept only as crossroads of the tree."""

    name: str
    record: MachineRecord
    dropped: bool = False
    # Neighbours, and the pages in which they differ: with the contents at the end that is farther from RAM's state.
    links: dict[Snapshot, PageSet] = field(default_factory=dict, repr=False)

    @property
    def instructions(self) -> int:
        """The count at which it was taken."""
        return _icount(self.record)


class SnapshotTree:
    """All snapshots in memory of one machine. RAM has one of them as its base: pages are saved as they change."""

    def __init__(self, machine: Machine, tracker: PageTracker) -> None:
        self._machine = machine
        self._tracker = tracker
        self._all: list[Snapshot] = []
        self._base: Snapshot | None = None

    def __iter__(self) -> Iterator[Snapshot]:
        return (snapshot for snapshot in self._all if not snapshot.dropped)

    def take(self, name: str = "") -> Snapshot:
        """Device lock held; the vCPU stands still, or this is its thread. So for all methods here."""
        new = Snapshot(name, capture(self._machine))
        if self._base is not None:
            pages = self._tracker.saved()
            self._base.links[new] = new.links[self._base] = pages
        self._all.append(new)
        self._base = new
        self._tracker.save_from_here()
        return new

    def restore(self, to: Snapshot) -> None:
        """The machine is in that state again."""
        self._check_ours(to)
        if to.dropped:
            raise SnapshotError(f"snapshot '{to.name}' has been dropped")
        put_back_devices(self._machine, to.record)
        self._tracker.undo()
        assert self._base is not None
        path = self._path(self._base, to)
        for here, there in pairwise(path):
            self._tracker.swap(here.links[there])
        self._base = to
        if len(path) > 1:
            self._tracker.save_from_here()
        put_back_cpu(self._machine, to.record)
        self._tracker.slow_first_writes()

    def drop(self, snapshot: Snapshot) -> None:
        """Forget one; the others stay."""
        self._check_ours(snapshot)
        snapshot.dropped = True
        while self._prune():
            pass

    def _check_ours(self, snapshot: Snapshot) -> None:
        if not isinstance(snapshot, Snapshot):
            raise TypeError(f"{snapshot!r:.80} is no snapshot")
        if snapshot not in self._all and not snapshot.dropped:
            raise SnapshotError(f"snapshot '{snapshot.name}' is of another machine")

    def _prune(self) -> bool:
        """Take one dropped snapshot out of the tree, if one is no crossroads."""
        for snapshot in self._all:
            if snapshot.dropped and len(snapshot.links) <= (1 if snapshot is self._base else 2):
                self._remove(snapshot)
                return True
        return False

    def _remove(self, snapshot: Snapshot) -> None:
        neighbours = list(snapshot.links)
        if snapshot is self._base:
            if neighbours:
                self._base = neighbours[0]
                self._tracker.set_saved(snapshot.links[self._base].over(self._tracker.saved()))
            else:
                self._base = None
                self._tracker.stop_saving()
        elif len(neighbours) == 2:
            assert self._base is not None
            near = self._path(snapshot, self._base)[1]
            far = neighbours[1] if neighbours[0] is near else neighbours[0]
            near.links[far] = far.links[near] = snapshot.links[far].over(snapshot.links[near])
        for neighbour in neighbours:
            del neighbour.links[snapshot]
        self._all.remove(snapshot)

    def _path(self, start: Snapshot, end: Snapshot) -> list[Snapshot]:
        """The way from one to another, both included."""
        came_from: dict[Snapshot, Snapshot | None] = {start: None}
        waiting = deque([start])
        while waiting and end not in came_from:
            here = waiting.popleft()
            for there in here.links:
                if there not in came_from:
                    came_from[there] = here
                    waiting.append(there)
        path = [end]
        while (before := came_from[path[-1]]) is not None:
            path.append(before)
        return path[::-1]
