"""Instructions that fault leave nothing half done, and can be restarted (see restart.py)."""

from __future__ import annotations

import pytest

from pyemu.cpu.ops import Form, build_table
from tests.differential.restart import Bench
from tests.differential.sweep import todays_part

FORMS = build_table().forms
# Forms whose undisturbed run is no plain instruction: it would stop, or leave for elsewhere with another state.
# MASKMOVQ enters MMX state even if its store faults, as on Zen 4.
_LEFT_OUT = frozenset(("hlt", "cpuid", "mwait", "monitor", "maskmovq"))


def forms(bits: int) -> list[Form]:
    """The forms of a mode; outside 64-bit mode only those that 64-bit mode lacks, and the stack and string ones."""
    legacy = ("push", "pop", "call", "ret", "enter", "leave", "movs", "cmps", "stos", "scas", "lods", "ins", "outs")
    chosen = [f for f in FORMS if f.row.name not in _LEFT_OUT and f.row.modes != ("legacy" if bits == 64 else "64")]
    return chosen if bits == 64 else [f for f in chosen if f.row.modes == "legacy" or f.row.name in legacy]


def sweep(backend: str, bits: int, chosen: list[Form]) -> None:
    """Check forms, and say what is wrong with all of them."""
    bench, wrong, faults, checked = Bench(backend, bits), [], 0, 0
    for form in chosen:
        try:
            count = bench.check(form)
        except AssertionError as error:
            wrong.append(str(error).splitlines()[0])
            continue
        checked += count > 0
        faults += count
    print(f"{backend}, {bits} bits: {checked} of {len(chosen)} forms, {faults} faults")
    assert not wrong, f"{len(wrong)} forms:\n" + "\n".join(wrong)
    assert checked > len(chosen) // 4


# Parts of the forms that a quick run checks: what is a second natively is a minute in Python.
QUICK = {"interp": 8, "jit": 4, "reference": 40}


@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("backend", sorted(QUICK))
def test_some_forms(backend: str, bits: int) -> None:
    plain = [form for form in forms(bits) if not form.space]
    sweep(backend, bits, plain[:: QUICK[backend] if bits == 64 else QUICK[backend] // 4])


@pytest.mark.parametrize("backend", sorted(QUICK))
def test_some_vector_forms(backend: str) -> None:
    """Another part of those with VEX and EVEX every day, as each has to be compiled first."""
    sweep(backend, 64, todays_part([form for form in forms(64) if form.space and form.is_memory], 80))


@pytest.mark.long
@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("backend", sorted(QUICK))
def test_all_forms(backend: str, bits: int) -> None:
    sweep(backend, bits, forms(bits))
