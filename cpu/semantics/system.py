"""System instructions: I/O, interrupts, control and debug registers, MSRs, CPUID, time, caches, system calls, FXSAVE.

Mostly rows over mechanism, which checks privilege and modes itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyemu.cpu import control_registers as cr
from pyemu.cpu import cpuid as cpuid_model
from pyemu.cpu import flag_changes, fxsave, msr, outside, ports, syscalls, virtual8086, xstate
from pyemu.cpu import flags as fl
from pyemu.cpu.decode import record as rc
from pyemu.cpu.instruction import GP, READ, UD, WRITE, Instruction
from pyemu.cpu.ops import Operand, op
from pyemu.cpu.state import CC_DST, CC_SRC, CPL, FLAGS, HALTED, ICOUNT, MONITORED, RAX, RCX, RDX, SHADOW, TSC_AUX, State
from pyemu.cpu.values import Value

END: dict[str, Any] = {"ends_block": True}


# ---- ports ---------------------------------------------------------------------------------------------------
def _port(i: Instruction, operand: Operand) -> Value:
    return i.read(operand) if operand.kind == "imm" else i.gpr(RDX, 16)


@op("E4", "AL,Ib")
@op("E5", "eAX,Ib")
@op("EC", "AL,DX")
@op("ED", "eAX,DX")
def in_(i: Instruction, dst: Operand, port: Operand) -> None:
    i.call(ports.port_in, _port(i, port), dst.size)
    i.write(dst, i.value(dst.width))


@op("E6", "Ib,AL")
@op("E7", "Ib,eAX")
@op("EE", "DX,AL")
@op("EF", "DX,eAX")
def out(i: Instruction, port: Operand, src: Operand) -> None:
    i.call(ports.port_out, _port(i, port), src.size, i.read(src))


# ---- interrupt flag --------------------------------------------------------------------------------------------
@op("FA")
def cli(i: Instruction) -> None:
    """#GP(0) if CPL > IOPL, unless VME or PVI gives the program VIF instead (SDM 2, CLI)."""
    refused, word = virtual8086.refused(i), i.state(FLAGS)
    i.unlikely(refused)
    virtual = refused & virtual8086.virtual(i)
    i.fault_if(refused & ~virtual, GP)
    i.set_state(FLAGS, virtual.select(word & ~fl.VIF, word & ~fl.IF))


@op("FB", **END)
def sti(i: Instruction) -> None:
    """As CLI. If IF was 0, interrupts stay off for one more instruction."""
    refused, word = virtual8086.refused(i), i.state(FLAGS)
    i.unlikely(refused)
    virtual = refused & virtual8086.virtual(i)
    i.fault_if(refused & (~virtual | (word & fl.VIP).ne(0)), GP)
    was_on = (word & fl.IF).ne(0)
    i.set_state(FLAGS, word | virtual.select(i.const(fl.VIF, 64), i.const(fl.IF, 64)))
    i.set_state(SHADOW, (was_on | virtual).select(i.state(SHADOW), i.state(ICOUNT) + 2))


@op("F4", **END)
def hlt(i: Instruction) -> None:
    i.privileged()
    i.set_state(HALTED, i.const(1, 64))


def _supervisor_only(i: Instruction, allowed: int) -> None:
    """#UD unless CPL is 0; #GP(0) for extensions in ECX that are not there."""
    i.fault_if(i.state(CPL).ne(0), UD)
    i.fault_if((i.gpr(RCX, 32) & ~allowed & 0xFFFFFFFF).ne(0), GP)


@op("0F 01 C8", feature="monitor", **END)
def monitor(i: Instruction) -> None:
    """Arm MWAIT. The address is looked at as by a load of a byte."""
    _supervisor_only(i, 0)
    i.load(i.linear(i.wrap_address(i.gpr(RAX, 64)), 1, READ), 8)
    i.set_state(MONITORED, i.const(1, 64))


@op("0F 01 C9", feature="monitor", **END)
def mwait(i: Instruction) -> None:
    """Wait as HLT does, unless an event came since MONITOR: its handler may have written what is waited for. Masked
    interrupts that are to end the wait (ECX bit 0) don't let it begin; it may end at any time (SDM 3, 8.10.4)."""
    _supervisor_only(i, 1)
    masked = i.gpr(RCX, 8).bit(0) & (i.state(FLAGS) & fl.IF).eq(0)
    i.set_state(HALTED, masked.select(i.const(0, 64), i.state(MONITORED)))
    i.set_state(MONITORED, i.const(0, 64))


@op("NP 0F 01 CA", feature="smap", name="clac", extra=(0,), **END)
@op("NP 0F 01 CB", feature="smap", name="stac", extra=(1,), **END)
def set_ac(i: Instruction, value: int) -> None:
    i.call(flag_changes.set_ac, value)


# ---- control and debug registers ------------------------------------------------------------------------------
@op("0F 20 /r", "Rq,Cq", modes="64", name="mov", extra=(cr.read_cr,))
@op("0F 20 /r", "Rd,Cd", modes="legacy", name="mov", extra=(cr.read_cr,))
@op("0F 21 /r", "Rq,Dq", modes="64", name="mov", extra=(cr.read_dr,))
@op("0F 21 /r", "Rd,Dd", modes="legacy", name="mov", extra=(cr.read_dr,))
def mov_from(i: Instruction, dst: Operand, src: Operand, function: Callable[[State, int], int]) -> None:
    i.call(function, i.number(src))
    i.write(dst, i.value(dst.width))


@op("0F 22 /r", "Cq,Rq", modes="64", name="mov", extra=(cr.write_cr,), **END)
@op("0F 22 /r", "Cd,Rd", modes="legacy", name="mov", extra=(cr.write_cr,), **END)
@op("0F 23 /r", "Dq,Rq", modes="64", name="mov", extra=(cr.write_dr,), **END)
@op("0F 23 /r", "Dd,Rd", modes="legacy", name="mov", extra=(cr.write_dr,), **END)
def mov_to(i: Instruction, dst: Operand, src: Operand, function: Callable[[State, int, int], int]) -> None:
    i.call(function, i.number(dst), i.read(src))


@op("0F 01 /4", "Rv")
@op("0F 01 /4", "Mw")
def smsw(i: Instruction, dst: Operand) -> None:
    i.call(cr.smsw)
    i.write(dst, i.value(dst.width))


@op("0F 01 /6", "Ew", **END)
def lmsw(i: Instruction, src: Operand) -> None:
    i.call(cr.privileged)  # before a fault of the operand
    i.call(cr.lmsw, i.read(src))


@op("0F 01 /7", "M", modes="64", extra=(64,), **END)
@op("0F 01 /7", "M", modes="legacy", extra=(32,), **END)
def invlpg(i: Instruction, page: Operand, width: int) -> None:
    linear = i.offset(page) + i.address_register(rc.SEGMENT_BASE)  # no limit or canonical check
    i.call(cr.invlpg, linear.trunc(width))


@op("66 0F 38 82 /r", "Gq,Mdq", modes="64", feature="invpcid", **END)
@op("66 0F 38 82 /r", "Gd,Mdq", modes="legacy", feature="invpcid", **END)
def invpcid(i: Instruction, kind: Operand, descriptor: Operand) -> None:
    i.call(cr.invpcid, i.read(kind), i.address(descriptor))


# ---- instructions without operands that are all mechanism --------------------------------------------------------
def mechanism(i: Instruction, function: Callable[[State], int]) -> None:
    """Nothing but a call."""
    i.call(function)


_PLAIN: tuple[tuple[str, str, Callable[[State], int], dict[str, Any]], ...] = (
    ("0F 06", "clts", cr.clts, END),
    ("0F 30", "wrmsr", msr.wrmsr, END),
    ("0F 31", "rdtsc", cr.rdtsc, {}),
    ("0F 32", "rdmsr", msr.rdmsr, {}),
    ("0F 33", "rdpmc", cr.rdpmc, {}),
    ("0F A2", "cpuid", cpuid_model.cpuid, {}),
    ("NP 0F 01 D0", "xgetbv", xstate.xgetbv, {"feature": "xsave"}),
    ("NP 0F 01 D1", "xsetbv", cr.xsetbv, {"feature": "xsave", **END}),
    ("NP 0F 01 EE", "rdpkru", cr.rdpkru, {"feature": "pku"}),
    ("NP 0F 01 EF", "wrpkru", cr.wrpkru, {"feature": "pku"}),
    ("0F 01 F8", "swapgs", syscalls.swapgs, {"modes": "64"}),
    ("0F 01 F9", "rdtscp", cr.rdtscp, {"feature": "rdtscp"}),
)
for _encoding, _name, _function, _static in _PLAIN:
    op(_encoding, name=_name, extra=(_function,), **_static)(mechanism)


@op("0F 08", name="invd")
@op("0F 09", name="wbinvd")
def privileged_nop(i: Instruction) -> None:
    """There are no caches to write back."""
    i.privileged()


# ---- system calls ----------------------------------------------------------------------------------------------
FAR: dict[str, Any] = {"ends_block": True, "sets_rip": True, "flags": "m"}


@op("0F 05", **FAR)
def syscall(i: Instruction) -> None:
    i.call(syscalls.syscall, i.next_rip())
    i.jump(i.value())


@op("NP 0F 01 C1", name="vmcall", rare=True, **END)
@op("0F 01 D9", name="vmmcall", rare=True, **END)
def hypercall(i: Instruction) -> None:
    i.call(syscalls.hypercall, i.next_rip())


@op("0F 07", sizes=(2, 4, 8), **FAR)
def sysret(i: Instruction) -> None:
    i.call(syscalls.sysret, i.size)
    i.jump(i.value())


@op("0F 34", **FAR)
def sysenter(i: Instruction) -> None:
    i.call(syscalls.sysenter)
    i.jump(i.value())


@op("0F 35", sizes=(2, 4, 8), **FAR)
def sysexit(i: Instruction) -> None:
    i.call(syscalls.sysexit, i.size)
    i.jump(i.value())


# ---- caches and ordering ------------------------------------------------------------------------------------------
@op("NP 0F AE /5", "Rd", name="lfence", feature="sse2")
@op("NP 0F AE /6", "Rd", name="mfence", feature="sse2")
@op("NP 0F AE /7", "Rd", name="sfence", feature="sse")
def fence(i: Instruction, unused: Operand) -> None:
    """Accesses happen in program order anyway."""


@op("NP 0F AE /7", "Mb", feature="clflush")
@op("66 0F AE /7", "Mb", feature="clflushopt", name="clflushopt")
@op("66 0F AE /6", "Mb", feature="clwb", name="clwb")
def clflush(i: Instruction, line: Operand) -> None:
    i.load(i.address(line), 8)  # no cache, but the faults of a load


# ---- random numbers, processor number ---------------------------------------------------------------------------
@op("NP 0F C7 /6", "Rv", flags="w", feature="rdrand", name="rdrand")
@op("66 0F C7 /6", "Rv", flags="w", feature="rdrand", name="rdrand")
@op("NP 0F C7 /7", "Rv", flags="w", feature="rdseed", name="rdseed")
@op("66 0F C7 /7", "Rv", flags="w", feature="rdseed", name="rdseed")
def random(i: Instruction, dst: Operand) -> None:
    """There is always a number: CF is set, the other flags cleared."""
    i.call(outside.random)
    i.write(dst, i.value(dst.width))
    i.set_state(CC_DST, i.const(1, 64))
    i.set_state(CC_SRC, i.const(fl.CF, 64))


@op("F3 0F C7 /7", "Rq", feature="rdpid", modes="64")
@op("F3 0F C7 /7", "Rd", feature="rdpid", modes="legacy")
def rdpid(i: Instruction, dst: Operand) -> None:
    i.write(dst, i.state(TSC_AUX, dst.width))


# ---- saving floating-point and vector state ----------------------------------------------------------------------
Save = Callable[[State, int, int], int]


def save_area(i: Instruction, area: Operand, function: Save, size: int, access: int) -> None:
    how = i.record_field(rc.PACKED, rc.RFLAGS_SHIFT, 8) & rc.REX_W
    if size == LEGACY_AREA:
        how = how | i.memory_access() << fxsave.ACCESS_AT
    i.call(function, i.address(area, access, size=size), how)


def supervisor_area(i: Instruction, area: Operand, function: Save, access: int) -> None:
    i.call(fxsave.kernel_only)
    save_area(i, area, function, XSAVE_AREA, access)


LEGACY_AREA, XSAVE_AREA = 512, 576  # SDM 1, 13.4
_AREAS: tuple[tuple[str, str, str, Save, int, int], ...] = (
    ("NP 0F AE /0", "fxsave", "fxsr", fxsave.fxsave, LEGACY_AREA, WRITE),
    ("NP 0F AE /1", "fxrstor", "fxsr", fxsave.fxrstor, LEGACY_AREA, READ),
    ("NP 0F AE /4", "xsave", "xsave", fxsave.xsave, XSAVE_AREA, WRITE),
    ("NP 0F AE /5", "xrstor", "xsave", fxsave.xrstor, XSAVE_AREA, READ),
    ("NP 0F AE /6", "xsaveopt", "xsaveopt", fxsave.xsaveopt, XSAVE_AREA, WRITE),
    ("NP 0F C7 /4", "xsavec", "xsavec", fxsave.xsavec, XSAVE_AREA, WRITE),
)
for _encoding, _name, _feature, _save, _size, _access in _AREAS:
    op(_encoding, "M", name=_name, feature=_feature, extra=(_save, _size, _access), **END)(save_area)
op("NP 0F C7 /3", "M", name="xrstors", feature="xsaves", extra=(fxsave.xrstors, READ), **END)(supervisor_area)
op("NP 0F C7 /5", "M", name="xsaves", feature="xsaves", extra=(fxsave.xsaves, WRITE), **END)(supervisor_area)
