"""docs/coverage.md is what coverage.py says, and no row is without an outside judge."""

from __future__ import annotations

import pytest

from tests.differential import coverage


@pytest.mark.slow  # every new row changes it
def test_document_is_fresh(request: pytest.FixtureRequest) -> None:
    """`--regenerate` writes it."""
    text = coverage.document()
    if request.config.getoption("--regenerate"):
        coverage.PATH.write_text(text, encoding="utf-8")
    assert coverage.PATH.read_text(encoding="utf-8") == text, "stale: run this test with --regenerate"


@pytest.mark.slow
def test_every_row_has_met_an_outside_judge() -> None:
    alone = [f"{row.encoding} {row.name}" for row, judges in coverage.judged_rows() if not judges]
    assert not alone, alone
