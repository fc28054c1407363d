"""What `explain` says of addresses, descriptors and time, against what the processor does."""

import random

import pytest

from pyemu.cpu import mode as md
from pyemu.cpu import paging
from pyemu.cpu.faults import clear_fault
from pyemu.cpu.state import (
    CPL,
    CR0,
    CR3,
    CR4,
    CS,
    EFER,
    ES,
    FLAGS,
    GDT_BASE,
    GDT_LIMIT,
    GPR,
    ICOUNT_LIMIT,
    IDT_BASE,
    IDT_LIMIT,
    PDPTE,
    PKRS,
    PKRU,
    SEG_ATTR,
    SEG_LIMIT,
    SEG_SEL,
    TR_ATTR,
    TR_BASE,
    TR_LIMIT,
    TR_SEL,
    WALK_PHYS,
)  # fmt: skip
from pyemu.dry_run import DryRun
from pyemu.explain_address import ACCESSES, describe_physical, mmu_index
from pyemu.expression import ExpressionError
from pyemu.monitor_table import Session

PG, WP, PSE, PAE, LA57, SMEP, SMAP, PKE = 1 << 31, 1 << 16, 1 << 4, 1 << 5, 1 << 12, 1 << 20, 1 << 21, 1 << 22
PKS = 1 << 24
TABLES = [0x10000 + 0x1000 * n for n in range(5)]


def random_tables(machine, rng, levels):
    """Tables that all lead on, with rights and now and then a hole, a large page, or a reserved bit."""
    s, size = machine.state, 4 if levels == 2 else 8
    linear = rng.getrandbits(32 if levels < 4 else 64)
    if levels >= 4:
        top = 56 if levels == 5 else 47
        linear &= (1 << top) - 1
        if rng.random() < 0.5:
            linear |= (1 << 64) - (1 << top)
        if rng.random() < 0.05:
            linear ^= 1 << 62
    s[CR3] = TABLES[0]
    walked = [5, 4, 3, 2, 1][5 - levels :] if levels != 3 else [2, 1]
    for n, level in enumerate(walked):
        entry = TABLES[n + 1] if level > 1 else 0x400000 + 0x1000 * rng.randrange(16)
        entry |= rng.choice((7, 7, 7, 3, 5, 1, 0x27, 0x67))
        if rng.random() < 0.08:
            entry &= ~1
        if 1 < level < 4 and rng.random() < 0.3:
            entry = (entry & 0xFFF) | 0x80 | (0x400000 if levels == 2 else 0x200000 * (level == 2))
        if size == 8:
            entry |= rng.choice((0, 0, 0, 1 << 63)) | rng.randrange(16) << 59 * (levels > 3)
            entry &= ~(0x7FF0000000000000 if levels == 3 else 0)
        if rng.random() < 0.05:
            entry |= rng.choice((1 << 45, 1 << 13)) if size == 8 else 1 << 21
        index = linear >> (10 + 10 * (2 - n)) & 0xFFC if size == 4 else linear >> (9 * level) & 0xFF8
        if size == 4:
            index = linear >> (20 if n == 0 else 10) & 0xFFC
        table = TABLES[n] if levels != 3 else TABLES[n + 1]
        if levels == 3 and level == 2:
            s[PDPTE + (linear >> 30)] = table | 1
            entry = (entry & ~0xFF000) | (TABLES[n + 2] if not entry & 0x80 else entry & 0xFF000)
        machine.memory.write(table + index, entry.to_bytes(8, "little")[:size])
    return linear


@pytest.mark.parametrize("levels", [2, 3, 4, 5])
def test_verdicts_are_the_processors(build, levels):
    machine = build()
    s, rng = machine.state, random.Random(levels)
    seen = set()
    for _ in range(300):
        machine.memory.write(0x10000, bytes(0x6000))
        s[CR0] = PG | 1 | rng.choice((0, WP))
        s[CR4] = PSE | rng.choice((0, SMEP)) | rng.choice((0, SMAP)) | (PAE if levels > 2 else 0)
        s[CR4] |= (LA57 if levels == 5 else 0) | (rng.choice((0, PKE, PKS, PKE | PKS)) if levels > 3 else 0)
        s[EFER] = (0x500 if levels > 3 else 0) | rng.choice((0, 0x800 if levels > 2 else 0))
        s[PKRU], s[PKRS] = (rng.getrandbits(32) & rng.getrandbits(32) for _ in range(2))
        s[CPL] = rng.choice((0, 3))
        s[FLAGS] = 2 | rng.choice((0, 1 << 18))
        md.update(s)
        linear = random_tables(machine, rng, levels)
        found = machine.explain(f"address {linear}")
        for words, access, is_user in ACCESSES:
            run = DryRun(machine).state
            mmu = mmu_index(s, access, is_user)
            failed = paging.walk(run, linear, access, mmu)
            verdict = found.data["verdicts"][words]
            assert verdict["allowed"] == (not failed), (hex(linear), words, found.text)
            assert verdict["reason"]
            seen.add((words, verdict["allowed"]))
            if not failed:
                assert found.data["physical"] == run[WALK_PHYS] + (linear & 0xFFF)
            clear_fault(run)
    assert len(seen) == 12, "each kind of access was both allowed and denied"


def test_why_is_told(build):
    """One page, and what is against it."""
    machine = build()
    s = machine.state
    s[CR0], s[CR3], s[CR4] = PG | WP | 1, 0x10000, PSE | SMEP | SMAP
    md.update(s)

    def reason(entry, access):
        machine.memory.write(0x10000, entry.to_bytes(4, "little"))
        return machine.explain("address 0x1234").data["verdicts"][access]["reason"]

    assert "SMEP" in reason(0x87, "supervisor execute")
    assert "SMAP" in reason(0x87, "supervisor read")
    assert "US = 0" in reason(0x83, "user read")
    assert "CR0.WP is on" in reason(0x81, "supervisor write")
    assert "RW = 0" in reason(0x85, "user write")
    assert "P = 0" in reason(0x86, "user write")
    assert "reserved" in reason(0x200087, "user read")
    assert reason(0x87, "user write") == "all levels allow it"
    s[CR0] = 1
    assert "no paging" in reason(0, "user write")


def test_physical_ranges(build):
    machine = build()
    assert describe_physical(machine, 0x1000).startswith("RAM (0x0-")
    assert "device: local apic, register at offset 0x20" in describe_physical(machine, 0xFEE00020)
    assert "ioapic" in describe_physical(machine, 0xFEC00000)
    assert describe_physical(machine, 0xD0000000).startswith("nothing")
    assert describe_physical(machine, 1 << 45).startswith("beyond")


# ---- descriptors --------------------------------------------------------------------------------------------------
def protected(machine, long=False):
    s = machine.state
    s[CR0], s[GDT_BASE], s[GDT_LIMIT] = 1, 0x2000, 0x3F
    s[IDT_BASE], s[IDT_LIMIT] = 0x3000, 0xFFF
    s[SEG_SEL + CS], s[SEG_ATTR + CS] = 8, 0xC09B
    for n, descriptor in enumerate((0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x0040F30012340FFF, 0x00008B0056780067)):
        machine.memory.write(0x2000 + 8 * n, descriptor.to_bytes(8, "little"))
    if long:
        s[EFER], s[SEG_ATTR + CS] = 0x500, 0xA09B
        machine.memory.write(0x2008, (0x00AF9B000000FFFF).to_bytes(8, "little"))
    md.update(s)


def test_selectors(build):
    machine = build()
    session = Session(machine)
    assert "real or virtual-8086 mode: base 0x10" in session.execute("explain selector 1")
    protected(machine)
    assert session.execute("explain selector 8").startswith("selector 0x8: 32-bit code, readable, accessed, DPL 0")
    data = machine.explain("selector 0x1b").data
    assert (data["dpl"], data["rpl"], data["base"], data["limit"]) == (3, 3, 0x1234, 0xFFF)
    assert "16-bit data" not in data["type"] and "writable, accessed" in data["type"]
    assert machine.explain("selector 0x20").data["type"] == "busy 32-bit TSS"
    assert "null" in session.execute("explain selector 3")
    assert "beyond the limit" in session.execute("explain selector 0x40")
    assert "there is no LDT" in session.execute("explain selector 0xc")
    assert "loaded in" in session.execute("explain selector 8")
    machine.state[GDT_BASE] = 0xD0000000
    assert "not in mapped memory" in session.execute("explain selector 8")


def test_gates(build):
    machine = build()
    session = Session(machine)
    assert "real mode: handler at" in session.execute("explain gate 3")
    protected(machine)
    machine.memory.write(0x3000 + 8 * 14, (0x00008E0000085678).to_bytes(8, "little"))
    machine.memory.write(0x3000 + 8 * 13, (0x0000050000000000).to_bytes(8, "little"))
    text = session.execute("explain gate 14")
    assert text.startswith("gate 0xe (#PF): 32-bit interrupt gate, DPL 0, to 0x8:0x5678")
    assert "handler at 0x5678" in text or "if it came now" in text
    assert "task gate, not present" in session.execute("explain gate 13")
    assert "is no interrupt, trap or task gate" in session.execute("explain gate 3")
    machine.state[IDT_LIMIT] = 0x10
    assert "beyond the limit of the IDT" in session.execute("explain gate 14")


def test_gates_in_long_mode(build):
    machine = build()
    protected(machine, long=True)
    machine.memory.write(0x3000 + 16 * 8, (0x00008E0200085678).to_bytes(8, "little") + (0x12).to_bytes(8, "little"))
    found = machine.explain("gate 8")
    assert found.data["ist"] == 2 and found.data["offset"] == 0x1200005678
    assert "IST2" in found.text


def test_task_state(build):
    machine = build()
    assert "TR is null" in machine.explain("tss").summary
    protected(machine)
    s = machine.state
    s[TR_SEL], s[TR_BASE], s[TR_LIMIT], s[TR_ATTR] = 0x20, 0x5678, 0x67, 0x8B
    machine.memory.write(0x5678 + 4, (0xABCD).to_bytes(4, "little") + (0x10).to_bytes(2, "little"))
    fields = machine.explain("tss").data["fields"]
    assert fields["ESP0"] == 0xABCD and fields["SS0"] == 0x10
    s[TR_ATTR], s[TR_LIMIT] = 0x83, 0x2B
    assert machine.explain("tss").data["type"] == "busy 16-bit TSS"
    s[EFER], s[TR_ATTR], s[TR_LIMIT] = 0x500, 0x8B, 0x67
    assert "IST7" in machine.explain("tss").text


# ---- time ----------------------------------------------------------------------------------------------------------
def test_time(build):
    machine = build()
    apic = machine.board.apic
    with machine._lock:
        apic.deliver(0, 0x51, False)
        for offset, value in ((0x108, 100_000), (0x100, 4), (0x10, 1)):
            machine.board.hpet.mmio_write(offset, 8, value)
    found = machine.explain("time")
    waiting = [(w["where"], w["what"]) for w in found.data["waiting"]]
    assert any(where == "local APIC" and "vector 0x51 requested" in what for where, what in waiting)
    owners = [timer["owner"] for timer in found.data["timers"]]
    assert "HPET 0" in owners and "PIT" in owners
    assert [t["in_ns"] for t in found.data["timers"]] == sorted(t["in_ns"] for t in found.data["timers"])
    assert "maskable interrupts are off" in found.summary
    with machine._lock:
        apic.set_tpr(0xF0)
    assert "held back" in machine.explain("time").text


# ---- the door ------------------------------------------------------------------------------------------------------
def test_no_fault_yet(build):
    assert "no exception" in build().explain("fault").summary


def test_questions(build):
    machine = build()
    assert "hlt" in machine.explain().text
    assert "hlt" in machine.explain(0x7C00).text
    assert machine.explain("$rip + 1").data["address"] == 0x7C01
    session = Session(machine)
    assert "explain tss" in session.execute("explain ?")
    for bad in ("explain nonsense", "explain gate", "explain selector", "explain tss 3 4", "explain address"):
        assert "\n" not in session.execute(bad)
    with pytest.raises(ExpressionError):
        machine.explain("fault 7")
    text = machine.explain()._repr_html_()
    assert text.startswith("<div>") and text.endswith("</div>")
    assert machine.explain().as_dict()["row"]["opcode"] == "F4"


def test_what_a_guest_can_name_is_escaped(build, tmp_path):
    (tmp_path / "map").write_text("0000000000007c00 T <script>alert(1)</script>\n")
    machine = build(symbols=(str(tmp_path / "map"),))
    html = machine.explain()._repr_html_()
    assert "&lt;script&gt;" in html and "<script>" not in html


def test_instructions_of_devices_are_not_executed(build):
    machine = build()
    machine.memory.write(0x7C00, b"\xe4\x60")  # in al, 0x60
    text = machine.explain().text
    assert "goes to a device" in text and "port read 0x60" in text
    machine.memory.write(0x7C00, b"\x0f\xff")
    assert "#UD" in machine.explain().text
    machine.regs.rip = 0xFFFF
    machine.state[CS + SEG_SEL] = 0
    machine.explain()


def test_a_repetition_without_end_is_cut_short(build):
    machine = build()
    protected(machine)
    s = machine.state
    s[ICOUNT_LIMIT], s[SEG_LIMIT + ES], s[SEG_ATTR + ES] = 1 << 62, 0xFFFFFFFF, 0xC093
    md.update(s)
    machine.memory.write(0x7C00, b"\xf3\xab")  # rep stosd
    machine.regs.rcx, machine.regs.rdi, machine.regs.rax = 0xFFFFFFFF, 0x10000, 0x11223344
    before = machine.memory.read(0x10000, 16)
    found = machine.explain()
    assert "after 64 iterations" in found.summary
    assert found.data["changes"]["rdi"]["after"] == 0x10000 + 4 * 64
    assert "until rcx = 0" in found.summary
    assert "44 33 22 11 44 33 22 11 44 33 22 11 44 33 22 11 ... (256 bytes)" in found.text
    assert machine.memory.read(0x10000, 16) == before
    machine.regs.rcx = 2
    assert "64 iterations" not in machine.explain().summary


def test_random_instructions_and_questions(build):
    """Nothing that a guest can arrange raises an exception here."""
    machine = build()
    s, rng = machine.state, random.Random(5)
    prefixes = (b"", b"\x0f", b"\x0f\x38", b"\x66\x0f", b"\xf3\x0f", b"\xc5\xf8", b"\xd8", b"\xdf", b"\xf0", b"\xf3")
    for n in range(600):
        machine.memory.write(0x7C00, rng.choice(prefixes) + rng.randbytes(12))
        mode = rng.choice((0, 1, 2))
        s[CR0], s[EFER], s[CR4] = rng.choice((0, 1, 0x11)) | (mode == 2), 0x500 * (mode == 2), rng.choice((0, 0x40620))
        s[SEG_ATTR + CS] = (0x9B, 0xC09B, 0xA09B)[mode]
        s[CPL] = rng.choice((0, 3))
        for k in range(16):
            s[GPR + k] = rng.choice((rng.getrandbits(64), rng.randrange(1 << 20)))
        md.update(s)
        questions = ["$rip"]
        if n % 20 == 0:
            questions += [f"address {rng.getrandbits(64)}", f"selector {rng.getrandbits(16)}", f"gate {n % 256}", "tss"]
        for question in questions:
            found = machine.explain(question)
            assert found.text and found.as_dict() and found._repr_html_()
