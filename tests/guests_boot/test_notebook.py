"""The notebook in docs/, executed: a kernel that KASLR has moved, seen from Python, forwards and backwards."""

from __future__ import annotations

import re

import nbformat
import pytest
from nbclient import NotebookClient

from tests.linux_guests.images import Guests
from tests.packaging.test_layers import ROOT


@pytest.mark.slow
@pytest.mark.xdist_group("linux")
def test_seeing_inside(guests: Guests, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNEL", str(guests.cloud))
    monkeypatch.setenv("INITRD", str(guests.initrd))
    # (nbformat declares itself typed, but read() has no annotations)
    notebook = nbformat.read(ROOT / "docs" / "seeing_inside.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=200, kernel_name="python3").execute()
    shown = ["".join(str(output) for output in cell.outputs) for cell in notebook.cells if cell.cell_type == "code"]
    text = "\n".join(shown)
    start = re.search(r"start_kernel is at (0x\w+)", text)
    assert start and f"breakpoint {start[1]} at instruction" in text, text
    assert "text/html" in shown[2] and "start_kernel" in shown[2], shown[2]
    values = re.search(r"jiffies_64: \[(\d+), (\d+), (\d+)\]", text)
    assert values and int(values[3]) == int(values[2]) + 1 == int(values[1]) + 2, text
    assert "do_timer" in text, text
    back = re.search(r"(\d+) instructions before that it became (\d+)", text)
    assert back and int(back[1]) > 1000 and int(back[2]) == int(values[2]), text
    assert "physical 0x" in text, text
    assert "still here" in shown[-1], shown[-1]
