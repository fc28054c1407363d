"""Pages with protection keys (SDM 3, 4.6.2), for the topics of the user's and of the supervisor's: their tables, and what
a key forbids to whom. Not here: the registers that hold the rights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

from tests.guests.topics.program import DONE, NONE, PF, SCRATCH, Program

VA = 0x80_00A0_0000  # page n has key n % 16; each kind of pages has 16
PDPT_T, PD_T, PT_T = SCRATCH, SCRATCH + 0x1000, SCRATCH + 0x2000
TARGET = 0xA00000
PKE, PKS, WP = 1 << 22, 1 << 24, 1 << 16
E_P, E_W, E_U, E_PK = 1, 2, 4, 32
P, W, U, KEY = 1, 2, 4, 1 << 59
KEYED = 5  # the key that the cross product uses
PAGE = VA + 0x1000 * KEYED  # the first kind's with it


@dataclass(frozen=True)
class KeyPages:
    """`kinds`: the bits of their entries, by name. `bound` (U or 0): the pages that the keys are for have US so.
    `rights(value)` is code that sets what each key forbids."""

    kinds: dict[str, int]
    bound: int
    rights: Callable[[int], str]

    def _outcome(self, bits: int, denied: int, user: bool, write: bool, wp: bool) -> int:
        """The error code, or NONE."""
        error = E_P | (E_U if user else 0) | (E_W if write else 0)
        allowed = bool(bits & U) or not user
        if write and not bits & W and (user or wp):
            allowed = False
        key = bits & U == self.bound and (bool(denied & 1) or bool(denied & 2) and write and (user or wp))
        return NONE if allowed and not key else error | (E_PK if key else 0)

    def map(self, p: Program) -> None:
        """Make the page tables."""
        pml4_entry = f"mov rax, cr3\nmov qword ptr [rax + 8], {PDPT_T | 7:#x}\n"
        for table in (PDPT_T, PD_T, PT_T):
            p.asm(f"lea rdi, [{table:#x}]\nxor eax, eax\nmov ecx, 1024\nrep stosd es:[rdi], eax\n")
        p.asm(
            f"{pml4_entry}mov dword ptr [{PDPT_T:#x}], {PD_T | 7:#x}\nmov dword ptr [{PD_T + 8 * 5:#x}], {PT_T | 7:#x}\n"
        )
        for kind, bits in enumerate(self.kinds.values()):
            for key in range(16):
                n = 16 * kind + key
                entry = (TARGET + 0x1000 * n) | bits | KEY * key
                p.asm(f"mov rax, {entry:#x}\nmov [{PT_T + 8 * n:#x}], rax\n")

    def check_accesses(self, p: Program) -> None:
        """Every kind of access to every kind of page, under every right."""
        for kind, denied, user, write, wp in product(self.kinds, range(4), (True, False), (True, False), (True, False)):
            bits = self.kinds[kind]
            if user and denied and not (bits | self.bound) & U:
                continue  # refused anyway, and no judge knows whether the error code names the key, too
            address = PAGE + 0x10000 * list(self.kinds).index(kind) + 0x10
            p.asm(f"mov rax, cr0\n{'or' if wp else 'and'} eax, {WP if wp else ~WP & 0xFFFFFFFF:#x}\nmov cr0, rax\n")
            p.asm(self.rights(denied << 2 * KEYED))
            body = f"mov rbx, {address:#x}\n" + ("mov byte ptr [rbx], 1\n" if write else "mov al, [rbx]\n")
            error = self._outcome(bits, denied, user, write, wp)
            name = f"{kind}_{'write' if write else 'read'}{'_user' if user else ''}_key{denied}{'_wp' if wp else ''}"
            add = p.user if user else p.check
            if error == NONE:
                add(name, body, vector=DONE if user else NONE)
            else:
                add(name, body, vector=PF, error=error, cr2=address)

    def check_keys(self, p: Program) -> None:
        """Each key, code, and that a change takes effect at once."""
        p.asm(self.rights(0xFFFFFFFF & ~3))
        for key in range(16):
            address = VA + 0x1000 * key
            expected = {"vector": NONE} if key == 0 else {"vector": PF, "error": E_P | E_PK, "cr2": address}
            p.check(f"key_{key}", f"mov rbx, {address:#x}\nmov al, [rbx]\n", **expected)
        p.check("code_is_not_bound", f"mov byte ptr [{TARGET + 0x5000:#x}], 0xc3\nmov rax, {PAGE:#x}\ncall rax\n")
        p.check("takes_effect_at_once", self.rights(0) + f"mov rbx, {PAGE:#x}\nmov al, [rbx]\n" + self.rights(3 << 10)
                + "mov al, [rbx]\n", vector=PF, error=E_P | E_PK, cr2=PAGE)  # fmt: skip
        p.check("and_back", self.rights(0) + f"mov rbx, {PAGE:#x}\nmov al, [rbx]\n")


__all__ = ["E_P", "E_PK", "PAGE", "PKE", "PKS", "KeyPages", "P", "U", "W"]
