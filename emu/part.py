"""What the parts of `Machine` (its base classes) have in common: each knows that it is a Machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from pyemu.machine import Machine


class Part:
    """Base of the bases of `Machine`."""

    @property
    def _machine(self) -> Machine:
        return cast("Machine", self)
