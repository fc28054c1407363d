"""Guests of our own, one per topic: what the manuals say, checked in a guest, on pyemu and on other machines.

Each is a multiboot image that reports a line per check on COM1, "TOPIC.CHECK: pass" or "TOPIC.CHECK: got .., expected
..", and ends through isa-debug-exit at port 0xf4 (status 1: all passed). `python -m tests.guests.topics --report` prints
what pyemu and QEMU say, side by side; `known.py` is the reviewed list of the checks in which QEMU is wrong.
"""

from __future__ import annotations

import functools
from importlib import import_module

from tests.guests.topics.program import Program

TOPICS = (
    "apic",
    "control",
    "debug",
    "exceptions",
    "five_levels",
    "gates",
    "ioapic",
    "paging",
    "paging32",
    "pcid",
    "protection_keys",
    "realmode",
    "segmentation",
    "selfmod",
    "supervisor_keys",
    "syscalls",
    "sysenter",
    "tasks",
    "umip",
    "v86",
    "vme",
    "x2apic",
    "xsave",
    "xsaves",
)


@functools.cache
def program(topic: str) -> Program:
    """The guest of a topic."""
    made = import_module(f"tests.guests.topics.{topic}").program()
    assert isinstance(made, Program)
    return made


@functools.cache
def image(topic: str) -> bytes:
    """Its multiboot image."""
    return program(topic).image()
