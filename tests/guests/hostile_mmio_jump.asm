# Jumps into MMIO: every round runs whatever is "code" at the next of these addresses, until an exception or the timer.

main:
next_round:
    movzx ecx, byte ptr [turn]
    inc byte ptr [turn]
    and ecx, 15
    mov rax, [targets + rcx * 8]
    mov rdi, rax                            # so that what runs there reads and writes there too
    mov rsi, rax
    mov rbx, rax
    mov rbp, rax
    sti
    jmp rax

turn:
    .quad 0
targets:
    .quad 0xfee00000                        # local APIC
    .quad 0xfee00ffe                        # ... and across its end
    .quad 0xfec00000                        # I/O APIC
    .quad 0xfec00010
    .quad 0xfed00000                        # HPET
    .quad 0xfed000f3
    .quad 0xe0000000                        # PCI configuration space, perhaps
    .quad 0xe00fffff
    .quad 0xd0000000                        # nothing
    .quad 0xa0000                           # video memory, perhaps
    .quad 0xbffff
    .quad 0xffff0                           # the BIOS area
    .quad 0xfffffff0                        # where a ROM might be
    .quad 0xfffffffe                        # across 4 GiB, into what isn't mapped
    .quad 0xffffffffffffffff                # across the end of the address space
    .quad 0x7fffffffffff                    # into what is not canonical
