"""The native accelerator: owns the image, the arenas and the callbacks of one vCPU, and runs it.

`Engine(state, host, ram, mode).run()` is what the machine's run loop calls, on the vCPU's thread; native code runs
without
the GIL and takes it only in callbacks.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from pyemu.cpu.host import CALL_MMIO_READ, CALL_MMIO_WRITE, CALL_PORT_READ, CALL_PORT_WRITE, CALL_SERVICE, Exit, Host
from pyemu.cpu.primitives import SERVICE_NAMES, call_service
from pyemu.cpu.state import (
    EXIT_REQUEST,
    HOST_CALLS,
    ICOUNT,
    M64,
    PAGE_FLAGS,
    RAM_BASE,
    RANGE_COUNT,
    RANGES,
    TLB_MISSES,
    State,
)
from pyemu.jit import hostmem
from pyemu.jit import layout as ly
from pyemu.jit.loaded import native

# Address space for translations, for machines with much memory and with little: only 1 GiB of it lies where 32-bit
# addresses reach, for all machines of a process. What overflows is forgotten and translated anew.
CODE_MOST, CODE_LEAST = 64 << 20, 4 << 20
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64)


def host_ticks_per_ms() -> float:
    """The rate of the host's time-stamp counter, measured for a moment: only statistics need it."""
    kind = ctypes.CFUNCTYPE(ctypes.c_uint64)
    ticks = kind(native().address("pyemu.jit.native.ticks"))
    first, start = ticks(), time.perf_counter()
    time.sleep(0.01)
    return float(ticks() - first) / ((time.perf_counter() - start) * 1e3)


def _place(name: str, a: int) -> str:
    """What a callback is about: the service, the port, or the page."""
    if name == "service":
        return f"service {SERVICE_NAMES[a][1].strip('_')}"
    return f"{name} {a:#x}" if name.startswith("port") else f"{name} {a & ~0xFFF:#x}"


class Engine:
    """Runs one vCPU natively. `mode` is "interp" or "jit"."""

    def __init__(self, state: State, host: Host, ram: memoryview, mode: str = "jit") -> None:
        self.state, self.host, self.mode = state, host, mode
        state.ram, state.host = ram, host
        self.native = native()
        self.error: BaseException | None = None
        self.calls: Counter[str] = Counter()
        self._callbacks: list[object] = []
        self._install_callbacks()
        self._allocate()
        kind = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)
        self._address = ctypes.addressof(state)
        self._run = kind(self.native.address("pyemu.jit.loop.run"))
        three = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64)
        self._written = three(self.native.address("pyemu.jit.blocks.written"))
        self._flush = kind(self.native.address("pyemu.jit.blocks.flush"))
        self._drop = three(self.native.address("pyemu.jit.blocks.drop_linear"))
        self._mark_all = kind(self.native.address("pyemu.cpu.tlb.mark_all"))
        self._flush_tlb = kind(self.native.address("pyemu.cpu.tlb.flush_all"))
        self.flush()

    def _allocate(self) -> None:
        s, image = self.state, self.native.image
        top = max((s[RANGES + 3 * k + 1] for k in range(s[RANGE_COUNT])), default=0)
        pages = -(-top // 4096)
        code = min(max(top // 4, CODE_LEAST), CODE_MOST) // hostmem.PAGE * hostmem.PAGE
        self.arena = hostmem.Array(code * 3 // 2, low=True)  # of records, which the interpreter runs
        self.hash = hostmem.Array(8 * ly.HASH_SIZE)
        self.pages = hostmem.Array(8 * ly.PAGE_WORDS * pages)
        if not s[PAGE_FLAGS]:
            self.page_flags = hostmem.Array(pages)
            s[PAGE_FLAGS] = self.page_flags.address
        s[ly.ARENA] = s[ly.ARENA_NEXT] = self.arena.address
        s[ly.ARENA_END] = self.arena.address + self.arena.size
        s[ly.HASH], s[ly.PAGES], s[ly.PAGE_COUNT] = self.hash.address, self.pages.address, pages
        s[ly.HANDLERS] = self.native.handlers.address
        self.code = hostmem.CodeCache(code)
        self.jump_cache = hostmem.Array(ly.JUMP_CACHE_BYTES)
        self.jump_cache.map[: ly.JUMP_LOG] = b"\xff" * ly.JUMP_LOG  # JUMP_EMPTY
        self.stencils = hostmem.Array(len(image.stencils), low=True)
        self.stencils.map[: len(image.stencils)] = image.stencils
        self.forms = hostmem.Array(len(image.forms))
        self.forms.map[: len(image.forms)] = image.forms
        s[ly.CODE], s[ly.CODE_WRITE], s[ly.CODE_END] = (
            self.code.address, self.code.write_address, self.code.address + self.code.size,
        )  # fmt: skip
        s[ly.STENCILS], s[ly.FORMS], s[ly.JUMP_CACHE] = (
            self.stencils.address, self.forms.address, self.jump_cache.address,
        )  # fmt: skip
        for word, name in (
            (ly.ENTER, "enter"), (ly.THUNK_EXEC, "exec"), (ly.THUNK_LEAVE, "leave"), (ly.THUNK_UNLINKED, "unlinked"),
            (ly.THUNK_PROCEED, "proceed"),
        ):  # fmt: skip
            s[word] = self.native.address(f"thunk.{name}")
        s[ly.USE_CODE] = int(self.mode == "jit")
        assert s[RAM_BASE], "the machine sets RAM_BASE before it makes an engine"

    def flush(self) -> None:
        """Forget all translations."""
        self._flush(self._address)

    def memory_changed(self) -> None:
        """Other memory is at some addresses now: drop the TLB and all that was translated. While the vCPU stands
        still."""
        self._flush_tlb(self._address)
        self.flush()

    def code_hooks_changed(self, spans: Iterable[tuple[int, int]]) -> None:
        """Code at these linear addresses (start, length) is hooked, or no longer: translate it anew. On the vCPU's
        thread, or while it stands still."""
        for start, length in spans:
            self._drop(self._address, start, length)

    def watches_changed(self) -> None:
        """Memory is watched that wasn't, or no longer. Likewise."""
        self._mark_all(self._address)

    def state_replaced(self) -> None:
        """The registers are about to be others: where linear addresses lead, and which jump was taken last, is over."""
        self._flush_tlb(self._address)
        self.state[ly.EXIT_SLOT] = 0

    def written(self, address: int, length: int) -> None:
        """RAM is about to change behind the vCPU's back (DMA, debugger): drop what was translated from it. On the
        vCPU's thread, or while it stands still."""
        end = address + length
        while address < end:
            step = min(end, (address | 0xFFF) + 1) - address
            self._written(self._address, address, step)
            address += step

    # ---- callbacks -----------------------------------------------------------------------------------------
    def _guard(self, name: str, function: Callable[[int, int, int], int | None]) -> object:
        """A callback never raises into native code: the error is kept, and the run stops."""
        calls = self.calls
        counting = bool(os.environ.get("PYEMU_STATS"))

        def callback(_: int, a: int, b: int, c: int) -> int:
            try:
                if counting:
                    calls[_place(name, a)] += 1
                return (function(a, b, c) or 0) & M64
            except BaseException as error:  # also KeyboardInterrupt
                self.fail(error)
                return 0

        return _CALLBACK(callback)

    def fail(self, error: BaseException) -> None:
        """Keep an exception for run() to raise."""
        if self.error is None:
            self.error = error
        self.state[EXIT_REQUEST] = 1

    def _install_callbacks(self) -> None:
        host, s = self.host, self.state
        functions: dict[int, tuple[str, Callable[[int, int, int], int | None]]] = {
            CALL_MMIO_READ: ("mmio read", lambda a, n, _: host.mmio_read(a, n)),
            CALL_MMIO_WRITE: ("mmio write", lambda a, n, v: host.mmio_write(a, n, v)),
            CALL_PORT_READ: ("port read", lambda a, n, _: host.port_read(a, n)),
            CALL_PORT_WRITE: ("port write", lambda a, n, v: host.port_write(a, n, v)),
            CALL_SERVICE: ("service", lambda n, a, b: call_service(s, n, a, b)),
        }
        for number, (name, function) in functions.items():
            callback = self._guard(name, function)
            self._callbacks.append(callback)
            s[HOST_CALLS + number] = ctypes.cast(callback, ctypes.c_void_p).value or 0  # type: ignore[arg-type]

    # ---- running -------------------------------------------------------------------------------------------
    def run(self) -> Exit:
        """Execute until there is a reason to stop; raises what a callback raised."""
        reason = Exit(self._run(self._address))
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return reason

    def statistics(self) -> dict[str, Any]:
        """The tiers' counters: of translation, of what left translated code, and of callbacks into Python by place."""
        s = self.state
        translated = s[ly.STAT_INSTRUCTIONS]
        return {
            "instructions": s[ICOUNT],
            "blocks": s[ly.STAT_BLOCKS],
            "blocks invalidated": s[ly.STAT_INVALIDATED],
            "instructions translated": translated,
            "host bytes per guest instruction": round(s[ly.STAT_CODE_BYTES] / max(1, translated), 1),
            "translation (ms)": round(s[ly.STAT_TRANSLATE_TICKS] / host_ticks_per_ms(), 1),
            "TLB misses": s[TLB_MISSES],
            "slow exits": {
                "handler calls": s[ly.STAT_HANDLER_CALLS],
                "returns to the loop": s[ly.STAT_LOOKUPS],
                "slots linked": s[ly.STAT_CHAINS],
                "faults": s[ly.STAT_FAULTS],
            },
            "callbacks": dict(self.calls.most_common(16)),
        }
