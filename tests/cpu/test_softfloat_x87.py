"""The softfloat's x87 side against the host CPU: results, exception flags and condition codes, masked and unmasked."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyemu.cpu import softfloat as sf
from pyemu.cpu import softfloat_convert as conv
from pyemu.cpu import x87_arith as arith
from pyemu.cpu.softfloat import F32, F64, X80, FloatContext
from tests.cpu import softfloat_host as host

pytestmark = pytest.mark.skipif(not host.HOST_IS_X86_64, reason="compares with the host CPU, which isn't an x86-64")

CASES = 600
BIAS = 16383
CONDITIONS = {sf.LESS: 0b0001, sf.EQUAL: 0b1000, sf.GREATER: 0, sf.UNORDERED: 0b1101}
# ST0, ST1, the memory operand and the context; gives what ST0 (and ST1), memory or the condition codes should be.
Model = Callable[[int, int, int, FloatContext], tuple[int, ...]]
Pair = Callable[[random.Random], tuple[int, int]]


@dataclass(frozen=True)
class Case:
    code: str  # a memory operand is [rdi+80]
    model: Model
    memory: str = ""  # what kind of operand is in memory
    result: str = "st0+c1"
    stores: int = 0  # width of the number written to memory
    float_store: bool = False


def anything(rng: random.Random) -> tuple[int, int]:
    a = host.random_x80(rng)
    b = host.random_x80(rng, a)
    return a, rng.choice((a, a ^ X80.sign_bit)) if rng.random() < 0.08 else b


def exponents(low: int, high: int) -> Pair:
    """Normal numbers with exponents in a range, to hit what random numbers miss."""

    def pair(rng: random.Random) -> tuple[int, int]:
        a, b = (
            (host.random_x80(rng) & ~(0x7FFF << 64)) | (BIAS + rng.randint(low, high)) << 64 | 1 << 63 for _ in range(2)
        )
        return a, b

    return pair


def _float_memory(fmt: sf.Format, base: str) -> dict[str, Case]:
    load, name, store_width = ("d9", "m32", 32) if fmt is F32 else ("dd", "m64", 64)
    return {
        f"fadd {name}": Case(base + "4750", lambda a, b, m, x: (sf.add(X80, a, m, x, fmt),), name),
        f"fmul {name}": Case(base + "4f50", lambda a, b, m, x: (sf.mul(X80, a, m, x, fmt),), name),
        f"fcom {name}": Case(
            base + "5750",
            lambda a, b, m, x: (a, CONDITIONS[sf.compare(X80, a, m, x, True, fmt)]),
            name,
            "st0+conditions",
        ),
        f"fsub {name}": Case(base + "6750", lambda a, b, m, x: (sf.sub(X80, a, m, x, fmt),), name),
        f"fsubr {name}": Case(base + "6f50", lambda a, b, m, x: (sf.sub_reversed(X80, a, m, x, fmt),), name),
        f"fdiv {name}": Case(base + "7750", lambda a, b, m, x: (sf.div(X80, a, m, x, fmt),), name),
        f"fdivr {name}": Case(base + "7f50", lambda a, b, m, x: (sf.div_reversed(X80, a, m, x, fmt),), name),
        f"fld {name}": Case(load + "4750", lambda a, b, m, x: (conv.convert(fmt, X80, m, x),), name),
        f"fst {name}": Case(
            load + "5750", lambda a, b, m, x: (conv.convert(X80, fmt, a, x, False),), "", "memory", store_width, True
        ),
    }


def _integer(width: int, load: str, store: str, truncate: str) -> dict[str, Case]:
    def fild(a: int, b: int, m: int, x: FloatContext) -> tuple[int]:
        return (conv.from_int(X80, (m & ((1 << width) - 1)) - ((m >> (width - 1) & 1) << width), x),)

    return {
        f"fild m{width}": Case(load, fild, f"i{width}"),
        f"fist m{width}": Case(store, lambda a, b, m, x: (conv.to_int(X80, a, width, x),), "", "memory", width),
        f"fisttp m{width}": Case(
            truncate, lambda a, b, m, x: (conv.to_int(X80, a, width, x, True),), "", "memory", width
        ),
    }


def _remainder(function: Callable[[int, int, FloatContext], arith.Remainder]) -> Model:
    def model(a: int, b: int, m: int, x: FloatContext) -> tuple[int, int]:
        bits, q, complete = function(a, b, x)
        return bits, (q >> 2 & 1) | (q & 2) << 2 | (q & 1) << 1 if complete else 0b0100

    return model


CASES_BY_NAME: dict[str, Case] = {
    "fadd": Case("d8c1", lambda a, b, m, x: (sf.add(X80, a, b, x),)),
    "fmul": Case("d8c9", lambda a, b, m, x: (sf.mul(X80, a, b, x),)),
    "fsub": Case("d8e1", lambda a, b, m, x: (sf.sub(X80, a, b, x),)),
    "fsubr": Case("d8e9", lambda a, b, m, x: (sf.sub_reversed(X80, a, b, x),)),
    "fdiv": Case("d8f1", lambda a, b, m, x: (sf.div(X80, a, b, x),)),
    "fdivr": Case("d8f9", lambda a, b, m, x: (sf.div_reversed(X80, a, b, x),)),
    "fsqrt": Case("d9fa", lambda a, b, m, x: (sf.sqrt(X80, a, x),)),
    "fcom": Case("d8d1", lambda a, b, m, x: (a, CONDITIONS[sf.compare(X80, a, b, x, True)]), "", "st0+conditions"),
    "fucom": Case("dde1", lambda a, b, m, x: (a, CONDITIONS[sf.compare(X80, a, b, x, False)]), "", "st0+conditions"),
    "ftst": Case("d9e4", lambda a, b, m, x: (a, CONDITIONS[sf.compare(X80, a, 0, x, True)]), "", "st0+conditions"),
    "frndint": Case("d9fc", lambda a, b, m, x: (conv.round_to_int(X80, a, x),)),
    "fprem": Case("d9f8", _remainder(arith.fprem), "", "st0+conditions"),
    "fprem1": Case("d9f5", _remainder(arith.fprem1), "", "st0+conditions"),
    "fscale": Case("d9fd", lambda a, b, m, x: (arith.fscale(a, b, x),)),
    "fxtract": Case("d9f4", lambda a, b, m, x: arith.fxtract(a, x)[::-1], "", "st0+st1+c1"),
    "fbld": Case("df6750", lambda a, b, m, x: (arith.fbld(m),), "bcd"),
    "fbstp": Case("df7750", lambda a, b, m, x: (arith.fbstp(a, x),), "", "memory", 80),
    **_float_memory(F32, "d8"),
    **_float_memory(F64, "dc"),
    **_integer(16, "df4750", "df5750", "df4f50"),
    **_integer(32, "db4750", "db5750", "db4f50"),
    **_integer(64, "df6f50", "df7f50", "dd4f50"),
}

# Besides anything: where the interesting results of these lie.
RANGES: dict[str, list[tuple[int, int]]] = {
    "frndint": [(-3, 66)],
    "fprem": [(-30, 60)],
    "fprem1": [(-30, 60)],
    "fscale": [(-3, 20)],
    "fbstp": [(-3, 63)],
    "fst m32": [(-127 - 28, -122), (122, 130)],
    "fst m64": [(-1023 - 57, -1018), (1018, 1026)],
    **{f"{kind} m{width}": [(-3, width + 2)] for kind in ("fist", "fisttp") for width in (16, 32, 64)},
}


def random_control_word(rng: random.Random, unmask: bool) -> int:
    masks = 0x3F & ~rng.choice((0x01, 0x02, 0x04, 0x08, 0x10, 0x18, 0x20)) if unmask else 0x3F
    return masks | rng.choice((0, 2, 3)) << 8 | rng.randrange(4) << 10


def random_memory(rng: random.Random, kind: str) -> int:
    if kind in ("m32", "m64"):
        fmt = F32 if kind == "m32" else F64
        return host.random_ieee(rng, fmt.exponent_bits, fmt.stored)
    if kind == "bcd":
        digits = "".join(str(rng.randrange(10)) for _ in range(rng.randint(1, 18)))
        return int(digits, 16) | rng.getrandbits(1) << 79
    width = int(kind[1:] or 1)
    return rng.getrandbits(width) >> rng.randrange(width)


def check(case: Case, inputs: list[host.X87Input]) -> None:
    for (word, memory, a, b), out in zip(inputs, host.run_x87(case.code, inputs), strict=True):
        ctx = FloatContext.from_control_word(word)
        got = list(case.model(a, b, memory, ctx))
        want = {
            "st0+c1": [out[1], out.c1],
            "st0+st1+c1": [out[1], out[2], out.c1],
            "st0+conditions": [out[1], out.conditions],
            "memory": [out[3] & ((1 << case.stores) - 1), out.c1],
        }[case.result]
        if case.result != "st0+conditions":
            got.append(int(ctx.rounded_up))
        flags = sf.reported_flags(ctx.flags, ctx.masks, case.float_store)
        where = f"cw={word:#x} st0={a:#022x} st1={b:#022x} memory={memory:#x}"
        assert hex(flags) == hex(out.flags), where
        prevented = sf.IE | sf.DE | sf.ZE | (sf.OE | sf.UE if case.float_store else 0)
        if not ctx.flags & ~ctx.masks & prevented:  # else nothing is written, which is the caller's business
            assert [hex(value) for value in got] == [hex(value) for value in want], where


@pytest.mark.parametrize("unmask", [False, True], ids=["masked", "unmasked"])
@pytest.mark.parametrize("name", CASES_BY_NAME)
def test_instruction(name: str, unmask: bool) -> None:
    case = CASES_BY_NAME[name]
    rng = random.Random(name)
    pairs: list[Pair] = [anything, anything, *(exponents(*limits) for limits in RANGES.get(name, []))]
    inputs = []
    for pair in pairs:
        for _ in range(CASES // 2):
            a, b = pair(rng)
            inputs.append(
                (random_control_word(rng, unmask), random_memory(rng, case.memory) if case.memory else 0, a, b)
            )
    check(case, inputs)


SPECIAL = [
    exponent << 64 | significand
    for exponent, significand in [
        (0, 0),
        (0, 1),
        (0, (1 << 63) - 1),
        (0, 1 << 63),  # pseudo-denormal
        (1, 1 << 63),
        (BIAS, 1 << 63),
        (BIAS, 1),  # unnormal
        (0x7FFE, (1 << 64) - 1),
        (0x7FFF, 1 << 63),
        (0x7FFF, 1 << 63 | 1),
        (0x7FFF, 3 << 62),
        (0x7FFF, 0),  # pseudo-infinity
        (0x7FFF, 1 << 62),  # pseudo-NaN
    ]
]
extendeds = st.sampled_from(SPECIAL + [bits | X80.sign_bit for bits in SPECIAL]) | st.integers(0, (1 << 80) - 1)


@settings(max_examples=150, deadline=None)
@given(a=extendeds, b=extendeds, rounding=st.integers(0, 3), precision=st.sampled_from([0, 2, 3]))
def test_any_two_extendeds(a: int, b: int, rounding: int, precision: int) -> None:
    word = 0x3F | precision << 8 | rounding << 10
    for name in (
        "fadd",
        "fsub",
        "fmul",
        "fdiv",
        "fsqrt",
        "fcom",
        "fucom",
        "fprem",
        "fprem1",
        "fscale",
        "fxtract",
        "frndint",
    ):
        check(CASES_BY_NAME[name], [(word, 0, a, b)])
