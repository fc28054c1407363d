"""Instructions generated from the operand table: each back end against the host's processor.

The seed is fixed here, so CI is steady; PYEMU_SEED=n runs other cases, and a failure names the seed it needs. The long
run (tests/run --long) goes on through seeds until it has done what PYEMU_INSTANCES and PYEMU_DISTINCT say.
"""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Iterator

import pytest

from pyemu.cpu.ops import Form
from tests.cpu.semantics.machines import forms
from tests.differential.host import Host, executes
from tests.differential.progress import Progress
from tests.differential.reviewed import host_cannot, is_open
from tests.differential.subject import Subject
from tests.differential.sweep import Difference, Sweep

SEED = int(os.environ.get("PYEMU_SEED", "1"))
INSTANCES = int(os.environ.get("PYEMU_INSTANCES", 10**8))
DISTINCT = int(os.environ.get("PYEMU_DISTINCT", 10**7))  # instructions
PARTS = 4  # the table in pieces, so that several workers share it
SHOWN = 8
NATIVE_SHARE, REFERENCE_SHARE = 60, 6  # of the rows with VEX and EVEX, one in so many meets the host in each run


def judged_by_host(part: int = 0, parts: int = 1, vectors: bool = False) -> list[Form]:
    """The forms that the host can judge; those with VEX and EVEX, whose handlers take long to build, only if wanted."""
    here = (f for f in forms() if f.number % parts == part and (vectors or not f.space))
    return [f for f in here if not host_cannot(f) and executes(f.feature)]


def new_ones(sweep: Sweep, differences: Iterator[Difference]) -> list[str]:
    """The differences that nobody knows of, one or two of a mnemonic, shrunk."""
    seen: dict[str, int] = {}
    found: list[str] = []
    for d in differences:
        if is_open(d.form):
            continue
        seen[d.form.row.name] = seen.get(d.form.row.name, 0) + 1
        if seen[d.form.row.name] <= 2 and len(found) < SHOWN:
            found.append(str(sweep.shrink(d)))
    if seen:
        found.append(f"all: {seen}")
    return found


@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("part", range(PARTS))
def test_native_back_ends_against_host(host: Host, part: int, bits: int) -> None:
    """Every form that the host can execute: two instances, three states each."""
    sweep = Sweep(host, "host", {"interp": Subject("interp"), "jit": Subject("jit")}, SEED + part)
    found = new_ones(sweep, sweep.run(judged_by_host(part, PARTS), bits, 2, 3))
    assert not found, "\n".join(found)
    assert sweep.cases > 1000


@pytest.mark.parametrize("bits", [64, 32])
def test_reference_against_host(host: Host, bits: int) -> None:
    """Every form once."""
    sweep = Sweep(host, "host", {"reference": Subject("reference")}, SEED)
    found = new_ones(sweep, sweep.run(judged_by_host(), bits, 1, 1))
    assert not found, "\n".join(found)
    assert sweep.cases > 1000


def vector_sample(share: int) -> list[Form]:
    """The forms of one in `share` rows with a VEX or EVEX encoding; which ones depends on the seed. Handlers of rare
    ones are compiled first, about a tenth of a second a row."""
    forms = [f for f in judged_by_host(vectors=True) if f.space]
    rows = list(dict.fromkeys(form.row for form in forms))
    chosen = set(rows[SEED % share :: share])
    return [form for form in forms if form.row in chosen]


@pytest.mark.parametrize(("backends", "share"), [(("interp", "jit"), NATIVE_SHARE), (("reference",), REFERENCE_SHARE)])
def test_vectors_against_host(host: Host, backends: tuple[str, ...], share: int) -> None:
    """A sample of them, in both modes; the long run has all."""
    sweep = Sweep(host, "host", {name: Subject(name) for name in backends}, SEED)
    chosen = vector_sample(share)
    found = [text for bits in (64, 32) for text in new_ones(sweep, sweep.run(chosen, bits, 2, 2))]
    assert not found, "\n".join(found)
    assert sweep.cases > len(chosen)


@pytest.mark.long
def test_long_run(host: Host) -> None:
    """Ten states for each instruction, through both native back ends and, for one in a hundred, the reference."""
    native = {"interp": Subject("interp"), "jit": Subject("jit")}
    reference = Subject("reference")
    judged = judged_by_host(vectors=True)
    progress = Progress("generated")
    found: list[str] = []
    while progress.less("instances", INSTANCES, DISTINCT) and len(found) < 100 * SHOWN:
        seed = progress.next_seed(SEED)
        started = time.monotonic()
        record: dict[str, int | str] = {"seed": seed, "instances": 0, "in reference": 0, "instructions": 0}
        hashes = array("Q")
        wrong: list[str] = []
        for bits in (64, 32):
            sweep = Sweep(host, "host", dict(native), seed)
            wrong += new_ones(sweep, sweep.run(judged, bits, 8, 10))
            small = Sweep(host, "host", {"reference": reference}, seed)
            wrong += new_ones(small, small.run(judged[seed % 10 :: 10], bits, 8, 1))
            hashes += sweep.hashes
            more = {"instances": sweep.cases, "in reference": small.cases, "instructions": len(sweep.hashes)}
            for name, count in more.items():
                record[name] = int(record[name]) + count
        seconds = time.monotonic() - started
        record |= {"differences": len(wrong), "seconds": round(seconds)}
        print(progress.add(record, hashes), f"{int(record['instances']) / seconds:.0f}/s", *wrong, sep="\n", flush=True)
        found += wrong
    assert not found, "\n".join(found)
