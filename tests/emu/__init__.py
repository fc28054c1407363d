"""Tests of the emulator shell: memory, bus, clock, run loop, character devices, command line."""
