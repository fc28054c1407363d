# An instruction that lies in two pages, the second of which is mapped now here, now there: after INVLPG or a write of CR3
# the new bytes are executed, however control gets there. Prints "pass" or "fail".

.set FIRST, 0x300000                        # the page that the instruction begins in
.set ONE, 0x301000                          # what follows it: one page or the other
.set OTHER, 0x302000

main:
    mov rdi, PT
    mov dword ptr [rdi], FIRST + 3
    mov dword ptr [rdi + 8], ONE + 3
    mov dword ptr [PD + 16], PT + 3
    mov rax, cr3
    mov cr3, rax
    mov byte ptr [FIRST + 0xffe], 0xb8      # mov eax, imm32; the rest of it is in the second page
    mov byte ptr [FIRST + 0xfff], 0x77
    mov dword ptr [ONE], 0xc3111111         # ...; ret
    mov dword ptr [OTHER], 0xc3222222
    mov byte ptr [FIRST + 0xf00], 0xe9      # jmp to it, from the same page
    mov dword ptr [FIRST + 0xf01], 0xf9
    xor ebp, ebp
again:
    mov ebx, 0x11111177
    mov eax, ONE + 3
    test ebp, 1
    jz map
    mov ebx, 0x22222277
    mov eax, OTHER + 3
map:
    mov [PT + 8], eax
    test ebp, 2
    jz by_reload
    mov rdx, WINDOW + 0x1000
    invlpg [rdx]
    jmp execute
by_reload:
    mov rax, cr3
    mov cr3, rax
execute:
    mov ecx, 3                              # often enough that whatever is remembered is used
few_times:
    mov rdx, WINDOW + 0xffe
    call rdx
    cmp eax, ebx
    jne failed
    mov rdx, WINDOW + 0xf00
    call rdx
    cmp eax, ebx
    jne failed
    dec ecx
    jnz few_times
    inc ebp
    cmp ebp, 64
    jb again
    lea rsi, [passes]
    jmp say
next_round:
failed:
    lea rsi, [fails]
say:
    mov edx, 0x3f8
say_next:
    mov al, [rsi]
    out dx, al
    inc rsi
    test al, al
    jnz say_next
finished:
    hlt
    jmp finished

passes:
    .asciz "pass\r\n"
fails:
    .asciz "fail\r\n"
