# The self-test. Each test is a function that returns 0 in RAX, or the number of the step that went wrong.

selftest:
    mov [selftest_return], rsp
    mov qword ptr [selftest_running], 1
    lea rbx, [tests]
test_next:
    mov rsi, [rbx]
    test rsi, rsi
    jz selftest_ok
    call print
    push rbx
    call qword ptr [rbx + 8]
    pop rbx
    test rax, rax
    jnz test_wrong
    lea rsi, [text_test_ok]
    call print
    add rbx, 16
    jmp test_next
test_wrong:
    mov rbx, rax
    lea rsi, [text_step]
    call print
    mov rax, rbx
    call print_decimal
selftest_failed:
    lea rsi, [text_failed]
    call print
    jmp selftest_end
selftest_ok:
    lea rsi, [text_ok]
    call print
selftest_end:
    mov qword ptr [selftest_running], 0
    mov rsp, [selftest_return]
    ret

test_arithmetic:
    mov r12d, 1                             # R12 is the step
    mov rax, -1                             # 128-bit addition with carry
    xor edx, edx
    add rax, 1
    adc rdx, 0
    cmp rax, 0
    jne arithmetic_wrong
    cmp rdx, 1
    jne arithmetic_wrong

    inc r12d                                # 2: signed overflow, without carry
    mov eax, 0x7fffffff
    add eax, 1
    jno arithmetic_wrong
    jc arithmetic_wrong
    jns arithmetic_wrong

    inc r12d                                # 3: all six flags of 0 - 1
    xor eax, eax
    sub al, 1
    pushfq
    pop rcx
    and ecx, 0x8d5                          # OF SF ZF AF PF CF
    cmp ecx, 0x95                           # SF AF PF CF
    jne arithmetic_wrong

    inc r12d                                # 4: multiply to 128 bits and divide back
    mov rax, 0x123456789abcdef1
    mov rcx, 0xfedcba9876543211
    mul rcx
    mov rbp, 0x347e9a0f6729e001             # low half of the product
    cmp rax, rbp
    jne arithmetic_wrong
    div rcx
    mov rbp, 0x123456789abcdef1
    cmp rax, rbp
    jne arithmetic_wrong
    test rdx, rdx
    jnz arithmetic_wrong

    inc r12d                                # 5: signed multiply and divide
    mov eax, -7
    cdq
    mov ecx, 2
    idiv ecx
    cmp eax, -3
    jne arithmetic_wrong
    cmp edx, -1
    jne arithmetic_wrong
    imul eax, eax, -5
    cmp eax, 15
    jne arithmetic_wrong

    inc r12d                                # 6: shifts and rotates
    mov eax, 0x80000001
    rol eax, 1
    cmp eax, 3
    jne arithmetic_wrong
    mov rax, 0x8000000000000000
    sar rax, 60
    cmp rax, -8
    jne arithmetic_wrong
    mov eax, 0x12345678
    mov edx, 0x9abcdef0
    shld eax, edx, 8
    cmp eax, 0x3456789a
    jne arithmetic_wrong

    inc r12d                                # 7: bits
    mov eax, 0x00f00000
    bsf ecx, eax
    bsr edx, eax
    cmp ecx, 20
    jne arithmetic_wrong
    cmp edx, 23
    jne arithmetic_wrong
    bt eax, 21
    jnc arithmetic_wrong
    mov eax, 0x11223344
    bswap eax
    cmp eax, 0x44332211
    jne arithmetic_wrong

    inc r12d                                # 8: a 32-bit result clears the upper half, 16 and 8 bits don't
    mov rax, -1
    mov eax, eax
    shr rax, 32
    jnz arithmetic_wrong
    mov rax, -1
    mov ax, 0
    cmp rax, -65536
    jne arithmetic_wrong
    mov ah, 0x12
    cmp ax, 0x1200
    jne arithmetic_wrong

    inc r12d                                # 9: conditions
    mov eax, -1
    mov ecx, 1
    cmp eax, ecx
    setl dl                                 # signed: less
    seta dh                                 # unsigned: above
    cmp dx, 0x101
    jne arithmetic_wrong
    cmovg eax, ecx
    cmp eax, -1                             # equal: not greater, so unchanged
    jne arithmetic_wrong
    xor eax, eax
    ret
arithmetic_wrong:
    mov eax, r12d
    ret

test_memory:
    mov r12d, 1                             # 1: copy forwards
    lea rsi, [pattern]
    lea rdi, [scratch]
    mov ecx, 16
    cld
    rep movsb
    test ecx, ecx
    jnz memory_wrong
    lea rsi, [pattern]
    lea rdi, [scratch]
    mov ecx, 16
    repe cmpsb
    jne memory_wrong

    inc r12d                                # 2: backwards, over itself: bytes 0-11 to 4-15
    lea rsi, [scratch + 11]
    lea rdi, [scratch + 15]
    mov ecx, 12
    std
    rep movsb
    cld
    cmp dword ptr [scratch + 12], 0x62613938
    jne memory_wrong

    inc r12d                                # 3: fill and scan
    lea rdi, [scratch]
    mov eax, 0x20
    mov ecx, 2
    rep stosq
    mov byte ptr [scratch + 9], 0x41
    lea rdi, [scratch]
    mov al, 0x41
    mov ecx, 16
    repne scasb
    jne memory_wrong
    cmp ecx, 6
    jne memory_wrong

    inc r12d                                # 4: exchange
    mov qword ptr [scratch], 5
    mov eax, 5
    mov ecx, 9
    lock cmpxchg [scratch], rcx
    jne memory_wrong
    mov eax, 3
    lock xadd [scratch], rax
    cmp rax, 9
    jne memory_wrong
    cmp qword ptr [scratch], 12
    jne memory_wrong

    inc r12d                                # 5: addressing: base, index, scale, displacement
    lea rsi, [pattern]
    mov ecx, 3
    movzx eax, byte ptr [rsi + rcx * 4 + 1]
    cmp eax, 'd'
    jne memory_wrong
    movsx eax, byte ptr [negative]
    cmp eax, -2
    jne memory_wrong
    push 0x1234
    cmp qword ptr [rsp], 0x1234
    pop rcx
    jne memory_wrong
    xor eax, eax
    ret
memory_wrong:
    mov eax, r12d
    ret

test_float:
    mov r12d, 1                             # 1: x87: 3 * 1 + 1, as an integer
    mov dword ptr [scratch], 3
    fild dword ptr [scratch]
    fld1
    fmul st(1), st(0)
    faddp st(1), st(0)
    fistp dword ptr [scratch]
    cmp dword ptr [scratch], 4
    jne float_wrong

    inc r12d                                # 2: SSE integers
    movdqu xmm0, [pattern]
    movdqu xmm1, [pattern]
    psubb xmm0, xmm1
    movq rax, xmm0
    test rax, rax
    jnz float_wrong

    inc r12d                                # 3: SSE floating point: sqrt(2)^2, truncated and rounded
    mov eax, 2
    cvtsi2sd xmm0, eax
    sqrtsd xmm0, xmm0
    cvttsd2si eax, xmm0
    cmp eax, 1
    jne float_wrong
    mulsd xmm0, xmm0
    cvtsd2si eax, xmm0
    cmp eax, 2
    jne float_wrong
    xor eax, eax
    ret
float_wrong:
    mov eax, r12d
    ret

# Exceptions: each one is announced in [recover], provoked, and must arrive with the right number.
test_exceptions:
    mov r12d, 1                             # 1: divide by zero
    lea rax, [divided]
    mov [recover], rax
    xor edx, edx
    mov eax, 1
    xor ecx, ecx
    div ecx
    jmp exceptions_wrong                    # it didn't fault
divided:
    cmp qword ptr [last_vector], 0
    jne exceptions_wrong

    inc r12d                                # 2: an instruction that doesn't exist
    lea rax, [was_undefined]
    mov [recover], rax
    ud2
    jmp exceptions_wrong
was_undefined:
    cmp qword ptr [last_vector], 6
    jne exceptions_wrong

    inc r12d                                # 3: an address that is not canonical: general protection
    lea rax, [was_protected]
    mov [recover], rax
    mov rax, 0x0000800000000000
    mov rax, [rax]
    jmp exceptions_wrong
was_protected:
    cmp qword ptr [last_vector], 13
    jne exceptions_wrong
    cmp qword ptr [last_error], 0
    jne exceptions_wrong
    mov qword ptr [recover], 0
    xor eax, eax
    ret
exceptions_wrong:
    mov qword ptr [recover], 0
    mov eax, r12d
    ret

test_paging:
    mov r12d, 1                             # 1: three pages touched are three page faults
    mov rbx, [selftest_pages]
    mov rbp, [demand_faults]
    mov qword ptr [rbx], 11
    mov qword ptr [rbx + 4096], 22
    mov qword ptr [rbx + 8192 - 4], 0x33    # this one crosses into the third page
    mov qword ptr [rbx], 44
    mov rax, [demand_faults]
    sub rax, rbp
    cmp rax, 3
    jne paging_wrong
    cmp qword ptr [rbx], 44
    jne paging_wrong

    inc r12d                                # 2: accessed and dirty bits
    mov rdi, rbx
    add rdi, 12288
    mov al, [rdi]                           # a read
    call entry_of
    mov rax, [r8]
    and eax, 0x60
    cmp eax, 0x20                           # accessed, not dirty
    jne paging_wrong
    mov byte ptr [rdi], 1
    mov rax, [r8]
    and eax, 0x60
    cmp eax, 0x60
    jne paging_wrong

    inc r12d                                # 3: read-only: the write faults with the right address and error code
    and byte ptr [r8], 0xfd
    invlpg [rdi]
    lea rax, [write_refused]
    mov [recover], rax
    mov byte ptr [rdi + 5], 2
    jmp paging_wrong
write_refused:
    cmp qword ptr [last_vector], 14
    jne paging_wrong
    cmp qword ptr [last_error], 3           # page present, a write
    jne paging_wrong
    lea rax, [rdi + 5]
    cmp rax, [last_address]
    jne paging_wrong
    cmp byte ptr [rdi], 1
    jne paging_wrong

    inc r12d                                # 4: two addresses for one page
    mov rdi, rbx
    call entry_of
    mov rax, [r8]
    mov [r8 + 8], rax                       # the second page now is the first one
    invlpg [rbx + 4096]
    mov qword ptr [rbx + 4096 + 16], 77
    cmp qword ptr [rbx + 16], 77
    jne paging_wrong
    add qword ptr [selftest_pages], 16384   # another run gets fresh pages
    xor eax, eax
    ret
paging_wrong:
    mov qword ptr [recover], 0
    mov eax, r12d
    ret

# Returns in R8 the address of the page table entry for the mapped address RDI. Changes RAX and RCX.
entry_of:
    mov r8d, PML4
    mov ecx, 39
entry_level:
    mov rax, rdi
    shr rax, cl
    and eax, 511
    lea r8, [r8 + rax * 8]
    cmp ecx, 12
    je entry_found
    mov r8, [r8]
    and r8, -4096
    sub ecx, 9
    jmp entry_level
entry_found:
    ret

test_timer:
    mov rbp, [ticks]
    add rbp, 3
timer_wait:
    hlt                                     # sleeps until an interrupt
    cmp [ticks], rbp
    jb timer_wait
    xor eax, eax
    ret

tests:
    .quad test_name_arithmetic, test_arithmetic
    .quad test_name_memory, test_memory
    .quad test_name_float, test_float
    .quad test_name_exceptions, test_exceptions
    .quad test_name_paging, test_paging
    .quad test_name_user, run_user
    .quad test_name_timer, test_timer
    .quad 0

selftest_running:
    .quad 0
selftest_return:
    .quad 0
selftest_pages:
    .quad DEMAND_BASE + 0x10000000
scratch:
    .space 32
pattern:
    .ascii "0123456789abcdef"
negative:
    .byte 0xfe
test_name_arithmetic:
    .asciz "arithmetic"
test_name_memory:
    .asciz "memory and strings"
test_name_float:
    .asciz "floating point"
test_name_exceptions:
    .asciz "exceptions"
test_name_paging:
    .asciz "paging"
test_name_user:
    .asciz "user mode and system calls"
test_name_timer:
    .asciz "timer"
text_test_ok:
    .asciz ": ok\r\n"
text_step:
    .asciz ": wrong at step "
text_ok:
    .asciz "selftest: ok\r\n"
text_failed:
    .asciz "\r\nselftest: FAILED\r\n"
