"""What stencils are to LLVM and to the linker: functions with holes, and the machine code that is cut out of objects.

A hole is a symbol (`hole_*`) whose relocations the translator fills in. LLVM is told in which range its value lies, by
which it chooses the encoding. Not here: what is in a stencil (stencils.py), the tables for the translator
(stencil_table.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import llvmlite.ir as ir

from pyemu.jit import elf
from pyemu.jit.layout import SITES
from pyemu.jit.subset import I8, I64, PTR, VOID, ModuleCompiler
from pyemu.jit.target import compile_ir

STENCIL_TYPE = ir.FunctionType(VOID, [PTR, I64, I64, I64])

# Holes: what the translator fills in. The order is the numbering that relocations use.
HOLES = (
    "reg", "rm", "op", "base", "index", "segment", "disp", "imm", "imm32", "imm64", "disp64", "rip", "next",
    "count", "record", "resume", "tlb", "tlb_write", "tlb_addend", "slot", "slot_next",
    "slow", "cont", "exec", "leave", "unlinked", "proceed", "constants", "vvvv", "extent", "kept",
    "taken", "following",
)  # fmt: skip
HOLE = {name: number for number, name in enumerate(HOLES)}
CODE_HOLES = ("slow", "cont", "exec", "leave", "unlinked", "proceed", "taken", "following")
# Ranges of values, which decide the encoding: offsets and 32-bit values, signed 32 bits, anything.
# Numbers far above those that llvmlite gives its own metadata (branch weights).
_UNSIGNED32, _UNSIGNED31, _SIGNED32, _ANY = "!900000", "!900001", "!900002", "!900003"
_RANGE = {
    "kept": _SIGNED32, "disp": _SIGNED32,
    "imm32": _UNSIGNED32, "imm64": _ANY, "disp64": _ANY, "rip": _ANY, "next": _ANY,
    "record": _UNSIGNED31, "resume": _UNSIGNED31, "slot": _UNSIGNED31, "slot_next": _UNSIGNED31,
}  # fmt: skip
METADATA = f"""
{_UNSIGNED32} = !{{i64 0, i64 4294967296}}
{_UNSIGNED31} = !{{i64 0, i64 2147483648}}
{_SIGNED32} = !{{i64 -2147483648, i64 2147483648}}
{_ANY} = !{{i64 -1, i64 -1}}
"""


def function(owner: ModuleCompiler, name: str) -> ir.Function:
    """An empty stencil function."""
    fn = ir.Function(owner.module, STENCIL_TYPE, name)
    fn.calling_convention = "preserve_nonecc"
    fn.attributes.add("nounwind")
    fn.attributes.add("optsize")  # makes a branch to a tail call one conditional jump
    return fn


def hole(owner: ModuleCompiler, b: ir.IRBuilder, name: str) -> ir.Value:
    """The value of a hole: ptrtoint of its symbol. One of 64 bits is loaded by hand, because LLVM takes any symbol to
    fit the 32-bit immediate of a store (small code model), and an immediate that is extended to them, of which it would
    make one of 64 bits."""
    if name == "imm" or _RANGE.get(name) == _ANY:
        move = "movq" if name == "imm" else "movabsq"
        value = b.asm(ir.FunctionType(I64, []), f"{move} $$hole_{name}, $0", "=r", [], False)
        value.attributes.add("readnone")
        return value
    symbol = owner.module.globals.get(f"hole_{name}") or ir.GlobalVariable(owner.module, I8, f"hole_{name}")
    return b.ptrtoint(symbol, I64)


def code_hole(owner: ModuleCompiler, name: str) -> ir.Function:
    """A function symbol that the translator resolves."""
    fn = owner.module.globals.get(f"hole_{name}")
    if fn is None:
        fn = ir.Function(owner.module, STENCIL_TYPE, f"hole_{name}")
        fn.calling_convention = "preserve_nonecc"
    return fn


def tail_call(b: ir.IRBuilder, target: ir.Value, arguments: list[ir.Value]) -> None:
    """musttail call and return."""
    b.call(target, arguments, cconv="preserve_nonecc", tail="musttail")
    b.ret_void()


def compile_object(owner: ModuleCompiler) -> bytes:
    """The object file of a module of stencils."""
    return compile_ir(finish(str(owner.module)), level=1, reloc="static")


def finish(text: str) -> str:
    """Give holes the properties that llvmlite cannot say."""
    lines = []
    for line in text.splitlines():
        if line.startswith('@"hole_'):
            name = line[len('@"hole_') : line.index('"', 2)]
            line = line.replace("external global i8", "external dso_local global i8")
            line += f", !absolute_symbol {_RANGE.get(name, _UNSIGNED31)}"
        elif line.startswith(("declare preserve", "define preserve")):
            line = line.replace("declare preserve", "declare dso_local preserve", 1)
            line = line.replace("define preserve", "define dso_local preserve", 1)
        lines.append(line)
    return "\n".join(lines) + METADATA


Relocations = list[tuple[int, int, int, int]]
ALIGNMENT = 64
LONGEST = 640  # bytes of code; 64 such in a block, with their stubs, stay within translator.MARGIN


@dataclass
class Stencil:
    """Machine code, its holes: (offset, relocation type, hole number, addend), and the constants that it refers to, at
    an address that is a multiple of ALIGNMENT."""

    code: bytes
    relocations: Relocations
    constants: bytes = b""
    wide: bool = False  # it is for 64-bit mode alone
    address_sized: bool = False  # it depends on the address size beyond the operand's address


def extract(data: bytes, names: list[str]) -> dict[str, Stencil]:
    """Cut an object file into stencils, without those that cut() refuses: those forms run by their handlers (tests say
    which must have a stencil)."""
    parsed = elf.parse(data)
    constants, places = pool(parsed)
    result: dict[str, Stencil] = {}
    for name in names:
        symbol = parsed.symbols[name]
        section = parsed.sections[symbol.section]
        code = bytes(section.data[symbol.value : symbol.value + symbol.size])
        relocations = []
        for r in section.relocations:
            at = r.offset - symbol.value
            if not 0 <= at < symbol.size:
                continue
            if r.symbol.startswith("hole_"):
                relocations.append((at, r.kind, HOLE[r.symbol.removeprefix("hole_")], r.addend))
            elif r.section in places:
                relocations.append((at, r.kind, HOLE["constants"], places[r.section] + r.value + r.addend))
            else:
                break  # a jump table
        else:
            if (stencil := cut(code, relocations)) is not None:
                uses = any(number == HOLE["constants"] for _, _, number, _ in relocations)
                result[name] = Stencil(*stencil, constants if uses else b"")
    return result


def pool(parsed: elf.Object) -> tuple[bytes, dict[int, int]]:
    """The constants of an object in one piece, and where in it each section with constants is."""
    data, places = bytearray(), dict[int, int]()
    for number, section in parsed.sections.items():
        if section.name.startswith(".rodata") and not section.relocations:
            data += bytes(-len(data) % ALIGNMENT)
            places[number] = len(data)
            data += section.data
    return bytes(data), places


def cut(code: bytes, relocations: Relocations) -> tuple[bytes, Relocations] | None:
    """Strip the final `jmp cont`, or leave the one that jumps over what LLVM put last; None if there are several, or
    more jumps to a chain slot's target than the slot can know, or if the code is so long that copying it would be a
    waste."""
    last = len(code) - 4
    final = (last, elf.R_PLT32, HOLE["cont"], -4)
    jumps = sum(number == HOLE["cont"] for _, _, number, _ in relocations)
    chained = (sum(number == HOLE[name] for _, _, number, _ in relocations) for name in ("taken", "following"))
    if jumps > 1 or max(chained) > SITES or len(code) > LONGEST:
        return None
    if final in relocations and code[last - 1] == 0xE9:
        relocations.remove(final)
        code = code[: last - 1]
    return code, relocations
