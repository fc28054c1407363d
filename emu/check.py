"""The state of a guest as a small plain record, to be compared with another run's: what differs first, by name.

What a back end keeps for itself is left out: how the lazy flags are written down, the TLB, what an instruction leaves
in scratch words. Of RAM there is a check sum of each page that has changed since the record before.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pyemu.cpu import flags
from pyemu.cpu.state import ICOUNT, LAYOUT, State
from pyemu.memory import PAGE_SIZE
from pyemu.snapshot import is_saved

if TYPE_CHECKING:
    from pyemu.machine import Machine

# Fields of the vCPU that are saved in a snapshot, but in which back ends may differ between two instructions.
_BACK_ENDS_OWN = frozenset(
    "cc_dst cc_src flags fault_error fault_cr2 fault_dr6 tlb tlb_log tlb_log_count large_low large_high"
    " local_high_code stepping aligned_clean rf_count".split()
)
COMPARED = tuple(f for f in LAYOUT.values() if is_saved(f.name) and f.name not in _BACK_ENDS_OWN)
_SHOWN = 6


def registers(s: State) -> dict[str, str]:
    """The vCPU's fields that aren't zero, in hexadecimal, lowest word first; and RFLAGS."""
    found = {"rflags": f"{flags.eflags(s):x}"}
    for field in COMPARED:
        words = [s[n] for n in range(field.index, field.index + field.count)]
        if any(words):
            found[field.name] = " ".join(f"{word:x}" for word in words)
    return found


def take(machine: Machine) -> dict[str, Any]:
    """The record at this moment; the next one's pages are those that change from here on."""
    pages = {}
    for number in machine.tracker.changed():
        pages[f"{int(number):x}"] = zlib.crc32(machine.tracker.page(int(number)))
    machine.tracker.look_from_here()
    return {
        "registers": registers(machine.state),
        "clock": machine.clock.snapshot(),
        "devices": {name: _plain(device.snapshot()) for name, device in machine.board.devices.items()},
        "ram": pages,
    }


def _plain(value: Any) -> Any:
    """As JSON would give it back."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, bytes | bytearray):
        return value.hex()
    return value


def differences(machine: Machine, expected: dict[str, Any]) -> list[str]:
    """What in this machine isn't as recorded, most telling first, as readable lines; the next record begins here."""
    found = take(machine)
    lines = list(_registers(found["registers"], expected["registers"]))
    for name, record in expected["devices"].items():
        lines += _fields(name, found["devices"].get(name), record)
    lines += _fields("clock", found["clock"], expected["clock"])
    lines += _pages(found["ram"], expected["ram"], machine)
    if len(lines) > _SHOWN:
        lines[_SHOWN:] = [f"and {len(lines) - _SHOWN} more"]
    return lines


def _registers(found: dict[str, str], expected: dict[str, str]) -> Iterator[str]:
    for name in sorted(found.keys() | expected.keys(), key=lambda name: name != "gpr"):
        ours, theirs = found.get(name, "0").split(), expected.get(name, "0").split()
        width = max(len(ours), len(theirs))
        ours, theirs = ours + ["0"] * (width - len(ours)), theirs + ["0"] * (width - len(theirs))
        for n, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            if a != b:
                yield f"{_register_name(name, n, width)} is 0x{a}, recorded 0x{b}"


def _register_name(name: str, n: int, width: int) -> str:
    if name == "gpr" and n < 16:
        return ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{k}" for k in range(8, 16)))[n]
    return name if width == 1 else f"{name}[{n}]"


def _fields(name: str, found: Any, expected: Any) -> Iterator[str]:
    """Where two plain records differ."""
    if found == expected:
        return
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in found.keys() | expected.keys():
            yield from _fields(f"{name}.{key}", found.get(key), expected.get(key))
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        for n, (a, b) in enumerate(zip(found, expected, strict=True)):
            yield from _fields(f"{name}[{n}]", a, b)
    else:
        yield f"{name} is {found!s:.200}, recorded {expected!s:.200}"


def _pages(found: dict[str, int], expected: dict[str, int], machine: Machine) -> Iterator[str]:
    for number in sorted(found.keys() | expected.keys(), key=lambda text: int(text, 16)):
        ours = found.get(number)
        if ours is None and machine.ram.is_memory(int(number, 16) * PAGE_SIZE, PAGE_SIZE):
            ours = zlib.crc32(machine.tracker.page(int(number, 16)))
        if number not in expected:
            yield f"memory at {int(number, 16) << 12:#x} has been written, recorded as unchanged"
        elif ours != expected[number]:
            yield f"memory at {int(number, 16) << 12:#x} is different"


def difference_of_states(a: State, b: State) -> list[str]:
    """What a guest could tell apart between two vCPUs, as readable lines."""
    return [line.replace("recorded", "other") for line in _registers(registers(a), registers(b))]


__all__ = ["COMPARED", "ICOUNT", "difference_of_states", "differences", "registers", "take"]
