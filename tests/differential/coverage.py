"""The coverage table: for each row of the operand table, which outside judge has met it. It is docs/coverage.md.

It is made from the table, the reviewed lists and the sources of the tests, and the same on every machine: what a judge
meets in the tests of this repository, not what it met in some run. `pytest tests/differential/test_coverage.py
--regenerate` writes it anew. Not here: the judging itself (test_generated.py and its neighbours).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from functools import cache
from pathlib import Path

from pyemu.cpu.ops import ROWS, Form, Row, parse_encoding
from tests.cpu.semantics.machines import forms
from tests.differential import reviewed, save_areas, test_private_results
from tests.differential.encoder import NotEncodable
from tests.differential.generator import Generator
from tests.differential.test_system_instructions import TOLERATED, judged
from tests.guests.topics import TOPICS
from tests.guests.topics.known import NOT_ON_BOCHS, NOT_ON_QEMU

ROOT = Path(__file__).resolve().parents[2]
PATH = ROOT / "docs" / "coverage.md"
# Features that the host's processor (Zen 4) lacks.
HOST_LACKS = frozenset({"pku", "la57"})


def _topics(lacking: Collection[str]) -> tuple[str, ...]:
    """The sources of the topic guests that a judge runs, and what they share."""
    folder = "tests/guests/topics/"
    return (folder + "*.asm", folder + "program.py", *(f"{folder}{name}.py" for name in TOPICS if name not in lacking))


# Tests that run on another judge than the host, and their sources.
OTHERS = {
    "QEMU": _topics(NOT_ON_QEMU),
    "Bochs": _topics(NOT_ON_BOCHS),
    "Unicorn": ("tests/cpu/test_segments_unicorn.py", "tests/cpu/semantics/test_modes_in_unicorn.py"),
}
# Instructions that meet the host in tests of their own, which compare what can be: the area, or all but random bits.
APART = frozenset((*save_areas.OPCODES, *test_private_results.RANDOM, *test_private_results.PROCESSOR))
MAPS = {0: "One-byte opcodes", 1: "0F", 2: "0F 38", 3: "0F 3A"}
_ALIASES = {"jmpf": "ljmp|jmp far|retf", "callf": "lcall|call far", "iret": "iretq|iretd|iret", "mov": "mov",
            "sysret": "SYSRET", "rdpkru": "RDPKRU", "wrpkru": "WRPKRU"}  # fmt: skip


@cache
def _sources(judge: str) -> str:
    """The text of the tests that run on a judge."""
    paths = [path for pattern in OTHERS[judge] for path in sorted(ROOT.glob(pattern)) if path.suffix in (".py", ".asm")]
    return "\n".join(path.read_text(encoding="utf-8") for path in paths)


def _named(judge: str, name: str) -> bool:
    """Do these tests name an instruction?"""
    pattern = _ALIASES.get(name, re.escape(name))
    return bool(re.search(rf"(?<![\w.])({pattern})(?![\w])", _sources(judge)))


_GENERATOR = Generator(0, pools=False)  # any instance of a form will do


@cache
def _encodable(form: Form, bits: int) -> bool:
    try:
        _GENERATOR.instruction(form, bits, 0x1000)
    except NotEncodable:
        return False
    return True


def _on_host(form: Form) -> bool:
    """Do the generated cases for the host contain a form?"""
    if form.row.name not in APART and reviewed.host_cannot(form) or not HOST_LACKS.isdisjoint(form.feature.split()):
        return False
    return _encodable(form, 64) or _encodable(form, 32)


def judges(row: Row, of_row: list[Form]) -> list[str]:
    """The outside judges of a row."""
    found = ["host"] if any(_on_host(form) for form in of_row) else []
    tolerated = any(re.fullmatch(name, row.name) and not start for name, start, _ in TOLERATED)
    if any(judged(form) for form in of_row) and not tolerated:
        found.append("KVM")
    found += [judge for judge in OTHERS if not found and _named(judge, row.name)]
    return found


def _line(row: Row, found: list[str]) -> str:
    modes = {"any": "", "64": "64-bit", "legacy": "not 64-bit"}[row.modes]
    cells = (
        f"`{row.encoding}`",
        row.operands.replace(",", ", "),
        row.name.upper(),
        row.feature,
        modes,
        ", ".join(found),
    )
    return "| " + " | ".join(cells) + " |"


_HEAD = "| encoding | operands | instruction | feature | modes | judges |\n| --- | --- | --- | --- | --- | --- |"


_PREFACE = """Each row of the operand table (`cpu/semantics/`) with the judges outside of pyemu that it meets:

* **host**: the processor itself runs generated instances, with all of the user-visible state compared
  (`tests/differential/test_generated.py`; of those with VEX and EVEX others every day, all in its long run, and
  many in `tests/cpu/semantics/test_vectors_on_host.py`); FXSAVE and the XSAVE family with their whole areas
  (`tests/differential/test_save_areas.py`), random numbers but for the bits themselves (`test_private_results.py`). A
  processor judges what it has: Zen 4 all that is marked here, others what they share with it;
* **KVM**: /dev/kvm runs generated instances at CPL 0 (`tests/differential/test_system_instructions.py`);
* **QEMU**, **Bochs**, **Unicorn**: a guest or test that names the instruction runs there too (`tests/guests/topics/`,
  `tests/cpu/`).

Where a judge can't be asked, or is wrong, `tests/differential/reviewed.py` says so. What the processor knows and pyemu
lacks is listed in `tests/differential/test_opcode_maps.py`."""


def judged_rows() -> list[tuple[Row, list[str]]]:
    """Each row with its outside judges."""
    by_row: dict[int, list[Form]] = {}
    for form in forms():
        by_row.setdefault(id(form.row), []).append(form)
    return [(row, judges(row, by_row.get(id(row), []))) for row in ROWS]


def document() -> str:
    """The text of docs/coverage.md."""
    table = judged_rows()
    count = Counter(judge for _, found in table for judge in found)
    alone = [(row, found) for row, found in table if not found]
    parts = [
        "# Coverage of the instruction set",
        "Generated by `pytest tests/differential/test_coverage.py --regenerate`; a test fails when it is stale.",
        _PREFACE,
        f"{len(table)} rows, {len(forms())} forms. "
        + ", ".join(f"{judge}: {count[judge]}" for judge in ("host", "KVM", *OTHERS))
        + f", none: {len(alone)}.",
        "## Rows that no outside judge has met",
        _HEAD + "\n" + "\n".join(_line(row, found) for row, found in alone) if alone else "None.",
        "## Known to differ",
        "\n".join(f"* `{name}`: {text}" for name, text in reviewed.OPEN.items()) or "Nothing.",
    ]
    for space, title in (("", ""), ("VEX", "VEX "), ("EVEX", "EVEX ")):
        for number, name in MAPS.items():
            rows = [(r, f) for r, f in table if (e := parse_encoding(r.encoding)).space == space and e.map == number]
            if rows:
                rows.sort(
                    key=lambda item: (parse_encoding(item[0].encoding).opcode, item[0].encoding, item[0].operands)
                )
                parts += [f"## {title}{name}", _HEAD + "\n" + "\n".join(_line(row, found) for row, found in rows)]
    return "\n\n".join(parts) + "\n"
