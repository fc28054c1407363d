"""What is done for every case, as native code: states made from pools, pyemu run on them, results compared.

The functions are in the mechanism subset, like the processor's own (jit/subset.py), and compiled when the first batch
asks for them: a case costs about a microsecond here instead of ten in Python. A batch is given by addresses; batch.py
has its memory, generator.py says what random states are to be like, subject.py what the guest is, sweep.py what a
difference means. Each function takes the address of its parameters, words in the order that its docstring gives.
"""

from __future__ import annotations

import ctypes
from array import array
from functools import cache
from types import FunctionType
from typing import Any

import llvmlite.binding as llvm

from pyemu.cpu import flags as fl
from pyemu.cpu import mode
from pyemu.cpu.host import Exit
from pyemu.cpu.state import CR2, FLAGS, FPR, FRAME, FS, GPR, IRQ_PENDING, RAM_BASE, RIP, SEG_BASE, State
from pyemu.jit import target
from pyemu.jit.lowering import LOWERINGS
from pyemu.jit.native import call_handler, copy_bytes, peek64, poke64
from pyemu.jit.subset import ModuleCompiler, symbol
from tests.differential import case as c

# ---- random states ------------------------------------------------------------------------------------------------
POOL, SMALL_POOL = 256, 64  # records of general registers; of floating-point state and of memory
FP_BYTES = 8 * c.FP_WORDS
# A plan says what an instruction needs of its states, in words:
P_RIP, P_BITS, P_FS, P_GS, P_REPEATS, P_FIXED, P_INDEX, P_INDICES = 0, 1, 2, 3, 4, 5, 12, 13
PLAN = 21  # words; P_FIXED is a count and three pairs of register and value, P_INDICES 64 bytes for vector P_INDEX
NO_INDEX = 0xFFFF
LOW, FIRST = c.WINDOWS[0]
# Unlikely stack pointers: unmapped, read-only, not canonical.
STACKS = array("Q", (0, c.DATA, c.DATA_END, c.DATA_END + 8, c.READ_ONLY + 64, 1 << 47, (1 << 47) - 4, (1 << 64) - 4))
STACK_KINDS = len(STACKS)
POINTERS = array("B", (6, 7, 3, 5))  # RSI RDI RBX RBP mostly point to the data
RCX, RDX, RSP = 1, 2, 4
FLAG_BITS = array("H", (fl.CF, fl.PF, fl.AF, fl.ZF, fl.SF, fl.OF))
ALWAYS = 0x202  # IF, and the bit that is always set
TF, DF, AC = fl.TF, fl.DF, fl.AC
GPR_BYTES, FP_AT, VEC_AT, MEMORY_AT, MEMORY_BYTES = 128, c.R_FP, c.R_VEC, c.R_MEMORY, c.MEMORY
RIP_AT, FLAGS_AT, VECTOR_AT, ERROR_AT, CR2_AT, FS_AT, GS_AT = (
    c.R_RIP, c.R_FLAGS, c.R_VECTOR, c.R_ERROR, c.R_CR2, c.R_FS, c.R_GS,
)  # fmt: skip
PAD_AT = c.R_GS + 8
RECORD, END = c.RECORD, c.R_END
PAGE_BOUNDARY = c.PAGE_BOUNDARY


def draw(seed: int) -> int:
    """The next random number; `seed` is the address of the generator's word (Steele, Lea, Flood: SplitMix, 2014)."""
    z = peek64(seed) + 0x9E3779B97F4A7C15
    poke64(seed, z)
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB
    return z ^ (z >> 31)


def below(seed: int, limit: int) -> int:
    """A random number below a limit of at most 32 bits."""
    return ((draw(seed) >> 32) * limit) >> 32


def stack_pointer(seed: int) -> int:
    """Mostly just below the page boundary, sometimes elsewhere in the data, rarely bad."""
    kind = below(seed, 1000)
    if kind < 30:
        return STACKS[below(seed, STACK_KINDS)]
    if kind < 130:
        return LOW + below(seed, FIRST)
    return PAGE_BOUNDARY - below(seed, 24) * 8


def random_flags(seed: int) -> int:
    """Any arithmetic flags; DF in one of five, AC and TF in few."""
    bits = draw(seed)
    flags = ALWAYS
    for n in range(6):
        if (bits >> n) & 1:
            flags = flags | FLAG_BITS[n]
    kind = below(seed, 1000)
    if kind < 200:
        flags = flags | DF
    kind = below(seed, 1000)
    if kind < 20:
        flags = flags | AC
    elif kind < 30:
        flags = flags | TF
    return flags


def make_state(seed: int, plan: int, pools: int, record: int) -> int:
    """One state: `pools` is the address of the addresses of the three pools."""
    copy_bytes(record, peek64(pools) + below(seed, POOL) * GPR_BYTES, GPR_BYTES)
    poke64(record + 8 * RSP, stack_pointer(seed))
    for n in range(4):
        if below(seed, 10) < 8:
            poke64(record + 8 * POINTERS[n], LOW + 64 + below(seed, FIRST - 128))
    if below(seed, 10) < 3 or (peek64(plan + 8 * P_REPEATS) and below(seed, 10) < 9):
        poke64(record + 8 * RCX, below(seed, 24))
    if below(seed, 10) < 2:
        poke64(record + 8 * RDX, below(seed, 3))
    fixed = plan + 8 * P_FIXED
    for n in range(peek64(fixed)):
        poke64(record + 8 * peek64(fixed + 16 * n + 8), peek64(fixed + 16 * n + 16))
    bits = peek64(plan + 8 * P_BITS)
    if bits == 32:
        for n in range(16):
            poke64(record + 8 * n, peek64(record + 8 * n) & 0xFFFFFFFF)
    poke64(record + RIP_AT, peek64(plan + 8 * P_RIP))
    poke64(record + FLAGS_AT, random_flags(seed))
    poke64(record + VECTOR_AT, bits)
    poke64(record + ERROR_AT, 0)
    poke64(record + CR2_AT, 0)
    poke64(record + FS_AT, peek64(plan + 8 * P_FS))
    poke64(record + GS_AT, peek64(plan + 8 * P_GS))
    poke64(record + PAD_AT, 0)
    copy_bytes(record + FP_AT, peek64(pools + 8) + below(seed, SMALL_POOL) * FP_BYTES, FP_BYTES)
    index = peek64(plan + 8 * P_INDEX)
    if index != NO_INDEX:
        copy_bytes(record + VEC_AT + 64 * index, plan + 8 * P_INDICES, 64)
    copy_bytes(record + MEMORY_AT, peek64(pools + 16) + below(seed, SMALL_POOL) * MEMORY_BYTES, MEMORY_BYTES)
    return 0


def make_states(p: int) -> int:
    """Parameters: seed's address, plans, number of plans, states of each, pools' address, where to."""
    record = peek64(p + 40)
    for k in range(peek64(p + 16)):
        for _ in range(peek64(p + 24)):
            make_state(peek64(p), peek64(p + 8) + 8 * PLAN * k, peek64(p + 32), record)
            record = record + RECORD
    return 0


# ---- pyemu --------------------------------------------------------------------------------------------------------
FPR_AT, EVENTS_AT, FRAME_AT, GPR_AT, BASES_AT = 8 * FPR, 8 * IRQ_PENDING, 8 * FRAME, 8 * GPR, 8 * (SEG_BASE + FS)
DATA, DATA_AT_LOW = c.DATA, c.WINDOWS[0][0] - c.DATA
SECOND_AT, FIRST_BYTES, SECOND_BYTES = c.WINDOWS[1][0] - c.DATA, c.WINDOWS[0][1], c.WINDOWS[1][1]
GAP_AT, GAP_BYTES, GAP2_AT, GAP2_BYTES = c.GAPS[0][0] - c.DATA, c.GAPS[0][1], c.GAPS[1][0] - c.DATA, c.GAPS[1][1]
ARITHMETIC, SPECIAL = fl.ARITHMETIC, fl.AC | fl.TF
HALT, TRIPLE = int(Exit.HALT), int(Exit.SHUTDOWN)
ENDLESS, SHUTDOWN, PAGE_FAULT = c.ENDLESS, c.SHUTDOWN, c.PAGE_FAULT
ERRORS = sum(1 << vector for vector in c.WITH_ERROR)


def put_state(s: State, p: int, given: int) -> int:
    """State and memory before a case. For `p` see run_cases."""
    base = peek64(p + 8)
    template = p + 64 if peek64(given + VECTOR_AT) == 64 else p + 72
    copy_bytes(base, peek64(template), FPR_AT)
    copy_bytes(base + GPR_AT, given, GPR_BYTES)
    flags = peek64(given + FLAGS_AT)
    fl.set_arithmetic(s, flags)
    s[RIP] = peek64(given + RIP_AT)
    s[FLAGS] = flags & ~ARITHMETIC
    if flags & SPECIAL:
        mode.update(s)
    copy_bytes(base + BASES_AT, given + FS_AT, 16)
    copy_bytes(base + FPR_AT, given + FP_AT, FP_BYTES)
    copy_bytes(base + EVENTS_AT, peek64(p + 80), FRAME_AT - EVENTS_AT)
    data = s[RAM_BASE] + peek64(p + 40)
    zeroes = peek64(p + 56)
    copy_bytes(data + DATA_AT_LOW, given + MEMORY_AT, FIRST_BYTES)
    copy_bytes(data + SECOND_AT, given + MEMORY_AT + FIRST_BYTES, SECOND_BYTES)
    copy_bytes(data + GAP_AT, zeroes, GAP_BYTES)
    return copy_bytes(data + GAP2_AT, zeroes, GAP2_BYTES)


def get_state(s: State, p: int, reason: int, result: int) -> int:
    """The result that a case leaves."""
    base = peek64(p + 8)
    vector = ENDLESS
    error = 0
    cr2 = 0
    rip = s[RIP]
    flags = fl.eflags(s)
    copy_bytes(result, base + GPR_AT, GPR_BYTES)
    if reason == TRIPLE:
        vector = SHUTDOWN
    elif reason == HALT:
        vector = (rip - peek64(p + 32)) >> 4
        frame = s[RAM_BASE] + peek64(p + 48)
        rip = peek64(frame)
        flags = peek64(frame + 16)
        poke64(result + 8 * RSP, peek64(frame + 24))
        if vector < 32 and (ERRORS >> vector) & 1:
            error = peek64(frame - 8)
        if vector == PAGE_FAULT:
            cr2 = s[CR2]
    poke64(result + RIP_AT, rip)
    poke64(result + FLAGS_AT, flags)
    poke64(result + VECTOR_AT, vector)
    poke64(result + ERROR_AT, error)
    poke64(result + CR2_AT, cr2)
    copy_bytes(result + FS_AT, base + BASES_AT, 16)
    poke64(result + PAD_AT, 0)
    copy_bytes(result + FP_AT, base + FPR_AT, FP_BYTES)
    data = s[RAM_BASE] + peek64(p + 40)
    copy_bytes(result + MEMORY_AT, data + DATA_AT_LOW, FIRST_BYTES)
    return copy_bytes(result + MEMORY_AT + FIRST_BYTES, data + SECOND_AT, SECOND_BYTES)


def run_cases(s: State, p: int) -> int:
    """Parameters: the processor's run(), State's address, records given, results, linear address of the halts, physical
    addresses of data and exception frame, a page of zeroes, templates of State for 64 and 32 bits and of the events,
    the number of cases."""
    given = peek64(p + 16)
    result = peek64(p + 24)
    for _ in range(peek64(p + 88)):
        put_state(s, p, given)
        get_state(s, p, call_handler(s, peek64(p), 0), result)
        given = given + RECORD
        result = result + RECORD
    return 0


def one_state(s: State, p: int) -> int:
    """As run_cases, for one case that Python runs: what comes before."""
    return put_state(s, p, peek64(p + 16))


def one_result(s: State, p: int) -> int:
    """Likewise what comes after; the reason for which the run stopped is where run_cases has run()."""
    return get_state(s, p, peek64(p), peek64(p + 24))


# ---- results ------------------------------------------------------------------------------------------------------
POINTERS_AT, POINTERS_END = c.R_FP + 128 + 24, c.R_FP + 128 + 64  # FOP FIP FDP FCS FDS
AFTER_RIP, AFTER_PAD = c.R_FLAGS, c.R_FP


def settle(p: int) -> int:
    """Clears what an earlier exception has left in the host's results. Parameters: results, their number."""
    at = peek64(p)
    for _ in range(peek64(p + 8)):
        vector = peek64(at + VECTOR_AT)
        if vector > 31 or ((ERRORS >> vector) & 1) == 0:
            poke64(at + ERROR_AT, 0)
        if vector != PAGE_FAULT:
            poke64(at + CR2_AT, 0)
        poke64(at + PAD_AT, 0)
        at = at + RECORD
    return 0


def alike(a: int, b: int, start: int, end: int) -> int:
    """Are two records the same between two offsets, a multiple of 8 bytes apart?"""
    found = 0
    for at in range(start, end, 8):
        found = found | (peek64(a + at) ^ peek64(b + at))
    return int(found == 0)


def compare(p: int) -> int:
    """The number of results that differ in anything but the x87 pointers, which reviewed.py has nobody held to.
    Parameters: results, other results, their number, where to list the ones that differ, as bytes."""
    a = peek64(p)
    b = peek64(p + 8)
    listed = peek64(p + 24)
    for n in range(peek64(p + 16)):
        same = alike(a, b, 0, POINTERS_AT) and alike(a, b, POINTERS_END, END)
        if not same and (peek64(a + VECTOR_AT) < ENDLESS or peek64(a + VECTOR_AT) != peek64(b + VECTOR_AT)):
            poke64(listed, n)
            listed = listed + 8
        a = a + RECORD
        b = b + RECORD
    return (listed - peek64(p + 24)) >> 3


# ---- counting -----------------------------------------------------------------------------------------------------
def insert(p: int) -> int:
    """Puts hashes other than 0 into a table with open addressing, and returns how many were not there. Parameters: the
    table, its size less 1 (a mask), the hashes, their number."""
    table = peek64(p)
    mask = peek64(p + 8)
    hashes = peek64(p + 16)
    new = 0
    for n in range(peek64(p + 24)):
        wanted = peek64(hashes + 8 * n)
        if wanted == 0:
            continue
        at = table + 8 * (wanted & mask)
        while peek64(at) != 0 and peek64(at) != wanted:
            at = table + ((at - table + 8) & (8 * mask + 7))
        if peek64(at) == 0:
            poke64(at, wanted)
            new = new + 1
    return new


# ---- compiling ----------------------------------------------------------------------------------------------------
_ROOTS = (make_states, run_cases, one_state, one_result, settle, compare, insert)


@cache
def _compile() -> tuple[Any, dict[str, int]]:
    """The engine, which must be kept, and the addresses of the functions."""
    compiler = ModuleCompiler("tests.differential.driver", dict(LOWERINGS))
    roots = [root for root in _ROOTS if isinstance(root, FunctionType)]
    compiler.compile(*roots)
    module = llvm.parse_assembly(str(compiler.module))
    module.verify()
    target.machine()  # LLVM is ready after this; the engine wants a machine of its own
    features = target.features()
    own = llvm.Target.from_default_triple().create_target_machine(cpu=target.CPU, features=features, opt=2)
    builder = llvm.create_pass_builder(own, llvm.create_pipeline_tuning_options(speed_level=2))
    builder.getModulePassManager().run(module, builder)
    engine = llvm.create_mcjit_compiler(module, own)
    engine.finalize_object()
    return engine, {root.__name__: engine.get_function_address(symbol(root)) for root in roots}


def call(name: str, *words: int, state: State | None = None) -> int:
    """Call one of the functions above with its parameters."""
    parameters = (ctypes.c_uint64 * len(words))(*words)
    address = _compile()[1][name]
    if state is None:
        return int(ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64)(address)(ctypes.addressof(parameters)))
    kind = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64)
    return int(kind(address)(ctypes.addressof(state), ctypes.addressof(parameters)))


__all__ = ["PLAN", "POOL", "SMALL_POOL", "call"]
