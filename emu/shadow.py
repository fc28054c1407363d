"""Memory between 768 KiB and 1 MiB, where ROM lies over RAM until the host bridge says otherwise.

Each of 13 segments has two bits (the PAM registers of Intel's host bridges; 440FX datasheet 290549, 3.2.18): whether
reads come from RAM or from the ROM, and whether writes go to RAM or nowhere. Firmware copies itself into the RAM
behind it and then makes that read-only, or not. What is read now lies at its place in guest memory, the other
contents wait here, so a processor fetches and reads at full speed in every combination; only writes to RAM that can't
be read are calls. Which bits are where in which chip is in `devices.pci.chipsets`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pyemu.bus import MmioBus
from pyemu.memory import GuestRam, RangeKind

START, END = 0xC0000, 0x100000
SEGMENTS = (*((start, start + 0x4000) for start in range(START, 0xF0000, 0x4000)), (0xF0000, END))
READ_RAM, WRITE_RAM = 1, 2
ALL_RAM = (READ_RAM | WRITE_RAM,) * len(SEGMENTS)
ALL_ROM = (0,) * len(SEGMENTS)
_KINDS = {
    0: RangeKind.ROM,
    READ_RAM: RangeKind.ROM,
    WRITE_RAM: RangeKind.SHADOW,
    READ_RAM | WRITE_RAM: RangeKind.RAM,
}


class ShadowMemory:
    """Starts as plain RAM everywhere. `rom` is what the ROM side shows at the end of the area; nothing else answers
    there, so the rest reads as ones."""

    def __init__(self, ram: GuestRam, mmio: MmioBus, rom: bytes = b"") -> None:
        if len(rom) > END - START:
            raise ValueError(f"a ROM of {len(rom)} bytes doesn't fit below 1 MiB")
        self._ram = ram
        self._mmio = mmio
        self._rom = b"\xff" * (END - START - len(rom)) + rom
        self._behind = memoryview(bytearray(END - START))  # RAM where the ROM is read
        self._claimed: list[int] = []
        self.modes: tuple[int, ...] = ALL_RAM

    def set_modes(self, modes: Sequence[int]) -> None:
        """Rearrange memory; the processor must be told afterwards. On its thread, or while it stands still."""
        for (start, end), old, new in zip(SEGMENTS, self.modes, modes, strict=True):
            if (old ^ new) & READ_RAM:
                self._ram.touch(start, end - start)
                here = self._ram.whole[start:end]
                if new & READ_RAM:
                    here[:] = self._behind[start - START : end - START]
                else:
                    self._behind[start - START : end - START] = here
                    here[:] = self._rom[start - START : end - START]
        self.modes = tuple(modes)
        for base in self._claimed:
            self._mmio.release(base)
        runs = list(self._runs())
        self._ram.set_low(START, END, [run for run in runs if run[2] is not RangeKind.SHADOW])
        self._claimed = [start for start, _, kind in runs if kind is RangeKind.SHADOW]
        for start, end, kind in runs:
            if kind is RangeKind.SHADOW:
                window = _Window(self._behind[start - START : end - START], self._ram.whole[start:end])
                self._mmio.claim(start, end - start, window, widest=8, name="RAM behind ROM", kind=kind)

    def snapshot(self) -> bytes:
        """What can't be seen now."""
        return bytes(self._behind)

    def restore(self, hidden: bytes) -> None:
        """Take over what can't be seen, in the same modes."""
        self._behind[:] = hidden

    def _runs(self) -> Iterator[tuple[int, int, RangeKind]]:
        """Neighbouring segments of a kind, as one."""
        run: tuple[int, int, RangeKind] | None = None
        for (start, end), mode in zip(SEGMENTS, self.modes, strict=True):
            kind = _KINDS[mode]
            if run is not None and run[2] is kind:
                run = run[0], end, kind
                continue
            if run is not None:
                yield run
            run = start, end, kind
        if run is not None:
            yield run


class _Window:
    """The RAM behind a ROM, to which only writes go. Reads that belong to a read-modify-write come here, too."""

    def __init__(self, behind: memoryview, shown: memoryview) -> None:
        self._behind = behind
        self._shown = shown

    def mmio_read(self, offset: int, size: int) -> int:
        return int.from_bytes(self._shown[offset : offset + size], "little")

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        self._behind[offset : offset + size] = value.to_bytes(size, "little")
