"""Code that a change of the page tables replaces, on each back end."""

from pathlib import Path

import pytest

from pyemu import Machine
from tests.guests import build


@pytest.mark.parametrize("accelerator", ["reference", "interp", "jit"])
def test_second_page_of_an_instruction_is_mapped_elsewhere(accelerator: str, tmp_path: Path) -> None:
    """No back end runs bytes that are no longer there."""
    image = tmp_path / "image"
    image.write_bytes(build("remapped_code"))
    with Machine(kernel=str(image), accelerator=accelerator, memory="16M") as machine:
        machine.run(until="\r\n", timeout=60)
        machine.run(until="\r\n", timeout=60)
        assert machine.output.endswith(b"pass\r\n")
