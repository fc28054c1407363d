"""The x87 operations that compute, by number, each with the host's machine code for it: what native code (jit/x87.py)
and, for the transcendental ones, the reference interpreter (x87_compute.py) execute.

The code finds ST(0) at [rdi] and ST(1), or the operand in memory, at [rsi], 80 bits or as wide as the operand. Results
go to [rdx]; a second one, or what a store instruction stores, to [rdx + 16]. Not here: what the results mean.
"""

from __future__ import annotations

from dataclasses import dataclass

# ---- kinds of operands and destinations ----------------------------------------------------------------------------
STACK, SINGLE, DOUBLE, INT16, INT32, INT64, DECIMAL = range(7)

# ---- numbers of operations -----------------------------------------------------------------------------------------
# Arithmetic and comparison: the reg field of the opcode (SDM 2, table A-7 and on) + 8 * STACK, SINGLE or DOUBLE.
ADD, MUL, COMPARE, COMPARE_QUIET, SUB, SUB_REVERSED, DIV, DIV_REVERSED = range(8)
LOAD = 0x18  # + SINGLE, DOUBLE or DECIMAL
STORE = 0x20  # + the kind
STORE_TRUNCATED = 0x28  # + the kind of integer
FUNCTION = 0x30  # + the low 4 bits of D9 F0-FF

# ---- machine code ----------------------------------------------------------------------------------------------------
_LOAD_A, _LOAD_B = "db2f", "db2e"  # fld tbyte [rdi], [rsi]
FNSTSW_AX, FNCLEX, FNINIT = bytes.fromhex("dfe0"), bytes.fromhex("dbe2"), bytes.fromhex("dbe3")
STORE_RESULTS = bytes.fromhex("db3a"), bytes.fromhex("db7a10")  # fstp tbyte [rdx], [rdx + 16]
DROP = bytes.fromhex("ddd8")  # fstp st(0)
LOAD_CONTROL, LOAD_DEFAULT = bytes.fromhex("d96a20"), bytes.fromhex("d96a22")  # fldcw [rdx + 32], [rdx + 34]
DEFAULT_CONTROL = 0x37F  # what the host runs with (System V ABI, 3.2.1): all masked, extended, nearest
ALL_MASKED = 0x3F

WIDTHS = {STACK: 80, SINGLE: 32, DOUBLE: 64, INT16: 16, INT32: 32, INT64: 64, DECIMAL: 80}


@dataclass(frozen=True)
class Operation:
    """How the host does it."""

    code: bytes  # loads and the instruction itself
    depth: int  # registers in use afterwards, if all exceptions are masked
    results: int  # how many of them are results; 2 are known to be there only if the operation was complete
    memory: int = 0  # bits that it stored instead

    def exactly(self) -> bytes:
        """The program that gives, under any control word, all that the instruction may do, from a clean state."""
        stores = b"".join(STORE_RESULTS[: self.results])
        # what an exception that isn't masked left undone leaves registers empty: storing them must not raise again
        return FNINIT + LOAD_CONTROL + self.code + FNSTSW_AX + FNCLEX + LOAD_DEFAULT + stores + FNINIT


def _operation(text: str, depth: int, results: int = 1, memory: int = 0) -> Operation:
    return Operation(bytes.fromhex(text), depth, results, memory)


def _arithmetic() -> dict[int, Operation]:
    found = {COMPARE_QUIET: _operation(_LOAD_B + _LOAD_A + "dde1", 2, 0)}
    for digit in (ADD, MUL, COMPARE, SUB, SUB_REVERSED, DIV, DIV_REVERSED):
        results = int(digit != COMPARE)
        found[digit] = _operation(_LOAD_B + _LOAD_A + f"d8{0xC1 | digit << 3:02x}", 2, results)
        for kind, opcode in ((SINGLE, "d8"), (DOUBLE, "dc")):
            found[digit + 8 * kind] = _operation(_LOAD_A + f"{opcode}{6 | digit << 3:02x}", 1, results)
    return found


def _transfers() -> dict[int, Operation]:
    loads = ((SINGLE, "d906"), (DOUBLE, "dd06"), (DECIMAL, "df26"))
    found = {LOAD + kind: _operation(code, 1) for kind, code in loads}
    for base, kind, code, depth in (
        (STORE, SINGLE, "d952", 1), (STORE, DOUBLE, "dd52", 1), (STORE, INT16, "df52", 1), (STORE, INT32, "db52", 1),
        (STORE, INT64, "df7a", 0), (STORE, DECIMAL, "df72", 0),
        (STORE_TRUNCATED, INT16, "df4a", 0), (STORE_TRUNCATED, INT32, "db4a", 0), (STORE_TRUNCATED, INT64, "dd4a", 0),
    ):  # fmt: skip
        found[base + kind] = _operation(_LOAD_A + code + "10", depth, 0, WIDTHS[kind])
    return found


F2XM1, FYL2X, FPTAN, FPATAN, FXTRACT, FPREM1 = (FUNCTION + n for n in range(6))
FPREM, FYL2XP1, FSQRT, FSINCOS, FRNDINT, FSCALE, FSIN, FCOS = (FUNCTION + n for n in range(8, 16))
TAKING_TWO = (FYL2X, FPATAN, FYL2XP1, FPREM1, FPREM, FSCALE)
PARTIAL = (FPREM, FPREM1, FSIN, FCOS)  # may leave work to do, and say so in C2
POPPING = (FYL2X, FPATAN, FYL2XP1)
PUSHING = (FPTAN, FXTRACT, FSINCOS)
TRANSCENDENTAL = (F2XM1, FYL2X, FPTAN, FPATAN, FYL2XP1, FSINCOS, FSIN, FCOS)


def _functions() -> dict[int, Operation]:
    found = {}
    for number in range(F2XM1, FCOS + 1):
        if number in (FUNCTION + 6, FUNCTION + 7):  # FDECSTP, FINCSTP
            continue
        loads = _LOAD_B + _LOAD_A if number in TAKING_TWO else _LOAD_A
        depth = 1 + (number in TAKING_TWO) + (number in PUSHING) - (number in POPPING)
        results = 2 if number in PUSHING else 1
        found[number] = _operation(f"{loads}d9{0xF0 + number - FUNCTION:02x}", depth, results)
    return found


OPERATIONS: dict[int, Operation] = _arithmetic() | _transfers() | _functions()
