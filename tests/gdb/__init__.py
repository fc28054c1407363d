"""The gdb server, with packets and with Debian's gdb."""
