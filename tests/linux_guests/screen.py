"""Looks at a guest's text screen and types at its keyboard through an emulator's monitor, pyemu's or QEMU's."""

import re
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.linux_guests.console import Console, ConsoleError

TEXT_MEMORY, COLUMNS, ROWS = 0xB8000, 80, 25
KEY_SECONDS = 0.12  # QEMU holds each key for 100 ms
_NAMES = {" ": "spc", "\n": "ret", "-": "minus", ".": "dot", "/": "slash", "=": "equal", "_": "shift-minus"}
_CELLS = re.compile(r"^[0-9a-f]{16}:((?: 0x[0-9a-f]{4})+)", re.MULTILINE)
REPLY_SECONDS = 20.0


class Screen:
    """An emulator whose monitor is on a pseudo-terminal; leave the with-block and it is gone."""

    def __init__(self, command: Sequence[str | Path]) -> None:
        self._console = Console([*command, "-display", "none", "-serial", "null", "-monitor", "stdio"])

    def __enter__(self) -> Self:
        self._console.expect(r"\) $", REPLY_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._console.close()

    def lines(self) -> list[str]:
        """What the screen shows."""
        before = len(self._console.text)
        self._console.send(f"xp /{ROWS * COLUMNS}xh {TEXT_MEMORY:#x}\n")
        last = TEXT_MEMORY + 2 * (ROWS * COLUMNS - 8)
        self._console.expect(rf"^{last:016x}:[^\n]*\n\(\w+\) $", REPLY_SECONDS)
        rows = _CELLS.findall(self._console.text[before:])
        text = "".join(chr(int(cell, 16) & 0xFF) for row in rows for cell in row.split())
        return [text[at : at + COLUMNS].replace("\0", " ").rstrip() for at in range(0, len(text), COLUMNS)]

    def expect(self, pattern: str, seconds: float) -> re.Match[str]:
        """Waits until a line of the screen matches."""
        deadline = time.monotonic() + seconds
        while True:
            shown = "\n".join(self.lines())
            if match := re.search(pattern, shown, re.MULTILINE):
                return match
            if time.monotonic() > deadline:
                raise ConsoleError(f"no {pattern!r} within {seconds:g} s; the screen shows:\n{shown}")
            time.sleep(0.2)

    def press(self, *keys: str) -> None:
        """Presses keys, one after another, by their names in the monitor."""
        for key in keys:
            self._console.send(f"sendkey {key}\n")
            self._console.expect(r"\(\w+\) $", REPLY_SECONDS)
            time.sleep(KEY_SECONDS)

    def type(self, text: str) -> None:
        """Types lower-case text."""
        self.press(*(_NAMES.get(character, character) for character in text))

    def finish(self, seconds: float) -> int:
        """Waits for the emulator to end by itself and returns its status."""
        return self._console.finish(seconds)
