# A 64 KiB ROM that copies itself into the RAM behind it and says in each state of that memory what it reads, writes
# and executes: `say` prints "r" as it is in the ROM, "R" where its copy in RAM has been changed.
# PAM_ADDRESS and PAM_DATA lead to the register for 0xf0000 in the configuration space of the host bridge.

.code16
rom_start:
begin:
    cli
    cld
    xor ax, ax
    mov ss, ax
    mov sp, 0x7000
    mov ax, 0xf000
    mov ds, ax
    mov es, ax

    mov word ptr [patch], 0x78b0            # ROM: mov al, "x" would be said, if this were written
    call say

    mov al, 0x20                            # reads from ROM, writes to RAM: the copy happens while the ROM runs
    call set_pam
    xor si, si
    xor di, di
    mov cx, 0x8000
    rep movsw
    mov word ptr [patch], 0x52b0            # mov al, "R"
    call say
    inc byte ptr [counter]                  # what is modified is what is read: the ROM's 0x30 becomes RAM's 0x31

    mov al, 0x30                            # RAM
    call set_pam
    call say
    mov al, [counter]
    call print

    mov al, 0x10                            # RAM that can't be written
    call set_pam
    mov word ptr [patch], 0x78b0
    call say

    mov al, 0                               # ROM
    call set_pam
    call say

    mov al, 0x30                            # RAM, which has kept what it had
    call set_pam
    call say
    mov word ptr [patch], 0x21b0            # mov al, "!"
    call say

    mov dx, DEBUG_EXIT
    xor al, al
    out dx, al
stop:
    hlt
    jmp stop

say:
    .byte 0xeb, 0                           # jmp to the next instruction, so that it begins a block
patch:
    .byte 0xb0, 0x72                        # mov al, "r"
print:
    mov dx, COM1
    out dx, al
    ret

set_pam:
    mov ah, al
    mov dx, 0xcf8
    push ax
    mov eax, PAM_ADDRESS
    out dx, eax
    pop ax
    mov al, ah
    mov dx, PAM_DATA
    out dx, al
    ret

counter:
    .byte 0x30
