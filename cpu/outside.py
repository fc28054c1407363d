"""What an instruction gets from outside the machine: random numbers (mechanism).

    random(s) -> VALUE     64 random bits, of the machine's one source, which can be recorded
"""

from __future__ import annotations

from pyemu.cpu.primitives import call_service, service
from pyemu.cpu.state import VALUE, State


def _random(s: State, _a: int, _b: int) -> int:
    return s.host.random_bits()


RANDOM = service(_random)


def random(s: State) -> int:
    """VALUE = random bits."""
    s[VALUE] = call_service(s, RANDOM, 0, 0)
    return 0
