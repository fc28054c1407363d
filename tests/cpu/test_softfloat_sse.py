"""The softfloat's SSE side against the host CPU (result bits and exception flags), and against Python's floats."""

import math
import random
import struct
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyemu.cpu import approximations as approx
from pyemu.cpu import softfloat as sf
from pyemu.cpu import softfloat_convert as conv
from pyemu.cpu.softfloat import F16, F32, F64, FloatContext, Format
from pyemu.cpu.softfloat_core import IE, PE
from pyemu.cpu.state import VALUE, new_state
from tests.cpu import softfloat_host as host
from tests.differential.host import executes, is_zen4

needs_host = pytest.mark.skipif(not host.HOST_IS_X86_64, reason="compares with the host CPU, which isn't an x86-64")

CASES = 600
# What an operation is given: format, the low elements of xmm0, xmm1, xmm2, context.
Model = Callable[[Format, int, int, int, FloatContext], int]
EFLAGS = {sf.LESS: 1, sf.EQUAL: 0x40, sf.GREATER: 0, sf.UNORDERED: 0x45}  # CF, ZF and PF after COMISS

# mnemonic: (opcode after the prefix, model, where the result is)
PREFIXED: dict[str, tuple[str, Model, str]] = {
    "add": ("0f58c1", lambda f, a, b, c, x: sf.add(f, a, b, x), "xmm"),
    "mul": ("0f59c1", lambda f, a, b, c, x: sf.mul(f, a, b, x), "xmm"),
    "sub": ("0f5cc1", lambda f, a, b, c, x: sf.sub(f, a, b, x), "xmm"),
    "min": ("0f5dc1", lambda f, a, b, c, x: sf.minimum(f, a, b, x), "xmm"),
    "div": ("0f5ec1", lambda f, a, b, c, x: sf.div(f, a, b, x), "xmm"),
    "max": ("0f5fc1", lambda f, a, b, c, x: sf.maximum(f, a, b, x), "xmm"),
    "sqrt": ("0f51c1", lambda f, a, b, c, x: sf.sqrt(f, b, x), "xmm"),
    "cvt2si32": ("0f2dc1", lambda f, a, b, c, x: conv.to_int(f, b, 32, x), "rax"),
    "cvtt2si32": ("0f2cc1", lambda f, a, b, c, x: conv.to_int(f, b, 32, x, True), "rax"),
    "cvt2si64": ("480f2dc1", lambda f, a, b, c, x: conv.to_int(f, b, 64, x), "rax"),
    "cvtt2si64": ("480f2cc1", lambda f, a, b, c, x: conv.to_int(f, b, 64, x, True), "rax"),
    "cvt2other": ("0f5ac1", lambda f, a, b, c, x: conv.convert(f, F64 if f is F32 else F32, b, x), "other"),
}


def random_mxcsr(rng: random.Random) -> int:
    """All exceptions masked, any rounding, sometimes DAZ and FTZ."""
    return 0x1F80 | rng.randrange(4) << 13 | 0x40 * (rng.random() < 0.3) | 0x8000 * (rng.random() < 0.3)


def random_operand(rng: random.Random, fmt: Format, near: int | None = None) -> int:
    return host.random_ieee(rng, fmt.exponent_bits, fmt.stored, near)


def check(fmt: Format, code: str, model: Model, result: str, inputs: list[host.SseInput]) -> None:
    other = F64 if fmt is F32 else F32
    width = {"xmm": fmt.width, "rax": 64, "bool": 1, "other": other.width, "half": 16, "single": 32}[result]
    for (mxcsr, _, a, b, c), (flags, rax, xmm) in zip(inputs, host.run_sse(code, inputs), strict=True):
        ctx = FloatContext.from_mxcsr(mxcsr)
        got = int(model(fmt, a, b, c, ctx))
        want = (rax if result == "rax" else xmm) & ((1 << width) - 1)
        assert (hex(got), hex(ctx.flags)) == (hex(want), hex(flags)), f"mxcsr={mxcsr:#x} a={a:#x} b={b:#x} c={c:#x}"


def random_inputs(seed: str, fmt: Format, count: int = CASES) -> list[host.SseInput]:
    rng = random.Random(seed)
    inputs = []
    for _ in range(count):
        a = random_operand(rng, fmt)
        b = a ^ rng.choice((0, fmt.sign_bit)) if rng.random() < 0.1 else random_operand(rng, fmt, a)
        c = random_operand(rng, fmt, rng.choice((a, b)))
        if rng.random() < 0.4:  # nearly cancels the product: what a fused multiply-add is for
            c = max(0, (sf.mul(fmt, a, b, FloatContext()) ^ fmt.sign_bit) - rng.randrange(2))
        inputs.append((random_mxcsr(rng), 0, a, b, c))
    return inputs


formats = pytest.mark.parametrize("fmt", [F32, F64], ids=lambda fmt: fmt.name)


def prefix(fmt: Format) -> str:
    return "f3" if fmt is F32 else "f2"


@needs_host
@formats
@pytest.mark.parametrize("mnemonic", PREFIXED)
def test_scalar_instruction(fmt: Format, mnemonic: str) -> None:
    code, model, result = PREFIXED[mnemonic]
    check(fmt, prefix(fmt) + code, model, result, random_inputs(mnemonic, fmt, 2 * CASES))


@needs_host
@formats
@pytest.mark.parametrize("predicate", range(32))
def test_compare_predicate(fmt: Format, predicate: int) -> None:
    def model(f: Format, a: int, b: int, c: int, x: FloatContext) -> int:
        return sf.compare_predicate(f, a, b, predicate, x)

    inputs = random_inputs(f"cmp{predicate}", fmt)
    if predicate < 8:
        check(fmt, f"{prefix(fmt)}0fc2c1{predicate:02x}", model, "bool", inputs)
    vex = "c5fa" if fmt is F32 else "c5fb"
    check(fmt, f"{vex}c2c1{predicate:02x}", model, "bool", inputs)


@needs_host
@formats
@pytest.mark.parametrize(("opcode", "signaling"), [("2e", False), ("2f", True)], ids=["ucomis", "comis"])
def test_compare_into_flags(fmt: Format, opcode: str, signaling: bool) -> None:
    def model(f: Format, a: int, b: int, c: int, x: FloatContext) -> int:
        return EFLAGS[sf.compare(f, a, b, x, signaling)]

    # ...; pushfq; pop rax; and rax, 0x45
    code = ("66" if fmt is F64 else "") + f"0f{opcode}c1" + "9c58" + "4883e045"
    check(fmt, code, model, "rax", random_inputs(opcode, fmt))


@needs_host
@formats
@pytest.mark.parametrize("immediate", range(16))
def test_round(fmt: Format, immediate: int) -> None:
    def model(f: Format, a: int, b: int, c: int, x: FloatContext) -> int:
        return conv.round_sd_imm(f, b, immediate, x)

    code = f"660f3a{'0a' if fmt is F32 else '0b'}c1{immediate:02x}"
    check(fmt, code, model, "xmm", random_inputs(f"round{immediate}", fmt))


@needs_host
@formats
@pytest.mark.parametrize("form", ["132", "213", "231"])
@pytest.mark.parametrize("kind", ["madd", "msub", "nmadd", "nmsub"])
def test_fused_multiply_add(fmt: Format, form: str, kind: str) -> None:
    """VF[N]MADD/SUB xmm0, xmm1, xmm2; the form says which operands are multiplied, and so which NaN wins."""

    def model(f: Format, a: int, b: int, c: int, x: FloatContext) -> int:
        factors = {"132": (a, c, b), "213": (b, a, c), "231": (b, c, a)}[form]
        return sf.fma(f, *factors, x, kind.startswith("n"), kind.endswith("sub"))

    opcode = {"132": 0x90, "213": 0xA0, "231": 0xB0}[form] | {"madd": 9, "msub": 0xB, "nmadd": 0xD, "nmsub": 0xF}[kind]
    code = f"c4e2{'71' if fmt is F32 else 'f1'}{opcode:02x}c2"
    check(fmt, code, model, "xmm", random_inputs(kind + form, fmt))


@needs_host
@formats
@pytest.mark.parametrize("width", [32, 64])
def test_from_integer(fmt: Format, width: int) -> None:
    rng = random.Random(width)
    inputs = [(random_mxcsr(rng), rng.getrandbits(64) >> rng.randrange(64), 0, 0, 0) for _ in range(CASES)]
    inputs += [(random_mxcsr(rng), 1 << bit, 0, 0, 0) for bit in range(64)]
    code = prefix(fmt) + ("48" if width == 64 else "") + "0f2ac0"
    for (mxcsr, value, *_), (flags, _, xmm) in zip(inputs, host.run_sse(code, inputs), strict=True):
        ctx = FloatContext.from_mxcsr(mxcsr)
        unsigned = value & ((1 << width) - 1)
        got = conv.from_int(fmt, unsigned - (unsigned >> (width - 1) << width), ctx)
        assert (hex(got), ctx.flags) == (hex(xmm & ((1 << fmt.width) - 1)), flags), hex(value)


def unsigned_by_fractions(fmt: Format, bits: int, width: int, mxcsr: int, truncate: bool) -> tuple[int, int]:
    """What VCVTSS2USI or VCVTSD2USI gives, and its exception flags, by Python's exact arithmetic."""
    invalid = ((1 << width) - 1, IE)
    x = struct.unpack("<f" if fmt is F32 else "<d", bits.to_bytes(fmt.width // 8, "little"))[0]
    if not math.isfinite(x):
        return invalid
    smallest = 2.0**-126 if fmt is F32 else 2.0**-1022
    exact = Fraction(0 if mxcsr & 0x40 and abs(x) < smallest else x)
    n = (round, math.floor, math.ceil, math.trunc)[3 if truncate else mxcsr >> 13 & 3](exact)
    if not 0 <= n < 1 << width:
        return invalid
    return n, PE * (n != exact)


@formats
@pytest.mark.parametrize("width", [32, 64])
@pytest.mark.parametrize("truncate", [False, True])
def test_to_unsigned_integer(fmt: Format, width: int, truncate: bool) -> None:
    def model(f: Format, a: int, b: int, c: int, x: FloatContext) -> int:
        return conv.to_int(f, b, width, x, truncate, signed=False)

    inputs = random_inputs("unsigned", fmt, 2 * CASES)
    for mxcsr, _, _, b, _ in inputs:
        ctx = FloatContext.from_mxcsr(mxcsr)
        found = model(fmt, 0, b, 0, ctx), ctx.flags
        assert found == unsigned_by_fractions(fmt, b, width, mxcsr, truncate), f"mxcsr={mxcsr:#x} b={b:#x}"
    if executes("avx512f"):
        code = f"62f1{(0x7E if fmt is F32 else 0x7F) | 0x80 * (width == 64):02x}08{'78' if truncate else '79'}c1"
        check(fmt, code, model, "rax", inputs)


@needs_host
def test_half_to_single_takes_all_patterns() -> None:
    rng = random.Random(16)
    inputs = [(random_mxcsr(rng), 0, 0, half, 0) for half in range(0x10000)]
    check(F32, "c4e27913c1", lambda f, a, b, c, x: conv.half_to_single(F32, F16, b, x), "single", inputs)


@needs_host
@pytest.mark.parametrize("immediate", range(8))
def test_single_to_half(immediate: int) -> None:
    def model(f: Format, a: int, b: int, c: int, x: FloatContext) -> int:
        return conv.single_to_half(F32, F16, b, immediate, x)

    rng = random.Random(immediate)
    inputs = random_inputs("half", F32)
    for _ in range(CASES):  # around the range of binary16
        number = (random_operand(rng, F32) & 0x807FFFFF) | rng.randint(127 - 28, 127 + 18) << 23
        inputs.append((random_mxcsr(rng), 0, 0, number, 0))
    check(F32, f"c4e3791dc8{immediate:02x}", model, "half", inputs)


SPECIAL_64 = [
    0,
    1,
    0xFFFFFFFFFFFFF,
    1 << 52,
    0x3FF << 52,
    0x7FEFFFFFFFFFFFFF,
    0x7FF << 52,
    0x7FF0000000000001,
    0x7FF8 << 48,
]
doubles = st.sampled_from(SPECIAL_64 + [bits | F64.sign_bit for bits in SPECIAL_64]) | st.integers(0, (1 << 64) - 1)


@needs_host
@settings(max_examples=200, deadline=None)
@given(a=doubles, b=doubles, rounding=st.integers(0, 3), daz=st.booleans(), ftz=st.booleans())
def test_any_two_doubles(a: int, b: int, rounding: int, daz: bool, ftz: bool) -> None:
    mxcsr = 0x1F80 | rounding << 13 | 0x40 * daz | 0x8000 * ftz
    for mnemonic in ("add", "sub", "mul", "div", "sqrt", "min", "max"):
        code, model, result = PREFIXED[mnemonic]
        check(F64, "f2" + code, model, result, [(mxcsr, 0, a, b, 0)])


def _double(bits: int) -> float:
    return float(struct.unpack("<d", struct.pack("<Q", bits))[0])


@settings(max_examples=300, deadline=None)
@given(a=doubles, b=doubles)
def test_agrees_with_python_floats(a: int, b: int) -> None:
    """Independent of the host's instruction set: round to nearest, no NaN payloads."""
    x, y = _double(a), _double(b)
    expected = {sf.add: x + y, sf.sub: x - y, sf.mul: x * y}
    if y:
        expected[sf.div] = x / y
    for operation, value in expected.items():
        got = _double(operation(F64, a, b, FloatContext()))
        assert (math.isnan(got) and math.isnan(value)) or struct.pack("<d", got) == struct.pack("<d", value), operation
    if x >= 0:
        assert _double(sf.sqrt(F64, a, FloatContext())) == math.sqrt(x)


def test_an_unmasked_underflow_reports_exact_tiny_results_and_disables_flush_to_zero() -> None:
    smallest_normal = 1 << 52
    half = 0x3FE << 52
    masked = FloatContext.from_mxcsr(0x1F80)
    assert (sf.mul(F64, smallest_normal, half, masked), masked.flags) == (1 << 51, 0)
    flushed = FloatContext.from_mxcsr(0x9F80)
    assert (sf.mul(F64, smallest_normal, half, flushed), flushed.flags) == (0, sf.UE | sf.PE)
    unmasked = FloatContext.from_mxcsr(0x9F80 & ~0x800)
    assert (sf.mul(F64, smallest_normal, half, unmasked), unmasked.flags) == (1 << 51, sf.UE)


def test_an_unmasked_early_exception_hides_the_later_ones() -> None:
    assert sf.reported_flags(sf.DE | sf.UE | sf.PE, sf.ALL_EXCEPTIONS) == sf.DE | sf.UE | sf.PE
    assert sf.reported_flags(sf.DE | sf.UE | sf.PE, sf.ALL_EXCEPTIONS & ~sf.DE) == sf.DE
    assert sf.reported_flags(sf.OE | sf.PE, sf.ALL_EXCEPTIONS & ~sf.OE) == sf.OE | sf.PE
    assert sf.reported_flags(sf.OE | sf.PE, sf.ALL_EXCEPTIONS & ~sf.OE, to_memory=True) == sf.OE


def rcp(bits: int) -> int:
    s = new_state()
    approx.reciprocal(s, bits)
    return int(s[VALUE])


def rsqrt(bits: int) -> int:
    s = new_state()
    approx.reciprocal_root(s, bits)
    return int(s[VALUE])


def test_approximations_keep_the_architecture_s_error_bound() -> None:
    for index in range(1 << 13):
        bits = 126 << 23 | index << 11 | 0x3FF  # from 0.5 to 2
        x = struct.unpack("<f", struct.pack("<I", bits))[0]
        for function, exact in ((rcp, 1 / x), (rsqrt, 1 / math.sqrt(x))):
            got = struct.unpack("<f", struct.pack("<I", function(bits)))[0]
            assert abs(got / exact - 1) <= 1.5 * 2**-12, (function.__name__, x)


@needs_host
@pytest.mark.parametrize(
    ("code", "model"),
    [("f30f53c1", rcp), ("f30f52c1", rsqrt)],
    ids=["rcp", "rsqrt"],
)
def test_approximations_are_the_host_s(code: str, model: Callable[[int], int]) -> None:
    rng = random.Random(14)
    values = [random_operand(rng, F32) for _ in range(3000)]
    values += [rng.choice((126, 127)) << 23 | index << 11 | rng.getrandbits(11) for index in range(1 << 12)]
    inputs = [(random_mxcsr(rng), 0, 0, value, 0) for value in values]
    for value, (flags, _, xmm) in zip(values, host.run_sse(code, inputs), strict=True):
        got, theirs = model(value), xmm & 0xFFFFFFFF
        if not is_zen4():  # each approximates in its own way
            a, b = (struct.unpack("<f", n.to_bytes(4, "little"))[0] for n in (got, theirs))
            same = got == theirs or abs(a / b - 1) <= 3 * 2**-12
            assert same and not flags, f"{value:#x}: {got:#x} != {theirs:#x}"
        else:
            assert (hex(got), flags) == (hex(theirs), 0), hex(value)
