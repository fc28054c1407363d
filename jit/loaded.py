"""The native code that this process has loaded: the image, and the handlers that were compiled on first use.

It is loaded once, and shared by all vCPUs of all machines. Not here: what runs it (engine.py), how it is made
(image.py), who asks for handlers (lazy.py).
"""

from __future__ import annotations

import ctypes
import threading
from array import array

from pyemu.cpu.primitives import SERVICE_NAMES
from pyemu.jit import elf, hostmem, image

AREA = 8 << 20  # memory for handlers compiled on first use is reserved in steps of this


class Native:
    """The loaded image, and the table of all forms' handlers."""

    def __init__(self) -> None:
        self.image = image.load()
        SERVICE_NAMES.update(self.image.services)
        self._code = hostmem.Image(self.image.code)
        self.base = self._code.address
        self.handlers = hostmem.Array(8 * len(self.image.handlers))
        table = array("Q", [self.base + offset for offset in self.image.handlers])
        self.handlers.map[: 8 * len(table)] = table.tobytes()
        self._areas: list[hostmem.CodeCache] = []
        self._next = 0  # free space in the last area
        self._lock = threading.Lock()

    def address(self, symbol: str) -> int:
        """Where a symbol of the image is."""
        return self.base + self.image.symbols[symbol]

    def handler(self, form: int) -> int:
        """What the table has for a form."""
        return ctypes.c_uint64.from_address(self.handlers.address + 8 * form).value

    def load(self, form: int) -> int:
        """The handler of a form that the image has none of; those of its group are in the table from now on."""
        with self._lock:
            if self.handler(form) == self.address("pyemu.jit.lazy.run_lazy"):
                self._load_group(self.image.groups[form])
            return self.handler(form)

    def _load_group(self, first: int) -> None:
        data, symbols = image.load_group(self.image, first)
        if not self._areas or self._next + len(data) > self._areas[-1].size:
            self._areas.append(hostmem.CodeCache(AREA))
            self._next = 0
        area = self._areas[-1]
        at = area.address + self._next
        outside = {name: self.base + offset - at for name, offset in self.image.symbols.items()}
        linked = elf.link([data], outside)
        area.writable[self._next : self._next + len(linked.data)] = linked.data
        self._next += -(-len(linked.data) // 64) * 64
        for number, symbol in symbols.items():
            where = self.handlers.address + 8 * number
            ctypes.c_uint64.from_address(where).value = at + linked.symbols[symbol]


_native: Native | None = None
_lock = threading.Lock()


def native() -> Native:
    """The native code, built if need be, and loaded once a process."""
    global _native
    with _lock:
        if _native is None:
            _native = Native()
        return _native
