"""Delivery of interrupts and exceptions, double and triple faults (SDM 3, chapter 6; SDM 2, INT n).

Mechanism subset.

    software_interrupt(s, vector, kind, next_rip)   INT n (SOFTWARE), INT3 and INTO (TRAP_INSTRUCTION), ICEBP
    deliver(s, vector, error, kind, rip)            one event; `rip` is what the handler will find as return address
    deliver_fault(s)                                the exception noted in FAULT_*: 0, or 2 for shutdown
    take_interrupts(s)                              NMI and external interrupts: 0 nothing, 1 delivered, 2 shutdown

All change s[RIP]; software_interrupt also leaves the new RIP in VALUE, for Instruction.jump().
FAULT_CHAIN, two words an exception: VALID | error << 8 | vector, then the address for #PF, RIP for others.
Not here: task switches (tasks.py), the way back (iret.py).
"""

from __future__ import annotations

from pyemu.cpu import debug, hooks, memory, mode, segments, tasks, virtual8086
from pyemu.cpu import descriptors as ds
from pyemu.cpu import flags as fl
from pyemu.cpu.faults import (
    BENIGN,
    CONTRIBUTORY_CLASS,
    DB,
    DF,
    DOUBLE_FAULT_CLASS,
    DR6_HITS,
    EXT,
    GP,
    IDT,
    MF,
    NMI,
    NP,
    PAGE_FAULT_CLASS,
    PF,
    TRAPS,
    fault_class,
    has_error_code,
    raise_fault,
)
from pyemu.cpu.faults import SS as STACK_FAULT
from pyemu.cpu.primitives import call_service, service
from pyemu.cpu.state import (
    CPL,
    CR0,
    CR2,
    CS,
    DEBUGCTL,
    DR,
    DS,
    ES,
    FAULT_CHAIN,
    FAULT_CR2,
    FAULT_DR6,
    FAULT_ERROR,
    FAULT_VECTOR,
    FLAGS,
    FRAME,
    FS,
    GPR,
    GS,
    HALTED,
    HOOK_EVENTS,
    HOOK_PASSED,
    ICOUNT,
    IDT_BASE,
    IDT_LIMIT,
    IRQ_PENDING,
    M64,
    MODE,
    MONITORED,
    NMI_BLOCKED,
    NMI_PENDING,
    NO_FAULT,
    PENDING_DEBUG,
    RIP,
    RSP,
    SEG_SEL,
    SHADOW,
    SS,
    STEPPING,
    VALUE,
    State,
)

# Kinds of events.
HARDWARE, SOFTWARE, EXCEPTION, ICEBP, NONMASKABLE, TRAP_INSTRUCTION = 0, 1, 2, 3, 4, 5

VALID = 1 << 63  # in FAULT_CHAIN
CHAIN_WORDS = 8
MOST_NESTED = 8  # deliveries in a row after which a guest that never gets anywhere is shut down
DELIVERED, SHUTDOWN = 1, 2


# ---- deliver ------------------------------------------------------------------------------------------------
def is_software(kind: int) -> int:
    """1 for INT n, INT3 and INTO: gate privilege is checked and EXT is clear."""
    return 1 if kind == SOFTWARE or kind == TRAP_INSTRUCTION else 0


def pushed_flags(s: State, vector: int, kind: int) -> int:
    """The RFLAGS image of the handler's frame: RF is set for faults, so that a breakpoint doesn't fire again."""
    image = fl.eflags(s)
    if kind == EXCEPTION and not (TRAPS >> vector) & 1:
        return image | fl.RF
    if is_software(kind):
        return image & ~fl.RF
    return image


def clear_flags(s: State, interrupt_gate: int) -> int:
    """TF, NT, VM, RF, and IF for an interrupt gate; the mode word is brought up to date by the caller."""
    drop = fl.TF | fl.NT | fl.VM | fl.RF
    if interrupt_gate:
        drop |= fl.IF
    s[FLAGS] = s[FLAGS] & ~drop
    return 0


def deliver_real(s: State, vector: int, kind: int, rip: int) -> int:
    """Through the interrupt vector table (SDM 3, 20.1.4)."""
    if vector * 4 + 3 > s[IDT_LIMIT]:
        return raise_fault(s, GP, vector * 8 + IDT)
    if memory.read(s, ds.wrap(s, s[IDT_BASE] + vector * 4), 4, memory.SYSTEM):
        return 1
    entry = s[VALUE]
    s[FRAME] = pushed_flags(s, vector, kind)
    s[FRAME + 1] = s[SEG_SEL + CS]
    s[FRAME + 2] = rip
    if segments.push_frame_here(s, 3, 2, 0):
        return 1
    segments.set_stack_pointer(s, s[VALUE])
    clear_flags(s, 1)
    s[FLAGS] = s[FLAGS] & ~fl.AC
    segments.set_real(s, CS, entry >> 16)
    s[RIP] = entry & 0xFFFF
    return mode.update(s)


def gate_code(s: State, selector: int, ext: int) -> int:
    """Check the code segment of a gate; VALUE = its descriptor, marked accessed."""
    if selector & 0xFFFC == 0:
        return raise_fault(s, GP, ext)
    if ds.fetch(s, selector, GP, ext):
        return 1
    d = s[VALUE]
    attr = ds.attr_of(d)
    error = ds.selector_error(selector, ext)
    if not ds.is_code(attr) or ds.dpl_of(attr) > s[CPL]:
        return raise_fault(s, GP, error)
    if not attr & ds.P:
        return raise_fault(s, NP, error)
    if ds.long_mode(s) and attr & (ds.L | ds.DB) != ds.L:
        return raise_fault(s, GP, error)
    if ds.set_type_bits(s, selector, d, ds.ACCESSED):
        return 1
    s[VALUE] = d
    return 0


def gate_level(s: State, d: int) -> int:
    """Privilege at which a gate's code segment will run."""
    attr = ds.attr_of(d)
    if ds.is_conforming(attr):
        return int(s[CPL])
    return ds.dpl_of(attr)


def deliver_long(s: State, vector: int, error: int, kind: int, rip: int) -> int:
    """Long mode: 16-byte gates, 64-bit handlers, aligned stacks, IST (SDM 3, 6.14)."""
    ext = 0 if is_software(kind) else EXT
    code = vector * 8 + IDT + ext
    if vector * 16 + 15 > s[IDT_LIMIT]:
        return raise_fault(s, GP, code)
    if memory.read(s, (s[IDT_BASE] + vector * 16) & M64, 8, memory.SYSTEM):
        return 1
    gate = s[VALUE]
    attr = ds.attr_of(gate)
    kind_of_gate = attr & (ds.S | ds.TYPE)
    if kind_of_gate != ds.INTERRUPT_GATE32 and kind_of_gate != ds.TRAP_GATE32:
        return raise_fault(s, GP, code)
    if is_software(kind) and ds.dpl_of(attr) < s[CPL]:
        return raise_fault(s, GP, code)
    if not attr & ds.P:
        return raise_fault(s, NP, code)
    if memory.read(s, (s[IDT_BASE] + vector * 16 + 8) & M64, 8, memory.SYSTEM):
        return 1
    offset = ds.gate_offset(gate) | (s[VALUE] & 0xFFFFFFFF) << 32
    selector = ds.gate_selector(gate)
    if gate_code(s, selector, ext):
        return 1
    d = s[VALUE]
    if not mode.is_canonical(s, offset):
        return raise_fault(s, GP, ext)
    cpl = gate_level(s, d)
    pointer = s[GPR + RSP]
    ist = (gate >> 32) & 7
    access = 0
    if ist or cpl < s[CPL]:
        if tasks.long_stack(s, cpl, ist, ext):
            return 1
        pointer = s[VALUE]
        if not mode.is_canonical(s, pointer):
            return raise_fault(s, STACK_FAULT, ext)
        if cpl != 3:
            access = memory.SYSTEM
    s[FRAME] = s[SEG_SEL + SS]
    s[FRAME + 1] = s[GPR + RSP]
    s[FRAME + 2] = pushed_flags(s, vector, kind)
    s[FRAME + 3] = s[SEG_SEL + CS]
    s[FRAME + 4] = rip
    s[FRAME + 5] = error
    count = 6 if kind == EXCEPTION and has_error_code(vector) else 5
    if segments.push_frame(s, 0, 0, 0, M64, pointer & ~15, count, 8, ext, access):
        return 1
    s[GPR + RSP] = s[VALUE]
    if cpl != s[CPL]:
        segments.set_null(s, SS, cpl)
    clear_flags(s, 1 if kind_of_gate == ds.INTERRUPT_GATE32 else 0)
    s[RIP] = offset
    return segments.set_code(s, selector, d, cpl)


def deliver_to_task(s: State, selector: int, vector: int, error: int, kind: int, rip: int) -> int:
    """Through a task gate; the error code is pushed on the new task's stack."""
    ext = 0 if is_software(kind) else EXT
    if tasks.switch_task(s, selector, tasks.BY_INTERRUPT, rip, pushed_flags(s, vector, kind), ext):
        return 1
    sound = s[FAULT_VECTOR] == NO_FAULT or s[FAULT_VECTOR] == DB
    if sound and kind == EXCEPTION and has_error_code(vector):
        size = 4 if tasks.is_tss32(s) else 2
        s[FRAME] = error
        if segments.push_frame_here(s, 1, size, ext) == 0:
            segments.set_stack_pointer(s, s[VALUE])
    return 0


def frame_of_v86(s: State) -> int:
    """The first four words of a frame that leaves virtual-8086 mode."""
    s[FRAME] = s[SEG_SEL + GS]
    s[FRAME + 1] = s[SEG_SEL + FS]
    s[FRAME + 2] = s[SEG_SEL + DS]
    s[FRAME + 3] = s[SEG_SEL + ES]
    return 4


def frame_end(s: State, at: int, vector: int, error: int, kind: int, rip: int) -> int:
    """FLAGS, CS, IP and the error code at FRAME + at; returns the number of words of the frame."""
    s[FRAME + at] = pushed_flags(s, vector, kind)
    s[FRAME + at + 1] = s[SEG_SEL + CS]
    s[FRAME + at + 2] = rip
    if kind == EXCEPTION and has_error_code(vector):
        s[FRAME + at + 3] = error
        return at + 4
    return at + 3


def deliver_protected(s: State, vector: int, error: int, kind: int, rip: int) -> int:
    """Protected mode: 16-bit and 32-bit interrupt, trap and task gates; out of virtual-8086 mode too."""
    ext = 0 if is_software(kind) else EXT
    code = vector * 8 + IDT + ext
    if kind == SOFTWARE and s[FLAGS] & fl.VM:
        if virtual8086.redirected(s, vector):
            return 1
        if s[VALUE]:
            return virtual8086.software_interrupt(s, vector, rip)
        if s[FLAGS] & fl.IOPL != fl.IOPL:
            return raise_fault(s, GP, 0)
    if vector * 8 + 7 > s[IDT_LIMIT]:
        return raise_fault(s, GP, code)
    if memory.read(s, ds.wrap(s, s[IDT_BASE] + vector * 8), 8, memory.SYSTEM):
        return 1
    gate = s[VALUE]
    attr = ds.attr_of(gate)
    gate_type = attr & (ds.S | ds.TYPE)
    wide = gate_type & 8
    if gate_type != ds.TASK_GATE and gate_type & ~8 != ds.INTERRUPT_GATE16 and gate_type & ~8 != ds.TRAP_GATE16:
        return raise_fault(s, GP, code)
    if is_software(kind) and ds.dpl_of(attr) < s[CPL]:
        return raise_fault(s, GP, code)
    if not attr & ds.P:
        return raise_fault(s, NP, code)
    selector = ds.gate_selector(gate)
    if gate_type == ds.TASK_GATE:
        return deliver_to_task(s, selector, vector, error, kind, rip)
    if gate_code(s, selector, ext):
        return 1
    d = s[VALUE]
    cpl = gate_level(s, d)
    from_v86 = s[FLAGS] & fl.VM
    if from_v86 and cpl != 0:
        return raise_fault(s, GP, ds.selector_error(selector, ext))
    offset = ds.gate_offset(gate) if wide else gate & 0xFFFF
    if offset > ds.limit_of(d):
        return raise_fault(s, GP, ext)
    size = 4 if wide else 2
    if cpl < s[CPL]:
        if tasks.inner_stack(s, cpl, ext):
            return 1
        stack = s[VALUE]
        stack_selector = s[tasks.INNER_SELECTOR]
        at = frame_of_v86(s) if from_v86 else 0
        s[FRAME + at] = s[SEG_SEL + SS]
        s[FRAME + at + 1] = s[GPR + RSP]
        count = frame_end(s, at + 2, vector, error, kind, rip)
        stack_attr = ds.attr_of(stack)
        mask = segments.pointer_mask(s, stack_attr)
        if segments.push_frame(
            s, ds.base_of(stack), ds.limit_of(stack), stack_attr, mask, s[tasks.INNER_POINTER] & mask, count, size,
            ds.selector_error(stack_selector, ext), memory.SYSTEM,
        ):  # fmt: skip
            return 1
        pointer = s[VALUE]
        segments.set_from_descriptor(s, SS, stack_selector, stack)
        if from_v86:
            segments.set_null(s, ES, 0)
            segments.set_null(s, DS, 0)
            segments.set_null(s, FS, 0)
            segments.set_null(s, GS, 0)
        clear_flags(s, 1 if gate_type & ~8 == ds.INTERRUPT_GATE16 else 0)
        segments.set_code(s, selector, d, cpl)
    else:
        count = frame_end(s, 0, vector, error, kind, rip)
        if segments.push_frame_here(s, count, size, ext):
            return 1
        pointer = s[VALUE]
        clear_flags(s, 1 if gate_type & ~8 == ds.INTERRUPT_GATE16 else 0)
        segments.set_code(s, selector, d, cpl)
    segments.set_stack_pointer(s, pointer)
    s[RIP] = offset
    return 0


def hook_kind(kind: int) -> int:
    """What a debugger's hooks call an event."""
    if is_software(kind):
        return hooks.SOFTWARE_INTERRUPT
    if kind == HARDWARE or kind == NONMASKABLE:
        return hooks.INTERRUPT
    return hooks.EXCEPTION


def deliver(s: State, vector: int, error: int, kind: int, rip: int) -> int:
    """Deliver one event; 0, or 1 with a fault of the delivery itself raised and nothing changed. After 0, a fault that
    waits is the new task's (tasks.switch_task)."""
    if s[HOOK_EVENTS]:
        hooks.event(s, hook_kind(kind), vector | (error & 0xFFFFFFFF) << 8, rip)
    if s[MODE] & mode.PROTECTED == 0:
        return deliver_real(s, vector, kind, rip)
    if ds.long_mode(s):
        return deliver_long(s, vector, error, kind, rip)
    return deliver_protected(s, vector, error, kind, rip)


def software_interrupt(s: State, vector: int, kind: int, next_rip: int) -> int:
    """INT n, INT3, INTO (whose condition the instruction tests) and ICEBP. The handler isn't stepped into."""
    s[STEPPING] = 0
    if kind == ICEBP:  # one #DB with what the MOV SS before it has hit
        s[FAULT_DR6] = s[PENDING_DEBUG]
        s[PENDING_DEBUG] = 0
        before_delivery(s, DB)
    if deliver(s, vector, 0, kind, next_rip):
        return 1
    s[VALUE] = s[RIP]
    return 0


# ---- exceptions, double and triple faults --------------------------------------------------------------
def record_fault(s: State, count: int) -> int:
    """Append the noted exception to FAULT_CHAIN, which keeps the first (the cause) and the latest; gives the count."""
    if count == CHAIN_WORDS:
        for n in range(2, CHAIN_WORDS - 2):
            s[FAULT_CHAIN + n] = s[FAULT_CHAIN + n + 2]
        count = CHAIN_WORDS - 2
    s[FAULT_CHAIN + count] = VALID | (s[FAULT_ERROR] & 0xFFFFFFFF) << 8 | s[FAULT_VECTOR]
    s[FAULT_CHAIN + count + 1] = s[FAULT_CR2] if s[FAULT_VECTOR] == PF else s[RIP]
    return count + 2


def combine(first: int, second: int) -> int:
    """SDM 3, table 6-5: NO_FAULT for shutdown, DF for a double fault, else `second`, which is handled by itself."""
    before = fault_class(first)
    now = fault_class(second)
    if before == BENIGN or now == BENIGN:
        return second
    if before == DOUBLE_FAULT_CLASS:
        return NO_FAULT
    if before == PAGE_FAULT_CLASS or now == CONTRIBUTORY_CLASS:
        return DF
    return second


def before_delivery(s: State, vector: int) -> int:
    """What happens however delivery ends: CR2; DR6, GD and BTF (SDM 3, 18.2.3, 18.2.4 and 18.4.3)."""
    if vector == PF:
        s[CR2] = s[FAULT_CR2]
    elif vector == DB:
        s[DR + 6] = s[DR + 6] & ~DR6_HITS | s[FAULT_DR6]  # of B0 to B3 only those met now
        s[DR + 7] = s[DR + 7] & ~(1 << 13)
        s[DEBUGCTL] = s[DEBUGCTL] & ~debug.DEBUGCTL_BTF
        s[FAULT_DR6] = 0
    return 0


def _floating_point_error(s: State, a: int, b: int) -> int:
    s.host.floating_point_error()
    return 0


FLOATING_POINT_ERROR = service(_floating_point_error)


def freeze(s: State) -> int:
    """Instead of #MF if CR0.NE is clear: the processor asserts FERR# and waits at the instruction for the interrupt
    that the machine makes of it (SDM 1, D.2.1)."""
    s[FAULT_VECTOR] = NO_FAULT
    s[HALTED] = 1
    return call_service(s, FLOATING_POINT_ERROR, 0, 0)


def deliver_fault(s: State) -> int:
    """Deliver the noted exception, and those that its delivery raises: 0, or 2 for shutdown. It counts as an
    instruction: a guest whose handlers only fault would otherwise use up no budget and no counted time."""
    if s[HOOK_EVENTS] & hooks.HYPERCALL and hooks.answered(s):
        return 0
    status = deliver_noted(s)
    s[ICOUNT] = s[ICOUNT] + 1  # last: RF is told by the count
    return status


def deliver_noted(s: State) -> int:
    """Deliver the noted exception."""
    s[STEPPING] = 0
    s[PENDING_DEBUG] = 0  # the traps of an instruction that didn't complete
    if s[FAULT_VECTOR] == MF and s[CR0] & mode.CR0_NE == 0:
        return freeze(s)
    for n in range(CHAIN_WORDS):
        s[FAULT_CHAIN + n] = 0
    count = record_fault(s, 0)
    vector = s[FAULT_VECTOR]
    for _ in range(MOST_NESTED):
        before_delivery(s, vector)
        error = s[FAULT_ERROR]
        s[FAULT_VECTOR] = NO_FAULT
        if deliver(s, vector, error, EXCEPTION, s[RIP]) == 0 and s[FAULT_VECTOR] == NO_FAULT:
            return 0
        count = record_fault(s, count)
        second = s[FAULT_VECTOR]
        following = combine(vector, second)
        if following == NO_FAULT:
            s[FAULT_VECTOR] = NO_FAULT
            return SHUTDOWN
        if following == DF and second != DF:
            if second == PF:
                s[CR2] = s[FAULT_CR2]
            s[FAULT_VECTOR] = DF
            s[FAULT_ERROR] = 0
            count = record_fault(s, count)
        vector = following
    s[FAULT_VECTOR] = NO_FAULT
    return SHUTDOWN


# ---- interrupts --------------------------------------------------------------------------------------------
def _acknowledge(s: State, a: int, b: int) -> int:
    return s.host.acknowledge_interrupt()


ACKNOWLEDGE = service(_acknowledge)


def can_take(s: State) -> int:
    """1 if take_interrupts() would deliver something, as far as the processor can tell."""
    if s[SHADOW] > s[ICOUNT]:
        return 0
    if s[NMI_PENDING] and not s[NMI_BLOCKED]:
        return 1
    return 1 if s[IRQ_PENDING] and s[FLAGS] & fl.IF else 0


def take_interrupts(s: State) -> int:
    """Between two instructions: deliver a waiting NMI or external interrupt. 0 nothing, 1 delivered, 2 shutdown. A
    delivery counts as an instruction, so that the count says whether it has happened."""
    if s[SHADOW] > s[ICOUNT]:
        return 0
    vector = NMI
    kind = NONMASKABLE
    if s[NMI_PENDING] and not s[NMI_BLOCKED]:
        s[NMI_PENDING] = 0
        s[NMI_BLOCKED] = 1
    elif s[IRQ_PENDING] and s[FLAGS] & fl.IF:
        vector = call_service(s, ACKNOWLEDGE, 0, 0)
        kind = HARDWARE
        if vector > 0xFF:
            return 0
    else:
        return 0
    s[HALTED] = 0
    s[MONITORED] = 0
    s[SHADOW] = 0
    s[HOOK_PASSED] = 0  # it's another instruction that comes next, at the same count
    if deliver(s, vector, 0, kind, s[RIP]) or s[FAULT_VECTOR] != NO_FAULT:
        if deliver_fault(s):
            return SHUTDOWN
        return DELIVERED
    s[ICOUNT] = s[ICOUNT] + 1
    return DELIVERED
