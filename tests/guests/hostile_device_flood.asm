# A flooded device: the timer chip interrupts as often as it can, the APIC timer too, the serial port gets characters
# faster than it sends them, and others get random accesses in between.

main:
    mov al, 0x34
    out 0x43, al
    mov al, 2                               # 596,591 interrupts a second
    out 0x40, al
    xor eax, eax
    out 0x40, al
    mov edx, 0x3f9                          # all serial interrupts on
    mov al, 15
    out dx, al
    mov edx, 0x3fc
    mov al, 11
    out dx, al
    mov al, 0xee                            # timer and serial port
    out 0x21, al
    mov rdi, 0xfee00000
    mov dword ptr [rdi + 0xf0], 0x1ff       # APIC on
    mov dword ptr [rdi + 0x3e0], 11         # divide by 1
    mov dword ptr [rdi + 0x320], 0x20040    # periodic, vector 64
    mov dword ptr [rdi + 0x380], 1
next_round:
    mov rdi, 0xfee00000
    mov dword ptr [rdi + 0xb0], 0           # end of interrupt
    mov dword ptr [rdi + 0x300], 0x40050    # an interrupt to itself, vector 80
    mov ecx, 64
flood:
    mov edx, 0x3f8
    mov al, '.'
    out dx, al
    call random
    mov rbx, rax
    and ebx, 15
    movzx edx, word ptr [ports + rbx * 2]
    test eax, 0x100
    jz flood_read
    rol rax, 8
    out dx, al
    jmp flood_next
flood_read:
    in eax, dx
flood_next:
    dec ecx
    jnz flood
    sti
    nop
    cli
    jmp next_round

ports:
    .word 0x40, 0x42, 0x43, 0x60, 0x61, 0x3fe, 0x70, 0x71
    .word 0x80, 0xcf8, 0x3fa, 0x3fd, 0x3ff, 0x608, 0x20, 0xa0
