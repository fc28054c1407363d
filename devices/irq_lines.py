"""Wiring helpers: one output into several inputs, several outputs into one input, a line that can be cut off."""

from collections.abc import Callable

from pyemu.devices.interfaces import IrqLine


class CallbackLine:
    """A line whose level goes to a function, on changes only."""

    __slots__ = ("_callback", "level")

    def __init__(self, callback: Callable[[bool], None]) -> None:
        self._callback = callback
        self.level = False

    def set(self, level: bool) -> None:
        if level != self.level:
            self.level = level
            self._callback(level)


class FanOutLine:
    """One output wired to several inputs, as an ISA interrupt is to both the 8259 and the I/O APIC."""

    __slots__ = ("_lines",)

    def __init__(self, *lines: IrqLine) -> None:
        self._lines = lines

    def set(self, level: bool) -> None:
        for line in self._lines:
            line.set(level)


class SharedLine:
    """Several outputs wired to one input (wired OR): ask `input()` for each source's end."""

    __slots__ = ("_high", "_line")

    def __init__(self, line: IrqLine) -> None:
        self._line = line
        self._high: set[int] = set()

    def input(self) -> IrqLine:
        number = _SharedInput.count = _SharedInput.count + 1
        return _SharedInput(self, number)

    def drive(self, number: int, level: bool) -> None:
        if level:
            self._high.add(number)
        else:
            self._high.discard(number)
        self._line.set(bool(self._high))


class _SharedInput:
    __slots__ = ("_number", "_shared")
    count = 0

    def __init__(self, shared: SharedLine, number: int) -> None:
        self._shared = shared
        self._number = number

    def set(self, level: bool) -> None:
        self._shared.drive(self._number, level)


class GatedLine:
    """A line that passes only while open, as that of the PIT while the HPET doesn't replace it."""

    __slots__ = ("_level", "_line", "is_open")

    def __init__(self, line: IrqLine) -> None:
        self._line = line
        self._level = False
        self.is_open = True

    def set(self, level: bool) -> None:
        self._level = level
        if self.is_open:
            self._line.set(level)

    def set_open(self, is_open: bool) -> None:
        """Closing drives the line low; opening shows the source's level again."""
        self.is_open = is_open
        self._line.set(is_open and self._level)
