"""How a guest starts: boot protocols, ACPI, SMBIOS and MP tables, the built-in guest.

The way in is `boot.prepare(BootRequest(...), Platform())`, which returns a `BootImage`: plain data for the emu layer
to apply. `BootError` is every reason why a guest can't be started, in one line.
"""
