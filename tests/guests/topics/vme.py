"""The virtual-mode extensions (SDM 3, 20.3 and 20.4): what CLI, STI, PUSHF, POPF, IRET and INT n do in virtual-8086 mode
with CR4.VME, and CLI and STI at CPL 3 with CR4.PVI: VIF stands in for IF, VIP refuses to set it, and the redirection
bitmap of the TSS says which software interrupts stay in the 8086 program.
"""

from __future__ import annotations

from typing import Any

from tests.guests.topics.program import BP, DATA3, DONE, GP, OF, Program
from tests.guests.topics.sixteen import Sixteen

TF, IF, IOPL, VIF, VIP = 1 << 8, 1 << 9, 3 << 12, 1 << 19, 1 << 20
OWN = 0x40  # a software interrupt with a handler in the 8086 program
WAITING = IF | VIF | VIP  # what the checks look at
REDIRECTION, IO_MAP = 0x68, 0x88  # in the TSS: 32 bytes, and behind them the I/O permission bitmap
TSS = 0x28
VME, PVI = 1, 2


def _push(image: int) -> str:
    """PUSH imm16 in 16-bit code."""
    return f".byte 0x68, {image & 0xFF:#x}, {image >> 8:#x}\n"


class _Vme:
    """The checks, in the order in which they run."""

    def __init__(self) -> None:
        self.p = Program("vme", 32, needs="vme")
        self.low = Sixteen(self.p)

    def extensions(self, bits: int) -> None:
        """Set CR4.VME and CR4.PVI."""
        self.p.asm(f"mov eax, cr4\nand eax, 0xfffffffc\nor eax, {bits}\nmov cr4, eax\n")

    def tss(self, limit: int) -> None:
        """Another limit for the TSS, and reload TR."""
        self.p.asm(
            f"mov word ptr [gdt + {TSS}], {limit:#x}\nand byte ptr [gdt + {TSS + 5}], 0xfd\nmov eax, {TSS}\nltr ax\n"
        )

    def redirect(self, vector: int, to_program: bool) -> None:
        """One bit of the bitmap; clear means that the interrupt stays in the 8086 program."""
        instruction = "btr" if to_program else "bts"
        self.p.asm(f"{instruction} dword ptr [tss + {REDIRECTION + vector // 32 * 4}], {vector % 32}\n")

    def done(self, name: str, code: str, before: int, after: int, **more: Any) -> None:
        """Code that comes to its end in virtual-8086 mode: IF, VIF and VIP before and after it, with IOPL 0."""
        self.low.v86(name, code, iopl=0, with_flags=before, flags=(after, WAITING | IOPL), **more)

    def refused(self, name: str, code: str, before: int, iopl: int = 0, **more: Any) -> None:
        """Code whose last line is #GP(0), which changes neither the flags nor SP."""
        *lines, last = code.strip().split("\n")
        lines.append(f"{name}_at: {last}")
        self.low.v86(
            name, "\n".join(lines), iopl=iopl, with_flags=before, vector=GP, error=0, ip=f"@{name}_at",
            flags=(before | iopl << 12, WAITING | IOPL), **more,
        )  # fmt: skip

    def user(self, name: str, code: str, before: int, after: int | None = None, **more: Any) -> None:
        """Code at CPL 3; without `after`, it is #GP(0)."""
        label = f"user_{name}"
        self.p.data(f"{label}: {code}\nint {DONE:#x}\n")
        self.p.attempt(self.p.to_user(label, flags=2 | before))
        expected: dict[str, Any] = {"vector": GP, "error": 0, "ip": label}
        if after is not None:
            expected = {"vector": DONE}
        self.p.verify(name, flags=(before if after is None else after, WAITING | IOPL), **{**expected, **more})

    def interrupt_flag(self) -> None:
        """CLI and STI."""
        for value in (0, IF):  # IF is not touched, whatever it is
            kind = "on" if value else "off"
            self.done(f"cli_{kind}", "cli", value | VIF, value)
            self.done(f"cli_again_{kind}", "cli", value, value)
            self.done(f"cli_pending_{kind}", "cli", value | VIP, value | VIP)
            self.done(f"sti_{kind}", "sti", value, value | VIF)
            self.done(f"sti_again_{kind}", "sti", value | VIF, value | VIF)
            self.refused(f"sti_pending_{kind}", "sti", value | VIP)
        self.low.v86("cli_iopl3", "cli", with_flags=IF | VIF, flags=(VIF, WAITING))
        self.low.v86("sti_iopl3", "cli\nsti", with_flags=VIP, flags=(IF | VIP, WAITING))

    def flags_images(self) -> None:
        """PUSHF and POPF: 16 bits only."""
        self.done("pushf", "stc\npushf\npop bx", IF, IF, bx=(0x3003, 0xF203))
        self.done("pushf_vif", "stc\npushf\npop bx", VIF, VIF, bx=(0x3203, 0xF203))
        self.low.v86("pushf_iopl3", "pushf\npop bx", with_flags=VIF, bx=(0x3002, 0xF202))
        self.refused("pushfd", "pushfd", VIF, sp=0x8000)
        self.done("popf_sets", f"{_push(IF)}popf", 0, VIF)
        self.done("popf_clears", f"{_push(0)}popf", IF | VIF, IF)
        self.done("popf_iopl_stays", f"{_push(IOPL | IF)}popf", IF, IF | VIF)
        self.done("popf_others", f"{_push(0x4CD5)}popf\npushf\npop bx", 0, 0, bx=(0x7CD7, 0xFFFF))
        self.done("popf_pending", f"{_push(0)}popf", VIP, VIP)
        self.refused("popf_if_pending", f"{_push(IF)}popf", VIP, sp=0x7FFE)
        self.refused("popf_tf", f"{_push(TF)}popf", 0, sp=0x7FFE)
        self.refused("popfd", f"{_push(0)}{_push(0)}popfd", 0, sp=0x7FFC)
        self.low.v86("popf_iopl3", f"{_push(IF)}popf", with_flags=VIP, flags=(IF | VIP, WAITING))

    def returns(self) -> None:
        """IRET within virtual-8086 mode."""
        for name, image, before, after in (
            ("sets", IF, 0, VIF), ("clears", 0, IF | VIF, IF), ("iopl_stays", IOPL | IF, 0, VIF), ("pending", 0, VIP, VIP),
        ):  # fmt: skip
            target = f"iret_{name}_to"
            code = f"{_push(image)}push cs\nmov ax, {target}\npush ax\niret\nud2\n{target}: mov cx, sp"
            self.done(f"iret_{name}", code, before, after, cx=(0x8000, 0xFFFF))
        for name, image, before in (("if_pending", IF, VIP), ("tf", TF, 0)):
            self.refused(f"iret_{name}", f"{_push(image)}push cs\n{_push(0)}iret", before, sp=0x7FFA)
        self.refused("iretd", "iretd", 0, sp=0x8000)

    def software_interrupts(self) -> None:
        """INT n and the redirection bitmap."""
        self.low.code(
            "own_handler: mov bp, sp\nmov bx, [bp + 4]\nmov cx, [bp]\nmov dx, [bp + 2]\npushf\npop si\niret\n"
        )
        own = f"int {OWN:#x}\nnop"
        for vector in (3, 0x20, 0x27, OWN, 0xFF):
            self.p.asm(f"mov eax, 0x10000000 + @own_handler\nmov [{vector * 4}], eax\n")
        for iopl in (0, 2, 3):  # what the handler finds: the flags pushed, its return address, its own flags
            for before in (0, IF, VIF, IF | VIF, VIP):
                real = iopl == 3
                seen = IF if before & (IF if real else VIF) else 0
                name = f"int_{iopl}_{before:x}"
                self.low.v86(
                    name, f"int {OWN:#x}\n{name}_next: nop", iopl=iopl, with_flags=before, bx=(IOPL | seen, 0xF300),
                    cx=(f"@{name}_next", 0xFFFF), dx=(0x1000, 0xFFFF), si=(IOPL, 0xF300),
                    flags=(before | iopl << 12, WAITING | IOPL),
                )  # fmt: skip
        self.low.v86("int_pending_return", f"{own}", iopl=0, with_flags=VIF | VIP, vector=GP, error=0)
        for vector in (0x20, 0x27, OWN, 0xFF):
            self.redirect(vector, to_program=False)
            self.refused(f"int_{vector:x}_away", f"int {vector:#x}", VIF)
            self.redirect(vector ^ 1, to_program=False)
            self.redirect(vector, to_program=True)
            self.done(f"int_{vector:x}_stays", f"int {vector:#x}\nnop", VIF, VIF, bx=(IOPL | IF, 0xF300))
            self.redirect(vector ^ 1, to_program=True)
        self.redirect(DONE, to_program=False)
        self.low.v86(
            "int_iopl3_away", f"int {DONE:#x}", with_flags=VIF, vector=DONE, flags=(VIF | IOPL, WAITING | IOPL)
        )
        self.done("int_3_long", ".byte 0xcd, 3\nnop", VIF, VIF, bx=(IOPL | IF, 0xF300))  # INT n, unlike INT3
        self.low.v86("int3_short", "nop\nint3_here: .byte 0xcc", iopl=0, vector=BP, ip="@int3_here + 1")
        self.low.v86("into", "mov al, 0x7f\nadd al, 1\ninto_here: into", iopl=0, vector=OF, ip="@into_here + 1")
        self.tss(IO_MAP - 32 + OWN // 8)  # the last byte of the bitmap that counts
        self.done("int_at_limit", own, VIF, VIF, bx=(IOPL | IF, 0xF300))
        self.tss(IO_MAP - 32 + OWN // 8 - 1)
        for iopl in (0, 3):
            self.refused(f"int_beyond_limit_{iopl}", f"int {OWN:#x}", VIF, iopl)
        self.tss(IO_MAP)

    def cpl3(self) -> None:
        """CLI and STI at CPL 3 of protected mode; PUSHF and POPF are not changed (SDM 3, 20.4)."""
        for extensions in (0, VME):
            self.extensions(extensions)
            for name in ("cli", "sti"):
                self.user(f"cpl3_{name}_{extensions}", name, VIF)
        for extensions in (PVI, PVI | VME):
            self.extensions(extensions)
            self.user(f"pvi_cli_{extensions}", "cli", IF | VIF, IF)
            self.user(f"pvi_sti_{extensions}", "sti", 0, VIF)
            self.user(f"pvi_cli_pending_{extensions}", "cli", VIP, VIP)
            self.user(f"pvi_sti_pending_{extensions}", "sti", VIP)
        self.extensions(PVI)
        self.user("pvi_cli_iopl3", "cli", IF | VIF | IOPL, VIF | IOPL)
        self.user("pvi_sti_iopl3", "cli\nsti", VIP | IOPL, VIP | IF | IOPL)
        self.user("pvi_pushf", "pushfd\npop ebx", VIF, VIF, bx=(VIF, WAITING | IOPL))
        self.user("pvi_popf", f"push {IF | IOPL}\npopfd", VIF, VIF)
        self.user("pvi_popf_clear", "push 0\npopfd", IF | VIF, IF | VIF)
        self.user("pvi_int", f"int {DONE:#x}", VIF, VIF, ss=DATA3)
        for name in ("cli", "sti", "pushf"):
            self.refused(f"pvi_only_{name}", name, VIF)
        self.refused("pvi_only_int", f"int {OWN:#x}", VIF)


def program() -> Program:
    v = _Vme()
    v.p.check("cpuid", "mov eax, 1\ncpuid", dx=(2, 2))
    v.p.asm(f"mov word ptr [tss + 102], {IO_MAP:#x}\n")
    v.p.asm(f"mov edi, tss + {REDIRECTION:#x}\nmov ecx, 32\nxor eax, eax\nrep stosb es:[edi], al\n")
    v.tss(IO_MAP)
    for name, code in (("cli", "cli"), ("sti", "sti"), ("pushf", "pushf"), ("int", f"int {OWN:#x}")):
        v.refused(f"off_{name}", code, VIF)
    v.extensions(VME)
    v.interrupt_flag()
    v.flags_images()
    v.returns()
    v.software_interrupts()
    v.cpl3()
    return v.p
