"""The server for gdb's remote protocol (gdb manual, appendix E): `-s`, `-gdb`.

packets      framing: checksums, escapes, garbage
description  registers: what gdb is told of them, and how they are read and written
session      what each packet means
server       sockets, and the thread that serves them
"""
