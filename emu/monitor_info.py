"""The topics of the monitor's `info`: what the machine is made of and what state it is in."""

from __future__ import annotations

from itertools import islice

from pyemu import __version__
from pyemu.cpu.state import CR0, CS, HALTED, RIP, SEG_BASE
from pyemu.monitor_table import TOPICS, CommandError, Session, command, info

_MOST_MAPPINGS = 1 << 16  # a guest may map every page of every address space onto itself
_MOST_LINES = 4096
_PG = 1 << 31


@command("info", "TOPIC", "show something; `info` alone lists the topics", completes="info")
def info_(session: Session, arguments: str) -> str:
    topic, _, rest = arguments.partition(" ")
    if not topic:
        return "\n".join(f"info {known.usage} -- {known.help}" for known in TOPICS.values())
    if topic not in TOPICS:
        raise CommandError(f"info {topic}: unknown topic (known: {', '.join(TOPICS)})")
    return TOPICS[topic].function(session, rest.strip())


@info("registers", "the processor's registers")
def registers(session: Session, arguments: str) -> str:
    from pyemu.registers import dump

    with session.stopped() as machine:
        return "\nCPU#0\n" + dump(machine.state)


@info("status", "running or paused")
def status(session: Session, arguments: str) -> str:
    return f"VM status: {'running' if session.machine.running else 'paused'}"


@info("version", "of pyemu")
def version(session: Session, arguments: str) -> str:
    return __version__


@info("name", "of the guest, as -name says")
def name(session: Session, arguments: str) -> str:
    return session.machine.config.name


@info("cpus", "the processors")
def cpus(session: Session, arguments: str) -> str:
    with session.stopped() as machine:
        s = machine.state
        halted = " (halted)" if s[HALTED] else ""
        where = s[SEG_BASE + CS] + s[RIP] & 0xFFFF_FFFF_FFFF_FFFF
        return f"* CPU #0: pc={where:#018x}{halted} {machine.symbols.describe(where)}".rstrip()


@info("mtree", "the map of physical memory")
def mtree(session: Session, arguments: str) -> str:
    spans = session.machine.ram.ranges
    return "\n".join(f"{span.start:016x}-{span.end - 1:016x} {span.kind.value:4} {span.name}" for span in spans)


@info("chardev", "the character devices")
def chardev(session: Session, arguments: str) -> str:
    return "\n".join(f"{label}: filename={spec}" for label, spec in session.machine.chardev_names.items())


# ---- paging -----------------------------------------------------------------------------------------------------
@info("tlb", "every mapping of the page tables; flags: X(no execution) G P(large) D A C T U W")
def tlb(session: Session, arguments: str) -> str:
    from pyemu.pagetables import mappings

    with session.stopped() as machine:
        if not machine.state[CR0] & _PG:
            raise CommandError("PG disabled")
        found = list(islice(mappings(machine.state, machine.ram), _MOST_LINES + 1))
    lines = [f"{m.linear:016x}: {m.physical:016x} {m.flags}" for m in found[:_MOST_LINES]]
    return "\n".join([*lines, "... and more"] if len(found) > _MOST_LINES else lines)


@info("mem", "what is mapped, in ranges of equal rights: user, read, write")
def mem(session: Session, arguments: str) -> str:
    from pyemu.pagetables import mappings

    with session.stopped() as machine:
        if not machine.state[CR0] & _PG:
            raise CommandError("PG disabled")
        ranges: list[tuple[int, int, str]] = []
        count = 0
        for m in islice(mappings(machine.state, machine.ram), _MOST_MAPPINGS):
            count += 1
            rights = f"{'u' if m.user else '-'}r{'w' if m.writable else '-'}"
            if ranges and ranges[-1][1] == m.linear and ranges[-1][2] == rights:
                ranges[-1] = ranges[-1][0], m.linear + m.size, rights
            else:
                ranges.append((m.linear, m.linear + m.size, rights))
    lines = [f"{start:016x}-{end:016x} {end - start:016x} {rights}" for start, end, rights in ranges[:_MOST_LINES]]
    return "\n".join([*lines, "... and more"] if len(ranges) > _MOST_LINES or count == _MOST_MAPPINGS else lines)


# ---- interrupt controllers --------------------------------------------------------------------------------------
@info("pic", "the 8259 pair and the I/O APIC")
def pic(session: Session, arguments: str) -> str:
    from pyemu.devices.ioapic import ENTRY_LEVEL, ENTRY_LOGICAL, ENTRY_MASKED, ENTRY_REMOTE_IRR

    with session.stopped() as machine:
        board = machine.board
        lines = [f"ioapic0: ver=0x20 id={board.ioapic.state.id:#04x} sel={board.ioapic.state.select:#04x}"]
        for pin, entry in enumerate(board.ioapic.state.table):
            parts = [
                f"vec={entry & 0xFF:<3}",
                ("fixed", "lowest", "SMI", "res", "NMI", "INIT", "res", "ExtINT")[entry >> 8 & 7],
                "logical" if entry & ENTRY_LOGICAL else "physical",
                "level" if entry & ENTRY_LEVEL else "edge",
                *(["masked"] if entry & ENTRY_MASKED else []),
                *(["remote-irr"] if entry & ENTRY_REMOTE_IRR else []),
                *(["asserted"] if board.ioapic.state.lines >> pin & 1 else []),
            ]
            lines.append(f"  pin {pin:<2} {entry:#018x} dest={entry >> 56:x} {' '.join(parts)}")
        for number, chip in enumerate((board.pic.state.master, board.pic.state.slave)):
            lines.append(
                f"pic{number}: irr={chip.irr:02x} imr={chip.imr:02x} isr={chip.isr:02x} hprio={chip.highest} "
                f"irq_base={chip.vector_base:02x} elcr={chip.elcr:02x} lines={chip.lines:02x}"
            )
    return "\n".join(lines)


@info("irq", "the interrupt lines that are asserted, and what waits in the controllers")
def irq(session: Session, arguments: str) -> str:
    from pyemu.explain_time import pending_interrupts

    with session.stopped() as machine:
        asserted = [str(pin) for pin in range(24) if machine.board.ioapic.state.lines >> pin & 1]
        lines = [f"asserted inputs of the I/O APIC: {', '.join(asserted) or 'none'}"]
        lines += [f"{row.where}: {row.what}" for row in pending_interrupts(machine)]
    return "\n".join(lines)


@info("lapic", "the local APIC")
def lapic(session: Session, arguments: str) -> str:
    from pyemu.explain_time import lapic_text

    with session.stopped() as machine:
        return lapic_text(machine)


# ---- symbols ----------------------------------------------------------------------------------------------------
@info("backtrace", "who called whom, by the kernel's unwind tables or by frame pointers")
def backtrace(session: Session, arguments: str) -> str:
    with session.stopped() as machine:
        return "\n".join(str(frame) for frame in machine.backtrace())


@command("bt", "", "info backtrace", aliases=("where",))
def bt(session: Session, arguments: str) -> str:
    return backtrace(session, arguments)


@info("symbols", "where symbols come from")
def symbols(session: Session, arguments: str) -> str:
    return "\n".join(session.machine.symbols.sources()) or "no symbols (see `symbols`)"


@info("symbol", "the symbol and source line of an address", "ADDRESS")
def symbol(session: Session, arguments: str) -> str:
    with session.stopped() as machine:
        address = session.evaluate(arguments)
        found = machine.symbols.lookup(address)
        line = machine.symbols.line(address)
    if found is None:
        raise CommandError(f"no symbol is near {address:#x}")
    return f"{found} in {line}" if line else str(found)


@command("symbols", "FILE|kallsyms|save FILE", "read symbols, also the running Linux kernel's; save: for gdb, as ELF")
def symbols_(session: Session, arguments: str) -> str:
    known = session.machine.symbols
    if not arguments:
        return symbols(session, "")
    verb, _, path = arguments.partition(" ")
    if verb == "save" and path:
        return f"{known.save(path.strip())} symbols written"
    with session.stopped():
        count = known.from_kallsyms() if arguments == "kallsyms" else known.load(arguments)
    return f"{count} symbols"
