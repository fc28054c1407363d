# What real16.asm has below 1 MiB, in segment LOW: the way in and out, and the interrupt handlers.
    .byte 0xeb, 0x00                        # nothing comes here
entry: .word 0
    mov eax, cr0                            # offset 4, in 16-bit protected mode
    and eax, 0xfffffffe
    mov cr0, eax
    .byte 0xea
    .word in_real_mode, 0x1000
in_real_mode:
    mov ax, 0x1000
    mov ds, ax
    .byte 0x0f, 0x01, 0x1e                  # lidt [real_idt]
    .word real_idt
    mov bx, [entry]
    mov ax, 0x3000
    mov ss, ax
    mov sp, 0x8000
    mov ax, 0x2000
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    push 0
    popfd
    mov sp, 0x8000
    jmp bx
real_idt:
    .word 0x3ff
    .long 0
common16:                                   # pushed: vector; below it IP, CS, FLAGS
    mov cs:[0xf010], eax
    mov eax, ds
    mov cs:[0xf02c], eax
    mov ax, 0x1000
    mov ds, ax
    mov [0xf014], ebx
    mov [0xf018], ecx
    mov [0xf01c], edx
    mov [0xf020], esi
    mov [0xf024], edi
    mov [0xf028], ebp
    xor eax, eax
    pop ax
    mov [0xf000], eax
    pop ax
    mov [0xf004], eax
    pop ax
    mov [0xf008], eax
    pop ax
    mov [0xf00c], eax
    mov eax, esp
    mov [0xf030], eax
    mov eax, ss
    mov [0xf034], eax
    mov eax, es
    mov [0xf038], eax
    cli
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .byte 0x66, 0xea
real_back_at: .long 0
    .word 8
stub_area:
