# Garbage instructions: 256 random bytes run in user mode; the exception, or the timer, starts the next round.

main:
    mov rdi, PD + 16                        # the 2 MiB at 4 MiB belong to user mode
    or dword ptr [rdi], 4
    mov rax, cr3
    mov cr3, rax
next_round:
    mov rdi, 0x400000
    mov rbx, rdi
    mov ecx, 32
garbage:
    call random
    mov [rbx], rax
    add rbx, 8
    dec ecx
    jnz garbage
    push 0x23
    push 0x500000
    push 0x202
    push 0x1b
    push rdi
    call random
    mov rcx, rax                            # random registers, but for RDI and RSP
    call random
    mov rbx, rax
    call random
    mov rsi, 0x480000
    iretq
