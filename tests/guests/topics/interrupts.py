"""What the topics of interrupt controllers and timers share: an interrupt handler that counts and returns, and waits.

After a check, r0 is the number of interrupts that came, r1 their vectors (the last one in the lowest byte), r2 where the
last one came in. `APIC` is the register page; with `[x2apic]` set, EOI goes through the MSR.
"""

from __future__ import annotations

from tests.guests.topics.program import Program

APIC = 0xFEE00000
ID, VERSION, TPR, PPR, EOI, LDR, DFR, SVR, ESR, ICR, ICR_HIGH = (
    0x20,
    0x30,
    0x80,
    0xA0,
    0xB0,
    0xD0,
    0xE0,
    0xF0,
    0x280,
    0x300,
    0x310,
)
ISR, TMR, IRR, LVT_TIMER, LINT0, LINT1, LVT_ERROR, INITIAL, CURRENT, DIVIDE = (
    0x100, 0x180, 0x200, 0x320, 0x350, 0x360, 0x370, 0x380, 0x390, 0x3E0,
)  # fmt: skip
SELF = 0x40000  # ICR shorthand
MASKED = 0x10000
PERIODIC, DEADLINE = 1 << 17, 2 << 17

HANDLER = f"""
irq_hook:                                   # counts, ends the interrupt and returns
    inc qword ptr [irq_count]
    mov rax, [irq_vectors]
    shl rax, 8
    mov al, [got_vector]
    mov [irq_vectors], rax
    mov rax, [got_ip]
    mov [irq_ip], rax
    mov rsp, rcx
    cmp qword ptr [irq_more], 0
    je irq_plain
    call qword ptr [irq_more]
irq_plain:
    cmp dword ptr [irq_no_eoi], 0
    jne irq_return
    cmp dword ptr [got_vector], 2
    je irq_return
    cmp dword ptr [x2apic], 0
    jne irq_x2apic
    mov eax, {APIC + EOI:#x}
    mov dword ptr [rax], 0
    jmp irq_return
irq_x2apic:
    mov ecx, 0x80b
    xor eax, eax
    xor edx, edx
    wrmsr
irq_return:
    mov rax, [got_ax]
    mov rbx, [got_bx]
    mov rcx, [got_cx]
    mov rdx, [got_dx]
    iretq

irq_start:                                  # from now on interrupts are counted
    xor eax, eax
    mov [irq_count], rax
    mov [irq_vectors], rax
    mov [irq_ip], rax
    mov [irq_more], rax
    mov [irq_no_eoi], eax
    lea rax, [irq_hook]
    mov [hook], rax
    ret
irq_stop:
    cli
    mov rax, [irq_count]
    mov [got_r0], rax
    mov rax, [irq_vectors]
    mov [got_r1], rax
    mov rax, [irq_ip]
    mov [got_r2], rax
    xor eax, eax
    mov [hook], rax
    ret
irq_wait:                                   # with interrupts on, until ECX of them came, but not for ever
    sti
    mov edi, 100000000
irq_waiting:
    cmp [irq_count], ecx
    jae irq_came
    pause
    dec edi
    jnz irq_waiting
irq_came:
    cli
    ret
irq_pause:                                  # with interrupts on, for a while: emulators' timers are late
    sti
    push rbx
    rdtsc
    mov ebx, eax
irq_pausing:
    pause
    rdtsc
    sub eax, ebx
    cmp eax, 30000000
    jb irq_pausing
    pop rbx
    cli
    ret
esr_wait:                                   # EBX: the error status, as soon as there is one
    sti
    mov edi, 300000
esr_waiting:
    mov eax, {APIC + ESR:#x}
    mov dword ptr [rax], 0
    mov ebx, [rax]
    test ebx, ebx
    jnz esr_came
    pause
    dec edi
    jnz esr_waiting
esr_came:
    cli
    ret
.align 8
irq_count: .quad 0
irq_vectors: .quad 0
irq_ip: .quad 0
irq_more: .quad 0
irq_no_eoi: .quad 0
x2apic: .quad 0
"""


def put(register: int, value: int | str) -> str:
    """Code that writes a register of the page."""
    return f"mov eax, {APIC + register:#x}\nmov dword ptr [rax], {value}\n"


def get(register: int, into: str = "ebx") -> str:
    """Code that reads a register of the page."""
    return f"mov eax, {APIC + register:#x}\nmov {into}, [rax]\n"


def counted(p: Program, name: str, body: str, **expected: int | str | tuple[int | str, int]) -> None:
    """A check whose body may be interrupted; r0 to r2 are as said above."""
    p.asm("call irq_start\n")
    p.attempt(body)
    p.asm("call irq_stop\n")
    p.verify(name, **expected)


def prepare(p: Program) -> None:
    """Handler, and the APIC enabled in xAPIC mode with nothing unmasked."""
    p.data(HANDLER)
    p.asm(
        put(SVR, 0x1FF) + put(LINT0, MASKED) + put(LINT1, MASKED) + put(LVT_TIMER, MASKED) + put(LVT_ERROR, MASKED) + put(TPR, 0)
        + put(DFR, 0xFFFFFFFF) + put(LDR, 0x1000000) + put(INITIAL, 0) + put(ESR, 0) + put(ESR, 0)
    )  # fmt: skip
