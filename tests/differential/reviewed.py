"""What the judges can't judge, and where they are known to differ: every entry with its reason.

`OPEN` are mistakes that wait to be mended. `HOST_CANNOT` are mnemonics that the host can't execute in a child process
with a meaning that pyemu could be held to.
`excused` says whether one difference of a result is reviewed. A new entry needs evidence that the judge is at fault, or
that the architecture leaves it open; a mistake of pyemu's is mended, not listed.
"""

from __future__ import annotations

import re

from pyemu.cpu import flags as fl
from pyemu.cpu.ops import Form
from tests.differential import case as c
from tests.differential.host import is_zen4

_AREA = "its area is larger than the compared memory, or seldom good: test_save_areas.py"
_PRIVATE = "its result is the machine's own: time, identity, configuration"
_LEAVES = "it leaves the judge's control"
_KERNEL = "Linux emulates it for UMIP, with answers of its own"
_TABLES = "it depends on the descriptor tables of the host's kernel"
HOST_CANNOT: dict[str, str] = {
    "cpuid": _PRIVATE, "rdtsc": _PRIVATE, "rdtscp": _PRIVATE, "rdpid": _PRIVATE, "rdrand": _PRIVATE,
    "rdseed": _PRIVATE, "rdpmc": _PRIVATE, "xgetbv": _PRIVATE,
    "syscall": _LEAVES, "sysenter": _LEAVES, "int": _LEAVES, "vmcall": _LEAVES, "vmmcall": _LEAVES,
    "sgdt": _KERNEL, "sidt": _KERNEL, "sldt": _KERNEL, "str": _KERNEL, "smsw": _KERNEL,
    "lar": _TABLES, "lsl": _TABLES, "verr": _TABLES, "verw": _TABLES, "callf": _TABLES, "jmpf": _TABLES,
    "retf": _TABLES, "iret": _TABLES, "les": _TABLES, "lds": _TABLES, "lss": _TABLES, "lfs": _TABLES, "lgs": _TABLES,
    "xsave": _AREA, "xsaveopt": _AREA, "xsavec": _AREA, "xrstor": _AREA, "fxrstor": _AREA,
    "sysret": "a privileged instruction whose fault differs between vendors",
    "sysexit": "likewise",
}  # fmt: skip
# Forms that load or show a segment register, found by their operand.
_SEGMENT_OPERAND = "it depends on the descriptor tables of the host's kernel"

TASK_SIZE_MAX = (1 << 47) - 0x1000  # Linux, arch/x86/include/asm/page_64.h
FLAG_LETTERS = {"O": fl.OF, "S": fl.SF, "Z": fl.ZF, "A": fl.AF, "P": fl.PF, "C": fl.CF}


def host_cannot(form: Form) -> str:
    """Why the host can't judge a form; "" if it can."""
    if any(o.kind == "seg" for o in form.operands):
        return _SEGMENT_OPERAND
    return HOST_CANNOT.get(form.row.name, "")


# Mistakes of pyemu's that the harness has found and that are not mended yet, by mnemonic. It should be empty.
OPEN: dict[str, str] = {}


def is_open(form: Form) -> str:
    """What is known to be wrong in pyemu about an instruction; "" if nothing is."""
    return next((text for pattern, text in OPEN.items() if re.fullmatch(pattern, form.row.name)), "")


def compared_flags(form: Form) -> int:
    """The bits of RFLAGS that must be equal: all where the host's processor is one whose undefined flags pyemu has,
    else all but those that the SDM leaves undefined in the form."""
    mask = ~0
    if is_zen4():
        return mask
    for letter in form.row.undefined:
        mask &= ~FLAG_LETTERS[letter]
    return mask


def ignored(result: bytes) -> bytes:
    """A result with what no judge can be held to set to zero: the x87 pointers, which AMD's processors save only while
    an exception is pending (APM 2, 11.4.4), and bit P of a page fault's error code beyond user space, which Linux sets
    so as not to tell what is mapped there (arch/x86/mm/fault.c, sanitize_error_code)."""
    at = c.R_FP + 128 + 24
    result = result[:at] + bytes(40) + result[at + 40 :]
    if c.word(result, c.R_VECTOR) == c.PAGE_FAULT and c.word(result, c.R_CR2) >= TASK_SIZE_MAX:
        return result[: c.R_ERROR] + bytes([result[c.R_ERROR] & ~1]) + result[c.R_ERROR + 1 :]
    return result


def any_base(result: bytes) -> bool:
    """Is there a base of FS or GS that the address may have used?"""
    return bool(c.word(result, c.R_FS) or c.word(result, c.R_GS))


def excused(form: Form, found: bytes, expected: bytes) -> str:
    """Why a difference is none of pyemu's mistakes; "" if it may be one."""
    vector = c.word(expected, c.R_VECTOR)
    ours = c.word(found, c.R_VECTOR)
    if form.row.name == "fxsave" and ours == vector in (1, c.BREAKPOINT):
        at = [n for n in range(c.R_MEMORY, c.R_END) if found[n] != expected[n]]
        if len(at) == 1 and found[at[0]] ^ expected[at[0]] == 2:
            return "MXCSR_MASK has bit 17 on AMD's processors: misaligned SSE mode (APM 2, 11.3.2), which no model has"
    if "ldmxcsr" in form.row.name and (ours, vector) == (13, c.BREAKPOINT) and c.word(expected, c.R_MXCSR) & 1 << 17:
        return "bit 17 of MXCSR is misaligned SSE mode on AMD's processors (APM 2, 11.3.2), which no model has"
    if form.row.name == "mov" and (ours, vector) == (6, 13) and any(o.kind == "cr" for o in form.operands):
        return "LOCK MOV CR0 is MOV CR8 on AMD's processors (AltMovCr8, CPUID 8000_0001H ECX bit 4), which no model has"
    errors = c.word(found, c.R_ERROR), c.word(expected, c.R_ERROR)
    if ours == vector == c.PAGE_FAULT and errors[0] & 0x10 and errors[1] == errors[0] | 1:
        return "a jump to where the judge's process has memory of its own, which is not to be executed"
    untraced = not c.word(expected, c.R_FLAGS) & fl.TF  # the #DB is that of INT1 in the bytes behind
    if (untraced or form.row.name == "icebp") and ours == vector == 1 and found[c.R_ERROR :] == expected[c.R_ERROR :]:
        return "a hypervisor that injects the #DB of INT1 as a fault: RIP is that of INT1, not behind it (SDM 2, INT1)"
    if {ours, vector} == {12, 13} and any(o.is_memory and o.size >= 16 for o in form.operands):
        return "an operand that is both misaligned and beyond the stack segment's limit: which comes first is open"
    if form.row.name == "cmps" and vector in (13, c.PAGE_FAULT) and ours in (13, c.PAGE_FAULT):
        return "neither operand is good: which fault comes first is open"
    if ours == c.PAGE_FAULT and vector == 13 and c.word(found, c.R_CR2) >> 32 == 0xFFFF8000 and any_base(found):
        return "Zen 4 wants the offset to be canonical before a segment base is added; the SDM only the sum"
    if form.row.name in ("fldenv", "frstor", "fnstenv", "fnsave") and ours in (12, 13) and vector == c.PAGE_FAULT:
        return "whether the limit is checked for all parts before the first is read is open"
    if form.row.name.startswith(("fxsave", "fxrstor")) and (ours, vector) == (13, 17):
        return "neither segment nor alignment is good: the SDM doesn't promise #AC at all (SDM 2, FXSAVE)"
    wrapped = c.word(found, c.R_CR2) ^ c.word(expected, c.R_CR2)
    if form.row.name.startswith(("fxsave", "fxrstor")) and ours == vector == c.PAGE_FAULT and wrapped == 1 << 16:
        return "an area that reaches past the end of 16-bit offsets: whether it goes on behind it is open"
    if "maskmov" in form.row.name and vector == c.PAGE_FAULT and c.word(expected, c.R_CR2) < 64:
        return "whether what lies beyond the last offset is at the first one or nowhere is open (SDM 3, 23.31.1)"
    if form.row.name == "bound" and ours in (12, 13) and vector == c.PAGE_FAULT:
        return "whether the limit is checked for both bounds before the first is read is open"
    if form.row.name == "call" and ours == 13 and vector in (12, c.PAGE_FAULT, 17):
        return "neither the target nor the stack is good: which fault comes first is open"
    return ""


__all__ = ["HOST_CANNOT", "OPEN", "compared_flags", "excused", "host_cannot", "ignored", "is_open"]
