"""Files that are written at the end of a run. What isn't a failure of the run is an OutputError of one line."""

from __future__ import annotations

import json
from typing import Any

from pyemu.config import OutputError
from pyemu.firmware.files import empty, open_output


def check_writable(path: str) -> None:
    """What is to be written at the end of a run is better refused at its begin."""
    try:
        open_output(path).close()
    except OSError as error:
        raise OutputError(f"can't write '{path}': {error.strerror or error}") from error


def write_json(path: str, data: Any) -> None:
    """Plain data, in the place of what was there."""
    try:
        with open_output(path) as file:
            empty(file)
            json.dump(data, file, indent=2)
    except OSError as error:
        raise OutputError(f"can't write '{path}': {error.strerror or error}") from error
