# Page tables mapped over themselves: a page table whose entries map the page tables, itself included. Each round writes
# a random entry through that mapping (other tables, devices, addresses beyond all memory, reserved bits), then reads
# and runs what it maps.

main:
    mov rdi, PT
    mov eax, PML4 + 3
    mov ecx, 512
fill_pt:
    mov [rdi], rax                          # entries 0-7 map the eight tables, and so on in a circle
    add rdi, 8
    add eax, 4096
    cmp eax, PML4 + 0x8003
    jb fill_next
    mov eax, PML4 + 3
fill_next:
    dec ecx
    jnz fill_pt
    mov dword ptr [PT + 64], PT + 3         # entry 8: the page table itself, at WINDOW + 0x8000
    mov dword ptr [PD + 16], PT + 3         # its 2 MiB begin at WINDOW
    mov dword ptr [PML4 + 8 * 511], PML4 + 3    # and the whole hierarchy is entered at its top again
    mov rax, cr3
    mov cr3, rax
next_round:
    mov qword ptr [PT + 64], PT + 3         # repair the entry that the writes go through
    mov rdi, WINDOW + 0x8000
    invlpg [rdi]
    call random
    mov rcx, rax
    and ecx, 511
    call random
    mov rbx, rax
    and ebx, 15
    mov rbx, [entries + rbx * 8]
    mov [rdi + rcx * 8], rbx                # the page table changes itself
    mov r8, rcx
    shl r8, 12
    add r8, WINDOW
    test al, 0x10
    jz without_invlpg
    invlpg [r8]
without_invlpg:
    test al, 0x20
    jz without_reload
    mov rdx, cr3
    mov cr3, rdx
without_reload:
    mov rdx, -4096                          # the top table through its recursive entry
    mov rdx, [rdx]
    mov rdx, [r8 + 0xffc]                   # across a page boundary
    sti
    test al, 0x40
    jz stay
    jmp r8                                  # run the table
stay:
    cli
    jmp next_round

entries:
    .quad PT + 3
    .quad PT + 0x63
    .quad PML4 + 1
    .quad PDPT + 1
    .quad PD + 1
    .quad PT + 1
    .quad 0
    .quad 0xfee00003
    .quad 0xfec0001b
    .quad 0x000ffffffffff003                # the last physical page
    .quad 0x0000000fffff0001                # beyond RAM
    .quad 0x7ff0000000000003                # reserved bits
    .quad 0x8000000000000001 + PT           # not executable, but that feature is off
    .quad 0xd0000001
    .quad PT + 0x83                         # in a last-level table this bit is the PAT bit
    .quad image_start + 1
