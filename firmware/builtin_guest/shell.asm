# The shell: reads a line, looks the first word up in a table, calls the command with RSI at its argument.

shell:
    mov rsp, STACK_TOP                      # a command that failed may have left anything on the stack
    sti
    lea rsi, [text_prompt]
    call print
    call read_line
    lea rsi, [line]
    call skip_blanks
    cmp byte ptr [rsi], 0
    je shell
    lea rbx, [commands]
try_command:
    mov rdi, [rbx]
    test rdi, rdi
    jz unknown_command
    mov rdx, rsi
match_command:
    mov al, [rdi]
    test al, al
    jz match_end
    cmp al, [rdx]
    jne next_command
    inc rdi
    inc rdx
    jmp match_command
match_end:
    cmp byte ptr [rdx], ' '                 # the word must end here
    je run_command
    cmp byte ptr [rdx], 0
    je run_command
next_command:
    add rbx, 24
    jmp try_command
run_command:
    mov rsi, rdx
    call skip_blanks
    call qword ptr [rbx + 8]
    jmp shell
unknown_command:
    lea rsi, [text_unknown]
    call print
    jmp shell

skip_blanks:
    cmp byte ptr [rsi], ' '
    jne blanks_done
    inc rsi
    jmp skip_blanks
blanks_done:
    ret

# Reads a line into [line], with echo and backspace.
read_line:
    xor ebx, ebx
next_key:
    call read_key
    cmp al, 13
    je line_done
    cmp al, 10
    je line_done
    cmp al, 8
    je backspace
    cmp al, 127
    je backspace
    cmp al, 3                               # Ctrl-C: forget the line
    je forget_line
    cmp al, ' '
    jb next_key
    cmp ebx, 79
    jae next_key
    mov [line + rbx], al
    inc ebx
    call print_character
    jmp next_key
backspace:
    test ebx, ebx
    jz next_key
    dec ebx
    lea rsi, [text_rubout]
    call print
    jmp next_key
forget_line:
    xor ebx, ebx
line_done:
    mov byte ptr [line + rbx], 0
    jmp print_newline

# Reads a hexadecimal number at RSI into RAX; stops at the first other character.
parse_hex:
    xor eax, eax
    cmp word ptr [rsi], 0x7830              # skip 0x
    jne parse_digit
    add rsi, 2
parse_digit:
    movzx ecx, byte ptr [rsi]
    sub ecx, '0'
    cmp ecx, 10
    jb parse_add
    movzx ecx, byte ptr [rsi]
    or ecx, 0x20
    sub ecx, 87                             # 'a' - 10
    cmp ecx, 10
    jb parse_done
    cmp ecx, 16
    jae parse_done
parse_add:
    shl rax, 4
    or rax, rcx
    inc rsi
    jmp parse_digit
parse_done:
    ret

command_help:
    lea rbx, [commands]
help_next:
    mov rsi, [rbx]
    test rsi, rsi
    jz help_done
    call print
    mov al, 9
    call print_character
    mov rsi, [rbx + 16]
    call print
    call print_newline
    add rbx, 24
    jmp help_next
help_done:
    ret

# The loader's memory map: entries of size, address, length, type; the size field doesn't count itself.
command_mem:
    mov ebx, [boot_info]
    test ebx, ebx
    jz mem_frames
    test byte ptr [rbx], 0x40               # flag: there is a memory map
    jz mem_frames
    mov r12d, [rbx + 44]                    # its size
    mov r13d, [rbx + 48]                    # its address
    add r12, r13
mem_next:
    cmp r13, r12
    jae mem_frames
    mov rax, [r13 + 4]
    call print_hex
    lea rsi, [text_to]
    call print
    mov rax, [r13 + 4]
    add rax, [r13 + 12]
    dec rax
    call print_hex
    lea rsi, [text_ram]
    cmp dword ptr [r13 + 20], 1
    je mem_kind
    lea rsi, [text_reserved]
mem_kind:
    call print
    mov eax, [r13]
    lea r13, [r13 + rax + 4]
    jmp mem_next
mem_frames:
    lea rsi, [text_frames]
    call print
    mov rax, [next_frame]
    sub rax, FRAMES
    shr rax, 12
    call print_decimal
    lea rsi, [text_demand]
    call print
    mov rax, [demand_faults]
    call print_decimal
    jmp print_newline

command_regs:
    int3                                    # the breakpoint handler prints them
    ret

command_ticks:
    mov rax, [ticks]
    call print_decimal
    jmp print_newline

command_fault:
    mov rbx, [demand_next]
    add qword ptr [demand_next], 4096
    lea rsi, [text_touch]
    call print
    mov rax, rbx
    call print_hex
    mov rbp, [demand_faults]
    mov qword ptr [rbx], 42                 # this faults, page_fault maps the page, and it runs again
    mov rax, [demand_faults]
    sub rax, rbp
    mov rbp, rax
    lea rsi, [text_page_faults]
    call print
    mov rax, rbp
    call print_decimal
    lea rsi, [text_read_back]
    call print
    mov rax, [rbx]
    call print_decimal
    jmp print_newline

command_crash:
    mov rax, 0x700000000000                 # nothing is mapped there, and it is not the demand area
    mov rax, [rax]
    ret

command_cpuid:
    xor eax, eax
    cpuid
    mov [line], ebx
    mov [line + 4], edx
    mov [line + 8], ecx
    mov byte ptr [line + 12], 0
    lea rsi, [line]
    call print
    call print_newline
    mov eax, 0x80000000
    cpuid
    cmp eax, 0x80000004
    jb cpuid_features
    mov r12d, 0x80000002                    # the name comes in three pieces of 16 bytes
    lea r13, [line]
cpuid_piece:
    mov eax, r12d
    cpuid
    mov [r13], eax
    mov [r13 + 4], ebx
    mov [r13 + 8], ecx
    mov [r13 + 12], edx
    add r13, 16
    inc r12d
    cmp r12d, 0x80000005
    jb cpuid_piece
    mov byte ptr [r13], 0
    lea rsi, [line]
    call print
    call print_newline
cpuid_features:
    mov eax, 1
    cpuid
    mov r12d, ecx
    mov r13d, edx
    mov ebx, eax
    lea rsi, [text_signature]
    call print
    mov rax, rbx
    call print_hex
    lea rsi, [text_features]
    call print
    mov rax, r12
    shl rax, 32
    or rax, r13
    call print_hex
    jmp print_newline

command_peek:
    call parse_hex
    mov rbx, rax
    call print_hex
    lea rsi, [text_colon]
    call print
    lea rax, [peek_failed]
    mov [recover], rax                      # if the next instruction faults, go there
    mov rbp, [rbx]
    mov qword ptr [recover], 0
    mov rax, rbp
    call print_hex
    jmp print_newline
peek_failed:
    lea rsi, [text_not_mapped]
    jmp print

commands:
    .quad name_help, command_help, help_help
    .quad name_mem, command_mem, help_mem
    .quad name_regs, command_regs, help_regs
    .quad name_ticks, command_ticks, help_ticks
    .quad name_fault, command_fault, help_fault
    .quad name_crash, command_crash, help_crash
    .quad name_cpuid, command_cpuid, help_cpuid
    .quad name_peek, command_peek, help_peek
    .quad name_selftest, selftest, help_selftest
    .quad name_reboot, reboot, help_reboot
    .quad name_poweroff, power_off, help_poweroff
    .quad 0

demand_next:
    .quad DEMAND_BASE + 0x100000
line:
    .space 80
text_prompt:
    .asciz "> "
text_rubout:
    .asciz "\b \b"
text_unknown:
    .asciz "unknown command, try help\r\n"
text_to:
    .asciz " - "
text_ram:
    .asciz " RAM\r\n"
text_reserved:
    .asciz " reserved\r\n"
text_frames:
    .asciz "frames in use: "
text_demand:
    .asciz ", page faults served: "
text_touch:
    .asciz "writing 42 to "
text_page_faults:
    .asciz ": page faults "
text_read_back:
    .asciz ", reads back "
text_signature:
    .asciz "signature "
text_features:
    .asciz ", features (ecx:edx) "
text_colon:
    .asciz ": "
text_not_mapped:
    .asciz "not mapped\r\n"
name_help:
    .asciz "help"
name_mem:
    .asciz "mem"
name_regs:
    .asciz "regs"
name_ticks:
    .asciz "ticks"
name_fault:
    .asciz "fault"
name_crash:
    .asciz "crash"
name_cpuid:
    .asciz "cpuid"
name_peek:
    .asciz "peek"
name_selftest:
    .asciz "selftest"
name_reboot:
    .asciz "reboot"
name_poweroff:
    .asciz "poweroff"
help_help:
    .asciz "\tthis list"
help_mem:
    .asciz "\tthe memory map, and frames handed out by demand paging"
help_regs:
    .asciz "\tthe registers, as a breakpoint sees them"
help_ticks:
    .asciz "\ttimer interrupts so far"
help_fault:
    .asciz "\ttouch a page that isn't there: the page fault handler supplies it"
help_crash:
    .asciz "\ttouch one that nobody supplies: an exception, and back here"
help_cpuid:
    .asciz "\twhat the processor says it is"
help_peek:
    .asciz "\tpeek <hex address>: eight bytes of memory"
help_selftest:
    .asciz "check the processor and the machine"
help_reboot:
    .asciz "\treset the machine"
help_poweroff:
    .asciz "switch the machine off"
