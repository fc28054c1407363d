"""Fixtures: a machine whose processor is a fake."""

import pytest

from pyemu import machine as machine_module
from pyemu.machine import Machine
from tests.emu.fakes import FakeAccelerator, spin


@pytest.fixture
def build(monkeypatch, tmp_path):
    """build(step, **options) makes a machine with a boot sector that is never executed."""
    machines = []

    def make(step=spin, **options):
        def accelerator(name, s, host, ram):
            made.fake = FakeAccelerator(s, host, step)
            return made.fake

        monkeypatch.setattr(machine_module, "make_accelerator", accelerator)
        sector = tmp_path / "sector"
        sector.write_bytes(b"\xf4".ljust(510, b"\0") + b"\x55\xaa")
        made = Machine(kernel=str(sector), memory="16M", **options)
        machines.append(made)
        return made

    yield make
    for made in machines:
        made.close()
