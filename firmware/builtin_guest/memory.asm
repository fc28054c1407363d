# Demand paging: the GiB at DEMAND_BASE has no memory behind it until somebody touches it.
#
# A touch makes the processor look for a page table entry, find none, and raise exception 14 with the address in CR2.
# page_fault then takes a free frame of memory, enters it, and returns: the instruction runs again and succeeds.

page_fault:
    mov rdi, cr2
    test byte ptr [rbx + FRAME_ERROR], 1    # error code bit 0: the page was there, so access was forbidden
    jnz not_demand
    mov rax, DEMAND_BASE
    mov rcx, rdi
    sub rcx, rax
    cmp rcx, 0x40000000
    jae not_demand
    inc qword ptr [demand_faults]
    call map_page
    ret
not_demand:
    jmp exception

# Enters a fresh frame for the page of address RDI. Walks the four levels and adds tables where they are missing.
# Returns the address of the page table entry in R8. Changes RAX and RCX.
map_page:
    mov r8d, PML4
    mov ecx, 39                             # the PML4 index is bits 39-47
walk_level:
    mov rax, rdi
    shr rax, cl
    and eax, 511
    lea r8, [r8 + rax * 8]                  # the entry in this table
    cmp ecx, 12
    je walk_leaf
    mov rax, [r8]
    test al, 1
    jnz walk_down
    call take_frame
    or rax, 7                               # present, writable, user
    mov [r8], rax
walk_down:
    and rax, -4096                          # the address of the next table, without the flags
    mov r8, rax
    sub ecx, 9
    jmp walk_level
walk_leaf:
    call take_frame
    or rax, 7
    mov [r8], rax
    ret

# Returns the address of a zeroed 4 KiB frame in RAX. When all are used it starts over with the first.
take_frame:
    push rcx
    push rdi
    mov rdi, [next_frame]
    mov rax, rdi
    add rax, 4096
    cmp rax, FRAMES_END
    jb frame_left
    mov eax, FRAMES
frame_left:
    mov [next_frame], rax
    push rdi
    xor eax, eax
    mov ecx, 512
    rep stosq
    pop rax
    pop rdi
    pop rcx
    ret

next_frame:
    .quad FRAMES
demand_faults:
    .quad 0
