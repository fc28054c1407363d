"""KVM as a judge: one instruction in any mode and at any privilege, on the virtual processor of /dev/kvm.

A small driver for Linux's ioctls (Documentation/virt/kvm/api.rst): a machine with one vCPU and 256 KiB of memory, whose
registers are set from a pyemu State and read back into one. It runs until HLT, which is where every exception handler
of the test setups leads. Not here: what is run (test_system_instructions.py).
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import signal
import struct
from enum import IntEnum
from pathlib import Path

from pyemu.cpu import flags as fl
from pyemu.cpu.state import (
    CR0,
    CR2,
    CR3,
    CR4,
    CS,
    DS,
    EFER,
    ES,
    FS,
    GDT_BASE,
    GDT_LIMIT,
    GPR,
    GS,
    IDT_BASE,
    IDT_LIMIT,
    LDT_ATTR,
    LDT_BASE,
    LDT_LIMIT,
    LDT_SEL,
    RIP,
    SEG_ATTR,
    SEG_BASE,
    SEG_LIMIT,
    SEG_SEL,
    SS,
    TR_ATTR,
    TR_BASE,
    TR_LIMIT,
    TR_SEL,
    State,
)

DEVICE = Path("/dev/kvm")
_CREATE_VM, _VCPU_MMAP_SIZE, _CREATE_VCPU = 0xAE01, 0xAE04, 0xAE41
_SET_MEMORY, _RUN = 0x4020AE46, 0xAE80
_GET_REGS, _SET_REGS, _GET_SREGS, _SET_SREGS = 0x8090AE81, 0x4090AE82, 0x8138AE83, 0x4138AE84
_SET_EVENTS, _SET_MSRS = 0x4040AEA0, 0x4008AE89
_GET_CPUID, _SET_CPUID = 0xC008AE05, 0x4008AE90
# kvm_regs has RAX RBX RCX RDX RSI RDI RSP RBP R8..R15 RIP RFLAGS
_ORDER = (0, 3, 1, 2, 6, 7, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15)
_SEGMENT = struct.Struct("<QIH10B")  # base limit selector type present dpl db s l g avl unusable padding
_SEGMENTS = (CS, DS, ES, FS, GS, SS)
_IMMEDIATE_EXIT, _EXIT_REASON = 1, 8  # in kvm_run


class Exit(IntEnum):
    """Why KVM_RUN returned (include/uapi/linux/kvm.h)."""

    IO = 2
    HLT = 5
    MMIO = 6
    SHUTDOWN = 8
    FAIL_ENTRY = 9
    INTERNAL_ERROR = 17
    STUCK = 256  # ours: interrupted by the alarm


def available() -> bool:
    """Is there a KVM that this user may use?"""
    return os.access(DEVICE, os.R_OK | os.W_OK)


def _segment(sel: int, base: int, limit: int, attr: int) -> bytes:
    unusable = attr >> 16 & 1
    return _SEGMENT.pack(base, limit, sel, attr & 15, attr >> 7 & 1, attr >> 5 & 3, attr >> 14 & 1, attr >> 4 & 1,
                         attr >> 13 & 1, attr >> 15 & 1, attr >> 12 & 1, unusable, 0)  # fmt: skip


def _attributes(fields: tuple[int, ...]) -> int:
    _, _, _, kind, present, dpl, db, s, long, g, avl, unusable, _ = fields
    if unusable:
        return 1 << 16
    return kind | s << 4 | dpl << 5 | present << 7 | avl << 12 | long << 13 | db << 14 | g << 15


class Kvm:
    """One virtual machine."""

    def __init__(self, size: int) -> None:
        self.fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
        self.vm = fcntl.ioctl(self.fd, _CREATE_VM, 0)
        self.memory = mmap.mmap(-1, size)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        fcntl.ioctl(self.vm, _SET_MEMORY, struct.pack("<IIQQQ", 0, 0, 0, size, address))
        self.vcpu = fcntl.ioctl(self.vm, _CREATE_VCPU, 0)
        length = fcntl.ioctl(self.fd, _VCPU_MMAP_SIZE, 0)
        self.shared = mmap.mmap(self.vcpu, length)
        supported = bytearray(struct.pack("<II", 100, 0) + bytes(40 * 100))
        fcntl.ioctl(self.fd, _GET_CPUID, supported)
        fcntl.ioctl(self.vcpu, _SET_CPUID, supported)

    def close(self) -> None:
        for handle in (self.vcpu, self.vm, self.fd):
            os.close(handle)

    def _sregs(self) -> bytearray:
        data = bytearray(312)
        fcntl.ioctl(self.vcpu, _GET_SREGS, data)
        return data

    def put(self, s: State) -> None:
        """Set the vCPU's registers."""
        regs = [s[GPR + n] for n in _ORDER]
        fcntl.ioctl(self.vcpu, _SET_EVENTS, bytes(64))
        sregs = bytearray(self._sregs())
        at = 0
        for n in _SEGMENTS:
            sregs[at : at + 24] = _segment(s[SEG_SEL + n], s[SEG_BASE + n], s[SEG_LIMIT + n], s[SEG_ATTR + n])
            at += 24
        sregs[144:168] = _segment(s[TR_SEL], s[TR_BASE], s[TR_LIMIT], s[TR_ATTR])
        sregs[168:192] = _segment(s[LDT_SEL], s[LDT_BASE], s[LDT_LIMIT], s[LDT_ATTR])
        struct.pack_into("<QH6x", sregs, 192, s[GDT_BASE], s[GDT_LIMIT])
        struct.pack_into("<QH6x", sregs, 208, s[IDT_BASE], s[IDT_LIMIT])
        struct.pack_into("<6Q", sregs, 224, s[CR0], s[CR2], s[CR3], s[CR4], 0, s[EFER])
        fcntl.ioctl(self.vcpu, _SET_SREGS, bytes(sregs))
        fcntl.ioctl(self.vcpu, _SET_REGS, struct.pack("<18Q", *regs, s[RIP], fl.eflags(s)))

    def get(self, s: State) -> None:
        """Read them back."""
        data = bytearray(144)
        fcntl.ioctl(self.vcpu, _GET_REGS, data)
        regs = struct.unpack("<18Q", data)
        for position, n in enumerate(_ORDER):
            s[GPR + n] = regs[position]
        s[RIP] = regs[16]
        fl.set_eflags(s, regs[17], (1 << 64) - 1)
        sregs = self._sregs()
        for position, n in enumerate(_SEGMENTS):
            fields = _SEGMENT.unpack_from(sregs, 24 * position)
            s[SEG_BASE + n], s[SEG_LIMIT + n], s[SEG_SEL + n] = fields[:3]
            s[SEG_ATTR + n] = _attributes(fields)
        fields = _SEGMENT.unpack_from(sregs, 144)
        s[TR_BASE], s[TR_LIMIT], s[TR_SEL], s[TR_ATTR] = *fields[:3], _attributes(fields)
        fields = _SEGMENT.unpack_from(sregs, 168)
        s[LDT_BASE], s[LDT_LIMIT], s[LDT_SEL], s[LDT_ATTR] = *fields[:3], _attributes(fields)
        s[GDT_BASE], s[GDT_LIMIT] = struct.unpack_from("<QH", sregs, 192)
        s[IDT_BASE], s[IDT_LIMIT] = struct.unpack_from("<QH", sregs, 208)
        s[CR0], s[CR2], s[CR3], s[CR4], _, s[EFER] = struct.unpack_from("<6Q", sregs, 224)

    def run(self, seconds: float = 0.5) -> Exit:
        """Until it halts."""
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            fcntl.ioctl(self.vcpu, _RUN, 0)
        except InterruptedError:
            return Exit.STUCK
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        reason = self._reason()
        self._complete()
        return Exit(reason) if reason in set(Exit) else Exit.INTERNAL_ERROR

    def _reason(self) -> int:
        return int(struct.unpack_from("<I", self.shared, _EXIT_REASON)[0])

    def _complete(self) -> None:
        """Let an access to what isn't there end now (api.rst, KVM_RUN): else the next case would begin with it."""
        self.shared[_IMMEDIATE_EXIT] = 1
        while self._reason() in (Exit.IO, Exit.MMIO):
            try:
                fcntl.ioctl(self.vcpu, _RUN, 0)
            except InterruptedError:
                break
        self.shared[_IMMEDIATE_EXIT] = 0
