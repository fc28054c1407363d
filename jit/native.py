"""Primitives that exist in native code only: raw memory, calls of generated code. Their meaning is in lowering.py.

Mechanism code of jit/ (blocks, translator, run loop) uses them; it has no twin in Python, so calling one there is a
mistake.
"""

from __future__ import annotations

from pyemu.cpu.state import State


def _native_only() -> int:
    raise RuntimeError("this primitive exists in native code only")


def peek8(address: int) -> int:
    """The byte at a host address; likewise peek16, peek32, peek64."""
    return _native_only()


def peek16(address: int) -> int:
    return _native_only()


def peek32(address: int) -> int:
    return _native_only()


def peek64(address: int) -> int:
    return _native_only()


def poke8(address: int, value: int) -> int:
    """Store a byte at a host address; likewise poke16, poke32, poke64."""
    return _native_only()


def poke16(address: int, value: int) -> int:
    return _native_only()


def poke32(address: int, value: int) -> int:
    return _native_only()


def poke64(address: int, value: int) -> int:
    return _native_only()


def copy_bytes(destination: int, source: int, length: int) -> int:
    """memcpy between host addresses."""
    return _native_only()


def call_handler(s: State, handler: int, record: int) -> int:
    """Run an interpreter handler on a record."""
    return _native_only()


def call_code(s: State, entry: int, target: int) -> int:
    """Enter translated code through the entry thunk."""
    return _native_only()


def shared_word(s: State, index: int) -> int:
    """A word of State that other threads write, read afresh."""
    return _native_only()


def host_tsc() -> int:
    """The host's time-stamp counter."""
    return _native_only()


def ticks() -> int:
    """host_tsc() for Python to call."""
    return host_tsc()
