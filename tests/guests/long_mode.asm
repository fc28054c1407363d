# What the hostile guests have in common: 64-bit mode with the first 4 GiB mapped onto themselves, every interrupt and
# exception leading to `trap`, a timer at 100 Hz. A guest provides `main`, entered once with interrupts off, and
# `next_round`, entered after every interrupt or exception with a fresh stack and interrupts off.

.code32
image_start:
multiboot_header:
    .long 0x1badb002
    .long 0x00010000
    .long 0xe4514ffe
    .long multiboot_header
    .long image_start
    .long image_end
    .long 0x400000
    .long start32

start32:
    cli
    cld
    mov esp, STACK
    mov edi, PML4                           # PML4, PDPT, four PDs, IDT, TSS: eight pages
    mov ecx, 8192
    xor eax, eax
    rep stosd
    mov dword ptr [PML4], PDPT + 7
    mov edi, PDPT
    mov eax, PD + 7
    mov ecx, 4
fill_pdpt:
    mov [edi], eax
    add edi, 8
    add eax, 4096
    dec ecx
    jnz fill_pdpt
    mov edi, PD
    mov eax, 0x83
    mov ecx, 2048
fill_pd:
    mov [edi], eax
    add edi, 8
    add eax, 0x200000
    dec ecx
    jnz fill_pd
    mov eax, 0x620                          # CR4: PAE, SSE allowed
    mov cr4, eax
    mov eax, PML4
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, 0x80010033
    mov cr0, eax
    .byte 0x0f, 0x01, 0x15                  # lgdt [gdt_pointer]
    .long gdt_pointer
    .byte 0xea                              # jmp 8:start64
    .long start64
    .word 8

.code64
start64:
    mov eax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov rsp, STACK
    mov rdi, IDT
    mov ecx, 256
fill_idt:
    lea rax, [trap]
    mov edx, eax
    and edx, 0xffff
    or edx, 0x80000
    mov [rdi], edx
    and eax, 0xffff0000
    or eax, 0x8e00
    mov [rdi + 4], eax
    add rdi, 16
    dec ecx
    jnz fill_idt
    lidt [idt_pointer]
    mov dword ptr [TSS + 4], STACK
    mov word ptr [TSS + 102], 104
    mov eax, 0x28
    ltr ax
    mov al, 0x11
    out 0x20, al
    out 0xa0, al
    mov al, 32
    out 0x21, al
    mov al, 40
    out 0xa1, al
    mov al, 4
    out 0x21, al
    mov al, 2
    out 0xa1, al
    mov al, 1
    out 0x21, al
    out 0xa1, al
    mov al, 0xfe                            # only the timer
    out 0x21, al
    mov al, 0xff
    out 0xa1, al
    mov al, 0x34
    out 0x43, al
    mov al, 11932 & 0xff
    out 0x40, al
    mov al, 11932 >> 8
    out 0x40, al
    lea rsi, [announcement]
announce:
    mov al, [rsi]
    test al, al
    jz main
    mov edx, 0x3f8
    out dx, al
    inc rsi
    jmp announce

trap:
    mov rsp, STACK
    cld
    mov eax, 0x10
    mov ds, ax
    mov es, ax
    mov al, 0x20
    out 0x20, al
    jmp next_round

# Returns the next pseudo-random number in RAX (a linear congruential generator).
random:
    mov rax, [seed]
    mov rdx, 6364136223846793005
    imul rax, rdx
    add rax, 1442695
    mov [seed], rax
    rol rax, 32
    ret

gdt:
    .quad 0
    .quad 0x00af9a000000ffff                # 0x08 kernel code
    .quad 0x00cf92000000ffff                # 0x10 kernel data
    .quad 0x00affa000000ffff                # 0x18 user code
    .quad 0x00cff2000000ffff                # 0x20 user data
    .quad TSS_DESCRIPTOR
    .quad 0
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt
idt_pointer:
    .word 4095
    .quad IDT
seed:
    .quad 88172645463325252
