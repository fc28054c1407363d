"""Fixtures of the processor tests."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.cpu import twins


@pytest.fixture(params=sorted(twins.TWINS))
def twin(request: pytest.FixtureRequest) -> Callable[[Any], Callable[..., int]]:
    """twin(function): the mechanism function as Python, then again as native code."""
    chosen: Callable[[Any], Callable[..., int]] = twins.TWINS[request.param]
    return chosen
