# Real mode for 32-bit guests. `run_real` runs the 16-bit code whose offset in segment LOW is in EAX, and records what it
# ends with, an interrupt or exception of real mode, in `got`. This part is 32-bit code; the other is in real16_low.asm.
run_real:
    pushad
    mov [real_stack], esp
    mov [LOW + 2], ax
    cli
    mov ax, DATA_LOW
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    mov ss, ax
    .byte 0xea
    .long 4
    .word CODE_LOW
real_back:
    cld
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    mov esp, [real_stack]
    lidt [idt_pointer]
    mov esi, LOW + 0xf000
    mov edi, real_fields
    mov ecx, 15
real_record:
    mov edx, [edi]
    lodsd eax, [esi]
    mov [got + edx * 8], eax
    add edi, 4
    dec ecx
    jnz real_record
    popad
    ret
real_stack: .long 0
