"""The host's processor, for tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.differential.host import Host


@pytest.fixture
def host() -> Iterator[Host]:
    """A judge for one test."""
    judge = Host()
    yield judge
    judge.close()
