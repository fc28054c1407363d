"""Between a UART (or another character front end in devices/) and its chardev: queues input until the chip has room,
lets others watch the output."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pyemu.chardev import Chardev, Loop
from pyemu.devices.interfaces import CharDevice
from pyemu.ioloop import LOCK_PATIENCE_S, Lock
from pyemu.outside import Outside

# Unread input beyond this stops reading from the host. The terminal itself never gets here: Ctrl-A must keep working.
_QUEUE_LIMIT = 64 << 10
_RETRY_NS = 10_000_000
# A guest that never raises DTR gets its input when it has been quiet for so long after writing something, or at last.
_QUIET_NS = 500_000_000
_LATEST_NS = 5_000_000_000
_POLL_NS = 20_000_000


class SerialPort:
    """Implements `pyemu.devices.interfaces.CharBackend` over a `Chardev`."""

    def __init__(self, name: str, chardev: Chardev, lock: Lock, outside: Outside) -> None:
        self.name = name
        self.chardev = chardev
        self.output_seen = False
        self.watchers: list[Callable[[bytes], None]] = []  # called with the device lock held
        self._lock = lock
        self._outside = outside
        self._loop: Loop | None = None
        self._device: CharDevice | None = None
        self._queue = bytearray()
        self._queue_lock = threading.Lock()
        self._paused = False
        self._ready: Callable[[], bool] = lambda: True
        self._open = False
        self._started_ns = self._written_ns = 0

    def connect(
        self, device: CharDevice, receive_break: Callable[[], None], ready: Callable[[], bool] = lambda: True
    ) -> None:
        """`ready` says whether the guest has opened the port: what is typed before would be lost in its set-up."""
        self._device = device
        self._ready = ready
        self._outside.source(self.name, lambda text: device.receive(bytes.fromhex(text)))
        self._outside.source(f"break on {self.name}", lambda _: receive_break())

        def on_break() -> None:
            if self._lock.acquire(timeout=LOCK_PATIENCE_S):
                try:
                    self._outside.at_boundary(lambda: self._break())
                finally:
                    self._lock.release()

        self.chardev.on_break = on_break
        self.chardev.on_input = self._input

    def _break(self) -> None:
        self._outside.deliver(f"break on {self.name}", "")

    def start(self, loop: Loop) -> None:
        self._loop = loop
        self.reset()
        self._offer()

    def reset(self) -> None:
        """The guest starts over, and opens the port again."""
        self._open = False
        self._started_ns = time.monotonic_ns()
        self._written_ns = 0

    def _is_open(self) -> bool:
        if not self._open:
            now = time.monotonic_ns()
            quiet = self._written_ns and now - self._written_ns > _QUIET_NS
            self._open = bool(self._ready() or quiet or now - self._started_ns > _LATEST_NS)
        return self._open

    # ---- guest to host (device lock held) ------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self._outside.seen():
            return
        self.output_seen = True
        if not self._open:
            self._written_ns = time.monotonic_ns()
        self.chardev.write(data)
        for watch in self.watchers:
            watch(data)

    def set_break(self, active: bool) -> None:
        """A break has no meaning to any of our back ends."""

    def resume_input(self) -> None:
        if self._loop is not None and self._queue:
            self._loop.call_later(0, self._offer)

    # ---- host to guest -------------------------------------------------------------------------------------

    def _input(self, data: bytes) -> None:
        with self._queue_lock:
            self._queue += data
            if len(self._queue) > _QUEUE_LIMIT and not self._paused:
                self._paused = True
                self.chardev.pause_input(True)
        self._offer()

    def _offer(self) -> None:
        if self._device is None or self._loop is None:
            return
        if not self._lock.acquire(timeout=LOCK_PATIENCE_S):
            self._loop.call_later(_RETRY_NS, self._offer)
            return
        try:
            self._outside.at_boundary(self._deliver)
        finally:
            self._lock.release()

    def _deliver(self) -> None:
        """At an instruction boundary."""
        with self._queue_lock:
            if self._queue and not self._is_open():
                if self._loop is not None:
                    self._loop.call_later(_POLL_NS, self._offer)
            elif self._queue:
                taken = self._outside.deliver(self.name, bytes(self._queue[:4096]).hex())
                assert isinstance(taken, int)
                del self._queue[:taken]
            if self._paused and len(self._queue) < _QUEUE_LIMIT // 2:
                self._paused = False
                self.chardev.pause_input(False)
