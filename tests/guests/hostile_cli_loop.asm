# Interrupts off in a tight loop.

main:
next_round:
    cli
loop_forever:
    jmp loop_forever
