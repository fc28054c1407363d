"""Handlers that are compiled on first use: the guest can't tell, and what was compiled once is found again."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from pyemu import Machine
from pyemu.check import difference_of_states
from pyemu.cpu.ops import Form, build_table
from pyemu.cpu.state import ICOUNT, State
from pyemu.jit import build, elf, emit
from pyemu.jit import image as images
from pyemu.jit.loaded import Native, native
from pyemu.until import Instructions
from tests.differential.lockstep import machines

EAGER_LIMIT = 2850  # handlers that the first start may have to wait for


def forget(code: Native, forms: list[Form]) -> None:
    """Make the handlers of some forms as if nobody had used them yet."""
    for form in forms:
        entry = ctypes.c_uint64.from_address(code.handlers.address + 8 * form.number)
        entry.value = code.address("pyemu.jit.lazy.run_lazy")


def missing(code: Native, forms: list[Form]) -> list[Form]:
    """Those that nobody has used yet."""
    return [form for form in forms if code.handler(form.number) == code.address("pyemu.jit.lazy.run_lazy")]


def history(backend: str) -> list[State]:
    """The states of a machine at every 97th instruction of the self-test."""
    states = []
    with machines([backend], append="selftest", memory=64 << 20) as (machine,):
        while machine.loop.final is None:
            machine.run(until=Instructions(97), timeout=60)
            states.append(State.from_buffer_copy(machine.state))
        assert b"selftest: ok" in machine.output
    return states


@pytest.mark.parametrize("backend", ["interp", "jit"])
def test_same_guest_with_handlers_compiled_on_first_use(
    backend: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The whole self-test, with every third row's handlers missing when it starts: equal counts and states."""
    before = history(backend)
    code = native()
    forms = [form for form in build_table().forms if code.image.groups[form.number] % 3 == 0]
    forget(code, forms)
    monkeypatch.setenv("PYEMU_CACHE", str(tmp_path))
    now = history(backend)
    assert len(now) == len(before) > 100
    for number, (a, b) in enumerate(zip(before, now, strict=True)):
        assert a[ICOUNT] == b[ICOUNT]
        assert not difference_of_states(a, b), f"in state {number}"
    assert 50 < len(missing(code, forms)) < len(forms) - 50
    kept = sorted(path.name for path in tmp_path.glob("lazy-*/*"))
    assert kept == sorted({str(code.image.groups[f.number]) for f in forms if f not in missing(code, forms)})


def test_forms_of_a_row_come_together() -> None:
    """One row's forms share a group; a row that is rare has none in the image."""
    forms, image = build_table().forms, native().image
    for form, before in zip(forms[1:], forms, strict=False):
        same = image.groups[form.number] == image.groups[before.number]
        assert same == (form.row is before.row)
    lazy = image.symbols["pyemu.jit.lazy.run_lazy"]
    assert all((image.handlers[form.number] == lazy) == form.row.lazy for form in forms)


def test_mechanism_that_the_image_lacks_comes_with_the_handlers() -> None:
    """A handler may call what no handler of the image calls."""
    image = native().image
    form = next(f for f in build_table().forms if f.row.name == "add" and f.is_memory)
    needed = {name for name in elf.undefined(emit.compile_handlers([form])) if name.startswith("pyemu.")}
    assert "pyemu.cpu.memory.read" in needed
    known = {name: at for name, at in image.symbols.items() if name not in needed}
    parsed = elf.parse(build.compile_group([form.number], known)[0])
    assert needed <= parsed.symbols.keys()


def test_a_handler_that_cannot_be_compiled_is_an_error_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's exception comes out of run(); nothing is raised into native code."""
    code = native()
    forms = [form for form in build_table().forms if form.row.name == "out"]

    def fail(image: images.Image, first: int) -> tuple[bytes, dict[int, str]]:
        raise MemoryError("no room for handlers")

    with Machine(accelerator="interp", append="selftest", memory="64M") as machine:
        forget(code, forms)
        monkeypatch.setattr(images, "load_group", fail)
        with pytest.raises(RuntimeError, match="no room for handlers"):
            machine.run(until="selftest: ok", timeout=60)


def test_eager_forms_are_bounded() -> None:
    """The first start compiles these; more belong to rows that are `rare`, or the limit is discussed."""
    assert sum(not form.row.lazy for form in build_table().forms) <= EAGER_LIMIT


WARM = """
import ctypes, sys
from pyemu import Machine
from pyemu.jit.loaded import native
code = native()
for form in range(0, len(code.image.handlers), 7):
    entry = ctypes.c_uint64.from_address(code.handlers.address + 8 * code.image.groups[form])
    entry.value = code.address("pyemu.jit.lazy.run_lazy")
with Machine(append="selftest", memory="64M") as machine:
    machine.run(until="selftest: ok", timeout=60)
print(*sorted(m for m in ("llvmlite", "pyemu.cpu.ops") if m in sys.modules))
"""


def test_warm_start_compiles_nothing() -> None:
    """Neither LLVM nor the table of instructions is imported once everything is in the cache."""
    for _ in range(2):
        run = subprocess.run([sys.executable, "-c", WARM], capture_output=True, text=True, timeout=120, check=True)
    assert run.stdout.split() == []
