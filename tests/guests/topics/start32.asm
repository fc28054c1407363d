# Start-up of a guest of 32-bit programs: flat segments, no paging.
    lgdt [gdt_pointer]
    .byte 0xea
    .long start_flat
    .word 8
start_flat:
