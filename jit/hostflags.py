"""What the host's processor can do, as Linux names it: cheap enough for every start, so without LLVM."""

from __future__ import annotations

from functools import cache

FIRST_PROCESSOR = 8192  # bytes of /proc/cpuinfo that hold the first processor's description


@cache
def read() -> frozenset[str]:
    """The flags of the first processor."""
    with open("/proc/cpuinfo") as info:
        for line in info.read(FIRST_PROCESSOR).splitlines():
            if line.startswith("flags"):
                return frozenset(line.split()[2:])
    return frozenset()
