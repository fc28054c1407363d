"""SYSCALL, SYSRET, SYSENTER, SYSEXIT and SWAPGS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pyemu.cpu import flags as fl
from pyemu.cpu import mode
from pyemu.cpu import syscalls as sc
from pyemu.cpu.faults import GP, UD
from pyemu.cpu.state import (
    CPL,
    CS,
    CSTAR,
    EFER,
    FAULT_ERROR,
    FAULT_VECTOR,
    FLAGS,
    GPR,
    GS,
    KERNEL_GS_BASE,
    LSTAR,
    M64,
    MODE,
    R11,
    RCX,
    RDX,
    RIP,
    RSP,
    SEG_ATTR,
    SEG_BASE,
    SEG_LIMIT,
    SEG_SEL,
    SFMASK,
    SS,
    STAR,
    SYSENTER_CS,
    SYSENTER_EIP,
    SYSENTER_ESP,
    VALUE,
)  # fmt: skip
from tests.cpu import system_setup as setup

Twin = Callable[[Any], Callable[..., int]]
KERNEL = 0xFFFF_8000_0000_1000


def with_syscalls(m: setup.Machine) -> setup.Machine:
    m.s[EFER] |= mode.EFER_SCE
    m.s[STAR] = 0x0020_0010_0000_7000
    m.s[LSTAR], m.s[CSTAR], m.s[SFMASK] = KERNEL, KERNEL + 0x100, fl.IF | fl.TF | fl.CF
    m.s[SYSENTER_CS], m.s[SYSENTER_EIP], m.s[SYSENTER_ESP] = 0x41, KERNEL, KERNEL + 0x800
    return m


def segments(m: setup.Machine) -> tuple[int, ...]:
    s = m.s
    return s[SEG_SEL + CS], s[SEG_ATTR + CS], s[SEG_SEL + SS], s[SEG_ATTR + SS]


def fault(m: setup.Machine) -> tuple[int, int]:
    return m.s[FAULT_VECTOR], m.s[FAULT_ERROR]


def test_syscall_and_sysret(twin: Twin) -> None:
    m = with_syscalls(setup.long_user())
    image = fl.IF | fl.CF | fl.ZF | fl.DF | 2
    fl.set_eflags(m.s, image | fl.RF, M64)
    m.s[SEG_BASE + SS] = m.s[SEG_LIMIT + SS] = 7
    assert twin(sc.syscall)(m.s, setup.CODE + 2) == 0
    assert (m.s[GPR + RCX], m.s[GPR + R11]) == (setup.CODE + 2, image)
    assert (m.s[RIP], m.s[VALUE], m.s[CPL]) == (KERNEL, KERNEL, 0)
    assert fl.eflags(m.s) == fl.ZF | fl.DF | 2
    assert segments(m) == (0x10, 0xA09B, 0x18, 0xC093)
    assert (m.s[SEG_BASE + SS], m.s[SEG_LIMIT + SS]) == (0, 0xFFFFFFFF)
    assert m.s[GPR + RSP] == setup.USER_STACK
    m.s[GPR + R11] = M64
    assert twin(sc.sysret)(m.s, 8) == 0
    assert (m.s[RIP], m.s[CPL]) == (setup.CODE + 2, 3)
    assert segments(m) == (0x33, 0xA0FB, 0x2B, 0xC0F3)
    assert fl.eflags(m.s) == 0x3C7FD7
    assert m.s[MODE] & mode.CODE64


def test_compatibility_mode(twin: Twin) -> None:
    m = with_syscalls(setup.compatibility_user())
    assert twin(sc.syscall)(m.s, setup.CODE + 2) == 0
    assert m.s[RIP] == KERNEL + 0x100
    assert m.s[MODE] & mode.CODE64
    m.s[GPR + RCX] = 0x1_0000_1234
    assert twin(sc.sysret)(m.s, 4) == 0
    assert m.s[RIP] == 0x1234
    assert segments(m) == (0x23, 0xC0FB, 0x2B, 0xC0F3)
    assert m.s[MODE] & (mode.CODE64 | mode.CODE32) == mode.CODE32


def test_outside_long_mode(twin: Twin) -> None:
    m = with_syscalls(setup.protected_user())
    m.s[FLAGS] |= fl.IF
    assert twin(sc.syscall)(m.s, setup.CODE + 2) == 0
    assert (m.s[RIP], m.s[CPL], m.s[FLAGS]) == (0x7000, 0, 2)
    assert segments(m) == (0x10, 0xC09B, 0x18, 0xC093)
    assert twin(sc.sysret)(m.s, 4) == 0
    assert (m.s[RIP], m.s[CPL], m.s[FLAGS]) == (setup.CODE + 2, 3, 2 | fl.IF)


def test_checks(twin: Twin) -> None:
    m = setup.long_user()
    assert twin(sc.syscall)(m.s, 0) == 1
    assert fault(m) == (UD, 0)
    assert twin(sc.sysret)(m.s, 8) == 1
    assert fault(m) == (UD, 0)
    m = with_syscalls(setup.long_user())
    assert twin(sc.sysret)(m.s, 8) == 1
    assert fault(m) == (GP, 0)
    m = with_syscalls(setup.long())
    m.s[GPR + RCX] = 1 << 47
    assert twin(sc.sysret)(m.s, 8) == 1
    assert fault(m) == (GP, 0)
    assert m.s[CPL] == 0
    m = with_syscalls(setup.real())
    assert twin(sc.syscall)(m.s, 0) == 1
    assert fault(m) == (UD, 0)


@pytest.mark.parametrize(
    ("make", "rip", "code"), [(setup.long_user, KERNEL, 0xA09B), (setup.protected_user, KERNEL & 0xFFFFFFFF, 0xC09B)]
)
def test_sysenter(twin: Twin, make: Callable[[], setup.Machine], rip: int, code: int) -> None:
    m = with_syscalls(make())
    m.s[FLAGS] |= fl.IF
    assert twin(sc.sysenter)(m.s) == 0
    assert (m.s[RIP], m.s[GPR + RSP], m.s[CPL], m.s[FLAGS]) == (rip, rip + 0x800, 0, 2)
    assert segments(m) == (0x40, code, 0x48, 0xC093)
    m.s[GPR + RDX], m.s[GPR + RCX] = 0x1_0000_1111, 0x1_0000_2222
    assert twin(sc.sysexit)(m.s, 4) == 0
    assert (m.s[RIP], m.s[GPR + RSP], m.s[CPL]) == (0x1111, 0x2222, 3)
    assert segments(m) == (0x53, 0xC0FB, 0x5B, 0xC0F3)


def test_sysexit_to_64_bit_code(twin: Twin) -> None:
    m = with_syscalls(setup.long())
    m.s[GPR + RDX], m.s[GPR + RCX] = 0x1_0000_1111, 1 << 47
    assert twin(sc.sysexit)(m.s, 8) == 1
    assert fault(m) == (GP, 0)
    m.s[GPR + RCX] = 0x1_0000_2222
    assert twin(sc.sysexit)(m.s, 8) == 0
    assert (m.s[RIP], m.s[GPR + RSP]) == (0x1_0000_1111, 0x1_0000_2222)
    assert segments(m) == (0x63, 0xA0FB, 0x6B, 0xC0F3)


def test_sysenter_and_sysexit_checks(twin: Twin) -> None:
    m = setup.long_user()
    m.s[SYSENTER_CS] = 3  # null
    assert twin(sc.sysenter)(m.s) == 1
    assert fault(m) == (GP, 0)
    m = with_syscalls(setup.long_user())
    assert twin(sc.sysexit)(m.s, 8) == 1
    assert fault(m) == (GP, 0)
    m = with_syscalls(setup.real())
    assert twin(sc.sysenter)(m.s) == 1
    assert fault(m) == (GP, 0)


def test_swapgs(twin: Twin) -> None:
    m = setup.long()
    m.s[SEG_BASE + GS], m.s[KERNEL_GS_BASE] = 1, KERNEL
    assert twin(sc.swapgs)(m.s) == 0
    assert (m.s[SEG_BASE + GS], m.s[KERNEL_GS_BASE]) == (KERNEL, 1)
    m = setup.long_user()
    assert twin(sc.swapgs)(m.s) == 1
    assert fault(m) == (GP, 0)
    m = setup.compatibility()
    assert twin(sc.swapgs)(m.s) == 1
    assert fault(m) == (UD, 0)
