"""Between a UART (or another character front end in devices/) and its chardev: queues input until the chip has room,
lets others watch the output."""

from __future__ import annotations

import threading
from collections.abc import Callable

from pyemu.chardev import Chardev, Loop
from pyemu.devices.interfaces import CharDevice
from pyemu.ioloop import LOCK_PATIENCE_S, Lock
from pyemu.outside import Outside

# Unread input beyond this stops reading from the host. The terminal itself never gets here: Ctrl-A must keep working.
_QUEUE_LIMIT = 64 << 10
_RETRY_NS = 10_000_000


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

    def connect(self, device: CharDevice, receive_break: Callable[[], None]) -> None:
        self._device = device

        def on_break() -> None:
            if self._lock.acquire(timeout=LOCK_PATIENCE_S):
                try:
                    receive_break()
                finally:
                    self._lock.release()

        self.chardev.on_break = on_break
        self.chardev.on_input = self._input

    def start(self, loop: Loop) -> None:
        self._loop = loop
        self._offer()

    # ---- guest to host (device lock held) ------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        self.output_seen = True
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
        device = self._device
        if device is None or self._loop is None:
            return
        if not self._lock.acquire(timeout=LOCK_PATIENCE_S):
            self._loop.call_later(_RETRY_NS, self._offer)
            return
        try:
            self._deliver(device)
        finally:
            self._lock.release()

    def _deliver(self, device: CharDevice) -> None:
        taken = 0

        def deliver(data: bytes) -> None:
            nonlocal taken
            taken = device.receive(data)

        with self._queue_lock:
            if self._queue:
                self._outside.input(self.name, bytes(self._queue[:4096]), deliver)
                del self._queue[:taken]
            if self._paused and len(self._queue) < _QUEUE_LIMIT // 2:
                self._paused = False
                self.chardev.pause_input(False)
