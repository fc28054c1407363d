"""The child process in which the host's processor executes test cases: `python -m tests.differential.host_child FD`.

FD is memory shared with the parent (host.py). Every case ends in a signal: the breakpoint behind the instruction, or
what the instruction raised. The handler is the whole driver, in assembler: it writes what the kernel's signal frame
says of the processor into the case's record, and rewrites the frame from the next record, so that returning from the
signal starts the next case. No register of the driver survives or matters, and nothing is executed between the signal
and the case but the kernel's return path. 32-bit cases get a 32-bit code segment in the frame.

Commands come on standard input, one line each: the number of records to run. Here is nothing that judges.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable

import keystone

from pyemu.cpu.state import FCW, FDP, FIP, FOP, FPR, FSW, FTW, MXCSR
from tests.differential import case as c
from tests.differential.host import (
    AT_CODE,
    AT_DATA,
    AT_GIVEN,
    AT_READ_ONLY,
    AT_RESULTS,
    CONTROL,
    CONTROL_SIZE,
    SHARED_SIZE,
)

# Linux, arch/x86/include/uapi/asm/sigcontext.h, within ucontext: the general registers in our order.
_UC_GPR = [144, 152, 136, 128, 160, 120, 112, 104, 40, 48, 56, 64, 72, 80, 88, 96]
_UC_RIP, _UC_FLAGS, _UC_CS, _UC_SS, _UC_ERROR, _UC_TRAP, _UC_CR2, _UC_FP = 168, 176, 184, 190, 192, 200, 216, 224
_USER_CS, _USER32_CS, _USER_SS = 0x33, 0x23, 0x2B  # Linux, arch/x86/include/asm/segment.h
# XSAVE area, SDM 1, 13.4: legacy region; then CPUID.0DH says where.
_X_ST, _X_XMM, _X_BV = 32, 160, 512
# CONTROL's words
_G_GIVEN, _G_RESULT, _G_LEFT, _G_STARTED, _G_FS, _G_GS, _G_FRAME, _G_XSAVE = 0, 8, 16, 24, 32, 40, 256, 512
_ALT_STACK = 1 << 16
_SA_SIGINFO, _SA_ONSTACK, _SA_NODEFER = 4, 0x08000000, 0x40000000
_SIGNALS = (4, 5, 7, 8, 11)  # ILL TRAP BUS FPE SEGV


def assemble(text: str, address: int = 0) -> bytes:
    code, _ = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64).asm(text, address)
    return bytes(code)


def executable(code: bytes) -> tuple[mmap.mmap, int]:
    memory = mmap.mmap(-1, max(len(code), 4096), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory[: len(code)] = code
    return memory, ctypes.addressof(ctypes.c_char.from_buffer(memory))


def cpuid_d(subleaf: int) -> tuple[int, int]:
    """Size and offset of a component in the XSAVE area; of subleaf 0: XCR0 (EAX), size of all that is enabled (EBX)."""
    text = "push rbx; mov r8, rsi; mov eax, 0xd; mov ecx, edi; cpuid; mov [r8], eax; mov [r8+4], ebx; pop rbx; ret"
    keep, address = executable(assemble(text))
    result = (ctypes.c_uint32 * 2)()
    ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_void_p)(address)(subleaf, ctypes.addressof(result))
    del keep
    return result[0], result[1]


def _fp(word: int) -> int:
    return c.R_FP + 8 * (word - FPR)


def _copy(to: str, source: str, size: int) -> list[str]:
    """16 bytes at a time, through XMM0, from and to base + offset expressions."""
    lines = []
    for k in range(0, size, 16):
        lines += [f"movups xmm0, [{source}+{k}]", f"movups [{to}+{k}], xmm0"]
    return lines


def _long_copy(to: str, source: str, size: int) -> list[str]:
    return [f"lea rsi, [{source}]", f"lea rdi, [{to}]", f"mov ecx, {size // 8}", "rep movsq"]


def _vectors(xcr0: int, store: bool) -> list[str]:
    """Between the XSAVE area at R12 and the record at R13: XMM, and what of YMM, ZMM and masks the host has."""
    parts = [(f"r12+{_X_XMM + 16 * n}", c.R_VEC + 64 * n, 16) for n in range(16)]
    if xcr0 & 4:
        offset = cpuid_d(2)[1]
        parts += [(f"r12+{offset + 16 * n}", c.R_VEC + 64 * n + 16, 16) for n in range(16)]
    if xcr0 & 0xE0 == 0xE0:
        low, high, masks = cpuid_d(6)[1], cpuid_d(7)[1], cpuid_d(5)[1]
        parts += [(f"r12+{low + 32 * n}", c.R_VEC + 64 * n + 32, 32) for n in range(16)]
        parts += [(f"r12+{masks}", c.R_OPMASK, 64)]
        lines = [(f"r13+{c.R_VEC + 1024}", f"r12+{high}")]
        tail = _long_copy(*lines[0], 1024) if store else _long_copy(lines[0][1], lines[0][0], 1024)
    else:
        tail = []
    out: list[str] = []
    for area, at, size in parts:
        out += _copy(f"r13+{at}", area, size) if store else _copy(area, f"r13+{at}", size)
    return out + tail


def _stack_registers(store: bool) -> list[str]:
    """x87 registers: by distance from the top in the XSAVE area, by number in the record. R8D is the top."""
    out = []
    for n in range(8):
        out += [f"lea eax, [r8+{n}]", "and eax, 7", "shl eax, 4"]
        area, ours = f"r12+{_X_ST + 16 * n}", f"r13+rax+{c.R_FP}"
        out += _copy(ours, area, 16) if store else _copy(area, ours, 16)
    return out


def handler(xcr0: int, xsave_size: int) -> str:
    """The signal handler's assembler text (RDX: ucontext)."""
    words = ((0, FCW, "word"), (2, FSW, "word"), (4, FTW, "byte"), (6, FOP, "word"))
    t = ["push 0x202", "popfq", f"mov ebx, {CONTROL:#x}", f"mov r12, [rdx+{_UC_FP}]"]
    t += [f"mov eax, {_USER_SS:#x}", "mov ds, eax", "mov es, eax"]
    t += [f"cmp qword ptr [rbx+{_G_STARTED}], 0", "jne store", f"mov qword ptr [rbx+{_G_STARTED}], 1"]
    t += _long_copy(f"rbx+{_G_FRAME}", "rdx+40", 184) + _long_copy(f"rbx+{_G_XSAVE}", "r12", xsave_size)
    t += ["rdfsbase rax", f"mov [rbx+{_G_FS}], rax", "rdgsbase rax", f"mov [rbx+{_G_GS}], rax", "jmp load"]
    # what the case has left
    t += ["store:", f"mov r13, [rbx+{_G_RESULT}]"]
    for n, at in enumerate(_UC_GPR):
        t += [f"mov rax, [rdx+{at}]", f"mov [r13+{c.R_GPR + 8 * n}], rax"]
    what = ((_UC_RIP, c.R_RIP), (_UC_FLAGS, c.R_FLAGS), (_UC_TRAP, c.R_VECTOR), (_UC_ERROR, c.R_ERROR))
    for at, to in (*what, (_UC_CR2, c.R_CR2)):
        t += [f"mov rax, [rdx+{at}]", f"mov [r13+{to}], rax"]
    t += ["rdfsbase rax", f"mov [r13+{c.R_FS}], rax", "rdgsbase rax", f"mov [r13+{c.R_GS}], rax"]
    for at, to, size in words:
        t += [f"movzx eax, {size} ptr [r12+{at}]", f"mov [r13+{_fp(to)}], rax"]
    t += [f"mov rax, [r12+8]; mov [r13+{_fp(FIP)}], rax; mov rax, [r12+16]; mov [r13+{_fp(FDP)}], rax"]
    t += [f"mov eax, [r12+24]; mov [r13+{_fp(MXCSR)}], rax"]
    t += [f"movzx r8d, word ptr [r13+{_fp(FSW)}]", "shr r8d, 11", *_stack_registers(True), *_vectors(xcr0, True)]
    at = c.R_MEMORY
    for address, length in c.WINDOWS:
        t += [f"mov esi, {address:#x}", f"lea rdi, [r13+{at}]", f"mov ecx, {length // 8}", "rep movsq"]
        at += length
    t += [f"add qword ptr [rbx+{_G_GIVEN}], {c.RECORD}", f"add qword ptr [rbx+{_G_RESULT}], {c.RECORD}"]
    t += [f"dec qword ptr [rbx+{_G_LEFT}]", "jz finish"]
    # the next case
    t += ["load:", f"mov r13, [rbx+{_G_GIVEN}]"]
    for n, at in enumerate(_UC_GPR):
        t += [f"mov rax, [r13+{c.R_GPR + 8 * n}]", f"mov [rdx+{at}], rax"]
    t += [f"mov rax, [r13+{c.R_RIP}]", f"mov [rdx+{_UC_RIP}], rax"]
    t += [f"mov rax, [r13+{c.R_FLAGS}]", f"mov [rdx+{_UC_FLAGS}], rax"]
    t += [f"mov eax, {_USER_CS:#x}", f"mov ecx, {_USER32_CS:#x}", f"cmp qword ptr [r13+{c.R_VECTOR}], 64"]
    t += ["cmovne eax, ecx", f"mov [rdx+{_UC_CS}], ax", f"mov word ptr [rdx+{_UC_SS}], {_USER_SS:#x}"]
    for at, to, size in words:
        register = "al" if size == "byte" else "ax"
        t += [f"mov rax, [r13+{_fp(to)}]", f"mov [r12+{at}], {register}"]
    t += [f"mov rax, [r13+{_fp(FIP)}]; mov [r12+8], rax; mov rax, [r13+{_fp(FDP)}]; mov [r12+16], rax"]
    t += [f"mov rax, [r13+{_fp(MXCSR)}]; mov [r12+24], eax", f"mov qword ptr [r12+{_X_BV}], {xcr0 & 0xE7:#x}"]
    t += [f"movzx r8d, word ptr [r13+{_fp(FSW)}]", "shr r8d, 11", *_stack_registers(False), *_vectors(xcr0, False)]
    at = c.R_MEMORY
    for address, length in c.WINDOWS:
        t += [f"mov edi, {address:#x}", f"lea rsi, [r13+{at}]", f"mov ecx, {length // 8}", "rep movsq"]
        at += length
    t += ["xor eax, eax"]
    for address, length in c.GAPS:
        t += [f"mov edi, {address:#x}", f"mov ecx, {length // 8}", "rep stosq"]
    t += [f"mov rax, [r13+{c.R_FS}]", "wrfsbase rax", f"mov rax, [r13+{c.R_GS}]", "wrgsbase rax", "ret"]
    # the end: back to where the first signal came from
    t += ["finish:", f"mov qword ptr [rbx+{_G_STARTED}], 0", f"mov rax, [rbx+{_G_FS}]", "wrfsbase rax"]
    t += [f"mov rax, [rbx+{_G_GS}]", "wrgsbase rax"]
    t += _long_copy("rdx+40", f"rbx+{_G_FRAME}", 184) + _long_copy("r12", f"rbx+{_G_XSAVE}", xsave_size) + ["ret"]
    return "; ".join(t)


class _SigAction(ctypes.Structure):  # Linux, struct sigaction of glibc on x86-64
    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_uint64 * 16),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


class _SigStack(ctypes.Structure):
    _fields_ = (("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def _map(libc: ctypes.CDLL, handle: int, address: int, size: int, offset: int, write: bool, execute: bool) -> None:
    prot = mmap.PROT_READ | (mmap.PROT_WRITE if write else 0) | (mmap.PROT_EXEC if execute else 0)
    flags = (
        mmap.MAP_SHARED | 0x108000
    )  # MAP_FIXED_NOREPLACE, MAP_POPULATE: the error code of a page fault says if present
    got = libc.mmap(address, size, prot, flags, handle, offset)
    if got != address:
        raise OSError(f"the address {address:#x} is not free for the test cases")


def prepare(handle: int) -> Callable[[int, int], None]:
    """Map everything and install the handler; returns what runs a number of records."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    xcr0, xsave_size = cpuid_d(0)
    _map(libc, handle, CONTROL, CONTROL_SIZE, 0, True, False)
    _map(libc, handle, c.CODE, c.CODE_SIZE, AT_CODE, False, True)
    _map(libc, handle, c.DATA, c.DATA_SIZE, AT_DATA, True, False)
    _map(libc, handle, c.READ_ONLY, 0x1000, AT_READ_ONLY, False, False)
    shared = mmap.mmap(handle, SHARED_SIZE)
    base = ctypes.addressof(ctypes.c_char.from_buffer(shared))
    text, handler_address = executable(assemble(handler(xcr0, xsave_size)))
    start, start_address = executable(assemble("push rbx; push rbp; int3; pop rbp; pop rbx; ret"))
    stack = ctypes.create_string_buffer(_ALT_STACK)
    alternate = _SigStack(ctypes.addressof(stack), 0, _ALT_STACK)
    if libc.sigaltstack(ctypes.byref(alternate), None):
        raise OSError("sigaltstack failed")
    action = _SigAction(handler_address, (ctypes.c_uint64 * 16)(), _SA_SIGINFO | _SA_ONSTACK | _SA_NODEFER, None)
    for number in _SIGNALS:
        if libc.sigaction(number, ctypes.byref(action), None):
            raise OSError("sigaction failed")
    enter = ctypes.CFUNCTYPE(None)(start_address)
    control = (ctypes.c_uint64 * (CONTROL_SIZE // 8)).from_address(CONTROL)
    keep = (shared, text, start, stack)

    def run(first: int, count: int) -> None:
        assert keep
        control[_G_GIVEN // 8] = base + AT_GIVEN + c.RECORD * first
        control[_G_RESULT // 8] = base + AT_RESULTS + c.RECORD * first
        control[_G_LEFT // 8] = count
        control[_G_STARTED // 8] = 0  # a child that was killed may have left a 1
        enter()

    return run


def main() -> None:
    run = prepare(int(sys.argv[1]))
    print("ready", flush=True)
    for line in sys.stdin:
        first, count = (int(field) for field in line.split())
        run(first, count)
        print("done", flush=True)


if __name__ == "__main__":
    main()
