"""Runs single SSE and x87 instructions on the host CPU, in bulk, for comparison with the softfloat.

The machine code is a loop over records in an executable buffer, called through ctypes; no compiler is needed. All
exceptions that the caller leaves unmasked in MXCSR must not occur (they would raise SIGFPE); x87 exceptions may be
unmasked, since only non-waiting instructions follow the tested one.
"""

import ctypes
import mmap
import platform
import random
import struct
from collections.abc import Sequence
from functools import cache

HOST_IS_X86_64 = platform.machine() in ("x86_64", "AMD64")

_SSE_RECORD = struct.Struct("<II Q 16s 16s 16s")
_X87_RECORD = struct.Struct("<HH4x Q 16s 16s 16s 16s 16s")
_OUT = b"\0" * 16

# Round-trips of `ldmxcsr` and the operand registers around the tested instruction; rdi = records, rsi = count.
_SSE_PROLOGUE = bytes.fromhex("0fae5c24c0")  # stmxcsr [rsp-64]: the tested code may push
_SSE_LOAD = bytes.fromhex(
    "0fae17"  # ldmxcsr [rdi]
    "488b4708"  # mov rax, [rdi+8]
    "0f104710"  # movups xmm0, [rdi+16]
    "0f104f20"  # movups xmm1, [rdi+32]
    "0f105730"  # movups xmm2, [rdi+48]
)
_SSE_STORE = bytes.fromhex(
    "0fae5f04"  # stmxcsr [rdi+4]
    "48894708"  # mov [rdi+8], rax
    "0f114710"  # movups [rdi+16], xmm0
    "4883c740"  # add rdi, 64
    "48ffce"  # dec rsi
)
_SSE_EPILOGUE = bytes.fromhex("0fae5424c0c3")  # ldmxcsr [rsp-64]; ret

_X87_LOAD = bytes.fromhex(
    "dbe3"  # fninit
    "db6f20"  # fld tbyte [rdi+32]  (st1)
    "db6f10"  # fld tbyte [rdi+16]  (st0)
    "dbe2"  # fnclex
    "d92f"  # fldcw [rdi]
)
_X87_STORE = bytes.fromhex(
    "dd7f02"  # fnstsw [rdi+2]
    "dbe2"  # fnclex
    "d97c24f8"  # fnstcw [rsp-8]
    "66834c24f83f"  # or word [rsp-8], 0x3f
    "d96c24f8"  # fldcw [rsp-8]: everything masked, or an empty st1 would raise
    "db7f30"  # fstp tbyte [rdi+48]
    "db7f40"  # fstp tbyte [rdi+64]
    "4883c760"  # add rdi, 96
    "48ffce"  # dec rsi
)
_X87_EPILOGUE = bytes.fromhex("dbe3c3")  # fninit; ret


class HostLoop:
    """A native loop: for each record load the state, execute `code`, store the state."""

    def __init__(self, prologue: bytes, load: bytes, code: bytes, store: bytes, epilogue: bytes) -> None:
        body = load + code + store
        branch = b"\x0f\x85" + struct.pack("<i", -(len(body) + 6))
        program = prologue + body + branch + epilogue
        self._buffer = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._buffer.write(program)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._buffer))
        self._function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t)(address)
        self.code_address = address + len(prologue) + len(load)
        self.data_address = 0  # of the records of the last run

    def run(self, records: bytes, count: int) -> bytes:
        data = ctypes.create_string_buffer(records, len(records))
        self.data_address = ctypes.addressof(data)
        if count:
            self._function(self.data_address, count)
        return data.raw


def _bytes(register: int) -> bytes:
    return register.to_bytes(16, "little")


@cache
def _sse_loop(code: bytes) -> HostLoop:
    return HostLoop(_SSE_PROLOGUE, _SSE_LOAD, code, _SSE_STORE, _SSE_EPILOGUE)


@cache
def _x87_loop(code: bytes) -> HostLoop:
    return HostLoop(b"", _X87_LOAD, code, _X87_STORE, _X87_EPILOGUE)


# (mxcsr, rax, xmm0, xmm1, xmm2) -> (mxcsr, rax, xmm0)
SseInput = tuple[int, int, int, int, int]


def run_sse(code: str, inputs: Sequence[SseInput]) -> list[tuple[int, int, int]]:
    """Execute `code` (hex) on xmm0, xmm1, xmm2 and rax for each input; gives (exception flags, rax, xmm0)."""
    records = b"".join(
        _SSE_RECORD.pack(mxcsr, 0, rax, _bytes(x0), _bytes(x1), _bytes(x2)) for mxcsr, rax, x0, x1, x2 in inputs
    )
    data = _sse_loop(bytes.fromhex(code)).run(records, len(inputs))
    return [(out & 0x3F, rax, int.from_bytes(x0, "little")) for _, out, rax, x0, _, _ in _SSE_RECORD.iter_unpack(data)]


# (control word, memory operand, st0, st1)
X87Input = tuple[int, int, int, int]


class X87Result(tuple[int, int, int, int, int]):
    """(status word, new st0, new st1, memory operand, rax)."""

    @property
    def flags(self) -> int:
        return self[0] & 0x3F

    @property
    def c1(self) -> int:
        return self[0] >> 9 & 1

    @property
    def conditions(self) -> int:
        """C3, C2, C1, C0 as bits 3 to 0."""
        return (self[0] >> 8 & 7) | (self[0] >> 11 & 8)


def run_x87(code: str, inputs: Sequence[X87Input]) -> list[X87Result]:
    """Execute `code` (hex); a memory operand is at [rdi+80] (modrm disp8 50)."""
    records = b"".join(
        _X87_RECORD.pack(cw, 0, 0, _bytes(a), _bytes(b), _OUT, _OUT, _bytes(m)) for cw, m, a, b in inputs
    )
    data = _x87_loop(bytes.fromhex(code)).run(records, len(inputs))
    return [
        X87Result((sw, int.from_bytes(o0, "little"), int.from_bytes(o1, "little"), int.from_bytes(m, "little"), rax))
        for _, sw, rax, _, _, o0, o1, m in _X87_RECORD.iter_unpack(data)
    ]


# --- operands that hit corners ---


def random_ieee(rng: random.Random, exponent_bits: int, fraction_bits: int, near: int | None = None) -> int:
    """A pattern of binary16/32/64: specials, denormals, few-bit fractions, exponents near `near`'s, or anything."""
    top = (1 << exponent_bits) - 1
    one = top >> 1
    sign = rng.getrandbits(1)
    style = rng.random()
    if style < 0.08:
        exponent = 0
    elif style < 0.16:
        exponent = top
    elif style < 0.3:
        exponent = rng.choice((1, 2, 3, top - 1, top - 2, one, one + 1, one - 1, top >> 2, one * 3 // 2))
    elif near is not None and style < 0.65:
        distance = rng.randint(-fraction_bits - 3, fraction_bits + 3)
        exponent = min(top, max(0, (near >> fraction_bits & top) + distance))
    elif style < 0.8:
        exponent = min(top, one + rng.randint(-3, fraction_bits + 13))
    else:
        exponent = rng.randint(0, top)
    return sign << (exponent_bits + fraction_bits) | exponent << fraction_bits | random_fraction(rng, fraction_bits)


def random_fraction(rng: random.Random, bits: int) -> int:
    style = rng.random()
    full = (1 << bits) - 1
    if style < 0.2:
        return 0
    if style < 0.3:
        return full
    if style < 0.4:
        return 1 << rng.randrange(bits)
    if style < 0.5:
        return full ^ ((1 << rng.randrange(bits)) - 1)
    if style < 0.6:
        return (rng.choice((-1, 0, 1)) + (1 << rng.randrange(bits))) & full
    if style < 0.7:
        return (rng.getrandbits(bits) >> rng.randrange(bits)) & full
    return rng.getrandbits(bits)


def random_x80(rng: random.Random, near: int | None = None, invalid: bool = True) -> int:
    """An extended-precision pattern; with `invalid` sometimes one the 387 doesn't support, or a pseudo-denormal."""
    bits = random_ieee(rng, 15, 63, None if near is None else (near >> 64 & 0x7FFF) << 63)
    sign_exponent, fraction = bits >> 63, bits & ((1 << 63) - 1)
    exponent = sign_exponent & 0x7FFF
    integer = exponent != 0
    if invalid and rng.random() < 0.04:
        integer = not integer
    if rng.random() < 0.15:  # what a double or single holds: exact in reduced precision
        keep = rng.choice((24, 53))
        fraction &= ~((1 << (64 - keep)) - 1)
    if rng.random() < 0.05:  # a tie in reduced precision
        keep = rng.choice((24, 53))
        fraction = (fraction & ~((1 << (64 - keep)) - 1)) | 1 << (63 - keep)
    return sign_exponent << 64 | integer << 63 | fraction
