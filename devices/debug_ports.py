"""Debug ports: the 0xe9 console, isa-debug-exit, and the POST code port.

The first two are conventions of Bochs and QEMU. The console's port reads back its own number, which is how guests
find it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from pyemu.devices.device import ALL_ONES, Device
from pyemu.devices.interfaces import CharBackend

DEBUGCON_READBACK = 0xE9


@dataclass(slots=True)
class PostState:
    code: int = 0


class DebugConsole:
    """Every byte written goes to the backend."""

    def __init__(self, backend: CharBackend, readback: int = DEBUGCON_READBACK) -> None:
        self._backend = backend
        self._readback = readback

    def port_read(self, offset: int, size: int) -> int:
        return self._readback if size == 1 else ALL_ONES[size] & ~0xFF | self._readback

    def port_write(self, offset: int, size: int, value: int) -> None:
        if offset == 0:
            self._backend.write(bytes((value & 0xFF,)))


class DebugExit:
    """A write of `value` ends the emulator with status (value << 1) | 1, cut to 8 bits by the host's exit()."""

    def __init__(self, on_exit: Callable[[int], None]) -> None:
        self._on_exit = on_exit

    def port_read(self, offset: int, size: int) -> int:
        return 0

    def port_write(self, offset: int, size: int, value: int) -> None:
        self._on_exit(value << 1 | 1)


class PostPort(Device):
    """Port 0x80. Guests also write it just to wait a microsecond. `on_code` may be given to see the codes."""

    state: PostState

    def __init__(self, on_code: Callable[[int], None] | None = None) -> None:
        self._on_code = on_code
        self.state = PostState()

    def port_read(self, offset: int, size: int) -> int:
        return self.state.code if size == 1 else ALL_ONES[size] & ~0xFF | self.state.code

    def port_write(self, offset: int, size: int, value: int) -> None:
        self.state.code = value & 0xFF
        if self._on_code is not None:
            self._on_code(value & 0xFF)
