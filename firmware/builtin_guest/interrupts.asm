# Interrupts and exceptions.
#
# Vectors 0-31 are the processor's exceptions, 32-47 the sixteen lines of the two 8259 interrupt controllers. Each has
# a short stub (generated: vector_0 ... vector_47, listed in vector_stubs) that pushes an error code, if the processor
# didn't, and its number. All meet in interrupt_entry.

setup_interrupts:
    lea rsi, [vector_stubs]
    mov rdi, IDT
    mov ecx, 48
idt_fill:
    mov rax, [rsi]                          # a gate is 16 bytes: the address in three pieces,
    mov edx, eax
    and edx, 0xffff
    or edx, KERNEL_CS << 16                 # the code segment,
    mov [rdi], edx
    mov edx, eax
    and edx, 0xffff0000
    or edx, 0x8e00                          # present, interrupt gate: entered with interrupts off
    mov [rdi + 4], edx
    shr rax, 32
    mov [rdi + 8], rax
    add rsi, 8
    add rdi, 16
    dec ecx
    jnz idt_fill
    mov byte ptr [IDT + 132], 1             # double fault (8): on a stack of its own, IST 1
    lidt [idt_pointer]

    mov dword ptr [TSS + 4], USER_TRAP_STACK    # stack for interrupts that arrive in user mode
    mov dword ptr [TSS + 36], FAULT_STACK       # IST 1
    mov word ptr [TSS + 102], 104               # no port permission bitmap
    mov eax, TSS_SELECTOR
    ltr ax

    # The interrupt controllers. Line 0 becomes vector 32; the second one hangs on line 2 of the first.
    mov al, 0x11                            # ICW1: initialise, ICW4 follows
    out 0x20, al
    out 0xa0, al
    mov al, 32                              # ICW2: first vector
    out 0x21, al
    mov al, 40
    out 0xa1, al
    mov al, 4                               # ICW3: who hangs where
    out 0x21, al
    mov al, 2
    out 0xa1, al
    mov al, 1                               # ICW4: 8086 mode
    out 0x21, al
    out 0xa1, al
    mov al, 0xea                            # let through: timer (0), second controller (2), serial port (4)
    out 0x21, al
    mov al, 0xff
    out 0xa1, al

    # The timer chip counts 1193182 times a second; channel 0 interrupts each 59659 counts: 20 Hz.
    mov al, 0x34                            # channel 0, low then high byte, mode 2
    out 0x43, al
    mov al, 59659 & 0xff
    out 0x40, al
    mov al, 59659 >> 8
    out 0x40, al
    ret

interrupt_entry:
    push rax
    push rcx
    push rdx
    push rbx
    push rbp
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    cld
    mov rbx, rsp                            # RBX points to the saved registers, offsets FRAME_...
    mov rax, [rbx + FRAME_VECTOR]
    cmp eax, 32
    jae device_interrupt
    cmp eax, 14
    jne other_exception
    call page_fault
    jmp interrupt_return
other_exception:
    cmp eax, 3
    jne real_exception
    call print_frame                        # INT3, the breakpoint: show the registers and go on
    jmp interrupt_return
real_exception:
    call exception
    jmp interrupt_return
device_interrupt:
    cmp eax, 32
    jne not_timer
    inc qword ptr [ticks]
    jmp end_of_interrupt
not_timer:
    cmp eax, 36
    jne end_of_interrupt
    call serial_interrupt
end_of_interrupt:
    cmp dword ptr [rbx + FRAME_VECTOR], 40
    mov al, 0x20                            # tell the controller that the interrupt was served
    jb first_controller
    out 0xa0, al
first_controller:
    out 0x20, al
interrupt_return:
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rbp
    pop rbx
    pop rdx
    pop rcx
    pop rax
    add rsp, 16                             # vector and error code
    iretq

# An exception that nobody asked for ends the current command; one that was announced goes where [recover] says.
exception:
    mov rax, [rbx + FRAME_VECTOR]
    mov [last_vector], rax
    mov rax, [rbx + FRAME_ERROR]
    mov [last_error], rax
    mov rax, cr2
    mov [last_address], rax
    mov rax, [recover]
    test rax, rax
    jz unexpected
    mov qword ptr [recover], 0
    mov [rbx + FRAME_RIP], rax
    ret
unexpected:
    lea rsi, [text_exception]
    call print
    mov rax, [last_vector]
    call print_decimal
    lea rsi, [text_error_code]
    call print
    mov rax, [last_error]
    call print_hex
    lea rsi, [text_cr2]
    call print
    mov rax, [last_address]
    call print_hex
    call print_newline
    call print_frame
    lea rax, [shell]
    mov ecx, STACK_TOP
    cmp qword ptr [selftest_running], 0
    je resume
    lea rax, [selftest_failed]
    mov rcx, [selftest_return]              # the self-test's caller still needs its part of the stack
resume:
    mov [rbx + FRAME_RIP], rax              # go on there, in kernel mode
    mov [rbx + FRAME_RSP], rcx
    mov qword ptr [rbx + FRAME_CS], KERNEL_CS
    mov qword ptr [rbx + FRAME_SS], KERNEL_DS
    mov qword ptr [rbx + FRAME_RFLAGS], 0x202
    ret

# Prints the registers that RBX points to.
print_frame:
    lea r12, [frame_names]
frame_next:
    movzx r13d, byte ptr [r12]              # offset in the frame; 0xff ends the list
    cmp r13d, 0xff
    je frame_done
    lea rsi, [r12 + 1]
    call print
    mov rax, [rbx + r13]
    call print_hex
    add r12, 8                              # an entry is an offset and a name of seven characters
    jmp frame_next
frame_done:
    call print_newline
    ret

frame_names:
    .byte FRAME_RAX
    .asciz "\r\nrax "
    .byte FRAME_RBX
    .asciz "  rbx "
    .byte FRAME_RCX
    .asciz "  rcx "
    .byte FRAME_RDX
    .asciz "\r\nrdx "
    .byte FRAME_RSI
    .asciz "  rsi "
    .byte FRAME_RDI
    .asciz "  rdi "
    .byte FRAME_RBP
    .asciz "\r\nrbp "
    .byte FRAME_RSP
    .asciz "  rsp "
    .byte FRAME_RIP
    .asciz "  rip "
    .byte FRAME_R8
    .asciz "\r\nr8  "
    .byte FRAME_R9
    .asciz "  r9  "
    .byte FRAME_R10
    .asciz "  r10 "
    .byte FRAME_R11
    .asciz "\r\nr11 "
    .byte FRAME_R12
    .asciz "  r12 "
    .byte FRAME_R13
    .asciz "  r13 "
    .byte FRAME_R14
    .asciz "\r\nr14 "
    .byte FRAME_R15
    .asciz "  r15 "
    .byte FRAME_RFLAGS
    .asciz "  flg "
    .byte 0xff

idt_pointer:
    .word 4095
    .quad IDT
ticks:
    .quad 0
recover:
    .quad 0
last_vector:
    .quad 0
last_error:
    .quad 0
last_address:
    .quad 0
text_exception:
    .asciz "\r\nexception "
text_error_code:
    .asciz ", error code "
text_cr2:
    .asciz ", cr2 "
