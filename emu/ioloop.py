"""The thread that waits: for host input, for the next timer deadline of the guest, for output to be flushed.

It sleeps in select() with microsecond timeouts (epoll's are milliseconds, too coarse for guest timers) and is woken
through a pipe. Guest timers run here in real-time mode, with the device lock held; in instruction-counted mode the
vCPU thread runs them itself and this thread serves only the host side.
"""

from __future__ import annotations

import heapq
import os
import select
import threading
import time
from collections.abc import Callable
from typing import Protocol

from pyemu.clock import Clock

# select() can't take descriptors beyond this.
_FD_SETSIZE = 1024
_LONGEST_SLEEP_S = 1.0


# The vCPU holds the device lock while it waits for a full output. Input must be served all the same: Ctrl-A x is in it.
LOCK_PATIENCE_S = 0.02


class Lock(Protocol):
    """What is needed of threading.RLock."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...
    def release(self) -> None: ...


class IoLoop:
    """One per machine. Callbacks of descriptors and `call_later` run on its thread, without the device lock."""

    def __init__(
        self,
        clock: Clock,
        device_lock: Lock,
        on_error: Callable[[BaseException], None],
        run_timers: bool = True,
    ) -> None:
        self._clock = clock
        self._lock = device_lock
        self._on_error = on_error
        self._run_timers = run_timers
        self._readers: dict[int, Callable[[], None]] = {}
        self._later: list[tuple[int, int, Callable[[], None]]] = []
        self._later_lock = threading.Lock()
        self._sequence = 0
        self._stopping = False
        self._woken = False
        self.urgent: Callable[[], None] | None = None  # set by signal handlers, which may take no lock; then `wake`
        self._sleep_until = 0  # guest time up to which select() will sleep; 0 while awake
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        os.set_blocking(self._write_end, False)
        self._thread = threading.Thread(target=self._run, name="pyemu-io", daemon=True)
        if run_timers:
            clock.on_earlier = self._deadline_moved

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread (from another one) and close the pipe."""
        self._stopping = True
        self.wake()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout=2.0)
        if not self._thread.is_alive():
            self._clock.on_earlier = None
            for fd in (self._read_end, self._write_end):
                if fd >= 0:
                    os.close(fd)
            self._read_end = self._write_end = -1

    def wake(self) -> None:
        if (self._woken and self.urgent is None) or self._write_end < 0:
            return
        self._woken = True
        try:
            os.write(self._write_end, b"!")
        except OSError:
            # Full: it will wake anyway. Closed: nobody is left to wake.
            return

    def _deadline_moved(self) -> None:
        if self._sleep_until:
            deadline = self._clock.next_deadline()
            if deadline is not None and deadline < self._sleep_until:
                self.wake()

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        """Call back whenever `fd` is readable."""
        if fd >= _FD_SETSIZE:
            raise OSError(f"too many open files: descriptor {fd} can't be waited for")
        self._readers[fd] = callback
        self.wake()

    def remove_reader(self, fd: int) -> None:
        self._readers.pop(fd, None)
        self.wake()

    def call_later(self, delay_ns: int, callback: Callable[[], None]) -> None:
        """Run `callback` on this thread after `delay_ns` of host time."""
        with self._later_lock:
            self._sequence += 1
            heapq.heappush(self._later, (time.monotonic_ns() + delay_ns, self._sequence, callback))
        self.wake()

    # ---- the thread ----------------------------------------------------------------------------------------

    def _timeout(self) -> float:
        timeout = _LONGEST_SLEEP_S
        if self._later:
            timeout = min(timeout, (self._later[0][0] - time.monotonic_ns()) / 1e9)
        if self._run_timers:
            if not self._lock.acquire(timeout=LOCK_PATIENCE_S):
                return LOCK_PATIENCE_S
            try:
                now = self._clock.now_ns()
                deadline = self._clock.next_deadline()
                if deadline is not None:
                    timeout = min(timeout, (deadline - now) / 1e9)
                timeout = max(timeout, 0.0)
                # Under the lock: whoever moves the deadline after this sees that we sleep.
                self._sleep_until = now + int(timeout * 1e9) + 1
            finally:
                self._lock.release()
        return max(timeout, 0.0)

    def _wait(self, timeout: float) -> list[int]:
        try:
            return select.select([self._read_end, *self._readers], (), (), timeout)[0]
        except (OSError, ValueError):
            # A descriptor was closed under us: forget the ones that no longer exist.
            for fd in list(self._readers):
                try:
                    os.fstat(fd)
                except OSError:
                    self._readers.pop(fd, None)
            return []

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._once()
            except BaseException as error:
                if self._stopping:
                    return
                self._on_error(error)

    def _once(self) -> None:
        ready = self._wait(self._timeout())
        self._sleep_until = 0
        if self._read_end in ready:
            self._woken = False
            os.read(self._read_end, 4096)
        urgent = self.urgent
        if urgent is not None:
            self.urgent = None
            urgent()
        for fd in ready:
            callback = self._readers.get(fd)
            if callback is not None:
                callback()
        if self._run_timers and self._lock.acquire(timeout=LOCK_PATIENCE_S):
            try:
                self._clock.run_due()
            finally:
                self._lock.release()
        while self._later and self._later[0][0] <= time.monotonic_ns():
            with self._later_lock:
                callback = heapq.heappop(self._later)[2]
            callback()
