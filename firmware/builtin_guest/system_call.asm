# User mode and system calls.
#
# run_user copies a small program into a demand page and enters it at privilege level 3 with IRETQ. The program calls
# back with SYSCALL: EAX = 1 doubles EDI, EAX = 2 ends the program with EDI as its result.

setup_system_calls:
    mov ecx, 0xc0000081                     # STAR: segment selectors that SYSCALL and SYSRET load
    xor eax, eax
    mov edx, 0x00180008
    wrmsr
    mov ecx, 0xc0000082                     # LSTAR: where SYSCALL goes
    lea rax, [system_call]
    xor edx, edx
    wrmsr
    mov ecx, 0xc0000084                     # SFMASK: flags that SYSCALL clears: interrupts, direction
    mov eax, 0x600
    xor edx, edx
    wrmsr
    ret

# Runs the user program; returns its result in RAX.
run_user:
    push rbx
    push rbp
    mov rdi, USER_PAGE                      # the first byte copied faults, and the page appears
    lea rsi, [user_program]
    mov ecx, user_end - user_program
    rep movsb
    mov [kernel_stack], rsp
    mov rax, USER_PAGE
    push USER_DS
    lea rcx, [rax + 4096]                   # user stack: the end of the page
    push rcx
    push 0x202                              # flags: interrupts on
    push USER_CS
    push rax
    iretq

system_call:
    cmp eax, 1
    je call_double
    mov rsp, [kernel_stack]                 # call 2: back into run_user's caller
    mov rax, rdi
    mov ecx, KERNEL_DS
    mov ds, cx                              # IRETQ to user mode emptied these
    mov es, cx
    pop rbp
    pop rbx
    sti
    ret
call_double:
    lea eax, [rdi + rdi]
    sysret                                  # to RCX, with the flags from R11

# This part runs in user mode, at USER_PAGE: it may only use addresses relative to itself.
user_program:
    mov edi, 0x1234
    mov eax, 1
    syscall
    mov edi, 1                              # result 1: the answer was wrong
    cmp eax, 0x2468
    jne user_exit
    mov edi, 2                              # result 2: this is not user mode
    mov eax, cs
    and eax, 3
    cmp eax, 3
    jne user_exit
    push rax                                # the user stack works
    pop rcx
    mov edi, 3
    cmp eax, ecx
    jne user_exit
    xor edi, edi
user_exit:
    mov eax, 2
    syscall
user_end:

kernel_stack:
    .quad 0
