"""ENTER where the stack is narrower than the operands; expectations are what Zen 4 does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pyemu.cpu import mode, segments, stack_frames
from pyemu.cpu.state import GPR, RBP, RSP, SEG_ATTR, SEG_SEL, SS
from tests.cpu import system_setup as setup

Twin = Callable[[Any], Callable[..., int]]


@pytest.mark.parametrize(
    ("size", "level", "esp", "ebp"),
    [
        (4, 0, 0xABCD7FF4, 0xABCD7FFC), (4, 1, 0xABCD7FF0, 0xABCD7FFC), (4, 4, 0xABCD7FE4, 0xABCD7FFC),
        (2, 0, 0xABCD7FF6, 0x12347FFE), (2, 4, 0xABCD7FEE, 0x12347FFE),
    ],
)  # fmt: skip
def test_enter_on_a_16_bit_stack(twin: Twin, size: int, level: int, esp: int, ebp: int) -> None:
    m = setup.protected()
    segments.set_segment(m.s, SS, m.s[SEG_SEL + SS], 0, 0xFFFF, m.s[SEG_ATTR + SS] & ~0xC000)
    mode.update(m.s)
    m.s[GPR + RSP], m.s[GPR + RBP] = 0xABCD8000, 0x12349000
    assert twin(stack_frames.enter)(m.s, size, 8, level) == 0
    assert (m.s[GPR + RSP], m.s[GPR + RBP]) == (esp, ebp)
    if level and size == 4:  # the frame pointer that is pushed is all of the new EBP
        assert m.get((esp & 0xFFFF) + 8, "I") == (ebp,)
