# The console: a 16550 serial port. Output waits for the chip, input arrives by interrupt into a ring of 256 bytes.

setup_serial:
    mov edx, COM1 + 1
    xor eax, eax
    out dx, al                              # no interrupts yet
    mov edx, COM1 + 3
    mov al, 0x80
    out dx, al                              # divisor latch
    mov edx, COM1
    mov al, 1
    out dx, al                              # 115200 baud
    mov edx, COM1 + 1
    xor eax, eax
    out dx, al
    mov edx, COM1 + 3
    mov al, 3
    out dx, al                              # 8 data bits, no parity, 1 stop bit
    mov edx, COM1 + 2
    mov al, 7
    out dx, al                              # FIFOs on and empty, interrupt for each byte
    mov edx, COM1 + 4
    mov al, 0x0b
    out dx, al                              # DTR, RTS, OUT2 (which connects the interrupt line)
    mov edx, COM1 + 1
    mov al, 1
    out dx, al                              # interrupt when a byte has arrived
    ret

serial_interrupt:
    mov edx, COM1 + 2
    in al, dx                               # which kind of interrupt: only received data is enabled
serial_next:
    mov edx, COM1 + 5
    in al, dx
    test al, 1                              # is there a byte?
    jz serial_done
    mov edx, COM1
    in al, dx
    movzx ecx, byte ptr [input_head]
    mov [input_ring + rcx], al
    inc cl
    cmp cl, [input_tail]
    je serial_next                          # full: drop the byte
    mov [input_head], cl
    jmp serial_next
serial_done:
    ret

# Waits for a key and returns it in AL.
read_key:
    cli                                     # an interrupt between the look and the HLT would be slept through
    movzx ecx, byte ptr [input_tail]
    cmp cl, [input_head]
    jne key_there
    sti                                     # takes effect after the next instruction, so nothing is lost
    hlt
    jmp read_key
key_there:
    mov al, [input_ring + rcx]
    inc cl
    mov [input_tail], cl
    sti
    ret

# Prints the character in AL. Keeps all registers but RAX and RDX.
print_character:
    mov ah, al
    mov edx, COM1 + 5
wait_room:
    in al, dx
    test al, 0x20                           # transmitter can take a byte
    jz wait_room
    mov edx, COM1
    mov al, ah
    out dx, al
    ret

# Waits until the last byte has left the chip.
drain:
    mov edx, COM1 + 5
wait_empty:
    in al, dx
    test al, 0x40
    jz wait_empty
    ret

# Prints the zero-terminated text at RSI.
print:
    mov al, [rsi]
    test al, al
    jz print_done
    call print_character
    inc rsi
    jmp print
print_done:
    ret

print_newline:
    lea rsi, [text_newline]
    jmp print

# Prints RAX as sixteen hexadecimal digits.
print_hex:
    mov rdi, rax
    mov ecx, 16
hex_digit:
    rol rdi, 4
    mov eax, edi
    and eax, 15
    mov al, [hex_digits + rax]
    call print_character
    dec ecx
    jnz hex_digit
    ret

# Prints RAX as a decimal number.
print_decimal:
    mov edi, 10
    xor ecx, ecx
decimal_divide:
    xor edx, edx
    div rdi
    push rdx                                # digits come out last first
    inc ecx
    test rax, rax
    jnz decimal_divide
decimal_print:
    pop rax
    add al, '0'
    call print_character
    dec ecx
    jnz decimal_print
    ret

input_head:
    .quad 0
input_tail:
    .quad 0
input_ring:
    .space 256
hex_digits:
    .ascii "0123456789abcdef"
text_newline:
    .asciz "\r\n"
