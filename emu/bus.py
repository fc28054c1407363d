"""Dispatch of port and MMIO accesses to devices.

The bus knows ranges; devices know offsets. Accesses that a device can't take in one piece (wider than its registers,
misaligned, or running over the end of its range) are split here into pieces that it can, lowest address first. What
nobody claims reads as all ones and swallows writes, as on a PC's bus. Locking is the caller's (see `hostcpu`).
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from pyemu.log import Log
from pyemu.memory import PhysicalRange, RangeKind, RangeTable

if TYPE_CHECKING:
    from pyemu.devices.interfaces import MmioDevice, PortDevice

PORT_COUNT = 0x1_0000
_MASK = {size: (1 << (8 * size)) - 1 for size in range(9)}


class _PortClaim:
    __slots__ = ("base", "device", "end", "name", "origin", "widest")

    def __init__(self, base: int, end: int, origin: int, device: PortDevice, widest: int, name: str) -> None:
        self.base = base
        self.end = end
        self.origin = origin
        self.device = device
        self.widest = widest
        self.name = name


class _MmioClaim:
    __slots__ = ("base", "device", "end", "name", "narrowest", "widest")

    def __init__(self, base: int, size: int, device: MmioDevice, narrowest: int, widest: int, name: str) -> None:
        self.base = base
        self.end = base + size
        self.device = device
        self.narrowest = narrowest
        self.widest = widest
        self.name = name


def _check_width(width: int) -> None:
    if width not in (1, 2, 4, 8):
        raise ValueError(f"{width} is not an access width")


class PortBus:
    """The 64 Ki I/O ports."""

    def __init__(self, log: Log) -> None:
        self._claims: dict[int, _PortClaim] = {}
        self._log = log

    def claim(
        self,
        base: int,
        count: int,
        device: PortDevice,
        *,
        widest: int = 1,
        name: str = "",
        origin: int | None = None,
    ) -> None:
        """`device` answers ports `base` to `base + count - 1`, in accesses of up to `widest` bytes.

        Its offsets count from `origin`, which is `base` unless its ports lie apart.
        """
        _check_width(widest)
        if base < 0 or count <= 0 or base + count > PORT_COUNT:
            raise ValueError(f"ports {base:#x}+{count} don't exist")
        taken = [port for port in range(base, base + count) if port in self._claims]
        if taken:
            raise ValueError(f"port {taken[0]:#x} of {name} is already {self._claims[taken[0]].name}'s")
        claim = _PortClaim(base, base + count, base if origin is None else origin, device, widest, name)
        for port in range(base, base + count):
            self._claims[port] = claim

    def release(self, base: int) -> None:
        """Undo the claim that starts at `base`."""
        claim = self._claims.get(base)
        if claim is None or claim.base != base:
            raise KeyError(f"no port claim starts at {base:#x}")
        for port in range(base, claim.end):
            del self._claims[port]

    def name(self, port: int) -> str:
        claim = self._claims.get(port)
        return claim.name if claim is not None else "unclaimed"

    def read(self, port: int, size: int) -> int:
        claim = self._claims.get(port)
        if claim is not None:
            if size <= claim.widest and port + size <= claim.end:
                return claim.device.port_read(port - claim.origin, size) & _MASK[size]
        if size == 1 or self._all_unclaimed(port, size):
            self._log.write_limited("unimp", f"unclaimed port read {port:#06x} size {size}")
            return _MASK[size]
        half = size // 2
        return self.read(port, half) | self.read(port + half & 0xFFFF, half) << (8 * half)

    def write(self, port: int, size: int, value: int) -> None:
        claim = self._claims.get(port)
        if claim is not None:
            if size <= claim.widest and port + size <= claim.end:
                claim.device.port_write(port - claim.origin, size, value & _MASK[size])
                return
        if size == 1 or self._all_unclaimed(port, size):
            self._log.write_limited("unimp", f"unclaimed port write {port:#06x} size {size} value {value:#x}")
            return
        half = size // 2
        self.write(port, half, value & _MASK[half])
        self.write(port + half & 0xFFFF, half, value >> (8 * half))

    def _all_unclaimed(self, port: int, size: int) -> bool:
        return not any(port + at & 0xFFFF in self._claims for at in range(size))


class MmioBus:
    """Physical addresses that are not RAM. Claims also appear in the machine's table of physical ranges."""

    def __init__(self, log: Log, ranges: RangeTable) -> None:
        self._starts: list[int] = []
        self._claims: list[_MmioClaim] = []
        self._last: _MmioClaim | None = None
        self._log = log
        self._ranges = ranges

    def claim(
        self,
        base: int,
        size: int,
        device: MmioDevice,
        *,
        narrowest: int = 1,
        widest: int = 4,
        name: str = "",
        kind: RangeKind = RangeKind.MMIO,
    ) -> None:
        """`device` answers `size` bytes from `base`, in aligned accesses of `narrowest` to `widest` bytes.

        A narrower read is cut out of a wider one; a narrower write is logged and dropped, as reading first to
        merge could have side effects.
        """
        _check_width(narrowest)
        _check_width(widest)
        self._ranges.add(PhysicalRange(base, base + size, kind, name))
        at = bisect_right(self._starts, base)
        self._starts.insert(at, base)
        self._claims.insert(at, _MmioClaim(base, size, device, narrowest, widest, name))
        self._last = None

    def release(self, base: int) -> None:
        at = bisect_right(self._starts, base) - 1
        if at < 0 or self._starts[at] != base:
            raise KeyError(f"no MMIO claim starts at {base:#x}")
        self._ranges.remove(base)
        del self._starts[at]
        del self._claims[at]
        self._last = None

    def name(self, address: int) -> str:
        claim = self._find(address)
        return claim.name if claim is not None else "unclaimed"

    def _find(self, address: int) -> _MmioClaim | None:
        last = self._last
        if last is not None and last.base <= address < last.end:
            return last
        at = bisect_right(self._starts, address) - 1
        if at >= 0:
            claim = self._claims[at]
            if address < claim.end:
                self._last = claim
                return claim
        return None

    def read(self, address: int, size: int) -> int:
        claim = self._find(address)
        if claim is not None:
            offset = address - claim.base
            if size <= claim.widest and not offset & (size - 1):
                narrowest = claim.narrowest
                if size >= narrowest:
                    return claim.device.mmio_read(offset, size) & _MASK[size]
                inside = offset & (narrowest - 1)
                return (claim.device.mmio_read(offset - inside, narrowest) >> (8 * inside)) & _MASK[size]
        elif size == 1 or self._find(address + size - 1) is None:
            self._log.write_limited("unimp", f"unclaimed memory read {address:#x} size {size}")
            return _MASK[size]
        half = size // 2
        return self.read(address, half) | self.read(address + half, half) << (8 * half)

    def write(self, address: int, size: int, value: int) -> None:
        claim = self._find(address)
        if claim is not None:
            offset = address - claim.base
            if size <= claim.widest and not offset & (size - 1):
                if size >= claim.narrowest:
                    claim.device.mmio_write(offset, size, value & _MASK[size])
                else:
                    self._log.write_limited(
                        "guest_errors", f"{claim.name}: write of {size} bytes at offset {offset:#x} ignored"
                    )
                return
        elif size == 1 or self._find(address + size - 1) is None:
            self._log.write_limited("unimp", f"unclaimed memory write {address:#x} size {size} value {value:#x}")
            return
        half = size // 2
        self.write(address, half, value & _MASK[half])
        self.write(address + half, half, value >> (8 * half))
