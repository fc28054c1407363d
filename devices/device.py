"""What all devices share: the state record with its snapshot and restore, and splitting of wide accesses to byte
ports."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

ALL_ONES = {1: 0xFF, 2: 0xFFFF, 4: 0xFFFF_FFFF, 8: 0xFFFF_FFFF_FFFF_FFFF}
"""What a read of nothing returns: an undriven bus floats high."""

NS_PER_SECOND = 1_000_000_000

MIN_REARM_NS = 20_000
"""A periodic interrupt is never delivered at a higher rate than this: a guest that programs a 1 ns period would
otherwise keep the host busy with nothing but timers. Counters stay exact; only the interrupts coalesce."""


class Device:
    """Base of all devices: `state` is a dataclass of ints, lists and bytes (or nested dataclasses of these)."""

    state: Any

    def snapshot(self) -> dict[str, Any]:
        """The guest-visible state as plain data. Holds no references into the device."""
        return dataclasses.asdict(self.state)

    def restore(self, record: Mapping[str, Any]) -> None:
        """Take over a snapshot. The clock must already stand where it stood when the snapshot was taken."""
        self.refill(record)
        self.resync()

    def refill(self, record: Mapping[str, Any]) -> None:
        """Only the state, once all devices have been restored: settling may have changed it."""
        _fill(self.state, record)

    def resync(self) -> None:
        """Recompute what derives from `state`: cached values, armed timers, levels of output lines."""


_names: dict[type, frozenset[str]] = {}  # of the fields of each kind of state


def _fill(target: Any, record: Mapping[str, Any]) -> None:
    names = _names.get(type(target))
    if names is None:
        names = _names[type(target)] = frozenset(field.name for field in dataclasses.fields(target))
    if names != record.keys():
        raise ValueError(f"snapshot of {type(target).__qualname__} has other fields: {sorted(names ^ set(record))}")
    for name, value in record.items():
        if type(value) is int:  # nearly all of them
            setattr(target, name, value)
            continue
        current = getattr(target, name)
        if dataclasses.is_dataclass(current):
            _fill(current, value)
        elif isinstance(current, list) and current and dataclasses.is_dataclass(current[0]):
            if len(current) != len(value):
                raise ValueError(f"snapshot of {type(target).__qualname__}.{name} has another length")
            for item, item_record in zip(current, value, strict=True):
                _fill(item, item_record)
        elif isinstance(current, list):
            current[:] = value  # in place: others may hold a reference to the list
        else:
            setattr(target, name, bytearray(value) if isinstance(value, bytearray) else value)


def read_wide(read_byte: Callable[[int, int], int], offset: int, size: int) -> int:
    """A 2 or 4 byte read of 8-bit ports: the bus splits it into byte cycles, lowest address first."""
    value = 0
    for i in range(size):
        value |= read_byte(offset + i, 1) << (8 * i)
    return value


def write_wide(write_byte: Callable[[int, int, int], None], offset: int, size: int, value: int) -> None:
    """A 2 or 4 byte write of 8-bit ports, lowest address first."""
    for i in range(size):
        write_byte(offset + i, 1, (value >> (8 * i)) & 0xFF)


def nothing() -> None:
    """A callback that nobody has set."""


def nothing_int(_value: int) -> None:
    """Likewise, of one argument."""
