# Start-up of a guest of 64-bit programs: the first 4 GiB mapped onto themselves, for CPL 3 too.
    mov edi, PML4
    mov ecx, 6 * 1024
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
    mov eax, 0x87
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
    lgdt [gdt_pointer]
    .byte 0xea
    .long start_long
    .word 8
.code64
start_long:
