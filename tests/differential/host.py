"""The host's processor as a judge: runs batches of test cases in a child process, so that what they do stays there.

The child (host_child.py) shares one piece of memory with this process: control words, code slots, data pages, records.
Cases that would leave the child's control (system calls) or change what it can't restore are the generator's to avoid.
A case that hangs or kills the child is reported as such, and the child is replaced.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import select
import struct
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tests.differential import case as c
from tests.differential import driver
from tests.differential.batch import BATCH, Batch, Records
from tests.differential.case import Case

CONTROL, CONTROL_SIZE = 0x3800_0000, 0x4000
AT_CODE = CONTROL_SIZE
AT_DATA = AT_CODE + c.CODE_SIZE
AT_READ_ONLY = AT_DATA + c.DATA_SIZE
AT_GIVEN = AT_READ_ONLY + 0x1000
AT_RESULTS = AT_GIVEN + BATCH * c.RECORD
SHARED_SIZE = AT_RESULTS + BATCH * c.RECORD
_LEFT = 16
_READ_ONLY_BYTES = bytes(range(256)) * 16
TIMEOUT = 3.0  # seconds for a batch, which takes milliseconds


@cache
def features() -> frozenset[str]:
    """The host's CPU flags, with Linux's names."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return frozenset(line.split(":")[1].split())
    return frozenset()


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").replace(".", "")


@cache
def executes(feature: str) -> bool:
    """Does this host's processor have CPU features, with QEMU's names and between blanks?"""
    return {_plain(name) for name in feature.split()} <= {_plain(name) for name in features()} | {"lzcnt"}


@cache
def vector_bytes() -> int:
    """How much of a vector register the host's processor has."""
    return 64 if executes("avx512f") else 32 if executes("avx") else 16


@cache
def is_zen4() -> bool:
    """Is this an AMD processor of family 19h with AVX-512? Where the manuals leave room, pyemu does as those do."""
    text = Path("/proc/cpuinfo").read_text()
    family = re.search(r"^cpu family\s*: 25$", text, re.MULTILINE)
    return "AuthenticAMD" in text and family is not None and "avx512f" in features()


class Host:
    """The child process and the memory shared with it."""

    def __init__(self) -> None:
        self.handle = os.memfd_create("pyemu-host-judge")
        os.ftruncate(self.handle, SHARED_SIZE)
        self.shared = mmap.mmap(self.handle, SHARED_SIZE)
        self.put_read_only(_READ_ONLY_BYTES)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.shared))
        self.results = Records(self.address + AT_RESULTS)
        self.child: subprocess.Popen[bytes] | None = None

    def close(self) -> None:
        if self.child is not None:
            self.child.kill()
            self.child.communicate()
            self.child = None
        os.close(self.handle)

    def _start(self) -> subprocess.Popen[bytes]:
        if self.child is None:
            command = [sys.executable, "-m", "tests.differential.host_child", str(self.handle)]
            self.child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(self.handle,)
            )
            if not self._answer(60.0):
                raise RuntimeError("the process for the host's processor doesn't start")
        return self.child

    def _answer(self, timeout: float) -> bool:
        assert self.child is not None and self.child.stdout is not None
        ready, _, _ = select.select([self.child.stdout], [], [], timeout)
        return bool(ready) and bool(self.child.stdout.readline())

    def run(self, cases: Sequence[Case]) -> list[bytes]:
        """The results of up to BATCH cases."""
        results = self.run_batch(Batch.of(cases))
        return [results.row(n) for n in range(len(cases))]

    def run_batch(self, batch: Batch) -> Records:
        """The results of a batch; they stay until the next one."""
        assert batch.count <= BATCH
        self.shared[AT_CODE : AT_CODE + c.CODE_SIZE] = batch.image()
        ctypes.memmove(self.address + AT_GIVEN, batch.given.address, batch.count * c.RECORD)
        first = 0
        while first < batch.count:
            first = self._run_from(first, batch.count)
        driver.call("settle", self.results.address, batch.count)
        return self.results

    def put_read_only(self, page: bytes) -> None:
        """Set what the page that the cases can only read holds."""
        self.shared[AT_READ_ONLY : AT_READ_ONLY + len(page)] = page

    def data(self) -> bytes:
        """All of the data pages, as the last case has left them."""
        return self.shared[AT_DATA : AT_DATA + c.DATA_SIZE]

    def _run_from(self, first: int, end: int) -> int:
        """Run from a case on; returns where to go on, behind a case that the child didn't survive."""
        child = self._start()
        assert child.stdin is not None
        child.stdin.write(f"{first} {end - first}\n".encode())
        child.stdin.flush()
        if self._answer(TIMEOUT):
            return end
        at = end - int(struct.unpack_from("<Q", self.shared, _LEFT)[0])
        hangs = child.poll() is None
        child.kill()
        child.communicate()
        self.child = None
        result = bytearray(c.RECORD)
        struct.pack_into("<Q", result, c.R_VECTOR, c.ENDLESS if hangs else c.DIED)
        self.shared[AT_RESULTS + at * c.RECORD : AT_RESULTS + (at + 1) * c.RECORD] = bytes(result)
        return at + 1


def readable_only() -> bytes:
    """What the read-only page holds."""
    return _READ_ONLY_BYTES
