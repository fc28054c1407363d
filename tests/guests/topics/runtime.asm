# What every topic guest brings along: start-up, output, exceptions that are recorded, and the comparison of what was
# got with what was expected. It is text for both widths: %ax is EAX or RAX, %word the size of a stack slot.
# A check runs code between `begin` and `finish`; an exception in it is recorded in `got` and ends it.

.code32
image_start:
multiboot_header:
    .long 0x1badb002, 0x10000, 0xe4514ffe
    .long multiboot_header, image_start, image_end, 0x800000, start32

start32:
    cli
    cld
    mov esp, STACK
    mov [boot_magic], eax
    mov [boot_info], ebx
    mov edx, 0x3fb                          # COM1: eight data bits
    mov al, 3
    out dx, al
    mov al, 0xff                            # no interrupts but those that a topic asks for
    out 0x21, al
    out 0xa1, al
%start
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    mov %sp, STACK
    mov %di, IDT
    mov ecx, 1024
    xor eax, eax
    rep stosd es:[%di], eax
    mov %di, STUBS                          # 256 times: push the vector, push `common`, ret
    mov %bx, IDT
    xor ecx, ecx
make_gate:
    mov byte ptr [%di], 0x68
    mov [%di + 1], ecx
    mov byte ptr [%di + 5], 0x68
    mov eax, common
    mov [%di + 6], eax
    mov byte ptr [%di + 10], 0xc3
    mov eax, edi
    and eax, 0xffff
    or eax, 0x80000
    mov [%bx], eax
    mov eax, edi
    and eax, 0xffff0000
    or eax, 0x8e00
    cmp ecx, 3                              # INT3, INTO and 0x30 to 0x3f may be used by programs at CPL 3
    je make_user_gate
    cmp ecx, 4
    je make_user_gate
    cmp ecx, 0x30
    jb make_other_gate
    cmp ecx, 0x3f
    ja make_other_gate
make_user_gate:
    or eax, 0x6000
make_other_gate:
    mov [%bx + 4], eax
    add %di, 16
    add %bx, 2 * %word
    inc ecx
    cmp ecx, 256
    jne make_gate
    lidt [idt_pointer]
%tss
    mov eax, 0x28
    ltr ax
    jmp main

# ---- exceptions ------------------------------------------------------------------------------------------
common:
    push %ax
%handler_data
    mov [got_ds], %ax
    pop %ax
    mov [got_ax], %ax
    mov [got_bx], %bx
    mov [got_cx], %cx
    mov [got_dx], %dx
    mov [got_si], %si
    mov [got_di], %di
    mov [got_bp], %bp
    mov %ax, cr2
    mov [got_cr2], %ax
    pop %bx
    mov [got_vector], %bx
    xor ecx, ecx
    mov edx, 0x227d00                       # the vectors with an error code
    cmp ebx, 32
    jae no_error_code
    bt edx, ebx
    jnc no_error_code
    pop %cx
no_error_code:
    mov [got_error], %cx
    mov %cx, %sp
    pop %ax
    mov [got_ip], %ax
    pop %ax
    mov [got_cs], %ax
    mov ebx, eax
    pop %ax
    mov [got_flags], %ax
%handler_stack
    cmp dword ptr [hook], 0
    jne call_hook
unwind:
    cmp dword ptr [resume], 0
    je unexpected
    mov %sp, [resume_sp]
    push 2
    popf%q
    cld
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    jmp %size ptr [resume]
call_hook:                                  # with the frame's address, behind the error code, in %cx
    jmp %size ptr [hook]

begin:                                      # %ax: where an exception goes on
    mov [resume], %ax
    lea %ax, [%sp + %word]
    mov [resume_sp], %ax
    xor eax, eax
    mov [got_error], %ax
    mov [got_ip], %ax
    mov [got_cs], %ax
    mov [got_flags], %ax
    mov eax, 0x100                          # no exception
    mov [got_vector], %ax
    ret

finish:                                     # no exception came: the registers are the result
    pushf%q
    push %ax
%handler_data
    mov [got_ds], %ax
    pop %ax
    mov [got_ax], %ax
    mov [got_bx], %bx
    mov [got_cx], %cx
    mov [got_dx], %dx
    mov [got_si], %si
    mov [got_di], %di
    mov [got_bp], %bp
    pop %ax
    mov [got_flags], %ax
    mov eax, ss
    mov [got_ss], %ax
    mov eax, 0x10
    mov es, eax
    ret

# ---- comparison: %si points to name, number of fields, then field number, mask and value of each -------------
verify:
    xor eax, eax
    mov [resume], %ax
    mov [hook], %ax
    inc dword ptr [checks]
    mov %di, %si
    mov ecx, [%di + 8]
    add %di, 16
compare:
    mov eax, [%di]
    mov %bx, [got + %ax * 8]
    xor %bx, [%di + 16]
    and %bx, [%di + 8]
    jnz differs
    add %di, 24
    dec ecx
    jnz compare
    call print_name
    lea %si, [text_pass]
    jmp print
differs:
    inc dword ptr [failures]
    call print_name
    lea %si, [text_got]
    call print
    mov %bx, got
    call print_fields
    lea %si, [text_expected]
    call print
    xor ebx, ebx
    call print_fields
    lea %si, [text_newline]
    jmp print

print_name:                                 # "TOPIC.NAME: "; keeps %si
    push %si
    lea %si, [topic_name]
    call print
    mov %si, [%sp]
    mov esi, [%si]
    call print
    lea %si, [text_colon]
    call print
    pop %si
    mov [shown], %si
    ret

print_fields:                               # of the check shown; %bx: the values, or 0 for the expected ones
    mov %di, [shown]
    mov ecx, [%di + 8]
    add %di, 16
print_field:
    push %cx
    mov al, 32
    call put
    mov eax, [%di]
    mov esi, [field_names + %ax * 4]
    call print
    mov al, 61
    call put
    mov %dx, [%di + 16]
    test %bx, %bx
    jz print_value
    mov eax, [%di]
    mov %dx, [%bx + %ax * 8]
    and %dx, [%di + 8]
print_value:
    call print_hex
    add %di, 24
    pop %cx
    dec ecx
    jnz print_field
    ret

print_hex:                                  # %dx, without leading zeros
    push %cx
    push %bx
    mov ecx, 2 * %word
    xor ebx, ebx
hex_digit:
    rol %dx, 4
    mov eax, edx
    and eax, 15
    or ebx, eax
    jnz hex_print
    cmp ecx, 1
    jne hex_next
hex_print:
    cmp al, 10
    jb hex_decimal
    add al, 39
hex_decimal:
    add al, 48
    mov ebx, 1
    call put
hex_next:
    dec ecx
    jnz hex_digit
    pop %bx
    pop %cx
    ret

print:                                      # the text at %si
    mov al, [%si]
    test al, al
    jz print_end
    call put
    inc %si
    jmp print
print_end:
    ret

put:                                        # AL to COM1
    push %dx
    push %ax
    mov edx, 0x3fd
put_wait:
    in al, dx
    test al, 0x20
    jz put_wait
    mov edx, 0x3f8
    pop %ax
    out dx, al
    pop %dx
    ret

# ---- the end ---------------------------------------------------------------------------------------------
unexpected:
    mov eax, 0x10
    mov ds, eax
    mov ss, eax
    mov %sp, STACK
    lea %si, [unexpected_check]
    inc dword ptr [failures]
    call print_name
    mov %bx, got
    call print_fields
    lea %si, [text_newline]
    call print
    jmp leave_now

end_of_topic:
    lea %si, [topic_name]
    call print
    lea %si, [text_end]
    call print
leave_now:
    xor eax, eax
    cmp dword ptr [failures], 0
    setne al
    out 0xf4, eax
leave_wait:
    cli
    hlt
    jmp leave_wait

text_pass: .asciz "pass\n"
text_got: .asciz "got"
text_expected: .asciz ", expected"
text_newline: .asciz "\n"
text_colon: .asciz ": "
text_end: .asciz "end\n"
text_unexpected: .asciz "unexpected exception"
.align 8
unexpected_check:
    .long text_unexpected, 0, 5, 0
    .long 0, 0, -1, -1, 0, 0
    .long 1, 0, -1, -1, 0, 0
    .long 2, 0, -1, -1, 0, 0
    .long 3, 0, -1, -1, 0, 0
    .long 4, 0, -1, -1, 0, 0
boot_magic: .quad 0
boot_info: .quad 0
checks: .quad 0
failures: .quad 0
shown: .quad 0
resume: .quad 0
resume_sp: .quad 0
hook: .quad 0
idt_pointer:
    .word 256 * 2 * %word - 1
    .long IDT, 0
gdt_pointer:
    .word 511
    .long gdt, 0
.align 16
gdt:
    .quad 0
    .quad %code0                            # 0x08
    .quad 0x00cf92000000ffff                # 0x10
    .quad %code3                            # 0x18
    .quad 0x00cff2000000ffff                # 0x20
    .quad %tss_descriptor                   # 0x28
    .quad 0
    .quad 0x00cf9a000000ffff                # 0x38 32-bit code
    .quad 0x00cffa000000ffff                # 0x40 32-bit code for CPL 3
    .quad 0x00009a000000ffff                # 0x48 16-bit code
    .quad 0x000092000000ffff                # 0x50 16-bit data
gdt_free:                                   # 0x58
    .fill 53, 8, 0
