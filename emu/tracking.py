"""Which pages of guest RAM change, and what they were before: what snapshots and checks of a replay cost.

A byte for each page (`pyemu.cpu.primitives`: UNSAVED, UNSEEN) makes the first write to it take the slow way, in every
back end and for the machine's own writes; there the page is copied, or only noted. Translated code pays nothing: the
write tags of the TLB carry a flag until a page's first write. Not here: what else a snapshot consists of (`snapshot`).
"""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyemu.cpu.primitives import HAS_CODE, UNSAVED, UNSEEN
from pyemu.cpu.state import (
    MMU_COUNT,
    PAGE_FLAGS,
    SAVED_COUNT,
    SAVED_NUMBERS,
    SAVED_PAGES,
    TLB,
    TLB_ENTRIES,
    TLB_ENTRY_WORDS,
    State,
)
from pyemu.cpu.tlb import CODE_FLAG, WRITE_TAG
from pyemu.memory import HIGH_RAM_START, PAGE_SIZE, GuestRam, NoMemory

if TYPE_CHECKING:
    import numpy

_MAP_NORESERVE = 0x4000  # Linux <sys/mman.h>


def _zeroed(size: int) -> mmap.mmap:
    """Memory that is there when it is touched."""
    try:
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
    except OSError as error:
        raise NoMemory(f"the host can't give {size >> 10} KiB to note which memory has changed") from error


@dataclass
class PageSet:
    """Some pages of RAM with contents that they have elsewhere in the tree of snapshots."""

    numbers: numpy.ndarray[Any, Any]  # physical page numbers, each once
    pages: numpy.ndarray[Any, Any]  # their contents, of dtype V4096

    def over(self, nearer: PageSet) -> PageSet:
        """Both as one set: where both have a page, this one's contents count."""
        import numpy

        fresh = ~numpy.isin(nearer.numbers, self.numbers)
        return PageSet(
            numpy.concatenate([self.numbers, nearer.numbers[fresh]]),
            numpy.concatenate([self.pages, nearer.pages[fresh]]),
        )


class PageTracker:
    """Tracks one machine's RAM. Its methods are called while the vCPU stands still, or on its thread."""

    def __init__(self, state: State, ram: GuestRam) -> None:
        self._s = state
        self._ram = ram
        self._flags = _zeroed(ram.reserved // PAGE_SIZE)  # ROM below 4 GiB has its bytes too
        state[PAGE_FLAGS] = ctypes.addressof(ctypes.c_char.from_buffer(self._flags))
        self._arrays: tuple[Any, ...] | None = None
        self._buffers: list[mmap.mmap] = []

    def _views(self) -> tuple[Any, ...]:
        """numpy's views of flags, RAM, saved page numbers, saved pages and write tags; made when first needed."""
        if self._arrays is None:
            import numpy

            s, pages = self._s, self._ram.size // PAGE_SIZE
            numbers, saved = _zeroed(8 * pages), _zeroed(PAGE_SIZE * pages)
            self._buffers = [numbers, saved]
            s[SAVED_NUMBERS] = ctypes.addressof(ctypes.c_char.from_buffer(numbers))
            s[SAVED_PAGES] = ctypes.addressof(ctypes.c_char.from_buffer(saved))
            words = numpy.frombuffer(s, dtype=numpy.uint64)
            entries = words[TLB : TLB + MMU_COUNT * TLB_ENTRIES * TLB_ENTRY_WORDS]
            self._arrays = (
                numpy.frombuffer(self._flags, dtype=numpy.uint8),
                numpy.frombuffer(self._ram.whole[: self._ram.size], dtype="V4096"),
                numpy.frombuffer(numbers, dtype=numpy.uint64),
                numpy.frombuffer(saved, dtype="V4096"),
                entries.reshape(-1, TLB_ENTRY_WORDS)[:, WRITE_TAG],
            )
        return self._arrays

    def _parts(self) -> list[slice]:
        """Page numbers of RAM."""
        ram = self._ram
        parts = [slice(0, ram.low_end // PAGE_SIZE)]
        if ram.high_end:
            parts.append(slice(HIGH_RAM_START // PAGE_SIZE, ram.high_end // PAGE_SIZE))
        return parts

    def _arm(self, bit: int) -> None:
        flags = self._views()[0]
        for part in self._parts():
            flags[part] |= bit
        self.slow_first_writes()

    # ---- saved pages --------------------------------------------------------------------------------------

    def save_from_here(self) -> None:
        """From now on pages are saved before their first change."""
        self._s[SAVED_COUNT] = 0
        self._arm(UNSAVED)

    def stop_saving(self) -> None:
        flags = self._views()[0]
        for part in self._parts():
            flags[part] &= ~UNSAVED & 0xFF
        self._s[SAVED_COUNT] = 0

    @property
    def saved_count(self) -> int:
        return int(self._s[SAVED_COUNT])

    def saved(self) -> PageSet:
        """The pages that have changed since `save_from_here`, as they were."""
        _, _, numbers, pages, _ = self._views()
        count = self._s[SAVED_COUNT]
        return PageSet(numbers[:count].copy(), pages[:count].copy())

    def undo(self) -> None:
        """RAM is again what it was at `save_from_here`, and goes on being saved from there."""
        _, ram, numbers, pages, _ = self._views()
        count = self._s[SAVED_COUNT]
        if count:
            self._prepare(numbers[:count])
            ram[numbers[:count]] = pages[:count]
        self._s[SAVED_COUNT] = 0
        self._arm(UNSAVED)

    def set_saved(self, some: PageSet) -> None:
        """Make just these the saved pages."""
        flags, _, numbers, pages, _ = self._views()
        count = len(some.numbers)
        self._arm(UNSAVED)
        numbers[:count], pages[:count] = some.numbers, some.pages
        flags[some.numbers] &= ~UNSAVED & 0xFF
        self._s[SAVED_COUNT] = count

    def slow_first_writes(self) -> None:
        """The write tags of the TLB must say that pages are tracked: all, as it does no harm where there is no RAM."""
        self._views()[4][:] |= CODE_FLAG

    def swap(self, some: PageSet) -> None:
        """Exchange the contents of pages with those in RAM. Nothing is saved: undo() comes before."""
        ram = self._views()[1]
        if len(some.numbers):
            self._prepare(some.numbers)
            here = ram[some.numbers]
            ram[some.numbers] = some.pages
            some.pages = here

    def _prepare(self, numbers: Any) -> None:
        """The pages are about to change by other means: what was translated from them is over."""
        flags = self._views()[0]
        flags[numbers] &= ~UNSAVED & 0xFF
        if self._ram.on_write is not None:
            for number in numbers[(flags[numbers] & HAS_CODE) != 0]:
                self._ram.on_write(int(number) * PAGE_SIZE, PAGE_SIZE)

    # ---- changed pages ------------------------------------------------------------------------------------

    def look_from_here(self) -> None:
        """From now on changes are noted."""
        self._arm(UNSEEN)

    def changed(self) -> Any:
        """The numbers of the pages that have changed since `look_from_here`, ascending."""
        import numpy

        flags = self._views()[0]
        return numpy.concatenate(
            [numpy.flatnonzero((flags[part] & UNSEEN) == 0) + part.start for part in self._parts()]
        )

    def set_changed(self, numbers: Any) -> None:
        """Make just these the changed pages."""
        self._arm(UNSEEN)
        self._views()[0][numbers] &= ~UNSEEN & 0xFF

    def page(self, number: int) -> bytes:
        return self._ram.read(number * PAGE_SIZE, PAGE_SIZE)

    def close(self) -> None:
        """Let go of RAM; the vCPU no longer runs."""
        self._arrays = None
