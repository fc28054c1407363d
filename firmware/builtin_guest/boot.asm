# From the boot loader to 64-bit mode.
#
# The loader found the multiboot header below, copied this file to KERNEL_BASE (1 MiB), and jumped to start32 in
# 32-bit protected mode: paging off, flat segments, EAX = a magic number, EBX = the address of a structure that
# holds the command line and the memory map.

.code32
kernel_start:
multiboot_header:
    .long 0x1badb002                        # magic
    .long 0x00010003                        # flags: align modules, give memory map, addresses follow
    .long 0xe4514ffb                        # checksum: the three add up to zero
    .long multiboot_header                  # where this header is in memory
    .long kernel_start                      # load from here ...
    .long kernel_end                        # ... to here,
    .long FRAMES_END                        # and keep all this memory for the kernel
    .long start32                           # begin here

start32:
    cli                                     # no interrupts before there is a table of handlers
    cld
    mov esp, STACK_TOP
    mov [boot_info], ebx
    cmp eax, 0x2badb002
    je boot_known
    mov dword ptr [boot_info], 0            # another loader: no command line, no memory map
boot_known:

    # Tables in memory start out empty. IDT, PML4, PDPT, PD and TSS are five pages in a row.
    mov edi, IDT
    mov ecx, 5120
    xor eax, eax
    rep stosd

    # Page tables. A 64-bit address is split into four 9-bit indices (PML4, PDPT, PD, PT) and a 12-bit offset.
    # The first GiB is mapped onto itself with 512 large pages of 2 MiB, which end the walk at the PD.
    # Bits: 1 = present, 2 = writable, 4 = user, 0x80 = large page.
    mov dword ptr [PML4], PDPT + 7
    mov dword ptr [PDPT], PD + 3
    mov edi, PD
    mov eax, 0x83
    mov ecx, 512
boot_map:
    mov [edi], eax
    add eax, 0x200000
    add edi, 8
    dec ecx
    jnz boot_map

    # Long mode needs: PAE paging in CR4, the LME bit in the EFER register, a page table in CR3, then paging on.
    mov eax, 0x620                          # CR4: PAE, and SSE instructions allowed
    mov cr4, eax
    mov eax, PML4
    mov cr3, eax
    mov ecx, 0xc0000080                     # EFER
    rdmsr
    or eax, 0x101                           # LME: long mode; SCE: the SYSCALL instruction
    wrmsr
    mov eax, 0x80010033                     # CR0: PG, WP, NE, ET, MP, PE
    mov cr0, eax

    # The processor is in long mode, but still runs 32-bit code: a jump to a 64-bit code segment ends that.
    .byte 0x0f, 0x01, 0x15                  # LGDT with an address (spelled out: the assembler would make it 16-bit)
    .long gdt_pointer
    .byte 0xea                              # far jump: offset, then selector
    .long start64
    .word KERNEL_CS

.code64
start64:
    mov eax, KERNEL_DS
    mov ds, ax
    mov es, ax
    mov ss, ax
    xor eax, eax
    mov fs, ax
    mov gs, ax
    mov rsp, STACK_TOP
    fninit
    call setup_interrupts
    call setup_system_calls
    call setup_serial
    sti
    lea rsi, [text_banner]
    call print
    call command_line_has_selftest
    test eax, eax
    jz shell
    call selftest
    jmp power_off

# Returns 1 in EAX if the boot loader's command line contains the word selftest.
command_line_has_selftest:
    mov eax, [boot_info]
    test eax, eax
    jz no_selftest
    test byte ptr [rax], 4                  # flag: there is a command line
    jz no_selftest
    mov esi, [rax + 16]
find_word:
    lea rdi, [text_selftest_word]
    mov rdx, rsi
compare_word:
    mov al, [rdi]
    test al, al
    jz word_found
    cmp al, [rdx]
    jne next_start
    inc rdi
    inc rdx
    jmp compare_word
next_start:
    cmp byte ptr [rsi], 0
    je no_selftest
    inc rsi
    jmp find_word
word_found:
    mov eax, 1
    ret
no_selftest:
    xor eax, eax
    ret

# ACPI "soft off": the sleep type and the sleep-enable bit (13) go into the PM1a control register.
power_off:
    lea rsi, [text_power_off]
    call print
    call drain
    cli
    mov edx, PM1A_CONTROL
    mov eax, SLEEP_VALUE
    out dx, ax
stopped:
    hlt
    jmp stopped

reboot:
    call drain
    mov edx, RESET_PORT
    mov eax, RESET_VALUE
    out dx, al
    jmp stopped

boot_info:
    .quad 0

# Segments. In 64-bit mode bases and limits are ignored; what counts is code or data, and the privilege level.
gdt:
    .quad 0
    .quad 0x00af9a000000ffff                # 0x08 kernel code, 64-bit
    .quad 0x00cf92000000ffff                # 0x10 kernel data
    .quad 0x00cffa000000ffff                # 0x18 user code, 32-bit (SYSRET counts from here)
    .quad 0x00cff2000000ffff                # 0x20 user data
    .quad 0x00affa000000ffff                # 0x28 user code, 64-bit
    .quad TSS_DESCRIPTOR                    # 0x30 task state segment: two entries long
    .quad 0
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt

text_banner:
    .asciz "\r\npyemu built-in guest: 64-bit mode, paging on, timer at 20 Hz. Type help.\r\n"
text_selftest_word:
    .asciz "selftest"
text_power_off:
    .asciz "powering off\r\n"
